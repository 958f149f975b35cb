//! Whether a training fits, judged before it starts: what cannot fit is skipped, not attempted.

use crate::hardware::Hardware;
use crate::models::registry::{Architecture, ModelShape};
use crate::results::Outcome;
use crate::units::Bytes;

/// Copies of every parameter: the weight, its gradient, two moments.
const COPIES_OF_A_PARAMETER: u64 = 4;

/// What a training of `n_tokens` tokens a step needs, against what `hardware` has; `None` if it fits.
pub(super) fn misfit(shape: &ModelShape, n_tokens: usize, hardware: &Hardware) -> Option<Outcome> {
    let binding = hardware
        .adapter
        .as_ref()
        .map(|adapter| adapter.limits.binding);
    judge(shape, n_tokens as u64, binding, hardware.memory_available())
}

fn judge(
    shape: &ModelShape,
    n_tokens: u64,
    binding: Option<Bytes>,
    memory: Option<Bytes>,
) -> Option<Outcome> {
    let skipped = |reason: &str, needs: Bytes, have: Bytes| Outcome::Skipped {
        reason: reason.to_owned(),
        needs: needs.to_string(),
        have: have.to_string(),
    };
    let widest = Bytes(4 * n_tokens * widest_activation(shape) as u64);
    if let Some(have) = binding.filter(|&have| widest > have) {
        return Some(skipped(
            "a tensor exceeds what a kernel of this adapter can see",
            widest,
            have,
        ));
    }
    let activations = 4 * n_tokens * saved_activations(shape) as u64;
    let parameters = 4 * shape.parameters().total as u64 * COPIES_OF_A_PARAMETER;
    let needs = Bytes(activations + parameters);
    let have = memory.filter(|&have| needs > have)?;
    Some(skipped(
        "the estimated memory exceeds what is free",
        needs,
        have,
    ))
}

/// Floats a token of the widest tensor between two operations.
pub(super) fn widest_activation(shape: &ModelShape) -> usize {
    match shape.architecture {
        Architecture::Mamba => 2 * shape.d_inner(),
        Architecture::ResNetBk | Architecture::NoMixer => shape.d_model.max(shape.expert_hidden),
    }
}

/// Floats a token that are resident at the end of a forward pass, as the growth of the process from
/// 512 to 8192 tokens shows on the CPU backend: 10.5 `d_inner` a layer for Mamba, 9.5 `d_model` for
/// ResNet-BK, at `d_model` 64 and 256 alike.
fn saved_activations(shape: &ModelShape) -> usize {
    let a_layer = match shape.architecture {
        Architecture::Mamba => 21 * shape.d_inner() / 2,
        Architecture::ResNetBk | Architecture::NoMixer => 19 * shape.d_model / 2,
    };
    shape.n_layers * a_layer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::models::registry::matched_shapes;

    #[test]
    fn what_cannot_fit_is_skipped_with_what_it_needs_and_what_is_there() {
        let shape = matched_shapes(&[Architecture::Mamba], &ModelConfig::default(), 256)
            .unwrap()
            .remove(0);
        let (binding, memory) = (Some(Bytes(128 << 20)), Some(Bytes(8 << 30)));
        // 2 * 512 channels of 4 bytes: 32768 tokens fill a binding of 128 MiB exactly
        assert_eq!(judge(&shape, 32_768, binding, memory), None);
        let Some(Outcome::Skipped { needs, have, .. }) = judge(&shape, 32_769, binding, memory)
        else {
            panic!("a tensor beyond the binding limit must be skipped");
        };
        assert_eq!(
            (needs.as_str(), have.as_str()),
            ("128.00 MiB", "128.00 MiB")
        );
        assert!(
            judge(&shape, 1 << 20, None, memory).is_some(),
            "a million tokens in 8 GiB"
        );
        assert_eq!(
            judge(&shape, 1 << 20, None, None),
            None,
            "unknown memory is not judged"
        );
    }
}
