//! The matrix products of the models.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::matrix::Matrix;
use crate::Result;

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

    /// `x`, `[tokens, d_input]`, as `[tokens, d_output]`.
    ///
    /// # Errors
    /// A packed weight and an `x` of another width.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        let y = match &self.weight {
            Matrix::Dense(weight) => x.matmul(weight.val()),
            Matrix::Packed(weight) => weight.multiply(x)?,
        };
        Ok(match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        })
    }
}
