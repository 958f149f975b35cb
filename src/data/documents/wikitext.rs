//! `WikiText` (Merity and others, 2016): articles under headings of one equals sign, in the lines of a text
//! or the rows of a parquet file.

use crate::Result;

/// Joins lines to articles. Each starts with its title, the first with what stands before it.
///
/// GPT-2's tokenizer encodes articles to the ids of the whole text: a title starts with a space and a sign,
/// and before those a word ends in any case.
pub(super) fn articles(
    lines: impl Iterator<Item = Result<String>>,
) -> impl Iterator<Item = Result<Option<String>>> {
    let mut lines = lines.peekable();
    std::iter::from_fn(move || {
        let mut article = match lines.next()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let mut titled = is_title(&article);
        while let Some(Ok(line)) = lines.peek() {
            if is_title(line) {
                if titled {
                    break;
                }
                titled = true;
            }
            match lines.next()? {
                Ok(line) => article.push_str(&line),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(Some(article)))
    })
}

/// The line of the official text that a row of the hub's files stands for: they leave out the space and the
/// line feed of blank lines.
pub(super) fn line_of_row(row: Result<Option<String>>) -> Result<String> {
    let text = row?.unwrap_or_default();
    Ok(if text.is_empty() { " \n".into() } else { text })
}

fn is_title(line: &str) -> bool {
    line.starts_with(" = ") && !line.starts_with(" = = ") && line.trim_end().ends_with(" =")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_start_at_titles_and_lose_nothing() {
        let text = " \n = One = \n \n text . \n = = Part = = \n more = \n = Two = \n end";
        let lines = text.split_inclusive('\n').map(|line| Ok(line.to_owned()));
        let articles: Vec<String> = articles(lines).map(|a| a.unwrap().unwrap()).collect();
        assert_eq!(articles.concat(), text);
        assert_eq!(articles.len(), 2);
        assert_eq!(articles[1], " = Two = \n end");
    }
}
