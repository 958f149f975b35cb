// resolvent_diag_fwd_reduce: first of three phases: each chunk as one map of its incoming g.
//
// Math    [[a, b], [c, d]] = product over the chunk of [[0, 1], [-coupling[i], diag[i] - z]], later rows on the
//         left; g leaves the chunk as (a g + b) / (c g + d). Rescaled by a power of two at every row.
// Shapes  diag, coupling, shift: as resolvent_diag_fwd   maps: (batch, n_chunks, heads, 2) of (a, b), (c, d)
// Grid    one invocation per (batch, chunk, head), head fastest
// Bounds  any seq_len >= 1; the last chunk may be shorter
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/forward.rs forward_reduce_block
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

@group(0) @binding(0) var<storage, read_write> diag: array<f32>;
@group(0) @binding(1) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(2) var<storage, read_write> shift: array<f32>;
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
    let z = vec2(shift[head], shift[params.heads + head]);

    var top = vec4(1.0, 0.0, 0.0, 0.0); // (a, b)
    var bottom = vec4(0.0, 0.0, 1.0, 0.0); // (c, d)
    for (var t = first; t < end; t++) {
        let element = (batch * params.seq_len + t) * params.heads + head;
        let s = vec2(diag[element] - z.x, -z.y);
        let next = vec4(complex_mul(s, bottom.xy), complex_mul(s, bottom.zw)) - coupling_at(element) * top;
        let size = max(max(abs(next.x), abs(next.y)), max(abs(next.z), abs(next.w)));
        // 1 / 2^e for size in [2^e, 2^(e+1)): exact.
        let scale = bitcast<f32>(0x7f000000u - (bitcast<u32>(size) & 0x7f800000u));
        top = scale * bottom;
        bottom = scale * next;
    }
    maps[2u * ix] = top;
    maps[2u * ix + 1u] = bottom;
}
