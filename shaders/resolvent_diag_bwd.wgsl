// resolvent_diag_bwd: exact adjoint of the causal resolvent diagonal, one invocation a chunk and head.
//
// Math    w = dL/dRe g - i dL/dIm g;   q[i] = g[i]^2 (w[i] + e[i]);   e[i-1] = coupling[i] q[i]
//         d_diag = -Re q;   d_coupling[i] = Re(q[i] g[i-1]);   part = sum of (Re q, -Im q) over the chunk
//         A chunk whose incoming e is not given starts warm_up rows late from 0, as the forward pass does.
// Shapes  coupling: (batch, seq_len, heads), (1) unless VARYING   g, d_g: (batch, seq_len, 2 heads)
//         ends: (batch, 1 + n_carried, 2 heads): g0, then (dL/dRe, dL/dIm) entering a chunk from the right, of
//         every chunk if CARRIED, else of the last
//         d_diag, d_coupling: as diag, coupling   parts: (batch, n_chunks, 2 heads)   d_g0: (batch, 2 heads)
// Grid    one invocation per (batch, chunk, head), head fastest
// Bounds  any seq_len >= 1; warm_up <= chunk; the last chunk may be shorter
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/backward.rs backward_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    heads: u32,
    chunk: u32,
    warm_up: u32,
    padding_0: u32,
    padding_1: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const VARYING: bool = true; // @spec
const CARRIED: bool = false; // @spec

@group(0) @binding(0) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(1) var<storage, read_write> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_g: array<f32>;
@group(0) @binding(3) var<storage, read_write> ends: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_diag: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_coupling: array<f32>;
@group(0) @binding(6) var<storage, read_write> parts: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_g0: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

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

fn q_at(row: u32, head: u32, e: vec2<f32>) -> vec2<f32> {
    let at = row * 2u * params.heads + head;
    let g = g_at(row, head);
    return complex_mul(complex_mul(g, g), vec2(d_g[at], -d_g[at + params.heads]) + e);
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
    let row = batch * params.seq_len;
    let ends_rows = select(2u, 1u + n_chunks, CARRIED);
    let g0_at = batch * ends_rows * 2u * params.heads + head;

    // e of the last row to be run, the first of which may lie in the following chunk.
    var last = end;
    var e = vec2(0.0);
    if !CARRIED {
        last = min(end + params.warm_up, params.seq_len);
    }
    if CARRIED || last == params.seq_len {
        let entry = g0_at + select(1u, 1u + chunk, CARRIED) * 2u * params.heads;
        e = vec2(ends[entry], -ends[entry + params.heads]);
    }
    for (var t = last; t > end; t--) {
        let q = q_at(row + t - 1u, head, e);
        e = coupling_at((row + t - 1u) * params.heads + head) * q;
    }
    var sum = vec2(0.0);
    for (var t = end; t > first; t--) {
        let here = row + t - 1u;
        let element = here * params.heads + head;
        let q = q_at(here, head, e);
        e = coupling_at(element) * q;
        sum += vec2(q.x, -q.y);
        d_diag[element] = -q.x;
        if VARYING {
            var before = vec2(ends[g0_at], ends[g0_at + params.heads]);
            if t > 1u {
                before = g_at(here - 1u, head);
            }
            d_coupling[element] = complex_mul(q, before).x;
        }
    }
    let part = (batch * n_chunks + chunk) * 2u * params.heads + head;
    parts[part] = sum.x;
    parts[part + params.heads] = sum.y;
    if chunk == 0u {
        let at = batch * 2u * params.heads + head;
        d_g0[at] = e.x;
        d_g0[at + params.heads] = -e.y;
    }
}
