//! Elements side by side in bytes: what small collections, and the leaves of big ones, are made of.
//!
//! An element is a head and a payload. Canonical integers become binary, as short as they go; all
//! else is text with its length:
//!
//! | head | then | element |
//! |---|---|---|
//! | `0xxxxxxx` | | integer 0 to 127 |
//! | `10xxxxxx` | that many bytes | text of up to 63 bytes |
//! | `110xxxxx` | 1 byte | integer of 13 bits |
//! | `1110xxxx` | 1 byte, then that many | text of up to 4095 bytes |
//! | `0xf0` | 4 bytes, then that many | longer text |
//! | `0xf1` to `0xf4` | 2, 3, 4, 8 bytes | integer of 16, 24, 32, 64 bits |
//!
//! The encoding of an element is unique, so two are equal exactly if their bytes are. Bytes come from
//! this module only: decoding trusts them.

use std::ops::Deref;

use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;

/// Longest text that spells a 64-bit integer.
const INT_TEXT_BYTES_MAX: usize = 20;
/// Longest head; all of an integer counts as one.
const HEAD_BYTES_MAX: usize = 9;

/// One element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// It spells an integer.
    Int(i64),
    /// Any other bytes.
    Str(&'a [u8]),
}

/// The text of an element, written out if it is an integer.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// It is stored as it is.
    Stored(&'a [u8]),
    /// It is written from an integer.
    Written([u8; INT_TEXT_BYTES_MAX], u8),
}

impl Deref for Text<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Written(bytes, len) => &bytes[..usize::from(*len)],
        }
    }
}

impl<'a> Item<'a> {
    /// The element that these bytes are.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        if bytes.len() <= INT_TEXT_BYTES_MAX
            && let Some(n) = parse_i64(bytes)
        {
            return Self::Int(n);
        }
        Self::Str(bytes)
    }

    /// Its bytes.
    #[inline]
    pub fn text(self) -> Text<'a> {
        match self {
            Self::Str(bytes) => Text::Stored(bytes),
            Self::Int(n) => {
                let mut text = [0; INT_TEXT_BYTES_MAX];
                let mut buffer = itoa::Buffer::new();
                let digits = buffer.format(n).as_bytes();
                text[..digits.len()].copy_from_slice(digits);
                Text::Written(text, digits.len() as u8)
            }
        }
    }

    /// Its bytes, owned.
    pub fn to_vec(self) -> Vec<u8> {
        self.text().to_vec()
    }

    /// Length of its bytes.
    pub fn byte_len(self) -> usize {
        self.text().len()
    }

    /// Writes it as a bulk reply.
    #[inline]
    pub fn reply(self, reply: &mut Reply<'_>) {
        match self {
            Self::Str(bytes) => reply.bulk(bytes),
            Self::Int(n) => reply.bulk_int(n),
        }
    }

    /// Length of its encoding.
    #[inline]
    pub fn encoded_len(self) -> usize {
        match self {
            Self::Str(bytes) => match bytes.len() {
                0..=63 => 1 + bytes.len(),
                64..=4095 => 2 + bytes.len(),
                _ => 5 + bytes.len(),
            },
            Self::Int(n) => match n {
                0..=127 => 1,
                -4096..=4095 => 2,
                -32_768..=32_767 => 3,
                -8_388_608..=8_388_607 => 4,
                -2_147_483_648..=2_147_483_647 => 5,
                _ => 9,
            },
        }
    }

    /// Writes its encoding to the front of `out`, which has room for it. Returns its length.
    #[inline]
    pub fn encode_to(self, out: &mut [u8]) -> usize {
        if let Self::Str(bytes) = self
            && let Some(head) = short_head(bytes)
        {
            out[0] = head;
            out[1..=bytes.len()].copy_from_slice(bytes);
            return 1 + bytes.len();
        }
        let mut at = 0;
        self.encode_with(|bytes| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        });
        at
    }

    /// Appends its encoding.
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) {
        if let Self::Str(bytes) = self
            && let Some(head) = short_head(bytes)
        {
            out.push(head);
            return out.extend_from_slice(bytes);
        }
        self.encode_with(|bytes| out.extend_from_slice(bytes));
    }

    #[inline]
    fn encode_with(self, mut put: impl FnMut(&[u8])) {
        let mut head = [0; HEAD_BYTES_MAX];
        let len = self.encode_head(&mut head);
        put(&head[..len]);
        if let Self::Str(bytes) = self {
            put(bytes);
        }
    }

    /// Writes all of an integer, or what comes before a text. Returns its length.
    #[inline]
    fn encode_head(self, out: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        match self {
            Self::Str(bytes) => {
                let n = (bytes.len() as u32).to_le_bytes();
                let head: &[u8] = match bytes.len() {
                    0..=63 => &[0x80 | n[0]],
                    64..=4095 => &[0xe0 | n[1], n[0]],
                    _ => &[0xf0, n[0], n[1], n[2], n[3]],
                };
                out[..head.len()].copy_from_slice(head);
                head.len()
            }
            Self::Int(n) => {
                let b = n.to_le_bytes();
                let all: &[u8] = match n {
                    0..=127 => &[b[0]],
                    -4096..=4095 => &[0xc0 | (b[1] & 0x1f), b[0]],
                    -32_768..=32_767 => &[0xf1, b[0], b[1]],
                    -8_388_608..=8_388_607 => &[0xf2, b[0], b[1], b[2]],
                    -2_147_483_648..=2_147_483_647 => &[0xf3, b[0], b[1], b[2], b[3]],
                    _ => &[0xf4, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]],
                };
                out[..all.len()].copy_from_slice(all);
                all.len()
            }
        }
    }
}

