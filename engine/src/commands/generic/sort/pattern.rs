//! BY and GET: keys that are named by elements.

use crate::commands::ctx::Ctx;
use crate::commands::generic::sort::order::until_zero;
use crate::shard::state::KeyRef;
use crate::types::hash::Hash;
use crate::types::pack::Item;

/// What a pattern reads for an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Pattern {
    /// `#`: the element itself.
    Element,
    /// No `*`: nothing.
    Nothing,
    /// A key with the element in the place of `*`: a string, or a field of a hash.
    Key { prefix: Vec<u8>, suffix: Vec<u8>, field: Option<Vec<u8>> },
}

impl Pattern {
    /// The pattern that a word spells. Searches in it end at a zero byte; what they find does not.
    pub(super) fn new(word: &[u8]) -> Self {
        if word == b"#" {
            return Self::Element;
        }
        let seen = until_zero(word);
        let Some(star) = seen.iter().position(|&byte| byte == b'*') else {
            return Self::Nothing;
        };
        let arrow = seen[star + 1..].windows(2).position(|pair| pair == b"->");
        let arrow = arrow.map(|at| star + 1 + at).filter(|at| at + 2 < seen.len());
        let (suffix, field) = match arrow {
            Some(at) => (&word[star + 1..at], Some(word[at + 2..].to_vec())),
            None => (&word[star + 1..], None),
        };
        Self::Key { prefix: word[..star].to_vec(), suffix: suffix.to_vec(), field }
    }

    /// Shows what it reads for an element.
    pub(super) fn read<R>(
        &self,
        ctx: &mut Ctx<'_>,
        element: &[u8],
        show: impl FnOnce(Option<&[u8]>) -> R,
    ) -> R {
        let Self::Key { prefix, suffix, field } = self else {
            return show((*self == Self::Element).then_some(element));
        };
        let name = [prefix, element, suffix].concat();
        let key = KeyRef::new(&name);
        match field {
            // A key of another type is as good as none.
            Some(field) => match ctx.view::<Hash>(key).ok().flatten() {
                Some(hash) => show(hash.get(field).map(Item::text).as_deref()),
                None => show(None),
            },
            None => match ctx.read_string(key).ok().flatten() {
                Some(value) => show(Some(&value.bytes())),
                None => show(None),
            },
        }
    }
}
