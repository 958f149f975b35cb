//! Results as comma-separated values with all their digits: means over seeds, and the raw values of every cell.

use crate::config::Benchmark;
use crate::quant::BitWidth;
use crate::results::{
    AtWidth, Cell, EfficiencyRatio, Evaluation, Finite, RunRecord, Summary, WidthSummary,
};
use crate::stats::Estimate;

/// One row a run, setting and model: means over completed seeds and the ends of their 95 % t intervals. Losses are in
/// nats per token; a value that is absent is empty. Under budgets, one row more, `all_budgets`: the FLOPs that model b takes
/// for those of this row's model at equal held-out loss, with the ends of the bootstrap interval.
pub fn summaries(runs: &[(String, RunRecord)]) -> String {
    const VALUES: [&str; 9] = [
        "final_loss_nats",
        "nll_nats",
        "token_perplexity",
        "bits_per_byte",
        "degradation",
        "tokens_per_second",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "efficiency_ratio",
    ];
    let heads = [
        "run",
        "benchmark",
        "fairness",
        "setting",
        "model",
        "n_seeds",
    ]
    .map(str::to_owned);
    let of_values = VALUES.iter().flat_map(|name| {
        [
            (*name).to_owned(),
            format!("{name}_low"),
            format!("{name}_high"),
        ]
    });
    let sizes = ["size_mb", "size_without_embedding_mb"].map(str::to_owned);
    let mut lines = vec![line(heads.into_iter().chain(of_values).chain(sizes))];
    let ways = |(name, record): &'_ (String, RunRecord)| {
        let name = name.clone();
        let ways = record
            .ways()
            .into_iter()
            .zip(record.config.fairness.clone());
        ways.map(move |(way, fairness)| (name.clone(), fairness, way))
            .collect::<Vec<_>>()
    };
    for (name, fairness, record) in runs.iter().flat_map(ways) {
        let row = |benchmark: Benchmark,
                   setting: String,
                   model: &str,
                   n_seeds: usize,
                   values: [Option<Estimate>; 9],
                   sizes: [Option<f64>; 2]| {
            let first = [
                quoted(&name),
                benchmark.name().to_owned(),
                fairness.name().to_owned(),
                quoted(&setting),
                quoted(model),
                n_seeds.to_string(),
            ];
            let values = values.into_iter().flat_map(|value| {
                let interval = value.and_then(|value| value.interval);
                [
                    number(value.map(|value| value.mean)),
                    number(interval.map(|interval| interval.low)),
                    number(interval.map(|interval| interval.high)),
                ]
            });
            line(first.into_iter().chain(values).chain(sizes.map(number)))
        };
        let of_length = |it: &Summary| {
            let values = [
                it.final_loss_nats,
                it.nll_nats,
                it.token_perplexity,
                it.bits_per_byte,
                None,
                it.tokens_per_second,
                None,
                None,
                None,
            ];
            let sizes = [None, None];
            row(
                it.benchmark,
                it.setting(),
                &it.model,
                it.n_seeds,
                values,
                sizes,
            )
        };
        let of_width = |it: &WidthSummary| {
            let values = [
                None,
                it.nll_nats,
                it.token_perplexity,
                it.bits_per_byte,
                it.degradation,
                None,
                it.prefill_tokens_per_second,
                it.decode_tokens_per_second,
                None,
            ];
            let sizes = [it.size_mb, it.size_without_embedding_mb];
            row(
                Benchmark::Quantization,
                it.width.name().into(),
                &it.model,
                it.n_seeds,
                values,
                sizes,
            )
        };
        let of_fronts = |it: &EfficiencyRatio| {
            let ratio = Estimate {
                mean: it.ratio.get(),
                sd: None,
                interval: it.interval,
                n: it.n_seeds,
            };
            let mut values = [None; 9];
            values[8] = Some(ratio);
            row(
                Benchmark::Efficiency,
                "all_budgets".into(),
                &it.model_a,
                it.n_seeds,
                values,
                [None, None],
            )
        };
        lines.extend(record.summaries.iter().map(of_length));
        lines.extend(record.quantization.iter().map(of_width));
        lines.extend(record.efficiency_ratio.iter().map(of_fronts));
    }
    lines.concat()
}

