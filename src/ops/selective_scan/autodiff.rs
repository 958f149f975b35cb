//! The plug into burn: dispatch to the backends, the graph node, and the CPU backend's tensors.
//!
//! Here and below, channels are fastest in every tensor: `a` is `[d_state, d_inner]`, a state
//! `[batch, d_state, d_inner]`.

#![allow(
    clippy::too_many_arguments,
    reason = "the dispatch of burn takes tensors one by one"
)]

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::cpu;
use crate::ops::flex::{Real, output, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait SelectiveScanBackend: Backend {
    /// `y`, and the states before each chunk and after the last,
    /// `[batch, n_chunks + 1, d_state, d_inner]`.
    fn selective_scan_infer(
        u: FloatTensor<Self>,
        delta_raw: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        h0: FloatTensor<Self>,
        softplus: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    fn selective_scan_train(
        u: FloatTensor<Self>,
        delta_raw: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        h0: FloatTensor<Self>,
        d_h_last: FloatTensor<Self>,
        softplus: bool,
    ) -> FloatTensor<Self> {
        drop(d_h_last); // enters the gradients alone
        Self::selective_scan_infer(u, delta_raw, a, b, c, h0, softplus).0
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct Saved<B: Backend> {
    /// u, `delta_raw`, a, b, c.
    pub(super) inputs: [FloatTensor<B>; 5],
    /// The states at chunk boundaries, from which those between are computed again.
    pub(super) states: FloatTensor<B>,
    pub(super) d_h_last: FloatTensor<B>,
    pub(super) softplus: bool,
}

/// What a backend beneath autodiff provides.
pub(super) trait SelectiveScanGradient: SelectiveScanBackend {
    /// Gradients of u, `delta_raw`, a, b, c and h0.
    fn selective_scan_bwd(saved: Saved<Self>, d_y: FloatTensor<Self>) -> [FloatTensor<Self>; 6];
}

impl<B: SelectiveScanGradient, C: CheckpointStrategy> SelectiveScanBackend for Autodiff<B, C> {
    fn selective_scan_infer(
        u: FloatTensor<Self>,
        delta_raw: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        h0: FloatTensor<Self>,
        softplus: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (y, states) = B::selective_scan_infer(
            u.into_primitive(),
            delta_raw.into_primitive(),
            a.into_primitive(),
            b.into_primitive(),
            c.into_primitive(),
            h0.into_primitive(),
            softplus,
        );
        (
            FloatTensor::<Self>::new(y),
            FloatTensor::<Self>::new(states),
        )
    }

    fn selective_scan_train(
        u: FloatTensor<Self>,
        delta_raw: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        h0: FloatTensor<Self>,
        d_h_last: FloatTensor<Self>,
        softplus: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SelectiveScanBackward;

        impl<B: SelectiveScanGradient> Backward<B, 6> for SelectiveScanBackward {
            type State = Saved<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 6>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_y = gradients.consume::<B>(&ops.node);
                let d_inputs = B::selective_scan_bwd(ops.state, d_y);
                for (parent, gradient) in ops.parents.into_iter().zip(d_inputs) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [
            u.node(),
            delta_raw.node(),
            a.node(),
            b.node(),
            c.node(),
            h0.node(),
        ];
        let inputs = [
            u.into_primitive(),
            delta_raw.into_primitive(),
            a.into_primitive(),
            b.into_primitive(),
            c.into_primitive(),
        ];
        let [u, delta_raw, a, b, c] = inputs.clone();
        let h0 = h0.into_primitive();
        let (y, states) = B::selective_scan_infer(u, delta_raw, a, b, c, h0, softplus);
        match SelectiveScanBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let d_h_last = d_h_last.into_primitive();
                prep.finish(
                    Saved {
                        inputs,
                        states,
                        d_h_last,
                        softplus,
                    },
                    y,
                )
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl SelectiveScanBackend for Flex {
    fn selective_scan_infer(
        u: FlexTensor,
        delta_raw: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        c: FlexTensor,
        h0: FlexTensor,
        softplus: bool,
    ) -> (FlexTensor, FlexTensor) {
        let inputs = [u, delta_raw, a, b, c].map(|t| t.to_contiguous());
        let h0 = h0.to_contiguous();
        let dims = dims(&inputs);
        let states = [dims.batch, dims.n_chunks() + 1, dims.d_state, dims.d_inner];
        with_real!(h0, T => {
            let mut y = output::<T>(inputs[0].shape());
            let mut states = output::<T>(states);
            cpu::forward::<T>(
                dims,
                slices(&inputs, softplus),
                h0.storage(),
                y.storage_mut(),
                states.storage_mut(),
            );
            (y, states)
        })
    }
}

impl SelectiveScanGradient for Flex {
    fn selective_scan_bwd(saved: Saved<Self>, d_y: FlexTensor) -> [FlexTensor; 6] {
        let inputs = saved.inputs.map(|t| t.to_contiguous());
        let [states, d_y, d_h_last] =
            [saved.states, d_y, saved.d_h_last].map(|t| t.to_contiguous());
        let dims = dims(&inputs);
        with_real!(d_y, T => {
            let [u, delta_raw, a, b, c] = inputs.each_ref();
            let mut gradients = [u, delta_raw, a, b, c, &d_h_last]
                .map(|like| output::<T>(like.shape()));
            let [u, delta_raw, a, b, c, h0] =
                gradients.each_mut().map(FlexTensor::storage_mut::<T>);
            cpu::backward(
                dims,
                slices(&inputs, saved.softplus),
                states.storage(),
                d_y.storage(),
                d_h_last.storage(),
                cpu::Gradients { u, delta_raw, a, b, c, h0 },
            );
            gradients
        })
    }
}

fn dims([u, _, a, _, _]: &[FlexTensor; 5]) -> cpu::Dims {
    let [batch, seq, d_inner] = u.shape().dims();
    let [d_state, _] = a.shape().dims();
    cpu::Dims {
        batch,
        seq,
        d_inner,
        d_state,
    }
}

fn slices<T: Real>(tensors: &[FlexTensor; 5], softplus: bool) -> cpu::Inputs<'_, T> {
    let [u, delta_raw, a, b, c] = tensors.each_ref().map(FlexTensor::storage);
    cpu::Inputs {
        u,
        delta_raw,
        a,
        b,
        c,
        softplus,
    }
}
