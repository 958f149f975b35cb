//! The official Mamba-1 block (Gu & Dao 2023; state-spaces/mamba): ZOH for A, Euler for B.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::linear::Linear;
use super::matrix::Matrix;
use super::quantised::{Family, Part, Place};
use super::registry::ModelShape;
use super::{BatchShape, BlockOutput, BlockState, Initialiser, Pass, SequenceBlock, Sweep};
use crate::ops::causal_conv::{self, Activation};
use crate::ops::ledger::{self, Op};
use crate::ops::{selective_scan, skip_gate};
use crate::results::FlopsCategory;
use crate::{Error, Result};

/// One Mamba block without its norm and residual connection.
#[derive(Module, Debug)]
pub struct MambaBlock {
    in_proj: Linear,
    conv_weight: Param<Tensor<2>>,
    conv_bias: Param<Tensor<1>>,
    x_proj: Linear,
    dt_proj: Linear,
    a_log: Param<Tensor<2>>,
    d_skip: Param<Tensor<1>>,
    out_proj: Linear,
}

impl MambaBlock {
    /// The official initialisation: `a_log = ln(1..=d_state)`, `D = 1`, the bias of `dt_proj` the inverse
    /// softplus of a log-uniform draw from [1e-3, 0.1], its weight U(±`dt_rank`^-1/2), `out_proj` divided
    /// by the root of the number of layers.
    pub fn new(init: &mut Initialiser<'_>, shape: &ModelShape) -> Self {
        let ModelShape {
            d_model,
            d_state,
            d_conv,
            dt_rank,
            projection_bias,
            ..
        } = *shape;
        let d_inner = shape.d_inner();
        let depth = (shape.n_layers as f64).sqrt();
        let conv_bound = (d_conv as f64).sqrt().recip();
        let in_proj = init.linear(d_model, 2 * d_inner, projection_bias, 1.0);
        let conv_weight = init.uniform([d_inner, d_conv], conv_bound);
        let conv_bias = init.uniform([d_inner], conv_bound);
        let x_proj = init.linear(d_inner, dt_rank + 2 * d_state, false, 1.0);
        let dt_weight = init.uniform([dt_rank, d_inner], (dt_rank as f64).sqrt().recip());
        let dt_bias = init
            .draws(d_inner, 1e-3_f64.ln(), 0.1_f64.ln())
            .into_iter()
            .map(|ln_dt| {
                let dt = f64::from(ln_dt).exp().max(1e-4);
                (dt + (-(-dt).exp_m1()).ln()) as f32
            })
            .collect();
        let a_log = (0..d_inner)
            .flat_map(|_| (1..=d_state).map(|n| (n as f32).ln()))
            .collect();
        Self {
            in_proj,
            conv_weight,
            conv_bias,
            x_proj,
            dt_proj: Linear {
                weight: Matrix::Dense(dt_weight),
                bias: Some(init.values([d_inner], dt_bias)),
            },
            a_log: init.values([d_inner, d_state], a_log),
            d_skip: init.constant([d_inner], 1.0),
            out_proj: init.linear(d_inner, d_model, projection_bias, depth),
        }
    }

    /// Parameters of one block.
    pub fn n_parameters(shape: &ModelShape) -> usize {
        let ModelShape {
            d_model,
            d_state,
            d_conv,
            dt_rank,
            projection_bias,
            ..
        } = *shape;
        let d_inner = shape.d_inner();
        let projections = d_model * 2 * d_inner + d_inner * d_model;
        let conv = d_inner * d_conv + d_inner;
        let selection = d_inner * (dt_rank + 2 * d_state) + dt_rank * d_inner + d_inner;
        let biases = usize::from(projection_bias) * (2 * d_inner + d_model);
        projections + biases + conv + selection + d_inner * d_state + d_inner
    }

    /// The operations of a forward pass.
    pub fn forward_ops(shape: &ModelShape, tokens: BatchShape) -> Vec<(FlopsCategory, Op)> {
        let ModelShape {
            d_model,
            d_state,
            d_conv,
            dt_rank,
            projection_bias,
            ..
        } = *shape;
        let (d_inner, rows) = (shape.d_inner(), tokens.n_tokens());
        let BatchShape { batch, seq_len } = tokens;
        let n = rows * d_inner;
        let projections = [
            ([d_model, 2 * d_inner], projection_bias),
            ([d_inner, dt_rank + 2 * d_state], false),
            ([dt_rank, d_inner], true),
            ([d_inner, d_model], projection_bias),
        ];
        let sequence = [
            Op::CausalConv {
                batch,
                seq: seq_len,
                channels: d_inner,
                d_conv,
            },
            Op::Silu { n },
            Op::DecayRates {
                n: d_inner * d_state,
            },
            Op::SelectiveScan {
                batch,
                seq: seq_len,
                d_inner,
                d_state,
            },
            Op::Softplus { n },
        ];
        let gate = [
            Op::Scale { n },
            Op::Add { n },
            Op::Silu { n },
            Op::Multiply { n },
        ];
        let linear = |(sizes, bias)| Linear::forward_ops(rows, sizes, bias);
        (projections.into_iter().flat_map(linear))
            .chain(sequence)
            .chain(gate)
            .map(|op| (op.category(), op))
            .collect()
    }
}

