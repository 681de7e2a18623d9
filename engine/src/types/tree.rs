//! The one structure of big collections: a counted B+tree of packed leaves, shared until changed.
//!
//! A leaf holds some kilobytes of elements side by side ([`Leaf`] says how); inner nodes count what
//! is below them, so that a position is found as fast as a key. Nodes are reference counted and
//! copied only when they are shared: a [`Tree`] is cloned in O(1), and the clone stays what it was
//! while the original goes on changing, a leaf at a time. Snapshots, long replies, long commands and
//! COPY rest on that. Knows no element, no key and no encoding.

use std::fmt::Debug;

use triomphe::{Arc, UniqueArc};

use crate::store::entry::size_class;
use crate::types::yard::{self, Remains};

/// Most children of an inner node.
const CHILDREN_MAX: usize = 64;
/// Reference count of a node in its own allocation.
const NODE_BYTES: usize = 8;
/// Trees of more memory, and as many nodes as are cut off at once, are never freed in one go.
const LAZY_BYTES_MIN: usize = 32 * 1024;
const LAZY_NODES_MIN: usize = 16;

/// A run of elements that lie together.
pub trait Leaf: Clone + Debug + Default + Send + Sync + 'static {
    /// A lower bound of a leaf's elements: what a search compares with. `()` where elements are found
    /// by position only.
    type Sep: Clone + Debug + Send + Sync;

    /// Number of elements.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory behind it, its own fixed part included.
    fn heap_bytes(&self) -> usize;

    /// Whether it holds more than a leaf should and can be split.
    fn is_over(&self) -> bool;

    /// Whether it is so empty that it should join a neighbour.
    fn is_sparse(&self) -> bool;

    /// Moves its upper part into a new leaf, and says what separates the two. Only called when
    /// [`is_over`](Self::is_over); at least one element stays in each.
    fn split(&mut self) -> (Self::Sep, Self);

    /// Appends all of `next`, if the two fit one leaf with room to spare.
    fn absorb(&mut self, next: &Self) -> bool;
}

#[derive(Clone, Debug)]
enum Node<L: Leaf> {
    Leaf(L),
    Inner(Inner<L>),
}

#[derive(Clone, Debug)]
struct Child<L: Leaf> {
    /// Elements below.
    count: usize,
    /// Memory of the node and all below.
    bytes: usize,
    node: Arc<Node<L>>,
}

/// A node that was parted from its left neighbour.
struct Split<L: Leaf> {
    sep: L::Sep,
    child: Child<L>,
}

/// Changes a boxed slice as a vector. It has no room to grow: an inner node changes only when a leaf
/// is split or joined, and room in all of them would be a hundredth of a collection's memory.
fn as_vec<T, R>(slice: &mut Box<[T]>, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
    let mut vec = std::mem::take(slice).into_vec();
    let result = change(&mut vec);
    *slice = vec.into_boxed_slice();
    result
}

/// Inserts into a boxed slice. Mostly it stays where it is: within the allocator's size class.
fn insert_into<T>(slice: &mut Box<[T]>, at: usize, item: T) {
    as_vec(slice, |vec| {
        vec.reserve_exact(1);
        vec.insert(at, item);
    });
}

/// Children in order, and what separates them: apart, because a search looks at little else.
#[derive(Clone, Debug)]
struct Inner<L: Leaf> {
    /// At most the least key below each child; that of the first means nothing.
    seps: Box<[L::Sep]>,
    children: Box<[Child<L>]>,
}

impl<L: Leaf> Inner<L> {
    fn len(&self) -> usize {
        self.children.len()
    }

    /// Memory of the node without its reference count and what is below.
    fn bytes(&self) -> usize {
        Self::bytes_of(self.len())
    }

    /// The same of a node with so many children.
    fn bytes_of(len: usize) -> usize {
        let of_seps = match len * size_of::<L::Sep>() {
            0 => 0,
            bytes => size_class(bytes),
        };
        size_of::<Node<L>>() + of_seps + size_class(len * size_of::<Child<L>>())
    }

    fn insert(&mut self, at: usize, split: Split<L>) {
        insert_into(&mut self.seps, at, split.sep);
        insert_into(&mut self.children, at, split.child);
    }

    fn remove(&mut self, at: usize) -> Child<L> {
        as_vec(&mut self.seps, |seps| seps.remove(at));
        as_vec(&mut self.children, |children| children.remove(at))
    }

