//! Big hashes and sets: a tree of leaves in the order of their keys' hashes.
//!
//! A leaf covers a range of 64-bit hashes and holds its entries unordered, side by side, with a
//! fingerprint of each key in front: a lookup compares fingerprints, then one key. Since the order is
//! that of the hashes, a scan is a walk from one hash to the next: whatever comes, goes or splits
//! meanwhile, an element that stays is seen. Knows neither fields nor members: an entry is a key, and
//! a value if the table is one of pairs.

use crate::store::entry::size_class;
use crate::store::keyspace::key_hash;
use crate::types::pack::{self, Item};
use crate::types::tree::{Leaf, Trash, Tree};

/// Entry bytes of a leaf beyond which it is split.
const LEAF_BYTES_MAX: usize = 1_600;
/// Entries of a leaf beyond which it is split.
const LEAF_ENTRIES_MAX: usize = 64;
/// Entry bytes below which it joins a neighbour, if it has few entries as well.
const LEAF_BYTES_MIN: usize = LEAF_BYTES_MAX / 4;
/// Entries below which it joins a neighbour, if it has few bytes as well.
const LEAF_ENTRIES_MIN: usize = LEAF_ENTRIES_MAX / 4;
/// The low half of a head.
const OFFSET_MAX: usize = 0xffff;
/// Heads whose fingerprints are compared at a time.
const HEADS_PER_GROUP: usize = 8;

/// A key, and its value if the table has values.
pub type Entry<'a> = (Item<'a>, Option<Item<'a>>);

/// Where an entry lies in its leaf.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u64,
    begin: usize,
    end: usize,
}

/// The hash that orders keys.
#[inline]
pub fn hash_of(key: &[u8]) -> u64 {
    let hash = key_hash(key);
    #[cfg(test)]
    let hash = tests::narrowed(hash);
    hash
}

/// A range of the hashes.
#[derive(Clone, Debug, Default)]
pub struct TableLeaf {
    /// Per entry: fingerprint of the key (high half), where it begins in `data` (low half; means
    /// nothing while the leaf [is wide](Self::is_wide)).
    heads: Vec<u32>,
    /// Keys, each with its value if there is one.
    data: Vec<u8>,
    /// Whether entries have values.
    pairs: bool,
}

/// The fingerprint of a key in the high half of a head.
#[inline]
fn fingerprint(hash: u64) -> u32 {
    // The low bits: the high ones are much the same within a leaf.
    (hash as u32) << 16
}

/// Makes room for some more elements: all that the allocator gives for that many.
#[inline]
fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    let wanted = vec.len() + more;
    if vec.capacity() < wanted {
        let room = size_class(wanted * size_of::<T>()) / size_of::<T>();
        vec.reserve_exact(room - vec.len());
    }
}

/// Gives back memory that a vector no longer needs, with some room left to grow again.
fn shrink<T>(vec: &mut Vec<T>) {
    if vec.capacity() > 64 && vec.len() < vec.capacity() / 2 {
        let wanted = vec.len() + vec.len() / 8;
        vec.shrink_to(size_class(wanted * size_of::<T>()) / size_of::<T>());
    }
}

impl TableLeaf {
    /// Whether the data is so long that the heads cannot say where an entry begins: it is found by
    /// walking from the front. Such a leaf holds a huge value, or keys whose hashes are all equal.
    #[inline]
    fn is_wide(&self) -> bool {
        self.data.len() > OFFSET_MAX
    }

    /// Where the entry behind the one at `at` begins.
    #[inline]
    fn next(&self, at: usize) -> usize {
        let at = at + pack::skip(&self.data, at);
        if self.pairs { at + pack::skip(&self.data, at) } else { at }
    }

    #[inline]
    fn begin(&self, index: usize) -> usize {
        if self.is_wide() {
            return (0..index).fold(0, |at, _| self.next(at));
        }
        self.heads[index] as usize & OFFSET_MAX
    }

