//! The launches of `ops::resolvent_diag` against its oracle, chunked both ways: with chunks that warm up
//! before their own rows, and with states carried through the chunks in three phases.

use super::{Buffer, assert_same_bits, double, run, single, sum_rows, workgroups_for};
use crate::compare::{Named, misses, normals};
use bkbench::math::oracle::resolvent_diag::Problem;
use bkbench::shader::{Kernel, Spec, catalog};

const WG_SIZE: u32 = 64;
const CHUNK: usize = 32;
/// Rows after which a wrong start is far below rounding, for the Im z and the couplings below; no whole tiles.
const WARM_UP: usize = 29;
/// Rows through workgroup memory are for fewer heads.
const HEADS_STAGED: usize = 16;

struct Case<'a> {
    problem: Problem<'a, f64>,
    varying: bool,
    /// Inputs in single precision: diag, coupling, shift, g0, `d_g`, `d_g_last`.
    inputs: [Vec<f32>; 6],
}

impl Case<'_> {
    fn spec(&self) -> Spec {
        Spec::new()
            .u32("WG_SIZE", WG_SIZE)
            .bool("VARYING", self.varying)
    }

    fn n_chunks(&self) -> usize {
        self.problem.seq.div_ceil(CHUNK)
    }

    /// A launch with one invocation an item, its buffers being some inputs and some outputs.
    fn launch(
        kernel: &Kernel,
        spec: &Spec,
        items: usize,
        buffers: &[Buffer<'_>],
        params: &[usize],
    ) -> Vec<Vec<f32>> {
        Self::launch_groups(
            kernel,
            spec,
            workgroups_for(items, WG_SIZE),
            buffers,
            params,
        )
    }

    fn launch_groups(
        kernel: &Kernel,
        spec: &Spec,
        workgroups: u32,
        buffers: &[Buffer<'_>],
        params: &[usize],
    ) -> Vec<Vec<f32>> {
        let params: Vec<u32> = params.iter().map(|&n| n as u32).collect();
        run(kernel, spec, workgroups, buffers, &params).expect("a kernel that runs")
    }

    /// A launch of whole chunks, whose rows travel through workgroup memory.
    fn launch_staged(
        &self,
        kernel: &Kernel,
        spec: Spec,
        buffers: &[Buffer<'_>],
        [warm_up, n_carried]: [usize; 2],
    ) -> Vec<Vec<f32>> {
        let Problem {
            batch, seq, heads, ..
        } = self.problem;
        let slots = WG_SIZE / heads as u32;
        Self::launch_groups(
            kernel,
            &spec.u32("HEADS", heads as u32),
            workgroups_for(batch * self.n_chunks(), slots),
            buffers,
            &[batch, seq, CHUNK, warm_up, n_carried],
        )
    }

    fn forward(&self, carried: bool, way: Way) -> Vec<f32> {
        let Problem {
            batch, seq, heads, ..
        } = self.problem;
        let [diag, coupling, shift, g0, ..] = self.inputs.each_ref().map(|v| Buffer::Floats(v));
        let n_chunks = self.n_chunks();
        let carry = if carried {
            let chunks = batch * n_chunks * heads;
            let buffers = [diag, coupling, shift, Buffer::Output(8 * chunks)];
            let kernel = &catalog::RESOLVENT_DIAG_FWD_REDUCE;
            let maps = Self::launch(
                kernel,
                &self.spec(),
                chunks,
                &buffers,
                &[batch, seq, heads, CHUNK],
            );
            let buffers = [Buffer::Floats(&maps[0]), g0, Buffer::Output(2 * chunks)];
            let (kernel, spec) = (
                &catalog::RESOLVENT_DIAG_FWD_SPINE,
                Spec::new().u32("WG_SIZE", WG_SIZE),
            );
            Self::launch(
                kernel,
                &spec,
                batch * heads,
                &buffers,
                &[batch, n_chunks, heads],
            )
            .swap_remove(0)
        } else {
            self.inputs[3].clone()
        };
        let (warm_up, n_carried) = if carried { (0, n_chunks) } else { (WARM_UP, 1) };
        let buffers = [
            diag,
            coupling,
            shift,
            Buffer::Floats(&carry),
            Buffer::Output(batch * seq * 2 * heads),
        ];
        let (kernel, columns) = match way {
            Way::Alone => (&catalog::RESOLVENT_DIAG_FWD, heads),
            Way::ByFour => (&catalog::RESOLVENT_DIAG_FWD_VEC4, heads / 4),
            Way::Staged => {
                let kernel = &catalog::RESOLVENT_DIAG_FWD_STAGED;
                return self
                    .launch_staged(kernel, self.spec(), &buffers, [warm_up, n_carried])
                    .swap_remove(0);
            }
        };
        let params = [batch, seq, columns, CHUNK, warm_up, n_carried];
        Self::launch(
            kernel,
            &self.spec(),
            batch * n_chunks * columns,
            &buffers,
            &params,
        )
        .swap_remove(0)
    }

    /// Gradients of diag, of a varying coupling, parts of that of the shift, and that of g0.
    fn backward(&self, g: &[f32], carried: bool, way: Way) -> Vec<Vec<f32>> {
        let Problem {
            batch, seq, heads, ..
        } = self.problem;
        let [_, coupling, _, g0, d_g, d_g_last] = self.inputs.each_ref().map(|v| Buffer::Floats(v));
        let (g, width, n_chunks) = (Buffer::Floats(g), 2 * heads, self.n_chunks());
        let chunks = batch * n_chunks * heads;
        let ends = if carried {
            let buffers = [coupling, g, d_g, Buffer::Output(4 * chunks)];
            let kernel = &catalog::RESOLVENT_DIAG_BWD_REDUCE;
            let maps = Self::launch(
                kernel,
                &self.spec(),
                chunks,
                &buffers,
                &[batch, seq, heads, CHUNK],
            );
            let output = Buffer::Output(batch * (1 + n_chunks) * width);
            let buffers = [Buffer::Floats(&maps[0]), g0, d_g_last, output];
            let (kernel, spec) = (
                &catalog::RESOLVENT_DIAG_BWD_SPINE,
                Spec::new().u32("WG_SIZE", WG_SIZE),
            );
            Self::launch(
                kernel,
                &spec,
                batch * heads,
                &buffers,
                &[batch, n_chunks, heads],
            )
            .swap_remove(0)
        } else {
            let rows = self.inputs[3]
                .chunks(width)
                .zip(self.inputs[5].chunks(width));
            rows.flat_map(|(start, end)| [start, end].concat())
                .collect()
        };
        // A constant coupling has no gradient: its one word stays what it was.
        let d_coupling = match self.varying {
            true => Buffer::Output(batch * seq * heads),
            false => Buffer::Updated(&[0.0]),
        };
        let buffers = [
            coupling,
            g,
            d_g,
            Buffer::Floats(&ends),
            Buffer::Output(batch * seq * heads),
            d_coupling,
            Buffer::Output(batch * n_chunks * width),
            Buffer::Output(batch * width),
        ];
        let warm_up = if carried { 0 } else { WARM_UP };
        let spec = self.spec().bool("CARRIED", carried);
        if way == Way::Staged {
            let kernel = &catalog::RESOLVENT_DIAG_BWD_STAGED;
            return self.launch_staged(kernel, spec, &buffers, [warm_up, 0]);
        }
        let params = [batch, seq, heads, CHUNK, warm_up];
        let kernel = &catalog::RESOLVENT_DIAG_BWD;
        Self::launch(kernel, &spec, chunks, &buffers, &params)
    }

    fn gradients(&self, out: &[Vec<f32>]) -> Vec<Named> {
        let d_coupling = match self.varying {
            true => double(&out[1]),
            false => Vec::new(),
        };
        let d_shift = sum_rows(&out[2], 2 * self.problem.heads);
        vec![
            ("d_diag", double(&out[0])),
            ("d_coupling", d_coupling),
            ("d_shift", double(&d_shift)),
            ("d_g0", double(&out[3])),
        ]
    }
}

/// How the heads of a row are run.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Alone,
    ByFour,
    Staged,
}

#[test]
fn resolvent_diag_matches_the_oracle_on_plain_wgpu() {
    for (batch, seq, heads, varying) in [
        (1, 1, 1, true),
        (2, 31, 3, true),
        (1, 33, 4, false),
        (3, 2203, 1, true),
        (2, 2203, 1, false),
        (2, 131, 5, true),
        (2, 64, 8, true),
        (2, 200, 15, false),
        (2, 33, 67, false),
        (1, 35, 260, true),
    ] {
        let n = batch * seq * heads;
        let single_exact = |v: f64| f64::from(v as f32);
        let diag = normals(0, n, 1.0);
        let coupling = match varying {
            true => normals(1, n, 0.3).into_iter().map(f64::abs).collect(),
            false => vec![single_exact(0.7); n],
        };
        let im_z = normals(2, heads, 0.3)
            .into_iter()
            .map(|v| single_exact(1.0 + v.abs()));
        let shift: Vec<f64> = normals(3, heads, 0.5).into_iter().chain(im_z).collect();
        let mut g0 = normals(4, batch * 2 * heads, 0.5);
        for row in g0.chunks_mut(2 * heads) {
            row[heads..].iter_mut().for_each(|v| *v = v.abs());
        }
        let (d_g, d_g_last) = (normals(5, 2 * n, 1.0), normals(6, batch * 2 * heads, 1.0));
        let problem = Problem {
            batch,
            seq,
            heads,
            diag: &diag,
            coupling: &coupling,
            shift: &shift,
            g0: &g0,
        };
        let stored = if varying {
            &coupling[..]
        } else {
            &coupling[..1]
        };
        let inputs = [&diag, stored, &shift, &g0, &d_g, &d_g_last].map(single);
        let case = Case {
            problem,
            varying,
            inputs,
        };

        let g = problem.forward();
        let adjoint = problem.adjoint(&d_g, &d_g_last);
        let expected = [
            ("d_diag", adjoint.diag),
            (
                "d_coupling",
                if varying {
                    adjoint.coupling
                } else {
                    Vec::new()
                },
            ),
            ("d_shift", adjoint.shift),
            ("d_g0", adjoint.g0),
        ];
        for carried in [false, true] {
            let what = format!("{batch} x {seq} x {heads}, carried: {carried}");
            let got = case.forward(carried, Way::Alone);
            let missed = misses(&[("g", double(&got))], &[("g", g.clone())], 2e-6);
            assert!(missed.is_empty(), "{what}: {missed:?}");
            if heads % 4 == 0 {
                let by_four = [("g by four", double(&case.forward(carried, Way::ByFour)))];
                let missed = misses(&by_four, &[("g by four", g.clone())], 2e-6);
                assert!(missed.is_empty(), "{what}: {missed:?}");
            }
            let gradients = case.backward(&got, carried, Way::Alone);
            let missed = misses(&case.gradients(&gradients), &expected, 1e-5);
            assert!(missed.is_empty(), "{what}: {missed:?}");
            if heads < HEADS_STAGED {
                let staged = case.forward(carried, Way::Staged);
                assert_same_bits(&staged, &got, &format!("{what}, g"));
                let missed = misses(&[("g", double(&staged))], &[("g", g.clone())], 2e-6);
                assert!(missed.is_empty(), "{what}, staged: {missed:?}");
                let staged = case.backward(&got, carried, Way::Staged);
                for (k, (staged, alone)) in staged.iter().zip(&gradients).enumerate() {
                    assert_same_bits(staged, alone, &format!("{what}, gradient {k}"));
                }
                let missed = misses(&case.gradients(&staged), &expected, 1e-5);
                assert!(missed.is_empty(), "{what}, staged: {missed:?}");
            }
        }
    }
}
