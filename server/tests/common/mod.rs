//! What tests with processes share: starting and stopping servers, a client that sees raw bytes,
//! neighbours that measure latency, and waiting without sleeping blindly.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]
#![allow(dead_code, reason = "every test binary compiles all of it and uses its part")]

pub(crate) mod client;
pub(crate) mod neighbour;
pub(crate) mod process;
#[path = "../../../engine/tests/common/mod.rs"]
pub(crate) mod shared;

use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Runs a measurement until it is good, at most `tries` times: on a shared machine a single one may
/// be spoilt by a neighbour. `Err` says what was measured.
pub(crate) fn best_of(tries: usize, mut measure: impl FnMut() -> Result<(), String>) {
    let mut seen = Vec::new();
    for _ in 0..tries {
        match measure() {
            Ok(()) => return,
            Err(what) => seen.push(what),
        }
    }
    panic!("{tries} measurements failed:\n{}", seen.join("\n"));
}

/// Lets one test of this binary run at a time: those that measure.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed says nothing about the next.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
