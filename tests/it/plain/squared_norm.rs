//! The launches of `ops::squared_norm` against its oracle.

use super::{Buffer, double, run, single, sum_rows, workgroups_for};
use crate::compare::{misses, normals};
use bkbench::math::oracle::optimiser;
use bkbench::shader::{Spec, catalog};

#[test]
fn squared_norm_matches_the_oracle_on_plain_wgpu() {
    for (n, n_parts) in [(1, 1), (1024, 1), (1025, 2), (131_000, 128)] {
        let x = normals(0, n, 2.0);
        let parts = run(
            &catalog::SQUARED_NORM,
            &Spec::new().u32("WG_SIZE", 64),
            workgroups_for(n_parts, 64),
            &[Buffer::Floats(&single(&x)), Buffer::Output(n_parts)],
            &[n as u32, n_parts as u32],
        )
        .unwrap();
        let got = [("sum", double(&sum_rows(&parts[0], 1)))];
        let expected = [("sum", vec![optimiser::squared_norm(&x)])];
        let misses = misses(&got, &expected, 2e-6);
        assert!(misses.is_empty(), "{n} in {n_parts}: {misses:?}");
    }
}
