//! One run: its plots, tables and tests, then what they rest on.

use super::super::document::{Block, Cell, Column, Kind, Picture, Table, Tone};
use super::super::plot::{self, Drawing, stability};
use super::super::{efficiency, multidataset, quantization, recall, statistics, table, tuning};
use super::{fairness, origin};
use crate::Result;
use crate::config::Benchmark;
use crate::results::{
    ChecklistItem, ChecklistStatus, Comparison, ModelLimits, Replay, ResultsFile, RunRecord,
    Summary, checklist, why_not_compared,
};
use crate::units::{Bytes, Count};

/// Warnings that stand open; those behind them are mostly of a kind.
const WARNINGS_SHOWN: usize = 8;

/// Heading of a run.
pub(super) fn title(record: &RunRecord) -> String {
    let count = record.config.seeds.count;
    format!(
        "{} of {}, {count} seed{}",
        record.config.title(),
        record.provenance.started_utc,
        if count == 1 { "" } else { "s" }
    )
}

/// Everything that a report says of one run.
pub(super) fn section(
    name: &str,
    record: &RunRecord,
    compared: &[Comparison],
    replay: Option<&Replay>,
) -> Block {
    let mut blocks = vec![Block::Paragraph(format!("Recorded in {name}."))];
    let ways = record.ways();
    let parts: Vec<RunRecord> = ways.iter().flat_map(RunRecord::parts).collect();
    let heading = |part: &RunRecord| match part.config.fairness[..] {
        [fairness] if ways.len() > 1 => format!("{}, {}", part.config.title(), fairness.title()),
        _ => part.config.title(),
    };
    let results = match parts.as_slice() {
        [part] => results(part),
        parts => parts
            .iter()
            .map(|part| Block::section(capital(&heading(part)), results(part)))
            .collect(),
    };
    blocks.push(Block::section("Results", results));
    blocks.extend(tuned(record));
    blocks.push(Block::section("Comparison", comparison(record, compared)));
    blocks.push(fairness::section(record));
    blocks.push(origin::hardware(record));
    blocks.push(Block::section("Warnings", warnings(record)));
    blocks.push(checklist_section(&checklist(record, compared)));
    blocks.push(origin::replay(name, record, replay));
    blocks.push(origin::provenance(record));
    Block::section(title(record), blocks)
}

fn stability_picture(all: &ResultsFile, models: &str) -> Block {
    let options = stability::Options {
        seq_lengths: Vec::new(),
        annotate_divergence: true,
        show_confidence_intervals: true,
    };
    picture(
        stability::draw(all, &options),
        format!("Training loss by sequence length: {models}"),
        "One panel a sequence length N, one curve a model: mean over completed seeds; the band is the 95 % t interval. A seed that diverged ends in a cross and is not part of the mean. The numbers stand in the table below.",
    )
}

