//! Markdown with GitHub's tables. Pictures are left out: `bkbench plot` writes them into files.

use super::{Block, Cell, Document, Kind, Table, shown, visible};

impl Document {
    /// The report in Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![format!("# {}", escaped(&self.title))];
        for block in &self.blocks {
            write(block, 2, &mut lines);
        }
        lines.join("\n") + "\n"
    }
}

/// Appends the lines of a block, an empty one first.
fn write(block: &Block, level: usize, text: &mut Vec<String>) {
    text.push(String::new());
    match block {
        Block::Section { title, blocks } => {
            text.push(format!("{} {}", "#".repeat(level.min(6)), escaped(title)));
            for block in blocks {
                write(block, level + 1, text);
            }
        }
        Block::Paragraph(paragraph) => text.push(escaped(paragraph)),
        Block::Notice(notice) => text.push(format!("> {}", escaped(notice))),
        Block::List(items) => text.extend(items.iter().map(|item| format!("- {}", escaped(item)))),
        Block::Table(table) => text.extend(of_table(table)),
        // Indented and not fenced: no line of the text can end it.
        Block::Code(code) => {
            text.extend(visible(code).lines().map(|line| format!("    {line}")));
        }
        Block::Picture(picture) => text.push(format!(
            "{}: drawn by `bkbench plot`. {}",
            escaped(&picture.title),
            escaped(&picture.description)
        )),
        Block::Details { summary, blocks } => {
            text.push(format!("**{}**", escaped(summary)));
            for block in blocks {
                write(block, level, text);
            }
        }
    }
}

fn of_table(table: &Table) -> Vec<String> {
    let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let heads = table.columns.iter().map(|column| escaped(&column.head));
    let rules = table.columns.iter().map(|column| match column.kind {
        Kind::Number => "---:".to_owned(),
        Kind::Name | Kind::Text => "---".to_owned(),
    });
    let of_row = |cells: &Vec<Cell>| {
        let cells = table.columns.iter().zip(cells);
        row(cells
            .map(|(column, cell)| of_cell(cell, column.kind))
            .collect())
    };
    let head = [
        escaped(&table.caption),
        String::new(),
        row(heads.collect()),
        row(rules.collect()),
    ];
    head.into_iter()
        .chain(table.rows.iter().map(of_row))
        .collect()
}

fn of_cell(cell: &Cell, kind: Kind) -> String {
    let text = markup(&shown(cell, kind)).replace('\n', "<br>");
    match cell.tone {
        Some(_) => format!("**{text}**"),
        None => text,
    }
}

/// A text of one line or several as one line of Markdown, which no line of its own can end.
fn escaped(text: &str) -> String {
    markup(&visible(text)).replace('\n', "<br>")
}

/// Everything that Markdown or the HTML in it could read as more than a character.
fn markup(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => found.push_str("&amp;"),
            '<' => found.push_str("&lt;"),
            '>' => found.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' | '$' => {
                found.extend(['\\', c]);
            }
            _ => found.push(c),
        }
    }
    found
}
