//! Depthwise causal convolution, element by element.

use super::{Number, sigmoid};

/// Sizes and inputs of a call, row-major.
#[derive(Debug, Clone)]
pub struct Inputs<T> {
    /// Sequences.
    pub batch: usize,
    /// Time steps.
    pub seq_len: usize,
    /// Channels.
    pub channels: usize,
    /// Taps.
    pub d_conv: usize,
    /// Whether `SiLU` follows.
    pub silu: bool,
    /// `[batch, seq_len, channels]`.
    pub x: Vec<T>,
    /// `[channels, d_conv]`.
    pub weight: Vec<T>,
    /// `[channels]`.
    pub bias: Vec<T>,
    /// `[batch, d_conv - 1, channels]`.
    pub x0: Vec<T>,
}

/// Gradients, shaped as the inputs of the same names.
#[derive(Debug, Clone)]
pub struct Gradients<T> {
    /// By `x`.
    pub d_x: Vec<T>,
    /// By `weight`.
    pub d_weight: Vec<T>,
    /// By `bias`.
    pub d_bias: Vec<T>,
    /// By `x0`.
    pub d_x0: Vec<T>,
}

/// What the forward pass computed, `[batch, seq_len, channels]`.
#[derive(Debug, Clone)]
pub struct Trace<T> {
    /// The output.
    pub y: Vec<T>,
    /// Sigmoid of the sum of the taps; empty without `SiLU`.
    pub sigmoid: Vec<T>,
}

impl<T: Number> Inputs<T> {
    /// Where element (`batch`, `t`, `channel`) of `concat(x0, x)` lies: in `x0` (true) or `x`, and at which index.
    fn place(&self, batch: usize, t: usize, channel: usize) -> (bool, usize) {
        let state = self.d_conv - 1;
        if t < state {
            (true, (batch * state + t) * self.channels + channel)
        } else {
            (
                false,
                (batch * self.seq_len + (t - state)) * self.channels + channel,
            )
        }
    }

    fn element(&self, batch: usize, t: usize, channel: usize) -> T {
        match self.place(batch, t, channel) {
            (true, i) => self.x0[i],
            (false, i) => self.x[i],
        }
    }

    fn pre_activation(&self, batch: usize, t: usize, channel: usize) -> T {
        (0..self.d_conv).fold(self.bias[channel], |sum, k| {
            sum + self.weight[channel * self.d_conv + k] * self.element(batch, t + k, channel)
        })
    }

    /// The output `[batch, seq_len, channels]`.
    pub fn forward(&self) -> Vec<T> {
        self.trace().y
    }

    /// The output with what the adjoint reads of the way there.
    pub fn trace(&self) -> Trace<T> {
        let mut trace = Trace {
            y: Vec::with_capacity(self.x.len()),
            sigmoid: Vec::new(),
        };
        for batch in 0..self.batch {
            for t in 0..self.seq_len {
                for channel in 0..self.channels {
                    let pre = self.pre_activation(batch, t, channel);
                    if self.silu {
                        let s = sigmoid(pre);
                        trace.sigmoid.push(s);
                        trace.y.push(pre * s);
                    } else {
                        trace.y.push(pre);
                    }
                }
            }
        }
        trace
    }

    /// The inputs before the first of the sequence that follows, `[batch, d_conv - 1, channels]`.
    pub fn last(&self) -> Vec<T> {
        let mut last = Vec::with_capacity(self.x0.len());
        for batch in 0..self.batch {
            for t in self.seq_len..self.seq_len + self.d_conv - 1 {
                last.extend((0..self.channels).map(|channel| self.element(batch, t, channel)));
            }
        }
        last
    }

    /// The exact adjoint for the cotangents of the output and of the final inputs.
    pub fn backward(&self, d_y: &[T], d_x_last: &[T]) -> Gradients<T> {
        self.adjoint(&self.trace(), d_y, d_x_last)
    }

    /// As [`Inputs::backward`], from a trace of the forward pass.
    pub fn adjoint(&self, trace: &Trace<T>, d_y: &[T], d_x_last: &[T]) -> Gradients<T> {
        let zeros = |n| vec![T::from_f64(0.0); n];
        let mut g = Gradients {
            d_x: zeros(self.x.len()),
            d_weight: zeros(self.weight.len()),
            d_bias: zeros(self.bias.len()),
            d_x0: zeros(self.x0.len()),
        };
        let one = T::from_f64(1.0);
        for batch in 0..self.batch {
            for channel in 0..self.channels {
                for t in 0..self.seq_len {
                    let at = (batch * self.seq_len + t) * self.channels + channel;
                    let mut d = d_y[at];
                    if self.silu {
                        let (s, y) = (trace.sigmoid[at], trace.y[at]);
                        d = d * (s + y * (one - s));
                    }
                    g.d_bias[channel] = g.d_bias[channel] + d;
                    for k in 0..self.d_conv {
                        let w = channel * self.d_conv + k;
                        g.d_weight[w] = g.d_weight[w] + d * self.element(batch, t + k, channel);
                        let (in_x0, i) = self.place(batch, t + k, channel);
                        let d_element = if in_x0 { &mut g.d_x0[i] } else { &mut g.d_x[i] };
                        *d_element = *d_element + d * self.weight[w];
                    }
                }
                for j in 0..self.d_conv - 1 {
                    let (in_x0, i) = self.place(batch, self.seq_len + j, channel);
                    let d_element = if in_x0 { &mut g.d_x0[i] } else { &mut g.d_x[i] };
                    *d_element = *d_element
                        + d_x_last[(batch * (self.d_conv - 1) + j) * self.channels + channel];
                }
            }
        }
        g
    }
}
