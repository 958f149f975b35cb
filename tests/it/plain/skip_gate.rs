//! The launches of `ops::skip_gate` against its oracle.

use super::{Buffer, constant, double, run, single, sum_rows, workgroups_for};
use crate::compare::{misses, normals};
use bkbench::math::oracle::skip_gate::Inputs;
use bkbench::shader::{Spec, catalog};

#[test]
fn skip_gate_matches_the_oracle_on_plain_wgpu() {
    let chunk = constant(&catalog::SKIP_GATE_BWD, "CHUNK");
    for (rows, channels) in [(1, 1), (31, 5), (33, 64), (97, 257)] {
        let n = rows * channels;
        let p = Inputs {
            y: normals(0, n, 1.0),
            u: normals(1, n, 1.0),
            skip: normals(2, channels, 1.0),
            z: normals(3, n, 3.0),
        };
        let d_out = normals(4, n, 1.0);
        let inputs = [&p.y, &p.u, &p.skip, &p.z, &d_out].map(|v| single(v));
        let inputs = inputs.each_ref().map(|v| Buffer::Floats(v));
        let params = [rows as u32, channels as u32];
        let spec = Spec::new().u32("WG_SIZE", 256);
        let out = run(
            &catalog::SKIP_GATE_FWD,
            &spec,
            workgroups_for(n, 256),
            &[&inputs[..4], &[Buffer::Output(n)]].concat(),
            &params,
        )
        .unwrap();
        let n_parts = rows.div_ceil(chunk as usize) * channels;
        let outputs = [n, n, n_parts].map(Buffer::Output);
        let gradients = run(
            &catalog::SKIP_GATE_BWD,
            &spec.u32("CHUNK", chunk),
            workgroups_for(n_parts, 256),
            &[&inputs[..], &outputs].concat(),
            &params,
        )
        .unwrap();
        let want = p.backward(&d_out);
        let got = [
            ("out", double(&out[0])),
            ("d_y", double(&gradients[0])),
            ("d_z", double(&gradients[1])),
            ("d_skip", double(&sum_rows(&gradients[2], channels))),
        ];
        let expected = [
            ("out", p.forward()),
            ("d_y", want.d_y),
            ("d_z", want.d_z),
            ("d_skip", want.d_skip),
        ];
        let misses = misses(&got, &expected, 1e-5);
        assert!(misses.is_empty(), "{rows} x {channels}: {misses:?}");
    }
}
