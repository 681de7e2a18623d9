//! The protocol: bytes to words, replies to bytes, numbers and error texts. Knows no command.

pub mod error;
pub mod number;
pub mod reply;
