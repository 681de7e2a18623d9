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
}

type Key = (u8, Box<[u8]>);

/// All calls that wait for keys of one shard.
#[derive(Debug, Default)]
pub struct Waiters {
    by_key: HashMap<Key, Queue, BuildHasherDefault<KeyHasher>>,
    /// Keys that were made since and that somebody waits for.
    ready: Vec<Key>,
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
        if self.by_key.contains_key(&key) && !self.ready.contains(&key) {
            self.ready.push(key);
        }
    }

    /// Notes that every key of a database may hold something now (SWAPDB).
    pub fn signal_all(&mut self, db: DbIndex) {
        let keys = self.by_key.keys().filter(|(d, _)| *d == db.0).cloned();
        self.ready.extend(keys.collect::<Vec<_>>());
    }

    /// Takes the next key that holds something.
    pub fn take_ready(&mut self) -> Option<Key> {
        if self.ready.is_empty() { None } else { Some(self.ready.remove(0)) }
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
