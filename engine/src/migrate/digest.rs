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

/// Bytes of keys after which a step ends. A collection that takes more goes in by steps of its own.
const STEP_BYTES_MAX: usize = 64 * 1024;
/// Elements of such a step.
const STEP_ELEMENTS: usize = 512;
/// Keys between two looks at their bytes.
const SCAN_KEYS: usize = 16;

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
    /// Large collections that were met and are not in yet.
    large: Vec<Large>,
}

/// A large collection on its way into a digest.
#[derive(Clone, Debug)]
struct Large {
    /// Of its key, its deadline and its type.
    hash: u64,
    /// A snapshot, which costs nothing.
    object: Object,
    /// Where it goes on.
    mark: usize,
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
        let large = Vec::new();
        Self { slot, depth, as_of, db: 0, position: Position(0), keys: 0, sum: 0, large }
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

    /// Goes on with about `key_count` keys, or fewer if they are large. `true` when all is in.
    pub fn step(&mut self, keys: &Keyspace, key_count: usize) -> bool {
        if self.step_large() {
            return false;
        }
        let (mut left, mut bytes) = (key_count, 0);
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
            if left == 0 || bytes > STEP_BYTES_MAX || !self.large.is_empty() {
                return false;
            }
            let (mut seen, from) = (0, self.position);
            let next = dbase.table(self.slot).scan(from, left.min(SCAN_KEYS), |entry| {
                seen += 1;
                bytes += entry.heap_bytes();
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
        self.large.is_empty()
    }

    /// Goes on with a large collection. Whether there was one.
    fn step_large(&mut self) -> bool {
        let Some(large) = self.large.last_mut() else { return false };
        let view = View::of(&large.object);
        match view.add(large.mark, STEP_ELEMENTS, &mut large.sum) {
            Some(mark) => large.mark = mark,
            None => {
                let hash = mix(large.hash, large.sum);
                self.large.pop();
                self.add(hash);
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
        if let (Depth::Full, Value::Object(object)) = (self.depth, value)
            && object.heap_bytes() > STEP_BYTES_MAX
        {
            let (object, sum) = (object.clone(), View::of(object).first_sum());
            return self.large.push(Large { hash, object, mark: 0, sum });
        }
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
        Value::Packed(packed, bytes) => {
            let list = List::view_packed(packed, bytes).map(View::List);
            let hash = || Hash::view_packed(packed, bytes).map(View::Hash);
            let set = || Set::view_packed(packed, bytes).map(View::Set);
            let zset = || Zset::view_packed(packed, bytes).map(View::Zset);
            list.or_else(hash).or_else(set).or_else(zset).map_or(0, View::hash)
        }
        Value::Object(object) => View::of(object).hash(),
    }
}

/// A collection that is looked through.
#[derive(Clone, Copy)]
enum View<'v> {
    List(ListView<'v>),
    Hash(HashView<'v>),
    Set(SetView<'v>),
    Zset(ZsetView<'v>),
}

impl<'v> View<'v> {
    fn of(object: &'v Object) -> Self {
        match object {
            Object::List(list) => Self::List(list.view()),
            Object::Hash(hash) => Self::Hash(hash.view()),
            Object::Set(set) => Self::Set(set.view()),
            Object::Zset(zset) => Self::Zset(zset.view()),
        }
    }

    /// The sum before any element.
    fn first_sum(self) -> u64 {
        match self {
            Self::List(list) => list.len() as u64,
            _ => 0,
        }
    }

    /// All of it.
    fn hash(self) -> u64 {
        let mut sum = self.first_sum();
        let rest = self.add(0, usize::MAX, &mut sum);
        debug_invariant!(rest.is_none(), "all elements were asked for");
        sum
    }

    /// Adds about `count` elements from a mark on, 0 at first. The next mark; none at the end.
    fn add(self, from: usize, count: usize, sum: &mut u64) -> Option<usize> {
        match self {
            Self::List(list) => {
                let to = list.len().min(from.saturating_add(count));
                list.for_each(from, to, |item| *sum = mix(*sum, hash_bytes(1, &item.text())));
                (to < list.len()).then_some(to)
            }
            Self::Set(set) => {
                let mut at = from;
                while at < set.len() && at - from < count {
                    at = set.walk(at, |item| {
                        *sum = sum.wrapping_add(hash_bytes(2, &item.text()));
                    });
                }
                (at < set.len()).then_some(at)
            }
            Self::Hash(hash) => {
                let (mut at, mut seen) = (Some(from), 0);
                while let Some(mark) = at
                    && seen < count
                {
                    at = hash.walk(mark, |field, value| {
                        seen += 1;
                        let pair = mix(hash_bytes(3, &field.text()), hash_bytes(4, &value.text()));
                        *sum = sum.wrapping_add(pair);
                    });
                }
                at
            }
            Self::Zset(zset) => {
                let to = zset.len().min(from.saturating_add(count));
                for (member, score) in zset.range(from, to) {
                    // A packed set keeps no sign of zero.
                    let score = if score == 0.0 { 0.0 } else { score };
                    let pair = mix(hash_bytes(5, &member.text()), score.to_bits());
                    *sum = sum.wrapping_add(pair);
                }
                (to < zset.len()).then_some(to)
            }
        }
    }
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
    fn digest_of_large_collections_is_in_small_steps_and_sees_one_element() {
        let slot = slot_of(b"t");
        let fill = |bare: &mut Bare| {
            let mut client = bare.client();
            for n in 0..20_000 {
                let (a, b) = (format!("{n}"), format!("element-{n}"));
                for kind in ["RPUSH", "SADD", "HSET", "ZADD"] {
                    let key = format!("{{t}}{kind}");
                    let mut words = vec![kind.as_bytes(), key.as_bytes()];
                    if kind == "HSET" || kind == "ZADD" {
                        words.push(a.as_bytes());
                    }
                    words.push(b.as_bytes());
                    bare.call(&mut client, &words);
                }
            }
        };
        let mut bare = Bare::new(1, 1);
        fill(&mut bare);
        let want = digest(&bare, slot, Depth::Full);
        {
            let shard = bare.held[0].as_ref().expect("all doors are held");
            let mut digest = Digest::new(slot, Depth::Full, bare.now);
            let mut steps = 1;
            while !digest.step(&shard.keys, usize::MAX) {
                steps += 1;
            }
            assert!(steps > 4 * 20_000 / (2 * STEP_ELEMENTS), "{steps} steps");
            assert_eq!((digest.key_count(), digest.text()), want);
        }
        for line in [
            "LSET {t}RPUSH 19999 x",
            "SREM {t}SADD element-17",
            "HSET {t}HSET 19 x",
            "ZADD {t}ZADD 1.5 element-7",
        ] {
            let mut other = Bare::new(1, 1);
            fill(&mut other);
            let mut client = other.client();
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            other.call(&mut client, &words);
            assert_ne!(digest(&other, slot, Depth::Full), want, "{line}");
        }
    }

    #[test]
    fn digest_of_another_server_is_read_for_what_it_covers() {
        let slot = slot_of(b"t");
        let bare = filled(0..40);
        let (keys, text) = digest(&bare, slot, Depth::Keys);
        let shard = bare.held[0].as_ref().expect("all doors are held");
        let mut mine = Digest::like(slot, &text).expect("it is a digest");
        while !mine.step(&shard.keys, usize::MAX) {}
        assert_eq!((mine.key_count(), mine.text()), (keys, text));
        for text in ["", "full", "full:1", "full:1:zz", "some:1:00", "full:1:00:2"] {
            assert!(Digest::like(slot, text).is_none(), "{text:?}");
        }
    }
}
