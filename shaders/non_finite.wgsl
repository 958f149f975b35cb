// non_finite: counts the values that are infinite or no number, by their bits.
//
// Math    counts[p] = number of x in part p whose exponent bits are all ones
// Shapes  x: (n), its bits   counts: (n_parts)
// Grid    one invocation per part; a workgroup shares WG_SIZE * STRIDE neighbouring values
// Bounds  any n >= 1
// Error   exact
// Source  IEEE 754-2019, 3.4
// Twin    src/ops/non_finite/cpu.rs count
struct Params {
    first_workgroup: u32,
    n: u32,
    padding_0: u32,
    padding_1: u32,
}

const WG_SIZE: u32 = 256u; // @spec
const STRIDE: u32 = 64u; // @spec
const EXPONENT: u32 = 0x7f800000u;

@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = params.first_workgroup + workgroup.x;
    var count = 0u;
    for (var i = 0u; i < STRIDE; i++) {
        let at = (group * STRIDE + i) * WG_SIZE + lane;
        if at < params.n && (x[at] & EXPONENT) == EXPONENT {
            count++;
        }
    }
    counts[group * WG_SIZE + lane] = f32(count);
}
