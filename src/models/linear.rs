//! The matrix products of the models.

use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Tensor};

use super::matrix::Matrix;
use crate::Result;
use crate::config::Precision;
use crate::ops::ledger::{self, Op};

/// `x W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_input, d_output]` where it is dense.
    pub weight: Matrix,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Width of what it reads.
    pub fn d_input(&self) -> usize {
        match &self.weight {
            Matrix::Dense(weight) => weight.dims()[0],
            Matrix::Packed(weight) => weight.layout().columns,
        }
    }

    /// `x`, `[tokens, d_input]`, as `[tokens, d_output]`; a packed weight's product is f32 whatever the precision.
    ///
    /// # Errors
    /// A packed weight and an `x` of another width.
    pub fn forward(&self, x: Tensor<2>, precision: Precision) -> Result<Tensor<2>> {
        let y = match &self.weight {
            Matrix::Dense(weight) => product(x, weight.val(), precision),
            Matrix::Packed(weight) => weight.multiply(x)?,
        };
        Ok(match &self.bias {
            Some(bias) => biased(y, bias.val()),
            None => y,
        })
    }

    /// [`Linear::forward`], its left and its right half. A dense layer makes them apart, so that neither they nor their
    /// gradients are copied out of a whole or into one.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_halves(&self, x: Tensor<2>, precision: Precision) -> Result<[Tensor<2>; 2]> {
        let Matrix::Dense(weight) = &self.weight else {
            return Ok(halves(&self.forward(x, precision)?, 1));
        };
        let x = ledger::cut(x, 2);
        let [left, right] = halves(&ledger::cut(weight.val(), 2), 1);
        let products = [
            product(x.clone(), left, precision),
            product(x, right, precision),
        ];
        let Some(bias) = &self.bias else {
            return Ok(products);
        };
        let [left, right] = halves(&ledger::cut(bias.val(), 2), 0);
        let [y_left, y_right] = products;
        Ok([biased(y_left, left), biased(y_right, right)])
    }

    /// The operations of [`Linear::forward`] on `rows` tokens.
    pub fn forward_ops(
        rows: usize,
        [d_input, d_output]: [usize; 2],
        bias: bool,
    ) -> impl Iterator<Item = Op> + Clone {
        let product = Op::MatrixProduct {
            rows,
            inner: d_input,
            columns: d_output,
        };
        let bias = bias.then_some(Op::Bias {
            rows,
            width: d_output,
        });
        std::iter::once(product).chain(bias)
    }
}

fn product(x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
    let (x, weight) = ledger::matrix_product(x, weight);
    match precision {
        Precision::F32 => x.matmul(weight),
        Precision::Mixed => {
            let dtype = x.dtype();
            x.cast(FloatDType::F16)
                .matmul(weight.cast(FloatDType::F16))
                .cast(dtype)
        }
    }
}

fn biased(y: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let [rows, _] = y.dims();
    y + ledger::bias(bias, rows).unsqueeze()
}

/// Both halves of an axis.
fn halves<const D: usize>(whole: &Tensor<D>, axis: usize) -> [Tensor<D>; 2] {
    let half = whole.dims()[axis] / 2;
    [0, half].map(|first| whole.clone().narrow(axis, first, half))
}
