// copy: moves a buffer four words at a time, to see how fast memory can be read and written.
//
// Math    destination[i] = source[i]
// Shapes  source, destination: (n, 4), bits
// Grid    one invocation per STRIDE rows, WG_SIZE apart; a workgroup moves WG_SIZE * STRIDE neighbouring rows
// Bounds  any n >= 1
// Error   exact
// Source  own
// Twin    src/hardware/rates/copy.rs by_threads
struct Params {
    first_workgroup: u32,
    n: u32,
    padding_0: u32,
    padding_1: u32,
}

const WG_SIZE: u32 = 256u; // @spec
const STRIDE: u32 = 4u; // @spec

@group(0) @binding(0) var<storage, read_write> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> destination: array<vec4<u32>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = params.first_workgroup + workgroup.x;
    for (var i = 0u; i < STRIDE; i++) {
        let at = (group * STRIDE + i) * WG_SIZE + lane;
        if at < params.n {
            destination[at] = source[at];
        }
    }
}