/// What one benchmark measured.
fn results(record: &RunRecord) -> Vec<Block> {
    if record.cells.is_empty() {
        return vec![Block::Paragraph("No cell has run yet.".into())];
    }
    let mut blocks = Vec::new();
    let all = ResultsFile::Record(Box::new(record.clone()));
    let models = record.config.models.labels().join(", ");
    if !record.quantization.is_empty() {
        let options = plot::quantization::Options {
            bit_widths: Vec::new(),
            annotate_threshold: None,
            show_confidence_intervals: true,
        };
        blocks.push(picture(
            plot::quantization::draw(&all, &options),
            format!("Held-out perplexity by width of the weights: {models}"),
            "One curve a model: mean over completed seeds, on a logarithmic axis; the band is the 95 % t interval. The numbers stand in the table below.",
        ));
        blocks.push(Block::table(
            "The models in fewer bits: means over completed seeds, +- half the 95 % t interval; degradation is the perplexity over that at fp32, less 1",
            quantization::COLUMNS,
            (2, Kind::Number),
            quantization::rows(record),
        ));
        blocks.push(Block::details(
            "What each family of parameters costs",
            vec![Block::table(
                quantization::SENSITIVITY,
                quantization::SENSITIVITY_COLUMNS,
                (2, Kind::Number),
                quantization::sensitivity(record),
            )],
        ));
    }
    let given = quantization::given(record);
    if !given.is_empty() {
        // Nothing was trained, and there is nothing to tell of trainings.
        blocks.push(Block::List(given));
        return blocks;
    }
    if record.datasets.is_some() {
        let options = plot::multidataset::Options {
            show_confidence_intervals: true,
        };
        blocks.push(picture(
            plot::multidataset::draw(&all, options),
            format!("Held-out perplexity by dataset: {models}"),
            "One point a dataset and model: mean over completed seeds, on a logarithmic axis; the bar is the 95 % t interval, the dashed line what token frequencies alone reach. The numbers stand in the table below.",
        ));
        blocks.push(Block::table(
            "The models on each dataset: means over completed seeds, +- half the 95 % t interval",
            multidataset::COLUMNS,
            (3, Kind::Number),
            multidataset::rows(record),
        ));
        blocks.push(Block::List(multidataset::remarks(record)));
    } else if record.efficiency.is_empty() {
        blocks.push(stability_picture(&all, &models));
    } else {
        let options = plot::efficiency::Options {
            flops_budgets: Vec::new(),
            annotate_pareto: true,
            show_confidence_intervals: true,
        };
        blocks.push(picture(
            plot::efficiency::draw(&all, &options),
            format!("Held-out perplexity by FLOPs: {models}"),
            "One curve a model, one point a budget: mean over completed seeds, on logarithmic axes; the band is the 95 % t interval, the thick line the model's Pareto front. The numbers stand in the table below.",
        ));
        blocks.push(Block::table(
            "The models under budgets of FLOPs: means over completed seeds, +- half the 95 % t interval",
            efficiency::COLUMNS,
            (2, Kind::Number),
            efficiency::rows(record),
        ));
        blocks.push(Block::List(efficiency::remarks(record).to_vec()));
    }
    let is_causal = |model: &str| record.is_causal(model);
    let of_causal = record.summaries.iter().filter(|it| is_causal(&it.model));
    blocks.push(Block::table(
        "Means over completed seeds, +- half the 95 % t interval, - where absent; losses in nats per token, the training loss over the last tenth of the steps",
        table::columns(record),
        (2, Kind::Number),
        of_causal.map(table::row),
    ));
    blocks.extend(table::counting(record).map(Block::Paragraph));
    let overflows: Vec<String> = record
        .summaries
        .iter()
        .filter_map(table::overflows)
        .collect();
    if !overflows.is_empty() {
        blocks.push(Block::List(overflows));
    }
    let others = || record.summaries.iter().filter(|it| !is_causal(&it.model));
    if others().next().is_some() {
        blocks.push(Block::table(
            table::NOT_CAUSAL,
            table::columns(record),
            (2, Kind::Number),
            others().map(table::incomparable),
        ));
    }
    if !record.limits.is_empty() {
        let limits: Vec<&ModelLimits> = record.limits.iter().collect();
        blocks.push(Block::table(
            "The lengths that each model reaches",
            table::LIMIT_COLUMNS,
            (1, Kind::Text),
            limits.into_iter().map(table::limits_row),
        ));
    }
    blocks.extend(recalled(record));
    blocks.push(Block::table(
        "Time and memory: the largest measured peak of a training over the seeds, and what was estimated before it",
        [
            table::setting_head(record),
            "model",
            "measured peak",
            "estimated",
            "training tokens/s",
        ],
        (2, Kind::Number),
        record.summaries.iter().map(|it| memory(record, it)),
    ));
    blocks
}

/// A plot, or why there is none.
fn picture(drawn: Result<Drawing>, title: String, description: &str) -> Block {
    match drawn {
        Ok(drawing) => Block::Picture(Picture {
            svg: drawing.svg,
            title,
            description: description.into(),
        }),
        Err(error) => Block::Paragraph(format!("No plot: {error}.")),
    }
}

fn recalled(record: &RunRecord) -> Vec<Block> {
    let Some(verdict) = recall::verdict(record) else {
        let is_its_place = record.config.benchmarks.contains(&Benchmark::Longcontext);
        let text = "The recall probe was not part of this run.";
        let said = is_its_place.then(|| Block::Paragraph(text.into()));
        return said.into_iter().collect();
    };
    let (models, rows) = recall::rows(record);
    let column = |head: &str, kind| Column {
        head: head.to_owned(),
        kind,
    };
    let mut columns = vec![column("distance", Kind::Name)];
    columns.extend(models.iter().map(|model| column(model, Kind::Number)));
    let rows = rows.into_iter().map(|(distance, accuracies)| {
        let distance = Cell::from(Count(distance as u64).to_string());
        let accuracies = accuracies.into_iter().map(Cell::from);
        std::iter::once(distance).chain(accuracies).collect()
    });
    vec![
        Block::Table(Table {
            caption: format!(
                "The recall probe: part of the values found again, by distance in tokens. {}",
                recall::INTERVALS
            ),
            columns,
            rows: rows.collect(),
        }),
        Block::Paragraph(verdict),
    ]
}

fn memory(record: &RunRecord, summary: &Summary) -> [String; 5] {
    let here = record
        .cells
        .iter()
        .filter(|cell| cell.model == summary.model && cell.setting() == summary.setting())
        .filter_map(|cell| Some(cell.metrics.as_ref()?.memory));
    let peak = here.clone().map(|memory| memory.peak_memory_bytes).max();
    let estimated = here.map(|memory| memory.estimated.total()).max();
    let words = |bytes: Option<Bytes>| match bytes {
        Some(bytes) if bytes.0 > 0 => bytes.to_string(),
        _ => "-".into(),
    };
    [
        table::setting(summary),
        summary.model.clone(),
        words(peak),
        words(estimated),
        summary.tokens_per_second.map_or("-".into(), |rate| {
            Count(rate.mean.round() as u64).to_string()
        }),
    ]
}

