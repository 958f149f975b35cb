// selective_scan_bwd_state: gradients of b and c per block of channels, of a per chunk.
//
// Math    h recomputed from the state before the chunk;   carried from the right: g, after the chunk in bounds
//         d_h[t] = g + c[t] d_y[t];   then g = exp(delta[t] a) d_h[t]
//         d_b[t] = sum over channels of d_h delta u;   d_c[t] = sum over channels of d_y h
//         d_a = sum over time of d_h exp(delta a) h[t-1] delta
// Shapes  u, delta, d_y: (batch, seq_len, d_inner)   a: (d_state, d_inner)
//         bc: (batch, seq_len, 2 d_state), b first   bounds: (batch, n_chunks, d_state, d_inner)
//         bc_parts: (n_blocks, b or c, batch, seq_len, d_state)   a_parts: (batch, n_chunks, d_state, d_inner)
// Grid    one invocation per (block of BLOCK channels, batch, chunk of CHUNK steps, state), state fastest
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
const BLOCK: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> delta: array<f32>;
@group(0) @binding(2) var<storage, read_write> a: array<f32>;
@group(0) @binding(3) var<storage, read_write> bc: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(5) var<storage, read_write> bounds: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> bc_parts: array<f32>;
@group(0) @binding(7) var<storage, read_write> a_parts: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + CHUNK - 1u) / CHUNK;
    let n = ix % params.d_state;
    let row = ix / params.d_state % (params.batch * n_chunks);
    let block = ix / params.d_state / (params.batch * n_chunks);
    if block * BLOCK >= params.d_inner {
        return;
    }
    let chunk = row % n_chunks;
    let first = row / n_chunks * params.seq_len + chunk * CHUNK; // token
    let n_steps = min(CHUNK, params.seq_len - chunk * CHUNK);

    var b: array<f32, CHUNK>;
    var c: array<f32, CHUNK>;
    var d_b: array<f32, CHUNK>;
    var d_c: array<f32, CHUNK>;
    for (var i = 0u; i < CHUNK; i++) {
        let at = 2u * (first + min(i, n_steps - 1u)) * params.d_state + n;
        b[i] = bc[at];
        c[i] = bc[at + params.d_state];
        d_b[i] = 0.0;
        d_c[i] = 0.0;
    }
    var decay: array<f32, CHUNK>;
    var decayed: array<f32, CHUNK>; // decay times the state before
    let end = min((block + 1u) * BLOCK, params.d_inner);
    for (var channel = block * BLOCK; channel < end; channel++) {
        let rate = a[n * params.d_inner + channel];
        let state = (row * params.d_state + n) * params.d_inner + channel;
        let bound = bounds[state];
        var h = bound.x;
        for (var i = 0u; i < CHUNK; i++) {
            if i < n_steps {
                let at = (first + i) * params.d_inner + channel;
                decay[i] = exp(delta[at] * rate);
                decayed[i] = decay[i] * h;
                h = decayed[i] + delta[at] * u[at] * b[i];
                d_c[i] += d_y[at] * h;
            }
        }
        var g = bound.y;
        var d_a = 0.0;
        for (var k = 1u; k <= CHUNK; k++) {
            let i = CHUNK - k;
            if i < n_steps {
                let at = (first + i) * params.d_inner + channel;
                let d_h = g + c[i] * d_y[at];
                d_b[i] += d_h * delta[at] * u[at];
                d_a += d_h * decayed[i] * delta[at];
                g = decay[i] * d_h;
            }
        }
        a_parts[state] = d_a;
    }
    let n_tokens = params.batch * params.seq_len;
    for (var i = 0u; i < CHUNK; i++) {
        if i < n_steps {
            let at = (2u * block * n_tokens + first + i) * params.d_state + n;
            bc_parts[at] = d_b[i];
            bc_parts[at + n_tokens * params.d_state] = d_c[i];
        }
    }
}
