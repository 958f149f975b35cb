//! The kernel benchmark: its plain loops against the oracle, what it says, and its picture.

use bkbench::hardware::open;
use bkbench::math::oracle;
use bkbench::math::random::{Coordinate, Purpose, uniform_vec};
use bkbench::ops::adamw::Step;
use bkbench::ops::cotangent;
use bkbench::report::kernels::table;
use bkbench::report::plot::kernels::draw;
use bkbench::results::{FlopsPass, KernelsReport, TimingMethod};
use bkbench::shader::catalog::KERNELS;
use bkbench::speed;
use burn::tensor::DType;

use crate::support;

fn drawn(row: u32, n: usize, low: f64, high: f64) -> Vec<f32> {
    let at = Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    uniform_vec(7, at, n, low, high)
}

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f64]) {
    let scale = expected.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        assert!(
            error <= 1e-5 * scale,
            "{what}[{i}]: {got} instead of {expected}"
        );
    }
}

#[test]
fn the_plain_convolution_is_the_oracles() {
    use speed::causal_conv::{Inputs, plain_backward, plain_forward};
    let (batch, seq_len, channels, d_conv) = (2, 19, 3, 4);
    let n = batch * seq_len * channels;
    let (x, d_y) = (drawn(0, n, -1.0, 1.0), drawn(1, n, -1.0, 1.0));
    let (weight, bias) = (
        drawn(2, channels * d_conv, -1.0, 1.0),
        drawn(3, channels, -1.0, 1.0),
    );
    let exact = oracle::causal_conv::Inputs {
        batch,
        seq_len,
        channels,
        d_conv,
        silu: true,
        x: double(&x),
        weight: double(&weight),
        bias: double(&bias),
        x0: vec![0.0; batch * (d_conv - 1) * channels],
    };
    let inputs = Inputs {
        seq_len,
        x: &x,
        weight: &weight,
        bias: &bias,
    };
    let mut y = vec![f32::NAN; n];
    plain_forward(inputs, &mut y);
    assert_close("y", &y, &exact.forward());
    let mut d = [n, weight.len(), channels].map(|n| vec![f32::NAN; n]);
    plain_backward(inputs, &d_y, &mut d);
    let want = exact.backward(&double(&d_y), &exact.x0);
    assert_close("d_x", &d[0], &want.d_x);
    assert_close("d_weight", &d[1], &want.d_weight);
    assert_close("d_bias", &d[2], &want.d_bias);
}

#[test]
fn the_plain_resolvents_are_the_oracles() {
    use speed::resolvent_diag::{plain_backward, plain_forward};
    const HEADS: usize = 3;
    let (batch, seq) = (2, 41);
    let n = batch * seq * HEADS;
    let (diag, d_g) = (drawn(0, n, -5.0, 5.0), drawn(1, 2 * n, -1.0, 1.0));
    let exact = oracle::resolvent_diag::Problem {
        batch,
        seq,
        heads: HEADS,
        diag: &double(&diag),
        coupling: &vec![1.0; n],
        shift: &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        g0: &[0.0; 2 * 2 * HEADS],
    };
    let mut g = vec![f32::NAN; 2 * n];
    plain_forward::<HEADS>(seq, &diag, &mut g);
    assert_close("g", &g, &exact.forward());
    let (mut d_diag, mut d_shift) = (vec![f32::NAN; n], vec![f32::NAN; 2 * HEADS]);
    plain_backward::<HEADS>(seq, (&g, &d_g), &mut d_diag, &mut d_shift);
    let want = exact.adjoint(&double(&d_g), &vec![0.0; 2 * batch * HEADS]);
    assert_close("d_diag", &d_diag, &want.diag);
    assert_close("d_shift", &d_shift, &want.shift);
}

