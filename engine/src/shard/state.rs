//! What a shard is made of, and the primitive operations on its keys.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::journal::{Journal, LogicalClock};
use crate::pubsub::event::Event;
use crate::runtime::mailbox::Receiver;
use crate::shard::batch::MailBatch;
use crate::shard::waiters::Waiters;
use crate::slots::hash::slot_of;
use crate::store::entry::{EntryBox, EntryRef};
use crate::store::free::FreeQueue;
use crate::store::keyspace::{Keyspace, SlotPart, key_hash};
use crate::store::table::{CellIndex, Position};
use crate::types::Type;
use crate::units::{DATABASES_MAX, DbIndex, Ms, ShardId, SlotId};

/// A key with what is derived from it.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'k> {
    /// Its bytes.
    pub bytes: &'k [u8],
    /// Its place within the table.
    pub hash: u64,
    /// Its slot.
    pub slot: SlotId,
}

impl<'k> KeyRef<'k> {
    /// Derives hash and slot of a key.
    #[inline]
    pub fn new(bytes: &'k [u8]) -> Self {
        Self { bytes, hash: key_hash(bytes), slot: slot_of(bytes) }
    }
}

/// Hashes keys of watches: rare, and seeded by the key hash below.
#[derive(Default, Debug)]
pub struct KeyHasher(u64);

impl std::hash::Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.rotate_left(23) ^ key_hash(bytes);
    }
    fn write_u8(&mut self, n: u8) {
        self.0 = self.0.rotate_left(9) ^ u64::from(n);
    }
    // The length that precedes a slice adds nothing: the hash covers it.
    fn write_usize(&mut self, _n: usize) {}
}

type KeyMap<V> = HashMap<(u8, Box<[u8]>), V, BuildHasherDefault<KeyHasher>>;

/// Sessions that watch a key: each flag belongs to one session's WATCH and is raised once.
#[derive(Debug, Default)]
pub struct Watches {
    by_key: KeyMap<Vec<Weak<AtomicBool>>>,
}

impl Watches {
    /// Whether nobody watches anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Registers a session's flag for a key; `false` if it was registered before.
    pub fn watch(&mut self, db: DbIndex, key: &[u8], flag: &Arc<AtomicBool>) -> bool {
        let flags = self.by_key.entry((db.0, key.into())).or_default();
        flags.retain(|f| f.strong_count() > 0);
        let is_new = !flags.iter().any(|f| f.as_ptr() == Arc::as_ptr(flag));
        if is_new {
            flags.push(Arc::downgrade(flag));
        }
        is_new
    }

    /// Raises the flags of a key that changed.
    pub fn touch(&mut self, db: DbIndex, key: &[u8]) {
        if let Some(flags) = self.by_key.remove(&(db.0, key.into())) {
            raise(&flags);
        }
    }

    /// Raises the flags of all keys of `db` that `matches`.
    pub fn touch_where(&mut self, db: DbIndex, mut matches: impl FnMut(&[u8]) -> bool) {
        self.by_key.retain(|(d, key), flags| {
            let hit = *d == db.0 && matches(key);
            if hit {
                raise(flags);
            }
            !hit
        });
    }

    /// Forgets registrations whose session has let go of them.
    pub fn sweep(&mut self) {
        self.by_key.retain(|_, flags| {
            flags.retain(|f| f.strong_count() > 0);
            !flags.is_empty()
        });
    }
}

fn raise(flags: &[Weak<AtomicBool>]) {
    for flag in flags.iter().filter_map(Weak::upgrade) {
        // Ordering: release, paired with the acquire in EXEC; the door orders them as well.
        flag.store(true, Ordering::Release);
    }
}

impl Shard {
    /// Takes a whole database out and queues its memory to be freed.
    pub fn flush_db(&mut self, db: DbIndex) {
        // What is out of sight as well. The source of a slot that has come whole may have let go of
        // it already: nobody else would flush it. If it has not, its requests wait until it does, and
        // nobody sees that the flush came first. One that has come in part begins anew.
        if let Some(dbase) = self.hidden.take_db(db) {
            self.data_bytes -= dbase.heap_bytes() as i64;
            self.free.db(*dbase);
        }
        if let Some(dbase) = self.keys.take_db(db) {
            self.data_bytes -= dbase.heap_bytes() as i64;
            self.free.db(*dbase);
        }
    }

    /// Moves a slot of one database out.
    pub fn take_slot(&mut self, db: DbIndex, slot: SlotId) -> Option<SlotPart> {
        let part = self.keys.db_mut(db)?.take_slot(slot);
        self.data_bytes -= part.table.heap_bytes() as i64;
        Some(part)
    }

