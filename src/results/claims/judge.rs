//! The verdict on a claim, from the records of runs.

use serde::Serialize;

use super::{Claim, Hypothesis, Metric};
use crate::config::Fairness;
use crate::results::comparison::{ALPHA, too_little};
use crate::results::efficiency::log_ratio_of_seed;
use crate::results::observation::{Observation, beats_no_context, nll_nats, observations};
use crate::results::{Finite, NO_CONTEXT, Outcome, Ratio, RunRecord, STEPS_FOR_A_CLAIM};
use crate::stats::{self, Estimate, Interval, PairedT};

/// What a run says about a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// It holds at every setting.
    Supported,
    /// It fails at one setting or more.
    Contradicted,
    /// Neither is shown.
    Inconclusive {
        /// Why.
        why: String,
    },
    /// The run cannot tell.
    NotTestable {
        /// Why.
        why: String,
    },
}

/// How the trainings at a setting ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutcomeCounts {
    /// Seeds that were tried.
    pub n_seeds: u64,
    /// Those that completed.
    pub completed: u64,
    /// Those that diverged.
    pub diverged: u64,
    /// Exact 95 % interval of the probability to complete.
    pub completion: Option<Interval>,
}

/// The test of a ratio against a claim's margin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RatioTest {
    /// Seeds, or pairs of them, with a value.
    pub n: usize,
    /// Seeds without.
    pub n_missing: usize,
    /// Geometric mean over the seeds.
    pub ratio: Option<Ratio>,
    /// Two-sided t test of the logarithm of the ratio less that of the margin.
    pub t_test: Option<PairedT>,
    /// Its p by Holm's procedure over all ratios that the claims test in this run: the one that decides.
    pub p_holm: Option<f64>,
}

/// What one setting says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingJudgement {
    /// How learning rates were set.
    pub fairness: Fairness,
    /// Key of the setting.
    pub setting: String,
    /// The verdict there.
    #[serde(flatten)]
    pub verdict: ClaimVerdict,
    /// For claims about outcomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<OutcomeCounts>,
    /// For claims about ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_test: Option<RatioTest>,
}

/// A claim, a run, and the verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The claim.
    pub claim: Claim,
    /// Name of the run; absent where none of its benchmark was given.
    pub run: Option<String>,
    /// Over all settings.
    #[serde(flatten)]
    pub verdict: ClaimVerdict,
    /// Setting by setting, in every way of setting learning rates.
    pub settings: Vec<SettingJudgement>,
}

/// Judges every claim by every run of its benchmark, given with their names; in the order of the claims. A claim
/// without a run has one entry that says so.
pub fn judge(claims: &[Claim], runs: &[(String, RunRecord)]) -> Vec<Judgement> {
    let mut judged: Vec<(usize, Judgement)> = Vec::new();
    for (name, record) in runs {
        let is_of_run = |claim: &Claim| {
            let mut benchmarks = record.config.benchmarks.iter();
            benchmarks.any(|benchmark| benchmark.name() == claim.benchmark)
        };
        let of_run: Vec<(usize, &Claim)> = claims
            .iter()
            .enumerate()
            .filter(|(_, claim)| is_of_run(claim))
            .collect();
        let ways = record.ways();
        let ways = ways.iter().zip(&record.config.fairness);
        let ways: Vec<(Fairness, Vec<Vec<SettingJudgement>>)> = ways
            .map(|(way, &fairness)| (fairness, judge_way(&of_run, way, fairness)))
            .collect();
        for (k, (i, claim)) in of_run.iter().enumerate() {
            let in_ways: Vec<(Fairness, &[SettingJudgement])> = ways
                .iter()
                .map(|(fairness, claims)| (*fairness, claims[k].as_slice()))
                .collect();
            let judgement = Judgement {
                claim: (*claim).clone(),
                run: Some(name.to_owned()),
                verdict: agreed(&in_ways),
                settings: in_ways.iter().flat_map(|(_, it)| it.to_vec()).collect(),
            };
            judged.push((*i, judgement));
        }
    }
    for (i, claim) in claims.iter().enumerate() {
        if !judged.iter().any(|(of, _)| *of == i) {
            let why = format!("no run of the {} benchmark was given", claim.benchmark);
            let judgement = Judgement {
                claim: claim.clone(),
                run: None,
                verdict: ClaimVerdict::NotTestable { why },
                settings: Vec::new(),
            };
            judged.push((i, judgement));
        }
    }
    judged.sort_by_key(|(i, _)| *i);
    judged.into_iter().map(|(_, judgement)| judgement).collect()
}

