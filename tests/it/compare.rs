//! Comparing tensors by name, and random inputs.

use bkbench::math::random::{Coordinate, Purpose, normal_vec, words};

/// A tensor's values with the name that a failure prints.
pub(crate) type Named = (&'static str, Vec<f64>);

/// Largest error relative to the largest expected value, and the ratio of the RMS error to the expected
/// RMS; infinite when anything is NaN.
pub(crate) fn errors(got: &[f64], expected: &[f64]) -> (f64, f64) {
    if got.len() != expected.len() || got.iter().chain(expected).any(|v| v.is_nan()) {
        return (f64::INFINITY, f64::INFINITY);
    }
    let differences = || got.iter().zip(expected).map(|(g, e)| g - e);
    let largest = |a: f64, b: f64| a.max(b.abs());
    let max = differences().fold(0.0, largest) / expected.iter().copied().fold(1e-30, largest);
    let squares = expected.iter().map(|e| e * e).sum::<f64>().max(1e-60);
    (
        max,
        (differences().map(|d| d * d).sum::<f64>() / squares).sqrt(),
    )
}

/// The names whose errors exceed `tolerance`, with the errors; empty when all agree.
pub(crate) fn misses(got: &[Named], expected: &[Named], tolerance: f64) -> Vec<String> {
    assert_eq!(got.len(), expected.len());
    got.iter()
        .zip(expected)
        .filter_map(|((name, got), (_, expected))| {
            let (max, rms) = errors(got, expected);
            // A zero tensor has no scale to be relative to.
            let zero = expected.iter().all(|&e| e == 0.0) && got.iter().all(|g| g.abs() <= 1e-12);
            (!zero && (max > tolerance || rms > tolerance))
                .then(|| format!("{name}: max {max:.2e}, rms {rms:.2e} > {tolerance:.0e}"))
        })
        .collect()
}

/// Normal draws that `f32` holds exactly.
pub(crate) fn normals(stream: u32, n: usize, std: f64) -> Vec<f64> {
    let coordinate = Coordinate {
        row: stream,
        ..Coordinate::new(Purpose::Test)
    };
    normal_vec(11, coordinate, n, std)
        .into_iter()
        .map(f64::from)
        .collect()
}

/// Draws below `end`.
pub(crate) fn indices(stream: u32, n: usize, end: usize) -> Vec<u32> {
    let coordinate = Coordinate {
        row: stream,
        ..Coordinate::new(Purpose::Test)
    };
    (0..n as u64)
        .map(|i| words(12, coordinate.at(i))[0] % end as u32)
        .collect()
}

/// What a wrong kernel would return for `tensor`: each must be rejected by whatever accepted `tensor`.
pub(crate) fn mutants(tensor: &[f64]) -> Vec<(&'static str, Vec<f64>)> {
    let mut shifted = tensor.to_vec();
    shifted.rotate_right(1);
    let mut dropped = tensor.to_vec();
    if let Some(last) = dropped.last_mut() {
        *last = 0.0;
    }
    let mut poisoned = tensor.to_vec();
    if let Some(last) = poisoned.last_mut() {
        *last = f64::NAN;
    }
    vec![
        ("shifted index", shifted),
        ("dropped tail", dropped),
        ("all zero", vec![0.0; tensor.len()]),
        ("1 % scale", tensor.iter().map(|v| v * 1.01).collect()),
        ("NaN", poisoned),
    ]
}
