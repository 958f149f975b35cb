//! How a device rounds, and how far its kernels lie from the oracle: what two devices can be compared by.
//!
//! Everything is asked of kernels of ours, in which a compiler may contract, flush or approximate; burn computes a
//! product and a sum in two kernels, which nothing can contract.

use burn::tensor::{Device, Tensor, TensorData};

use super::{CaseReport, oracle};
use crate::Result;
use crate::hardware::read;
use crate::ops::causal_conv::{self, Activation};
use crate::ops::selective_scan;
use crate::results::{Denormals, ExpAccuracy, Finite, KernelAccuracy, MultiplyAdd, Numerics};

/// Ranges of the exponential's argument, which is never positive in the scan: near 1, where trained models are, and
/// towards the smallest normal numbers.
const EXP_RANGES: [(f32, f32); 3] = [(-1.0, 0.0), (-16.0, -1.0), (-80.0, -16.0)];
/// Arguments in each.
const EXP_POINTS: usize = 4096;

/// Measures `device`, which is without autodiff.
///
/// # Errors
/// A device that fails.
pub fn measure(device: &Device) -> Result<Numerics> {
    let exp = EXP_RANGES.into_iter().map(|range| exp(device, range));
    Ok(Numerics {
        kernels: accuracies(&oracle::check_briefly(device)),
        denormal_inputs: denormals(multiply_add(device, power(-130), power(20), 0.0)?, -110),
        denormal_results: denormals(multiply_add(device, power(-100), power(-30), 0.0)?, -130),
        multiply_add: contraction(device)?,
        exp: exp.collect::<Result<_>>()?,
    })
}

/// The largest errors by operation and tensor.
fn accuracies(cases: &[CaseReport]) -> Vec<KernelAccuracy> {
    let mut found: Vec<KernelAccuracy> = Vec::new();
    for case in cases {
        let is_size = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let words = case.case.split(' ').take_while(|word| !is_size(word));
        let operation = words.collect::<Vec<_>>().join(" ");
        for check in &case.checks {
            // The two entries of an operation run the same kernels forward.
            let tensor = check.tensor.trim_end_matches(" (train)");
            let of = |error: fn(&super::Errors) -> f64| {
                check
                    .errors
                    .as_ref()
                    .and_then(|errors| Finite::new(error(errors)))
            };
            let (max, rms) = (of(|errors| errors.max), of(|errors| errors.rms));
            let known = found
                .iter_mut()
                .find(|it| it.operation == operation && it.tensor == tensor);
            match known {
                Some(known) => {
                    known.max = larger(known.max, max);
                    known.rms = larger(known.rms, rms);
                }
                None => found.push(KernelAccuracy {
                    operation: operation.clone(),
                    tensor: tensor.to_owned(),
                    max,
                    rms,
                }),
            }
        }
    }
    found
}

/// 2 to the power of `exponent`; a power of a float would overflow on its way to one below the normal numbers.
fn power(exponent: i32) -> f32 {
    2_f64.powi(exponent) as f32
}

/// The larger of two errors; absent where either is.
fn larger(a: Option<Finite>, b: Option<Finite>) -> Option<Finite> {
    let (a, b) = (a?, b?);
    Some(if a < b { b } else { a })
}

/// `x * weight + bias`, as the convolution's kernel computes it.
fn multiply_add(device: &Device, x: f32, weight: f32, bias: f32) -> Result<f32> {
    let zero = Tensor::zeros([1, 1, 1], device);
    let weights = TensorData::new(vec![0.0, weight], [1, 2]);
    let (y, _) = causal_conv::infer(
        Tensor::from_data(TensorData::new(vec![x], [1, 1, 1]), device),
        Tensor::from_data(weights, device),
        Tensor::from_data(TensorData::new(vec![bias], [1]), device),
        zero,
        Activation::Identity,
    )?;
    let y = read::floats(y, "looking how it rounds")?;
    Ok(y[0])
}

/// What a device does that makes `got` of 2 to the power of `exponent`.
fn denormals(got: f32, exponent: i32) -> Denormals {
    if got.to_bits() == power(exponent).to_bits() {
        Denormals::Kept
    } else if got == 0.0 {
        Denormals::Flushed
    } else {
        Denormals::Other
    }
}

