// selective_scan_bwd_channel: gradients of u and delta_raw.
//
// Math    h recomputed from the state before the chunk;   carried from the right: g, after the chunk in bounds
//         d_h[t] = g + c[t] d_y[t];   then g = exp(delta[t] a) d_h[t]
//         d_x[t] = sum over the states of d_h b[t];   d_u = delta d_x
//         d_delta = u d_x + sum over the states of d_h exp(delta a) h[t-1] a;   d_delta_raw = d_delta softplus'
// Shapes  u, delta_raw, d_y, d_u, d_delta_raw: (batch, seq_len, d_inner)   a: (d_state, d_inner)
//         bc: (batch, seq_len, 2 d_state), b first   bounds: (batch, n_chunks, d_state, d_inner)
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

@group(0) @binding(0) var<storage, read_write> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> delta_raw: array<f32>;
@group(0) @binding(2) var<storage, read_write> a: array<f32>;
@group(0) @binding(3) var<storage, read_write> bc: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(5) var<storage, read_write> bounds: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> d_u: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_delta_raw: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

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
    var dy: array<f32, CHUNK>;
    for (var i = 0u; i < CHUNK; i++) {
        delta[i] = 0.0;
        x[i] = 0.0;
        dy[i] = 0.0;
        if i < n_steps {
            let at = (first + i) * params.d_inner + channel;
            delta[i] = delta_raw[at];
            if SOFTPLUS {
                delta[i] = softplus(delta[i]);
            }
            x[i] = delta[i] * u[at];
            dy[i] = d_y[at];
        }
    }
    var d_x: array<f32, CHUNK>;
    var d_delta: array<f32, CHUNK>;
    for (var i = 0u; i < CHUNK; i++) {
        d_x[i] = 0.0;
        d_delta[i] = 0.0;
    }
    var decay: array<f32, CHUNK>;
    var decayed: array<f32, CHUNK>; // decay times the state before
    for (var n = 0u; n < params.d_state; n++) {
        let rate = a[n * params.d_inner + channel];
        let row = (batch * n_chunks + chunk) * params.d_state + n;
        let bound = bounds[row * params.d_inner + channel];
        var h = bound.x;
        for (var i = 0u; i < CHUNK; i++) {
            let token = first + min(i, n_steps - 1u);
            decay[i] = exp(delta[i] * rate);
            decayed[i] = decay[i] * h;
            h = decayed[i] + x[i] * bc[2u * token * params.d_state + n];
        }
        var g = bound.y;
        for (var k = 1u; k <= CHUNK; k++) {
            let i = CHUNK - k;
            let at = 2u * (first + min(i, n_steps - 1u)) * params.d_state + n;
            let d_h = g + bc[at + params.d_state] * dy[i];
            d_x[i] += d_h * bc[at];
            d_delta[i] += d_h * decayed[i] * rate;
            g = decay[i] * d_h;
        }
    }
    for (var i = 0u; i < CHUNK; i++) {
        if i < n_steps {
            let at = (first + i) * params.d_inner + channel;
            var d_raw = d_delta[i] + d_x[i] * u[at];
            if SOFTPLUS {
                d_raw *= sigmoid(delta_raw[at]);
            }
            d_u[at] = d_x[i] * delta[i];
            d_delta_raw[at] = d_raw;
        }
    }
}
