//! The plug into burn: dispatch to the backends, the graph node, and the CPU backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::{Plan, cpu};
use crate::ops::flex::{filled, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait EmbeddingBackend: Backend {
    fn gather_rows(weight: FloatTensor<Self>, ids: &[u32]) -> FloatTensor<Self>;
}

/// What a backend beneath autodiff provides.
pub(super) trait EmbeddingGradient: EmbeddingBackend {
    /// For each row of the weight the sum over the positions that gathered it.
    fn scatter_sum(d_y: FloatTensor<Self>, plan: &Plan) -> FloatTensor<Self>;
}

impl<B: EmbeddingGradient, C: CheckpointStrategy> EmbeddingBackend for Autodiff<B, C> {
    fn gather_rows(weight: FloatTensor<Self>, ids: &[u32]) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GatherBackward;

        impl<B: EmbeddingGradient> Backward<B, 1> for GatherBackward {
            /// The ids and the number of rows.
            type State = (Vec<u32>, usize);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_y = gradients.consume::<B>(&ops.node);
                let (ids, rows) = ops.state;
                if let [Some(node)] = ops.parents {
                    gradients.register::<B>(node.id, B::scatter_sum(d_y, &Plan::new(&ids, rows)));
                }
            }
        }

        let node = weight.node();
        let weight = weight.into_primitive();
        let rows = weight.shape()[0];
        let y = B::gather_rows(weight, ids);
        match GatherBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((ids.to_vec(), rows), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl EmbeddingBackend for Flex {
    fn gather_rows(weight: FlexTensor, ids: &[u32]) -> FlexTensor {
        let weight = weight.to_contiguous();
        let d = weight.shape()[1];
        with_real!(weight, T => {
            filled([ids.len(), d], |y| cpu::gather::<T>(weight.storage(), ids, d, y))
        })
    }
}

impl EmbeddingGradient for Flex {
    fn scatter_sum(d_y: FlexTensor, plan: &Plan) -> FlexTensor {
        let d_y = d_y.to_contiguous();
        let d = d_y.shape()[1];
        with_real!(d_y, T => {
            filled([plan.row_groups.len() - 1, d], |d_weight| {
                cpu::scatter_sum::<T>(d_y.storage(), plan, d, d_weight);
            })
        })
    }
}
