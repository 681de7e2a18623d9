//! Client sessions.

pub mod client;
