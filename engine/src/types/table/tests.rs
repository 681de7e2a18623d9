//! Random edits and scans of tables, compared with a map of the standard library.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::types::tree::tests::Rng;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

thread_local! {
    /// Bits of the hash that count: without some, keys collide.
    static HASH_MASK: Cell<u64> = const { Cell::new(u64::MAX) };
}

pub(super) fn narrowed(hash: u64) -> u64 {
    hash & HASH_MASK.get()
}

/// Makes only some bits of hashes count, until it is dropped.
struct Narrow;

impl Narrow {
    fn to(mask: u64) -> Self {
        HASH_MASK.set(mask);
        Self
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        HASH_MASK.set(u64::MAX);
    }
}

/// Checks every leaf of a table against its own bytes, and all of it against the model.
fn check(table: &HashTable, model: &Model, pairs: bool) {
    assert_eq!(table.len(), model.len());
    let (mut position, mut all, mut bytes) = (0, Model::new(), 0);
    let mut high = 0;
    while position < table.len() {
        let (leaf, index) = table.0.leaf_at(position);
        assert_eq!(index, 0);
        let places = leaf.places();
        assert_eq!(places.len(), leaf.len());
        let is_splittable = places.iter().any(|place| place.hash != places[0].hash);
        assert_eq!(leaf.can_split(), is_splittable);
        for (index, place) in places.iter().enumerate() {
            assert_eq!(leaf.begin(index), place.begin);
            assert_eq!(leaf.heads[index] >> 16, place.hash as u32 & 0xffff);
            assert!(place.hash >= high, "leaves are in the order of their hashes");
            let (key, value) = leaf.entry(index);
            assert_eq!(value.is_some(), pairs);
            let value = value.map_or_else(Vec::new, Item::to_vec);
            assert_eq!(all.insert(key.to_vec(), value), None, "{key:?} is there twice");
        }
        high = places.iter().map(|place| place.hash).max().expect("it has an entry");
        bytes += leaf.heap_bytes();
        position += leaf.len();
    }
    assert!(all == *model, "{} entries differ", model.len());
    assert!(table.heap_bytes() > bytes || model.is_empty());
}

fn lookup(table: &HashTable, model: &Model, key: &[u8], pairs: bool) {
    assert_eq!(table.contains(key), model.contains_key(key));
    let got = table.get(key).map(Item::to_vec);
    assert_eq!(got.as_ref(), model.get(key).filter(|_| pairs));
}

fn some_key(rng: &mut Rng, range: usize) -> Vec<u8> {
    let n = rng.below(range);
    match n % 5 {
        0 => n.to_string().into_bytes(),
        1 => format!("-{n}").into_bytes(),
        2 => format!("{n:0>70}").into_bytes(),
        3 => format!("0{n}").into_bytes(),
        _ => format!("field:{n}").into_bytes(),
    }
}

fn some_value(rng: &mut Rng, huge: bool) -> Vec<u8> {
    let len = match rng.below(200) {
        0 if huge => 66_000 + rng.below(3),
        1 if huge => 65_490 + rng.below(60),
        2..5 => 1_500 + rng.below(3_000),
        5..60 => return rng.below(1_000_000).to_string().into_bytes(),
        _ => rng.below(40),
    };
    vec![b'a' + rng.below(26) as u8; len]
}

/// Random edits, with snapshots that must stay what they were.
fn run_model(seed: u64, mask: u64, pairs: bool, steps: usize, range: usize) {
    let _narrow = Narrow::to(mask);
    let mut rng = Rng(seed);
    let (mut table, mut model) = (HashTable::new(pairs), Model::new());
    let mut snapshot = (table.clone(), model.clone());
    for step in 0..steps {
        let key = some_key(&mut rng, range);
        if rng.below(100) < if step < steps / 2 { 75 } else { 25 } {
            let value = if pairs { some_value(&mut rng, true) } else { Vec::new() };
            let is_new = table.insert(&key, pairs.then_some(&value[..]));
            assert_eq!(model.insert(key.clone(), value).is_none(), is_new);
        } else {
            assert_eq!(table.remove(&key), model.remove(&key).is_some());
        }
        lookup(&table, &model, &key, pairs);
        let other = some_key(&mut rng, range);
        lookup(&table, &model, &other, pairs);
        if step % (steps / 20) == 0 {
            check(&table, &model, pairs);
            check(&snapshot.0, &snapshot.1, pairs);
            snapshot = (table.clone(), model.clone());
        }
    }
    for key in model.keys().cloned().collect::<Vec<_>>() {
        assert!(table.remove(&key));
        model.remove(&key);
    }
    check(&table, &model, pairs);
    check(&snapshot.0, &snapshot.1, pairs);
}

