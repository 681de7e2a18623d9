//! The server family: what concerns the process as a whole. One file per container; each has its
//! specs on top.

pub mod append;
pub mod config;
pub mod debug;
pub mod digest;
pub mod info;
mod info_text;
pub mod latency;
pub mod lolwut;
pub mod memory;
pub mod monitor;
pub mod process;
pub mod shutdown;
pub mod slowlog;
