//! Whether a training fits, judged before it starts: what cannot fit is skipped, not attempted.

use crate::accounting::{Tensors, Workload, estimate, memory};
use crate::config::{Config, TrainConfig};
use crate::hardware::Hardware;
use crate::models::registry::{Architecture, ModelShape};
use crate::ops::selective_scan;
use crate::results::{MemoryLedger, Outcome};
use crate::units::Bytes;

/// What training `shape` on sequences of `seq_len` tokens needs.
pub fn needs(
    shape: &ModelShape,
    seq_len: usize,
    config: &TrainConfig,
    tensors: Tensors,
) -> MemoryLedger {
    let work = Workload {
        batch: config.batch_size,
        seq_len,
        segment: shape.architecture.resident_len(config, seq_len),
        loss_chunk_tokens: config.loss_chunk_tokens,
        precision: config.precision,
        layer_by_layer: config.gradient_checkpointing,
        states_on_host: config.cpu_offloading,
    };
    estimate(shape, work, tensors)
}

/// Where the tensors of `hardware` live.
pub fn tensors(hardware: &Hardware) -> Tensors {
    match hardware.adapter {
        None => Tensors::OnHeap,
        Some(_) => Tensors::OnAdapter,
    }
}

/// What that training needs against what there is or is allowed; `None` if it fits.
pub fn misfit(
    shape: &ModelShape,
    seq_len: usize,
    config: &Config,
    hardware: &Hardware,
) -> Option<Outcome> {
    memory::give_back();
    let resident = shape.architecture.resident_len(&config.train, seq_len);
    let n_tokens = config.train.batch_size * resident;
    let activations = n_tokens * widest_activation(shape);
    let logits = config.train.loss_chunk_tokens.min(n_tokens) * shape.vocab_size;
    let embedding = shape.vocab_size * shape.d_model;
    let widest = Bytes(4 * activations.max(logits).max(embedding) as u64);
    let binding = hardware
        .adapter
        .as_ref()
        .map(|adapter| adapter.limits.binding);
    let needs = needs(shape, seq_len, &config.train, tensors(hardware)).total();
    [
        (
            "a tensor exceeds what a kernel of this adapter can see",
            widest,
            binding,
        ),
        (
            "the estimated memory exceeds device.memory_limit_mib",
            needs,
            config.device.memory_limit(),
        ),
        (
            "the estimated memory exceeds what is free",
            needs,
            hardware.memory_available(),
        ),
    ]
    .into_iter()
    .find_map(|(reason, needs, have)| judge(reason, needs, have))
}

/// Skips what needs more than there is; what is not known is not judged.
fn judge(reason: &str, needs: Bytes, have: Option<Bytes>) -> Option<Outcome> {
    let have = have.filter(|&have| needs > have)?;
    Some(Outcome::Skipped {
        reason: reason.to_owned(),
        needs: needs.to_string(),
        have: have.to_string(),
    })
}

/// Floats a token of the widest tensor of a training, at most: rows of the experts count with their padding, a quarter.
pub(super) fn widest_activation(shape: &ModelShape) -> usize {
    let d_model = shape.d_model;
    match shape.architecture {
        Architecture::Mamba => {
            let d_inner = shape.d_inner();
            // The states kept at chunk boundaries lie beside their cotangents.
            let states = 2 * shape.d_state * d_inner;
            (2 * d_inner).max(states.div_ceil(selective_scan::CHUNK))
        }
        Architecture::Transformer => (3 * shape.attention_width()).max(shape.expert_hidden),
        _ => {
            let sent = d_model * shape.top_k;
            d_model.max((5 * sent.max(shape.expert_hidden)).div_ceil(4))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn the_widest_tensor_may_be_of_states_or_of_padded_rows() {
        let words = |architecture, change: fn(&mut ModelConfig)| {
            let mut config = ModelConfig {
                d_model: 64,
                ..ModelConfig::default()
            };
            change(&mut config);
            widest_activation(&ModelShape::new(architecture, &config, 257, 16))
        };
        // d_inner is 128; every 16 tokens keep d_state * d_inner and as many cotangents.
        assert_eq!(words(Architecture::Mamba, |_| ()), 2 * 128);
        assert_eq!(words(Architecture::Mamba, |c| c.d_state = 32), 4 * 128);
        assert_eq!(
            words(Architecture::Mamba, |c| c.d_state = 17),
            2 * 17 * 128 / 16
        );
        assert_eq!(words(Architecture::ResNetBk, |c| c.top_k = 1), 80);
        assert_eq!(words(Architecture::ResNetBk, |c| c.top_k = 2), 160);
    }
}
