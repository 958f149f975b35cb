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

use super::LanguageModel;
use super::matrix::Matrix;
use super::quantised::Place;
use crate::hardware::read::guarded;
use crate::quant::Layout;
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
}

/// The header and the tensors of a file.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}
