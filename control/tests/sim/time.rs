//! Clocks of the nodes: each is set to something else, and runs a little fast or slow.

use crate::dice::Dice;

/// A node's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset_ms: i64,
    /// How much faster than the world's, in parts of a million.
    drift_ppm: i64,
}

impl Clock {
    /// A clock that is off by up to `offset_ms_max` and by up to 500 parts of a million.
    pub(crate) fn new(dice: &mut Dice, offset_ms_max: i64) -> Self {
        Self { offset_ms: dice.span(0, offset_ms_max), drift_ppm: dice.span(-500, 501) }
    }

    /// The time that it shows.
    pub(crate) fn read(&self, world_ms: i64) -> i64 {
        world_ms + self.offset_ms + world_ms * self.drift_ppm / 1_000_000
    }

    /// Somebody sets it.
    pub(crate) fn step(&mut self, ms: i64) {
        self.offset_ms += ms;
    }
}
