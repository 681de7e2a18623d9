//! The engine of Cordis: a runtime of pinned cores, the Redis protocol, slots, commands and their
//! data. See `engine/README.md` for the map and the life of a request.
#![deny(unsafe_code)]

#[macro_use]
pub mod units;

pub mod commands;
pub mod config;
pub mod gates;
pub mod journal;
pub mod metrics;
pub mod migrate;
pub mod net;
pub mod node;
pub mod observe;
pub mod persist;
pub mod process;
pub mod pubsub;
pub mod rdb;
pub mod resp;
#[expect(unsafe_code, reason = "memory shared with the kernel and between cores; see its files")]
pub mod runtime;
#[expect(unsafe_code, reason = "the door turns \"this core holds it\" into `&mut`; see its header")]
pub mod shard;
pub mod slots;
#[expect(unsafe_code, reason = "entries and segments are raw memory; see their headers")]
pub mod store;
mod sync;
#[expect(unsafe_code, reason = "calls to the operating system; see its header")]
pub mod sys;
pub mod types;
