//! Causal attention, a position after the other (Vaswani et al. 2017).

use super::Number;
use super::layers::{d_softmax, softmax};

/// One head after the other: `q`, `k` and `v` are `[heads, seq, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a, T> {
    /// Positions.
    pub seq: usize,
    /// Of a head.
    pub width: usize,
    /// Queries.
    pub q: &'a [T],
    /// Keys.
    pub k: &'a [T],
    /// Values.
    pub v: &'a [T],
}

/// What [`Problem::forward`] makes.
#[derive(Debug, Clone)]
pub struct Trace<T> {
    /// The output, `[heads, seq, width]`.
    pub y: Vec<T>,
    /// Of each head and position, the weights of the positions up to it.
    weights: Vec<Vec<T>>,
}

impl<T: Number> Problem<'_, T> {
    /// `y_i = sum_{j <= i} softmax_j(q_i . k_j / sqrt(width)) v_j`.
    pub fn forward(&self) -> Trace<T> {
        let zero = T::from_f64(0.0);
        let mut trace = Trace {
            y: Vec::with_capacity(self.q.len()),
            weights: Vec::new(),
        };
        for (head, at) in self.positions() {
            let q = self.row(self.q, head, at);
            let scores: Vec<T> = (0..=at)
                .map(|other| dot(q, self.row(self.k, head, other)) * self.scale())
                .collect();
            let weights = softmax(&scores, at + 1);
            let mut y = vec![zero; self.width];
            for (other, &weight) in weights.iter().enumerate() {
                accumulate(&mut y, weight, self.row(self.v, head, other));
            }
            trace.y.extend(y);
            trace.weights.push(weights);
        }
        trace
    }

    /// Gradients by `q`, `k` and `v` for the cotangent `d_y`.
    pub fn adjoint_of(&self, trace: &Trace<T>, d_y: &[T]) -> [Vec<T>; 3] {
        let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|()| vec![T::from_f64(0.0); self.q.len()]);
        for ((head, at), weights) in self.positions().zip(&trace.weights) {
            let d_row = self.row(d_y, head, at);
            let mut d_weights = Vec::with_capacity(weights.len());
            for (other, &weight) in weights.iter().enumerate() {
                accumulate(&mut d_v[self.range(head, other)], weight, d_row);
                d_weights.push(dot(d_row, self.row(self.v, head, other)));
            }
            let d_scores = d_softmax(weights, &d_weights, at + 1);
            for (other, d_score) in d_scores.into_iter().enumerate() {
                let d_dot = d_score * self.scale();
                let (q, k) = (self.row(self.q, head, at), self.row(self.k, head, other));
                accumulate(&mut d_q[self.range(head, at)], d_dot, k);
                accumulate(&mut d_k[self.range(head, other)], d_dot, q);
            }
        }
        [d_q, d_k, d_v]
    }

    /// Heads and positions in their order.
    fn positions(&self) -> impl Iterator<Item = (usize, usize)> {
        let (seq, n_heads) = (self.seq, self.q.len() / (self.seq * self.width));
        (0..n_heads).flat_map(move |head| (0..seq).map(move |at| (head, at)))
    }

    fn scale(&self) -> T {
        T::from_f64((self.width as f64).sqrt().recip())
    }

    fn range(&self, head: usize, at: usize) -> std::ops::Range<usize> {
        let first = (head * self.seq + at) * self.width;
        first..first + self.width
    }

    fn row<'b>(&self, x: &'b [T], head: usize, at: usize) -> &'b [T] {
        &x[self.range(head, at)]
    }
}

fn dot<T: Number>(a: &[T], b: &[T]) -> T {
    let products = a.iter().zip(b);
    products.fold(T::from_f64(0.0), |sum, (&a, &b)| sum + a * b)
}

fn accumulate<T: Number>(sums: &mut [T], factor: T, x: &[T]) {
    for (sum, &x) in sums.iter_mut().zip(x) {
        *sum = *sum + factor * x;
    }
}