/// The head of a short text, which most elements are.
#[inline]
const fn short_head(bytes: &[u8]) -> Option<u8> {
    match bytes.len() {
        len @ 0..=63 => Some(0x80 | len as u8),
        _ => None,
    }
}

/// Length of the encoding that begins at `at`.
#[inline]
pub fn skip(data: &[u8], at: usize) -> usize {
    let head = data[at];
    match head {
        0x00..=0x7f => 1,
        0x80..=0xbf => 1 + usize::from(head & 0x3f),
        0xc0..=0xdf => 2,
        0xe0..=0xef => 2 + (usize::from(head & 0x0f) << 8 | usize::from(data[at + 1])),
        0xf0 => 5 + long_len(data, at),
        0xf1 => 3,
        0xf2 => 4,
        0xf3 => 5,
        _ => 9,
    }
}

#[inline]
fn long_len(data: &[u8], at: usize) -> usize {
    u32::from_le_bytes([data[at + 1], data[at + 2], data[at + 3], data[at + 4]]) as usize
}

/// The element whose encoding begins at `at`, and where the next begins.
#[inline]
pub fn decode(data: &[u8], at: usize) -> (Item<'_>, usize) {
    let next = at + skip(data, at);
    let head = data[at];
    let item = match head {
        0x00..=0x7f => Item::Int(i64::from(head)),
        0x80..=0xbf => Item::Str(&data[at + 1..next]),
        0xc0..=0xdf => {
            // Sign-extended from 13 bits.
            let bits = i64::from(head & 0x1f) << 8 | i64::from(data[at + 1]);
            Item::Int(bits << 51 >> 51)
        }
        0xe0..=0xef => Item::Str(&data[at + 2..next]),
        0xf0 => Item::Str(&data[at + 5..next]),
        _ => {
            let mut wide = [0; 8];
            wide[8 - (next - at - 1)..].copy_from_slice(&data[at + 1..next]);
            let shift = 64 - 8 * (next - at - 1) as u32;
            Item::Int(i64::from_le_bytes(wide) >> shift)
        }
    };
    (item, next)
}

/// The elements of `data`, from front to back.
#[inline]
pub fn items(data: &[u8]) -> impl Iterator<Item = Item<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < data.len()).then(|| {
            let (item, next) = decode(data, at);
            at = next;
            item
        })
    })
}

/// Number of elements.
///
/// # Complexity
/// O(n)
pub fn count(data: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < data.len() {
        at += skip(data, at);
        count += 1;
    }
    count
}

/// Where element `index` begins; the end if there are fewer.
pub fn offset_of(data: &[u8], index: usize) -> usize {
    let mut at = 0;
    for _ in 0..index {
        if at >= data.len() {
            break;
        }
        at += skip(data, at);
    }
    at
}

