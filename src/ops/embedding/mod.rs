//! Gathering rows of a matrix, with a gradient that is the same on every run: token embeddings, and the
//! tokens of an expert. How the gradient is summed: `docs/embedding.md`.
//!
//! Tensors are `f32` on every device, or `f64` on the CPU.

mod autodiff;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::ledger::{Op, counted_as};
use crate::results::FlopsPass;
use crate::{Error, Result};
use autodiff::EmbeddingBackend;

const OP: &str = "gather_rows";

/// Positions that one task sums; a row gathered more often is split into several groups.
const GROUP: u32 = 64;

/// Rows `ids` of `weight` `[rows, d]`, in that order, repeats allowed; `[ids, d]`. The gradient of a row is the
/// sum over its positions, in an order that depends on `ids` alone.
///
/// # Errors
/// [`Error::Shape`] when `ids` or `weight` is empty; [`Error::Domain`] for the first id that is not below `rows`.
pub fn gather_rows(weight: Tensor<2>, ids: &[u32]) -> Result<Tensor<2>> {
    let [rows, d] = weight.dims();
    let shape = |arg, expected: &str, got| {
        Err(Error::Shape {
            op: OP,
            arg,
            expected: expected.to_owned(),
            got,
        })
    };
    if rows * d == 0 {
        return shape("weight", "[rows, d], none of them 0", vec![rows, d]);
    }
    if ids.is_empty() {
        return shape("ids", "[at least one]", vec![0]);
    }
    if let Some(position) = ids.iter().position(|&id| id as usize >= rows) {
        return Err(Error::Domain {
            op: OP,
            arg: "ids",
            requirement: "below the number of rows",
            index: vec![position],
            value: f64::from(ids[position]),
        });
    }
    let op = Op::Gather {
        rows: ids.len(),
        width: d,
    };
    let y = Tensor::from_dispatch(Dispatch::gather_rows(weight.into_dispatch(), ids));
    Ok(counted_as(y, op, |pass| match pass {
        FlopsPass::Backward => op.cost(pass) + (Plan::new(ids, rows).n_groups() * d) as u64,
        _ => 0,
    }))
}

/// Which positions are summed into which row, in which order.
#[derive(Debug)]
pub struct Plan {
    /// Positions sorted by row, increasing within a row.
    order: Vec<u32>,
    /// Group g sums `order[bounds[g]..bounds[g + 1]]`, all of one row.
    bounds: Vec<u32>,
    /// Row r sums groups `row_groups[r]..row_groups[r + 1]`.
    row_groups: Vec<u32>,
}

impl Plan {
    /// Sums that are summed once more.
    fn n_groups(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The plan for a gather of `ids`, each below `rows`.
    pub fn new(ids: &[u32], rows: usize) -> Self {
        // ends[r]: where the next position of row r goes; starts as where the row begins.
        let mut ends = vec![0; rows + 1];
        for &id in ids {
            ends[id as usize + 1] += 1;
        }
        let (mut bounds, mut row_groups) = (vec![0], vec![0]);
        for row in 0..rows {
            let end = ends[row] + ends[row + 1];
            while bounds[bounds.len() - 1] < end {
                bounds.push(end.min(bounds[bounds.len() - 1] + GROUP));
            }
            row_groups.push(bounds.len() as u32 - 1);
            ends[row + 1] = end;
        }
        let mut order = vec![0; ids.len()];
        for (position, &id) in ids.iter().enumerate() {
            let next = &mut ends[id as usize];
            order[*next as usize] = position as u32;
            *next += 1;
        }
        Self {
            order,
            bounds,
            row_groups,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUP, Plan};

    #[test]
    fn plan_sorts_stably_and_splits_hot_rows() {
        let mut ids = vec![2, 0, 2, 2, 0];
        ids.extend(vec![3; GROUP as usize + 1]);
        let plan = Plan::new(&ids, 5);
        assert_eq!(plan.order[..5], [1, 4, 0, 2, 3]);
        assert_eq!(plan.order[5..], (5..ids.len() as u32).collect::<Vec<_>>());
        assert_eq!(plan.bounds, [0, 2, 5, 5 + GROUP, 6 + GROUP]);
        assert_eq!(plan.row_groups, [0, 1, 1, 2, 4, 4]);
    }
}
