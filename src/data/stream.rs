//! Text from tokens that come one at a time.

use super::Tokenizer;
use crate::Result;

/// Tokens before the new ones that are decoded with them: some tokenizers write a token's space by its neighbour.
const CONTEXT: usize = 8;

/// Hands on the text of tokens as soon as its characters are whole: a token may end inside one.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens whose text was handed on, as context, and then those whose text waits.
    ids: Vec<u32>,
    n_told: usize,
}

impl<'a> TextStream<'a> {
    /// Of the tokens that follow `before`.
    pub fn after(tokenizer: &'a Tokenizer, before: &[u32]) -> Self {
        let ids = before[before.len().saturating_sub(CONTEXT)..].to_vec();
        Self {
            tokenizer,
            n_told: ids.len(),
            ids,
        }
    }

    /// The text that is complete with `id`; empty while a character is not.
    ///
    /// # Errors
    /// [`Error::BadInput`](crate::Error::BadInput) where the tokens cannot be decoded.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.waiting()?;
        // What decodes to the replacement character may be the beginning of another.
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let n_past = self.ids.len().saturating_sub(CONTEXT);
        self.ids.drain(..n_past);
        self.n_told = self.ids.len();
        Ok(text)
    }

    /// What is left when no more tokens come: characters that stayed incomplete, as U+FFFD.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(self) -> Result<String> {
        self.waiting()
    }

    fn waiting(&self) -> Result<String> {
        let told = self.tokenizer.decode(&self.ids[..self.n_told])?;
        let all = self.tokenizer.decode(&self.ids)?;
        Ok(all.get(told.len()..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The pieces of text that the tokens of `ids` yield, the last one at the end.
    fn pieces(tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::after(tokenizer, before);
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let bytes = Tokenizer::bytes();
        let ids = bytes.encode("aé日🦀b").unwrap();
        let expected = ["a", "", "é", "", "", "日", "", "", "", "🦀", "b", ""];
        assert_eq!(pieces(&bytes, &[], &ids), expected);
        // The prompt may end inside a character, too.
        assert_eq!(pieces(&bytes, &[], &ids[..2]), ["a", "", "\u{fffd}"]);
    }

    #[test]
    fn pieces_make_up_the_text_in_every_tokenizer() {
        let text = "It’s naïve: “日本語” 🦀🦀 and \u{fffd} itself.";
        for name in ["bytes", "gpt2"] {
            let tokenizer = Tokenizer::new(name).unwrap();
            let ids = tokenizer.encode(text).unwrap();
            for n_before in 0..ids.len() {
                let (before, after) = ids.split_at(n_before);
                let head = tokenizer.decode(before).unwrap();
                if head.ends_with('\u{fffd}') {
                    continue;
                }
                let told = pieces(&tokenizer, before, after).concat();
                assert_eq!(head + &told, text, "{name}, {n_before}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_out_as_they_are_decoded_at_once(ids in prop::collection::vec(0_u32..256, 0..40)) {
            let bytes = Tokenizer::bytes();
            prop_assert_eq!(pieces(&bytes, &[], &ids).concat(), bytes.decode(&ids).unwrap());
        }
    }
}
