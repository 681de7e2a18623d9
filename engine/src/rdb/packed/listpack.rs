//! Listpack: the layout of small values in Redis 7.
//!
//! # Layout
//! All bytes (4, little-endian), entries (2; 65535 is "count them"), entries, `0xff`. An entry is a
//! form with data, and its own length once more (1 to 5 bytes, seven bits each, to be read
//! backwards).
//!
//! | form | entry |
//! |---|---|
//! | `0xxxxxxx` | integer 0 to 127 |
//! | `10xxxxxx` | string of less than 64 bytes |
//! | `110xxxxx` + 1 | integer of 13 bits |
//! | `1110xxxx` + 1 | string of less than 4096 bytes |
//! | `f0` + 4 | string |
//! | `f1` `f2` `f3` `f4` | integer of 2, 3, 4, 8 bytes, little-endian |

use super::Entry;
use crate::rdb::{Error, array_at, corrupt};
use crate::resp::number::parse_i64;

const HEADER_BYTES: usize = 6;
const END: u8 = 0xff;
/// What stands for the number of entries when there are this many or more.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// A position between two entries.
#[derive(Debug)]
pub(in crate::rdb) struct Walk {
    at: usize,
    count: usize,
}

impl Walk {
    pub(super) fn open(bytes: &[u8]) -> Result<Self, Error> {
        let total = array_at(bytes, 0).map(u32::from_le_bytes).ok_or(Error::Truncated(0))?;
        if bytes.len() <= HEADER_BYTES || total as usize != bytes.len() {
            return Err(corrupt(0, "a listpack has another length than it says"));
        }
        if bytes.last() != Some(&END) {
            return Err(corrupt(bytes.len(), "a listpack has no end"));
        }
        Ok(Self { at: HEADER_BYTES, count: 0 })
    }

    pub(super) fn has_more(&self, bytes: &[u8]) -> Result<bool, Error> {
        // The last byte is the end mark, and no entry reaches beyond it.
        if bytes.get(self.at) != Some(&END) {
            return Ok(true);
        }
        let stated = array_at(bytes, 4).map_or(0, u16::from_le_bytes);
        if self.at + 1 != bytes.len() {
            return Err(corrupt(self.at, "a listpack ends early"));
        }
        if stated != COUNT_UNKNOWN && usize::from(stated) != self.count {
            return Err(corrupt(self.at, "a listpack has more or fewer entries than it says"));
        }
        Ok(false)
    }

    pub(super) fn entry<'b>(&mut self, bytes: &'b [u8]) -> Result<Entry<'b>, Error> {
        let at = self.at;
        let end = bytes.len() - 1;
        let rest = bytes.get(at..end).unwrap_or_default();
        let (entry, len) = decode(rest).ok_or(corrupt(at, "a listpack entry cannot be read"))?;
        let back = Back::new(len);
        if rest.get(len..len + back.len()) != Some(back.bytes()) {
            return Err(corrupt(at, "a listpack entry has another length behind it"));
        }
        self.at += len + back.len();
        self.count += 1;
        Ok(entry)
    }
}

/// The entry that `rest` begins with, and its length without the length behind it.
fn decode(rest: &[u8]) -> Option<(Entry<'_>, usize)> {
    let string = |from: usize, len: usize| {
        Some((Entry::Bytes(rest.get(from..from.checked_add(len)?)?), from + len))
    };
    let first = *rest.first()?;
    match first {
        0..=0x7f => Some((Entry::Int(i64::from(first)), 1)),
        0x80..=0xbf => string(1, usize::from(first & 0x3f)),
        0xc0..=0xdf => {
            let bits = u16::from(first & 0x1f) << 8 | u16::from(*rest.get(1)?);
            // The sign is bit 12: to the top and back.
            Some((Entry::Int(i64::from((bits << 3) as i16 >> 3)), 2))
        }
        0xe0..=0xef => string(2, usize::from(first & 0x0f) << 8 | usize::from(*rest.get(1)?)),
        0xf0 => string(5, u32::from_le_bytes(array_at(rest, 1)?) as usize),
        0xf1 => Some((Entry::Int(i64::from(i16::from_le_bytes(array_at(rest, 1)?))), 3)),
        0xf2 => {
            let [a, b, c]: [u8; 3] = array_at(rest, 1)?;
            Some((Entry::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)), 4))
        }
        0xf3 => Some((Entry::Int(i64::from(i32::from_le_bytes(array_at(rest, 1)?))), 5)),
        0xf4 => Some((Entry::Int(i64::from_le_bytes(array_at(rest, 1)?)), 9)),
        _ => None,
    }
}

