// resolvent_diag_bidirectional_bwd: exact adjoint of the bidirectional resolvent diagonal, in two launches: first
// what the rows after a row send it through g, then, added, what the rows before it send through r.
//
// Math    w = dL/dRe G - i dL/dIm G;   rho[i] = w[i] G[i]^2
//         from the right:    l[i] = rho[i] + lambda g[i]^2;   lambda of row i-1 = coupling[i] l[i]
//             d_diag[i] = -Re l[i];   d_coupling[i] = Re(l[i] g[i-1]);   part = sum of (Re l, -Im l)
//         FROM_LEFT:         m[i] = rho[i] + lambda r[i]^2;   lambda of row i+1 = coupling[i+1] m[i]
//             d_diag[i] -= Re(m[i] - rho[i]);   d_coupling[i+1] += Re(m[i] r[i+1]);   part += sum over m - rho
//         A chunk starts warm_up rows outside from 0, as the forward pass does.
// Shapes  coupling: (batch, seq_len, heads), (1) unless VARYING
//         states: (batch, seq_len, 2 heads), r if FROM_LEFT, else g   full, d_full: as states
//         d_diag, d_coupling: as diag, coupling   parts: (batch, n_chunks, 2 heads)
// Grid    one invocation per (batch, chunk, head), head fastest
// Bounds  any seq_len >= 1; the last chunk may be shorter
// Error   docs/resolvent_diag_bidirectional.md
// Source  docs/resolvent_diag_bidirectional.md
// Twin    src/ops/resolvent_diag/cpu/bidirectional.rs backward_block
struct Params {
    first_workgroup: u32,
    batch: u32,
    seq_len: u32,
    heads: u32,
    chunk: u32,
    warm_up: u32,
    padding_0: u32,
    padding_1: u32,
}

const WG_SIZE: u32 = 64u; // @spec
const VARYING: bool = true; // @spec
const FROM_LEFT: bool = false; // @spec

@group(0) @binding(0) var<storage, read_write> coupling: array<f32>;
@group(0) @binding(1) var<storage, read_write> states: array<f32>;
@group(0) @binding(2) var<storage, read_write> full: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_full: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_diag: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_coupling: array<f32>;
@group(0) @binding(6) var<storage, read_write> parts: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

// Coupling of an element of diag to the one a row before.
fn coupling_at(element: u32) -> f32 {
    if VARYING {
        return coupling[element];
    }
    return coupling[0];
}

fn complex_mul(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

fn state_at(row: u32, head: u32) -> vec2<f32> {
    let at = row * 2u * params.heads + head;
    return vec2(states[at], states[at + params.heads]);
}

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let ix = params.first_workgroup * WG_SIZE + id.x;
    let n_chunks = (params.seq_len + params.chunk - 1u) / params.chunk;
    let head = ix % params.heads;
    let chunk = ix / params.heads % n_chunks;
    let batch = ix / params.heads / n_chunks;
    if batch >= params.batch {
        return;
    }
    let first = chunk * params.chunk;
    let end = min(first + params.chunk, params.seq_len);
    let row = batch * params.seq_len;

    // Rows run: those of the warm-up, which lie before or after the chunk, then its own.
    var n_warm = min(params.warm_up, params.seq_len - end);
    if FROM_LEFT {
        n_warm = min(params.warm_up, first);
    }
    var lambda = vec2(0.0);
    var sum = vec2(0.0);
    for (var step = 0u; step < n_warm + end - first; step++) {
        var t = end + n_warm - 1u - step;
        // The row to which this one was coupled in the recurrence, if there is one, and by what.
        var neighbour = t - 1u;
        var link = t;
        var has_neighbour = t > 0u;
        if FROM_LEFT {
            t = first - n_warm + step;
            neighbour = t + 1u;
            link = t + 1u;
            has_neighbour = link < params.seq_len;
        }
        let here = row + t;
        let at = here * 2u * params.heads + head;
        let value = vec2(full[at], full[at + params.heads]);
        let rho = complex_mul(vec2(d_full[at], -d_full[at + params.heads]), complex_mul(value, value));
        let state = state_at(here, head);
        let beyond = complex_mul(lambda, complex_mul(state, state));
        let total = rho + beyond;

        let link_element = (row + link) * params.heads + head;
        var link_gradient = 0.0;
        lambda = vec2(0.0);
        if has_neighbour {
            lambda = coupling_at(link_element) * total;
            link_gradient = complex_mul(total, state_at(row + neighbour, head)).x;
        }
        if step >= n_warm {
            let element = here * params.heads + head;
            if FROM_LEFT {
                // A row's own rho was counted by the first launch.
                sum += vec2(beyond.x, -beyond.y);
                d_diag[element] -= beyond.x;
                if VARYING && has_neighbour {
                    d_coupling[link_element] += link_gradient;
                }
            } else {
                sum += vec2(total.x, -total.y);
                d_diag[element] = -total.x;
                if VARYING {
                    d_coupling[element] = link_gradient;
                }
            }
        }
    }
    let part = (batch * n_chunks + chunk) * 2u * params.heads + head;
    if FROM_LEFT {
        sum += vec2(parts[part], parts[part + params.heads]);
    }
    parts[part] = sum.x;
    parts[part + params.heads] = sum.y;
}
