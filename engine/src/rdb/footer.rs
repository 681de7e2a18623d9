//! The end of what DUMP answers: the version of the layout in 2 bytes and a checksum in 8, both
//! little-endian. The checksum covers all that comes before it.

use std::fmt::Debug;

use crc::{CRC_64_REDIS, Crc, Digest, Table};

use crate::rdb::Error;

/// The newest layout that is read.
pub const VERSION_MAX: u16 = 11;

const VERSION_BYTES: usize = 2;

/// Sixteen bytes a step: payloads are up to hundreds of megabytes long.
static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u64 {
    CRC.checksum(bytes)
}

/// A checksum of what comes in pieces.
pub fn digest() -> crc::Digest<'static, u64, Table<16>> {
    CRC.digest()
}

/// Adds the footer to a value.
pub fn seal(payload: &mut Vec<u8>, version: u16) {
    payload.extend_from_slice(&version.to_le_bytes());
    let sum = checksum(payload);
    payload.extend_from_slice(&sum.to_le_bytes());
}

/// The value before the footer, and its version.
///
/// # Errors
/// [`Error::Footer`] if there is none, or a newer version, or the bytes have changed.
pub fn open(payload: &[u8]) -> Result<(&[u8], u16), Error> {
    let mut check = Check::default();
    check.step(payload, payload.len());
    check.end(payload)
}

/// What stands before the footer, whether that is right or not.
pub fn body(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().saturating_sub(VERSION_BYTES + size_of::<u64>())]
}

/// A payload without its checksum, and that.
fn summed(payload: &[u8]) -> Option<(&[u8], u64)> {
    let (summed, sum) = payload.split_last_chunk()?;
    (summed.len() >= VERSION_BYTES).then_some((summed, u64::from_le_bytes(*sum)))
}

/// The checksum of bytes, worked out in steps. All calls are about the same bytes.
struct Sum {
    digest: Digest<'static, u64, Table<16>>,
    done_bytes: usize,
}

impl Default for Sum {
    fn default() -> Self {
        Self { digest: CRC.digest(), done_bytes: 0 }
    }
}

impl Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sum").field("done_bytes", &self.done_bytes).finish_non_exhaustive()
    }
}

impl Sum {
    /// Looks at so many bytes more; `true` if those were the last.
    fn step(&mut self, bytes: &[u8], byte_count: usize) -> bool {
        let rest = bytes.get(self.done_bytes..).unwrap_or_default();
        let part = &rest[..rest.len().min(byte_count)];
        self.digest.update(part);
        self.done_bytes += part.len();
        part.len() == rest.len()
    }
}

/// [`seal`] in steps, for values that are long.
#[derive(Debug)]
pub struct Seal {
    payload: Vec<u8>,
    sum: Sum,
}

impl Seal {
    /// Begins with a value.
    pub fn new(mut payload: Vec<u8>, version: u16) -> Self {
        payload.extend_from_slice(&version.to_le_bytes());
        Self { payload, sum: Sum::default() }
    }

    /// Goes on by so many bytes; `true` at the end.
    pub fn step(&mut self, byte_count: usize) -> bool {
        self.sum.step(&self.payload, byte_count)
    }

    /// The value with its footer, once all has been looked at.
    pub fn into_payload(self) -> Vec<u8> {
        let Self { mut payload, sum } = self;
        payload.extend_from_slice(&sum.digest.finalize().to_le_bytes());
        payload
    }
}

/// [`open`] in steps, for payloads that are long. All calls are about the same payload.
#[derive(Debug, Default)]
pub struct Check(Sum);

impl Check {
    /// Looks at so many bytes more; `true` if those were the last.
    pub fn step(&mut self, payload: &[u8], byte_count: usize) -> bool {
        self.0.step(summed(payload).map_or(&[][..], |(summed, _)| summed), byte_count)
    }

    /// The value before the footer, and its version, once all has been looked at.
    ///
    /// # Errors
    /// As [`open`].
    pub fn end(self, payload: &[u8]) -> Result<(&[u8], u16), Error> {
        let (summed, sum) = summed(payload).ok_or(Error::Footer)?;
        let (_, version) = summed.split_last_chunk().ok_or(Error::Footer)?;
        let version = u16::from_le_bytes(*version);
        let is_right = self.0.done_bytes == summed.len() && self.0.digest.finalize() == sum;
        if version > VERSION_MAX || !is_right {
            return Err(Error::Footer);
        }
        Ok((body(payload), version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_digits_is_that_of_the_catalogue() {
        assert_eq!(checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn footer_with_any_bit_flipped_is_refused() {
        let mut payload = b"\0\xc0\x05".to_vec();
        seal(&mut payload, 10);
        assert_eq!(open(&payload), Ok((&b"\0\xc0\x05"[..], 10)));
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&flipped), Err(Error::Footer));
        }
        for len in 0..payload.len() {
            assert_eq!(open(&payload[..len]), Err(Error::Footer));
        }
    }

    #[test]
    fn footer_of_a_newer_version_is_refused() {
        for (version, is_read) in [(0, true), (6, true), (11, true), (12, false), (u16::MAX, false)]
        {
            let mut payload = b"\0\0".to_vec();
            seal(&mut payload, version);
            assert_eq!(open(&payload).is_ok(), is_read, "{version}");
        }
    }

    #[test]
    fn footer_that_is_checked_in_parts_is_found_right_or_wrong() {
        let mut payload: Vec<u8> = (0..1000).map(|n| (n * 7) as u8).collect();
        seal(&mut payload, 10);
        let in_parts = |payload: &[u8], byte_count| {
            let (mut check, mut steps) = (Check::default(), 1);
            while !check.step(payload, byte_count) {
                steps += 1;
            }
            (check.end(payload).map(|(body, version)| (body.to_vec(), version)), steps)
        };
        let whole = open(&payload).map(|(body, version)| (body.to_vec(), version));
        assert!(whole.is_ok());
        assert_eq!(in_parts(&payload, 1), (whole.clone(), 1002));
        assert_eq!(in_parts(&payload, 100), (whole, 11));
        payload[500] ^= 1;
        assert_eq!(in_parts(&payload, 100), (Err(Error::Footer), 11));
        assert_eq!(Check::default().end(&payload), Err(Error::Footer));
    }
}
