// resolvent_diag_bwd_reduce: first of three phases of the adjoint: each chunk as one map of its incoming e.
//
// Math    e[i-1] = coupling[i] g[i]^2 (w[i] + e[i]), composed over the chunk from right to left to a e + b;
//         w = dL/dRe g - i dL/dIm g
// Shapes  coupling, g, d_g: as resolvent_diag_bwd   maps: (batch, n_chunks, heads) of (a, b)
// Grid    one invocation per (batch, chunk, head), head fastest
// Bounds  any seq_len >= 1; the last chunk may be shorter
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/backward.rs backward_reduce_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    heads: u32,
    chunk: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const VARYING: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(1) var<storage, read_write> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_g: array<f32>;
@group(0) @binding(3) var<storage, read_write> maps: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

// Coupling of an element of diag to the one a row before.
fn coupling_at(element: u32) -> f32 {
    if VARYING {
        return coupling[element];
    }
    return coupling[0];
}

fn complex_mul(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

fn g_at(row: u32, head: u32) -> vec2<f32> {
    let at = row * 2u * params.heads + head;
    return vec2(g[at], g[at + params.heads]);
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + params.chunk - 1u) / params.chunk;
    let head = ix % params.heads;
    let chunk = ix / params.heads % n_chunks;
    let batch = ix / params.heads / n_chunks;
    if batch >= params.batch {
        return;
    }
    let first = chunk * params.chunk;
    let end = min(first + params.chunk, params.seq_len);
    var a = vec2(1.0, 0.0);
    var b = vec2(0.0);
    for (var t = end; t > first; t--) {
        let row = batch * params.seq_len + t - 1u;
        let at = row * 2u * params.heads + head;
        let g = g_at(row, head);
        let factor = coupling_at(row * params.heads + head) * complex_mul(g, g);
        a = complex_mul(factor, a);
        b = complex_mul(factor, vec2(d_g[at], -d_g[at + params.heads]) + b);
    }
    maps[ix] = vec4(a, b);
}
