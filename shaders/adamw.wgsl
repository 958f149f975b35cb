// adamw: a step of AdamW.
//
// Math    m = beta_1 m + (1 - beta_1) g   v = beta_2 v + (1 - beta_2) g^2
//         p = decay p - rate (m / correction_1) / (sqrt(v / correction_2) + epsilon)
// Shapes  all: (n)
// Grid    one invocation per element
// Bounds  any n >= 1; no correction is 0
// Error   docs/adamw.md
// Source  Loshchilov & Hutter 2019 (arXiv:1711.05101) algorithm 2
// Twin    src/ops/adamw/cpu.rs
struct Params {
    first_workgroup: u32,
    n: u32,
    beta_1: f32,
    beta_2: f32,
    correction_1: f32,
    correction_2: f32,
    epsilon: f32,
    rate: f32,
    decay: f32,
}

const WG_SIZE: u32 = 256u; // @spec

@group(0) @binding(0) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> first: array<f32>;
@group(0) @binding(3) var<storage, read_write> second: array<f32>;
@group(0) @binding(4) var<storage, read_write> new_parameter: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_first: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_second: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.n {
        return;
    }
    let g = gradient[ix];
    let m = first[ix] * params.beta_1 + g * (1.0 - params.beta_1);
    let v = second[ix] * params.beta_2 + g * g * (1.0 - params.beta_2);
    let update = m / params.correction_1 / (sqrt(v / params.correction_2) + params.epsilon);
    new_parameter[ix] = parameter[ix] * params.decay - update * params.rate;
    new_first[ix] = m;
    new_second[ix] = v;
}
