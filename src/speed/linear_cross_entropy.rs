//! The head of a language model with its loss.

use std::hint::black_box;

use super::{Bench, Kernel, draw, indices};
use crate::Result;
use crate::config::Precision;
use crate::ops::linear_cross_entropy::{infer, train};
use crate::results::FlopsPass;

const OPERATION: &str = "linear_cross_entropy";
/// Tokens, width, words: bytes, and the words of GPT-2.
const SIZES: [[usize; 3]; 2] = [[512, 256, 256], [64, 64, 50_257]];
/// Tokens whose logits exist at once.
const CHUNK_TOKENS: usize = 512;

/// Negative log-likelihood of each row of logits, which become `scale` times its gradient.
pub fn plain_rows(logits: &mut [f32], targets: &[u32], scale: f32, nll: &mut [f32]) {
    let vocab = logits.len() / targets.len();
    for ((row, &target), nll) in logits.chunks_mut(vocab).zip(targets).zip(nll) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let of_target = row[target as usize] - largest;
        let mut sum = 0.0;
        for v in row.iter_mut() {
            *v = (*v - largest).exp();
            sum += *v;
        }
        for v in row.iter_mut() {
            *v *= scale / sum;
        }
        row[target as usize] -= scale;
        *nll = sum.ln() - of_target;
    }
}

/// Logits of `x` `[tokens, d_model]` with `weight` `[vocab, d_model]`.
pub fn plain_logits(x: &[f32], weight: &[f32], d_model: usize, logits: &mut [f32]) {
    let vocab = weight.len() / d_model;
    for (x, row) in x.chunks(d_model).zip(logits.chunks_mut(vocab)) {
        for (weight, logit) in weight.chunks(d_model).zip(row) {
            *logit = x.iter().zip(weight).map(|(x, w)| x * w).sum();
        }
    }
}

/// Gradients of `x` and `weight` from those of the logits.
pub fn plain_gradients(
    (x, weight): (&[f32], &[f32]),
    d_model: usize,
    d_logits: &[f32],
    [d_x, d_weight]: [&mut [f32]; 2],
) {
    d_x.fill(0.0);
    d_weight.fill(0.0);
    let vocab = weight.len() / d_model;
    let tokens = x.chunks(d_model).zip(d_x.chunks_mut(d_model));
    for ((x, d_x), d_logits) in tokens.zip(d_logits.chunks(vocab)) {
        let words = weight.chunks(d_model).zip(d_weight.chunks_mut(d_model));
        for ((weight, d_weight), d_logit) in words.zip(d_logits) {
            for (d_x, weight) in d_x.iter_mut().zip(weight) {
                *d_x += d_logit * weight;
            }
            for (d_weight, x) in d_weight.iter_mut().zip(x) {
                *d_weight += d_logit * x;
            }
        }
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for [tokens, d_model, vocab] in SIZES {
        let targets = indices(tokens, vocab);
        let x = draw(0, tokens * d_model, -1.0, 1.0);
        let weight = draw(1, vocab * d_model, -0.1, 0.1);
        let (mut logits, mut nll) = (vec![0.0; tokens * vocab], vec![0.0; tokens]);
        let (mut d_x, mut d_weight) = (x.clone(), weight.clone());
        let scale = 1.0 / tokens as f32;

        let sizes = [("tokens", tokens), ("d_model", d_model), ("vocab", vocab)];
        let read = x.len() + weight.len();
        let kernel = |pass, floats| Kernel {
            operation: OPERATION,
            pass,
            with_forward: pass == FlopsPass::Backward,
            sizes: &sizes,
            floats,
        };
        let (shape_x, shape_weight) = ([tokens, d_model], [vocab, d_model]);
        let there = (
            bench.tensor(&x, shape_x),
            bench.tensor(&weight, shape_weight),
        );
        bench.forward(
            &kernel(FlopsPass::Forward, read + tokens),
            || {
                plain_logits(&x, &weight, d_model, &mut logits);
                plain_rows(&mut logits, &targets, scale, black_box(&mut nll));
            },
            || Ok(there.clone()),
            |(x, weight)| infer(x, weight, &targets, CHUNK_TOKENS),
        )?;
        let leaves = (bench.leaf(&x, shape_x), bench.leaf(&weight, shape_weight));
        bench.measure(
            &kernel(FlopsPass::Backward, 2 * read + 1),
            || {
                plain_logits(&x, &weight, d_model, &mut logits);
                plain_rows(&mut logits, &targets, scale, &mut nll);
                let into = [d_x.as_mut_slice(), d_weight.as_mut_slice()];
                plain_gradients((&x, &weight), d_model, &logits, black_box(into));
            },
            || Ok(leaves.clone()),
            |(x, weight)| {
                let loss = train(x, weight, &targets, CHUNK_TOKENS, scale, Precision::F32)?;
                drop(loss.backward());
                Ok(())
            },
        )?;
    }
    Ok(())
}
