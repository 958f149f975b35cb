//! Floating-point operations: what counts as how many, and what a model was counted to need.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use super::Finite;

/// What counts as how many operations. Every figure in [`FlopsBreakdown`] is made of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// A product added to a sum.
    pub multiply_add: u64,
    /// Any other operation on real numbers: sum, product, quotient, change of sign, comparison, root, exponential,
    /// logarithm.
    pub scalar: u64,
    /// Product of two complex numbers.
    pub complex_multiply: u64,
    /// One over a complex number.
    pub complex_reciprocal: u64,
}

/// The table in force.
pub const COSTS: CostTable = CostTable {
    multiply_add: 2,
    scalar: 1,
    complex_multiply: 6,
    complex_reciprocal: 6,
};

/// What operations are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlopsCategory {
    /// Gathering the rows of the tokens.
    Embedding,
    /// Linear layers.
    MatrixProducts,
    /// Short convolutions along the sequence.
    Convolution,
    /// Recurrences along the sequence.
    StateUpdates,
    /// Every position with those before it.
    Attention,
    /// Nonlinearities.
    Activations,
    /// Normalisations.
    Normalization,
    /// Router, choice and weighting of experts, load balance.
    Routing,
    /// Sums, products and gates between the others.
    Elementwise,
    /// Logits and their cross-entropy.
    Head,
    /// Clipping and the update of the weights.
    Optimizer,
}

impl FlopsCategory {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Embedding,
        Self::MatrixProducts,
        Self::Convolution,
        Self::StateUpdates,
        Self::Attention,
        Self::Activations,
        Self::Normalization,
        Self::Routing,
        Self::Elementwise,
        Self::Head,
        Self::Optimizer,
    ];

    /// Name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::MatrixProducts => "matrix_products",
            Self::Convolution => "convolution",
            Self::StateUpdates => "state_updates",
            Self::Attention => "attention",
            Self::Activations => "activations",
            Self::Normalization => "normalization",
            Self::Routing => "routing",
            Self::Elementwise => "elementwise",
            Self::Head => "head",
            Self::Optimizer => "optimizer",
        }
    }
}

/// When operations run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlopsPass {
    /// From tokens to the loss.
    Forward,
    /// From the loss to the gradients.
    Backward,
    /// From the gradients to new weights.
    Update,
}

impl FlopsPass {
    /// Name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// A number of operations, two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flops {
    /// Of the sequential algorithm that stores what it will need: for every comparison.
    pub algorithmic: u64,
    /// As it was run: with warm-ups, scans in several passes, padding, and what was computed again.
    pub executed: u64,
}

impl Add for Flops {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            algorithmic: self.algorithmic + other.algorithmic,
            executed: self.executed + other.executed,
        }
    }
}

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(flops: I) -> Self {
        flops.fold(Self::default(), Add::add)
    }
}

/// All runs of one operation at one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlopsRow {
    /// What it was for.
    pub category: FlopsCategory,
    /// When it ran.
    pub pass: FlopsPass,
    /// Name of the operation.
    pub op: String,
    /// Its sizes by name.
    pub sizes: BTreeMap<String, u64>,
    /// How often it ran.
    pub times: u64,
    /// All runs together.
    pub flops: Flops,
}

/// What was counted while something ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlopsBreakdown {
    /// Sequences that went through the model.
    pub n_sequences: u64,
    /// Their tokens in all.
    pub n_tokens: u64,
    /// One row an operation and size.
    pub rows: Vec<FlopsRow>,
}

impl FlopsBreakdown {
    /// Of the rows that `keep` keeps.
    pub fn of(&self, keep: impl Fn(&FlopsRow) -> bool) -> Flops {
        let kept = self.rows.iter().filter(|row| keep(row));
        kept.map(|row| row.flops).sum()
    }

    /// Everything.
    pub fn total(&self) -> Flops {
        self.of(|_| true)
    }

    /// Everything but logits and loss.
    pub fn without_head(&self) -> Flops {
        self.of(|row| row.category != FlopsCategory::Head)
    }
}

/// FLOPs of a forward pass a token, [`Flops::algorithmic`] ones.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlopsPerToken {
    /// Logits and their cross-entropy included.
    pub with_head: Finite,
    /// Up to the final norm.
    pub without_head: Finite,
}

impl FlopsPerToken {
    /// Of what was registered.
    pub fn of(breakdown: &FlopsBreakdown) -> Self {
        let per_token = |flops: Flops| {
            let per_token = flops.algorithmic as f64 / breakdown.n_tokens as f64;
            Finite::new(per_token).unwrap_or_default()
        };
        Self {
            with_head: per_token(breakdown.total()),
            without_head: per_token(breakdown.without_head()),
        }
    }

    /// Mean of several; `None` of none.
    pub fn mean(several: impl Iterator<Item = Self>) -> Option<Self> {
        let (mut n, mut with_head, mut without_head) = (0.0, 0.0, 0.0);
        for flops in several {
            n += 1.0;
            with_head += flops.with_head.get();
            without_head += flops.without_head.get();
        }
        Some(Self {
            with_head: Finite::new(with_head / n)?,
            without_head: Finite::new(without_head / n)?,
        })
    }
}

/// One operation, registered by its formula and counted by running the sequential algorithm on numbers that
/// count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlopsAgreement {
    /// When it runs.
    pub pass: FlopsPass,
    /// Name of the operation.
    pub op: String,
    /// Its sizes by name.
    pub sizes: BTreeMap<String, u64>,
    /// What it registers.
    pub registered: u64,
    /// What was counted.
    pub counted: u64,
}

