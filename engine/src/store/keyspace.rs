//! The databases of one shard: a table and a wheel of deadlines per slot and database.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::expire::ExpiryIndex;
use crate::store::table::{Position, Table};
use crate::units::{DATABASES_MAX, DbIndex, Ms, SLOT_COUNT, SlotId};

static HASH_SEED: AtomicU64 = AtomicU64::new(0);

/// Sets the seed of [`key_hash`]. Once, before the first key is stored.
pub fn seed_hash(seed: u64) {
    HASH_SEED.store(seed, Ordering::Relaxed);
}

/// The hash that places a key in its table; keyed, so that no client can aim at one segment.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    // Ordering: relaxed, because the seed is written before any other thread exists.
    xxh3_64_with_seed(key, HASH_SEED.load(Ordering::Relaxed))
}

/// One logical database of a shard.
#[derive(Debug)]
pub struct Db {
    tables: Box<[Table]>,
    deadlines: Box<[ExpiryIndex]>,
    /// `deadlines[slot].next_due()`, flat, so that looking for due slots is one sweep.
    next_due: Box<[i64]>,
    /// Number of keys with a deadline, by slot.
    slot_expiring: Box<[usize]>,
    len: usize,
    expiring: usize,
}

impl Db {
    fn new() -> Self {
        Self {
            tables: (0..SLOT_COUNT).map(|_| Table::new()).collect(),
            deadlines: (0..SLOT_COUNT).map(|_| ExpiryIndex::default()).collect(),
            next_due: vec![i64::MAX; SLOT_COUNT].into_boxed_slice(),
            slot_expiring: vec![0; SLOT_COUNT].into_boxed_slice(),
            len: 0,
            expiring: 0,
        }
    }

    /// The table of a slot.
    #[inline]
    pub fn table(&self, slot: SlotId) -> &Table {
        &self.tables[slot.index()]
    }

    /// The table of a slot, to change entries in place.
    #[inline]
    pub fn table_mut(&mut self, slot: SlotId) -> &mut Table {
        &mut self.tables[slot.index()]
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of keys with a deadline.
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// Number of keys of a slot with a deadline.
    pub fn slot_expiring(&self, slot: SlotId) -> usize {
        self.slot_expiring[slot.index()]
    }

    /// Keeps count of keys of a slot that came and went, with or without a deadline.
    #[inline]
    pub fn count(&mut self, slot: SlotId, keys: isize, expiring: isize) {
        self.len = self.len.checked_add_signed(keys).expect("as many keys leave as came");
        if expiring != 0 {
            let of_slot = &mut self.slot_expiring[slot.index()];
            for count in [of_slot, &mut self.expiring] {
                let new = count.checked_add_signed(expiring);
                *count = new.expect("as many deadlines end as began");
            }
        }
    }

    /// Files a deadline.
    pub fn file_deadline(&mut self, slot: SlotId, position: Position, at: Ms, now: Ms) {
        let index = &mut self.deadlines[slot.index()];
        index.file(position, at, now);
        self.next_due[slot.index()] = index.next_due().0;
    }

    /// The first slot from `from` on that has records due at `now`.
    pub fn due_slot(&self, from: usize, now: Ms) -> Option<SlotId> {
        let hit = self.next_due[from..].iter().position(|&due| due <= now.0)?;
        SlotId::new((from + hit) as u64)
    }

    /// Takes up to `count` due records of a slot.
    pub fn take_due(&mut self, slot: SlotId, now: Ms, count: usize, due: &mut Vec<Position>) {
        let index = &mut self.deadlines[slot.index()];
        index.take_due(now, count, due);
        self.next_due[slot.index()] = index.next_due().0;
    }

    /// When the earliest record of any slot is due.
    pub fn next_due(&self) -> Ms {
        Ms(self.next_due.iter().copied().min().unwrap_or(i64::MAX))
    }

    /// Moves a slot out: its table and deadlines, for another shard or for lazy freeing.
    ///
    /// # Complexity
    /// O(1)
    pub fn take_slot(&mut self, slot: SlotId) -> SlotPart {
        let table = std::mem::take(&mut self.tables[slot.index()]);
        let deadlines = std::mem::take(&mut self.deadlines[slot.index()]);
        self.next_due[slot.index()] = i64::MAX;
        let expiring = self.slot_expiring[slot.index()];
        self.count(slot, -(table.len() as isize), -(expiring as isize));
        SlotPart { table, deadlines, expiring }
    }

    /// Moves a slot in.
    pub fn put_slot(&mut self, slot: SlotId, part: SlotPart) {
        invariant!(self.tables[slot.index()].is_empty(), "slot {slot} has two tables");
        self.count(slot, part.table.len() as isize, part.expiring as isize);
        self.next_due[slot.index()] = part.deadlines.next_due().0;
        self.tables[slot.index()] = part.table;
        self.deadlines[slot.index()] = part.deadlines;
    }

    pub(super) fn into_tables(self) -> Box<[Table]> {
        self.tables
    }

    /// Memory of all tables and entries.
    pub fn heap_bytes(&self) -> usize {
        self.tables.iter().map(Table::heap_bytes).sum()
    }
}

/// A slot of one database on its way between two shards.
#[derive(Debug)]
pub struct SlotPart {
    /// Its keys.
    pub table: Table,
    deadlines: ExpiryIndex,
    expiring: usize,
}

/// All databases of a shard.
#[derive(Debug, Default)]
pub struct Keyspace {
    dbs: [Option<Box<Db>>; DATABASES_MAX],
}

impl Keyspace {
    /// A database, if it was ever used.
    #[inline]
    pub fn db(&self, db: DbIndex) -> Option<&Db> {
        self.dbs[db.index()].as_deref()
    }

    /// A database to change, if it was ever used.
    #[inline]
    pub fn db_mut(&mut self, db: DbIndex) -> Option<&mut Db> {
        self.dbs[db.index()].as_deref_mut()
    }

    /// A database, made on first use.
    #[inline]
    pub fn db_or_new(&mut self, db: DbIndex) -> &mut Db {
        self.dbs[db.index()].get_or_insert_with(|| Box::new(Db::new()))
    }

    /// Takes a whole database out.
    pub fn take_db(&mut self, db: DbIndex) -> Option<Box<Db>> {
        self.dbs[db.index()].take()
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, a: DbIndex, b: DbIndex) {
        self.dbs.swap(a.index(), b.index());
    }

    /// Every database that was ever used.
    pub fn dbs(&self) -> impl Iterator<Item = (DbIndex, &Db)> {
        self.dbs.iter().enumerate().filter_map(|(i, db)| Some((DbIndex(i as u8), db.as_deref()?)))
    }
}
