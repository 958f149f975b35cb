//! The plug into burn: dispatch to the backends, the graph node, and the CPU backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::cpu;
use crate::ops::flex::{filled, output, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait RmsNormBackend: Backend {
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What a backend beneath autodiff provides.
pub(super) trait RmsNormGradient: RmsNormBackend {
    /// Gradients of `inputs`: x and gamma.
    fn rms_norm_bwd(
        inputs: [FloatTensor<Self>; 2],
        d_y: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

impl<B: RmsNormGradient, C: CheckpointStrategy> RmsNormBackend for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct RmsNormBackward;

        impl<B: RmsNormGradient> Backward<B, 2> for RmsNormBackward {
            /// The inputs, from which the roots are computed again.
            type State = [FloatTensor<B>; 2];

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_y = gradients.consume::<B>(&ops.node);
                let d_inputs = B::rms_norm_bwd(ops.state, d_y);
                for (parent, gradient) in ops.parents.into_iter().zip(d_inputs) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [x.node(), gamma.node()];
        let inputs = [x.into_primitive(), gamma.into_primitive()];
        let [x, gamma] = inputs.clone();
        let y = B::rms_norm(x, gamma);
        match RmsNormBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(inputs, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl RmsNormBackend for Flex {
    fn rms_norm(x: FlexTensor, gamma: FlexTensor) -> FlexTensor {
        let [x, gamma] = [x, gamma].map(|t| t.to_contiguous());
        with_real!(x, T => {
            filled(x.shape(), |y| cpu::forward::<T>(x.storage(), gamma.storage(), y))
        })
    }
}

impl RmsNormGradient for Flex {
    fn rms_norm_bwd(inputs: [FlexTensor; 2], d_y: FlexTensor) -> [FlexTensor; 2] {
        let [x, gamma] = inputs.map(|t| t.to_contiguous());
        let d_y = d_y.to_contiguous();
        with_real!(x, T => {
            let mut d_gamma = output::<T>(gamma.shape());
            let d_x = filled(x.shape(), |d_x| {
                let d_gamma = d_gamma.storage_mut();
                cpu::backward::<T>(x.storage(), gamma.storage(), d_y.storage(), d_x, d_gamma);
            });
            [d_x, d_gamma]
        })
    }
}
