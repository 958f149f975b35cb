//! The adjoint. The states inside a chunk are recomputed from those before it.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    BLOCK, CHUNK, Chunk, Dims, Inputs, LANES, Lanes, Scalar, TOGETHER, Task, columns, lanes, some,
    store,
};
use crate::ops::sums::sum_rows;

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

/// Gradients of everything, from the `states` that [`forward()`](super::forward()) kept, `d_y` `[batch, seq, d_inner]` and
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

/// One piece of each row of the gradients.
struct TaskGradients<'a, T> {
    u: Vec<&'a mut [T]>,
    delta_raw: Vec<&'a mut [T]>,
    h0: Vec<&'a mut [T]>,
    a: Vec<&'a mut [T]>,
    /// `[blocks of the task, b or c, seq, d_state]`.
    bc: &'a mut [T],
}

/// What the backward pass of a task keeps.
struct Adjoint<T> {
    /// The cotangent of the state one step later, and that step's decay, `[groups, d_state]`. They meet in one
    /// rounding with this step's term: a product rounded by itself is biased where the decay is close to 1.
    d_h: Vec<Lanes<T>>,
    later: Vec<Lanes<T>>,
    /// `[groups, d_state]`.
    d_a: Vec<Lanes<T>>,
    /// Of one chunk, `[groups, CHUNK]`; `d_x` is the cotangent of delta u.
    d_y: Vec<Lanes<T>>,
    d_x: Vec<Lanes<T>>,
    d_delta: Vec<Lanes<T>>,
    /// Of one chunk, lane by lane the sums over the channels of a block, `[CHUNK, d_state]`.
    d_b: Vec<Lanes<T>>,
    d_c: Vec<Lanes<T>>,
    /// Of one chunk and the states in hand, step by step: the decay, and decay times the state before.
    decay: [Lanes<T>; CHUNK * TOGETHER],
    decayed: [Lanes<T>; CHUNK * TOGETHER],
}

impl<T: Scalar> Adjoint<T> {
    #[inline(always)]
    fn new(task: &Task<'_, T>, d_h_last: &[T]) -> Self {
        let d_state = task.dims.d_state;
        let zeros = |n| vec![Lanes::zero(); n];
        let [d_y, d_x, d_delta] = [0; 3].map(|_| zeros(task.groups * CHUNK));
        let [d_b, d_c] = [0; 2].map(|_| zeros(CHUNK * d_state));
        Self {
            d_h: task.load_states(d_h_last, task.sequence * d_state),
            later: vec![Lanes([T::one(); LANES]); task.groups * d_state],
            d_a: zeros(task.groups * d_state),
            d_y,
            d_x,
            d_delta,
            d_b,
            d_c,
            decay: [Lanes::zero(); CHUNK * TOGETHER],
            decayed: [Lanes::zero(); CHUNK * TOGETHER],
        }
    }

    /// Goes back over a chunk with states `n..n + N` of `group`, which were `h` before it.
    #[inline(always)]
    fn retreat<const N: usize>(
        &mut self,
        chunk: &Chunk<'_, T>,
        group: usize,
        n: usize,
        mut h: [Lanes<T>; N],
    ) {
        let (n_steps, d_state) = (chunk.n_steps, chunk.task.dims.d_state);
        let at = group * d_state + n;
        let [delta, x] = chunk.steps(group);
        let d_y = &self.d_y[group * CHUNK..][..n_steps];
        let a: [_; N] = some(chunk.a, at);
        let decay = &mut self.decay.as_chunks_mut::<N>().0[..n_steps];
        let decayed = &mut self.decayed.as_chunks_mut::<N>().0[..n_steps];
        for i in 0..n_steps {
            let b: [_; N] = chunk.token(chunk.task.inputs.b, i, n);
            let d_c = &mut self.d_c[i * d_state + n..][..N];
            for k in 0..N {
                decay[i][k] = delta[i].decay(a[k]);
                decayed[i][k] = decay[i][k].mul(h[k]);
                h[k] = decayed[i][k].plus_scaled(x[i], b[k]);
                d_c[k] = d_c[k].plus(d_y[i], h[k]);
            }
        }
        let mut d_h: [_; N] = some(&self.d_h, at);
        let mut later: [_; N] = some(&self.later, at);
        let mut d_a = [Lanes::zero(); N];
        let d_x = &mut self.d_x[group * CHUNK..][..n_steps];
        let d_delta = &mut self.d_delta[group * CHUNK..][..n_steps];
        for i in (0..n_steps).rev() {
            let b: [_; N] = chunk.token(chunk.task.inputs.b, i, n);
            let c: [_; N] = chunk.token(chunk.task.inputs.c, i, n);
            let d_b = &mut self.d_b[i * d_state + n..][..N];
            let (mut sum_x, mut sum_delta) = (d_x[i], d_delta[i]);
            for k in 0..N {
                d_h[k] = d_y[i].scale(c[k]).plus(later[k], d_h[k]);
                later[k] = decay[i][k];
                let d_exponent = d_h[k].mul(decayed[i][k]);
                d_a[k] = d_a[k].plus(d_exponent, delta[i]);
                sum_delta = sum_delta.plus(d_exponent, a[k]);
                sum_x = sum_x.plus_scaled(d_h[k], b[k]);
                d_b[k] = d_b[k].plus(d_h[k], x[i]);
            }
            (d_x[i], d_delta[i]) = (sum_x, sum_delta);
        }
        self.d_h[at..][..N].copy_from_slice(&d_h);
        self.later[at..][..N].copy_from_slice(&later);
        // Chunk by chunk: a long running sum would lose the small terms.
        for (total, &part) in self.d_a[at..].iter_mut().zip(&d_a) {
            *total = total.add(part);
        }
    }

