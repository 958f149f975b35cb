//! Launches cut into dispatches short enough for watchdogs. `plain.rs` runs every kernel a workgroup at a
//! time; here the operations are large enough that the table of `ops::launch` cuts them on a software adapter.

use crate::support;
use bkbench::hardware::{adapter_of, adapters::Kind, read};
use bkbench::math::random::{Coordinate, Purpose, uniform_vec};
use bkbench::ops::{causal_conv, dispatches, embedding, resolvent_diag, selective_scan};
use burn::tensor::{Tensor, TensorData};
use std::process::Command;

/// Uniform values on the autodiff wgpu device, as a leaf of a graph.
fn drawn<const D: usize>(row: u32, shape: [usize; D], low: f64, high: f64) -> Tensor<D> {
    let coordinate = Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    let values = uniform_vec(7, coordinate, shape.iter().product(), low, high);
    let device = support::wgpu().autodiff();
    Tensor::from_data(TensorData::new(values, shape), &device)
}

fn bits(tensor: Tensor<3>) -> Vec<u32> {
    let values = read::floats(tensor, "reading a test's tensor").unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// That `run` gives a batch the bits it gives each of its rows alone, whose launches take one dispatch.
fn rows_keep_their_bits<const N: usize>(
    what: &str,
    inputs: &[Tensor<3>; N],
    run: impl Fn([Tensor<3>; N]) -> Vec<Tensor<3>>,
) {
    let leaves = |inputs: [Tensor<3>; N]| inputs.map(|t| t.detach().require_grad());
    let [batch, ..] = inputs[0].dims();
    let whole = run(leaves(inputs.clone()));
    for row in 0..batch {
        let alone = inputs.clone().map(|t| t.slice_dim(0, row..=row));
        for (k, (whole, alone)) in whole.iter().zip(run(leaves(alone))).enumerate() {
            let whole = bits(whole.clone().slice_dim(0, row..=row));
            assert!(whole == bits(alone), "{what}: output {k}, row {row}");
        }
    }
}

/// `y`, and the gradients of `y . d_y` by `inputs`.
fn with_gradients<const N: usize>(
    y: Tensor<3>,
    d_y: Tensor<3>,
    inputs: [&Tensor<3>; N],
) -> Vec<Tensor<3>> {
    let gradients = (y.clone() * d_y).sum().backward();
    let gradients = inputs.map(|input| input.grad(&gradients).unwrap());
    [y.inner()].into_iter().chain(gradients).collect()
}

#[test]
fn a_scan_in_several_dispatches_keeps_its_bits() {
    // By phases and chunk after chunk.
    for d_inner in [67, 68] {
        scans_keep_their_bits(d_inner);
    }
}

fn scans_keep_their_bits(d_inner: usize) {
    let (batch, seq, d_state) = (9, 515, 16);
    let per_channel = [batch, seq, d_inner];
    let per_state = [batch, seq, d_state];
    let state = [batch, d_inner, d_state];
    let inputs = [
        drawn(0, per_channel, -1.0, 1.0),
        drawn(1, per_channel, -6.0, -2.0),
        drawn(2, per_state, -1.0, 1.0),
        drawn(3, per_state, -1.0, 1.0),
        drawn(4, state, -1.0, 1.0),
        drawn(5, state, -1.0, 1.0),
        drawn(6, per_channel, -1.0, 1.0),
    ];
    let a = drawn(7, [d_inner, d_state], -16.0, -1.0);
    rows_keep_their_bits("selective_scan", &inputs, |inputs| {
        let [u, delta_raw, b, c, h0, d_h_last, d_y] = inputs;
        let scan = selective_scan::Inputs {
            u: u.clone(),
            delta_raw: delta_raw.clone(),
            a: a.clone(),
            b: b.clone(),
            c: c.clone(),
            softplus: true,
        };
        let y = selective_scan::train(scan, h0.clone(), d_h_last.detach()).unwrap();
        with_gradients(y, d_y.detach(), [&u, &delta_raw, &b, &c, &h0])
    });
}

#[test]
fn a_resolvent_in_several_dispatches_keeps_its_bits() {
    let (batch, seq) = (5, 1030);
    // By warm-up and in three phases, alone and by four.
    for (heads, eta) in [(67, 1.0f32), (68, 0.001)] {
        let (rows, state) = ([batch, seq, heads], [batch, 1, 2 * heads]);
        let inputs = [
            drawn(0, rows, -2.0, 2.0),
            drawn(1, rows, 0.5, 1.0),
            drawn(2, state, 0.0, 1.0),
            drawn(3, state, -1.0, 1.0),
            drawn(4, [batch, seq, 2 * heads], -1.0, 1.0),
        ];
        let shift = drawn(5, [2, heads], eta.into(), 2.0);
        rows_keep_their_bits("resolvent_diag", &inputs, |inputs| {
            let [diag, coupling, g0, d_g_last, d_g] = inputs;
            let state = |t: &Tensor<3>| t.clone().squeeze_dim::<2>(1);
            let g = resolvent_diag::train(
                diag.clone(),
                resolvent_diag::Coupling::Varying(coupling.clone()),
                shift.clone(),
                state(&g0),
                state(&d_g_last).detach(),
                eta,
            )
            .unwrap();
            with_gradients(g, d_g.detach(), [&diag, &coupling, &g0])
        });
    }
}

#[test]
fn a_resolvent_from_both_sides_in_several_dispatches_keeps_its_bits() {
    let (batch, seq, heads) = (5, 1030, 67);
    let inputs = [
        drawn(0, [batch, seq, heads], -2.0, 2.0),
        drawn(1, [batch, seq, heads], 0.5, 1.0),
        drawn(2, [batch, seq, 2 * heads], -1.0, 1.0),
    ];
    let shift = drawn(3, [2, heads], 1.0, 2.0);
    rows_keep_their_bits("bidirectional", &inputs, |inputs| {
        let [diag, coupling, d_full] = inputs;
        let full = resolvent_diag::bidirectional::diagonal(
            diag.clone(),
            resolvent_diag::Coupling::Varying(coupling.clone()),
            shift.clone(),
            1.0,
            resolvent_diag::bidirectional::Gradient::Exact,
        );
        with_gradients(full.unwrap(), d_full.detach(), [&diag, &coupling])
    });
}

#[test]
fn a_convolution_in_several_dispatches_keeps_its_bits() {
    let (batch, seq, channels, d_conv) = (5, 1027, 131, 4);
    let (all, state) = ([batch, seq, channels], [batch, d_conv - 1, channels]);
    let inputs = [
        drawn(0, all, -2.0, 2.0),
        drawn(1, state, -2.0, 2.0),
        drawn(2, state, -1.0, 1.0),
        drawn(3, all, -1.0, 1.0),
    ];
    let weight = drawn(4, [channels, d_conv], -1.0, 1.0);
    let bias = drawn(5, [channels], -1.0, 1.0);
    rows_keep_their_bits("causal_conv", &inputs, |inputs| {
        let [x, x0, d_x_last, d_y] = inputs;
        let y = causal_conv::train(
            x.clone(),
            weight.clone(),
            bias.clone(),
            x0.clone(),
            d_x_last.detach(),
            causal_conv::Activation::Silu,
        )
        .unwrap();
        with_gradients(y, d_y.detach(), [&x, &x0])
    });
}

#[test]
fn a_gather_takes_as_many_dispatches_as_the_adapter_needs() {
    // The count is of the whole process, so it takes one without other tests.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dispatches::the_dispatches_of_a_gather"])
        .args(["--ignored", "--nocapture"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "run by the test above in a process of its own; scripts/test.sh skips it"]
fn the_dispatches_of_a_gather() {
    // 66,000 workgroups: more than one dimension holds.
    let (n, rows, d) = (66_000, 257, 256);
    let device = support::wgpu();
    let expected = match adapter_of(&device).unwrap().kind {
        Kind::Software => 66_000_u64.div_ceil(4096),
        _ => 2,
    };
    let values: Vec<f32> = (0..rows * d).map(|i| i as f32).collect();
    let weight = Tensor::<2>::from_data(TensorData::new(values.clone(), [rows, d]), &device);
    let ids: Vec<u32> = (0..n).map(|p| p * 7919 % rows as u32).collect();
    let before = dispatches();
    let y = embedding::gather_rows(weight, &ids).unwrap();
    assert_eq!(dispatches() - before, expected);
    let y = read::floats(y, "reading a test's tensor").unwrap();
    for (row, &id) in y.chunks(d).zip(&ids) {
        assert_eq!(row, &values[id as usize * d..][..d]);
    }
}

#[test]
fn a_scan_whose_states_the_adapter_cannot_bind_is_refused() {
    let device = support::wgpu();
    let (seq, d_inner) = (4096, 256);
    let per_state = 4 * d_inner * seq / 16;
    let d_state = adapter_of(&device).unwrap().limits.binding.0 as usize / (2 * per_state) + 1;
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    let inputs = selective_scan::Inputs {
        u: zeros([1, seq, d_inner]),
        delta_raw: zeros([1, seq, d_inner]),
        a: Tensor::zeros([d_inner, d_state], &device),
        b: zeros([1, seq, d_state]),
        c: zeros([1, seq, d_state]),
        softplus: true,
    };
    let state = zeros([1, d_inner, d_state]);
    let refused = selective_scan::train(inputs, state.clone(), state).unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    let message = refused.to_string();
    assert!(message.contains("into segments"), "{message}");
}
