//! Causal attention whose scores never exist all at once.
//!
//! Queries go in chunks of rows against the keys up to their last one; the backward pass computes the weights of a chunk
//! again. No kernel of ours: matrix products and softmax are burn's, on every device. `docs/attention.md`.

mod autodiff;
mod cost;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::ledger::{self, Op};
use crate::{Error, Result};
use autodiff::AttentionBackend;

/// Scores of one chunk in elements, 16 MiB of `f32`, where there is more than one row of them.
const SCORES_AT_ONCE: usize = 1 << 22;
/// Most rows of queries in a chunk.
const MAX_QUERY_ROWS: usize = 128;

/// Rows of queries in a chunk, for so many heads of all sequences and so many positions. It follows from sizes
/// alone, so that no device changes a result.
pub fn query_rows(n_heads: usize, seq: usize) -> usize {
    (SCORES_AT_ONCE / (n_heads * seq)).clamp(1, MAX_QUERY_ROWS)
}

/// `softmax(q k^T / sqrt(width)) v` of every head, each position with itself and those before it (Vaswani et al.
/// 2017). `q`, `k`, `v` and the result are `[batch, heads, seq, width]`; `f32`, or `f64` on the CPU.
///
/// # Errors
/// [`Error::Shape`] when they are empty or differ in shape.
pub fn causal(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Result<Tensor<4>> {
    let dims = q.dims();
    for (arg, got) in [("q", dims), ("k", k.dims()), ("v", v.dims())] {
        if got != dims || got.contains(&0) {
            return Err(Error::Shape {
                op: "attention",
                arg,
                expected: format!("{dims:?} as q, and none of them 0"),
                got: got.to_vec(),
            });
        }
    }
    let [batch, heads, seq, width] = dims;
    let y = Dispatch::attention(q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    let op = Op::Attention {
        batch,
        seq,
        heads,
        width,
    };
    let executed = |pass| cost::executed([batch * heads, seq, width], pass);
    Ok(ledger::counted_as(Tensor::from_dispatch(y), op, executed))
}

/// Every chunk of queries: its first row, and the one after its last.
fn chunks(n_heads: usize, seq: usize) -> impl Iterator<Item = (usize, usize)> {
    let rows = query_rows(n_heads, seq);
    (0..seq)
        .step_by(rows)
        .map(move |first| (first, seq.min(first + rows)))
}
