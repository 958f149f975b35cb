//! The launches of `ops::linear_cross_entropy` against its oracle.

use super::{Buffer, double, run, single};
use crate::compare::{indices, misses, normals};
use bkbench::math::oracle::linear_cross_entropy as oracle;
use bkbench::shader::{Spec, catalog};

/// The oracle at width 1 with `x = 1`: then the weights are the logits of every row.
fn expected(logits: &[f64], vocab: usize, targets: &[u32], scale: f64) -> (Vec<f64>, Vec<f64>) {
    let rows = logits.chunks(vocab).zip(targets);
    let rows = rows.map(|(row, &target)| {
        let target = [target as usize];
        let nll = oracle::nll(&[1.0], row, 1, &target)[0];
        (nll, oracle::gradients(&[1.0], row, 1, &target, scale).1)
    });
    let (nll, d_logits): (Vec<f64>, Vec<Vec<f64>>) = rows.unzip();
    (nll, d_logits.concat())
}

#[test]
fn linear_cross_entropy_matches_the_oracle_on_plain_wgpu() {
    for (rows, vocab) in [(1, 1), (2, 3), (3, 63), (5, 64), (2, 65), (7, 1031)] {
        let (logits, targets) = (normals(0, rows * vocab, 3.0), indices(1, rows, vocab));
        let logits32 = single(&logits);
        let scale = 0.125f32;
        let buffers = [
            Buffer::Words(&targets),
            Buffer::Updated(&logits32),
            Buffer::Output(rows),
        ];
        let params = [rows as u32, vocab as u32, scale.to_bits()];
        let ask = |gradient| {
            let spec = Spec::new().u32("WG_SIZE", 64).bool("GRADIENT", gradient);
            let kernel = &catalog::LINEAR_CROSS_ENTROPY_FWD;
            run(kernel, &spec, rows as u32, &buffers, &params).unwrap()
        };
        let (infer, train) = (ask(false), ask(true));
        assert_eq!(infer[0], logits32, "without the gradient the logits stay");
        assert_eq!(
            infer[1], train[1],
            "with and without the gradient the loss is the same"
        );

        let (nll, d_logits) = expected(&logits, vocab, &targets, scale.into());
        let got = [("nll", double(&train[1])), ("d_logits", double(&train[0]))];
        let misses = misses(&got, &[("nll", nll), ("d_logits", d_logits)], 2e-6);
        assert!(misses.is_empty(), "{rows} x {vocab}: {misses:?}");
    }
}
