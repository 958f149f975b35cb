//! What an honest model must satisfy, asked of functions alone: whether logits depend on later tokens, whether
//! an untrained model already knows its targets, whether gradients are those of the loss.

use crate::math::random::{Coordinate, Purpose, words};
use crate::models::weights::Weight;
use crate::models::{BatchShape, Choices, Forward, LanguageModel};
use crate::results::{Finding, Finite, Leak, LeakSearch};
use crate::{Error, Result, hardware::read};

/// Largest change of an earlier logit that rounding accounts for, relative to the largest logit.
const LOGIT_TOLERANCE: f64 = 1e-5;
/// Random positions to cut at, beside the first, the middle and the last.
const RANDOM_CUTS: u32 = 5;
/// A router that looks ahead flips in further texts too; a tie that rounding decides does not.
const FURTHER_TEXTS: u32 = 2;
/// Rows of logits that exist at once on the device.
const LOGIT_ROWS: usize = 128;
/// Length of a step along a gradient.
const GRADIENT_STEP: f64 = 1e-5;

/// Longest sequence of an audit, in tokens.
const MAX_TOKENS: usize = 512;

/// Tokens of the sequences of an audit, where models are trained on sequences of `seq_lengths`.
pub fn n_tokens(seq_lengths: &[usize]) -> usize {
    let longest = seq_lengths.iter().copied().max();
    longest.unwrap_or(MAX_TOKENS).min(MAX_TOKENS)
}

/// One sequence from its start.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    /// Logits `[tokens, vocab]`, row-major.
    pub logits: Vec<f32>,
    /// Where the layers sent the tokens; none for a layer that does not route.
    pub choices: Vec<Option<Choices>>,
    /// Positions at which a layer would have chosen otherwise than it was told, layer by layer.
    pub flips: Vec<usize>,
}

/// A sequence, and the choices that its first tokens are to take, layer by layer; their own where there are none.
pub type Scores<'a> = dyn Fn(&[u32], &[Option<Choices>]) -> Result<Scored> + 'a;

/// The [`Scores`] of `model`, which is without autodiff.
///
/// # Errors
/// Token ids outside the vocabulary, or a device that fails.
pub fn scores(model: &LanguageModel, tokens: &[u32], pinned: &[Option<Choices>]) -> Result<Scored> {
    let shape = BatchShape {
        batch: 1,
        seq_len: tokens.len(),
    };
    let how = Forward {
        pinned,
        ..Forward::infer(shape)
    };
    let hidden = model.forward(tokens, model.initial_states(1), &how)?;
    let mut logits = Vec::new();
    for first in (0..tokens.len()).step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(tokens.len() - first);
        let scores = model.logits(hidden.x.clone().narrow(0, first, rows))?;
        logits.extend(read::floats(scores, "reading logits")?);
    }
    let (mut choices, mut flips) = (Vec::new(), Vec::new());
    for routing in hidden.routing {
        flips.extend(routing.iter().flat_map(|routing| &routing.flips));
        choices.push(routing.map(|routing| routing.choices));
    }
    Ok(Scored {
        logits,
        choices,
        flips,
    })
}

/// Both searches for leaks in `model`, which is without autodiff: [`causality`] and [`truncation`].
///
/// # Errors
/// A device that fails.
pub fn leaks(
    model: &LanguageModel,
    vocab_size: usize,
    n_tokens: usize,
    seed: u64,
) -> Result<Vec<Finding>> {
    let scores = |tokens: &[u32], pinned: &[Option<Choices>]| scores(model, tokens, pinned);
    Ok(vec![
        causality(&scores, vocab_size, n_tokens, seed)?,
        truncation(&scores, vocab_size, n_tokens, seed)?,
    ])
}

