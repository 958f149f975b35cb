//! The two models of a run against each other, setting by setting: the statistics protocol.

use serde::Serialize;

use super::observation::{
    Observation, beats_no_context, nll_nats, observations, rank_value, settings,
};
use super::{Outcome, RunRecord, SEEDS_FOR_A_CLAIM};
use crate::config::{Benchmark, Fairness, is_twin};
use crate::stats::{
    self, BootstrapIntervals, EffectLabel, Estimate, Interval, PairedT, SeedsNeeded, SignFlip,
    SurvivalRow, WelchT,
};

/// The ratio of perplexities that counts as no difference, and the effect for which seeds are counted: 1 %.
pub const MARGIN_RATIO: f64 = 1.01;
/// Adjusted p below which a test rejects.
pub(super) const ALPHA: f64 = 0.05;

/// What a comparison shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum ComparisonVerdict {
    /// The first model has the lower loss.
    ABetter,
    /// The second one has.
    BBetter,
    /// The perplexities differ by less than 1 %.
    Equivalent,
    /// Neither is shown. That is not "no difference".
    Inconclusive {
        /// Why.
        why: String,
    },
}

/// A geometric mean of ratios.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The mean.
    pub mean: f64,
    /// Its Student-t interval at 95 %, made on logarithms; absent for one value.
    pub interval: Option<Interval>,
}

impl Ratio {
    /// From the mean of the logarithms; `None` where a result is not finite.
    pub(super) fn of_log(log: Estimate) -> Option<Self> {
        let ratio = Self {
            mean: log.mean.exp(),
            interval: log.interval.map(Interval::exp),
        };
        let high = ratio.interval.map_or(ratio.mean, |interval| interval.high);
        high.is_finite().then_some(ratio)
    }
}

/// The mean perplexity of one model, with both intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeanPerplexity {
    /// Mean over completed seeds.
    pub mean: f64,
    /// Student's t, 95 %.
    pub t_interval: Option<Interval>,
    /// The benchmarking guide's recipe, which covers less than it says.
    pub guide_interval: Option<Interval>,
}

/// The benchmarking guide's own statistics, on perplexity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GuideStatistics {
    /// First model.
    pub a: MeanPerplexity,
    /// Second model.
    pub b: MeanPerplexity,
    /// Paired t test of the perplexities.
    pub paired_t: Option<PairedT>,
    /// Cohen's d with variances of divisor n.
    pub cohens_d: Option<f64>,
    /// What it is called.
    pub label: Option<EffectLabel>,
}

/// How long the trainings of one model lasted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survival {
    /// The model.
    pub model: String,
    /// One row a step at which a seed diverged.
    pub rows: Vec<SurvivalRow>,
}

/// The primary comparison of a setting: held-out loss of the first model minus that of the second, nats per token,
/// paired by seed. Values are over the pairs of which both completed, absent where they cannot be had.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// How learning rates were set.
    pub fairness: Fairness,
    /// The benchmark.
    pub benchmark: Benchmark,
    /// Key of the setting in the guide's JSON.
    pub setting: String,
    /// First model.
    pub a: String,
    /// Second model.
    pub b: String,
    /// What it shows.
    #[serde(flatten)]
    pub verdict: ComparisonVerdict,
    /// Models that were not shown to beat the control without context here; both where it was not trained.
    pub context_not_shown: Vec<String>,
    /// Complete pairs.
    pub n_pairs: usize,
    /// Seeds of the run of which one or both did not complete.
    pub n_missing: usize,
    /// Mean difference with its Student-t interval: the headline.
    pub difference_nats: Option<Estimate>,
    /// Perplexity of the first over that of the second.
    pub perplexity_ratio: Option<Ratio>,
    /// Paired t test.
    pub paired_t: Option<PairedT>,
    /// Its p times the number of primary comparisons of the run.
    pub p_bonferroni: Option<f64>,
    /// Its p by Holm's procedure over them: the one that decides.
    pub p_holm: Option<f64>,
    /// Bootstrap intervals of the mean difference; the seed is the run's first.
    pub bootstrap: Option<BootstrapIntervals>,
    /// Exact sign-flip test.
    pub sign_flip: Option<SignFlip>,
    /// Wilcoxon's signed-rank test; a seed that diverged or ran out of memory has the worst rank.
    pub wilcoxon_p: Option<f64>,
    /// Mann-Whitney's test, likewise, without the pairs.
    pub mann_whitney_p: Option<f64>,
    /// Welch's test, without the pairs.
    pub welch: Option<WelchT>,
    /// Correlation of the pairs: what pairing is worth.
    pub correlation: Option<f64>,
    /// Two one-sided tests that the perplexities differ by 1 % or more.
    pub equivalence_p: Option<f64>,
    /// By Holm's procedure over the run's primary comparisons.
    pub equivalence_p_holm: Option<f64>,
    /// Mean difference over the standard deviation of the differences.
    pub d_z: Option<f64>,
    /// Hedges' g.
    pub hedges_g: Option<f64>,
    /// Pairs needed to see a difference of 1 % of perplexity.
    pub seeds_needed: Option<SeedsNeeded>,
    /// Fisher's exact test of the numbers of diverged seeds among those that completed or diverged; absent for fewer than two
    /// such seeds of either model.
    pub divergence_p: Option<f64>,
    /// Steps to divergence; empty where no seed of either diverged.
    pub survival: Vec<Survival>,
    /// The benchmarking guide's recipes, beside.
    pub guide: Option<GuideStatistics>,
}

