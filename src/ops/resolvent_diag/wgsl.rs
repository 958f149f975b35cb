//! Launches of `shaders/resolvent_diag_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::Bounds;
use super::autodiff::{ResolventDiagBackend, ResolventDiagGradient, Saved};
use super::plan::Plan;
use crate::hardware::adapters::Class;
use crate::ops::launch::{Work, class, empty, launch};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 64;
/// Heads from which a row has a cache line of its own (64 bytes): neighbouring invocations then read neighbouring
/// heads, and nothing is gained by way of workgroup memory.
const HEADS_OF_A_LINE: usize = 16;

/// Whether rows of so many heads travel through workgroup memory on the adapter of `tensor`: a software adapter's reads
/// are as fast anywhere, and its barriers are dear.
pub(super) fn is_staged(tensor: &CubeTensor, heads: usize) -> bool {
    class(tensor) == Class::Gpu && heads < HEADS_OF_A_LINE
}

/// Workgroups of a staged launch, whose rows take `steps` each: whole chunks, all heads of them.
pub(super) fn staged_work(chunks: usize, heads: usize, steps: usize) -> Work {
    let size = WG_SIZE as usize;
    Work {
        workgroups: chunks.div_ceil(size / heads),
        steps: steps * size,
    }
}

impl ResolventDiagBackend for CubeBackend {
    fn resolvent_diag_infer(
        diag: CubeTensor,
        coupling: CubeTensor,
        shift: CubeTensor,
        g0: CubeTensor,
        bounds: Bounds,
    ) -> CubeTensor {
        let [diag, coupling, shift, g0] = [diag, coupling, shift, g0].map(into_contiguous);
        let [batch, seq, heads] = diag.shape().dims();
        let plan = plan(bounds, seq);
        let n_chunks = plan.n_chunks(seq);

        let (carry, n_carried) = if plan.warm_up.is_some() {
            (g0, 1)
        } else {
            let maps = empty(&diag, [batch, n_chunks, heads, 8], diag.dtype);
            launch(
                &catalog::RESOLVENT_DIAG_FWD_REDUCE,
                &spec().bool("VARYING", coupling.shape() == diag.shape()),
                Work::items(batch * n_chunks * heads, WG_SIZE, 2 * plan.chunk),
                &[&diag, &coupling, &shift, &maps],
                &[batch, seq, heads, plan.chunk].map(|n| n as u32),
            );
            let carry = empty(&diag, [batch, n_chunks, 2 * heads], diag.dtype);
            launch(
                &catalog::RESOLVENT_DIAG_FWD_SPINE,
                &spec(),
                Work::items(batch * heads, WG_SIZE, 2 * n_chunks),
                &[&maps, &g0, &carry],
                &[batch, n_chunks, heads].map(|n| n as u32),
            );
            (carry, n_chunks)
        };
        causal([&diag, &coupling, &shift], &carry, n_carried, plan)
    }
}

/// g, `[batch, seq, 2 * heads]`. `carry` holds the states entering the first `n_carried` chunks.
pub(super) fn causal(
    [diag, coupling, shift]: [&CubeTensor; 3],
    carry: &CubeTensor,
    n_carried: usize,
    plan: Plan,
) -> CubeTensor {
    let [batch, seq, heads] = diag.shape().dims();
    let g = empty(diag, [batch, seq, 2 * heads], diag.dtype);
    let spec = spec().bool("VARYING", coupling.shape() == diag.shape());
    let warm_up = plan.warm_up.unwrap_or(0);
    let buffers = [diag, coupling, shift, carry, &g];
    let rows = warm_up + plan.chunk;
    if is_staged(diag, heads) {
        launch(
            &catalog::RESOLVENT_DIAG_FWD_STAGED,
            &spec.u32("HEADS", heads as u32),
            staged_work(batch * plan.n_chunks(seq), heads, 4 * rows),
            &buffers,
            &[batch, seq, plan.chunk, warm_up, n_carried].map(|n| n as u32),
        );
        return g;
    }
    let (kernel, columns) = match heads % 4 {
        0 => (&catalog::RESOLVENT_DIAG_FWD_VEC4, heads / 4),
        _ => (&catalog::RESOLVENT_DIAG_FWD, heads),
    };
    launch(
        kernel,
        &spec,
        Work::items(
            batch * plan.n_chunks(seq) * columns,
            WG_SIZE,
            4 * rows * heads / columns,
        ),
        &buffers,
        &[batch, seq, columns, plan.chunk, warm_up, n_carried].map(|n| n as u32),
    );
    g
}

