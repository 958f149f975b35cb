//! `ops::selective_scan` against the sequential oracle and against published vectors.

use bkbench::Error;
use bkbench::math::oracle::selective_scan as oracle;
use bkbench::ops::selective_scan::{Inputs, cpu, infer, train};
use burn::tensor::activation::silu;
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, misses, mutants, normals};
use crate::support::{self, Golden, tensor, values};

const FORWARD_F32: f64 = 2e-6;
const GRADIENT_F32: f64 = 5e-6;
const LONG_MEMORY_F32: f64 = 2e-5;

/// batch, seq, `d_inner`, `d_state`: one of each, around the chunk and the vector of 16, primes, more
/// than one block of channels, several chunks, more states than a warp, more chunks than one fused launch takes.
const SIZES: [[usize; 4]; 10] = [
    [1, 1, 1, 1],
    [2, 1, 3, 4],
    [1, 2, 2, 16],
    [2, 15, 5, 3],
    [1, 16, 16, 16],
    [2, 17, 17, 5],
    [3, 33, 64, 16],
    [2, 97, 67, 4],
    [1, 131, 130, 33],
    [2, 1101, 12, 5],
];

pub(crate) struct Problem {
    pub(crate) dims: oracle::Dims,
    pub(crate) inputs: oracle::Inputs<f64>,
    pub(crate) d_y: Vec<f64>,
    pub(crate) d_h_last: Vec<f64>,
}

pub(crate) fn problem([batch, seq, d_inner, d_state]: [usize; 4], softplus: bool) -> Problem {
    let per_channel = batch * seq * d_inner;
    let per_state = batch * seq * d_state;
    let state = batch * d_inner * d_state;
    // Only softplus makes a negative step positive.
    let step = |v: f64| if softplus { v - 1.0 } else { v.abs() };
    Problem {
        dims: oracle::Dims {
            batch,
            seq,
            d_inner,
            d_state,
        },
        inputs: oracle::Inputs {
            u: normals(0, per_channel, 1.0),
            delta_raw: normals(1, per_channel, 1.0).into_iter().map(step).collect(),
            a: normals(2, d_inner * d_state, 2.0)
                .into_iter()
                .map(|v| -v.abs() - 0.01)
                .collect(),
            b: normals(3, per_state, 1.0),
            c: normals(4, per_state, 1.0),
            h0: normals(5, state, 1.0),
            softplus,
        },
        d_y: normals(6, per_channel, 1.0),
        d_h_last: normals(7, state, 1.0),
    }
}

fn named(g: oracle::Inputs<f64>) -> Vec<Named> {
    vec![
        ("d_u", g.u),
        ("d_delta_raw", g.delta_raw),
        ("d_a", g.a),
        ("d_b", g.b),
        ("d_c", g.c),
        ("d_h0", g.h0),
    ]
}

pub(crate) fn expected(p: &Problem) -> (Vec<Named>, Vec<Named>) {
    let (y, h_last) = oracle::forward(p.dims, &p.inputs);
    let gradients = oracle::adjoint(p.dims, &p.inputs, &p.d_y, &p.d_h_last);
    (vec![("y", y), ("h_last", h_last)], named(gradients))
}

