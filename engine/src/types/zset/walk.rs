//! Walks over the members of a sorted set, in both directions.

use crate::types::pack::Item;
use crate::types::tree::Leaf;
use crate::types::zset::{OrderLeaf, ZsetTree, ZsetView, packed};

/// Members with their scores, of a range of ranks.
///
/// # Complexity
/// O(log n) to begin, and once more for each leaf
#[derive(Debug)]
pub struct Walk<'a>(Kind<'a>);

#[derive(Debug)]
enum Kind<'a> {
    Packed {
        data: &'a [u8],
        at: usize,
        left: usize,
    },
    /// Packed bytes cannot be read backwards: where each member begins, the next one last.
    PackedRev {
        data: &'a [u8],
        offsets: Vec<u32>,
    },
    /// Ranks `from` to `to` are left.
    Tree {
        tree: &'a ZsetTree,
        /// The leaf of `from`, and the index in it; a leaf that is used up if there was none yet.
        leaf: Option<(&'a OrderLeaf, usize)>,
        from: usize,
        to: usize,
    },
    /// The same; the leaf is that of `to`, and the index the end of what is left of it.
    TreeRev {
        tree: &'a ZsetTree,
        leaf: Option<(&'a OrderLeaf, usize)>,
        from: usize,
        to: usize,
    },
}

impl<'a> Walk<'a> {
    pub(super) fn forward(view: ZsetView<'a>, from: usize, to: usize) -> Self {
        Self(match view {
            ZsetView::Packed(data) => {
                let at = packed::offset_of(data, from);
                Kind::Packed { data, at, left: to.saturating_sub(from) }
            }
            ZsetView::Tree(tree) => Kind::Tree { tree, leaf: None, from, to: to.min(tree.len()) },
        })
    }

    pub(super) fn backward(view: ZsetView<'a>, from: usize, to: usize) -> Self {
        Self(match view {
            ZsetView::Packed(data) => {
                let (mut at, mut offsets) = (packed::offset_of(data, from), Vec::new());
                while at < data.len() && offsets.len() < to.saturating_sub(from) {
                    // A packed set is far shorter than 4 GiB.
                    offsets.push(at as u32);
                    at = packed::entry(data, at).2;
                }
                Kind::PackedRev { data, offsets }
            }
            ZsetView::Tree(tree) => {
                Kind::TreeRev { tree, leaf: None, from, to: to.min(tree.len()) }
            }
        })
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Kind::Packed { data, at, left } => {
                if *left == 0 || *at >= data.len() {
                    return None;
                }
                let (member, score, next) = packed::entry(data, *at);
                (*at, *left) = (next, *left - 1);
                Some((member, score))
            }
            Kind::PackedRev { data, offsets } => {
                let (member, score, _) = packed::entry(data, offsets.pop()? as usize);
                Some((member, score))
            }
            Kind::Tree { tree, leaf, from, to } => {
                if *from >= *to {
                    return None;
                }
                let (at, index) = match *leaf {
                    Some((at, index)) if index < at.len() => (at, index),
                    _ => tree.leaf_at(*from),
                };
                *leaf = Some((at, index + 1));
                *from += 1;
                let (score, member) = at.entry(index);
                Some((Item::Str(member), score))
            }
            Kind::TreeRev { tree, leaf, from, to } => {
                if *from >= *to {
                    return None;
                }
                *to -= 1;
                let (at, index) = match *leaf {
                    Some((at, end)) if end > 0 => (at, end - 1),
                    _ => tree.leaf_at(*to),
                };
                *leaf = Some((at, index));
                let (score, member) = at.entry(index);
                Some((Item::Str(member), score))
            }
        }
    }
}
