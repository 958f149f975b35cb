//! What a training or a forward pass will need, from shapes alone.
//!
//! The counts follow the models' forward passes, line by line, under burn's autodiff without checkpointing:
//! each node keeps the tensors its derivative reads, tensors that several nodes keep count once, and an
//! elementwise operation writes into an operand that nobody else holds. A test compares them with what
//! trainings are seen to hold.

use crate::config::Precision;
use crate::models::BatchShape;
use crate::models::registry::{Architecture, ModelShape};
use crate::ops::{attention, selective_scan};
use crate::results::MemoryLedger;
use crate::units::Bytes;

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tensors {
    /// On the process's heap, with everything else (CPU backend): the most held at any time.
    OnHeap,
    /// On a device that wgpu reaches: the most that tensors hold after forward, backward or optimiser.
    OnAdapter,
}

/// One optimiser step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Tokens of a sequence whose activations exist at once; `seq_len` where sequences are trained whole.
    pub segment: usize,
    /// Rows of logits that exist at once.
    pub loss_chunk_tokens: usize,
    /// In what matrix products are computed.
    pub precision: Precision,
    /// Whether only the inputs of the layers are kept, and a layer is computed again for its backward pass.
    pub layer_by_layer: bool,
    /// Whether the states between segments and the optimiser's moments wait on the host.
    pub states_on_host: bool,
}

/// Bytes of an f32 or a u32.
const WORD: u64 = 4;
/// What burn's optimiser and modules keep beside the values of a parameter on the CPU, as the heap shows.
const BESIDE_A_PARAMETER: u64 = 4 << 10;

/// What training `shape` holds at the moment at which it holds most: in the loss, after the backward pass, or
/// while a checkpoint is written.
pub fn estimate(shape: &ModelShape, work: Workload, tensors: Tensors) -> MemoryLedger {
    let ModelShape {
        d_model,
        vocab_size,
        n_layers,
        ..
    } = *shape;
    let n_tokens = work.batch * work.segment;
    let n_segments = work.seq_len.div_ceil(work.segment);
    let in_segments = u64::from(n_segments > 1);
    let on_heap = u64::from(tensors == Tensors::OnHeap);
    let bytes = |words: usize| WORD * words as u64;

    let parameters = bytes(shape.parameters().total);
    let moments = 2 * parameters + on_heap * BESIDE_A_PARAMETER * n_parameter_tensors(shape) as u64;
    // A state before each segment, and the cotangent of the one after the last.
    let boundaries = bytes((n_segments + 1) * n_layers * work.batch * state_words(shape));
    let counted = on_heap.max(u64::from(!work.states_on_host));
    let (moments, boundaries) = (counted * moments, counted * boundaries);
    // Inputs and targets, of the step and of the segment.
    let ids = on_heap * bytes(2 * (work.batch * work.seq_len + n_tokens));
    // The ids, what the last normalisation reads, what the head reads, and its gradient.
    let shell = bytes(n_tokens * (3 * d_model + 1));
    let layer = saved_by_layer(shape, work, tensors);
    // Pieces and whole of the last gradient, or the logits with the operand that a product packs.
    let chunk = work.loss_chunk_tokens.min(n_tokens);
    let in_loss = on_heap * bytes((n_tokens * d_model).max(chunk * (vocab_size + d_model)));
    let stream = bytes(n_tokens * d_model);
    let (saved, buffers) = if work.layer_by_layer {
        (shell.max(layer + stream) + n_layers as u64 * stream, 0)
    } else {
        (shell + n_layers as u64 * layer, in_loss)
    };

    let ledger = |gradients, saved, buffers| MemoryLedger {
        parameters: Bytes(parameters),
        gradients: Bytes(gradients),
        optimizer_states: Bytes(moments),
        activations_saved: Bytes(saved),
        activations_boundary: Bytes(boundaries),
        buffers: Bytes(buffers),
    };
    let head = bytes(vocab_size * d_model);
    let loss = ledger(in_segments * parameters + head, saved, buffers + ids);
    let backward = ledger((1 + in_segments) * parameters, 0, ids);
    // The moments are copied to the host before they are written.
    let checkpoint = ledger(0, 0, on_heap * 2 * parameters + ids);
    [backward, checkpoint]
        .into_iter()
        .fold(loss, |most, other| {
            if other.total() > most.total() {
                other
            } else {
                most
            }
        })
}