    /// Its upper part as a node of its own, where child `new` has come in and made it too long: one
    /// that grows at an end only is cut there, so that it leaves full nodes behind.
    fn split(&mut self, new: usize) -> Split<L> {
        let at = match new {
            1 => 1,
            new if new == self.len() - 1 => new,
            _ => self.len() / 2,
        };
        let upper = Self {
            seps: as_vec(&mut self.seps, |seps| seps.split_off(at)).into_boxed_slice(),
            children: as_vec(&mut self.children, |all| all.split_off(at)).into_boxed_slice(),
        };
        let below = upper.children.iter().map(|child| child.bytes).sum::<usize>();
        let count = upper.children.iter().map(|child| child.count).sum();
        let bytes = NODE_BYTES + upper.bytes() + below;
        let sep = upper.seps[0].clone();
        Split { sep, child: Child { count, bytes, node: Arc::new(Node::Inner(upper)) } }
    }

    /// Appends the children of a right neighbour, from which `sep` parts it. Returns their memory.
    fn append(&mut self, next: &Self, sep: L::Sep) -> usize {
        let first = self.len();
        as_vec(&mut self.seps, |seps| seps.extend_from_slice(&next.seps));
        self.seps[first] = sep;
        as_vec(&mut self.children, |children| children.extend_from_slice(&next.children));
        next.children.iter().map(|child| child.bytes).sum()
    }
}

/// How a descent finds its way.
trait Route<L: Leaf> {
    fn choose(&mut self, inner: &Inner<L>) -> usize;
}

/// To the leaf of a position; what is left of it is the index in the leaf.
struct ByPosition {
    position: usize,
    /// Elements below the node that is looked at.
    total: usize,
}

impl<L: Leaf> Route<L> for ByPosition {
    #[inline]
    fn choose(&mut self, Inner { children, .. }: &Inner<L>) -> usize {
        // From the nearer end: most edits of lists are at one.
        if self.position < self.total / 2 {
            for (i, child) in children.iter().enumerate() {
                if self.position < child.count {
                    self.total = child.count;
                    return i;
                }
                self.position -= child.count;
            }
        }
        let mut begin = self.total;
        for (i, child) in children.iter().enumerate().skip(1).rev() {
            begin -= child.count;
            if self.position >= begin {
                self.position -= begin;
                self.total = child.count;
                return i;
            }
        }
        self.total = begin;
        0
    }
}

/// To the last leaf whose separator `covers` the key; counts the elements before it.
struct ByKey<F> {
    covers: F,
    before: usize,
}

impl<L: Leaf, F: FnMut(&L::Sep) -> bool> Route<L> for ByKey<F> {
    #[inline]
    fn choose(&mut self, inner: &Inner<L>) -> usize {
        let i = inner.seps[1..].partition_point(|sep| (self.covers)(sep));
        self.before += inner.children[..i].iter().map(|child| child.count).sum::<usize>();
        i
    }
}

/// The same for those who do not ask what is before.
struct ByKeyOnly<F>(F);

impl<L: Leaf, F: FnMut(&L::Sep) -> bool> Route<L> for ByKeyOnly<F> {
    #[inline]
    fn choose(&mut self, inner: &Inner<L>) -> usize {
        inner.seps[1..].partition_point(|sep| (self.0)(sep))
    }
}

/// What an edit did to the node it went through, without a new right neighbour.
#[derive(Clone, Copy)]
struct Change {
    count: isize,
    bytes: isize,
}

/// A counted, ordered collection of leaves. Clones share what they have in common.
#[derive(Clone, Debug)]
pub struct Tree<L: Leaf> {
    root: Arc<Node<L>>,
    len: usize,
    heap_bytes: usize,
}

