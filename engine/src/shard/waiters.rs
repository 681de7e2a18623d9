//! Blocked calls: who waits for which key of a shard, in which order.
//!
//! A blocked call is registered with every key it waits for, on whatever shards they are. Whoever
//! makes one of these keys serves the calls that wait for it, first come first served, before
//! anything else happens on that shard. A call that several shards could serve, or that times out at
//! the same moment, goes to whoever claims it first. Knows no session: the call's home core does.
//!
//! Nothing here takes longer because many wait: a call is found in its queue by its rank, the queues
//! lie by slot, so that a slot moves with its queues, and an exchange of databases, after which any
//! key may hold something, looks at one slot after another.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commands::args::{Args, OwnedArgs};
use crate::commands::keys::find_keys;
use crate::commands::spec::Purpose;
use crate::commands::table::Command;
use crate::resp::reply::Protocol;
use crate::shard::state::KeyHasher;
use crate::slots::hash::slot_of;
use crate::units::{CoreId, DbIndex, SLOT_COUNT, SlotId};

/// Places of one queue from which on those that have ended are looked for.
const TRIM_MIN: usize = 32;
/// When any key may hold something, so many are signalled at once;
const SCAN_AT_ONCE_MAX: usize = 512;
/// if more are waited for, so many at a time.
const SCAN_STEP: usize = 64;

/// A call that waits.
#[derive(Debug)]
pub struct BlockedCall {
    /// Unique in this process.
    pub id: u64,
    /// Its place among those that wait for the same key: the id that it had when it came.
    pub rank: u64,
    /// The core of its session.
    pub home: CoreId,
    /// Index and generation of the session there.
    pub session: (u32, u32),
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

/// What a call that begins to wait is made of.
#[derive(Debug)]
pub struct BlockedParts {
    /// The core of its session.
    pub home: CoreId,
    /// Index and generation of the session there.
    pub session: (u32, u32),
    /// What to run when it can be served.
    pub command: &'static Command,
    /// Its words.
    pub words: OwnedArgs,
    /// The database.
    pub db: DbIndex,
    /// Protocol of the reply.
    pub protocol: Protocol,
}

impl BlockedCall {
    /// A call that begins to wait, or goes on waiting in its old place.
    pub fn new(id: u64, rank: Option<u64>, parts: BlockedParts) -> Self {
        let BlockedParts { home, session, command, words, db, protocol } = parts;
        let (rank, ended) = (rank.unwrap_or(id), AtomicBool::new(false));
        Self { id, rank, home, session, command, words, db, protocol, ended }
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

    /// Which of its words are keys that it waits for. A call that moves an element does not wait for
    /// its destination.
    pub fn awaited(&self, args: &Args<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        find_keys(self.command.spec, args, &mut found);
        let is_awaited = |purpose| matches!(purpose, Purpose::AccessDelete | Purpose::Delete);
        found.retain(|found| is_awaited(found.spec.purpose));
        found.iter().map(|found| found.index as u32).collect()
    }
}

/// The calls that wait for one key.
#[derive(Debug, Default)]
struct Queue {
    /// By rank. A call that has been taken out leaves its place behind until there are many.
    places: VecDeque<(u64, Option<Arc<BlockedCall>>)>,
    /// Places that are taken.
    len: usize,
    /// Its key is among those that are ready.
    is_ready: bool,
}

impl Queue {
    fn add(&mut self, call: &Arc<BlockedCall>) {
        let place = (call.rank, Some(Arc::clone(call)));
        // Nearly all come last.
        if self.places.back().is_none_or(|(last, _)| *last < call.rank) {
            self.places.push_back(place);
            self.len += 1;
            return;
        }
        match self.places.binary_search_by_key(&call.rank, |(rank, _)| *rank) {
            // The same key twice among its words, or it waits again.
            Ok(at) => {
                let before = self.places[at].1.replace(Arc::clone(call));
                self.len += usize::from(before.is_none());
            }
            Err(at) => {
                self.places.insert(at, place);
                self.len += 1;
            }
        }
    }

