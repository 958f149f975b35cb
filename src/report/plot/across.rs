//! Held-out loss and speed by adapter.

use super::Drawing;
use super::figure::{Figure, Key, Line, Mark, NEUTRAL, Panel, Sample, colour};
use crate::Result;
use crate::report::compare::{name, setting as title};
use crate::results::{AcrossAdapters, Place, Warning, WarningOn};
use crate::stats::Interval;

/// Settings shown; more panels would be too small to read.
const MAX_SETTINGS: usize = 3;

/// Draws two panels a setting: held-out loss by adapter, with the 95 % t interval, and tokens a second (of the training; of
/// a model in fewer bits, of the prefill) on a logarithmic axis. Adapters bear the numbers of the table.
///
/// # Errors
/// If it cannot be drawn.
pub fn draw(across: &AcrossAdapters) -> Result<Drawing> {
    let mut models: Vec<&str> = Vec::new();
    let mut settings: Vec<&Place> = Vec::new();
    for loss in &across.losses {
        if !models.contains(&loss.place.model.as_str()) {
            models.push(&loss.place.model);
        }
        if !settings.iter().any(|known| is_at(known, &loss.place)) {
            settings.push(&loss.place);
        }
    }
    let n_left_out = settings.len().saturating_sub(MAX_SETTINGS);
    settings.truncate(MAX_SETTINGS);
    let losses = settings.iter().map(|setting| {
        let mut panel = panel(
            across,
            format!("{}: held-out loss", title(setting, across)),
            None,
        );
        let here = across.losses.iter().filter(|it| is_at(&it.place, setting));
        for it in here {
            if let (Some(adapter), Some(loss)) = (it.place.adapter, it.nll_nats) {
                let at = (&models[..], it.place.model.as_str(), adapter);
                mark(&mut panel, at, loss.mean, loss.interval);
            }
        }
        panel
    });
    let speeds = settings.iter().map(|setting| {
        let mut panel = panel(
            across,
            format!("{}: speed", title(setting, across)),
            Some("tokens/s"),
        );
        let here = across.speeds.iter().filter(|it| is_at(&it.place, setting));
        for it in here.filter(|it| it.what != "decode") {
            if let (Some(adapter), Some(rate)) = (it.place.adapter, it.tokens_per_second) {
                let at = (&models[..], it.place.model.as_str(), adapter);
                mark(&mut panel, at, rate.mean.log10(), None);
            }
        }
        panel
    });
    let speeds = speeds.filter(|panel| !panel.marks.is_empty());
    let panels: Vec<Panel> = losses.chain(speeds).collect();
    let has_intervals = panels.iter().any(|panel| !panel.lines.is_empty());
    let of_model = |(i, model): (usize, &&str)| Key {
        label: (*model).to_owned(),
        colour: colour(i),
        sample: Sample::Dot,
    };
    let mut legend: Vec<Key> = models.iter().enumerate().map(of_model).collect();
    if has_intervals {
        legend.push(Key {
            label: "bar: 95 % t interval over seeds".into(),
            colour: NEUTRAL,
            sample: Sample::Line,
        });
    }
    let adapters = across.adapters.iter().enumerate();
    let adapters: Vec<String> = adapters
        .map(|(i, adapter)| format!("[{}] {}", i + 1, name(adapter)))
        .collect();
    let is_software = |it: &&WarningOn| matches!(it.warning, Warning::SoftwareAdapter { .. });
    let warnings = across.warnings.iter().filter(is_software);
    let mut footer: Vec<String> = warnings.map(|it| it.warning.to_string()).collect();
    if n_left_out > 0 {
        footer.push(format!(
            "{n_left_out} further setting(s) are in the table only"
        ));
    }
    let within = largest_shift(across).map_or(String::new(), |nats| {
        format!(": mean losses within {nats:.1e} nats of [1] at equal seeds")
    });
    let figure = Figure {
        title: format!("The same trainings on several adapters{within}"),
        subtitle: adapters.join("   "),
        footer: footer.join(".  "),
        x_label: "adapter".into(),
        y_label: "held-out loss (nats per token)".into(),
        legend,
        panels,
        ..Figure::default()
    };
    Ok(Drawing {
        svg: figure.svg()?,
        notes: Vec::new(),
    })
}

/// How far the others lie from the first adapter at equal seeds at most, which no axis of losses can show.
fn largest_shift(across: &AcrossAdapters) -> Option<f64> {
    let shifts = across.losses.iter().filter_map(|it| it.difference_nats);
    let paired = shifts.filter(|it| it.n_pairs > 0);
    paired.map(|it| it.mean.abs()).reduce(f64::max)
}

fn is_at(place: &Place, setting: &Place) -> bool {
    (place.fairness, place.benchmark, &place.setting)
        == (setting.fairness, setting.benchmark, &setting.setting)
}

fn panel(across: &AcrossAdapters, caption: String, other_y_label: Option<&str>) -> Panel {
    let n = across.adapters.len();
    Panel {
        caption,
        x: -0.5..n as f64 - 0.5,
        categories: (1..=n).map(|place| format!("[{place}]")).collect(),
        other_y_label: other_y_label.map(str::to_owned),
        ..Panel::default()
    }
}

/// Marks a value of a model on an adapter, models side by side so that they do not hide each other.
fn mark(
    panel: &mut Panel,
    (models, model, adapter): (&[&str], &str, usize),
    y: f64,
    interval: Option<Interval>,
) {
    let Some(i) = models.iter().position(|known| *known == model) else {
        return;
    };
    let x = adapter as f64 + (i as f64 - (models.len() as f64 - 1.0) / 2.0) * 0.15;
    let colour = colour(i);
    panel.marks.push(Mark {
        colour,
        cross: false,
        at: (x, y),
    });
    panel.lines.extend(interval.map(|it| Line {
        colour,
        width: 2,
        dashed: false,
        points: vec![(x, it.low), (x, it.high)],
    }));
}
