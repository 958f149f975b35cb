//! Every kernel of the project. A file in `shaders/` that is not listed here fails a test.

use super::Kernel;

/// Texts that a kernel may `// #import`, by name.
pub const SHARED: &[(&str, &str)] = &[
    ("decay", include_str!("../../shaders/shared/decay.wgsl")),
    (
        "softplus",
        include_str!("../../shaders/shared/softplus.wgsl"),
    ),
    ("unpack", include_str!("../../shaders/shared/unpack.wgsl")),
];

/// All kernels.
pub const KERNELS: &[&Kernel] = &[
    &ADAMW,
    &CAUSAL_CONV_BWD,
    &CAUSAL_CONV_BWD_X0,
    &CAUSAL_CONV_FWD,
    &COPY,
    &EMBEDDING_BWD_APPLY,
    &EMBEDDING_BWD_REDUCE,
    &EMBEDDING_FWD,
    &LINEAR_CROSS_ENTROPY_FWD,
    &NON_FINITE,
    &PACKED_MATMUL_DECODE,
    &PACKED_MATMUL_GATHER,
    &PACKED_MATMUL_PREFILL,
    &RESOLVENT_DIAG_BIDIRECTIONAL_BWD,
    &RESOLVENT_DIAG_BIDIRECTIONAL_FWD,
    &RESOLVENT_DIAG_BIDIRECTIONAL_FWD_STAGED,
    &RESOLVENT_DIAG_BIDIRECTIONAL_PUBLISHED,
    &RESOLVENT_DIAG_BWD,
    &RESOLVENT_DIAG_BWD_REDUCE,
    &RESOLVENT_DIAG_BWD_SPINE,
    &RESOLVENT_DIAG_BWD_STAGED,
    &RESOLVENT_DIAG_FWD,
    &RESOLVENT_DIAG_FWD_REDUCE,
    &RESOLVENT_DIAG_FWD_SPINE,
    &RESOLVENT_DIAG_FWD_STAGED,
    &RESOLVENT_DIAG_FWD_VEC4,
    &RMS_NORM_BWD,
    &RMS_NORM_BWD_GAMMA,
    &RMS_NORM_FWD,
    &SELECTIVE_SCAN_BWD_CHANNEL,
    &SELECTIVE_SCAN_BWD_REDUCE,
    &SELECTIVE_SCAN_BWD_SPINE,
    &SELECTIVE_SCAN_BWD_STATE,
    &SELECTIVE_SCAN_FWD_APPLY,
    &SELECTIVE_SCAN_FWD_FUSED,
    &SELECTIVE_SCAN_FWD_REDUCE,
    &SELECTIVE_SCAN_FWD_SPINE,
    &SKIP_GATE_BWD,
    &SKIP_GATE_FWD,
    &SQUARED_NORM,
    &SUM_ROWS,
];

/// A step of `AdamW`.
pub static ADAMW: Kernel = Kernel {
    name: "adamw",
    source: include_str!("../../shaders/adamw.wgsl"),
    n_inputs: 4,
    n_outputs: 3,
};

/// Depthwise causal convolution: gradients of the inputs, partial gradients of weight and bias.
pub static CAUSAL_CONV_BWD: Kernel = Kernel {
    name: "causal_conv_bwd",
    source: include_str!("../../shaders/causal_conv_bwd.wgsl"),
    n_inputs: 6,
    n_outputs: 2,
};

/// Depthwise causal convolution: gradient of the inputs before the first.
pub static CAUSAL_CONV_BWD_X0: Kernel = Kernel {
    name: "causal_conv_bwd_x0",
    source: include_str!("../../shaders/causal_conv_bwd_x0.wgsl"),
    n_inputs: 6,
    n_outputs: 1,
};

