//! The CPU path: channels in vector lanes, groups of channels across threads, time in order.
//!
//! The states at chunk boundaries are kept; the backward recomputes the states inside a chunk from them.
//! Channels do not mix but in the gradients of `b` and `c`. Those are summed over `BLOCK` channels
//! first and over the blocks in order afterwards, so no bit depends on the number of threads.

#![expect(
    clippy::inline_always,
    reason = "the vector target features reach inlined code only"
)]

mod backward;
mod forward;

use super::CHUNK;
pub(super) use super::lanes::LANES;
use super::lanes::{Lanes, Scalar, lanes};

pub use backward::{Gradients, backward};
pub use forward::forward;

/// States of a channel that advance together, in registers.
const TOGETHER: usize = 4;

/// Channels of one partial sum of the gradients of `b` and `c`.
pub(super) const BLOCK: usize = 64;

/// Sizes of one call.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Channels.
    pub d_inner: usize,
    /// States of a channel.
    pub d_state: usize,
}

impl Dims {
    /// Chunks of a sequence.
    pub fn n_chunks(self) -> usize {
        self.seq.div_ceil(CHUNK)
    }

    fn n_blocks(self) -> usize {
        self.d_inner.div_ceil(BLOCK)
    }

    /// Channels of one task: whole blocks, as many as leave a task for every thread. The fewer tasks visit
    /// a page of the inputs, the fewer address translations miss.
    fn task_width(self) -> usize {
        let tasks_per_sequence = rayon::current_num_threads().div_ceil(self.batch);
        self.n_blocks().div_ceil(tasks_per_sequence) * BLOCK
    }
}

/// What the recurrence reads, channel fastest.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// `[batch, seq, d_inner]`.
    pub u: &'a [T],
    /// `[batch, seq, d_inner]`.
    pub delta_raw: &'a [T],
    /// `[d_state, d_inner]`.
    pub a: &'a [T],
    /// `[batch, seq, d_state]`.
    pub b: &'a [T],
    /// `[batch, seq, d_state]`.
    pub c: &'a [T],
    /// Whether delta is the softplus of `delta_raw` or `delta_raw` itself.
    pub softplus: bool,
}

/// Cuts every `rows` rows of `d_inner` columns into pieces of `width` columns: per task, one piece of
/// each row.
fn columns<T>(data: &mut [T], rows: usize, d_inner: usize, width: usize) -> Vec<Vec<&mut [T]>> {
    let mut tasks: Vec<Vec<&mut [T]>> = Vec::new();
    for sequence in data.chunks_mut(rows * d_inner) {
        let first = tasks.len();
        tasks.resize_with(first + d_inner.div_ceil(width), || Vec::with_capacity(rows));
        for row in sequence.chunks_mut(d_inner) {
            for (task, piece) in tasks[first..].iter_mut().zip(row.chunks_mut(width)) {
                task.push(piece);
            }
        }
    }
    tasks
}

/// What one task computes: some channels of one sequence.
#[derive(Clone, Copy)]
struct Task<'a, T> {
    dims: Dims,
    inputs: Inputs<'a, T>,
    sequence: usize,
    /// The first channel.
    channel: usize,
    /// Groups of [`LANES`] channels.
    groups: usize,
}

/// delta and delta * u of one chunk, `[groups, CHUNK]`.
struct Steps<T> {
    delta: Vec<Lanes<T>>,
    x: Vec<Lanes<T>>,
}

impl<'a, T: Scalar> Task<'a, T> {
    fn new(dims: Dims, inputs: Inputs<'a, T>, width: usize, index: usize) -> Self {
        let per_sequence = dims.d_inner.div_ceil(width);
        let (sequence, channel) = (index / per_sequence, index % per_sequence * width);
        let groups = width.min(dims.d_inner - channel).div_ceil(LANES);
        Self {
            dims,
            inputs,
            sequence,
            channel,
            groups,
        }
    }

    /// The lanes of `group` of one row of a `[rows, d_inner]` tensor; 0 past its end.
    #[inline(always)]
    fn load(&self, tensor: &[T], row: usize, group: usize) -> Lanes<T> {
        let d_inner = self.dims.d_inner;
        let row = &tensor[row * d_inner..][self.channel + group * LANES..d_inner];
        match row.first_chunk() {
            Some(full) => Lanes(*full),
            None => load_part(row),
        }
    }

