//! Plots. Each is drawn once, as SVG; PNG and PDF are made from that drawing, so that the three never differ.

pub mod across;
pub mod efficiency;
mod figure;
pub mod kernels;
pub mod multidataset;
pub mod quantization;
pub mod stability;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::results::{RunRecord, Warning, problems, write_whole};
use crate::{Error, Result};

/// Width and height of a drawing, in SVG pixels.
pub const SIZE: (u32, u32) = (1200, 700);

/// PNG pixels a SVG pixel.
const PNG_SCALE: f32 = 2.0;

/// The font of PNG and PDF; an SVG is shown in the viewer's own sans-serif.
const FONT: &[u8] = include_bytes!("../../../assets/fonts/LiberationSans-Regular.ttf");
const FONT_FAMILY: &str = "Liberation Sans";

/// A file format for drawings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Scalable, for the web.
    Svg,
    /// Pixels.
    Png,
    /// For print.
    Pdf,
}

impl Format {
    /// The format a file name asks for.
    ///
    /// # Errors
    /// [`Error::BadInput`] unless it ends in `.svg`, `.png` or `.pdf`.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            Some("pdf") => Ok(Self::Pdf),
            _ => Err(Error::bad_input(
                format!("--output {}", path.display()),
                "no known picture format",
                "let the name end in .svg, .png or .pdf",
            )),
        }
    }
}

/// What stands below the drawing of a record: what makes it less than it says, and what to know of its numbers.
fn footer(record: &RunRecord) -> String {
    let caveats = record.warnings.iter().filter(|warning| {
        matches!(
            warning,
            Warning::TooFewSteps { .. }
                | Warning::NotCausal { .. }
                | Warning::SoftwareAdapter { .. }
                | Warning::FewSeeds { .. }
                | Warning::GivenWeights { .. }
        )
    });
    problems(record)
        .into_iter()
        .chain(caveats.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(".  ")
}

/// `3`, or `0 to 3` where the numbers of completed seeds differ.
fn n_seeds(counts: impl Iterator<Item = usize>) -> Option<String> {
    let counts: Vec<usize> = counts.collect();
    let (least, most) = (counts.iter().min()?, counts.iter().max()?);
    Some(if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    })
}

/// A finished drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// The SVG document.
    pub svg: String,
    /// What was asked for and is not in the data.
    pub notes: Vec<String>,
}

impl Drawing {
    /// The drawing as the bytes of a file.
    ///
    /// # Errors
    /// If a converter fails.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>> {
        match format {
            Format::Svg => Ok(self.svg.clone().into_bytes()),
            Format::Png => self.png(),
            Format::Pdf => svg2pdf::to_pdf(
                &self.tree()?,
                svg2pdf::ConversionOptions::default(),
                svg2pdf::PageOptions::default(),
            )
            .map_err(undrawable),
        }
    }

    /// Writes the drawing in the format the name asks for; an older picture of that name is replaced.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the name asks for no known format or the folder cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.encode(Format::of(path)?)?;
        write_whole(path, true, |file| file.write_all(&bytes)).map_err(|error| {
            Error::bad_input(
                format!("--output {}", path.display()),
                format!("cannot be written: {error}"),
                "name a file in a folder in which you may write",
            )
        })
    }

    fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = (SIZE.0 as f32 * PNG_SCALE, SIZE.1 as f32 * PNG_SCALE);
        let mut pixels = Pixmap::new(width as u32, height as u32)
            .ok_or_else(|| undrawable("the picture is empty"))?;
        resvg::render(
            &self.tree()?,
            Transform::from_scale(PNG_SCALE, PNG_SCALE),
            &mut pixels.as_mut(),
        );
        pixels.encode_png().map_err(undrawable)
    }

    fn tree(&self) -> Result<Tree> {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family(FONT_FAMILY);
        let options = Options {
            fontdb: Arc::new(fonts),
            ..Options::default()
        };
        Tree::from_str(&self.svg, &options).map_err(undrawable)
    }
}

fn undrawable(error: impl std::fmt::Display) -> Error {
    Error::CheckFailed(format!("cannot draw: {error}"))
}
