//! Intset: a set of integers, ascending.
//!
//! # Layout
//! Bytes per integer (4, little-endian: 2, 4 or 8), integers (4), integers (little-endian).

use super::Entry;
use crate::rdb::{Error, array_at, corrupt};

const HEADER_BYTES: usize = 8;

/// A position between two integers.
#[derive(Debug)]
pub(in crate::rdb) struct Walk {
    at: usize,
    width: usize,
    last: Option<i64>,
}

impl Walk {
    pub(super) fn open(bytes: &[u8]) -> Result<Self, Error> {
        let word = |at| array_at(bytes, at).map(u32::from_le_bytes).ok_or(Error::Truncated(at));
        let (width, count) = (word(0)? as usize, word(4)? as usize);
        if !matches!(width, 2 | 4 | 8) {
            return Err(corrupt(0, "integers of an unknown width"));
        }
        let integer_bytes = bytes.len() - HEADER_BYTES;
        if !integer_bytes.is_multiple_of(width) || integer_bytes / width != count {
            return Err(corrupt(4, "a set has more or fewer integers than it says"));
        }
        Ok(Self { at: HEADER_BYTES, width, last: None })
    }

    pub(super) fn has_more(&self, bytes: &[u8]) -> bool {
        self.at < bytes.len()
    }

    pub(super) fn entry(&mut self, bytes: &[u8]) -> Result<Entry<'static>, Error> {
        let at = self.at;
        let n = match self.width {
            2 => array_at(bytes, at).map(|b| i64::from(i16::from_le_bytes(b))),
            4 => array_at(bytes, at).map(|b| i64::from(i32::from_le_bytes(b))),
            _ => array_at(bytes, at).map(i64::from_le_bytes),
        };
        let n = n.ok_or(Error::Truncated(at))?;
        if self.last.is_some_and(|last| last >= n) {
            return Err(corrupt(at, "integers of a set are not in order"));
        }
        self.last = Some(n);
        self.at += self.width;
        Ok(Entry::Int(n))
    }
}

/// The intset of integers that are ascending.
pub(in crate::rdb) fn build(integers: &[i64]) -> Vec<u8> {
    let fits = |low: i64, high: i64| {
        integers.first().is_none_or(|&n| n >= low) && integers.last().is_none_or(|&n| n <= high)
    };
    let width = if fits(i64::from(i16::MIN), i64::from(i16::MAX)) {
        2
    } else if fits(i64::from(i32::MIN), i64::from(i32::MAX)) {
        4
    } else {
        8
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + integers.len() * width);
    bytes.extend_from_slice(&(width as u32).to_le_bytes());
    bytes.extend_from_slice(&(integers.len() as u32).to_le_bytes());
    for n in integers {
        bytes.extend_from_slice(&n.to_le_bytes()[..width]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::super::tests::{entries, survives_changes};
    use super::*;

    #[test]
    fn integers_of_every_width_come_back() {
        for top in [100, 32_767, 32_768, 1 << 31, i64::MAX] {
            let integers = [-top - 1, -1, 0, 7, top];
            let texts: Vec<Vec<u8>> = integers.iter().map(|n| n.to_string().into()).collect();
            let bytes = build(&integers);
            assert_eq!(entries(Layout::Intset, &bytes), Ok(texts));
            survives_changes(Layout::Intset, &bytes);
        }
    }

    #[test]
    fn integers_twice_or_out_of_order_are_refused() {
        for integers in [&[1, 1][..], &[2, 1], &[-1, -2]] {
            assert!(entries(Layout::Intset, &build(integers)).is_err());
        }
        assert!(entries(Layout::Intset, b"\x03\0\0\0\x01\0\0\0\0\0\0").is_err());
        assert!(entries(Layout::Intset, b"\x02\0\0\0\x02\0\0\0\0\0").is_err());
    }
}