    #[inline]
    fn decode(&self, at: usize) -> Entry<'_> {
        let (key, next) = pack::decode(&self.data, at);
        (key, self.pairs.then(|| pack::decode(&self.data, next).0))
    }

    /// The key of an entry, and its value if it has one.
    #[inline]
    fn entry(&self, index: usize) -> Entry<'_> {
        self.decode(self.begin(index))
    }

    /// The entries from index `from` on.
    fn entries(&self, from: usize) -> impl Iterator<Item = Entry<'_>> {
        let mut at = if from < self.heads.len() { self.begin(from) } else { self.data.len() };
        std::iter::from_fn(move || {
            (at < self.data.len()).then(|| {
                let entry = self.decode(at);
                at = self.next(at);
                entry
            })
        })
    }

    /// The hash of each entry with its place.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.heads.len());
        let mut begin = 0;
        while begin < self.data.len() {
            let end = self.next(begin);
            let hash = hash_of(&pack::decode(&self.data, begin).0.text());
            places.push(Place { hash, begin, end });
            begin = end;
        }
        places
    }

    /// The index of a key and where its entry begins.
    #[inline]
    fn find(&self, hash: u64, key: Item<'_>) -> Option<(usize, usize)> {
        let wanted = fingerprint(hash);
        if self.is_wide() {
            return self.find_wide(wanted, key);
        }
        let is_hit = |head: &u32| head & !(OFFSET_MAX as u32) == wanted;
        let find_in = |heads: &[u32], first: usize| {
            heads.iter().zip(first..).filter(|(head, _)| is_hit(head)).find_map(|(head, index)| {
                let at = *head as usize & OFFSET_MAX;
                (pack::decode(&self.data, at).0 == key).then_some((index, at))
            })
        };
        let (groups, rest) = self.heads.as_chunks::<HEADS_PER_GROUP>();
        for (group, heads) in groups.iter().enumerate() {
            // Without a branch per head: the compiler compares several at a time.
            if heads.iter().fold(false, |hit, head| hit | is_hit(head))
                && let Some(found) = find_in(heads, group * HEADS_PER_GROUP)
            {
                return Some(found);
            }
        }
        find_in(rest, groups.len() * HEADS_PER_GROUP)
    }

    #[cold]
    fn find_wide(&self, wanted: u32, key: Item<'_>) -> Option<(usize, usize)> {
        let mut at = 0;
        for (index, head) in self.heads.iter().enumerate() {
            if head & !(OFFSET_MAX as u32) == wanted && pack::decode(&self.data, at).0 == key {
                return Some((index, at));
            }
            at = self.next(at);
        }
        None
    }

    fn push(&mut self, hash: u64, key: Item<'_>, value: Option<Item<'_>>) {
        let begin = self.data.len();
        let len = key.encoded_len() + value.map_or(0, Item::encoded_len);
        reserve(&mut self.data, len);
        reserve(&mut self.heads, 1);
        key.encode(&mut self.data);
        if let Some(value) = value {
            value.encode(&mut self.data);
        }
        // In a wide leaf the offset means nothing, and must not spill over the fingerprint.
        self.heads.push(fingerprint(hash) | (begin & OFFSET_MAX) as u32);
    }

    /// Appends an entry that is encoded already.
    fn push_encoded(&mut self, hash: u64, entry: &[u8]) {
        self.heads.push(fingerprint(hash) | (self.data.len() & OFFSET_MAX) as u32);
        self.data.extend_from_slice(entry);
    }

    fn set_value(&mut self, index: usize, begin: usize, value: Item<'_>) {
        let at = begin + pack::skip(&self.data, begin);
        let end = at + pack::skip(&self.data, at);
        let new_len = value.encoded_len();
        if new_len == end - at {
            value.encode_to(&mut self.data[at..]);
            return;
        }
        let was_wide = self.is_wide();
        if new_len > end - at {
            reserve(&mut self.data, new_len - (end - at));
        }
        pack::splice(&mut self.data, at, end, &[value]);
        self.shift(index + 1, new_len as isize - (end - at) as isize, was_wide);
        shrink(&mut self.data);
    }

    fn remove(&mut self, index: usize, begin: usize) {
        let was_wide = self.is_wide();
        let end = self.next(begin);
        self.data.drain(begin..end);
        self.heads.remove(index);
        self.shift(index, -((end - begin) as isize), was_wide);
        shrink(&mut self.data);
        shrink(&mut self.heads);
    }

    /// Corrects where the entries from index `from` on begin, after those before have changed length.
    fn shift(&mut self, from: usize, by: isize, was_wide: bool) {
        if self.is_wide() {
            return;
        }
        if was_wide {
            return self.write_offsets();
        }
        for head in &mut self.heads[from..] {
            *head = head.wrapping_add_signed(by as i32);
        }
    }

    fn write_offsets(&mut self) {
        let mut at = 0;
        for index in 0..self.heads.len() {
            self.heads[index] = (self.heads[index] & !(OFFSET_MAX as u32)) | at as u32;
            at = self.next(at);
        }
    }

    /// Whether two entries have different hashes.
    fn can_split(&self) -> bool {
        let mut heads = self.heads.iter();
        let Some(first) = heads.next() else {
            return false;
        };
        if heads.any(|head| (head ^ first) > OFFSET_MAX as u32) {
            return true;
        }
        // Rarely are all fingerprints equal: the hashes may still differ.
        let places = self.places();
        places.iter().any(|place| place.hash != places[0].hash)
    }

    /// A leaf of some entries of this one.
    fn take(&self, places: &[Place]) -> Self {
        let bytes = places.iter().map(|place| place.end - place.begin).sum();
        let mut leaf = Self { pairs: self.pairs, ..Self::default() };
        reserve(&mut leaf.data, bytes);
        reserve(&mut leaf.heads, places.len());
        for place in places {
            leaf.push_encoded(place.hash, &self.data[place.begin..place.end]);
        }
        leaf
    }
}

