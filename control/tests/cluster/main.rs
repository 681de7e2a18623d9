//! The whole cluster as processes: a history checker while slots move, faults at every stage of a
//! move, and what an operator meets: a cancelled move, a dead target, a full target, `cordis up`.
//!
//! `CORDIS_CLUSTER_SECONDS` lengthens the histories, `CORDIS_CLUSTER_SEED` repeats one's calls.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod cases;
mod faults;
mod harness;
mod history;
