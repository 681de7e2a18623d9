//! A value put together: small ones packed into one string, large ones element by element.

use crate::rdb::output::{put_length, put_score_binary, put_score_text, put_string, score_text};
use crate::rdb::packed::{intset, listpack, ziplist};
use crate::rdb::{node, tag};
use crate::resp::number::parse_i64;

/// Longest packed string: Redis refuses to make a longer one.
const PACKED_BYTES_MAX: usize = 1 << 30;

/// What Redis adds to the length of an element when it guesses whether a node has room for it.
const NODE_OVERHEAD_BYTES: usize = 8;

/// Largest node of a list that is limited by number.
const NODE_BYTES_MAX: usize = 8192;

/// From this number of elements on, the count of nodes has a fixed width, so that it can be written
/// when they are known without moving them.
const WIDE_COUNT_FROM: usize = 4096;

/// Which layouts are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// RDB version 10: what Redis 7.0 writes.
    V10,
    /// RDB version 7: what Redis 3.2 and codis-server load.
    V7,
}

impl Format {
    /// Its number in the footer.
    pub const fn version(self) -> u16 {
        match self {
            Self::V10 => 10,
            Self::V7 => 7,
        }
    }
}

/// What is small: the configuration's thresholds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `list-max-listpack-size`: elements of a node, or -1 to -5 for 4 to 64 KiB.
    pub list_node: i64,
    /// `hash-max-listpack-entries`.
    pub hash_count: usize,
    /// `hash-max-listpack-value`.
    pub hash_bytes: usize,
    /// `set-max-intset-entries`.
    pub set_count: usize,
    /// `zset-max-listpack-entries`.
    pub zset_count: usize,
    /// `zset-max-listpack-value`.
    pub zset_bytes: usize,
}

impl Limits {
    /// What Redis 7.0 has by default.
    pub const DEFAULT: Self = Self {
        list_node: -2,
        hash_count: 128,
        hash_bytes: 64,
        set_count: 512,
        zset_count: 128,
        zset_bytes: 64,
    };

    /// Nothing is small, but that lists always have nodes.
    pub const TABLES: Self = Self {
        list_node: -2,
        hash_count: 0,
        hash_bytes: 0,
        set_count: 0,
        zset_count: 0,
        zset_bytes: 0,
    };

    /// Everything that can be packed is.
    pub const PACKED: Self = Self {
        list_node: -2,
        hash_count: usize::MAX,
        hash_bytes: usize::MAX,
        set_count: usize::MAX,
        zset_count: usize::MAX,
        zset_bytes: usize::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Writes values one after the other, each with the byte that says what it is.
///
/// Counts are stated by the caller, who knows them, and must be right: a value with another number
/// of elements cannot be read.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    format: Format,
    limits: Limits,
}

impl Writer {
    /// Nothing yet.
    pub const fn new(format: Format, limits: Limits) -> Self {
        Self { out: Vec::new(), format, limits }
    }

    /// Nothing yet, in memory for so many bytes: what is not written is not touched.
    pub fn with_capacity(format: Format, limits: Limits, byte_count: usize) -> Self {
        Self { out: Vec::with_capacity(byte_count), format, limits }
    }

    /// What has been written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// What has been written, without a footer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Takes what has been written, to pass it on before the value ends.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Writes a string.
    pub fn string(&mut self, text: &[u8]) {
        self.out.push(tag::STRING);
        put_string(&mut self.out, text);
    }

    /// Writes a list.
    pub fn list<'e>(&mut self, count: usize, items: impl Iterator<Item = &'e [u8]>) {
        let mut list = self.begin_list(count);
        items.for_each(|item| list.push(item));
        list.finish();
    }

