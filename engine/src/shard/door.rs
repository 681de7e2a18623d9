//! The door of a shard: one atomic word that says which core holds it and which cores wait.
//!
//! A core that finds the word at zero takes the door by one compare-and-swap; it then is the only
//! one that reaches the shard, until it releases the door. Whoever does not get it may leave its
//! bit. The holder, on releasing, hands the door straight to a waiter and tells its caller whom to
//! wake, so nobody slips past a core that waits. The shard's own core comes first, the others in
//! turn: who waits is served after at most two hand-overs per other waiting core. The shard's own
//! core takes its door like any other at the beginning of a turn, and lets go of it before it sleeps.
//!
//! Several doors are taken in ascending order only, the core's own among them (so it lets go of its
//! own first if that is not the lowest). A core that waits for a door keeps those below it and none
//! above it, so no circle of waiting cores can close.
//!
//! A door that has been handed over stays shut until the heir claims it. So the releaser must wake
//! the heir ([`SleepFlag`]), and a core that has joined a waiting set either looks again, with
//! [`take_or_wait`], or says that it has lost interest, with [`stop_waiting`].
//!
//! May be entered by any core. Knows what is behind it only as `T`. Checked in all interleavings of
//! small cases by `tests/loom.rs`, under load by `tests/doors.rs`.
//!
//! Unsafe: the one place that turns "this core holds the door" into `&mut` of what is behind it.
//!
//! [`SleepFlag`]: crate::runtime::sleep::SleepFlag
//! [`take_or_wait`]: Guarded::take_or_wait
//! [`stop_waiting`]: Guarded::stop_waiting

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::sync::{AtomicU64, Ordering, UnsafeCell};
use crate::units::CoreId;

/// Most cores of a process: the width of the waiting set.
pub const CORES_MAX: usize = 48;

/// Who holds the door: its number plus one, or 0 for nobody.
const HOLDER_MASK: u64 = (1 << 6) - 1;
/// The holder was handed the door and has not claimed it yet.
const GRANTED: u64 = 1 << 6;
/// The core, not the owner, that was handed the door last: the next ones in turn come after it.
const LAST_SHIFT: u32 = 8;
const LAST_MASK: u64 = HOLDER_MASK << LAST_SHIFT;
/// Above: one bit for each waiting core.
const WAITING_SHIFT: u32 = 16;

const _: () = assert!(CORES_MAX <= HOLDER_MASK as usize, "the holder's number fits its field");
const _: () = assert!(WAITING_SHIFT as usize + CORES_MAX <= 64, "every core has its bit");

#[inline]
fn holder(core: CoreId) -> u64 {
    invariant!(core.index() < CORES_MAX, "core {} of at most {CORES_MAX}", core.0);
    u64::from(core.0) + 1
}

#[inline]
fn waiting(core: CoreId) -> u64 {
    1 << (WAITING_SHIFT + u32::from(core.0))
}

/// What a core that wants a door got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a door that was taken must be released"]
pub enum Taken {
    /// It holds the door.
    Held,
    /// It is in the waiting set; the door will be handed to it.
    Waiting,
}

/// The word, on cache lines of its own: waiting cores poll it while the holder works behind it.
///
/// # Layout
/// | bits | meaning |
/// |---|---|
/// | 0..6 | the holder's number plus one, or 0 |
/// | 6 | the holder was handed the door and has not claimed it yet |
/// | 8..14 | the core, other than the owner, that was handed the door last |
/// | 16..64 | the waiting set |
///
/// All zero is parked. Nobody waits for a parked door.
#[derive(Debug)]
#[repr(align(128))]
pub struct Door {
    word: AtomicU64,
    /// The core whose shard this is: the first to be handed the door.
    owner: CoreId,
}

impl Door {
    /// A parked door.
    ///
    /// # Panics
    /// If the owner is not below [`CORES_MAX`].
    pub fn new(owner: CoreId) -> Self {
        assert!(owner.index() < CORES_MAX, "at most {CORES_MAX} cores");
        Self { word: AtomicU64::new(0), owner }
    }

