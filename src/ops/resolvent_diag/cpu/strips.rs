//! Which recurrences run side by side.

use super::lanes::LANES;
use super::{Dims, Plan};

/// Sixteen recurrences of one batch row; `lanes` of them are real.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip {
    pub(super) dims: Dims,
    pub(super) chunk: usize,
    pub(super) batch: usize,
    /// Chunk of lane 0.
    pub(super) first: usize,
    /// Head of lane 0.
    pub(super) head: usize,
    pub(super) by_head: bool,
    pub(super) lanes: usize,
}

impl Strip {
    /// Chunk and head of a lane.
    #[inline(always)]
    pub(super) fn lane(&self, l: usize) -> (usize, usize) {
        if self.by_head {
            (self.first, self.head + l)
        } else {
            (self.first + l, self.head)
        }
    }

    /// The row of the sequence where lane 0's step `t` lies, `t` counted from the start of its chunk.
    #[inline(always)]
    pub(super) fn row(&self, t: isize) -> isize {
        (self.first * self.chunk) as isize + t
    }

    /// As [`Strip::row`], where the sequence has it.
    #[inline(always)]
    pub(super) fn row_in_range(&self, t: isize) -> Option<usize> {
        usize::try_from(self.row(t))
            .ok()
            .filter(|&row| row < self.dims.seq)
    }

    /// Whether all lanes and all rows of the tile at `t` exist.
    #[inline(always)]
    pub(super) fn whole(&self, t: isize) -> bool {
        let spread = if self.by_head {
            0
        } else {
            (LANES - 1) * self.chunk
        };
        let start = self.row(t);
        self.lanes == LANES && start >= 0 && start as usize + spread + LANES <= self.dims.seq
    }
}

/// A run of rows that one task works on: every head of one chunk, or of two strips of chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) dims: Dims,
    pub(super) plan: Plan,
    pub(super) by_head: bool,
}

impl Blocks {
    pub(super) fn new(dims: Dims, plan: Plan) -> Self {
        Self {
            dims,
            plan,
            by_head: dims.heads >= LANES / 2,
        }
    }

    pub(super) fn n_chunks(&self) -> usize {
        self.plan.n_chunks(self.dims.seq)
    }

    /// Chunks a block.
    pub(super) fn chunks(&self) -> usize {
        if self.by_head { 1 } else { 2 * LANES }
    }

    /// Lanes of the strips of a block.
    pub(super) fn lanes(&self) -> usize {
        if self.by_head {
            self.dims.heads.next_multiple_of(2 * LANES)
        } else {
            self.dims.heads * 2 * LANES
        }
    }

    /// Blocks a batch row.
    pub(super) fn count(&self) -> usize {
        self.n_chunks().div_ceil(self.chunks())
    }

    /// The strips of block `index` (batch rows outermost), in pairs; an odd one gets an idle partner.
    pub(super) fn strips(&self, index: usize) -> Vec<[Strip; 2]> {
        let (batch, block) = (index / self.count(), index % self.count());
        let first = block * self.chunks();
        let strip = |first: usize, head: usize| {
            let left = if self.by_head {
                self.dims.heads.saturating_sub(head)
            } else {
                self.n_chunks().saturating_sub(first)
            };
            let (dims, chunk, by_head) = (self.dims, self.plan.chunk, self.by_head);
            let lanes = left.min(LANES);
            Strip {
                dims,
                chunk,
                batch,
                first,
                head,
                by_head,
                lanes,
            }
        };
        if self.by_head {
            let heads = (0..self.dims.heads).step_by(2 * LANES);
            heads
                .map(|head| [strip(first, head), strip(first, head + LANES)])
                .collect()
        } else {
            let heads = 0..self.dims.heads;
            heads
                .map(|head| [strip(first, head), strip(first + LANES, head)])
                .collect()
        }
    }

    /// Cuts `x`, which has `rows` rows a batch row, into the parts that belong to the blocks in order,
    /// `rows_per_block` rows each.
    pub(super) fn split<'a, X>(
        &self,
        x: &'a mut [X],
        rows: usize,
        rows_per_block: usize,
    ) -> Vec<&'a mut [X]> {
        let width = x.len() / (self.dims.batch * rows);
        x.chunks_mut(rows * width)
            .flat_map(|x| x.chunks_mut(rows_per_block * width))
            .collect()
    }
}
