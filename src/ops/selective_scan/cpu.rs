//! The CPU path: channels in vector lanes, groups of channels across threads, time in order.
//!
//! The states at chunk boundaries are kept; the backward recomputes the states inside a chunk from them.
//! Channels do not mix but in the gradients of `b` and `c`. Those are summed over `BLOCK` channels
//! first and over the blocks in order afterwards, so no bit depends on the number of threads.

#![expect(
    clippy::inline_always,
    reason = "the vector target features reach inlined code only"
)]

use multiversion::multiversion;
use rayon::prelude::*;

use super::CHUNK;
pub(super) use super::lanes::LANES;
use super::lanes::{Lanes, Scalar, lanes};
use crate::ops::sums::sum_rows;

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

/// Where the gradients go, shaped as what they belong to.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// `[batch, seq, d_inner]`.
    pub u: &'a mut [T],
    /// `[batch, seq, d_inner]`.
    pub delta_raw: &'a mut [T],
    /// `[d_state, d_inner]`.
    pub a: &'a mut [T],
    /// `[batch, seq, d_state]`.
    pub b: &'a mut [T],
    /// `[batch, seq, d_state]`.
    pub c: &'a mut [T],
    /// `[batch, d_state, d_inner]`.
    pub h0: &'a mut [T],
}

/// `y` of every token and `states` `[batch, n_chunks + 1, d_state, d_inner]`: the state before each
/// chunk, the first being `h0` `[batch, d_state, d_inner]`, and after the last.
pub fn forward<T: Scalar>(
    dims: Dims,
    inputs: Inputs<'_, T>,
    h0: &[T],
    y: &mut [T],
    states: &mut [T],
) {
    let width = dims.task_width();
    let y = columns(y, dims.seq, dims.d_inner, width);
    let states = columns(
        states,
        (dims.n_chunks() + 1) * dims.d_state,
        dims.d_inner,
        width,
    );
    y.into_par_iter()
        .zip(states)
        .enumerate()
        .for_each(|(i, (mut y, mut states))| {
            forward_task(Task::new(dims, inputs, width, i), h0, &mut y, &mut states);
        });
}

