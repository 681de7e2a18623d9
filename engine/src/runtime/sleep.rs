//! Whether a core sleeps in its ring, so that others know when a doorbell is due.
//!
//! | the core that goes to sleep | a core that has something for it |
//! |---|---|
//! | 1. [`prepare`](SleepFlag::prepare): raise the flag, fence | 1. put it down: mail, or a door handed over |
//! | 2. look once more at mail and at doors it waits for | 2. [`needs_doorbell`](SleepFlag::needs_doorbell): fence, ask the flag |
//! | 3. nothing there: park the shard, sleep in the ring | 3. `true`: ring, in this turn |
//! | 4. [`awake`](SleepFlag::awake), in either case | |
//!
//! This is Dekker's protocol: each side writes, then reads what the other one writes. The two
//! fences stand in one order that all cores agree on, so either the core's second look sees what
//! was put down, or the sender sees the flag; both may happen, and then the doorbell is spare. A
//! doorbell that rings before the core is asleep is not lost: it lies in the ring as a completion.
//!
//! - Between going to sleep and asleep there is no third state, because a sender acts alike in both.
//! - The flag goes down with the first sender that sees it, so one doorbell is rung per sleep. Those
//!   who come later rely on it: who got `true` rings whatever happens, and no later than its turn's
//!   end.
//! - Mail for a shard is read behind the shard's door. So for its second look the core still holds
//!   the door, and parks after that; or it has parked, and takes the door again to look, with
//!   `take_or_wait`: if a borrower is in, the door is handed over and the doorbell rings. To try the
//!   door and sleep if it is shut loses mail that came before the flag was up.
//! - A core that waits for its door cannot look at its mail: it looks at the door, and mail waits
//!   with it. A doorbell for such mail is spare.
//! - A core that wakes for another reason (time, a socket) calls `awake` and may find a doorbell in
//!   its ring later. Spare doorbells are harmless.
//!
//! Checked in all interleavings of small cases by `tests/loom.rs`, under load by `tests/doors.rs`.

use crate::sync::{AtomicBool, Ordering, fence};

/// The flag of one core, on lines of its own: every sender reads it after every batch.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct SleepFlag {
    asleep: AtomicBool,
}

impl SleepFlag {
    /// Says that the core is about to sleep. It looks for mail and for doors after this and before
    /// it sleeps, and calls [`awake`](Self::awake) whatever it finds.
    #[inline]
    pub fn prepare(&self) {
        // A swap, as in all changes of this word, so that each follows the one before in an unbroken
        // chain. (A store is enough by the memory model, but loom does not order a store and another
        // thread's swap.) Cost: some 20 cycles beside a system call.
        // Ordering: relaxed, the fence orders it.
        self.asleep.swap(true, Ordering::Relaxed);
        // Ordering: sequentially consistent fence, paired with the one in `needs_doorbell`: the
        // flag is raised before the second look.
        fence(Ordering::SeqCst);
    }

    /// Says that the core is awake: it will look at its mail before it prepares to sleep again.
    #[inline]
    pub fn awake(&self) {
        // Ordering: relaxed. A sender that still sees the flag up rings a spare doorbell. One that
        // sees it down relies on the second look of the next sleep, which `prepare` orders.
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// Whether the caller, who has just put something down for the core, must ring its doorbell.
    /// True for one caller per sleep.
    #[inline]
    #[must_use = "who is told to ring must ring: others rely on it"]
    pub fn needs_doorbell(&self) -> bool {
        // Ordering: sequentially consistent fence, paired with the one in `prepare`: what the
        // caller put down comes before the look at the flag.
        fence(Ordering::SeqCst);
        // Looked at first: a core that is awake keeps its line. Ordering: relaxed, the fence orders
        // both; the swap decides between callers by the order of changes of this one word.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbell_is_due_once_per_sleep_and_not_while_awake() {
        let flag = SleepFlag::default();
        assert!(!flag.needs_doorbell());
        for _ in 0..2 {
            flag.prepare();
            assert!(flag.needs_doorbell());
            assert!(!flag.needs_doorbell());
            flag.awake();
            assert!(!flag.needs_doorbell());
        }
        flag.prepare();
        flag.awake();
        assert!(!flag.needs_doorbell(), "the core found something and stayed awake");
    }
}