    /// Begins a list of `count` elements, which the caller pushes one by one.
    pub fn begin_list(&mut self, count: usize) -> ListWriter<'_> {
        ListWriter::new(self, count)
    }

    /// Writes a set.
    pub fn set<'e>(&mut self, count: usize, members: impl Iterator<Item = &'e [u8]> + Clone) {
        if count <= self.limits.set_count {
            let integers: Option<Vec<i64>> = members.clone().map(parse_i64).collect();
            if let Some(mut integers) = integers {
                integers.sort_unstable();
                self.out.push(tag::SET_INTSET);
                return put_string(&mut self.out, &intset::build(&integers));
            }
        }
        self.begin_set(count);
        members.for_each(|member| self.member(member));
    }

    /// Begins a set of `count` members as a table; each follows with [`Writer::member`].
    pub fn begin_set(&mut self, count: usize) {
        self.begin(tag::SET, count);
    }

    /// A member of the set that was begun.
    pub fn member(&mut self, member: &[u8]) {
        put_string(&mut self.out, member);
    }

    /// Writes a hash.
    pub fn hash<'e>(
        &mut self,
        count: usize,
        pairs: impl Iterator<Item = (&'e [u8], &'e [u8])> + Clone,
    ) {
        let longest = self.limits.hash_bytes;
        let fits = |(field, value): (&[u8], &[u8])| {
            (field.len() <= longest && value.len() <= longest).then(|| field.len() + value.len())
        };
        if count <= self.limits.hash_count && is_packable(pairs.clone().map(fits)) {
            let texts = pairs.flat_map(|(field, value)| [field, value]);
            return self.pack(tag::HASH_LISTPACK, tag::HASH_ZIPLIST, |push| texts.for_each(push));
        }
        self.begin_hash(count);
        pairs.for_each(|(field, value)| self.field(field, value));
    }

    /// Begins a hash of `count` fields as a table; each follows with [`Writer::field`].
    pub fn begin_hash(&mut self, count: usize) {
        self.begin(tag::HASH, count);
    }

    /// A field of the hash that was begun, and its value.
    pub fn field(&mut self, field: &[u8], value: &[u8]) {
        put_string(&mut self.out, field);
        put_string(&mut self.out, value);
    }

    /// Writes a sorted set: members by score, then by their bytes, both ascending.
    pub fn zset<'e>(
        &mut self,
        count: usize,
        members: impl Iterator<Item = (&'e [u8], f64)> + Clone,
    ) {
        let longest = self.limits.zset_bytes;
        let fits = |(member, _): (&[u8], f64)| (member.len() <= longest).then_some(member.len());
        if count <= self.limits.zset_count && is_packable(members.clone().map(fits)) {
            return self.pack(tag::ZSET_LISTPACK, tag::ZSET_ZIPLIST, |push| {
                for (member, score) in members {
                    push(member);
                    push(score_text(score).as_bytes());
                }
            });
        }
        self.begin_zset(count);
        members.for_each(|(member, score)| self.scored(member, score));
    }

    /// Begins a sorted set of `count` members as a table; each follows with [`Writer::scored`].
    ///
    /// Any order will do; greatest first is what Redis writes, and loads fastest.
    pub fn begin_zset(&mut self, count: usize) {
        let tag = match self.format {
            Format::V10 => tag::ZSET_BINARY,
            Format::V7 => tag::ZSET,
        };
        self.begin(tag, count);
    }

    /// A member of the sorted set that was begun, and its score.
    pub fn scored(&mut self, member: &[u8], score: f64) {
        put_string(&mut self.out, member);
        match self.format {
            Format::V10 => put_score_binary(&mut self.out, score),
            Format::V7 => put_score_text(&mut self.out, score),
        }
    }

    fn begin(&mut self, tag: u8, count: usize) {
        self.out.push(tag);
        put_length(&mut self.out, count as u64);
    }

    /// Writes what `fill` pushes as one packed string.
    fn pack(&mut self, tag: u8, old_tag: u8, fill: impl FnOnce(&mut dyn FnMut(&[u8]))) {
        let mut pack = Pack::new(self.format, Vec::new());
        fill(&mut |text| pack.push(text));
        self.out.push(match self.format {
            Format::V10 => tag,
            Format::V7 => old_tag,
        });
        put_string(&mut self.out, &pack.finish());
    }
}

/// Whether texts of these lengths, `None` being too long, fit into one packed string.
fn is_packable(mut lengths: impl Iterator<Item = Option<usize>>) -> bool {
    // Both texts of a pair have at most 20 bytes around them, and a score takes at most 24.
    let total = lengths.try_fold(64usize, |total, len| total.checked_add(len?)?.checked_add(64));
    total.is_some_and(|total| total <= PACKED_BYTES_MAX)
}

/// A packed string of either format.
#[derive(Debug)]
enum Pack {
    New(listpack::Builder),
    Old(ziplist::Builder),
}

