//! Shape of the models of a comparison.

use serde::{Deserialize, Serialize};

/// What two models must agree on within 10 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchBasis {
    /// All parameters but the embedding.
    #[default]
    Total,
    /// Parameters a token really uses (the chosen experts only), without the embedding.
    Active,
    /// Forward FLOPs a token.
    Flops,
}

/// What all models share; the expert or MLP hidden size is solved for by matching, never given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Mamba: states a channel.
    pub d_state: usize,
    /// Mamba: width of the causal convolution.
    pub d_conv: usize,
    /// Mamba: `d_inner = expand * d_model`.
    pub expand: usize,
    /// ResNet-BK: number of experts.
    pub n_experts: usize,
    /// ResNet-BK: experts a token is sent to.
    pub top_k: usize,
    /// ResNet-BK: weight of the load-balance term in the objective.
    pub load_balance_weight: f64,
    /// `resnetbk-act`: weight in the objective of the mean probability that a token is sent to some expert, over layers and
    /// tokens; what computation costs, in nats.
    pub act_penalty: f64,
    /// Dropout probability at the residual branch's output, every model alike.
    pub dropout: f64,
    /// What is matched.
    #[serde(rename = "match")]
    pub match_basis: MatchBasis,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            d_model: 256,
            n_layers: 6,
            d_state: 16,
            d_conv: 4,
            expand: 2,
            n_experts: 4,
            top_k: 1,
            load_balance_weight: 0.01,
            act_penalty: 0.01,
            dropout: 0.0,
            match_basis: MatchBasis::Total,
        }
    }
}
