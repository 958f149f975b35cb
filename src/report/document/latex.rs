//! The tables as LaTeX, to be read in by `\input`. They need the package graphicx, which shrinks what is too wide.

use super::{Block, Cell, Document, Kind, Table, shown, visible};

/// Before the tables: a box of the line's width at most. Register 0 is for such passing use.
const FITTED: &str = "% needs \\usepackage{graphicx}, for tables wider than a line
\\providecommand{\\fitted}[1]{\\sbox0{#1}\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi}";
/// Part of the line's width that all columns of words share.
const WIDTH: f64 = 0.8;
/// Characters of a cell from which on its column has a width and breaks lines.
const LONG: usize = 40;
/// Characters of a word after each of which it may break, for hashes.
const WORD: usize = 20;
/// Characters of a whole line, and lines of a page less a caption, at the size of the tables: those of LaTeX's own classes hold more.
const PAGE: (f64, usize) = (70.0, 36);

impl Document {
    /// A `table` environment a table, several for one that fills a page, under comments that say where it stands.
    pub fn latex(&self) -> String {
        let mut lines = vec![format!("% {}", comment(&self.title)), FITTED.to_owned()];
        write(&self.blocks, &mut lines);
        lines.join("\n") + "\n"
    }
}

fn write(blocks: &[Block], text: &mut Vec<String>) {
    for block in blocks {
        match block {
            Block::Section { title, blocks } => {
                text.push(format!("\n% {}", comment(title)));
                write(blocks, text);
                if blocks.iter().any(|it| matches!(it, Block::Table(_))) {
                    // LaTeX keeps no more than some fifty tables in mind before it places them.
                    text.push("\\clearpage".to_owned());
                }
            }
            Block::Details { blocks, .. } => write(blocks, text),
            Block::Table(table) => text.extend(of_table(table)),
            Block::Paragraph(_)
            | Block::Notice(_)
            | Block::List(_)
            | Block::Code(_)
            | Block::Picture(_) => {}
        }
    }
}

fn of_table(table: &Table) -> Vec<String> {
    let is_wide = |i: usize| {
        let mut cells = table.rows.iter().filter_map(|row| row.get(i));
        cells.any(|cell| cell.text.chars().count() > LONG)
    };
    let wide: Vec<bool> = (0..table.columns.len()).map(is_wide).collect();
    let width = WIDTH / wide.iter().filter(|wide| **wide).count() as f64;
    let columns = table
        .columns
        .iter()
        .zip(&wide)
        .map(|(column, wide)| match column.kind {
            _ if *wide => format!("p{{{width:.2}\\linewidth}}"),
            Kind::Number => "r".to_owned(),
            Kind::Name | Kind::Text => "l".to_owned(),
        });
    let columns: String = columns.collect();
    let row = |cells: Vec<String>| format!("{} \\\\", cells.join(" & "));
    let heads = table.columns.iter().map(|column| escaped(&column.head));
    let heads = row(heads.collect());
    let of_row = |cells: &Vec<Cell>| {
        let cells = table.columns.iter().zip(cells);
        row(cells
            .map(|(column, cell)| markup(&shown(cell, column.kind)))
            .collect())
    };
    let n_lines = |cells: &Vec<Cell>| {
        let wide = cells.iter().zip(&wide).filter(|(_, wide)| **wide);
        let lines = wide.map(|(cell, _)| {
            let n_chars = cell.text.chars().count() as f64;
            (n_chars / (PAGE.0 * width)).ceil() as usize
        });
        lines.max().unwrap_or(0).max(1)
    };
    // As many rows as fill a page; a table without rows has its heads all the same.
    let mut pages: Vec<(usize, Vec<String>)> = vec![(0, Vec::new())];
    for cells in &table.rows {
        let n = n_lines(cells);
        match pages.last_mut() {
            Some((filled, rows)) if rows.is_empty() || *filled + n <= PAGE.1 => {
                *filled += n;
                rows.push(of_row(cells));
            }
            _ => pages.push((n, vec![of_row(cells)])),
        }
    }
    let caption = escaped(&table.caption);
    let page = |(i, (_, rows)): (usize, (usize, Vec<String>))| {
        let continued = if i > 0 { " (continued)" } else { "" };
        let head = [
            "\\begin{table}".to_owned(),
            "\\centering\\small\\setlength{\\tabcolsep}{3pt}".to_owned(),
            format!("\\caption{{{caption}{continued}}}"),
            format!("\\fitted{{\\begin{{tabular}}{{{columns}}}"),
            "\\hline".to_owned(),
            heads.clone(),
            "\\hline".to_owned(),
        ];
        let foot = ["\\hline", "\\end{tabular}}", "\\end{table}"].map(str::to_owned);
        head.into_iter().chain(rows).chain(foot).collect::<Vec<_>>()
    };
    pages.into_iter().enumerate().flat_map(page).collect()
}

/// A text in one line, which is all that a comment is.
fn comment(text: &str) -> String {
    visible(text).replace('\n', " ")
}

fn escaped(text: &str) -> String {
    markup(&visible(text))
}

fn markup(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    let mut n_unbroken = 0;
    for c in text.chars() {
        n_unbroken = if c.is_alphanumeric() {
            n_unbroken + 1
        } else {
            0
        };
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => found.extend(['\\', c]),
            '\\' => found.push_str("\\textbackslash{}"),
            '~' => found.push_str("\\textasciitilde{}"),
            '^' => found.push_str("\\textasciicircum{}"),
            '<' => found.push_str("$<$"),
            '>' => found.push_str("$>$"),
            '|' => found.push_str("$|$"),
            '[' | ']' => found.extend(['{', c, '}']),
            '\u{b1}' => found.push_str("$\\pm$"),
            '\u{2265}' => found.push_str("$\\geq$"),
            // A cell of several lines is one paragraph.
            '\n' => found.push_str("; "),
            // Two of them would become a dash.
            '-' if found.ends_with('-') => found.push_str("{}-"),
            ' '..='~' => found.push(c),
            // Letters with accents are in every font; of what else there is, none is sure to be.
            '\u{c0}'..='\u{ff}' if !"\u{d0}\u{d7}\u{de}\u{f0}\u{f7}\u{fe}".contains(c) => {
                found.push(c);
            }
            _ => found.extend(format!("U+{:04X}", u32::from(c)).chars()),
        }
        if n_unbroken == WORD {
            n_unbroken = 0;
            found.push_str("\\allowbreak{}");
        }
    }
    found
}
