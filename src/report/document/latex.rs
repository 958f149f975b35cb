//! The tables as LaTeX, to be read in by `\input`. They need no package.

use super::{Block, Cell, Document, Kind, Table, shown, visible};

/// Part of the line's width that all columns of words share.
const WIDTH: f64 = 0.8;
/// Characters of a cell from which on its column has a width and breaks lines.
const LONG: usize = 40;

impl Document {
    /// A `table` environment a table, under comments that say where it stands.
    pub fn latex(&self) -> String {
        let mut lines = vec![format!("% {}", comment(&self.title))];
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
    let n_wide = wide.iter().filter(|wide| **wide).count();
    let columns = table
        .columns
        .iter()
        .zip(&wide)
        .map(|(column, wide)| match column.kind {
            _ if *wide => format!("p{{{:.2}\\linewidth}}", WIDTH / n_wide as f64),
            Kind::Number => "r".to_owned(),
            Kind::Name | Kind::Text => "l".to_owned(),
        });
    let row = |cells: Vec<String>| format!("{} \\\\", cells.join(" & "));
    let heads = table.columns.iter().map(|column| escaped(&column.head));
    let of_row = |cells: &Vec<Cell>| {
        let cells = table.columns.iter().zip(cells);
        row(cells
            .map(|(column, cell)| markup(&shown(cell, column.kind)))
            .collect())
    };
    let head = [
        "\\begin{table}".to_owned(),
        "\\centering\\small".to_owned(),
        format!("\\caption{{{}}}", escaped(&table.caption)),
        format!("\\begin{{tabular}}{{{}}}", columns.collect::<String>()),
        "\\hline".to_owned(),
        row(heads.collect()),
        "\\hline".to_owned(),
    ];
    let foot = ["\\hline", "\\end{tabular}", "\\end{table}"].map(str::to_owned);
    head.into_iter()
        .chain(table.rows.iter().map(of_row))
        .chain(foot)
        .collect()
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
    for c in text.chars() {
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
            _ => found.push(c),
        }
    }
    found
}
