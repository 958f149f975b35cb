//! What every operation costs as the algorithm has it: formulas in sizes, nothing else. That they are right is shown
//! by running the oracle on numbers that count (`verify::flops`), which shares nothing with them.

use std::collections::BTreeMap;

use crate::results::{COSTS, FlopsCategory, FlopsPass};

/// Operations with their names, categories and sizes.
macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident($name:literal, $category:ident) {
        $($(#[$size_doc:meta])* $size:ident,)*
    })*) => {
        /// An operation of a model and its sizes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op {
            $($(#[$doc])* $op { $($(#[$size_doc])* $size: usize,)* },)*
        }

        impl Op {
            /// Name in files and tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$op { .. } => $name,)*
                }
            }

            /// What it is for, unless the place where it runs says otherwise.
            pub fn category(self) -> FlopsCategory {
                match self {
                    $(Self::$op { .. } => FlopsCategory::$category,)*
                }
            }

            /// The sizes by name.
            pub fn sizes(self) -> BTreeMap<String, u64> {
                match self {
                    $(Self::$op { $($size,)* } => BTreeMap::from([
                        $((stringify!($size).to_owned(), $size as u64),)*
                    ]),)*
                }
            }
        }
    };
}

ops! {
    /// Rows of a matrix by index; backward, their gradients added up.
    Gather("gather_rows", Embedding) {
        /// Indices.
        rows,
        /// Columns.
        width,
    }
    /// `[rows, inner]` times `[inner, columns]`; backward, by one of the factors.
    MatrixProduct("matrix_product", MatrixProducts) {
        /// Of the left factor.
        rows,
        /// What is summed over.
        inner,
        /// Of the right factor.
        columns,
    }
    /// A vector added to every row.
    Bias("bias", MatrixProducts) {
        /// Rows.
        rows,
        /// Columns.
        width,
    }
    /// `ops::causal_conv` without its activation.
    CausalConv("causal_conv", Convolution) {
        /// Sequences.
        batch,
        /// Time steps.
        seq,
        /// Channels.
        channels,
        /// Taps.
        d_conv,
    }
    /// `ops::selective_scan` from delta on.
    SelectiveScan("selective_scan", StateUpdates) {
        /// Sequences.
        batch,
        /// Time steps.
        seq,
        /// Channels.
        d_inner,
        /// States of a channel.
        d_state,
    }
    /// `ops::resolvent_diag`.
    ResolventDiag("resolvent_diag", StateUpdates) {
        /// Sequences.
        batch,
        /// Rows of a matrix.
        seq,
        /// Matrices a sequence.
        heads,
        /// Couplings that have a gradient.
        couplings,
    }
    /// `ops::resolvent_diag::bidirectional` with its exact gradient.
    ResolventDiagBidirectional("resolvent_diag_bidirectional", StateUpdates) {
        /// Sequences.
        batch,
        /// Rows of a matrix.
        seq,
        /// Matrices a sequence.
        heads,
        /// Couplings that have a gradient.
        couplings,
    }
    /// The same with the published gradient.
    ResolventDiagPublished("resolvent_diag_published", StateUpdates) {
        /// Sequences.
        batch,
        /// Rows of a matrix.
        seq,
        /// Matrices a sequence.
        heads,
    }
    /// `ops::attention`: every position to itself and those before it.
    Attention("attention", Attention) {
        /// Sequences.
        batch,
        /// Positions.
        seq,
        /// Heads a sequence.
        heads,
        /// Of a head.
        width,
    }
    /// Pairs of numbers turned by an angle.
    Rotation("rotation", Elementwise) {
        /// Elements.
        n,
    }
    /// `x Phi(x)`, by its approximation through a sigmoid.
    Gelu("gelu", Activations) {
        /// Elements.
        n,
    }
    /// `x` where positive, else 0.
    Relu("relu", Activations) {
        /// Elements.
        n,
    }
    /// `x sigmoid(x)`.
    Silu("silu", Activations) {
        /// Elements.
        n,
    }
    /// `ln(1 + e^x)`.
    Softplus("softplus", Activations) {
        /// Elements.
        n,
    }
    /// Kept within two bounds.
    Clamp("clamp", Activations) {
        /// Elements.
        n,
    }
    /// Of each row.
    Softmax("softmax", Activations) {
        /// Rows.
        rows,
        /// Columns.
        width,
    }
    /// Rows over their root mean square, times a weight.
    RmsNorm("rms_norm", Normalization) {
        /// Rows.
        rows,
        /// Columns.
        width,
    }
    /// The k largest of each row.
    TopK("top_k", Routing) {
        /// Rows.
        rows,
        /// Columns.
        width,
        /// How many.
        k,
    }
    /// Experts by the phase of a complex number and by its size.
    PhaseRouting("phase_routing", Routing) {
        /// Tokens.
        rows,
        /// Experts.
        n_experts,
    }
    /// Weighted sum of a router's probabilities.
    LoadBalance("load_balance", Routing) {
        /// Tokens.
        rows,
        /// Experts.
        width,
    }
    /// Element by element.
    Add("add", Elementwise) {
        /// Elements.
        n,
    }
    /// Element by element.
    Multiply("multiply", Elementwise) {
        /// Elements.
        n,
    }
    /// By a learned or computed factor that many elements share.
    Scale("scale", Elementwise) {
        /// Elements.
        n,
    }
    /// By a mask that has no gradient.
    Mask("mask", Elementwise) {
        /// Elements.
        n,
    }
    /// Mamba's decay rates from their logarithms.
    DecayRates("decay_rates", Elementwise) {
        /// Elements.
        n,
    }
    /// Gradients of what several operations read.
    GradientSum("gradient_sum", Elementwise) {
        /// Additions.
        n,
    }
    /// Negative log-likelihood of each row's target.
    CrossEntropy("cross_entropy", Head) {
        /// Tokens.
        rows,
        /// Words.
        vocab,
    }
    /// A factor times a sum.
    ScaledSum("scaled_sum", Head) {
        /// Terms.
        n,
    }
    /// Of a gradient, for clipping.
    SquaredNorm("squared_norm", Optimizer) {
        /// Elements.
        n,
    }
    /// Clipping of a gradient.
    Rescale("rescale", Optimizer) {
        /// Elements.
        n,
    }
    /// Update of a parameter without weight decay.
    AdamW("adamw", Optimizer) {
        /// Elements.
        n,
    }
    /// Decay of a parameter.
    WeightDecay("weight_decay", Optimizer) {
        /// Elements.
        n,
    }
}