    /// Writes the gradients of u and `delta_raw` at chunk `k`.
    #[inline(always)]
    fn write_steps(&self, chunk: &Chunk<'_, T>, k: usize, out: &mut TaskGradients<'_, T>) {
        let Chunk { task, first, .. } = *chunk;
        for i in 0..chunk.n_steps {
            for group in 0..task.groups {
                let at = group * CHUNK + i;
                let (d_x, d_delta) = (self.d_x[at], self.d_delta[at]);
                let u = task.load(task.inputs.u, first + i, group);
                let mut d_raw = d_delta.scale(T::INV_LOG_BASE).plus(d_x, u);
                if task.inputs.softplus {
                    let raw = task.load(task.inputs.delta_raw, first + i, group);
                    d_raw = d_raw.mul(lanes(|i| T::sigmoid(raw.0[i])));
                }
                let d_u = d_x.mul(chunk.steps.delta[at]);
                store(out.u[k * CHUNK + i], group, &d_u);
                store(out.delta_raw[k * CHUNK + i], group, &d_raw);
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
    let mut steps = task.steps();
    let mut adjoint = Adjoint::new(&task, d_h_last);
    for k in (0..n_chunks).rev() {
        let n_steps = CHUNK.min(seq - k * CHUNK);
        let first = task.sequence * seq + k * CHUNK;
        task.read_chunk(first, n_steps, &mut steps);
        task.read_rows(d_y, first, n_steps, &mut adjoint.d_y);
        adjoint.d_x.fill(Lanes::zero());
        adjoint.d_delta.fill(Lanes::zero());
        let chunk = Chunk {
            task: &task,
            a: &a,
            steps: &steps,
            first,
            n_steps,
        };
        let state_row = (task.sequence * (n_chunks + 1) + k) * d_state;
        let whole = d_state / TOGETHER * TOGETHER;
        for (block, d_bc) in out.bc.chunks_mut(2 * seq * d_state).enumerate() {
            adjoint.d_b.fill(Lanes::zero());
            adjoint.d_c.fill(Lanes::zero());
            let groups = block * BLOCK / LANES..task.groups.min((block + 1) * BLOCK / LANES);
            for group in groups {
                for n in (0..whole).step_by(TOGETHER) {
                    let h = task.load_some(states, state_row + n, group);
                    adjoint.retreat::<TOGETHER>(&chunk, group, n, h);
                }
                for n in whole..d_state {
                    let h = task.load_some(states, state_row + n, group);
                    adjoint.retreat::<1>(&chunk, group, n, h);
                }
            }
            let (out_b, out_c) = d_bc.split_at_mut(seq * d_state);
            for i in 0..n_steps * d_state {
                out_b[k * CHUNK * d_state + i] = adjoint.d_b[i].sum();
                out_c[k * CHUNK * d_state + i] = adjoint.d_c[i].sum();
            }
        }
        adjoint.write_steps(&chunk, k, &mut out);
    }
    for i in 0..task.groups * d_state {
        let d_h0 = adjoint.later[i].mul(adjoint.d_h[i]);
        store(out.a[i % d_state], i / d_state, &adjoint.d_a[i]);
        store(out.h0[i % d_state], i / d_state, &d_h0);
    }
}
