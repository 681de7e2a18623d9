//! A bounded ring from one sending core to one receiving core.
//!
//! One side writes, the other reads; each keeps a copy of the other's position and looks at the real
//! one only when the copy says "full" or "empty", so a transfer usually touches one shared line.
//! A mailbox never drops and never blocks: a full one gives the value back. Whether the receiver
//! must be woken is not its business (`runtime/sleep.rs`).
//!
//! The receiving end of a shard's requests lies behind the shard's door: whoever holds the door is
//! the reader, be it the owner or the very core that wrote. The door orders one reader before the
//! next.
//!
//! Checked in all interleavings of small cases by `tests/loom.rs`, under load by `tests/doors.rs`.
//!
//! Unsafe: the slots, which the two sides own in turn, as the positions say.

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Keeps what two cores write on lines of their own. 128: processors fetch lines in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct OwnLine<T>(T);

/// What both ends share. Positions count without end; a slot's index is a position's low bits.
///
/// Invariant: `head <= tail <= head + capacity`, in wrapping numbers.
#[derive(Debug)]
struct Ring<T> {
    /// Next position to read. Written by the receiver.
    head: OwnLine<AtomicUsize>,
    /// Next position to write. Written by the sender.
    tail: OwnLine<AtomicUsize>,
    /// A power of two of them.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: slots from `head` to `tail` belong to the receiver, all others to the sender; each
// position is written by one side with release and read by the other with acquire, so a slot is
// never touched by both. Values cross threads, hence `T: Send`; they are never shared.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    #[inline]
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    /// The receiver's position when it was last looked at.
    head_seen: usize,
}

/// The reading end.
#[derive(Debug)]
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    /// The sender's position when it was last looked at.
    tail_seen: usize,
}

/// A mailbox for `capacity` values, rounded up to a power of two.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let slots =
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring { head: OwnLine::default(), tail: OwnLine::default(), slots });
    let sender = Sender { ring: Arc::clone(&ring), tail: 0, head_seen: 0 };
    (sender, Receiver { ring, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    /// Sends a value.
    ///
    /// # Errors
    /// The value, if the mailbox is full.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), T> {
        let capacity = self.ring.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            // Ordering: acquire, so that the receiver is done with the slot.
            self.head_seen = self.ring.head.0.load(Ordering::Acquire);
            let sent = self.tail.wrapping_sub(self.head_seen);
            invariant!(sent <= capacity, "{sent} values in {capacity} slots");
            if sent == capacity {
                return Err(value);
            }
        }
        // SAFETY: the slot is not between head and tail, so it belongs to this side and is empty;
        // `&mut self` keeps other writers out.
        self.ring.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(value) });
        self.tail = self.tail.wrapping_add(1);
        // Ordering: release, so that the receiver sees the value.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether the receiver has taken everything.
    pub fn is_drained(&self) -> bool {
        self.tail == self.ring.head.0.load(Ordering::Acquire)
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest value.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            // Ordering: acquire, so that the value is seen.
            self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: the slot is between head and tail, so it holds a value that belongs to this side;
        // it is read once, because `head` moves past it.
        let value =
            self.ring.slot(self.head).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        // Ordering: release, so that the sender writes the slot only after it was read.
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether there is nothing to take. Right about everything sent before a fence that the
    /// caller's own fence follows: the second look before sleep (`runtime/sleep.rs`).
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Ordering: relaxed, because taking acquires.
        self.head == self.tail_seen && self.head == self.ring.tail.0.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Ordering: relaxed; both ends are gone, and the count that said so ordered their writes.
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: slots between head and tail hold values, and nobody else is left to read them.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn values_arrive_in_order_across_threads() {
        let (mut sender, mut receiver) = mailbox::<Box<u64>>(8);
        let thread = std::thread::spawn(move || {
            for n in 0..100_000u64 {
                let mut value = Box::new(n);
                while let Err(back) = sender.try_send(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..100_000u64 {
            let value = loop {
                match receiver.try_recv() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, n);
        }
        assert!(receiver.is_empty());
        thread.join().expect("the sender ends");
    }

    #[test]
    fn full_mailbox_gives_the_value_back_and_drop_frees_the_rest() {
        let (mut sender, receiver) = mailbox::<Arc<()>>(2);
        let value = Arc::new(());
        for _ in 0..2 {
            assert!(sender.try_send(Arc::clone(&value)).is_ok());
        }
        assert!(sender.try_send(Arc::clone(&value)).is_err());
        drop((sender, receiver));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn value_outlives_the_sender_that_sent_it() {
        let (mut sender, mut receiver) = mailbox(1);
        assert_eq!(sender.try_send(String::from("last words")), Ok(()));
        drop(sender);
        assert!(!receiver.is_empty());
        assert_eq!(receiver.try_recv().as_deref(), Some("last words"));
        assert_eq!(receiver.try_recv(), None);
    }

    proptest::proptest! {
        /// `Some` sends, `None` receives; the twin is a queue of the standard library.
        #[test]
        fn mailbox_with_any_calls_behaves_like_a_bounded_queue(
            capacity in 0usize..9,
            calls in proptest::collection::vec(proptest::option::of(0u32..1000), 0..200),
        ) {
            let (mut sender, mut receiver) = mailbox(capacity);
            let mut model = VecDeque::new();
            for call in calls {
                match call {
                    Some(n) if model.len() == capacity.next_power_of_two() => {
                        proptest::prop_assert_eq!(sender.try_send(Box::new(n)), Err(Box::new(n)));
                    }
                    Some(n) => {
                        proptest::prop_assert_eq!(sender.try_send(Box::new(n)), Ok(()));
                        model.push_back(n);
                    }
                    None => {
                        let got = receiver.try_recv().map(|n| *n);
                        proptest::prop_assert_eq!(got, model.pop_front());
                    }
                }
                proptest::prop_assert_eq!(receiver.is_empty(), model.is_empty());
            }
        }
    }
}
