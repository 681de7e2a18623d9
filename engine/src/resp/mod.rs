//! The protocol: bytes to words, replies to bytes, numbers and error texts. Knows no command.

pub mod answer;
pub mod error;
pub mod longdouble;
pub mod number;
pub mod parse;
pub mod reply;
pub mod scan;
pub mod value;
