//! Elements of a list side by side, each followed by its own length, so that they can be walked
//! from both ends; and the leaf of big lists, which has room at the end where a list grows.
//!
//! | bytes | what |
//! |---|---|
//! | n | the element, as in [`pack`] |
//! | 1 and more | n, seven bits a byte, the highest first; the high bit: one more lies before |

use crate::store::entry::size_class;
use crate::types::pack::{self, Item};
use crate::types::tree::Leaf;

/// Bytes of elements that a leaf should hold.
pub const LEAF_BYTES: usize = 8 * 1024;
/// Below this a leaf looks for a neighbour to join.
const SPARSE_BYTES: usize = LEAF_BYTES / 8;
/// Two leaves become one up to this size: more may come.
const JOINED_BYTES_MAX: usize = LEAF_BYTES / 2;
/// A buffer up to this size is kept when most of it is free.
const SMALL_BUFFER_BYTES: usize = 512;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Before the first element: `LEFT`.
    Front,
    /// Behind the last element: `RIGHT`.
    Back,
}

/// Bytes that the length of an element takes behind it.
#[inline]
const fn back_len(element_len: usize) -> usize {
    match element_len {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

/// Bytes that an element takes in a run.
#[inline]
pub fn framed_len(item: Item<'_>) -> usize {
    let len = item.encoded_len();
    len + back_len(len)
}

/// Appends an element of `framed` bytes.
#[inline]
fn append_framed(item: Item<'_>, framed: usize, out: &mut Vec<u8>) {
    if framed <= 0x80 {
        item.encode(out);
        // Its length, in the one byte that is left.
        return out.push((framed - 1) as u8);
    }
    let at = out.len();
    out.resize(at + framed, 0);
    frame_to(item, framed, &mut out[at..]);
}

/// Writes an element of `framed` bytes to the front of `out`.
#[inline]
fn frame_to(item: Item<'_>, framed: usize, out: &mut [u8]) {
    let len = item.encode_to(out);
    let mut rest = len;
    for at in (len..framed).rev() {
        out[at] = (rest & 0x7f) as u8 | if at > len { 0x80 } else { 0 };
        rest >>= 7;
    }
}

/// Where the element behind the one at `at` begins.
#[inline]
fn step_on(data: &[u8], at: usize) -> usize {
    let len = pack::skip(data, at);
    at + len + back_len(len)
}

/// Where the element that ends before `end` begins.
#[inline]
fn step_back(data: &[u8], end: usize) -> usize {
    let last = data[end - 1];
    let mut len = usize::from(last & 0x7f);
    let mut back = 1;
    if last & 0x80 != 0 {
        loop {
            let byte = data[end - 1 - back];
            len |= usize::from(byte & 0x7f) << (7 * back);
            back += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    end - back - len
}

/// An element to look for, encoded once.
#[derive(Clone, Debug)]
pub struct Needle(Vec<u8>);

impl Needle {
    /// The element of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let item = Item::new(bytes);
        let mut encoded = Vec::with_capacity(item.encoded_len());
        item.encode(&mut encoded);
        Self(encoded)
    }

    /// Whether it is the element at `at`: no encoding is the beginning of another.
    #[inline]
    fn is_at(&self, data: &[u8], at: usize) -> bool {
        data[at..].starts_with(&self.0)
    }
}

/// Elements that lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    data: &'a [u8],
    count: usize,
}

impl<'a> Run<'a> {
    /// The `count` elements of `data`.
    #[inline]
    pub(super) const fn new(data: &'a [u8], count: usize) -> Self {
        Self { data, count }
    }

    /// Number of elements.
    #[inline]
    pub const fn len(self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The bytes, framed.
    pub(super) const fn data(self) -> &'a [u8] {
        self.data
    }

    /// Where element `index` begins; the end if there are fewer.
    ///
    /// # Complexity
    /// O(n) from the nearer end.
    fn offset_of(self, index: usize) -> usize {
        if index <= self.count / 2 {
            return (0..index).fold(0, |at, _| step_on(self.data, at));
        }
        let back = self.count.saturating_sub(index);
        (0..back).fold(self.data.len(), |at, _| step_back(self.data, at))
    }

    /// Element `index`, if there is one.
    pub fn get(self, index: usize) -> Option<Item<'a>> {
        self.items_from(index).next()
    }

    /// The elements from `index` on.
    #[inline]
    pub fn items_from(self, index: usize) -> Items<'a> {
        Items { data: self.data, at: self.offset_of(index) }
    }

    /// The elements from `index` on, towards the front.
    #[inline]
    pub fn items_back_from(self, index: usize) -> ItemsBack<'a> {
        ItemsBack { data: self.data, end: self.offset_of((index + 1).min(self.count)) }
    }

    /// The first place of an element at or behind `index`.
    pub fn find(self, needle: &Needle, index: usize) -> Option<usize> {
        let mut at = self.offset_of(index);
        for found in index..self.count {
            if needle.is_at(self.data, at) {
                return Some(found);
            }
            at = step_on(self.data, at);
        }
        None
    }

    /// The last place of an element at or before `index`.
    pub fn find_back(self, needle: &Needle, index: usize) -> Option<usize> {
        let mut at = self.offset_of((index + 1).min(self.count));
        for found in (0..(index + 1).min(self.count)).rev() {
            at = step_back(self.data, at);
            if needle.is_at(self.data, at) {
                return Some(found);
            }
        }
        None
    }
}

