//! Held-out perplexity on each dataset.

use super::figure::{Figure, Key, Line, Mark, NEUTRAL, Panel, Sample, colour};
use super::{Drawing, footer, n_seeds};
use crate::results::{MultidatasetGuide, ResultsFile};
use crate::{Error, Result};

/// Distance between the models of a dataset; the distance between datasets is 1.
const SHIFT: f64 = 0.12;

/// What to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Shows the 95 % t interval over seeds.
    pub show_confidence_intervals: bool,
}

/// Draws the results: datasets side by side, perplexity on a logarithmic axis, a point a model.
///
/// # Errors
/// [`Error::BadInput`] if the results hold no dataset.
pub fn draw(results: &ResultsFile, options: Options) -> Result<Drawing> {
    let of_record;
    let (guide, subtitle, footer) = match results {
        ResultsFile::Record(record) => {
            of_record = MultidatasetGuide::new(record);
            let wanted = &record.config.multidataset.datasets;
            let datasets = record.datasets.as_ref();
            let present =
                datasets.map_or(String::new(), |it| format!("{}.  ", it.in_words(wanted)));
            (&of_record, present, footer(record))
        }
        ResultsFile::Multidataset(guide) => (guide, String::new(), String::new()),
        _ => return Err(nothing("are those of another benchmark")),
    };
    if guide.datasets.is_empty() {
        return Err(nothing("hold no dataset"));
    }
    let figure = Figure {
        subtitle: format!("{subtitle}State reset after every window; mean over seeds."),
        footer,
        ..figure(guide, options)
    };
    Ok(Drawing {
        svg: figure.svg()?,
        notes: Vec::new(),
    })
}

fn nothing(problem: &str) -> Error {
    Error::bad_input(
        "the results",
        problem,
        "give those of `bkbench run --benchmark multidataset`",
    )
}

fn figure(guide: &MultidatasetGuide, options: Options) -> Figure {
    let mut models: Vec<&str> = Vec::new();
    for (name, _) in guide.datasets.iter().flat_map(|(_, models)| models) {
        if !models.contains(&name.as_str()) {
            models.push(name);
        }
    }
    let n_datasets = guide.datasets.len();
    let mut panel = Panel {
        x: -0.5..n_datasets as f64 - 0.5,
        categories: guide
            .datasets
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
        ..Panel::default()
    };
    let line = |colour, width, dashed, points| Line {
        colour,
        width,
        dashed,
        points,
    };
    let mut with_intervals = false;
    for (k, (dataset, entries)) in guide.datasets.iter().enumerate() {
        let x = k as f64;
        let first = entries.first().map(|(_, entry)| entry);
        if let Some(unigram) = first.and_then(|entry| entry.unigram_ppl) {
            let y = unigram.log10();
            let ends = vec![(x - 0.4, y), (x + 0.4, y)];
            panel.lines.push(line(NEUTRAL, 1, true, ends));
        }
        if let Some(entry) = first.filter(|entry| entry.trained_on != *dataset) {
            let note = format!("{dataset}: trained on {}", entry.trained_on);
            panel.notes.push(note);
        }
        for (name, entry) in entries {
            let i = models.iter().position(|model| model == name).unwrap_or(0);
            let x = x + (i as f64 - (models.len() as f64 - 1.0) / 2.0) * SHIFT;
            let Some(ppl) = entry.ppl else {
                panel
                    .notes
                    .push(format!("{name} on {dataset}: no perplexity"));
                continue;
            };
            let at = (x, ppl.log10());
            let (colour, cross) = (colour(i), false);
            panel.marks.push(Mark { colour, cross, at });
            // An interval that reaches below 1, where no perplexity lies, ends there.
            if let Some([low, high]) = entry.ci95.filter(|_| options.show_confidence_intervals) {
                with_intervals = true;
                let ends = [low, high].map(|end| (x, end.max(1.0).log10()));
                panel.lines.push(line(colour, 2, false, ends.to_vec()));
            }
        }
    }
    let key = |label: String, colour, sample| Key {
        label,
        colour,
        sample,
    };
    let n = |model: &str| {
        let entries = guide.datasets.iter().flat_map(|(_, entries)| entries);
        let of_model = entries.filter(|(name, _)| name == model);
        n_seeds(of_model.map(|(_, entry)| entry.n_seeds)).unwrap_or("0".into())
    };
    let mut legend: Vec<Key> = models
        .iter()
        .enumerate()
        .map(|(i, model)| {
            key(
                format!("{model} (n = {})", n(model)),
                colour(i),
                Sample::Line,
            )
        })
        .collect();
    if with_intervals {
        legend.push(key("bars: 95 % t interval".into(), NEUTRAL, Sample::Line));
    }
    legend.push(key(
        "token frequencies alone".into(),
        NEUTRAL,
        Sample::Dashed,
    ));
    Figure {
        title: format!("Held-out perplexity by dataset: {}", models.join(", ")),
        x_label: "dataset (texts differ in difficulty)".into(),
        y_label: "held-out perplexity per token".into(),
        log_y: true,
        legend,
        panels: vec![panel],
        ..Figure::default()
    }
}
