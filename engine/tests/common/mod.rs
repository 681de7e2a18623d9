//! What tests share: words of a command line, replies as raw bytes, fixture files, seeded chance
//! and random calls. Knows no process and no socket; `server/tests` builds on it.
#![allow(dead_code, reason = "every test binary compiles all of it and uses its part")]

pub(crate) mod calls;
pub(crate) mod fixture;
pub(crate) mod reply;
pub(crate) mod rng;
pub(crate) mod words;
