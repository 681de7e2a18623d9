//! The order of a big sorted set: leaves of members, by score and then by their bytes.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::store::entry::size_class;
use crate::types::tree::Leaf;

/// Members of a leaf beyond which it is split.
const LEAF_MEMBERS_MAX: usize = 64;
/// Member bytes of a leaf beyond which it is split.
const LEAF_BYTES_MAX: usize = 1_500;
/// Inserts in a row at one end from which on a split leaves the other part full.
const STREAK_MIN: i16 = 16;

/// Which of two places in a sorted set comes first.
///
/// Redis: 0 and -0 are the same score. NaN never gets here.
#[inline]
pub(super) fn compare(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    match a.0.partial_cmp(&b.0) {
        Some(Ordering::Equal) | None => a.1.cmp(b.1),
        Some(unequal) => unequal,
    }
}

/// Grows a buffer to what the allocator gives anyway, so that leaves waste little.
pub(super) fn reserve<T>(buffer: &mut Vec<T>, more: usize) {
    let wanted = buffer.len() + more;
    if wanted > buffer.capacity() {
        let room = size_class(wanted * size_of::<T>()) / size_of::<T>();
        buffer.reserve_exact(room - buffer.len());
    }
}

/// Returns memory of a buffer that has become much too large.
pub(super) fn trim<T>(buffer: &mut Vec<T>) {
    if buffer.capacity() * size_of::<T>() > 64 && buffer.len() < buffer.capacity() / 2 {
        buffer.shrink_to(size_class(buffer.len() * size_of::<T>()) / size_of::<T>());
    }
}

/// Bytes of a separator that lie within the node: a search then follows no pointer.
const SEP_BYTES: usize = 24;

/// A place between two members.
#[derive(Clone, Debug)]
pub struct Sep {
    /// The score.
    pub score: f64,
    /// As many bytes of the member as tell the two sides apart.
    pub member: SmallVec<[u8; SEP_BYTES]>,
}

impl Sep {
    /// Whether a member with this score belongs behind it.
    #[inline]
    pub fn covers(&self, score: f64, member: &[u8]) -> bool {
        compare((self.score, &self.member), (score, member)).is_le()
    }

    /// The shortest that parts `low` from `high`.
    fn between(low: (f64, &[u8]), high: (f64, &[u8])) -> Self {
        if low.0 < high.0 {
            return Self { score: high.0, member: SmallVec::new() };
        }
        let same = low.1.iter().zip(high.1).take_while(|(a, b)| a == b).count();
        let len = (same + 1).min(high.1.len());
        Self { score: high.0, member: SmallVec::from_slice(&high.1[..len]) }
    }
}

/// Where members begin in a leaf's bytes.
#[derive(Clone, Debug)]
enum Begins {
    /// In leaves of usual length.
    Narrow(Vec<u16>),
    /// In leaves with a member that is longer than 64 KiB.
    Wide(Vec<usize>),
}

impl Default for Begins {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl Begins {
    #[inline]
    fn get(&self, index: usize) -> Option<usize> {
        match self {
            Self::Narrow(begins) => begins.get(index).map(|&begin| usize::from(begin)),
            Self::Wide(begins) => begins.get(index).copied(),
        }
    }

    /// Inserts one; those behind move by `len`.
    fn insert(&mut self, index: usize, begin: usize, len: usize) {
        match self {
            Self::Narrow(begins) => {
                reserve(begins, 1);
                begins.insert(index, begin as u16);
                begins[index + 1..].iter_mut().for_each(|begin| *begin += len as u16);
            }
            Self::Wide(begins) => {
                begins.insert(index, begin);
                begins[index + 1..].iter_mut().for_each(|begin| *begin += len);
            }
        }
    }

    /// Removes some; those behind move by `len`.
    fn remove(&mut self, from: usize, to: usize, len: usize) {
        match self {
            Self::Narrow(begins) => {
                begins.drain(from..to);
                begins[from..].iter_mut().for_each(|begin| *begin -= len as u16);
                trim(begins);
            }
            Self::Wide(begins) => {
                begins.drain(from..to);
                begins[from..].iter_mut().for_each(|begin| *begin -= len);
            }
        }
    }

    /// Makes sure that offsets up to `bytes` can be held.
    fn fit(&mut self, bytes: usize) {
        if let Self::Narrow(begins) = self
            && bytes > usize::from(u16::MAX)
        {
            *self = Self::Wide(begins.iter().map(|&begin| usize::from(begin)).collect());
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Narrow(begins) => size_class(begins.capacity() * size_of::<u16>()),
            Self::Wide(begins) => size_class(begins.capacity() * size_of::<usize>()),
        }
    }
}

/// Members in order.
#[derive(Clone, Debug, Default)]
pub struct OrderLeaf {
    scores: Vec<f64>,
    begins: Begins,
    data: Vec<u8>,
    /// Inserts in a row at the end, or before the front if negative: sets that grow at an end are
    /// common, and get full leaves.
    streak: i16,
}

impl OrderLeaf {
    #[inline]
    fn begin(&self, index: usize) -> usize {
        self.begins.get(index).unwrap_or(self.data.len())
    }

    /// The bytes of a member.
    #[inline]
    pub fn member(&self, index: usize) -> &[u8] {
        &self.data[self.begin(index)..self.begin(index + 1)]
    }

    /// Score and bytes of a member.
    #[inline]
    pub fn entry(&self, index: usize) -> (f64, &[u8]) {
        (self.scores[index], self.member(index))
    }

