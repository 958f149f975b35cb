//! A trained model in fewer bits: held-out loss, size, speed, and what each family of parameters costs.

use std::time::Instant;

use crate::data::Tokens;
use crate::eval::Evaluator;
use crate::hardware::read;
use crate::models::quantised::Family;
use crate::models::{BatchShape, LanguageModel};
use crate::quant::BitWidth;
use crate::results::{AtWidth, Evaluation, Finite, ModelSize, QuantizationMetrics, Sensitivity};
use crate::stats;
use crate::units::Bytes;
use crate::{Error, Result};

/// Repetitions of a measurement of speed, and how many before them are not counted.
const REPETITIONS: usize = 5;
const WARM_UP: usize = 2;
/// Tokens decoded in one repetition.
const DECODED: usize = 32;

/// What is measured, and on what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Study<'a> {
    /// The trained model.
    pub(super) evaluator: Evaluator<'a>,
    /// Whether it carries a state from token to token.
    pub(super) decodes: bool,
    /// Held-out text.
    pub(super) tokens: &'a Tokens,
    /// Its length in bytes.
    pub(super) n_bytes: u64,
    /// Tokens of a window.
    pub(super) window: usize,
}

impl Study<'_> {
    /// Measures every width, and every family of parameters at every width below 32 bits.
    ///
    /// # Errors
    /// A tensor that the device cannot bind, or a device that fails.
    pub(super) fn measure(&self, widths: &[BitWidth]) -> Result<QuantizationMetrics> {
        let whole = self.evaluate(self.evaluator.model)?;
        let at_width = |&width: &BitWidth| {
            let model = self.quantised(width, Family::is_packed)?;
            self.at_width(width, &model)
        };
        let at_widths = widths.iter().map(at_width).collect::<Result<_>>()?;
        let mut sensitivity = Vec::new();
        for family in self.evaluator.model.families() {
            for &width in widths.iter().filter(|&&width| width != BitWidth::Fp32) {
                let model = self.quantised(width, |other| other == family)?;
                let difference = match (&whole, self.evaluate(&model)?) {
                    (Some(whole), Some(at)) => {
                        Finite::new(at.nll_nats.get() - whole.nll_nats.get())
                    }
                    _ => None,
                };
                sensitivity.push(Sensitivity {
                    family: family.name().to_owned(),
                    width,
                    nll_difference_nats: difference,
                });
            }
        }
        Ok(QuantizationMetrics {
            widths: at_widths,
            sensitivity,
        })
    }

    fn quantised(&self, width: BitWidth, which: impl Fn(Family) -> bool) -> Result<LanguageModel> {
        let model = self.evaluator.model;
        model.quantised(width, which, &model.device())
    }

    fn at_width(&self, width: BitWidth, model: &LanguageModel) -> Result<AtWidth> {
        let size = model.size();
        Ok(AtWidth {
            width,
            evaluation: self.evaluate(model)?,
            size: ModelSize {
                codes_bytes: size.codes,
                scales_bytes: size.scales,
                rest_bytes: size.rest,
                embedding_bytes: size.embedding,
                file_header_bytes: header_bytes(model)?,
            },
            prefill_tokens_per_second: rate(self.window, || self.prefill(model))?,
            decode_tokens_per_second: if self.decodes {
                rate(DECODED, || self.decode(model))?
            } else {
                None
            },
        })
    }

    /// `None` where the loss is not finite, which at few bits is a result.
    fn evaluate(&self, model: &LanguageModel) -> Result<Option<Evaluation>> {
        let evaluator = Evaluator {
            model,
            ..self.evaluator
        };
        let held_out = evaluator.evaluate(self.tokens, self.n_bytes, self.window)?;
        Ok(held_out.map(|held_out| held_out.evaluation))
    }

    /// One window of held-out text, up to the scores of the token after it.
    fn prefill(&self, model: &LanguageModel) -> Result<()> {
        let seq_len = self.window.min(self.tokens.len());
        let shape = BatchShape { batch: 1, seq_len };
        let ids = self.tokens.get(0..seq_len);
        let hidden = model.infer(&ids, shape, model.initial_states(1))?;
        let last = hidden.x.narrow(0, seq_len - 1, 1);
        read::floats(model.logits(last)?, "reading scores").map(drop)
    }

    /// Token after token of held-out text, the scores read each time as a generation does.
    fn decode(&self, model: &LanguageModel) -> Result<()> {
        let shape = BatchShape {
            batch: 1,
            seq_len: 1,
        };
        let mut states = model.initial_states(1);
        for id in self.tokens.get(0..DECODED.min(self.tokens.len())) {
            let hidden = model.infer(&[id], shape, states)?;
            states = hidden.states;
            read::floats(model.logits(hidden.x)?, "reading scores")?;
        }
        Ok(())
    }
}

/// Bytes of the header of the model's file, whose tensors must take what they were counted to.
fn header_bytes(model: &LanguageModel) -> Result<Bytes> {
    let folder = std::env::temp_dir();
    let folder = tempfile::tempdir_in(&folder).map_err(Error::io("write in", folder))?;
    let file = model.save_packed(&folder.path().join("model.safetensors"))?;
    let counted = model.size().total();
    if file.tensors == counted {
        Ok(file.header)
    } else {
        Err(Error::CheckFailed(format!(
            "a quantised model's file holds {} of tensors, counted were {counted}",
            file.tensors
        )))
    }
}

/// `n` per median second of `work`.
fn rate(n: usize, mut work: impl FnMut() -> Result<()>) -> Result<Option<Finite>> {
    let mut seconds = Vec::with_capacity(REPETITIONS);
    for repetition in 0..WARM_UP + REPETITIONS {
        let began = Instant::now();
        work()?;
        if repetition >= WARM_UP {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    Ok(stats::median(&seconds).and_then(|seconds| Finite::new(n as f64 / seconds)))
}
