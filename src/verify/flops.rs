//! The FLOPs that operations register, against the sequential oracle run on numbers that count. A registered cost
//! is a formula in sizes; the oracle runs the arithmetic. Neither knows the other.

use crate::accounting::FairFLOPsCounter;
use crate::config::{Config, ModelConfig, TrainConfig};
use crate::data::{Batches, Tokens};
use crate::hardware::Hardware;
use crate::math::oracle::{
    Counting, attention, causal_conv, embedding, layers, linear_cross_entropy, operations,
    optimiser, resolvent_diag, resolvent_diag_bidirectional, selective_scan,
};
use crate::math::random::{Coordinate, Purpose, normal_vec, words};
use crate::models::registry::{ModelShape, matched_shapes};
use crate::models::{BatchShape, LanguageModel};
use crate::ops::ledger::{Ledger, Op};
use crate::results::{COSTS, FlopsAgreement, FlopsPass, FlopsReport};
use crate::train::{Interrupt, Training, train};
use crate::{Error, Result};

/// Counts a forward pass and an optimiser step of `shape` on sequences of `tokens`, and checks every operation of a
/// small copy of the model.
///
/// # Errors
/// A text that is too short, or a device that fails; what does not agree is in the report.
pub fn report(
    shape: &ModelShape,
    config: &Config,
    text: &Tokens,
    hardware: &Hardware,
    tokens: BatchShape,
) -> Result<FlopsReport> {
    let seed = config.seeds.first;
    let BatchShape { batch, seq_len } = tokens;
    let batches = Batches::new(text.clone(), seq_len, batch, seed)?;
    let model = LanguageModel::new(shape, seed, &hardware.device);
    let input_ids = batches.batch(0).inputs;
    let forward = FairFLOPsCounter::default().count_detailed(&model, &input_ids, tokens)?;
    let hidden = model.infer(&input_ids, tokens, model.initial_states(batch))?;
    let by_formula = shape.forward_ops_as_routed(tokens, &hidden.expert_rows());
    let training = optimiser_step(&Training {
        shape,
        model: &config.model,
        config: &config.train,
        batches: &batches,
        batch_shape: tokens,
        n_steps: 1,
        seed,
        stream: 0,
        device: &hardware.device,
        checkpoints: None,
        interrupt: &Interrupt::default(),
        memory_limit: None,
    })?;
    let agreement = small_copy(shape, hardware)?;
    Ok(FlopsReport {
        model: shape.architecture.name().to_owned(),
        costs: COSTS,
        forward,
        training: training.breakdown(batch, tokens.n_tokens()),
        forward_by_formula: by_formula
            .iter()
            .map(|(_, op)| op.cost(FlopsPass::Forward))
            .sum(),
        agreement: agreement
            .into_iter()
            .map(|(op, pass)| agree(op, pass))
            .collect(),
    })
}

fn optimiser_step(training: &Training<'_>) -> Result<Ledger> {
    let ledger = Ledger::default();
    let trained = ledger.watch(|| train(training, &mut ()))?;
    match trained.curves.loss_nats.first() {
        Some(_) => Ok(ledger),
        None => Err(Error::CheckFailed(format!(
            "no step was taken: {:?}",
            trained.outcome
        ))),
    }
}

