//! The form in which effects are kept: frames of records. Knows no file and no core.
//!
//! A **frame** holds whole records of one core, in the order in which it made them. Its checksum
//! covers all of it, and the place where it belongs: what is torn, moved or stale is no frame.
//!
//! # Layout
//! Little-endian.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..4 | `CRDF` |
//! | 4..8 | length of the frame |
//! | 8..16 | xxh3-64 of all that follows, seeded with the number of the file |
//! | 16..24 | offset of the frame in its file |
//! | 24..32 | all before this offset was known to be on disk when the frame was written |
//! | 32..40 | logical time of its first record |
//! | 40..48 | logical time of its last record |
//! | 48..50 | flags: 1 = the unit goes on in the next frame |
//! | 50..52 | number of ties |
//! | 52..56 | zero |
//! | 56.. | ties: core (2 bytes) and logical time (8 bytes) each |
//! | then | records |
//!
//! A **tie** says that the frame follows from what another core had recorded up to that time: without
//! it, it means nothing. Frames that a unit goes on over are one: their records are read as if they
//! stood in one piece, so a record may begin in one and end in the next.
//!
//! A **record** is `kind (1), slot (2; 0xffff is none), database (1), words (varint)`, then each word
//! with its length before it (varint). Time of a record within a frame is not kept: nobody needs it.

use std::ops::Range;

use crate::commands::args::ArgRange;
use crate::units::{CoreId, DATABASES_MAX, DbIndex, SlotId};

/// Bytes of a frame before its ties.
pub const HEADER_BYTES: usize = 56;
/// Bytes of a tie.
pub const TIE_BYTES: usize = 10;
/// What every frame begins with.
pub const MAGIC: [u8; 4] = *b"CRDF";
/// A frame that is longer ends with its record: its unit goes on in the next one.
pub const FRAME_BYTES_AIM: usize = 1 << 24;
/// Most ties of a frame.
pub const TIES_MAX: usize = 64;

const NO_SLOT: u16 = u16::MAX;
const FLAG_GOES_ON: u16 = 1;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A call: an effect.
    Call,
    /// A slot was emptied, all databases of it, for what no call says (it has left this server).
    Cleared,
    /// It says nothing; its time is what others may follow from.
    Nothing,
}

/// Another core's records that a frame follows from: all up to this logical time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tie {
    /// Whose they are.
    pub core: CoreId,
    /// The logical time of the last.
    pub clock: u64,
}

