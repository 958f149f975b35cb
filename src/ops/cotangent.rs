//! The start of a backward pass at a given cotangent, without work of its own: what a kernel's gradient costs can then
//! be timed by itself.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Slice, Tensor};

/// One element of `y`; its backward pass, whatever comes to it, hands `d_y`, of the shape of `y`, on to `y`.
pub fn given<const D: usize>(y: Tensor<D>, d_y: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::given_cotangent(
        y.into_dispatch(),
        d_y.into_dispatch(),
    ))
}

#[backend_extension(Autodiff, Cube, Flex)]
trait CotangentBackend: Backend {
    fn given_cotangent(y: FloatTensor<Self>, d_y: FloatTensor<Self>) -> FloatTensor<Self> {
        drop(d_y); // without a graph no gradient comes
        let first = vec![Slice::from(0..1); y.shape().num_dims()];
        Self::float_slice(y, &first)
    }
}

impl CotangentBackend for CubeBackend {}
impl CotangentBackend for Flex {}

impl<B: CotangentBackend, C: CheckpointStrategy> CotangentBackend for Autodiff<B, C> {
    fn given_cotangent(y: FloatTensor<Self>, d_y: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Given;

        impl<B: Backend> Backward<B, 1> for Given {
            /// The cotangent.
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                drop(gradients.consume::<B>(&ops.node));
                if let [Some(node)] = ops.parents {
                    gradients.register::<B>(node.id, ops.state);
                }
            }
        }

        let node = y.node();
        let d_y = d_y.into_primitive();
        let first = B::given_cotangent(y.into_primitive(), d_y.clone());
        match Given.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(d_y, first),
            OpsKind::UnTracked(prep) => prep.finish(first),
        }
    }
}
