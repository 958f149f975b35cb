//! What was checked of a model before, or after, anything was trained, and how it went.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Finite;

/// An initial loss this far below that of guessing, in nats per token, has seen its targets.
const LEAKED_NATS: f64 = 0.3;
/// One this far above it starts from confident mistakes.
const CONFIDENT_NATS: f64 = 1.0;
/// Relative error of a derivative that fails: a gradient wrong by 1 % lies well above.
const GRADIENT_TOLERANCE: f64 = 3e-3;
/// A size that was not matched is mentioned from this ratio on.
pub const UNEQUAL_RATIO: f64 = 2.0;

/// All checks of one model with one set of weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditReport {
    /// Registered name of the model.
    pub model: String,
    /// Which weights it had.
    pub weights: AuditedWeights,
    /// Seed of the weights.
    pub seed: u64,
    /// The checks in the order in which they were made.
    pub checks: Vec<AuditCheck>,
}

/// Weights that an audit looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditedWeights {
    /// As drawn.
    Initial,
    /// As the model's first training left them.
    Final,
}

/// One check with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditCheck {
    /// Follows from what was found.
    pub verdict: Verdict,
    /// What was found.
    pub finding: Finding,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// To be known before a number is quoted.
    Warn,
    /// Wrong.
    Fail,
}

/// What a check found, with its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// Whether logits move when later tokens are replaced.
    Causality(LeakSearch),
    /// Whether logits move when later tokens are cut off.
    Truncation(LeakSearch),
    /// Cross-entropy of the initial weights on real text.
    InitialLoss {
        /// What it is, nats per token; absent where it is not finite.
        nats: Option<Finite>,
        /// That of guessing, the logarithm of the vocabulary's size.
        guessing_nats: Finite,
    },
    /// Gradients of a tiny copy of the model against differences of its loss, one direction a parameter tensor.
    Gradient {
        /// Parameter tensors.
        n_tensors: usize,
        /// Largest relative error of a derivative; absent where it is not finite.
        largest_error: Option<Finite>,
        /// The tensor it belongs to.
        tensor: String,
        /// Whether the model means its gradient to be exact.
        is_meant_exact: bool,
    },
    /// Whether two processes train to the same bits.
    Determinism {
        /// Optimiser steps of either.
        n_steps: u64,
        /// sha256 of the weights of the first process.
        weights_sha256: String,
        /// sha256 of its optimiser's moments.
        moments_sha256: String,
        /// In what the second process differs, or why it could not be asked; absent where all bits are equal.
        difference: Option<String>,
    },
    /// Whether all models and processes are given the same data.
    EqualData {
        /// sha256 of the training tokens.
        ids_sha256: String,
        /// sha256 of the tokenizer.
        tokenizer_sha256: String,
        /// sha256 of the batches in the order in which they were trained on.
        data_order_sha256: String,
        /// What differs; absent where all are equal.
        difference: Option<String>,
    },
    /// Sizes of the compared models.
    Matching {
        /// Names of the models.
        models: Vec<String>,
        /// Largest over smallest number of parameters, embedding left out.
        non_embedding_ratio: Finite,
        /// The same of all parameters.
        total_ratio: Finite,
        /// The same of those that a token uses, embedding left out.
        active_ratio: Finite,
        /// The same of forward FLOPs a token, head left out; absent in records of programs that did not compare them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flops_ratio: Option<Finite>,
    },
    /// The kernels of this device against the sequential oracle.
    Kernels {
        /// Tensors compared.
        n_tensors: usize,
        /// One line for each that misses its bound.
        failures: Vec<String>,
    },
}

/// How far logits depend on tokens behind them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeakSearch {
    /// Tokens of the sequence.
    pub n_tokens: usize,
    /// Positions from which on tokens were changed or cut off.
    pub cuts: Vec<usize>,
    /// Largest change of an earlier logit, relative to the largest logit; absent where it is not finite.
    pub largest_change: Option<Finite>,
    /// The change that lies farthest before its cut.
    pub leak: Option<Leak>,
    /// Choices of routers, over cuts, layers and earlier tokens, that came out otherwise. The logits were compared
    /// with all of them kept as they were. Where no leak was found, other texts did not show any: they are ties that
    /// rounding decided.
    #[serde(alias = "n_not_reproduced")]
    pub n_flips: usize,
}

