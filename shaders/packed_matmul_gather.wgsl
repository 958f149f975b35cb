// packed_matmul_gather: rows of a packed matrix as floats.
//
// Math    y[p, c] = weight[ids[p], c] = code * scale of its group
// Shapes  ids: (n_out)   words: codes (rows, words a row), then scales   y: (n_out, columns)
// Grid    one invocation per element of y
// Bounds  any n_out, columns >= 1; ids[p] < rows is the caller's promise
// Error   exact
// Source  own
// Twin    src/ops/packed_matmul/cpu.rs gather_rows
struct Params {
    first_workgroup: u32,
    n_out: u32,
    rows: u32,
    columns: u32,
}

const BITS: u32 = 8u; // @spec
const WG_SIZE: u32 = 256u; // @spec

@group(0) @binding(0) var<storage, read_write> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// #import unpack

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.n_out * params.columns {
        return;
    }
    let row = ids[ix / params.columns];
    let column = ix % params.columns;
    let word = words[row * words_per_row() + column / PER_WORD];
    y[ix] = code(word, column % PER_WORD) * scale(row, column);
}