impl<L: Leaf> Tree<L> {
    /// A tree of one leaf.
    pub fn new(leaf: L) -> Self {
        let (len, heap_bytes) = (leaf.len(), NODE_BYTES + leaf.heap_bytes());
        Self { root: Arc::new(Node::Leaf(leaf)), len, heap_bytes }
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of all nodes. What clones share is counted in each.
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// Whether two trees are the same nodes: neither has changed since one was cloned.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    fn leaf_by(&self, route: &mut impl Route<L>) -> &L {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = &inner.children[route.choose(inner)].node,
            }
        }
    }

    /// The leaf of a position, and the index in it. At or beyond the end: the last leaf, and an index
    /// at or beyond its length.
    ///
    /// # Complexity
    /// O(log n). A walk over all leaves goes from `position - index + leaf.len()` to the next.
    #[inline]
    pub fn leaf_at(&self, position: usize) -> (&L, usize) {
        let mut route = ByPosition { position, total: self.len };
        let leaf = self.leaf_by(&mut route);
        (leaf, route.position)
    }

    /// The leaf where a key belongs, and the number of elements before that leaf. `covers` tells for
    /// a separator whether it is at or below the key.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn leaf_of(&self, covers: impl FnMut(&L::Sep) -> bool) -> (&L, usize) {
        let mut route = ByKey { covers, before: 0 };
        let leaf = self.leaf_by(&mut route);
        (leaf, route.before)
    }

    /// The leaf where a key belongs.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn leaf_for(&self, covers: impl FnMut(&L::Sep) -> bool) -> &L {
        self.leaf_by(&mut ByKeyOnly(covers))
    }

    /// Changes the leaf where a key belongs.
    ///
    /// # Complexity
    /// As [`edit_at`](Self::edit_at).
    #[inline]
    pub fn edit_for<R>(
        &mut self,
        covers: impl FnMut(&L::Sep) -> bool,
        edit: impl FnOnce(&mut L) -> R,
    ) -> R {
        self.edit_by(&mut ByKeyOnly(covers), |leaf, _| edit(leaf))
    }

    /// Changes the leaf of a position; `edit` gets the leaf and the index in it.
    ///
    /// # Complexity
    /// O(log n), and a copy of each node on the way that is shared.
    #[inline]
    pub fn edit_at<R>(&mut self, position: usize, edit: impl FnOnce(&mut L, usize) -> R) -> R {
        let mut route = ByPosition { position, total: self.len };
        self.edit_by(&mut route, |leaf, route| edit(leaf, route.position))
    }

    /// Changes the leaf where a key belongs; `edit` gets the leaf and the number of elements before.
    ///
    /// # Complexity
    /// As [`edit_at`](Self::edit_at).
    #[inline]
    pub fn edit_of<R>(
        &mut self,
        covers: impl FnMut(&L::Sep) -> bool,
        edit: impl FnOnce(&mut L, usize) -> R,
    ) -> R {
        self.edit_by(&mut ByKey { covers, before: 0 }, |leaf, route| edit(leaf, route.before))
    }

    fn edit_by<T: Route<L>, R>(
        &mut self,
        route: &mut T,
        edit: impl FnOnce(&mut L, &mut T) -> R,
    ) -> R {
        let mut split = None;
        let (result, change) = edit_node(&mut self.root, route, edit, &mut split);
        self.len = self.len.wrapping_add_signed(change.count);
        self.heap_bytes = self.heap_bytes.wrapping_add_signed(change.bytes);
        if let Some(right) = split {
            self.grow_root(right);
        } else if change.count < 0 {
            self.shrink_root();
        }
        result
    }

    fn grow_root(&mut self, right: Split<L>) {
        let left = Child {
            count: self.len - right.child.count,
            bytes: self.heap_bytes - right.child.bytes,
            node: self.root.clone(),
        };
        // The first is never compared: it means nothing.
        let seps = [right.sep.clone(), right.sep].into();
        let inner = Inner { seps, children: [left, right.child].into() };
        self.heap_bytes += NODE_BYTES + inner.bytes();
        self.root = Arc::new(Node::Inner(inner));
    }

    fn shrink_root(&mut self) {
        while let Node::Inner(inner) = &*self.root
            && let [only] = &inner.children[..]
        {
            self.heap_bytes -= NODE_BYTES + inner.bytes();
            self.root = only.node.clone();
        }
    }

    /// Removes the elements from `from` to `to` (exclusive). Whole nodes go to `trash`, unseen; `cut`
    /// removes a range of indices from a leaf at either end.
    ///
    /// # Complexity
    /// O(log n) for any range; freeing is [`Trash::step`]'s.
    pub fn remove_range(
        &mut self,
        from: usize,
        to: usize,
        trash: &mut Trash<L>,
        mut cut: impl FnMut(&mut L, usize, usize),
    ) {
        let to = to.min(self.len);
        if from >= to {
            return;
        }
        if to - from == self.len {
            let gone = std::mem::replace(self, Self::new(L::default()));
            trash.nodes.push(gone.root.clone());
            return;
        }
        let removed = remove_range(&mut self.root, from, to, &mut trash.nodes, &mut cut);
        self.len -= to - from;
        self.heap_bytes = self.heap_bytes.wrapping_add_signed(removed);
        self.shrink_root();
    }

    /// Gives up the whole tree to be freed in steps.
    pub fn into_trash(self) -> Trash<L> {
        // One more holder: nothing is freed when `self` goes.
        Trash { nodes: vec![self.root.clone()] }
    }
}

