//! Small multiples on one canvas: a title, a legend, and panels with a common vertical axis.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{SIZE, undrawable};
use crate::Result;
use crate::units::Count;

/// Okabe and Ito's palette without yellow: distinct for every common form of colour blindness, and in grey.
const PALETTE: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];
/// For what belongs to no model.
pub(super) const NEUTRAL: RGBColor = RGBColor(80, 80, 80);
/// For the second thing of that kind.
pub(super) const NEUTRAL_LIGHT: RGBColor = RGBColor(150, 150, 150);

/// Colour of the model with this index.
pub(super) fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

const HEADER: u32 = 104;
/// A line of the footer, and the letters of it that fit.
const FOOTER_LINE: u32 = 16;
const FOOTER_LETTERS: usize = 190;
const MARGIN: i32 = 20;
/// plotters writes a font size divided by this into the SVG.
const FONT_UNIT: f64 = 1.24;

/// What is drawn.
#[derive(Debug, Default)]
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) footer: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    /// Whether x holds decimal logarithms.
    pub(super) log_x: bool,
    /// Whether y holds decimal logarithms, to be labelled with what they are of.
    pub(super) log_y: bool,
    pub(super) legend: Vec<Key>,
    pub(super) panels: Vec<Panel>,
}

/// An entry of the legend.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) label: String,
    pub(super) colour: RGBColor,
    pub(super) sample: Sample,
}

/// What stands before the text of a legend entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    Line,
    Dashed,
    Band,
    Cross,
    Dot,
}

/// One set of axes.
#[derive(Debug, Default)]
pub(super) struct Panel {
    pub(super) caption: String,
    /// Lines of small print inside the axes.
    pub(super) notes: Vec<String>,
    pub(super) x: Range<f64>,
    /// Names of x = 0, 1, ...; numbers where empty.
    pub(super) categories: Vec<String>,
    /// Label of y where it is the decimal logarithm of another quantity than the figure's, one for all such panels.
    pub(super) other_y_label: Option<String>,
    pub(super) bands: Vec<Band>,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
}

/// A shaded region; may reach out of the axes, which are scaled to lines and marks.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) colour: RGBColor,
    /// x, lower and upper end.
    pub(super) points: Vec<(f64, f64, f64)>,
}

/// A curve.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) colour: RGBColor,
    pub(super) width: u32,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// A single point.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) colour: RGBColor,
    pub(super) cross: bool,
    pub(super) at: (f64, f64),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Figure {
    /// Draws it as an SVG document of [`SIZE`].
    pub(super) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area())
            .map_err(undrawable)?;
        Ok(svg)
    }

    fn draw(&self, root: &Area<'_>) -> Drawn {
        root.fill(&WHITE)?;
        text(root, &self.title, (MARGIN, 14), 22.0, BLACK)?;
        text(root, &self.subtitle, (MARGIN, 46), 13.5, NEUTRAL)?;
        let footer = lines(&self.footer, FOOTER_LETTERS);
        let footer_height = 10 + FOOTER_LINE * footer.len().max(1) as u32;
        for (i, line) in (0..).zip(&footer) {
            let y = SIZE.1 - footer_height + 4 + FOOTER_LINE * i;
            text(root, line, (MARGIN, y.cast_signed()), 12.0, NEUTRAL)?;
        }
        self.draw_legend(root)?;

        let (_, below) = root.split_vertically(HEADER);
        let (body, _) = below.split_vertically(SIZE.1 - HEADER - footer_height);
        let n_columns = match self.panels.len() {
            4 => 2,
            n @ 0..=9 => n.clamp(1, 3),
            _ => 4,
        };
        let n_rows = self.panels.len().div_ceil(n_columns).max(1);
        let ranges = [self.y_range(false), self.y_range(true)];
        let mut was_other = false;
        for (i, (panel, area)) in self
            .panels
            .iter()
            .zip(body.split_evenly((n_rows, n_columns)))
            .enumerate()
        {
            let label = panel.other_y_label.as_ref().unwrap_or(&self.y_label);
            let is_other = panel.other_y_label.is_some();
            let is_labelled = i % n_columns == 0 || is_other != was_other;
            was_other = is_other;
            panel.draw(
                &area,
                (
                    ranges[usize::from(is_other)].clone(),
                    [self.log_x, self.log_y || is_other],
                ),
                &self.x_label,
                if is_labelled { label } else { "" },
            )?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_legend(&self, root: &Area<'_>) -> Drawn {
        const SIZE_OF_TEXT: f64 = 14.0;
        let (mut x, mut y) = (MARGIN, 82);
        for key in &self.legend {
            // The font's letters are a little narrower than half their size on average.
            let width = 36 + (key.label.chars().count() as f64 * SIZE_OF_TEXT * 0.5) as i32;
            if x > MARGIN && x + width > SIZE.0.cast_signed() - MARGIN {
                (x, y) = (MARGIN, y + 22);
            }
            match key.sample {
                Sample::Line => {
                    root.draw(&PathElement::new(
                        [(x, y), (x + 28, y)],
                        key.colour.stroke_width(3),
                    ))?;
                }
                Sample::Dashed => {
                    for start in [x, x + 11, x + 22] {
                        root.draw(&PathElement::new(
                            [(start, y), (start + 6, y)],
                            key.colour.stroke_width(2),
                        ))?;
                    }
                }
                Sample::Band => {
                    let corners = [(x, y - 6), (x + 28, y + 6)];
                    root.draw(&Rectangle::new(corners, key.colour.mix(0.25).filled()))?;
                }
                Sample::Dot => {
                    root.draw(&Circle::new((x + 14, y), 5, key.colour.filled()))?;
                }
                Sample::Cross => {
                    root.draw(&Cross::new((x + 14, y), 6, key.colour.stroke_width(3)))?;
                }
            }
            text(root, &key.label, (x + 36, y - 8), SIZE_OF_TEXT, BLACK)?;
            x += width + 26;
        }
        Ok(())
    }

    /// The range of all lines and marks of one quantity with some air.
    fn y_range(&self, is_other: bool) -> Range<f64> {
        let panels = || {
            let all = self.panels.iter();
            all.filter(|panel| panel.other_y_label.is_some() == is_other)
        };
        let lines = panels()
            .flat_map(|panel| &panel.lines)
            .flat_map(|line| &line.points);
        let marks = panels().flat_map(|panel| &panel.marks).map(|mark| &mark.at);
        let (low, high) = lines.chain(marks).fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(low, high), &(_, y)| (low.min(y), high.max(y)),
        );
        if low > high {
            return 0.0..1.0;
        }
        let air = ((high - low) * 0.06).max(0.02);
        low - air..high + air
    }
}

