//! Mixture of experts: a linear router, small two-layer experts, only the chosen ones run.

use std::iter;

use burn::module::Module;
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Tensor, TensorData};

use super::linear::Linear;
use super::matrix::Matrix;
use super::quantised::{Family, Part};
use super::registry::{Architecture, ModelShape};
use super::{Initialiser, Pass, Routing, Sweep};
use crate::config::Precision;
use crate::hardware::read;
use crate::ops::embedding::gather_rows;
use crate::ops::ledger::{self, Op};
use crate::results::{FlopsCategory, FlopsPass};
use crate::{Error, Result};

/// Experts and their router.
///
/// The gate is the full softmax's probability of the chosen expert, so that the router learns at
/// `top_k = 1`; ties go to the lowest index; no capacity, no dropped token.
#[derive(Module, Debug)]
pub(super) struct Experts {
    router: Linear,
    networks: Vec<Expert>,
    #[module(skip)]
    top_k: usize,
    #[module(skip)]
    router_learns: bool,
}

#[derive(Module, Debug)]
struct Expert {
    up: Linear,
    down: Linear,
}

/// What [`Experts::forward`] returns.
#[derive(Debug)]
pub(super) struct Mixture {
    /// Gated sum over the chosen experts, `[tokens, d_model]`.
    pub y: Tensor<2>,
    /// `E * sum_e f_e P_e`: the fraction of all choices that went to each expert (a constant) times the sum
    /// of its probabilities here over all tokens; over a whole batch, 1 when balanced.
    pub routing: Routing,
}

impl Experts {
    /// Router N(0, 0.02); experts Kaiming uniform, the second matrix divided by the root of the depth.
    pub(super) fn new(init: &mut Initialiser<'_>, shape: &ModelShape) -> Self {
        let (d_model, hidden) = (shape.d_model, shape.expert_hidden);
        let depth = (shape.n_layers as f64).sqrt();
        let router = Linear {
            weight: Matrix::Dense(init.normal([d_model, shape.n_experts], 0.02)),
            bias: Some(init.constant([shape.n_experts], 0.0)),
        };
        let networks = (0..shape.n_experts)
            .map(|_| Expert {
                up: init.linear(d_model, hidden, true, 1.0),
                down: init.linear(hidden, d_model, true, depth),
            })
            .collect();
        Self {
            router,
            networks,
            top_k: shape.top_k,
            router_learns: shape.architecture != Architecture::ResNetBkPublished,
        }
    }

    /// Parameters of the router and of `n` experts.
    pub(super) fn n_parameters(shape: &ModelShape, n: usize) -> usize {
        let (d_model, hidden) = (shape.d_model, shape.expert_hidden);
        let router = d_model * shape.n_experts + shape.n_experts;
        router + n * (d_model * hidden + hidden + hidden * d_model + d_model)
    }