impl<L: Leaf> Drop for Tree<L> {
    fn drop(&mut self) {
        // What others share is theirs to free. (Two who let go in the same instant may both believe
        // that: then the later one frees all of it at once.)
        if self.heap_bytes >= LAZY_BYTES_MIN && Arc::is_unique(&self.root) {
            yard::leave(Trash { nodes: vec![self.root.clone()] });
        }
    }
}

/// Memory of a node without what is below. To be asked before it is made one's own: a copy has other
/// capacities.
fn own_bytes<L: Leaf>(node: &Node<L>) -> usize {
    match node {
        Node::Leaf(leaf) => leaf.heap_bytes(),
        Node::Inner(inner) => inner.bytes(),
    }
}

/// Edits the leaf that `route` leads to. A new right neighbour of the node is left in `split`, which
/// holds none before: apart, since nearly all edits make none.
fn edit_node<L: Leaf, T: Route<L>, R>(
    node: &mut Arc<Node<L>>,
    route: &mut T,
    edit: impl FnOnce(&mut L, &mut T) -> R,
    split: &mut Option<Split<L>>,
) -> (R, Change) {
    if let Node::Leaf(leaf) = &**node {
        // Before it is made one's own: a copy may take another size. One of an inner node does not.
        let before = leaf.heap_bytes();
        let Node::Leaf(leaf) = Arc::make_mut(node) else {
            unreachable!("it was a leaf a moment ago");
        };
        return edit_leaf(leaf, before, |leaf| edit(leaf, route), split);
    }
    let Node::Inner(inner) = Arc::make_mut(node) else {
        unreachable!("it was no leaf a moment ago");
    };
    let i = route.choose(inner);
    let child = &mut inner.children[i];
    let (result, mut change) = edit_node(&mut child.node, route, edit, split);
    child.count = child.count.wrapping_add_signed(change.count);
    child.bytes = child.bytes.wrapping_add_signed(change.bytes);
    if split.is_some() || change.count < 0 {
        change.bytes += mend(inner, i, change, split);
    }
    (result, change)
}

/// Takes in the new right neighbour of child `i` of an inner node, or looks whether the child has
/// become too small. Returns the change in memory.
#[inline(never)]
fn mend<L: Leaf>(
    inner: &mut Inner<L>,
    i: usize,
    change: Change,
    split: &mut Option<Split<L>>,
) -> isize {
    let len = inner.len();
    let mut bytes = 0;
    if let Some(right) = split.take() {
        let child = &mut inner.children[i];
        child.count -= right.child.count;
        child.bytes -= right.child.bytes;
        inner.insert(i + 1, right);
    } else if change.count < 0 {
        bytes += tidy(inner, i);
    }
    if inner.len() > CHILDREN_MAX {
        let upper = inner.split(i + 1);
        let Node::Inner(parted) = &*upper.child.node else {
            unreachable!("an inner node parts into inner nodes");
        };
        bytes += (NODE_BYTES + parted.bytes()) as isize;
        *split = Some(upper);
    }
    if inner.len() == len {
        return bytes;
    }
    bytes + inner.bytes() as isize - Inner::<L>::bytes_of(len) as isize
}

#[inline]
fn edit_leaf<L: Leaf, R>(
    leaf: &mut L,
    bytes: usize,
    edit: impl FnOnce(&mut L) -> R,
    split: &mut Option<Split<L>>,
) -> (R, Change) {
    let (count, bytes) = (leaf.len() as isize, bytes as isize);
    let result = edit(leaf);
    let mut change =
        Change { count: leaf.len() as isize - count, bytes: leaf.heap_bytes() as isize - bytes };
    if leaf.is_over() {
        change.bytes += split_leaf(leaf, split);
    }
    (result, change)
}

/// Cuts a leaf. Returns the change in memory.
#[cold]
fn split_leaf<L: Leaf>(leaf: &mut L, split: &mut Option<Split<L>>) -> isize {
    let before = leaf.heap_bytes();
    let (sep, right) = leaf.split();
    let bytes = NODE_BYTES + right.heap_bytes();
    let count = right.len();
    let child = Child { count, bytes, node: Arc::new(Node::Leaf(right)) };
    *split = Some(Split { sep, child });
    (leaf.heap_bytes() + bytes) as isize - before as isize
}

