//! Comparisons, verdicts on claims and the checklist as plain-text tables.

use super::table::{aligned, estimate};
use crate::config::Fairness;
use crate::results::{
    self, ChecklistItem, ChecklistStatus, ClaimVerdict, Comparison, ComparisonVerdict, Judgement,
    MeanPerplexity, Ratio, RunRecord, SettingJudgement, Survival, why_not_compared,
};
use crate::stats::{EffectLabel, Interval, SurvivalRow};
use crate::units::fixed;

// Heads of the tables.
pub(super) const DECIDING: [&str; 11] = [
    "setting",
    "verdict",
    "pairs",
    "a - b",
    "PPL a / b",
    "t",
    "p",
    "Bonferroni",
    "Holm",
    "d_z",
    "g",
];
pub(super) const BESIDE: [&str; 11] = [
    "setting",
    "bootstrap BCa",
    "percentile",
    "sign flip",
    "Wilcoxon",
    "Mann-Whitney",
    "Welch",
    "r of pairs",
    "equivalence",
    "seeds for 1 % (90 %)",
    "divergence",
];
pub(super) const RECIPES: [&str; 8] = [
    "setting",
    "a, t interval",
    "a, 1.96 recipe",
    "b, t interval",
    "b, 1.96 recipe",
    "t",
    "p, not adjusted",
    "Cohen's d",
];
pub(super) const SURVIVAL: [&str; 5] = ["model", "step", "at risk", "diverged", "surviving"];
/// What is to be known of the p values in [`BESIDE`].
pub(super) const P_VALUES: &str = "p values, not adjusted but equivalence (Holm); sign flip with the least p that so few pairs can give.";

/// The comparisons of a run, those of each way of setting learning rates by themselves: what decides, what stands
/// beside it, the benchmarking guide's recipes, and how long the trainings lasted where any diverged; or why there is none.
pub fn comparisons(record: &RunRecord, comparisons: &[Comparison]) -> String {
    if let Some(why) = why_not_compared(record) {
        return format!("no comparison: {why}\n");
    }
    let ways = comparisons.chunk_by(|one, next| one.fairness == next.fairness);
    ways.map(in_one_way).collect::<Vec<_>>().join("\n")
}

fn in_one_way(comparisons: &[Comparison]) -> String {
    let Comparison { a, b, fairness, .. } = &comparisons[0];
    let mut lines = vec![format!(
        "{a} (a) against {b} (b), {}: held-out loss, nats per token, a minus b, paired by seed; PPL is perplexity",
        fairness.title()
    )];
    lines.extend(aligned(DECIDING, comparisons.iter().map(deciding)));
    lines.extend(comparisons.iter().flat_map(notes));
    lines.push(String::new());
    lines.push("Beside it:".into());
    lines.extend(aligned(BESIDE, comparisons.iter().map(beside)));
    lines.push(P_VALUES.into());
    lines.push(String::new());
    lines.push("The guide's recipes, on perplexity:".into());
    lines.extend(aligned(RECIPES, comparisons.iter().map(recipes)));
    lines.extend(comparisons.iter().flat_map(survival));
    lines.join("\n") + "\n"
}

/// A number in few digits, or `-`.
fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| match value.abs() {
        size if size != 0.0 && !(1e-3..1e5).contains(&size) => format!("{value:.1e}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => fixed(value, 4),
    })
}

fn interval(interval: Option<Interval>) -> String {
    interval.map_or("-".into(), |Interval { low, high }| {
        format!("[{}, {}]", number(Some(low)), number(Some(high)))
    })
}

fn ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or("-".into(), |ratio| {
        format!("{} {}", number(Some(ratio.mean)), interval(ratio.interval))
    })
}

