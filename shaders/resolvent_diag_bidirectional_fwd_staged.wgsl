// resolvent_diag_bidirectional_fwd_staged: resolvent_diag_bidirectional_fwd for few heads, whose rows travel through
// workgroup memory.
//
// Math    as resolvent_diag_bidirectional_fwd
//         A workgroup takes tiles of TILE rows of each of its chunks, from the right: it loads them together,
//         neighbouring invocations neighbouring numbers; every invocation runs its own chunk and head; they store
//         the results together.
// Shapes  as resolvent_diag_bidirectional_fwd with heads = HEADS
// Grid    one invocation per (batch, chunk, head), head fastest; a workgroup takes WG_SIZE / HEADS whole chunks
// Bounds  HEADS <= WG_SIZE; chunk a multiple of TILE; otherwise as resolvent_diag_bidirectional_fwd
// Error   docs/resolvent_diag_bidirectional.md
// Source  docs/resolvent_diag_bidirectional.md
// Twin    src/ops/resolvent_diag/cpu/bidirectional.rs forward_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    chunk: u32,
    warm_up: u32,
    padding_0: u32,
    padding_1: u32,
    padding_2: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const HEADS: u32 = 1u; // @spec
const VARYING: bool = true; // @spec
const COMBINE: bool = true; // @spec

// Rows of a tile.
const TILE: u32 = 8u;
// Chunks of a workgroup.
const SLOTS: u32 = WG_SIZE / HEADS;
// Of the couplings the row after the tile is kept too. Where it is not, its place keeps invocations on different banks.
const STRIDE: u32 = (TILE + 1u) * HEADS;
const PER_TILE: u32 = TILE * HEADS;

@group(0) @binding(0) var<storage, read_write> diag: array<f32>;
@group(0) @binding(1) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(2) var<storage, read_write> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

// First row of each chunk, the row after its last, and the row after the last that it runs; 0 where the workgroup
// has no such chunk.
var<workgroup> firsts: array<u32, SLOTS>;
var<workgroup> ends_own: array<u32, SLOTS>;
var<workgroup> ends_run: array<u32, SLOTS>;
var<workgroup> d: array<f32, SLOTS * STRIDE>;
var<workgroup> p: array<f32, SLOTS * STRIDE>;
// g of the row before, replaced by the result.
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
    let row_0 = batch * params.seq_len;
    let row_end = row_0 + params.seq_len;
    var first = 0u;
    var end = 0u;
    var last = 0u;
    if slot < SLOTS && batch < params.batch {
        first = row_0 + chunk * params.chunk;
        end = min(first + params.chunk, row_end);
        last = min(end + params.warm_up, row_end);
    }
    if slot < SLOTS && head == 0u {
        firsts[slot] = first;
        ends_own[slot] = end;
        ends_run[slot] = last;
    }
    let z = vec2(shift[head], shift[HEADS + head]);
    workgroupBarrier();

    // Row t from rows after it: denominators have their imaginary parts negated, sums of positive terms.
    var r = vec2(0.0);
    let n_tiles = (params.chunk + params.warm_up + TILE - 1u) / TILE;
    for (var k = 1u; k <= n_tiles; k++) {
        let tile = (n_tiles - k) * TILE;
        for (var i = lane; i < SLOTS * PER_TILE; i += WG_SIZE) {
            let of_slot = i / PER_TILE;
            let row = firsts[of_slot] + tile + i % PER_TILE / HEADS;
            if row < ends_run[of_slot] {
                d[of_slot * STRIDE + i % PER_TILE] = diag[row * HEADS + i % HEADS];
            }
        }
        if VARYING {
            for (var i = lane; i < SLOTS * STRIDE; i += WG_SIZE) {
                let of_slot = i / STRIDE;
                let row = firsts[of_slot] + tile + i % STRIDE / HEADS;
                if row <= ends_run[of_slot] && row < params.batch * params.seq_len {
                    p[i] = coupling[row * HEADS + i % HEADS];
                }
            }
        }
        if COMBINE {
            for (var i = lane; i < SLOTS * 2u * PER_TILE; i += WG_SIZE) {
                let of_slot = i / (2u * PER_TILE);
                let t = i % (2u * PER_TILE) / (2u * HEADS);
                let row = firsts[of_slot] + tile + t;
                if row > 0u && row < ends_own[of_slot] {
                    let value = g[(row - 1u) * 2u * HEADS + i % (2u * HEADS)];
                    let at = of_slot * STRIDE + t * HEADS + i % HEADS;
                    if i / HEADS % 2u == 0u {
                        re[at] = value;
                    } else {
                        im[at] = value;
                    }
                }
            }
        }
        workgroupBarrier();
        for (var t = TILE; t > 0u; t--) {
            let row = first + tile + t - 1u;
            if row < last {
                let at = slot * STRIDE + (t - 1u) * HEADS + head;
                var before = coupling[0];
                var after = coupling[0];
                if VARYING {
                    before = p[at];
                    after = p[at + HEADS];
                }
                if row + 1u == row_end {
                    after = 0.0;
                }
                let s = vec2(d[at] - z.x - after * r.x, z.y + after * r.y);
                r = s / dot(s, s);
                if row < end {
                    var value = r;
                    if COMBINE {
                        var both = s;
                        if row > row_0 {
                            both += before * vec2(-re[at], im[at]);
                        }
                        value = both / dot(both, both);
                    }
                    re[at] = value.x;
                    im[at] = value.y;
                }
            }
        }
        workgroupBarrier();
        for (var i = lane; i < SLOTS * 2u * PER_TILE; i += WG_SIZE) {
            let of_slot = i / (2u * PER_TILE);
            let t = i % (2u * PER_TILE) / (2u * HEADS);
            let row = firsts[of_slot] + tile + t;
            if row < ends_own[of_slot] {
                let at = of_slot * STRIDE + t * HEADS + i % HEADS;
                let is_imaginary = i / HEADS % 2u == 1u;
                out[row * 2u * HEADS + i % (2u * HEADS)] = select(re[at], im[at], is_imaginary);
            }
        }
        workgroupBarrier();
    }
}
