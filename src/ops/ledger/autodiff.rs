//! The identity node that registers a gradient.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use super::Entry;

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait LedgerBackend: Backend {
    /// `x`; a gradient that reaches it in a graph registers `entry` on its way.
    fn passing(x: FloatTensor<Self>, entry: Entry) -> FloatTensor<Self> {
        drop(entry); // without a graph no gradient comes
        x
    }
}

impl LedgerBackend for CubeBackend {}
impl LedgerBackend for Flex {}

impl<B: LedgerBackend, C: CheckpointStrategy> LedgerBackend for Autodiff<B, C> {
    fn passing(x: FloatTensor<Self>, entry: Entry) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Passing;

        impl<B: Backend> Backward<B, 1> for Passing {
            type State = Entry;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                if let [Some(node)] = ops.parents {
                    ops.state.register();
                    gradients.register::<B>(node.id, gradient);
                }
            }
        }

        let node = x.node();
        let x = x.into_primitive();
        match Passing.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(entry, x),
            OpsKind::UnTracked(prep) => prep.finish(x),
        }
    }
}
