//! What SORT sorts: a snapshot of a list, a set or a sorted set, read in steps.

use crate::commands::ctx::Ctx;
use crate::resp::error::CommandError;
use crate::shard::state::KeyRef;
use crate::store::entry::Value;
use crate::types::list::List;
use crate::types::pack::Item;
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{Collection, Object, Type};

/// Elements read in a step.
const STEP_ELEMENTS: usize = 500;

/// The collection.
#[derive(Debug)]
pub(super) enum Source {
    List(List),
    Set(Set),
    Zset(Zset),
}

impl Source {
    /// The collection of a key: an empty list if there is none.
    ///
    /// # Errors
    /// It has no elements to sort.
    pub(super) fn of(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> Result<Self, CommandError> {
        let Some(entry) = ctx.read(key) else {
            return Ok(Self::List(List::new()));
        };
        let source = match entry.value() {
            Value::Packed(packed, bytes) => {
                let bytes = bytes.to_vec();
                match packed.type_of() {
                    Type::List => List::from_packed(packed, bytes).map(Self::List),
                    Type::Set => Set::from_packed(packed, bytes).map(Self::Set),
                    Type::Zset => Zset::from_packed(packed, bytes).map(Self::Zset),
                    _ => None,
                }
            }
            Value::Object(Object::List(list)) => Some(Self::List(list.clone())),
            Value::Object(Object::Set(set)) => Some(Self::Set(set.clone())),
            Value::Object(Object::Zset(zset)) => Some(Self::Zset(zset.clone())),
            _ => None,
        };
        source.ok_or(CommandError::WRONG_TYPE)
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Set(set) => set.len(),
            Self::Zset(zset) => zset.len(),
        }
    }

    /// Whether its elements have no order of their own.
    pub(super) fn is_set(&self) -> bool {
        matches!(self, Self::Set(_))
    }

    /// Shows some elements from a position on, of those before `end`. Returns the position behind
    /// them.
    pub(super) fn read(&self, from: usize, end: usize, mut visit: impl FnMut(&[u8])) -> usize {
        let to = end.min(from + STEP_ELEMENTS);
        match self {
            Self::List(list) => list.view().for_each(from, to, |item| visit(&item.text())),
            Self::Zset(zset) => {
                for (member, _) in zset.view().range(from, to) {
                    visit(&member.text());
                }
            }
            Self::Set(set) => {
                let mut position = from;
                let next = set.view().walk(from, |item: Item<'_>| {
                    if position < end {
                        visit(&item.text());
                    }
                    position += 1;
                });
                return if next == from { end } else { next.min(end) };
            }
        }
        to
    }
}
