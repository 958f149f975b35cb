//! Loss against FLOPs: what each model makes of a budget, and how many FLOPs the second takes for the first one's loss.

use serde::{Deserialize, Serialize};

use super::{Cell, Finite, FlopsPerToken, Outcome, RunRecord, why_not_compared};
use crate::config::BudgetUnit;
use crate::stats::{Estimate, Interval, bootstrap};

/// A budget and the shape that was solved for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtBudget {
    /// The budget, in `efficiency.budget_unit`.
    pub budget: Finite,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Hidden width of an expert or feed-forward layer; 0 where the model has none.
    pub expert_hidden: usize,
    /// FLOPs of a forward pass a token, head and cross-entropy included.
    pub forward_flops_per_token: Finite,
    /// The same up to the final norm.
    pub forward_flops_per_token_without_head: Finite,
    /// FLOPs of the forward and backward passes of the whole training.
    pub training_flops_total: Finite,
}

impl AtBudget {
    /// Key in the guide's JSON: `flops_1e9`.
    pub fn setting(&self) -> String {
        format!("flops_{:e}", self.budget.get())
    }

    /// What it uses, in `unit`.
    pub fn used(&self, unit: BudgetUnit) -> f64 {
        match unit {
            BudgetUnit::ForwardFlopsPerToken => self.forward_flops_per_token.get(),
            BudgetUnit::TrainingFlopsTotal => self.training_flops_total.get(),
        }
    }
}

/// One model under one budget, over all seeds. Estimates are over completed seeds; absent where none completed or one of
/// them lacks the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficiencyPoint {
    /// Registered name of the model.
    pub model: String,
    /// The budget and the shape.
    pub at: AtBudget,
    /// FLOPs of a forward pass over the held-out text; absent for a model whose cost does not depend on the tokens: it
    /// takes what [`EfficiencyPoint::at`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<FlopsPerToken>,
    /// Seeds that completed.
    pub n_seeds: usize,
    /// Held-out loss, nats per token.
    pub nll_nats: Option<Estimate>,
    /// Held-out perplexity per token.
    pub token_perplexity: Option<Estimate>,
    /// Held-out bits per byte.
    pub bits_per_byte: Option<Estimate>,
    /// Whether no other point of the same model has as low a mean loss with fewer FLOPs.
    pub on_front: bool,
    /// Training FLOPs until the training loss, smoothed over 32 steps, first fell to `target_nats`.
    pub training_flops_to_target: Option<Estimate>,
    /// The worst last smoothed training loss under this budget among the completed cells of all models: what all of
    /// them reached. A loss of training, comparable at equal data only.
    pub target_nats: Option<Finite>,
}

impl EfficiencyPoint {
    /// FLOPs of a forward pass a token, measured where they depend on it.
    pub fn forward_flops_per_token(&self) -> FlopsPerToken {
        self.measured.unwrap_or(FlopsPerToken {
            with_head: self.at.forward_flops_per_token,
            without_head: self.at.forward_flops_per_token_without_head,
        })
    }

    /// What it uses, in `unit`. Training FLOPs that depend on the tokens are the most there can be.
    pub fn used(&self, unit: BudgetUnit) -> f64 {
        match unit {
            BudgetUnit::ForwardFlopsPerToken => self.forward_flops_per_token().with_head.get(),
            BudgetUnit::TrainingFlopsTotal => self.at.used(unit),
        }
    }
}

/// FLOPs of the second model over those of the first at equal held-out loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficiencyRatio {
    /// The first model.
    pub model_a: String,
    /// The second.
    pub model_b: String,
    /// Geometric mean of `FLOPs_b / FLOPs_a` over the losses that both fronts reach, logarithms of FLOPs
    /// interpolated in the loss, which is the logarithm of the perplexity. Above 1, `model_a` takes fewer.
    pub ratio: Finite,
    /// Perplexities between which both fronts lie.
    pub perplexity: [Finite; 2],
    /// 95 % interval between the quantiles of a bootstrap over seeds, both models' runs of a seed kept together; absent
    /// for one seed, and where the fronts of a resample do not overlap.
    pub interval: Option<Interval>,
    /// Seeds that completed every budget with both models.
    pub n_seeds: usize,
}

const NOTHING_IN_COMMON: &str = "the models' fronts have no perplexity in common";
/// Steps over which a training loss is averaged before it is held against the target.
const SMOOTHING_STEPS: usize = 32;

