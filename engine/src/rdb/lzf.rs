//! LZF, the compression of strings: literal runs, and copies of what came at most 8 KiB before.
//!
//! # Layout
//! A byte below 32 is followed by that many literal bytes and one more. Else its high three bits are
//! the length of a copy less two (7: the next byte is added), its low five bits and the byte after
//! that the distance less one.
//!
//! Written here and not taken from a crate: the bytes must be those that Redis writes, which depends
//! on every decision of its encoder and on the room that it is given; and the encoder's table
//! (256 KiB) must not be cleared for every short string.
//!
//! # Source
//! The format of LibLZF; the encoder's choices are found by comparing with payloads of Redis.

use std::cell::RefCell;

use crate::rdb::{Error, corrupt};

const LITERALS_MAX: usize = 32;
const DISTANCE_MAX: usize = 1 << 13;
const COPY_BYTES_MAX: usize = 264;
const TABLE_BITS: u32 = 16;

/// Where three bytes were last seen. Positions grow from string to string, so that what an earlier
/// one has left is known by its number, and nothing is cleared.
#[derive(Debug)]
struct Recent {
    cells: Box<[u32]>,
    /// Position that the first byte of the current string has; 0 in a cell is before any.
    base: u32,
}

thread_local! {
    /// One table a thread: a string is encoded from its beginning to its end, unless it is long.
    static RECENT: RefCell<Recent> = RefCell::new(Recent::new());
}

impl Recent {
    fn new() -> Self {
        Self { cells: vec![0; 1 << TABLE_BITS].into_boxed_slice(), base: 1 }
    }

    /// Prepares for a string of `len` bytes.
    fn begin(&mut self, len: u32) {
        if self.base.checked_add(len).is_none() {
            self.cells.fill(0);
            self.base = 1;
        }
    }

    /// Puts position `at` in the place of these three bytes; returns what was there, if it is of
    /// this string.
    #[inline]
    fn replace(&mut self, three: u32, at: usize) -> Option<usize> {
        // The hash of the encoder that Redis uses: which matches are found depends on it.
        let hash = (three >> (24 - TABLE_BITS)).wrapping_sub(three.wrapping_mul(5));
        let cell = &mut self.cells[(hash & ((1 << TABLE_BITS) - 1)) as usize];
        let seen = std::mem::replace(cell, self.base + at as u32);
        seen.checked_sub(self.base).map(|at| at as usize)
    }
}

/// Appends `data` compressed to `out`, in at most `room` bytes; returns how many. `None`, and `out`
/// as it was, if that is not enough.
pub(super) fn compress(data: &[u8], room: usize, out: &mut Vec<u8>) -> Option<usize> {
    // Positions have 32 bits, and a table that is new needs one to begin with.
    let len = u32::try_from(data.len()).ok().filter(|&len| len < u32::MAX)?;
    let start = out.len();
    let done = RECENT.with_borrow_mut(|recent| {
        recent.begin(len);
        let mut encoder = Encoder { data, out: &mut *out, limit: start + room, run: 0 };
        encoder.out.push(0);
        let done = encoder.go_on(recent, 0, usize::MAX).and_then(|at| encoder.end(at));
        recent.base += len;
        done
    });
    if done.is_none() {
        out.truncate(start);
    }
    done.map(|()| out.len() - start)
}

/// Compression in steps, with a table of its own. All calls are about the same bytes.
#[derive(Debug)]
pub(super) struct Pack {
    recent: Recent,
    /// The next byte of the data.
    at: usize,
    /// Literals since the last copy.
    run: usize,
    /// Length that the output may reach.
    limit: usize,
}

impl Pack {
    /// Begins to append data to `out`, in at most `room` bytes.
    pub(super) fn begin(out: &mut Vec<u8>, room: usize) -> Self {
        let limit = out.len() + room;
        out.push(0);
        Self { recent: Recent::new(), at: 0, run: 0, limit }
    }

    /// Compresses about `bytes_max` more bytes; `true` when all is done. `None` if the room is not
    /// enough.
    pub(super) fn step(
        &mut self,
        data: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Option<bool> {
        let mut encoder = Encoder { data, out, limit: self.limit, run: self.run };
        self.at = encoder.go_on(&mut self.recent, self.at, self.at.saturating_add(bytes_max))?;
        let is_done = self.at + 2 >= data.len();
        if is_done {
            encoder.end(self.at)?;
        }
        self.run = encoder.run;
        Some(is_done)
    }
}

struct Encoder<'e> {
    data: &'e [u8],
    out: &'e mut Vec<u8>,
    /// Length that `out` may reach.
    limit: usize,
    /// Literals since the last copy. Before them is a byte for their number.
    run: usize,
}

