//! causal_conv
