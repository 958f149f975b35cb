//! The CPU path: the chunks of [`Plan`], sixteen at a time in the lanes of a vector register.
//!
//! A *strip* is sixteen independent recurrences: sixteen heads of one chunk, or one head of sixteen chunks.
//! Strips run in pairs, because one recurrence alone waits for its own division. Data come in *tiles* of
//! sixteen steps by sixteen lanes; where lanes are chunks a tile is transposed on its way in and out.
//! Shapes are as in the public functions, slices row-major.

#![allow(
    clippy::inline_always,
    reason = "a function that is not inlined is not compiled for the vector level of its caller"
)]
#![allow(
    clippy::cast_possible_wrap,
    reason = "rows count from a chunk's start, and a warm-up lies before it"
)]

mod backward;
pub mod bidirectional;
mod forward;
mod lanes;
mod strips;
mod tiles;

use super::plan::Plan;

pub use backward::backward;
pub use forward::forward;
pub use lanes::Scale;

/// Sizes of the problem.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    /// Sequences.
    pub batch: usize,
    /// Rows of a sequence.
    pub seq: usize,
    /// Independent matrices.
    pub heads: usize,
}

/// Recurrences that run, those of idle lanes with the others.
pub(super) fn lanes_run(dims: Dims, plan: Plan) -> usize {
    let blocks = strips::Blocks::new(dims, plan);
    dims.batch * blocks.count() * blocks.lanes()
}

/// Rows before and after a chunk of the bidirectional resolvent: whole tiles, and one at least, in which the
/// row next to the chunk lies.
pub(super) fn margin(warm_up: usize) -> usize {
    warm_up.next_multiple_of(lanes::LANES).max(lanes::LANES)
}

/// What the forward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// Sizes.
    pub dims: Dims,
    /// How the sequence is cut.
    pub plan: Plan,
    /// `[batch, seq, heads]`.
    pub diag: &'a [T],
    /// `[batch, seq, heads]`, or one element for all.
    pub coupling: &'a [T],
    /// `[2, heads]`.
    pub shift: &'a [T],
    /// `[batch, 2 * heads]`.
    pub g0: &'a [T],
}

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a, T> {
    /// Sizes.
    pub dims: Dims,
    /// How the sequence is cut.
    pub plan: Plan,
    /// `[batch, seq, heads]`, or one element for all.
    pub coupling: &'a [T],
    /// `[batch, 2 * heads]`.
    pub g0: &'a [T],
    /// The output of [`forward()`].
    pub g: &'a [T],
    /// Cotangent of `g`.
    pub d_g: &'a [T],
    /// Cotangent of the final state, `[batch, 2 * heads]`.
    pub d_g_last: &'a [T],
}

/// Where the gradients go: overwritten, shapes as the inputs of the same names.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// By `diag`.
    pub d_diag: &'a mut [T],
    /// By `coupling`; empty to leave it out.
    pub d_coupling: &'a mut [T],
    /// By `shift`.
    pub d_shift: &'a mut [T],
    /// By `g0`.
    pub d_g0: &'a mut [T],
}
