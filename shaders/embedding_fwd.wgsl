// embedding_fwd: gathers rows of a matrix.
//
// Math    y[p] = weight[ids[p]]
// Shapes  ids: (n_out)   weight: (rows, d)   y: (n_out, d)
// Grid    one invocation per element of y
// Bounds  any n_out, d >= 1; ids[p] < rows is the caller's promise
// Error   exact
// Source  own
// Twin    src/ops/embedding/cpu.rs gather
struct Params {
    first_workgroup: u32,
    n_out: u32,
    d: u32,
    padding: u32,
}

const WG_SIZE: u32 = 256u; // @spec

@group(0) @binding(0) var<storage, read_write> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix < params.n_out * params.d {
        y[ix] = weight[ids[ix / params.d] * params.d + ix % params.d];
    }
}
