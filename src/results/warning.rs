//! What a reader must know before quoting a number: typed, with advice.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Finite;
use crate::units::{Bytes, Count};

/// A reservation about the results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Warning {
    /// Too short a training to speak of stability.
    TooFewSteps {
        /// Steps taken in each cell.
        steps: u64,
        /// Steps from which on a claim is supported.
        needed: u64,
    },
    /// A trained model hardly beats token frequencies.
    NothingLearned {
        /// The model.
        model: String,
        /// Benchmark and setting, [`Cell::place`](super::Cell::place).
        place: String,
        /// The seed.
        seed: u64,
        /// What it reached on held-out text, nats per token.
        nll_nats: Finite,
        /// What it had to reach.
        needed_nats: Finite,
    },
    /// A training completed, and the held-out loss of its weights is not finite: the cell has none.
    HeldOutNotFinite {
        /// The model.
        model: String,
        /// Benchmark and setting, [`Cell::place`](super::Cell::place).
        place: String,
        /// The seed.
        seed: u64,
    },
    /// Too few repetitions for a claim.
    FewSeeds {
        /// Seeds of the run.
        count: u64,
    },
    /// The best of the learning rates that a model was tried at is the lowest or the highest of them.
    EdgeOfGrid {
        /// The model.
        model: String,
        /// Key of the setting.
        setting: String,
        /// The rate.
        learning_rate: Finite,
    },
    /// No trial of a model completed, and so it is not reported with a learning rate of its own.
    NotTuned {
        /// The model.
        model: String,
        /// Key of the setting.
        setting: String,
    },
    /// The 3-gram was counted on a part of the training text.
    NGramCut {
        /// Tokens that were counted, the first ones.
        counted_tokens: usize,
        /// Tokens of the training text.
        n_tokens: usize,
    },
    /// The training text was read more than once.
    RepeatedData {
        /// Passes over it: in the cell that carries this warning, or at the run's longest sequence length.
        epochs: Finite,
    },
    /// The adapter is a program on the CPU: its times say nothing about a GPU.
    SoftwareAdapter {
        /// Its name.
        name: String,
    },
    /// Something to know about the device that was chosen.
    DeviceNote {
        /// The note.
        note: String,
    },
    /// The memory of a training was estimated badly.
    MemoryEstimateOff {
        /// The model.
        model: String,
        /// Benchmark and setting, [`Cell::place`](super::Cell::place).
        place: String,
        /// The seed.
        seed: u64,
        /// What it was estimated to need.
        estimated: Bytes,
        /// What it was seen to hold.
        measured: Bytes,
    },
    /// A kernel is much further from the oracle than at the shortest length, on a trained model's own tensors.
    KernelDrift {
        /// The model.
        model: String,
        /// Benchmark and setting, [`Cell::place`](super::Cell::place).
        place: String,
        /// The seed.
        seed: u64,
        /// The operation.
        operation: String,
        /// The layer, counted from 1.
        layer: usize,
        /// Largest error over the largest value; absent where it is not finite.
        error: Option<Finite>,
        /// The shortest length tried.
        shortest_len: usize,
        /// The error there; absent where it is not finite.
        error_at_shortest: Option<Finite>,
    },
    /// The logits of a model depend on later tokens: it has seen its targets.
    NotCausal {
        /// The model.
        model: String,
        /// Position of the earliest logit that moved, less that of the first token that was changed.
        first_leaking_offset: i64,
    },
    /// Two processes that train alike end with different bits.
    NotBitReproducible {
        /// The model.
        model: String,
        /// What differs.
        difference: String,
    },
    /// The model was not trained here.
    GivenWeights {
        /// Where it was read from.
        path: PathBuf,
    },
    /// The models differ widely in a size that was not matched.
    UnequalSize {
        /// The size: parameters `total` or `active`, or `flops`, forward FLOPs a token without the head.
        basis: String,
        /// Largest over smallest.
        ratio: Finite,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewSteps { steps, needed } => write!(
                f,
                "{steps} steps are too few for a claim about stability; take --steps {needed} or more"
            ),
            Self::NothingLearned {
                model,
                place,
                seed,
                nll_nats,
                needed_nats,
            } => write!(
                f,
                "{model} at {place}, seed {seed}, reached {:.3} nats per token on held-out text and needed \
                 {:.3} to show that it learned anything; take more steps or another learning rate",
                nll_nats.get(),
                needed_nats.get()
            ),
            Self::HeldOutNotFinite { model, place, seed } => write!(
                f,
                "the held-out loss of {model} at {place}, seed {seed}, is not finite: it has the worst rank and no value, and \
                 no mean is made without it; take a lower learning rate"
            ),
            Self::FewSeeds { count } => {
                write!(
                    f,
                    "{count} seed(s) say little about the spread; take --num_seeds 5 or more"
                )
            }
            Self::EdgeOfGrid {
                model,
                setting,
                learning_rate,
            } => write!(
                f,
                "the learning rate chosen for {model} at {setting}, {}, is at the edge of those that were tried: a better \
                 one may lie beyond",
                learning_rate.get()
            ),
            Self::NotTuned { model, setting } => write!(
                f,
                "no trial of {model} at {setting} completed: it has no results with a learning rate of its own there"
            ),
            Self::NGramCut {
                counted_tokens,
                n_tokens,
            } => write!(
                f,
                "the 3-gram was counted on the first {} of {} training tokens; on all it would be lower",
                Count(*counted_tokens as u64),
                Count(*n_tokens as u64)
            ),
            Self::RepeatedData { epochs } => write!(
                f,
                "the training text was read {:.1} times; give a longer one by --text, or take fewer steps",
                epochs.get()
            ),
            Self::SoftwareAdapter { name } => write!(
                f,
                "{name} is a software adapter: times and memory are those of the CPU; name a GPU by --device"
            ),
            Self::DeviceNote { note } => write!(f, "{note}"),
            Self::MemoryEstimateOff {
                model,
                place,
                seed,
                estimated,
                measured,
            } => write!(
                f,
                "{model} at {place}, seed {seed}, held {measured} and was estimated to need {estimated}; \
                 trust the measured value"
            ),
            Self::KernelDrift {
                model,
                place,
                seed,
                operation,
                layer,
                error,
                shortest_len,
                error_at_shortest,
            } => {
                let words = |error: &Option<Finite>| {
                    error.map_or("not finite".to_owned(), |error| {
                        format!("{:.1e}", error.get())
                    })
                };
                write!(
                    f,
                    "{operation} in layer {layer} of {model} at {place}, seed {seed}, is off by {} ({} at \
                     length {shortest_len}): do not trust this length; run `bkbench verify` on this device",
                    words(error),
                    words(error_at_shortest)
                )
            }
            Self::NotCausal {
                model,
                first_leaking_offset,
            } => write!(
                f,
                "{model} is not causal: its logits move with later tokens (first leaking offset \
                 {first_leaking_offset}); its numbers are compared with no other model's"
            ),
            Self::NotBitReproducible { model, difference } => write!(
                f,
                "{model} is not bit-reproducible on this device ({difference}); a resumed or repeated run may \
                 differ in the last digits"
            ),
            Self::GivenWeights { path } => write!(
                f,
                "the weights in {} were given and not trained here: what they were trained on, this text perhaps, is not known",
                path.display()
            ),
            Self::UnequalSize { basis, ratio } => {
                let size = match basis.as_str() {
                    "flops" => "FLOPs a token".to_owned(),
                    basis => format!("{basis} size"),
                };
                write!(
                    f,
                    "the models differ {:.1}x in {size}, which was not matched; read the comparison with that in mind",
                    ratio.get()
                )
            }
        }
    }
}