/// Outputs of `infer`, and gradients of `train`, through burn.
fn through_burn(p: &Problem, device: &Device, dtype: DType) -> (Vec<Named>, Vec<Named>) {
    let oracle::Dims {
        batch,
        seq,
        d_inner,
        d_state,
    } = p.dims;
    let i = &p.inputs;
    let device = device.clone().autodiff();
    let leaf = |v: &[f64], rows, columns| {
        tensor::<3>(v, [batch, rows, columns], &device, dtype).require_grad()
    };
    let inputs = Inputs {
        u: leaf(&i.u, seq, d_inner),
        delta_raw: leaf(&i.delta_raw, seq, d_inner),
        a: tensor::<2>(&i.a, [d_inner, d_state], &device, dtype).require_grad(),
        b: leaf(&i.b, seq, d_state),
        c: leaf(&i.c, seq, d_state),
        softplus: i.softplus,
    };
    let h0 = leaf(&i.h0, d_inner, d_state);
    let d_h_last = tensor(&p.d_h_last, [batch, d_inner, d_state], &device, dtype);

    let (y, h_last) = infer(inputs.clone(), h0.clone()).unwrap();
    let forward = vec![("y", values(y)), ("h_last", values(h_last))];
    let y = train(inputs.clone(), h0.clone(), d_h_last).unwrap();
    assert_eq!(
        values(y.clone()),
        forward[0].1,
        "infer and train give the same output"
    );
    let d_y = tensor(&p.d_y, [batch, seq, d_inner], &device, dtype);
    let grads = (y * d_y).sum().backward();
    let backward = vec![
        ("d_u", values(inputs.u.grad(&grads).unwrap())),
        (
            "d_delta_raw",
            values(inputs.delta_raw.grad(&grads).unwrap()),
        ),
        ("d_a", values(inputs.a.grad(&grads).unwrap())),
        ("d_b", values(inputs.b.grad(&grads).unwrap())),
        ("d_c", values(inputs.c.grad(&grads).unwrap())),
        ("d_h0", values(h0.grad(&grads).unwrap())),
    ];
    (forward, backward)
}

fn check(device: &Device, dtype: DType, forward: f64, gradient: f64) {
    for softplus in [true, false] {
        for size in SIZES {
            let p = problem(size, softplus);
            let (got, got_gradients) = through_burn(&p, device, dtype);
            let (want, want_gradients) = expected(&p);
            let mut missed = misses(&got, &want, forward);
            missed.extend(misses(&got_gradients, &want_gradients, gradient));
            assert!(
                missed.is_empty(),
                "{size:?}, softplus {softplus}: {missed:?}"
            );
        }
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64, 1e-12, 1e-12);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32, FORWARD_F32, GRADIENT_F32);
}

#[test]
fn wgsl_stays_within_the_bar() {
    for device in support::wgpu_of_each_class() {
        check(&device, DType::F32, FORWARD_F32, GRADIENT_F32);
    }
}

/// States that live for about 10^5 steps: rounding each decay by itself would show.
#[test]
fn long_memory_stays_within_the_bar() {
    let size = [1, 1 << 16, 4, 4];
    let mut p = problem(size, false);
    p.inputs
        .delta_raw
        .iter_mut()
        .for_each(|delta| *delta *= 1e-3);
    p.inputs.a.iter_mut().for_each(|a| *a *= 1e-2);
    let (want, want_gradients) = expected(&p);
    let [software, gpu] = support::wgpu_of_each_class();
    for device in [support::cpu(), software, gpu] {
        let (got, got_gradients) = through_burn(&p, &device, DType::F32);
        let mut missed = misses(&got, &want, LONG_MEMORY_F32);
        missed.extend(misses(&got_gradients, &want_gradients, LONG_MEMORY_F32));
        assert!(missed.is_empty(), "{device:?}: {missed:?}");
    }
}

/// Element `[b, j, i]` of every `[b, i, j]`.
fn transposed(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let at = |k: usize| {
        let (b, j, i) = (k / (rows * columns), k / rows % columns, k % rows);
        values[(b * rows + i) * columns + j]
    };
    (0..values.len()).map(at).collect()
}

/// The names whose largest error exceeds the manifest's bound.
fn golden_misses(got: &[Named], want: &[Named], tolerance: f64, atol: f64) -> Vec<String> {
    let largest = |v: &[f64]| v.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let pairs = got.iter().zip(want);
    pairs
        .filter_map(|((name, got), (_, want))| {
            assert_eq!(got.len(), want.len(), "{name}");
            let bound = tolerance * largest(want) + atol;
            let within = got.iter().zip(want).all(|(g, w)| (g - w).abs() <= bound);
            (!within).then(|| format!("{name} misses {bound:.1e}"))
        })
        .collect()
}