/// The trials by which learning rates were chosen, where they were.
fn tuned(record: &RunRecord) -> Option<Block> {
    record.tuning.as_ref()?;
    let blocks = vec![
        Block::table(
            "Loss of the validation text, nats per token, by learning rate; the chosen rate is that of the lowest",
            tuning::COLUMNS,
            (2, Kind::Number),
            tuning::rows(record),
        ),
        Block::Paragraph(tuning::procedure(record)),
    ];
    Some(Block::section("How learning rates were chosen", blocks))
}

fn comparison(record: &RunRecord, compared: &[Comparison]) -> Vec<Block> {
    if let Some(why) = why_not_compared(record) {
        return vec![Block::Paragraph(format!("No comparison: {why}."))];
    }
    let ways: Vec<&[Comparison]> = compared
        .chunk_by(|one, next| one.fairness == next.fairness)
        .collect();
    if let [way] = ways[..] {
        return comparison_in(way);
    }
    let section =
        |way: &&[Comparison]| Block::section(capital(way[0].fairness.title()), comparison_in(way));
    ways.iter().map(section).collect()
}

/// The comparisons of one way of setting learning rates.
fn comparison_in(compared: &[Comparison]) -> Vec<Block> {
    let Some(Comparison { a, b, .. }) = compared.first() else {
        return Vec::new();
    };
    let mut blocks = vec![Block::table(
        format!(
            "{a} (a) against {b} (b): held-out loss, nats per token, a minus b, paired by seed; PPL is perplexity. Holm's p decides"
        ),
        statistics::DECIDING,
        (1, Kind::Number),
        compared.iter().map(statistics::deciding),
    )];
    let notes: Vec<String> = compared.iter().flat_map(statistics::notes).collect();
    if !notes.is_empty() {
        blocks.push(Block::List(notes));
    }
    let mut beside = vec![
        Block::table(
            "Other intervals and tests",
            statistics::BESIDE,
            (1, Kind::Number),
            compared.iter().map(statistics::beside),
        ),
        Block::Paragraph(statistics::P_VALUES.into()),
        Block::table(
            "The guide's recipes, on perplexity",
            statistics::RECIPES,
            (1, Kind::Number),
            compared.iter().map(statistics::recipes),
        ),
    ];
    for comparison in compared.iter().filter(|it| !it.survival.is_empty()) {
        beside.push(Block::table(
            format!("Steps to divergence at {}", comparison.setting),
            statistics::SURVIVAL,
            (2, Kind::Number),
            statistics::survival_rows(comparison),
        ));
    }
    blocks.push(Block::details(
        "Other tests, intervals and the guide's recipes",
        beside,
    ));
    blocks
}

/// The text with a capital letter in front.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// Warnings of the run, then those of its cells, equal ones once.
fn warnings(record: &RunRecord) -> Vec<Block> {
    let mut found: Vec<(String, usize)> = Vec::new();
    let of_run = record.warnings.iter().map(ToString::to_string);
    let of_cells = record.cells.iter().flat_map(|cell| {
        let place = format!("{} at {}", cell.model, cell.place());
        let warnings = cell.warnings.iter();
        warnings.map(move |warning| format!("{place}: {warning}"))
    });
    for text in of_run.chain(of_cells) {
        match found.iter_mut().find(|(known, _)| *known == text) {
            Some((_, n)) => *n += 1,
            None => found.push((text, 1)),
        }
    }
    if found.is_empty() {
        return vec![Block::Paragraph("None.".into())];
    }
    let line = |(text, n): (String, usize)| match n {
        1 => text,
        _ => format!("{text} ({n} times)"),
    };
    let mut first: Vec<String> = found.into_iter().map(line).collect();
    let others = first.split_off(first.len().min(WARNINGS_SHOWN));
    let mut blocks = vec![Block::List(first)];
    if !others.is_empty() {
        let summary = format!("{} more", others.len());
        blocks.push(Block::details(summary, vec![Block::List(others)]));
    }
    blocks
}

fn checklist_section(items: &[ChecklistItem]) -> Block {
    let n_met = items
        .iter()
        .filter(|item| item.status == ChecklistStatus::Met)
        .count();
    let row = |item: &ChecklistItem| {
        let tone = match item.status {
            ChecklistStatus::Met => Tone::Holds,
            ChecklistStatus::NotMet => Tone::Fails,
            ChecklistStatus::NotApplicable => Tone::Open,
        };
        vec![
            Cell::verdict(statistics::status(item), tone),
            Cell::from(format!("{}\n{}", item.item, item.finding)),
            Cell::from(statistics::evidence(item)),
        ]
    };
    let column = |head: &str, kind| Column {
        head: head.into(),
        kind,
    };
    let table = Table {
        caption: format!(
            "The guide's checklist: {n_met} of {} items are met",
            items.len()
        ),
        columns: vec![
            column("status", Kind::Text),
            column("item and finding", Kind::Name),
            column("where in result.json", Kind::Text),
        ],
        rows: items.iter().map(row).collect(),
    };
    Block::section("Checklist", vec![Block::Table(table)])
}
