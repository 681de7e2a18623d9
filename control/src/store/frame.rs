//! How changes lie in a log file. Pure: bytes in, changes out.
//!
//! # Layout
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `CORDISC1` |
//! | 8..16 | generation of the file, little-endian |
//! | then frames | the first one holds everything, each other one changes |
//!
//! | bytes of a frame | what |
//! |---|---|
//! | 0..4 | length of the payload, little-endian |
//! | 4..8 | CRC-32 of generation, offset of the frame in the file, and payload |
//! | 8.. | payload: a JSON array of `[name, text or null]` |
//!
//! The checksum covers where the frame lies, so bytes of an older life of the disk never pass for it.

use std::collections::BTreeMap;

use crate::model::Record;

const MAGIC: &[u8; 8] = b"CORDISC1";
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 16;
const FRAME_HEADER_BYTES: usize = 8;

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    /// Texts by name.
    pub texts: BTreeMap<String, String>,
    /// Where the last whole frame ends. What lies behind was being written when the power went.
    pub good_bytes: usize,
}

/// Damage that no crash explains.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub offset: usize,
    /// What.
    pub why: &'static str,
}

/// The beginning of a file.
pub fn header(generation: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &generation.to_le_bytes()].concat()
}

/// A frame that lies at `offset`.
pub fn encode(generation: u64, offset: usize, records: &[Record]) -> Vec<u8> {
    let pairs: Vec<(&str, Option<&str>)> =
        records.iter().map(|record| (record.key.as_str(), record.value.as_deref())).collect();
    let payload = serde_json::to_vec(&pairs).expect("pairs of texts are always JSON");
    let mut frame = Vec::with_capacity(payload.len() + FRAME_HEADER_BYTES);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&checksum(generation, offset, &payload).to_le_bytes());
    frame.extend_from_slice(&payload);
    frame
}

fn checksum(generation: u64, offset: usize, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The payload of a whole frame at `offset`, and where it ends.
fn frame_at(generation: u64, bytes: &[u8], offset: usize) -> Option<(&[u8], usize)> {
    let head = bytes.get(offset..offset + FRAME_HEADER_BYTES)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(head[4..].try_into().ok()?);
    let begin = offset + FRAME_HEADER_BYTES;
    let end = begin.checked_add(length)?;
    let payload = bytes.get(begin..end)?;
    (checksum(generation, offset, payload) == sum).then_some((payload, end))
}

/// Reads a file of a generation.
///
/// # Errors
/// If something is damaged that was whole on disk once: the beginning, which is written before the
/// file gets its name, or a frame that others follow.
pub fn decode(generation: u64, bytes: &[u8]) -> Result<Contents, Damage> {
    if bytes.len() < HEADER_BYTES || bytes[..HEADER_BYTES] != header(generation) {
        return Err(Damage { offset: 0, why: "not the beginning of a log of this generation" });
    }
    let mut texts = BTreeMap::new();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let Some((payload, end)) = frame_at(generation, bytes, at) else {
            break;
        };
        let pairs: Vec<(String, Option<String>)> = serde_json::from_slice(payload)
            .map_err(|_| Damage { offset: at, why: "a whole frame of another format" })?;
        for (key, value) in pairs {
            match value {
                Some(value) => drop(texts.insert(key, value)),
                None => drop(texts.remove(&key)),
            }
        }
        at = end;
    }
    if at == HEADER_BYTES {
        return Err(Damage { offset: at, why: "the first frame is not whole" });
    }
    // A crash tears what was written last. Anything whole behind it was written later.
    let is_followed =
        (at + 1..bytes.len()).any(|later| frame_at(generation, bytes, later).is_some());
    if is_followed {
        return Err(Damage { offset: at, why: "a frame is not whole, and others follow it" });
    }
    Ok(Contents { texts, good_bytes: at })
}
