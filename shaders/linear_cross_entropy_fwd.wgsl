// linear_cross_entropy_fwd: negative log-likelihood of each row of logits, and its gradient in their place.
//
// Math    nll = ln(sum_v exp(l[v] - max)) - (l[target] - max)
//         l[v] <- scale * (softmax(l)[v] - [v == target])                       if GRADIENT
// Shapes  targets, nll: (n_rows)   logits: (n_rows, vocab)
// Grid    one workgroup per row
// Bounds  any n_rows, vocab >= 1; targets[row] < vocab is the caller's promise
// Error   docs/linear_cross_entropy.md
// Source  textbook; max subtracted so that no exp overflows
// Twin    src/ops/linear_cross_entropy/cpu.rs
struct Params {
    first_workgroup: u32,
    n_rows: u32,
    vocab: u32,
    scale: f32,
}

const WG_SIZE: u32 = 64u; // @spec
const GRADIENT: bool = true; // @spec

@group(0) @binding(0) var<storage, read_write> targets: array<u32>;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> nll: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> sh_max: array<f32, WG_SIZE>;
var<workgroup> sh_sum: array<f32, WG_SIZE>;
var<workgroup> sh_target: f32;

@compute @workgroup_size(WG_SIZE, 1, 1)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = params.first_workgroup + workgroup.x;
    if row >= params.n_rows {
        return; // the whole workgroup leaves together
    }
    let start = row * params.vocab;
    let last = params.vocab - 1u;
    let target_word = targets[row];

    // A lane without a word of its own repeats the last one.
    var largest = logits[start + min(lane, last)];
    for (var v = lane; v < params.vocab; v += WG_SIZE) {
        let logit = logits[start + v];
        largest = max(largest, logit);
        if v == target_word {
            sh_target = logit; // written by exactly one lane
        }
    }
    sh_max[lane] = largest;
    workgroupBarrier();
    // Every lane combines all of them itself: one barrier, one order.
    for (var i = 0u; i < WG_SIZE; i++) {
        largest = max(largest, sh_max[i]);
    }

    var sum = 0.0;
    for (var v = lane; v < params.vocab; v += WG_SIZE) {
        sum += exp(logits[start + v] - largest);
    }
    sh_sum[lane] = sum;
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < WG_SIZE; i++) {
        sum += sh_sum[i];
    }

    if lane == 0u {
        nll[row] = log(sum) - (sh_target - largest);
    }
    if GRADIENT {
        for (var v = lane; v < params.vocab; v += WG_SIZE) {
            let probability = exp(logits[start + v] - largest) / sum;
            logits[start + v] = params.scale * (probability - select(0.0, 1.0, v == target_word));
        }
    }
}
