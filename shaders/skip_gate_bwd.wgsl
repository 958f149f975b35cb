// skip_gate_bwd: gradients of the gated sum by y and z, and by skip per chunk of rows.
//
// Math    d_y = d_out * silu(z)   d_z = d_out * (y + skip * u) * silu'(z)   parts = sum over the chunk of d_y * u
// Shapes  y, u, z, d_out, d_y, d_z: (n_rows, channels)   skip: (channels)   parts: (ceil(n_rows / CHUNK), channels)
// Grid    one invocation per (chunk of rows, channel), channel fastest
// Bounds  any n_rows, channels >= 1; the last chunk may be shorter
// Error   docs/skip_gate.md
// Source  own derivation in docs/skip_gate.md
// Twin    src/ops/skip_gate/cpu.rs backward
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    channels: u32,
}

const WG_SIZE: u32 = 256u; // @spec
const CHUNK: u32 = 32u; // @spec

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> u: array<f32>;
@group(0) @binding(2) var<storage, read_write> skip: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_out: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_z: array<f32>;
@group(0) @binding(7) var<storage, read_write> parts: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

// exp is kept from overflowing: WGSL may assume that infinities do not occur.
fn sigmoid(v: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-v, 80.0)));
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let channel = ix % params.channels;
    let first = ix / params.channels * CHUNK;
    if first >= params.n_rows {
        return;
    }
    let end = min(first + CHUNK, params.n_rows);
    let weight = skip[channel];
    var d_skip = 0.0;
    for (var row = first; row < end; row++) {
        let here = row * params.channels + channel;
        let v = z[here];
        let s = sigmoid(v);
        let d = d_out[here];
        let d_sum = d * (v * s);
        d_y[here] = d_sum;
        d_z[here] = d * (y[here] + weight * u[here]) * (s * (1.0 + v * (1.0 - s)));
        d_skip += d_sum * u[here];
    }
    parts[ix] = d_skip;
}
