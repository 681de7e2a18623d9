//! Ziplist: the layout of small values before Redis 7.
//!
//! # Layout
//! All bytes (4, little-endian), offset of the last entry (4), entries (2; 65535 is "count them"),
//! entries, `0xff`. An entry is the length of the one before it (1 byte, or `fe` and 4), a form and
//! data.
//!
//! | form | entry |
//! |---|---|
//! | `00xxxxxx` | string of less than 64 bytes |
//! | `01xxxxxx` + 1 | string of less than 16384 bytes, big-endian |
//! | `10......` + 4 | string, big-endian |
//! | `c0` `d0` `e0` `f0` `fe` | integer of 2, 4, 8, 3, 1 bytes, little-endian |
//! | `f1` to `fd` | integer 0 to 12 |

use super::Entry;
use crate::rdb::{Error, array_at, corrupt};
use crate::resp::number::parse_i64;

const HEADER_BYTES: usize = 10;
const END: u8 = 0xff;
const LONG: u8 = 0xfe;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// Longest text that is tried as an integer.
const INT_TEXT_BYTES_MAX: usize = 31;

/// A position between two entries.
#[derive(Debug)]
pub(in crate::rdb) struct Walk {
    at: usize,
    /// Where the entry before begins.
    last: usize,
    count: usize,
}

impl Walk {
    pub(super) fn open(bytes: &[u8]) -> Result<Self, Error> {
        let total = array_at(bytes, 0).map(u32::from_le_bytes).ok_or(Error::Truncated(0))?;
        if bytes.len() <= HEADER_BYTES || total as usize != bytes.len() {
            return Err(corrupt(0, "a ziplist has another length than it says"));
        }
        if bytes.last() != Some(&END) {
            return Err(corrupt(bytes.len(), "a ziplist has no end"));
        }
        Ok(Self { at: HEADER_BYTES, last: HEADER_BYTES, count: 0 })
    }

    pub(super) fn has_more(&self, bytes: &[u8]) -> Result<bool, Error> {
        if bytes.get(self.at) != Some(&END) {
            return Ok(true);
        }
        if self.at + 1 != bytes.len() {
            return Err(corrupt(self.at, "a ziplist ends early"));
        }
        let last = array_at(bytes, 4).map_or(0, u32::from_le_bytes) as usize;
        // Redis: an empty one may say anything that is inside.
        let is_right = if self.count == 0 { last < bytes.len() } else { last == self.last };
        if !is_right {
            return Err(corrupt(4, "a ziplist has its last entry elsewhere than it says"));
        }
        let stated = array_at(bytes, 8).map_or(0, u16::from_le_bytes);
        if stated != COUNT_UNKNOWN && usize::from(stated) != self.count {
            return Err(corrupt(8, "a ziplist has more or fewer entries than it says"));
        }
        Ok(false)
    }

    pub(super) fn entry<'b>(&mut self, bytes: &'b [u8]) -> Result<Entry<'b>, Error> {
        let at = self.at;
        let unreadable = corrupt(at, "a ziplist entry cannot be read");
        let rest = bytes.get(at..bytes.len() - 1).unwrap_or_default();
        let (before, before_bytes) = match rest.first() {
            None => return Err(unreadable),
            Some(&LONG) => {
                (array_at(rest, 1).map(u32::from_le_bytes).ok_or(unreadable)? as usize, 5)
            }
            Some(&len) => (usize::from(len), 1),
        };
        if before != at - self.last {
            return Err(corrupt(at, "a ziplist entry has another length before it"));
        }
        let (entry, len) = decode(&rest[before_bytes..]).ok_or(unreadable)?;
        self.last = at;
        self.at += before_bytes + len;
        self.count += 1;
        Ok(entry)
    }
}

/// The entry that `rest` begins with, and its length.
fn decode(rest: &[u8]) -> Option<(Entry<'_>, usize)> {
    let string = |from: usize, len: usize| {
        Some((Entry::Bytes(rest.get(from..from.checked_add(len)?)?), from + len))
    };
    let first = *rest.first()?;
    match first {
        0..=0x3f => string(1, usize::from(first)),
        0x40..=0x7f => string(2, usize::from(first & 0x3f) << 8 | usize::from(*rest.get(1)?)),
        0x80..=0xbf => string(5, u32::from_be_bytes(array_at(rest, 1)?) as usize),
        0xc0 => Some((Entry::Int(i64::from(i16::from_le_bytes(array_at(rest, 1)?))), 3)),
        0xd0 => Some((Entry::Int(i64::from(i32::from_le_bytes(array_at(rest, 1)?))), 5)),
        0xe0 => Some((Entry::Int(i64::from_le_bytes(array_at(rest, 1)?)), 9)),
        0xf0 => {
            let [a, b, c]: [u8; 3] = array_at(rest, 1)?;
            Some((Entry::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)), 4))
        }
        0xf1..=0xfd => Some((Entry::Int(i64::from(first - 0xf1)), 1)),
        0xfe => Some((Entry::Int(i64::from(*rest.get(1)? as i8)), 2)),
        _ => None,
    }
}

