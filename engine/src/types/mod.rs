//! The structures of values: lists, hashes, sets, sorted sets, HyperLogLog.
//!
//! Each collection has two forms: *packed*, a run of [`pack`] elements that lies inside the key's
//! entry while it is small, and a *tree* of packed leaves ([`tree`]) above. A type's file owns both
//! and says when one becomes the other. Must not know the keyspace, commands, time or the runtime.

pub mod hash;
pub mod hll;
pub mod intset;
pub mod list;
pub mod pack;
pub mod set;
pub mod table;
pub mod tree;
pub mod yard;
pub mod zset;

use hash::Hash;
use list::List;
use set::Set;
use zset::Zset;

/// What `TYPE` distinguishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// Bytes.
    String,
    /// Elements in an order that clients choose.
    List,
    /// Fields with values.
    Hash,
    /// Members, each once.
    Set,
    /// Members with scores, in order.
    Zset,
}

impl Type {
    /// What `TYPE` answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Hash => "hash",
            Self::Set => "set",
            Self::Zset => "zset",
        }
    }
}

/// How the bytes of a collection inside an entry are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Packed {
    /// A list.
    List,
    /// A hash: fields and values in turn.
    Hash,
    /// A set of any members.
    Set,
    /// A set of integers, sorted.
    SetInts,
    /// A sorted set: members and scores in turn, in order.
    Zset,
}

impl Packed {
    /// The type.
    pub const fn type_of(self) -> Type {
        match self {
            Self::List => Type::List,
            Self::Hash => Type::Hash,
            Self::Set | Self::SetInts => Type::Set,
            Self::Zset => Type::Zset,
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub const fn encoding(self) -> &'static str {
        match self {
            Self::List => "quicklist",
            Self::Hash | Self::Zset => "listpack",
            Self::Set => "hashtable",
            Self::SetInts => "intset",
        }
    }
}

/// A collection in memory of its own.
#[derive(Clone, Debug)]
pub enum Object {
    /// A list.
    List(List),
    /// A hash.
    Hash(Hash),
    /// A set.
    Set(Set),
    /// A sorted set.
    Zset(Zset),
}

impl Default for Object {
    /// An empty list, which takes no memory.
    fn default() -> Self {
        Self::List(List::new())
    }
}

impl Object {
    /// The type.
    pub fn type_of(&self) -> Type {
        match self {
            Self::List(_) => Type::List,
            Self::Hash(_) => Type::Hash,
            Self::Set(_) => Type::Set,
            Self::Zset(_) => Type::Zset,
        }
    }

    /// What `OBJECT ENCODING` answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::List(_) => "quicklist",
            Self::Hash(hash) => hash.encoding(),
            Self::Set(set) => set.encoding(),
            Self::Zset(zset) => zset.encoding(),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Hash(hash) => hash.len(),
            Self::Set(set) => set.len(),
            Self::Zset(zset) => zset.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory behind it, without its own fixed part.
    ///
    /// # Complexity
    /// O(1)
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::List(list) => list.heap_bytes(),
            Self::Hash(hash) => hash.heap_bytes(),
            Self::Set(set) => set.heap_bytes(),
            Self::Zset(zset) => zset.heap_bytes(),
        }
    }

    /// Gives it up to be freed in steps.
    pub fn into_trash(self) -> Trash {
        match self {
            Self::List(list) => list.into_trash(),
            Self::Hash(hash) => hash.into_trash(),
            Self::Set(set) => set.into_trash(),
            Self::Zset(zset) => zset.into_trash(),
        }
    }
}

/// Memory of collections that is returned in steps.
#[derive(Debug, Default)]
pub struct Trash {
    /// Parts of lists.
    pub lists: tree::Trash<list::ListLeaf>,
    /// Parts of hashes and of sets.
    pub tables: tree::Trash<table::TableLeaf>,
    /// Parts of sorted sets: the order.
    pub orders: tree::Trash<zset::OrderLeaf>,
    /// Parts of sorted sets: where each member is.
    pub scores: tree::Trash<zset::ScoreLeaf>,
}

impl Trash {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
            && self.tables.is_empty()
            && self.orders.is_empty()
            && self.scores.is_empty()
    }

    /// Frees about one node. `false` when there is nothing left.
    pub fn step(&mut self) -> bool {
        self.lists.step() || self.tables.step() || self.orders.step() || self.scores.step()
    }
}

/// Limits of packed forms, as configured.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `hash-max-listpack-entries`
    pub hash_entries_max: usize,
    /// `hash-max-listpack-value`
    pub hash_value_bytes_max: usize,
    /// `set-max-intset-entries`
    pub set_ints_max: usize,
    /// `zset-max-listpack-entries`
    pub zset_entries_max: usize,
    /// `zset-max-listpack-value`
    pub zset_value_bytes_max: usize,
}

/// What the keyspace needs to know of a type.
pub trait Collection: Sized + 'static {
    /// A view of a stored collection.
    type View<'a>: Copy;

    /// The type.
    const TYPE: Type;

    /// An empty one, packed.
    fn new() -> Self;

    /// One from the bytes in an entry; none if they are of another type.
    fn from_packed(packed: Packed, bytes: Vec<u8>) -> Option<Self>;

    /// Its bytes, if it may lie inside an entry.
    fn packed(&self) -> Option<(Packed, &[u8])>;

    /// Gives back the buffer of [`from_packed`](Self::from_packed), for the next one.
    fn into_buffer(self) -> Vec<u8>;

    /// Whether it has no element.
    fn is_empty(&self) -> bool;

    /// A view of the bytes in an entry; none if they are of another type.
    fn view_packed(packed: Packed, bytes: &[u8]) -> Option<Self::View<'_>>;

    /// A view of it.
    fn view(&self) -> Self::View<'_>;

    /// As one of all types.
    fn into_object(self) -> Object;

    /// As this type; none if it is another.
    fn of(object: &Object) -> Option<&Self>;

    /// The same, to change it.
    fn of_mut(object: &mut Object) -> Option<&mut Self>;
}
