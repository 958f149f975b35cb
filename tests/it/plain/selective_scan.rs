//! The launches of `ops::selective_scan` against its oracle.

use super::{Buffer, assert_same_bits, constant, double, run, single, sum_rows, workgroups_for};
use crate::compare::{Named, misses};
use crate::selective_scan::{expected, problem};
use bkbench::shader::{Kernel, Spec, catalog};

/// `[batch, columns, rows]` from `[batch, rows, columns]`.
fn turned(values: &[f64], rows: usize, columns: usize) -> Vec<f32> {
    let swap = |m: &[f64]| -> Vec<f32> {
        (0..m.len())
            .map(|k| m[k % rows * columns + k / rows] as f32)
            .collect()
    };
    values.chunks(rows * columns).flat_map(swap).collect()
}

fn turned_back(values: &[f32], rows: usize, columns: usize) -> Vec<f64> {
    double(&turned(&double(values), columns, rows))
}

#[test]
fn selective_scan_matches_the_oracle_on_plain_wgpu() {
    for size in [
        [1, 1, 1, 1],
        [2, 17, 5, 3],
        [3, 45, 12, 3],
        [1, 16, 64, 16],
        [2, 97, 67, 4],
    ] {
        let [batch, seq, d_inner, d_state] = size;
        let p = problem(size, true);
        let chunk = constant(&catalog::SELECTIVE_SCAN_FWD_REDUCE, "CHUNK") as usize;
        let n_chunks = seq.div_ceil(chunk);
        let per_channel = batch * n_chunks * d_inner;
        let per_state = batch * d_state * d_inner;
        let params = size.map(|n| n as u32);
        let dispatch = |kernel: &Kernel, items: usize, inputs: &[&[f32]], outputs: &[usize]| {
            let mut buffers: Vec<_> = inputs.iter().map(|v| Buffer::Floats(v)).collect();
            buffers.extend(outputs.iter().map(|&n| Buffer::Output(n)));
            let size = constant(kernel, "WG_SIZE");
            run(
                kernel,
                &Spec::new(),
                workgroups_for(items, size),
                &buffers,
                &params,
            )
            .unwrap()
        };

        let i = &p.inputs;
        let [u, delta_raw, b, c] = [&i.u, &i.delta_raw, &i.b, &i.c].map(|v| single(v));
        let (d_y, a) = (single(&p.d_y), turned(&i.a, d_inner, d_state));
        let [h0, d_h_last] = [&i.h0, &p.d_h_last].map(|v| turned(v, d_inner, d_state));
        let reduced = dispatch(
            &catalog::SELECTIVE_SCAN_FWD_REDUCE,
            per_channel,
            &[&u, &delta_raw, &a, &b],
            &[per_channel * d_state, per_channel],
        );
        let states = dispatch(
            &catalog::SELECTIVE_SCAN_FWD_SPINE,
            per_state,
            &[&a, &reduced[0], &reduced[1], &h0],
            &[per_state * (n_chunks + 1)],
        );
        let y = dispatch(
            &catalog::SELECTIVE_SCAN_FWD_APPLY,
            per_channel,
            &[&u, &delta_raw, &a, &b, &c, &states[0]],
            &[u.len()],
        );

        if d_inner % 4 == 0 {
            let whole = [Buffer::Output(states[0].len()), Buffer::Output(u.len())];
            let inputs = [&u, &delta_raw, &a, &b, &c, &h0].map(|v| Buffer::Floats(v));
            let chunks = |from: usize, to: usize, out: [Buffer<'_>; 2]| {
                let kernel = &catalog::SELECTIVE_SCAN_FWD_FUSED;
                let size = constant(kernel, "WG_SIZE");
                run(
                    kernel,
                    &Spec::new(),
                    workgroups_for(batch * d_inner / 4, size),
                    &[&inputs[..], &out].concat(),
                    &[batch, seq, d_inner / 4, d_state, from, to].map(|n| n as u32),
                )
                .unwrap()
            };
            let fused = chunks(0, n_chunks, whole);
            assert_same_bits(&fused[0], &states[0], &format!("{size:?}, states"));
            assert_same_bits(&fused[1], &y[0], &format!("{size:?}, y"));
            let missed = misses(&[("y", double(&fused[1]))], &expected(&p).0[..1], 5e-6);
            assert!(missed.is_empty(), "{size:?}, fused: {missed:?}");
            // The second launch goes on from the states that the first one left.
            let nothing = [&states[0], &u].map(|like| vec![f32::NAN; like.len()]);
            let out = nothing.each_ref().map(|v| Buffer::Updated(v));
            let first = chunks(0, n_chunks / 2, out);
            let out = [&first[0], &first[1]].map(|v| Buffer::Updated(v));
            let both = chunks(n_chunks / 2, n_chunks, out);
            assert!(both == fused, "{size:?}: in two launches");
        }

        let reduced = dispatch(
            &catalog::SELECTIVE_SCAN_BWD_REDUCE,
            per_channel,
            &[&delta_raw, &a, &c, &d_y],
            &[per_channel * d_state, per_channel, u.len()],
        );
        let spine = dispatch(
            &catalog::SELECTIVE_SCAN_BWD_SPINE,
            per_state,
            &[&a, &reduced[0], &reduced[1], &states[0], &d_h_last],
            &[2 * per_channel * d_state, per_state],
        );
        let tokens = b.chunks(d_state).zip(c.chunks(d_state));
        let bc = tokens
            .flat_map(|(b, c)| [b, c].concat())
            .collect::<Vec<f32>>();
        let channel = dispatch(
            &catalog::SELECTIVE_SCAN_BWD_CHANNEL,
            per_channel,
            &[&u, &delta_raw, &a, &bc, &d_y, &spine[0]],
            &[u.len(), u.len()],
        );
        let block = constant(&catalog::SELECTIVE_SCAN_BWD_STATE, "BLOCK") as usize;
        let n_blocks = d_inner.div_ceil(block);
        let state = dispatch(
            &catalog::SELECTIVE_SCAN_BWD_STATE,
            n_blocks * batch * n_chunks * d_state,
            &[&u, &reduced[2], &a, &bc, &d_y, &spine[0]],
            &[n_blocks * 2 * b.len(), per_channel * d_state],
        );
        let d_bc = double(&sum_rows(&state[0], 2 * b.len()));
        let d_a = sum_rows(&state[1], d_state * d_inner);

        let last = |v: &[f32]| v[v.len() - d_state * d_inner..].to_vec();
        let per_sequence = states[0].chunks((n_chunks + 1) * d_state * d_inner);
        let h_last = per_sequence.flat_map(last).collect::<Vec<_>>();
        let got: Vec<Named> = vec![
            ("y", double(&y[0])),
            ("h_last", turned_back(&h_last, d_inner, d_state)),
            ("d_u", double(&channel[0])),
            ("d_delta_raw", double(&channel[1])),
            ("d_a", turned_back(&d_a, d_inner, d_state)),
            ("d_b", d_bc[..b.len()].to_vec()),
            ("d_c", d_bc[b.len()..].to_vec()),
            ("d_h0", turned_back(&spine[1], d_inner, d_state)),
        ];
        let (mut want, gradients) = expected(&p);
        want.extend(gradients);
        let missed = misses(&got, &want, 5e-6);
        assert!(missed.is_empty(), "{size:?}: {missed:?}");
    }
}