/// Skip, gate and bias around the scan, by burn, as the published code composes them.
fn agree_with(golden: &Golden, devices: &[(Device, DType)]) {
    for case in &golden.cases {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (batch, seq, d_inner, d_state) = (size("B"), size("L"), size("D"), size("N"));
        let read = |name: &str| golden.tensor(case, name);
        let per_channel = |name: &str| read(name).map(|v| transposed(&v, d_inner, seq));
        let per_state = |name: &str| read(name).map(|v| transposed(&v, d_state, seq));
        let want_forward = [
            ("y", per_channel("y").unwrap()),
            ("last_state", read("last_state").unwrap()),
        ];
        for (device, dtype) in devices {
            let (device, dtype) = (device.clone().autodiff(), *dtype);
            let leaf = |v: Option<Vec<f64>>, rows, columns| {
                let v = v.unwrap_or(vec![0.0; batch * rows * columns]);
                tensor::<3>(&v, [batch, rows, columns], &device, dtype).require_grad()
            };
            let row = |name: &str| {
                let v = read(name).unwrap_or(vec![0.0; d_inner]);
                tensor::<3>(&v, [1, 1, d_inner], &device, dtype).require_grad()
            };
            let u = leaf(per_channel("u"), seq, d_inner);
            let delta = leaf(per_channel("delta"), seq, d_inner);
            let z = leaf(per_channel("z"), seq, d_inner);
            let (skip, bias) = (row("D"), row("delta_bias"));
            let inputs = Inputs {
                u: u.clone(),
                delta_raw: delta.clone() + bias.clone(),
                a: tensor(&read("A").unwrap(), [d_inner, d_state], &device, dtype).require_grad(),
                b: leaf(per_state("Bm"), seq, d_state),
                c: leaf(per_state("Cm"), seq, d_state),
                softplus: case["delta_softplus"].as_bool().unwrap(),
            };
            let h0 = leaf(None, d_inner, d_state);
            let (_, h_last) = infer(inputs.clone(), h0.clone()).unwrap();
            let mut y = train(inputs.clone(), h0.clone(), h0.clone().detach()).unwrap()
                + u.clone() * skip.clone();
            if read("z").is_some() {
                y = y * silu(z.clone());
            }
            let grads = (y.clone() * leaf(per_channel("dy"), seq, d_inner))
                .sum()
                .backward();
            let gradient = |t: Tensor<3>| t.grad(&grads).map(values).unwrap_or_default();
            let forward = [("y", values(y)), ("last_state", values(h_last))];
            let mut got = vec![("d_A", values(inputs.a.grad(&grads).unwrap()))];
            let mut want = vec![("d_A", read("d_A").unwrap())];
            for (name, leaf, reference) in [
                ("d_u", u, per_channel("d_u")),
                ("d_delta", delta, per_channel("d_delta")),
                ("d_z", z, per_channel("d_z")),
                ("d_Bm", inputs.b, per_state("d_Bm")),
                ("d_Cm", inputs.c, per_state("d_Cm")),
                ("d_D", skip, read("d_D")),
                ("d_delta_bias", bias, read("d_delta_bias")),
            ] {
                if let Some(reference) = reference {
                    got.push((name, gradient(leaf)));
                    want.push((name, reference));
                }
            }
            let tolerance = |key: &str| case["tol_f32"][key].as_f64().unwrap();
            let (forward_bar, gradient_bar, atol) = match dtype {
                DType::F64 => {
                    let bar = case["tol_f64"].as_f64().unwrap();
                    (bar, bar, 1e-12)
                }
                _ => (
                    tolerance("forward_rel_max"),
                    tolerance("grad_rel_max"),
                    1e-6,
                ),
            };
            let mut missed = golden_misses(&forward, &want_forward, forward_bar, atol);
            missed.extend(golden_misses(&got, &want, gradient_bar, atol));
            assert!(
                missed.is_empty(),
                "{}, {device:?}, {dtype:?}: {missed:?}",
                case["name"]
            );
        }
    }
}

