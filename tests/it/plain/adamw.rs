//! The launches of `ops::adamw` against its oracle.

use super::{Buffer, double, run, single, workgroups_for};
use crate::compare::{misses, normals};
use bkbench::math::oracle::optimiser;
use bkbench::shader::{Spec, catalog};

#[test]
fn adamw_matches_the_oracle_on_plain_wgpu() {
    let factors = [0.9f32, 0.95, 0.271, 0.142_625, 1e-8, 3e-3, 0.9997];
    let [
        beta_1,
        beta_2,
        correction_1,
        correction_2,
        epsilon,
        rate,
        decay,
    ] = factors.map(f64::from);
    let oracle = optimiser::AdamW {
        betas: [(beta_1, 1.0 - beta_1), (beta_2, 1.0 - beta_2)],
        corrections: [correction_1, correction_2],
        epsilon,
        rate,
        decay: Some(decay),
    };
    for n in [1, 255, 257, 1031] {
        let (p, g, m) = (normals(0, n, 1.0), normals(1, n, 1.0), normals(2, n, 0.5));
        let v: Vec<f64> = normals(3, n, 0.5).iter().map(|v| v.abs()).collect();
        let inputs = [&p, &g, &m, &v].map(|v| single(v));
        let inputs = inputs.each_ref().map(|v| Buffer::Floats(v));
        let buffers = [&inputs[..], &[Buffer::Output(n); 3]].concat();
        let params: Vec<u32> = [n as u32]
            .into_iter()
            .chain(factors.map(f32::to_bits))
            .collect();
        let spec = Spec::new().u32("WG_SIZE", 256);
        let workgroups = workgroups_for(n, 256);
        let got = run(&catalog::ADAMW, &spec, workgroups, &buffers, &params).unwrap();
        let stepped: Vec<(f64, [f64; 2])> = (0..n)
            .map(|i| oracle.step(p[i], g[i], [m[i], v[i]]))
            .collect();
        let got = [
            ("parameter", double(&got[0])),
            ("first", double(&got[1])),
            ("second", double(&got[2])),
        ];
        let expected = [
            ("parameter", stepped.iter().map(|s| s.0).collect()),
            ("first", stepped.iter().map(|s| s.1[0]).collect()),
            ("second", stepped.iter().map(|s| s.1[1]).collect()),
        ];
        let misses = misses(&got, &expected, 1e-6);
        assert!(misses.is_empty(), "{n}: {misses:?}");
    }
}
