//! The benchmarking guide's JSON of the quantization benchmark: width -> model -> values.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RunRecord, WidthSummary, guide_table};
use crate::Result;
use crate::quant::BitWidth;

/// Values of one model at one width: means over completed seeds, `null` where none completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizedEntry {
    /// Held-out perplexity per token.
    pub ppl: Option<f64>,
    /// Size of the tensors, 10^6 bytes.
    pub size_mb: Option<f64>,
    /// Perplexity over that at `fp32`, less 1; this and what follows is more than the guide has.
    #[serde(default)]
    pub degradation: Option<f64>,
    /// Held-out bits per byte.
    #[serde(default)]
    pub bits_per_byte: Option<f64>,
    /// Completed seeds.
    #[serde(default)]
    pub n_seeds: Option<usize>,
    /// Ends of the 95 % t interval of `ppl`.
    #[serde(default)]
    pub ci95: Option<[f64; 2]>,
    /// Whether the mean held-out loss is no better than that of token frequencies alone.
    #[serde(default)]
    pub unusable: Option<bool>,
}

/// The quantization results in the guide's shape, widths and models in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationGuide {
    /// Width and, by model name, its values.
    pub widths: Vec<(BitWidth, Vec<(String, QuantizedEntry)>)>,
}

impl QuantizationGuide {
    /// The summaries of a record, without those of models that are not causal.
    pub fn new(record: &RunRecord) -> Self {
        let metrics = record.cells.iter().find_map(|cell| cell.metrics.as_ref());
        let unigram = metrics.map(|metrics| metrics.unigram_ce_nats.get());
        // A model that was given has no metrics of a training.
        let unigram = unigram.or_else(|| record.data["unigram_ce_nats"].as_f64());
        let entry = |summary: &WidthSummary| {
            let ppl = summary.token_perplexity;
            let interval = ppl.and_then(|ppl| ppl.interval);
            let nll = summary.nll_nats.map(|nll| nll.mean);
            QuantizedEntry {
                ppl: ppl.map(|ppl| ppl.mean),
                size_mb: summary.size_mb,
                degradation: summary.degradation.map(|it| it.mean),
                bits_per_byte: summary.bits_per_byte.map(|it| it.mean),
                n_seeds: Some(summary.n_seeds),
                ci95: interval.map(|interval| [interval.low, interval.high]),
                unusable: nll.zip(unigram).map(|(nll, unigram)| nll >= unigram),
            }
        };
        let causal: Vec<&WidthSummary> = record
            .quantization
            .iter()
            .filter(|summary| record.is_causal(&summary.model))
            .collect();
        let mut widths: Vec<BitWidth> = causal.iter().map(|summary| summary.width).collect();
        widths.sort_unstable();
        widths.dedup();
        let at = |width: BitWidth| {
            let models = causal.iter().filter(|summary| summary.width == width);
            let models = models.map(|summary| (summary.model.clone(), entry(summary)));
            (width, models.collect())
        };
        Self {
            widths: widths.into_iter().map(at).collect(),
        }
    }

    /// The guide's JSON: width -> model -> values.
    pub fn to_json(&self) -> Value {
        guide_table::to_json(&self.widths, |width| width.name().to_owned())
    }

    /// Whether a document has keys of this shape.
    pub(super) fn looks_like(json: &Value) -> bool {
        guide_table::has_key(json, |key| named(key).is_some())
    }

    /// Reads the guide's shape.
    pub(super) fn from_json(json: Value, path: &Path) -> Result<Self> {
        let widths = guide_table::from_json(json, path, "a width", named)?;
        Ok(Self { widths })
    }
}

fn named(key: &str) -> Option<BitWidth> {
    BitWidth::ALL.into_iter().find(|width| width.name() == key)
}
