//! Mamba's selective scan and its exact adjoint, one step at a time.
//!
//! `h[t] = exp(delta[t] a) h[t-1] + delta[t] b[t] u[t]`, `y[t] = c[t] . h[t]` (Gu and Dao 2023, "Mamba:
//! linear-time sequence modeling with selective state spaces", equations 2 and 4).

use super::Number;

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
    fn tokens(self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        (0..self.batch).flat_map(move |row| (0..self.seq).map(move |t| (row, row * self.seq + t)))
    }
}

/// What the recurrence reads.
#[derive(Debug, Clone)]
pub struct Inputs<T> {
    /// `[batch, seq, d_inner]`.
    pub u: Vec<T>,
    /// `[batch, seq, d_inner]`.
    pub delta_raw: Vec<T>,
    /// `[d_inner, d_state]`.
    pub a: Vec<T>,
    /// `[batch, seq, d_state]`.
    pub b: Vec<T>,
    /// `[batch, seq, d_state]`.
    pub c: Vec<T>,
    /// The state before the first token, `[batch, d_inner, d_state]`.
    pub h0: Vec<T>,
    /// Whether delta is the softplus of `delta_raw` or `delta_raw` itself.
    pub softplus: bool,
}

/// ln(1 + e^x), and its derivative.
fn softplus<T: Number>(x: T) -> (T, T) {
    let (zero, one) = (T::from_f64(0.0), T::from_f64(1.0));
    let positive = x > zero;
    let w = if positive { (-x).exp() } else { x.exp() };
    let sum = one + w;
    // ln(1 + w), corrected for what was rounded off 1 + w (Kahan).
    let log = if sum > one {
        w * sum.ln() / (sum - one)
    } else {
        w
    };
    if positive {
        (x + log, one / sum)
    } else {
        (log, w / sum)
    }
}

impl<T: Number> Inputs<T> {
    /// delta and its derivative in `delta_raw`.
    fn delta(&self, i: usize) -> (T, T) {
        let raw = self.delta_raw[i];
        if self.softplus {
            softplus(raw)
        } else {
            (raw, T::from_f64(1.0))
        }
    }
}

/// `y` `[batch, seq, d_inner]` and the state after the last token `[batch, d_inner, d_state]`.
pub fn forward<T: Number>(dims: Dims, inputs: &Inputs<T>) -> (Vec<T>, Vec<T>) {
    let Dims {
        d_inner, d_state, ..
    } = dims;
    let mut h = inputs.h0.clone();
    let mut y = vec![T::from_f64(0.0); inputs.u.len()];
    for (row, token) in dims.tokens() {
        for d in 0..d_inner {
            let i = token * d_inner + d;
            let (delta, _) = inputs.delta(i);
            for n in 0..d_state {
                let h = &mut h[(row * d_inner + d) * d_state + n];
                let decay = (delta * inputs.a[d * d_state + n]).exp();
                *h = decay * *h + delta * inputs.b[token * d_state + n] * inputs.u[i];
                y[i] = y[i] + inputs.c[token * d_state + n] * *h;
            }
        }
    }
    (y, h)
}

/// The gradients of the inputs, each in its own field (`softplus` is copied), from those of `y` and of
/// the last state. Every state is stored.
pub fn adjoint<T: Number>(dims: Dims, inputs: &Inputs<T>, d_y: &[T], d_h_last: &[T]) -> Inputs<T> {
    let Dims {
        batch,
        seq,
        d_inner,
        d_state,
    } = dims;
    let zero = T::from_f64(0.0);
    let per_token = d_inner * d_state;
    // before[token] is the state before that token.
    let mut before = vec![zero; batch * seq * per_token];
    let mut h = inputs.h0.clone();
    for (row, token) in dims.tokens() {
        let h = &mut h[row * per_token..][..per_token];
        before[token * per_token..][..per_token].copy_from_slice(h);
        for d in 0..d_inner {
            let i = token * d_inner + d;
            let (delta, _) = inputs.delta(i);
            for n in 0..d_state {
                let decay = (delta * inputs.a[d * d_state + n]).exp();
                let k = d * d_state + n;
                h[k] = decay * h[k] + delta * inputs.b[token * d_state + n] * inputs.u[i];
            }
        }
    }
    let mut grads = Inputs {
        u: vec![zero; inputs.u.len()],
        delta_raw: vec![zero; inputs.delta_raw.len()],
        a: vec![zero; inputs.a.len()],
        b: vec![zero; inputs.b.len()],
        c: vec![zero; inputs.c.len()],
        h0: d_h_last.to_vec(),
        softplus: inputs.softplus,
    };
    for (row, token) in dims.tokens().rev() {
        for d in 0..d_inner {
            let i = token * d_inner + d;
            let u = inputs.u[i];
            let (delta, slope) = inputs.delta(i);
            let mut d_delta = zero;
            for n in 0..d_state {
                let (k, s) = (d * d_state + n, token * d_state + n);
                let (a, b) = (inputs.a[k], inputs.b[s]);
                let decay = (delta * a).exp();
                let before = before[token * per_token + k];
                let h = decay * before + delta * b * u;
                // The cotangent of h[t] from the right, then with this token's output.
                let carried = &mut grads.h0[row * per_token + k];
                let d_h = *carried + inputs.c[s] * d_y[i];
                *carried = decay * d_h;
                grads.c[s] = grads.c[s] + d_y[i] * h;
                grads.b[s] = grads.b[s] + d_h * delta * u;
                grads.u[i] = grads.u[i] + d_h * delta * b;
                grads.a[k] = grads.a[k] + d_h * decay * before * delta;
                d_delta = d_delta + d_h * (decay * before * a + b * u);
            }
            grads.delta_raw[i] = d_delta * slope;
        }
    }
    grads
}
