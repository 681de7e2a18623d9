//! The primitives of the layout, read: lengths, strings and scores.

use std::borrow::Cow;

use crate::rdb::{Error, corrupt, lzf};
use crate::resp::number::parse_f64;

/// Longest string that is unpacked: Redis refuses longer ones by default.
const STRING_BYTES_MAX: u64 = 512 << 20;

/// A position in a payload.
#[derive(Clone, Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The first bytes of a string.
enum Length {
    /// So many bytes follow.
    Bytes(u64),
    /// It is written in a form of its own.
    Form(u8),
}

/// Where bytes are put that do not stand in the payload as they are.
#[derive(Debug, Default)]
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    /// The text of an integer.
    pub(super) fn digits(&mut self, n: i64) -> &[u8] {
        self.0.clear();
        self.0.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        &self.0
    }

    /// Memory that it holds.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}

/// A string as it is written.
#[derive(Debug)]
pub(super) enum Written<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    Packed { data: &'a [u8], len: u64 },
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The payload.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same position in the same payload, which is held elsewhere.
    pub(super) fn with_bytes<'b>(&self, bytes: &'b [u8]) -> Input<'b> {
        Input { bytes, at: self.at }
    }

    /// Bytes that follow.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or(Error::Truncated(self.at))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let array = super::array_at(self.bytes, self.at).ok_or(Error::Truncated(self.at))?;
        self.at += N;
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Six bits in the first byte, 14 in two, or 32 or 64 in the bytes after it; big-endian.
    fn length(&mut self) -> Result<Length, Error> {
        let at = self.at;
        let first = self.byte()?;
        let low = first & 0x3f;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Bytes(u64::from(low)),
            (1, _) => Length::Bytes(u64::from(low) << 8 | u64::from(self.byte()?)),
            (_, 0x80) => Length::Bytes(u64::from(u32::from_be_bytes(self.array()?))),
            (_, 0x81) => Length::Bytes(u64::from_be_bytes(self.array()?)),
            (3, _) => Length::Form(low),
            _ => return Err(corrupt(at, "a length of an unknown form")),
        })
    }

    /// A number that is not the length of a string.
    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let at = self.at;
        match self.length()? {
            Length::Bytes(n) => Ok(n),
            Length::Form(_) => Err(corrupt(at, "a form of strings where a number belongs")),
        }
    }

    /// A number of things of at least `bytes_min` bytes each, which must follow.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<u64, Error> {
        let count = self.number()?;
        if count > (self.left() / bytes_min) as u64 {
            return Err(Error::Truncated(self.at));
        }
        Ok(count)
    }

    /// A string, not unpacked yet.
    pub(super) fn written(&mut self) -> Result<Written<'a>, Error> {
        let at = self.at;
        Ok(match self.length()? {
            Length::Bytes(len) => Written::Bytes(self.take(len)?),
            Length::Form(0) => Written::Int(i64::from(i8::from_le_bytes(self.array()?))),
            Length::Form(1) => Written::Int(i64::from(i16::from_le_bytes(self.array()?))),
            Length::Form(2) => Written::Int(i64::from(i32::from_le_bytes(self.array()?))),
            Length::Form(3) => {
                let packed_bytes = self.number()?;
                let len = self.number()?;
                if len > STRING_BYTES_MAX {
                    return Err(corrupt(at, "a compressed string is too long"));
                }
                Written::Packed { data: self.take(packed_bytes)?, len }
            }
            Length::Form(_) => return Err(corrupt(at, "a string of an unknown form")),
        })
    }

    /// A string: where it stands, or in `scratch`.
    pub(super) fn string<'s>(&mut self, scratch: &'s mut Scratch) -> Result<&'s [u8], Error>
    where
        'a: 's,
    {
        Ok(match self.written()? {
            Written::Bytes(bytes) => bytes,
            Written::Int(n) => scratch.digits(n),
            Written::Packed { data, len } => {
                lzf::decompress(data, len, &mut scratch.0)?;
                &scratch.0
            }
        })
    }

    /// A string to keep while others are read.
    pub(super) fn blob(&mut self) -> Result<Cow<'a, [u8]>, Error> {
        Ok(match self.written()? {
            Written::Bytes(bytes) => Cow::Borrowed(bytes),
            Written::Int(n) => Cow::Owned(n.to_string().into_bytes()),
            Written::Packed { data, len } => {
                let mut bytes = Vec::new();
                lzf::decompress(data, len, &mut bytes)?;
                Cow::Owned(bytes)
            }
        })
    }

    /// A score in 8 bytes.
    pub(super) fn score_binary(&mut self) -> Result<f64, Error> {
        let at = self.at;
        number_score(f64::from_le_bytes(self.array()?), at)
    }

    /// A score as text after its length, which also says what is no number or infinite.
    pub(super) fn score_text(&mut self) -> Result<f64, Error> {
        let at = self.at;
        match self.byte()? {
            253 => number_score(f64::NAN, at),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            len => score_of(self.take(u64::from(len))?, at),
        }
    }
}