/// Appends a ziplist to bytes.
#[derive(Debug)]
pub(in crate::rdb) struct Builder {
    bytes: Vec<u8>,
    last: usize,
    count: usize,
}

impl Builder {
    /// An empty one, in memory that was used before.
    pub(in crate::rdb) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(HEADER_BYTES, 0);
        Self { bytes, last: HEADER_BYTES, count: 0 }
    }

    /// Bytes, had it ended here.
    pub(in crate::rdb) fn total_bytes(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Adds an entry: an integer if the text is one.
    pub(in crate::rdb) fn push(&mut self, text: &[u8]) {
        let at = self.bytes.len();
        match at - self.last {
            before @ 0..=253 => self.bytes.push(before as u8),
            before => {
                self.bytes.push(LONG);
                self.bytes.extend_from_slice(&(before as u32).to_le_bytes());
            }
        }
        match parse_i64(text).filter(|_| text.len() <= INT_TEXT_BYTES_MAX) {
            Some(n) => self.put_int(n),
            None => self.put_string(text),
        }
        self.last = at;
        self.count += 1;
    }

    fn put_int(&mut self, n: i64) {
        let (form, len) = match n {
            0..=12 => (0xf1 + n as u8, 0),
            -128..=127 => (0xfe, 1),
            -32_768..=32_767 => (0xc0, 2),
            -8_388_608..=8_388_607 => (0xf0, 3),
            -2_147_483_648..=2_147_483_647 => (0xd0, 4),
            _ => (0xe0, 8),
        };
        self.bytes.push(form);
        self.bytes.extend_from_slice(&n.to_le_bytes()[..len]);
    }

    fn put_string(&mut self, text: &[u8]) {
        let len = text.len();
        match len {
            0..=63 => self.bytes.push(len as u8),
            64..=16_383 => self.bytes.extend_from_slice(&[0x40 | (len >> 8) as u8, len as u8]),
            _ => {
                self.bytes.push(0x80);
                self.bytes.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
    }

    /// The ziplist.
    pub(in crate::rdb) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let total = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(COUNT_UNKNOWN);
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&(self.last as u32).to_le_bytes());
        self.bytes[8..10].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::super::tests::{entries, samples, survives_changes};
    use super::*;

    fn built(texts: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for text in texts {
            builder.push(text);
        }
        let total = builder.total_bytes();
        let bytes = builder.finish();
        assert_eq!(bytes.len(), total);
        bytes
    }

    #[test]
    fn entries_of_every_form_come_back() {
        let samples = samples();
        assert_eq!(entries(Layout::Ziplist, &built(&samples)), Ok(samples));
        assert_eq!(entries(Layout::Ziplist, &built(&[])), Ok(vec![]));
    }

    #[test]
    fn list_of_the_original_codis_server_is_built_alike() {
        let want = b"\x14\0\0\0\x11\0\0\0\x03\0\0\xf2\x02\x03two\x05\xf4\xff";
        assert_eq!(built(&["1", "two", "3"].map(|s| s.into())), want);
    }

    #[test]
    fn short_entry_after_a_long_length_is_read() {
        let bytes = b"\x13\0\0\0\x0c\0\0\0\x02\0\0\xf1\xfe\x02\0\0\0\xf2\xff";
        assert_eq!(entries(Layout::Ziplist, bytes), Ok(vec![b"0".to_vec(), b"1".to_vec()]));
    }

    #[test]
    fn changed_bytes_are_read_or_refused() {
        let texts: Vec<Vec<u8>> =
            ["", "a", "1", "-5", "300", "70000", "9000000", "5000000000"].map(|s| s.into()).into();
        survives_changes(Layout::Ziplist, &built(&texts));
        survives_changes(Layout::Ziplist, &built(&[vec![b'x'; 300], vec![b'y'; 20_000]]));
    }

    #[test]
    fn wrong_header_or_length_before_is_refused() {
        let good = built(&["1", "two", "3"].map(|s| s.into()));
        for (at, value) in [(0, 0x15), (4, 0x10), (8, 2), (10, 1), (12, 3), (17, 4), (19, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(entries(Layout::Ziplist, &bad).is_err(), "{at}");
        }
    }
}
