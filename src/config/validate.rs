//! The checks of a configuration that need neither device nor data.

use super::{Benchmark, Budget, BudgetUnit, Config};

/// Nobody trains so often; a list of more seeds is a mistake.
const MAX_SEEDS: u64 = 10_000;

/// What must hold and does not, in the order of the sections.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut require = |holds: bool, key: &str, requirement: &str| {
        if !holds {
            problems.push(format!("{key} must be {requirement}"));
        }
    };
    let positive = |x: f64| x.is_finite() && x > 0.0;
    let at_least_zero = |x: f64| x.is_finite() && x >= 0.0;
    let fraction = |x: f64| (0.0..1.0).contains(&x);

    require(!config.benchmarks.is_empty(), "benchmarks", "at least one");
    require(
        !config.fairness.is_empty(),
        "fairness (--fairness)",
        "at least one of identical and equal_tuning",
    );
    require(
        config.models.b.as_deref() != Some(""),
        "models.b (--model_b)",
        "the name of a model",
    );
    let model = &config.model;
    for (key, value) in [
        ("model.d_model", model.d_model),
        ("model.n_layers", model.n_layers),
        ("model.d_state", model.d_state),
        ("model.expand", model.expand),
        ("model.n_experts", model.n_experts),
        ("train.loss_chunk_tokens", config.train.loss_chunk_tokens),
        ("quantization.seq_len", config.quantization.seq_len),
        ("efficiency.seq_len", config.efficiency.seq_len),
        ("multidataset.seq_len", config.multidataset.seq_len),
    ] {
        require(value > 0, key, "at least 1");
    }
    require(model.d_conv > 1, "model.d_conv", "at least 2");
    for &benchmark in &config.benchmarks {
        let section = match benchmark {
            Benchmark::Longcontext => "train",
            _ => benchmark.name(),
        };
        let key = format!("{section}.batch_size (--batch_size)");
        let batch_size = config.only(benchmark).train.batch_size;
        require(batch_size > 0, &key, "at least 1");
    }
    require(
        (1..=model.n_experts).contains(&model.top_k),
        "model.top_k",
        "at least 1 and at most model.n_experts",
    );
    require(
        at_least_zero(model.load_balance_weight),
        "model.load_balance_weight",
        "at least 0",
    );
    require(
        at_least_zero(model.act_penalty),
        "model.act_penalty",
        "at least 0",
    );
    require(
        fraction(model.dropout),
        "model.dropout",
        "at least 0 and below 1",
    );

    require(
        config.data.eval_tokens != Some(0),
        "data.eval_tokens",
        "at least 1, or left out for all",
    );
    require(
        config.data.train_tokens != Some(0),
        "data.train_tokens",
        "at least 1, or left out for all",
    );

    require(
        config.device.memory_limit_mib != Some(0),
        "device.memory_limit_mib",
        "at least 1, or left out for what the machine has",
    );

    let train = &config.train;
    match train.budget {
        Budget::Steps(steps) => require(steps > 0, "train.budget.steps (--steps)", "at least 1"),
        Budget::NumEpochs(epochs) => require(
            epochs > 0,
            "train.budget.num_epochs (--num_epochs)",
            "at least 1",
        ),
    }
    require(
        train.segment_len != Some(0),
        "train.segment_len (--segment_len)",
        "at least 1",
    );
    require(
        positive(train.learning_rate),
        "train.learning_rate",
        "above 0",
    );
    require(
        train.betas.iter().all(|&beta| fraction(beta)),
        "train.betas",
        "at least 0 and below 1",
    );
    require(positive(train.epsilon), "train.epsilon", "above 0");
    require(
        at_least_zero(train.weight_decay),
        "train.weight_decay",
        "at least 0",
    );
    require(
        positive(train.gradient_clip_norm),
        "train.gradient_clip_norm",
        "above 0",
    );
    require(
        at_least_zero(train.checkpoint_every_seconds),
        "train.checkpoint_every_seconds (--checkpoint_every)",
        "at least 0",
    );
    require(
        train.max_cell_seconds.is_none_or(positive),
        "train.max_cell_seconds (--max_cell_seconds)",
        "above 0, or left out for no limit",
    );

    let quantization = &config.quantization;
    require(
        quantization.widths().is_ok() && !quantization.bit_widths.is_empty(),
        "quantization.bit_widths (--bit_widths)",
        "a list of 32, 16, 8, 4 and 2",
    );

    require(
        quantization.checkpoint.is_none() || config.benchmarks == [Benchmark::Quantization],
        "quantization.checkpoint (--checkpoint)",
        "left out, or --benchmark quantization be the only benchmark",
    );

    let efficiency = &config.efficiency;
    let key = "efficiency.flops_budgets (--flops_budgets)";
    let budgets = &efficiency.flops_budgets;
    require(!budgets.is_empty(), key, "at least one budget");
    require(budgets.iter().all(|&it| positive(it)), key, "above 0 each");
    require(
        budgets.is_sorted_by(|a, b| a < b),
        key,
        "in ascending order, each once",
    );
    require(
        efficiency.budget_unit == BudgetUnit::ForwardFlopsPerToken
            || matches!(train.budget, Budget::Steps(_)),
        "efficiency.budget_unit",
        "forward_flops_per_token unless train.budget.steps (--steps) is given",
    );

    let datasets = &config.multidataset.datasets;
    let key = "multidataset.datasets (--datasets)";
    require(!datasets.is_empty(), key, "at least one name");
    let repeated = (1..datasets.len()).any(|i| datasets[..i].contains(&datasets[i]));
    require(!repeated, key, "different from each other");

    let lengths = &config.longcontext.seq_lengths;
    let key = "longcontext.seq_lengths (--seq_lengths)";
    require(!lengths.is_empty(), key, "at least one length");
    require(
        lengths.iter().all(|&length| length > 0),
        key,
        "at least 1 each",
    );
    let repeated = lengths
        .iter()
        .enumerate()
        .any(|(i, length)| lengths[..i].contains(length));
    require(!repeated, key, "different from each other");

    let seeds = &config.seeds;
    require(
        (1..=MAX_SEEDS).contains(&seeds.count),
        "seeds.count (--num_seeds)",
        "at least 1 and at most 10,000",
    );
    require(
        seeds.first.checked_add(seeds.count).is_some(),
        "seeds.first (--seed)",
        "below 2^64 - seeds.count",
    );
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(problems(&Config::default()), Vec::<String>::new());
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut config = Config::default();
        config.model.top_k = 5;
        config.model.dropout = f64::NAN;
        config.train.batch_size = 0;
        config.train.budget = Budget::Steps(0);
        config.train.learning_rate = f64::INFINITY;
        config.longcontext.seq_lengths = vec![512, 0, 512];
        config.seeds.count = 0;
        let found = problems(&config);
        for key in [
            "model.top_k",
            "model.dropout",
            "train.batch_size",
            "train.budget.steps",
            "train.learning_rate",
            "longcontext.seq_lengths (--seq_lengths) must be at least 1",
            "longcontext.seq_lengths (--seq_lengths) must be different",
            "seeds.count",
        ] {
            assert!(
                found.iter().any(|line| line.starts_with(key)),
                "{key} is missing from {found:?}"
            );
        }
        assert_eq!(found.len(), 8, "{found:?}");
    }

    #[test]
    fn no_length_at_all_is_a_problem() {
        let mut config = Config::default();
        config.longcontext.seq_lengths.clear();
        assert_eq!(problems(&config).len(), 1);
    }
}
