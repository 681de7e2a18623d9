//! SCAN over the cluster: slot by slot, each asked of whoever serves it, so that a key that is there
//! all the time is returned even if its slot moves meanwhile.
//!
//! The cursor says where the next call goes on: the slot, the position within it as its server gave
//! it, and a mark of that server. Positions of one server mean nothing to another, so a slot that has
//! moved since is begun again: its keys may come twice, which SCAN allows, but none is missed. The
//! cursor holds all that there is to know, so any proxy can go on with it.
//!
//! Slots are asked several at once while they hold little, so that a small database needs few round
//! trips.

use cordis_engine::commands::args::Args;
use cordis_engine::commands::glob::{self, Case};
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::reply::Protocol;
use cordis_engine::resp::value::Value;
use cordis_engine::units::{SLOT_COUNT, SlotId};

use crate::asks::To;
use crate::encode;
use crate::hub::Hub;
use crate::link::LinkError;
use crate::local::{Pause, fail};
use crate::request::link_error_reply;
use crate::session::Place;
use crate::ways::{Call, Flow};
use crate::wide;

/// Keys of one call if it does not say how many.
const COUNT: i64 = 10;
/// Slots that are asked at once.
const WINDOW_MAX: usize = 256;

const POSITION_BITS: u32 = 37;
const MARK_BITS: u32 = 16;

/// Where a scan is.
///
/// # Layout
/// Bits of the number, from the highest: 1 zero, 10 slot, 16 mark, 37 position. So it is positive for
/// clients that take it as signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cursor {
    /// `SLOT_COUNT` at the end.
    slot: usize,
    /// The server's position within the slot.
    position: u64,
    /// Whose position it is.
    mark: u16,
}

/// A server's position in fewer bits: a flag, then 36 bits. A Cordis server's has 32 bits of a hash's
/// prefix, of which the lower twelve are zero up to a billion keys in one slot, and 16 bits of
/// fingerprint; a codis-server's is the number of a bucket.
fn pack(position: u64) -> Option<u64> {
    const GAP: u64 = 0x0fff << 16;
    if position & GAP == 0 && position < 1 << 48 {
        return Some((position >> 28) << 16 | position & 0xffff);
    }
    (position < 1 << 36).then_some(1 << 36 | position)
}

fn unpack(packed: u64) -> u64 {
    if packed >> 36 & 1 == 1 {
        return packed & ((1 << 36) - 1);
    }
    (packed >> 16) << 28 | packed & 0xffff
}

impl Cursor {
    fn read(number: u64) -> Option<Self> {
        let slot = (number >> (MARK_BITS + POSITION_BITS)) as usize;
        let mark = (number >> POSITION_BITS) as u16;
        let position = unpack(number & ((1 << POSITION_BITS) - 1));
        (slot < SLOT_COUNT).then_some(Self { slot, position, mark })
    }

    /// The number; 0 at the end. Nothing if the position does not fit.
    fn number(self) -> Option<u64> {
        if self.slot >= SLOT_COUNT {
            return Some(0);
        }
        let high = (self.slot as u64) << MARK_BITS | u64::from(self.mark);
        Some(high << POSITION_BITS | pack(self.position)?)
    }
}

/// Tells servers apart in a cursor.
fn mark_of(addr: &str) -> u16 {
    crc32fast::hash(addr.as_bytes()) as u16
}

/// What a call asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    cursor: Cursor,
    pattern: Option<Vec<u8>>,
    count: i64,
    kind: Option<Vec<u8>>,
}