/// What a comparison shows.
pub(super) fn verdict(comparison: &Comparison) -> String {
    match comparison.verdict {
        ComparisonVerdict::ABetter => format!("{} better", comparison.a),
        ComparisonVerdict::BBetter => format!("{} better", comparison.b),
        ComparisonVerdict::Equivalent => "equivalent".into(),
        ComparisonVerdict::Inconclusive { .. } => "inconclusive".into(),
    }
}

pub(super) fn deciding(comparison: &Comparison) -> [String; 11] {
    let n_seeds = comparison.n_pairs + comparison.n_missing;
    [
        comparison.setting.clone(),
        verdict(comparison),
        format!("{} of {n_seeds}", comparison.n_pairs),
        estimate(comparison.difference_nats, 4),
        ratio(comparison.perplexity_ratio),
        number(comparison.paired_t.map(|test| test.t)),
        number(comparison.paired_t.map(|test| test.p)),
        number(comparison.p_bonferroni),
        number(comparison.p_holm),
        number(comparison.d_z),
        number(comparison.hedges_g),
    ]
}

/// Why nothing is shown at a setting, and which models are not shown to use context there.
pub(super) fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    if let ComparisonVerdict::Inconclusive { why } = &comparison.verdict {
        notes.push(format!("{}: {why}", comparison.setting));
    }
    for model in &comparison.context_not_shown {
        notes.push(format!(
            "{}: {model} is not shown to use context: it was not shown to beat the control without any",
            comparison.setting
        ));
    }
    notes
}

pub(super) fn beside(comparison: &Comparison) -> [String; 11] {
    let sign_flip = comparison.sign_flip.map_or("-".into(), |test| {
        format!(
            "{} (least {})",
            number(Some(test.p)),
            number(Some(test.floor))
        )
    });
    let seeds = comparison.seeds_needed.map_or("-".into(), |seeds| {
        format!("{} ({} to {})", seeds.n, seeds.low, seeds.high)
    });
    [
        comparison.setting.clone(),
        interval(comparison.bootstrap.map(|both| both.bca)),
        interval(comparison.bootstrap.map(|both| both.percentile)),
        sign_flip,
        number(comparison.wilcoxon_p),
        number(comparison.mann_whitney_p),
        number(comparison.welch.map(|test| test.p)),
        number(comparison.correlation),
        number(comparison.equivalence_p_holm),
        seeds,
        number(comparison.divergence_p),
    ]
}

pub(super) fn recipes(comparison: &Comparison) -> [String; 8] {
    let guide = comparison.guide;
    let mean = |of: Option<MeanPerplexity>, pick: fn(MeanPerplexity) -> Option<Interval>| {
        of.map_or("-".into(), |of| {
            format!("{} {}", number(Some(of.mean)), interval(pick(of)))
        })
    };
    let (a, b) = (guide.map(|guide| guide.a), guide.map(|guide| guide.b));
    let test = guide.and_then(|guide| guide.paired_t);
    let label = guide.and_then(|guide| guide.label);
    [
        comparison.setting.clone(),
        mean(a, |of| of.t_interval),
        mean(a, |of| of.guide_interval),
        mean(b, |of| of.t_interval),
        mean(b, |of| of.guide_interval),
        number(test.map(|test| test.t)),
        number(test.map(|test| test.p)),
        label.map_or("-".into(), |label: EffectLabel| {
            let d = guide.and_then(|guide| guide.cohens_d);
            format!("{} ({})", number(d), label.name())
        }),
    ]
}

fn survival(comparison: &Comparison) -> Vec<String> {
    if comparison.survival.is_empty() {
        return Vec::new();
    }
    let title = format!("Steps to divergence at {}:", comparison.setting);
    let table = aligned(SURVIVAL, survival_rows(comparison).into_iter());
    [String::new(), title].into_iter().chain(table).collect()
}

