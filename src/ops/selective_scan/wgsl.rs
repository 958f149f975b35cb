//! Launches of `shaders/selective_scan_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};
use burn::tensor::Slice;

use super::autodiff::{Saved, SelectiveScanBackend, SelectiveScanGradient};
use super::{CHUNK, is_fused};
use crate::ops::launch::{Work, class, empty, launch};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Kernel, Spec, catalog};

const WG_SIZE: u32 = 64;
/// The same where one invocation runs a whole sequence: as many as a software adapter runs in one vector, for there
/// are few of them.
const WG_SIZE_FUSED: u32 = 8;
/// Chunks of one fused launch: the more, the longer a workgroup takes, which no launch can be cut within.
const CHUNKS_FUSED: usize = 32;
/// Channels that one invocation sums the gradients of `b` and `c` over.
const BLOCK: usize = 64;

/// Sizes, and what every launch takes from them.
#[derive(Clone, Copy)]
struct Launcher {
    batch: usize,
    seq_len: usize,
    d_inner: usize,
    d_state: usize,
    n_chunks: usize,
    softplus: bool,
}

impl Launcher {
    fn new(u: &CubeTensor, a: &CubeTensor, softplus: bool) -> Self {
        let [batch, seq_len, d_inner] = u.shape().dims();
        let [d_state, _] = a.shape().dims();
        let n_chunks = seq_len.div_ceil(CHUNK);
        Self {
            batch,
            seq_len,
            d_inner,
            d_state,
            n_chunks,
            softplus,
        }
    }

    fn run(self, kernel: &'static Kernel, work: Work, spec: Spec, buffers: &[&CubeTensor]) {
        let params = [self.batch, self.seq_len, self.d_inner, self.d_state].map(|n| n as u32);
        let spec = spec.u32("WG_SIZE", WG_SIZE).u32("CHUNK", CHUNK as u32);
        launch(kernel, &spec, work, buffers, &params);
    }

    /// The fused forward pass, some chunks after the others.
    fn fused(self, buffers: &[&CubeTensor]) {
        let spec = self
            .softplus()
            .u32("WG_SIZE", WG_SIZE_FUSED)
            .u32("CHUNK", CHUNK as u32);
        let quads = self.d_inner / 4;
        for first in (0..self.n_chunks).step_by(CHUNKS_FUSED) {
            let end = (first + CHUNKS_FUSED).min(self.n_chunks);
            let steps = 4 * (end - first) * CHUNK * self.d_state;
            let params = [self.batch, self.seq_len, quads, self.d_state, first, end];
            launch(
                &catalog::SELECTIVE_SCAN_FWD_FUSED,
                &spec,
                Work::items(self.batch * quads, WG_SIZE_FUSED, steps),
                buffers,
                &params.map(|n| n as u32),
            );
        }
    }

    fn softplus(self) -> Spec {
        Spec::new().bool("SOFTPLUS", self.softplus)
    }

    /// An invocation runs the states of one channel through one chunk, so many times.
    fn per_channel(self, times: usize) -> Work {
        let items = self.batch * self.n_chunks * self.d_inner;
        Work::items(items, WG_SIZE, times * CHUNK * self.d_state)
    }

    /// An invocation carries one state through all chunks.
    fn per_state(self) -> Work {
        let items = self.batch * self.d_state * self.d_inner;
        Work::items(items, WG_SIZE, 2 * self.n_chunks)
    }
}

