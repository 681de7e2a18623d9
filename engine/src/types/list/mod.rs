//! Lists.
//!
//! A list is packed while it is small: a run of elements ([`leaf`]) and their number, in two bytes
//! at the end. Above it is a tree of such runs. Both can be walked from either end, and a tree
//! finds a position without walking.

pub mod leaf;
#[cfg(test)]
mod tests;

pub use leaf::{End, ListLeaf, Needle, Run};

use crate::types::pack::Item;
use crate::types::tree::{Leaf, Tree};
use crate::types::{Collection, Object, Packed, Trash, Type};

/// Packed lists are at most this long: each change copies them.
const PACKED_BYTES_MAX: usize = 1024;
/// The number of elements, behind them.
const COUNT_BYTES: usize = 2;

/// A list.
#[derive(Clone, Debug)]
pub enum List {
    /// Elements in the entry, or in a buffer of their own, and their number. Nothing at all if none
    /// is left.
    Packed(Vec<u8>),
    /// A tree of leaves.
    Tree(Tree<ListLeaf>),
}

/// A view of a list.
#[derive(Clone, Copy, Debug)]
pub enum ListView<'a> {
    /// Packed elements.
    Packed(&'a [u8]),
    /// A tree of leaves.
    Tree(&'a Tree<ListLeaf>),
}

/// Changes packed elements as a leaf.
#[inline]
fn as_leaf<R>(bytes: &mut Vec<u8>, edit: impl FnOnce(&mut ListLeaf) -> R) -> R {
    let mut buffer = std::mem::take(bytes);
    let count = packed_run(&buffer).len();
    buffer.truncate(buffer.len().saturating_sub(COUNT_BYTES));
    let mut leaf = ListLeaf::of_buffer(buffer, count);
    let result = edit(&mut leaf);
    let count = leaf.len();
    *bytes = leaf.into_buffer();
    if count > 0 {
        bytes.extend_from_slice(&(count as u16).to_le_bytes());
    }
    result
}

/// Changes a leaf of a tree in a way that may leave much of it free.
#[inline]
fn edit_leaf<R>(
    tree: &mut Tree<ListLeaf>,
    position: usize,
    edit: impl FnOnce(&mut ListLeaf, usize) -> R,
) -> R {
    tree.edit_at(position, |leaf, index| {
        let result = edit(leaf, index);
        leaf.shrink();
        result
    })
}

#[inline]
fn packed_run(bytes: &[u8]) -> Run<'_> {
    match bytes.split_last_chunk() {
        Some((data, count)) => Run::new(data, usize::from(u16::from_le_bytes(*count))),
        None => Run::new(&[], 0),
    }
}

