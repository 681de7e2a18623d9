//! Which shard owns which slot of this process, and whether it may be asked now.
//!
//! The map is read without any lock, to plan a request. It changes only while the doors of both
//! shards concerned are held, so whoever holds the door of shard `s` and reads `s` for a slot
//! knows that the slot stays there until the door is parked. Everybody else has a hint and checks
//! again behind the door.
//!
//! Of a server in a cluster some slots are served elsewhere, and some are about to leave. That lies
//! in the same word as the owner, so that a request for a slot that is served pays nothing for it,
//! and it changes by the same rule: behind the shard's door, and counted by the version, so that
//! what was planned before runs again and meets the new state.

use crate::sync::{AtomicU16, AtomicU32, Ordering};
use crate::units::{SLOT_COUNT, ShardId, SlotId};

/// The part of a word that is the shard.
const SHARD_MASK: u16 = 0x0fff;
const REFUSED: u16 = 1 << 15;
const FROZEN: u16 = 1 << 14;
const PINNED: u16 = 1 << 13;

/// Whether requests of a slot run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// They do.
    Open,
    /// They wait: the slot is being handed over.
    Frozen,
    /// They are refused: the slot is served elsewhere, or not yet.
    Refused,
}

/// The owner of a slot and its access, as they were read at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home(u16);

impl Home {
    /// The shard.
    #[inline]
    pub const fn shard(self) -> ShardId {
        ShardId(self.0 & SHARD_MASK)
    }

    /// Whether requests do not simply run.
    #[inline]
    pub const fn is_closed(self) -> bool {
        self.0 & (REFUSED | FROZEN) != 0
    }

    /// Whether requests run.
    pub const fn access(self) -> Access {
        match self.0 & (REFUSED | FROZEN) {
            0 => Access::Open,
            FROZEN => Access::Frozen,
            _ => Access::Refused,
        }
    }

    /// Whether the slot stays with its shard because a move is behind it.
    pub const fn is_pinned(self) -> bool {
        self.0 & PINNED != 0
    }
}

/// Owner of every slot.
#[derive(Debug)]
pub struct SlotOwners {
    owner: Box<[AtomicU16]>,
    /// Counts the beginning and the end of each change, so that a request knows whether anything has
    /// changed since, or while, it was planned.
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

    /// Changes with every move of a slot and every change of its access. Read before planning, and
    /// again after it: whoever plans by a word that is changed meanwhile sees two numbers.
    #[inline]
    pub fn version(&self) -> u32 {
        // Ordering: acquire, paired with the release in `put`.
        self.version.load(Ordering::Acquire)
    }

    /// The shard that owns `slot`: certain for a holder of that shard's door, else a hint.
    #[inline]
    pub fn of(&self, slot: SlotId) -> ShardId {
        self.home(slot).shard()
    }

    /// The shard that owns `slot` and whether requests for it run, with the same certainty.
    #[inline]
    pub fn home(&self, slot: SlotId) -> Home {
        // Ordering: acquire, paired with the store in `put`: who sees a new word sees the change
        // counted. (The tables of a slot are published by the door, not by this.)
        Home(self.owner[slot.index()].load(Ordering::Acquire))
    }

    /// Gives `slot` to `shard`. The caller holds the doors of the old and the new owner.
    pub fn give(&self, slot: SlotId, shard: ShardId) {
        invariant!(shard.0 <= SHARD_MASK, "there is no shard {}", shard.0);
        let rest = self.home(slot).0 & !SHARD_MASK;
        self.put(slot, rest | shard.0);
    }

    /// Changes whether requests for `slot` run, and whether it is bound to its shard. The caller holds
    /// the door of its owner.
    pub fn set_access(&self, slot: SlotId, access: Access, is_pinned: bool) {
        let mut word = self.of(slot).0;
        word |= match access {
            Access::Open => 0,
            Access::Frozen => FROZEN,
            Access::Refused => REFUSED,
        };
        if is_pinned {
            word |= PINNED;
        }
        self.put(slot, word);
    }

    /// Counts a change that no word shows, so that what was planned before it is planned again. The
    /// caller holds the door of the owner of the slots concerned.
    pub fn touch(&self) {
        // Ordering: release, paired with the load in `version`.
        self.version.fetch_add(2, Ordering::Release);
    }

    fn put(&self, slot: SlotId, word: u16) {
        // Counted before, for those who see the new word already, and after, for those who have
        // seen the first count and the old word. Ordering: release, paired with the loads above.
        self.version.fetch_add(1, Ordering::Relaxed);
        self.owner[slot.index()].store(word, Ordering::Release);
        self.version.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_of_a_slot_keeps_its_owner_and_is_counted() {
        let owners = SlotOwners::dealt(4);
        let slot = SlotId::new(600).expect("there is such a slot");
        let before = owners.version();
        owners.set_access(slot, Access::Frozen, true);
        let home = owners.home(slot);
        assert!(home.is_closed() && home.is_pinned() && home.access() == Access::Frozen);
        assert_eq!((owners.of(slot), home.shard()), (ShardId(2), ShardId(2)));
        owners.give(slot, ShardId(3));
        assert_eq!((owners.of(slot), owners.home(slot).access()), (ShardId(3), Access::Frozen));
        owners.set_access(slot, Access::Refused, false);
        assert!(!owners.home(slot).is_pinned() && owners.home(slot).access() == Access::Refused);
        owners.set_access(slot, Access::Open, false);
        assert!(!owners.home(slot).is_closed() && owners.of(slot) == ShardId(3));
        assert_eq!(owners.version(), before + 8);
    }
}
