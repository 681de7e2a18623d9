//! What every core may ask about the moves under way: which keys are held, what STATUS shows, who
//! waits. One lock per database, taken for a few instructions, and only while something moves there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::migrate::dialect::call::Outcome;
use crate::migrate::dialect::stream::Params;
use crate::slots::hash::tag;
use crate::units::{CoreId, DATABASES_MAX, DbIndex, Ms};

/// Keys that a broken move left behind at targets, at most: beyond, the oldest knowledge is kept.
const TAINTED_MAX: usize = 100_000;

/// The connection that asynchronous moves of a database use.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where to.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Longest silence.
    pub timeout_ms: i64,
    /// When something was sent or answered.
    pub last_use: Ms,
    /// Answers that are due.
    pub due_count: usize,
    /// Whose it is.
    pub core: CoreId,
    /// The core's number of the move that uses it, or used it last.
    pub job: u64,
}

/// What is shown of a batch.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Its keys.
    pub keys: Vec<Box<[u8]>>,
    /// Its limits.
    pub params: Option<Params>,
    /// Messages it was estimated to take.
    pub estimated_messages: usize,
    /// Keys completely written.
    pub removed_count: usize,
    /// Keys sent in chunks.
    pub chunked_count: usize,
    /// Keys that are left.
    pub left_count: usize,
    /// The key that is being sent.
    pub head: Option<Head>,
}

/// What is shown of the key that is being sent.
#[derive(Clone, Debug)]
pub struct Head {
    /// The key.
    pub key: Box<[u8]>,
    /// The original's number of its type; -1 if nothing was read of it.
    pub type_number: i64,
    /// The original's number of the stage.
    pub stage: i64,
    /// When it ends; -1 if never.
    pub expires_at: i64,
    /// Elements sent.
    pub position: usize,
    /// Chunks sent.
    pub chunk_count: usize,
}

/// Moves of one database.
#[derive(Debug, Default)]
pub struct DbMoves {
    /// The connection of its asynchronous moves.
    pub client: Option<Client>,
    /// The batch that runs.
    pub shown: Option<Shown>,
    /// Who waits for it to end: a core and its number of the wait.
    pub waiters: Vec<(CoreId, u64)>,
    /// Keys on their way, of any form.
    claimed: HashSet<Box<[u8]>>,
    /// Tags whose keys are on their way.
    tags: HashSet<Box<[u8]>>,
    /// Keys of which a target may have an old copy.
    tainted: HashMap<Box<[u8]>, String>,
}

impl DbMoves {
    /// Whether a write to a key has to wait: it is on its way, or a target has an old copy of it.
    pub fn is_held(&self, key: &[u8]) -> bool {
        self.claimed.contains(key) || self.has_tag_of(key) || self.tainted.contains_key(key)
    }

    fn has_tag_of(&self, key: &[u8]) -> bool {
        !self.tags.is_empty() && tag(key).is_some_and(|tag| self.tags.contains(tag))
    }

    /// Claims keys and tags for a move; `false`, and nothing is claimed, if another one has any.
    pub fn claim(&mut self, keys: &[Box<[u8]>], tags: &[Box<[u8]>]) -> bool {
        let is_taken = |key: &[u8]| self.claimed.contains(key) || self.has_tag_of(key);
        if keys.iter().any(|key| is_taken(key)) || tags.iter().any(|tag| self.tags.contains(tag)) {
            return false;
        }
        // A key of the tag that somebody moves alone.
        let of_tags = |key: &[u8]| tag(key).is_some_and(|t| tags.iter().any(|other| **other == *t));
        if !tags.is_empty() && self.claimed.iter().any(|key| of_tags(key)) {
            return false;
        }
        self.claimed.extend(keys.iter().cloned());
        self.tags.extend(tags.iter().cloned());
        true
    }

    /// Claims further keys, of tags that the move has claimed.
    pub fn claim_more(&mut self, keys: &[Box<[u8]>]) {
        self.claimed.extend(keys.iter().cloned());
    }

