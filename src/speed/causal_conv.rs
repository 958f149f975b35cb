//! The causal convolution.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::causal_conv::{Activation, infer, train};
use crate::results::FlopsPass;

const OPERATION: &str = "causal_conv";
const TAPS: usize = 4;
/// Sequences, time steps, channels: one sequence of Mamba at `d_model` 256, and a batch of it.
const SIZES: [[usize; 3]; 2] = [[1, 4096, 512], [8, 512, 512]];

/// What the loops read, `[seq, channels]` and `[channels, taps]`, one sequence after the other.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Time steps of a sequence.
    pub seq_len: usize,
    /// Inputs.
    pub x: &'a [f32],
    /// Taps.
    pub weight: &'a [f32],
    /// One a channel.
    pub bias: &'a [f32],
}

fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

impl Inputs<'_> {
    fn channels(&self) -> usize {
        self.bias.len()
    }

    fn taps(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// Index of the input under tap `k` at time step `t` of all; none before the sequence.
    fn under(&self, t: usize, k: usize, c: usize) -> Option<usize> {
        let back = self.taps() - 1 - k;
        (t % self.seq_len >= back).then(|| (t - back) * self.channels() + c)
    }

    fn pre_activation(&self, t: usize, c: usize) -> f32 {
        let mut pre = self.bias[c];
        for k in 0..self.taps() {
            if let Some(i) = self.under(t, k, c) {
                pre += self.weight[c * self.taps() + k] * self.x[i];
            }
        }
        pre
    }
}

/// The output, `SiLU` included.
pub fn plain_forward(inputs: Inputs<'_>, y: &mut [f32]) {
    let channels = inputs.channels();
    for t in 0..y.len() / channels {
        for c in 0..channels {
            let pre = inputs.pre_activation(t, c);
            y[t * channels + c] = pre * sigmoid(pre);
        }
    }
}

/// Gradients of the inputs, the taps and the bias.
pub fn plain_backward(inputs: Inputs<'_>, d_y: &[f32], d: &mut [Vec<f32>; 3]) {
    let (channels, taps) = (inputs.channels(), inputs.taps());
    for gradient in d.iter_mut() {
        gradient.fill(0.0);
    }
    let [d_x, d_weight, d_bias] = d;
    for t in 0..d_y.len() / channels {
        for c in 0..channels {
            let pre = inputs.pre_activation(t, c);
            let s = sigmoid(pre);
            let d_pre = d_y[t * channels + c] * s * (1.0 + pre * (1.0 - s));
            d_bias[c] += d_pre;
            for k in 0..taps {
                if let Some(i) = inputs.under(t, k, c) {
                    d_weight[c * taps + k] += d_pre * inputs.x[i];
                    d_x[i] += d_pre * inputs.weight[c * taps + k];
                }
            }
        }
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for [batch, seq_len, channels] in SIZES {
        let n = batch * seq_len * channels;
        let (x, d_y) = (draw(0, n, -1.0, 1.0), draw(1, n, -1.0, 1.0));
        let weight = draw(2, channels * TAPS, -0.5, 0.5);
        let bias = draw(3, channels, -0.5, 0.5);
        let inputs = Inputs {
            seq_len,
            x: &x,
            weight: &weight,
            bias: &bias,
        };
        let mut y = vec![0.0; n];
        let mut d = [n, weight.len(), channels].map(|n| vec![0.0; n]);

        let shape = [batch, seq_len, channels];
        let sizes = [("batch", batch), ("seq", seq_len), ("channels", channels)];
        let kernel = |pass, per_element: usize| Kernel {
            operation: OPERATION,
            pass,
            with_forward: false,
            sizes: &sizes,
            floats: per_element * n,
        };
        let before = vec![0.0; batch * (TAPS - 1) * channels];
        let state = bench.tensor(&before, [batch, TAPS - 1, channels]);
        let on_device = (
            bench.tensor(&x, shape),
            bench.tensor(&weight, [channels, TAPS]),
            bench.tensor(&bias, [channels]),
        );
        bench.forward(
            &kernel(FlopsPass::Forward, 2),
            || plain_forward(inputs, black_box(&mut y)),
            || Ok((on_device.clone(), state.clone())),
            |((x, weight, bias), x0)| Ok(infer(x, weight, bias, x0, Activation::Silu)?.0),
        )?;
        let leaves = (
            bench.leaf(&x, shape),
            bench.leaf(&weight, [channels, TAPS]),
            bench.leaf(&bias, [channels]),
            bench.leaf(&before, [batch, TAPS - 1, channels]),
        );
        let graph = || {
            let (x, weight, bias, x0) = leaves.clone();
            train(x, weight, bias, x0.clone(), x0.detach(), Activation::Silu)
        };
        let d_y_there = bench.leaf(&d_y, shape).detach();
        bench.backward(
            &kernel(FlopsPass::Backward, 3),
            || plain_backward(inputs, &d_y, black_box(&mut d)),
            graph,
            &d_y_there,
        )?;
    }
    Ok(())
}
