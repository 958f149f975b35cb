//! Row gather and its gradient on plain slices.

use rayon::prelude::*;

use super::Plan;
use crate::ops::flex::Real;

/// Overwrites `y` `[ids, d]` with rows `ids` of `weight` `[rows, d]`.
pub fn gather<T: Real>(weight: &[T], ids: &[u32], d: usize, y: &mut [T]) {
    y.par_chunks_exact_mut(d)
        .zip(ids)
        .with_min_len(min_rows(d))
        .for_each(|(y, &id)| y.copy_from_slice(&weight[id as usize * d..][..d]));
}

/// Overwrites `d_weight` `[rows, d]` with the sums of the rows of `d_y` `[n, d]` that gathered each row.
pub fn scatter_sum<T: Real>(d_y: &[T], plan: &Plan, d: usize, d_weight: &mut [T]) {
    let add_group = |sum: &mut [T], group: &[u32]| {
        for &position in &plan.order[group[0] as usize..group[1] as usize] {
            add(sum, &d_y[position as usize * d..][..d]);
        }
    };
    d_weight
        .par_chunks_exact_mut(d)
        .zip(plan.row_groups.par_windows(2))
        .with_min_len(min_rows(d))
        .for_each(|(row, groups)| {
            row.fill(T::zero());
            let bounds = &plan.bounds[groups[0] as usize..=groups[1] as usize];
            if bounds.len() <= 2 {
                bounds.windows(2).for_each(|group| add_group(row, group));
            } else {
                let mut parts = vec![T::zero(); (bounds.len() - 1) * d];
                parts
                    .par_chunks_exact_mut(d)
                    .zip(bounds.par_windows(2))
                    .for_each(|(part, group)| add_group(part, group));
                parts.chunks_exact(d).for_each(|part| add(row, part));
            }
        });
}

/// Rows of width `d` that are worth a task.
fn min_rows(d: usize) -> usize {
    (1 << 12) / d + 1
}

fn add<T: Real>(sum: &mut [T], part: &[T]) {
    for (sum, &part) in sum.iter_mut().zip(part) {
        *sum = *sum + part;
    }
}