    /// Takes the door if it is parked. Does not claim a door that was handed to `me`.
    #[inline]
    #[must_use = "a door that was taken must be released"]
    pub fn try_take(&self, me: CoreId) -> bool {
        // Looked at first: a swap that fails would still pull the line away from the holder.
        // Ordering: relaxed, because the swap acquires.
        if self.word.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // Ordering: acquire, to see what the last holder wrote.
        self.word.compare_exchange(0, holder(me), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the door if it is parked or was handed to `me`, or joins the waiting set.
    ///
    /// # Panics
    /// If `me` holds the door already.
    #[inline]
    pub fn take_or_wait(&self, me: CoreId) -> Taken {
        let granted = holder(me) | GRANTED;
        // Ordering: relaxed, because every way to hold the door goes through the swap below.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let at = word & (HOLDER_MASK | GRANTED);
            invariant!(at != holder(me), "core {} takes a door twice", me.0);
            let (next, taken) = if at == granted {
                (word & !GRANTED, Taken::Held)
            } else if word == 0 {
                (holder(me), Taken::Held)
            } else {
                (word | waiting(me), Taken::Waiting)
            };
            if next == word {
                return taken;
            }
            // Ordering: acquire, to see what the last holder wrote. Cores that added their bits
            // since then did so by a swap, which continues the holder's release.
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return taken,
                Err(seen) => word = seen,
            }
        }
    }

    /// Leaves the waiting set. `true` if the door had been handed to `me` before: then `me` holds it
    /// now and must release it.
    ///
    /// # Panics
    /// If `me` holds the door already.
    #[must_use = "a door that was taken must be released"]
    pub fn stop_waiting(&self, me: CoreId) -> bool {
        let granted = holder(me) | GRANTED;
        // Ordering: relaxed, because claiming goes through the swap below.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let at = word & (HOLDER_MASK | GRANTED);
            invariant!(at != holder(me), "core {} waits for a door that it holds", me.0);
            let next = if at == granted { word & !GRANTED } else { word & !waiting(me) };
            // Ordering: acquire, to see what the last holder wrote. Swapped even if nothing changes:
            // a load might be old and miss the hand-over.
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return at == granted,
                Err(seen) => word = seen,
            }
        }
    }

    /// Whether the door was handed to `me`, which waits: [`take_or_wait`](Self::take_or_wait) will
    /// succeed. What a waiting core polls, and looks at once more between
    /// `SleepFlag::prepare` and its sleep.
    #[inline]
    #[must_use]
    pub fn is_granted_to(&self, me: CoreId) -> bool {
        // Ordering: relaxed, because claiming it acquires.
        self.word.load(Ordering::Relaxed) & (HOLDER_MASK | GRANTED) == holder(me) | GRANTED
    }

    /// Whether the shard's own core holds it, or has been handed it: a hint that mail will be read
    /// soon. It does not replace `SleepFlag::needs_doorbell`: the owner may have read its mail for
    /// the last time and be about to park.
    #[inline]
    #[must_use]
    pub fn is_held_by_owner(&self) -> bool {
        // Ordering: relaxed; a hint.
        self.word.load(Ordering::Relaxed) & HOLDER_MASK == holder(self.owner)
    }

    /// Whether somebody waits for it.
    #[inline]
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        // Ordering: relaxed; whoever joins later is handed the door by `release`.
        self.word.load(Ordering::Relaxed) >> WAITING_SHIFT != 0
    }

    /// Lets go of the door: parks it, or hands it to a waiting core, which is returned and must be
    /// woken if it sleeps.
    ///
    /// # Safety
    /// What [`try_take`](Self::try_take) or [`take_or_wait`](Self::take_or_wait) gave ends here: no
    /// [`Held`] of it may be left. ([`Held::release`] is the safe way.)
    ///
    /// # Panics
    /// If `me` does not hold the door.
    #[inline]
    #[must_use = "the heir must be woken if it sleeps"]
    pub unsafe fn release(&self, me: CoreId) -> Option<CoreId> {
        // Ordering: relaxed, because this core wrote the part that matters.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let at = word & (HOLDER_MASK | GRANTED);
            invariant!(at == holder(me), "core {} does not hold the door", me.0);
            let (next, heir) = self.passed_on(word);
            // Ordering: release, so that the next holder sees what was done here.
            match self.word.compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return heir,
                Err(seen) => word = seen,
            }
        }
    }

    /// What the word becomes when its holder lets go, and who holds the door then.
    #[inline]
    fn passed_on(&self, word: u64) -> (u64, Option<CoreId>) {
        let waiters = word >> WAITING_SHIFT;
        if waiters == 0 {
            return (0, None);
        }
        let heir = self.heir(waiters, (word & LAST_MASK) >> LAST_SHIFT);
        let last =
            if heir == self.owner { word & LAST_MASK } else { u64::from(heir.0) << LAST_SHIFT };
        let waiting = (waiters << WAITING_SHIFT) & !waiting(heir);
        (waiting | last | holder(heir) | GRANTED, Some(heir))
    }

    /// The waiter whose turn it is: the owner, or the first one after `last`, around.
    fn heir(&self, waiters: u64, last: u64) -> CoreId {
        if waiters >> self.owner.0 & 1 == 1 {
            return self.owner;
        }
        let after = waiters & (u64::MAX << last << 1);
        let candidates = if after == 0 { waiters } else { after };
        CoreId(candidates.trailing_zeros() as u16)
    }
}

