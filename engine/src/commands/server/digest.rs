//! A digest of data that does not depend on the order in which it is visited, nor on how many cores
//! hold it: every key's own digest is combined by exclusive or, as Redis does it. The bits differ
//! from Redis', which digests its own encodings.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::store::entry::{EntryRef, Value};
use crate::types::hash::{Hash, HashView};
use crate::types::list::{List, ListView};
use crate::types::set::{Set, SetView};
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Object, Packed};
use crate::units::{DbIndex, Ms};

/// Bytes of a digest: shown as 40 hexadecimal digits.
const DIGEST_BYTES: usize = 20;

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of some bytes in a role, which keeps a key from cancelling an equal value.
    fn of(bytes: &[u8], role: u64) -> Self {
        let mut digest = Self::default();
        let (head, tail) = digest.0.split_at_mut(16);
        head.copy_from_slice(&xxh3_128_with_seed(bytes, role).to_be_bytes());
        let more = xxh3_128_with_seed(bytes, !role).to_be_bytes();
        tail.copy_from_slice(&more[..DIGEST_BYTES - 16]);
        digest
    }

    /// The digest of a value alone. That of an element does not depend on how it is stored, nor that
    /// of a collection on the order of elements that have none.
    pub fn of_value(entry: EntryRef<'_>) -> Self {
        match entry.value() {
            Value::Packed(packed, bytes) => Self::of_packed(packed, bytes),
            Value::Object(Object::List(list)) => Self::of_list(list.view()),
            Value::Object(Object::Hash(hash)) => Self::of_hash(hash.view()),
            Value::Object(Object::Set(set)) => Self::of_set(set.view()),
            Value::Object(Object::Zset(zset)) => Self::of_zset(zset.view()),
            value => Self::of(&value.bytes(), 1),
        }
    }

    fn of_packed(packed: Packed, bytes: &[u8]) -> Self {
        let digest = match packed {
            Packed::List => List::view_packed(packed, bytes).map(Self::of_list),
            Packed::Hash => Hash::view_packed(packed, bytes).map(Self::of_hash),
            Packed::Set | Packed::SetInts => Set::view_packed(packed, bytes).map(Self::of_set),
            Packed::Zset => Zset::view_packed(packed, bytes).map(Self::of_zset),
        };
        digest.expect("each type reads its own packed form")
    }

    fn of_list(list: ListView<'_>) -> Self {
        let mut digest = Self::of(b"list", 4);
        list.for_each(0, list.len(), |item| {
            let mut both = digest.0.to_vec();
            both.extend_from_slice(&Self::of(&item.text(), 5).0);
            digest = Self::of(&both, 5);
        });
        digest
    }

    fn of_hash(hash: HashView<'_>) -> Self {
        let mut digest = Self::of(b"hash", 4);
        hash.each(|field, value| {
            let mut both = Self::of(&field.text(), 6).0.to_vec();
            both.extend_from_slice(&Self::of(&value.text(), 7).0);
            digest.combine(Self::of(&both, 6));
        });
        digest
    }

    fn of_set(set: SetView<'_>) -> Self {
        let mut digest = Self::of(b"set", 4);
        set.each(|member| digest.combine(Self::of(&member.text(), 8)));
        digest
    }

    fn of_zset(zset: ZsetView<'_>) -> Self {
        let mut digest = Self::of(b"zset", 4);
        for (member, score) in zset.range(0, zset.len()) {
            let mut both = Self::of(&member.text(), 9).0.to_vec();
            // A packed set keeps no sign of zero.
            both.extend_from_slice(&(score + 0.0).to_be_bytes());
            digest.combine(Self::of(&both, 9));
        }
        digest
    }

    /// The digest of a key with its database, value and deadline.
    pub fn of_entry(db: DbIndex, entry: EntryRef<'_>) -> Self {
        let deadline_ms = entry.expires_at().unwrap_or(Ms(-1)).0;
        let mut all = Vec::with_capacity(3 * DIGEST_BYTES);
        all.push(db.0);
        all.extend_from_slice(&deadline_ms.to_be_bytes());
        all.extend_from_slice(&Self::of(entry.key(), 2).0);
        all.extend_from_slice(&Self::of_value(entry).0);
        Self::of(&all, 3)
    }

    /// Adds what is in `other` and not here, and takes away what is in both.
    pub fn combine(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine ^= theirs);
    }

    /// The digest in the first bytes of `bytes`, or that of nothing.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.first_chunk().copied().unwrap_or_default())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// 40 hexadecimal digits.
    pub fn hex(&self) -> String {
        use std::fmt::Write as _;
        let mut hex = String::with_capacity(2 * DIGEST_BYTES);
        for byte in self.0 {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combine_is_independent_of_order_and_undoes_itself() {
        let [a, b] = [Digest::of(b"a", 1), Digest::of(b"b", 1)];
        let mut ab = a;
        ab.combine(b);
        let mut ba = b;
        ba.combine(a);
        assert_eq!(ab, ba);
        assert_ne!(Digest::of(b"a", 1), Digest::of(b"a", 2));
        ab.combine(b);
        assert_eq!(ab, a);
        assert_eq!(Digest::from_bytes(ab.as_bytes()), a);
        assert_eq!(Digest::default().hex(), "0".repeat(40));
    }
}