/// Points in the order of the cells, of models that are causal; empty where no cell has a budget.
pub(super) fn points(record: &RunRecord) -> Vec<EfficiencyPoint> {
    let unit = record.config.efficiency.budget_unit;
    let is_causal = |cell: &&Cell| record.is_causal(&cell.model);
    let cells: Vec<&Cell> = record.cells.iter().filter(is_causal).collect();
    let mut points: Vec<EfficiencyPoint> = Vec::new();
    for cell in &cells {
        let Some(at) = cell.at_budget else { continue };
        let known =
            |point: &EfficiencyPoint| point.model == cell.model && point.at.budget == at.budget;
        if !points.iter().any(known) {
            points.push(point(&cells, &cell.model, at));
        }
    }
    let place = |point: &EfficiencyPoint| Some((point.used(unit), point.nll_nats?.mean));
    let on_front = |point: &EfficiencyPoint| {
        let of_model = points.iter().filter(|other| other.model == point.model);
        let places: Vec<(f64, f64)> = of_model.filter_map(place).collect();
        place(point).is_some_and(|place| front(&places).contains(&place))
    };
    let fronts: Vec<bool> = points.iter().map(on_front).collect();
    for (point, on_front) in points.iter_mut().zip(fronts) {
        point.on_front = on_front;
    }
    points
}

fn point(cells: &[&Cell], model: &str, at: AtBudget) -> EfficiencyPoint {
    let under = |cell: &Cell| {
        let budget = cell.at_budget.map(|other| other.budget);
        cell.outcome == Outcome::Completed && budget == Some(at.budget)
    };
    let completed: Vec<&Cell> = cells.iter().copied().filter(|cell| under(cell)).collect();
    let last = |cell: &&Cell| smoothed(cell)?.last().copied();
    let target = completed.iter().filter_map(last).reduce(f64::max);
    let of_model: Vec<&Cell> = completed
        .into_iter()
        .filter(|cell| cell.model == model)
        .collect();
    let over_seeds = |value: &dyn Fn(&Cell) -> Option<f64>| {
        let values: Option<Vec<f64>> = of_model.iter().map(|cell| value(cell)).collect();
        Estimate::of(&values?)
    };
    EfficiencyPoint {
        model: model.to_owned(),
        at,
        measured: FlopsPerToken::mean(of_model.iter().filter_map(|cell| measured(cell))),
        n_seeds: of_model.len(),
        nll_nats: over_seeds(&nll),
        token_perplexity: over_seeds(&|cell| Some(cell.evaluation()?.token_perplexity?.get())),
        bits_per_byte: over_seeds(&|cell| Some(cell.evaluation()?.bits_per_byte.get())),
        on_front: false,
        training_flops_to_target: over_seeds(&|cell| flops_to(cell, target?)),
        target_nats: target.and_then(Finite::new),
    }
}

/// FLOPs of the forward pass over the held-out text, where they depend on it.
fn measured(cell: &Cell) -> Option<FlopsPerToken> {
    cell.metrics.as_ref()?.forward_flops_per_token
}

/// Held-out loss, nats per token.
fn nll(cell: &Cell) -> Option<f64> {
    Some(cell.evaluation()?.nll_nats.get())
}

/// Means of the training loss over the last [`SMOOTHING_STEPS`] steps, from the first step that has as many before it, or
/// over all steps where there are fewer.
fn smoothed(cell: &Cell) -> Option<Vec<f64>> {
    let steps = cell.metrics.as_ref()?.curves.steps();
    let losses: Vec<f64> = steps.map(|(loss, _)| loss).collect();
    let window = SMOOTHING_STEPS.min(losses.len()).max(1);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    Some(losses.windows(window).map(mean).collect())
}

/// Training FLOPs at the first step after which the smoothed training loss is at most `target`.
fn flops_to(cell: &Cell, target: f64) -> Option<f64> {
    let smoothed = smoothed(cell)?;
    let reached = smoothed.iter().position(|&loss| loss <= target)?;
    let n_steps = cell.n_steps as usize - smoothed.len() + reached + 1;
    let a_step = cell.at_budget?.training_flops_total.get() / cell.n_steps as f64;
    Some(n_steps as f64 * a_step)
}