fn devices() -> [(Device, DType); 4] {
    let [software, gpu] = support::wgpu_of_each_class();
    [
        (support::cpu(), DType::F64),
        (support::cpu(), DType::F32),
        (software, DType::F32),
        (gpu, DType::F32),
    ]
}

/// The lengths up to 65 of the published vectors.
#[test]
fn golden_vectors_agree_on_every_device() {
    let golden = Golden::read("mamba_scan_small");
    assert_eq!(golden.cases.len(), 7);
    agree_with(&golden, &devices());
}

/// All lengths, up to 4099.
#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds data/ and golden/"]
fn all_golden_vectors_agree_on_every_device() {
    let golden = Golden::read_large("mamba_scan");
    assert_eq!(golden.cases.len(), 10);
    agree_with(&golden, &devices());
}

#[test]
fn reruns_are_bitwise_equal() {
    let p = problem([2, 97, 132, 16], true);
    let [software, gpu] = support::wgpu_of_each_class();
    for device in [support::cpu(), software, gpu] {
        let first = through_burn(&p, &device, DType::F32);
        assert_eq!(first, through_burn(&p, &device, DType::F32));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let p = problem([1, 50, 300, 5], true);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| through_cpu(&p))
    };
    let one = with(1);
    for threads in [2, 3, 7] {
        assert_eq!(one, with(threads), "{threads} threads");
    }
}

#[test]
fn oracle_gradients_are_finite_differences_of_its_output() {
    for softplus in [true, false] {
        let p = problem([2, 5, 3, 4], softplus);
        let objective = |inputs: &oracle::Inputs<f64>| -> f64 {
            let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            let (y, h_last) = oracle::forward(p.dims, inputs);
            dot(&y, &p.d_y) + dot(&h_last, &p.d_h_last)
        };
        let fields: [fn(&mut oracle::Inputs<f64>) -> &mut Vec<f64>; 6] = [
            |i| &mut i.u,
            |i| &mut i.delta_raw,
            |i| &mut i.a,
            |i| &mut i.b,
            |i| &mut i.c,
            |i| &mut i.h0,
        ];
        let step = 1e-5;
        for (field, (name, gradient)) in fields.iter().zip(expected(&p).1) {
            let differences: Vec<f64> = (0..gradient.len())
                .map(|k| {
                    let mut moved = p.inputs.clone();
                    field(&mut moved)[k] += step;
                    let up = objective(&moved);
                    field(&mut moved)[k] -= 2.0 * step;
                    (up - objective(&moved)) / (2.0 * step)
                })
                .collect();
            let missed = misses(&[(name, gradient)], &[(name, differences)], 1e-8);
            assert!(missed.is_empty(), "{missed:?}");
        }
    }
}

