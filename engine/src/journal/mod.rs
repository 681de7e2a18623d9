//! The journal of a shard: the effects of its writes, in order, for whoever reads along.
//!
//! An effect is a call that touches one key (or one whole database of the shard) and gives the same
//! result wherever it is replayed: no relative time, no chance, no dependence on other keys. The
//! effects of one command, or of one transaction, form a unit. Knows no reader.

pub mod frame;
mod state;
pub mod tape;

use std::collections::{HashMap, VecDeque};

pub use state::State;

use crate::commands::args::OwnedArgs;
use crate::commands::ctx::Kept;
use crate::journal::tape::Tape;
use crate::pubsub::outbox::Outbox;
use crate::units::{CoreId, DbIndex, SlotId};

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
    /// What the core has recorded of logged shards.
    pub tape: Tape,
    /// The latest time seen.
    pub now: u64,
    /// The unit that is open, if one is.
    unit: Option<u64>,
}

impl LogicalClock {
    /// Opens a unit: effects until [`end_unit`](Self::end_unit) belong together.
    #[inline]
    pub fn begin_unit(&mut self) {
        self.unit = Some(0);
        self.tape.begin_unit();
    }

    /// Closes the unit.
    #[inline]
    pub fn end_unit(&mut self) {
        self.unit = None;
        self.tape.end_unit();
    }

    /// What follows from now on is later than this time of another core, and follows from it.
    #[inline]
    pub fn follow(&mut self, core: CoreId, clock: u64) {
        self.now = self.now.max(clock);
        self.tape.follow(core, clock);
    }

    /// What follows from now on follows from all that was logged of a journal.
    #[inline]
    pub fn see(&mut self, journal: &Journal) {
        let (core, clock) = journal.last;
        if core != self.tape.core {
            self.follow(core, clock);
        }
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
    /// The core whose tape has its last effect that was logged, and when that was.
    last: (CoreId, u64),
    /// The set of files that its effects are logged in, by the tapes of the cores; 0 is none.
    log: u32,
    /// Effects on whole databases.
    whole_count: u32,
    /// What readers have not taken yet; none while nobody reads.
    records: Option<Vec<Record>>,
    /// Slots that somebody reads on their own; empty almost always.
    slots: HashMap<u16, SlotFeed>,
}

impl Journal {
    /// Whether anybody reads anything. Nothing is recorded otherwise.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.log != 0 || self.records.is_some() || !self.slots.is_empty()
    }

    /// From now on its effects are logged in this set of files, or not at all (0).
    pub fn set_log(&mut self, set: u32) {
        self.log = set;
    }

    /// Time of the latest effect.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The next effect is later than this.
    pub fn advance(&mut self, clock: u64) {
        self.clock = self.clock.max(clock);
    }

    /// Whether anybody reads the effects on a slot.
    #[inline]
    pub fn is_slot_read(&self, slot: SlotId) -> bool {
        self.log != 0
            || self.records.is_some()
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
    #[inline]
    pub fn emit<'w>(
        &mut self,
        clock: &mut LogicalClock,
        slot: Option<SlotId>,
        db: DbIndex,
        words: impl Iterator<Item = &'w [u8]> + Clone,
    ) {
        if !self.is_wanted(slot) {
            return;
        }
        let now = self.tick(clock);
        if self.log != 0 {
            clock.tape.record(now, slot, db, words.clone());
        }
        if self.is_kept() {
            let mut call = OwnedArgs::default();
            call.extend(words);
            self.keep(clock, slot, db, call, None);
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
            let now = self.tick(clock);
            if self.log != 0 {
                clock.tape.record_call(now, slot, db, &call);
            }
            if self.is_kept() {
                self.keep(clock, slot, db, call, None);
            }
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
            let now = self.tick(clock);
            let state = Box::new(state);
            if self.log != 0 {
                clock.tape.record_state(now, slot, db, state.clone());
            }
            if self.is_kept() {
                let call = OwnedArgs::of(&[b"DEL", &state.key]);
                self.keep(clock, Some(slot), db, call, Some(state));
            }
        }
    }

    /// Records an effect on a whole database of all shards that are held, of which this is one. The
    /// log is told of it once: with the first.
    pub fn emit_whole(
        &mut self,
        clock: &mut LogicalClock,
        db: DbIndex,
        words: &[&[u8]],
        is_first: bool,
    ) {
        if !self.is_wanted(None) {
            return;
        }
        let now = self.tick(clock);
        self.whole_count = self.whole_count.wrapping_add(1);
        if self.log != 0 {
            match is_first {
                true => clock.tape.record(now, None, db, words.iter().copied()),
                false => clock.tape.record_nothing(now),
            }
        }
        if self.is_kept() {
            self.keep(clock, None, db, OwnedArgs::of(words), None);
        }
    }

    /// How many effects there were on whole databases.
    pub fn whole_count(&self) -> u32 {
        self.whole_count
    }

    /// Tells the log that all of a slot is gone, in every database: no call has done it.
    pub fn emit_cleared(&mut self, clock: &mut LogicalClock, slot: SlotId) {
        if self.log != 0 {
            let now = self.tick(clock);
            clock.tape.record_cleared(now, slot);
        }
    }

    /// Tells the log, and nobody else, what a key holds.
    pub fn log_kept(&mut self, clock: &mut LogicalClock, slot: SlotId, db: DbIndex, kept: Kept) {
        if self.log == 0 {
            return;
        }
        let now = self.tick(clock);
        match kept {
            Kept::Call(call) => clock.tape.record_call(now, Some(slot), db, &call),
            Kept::State(state) => clock.tape.record_state(now, slot, db, Box::new(state)),
        }
    }

    /// What follows in `to` is later than, and follows from, all that is here: a slot moves there.
    pub fn hand_to(&mut self, to: &mut Self, clock: &mut LogicalClock) {
        clock.see(self);
        clock.see(to);
        to.advance(self.clock.max(clock.now));
        if to.log != 0 {
            // So that there is a record that later ones can follow from.
            let now = to.tick(clock);
            clock.tape.record_nothing(now);
        }
    }

    /// Whether anybody reads the effects on a slot, or on all of them.
    #[inline]
    fn is_wanted(&self, slot: Option<SlotId>) -> bool {
        match slot {
            Some(slot) => self.is_slot_read(slot),
            None => self.is_read(),
        }
    }

    /// Whether an effect has a reader besides the log.
    #[inline]
    fn is_kept(&self) -> bool {
        self.records.is_some() || !self.slots.is_empty()
    }

    /// The time of the next effect.
    #[inline]
    fn tick(&mut self, clock: &mut LogicalClock) -> u64 {
        if self.log != 0 {
            // Shards and cores begin with a set one after another: whoever has begun goes on.
            if self.log > clock.tape.set() {
                clock.tape.switch(self.log);
            }
            clock.see(self);
        }
        clock.now = clock.now.max(self.clock) + 1;
        self.clock = clock.now;
        if self.log != 0 {
            self.last = (clock.tape.core, clock.now);
        }
        if let Some(unit) = &mut clock.unit
            && *unit == 0
        {
            *unit = clock.now;
        }
        clock.now
    }

    /// Keeps an effect for those who take it from here.
    fn keep(
        &mut self,
        clock: &LogicalClock,
        slot: Option<SlotId>,
        db: DbIndex,
        call: OwnedArgs,
        state: Option<Box<State>>,
    ) {
        let unit = clock.unit.unwrap_or(clock.now);
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
