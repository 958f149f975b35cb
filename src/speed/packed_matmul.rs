//! Products with a packed matrix, for one token and for many, and rows of one. The plain loops have the matrix in floats.

use std::hint::black_box;

use super::embedding::plain_forward as plain_gather;
use super::linear_cross_entropy::plain_logits as plain_product;
use super::{Bench, Kernel, draw, indices};
use crate::Result;
use crate::ops::packed_matmul::PackedTensor;
use crate::quant::{BitWidth, PackedMatrix};
use crate::results::FlopsPass;

const WIDTHS: [BitWidth; 3] = [BitWidth::Int8, BitWidth::Int4, BitWidth::Int2];
/// Tokens, rows, columns: a head of GPT-2's vocabulary at one token, a projection at many.
const SIZES: [[usize; 3]; 2] = [[1, 50_257, 256], [512, 1024, 256]];
/// Rows that are gathered from the head.
const GATHERED: usize = 4096;

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for [tokens, rows, columns] in SIZES {
        let weight = draw(0, rows * columns, -0.1, 0.1);
        let x = draw(1, tokens * columns, -1.0, 1.0);
        let mut y = vec![0.0; tokens * rows];
        let x_there = bench.tensor(&x, [tokens, columns]);
        for width in WIDTHS {
            let packed = PackedMatrix::pack(width, [rows, columns], &weight)?;
            let kernel = Kernel {
                operation: "packed_matmul",
                pass: FlopsPass::Forward,
                with_forward: false,
                sizes: &[
                    ("bits", width.bits() as usize),
                    ("tokens", tokens),
                    ("rows", rows),
                    ("columns", columns),
                ],
                floats: packed.words.len() + tokens * (rows + columns),
            };
            let packed = PackedTensor::new(packed, bench.device);
            bench.forward(
                &kernel,
                || plain_product(&x, &weight, columns, black_box(&mut y)),
                || Ok((packed.clone(), x_there.clone())),
                |(packed, x)| packed.multiply(x),
            )?;
        }
    }
    gather(bench)
}

fn gather(bench: &mut Bench<'_>) -> Result<()> {
    let ([_, rows, columns], width) = (SIZES[0], BitWidth::Int8);
    let weight = draw(0, rows * columns, -0.1, 0.1);
    let ids = indices(GATHERED, rows);
    let mut y = vec![0.0; GATHERED * columns];
    let packed = PackedMatrix::pack(width, [rows, columns], &weight)?;
    let bits = width.bits() as usize;
    let kernel = Kernel {
        operation: "packed_matmul_gather",
        pass: FlopsPass::Forward,
        with_forward: false,
        sizes: &[("bits", bits), ("ids", GATHERED), ("columns", columns)],
        floats: GATHERED * (columns * bits / 32 + columns),
    };
    let packed = PackedTensor::new(packed, bench.device);
    bench.forward(
        &kernel,
        || plain_gather(&weight, &ids, columns, black_box(&mut y)),
        || Ok(packed.clone()),
        |packed| packed.gather_rows(&ids),
    )
}
