//! Client sessions.

pub mod apart;
pub mod client;
pub mod guest;
pub mod session;
