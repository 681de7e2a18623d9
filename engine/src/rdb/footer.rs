//! The end of what DUMP answers: the version of the layout in 2 bytes and a checksum in 8, both
//! little-endian. The checksum covers all that comes before it.

use crc::{CRC_64_REDIS, Crc, Table};

use crate::rdb::Error;

/// The newest layout that is read.
pub const VERSION_MAX: u16 = 11;

const VERSION_BYTES: usize = 2;
const FOOTER_BYTES: usize = VERSION_BYTES + 8;

/// Sixteen bytes a step: payloads are up to hundreds of megabytes long.
static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u64 {
    CRC.checksum(bytes)
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
    let body_bytes = payload.len().checked_sub(FOOTER_BYTES).ok_or(Error::Footer)?;
    let (summed, sum) = payload.split_at(body_bytes + VERSION_BYTES);
    let (body, version) = summed.split_at(body_bytes);
    let (Some(version), Some(sum)) = (version.first_chunk(), sum.first_chunk()) else {
        return Err(Error::Footer);
    };
    let version = u16::from_le_bytes(*version);
    if version > VERSION_MAX || u64::from_le_bytes(*sum) != checksum(summed) {
        return Err(Error::Footer);
    }
    Ok((body, version))
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
}
