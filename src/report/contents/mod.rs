//! What a report says, in order: the verdicts, then run by run what they rest on.

mod fairness;
mod origin;
mod run;

use super::document::{Block, Cell, Column, Document, Kind, Table, Tone};
use super::{efficiency, statistics};
use crate::results::{
    Claim, ClaimVerdict, Comparison, ComparisonVerdict, Judgement, Replay, RunRecord, comparisons,
    judge, problems, why_not_compared,
};

impl Document {
    /// The report on runs, given with their names, and on the last replay of each: verdicts on the claims, then what each
    /// run found.
    pub fn of(runs: &[(String, RunRecord)], replays: &[Option<Replay>], claims: &[Claim]) -> Self {
        let compared: Vec<Vec<Comparison>> =
            runs.iter().map(|(_, record)| comparisons(record)).collect();
        let mut blocks = vec![
            in_short(runs, &compared),
            on_claims(&judge(claims, runs), runs),
        ];
        for (i, ((name, record), compared)) in runs.iter().zip(&compared).enumerate() {
            let replay = replays.get(i).and_then(Option::as_ref);
            blocks.push(run::section(name, record, compared, replay));
        }
        let models = &runs[..runs.len().min(1)];
        let title = models
            .iter()
            .map(|(_, record)| format!(": {}", record.config.models.labels().join(", ")));
        Self {
            title: format!("bkbench report{}", title.collect::<String>()),
            blocks,
        }
    }
}

/// What each run shows, in a sentence, and what stands against it.
fn in_short(runs: &[(String, RunRecord)], compared: &[Vec<Comparison>]) -> Block {
    let mut blocks = Vec::new();
    let lines = runs
        .iter()
        .zip(compared)
        .flat_map(|((_, record), compared)| {
            let ways = record.ways();
            let n_ways = ways.len();
            let line = move |way: RunRecord| {
                let title = match way.config.fairness[..] {
                    [fairness] if n_ways > 1 => format!(", {}", fairness.title()),
                    _ => String::new(),
                };
                let compared: Vec<&Comparison> = compared
                    .iter()
                    .filter(|comparison| way.config.fairness.contains(&comparison.fairness))
                    .collect();
                let mut line = format!("{}{title}: {}.", run::title(&way), result(&way, &compared));
                if let Some(ratios) = ratios(&compared) {
                    line = format!("{line}\n{ratios}");
                }
                if !way.efficiency.is_empty() {
                    line = format!("{line}\n{}", efficiency::ratio(&way));
                }
                line
            };
            ways.into_iter().map(line)
        });
    blocks.push(Block::List(lines.collect()));
    for (name, record) in runs {
        let problems = problems(record);
        if !problems.is_empty() {
            blocks.push(Block::Notice(format!("{name}: {}.", problems.join("; "))));
        }
    }
    if runs.len() > 1 {
        let text = "Each run is tested by itself: seeds of several runs are not pooled.";
        blocks.push(Block::Paragraph(text.into()));
    }
    blocks.push(Block::Paragraph(
        "Lower held-out loss is better. \"Inconclusive\" never means \"no difference\": it means that these runs cannot tell."
            .into(),
    ));
    Block::section("In short", blocks)
}

/// What the comparisons of a run show, setting by setting, equal verdicts together.
fn result(record: &RunRecord, compared: &[&Comparison]) -> String {
    if let Some(why) = why_not_compared(record) {
        return format!("no comparison: {why}");
    }
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for comparison in compared {
        let mut words = statistics::verdict(comparison);
        if let ComparisonVerdict::Inconclusive { why } = &comparison.verdict {
            words = format!("{words} ({why})");
        }
        match found.iter_mut().find(|(known, _)| *known == words) {
            Some((_, settings)) => settings.push(&comparison.setting),
            None => found.push((words, vec![&comparison.setting])),
        }
    }
    let parts = found
        .iter()
        .map(|(words, settings)| format!("{words} at {}", settings.join(", ")));
    let mut parts: Vec<String> = parts.collect();
    let mut without: Vec<&str> = Vec::new();
    for model in compared.iter().flat_map(|it| &it.context_not_shown) {
        if !without.contains(&model.as_str()) {
            without.push(model);
        }
    }
    for model in without {
        let at = compared
            .iter()
            .filter(|it| it.context_not_shown.iter().any(|name| name == model));
        let at: Vec<&str> = at.map(|it| it.setting.as_str()).collect();
        parts.push(format!(
            "{model} is not shown to use context at {}",
            at.join(", ")
        ));
    }
    parts.join("; ")
}

