// skip_gate_fwd: the scan's output with its skip connection, gated.
//
// Math    out = (y + skip * u) * z * sigmoid(z)
// Shapes  y, u, z, out: (n_rows, channels)   skip: (channels)
// Grid    one invocation per element
// Bounds  any n_rows, channels >= 1
// Error   docs/skip_gate.md
// Source  Gu & Dao 2023 (arXiv:2312.00752) fig. 3
// Twin    src/ops/skip_gate/cpu.rs forward
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    channels: u32,
}

const WG_SIZE: u32 = 256u; // @spec

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> u: array<f32>;
@group(0) @binding(2) var<storage, read_write> skip: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// exp is kept from overflowing: WGSL may assume that infinities do not occur.
fn sigmoid(v: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-v, 80.0)));
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.n_rows * params.channels {
        return;
    }
    let gate = z[ix] * sigmoid(z[ix]);
    out[ix] = (y[ix] + skip[ix % params.channels] * u[ix]) * gate;
}
