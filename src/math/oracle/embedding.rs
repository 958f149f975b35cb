//! Row gather and its adjoint.

use super::Number;

/// Row `ids[p]` of `weight` `[rows, d]` for every position p; `[n, d]`.
pub fn gather_rows<T: Number>(weight: &[T], d: usize, ids: &[usize]) -> Vec<T> {
    ids.iter()
        .flat_map(|&id| weight[id * d..(id + 1) * d].iter().copied())
        .collect()
}

/// Gradient by the weight `[rows, d]` for the cotangent `d_y` `[n, d]`.
pub fn d_weight<T: Number>(d_y: &[T], rows: usize, d: usize, ids: &[usize]) -> Vec<T> {
    let mut d_weight = vec![T::from_f64(0.0); rows * d];
    for (position, &id) in ids.iter().enumerate() {
        for i in 0..d {
            d_weight[id * d + i] = d_weight[id * d + i] + d_y[position * d + i];
        }
    }
    d_weight
}