/// One sequence in unequal pieces, states carried forward and cotangents backward, is the whole.
#[test]
fn pieces_equal_the_whole() {
    let p = problem([2, 53, 5, 4], true);
    let i = &p.inputs;
    let (whole, whole_gradients) = through_burn(&p, &support::cpu(), DType::F64);
    let bounds = [0, 1, 3, 36, 53];
    let cut = |values: &[f64], width: usize, span: &[usize]| -> Vec<f64> {
        let rows = values.chunks(p.dims.seq * width);
        rows.flat_map(|v| v[span[0] * width..span[1] * width].to_vec())
            .collect()
    };
    let mut pieces = Vec::new();
    let mut h0 = i.h0.clone();
    for span in bounds.windows(2) {
        let channels = |v: &[f64]| cut(v, p.dims.d_inner, span);
        let states = |v: &[f64]| cut(v, p.dims.d_state, span);
        let piece = Problem {
            dims: oracle::Dims {
                seq: span[1] - span[0],
                ..p.dims
            },
            inputs: oracle::Inputs {
                u: channels(&i.u),
                delta_raw: channels(&i.delta_raw),
                a: i.a.clone(),
                b: states(&i.b),
                c: states(&i.c),
                h0,
                softplus: true,
            },
            d_y: channels(&p.d_y),
            d_h_last: p.d_h_last.clone(),
        };
        let (forward, _) = through_burn(&piece, &support::cpu(), DType::F64);
        let missed = misses(&forward[..1], &[("y", channels(&whole[0].1))], 1e-10);
        assert!(missed.is_empty(), "{span:?}: {missed:?}");
        h0 = forward[1].1.clone();
        pieces.push(piece);
    }
    assert!(misses(&[("h_last", h0)], &whole[1..], 1e-10).is_empty());

    let mut d_state = p.d_h_last.clone();
    let mut d_a = vec![0.0; i.a.len()];
    for (piece, span) in pieces.iter_mut().zip(bounds.windows(2)).rev() {
        piece.d_h_last = d_state;
        let (_, g) = through_burn(piece, &support::cpu(), DType::F64);
        let widths = [
            p.dims.d_inner,
            p.dims.d_inner,
            0,
            p.dims.d_state,
            p.dims.d_state,
        ];
        for (k, width) in widths
            .into_iter()
            .enumerate()
            .filter(|(_, width)| *width > 0)
        {
            let want = cut(&whole_gradients[k].1, width, span);
            let missed = misses(&g[k..=k], &[(g[k].0, want)], 1e-10);
            assert!(missed.is_empty(), "{span:?}: {missed:?}");
        }
        d_a.iter_mut()
            .zip(&g[2].1)
            .for_each(|(sum, part)| *sum += part);
        d_state = g[5].1.clone();
    }
    let sums = [("d_a", d_a), ("d_h0", d_state)];
    let want = [whole_gradients[2].clone(), whole_gradients[5].clone()];
    let missed = misses(&sums, &want, 1e-10);
    assert!(missed.is_empty(), "{missed:?}");
}

/// The CPU kernels into outputs that start as NaN.
fn through_cpu(p: &Problem) -> (Vec<Named>, Vec<Named>) {
    let oracle::Dims {
        batch,
        seq,
        d_inner,
        d_state,
    } = p.dims;
    let dims = cpu::Dims {
        batch,
        seq,
        d_inner,
        d_state,
    };
    let i = &p.inputs;
    let a = transposed(&i.a, d_inner, d_state);
    let h0 = transposed(&i.h0, d_inner, d_state);
    let d_h_last = transposed(&p.d_h_last, d_inner, d_state);
    let inputs = cpu::Inputs {
        u: &i.u,
        delta_raw: &i.delta_raw,
        a: &a,
        b: &i.b,
        c: &i.c,
        softplus: i.softplus,
    };
    let poisoned = |n: usize| vec![f64::NAN; n];
    let mut y = poisoned(i.u.len());
    let mut states = poisoned((dims.n_chunks() + 1) * h0.len());
    cpu::forward(dims, inputs, &h0, &mut y, &mut states);
    let mut g = [&i.u, &i.delta_raw, &i.a, &i.b, &i.c, &i.h0].map(|like| poisoned(like.len()));
    let [u, delta_raw, d_a, b, c, d_h0] = &mut g;
    let into = cpu::Gradients {
        u,
        delta_raw,
        a: d_a,
        b,
        c,
        h0: d_h0,
    };
    cpu::backward(dims, inputs, &states, &p.d_y, &d_h_last, into);

    let per_sequence = states.chunks((dims.n_chunks() + 1) * d_state * d_inner);
    let last = |v: &[f64]| v[v.len() - d_state * d_inner..].to_vec();
    let h_last = transposed(
        &per_sequence.flat_map(last).collect::<Vec<_>>(),
        d_state,
        d_inner,
    );
    let [u, delta_raw, d_a, b, c, d_h0] = g;
    let gradients = oracle::Inputs {
        u,
        delta_raw,
        a: transposed(&d_a, d_state, d_inner),
        b,
        c,
        h0: transposed(&d_h0, d_state, d_inner),
        softplus: i.softplus,
    };
    (vec![("y", y), ("h_last", h_last)], named(gradients))
}