/// How far the models lie apart, setting by setting.
fn ratios(compared: &[&Comparison]) -> Option<String> {
    let first = compared.first()?;
    let of_setting = |comparison: &&Comparison| {
        let ratio = comparison.perplexity_ratio?;
        let interval = ratio.interval.map_or(String::new(), |it| {
            format!(" (95 %: {:.3} to {:.3})", it.low, it.high)
        });
        Some(format!(
            "{} {:.3}{interval}",
            comparison.setting, ratio.mean
        ))
    };
    let ratios: Vec<String> = compared.iter().filter_map(of_setting).collect();
    (!ratios.is_empty()).then(|| {
        format!(
            "Held-out perplexity of {} over that of {}: {}.",
            first.a,
            first.b,
            ratios.join("; ")
        )
    })
}

/// The first table: every claim, what came of it, and why. What was decided stands first.
fn on_claims(judgements: &[Judgement], runs: &[(String, RunRecord)]) -> Block {
    let mut sorted: Vec<&Judgement> = judgements.iter().collect();
    sorted.sort_by_key(|judgement| match judgement.verdict {
        ClaimVerdict::Supported | ClaimVerdict::Contradicted => 0,
        ClaimVerdict::Inconclusive { .. } => 1,
        ClaimVerdict::NotTestable { .. } => 2,
    });
    let count = |word: &str| {
        let is_it = |judgement: &&Judgement| statistics::words(&judgement.verdict).0 == word;
        judgements.iter().filter(is_it).count()
    };
    let counts = ["supported", "contradicted", "inconclusive", "not testable"];
    let counts = counts.map(|word| format!("{} {word}", count(word)));
    let row = |judgement: &&Judgement| {
        let (word, why) = statistics::words(&judgement.verdict);
        let tone = match judgement.verdict {
            ClaimVerdict::Supported => Tone::Holds,
            ClaimVerdict::Contradicted => Tone::Fails,
            ClaimVerdict::Inconclusive { .. } | ClaimVerdict::NotTestable { .. } => Tone::Open,
        };
        let claim = &judgement.claim;
        let place = claim
            .guide_line
            .map_or(String::new(), |line| format!(" (guide, line {line})"));
        let mut lines = vec![format!("{}{place}", one_line(&claim.text))];
        lines.extend(why.map(str::to_owned));
        lines.extend(judgement.settings.iter().filter_map(statistics::setting));
        if runs.len() > 1 {
            lines.extend(judgement.run.as_ref().map(|run| format!("in {run}")));
        }
        vec![Cell::verdict(word, tone), Cell::from(lines.join("\n"))]
    };
    let column = |head: &str, kind| Column {
        head: head.into(),
        kind,
    };
    let table = Table {
        caption: "Every claim, what these runs say of it, and why".into(),
        columns: vec![
            column("verdict", Kind::Text),
            column("claim and evidence", Kind::Name),
        ],
        rows: sorted.iter().map(row).collect(),
    };
    let lacking = runs.iter().filter_map(statistics::lacking);
    let mut blocks = vec![Block::Paragraph(format!("{}.", counts.join(", ")))];
    blocks.extend(lacking.map(Block::Paragraph));
    blocks.push(Block::Table(table));
    Block::section("Verdicts on the claims", blocks)
}

/// A text of a file within one line of a cell.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