/// The claims of one run with learning rates set in one way, each setting by setting: first all tests, then their family,
/// then the verdicts.
fn judge_way(
    claims: &[(usize, &Claim)],
    record: &RunRecord,
    fairness: Fairness,
) -> Vec<Vec<SettingJudgement>> {
    let observations = observations(record);
    let evidence = |claim: &Claim| -> Vec<Evidence> {
        let setting = |setting: &String| Evidence::gather(claim, setting, record, &observations);
        let settings = claim.settings.iter().map(setting);
        match (claim.metric, &claim.against) {
            (Metric::EfficiencyRatio, Some(against)) => {
                Vec::from_iter(Evidence::of_fronts(claim, against, settings, record))
            }
            _ => settings.collect(),
        }
    };
    let mut found: Vec<Vec<Evidence>> = claims.iter().map(|(_, claim)| evidence(claim)).collect();
    let mut tests: Vec<&mut RatioTest> = found
        .iter_mut()
        .flatten()
        .filter_map(|evidence| evidence.ratio_test.as_mut())
        .filter(|test| test.t_test.is_some())
        .collect();
    let p: Vec<f64> = tests
        .iter()
        .filter_map(|test| Some(test.t_test?.p))
        .collect();
    for (test, p) in tests.iter_mut().zip(stats::holm(&p)) {
        test.p_holm = Some(p);
    }
    let judged = |((_, claim), evidence): (&(usize, &Claim), Vec<Evidence>)| {
        let evidence = evidence.into_iter();
        evidence.map(|it| it.judge(claim, fairness)).collect()
    };
    claims.iter().zip(found).map(judged).collect()
}

/// A claim is decided where both ways of setting learning rates decide it alike.
fn agreed(ways: &[(Fairness, &[SettingJudgement])]) -> ClaimVerdict {
    let verdicts: Vec<(Fairness, ClaimVerdict)> = ways
        .iter()
        .map(|(fairness, settings)| (*fairness, overall(settings)))
        .collect();
    let not_testable = |(_, verdict): &&(Fairness, ClaimVerdict)| {
        matches!(verdict, ClaimVerdict::NotTestable { .. })
    };
    if let Some((_, verdict)) = verdicts.iter().find(not_testable) {
        return verdict.clone();
    }
    match &verdicts[..] {
        [(_, one), (_, other)] if one == other => one.clone(),
        [_, _, ..] => {
            let in_words = |(fairness, verdict): &(Fairness, ClaimVerdict)| {
                let words = match verdict {
                    ClaimVerdict::Supported => "supported",
                    ClaimVerdict::Contradicted => "contradicted",
                    ClaimVerdict::Inconclusive { why } | ClaimVerdict::NotTestable { why } => why,
                };
                format!("with {}: {words}", fairness.title())
            };
            let why: Vec<String> = verdicts.iter().map(in_words).collect();
            ClaimVerdict::Inconclusive {
                why: why.join("; "),
            }
        }
        _ => {
            let ways: Vec<&str> = ways.iter().map(|(fairness, _)| fairness.title()).collect();
            let why = format!(
                "one_mode: {} alone, and a claim needs both (--fairness identical equal_tuning)",
                ways.join("")
            );
            ClaimVerdict::NotTestable { why }
        }
    }
}

