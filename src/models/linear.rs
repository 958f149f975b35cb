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
        let [rows, _] = x.dims();
        let y = match &self.weight {
            Matrix::Dense(weight) => {
                let (x, weight) = ledger::matrix_product(x, weight.val());
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
            Matrix::Packed(weight) => weight.multiply(x)?,
        };
        Ok(match &self.bias {
            Some(bias) => y + ledger::bias(bias.val(), rows).unsqueeze(),
            None => y,
        })
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
