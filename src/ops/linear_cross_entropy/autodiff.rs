//! The plug into burn: the loop over chunks of tokens, dispatch to the backends, the graph node, and the CPU
//! backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::{CubeBackend, CubeTensor};
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{FloatDType, Slice};
use burn_flex::FlexTensor;

use super::{cost, cpu};
use crate::config::Precision;
use crate::ops::flex::{filled, with_real};
use crate::ops::ledger::Op;

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait LinearCrossEntropyBackend: Backend {
    /// Negative log-likelihood of every token.
    fn linear_cross_entropy_infer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: &[u32],
        chunk_tokens: usize,
    ) -> FloatTensor<Self>;

    /// Negative log-likelihood of rows of logits, which are used up.
    fn nll_of_logits(logits: FloatTensor<Self>, targets: &[u32]) -> FloatTensor<Self>;

    /// `scale` times the sum over all tokens.
    fn linear_cross_entropy_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: &[u32],
        chunk_tokens: usize,
        scale: f32,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

/// What a backend beneath autodiff provides.
pub(super) trait RowKernels: Backend {
    /// Negative log-likelihood of each row of logits, and what the logits became: with a scale
    /// `scale * (softmax - one_hot)`, else unspecified.
    fn row_nll(
        logits: FloatTensor<Self>,
        targets: &[u32],
        scale: Option<f32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `scale` times the sum of `nll`, in a fixed order.
    fn scaled_sum(nll: FloatTensor<Self>, scale: f32) -> FloatTensor<Self>;
}

fn infer<B: RowKernels>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    targets: &[u32],
    chunk_tokens: usize,
    precision: Precision,
) -> FloatTensor<B> {
    cost::logits::<B>(x, weight);
    let products = Products::new(x, precision);
    let weight_t = B::float_transpose(products.factor::<B>(weight.clone()));
    let nll = targets
        .chunks(chunk_tokens)
        .enumerate()
        .map(|(i, targets)| {
            let x = products.factor::<B>(token_rows::<B>(x, i * chunk_tokens, targets.len()));
            B::row_nll(products.of::<B>(x, weight_t.clone()), targets, None).0
        });
    B::float_cat(nll.collect(), 0)
}

/// The loss with its gradients by `x` and `weight`: the logits of a chunk live only here.
fn loss_and_gradients<B: RowKernels>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    targets: &[u32],
    chunk_tokens: usize,
    scale: f32,
    precision: Precision,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    cost::logits::<B>(x, weight);
    cost::gradients::<B>(x, weight, targets.len().div_ceil(chunk_tokens));
    let products = Products::new(x, precision);
    let mut d_weight = B::float_zeros(weight.shape(), &weight.device(), weight.dtype().into());
    let weight = products.factor::<B>(weight.clone());
    let weight_t = B::float_transpose(weight.clone());
    let (mut nll, mut d_x) = (Vec::new(), Vec::new());
    for (i, targets) in targets.chunks(chunk_tokens).enumerate() {
        let x = products.factor::<B>(token_rows::<B>(x, i * chunk_tokens, targets.len()));
        let logits = products.of::<B>(x.clone(), weight_t.clone());
        let (chunk_nll, d_logits) = B::row_nll(logits, targets, Some(scale));
        nll.push(chunk_nll);
        let d_logits = products.factor::<B>(d_logits);
        d_x.push(products.of::<B>(d_logits.clone(), weight.clone()));
        let of_chunk = products.of::<B>(B::float_transpose(d_logits), x);
        d_weight = B::float_add(d_weight, of_chunk);
    }
    cost::sum(targets.len());
    let loss = B::scaled_sum(B::float_cat(nll, 0), scale);
    (loss, B::float_cat(d_x, 0), d_weight)
}

/// The types of the factors of matrix products and of what comes of them.
#[derive(Debug, Clone, Copy)]
struct Products {
    factors: FloatDType,
    results: FloatDType,
}

impl Products {
    /// For a loss in the type of `x`.
    fn new(x: &impl TensorMetadata, precision: Precision) -> Self {
        let results = x.dtype().into();
        let factors = match precision {
            Precision::F32 => results,
            Precision::Mixed => FloatDType::F16,
        };
        Self { factors, results }
    }

