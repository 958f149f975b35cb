//! The selective scan, with steps and rates as Mamba starts.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::selective_scan::{self, infer, train};
use crate::results::FlopsPass;

const OPERATION: &str = "selective_scan";
const D_INNER: usize = 512;
const D_STATE: usize = 16;
/// Time steps.
const SIZES: [usize; 3] = [1024, 2048, 4096];

/// What the loops read of one sequence. Channels are fastest; `a` is `[d_state, d_inner]`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Channels.
    pub d_inner: usize,
    /// States of a channel.
    pub d_state: usize,
    /// `[seq, d_inner]`.
    pub u: &'a [f32],
    /// `[seq, d_inner]`.
    pub delta_raw: &'a [f32],
    /// Negative.
    pub a: &'a [f32],
    /// `[seq, d_state]`.
    pub b: &'a [f32],
    /// `[seq, d_state]`.
    pub c: &'a [f32],
}

/// Gradients of [`Inputs`].
#[derive(Debug, Default)]
pub struct Gradients {
    /// Of u.
    pub u: Vec<f32>,
    /// Of `delta_raw`.
    pub delta_raw: Vec<f32>,
    /// Of a.
    pub a: Vec<f32>,
    /// Of b.
    pub b: Vec<f32>,
    /// Of c.
    pub c: Vec<f32>,
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Inputs<'_> {
    fn seq_len(&self) -> usize {
        self.u.len() / self.d_inner
    }

    /// Goes over the states of channel `d` at time step `t`: `see` gets a state's number, its place in
    /// `[d_state, d_inner]`, by what it decays, and what is added to it.
    fn step(&self, t: usize, d: usize, mut see: impl FnMut(usize, usize, f32, f32)) {
        let at = t * self.d_inner + d;
        let delta = softplus(self.delta_raw[at]);
        for n in 0..self.d_state {
            let k = n * self.d_inner + d;
            let decay = (delta * self.a[k]).exp();
            see(
                n,
                k,
                decay,
                delta * self.b[t * self.d_state + n] * self.u[at],
            );
        }
    }
}

/// The recurrence as it is written, channel by channel, from the state `h` on.
pub fn plain_forward(inputs: Inputs<'_>, h: &mut [f32], y: &mut [f32]) {
    for t in 0..inputs.seq_len() {
        for d in 0..inputs.d_inner {
            let mut sum = 0.0;
            inputs.step(t, d, |n, k, decay, input| {
                h[k] = decay * h[k] + input;
                sum += inputs.c[t * inputs.d_state + n] * h[k];
            });
            y[t * inputs.d_inner + d] = sum;
        }
    }
}

