//! The plug into burn, in its own operations: queries, keys and values are all that a graph keeps.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::CubeBackend;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Slice, TensorData};

use super::chunks;

/// What a score of a later position is lowered by: its weight is 0 all the same, and no infinity meets another.
const MASKED: f32 = -1e30;

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait AttentionBackend: Backend {
    /// [`causal`](super::causal).
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        forward::<Self>(&q, &k, &v)
    }
}

impl AttentionBackend for CubeBackend {}
impl AttentionBackend for Flex {}

fn forward<B: Backend>(
    q: &FloatTensor<B>,
    k: &FloatTensor<B>,
    v: &FloatTensor<B>,
) -> FloatTensor<B> {
    let mut y = Vec::new();
    for (first, end) in chunks_of::<B>(q) {
        let weights = weights::<B>(q, k, first, end);
        y.push(B::float_matmul(weights, rows::<B>(v, 0, end)));
    }
    B::float_cat(y, 2)
}

/// Gradients by queries, keys and values.
fn backward<B: Backend>(
    [q, k, v]: &[FloatTensor<B>; 3],
    d_y: &FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let mut d_q = Vec::new();
    let zeros = || B::float_zeros(k.shape(), &k.device(), k.dtype().into());
    let (mut d_k, mut d_v) = (zeros(), zeros());
    for (first, end) in chunks_of::<B>(q) {
        let weights = weights::<B>(q, k, first, end);
        let d_y = rows::<B>(d_y, first, end);
        let more = B::float_matmul(B::float_transpose(weights.clone()), d_y.clone());
        d_v = add_rows::<B>(d_v, more, end);
        let v_t = B::float_transpose(rows::<B>(v, 0, end));
        let d_weights = B::float_matmul(d_y, v_t);
        let dot = B::float_sum_dim(B::float_mul(weights.clone(), d_weights.clone()), 3);
        let d_scores = B::float_mul(weights, B::float_sub(d_weights, dot));
        let d_scores = B::float_mul_scalar(d_scores, scale::<B>(q).into());
        d_q.push(B::float_matmul(d_scores.clone(), rows::<B>(k, 0, end)));
        let more = B::float_matmul(B::float_transpose(d_scores), rows::<B>(q, first, end));
        d_k = add_rows::<B>(d_k, more, end);
    }
    [B::float_cat(d_q, 2), d_k, d_v]
}

/// Of the queries `first..end` for the positions `0..end`.
fn weights<B: Backend>(
    q: &FloatTensor<B>,
    k: &FloatTensor<B>,
    first: usize,
    end: usize,
) -> FloatTensor<B> {
    let k_t = B::float_transpose(rows::<B>(k, 0, end));
    let scores = B::float_matmul(rows::<B>(q, first, end), k_t);
    let scores = B::float_mul_scalar(scores, scale::<B>(q).into());
    // Every query of the chunk may read all positions before the chunk.
    let n = end - first;
    let mut square = slices(&scores.shape(), 0, n);
    square[3] = Slice::from(first..end);
    let later = |row: usize| (0..n).map(move |at| if at > row { MASKED } else { 0.0 });
    let mask: Vec<f32> = (0..n).flat_map(later).collect();
    let mask = TensorData::new(mask, [1, 1, n, n]).convert_dtype(q.dtype());
    let mask = B::float_from_data(mask, &q.device());
    let masked = B::float_add(B::float_slice(scores.clone(), &square), mask);
    B::softmax(B::float_slice_assign(scores, &square, masked), 3)
}

fn scale<B: Backend>(q: &FloatTensor<B>) -> f64 {
    (q.shape()[3] as f64).sqrt().recip()
}

fn chunks_of<B: Backend>(q: &FloatTensor<B>) -> impl Iterator<Item = (usize, usize)> {
    let shape = q.shape();
    chunks(shape[0] * shape[1], shape[2])
}

fn slices(shape: &[usize], first: usize, end: usize) -> [Slice; 4] {
    [0..shape[0], 0..shape[1], first..end, 0..shape[3]].map(Slice::from)
}

/// The positions `first..end` of all heads.
fn rows<B: Backend>(x: &FloatTensor<B>, first: usize, end: usize) -> FloatTensor<B> {
    B::float_slice(x.clone(), &slices(&x.shape(), first, end))
}

/// `sum` with `more` added to its positions `0..end`.
fn add_rows<B: Backend>(sum: FloatTensor<B>, more: FloatTensor<B>, end: usize) -> FloatTensor<B> {
    let prefix = slices(&sum.shape(), 0, end);
    let more = B::float_add(B::float_slice(sum.clone(), &prefix), more);
    B::float_slice_assign(sum, &prefix, more)
}

impl<B: AttentionBackend, C: CheckpointStrategy> AttentionBackend for Autodiff<B, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AttentionBackward;

        impl<B: Backend> Backward<B, 3> for AttentionBackward {
            /// Queries, keys and values.
            type State = [FloatTensor<B>; 3];

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                gradients: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_y = gradients.consume::<B>(&ops.node);
                let all = backward::<B>(&ops.state, &d_y);
                for (parent, gradient) in ops.parents.into_iter().zip(all) {
                    if let Some(node) = parent {
                        gradients.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let nodes = [q.node(), k.node(), v.node()];
        let [q, k, v] = [q, k, v].map(FloatTensor::<Self>::into_primitive);
        let y = forward::<B>(&q, &k, &v);
        match AttentionBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish([q, k, v], y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
