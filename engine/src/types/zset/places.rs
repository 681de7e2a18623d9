//! Where the members of a big sorted set are: leaves of scores by a hash of the member. No member
//! is stored here: what the hash suggests is looked up in the order.

use crate::store::entry::size_class;
use crate::types::table;
use crate::types::tree::Leaf;
use crate::types::zset::order::{reserve, trim};

/// Entries of a leaf beyond which it is split.
const LEAF_ENTRIES_MAX: usize = 128;

/// The hash that finds a member.
#[inline]
pub fn hash_of(member: &[u8]) -> u32 {
    (table::hash_of(member) >> 32) as u32
}

/// A member's hash and score, in 12 bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    /// Bits of the score, in halves: a whole would be padded to 16 bytes.
    score: [u32; 2],
}

const _: () = assert!(size_of::<Place>() == 12);

impl Place {
    fn new(hash: u32, score: f64) -> Self {
        let bits = score.to_bits();
        Self { hash, score: [bits as u32, (bits >> 32) as u32] }
    }

    fn score(self) -> f64 {
        f64::from_bits(u64::from(self.score[1]) << 32 | u64::from(self.score[0]))
    }
}

/// Scores by hash. Equal hashes are in the same leaf.
#[derive(Clone, Debug, Default)]
pub struct ScoreLeaf {
    places: Vec<Place>,
}

impl ScoreLeaf {
    /// Index of the first entry with this hash or a higher one.
    ///
    /// # Complexity
    /// O(1) expected: hashes are spread evenly, so it is about where it would be if they were exactly.
    #[inline]
    fn lower_bound(&self, hash: u32) -> usize {
        let (Some(first), Some(last)) = (self.places.first(), self.places.last()) else {
            return 0;
        };
        if hash <= first.hash {
            return 0;
        }
        if hash > last.hash {
            return self.places.len();
        }
        let (offset, spread) = (u64::from(hash - first.hash), u64::from(last.hash - first.hash));
        let mut index = (offset * (self.places.len() as u64 - 1) / spread) as usize;
        while index > 0 && self.places[index - 1].hash >= hash {
            index -= 1;
        }
        while self.places[index].hash < hash {
            index += 1;
        }
        index
    }

    /// Scores of members with this hash.
    #[inline]
    pub fn scores_of(&self, hash: u32) -> impl Iterator<Item = f64> {
        let from = self.lower_bound(hash);
        self.places[from..].iter().take_while(move |p| p.hash == hash).map(|p| p.score())
    }

    /// Hashes and scores from this hash on.
    pub fn iter_from(&self, hash: u32) -> impl Iterator<Item = (u32, f64)> {
        self.places[self.lower_bound(hash)..].iter().map(|place| (place.hash, place.score()))
    }

    /// Adds an entry.
    pub fn insert(&mut self, hash: u32, score: f64) {
        reserve(&mut self.places, 1);
        self.places.insert(self.lower_bound(hash), Place::new(hash, score));
    }

    fn index_of(&self, hash: u32, score: f64) -> Option<usize> {
        let from = self.lower_bound(hash);
        self.scores_of(hash).position(|s| s == score).map(|index| from + index)
    }

    /// Removes an entry.
    pub fn remove(&mut self, hash: u32, score: f64) {
        if let Some(index) = self.index_of(hash, score) {
            self.places.remove(index);
            trim(&mut self.places);
        }
    }

    /// Gives an entry another score.
    pub fn replace(&mut self, hash: u32, old: f64, new: f64) {
        if let Some(index) = self.index_of(hash, old) {
            self.places[index] = Place::new(hash, new);
        }
    }
}

impl Leaf for ScoreLeaf {
    /// The least hash of the leaf.
    type Sep = u32;

    #[inline]
    fn len(&self) -> usize {
        self.places.len()
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + size_class(self.places.capacity() * size_of::<Place>())
    }

    fn is_over(&self) -> bool {
        // Equal hashes cannot be parted; the hash is keyed, so there are few.
        self.places.len() > LEAF_ENTRIES_MAX
            && self.places.first().map(|p| p.hash) != self.places.last().map(|p| p.hash)
    }

    fn is_sparse(&self) -> bool {
        self.places.len() < LEAF_ENTRIES_MAX / 4
    }

    fn split(&mut self) -> (u32, Self) {
        let hash = self.places[self.places.len() / 2].hash;
        let mut at = self.lower_bound(hash);
        if at == 0 {
            at = self.places.partition_point(|place| place.hash <= hash);
        }
        let mut right = Self::default();
        reserve(&mut right.places, self.places.len() - at);
        right.places.extend_from_slice(&self.places[at..]);
        self.places.truncate(at);
        self.places.shrink_to_fit();
        (right.places[0].hash, right)
    }

    fn absorb(&mut self, next: &Self) -> bool {
        if self.places.len() + next.places.len() > LEAF_ENTRIES_MAX * 3 / 4 {
            return false;
        }
        reserve(&mut self.places, next.places.len());
        self.places.extend_from_slice(&next.places);
        true
    }
}
