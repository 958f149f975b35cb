// selective_scan_fwd_reduce: state at the end of each chunk when it starts at 0, and the sum of delta.
//
// Math    delta[t] = softplus(delta_raw[t]) or delta_raw[t]
//         h[t] = exp(delta[t] a) h[t-1] + delta[t] b[t] u[t], h = 0 before the chunk
//         ends = h after the chunk;   sums = sum of delta over the chunk
// Shapes  u, delta_raw: (batch, seq_len, d_inner)   a: (d_state, d_inner)   b: (batch, seq_len, d_state)
//         ends: (batch, n_chunks, d_state, d_inner)   sums: (batch, n_chunks, d_inner)
// Grid    one invocation per (batch, chunk of CHUNK steps, channel), channel fastest
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
const SOFTPLUS: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> delta_raw: array<f32>;
@group(0) @binding(2) var<storage, read_write> a: array<f32>;
@group(0) @binding(3) var<storage, read_write> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> ends: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

// #import softplus

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + CHUNK - 1u) / CHUNK;
    let channel = ix % params.d_inner;
    let chunk = ix / params.d_inner % n_chunks;
    let batch = ix / params.d_inner / n_chunks;
    if batch >= params.batch {
        return;
    }
    let first = batch * params.seq_len + chunk * CHUNK; // token
    let n_steps = min(CHUNK, params.seq_len - chunk * CHUNK);

    // Steps past the end have delta = 0 and leave the state alone.
    var delta: array<f32, CHUNK>;
    var x: array<f32, CHUNK>; // delta * u
    for (var i = 0u; i < CHUNK; i++) {
        delta[i] = 0.0;
        x[i] = 0.0;
        if i < n_steps {
            let at = (first + i) * params.d_inner + channel;
            delta[i] = delta_raw[at];
            if SOFTPLUS {
                delta[i] = softplus(delta[i]);
            }
            x[i] = delta[i] * u[at];
        }
    }
    let row = batch * n_chunks + chunk;
    var sum = 0.0;
    for (var i = 0u; i < CHUNK; i++) {
        sum += delta[i];
    }
    sums[row * params.d_inner + channel] = sum;
    for (var n = 0u; n < params.d_state; n++) {
        let rate = a[n * params.d_inner + channel];
        var h = 0.0;
        for (var i = 0u; i < CHUNK; i++) {
            let token = first + min(i, n_steps - 1u);
            h = exp(delta[i] * rate) * h + x[i] * b[token * params.d_state + n];
        }
        ends[(row * params.d_state + n) * params.d_inner + channel] = h;
    }
}
