//! Values packed into one string: what Redis keeps in memory for small values, written as it is.
//!
//! Each layout has a file of its own with a walk, which yields entry by entry and refuses what is
//! not exactly as Redis would have written it, and a builder where there is somebody to write for.

pub(super) mod intset;
pub(super) mod listpack;
pub(super) mod ziplist;
pub(super) mod zipmap;

use std::borrow::Cow;
use std::ops::Range;

use crate::rdb::Error;

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry<'b> {
    Bytes(&'b [u8]),
    Int(i64),
}

/// How a string is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    Ziplist,
    Listpack,
    Zipmap,
    Intset,
}

#[derive(Debug)]
enum Walk {
    Ziplist(ziplist::Walk),
    Listpack(listpack::Walk),
    Zipmap(zipmap::Walk),
    Intset(intset::Walk),
}

/// A packed string and how far it has been read.
#[derive(Debug)]
pub(super) struct Blob<'a> {
    bytes: Cow<'a, [u8]>,
    walk: Walk,
}

impl<'a> Blob<'a> {
    /// Begins to read.
    pub(super) fn open(layout: Layout, bytes: Cow<'a, [u8]>) -> Result<Self, Error> {
        let walk = match layout {
            Layout::Ziplist => Walk::Ziplist(ziplist::Walk::open(&bytes)?),
            Layout::Listpack => Walk::Listpack(listpack::Walk::open(&bytes)?),
            Layout::Zipmap => Walk::Zipmap(zipmap::Walk::open(&bytes)?),
            Layout::Intset => Walk::Intset(intset::Walk::open(&bytes)?),
        };
        Ok(Self { bytes, walk })
    }

    /// Lets go of the payload that it is part of; says which part, if it is not apart.
    pub(super) fn pause(self, payload: &[u8]) -> (Blob<'static>, Option<Range<usize>>) {
        let (bytes, part) = match self.bytes {
            Cow::Owned(bytes) => (Cow::Owned(bytes), None),
            Cow::Borrowed(part) => {
                let from = part.as_ptr().addr() - payload.as_ptr().addr();
                (Cow::default(), Some(from..from + part.len()))
            }
        };
        (Blob { bytes, walk: self.walk }, part)
    }

    /// Undoes [`pause`](Self::pause).
    pub(super) fn resume(self, payload: &'a [u8], part: Option<Range<usize>>) -> Self {
        match part {
            Some(part) => Self { bytes: Cow::Borrowed(&payload[part]), ..self },
            None => self,
        }
    }

    /// Whether there is another entry; checks at the end that it is the end.
    pub(super) fn has_more(&self) -> Result<bool, Error> {
        match &self.walk {
            Walk::Ziplist(walk) => walk.has_more(&self.bytes),
            Walk::Listpack(walk) => walk.has_more(&self.bytes),
            Walk::Zipmap(walk) => walk.has_more(&self.bytes),
            Walk::Intset(walk) => Ok(walk.has_more(&self.bytes)),
        }
    }

    /// The next entry.
    pub(super) fn entry(&mut self) -> Result<Entry<'_>, Error> {
        self.walk.entry(&self.bytes)
    }

    /// The next two entries.
    pub(super) fn pair(&mut self) -> Result<(Entry<'_>, Entry<'_>), Error> {
        Ok((self.walk.entry(&self.bytes)?, self.walk.entry(&self.bytes)?))
    }

    /// Entries that it may have, judging by its length.
    pub(super) fn entry_count_max(&self) -> usize {
        self.bytes.len()
    }

    /// Memory that it holds.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.bytes {
            Cow::Owned(bytes) => bytes.capacity(),
            Cow::Borrowed(_) => 0,
        }
    }
}

impl Walk {
    fn entry<'b>(&mut self, bytes: &'b [u8]) -> Result<Entry<'b>, Error> {
        match self {
            Self::Ziplist(walk) => walk.entry(bytes),
            Self::Listpack(walk) => walk.entry(bytes),
            Self::Zipmap(walk) => walk.entry(bytes),
            Self::Intset(walk) => walk.entry(bytes),
        }
    }
}

/// What the walks' tests share.
#[cfg(test)]
mod tests {
    use super::*;

    /// All entries as text.
    pub(super) fn entries(layout: Layout, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut blob = Blob::open(layout, Cow::Borrowed(bytes))?;
        let mut found = Vec::new();
        while blob.has_more()? {
            found.push(match blob.entry()? {
                Entry::Bytes(bytes) => bytes.to_vec(),
                Entry::Int(n) => n.to_string().into_bytes(),
            });
        }
        Ok(found)
    }

    /// Texts of every class of length and number.
    pub(super) fn samples() -> Vec<Vec<u8>> {
        let mut samples: Vec<Vec<u8>> =
            [0, 1, 31, 32, 63, 64, 253, 254, 4095, 4096, 16_383, 16_384, 70_000]
                .iter()
                .map(|&len| vec![b's'; len])
                .collect();
        let edges = [0, 12, 13, 127, 128, 4095, 4096, 32_767, 8_388_607, i64::from(i32::MAX)];
        for edge in edges.into_iter().chain([i64::MAX]) {
            for n in [edge, -edge, edge.wrapping_add(1), (-edge).wrapping_sub(1), -edge - 1 + 1] {
                samples.push(n.to_string().into_bytes());
            }
        }
        samples.extend(["007", "-0", "+1", "1.5", "9223372036854775808"].map(|s| s.into()));
        samples
    }

    /// Every prefix and every changed byte: entries or an error, and no panic.
    pub(super) fn survives_changes(layout: Layout, good: &[u8]) {
        assert!(entries(layout, good).is_ok());
        for len in 0..good.len() {
            assert!(entries(layout, &good[..len]).is_err(), "{len}");
        }
        let mut bytes = good.to_vec();
        for at in 0..good.len() {
            for value in 0..=u8::MAX {
                bytes[at] = value;
                let _ = entries(layout, &bytes);
            }
            bytes[at] = good[at];
        }
    }
}
