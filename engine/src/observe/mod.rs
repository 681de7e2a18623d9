//! What a running server tells about itself beyond counters: slow calls, delays. Knows no session
//! and no shard.

pub mod graph;
pub mod latency;
pub mod slowlog;
