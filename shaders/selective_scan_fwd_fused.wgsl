// selective_scan_fwd_fused: reduce, spine and apply at once, four channels an invocation, chunk after chunk.
//
// Math    as selective_scan_fwd_reduce, _spine and _apply: within a chunk from its true first state, while the state
//         that the next chunk starts from is exp(a sums) times that one plus what the chunk ends with from 0
// Shapes  u, delta_raw, y: (batch, seq_len, 4 quads)   a: (d_state, 4 quads)   b, c: (batch, seq_len, d_state)
//         h0: (batch, d_state, 4 quads)   states: (batch, n_chunks + 1, d_state, 4 quads); a quad is four
//         neighbouring channels in one vector
// Grid    one invocation per (batch, quad), quad fastest, which runs chunks first_chunk to end_chunk, CHUNK steps each;
//         states before first_chunk are there, from an earlier launch, unless it is 0
// Bounds  any seq_len, quads, d_state >= 1; the last chunk may be shorter
// Error   docs/selective_scan.md
// Source  Gu & Dao 2023, arXiv:2312.00752; own derivation in docs/selective_scan.md
// Twin    src/ops/selective_scan/cpu/forward.rs forward
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    quads: u32,
    d_state: u32,
    first_chunk: u32,
    end_chunk: u32,
    padding: u32,
}

const WG_SIZE: u32 = 8u; // @spec
const CHUNK: u32 = 16u; // @spec
const SOFTPLUS: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> u: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> delta_raw: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> a: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;
@group(0) @binding(5) var<storage, read_write> h0: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> states: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

// #import softplus
// #import decay

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let quad = ix % params.quads;
    let batch = ix / params.quads;
    if batch >= params.batch {
        return;
    }
    let n_chunks = (params.seq_len + CHUNK - 1u) / CHUNK;
    for (var chunk = params.first_chunk; chunk < params.end_chunk; chunk++) {
        let first = batch * params.seq_len + chunk * CHUNK; // token
        let n_steps = min(CHUNK, params.seq_len - chunk * CHUNK);

        // Steps past the end have delta = 0 and leave the state alone.
        var delta: array<vec4<f32>, CHUNK>;
        var x: array<vec4<f32>, CHUNK>; // delta * u
        var out: array<vec4<f32>, CHUNK>;
        var sum = vec4(0.0);
        for (var i = 0u; i < CHUNK; i++) {
            delta[i] = vec4(0.0);
            x[i] = vec4(0.0);
            out[i] = vec4(0.0);
            if i < n_steps {
                let at = (first + i) * params.quads + quad;
                let raw = delta_raw[at];
                delta[i] = raw;
                if SOFTPLUS {
                    delta[i] = vec4(softplus(raw.x), softplus(raw.y), softplus(raw.z), softplus(raw.w));
                }
                x[i] = delta[i] * u[at];
            }
            sum += delta[i];
        }
        let row = batch * (n_chunks + 1u) + chunk;
        for (var n = 0u; n < params.d_state; n++) {
            let rate = a[n * params.quads + quad];
            let at = (row * params.d_state + n) * params.quads + quad;
            if chunk == 0u {
                states[at] = h0[(batch * params.d_state + n) * params.quads + quad];
            }
            let start = states[at];
            var h = start;
            var end = vec4(0.0);
            for (var i = 0u; i < CHUNK; i++) {
                let token = first + min(i, n_steps - 1u);
                let step = exp(delta[i] * rate);
                let input = x[i] * b[token * params.d_state + n];
                h = step * h + input;
                end = step * end + input;
                out[i] += c[token * params.d_state + n] * h;
            }
            let total = rate * sum;
            let kept = vec4(decay(total.x), decay(total.y), decay(total.z), decay(total.w));
            states[at + params.d_state * params.quads] = kept * start + end;
        }
        for (var i = 0u; i < CHUNK; i++) {
            if i < n_steps {
                y[(first + i) * params.quads + quad] = out[i];
            }
        }
    }
}
