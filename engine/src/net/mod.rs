//! Client sessions.

pub mod client;
pub mod session;
