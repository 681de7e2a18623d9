//! A core's part in rewriting the append log: it walks over the slots of its shard and records what
//! each key holds, between all else that it records. See `persist`.

use std::sync::atomic::Ordering;

use crate::commands::ctx::{Kept, kept_of};
use crate::runtime::turn::Core;
use crate::shard::state::{KeyRef, Shard};
use crate::store::keyspace::Keyspace;
use crate::store::table::Position;
use crate::units::{DATABASES_MAX, DbIndex, SlotId};

/// Time that the walk may take in a turn.
const STEP_BUDGET_NS: u64 = 150_000;
/// With more recorded than this and not written, the walk waits.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Keys between two looks at the clock.
const KEYS_PER_STEP: usize = 16;

/// Where a walk is.
#[derive(Clone, Copy, Debug)]
struct Spot {
    slot: SlotId,
    /// Keys that are out of sight come first.
    is_hidden: bool,
    db: u8,
    position: Position,
    /// How many effects on whole databases there had been when it came to this slot.
    whole_count: u32,
}

/// How far a core is.
#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// Not all cores record for the set yet.
    #[default]
    Waiting,
    /// It walks; there is a slot if it is within one.
    Walking(Option<Spot>),
    /// All slots have been walked. What it has recorded up to this time is to be on disk.
    Flushing(u64),
    /// It is.
    Done,
}

/// The walk of a core.
#[derive(Debug, Default)]
pub(super) struct LogWalk {
    set: u32,
    phase: Phase,
    /// There is more to do at once.
    pub(super) is_ready: bool,
}

impl LogWalk {
    /// Whether it is not at its end.
    pub(super) fn is_under_way(&self) -> bool {
        self.set != 0 && !matches!(self.phase, Phase::Done)
    }
}

impl Core {
    /// Walks on, within the turn's budget.
    pub(super) fn step_log_walk(&mut self) {
        let set = self.node.log.walk_set();
        self.log.walk.is_ready = false;
        if set != self.log.walk.set {
            self.log.walk = LogWalk { set, ..LogWalk::default() };
        }
        if set == 0 {
            return;
        }
        match self.log.walk.phase {
            Phase::Waiting => {
                let is_begun = |core: &crate::persist::desk::CoreLog| {
                    core.shard_set.load(Ordering::Acquire) == set
                        && core.tape_set.load(Ordering::Acquire) == set
                };
                if self.node.log.cores.iter().all(is_begun) {
                    self.log.walk.phase = Phase::Walking(None);
                    self.log.walk.is_ready = true;
                }
            }
            Phase::Walking(spot) => self.walk_some(spot),
            Phase::Flushing(clock) => {
                if self.log.is_on_disk(clock, set) {
                    self.node.log.cores[self.id.index()].walked_set.store(set, Ordering::Release);
                    self.node.log.wake_keeper();
                    self.log.walk.phase = Phase::Done;
                }
            }
            Phase::Done => {}
        }
    }

    fn walk_some(&mut self, mut spot: Option<Spot>) {
        let own = self.id.index();
        let Some(mut shard) = self.held[own].take() else {
            self.log.walk.is_ready = true;
            return;
        };
        let begun = self.clock.ticks();
        loop {
            if self.logical.tape.waiting_bytes() > WAITING_BYTES_MAX {
                break;
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > STEP_BUDGET_NS {
                self.log.walk.is_ready = true;
                break;
            }
            spot = match spot.or_else(|| self.next_slot(&shard)) {
                Some(spot) => self.walk_keys(&mut shard, spot),
                None => break,
            };
        }
        self.held[own] = Some(shard);
        self.log.walk.phase = match spot {
            None if self.node.log.is_all_walked() => Phase::Flushing(self.logical.tape.logged()),
            spot => Phase::Walking(spot),
        };
    }

    /// A slot of this shard that has not been walked.
    fn next_slot(&self, shard: &Shard) -> Option<Spot> {
        let is_due = |&slot: &SlotId| {
            self.node.owners.of(slot) == shard.id && !self.node.log.is_walked(slot)
        };
        let slot = SlotId::all().find(is_due)?;
        let whole_count = shard.journal.whole_count();
        Some(Spot { slot, is_hidden: true, db: 0, position: Position::default(), whole_count })
    }

    /// Records the next few keys. Where to go on; nothing at the end of the slot.
    fn walk_keys(&mut self, shard: &mut Shard, spot: Spot) -> Option<Spot> {
        let Spot { slot, is_hidden, db, position, whole_count } = spot;
        if self.node.owners.of(slot) != shard.id {
            // Whoever has it now begins it anew.
            return None;
        }
        if shard.journal.whole_count() != whole_count {
            // Databases have been exchanged: a part of it may have come where the walk has been.
            return self.next_slot(shard);
        }
        if usize::from(db) >= DATABASES_MAX {
            if is_hidden {
                let position = Position::default();
                return Some(Spot { is_hidden: false, db: 0, position, ..spot });
            }
            self.node.log.set_walked(slot);
            return None;
        }
        let keys = if is_hidden { &shard.hidden } else { &shard.keys };
        let (kept, next) = kept_keys(keys, DbIndex(db), slot, position);
        for kept in kept {
            shard.journal.log_kept(&mut self.logical, slot, DbIndex(db), kept);
        }
        Some(match next {
            Some(position) => Spot { position, ..spot },
            None => Spot { db: db + 1, position: Position::default(), ..spot },
        })
    }
}

/// What the next few keys of a slot hold, and where the next ones are.
fn kept_keys(
    keys: &Keyspace,
    db: DbIndex,
    slot: SlotId,
    from: Position,
) -> (Vec<Kept>, Option<Position>) {
    let mut kept = Vec::new();
    let Some(dbase) = keys.db(db) else { return (kept, None) };
    let next = dbase.table(slot).scan(from, KEYS_PER_STEP, |entry| {
        debug_invariant!(KeyRef::new(entry.key()).slot == slot, "a key in another slot's table");
        kept.push(kept_of(entry));
    });
    (kept, next)
}
