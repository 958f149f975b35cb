//! ResNet-BK: a mixture of experts beside the resolvent diagonal of a learned potential.
//!
//! The guide's model has one head and the shift z = i. At that shift one layer sees about 3 to 5 tokens
//! back: the resolvent decays by at least e^(-2 asinh(1/2)) a step.

use burn::module::{Module, Param};
use burn::tensor::activation::softplus;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::experts::Experts;
use super::linear::Linear;
use super::quantised::{Family, Part};
use super::registry::{Architecture, ModelShape};
use super::{BatchShape, BlockOutput, BlockState, Initialiser, Pass, SequenceBlock, Sweep};
use crate::ops::ledger::{self, Op};
use crate::ops::resolvent_diag::bidirectional::{self, Gradient};
use crate::ops::resolvent_diag::{self, Coupling};
use crate::results::FlopsCategory;
use crate::{Error, Result};

/// Diagonal of the free chain, to which the potential is added.
const FREE_DIAGONAL: f32 = -2.0;
/// Bound of the potential; outside it the gradient is 0.
const POTENTIAL_BOUND: f32 = 3.0;
/// Imaginary part of a shift that is not learned, and of a learned one at first.
const ETA: f32 = 1.0;
/// Floor of the imaginary part of a learned shift.
const ETA_FLOOR: f32 = 0.05;

/// What passes between positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mixer {
    /// The causal resolvent.
    Causal,
    /// The whole resolvent with the published gradient: a position sees those after it.
    Bidirectional,
    /// Nothing.
    Off,
}

/// One learned shift a head.
#[derive(Module, Debug)]
struct Shifts {
    re: Param<Tensor<1>>,
    /// Im z is the floor plus the softplus of it.
    raw_im: Param<Tensor<1>>,
}

impl Shifts {
    /// All at z = i.
    fn new(init: &Initialiser<'_>, n_heads: usize) -> Self {
        let above_floor = f64::from(ETA - ETA_FLOOR);
        Self {
            re: init.constant([n_heads], 0.0),
            raw_im: init.constant([n_heads], above_floor.exp_m1().ln() as f32),
        }
    }

    /// z, `[2, heads]`.
    fn shift(&self) -> Tensor<2> {
        let [n] = self.re.dims();
        let im = ledger::counted(softplus(self.raw_im.val(), 1.0), Op::Softplus { n });
        let im = ledger::counted(im.add_scalar(ETA_FLOOR), Op::Add { n });
        Tensor::stack(vec![self.re.val(), im], 0)
    }
}

/// One ResNet-BK block without its norm and residual connection.
#[derive(Module, Debug)]
pub struct ResNetBkBlock {
    experts: Experts,
    potential: Linear,
    output: Linear,
    scale: Param<Tensor<1>>,
    /// Where shifts are learned; else z = i.
    shifts: Option<Shifts>,
    #[module(skip)]
    mixer: Mixer,
    #[module(skip)]
    n_heads: usize,
}

impl ResNetBkBlock {
    /// The block of `shape`'s variant.
    pub fn new(init: &mut Initialiser<'_>, shape: &ModelShape) -> Self {
        let depth = (shape.n_layers as f64).sqrt();
        let n_heads = shape.n_heads();
        Self {
            experts: Experts::new(init, shape),
            potential: init.linear(shape.d_model, n_heads, true, 1.0),
            output: init.linear(2 * n_heads, shape.d_model, true, depth),
            scale: init.constant([1], 1.0),
            shifts: learns_shifts(shape).then(|| Shifts::new(init, n_heads)),
            mixer: match shape.architecture {
                Architecture::NoMixer => Mixer::Off,
                Architecture::ResNetBkPublished => Mixer::Bidirectional,
                _ => Mixer::Causal,
            },
            n_heads,
        }
    }

    /// Parameters of one block of which `n_experts` experts are counted.
    pub fn n_parameters(shape: &ModelShape, n_experts: usize) -> usize {
        let n_heads = shape.n_heads();
        let potential = shape.d_model * n_heads + n_heads;
        let output = 2 * n_heads * shape.d_model + shape.d_model;
        let shifts = if learns_shifts(shape) { 2 * n_heads } else { 0 };
        Experts::n_parameters(shape, n_experts) + potential + output + 1 + shifts
    }

    /// The operations of a forward pass whose experts run on `expert_rows` rows together.
    pub fn forward_ops(
        shape: &ModelShape,
        tokens: BatchShape,
        expert_rows: usize,
    ) -> Vec<(FlopsCategory, Op)> {
        let (d_model, heads, rows) = (shape.d_model, shape.n_heads(), tokens.n_tokens());
        let BatchShape { batch, seq_len } = tokens;
        let n = rows * heads;
        let resolvent = match shape.architecture {
            Architecture::NoMixer => None,
            Architecture::ResNetBkPublished => Some(Op::ResolventDiagPublished {
                batch,
                seq: seq_len,
                heads,
            }),
            _ => Some(Op::ResolventDiag {
                batch,
                seq: seq_len,
                heads,
                couplings: 0,
            }),
        };
        let potential = Linear::forward_ops(rows, [d_model, heads], true)
            .chain([Op::Clamp { n }, Op::Add { n }]);
        let shifts = [Op::Softplus { n: heads }, Op::Add { n: heads }];
        let shifts = shifts.into_iter().filter(|_| learns_shifts(shape));
        let mixer = resolvent.into_iter().flat_map(|op| {
            let potential = potential.clone().chain(shifts.clone());
            potential.chain([op])
        });
        let n = rows * d_model;
        let output = Linear::forward_ops(rows, [2 * heads, d_model], true)
            .chain([Op::Scale { n }, Op::Add { n }]);
        let mut ops = Experts::forward_ops(shape, rows, expert_rows);
        ops.extend(mixer.chain(output).map(|op| (op.category(), op)));
        ops
    }

