//! A value as it was when it was looked at: what a migration reads while the key may go on changing.

use std::sync::Arc;

use crate::store::entry::Value;
use crate::types::hash::{Hash, HashView};
use crate::types::list::{List, ListView};
use crate::types::set::{Set, SetView};
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Object, Packed};

/// An owned value.
///
/// # Complexity
/// O(1) to take for what is large, as long strings and trees are shared; a copy for what is small.
#[derive(Clone, Debug)]
pub enum Snapshot {
    /// An integer.
    Int(i64),
    /// A short string.
    Text(Vec<u8>),
    /// A long string.
    Big(Arc<Vec<u8>>),
    /// A small collection.
    Packed(Packed, Vec<u8>),
    /// A large one.
    Object(Object),
}

/// A view of a collection, whichever it is.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// A string.
    String,
    /// A list.
    List(ListView<'a>),
    /// A hash.
    Hash(HashView<'a>),
    /// A set.
    Set(SetView<'a>),
    /// A sorted set.
    Zset(ZsetView<'a>),
}

/// Why a packed view exists: bytes of a packed value come from its own type only.
const OWN_FORM: &str = "each type reads its own packed form";

impl Snapshot {
    /// The value now.
    pub fn of(value: Value<'_>) -> Self {
        match value {
            Value::Int(n) => Self::Int(n),
            Value::Inline { bytes, .. } => Self::Text(bytes.to_vec()),
            Value::Big(data) => Self::Big(Arc::clone(data)),
            Value::Packed(packed, bytes) => Self::Packed(packed, bytes.to_vec()),
            Value::Object(object) => Self::Object(object.clone()),
        }
    }

    /// The same as a stored value shows itself.
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Int(n) => Value::Int(*n),
            Self::Text(bytes) => Value::Inline { bytes, raw: false },
            Self::Big(data) => Value::Big(data),
            Self::Packed(packed, bytes) => Value::Packed(*packed, bytes),
            Self::Object(object) => Value::Object(object),
        }
    }

    /// The same as a collection.
    pub fn view(&self) -> View<'_> {
        match self {
            Self::Int(_) | Self::Text(_) | Self::Big(_) => View::String,
            Self::Packed(packed, bytes) => view_packed(*packed, bytes),
            Self::Object(Object::List(list)) => View::List(list.view()),
            Self::Object(Object::Hash(hash)) => View::Hash(hash.view()),
            Self::Object(Object::Set(set)) => View::Set(set.view()),
            Self::Object(Object::Zset(zset)) => View::Zset(zset.view()),
        }
    }

    /// Words that the elements would take, as the original counts them: none for what it keeps in
    /// one piece (strings, ziplists, intsets), two for each field and each member with a score.
    pub fn bulk_count(&self) -> usize {
        match self.view() {
            View::String => 0,
            View::List(list) => list.len(),
            View::Hash(HashView::Packed(_)) | View::Zset(ZsetView::Packed(_)) => 0,
            View::Hash(hash) => hash.len() * 2,
            View::Set(set) if set.is_ints() => 0,
            View::Set(set) => set.len(),
            View::Zset(zset) => zset.len() * 2,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self.view() {
            View::String => 1,
            View::List(list) => list.len(),
            View::Hash(hash) => hash.len(),
            View::Set(set) => set.len(),
            View::Zset(zset) => zset.len(),
        }
    }

    /// Whether it has no element: no stored value does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The original's number of the type.
    pub fn type_number(&self) -> u8 {
        match self.view() {
            View::String => 0,
            View::List(_) => 1,
            View::Set(_) => 2,
            View::Zset(_) => 3,
            View::Hash(_) => 4,
        }
    }
}

fn view_packed(packed: Packed, bytes: &[u8]) -> View<'_> {
    match packed {
        Packed::List => View::List(List::view_packed(packed, bytes).expect(OWN_FORM)),
        Packed::Hash => View::Hash(Hash::view_packed(packed, bytes).expect(OWN_FORM)),
        Packed::Set | Packed::SetInts => {
            View::Set(Set::view_packed(packed, bytes).expect(OWN_FORM))
        }
        Packed::Zset => View::Zset(Zset::view_packed(packed, bytes).expect(OWN_FORM)),
    }
}

/// How many messages a value of this size is estimated to take: the original's guess, by which a
/// batch of a slot is measured.
///
/// # Units
/// `bulks_max` is words of one message.
pub const fn estimated_messages(bulk_count: usize, bulks_max: usize) -> usize {
    if bulk_count <= bulks_max { 1 } else { bulk_count.div_ceil(bulks_max) }
}

/// [`Snapshot::bulk_count`] of a stored value, without taking one.
pub fn bulk_count_of(value: Value<'_>) -> usize {
    match value {
        Value::Int(_) | Value::Inline { .. } | Value::Big(_) => 0,
        Value::Packed(packed, bytes) => match view_packed(packed, bytes) {
            View::List(list) => list.len(),
            View::Set(set) if !set.is_ints() => set.len(),
            _ => 0,
        },
        Value::Object(Object::List(list)) => list.len(),
        Value::Object(Object::Hash(hash)) => match hash.view() {
            HashView::Packed(_) => 0,
            HashView::Tree(table) => table.len() * 2,
        },
        Value::Object(Object::Set(set)) => match set.view() {
            view if view.is_ints() => 0,
            view => view.len(),
        },
        Value::Object(Object::Zset(zset)) => match zset.view() {
            ZsetView::Packed(_) => 0,
            ZsetView::Tree(tree) => tree.len() * 2,
        },
    }
}
