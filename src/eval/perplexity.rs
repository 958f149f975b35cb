//! Cross-entropy of held-out text: every token scored once, in windows that start from an empty state.

use crate::data::{Tokens, eval_windows};
use crate::hardware::read;
use crate::models::{BatchShape, LanguageModel};
use crate::results::Evaluation;
use crate::{Error, Result};

/// Windows of this many tokens together go through the model at once.
const TOKENS_AT_ONCE: usize = 8192;

/// Scores `tokens` with the state reset every `window` tokens (window = stride). The first token of the
/// text has no context and is not scored. `model` is without autodiff; `n_bytes` is the text's length.
///
/// # Errors
/// A device that fails, or a loss that is not finite.
pub fn evaluate(
    model: &LanguageModel,
    tokens: &Tokens,
    n_bytes: u64,
    window: usize,
    loss_chunk_tokens: usize,
) -> Result<Evaluation> {
    let windows: Vec<_> = eval_windows(tokens.len(), window).collect();
    let at_once = (TOKENS_AT_ONCE / window).max(1);
    let (mut nll_sum_nats, mut n_tokens) = (0.0, 0);
    // Windows are equal but for the last one, which goes alone.
    for group in windows.chunk_by(|a, b| a.inputs.len() == b.inputs.len()) {
        for group in group.chunks(at_once) {
            let shape = BatchShape {
                batch: group.len(),
                seq_len: group[0].inputs.len(),
            };
            let inputs: Vec<u32> = group
                .iter()
                .flat_map(|w| tokens.get(w.inputs.clone()))
                .collect();
            let targets: Vec<u32> = group
                .iter()
                .flat_map(|w| tokens.get(w.targets.clone()))
                .collect();
            let hidden = model.infer(&inputs, shape, model.initial_states(shape.batch))?;
            let nll = model.nll(hidden.x, &targets, loss_chunk_tokens)?;
            let nll = read::doubles(nll, "reading the evaluation's loss")?;
            nll_sum_nats += nll.iter().sum::<f64>();
            n_tokens += nll.len() as u64;
        }
    }
    Evaluation::new(nll_sum_nats, n_tokens, n_bytes, window).ok_or_else(|| {
        Error::CheckFailed(format!(
            "the held-out loss is not finite ({nll_sum_nats} nats)"
        ))
    })
}
