//! The journal of a shard: the effects of its writes, in order, for whoever reads along.
//!
//! An effect is a call that touches one key (or one whole database of the shard) and gives the same
//! result wherever it is replayed: no relative time, no chance, no dependence on other keys. The
//! effects of one command, or of one transaction, form a unit. Knows no reader.

mod state;

use std::collections::{HashMap, VecDeque};

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

impl Record {
    /// Memory that it takes. A snapshot counts as a whole: what it shares with the key is shared only
    /// until the key changes.
    pub fn heap_bytes(&self) -> usize {
        let state = self.state.as_ref().map_or(0, |state| state.value.heap_bytes());
        self.call.heap_bytes() + state
    }
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

/// What a reader of one slot has not taken yet.
#[derive(Debug, Default)]
pub struct SlotFeed {
    /// Effects on its keys, in order.
    pub records: VecDeque<Record>,
    /// Memory that their words take.
    pub bytes: usize,
    /// Something has happened to all of it at once (FLUSHALL, say): what was read before is void.
    pub is_void: bool,
}

/// The stream of one shard.
#[derive(Debug, Default)]
pub struct Journal {
    /// Time of the latest effect.
    clock: u64,
    /// What readers have not taken yet; none while nobody reads.
    records: Option<Vec<Record>>,
    /// Slots that somebody reads on their own; empty almost always.
    slots: HashMap<u16, SlotFeed>,
}

impl Journal {
    /// Whether anybody reads anything. Nothing is recorded otherwise.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.records.is_some() || !self.slots.is_empty()
    }

    /// Whether anybody reads the effects on a slot.
    #[inline]
    pub fn is_slot_read(&self, slot: SlotId) -> bool {
        self.records.is_some()
            || !self.slots.is_empty() && self.slots.contains_key(&(slot.index() as u16))
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

    /// Begins to record the effects on one slot, for its only reader.
    pub fn attach_slot(&mut self, slot: SlotId) {
        self.slots.insert(slot.index() as u16, SlotFeed::default());
    }

    /// Ends that and drops what was not taken.
    pub fn detach_slot(&mut self, slot: SlotId) {
        self.slots.remove(&(slot.index() as u16));
        if self.slots.is_empty() {
            self.slots = HashMap::new();
        }
    }

    /// What the reader of a slot has not taken yet.
    pub fn slot_feed(&mut self, slot: SlotId) -> Option<&mut SlotFeed> {
        self.slots.get_mut(&(slot.index() as u16))
    }

    /// Says that something has happened to all of a slot, or of every slot, that no effect on a key
    /// can tell.
    fn make_void(&mut self, slot: Option<SlotId>) {
        for (&index, feed) in &mut self.slots {
            if slot.is_none_or(|slot| slot.index() == usize::from(index)) {
                *feed = SlotFeed { is_void: true, ..SlotFeed::default() };
            }
        }
    }

    /// Records an effect, if anybody reads.
    pub fn emit<'w>(
        &mut self,
        clock: &mut LogicalClock,
        slot: Option<SlotId>,
        db: DbIndex,
        words: impl Iterator<Item = &'w [u8]>,
    ) {
        if self.is_wanted(slot) {
            let mut call = OwnedArgs::default();
            call.extend(words);
            self.record(clock, slot, db, call, None);
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
        if self.is_wanted(slot) {
            self.record(clock, slot, db, call, None);
        }
    }

    /// Records what a key holds, whatever was there: its value is a snapshot.
    pub fn emit_state(
        &mut self,
        clock: &mut LogicalClock,
        slot: SlotId,
        db: DbIndex,
        state: State,
    ) {
        if self.is_slot_read(slot) {
            let call = OwnedArgs::of(&[b"DEL", &state.key]);
            self.record(clock, Some(slot), db, call, Some(Box::new(state)));
        }
    }

    /// Whether anybody reads the effects on a slot, or on all of them.
    fn is_wanted(&self, slot: Option<SlotId>) -> bool {
        match slot {
            Some(slot) => self.is_slot_read(slot),
            None => self.is_read(),
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
        let record = Record { clock: clock.now, unit, slot, db, call, state };
        let is_whole = slot.is_none() || is_of_whole_slot(&record.call);
        if !self.slots.is_empty() {
            if is_whole {
                self.make_void(slot);
            } else if let Some(slot) = slot
                && let Some(feed) = self.slots.get_mut(&(slot.index() as u16))
                && !feed.is_void
            {
                feed.bytes += record.heap_bytes();
                match &mut self.records {
                    Some(_) => feed.records.push_back(record.clone()),
                    None => return feed.records.push_back(record),
                }
            }
        }
        if let Some(records) = &mut self.records {
            records.push(record);
        }
    }
}

/// Whether an effect concerns a slot as a whole, not a key.
fn is_of_whole_slot(call: &OwnedArgs) -> bool {
    call.args().get(0).is_some_and(|name| *name == *b"SLOTSDEL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u64) -> SlotId {
        SlotId::new(n).expect("there is such a slot")
    }

    fn emit(journal: &mut Journal, slot: Option<SlotId>, words: &[&[u8]]) {
        let mut clock = LogicalClock::default();
        journal.emit(&mut clock, slot, DbIndex(0), words.iter().copied());
    }

    #[test]
    fn reader_of_a_slot_sees_its_effects_only_and_others_see_all() {
        let mut journal = Journal::default();
        emit(&mut journal, Some(slot(1)), &[b"SET", b"a", b"1"]);
        journal.attach_slot(slot(1));
        assert!(journal.is_slot_read(slot(1)) && !journal.is_slot_read(slot(2)));
        emit(&mut journal, Some(slot(1)), &[b"SET", b"a", b"2"]);
        emit(&mut journal, Some(slot(2)), &[b"SET", b"b", b"2"]);
        let count = |journal: &mut Journal| {
            journal.slot_feed(slot(1)).map(|feed| feed.records.drain(..).count())
        };
        assert_eq!(count(&mut journal), Some(1));
        journal.attach();
        emit(&mut journal, Some(slot(1)), &[b"DEL", b"a"]);
        assert_eq!((count(&mut journal), journal.take().len()), (Some(1), 1));
        journal.detach();
        journal.detach_slot(slot(1));
        assert!(!journal.is_read() && journal.slot_feed(slot(1)).is_none());
    }

    #[test]
    fn effect_on_everything_voids_what_a_slot_has_recorded() {
        for (slots, is_void) in [(None, true), (Some(slot(1)), true), (Some(slot(2)), false)] {
            let mut journal = Journal::default();
            journal.attach_slot(slot(1));
            emit(&mut journal, Some(slot(1)), &[b"SET", b"a", b"2"]);
            let words: [&[u8]; 2] = [b"SLOTSDEL", b"1"];
            emit(&mut journal, slots, if slots.is_none() { &[b"FLUSHDB"] } else { &words });
            emit(&mut journal, Some(slot(1)), &[b"SET", b"a", b"3"]);
            let feed = journal.slot_feed(slot(1)).expect("it is read");
            assert_eq!((feed.is_void, feed.records.len()), (is_void, if is_void { 0 } else { 2 }));
        }
    }
}
