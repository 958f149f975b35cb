//! The cells of a run.

use crate::bench::memory::widest_activation;
use crate::config::{
    Benchmark, Budget, BudgetUnit, Config, EfficiencyConfig, is_twin, registered_name,
};
use crate::data::Dataset;
use crate::hardware::adapters::Adapter;
use crate::models::budget::{Fit, fit};
use crate::models::registry::{Architecture, ModelShape, matched_shapes};
use crate::results::{AtBudget, Finite, Outcome};
use crate::{Error, Result};

/// Segments of this length cost little in launches and keep little in memory, on every class of adapter tried.
pub const SEGMENT_LEN: usize = 4096;

/// 4096 tokens, halved until the widest tensor of every model fits what a kernel of the adapter can see.
pub fn segment_len(shapes: &[ModelShape], batch_size: usize, adapter: Option<&Adapter>) -> usize {
    let mut segment_len = SEGMENT_LEN;
    if let Some(adapter) = adapter {
        let widest = shapes.iter().map(widest_activation).max().unwrap_or(1);
        let a_position = (4 * batch_size * widest) as u64;
        while segment_len > 1 && segment_len as u64 * a_position > adapter.limits.binding.0 {
            segment_len /= 2;
        }
    }
    segment_len
}

/// One row of the grid: models to be compared with each other.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Sequence length in tokens.
    pub seq_len: usize,
    /// The models, in the order in which they run.
    pub models: Vec<Planned>,
}

/// A model at a setting.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What results call it.
    pub label: String,
    /// Its shape.
    pub shape: ModelShape,
    /// The budget that the shape was solved for.
    pub at_budget: Option<AtBudget>,
    /// Why nothing will be trained: no shape fits the budget.
    pub misfit: Option<Outcome>,
}

impl Planned {
    /// The number of its initial weights' set: the second of two equal models has one of its own.
    pub fn stream(&self) -> u32 {
        u32::from(is_twin(&self.label))
    }
}

/// The settings that the configuration of one benchmark asks for: matched models at every length, or shapes for every budget, each to be
/// trained for `n_steps`.
///
/// # Errors
/// Unknown or unmatchable models.
pub fn settings(config: &Config, vocab_size: usize, n_steps: u64) -> Result<Vec<Setting>> {
    let labels = config.models.labels();
    let models: Vec<(&String, Architecture)> = labels
        .iter()
        .map(|label| Ok((label, Architecture::parse(registered_name(label))?)))
        .collect::<Result<_>>()?;
    if config.benchmarks == [Benchmark::Efficiency] {
        let budgets = config.efficiency.flops_budgets.iter();
        return budgets
            .map(|&budget| {
                let plan = |&model: &(&String, Architecture)| {
                    under(model, budget, config, vocab_size, n_steps)
                };
                Ok(Setting {
                    seq_len: config.efficiency.seq_len,
                    models: models.iter().map(plan).collect::<Result<_>>()?,
                })
            })
            .collect();
    }
    let architectures: Vec<Architecture> = models.iter().map(|&(_, model)| model).collect();
    let shapes = matched_shapes(&architectures, &config.model, vocab_size)?;
    let plan = |(label, shape): (&String, &ModelShape)| Planned {
        label: label.clone(),
        shape: shape.clone(),
        at_budget: None,
        misfit: None,
    };
    let setting = |&seq_len: &usize| Setting {
        seq_len,
        models: labels.iter().zip(&shapes).map(plan).collect(),
    };
    Ok(config.seq_lengths().iter().map(setting).collect())
}

/// A model's shape for a budget, and what it uses of it.
fn under(
    (label, model): (&String, Architecture),
    budget: f64,
    config: &Config,
    vocab_size: usize,
    n_steps: u64,
) -> Result<Planned> {
    let EfficiencyConfig {
        seq_len,
        budget_unit,
        ..
    } = config.efficiency;
    let n_tokens = n_steps * (config.train.batch_size * seq_len) as u64;
    let total = |shape: &ModelShape| shape.training_flops_per_token(seq_len) * n_tokens as f64;
    let cost = |shape: &ModelShape| match budget_unit {
        BudgetUnit::ForwardFlopsPerToken => shape.forward_flops_per_token(seq_len).with_head,
        BudgetUnit::TrainingFlopsTotal => total(shape),
    };
    let Fit { shape, is_within } = fit(model, &config.model, vocab_size, budget, cost)?;
    let misfit = (!is_within).then(|| Outcome::Skipped {
        reason: "no shape of this model comes within 5 % under the budget".into(),
        needs: format!("{:.3e} FLOPs, by the nearest shape", cost(&shape)),
        have: format!("{budget:e}"),
    });
    let finite = |value: f64| Finite::new(value).unwrap_or_default();
    let forward = shape.forward_flops_per_token(seq_len);
    Ok(Planned {
        label: label.clone(),
        at_budget: Some(AtBudget {
            budget: finite(budget),
            d_model: shape.d_model,
            n_layers: shape.n_layers,
            expert_hidden: shape.expert_hidden,
            forward_flops_per_token: finite(forward.with_head),
            forward_flops_per_token_without_head: finite(forward.without_head),
            training_flops_total: finite(total(&shape)),
        }),
        shape,
        misfit,
    })
}

