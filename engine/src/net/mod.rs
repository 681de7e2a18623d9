//! Client sessions.

pub mod apart;
pub mod client;
pub mod session;