/// The number that a word spells.
///
/// # Source
/// Redis leaves it to `strtoul`: nothing is 0, and a sign is taken.
fn parse_number(word: &[u8]) -> Option<u64> {
    let text = word.split(|&byte| byte == 0).next().unwrap_or_default();
    let (is_negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .try_fold(0u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    n.map(|n| if is_negative { n.wrapping_neg() } else { n })
}

fn parse(args: &Args<'_>) -> Result<Wanted, CommandError> {
    let number = parse_number(args.at(1)).ok_or(CommandError::INVALID_CURSOR)?;
    // A number that no call has returned is a place behind all slots.
    let behind = Cursor { slot: SLOT_COUNT, ..Cursor::default() };
    let cursor = Cursor::read(number).unwrap_or(behind);
    let mut wanted = Wanted { cursor, pattern: None, count: COUNT, kind: None };
    let mut words = args.cursor(2);
    while words.left() > 0 {
        if let Some(count) = words.take_value("count") {
            wanted.count = parse_i64(count).ok_or(CommandError::NOT_INTEGER)?;
            if wanted.count < 1 {
                return Err(CommandError::SYNTAX);
            }
        } else if let Some(pattern) = words.take_value("match") {
            // Redis: a lone star matches the empty key too, which the pattern as such does not.
            wanted.pattern = Some(pattern.to_vec()).filter(|pattern| pattern != b"*");
        } else if let Some(kind) = words.take_value("type") {
            wanted.kind = Some(kind.to_ascii_lowercase());
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(wanted)
}

/// A call under way.
struct Scan {
    wanted: Wanted,
    place: Place,
    end: Pause,
    db: u8,
    /// Where it is.
    at: Cursor,
    /// Keys seen, matching or not.
    seen: i64,
    /// Slots to ask at once.
    window: usize,
    keys: Vec<Vec<u8>>,
}

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
pub(crate) fn scan(hub: &mut Hub, call: &Call<'_>) -> Flow {
    if wide::must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let wanted = match parse(call.args) {
        Ok(wanted) => wanted,
        Err(error) => return fail(hub, call.session, &error),
    };
    let (db, _) = wide::state_of(hub, call.session);
    let pause = Pause::new(hub, call.session, call.command);
    let place = hub.reserve(call.session);
    let (at, end) = (wanted.cursor, pause.clone());
    let begin = if at.slot < SLOT_COUNT { ask } else { |hub: &mut Hub, scan| answer(hub, &scan) };
    begin(hub, Scan { wanted, place, end, db, at, seen: 0, window: 1, keys: Vec::new() });
    pause.flow()
}

fn slot(index: usize) -> SlotId {
    SlotId::from_crc(index as u32)
}

/// Asks the next slots.
fn ask(hub: &mut Hub, mut scan: Scan) {
    let owner = hub.backend_of(slot(scan.at.slot)).map(|id| mark_of(&hub.backend(id).addr));
    if scan.at.position != 0 && owner != Some(scan.at.mark) {
        // It has moved: what the old server's position means there, nobody knows.
        scan.at.position = 0;
    }
    // Servers count in 32 bits.
    let count = (scan.wanted.count - scan.seen).clamp(1, i32::MAX.into()).to_string();
    let last = SLOT_COUNT.min(scan.at.slot + scan.window);
    let questions: Vec<(To, Vec<u8>)> = (scan.at.slot..last)
        .map(|index| {
            let position = if index == scan.at.slot { scan.at.position } else { 0 };
            let (index_text, position) = (index.to_string(), position.to_string());
            let request: [&[u8]; 5] = [
                b"SLOTSSCAN",
                index_text.as_bytes(),
                position.as_bytes(),
                b"COUNT",
                count.as_bytes(),
            ];
            (To::Slot(slot(index)), encode::to_vec(&request))
        })
        .collect();
    let db = scan.db;
    hub.ask_all(
        &questions,
        db,
        Protocol::Resp2,
        Box::new(move |hub, answers| match take(hub, &mut scan, answers) {
            Err(reply) => finish(hub, &scan, &reply),
            Ok(true) => keep_kind(hub, scan),
            Ok(false) => ask(hub, scan),
        }),
    );
}

/// Takes the pages of some slots. Whether the call has seen enough; an error reply otherwise.
fn take(
    hub: &Hub,
    scan: &mut Scan,
    answers: Vec<Result<Vec<u8>, LinkError>>,
) -> Result<bool, Vec<u8>> {
    let (seen_before, slots) = (scan.seen, answers.len());
    for answer in answers {
        let reply = answer.map_err(|error| link_error_reply(&error))?;
        if reply.first() == Some(&b'-') {
            return Err(reply);
        }
        let (next, keys) = page_of(&reply).map_err(|error| link_error_reply(&error))?;
        scan.seen = scan.seen.saturating_add(keys.len() as i64);
        let pattern = scan.wanted.pattern.as_deref();
        scan.keys.extend(keys.into_iter().filter(|key| {
            pattern.is_none_or(|pattern| glob::matches(pattern, key, Case::Sensitive))
        }));
        if next != 0 {
            let owner = hub.backend_of(slot(scan.at.slot)).map(|id| &hub.backend(id).addr);
            scan.at.position = next;
            scan.at.mark = owner.map_or(0, |addr| mark_of(addr));
            return Ok(true);
        }
        scan.at = Cursor { slot: scan.at.slot + 1, ..Cursor::default() };
        if scan.seen >= scan.wanted.count || scan.at.slot >= SLOT_COUNT {
            return Ok(true);
        }
    }
    // As many slots as will give the rest, by how much these gave.
    let (seen, left) = (scan.seen - seen_before, scan.wanted.count - scan.seen);
    scan.window = match usize::try_from(left.saturating_mul(slots as i64) / seen.max(1)) {
        _ if seen == 0 => scan.window * 4,
        Ok(window) => window + 1,
        Err(_) => 1,
    };
    scan.window = scan.window.clamp(1, WINDOW_MAX);
    Ok(false)
}

/// The next position and the keys of a page.
fn page_of(reply: &[u8]) -> Result<(u64, Vec<Vec<u8>>), LinkError> {
    let strange = || LinkError::new("handle response, a backend answered no page of a slot");
    let Value::Array(mut parts) = wide::value_of(reply)? else {
        return Err(strange());
    };
    let (Some(Value::Array(keys)), Some(next), None) = (parts.pop(), parts.pop(), parts.pop())
    else {
        return Err(strange());
    };
    let next = next.as_text().and_then(|text| text.parse().ok()).ok_or_else(strange)?;
    let keys = keys.into_iter().map(|key| match key {
        Value::Bulk(key) => Ok(key),
        _ => Err(strange()),
    });
    Ok((next, keys.collect::<Result<_, _>>()?))
}

/// Drops keys of other types, if the call asks for one.
fn keep_kind(hub: &mut Hub, mut scan: Scan) {
    let Some(kind) = scan.wanted.kind.clone().filter(|_| !scan.keys.is_empty()) else {
        return answer(hub, &scan);
    };
    let questions: Vec<(To, Vec<u8>)> = scan
        .keys
        .iter()
        .map(|key| {
            let slot = cordis_engine::slots::hash::slot_of(key);
            (To::Slot(slot), encode::to_vec(&[b"TYPE", key]))
        })
        .collect();
    let db = scan.db;
    hub.ask_all(
        &questions,
        db,
        Protocol::Resp2,
        Box::new(move |hub, answers| {
            let mut kept = Vec::new();
            for (key, answer) in std::mem::take(&mut scan.keys).into_iter().zip(answers) {
                match answer {
                    Ok(reply)
                        if reply
                            .strip_prefix(b"+")
                            .is_some_and(|t| t.trim_ascii_end().eq_ignore_ascii_case(&kind)) =>
                    {
                        kept.push(key)
                    }
                    Ok(_) => {}
                    Err(error) => return finish(hub, &scan, &link_error_reply(&error)),
                }
            }
            scan.keys = kept;
            answer(hub, &scan);
        }),
    );
}

fn answer(hub: &mut Hub, scan: &Scan) {
    let Some(number) = scan.at.number() else {
        let error = LinkError::new("handle response, a backend's cursor is too large for SCAN");
        return finish(hub, scan, &link_error_reply(&error));
    };
    let mut reply = Vec::new();
    encode::array(&mut reply, 2);
    encode::bulk(&mut reply, number.to_string().as_bytes());
    encode::array(&mut reply, scan.keys.len());
    scan.keys.iter().for_each(|key| encode::bulk(&mut reply, key));
    finish(hub, scan, &reply);
}

fn finish(hub: &mut Hub, scan: &Scan, reply: &[u8]) {
    hub.fill_raw(scan.place, reply);
    scan.end.end(hub);
}

#[cfg(test)]
mod tests {
    use cordis_engine::commands::args::OwnedArgs;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_survive_their_number(
            slot in 0..SLOT_COUNT,
            mark in any::<u16>(),
            prefix in 0..1u64 << 20,
            fingerprint in any::<u16>(),
            bucket in 0..1u64 << 36,
        ) {
            for position in [prefix << 28 | u64::from(fingerprint), bucket] {
                let cursor = Cursor { slot, position, mark };
                let number = cursor.number().expect("such positions fit");
                prop_assert!(number < 1 << 63);
                prop_assert_eq!(Cursor::read(number), Some(cursor));
            }
        }
    }

    #[test]
    fn cursor_that_is_no_place_is_refused() {
        assert_eq!(Cursor::read(0), Some(Cursor::default()));
        assert_eq!(Cursor::read(u64::MAX), None);
        assert_eq!(Cursor { slot: SLOT_COUNT, ..Cursor::default() }.number(), Some(0));
        assert_eq!(Cursor { position: 1 << 60, ..Cursor::default() }.number(), None);
        // Beyond a billion keys in a slot a position has bits where none fit.
        let long = Cursor { position: 1 << 47 | 1 << 17, ..Cursor::default() };
        assert_eq!(long.number(), None);
    }

    #[test]
    fn numbers_are_read_as_redis_reads_them() {
        assert_eq!(parse_number(b""), Some(0));
        assert_eq!(parse_number(b"+7"), Some(7));
        assert_eq!(parse_number(b"-1"), Some(u64::MAX));
        assert_eq!(parse_number(b"18446744073709551616"), None);
        assert_eq!(parse_number(b" 1"), None);
    }

    #[test]
    fn options_are_those_of_redis() {
        let parsed = |words: &[&[u8]]| parse(&OwnedArgs::of(words).args());
        let wanted = parsed(&[b"SCAN", b"0", b"match", b"a*", b"COUNT", b"5", b"type", b"ZSET"]);
        let wanted = wanted.expect("it is well formed");
        assert_eq!((wanted.count, wanted.kind.as_deref()), (5, Some(&b"zset"[..])));
        for (words, error) in [
            (&[&b"SCAN"[..], b"x"][..], CommandError::INVALID_CURSOR),
            (&[b"SCAN", b"-"], CommandError::INVALID_CURSOR),
            (&[b"SCAN", b"0", b"COUNT", b"0"], CommandError::SYNTAX),
            (&[b"SCAN", b"0", b"COUNT", b"x"], CommandError::NOT_INTEGER),
            (&[b"SCAN", b"0", b"MATCH"], CommandError::SYNTAX),
            (&[b"SCAN", b"0", b"nonsense"], CommandError::SYNTAX),
        ] {
            assert_eq!(parsed(words), Err(error), "{words:?}");
        }
    }
}
