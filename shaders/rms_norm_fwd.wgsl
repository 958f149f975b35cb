// rms_norm_fwd: rows over their root mean square, times a weight.
//
// Math    y[i] = gamma[i] * x[i] / sqrt(mean(x^2) + epsilon)
// Shapes  x, y: (n_rows, width)   gamma: (width)
// Grid    one workgroup per row
// Bounds  any n_rows, width >= 1
// Error   docs/rms_norm.md
// Source  Zhang & Sennrich 2019 (arXiv:1910.07467)
// Twin    src/ops/rms_norm/cpu.rs forward
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    width: u32,
    epsilon: f32,
}

const WG_SIZE: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> sh_squares: array<f32, WG_SIZE>;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = params.first_workgroup + workgroup.x;
    if row >= params.n_rows {
        return; // the whole workgroup leaves together
    }
    let start = row * params.width;
    var squares = 0.0;
    for (var i = lane; i < params.width; i += WG_SIZE) {
        squares += x[start + i] * x[start + i];
    }
    sh_squares[lane] = squares;
    workgroupBarrier();
    // Every lane combines all of them itself: one barrier, one order.
    squares = 0.0;
    for (var i = 0u; i < WG_SIZE; i++) {
        squares += sh_squares[i];
    }
    let inverse = 1.0 / sqrt(squares / f32(params.width) + params.epsilon);
    for (var i = lane; i < params.width; i += WG_SIZE) {
        y[start + i] = x[start + i] * inverse * gamma[i];
    }
}
