//! The generic family.

use crate::commands::spec::CommandSpec;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[];