/// One setting that fails contradicts; beyond that the weakest setting decides.
fn overall(settings: &[SettingJudgement]) -> ClaimVerdict {
    let reasons = |pick: fn(&ClaimVerdict) -> Option<&String>| {
        let mut by_reason: Vec<(&String, Vec<&str>)> = Vec::new();
        for setting in settings {
            let Some(why) = pick(&setting.verdict) else {
                continue;
            };
            match by_reason.iter_mut().find(|(known, _)| *known == why) {
                Some((_, at)) => at.push(&setting.setting),
                None => by_reason.push((why, vec![&setting.setting])),
            }
        }
        let reasons: Vec<String> = by_reason
            .iter()
            .map(|(why, at)| format!("{}: {why}", at.join(", ")))
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    };
    let not_testable = reasons(|verdict| match verdict {
        ClaimVerdict::NotTestable { why } => Some(why),
        _ => None,
    });
    let inconclusive = reasons(|verdict| match verdict {
        ClaimVerdict::Inconclusive { why } => Some(why),
        _ => None,
    });
    if settings
        .iter()
        .any(|s| s.verdict == ClaimVerdict::Contradicted)
    {
        ClaimVerdict::Contradicted
    } else if let Some(why) = not_testable {
        ClaimVerdict::NotTestable { why }
    } else if let Some(why) = inconclusive {
        ClaimVerdict::Inconclusive { why }
    } else {
        ClaimVerdict::Supported
    }
}

/// What a record holds about a claim at a setting.
#[derive(Debug)]
struct Evidence {
    setting: String,
    /// Why it cannot be judged.
    obstacle: Option<String>,
    /// Why a model of the claim is not shown to use context.
    context_not_shown: Option<String>,
    /// Steps that the trainings were to take.
    n_steps: u64,
    /// Seeds of the run.
    n_planned: u64,
    outcomes: Option<OutcomeCounts>,
    ratio_test: Option<RatioTest>,
}

