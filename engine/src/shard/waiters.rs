//! Blocked calls: who waits for which key of a shard, in which order.
//!
//! A blocked call is registered with every key it waits for, on whatever shards they are. Whoever
//! makes one of these keys serves the calls that wait for it, first come first served, before
//! anything else happens on that shard. A call that several shards could serve, or that times out at
//! the same moment, goes to whoever claims it first. Knows no session: the call's home core does.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commands::args::OwnedArgs;
use crate::commands::table::Command;
use crate::resp::reply::Protocol;
use crate::shard::state::KeyHasher;
use crate::slots::hash::slot_of;
use crate::units::{CoreId, DbIndex, SlotId};

/// Registrations of one key that are looked through for ended ones from here on.
const SWEEP_MIN: usize = 32;

/// A call that waits.
#[derive(Debug)]
pub struct BlockedCall {
    /// Unique in this process.
    pub id: u64,
    /// The core of its session.
    pub home: CoreId,
    /// What to run when it can be served.
    pub command: &'static Command,
    /// Its words.
    pub words: OwnedArgs,
    /// The database.
    pub db: DbIndex,
    /// Protocol of the reply.
    pub protocol: Protocol,
    /// It waits no more: it is being served, has timed out, or its session has ended.
    ended: AtomicBool,
}

impl BlockedCall {
    /// A call that begins to wait.
    pub fn new(
        id: u64,
        home: CoreId,
        command: &'static Command,
        words: OwnedArgs,
        db: DbIndex,
        protocol: Protocol,
    ) -> Self {
        Self { id, home, command, words, db, protocol, ended: AtomicBool::new(false) }
    }

    /// Ends the wait; `false` if somebody else has.
    pub fn claim(&self) -> bool {
        // Ordering: acquire and release, so that what one claimant did comes before what follows for
        // those that lost.
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Whether it waits no more.
    pub fn has_ended(&self) -> bool {
        // Ordering: a hint; the claim decides.
        self.ended.load(Ordering::Relaxed)
    }
}

/// The calls that wait for one key.
#[derive(Debug, Default)]
struct Queue {
    calls: VecDeque<Arc<BlockedCall>>,
    /// Length at which ended calls are looked for.
    sweep_at: usize,
    /// Its key is among those that are ready.
    is_ready: bool,
}

type Key = (u8, Box<[u8]>);

/// All calls that wait for keys of one shard.
#[derive(Debug, Default)]
pub struct Waiters {
    by_key: HashMap<Key, Queue, BuildHasherDefault<KeyHasher>>,
    /// Keys that were made since and that somebody waits for.
    ready: VecDeque<Key>,
}

impl Waiters {
    /// Whether nobody waits for anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether a key was made that somebody waits for.
    #[inline]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Registers a call with a key, behind those that wait for it, or before all.
    pub fn add(&mut self, key: &[u8], call: &Arc<BlockedCall>, first: bool) {
        let queue = self.by_key.entry((call.db.0, key.into())).or_default();
        // The same key twice among the words of one call.
        if queue.calls.back().is_some_and(|last| Arc::ptr_eq(last, call)) {
            return;
        }
        if first {
            queue.calls.push_front(Arc::clone(call));
        } else {
            queue.calls.push_back(Arc::clone(call));
        }
        if queue.calls.len() >= queue.sweep_at.max(SWEEP_MIN) {
            queue.calls.retain(|call| !call.has_ended());
            queue.sweep_at = queue.calls.len() * 2;
        }
    }