    fn factor<B: Backend>(self, tensor: FloatTensor<B>) -> FloatTensor<B> {
        B::float_cast(tensor, self.factors)
    }

    /// The product of two factors.
    fn of<B: Backend>(self, a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
        B::float_cast(B::float_matmul(a, b), self.results)
    }
}

fn token_rows<B: Backend>(x: &FloatTensor<B>, first: usize, rows: usize) -> FloatTensor<B> {
    let d_model = x.shape()[1];
    B::float_slice(
        x.clone(),
        &[Slice::from(first..first + rows), Slice::from(0..d_model)],
    )
}

impl<B, C> LinearCrossEntropyBackend for Autodiff<B, C>
where
    B: LinearCrossEntropyBackend + RowKernels,
    C: CheckpointStrategy,
{
    fn linear_cross_entropy_infer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: &[u32],
        chunk_tokens: usize,
    ) -> FloatTensor<Self> {
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let precision = Precision::F32;
        FloatTensor::<Self>::new(infer::<B>(&x, &weight, targets, chunk_tokens, precision))
    }

    fn nll_of_logits(logits: FloatTensor<Self>, targets: &[u32]) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::row_nll(logits.into_primitive(), targets, None).0)
    }

    fn linear_cross_entropy_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: &[u32],
        chunk_tokens: usize,
        scale: f32,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LinearCrossEntropyBackward;

        impl<B: Backend> Backward<B, 2> for LinearCrossEntropyBackward {
            /// The gradients by x and weight, for a cotangent of 1.
            type State = [FloatTensor<B>; 2];

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_loss = gradients.consume::<B>(&ops.node);
                let d_loss = B::float_reshape(d_loss, [1, 1].into());
                for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, B::float_mul(gradient, d_loss.clone()));
                    }
                }
            }
        }

        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        match LinearCrossEntropyBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (loss, d_x, d_weight) =
                    loss_and_gradients::<B>(&x, &weight, targets, chunk_tokens, scale, precision);
                prep.finish([d_x, d_weight], loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::linear_cross_entropy_train(
                x,
                weight,
                targets,
                chunk_tokens,
                scale,
                precision,
            )),
        }
    }
}

/// The backends beneath autodiff share their bodies.
macro_rules! without_graph {
    ($backend:ty, $tensor:ty) => {
        impl LinearCrossEntropyBackend for $backend {
            fn linear_cross_entropy_infer(
                x: $tensor,
                weight: $tensor,
                targets: &[u32],
                chunk_tokens: usize,
            ) -> $tensor {
                infer::<Self>(&x, &weight, targets, chunk_tokens, Precision::F32)
            }

            fn nll_of_logits(logits: $tensor, targets: &[u32]) -> $tensor {
                Self::row_nll(logits, targets, None).0
            }

            fn linear_cross_entropy_train(
                x: $tensor,
                weight: $tensor,
                targets: &[u32],
                chunk_tokens: usize,
                scale: f32,
                precision: Precision,
            ) -> $tensor {
                cost::sum(targets.len());
                let nll = infer::<Self>(&x, &weight, targets, chunk_tokens, precision);
                Self::scaled_sum(nll, scale)
            }
        }
    };
}
without_graph!(CubeBackend, CubeTensor);
without_graph!(Flex, FlexTensor);

impl RowKernels for Flex {
    fn row_nll(
        logits: FlexTensor,
        targets: &[u32],
        scale: Option<f32>,
    ) -> (FlexTensor, FlexTensor) {
        cost::rows(logits.shape().dims(), scale, Op::cost);
        let mut rows = logits.to_contiguous();
        drop(logits); // with a second owner the rows would be copied before they are written
        with_real!(rows, T => {
            let nll = filled([targets.len()], |nll| {
                cpu::row_nll::<T>(rows.storage_mut(), targets, scale, nll);
            });
            (nll, rows)
        })
    }

    fn scaled_sum(nll: FlexTensor, scale: f32) -> FlexTensor {
        let nll = nll.to_contiguous();
        with_real!(nll, T => {
            filled([1], |loss| loss[0] = cpu::scaled_sum::<T>(nll.storage(), scale))
        })
    }
}