/// Drops child `i` if it is empty, or joins it with a neighbour if it is sparse. Returns the change
/// in memory.
fn tidy<L: Leaf>(inner: &mut Inner<L>, i: usize) -> isize {
    if inner.children[i].count == 0 {
        if inner.len() > 1 {
            let gone = inner.remove(i);
            return -(gone.bytes as isize);
        }
        return 0;
    }
    let sparse = match &*inner.children[i].node {
        Node::Leaf(leaf) => leaf.is_sparse(),
        Node::Inner(below) => below.len() < CHILDREN_MAX / 4,
    };
    if !sparse {
        return 0;
    }
    let mut change = 0;
    for left in [i, i.wrapping_sub(1)] {
        if left < inner.len().saturating_sub(1) {
            let (joined, bytes) = join(inner, left);
            change += bytes;
            if joined {
                break;
            }
        }
    }
    change
}

/// Joins child `left` and the one behind it, if they fit. Whether it did, and the change in memory.
fn join<L: Leaf>(inner: &mut Inner<L>, left: usize) -> (bool, isize) {
    let (sep, right) = (inner.seps[left + 1].clone(), inner.children[left + 1].node.clone());
    let before = own_bytes(&inner.children[left].node);
    let node = Arc::make_mut(&mut inner.children[left].node);
    let moved = match (&mut *node, &*right) {
        (Node::Leaf(leaf), Node::Leaf(next)) => leaf.absorb(next).then_some(0),
        (Node::Inner(below), Node::Inner(next))
            if below.len() + next.len() <= CHILDREN_MAX * 3 / 4 =>
        {
            Some(below.append(next, sep))
        }
        // They do not fit. (All leaves are equally deep: the two are of a kind.)
        _ => None,
    };
    let mut change = own_bytes(node) as isize - before as isize + moved.unwrap_or(0) as isize;
    let child = &mut inner.children[left];
    child.bytes = child.bytes.wrapping_add_signed(change);
    if moved.is_some() {
        let gone = inner.remove(left + 1);
        inner.children[left].count += gone.count;
        change -= gone.bytes as isize;
    }
    (moved.is_some(), change)
}

/// Removes a part of what is below `node`, not all of it. Returns the change in memory.
fn remove_range<L: Leaf>(
    node: &mut Arc<Node<L>>,
    from: usize,
    to: usize,
    trash: &mut Vec<Arc<Node<L>>>,
    cut: &mut impl FnMut(&mut L, usize, usize),
) -> isize {
    let before = own_bytes(node);
    match Arc::make_mut(node) {
        Node::Leaf(leaf) => {
            cut(leaf, from, to);
            leaf.heap_bytes() as isize - before as isize
        }
        Node::Inner(inner) => {
            let (mut begin, mut gone) = (0, None);
            let mut change = -(before as isize);
            for (i, child) in inner.children.iter_mut().enumerate() {
                let end = begin + child.count;
                let low = from.max(begin) - begin;
                let high = to.min(end).saturating_sub(begin);
                begin = end;
                if low >= high {
                    continue;
                }
                if high - low == child.count {
                    change -= child.bytes as isize;
                    trash.push(child.node.clone());
                    let first = gone.map_or(i, |gone: std::ops::Range<usize>| gone.start);
                    gone = Some(first..i + 1);
                    continue;
                }
                let below = remove_range(&mut child.node, low, high, trash, cut);
                child.count -= high - low;
                child.bytes = child.bytes.wrapping_add_signed(below);
                change += below;
            }
            // What goes lies side by side.
            if let Some(gone) = gone {
                as_vec(&mut inner.seps, |seps| drop(seps.drain(gone.clone())));
                as_vec(&mut inner.children, |children| drop(children.drain(gone)));
            }
            change + inner.bytes() as isize
        }
    }
}

/// Nodes on their way to be freed.
#[derive(Debug)]
pub struct Trash<L: Leaf> {
    nodes: Vec<Arc<Node<L>>>,
}

impl<L: Leaf> Default for Trash<L> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<L: Leaf> Trash<L> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Frees about one node. `false` when there is nothing left.
    pub fn step(&mut self) -> bool {
        let Some(node) = self.nodes.pop() else {
            return false;
        };
        // A node that somebody else shares is theirs to free.
        if let Some(Node::Inner(inner)) = Arc::into_unique(node).map(UniqueArc::into_inner) {
            self.nodes.extend(inner.children.into_vec().into_iter().map(|child| child.node));
        }
        true
    }
}

impl<L: Leaf> Remains for Trash<L> {
    fn step(&mut self) -> bool {
        Self::step(self)
    }
}

impl<L: Leaf> Drop for Trash<L> {
    fn drop(&mut self) {
        let is_inner = |node: &Arc<Node<L>>| matches!(**node, Node::Inner(_));
        if self.nodes.len() >= LAZY_NODES_MIN || self.nodes.iter().any(is_inner) {
            yard::leave(Self { nodes: std::mem::take(&mut self.nodes) });
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
