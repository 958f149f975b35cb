// resolvent_diag_fwd: the causal resolvent diagonal, one invocation a chunk and head.
//
// Math    g[i] = 1 / (diag[i] - z - coupling[i] * g[i-1])
//         A chunk whose incoming g is not given starts warm_up rows early from 0: the map contracts, and
//         what the start was is forgotten to rounding.
// Shapes  diag, coupling: (batch, seq_len, heads), coupling (1) unless VARYING   shift: (2, heads)
//         carry: (batch, n_carried, 2 heads), g entering the first n_carried chunks
//         g: (batch, seq_len, 2 heads), real parts of all heads, then imaginary parts
// Grid    one invocation per (batch, chunk, head), head fastest
// Bounds  any seq_len >= 1; warm_up <= chunk, n_carried >= 1; the last chunk may be shorter
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/forward.rs forward_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    heads: u32,
    chunk: u32,
    warm_up: u32,
    n_carried: u32,
    padding: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const VARYING: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> diag: array<f32>;
@group(0) @binding(1) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(2) var<storage, read_write> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> carry: array<f32>;
@group(0) @binding(4) var<storage, read_write> g: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// Coupling of an element of diag to the one a row before.
fn coupling_at(element: u32) -> f32 {
    if VARYING {
        return coupling[element];
    }
    return coupling[0];
}

fn step(element: u32, z: vec2<f32>, state: vec2<f32>) -> vec2<f32> {
    let p = coupling_at(element);
    let re = diag[element] - z.x - p * state.x;
    // Minus the imaginary part of the denominator: both terms are positive, nothing cancels.
    let im = z.y + p * state.y;
    return vec2(re, im) / (re * re + im * im);
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
    let row = batch * params.seq_len;

    var state = vec2(0.0);
    if chunk < params.n_carried {
        let at = (batch * params.n_carried + chunk) * 2u * params.heads + head;
        state = vec2(carry[at], carry[at + params.heads]);
    } else {
        for (var t = first - params.warm_up; t < first; t++) {
            state = step((row + t) * params.heads + head, z, state);
        }
    }
    for (var t = first; t < end; t++) {
        state = step((row + t) * params.heads + head, z, state);
        let at = (row + t) * 2u * params.heads + head;
        g[at] = state.x;
        g[at + params.heads] = state.y;
    }
}
