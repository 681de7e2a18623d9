//! The append log: what a server has done, on disk, so that it can be done again.
//!
//! Each core has a **file** of its own, into which its tape ([`journal::tape`](crate::journal::tape))
//! goes: whatever it has run, on whichever shard. The files of all cores that were begun together are
//! a **set**; a **manifest** names the sets that there are. Loading reads the files of all sets as one
//! stream, in the order of logical time, and gives each effect to the shard that has its slot now: so
//! the number of cores may change.
//!
//! - A set is begun when the server starts, and when the log is rewritten.
//! - **Rewriting**: every core begins with the next set; then the cores walk over their slots and
//!   record, between all else, what each key holds. When all slots have been walked and that is on
//!   disk, the new set says everything, the manifest says so, and older files are removed. Until then
//!   the older sets and the new one do, so the server may end at any moment. No copy of the data is
//!   made, no moment has to be the same on all cores.
//! - **What may be missing**: the end of a file, if the machine lost power or the process was killed.
//!   A frame whose ties are not met goes with what it follows from. What is left is a past of the
//!   server that respects causes: if an effect is there, so is all that it followed from.
//!
//! | file | |
//! |---|---|
//! | `appendonly.aof.cordis` | the manifest |
//! | `appendonly.aof.7.0.log` | set 7, core 0: [`files`] |
//!
//! Knows no session and no ring. Files are read and made by threads that are no cores; what cores
//! write goes through their rings, as [`writer`] says.

pub mod check;
pub mod desk;
pub mod files;
pub mod manifest;
pub mod merge;
pub mod read;
pub mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be used.
#[derive(Debug)]
pub enum LogError {
    /// The operating system refuses something.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A file is not what was written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The end of the log is missing, and that may not be (`aof-load-truncated no`).
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, what, error } => {
                write!(f, "the append log: {} cannot be {what}: {error}", path.display())
            }
            Self::Damaged { path, offset, reason } => write!(
                f,
                "the append log is damaged: {} at offset {offset}: {reason}",
                path.display()
            ),
            Self::Truncated { path, offset, reason } => write!(
                f,
                "the append log ends too early: {} at offset {offset}: {reason}; set \
                 aof-load-truncated to yes to go on without what is missing",
                path.display()
            ),
        }
    }
}

impl std::error::Error for LogError {}

impl LogError {
    pub(crate) fn io(path: &Path, what: &'static str, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), what, error }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