/// A logit that moved with a later token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leak {
    /// Position of the earliest logit that moved, less that of the first token that was changed: -1 or below.
    pub first_offset: i64,
    /// Position of the first token that was changed.
    pub cut: usize,
}

impl AuditReport {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        let failed = |check: &&AuditCheck| check.verdict == Verdict::Fail;
        self.checks
            .iter()
            .filter(failed)
            .map(|check| &check.finding)
    }

    /// Whether no logit was seen to depend on a later token.
    pub fn is_causal(&self) -> bool {
        !self.failures().any(Finding::is_about_causality)
    }
}

impl From<Finding> for AuditCheck {
    fn from(finding: Finding) -> Self {
        Self {
            verdict: finding.verdict(),
            finding,
        }
    }
}

impl Finding {
    /// Whether it is about logits that depend on later tokens.
    pub fn is_about_causality(&self) -> bool {
        matches!(self, Self::Causality(_) | Self::Truncation(_))
    }

    fn verdict(&self) -> Verdict {
        let fail_if = |failed| if failed { Verdict::Fail } else { Verdict::Pass };
        let warn_if = |warned| if warned { Verdict::Warn } else { Verdict::Pass };
        match self {
            Self::Causality(search) | Self::Truncation(search) => match search {
                LeakSearch {
                    leak: None,
                    n_flips,
                    ..
                } => warn_if(*n_flips > 0),
                _ => Verdict::Fail,
            },
            Self::InitialLoss {
                nats,
                guessing_nats,
            } => match nats.map(|nats| nats.get() - guessing_nats.get()) {
                Some(excess) if excess >= -LEAKED_NATS => warn_if(excess > CONFIDENT_NATS),
                _ => Verdict::Fail,
            },
            Self::Gradient {
                largest_error,
                is_meant_exact,
                ..
            } => {
                let is_off = largest_error.is_none_or(|error| error.get() > GRADIENT_TOLERANCE);
                if *is_meant_exact {
                    fail_if(is_off)
                } else {
                    warn_if(is_off)
                }
            }
            Self::Determinism { difference, .. } => warn_if(difference.is_some()),
            Self::EqualData { difference, .. } => fail_if(difference.is_some()),
            Self::Matching {
                total_ratio,
                active_ratio,
                flops_ratio,
                ..
            } => {
                let ratios = [Some(*total_ratio), Some(*active_ratio), *flops_ratio];
                warn_if(ratios.iter().flatten().any(|it| it.get() > UNEQUAL_RATIO))
            }
            Self::Kernels {
                n_tensors,
                failures,
            } => fail_if(*n_tensors == 0 || !failures.is_empty()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

impl fmt::Display for AuditCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.verdict, self.finding)
    }
}

/// `1.2e-7`, or what stands for a number that is not finite.
struct Scientific(Option<Finite>);

impl fmt::Display for Scientific {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{:.1e}", value.get()),
            None => f.write_str("a value that is not finite"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Causality(search) => write!(f, "causality: {} replaced: {search}", search.cut()),
            Self::Truncation(search) => write!(f, "truncation: {} cut off: {search}", search.cut()),
            Self::InitialLoss {
                nats,
                guessing_nats,
            } => {
                let guessing = guessing_nats.get();
                match nats.map(Finite::get) {
                    Some(nats) => write!(
                        f,
                        "initial loss: {nats:.3} nats per token, guessing gives {guessing:.3}"
                    )?,
                    None => write!(f, "initial loss: not finite")?,
                }
                match self.verdict() {
                    Verdict::Pass => Ok(()),
                    Verdict::Warn => write!(f, "; it starts from confident mistakes"),
                    Verdict::Fail => write!(f, "; an untrained model cannot know its targets"),
                }
            }
            Self::Gradient {
                n_tensors,
                largest_error,
                tensor,
                is_meant_exact,
            } => {
                write!(
                    f,
                    "gradient: {n_tensors} parameter tensors of a tiny copy, derivatives differ from differences \
                     of the loss by {} at most, in {tensor}, allowed {GRADIENT_TOLERANCE:.0e}",
                    Scientific(*largest_error)
                )?;
                if *is_meant_exact {
                    Ok(())
                } else {
                    write!(f, "; this model's gradient is not meant to be exact")
                }
            }
            Self::Determinism {
                n_steps,
                weights_sha256,
                difference,
                ..
            } => match difference {
                None => write!(
                    f,
                    "determinism: {n_steps} steps in two processes, equal bits of weights and moments, \
                     sha256 {}",
                    short(weights_sha256)
                ),
                Some(difference) => write!(f, "determinism: {n_steps} steps: {difference}"),
            },
            Self::EqualData {
                ids_sha256,
                tokenizer_sha256,
                data_order_sha256,
                difference,
            } => match difference {
                None => write!(
                    f,
                    "equal data: tokens {}, tokenizer {}, batches {} for every model and process",
                    short(ids_sha256),
                    short(tokenizer_sha256),
                    short(data_order_sha256)
                ),
                Some(difference) => write!(f, "equal data: {difference}"),
            },
            Self::Matching {
                models,
                non_embedding_ratio,
                total_ratio,
                active_ratio,
                flops_ratio,
            } => {
                write!(
                    f,
                    "matching: parameters of {} differ {:.3}x without the embedding, {:.3}x with it, {:.3}x by those \
                     that a token uses",
                    models.join(", "),
                    non_embedding_ratio.get(),
                    total_ratio.get(),
                    active_ratio.get()
                )?;
                match flops_ratio {
                    Some(ratio) => write!(f, "; forward FLOPs a token {:.3}x", ratio.get()),
                    None => Ok(()),
                }
            }
            Self::Kernels {
                n_tensors,
                failures,
            } => {
                write!(f, "kernels: {n_tensors} tensors against the oracle")?;
                match failures.first() {
                    None => write!(f, ", all within their bounds"),
                    Some(first) => write!(
                        f,
                        ", {} miss; {first}; see `bkbench verify`",
                        failures.len()
                    ),
                }
            }
        }
    }
}