impl FlopsAgreement {
    /// Whether both say the same.
    pub fn is_equal(&self) -> bool {
        self.registered == self.counted
    }
}

/// The FLOPs of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlopsReport {
    /// Registered name of the model.
    pub model: String,
    /// What counts as how many.
    pub costs: CostTable,
    /// A forward pass without gradients, cross-entropy included.
    pub forward: FlopsBreakdown,
    /// One optimiser step.
    pub training: FlopsBreakdown,
    /// The forward pass by the formula of the model's shape, algorithmic.
    pub forward_by_formula: u64,
    /// Every operation of a small copy of the model.
    pub agreement: Vec<FlopsAgreement>,
}

impl FlopsReport {
    /// What does not agree, a line each.
    pub fn failures(&self) -> Vec<String> {
        let unequal = self.agreement.iter().filter(|check| !check.is_equal());
        let mut failures: Vec<String> = unequal
            .map(|check| {
                format!(
                    "{} {} {:?}: {} registered, {} counted",
                    check.op,
                    check.pass.name(),
                    check.sizes,
                    check.registered,
                    check.counted
                )
            })
            .collect();
        let ran = self.forward.total().algorithmic;
        if ran != self.forward_by_formula {
            failures.push(format!(
                "forward pass: {} by the shape's formula, {ran} registered",
                self.forward_by_formula
            ));
        }
        failures
    }
}

/// A name and four figures.
fn line(f: &mut fmt::Formatter<'_>, name: &str, figures: [Flops; 2]) -> fmt::Result {
    write!(f, "{name:<34}")?;
    for Flops {
        algorithmic,
        executed,
    } in figures
    {
        write!(f, "  {algorithmic:>16}  {executed:>16}")?;
    }
    writeln!(f)
}

/// Tables of what was counted, by category; with `#`, operation by operation too.
impl fmt::Display for FlopsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = |keep: &dyn Fn(&FlopsRow) -> bool| {
            [&self.forward, &self.training].map(|breakdown| breakdown.of(keep))
        };
        let FlopsBreakdown {
            n_sequences,
            n_tokens,
            ..
        } = self.training;
        writeln!(
            f,
            "FLOPs of {}, {n_sequences} sequence(s) of {} tokens",
            self.model,
            n_tokens / n_sequences
        )?;
        let columns = "       algorithmic          executed";
        writeln!(
            f,
            "{:<34}  {:>34}  {:>34}",
            "", "forward pass", "optimiser step"
        )?;
        writeln!(f, "{:<34}{columns}{columns}", "")?;
        for category in FlopsCategory::ALL {
            let figures = both(&|row| row.category == category);
            if figures.iter().any(|flops| flops.executed > 0) {
                line(f, category.name(), figures)?;
            }
        }
        for pass in [FlopsPass::Forward, FlopsPass::Backward, FlopsPass::Update] {
            line(
                f,
                &format!("all, {}", pass.name()),
                both(&|row| row.pass == pass),
            )?;
        }
        line(f, "all", both(&|_| true))?;
        let headless = |row: &FlopsRow| row.category != FlopsCategory::Head;
        line(f, "all without head", both(&headless))?;
        let per = |n: u64| {
            move |Flops {
                      algorithmic,
                      executed,
                  }| Flops {
                algorithmic: (algorithmic + n / 2) / n,
                executed: (executed + n / 2) / n,
            }
        };
        line(f, "a token", both(&|_| true).map(per(n_tokens)))?;
        line(
            f,
            "a token without head",
            both(&headless).map(per(n_tokens)),
        )?;
        line(f, "a sequence", both(&|_| true).map(per(n_sequences)))?;
        if f.alternate() {
            for (name, breakdown) in [
                ("forward pass", &self.forward),
                ("optimiser step", &self.training),
            ] {
                writeln!(
                    f,
                    "{name}: operation, category, pass, times, algorithmic, executed"
                )?;
                breakdown
                    .rows
                    .iter()
                    .try_for_each(|row| write!(f, "{row}"))?;
            }
            writeln!(
                f,
                "counted by running the sequential algorithm on a small copy of the model"
            )?;
            self.agreement
                .iter()
                .try_for_each(|check| write!(f, "{check}"))?;
        }
        let equal = self
            .agreement
            .iter()
            .filter(|check| check.is_equal())
            .count();
        writeln!(
            f,
            "{equal} of {} operations register what the sequential algorithm was counted to take",
            self.agreement.len()
        )
    }
}

/// "batch 1, seq 2, ..."
fn sizes(sizes: &BTreeMap<String, u64>) -> String {
    let sizes: Vec<String> = sizes
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    sizes.join(", ")
}

impl fmt::Display for FlopsRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} [{}]  {}  {}  {}  {}  {}",
            self.op,
            sizes(&self.sizes),
            self.category.name(),
            self.pass.name(),
            self.times,
            self.flops.algorithmic,
            self.flops.executed
        )
    }
}

impl fmt::Display for FlopsAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {}  {} [{}]  {}  {} registered, {} counted",
            if self.is_equal() { "equal" } else { "DIFFER" },
            self.op,
            sizes(&self.sizes),
            self.pass.name(),
            self.registered,
            self.counted
        )
    }
}