const MULTIPLY_ADD: u64 = COSTS.multiply_add;
const SCALAR: u64 = COSTS.scalar;
/// A complex number times a real one, or a sum of two complex numbers.
const COMPLEX_SUM: u64 = 2 * SCALAR;
/// Real part of a product.
const REAL_PART: u64 = 3 * SCALAR;
const COMPLEX: u64 = COSTS.complex_multiply;
const RECIPROCAL: u64 = COSTS.complex_reciprocal;

/// `sigmoid(x)`: sign, exponential, sum, quotient.
const SIGMOID: u64 = 4 * SCALAR;
/// `max(x, 0) + ln(1 + e^-|x|)`: maximum, absolute value, sign, exponential, logarithm, sum.
pub(in crate::ops) const SOFTPLUS: u64 = 6 * SCALAR;
/// `x sigmoid(x)`.
pub(in crate::ops) const SILU: u64 = SIGMOID + SCALAR;

/// A row of the causal resolvent: its diagonal less Re z, the product with the row before, one over the difference.
pub(in crate::ops) const RESOLVENT_ROW: u64 = SCALAR + 2 * COMPLEX_SUM + RECIPROCAL;
/// A row of its adjoint: sum of the cotangents, times g^2; gradients of diagonal and shift; on to the row before.
pub(in crate::ops) const RESOLVENT_ROW_BACK: u64 =
    COMPLEX_SUM + 2 * COMPLEX + SCALAR + COMPLEX_SUM + COMPLEX_SUM;
/// Gradient of a coupling.
pub(in crate::ops) const RESOLVENT_COUPLING_BACK: u64 = REAL_PART;

/// An element of a rotated pair: two products and their sum.
const ROTATED: u64 = 3 * SCALAR;
/// An element of a softmax: largest, difference, exponential, sum, quotient.
const SOFTMAX: u64 = 5 * SCALAR;
const SOFTMAX_BACK: u64 = MULTIPLY_ADD + 2 * SCALAR;

/// A query and a key: their product, scaled, its softmax.
pub(in crate::ops) fn attention_weight(width: usize) -> u64 {
    MULTIPLY_ADD * width as u64 + SCALAR + SOFTMAX
}

/// The same with the value added up.
pub(in crate::ops) fn attention_pair(width: usize) -> u64 {
    attention_weight(width) + MULTIPLY_ADD * width as u64
}

/// Gradients of value, weight, query and key.
pub(in crate::ops) fn attention_pair_back(width: usize) -> u64 {
    4 * MULTIPLY_ADD * width as u64 + SOFTMAX_BACK + SCALAR
}

/// Pairs of a position with itself or one before it.
fn pairs(seq: usize) -> u64 {
    let seq = seq as u64;
    seq * (seq + 1) / 2
}