    /// Gives a claim back.
    pub fn release(&mut self, keys: &[Box<[u8]>], tags: &[Box<[u8]>]) {
        for key in keys {
            self.claimed.remove(key);
        }
        for tag in tags {
            self.tags.remove(tag);
        }
    }

    /// Notes that a target may have an old copy of a key.
    pub fn taint(&mut self, key: &[u8], target: &str) {
        if self.tainted.len() < TAINTED_MAX {
            self.tainted.insert(key.into(), target.to_owned());
        }
    }

    /// Notes that a target has none any more.
    pub fn untaint(&mut self, key: &[u8], target: &str) {
        if self.tainted.get(key).is_some_and(|of| of == target) {
            self.tainted.remove(key);
        }
    }

    /// Whether this target may have an old copy of a key.
    pub fn is_tainted(&self, key: &[u8], target: &str) -> bool {
        self.tainted.get(key).is_some_and(|of| of == target)
    }

    /// Whether nothing has to be asked of this database.
    fn is_quiet(&self) -> bool {
        self.shown.is_none()
            && self.claimed.is_empty()
            && self.tags.is_empty()
            && self.tainted.is_empty()
    }

    /// Ends the batch and takes out who waits for it.
    pub fn end(&mut self) -> Vec<(CoreId, u64)> {
        self.shown = None;
        std::mem::take(&mut self.waiters)
    }
}

/// Ended batches, by the number of the wait.
type Outcomes = Mutex<Vec<(u64, Outcome)>>;

/// Moves of all databases.
#[derive(Debug)]
pub struct Registry {
    /// A bit for each database in which something moves.
    active: AtomicU32,
    dbs: [Mutex<DbMoves>; DATABASES_MAX],
    /// Ended batches for those that wait on other cores, by core.
    outcomes: Box<[Outcomes]>,
    /// A bit for each core that has some.
    told: AtomicU32,
    /// Counts cancelled connections, so that cores notice.
    cancels: AtomicU32,
}

/// A lock on the moves of a database; what is changed through it is known to all when it is dropped.
#[derive(Debug)]
pub struct Guard<'a> {
    registry: &'a Registry,
    db: DbIndex,
    moves: MutexGuard<'a, DbMoves>,
}

impl std::ops::Deref for Guard<'_> {
    type Target = DbMoves;
    fn deref(&self) -> &DbMoves {
        &self.moves
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut DbMoves {
        &mut self.moves
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let bit = 1 << self.db.0;
        // Ordering: sequentially consistent, and under the lock: whoever claims a key under its door
        // does so before any later holder of that door asks.
        if self.moves.is_quiet() {
            self.registry.active.fetch_and(!bit, Ordering::SeqCst);
        } else {
            self.registry.active.fetch_or(bit, Ordering::SeqCst);
        }
    }
}

impl Registry {
    /// Nothing moves.
    pub fn new(core_count: usize) -> Self {
        Self {
            active: AtomicU32::new(0),
            dbs: Default::default(),
            outcomes: (0..core_count).map(|_| Mutex::default()).collect(),
            told: AtomicU32::new(0),
            cancels: AtomicU32::new(0),
        }
    }

    /// Whether something moves in a database. Costs one load.
    pub fn is_active(&self, db: DbIndex) -> bool {
        self.active.load(Ordering::SeqCst) & (1 << db.0) != 0
    }

