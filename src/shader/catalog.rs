//! Every kernel of the project. A file in `shaders/` that is not listed here fails a test.

use super::Kernel;

/// Texts that a kernel may `// #import`, by name.
pub const SHARED: &[(&str, &str)] = &[];

/// All kernels.
pub const KERNELS: &[&Kernel] = &[
    &CAUSAL_CONV_BWD,
    &CAUSAL_CONV_BWD_X0,
    &CAUSAL_CONV_FWD,
    &SUM_ROWS,
];

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

/// One level of a fixed-order sum over rows.
pub static SUM_ROWS: Kernel = Kernel {
    name: "sum_rows",
    source: include_str!("../../shaders/sum_rows.wgsl"),
    n_inputs: 1,
    n_outputs: 1,
};