#[test]
fn the_plain_bidirectional_resolvent_is_the_oracles() {
    use speed::resolvent_diag_bidirectional::{plain_backward, plain_forward, plain_published};
    let seq = 53;
    let (diag, d_full) = (drawn(0, seq, -5.0, 5.0), drawn(1, 2 * seq, -1.0, 1.0));
    let exact = oracle::resolvent_diag_bidirectional::Problem {
        batch: 1,
        seq,
        heads: 1,
        diag: &double(&diag),
        coupling: &vec![1.0; seq],
        shift: &[0.0, 1.0],
    };
    let mut scratch = [0; 3].map(|_| vec![[f32::NAN; 2]; seq]);
    plain_forward(&diag, scratch.each_mut().map(Vec::as_mut_slice));
    let full = scratch[2].concat();
    assert_close("full", &full, &exact.forward());
    let mut d_diag = vec![f32::NAN; seq];
    let slices = scratch.each_mut().map(Vec::as_mut_slice);
    let d_shift = plain_backward(&diag, &d_full, slices, &mut d_diag);
    let want = exact.adjoint(&double(&d_full));
    assert_close("d_diag", &d_diag, &want.diag);
    assert_close("d_shift", &d_shift, &want.shift);
    plain_published(&full, &d_full, &mut d_diag);
    let want = exact.published_of(&double(&full), &double(&d_full));
    assert_close("published", &d_diag, &want);
}

#[test]
fn the_plain_scan_is_the_oracles() {
    use speed::selective_scan::{Gradients, Inputs, plain_backward, plain_forward};
    let (seq, d_inner, d_state) = (23, 3, 4);
    let (n, n_shared, n_state) = (seq * d_inner, seq * d_state, d_inner * d_state);
    // `[d_state, d_inner]` here, the other way round there.
    let turned = |values: &[f64]| -> Vec<f64> {
        let at = |k: usize| values[k % d_inner * d_state + k / d_inner];
        (0..n_state).map(at).collect()
    };
    let (u, d_y) = (drawn(0, n, -1.0, 1.0), drawn(1, n, -1.0, 1.0));
    let (b, c) = (drawn(2, n_shared, -1.0, 1.0), drawn(3, n_shared, -1.0, 1.0));
    let (delta_raw, a) = (drawn(4, n, -4.0, 1.0), drawn(5, n_state, -3.0, -0.1));
    let (h0, d_last) = (drawn(6, n_state, -1.0, 1.0), drawn(7, n_state, -1.0, 1.0));
    let back = |values: &[f32]| -> Vec<f64> {
        let at = |k: usize| f64::from(values[k % d_state * d_inner + k / d_state]);
        (0..n_state).map(at).collect()
    };
    let dims = oracle::selective_scan::Dims {
        batch: 1,
        seq,
        d_inner,
        d_state,
    };
    let exact = oracle::selective_scan::Inputs {
        u: double(&u),
        delta_raw: double(&delta_raw),
        a: back(&a),
        b: double(&b),
        c: double(&c),
        h0: back(&h0),
        softplus: true,
    };
    let inputs = Inputs {
        d_inner,
        d_state,
        u: &u,
        delta_raw: &delta_raw,
        a: &a,
        b: &b,
        c: &c,
    };
    let (mut h, mut y) = (h0.clone(), vec![f32::NAN; n]);
    plain_forward(inputs, &mut h, &mut y);
    let (want_y, want_last) = oracle::selective_scan::forward(dims, &exact);
    assert_close("y", &y, &want_y);
    assert_close("last", &h, &turned(&want_last));
    let (mut d_h, mut got) = (d_last.clone(), Gradients::default());
    plain_backward(inputs, &h0, &d_y, &mut d_h, &mut got);
    let want = oracle::selective_scan::adjoint(dims, &exact, &double(&d_y), &back(&d_last));
    assert_close("d_u", &got.u, &want.u);
    assert_close("d_delta_raw", &got.delta_raw, &want.delta_raw);
    assert_close("d_a", &got.a, &turned(&want.a));
    assert_close("d_b", &got.b, &want.b);
    assert_close("d_c", &got.c, &want.c);
    assert_close("d_h0", &d_h, &turned(&want.h0));
}