impl Encoder<'_> {
    /// Encodes from `at` to `end` or a little further, but not the last two bytes; returns the next.
    fn go_on(&mut self, recent: &mut Recent, mut at: usize, end: usize) -> Option<usize> {
        while at < end && at + 2 < self.data.len() {
            let seen = recent.replace(self.three(at), at);
            match seen.and_then(|seen| self.copyable(seen, at)) {
                Some((distance, len)) => {
                    self.copy(distance, len)?;
                    at += len;
                    if at + 2 >= self.data.len() {
                        break;
                    }
                    // Of what was copied, the last two positions are remembered.
                    recent.replace(self.three(at - 2), at - 2);
                    recent.replace(self.three(at - 1), at - 1);
                }
                None => {
                    if self.out.len() >= self.limit {
                        return None;
                    }
                    self.literal(at);
                    at += 1;
                }
            }
        }
        Some(at)
    }

    fn end(&mut self, at: usize) -> Option<()> {
        // At most three bytes are left, and the number of a run that they may begin.
        if self.out.len() + 3 > self.limit {
            return None;
        }
        (at..self.data.len()).for_each(|at| self.literal(at));
        self.end_run();
        Some(())
    }

    fn three(&self, at: usize) -> u32 {
        u32::from(self.data[at]) << 16
            | u32::from(self.data[at + 1]) << 8
            | u32::from(self.data[at + 2])
    }

    /// Distance and length of what is at `at` and was at `seen` already.
    fn copyable(&self, seen: usize, at: usize) -> Option<(usize, usize)> {
        let distance = at - seen;
        let is_near = seen > 0 && distance <= DISTANCE_MAX;
        if !is_near || self.data[seen..seen + 3] != self.data[at..at + 3] {
            return None;
        }
        // Redis: its encoder stops two bytes short of the end, but looks at a few without counting.
        let len_max = (self.data.len() - at - 2).min(COPY_BYTES_MAX);
        let len_max = len_max.max(if len_max > 16 { 19 } else { 3 });
        let pairs = self.data[seen..].iter().zip(&self.data[at..]).take(len_max);
        Some((distance, pairs.take_while(|(a, b)| a == b).count()))
    }

    fn literal(&mut self, at: usize) {
        self.out.push(self.data[at]);
        self.run += 1;
        if self.run == LITERALS_MAX {
            self.end_run();
            self.out.push(0);
        }
    }

    /// Writes the number of literals before them; a run of none leaves nothing.
    fn end_run(&mut self) {
        let mark = self.out.len() - self.run - 1;
        if self.run == 0 {
            self.out.pop();
        } else {
            self.out[mark] = self.run as u8 - 1;
        }
        self.run = 0;
    }

    fn copy(&mut self, distance: usize, len: usize) -> Option<()> {
        if self.out.len() - usize::from(self.run == 0) + 4 >= self.limit {
            return None;
        }
        self.end_run();
        let (distance, len) = (distance - 1, len - 2);
        let high = (distance >> 8) as u8;
        if len < 7 {
            self.out.push(high | (len as u8) << 5);
        } else {
            self.out.extend_from_slice(&[high | 7 << 5, (len - 7) as u8]);
        }
        self.out.push(distance as u8);
        self.out.push(0);
        Some(())
    }
}

/// One step of a compressed string.
enum Step<'d> {
    Literals(&'d [u8]),
    Copy { distance: usize, len: usize },
}

/// The step at `at`, and where the next begins; `None` if it does not end.
fn step(data: &[u8], at: usize) -> Option<(Step<'_>, usize)> {
    let control = usize::from(*data.get(at)?);
    let mut at = at + 1;
    if control < LITERALS_MAX {
        let end = at + control + 1;
        return Some((Step::Literals(data.get(at..end)?), end));
    }
    let mut len = control >> 5;
    if len == 7 {
        len += usize::from(*data.get(at)?);
        at += 1;
    }
    let distance = (control & 0x1f) << 8 | usize::from(*data.get(at)?);
    Some((Step::Copy { distance: distance + 1, len: len + 2 }, at + 1))
}

/// Replaces `out` by what `data` holds compressed, which is `len` bytes.
///
/// # Errors
/// If it is not, which is known before memory is taken.
pub(super) fn decompress(data: &[u8], len: u64, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut unpack = Unpack::into(std::mem::take(out));
    while !unpack.step(data, len, usize::MAX)? {}
    *out = unpack.out;
    Ok(())
}

/// Decompression in steps. All calls are about the same bytes.
#[derive(Debug, Default)]
pub(super) struct Unpack {
    /// Where the next step of `data` begins.
    at: usize,
    /// Bytes that the steps so far make.
    total: usize,
    /// Every step has been looked at, and may be taken.
    is_checked: bool,
    out: Vec<u8>,
}

impl Unpack {
    /// Puts the bytes where others were.
    fn into(mut out: Vec<u8>) -> Self {
        out.clear();
        Self { out, ..Self::default() }
    }

    /// Goes on by at least `byte_count` bytes of what comes out, if there are so many; `true` at the
    /// end.
    ///
    /// # Errors
    /// As [`decompress`].
    pub(super) fn step(&mut self, data: &[u8], len: u64, byte_count: usize) -> Result<bool, Error> {
        let until = self.total.saturating_add(byte_count);
        if !self.is_checked {
            self.check(data, until)?;
            if self.at == data.len() {
                if self.total as u64 != len {
                    return Err(corrupt(
                        self.at,
                        "a compressed string has another length than it says",
                    ));
                }
                self.out.reserve_exact(self.total);
                *self = Self {
                    is_checked: true,
                    out: std::mem::take(&mut self.out),
                    ..Self::default()
                };
                return Ok(data.is_empty());
            }
            return Ok(false);
        }
        while self.out.len() < until
            && let Some((step, next)) = step(data, self.at)
        {
            match step {
                Step::Literals(bytes) => self.out.extend_from_slice(bytes),
                Step::Copy { distance, len } => copy_within(&mut self.out, distance, len),
            }
            self.at = next;
        }
        self.total = self.out.len();
        Ok(self.at == data.len())
    }

