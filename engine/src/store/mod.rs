//! Storage of one shard: tables of entries per slot and database, deadlines, lazy freeing.
//! Must not know `net`, `resp::parse` or `runtime`.

pub mod entry;
pub mod expire;
pub mod free;
pub mod keyspace;
pub mod table;