/// One row a cell, or a cell and width. Losses are in nats per token; a value that is absent is empty, and `outcome`
/// says why.
pub fn cells(runs: &[(String, RunRecord)]) -> String {
    let heads = [
        "run",
        "benchmark",
        "cell",
        "setting",
        "model",
        "seq_len",
        "seed",
        "trained_on",
        "learning_rate",
        "width",
        "outcome",
        "n_steps",
        "parameters_total",
        "parameters_non_embedding",
        "parameters_active",
        "nll_nats",
        "token_perplexity",
        "bits_per_byte",
        "word_perplexity",
        "carry_nll_nats",
        "final_loss_nats",
        "gradient_norm_mean",
        "gradient_norm_std",
        "gradient_norm_max",
        "nan_count",
        "loss_scale_overflows",
        "spikes",
        "train_seconds",
        "tokens_per_second",
        "peak_memory_bytes",
        "estimated_memory_bytes",
        "size_bytes",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "weights_sha256",
        "data_order_sha256",
    ];
    let mut lines = vec![line(heads.map(str::to_owned))];
    for (name, record) in runs {
        for cell in &record.cells {
            let widths = cell.quantization.iter().flat_map(|it| &it.widths);
            let at_widths: Vec<String> = widths.map(|at| cell_row(name, cell, Some(at))).collect();
            if at_widths.is_empty() {
                lines.push(cell_row(name, cell, None));
            }
            lines.extend(at_widths);
        }
    }
    lines.concat()
}

fn cell_row(run: &str, cell: &Cell, at: Option<&AtWidth>) -> String {
    let metrics = cell.metrics.as_ref();
    let evaluation: Option<&Evaluation> = match at {
        Some(at) => at.evaluation.as_ref(),
        None => metrics.and_then(|it| it.evaluation.as_ref()),
    };
    let on = cell.on_dataset.as_ref();
    let width = at
        .map(|at| at.width)
        .or_else(|| (cell.benchmark == Benchmark::Longcontext).then_some(BitWidth::Fp32));
    let finite = |value: Option<Finite>| number(value.map(Finite::get));
    let whole = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let text = |value: Option<&String>| value.map_or(String::new(), |value| quoted(value));
    line([
        quoted(run),
        cell.benchmark.name().into(),
        quoted(&cell.id),
        quoted(&cell.setting()),
        quoted(&cell.model),
        cell.seq_len.to_string(),
        cell.seed.to_string(),
        on.map_or(String::new(), |on| quoted(&on.trained_on)),
        number(Some(cell.learning_rate.get())),
        width.map_or(String::new(), |width| width.name().into()),
        cell.outcome.name().into(),
        cell.n_steps.to_string(),
        cell.parameters.total.to_string(),
        cell.parameters.non_embedding.to_string(),
        cell.parameters.active.to_string(),
        finite(evaluation.map(|it| it.nll_nats)),
        finite(evaluation.and_then(|it| it.token_perplexity)),
        finite(evaluation.map(|it| it.bits_per_byte)),
        finite(on.and_then(|on| on.word_perplexity(evaluation?))),
        finite(on.and_then(|on| Some(on.carry.as_ref()?.nll_nats))),
        finite(metrics.and_then(|it| it.final_loss_nats)),
        finite(metrics.and_then(|it| it.gradient_norm_mean)),
        finite(metrics.and_then(|it| it.gradient_norm_std)),
        finite(metrics.and_then(|it| it.gradient_norm_max)),
        whole(metrics.map(|it| it.nan_count)),
        whole(metrics.map(|it| it.loss_scale_overflows)),
        whole(metrics.map(|it| it.spike_steps.len() as u64)),
        finite(metrics.map(|it| it.train_seconds)),
        finite(metrics.and_then(|it| it.tokens_per_second)),
        whole(metrics.map(|it| it.memory.peak_memory_bytes.0)),
        whole(metrics.map(|it| it.memory.estimated.total().0)),
        whole(at.map(|at| at.size.total().0)),
        finite(at.and_then(|at| at.prefill_tokens_per_second)),
        finite(at.and_then(|at| at.decode_tokens_per_second)),
        text(metrics.map(|it| &it.weights_sha256)),
        text(metrics.map(|it| &it.data_order_sha256)),
    ])
}

fn line(fields: impl IntoIterator<Item = String>) -> String {
    let fields: Vec<String> = fields.into_iter().collect();
    fields.join(",") + "\r\n"
}

/// All digits that tell it from its neighbours.
fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// A text as one field (RFC 4180). One that a spreadsheet would take for a formula gets an apostrophe in front.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}
