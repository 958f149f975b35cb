//! `ops::packed_matmul` against the oracle at every width, and what is refused.

use bkbench::Error;
use bkbench::math::oracle::packed_matmul as oracle;
use bkbench::ops::packed_matmul::{PackedTensor, cpu};
use bkbench::quant::{BitWidth, PackedMatrix};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, indices, misses, mutants, normals};
use crate::support::{self, tensor, values};

/// A matrix, what multiplies it, and which of its rows are asked for.
pub(crate) struct Problem {
    pub(crate) packed: PackedMatrix,
    pub(crate) tokens: usize,
    pub(crate) x: Vec<f64>,
    pub(crate) ids: Vec<u32>,
}

pub(crate) fn problem(width: BitWidth, [tokens, columns, rows]: [usize; 3]) -> Problem {
    let weight = normals(0, rows * columns, 0.3);
    let weight: Vec<f32> = weight.into_iter().map(|w| w as f32).collect();
    let mut ids = indices(2, 5, rows);
    ids.push(rows as u32 - 1);
    Problem {
        packed: PackedMatrix::pack(width, [rows, columns], &weight).unwrap(),
        tokens,
        x: normals(1, tokens * columns, 1.0),
        ids,
    }
}

/// The products, and the rows.
pub(crate) fn expected(p: &Problem) -> [Named; 2] {
    let layout = p.packed.layout;
    let (rows, columns) = (layout.rows, layout.columns);
    let bits = layout.width.bits() as usize;
    let weight = oracle::unpack(bits, rows, columns, &p.packed.words);
    let row = |&id: &u32| weight[id as usize * columns..][..columns].to_vec();
    [
        ("y", oracle::multiply(&p.x, &weight, columns)),
        ("rows", p.ids.iter().flat_map(row).collect()),
    ]
}

fn through_burn(p: &Problem, device: &Device, dtype: DType) -> [Named; 2] {
    let matrix = PackedTensor::new(p.packed.clone(), device);
    let x = tensor(&p.x, [p.tokens, p.packed.layout.columns], device, dtype);
    [
        ("y", values(matrix.multiply(x).unwrap())),
        ("rows", values(matrix.gather_rows(&p.ids).unwrap())),
    ]
}

/// Tokens, columns and rows: one, primes, around the 16 codes of a word, the chunks of 32, the groups of 64, the blocks
/// of 4 and 6, the tiles of 32, and the 8 tokens at which the kernels change.
pub(crate) const SIZES: [[usize; 3]; 14] = [
    [1, 1, 1],
    [1, 3, 5],
    [2, 63, 64],
    [7, 64, 65],
    [7, 65, 4],
    [1, 127, 65],
    [2, 257, 3],
    [8, 1, 1],
    [8, 3, 65],
    [13, 31, 33],
    [12, 64, 16],
    [65, 65, 5],
    [65, 127, 64],
    [49, 129, 17],
];

fn check(device: &Device, dtype: DType, tolerance: f64) {
    for width in BitWidth::ALL {
        for size in SIZES {
            let p = problem(width, size);
            let ([y, rows], [want_y, want_rows]) = (through_burn(&p, device, dtype), expected(&p));
            assert_eq!(rows, want_rows, "{width} {size:?}: rows are exact");
            let missed = misses(&[y], &[want_y], tolerance);
            assert!(missed.is_empty(), "{width} {size:?}: {missed:?}");
        }
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64, 1e-14);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32, 1e-6);
}

#[test]
fn wgsl_stays_within_the_bar() {
    check(&support::wgpu(), DType::F32, 1e-6);
}

#[test]
fn several_panels_and_tasks_are_put_together() {
    // Two panels of 512 KiB with a rest, two tasks of 48 tokens with a rest.
    let p = problem(BitWidth::Int4, [101, 515, 521]);
    let missed = misses(
        &through_burn(&p, &support::cpu(), DType::F32)[..1],
        &expected(&p)[..1],
        1e-6,
    );
    assert_eq!(missed, [""; 0]);
    // More rows than one task decodes.
    let p = problem(BitWidth::Int2, [3, 129, 1031]);
    for device in [support::cpu(), support::wgpu()] {
        let missed = misses(
            &through_burn(&p, &device, DType::F32)[..1],
            &expected(&p)[..1],
            1e-6,
        );
        assert_eq!(missed, [""; 0]);
    }
}

#[test]
fn subnormal_scales_are_not_lost() {
    // Largest weight 1e-4: the f16 scale of eight bits is below the smallest normal one, 6.1e-5.
    for width in BitWidth::ALL {
        let weight: Vec<f32> = (0..130).map(|i| (i as f32 - 65.0) / 65.0 * 1e-4).collect();
        let mut p = problem(width, [9, 65, 2]);
        p.packed = PackedMatrix::pack(width, [2, 65], &weight).unwrap();
        for device in [support::cpu(), support::wgpu()] {
            let ([y, rows], [want_y, want_rows]) =
                (through_burn(&p, &device, DType::F32), expected(&p));
            assert_eq!(rows, want_rows, "{width}");
            assert!(rows.1.iter().any(|&w| w != 0.0), "{width}");
            assert_eq!(misses(&[y], &[want_y], 1e-6), [""; 0], "{width}");
        }
    }
}

#[test]
fn dense_products_agree_with_the_dequantised_matrix() {
    for width in BitWidth::ALL {
        let p = problem(width, [9, 65, 33]);
        let layout = p.packed.layout;
        let dense: Vec<f64> = p.packed.dequantise().into_iter().map(f64::from).collect();
        for device in [support::cpu(), support::wgpu()] {
            let [y, _] = through_burn(&p, &device, DType::F32);
            let dense = tensor(&dense, [layout.rows, layout.columns], &device, DType::F32);
            let x = tensor(&p.x, [p.tokens, layout.columns], &device, DType::F32);
            let plain = ("y", values(x.matmul(dense.transpose())));
            assert_eq!(misses(&[y], &[plain], 1e-6), [""; 0], "{width}");
        }
    }
}