/// Replaces all tokens from a cut on and looks for earlier logits that move, the choices of earlier tokens kept as they
/// were before. Choices that come out otherwise are counted: a leak where other texts show some too.
///
/// The texts are random tokens below `vocab_size`, at least 2, drawn from `seed`; `n_tokens` is their length.
///
/// # Errors
/// What `scores` returns.
pub fn causality(
    scores: &Scores<'_>,
    vocab_size: usize,
    n_tokens: usize,
    seed: u64,
) -> Result<Finding> {
    let replaced = |text: &[u32], cut: usize| {
        let mut other = text.to_vec();
        let draws = other[cut..].iter_mut().zip(cut as u64..);
        for (token, position) in draws {
            // Between 1 and the vocabulary less 1: always another token.
            let distance = 1 + draw(seed, 1 << 16, position) % (vocab_size as u32 - 1);
            *token = ((u64::from(*token) + u64::from(distance)) % vocab_size as u64) as u32;
        }
        other
    };
    let mut cuts = vec![1, n_tokens / 2, n_tokens.saturating_sub(1)];
    let random =
        |i: u32| 1 + draw(seed, 1 << 17, u64::from(i)) as usize % n_tokens.saturating_sub(1).max(1);
    cuts.extend((0..RANDOM_CUTS).map(random));
    let search = Search {
        scores,
        vocab_size,
        n_tokens,
        seed,
    };
    search.over(cuts, &replaced).map(Finding::Causality)
}

/// Computes prefixes of a text alone and looks for logits that differ from those of the whole; otherwise as
/// [`causality`].
///
/// # Errors
/// What `scores` returns.
pub fn truncation(
    scores: &Scores<'_>,
    vocab_size: usize,
    n_tokens: usize,
    seed: u64,
) -> Result<Finding> {
    let search = Search {
        scores,
        vocab_size,
        n_tokens,
        seed,
    };
    // Each length costs a GPU its own pipelines.
    let cuts = vec![1, n_tokens / 2, n_tokens.saturating_sub(1)];
    let cut_off = |text: &[u32], cut: usize| text[..cut].to_vec();
    search.over(cuts, &cut_off).map(Finding::Truncation)
}

struct Search<'a> {
    scores: &'a Scores<'a>,
    vocab_size: usize,
    n_tokens: usize,
    seed: u64,
}

/// What became of the positions before a cut.
struct Moved {
    /// How far logits moved, relative to the largest logit.
    largest: f64,
    /// First position whose logits moved by more than rounding.
    earliest: Option<usize>,
    /// Positions at which a layer would have chosen otherwise.
    flips: Vec<usize>,
}