impl<'a> ListView<'a> {
    /// Number of elements.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Packed(bytes) => packed_run(bytes).len(),
            Self::Tree(tree) => tree.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The run that holds the element at `position`, and its index there. At or beyond the end: the
    /// last run, and an index at or beyond its length.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn run_at(self, position: usize) -> (Run<'a>, usize) {
        match self {
            Self::Packed(bytes) => (packed_run(bytes), position),
            Self::Tree(tree) => {
                let (leaf, index) = tree.leaf_at(position);
                (leaf.run(), index)
            }
        }
    }

    /// The element at `position`.
    ///
    /// # Complexity
    /// O(log n) and a walk within a leaf.
    pub fn get(self, position: usize) -> Option<Item<'a>> {
        let (run, index) = self.run_at(position);
        run.get(index)
    }

    /// Shows the elements from `from` to `to` (exclusive) to `visit`, in order.
    #[inline]
    pub fn for_each(self, from: usize, to: usize, mut visit: impl FnMut(Item<'a>)) {
        let mut position = from;
        while position < to {
            let (run, index) = self.run_at(position);
            let take = run.len().saturating_sub(index).min(to - position);
            if take == 0 {
                return;
            }
            run.items_from(index).take(take).for_each(&mut visit);
            position += take;
        }
    }

    /// The same from the last to the first.
    pub fn for_each_back(self, from: usize, to: usize, mut visit: impl FnMut(Item<'a>)) {
        let mut end = to.min(self.len());
        while end > from {
            let (run, index) = self.run_at(end - 1);
            let take = (index + 1).min(end - from);
            run.items_back_from(index).take(take).for_each(&mut visit);
            end -= take;
        }
    }

    /// An owned copy: O(1) for a tree.
    pub fn to_list(self) -> List {
        match self {
            Self::Packed(bytes) => List::Packed(bytes.to_vec()),
            Self::Tree(tree) => List::Tree(tree.clone()),
        }
    }

    /// Memory of an element, on average.
    #[inline]
    pub fn mean_bytes(self) -> usize {
        match self {
            Self::Packed(bytes) => bytes.len() / self.len().max(1),
            Self::Tree(tree) => tree.heap_bytes() / tree.len().max(1),
        }
    }

    /// Whether both are the same, unchanged: the same tree, or equal packed bytes.
    pub fn is_same(self, other: ListView<'_>) -> bool {
        match (self, other) {
            (Self::Packed(one), ListView::Packed(two)) => one == two,
            (Self::Tree(one), ListView::Tree(two)) => one.is_same(two),
            _ => false,
        }
    }
}

impl List {
    /// A list of these elements.
    pub fn of_elements<'w>(items: impl Iterator<Item = &'w [u8]>) -> Self {
        let mut list = Self::new();
        list.extend(End::Back, items);
        list
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether it has no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory behind it.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(bytes) => crate::store::entry::size_class(bytes.capacity()),
            Self::Tree(tree) => tree.heap_bytes(),
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        Packed::List.encoding()
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash {
        match self {
            Self::Packed(_) => Trash::default(),
            Self::Tree(tree) => Trash { lists: tree.into_trash(), ..Trash::default() },
        }
    }

    /// Adds elements at an end, one after the other: at the front they end up in reverse.
    ///
    /// # Complexity
    /// O(log n) for every leaf that is filled.
    #[inline]
    pub fn extend<'w>(&mut self, end: End, mut items: impl Iterator<Item = &'w [u8]>) {
        let mut next = items.next();
        if let Self::Packed(bytes) = self {
            as_leaf(bytes, |leaf| {
                while let Some(word) = next {
                    let item = Item::new(word);
                    if leaf.byte_len() + leaf::framed_len(item) > PACKED_BYTES_MAX {
                        break;
                    }
                    leaf.insert(if end == End::Front { 0 } else { leaf.len() }, item);
                    next = items.next();
                }
            });
        }
        while next.is_some() {
            let tree = self.grow();
            let position = if end == End::Front { 0 } else { tree.len() };
            tree.edit_at(position, |leaf, _| {
                while let Some(word) = next {
                    leaf.push(end, Item::new(word));
                    next = items.next();
                    if !leaf.has_room() {
                        break;
                    }
                }
            });
        }
    }

    /// Adds an element at an end.
    #[inline]
    pub fn push(&mut self, end: End, element: &[u8]) {
        self.extend(end, std::iter::once(element));
    }

    /// The tree, made if there is none yet.
    #[inline]
    fn grow(&mut self) -> &mut Tree<ListLeaf> {
        if let Self::Packed(bytes) = self {
            let run = packed_run(bytes);
            *self = Self::Tree(Tree::new(ListLeaf::of(run.data(), run.len())));
        }
        match self {
            Self::Tree(tree) => tree,
            Self::Packed(_) => unreachable!("it has just become a tree"),
        }
    }

    /// Removes the element at an end, after `take` has seen it.
    ///
    /// # Complexity
    /// O(log n)
    #[inline]
    pub fn pop<R>(&mut self, end: End, take: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        match self {
            Self::Packed(bytes) => as_leaf(bytes, |leaf| leaf.pop(end, take)),
            Self::Tree(tree) => {
                let position = if end == End::Front { 0 } else { tree.len().saturating_sub(1) };
                edit_leaf(tree, position, |leaf, _| leaf.pop(end, take))
            }
        }
    }

    /// Puts an element before the one at `position`, or behind the last one.
    pub fn insert(&mut self, position: usize, element: &[u8]) {
        if position == 0 || position >= self.len() {
            return self.push(if position == 0 { End::Front } else { End::Back }, element);
        }
        let item = Item::new(element);
        if let Self::Packed(bytes) = self
            && bytes.len() + leaf::framed_len(item) <= PACKED_BYTES_MAX
        {
            return as_leaf(bytes, |leaf| leaf.insert(position, item));
        }
        self.grow().edit_at(position, |leaf, index| leaf.insert(index, item));
    }

    /// Replaces the element at `position`, which is there.
    pub fn set(&mut self, position: usize, element: &[u8]) {
        let item = Item::new(element);
        if let Self::Packed(bytes) = self
            && bytes.len() + leaf::framed_len(item) <= PACKED_BYTES_MAX
        {
            return as_leaf(bytes, |leaf| leaf.set(position, item));
        }
        edit_leaf(self.grow(), position, |leaf, index| leaf.set(index, item));
    }

    /// Removes the elements from position `from` to `to` (exclusive). Whole leaves go to the trash.
    ///
    /// # Complexity
    /// O(log n)
    pub fn remove_range(&mut self, from: usize, to: usize) -> Trash {
        let to = to.min(self.len());
        let mut trash = Trash::default();
        if from < to {
            match self {
                Self::Packed(bytes) => as_leaf(bytes, |leaf| leaf.remove(from, to)),
                Self::Tree(tree) => {
                    tree.remove_range(from, to, &mut trash.lists, |leaf, from, to| {
                        leaf.remove(from, to);
                        leaf.shrink();
                    });
                }
            }
        }
        trash
    }

    /// Removes up to `limit` elements equal to `needle` of one leaf, from `position` to its
    /// end. Returns how many, and how many elements stay between `position` and what was not
    /// looked at.
    ///
    /// # Complexity
    /// O(log n) and one leaf.
    pub fn remove_equal(
        &mut self,
        needle: &Needle,
        position: usize,
        limit: usize,
    ) -> (usize, usize) {
        let (run, index) = self.view().run_at(position);
        let left = run.len().saturating_sub(index);
        // A leaf without a match is not touched: it may be shared.
        let Some(first) = run.find(needle, index) else {
            return (0, left);
        };
        let removed = match self {
            Self::Packed(bytes) => as_leaf(bytes, |leaf| leaf.remove_equal(needle, first, limit)),
            Self::Tree(tree) => {
                edit_leaf(tree, position, |leaf, _| leaf.remove_equal(needle, first, limit))
            }
        };
        (removed, left - removed)
    }

    /// The same from `position` towards the front. Returns how many were removed, and the position
    /// of the first element that was looked at.
    pub fn remove_equal_back(
        &mut self,
        needle: &Needle,
        position: usize,
        limit: usize,
    ) -> (usize, usize) {
        let (run, index) = self.view().run_at(position);
        let first = position - index;
        let Some(last) = run.find_back(needle, index) else {
            return (0, first);
        };
        let remove = |leaf: &mut ListLeaf| leaf.remove_equal_back(needle, last, limit);
        let removed = match self {
            Self::Packed(bytes) => as_leaf(bytes, remove),
            Self::Tree(tree) => edit_leaf(tree, position, |leaf, _| remove(leaf)),
        };
        (removed, first)
    }
}

impl Collection for List {
    type View<'a> = ListView<'a>;

    const TYPE: Type = Type::List;

    fn new() -> Self {
        Self::Packed(Vec::new())
    }

    fn from_packed(packed: Packed, bytes: Vec<u8>) -> Option<Self> {
        (packed == Packed::List).then_some(Self::Packed(bytes))
    }

    fn packed(&self) -> Option<(Packed, &[u8])> {
        match self {
            Self::Packed(bytes) => Some((Packed::List, bytes)),
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
        self.len() == 0
    }

    fn view_packed(packed: Packed, bytes: &[u8]) -> Option<ListView<'_>> {
        (packed == Packed::List).then_some(ListView::Packed(bytes))
    }

    fn view(&self) -> ListView<'_> {
        match self {
            Self::Packed(bytes) => ListView::Packed(bytes),
            Self::Tree(tree) => ListView::Tree(tree),
        }
    }

    fn into_object(self) -> Object {
        Object::List(self)
    }

    fn of(object: &Object) -> Option<&Self> {
        match object {
            Object::List(this) => Some(this),
            _ => None,
        }
    }

    fn of_mut(object: &mut Object) -> Option<&mut Self> {
        match object {
            Object::List(this) => Some(this),
            _ => None,
        }
    }
}