/// What a forward pass without gradients over `tokens`, and their cross-entropy, hold at the moment at which they
/// hold most. On an adapter that is between two operations: what an operation holds while it runs is not seen there.
pub fn estimate_inference(
    shape: &ModelShape,
    tokens: BatchShape,
    loss_chunk_tokens: usize,
    tensors: Tensors,
) -> MemoryLedger {
    let bytes = |words: usize| Bytes(WORD * words as u64);
    let n_tokens = tokens.n_tokens();
    let chunk = loss_chunk_tokens.min(n_tokens);
    let in_loss = n_tokens * shape.d_model + chunk * (shape.vocab_size + shape.d_model);
    MemoryLedger {
        parameters: bytes(shape.parameters().total),
        gradients: Bytes(0),
        optimizer_states: Bytes(0),
        activations_saved: Bytes(0),
        // Those before, and those after.
        activations_boundary: bytes(2 * shape.n_layers * tokens.batch * state_words(shape)),
        buffers: bytes(in_loss.max(passing_words(shape, tokens, tensors))),
    }
}

/// Words that live at once in one layer without gradients, the residual stream included.
fn passing_words(shape: &ModelShape, tokens: BatchShape, tensors: Tensors) -> usize {
    let d = shape.d_model;
    let n_tokens = tokens.n_tokens();
    match (shape.architecture, tensors) {
        (Architecture::Mamba, _) => {
            let (inner, d_state) = (shape.d_inner(), shape.d_state);
            // z, the convolution, the step size; the selection, with copies of B and C.
            let selection = shape.dt_rank + 2 * d_state + 2 * d_state;
            let before_scan = n_tokens * (d + 3 * inner + selection);
            match tensors {
                Tensors::OnAdapter => before_scan,
                Tensors::OnHeap => {
                    let chunks = tokens.seq_len.div_ceil(selective_scan::CHUNK) + 1;
                    let states = tokens.batch * chunks * d_state * inner;
                    // The gate reads what the scan made, and makes as much.
                    let gated = n_tokens * (d + 5 * inner);
                    (before_scan + n_tokens * inner + states).max(gated)
                }
            }
        }
        // The block's input; queries, keys and values together.
        (Architecture::Transformer, Tensors::OnAdapter) => {
            n_tokens * (d + 3 * shape.attention_width())
        }
        (Architecture::Transformer, Tensors::OnHeap) => {
            // Queries, keys, values and what was made of them; scores on both sides of a step of their softmax.
            let around = n_tokens * (d + 4 * shape.attention_width());
            around + 2 * attention_scores(shape, tokens)
        }
        // The block's input and both its branches.
        (_, Tensors::OnAdapter) => 3 * n_tokens * d,
        (_, Tensors::OnHeap) => {
            let (top_k, n_experts) = (shape.top_k, shape.n_experts);
            let width = shape.router_choices();
            // Rows of the experts, and what the tokens gather from what became of them.
            let rows = padded(n_tokens * top_k);
            let earlier_choices = (top_k - 1).min(1);
            let gathered = n_tokens * (2 + earlier_choices) * d;
            // While the last expert runs, its rows twice and both sides of its nonlinearity.
            let in_expert = rows / n_experts * (2 * d + 2 * shape.expert_hidden);
            // Probabilities and choices, here and on the host.
            let choices = n_tokens * (2 + 3 * top_k) * width;
            // The experts' rows, what they made of them piece by piece, and that together; the rows are gone when the
            // tokens gather from it.
            let around_experts = 2 * rows * d + in_expert.max(rows * d);
            // What the resolvent made, and, as measured, about as much as its input once more.
            let resolved = match shape.architecture {
                Architecture::NoMixer => 0,
                _ => n_tokens * (d + 2 * shape.n_heads()),
            };
            n_tokens * d + resolved + choices + around_experts.max(rows * d + gathered)
        }
    }
}

