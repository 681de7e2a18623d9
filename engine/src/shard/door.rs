//! The door of a shard: one atomic word that says which core holds it and which cores wait.
//!
//! A core that finds the word at zero may take the door by one compare-and-swap; it then is the only
//! one that reaches the shard, until it releases the door. Whoever does not get it may leave its
//! bit; the holder then hands the door straight to a waiter, the shard's own core first, so nobody
//! slips past a waiting core, and tells the caller whom to wake. The shard's own core takes its door
//! like any other at the beginning of a turn, and lets go of it before it sleeps.
//!
//! Several doors are taken in ascending order only; a core that waits for one keeps those below it
//! and none above it, so no circle of waiting cores can close.
//!
//! Unsafe: the one place that turns "this core holds the door" into `&mut Shard`.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::CoreId;

/// Most cores of a process: the width of the waiting set.
pub const CORES_MAX: usize = 48;

const HOLDER_BITS: u32 = 16;
const HOLDER_MASK: u64 = (1 << HOLDER_BITS) - 1;
/// Beside the holder: it was handed the door and has not claimed it yet.
const GRANTED: u64 = 1 << (HOLDER_BITS - 1);

const fn holder(core: CoreId) -> u64 {
    core.0 as u64 + 1
}

const fn waiting(core: CoreId) -> u64 {
    1 << (HOLDER_BITS + core.0 as u32)
}

/// What a core that wants a door got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It holds the door.
    Held,
    /// It is in the waiting set; the door will be handed to it.
    Waiting,
}

/// The word.
#[derive(Debug)]
pub struct Door {
    /// Low bits: holder plus one, or 0 for parked. High bits: the waiting set.
    word: AtomicU64,
    /// The core whose shard this is: the first to be handed the door.
    owner: CoreId,
}

impl Door {
    /// A parked door.
    pub fn new(owner: CoreId) -> Self {
        assert!(owner.index() < CORES_MAX, "at most {CORES_MAX} cores");
        Self { word: AtomicU64::new(0), owner }
    }

    /// Takes the door if it is parked.
    #[inline]
    pub fn try_take(&self, me: CoreId) -> bool {
        // Ordering: acquire, to see what the last holder wrote.
        self.word.compare_exchange(0, holder(me), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the door, or joins the waiting set.
    #[inline]
    pub fn take_or_wait(&self, me: CoreId) -> Taken {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            invariant!(word & HOLDER_MASK != holder(me), "core {} takes a door twice", me.0);
            let (next, taken) = if word & HOLDER_MASK == holder(me) | GRANTED {
                (word & !GRANTED, Taken::Held)
            } else if word == 0 {
                (holder(me), Taken::Held)
            } else {
                (word | waiting(me), Taken::Waiting)
            };
            if next == word {
                return taken;
            }
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return taken,
                Err(seen) => word = seen,
            }
        }
    }

    /// Whether the door was handed to `me`, which waits: [`take_or_wait`](Self::take_or_wait) will
    /// succeed. What a waiting core polls.
    #[inline]
    pub fn is_granted_to(&self, me: CoreId) -> bool {
        // Ordering: relaxed, because claiming it acquires.
        self.word.load(Ordering::Relaxed) & HOLDER_MASK == holder(me) | GRANTED
    }

    /// Whether the shard's own core holds it, so that mail will be read without a doorbell.
    #[inline]
    pub fn is_held_by_owner(&self) -> bool {
        // Ordering: relaxed; the callers' fences order it with their mail.
        self.word.load(Ordering::Relaxed) & (HOLDER_MASK & !GRANTED) == holder(self.owner)
    }

    /// Whether somebody waits for it.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.word.load(Ordering::Relaxed) >> HOLDER_BITS != 0
    }

    /// Lets go of the door: parks it, or hands it to a waiting core, which is returned and must be
    /// woken if it sleeps.
    #[inline]
    pub fn release(&self, me: CoreId) -> Option<CoreId> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            invariant!(word & HOLDER_MASK == holder(me), "core {} does not hold the door", me.0);
            let waiters = word >> HOLDER_BITS;
            let (next, heir) = if waiters == 0 {
                (0, None)
            } else {
                let heir = if waiters >> self.owner.0 & 1 == 1 {
                    self.owner
                } else {
                    CoreId(waiters.trailing_zeros() as u16)
                };
                (((word & !HOLDER_MASK) | holder(heir) | GRANTED) & !waiting(heir), Some(heir))
            };
            // Ordering: release, so that the next holder sees what was done here.
            match self.word.compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return heir,
                Err(seen) => word = seen,
            }
        }
    }
}

/// A value behind a door.
#[derive(Debug)]
pub struct Guarded<T> {
    /// The door.
    pub door: Door,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through `Held`, which exists only for the core that holds the
// door; the door's acquire and release order one holder's accesses before the next one's.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Puts a value behind a parked door.
    pub fn new(owner: CoreId, value: T) -> Self {
        Self { door: Door::new(owner), value: UnsafeCell::new(value) }
    }

    /// Takes the door if it is parked.
    #[inline]
    pub fn try_take(&self, me: CoreId) -> Option<Held<'_, T>> {
        self.door.try_take(me).then(|| Held { guarded: self, me })
    }

    /// Takes the door, or joins the waiting set and returns nothing: ask again later.
    #[inline]
    pub fn take_or_wait(&self, me: CoreId) -> Option<Held<'_, T>> {
        (self.door.take_or_wait(me) == Taken::Held).then(|| Held { guarded: self, me })
    }
}

/// Proof that a core holds a door. A `CoreId` is used by one thread: the one that runs that core.
#[derive(Debug)]
pub struct Held<'d, T> {
    guarded: &'d Guarded<T>,
    me: CoreId,
}

impl<T> Held<'_, T> {
    /// Lets go; returns the core that holds the door now and must be woken if it sleeps.
    #[inline]
    pub fn release(self) -> Option<CoreId> {
        let heir = self.guarded.door.release(self.me);
        std::mem::forget(self);
        heir
    }

    /// Whether somebody waits for the door.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.guarded.door.is_wanted()
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        // Only reached while a panic unwinds: the heir, if any, finds out at its next poll.
        let _ = self.guarded.door.release(self.me);
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this core holds the door, so no other core has a `Held`; and this `Held` is the
        // only one of this core, because a door that is held is not taken again.
        unsafe { &*self.guarded.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        unsafe { &mut *self.guarded.value.get() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn release_hands_the_door_to_the_owner_first_then_the_lowest() {
        let door = Door::new(CoreId(2));
        assert!(door.try_take(CoreId(0)));
        assert!(!door.try_take(CoreId(1)));
        for core in [1, 2, 3] {
            assert_eq!(door.take_or_wait(CoreId(core)), Taken::Waiting);
        }
        assert_eq!(door.release(CoreId(0)), Some(CoreId(2)));
        for (core, heir) in [(2, Some(CoreId(1))), (1, Some(CoreId(3)))] {
            assert!(door.is_granted_to(CoreId(core)));
            assert_eq!(door.take_or_wait(CoreId(core)), Taken::Held);
            assert_eq!(door.release(CoreId(core)), heir);
        }
        assert_eq!(door.take_or_wait(CoreId(3)), Taken::Held);
        assert_eq!(door.release(CoreId(3)), None);
        assert!(door.try_take(CoreId(1)));
    }
}