    fn remove(&mut self, call: &BlockedCall) {
        let Ok(at) = self.places.binary_search_by_key(&call.rank, |(rank, _)| *rank) else {
            return;
        };
        let place = &mut self.places[at].1;
        if place.take_if(|kept| kept.id == call.id).is_some() {
            self.len -= 1;
            self.trim();
        }
    }

    /// The first call behind `rank` that still waits; those before it that have ended are dropped.
    fn behind(&mut self, rank: u64) -> Option<Arc<BlockedCall>> {
        let from = self.places.partition_point(|(before, _)| *before <= rank);
        let mut found = None;
        for (_, place) in self.places.range_mut(from..) {
            match place {
                Some(call) if !call.has_ended() => {
                    found = Some(Arc::clone(call));
                    break;
                }
                Some(_) => {
                    *place = None;
                    self.len -= 1;
                }
                None => {}
            }
        }
        self.trim();
        found
    }

    /// Forgets places that nobody is in: those at the ends at once, all when they are the most.
    fn trim(&mut self) {
        while self.places.pop_front_if(|(_, call)| call.is_none()).is_some() {}
        while self.places.pop_back_if(|(_, call)| call.is_none()).is_some() {}
        if self.places.len() >= TRIM_MIN && self.len * 2 < self.places.len() {
            self.places.retain(|(_, call)| call.is_some());
        }
        if self.places.capacity() > TRIM_MIN && self.places.len() * 4 < self.places.capacity() {
            self.places.shrink_to(self.places.len() * 2);
        }
    }
}

/// A database and a key in it.
pub type Key = (DbIndex, Box<[u8]>);

type Queues = HashMap<Box<[u8]>, Queue, BuildHasherDefault<KeyHasher>>;

/// What waits for keys of one slot: few databases have any.
#[derive(Debug, Default)]
struct SlotQueues(Vec<(DbIndex, Queues)>);

impl SlotQueues {
    fn queues_mut(&mut self, db: DbIndex) -> Option<&mut Queues> {
        self.0.iter_mut().find_map(|(d, queues)| (*d == db).then_some(queues))
    }

    fn queue_mut(&mut self, db: DbIndex, key: &[u8]) -> Option<&mut Queue> {
        self.queues_mut(db)?.get_mut(key)
    }

    fn queue_or_new(&mut self, db: DbIndex, key: &[u8]) -> (&mut Queue, bool) {
        let at = self.0.iter().position(|(d, _)| *d == db).unwrap_or_else(|| {
            self.0.push((db, Queues::default()));
            self.0.len() - 1
        });
        let queues = &mut self.0[at].1;
        let is_new = !queues.contains_key(key);
        (queues.entry(key.into()).or_default(), is_new)
    }

    fn remove(&mut self, db: DbIndex, key: &[u8]) {
        if let Some(queues) = self.queues_mut(db) {
            queues.remove(key);
            if queues.is_empty() {
                self.0.retain(|(_, queues)| !queues.is_empty());
            }
        }
    }

    fn key_count(&self) -> usize {
        self.0.iter().map(|(_, queues)| queues.len()).sum()
    }
}

/// Databases of which any key may hold something.
#[derive(Clone, Copy, Debug)]
struct Scan {
    /// One bit each.
    dbs: u32,
    /// The slot to look at next.
    slot: usize,
}

/// All calls that wait for keys of one shard.
#[derive(Debug, Default)]
pub struct Waiters {
    /// By slot; empty until somebody waits.
    slots: Box<[SlotQueues]>,
    /// Keys that somebody waits for.
    key_count: usize,
    /// Keys that were made since and that somebody waits for.
    ready: VecDeque<Key>,
    scan: Option<Scan>,
}

impl Waiters {
    /// Whether nobody waits for anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.key_count == 0
    }