#[test]
fn the_plain_loss_and_gather_are_the_oracles() {
    use oracle::linear_cross_entropy as exact;
    use speed::embedding::{plain_backward, plain_forward};
    use speed::linear_cross_entropy::{plain_gradients, plain_logits, plain_rows};
    let (tokens, d_model, vocab) = (5, 7, 11);
    let (x, weight) = (
        drawn(0, tokens * d_model, -1.0, 1.0),
        drawn(1, vocab * d_model, -1.0, 1.0),
    );
    let targets = [3, 0, 10, 3, 7];
    let (mut logits, mut nll) = (vec![0.0; tokens * vocab], vec![0.0; tokens]);
    plain_logits(&x, &weight, d_model, &mut logits);
    plain_rows(&mut logits, &targets, 0.2, &mut nll);
    let (mut d_x, mut d_weight) = (x.clone(), weight.clone());
    plain_gradients((&x, &weight), d_model, &logits, [&mut d_x, &mut d_weight]);
    let targets: Vec<usize> = targets.iter().map(|&target| target as usize).collect();
    let (x, weight) = (double(&x), double(&weight));
    assert_close("nll", &nll, &exact::nll(&x, &weight, d_model, &targets));
    let (want_x, want_weight) = exact::gradients(&x, &weight, d_model, &targets, 0.2);
    assert_close("d_x", &d_x, &want_x);
    assert_close("d_weight", &d_weight, &want_weight);

    let ids = [2_u32, 0, 2, 4];
    let (weight, d_y) = (drawn(2, 15, -1.0, 1.0), drawn(3, 12, -1.0, 1.0));
    let (mut y, mut d_weight) = (vec![0.0; 12], vec![f32::NAN; 15]);
    plain_forward(&weight, &ids, 3, &mut y);
    plain_backward(&d_y, &ids, 3, &mut d_weight);
    let ids = ids.map(|id| id as usize);
    assert_close(
        "rows",
        &y,
        &oracle::embedding::gather_rows(&double(&weight), 3, &ids),
    );
    assert_close(
        "sums",
        &d_weight,
        &oracle::embedding::d_weight(&double(&d_y), 5, 3, &ids),
    );
}

#[test]
fn the_plain_norm_gate_and_optimiser_are_the_oracles() {
    let (rows, width) = (5, 6);
    let n = rows * width;
    let [x, u, z, d] = [0, 1, 2, 3].map(|row| drawn(row, n, -1.0, 1.0));
    let weight = drawn(4, width, 0.5, 1.5);
    let mut out = vec![f32::NAN; n];
    let mut into = [0; 3].map(|_| vec![f32::NAN; n]);
    let mut d_weight = vec![f32::NAN; width];

    let norm = oracle::layers::RmsNorm::forward(&double(&x), &double(&weight));
    speed::rms_norm::plain_forward(&x, &weight, &mut out);
    assert_close("norm", &out, &norm.y);
    let (want_x, want_gamma) = norm.backward(&double(&weight), &double(&d));
    speed::rms_norm::plain_backward(&x, &weight, &d, &mut out, &mut d_weight);
    assert_close("d_x", &out, &want_x);
    assert_close("d_gamma", &d_weight, &want_gamma);

    let gate = oracle::skip_gate::Inputs {
        y: double(&x),
        u: double(&u),
        skip: double(&weight),
        z: double(&z),
    };
    speed::skip_gate::plain_forward([&x, &u, &z], &weight, &mut out);
    assert_close("gate", &out, &gate.forward());
    let want = gate.backward(&double(&d));
    let slices = into.each_mut().map(Vec::as_mut_slice);
    speed::skip_gate::plain_backward([&x, &u, &z], &weight, &d, slices, &mut d_weight);
    assert_close("d_y", &into[0], &want.d_y);
    assert_close("d_u", &into[1], &want.d_u);
    assert_close("d_z", &into[2], &want.d_z);
    assert_close("d_skip", &d_weight, &want.d_skip);

    let step = Step {
        betas: [0.9, 0.95],
        corrections: [0.1, 0.05],
        epsilon: 1e-8,
        rate: 1e-2,
        decay: Some(0.99),
    };
    let number = |v: f32| f64::from(v);
    let exact = oracle::optimiser::AdamW {
        betas: step.betas.map(|beta| (number(beta), 1.0 - number(beta))),
        corrections: step.corrections.map(number),
        epsilon: number(step.epsilon),
        rate: number(step.rate),
        decay: step.decay.map(number),
    };
    let v = drawn(5, n, 0.1, 1.0);
    let want = (0..n).map(|i| {
        let moments = [u[i], v[i]].map(number);
        exact.step(number(x[i]), number(d[i]), moments).0
    });
    let want: Vec<f64> = want.collect();
    let mut moved = x.clone();
    speed::adamw::plain(&mut moved, &d, [&mut u.clone(), &mut v.clone()], step);
    assert_close("p", &moved, &want);
    let squares = oracle::optimiser::squared_norm(&double(&x));
    assert_close("squares", &[speed::squared_norm::plain(&x)], &[squares]);
}

