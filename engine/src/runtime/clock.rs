//! The only reader of clocks: wall time in milliseconds, and ticks for durations.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::units::Ms;

/// The calibrated time-stamp counter of this process.
fn counter() -> &'static quanta::Clock {
    static CLOCK: OnceLock<quanta::Clock> = OnceLock::new();
    CLOCK.get_or_init(quanta::Clock::new)
}

/// A clock of one core. Copies share the calibration.
#[derive(Clone, Debug)]
pub struct Clock {
    counter: quanta::Clock,
}

impl Clock {
    /// The process's clock.
    pub fn new() -> Self {
        Self { counter: counter().clone() }
    }

    /// Wall time.
    #[expect(clippy::disallowed_methods, reason = "the only reader of clocks")]
    pub fn now(&self) -> Ms {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Ms(since.map_or(0, |d| d.as_millis() as i64))
    }

    /// Wall time in microseconds.
    #[expect(clippy::disallowed_methods, reason = "the only reader of clocks")]
    pub fn now_us() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| d.as_micros() as i64)
    }

    /// A point in time, for [`ns_between`](Self::ns_between).
    #[inline]
    pub fn ticks(&self) -> u64 {
        self.counter.raw()
    }

    /// Nanoseconds between two points.
    #[inline]
    pub fn ns_between(&self, from: u64, to: u64) -> u64 {
        self.counter.delta_as_nanos(from, to)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