/// What stands before the records of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Length of the frame.
    pub len: usize,
    /// Known to be on disk when it was written: all of the file before this offset.
    pub synced: u64,
    /// Logical time of its first record.
    pub first: u64,
    /// Logical time of its last record.
    pub last: u64,
    /// Its last unit goes on in the next frame.
    pub goes_on: bool,
    /// What it follows from.
    pub ties: Vec<Tie>,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// There is nothing: zero bytes, or the end.
    Nothing,
    /// It ends before its length does.
    Short,
    /// They do not begin as a frame does.
    Magic,
    /// A length that no frame has.
    Length,
    /// The checksum is another.
    Checksum,
    /// It belongs to another place.
    Misplaced,
    /// Its header contradicts itself.
    Header,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing is there",
            Self::Short => "a frame is cut off",
            Self::Magic => "no frame begins there",
            Self::Length => "a frame has an impossible length",
            Self::Checksum => "the checksum of a frame is wrong",
            Self::Misplaced => "a frame belongs to another place",
            Self::Header => "the header of a frame contradicts itself",
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Begins a frame at the end of `out`: room for its header, and its ties.
pub fn begin(out: &mut Vec<u8>, first: u64, ties: &[Tie]) {
    let at = out.len();
    out.resize(at + HEADER_BYTES, 0);
    out[at..at + 4].copy_from_slice(&MAGIC);
    out[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
    out[at + 50..at + 52].copy_from_slice(&(ties.len() as u16).to_le_bytes());
    for tie in ties {
        out.extend_from_slice(&tie.core.0.to_le_bytes());
        out.extend_from_slice(&tie.clock.to_le_bytes());
    }
}

/// Ends a frame, which is all of `out` from `at` on. What depends on its file is still missing.
pub fn end(out: &mut [u8], at: usize, last: u64, goes_on: bool) {
    let len = out.len() - at;
    let flags = if goes_on { FLAG_GOES_ON } else { 0 };
    out[at + 4..at + 8].copy_from_slice(&(len as u32).to_le_bytes());
    out[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
    out[at + 48..at + 50].copy_from_slice(&flags.to_le_bytes());
}

/// Length of a frame that has ended.
pub fn len_of(frame: &[u8]) -> usize {
    u32_at(frame, 4) as usize
}

/// Logical time up to which all is there if a frame that has ended is, and those before it; none if
/// its last unit goes on.
pub fn complete_to(frame: &[u8]) -> Option<u64> {
    (u16_at(frame, 48) & FLAG_GOES_ON == 0).then(|| u64_at(frame, 40))
}

/// Makes a frame that has ended ready for its place: file `number`, offset `at`.
pub fn place(frame: &mut [u8], number: u64, at: u64, synced: u64) {
    frame[16..24].copy_from_slice(&at.to_le_bytes());
    frame[24..32].copy_from_slice(&synced.to_le_bytes());
    let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&frame[16..], number);
    frame[8..16].copy_from_slice(&sum.to_le_bytes());
}

/// Reads the header of the frame that `bytes` begins with and checks all of it. `at` is where in
/// file `number` that is.
///
/// # Errors
/// See [`Bad`].
pub fn check(bytes: &[u8], number: u64, at: u64) -> Result<Header, Bad> {
    if bytes.iter().take(HEADER_BYTES).all(|&byte| byte == 0) {
        return Err(Bad::Nothing);
    }
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(Bad::Magic);
    }
    if bytes.len() < HEADER_BYTES {
        return Err(Bad::Short);
    }
    let len = u32_at(bytes, 4) as usize;
    let tie_count = usize::from(u16_at(bytes, 50));
    if tie_count > TIES_MAX || len < HEADER_BYTES + tie_count * TIE_BYTES {
        return Err(Bad::Length);
    }
    let Some(frame) = bytes.get(..len) else { return Err(Bad::Short) };
    if xxhash_rust::xxh3::xxh3_64_with_seed(&frame[16..], number) != u64_at(frame, 8) {
        return Err(Bad::Checksum);
    }
    if u64_at(frame, 16) != at {
        return Err(Bad::Misplaced);
    }
    let ties = frame[HEADER_BYTES..HEADER_BYTES + tie_count * TIE_BYTES].chunks_exact(TIE_BYTES);
    let ties = ties.map(|tie| Tie { core: CoreId(u16_at(tie, 0)), clock: u64_at(tie, 2) });
    let header = Header {
        len,
        synced: u64_at(frame, 24),
        first: u64_at(frame, 32),
        last: u64_at(frame, 40),
        goes_on: u16_at(frame, 48) & FLAG_GOES_ON != 0,
        ties: ties.collect(),
    };
    if header.first > header.last || header.synced > at {
        return Err(Bad::Header);
    }
    Ok(header)
}

impl Header {
    /// Where its records are within the frame.
    pub fn records(&self) -> Range<usize> {
        HEADER_BYTES + self.ties.len() * TIE_BYTES..self.len
    }
}

// ---- records ----

/// Appends a number, seven bits a byte.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends what stands before the words of a record.
#[inline]
pub fn put_head(
    out: &mut Vec<u8>,
    kind: Kind,
    slot: Option<SlotId>,
    db: DbIndex,
    word_count: usize,
) {
    let slot = slot.map_or(NO_SLOT, |slot| slot.index() as u16).to_le_bytes();
    out.extend_from_slice(&[kind as u8, slot[0], slot[1], db.0]);
    put_varint(out, word_count as u64);
}

/// Appends a word.
#[inline]
pub fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    put_varint(out, word.len() as u64);
    out.extend_from_slice(word);
}

