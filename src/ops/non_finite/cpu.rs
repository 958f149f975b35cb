//! The kernel's twin on the CPU.

use rayon::prelude::*;

use super::STRIDE;
use crate::ops::flex::Real;

/// How many of each `STRIDE` neighbouring values are infinite or no number.
pub fn count<T: Real>(x: &[T], counts: &mut [T]) {
    x.par_chunks(STRIDE as usize)
        .zip(counts)
        .with_min_len(1024)
        .for_each(|(part, count)| {
            let not_finite = part.iter().filter(|value| !value.is_finite());
            *count = not_finite.map(|_| T::one()).sum();
        });
}