/// Compares models a and b of the run at every setting, in every way of setting learning rates, each a family of its
/// own; of a model against itself the numbers are shown, and nothing is claimed. Empty where they are [not
/// compared](why_not_compared).
pub fn comparisons(record: &RunRecord) -> Vec<Comparison> {
    let ways = record.ways();
    let ways = ways.iter().zip(&record.config.fairness);
    ways.flat_map(|(way, &fairness)| in_one_way(way, fairness))
        .collect()
}

/// Why models a and b of the run are not compared; `None` where they are.
pub fn why_not_compared(record: &RunRecord) -> Option<String> {
    let models = &record.config.models;
    let Some(b) = models.label_b() else {
        return Some(format!("{} is the only model", models.a));
    };
    let mut models = [&models.a, &b].into_iter();
    if let Some(model) = models.find(|model| !record.is_causal(model)) {
        return Some(format!("{model} sees the tokens it predicts"));
    }
    record
        .cells
        .is_empty()
        .then(|| "no cell has run yet".to_owned())
}

fn in_one_way(record: &RunRecord, fairness: Fairness) -> Vec<Comparison> {
    let models = &record.config.models;
    let (None, Some(b)) = (why_not_compared(record), models.label_b()) else {
        return Vec::new();
    };
    let models = [models.a.clone(), b];
    let observations = observations(record);
    let mut found: Vec<Comparison> = settings(&observations)
        .iter()
        .map(|(benchmark, setting)| {
            let place = (*benchmark, setting.as_str());
            compare(record, &models, fairness, place, &observations)
        })
        .collect();
    let tested = |of: fn(&Comparison) -> Option<f64>| -> (Vec<usize>, Vec<f64>) {
        let tests = found.iter().enumerate();
        tests.filter_map(|(i, c)| Some((i, of(c)?))).unzip()
    };
    let (differing, p) = tested(|comparison| comparison.paired_t.map(|test| test.p));
    let (equivalent, equivalence_p) = tested(|comparison| comparison.equivalence_p);
    for (i, p) in differing.iter().zip(stats::bonferroni(&p)) {
        found[*i].p_bonferroni = Some(p);
    }
    for (i, p) in differing.iter().zip(stats::holm(&p)) {
        found[*i].p_holm = Some(p);
    }
    for (i, p) in equivalent.iter().zip(stats::holm(&equivalence_p)) {
        found[*i].equivalence_p_holm = Some(p);
    }
    for comparison in &mut found {
        comparison.verdict = comparison.judge();
    }
    found
}

/// Why the pairs at hand support no claim, whatever their values; `None` if they may.
pub(super) fn too_little(n_pairs: usize, n_missing: usize) -> Option<String> {
    if n_missing > 0 {
        Some(format!(
            "{n_missing} of {} seeds have no value: what is left supports no claim",
            n_pairs + n_missing
        ))
    } else if (n_pairs as u64) < SEEDS_FOR_A_CLAIM {
        Some(format!(
            "{n_pairs} seed(s), and a claim needs {SEEDS_FOR_A_CLAIM}"
        ))
    } else {
        None
    }
}

impl Comparison {
    fn judge(&self) -> ComparisonVerdict {
        let inconclusive = |why: String| ComparisonVerdict::Inconclusive { why };
        if is_twin(&self.b) {
            return inconclusive("a model against itself: any difference is chance".into());
        }
        if let Some(why) = too_little(self.n_pairs, self.n_missing) {
            return inconclusive(why);
        }
        let (Some(test), Some(p)) = (self.paired_t, self.p_holm) else {
            return inconclusive("the differences do not vary over the seeds".into());
        };
        if self.equivalence_p_holm.is_some_and(|p| p < ALPHA) {
            return ComparisonVerdict::Equivalent;
        }
        if p >= ALPHA {
            return inconclusive("neither a difference nor equivalence is shown".into());
        }
        if test.mean_difference < 0.0 {
            ComparisonVerdict::ABetter
        } else {
            ComparisonVerdict::BBetter
        }
    }
}