impl SelectiveScanBackend for CubeBackend {
    fn selective_scan_infer(
        u: CubeTensor,
        delta_raw: CubeTensor,
        a: CubeTensor,
        b: CubeTensor,
        c: CubeTensor,
        h0: CubeTensor,
        softplus: bool,
    ) -> (CubeTensor, CubeTensor) {
        let [u, delta_raw, a, b, c, h0] = [u, delta_raw, a, b, c, h0].map(into_contiguous);
        let l = Launcher::new(&u, &a, softplus);
        let states = empty(&u, [l.batch, l.n_chunks + 1, l.d_state, l.d_inner], u.dtype);
        let y = empty(&u, u.shape(), u.dtype);
        if is_fused(class(&u), l.d_inner) {
            l.fused(&[&u, &delta_raw, &a, &b, &c, &h0, &states, &y]);
            return (y, states);
        }
        let ends = empty(&u, [l.batch, l.n_chunks, l.d_state, l.d_inner], u.dtype);
        let sums = empty(&u, [l.batch, l.n_chunks, l.d_inner], u.dtype);
        l.run(
            &catalog::SELECTIVE_SCAN_FWD_REDUCE,
            l.per_channel(1),
            l.softplus(),
            &[&u, &delta_raw, &a, &b, &ends, &sums],
        );
        l.run(
            &catalog::SELECTIVE_SCAN_FWD_SPINE,
            l.per_state(),
            Spec::new(),
            &[&a, &ends, &sums, &h0, &states],
        );
        l.run(
            &catalog::SELECTIVE_SCAN_FWD_APPLY,
            l.per_channel(1),
            l.softplus(),
            &[&u, &delta_raw, &a, &b, &c, &states, &y],
        );
        (y, states)
    }
}

impl SelectiveScanGradient for CubeBackend {
    fn selective_scan_bwd(saved: Saved<Self>, d_y: CubeTensor) -> [CubeTensor; 6] {
        let [u, delta_raw, a, b, c] = saved.inputs.map(into_contiguous);
        let [states, d_y, d_h_last] = [saved.states, d_y, saved.d_h_last].map(into_contiguous);
        let l = Launcher::new(&u, &a, saved.softplus);

        let ends = empty(&u, [l.batch, l.n_chunks, l.d_state, l.d_inner], u.dtype);
        let sums = empty(&u, [l.batch, l.n_chunks, l.d_inner], u.dtype);
        let delta = empty(&u, u.shape(), u.dtype);
        l.run(
            &catalog::SELECTIVE_SCAN_BWD_REDUCE,
            l.per_channel(1),
            l.softplus(),
            &[&delta_raw, &a, &c, &d_y, &ends, &sums, &delta],
        );
        let bounds = empty(&u, [l.batch, l.n_chunks, l.d_state, l.d_inner, 2], u.dtype);
        let d_h0 = empty(&u, d_h_last.shape(), u.dtype);
        l.run(
            &catalog::SELECTIVE_SCAN_BWD_SPINE,
            l.per_state(),
            Spec::new(),
            &[&a, &ends, &sums, &states, &d_h_last, &bounds, &d_h0],
        );

        // One buffer less each, for the portable limit of eight.
        let bc = Self::float_cat(vec![b.clone(), c.clone()], 2);
        let d_u = empty(&u, u.shape(), u.dtype);
        let d_delta_raw = empty(&u, u.shape(), u.dtype);
        l.run(
            &catalog::SELECTIVE_SCAN_BWD_CHANNEL,
            l.per_channel(2),
            l.softplus(),
            &[&u, &delta_raw, &a, &bc, &d_y, &bounds, &d_u, &d_delta_raw],
        );

        let n_blocks = l.d_inner.div_ceil(BLOCK);
        let per_token = l.batch * l.seq_len * l.d_state;
        let bc_parts = empty(&u, [n_blocks, 2 * per_token], u.dtype);
        let a_parts = empty(&u, [l.batch * l.n_chunks, l.d_state * l.d_inner], u.dtype);
        l.run(
            &catalog::SELECTIVE_SCAN_BWD_STATE,
            Work::items(
                n_blocks * l.batch * l.n_chunks * l.d_state,
                WG_SIZE,
                2 * CHUNK * BLOCK.min(l.d_inner),
            ),
            Spec::new().u32("BLOCK", BLOCK as u32),
            &[&u, &delta, &a, &bc, &d_y, &bounds, &bc_parts, &a_parts],
        );
        let d_a = Self::float_reshape(sum_rows_wgsl(a_parts, 1.0), a.shape());
        let d_bc = sum_rows_wgsl(bc_parts, 1.0);
        let half = |from: usize, shape| {
            let range = [Slice::from(0..1), Slice::from(from..from + per_token)];
            Self::float_reshape(Self::float_slice(d_bc.clone(), &range), shape)
        };
        let (d_b, d_c) = (half(0, b.shape()), half(per_token, c.shape()));
        [d_u, d_delta_raw, d_a, d_b, d_c, d_h0]
    }
}
