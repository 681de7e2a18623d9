//! A shard: all state of the slots that one core owns, the door that says who holds it, and what
//! runs on it. Knows no session and no ring.

pub mod batch;
pub mod door;
pub mod evict;
pub mod expire;
pub mod state;
pub mod waiters;