/// A value behind a door.
#[derive(Debug)]
pub struct Guarded<T> {
    /// The door, to ask it. Taking it here and not through [`Guarded`] gives no access.
    pub door: Door,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through `Held`, of which there is at most one: it is made when a
// swap makes its core the holder, and the door leaves that state only through `Door::release`, whose
// contract is that no `Held` is left. The door's acquire and release order one holder's accesses
// before the next one's. Holders are on different threads, so the value must be `Send`; they never
// share it, so it need not be `Sync`.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Puts a value behind a parked door.
    ///
    /// # Panics
    /// If the owner is not below [`CORES_MAX`].
    pub fn new(owner: CoreId, value: T) -> Self {
        Self { door: Door::new(owner), value: UnsafeCell::new(value) }
    }

    /// Takes the door if it is parked.
    #[inline]
    pub fn try_take(&self, me: CoreId) -> Option<Held<'_, T>> {
        self.door.try_take(me).then(|| self.held(me))
    }

    /// Takes the door, or joins the waiting set and returns nothing: ask again later.
    ///
    /// # Panics
    /// If `me` holds the door already.
    #[inline]
    pub fn take_or_wait(&self, me: CoreId) -> Option<Held<'_, T>> {
        (self.door.take_or_wait(me) == Taken::Held).then(|| self.held(me))
    }

    /// Leaves the waiting set: for a core that has asked by
    /// [`take_or_wait`](Self::take_or_wait) and has no use for the door any more. If the door had
    /// been handed to it before, it holds the door now, and releases it.
    ///
    /// # Panics
    /// If `me` holds the door already.
    pub fn stop_waiting(&self, me: CoreId) -> Option<Held<'_, T>> {
        self.door.stop_waiting(me).then(|| self.held(me))
    }

    #[inline]
    fn held(&self, me: CoreId) -> Held<'_, T> {
        Held { guarded: self, me, _stays: PhantomData }
    }
}

/// Proof that a core holds a door, and the way to what is behind it. Stays on its thread.
#[derive(Debug)]
#[must_use = "a door that was taken must be released"]
pub struct Held<'d, T> {
    guarded: &'d Guarded<T>,
    me: CoreId,
    /// Neither `Send`, because a core is one thread, nor `Sync`, because `T` may not be.
    _stays: PhantomData<*mut T>,
}

