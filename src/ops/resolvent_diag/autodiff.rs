//! The plug into burn: dispatch to the backends, the graph node, and the CPU backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::plan::Plan;
use super::{Bounds, cpu};
use crate::ops::flex::{Real, filled, output, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait ResolventDiagBackend: Backend {
    /// `coupling` is `[1, 1, 1]` where one value holds everywhere.
    fn resolvent_diag_infer(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        g0: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self>;

    /// Only a graph needs the cotangent of the final state.
    fn resolvent_diag_train(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        g0: FloatTensor<Self>,
        d_g_last: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self> {
        drop(d_g_last); // enters the gradients alone
        Self::resolvent_diag_infer(diag, coupling, shift, g0, bounds)
    }
}

/// What the backward pass needs. The matrix itself is not among it: every derivative is a function of g.
#[derive(Debug, Clone)]
pub(super) struct Saved<B: Backend> {
    pub(super) coupling: FloatTensor<B>,
    pub(super) g0: FloatTensor<B>,
    /// The output, which whatever reads it keeps alive anyway.
    pub(super) g: FloatTensor<B>,
    pub(super) d_g_last: FloatTensor<B>,
    pub(super) bounds: Bounds,
}

/// What a backend beneath autodiff provides.
pub(super) trait ResolventDiagGradient: ResolventDiagBackend {
    /// Gradients by diag, coupling, shift and g0. That of a constant coupling is never read.
    fn resolvent_diag_bwd(saved: Saved<Self>, d_g: FloatTensor<Self>) -> [FloatTensor<Self>; 4];
}

impl<B: ResolventDiagGradient, C: CheckpointStrategy> ResolventDiagBackend for Autodiff<B, C> {
    fn resolvent_diag_infer(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        g0: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self> {
        let [diag, coupling, shift, g0] =
            [diag, coupling, shift, g0].map(FloatTensor::<Self>::into_primitive);
        FloatTensor::<Self>::new(B::resolvent_diag_infer(diag, coupling, shift, g0, bounds))
    }

    fn resolvent_diag_train(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        g0: FloatTensor<Self>,
        d_g_last: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ResolventDiagBackward;

        impl<B: ResolventDiagGradient> Backward<B, 4> for ResolventDiagBackward {
            type State = Saved<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_g = gradients.consume::<B>(&ops.node);
                let d_inputs = B::resolvent_diag_bwd(ops.state, d_g);
                for (parent, gradient) in ops.parents.into_iter().zip(d_inputs) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [&diag, &coupling, &shift, &g0].map(FloatTensor::<Self>::node);
        let [diag, coupling, shift, g0, d_g_last] =
            [diag, coupling, shift, g0, d_g_last].map(FloatTensor::<Self>::into_primitive);
        let g = B::resolvent_diag_infer(diag, coupling.clone(), shift, g0.clone(), bounds);
        match ResolventDiagBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let saved = Saved {
                    coupling,
                    g0,
                    g: g.clone(),
                    d_g_last,
                    bounds,
                };
                prep.finish(saved, g)
            }
            OpsKind::UnTracked(prep) => prep.finish(g),
        }
    }
}

impl ResolventDiagBackend for Flex {
    fn resolvent_diag_infer(
        diag: FlexTensor,
        coupling: FlexTensor,
        shift: FlexTensor,
        g0: FlexTensor,
        bounds: Bounds,
    ) -> FlexTensor {
        let tensors = [diag, coupling, shift, g0].map(|t| t.to_contiguous());
        let [batch, seq, heads] = tensors[0].shape().dims();
        with_real!(tensors[0], T => {
            let [diag, coupling, shift, g0] = tensors.each_ref().map(FlexTensor::storage::<T>);
            let dims = cpu::Dims { batch, seq, heads };
            let plan = plan::<T>(bounds, seq);
            let inputs = cpu::Inputs { dims, plan, diag, coupling, shift, g0 };
            filled([batch, seq, 2 * heads], |g| cpu::forward(&inputs, g))
        })
    }
}

impl ResolventDiagGradient for Flex {
    fn resolvent_diag_bwd(saved: Saved<Self>, d_g: FlexTensor) -> [FlexTensor; 4] {
        let Saved {
            coupling,
            g0,
            g,
            d_g_last,
            bounds,
        } = saved;
        let tensors = [coupling, g0, g, d_g, d_g_last].map(|t| t.to_contiguous());
        let [batch, seq, width] = tensors[2].shape().dims();
        let heads = width / 2;
        with_real!(tensors[2], T => {
            let [coupling, g0, g, d_g, d_g_last] = tensors.each_ref().map(FlexTensor::storage::<T>);
            let dims = cpu::Dims { batch, seq, heads };
            let plan = plan::<T>(bounds, seq);
            let saved = cpu::Saved { dims, plan, coupling, g0, g, d_g, d_g_last };
            let shapes = [
                [batch, seq, heads].into(),
                tensors[0].shape(),
                [2, heads].into(),
                tensors[1].shape(),
            ];
            let mut gradients = shapes.map(output::<T>);
            let [d_diag, d_coupling, d_shift, d_g0] =
                gradients.each_mut().map(FlexTensor::storage_mut::<T>);
            // One constant has no gradient.
            let d_coupling = if coupling.len() == d_diag.len() { d_coupling } else { &mut [] };
            cpu::backward(&saved, cpu::Gradients { d_diag, d_coupling, d_shift, d_g0 });
            gradients
        })
    }
}

fn plan<T: Real>(bounds: Bounds, seq: usize) -> Plan {
    Plan::new(T::BITS, bounds.eta_min, bounds.p_max, seq)
}
