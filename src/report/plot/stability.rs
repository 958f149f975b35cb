//! Loss per sequence length.
//!
//! From a record: one panel a length, one curve a model, the mean over completed seeds, with the t interval over seeds
//! as a band. A seed that diverged is not averaged in: it is drawn as a thin curve of its own. From the
//! guide's JSON, which has no curves: the final loss against the length.

use plotters::style::RGBColor;

use super::figure::{Band, Figure, Key, Line, Mark, NEUTRAL, NEUTRAL_LIGHT, Panel, Sample, colour};
use super::{Drawing, footer, n_seeds};
use crate::config::{Budget, MatchBasis};
use crate::results::{
    Cell, Curves, Finite, GuideEntry, GuideResults, Outcome, ResultsFile, RunRecord,
};
use crate::stats::Estimate;
use crate::units::Count;
use crate::{Error, Result};

/// Part of the steps over which a curve is averaged before it is drawn; the axis says over how many.
const SMOOTHED_FRACTION: usize = 20;

/// Ratio of unmatched sizes from which on the title says so.
const TITLE_RATIO: f64 = 2.0;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Sequence lengths to show; all where empty.
    pub seq_lengths: Vec<usize>,
    /// Marks where seeds diverged.
    pub annotate_divergence: bool,
    /// Shows the 95 % t interval over seeds.
    pub show_confidence_intervals: bool,
}

/// Draws the results.
///
/// # Errors
/// [`Error::BadInput`] if none of the lengths is in the results.
pub fn draw(results: &ResultsFile, options: &Options) -> Result<Drawing> {
    let part;
    let results = match results {
        ResultsFile::Record(record) => {
            part = ResultsFile::Record(Box::new(trained_at_lengths(record)));
            &part
        }
        guide => guide,
    };
    let available: Vec<usize> = match results {
        ResultsFile::Record(record) => lengths(record.cells.iter().map(|cell| cell.seq_len)),
        ResultsFile::Guide(guide) => lengths(guide.settings.iter().map(|(seq_len, _)| *seq_len)),
        _ => Vec::new(),
    };
    let wanted = if options.seq_lengths.is_empty() {
        &available
    } else {
        &options.seq_lengths
    };
    let (shown, absent): (Vec<usize>, Vec<usize>) = wanted
        .iter()
        .partition(|seq_len| available.contains(seq_len));
    if shown.is_empty() {
        return Err(Error::bad_input(
            "the results",
            format!("no cell of these lengths; there are {available:?}"),
            "choose others by --seq_lengths",
        ));
    }
    let figure = match results {
        ResultsFile::Record(record) => of_record(record, &shown, options),
        ResultsFile::Guide(guide) => of_guide(guide, &shown, options),
        _ => Figure::default(),
    };
    let notes = absent
        .iter()
        .map(|seq_len| format!("no results at length {}", Count(*seq_len as u64)))
        .collect();
    Ok(Drawing {
        svg: figure.svg()?,
        notes,
    })
}

/// The part of a record that the graph is of: the long-context benchmark, or the first one of which the cells of one
/// length are of one shape and one text.
fn trained_at_lengths(record: &RunRecord) -> RunRecord {
    let mut parts = record.parts().into_iter();
    let is_plain = |cell: &Cell| cell.at_budget.is_none() && cell.on_dataset.is_none();
    let is_drawn = |part: &RunRecord| part.cells.iter().all(is_plain);
    parts.find(is_drawn).unwrap_or_else(|| RunRecord {
        cells: Vec::new(),
        ..record.clone()
    })
}

