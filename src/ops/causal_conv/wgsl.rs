//! Launches of `shaders/causal_conv_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};
use burn::tensor::Slice;

use super::autodiff::{CausalConvBackend, CausalConvGradient};
use super::{Activation, CHUNK};
use crate::ops::launch::{Work, empty, launch};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 256;
const WG_SIZE_X0: u32 = 64;

impl CausalConvBackend for CubeBackend {
    fn causal_conv_infer(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        x0: CubeTensor,
        activation: Activation,
    ) -> CubeTensor {
        let [x, weight, bias, x0] = [x, weight, bias, x0].map(into_contiguous);
        let [batch, seq_len, channels] = x.shape().dims();
        let [_, d_conv] = weight.shape().dims();
        let y = empty(&x, x.shape(), x.dtype);
        launch(
            &catalog::CAUSAL_CONV_FWD,
            &spec(WG_SIZE, d_conv, activation).u32("CHUNK", CHUNK as u32),
            Work::items(
                batch * seq_len.div_ceil(CHUNK) * channels,
                WG_SIZE,
                CHUNK * d_conv,
            ),
            &[&x, &weight, &bias, &x0, &y],
            &[batch, seq_len, channels].map(|n| n as u32),
        );
        y
    }
}

impl CausalConvGradient for CubeBackend {
    fn causal_conv_bwd(
        inputs: [CubeTensor; 4],
        d_y: CubeTensor,
        d_x_last: CubeTensor,
        activation: Activation,
    ) -> [CubeTensor; 4] {
        let [x, weight, bias, x0] = inputs.map(into_contiguous);
        let [d_y, d_x_last] = [d_y, d_x_last].map(into_contiguous);
        let [batch, seq_len, channels] = x.shape().dims();
        let [_, d_conv] = weight.shape().dims();
        let n_parts = batch * seq_len.div_ceil(CHUNK);
        let sizes = [batch, seq_len, channels].map(|n| n as u32);

        let d_x = empty(&x, x.shape(), x.dtype);
        let parts = empty(&x, [n_parts, (d_conv + 1) * channels], x.dtype);
        launch(
            &catalog::CAUSAL_CONV_BWD,
            &spec(WG_SIZE, d_conv, activation).u32("CHUNK", CHUNK as u32),
            Work::items(n_parts * channels, WG_SIZE, 3 * CHUNK * d_conv),
            &[&x, &weight, &bias, &x0, &d_y, &d_x_last, &d_x, &parts],
            &sizes,
        );
        let d_x0 = empty(&x, x0.shape(), x.dtype);
        launch(
            &catalog::CAUSAL_CONV_BWD_X0,
            &spec(WG_SIZE_X0, d_conv, activation),
            Work::items(batch * (d_conv - 1) * channels, WG_SIZE_X0, d_conv * d_conv),
            &[&x, &weight, &bias, &x0, &d_y, &d_x_last, &d_x0],
            &sizes,
        );

        let sums = Self::float_reshape(sum_rows_wgsl(parts, 1.0), [d_conv + 1, channels].into());
        let rows = |from: usize, to: usize| {
            Self::float_slice(
                sums.clone(),
                &[Slice::from(from..to), Slice::from(0..channels)],
            )
        };
        let d_weight = Self::float_transpose(rows(0, d_conv));
        let d_bias = Self::float_reshape(rows(d_conv, d_conv + 1), [channels].into());
        [d_x, d_weight, d_bias, d_x0]
    }
}

fn spec(wg_size: u32, d_conv: usize, activation: Activation) -> Spec {
    Spec::new()
        .u32("WG_SIZE", wg_size)
        .u32("D_CONV", d_conv as u32)
        .bool("SILU", activation == Activation::Silu)
}
