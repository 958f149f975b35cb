// resolvent_diag_bidirectional_published: what the published code returns as the gradient of the diagonal.
//
// Math    w = dL/dRe G + i dL/dIm G;   D = G^2, stretched to |D| = 1e-3 where it is smaller
//         d_diag = -Re(w G^2) / 2 - Re(w / (D + 1e-6)) / 2, within +-1000
// Shapes  full, d_full: (rows, 2 heads), real parts of all heads, then imaginary parts   d_diag: (rows, heads)
// Grid    one invocation per element of d_diag
// Bounds  any n >= 1
// Error   docs/resolvent_diag_bidirectional.md
// Source  docs/resolvent_diag_bidirectional.md
// Twin    src/ops/resolvent_diag/cpu/bidirectional.rs published_rows
struct Params {
    first_workgroup: u32,
    n: u32,
    heads: u32,
    padding: u32,
}

const WG_SIZE: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> full: array<f32>;
@group(0) @binding(1) var<storage, read_write> d_full: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_diag: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.n {
        return;
    }
    let at = ix / params.heads * 2u * params.heads + ix % params.heads;
    let value = vec2(full[at], full[at + params.heads]);
    let w = vec2(d_full[at], d_full[at + params.heads]);
    let square = vec2(value.x * value.x - value.y * value.y, 2.0 * value.x * value.y);
    let size = dot(value, value);
    var d = square;
    if size < 1e-3 {
        d = square * (1e-3 / (size + 1e-9));
    }
    d.x += 1e-6;
    let jacobian = w.x * square.x - w.y * square.y;
    let heuristic = dot(w, d) / dot(d, d);
    let blended = -0.5 * (jacobian + heuristic);
    // Not clamp(), which need not hand on a NaN: these comparisons are false for one.
    d_diag[ix] = select(select(blended, 1e3, blended > 1e3), -1e3, blended < -1e3);
}
