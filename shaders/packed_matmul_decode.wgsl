// packed_matmul_decode: few rows times a packed matrix.
//
// Math    y[t, o] = sum_c x[t, c] * weight[o, c],  weight[o, c] = code * scale of its group
// Shapes  x: (n_tokens, columns)   words: codes (rows, words a row), then scales   y: (n_tokens, rows)
// Grid    one workgroup per token and WG_SIZE / LANES rows, rows fastest; LANES invocations share a row
// Bounds  any n_tokens, rows, columns >= 1
// Error   docs/packed_matmul.md
// Source  own
// Twin    src/ops/packed_matmul/cpu.rs decode
struct Params {
    first_workgroup: u32,
    n_tokens: u32,
    rows: u32,
    columns: u32,
}

const BITS: u32 = 8u; // @spec
const LANES: u32 = 8u; // @spec
const WG_SIZE: u32 = 64u; // @spec
const ROWS: u32 = WG_SIZE / LANES;

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// #import unpack

var<workgroup> sh_sum: array<f32, WG_SIZE>;

// The codes of a word, the first of which is of `column`, times the row of x that starts at `start`.
fn product(word: u32, start: u32, column: u32) -> f32 {
    var sum = 0.0;
    if column + PER_WORD <= params.columns {
        for (var i = 0u; i < PER_WORD; i++) {
            sum += code(word, i) * x[start + column + i];
        }
    } else {
        for (var i = 0u; column + i < params.columns; i++) {
            sum += code(word, i) * x[start + column + i];
        }
    }
    return sum;
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let ix = params.first_workgroup + workgroup.x;
    let blocks = (params.rows + ROWS - 1u) / ROWS;
    let token = ix / blocks;
    if token >= params.n_tokens {
        return; // the whole workgroup leaves together
    }
    let row = ix % blocks * ROWS + lane / LANES;

    var sum = 0.0;
    if row < params.rows {
        let n_words = words_per_row();
        for (var k = lane % LANES; k < n_words; k += LANES) {
            let column = k * PER_WORD;
            let part = product(words[row * n_words + k], token * params.columns, column);
            sum += part * scale(row, column);
        }
    }
    sh_sum[lane] = sum;
    workgroupBarrier();
    if lane % LANES == 0u && row < params.rows {
        sum = 0.0;
        for (var i = 0u; i < LANES; i++) {
            sum += sh_sum[lane + i];
        }
        y[token * params.rows + row] = sum;
    }
}
