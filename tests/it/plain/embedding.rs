//! The launches of `ops::embedding` against its oracle.

use super::{Buffer, double, run, single, workgroups_for};
use crate::compare::{indices, misses, normals};
use bkbench::math::oracle::embedding as oracle;
use bkbench::shader::{Spec, catalog};

/// Positions sorted by the row they gather, in groups of at most `size`: the order, the groups' bounds,
/// and the first group of every row.
fn plan(ids: &[u32], n_rows: usize, size: usize) -> [Vec<u32>; 3] {
    let (mut order, mut bounds, mut row_groups) = (vec![], vec![0], vec![0]);
    for row in 0..n_rows as u32 {
        let positions: Vec<u32> = (0..ids.len() as u32)
            .filter(|&p| ids[p as usize] == row)
            .collect();
        for group in positions.chunks(size) {
            order.extend(group);
            bounds.push(order.len() as u32);
        }
        row_groups.push(bounds.len() as u32 - 1);
    }
    [order, bounds, row_groups]
}

#[test]
fn embedding_matches_the_oracle_on_plain_wgpu() {
    for (n, n_rows, d) in [(1, 1, 1), (7, 3, 5), (257, 64, 3), (300, 1000, 17)] {
        let ids = indices(0, n, n_rows);
        let (weight, d_y) = (normals(1, n_rows * d, 1.0), normals(2, n * d, 1.0));
        let (weight32, d_y32) = (single(&weight), single(&d_y));
        let spec = Spec::new().u32("WG_SIZE", 256);
        let ask = |kernel, inputs: &[Buffer<'_>], rows: usize| {
            let buffers = [inputs, &[Buffer::Output(rows * d)]].concat();
            let workgroups = workgroups_for(rows * d, 256);
            run(
                kernel,
                &spec,
                workgroups,
                &buffers,
                &[rows as u32, d as u32],
            )
            .unwrap()
            .swap_remove(0)
        };

        let y = ask(
            &catalog::EMBEDDING_FWD,
            &[Buffer::Words(&ids), Buffer::Floats(&weight32)],
            n,
        );
        let [order, bounds, row_groups] = plan(&ids, n_rows, 4);
        let groups = [
            Buffer::Words(&order),
            Buffer::Words(&bounds),
            Buffer::Floats(&d_y32),
        ];
        let parts = ask(&catalog::EMBEDDING_BWD_REDUCE, &groups, bounds.len() - 1);
        let rows = [Buffer::Words(&row_groups), Buffer::Floats(&parts)];
        let d_weight = ask(&catalog::EMBEDDING_BWD_APPLY, &rows, n_rows);

        let ids: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let got = [("y", double(&y)), ("d_weight", double(&d_weight))];
        let expected = [
            ("y", oracle::gather_rows(&weight, d, &ids)),
            ("d_weight", oracle::d_weight(&d_y, n_rows, d, &ids)),
        ];
        let misses = misses(&got, &expected, 1e-6);
        assert!(misses.is_empty(), "{n} of {n_rows} x {d}: {misses:?}");
    }
}