    /// Exchanges two databases.
    pub fn swap_dbs(&mut self, a: DbIndex, b: DbIndex) {
        self.keys.swap(a, b);
        // For the same reason as in `flush_db`.
        self.hidden.swap(a, b);
    }

    /// Takes a slot's keys out of sight: commands do not meet them, deadlines do not fire, nothing is
    /// evicted. What was out of sight before is freed.
    pub fn hide_slot(&mut self, slot: SlotId) {
        self.drop_hidden(slot);
        for db in (0..DATABASES_MAX).map(|i| DbIndex(i as u8)) {
            // Its transactions lose: they would run elsewhere.
            self.watches.touch_where(db, |key| slot_of(key) == slot);
            if let Some(part) = take_part(&mut self.keys, db, slot) {
                self.hidden.db_or_new(db).put_slot(slot, part);
            }
        }
    }

    /// Brings the keys of a slot that are out of sight back. Nothing of it is in sight.
    pub fn show_slot(&mut self, slot: SlotId) {
        for db in (0..DATABASES_MAX).map(|i| DbIndex(i as u8)) {
            if let Some(part) = take_part(&mut self.hidden, db, slot) {
                self.keys.db_or_new(db).put_slot(slot, part);
            }
        }
    }

    /// Frees the keys of a slot that are out of sight, in slices. Returns how many there were.
    pub fn drop_hidden(&mut self, slot: SlotId) -> usize {
        let mut count = 0;
        for db in (0..DATABASES_MAX).map(|i| DbIndex(i as u8)) {
            if let Some(part) = take_part(&mut self.hidden, db, slot) {
                count += part.table.len();
                self.data_bytes -= part.table.heap_bytes() as i64;
                self.free.table(part.table);
            }
        }
        count
    }

    /// Number of keys of a slot that are out of sight.
    pub fn hidden_len(&self, slot: SlotId) -> usize {
        self.hidden.dbs().map(|(_, db)| db.table(slot).len()).sum()
    }

    /// Runs something as if what is out of sight were in sight, and the other way round: how a slot is
    /// filled before it is served.
    #[inline]
    pub fn with_hidden<R>(&mut self, run: impl FnOnce(&mut Self) -> R) -> R {
        std::mem::swap(&mut self.keys, &mut self.hidden);
        let result = run(self);
        std::mem::swap(&mut self.keys, &mut self.hidden);
        result
    }

    /// Gives a slot with all that belongs to it to another shard.
    pub fn give_slot(&mut self, slot: SlotId, to: &mut Self, clock: &mut LogicalClock) {
        self.journal.hand_to(&mut to.journal, clock);
        for db in (0..DATABASES_MAX).map(|i| DbIndex(i as u8)) {
            if let Some(part) = take_part(&mut self.hidden, db, slot) {
                let bytes = part.table.heap_bytes() as i64;
                self.data_bytes -= bytes;
                to.data_bytes += bytes;
                to.hidden.db_or_new(db).put_slot(slot, part);
            }
        }
        for db in (0..DATABASES_MAX).map(|i| DbIndex(i as u8)) {
            // Watches of its keys do not move along: their transactions lose, and are tried again.
            self.watches.touch_where(db, |key| slot_of(key) == slot);
            if let Some(part) = self.take_slot(db, slot) {
                to.put_slot(db, slot, part);
            }
        }
        self.waiters.give_slot(slot, &mut to.waiters);
    }

    /// Moves a slot of one database in.
    pub fn put_slot(&mut self, db: DbIndex, slot: SlotId, part: SlotPart) {
        self.data_bytes += part.table.heap_bytes() as i64;
        self.keys.db_or_new(db).put_slot(slot, part);
    }
}

/// Takes a slot that has keys out of a database that is in use.
fn take_part(keys: &mut Keyspace, db: DbIndex, slot: SlotId) -> Option<SlotPart> {
    let dbase = keys.db_mut(db)?;
    if dbase.table(slot).is_empty() {
        return None;
    }
    Some(dbase.take_slot(slot))
}

/// All state of the slots that one core owns.
#[derive(Debug)]
pub struct Shard {
    /// Which shard this is.
    pub id: ShardId,
    /// Its keys.
    pub keys: Keyspace,
    /// Keys of slots that are not served here: not yet, or not any more.
    pub hidden: Keyspace,
    /// The effects of its writes.
    pub journal: Journal,
    /// Who watches its keys.
    pub watches: Watches,
    /// Blocked calls that wait for its keys.
    pub waiters: Waiters,
    /// What waits to be freed.
    pub free: FreeQueue,
    /// Memory of its tables and entries, exact.
    pub data_bytes: i64,
    /// State of its random source (see [`Shard::random`]).
    random: u64,
    /// Where the search for due deadlines goes on: database and slot.
    pub(super) expire_at: (u8, u16),
    /// Where random eviction goes on.
    pub(super) evict: super::evict::EvictState,
    /// Requests mailed by each core and not read yet. Whoever holds the shard may read them.
    pub inbox: Vec<Receiver<Box<MailBatch>>>,
    /// Where a packed collection is edited: kept between edits.
    pub scratch: Vec<u8>,
    /// Requests run per slot since the balancer last looked: measured load.
    pub slot_load: Box<[u32]>,
}

