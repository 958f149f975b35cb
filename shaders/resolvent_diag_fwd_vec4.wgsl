// resolvent_diag_fwd_vec4: resolvent_diag_fwd for heads in groups of four.
//
// Math    g[i] = 1 / (diag[i] - z - coupling[i] * g[i-1]), as in resolvent_diag_fwd
// Shapes  as resolvent_diag_fwd with heads = 4 quads; a quad is four neighbouring heads in one vector
// Grid    one invocation per (batch, chunk, quad), quad fastest
// Bounds  heads a multiple of 4; otherwise as resolvent_diag_fwd
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/forward.rs forward_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    quads: u32,
    chunk: u32,
    warm_up: u32,
    n_carried: u32,
    padding: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const VARYING: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> diag: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(2) var<storage, read_write> shift: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> carry: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> g: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> params: Params;

struct Complex4 {
    re: vec4<f32>,
    im: vec4<f32>,
}

// Couplings of a quad to the one a row before.
fn coupling_at(quad: u32) -> vec4<f32> {
    if VARYING {
        let at = 4u * quad;
        return vec4(coupling[at], coupling[at + 1u], coupling[at + 2u], coupling[at + 3u]);
    }
    return vec4(coupling[0]);
}

fn step(quad: u32, z: Complex4, state: Complex4) -> Complex4 {
    let p = coupling_at(quad);
    let re = diag[quad] - z.re - p * state.re;
    // Minus the imaginary part of the denominator: both terms are positive, nothing cancels.
    let im = z.im + p * state.im;
    let inverse = 1.0 / (re * re + im * im);
    return Complex4(re * inverse, im * inverse);
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + params.chunk - 1u) / params.chunk;
    let quad = ix % params.quads;
    let chunk = ix / params.quads % n_chunks;
    let batch = ix / params.quads / n_chunks;
    if batch >= params.batch {
        return;
    }
    let first = chunk * params.chunk;
    let end = min(first + params.chunk, params.seq_len);
    let z = Complex4(shift[quad], shift[params.quads + quad]);
    let row = batch * params.seq_len;

    var state = Complex4(vec4(0.0), vec4(0.0));
    if chunk < params.n_carried {
        let at = (batch * params.n_carried + chunk) * 2u * params.quads + quad;
        state = Complex4(carry[at], carry[at + params.quads]);
    } else {
        for (var t = first - params.warm_up; t < first; t++) {
            state = step((row + t) * params.quads + quad, z, state);
        }
    }
    for (var t = first; t < end; t++) {
        state = step((row + t) * params.quads + quad, z, state);
        let at = (row + t) * 2u * params.quads + quad;
        g[at] = state.re;
        g[at + params.quads] = state.im;
    }
}
