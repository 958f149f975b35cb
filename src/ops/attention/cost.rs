//! What the chunks execute.

use super::chunks;
use crate::ops::ledger::{attention_pair, attention_pair_back, attention_weight};
use crate::results::{COSTS, FlopsPass};

/// Every query of a chunk meets every key up to the chunk's last one, and a mask is added; the backward pass computes
/// the weights again.
pub(super) fn executed([n_heads, seq, width]: [usize; 3], pass: FlopsPass) -> u64 {
    let pairs: usize = chunks(n_heads, seq)
        .map(|(first, end)| (end - first) * end)
        .sum();
    let mask = COSTS.scalar;
    let pair = match pass {
        FlopsPass::Forward => attention_pair(width) + mask,
        FlopsPass::Backward => attention_weight(width) + mask + attention_pair_back(width),
        FlopsPass::Update => 0,
    };
    (n_heads * pairs) as u64 * pair
}
