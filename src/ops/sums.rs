//! Sums over rows by a tree of fixed shape: equal bits on every run, and an error that does not grow with
//! the number of rows as that of one running `f32` would.

use burn::backend::TensorMetadata;
use burn::backend::wgpu::CubeTensor;

use super::flex::Real;
use super::launch::{Work, empty, launch};
use crate::shader::{Spec, catalog};

/// Rows that one level of the tree sums into one.
const GROUP: usize = 64;
const WG_SIZE: u32 = 64;

/// `scale` times the sum over the rows of `parts` [rows, cols]; [1, cols].
pub(crate) fn sum_rows_wgsl(mut parts: CubeTensor, scale: f32) -> CubeTensor {
    loop {
        let [rows, cols] = parts.shape().dims();
        let groups = rows.div_ceil(GROUP);
        let factor = if groups == 1 { scale } else { 1.0 };
        let out = empty(&parts, [groups, cols], parts.dtype);
        launch(
            &catalog::SUM_ROWS,
            &Spec::new()
                .u32("WG_SIZE", WG_SIZE)
                .u32("GROUP", GROUP as u32),
            Work::items(groups * cols, WG_SIZE, GROUP.min(rows)),
            &[&parts, &out],
            &[rows as u32, cols as u32, factor.to_bits()],
        );
        if groups == 1 {
            return out;
        }
        parts = out;
    }
}

/// The sum over the rows of `parts` [rows, cols], left in its first row.
pub(crate) fn sum_rows<T: Real>(parts: &mut [T], cols: usize) {
    let mut rows = parts.len() / cols;
    while rows > 1 {
        let groups = rows.div_ceil(GROUP);
        for group in 0..groups {
            // Row `group` may be overwritten: it belongs to an earlier group, or is this one's first.
            parts.copy_within(
                group * GROUP * cols..(group * GROUP + 1) * cols,
                group * cols,
            );
            for row in group * GROUP + 1..rows.min((group + 1) * GROUP) {
                let (sum, rest) = parts.split_at_mut(row * cols);
                for (sum, &part) in sum[group * cols..].iter_mut().zip(&rest[..cols]) {
                    *sum = *sum + part;
                }
            }
        }
        rows = groups;
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUP, sum_rows};

    #[test]
    fn sums_of_any_number_of_rows_are_those_of_a_plain_loop() {
        for rows in [1, 2, GROUP - 1, GROUP, GROUP + 1, GROUP * GROUP + 3] {
            let mut parts: Vec<f64> = (0..rows * 3).map(|i| ((i * i) % 101) as f64).collect();
            let plain: Vec<f64> = (0..3)
                .map(|c| parts.iter().skip(c).step_by(3).sum())
                .collect();
            sum_rows(&mut parts, 3);
            assert_eq!(parts[..3], plain, "{rows} rows");
        }
    }
}