/// Every operation of a step of a small model of this kind, at odd sizes.
fn small_copy(shape: &ModelShape, hardware: &Hardware) -> Result<Vec<(Op, FlopsPass)>> {
    const VOCAB: usize = 61;
    const TOKENS: BatchShape = BatchShape {
        batch: 3,
        seq_len: 37,
    };
    let model = ModelConfig {
        d_model: 12,
        n_layers: 1,
        d_state: shape.d_state,
        d_conv: shape.d_conv,
        expand: shape.expand,
        n_experts: shape.n_experts,
        top_k: shape.top_k,
        ..ModelConfig::default()
    };
    let text: Vec<u32> = (0..500_u64)
        .map(|i| words(1, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32)
        .collect();
    let text = Tokens::from_ids(&text, VOCAB);
    let ledger = optimiser_step(&Training {
        shape: &matched_shapes(&[shape.architecture], &model, VOCAB)?.remove(0),
        model: &model,
        config: &TrainConfig::default(),
        batches: &Batches::new(text, TOKENS.seq_len, TOKENS.batch, 1)?,
        batch_shape: TOKENS,
        n_steps: 1,
        seed: 1,
        stream: 0,
        device: &hardware.device,
        checkpoints: None,
        interrupt: &Interrupt::default(),
        memory_limit: None,
    })?;
    Ok(ledger.ops())
}

/// What one operation registers against what the oracle takes.
pub fn agree(op: Op, pass: FlopsPass) -> FlopsAgreement {
    FlopsAgreement {
        pass,
        op: op.name().to_owned(),
        sizes: op.sizes(),
        registered: op.cost(pass),
        counted: count(op, pass),
    }
}

/// Normal numbers, different ones at every call for the same source.
#[derive(Default)]
struct Source(u32);

impl Source {
    fn numbers(&mut self, n: usize) -> Vec<Counting> {
        let stream = Coordinate {
            row: self.0,
            ..Coordinate::new(Purpose::Test)
        };
        self.0 += 1;
        let values = normal_vec(17, stream, n, 1.0).into_iter();
        values.map(|value| Counting(value.into())).collect()
    }
}

/// Operations of a pass of `op` as the oracle runs it. A backward pass starts from what the forward pass left.
pub fn count(op: Op, pass: FlopsPass) -> u64 {
    let mut source = Source::default();
    let mut numbers = |n: usize| source.numbers(n);
    let one = Counting(1.0);
    match op {
        Op::Gather { rows, width } => {
            let ids: Vec<usize> = (0..rows).map(|row| row / 2).collect();
            let (weight, d_y) = (numbers(rows * width), numbers(rows * width));
            either(
                pass,
                || embedding::gather_rows(&weight, width, &ids),
                |_| embedding::d_weight(&d_y, rows, width, &ids),
            )
        }
        Op::MatrixProduct {
            rows,
            inner,
            columns,
        } => {
            let (a, b) = (numbers(rows * inner), numbers(inner * columns));
            either(
                pass,
                || layers::product(&a, &b, [rows, inner, columns]),
                |y| layers::product_with_transposed(&y, &b, [rows, columns, inner]),
            )
        }
        Op::Bias { rows, width } => {
            let (x, bias) = (numbers(rows * width), numbers(width));
            either(
                pass,
                || layers::add_bias(&x, &bias),
                |y| layers::d_bias(&y, width),
            )
        }
        Op::CausalConv {
            batch,
            seq,
            channels,
            d_conv,
        } => {
            let (n, n_state) = (batch * seq * channels, batch * (d_conv - 1) * channels);
            let inputs = causal_conv::Inputs {
                batch,
                seq_len: seq,
                channels,
                d_conv,
                silu: false,
                x: numbers(n),
                weight: numbers(channels * d_conv),
                bias: numbers(channels),
                x0: numbers(n_state),
            };
            let (d_y, d_last) = (numbers(n), numbers(n_state));
            either(
                pass,
                || inputs.trace(),
                |trace| inputs.adjoint(&trace, &d_y, &d_last),
            )
        }
        Op::SelectiveScan {
            batch,
            seq,
            d_inner,
            d_state,
        } => {
            let dims = selective_scan::Dims {
                batch,
                seq,
                d_inner,
                d_state,
            };
            let (n, n_state) = (batch * seq * d_inner, batch * d_inner * d_state);
            let inputs = selective_scan::Inputs {
                u: numbers(n),
                delta_raw: numbers(n),
                a: numbers(d_inner * d_state),
                b: numbers(batch * seq * d_state),
                c: numbers(batch * seq * d_state),
                h0: numbers(n_state),
                softplus: false,
            };
            let (d_y, d_last) = (numbers(n), numbers(n_state));
            either(
                pass,
                || selective_scan::trace(dims, &inputs),
                |trace| selective_scan::adjoint_of(&trace, dims, &inputs, &d_y, &d_last),
            )
        }
        Op::ResolventDiag {
            batch,
            seq,
            heads,
            couplings,
        } => {
            let n = batch * seq * heads;
            let problem = resolvent_diag::Problem {
                batch,
                seq,
                heads,
                diag: &numbers(n),
                coupling: &numbers(if couplings > 0 { n } else { 1 }),
                shift: &numbers(2 * heads),
                g0: &numbers(batch * 2 * heads),
            };
            let (d_g, d_last) = (numbers(2 * n), numbers(batch * 2 * heads));
            either(
                pass,
                || problem.forward(),
                |g| problem.adjoint_of(&g, &d_g, &d_last),
            )
        }
        Op::ResolventDiagBidirectional {
            batch,
            seq,
            heads,
            couplings,
        } => {
            let n = batch * seq * heads;
            let problem = resolvent_diag_bidirectional::Problem {
                batch,
                seq,
                heads,
                diag: &numbers(n),
                coupling: &numbers(if couplings > 0 { n } else { 1 }),
                shift: &numbers(2 * heads),
            };
            let d_full = numbers(2 * n);
            either(
                pass,
                || problem.trace(),
                |trace| problem.adjoint_of(&trace, &d_full),
            )
        }
        Op::ResolventDiagPublished { batch, seq, heads } => {
            let n = batch * seq * heads;
            let problem = resolvent_diag_bidirectional::Problem {
                batch,
                seq,
                heads,
                diag: &numbers(n),
                coupling: &[one],
                shift: &numbers(2 * heads),
            };
            let d_full = numbers(2 * n);
            either(
                pass,
                || problem.forward(),
                |full| problem.published_of(&full, &d_full),
            )
        }
        Op::Attention {
            batch,
            seq,
            heads,
            width,
        } => {
            let n = batch * heads * seq * width;
            let (q, k, v, d_y) = (numbers(n), numbers(n), numbers(n), numbers(n));
            let problem = attention::Problem {
                seq,
                width,
                q: &q,
                k: &k,
                v: &v,
            };
            either(
                pass,
                || problem.forward(),
                |trace| problem.adjoint_of(&trace, &d_y),
            )
        }
        Op::Rotation { n } => {
            let (x, d_y, turns) = (numbers(n), numbers(n), vec![(one, one); n / 2]);
            either(
                pass,
                || layers::rotate(&x, &turns, n),
                |_| layers::rotate(&d_y, &turns, n),
            )
        }
        Op::Gelu { n } => {
            let (x, d_y) = (numbers(n), numbers(n));
            either(
                pass,
                || layers::Gelu::forward(&x),
                |gelu| gelu.backward(&d_y),
            )
        }
        Op::Relu { n } => {
            let (x, d_y) = (numbers(n), numbers(n));
            either(pass, || layers::relu(&x), |_| layers::masked(&x, &d_y))
        }
        Op::Silu { n } => {
            let (x, d_y) = (numbers(n), numbers(n));
            either(
                pass,
                || layers::Silu::forward(&x),
                |silu| silu.backward(&d_y),
            )
        }
        Op::Softplus { n } => {
            let (x, d_y) = (numbers(n), numbers(n));
            let forward = || x.iter().map(|&x| selective_scan::softplus(x)).collect();
            either(pass, forward, |saved: Vec<_>| {
                let elements = x.iter().zip(saved).zip(&d_y);
                elements
                    .map(|((&x, (_, w)), &d)| selective_scan::d_softplus(x, w, d))
                    .collect::<Vec<_>>()
            })
        }
        Op::Clamp { n } => {
            let (x, d_y) = (numbers(n), numbers(n));
            let (low, high) = (Counting(-1.0), one);
            either(
                pass,
                || layers::clamp(&x, low, high),
                |_| layers::d_clamp(&x, &d_y, low, high),
            )
        }
        Op::Softmax { rows, width } => {
            let (x, d_y) = (numbers(rows * width), numbers(rows * width));
            either(
                pass,
                || layers::softmax(&x, width),
                |y| layers::d_softmax(&y, &d_y, width),
            )
        }
        Op::RmsNorm { rows, width } => {
            let (x, d_y) = (numbers(rows * width), numbers(rows * width));
            let gamma = numbers(width);
            either(
                pass,
                || layers::RmsNorm::forward(&x, &gamma),
                |norm| norm.backward(&gamma, &d_y),
            )
        }
        Op::TopK { rows, width, k } => {
            let x = numbers(rows * width);
            either(pass, || layers::top_k(&x, width, k), drop)
        }
        Op::PhaseRouting { rows, n_experts } => {
            let g = numbers(2 * rows);
            either(pass, || layers::by_phase(&g, n_experts, 0.5), drop)
        }
        Op::LoadBalance { rows, width } => {
            let (x, weights) = (numbers(rows * width), numbers(width));
            either(
                pass,
                || layers::load_balance(&x, &weights),
                |_| layers::d_load_balance(&weights, one),
            )
        }
        Op::Add { n } => {
            let (x, y) = (numbers(n), numbers(n));
            either(pass, || layers::add(&x, &y), drop)
        }
        Op::Multiply { n } => {
            let (x, y, d) = (numbers(n), numbers(n), numbers(n));
            either(
                pass,
                || layers::multiply(&x, &y),
                |_| (layers::multiply(&d, &y), layers::multiply(&d, &x)),
            )
        }
        Op::Scale { n } => {
            let (x, factor, d_y) = (numbers(n), numbers(1), numbers(n));
            either(
                pass,
                || layers::scale(&x, &factor),
                |_| layers::d_scale(&x, &factor, &d_y),
            )
        }
        Op::Mask { n } => {
            let (x, mask, d) = (numbers(n), numbers(n), numbers(n));
            either(
                pass,
                || layers::multiply(&x, &mask),
                |_| layers::multiply(&d, &mask),
            )
        }
        Op::DecayRates { n } => {
            let (x, d) = (numbers(n), numbers(n));
            either(
                pass,
                || layers::decay_rates(&x),
                |rates| layers::multiply(&rates, &d),
            )
        }
        Op::GradientSum { n } => {
            let (x, y) = (numbers(n), numbers(n));
            either(pass, || (), |()| layers::add(&x, &y))
        }
        Op::CrossEntropy { rows, vocab } => {
            let logits = numbers(rows * vocab);
            let targets: Vec<usize> = (0..rows).map(|row| row % vocab).collect();
            either(
                pass,
                || linear_cross_entropy::of_logits(&logits, &targets),
                |losses| losses.d_logits(&targets, one),
            )
        }
        Op::ScaledSum { n } => {
            let nll = numbers(n);
            either(pass, || linear_cross_entropy::scaled_sum(&nll, one), drop)
        }
        Op::SquaredNorm { n } => {
            let x = numbers(n);
            update(pass, || optimiser::squared_norm(&x))
        }
        Op::Rescale { n } => {
            let x = numbers(n);
            update(pass, || optimiser::rescale(&x, one))
        }
        Op::AdamW { n } | Op::WeightDecay { n } => {
            let (parameters, gradients) = (numbers(n), numbers(n));
            let step = |decay| {
                let settings = optimiser::AdamW {
                    betas: [(one, one); 2],
                    corrections: [one; 2],
                    epsilon: one,
                    rate: one,
                    decay,
                };
                let pairs = parameters.iter().zip(&gradients);
                update(pass, || {
                    let moments = [one; 2];
                    pairs
                        .map(|(&p, &g)| settings.step(p, g, moments))
                        .collect::<Vec<_>>()
                })
            };
            match op {
                Op::AdamW { .. } => step(None),
                _ => step(Some(one)) - step(None),
            }
        }
    }
}

/// The operations of one of two passes.
fn either<S, R>(
    pass: FlopsPass,
    forward: impl FnOnce() -> S,
    backward: impl FnOnce(S) -> R,
) -> u64 {
    let (saved, of_forward) = operations(forward);
    let (_, of_backward) = operations(|| backward(saved));
    match pass {
        FlopsPass::Forward => of_forward,
        FlopsPass::Backward => of_backward,
        FlopsPass::Update => 0,
    }
}

/// The operations of an update, which is no part of the other passes.
fn update<R>(pass: FlopsPass, f: impl FnOnce() -> R) -> u64 {
    match pass {
        FlopsPass::Update => operations(f).1,
        _ => 0,
    }
}
