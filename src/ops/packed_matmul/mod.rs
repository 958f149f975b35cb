//! Products with a matrix that stays packed: codes become floats in the kernel, and no whole copy of the matrix in
//! floats ever exists. Measured errors and times: `docs/packed_matmul.md`.
//!
//! ```text
//! y[t, o] = sum_c x[t, c] * weight[o, c]
//! ```
//!
//! For inference: nothing is differentiated. Activations and sums are `f32` on every device, or `f64` on the CPU.

mod backend;
mod cost;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::quant::{Layout, PackedMatrix};
use crate::{Error, Result};
use backend::PackedMatmulBackend;

const OP: &str = "packed_matmul";

/// From this many rows of `x` on a weight is unpacked once for all of them.
const DECODE_TOKENS: usize = 8;

/// A packed matrix on a device. In a module it is one parameter of integers, `words`, that no optimiser sees.
#[derive(Module, Debug)]
pub struct PackedTensor {
    words: Param<Tensor<1, Int>>,
    #[module(skip)]
    layout: Layout,
}

impl PackedTensor {
    /// Copies `matrix` to `device`.
    pub fn new(matrix: PackedMatrix, device: &Device) -> Self {
        let PackedMatrix { layout, words } = matrix;
        let n = words.len();
        let options = (&device.clone().without_autodiff(), DType::U32);
        let words = Tensor::from_data(TensorData::new(words, [n]), options);
        Self {
            words: Param::initialized(ParamId::new(), words),
            layout,
        }
    }

    /// How it lies in its words.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.words.lazy_device()
    }

    /// The products of `x` `[tokens, columns]` with its rows, `[tokens, rows]`, outside any graph.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is empty or has another number of columns.
    pub fn multiply(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        let [tokens, columns] = x.dims();
        if tokens == 0 || columns != self.layout.columns {
            return Err(Error::Shape {
                op: OP,
                arg: "x",
                expected: format!("[tokens, {}]", self.layout.columns),
                got: vec![tokens, columns],
            });
        }
        cost::product(tokens, self.layout, &self.device());
        Ok(Tensor::from_dispatch(Dispatch::packed_matmul(
            x.inner().into_dispatch(),
            self.words.val().into_dispatch(),
            self.layout,
        )))
    }

    /// Rows `ids`, in that order, repeats allowed, in `f32`; `[ids, columns]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `ids` is empty; [`Error::Domain`] for the first id that is not below `rows`.
    pub fn gather_rows(&self, ids: &[u32]) -> Result<Tensor<2>> {
        if ids.is_empty() {
            return Err(Error::Shape {
                op: OP,
                arg: "ids",
                expected: "[at least one]".into(),
                got: vec![0],
            });
        }
        let rows = self.layout.rows;
        if let Some(position) = ids.iter().position(|&id| id as usize >= rows) {
            return Err(Error::Domain {
                op: OP,
                arg: "ids",
                requirement: "below the number of rows",
                index: vec![position],
                value: ids[position].into(),
            });
        }
        cost::gather(ids.len(), self.layout);
        Ok(Tensor::from_dispatch(Dispatch::packed_rows(
            self.words.val().into_dispatch(),
            self.layout,
            ids,
        )))
    }
}