/// Finds an element among every `step`th, from the first: its index (counting all) and offset.
#[inline]
pub fn find(data: &[u8], item: Item<'_>, step: usize) -> Option<(usize, usize)> {
    // An integer is all head; a text is compared behind its head.
    let mut buffer = [0; HEAD_BYTES_MAX];
    let head_len = item.encode_head(&mut buffer);
    let head = &buffer[..head_len];
    let tail = match item {
        Item::Int(_) => &[][..],
        Item::Str(bytes) => bytes,
    };
    let len = head.len() + tail.len();
    let (mut at, mut index) = (0, 0);
    while at < data.len() {
        if data.len() - at >= len && data[at..at + head.len()] == *head {
            let body = &data[at + head.len()..at + len];
            if body == tail {
                return Some((index, at));
            }
        }
        for _ in 0..step {
            if at >= data.len() {
                break;
            }
            at += skip(data, at);
        }
        index += step;
    }
    None
}

/// Replaces `data[from..to]` by the encoding of some elements.
pub fn splice(data: &mut Vec<u8>, from: usize, to: usize, items: &[Item<'_>]) {
    let added = items.iter().map(|item| item.encoded_len()).sum::<usize>();
    let (old_len, removed) = (data.len(), to - from);
    if added > removed {
        let more = added - removed;
        // In steps of an eighth: a packed run grows often and is kept long.
        if data.capacity() < old_len + more {
            data.reserve_exact(more + old_len / 8);
        }
        data.resize(old_len + more, 0);
    }
    data.copy_within(to..old_len, from + added);
    data.truncate(old_len + added - removed);
    let mut at = from;
    for item in items {
        at += item.encode_to(&mut data[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges() -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = [
            0,
            1,
            127,
            128,
            -1,
            4095,
            4096,
            -4096,
            -4097,
            32767,
            32768,
            -32768,
            -32769,
            8388607,
            8388608,
            -8388608,
            -8388609,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            1 << 31,
            -(1 << 31) - 1,
            i64::MAX,
            i64::MIN,
        ]
        .iter()
        .map(|n: &i64| n.to_string().into_bytes())
        .collect();
        for len in [0, 1, 5, 20, 21, 62, 63, 64, 65, 4095, 4096, 70_000] {
            all.push(vec![b'x'; len]);
        }
        for text in ["-0", "00", "01", "+1", " 1", "1 ", "9223372036854775808", "1.0"] {
            all.push(text.as_bytes().to_vec());
        }
        all
    }

    #[test]
    fn items_of_every_shape_come_back_as_they_were() {
        let all = edges();
        let mut data = Vec::new();
        for bytes in &all {
            let before = data.len();
            Item::new(bytes).encode(&mut data);
            assert_eq!(data.len() - before, Item::new(bytes).encoded_len());
            assert_eq!(skip(&data, before), data.len() - before);
        }
        let back: Vec<Vec<u8>> = items(&data).map(Item::to_vec).collect();
        assert_eq!(back, all);
        assert_eq!(count(&data), all.len());
        for (index, bytes) in all.iter().enumerate() {
            let (found, at) = find(&data, Item::new(bytes), 1).expect("it was put in");
            assert_eq!((found, at), (index, offset_of(&data, index)), "{bytes:?}");
        }
        assert_eq!(find(&data, Item::new(b"absent"), 1), None);
    }

    #[test]
    fn splice_replaces_by_longer_and_shorter() {
        let all = edges();
        for with in [&b""[..], b"7", b"a longer text than what was there before, surely"] {
            for index in 0..all.len() {
                let mut model: Vec<Vec<u8>> = all.clone();
                let mut data = Vec::new();
                all.iter().for_each(|bytes| Item::new(bytes).encode(&mut data));
                let (from, to) = (offset_of(&data, index), offset_of(&data, index + 1));
                splice(&mut data, from, to, &[Item::new(with), Item::new(b"12")]);
                model.splice(index..=index, [with.to_vec(), b"12".to_vec()]);
                let back: Vec<Vec<u8>> = items(&data).map(Item::to_vec).collect();
                assert_eq!(back, model);
            }
        }
    }
}