impl Pack {
    fn new(format: Format, spare: Vec<u8>) -> Self {
        match format {
            Format::V10 => Self::New(listpack::Builder::new(spare)),
            Format::V7 => Self::Old(ziplist::Builder::new(spare)),
        }
    }

    fn push(&mut self, text: &[u8]) {
        match self {
            Self::New(pack) => pack.push(text),
            Self::Old(pack) => pack.push(text),
        }
    }

    fn total_bytes(&self) -> usize {
        match self {
            Self::New(pack) => pack.total_bytes(),
            Self::Old(pack) => pack.total_bytes(),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::New(pack) => pack.finish(),
            Self::Old(pack) => pack.finish(),
        }
    }
}

/// Writes a list: fills node after node, as Redis does when elements are appended.
#[derive(Debug)]
pub struct ListWriter<'w> {
    writer: &'w mut Writer,
    list: OpenList,
}

/// How far a list has been written: what a [`ListWriter`] is without its writer.
#[derive(Debug)]
pub struct OpenList {
    /// Where the number of nodes goes, and how many bytes are kept for it.
    count_at: usize,
    count_bytes: usize,
    node_count: u64,
    node: Pack,
    node_items: usize,
}

impl<'w> ListWriter<'w> {
    fn new(writer: &'w mut Writer, count: usize) -> Self {
        writer.out.push(match writer.format {
            Format::V10 => tag::LIST_QUICKLIST_2,
            Format::V7 => tag::LIST_QUICKLIST,
        });
        let count_at = writer.out.len();
        let count_bytes = if count >= WIDE_COUNT_FROM { 5 } else { 0 };
        writer.out.resize(count_at + count_bytes, 0);
        let node = Pack::new(writer.format, Vec::new());
        let list = OpenList { count_at, count_bytes, node_count: 0, node, node_items: 0 };
        Self { writer, list }
    }

    /// Lets go of the writer, to which nothing else may be written before
    /// [`resume`](OpenList::resume).
    pub fn pause(self) -> OpenList {
        self.list
    }

    /// Adds an element at the tail.
    pub fn push(&mut self, item: &[u8]) {
        if item.len() >= PACKED_BYTES_MAX && self.writer.format == Format::V10 {
            self.end_node();
            return self.plain_node(item);
        }
        if self.list.node_items > 0 && !self.has_room(item.len()) {
            self.end_node();
        }
        self.list.node.push(item);
        self.list.node_items += 1;
    }

    /// Whether the node takes another element.
    fn has_room(&self, item_bytes: usize) -> bool {
        let total = self.list.node.total_bytes() + item_bytes + NODE_OVERHEAD_BYTES;
        match self.writer.limits.list_node {
            fill @ ..=-1 => total <= 2048 << fill.unsigned_abs().min(5),
            fill => total <= NODE_BYTES_MAX && self.list.node_items < fill.max(1) as usize,
        }
    }

    fn end_node(&mut self) {
        if self.list.node_items == 0 {
            return;
        }
        let spare = Pack::new(self.writer.format, Vec::new());
        let node = std::mem::replace(&mut self.list.node, spare).finish();
        self.list.node_items = 0;
        self.list.node_count += 1;
        let out = &mut self.writer.out;
        if self.writer.format == Format::V10 {
            put_length(out, node::PACKED);
        }
        put_string(out, &node);
    }

    /// An element that no packed string takes.
    fn plain_node(&mut self, item: &[u8]) {
        self.list.node_count += 1;
        put_length(&mut self.writer.out, node::PLAIN);
        put_string(&mut self.writer.out, item);
    }

    /// Ends the list.
    pub fn finish(mut self) {
        self.end_node();
        let mut count = Vec::with_capacity(9);
        if self.list.count_bytes == 0 {
            put_length(&mut count, self.list.node_count);
        } else {
            count.push(0x80);
            count.extend_from_slice(&(self.list.node_count as u32).to_be_bytes());
        }
        let until = self.list.count_at + self.list.count_bytes;
        self.writer.out.splice(self.list.count_at..until, count);
    }
}

impl OpenList {
    /// Goes on with the writer that the list was begun in.
    pub fn resume(self, writer: &mut Writer) -> ListWriter<'_> {
        ListWriter { writer, list: self }
    }
}
