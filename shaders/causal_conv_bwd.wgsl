// causal_conv_bwd: gradients of the depthwise causal convolution by x, and by weight and bias per chunk.
//
// Math    d_pre[t] = d_y[t] * silu'(pre[t]), pre recomputed;   d_pre[t] = 0 for t >= seq_len
//         d_x[t] = sum_k weight[k] * d_pre[t + D_CONV - 1 - k]  (+ d_x_last where x[t] is in the final state)
//         parts[k] = sum_t d_pre[t] * xs[t + k], k < D_CONV;   parts[D_CONV] = sum_t d_pre[t]
// Shapes  x, d_y, d_x: (batch, seq_len, channels)   weight: (channels, D_CONV)   bias: (channels)
//         x0, d_x_last: (batch, D_CONV - 1, channels)   parts: (batch, n_chunks, D_CONV + 1, channels)
// Grid    one invocation per (batch, CHUNK time steps, channel), channel fastest
// Bounds  any seq_len >= 1, shorter than D_CONV - 1 too; the last chunk may be shorter
// Error   docs/causal_conv.md
// Source  own derivation in docs/causal_conv.md
// Twin    src/ops/causal_conv/cpu.rs backward
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
@group(0) @binding(4) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_x_last: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(7) var<storage, read_write> parts: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

// Derivative of v * sigmoid(v). exp is kept from overflowing: WGSL may assume no infinities.
fn silu_derivative(v: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(min(-v, 80.0)));
    return s * (1.0 + v * (1.0 - s));
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
    let n_state = D_CONV - 1u;

    var taps: array<f32, D_CONV>;
    var window: array<f32, D_CONV>; // window[k] = xs[t + k]
    var d_window: array<f32, D_CONV>; // d_window[k] = d_pre[t - n_state + k]
    var d_taps: array<f32, D_CONV>;
    var d_bias = 0.0;
    for (var k = 0u; k < D_CONV; k++) {
        taps[k] = weight[channel * D_CONV + k];
        window[k] = 0.0;
        d_window[k] = 0.0;
        d_taps[k] = 0.0;
    }
    for (var k = 1u; k < D_CONV; k++) {
        window[k] = xs(batch, first + k - 1u, channel);
    }
    // d_x[t] needs d_pre up to t + n_state, so the chunk reads that far into the next one.
    for (var t = first; t < end + n_state; t++) {
        for (var k = 1u; k < D_CONV; k++) {
            window[k - 1u] = window[k];
            d_window[k - 1u] = d_window[k];
        }
        var d_pre = 0.0;
        if t < params.seq_len {
            let here = (batch * params.seq_len + t) * params.channels + channel;
            window[n_state] = x[here];
            var pre = bias[channel];
            for (var k = 0u; k < D_CONV; k++) {
                pre += taps[k] * window[k];
            }
            d_pre = d_y[here];
            if SILU {
                d_pre *= silu_derivative(pre);
            }
        }
        d_window[n_state] = d_pre;
        if t < end {
            d_bias += d_pre;
            for (var k = 0u; k < D_CONV; k++) {
                d_taps[k] += d_pre * window[k];
            }
        }
        if t >= first + n_state {
            var sum = 0.0;
            for (var k = 0u; k < D_CONV; k++) {
                sum += taps[k] * d_window[n_state - k];
            }
            if t >= params.seq_len {
                sum += d_x_last[(batch * n_state + t - params.seq_len) * params.channels + channel];
            }
            d_x[(batch * params.seq_len + t - n_state) * params.channels + channel] = sum;
        }
    }
    let part = (batch * n_chunks + chunk) * (D_CONV + 1u) * params.channels + channel;
    for (var k = 0u; k < D_CONV; k++) {
        parts[part + k * params.channels] = d_taps[k];
    }
    parts[part + D_CONV * params.channels] = d_bias;
}
