//! The launches of `ops::rms_norm` against its oracle.

use super::{Buffer, constant, double, run, single, sum_rows, workgroups_for};
use crate::compare::{misses, normals};
use bkbench::math::oracle::layers::RmsNorm;
use bkbench::shader::{Spec, catalog};

#[test]
fn rms_norm_matches_the_oracle_on_plain_wgpu() {
    let chunk = constant(&catalog::RMS_NORM_BWD_GAMMA, "CHUNK");
    for (rows, width) in [(1, 2), (31, 63), (33, 64), (97, 257)] {
        let n = rows * width;
        let (x, gamma, d_y) = (
            normals(0, n, 2.0),
            normals(1, width, 1.0),
            normals(2, n, 1.0),
        );
        let [x32, gamma32, d_y32] = [&x, &gamma, &d_y].map(|v| single(v));
        let [x_in, gamma_in, d_y_in] = [&x32, &gamma32, &d_y32].map(|v| Buffer::Floats(v));
        let params = [rows as u32, width as u32, 1e-5f32.to_bits()];
        let spec = Spec::new().u32("WG_SIZE", 64);
        let forward = run(
            &catalog::RMS_NORM_FWD,
            &spec,
            rows as u32,
            &[x_in, gamma_in, Buffer::Output(n)],
            &params,
        )
        .unwrap();
        let backward = run(
            &catalog::RMS_NORM_BWD,
            &spec,
            rows as u32,
            &[
                x_in,
                gamma_in,
                d_y_in,
                Buffer::Output(n),
                Buffer::Output(rows),
            ],
            &params,
        )
        .unwrap();
        let n_parts = rows.div_ceil(chunk as usize) * width;
        let parts = run(
            &catalog::RMS_NORM_BWD_GAMMA,
            &spec.u32("CHUNK", chunk),
            workgroups_for(n_parts, 64),
            &[
                x_in,
                d_y_in,
                Buffer::Floats(&backward[1]),
                Buffer::Output(n_parts),
            ],
            &params[..2],
        )
        .unwrap();
        let norm = RmsNorm::forward(&x, &gamma);
        let (d_x, d_gamma) = norm.backward(&gamma, &d_y);
        let got = [
            ("y", double(&forward[0])),
            ("d_x", double(&backward[0])),
            ("d_gamma", double(&sum_rows(&parts[0], width))),
        ];
        let expected = [("y", norm.y), ("d_x", d_x), ("d_gamma", d_gamma)];
        let misses = misses(&got, &expected, 1e-5);
        assert!(misses.is_empty(), "{rows} x {width}: {misses:?}");
    }
}
