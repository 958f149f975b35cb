// selective_scan_bwd_reduce: cotangent that each chunk sends left when none arrives from the right.
//
// Math    delta[t] = softplus(delta_raw[t]) or delta_raw[t], written to delta_out
//         g = 0 after the chunk;   right to left: g = exp(delta[t] a) (g + c[t] d_y[t])
//         ends = g before the chunk;   sums = sum of delta over the chunk
// Shapes  delta_raw, d_y, delta_out: (batch, seq_len, d_inner)   a: (d_state, d_inner)   c: (batch, seq_len, d_state)
//         ends: (batch, n_chunks, d_state, d_inner)   sums: (batch, n_chunks, d_inner)
// Grid    one invocation per (batch, chunk of CHUNK steps, channel), channel fastest
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
const SOFTPLUS: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> delta_raw: array<f32>;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> ends: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;
@group(0) @binding(6) var<storage, read_write> delta_out: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

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
    var dy: array<f32, CHUNK>;
    for (var i = 0u; i < CHUNK; i++) {
        delta[i] = 0.0;
        dy[i] = 0.0;
        if i < n_steps {
            let at = (first + i) * params.d_inner + channel;
            delta[i] = delta_raw[at];
            if SOFTPLUS {
                delta[i] = softplus(delta[i]);
            }
            dy[i] = d_y[at];
            delta_out[at] = delta[i];
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
        var g = 0.0;
        for (var k = 1u; k <= CHUNK; k++) {
            let i = CHUNK - k;
            let token = first + min(i, n_steps - 1u);
            g = exp(delta[i] * rate) * (g + c[token * params.d_state + n] * dy[i]);
        }
        ends[(row * params.d_state + n) * params.d_inner + channel] = g;
    }
}
