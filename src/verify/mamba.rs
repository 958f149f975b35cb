//! Cases of the parts of Mamba: the scan, the convolution, and the block.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use serde::Deserialize;

use super::case::Case;
use super::weights;
use crate::config::Precision;
use crate::models::mamba::MambaBlock;
use crate::models::published;
use crate::models::registry::{Architecture, ModelShape};
use crate::models::{BatchShape, BlockState, Initialiser, Pass, SequenceBlock, Sweep};
use crate::ops::causal_conv::{self, Activation};
use crate::ops::selective_scan;
use crate::{Error, Result};

const FORWARD: &str = "forward_rel_max";
const GRADIENT: &str = "grad_rel_max";

/// `[batch, channel, seq]`, as in the files, and `[batch, seq, channel]`.
fn turned(x: Tensor<3>) -> Tensor<3> {
    x.swap_dims(1, 2)
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the manifest's own fields")]
struct ScanParameters {
    delta_softplus: bool,
    #[serde(rename = "has_D")]
    has_d: bool,
    has_z: bool,
    has_delta_bias: bool,
}

/// Outputs, final state and all gradients. The bias of delta, D and the gate lie around the operation.
pub(super) fn selective_scan(case: &mut Case<'_>) -> Result<()> {
    let has: ScanParameters = case.parameters()?;
    let (u, delta) = (case.leaf::<3>("u")?, case.leaf::<3>("delta")?);
    let (b, c) = (case.leaf::<3>("Bm")?, case.leaf::<3>("Cm")?);
    let a = case.leaf::<2>("A")?;
    let d = has.has_d.then(|| case.leaf::<1>("D")).transpose()?;
    let z = has.has_z.then(|| case.leaf::<3>("z")).transpose()?;
    let delta_bias = has
        .has_delta_bias
        .then(|| case.leaf::<1>("delta_bias"))
        .transpose()?;
    let d_y = case.leaf::<3>("dy")?.detach();

    let [batch, channels, _] = u.dims();
    let zero = case.zeros([batch, channels, a.dims()[1]]);
    let delta_raw = match &delta_bias {
        Some(bias) => turned(delta.clone()) + bias.clone().reshape([1, 1, channels]),
        None => turned(delta.clone()),
    };
    let inputs = selective_scan::Inputs {
        u: turned(u.clone()),
        delta_raw,
        a: a.clone(),
        b: turned(b.clone()),
        c: turned(c.clone()),
        softplus: has.delta_softplus,
    };
    let around = |y: Tensor<3>| {
        let y = match &d {
            Some(d) => y + turned(u.clone()) * d.clone().reshape([1, 1, channels]),
            None => y,
        };
        match &z {
            Some(z) => turned(y) * silu(z.clone()),
            None => turned(y),
        }
    };

    let (y, last_state) = selective_scan::infer(inputs.clone(), zero.clone())?;
    case.check("y", around(y), FORWARD)?;
    case.check("last_state", last_state, FORWARD)?;
    let y = around(selective_scan::train(inputs, zero.clone(), zero)?);
    case.check("y (train)", y.clone(), FORWARD)?;
    let gradients = (y * d_y).sum().backward();
    for (name, leaf) in [("d_u", &u), ("d_delta", &delta), ("d_Bm", &b), ("d_Cm", &c)] {
        case.check_gradient(name, leaf, &gradients, GRADIENT)?;
    }
    case.check_gradient("d_A", &a, &gradients, GRADIENT)?;
    if let Some(d) = &d {
        case.check_gradient("d_D", d, &gradients, GRADIENT)?;
    }
    if let Some(z) = &z {
        case.check_gradient("d_z", z, &gradients, GRADIENT)?;
    }
    if let Some(bias) = &delta_bias {
        case.check_gradient("d_delta_bias", bias, &gradients, GRADIENT)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct ConvParameters {
    has_bias: bool,
    silu: bool,
}

/// Output and gradients.
pub(super) fn causal_conv(case: &mut Case<'_>) -> Result<()> {
    let has: ConvParameters = case.parameters()?;
    let (x, weight) = (case.leaf::<3>("x")?, case.leaf::<2>("weight")?);
    let d_y = case.leaf::<3>("dy")?.detach();
    let [batch, channels, _] = x.dims();
    let bias = has.has_bias.then(|| case.leaf::<1>("bias")).transpose()?;
    let bias_or_0 = bias.clone().unwrap_or_else(|| case.zeros([channels]));
    let zero = case.zeros([batch, weight.dims()[1].saturating_sub(1), channels]);
    let activation = if has.silu {
        Activation::Silu
    } else {
        Activation::Identity
    };

    let (w, b) = (weight.clone(), bias_or_0.clone());
    let (y, _) = causal_conv::infer(turned(x.clone()), w, b, zero.clone(), activation)?;
    case.check("y", turned(y), FORWARD)?;
    let (w, x_) = (weight.clone(), turned(x.clone()));
    let y = causal_conv::train(x_, w, bias_or_0, zero.clone(), zero, activation)?;
    let y = turned(y);
    case.check("y (train)", y.clone(), FORWARD)?;
    let gradients = (y * d_y).sum().backward();
    case.check_gradient("d_x", &x, &gradients, GRADIENT)?;
    case.check_gradient("d_weight", &weight, &gradients, GRADIENT)?;
    if let Some(bias) = &bias {
        case.check_gradient("d_bias", bias, &gradients, GRADIENT)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct BlockParameters {
    d_model: usize,
    d_state: usize,
    d_conv: usize,
    expand: usize,
    dt_rank: usize,
    bias: bool,
}

/// Output, final states, and the gradients of the input and of all weights.
pub(super) fn block(case: &mut Case<'_>) -> Result<()> {
    let sizes: BlockParameters = case.parameters()?;
    let shape = ModelShape {
        architecture: Architecture::Mamba,
        vocab_size: 1,
        d_model: sizes.d_model,
        n_layers: 1,
        tied_head: true,
        d_state: sizes.d_state,
        d_conv: sizes.d_conv,
        expand: sizes.expand,
        dt_rank: sizes.dt_rank,
        projection_bias: sizes.bias,
        n_experts: 0,
        top_k: 0,
        expert_hidden: 0,
    };
    let device = case.device().clone();
    let block = MambaBlock::new(&mut Initialiser::new(0, 1, &device), &shape);
    let block = weights::load(case, block, published::block)?;

    let x = case.leaf::<3>("x")?;
    let d_y = case.leaf::<3>("dy")?.detach();
    let [batch, seq_len, d_model] = x.dims();
    if d_model != sizes.d_model || seq_len == 0 {
        return Err(case.bad(format!("has an x of shape {:?}", x.dims())));
    }
    let inferred = |x: Tensor<3>| {
        let shape = BatchShape {
            batch,
            seq_len: x.dims()[1],
        };
        let tokens = x.reshape([shape.n_tokens(), d_model]);
        let pass = Pass {
            shape,
            sweep: Sweep::Infer,
            precision: Precision::F32,
            pinned: None,
            layer: 1,
            observer: None,
        };
        let output = block.forward(tokens, block.initial_state(batch, &device), &pass)?;
        Ok((output.branch, conv_and_scan(output.state)?))
    };

    let (y, (conv, scan)) = inferred(x.clone())?;
    case.check("y", y.reshape([batch, seq_len, d_model]), FORWARD)?;
    case.check("final_ssm_state", scan, FORWARD)?;
    // The published state holds the last d_conv inputs of the convolution, ours one less: its oldest is the
    // oldest of ours one token earlier.
    let (before, _) = match seq_len {
        1 => conv_and_scan(Some(block.initial_state(batch, &device)))?,
        _ => inferred(x.clone().narrow(1, 0, seq_len - 1))?.1,
    };
    let conv = Tensor::cat(vec![before.narrow(1, 0, 1), conv], 1);
    case.check("final_conv_state", turned(conv), FORWARD)?;

    let shape = BatchShape { batch, seq_len };
    let zero = block.initial_state(batch, &device);
    let tokens = x.clone().reshape([shape.n_tokens(), d_model]);
    let pass = Pass {
        shape,
        sweep: Sweep::Train {
            d_last: &zero,
            routed: None,
        },
        precision: Precision::F32,
        pinned: None,
        layer: 1,
        observer: None,
    };
    let y = block.forward(tokens, zero.clone(), &pass)?.branch;
    let y = y.reshape([batch, seq_len, d_model]);
    case.check("y (train)", y.clone(), FORWARD)?;
    let gradients = (y * d_y).sum().backward();
    case.check_gradient("d_x", &x, &gradients, GRADIENT)?;
    let gradients = GradientsParams::from_grads(gradients, &block);
    weights::check_gradients(case, &block, &gradients, published::block, GRADIENT)
}

fn conv_and_scan(state: Option<BlockState>) -> Result<(Tensor<3>, Tensor<3>)> {
    match state {
        Some(BlockState::Mamba { conv, scan }) => Ok((conv, scan)),
        other => Err(Error::CheckFailed(format!(
            "the state of a mamba block is {other:?}"
        ))),
    }
}