impl Op {
    /// Floating-point operations of the sequential algorithm. A backward pass may read whatever the forward pass
    /// computed.
    pub fn cost(self, pass: FlopsPass) -> u64 {
        match pass {
            FlopsPass::Forward => self.forward(),
            FlopsPass::Backward => self.backward(),
            FlopsPass::Update => self.update(),
        }
    }

    fn forward(self) -> u64 {
        let product = |sizes: &[usize]| sizes.iter().map(|&size| size as u64).product::<u64>();
        match self {
            Self::Gather { .. }
            | Self::GradientSum { .. }
            | Self::SquaredNorm { .. }
            | Self::Rescale { .. }
            | Self::AdamW { .. }
            | Self::WeightDecay { .. } => 0,
            Self::MatrixProduct {
                rows,
                inner,
                columns,
            } => MULTIPLY_ADD * product(&[rows, inner, columns]),
            Self::Bias { rows, width } => SCALAR * product(&[rows, width]),
            Self::CausalConv {
                batch,
                seq,
                channels,
                d_conv,
            } => MULTIPLY_ADD * product(&[batch, seq, channels, d_conv]),
            Self::SelectiveScan {
                batch,
                seq,
                d_inner,
                d_state,
            } => {
                // delta a, its exponential, that times the state; plus x b; y plus c h.
                let state = 3 * SCALAR + 2 * MULTIPLY_ADD;
                product(&[batch, seq, d_inner]) * (SCALAR + state * d_state as u64)
            }
            Self::ResolventDiag {
                batch, seq, heads, ..
            } => product(&[batch, heads]) * (seq as u64 * RESOLVENT_ROW + SCALAR),
            Self::ResolventDiagBidirectional {
                batch, seq, heads, ..
            }
            | Self::ResolventDiagPublished { batch, seq, heads } => {
                // The diagonal less Re z once; either side's recurrence; both sides together.
                let side = 2 * COMPLEX_SUM + RECIPROCAL;
                let row = SCALAR + 2 * side + COMPLEX_SUM + RECIPROCAL;
                product(&[batch, heads]) * (seq as u64 * row + SCALAR)
            }
            Self::Attention {
                batch,
                seq,
                heads,
                width,
            } => product(&[batch, heads]) * pairs(seq) * attention_pair(width),
            Self::Rotation { n } => ROTATED * n as u64,
            // Square, polynomial, argument; sigmoid; product.
            Self::Gelu { n } => (2 * SCALAR + MULTIPLY_ADD + SIGMOID + SCALAR) * n as u64,
            Self::Relu { n }
            | Self::Add { n }
            | Self::Multiply { n }
            | Self::Scale { n }
            | Self::Mask { n } => SCALAR * n as u64,
            Self::Silu { n } => SILU * n as u64,
            Self::Softplus { n } => SOFTPLUS * n as u64,
            Self::Clamp { n } | Self::DecayRates { n } => 2 * SCALAR * n as u64,
            Self::Softmax { rows, width } => SOFTMAX * product(&[rows, width]),
            // Mean square, root; quotient and weight.
            Self::RmsNorm { rows, width } => {
                rows as u64 * ((MULTIPLY_ADD + 2 * SCALAR) * width as u64 + 3 * SCALAR)
            }
            Self::TopK { rows, width, k } => {
                // The first goes through all but one, each other one through one fewer.
                SCALAR * rows as u64 * (0..k).map(|taken| (width - 1 - taken) as u64).sum::<u64>()
            }
            Self::PhaseRouting { rows, n_experts } => {
                // Phase, scaled; which part; how far in, above half or below; squared size, above its threshold.
                let size = SCALAR + MULTIPLY_ADD + SCALAR;
                rows as u64 * (2 * SCALAR + SCALAR * (n_experts as u64 - 1) + 2 * SCALAR + size)
            }
            Self::LoadBalance { rows, width } => {
                SCALAR * product(&[rows, width]) + MULTIPLY_ADD * width as u64
            }
            // Largest, difference, exponential, sum; logarithm and difference.
            Self::CrossEntropy { rows, vocab } => {
                rows as u64 * (4 * SCALAR * vocab as u64 + 2 * SCALAR)
            }
            Self::ScaledSum { n } => SCALAR * n as u64 + SCALAR,
        }
    }