fn compare(
    record: &RunRecord,
    models: &[String; 2],
    fairness: Fairness,
    (benchmark, setting): (Benchmark, &str),
    observations: &[Observation<'_>],
) -> Comparison {
    let [of_a, of_b] = models.each_ref().map(|model| -> Vec<&Observation<'_>> {
        let of_model = |o: &&Observation<'_>| o.is_at(benchmark, setting) && o.cell.model == *model;
        observations.iter().filter(of_model).collect()
    });
    let paired = |value: fn(&Observation<'_>) -> Option<f64>| -> (Vec<f64>, Vec<f64>) {
        let of =
            |group: &[&Observation<'_>], seed| value(group.iter().find(|o| o.cell.seed == seed)?);
        let seeds = record.config.seeds.iter();
        seeds
            .filter_map(|seed| Some((of(&of_a, seed)?, of(&of_b, seed)?)))
            .unzip()
    };
    let all = |group: &[&Observation<'_>], value: fn(&Observation<'_>) -> Option<f64>| {
        group.iter().filter_map(|o| value(o)).collect::<Vec<f64>>()
    };
    let (a, b) = paired(nll_nats);
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let (ranked_a, ranked_b) = paired(rank_value);
    let (unpaired_a, unpaired_b) = (all(&of_a, nll_nats), all(&of_b, nll_nats));
    let margin = MARGIN_RATIO.ln();
    let difference_nats = Estimate::of(&differences);
    // Of the trainings that told: one that never began, or was stopped, might have diverged.
    let n_diverged = |group: &[&Observation<'_>]| {
        let count = |is_it: fn(&Outcome) -> bool| {
            let found = group.iter().filter(|o| is_it(&o.cell.outcome));
            found.count() as u64
        };
        let diverged = count(|outcome| matches!(outcome, Outcome::Diverged { .. }));
        (diverged, diverged + count(|it| *it == Outcome::Completed))
    };
    let (diverged_a, diverged_b) = (n_diverged(&of_a), n_diverged(&of_b));
    let marked = |group: &[&Observation<'_>]| {
        let cell = group.first()?.cell;
        (beats_no_context(record, cell) != Some(true)).then(|| cell.model.clone())
    };
    Comparison {
        fairness,
        benchmark,
        setting: setting.to_owned(),
        a: models[0].clone(),
        b: models[1].clone(),
        verdict: ComparisonVerdict::Inconclusive { why: String::new() },
        context_not_shown: [&of_a, &of_b]
            .into_iter()
            .filter_map(|g| marked(g))
            .collect(),
        n_pairs: differences.len(),
        n_missing: record.config.seeds.count as usize - differences.len(),
        difference_nats,
        perplexity_ratio: difference_nats.and_then(Ratio::of_log),
        paired_t: stats::paired_t(&a, &b),
        p_bonferroni: None,
        p_holm: None,
        bootstrap: stats::bootstrap_mean(&differences, record.config.seeds.first),
        sign_flip: stats::sign_flip(&differences),
        wilcoxon_p: stats::wilcoxon_p(&ranked_a, &ranked_b),
        mann_whitney_p: stats::mann_whitney_p(&all(&of_a, rank_value), &all(&of_b, rank_value)),
        welch: stats::welch_t(&unpaired_a, &unpaired_b),
        correlation: stats::correlation(&a, &b),
        equivalence_p: stats::equivalence_p(&differences, margin),
        equivalence_p_holm: None,
        d_z: stats::cohens_d_z(&differences),
        hedges_g: stats::hedges_g(&unpaired_a, &unpaired_b),
        seeds_needed: stats::seeds_needed(&differences, margin),
        divergence_p: stats::fisher_p(diverged_a, diverged_b)
            .filter(|_| diverged_a.1.min(diverged_b.1) > 1),
        survival: survival(&[&of_a, &of_b]),
        guide: guide(&a, &b),
    }
}

/// The guide's recipes on the perplexities of the pairs; `None` without pairs or where one overflows.
fn guide(a: &[f64], b: &[f64]) -> Option<GuideStatistics> {
    let perplexities = |nll: &[f64]| nll.iter().map(|nll| nll.exp()).collect::<Vec<f64>>();
    let (a, b) = (perplexities(a), perplexities(b));
    let mean = |values: &[f64]| {
        let estimate = Estimate::of(values)?;
        Some(MeanPerplexity {
            mean: estimate.mean,
            t_interval: estimate.interval,
            guide_interval: stats::guide_interval(values),
        })
    };
    let cohens_d = stats::guide_cohens_d(&a, &b);
    Some(GuideStatistics {
        a: mean(&a)?,
        b: mean(&b)?,
        paired_t: stats::paired_t(&a, &b),
        cohens_d,
        label: cohens_d.map(EffectLabel::of),
    })
}

/// Steps to divergence of both models, if any seed diverged. Cells that never began are left out.
fn survival(groups: &[&Vec<&Observation<'_>>]) -> Vec<Survival> {
    let lasted = |o: &&Observation<'_>| match o.cell.outcome {
        Outcome::Diverged { step, .. } => Some((step, true)),
        Outcome::Completed => Some((o.cell.n_steps, false)),
        _ => {
            let steps = o.cell.metrics.as_ref()?.curves.loss_nats.len();
            Some((steps as u64, false))
        }
    };
    let of_group = |group: &&Vec<&Observation<'_>>| {
        let runs: Vec<(u64, bool)> = group.iter().filter_map(lasted).collect();
        Some(Survival {
            model: group.first()?.cell.model.clone(),
            rows: stats::survival(&runs),
        })
    };
    let tables: Vec<Survival> = groups.iter().filter_map(of_group).collect();
    if tables.iter().all(|table| table.rows.is_empty()) {
        return Vec::new();
    }
    tables
}