/// Gradients of everything, from the `states` that [`forward`] kept, `d_y` `[batch, seq, d_inner]` and
/// `d_h_last` `[batch, d_state, d_inner]`.
pub fn backward<T: Scalar>(
    dims: Dims,
    inputs: Inputs<'_, T>,
    states: &[T],
    d_y: &[T],
    d_h_last: &[T],
    grads: Gradients<'_, T>,
) {
    let Dims {
        batch,
        seq,
        d_inner,
        d_state,
    } = dims;
    let Gradients {
        u,
        delta_raw,
        a,
        b,
        c,
        h0,
    } = grads;
    let width = dims.task_width();
    // [batch, n_blocks, b or c, seq, d_state] and [batch, d_state, d_inner]: summed in a second pass.
    let per_block = seq * d_state;
    let per_sequence = 2 * dims.n_blocks() * per_block;
    let mut bc_parts = vec![T::zero(); batch * per_sequence];
    let mut a_parts = vec![T::zero(); batch * d_state * d_inner];

    let per_task = 2 * (width / BLOCK) * per_block;
    let outputs: Vec<_> = (columns(u, seq, d_inner, width).into_iter())
        .zip(columns(delta_raw, seq, d_inner, width))
        .zip(columns(h0, d_state, d_inner, width))
        .zip(columns(&mut a_parts, d_state, d_inner, width))
        .zip(
            bc_parts
                .chunks_mut(per_sequence)
                .flat_map(|bc| bc.chunks_mut(per_task)),
        )
        .map(|((((u, delta_raw), h0), a), bc)| TaskGradients {
            u,
            delta_raw,
            h0,
            a,
            bc,
        })
        .collect();
    outputs.into_par_iter().enumerate().for_each(|(i, out)| {
        backward_task(
            Task::new(dims, inputs, width, i),
            states,
            d_y,
            d_h_last,
            out,
        );
    });

    (b.par_chunks_mut(per_block))
        .zip(c.par_chunks_mut(per_block))
        .zip(bc_parts.par_chunks_mut(per_sequence))
        .for_each(|((b, c), parts)| {
            sum_rows(parts, 2 * per_block);
            b.copy_from_slice(&parts[..per_block]);
            c.copy_from_slice(&parts[per_block..2 * per_block]);
        });
    sum_rows(&mut a_parts, d_state * d_inner);
    a.copy_from_slice(&a_parts[..d_state * d_inner]);
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

/// One piece of each row of the gradients.
struct TaskGradients<'a, T> {
    u: Vec<&'a mut [T]>,
    delta_raw: Vec<&'a mut [T]>,
    h0: Vec<&'a mut [T]>,
    a: Vec<&'a mut [T]>,
    /// `[blocks of the task, b or c, seq, d_state]`.
    bc: &'a mut [T],
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
        if let Some(full) = row.first_chunk() {
            return Lanes(*full);
        }
        let mut part = Lanes::zero();
        part.0[..row.len()].copy_from_slice(row);
        part
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

    /// Reads whole rows before it computes, so that many cache misses are in flight at once.
    #[inline(always)]
    fn read_chunk(&self, first: usize, n: usize, steps: &mut Steps<T>) {
        for i in 0..n {
            for group in 0..self.groups {
                let at = group * CHUNK + i;
                steps.delta[at] = self.load(self.inputs.delta_raw, first + i, group);
                steps.x[at] = self.load(self.inputs.u, first + i, group);
            }
        }
        for (delta, x) in steps.delta.iter_mut().zip(&mut steps.x) {
            if self.inputs.softplus {
                *delta = lanes(|i| T::softplus(delta.0[i]));
            }
            *x = delta.mul(*x);
        }
    }

    /// The `d_state` values of one token.
    #[inline(always)]
    fn token(&self, tensor: &'a [T], row: usize) -> &'a [T] {
        &tensor[row * self.dims.d_state..][..self.dims.d_state]
    }
}

#[inline(always)]
fn store<T: Copy>(row: &mut [T], group: usize, lanes: &Lanes<T>) {
    let row = &mut row[group * LANES..];
    match row.first_chunk_mut() {
        Some(full) => *full = lanes.0,
        None => row.copy_from_slice(&lanes.0[..row.len()]),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn forward_task<T: Scalar>(
    task: Task<'_, T>,
    h0: &[T],
    y: &mut [&mut [T]],
    states: &mut [&mut [T]],
) {
    let Dims { seq, d_state, .. } = task.dims;
    let a = task.exponents();
    let mut h = task.load_states(h0, task.sequence * d_state);
    for (i, h) in h.iter().enumerate() {
        store(states[i % d_state], i / d_state, h);
    }
    let mut steps = task.steps();
    for (k, y) in y.chunks_mut(CHUNK).enumerate() {
        let first = task.sequence * seq + k * CHUNK;
        task.read_chunk(first, y.len(), &mut steps);
        for group in 0..task.groups {
            let a = &a[group * d_state..][..d_state];
            let h = &mut h[group * d_state..][..d_state];
            for (i, y) in y.iter_mut().enumerate() {
                let (delta, x) = (steps.delta[group * CHUNK + i], steps.x[group * CHUNK + i]);
                let b = task.token(task.inputs.b, first + i);
                let c = task.token(task.inputs.c, first + i);
                let mut sum = Lanes::zero();
                for n in 0..d_state {
                    h[n] = x.scale(b[n]).plus(delta.decay(a[n]), h[n]);
                    sum = sum.plus_scaled(h[n], c[n]);
                }
                store(y, group, &sum);
            }
            for (n, h) in h.iter().enumerate() {
                store(states[(k + 1) * d_state + n], group, h);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn backward_task<T: Scalar>(
    task: Task<'_, T>,
    states: &[T],
    d_y: &[T],
    d_h_last: &[T],
    mut out: TaskGradients<'_, T>,
) {
    let Dims { seq, d_state, .. } = task.dims;
    let n_chunks = task.dims.n_chunks();
    let a = task.exponents();
    // The cotangent of the state one step later, and that step's decay. They meet in one rounding with
    // this step's term: a product rounded by itself is biased where the decay is close to 1.
    let mut d_h = task.load_states(d_h_last, task.sequence * d_state);
    let mut later = vec![Lanes([T::one(); LANES]); d_h.len()];
    let mut d_a = vec![Lanes::zero(); task.groups * d_state];
    let mut steps = task.steps();
    // Of one chunk: the decay, decay times the state before, and lane by lane the sums over channels.
    let mut decay = vec![Lanes::zero(); CHUNK * d_state];
    let mut decayed = decay.clone();
    let mut d_b = decay.clone();
    let mut d_c = decay.clone();
    let mut h = vec![Lanes::zero(); d_state];
    let mut d_a_chunk = h.clone();
    for k in (0..n_chunks).rev() {
        let n_steps = CHUNK.min(seq - k * CHUNK);
        let first = task.sequence * seq + k * CHUNK;
        task.read_chunk(first, n_steps, &mut steps);
        for (block, d_bc) in out.bc.chunks_mut(2 * seq * d_state).enumerate() {
            d_b.fill(Lanes::zero());
            d_c.fill(Lanes::zero());
            let groups = block * BLOCK / LANES..task.groups.min((block + 1) * BLOCK / LANES);
            for group in groups {
                let a = &a[group * d_state..][..d_state];
                let d_h = &mut d_h[group * d_state..][..d_state];
                let later = &mut later[group * d_state..][..d_state];
                let state_row = (task.sequence * (n_chunks + 1) + k) * d_state;
                for (n, h) in h.iter_mut().enumerate() {
                    *h = task.load(states, state_row + n, group);
                }
                for i in 0..n_steps {
                    let (delta, x) = (steps.delta[group * CHUNK + i], steps.x[group * CHUNK + i]);
                    let d_y = task.load(d_y, first + i, group);
                    let b = task.token(task.inputs.b, first + i);
                    let decay = &mut decay[i * d_state..][..d_state];
                    let decayed = &mut decayed[i * d_state..][..d_state];
                    let d_c = &mut d_c[i * d_state..][..d_state];
                    for n in 0..d_state {
                        decay[n] = delta.decay(a[n]);
                        decayed[n] = decay[n].mul(h[n]);
                        h[n] = decayed[n].plus_scaled(x, b[n]);
                        d_c[n] = d_c[n].plus(d_y, h[n]);
                    }
                }
                d_a_chunk.fill(Lanes::zero());
                for i in (0..n_steps).rev() {
                    let (delta, x) = (steps.delta[group * CHUNK + i], steps.x[group * CHUNK + i]);
                    let d_y = task.load(d_y, first + i, group);
                    let b = task.token(task.inputs.b, first + i);
                    let c = task.token(task.inputs.c, first + i);
                    let decay = &decay[i * d_state..][..d_state];
                    let decayed = &decayed[i * d_state..][..d_state];
                    let d_b = &mut d_b[i * d_state..][..d_state];
                    let mut d_x = Lanes::zero();
                    let mut d_delta = Lanes::zero();
                    for n in 0..d_state {
                        d_h[n] = d_y.scale(c[n]).plus(later[n], d_h[n]);
                        let d_exponent = d_h[n].mul(decayed[n]);
                        d_a_chunk[n] = d_a_chunk[n].plus(d_exponent, delta);
                        d_delta = d_delta.plus(d_exponent, a[n]);
                        d_x = d_x.plus_scaled(d_h[n], b[n]);
                        d_b[n] = d_b[n].plus(d_h[n], x);
                    }
                    later.copy_from_slice(decay);
                    let u = task.load(task.inputs.u, first + i, group);
                    let mut d_raw = d_delta.scale(T::INV_LOG_BASE).plus(d_x, u);
                    if task.inputs.softplus {
                        let raw = task.load(task.inputs.delta_raw, first + i, group);
                        d_raw = d_raw.mul(lanes(|i| T::sigmoid(raw.0[i])));
                    }
                    store(out.u[k * CHUNK + i], group, &d_x.mul(delta));
                    store(out.delta_raw[k * CHUNK + i], group, &d_raw);
                }
                // Chunk by chunk: a long running sum would lose the small terms.
                let d_a = &mut d_a[group * d_state..][..d_state];
                for (total, &chunk) in d_a.iter_mut().zip(&d_a_chunk) {
                    *total = total.add(chunk);
                }
            }
            let (out_b, out_c) = d_bc.split_at_mut(seq * d_state);
            for i in 0..n_steps * d_state {
                out_b[k * CHUNK * d_state + i] = d_b[i].sum();
                out_c[k * CHUNK * d_state + i] = d_c[i].sum();
            }
        }
    }
    for i in 0..task.groups * d_state {
        store(out.a[i % d_state], i / d_state, &d_a[i]);
        store(out.h0[i % d_state], i / d_state, &later[i].mul(d_h[i]));
    }
}
