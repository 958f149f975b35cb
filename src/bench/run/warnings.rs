//! What a reader must know before quoting a number of a run.

use super::{Part, Run};
use crate::config::Benchmark;
use crate::eval::COUNTED_TOKENS;
use crate::models::registry::{ModelShape, ParameterCount};
use crate::results::{
    AuditReport, Cell, Finding, Finite, Outcome, SEEDS_FOR_A_CLAIM, STEPS_FOR_A_CLAIM,
    UNEQUAL_RATIO, Warning,
};

/// A trained cell lies at least this far below the unigram cross-entropy, in nats per token.
const LEARNED_NATS: f64 = 0.2;
/// An estimate of memory that is further off is mentioned,
const ESTIMATE_OFF: f64 = 0.15;
/// unless by no more than what is held beside tensors, which does not grow with them (1.2 MiB where 0.5 were estimated).
const BESIDE_TENSORS: u64 = 4 << 20;

impl Run<'_> {
    /// What is known before anything is trained.
    pub(super) fn warnings_before(&self, audits: &[AuditReport]) -> Vec<Warning> {
        let hardware = self.hardware;
        let mut warnings: Vec<Warning> = hardware
            .notes
            .iter()
            .map(|note| Warning::DeviceNote { note: note.clone() })
            .collect();
        if let Some(adapter) = hardware
            .adapter
            .as_ref()
            .filter(|adapter| adapter.is_software())
        {
            warnings.push(Warning::SoftwareAdapter {
                name: adapter.name.clone(),
            });
        }
        for part in self.parts {
            for warning in part.warnings_before() {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        let texts = self.parts.iter().map(|part| part.dataset.train.len());
        if let Some(n_tokens) = texts.max().filter(|&n| n > COUNTED_TOKENS) {
            warnings.push(Warning::NGramCut {
                counted_tokens: COUNTED_TOKENS,
                n_tokens,
            });
        }
        warnings.extend(audits.iter().flat_map(of_audit));
        warnings
    }
}

impl Part {
    fn warnings_before(&self) -> Vec<Warning> {
        let grid = &self.grid;
        if let Some(given) = &self.given {
            return vec![Warning::GivenWeights {
                path: given.path.clone(),
            }];
        }
        let mut warnings = Vec::new();
        if grid.n_steps < STEPS_FOR_A_CLAIM {
            warnings.push(Warning::TooFewSteps {
                steps: grid.n_steps,
                needed: STEPS_FOR_A_CLAIM,
            });
        }
        let n_seeds = grid.seeds.len() as u64;
        if n_seeds < SEEDS_FOR_A_CLAIM {
            warnings.push(Warning::FewSeeds { count: n_seeds });
        }
        warnings.extend(self.repeated_data(grid.longest()));
        // Under a budget of FLOPs sizes are what they come to.
        let matched = match self.benchmark {
            Benchmark::Longcontext | Benchmark::Quantization | Benchmark::Multidataset => {
                grid.shapes()
            }
            Benchmark::Efficiency => Vec::new(),
        };
        let counts: Vec<ParameterCount> = matched.iter().map(ModelShape::parameters).collect();
        let total: Vec<usize> = counts.iter().map(|count| count.total).collect();
        let active: Vec<usize> = counts.iter().map(|count| count.active).collect();
        let flops = matched.iter().map(ModelShape::matched_flops_per_token);
        let bases = [
            ("total", total),
            ("active", active),
            ("flops", flops.collect()),
        ];
        for (basis, sizes) in bases {
            if let (Some(&min), Some(&max)) = (sizes.iter().min(), sizes.iter().max())
                && let Some(ratio) = Finite::new(max as f64 / min as f64)
                && ratio.get() > UNEQUAL_RATIO
            {
                warnings.push(Warning::UnequalSize {
                    basis: basis.to_owned(),
                    ratio,
                });
            }
        }
        warnings
    }

    /// Whether cells of this length read their training text more than once.
    pub(super) fn repeated_data(&self, seq_len: usize) -> Option<Warning> {
        let tokens = self.grid.n_steps as f64 * (self.config.train.batch_size * seq_len) as f64;
        let epochs = Finite::new(tokens / self.dataset.train.len() as f64)?;
        (epochs.get() > 1.0).then_some(Warning::RepeatedData { epochs })
    }
}

/// What an audit found that every number of its model must be read with.
pub(super) fn of_audit(audit: &AuditReport) -> Vec<Warning> {
    let model = || audit.model.clone();
    let warning = |finding: &Finding| match finding {
        Finding::Causality(search) | Finding::Truncation(search) => {
            search.leak.map(|leak| Warning::NotCausal {
                model: model(),
                first_leaking_offset: leak.first_offset,
            })
        }
        Finding::Determinism {
            difference: Some(difference),
            ..
        } => Some(Warning::NotBitReproducible {
            model: model(),
            difference: difference.clone(),
        }),
        _ => None,
    };
    audit
        .checks
        .iter()
        .filter_map(|check| warning(&check.finding))
        .collect()
}

/// A loss that is not finite is no number to record: the cell has none, and this says why.
pub(super) fn held_out_not_finite(cell: &Cell) -> Option<Warning> {
    let metrics = cell.metrics.as_ref()?;
    let is_not_finite = cell.outcome == Outcome::Completed && metrics.evaluation.is_none();
    is_not_finite.then(|| Warning::HeldOutNotFinite {
        model: cell.model.clone(),
        place: cell.place(),
        seed: cell.seed,
    })
}

pub(super) fn nothing_learned(cell: &Cell) -> Option<Warning> {
    let metrics = cell.metrics.as_ref()?;
    let evaluation = metrics.evaluation.as_ref()?;
    let needed = metrics.unigram_ce_nats.get() - LEARNED_NATS;
    (evaluation.nll_nats.get() > needed).then(|| Warning::NothingLearned {
        model: cell.model.clone(),
        place: cell.place(),
        seed: cell.seed,
        nll_nats: evaluation.nll_nats,
        needed_nats: Finite::new(needed).unwrap_or_default(),
    })
}

/// Only a training that went to its end has shown all that it holds.
pub(super) fn memory_estimate_off(cell: &Cell) -> Option<Warning> {
    let memory = cell.metrics.as_ref()?.memory;
    let completed = cell.outcome == Outcome::Completed;
    let off = (memory.estimated_over_measured()? - 1.0).abs();
    let bytes = memory
        .estimated
        .total()
        .0
        .abs_diff(memory.peak_memory_bytes.0);
    (completed && off > ESTIMATE_OFF && bytes > BESIDE_TENSORS).then(|| {
        Warning::MemoryEstimateOff {
            model: cell.model.clone(),
            place: cell.place(),
            seed: cell.seed,
            estimated: memory.estimated.total(),
            measured: memory.peak_memory_bytes,
        }
    })
}
