//! Sorted sets: members with scores, in the order of score and bytes.
//!
//! Small ones are packed (`packed`); above the configured limits there are two trees (`tree`):
//! the members in order (`order`), and where each is (`places`).
//!
//! Redis: a packed set does not know -0, and a member with that score gets 0.

mod order;
mod packed;
mod places;
mod tree;
mod walk;

pub use order::OrderLeaf;
pub use places::{ScoreLeaf, hash_of};
pub use tree::ZsetTree;
pub use walk::Walk;

use crate::store::entry::size_class;
use crate::types::pack::Item;
use crate::types::{Collection, Limits, Object, Packed, Trash, Type};

/// A sorted set.
#[derive(Clone, Debug)]
pub enum Zset {
    /// Members and scores in the entry, or in a buffer of their own.
    Packed(Vec<u8>),
    /// Two trees.
    Tree(Box<ZsetTree>),
}

/// A view of a sorted set.
#[derive(Clone, Copy, Debug)]
pub enum ZsetView<'a> {
    /// Packed members and scores.
    Packed(&'a [u8]),
    /// Two trees.
    Tree(&'a ZsetTree),
}

impl<'a> ZsetView<'a> {
    /// Number of members.
    pub fn len(self) -> usize {
        match self {
            Self::Packed(data) => packed::len(data),
            Self::Tree(tree) => tree.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        match self {
            Self::Packed(data) => data.is_empty(),
            Self::Tree(tree) => tree.is_empty(),
        }
    }

    /// Memory behind it.
    pub fn heap_bytes(self) -> usize {
        match self {
            Self::Packed(data) => data.len(),
            Self::Tree(tree) => tree.heap_bytes(),
        }
    }

    /// A sorted set of its own: shared if it is large, copied if it is not.
    pub fn to_zset(self) -> Zset {
        match self {
            Self::Packed(data) => Zset::Packed(data.to_vec()),
            Self::Tree(tree) => Zset::Tree(Box::new(tree.clone())),
        }
    }

    /// Whether two are equal for sure: the same bytes, or trees that have not changed since one was
    /// cloned from the other.
    pub fn is_same(self, other: ZsetView<'_>) -> bool {
        match (self, other) {
            (Self::Packed(one), ZsetView::Packed(two)) => one == two,
            (Self::Tree(one), ZsetView::Tree(two)) => one.is_same(two),
            _ => false,
        }
    }

    /// The score of a member.
    #[inline]
    pub fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Packed(data) => packed::find(data, member).map(|(_, _, score)| score),
            Self::Tree(tree) => tree.score(member),
        }
    }

    /// Rank, from the lowest, and score of a member.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn find(self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            Self::Packed(data) => packed::find(data, member).map(|(rank, _, score)| (rank, score)),
            Self::Tree(tree) => tree.find(member),
        }
    }

    /// Member and score of a rank.
    ///
    /// # Complexity
    /// O(log n)
    pub fn at(self, rank: usize) -> Option<(Item<'a>, f64)> {
        Walk::forward(self, rank, rank + 1).next()
    }

    /// Members of ranks `from` to `to` (exclusive), upwards.
    pub fn range(self, from: usize, to: usize) -> Walk<'a> {
        Walk::forward(self, from, to)
    }

    /// The same members, downwards.
    pub fn range_rev(self, from: usize, to: usize) -> Walk<'a> {
        Walk::backward(self, from, to)
    }

    /// The number of members in front for which `is_before` holds, as it does for all before them.
    /// It may be asked about places between members.
    ///
    /// # Complexity
    /// O(log n)
    pub fn partition_point(self, mut is_before: impl FnMut(f64, Item<'_>) -> bool) -> usize {
        match self {
            Self::Packed(data) => packed::partition_point(data, is_before).0,
            Self::Tree(tree) => tree.partition_point(|score, m| is_before(score, Item::Str(m))),
        }
    }
}

impl Zset {
    /// An empty set in its big form.
    pub fn new_tree() -> Self {
        Self::Tree(Box::default())
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Memory behind it.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(data) => size_class(data.capacity()),
            Self::Tree(tree) => size_class(size_of::<ZsetTree>()) + tree.heap_bytes(),
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Packed(_) => Packed::Zset.encoding(),
            Self::Tree(_) => "skiplist",
        }
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash {
        match self {
            Self::Packed(_) => Trash::default(),
            Self::Tree(tree) => tree.into_trash(),
        }
    }