impl Search<'_> {
    fn over(
        &self,
        mut cuts: Vec<usize>,
        alter: &dyn Fn(&[u32], usize) -> Vec<u32>,
    ) -> Result<LeakSearch> {
        cuts.retain(|&cut| (1..self.n_tokens).contains(&cut));
        cuts.sort_unstable();
        cuts.dedup();
        let text = self.text(0);
        let whole = (self.scores)(&text, &[])?;
        let mut largest = 0.0_f64;
        let mut leak: Option<Leak> = None;
        let mut n_flips = 0;
        for &cut in &cuts {
            let moved = self.moved(&whole, &alter(&text, cut), cut)?;
            n_flips += moved.flips.len();
            // `max` would drop a NaN.
            largest = if moved.largest <= largest {
                largest
            } else {
                moved.largest
            };
            let mut earliest = moved.earliest;
            if let Some(&flipped) = moved.flips.iter().min()
                && earliest.is_none_or(|earliest| flipped < earliest)
                && self.flips_elsewhere(cut, alter)?
            {
                earliest = Some(flipped);
            }
            let Some(earliest) = earliest else { continue };
            let first_offset = i64::try_from(cut - earliest).map_or(i64::MIN, |back| -back);
            if leak.is_none_or(|leak| first_offset < leak.first_offset) {
                leak = Some(Leak { first_offset, cut });
            }
        }
        Ok(LeakSearch {
            n_tokens: self.n_tokens,
            cuts,
            largest_change: Finite::new(largest),
            leak,
            n_flips,
        })
    }

    /// Whether choices before `cut` come out otherwise in another text, too.
    fn flips_elsewhere(
        &self,
        cut: usize,
        alter: &dyn Fn(&[u32], usize) -> Vec<u32>,
    ) -> Result<bool> {
        for number in 1..=FURTHER_TEXTS {
            let text = self.text(number);
            let whole = (self.scores)(&text, &[])?;
            let moved = self.moved(&whole, &alter(&text, cut), cut)?;
            if !moved.flips.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn text(&self, number: u32) -> Vec<u32> {
        let token = |i| draw(self.seed, number, i) % self.vocab_size as u32;
        (0..self.n_tokens as u64).map(token).collect()
    }

    /// The positions before `cut`, sent where those of `whole` went, beside `altered` tokens.
    fn moved(&self, whole: &Scored, altered: &[u32], cut: usize) -> Result<Moved> {
        let layers = whole.choices.iter();
        let pinned: Vec<_> = layers
            .map(|choices| choices.as_ref().map(|choices| choices.first(cut)))
            .collect();
        let altered = (self.scores)(altered, &pinned)?;
        let (whole, flips) = (&whole.logits, altered.flips);
        let altered = altered.logits;
        let rows = |logits: &[f32]| {
            let n = logits.len() / self.vocab_size;
            if n < cut {
                let problem = format!("{n} rows of logits, and a check needs {cut}");
                return Err(Error::CheckFailed(problem));
            }
            Ok(())
        };
        rows(whole)?;
        rows(&altered)?;
        let scale = whole
            .iter()
            .fold(0.0_f64, |max, &v| max.max(f64::from(v).abs()));
        let mut moved = Moved {
            largest: 0.0,
            earliest: None,
            flips,
        };
        let positions = whole
            .chunks(self.vocab_size)
            .zip(altered.chunks(self.vocab_size));
        for (position, (before, after)) in positions.take(cut).enumerate() {
            for (&before, &after) in before.iter().zip(after) {
                let distance = (f64::from(before) - f64::from(after)).abs();
                // Equal logits have not moved, be they 0 throughout.
                let change = if distance == 0.0 {
                    0.0
                } else {
                    distance / scale
                };
                if change > moved.largest || change.is_nan() {
                    moved.largest = change;
                }
                let is_rounding = change <= LOGIT_TOLERANCE;
                if !is_rounding && moved.earliest.is_none() {
                    moved.earliest = Some(position);
                }
            }
        }
        Ok(moved)
    }
}

/// A word of the stream `row` at `position`.
fn draw(seed: u64, row: u32, position: u64) -> u32 {
    let coordinate = Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    words(seed, coordinate.at(position))[0]
}

/// Judges the cross-entropies of untrained weights on real text, nats per token, against guessing among
/// `vocab_size` tokens.
pub fn initial_loss(nll: &[f64], vocab_size: usize) -> Finding {
    Finding::InitialLoss {
        nats: Finite::new(nll.iter().sum::<f64>() / nll.len() as f64),
        guessing_nats: Finite::new((vocab_size as f64).ln()).unwrap_or_default(),
    }
}

/// Compares `gradients`, one a weight and in their order, with central differences of a loss along each of
/// them. `loss` returns it with the weight of an index replaced by other values; it computes in `f64`, for only
/// then can a step be so short that neither a router's choice nor the sign of a unit changes on the way. An error
/// is a failure where the gradient `is_meant_exact`, a warning elsewhere.
///
/// # Errors
/// What `loss` returns, or a gradient of another size than its weight.
pub fn gradient(
    weights: &[Weight],
    gradients: &[Vec<f64>],
    is_meant_exact: bool,
    loss: &dyn Fn(usize, &[f64]) -> Result<f64>,
) -> Result<Finding> {
    let mut worst = (0.0_f64, String::new());
    for (index, (weight, gradient)) in weights.iter().zip(gradients).enumerate() {
        if gradient.len() != weight.values.len() {
            let (n, name) = (weight.values.len(), &weight.name);
            let problem = format!("{name} has {n} values and its gradient {}", gradient.len());
            return Err(Error::CheckFailed(problem));
        }
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        // Where the gradient is 0, the loss must not move along any way; all ones are one.
        let way = |g: f64| if norm > 0.0 { g / norm } else { 1.0 };
        let at = |step: f64| {
            let values = weight.values.iter().zip(gradient);
            let moved: Vec<f64> = values
                .map(|(&w, &g)| f64::from(w) + step * way(g))
                .collect();
            loss(index, &moved)
        };
        let seen = at(GRADIENT_STEP)? - at(-GRADIENT_STEP)?;
        let expected = 2.0 * GRADIENT_STEP * norm;
        let off = (seen - expected).abs();
        let error = if off == 0.0 { 0.0 } else { off / expected };
        if error > worst.0 || error.is_nan() {
            worst = (error, weight.name.clone());
        }
    }
    let (largest_error, tensor) = worst;
    Ok(Finding::Gradient {
        n_tensors: weights.len(),
        largest_error: Finite::new(largest_error),
        tensor,
        is_meant_exact,
    })
}
