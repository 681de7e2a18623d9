//! The one error of this program: what went wrong, in one line, and the exit code it deserves.

use std::fmt;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The command line asks for something that cannot be: exit code 2.
    Usage(String),
    /// The run failed: exit code 1.
    Failed(String),
}

impl Fault {
    /// A wrong command line.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A run that cannot go on.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}
