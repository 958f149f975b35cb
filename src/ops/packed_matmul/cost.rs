//! What is registered, and what the kernels execute, read off them: codes times scales, and tiles that are filled up.

use burn::tensor::Device;

use super::DECODE_TOKENS;
use super::cpu::{CHUNK, LANES, TASK};
use super::wgsl::{LANES as DECODE_LANES, TILE};
use crate::hardware::adapter_of;
use crate::ops::ledger::{Op, register_as};
use crate::quant::Layout;
use crate::results::FlopsPass;

/// `tokens` rows times a packed matrix.
pub(super) fn product(tokens: usize, layout: Layout, device: &Device) {
    let Layout { rows, columns, .. } = layout;
    let op = Op::MatrixProduct {
        rows: tokens,
        inner: columns,
        columns: rows,
    };
    register_as(op, FlopsPass::Forward, || {
        let on_adapter = adapter_of(device).is_some();
        let executed = match (tokens < DECODE_TOKENS, on_adapter) {
            // A scale a group and lane, and the lanes' sum.
            (true, false) => {
                let groups = layout.groups_per_row().max(1);
                let dot = 2 * columns.next_multiple_of(CHUNK) + (2 * groups + 1) * LANES;
                tokens * rows * dot
            }
            // A scale a word.
            (true, true) => {
                tokens * rows * (2 * (columns + layout.words_per_row()) + DECODE_LANES as usize)
            }
            // A scale a weight and task.
            (false, false) => {
                let weights = rows.next_multiple_of(LANES) * columns;
                (tokens.div_ceil(TASK) + 2 * tokens) * weights
            }
            (false, true) => {
                let weights = rows.next_multiple_of(TILE) * columns.next_multiple_of(TILE);
                tokens.div_ceil(TILE) * weights * (1 + 2 * TILE)
            }
        };
        executed as u64
    });
}

/// So many rows of a packed matrix: a code times a scale each.
pub(super) fn gather(rows: usize, layout: Layout) {
    let width = layout.columns;
    let executed = || (rows * width) as u64;
    register_as(Op::Gather { rows, width }, FlopsPass::Forward, executed);
}