/// FLOPs of the second model over the first one's, or why there is no such ratio.
pub(super) fn ratio(record: &RunRecord) -> Result<EfficiencyRatio, String> {
    if let Some(why) = why_not_compared(record) {
        return Err(why);
    }
    let config = &record.config;
    let a = &config.models.a;
    let b = config.models.label_b().unwrap_or_default();
    let budgets = &config.efficiency.flops_budgets;
    let of_seed = |seed| -> Result<[Curve; 2], String> {
        Ok([
            curve(record, a, budgets, seed)?,
            curve(record, &b, budgets, seed)?,
        ])
    };
    let found: Vec<Result<[Curve; 2], String>> = config.seeds.iter().map(of_seed).collect();
    let why = found.iter().find_map(|it| it.as_ref().err().cloned());
    let pairs: Vec<[Curve; 2]> = found.into_iter().flatten().collect();
    if pairs.is_empty() {
        return Err(why.unwrap_or_default());
    }
    let at = |chosen: &[usize]| {
        let mean = |model: usize| mean_curve(chosen.iter().map(|&i| pairs[i][model].as_slice()));
        log_ratio(&front(&mean(0)), &front(&mean(1)))
    };
    let all: Vec<usize> = (0..pairs.len()).collect();
    let overlap = at(&all).ok_or(NOTHING_IN_COMMON)?;
    let interval = bootstrap(pairs.len(), config.seeds.first, |chosen| {
        at(chosen).map(|found| found.log_ratio)
    });
    let exp = |log: f64| Finite::new(log.exp()).ok_or("it is not finite");
    Ok(EfficiencyRatio {
        model_a: a.clone(),
        model_b: b,
        ratio: exp(overlap.log_ratio)?,
        perplexity: [exp(overlap.low)?, exp(overlap.high)?],
        interval: interval.map(Interval::exp),
        n_seeds: pairs.len(),
    })
}

/// Why a record with budgets has no ratio of FLOPs; `None` where it has one.
pub fn why_no_efficiency_ratio(record: &RunRecord) -> Option<String> {
    ratio(record).err()
}

/// Logarithm of the FLOPs of `against` over those of `model` at equal held-out loss, by the fronts of one seed under
/// `budgets`, or why there is none.
pub(super) fn log_ratio_of_seed(
    record: &RunRecord,
    [model, against]: [&str; 2],
    budgets: &[f64],
    seed: u64,
) -> Result<f64, String> {
    let front = |model| Ok::<_, String>(front(&curve(record, model, budgets, seed)?));
    let overlap = log_ratio(&front(model)?, &front(against)?);
    Ok(overlap.ok_or(NOTHING_IN_COMMON)?.log_ratio)
}

/// (ln FLOPs, nats), budget by budget.
type Curve = Vec<(f64, f64)>;

/// The curve of one seed, or why it has not completed all of them. A budget that is out of reach
/// for one seed is left out for all: curves of a model have the same FLOPs.
fn curve(record: &RunRecord, model: &str, budgets: &[f64], seed: u64) -> Result<Curve, String> {
    let unit = record.config.efficiency.budget_unit;
    let within_reach = |budget: f64| {
        let mut cells = cells_under(record, model, budget);
        cells.all(|cell| !matches!(cell.outcome, Outcome::Skipped { .. }))
    };
    let point = |&budget: &f64| {
        let here = |what: &str| format!("{model} under {budget:e} FLOPs, seed {seed}: {what}");
        let cell = cells_under(record, model, budget).find(|cell| cell.seed == seed);
        let cell = cell.ok_or_else(|| here("has not run"))?;
        let at = cell.at_budget.ok_or_else(|| here("has not run"))?;
        let loss = nll(cell).ok_or_else(|| match &cell.outcome {
            Outcome::Completed => here("no finite loss"),
            outcome => here(&outcome.name().replace('_', " ")),
        })?;
        let used = match (unit, measured(cell)) {
            (BudgetUnit::ForwardFlopsPerToken, Some(flops)) => flops.with_head.get(),
            _ => at.used(unit),
        };
        Ok((used.ln(), loss))
    };
    let budgets = budgets.iter().filter(|&&budget| within_reach(budget));
    let points: Curve = budgets.map(point).collect::<Result<_, String>>()?;
    if points.is_empty() {
        return Err(format!("no budget is within reach of {model}"));
    }
    Ok(points)
}

/// The cells of a model under a budget.
fn cells_under<'a>(
    record: &'a RunRecord,
    model: &'a str,
    budget: f64,
) -> impl Iterator<Item = &'a Cell> {
    let budget = Finite::new(budget);
    let of_model = record.cells.iter().filter(move |cell| cell.model == model);
    of_model.filter(move |cell| cell.at_budget.map(|at| at.budget) == budget)
}

/// Curves averaged point by point.
fn mean_curve<'a>(curves: impl Iterator<Item = &'a [(f64, f64)]>) -> Vec<(f64, f64)> {
    let mut sum: Vec<(f64, f64)> = Vec::new();
    let mut n = 0.0;
    for curve in curves {
        n += 1.0;
        if sum.is_empty() {
            sum = curve.to_vec();
        } else {
            for (total, point) in sum.iter_mut().zip(curve) {
                total.0 += point.0;
                total.1 += point.1;
            }
        }
    }
    sum.into_iter()
        .map(|(flops, loss)| (flops / n, loss / n))
        .collect()
}