    /// Whether a key was made that somebody waits for.
    #[inline]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Registers a call with a key, in the order of ranks.
    pub fn add(&mut self, key: &[u8], call: &Arc<BlockedCall>) {
        if self.slots.is_empty() {
            self.slots = (0..SLOT_COUNT).map(|_| SlotQueues::default()).collect();
        }
        let (queue, is_new) = self.slots[slot_of(key).index()].queue_or_new(call.db, key);
        queue.add(call);
        self.key_count += usize::from(is_new);
    }

    /// Takes a call out that has ended. One that waits again in its place stays.
    pub fn remove(&mut self, key: &[u8], call: &BlockedCall) {
        if let Some(queue) = self.queue_mut(call.db, key) {
            queue.remove(call);
            if queue.len == 0 {
                self.forget_key(call.db, key);
            }
        }
    }

    fn queue_mut(&mut self, db: DbIndex, key: &[u8]) -> Option<&mut Queue> {
        self.slots.get_mut(slot_of(key).index())?.queue_mut(db, key)
    }

    fn forget_key(&mut self, db: DbIndex, key: &[u8]) {
        self.slots[slot_of(key).index()].remove(db, key);
        self.key_count -= 1;
    }

    /// Notes that a key holds something now.
    pub fn signal(&mut self, db: DbIndex, key: &[u8]) {
        if let Some(queue) = self.queue_mut(db, key)
            && !std::mem::replace(&mut queue.is_ready, true)
        {
            self.ready.push_back((db, key.into()));
        }
    }

    /// Notes that every key of a database may hold something now (SWAPDB). If many are waited for,
    /// they are signalled step by step: see [`scan_step`](Self::scan_step).
    pub fn signal_all(&mut self, db: DbIndex) {
        if self.is_empty() {
            return;
        }
        let dbs = self.scan.map_or(0, |scan| scan.dbs) | 1 << db.0;
        self.scan = Some(Scan { dbs, slot: 0 });
        if self.key_count <= SCAN_AT_ONCE_MAX {
            self.scan_keys(usize::MAX);
        }
    }

    /// Whether keys have still to be signalled.
    #[inline]
    pub fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Signals some of the keys that may hold something: those of whole slots.
    pub fn scan_step(&mut self) {
        self.scan_keys(SCAN_STEP);
    }

    fn scan_keys(&mut self, count_max: usize) {
        let Some(scan) = &mut self.scan else {
            return;
        };
        let mut seen = 0;
        while let Some(slot) = self.slots.get_mut(scan.slot) {
            if seen > 0 && seen + slot.key_count() > count_max {
                return;
            }
            scan.slot += 1;
            for (db, queues) in slot.0.iter_mut().filter(|(db, _)| scan.dbs >> db.0 & 1 == 1) {
                seen += queues.len();
                for (key, queue) in queues.iter_mut().filter(|(_, queue)| !queue.is_ready) {
                    queue.is_ready = true;
                    self.ready.push_back((*db, key.clone()));
                }
            }
        }
        self.scan = None;
    }

    /// Takes the next key that holds something.
    pub fn take_ready(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        if let Some(queue) = self.queue_mut(key.0, &key.1) {
            queue.is_ready = false;
        }
        Some(key)
    }

    /// The first call behind `rank` that still waits for a key; none has the rank 0.
    pub fn behind(&mut self, key: &Key, rank: u64) -> Option<Arc<BlockedCall>> {
        let queue = self.queue_mut(key.0, &key.1)?;
        let found = queue.behind(rank);
        if queue.len == 0 {
            self.forget_key(key.0, &key.1);
        }
        found
    }

