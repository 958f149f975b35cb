//! y, and the states at the boundaries of chunks.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{CHUNK, Chunk, Dims, Inputs, Lanes, Scalar, TOGETHER, Task, columns, some, store};

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

/// States `n..n + N` of `group` over a chunk; adds their part to `y`, a row a step.
#[inline(always)]
fn advance<const N: usize, T: Scalar>(
    chunk: &Chunk<'_, T>,
    group: usize,
    n: usize,
    h: &mut [Lanes<T>],
    y: &mut [Lanes<T>],
) {
    let [delta, x] = chunk.steps(group);
    let (b, c) = (chunk.task.inputs.b, chunk.task.inputs.c);
    let at = group * chunk.task.dims.d_state + n;
    let a: [_; N] = some(chunk.a, at);
    let mut now: [_; N] = some(h, at);
    for (i, ((y, &delta), &x)) in y.iter_mut().zip(delta).zip(x).enumerate() {
        let b: [_; N] = chunk.token(b, i, n);
        let c: [_; N] = chunk.token(c, i, n);
        let mut sum = *y;
        for k in 0..N {
            now[k] = x.scale(b[k]).plus(delta.decay(a[k]), now[k]);
            sum = sum.plus_scaled(now[k], c[k]);
        }
        *y = sum;
    }
    h[at..][..N].copy_from_slice(&now);
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
        let chunk = Chunk {
            task: &task,
            a: &a,
            steps: &steps,
            first,
            n_steps: y.len(),
        };
        let whole = d_state / TOGETHER * TOGETHER;
        for group in 0..task.groups {
            let mut sums = [Lanes::zero(); CHUNK];
            for n in (0..whole).step_by(TOGETHER) {
                advance::<TOGETHER, T>(&chunk, group, n, &mut h, &mut sums);
            }
            for n in whole..d_state {
                advance::<1, T>(&chunk, group, n, &mut h, &mut sums);
            }
            for (y, sum) in y.iter_mut().zip(&sums) {
                store(y, group, sum);
            }
            for n in 0..d_state {
                let h = &h[group * d_state + n];
                store(states[(k + 1) * d_state + n], group, h);
            }
        }
    }
}
