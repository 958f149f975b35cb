//! Held-out perplexity against the width of the weights.

use super::figure::{Band, Figure, Key, Line, Mark, NEUTRAL, Panel, Sample, colour};
use super::{Drawing, footer, n_seeds};
use crate::config::Benchmark;
use crate::quant::BitWidth;
use crate::results::{QuantizationGuide, QuantizedEntry, ResultsFile};
use crate::{Error, Result};

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Widths to show; all where empty.
    pub bit_widths: Vec<BitWidth>,
    /// A perplexity at which to draw a line.
    pub annotate_threshold: Option<f64>,
    /// Shows the 95 % t interval over seeds.
    pub show_confidence_intervals: bool,
}

/// Draws the results: perplexity on a logarithmic axis, a curve a model.
///
/// # Errors
/// [`Error::BadInput`] if the results hold none of the widths.
pub fn draw(results: &ResultsFile, options: &Options) -> Result<Drawing> {
    let of_record;
    let (guide, footer) = match results {
        ResultsFile::Record(record) => {
            of_record = QuantizationGuide::new(&record.only(Benchmark::Quantization));
            (&of_record, footer(record))
        }
        ResultsFile::Quantization(guide) => (guide, String::new()),
        _ => {
            return Err(Error::bad_input(
                "the results",
                "are those of another benchmark",
                "give those of `bkbench run --benchmark quantization`",
            ));
        }
    };
    let available: Vec<BitWidth> = guide.widths.iter().map(|(width, _)| *width).collect();
    let wanted = if options.bit_widths.is_empty() {
        &available
    } else {
        &options.bit_widths
    };
    let (shown, absent): (Vec<BitWidth>, Vec<BitWidth>) =
        wanted.iter().partition(|width| available.contains(width));
    if shown.is_empty() {
        let names: Vec<&str> = available.iter().map(|width| width.name()).collect();
        return Err(Error::bad_input(
            "the results",
            format!(
                "none of these widths was measured; there are: {}",
                names.join(", ")
            ),
            "choose others by --bit_widths, or run `bkbench run --benchmark quantization`",
        ));
    }
    let figure = figure(guide, &shown, options, footer);
    Ok(Drawing {
        svg: figure.svg()?,
        notes: absent
            .iter()
            .map(|width| format!("no results at {width}"))
            .collect(),
    })
}

fn figure(
    guide: &QuantizationGuide,
    shown: &[BitWidth],
    options: &Options,
    footer: String,
) -> Figure {
    let mut models: Vec<&str> = Vec::new();
    for (name, _) in guide.widths.iter().flat_map(|(_, models)| models) {
        if !models.contains(&name.as_str()) {
            models.push(name);
        }
    }
    let mut panel = Panel {
        x: -0.5..shown.len() as f64 - 0.5,
        categories: shown.iter().map(ToString::to_string).collect(),
        ..Panel::default()
    };
    let mut legend = Vec::new();
    let mut has_bars = false;
    for (i, model) in models.iter().enumerate() {
        let colour = colour(i);
        let mut counts = Vec::new();
        let (mut points, mut band) = (Vec::new(), Vec::new());
        for (k, width) in shown.iter().enumerate() {
            let Some(entry) = entry(guide, *width, model) else {
                continue;
            };
            let x = k as f64;
            counts.extend(entry.n_seeds);
            let Some(ppl) = entry.ppl else {
                panel
                    .notes
                    .push(format!("{model} at {width}: no finite perplexity"));
                continue;
            };
            let at = (x, ppl.log10());
            points.push(at);
            panel.marks.push(Mark {
                colour,
                cross: entry.unusable == Some(true),
                at,
            });
            // An interval that reaches below 1, where no perplexity lies, ends there.
            if let Some([low, high]) = entry.ci95 {
                band.push((x, low.max(1.0).log10(), high.max(1.0).log10()));
            }
        }
        panel.lines.push(Line {
            colour,
            width: 2,
            dashed: false,
            points,
        });
        match band[..] {
            _ if !options.show_confidence_intervals || band.is_empty() => {}
            // A band of one point has no width.
            [(x, low, high)] => {
                has_bars = true;
                panel.lines.push(Line {
                    colour,
                    width: 2,
                    dashed: false,
                    points: vec![(x, low), (x, high)],
                });
            }
            _ => panel.bands.push(Band {
                colour,
                points: band,
            }),
        }
        let n = n_seeds(counts.into_iter());
        let n = n.map_or(String::new(), |n| format!(" (n = {n})"));
        legend.push(Key {
            label: format!("{model}{n}"),
            colour,
            sample: Sample::Line,
        });
    }
    if !panel.bands.is_empty() {
        legend.push(key("95 % t interval", Sample::Band));
    }
    if has_bars {
        legend.push(key("bars: 95 % t interval", Sample::Line));
    }
    if panel.marks.iter().any(|mark| mark.cross) {
        legend.push(key("no better than token frequencies", Sample::Cross));
    }
    if let Some(threshold) = options.annotate_threshold {
        let y = threshold.log10();
        panel.lines.push(Line {
            colour: NEUTRAL,
            width: 1,
            dashed: true,
            points: vec![(panel.x.start, y), (panel.x.end, y)],
        });
        legend.push(key(&format!("perplexity {threshold}"), Sample::Dashed));
    }
    Figure {
        title: format!("Held-out perplexity by width of the weights: {}", models.join(", ")),
        subtitle: "Really packed weights, quantised after training; int2 is ternary; mean over seeds, logarithmic axis."
            .into(),
        footer,
        x_label: "width of the weights".into(),
        y_label: "held-out perplexity per token".into(),
        log_x: false,
        log_y: true,
        legend,
        panels: vec![panel],
    }
}

fn key(label: &str, sample: Sample) -> Key {
    Key {
        label: label.to_owned(),
        colour: NEUTRAL,
        sample,
    }
}

fn entry<'a>(
    guide: &'a QuantizationGuide,
    width: BitWidth,
    model: &str,
) -> Option<&'a QuantizedEntry> {
    let (_, models) = guide.widths.iter().find(|(at, _)| *at == width)?;
    let found = models.iter().find(|(name, _)| name == model);
    found.map(|(_, entry)| entry)
}
