//! Cross-entropy of a linear layer's softmax, token by token.

use super::Number;
use super::layers::{product, product_of_transposed, product_with_transposed};

/// Negative log-likelihood in nats of each target, for `x` `[tokens, d_model]` and `weight` `[vocab, d_model]`.
pub fn nll<T: Number>(x: &[T], weight: &[T], d_model: usize, targets: &[usize]) -> Vec<T> {
    of_logits(&logits(x, weight, d_model), targets).nll
}

/// Gradients by `x` and by `weight` of `scale` times the sum of [`nll`].
pub fn gradients<T: Number>(
    x: &[T],
    weight: &[T],
    d_model: usize,
    targets: &[usize],
    scale: T,
) -> (Vec<T>, Vec<T>) {
    let vocab = weight.len() / d_model;
    let rows = of_logits(&logits(x, weight, d_model), targets);
    let d_logits = rows.d_logits(targets, scale);
    (
        product(&d_logits, weight, [targets.len(), vocab, d_model]),
        product_of_transposed(&d_logits, x, [targets.len(), vocab, d_model]),
    )
}

/// Losses of rows of logits, with what their gradient reads.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    /// In nats.
    pub nll: Vec<T>,
    /// exp(logit - the row's largest), `[rows, vocab]`.
    exponentials: Vec<T>,
    /// The sum of each row of them.
    sums: Vec<T>,
}

/// The loss of each row of `logits` `[rows, vocab]`.
pub fn of_logits<T: Number>(logits: &[T], targets: &[usize]) -> Rows<T> {
    let mut rows = Rows {
        nll: Vec::with_capacity(targets.len()),
        exponentials: Vec::with_capacity(logits.len()),
        sums: Vec::with_capacity(targets.len()),
    };
    let vocab = logits.len() / targets.len();
    for (row, &target) in logits.chunks(vocab).zip(targets) {
        let largest = row
            .iter()
            .fold(row[0], |m, &logit| if logit > m { logit } else { m });
        let mut sum = T::from_f64(0.0);
        let mut of_target = largest;
        for (word, &logit) in row.iter().enumerate() {
            let shifted = logit - largest;
            if word == target {
                of_target = shifted;
            }
            let exponential = shifted.exp();
            rows.exponentials.push(exponential);
            sum = sum + exponential;
        }
        rows.nll.push(sum.ln() - of_target);
        rows.sums.push(sum);
    }
    rows
}

impl<T: Number> Rows<T> {
    /// Gradient by the logits of `scale` times the sum of the losses: `scale (softmax - one_hot)`.
    pub fn d_logits(&self, targets: &[usize], scale: T) -> Vec<T> {
        let mut d_logits = Vec::with_capacity(self.exponentials.len());
        let vocab = self.exponentials.len() / targets.len();
        let rows = self.exponentials.chunks(vocab).zip(&self.sums);
        for ((row, &sum), &target) in rows.zip(targets) {
            let factor = scale / sum;
            let first = d_logits.len();
            d_logits.extend(row.iter().map(|&exponential| exponential * factor));
            d_logits[first + target] = d_logits[first + target] - scale;
        }
        d_logits
    }
}

/// `scale` times the sum of `nll`.
pub fn scaled_sum<T: Number>(nll: &[T], scale: T) -> T {
    scale * nll.iter().fold(T::from_f64(0.0), |sum, &nll| sum + nll)
}

/// `x . weight^T`.
fn logits<T: Number>(x: &[T], weight: &[T], d_model: usize) -> Vec<T> {
    let sizes = [x.len() / d_model, d_model, weight.len() / d_model];
    product_with_transposed(x, weight, sizes)
}