    /// The matrices of the experts; the router stays as it is.
    pub(super) fn parts(&mut self) -> Vec<Part<'_>> {
        let networks = self.networks.iter_mut().enumerate();
        networks
            .flat_map(|(i, expert)| {
                let path = |layer: &str| format!("networks.{i}.{layer}.weight");
                [
                    Part::matrix(path("up"), Family::ExpertsUp, &mut expert.up.weight),
                    Part::matrix(path("down"), Family::ExpertsDown, &mut expert.down.weight),
                ]
            })
            .collect()
    }

    /// Routes `x`, shape `[tokens, d_model]`. The choice is made on the host: one readback a call.
    ///
    /// # Errors
    /// A device that fails.
    pub(super) fn forward(&self, x: Tensor<2>, pass: &Pass<'_>) -> Result<Mixture> {
        let [n_tokens, d_model] = x.dims();
        let n_experts = self.networks.len();
        let options = (&x.device(), x.dtype());
        let x = ledger::shared(x, if self.router_learns { 2 } else { 1 });
        let probabilities = routing(|| self.probabilities(x.clone()))?;
        pass.show("router", &probabilities);
        let on_host = read::floats(
            probabilities.clone().inner(),
            "reading router probabilities",
        )?;
        let plan = Plan::new(&on_host, n_experts, self.top_k);

        let (n_rows, n_choices) = (plan.tokens.len(), n_tokens * self.top_k);
        let gathered =
            routing(|| ledger::padded(n_choices, n_rows, || gather_rows(x, &plan.tokens)))?;
        let n_chosen = plan.padded_rows.iter().filter(|&&rows| rows > 0).count();
        let gathered = ledger::cut(gathered, n_chosen);
        let mut outputs = Vec::with_capacity(n_experts);
        let mut first = 0;
        let chosen = self.networks.iter().zip(&plan.padded_rows);
        for ((expert, &rows), &n) in chosen.zip(&plan.counts) {
            if rows > 0 {
                let input = gathered.clone().narrow(0, first, rows);
                let output =
                    ledger::padded(n as usize, rows, || expert.forward(input, pass.precision));
                outputs.push(output?);
                first += rows;
            }
        }
        let outputs = Tensor::cat(outputs, 0);
        let outputs = ledger::padded(n_choices, n_rows, || ledger::shared(outputs, self.top_k));

        let constant = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values, shape), options)
        };
        let n = n_tokens * d_model;
        let mut y: Option<Tensor<2>> = None;
        for choice in &plan.choices {
            let chosen = constant(choice.one_hot.clone(), [n_tokens, n_experts]);
            let gate = (probabilities.clone() * chosen).sum_dim(1);
            let output = routing(|| gather_rows(outputs.clone(), &choice.slots))?;
            // A gate is looked up by a product with ones and zeros and a sum.
            let lookup = 2 * (n_tokens * n_experts) as u64;
            let cost = |pass| Op::Scale { n }.cost(pass) + lookup;
            let term = routing(|| ledger::counted_as(output * gate, Op::Scale { n }, cost));
            y = Some(match y {
                Some(sum) => routing(|| ledger::counted(sum + term, Op::Add { n })),
                None => term,
            });
        }
        let y = y.ok_or_else(|| Error::CheckFailed("top_k must be at least 1".into()))?;

        let all = match pass.sweep {
            Sweep::Train {
                routed: Some(all), ..
            } => all,
            _ => &plan.counts,
        };
        // E * f_e * P_e, with P_e a sum over the tokens here divided by the number of all tokens.
        let n_choices = all.iter().sum::<u64>() as f64;
        let n_all_tokens = n_choices / self.top_k as f64;
        let weights = all
            .iter()
            .map(|&n| (n_experts as f64 * n as f64 / n_choices / n_all_tokens) as f32)
            .collect();
        let load_balance = probabilities.sum_dim(0) * constant(weights, [1, n_experts]);
        let load_balance = load_balance.sum_dim(1).reshape([1]);
        let balance = Op::LoadBalance {
            rows: n_tokens,
            width: n_experts,
        };
        Ok(Mixture {
            y,
            routing: Routing {
                choices: plan.counts,
                load_balance: match pass.sweep {
                    Sweep::Train { .. } => ledger::counted(load_balance, balance),
                    // Nothing but a training asks for it.
                    Sweep::Infer => ledger::repeated(|| ledger::counted(load_balance, balance)),
                },
            },
        })
    }

    /// Of each expert for each token, `[tokens, experts]`.
    fn probabilities(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        let [rows, _] = x.dims();
        let width = self.networks.len();
        // Rounded logits would send tokens elsewhere: the router stays in f32 (Fedus et al. 2021, section 2.4).
        let p = softmax(self.router.forward(x, Precision::F32)?, 1);
        let p = ledger::counted(p, Op::Softmax { rows, width });
        let k = self.top_k;
        ledger::register(Op::TopK { rows, width, k }, FlopsPass::Forward);
        // Every choice reads them, and the load balance.
        let p = ledger::shared(p, k + 1);
        Ok(if self.router_learns { p } else { p.detach() })
    }

    /// The operations of a forward pass over so many tokens.
    pub(super) fn forward_ops(shape: &ModelShape, n_tokens: usize) -> Vec<(FlopsCategory, Op)> {
        let ModelShape {
            d_model,
            n_experts,
            top_k,
            expert_hidden,
            ..
        } = *shape;
        let (rows, n) = (n_tokens, n_tokens * d_model);
        let width = n_experts;
        let routing = Linear::forward_ops(rows, [d_model, n_experts], true)
            .chain([
                Op::Softmax { rows, width },
                Op::TopK {
                    rows,
                    width,
                    k: top_k,
                },
            ])
            .chain(iter::repeat_n(Op::Scale { n }, top_k))
            .chain(iter::repeat_n(Op::Add { n }, top_k - 1));
        let rows = n_tokens * top_k;
        let relu = Op::Relu {
            n: rows * expert_hidden,
        };
        let experts = Linear::forward_ops(rows, [d_model, expert_hidden], true)
            .chain([relu])
            .chain(Linear::forward_ops(rows, [expert_hidden, d_model], true));
        routing
            .map(|op| (FlopsCategory::Routing, op))
            .chain(experts.map(|op| (op.category(), op)))
            .collect()
    }
}

impl Expert {
    fn forward(&self, x: Tensor<2>, precision: Precision) -> Result<Tensor<2>> {
        let hidden = relu(self.up.forward(x, precision)?);
        let n = hidden.shape().num_elements();
        let hidden = ledger::counted(hidden, Op::Relu { n });
        self.down.forward(hidden, precision)
    }
}