/// The square of 1 + 2^-12 is 1 + 2^-11 + 2^-24, of which rounding leaves 1 + 2^-11.
fn contraction(device: &Device) -> Result<MultiplyAdd> {
    let (a, rounded_square) = (1.0 + power(-12), 1.0 + power(-11));
    let rest = multiply_add(device, a, a, -rounded_square)?;
    Ok(if rest.to_bits() == power(-24).to_bits() {
        MultiplyAdd::Fused
    } else if rest == 0.0 {
        MultiplyAdd::Separate
    } else {
        MultiplyAdd::Other
    })
}

/// One step of the scan from the state 1, with nothing added: its output is the exponential.
fn exp(device: &Device, (from, to): (f32, f32)) -> Result<ExpAccuracy> {
    let n = EXP_POINTS;
    let x: Vec<f32> = (0..n)
        .map(|i| from + (to - from) * i as f32 / (n - 1) as f32)
        .collect();
    let all = |value: f32, n: usize| vec![value; n];
    let tensor = |values: Vec<f32>, shape: [usize; 3]| {
        Tensor::<3>::from_data(TensorData::new(values, shape), device)
    };
    let inputs = selective_scan::Inputs {
        u: tensor(all(0.0, n), [1, 1, n]),
        delta_raw: tensor(all(1.0, n), [1, 1, n]),
        a: Tensor::from_data(TensorData::new(x.clone(), [n, 1]), device),
        b: tensor(all(0.0, 1), [1, 1, 1]),
        c: tensor(all(1.0, 1), [1, 1, 1]),
        softplus: false,
    };
    let (y, _) = selective_scan::infer(inputs, tensor(all(1.0, n), [1, n, 1]))?;
    let y = read::floats(y, "looking at its exponential")?;
    let worst = x.iter().zip(&y).map(|(&x, &y)| ulps(y, f64::from(x).exp()));
    // `max` would drop a NaN.
    let worst = worst.fold(
        0.0,
        |worst: f64, ulps| if ulps <= worst { worst } else { ulps },
    );
    Ok(ExpAccuracy {
        from: Finite::new(from.into()).unwrap_or_default(),
        to: Finite::new(to.into()).unwrap_or_default(),
        ulp: Finite::new(worst),
    })
}

/// How far `got` is from `exact`, in units of the last place of the float nearest to it.
fn ulps(got: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    (f64::from(got) - exact).abs() / (f64::from(nearest.next_up()) - f64::from(nearest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Check, Precision, Tolerance};

    #[test]
    fn the_largest_error_of_all_cases_of_a_tensor_stands_and_a_missing_one_wins() {
        let case = |name: &str, checks: Vec<Check>| CaseReport {
            checks,
            ..CaseReport::new("oracle", name, Precision::F32)
        };
        let check = |tensor: &str, got: f64| {
            let tolerance = Tolerance::Relative {
                tol: 1.0,
                atol: 0.0,
            };
            Check::new(tensor, (&[1], &[got]), (&[1], &[1.0]), tolerance)
        };
        let found = accuracies(&[
            case("scan 2x3x4", vec![check("y", 1.25), check("d_u", 1.0)]),
            case(
                "scan 1x9x4 taps 2",
                vec![check("y (train)", 1.5), check("d_u", f64::NAN)],
            ),
            case("f16 products 1x2x3", vec![check("y", 1.0)]),
        ]);
        let entries = found.iter().map(|it| {
            (
                it.operation.as_str(),
                it.tensor.as_str(),
                it.max.map(Finite::get),
            )
        });
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [
                ("scan", "y", Some(0.5)),
                ("scan", "d_u", None),
                ("f16 products", "y", Some(0.0)),
            ]
        );
    }

    #[test]
    fn what_is_no_power_of_two_and_no_zero_is_neither_kept_nor_flushed() {
        assert_eq!(denormals(power(-130), -130), Denormals::Kept);
        assert_eq!(denormals(-0.0, -130), Denormals::Flushed);
        assert_eq!(denormals(f32::NAN, -130), Denormals::Other);
    }

    #[test]
    fn an_ulp_is_the_distance_to_the_next_float() {
        assert!((ulps(1.0_f32.next_up(), 1.0) - 1.0).abs() < 1e-12);
        assert!(ulps(f32::NAN, 1.0).is_nan());
    }
}
