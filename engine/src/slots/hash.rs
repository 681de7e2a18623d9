//! The tag rule and the checksum that map a key to its slot, Codis' to the letter.

use crate::units::SlotId;

/// The part of `key` that decides its slot.
///
/// The bytes strictly between the first `{` and the first `}` after it, even if there are none of
/// them; the whole key if it has no such pair. Redis Cluster differs: it ignores an empty tag.
pub fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let rest = &key[open + 1..];
    let close = memchr::memchr(b'}', rest)?;
    Some(&rest[..close])
}

/// The slot of `key`: IEEE CRC-32 of its tag, or of all of it, modulo 1024.
#[inline]
pub fn slot_of(key: &[u8]) -> SlotId {
    SlotId::from_crc(crc32fast::hash(tag(key).unwrap_or(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_of_known_keys_is_what_codis_answers() {
        // Source: answers of the original's SLOTSHASHKEY.
        let cases: [(&[u8], usize); 11] = [
            (b"a", 579),
            (b"b", 1017),
            (b"c", 879),
            (b"{}x", 0),
            (b"x{a}", 579),
            (b"{a", 780),
            (b"a}{b}", 1017),
            (b"{a{b}", 76),
            (b"", 0),
            (b"{a}{b}", 579),
            (b"{t}", 680),
        ];
        for (key, slot) in cases {
            assert_eq!(slot_of(key).index(), slot, "key {:?}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn tag_of_empty_braces_is_empty_not_absent() {
        assert_eq!(tag(b"{}abc"), Some(&b""[..]));
        assert_eq!(tag(b"}{"), None);
    }
}