/// One row a model and step at which a seed diverged.
pub(super) fn survival_rows(comparison: &Comparison) -> Vec<[String; 5]> {
    let of_model = |survival: &Survival| -> Vec<[String; 5]> {
        let row = |row: &SurvivalRow| {
            [
                survival.model.clone(),
                row.step.to_string(),
                row.at_risk.to_string(),
                row.diverged.to_string(),
                number(Some(row.surviving)),
            ]
        };
        survival.rows.iter().map(row).collect()
    };
    comparison.survival.iter().flat_map(of_model).collect()
}

/// One row a claim and run, with a line a setting below it.
pub fn claims(judgements: &[Judgement]) -> String {
    let mut lines = Vec::new();
    for judgement in judgements {
        let claim = &judgement.claim;
        let (verdict, why) = words(&judgement.verdict);
        let mut line = format!("{verdict:<12}  {}: {}", claim.id, claim.text);
        if let Some(number) = claim.guide_line {
            line = format!("{line} (guide, line {number})");
        }
        lines.push(line);
        lines.extend(
            judgement
                .run
                .as_ref()
                .map(|run| format!("{:14}in {run}", "")),
        );
        lines.extend(why.map(|why| format!("{:14}{why}", "")));
        let shown = judgement.settings.iter().filter_map(setting);
        lines.extend(shown.map(|setting| format!("{:14}{setting}", "")));
    }
    lines.join("\n") + "\n"
}

/// How a run, given with its name, could decide claims, where as it is it decides none.
pub fn lacking((name, record): &(String, RunRecord)) -> Option<String> {
    let flags = results::lacking(record);
    (!flags.is_empty()).then(|| {
        format!(
            "{name} lacks what a claim needs: run it again with {} behind its other flags.",
            flags.join(" ")
        )
    })
}

pub(super) fn words(verdict: &ClaimVerdict) -> (&'static str, Option<&str>) {
    match verdict {
        ClaimVerdict::Supported => ("supported", None),
        ClaimVerdict::Contradicted => ("contradicted", None),
        ClaimVerdict::Inconclusive { why } => ("inconclusive", Some(why)),
        ClaimVerdict::NotTestable { why } => ("not testable", Some(why)),
    }
}

/// The numbers of a setting, if it has any.
pub(super) fn setting(judgement: &SettingJudgement) -> Option<String> {
    let numbers = match (&judgement.outcomes, &judgement.ratio_test) {
        (Some(outcomes), _) => format!(
            "{} of {} seeds completed, {} diverged; probability to complete {}",
            outcomes.completed,
            outcomes.n_seeds,
            outcomes.diverged,
            interval(outcomes.completion)
        ),
        (None, Some(test)) => format!(
            "ratio {} over {} seed(s), p against the margin {}, Holm {}",
            ratio(test.ratio),
            test.n,
            number(test.t_test.map(|test| test.p)),
            number(test.p_holm)
        ),
        (None, None) => return None,
    };
    let (verdict, _) = words(&judgement.verdict);
    let way = match judgement.fairness {
        Fairness::Identical => "",
        Fairness::EqualTuning => " (tuned)",
    };
    Some(format!("{}{way}: {verdict}: {numbers}", judgement.setting))
}

/// One row an item, with its evidence.
pub fn checklist(items: &[ChecklistItem]) -> String {
    let row = |item: &ChecklistItem| {
        [
            status(item).to_owned(),
            item.item.to_owned(),
            evidence(item),
            item.finding.clone(),
        ]
    };
    let heads = ["", "item", "evidence", "finding"];
    aligned(heads, items.iter().map(row)).join("\n") + "\n"
}

pub(super) fn status(item: &ChecklistItem) -> &'static str {
    match item.status {
        ChecklistStatus::Met => "met",
        ChecklistStatus::NotMet => "NOT MET",
        ChecklistStatus::NotApplicable => "n/a",
    }
}

/// The first pointer and how many more there are.
pub(super) fn evidence(item: &ChecklistItem) -> String {
    let first = item.evidence.first().map_or("-", String::as_str);
    match item.evidence.len() {
        0 | 1 => first.to_owned(),
        n => format!("{first} and {} more", n - 1),
    }
}
