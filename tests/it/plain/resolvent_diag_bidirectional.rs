//! The launches of `ops::resolvent_diag::bidirectional` against its oracle.

use super::{Buffer, assert_same_bits, double, run, single, sum_rows, workgroups_for};
use crate::compare::{misses, normals};
use bkbench::math::oracle::resolvent_diag_bidirectional::Problem;
use bkbench::shader::{Kernel, Spec, catalog};

const WG_SIZE: u32 = 64;
const CHUNK: usize = 32;
/// Rows after which a wrong start is far below rounding, for the Im z and the couplings below; no whole tiles.
const WARM_UP: usize = 29;
/// Rows through workgroup memory are for fewer heads.
const HEADS_STAGED: usize = 16;

/// A launch of a kernel of one of the sides, whose buffers are some inputs and some outputs.
fn launch(
    p: &Problem<'_, f64>,
    kernel: &Kernel,
    spec: &Spec,
    buffers: &[Buffer<'_>],
) -> Vec<Vec<f32>> {
    let items = p.batch * p.seq.div_ceil(CHUNK) * p.heads;
    let params = [p.batch, p.seq, p.heads, CHUNK, WARM_UP].map(|n| n as u32);
    run(
        kernel,
        spec,
        workgroups_for(items, WG_SIZE),
        buffers,
        &params,
    )
    .expect("a kernel that runs")
}

#[test]
fn resolvent_diag_bidirectional_matches_the_oracle_on_plain_wgpu() {
    for (batch, seq, heads, varying) in [
        (1, 1, 1, true),
        (2, 31, 3, true),
        (1, 33, 4, false),
        (3, 2203, 1, true),
        (2, 131, 5, true),
        (2, 64, 8, true),
        (2, 200, 15, false),
        (2, 33, 67, false),
        (1, 35, 260, true),
    ] {
        let n = batch * seq * heads;
        let single_exact = |v: f64| f64::from(v as f32);
        let diag = normals(0, n, 1.0);
        let coupling = if varying {
            normals(1, n, 0.3).into_iter().map(f64::abs).collect()
        } else {
            vec![single_exact(0.7); n]
        };
        let im_z = normals(2, heads, 0.3)
            .into_iter()
            .map(|v| single_exact(1.0 + v.abs()));
        let shift: Vec<f64> = normals(3, heads, 0.5).into_iter().chain(im_z).collect();
        let d_full = normals(5, 2 * n, 1.0);
        let p = Problem {
            batch,
            seq,
            heads,
            diag: &diag,
            coupling: &coupling,
            shift: &shift,
        };
        let (full, want) = (p.forward(), p.adjoint(&d_full));

        let spec = Spec::new().u32("WG_SIZE", WG_SIZE);
        let cut = |x: &[f64]| single(if varying { x } else { &x[..1] });
        let (diag, coupling, shift) = (single(&diag), cut(&coupling), single(&shift));
        let [diag, coupling, shift] = [&diag, &coupling, &shift].map(|v| Buffer::Floats(v));
        let causal = bkbench::math::oracle::resolvent_diag::Problem {
            batch,
            seq,
            heads,
            diag: p.diag,
            coupling: p.coupling,
            shift: p.shift,
            g0: &vec![0.0; batch * 2 * heads],
        };
        let g = single(&causal.forward());
        let from_right = |combine| {
            let spec = spec
                .clone()
                .bool("VARYING", varying)
                .bool("COMBINE", combine);
            let buffers = [
                diag,
                coupling,
                shift,
                Buffer::Floats(&g),
                Buffer::Output(2 * n),
            ];
            let kernel = &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_FWD;
            let alone = launch(&p, kernel, &spec, &buffers).swap_remove(0);
            if heads < HEADS_STAGED {
                let chunks = batch * seq.div_ceil(CHUNK);
                let staged = run(
                    &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_FWD_STAGED,
                    &spec.u32("HEADS", heads as u32),
                    workgroups_for(chunks, WG_SIZE / heads as u32),
                    &buffers,
                    &[batch, seq, CHUNK, WARM_UP].map(|n| n as u32),
                )
                .expect("a kernel that runs");
                let missed = misses(&[("", double(&staged[0]))], &[("", double(&alone))], 2e-6);
                assert!(missed.is_empty(), "{batch} x {seq} x {heads}: {missed:?}");
                assert_same_bits(&staged[0], &alone, &format!("{batch} x {seq} x {heads}"));
            }
            alone
        };
        let (combined, r) = (from_right(true), from_right(false));

        let (full32, d_full32) = (single(&full), single(&d_full));
        let from_side = |states: &[f32], from_left, out: [Buffer<'_>; 3]| {
            let spec = spec
                .clone()
                .bool("VARYING", varying)
                .bool("FROM_LEFT", from_left);
            let inputs = [states, &full32, &d_full32].map(Buffer::Floats);
            let buffers = [&[coupling][..], &inputs, &out].concat();
            let kernel = &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_BWD;
            launch(&p, kernel, &spec, &buffers)
        };
        // A constant coupling has no gradient: its one word stays what it was.
        let d_coupling = if varying {
            Buffer::Output(n)
        } else {
            Buffer::Updated(&[0.0])
        };
        let n_parts = batch * seq.div_ceil(CHUNK) * 2 * heads;
        let out = [Buffer::Output(n), d_coupling, Buffer::Output(n_parts)];
        let half = from_side(&g, false, out);
        let out = [&half[0], &half[1], &half[2]].map(|v| Buffer::Updated(v));
        let both = from_side(&r, true, out);

        let buffers = [
            Buffer::Floats(&full32),
            Buffer::Floats(&d_full32),
            Buffer::Output(n),
        ];
        let kernel = &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_PUBLISHED;
        let (groups, sizes) = (workgroups_for(n, WG_SIZE), [n as u32, heads as u32]);
        let published = run(kernel, &spec, groups, &buffers, &sizes).expect("a kernel that runs");

        let mut got = vec![
            ("full", double(&combined)),
            ("d_diag", double(&both[0])),
            ("d_shift", double(&sum_rows(&both[2], 2 * heads))),
            ("published", double(&published[0])),
        ];
        let mut expected = vec![
            ("full", full),
            ("d_diag", want.diag),
            ("d_shift", want.shift),
            ("published", p.published(&d_full)),
        ];
        if varying {
            got.push(("d_coupling", double(&both[1])));
            expected.push(("d_coupling", want.coupling));
        }
        let missed = misses(&got, &expected, 5e-6);
        assert!(missed.is_empty(), "{batch} x {seq} x {heads}: {missed:?}");
    }
}
