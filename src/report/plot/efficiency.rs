//! Held-out perplexity against FLOPs.

use super::figure::{Band, Figure, Key, Line, Mark, NEUTRAL, NEUTRAL_LIGHT, Panel, Sample, colour};
use super::{Drawing, footer};
use crate::config::BudgetUnit;
use crate::report::efficiency::ratio_in_words;
use crate::results::{EfficiencyEntry, EfficiencyGuide, ResultsFile};
use crate::{Error, Result};

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Budgets to show; all where empty.
    pub flops_budgets: Vec<f64>,
    /// Sets off each model's Pareto front from points that cost more and gain nothing.
    pub annotate_pareto: bool,
    /// Shows the 95 % t interval over seeds.
    pub show_confidence_intervals: bool,
}

/// What a results file says beside its points.
#[derive(Debug, Default)]
struct About {
    unit: BudgetUnit,
    /// FLOPs of one model over the other's at equal perplexity.
    ratio: Option<String>,
    /// Perplexity of the 3-gram.
    three_gram: Option<f64>,
    footer: String,
}

/// Draws the results on logarithmic axes, a curve a model. FLOPs are those of the record's unit, and the forward
/// pass's of a token in the guide's JSON.
///
/// # Errors
/// [`Error::BadInput`] if the results hold none of the budgets.
pub fn draw(results: &ResultsFile, options: &Options) -> Result<Drawing> {
    let of_record;
    let (guide, about) = match results {
        ResultsFile::Record(record) => {
            of_record = EfficiencyGuide::new(record);
            let about = About {
                unit: record.config.efficiency.budget_unit,
                ratio: record.efficiency_ratio.as_ref().map(ratio_in_words),
                three_gram: record.cells.iter().find_map(|cell| {
                    let nats = cell.metrics.as_ref()?.three_gram_ce_nats?;
                    Some(nats.get().exp())
                }),
                footer: footer(record),
            };
            (&of_record, about)
        }
        ResultsFile::Efficiency(guide) => (guide, About::default()),
        _ => {
            return Err(Error::bad_input(
                "the results",
                "are those of another benchmark",
                "give those of `bkbench run --benchmark efficiency`",
            ));
        }
    };
    let available: Vec<f64> = guide.budgets.iter().map(|(budget, _)| *budget).collect();
    let wanted = if options.flops_budgets.is_empty() {
        &available
    } else {
        &options.flops_budgets
    };
    let (shown, absent): (Vec<f64>, Vec<f64>) =
        wanted.iter().partition(|budget| available.contains(budget));
    if shown.is_empty() {
        let known: Vec<String> = available.iter().map(|it| format!("{it:e}")).collect();
        return Err(Error::bad_input(
            "the results",
            format!(
                "none of these budgets was run; there are: {}",
                known.join(", ")
            ),
            "choose others by --flops_budgets, or run `bkbench run --benchmark efficiency`",
        ));
    }
    Ok(Drawing {
        svg: figure(guide, &shown, options, about).svg()?,
        notes: absent
            .iter()
            .map(|budget| format!("no results under {budget:e} FLOPs"))
            .collect(),
    })
}

