// resolvent_diag_fwd_spine: second of three phases: carries g through the maps of the chunks, in order.
//
// Math    carry[0] = g0;   carry[k+1] = (a carry[k] + b) / (c carry[k] + d) with the map of chunk k
// Shapes  maps: (batch, n_chunks, heads, 2) of (a, b), (c, d)   g0: (batch, 2 heads)
//         carry: (batch, n_chunks, 2 heads)
// Grid    one invocation per (batch, head), head fastest
// Bounds  any n_chunks >= 1
// Error   docs/resolvent_diag.md
// Source  docs/resolvent_diag.md
// Twin    src/ops/resolvent_diag/cpu/forward.rs carry_forward
struct Params {
    first_workgroup: u32,
    batch: u32,
    n_chunks: u32,
    heads: u32,
}

const WG_SIZE: u32 = 64u; // @spec

@group(0) @binding(0) var<storage, read_write> maps: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> g0: array<f32>;
@group(0) @binding(2) var<storage, read_write> carry: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// m.xy * g + m.zw
fn affine(m: vec4<f32>, g: vec2<f32>) -> vec2<f32> {
    return vec2(m.x * g.x - m.y * g.y, m.x * g.y + m.y * g.x) + m.zw;
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    if ix >= params.batch * params.heads {
        return;
    }
    let head = ix % params.heads;
    let batch = ix / params.heads;
    let at = batch * 2u * params.heads + head;
    var g = vec2(g0[at], g0[at + params.heads]);
    for (var k = 0u; k < params.n_chunks; k++) {
        let chunk = batch * params.n_chunks + k;
        let to = chunk * 2u * params.heads + head;
        carry[to] = g.x;
        carry[to + params.heads] = g.y;
        let map = 2u * (chunk * params.heads + head);
        let n = affine(maps[map], g);
        let d = affine(maps[map + 1u], g);
        g = vec2(n.x * d.x + n.y * d.y, n.y * d.x - n.x * d.y) / dot(d, d);
    }
}
