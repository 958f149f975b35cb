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

/// ln(1 + e^x) in a form that never overflows, and e^-|x|, which its derivative reads.
pub fn softplus<T: Number>(x: T) -> (T, T) {
    let w = (-x.abs()).exp();
    (x.max(T::from_f64(0.0)) + w.ln_1p(), w)
}

/// `d` times the derivative of [`softplus`] at `x`, a sigmoid.
pub fn d_softplus<T: Number>(x: T, w: T, d: T) -> T {
    let one = T::from_f64(1.0);
    let numerator = if x < T::from_f64(0.0) { w } else { one };
    d * (numerator / (one + w))
}

/// What the forward pass computed.
#[derive(Debug, Clone)]
pub struct Trace<T> {
    /// The output, `[batch, seq, d_inner]`.
    pub y: Vec<T>,
    /// The state after the last token, `[batch, d_inner, d_state]`.
    pub h_last: Vec<T>,
    /// The second value of [`softplus`], delta and delta times u, `[batch, seq, d_inner]`.
    w: Vec<T>,
    delta: Vec<T>,
    x: Vec<T>,
    /// exp(delta a), that times the state before, and the state, `[batch, seq, d_inner, d_state]`.
    decay: Vec<T>,
    decayed: Vec<T>,
    h: Vec<T>,
}

/// `y` `[batch, seq, d_inner]` and the state after the last token `[batch, d_inner, d_state]`.
pub fn forward<T: Number>(dims: Dims, inputs: &Inputs<T>) -> (Vec<T>, Vec<T>) {
    let trace = trace(dims, inputs);
    (trace.y, trace.h_last)
}

/// The forward pass with everything that the adjoint reads of it.
pub fn trace<T: Number>(dims: Dims, inputs: &Inputs<T>) -> Trace<T> {
    let Dims {
        d_inner, d_state, ..
    } = dims;
    let zeros = |n| vec![T::from_f64(0.0); n];
    let (n, n_states) = (inputs.u.len(), inputs.u.len() * d_state);
    let mut trace = Trace {
        y: zeros(n),
        h_last: inputs.h0.clone(),
        w: zeros(n),
        delta: zeros(n),
        x: zeros(n),
        decay: zeros(n_states),
        decayed: zeros(n_states),
        h: zeros(n_states),
    };
    for (row, token) in dims.tokens() {
        for d in 0..d_inner {
            let i = token * d_inner + d;
            let raw = inputs.delta_raw[i];
            (trace.delta[i], trace.w[i]) = if inputs.softplus {
                softplus(raw)
            } else {
                (raw, raw)
            };
            trace.x[i] = trace.delta[i] * inputs.u[i];
            for n in 0..d_state {
                let (k, s) = (i * d_state + n, token * d_state + n);
                let h = &mut trace.h_last[(row * d_inner + d) * d_state + n];
                trace.decay[k] = (trace.delta[i] * inputs.a[d * d_state + n]).exp();
                trace.decayed[k] = trace.decay[k] * *h;
                *h = trace.decayed[k] + trace.x[i] * inputs.b[s];
                trace.h[k] = *h;
                trace.y[i] = trace.y[i] + inputs.c[s] * *h;
            }
        }
    }
    trace
}

/// The gradients of the inputs, each in its own field (`softplus` is copied), from those of `y` and of
/// the last state.
pub fn adjoint<T: Number>(dims: Dims, inputs: &Inputs<T>, d_y: &[T], d_h_last: &[T]) -> Inputs<T> {
    adjoint_of(&trace(dims, inputs), dims, inputs, d_y, d_h_last)
}

/// As [`adjoint`], from a trace of the forward pass. Every state is stored.
pub fn adjoint_of<T: Number>(
    trace: &Trace<T>,
    dims: Dims,
    inputs: &Inputs<T>,
    d_y: &[T],
    d_h_last: &[T],
) -> Inputs<T> {
    let Dims {
        d_inner, d_state, ..
    } = dims;
    let zero = T::from_f64(0.0);
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
            let (delta, x) = (trace.delta[i], trace.x[i]);
            let (mut d_delta, mut d_x) = (zero, zero);
            for n in 0..d_state {
                let (k, s) = (i * d_state + n, token * d_state + n);
                let a = d * d_state + n;
                // The cotangent of h[t] from the right, then with this token's output.
                let carried = &mut grads.h0[row * d_inner * d_state + a];
                let d_h = *carried + inputs.c[s] * d_y[i];
                *carried = trace.decay[k] * d_h;
                let d_exponent = d_h * trace.decayed[k];
                grads.c[s] = grads.c[s] + d_y[i] * trace.h[k];
                grads.b[s] = grads.b[s] + d_h * x;
                grads.a[a] = grads.a[a] + d_exponent * delta;
                d_x = d_x + d_h * inputs.b[s];
                d_delta = d_delta + d_exponent * inputs.a[a];
            }
            grads.u[i] = d_x * delta;
            d_delta = d_delta + d_x * inputs.u[i];
            grads.delta_raw[i] = if inputs.softplus {
                d_softplus(inputs.delta_raw[i], trace.w[i], d_delta)
            } else {
                d_delta
            };
        }
    }
    grads
}