/// What runs in `f` counts as routing.
fn routing<R>(f: impl FnOnce() -> R) -> R {
    ledger::within(FlopsCategory::Routing, f)
}

/// Which token goes where: computed on the host from the router's probabilities.
#[derive(Debug)]
struct Plan {
    /// Token of each gathered row, expert by expert, padding included.
    tokens: Vec<u32>,
    /// Rows of each expert, padding included; 0 where it was not chosen.
    padded_rows: Vec<usize>,
    /// One entry for each of the `top_k` choices.
    choices: Vec<Choice>,
    /// Choices that went to each expert.
    counts: Vec<u64>,
}

#[derive(Debug)]
struct Choice {
    /// 1 at the chosen expert of each token, `[tokens, experts]`.
    one_hot: Vec<f32>,
    /// Row of the gathered experts' output for each token.
    slots: Vec<u32>,
}

impl Plan {
    fn new(probabilities: &[f32], n_experts: usize, top_k: usize) -> Self {
        let n_tokens = probabilities.len() / n_experts;
        let mut chosen: Vec<Vec<usize>> = vec![Vec::with_capacity(n_tokens); top_k];
        for row in probabilities.chunks(n_experts) {
            let mut order: Vec<usize> = (0..n_experts).collect();
            // A stable sort keeps the lowest index first among equals.
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            for (k, list) in chosen.iter_mut().enumerate() {
                list.push(order[k]);
            }
        }

        let mut members: Vec<Vec<(u32, usize)>> = vec![Vec::new(); n_experts];
        for token in 0..n_tokens {
            for (k, list) in chosen.iter().enumerate() {
                members[list[token]].push((token as u32, k));
            }
        }
        let counts = members.iter().map(|m| m.len() as u64).collect();

        let mut slots = vec![vec![0; n_tokens]; top_k];
        let (mut tokens, mut padded_rows) = (Vec::new(), Vec::with_capacity(n_experts));
        for list in &members {
            let first = tokens.len();
            for &(token, k) in list {
                slots[k][token as usize] = tokens.len() as u32;
                tokens.push(token);
            }
            // A single token, as when text is written, is the one shape more that pays.
            let rows = if n_tokens == 1 {
                list.len()
            } else {
                padded(list.len())
            };
            // Padding rows compute token 0 again; nothing reads them and their gradient is 0.
            tokens.resize(first + rows, 0);
            padded_rows.push(rows);
        }

        let choices = chosen
            .iter()
            .zip(slots)
            .map(|(list, slots)| {
                let mut one_hot = vec![0.0; n_tokens * n_experts];
                for (token, &expert) in list.iter().enumerate() {
                    one_hot[token * n_experts + expert] = 1.0;
                }
                Choice { one_hot, slots }
            })
            .collect();
        Self {
            tokens,
            padded_rows,
            choices,
            counts,
        }
    }
}

/// Rows are padded to quarter steps between powers of two: every new matmul shape costs a pipeline, and
/// this bounds both the shapes (four an octave) and the waste (a quarter at most).
fn padded(rows: usize) -> usize {
    if rows <= 16 {
        return if rows == 0 { 0 } else { 16 };
    }
    let step = rows.next_power_of_two() / 8;
    rows.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_finds_its_expert_and_ties_go_to_the_lowest_index() {
        let probabilities = [0.1, 0.7, 0.2, 0.4, 0.4, 0.2, 0.2, 0.2, 0.6];
        let plan = Plan::new(&probabilities, 3, 2);
        let expert_of = |slot: u32| {
            let mut end = 0;
            plan.padded_rows.iter().position(|rows| {
                end += rows;
                (slot as usize) < end
            })
        };
        let first: Vec<_> = plan.choices[0]
            .slots
            .iter()
            .map(|&s| expert_of(s))
            .collect();
        assert_eq!(first, [Some(1), Some(0), Some(2)]);
        let second: Vec<_> = plan.choices[1]
            .slots
            .iter()
            .map(|&s| expert_of(s))
            .collect();
        assert_eq!(second, [Some(2), Some(1), Some(0)]);
        for choice in &plan.choices {
            for (token, &slot) in choice.slots.iter().enumerate() {
                assert_eq!(plan.tokens[slot as usize], token as u32);
            }
        }
        assert_eq!(plan.counts, [2, 2, 2]);
    }

    #[test]
    fn padding_wastes_at_most_a_quarter_and_never_shrinks() {
        for rows in 17..5000 {
            let p = padded(rows);
            assert!(p >= rows && p * 4 <= rows * 5, "{rows} rows padded to {p}");
        }
        assert_eq!((padded(0), padded(1), padded(16)), (0, 16, 16));
    }
}
