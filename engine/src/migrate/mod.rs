//! Moving slots to other servers: what is decided on the way, without any socket.
//!
//! [`dialect`] is the original's way of doing it.

pub mod ask;
pub mod books;
pub mod cluster;
pub mod dialect;
pub mod digest;
pub mod disk;
pub mod machine;
#[cfg(test)]
mod machine_tests;
pub mod scan;
pub mod send;
