//! Commands: what each is (`spec`), and each family's handlers. A handler runs to completion on
//! `&mut` data: no await, no I/O, no lock, no mail; time and chance come from its context.

pub mod args;
pub mod bare;
pub mod bitmap;
pub mod blocking;
pub mod chance;
pub mod collect;
pub mod connection;
pub mod cordis;
pub mod ctx;
pub mod dispatch;
pub mod docs;
pub mod generic;
pub mod glob;
pub mod hash;
pub mod held_keys;
pub mod hyperloglog;
pub mod keys;
pub mod list;
pub mod long;
pub mod pubsub;
pub mod server;
pub mod session_ctx;
pub mod set;
pub mod slots;
pub mod spec;
pub mod string;
pub mod table;
pub mod txn;
pub mod words;
pub mod zset;