#[test]
fn cpu_outputs_are_fully_overwritten() {
    for size in SIZES {
        let p = problem(size, true);
        let (forward, backward) = expected(&p);
        let (got, got_gradients) = through_cpu(&p);
        assert!(misses(&got, &forward, 1e-12).is_empty());
        assert!(misses(&got_gradients, &backward, 1e-12).is_empty());
    }
}

#[test]
fn wrong_results_are_rejected() {
    let (forward, backward) = expected(&problem([2, 33, 5, 4], true));
    for tensor in forward.into_iter().chain(backward) {
        let accepts = |v: Vec<f64>| {
            misses(
                &[(tensor.0, v)],
                std::slice::from_ref(&tensor),
                GRADIENT_F32,
            )
            .is_empty()
        };
        assert!(accepts(tensor.1.clone()));
        for (mutant, values) in mutants(&tensor.1) {
            assert!(!accepts(values), "{}: {mutant} passed", tensor.0);
        }
    }
}

fn outputs_f32(p: &Problem) -> Vec<f64> {
    let oracle::Dims {
        batch,
        seq,
        d_inner,
        d_state,
    } = p.dims;
    let device = support::cpu();
    let given =
        |v: &[f64], rows, columns| tensor::<3>(v, [batch, rows, columns], &device, DType::F32);
    let inputs = Inputs {
        u: given(&p.inputs.u, seq, d_inner),
        delta_raw: given(&p.inputs.delta_raw, seq, d_inner),
        a: tensor(&p.inputs.a, [d_inner, d_state], &device, DType::F32),
        b: given(&p.inputs.b, seq, d_state),
        c: given(&p.inputs.c, seq, d_state),
        softplus: p.inputs.softplus,
    };
    values(
        infer(inputs, given(&p.inputs.h0, d_inner, d_state))
            .unwrap()
            .0,
    )
}

#[test]
fn nan_inputs_reach_the_output() {
    for field in ["u", "delta_raw", "a"] {
        let mut p = problem([1, 20, 3, 4], true);
        match field {
            "u" => p.inputs.u[0] = f64::NAN,
            "delta_raw" => p.inputs.delta_raw[0] = f64::NAN,
            _ => p.inputs.a[0] = f64::NAN,
        }
        let y = outputs_f32(&p);
        for t in 0..20 {
            assert!(y[t * 3].is_nan(), "{field}: step {t} of channel 0");
            assert!(!y[t * 3 + 1].is_nan(), "{field}: step {t} of channel 1");
        }
    }
}

#[test]
fn bad_shapes_are_refused_by_name() {
    let device = support::cpu();
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    // u, delta_raw, a, b, c, h0, d_h_last that fit together, and one at a time that does not.
    let good = [
        [1, 5, 2],
        [1, 5, 2],
        [1, 2, 4],
        [1, 5, 4],
        [1, 5, 4],
        [1, 2, 4],
        [1, 2, 4],
    ];
    let call = |shapes: [[usize; 3]; 7]| {
        let [u, delta_raw, a, b, c, h0, d_h_last] = shapes.map(zeros);
        let inputs = Inputs {
            u,
            delta_raw,
            a: a.squeeze_dim(0),
            b,
            c,
            softplus: true,
        };
        train(inputs, h0, d_h_last)
    };
    assert!(call(good).is_ok());
    for (at, shape, name) in [
        (0, [1, 0, 2], "u"),
        (1, [1, 4, 2], "delta_raw"),
        (2, [1, 3, 4], "a"),
        (2, [1, 2, 0], "a"),
        (3, [1, 5, 3], "b"),
        (4, [2, 5, 4], "c"),
        (5, [1, 4, 2], "h0"),
        (6, [1, 2, 3], "d_h_last"),
    ] {
        let mut shapes = good;
        shapes[at] = shape;
        match call(shapes) {
            Err(Error::Shape { arg, .. }) => assert_eq!(arg, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}