/// A record, without its words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// The slot of its key; none for a whole database.
    pub slot: Option<SlotId>,
    /// The database.
    pub db: DbIndex,
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        n |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

/// Reads the record that `bytes` begins with; its words are put into `ranges`. Also how long it is.
/// Nothing if there is no record.
pub fn read(bytes: &[u8], ranges: &mut Vec<ArgRange>) -> Option<(Record, usize)> {
    ranges.clear();
    let head = bytes.get(..4)?;
    let kind = match head[0] {
        0 => Kind::Call,
        1 => Kind::Cleared,
        2 => Kind::Nothing,
        _ => return None,
    };
    let slot = match u16_at(head, 1) {
        NO_SLOT => None,
        n => Some(SlotId::new(u64::from(n))?),
    };
    let db = DbIndex(head[3]);
    if db.index() >= DATABASES_MAX {
        return None;
    }
    let mut at = 4;
    let count = usize::try_from(varint(bytes, &mut at)?).ok()?;
    // Each word takes a byte at least: nothing is reserved for more than there can be.
    if count > bytes.len() - at || (kind == Kind::Call) == (count == 0) {
        return None;
    }
    for _ in 0..count {
        let len = usize::try_from(varint(bytes, &mut at)?).ok()?;
        let (start, end) = (at, at.checked_add(len).filter(|&end| end <= bytes.len())?);
        at = end;
        ranges.push(ArgRange { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? });
    }
    Some((Record { kind, slot, db }, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out, 7, &[Tie { core: CoreId(3), clock: 5 }]);
        put_head(&mut out, Kind::Call, SlotId::new(9), DbIndex(2), words.len());
        words.iter().for_each(|word| put_word(&mut out, word));
        end(&mut out, 0, 8, true);
        place(&mut out, 11, 4096, 100);
        out
    }

    #[test]
    fn frame_is_read_as_it_was_written() {
        let long = vec![b'x'; 300];
        let words: [&[u8]; 3] = [b"SET", b"", &long];
        let frame = frame(&words);
        let header = check(&frame, 11, 4096).expect("it is whole");
        assert_eq!((header.first, header.last, header.synced), (7, 8, 100));
        assert!(header.goes_on && header.ties == [Tie { core: CoreId(3), clock: 5 }]);
        let bytes = &frame[header.records()];
        let mut ranges = Vec::new();
        let (record, len) = read(bytes, &mut ranges).expect("a record");
        assert_eq!(record, Record { kind: Kind::Call, slot: SlotId::new(9), db: DbIndex(2) });
        let got: Vec<&[u8]> =
            ranges.iter().map(|r| &bytes[r.start as usize..r.end as usize]).collect();
        assert_eq!((got.as_slice(), len), (&words[..], bytes.len()));
        assert_eq!(read(&bytes[len..], &mut ranges), None);
    }

    #[test]
    fn frame_with_any_byte_changed_or_cut_off_is_none() {
        let good = frame(&[b"SET", b"key", b"value"]);
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1 << (index % 8);
            assert!(check(&bad, 11, 4096).is_err(), "byte {index}");
            assert!(check(&good[..index], 11, 4096).is_err(), "{index} bytes");
        }
        assert_eq!(check(&good, 12, 4096), Err(Bad::Checksum), "of another file");
        assert_eq!(check(&good, 11, 4097), Err(Bad::Misplaced));
        assert_eq!(check(&[0; 100], 11, 0), Err(Bad::Nothing));
    }

    #[test]
    fn records_that_are_none_are_refused_without_a_panic() {
        let good = frame(&[b"SET", b"key", b"value"]);
        let records = &good[HEADER_BYTES + TIE_BYTES..];
        let mut ranges = Vec::new();
        for index in 0..records.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = records.to_vec();
                bad[index] = byte;
                // Whatever it is taken for, it stays within its bytes.
                let mut rest = &bad[..];
                while let Some((_, len)) = read(rest, &mut ranges) {
                    assert!(ranges.iter().all(|range| range.end as usize <= len));
                    rest = &rest[len..];
                }
            }
        }
    }
}
