//! What is registered. The gradients are computed with the loss, and registered there.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use crate::ops::ledger::{Op, register, register_as, within};
use crate::results::{FlopsCategory, FlopsPass};

/// The logits of `x` `[tokens, d_model]` and `weight` `[vocab, d_model]`.
pub(super) fn logits<B: Backend>(x: &FloatTensor<B>, weight: &FloatTensor<B>) {
    let op = product::<B>(x, weight);
    within(FlopsCategory::Head, || register(op, FlopsPass::Forward));
}

/// Both gradients: in so many chunks, each multiplied by the loss's own in the backward pass.
pub(super) fn gradients<B: Backend>(x: &FloatTensor<B>, weight: &FloatTensor<B>, n_chunks: usize) {
    let op = product::<B>(x, weight);
    let extra = [
        x.shape().num_elements(),
        (1 + n_chunks) * weight.shape().num_elements(),
    ];
    within(FlopsCategory::Head, || {
        for extra in extra {
            let executed = || op.cost(FlopsPass::Backward) + extra as u64;
            register_as(op, FlopsPass::Backward, executed);
        }
    });
}

fn product<B: Backend>(x: &FloatTensor<B>, weight: &FloatTensor<B>) -> Op {
    let ([rows, inner], [columns, _]) = (x.shape().dims(), weight.shape().dims());
    Op::MatrixProduct {
        rows,
        inner,
        columns,
    }
}

/// The losses of `rows` rows of logits, and, with a scale, their gradients.
pub(super) fn rows(
    [rows, vocab]: [usize; 2],
    scale: Option<f32>,
    executed: impl Fn(Op, FlopsPass) -> u64,
) {
    let op = Op::CrossEntropy { rows, vocab };
    let run = |pass| register_as(op, pass, || executed(op, pass));
    run(FlopsPass::Forward);
    if scale.is_some() {
        run(FlopsPass::Backward);
    }
}

/// The loss from its `n` terms.
pub(super) fn sum(n: usize) {
    register(Op::ScaledSum { n }, FlopsPass::Forward);
}