#[test]
fn a_given_cotangent_is_that_of_a_weighted_sum() {
    for device in [support::cpu(), support::wgpu()] {
        let device = device.autodiff();
        let (n, shape) = (24, [2, 3, 4]);
        let values = double(&drawn(0, n, -1.0, 1.0));
        let d_y = support::tensor(&double(&drawn(1, n, -1.0, 1.0)), shape, &device, DType::F32);
        let gradient = |given: bool| {
            let x = support::tensor(&values, shape, &device, DType::F32).require_grad();
            let y = x.clone() * x.clone();
            let gradients = if given {
                cotangent::given(y, d_y.clone()).backward()
            } else {
                (y * d_y.clone()).sum().backward()
            };
            support::values(x.grad(&gradients).unwrap())
        };
        assert_eq!(gradient(true), gradient(false));
    }
}

/// Two small operations on a device.
fn report(device: &str) -> KernelsReport {
    let hardware = open(&device.parse().unwrap(), None).unwrap();
    let mut heard = Vec::new();
    let operations = ["non_finite", "embedding"];
    let report = speed::kernels(&hardware, &operations, &mut |it| heard.push(it.clone())).unwrap();
    assert_eq!(report.kernels, heard);
    report
}

#[test]
fn kernels_are_measured_on_both_devices_and_their_shares_follow_from_the_times() {
    for device in ["cpu", "wgpu"] {
        let report = report(device);
        let of = |pass| report.kernels.iter().filter(|it| it.pass == pass).count();
        assert_eq!(
            (of(FlopsPass::Forward), of(FlopsPass::Backward)),
            (3, 2),
            "{device}"
        );
        for kernel in &report.kernels {
            let seconds = kernel.timing.seconds.get();
            assert!(
                seconds > 0.0 && kernel.plain.seconds.get() > 0.0,
                "{kernel:?}"
            );
            assert_eq!(kernel.plain.method, TimingMethod::WallClock);
            let share = kernel.bytes.0 as f64 / seconds / report.rates.copy.bytes_per_second.get();
            assert_eq!(kernel.copy_share.get(), share);
            // Gathering computes nothing, and its gradients are sums.
            assert_eq!(
                kernel.flops > 0,
                kernel.pass == FlopsPass::Backward,
                "{kernel:?}"
            );
        }
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(
            serde_json::from_str::<KernelsReport>(&json).unwrap(),
            report
        );
        let text = table(&report);
        assert!(
            text.contains("the device copies") && text.contains("embedding"),
            "{text}"
        );
        let drawing = draw(&report).unwrap();
        assert!(drawing.svg.contains("embedding") && drawing.svg.contains("GFLOP/s"));
        assert_eq!(
            drawing.notes,
            ["embedding forward", "non_finite forward"]
                .map(|name| format!("{name} computes nothing and is not shown"))
        );
    }
}

#[test]
fn every_kernel_of_the_catalog_runs_in_an_operation_that_is_measured() {
    let in_others = ["copy", "sum_rows"];
    for kernel in KERNELS.iter().filter(|it| !in_others.contains(&it.name)) {
        let runs = |operation: &str| kernel.name.starts_with(operation);
        assert!(speed::operations().any(runs), "{}", kernel.name);
    }
}

#[test]
fn a_picture_of_no_known_format_is_refused_before_anything_is_measured() {
    let output = assert_cmd::Command::cargo_bin("bkbench")
        .unwrap()
        .args(["kernels", "--device", "cpu", "--output", "roofline.txt"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains(".svg, .png or .pdf")
    );
}
