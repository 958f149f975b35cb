//! What "agrees" means: the largest error and the RMS error, each against its bound.

use serde::Serialize;

/// Bound of the errors of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// `max|x - ref| <= tol * max|ref| + atol` and `||x - ref|| / ||ref|| <= tol`. `atol` does not enter the
    /// RMS ratio, or else a wrong tensor of small values would pass; only where the reference is 0
    /// everywhere is the RMS of `x` itself compared with `atol`.
    Relative {
        /// Relative bound.
        tol: f64,
        /// Added to the bound of the largest error.
        atol: f64,
    },
    /// `max|x - ref| <= bound`.
    Absolute(f64),
}

/// How one tensor compares with its reference.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Name of the tensor.
    pub tensor: String,
    /// The errors, unless the tensors cannot be compared.
    pub errors: Option<Errors>,
    /// Why the tensor does not agree; none when it does.
    pub miss: Option<String>,
}

/// Errors relative to the scale of the reference: its largest magnitude, its RMS. Absolute where the
/// reference is 0 everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// `max|x - ref| / max|ref|`.
    pub max: f64,
    /// Bound of `max`.
    pub max_allowed: f64,
    /// `||x - ref|| / ||ref||`.
    pub rms: f64,
    /// Bound of `rms`.
    pub rms_allowed: f64,
}

impl Check {
    /// Compares `got` of `shape` with `reference` of `reference_shape`. NaN equals nothing.
    pub fn new(
        tensor: impl Into<String>,
        (shape, got): (&[usize], &[f64]),
        (reference_shape, reference): (&[usize], &[f64]),
        tolerance: Tolerance,
    ) -> Self {
        let tensor = tensor.into();
        if shape != reference_shape || got.len() != reference.len() {
            return Self::missed(
                tensor,
                format!("has shape {shape:?} instead of {reference_shape:?}"),
            );
        }
        let not_finite = |values: &[f64]| values.iter().position(|v| !v.is_finite());
        if let Some(i) = not_finite(reference) {
            let value = reference[i];
            return Self::missed(tensor, format!("has a reference of {value} at element {i}"));
        }
        if let Some(i) = not_finite(got) {
            let value = got[i];
            return Self::missed(tensor, format!("is {value} at element {i}"));
        }
        let errors = Errors::new(got, reference, tolerance);
        let miss = match (
            errors.max <= errors.max_allowed,
            errors.rms <= errors.rms_allowed,
        ) {
            (true, true) => None,
            (false, _) => Some("the largest error is above its bound".to_owned()),
            (true, false) => Some("the RMS error is above its bound".to_owned()),
        };
        Self {
            tensor,
            errors: Some(errors),
            miss,
        }
    }

    /// A tensor that cannot be compared.
    pub fn missed(tensor: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            tensor: tensor.into(),
            errors: None,
            miss: Some(why.into()),
        }
    }
}

impl Errors {
    fn new(got: &[f64], reference: &[f64], tolerance: Tolerance) -> Self {
        let differences = || got.iter().zip(reference).map(|(x, r)| x - r);
        let largest = |a: f64, b: f64| a.max(b.abs());
        let n = reference.len().max(1) as f64;
        let scale = reference.iter().copied().fold(0.0, largest);
        let max = differences().fold(0.0, largest);
        // Relative to the largest magnitude, so that squares neither overflow nor vanish.
        let unit = |scale: f64| if scale > 0.0 { scale } else { 1.0 };
        let rms = |values: &mut dyn Iterator<Item = f64>, largest: f64| {
            let squares = values.fold(0.0, |sum, v| sum + (v / unit(largest)).powi(2));
            largest * (squares / n).sqrt()
        };
        let rms_scale = unit(rms(&mut reference.iter().copied(), scale));
        let rms = rms(&mut differences(), max) / rms_scale;
        let (max_allowed, rms_allowed) = match tolerance {
            Tolerance::Relative { tol, atol } if scale > 0.0 => (tol + atol / scale, tol),
            Tolerance::Relative { atol, .. } => (atol, atol),
            // The RMS of an error is at most its largest value.
            Tolerance::Absolute(bound) => (bound / unit(scale), bound / rms_scale),
        };
        Self {
            max: max / unit(scale),
            max_allowed,
            rms,
            rms_allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance::Relative {
        tol: 1e-5,
        atol: 1e-6,
    };

    fn miss(got: &[f64], reference: &[f64]) -> Option<String> {
        let shape = [reference.len()];
        Check::new("t", (&[got.len()], got), (&shape, reference), TOLERANCE).miss
    }

    /// Values around `scale` without symmetry.
    fn values(scale: f64) -> Vec<f64> {
        (0..97)
            .map(|i| scale * (f64::from(i) * 0.7 + 1.0).sin())
            .collect()
    }

    #[test]
    fn wrong_tensors_are_rejected_at_every_scale_and_the_right_one_is_not() {
        for scale in [1e-30, 1e-7, 1.0, 1e20] {
            let reference = values(scale);
            let off = |factor: f64| reference.iter().map(|v| v * factor).collect::<Vec<_>>();
            assert_eq!(miss(&reference, &reference), None, "{scale}");
            assert_eq!(miss(&off(1.0 + 9e-6), &reference), None, "{scale}");
            let mut shifted = reference.clone();
            shifted.rotate_right(1);
            let mut dropped = reference.clone();
            dropped[96] = 0.0;
            let mut poisoned = reference.clone();
            poisoned[40] = f64::NAN;
            let wrong = [
                ("1 % scale", off(1.01)),
                ("zeros", vec![0.0; 97]),
                ("shifted", shifted),
                ("dropped tail", dropped),
                ("NaN", poisoned),
                ("negated", off(-1.0)),
                ("infinite", vec![f64::INFINITY; 97]),
            ];
            for (name, wrong) in wrong {
                assert!(
                    miss(&wrong, &reference).is_some(),
                    "{name} passed at {scale}"
                );
            }
        }
    }

    #[test]
    fn nan_equals_nothing_not_even_nan() {
        assert!(miss(&[f64::NAN], &[f64::NAN]).is_some());
        assert!(miss(&[1.0], &[f64::NAN]).is_some());
    }

    #[test]
    fn a_shape_that_differs_is_a_miss_even_with_equal_values() {
        let v = values(1.0);
        let check = Check::new("t", (&[97, 1], &v), (&[1, 97], &v), TOLERANCE);
        assert!(check.miss.unwrap().contains("[97, 1] instead of [1, 97]"));
    }

    #[test]
    fn a_zero_reference_is_compared_absolutely_and_an_empty_one_agrees() {
        assert_eq!(miss(&[5e-7, 0.0], &[0.0, 0.0]), None);
        assert!(miss(&[2e-6, 0.0], &[0.0, 0.0]).is_some());
        assert_eq!(miss(&[], &[]), None);
    }

    #[test]
    fn an_absolute_bound_is_one_of_the_largest_error() {
        let check = |got: f64| {
            let tolerance = Tolerance::Absolute(1e-4);
            Check::new("t", (&[2], &[3.0, got]), (&[2], &[3.0, 2.0]), tolerance).miss
        };
        assert_eq!(check(2.000_09), None);
        assert!(check(2.000_11).is_some());
    }
}
