//! Cross-entropy of a linear layer's softmax, token by token.

use super::Number;

/// Negative log-likelihood in nats of each target, for `x` `[tokens, d_model]` and `weight` `[vocab, d_model]`.
pub fn nll<T: Number>(x: &[T], weight: &[T], d_model: usize, targets: &[usize]) -> Vec<T> {
    let rows = x.chunks(d_model).zip(targets);
    rows.map(|(x, &target)| -log_softmax(&logits(x, weight))[target])
        .collect()
}

/// Gradients by `x` and by `weight` of `scale` times the sum of [`nll`].
pub fn gradients<T: Number>(
    x: &[T],
    weight: &[T],
    d_model: usize,
    targets: &[usize],
    scale: T,
) -> (Vec<T>, Vec<T>) {
    let zero = T::from_f64(0.0);
    let mut d_x = vec![zero; x.len()];
    let mut d_weight = vec![zero; weight.len()];
    for (token, &target) in targets.iter().enumerate() {
        let x_row = &x[token * d_model..(token + 1) * d_model];
        for (word, log_p) in log_softmax(&logits(x_row, weight)).into_iter().enumerate() {
            let one_hot = T::from_f64(if word == target { 1.0 } else { 0.0 });
            let d_logit = scale * (log_p.exp() - one_hot);
            for i in 0..d_model {
                let (a, w) = (token * d_model + i, word * d_model + i);
                d_x[a] = d_x[a] + d_logit * weight[w];
                d_weight[w] = d_weight[w] + d_logit * x[a];
            }
        }
    }
    (d_x, d_weight)
}

fn logits<T: Number>(x: &[T], weight: &[T]) -> Vec<T> {
    let dot = |w: &[T]| {
        x.iter()
            .zip(w)
            .fold(T::from_f64(0.0), |sum, (&x, &w)| sum + x * w)
    };
    weight.chunks(x.len()).map(dot).collect()
}

fn log_softmax<T: Number>(logits: &[T]) -> Vec<T> {
    let largest = logits
        .iter()
        .fold(logits[0], |m, &l| if l > m { l } else { m });
    let sum = logits
        .iter()
        .fold(T::from_f64(0.0), |sum, &l| sum + (l - largest).exp());
    logits.iter().map(|&l| l - largest - sum.ln()).collect()
}
