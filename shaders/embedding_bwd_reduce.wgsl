// embedding_bwd_reduce: first pass of the gradient of a row gather: sums over groups of positions.
//
// Math    parts[g] = sum of d_y[order[i]] for bounds[g] <= i < bounds[g + 1], in increasing i
// Shapes  order: (n)   bounds: (n_groups + 1)   d_y: (n, d)   parts: (n_groups, d)
// Grid    one invocation per (group, column), column fastest
// Bounds  any n_groups, d >= 1; all positions of a group gathered the same row
// Error   one rounding a position of the group
// Source  own derivation in docs/embedding.md
// Twin    src/ops/embedding/cpu.rs scatter_sum
struct Params {
    first_workgroup: u32,
    n_groups: u32,
    d: u32,
    padding: u32,
}

const WG_SIZE: u32 = 256u; // @spec

@group(0) @binding(0) var<storage, read_write> order: array<u32>;
@group(0) @binding(1) var<storage, read_write> bounds: array<u32>;
@group(0) @binding(2) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.n_groups * params.d {
        return;
    }
    let group = ix / params.d;
    let column = ix % params.d;
    var sum = 0.0;
    for (var i = bounds[group]; i < bounds[group + 1u]; i++) {
        sum += d_y[order[i] * params.d + column];
    }
    parts[ix] = sum;
}
