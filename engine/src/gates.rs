//! Reasons for which calls are refused whatever they are about: one word that is read for every call.

use std::sync::atomic::{AtomicU8, Ordering};

/// A reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Gate {
    /// The data is not loaded yet.
    Loading = 1,
    /// The append log takes nothing: writes are refused.
    LogFailed = 4,
}

/// The reasons that there are now.
#[derive(Debug, Default)]
pub struct Gates(AtomicU8);

impl Gates {
    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        // Ordering: relaxed; whoever needs more than a refusal some microseconds later looks himself.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Whether there is this one.
    pub fn is_closed(&self, gate: Gate) -> bool {
        self.0.load(Ordering::Acquire) & gate as u8 != 0
    }

    /// Says whether there is this one. Returns whether there was.
    pub fn set(&self, gate: Gate, is_closed: bool) -> bool {
        // Ordering: release, so that whoever sees that loading is over sees what was loaded.
        let before = match is_closed {
            true => self.0.fetch_or(gate as u8, Ordering::AcqRel),
            false => self.0.fetch_and(!(gate as u8), Ordering::AcqRel),
        };
        before & gate as u8 != 0
    }
}