fn number_score(score: f64, at: usize) -> Result<f64, Error> {
    if score.is_nan() { Err(corrupt(at, "a score is not a number")) } else { Ok(score) }
}

/// The score that a text spells.
pub(super) fn score_of(text: &[u8], at: usize) -> Result<f64, Error> {
    parse_f64(text).ok_or(corrupt(at, "a score is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_width_are_read() {
        let cases: [(&[u8], u64); 6] = [
            (b"\x00", 0),
            (b"\x3f", 63),
            (b"\x40\x40", 64),
            (b"\x7f\xff", 16_383),
            (b"\x80\x00\x01\x00\x00", 65_536),
            (b"\x81\x00\x00\x00\x01\x00\x00\x00\x00", 1 << 32),
        ];
        for (bytes, n) in cases {
            assert_eq!(Input::new(bytes).number(), Ok(n));
            for len in 0..bytes.len() {
                assert_eq!(Input::new(&bytes[..len]).number(), Err(Error::Truncated(len.min(1))));
            }
        }
        for bytes in [&b"\x82\0\0\0\0"[..], b"\xbf\0\0\0\0", b"\xc0\0", b"\xff"] {
            assert!(Input::new(bytes).number().is_err());
        }
    }

    #[test]
    fn strings_of_every_form_are_read() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"\x03abc", b"abc"),
            (b"\xc0\x80", b"-128"),
            (b"\xc1\xff\x7f", b"32767"),
            (b"\xc2\x00\x00\x00\x80", b"-2147483648"),
            (b"\xc3\x09\x32\x01xx\xe0\x25\x00\x01xx", &[b'x'; 50]),
            (b"\x00", b""),
        ];
        for (bytes, text) in cases {
            let mut scratch = Scratch::default();
            assert_eq!(Input::new(bytes).string(&mut scratch), Ok(text));
            assert_eq!(Input::new(bytes).blob().as_deref(), Ok(text));
            for len in 0..bytes.len() {
                assert!(Input::new(&bytes[..len]).string(&mut scratch).is_err());
            }
        }
        assert!(Input::new(b"\xc4\0\0").string(&mut Scratch::default()).is_err());
    }

    #[test]
    fn string_that_promises_terabytes_takes_no_memory() {
        let long = [&b"\xc3\x04\x81\0\0\x01\0\0\0\0\0"[..], b"\x00x\x20\x00"].concat();
        let mut scratch = Scratch::default();
        assert!(Input::new(&long).string(&mut scratch).is_err());
        assert_eq!(scratch.heap_bytes(), 0);
        let raw = b"\x81\x7f\xff\xff\xff\xff\xff\xff\xffabc";
        assert_eq!(Input::new(raw).string(&mut scratch), Err(Error::Truncated(9)));
    }

    #[test]
    fn scores_as_text_are_read_and_nan_is_refused() {
        let cases: [(&[u8], f64); 3] =
            [(b"\x031.5", 1.5), (b"\xfe", f64::INFINITY), (b"\xff", -f64::INFINITY)];
        for (bytes, score) in &cases {
            assert_eq!(Input::new(bytes).score_text(), Ok(*score));
        }
        for bytes in [&b"\xfd"[..], b"\x03nan", b"\x00", b"\x05abc", b"\x01-"] {
            assert!(Input::new(bytes).score_text().is_err());
        }
        assert!(Input::new(&f64::NAN.to_le_bytes()).score_binary().is_err());
        assert_eq!(Input::new(&2.5f64.to_le_bytes()).score_binary(), Ok(2.5));
    }
}
