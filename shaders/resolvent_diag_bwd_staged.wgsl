// resolvent_diag_bwd_staged: resolvent_diag_bwd for few heads, whose rows travel through workgroup memory.
//
// Math    as resolvent_diag_bwd
//         A workgroup takes tiles of TILE rows of each of its chunks, from the right: it loads them together,
//         neighbouring invocations neighbouring numbers; every invocation runs its own chunk and head; they store
//         the gradients together.
// Shapes  as resolvent_diag_bwd with heads = HEADS
// Grid    one invocation per (batch, chunk, head), head fastest; a workgroup takes WG_SIZE / HEADS whole chunks
// Bounds  HEADS <= WG_SIZE; chunk a multiple of TILE; otherwise as resolvent_diag_bwd
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/backward.rs backward_block
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
const CARRIED: bool = false; // @spec

// Rows of a tile.
const TILE: u32 = 8u;
// Chunks of a workgroup.
const SLOTS: u32 = WG_SIZE / HEADS;
// Of g the row before the tile is kept too. Where it is not, its place keeps invocations on different banks.
const STRIDE: u32 = (TILE + 1u) * HEADS;
const PER_TILE: u32 = TILE * HEADS;

@group(0) @binding(0) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(1) var<storage, read_write> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_g: array<f32>;
@group(0) @binding(3) var<storage, read_write> ends: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_diag: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_coupling: array<f32>;
@group(0) @binding(6) var<storage, read_write> parts: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_g0: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

// First row of each chunk, the row after its last, and the row after the last that it runs; 0 where the workgroup
// has no such chunk.
var<workgroup> firsts: array<u32, SLOTS>;
var<workgroup> ends_own: array<u32, SLOTS>;
var<workgroup> ends_run: array<u32, SLOTS>;
var<workgroup> g_re: array<f32, SLOTS * STRIDE>;
var<workgroup> g_im: array<f32, SLOTS * STRIDE>;
// d_g, replaced by the gradients of diag and coupling.
var<workgroup> w_re: array<f32, SLOTS * STRIDE>;
var<workgroup> w_im: array<f32, SLOTS * STRIDE>;
var<workgroup> p: array<f32, SLOTS * STRIDE>;

fn complex_mul(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

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
    let has_chunk = slot < SLOTS && batch < params.batch;
    let row_0 = batch * params.seq_len;
    let g0_at = batch * select(2u, 1u + n_chunks, CARRIED) * 2u * HEADS + head;
    var first = 0u;
    var end = 0u;
    var last = 0u;
    var e = vec2(0.0);
    if has_chunk {
        first = row_0 + chunk * params.chunk;
        end = min(first + params.chunk, row_0 + params.seq_len);
        last = end;
        if !CARRIED {
            last = min(end + params.warm_up, row_0 + params.seq_len);
        }
        if CARRIED || last == row_0 + params.seq_len {
            let entry = g0_at + select(1u, 1u + chunk, CARRIED) * 2u * HEADS;
            e = vec2(ends[entry], -ends[entry + HEADS]);
        }
    }
    if slot < SLOTS && head == 0u {
        firsts[slot] = first;
        ends_own[slot] = end;
        ends_run[slot] = last;
    }
    workgroupBarrier();

    var sum = vec2(0.0);
    let n_tiles = (params.chunk + params.warm_up + TILE - 1u) / TILE;
    for (var k = 1u; k <= n_tiles; k++) {
        let tile = (n_tiles - k) * TILE;
        for (var i = lane; i < SLOTS * 2u * STRIDE; i += WG_SIZE) {
            let of_slot = i / (2u * STRIDE);
            let t = i % (2u * STRIDE) / (2u * HEADS);
            // One more than the row, which may not exist.
            let next = firsts[of_slot] + tile + t;
            if next > 0u && next <= ends_run[of_slot] {
                let value = g[(next - 1u) * 2u * HEADS + i % (2u * HEADS)];
                let at = of_slot * STRIDE + t * HEADS + i % HEADS;
                if i / HEADS % 2u == 0u {
                    g_re[at] = value;
                } else {
                    g_im[at] = value;
                }
            }
        }
        for (var i = lane; i < SLOTS * 2u * PER_TILE; i += WG_SIZE) {
            let of_slot = i / (2u * PER_TILE);
            let t = i % (2u * PER_TILE) / (2u * HEADS);
            let row = firsts[of_slot] + tile + t;
            if row < ends_run[of_slot] {
                let value = d_g[row * 2u * HEADS + i % (2u * HEADS)];
                let at = of_slot * STRIDE + t * HEADS + i % HEADS;
                if i / HEADS % 2u == 0u {
                    w_re[at] = value;
                } else {
                    w_im[at] = value;
                }
            }
        }
        if VARYING {
            for (var i = lane; i < SLOTS * PER_TILE; i += WG_SIZE) {
                let of_slot = i / PER_TILE;
                let row = firsts[of_slot] + tile + i % PER_TILE / HEADS;
                if row < ends_run[of_slot] {
                    p[of_slot * STRIDE + i % PER_TILE] = coupling[row * HEADS + i % HEADS];
                }
            }
        }
        workgroupBarrier();
        for (var t = TILE; t > 0u; t--) {
            let row = first + tile + t - 1u;
            if row < last {
                let at = slot * STRIDE + (t - 1u) * HEADS + head;
                let here = vec2(g_re[at + HEADS], g_im[at + HEADS]);
                let q = complex_mul(complex_mul(here, here), vec2(w_re[at], -w_im[at]) + e);
                var link = coupling[0];
                if VARYING {
                    link = p[at];
                }
                e = link * q;
                if row < end {
                    sum += vec2(q.x, -q.y);
                    w_re[at] = -q.x;
                    if VARYING {
                        var before = vec2(ends[g0_at], ends[g0_at + HEADS]);
                        if row > row_0 {
                            before = vec2(g_re[at], g_im[at]);
                        }
                        w_im[at] = complex_mul(q, before).x;
                    }
                }
            }
        }
        workgroupBarrier();
        for (var i = lane; i < SLOTS * PER_TILE; i += WG_SIZE) {
            let of_slot = i / PER_TILE;
            let row = firsts[of_slot] + tile + i % PER_TILE / HEADS;
            if row < ends_own[of_slot] {
                let at = of_slot * STRIDE + i % PER_TILE;
                let element = row * HEADS + i % HEADS;
                d_diag[element] = w_re[at];
                if VARYING {
                    d_coupling[element] = w_im[at];
                }
            }
        }
        workgroupBarrier();
    }
    if has_chunk {
        let part = chunk_of_all * 2u * HEADS + head;
        parts[part] = sum.x;
        parts[part + HEADS] = sum.y;
        if chunk == 0u {
            let at = batch * 2u * HEADS + head;
            d_g0[at] = e.x;
            d_g0[at + HEADS] = -e.y;
        }
    }
}
