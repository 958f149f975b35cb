//! The launches of `ops::causal_conv` against its oracle.

use super::{Buffer, constant, double, run, single, sum_rows, workgroups_for};
use crate::compare::{misses, normals};
use bkbench::math::oracle::causal_conv::Inputs;
use bkbench::shader::{Spec, catalog};

#[test]
fn causal_conv_matches_the_oracle_on_plain_wgpu() {
    for (batch, seq_len, channels, d_conv) in
        [(1, 1, 1, 2), (2, 2, 5, 4), (1, 33, 64, 5), (2, 97, 257, 4)]
    {
        let n = batch * seq_len * channels;
        let n_state = batch * (d_conv - 1) * channels;
        let p = Inputs {
            batch,
            seq_len,
            channels,
            d_conv,
            silu: true,
            x: normals(0, n, 2.0),
            weight: normals(1, channels * d_conv, 0.7),
            bias: normals(2, channels, 0.5),
            x0: normals(3, n_state, 2.0),
        };
        let (d_y, d_x_last) = (normals(4, n, 1.0), normals(5, n_state, 1.0));
        let inputs = [&p.x, &p.weight, &p.bias, &p.x0, &d_y, &d_x_last].map(|v| single(v));
        let inputs = inputs.each_ref().map(|v| Buffer::Floats(v));
        let params = [batch, seq_len, channels].map(|n| n as u32);
        let spec = |size| {
            Spec::new()
                .u32("WG_SIZE", size)
                .u32("D_CONV", d_conv as u32)
                .bool("SILU", true)
        };
        let chunk = constant(&catalog::CAUSAL_CONV_BWD, "CHUNK");
        let chunked = spec(256).u32("CHUNK", chunk);
        let n_parts = batch * seq_len.div_ceil(chunk as usize);

        let buffers = [&inputs[..4], &[Buffer::Output(n)]].concat();
        let workgroups = workgroups_for(n_parts * channels, 256);
        let forward = run(
            &catalog::CAUSAL_CONV_FWD,
            &chunked,
            workgroups,
            &buffers,
            &params,
        )
        .unwrap();

        let width = (d_conv + 1) * channels;
        let buffers = [
            &inputs[..],
            &[Buffer::Output(n), Buffer::Output(n_parts * width)],
        ]
        .concat();
        let backward = run(
            &catalog::CAUSAL_CONV_BWD,
            &chunked,
            workgroups,
            &buffers,
            &params,
        )
        .unwrap();
        let sums = sum_rows(&backward[1], width);

        let buffers = [&inputs[..], &[Buffer::Output(n_state)]].concat();
        let workgroups = workgroups_for(n_state, 64);
        let d_x0 = run(
            &catalog::CAUSAL_CONV_BWD_X0,
            &spec(64),
            workgroups,
            &buffers,
            &params,
        )
        .unwrap();

        let g = p.backward(&d_y, &d_x_last);
        let taps = |channel| (0..d_conv).map(move |tap| tap * channels + channel);
        let d_weight = (0..channels)
            .flat_map(taps)
            .map(|i| sums[i])
            .collect::<Vec<_>>();
        let got = [
            ("y", double(&forward[0])),
            ("d_x", double(&backward[0])),
            ("d_weight", double(&d_weight)),
            ("d_bias", double(&sums[d_conv * channels..])),
            ("d_x0", double(&d_x0[0])),
        ];
        let expected = [
            ("y", p.forward()),
            ("d_x", g.d_x),
            ("d_weight", g.d_weight),
            ("d_bias", g.d_bias),
            ("d_x0", g.d_x0),
        ];
        let misses = misses(&got, &expected, 1e-5);
        assert!(
            misses.is_empty(),
            "{batch} x {seq_len} x {channels}, {d_conv} taps: {misses:?}"
        );
    }
}
