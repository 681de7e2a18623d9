//! What tests with processes share: a proxy with its servers, a client that sees raw bytes, and
//! waiting without sleeping blindly.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]
#![allow(dead_code, reason = "every test binary compiles all of it and uses its part")]

#[path = "../../../server/tests/common/client.rs"]
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod fake;
#[path = "../../../engine/tests/common/mod.rs"]
pub(crate) mod shared;

use std::time::{Duration, Instant};

/// Asks `done` until it gives something, at most for `limit`; then panics with `what`.
pub(crate) fn eventually<T>(limit: Duration, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether `is_so` comes true within `limit`.
pub(crate) fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    true
}