impl Leaf for TableLeaf {
    /// The least hash of the leaf.
    type Sep = u64;

    fn len(&self) -> usize {
        self.heads.len()
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + vec_bytes(&self.heads) + vec_bytes(&self.data)
    }

    #[inline]
    fn is_over(&self) -> bool {
        (self.data.len() > LEAF_BYTES_MAX || self.heads.len() > LEAF_ENTRIES_MAX)
            && self.can_split()
    }

    fn is_sparse(&self) -> bool {
        self.data.len() < LEAF_BYTES_MIN && self.heads.len() < LEAF_ENTRIES_MIN
    }

    fn split(&mut self) -> (u64, Self) {
        let mut places = self.places();
        places.sort_unstable_by_key(|place| place.hash);
        let at = split_point(&places, self.data.len());
        let (lower, upper) = (self.take(&places[..at]), self.take(&places[at..]));
        *self = lower;
        (places[at].hash, upper)
    }

    fn absorb(&mut self, next: &Self) -> bool {
        if self.data.len() + next.data.len() > LEAF_BYTES_MAX * 3 / 4
            || self.heads.len() + next.heads.len() > LEAF_ENTRIES_MAX * 3 / 4
        {
            return false;
        }
        let base = self.data.len() as u32;
        reserve(&mut self.data, next.data.len());
        reserve(&mut self.heads, next.heads.len());
        self.data.extend_from_slice(&next.data);
        self.heads.extend(next.heads.iter().map(|head| head + base));
        true
    }
}

/// Memory behind a vector.
fn vec_bytes<T>(vec: &Vec<T>) -> usize {
    match vec.capacity() {
        0 => 0,
        capacity => size_class(capacity * size_of::<T>()),
    }
}

/// Where to cut entries in the order of their hashes: about half of the bytes on either side, equal
/// hashes on the same, something on both.
fn split_point(places: &[Place], bytes: usize) -> usize {
    let mut before = 0;
    let is_below_half = |place: &&Place| {
        before += place.end - place.begin;
        before * 2 < bytes
    };
    let middle = places.iter().take_while(is_below_half).count().min(places.len() - 1);
    let same = places[middle].hash;
    let lower = places.partition_point(|place| place.hash < same);
    let upper = places.partition_point(|place| place.hash <= same);
    let is_nearer = upper < places.len() && upper - middle <= middle - lower;
    if lower == 0 || is_nearer { upper } else { lower }
}

/// A table of keys, or of keys with values.
#[derive(Clone, Debug)]
pub struct HashTable(Tree<TableLeaf>);

