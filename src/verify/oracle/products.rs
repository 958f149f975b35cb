//! Matrix products in f16, as trainings in mixed precision compute them.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use super::Problem;
use crate::Result;
use crate::config::Precision;
use crate::hardware::adapter_of;
use crate::math::oracle::packed_matmul::multiply;
use crate::models::Initialiser;
use crate::models::matrix::Matrix;
use crate::ops::non_finite;

/// A product is rounded to f16 once, to one of its neighbours: WGSL leaves the direction open. They are 2^-10 apart.
const ROUNDED: f64 = 9.8e-4;

/// Tokens, inputs and outputs. Each of the three products has its turn at a long sum, in a vector and in tiles.
const SIZES: [[usize; 3]; 4] = [[2051, 33, 1], [2051, 65, 67], [1, 2051, 65], [37, 17, 2051]];

/// One case: its tensors made and its results compared.
type Case<'a> = &'a (dyn Fn(&mut Problem) -> Result<()> + 'a);

/// Hands `run` the cases for `device`; none where it has no f16.
pub(super) fn check(device: &Device, run: &mut dyn for<'a> FnMut(String, Case<'a>)) {
    if adapter_of(device).is_none_or(|adapter| !adapter.features.f16) {
        return;
    }
    for sizes @ [tokens, d_input, d_output] in SIZES {
        let case = format!("f16 products {tokens}x{d_input}x{d_output}");
        run(case, &|p| half(p, sizes));
    }
    run("f16 products beyond f16".to_owned(), &overflow);
}

/// A linear layer and its gradients. The factors are small whole numbers, which f16 holds, and their sums lie where it
/// holds every second or fourth one only: sums that are not made in a wider type come out elsewhere.
fn half(p: &mut Problem, [tokens, d_input, d_output]: [usize; 3]) -> Result<()> {
    let mut whole = |n| -> Vec<f64> { p.indices(n, 4).iter().map(|&v| v as f64).collect() };
    let x = whole(tokens * d_input);
    let weight = whole(d_input * d_output);
    let d_y = whole(tokens * d_output);

    // `multiply` takes the rows of either factor.
    let want = multiply(&x, &turned(&weight, d_output), d_input);
    let want_x = multiply(&d_y, &weight, d_output);
    let want_weight = multiply(&turned(&x, d_input), &turned(&d_y, d_output), tokens);

    let weight = p.leaf(&weight, [d_input, d_output]);
    let x = p.leaf(&x, [tokens, d_input]);
    let d_y = p.leaf(&d_y, [tokens, d_output]).detach();
    let y = product(&x, &weight)?;
    p.check("y", y.clone(), &want, ROUNDED)?;
    let gradients = (y * d_y).sum_dim(0).sum_dim(1).backward();
    p.check_gradient("d_x", (&x, &gradients), &want_x, ROUNDED)?;
    p.check_gradient("d_weight", (&weight, &gradients), &want_weight, ROUNDED)
}

/// Numbers beyond f16 must become infinite, as factors and as products. Where they became the largest number of f16
/// instead, no overflow of the loss scale would ever be seen.
fn overflow(p: &mut Problem) -> Result<()> {
    let mut n_infinite = Vec::new();
    for (a, b) in [(300.0, 300.0), (1e6, 0.5), (0.5, -1e6)] {
        let y = product(&p.leaf(&[a], [1, 1]), &p.leaf(&[b], [1, 1]))?;
        n_infinite.push(non_finite::count(y.inner().reshape([1]))? as f64);
    }
    let n_infinite = p.leaf(&n_infinite, [3]);
    p.check("infinite products", n_infinite, &[1.0; 3], 0.0)
}

/// `x weight`, as a linear layer computes it in mixed precision.
fn product(x: &Tensor<2>, weight: &Tensor<2>) -> Result<Tensor<2>> {
    let mut linear = Initialiser::new(0, 0, &x.device()).linear(1, 1, false, 1.0);
    linear.weight = Matrix::Dense(Param::from_tensor(weight.clone()));
    linear.forward(x.clone(), Precision::Mixed)
}

/// The transpose of a matrix of `columns`.
fn turned(matrix: &[f64], columns: usize) -> Vec<f64> {
    let column = |c: usize| matrix.iter().skip(c).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::math::random::{Coordinate, Purpose, words};

    #[test]
    fn a_sum_made_in_f16_is_further_off_than_its_rounding() {
        let products = (0..2051).map(|i| {
            let [a, b, ..] = words(1, Coordinate::new(Purpose::Test).at(i));
            (a % 4 * (b % 4)) as f32
        });
        let exact: f32 = products.clone().sum();
        let sum = products.fold(f16::ZERO, |sum, product| sum + f16::from_f32(product));
        let error = |sum: f16| f64::from((sum.to_f32() - exact).abs() / exact);
        assert!(error(f16::from_f32(exact)) <= ROUNDED);
        assert!(error(sum) > 2.0 * ROUNDED, "{sum} and {exact}");
    }
}