/// Bytes that one layer's forward pass keeps for a segment.
fn saved_by_layer(shape: &ModelShape, work: Workload, tensors: Tensors) -> u64 {
    let d = shape.d_model;
    let n_tokens = work.batch * work.segment;
    // A product keeps its factors. In f16 these are copies: of half the size where nobody else keeps the original, on
    // top of it where somebody does, as of the weights.
    let bytes = |words: usize| WORD * words as u64;
    let (factor, copy) = match work.precision {
        Precision::F32 => (WORD, 0),
        Precision::Mixed => (WORD / 2, WORD / 2),
    };
    let factor = |words: usize| factor * words as u64;
    let copy = |words: usize| copy * words as u64;
    // The residual stream, and what the normalisation makes of it.
    let around = d;
    let normalised = d;
    match shape.architecture {
        Architecture::Mamba => {
            let (inner, d_state) = (shape.d_inner(), shape.d_state);
            // Of width d_inner: x, z, the convolution, the step size, y; and, for a product alone, the gated y.
            let (wide, gated) = (5 * inner, inner);
            let selection = shape.dt_rank + 2 * d_state;
            // The CPU backend copies columns when it folds them into sequences: B and C.
            let columns = match tensors {
                Tensors::OnHeap => 2 * d_state,
                Tensors::OnAdapter => 0,
            };
            let chunks = work.segment.div_ceil(selective_scan::CHUNK) + 1;
            let states = work.batch * chunks * d_state * inner;
            let weights = inner * (3 * d + selection + shape.dt_rank);
            bytes(n_tokens * (around + wide + selection + columns) + states)
                + factor(n_tokens * (normalised + gated))
                + copy(n_tokens * (inner + shape.dt_rank) + weights)
        }
        Architecture::Transformer => {
            let (inner, hidden) = (shape.attention_width(), shape.expert_hidden);
            // Either branch has its norm. Queries, keys, values; of the hidden width what goes into the nonlinearity,
            // its argument and a factor of that, the sigmoid; sines and cosines.
            let angles = work.segment * shape.head_width();
            bytes(n_tokens * (2 * around + 3 * inner + 4 * hidden) + angles)
                // For products alone: either norm, the mixture of values, what comes out of the nonlinearity.
                + factor(n_tokens * (2 * normalised + inner + hidden))
                + copy(2 * d * (2 * inner + hidden))
        }
        Architecture::ResNetBk
        | Architecture::NoMixer
        | Architecture::ResNetBkMh
        | Architecture::ResNetBkPublished
        | Architecture::ResNetBkScatter
        | Architecture::ResNetBkAct => {
            let (top_k, n_experts) = (shape.top_k, shape.n_experts);
            let width = shape.router_choices();
            let (hidden, n_heads) = (shape.expert_hidden, shape.n_heads());
            // Rows of the experts, padded: what goes into their nonlinearity and their token; and, for products
            // alone, what they read and what comes out of it.
            let rows = padded(n_tokens * top_k);
            // Each choice: the experts' rows in the order of the tokens, one-hot choice, gate, slot.
            let choices = top_k * (d + width + 2);
            // The other branch before its scale; the router's logits and exponentials, and their sum.
            let routed = d + 2 * width + 1;
            // Of each head the potential before and after its bounds, their mask, the resolvent.
            let mixer = 5 * n_heads;
            let weights = 2 * d * n_experts * hidden + 3 * d * n_heads;
            bytes(rows * (hidden + 1) + n_tokens * (around + normalised + choices + routed + mixer))
                + factor(rows * (d + hidden))
                + copy(n_tokens * (normalised + 2 * n_heads) + weights)
        }
    }
}

/// Words of the scores of attention that exist at once in one tensor.
fn attention_scores(shape: &ModelShape, tokens: BatchShape) -> usize {
    let n_heads = tokens.batch * shape.n_heads();
    n_heads * attention::query_rows(n_heads, tokens.seq_len) * tokens.seq_len
}

/// Rows of all experts when the routing is balanced: padding in quarter steps between powers of two adds
/// between none and a quarter, a tenth on average.
fn padded(rows: usize) -> usize {
    rows + rows / 10
}

/// Words of the state of one layer and sequence.
fn state_words(shape: &ModelShape) -> usize {
    match shape.architecture {
        Architecture::Mamba => shape.d_inner() * (shape.d_conv - 1 + shape.d_state),
        Architecture::ResNetBkPublished | Architecture::Transformer => 0,
        _ => 2 * shape.n_heads(),
    }
}

/// Tensors of parameters, whatever their size.
fn n_parameter_tensors(shape: &ModelShape) -> usize {
    let block = match shape.architecture {
        Architecture::Mamba => 9 + 2 * usize::from(shape.projection_bias),
        Architecture::ResNetBkMh => 9 + 4 * shape.n_experts,
        Architecture::Transformer => 5,
        Architecture::ResNetBkScatter => 5 + 4 * shape.n_experts,
        _ => 7 + 4 * shape.n_experts,
    };
    2 + shape.n_layers * (1 + block)
}