    fn backward(self) -> u64 {
        let product = |sizes: &[usize]| sizes.iter().map(|&size| size as u64).product::<u64>();
        match self {
            Self::TopK { .. }
            | Self::PhaseRouting { .. }
            | Self::Add { .. }
            | Self::ScaledSum { .. }
            | Self::SquaredNorm { .. }
            | Self::Rescale { .. }
            | Self::AdamW { .. }
            | Self::WeightDecay { .. } => 0,
            Self::Gather { rows, width } => SCALAR * product(&[rows, width]),
            Self::MatrixProduct { .. } | Self::Bias { .. } | Self::Relu { .. } => self.forward(),
            Self::CausalConv {
                batch,
                seq,
                channels,
                d_conv,
            } => {
                // Sum of the bias; a tap's gradient and that of what it reads.
                let step = SCALAR + 2 * MULTIPLY_ADD * d_conv as u64;
                let at_the_end = SCALAR * product(&[batch, channels, d_conv - 1]);
                product(&[batch, seq, channels]) * step + at_the_end
            }
            Self::SelectiveScan {
                batch,
                seq,
                d_inner,
                d_state,
            } => {
                // Cotangent of the state and on to the step before; by the exponent; c, b, a; sums for u and delta.
                let state = MULTIPLY_ADD + 2 * SCALAR + 5 * MULTIPLY_ADD;
                let step = SCALAR + MULTIPLY_ADD;
                product(&[batch, seq, d_inner]) * (step + state * d_state as u64)
            }
            Self::ResolventDiag {
                batch,
                seq,
                heads,
                couplings,
            } => {
                let matrix = seq as u64 * RESOLVENT_ROW_BACK + 2 * SCALAR;
                product(&[batch, heads]) * matrix + RESOLVENT_COUPLING_BACK * couplings as u64
            }
            Self::ResolventDiagBidirectional {
                batch,
                seq,
                heads,
                couplings,
            } => {
                // rho; either side: times the square, plus rho, on to the next row; the sum; diagonal and shift.
                let rho = SCALAR + 2 * COMPLEX;
                let side = 2 * COMPLEX + 2 * COMPLEX_SUM;
                let row = rho + 2 * side + COMPLEX_SUM + SCALAR + COMPLEX_SUM;
                let coupling = 2 * REAL_PART + SCALAR;
                product(&[batch, seq, heads]) * row + coupling * couplings as u64
            }
            Self::ResolventDiagPublished { batch, seq, heads } => {
                // G^2 and |G|^2; the stretch; two real parts of products, one with a reciprocal; the bounds.
                let square = COMPLEX + REAL_PART;
                let stretch = 3 * SCALAR + COMPLEX_SUM + SCALAR;
                let sum = 2 * REAL_PART + RECIPROCAL + SCALAR;
                product(&[batch, seq, heads]) * (square + stretch + sum + 4 * SCALAR)
            }
            Self::Attention {
                batch,
                seq,
                heads,
                width,
            } => product(&[batch, heads]) * pairs(seq) * attention_pair_back(width),
            Self::Rotation { n } => ROTATED * n as u64,
            // Slope of the argument; one less the sigmoid, by the output, by the slope, plus the sigmoid; by the gradient.
            Self::Gelu { n } => (MULTIPLY_ADD + 5 * SCALAR) * n as u64,
            Self::Silu { n } | Self::Softplus { n } => 4 * SCALAR * n as u64,
            Self::Clamp { n } | Self::Multiply { n } => 2 * SCALAR * n as u64,
            Self::Softmax { rows, width } => SOFTMAX_BACK * product(&[rows, width]),
            Self::RmsNorm { rows, width } => {
                // Weight; through it; the projection; what is left of it, over the root.
                let column = MULTIPLY_ADD + SCALAR + MULTIPLY_ADD + 3 * SCALAR;
                rows as u64 * (column * width as u64 + SCALAR)
            }
            Self::LoadBalance { width, .. } => SCALAR * width as u64,
            Self::Scale { n } => (SCALAR + MULTIPLY_ADD) * n as u64,
            Self::Mask { n } | Self::DecayRates { n } | Self::GradientSum { n } => {
                SCALAR * n as u64
            }
            Self::CrossEntropy { rows, vocab } => {
                rows as u64 * (SCALAR * vocab as u64 + 2 * SCALAR)
            }
        }
    }

    fn update(self) -> u64 {
        match self {
            Self::SquaredNorm { n } => MULTIPLY_ADD * n as u64,
            Self::Rescale { n } | Self::WeightDecay { n } => SCALAR * n as u64,
            // Both moments, the gradient's square; corrections, root, epsilon, quotient; rate and difference.
            Self::AdamW { n } => {
                (2 * (SCALAR + MULTIPLY_ADD) + SCALAR + 5 * SCALAR + MULTIPLY_ADD) * n as u64
            }
            _ => 0,
        }
    }
}
