// causal_conv_fwd: depthwise causal convolution and SiLU.
//
// Math    xs = concat(x0, x);   pre[t] = bias + sum_k weight[k] * xs[t + k];   y = pre * sigmoid(pre)
// Shapes  x, y: (batch, seq_len, channels)   weight: (channels, D_CONV)   bias: (channels)
//         x0: (batch, D_CONV - 1, channels)
// Grid    one invocation per (batch, CHUNK time steps, channel), channel fastest
// Bounds  any seq_len >= 1, shorter than D_CONV - 1 too; the last chunk may be shorter
// Error   docs/causal_conv.md
// Source  Gu & Dao 2023 (arXiv:2312.00752) fig. 3
// Twin    src/ops/causal_conv/cpu.rs forward
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    channels: u32,
}

const WG_SIZE: u32 = 256u; // @spec
const CHUNK: u32 = 32u; // @spec
const D_CONV: u32 = 4u; // @spec
const SILU: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> x0: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// exp is kept from overflowing: WGSL may assume that infinities do not occur.
fn sigmoid(v: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-v, 80.0)));
}

// Element t of the concatenation of x0 and x.
fn xs(batch: u32, t: u32, channel: u32) -> f32 {
    if t < D_CONV - 1u {
        return x0[(batch * (D_CONV - 1u) + t) * params.channels + channel];
    }
    return x[(batch * params.seq_len + t - (D_CONV - 1u)) * params.channels + channel];
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + CHUNK - 1u) / CHUNK;
    let channel = ix % params.channels;
    let chunk = ix / params.channels % n_chunks;
    let batch = ix / params.channels / n_chunks;
    if batch >= params.batch {
        return;
    }
    let first = chunk * CHUNK;
    let end = min(first + CHUNK, params.seq_len);

    var taps: array<f32, D_CONV>;
    var window: array<f32, D_CONV>; // window[k] = xs[t + k]
    for (var k = 0u; k < D_CONV; k++) {
        taps[k] = weight[channel * D_CONV + k];
        window[k] = 0.0;
    }
    for (var k = 1u; k < D_CONV; k++) {
        window[k] = xs(batch, first + k - 1u, channel);
    }
    for (var t = first; t < end; t++) {
        let here = (batch * params.seq_len + t) * params.channels + channel;
        for (var k = 1u; k < D_CONV; k++) {
            window[k - 1u] = window[k];
        }
        window[D_CONV - 1u] = x[here];
        var pre = bias[channel];
        for (var k = 0u; k < D_CONV; k++) {
            pre += taps[k] * window[k];
        }
        y[here] = select(pre, pre * sigmoid(pre), SILU);
    }
}
