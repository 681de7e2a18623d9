//! The tests of a proxy once more, for one that lives in a server's process: the server of the first
//! group is the one that it lives in.
#![allow(clippy::duplicate_mod, reason = "each of these files has what they share for itself")]

#[path = "clients.rs"]
mod clients;
#[path = "fixtures.rs"]
mod fixtures;
#[path = "hostile.rs"]
mod hostile;
