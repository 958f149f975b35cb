//! What the quantization benchmark measures in one cell, and its means over seeds.

use serde::{Deserialize, Serialize};

use super::{Cell, Evaluation, Finite, Outcome};
use crate::config::Benchmark;
use crate::quant::BitWidth;
use crate::stats::Estimate;
use crate::units::Bytes;

/// A trained model in fewer bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationMetrics {
    /// The whole model, one entry a width, the widest first.
    pub widths: Vec<AtWidth>,
    /// One family of parameters quantised and all others left as they are.
    pub sensitivity: Vec<Sensitivity>,
}

/// The model at one width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtWidth {
    /// The width of everything that is quantised.
    pub width: BitWidth,
    /// Held-out text; absent where its loss is not finite.
    pub evaluation: Option<Evaluation>,
    /// Bytes of the model's tensors, which are those of its file without the header.
    pub size: ModelSize,
    /// Tokens a second through one sequence at once: median of 5 after 2.
    pub prefill_tokens_per_second: Option<Finite>,
    /// Tokens a second one by one, the state carried: median of 5 after 2; absent for a model that carries none.
    pub decode_tokens_per_second: Option<Finite>,
}

/// Bytes of a quantised model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSize {
    /// Codes, rows padded to whole words.
    pub codes_bytes: Bytes,
    /// Scales, padded to whole words.
    pub scales_bytes: Bytes,
    /// What stays `f32`.
    pub rest_bytes: Bytes,
    /// What of all this the embedding takes, which is also the head.
    pub embedding_bytes: Bytes,
    /// Header of the file, which is not part of the size.
    pub file_header_bytes: Bytes,
}

impl ModelSize {
    /// Codes, scales and rest.
    pub fn total(self) -> Bytes {
        let parts = [self.codes_bytes, self.scales_bytes, self.rest_bytes];
        Bytes(parts.iter().fold(0, |sum, part| sum.saturating_add(part.0)))
    }
}

/// What quantising one family alone costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// The family, for example `out_proj`.
    pub family: String,
    /// Its width.
    pub width: BitWidth,
    /// Held-out loss minus that at `fp32`, nats per token; absent where it is not finite.
    pub nll_difference_nats: Option<Finite>,
}

/// One model at one width over all seeds. Estimates are over the completed seeds; absent where none completed or one
/// of them lacks the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WidthSummary {
    /// Registered name of the model.
    pub model: String,
    /// The width.
    pub width: BitWidth,
    /// Seeds that completed.
    pub n_seeds: usize,
    /// Held-out loss, nats per token.
    pub nll_nats: Option<Estimate>,
    /// Held-out perplexity per token.
    pub token_perplexity: Option<Estimate>,
    /// Held-out bits per byte.
    pub bits_per_byte: Option<Estimate>,
    /// Perplexity over that at `fp32`, less 1, seed by seed.
    pub degradation: Option<Estimate>,
    /// Loss minus that at `fp32`, seed by seed, nats per token.
    pub degradation_nats: Option<Estimate>,
    /// Size in megabytes of 10^6 bytes.
    pub size_mb: Option<f64>,
    /// The same without the embedding.
    pub size_without_embedding_mb: Option<f64>,
    /// Tokens a second through one sequence at once.
    pub prefill_tokens_per_second: Option<Estimate>,
    /// Tokens a second one by one.
    pub decode_tokens_per_second: Option<Estimate>,
}

/// One entry a model and width, in the order of the cells.
pub(super) fn summarise(cells: &[Cell]) -> Vec<WidthSummary> {
    let mut models: Vec<&str> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.quantization.is_some()) {
        if !models.contains(&cell.model.as_str()) {
            models.push(&cell.model);
        }
    }
    let of_model = |model: &str| -> Vec<WidthSummary> {
        // Weights without a finite loss completed, and were not packed.
        let completed: Vec<Option<&QuantizationMetrics>> = cells
            .iter()
            .filter(|cell| cell.benchmark == Benchmark::Quantization && cell.model == model)
            .filter(|cell| cell.outcome == Outcome::Completed)
            .map(|cell| cell.quantization.as_ref())
            .collect();
        let first = completed.iter().flatten().next();
        let widths = first.map_or(&[][..], |first| &first.widths);
        widths
            .iter()
            .map(|at| summary(model, at.width, &completed))
            .collect()
    };
    models.into_iter().flat_map(of_model).collect()
}

/// The entries of the widest and of the wanted width.
type Pair<'a> = (&'a AtWidth, &'a AtWidth);

/// Held-out loss, nats per token.
fn nll(at: &AtWidth) -> Option<f64> {
    Some(at.evaluation.as_ref()?.nll_nats.get())
}

fn summary(
    model: &str,
    width: BitWidth,
    completed: &[Option<&QuantizationMetrics>],
) -> WidthSummary {
    let at = |metrics: Option<&QuantizationMetrics>| -> Option<(AtWidth, AtWidth)> {
        let widths = &metrics?.widths;
        let find = |width| widths.iter().find(|at| at.width == width).cloned();
        Some((find(BitWidth::Fp32)?, find(width)?))
    };
    let pairs: Option<Vec<(AtWidth, AtWidth)>> = completed.iter().copied().map(at).collect();
    let over_seeds = |value: fn(Pair<'_>) -> Option<f64>| {
        // All or nothing: a mean that leaves out a seed would not say so.
        let values: Option<Vec<f64>> = pairs.as_ref()?.iter().map(|(a, b)| value((a, b))).collect();
        Estimate::of(&values?)
    };
    let size = pairs.as_ref().and_then(|pairs| Some(pairs.first()?.1.size));
    WidthSummary {
        model: model.to_owned(),
        width,
        n_seeds: completed.len(),
        nll_nats: over_seeds(|(_, at)| nll(at)),
        token_perplexity: over_seeds(|(_, at)| {
            Some(at.evaluation.as_ref()?.token_perplexity?.get())
        }),
        bits_per_byte: over_seeds(|(_, at)| Some(at.evaluation.as_ref()?.bits_per_byte.get())),
        degradation: over_seeds(|(whole, at)| Some((nll(at)? - nll(whole)?).exp_m1())),
        degradation_nats: over_seeds(|(whole, at)| Some(nll(at)? - nll(whole)?)),
        size_mb: size.map(|size| size.total().0 as f64 / 1e6),
        size_without_embedding_mb: size
            .map(|size| size.total().0.saturating_sub(size.embedding_bytes.0) as f64 / 1e6),
        prefill_tokens_per_second: over_seeds(|(_, at)| Some(at.prefill_tokens_per_second?.get())),
        decode_tokens_per_second: over_seeds(|(_, at)| Some(at.decode_tokens_per_second?.get())),
    }
}