#[test]
fn one_token_at_a_time_gives_what_many_give() {
    let p = problem(BitWidth::Int8, [11, 129, 65]);
    let rows = p.packed.layout.rows;
    for device in [support::cpu(), support::wgpu()] {
        let matrix = PackedTensor::new(p.packed.clone(), &device);
        let singly = p.x.chunks(129).flat_map(|x| {
            let y = matrix.multiply(tensor(x, [1, 129], &device, DType::F32));
            values(y.unwrap())
        });
        let singly: Vec<f64> = singly.collect();
        assert_eq!(singly.len(), 11 * rows);
        let [y, _] = through_burn(&p, &device, DType::F32);
        assert_eq!(misses(&[("y", singly)], &[y], 1e-6), [""; 0]);
    }
}

#[test]
fn reruns_are_bitwise_equal() {
    for tokens in [3, 70] {
        let p = problem(BitWidth::Int4, [tokens, 200, 150]);
        for device in [support::cpu(), support::wgpu()] {
            let first = through_burn(&p, &device, DType::F32);
            assert_eq!(first, through_burn(&p, &device, DType::F32));
        }
    }
}

#[test]
fn cpu_outputs_are_fully_overwritten_and_nan_is_kept() {
    for size in [[3, 65, 9], [13, 65, 33]] {
        let p = problem(BitWidth::Int8, size);
        let (layout, words) = (p.packed.layout, &p.packed.words);
        let mut y = vec![f64::NAN; size[0] * size[2]];
        cpu::matmul(&p.x, layout, words, &mut y);
        let mut rows = vec![f64::NAN; p.ids.len() * size[1]];
        cpu::gather_rows(layout, words, &p.ids, &mut rows);
        assert_eq!(
            misses(&[("y", y), ("rows", rows)], &expected(&p), 1e-14),
            [""; 0]
        );

        let mut poisoned = p.x.clone();
        poisoned[size[1] + 64] = f64::NAN; // the last input of the second token
        let mut y = vec![0.0; size[0] * size[2]];
        cpu::matmul(&poisoned, layout, words, &mut y);
        for (token, y) in y.chunks(size[2]).enumerate() {
            assert!(y.iter().all(|y| y.is_nan() == (token == 1)), "{token}");
        }
    }
}

/// Mistakes that a kernel might make with the format give other numbers than the bar lets through.
#[test]
fn wrong_results_are_rejected() {
    for width in BitWidth::ALL {
        let p = problem(width, [9, 130, 65]);
        let want = expected(&p);
        for tensor in &want {
            for (mutant, values) in mutants(&tensor.1) {
                let missed = misses(&[(tensor.0, values)], std::slice::from_ref(tensor), 1e-6);
                assert_eq!(missed.len(), 1, "{width} {}: {mutant} passed", tensor.0);
            }
        }
        for (mutant, words) in wrong_words(&p.packed) {
            let wrong = Problem {
                packed: PackedMatrix {
                    words,
                    ..p.packed.clone()
                },
                x: p.x.clone(),
                ids: p.ids.clone(),
                ..p
            };
            let got = through_burn(&wrong, &support::cpu(), DType::F32);
            let missed = misses(&got[..1], &want[..1], 1e-6);
            assert_eq!(missed.len(), 1, "{width}: {mutant} passed");
        }
    }
}

/// Matrices as a wrong kernel would read them.
fn wrong_words(packed: &PackedMatrix) -> Vec<(&'static str, Vec<u32>)> {
    let layout = packed.layout;
    let (codes, scales) = packed.words.split_at(layout.code_words());
    let of_codes = |change: &dyn Fn(u32) -> u32| {
        let codes: Vec<u32> = codes.iter().map(|&word| change(word)).collect();
        [&codes, scales].concat()
    };
    let bits = layout.width.bits();
    let mut wrong = vec![("words of another byte order", of_codes(&u32::swap_bytes))];
    if bits < 32 {
        wrong.push(("codes one place on", of_codes(&|w| w.rotate_left(bits))));
    }
    if bits < 16 {
        let sign = (0..32 / bits).fold(0, |mask, i| mask | 1 << (bits * i + bits - 1));
        wrong.push(("codes without a sign", of_codes(&|w| w & !sign)));
        let mut swapped: Vec<u32> = scales.iter().map(|w| w.rotate_left(16)).collect();
        wrong.push(("scales in pairs the other way", [codes, &swapped].concat()));
        swapped = scales.to_vec();
        swapped.rotate_right(1);
        wrong.push(("scales of another row", [codes, &swapped].concat()));
    }
    wrong
}

#[test]
fn bad_inputs_are_refused() {
    let device = support::cpu();
    let p = problem(BitWidth::Int4, [1, 5, 4]);
    let matrix = PackedTensor::new(p.packed, &device);
    let shape = |result: bkbench::Result<Tensor<2>>, name| match result.unwrap_err() {
        Error::Shape { arg, .. } => assert_eq!(arg, name),
        other => panic!("{other}"),
    };
    shape(matrix.multiply(Tensor::zeros([2, 4], &device)), "x");
    shape(matrix.multiply(Tensor::zeros([0, 5], &device)), "x");
    shape(matrix.gather_rows(&[]), "ids");
    let refused = matrix.gather_rows(&[3, 0, 4, 9]);
    assert!(matches!(refused, Err(Error::Domain { index, value: 4.0, .. }) if index == [2]));
}