impl LeakSearch {
    /// The tokens that were touched, in words.
    fn cut(&self) -> String {
        let listed: Vec<String> = self.cuts.iter().map(ToString::to_string).collect();
        let (n, listed) = (self.n_tokens, listed.join(", "));
        format!("of {n} tokens, those from {listed} on")
    }
}

impl fmt::Display for LeakSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = Scientific(self.largest_change);
        let n_flips = self.n_flips;
        write!(
            f,
            "earlier logits move by {change} of the largest with routing pinned, {n_flips} flips of routers"
        )?;
        if let Some(Leak { first_offset, cut }) = self.leak {
            write!(
                f,
                "; first leaking offset {first_offset} (tokens from {cut} on)"
            )?;
        }
        if self.leak.is_none() && self.n_flips > 0 {
            write!(f, " in this text alone: ties that rounding decided")?;
        }
        Ok(())
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial_loss(nats: f64) -> Verdict {
        let finding = Finding::InitialLoss {
            nats: Finite::new(nats),
            guessing_nats: Finite::new(256_f64.ln()).unwrap(),
        };
        finding.verdict()
    }

    #[test]
    fn an_initial_loss_is_judged_against_guessing() {
        let guessing = 256_f64.ln();
        assert_eq!(initial_loss(guessing - 0.29), Verdict::Pass);
        assert_eq!(initial_loss(guessing + 0.99), Verdict::Pass);
        assert_eq!(initial_loss(guessing - 0.31), Verdict::Fail);
        assert_eq!(initial_loss(guessing + 1.01), Verdict::Warn);
        assert_eq!(initial_loss(f64::NAN), Verdict::Fail);
    }

    #[test]
    fn a_report_reads_back_from_its_json() {
        let search = LeakSearch {
            n_tokens: 8,
            cuts: vec![1, 4],
            largest_change: None,
            leak: Some(Leak {
                first_offset: -1,
                cut: 4,
            }),
            n_flips: 0,
        };
        let report = AuditReport {
            model: "resnetbk".into(),
            weights: AuditedWeights::Initial,
            seed: 42,
            checks: vec![Finding::Causality(search).into()],
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<AuditReport>(&text).unwrap(), report);
        assert!(!report.is_causal());
        assert!(
            report.checks[0]
                .to_string()
                .contains("first leaking offset -1"),
            "{}",
            report.checks[0]
        );
    }
}
