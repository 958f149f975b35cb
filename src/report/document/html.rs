//! One HTML file that needs nothing else: no script, no network. The policy in its head forbids both, so that
//! nothing runs even if a text got past the escaping.

use std::fmt::Write as _;

use super::{Block, Cell, Document, Kind, Picture, Table, Tone, shown, visible};

const STYLE: &str = include_str!("style.css");
/// Headings go no deeper.
const DEEPEST: usize = 6;

impl Document {
    /// The report as an HTML page.
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        let mut page = Page::default();
        for block in &self.blocks {
            page.block(block, 2);
        }
        let entries = page
            .contents
            .iter()
            .map(|(id, title)| format!("<li><a href=\"#{id}\">{title}</a></li>\n"));
        let entries: String = entries.collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#main\">Skip to the report</a>\n\
             <header>\n<h1>{title}</h1>\n<nav aria-label=\"Contents\">\n<ul>\n{entries}</ul>\n</nav>\n</header>\n\
             <main id=\"main\" tabindex=\"-1\">\n{}</main>\n</body>\n</html>\n",
            page.body
        )
    }
}

/// A page while it is written.
#[derive(Default)]
struct Page {
    body: String,
    /// Id and escaped title of the sections under the page's title.
    contents: Vec<(String, String)>,
    /// Numbers that make ids unique.
    n_ids: usize,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.body.push_str(text);
        self.body.push('\n');
    }

    fn id(&mut self, of: &str) -> String {
        self.n_ids += 1;
        format!("{of}-{}", self.n_ids)
    }

    fn block(&mut self, block: &Block, level: usize) {
        match block {
            Block::Section { title, blocks } => {
                let (id, title) = (self.id("section"), escaped(title));
                self.line(&format!(
                    "<section aria-labelledby=\"{id}\">\n<h{level} id=\"{id}\">{title}</h{level}>"
                ));
                if level == 2 {
                    self.contents.push((id, title));
                }
                self.blocks(blocks, (level + 1).min(DEEPEST));
                self.line("</section>");
            }
            Block::Paragraph(text) => self.line(&format!("<p>{}</p>", lines(text))),
            Block::Notice(text) => {
                self.line(&format!(
                    "<p class=\"notice\" role=\"note\">{}</p>",
                    lines(text)
                ));
            }
            Block::List(items) => {
                let items = items
                    .iter()
                    .map(|item| format!("<li>{}</li>\n", lines(item)));
                let items: String = items.collect();
                self.line(&format!("<ul>\n{items}</ul>"));
            }
            Block::Table(table) => self.table(table),
            Block::Code(text) => self.line(&format!(
                "<pre tabindex=\"0\"><code>{}</code></pre>",
                escaped(text)
            )),
            Block::Picture(picture) => self.picture(picture),
            Block::Details { summary, blocks } => {
                self.line(&format!(
                    "<details>\n<summary>{}</summary>",
                    escaped(summary)
                ));
                self.blocks(blocks, level);
                self.line("</details>");
            }
        }
    }

    fn blocks(&mut self, blocks: &[Block], level: usize) {
        for block in blocks {
            self.block(block, level);
        }
    }

    /// A table in a box of its own, which scrolls, by keyboard too.
    fn table(&mut self, table: &Table) {
        let id = self.id("table");
        self.line(&format!(
            "<div class=\"box\" role=\"region\" aria-labelledby=\"{id}\" tabindex=\"0\">\n<table>\n\
             <caption id=\"{id}\">{}</caption>\n<thead><tr>",
            lines(&table.caption)
        ));
        for column in &table.columns {
            self.line(&format!(
                "<th scope=\"col\"{}>{}</th>",
                class(column.kind),
                escaped(&column.head)
            ));
        }
        self.line("</tr></thead>\n<tbody>");
        for row in &table.rows {
            self.line("<tr>");
            for (column, cell) in table.columns.iter().zip(row) {
                let (class, text) = (class(column.kind), of_cell(cell, column.kind));
                self.line(&match column.kind {
                    Kind::Name => format!("<th scope=\"row\"{class}>{text}</th>"),
                    Kind::Number | Kind::Text => format!("<td{class}>{text}</td>"),
                });
            }
            self.line("</tr>");
        }
        self.line("</tbody>\n</table>\n</div>");
    }

    /// The drawing itself, with its texts for those who do not see it.
    fn picture(&mut self, picture: &Picture) {
        let id = self.id("picture");
        let (title, description) = (escaped(&picture.title), escaped(&picture.description));
        let svg = visible(&picture.svg);
        let drawing = svg.find("<svg").map_or("", |at| &svg[at..]);
        let (tag, rest) = drawing.split_once('>').unwrap_or_default();
        self.line(&format!(
            "<figure>\n<div class=\"box\" role=\"region\" aria-label=\"{title}\" tabindex=\"0\">\n\
             {tag} role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
             <title id=\"{id}-title\">{title}</title>\n<desc id=\"{id}-desc\">{description}</desc>{rest}\n</div>\n\
             <figcaption>{description}</figcaption>\n</figure>"
        ));
    }
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => " class=\"number\"",
        Kind::Name | Kind::Text => "",
    }
}

fn of_cell(cell: &Cell, kind: Kind) -> String {
    let text = shown(cell, kind);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let first = markup(first);
    let first = match cell.tone {
        Some(Tone::Holds) => format!("<span class=\"verdict holds\">{first}</span>"),
        Some(Tone::Fails) => format!("<span class=\"verdict fails\">{first}</span>"),
        Some(Tone::Open) => format!("<span class=\"verdict open\">{first}</span>"),
        None => first,
    };
    let mut found = first;
    for line in rest.lines() {
        // Writing to a string cannot fail.
        let _ = write!(found, "<br><small>{}</small>", markup(line));
    }
    found
}

/// A text of several lines.
fn lines(text: &str) -> String {
    escaped(text).replace('\n', "<br>")
}

fn escaped(text: &str) -> String {
    markup(&visible(text))
}

/// The five characters that are more than themselves in texts and attributes.
fn markup(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => found.push_str("&amp;"),
            '<' => found.push_str("&lt;"),
            '>' => found.push_str("&gt;"),
            '"' => found.push_str("&quot;"),
            '\'' => found.push_str("&#39;"),
            _ => found.push(c),
        }
    }
    found
}
