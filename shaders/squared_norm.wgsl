// squared_norm: sums of squares, each over elements that lie n_parts apart.
//
// Math    parts[k] = sum of x[i]^2 over i = k, k + n_parts, k + 2 n_parts, ...
// Shapes  x: (n)   parts: (n_parts)
// Grid    one invocation per part
// Bounds  any n >= n_parts >= 1
// Error   n / n_parts roundings
// Source  own
// Twin    src/ops/squared_norm/cpu.rs
struct Params {
    first_workgroup: u32,
    n: u32,
    n_parts: u32,
}

const WG_SIZE: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let part = params.first_workgroup * WG_SIZE + id.x;
    if part >= params.n_parts {
        return;
    }
    var sum = 0.0;
    for (var i = part; i < params.n; i += params.n_parts) {
        sum += x[i] * x[i];
    }
    parts[part] = sum;
}