    /// Asks `decide` for the new score of a member, given the old one, and stores it. With no old one
    /// the member is added; with no new one nothing changes.
    ///
    /// # Complexity
    /// O(log n)
    pub fn update(
        &mut self,
        member: &[u8],
        limits: &Limits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) {
        match self {
            Self::Packed(data) => {
                let found = packed::find(data, member);
                let Some(new) = decide(found.map(|(_, _, score)| score)) else {
                    return;
                };
                match found {
                    Some((_, at, _)) => packed::remove(data, at),
                    None if packed::len(data) >= limits.zset_entries_max
                        || member.len() > limits.zset_value_bytes_max =>
                    {
                        self.to_tree().insert(member, new);
                        return;
                    }
                    None => {}
                }
                packed::insert(data, member, new);
            }
            Self::Tree(tree) => {
                let old = tree.score(member);
                match (old, decide(old)) {
                    (_, None) => {}
                    (None, Some(new)) => tree.insert(member, new),
                    (Some(old), Some(new)) => tree.set_score(member, old, new),
                }
            }
        }
    }

    /// Sets the score of a member.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) {
        self.update(member, limits, |_| Some(score));
    }

    /// Removes a member. Whether it was there.
    ///
    /// # Complexity
    /// O(log n)
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Self::Packed(data) => {
                let found = packed::find(data, member);
                if let Some((_, at, _)) = found {
                    packed::remove(data, at);
                }
                found.is_some()
            }
            Self::Tree(tree) => {
                let found = tree.score(member);
                if let Some(score) = found {
                    tree.remove(member, score);
                }
                found.is_some()
            }
        }
    }

    /// Removes the members of ranks `from` to `to` (exclusive).
    ///
    /// # Complexity
    /// O(m log n) for m members
    pub fn remove_range(&mut self, from: usize, to: usize) -> Trash {
        match self {
            Self::Packed(data) => {
                let (begin, end) = (packed::offset_of(data, from), packed::offset_of(data, to));
                data.drain(begin..end.max(begin));
                Trash::default()
            }
            Self::Tree(tree) => tree.remove_range(from, to.max(from)),
        }
    }

    /// Turns it into its big form.
    pub fn to_tree(&mut self) -> &mut ZsetTree {
        if let Self::Packed(data) = self {
            let mut tree = ZsetTree::default();
            for (member, score) in ZsetView::Packed(data).range(0, usize::MAX) {
                tree.insert(&member.text(), score);
            }
            *self = Self::Tree(Box::new(tree));
        }
        match self {
            Self::Tree(tree) => tree,
            Self::Packed(_) => unreachable!("it has been made a tree above"),
        }
    }

    /// Turns it into its small form, if it is within the limits; a result that a command has built in
    /// its big form is stored like that.
    pub fn pack_if_small(&mut self, limits: &Limits) {
        let Self::Tree(tree) = self else {
            return;
        };
        let view = ZsetView::Tree(tree);
        if view.len() > limits.zset_entries_max
            || view.range(0, view.len()).any(|(m, _)| m.byte_len() > limits.zset_value_bytes_max)
        {
            return;
        }
        let mut data = Vec::new();
        for (member, score) in view.range(0, view.len()) {
            packed::append(&mut data, &member.text(), score);
        }
        *self = Self::Packed(data);
    }
}

impl Collection for Zset {
    type View<'a> = ZsetView<'a>;

    const TYPE: Type = Type::Zset;

    fn new() -> Self {
        Self::Packed(Vec::new())
    }

    fn from_packed(packed: Packed, bytes: Vec<u8>) -> Option<Self> {
        (packed == Packed::Zset).then_some(Self::Packed(bytes))
    }

    fn packed(&self) -> Option<(Packed, &[u8])> {
        match self {
            Self::Packed(bytes) => Some((Packed::Zset, bytes)),
            Self::Tree(_) => None,
        }
    }

    fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Packed(bytes) => bytes,
            Self::Tree(_) => Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    fn view_packed(packed: Packed, bytes: &[u8]) -> Option<ZsetView<'_>> {
        (packed == Packed::Zset).then_some(ZsetView::Packed(bytes))
    }

    fn view(&self) -> ZsetView<'_> {
        match self {
            Self::Packed(bytes) => ZsetView::Packed(bytes),
            Self::Tree(tree) => ZsetView::Tree(tree),
        }
    }

    fn into_object(self) -> Object {
        Object::Zset(self)
    }

    fn of(object: &Object) -> Option<&Self> {
        match object {
            Object::Zset(this) => Some(this),
            _ => None,
        }
    }

    fn of_mut(object: &mut Object) -> Option<&mut Self> {
        match object {
            Object::Zset(this) => Some(this),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