/// Different lengths in ascending order.
fn lengths(all: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut lengths: Vec<usize> = all.collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

fn of_record(record: &RunRecord, shown: &[usize], options: &Options) -> Figure {
    let labels = record.config.models.labels();
    let models = labels.iter().map(String::as_str);
    let models: Vec<&str> = models.filter(|model| record.is_causal(model)).collect();
    let longest = record.cells.iter().filter_map(|cell| cell.metrics.as_ref());
    let n_steps = longest
        .map(|metrics| metrics.curves.loss_nats.len())
        .max()
        .unwrap_or(0);
    let window = (n_steps / SMOOTHED_FRACTION).max(1);
    let counted = record.cells.iter().find_map(|cell| cell.metrics.as_ref());
    let unigram =
        counted.map(|metrics| ("token frequencies alone", metrics.unigram_ce_nats, NEUTRAL));
    let three_gram = counted.and_then(|metrics| {
        let nats = metrics.three_gram_ce_nats?;
        Some(("3-gram", nats, NEUTRAL_LIGHT))
    });
    let counted: Vec<(&str, f64, RGBColor)> = [unigram, three_gram]
        .into_iter()
        .flatten()
        .map(|(label, nats, colour)| (label, nats.get(), colour))
        .collect();

    let panels = shown.iter().map(|&seq_len| {
        let x = 0.0..n_steps.max(1) as f64;
        let mut panel = Panel {
            caption: format!("N = {}", Count(seq_len as u64)),
            x,
            ..Panel::default()
        };
        for &(_, nats, colour) in &counted {
            let points = vec![(panel.x.start, nats), (panel.x.end, nats)];
            panel.lines.push(Line {
                colour,
                width: 1,
                dashed: true,
                points,
            });
        }
        for (i, model) in models.iter().enumerate() {
            let cells = record
                .cells
                .iter()
                .filter(|cell| cell.seq_len == seq_len && cell.model == *model);
            add_model(
                &mut panel,
                i,
                model,
                &cells.collect::<Vec<_>>(),
                window,
                options,
            );
        }
        panel
    });
    let panels: Vec<Panel> = panels.collect();

    let mut legend: Vec<Key> = models
        .iter()
        .enumerate()
        .map(|(i, model)| {
            let completed = record
                .summaries
                .iter()
                .filter(|summary| summary.model == *model);
            let completed = completed.filter(|s| shown.contains(&s.seq_len));
            let n = n_seeds(completed.map(|s| s.n_seeds)).unwrap_or("0".into());
            Key {
                label: format!("{model} (n = {n})"),
                colour: colour(i),
                sample: Sample::Line,
            }
        })
        .collect();
    legend.extend(common_keys(&panels));
    legend.extend(counted.iter().map(|&(label, nats, colour)| Key {
        label: format!("{label} ({nats:.2})"),
        colour,
        sample: Sample::Dashed,
    }));
    let smoothing = if window > 1 {
        format!(", mean of {window} steps")
    } else {
        String::new()
    };
    Figure {
        title: title(record, &models),
        subtitle: subtitle(record, &models),
        footer: footer(record),
        x_label: "optimiser step".into(),
        y_label: format!("loss (nats per token){smoothing}"),
        log_x: false,
        log_y: false,
        legend,
        panels,
    }
}

/// Adds the curves of one model at one length.
fn add_model(
    panel: &mut Panel,
    index: usize,
    model: &str,
    cells: &[&Cell],
    window: usize,
    options: &Options,
) {
    let colour = colour(index);
    let smooth = |curves: &Curves| running_mean(&curves.loss_nats, window);
    let mut completed = Vec::new();
    for cell in cells {
        let Some(metrics) = &cell.metrics else {
            continue;
        };
        let curve = smooth(&metrics.curves);
        if cell.outcome == Outcome::Completed {
            completed.push(curve);
            continue;
        }
        let parts = unbroken(&curve);
        if let (Outcome::Diverged { .. }, Some(&at), true) = (
            &cell.outcome,
            parts.last().and_then(|part| part.last()),
            options.annotate_divergence,
        ) {
            panel.marks.push(Mark {
                colour,
                cross: true,
                at,
            });
        }
        panel.lines.extend(parts.into_iter().map(|points| Line {
            colour,
            width: 1,
            dashed: false,
            points,
        }));
    }

    let n_steps = completed.iter().map(Vec::len).max().unwrap_or(0);
    let estimates: Vec<Option<Estimate>> = (0..n_steps)
        .map(|step| {
            let values: Option<Vec<f64>> =
                completed.iter().map(|curve| *curve.get(step)?).collect();
            Estimate::of(&values?)
        })
        .collect();
    let means: Vec<Option<f64>> = estimates
        .iter()
        .map(|estimate| estimate.map(|e| e.mean))
        .collect();
    panel
        .lines
        .extend(unbroken(&means).into_iter().map(|points| Line {
            colour,
            width: 2,
            dashed: false,
            points,
        }));
    if options.show_confidence_intervals {
        let points: Vec<(f64, f64, f64)> = estimates
            .iter()
            .enumerate()
            .filter_map(|(step, estimate)| {
                let interval = (*estimate)?.interval?;
                Some((step as f64, interval.low, interval.high))
            })
            .collect();
        if !points.is_empty() {
            panel.bands.push(Band { colour, points });
        }
    }
    panel.notes.extend(note(model, cells));
}

/// What became of the seeds that did not complete, in words.
fn note(model: &str, cells: &[&Cell]) -> Option<String> {
    let of = |name: &str| {
        cells
            .iter()
            .filter(|cell| cell.outcome.name() == name)
            .count()
    };
    let first = cells.iter().filter_map(|cell| match cell.outcome {
        Outcome::Diverged { step, .. } => Some(step),
        _ => None,
    });
    let parts: Vec<String> = [
        "diverged",
        "out_of_memory",
        "timed_out",
        "skipped",
        "failed",
    ]
    .into_iter()
    .filter(|name| of(name) > 0)
    .map(|name| match first.clone().min() {
        Some(step) if name == "diverged" => format!("{} diverged (first at step {step})", of(name)),
        _ => format!("{} {}", of(name), name.replace('_', " ")),
    })
    .collect();
    (!parts.is_empty()).then(|| format!("{model}: of {} seeds {}", cells.len(), parts.join(", ")))
}

/// Mean of the finite values among the last `window` steps, at each step.
fn running_mean(values: &[Option<Finite>], window: usize) -> Vec<Option<f64>> {
    (0..values.len())
        .map(|step| {
            // A step without a value stays a gap.
            values[step]?;
            let recent = &values[(step + 1).saturating_sub(window)..=step];
            let finite: Vec<f64> = recent.iter().flatten().map(|value| value.get()).collect();
            crate::stats::mean(&finite)
        })
        .collect()
}

/// The pieces of a curve between its gaps, with the step as x.
fn unbroken(curve: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
    let indexed: Vec<(usize, Option<f64>)> = curve.iter().copied().enumerate().collect();
    indexed
        .split(|(_, value)| value.is_none())
        .map(|part| {
            part.iter()
                .filter_map(|&(step, value)| Some((step as f64, value?)))
                .collect()
        })
        .filter(|part: &Vec<_>| !part.is_empty())
        .collect()
}

/// Legend entries for bands and marks, where there are any.
fn common_keys(panels: &[Panel]) -> Vec<Key> {
    let mut keys = Vec::new();
    if panels.iter().any(|panel| !panel.bands.is_empty()) {
        keys.push(Key {
            label: "95 % t interval".into(),
            colour: NEUTRAL,
            sample: Sample::Band,
        });
    }
    if panels
        .iter()
        .flat_map(|panel| &panel.marks)
        .any(|mark| mark.cross)
    {
        keys.push(Key {
            label: "diverged".into(),
            colour: NEUTRAL,
            sample: Sample::Cross,
        });
    }
    keys
}

fn title(record: &RunRecord, models: &[&str]) -> String {
    let mut title = format!("Training loss by sequence length N: {}", models.join(", "));
    let size = |name: &str, of: fn(&Cell) -> u64| {
        let sizes: Vec<u64> = record
            .cells
            .iter()
            .map(of)
            .filter(|&size| size > 0)
            .collect();
        let ratio = *sizes.iter().max()? as f64 / *sizes.iter().min()? as f64;
        (ratio > TITLE_RATIO).then(|| format!(" (not equal: {name}, {ratio:.1}x)"))
    };
    title.extend(size("parameters without embedding", |cell| {
        cell.parameters.non_embedding
    }));
    title.extend(size("active parameters", |cell| cell.parameters.active));
    title
}

fn subtitle(record: &RunRecord, models: &[&str]) -> String {
    let config = &record.config;
    let basis = match config.model.match_basis {
        MatchBasis::Total => "parameters without embedding",
        MatchBasis::Active => "active parameters",
        MatchBasis::Flops => "FLOPs a token; parameters without embedding are",
    };
    let sizes: Vec<String> = models
        .iter()
        .filter_map(|model| {
            let parameters = record
                .cells
                .iter()
                .find(|cell| cell.model == *model)?
                .parameters;
            let n = match config.model.match_basis {
                MatchBasis::Active => parameters.active,
                MatchBasis::Total | MatchBasis::Flops => parameters.non_embedding,
            };
            Some(format!("{model} {}", Count(n)))
        })
        .collect();
    let text = config.data.text.as_ref().and_then(|path| path.file_name());
    let text = text.map_or_else(
        || config.data.dataset.clone(),
        |name| name.to_string_lossy().into_owned(),
    );
    let budget = match config.train.budget {
        Budget::Steps(steps) => format!("{} steps", Count(steps)),
        Budget::NumEpochs(epochs) => format!("{epochs} epoch(s) at the longest N"),
    };
    format!(
        "Matched on {basis}: {}.  Text: {text}, tokenizer: {}.  {budget}, batch {}.",
        sizes.join(", "),
        config.data.tokenizer,
        config.train.batch_size
    )
}

/// Final loss against length: all that the guide's JSON holds.
fn of_guide(guide: &GuideResults, shown: &[usize], options: &Options) -> Figure {
    let mut models: Vec<&str> = Vec::new();
    for (name, _) in guide.settings.iter().flat_map(|(_, models)| models) {
        if !models.contains(&name.as_str()) {
            models.push(name);
        }
    }
    let mut panel = Panel {
        x: -0.5..shown.len() as f64 - 0.5,
        categories: shown
            .iter()
            .map(|&seq_len| Count(seq_len as u64).to_string())
            .collect(),
        ..Panel::default()
    };
    let mut with_intervals = false;
    for (i, model) in models.iter().enumerate() {
        let colour = colour(i);
        // Side by side, so that intervals do not hide each other.
        let shift = (i as f64 - (models.len() as f64 - 1.0) / 2.0) * 0.06;
        let entries: Vec<Option<&GuideEntry>> = shown
            .iter()
            .map(|&seq_len| guide.entry(seq_len, model))
            .collect();
        let mut points = Vec::new();
        for (k, entry) in entries.iter().enumerate() {
            let x = k as f64 + shift;
            let Some(entry) = entry else { continue };
            if let Some(loss) = entry.final_loss {
                points.push((x, loss));
                panel.marks.push(Mark {
                    colour,
                    cross: false,
                    at: (x, loss),
                });
            }
            if let (Some([low, high]), true) = (entry.ci95, options.show_confidence_intervals) {
                with_intervals = true;
                panel.lines.push(Line {
                    colour,
                    width: 2,
                    dashed: false,
                    points: vec![(x, low), (x, high)],
                });
            }
            if entry.diverged && options.annotate_divergence {
                let place = format!("{model} diverged at N = {}", Count(shown[k] as u64));
                panel.notes.push(format!(
                    "{place} ({} steps not finite)",
                    Count(entry.nan_count)
                ));
            }
        }
        panel.lines.push(Line {
            colour,
            width: 1,
            dashed: true,
            points,
        });
    }
    let legend = models.iter().enumerate();
    let legend = legend.map(|(i, model)| Key {
        label: (*model).into(),
        colour: colour(i),
        sample: Sample::Line,
    });
    Figure {
        title: format!("Final training loss by sequence length N: {}", models.join(", ")),
        subtitle: if with_intervals {
            "Mean over completed seeds; bars are 95 % t intervals.".into()
        } else {
            "Mean over completed seeds.".into()
        },
        footer: "Drawn from the file of --output, which holds no curves; give the folder of the run to see them.".into(),
        x_label: "sequence length N (tokens)".into(),
        y_label: "final training loss (nats per token)".into(),
        log_x: false,
        log_y: false,
        legend: legend.collect(),
        panels: vec![panel],
    }
}