    /// Looks at steps without taking them.
    fn check(&mut self, data: &[u8], until: usize) -> Result<(), Error> {
        while self.at < data.len() && self.total < until {
            let at = self.at;
            let (step, next) =
                step(data, at).ok_or(corrupt(at, "a compressed string is cut off"))?;
            self.total += match step {
                Step::Literals(bytes) => bytes.len(),
                Step::Copy { distance, .. } if distance > self.total => {
                    return Err(corrupt(at, "a compressed string refers to what is before it"));
                }
                Step::Copy { len, .. } => len,
            };
            self.at = next;
        }
        Ok(())
    }

    /// What came out.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// Appends `len` bytes that begin `distance` before the end; they may reach into themselves.
fn copy_within(out: &mut Vec<u8>, distance: usize, mut len: usize) {
    let from = out.len() - distance;
    while len > 0 {
        let part = len.min(out.len() - from);
        out.extend_from_within(from..from + part);
        len -= part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(data: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let len = compress(data, data.len() - 4, &mut out);
        assert!(out.starts_with(b"before"));
        assert_eq!(len.unwrap_or(0), out.len() - 6);
        len.map(|_| out.split_off(6))
    }

    fn unpacked(data: &[u8], len: u64) -> Result<Vec<u8>, Error> {
        let mut out = b"old".to_vec();
        decompress(data, len, &mut out).map(|()| out)
    }

    #[test]
    fn one_letter_many_times_is_packed_as_by_redis() {
        let want = b"\x01xx\xe0\x25\x00\x01xx";
        assert_eq!(packed(&[b'x'; 50]).as_deref(), Some(&want[..]));
        assert_eq!(unpacked(want, 50), Ok(vec![b'x'; 50]));
    }

    #[test]
    fn data_is_packed_in_steps_as_at_once() {
        let mut state = 7u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for letters in [1, 2, 3, 20, 256] {
            let data: Vec<u8> = (0..20_000).map(|_| next(letters) as u8).collect();
            for len in [4, 5, 300, 19_999, 20_000] {
                let (data, want) = (&data[..len], packed(&data[..len]));
                for step_bytes in [1, 7, 1000, usize::MAX] {
                    let mut out = Vec::new();
                    let mut pack = Pack::begin(&mut out, len - 4);
                    let got = loop {
                        match pack.step(data, &mut out, step_bytes) {
                            Some(false) => {}
                            done => break done.map(|_| out),
                        }
                    };
                    assert!(got == want, "{len} bytes of {letters} letters by {step_bytes}");
                }
            }
        }
    }

    #[test]
    fn noise_is_not_packed() {
        let noise: Vec<u8> = (0..200u32).map(|i| (i * i * 7 + i * 31) as u8 ^ i as u8).collect();
        assert_eq!(packed(&noise[..30]), None);
    }

    #[test]
    fn positions_that_run_out_begin_anew() {
        RECENT.with_borrow_mut(|recent| recent.base = u32::MAX - 60);
        let want = packed(&[b'y'; 50]);
        assert_eq!(packed(&[b'y'; 50]), want);
        assert_eq!(packed(&[b'y'; 50]), want);
    }

    #[test]
    fn bad_steps_are_refused() {
        let cases: [(&[u8], u64); 7] = [
            (b"\x01x", 2),
            (b"\xe0", 9),
            (b"\xe0\x00", 9),
            (b"\x20\x00", 3),
            (b"\x00x\x20\x01", 4),
            (b"\x00x\x20\x00", 5),
            (b"\x00x\x20\x00", u64::MAX),
        ];
        for (data, len) in cases {
            assert!(unpacked(data, len).is_err(), "{data:?}");
        }
        assert_eq!(unpacked(b"\x00x\x20\x00", 4), Ok(b"xxxx".to_vec()));
        assert_eq!(unpacked(b"", 0), Ok(vec![]));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_back(parts in proptest::collection::vec((0u8..4, 1usize..300), 1..40)) {
            let mut data: Vec<u8> = Vec::new();
            for (letter, len) in parts {
                data.extend((0..len).map(|i| letter * (i % 7) as u8));
            }
            data.extend_from_slice(b"tail");
            if let Some(small) = packed(&data) {
                assert!(small.len() + 4 <= data.len());
                assert_eq!(unpacked(&small, data.len() as u64), Ok(data));
            }
        }

        #[test]
        fn any_packed_bytes_are_read_or_refused(data: Vec<u8>, len in 0u64..2000) {
            if let Ok(out) = unpacked(&data, len) {
                assert_eq!(out.len() as u64, len);
            }
        }
    }
}
