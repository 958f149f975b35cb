//! The launches of `ops::packed_matmul` against its oracle.

use super::{Buffer, constant, double, run, single, workgroups_for};
use crate::compare::misses;
use crate::packed_matmul::{SIZES, expected, problem};
use bkbench::quant::BitWidth;
use bkbench::shader::{Spec, catalog};

#[test]
fn packed_matmul_matches_the_oracle_on_plain_wgpu() {
    const TILE: usize = 32;
    let decode = &catalog::PACKED_MATMUL_DECODE;
    let rows_at_once = constant(decode, "WG_SIZE") / constant(decode, "LANES");
    for width in BitWidth::ALL {
        for size in SIZES {
            let p = problem(width, size);
            let [tokens, columns, rows] = size;
            let (x, words) = (single(&p.x), &p.packed.words);
            let spec = Spec::new().u32("BITS", width.bits());
            let ask = |kernel, workgroups, first: Buffer<'_>, n: usize, n_out: usize| {
                let params = [n as u32, rows as u32, columns as u32];
                let buffers = [first, Buffer::Words(words), Buffer::Output(n_out)];
                let outputs = run(kernel, &spec, workgroups, &buffers, &params);
                double(&outputs.unwrap()[0])
            };

            // Both kernels at every number of tokens: which one the operation takes is not their affair.
            let workgroups = tokens as u32 * workgroups_for(rows, rows_at_once);
            let few = ask(
                decode,
                workgroups,
                Buffer::Floats(&x),
                tokens,
                tokens * rows,
            );
            let workgroups = (tokens.div_ceil(TILE) * rows.div_ceil(TILE)) as u32;
            let prefill = &catalog::PACKED_MATMUL_PREFILL;
            let many = ask(
                prefill,
                workgroups,
                Buffer::Floats(&x),
                tokens,
                tokens * rows,
            );
            let gather = &catalog::PACKED_MATMUL_GATHER;
            let n_out = p.ids.len() * columns;
            let workgroups = workgroups_for(n_out, constant(gather, "WG_SIZE"));
            let gathered = ask(
                gather,
                workgroups,
                Buffer::Words(&p.ids),
                p.ids.len(),
                n_out,
            );

            let [y, rows] = expected(&p);
            assert_eq!(gathered, rows.1, "{width} {size:?}: rows are exact");
            let got = [("y", few), ("y", many)];
            let missed = misses(&got, &[y.clone(), y], 1e-6);
            assert!(missed.is_empty(), "{width} {size:?}: {missed:?}");
        }
    }
}