impl ResolventDiagGradient for CubeBackend {
    fn resolvent_diag_bwd(saved: Saved<Self>, d_g: CubeTensor) -> [CubeTensor; 4] {
        let Saved {
            coupling,
            g0,
            g,
            d_g_last,
            bounds,
        } = saved;
        let [coupling, g0, g, d_g, d_g_last] =
            [coupling, g0, g, d_g, d_g_last].map(into_contiguous);
        let [batch, seq, width] = g.shape().dims();
        let heads = width / 2;
        let varying = coupling.shape() == [batch, seq, heads].into();
        let spec = spec().bool("VARYING", varying);
        let plan = plan(bounds, seq);
        let n_chunks = plan.n_chunks(seq);
        let sizes = [batch, seq, heads, plan.chunk].map(|n| n as u32);
        let work = |steps| Work::items(batch * n_chunks * heads, WG_SIZE, steps);
        let warm_up = plan.warm_up.unwrap_or(0);

        let ends = if plan.warm_up.is_some() {
            let row = |t: &CubeTensor| Self::float_reshape(t.clone(), [batch, 1, width].into());
            Self::float_cat(vec![row(&g0), row(&d_g_last)], 1)
        } else {
            let maps = empty(&g, [batch, n_chunks, heads, 4], g.dtype);
            launch(
                &catalog::RESOLVENT_DIAG_BWD_REDUCE,
                &spec,
                work(2 * plan.chunk),
                &[&coupling, &g, &d_g, &maps],
                &sizes,
            );
            let ends = empty(&g, [batch, 1 + n_chunks, width], g.dtype);
            launch(
                &catalog::RESOLVENT_DIAG_BWD_SPINE,
                &self::spec(),
                Work::items(batch * heads, WG_SIZE, 2 * n_chunks),
                &[&maps, &g0, &d_g_last, &ends],
                &[batch, n_chunks, heads].map(|n| n as u32),
            );
            ends
        };
        let d_diag = empty(&g, [batch, seq, heads], g.dtype);
        let d_coupling = empty(&g, coupling.shape(), g.dtype);
        let parts = empty(&g, [batch * n_chunks, width], g.dtype);
        let d_g0 = empty(&g, [batch, width], g.dtype);
        let spec = spec.bool("CARRIED", plan.warm_up.is_none());
        let buffers = [
            &coupling,
            &g,
            &d_g,
            &ends,
            &d_diag,
            &d_coupling,
            &parts,
            &d_g0,
        ];
        let steps = 8 * (warm_up + plan.chunk);
        if is_staged(&g, heads) {
            launch(
                &catalog::RESOLVENT_DIAG_BWD_STAGED,
                &spec.u32("HEADS", heads as u32),
                staged_work(batch * n_chunks, heads, steps),
                &buffers,
                &[batch, seq, plan.chunk, warm_up].map(|n| n as u32),
            );
        } else {
            launch(
                &catalog::RESOLVENT_DIAG_BWD,
                &spec,
                work(steps),
                &buffers,
                &[sizes[0], sizes[1], sizes[2], sizes[3], warm_up as u32],
            );
        }
        let d_shift = Self::float_reshape(sum_rows_wgsl(parts, 1.0), [2, heads].into());
        [d_diag, d_coupling, d_shift, d_g0]
    }
}

fn spec() -> Spec {
    Spec::new().u32("WG_SIZE", WG_SIZE)
}

fn plan(bounds: Bounds, seq: usize) -> Plan {
    Plan::new(f32::MANTISSA_DIGITS, bounds.eta_min, bounds.p_max, seq)
}
