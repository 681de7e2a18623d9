//! The original's migration dialect, sans I/O: what a source sends for a key, how it counts what was
//! acknowledged, and what the process knows of the batches under way.
//!
//! A value is read from a snapshot ([`snapshot`]), cut into messages ([`stream`]) or dumped whole in
//! steps ([`payload`]); [`batch`] decides what is sent, what is awaited and when it has ended; [`wire`]
//! is the bytes of it. [`registry`] is what every core may ask. Knows no socket, no session and no
//! shard: `runtime::dialect` carries out what is decided here.

pub mod batch;
pub mod call;
pub mod payload;
pub mod registry;
pub mod snapshot;
pub mod stream;
pub mod wire;
