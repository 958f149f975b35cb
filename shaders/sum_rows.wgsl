// sum_rows: one level of a tree that sums the rows of a matrix in a fixed order.
//
// Math    out[g, c] = scale * sum of parts[r, c] over the rows r of group g, in increasing order
// Shapes  parts: (n_rows, n_cols)   out: (ceil(n_rows / GROUP), n_cols)
// Grid    one invocation per (group, column), column fastest
// Bounds  any n_rows, n_cols >= 1; the last group may be shorter
// Error   GROUP - 1 roundings a level, ceil(log_GROUP(rows)) levels
// Source  own
// Twin    src/ops/sums.rs
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    n_cols: u32,
    scale: f32,
}

const WG_SIZE: u32 = 64u; // @spec
const GROUP: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_groups = (params.n_rows + GROUP - 1u) / GROUP;
    if ix >= n_groups * params.n_cols {
        return;
    }
    let column = ix % params.n_cols;
    let first = ix / params.n_cols * GROUP;
    let end = min(first + GROUP, params.n_rows);
    var sum = 0.0;
    for (var row = first; row < end; row++) {
        sum += parts[row * params.n_cols + column];
    }
    out[ix] = params.scale * sum;
}
