//! What two servers compare before a slot changes hands: the number of its keys and a digest.
//!
//! Both compute it over the keys that will not have expired by a given time, in slices, on a slot that
//! does not change meanwhile. How much goes into it depends on how much there is ([`Depth`]): the
//! slot's requests wait while it is computed. It does not depend on the order of keys, nor on how
//! values are stored.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::entry::{EntryRef, Value};
use crate::store::keyspace::Keyspace;
use crate::store::table::Position;
use crate::types::hash::{Hash, HashView};
use crate::types::list::{List, ListView};
use crate::types::set::{Set, SetView};
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Object};
use crate::units::{DATABASES_MAX, DbIndex, Ms, SlotId};

/// Slots of at most so many keys and bytes are compared in full.
const FULL_KEYS_MAX: usize = 16 * 1024;
const FULL_BYTES_MAX: usize = 8 << 20;
/// Slots of at most so many keys are compared key by key.
const KEYS_MAX: usize = 64 * 1024;

/// How much goes into a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Keys, deadlines and all that the values hold.
    Full,
    /// Keys, deadlines, types and lengths.
    Keys,
    /// The number of keys without a deadline, by database.
    Counts,
}

/// A digest under way, or done.
#[derive(Clone, Debug)]
pub struct Digest {
    slot: SlotId,
    depth: Depth,
    /// Keys that end at this time or before are left out.
    as_of: Ms,
    db: u8,
    position: Position,
    keys: u64,
    sum: u64,
}

impl Digest {
    /// A digest of a slot as it is in `keys`, as deep as its size allows, of what outlives `as_of`.
    pub fn of_slot(keys: &Keyspace, slot: SlotId, as_of: Ms) -> Self {
        let tables = || keys.dbs().map(|(_, db)| db.table(slot));
        let key_count: usize = tables().map(|table| table.len()).sum();
        let bytes: usize = tables().map(|table| table.heap_bytes()).sum();
        let depth = match key_count {
            ..=FULL_KEYS_MAX if bytes <= FULL_BYTES_MAX => Depth::Full,
            ..=KEYS_MAX => Depth::Keys,
            _ => Depth::Counts,
        };
        Self::new(slot, depth, as_of)
    }

    fn new(slot: SlotId, depth: Depth, as_of: Ms) -> Self {
        Self { slot, depth, as_of, db: 0, position: Position(0), keys: 0, sum: 0 }
    }

    /// One to compare with what another server has sent: its text. None if that is no digest.
    pub fn like(slot: SlotId, text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let depth = match parts.next()? {
            "full" => Depth::Full,
            "keys" => Depth::Keys,
            "counts" => Depth::Counts,
            _ => return None,
        };
        let as_of = parts.next()?.parse().ok()?;
        u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then(|| Self::new(slot, depth, Ms(as_of)))
    }

    /// Number of keys that went into it.
    pub fn key_count(&self) -> u64 {
        self.keys
    }

    /// Its text: how deep, as of when, and the sum.
    pub fn text(&self) -> String {
        let depth = match self.depth {
            Depth::Full => "full",
            Depth::Keys => "keys",
            Depth::Counts => "counts",
        };
        format!("{depth}:{}:{:016x}", self.as_of.0, self.sum)
    }

    /// Goes on with about `key_count` keys. `true` when all is in.
    pub fn step(&mut self, keys: &Keyspace, key_count: usize) -> bool {
        let mut left = key_count;
        while usize::from(self.db) < DATABASES_MAX {
            let db = DbIndex(self.db);
            let Some(dbase) = keys.db(db) else {
                self.db += 1;
                continue;
            };
            if self.depth == Depth::Counts {
                let lasting = dbase.table(self.slot).len() - dbase.slot_expiring(self.slot);
                self.keys += lasting as u64;
                self.add(mix(u64::from(db.0), lasting as u64));
                self.db += 1;
                continue;
            }
            if left == 0 {
                return false;
            }
            let (mut seen, from) = (0, self.position);
            let next = dbase.table(self.slot).scan(from, left, |entry| {
                seen += 1;
                self.add_entry(db, entry);
            });
            left = left.saturating_sub(seen);
            match next {
                Some(next) => self.position = next,
                None => {
                    self.db += 1;
                    self.position = Position(0);
                }
            }
        }
        true
    }

    fn add(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
    }

    fn add_entry(&mut self, db: DbIndex, entry: EntryRef<'_>) {
        let deadline = entry.expires_at();
        if deadline.is_some_and(|at| at <= self.as_of) {
            return;
        }
        self.keys += 1;
        let mut hash = hash_bytes(u64::from(db.0), entry.key());
        hash = mix(hash, deadline.map_or(0, |at| at.0 as u64));
        let value = entry.value();
        hash = mix(hash, value.type_of() as u64);
        let content = match (self.depth, value) {
            (Depth::Full, value) => content_hash(value),
            (_, Value::Int(n)) => itoa::Buffer::new().format(n).len() as u64,
            (_, Value::Inline { bytes, .. }) => bytes.len() as u64,
            (_, Value::Big(data)) => data.len() as u64,
            (_, Value::Packed(packed, bytes)) => packed_len(packed, bytes) as u64,
            (_, Value::Object(object)) => object.len() as u64,
        };
        self.add(mix(hash, content));
    }
}

/// Two numbers as one, so that each bit of either matters.
fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (x >> 32)
}

fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

fn packed_len(packed: crate::types::Packed, bytes: &[u8]) -> usize {
    let list = List::view_packed(packed, bytes).map(ListView::len);
    let hash = || Hash::view_packed(packed, bytes).map(HashView::len);
    let set = || Set::view_packed(packed, bytes).map(SetView::len);
    let zset = || Zset::view_packed(packed, bytes).map(ZsetView::len);
    list.or_else(hash).or_else(set).or_else(zset).unwrap_or(0)
}

fn content_hash(value: Value<'_>) -> u64 {
    match value {
        Value::Int(n) => hash_bytes(0, itoa::Buffer::new().format(n).as_bytes()),
        Value::Inline { bytes, .. } => hash_bytes(0, bytes),
        Value::Big(data) => hash_bytes(0, data),
        Value::Packed(packed, bytes) => List::view_packed(packed, bytes)
            .map(list_hash)
            .or_else(|| Hash::view_packed(packed, bytes).map(hash_hash))
            .or_else(|| Set::view_packed(packed, bytes).map(set_hash))
            .or_else(|| Zset::view_packed(packed, bytes).map(zset_hash))
            .unwrap_or(0),
        Value::Object(Object::List(list)) => list_hash(list.view()),
        Value::Object(Object::Hash(hash)) => hash_hash(hash.view()),
        Value::Object(Object::Set(set)) => set_hash(set.view()),
        Value::Object(Object::Zset(zset)) => zset_hash(zset.view()),
    }
}

fn list_hash(list: ListView<'_>) -> u64 {
    let mut hash = list.len() as u64;
    list.for_each(0, list.len(), |item| hash = mix(hash, hash_bytes(1, &item.text())));
    hash
}

fn set_hash(set: SetView<'_>) -> u64 {
    let mut sum = 0u64;
    set.each(|item| sum = sum.wrapping_add(hash_bytes(2, &item.text())));
    sum
}

fn hash_hash(hash: HashView<'_>) -> u64 {
    let mut sum = 0u64;
    hash.each(|field, value| {
        let pair = mix(hash_bytes(3, &field.text()), hash_bytes(4, &value.text()));
        sum = sum.wrapping_add(pair);
    });
    sum
}

fn zset_hash(zset: ZsetView<'_>) -> u64 {
    let mut sum = 0u64;
    for (member, score) in zset.range(0, zset.len()) {
        // A packed set keeps no sign of zero.
        let score = if score == 0.0 { 0.0 } else { score };
        sum = sum.wrapping_add(mix(hash_bytes(5, &member.text()), score.to_bits()));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::slots::hash::slot_of;

    fn digest(bare: &Bare, slot: SlotId, depth: Depth) -> (u64, String) {
        let shard = bare.held[0].as_ref().expect("all doors are held");
        let mut digest = Digest::new(slot, depth, bare.now);
        while !digest.step(&shard.keys, 3) {}
        (digest.key_count(), digest.text())
    }

    fn filled(order: impl Iterator<Item = u32>) -> Bare {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let mut call = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            bare.call(&mut client, &words);
        };
        for n in order {
            call(&format!("SET {{t}}{n} value-{n} PX {}", 1_000_000 + n));
            call(&format!("SADD {{t}}set {n}"));
            call(&format!("HSET {{t}}hash f{n} {n}"));
            call(&format!("ZADD {{t}}zset {n}.5 m{n}"));
        }
        call("SET {t}short v PX 1");
        call("SELECT 3");
        call("RPUSH {t}list a b c");
        bare
    }

    #[test]
    fn digest_does_not_depend_on_the_order_in_which_keys_came() {
        let slot = slot_of(b"t");
        let (a, b) = (filled(0..300), filled((0..300).rev()));
        for depth in [Depth::Full, Depth::Keys, Depth::Counts] {
            assert_eq!(digest(&a, slot, depth), digest(&b, slot, depth));
        }
        assert_eq!(digest(&a, slot, Depth::Full).0, 305);
    }

    #[test]
    fn digest_sees_each_kind_of_difference() {
        let slot = slot_of(b"t");
        let want = digest(&filled(0..40), slot, Depth::Full);
        for line in [
            "SET {t}7 value-8 KEEPTTL",
            "PEXPIRE {t}7 5000000",
            "DEL {t}9",
            "SADD {t}set x",
            "HSET {t}hash f1 2",
            "ZADD {t}zset 7 m1",
            "SET {t}new 1",
        ] {
            let mut bare = filled(0..40);
            let mut client = bare.client();
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            bare.call(&mut client, &words);
            assert_ne!(digest(&bare, slot, Depth::Full), want, "{line}");
        }
    }

    #[test]
    fn digest_of_another_server_is_read_for_what_it_covers() {
        let slot = slot_of(b"t");
        let bare = filled(0..40);
        let (keys, text) = digest(&bare, slot, Depth::Keys);
        let shard = bare.held[0].as_ref().expect("all doors are held");
        let mut mine = Digest::like(slot, &text).expect("it is a digest");
        assert!(mine.step(&shard.keys, usize::MAX));
        assert_eq!((mine.key_count(), mine.text()), (keys, text));
        for text in ["", "full", "full:1", "full:1:zz", "some:1:00", "full:1:00:2"] {
            assert!(Digest::like(slot, text).is_none(), "{text:?}");
        }
    }
}
