//! The only reader of clocks in control: milliseconds since the Unix epoch that never go back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that was set once, when it was made, and then only runs.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_ms: i64,
}

impl Clock {
    /// A clock that shows the time of day.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2);
        Self { started: Instant::now(), started_ms }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        let run = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX / 2);
        self.started_ms.saturating_add(run)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
