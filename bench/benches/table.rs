//! The hash table: in the cache, growing and shrinking, and with more keys than caches hold. Every
//! figure is the time of one key.

mod common;

use std::hint::black_box;

use cordis_engine::shard::state::{KeyRef, Shard};
use cordis_engine::store::entry::{EntryBox, Value};
use cordis_engine::store::keyspace::{Db, key_hash};
use cordis_engine::store::table::Table;
use cordis_engine::units::{ShardId, SlotId};
use criterion::Criterion;

use crate::common::{DB, Key, NOW, Random, entry, key, rounds, size};

/// Keys whose lines are asked for before the first is looked up, as when a batch runs.
const BATCH: usize = 16;

fn main() {
    common::run(&[place, hot, change, cold]);
}

/// A key that has been placed already.
struct Placed {
    hash: u64,
    slot: SlotId,
    key: Key,
}

impl Placed {
    fn new(key: Key) -> Self {
        let KeyRef { hash, slot, .. } = KeyRef::new(&key);
        Self { hash, slot, key }
    }
}

/// Placed keys `from..to` in a random order.
fn shuffled(from: usize, to: usize) -> Vec<Placed> {
    let mut keys: Vec<Placed> = (from..to).map(|n| Placed::new(key(n))).collect();
    Random(1).shuffle(&mut keys);
    keys
}

fn entries(keys: &[Placed]) -> Vec<EntryBox> {
    keys.iter().map(|placed| entry(&placed.key, None, 0)).collect()
}

fn filled(keys: &[Placed]) -> Table {
    let mut table = Table::new();
    for (placed, entry) in keys.iter().zip(entries(keys)) {
        table.insert(placed.hash, entry, key_hash);
    }
    table
}

/// Hash and slot of a key: what a plan costs at least.
fn place(criterion: &mut Criterion) {
    criterion.bench_function("table/hash_and_slot", |bencher| {
        let key = key(7);
        bencher.iter(|| KeyRef::new(black_box(&key)).hash);
    });
}

/// A table that fits the cache.
fn hot(criterion: &mut Criterion) {
    const COUNT: usize = 1000;
    let mut group = criterion.benchmark_group("table/1k_keys");
    let table = filled(&shuffled(0, COUNT));
    for (name, keys) in [("hit", shuffled(0, COUNT)), ("miss", shuffled(COUNT, 2 * COUNT))] {
        let found = keys.iter().filter(|k| table.find(k.hash, &k.key).is_some()).count();
        assert_eq!(found, if name == "hit" { COUNT } else { 0 });
        group.bench_function(name, |bencher| {
            let look_up = |_: &mut ()| {
                for placed in &keys {
                    black_box(table.find(placed.hash, &placed.key));
                }
            };
            rounds(bencher, COUNT, &mut (), |_| {}, look_up);
        });
    }
    group.finish();
}

/// A table from nothing to all keys, growth included, and back. Entries are made and freed beside the
/// clock.
fn change(criterion: &mut Criterion) {
    let count = size(100_000, 1000);
    let keys = shuffled(0, count);
    let mut group = criterion.benchmark_group(format!("table/0_to_{count}_keys"));
    group.bench_function("insert", |bencher| {
        let fresh = |state: &mut (Table, Vec<EntryBox>)| *state = (Table::new(), entries(&keys));
        let insert = |(table, entries): &mut (Table, Vec<EntryBox>)| {
            for (placed, entry) in keys.iter().zip(entries.drain(..)) {
                table.insert(placed.hash, entry, key_hash);
            }
        };
        rounds(bencher, count, &mut (Table::new(), Vec::new()), fresh, insert);
    });
    group.bench_function("remove", |bencher| {
        let refill = |(table, removed): &mut (Table, Vec<EntryBox>)| {
            removed.clear();
            removed.reserve(count);
            *table = filled(&keys);
        };
        let remove = |(table, removed): &mut (Table, Vec<EntryBox>)| {
            for placed in &keys {
                let at = table.find(placed.hash, &placed.key).expect("it was inserted");
                removed.push(table.remove(at));
            }
        };
        rounds(bencher, count, &mut (Table::new(), Vec::new()), refill, remove);
    });
    group.finish();
}

/// Far more keys than caches hold, over all slots as in a server, asked for in an order that no
/// processor foresees.
struct Cold {
    shard: Shard,
    order: Vec<Placed>,
    next: usize,
}

impl Cold {
    fn new(count: usize) -> Self {
        let mut shard = Shard::new(ShardId(0), 1);
        let mut order = shuffled(0, count);
        for Placed { hash, slot, key } in &order {
            let key = KeyRef { bytes: key, hash: *hash, slot: *slot };
            shard.put(DB, key, None, entry(key.bytes, None, 0), NOW);
        }
        // Neighbours in time must not be neighbours in memory.
        Random(2).shuffle(&mut order);
        Self { shard, order, next: 0 }
    }

    fn db(&self) -> &Db {
        self.shard.keys.db(DB).expect("it was filled")
    }

    /// Runs `look_up` on the next batches, around.
    fn batches(&mut self, count: usize, look_up: impl Fn(&Db, &[Placed])) {
        for _ in 0..count {
            if self.next + BATCH > self.order.len() {
                self.next = 0;
            }
            look_up(self.db(), &self.order[self.next..self.next + BATCH]);
            self.next += BATCH;
        }
    }
}

/// Finds a key and reads the end of its value, which lies on the entry's last line.
fn read(db: &Db, placed: &Placed) -> u8 {
    let table = db.table(placed.slot);
    let at = table.find(placed.hash, &placed.key).expect("it was inserted");
    match table.entry(at).value() {
        Value::Inline { bytes, .. } => bytes[bytes.len() - 1],
        other => panic!("no string was stored as {other:?}"),
    }
}

fn cold(criterion: &mut Criterion) {
    const BATCHES: usize = 64;
    let count = size(2_000_000, 2000);
    let mut group = criterion.benchmark_group(format!("table/cold_of_{count}_keys"));
    let mut cold = None;
    group.bench_function("hit", |bencher| {
        let cold = cold.get_or_insert_with(|| Cold::new(count));
        let one_by_one = |db: &Db, batch: &[Placed]| {
            for placed in batch {
                black_box(read(db, placed));
            }
        };
        let run = |cold: &mut Cold| cold.batches(BATCHES, one_by_one);
        rounds(bencher, BATCHES * BATCH, cold, |_| {}, run);
    });
    group.bench_function("hit_prefetched_by_16", |bencher| {
        let cold = cold.get_or_insert_with(|| Cold::new(count));
        let prefetched = |db: &Db, batch: &[Placed]| {
            for placed in batch {
                db.table(placed.slot).prefetch_cell(placed.hash);
            }
            for placed in batch {
                db.table(placed.slot).prefetch_entry(placed.hash);
            }
            for placed in batch {
                black_box(read(db, placed));
            }
        };
        let run = |cold: &mut Cold| cold.batches(BATCHES, prefetched);
        rounds(bencher, BATCHES * BATCH, cold, |_| {}, run);
    });
    group.finish();
}
