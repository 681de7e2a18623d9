//! The byte layout of one value as Redis writes it to its files and answers it to DUMP, both ways.
//!
//! [`Reader`] takes a payload apart element by element, [`Writer`] puts one together; [`footer`] is
//! what DUMP adds. Read are the layouts of RDB versions 1 to 11, written those of version 10 (what
//! Redis 7.0 loads and writes itself) and of version 7 (Redis 3.2 and codis-server). Streams and
//! values of modules are named as what they are, and refused.
//!
//! Must not know: keys, expiry, shards, commands. Whatever comes in may have been made to do harm:
//! nothing here panics on it, and memory stays in proportion to the bytes that came in, which is
//! checked before it is taken.
//!
//! # Layout
//!
//! | type | value | body |
//! |---|---|---|
//! | 0 | string | string |
//! | 1 | list | count, strings |
//! | 2 | set | count, strings |
//! | 3 | sorted set | count, (string, score as text) |
//! | 4 | hash | count, (string, string) |
//! | 5 | sorted set | count, (string, score as 8 bytes) |
//! | 9 | hash | string: zipmap |
//! | 10, 12, 13 | list, sorted set, hash | string: ziplist |
//! | 11 | set | string: intset |
//! | 14 | list | count, strings: ziplists |
//! | 16, 17, 20 | hash, sorted set, set | string: listpack |
//! | 18 | list | count, (1: string as it is, 2: string: listpack) |
//!
//! # Source
//! The documentation of the file format, and payloads of Redis 3.2 and 7.0.

pub mod footer;
mod input;
mod long_text;
mod lzf;
mod output;
mod packed;
mod pause;
mod reader;
mod seen;
mod writer;

pub use long_text::LongText;
pub use pause::{Paused, Text};
pub use reader::Reader;
pub use writer::{Format, Limits, ListWriter, OpenList, Writer};

/// The bytes that begin a value and say how it is laid out.
mod tag {
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    pub(super) const ZSET: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const ZSET_BINARY: u8 = 5;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const ZSET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const ZSET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const SET_LISTPACK: u8 = 20;
    /// Modules (6, 7) and streams (15, 19, 21).
    pub(super) const UNSUPPORTED: [u8; 5] = [6, 7, 15, 19, 21];
}

/// The marks of a node of a list of type 18.
mod node {
    pub(super) const PLAIN: u64 = 1;
    pub(super) const PACKED: u64 = 2;
}

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes.
    String,
    /// Bytes in an order.
    List,
    /// Different bytes.
    Set,
    /// Values by field.
    Hash,
    /// Members with scores.
    Zset,
}

/// A part of a value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Element<'e> {
    /// All of a string.
    Str(&'e [u8]),
    /// An element of a list, or a member of a set.
    Item(&'e [u8]),
    /// A field of a hash, and its value.
    Field(&'e [u8], &'e [u8]),
    /// A member of a sorted set, and its score, which is a number.
    Member(&'e [u8], f64),
}

/// Why a payload is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It ends before the value does; from this offset on, more bytes are announced than follow.
    Truncated(usize),
    /// It cannot be a value.
    Corrupt {
        /// Where that was found: an offset into the payload, or into a packed part of it.
        at: usize,
        /// What was found.
        what: &'static str,
    },
    /// A value of this type byte: a stream, or of a module.
    Unsupported(u8),
    /// The version or the checksum at its end is wrong.
    Footer,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated(at) => write!(f, "the value does not end: byte {at}"),
            Self::Corrupt { at, what } => write!(f, "{what}: byte {at}"),
            Self::Unsupported(tag) => write!(f, "values of type {tag} are not supported"),
            Self::Footer => f.write_str("the version or the checksum at the end is wrong"),
        }
    }
}

impl std::error::Error for Error {}

/// A finding at an offset.
const fn corrupt(at: usize, what: &'static str) -> Error {
    Error::Corrupt { at, what }
}

/// The first `N` bytes of `bytes` from `at` on, if they are there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The payload that DUMP answers and RESTORE takes: what `write` writes, and the footer.
pub fn dump_payload(format: Format, limits: Limits, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new(format, limits);
    write(&mut writer);
    let mut payload = writer.into_bytes();
    footer::seal(&mut payload, format.version());
    payload
}