#[test]
fn table_under_random_edits_is_what_its_model_is() {
    for seed in 0..4 {
        run_model(seed, u64::MAX, seed % 2 == 0, 6_000, 1_500);
    }
}

#[test]
fn table_whose_hashes_collide_is_what_its_model_is() {
    // No bit, few, fingerprints without order, order without fingerprints.
    for (seed, mask) in [0, 3, 0x7000_0000_0000_0001, 0xffff, 0xffff << 48].into_iter().enumerate()
    {
        run_model(seed as u64, mask, seed % 2 == 0, 2_000, 300);
    }
}

#[test]
fn entry_that_begins_beyond_64_kib_is_found() {
    for mask in [u64::MAX, 0] {
        let _narrow = Narrow::to(mask);
        let (mut table, mut model) = (HashTable::new(true), Model::new());
        for n in 0..40 {
            let key = format!("k{n}").into_bytes();
            let value = vec![b'x'; [70_000, 3, 65_530][n % 3]];
            table.insert(&key, Some(&value));
            model.insert(key, value);
            check(&table, &model, true);
        }
        // Growing and shrinking values make leaves wide and narrow again.
        for n in (0..40).chain(0..40) {
            let key = format!("k{n}").into_bytes();
            let is_huge = model[&key].len() > 10;
            let value = vec![b'y'; if is_huge { 2 } else { 100_000 }];
            assert!(!table.insert(&key, Some(&value)));
            model.insert(key, value);
            check(&table, &model, true);
        }
        for n in 0..40 {
            let key = format!("k{n}").into_bytes();
            assert!(table.remove(&key));
            model.remove(&key);
            check(&table, &model, true);
        }
    }
}

/// One scan while others come and go. Returns how often each key was seen.
fn scan_under_change(rng: &mut Rng, table: &mut HashTable, count: usize) -> BTreeMap<Vec<u8>, u32> {
    let (mut seen, mut from) = (BTreeMap::new(), Some(0));
    while let Some(cursor) = from {
        let mut visited = 0;
        from = table.scan(cursor, count, |key, _| {
            *seen.entry(key.to_vec()).or_insert(0) += 1;
            visited += 1;
        });
        assert!(from.is_none_or(|next| next > cursor && visited >= count));
        for _ in 0..rng.below(60) {
            let n = rng.below(3_000);
            let key = format!("passing:{n}").into_bytes();
            if rng.below(2) == 0 {
                table.insert(&key, None);
            } else {
                table.remove(&key);
            }
        }
    }
    seen
}

#[test]
fn scan_under_change_sees_every_lasting_key_once() {
    for (seed, mask) in [u64::MAX, u64::MAX, 0xff << 20, 7, 0].into_iter().enumerate() {
        let _narrow = Narrow::to(mask);
        let mut rng = Rng(seed as u64);
        let mut table = HashTable::new(false);
        let lasting: BTreeSet<Vec<u8>> =
            (0..700).map(|n| format!("lasting:{n}").into_bytes()).collect();
        lasting.iter().for_each(|key| _ = table.insert(key, None));
        for count in [1, 3, 10, 64, 200, 5_000, usize::MAX] {
            let seen = scan_under_change(&mut rng, &mut table, count);
            assert!(lasting.iter().all(|key| seen.get(key) == Some(&1)), "{mask:x} {count}");
            assert!(seen.values().all(|times| *times == 1));
        }
    }
}

#[test]
fn scan_of_an_empty_table_ends_at_once() {
    let mut table = HashTable::new(true);
    assert_eq!(table.scan(0, 10, |_, _| unreachable!("it has no entry")), None);
    assert_eq!(table.scan(u64::MAX, 10, |_, _| unreachable!("it has no entry")), None);
    table.insert(b"k", Some(b"v"));
    assert_eq!(table.scan(u64::MAX, 10, |_, _| unreachable!("its hash is lower")), None);
}

#[test]
fn positions_name_every_entry_once() {
    let mut table = HashTable::new(true);
    (0..5_000).for_each(|n: u32| _ = table.insert(&n.to_le_bytes(), Some(b"v")));
    let all: BTreeSet<Vec<u8>> =
        (0..5_000).map(|i| table.at(i).expect("there are so many").0.to_vec()).collect();
    assert_eq!(all.len(), 5_000);
    assert!(table.at(5_000).is_none());
    let (mut position, mut walked) = (0, Vec::new());
    loop {
        let next = table.walk(position, |key, _| walked.push(key.to_vec()));
        if next == position {
            break;
        }
        position = next;
    }
    assert_eq!(walked.len(), 5_000);
    assert_eq!(walked.into_iter().collect::<BTreeSet<_>>(), all);
}
