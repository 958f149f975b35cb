//! Launches of `shaders/resolvent_diag_bidirectional_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::autodiff::{BidirectionalBackend, BidirectionalGradient, Saved};
use crate::ops::launch::{Work, empty, launch, upload};
use crate::ops::resolvent_diag::wgsl::{causal, is_staged, staged_work};
use crate::ops::resolvent_diag::{Bounds, Plan};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 64;

impl BidirectionalBackend for CubeBackend {
    fn bidirectional(
        diag: CubeTensor,
        coupling: CubeTensor,
        shift: CubeTensor,
        bounds: Bounds,
    ) -> CubeTensor {
        let [diag, coupling, shift] = [diag, coupling, shift].map(into_contiguous);
        let matrices = Matrices::new(&diag, &coupling, &shift, bounds);
        matrices.right(&matrices.left(), true)
    }
}

impl BidirectionalGradient for CubeBackend {
    fn bidirectional_bwd(saved: Saved<Self>, d_full: CubeTensor) -> [CubeTensor; 3] {
        let Saved {
            diag,
            coupling,
            shift,
            full,
            bounds,
        } = saved;
        let [diag, coupling, shift] = [diag, coupling, shift].map(into_contiguous);
        let [full, d_full] = [full, d_full].map(into_contiguous);
        let matrices = Matrices::new(&diag, &coupling, &shift, bounds);
        let heads = matrices.heads;
        let d_diag = empty(&diag, diag.shape(), diag.dtype);
        let d_coupling = empty(&diag, coupling.shape(), diag.dtype);
        let parts = [matrices.batch * matrices.n_chunks(), 2 * heads];
        let parts = empty(&diag, parts, diag.dtype);
        let g = matrices.left();
        let r = matrices.right(&g, false);
        // The second adds to what the first wrote.
        for (states, from_left) in [(g, false), (r, true)] {
            launch(
                &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_BWD,
                &matrices.spec().bool("FROM_LEFT", from_left),
                matrices.work(8),
                &[
                    &coupling,
                    &states,
                    &full,
                    &d_full,
                    &d_diag,
                    &d_coupling,
                    &parts,
                ],
                &matrices.params(),
            );
        }
        let d_shift = Self::float_reshape(sum_rows_wgsl(parts, 1.0), [2, heads].into());
        [d_diag, d_coupling, d_shift]
    }

    fn bidirectional_published_bwd(full: CubeTensor, d_full: CubeTensor) -> CubeTensor {
        let [full, d_full] = [full, d_full].map(into_contiguous);
        let [batch, seq, width] = full.shape().dims();
        let d_diag = empty(&full, [batch, seq, width / 2], full.dtype);
        let n = batch * seq * width / 2;
        launch(
            &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_PUBLISHED,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            Work::items(n, WG_SIZE, 4),
            &[&full, &d_full, &d_diag],
            &[n, width / 2].map(|n| n as u32),
        );
        d_diag
    }
}

/// The inputs, contiguous, and how they are cut.
struct Matrices<'a> {
    diag: &'a CubeTensor,
    coupling: &'a CubeTensor,
    shift: &'a CubeTensor,
    batch: usize,
    seq: usize,
    heads: usize,
    plan: Plan,
}

impl<'a> Matrices<'a> {
    fn new(
        diag: &'a CubeTensor,
        coupling: &'a CubeTensor,
        shift: &'a CubeTensor,
        bounds: Bounds,
    ) -> Self {
        let [batch, seq, heads] = diag.shape().dims();
        let bits = f32::MANTISSA_DIGITS;
        Self {
            diag,
            coupling,
            shift,
            batch,
            seq,
            heads,
            plan: Plan::independent(bits, bounds.eta_min, bounds.p_max, seq),
        }
    }

    /// g, `[batch, seq, 2 * heads]`.
    fn left(&self) -> CubeTensor {
        let start = upload(self.diag, &vec![0; self.batch * 2 * self.heads]);
        causal([self.diag, self.coupling, self.shift], &start, 1, self.plan)
    }

    /// r, or, where `combine`, G.
    fn right(&self, g: &CubeTensor, combine: bool) -> CubeTensor {
        let out = empty(g, g.shape(), g.dtype);
        let spec = self.spec().bool("COMBINE", combine);
        let buffers = [self.diag, self.coupling, self.shift, g, &out];
        let [batch, seq, heads, chunk, warm_up] = self.params();
        if is_staged(self.diag, self.heads) {
            launch(
                &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_FWD_STAGED,
                &spec.u32("HEADS", heads),
                staged_work(self.batch * self.n_chunks(), self.heads, 4 * self.rows()),
                &buffers,
                &[batch, seq, chunk, warm_up],
            );
        } else {
            launch(
                &catalog::RESOLVENT_DIAG_BIDIRECTIONAL_FWD,
                &spec,
                self.work(4),
                &buffers,
                &self.params(),
            );
        }
        out
    }

    fn n_chunks(&self) -> usize {
        self.plan.n_chunks(self.seq)
    }

    fn spec(&self) -> Spec {
        let varying = self.coupling.shape() == self.diag.shape();
        Spec::new().u32("WG_SIZE", WG_SIZE).bool("VARYING", varying)
    }

    /// One invocation a chunk and head, whose rows take `steps` each.
    fn work(&self, steps: usize) -> Work {
        let invocations = self.batch * self.n_chunks() * self.heads;
        Work::items(invocations, WG_SIZE, steps * self.rows())
    }

    /// Rows that an invocation runs.
    fn rows(&self) -> usize {
        self.plan.warm_up.unwrap_or(0) + self.plan.chunk
    }

    fn params(&self) -> [u32; 5] {
        let warm_up = self.plan.warm_up.unwrap_or(0);
        [self.batch, self.seq, self.heads, self.plan.chunk, warm_up].map(|n| n as u32)
    }
}
