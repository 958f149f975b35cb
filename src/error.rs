//! The one error type: variants carry data, messages say what to do.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::units::Bytes;

/// Result of everything that can fail in bkbench.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. [`Error::exit_code`] tells bad input (2) from a broken run (1) and from results that do not belong
/// together (3).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- bad input: found before any long work starts ----
    /// A flag, file or value the user gave cannot be used.
    #[error("{what}: {problem}; {advice}")]
    BadInput {
        /// The flag, file or key, as the user wrote it.
        what: String,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        advice: String,
    },
    /// A configuration with one or more problems, all of them named.
    #[error("the configuration has {} problem(s): {}", problems.len(), problems.join("; "))]
    Config {
        /// What must hold and does not.
        problems: Vec<String>,
    },
    /// A name that is not registered.
    #[error("unknown {kind} '{name}'; known: {}", known.join(", "))]
    UnknownName {
        /// What kind of thing was looked up ("model", "preset", ...).
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A tensor of the wrong shape was handed to a public operation.
    #[error("{op}: {arg} must have shape {expected}, got {got:?}")]
    Shape {
        /// Operation.
        op: &'static str,
        /// Argument.
        arg: &'static str,
        /// Expected shape, in words or numbers.
        expected: String,
        /// The shape given.
        got: Vec<usize>,
    },
    /// A value outside the domain of an operation, with the first offending index.
    #[error("{op}: {arg} must be {requirement}, but element {index:?} is {value}")]
    Domain {
        /// Operation.
        op: &'static str,
        /// Argument.
        arg: &'static str,
        /// What is required.
        requirement: &'static str,
        /// Index of the first offender, in the argument's own axes.
        index: Vec<usize>,
        /// Its value.
        value: f64,
    },

    // ---- results that do not belong together ----
    /// Results that may not be compared, or joined.
    #[error("{what}: {}; {advice}", differences.join("; "))]
    NotComparable {
        /// Which results, and what may not be done with them.
        what: String,
        /// Every value in which they differ, with both values.
        differences: Vec<String>,
        /// What the user can do.
        advice: String,
    },

    // ---- the run broke ----
    /// A file operation failed.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was attempted ("read", "write", "create", ...).
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause, part of the message and therefore no `source`.
        cause: std::io::Error,
    },
    /// A file could not be downloaded.
    #[error(
        "cannot download {what}: {reason}; what has arrived is kept, and the same command goes on"
    )]
    Download {
        /// The file.
        what: String,
        /// What the network, or the other side, said.
        reason: String,
    },
    /// The device failed, or a value could not be read back from it.
    #[error("device failure while {doing}: {reason}")]
    Device {
        /// What was being done.
        doing: String,
        /// What the backend said.
        reason: String,
    },
    /// More memory was needed than there is, or than is allowed. No divergence, and no fault of the device.
    #[error("out of memory while {doing}{}{}", asked(requested.as_ref()), allowed(limit.as_ref()))]
    OutOfMemory {
        /// What was being done.
        doing: String,
        /// What was asked for, where the driver says so; beyond a limit all that was in use.
        requested: Option<Bytes>,
        /// What was allowed, where that was the limit.
        limit: Option<Bytes>,
    },
    /// A kernel that does not parse, validate, specialise or translate.
    #[error("kernel {kernel}: {reason}")]
    Shader {
        /// Catalog name.
        kernel: String,
        /// The report.
        reason: String,
    },
    /// Somebody asked for the end, and what was done so far is on the disk.
    #[error("interrupted")]
    Interrupted,
    /// A run that began has stopped; nothing that it finished is lost.
    #[error("{cause}; {advice}: bkbench resume {}", run.display())]
    Stopped {
        /// Its folder.
        run: PathBuf,
        /// What stopped it.
        cause: Box<Error>,
        /// What to do before it is resumed.
        advice: &'static str,
    },
    /// A check that the command exists to make did not pass.
    #[error("{0}")]
    CheckFailed(String),
}

impl Error {
    /// Exit code of the process: 2 for bad input, 3 for results that do not belong together, 130 for an interruption,
    /// 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadInput { .. }
            | Self::Config { .. }
            | Self::UnknownName { .. }
            | Self::Shape { .. }
            | Self::Domain { .. } => 2,
            Self::NotComparable { .. } => 3,
            Self::Interrupted => 130,
            Self::Stopped { cause, .. } => cause.exit_code(),
            Self::Io { .. }
            | Self::Download { .. }
            | Self::Device { .. }
            | Self::OutOfMemory { .. }
            | Self::Shader { .. }
            | Self::CheckFailed(_) => 1,
        }
    }

    /// This error as the end of the run in `run`, with the way to go on.
    #[must_use]
    pub fn stopped(self, run: &Path) -> Self {
        let advice = match &self {
            Self::Io { cause, .. } if is_full(cause.kind()) => {
                "what is finished is kept; free some space, then go on with"
            }
            Self::Interrupted => "what is done is kept; go on with",
            _ => "what is finished is kept; once that is mended, go on with",
        };
        Self::Stopped {
            run: run.to_owned(),
            cause: Box::new(self),
            advice,
        }
    }

    /// A [`Error::BadInput`] from anything that prints.
    pub fn bad_input(
        what: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::BadInput {
            what: what.into(),
            problem: problem.into(),
            advice: advice.into(),
        }
    }

    /// Wraps an I/O error with the action and the path.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io {
            action,
            path,
            cause,
        }
    }
}

fn asked(requested: Option<&Bytes>) -> String {
    requested.map_or(String::new(), |bytes| format!(": {bytes} needed"))
}

fn allowed(limit: Option<&Bytes>) -> String {
    limit.map_or(String::new(), |bytes| format!(", {bytes} allowed"))
}

/// Whether a write failed for want of room: on the disk, in the user's quota, or under the process's limit.
pub(crate) fn is_full(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}