impl HashTable {
    /// An empty table. `pairs`: its keys have values.
    pub fn new(pairs: bool) -> Self {
        Self(Tree::new(TableLeaf { pairs, ..TableLeaf::default() }))
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Memory of all nodes.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    /// Whether neither has changed since one was cloned from the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.is_same(&other.0)
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash<TableLeaf> {
        self.0.into_trash()
    }

    /// Whether a key is there.
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        let hash = hash_of(key);
        self.0.leaf_for(|&sep| sep <= hash).find(hash, Item::new(key)).is_some()
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Item<'_>> {
        let hash = hash_of(key);
        let leaf = self.0.leaf_for(|&sep| sep <= hash);
        leaf.decode(leaf.find(hash, Item::new(key))?.1).1
    }

    /// Sets the value of a key (none in a table of keys). Whether the key is new.
    ///
    /// # Complexity
    /// O(log n)
    pub fn insert(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let hash = hash_of(key);
        let (key, value) = (Item::new(key), value.map(Item::new));
        self.0.edit_for(
            |&sep| sep <= hash,
            |leaf| match (leaf.find(hash, key), value) {
                (Some((index, begin)), Some(value)) => {
                    leaf.set_value(index, begin, value);
                    false
                }
                (Some(_), None) => false,
                (None, value) => {
                    leaf.push(hash, key, value);
                    true
                }
            },
        )
    }

    /// Removes a key. Whether it was there.
    ///
    /// # Complexity
    /// O(log n)
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let hash = hash_of(key);
        let key = Item::new(key);
        self.0.edit_for(
            |&sep| sep <= hash,
            |leaf| match leaf.find(hash, key) {
                Some((index, begin)) => {
                    leaf.remove(index, begin);
                    true
                }
                None => false,
            },
        )
    }

    /// The entry at a position, for a random choice or a walk. Positions shift with every change.
    ///
    /// # Complexity
    /// O(log n)
    pub fn at(&self, position: usize) -> Option<Entry<'_>> {
        let (leaf, index) = self.0.leaf_at(position);
        (index < leaf.len()).then(|| leaf.entry(index))
    }

    /// Visits all entries of the leaf at a position, from there on. Returns the position behind them;
    /// equal to `position` at the end.
    ///
    /// # Complexity
    /// O(log n) and that leaf: a whole walk is O(n).
    pub fn walk<'t>(
        &'t self,
        position: usize,
        mut visit: impl FnMut(Item<'t>, Option<Item<'t>>),
    ) -> usize {
        let (leaf, index) = self.0.leaf_at(position);
        leaf.entries(index).for_each(|(key, value)| visit(key, value));
        position + leaf.len().saturating_sub(index)
    }

    /// Visits entries from the hash `from` on, in about the order of their hashes, until `count` were
    /// seen, and those with the hash of the last. Returns the hash to go on from; none at the end. An
    /// entry that is there all the time is visited, whatever else comes and goes between the calls.
    ///
    /// # Complexity
    /// O(log n + count), and one leaf.
    pub fn scan<'t>(
        &'t self,
        from: u64,
        count: usize,
        mut visit: impl FnMut(Item<'t>, Option<Item<'t>>),
    ) -> Option<u64> {
        let (leaf, position) = self.0.leaf_of(|&sep| sep <= from);
        // What lies below `from` was seen, in this leaf or in one that has joined it since.
        let mut fresh = leaf.places();
        fresh.retain(|place| place.hash >= from);
        let (mut leaf, mut position) = (leaf, position + leaf.len());
        let mut left = count.max(1);
        loop {
            if fresh.len() > left {
                fresh.sort_unstable_by_key(|place| place.hash);
                let last = fresh[left - 1].hash;
                let end = fresh.partition_point(|place| place.hash <= last);
                visit_all(leaf, &fresh[..end], &mut visit);
                if let Some(next) = fresh.get(end) {
                    return Some(next.hash);
                }
                left = 0;
            } else {
                visit_all(leaf, &fresh, &mut visit);
                left -= fresh.len();
            }
            if position >= self.len() {
                return None;
            }
            leaf = self.0.leaf_at(position).0;
            fresh = leaf.places();
            if left == 0 {
                return fresh.iter().map(|place| place.hash).min();
            }
            position += leaf.len();
        }
    }
}

fn visit_all<'t>(
    leaf: &'t TableLeaf,
    places: &[Place],
    visit: &mut impl FnMut(Item<'t>, Option<Item<'t>>),
) {
    for place in places {
        let (key, value) = leaf.decode(place.begin);
        visit(key, value);
    }
}

#[cfg(test)]
mod tests;