impl Evidence {
    fn gather(
        claim: &Claim,
        setting: &str,
        record: &RunRecord,
        observations: &[Observation<'_>],
    ) -> Self {
        let mut evidence = Self {
            setting: setting.to_owned(),
            obstacle: None,
            context_not_shown: None,
            n_steps: 0,
            n_planned: record.config.seeds.count,
            outcomes: None,
            ratio_test: None,
        };
        let models = &record.config.models;
        if models.is_twin_run() || claim.against.as_ref() == Some(&claim.model) {
            evidence.obstacle = Some("a model against itself".into());
            return evidence;
        }
        let models: Vec<&String> = [Some(&claim.model), claim.against.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        let mut groups: Vec<Vec<&Observation<'_>>> = Vec::new();
        for model in models {
            let at = |o: &&Observation<'_>| {
                let is_at = o.cell.benchmark.name() == claim.benchmark && o.setting == setting;
                is_at && o.cell.model == *model
            };
            let group: Vec<&Observation<'_>> = observations.iter().filter(at).collect();
            let Some(first) = group.first() else {
                evidence.obstacle = Some(format!("no cells of {model} in this run"));
                return evidence;
            };
            if !record.is_causal(model) {
                let why = format!("{model} sees the tokens it predicts");
                evidence.obstacle = Some(why);
                return evidence;
            }
            evidence.n_steps = first.cell.n_steps;
            if beats_no_context(record, first.cell) != Some(true) {
                let has_control = record.has_control();
                let why = || no_context(model, has_control);
                evidence.context_not_shown.get_or_insert_with(why);
            }
            groups.push(group);
        }
        match claim.margin {
            None => evidence.outcomes = groups.first().map(|group| OutcomeCounts::of(group)),
            Some(margin) => {
                let at_fp32: Vec<&Observation<'_>> = observations
                    .iter()
                    .filter(|o| o.setting == "fp32")
                    .collect();
                let log = |group: &[&Observation<'_>], seed| {
                    log_metric(claim.metric, group, &at_fp32, seed)
                };
                let of_seed = |seed: u64| -> Option<f64> {
                    let logs = groups.iter().map(|group| log(group, seed));
                    let logs: Vec<f64> = logs.collect::<Option<_>>()?;
                    Some(logs[0] - logs.get(1).unwrap_or(&0.0))
                };
                let logs: Vec<f64> = record.config.seeds.iter().filter_map(of_seed).collect();
                let n_missing = record.config.seeds.count as usize - logs.len();
                evidence.ratio_test = Some(RatioTest::new(&logs, n_missing, margin));
            }
        }
        evidence
    }

    /// What all `settings` together hold: one ratio, of the fronts of both models under all budgets. What stands
    /// against one of them stands against it.
    fn of_fronts(
        claim: &Claim,
        against: &str,
        settings: impl Iterator<Item = Self>,
        record: &RunRecord,
    ) -> Option<Self> {
        let mut evidence = settings.reduce(|first, other| Self {
            obstacle: first.obstacle.or(other.obstacle),
            context_not_shown: first.context_not_shown.or(other.context_not_shown),
            ..first
        })?;
        evidence.setting = claim.settings.join(", ");
        evidence.ratio_test = None;
        if let (None, Some(margin)) = (&evidence.obstacle, claim.margin) {
            let budgets = record.config.efficiency.flops_budgets.iter().copied();
            let is_claimed = |budget: &f64| claim.settings.contains(&format!("flops_{budget:e}"));
            let budgets: Vec<f64> = budgets.filter(is_claimed).collect();
            let of_seed = |seed| log_ratio_of_seed(record, [&claim.model, against], &budgets, seed);
            let found: Vec<Result<f64, String>> = record.config.seeds.iter().map(of_seed).collect();
            let logs: Vec<f64> = found.iter().flatten().copied().collect();
            let n_missing = record.config.seeds.count as usize - logs.len();
            if let (true, Some(Err(why))) = (logs.is_empty(), found.first()) {
                evidence.obstacle = Some(format!("no seed has a ratio: {why}"));
            }
            evidence.ratio_test = Some(RatioTest::new(&logs, n_missing, margin));
        }
        Some(evidence)
    }

    fn judge(self, claim: &Claim, fairness: Fairness) -> SettingJudgement {
        let verdict = match (&self.obstacle, &self.outcomes, &self.ratio_test) {
            (Some(why), ..) => ClaimVerdict::NotTestable { why: why.clone() },
            (None, Some(outcomes), _) => self.by_outcomes(outcomes, claim.hypothesis),
            (None, None, Some(test)) => self.by_ratio(test, claim.hypothesis),
            (None, None, None) => ClaimVerdict::NotTestable {
                why: "nothing was measured".into(),
            },
        };
        SettingJudgement {
            fairness,
            setting: self.setting,
            verdict,
            outcomes: self.outcomes,
            ratio_test: self.ratio_test,
        }
    }

    fn by_outcomes(&self, outcomes: &OutcomeCounts, hypothesis: Hypothesis) -> ClaimVerdict {
        let inconclusive = |why: String| ClaimVerdict::Inconclusive { why };
        let OutcomeCounts {
            n_seeds,
            completed,
            diverged,
            ..
        } = *outcomes;
        let is_completes = hypothesis == Hypothesis::Completes;
        // One seed that diverged is enough against "every seed completes", however few there are.
        if is_completes && diverged > 0 {
            return ClaimVerdict::Contradicted;
        }
        let all_completed = completed == n_seeds;
        if !all_completed && diverged < n_seeds {
            return inconclusive(format!(
                "{completed} of {n_seeds} seeds completed and {diverged} diverged"
            ));
        }
        if n_seeds < self.n_planned {
            let why = format!("{n_seeds} of {} seeds have run", self.n_planned);
            return inconclusive(why);
        }
        if let Some(why) = too_little(n_seeds as usize, 0) {
            return inconclusive(why);
        }
        if all_completed && self.n_steps < STEPS_FOR_A_CLAIM {
            return inconclusive(format!(
                "{} steps, and a claim needs {STEPS_FOR_A_CLAIM}",
                self.n_steps
            ));
        }
        match &self.context_not_shown {
            Some(why) if is_completes => inconclusive(why.clone()),
            _ if is_completes || !all_completed => ClaimVerdict::Supported,
            _ => ClaimVerdict::Contradicted,
        }
    }

    fn by_ratio(&self, test: &RatioTest, hypothesis: Hypothesis) -> ClaimVerdict {
        let inconclusive = |why: String| ClaimVerdict::Inconclusive { why };
        if test.n == 0 {
            return ClaimVerdict::NotTestable {
                why: "no seed has the value".into(),
            };
        }
        if let Some(why) = too_little(test.n, test.n_missing) {
            return inconclusive(why);
        }
        if let Some(why) = &self.context_not_shown {
            return inconclusive(why.clone());
        }
        let (Some(t_test), Some(p)) = (test.t_test, test.p_holm) else {
            return inconclusive("the ratio does not vary over the seeds".into());
        };
        if p >= ALPHA {
            return inconclusive(format!("adjusted p {p:.3} against the margin"));
        }
        let is_below = t_test.mean_difference < 0.0;
        if is_below == (hypothesis == Hypothesis::AtMost) {
            ClaimVerdict::Supported
        } else {
            ClaimVerdict::Contradicted
        }
    }
}

fn no_context(model: &str, has_control: bool) -> String {
    if has_control {
        format!(
            "{model} is not shown to use context: it was not shown to beat the control without any"
        )
    } else {
        format!(
            "{model} is not shown to use context: no control without any was trained (--control {NO_CONTEXT})"
        )
    }
}

impl OutcomeCounts {
    fn of(group: &[&Observation<'_>]) -> Self {
        let count =
            |is: fn(&Outcome) -> bool| group.iter().filter(|o| is(&o.cell.outcome)).count() as u64;
        let (n_seeds, completed) = (group.len() as u64, count(|o| *o == Outcome::Completed));
        Self {
            n_seeds,
            completed,
            diverged: count(|o| matches!(o, Outcome::Diverged { .. })),
            completion: stats::clopper_pearson(completed, n_seeds),
        }
    }
}

impl RatioTest {
    fn new(logs: &[f64], n_missing: usize, margin: f64) -> Self {
        Self {
            n: logs.len(),
            n_missing,
            ratio: Estimate::of(logs).and_then(Ratio::of_log),
            t_test: stats::paired_t(logs, &vec![margin.ln(); logs.len()]),
            p_holm: None,
        }
    }
}

/// Logarithm of the metric of one seed of a completed cell.
fn log_metric(
    metric: Metric,
    group: &[&Observation<'_>],
    at_fp32: &[&Observation<'_>],
    seed: u64,
) -> Option<f64> {
    let observation = group.iter().find(|o| o.cell.seed == seed)?;
    let cell = observation.cell;
    match metric {
        Metric::Perplexity => nll_nats(observation),
        Metric::PerplexityOverFp32 => {
            let whole = at_fp32.iter().find(|o| o.cell.id == cell.id)?;
            Some(nll_nats(observation)? - nll_nats(whole)?)
        }
        Metric::GradientNormStd if cell.outcome == Outcome::Completed => {
            let std = cell.metrics.as_ref()?.gradient_norm_std.map(Finite::get)?;
            Some(std.ln()).filter(|log| log.is_finite())
        }
        // A ratio is of fronts and not of cells.
        Metric::GradientNormStd | Metric::EfficiencyRatio | Metric::Outcome => None,
    }
}
