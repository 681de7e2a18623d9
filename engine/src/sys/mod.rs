//! Every call to the operating system that the standard library does not wrap, behind safe
//! functions. Knows nothing of cores, sessions and data.

pub mod affinity;
pub mod limits;
pub mod malloc;
pub mod signal;
pub mod socket;
pub mod usage;
