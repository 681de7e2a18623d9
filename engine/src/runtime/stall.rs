//! How long turns take, and which step made one long.

use crate::node::{CoreStats, Node};
use crate::observe::latency::Event;
use crate::runtime::clock::Clock;
use crate::units::Ms;

/// Turns longer than this are named in the log.
const LONG_TURN_NS: u64 = 50_000_000;

/// The steps of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Step {
    /// Handling completions.
    Reap,
    /// Letters, alarms.
    Mail,
    /// Parsing and running commands.
    Commands,
    /// Slices, expiry, freeing.
    Background,
    /// Output, doors, doorbells.
    Flush,
}

const STEP_COUNT: usize = 5;
const STEP_NAMES: [&str; STEP_COUNT] = ["reap", "mail", "commands", "background", "flush"];

/// Times the steps of one core's turns.
#[derive(Debug)]
pub struct StepTimer {
    clock: Clock,
    begun: u64,
    last: u64,
    steps: [u64; STEP_COUNT],
}

impl StepTimer {
    /// A timer that reads `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, begun: 0, last: 0, steps: [0; STEP_COUNT] }
    }

    /// A turn begins.
    #[inline]
    pub fn begin(&mut self) {
        self.begun = self.clock.ticks();
        self.last = self.begun;
    }

    /// A step ends.
    #[inline]
    pub fn end(&mut self, step: Step) {
        let now = self.clock.ticks();
        self.steps[step as usize] = now.wrapping_sub(self.last);
        self.last = now;
    }

    /// The turn ends: counts it, and names its longest step if it overran.
    #[inline]
    pub fn turn_ended(&mut self, stats: &CoreStats, node: &Node, now: Ms) {
        let ns = self.clock.ns_between(self.begun, self.last);
        stats.turns.record(ns);
        if ns >= node.delay_ns() {
            node.note_delay(Event::Turn, ns, now);
        }
        if ns > LONG_TURN_NS {
            let longest = (0..STEP_COUNT).max_by_key(|&i| self.steps[i]).unwrap_or(0);
            tracing::warn!(turn_us = ns / 1000, step = STEP_NAMES[longest], "a long turn");
        }
    }
}