/// Elements towards the back.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;
    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.at >= self.data.len() {
            return None;
        }
        let (item, end) = pack::decode(self.data, self.at);
        self.at = end + back_len(end - self.at);
        Some(item)
    }
}

/// Elements towards the front.
#[derive(Clone, Debug)]
pub struct ItemsBack<'a> {
    data: &'a [u8],
    end: usize,
}

impl<'a> Iterator for ItemsBack<'a> {
    type Item = Item<'a>;
    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.end == 0 {
            return None;
        }
        self.end = step_back(self.data, self.end);
        Some(pack::decode(self.data, self.end).0)
    }
}

/// Where the last element came in: where an overfull leaf is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Grown {
    Front,
    #[default]
    Back,
    Middle,
}

/// A run of elements that can grow at both ends.
///
/// Invariant: the elements are `data[begin..]`, and there are `count` of them.
#[derive(Debug, Default)]
pub struct ListLeaf {
    data: Vec<u8>,
    begin: u32,
    count: u32,
    grown: Grown,
}

impl Clone for ListLeaf {
    /// Without the room at the front.
    fn clone(&self) -> Self {
        Self::of(self.run().data, self.len())
    }
}

impl ListLeaf {
    /// A leaf of `count` elements, in a buffer that fits.
    pub(super) fn of(framed: &[u8], count: usize) -> Self {
        let mut data = Vec::new();
        if !framed.is_empty() {
            data.reserve_exact(size_class(framed.len()));
            data.extend_from_slice(framed);
        }
        Self::of_buffer(data, count)
    }

    /// A leaf around a buffer.
    pub(super) fn of_buffer(data: Vec<u8>, count: usize) -> Self {
        Self { data, begin: 0, count: count as u32, grown: Grown::Back }
    }

    /// The buffer, which holds the elements and nothing else.
    pub(super) fn into_buffer(mut self) -> Vec<u8> {
        self.data.drain(..self.begin as usize);
        self.data
    }

