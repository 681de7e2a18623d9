//! The primitives of the layout, written: lengths, strings and scores.

use crate::rdb::lzf;
use crate::resp::number::{format_g17, parse_i64};

/// Longest text that is tried as an integer: `-2147483648`.
const INT_TEXT_BYTES_MAX: usize = 11;

/// What a compressed string begins with.
pub(super) const COMPRESSED: u8 = 0xc3;

/// Shortest string that is compressed.
const COMPRESSED_BYTES_MIN: usize = 21;

/// Longest string that is compressed: its positions have 32 bits.
pub(super) const COMPRESSED_BYTES_MAX: usize = u32::MAX as usize - 1;

/// Appends a length: as short as it gets.
pub(super) fn put_length(out: &mut Vec<u8>, n: u64) {
    match n {
        0..=63 => out.push(n as u8),
        64..=16_383 => out.extend_from_slice(&[0x40 | (n >> 8) as u8, n as u8]),
        _ if n <= u64::from(u32::MAX) => {
            out.push(0x80);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
}

/// Appends a string: as an integer if it is a small one, compressed if that is shorter.
pub(super) fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    let small = (text.len() <= INT_TEXT_BYTES_MAX).then(|| parse_i64(text)).flatten();
    let done = match small {
        Some(n) => put_small_int(out, n),
        None => text.len() >= COMPRESSED_BYTES_MIN && put_compressed(out, text),
    };
    if !done {
        put_length(out, text.len() as u64);
        out.extend_from_slice(text);
    }
}

fn put_small_int(out: &mut Vec<u8>, n: i64) -> bool {
    let (form, len) = match n {
        -128..=127 => (0, 1),
        -32_768..=32_767 => (1, 2),
        -2_147_483_648..=2_147_483_647 => (2, 4),
        _ => return false,
    };
    out.push(0xc0 | form);
    out.extend_from_slice(&n.to_le_bytes()[..len]);
    true
}

fn put_compressed(out: &mut Vec<u8>, text: &[u8]) -> bool {
    if text.len() > COMPRESSED_BYTES_MAX {
        return false;
    }
    // Both lengths stand before the bytes, and one of them is known only after: it is put between.
    let from = out.len();
    let Some(packed_bytes) = lzf::compress(text, text.len() - 4, out) else {
        return false;
    };
    let mut head = Vec::with_capacity(19);
    head.push(COMPRESSED);
    put_length(&mut head, packed_bytes as u64);
    put_length(&mut head, text.len() as u64);
    out.splice(from..from, head);
    true
}

/// Appends a score in 8 bytes.
pub(super) fn put_score_binary(out: &mut Vec<u8>, score: f64) {
    out.extend_from_slice(&score.to_le_bytes());
}

/// Appends a score as text after its length; infinite ones have a length of their own.
pub(super) fn put_score_text(out: &mut Vec<u8>, score: f64) {
    if score.is_infinite() {
        return out.push(if score > 0.0 { 254 } else { 255 });
    }
    let text = format_g17(score);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The text of a score in a packed sorted set.
pub(super) fn score_text(score: f64) -> String {
    // An integer of up to 63 bits is written without an exponent. Redis: -0 becomes 0 on the way.
    let half = (i64::MAX / 2) as f64;
    if score.trunc() == score && (-half..=half).contains(&score) {
        return itoa::Buffer::new().format(score as i64).to_owned();
    }
    format_g17(score)
}