impl<T> Held<'_, T> {
    /// Lets go; returns the core that holds the door now and must be woken if it sleeps.
    #[inline]
    #[must_use = "the heir must be woken if it sleeps"]
    pub fn release(self) -> Option<CoreId> {
        let held = ManuallyDrop::new(self);
        // SAFETY: this is the one `Held` of the door, it cannot be used again, and borrows of the
        // value have ended, because `self` was moved here.
        unsafe { held.guarded.door.release(held.me) }
    }

    /// Whether somebody waits for the door.
    #[inline]
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.guarded.door.is_wanted()
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this is the one `Held` of the door, and it ends here.
        let heir = unsafe { self.guarded.door.release(self.me) };
        // While a panic unwinds nobody is there to wake the heir: it finds out when it next looks.
        let is_excused = heir.is_none() || std::thread::panicking();
        debug_invariant!(is_excused, "an heir is not woken: use `release`, do not drop");
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this core holds the door, so no other core has a `Held`; and this `Held` is the
        // only one of this core, because a door that is held is not taken again.
        self.guarded.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        self.guarded.value.with_mut(|value| unsafe { &mut *value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(door: &Door, core: u16) -> Option<u16> {
        // SAFETY: these tests have bare doors, nothing is behind them.
        unsafe { door.release(CoreId(core)) }.map(|heir| heir.0)
    }

    #[test]
    fn release_hands_the_door_to_the_owner_first_then_around() {
        let door = Door::new(CoreId(2));
        assert!(door.try_take(CoreId(0)));
        assert!(!door.try_take(CoreId(1)));
        for core in [1, 2, 3] {
            assert_eq!(door.take_or_wait(CoreId(core)), Taken::Waiting);
        }
        assert_eq!(release(&door, 0), Some(2));
        for (core, heir) in [(2, Some(1)), (1, Some(3))] {
            assert!(door.is_granted_to(CoreId(core)));
            assert!(!door.try_take(CoreId(core)), "a hand-over is claimed by who waits for it");
            assert_eq!(door.take_or_wait(CoreId(core)), Taken::Held);
            assert_eq!(release(&door, core), heir);
        }
        assert_eq!(door.take_or_wait(CoreId(3)), Taken::Held);
        assert_eq!(release(&door, 3), None);
        assert!(door.try_take(CoreId(1)));
    }

    #[test]
    fn release_among_cores_that_always_want_more_serves_each_in_turn() {
        let door = Door::new(CoreId(1));
        let last = CORES_MAX as u16 - 1;
        let cores = [0, 1, 5, last];
        assert_eq!(door.take_or_wait(CoreId(0)), Taken::Held);
        let mut holder = 0;
        let mut served = Vec::new();
        for _ in 0..16 {
            for core in cores.into_iter().filter(|&core| core != holder) {
                assert_eq!(door.take_or_wait(CoreId(core)), Taken::Waiting);
            }
            holder = release(&door, holder).expect("three cores wait");
            assert_eq!(door.take_or_wait(CoreId(holder)), Taken::Held);
            served.push(holder);
        }
        let round = [1, 5, 1, last, 1, 0];
        assert!(served.iter().eq(round.iter().cycle().take(16)), "{served:?}");
    }

    #[test]
    fn core_that_stops_waiting_is_passed_over_or_gets_the_door_it_was_handed() {
        let guarded = Guarded::new(CoreId(0), ());
        let held = guarded.try_take(CoreId(0)).expect("a parked door opens");
        for core in [1, 2] {
            assert!(guarded.take_or_wait(CoreId(core)).is_none());
        }
        assert!(guarded.stop_waiting(CoreId(1)).is_none());
        assert_eq!(held.release(), Some(CoreId(2)));
        let held = guarded.stop_waiting(CoreId(2)).expect("it was handed over");
        assert_eq!(held.release(), None);
        assert!(guarded.stop_waiting(CoreId(2)).is_none(), "it does not wait");
        assert!(!guarded.door.is_wanted());
    }

    #[test]
    fn door_with_the_highest_owner_says_who_holds_and_who_wants_it() {
        let owner = CoreId(CORES_MAX as u16 - 1);
        let guarded = Guarded::new(owner, 7);
        let held = guarded.take_or_wait(owner).expect("a parked door opens");
        assert!(guarded.door.is_held_by_owner() && !held.is_wanted());
        assert!(guarded.take_or_wait(CoreId(0)).is_none());
        assert!(guarded.take_or_wait(CoreId(0)).is_none(), "waiting twice is waiting");
        assert!(held.is_wanted() && !guarded.door.is_granted_to(CoreId(0)));
        assert_eq!(held.release(), Some(CoreId(0)));
        assert!(!guarded.door.is_held_by_owner() && !guarded.door.is_wanted());
        let mut held = guarded.take_or_wait(CoreId(0)).expect("it was handed over");
        *held += 1;
        assert_eq!((*held, held.release()), (8, None));
    }
}
