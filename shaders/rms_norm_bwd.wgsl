// rms_norm_bwd: gradient of the normalisation by x, and one over the root of each row.
//
// Math    inverse = 1 / sqrt(mean(x^2) + epsilon)   d[i] = d_y[i] * gamma[i]
//         d_x[i] = (d[i] - x[i] * inverse * mean(d * x) * inverse) * inverse
// Shapes  x, d_y, d_x: (n_rows, width)   gamma: (width)   inverse_root: (n_rows)
// Grid    one workgroup per row
// Bounds  any n_rows, width >= 1
// Error   docs/rms_norm.md
// Source  own derivation in docs/rms_norm.md
// Twin    src/ops/rms_norm/cpu.rs backward
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    width: u32,
    epsilon: f32,
}

const WG_SIZE: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(4) var<storage, read_write> inverse_root: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> sh_squares: array<f32, WG_SIZE>;
var<workgroup> sh_products: array<f32, WG_SIZE>;

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
    var products = 0.0;
    for (var i = lane; i < params.width; i += WG_SIZE) {
        let value = x[start + i];
        squares += value * value;
        products += d_y[start + i] * gamma[i] * value;
    }
    sh_squares[lane] = squares;
    sh_products[lane] = products;
    workgroupBarrier();
    // Every lane combines all of them itself: one barrier, one order.
    squares = 0.0;
    products = 0.0;
    for (var i = 0u; i < WG_SIZE; i++) {
        squares += sh_squares[i];
        products += sh_products[i];
    }
    let width = f32(params.width);
    let inverse = 1.0 / sqrt(squares / width + params.epsilon);
    let mean = products * inverse / width;
    for (var i = lane; i < params.width; i += WG_SIZE) {
        let normalised = x[start + i] * inverse;
        d_x[start + i] = (d_y[start + i] * gamma[i] - normalised * mean) * inverse;
    }
    if lane == 0u {
        inverse_root[row] = inverse;
    }
}
