// resolvent_diag_bidirectional_fwd: the recurrence from the right, one invocation a chunk and head, and the
// whole resolvent's diagonal from it and the causal one.
//
// Math    r[i] = 1 / (diag[i] - z - coupling[i+1] r[i+1]);
//         G[i] = 1 / (diag[i] - z - coupling[i] g[i-1] - coupling[i+1] r[i+1])
//         A chunk starts warm_up rows after its end from 0: the map contracts, and what the start was is
//         forgotten to rounding.
// Shapes  diag, coupling: (batch, seq_len, heads), coupling (1) unless VARYING   shift: (2, heads)
//         g: (batch, seq_len, 2 heads), real parts of all heads, then imaginary parts
//         out: as g; G if COMBINE, else r
// Grid    one invocation per (batch, chunk, head), head fastest
// Bounds  any seq_len >= 1; the last chunk may be shorter
// Error   docs/resolvent_diag_bidirectional.md
// Source  docs/resolvent_diag_bidirectional.md
// Twin    src/ops/resolvent_diag/cpu/bidirectional.rs forward_block
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
const COMBINE: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> diag: array<f32>;
@group(0) @binding(1) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(2) var<storage, read_write> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// Coupling of an element of diag to the one a row before.
fn coupling_at(element: u32) -> f32 {
    if VARYING {
        return coupling[element];
    }
    return coupling[0];
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

    // Row t from rows after it: denominators have their imaginary parts negated, sums of positive terms.
    var r = vec2(0.0);
    for (var t = min(end + params.warm_up, params.seq_len); t > first; t--) {
        let element = (row + t - 1u) * params.heads + head;
        var after = 0.0;
        if t < params.seq_len {
            after = coupling_at(element + params.heads);
        }
        let s = vec2(diag[element] - z.x - after * r.x, z.y + after * r.y);
        r = s / dot(s, s);
        if t <= end {
            var value = r;
            if COMBINE {
                var both = s;
                if t > 1u {
                    let at = (row + t - 2u) * 2u * params.heads + head;
                    let before = coupling_at(element);
                    both += before * vec2(-g[at], g[at + params.heads]);
                }
                value = both / dot(both, both);
            }
            let at = (row + t - 1u) * 2u * params.heads + head;
            out[at] = value.x;
            out[at + params.heads] = value.y;
        }
    }
}