/// The length of an entry as it stands behind it.
struct Back {
    bytes: [u8; 5],
    len: usize,
}

impl Back {
    fn new(entry_bytes: usize) -> Self {
        let len = match entry_bytes {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            2_097_152..=268_435_455 => 4,
            _ => 5,
        };
        let mut bytes = [0; 5];
        for (i, byte) in bytes[..len].iter_mut().rev().enumerate() {
            *byte = (entry_bytes >> (7 * i)) as u8 & 0x7f | 0x80;
        }
        // The first byte is the last that is read: it has no mark that another follows.
        bytes[0] &= 0x7f;
        Self { bytes, len }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends a listpack to bytes.
#[derive(Debug)]
pub(in crate::rdb) struct Builder {
    bytes: Vec<u8>,
    count: usize,
}

impl Builder {
    /// An empty one, in memory that was used before.
    pub(in crate::rdb) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(HEADER_BYTES, 0);
        Self { bytes, count: 0 }
    }

    /// Bytes, had it ended here.
    pub(in crate::rdb) fn total_bytes(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Adds an entry: an integer if the text is one.
    pub(in crate::rdb) fn push(&mut self, text: &[u8]) {
        let from = self.bytes.len();
        match parse_i64(text) {
            Some(n) => self.put_int(n),
            None => self.put_string(text),
        }
        let back = Back::new(self.bytes.len() - from);
        self.bytes.extend_from_slice(back.bytes());
        self.count += 1;
    }

    fn put_int(&mut self, n: i64) {
        let le = n.to_le_bytes();
        let (form, len) = match n {
            0..=127 => return self.bytes.push(n as u8),
            -4096..=4095 => {
                return self.bytes.extend_from_slice(&[0xc0 | (n >> 8) as u8 & 0x1f, n as u8]);
            }
            -32_768..=32_767 => (0xf1, 2),
            -8_388_608..=8_388_607 => (0xf2, 3),
            -2_147_483_648..=2_147_483_647 => (0xf3, 4),
            _ => (0xf4, 8),
        };
        self.bytes.push(form);
        self.bytes.extend_from_slice(&le[..len]);
    }

    fn put_string(&mut self, text: &[u8]) {
        let len = text.len();
        match len {
            0..=63 => self.bytes.push(0x80 | len as u8),
            64..=4095 => self.bytes.extend_from_slice(&[0xe0 | (len >> 8) as u8, len as u8]),
            _ => {
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
    }

    /// The listpack.
    pub(in crate::rdb) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let total = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(COUNT_UNKNOWN);
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::super::tests::{entries, samples, survives_changes};
    use super::*;

    fn built(texts: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = Builder::new(b"old".to_vec());
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
        assert_eq!(entries(Layout::Listpack, &built(&samples)), Ok(samples));
    }

    #[test]
    fn more_entries_than_the_header_counts_come_back() {
        for count in [65_534, 65_535, 65_536, 70_000] {
            let texts = vec![b"x".to_vec(); count];
            let bytes = built(&texts);
            assert_eq!(entries(Layout::Listpack, &bytes).map(|e| e.len()), Ok(count));
        }
    }

    #[test]
    fn changed_bytes_are_read_or_refused() {
        let texts: Vec<Vec<u8>> =
            ["", "a", "1", "-5", "300", "70000", "9000000", "5000000000"].map(|s| s.into()).into();
        survives_changes(Layout::Listpack, &built(&texts));
        survives_changes(Layout::Listpack, &built(&[vec![b'x'; 130], vec![b'y'; 5000]]));
    }

    #[test]
    fn wrong_header_or_back_length_is_refused() {
        let good = built(&[b"abc".to_vec(), b"2".to_vec()]);
        assert_eq!(good, b"\x0e\0\0\0\x02\0\x83abc\x04\x02\x01\xff");
        for (at, value) in [(0, 15), (4, 3), (10, 5), (12, 2), (13, 0xfe)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(entries(Layout::Listpack, &bad).is_err(), "{at}");
        }
    }
}
