//! Which shard owns which slot of this process.
//!
//! The map is read without any lock, to plan a request. It changes only while the doors of both
//! shards concerned are held, so whoever holds the door of shard `s` and reads `s` for a slot
//! knows that the slot stays there until the door is parked. Everybody else has a hint and checks
//! again behind the door.

use crate::sync::{AtomicU16, AtomicU32, Ordering};
use crate::units::{SLOT_COUNT, ShardId, SlotId};

/// Owner of every slot.
#[derive(Debug)]
pub struct SlotOwners {
    owner: Box<[AtomicU16]>,
    /// Counts the beginning and the end of each move, so that a request knows whether anything has
    /// moved since, or while, it was planned.
    version: AtomicU32,
}

impl SlotOwners {
    /// Slots dealt to `shard_count` shards in contiguous, equal ranges.
    pub fn dealt(shard_count: usize) -> Self {
        Self::dealt_of(SLOT_COUNT, shard_count)
    }

    /// The same for the first `slot_count` slots: a model has few.
    pub(crate) fn dealt_of(slot_count: usize, shard_count: usize) -> Self {
        let owner =
            (0..slot_count).map(|slot| AtomicU16::new((slot * shard_count / slot_count) as u16));
        Self { owner: owner.collect(), version: AtomicU32::new(0) }
    }

    /// Changes with every move. Read before planning, and again after it: whoever plans by an owner
    /// that a move has changed meanwhile sees two numbers.
    #[inline]
    pub fn version(&self) -> u32 {
        // Ordering: acquire, paired with the release in `give`.
        self.version.load(Ordering::Acquire)
    }

    /// The shard that owns `slot`: certain for a holder of that shard's door, else a hint.
    #[inline]
    pub fn of(&self, slot: SlotId) -> ShardId {
        // Ordering: acquire, paired with the store in `give`: who sees a new owner sees the move
        // counted. (The tables of a slot are published by the door, not by this.)
        ShardId(self.owner[slot.index()].load(Ordering::Acquire))
    }

    /// Gives `slot` to `shard`. The caller holds the doors of the old and the new owner.
    pub fn give(&self, slot: SlotId, shard: ShardId) {
        // Counted before, for those who see the new owner already, and after, for those who have
        // seen the first count and the old owner. Ordering: release, paired with the loads above.
        self.version.fetch_add(1, Ordering::Relaxed);
        self.owner[slot.index()].store(shard.0, Ordering::Release);
        self.version.fetch_add(1, Ordering::Release);
    }
}
