//! Text files: a document each.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::Item;
use super::bytes::{damaged, not_utf8, open};

/// The whole of `path`, as the only item.
pub(super) fn whole(path: &Path, n_read: &Arc<AtomicU64>) -> std::iter::Once<Item> {
    std::iter::once(read(path, n_read))
}

fn read(path: &Path, n_read: &Arc<AtomicU64>) -> Item {
    let mut bytes = Vec::new();
    open(path, n_read)?
        .read_to_end(&mut bytes)
        .map_err(|error| {
            damaged(
                path,
                &format!(" after {} bytes of text", bytes.len()),
                &error,
            )
        })?;
    let text = String::from_utf8(bytes);
    text.map(Some)
        .map_err(|error| not_utf8(path, "", error.utf8_error().valid_up_to() as u64))
}
