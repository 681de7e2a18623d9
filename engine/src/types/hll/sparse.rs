//! Sparse registers: runs of equal ones, in order.
//!
//! | bits | run |
//! |---|---|
//! | `00nnnnnn` | n + 1 registers that are 0 |
//! | `01nnnnnn nnnnnnnn` | n + 1 registers that are 0 |
//! | `1vvvvvnn` | n + 1 registers of rank v + 1 |
//!
//! Which runs describe given registers is not unique. Where runs are split and joined is part of the
//! layout: the same elements in the same order leave the same bytes as in Redis.

use super::{Corrupted, HEADER_BYTES, Mark};

const IS_VALUE: u8 = 0x80;
const IS_LONG: u8 = 0x40;
const SHORT_LEN_MAX: usize = 64;
const VALUE_LEN_MAX: usize = 4;
const VALUE_MAX: u8 = 32;

/// Runs looked at for neighbours to join after a change.
const JOIN_SCAN_RUNS: usize = 5;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// What its registers hold.
    pub(super) value: u8,
    /// Number of registers.
    pub(super) len: usize,
    /// Bytes that describe it.
    pub(super) size_bytes: usize,
}

impl Run {
    /// The run that is described at `at`, which is within `bytes`. Of a cut one, the second byte is 0.
    fn at(bytes: &[u8], at: usize) -> Self {
        let byte = bytes[at];
        if byte & IS_VALUE != 0 {
            let len = usize::from(byte & 3) + 1;
            return Self { value: (byte >> 2 & 31) + 1, len, size_bytes: 1 };
        }
        let high = usize::from(byte & 63);
        if byte & IS_LONG == 0 {
            return Self { value: 0, len: high + 1, size_bytes: 1 };
        }
        let low = bytes.get(at + 1).copied().unwrap_or(0);
        Self { value: 0, len: (high << 8 | usize::from(low)) + 1, size_bytes: 2 }
    }
}

/// The runs of a whole string.
pub(super) fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> {
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        let run = (at < bytes.len()).then(|| Run::at(bytes, at))?;
        at += run.size_bytes;
        Some(run)
    })
}

/// Appends a run of zeros; nothing if it is empty.
pub(super) fn push_zeros(bytes: &mut Vec<u8>, len: usize) {
    let Some(n) = len.checked_sub(1) else { return };
    if len > SHORT_LEN_MAX {
        bytes.extend([(n >> 8) as u8 | IS_LONG, n as u8]);
    } else {
        bytes.push(n as u8);
    }
}

/// The byte of a run of equal ranks.
fn value_byte(value: u8, len: usize) -> u8 {
    IS_VALUE | (value - 1) << 2 | (len - 1) as u8
}

/// A place to begin a search at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    at: usize,
    /// First register of the run there.
    first: usize,
}

impl Default for Cursor {
    /// The first run.
    fn default() -> Self {
        Self { at: HEADER_BYTES, first: 0 }
    }
}

/// What became of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lift {
    /// It was as high already.
    AsHigh,
    /// It was lower.
    Done,
    /// Runs cannot hold the rank, or there would be too many of them. Nothing was done.
    Full,
}

/// Lifts a register. The search for it begins at `cursor`, which is moved: for another call with a
/// higher register.
pub(super) fn lift(
    bytes: &mut Vec<u8>,
    mark: Mark,
    bytes_max: usize,
    cursor: &mut Cursor,
) -> Result<Lift, Corrupted> {
    if mark.rank > VALUE_MAX {
        return Ok(Lift::Full);
    }
    let (found, run, before) = find(bytes, mark.register, *cursor)?;
    let Cursor { at, first } = found;
    if run.value >= mark.rank {
        return Ok(Lift::AsHigh);
    }
    let parts = Parts::split(run, mark.register - first, mark.rank);
    let parts = parts.bytes();
    if parts.len() > run.size_bytes && bytes.len() + parts.len() - run.size_bytes > bytes_max {
        return Ok(Lift::Full);
    }
    bytes.splice(at..at + run.size_bytes, parts.iter().copied());
    *cursor = before.unwrap_or_default();
    join_equal(bytes, cursor.at);
    Ok(Lift::Done)
}

/// The run that a register is in, and where the one before it begins.
fn find(
    bytes: &[u8],
    register: usize,
    from: Cursor,
) -> Result<(Cursor, Run, Option<Cursor>), Corrupted> {
    let mut here = from;
    let mut before = None;
    while here.at < bytes.len() {
        let run = Run::at(bytes, here.at);
        let (next_at, next_first) = (here.at + run.size_bytes, here.first + run.len);
        if register < next_first {
            if next_at > bytes.len() {
                return Err(Corrupted);
            }
            if before.is_none() && from != Cursor::default() {
                // The one before lies before the place where the search began.
                return find(bytes, register, Cursor::default());
            }
            return Ok((here, run, before));
        }
        before = Some(here);
        here = Cursor { at: next_at, first: next_first };
    }
    Err(Corrupted)
}

/// The runs that replace one: at most two long ones with a value between them.
struct Parts {
    bytes: [u8; 5],
    len: usize,
}

impl Parts {
    /// Splits a run at its register `index`, which gets a rank of its own.
    fn split(run: Run, index: usize, rank: u8) -> Self {
        let mut parts = Self { bytes: [0; 5], len: 0 };
        parts.push(run.value, index);
        parts.push(rank, 1);
        parts.push(run.value, run.len - index - 1);
        parts
    }

    fn push(&mut self, value: u8, len: usize) {
        let Some(n) = len.checked_sub(1) else { return };
        let mut put = |byte| {
            self.bytes[self.len] = byte;
            self.len += 1;
        };
        if value > 0 {
            put(value_byte(value, len));
        } else if len > SHORT_LEN_MAX {
            put((n >> 8) as u8 | IS_LONG);
            put(n as u8);
        } else {
            put(n as u8);
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Joins neighbours of equal rank among the first runs from `at` on.
fn join_equal(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..JOIN_SCAN_RUNS {
        if at >= bytes.len() {
            return;
        }
        let run = Run::at(bytes, at);
        if run.value > 0 && at + 1 < bytes.len() {
            let next = Run::at(bytes, at + 1);
            if next.value == run.value && run.len + next.len <= VALUE_LEN_MAX {
                bytes[at + 1] = value_byte(run.value, run.len + next.len);
                bytes.remove(at);
                // Perhaps it can be joined with the next one as well.
                continue;
            }
        }
        at += run.size_bytes;
    }
}
