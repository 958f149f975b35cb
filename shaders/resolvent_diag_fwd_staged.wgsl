// resolvent_diag_fwd_staged: resolvent_diag_fwd for few heads, whose rows travel through workgroup memory.
//
// Math    g[i] = 1 / (diag[i] - z - coupling[i] * g[i-1]), as in resolvent_diag_fwd
//         A workgroup takes tiles of TILE rows of each of its chunks: it loads them together, neighbouring invocations
//         neighbouring numbers; every invocation runs its own chunk and head; they store g together.
// Shapes  as resolvent_diag_fwd with heads = HEADS
// Grid    one invocation per (batch, chunk, head), head fastest; a workgroup takes WG_SIZE / HEADS whole chunks
// Bounds  HEADS <= WG_SIZE; otherwise as resolvent_diag_fwd
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/forward.rs forward_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    chunk: u32,
    warm_up: u32,
    n_carried: u32,
    padding_0: u32,
    padding_1: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const HEADS: u32 = 1u; // @spec
const VARYING: bool = true; // @spec

// Rows of a tile.
const TILE: u32 = 16u;
// Chunks of a workgroup.
const SLOTS: u32 = WG_SIZE / HEADS;
// A row more than is used: invocations of a subgroup then fall on different banks.
const STRIDE: u32 = (TILE + 1u) * HEADS;
// Numbers of a tile, and of the same rows of g.
const PER_TILE: u32 = TILE * HEADS;

@group(0) @binding(0) var<storage, read_write> diag: array<f32>;
@group(0) @binding(1) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(2) var<storage, read_write> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> carry: array<f32>;
@group(0) @binding(4) var<storage, read_write> g: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// First row of each chunk, and the row after its last; both 0 where the workgroup has no such chunk.
var<workgroup> firsts: array<u32, SLOTS>;
var<workgroup> ends: array<u32, SLOTS>;
// diag and coupling of the tiles, replaced by the real and imaginary parts of g.
var<workgroup> re: array<f32, SLOTS * STRIDE>;
var<workgroup> im: array<f32, SLOTS * STRIDE>;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n_chunks = (params.seq_len + params.chunk - 1u) / params.chunk;
    let slot = lane / HEADS;
    let head = lane % HEADS;
    let chunk_of_all = (params.first_workgroup + workgroup.x) * SLOTS + slot;
    let chunk = chunk_of_all % n_chunks;
    let batch = chunk_of_all / n_chunks;
    var first = 0u;
    var end = 0u;
    if slot < SLOTS && batch < params.batch {
        let row = batch * params.seq_len;
        first = row + chunk * params.chunk;
        end = min(first + params.chunk, row + params.seq_len);
    }
    if slot < SLOTS && head == 0u {
        firsts[slot] = first;
        ends[slot] = end;
    }
    let z = vec2(shift[head], shift[HEADS + head]);

    // A given state enters at the first row.
    var state = vec2(0.0);
    var start = first - min(params.warm_up, first);
    if chunk < params.n_carried && first < end {
        let at = (batch * params.n_carried + chunk) * 2u * HEADS + head;
        state = vec2(carry[at], carry[at + HEADS]);
        start = first;
    }
    workgroupBarrier();

    // Tiles lie as chunks do; that which holds the first row of the warm-up may begin earlier.
    let before = (params.warm_up + TILE - 1u) / TILE * TILE;
    for (var tile = 0u; tile < before + params.chunk; tile += TILE) {
        for (var i = lane; i < SLOTS * PER_TILE; i += WG_SIZE) {
            let of_slot = i / PER_TILE;
            let row = firsts[of_slot] + tile + i % PER_TILE / HEADS;
            if row >= before && row - before < ends[of_slot] {
                let element = (row - before) * HEADS + i % HEADS;
                let at = of_slot * STRIDE + i % PER_TILE;
                re[at] = diag[element];
                if VARYING {
                    im[at] = coupling[element];
                }
            }
        }
        workgroupBarrier();
        for (var t = 0u; t < TILE; t++) {
            let row = first + tile + t;
            if row >= start + before && row < end + before {
                let at = slot * STRIDE + t * HEADS + head;
                var p = coupling[0];
                if VARYING {
                    p = im[at];
                }
                let d_re = re[at] - z.x - p * state.x;
                // Minus the imaginary part of the denominator: both terms are positive, nothing cancels.
                let d_im = z.y + p * state.y;
                state = vec2(d_re, d_im) / (d_re * d_re + d_im * d_im);
                re[at] = state.x;
                im[at] = state.y;
            }
        }
        workgroupBarrier();
        if tile >= before {
            for (var i = lane; i < SLOTS * 2u * PER_TILE; i += WG_SIZE) {
                let of_slot = i / (2u * PER_TILE);
                let t = i % (2u * PER_TILE) / (2u * HEADS);
                let row = firsts[of_slot] + tile - before + t;
                if row < ends[of_slot] {
                    let at = of_slot * STRIDE + t * HEADS + i % HEADS;
                    let is_imaginary = i / HEADS % 2u == 1u;
                    g[row * 2u * HEADS + i % (2u * HEADS)] = select(re[at], im[at], is_imaginary);
                }
            }
        }
        workgroupBarrier();
    }
}