    /// z `[2, heads]`, and the floor of its imaginary part.
    fn shift(&self, options: (&Device, DType)) -> (Tensor<2>, f32) {
        if let Some(shifts) = &self.shifts {
            return (shifts.shift(), ETA_FLOOR);
        }
        let z = [vec![0.0; self.n_heads], vec![ETA; self.n_heads]].concat();
        let z = Tensor::from_data(TensorData::new(z, [2, self.n_heads]), options);
        (z, ETA)
    }

    /// `[Re G, Im G]`, `[batch, seq_len, 2 * heads]`, and the final state of an inference sweep.
    fn mix(
        &self,
        x: Tensor<2>,
        state: BlockState,
        pass: &Pass<'_>,
    ) -> Result<(Tensor<3>, Option<BlockState>)> {
        let options = (&x.device(), x.dtype());
        if self.mixer == Mixer::Off {
            let zeros = [pass.shape.batch, pass.shape.seq_len, 2 * self.n_heads];
            return Ok((Tensor::zeros(zeros, options), Some(state)));
        }
        let n = pass.shape.n_tokens() * self.n_heads;
        let v = self
            .potential
            .forward(x, pass.precision)?
            .clamp(-POTENTIAL_BOUND, POTENTIAL_BOUND);
        let v = ledger::counted(v, Op::Clamp { n });
        let diag = ledger::counted(v.add_scalar(FREE_DIAGONAL), Op::Add { n });
        let diag = pass.shape.unfold(diag);
        let (z, eta_min) = self.shift(options);
        let coupling = Coupling::Constant(1.0);
        pass.show("resolvent_diag.diag", &diag);
        pass.show("resolvent_diag.shift", &z);
        match (self.mixer, state, pass.sweep) {
            (Mixer::Bidirectional, BlockState::Empty, _) => {
                let g = bidirectional::diagonal(diag, coupling, z, eta_min, Gradient::Published)?;
                Ok((g, Some(BlockState::Empty)))
            }
            (Mixer::Causal, BlockState::ResNetBk { g: g0 }, Sweep::Infer) => {
                pass.show("resolvent_diag.g0", &g0);
                let (g, last) = resolvent_diag::infer(diag, coupling, z, g0, eta_min)?;
                Ok((g, Some(BlockState::ResNetBk { g: last })))
            }
            (
                Mixer::Causal,
                BlockState::ResNetBk { g: g0 },
                Sweep::Train {
                    d_last: BlockState::ResNetBk { g: d_last },
                    ..
                },
            ) => {
                pass.show("resolvent_diag.g0", &g0);
                let d_last = d_last.clone();
                let g = resolvent_diag::train(diag, coupling, z, g0, d_last, eta_min)?;
                Ok((g, None))
            }
            _ => Err(Error::CheckFailed(
                "a resnetbk block was given another's state or cotangent".into(),
            )),
        }
    }
}

fn learns_shifts(shape: &ModelShape) -> bool {
    shape.architecture == Architecture::ResNetBkMh
}

impl SequenceBlock for ResNetBkBlock {
    fn initial_state(&self, batch: usize, device: &Device) -> BlockState {
        if self.mixer == Mixer::Bidirectional {
            return BlockState::Empty;
        }
        let options = (device, self.scale.val().dtype());
        BlockState::ResNetBk {
            g: Tensor::zeros([batch, 2 * self.n_heads], options),
        }
    }

    fn forward(&self, x: Tensor<2>, state: BlockState, pass: &Pass<'_>) -> Result<BlockOutput> {
        let n_readers = if self.mixer == Mixer::Off { 1 } else { 2 };
        let x = ledger::shared(x, n_readers);
        let (g, state) = self.mix(x.clone(), state, pass)?;
        pass.show("resolvent_diag.g", &g);
        let g = pass.shape.fold(g);
        let mixture = self.experts.forward(x, &g, pass)?;
        pass.show("experts", &mixture.y);
        let mixed = self.output.forward(g, pass.precision)?;
        let mixed = mixed * self.scale.val().unsqueeze();
        let n = mixed.shape().num_elements();
        let mixed = ledger::counted(mixed, Op::Scale { n });
        pass.show("output", &mixed);
        Ok(BlockOutput {
            branch: ledger::counted(mixture.y + mixed, Op::Add { n }),
            state,
            routing: Some(mixture.routing),
        })
    }
    fn parts(&mut self) -> Vec<Part<'_>> {
        let (potential, output) = (&mut self.potential.weight, &mut self.output.weight);
        let experts = self.experts.parts().into_iter();
        experts
            .map(|part| part.within("experts"))
            .chain([
                Part::matrix("potential.weight", Family::Potential, potential),
                Part::matrix("output.weight", Family::Output, output),
            ])
            .collect()
    }
}
