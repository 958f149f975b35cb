//! The language-model head and its loss in one operation, so that the logits of only `chunk_tokens` tokens
//! ever exist: at 50,257 words and 4,096 tokens all of them would take 785 MiB, and as much again for their
//! gradient. Measured errors: `docs/linear_cross_entropy.md`.
//!
//! ```text
//! logits = x . weight^T                nll[t] = ln(sum_v exp(logits[t, v])) - logits[t, targets[t]]
//! ```
//!
//! Tensors are `f32` on every device, or `f64` on the CPU.

mod autodiff;
mod cost;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::config::Precision;
use crate::shader::budget::BINDING_BYTES;
use crate::{Error, Result};
use autodiff::LinearCrossEntropyBackend;

const OP: &str = "linear_cross_entropy";

/// Negative log-likelihood, in nats, of `targets` `[tokens]` for `x` `[tokens, d_model]` and `weight`
/// `[vocab, d_model]`, outside any graph; `[tokens]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit together or a size is 0; [`Error::Domain`] for the first
/// target that is not below `vocab`, and for a `chunk_tokens` that is 0 or whose logits exceed 128 MiB.
pub fn infer(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: &[u32],
    chunk_tokens: usize,
) -> Result<Tensor<1>> {
    check(x.dims(), weight.dims(), targets, chunk_tokens)?;
    Ok(Tensor::from_dispatch(Dispatch::linear_cross_entropy_infer(
        x.into_dispatch(),
        weight.into_dispatch(),
        targets,
        chunk_tokens,
    )))
}

/// As [`infer`] for a head of `vocab` words that is no plain matrix: `logits` makes those of a chunk of rows of `x`.
///
/// # Errors
/// As [`infer`], and what `logits` returns.
pub fn infer_by(
    x: &Tensor<2>,
    vocab: usize,
    targets: &[u32],
    chunk_tokens: usize,
    logits: impl Fn(Tensor<2>) -> Result<Tensor<2>>,
) -> Result<Tensor<1>> {
    let [tokens, d_model] = x.dims();
    check([tokens, d_model], [vocab, d_model], targets, chunk_tokens)?;
    let nll = targets
        .chunks(chunk_tokens)
        .enumerate()
        .map(|(i, targets)| {
            let rows = x.clone().narrow(0, i * chunk_tokens, targets.len());
            let logits = logits(rows)?.inner().into_dispatch();
            Ok(Tensor::from_dispatch(Dispatch::nll_of_logits(
                logits, targets,
            )))
        });
    Ok(Tensor::cat(nll.collect::<Result<_>>()?, 0))
}

/// `scale` times the sum over tokens of what [`infer`] returns, `[1]`, with exact gradients for `x` and
/// `weight`; `scale = 1 / tokens` gives the mean. The gradients are computed together with the loss, chunk by
/// chunk, and kept until the backward pass.
///
/// With [`Precision::Mixed`] all three products, the logits and both gradients, take and give f16, whose largest number
/// is 65504 and whose smallest is 6e-8: `scale` has to keep `scale * (softmax - one_hot)` within that. Everything
/// between the products, the sum over chunks included, stays in the type of `x`.
///
/// # Errors
/// As [`infer`].
pub fn train(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: &[u32],
    chunk_tokens: usize,
    scale: f32,
    precision: Precision,
) -> Result<Tensor<1>> {
    check(x.dims(), weight.dims(), targets, chunk_tokens)?;
    Ok(Tensor::from_dispatch(Dispatch::linear_cross_entropy_train(
        x.into_dispatch(),
        weight.into_dispatch(),
        targets,
        chunk_tokens,
        scale,
        precision,
    )))
}

fn check(x: [usize; 2], weight: [usize; 2], targets: &[u32], chunk_tokens: usize) -> Result<()> {
    let shape = |arg, expected: String, got: Vec<usize>| {
        Err(Error::Shape {
            op: OP,
            arg,
            expected,
            got,
        })
    };
    let domain = |arg, requirement, index: Vec<usize>, value: f64| {
        Err(Error::Domain {
            op: OP,
            arg,
            requirement,
            index,
            value,
        })
    };
    let ([tokens, d_model], [vocab, _]) = (x, weight);
    if tokens * d_model == 0 {
        return shape(
            "x",
            "[tokens, d_model], none of them 0".to_owned(),
            x.to_vec(),
        );
    }
    if vocab == 0 || weight[1] != d_model {
        return shape("weight", format!("[vocab, {d_model}]"), weight.to_vec());
    }
    if targets.len() != tokens {
        return shape("targets", format!("[{tokens}]"), vec![targets.len()]);
    }
    if let Some(t) = targets.iter().position(|&target| target as usize >= vocab) {
        return domain(
            "targets",
            "below the vocabulary size",
            vec![t],
            f64::from(targets[t]),
        );
    }
    let logit_bytes = chunk_tokens.min(tokens) as u64 * vocab as u64 * 4;
    if chunk_tokens == 0 || logit_bytes > BINDING_BYTES {
        let requirement = "above 0 and at most 128 MiB / (4 vocab)";
        return domain("chunk_tokens", requirement, vec![], chunk_tokens as f64);
    }
    Ok(())
}