    /// The moves of a database.
    pub fn lock(&self, db: DbIndex) -> Guard<'_> {
        let moves = self.dbs[db.index()].lock().unwrap_or_else(PoisonError::into_inner);
        Guard { registry: self, db, moves }
    }

    /// Whether a write to one of these keys has to wait.
    pub fn holds_any<'k>(&self, db: DbIndex, mut keys: impl Iterator<Item = &'k [u8]>) -> bool {
        self.is_active(db) && {
            let moves = self.lock(db);
            keys.any(|key| moves.is_held(key))
        }
    }

    /// Whether a batch of a database is under way, so that it takes nothing in.
    pub fn is_sending(&self, db: DbIndex) -> bool {
        self.is_active(db) && self.lock(db).shown.is_some()
    }

    /// Drops the connection of a database; the core that has it, if there is one.
    pub fn cancel(&self, db: DbIndex) -> Option<CoreId> {
        let client = self.lock(db).client.take()?;
        // Ordering: release, paired with the acquire of whoever looks.
        self.cancels.fetch_add(1, Ordering::Release);
        Some(client.core)
    }

    /// Changes with every cancelled connection.
    pub fn cancel_count(&self) -> u32 {
        self.cancels.load(Ordering::Acquire)
    }

    /// Tells a core how a batch has ended that one of its clients waits for.
    pub fn tell(&self, core: CoreId, wait: u64, outcome: Outcome) {
        let outcomes = &self.outcomes[core.index()];
        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((wait, outcome));
        // Cores beyond the width share bits: a bit is a hint to look.
        self.told.fetch_or(1 << (core.0 % 32), Ordering::Release);
    }

    /// Takes what a core was told.
    pub fn take_told(&self, core: CoreId) -> Vec<(u64, Outcome)> {
        let bit = 1 << (core.0 % 32);
        if self.told.load(Ordering::Acquire) & bit == 0 {
            return Vec::new();
        }
        if self.outcomes.len() <= 32 {
            self.told.fetch_and(!bit, Ordering::AcqRel);
        }
        let outcomes = &self.outcomes[core.index()];
        std::mem::take(&mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: DbIndex = DbIndex(3);

    fn key(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn claim_is_all_or_nothing_and_tags_cover_keys_to_come() {
        let registry = Registry::new(1);
        assert!(registry.lock(DB).claim(&[key("a"), key("b")], &[]));
        assert!(!registry.lock(DB).claim(&[key("c"), key("b")], &[]));
        assert!(!registry.lock(DB).is_held(b"c"));
        assert!(registry.lock(DB).claim(&[key("{t}1")], &[key("t")]));
        assert!(registry.holds_any(DB, [&b"{t}new"[..]].into_iter()));
        assert!(!registry.holds_any(DB, [&b"t"[..], b"{u}1"].into_iter()));
        assert!(!registry.lock(DB).claim(&[key("{t}2")], &[]), "its tag is taken");
        assert!(!registry.holds_any(DbIndex(0), [&b"a"[..]].into_iter()), "another database");
        registry.lock(DB).release(&[key("a"), key("b"), key("{t}1")], &[key("t")]);
        assert!(!registry.is_active(DB));
    }

    #[test]
    fn tag_is_not_claimed_while_one_of_its_keys_moves_alone() {
        let registry = Registry::new(1);
        assert!(registry.lock(DB).claim(&[key("{t}1")], &[]));
        assert!(!registry.lock(DB).claim(&[], &[key("t")]));
        assert!(registry.lock(DB).claim(&[], &[key("u")]));
    }

    #[test]
    fn tainted_key_is_held_until_its_target_is_clean() {
        let registry = Registry::new(1);
        registry.lock(DB).taint(b"k", "h:1");
        assert!(registry.holds_any(DB, [&b"k"[..]].into_iter()));
        registry.lock(DB).untaint(b"k", "h:2");
        assert!(registry.lock(DB).is_tainted(b"k", "h:1"));
        registry.lock(DB).untaint(b"k", "h:1");
        assert!(!registry.is_active(DB));
    }

    #[test]
    fn outcome_is_told_to_its_core_once() {
        let registry = Registry::new(2);
        registry.tell(CoreId(1), 7, Outcome::Moved(2));
        assert!(registry.take_told(CoreId(0)).is_empty());
        assert_eq!(registry.take_told(CoreId(1)), [(7, Outcome::Moved(2))]);
        assert!(registry.take_told(CoreId(1)).is_empty());
    }
}
