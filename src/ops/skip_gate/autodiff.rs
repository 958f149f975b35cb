//! The plug into burn: dispatch to the backends, the graph node, and the CPU backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::cpu;
use crate::ops::flex::{Real, filled, output, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait SkipGateBackend: Backend {
    fn skip_gate(
        y: FloatTensor<Self>,
        u: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        z: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// What a backend beneath autodiff provides.
pub(super) trait SkipGateGradient: SkipGateBackend {
    /// Gradients of `inputs`: y, u, skip, z.
    fn skip_gate_bwd(
        inputs: [FloatTensor<Self>; 4],
        d_out: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 4];
}

impl<B: SkipGateGradient, C: CheckpointStrategy> SkipGateBackend for Autodiff<B, C> {
    fn skip_gate(
        y: FloatTensor<Self>,
        u: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        z: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SkipGateBackward;

        impl<B: SkipGateGradient> Backward<B, 4> for SkipGateBackward {
            /// The inputs, from which the gate is computed again.
            type State = [FloatTensor<B>; 4];

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_out = gradients.consume::<B>(&ops.node);
                let d_inputs = B::skip_gate_bwd(ops.state, d_out);
                for (parent, gradient) in ops.parents.into_iter().zip(d_inputs) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [y.node(), u.node(), skip.node(), z.node()];
        let inputs = [
            y.into_primitive(),
            u.into_primitive(),
            skip.into_primitive(),
            z.into_primitive(),
        ];
        let [y, u, skip, z] = inputs.clone();
        let out = B::skip_gate(y, u, skip, z);
        match SkipGateBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(inputs, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

impl SkipGateBackend for Flex {
    fn skip_gate(y: FlexTensor, u: FlexTensor, skip: FlexTensor, z: FlexTensor) -> FlexTensor {
        let tensors = [y, u, skip, z].map(|t| t.to_contiguous());
        with_real!(tensors[0], T => {
            filled(tensors[0].shape(), |out| cpu::forward::<T>(&inputs(&tensors), out))
        })
    }
}

impl SkipGateGradient for Flex {
    fn skip_gate_bwd(tensors: [FlexTensor; 4], d_out: FlexTensor) -> [FlexTensor; 4] {
        let tensors = tensors.map(|t| t.to_contiguous());
        let d_out = d_out.to_contiguous();
        with_real!(tensors[0], T => {
            let mut gradients = tensors.each_ref().map(|t| output::<T>(t.shape()));
            let [d_y, d_u, d_skip, d_z] = gradients.each_mut().map(FlexTensor::storage_mut::<T>);
            let into = cpu::Gradients { d_y, d_u, d_skip, d_z };
            cpu::backward(&inputs(&tensors), d_out.storage(), into);
            gradients
        })
    }
}

fn inputs<T: Real>(tensors: &[FlexTensor; 4]) -> cpu::Inputs<'_, T> {
    let [y, u, skip, z] = tensors.each_ref().map(FlexTensor::storage);
    cpu::Inputs { y, u, skip, z }
}