/// Depthwise causal convolution and its activation.
pub static CAUSAL_CONV_FWD: Kernel = Kernel {
    name: "causal_conv_fwd",
    source: include_str!("../../shaders/causal_conv_fwd.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Copies a buffer: no operation, the measure of the others.
pub static COPY: Kernel = Kernel {
    name: "copy",
    source: include_str!("../../shaders/copy.wgsl"),
    n_inputs: 1,
    n_outputs: 1,
};

/// Gradient of a row gather: sums over the groups of a row.
pub static EMBEDDING_BWD_APPLY: Kernel = Kernel {
    name: "embedding_bwd_apply",
    source: include_str!("../../shaders/embedding_bwd_apply.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Gradient of a row gather: sums over groups of positions.
pub static EMBEDDING_BWD_REDUCE: Kernel = Kernel {
    name: "embedding_bwd_reduce",
    source: include_str!("../../shaders/embedding_bwd_reduce.wgsl"),
    n_inputs: 3,
    n_outputs: 1,
};

/// Gathers rows of a matrix.
pub static EMBEDDING_FWD: Kernel = Kernel {
    name: "embedding_fwd",
    source: include_str!("../../shaders/embedding_fwd.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Negative log-likelihood of rows of logits, which its gradient replaces.
pub static LINEAR_CROSS_ENTROPY_FWD: Kernel = Kernel {
    name: "linear_cross_entropy_fwd",
    source: include_str!("../../shaders/linear_cross_entropy_fwd.wgsl"),
    n_inputs: 1,
    n_outputs: 2,
};

/// Bidirectional resolvent diagonal, adjoint: what comes from one side.
pub static RESOLVENT_DIAG_BIDIRECTIONAL_BWD: Kernel = Kernel {
    name: "resolvent_diag_bidirectional_bwd",
    source: include_str!("../../shaders/resolvent_diag_bidirectional_bwd.wgsl"),
    n_inputs: 4,
    n_outputs: 3,
};

/// Bidirectional resolvent diagonal from the causal one, or what comes from the right alone.
pub static RESOLVENT_DIAG_BIDIRECTIONAL_FWD: Kernel = Kernel {
    name: "resolvent_diag_bidirectional_fwd",
    source: include_str!("../../shaders/resolvent_diag_bidirectional_fwd.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// The same, for few heads by way of workgroup memory.
pub static RESOLVENT_DIAG_BIDIRECTIONAL_FWD_STAGED: Kernel = Kernel {
    name: "resolvent_diag_bidirectional_fwd_staged",
    source: include_str!("../../shaders/resolvent_diag_bidirectional_fwd_staged.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Bidirectional resolvent diagonal: what the published code returns as its gradient.
pub static RESOLVENT_DIAG_BIDIRECTIONAL_PUBLISHED: Kernel = Kernel {
    name: "resolvent_diag_bidirectional_published",
    source: include_str!("../../shaders/resolvent_diag_bidirectional_published.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Counts of values that are infinite or no number.
pub static NON_FINITE: Kernel = Kernel {
    name: "non_finite",
    source: include_str!("../../shaders/non_finite.wgsl"),
    n_inputs: 1,
    n_outputs: 1,
};

/// Few rows times a packed matrix.
pub static PACKED_MATMUL_DECODE: Kernel = Kernel {
    name: "packed_matmul_decode",
    source: include_str!("../../shaders/packed_matmul_decode.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Rows of a packed matrix as floats.
pub static PACKED_MATMUL_GATHER: Kernel = Kernel {
    name: "packed_matmul_gather",
    source: include_str!("../../shaders/packed_matmul_gather.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Many rows times a packed matrix.
pub static PACKED_MATMUL_PREFILL: Kernel = Kernel {
    name: "packed_matmul_prefill",
    source: include_str!("../../shaders/packed_matmul_prefill.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Causal resolvent diagonal: gradients, given or finding what enters each chunk.
pub static RESOLVENT_DIAG_BWD: Kernel = Kernel {
    name: "resolvent_diag_bwd",
    source: include_str!("../../shaders/resolvent_diag_bwd.wgsl"),
    n_inputs: 4,
    n_outputs: 4,
};

/// Causal resolvent diagonal, adjoint in three phases: the map of every chunk.
pub static RESOLVENT_DIAG_BWD_REDUCE: Kernel = Kernel {
    name: "resolvent_diag_bwd_reduce",
    source: include_str!("../../shaders/resolvent_diag_bwd_reduce.wgsl"),
    n_inputs: 3,
    n_outputs: 1,
};

/// Causal resolvent diagonal, adjoint in three phases: what enters every chunk.
pub static RESOLVENT_DIAG_BWD_SPINE: Kernel = Kernel {
    name: "resolvent_diag_bwd_spine",
    source: include_str!("../../shaders/resolvent_diag_bwd_spine.wgsl"),
    n_inputs: 3,
    n_outputs: 1,
};

/// Causal resolvent diagonal: gradients, for few heads by way of workgroup memory.
pub static RESOLVENT_DIAG_BWD_STAGED: Kernel = Kernel {
    name: "resolvent_diag_bwd_staged",
    source: include_str!("../../shaders/resolvent_diag_bwd_staged.wgsl"),
    n_inputs: 4,
    n_outputs: 4,
};

/// Causal resolvent diagonal.
pub static RESOLVENT_DIAG_FWD: Kernel = Kernel {
    name: "resolvent_diag_fwd",
    source: include_str!("../../shaders/resolvent_diag_fwd.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Causal resolvent diagonal in three phases: the map of every chunk.
pub static RESOLVENT_DIAG_FWD_REDUCE: Kernel = Kernel {
    name: "resolvent_diag_fwd_reduce",
    source: include_str!("../../shaders/resolvent_diag_fwd_reduce.wgsl"),
    n_inputs: 3,
    n_outputs: 1,
};

/// Causal resolvent diagonal in three phases: the state entering every chunk.
pub static RESOLVENT_DIAG_FWD_SPINE: Kernel = Kernel {
    name: "resolvent_diag_fwd_spine",
    source: include_str!("../../shaders/resolvent_diag_fwd_spine.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Causal resolvent diagonal, for few heads by way of workgroup memory.
pub static RESOLVENT_DIAG_FWD_STAGED: Kernel = Kernel {
    name: "resolvent_diag_fwd_staged",
    source: include_str!("../../shaders/resolvent_diag_fwd_staged.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Causal resolvent diagonal, four heads at a time.
pub static RESOLVENT_DIAG_FWD_VEC4: Kernel = Kernel {
    name: "resolvent_diag_fwd_vec4",
    source: include_str!("../../shaders/resolvent_diag_fwd_vec4.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Root-mean-square normalisation: gradient of its input, and the reciprocal roots.
pub static RMS_NORM_BWD: Kernel = Kernel {
    name: "rms_norm_bwd",
    source: include_str!("../../shaders/rms_norm_bwd.wgsl"),
    n_inputs: 3,
    n_outputs: 2,
};

/// Root-mean-square normalisation: partial gradients of its weight.
pub static RMS_NORM_BWD_GAMMA: Kernel = Kernel {
    name: "rms_norm_bwd_gamma",
    source: include_str!("../../shaders/rms_norm_bwd_gamma.wgsl"),
    n_inputs: 3,
    n_outputs: 1,
};

/// Root-mean-square normalisation.
pub static RMS_NORM_FWD: Kernel = Kernel {
    name: "rms_norm_fwd",
    source: include_str!("../../shaders/rms_norm_fwd.wgsl"),
    n_inputs: 2,
    n_outputs: 1,
};

/// Selective scan: gradients of u and `delta_raw`.
pub static SELECTIVE_SCAN_BWD_CHANNEL: Kernel = Kernel {
    name: "selective_scan_bwd_channel",
    source: include_str!("../../shaders/selective_scan_bwd_channel.wgsl"),
    n_inputs: 6,
    n_outputs: 2,
};

/// Selective scan: cotangent that each chunk sends left by itself.
pub static SELECTIVE_SCAN_BWD_REDUCE: Kernel = Kernel {
    name: "selective_scan_bwd_reduce",
    source: include_str!("../../shaders/selective_scan_bwd_reduce.wgsl"),
    n_inputs: 4,
    n_outputs: 3,
};

/// Selective scan: state before and cotangent after each chunk.
pub static SELECTIVE_SCAN_BWD_SPINE: Kernel = Kernel {
    name: "selective_scan_bwd_spine",
    source: include_str!("../../shaders/selective_scan_bwd_spine.wgsl"),
    n_inputs: 5,
    n_outputs: 2,
};

/// Selective scan: partial gradients of a, b and c.
pub static SELECTIVE_SCAN_BWD_STATE: Kernel = Kernel {
    name: "selective_scan_bwd_state",
    source: include_str!("../../shaders/selective_scan_bwd_state.wgsl"),
    n_inputs: 6,
    n_outputs: 2,
};

/// Selective scan: outputs of each chunk from its first state.
pub static SELECTIVE_SCAN_FWD_APPLY: Kernel = Kernel {
    name: "selective_scan_fwd_apply",
    source: include_str!("../../shaders/selective_scan_fwd_apply.wgsl"),
    n_inputs: 6,
    n_outputs: 1,
};

/// Selective scan: outputs and states at the chunk boundaries at once, chunk after chunk.
pub static SELECTIVE_SCAN_FWD_FUSED: Kernel = Kernel {
    name: "selective_scan_fwd_fused",
    source: include_str!("../../shaders/selective_scan_fwd_fused.wgsl"),
    n_inputs: 6,
    n_outputs: 2,
};

/// Selective scan: last state of each chunk by itself.
pub static SELECTIVE_SCAN_FWD_REDUCE: Kernel = Kernel {
    name: "selective_scan_fwd_reduce",
    source: include_str!("../../shaders/selective_scan_fwd_reduce.wgsl"),
    n_inputs: 4,
    n_outputs: 2,
};

/// Selective scan: states at the chunk boundaries.
pub static SELECTIVE_SCAN_FWD_SPINE: Kernel = Kernel {
    name: "selective_scan_fwd_spine",
    source: include_str!("../../shaders/selective_scan_fwd_spine.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Gated sum of a scan's output and its skip connection: gradients, that of the weight in parts.
pub static SKIP_GATE_BWD: Kernel = Kernel {
    name: "skip_gate_bwd",
    source: include_str!("../../shaders/skip_gate_bwd.wgsl"),
    n_inputs: 5,
    n_outputs: 3,
};

/// Gated sum of a scan's output and its skip connection.
pub static SKIP_GATE_FWD: Kernel = Kernel {
    name: "skip_gate_fwd",
    source: include_str!("../../shaders/skip_gate_fwd.wgsl"),
    n_inputs: 4,
    n_outputs: 1,
};

/// Partial sums of squares.
pub static SQUARED_NORM: Kernel = Kernel {
    name: "squared_norm",
    source: include_str!("../../shaders/squared_norm.wgsl"),
    n_inputs: 1,
    n_outputs: 1,
};

/// One level of a fixed-order sum over rows.
pub static SUM_ROWS: Kernel = Kernel {
    name: "sum_rows",
    source: include_str!("../../shaders/sum_rows.wgsl"),
    n_inputs: 1,
    n_outputs: 1,
};
