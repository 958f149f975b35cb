// causal_conv_bwd_x0: gradient of the depthwise causal convolution by the inputs before the first.
//
// Math    d_x0[j] = sum over k <= j of weight[k] * d_pre[j - k]  (+ d_x_last where x0[j] is in the final state)
//         d_pre[t] = d_y[t] * silu'(pre[t]), pre recomputed;   d_pre[t] = 0 for t >= seq_len
// Shapes  x, d_y: (batch, seq_len, channels)   weight: (channels, D_CONV)   bias: (channels)
//         x0, d_x_last, d_x0: (batch, D_CONV - 1, channels)
// Grid    one invocation per element of d_x0, channel fastest
// Bounds  any seq_len >= 1, shorter than D_CONV - 1 too
// Error   docs/causal_conv.md
// Source  own derivation in docs/causal_conv.md
// Twin    src/ops/causal_conv/cpu.rs backward
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    channels: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const D_CONV: u32 = 4u; // @spec
const SILU: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> x0: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_x_last: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_x0: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

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
    let n_state = D_CONV - 1u;
    let channel = ix % params.channels;
    let j = ix / params.channels % n_state;
    let batch = ix / params.channels / n_state;
    if batch >= params.batch {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k <= j; k++) {
        let t = j - k;
        if t >= params.seq_len {
            continue;
        }
        var d_pre = d_y[(batch * params.seq_len + t) * params.channels + channel];
        if SILU {
            var pre = bias[channel];
            for (var i = 0u; i < D_CONV; i++) {
                pre += weight[channel * D_CONV + i] * xs(batch, t + i, channel);
            }
            d_pre *= silu_derivative(pre);
        }
        sum += weight[channel * D_CONV + k] * d_pre;
    }
    if j >= params.seq_len {
        sum += d_x_last[(batch * n_state + j - params.seq_len) * params.channels + channel];
    }
    d_x0[ix] = sum;
}