fn figure(guide: &EfficiencyGuide, shown: &[f64], options: &Options, about: About) -> Figure {
    let budgets = guide.budgets.iter();
    let budgets: Vec<_> = budgets.filter(|(it, _)| shown.contains(it)).collect();
    let mut models: Vec<&str> = Vec::new();
    for (name, _) in budgets.iter().flat_map(|(_, models)| models) {
        if !models.contains(&name.as_str()) {
            models.push(name);
        }
    }
    let mut panel = Panel::default();
    let mut legend = Vec::new();
    for (i, model) in models.iter().enumerate() {
        let colour = colour(i);
        let entries = budgets.iter().filter_map(|(budget, models)| {
            let (_, entry) = models.iter().find(|(name, _)| name == model)?;
            Some((*budget, entry))
        });
        let entries: Vec<(f64, &EfficiencyEntry)> = entries.collect();
        let (mut points, mut band, mut front) = (Vec::new(), Vec::new(), Vec::new());
        for (budget, entry) in &entries {
            let (Some(ppl), Some(x)) = (entry.ppl, flops(entry, about.unit)) else {
                let note = format!("{model} under {budget:e} FLOPs: no perplexity");
                panel.notes.push(note);
                continue;
            };
            let at = (x.log10(), ppl.log10());
            points.push(at);
            let off_front = entry.on_front == Some(false);
            if !off_front {
                front.push(at);
            }
            panel.marks.push(Mark {
                colour,
                cross: options.annotate_pareto && off_front,
                at,
            });
            // An interval that reaches below 1, where no perplexity lies, ends there.
            if let Some([low, high]) = entry.ci95 {
                band.push((at.0, low.max(1.0).log10(), high.max(1.0).log10()));
            }
        }
        let line = |width, points| Line {
            colour,
            width,
            dashed: false,
            points,
        };
        if options.annotate_pareto {
            panel.lines.push(line(1, points));
            panel.lines.push(line(3, front));
        } else {
            panel.lines.push(line(2, points));
        }
        if options.show_confidence_intervals && band.len() > 1 {
            let points = band;
            panel.bands.push(Band { colour, points });
        }
        // The fewest behind a point that is drawn.
        let drawn = entries.iter().filter(|(_, entry)| entry.ppl.is_some());
        let n_seeds = drawn.filter_map(|(_, entry)| entry.n_seeds).min();
        let n = n_seeds.map_or(String::new(), |n| format!(" (n = {n})"));
        legend.push(key(&format!("{model}{n}"), colour, Sample::Line));
    }
    if !panel.bands.is_empty() {
        legend.push(key("95 % t interval", NEUTRAL, Sample::Band));
    }
    if options.annotate_pareto {
        legend.push(key("Pareto front of a model: thick", NEUTRAL, Sample::Line));
        if panel.marks.iter().any(|mark| mark.cross) {
            legend.push(key("off its front", NEUTRAL, Sample::Cross));
        }
    }
    panel.notes.extend(about.ratio);
    let xs = panel.marks.iter().map(|mark| mark.at.0);
    let (low, high) = xs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    panel.x = if low <= high {
        low - 0.1..high + 0.1
    } else {
        0.0..1.0
    };
    if let Some(ppl) = about.three_gram {
        panel.lines.push(Line {
            colour: NEUTRAL_LIGHT,
            width: 1,
            dashed: true,
            points: vec![(panel.x.start, ppl.log10()), (panel.x.end, ppl.log10())],
        });
        let label = format!("3-gram ({ppl:.2})");
        legend.push(key(&label, NEUTRAL_LIGHT, Sample::Dashed));
    }
    Figure {
        title: format!("Held-out perplexity by FLOPs: {}", models.join(", ")),
        subtitle:
            "Under each budget every model has a shape of its own; mean over seeds, logarithmic axes. Lower and further left is better."
                .into(),
        footer: about.footer,
        x_label: match about.unit {
            BudgetUnit::ForwardFlopsPerToken => "forward FLOPs per token, head included",
            BudgetUnit::TrainingFlopsTotal => "FLOPs of the whole training, head included",
        }
        .into(),
        y_label: "held-out perplexity per token".into(),
        log_x: true,
        log_y: true,
        legend,
        panels: vec![panel],
    }
}

fn flops(entry: &EfficiencyEntry, unit: BudgetUnit) -> Option<f64> {
    match unit {
        BudgetUnit::ForwardFlopsPerToken => Some(entry.avg_flops_per_token),
        BudgetUnit::TrainingFlopsTotal => entry.training_flops_total,
    }
}

fn key(label: &str, colour: plotters::style::RGBColor, sample: Sample) -> Key {
    Key {
        label: label.to_owned(),
        colour,
        sample,
    }
}
