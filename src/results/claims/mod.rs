//! Claims: statements that a run can support or contradict, read from a file.

mod judge;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use judge::{ClaimVerdict, Judgement, OutcomeCounts, RatioTest, SettingJudgement, judge};

use super::{NO_CONTEXT, RunRecord, SEEDS_FOR_A_CLAIM, STEPS_FOR_A_CLAIM};
use crate::config::{Fairness, from_toml};
use crate::quant::BitWidth;
use crate::{Error, Result};

/// The benchmarking guide's claims.
const GUIDE: &str = include_str!("../../../configs/claims.toml");
/// Names of the suite's benchmarks. A claim may be about one that a version does not have yet.
const BENCHMARKS: [&str; 4] = ["longcontext", "quantization", "efficiency", "multidataset"];

/// A statement with everything that is needed to test it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its name in tables.
    pub id: String,
    /// The statement in words.
    pub text: String,
    /// Line of the benchmarking guide where it stands; absent for a claim of somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guide_line: Option<u32>,
    /// The benchmark whose record can tell.
    pub benchmark: String,
    /// The settings at which it must hold, all of them, by their keys in the guide's JSON: `seq_len_8192`, `int8`,
    /// `flops_1e9`.
    pub settings: Vec<String>,
    /// The model it is about.
    pub model: String,
    /// The model it is compared with; absent where the claim is about one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// What is looked at.
    pub metric: Metric,
    /// What is said of it.
    pub hypothesis: Hypothesis,
    /// The ratio that the claim names: of the metric of `model` to that of `against`, or of the metric itself. Absent
    /// for outcomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

/// What a claim looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// How the trainings end.
    Outcome,
    /// Held-out perplexity per token.
    Perplexity,
    /// The same over that of the same trained model at fp32.
    PerplexityOverFp32,
    /// Standard deviation of the gradient norm within a training.
    GradientNormStd,
    /// FLOPs of the other model over those of this one at equal perplexity, by their fronts over all settings.
    EfficiencyRatio,
}

/// What a claim says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hypothesis {
    /// Every seed completes.
    Completes,
    /// Every seed diverges.
    Diverges,
    /// The ratio lies below the margin.
    AtMost,
    /// The ratio lies above the margin.
    AtLeast,
}

impl Hypothesis {
    /// Whether it is about outcomes.
    fn is_about_outcomes(self) -> bool {
        matches!(self, Self::Completes | Self::Diverges)
    }
}

/// The flags behind those of a run with which it could decide claims; none where it can as it is, or compares no two
/// models.
pub fn lacking(record: &RunRecord) -> Vec<String> {
    let config = &record.config;
    if config.models.b.is_none() || config.models.is_twin_run() {
        return Vec::new();
    }
    let is_short = record
        .cells
        .iter()
        .any(|cell| cell.n_steps < STEPS_FOR_A_CLAIM);
    let ways = Fairness::ALL.map(Fairness::name).join(" ");
    [
        (!record.has_control()).then(|| format!("--control {NO_CONTEXT}")),
        (config.fairness != Fairness::ALL).then(|| format!("--fairness {ways}")),
        (config.seeds.count < SEEDS_FOR_A_CLAIM)
            .then(|| format!("--num_seeds {SEEDS_FOR_A_CLAIM}")),
        is_short.then(|| format!("--steps {STEPS_FOR_A_CLAIM}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The form of a file of claims.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimsFile {
    #[serde(rename = "claim")]
    claims: Vec<Claim>,
}

impl Claim {
    /// The benchmarking guide's claims, `configs/claims.toml`.
    ///
    /// # Errors
    /// None but mistakes in that file, which a test finds.
    pub fn of_the_guide() -> Result<Vec<Self>> {
        Self::parse(GUIDE, "configs/claims.toml")
    }

    /// Reads a file of claims.
    ///
    /// # Errors
    /// [`Error::BadInput`] if it cannot be read, has no claims, or one of them is no claim; the message names the line
    /// or the claim.
    pub fn load(path: &Path) -> Result<Vec<Self>> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::bad_input(&name, error.to_string(), "give a readable TOML file")
        })?;
        Self::parse(&text, &name)
    }

    fn parse(text: &str, name: &str) -> Result<Vec<Self>> {
        let claims = from_toml::<ClaimsFile>(text, name)?.claims;
        let bad = |what: String, problem: String| {
            Error::bad_input(
                what,
                problem,
                "see configs/claims.toml for what a claim looks like",
            )
        };
        if claims.is_empty() {
            return Err(bad(name.to_owned(), "no claims".into()));
        }
        for (i, claim) in claims.iter().enumerate() {
            if let Some(problem) = claim.problem() {
                return Err(bad(format!("{name}, claim '{}'", claim.id), problem));
            }
            if claims[..i].iter().any(|other| other.id == claim.id) {
                let problem = "another claim has this id".to_owned();
                return Err(bad(format!("{name}, claim '{}'", claim.id), problem));
            }
        }
        Ok(claims)
    }

    /// What makes it no claim.
    fn problem(&self) -> Option<String> {
        if !BENCHMARKS.contains(&self.benchmark.as_str()) {
            return Some(format!(
                "benchmark '{}' is none of {}",
                self.benchmark,
                BENCHMARKS.join(", ")
            ));
        }
        if self.settings.is_empty() {
            return Some("settings is empty".into());
        }
        let wrong = |setting: &&String| !is_setting_of(&self.benchmark, setting);
        if let Some(setting) = self.settings.iter().find(wrong) {
            return Some(format!("'{setting}' is no setting of {}", self.benchmark));
        }
        if self.metric == Metric::EfficiencyRatio
            && (self.benchmark != "efficiency" || self.against.is_none())
        {
            return Some(
                "efficiency_ratio is of the efficiency benchmark, against another model".into(),
            );
        }
        let is_about_outcomes = self.hypothesis.is_about_outcomes();
        if is_about_outcomes != (self.metric == Metric::Outcome) {
            return Some("completes and diverges go with the metric outcome, and only they".into());
        }
        if is_about_outcomes && self.against.is_some() {
            return Some("a claim about outcomes has no against".into());
        }
        match self.margin {
            Some(_) if is_about_outcomes => Some("a claim about outcomes has no margin".into()),
            None if !is_about_outcomes => Some("margin is missing".into()),
            Some(margin) if !(margin.is_finite() && margin > 0.0) => {
                Some(format!("margin {margin} is no ratio above 0"))
            }
            _ => None,
        }
    }
}

/// Whether a key names a setting that the benchmark may have.
fn is_setting_of(benchmark: &str, key: &str) -> bool {
    let is_count_behind = |prefix| {
        let digits = key.strip_prefix(prefix);
        digits.is_some_and(|digits| {
            digits
                .parse::<f64>()
                .is_ok_and(|n| n >= 1.0 && n.is_finite())
        })
    };
    match benchmark {
        "longcontext" => is_count_behind("seq_len_"),
        "quantization" => BitWidth::ALL.iter().any(|width| width.name() == key),
        "efficiency" => is_count_behind("flops_"),
        _ => !key.is_empty(),
    }
}
