//! Downloads of registered datasets from the Hugging Face hub.
//!
//! A file is downloaded beside the data (`.downloads` in the data folder), where an interrupted download goes on,
//! and takes its place when its length and sha256 are right. So a file in its place is whole.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::documents::prefix_sha256;
use super::registry::{Entry, Origin, Split, within};
use crate::units::Bytes;
use crate::{Error, Result};

/// The variable that names another hub.
const ENDPOINT: &str = "HF_ENDPOINT";

/// What [`fetch`] tells while it works.
#[derive(Debug)]
pub enum Event<'a> {
    /// Of a file, so many bytes of so many are here.
    Transfer {
        /// Path in the data folder.
        file: &'a str,
        /// Here.
        n_done: u64,
        /// In all.
        n_bytes: u64,
    },
    /// A file is in its place.
    Done {
        /// Path in the data folder.
        file: &'a str,
        /// Its length.
        n_bytes: Bytes,
        /// Its sha256, checked, where the hub tells it.
        sha256: Option<&'a str>,
    },
}

/// Downloads `entry` into the data folder `dir`: of a training split in numbered files the first `n_shards`, of the
/// rest what the registry says. Files that are there already stay.
///
/// # Errors
/// [`Error::BadInput`] for a dataset that is not on the hub, a hub that is not reached over HTTPS, a file that is
/// there with other bytes, or names that lead out of `dir`. [`Error::Download`] where the network or the hub fails;
/// [`Error::CheckFailed`] for bytes that are not those the hub names; [`Error::Io`] where the disk fails.
pub fn fetch(
    entry: &Entry,
    dir: &Path,
    n_shards: Option<usize>,
    report: &mut dyn FnMut(&Event<'_>),
) -> Result<()> {
    let Origin::Hub {
        repository,
        revision,
        folder,
    } = entry.origin
    else {
        return Err(Error::bad_input(
            format!("dataset {}", entry.name),
            "cannot be fetched",
            entry.advice(dir),
        ));
    };
    let downloads = dir.join(".downloads");
    let api = api(&downloads)?;
    let repo = Repo::with_revision(repository.into(), RepoType::Dataset, revision.into());
    let hub = Hub {
        blobs: downloads.join(repo.folder_name()).join("blobs"),
        snapshots: downloads.join(repo.folder_name()).join("snapshots"),
        repo: api.repo(repo),
        api,
    };
    for split in entry.splits {
        let Some(files) = split.hub else { continue };
        let n = match n_shards {
            Some(n) if split.split == Split::Train => n.clamp(files.n_fetched, files.n_files),
            _ => files.n_fetched,
        };
        for path in (0..n).map(|i| files.path(i)) {
            hub.download(&path, dir, &format!("{folder}/{path}"), report)?;
        }
    }
    if downloads.exists() {
        fs::remove_dir_all(&downloads).map_err(Error::io("remove", &downloads))?;
    }
    Ok(())
}

/// The hub, with its own layout of files in `downloads`. No token is sent: everything registered is public.
fn api(downloads: &Path) -> Result<Api> {
    let mut builder = ApiBuilder::from_cache(Cache::new(downloads.to_owned())).with_token(None);
    if let Some(endpoint) = std::env::var(ENDPOINT)
        .ok()
        .filter(|value| !value.is_empty())
    {
        let local = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        if !endpoint.starts_with("https://") && !local.iter().any(|host| endpoint.starts_with(host))
        {
            let advice = "give an address that starts with https://, or a server on this machine";
            return Err(Error::bad_input(ENDPOINT, format!("is {endpoint}"), advice));
        }
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').into());
    }
    builder.build().map_err(|error| failed("the hub", error))
}

struct Hub {
    api: Api,
    repo: ApiRepo,
    /// Where downloads grow, as `<etag>.part`.
    blobs: PathBuf,
    /// Links to what is whole.
    snapshots: PathBuf,
}

impl Hub {
    /// Brings `path` of the repository to `file` of the data folder.
    fn download(
        &self,
        path: &str,
        dir: &Path,
        file: &str,
        report: &mut dyn FnMut(&Event<'_>),
    ) -> Result<()> {
        let target = within(dir, file)?;
        let known = self.api.metadata(&self.repo.url(path));
        let known = known.map_err(|error| failed(file, error))?;
        // The hub's names become file names.
        for name in [known.etag(), known.commit_hash()] {
            within(&self.blobs, name)?;
            if name.contains('/') {
                return Err(Error::Download {
                    what: file.into(),
                    reason: format!("the hub names it {name}"),
                });
            }
        }
        let n_bytes = known.size() as u64;
        // Large files are named by their sha256.
        let is_sha256 = |tag: &&str| tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit());
        let sha256 = Some(known.etag()).filter(is_sha256);
        let is_right = |path: &Path| -> Result<bool> {
            let len = fs::metadata(path).map_err(Error::io("read", path))?.len();
            Ok(len == n_bytes
                && match sha256 {
                    Some(sha256) => prefix_sha256(path, n_bytes)? == sha256,
                    None => true,
                })
        };
        let done = Event::Done {
            file,
            n_bytes: Bytes(n_bytes),
            sha256,
        };
        if target.exists() {
            if !is_right(&target)? {
                return Err(Error::bad_input(
                    target.display().to_string(),
                    "is another file than the hub's",
                    "move it away",
                ));
            }
            report(&done);
            return Ok(());
        }
        // Of a part that is as long as the whole there is nothing left to ask for, which the hub takes amiss.
        let part = self.blobs.join(known.etag()).with_extension("part");
        if fs::metadata(&part).is_ok_and(|part| part.len() >= n_bytes) {
            fs::remove_file(&part).map_err(Error::io("remove", &part))?;
        }
        // A link that an earlier download left behind would be in the way of this one's.
        if self.snapshots.exists() {
            fs::remove_dir_all(&self.snapshots).map_err(Error::io("remove", &self.snapshots))?;
        }
        let transfer = Transfer {
            file,
            n_done: 0,
            n_bytes,
            report: &mut *report,
        };
        let link = self.repo.download_with_progress(path, transfer);
        let link = link.map_err(|error| failed(file, error))?;
        let blob = fs::canonicalize(&link).map_err(Error::io("read", &link))?;
        if !is_right(&blob)? {
            fs::remove_file(&blob).map_err(Error::io("remove", &blob))?;
            return Err(Error::CheckFailed(format!(
                "{file}: what was downloaded is not what the hub names ({}, {}); it was thrown away, try again",
                Bytes(n_bytes),
                known.etag()
            )));
        }
        let folder = target.parent().unwrap_or(dir);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        fs::rename(&blob, &target).map_err(Error::io("write", &target))?;
        report(&done);
        Ok(())
    }
}

fn failed(what: &str, error: ApiError) -> Error {
    match error {
        ApiError::IoError(cause) if crate::error::is_full(cause.kind()) => {
            Error::io("write", what)(cause)
        }
        error => Error::Download {
            what: what.into(),
            reason: error.to_string(),
        },
    }
}

/// Tells of a download.
struct Transfer<'a> {
    file: &'a str,
    n_done: u64,
    n_bytes: u64,
    report: &'a mut dyn FnMut(&Event<'_>),
}

impl Progress for Transfer<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.n_done = 0;
    }

    fn update(&mut self, n_bytes: usize) {
        self.n_done += n_bytes as u64;
        (self.report)(&Event::Transfer {
            file: self.file,
            n_done: self.n_done,
            n_bytes: self.n_bytes,
        });
    }

    fn finish(&mut self) {}
}