    /// The elements.
    #[inline]
    pub fn run(&self) -> Run<'_> {
        Run::new(&self.data[self.begin as usize..], self.count as usize)
    }

    /// Bytes of the elements.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.data.len() - self.begin as usize
    }

    /// Whether there is room for an element more, of whatever size.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.byte_len() < LEAF_BYTES
    }

    /// Adds an element at an end. Growing at one end moves the other elements now and then only.
    #[inline]
    pub fn push(&mut self, end: End, item: Item<'_>) {
        let framed = framed_len(item);
        match end {
            End::Front => {
                if (self.begin as usize) < framed {
                    self.make_room_in_front(framed);
                }
                let end = self.begin as usize;
                self.begin -= framed as u32;
                self.grown = Grown::Front;
                frame_to(item, framed, &mut self.data[end - framed..end]);
            }
            End::Back => {
                self.make_room_behind(framed);
                self.grown = Grown::Back;
                append_framed(item, framed, &mut self.data);
            }
        }
        self.count += 1;
    }

    /// Removes the element at an end, after `take` has seen it. `None` if there is none.
    #[inline]
    pub fn pop<R>(&mut self, end: End, take: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        if self.count == 0 {
            return None;
        }
        let result = match end {
            End::Front => {
                let begin = self.begin as usize;
                let (item, end) = pack::decode(&self.data, begin);
                self.begin = (end + back_len(end - begin)) as u32;
                take(item)
            }
            End::Back => {
                let at = step_back(&self.data, self.data.len());
                let result = take(pack::decode(&self.data, at).0);
                self.data.truncate(at);
                result
            }
        };
        self.count -= 1;
        Some(result)
    }

    /// Puts an element before the one at `index`, or behind the last one.
    pub fn insert(&mut self, index: usize, item: Item<'_>) {
        let at = self.run().offset_of(index);
        self.grown = match index {
            _ if index == self.len() => Grown::Back,
            0 => Grown::Front,
            _ => Grown::Middle,
        };
        self.splice(at, at, item);
        self.count += 1;
    }

    /// Replaces the element at `index`, which is there.
    pub fn set(&mut self, index: usize, item: Item<'_>) {
        let from = self.run().offset_of(index);
        let to = step_on(self.run().data, from);
        self.grown = Grown::Middle;
        self.splice(from, to, item);
    }

    /// Puts an element in the place of the bytes from `from` to `to` behind `begin`.
    fn splice(&mut self, from: usize, to: usize, item: Item<'_>) {
        let framed = framed_len(item);
        if framed > to - from {
            self.make_room_behind(framed - (to - from));
        }
        let begin = self.begin as usize;
        let (from, to, old_len) = (begin + from, begin + to, self.data.len());
        if from == old_len {
            return append_framed(item, framed, &mut self.data);
        }
        let len = old_len + framed - (to - from);
        self.data.resize(len.max(old_len), 0);
        self.data.copy_within(to..old_len, from + framed);
        self.data.truncate(len);
        frame_to(item, framed, &mut self.data[from..from + framed]);
    }

    /// Removes the elements from index `from` to `to` (exclusive).
    pub fn remove(&mut self, from: usize, to: usize) {
        let run = self.run();
        let (first, last) = (run.offset_of(from), run.offset_of(to));
        let begin = self.begin as usize;
        self.count -= (to - from) as u32;
        if from == 0 {
            self.begin += last as u32;
        } else {
            self.data.drain(begin + first..begin + last);
        }
    }

    /// Removes up to `limit` elements equal to `needle`, from index `index` towards the back.
    /// Returns how many.
    ///
    /// # Complexity
    /// O(n): what stays moves once.
    pub(super) fn remove_equal(&mut self, needle: &Needle, index: usize, limit: usize) -> usize {
        let begin = self.begin as usize;
        let mut at = begin + self.run().offset_of(index);
        let mut kept_end = at;
        let mut removed = 0;
        while at < self.data.len() && removed < limit {
            let next = step_on(&self.data, at);
            if needle.is_at(&self.data, at) {
                removed += 1;
            } else {
                self.data.copy_within(at..next, kept_end);
                kept_end += next - at;
            }
            at = next;
        }
        self.data.drain(kept_end..at);
        self.count -= removed as u32;
        removed
    }

    /// The same from `index` towards the front.
    pub(super) fn remove_equal_back(
        &mut self,
        needle: &Needle,
        index: usize,
        limit: usize,
    ) -> usize {
        let begin = self.begin as usize;
        let mut end = begin + self.run().offset_of(index + 1);
        let mut kept_begin = end;
        let mut removed = 0;
        while end > begin && removed < limit {
            let at = step_back(&self.data, end);
            if needle.is_at(&self.data, at) {
                removed += 1;
            } else {
                kept_begin -= end - at;
                self.data.copy_within(at..end, kept_begin);
            }
            end = at;
        }
        self.data.drain(end..kept_begin);
        self.count -= removed as u32;
        removed
    }

    /// Makes room for `more` bytes behind the elements.
    #[inline]
    fn make_room_behind(&mut self, more: usize) {
        if self.data.capacity() - self.data.len() < more {
            self.move_to(more, End::Back);
        }
    }

    #[inline]
    fn make_room_in_front(&mut self, more: usize) {
        self.move_to(more, End::Front);
    }

    /// Moves the elements so that `more` bytes fit at `end`: within the buffer if that frees a good
    /// part of it, else into a larger one.
    #[cold]
    fn move_to(&mut self, more: usize, end: End) {
        let (begin, len) = (self.begin as usize, self.byte_len());
        let capacity = self.data.capacity();
        let is_full = len + more > capacity;
        // A queue that slides through its buffer: moved once per eighth of it, unless it is large.
        let is_tight = capacity - len < capacity / 8 && capacity < LEAF_BYTES;
        if is_full || is_tight {
            let spare = if is_full { 0 } else { capacity / 8 };
            let capacity = size_class(len + more + spare);
            let mut data = Vec::with_capacity(capacity);
            if end == End::Front {
                data.resize(capacity - len, 0);
            }
            self.begin = data.len() as u32;
            data.extend_from_slice(&self.data[begin..]);
            self.data = data;
        } else if end == End::Back {
            self.data.drain(..begin);
            self.begin = 0;
        } else {
            self.data.resize(capacity, 0);
            self.data.copy_within(begin..begin + len, capacity - len);
            self.begin = (capacity - len) as u32;
        }
    }

    /// Gives memory back when most of it is free. For leaves of trees: a packed list lends its
    /// buffer.
    #[inline]
    pub(super) fn shrink(&mut self) {
        let capacity = self.data.capacity();
        if capacity > SMALL_BUFFER_BYTES && self.byte_len() < capacity / 4 {
            self.fit();
        }
    }

    #[cold]
    fn fit(&mut self) {
        let Run { data, count } = self.run();
        *self = Self { grown: self.grown, ..Self::of(data, count) };
    }

    /// Index of the element at which half of the bytes are before.
    fn middle(&self) -> usize {
        let run = self.run();
        let (mut at, mut index) = (0, 0);
        while at < run.data.len() / 2 {
            at = step_on(run.data, at);
            index += 1;
        }
        index.clamp(1, self.len() - 1)
    }
}

impl Leaf for ListLeaf {
    type Sep = ();

    #[inline]
    fn len(&self) -> usize {
        self.count as usize
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + size_class(self.data.capacity())
    }

    #[inline]
    fn is_over(&self) -> bool {
        self.byte_len() > LEAF_BYTES && self.count > 1
    }

    #[inline]
    fn is_sparse(&self) -> bool {
        self.byte_len() < SPARSE_BYTES
    }

    /// Cut where it grew, so that a list that grows at an end leaves full leaves behind.
    fn split(&mut self) -> ((), Self) {
        let index = match self.grown {
            Grown::Front => 1,
            Grown::Back => self.len() - 1,
            Grown::Middle => self.middle(),
        };
        let run = self.run();
        let (left, right) = run.data.split_at(run.offset_of(index));
        let right = Self::of(right, run.count - index);
        *self = Self { grown: self.grown, ..Self::of(left, index) };
        ((), right)
    }

    fn absorb(&mut self, next: &Self) -> bool {
        if self.byte_len() + next.byte_len() > JOINED_BYTES_MAX {
            return false;
        }
        self.make_room_behind(next.byte_len());
        self.data.extend_from_slice(next.run().data);
        self.count += next.count;
        true
    }
}
