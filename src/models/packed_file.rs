//! Quantised models as safetensors files.
//!
//! A packed matrix is one tensor of type U32, `<path>.words`, in the layout of [`Layout`]; everything else is F32 under
//! its path. The metadata's `packed` is a JSON object that maps the paths of packed matrices to their width, rows and
//! columns.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use burn::store::{ModuleSnapshot, SafetensorsStore};
use serde::Deserialize;

use super::LanguageModel;
use super::matrix::Matrix;
use super::quantised::{Part, Place};
use crate::hardware::read::guarded;
use crate::ops::packed_matmul::PackedTensor;
use crate::quant::{Layout, PackedMatrix};
use crate::units::Bytes;
use crate::{Error, Result};

const PACKED: &str = "packed";

/// What a file takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSize {
    /// The header: names, shapes, metadata.
    pub header: Bytes,
    /// The tensors.
    pub tensors: Bytes,
}

/// The part of a file's header that is ours.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
}

impl LanguageModel {
    /// Writes the model to a new file.
    ///
    /// # Errors
    /// [`Error::Io`] when there is such a file already or it cannot be written; a device that fails.
    pub fn save_packed(&self, path: &Path) -> Result<FileSize> {
        let layouts: BTreeMap<String, Layout> = self
            .clone()
            .parts()
            .into_iter()
            .filter_map(|part| match part.place {
                Place::Matrix(Matrix::Packed(matrix)) => Some((part.path, matrix.layout())),
                _ => None,
            })
            .collect();
        let layouts = serde_json::to_string(&layouts)
            .map_err(|error| Error::io("write", path)(error.into()))?;
        let bytes = guarded("reading a quantised model", || {
            let mut store = SafetensorsStore::from_bytes(None).metadata(PACKED, layouts);
            self.save_into(&mut store).map_err(|e| format!("{e:?}"))?;
            store.get_bytes().map_err(|e| format!("{e:?}"))
        })?;
        let write = || {
            let mut file = fs::File::create_new(path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(Error::io("write", path))?;
        let tensors = split(&bytes).map_or(0, |(_, tensors)| tensors.len());
        Ok(FileSize {
            header: Bytes((bytes.len() - tensors) as u64),
            tensors: Bytes(tensors as u64),
        })
    }

    /// This model, dense and of the file's shape, with the file's weights and with its packed matrices packed.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::BadInput`] when it is no such file, or of another shape.
    pub fn load_packed(mut self, path: &Path) -> Result<Self> {
        let unfit = |problem: String| {
            let advice = "name a file of a quantised model of this shape";
            Error::bad_input(path.display().to_string(), problem, advice)
        };
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let (header, _) = split(&bytes).ok_or_else(|| unfit("is truncated".into()))?;
        let header: Header = serde_json::from_slice(header)
            .map_err(|error| unfit(format!("has no header of a quantised model: {error}")))?;
        let layouts = header.metadata.get(PACKED).map_or("{}", String::as_str);
        let mut layouts: BTreeMap<String, Layout> = serde_json::from_str(layouts)
            .map_err(|error| unfit(format!("has bad metadata: {error}")))?;
        for part in self.parts() {
            if let Some(layout) = layouts.remove(&part.path) {
                make_room(part, layout).map_err(unfit)?;
            }
        }
        if let Some((path, _)) = layouts.pop_first() {
            return Err(unfit(format!("packs '{path}', which the model lacks")));
        }
        let applied = guarded("loading a quantised model", || {
            let mut store = SafetensorsStore::from_bytes(Some(bytes));
            Ok(self.load_from(&mut store))
        })?;
        let applied = applied.map_err(|error| unfit(error.to_string()))?;
        if applied.unused.is_empty() {
            Ok(self)
        } else {
            let names = applied.unused.join(", ");
            Err(unfit(format!("has tensors that the model lacks: {names}")))
        }
    }
}

/// The header and the tensors of a file.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// Puts zeros of `layout` where a dense matrix of its shape is; says why it cannot.
fn make_room(part: Part<'_>, layout: Layout) -> Result<(), String> {
    let fits = part.packed_layout(layout.width) == Some(layout);
    match part.place {
        Place::Matrix(matrix) if fits => {
            let words = vec![0; layout.n_words()];
            let device = matrix.device();
            *matrix = Matrix::Packed(PackedTensor::new(PackedMatrix { layout, words }, &device));
            Ok(())
        }
        _ => {
            let Layout { rows, columns, .. } = layout;
            let path = part.path;
            Err(format!(
                "has '{path}' as [{rows}, {columns}], the model not"
            ))
        }
    }
}
