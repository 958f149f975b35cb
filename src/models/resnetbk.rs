//! ResNet-BK: a mixture of experts beside the causal resolvent diagonal of a learned potential.
//!
//! The guide's model has one head and the shift z = i. At that shift one layer sees about 3 to 5 tokens
//! back: the resolvent decays by at least e^(-2 asinh(1/2)) a step.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};

use super::experts::Experts;
use super::registry::ModelShape;
use super::{BlockOutput, BlockState, Initialiser, Pass, SequenceBlock, Sweep};
use crate::ops::resolvent_diag::{self, Coupling};
use crate::{Error, Result};

/// Diagonal of the free chain, to which the potential is added.
const FREE_DIAGONAL: f32 = -2.0;
/// Bound of the potential; outside it the gradient is 0.
const POTENTIAL_BOUND: f32 = 3.0;
/// Imaginary part of the shift.
const ETA: f32 = 1.0;
const N_HEADS: usize = 1;

/// One ResNet-BK block without its norm and residual connection.
#[derive(Module, Debug)]
pub struct ResNetBkBlock {
    experts: Experts,
    potential: Linear,
    output: Linear,
    scale: Param<Tensor<1>>,
    #[module(skip)]
    mixes: bool,
}

impl ResNetBkBlock {
    /// The block; with `mixes` false the resolvent's output is zeroed and nothing passes between
    /// positions, with the same parameters (the control `no-mixer`).
    pub fn new(init: &mut Initialiser<'_>, shape: &ModelShape, mixes: bool) -> Self {
        let depth = (shape.n_layers as f64).sqrt();
        Self {
            experts: Experts::new(init, shape),
            potential: init.linear(shape.d_model, N_HEADS, true, 1.0),
            output: init.linear(2 * N_HEADS, shape.d_model, true, depth),
            scale: init.constant([1], 1.0),
            mixes,
        }
    }

    /// Parameters of one block of which `n_experts` experts are counted.
    pub fn n_parameters(shape: &ModelShape, n_experts: usize) -> usize {
        let potential = shape.d_model * N_HEADS + N_HEADS;
        let output = 2 * N_HEADS * shape.d_model + shape.d_model;
        Experts::n_parameters(shape, n_experts) + potential + output + 1
    }

    /// `[Re G, Im G]`, `[batch, seq_len, 2 * heads]`, and the final state of an inference sweep.
    fn resolvent(
        &self,
        x: Tensor<2>,
        g0: Tensor<2>,
        pass: &Pass<'_>,
    ) -> Result<(Tensor<3>, Option<Tensor<2>>)> {
        let options = (&x.device(), x.dtype());
        let v = self
            .potential
            .forward(x)
            .clamp(-POTENTIAL_BOUND, POTENTIAL_BOUND);
        let diag = pass.shape.unfold(v.add_scalar(FREE_DIAGONAL));
        let z = [[0.0; N_HEADS], [ETA; N_HEADS]].concat();
        let z = Tensor::from_data(TensorData::new(z, [2, N_HEADS]), options);
        let coupling = Coupling::Constant(1.0);
        pass.show("resolvent_diag.diag", &diag);
        pass.show("resolvent_diag.g0", &g0);
        match pass.sweep {
            Sweep::Infer => {
                let (g, last) = resolvent_diag::infer(diag, coupling, z, g0, ETA)?;
                Ok((g, Some(last)))
            }
            Sweep::Train {
                d_last: BlockState::ResNetBk { g: d_last },
                ..
            } => {
                let g = resolvent_diag::train(diag, coupling, z, g0, d_last.clone(), ETA)?;
                Ok((g, None))
            }
            Sweep::Train { .. } => Err(Error::CheckFailed(
                "a resnetbk block was given another's cotangent".into(),
            )),
        }
    }
}

impl SequenceBlock for ResNetBkBlock {
    fn initial_state(&self, batch: usize, device: &Device) -> BlockState {
        BlockState::ResNetBk {
            g: Tensor::zeros([batch, 2 * N_HEADS], (device, self.scale.val().dtype())),
        }
    }

    fn forward(&self, x: Tensor<2>, state: BlockState, pass: &Pass<'_>) -> Result<BlockOutput> {
        let BlockState::ResNetBk { g: g0 } = state else {
            return Err(Error::CheckFailed(
                "a resnetbk block was given another's state".into(),
            ));
        };
        let mixture = self.experts.forward(x.clone(), pass)?;
        pass.show("experts", &mixture.y);
        let (g, state) = if self.mixes {
            self.resolvent(x, g0, pass)?
        } else {
            let zeros = [pass.shape.batch, pass.shape.seq_len, 2 * N_HEADS];
            (Tensor::zeros(zeros, (&x.device(), x.dtype())), Some(g0))
        };
        pass.show("resolvent_diag.g", &g);
        let mixed = self.output.forward(pass.shape.fold(g)) * self.scale.val().unsqueeze();
        pass.show("output", &mixed);
        Ok(BlockOutput {
            branch: mixture.y + mixed,
            state: state.map(|g| BlockState::ResNetBk { g }),
            routing: Some(mixture.routing),
        })
    }
}