impl Panel {
    fn draw(
        &self,
        area: &Area<'_>,
        (y, [log_x, log_y]): (Range<f64>, [bool; 2]),
        x_label: &str,
        y_label: &str,
    ) -> Drawn {
        let font = |size: f64| ("sans-serif", size * FONT_UNIT).into_font();
        // Powers of ten may be long.
        let for_y = if log_y { 14 } else { 0 };
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(MARGIN)
            .caption(&self.caption, font(16.0))
            .x_label_area_size(44)
            .y_label_area_size(for_y + if y_label.is_empty() { 36 } else { 58 })
            .build_cartesian_2d(self.x.clone(), y.clone())?;
        let category = |x: &f64| match self.categories.get(x.round() as usize) {
            Some(name) if (x - x.round()).abs() < 1e-9 && x.round() >= 0.0 => name.clone(),
            _ if log_x => power(10_f64.powf(*x)),
            _ if self.categories.is_empty() => format!("{x:.0}"),
            _ => String::new(),
        };
        let decimals = usize::from(y.end - y.start < 2.0) + usize::from(y.end - y.start < 0.5) + 1;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(NEUTRAL)
            .x_labels(n_labels(&self.x, log_x, self.categories.len().max(6)))
            .y_labels(n_labels(&y, log_y, 8))
            .x_label_formatter(&category)
            .y_label_formatter(&|&y| {
                if log_y {
                    short(10_f64.powf(y))
                } else {
                    format!("{y:.decimals$}")
                }
            })
            .label_style(font(12.0).color(&NEUTRAL))
            .axis_desc_style(font(13.0).color(&BLACK))
            .x_desc(x_label)
            .y_desc(y_label)
            .draw()?;
        for band in &self.bands {
            let inside = |value: f64| value.clamp(y.start, y.end);
            let lower = band.points.iter().map(|&(x, low, _)| (x, inside(low)));
            let upper = band
                .points
                .iter()
                .rev()
                .map(|&(x, _, high)| (x, inside(high)));
            let outline: Vec<(f64, f64)> = lower.chain(upper).collect();
            chart.draw_series([Polygon::new(outline, band.colour.mix(0.18).filled())])?;
        }
        for line in &self.lines {
            let style = line.colour.stroke_width(line.width);
            let points = line.points.iter().copied();
            if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 5, style))?;
            } else {
                chart.draw_series(LineSeries::new(points, style))?;
            }
        }
        for mark in &self.marks {
            if mark.cross {
                chart.draw_series([Cross::new(mark.at, 6, mark.colour.stroke_width(3))])?;
            } else {
                chart.draw_series([Circle::new(mark.at, 4, mark.colour.filled())])?;
            }
        }
        let (columns, rows) = chart.plotting_area().get_pixel_range();
        let (left, top) = area.get_base_pixel();
        let style = font(12.0)
            .color(&NEUTRAL)
            .pos(Pos::new(HPos::Right, VPos::Top));
        for (i, note) in (0..).zip(&self.notes) {
            let at = (columns.end - left - 8, rows.start - top + 8 + 17 * i);
            area.draw(&Text::new(note.as_str(), at, style.clone()))?;
        }
        Ok(())
    }
}

/// The words of `text` in lines of at most so many letters, where no word is longer.
fn lines(text: &str, n_letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= n_letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// How many labels an axis has room for: of powers of ten only whole ones, where there are several.
fn n_labels(range: &Range<f64>, log: bool, most: usize) -> usize {
    let decades = (range.end - range.start).floor() as usize;
    if log && decades > 1 {
        most.min(decades + 1)
    } else {
        most
    }
}

/// A value on a logarithmic axis of x.
fn power(value: f64) -> String {
    if (0.01..1e4).contains(&value) {
        short(value)
    } else {
        format!("{value:.1e}")
    }
}

/// At most three significant digits.
fn short(value: f64) -> String {
    if value >= 1000.0 {
        let unit = 10_f64.powf(value.log10().floor() - 2.0);
        return Count(((value / unit).round() * unit) as u64).to_string();
    }
    let decimals = (2.0 - value.log10().floor()).clamp(0.0, 6.0) as usize;
    let digits = format!("{value:.decimals$}");
    if decimals == 0 {
        return digits;
    }
    digits.trim_end_matches('0').trim_end_matches('.').into()
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: f64, colour: RGBColor) -> Drawn {
    area.draw(&Text::new(
        text,
        at,
        ("sans-serif", size * FONT_UNIT).into_font().color(&colour),
    ))
}
