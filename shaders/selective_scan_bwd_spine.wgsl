// selective_scan_bwd_spine: state before and cotangent after each chunk, and the gradient of h0.
//
// Math    g[last] = d_h_last;   g[k - 1] = exp(a sums[k]) g[k] + ends[k];   d_h0 = g[-1]
//         bounds[k] = (states[k], g[k])
// Shapes  a: (d_state, d_inner)   ends: (batch, n_chunks, d_state, d_inner)   sums: (batch, n_chunks, d_inner)
//         states: (batch, n_chunks + 1, d_state, d_inner)   d_h_last, d_h0: (batch, d_state, d_inner)
//         bounds: (batch, n_chunks, d_state, d_inner)
// Grid    one invocation per (batch, state, channel), channel fastest
// Bounds  any seq_len, d_inner, d_state >= 1; the last chunk may be shorter
// Error   docs/selective_scan.md
// Source  Gu & Dao 2023, arXiv:2312.00752; own derivation in docs/selective_scan.md
// Twin    src/ops/selective_scan/cpu/backward.rs backward
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    d_inner: u32,
    d_state: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const CHUNK: u32 = 16u; // @spec

@group(0) @binding(0) var<storage, read_write> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> ends: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;
@group(0) @binding(3) var<storage, read_write> states: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_h_last: array<f32>;
@group(0) @binding(5) var<storage, read_write> bounds: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> d_h0: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

// #import decay

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + CHUNK - 1u) / CHUNK;
    let n = ix / params.d_inner % params.d_state;
    let channel = ix % params.d_inner;
    let batch = ix / params.d_inner / params.d_state;
    if batch >= params.batch {
        return;
    }
    let rate = a[n * params.d_inner + channel];
    var g = d_h_last[ix];
    for (var k = 1u; k <= n_chunks; k++) {
        let row = (batch + 1u) * n_chunks - k;
        let at = (row * params.d_state + n) * params.d_inner + channel;
        let before = ((row + batch) * params.d_state + n) * params.d_inner + channel;
        bounds[at] = vec2(states[before], g);
        g = decay(rate * sums[row * params.d_inner + channel]) * g + ends[at];
    }
    d_h0[ix] = g;
}
