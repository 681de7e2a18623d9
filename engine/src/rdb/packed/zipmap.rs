//! Zipmap: the layout of small hashes before Redis 2.6. Only read.
//!
//! # Layout
//! Pairs (1 byte; 254 is "count them"), pairs, `0xff`. A pair is the length of the field (1
//! byte, or `fe` and 4, little-endian), the field, the length of the value, a number of unused
//! bytes (1), the value, the unused bytes.

use super::Entry;
use crate::rdb::{Error, array_at, corrupt};

const END: u8 = 0xff;
const LONG: u8 = 0xfe;
/// From this number of pairs on, this stands for it.
const COUNT_UNKNOWN: u8 = 254;

/// A position between a field and a value.
#[derive(Debug)]
pub(in crate::rdb) struct Walk {
    at: usize,
    count: usize,
}

impl Walk {
    pub(super) fn open(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() < 2 || bytes.last() != Some(&END) {
            return Err(corrupt(bytes.len(), "a zipmap has no end"));
        }
        Ok(Self { at: 1, count: 0 })
    }

    pub(super) fn has_more(&self, bytes: &[u8]) -> Result<bool, Error> {
        let is_field = self.count.is_multiple_of(2);
        if bytes.get(self.at) != Some(&END) || !is_field {
            return Ok(true);
        }
        if self.at + 1 != bytes.len() {
            return Err(corrupt(self.at, "a zipmap ends early"));
        }
        let stated = bytes.first().copied().unwrap_or(0);
        if stated != COUNT_UNKNOWN && usize::from(stated) != self.count / 2 {
            return Err(corrupt(0, "a zipmap has more or fewer pairs than it says"));
        }
        Ok(false)
    }

    pub(super) fn entry<'b>(&mut self, bytes: &'b [u8]) -> Result<Entry<'b>, Error> {
        let unreadable = corrupt(self.at, "a zipmap entry cannot be read");
        let rest = bytes.get(self.at..bytes.len() - 1).unwrap_or_default();
        let (len, mut from) = match rest.first() {
            None => return Err(unreadable),
            // Redis: the end mark in the place of a value's length is read as the other.
            Some(&(LONG | END)) => {
                (array_at(rest, 1).map(u32::from_le_bytes).ok_or(unreadable)? as usize, 5)
            }
            Some(&len) => (usize::from(len), 1),
        };
        let mut unused = 0;
        if !self.count.is_multiple_of(2) {
            unused = usize::from(*rest.get(from).ok_or(unreadable)?);
            from += 1;
        }
        let end = from.checked_add(len).ok_or(unreadable)?;
        let text = rest.get(from..end).ok_or(unreadable)?;
        if rest.len() - end < unused {
            return Err(unreadable);
        }
        self.at += end + unused;
        self.count += 1;
        Ok(Entry::Bytes(text))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::super::tests::{entries, survives_changes};

    const GOOD: &[u8] = b"\x02\x03foo\x03\x00bar\x02ab\x04\x03long...\xff";

    #[test]
    fn pairs_with_unused_bytes_are_read() {
        let want = ["foo", "bar", "ab", "long"].map(|s| s.as_bytes().to_vec());
        assert_eq!(entries(Layout::Zipmap, GOOD), Ok(want.to_vec()));
        let long =
            [&b"\x01\xfe\x05\0\0\0"[..], b"field\xfe\x2c\x01\0\0\x00", &[b'v'; 300], b"\xff"];
        let want = vec![b"field".to_vec(), vec![b'v'; 300]];
        assert_eq!(entries(Layout::Zipmap, &long.concat()), Ok(want));
    }

    #[test]
    fn changed_bytes_are_read_or_refused() {
        survives_changes(Layout::Zipmap, GOOD);
    }

    #[test]
    fn wrong_count_or_half_a_pair_is_refused() {
        assert!(entries(Layout::Zipmap, b"\x01\x01a\xff").is_err());
        assert!(entries(Layout::Zipmap, b"\x02\x01a\x01\0b\xff").is_err());
        assert!(entries(Layout::Zipmap, b"\xfe\x01a\x01\0b\xff").is_ok());
    }
}
