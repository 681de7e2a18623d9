//! The journal of a shard: the effects of its writes, in order, for whoever reads along.
//!
//! An effect is a call that touches one key (or one whole database of the shard) and gives the same
//! result wherever it is replayed: no relative time, no chance, no dependence on other keys. The
//! effects of one command, or of one transaction, form a unit. Knows no reader.

mod state;

pub use state::State;

use crate::commands::args::OwnedArgs;
use crate::pubsub::outbox::Outbox;
use crate::units::{DbIndex, SlotId};

/// One effect.
#[derive(Clone, Debug)]
pub struct Record {
    /// Logical time: larger than that of everything this effect may depend on.
    pub clock: u64,
    /// Logical time of the first effect of its unit; equal for all of a unit.
    pub unit: u64,
    /// The slot of its key; none for a whole database.
    pub slot: Option<SlotId>,
    /// The database.
    pub db: DbIndex,
    /// The call.
    pub call: OwnedArgs,
    /// What the key holds then, if that takes further calls ([`State::calls`]): part of this effect.
    pub state: Option<Box<State>>,
}

/// Logical time of a core. It passes with every door, so that effects on one shard that follow from
/// what was seen on another carry a later time.
#[derive(Debug, Default)]
pub struct LogicalClock {
    /// What the core has to tell others about what it runs: goes wherever effects are recorded.
    pub outbox: Outbox,
    /// The latest time seen.
    pub now: u64,
    /// The unit that is open, if one is.
    unit: Option<u64>,
}

impl LogicalClock {
    /// Opens a unit: effects until [`end_unit`](Self::end_unit) belong together.
    pub fn begin_unit(&mut self) {
        self.unit = Some(0);
    }

    /// Closes the unit.
    pub fn end_unit(&mut self) {
        self.unit = None;
    }
}

/// The stream of one shard.
#[derive(Debug, Default)]
pub struct Journal {
    /// Time of the latest effect.
    clock: u64,
    /// What readers have not taken yet; none while nobody reads.
    records: Option<Vec<Record>>,
}

impl Journal {
    /// Whether anybody reads. Nothing is recorded otherwise.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.records.is_some()
    }

    /// Begins to record.
    pub fn attach(&mut self) {
        self.records.get_or_insert_default();
    }

    /// Ends recording and drops what was not taken.
    pub fn detach(&mut self) {
        self.records = None;
    }

    /// What was recorded since the last call.
    pub fn take(&mut self) -> Vec<Record> {
        self.records.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records an effect, if anybody reads.
    pub fn emit<'w>(
        &mut self,
        clock: &mut LogicalClock,
        slot: Option<SlotId>,
        db: DbIndex,
        words: impl Iterator<Item = &'w [u8]>,
    ) {
        if self.is_read() {
            let mut call = OwnedArgs::default();
            call.extend(words);
            self.emit_call(clock, slot, db, call);
        }
    }

    /// The same with words that are put together already.
    pub fn emit_call(
        &mut self,
        clock: &mut LogicalClock,
        slot: Option<SlotId>,
        db: DbIndex,
        call: OwnedArgs,
    ) {
        self.record(clock, slot, db, call, None);
    }

    /// Records what a key holds, whatever was there: its value is a snapshot.
    pub fn emit_state(
        &mut self,
        clock: &mut LogicalClock,
        slot: SlotId,
        db: DbIndex,
        state: State,
    ) {
        if self.is_read() {
            let call = OwnedArgs::of(&[b"DEL", &state.key]);
            self.record(clock, Some(slot), db, call, Some(Box::new(state)));
        }
    }

    fn record(
        &mut self,
        clock: &mut LogicalClock,
        slot: Option<SlotId>,
        db: DbIndex,
        call: OwnedArgs,
        state: Option<Box<State>>,
    ) {
        let Some(records) = &mut self.records else {
            return;
        };
        clock.now = clock.now.max(self.clock) + 1;
        self.clock = clock.now;
        let unit = match &mut clock.unit {
            None => clock.now,
            Some(unit) => {
                if *unit == 0 {
                    *unit = clock.now;
                }
                *unit
            }
        };
        records.push(Record { clock: clock.now, unit, slot, db, call, state });
    }
}