/// Steps of every cell of one benchmark; epochs are turned into steps at its longest length.
pub fn n_steps(config: &Config, n_train_tokens: usize) -> u64 {
    match config.train.budget {
        Budget::Steps(steps) => steps,
        Budget::NumEpochs(epochs) => {
            let longest = config.seq_lengths().into_iter().max().unwrap_or(1);
            let tokens_a_step = (config.train.batch_size * longest) as u64;
            (epochs * n_train_tokens as u64 / tokens_a_step).max(1)
        }
    }
}

/// The cells of a benchmark, before any of them is trained.
#[derive(Debug, Clone)]
pub struct Grid {
    /// What is compared, in the order in which it runs.
    pub settings: Vec<Setting>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Optimiser steps of every cell.
    pub n_steps: u64,
}

impl Grid {
    /// Looks up and matches the models, and turns epochs into steps at the longest length. `config` is that of one
    /// benchmark.
    ///
    /// # Errors
    /// Unknown or unmatchable models, or a text shorter than one window of the longest length.
    pub fn new(config: &Config, dataset: &Dataset) -> Result<Self> {
        let longest = config.seq_lengths().into_iter().max().unwrap_or(0);
        let n_train_tokens = dataset.train.len();
        if n_train_tokens <= longest {
            return Err(Error::bad_input(
                format!("sequence length {longest}"),
                format!(
                    "one window needs {} tokens, and the training text of {} has {n_train_tokens}",
                    longest + 1,
                    dataset.name
                ),
                "give shorter lengths (--seq_lengths, or seq_len in a --config), or a longer text with --text",
            ));
        }
        let n_steps = n_steps(config, n_train_tokens);
        Ok(Self {
            settings: settings(config, dataset.tokenizer.vocab_size(), n_steps)?,
            seeds: config.seeds.iter().collect(),
            n_steps,
        })
    }

    /// One model that is not trained, at the benchmark's sequence length.
    ///
    /// # Errors
    /// A text that holds out too little to be scored.
    pub fn of_given(shape: &ModelShape, config: &Config, dataset: &Dataset) -> Result<Self> {
        if dataset.eval.len() < 2 {
            return Err(Error::bad_input(
                &dataset.name,
                "holds out fewer than two tokens, and the first is not scored",
                "give a longer text with --text",
            ));
        }
        let planned = Planned {
            label: shape.architecture.name().to_owned(),
            shape: shape.clone(),
            at_budget: None,
            misfit: None,
        };
        let setting = |seq_len| Setting {
            seq_len,
            models: vec![planned.clone()],
        };
        Ok(Self {
            settings: config.seq_lengths().into_iter().map(setting).collect(),
            seeds: config.seeds.iter().collect(),
            n_steps: 0,
        })
    }

    /// Length of the segments of long sequences where the user names none: [`segment_len`], one for all models.
    pub fn segment_len(&self, batch_size: usize, adapter: Option<&Adapter>) -> usize {
        segment_len(&self.shapes(), batch_size, adapter)
    }

    /// The shapes of all settings, each once.
    pub fn shapes(&self) -> Vec<ModelShape> {
        let mut shapes: Vec<ModelShape> = Vec::new();
        for planned in self.settings.iter().flat_map(|setting| &setting.models) {
            if !shapes.contains(&planned.shape) {
                shapes.push(planned.shape.clone());
            }
        }
        shapes
    }

    /// The longest sequences, in tokens.
    pub fn longest(&self) -> usize {
        let lengths = self.settings.iter().map(|setting| setting.seq_len);
        lengths.max().unwrap_or(0)
    }
}