/// Stores every state, then goes back. `d_h` is the cotangent of the last state and ends as that of `h0`.
pub fn plain_backward(
    inputs: Inputs<'_>,
    h0: &[f32],
    d_y: &[f32],
    d_h: &mut [f32],
    gradients: &mut Gradients,
) {
    let (seq_len, d_inner, d_state) = (inputs.seq_len(), inputs.d_inner, inputs.d_state);
    let per_token = d_inner * d_state;
    let mut states = h0.to_vec();
    states.resize((seq_len + 1) * per_token, 0.0);
    for t in 0..seq_len {
        for d in 0..d_inner {
            inputs.step(t, d, |_, k, decay, input| {
                let k = t * per_token + k;
                states[k + per_token] = decay * states[k] + input;
            });
        }
    }
    let zeros = |like: &[f32]| vec![0.0; like.len()];
    *gradients = Gradients {
        u: zeros(inputs.u),
        delta_raw: zeros(inputs.u),
        a: zeros(inputs.a),
        b: zeros(inputs.b),
        c: zeros(inputs.c),
    };
    for t in (0..seq_len).rev() {
        for d in 0..d_inner {
            let at = t * d_inner + d;
            let (u, delta) = (inputs.u[at], softplus(inputs.delta_raw[at]));
            let (mut d_x, mut d_delta) = (0.0, 0.0);
            inputs.step(t, d, |n, k, decay, _| {
                let s = t * d_state + n;
                let decayed = decay * states[t * per_token + k];
                gradients.c[s] += d_y[at] * states[(t + 1) * per_token + k];
                d_h[k] += inputs.c[s] * d_y[at];
                gradients.b[s] += d_h[k] * delta * u;
                gradients.a[k] += d_h[k] * decayed * delta;
                d_delta += d_h[k] * decayed * inputs.a[k];
                d_x += d_h[k] * inputs.b[s];
                d_h[k] *= decay;
            });
            gradients.u[at] = d_x * delta;
            gradients.delta_raw[at] = (d_delta + d_x * u) / (1.0 + (-inputs.delta_raw[at]).exp());
        }
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for seq in SIZES {
        let (n, n_state) = (seq * D_INNER, D_INNER * D_STATE);
        let (u, d_y) = (draw(0, n, -1.0, 1.0), draw(1, n, -1.0, 1.0));
        let (b, c) = (
            draw(2, seq * D_STATE, -1.0, 1.0),
            draw(3, seq * D_STATE, -1.0, 1.0),
        );
        let delta_raw = draw(4, n, -6.0, -2.25);
        let a: Vec<f32> = (0..n_state).map(|k| -((k / D_INNER + 1) as f32)).collect();
        let inputs = Inputs {
            d_inner: D_INNER,
            d_state: D_STATE,
            u: &u,
            delta_raw: &delta_raw,
            a: &a,
            b: &b,
            c: &c,
        };
        let empty = vec![0.0; n_state];
        let mut y = vec![0.0; n];
        let mut gradients = Gradients::default();

        let sizes = [("seq", seq), ("d_inner", D_INNER), ("d_state", D_STATE)];
        let kernel = |pass, floats| Kernel {
            operation: OPERATION,
            pass,
            with_forward: false,
            sizes: &sizes,
            floats,
        };
        let (wide, narrow) = ([1, seq, D_INNER], [1, seq, D_STATE]);
        // The operation has the states of a channel side by side.
        let rates: Vec<f32> = (0..n_state).map(|k| -((k % D_STATE + 1) as f32)).collect();
        let there = selective_scan::Inputs {
            u: bench.tensor(&u, wide),
            delta_raw: bench.tensor(&delta_raw, wide),
            a: bench.tensor(&rates, [D_INNER, D_STATE]),
            b: bench.tensor(&b, narrow),
            c: bench.tensor(&c, narrow),
            softplus: true,
        };
        let h0 = bench.tensor(&empty, [1, D_INNER, D_STATE]);
        bench.forward(
            &kernel(FlopsPass::Forward, 3 * n + 2 * b.len()),
            || plain_forward(inputs, &mut empty.clone(), black_box(&mut y)),
            || Ok((there.clone(), h0.clone())),
            |(inputs, h0)| Ok(infer(inputs, h0)?.0),
        )?;
        let leaves = selective_scan::Inputs {
            u: bench.leaf(&u, wide),
            delta_raw: bench.leaf(&delta_raw, wide),
            a: bench.leaf(&rates, [D_INNER, D_STATE]),
            b: bench.leaf(&b, narrow),
            c: bench.leaf(&c, narrow),
            softplus: true,
        };
        let h0 = bench.leaf(&empty, [1, D_INNER, D_STATE]);
        let graph = || train(leaves.clone(), h0.clone(), h0.clone().detach());
        let d_y_there = bench.leaf(&d_y, wide).detach();
        bench.backward(
            &kernel(FlopsPass::Backward, 5 * n + 4 * b.len()),
            || {
                let d_h = &mut empty.clone();
                plain_backward(inputs, &empty, &d_y, d_h, black_box(&mut gradients));
            },
            graph,
            &d_y_there,
        )?;
    }
    Ok(())
}
