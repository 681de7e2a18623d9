//! The big form of a sorted set: its order, and where each member is in it.

use crate::types::Trash;
use crate::types::tree::{Leaf, Tree};
use crate::types::zset::order::OrderLeaf;
use crate::types::zset::places::{ScoreLeaf, hash_of};

/// Members in order, found by rank, by score and by their bytes. A clone is O(1).
#[derive(Clone, Debug)]
pub struct ZsetTree {
    order: Tree<OrderLeaf>,
    scores: Tree<ScoreLeaf>,
}

impl Default for ZsetTree {
    fn default() -> Self {
        Self { order: Tree::new(OrderLeaf::default()), scores: Tree::new(ScoreLeaf::default()) }
    }
}

impl ZsetTree {
    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of all nodes.
    pub fn heap_bytes(&self) -> usize {
        self.order.heap_bytes() + self.scores.heap_bytes()
    }

    /// Whether neither has changed since one was cloned from the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.order.is_same(&other.order)
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash {
        Trash {
            orders: self.order.into_trash(),
            scores: self.scores.into_trash(),
            ..Trash::default()
        }
    }

    /// Rank and score of a member.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn find(&self, member: &[u8]) -> Option<(usize, f64)> {
        let hash = hash_of(member);
        let (leaf, _) = self.scores.leaf_of(|&sep| sep <= hash);
        leaf.scores_of(hash).find_map(|score| {
            let (leaf, before) = self.order.leaf_of(|sep| sep.covers(score, member));
            let index = leaf.find(score, member).ok()?;
            Some((before + index, leaf.entry(index).0))
        })
    }

    /// Score of a member.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        let hash = hash_of(member);
        let leaf = self.scores.leaf_for(|&sep| sep <= hash);
        leaf.scores_of(hash).find_map(|score| {
            let leaf = self.order.leaf_for(|sep| sep.covers(score, member));
            leaf.find(score, member).ok().map(|index| leaf.entry(index).0)
        })
    }

    /// Adds a member that is not there.
    ///
    /// # Complexity
    /// O(log n)
    pub fn insert(&mut self, member: &[u8], score: f64) {
        self.place(member, score);
        let hash = hash_of(member);
        self.scores.edit_for(|&sep| sep <= hash, |leaf| leaf.insert(hash, score));
    }

    fn place(&mut self, member: &[u8], score: f64) {
        self.order.edit_for(|sep| sep.covers(score, member), |leaf| leaf.insert(score, member));
    }

    /// Gives a member that is there another score.
    ///
    /// # Complexity
    /// O(log n)
    pub fn set_score(&mut self, member: &[u8], old: f64, new: f64) {
        let moves = |leaf: &mut OrderLeaf| match leaf.find(old, member) {
            Ok(index) if leaf.set_score(index, new) => false,
            Ok(index) => {
                leaf.remove(index, index + 1);
                true
            }
            Err(_) => false,
        };
        if old == new {
            return;
        }
        if self.order.edit_for(|sep| sep.covers(old, member), moves) {
            self.place(member, new);
        }
        let hash = hash_of(member);
        self.scores.edit_for(|&sep| sep <= hash, |leaf| leaf.replace(hash, old, new));
    }

    /// Removes a member that is there.
    ///
    /// # Complexity
    /// O(log n)
    pub fn remove(&mut self, member: &[u8], score: f64) {
        self.order.edit_for(
            |sep| sep.covers(score, member),
            |leaf| {
                if let Ok(index) = leaf.find(score, member) {
                    leaf.remove(index, index + 1);
                }
            },
        );
        let hash = hash_of(member);
        self.scores.edit_for(|&sep| sep <= hash, |leaf| leaf.remove(hash, score));
    }

    /// Removes the members of ranks `from` to `to` (exclusive).
    ///
    /// # Complexity
    /// O(m log n) for m members; O(1) for all.
    pub fn remove_range(&mut self, from: usize, to: usize) -> Trash {
        let to = to.min(self.len());
        if from == 0 && to == self.len() {
            return std::mem::take(self).into_trash();
        }
        let mut position = from;
        while position < to {
            let (leaf, index) = self.order.leaf_at(position);
            let end = leaf.len().min(index + to - position);
            for i in index..end {
                let (score, member) = leaf.entry(i);
                let hash = hash_of(member);
                self.scores.edit_for(|&sep| sep <= hash, |leaf| leaf.remove(hash, score));
            }
            position += end - index;
        }
        let mut trash = Trash::default();
        self.order.remove_range(from, to, &mut trash.orders, OrderLeaf::remove);
        trash
    }

    /// The number of members in front for which `is_before` holds, as it does for all before them.
    /// It may be asked about places between members.
    ///
    /// # Complexity
    /// O(log n)
    pub fn partition_point(&self, mut is_before: impl FnMut(f64, &[u8]) -> bool) -> usize {
        let (leaf, before) = self.order.leaf_of(|sep| is_before(sep.score, &sep.member));
        before + leaf.partition_point(is_before)
    }

    /// The leaf of a rank, and the index in it.
    #[inline]
    pub fn leaf_at(&self, rank: usize) -> (&OrderLeaf, usize) {
        self.order.leaf_at(rank)
    }

    /// Scores of about `count` members, or more, in the order of their hashes from `hash` on, and the
    /// hash to go on from; none at the end. Members with the same hash are not parted.
    ///
    /// # Complexity
    /// O(log n + count)
    pub fn scores_from(&self, hash: u32, count: usize) -> (Vec<f64>, Option<u32>) {
        let mut scores = Vec::new();
        let (mut leaf, mut position) = self.scores.leaf_of(|&sep| sep <= hash);
        let mut last = None;
        loop {
            for (h, score) in leaf.iter_from(hash) {
                if scores.len() >= count && last != Some(h) {
                    return (scores, Some(h));
                }
                last = Some(h);
                scores.push(score);
            }
            position += leaf.len();
            if position >= self.scores.len() {
                return (scores, None);
            }
            leaf = self.scores.leaf_at(position).0;
        }
    }
}
