// resolvent_diag_bwd_spine: second of three phases of the adjoint: carries e through the chunks, right to left.
//
// Math    e entering the last chunk = conj(d_g_last);   e leaves a chunk as a e + b
// Shapes  maps: (batch, n_chunks, heads) of (a, b)   g0, d_g_last: (batch, 2 heads)
//         ends: (batch, 1 + n_chunks, 2 heads): g0, then conj(e) entering every chunk
// Grid    one invocation per (batch, head), head fastest
// Bounds  any n_chunks >= 1
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/backward.rs carry_backward
struct Params {
    first_workgroup: u32,
    batch: u32,
    n_chunks: u32,
    heads: u32,
}

const WG_SIZE: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> maps: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> g0: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_g_last: array<f32>;
@group(0) @binding(3) var<storage, read_write> ends: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.batch * params.heads {
        return;
    }
    let head = ix % params.heads;
    let batch = ix / params.heads;
    let at = batch * 2u * params.heads + head;
    let row = batch * (params.n_chunks + 1u);
    ends[row * 2u * params.heads + head] = g0[at];
    ends[row * 2u * params.heads + params.heads + head] = g0[at + params.heads];
    var e = vec2(d_g_last[at], -d_g_last[at + params.heads]);
    for (var k = params.n_chunks; k > 0u; k--) {
        let to = (row + k) * 2u * params.heads + head;
        ends[to] = e.x;
        ends[to + params.heads] = -e.y;
        let map = maps[(batch * params.n_chunks + k - 1u) * params.heads + head];
        e = vec2(map.x * e.x - map.y * e.y, map.x * e.y + map.y * e.x) + map.zw;
    }
}