impl SequenceBlock for MambaBlock {
    fn initial_state(&self, batch: usize, device: &Device) -> BlockState {
        let [d_inner, d_state] = self.a_log.dims();
        let [_, d_conv] = self.conv_weight.dims();
        let options = (device, self.a_log.val().dtype());
        BlockState::Mamba {
            conv: Tensor::zeros([batch, d_conv - 1, d_inner], options),
            scan: Tensor::zeros([batch, d_inner, d_state], options),
        }
    }

    fn forward(&self, x: Tensor<2>, state: BlockState, pass: &Pass<'_>) -> Result<BlockOutput> {
        let shape = pass.shape;
        let BlockState::Mamba {
            conv: conv0,
            scan: scan0,
        } = state
        else {
            return Err(Error::CheckFailed(
                "a mamba block was given another block's state".into(),
            ));
        };
        let d_last = match pass.sweep {
            Sweep::Infer => None,
            Sweep::Train {
                d_last: BlockState::Mamba { conv, scan },
                ..
            } => Some((conv.clone(), scan.clone())),
            Sweep::Train { .. } => {
                return Err(Error::CheckFailed(
                    "a mamba block was given another block's cotangent".into(),
                ));
            }
        };
        let (d_conv_last, d_scan_last) = d_last.unzip();
        let [d_inner, d_state] = self.a_log.dims();
        let dt_rank = self.dt_proj.d_input();

        let [u, z] = self.in_proj.forward_halves(x, pass.precision)?;
        pass.show("in_proj", &u);
        pass.show("in_proj", &z);
        let u = shape.unfold(u);

        let (conv_weight, conv_bias) = (self.conv_weight.val(), self.conv_bias.val());
        let silu_conv = Activation::Silu;
        let (u, conv) = match d_conv_last {
            None => {
                let (u, last) = causal_conv::infer(u, conv_weight, conv_bias, conv0, silu_conv)?;
                (u, Some(last))
            }
            Some(d_last) => {
                let u = causal_conv::train(u, conv_weight, conv_bias, conv0, d_last, silu_conv)?;
                (u, None)
            }
        };

        pass.show("causal_conv", &u);

        let u = ledger::shared(u, 3);
        let selection = self.x_proj.forward(shape.fold(u.clone()), pass.precision)?;
        let selection = ledger::cut(selection, 3);
        let steps = selection.clone().narrow(1, 0, dt_rank);
        let delta_raw = self.dt_proj.forward(steps, pass.precision)?;
        let inputs = selective_scan::Inputs {
            u: u.clone(),
            delta_raw: shape.unfold(delta_raw),
            a: ledger::counted(
                self.a_log.val().exp().neg(),
                Op::DecayRates {
                    n: d_inner * d_state,
                },
            ),
            b: shape.unfold(selection.clone().narrow(1, dt_rank, d_state)),
            c: shape.unfold(selection.clone().narrow(1, dt_rank + d_state, d_state)),
            softplus: true,
        };
        pass.show("x_proj", &selection);
        pass.show("selective_scan.u", &inputs.u);
        pass.show("selective_scan.delta_raw", &inputs.delta_raw);
        pass.show("selective_scan.a", &inputs.a);
        pass.show("selective_scan.b", &inputs.b);
        pass.show("selective_scan.c", &inputs.c);
        pass.show("selective_scan.h0", &scan0);
        let (y, scan) = match d_scan_last {
            None => {
                let (y, last) = selective_scan::infer(inputs, scan0)?;
                (y, Some(last))
            }
            Some(d_last) => (selective_scan::train(inputs, scan0, d_last)?, None),
        };

        pass.show("selective_scan.y", &y);

        let y = skip_gate::gated(skip_gate::Inputs {
            y: shape.fold(y),
            u: shape.fold(u),
            skip: self.d_skip.val(),
            z,
        })?;
        let branch = self.out_proj.forward(y, pass.precision)?;
        pass.show("out_proj", &branch);
        let state = conv
            .zip(scan)
            .map(|(conv, scan)| BlockState::Mamba { conv, scan });
        Ok(BlockOutput {
            branch,
            state,
            routing: None,
        })
    }
    fn parts(&mut self) -> Vec<Part<'_>> {
        let matrices = [
            ("in_proj.weight", Family::InProj, &mut self.in_proj),
            ("x_proj.weight", Family::XProj, &mut self.x_proj),
            ("dt_proj.weight", Family::DtProj, &mut self.dt_proj),
            ("out_proj.weight", Family::OutProj, &mut self.out_proj),
        ];
        let a_log = Part {
            path: "a_log".into(),
            family: Family::ALog,
            place: Place::Values(&mut self.a_log),
        };
        matrices
            .into_iter()
            .map(|(path, family, linear)| Part::matrix(path, family, &mut linear.weight))
            .chain([a_log])
            .collect()
    }
}
