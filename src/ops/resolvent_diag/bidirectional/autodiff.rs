//! The plug into burn: dispatch to the backends, the graph nodes, and the CPU backend's tensors.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use crate::ops::flex::{Real, filled, output, with_real};
use crate::ops::resolvent_diag::cpu::{Dims, bidirectional as cpu};
use crate::ops::resolvent_diag::{Bounds, Plan};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait BidirectionalBackend: Backend {
    /// `coupling` is `[1, 1, 1]` where one value holds everywhere.
    fn bidirectional(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self>;

    /// The same, but for its place in a graph.
    fn bidirectional_published(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self> {
        Self::bidirectional(diag, coupling, shift, bounds)
    }
}

/// What the exact backward pass needs. g and r are computed again: they would be twice the output.
#[derive(Debug, Clone)]
pub(super) struct Saved<B: Backend> {
    pub(super) diag: FloatTensor<B>,
    pub(super) coupling: FloatTensor<B>,
    pub(super) shift: FloatTensor<B>,
    /// The output, which whatever reads it keeps alive anyway.
    pub(super) full: FloatTensor<B>,
    pub(super) bounds: Bounds,
}

/// What a backend beneath autodiff provides.
pub(super) trait BidirectionalGradient: BidirectionalBackend {
    /// Gradients by diag, coupling and shift. That of a constant coupling is never read.
    fn bidirectional_bwd(saved: Saved<Self>, d_full: FloatTensor<Self>) -> [FloatTensor<Self>; 3];

    /// The published gradient by diag, from the output and its cotangent.
    fn bidirectional_published_bwd(
        full: FloatTensor<Self>,
        d_full: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: BidirectionalGradient, C: CheckpointStrategy> BidirectionalBackend for Autodiff<B, C> {
    fn bidirectional(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Exact;

        impl<B: BidirectionalGradient> Backward<B, 3> for Exact {
            type State = Saved<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_full = gradients.consume::<B>(&ops.node);
                let d_inputs = B::bidirectional_bwd(ops.state, d_full);
                for (parent, gradient) in ops.parents.into_iter().zip(d_inputs) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [&diag, &coupling, &shift].map(FloatTensor::<Self>::node);
        let [diag, coupling, shift] =
            [diag, coupling, shift].map(FloatTensor::<Self>::into_primitive);
        let full = B::bidirectional(diag.clone(), coupling.clone(), shift.clone(), bounds);
        match Exact.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let saved = Saved {
                    diag,
                    coupling,
                    shift,
                    full: full.clone(),
                    bounds,
                };
                prep.finish(saved, full)
            }
            OpsKind::UnTracked(prep) => prep.finish(full),
        }
    }

    fn bidirectional_published(
        diag: FloatTensor<Self>,
        coupling: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        bounds: Bounds,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Published;

        impl<B: BidirectionalGradient> Backward<B, 1> for Published {
            /// The output.
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_full = gradients.consume::<B>(&ops.node);
                if let [Some(node)] = ops.parents {
                    let d_diag = B::bidirectional_published_bwd(ops.state, d_full);
                    gradients.register::<B>(node.id, d_diag);
                }
            }
        }

        let node = diag.node();
        let [diag, coupling, shift] =
            [diag, coupling, shift].map(FloatTensor::<Self>::into_primitive);
        let full = B::bidirectional(diag, coupling, shift, bounds);
        match Published.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(full.clone(), full),
            OpsKind::UnTracked(prep) => prep.finish(full),
        }
    }
}

impl BidirectionalBackend for Flex {
    fn bidirectional(
        diag: FlexTensor,
        coupling: FlexTensor,
        shift: FlexTensor,
        bounds: Bounds,
    ) -> FlexTensor {
        let tensors = [diag, coupling, shift].map(|t| t.to_contiguous());
        let [batch, seq, heads] = tensors[0].shape().dims();
        with_real!(tensors[0], T => {
            let matrices = matrices::<T>(&tensors, [batch, seq, heads], bounds);
            filled([batch, seq, 2 * heads], |full| cpu::forward(&matrices, full))
        })
    }
}

impl BidirectionalGradient for Flex {
    fn bidirectional_bwd(saved: Saved<Self>, d_full: FlexTensor) -> [FlexTensor; 3] {
        let Saved {
            diag,
            coupling,
            shift,
            full,
            bounds,
        } = saved;
        let tensors = [diag, coupling, shift].map(|t| t.to_contiguous());
        let [full, d_full] = [full, d_full].map(|t| t.to_contiguous());
        let [batch, seq, heads] = tensors[0].shape().dims();
        with_real!(tensors[0], T => {
            let matrices = matrices::<T>(&tensors, [batch, seq, heads], bounds);
            let shapes = tensors.each_ref().map(FlexTensor::shape);
            let mut gradients = shapes.map(output::<T>);
            let [d_diag, d_coupling, d_shift] =
                gradients.each_mut().map(FlexTensor::storage_mut::<T>);
            // One constant has no gradient.
            let varies = matrices.coupling.len() == d_diag.len();
            let d_coupling = if varies { d_coupling } else { &mut [] };
            let out = cpu::Gradients { d_diag, d_coupling, d_shift };
            cpu::backward(&matrices, full.storage(), d_full.storage(), out);
            gradients
        })
    }

    fn bidirectional_published_bwd(full: FlexTensor, d_full: FlexTensor) -> FlexTensor {
        let [full, d_full] = [full, d_full].map(|t| t.to_contiguous());
        let [batch, seq, width] = full.shape().dims();
        with_real!(full, T => {
            filled([batch, seq, width / 2], |d_diag| {
                cpu::published::<T>(width / 2, full.storage(), d_full.storage(), d_diag);
            })
        })
    }
}

fn matrices<T: Real>(
    [diag, coupling, shift]: &[FlexTensor; 3],
    [batch, seq, heads]: [usize; 3],
    bounds: Bounds,
) -> cpu::Matrices<'_, T> {
    cpu::Matrices {
        dims: Dims { batch, seq, heads },
        plan: Plan::independent(T::BITS, bounds.eta_min, bounds.p_max, seq),
        diag: diag.storage(),
        coupling: coupling.storage(),
        shift: shift.storage(),
    }
}
