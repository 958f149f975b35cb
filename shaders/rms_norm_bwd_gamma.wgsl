// rms_norm_bwd_gamma: gradient of the normalisation by its weight, summed over each chunk of rows.
//
// Math    parts[i] = sum over the chunk of d_y[i] * x[i] * inverse_root
// Shapes  x, d_y: (n_rows, width)   inverse_root: (n_rows)   parts: (ceil(n_rows / CHUNK), width)
// Grid    one invocation per (chunk, column), column fastest
// Bounds  any n_rows, width >= 1; the last chunk may be shorter
// Error   docs/rms_norm.md
// Source  own derivation in docs/rms_norm.md
// Twin    src/ops/rms_norm/cpu.rs backward
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    width: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const CHUNK: u32 = 32u; // @spec

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(2) var<storage, read_write> inverse_root: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let column = ix % params.width;
    let first = ix / params.width * CHUNK;
    if first >= params.n_rows {
        return;
    }
    let end = min(first + CHUNK, params.n_rows);
    var sum = 0.0;
    for (var row = first; row < end; row++) {
        let here = row * params.width + column;
        sum += d_y[here] * (x[here] * inverse_root[row]);
    }
    parts[ix] = sum;
}
