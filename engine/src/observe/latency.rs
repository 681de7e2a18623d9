//! Delays that operators should know of: the last samples of each kind of event that took
//! `latency-monitor-threshold` milliseconds or more.
//!
//! All samples are behind one mutex. It is taken after something has taken milliseconds already, for
//! a few instructions, and by LATENCY commands; never on the road of a fast call. The caller compares
//! with the threshold first, which is one relaxed load.
//!
//! Any thread may enter.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::units::Ms;

/// Samples kept per event.
const SAMPLE_COUNT_MAX: usize = 160;

/// Kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A command that may take long.
    Command,
    /// A command of constant or logarithmic time.
    FastCommand,
    /// A step of deleting expired keys.
    ExpireCycle,
    /// Making room below `maxmemory`.
    EvictionCycle,
    /// A whole turn of a core.
    Turn,
    /// A wait for the door of a shard.
    Door,
}

impl Event {
    /// Its name in LATENCY commands. Redis' where Redis has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::FastCommand => "fast-command",
            Self::ExpireCycle => "expire-cycle",
            Self::EvictionCycle => "eviction-cycle",
            Self::Turn => "turn",
            Self::Door => "door",
        }
    }

    /// What an operator may do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Command => {
                "see SLOWLOG GET for the calls; large replies and commands over many keys are the \
                 usual cause"
            }
            Self::FastCommand => {
                "commands like these are short: look for a machine that is short of processors or \
                 memory (swap), and for a virtual machine that was stopped"
            }
            Self::ExpireCycle => "many keys end at the same moment: spread their times",
            Self::EvictionCycle => "memory is at maxmemory: raise it, or let keys expire earlier",
            Self::Turn => "a core was busy or off its processor: see the tuning recipes",
            Self::Door => "one core's data is in demand: see slot-balance",
        }
    }
}

/// One delay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// When, in seconds since the Unix epoch.
    pub at_seconds: i64,
    /// How long: the longest of that second.
    pub ms: u64,
}

/// The delays of one event.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which event.
    pub event: Event,
    /// Oldest first.
    pub samples: VecDeque<Sample>,
    /// The longest since the last reset.
    pub max_ms: u64,
}

/// The delays of all events.
#[derive(Debug, Default)]
pub struct Delays {
    series: Mutex<Vec<Series>>,
}

impl Delays {
    fn lock(&self) -> MutexGuard<'_, Vec<Series>> {
        // What is behind it is whole after each statement, whoever panics.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a delay. The caller has found it to be above the threshold.
    pub fn note(&self, event: Event, now: Ms, ms: u64) {
        let at_seconds = now.0.div_euclid(1000);
        let mut all = self.lock();
        let index = all.iter().position(|s| s.event == event).unwrap_or_else(|| {
            all.push(Series { event, samples: VecDeque::new(), max_ms: 0 });
            all.len() - 1
        });
        let series = &mut all[index];
        series.max_ms = series.max_ms.max(ms);
        match series.samples.back_mut() {
            Some(last) if last.at_seconds == at_seconds => last.ms = last.ms.max(ms),
            _ => {
                if series.samples.len() == SAMPLE_COUNT_MAX {
                    series.samples.pop_front();
                }
                series.samples.push_back(Sample { at_seconds, ms });
            }
        }
    }

    /// All events that have samples.
    pub fn all(&self) -> Vec<Series> {
        self.lock().clone()
    }

    /// The event of this name, if it has samples. Case counts.
    pub fn of(&self, name: &[u8]) -> Option<Series> {
        self.lock().iter().find(|s| s.event.name().as_bytes() == name).cloned()
    }

    /// Forgets the event of this name, in any case; `None` forgets all. Returns how many it forgot.
    pub fn reset(&self, name: Option<&[u8]>) -> usize {
        let mut all = self.lock();
        let before = all.len();
        all.retain(|series| {
            name.is_some_and(|name| !series.event.name().as_bytes().eq_ignore_ascii_case(name))
        });
        before - all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_within_one_second_keeps_the_longest() {
        let delays = Delays::default();
        for (ms, delay) in [(1000, 20), (1500, 50), (1900, 30), (2000, 10)] {
            delays.note(Event::Command, Ms(ms), delay);
        }
        let series = delays.of(b"command").expect("it was noted");
        let samples: Vec<_> = series.samples.iter().map(|s| (s.at_seconds, s.ms)).collect();
        assert_eq!(samples, [(1, 50), (2, 10)]);
        assert_eq!(series.max_ms, 50);
    }

    #[test]
    fn note_of_many_forgets_the_oldest() {
        let delays = Delays::default();
        (0..200).for_each(|i| delays.note(Event::Turn, Ms(i * 1000), 5));
        let series = delays.of(b"turn").expect("it was noted");
        assert_eq!(series.samples.len(), SAMPLE_COUNT_MAX);
        assert_eq!(series.samples[0].at_seconds, 40);
    }

    #[test]
    fn reset_by_name_ignores_case_and_leaves_the_rest() {
        let delays = Delays::default();
        delays.note(Event::Command, Ms(0), 5);
        delays.note(Event::ExpireCycle, Ms(0), 5);
        assert_eq!(delays.reset(Some(b"nothing")), 0);
        assert_eq!(delays.reset(Some(b"COMMAND")), 1);
        assert!(delays.of(b"EXPIRE-CYCLE").is_none());
        assert!(delays.of(b"expire-cycle").is_some());
        assert_eq!(delays.reset(None), 1);
    }
}