    /// Takes out the calls that wait for keys of a slot, in no order: they will not be served here.
    pub fn take_calls(&mut self, slot: SlotId) -> Vec<Arc<BlockedCall>> {
        let Some(queues) = self.slots.get_mut(slot.index()).map(std::mem::take) else {
            return Vec::new();
        };
        self.key_count -= queues.key_count();
        let queues = queues.0.into_iter().flat_map(|(_, queues)| queues.into_values());
        let calls = queues.flat_map(|queue| queue.places.into_iter().filter_map(|(_, call)| call));
        calls.filter(|call| !call.has_ended()).collect()
    }

    /// Gives what waits for keys of a slot to another shard, to which the slot moves.
    ///
    /// # Complexity
    /// O(1), and O(keys of the slot) while keys are signalled step by step.
    pub fn give_slot(&mut self, slot: SlotId, to: &mut Self) {
        debug_invariant!(self.ready.is_empty(), "keys are served before anything else");
        let Some(queues) = self.slots.get_mut(slot.index()).map(std::mem::take) else {
            return;
        };
        let count = queues.key_count();
        if count == 0 {
            return;
        }
        if to.slots.is_empty() {
            to.slots = (0..SLOT_COUNT).map(|_| SlotQueues::default()).collect();
        }
        to.slots[slot.index()] = queues;
        self.key_count -= count;
        to.key_count += count;
        if let Some(Scan { dbs, .. }) = self.scan {
            // It may not have been looked at yet. Those that have find nothing new.
            let dbs = dbs | to.scan.map_or(0, |scan| scan.dbs);
            to.scan = Some(Scan { dbs, slot: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::table;

    fn parts() -> BlockedParts {
        BlockedParts {
            home: CoreId(0),
            session: (0, 0),
            command: table().get(b"blpop").expect("it exists"),
            words: OwnedArgs::of(&[b"BLPOP", b"k", b"0"]),
            db: DbIndex(0),
            protocol: Protocol::Resp2,
        }
    }

    fn call(id: u64) -> Arc<BlockedCall> {
        Arc::new(BlockedCall::new(id, None, parts()))
    }

    fn key(key: &[u8]) -> Key {
        (DbIndex(0), key.into())
    }

    fn first(waiters: &mut Waiters, name: &[u8]) -> Option<u64> {
        waiters.behind(&key(name), 0).map(|call| call.id)
    }

    #[test]
    fn calls_wait_in_order_and_each_is_claimed_once() {
        let mut waiters = Waiters::default();
        let calls = [call(1), call(2), call(3)];
        calls.iter().for_each(|call| waiters.add(b"k", call));
        for (call, id) in calls.iter().zip(1..) {
            assert_eq!(first(&mut waiters, b"k"), Some(id));
            assert!(call.claim() && !call.claim(), "one claim wins");
        }
        assert_eq!(first(&mut waiters, b"k"), None);
        assert!(waiters.is_empty(), "a key that nobody waits for is forgotten");
    }

    #[test]
    fn call_that_waits_again_has_its_old_place() {
        let mut waiters = Waiters::default();
        let calls = [call(1), call(2), call(3)];
        calls.iter().for_each(|call| waiters.add(b"k", call));
        calls[1].claim();
        // Before and after its former registration is gone.
        let again = Arc::new(BlockedCall::new(4, Some(2), parts()));
        waiters.add(b"k", &again);
        waiters.remove(b"k", &calls[1]);
        let behind = |waiters: &mut Waiters, rank| waiters.behind(&key(b"k"), rank).map(|c| c.id);
        assert_eq!(behind(&mut waiters, 0), Some(1));
        assert_eq!(behind(&mut waiters, 1), Some(4));
        assert_eq!(behind(&mut waiters, 2), Some(3));
        again.claim();
        waiters.remove(b"k", &again);
        waiters.add(b"k", &Arc::new(BlockedCall::new(5, Some(2), parts())));
        assert_eq!(behind(&mut waiters, 1), Some(5));
    }

    #[test]
    fn key_is_ready_once_until_it_is_taken_and_only_if_somebody_waits() {
        let mut waiters = Waiters::default();
        waiters.add(b"k", &call(1));
        waiters.add(b"j", &call(2));
        waiters.signal(DbIndex(0), b"nobody");
        waiters.signal(DbIndex(1), b"k");
        assert!(!waiters.has_ready());
        waiters.signal(DbIndex(0), b"k");
        waiters.signal_all(DbIndex(0));
        assert!(!waiters.is_scanning(), "few keys are signalled at once");
        let mut taken: Vec<_> = std::iter::from_fn(|| waiters.take_ready()).collect();
        taken.sort();
        assert_eq!(taken, [key(b"j"), key(b"k")]);
        waiters.signal(DbIndex(0), b"k");
        assert!(waiters.has_ready());
    }

    #[test]
    fn many_keys_are_signalled_in_steps_each_once() {
        let mut waiters = Waiters::default();
        let names: Vec<String> = (0..20_000).map(|i| format!("key:{i}")).collect();
        for (name, id) in names.iter().zip(1..) {
            waiters.add(name.as_bytes(), &call(id));
        }
        waiters.signal_all(DbIndex(1));
        waiters.signal_all(DbIndex(0));
        let (mut taken, mut steps) = (std::collections::HashSet::new(), 0);
        while waiters.is_scanning() {
            waiters.scan_step();
            steps += 1;
            let mut count = 0;
            while let Some(key) = waiters.take_ready() {
                assert!(taken.insert(key));
                count += 1;
            }
            assert!(count <= SCAN_STEP, "{count} in one step");
        }
        assert!(taken.len() == names.len() && steps >= 20_000 / SCAN_STEP, "{steps}");
    }

    #[test]
    fn calls_that_end_leave_nothing_behind_in_whatever_order() {
        let mut waiters = Waiters::default();
        let calls: Vec<_> = (1..=10_000).map(call).collect();
        calls.iter().for_each(|call| waiters.add(b"k", call));
        // From everywhere: 7 and 10 000 have no common factor.
        for i in 0..10_000 {
            let call = &calls[i * 7 % 10_000];
            assert!(call.claim());
            waiters.remove(b"k", call);
            if i % 1000 == 0 {
                let queue = waiters.queue_mut(DbIndex(0), b"k").expect("others wait");
                assert_eq!(queue.len, 9_999 - i);
                assert!(queue.places.len() < TRIM_MIN.max(2 * queue.len + 1), "holes remain");
            }
        }
        assert!(waiters.is_empty());
        assert!(calls.iter().all(|call| Arc::strong_count(call) == 1));
    }

    #[test]
    fn ended_calls_are_passed_over_before_they_are_removed() {
        let mut waiters = Waiters::default();
        let calls: Vec<_> = (1..=1_000).map(call).collect();
        calls.iter().for_each(|call| waiters.add(b"k", call));
        calls[..999].iter().for_each(|call| assert!(call.claim()));
        assert_eq!(first(&mut waiters, b"k"), Some(1_000));
        calls.iter().for_each(|call| waiters.remove(b"k", call));
        assert!(waiters.is_empty());
    }

    #[test]
    fn waiters_of_a_slot_move_with_it_and_are_signalled_there() {
        let (mut from, mut to) = (Waiters::default(), Waiters::default());
        from.add(b"k", &call(1));
        from.add(b"other", &call(2));
        assert_ne!(slot_of(b"k"), slot_of(b"other"));
        from.scan = Some(Scan { dbs: 1, slot: 0 });
        from.give_slot(slot_of(b"k"), &mut to);
        assert_eq!((first(&mut from, b"k"), first(&mut to, b"k")), (None, Some(1)));
        assert_eq!(first(&mut from, b"other"), Some(2));
        to.scan_step();
        assert_eq!((to.take_ready(), to.key_count, from.key_count), (Some(key(b"k")), 1, 1));
    }
}
