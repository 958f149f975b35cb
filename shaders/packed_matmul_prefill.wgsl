// packed_matmul_prefill: many rows times a packed matrix.
//
// Math    y[t, o] = sum_c x[t, c] * weight[o, c],  weight[o, c] = code * scale of its group
// Shapes  x: (n_tokens, columns)   words: codes (rows, words a row), then scales   y: (n_tokens, rows)
// Grid    one workgroup per tile of 32 tokens and 32 rows, rows fastest; an invocation has 4 of each
// Bounds  any n_tokens, rows, columns >= 1
// Error   docs/packed_matmul.md
// Source  own
// Twin    src/ops/packed_matmul/cpu.rs prefill
struct Params {
    first_workgroup: u32,
    n_tokens: u32,
    rows: u32,
    columns: u32,
}

const BITS: u32 = 8u; // @spec
// Rows of x, rows of the matrix, and columns of both that are in workgroup memory at once; and a fourth of it.
const TILE: u32 = 32u;
const QUADS: u32 = 8u;

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// #import unpack

// [column, quad]: four neighbouring rows in one vector.
var<workgroup> sh_x: array<vec4<f32>, 256>;
var<workgroup> sh_weight: array<vec4<f32>, 256>;

fn x_at(token: u32, column: u32) -> f32 {
    if token < params.n_tokens && column < params.columns {
        return x[token * params.columns + column];
    }
    return 0.0;
}

fn code_at(row: u32, column: u32) -> f32 {
    if row < params.rows && column < params.columns {
        return code(words[row * words_per_row() + column / PER_WORD], column % PER_WORD);
    }
    return 0.0;
}

// Of a row or column past the end that of the last, whose codes count as 0.
fn scale_at(row: u32, column: u32) -> f32 {
    return scale(min(row, params.rows - 1u), min(column, params.columns - 1u));
}

fn write(token: u32, row: u32, products: vec4<f32>) {
    if token >= params.n_tokens {
        return;
    }
    for (var i = 0u; i < min(4u, max(params.rows, row) - row); i++) {
        y[token * params.rows + row + i] = products[i];
    }
}

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let ix = params.first_workgroup + workgroup.x;
    let tiles = (params.rows + TILE - 1u) / TILE;
    let token0 = ix / tiles * TILE;
    if token0 >= params.n_tokens {
        return; // the whole workgroup leaves together
    }
    let row0 = ix % tiles * TILE;
    let major = lane / QUADS;
    let minor = lane % QUADS;

    var products = array<vec4<f32>, 4>();
    for (var column0 = 0u; column0 < params.columns; column0 += TILE) {
        // Each invocation fills in four columns of a quad of x and of one of the matrix. Four are never in two groups.
        let token = token0 + 4u * major;
        let row = row0 + 4u * major;
        let first = column0 + 4u * minor;
        let scales = vec4(
            scale_at(row, first), scale_at(row + 1u, first), scale_at(row + 2u, first), scale_at(row + 3u, first));
        for (var i = 0u; i < 4u; i++) {
            let k = 4u * minor + i;
            let c = column0 + k;
            sh_x[k * QUADS + major] =
                vec4(x_at(token, c), x_at(token + 1u, c), x_at(token + 2u, c), x_at(token + 3u, c));
            sh_weight[k * QUADS + major] = scales *
                vec4(code_at(row, c), code_at(row + 1u, c), code_at(row + 2u, c), code_at(row + 3u, c));
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE; k++) {
            let a = sh_x[k * QUADS + major];
            let b = sh_weight[k * QUADS + minor];
            products[0] += a.x * b;
            products[1] += a.y * b;
            products[2] += a.z * b;
            products[3] += a.w * b;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        write(token0 + 4u * major + i, row0 + 4u * minor, products[i]);
    }
}