    /// Notes that a key holds something now.
    pub fn signal(&mut self, db: DbIndex, key: &[u8]) {
        let key = (db.0, key.into());
        if let Some(queue) = self.by_key.get_mut(&key)
            && !std::mem::replace(&mut queue.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    /// Notes that every key of a database may hold something now (SWAPDB).
    pub fn signal_all(&mut self, db: DbIndex) {
        for (key, queue) in self.by_key.iter_mut().filter(|((d, _), _)| *d == db.0) {
            if !std::mem::replace(&mut queue.is_ready, true) {
                self.ready.push_back(key.clone());
            }
        }
    }

    /// Takes the next key that holds something.
    pub fn take_ready(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        if let Some(queue) = self.by_key.get_mut(&key) {
            queue.is_ready = false;
        }
        Some(key)
    }

    /// The first `skip`ped call that still waits for a key; calls that have ended are dropped.
    pub fn nth(&mut self, key: &Key, skip: usize) -> Option<Arc<BlockedCall>> {
        let queue = self.by_key.get_mut(key)?;
        while let Some(call) = queue.calls.get(skip) {
            if !call.has_ended() {
                return Some(Arc::clone(call));
            }
            queue.calls.remove(skip);
        }
        if queue.calls.is_empty() {
            self.by_key.remove(key);
        }
        None
    }

    /// Forgets calls that have ended.
    pub fn sweep(&mut self) {
        self.by_key.retain(|_, queue| {
            queue.calls.retain(|call| !call.has_ended());
            !queue.calls.is_empty()
        });
    }

    /// Takes out what waits for keys of a slot, to go with it to another shard.
    pub fn take_slot(&mut self, slot: SlotId) -> Self {
        let mut moved = Self::default();
        let keys: Vec<Key> =
            self.by_key.keys().filter(|(_, key)| slot_of(key) == slot).cloned().collect();
        for key in keys {
            if let Some(queue) = self.by_key.remove(&key) {
                moved.by_key.insert(key, queue);
            }
        }
        moved
    }

    /// Takes in what [`take_slot`](Self::take_slot) gave.
    pub fn put_slot(&mut self, moved: Self) {
        self.by_key.extend(moved.by_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::table;

    fn call(id: u64) -> Arc<BlockedCall> {
        let command = table().get(b"blpop").expect("it exists");
        let words = OwnedArgs::of(&[b"BLPOP", b"k", b"0"]);
        let call = BlockedCall::new(id, CoreId(0), command, words, DbIndex(0), Protocol::Resp2);
        Arc::new(call)
    }

    fn first(waiters: &mut Waiters, key: &[u8]) -> Option<u64> {
        waiters.nth(&(0, key.into()), 0).map(|call| call.id)
    }

    #[test]
    fn calls_wait_in_order_and_each_is_claimed_once() {
        let mut waiters = Waiters::default();
        let calls = [call(1), call(2), call(3)];
        waiters.add(b"k", &calls[0], false);
        waiters.add(b"k", &calls[1], false);
        waiters.add(b"k", &calls[2], true);
        for id in [3, 1, 2] {
            assert_eq!(first(&mut waiters, b"k"), Some(id));
            let call = &calls[id as usize - 1];
            assert!(call.claim() && !call.claim(), "one claim wins");
        }
        assert_eq!(first(&mut waiters, b"k"), None);
        assert!(waiters.is_empty(), "a key that nobody waits for is forgotten");
    }

    #[test]
    fn key_is_ready_once_until_it_is_taken_and_only_if_somebody_waits() {
        let mut waiters = Waiters::default();
        waiters.add(b"k", &call(1), false);
        waiters.add(b"j", &call(2), false);
        waiters.signal(DbIndex(0), b"nobody");
        waiters.signal(DbIndex(1), b"k");
        assert!(!waiters.has_ready());
        waiters.signal(DbIndex(0), b"k");
        waiters.signal_all(DbIndex(0));
        let mut taken: Vec<_> = std::iter::from_fn(|| waiters.take_ready()).collect();
        taken.sort();
        assert_eq!(taken, [(0, b"j"[..].into()), (0, b"k"[..].into())]);
        waiters.signal(DbIndex(0), b"k");
        assert!(waiters.has_ready());
    }

    #[test]
    fn ended_calls_are_forgotten_while_others_come() {
        let mut waiters = Waiters::default();
        for id in 0..10_000 {
            let call = call(id);
            waiters.add(b"k", &call, false);
            call.claim();
        }
        let kept = waiters.by_key[&(0, b"k"[..].into())].calls.len();
        assert!(kept <= 2 * SWEEP_MIN, "{kept} ended calls are kept");
        waiters.sweep();
        assert!(waiters.is_empty());
    }

    #[test]
    fn waiters_of_a_slot_move_with_it() {
        let (mut from, mut to) = (Waiters::default(), Waiters::default());
        from.add(b"k", &call(1), false);
        from.add(b"other", &call(2), false);
        assert_ne!(slot_of(b"k"), slot_of(b"other"));
        to.put_slot(from.take_slot(slot_of(b"k")));
        assert_eq!((first(&mut from, b"k"), first(&mut to, b"k")), (None, Some(1)));
        assert_eq!(first(&mut from, b"other"), Some(2));
    }
}