impl Shard {
    /// An empty shard. `seed` feeds its random source.
    pub fn new(id: ShardId, seed: u64) -> Self {
        Self {
            id,
            keys: Keyspace::default(),
            hidden: Keyspace::default(),
            journal: Journal::default(),
            watches: Watches::default(),
            waiters: Waiters::default(),
            free: FreeQueue::default(),
            data_bytes: 0,
            random: seed ^ (u64::from(id.0) << 48) | 1,
            expire_at: (0, 0),
            evict: super::evict::EvictState::default(),
            inbox: Vec::new(),
            scratch: Vec::new(),
            slot_load: vec![0; crate::units::SLOT_COUNT].into_boxed_slice(),
        }
    }

    /// A random number: the shard's only source, so that a seed replays a run.
    ///
    /// # Source
    /// splitmix64, Steele, Lea and Flood, 2014.
    #[inline]
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Where a key is, expired or not.
    #[inline]
    pub fn find(&self, db: DbIndex, key: KeyRef<'_>) -> Option<CellIndex> {
        self.keys.db(db)?.table(key.slot).find(key.hash, key.bytes)
    }

    /// The entry at a place that [`find`](Self::find) gave.
    #[inline]
    pub fn entry(&self, db: DbIndex, slot: SlotId, at: CellIndex) -> EntryRef<'_> {
        self.keys.db(db).expect("the place was found in it").table(slot).entry(at)
    }

    /// Stores an entry, in the place of the one at `at` or as a new key.
    pub fn put(
        &mut self,
        db: DbIndex,
        key: KeyRef<'_>,
        at: Option<CellIndex>,
        entry: EntryBox,
        now: Ms,
    ) {
        let deadline = entry.as_ref().expires_at();
        if !self.waiters.is_empty() && entry.as_ref().value().type_of() != Type::String {
            self.waiters.signal(db, key.bytes);
        }
        let dbase = self.keys.db_or_new(db);
        let before = dbase.table(key.slot).heap_bytes() as i64;
        let old_deadline = match at {
            Some(at) => {
                let old = dbase.table_mut(key.slot).replace(at, entry);
                let old_deadline = old.as_ref().expires_at();
                self.free.entry(old);
                dbase.count(
                    key.slot,
                    0,
                    isize::from(deadline.is_some()) - isize::from(old_deadline.is_some()),
                );
                old_deadline
            }
            None => {
                dbase.table_mut(key.slot).insert(key.hash, entry, key_hash);
                dbase.count(key.slot, 1, isize::from(deadline.is_some()));
                None
            }
        };
        self.data_bytes += dbase.table(key.slot).heap_bytes() as i64 - before;
        if let Some(deadline) = deadline {
            self.file(db, key, old_deadline, deadline, now);
        }
    }

    /// Files a deadline, unless a record that fires earlier is there and will be filed again.
    pub fn file(&mut self, db: DbIndex, key: KeyRef<'_>, old: Option<Ms>, new: Ms, now: Ms) {
        if old.is_none_or(|old| new < old) {
            let position = Position::of_hash(key.hash);
            self.keys.db_or_new(db).file_deadline(key.slot, position, new, now);
        }
    }

    /// Removes the entry at `at`.
    pub fn remove(&mut self, db: DbIndex, slot: SlotId, at: CellIndex) -> EntryBox {
        let dbase = self.keys.db_mut(db).expect("the place was found in it");
        let table = dbase.table_mut(slot);
        let before = table.heap_bytes() as i64;
        let entry = table.remove(at);
        self.data_bytes += table.heap_bytes() as i64 - before;
        dbase.count(slot, -1, -isize::from(entry.as_ref().expires_at().is_some()));
        entry
    }

    /// Removes a key that expired or was evicted (`why`), and journals that.
    pub fn remove_dead(
        &mut self,
        clock: &mut LogicalClock,
        db: DbIndex,
        slot: SlotId,
        at: CellIndex,
        why: Event,
    ) {
        let entry = self.remove(db, slot, at);
        let key = entry.as_ref().key();
        clock.outbox.raise_now(db, key, why);
        if !self.watches.is_empty() {
            self.watches.touch(db, key);
        }
        if self.journal.is_read() {
            self.journal.emit(clock, Some(slot), db, [&b"DEL"[..], key].into_iter());
        }
        self.free.entry(entry);
    }
}
