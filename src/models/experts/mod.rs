//! Mixture of experts: small two-layer networks, of which only the chosen ones run on a token.

mod choices;
mod plan;

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
pub use choices::Choices;
use plan::Plan;

/// Experts and what sends tokens to them.
///
/// The gate of a router is the full softmax's probability of the chosen expert, so that the router learns at
/// `top_k = 1`; ties go to the lowest index; no capacity, no dropped token. Without a router the experts of a token
/// have equal and constant shares.
#[derive(Module, Debug)]
pub(super) struct Experts {
    router: Option<Linear>,
    networks: Vec<Expert>,
    #[module(skip)]
    top_k: usize,
    #[module(skip)]
    rule: Rule,
}

/// What sends tokens to experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A router that learns.
    Learned,
    /// A router that stays as drawn.
    Frozen,
    /// A router that learns and has one more choice: no expert.
    LearnedOrNone,
    /// The phase of the resolvent.
    Phase,
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
    /// Where the tokens went.
    pub routing: Routing,
}

/// What a router says.
struct Routed {
    /// Of each choice for each token, `[tokens, choices]`.
    probabilities: Tensor<2>,
    /// The same before the softmax, where one of the choices is no expert.
    logits: Option<Tensor<2>>,
}

impl Experts {
    /// Router N(0, 0.02); experts Kaiming uniform, the second matrix divided by the root of the depth.
    pub(super) fn new(init: &mut Initialiser<'_>, shape: &ModelShape) -> Self {
        let (d_model, hidden) = (shape.d_model, shape.expert_hidden);
        let depth = (shape.n_layers as f64).sqrt();
        let n_choices = shape.router_choices();
        let router = (n_choices > 0).then(|| Linear {
            weight: Matrix::Dense(init.normal([d_model, n_choices], 0.02)),
            bias: Some(init.constant([n_choices], 0.0)),
        });
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
            rule: match shape.architecture {
                Architecture::ResNetBkPublished => Rule::Frozen,
                Architecture::ResNetBkAct => Rule::LearnedOrNone,
                Architecture::ResNetBkScatter => Rule::Phase,
                _ => Rule::Learned,
            },
        }
    }

    /// Parameters of the router and of `n` experts.
    pub(super) fn n_parameters(shape: &ModelShape, n: usize) -> usize {
        let (d_model, hidden) = (shape.d_model, shape.expert_hidden);
        let router = (d_model + 1) * shape.router_choices();
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

    /// Routes `x`, shape `[tokens, d_model]`; `g`, `[tokens, 2]`, is the resolvent, which is read where there is no
    /// router. The choice is made on the host: one readback a call.
    ///
    /// # Errors
    /// A device that fails.
    pub(super) fn forward(&self, x: Tensor<2>, g: &Tensor<2>, pass: &Pass<'_>) -> Result<Mixture> {
        let [n_tokens, d_model] = x.dims();
        let options = (&x.device(), x.dtype());
        let learns = matches!(self.rule, Rule::Learned | Rule::LearnedOrNone);
        let x = ledger::shared(x, if learns { 2 } else { 1 });
        let routed = match &self.router {
            Some(router) => Some(routing(|| self.routed(router, x.clone()))?),
            None => None,
        };
        let mut choices = self.choices(routed.as_ref(), g, pass)?;
        let flips = pass.pinned.map(|pinned| choices.pin(pinned));
        let plan = Plan::new(&choices, self.networks.len());
        let outputs = self.run(x, &plan, pass)?;

        let constant = |values: Vec<f32>, columns: usize| {
            let data = TensorData::new(values, [n_tokens, columns]);
            Tensor::<2>::from_data(data, options)
        };
        let n = n_tokens * d_model;
        let mut y: Option<Tensor<2>> = None;
        for (k, choice) in plan.choices.iter().enumerate() {
            let output = of_some(choice.n_sent, n_tokens, || {
                gather_rows(outputs.clone(), &choice.slots)
            })?;
            let term = if let Some(Routed { probabilities, .. }) = &routed {
                let [_, width] = probabilities.dims();
                let chosen = constant(choices.one_hot(k, width), width);
                let gate = (probabilities.clone() * chosen).sum_dim(1);
                // A gate is looked up by a product with ones and zeros and a sum.
                let lookup = 2 * (n_tokens * width) as u64;
                let cost = |pass| Op::Scale { n }.cost(pass) + lookup;
                of_some(choice.n_sent, n_tokens, || {
                    ledger::counted_as(output * gate, Op::Scale { n }, cost)
                })
            } else {
                let share = constant(choices.shares(k), 1);
                of_some(choice.n_sent, n_tokens, || {
                    ledger::counted(output * share, Op::Mask { n })
                })
            };
            y = Some(match y {
                Some(sum) => of_some(choice.n_added, n_tokens, || {
                    ledger::counted(sum + term, Op::Add { n })
                }),
                None => term,
            });
        }
        let y = y.ok_or_else(|| Error::CheckFailed("top_k must be at least 1".into()))?;

        let expert_rows = plan.n_sent() as u64;
        let counts = match self.rule {
            Rule::Phase => Vec::new(),
            Rule::Learned | Rule::Frozen => plan.counts,
            Rule::LearnedOrNone => {
                let n_none = (n_tokens * self.top_k) as u64 - expert_rows;
                [plan.counts, vec![n_none]].concat()
            }
        };
        let (load_balance, activity) = match (routed, pass.sweep) {
            (Some(routed), Sweep::Train { routed: all, .. }) => {
                self.terms(routed, all.unwrap_or(&counts))
            }
            // Nothing but a training asks for them.
            _ => (None, None),
        };
        Ok(Mixture {
            y,
            routing: Routing {
                counts,
                expert_rows,
                choices,
                flips: flips.unwrap_or_default(),
                load_balance,
                activity,
            },
        })
    }

    /// What the router says of `x`.
    fn routed(&self, router: &Linear, x: Tensor<2>) -> Result<Routed> {
        let [rows, _] = x.dims();
        // Rounded logits would send tokens elsewhere: the router stays in f32 (Fedus et al. 2021, section 2.4).
        let mut logits = router.forward(x, Precision::F32)?;
        let [_, width] = logits.dims();
        let mut kept = None;
        if self.rule == Rule::LearnedOrNone {
            // The balance among the experts reads them, too.
            logits = ledger::shared(logits, 2);
            kept = Some(logits.clone());
        }
        let p = softmax(logits, 1);
        let p = ledger::counted(p, Op::Softmax { rows, width });
        let k = self.top_k;
        ledger::register(Op::TopK { rows, width, k }, FlopsPass::Forward);
        // Every choice reads them, and a term of the objective.
        let p = ledger::shared(p, k + 1);
        Ok(Routed {
            probabilities: if self.rule == Rule::Frozen {
                p.detach()
            } else {
                p
            },
            logits: kept,
        })
    }

    /// The choices of every token, decided on the host.
    fn choices(&self, routed: Option<&Routed>, g: &Tensor<2>, pass: &Pass<'_>) -> Result<Choices> {
        let n_experts = self.networks.len();
        if let Some(Routed { probabilities, .. }) = routed {
            pass.show("router", probabilities);
            let [_, width] = probabilities.dims();
            let doing = "reading router probabilities";
            let probabilities = read::floats(probabilities.clone().inner(), doing)?;
            let top_k = self.top_k;
            Ok(Choices::likeliest(&probabilities, width, n_experts, top_k))
        } else {
            let [rows, _] = g.dims();
            let op = Op::PhaseRouting { rows, n_experts };
            ledger::register(op, FlopsPass::Forward);
            let g = read::floats(g.clone().inner(), "reading the resolvent")?;
            Ok(Choices::by_phase(&g, n_experts))
        }
    }

    /// What the experts make of their tokens, `[rows, d_model]`; where some choice is no expert, with a row of zeros
    /// behind the last.
    fn run(&self, x: Tensor<2>, plan: &Plan, pass: &Pass<'_>) -> Result<Tensor<2>> {
        let [_, d_model] = x.dims();
        let zeros = plan
            .has_idle
            .then(|| Tensor::zeros([1, d_model], (&x.device(), x.dtype())));
        let (n_rows, n_sent) = (plan.tokens.len(), plan.n_sent());
        let mut outputs = Vec::with_capacity(self.networks.len());
        if n_rows > 0 {
            let gathered = of_some(n_sent, n_rows, || gather_rows(x, &plan.tokens))?;
            let n_chosen = plan.padded_rows.iter().filter(|&&rows| rows > 0).count();
            let gathered = ledger::cut(gathered, n_chosen);
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
            let together = Tensor::cat(outputs, 0);
            let n_readers = plan.choices.len();
            let shared = ledger::padded(n_sent, n_rows, || ledger::shared(together, n_readers));
            outputs = vec![shared];
        }
        outputs.extend(zeros);
        Ok(Tensor::cat(outputs, 0))
    }

    /// This pass's parts of the objective's terms, the load balance and the activity of [`Routing`]; `counts` are the
    /// choices of all passes.
    fn terms(&self, routed: Routed, counts: &[u64]) -> (Option<Tensor<1>>, Option<Tensor<1>>) {
        let Routed {
            probabilities,
            logits,
        } = routed;
        let ([rows, _], n_experts) = (probabilities.dims(), self.networks.len());
        let n_all_tokens = counts.iter().sum::<u64>() as f64 / self.top_k as f64;
        let activity = (self.rule == Rule::LearnedOrNone).then(|| {
            let none = probabilities.clone().narrow(1, n_experts, 1);
            let sum = none.sum_dim(0).reshape([1]);
            let share = |n: f64| n / n_all_tokens;
            let activity = sum.mul_scalar(share(-1.0)).add_scalar(share(rows as f64));
            ledger::counted(activity, Op::LoadBalance { rows, width: 1 })
        });
        let width = n_experts;
        let among_experts = match logits {
            Some(logits) => routing(|| {
                let p = softmax(logits.narrow(1, 0, n_experts), 1);
                ledger::counted(p, Op::Softmax { rows, width })
            }),
            None => probabilities,
        };
        let sent = &counts[..n_experts];
        let n_sent = sent.iter().sum::<u64>().max(1) as f64;
        // E * f_e * P_e, with P_e a sum over the tokens here divided by the number of all tokens.
        let weight = |&n: &u64| (n_experts as f64 * n as f64 / n_sent / n_all_tokens) as f32;
        let weights: Vec<f32> = sent.iter().map(weight).collect();
        let options = (&among_experts.device(), among_experts.dtype());
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [1, n_experts]), options);
        let load_balance = (among_experts.sum_dim(0) * weights).sum_dim(1).reshape([1]);
        let load_balance = ledger::counted(load_balance, Op::LoadBalance { rows, width });
        (Some(load_balance), activity)
    }

    /// The operations of a forward pass over `n_tokens` whose experts run on `expert_rows` rows together.
    pub(super) fn forward_ops(
        shape: &ModelShape,
        n_tokens: usize,
        expert_rows: usize,
    ) -> Vec<(FlopsCategory, Op)> {
        let ModelShape {
            d_model,
            n_experts,
            expert_hidden,
            top_k: k,
            ..
        } = *shape;
        let (rows, n) = (n_tokens, expert_rows * d_model);
        let width = shape.router_choices();
        let (choice, gate) = if width == 0 {
            let phase = Op::PhaseRouting { rows, n_experts };
            (vec![phase], Op::Mask { n })
        } else {
            let top = Op::TopK { rows, width, k };
            let router = Linear::forward_ops(rows, [d_model, width], true)
                .chain([Op::Softmax { rows, width }, top]);
            (router.collect(), Op::Scale { n })
        };
        // One choice of a token at most is no expert: of several, one is added to nothing.
        let sums = Op::Add {
            n: expert_rows.saturating_sub(n_tokens) * d_model,
        };
        let rows = expert_rows;
        let relu = Op::Relu {
            n: rows * expert_hidden,
        };
        let experts = Linear::forward_ops(rows, [d_model, expert_hidden], true)
            .chain([relu])
            .chain(Linear::forward_ops(rows, [expert_hidden, d_model], true));
        let routing = choice.into_iter().chain([gate, sums]);
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

/// As [`routing`], where only `n` of `all` tokens or rows are concerned.
fn of_some<R>(n: usize, all: usize, f: impl FnOnce() -> R) -> R {
    routing(|| ledger::padded(n, all, f))
}
