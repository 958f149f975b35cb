// selective_scan_fwd_spine: states before each chunk and after the last.
//
// Math    states[0] = h0;   states[k + 1] = exp(a sums[k]) states[k] + ends[k]
// Shapes  a: (d_state, d_inner)   ends: (batch, n_chunks, d_state, d_inner)   sums: (batch, n_chunks, d_inner)
//         h0: (batch, d_state, d_inner)   states: (batch, n_chunks + 1, d_state, d_inner)
// Grid    one invocation per (batch, state, channel), channel fastest
// Bounds  any seq_len, d_inner, d_state >= 1; the last chunk may be shorter
// Error   docs/selective_scan.md
// Source  Gu & Dao 2023, arXiv:2312.00752; own derivation in docs/selective_scan.md
// Twin    src/ops/selective_scan/cpu/forward.rs forward
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
@group(0) @binding(3) var<storage, read_write> h0: array<f32>;
@group(0) @binding(4) var<storage, read_write> states: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

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
    var h = h0[ix];
    for (var chunk = 0u; chunk < n_chunks; chunk++) {
        let row = batch * n_chunks + chunk;
        states[((row + batch) * params.d_state + n) * params.d_inner + channel] = h;
        let end = ends[(row * params.d_state + n) * params.d_inner + channel];
        h = decay(rate * sums[row * params.d_inner + channel]) * h + end;
    }
    let last = (batch + 1u) * (n_chunks + 1u) - 1u;
    states[(last * params.d_state + n) * params.d_inner + channel] = h;
}