    /// Number of members in front for which `is_before` holds, as it does for those before them.
    #[inline]
    pub fn partition_point(&self, mut is_before: impl FnMut(f64, &[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.scores.len());
        while low < high {
            let middle = (low + high) / 2;
            let (score, member) = self.entry(middle);
            if is_before(score, member) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Where a member is, or would be.
    #[inline]
    pub fn find(&self, score: f64, member: &[u8]) -> Result<usize, usize> {
        // Scores lie side by side; members are looked at among equal ones only.
        let mut low = self.scores.partition_point(|&s| s < score);
        let mut high = low + self.scores[low..].partition_point(|&s| s <= score);
        while low < high {
            let middle = (low + high) / 2;
            match self.member(middle).cmp(member) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Inserts a member at its place.
    pub fn insert(&mut self, score: f64, member: &[u8]) {
        let (Ok(index) | Err(index)) = self.find(score, member);
        let (begin, len) = (self.begin(index), member.len());
        self.streak = match index {
            _ if index == self.scores.len() => self.streak.max(0).saturating_add(1),
            0 => self.streak.min(0).saturating_sub(1),
            _ => 0,
        };
        self.begins.fit(self.data.len() + len);
        self.begins.insert(index, begin, len);
        reserve(&mut self.scores, 1);
        self.scores.insert(index, score);
        reserve(&mut self.data, len);
        let end = self.data.len();
        self.data.resize(end + len, 0);
        self.data.copy_within(begin..end, begin + len);
        self.data[begin..begin + len].copy_from_slice(member);
    }

    /// Removes the members from index `from` to `to` (exclusive).
    pub fn remove(&mut self, from: usize, to: usize) {
        let (begin, end) = (self.begin(from), self.begin(to));
        self.data.drain(begin..end);
        self.begins.remove(from, to, end - begin);
        self.scores.drain(from..to);
        trim(&mut self.scores);
        trim(&mut self.data);
    }

    /// Gives a member another score, if it stays between its neighbours in this leaf.
    pub fn set_score(&mut self, index: usize, score: f64) -> bool {
        let new = (score, self.member(index));
        // What lies beyond the leaf is unknown, so a move towards it is not decided here.
        let after_left = match index.checked_sub(1) {
            Some(left) => compare(self.entry(left), new).is_lt(),
            None => score >= self.scores[index],
        };
        let before_right = if index + 1 < self.scores.len() {
            compare(new, self.entry(index + 1)).is_lt()
        } else {
            score <= self.scores[index]
        };
        if after_left && before_right {
            self.scores[index] = score;
        }
        after_left && before_right
    }

    fn split_point(&self) -> usize {
        let last = self.scores.len() - 1;
        if self.streak >= STREAK_MIN {
            return last;
        }
        if self.streak <= -STREAK_MIN {
            return 1;
        }
        let middle = self.data.len() / 2;
        (1..last).find(|&index| self.begin(index) >= middle).unwrap_or(last)
    }

    /// Members from index `at` on, as a leaf of their own.
    fn split_off(&mut self, at: usize) -> Self {
        let begin = self.begin(at);
        let mut right = Self { streak: self.streak, ..Self::default() };
        right.begins.fit(self.data.len() - begin);
        reserve(&mut right.data, self.data.len() - begin);
        right.data.extend_from_slice(&self.data[begin..]);
        reserve(&mut right.scores, self.scores.len() - at);
        right.scores.extend_from_slice(&self.scores[at..]);
        for index in at..self.scores.len() {
            right.begins.insert(index - at, self.begin(index) - begin, 0);
        }
        self.begins.remove(at, self.scores.len(), 0);
        self.scores.truncate(at);
        self.data.truncate(begin);
        right
    }

    /// Gives back all room to grow, after a split.
    fn shrink(&mut self) {
        self.data.shrink_to_fit();
        self.scores.shrink_to_fit();
        match &mut self.begins {
            Begins::Narrow(begins) => begins.shrink_to_fit(),
            Begins::Wide(begins) if self.data.len() <= usize::from(u16::MAX) => {
                self.begins = Begins::Narrow(begins.iter().map(|&begin| begin as u16).collect());
            }
            Begins::Wide(_) => {}
        }
    }
}

impl Leaf for OrderLeaf {
    type Sep = Sep;

    #[inline]
    fn len(&self) -> usize {
        self.scores.len()
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + size_class(self.scores.capacity() * size_of::<f64>())
            + self.begins.heap_bytes()
            + size_class(self.data.capacity())
    }

    fn is_over(&self) -> bool {
        self.scores.len() > 1
            && (self.scores.len() > LEAF_MEMBERS_MAX || self.data.len() > LEAF_BYTES_MAX)
    }

    fn is_sparse(&self) -> bool {
        self.scores.len() < LEAF_MEMBERS_MAX / 4 && self.data.len() < LEAF_BYTES_MAX / 4
    }

    fn split(&mut self) -> (Sep, Self) {
        let right = self.split_off(self.split_point());
        self.streak = 0;
        self.shrink();
        let low = self.entry(self.scores.len() - 1);
        (Sep::between(low, right.entry(0)), right)
    }

    fn absorb(&mut self, next: &Self) -> bool {
        let bytes = self.data.len() + next.data.len();
        let members = self.scores.len() + next.scores.len();
        if bytes > LEAF_BYTES_MAX * 3 / 4 || members > LEAF_MEMBERS_MAX * 3 / 4 {
            return false;
        }
        let base = self.data.len();
        for index in 0..next.scores.len() {
            let end = self.scores.len() + index;
            self.begins.insert(end, base + next.begin(index), 0);
        }
        reserve(&mut self.data, next.data.len());
        self.data.extend_from_slice(&next.data);
        reserve(&mut self.scores, next.scores.len());
        self.scores.extend_from_slice(&next.scores);
        self.streak = 0;
        true
    }
}