/// The points of a curve that take fewer FLOPs than all with as low a loss, in ascending order of FLOPs: their losses fall.
fn front(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut curve = curve.to_vec();
    curve.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for point in curve {
        if front.last().is_none_or(|last| point.1 < last.1) {
            front.push(point);
        }
    }
    front
}

struct Overlap {
    /// Mean over the losses that both reach of the difference of the logarithms of FLOPs, second less first.
    log_ratio: f64,
    /// Ends of those losses.
    low: f64,
    high: f64,
}

fn log_ratio(a: &[(f64, f64)], b: &[(f64, f64)]) -> Option<Overlap> {
    let ends = |front: &[(f64, f64)]| Some((front.last()?.1, front.first()?.1));
    let ((low_a, high_a), (low_b, high_b)) = (ends(a)?, ends(b)?);
    let (low, high) = (low_a.max(low_b), high_a.min(high_b));
    if low > high {
        return None;
    }
    let difference = |loss: f64| Some(at_loss(b, loss)? - at_loss(a, loss)?);
    // Between two neighbouring bends of either curve the difference is a straight line, so that trapezia are exact.
    let mut bends: Vec<f64> = a.iter().chain(b).map(|point| point.1).collect();
    bends.extend([low, high]);
    bends.retain(|bend| (low..=high).contains(bend));
    bends.sort_by(f64::total_cmp);
    let mut area = 0.0;
    for ends in bends.windows(2) {
        area += (ends[1] - ends[0]) * f64::midpoint(difference(ends[0])?, difference(ends[1])?);
    }
    let log_ratio = if high > low {
        area / (high - low)
    } else {
        difference(low)?
    };
    Some(Overlap {
        log_ratio,
        low,
        high,
    })
}

/// Logarithm of the FLOPs at which a front comes down to `loss`.
fn at_loss(front: &[(f64, f64)], loss: f64) -> Option<f64> {
    if let Some(point) = front.iter().find(|point| point.1.total_cmp(&loss).is_eq()) {
        return Some(point.0);
    }
    front
        .windows(2)
        .find(|ends| (ends[1].1..=ends[0].1).contains(&loss))
        .map(|ends| {
            let part = (ends[0].1 - loss) / (ends[0].1 - ends[1].1);
            ends[0].0 + part * (ends[1].0 - ends[0].0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_exact_for_curves_that_are_a_factor_apart() {
        let a = [(1.0, 4.0), (2.0, 3.0), (3.5, 1.0)];
        let b: Vec<(f64, f64)> = a.iter().map(|&(f, l)| (f + 2_f64.ln(), l)).collect();
        let found = log_ratio(&front(&a), &front(&b)).unwrap();
        assert!((found.log_ratio.exp() - 2.0).abs() < 1e-12);
        assert_eq!((found.low, found.high), (1.0, 4.0));
        // Swapped, it is the reciprocal.
        let swapped = log_ratio(&front(&b), &front(&a)).unwrap();
        assert!((swapped.log_ratio.exp() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_ratio_is_the_mean_over_the_losses_that_both_reach() {
        // From 3 to 2: the difference goes from 1 to 2 on a straight line.
        let a = [(0.0, 4.0), (2.0, 2.0)];
        let b = [(2.0, 3.0), (4.0, 2.0), (5.0, 1.0)];
        let found = log_ratio(&a, &b).unwrap();
        assert!((found.log_ratio - 1.5).abs() < 1e-12);
        assert_eq!((found.low, found.high), (2.0, 3.0));
        assert!(
            log_ratio(&a, &[(0.0, 1.5), (1.0, 1.0)]).is_none(),
            "nothing in common"
        );
        assert!(log_ratio(&[], &b).is_none());
        let touching = log_ratio(&a, &[(3.0, 2.0), (4.0, 1.0)]).unwrap();
        assert!((touching.log_ratio - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_front_leaves_out_what_costs_more_and_gains_nothing() {
        let curve = [(1.0, 3.0), (2.0, 3.0), (3.0, 3.5), (4.0, 2.0), (4.0, 2.5)];
        assert_eq!(front(&curve), [(1.0, 3.0), (4.0, 2.0)]);
    }

    #[test]
    fn curves_are_averaged_point_by_point() {
        let curves = [vec![(1.0, 2.0), (2.0, 1.0)], vec![(1.0, 4.0), (2.0, 2.0)]];
        let mean = mean_curve(curves.iter().map(Vec::as_slice));
        assert_eq!(mean, [(1.0, 3.0), (2.0, 1.5)]);
    }
}
