//! Routing of client sessions to backends: slot map, links, split and merge. See `proxy/README.md`
//! for the map and the life of a request.
#![forbid(unsafe_code)]

pub mod admin;
pub mod asks;
pub mod backend;
mod census;
pub mod config;
pub mod core;
mod dedicated;
mod detour;
pub mod encode;
pub mod hub;
pub mod info;
mod intake;
pub mod link;
mod links;
pub mod listen;
pub mod local;
pub mod map_file;
mod merge;
pub mod process;
mod pubsub;
mod replies;
mod request;
pub mod route;
mod scan;
pub mod secret;
pub mod session;
pub mod settings;
pub mod shared;
mod split;
pub mod stats;
pub mod tenant;
mod txn;
pub mod ways;
mod wide;
