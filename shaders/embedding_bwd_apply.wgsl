// embedding_bwd_apply: second pass of the gradient of a row gather: sums over the groups of a row.
//
// Math    d_weight[r] = sum of parts[g] for row_groups[r] <= g < row_groups[r + 1], in increasing g
// Shapes  row_groups: (n_rows + 1)   parts: (n_groups, d)   d_weight: (n_rows, d)
// Grid    one invocation per element of d_weight
// Bounds  any n_rows, d >= 1; a row without groups becomes 0
// Error   one rounding a group of the row
// Source  own derivation in docs/embedding.md
// Twin    src/ops/embedding/cpu.rs scatter_sum
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    d: u32,
    padding: u32,
}

const WG_SIZE: u32 = 256u; // @spec

@group(0) @binding(0) var<storage, read_write> row_groups: array<u32>;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_weight: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.n_rows * params.d {
        return;
    }
    let row = ix / params.d;
    let column = ix % params.d;
    var sum = 0.0;
    for (var group = row_groups[row]; group < row_groups[row + 1u]; group++) {
        sum += parts[group * params.d + column];
    }
    d_weight[ix] = sum;
}
