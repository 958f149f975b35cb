//! The plug into burn: dispatch to the backends, the graph node, and the CPU backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::{Activation, cpu};
use crate::ops::flex::{Real, filled, output, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait CausalConvBackend: Backend {
    fn causal_conv_infer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        x0: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    fn causal_conv_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        x0: FloatTensor<Self>,
        d_x_last: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        drop(d_x_last); // enters the gradients alone
        Self::causal_conv_infer(x, weight, bias, x0, activation)
    }
}

/// What a backend beneath autodiff provides.
pub(super) trait CausalConvGradient: CausalConvBackend {
    /// Gradients of `inputs`: x, weight, bias, x0.
    fn causal_conv_bwd(
        inputs: [FloatTensor<Self>; 4],
        d_y: FloatTensor<Self>,
        d_x_last: FloatTensor<Self>,
        activation: Activation,
    ) -> [FloatTensor<Self>; 4];
}

impl<B: CausalConvGradient, C: CheckpointStrategy> CausalConvBackend for Autodiff<B, C> {
    fn causal_conv_infer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        x0: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::causal_conv_infer(
            x.into_primitive(),
            weight.into_primitive(),
            bias.into_primitive(),
            x0.into_primitive(),
            activation,
        ))
    }

    fn causal_conv_train(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        x0: FloatTensor<Self>,
        d_x_last: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct CausalConvBackward;

        impl<B: CausalConvGradient> Backward<B, 4> for CausalConvBackward {
            /// The inputs, from which the pre-activation is computed again, and `d_x_last`.
            type State = ([FloatTensor<B>; 4], FloatTensor<B>, Activation);

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_y = gradients.consume::<B>(&ops.node);
                let (inputs, d_x_last, activation) = ops.state;
                let d_inputs = B::causal_conv_bwd(inputs, d_y, d_x_last, activation);
                for (parent, gradient) in ops.parents.into_iter().zip(d_inputs) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [x.node(), weight.node(), bias.node(), x0.node()];
        let inputs = [
            x.into_primitive(),
            weight.into_primitive(),
            bias.into_primitive(),
            x0.into_primitive(),
        ];
        let [x, weight, bias, x0] = inputs.clone();
        let y = B::causal_conv_infer(x, weight, bias, x0, activation);
        match CausalConvBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                prep.finish((inputs, d_x_last.into_primitive(), activation), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl CausalConvBackend for Flex {
    fn causal_conv_infer(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        x0: FlexTensor,
        activation: Activation,
    ) -> FlexTensor {
        let tensors = [x, weight, bias, x0].map(|t| t.to_contiguous());
        with_real!(tensors[0], T => {
            let inputs = inputs::<T>(&tensors, activation);
            filled(tensors[0].shape(), |y| cpu::forward(&inputs, y))
        })
    }
}

impl CausalConvGradient for Flex {
    fn causal_conv_bwd(
        tensors: [FlexTensor; 4],
        d_y: FlexTensor,
        d_x_last: FlexTensor,
        activation: Activation,
    ) -> [FlexTensor; 4] {
        let tensors = tensors.map(|t| t.to_contiguous());
        let [d_y, d_x_last] = [d_y, d_x_last].map(|t| t.to_contiguous());
        with_real!(tensors[0], T => {
            let mut gradients = tensors.each_ref().map(|t| output::<T>(t.shape()));
            let [d_x, d_weight, d_bias, d_x0] = gradients.each_mut().map(FlexTensor::storage_mut::<T>);
            cpu::backward(
                &inputs(&tensors, activation),
                d_y.storage(),
                d_x_last.storage(),
                cpu::Gradients { d_x, d_weight, d_bias, d_x0 },
            );
            gradients
        })
    }
}

fn inputs<T: Real>(tensors: &[FlexTensor; 4], activation: Activation) -> cpu::Inputs<'_, T> {
    let [_, seq_len, channels] = tensors[0].shape().dims();
    let [_, d_conv] = tensors[1].shape().dims();
    let [x, weight, bias, x0] = tensors.each_ref().map(FlexTensor::storage);
    cpu::Inputs {
        seq_len,
        channels,
        d_conv,
        activation,
        x,
        weight,
        bias,
        x0,
    }
}