    /// `[groups, d_state]` of the rows `first..first + d_state` of a `[rows, d_inner]` tensor.
    #[inline(always)]
    fn load_states(&self, tensor: &[T], first: usize) -> Vec<Lanes<T>> {
        let states = 0..self.dims.d_state;
        let group = |group| {
            states
                .clone()
                .map(move |n| self.load(tensor, first + n, group))
        };
        (0..self.groups).flat_map(group).collect()
    }

    /// `a` times the logarithm of the decay's base.
    #[inline(always)]
    fn exponents(&self) -> Vec<Lanes<T>> {
        let mut a = self.load_states(self.inputs.a, 0);
        for a in &mut a {
            *a = a.scale(T::LOG_BASE);
        }
        a
    }

    fn steps(&self) -> Steps<T> {
        let empty = vec![Lanes::zero(); self.groups * CHUNK];
        Steps {
            delta: empty.clone(),
            x: empty,
        }
    }

    /// Reads `n` whole rows of a `[rows, d_inner]` tensor into `[groups, CHUNK]`, before anything is computed, so that
    /// many cache misses are in flight at once.
    #[inline(always)]
    fn read_rows(&self, tensor: &[T], first: usize, n: usize, into: &mut [Lanes<T>]) {
        for i in 0..n {
            for group in 0..self.groups {
                into[group * CHUNK + i] = self.load(tensor, first + i, group);
            }
        }
    }

    #[inline(always)]
    fn read_chunk(&self, first: usize, n: usize, steps: &mut Steps<T>) {
        self.read_rows(self.inputs.delta_raw, first, n, &mut steps.delta);
        self.read_rows(self.inputs.u, first, n, &mut steps.x);
        for (delta, x) in steps.delta.iter_mut().zip(&mut steps.x) {
            if self.inputs.softplus {
                *delta = lanes(|i| T::softplus(delta.0[i]));
            }
            *x = delta.mul(*x);
        }
    }

    /// `N` states of `group` from one row of a `[rows, d_inner]` tensor each.
    #[inline(always)]
    fn load_some<const N: usize>(&self, tensor: &[T], row: usize, group: usize) -> [Lanes<T>; N] {
        let mut some = [Lanes::zero(); N];
        for (n, lanes) in some.iter_mut().enumerate() {
            *lanes = self.load(tensor, row + n, group);
        }
        some
    }
}

/// A run of at most `CHUNK` steps of a task.
struct Chunk<'a, T> {
    task: &'a Task<'a, T>,
    /// As [`Task::exponents`].
    a: &'a [Lanes<T>],
    steps: &'a Steps<T>,
    /// The row of the first step.
    first: usize,
    n_steps: usize,
}

impl<T: Scalar> Chunk<'_, T> {
    /// delta and delta u of `group`.
    #[inline(always)]
    fn steps(&self, group: usize) -> [&[Lanes<T>]; 2] {
        [&self.steps.delta, &self.steps.x].map(|x| &x[group * CHUNK..][..self.n_steps])
    }

    /// `N` values of a `[rows, d_state]` tensor at step `i`, those of the states `n..n + N`.
    #[inline(always)]
    fn token<const N: usize>(&self, tensor: &[T], i: usize, n: usize) -> [T; N] {
        some(tensor, (self.first + i) * self.task.dims.d_state + n)
    }
}

#[inline(always)]
fn store<T: Scalar>(row: &mut [T], group: usize, lanes: &Lanes<T>) {
    let row = &mut row[group * LANES..];
    match row.first_chunk_mut() {
        Some(full) => *full = lanes.0,
        None => store_part(row, lanes),
    }
}

/// Of fewer channels than lanes. Apart, or the compiler makes of both cases one call of memcpy.
#[cold]
#[inline(never)]
fn load_part<T: Scalar>(row: &[T]) -> Lanes<T> {
    let mut part = Lanes::zero();
    part.0[..row.len()].copy_from_slice(row);
    part
}

/// As [`load_part`].
#[cold]
#[inline(never)]
fn store_part<T: Scalar>(row: &mut [T], lanes: &Lanes<T>) {
    row.copy_from_slice(&lanes.0[..row.len()]);
}

/// `N` values.
#[inline(always)]
fn some<const N: usize, X: Copy>(values: &[X], from: usize) -> [X; N] {
    let mut some = [values[from]; N];
    some.copy_from_slice(&values[from..][..N]);
    some
}
