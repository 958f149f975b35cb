//! A report before it has a format: what stands in it, in order, as plain texts. The writers escape them.

mod html;
mod latex;
mod markdown;

/// A whole report.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// What stands in it.
    pub blocks: Vec<Block>,
}

/// One part of a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A heading and what stands under it; its level is its depth.
    Section {
        /// The heading.
        title: String,
        /// What stands under it.
        blocks: Vec<Block>,
    },
    /// A paragraph.
    Paragraph(String),
    /// A paragraph that must not be overlooked.
    Notice(String),
    /// A list.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// A text to be copied, line by line as it is.
    Code(String),
    /// A plot.
    Picture(Picture),
    /// What a reader need not see at first.
    Details {
        /// What it is.
        summary: String,
        /// What stands in it.
        blocks: Vec<Block>,
    },
}

/// A plot and what it shows in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The SVG document.
    pub svg: String,
    /// What it is.
    pub title: String,
    /// How to read it, and where its numbers stand.
    pub description: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Its columns, at least one.
    pub columns: Vec<Column>,
    /// A cell a column.
    pub rows: Vec<Vec<Cell>>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its head.
    pub head: String,
    /// What is in it.
    pub kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the row is about.
    Name,
    /// Numbers.
    Number,
    /// Words.
    Text,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its lines; those behind the first say why.
    pub text: String,
    /// For a verdict, which way it went.
    pub tone: Option<Tone>,
}

/// Which way a verdict went. Formats with colours show it; the text says it everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// That is not known.
    Open,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tone: None,
        }
    }
}

impl Cell {
    /// A verdict.
    pub(super) fn verdict(text: &str, tone: Tone) -> Self {
        Self {
            text: text.to_owned(),
            tone: Some(tone),
        }
    }
}

impl Block {
    /// A section.
    pub(super) fn section(title: impl Into<String>, blocks: Vec<Self>) -> Self {
        Self::Section {
            title: title.into(),
            blocks,
        }
    }

    /// Something to open.
    pub(super) fn details(summary: impl Into<String>, blocks: Vec<Self>) -> Self {
        Self::Details {
            summary: summary.into(),
            blocks,
        }
    }

    /// A table whose first `n_names` columns say what a row is about, and whose others hold `kind`.
    pub(super) fn table<const N: usize>(
        caption: impl Into<String>,
        heads: [&str; N],
        (n_names, kind): (usize, Kind),
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Self {
        let column = |(i, head): (usize, &str)| Column {
            head: head.to_owned(),
            kind: if i < n_names { Kind::Name } else { kind },
        };
        Self::Table(Table {
            caption: caption.into(),
            columns: heads.into_iter().enumerate().map(column).collect(),
            rows: rows
                .into_iter()
                .map(|row| row.map(Cell::from).into())
                .collect(),
        })
    }
}

/// A text without characters that show nothing, move the cursor or turn the text around them: a name must not look like
/// another, and nothing in a file may steer a terminal.
pub fn visible(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .map(|c| if hidden(c) { '\u{fffd}' } else { c })
        .collect()
}

/// The text of a cell as it is shown: numbers with a real sign between mean and half interval.
fn shown(cell: &Cell, kind: Kind) -> String {
    match kind {
        Kind::Number => visible(&cell.text).replace(" +- ", " \u{b1} "),
        Kind::Name | Kind::Text => visible(&cell.text),
    }
}
