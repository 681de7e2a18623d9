//! Single bits and ranges of them: GETBIT, SETBIT, BITCOUNT, BITPOS.

use std::sync::Arc;

use crate::commands::args::{Args, is_token};
use crate::commands::bitmap::{BYTES_PER_ELEMENT, STEP_BYTES, offset};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::long::{Finish, LongOp};
use crate::commands::spec::CommandResult;
use crate::commands::string::{clamp_range, is_reversed};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::store::entry::Value;

pub(super) fn getbit(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let at = offset(ctx, args.at(2))?;
    let key = ctx.key(args.at(1));
    let bit = match ctx.read_string(key)? {
        Some(value) => bit_at(&value.bytes(), at),
        None => false,
    };
    reply.int_bool(bit);
    Ok(())
}

/// The bit at an offset; there are only zeros past the end.
fn bit_at(bytes: &[u8], at: u64) -> bool {
    let byte = usize::try_from(at / 8).ok().and_then(|byte| bytes.get(byte));
    byte.is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}

pub(super) fn setbit(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let at = offset(ctx, args.at(2))?;
    let bit = match args.at(3) {
        b"0" => false,
        b"1" => true,
        _ => return Err(CommandError::BIT_VALUE),
    };
    let key = ctx.key(args.at(1));
    let old_len = ctx.write_string(key)?.map(|value| value.byte_len());
    let len = (at / 8) as usize + 1;
    let byte = &mut ctx.edit_string(key, len)[len - 1];
    let mask = 0x80 >> (at % 8);
    let old = *byte & mask != 0;
    *byte = if bit { *byte | mask } else { *byte & !mask };
    // Redis: a bit that was as it should be is no change, unless the string had to grow for it.
    if old != bit || old_len.is_none_or(|old_len| old_len < len) {
        ctx.modified(key, Event::String("setbit"));
    }
    reply.int_bool(old);
    Ok(())
}

/// Whether a range counts bits (BIT) or bytes (BYTE).
fn is_bit_unit(word: &[u8]) -> Result<bool, CommandError> {
    if is_token(word, "BIT") {
        Ok(true)
    } else if is_token(word, "BYTE") {
        Ok(false)
    } else {
        Err(CommandError::SYNTAX)
    }
}

/// Bits from the first to the last, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BitRange {
    first: usize,
    last: usize,
}

impl BitRange {
    /// The range that two words mean in a string of `len` bytes; none if it is empty.
    fn new(start: i64, end: i64, len: usize, in_bits: bool) -> Option<Self> {
        let (start, end) = clamp_range(start, end, if in_bits { len * 8 } else { len });
        if start > end {
            return None;
        }
        let (start, end) = (start as usize, end as usize);
        Some(if in_bits {
            Self { first: start, last: end }
        } else {
            Self { first: start * 8, last: end * 8 + 7 }
        })
    }

    /// How many bytes it touches.
    fn byte_count(self) -> usize {
        self.last / 8 - self.first / 8 + 1
    }

    /// Takes the first [`STEP_BYTES`] of a range off.
    fn take_piece(rest: &mut Option<Self>) -> Option<Self> {
        let Self { first, last } = rest.take()?;
        let end = (first / 8 + STEP_BYTES) * 8;
        if last < end {
            return Some(Self { first, last });
        }
        *rest = Some(Self { first: end, last });
        Some(Self { first, last: end - 1 })
    }

    /// The bytes that it touches.
    fn bytes(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.first / 8..=self.last / 8]
    }

    /// Of its first byte, the bits that belong to it.
    fn first_mask(self) -> u8 {
        0xff >> (self.first % 8)
    }

    /// Of its last byte, the bits that belong to it.
    fn last_mask(self) -> u8 {
        0xff << (7 - self.last % 8)
    }
}

pub(super) fn bitcount(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    // Redis: a missing key hides arguments that are wrong.
    let Some(value) = ctx.read_string(key)? else {
        reply.int(0);
        return Ok(());
    };
    let range = range_to_count(value.byte_len(), args)?;
    if let (Value::Big(data), Some(range)) = (value, range)
        && range.byte_count() > STEP_BYTES
    {
        let op = Count { data: Arc::clone(data), rest: Some(range), ones: 0 };
        return ctx.run_long_read(Box::new(op), range.byte_count() / BYTES_PER_ELEMENT, reply);
    }
    reply.int(range.map_or(0, |range| count_range(&value.bytes(), range)) as i64);
    Ok(())
}

/// The range that BITCOUNT's words mean in a string of `len` bytes; none if it is empty.
fn range_to_count(len: usize, args: &Args<'_>) -> Result<Option<BitRange>, CommandError> {
    match args.len() {
        2 => Ok(BitRange::new(0, -1, len, false)),
        4 | 5 => {
            let (start, end) = (args.int(2)?, args.int(3)?);
            if is_reversed(start, end) {
                return Ok(None);
            }
            let in_bits = args.get(4).map(is_bit_unit).transpose()?;
            Ok(BitRange::new(start, end, len, in_bits.unwrap_or(false)))
        }
        _ => Err(CommandError::SYNTAX),
    }
}

/// BITCOUNT of a long string.
#[derive(Debug)]
struct Count {
    data: Arc<Vec<u8>>,
    rest: Option<BitRange>,
    ones: u64,
}

impl LongOp for Count {
    fn step(&mut self) -> bool {
        if let Some(piece) = BitRange::take_piece(&mut self.rest) {
            self.ones += count_range(&self.data, piece);
        }
        self.rest.is_none()
    }

    fn finish(
        self: Box<Self>,
        _ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        reply.int(self.ones as i64);
        Ok(Finish::Done)
    }
}

/// Bits that are set within a range.
fn count_range(bytes: &[u8], range: BitRange) -> u64 {
    let bytes = range.bytes(bytes);
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return 0;
    };
    let before = first & !range.first_mask();
    let after = last & !range.last_mask();
    count_ones(bytes) - u64::from(before.count_ones()) - u64::from(after.count_ones())
}

fn count_ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: u64 =
        words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    in_words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

pub(super) fn bitpos(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let bit = match args.int(2)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::BIT_ARGUMENT),
    };
    let key = ctx.key(args.at(1));
    // A missing key is an endless row of zeros. Redis: it hides arguments that are wrong.
    let Some(value) = ctx.read_string(key)? else {
        reply.int(if bit { -1 } else { 0 });
        return Ok(());
    };
    let (range, has_end) = range_to_search(value.byte_len(), args)?;
    let Some(range) = range else {
        reply.int(-1);
        return Ok(());
    };
    // Without an end, zeros go on behind the string.
    let behind = (!bit && !has_end).then_some(range.last + 1);
    if let Value::Big(data) = value
        && range.byte_count() > STEP_BYTES
    {
        let op = Find { data: Arc::clone(data), rest: Some(range), bit, behind };
        return ctx.run_long_read(Box::new(op), range.byte_count() / BYTES_PER_ELEMENT, reply);
    }
    reply_position(find_bit(&value.bytes(), range, bit).or(behind), reply);
    Ok(())
}

fn reply_position(position: Option<usize>, reply: &mut Reply<'_>) {
    reply.int(position.map_or(-1, |position| position as i64));
}

/// The range that BITPOS' words mean in a string of `len` bytes, none if it is empty; and whether they
/// say where it ends.
fn range_to_search(len: usize, args: &Args<'_>) -> Result<(Option<BitRange>, bool), CommandError> {
    match args.len() {
        3 => Ok((BitRange::new(0, -1, len, false), false)),
        4 => Ok((BitRange::new(args.int(3)?, -1, len, false), false)),
        5 | 6 => {
            let start = args.int(3)?;
            let in_bits = args.get(5).map(is_bit_unit).transpose()?.unwrap_or(false);
            Ok((BitRange::new(start, args.int(4)?, len, in_bits), true))
        }
        _ => Err(CommandError::SYNTAX),
    }
}

/// BITPOS in a long string.
#[derive(Debug)]
struct Find {
    data: Arc<Vec<u8>>,
    rest: Option<BitRange>,
    bit: bool,
    /// What is found if nothing is; then the place itself.
    behind: Option<usize>,
}

impl LongOp for Find {
    fn step(&mut self) -> bool {
        if let Some(piece) = BitRange::take_piece(&mut self.rest)
            && let Some(found) = find_bit(&self.data, piece, self.bit)
        {
            (self.behind, self.rest) = (Some(found), None);
        }
        self.rest.is_none()
    }

    fn finish(
        self: Box<Self>,
        _ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        reply_position(self.behind, reply);
        Ok(Finish::Done)
    }
}

/// The first bit in a range that is as `bit` says.
fn find_bit(bytes: &[u8], range: BitRange, bit: bool) -> Option<usize> {
    let flip = if bit { 0 } else { 0xff };
    let first_byte = range.first / 8;
    let bytes = range.bytes(bytes);
    let head = (bytes[0] ^ flip) & range.first_mask();
    let (at, hits) = if head != 0 {
        (0, head)
    } else {
        let at = 1 + first_other(&bytes[1..], flip)?;
        (at, bytes[at] ^ flip)
    };
    let position = (first_byte + at) * 8 + hits.leading_zeros() as usize;
    (position <= range.last).then_some(position)
}

/// Index of the first byte that is not `skip`.
fn first_other(bytes: &[u8], skip: u8) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let skipped = words.iter().take_while(|word| **word == [skip; 8]).count() * 8;
    bytes[skipped..].iter().position(|&byte| byte != skip).map(|at| skipped + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    proptest::proptest! {
        #[test]
        fn range_is_counted_and_searched_as_bit_by_bit(
            bytes in proptest::collection::vec(
                proptest::prop_oneof![3 => 0u8..1, 3 => 255u8..=255, 1 => proptest::num::u8::ANY],
                1..40,
            ),
            first: usize,
            last: usize,
        ) {
            let bit_count = bytes.len() * 8;
            let (a, b) = (first % bit_count, last % bit_count);
            let range = BitRange { first: a.min(b), last: a.max(b) };
            let bit = |i: &usize| bit_at(&bytes, *i as u64);
            let ones = (range.first..=range.last).filter(bit).count() as u64;
            assert_eq!(count_range(&bytes, range), ones);
            for wanted in [false, true] {
                let position = (range.first..=range.last).find(|i| bit(i) == wanted);
                assert_eq!(find_bit(&bytes, range, wanted), position);
            }
        }
    }

    #[test]
    fn long_range_is_counted_and_searched_piece_by_piece() {
        let mut bytes = vec![0; 3 * STEP_BYTES + 7];
        bytes[STEP_BYTES] = 0x01;
        bytes[3 * STEP_BYTES + 6] = 0xf0;
        let data = Arc::new(bytes);
        let last = data.len() * 8 - 1;
        for first in [0, 3, STEP_BYTES * 8 + 7, STEP_BYTES * 8 + 8] {
            for last in [last, last - 5, STEP_BYTES * 8 + 8, 2 * STEP_BYTES * 8 - 1] {
                let range = BitRange { first, last };
                let rest = Some(range);
                let mut count = Count { data: Arc::clone(&data), rest, ones: 0 };
                while !count.step() {}
                assert_eq!(count.ones, count_range(&data, range), "{range:?}");
                let mut find = Find { data: Arc::clone(&data), rest, bit: true, behind: None };
                while !find.step() {}
                assert_eq!(find.behind, find_bit(&data, range, true), "{range:?}");
            }
        }
    }

    #[test]
    fn setbit_that_changes_nothing_is_not_journalled() {
        let mut bare = Bare::new(1, 1);
        assert_eq!(effects(&mut bare, "SETBIT k 7 0"), ["SETBIT k 7 0"]);
        assert_eq!(effects(&mut bare, "SETBIT k 7 0"), Vec::<String>::new());
        assert_eq!(effects(&mut bare, "SETBIT k 7 1"), ["SETBIT k 7 1"]);
        assert_eq!(run(&mut bare, "GET k"), "$1\\r\\n\\x01\\r\\n");
        assert_eq!(effects(&mut bare, "SETBIT k 9 0"), ["SETBIT k 9 0"]);
        assert_eq!(run(&mut bare, "STRLEN k"), ":2\\r\\n");
    }

    #[test]
    fn offset_beyond_the_limit_is_refused() {
        let mut bare = Bare::new(1, 1);
        let refused = "-ERR bit offset is not an integer or out of range\\r\\n";
        for at in ["4294967296", "-1", "1.5", "#1", "9223372036854775807", ""] {
            assert_eq!(run(&mut bare, &format!("SETBIT k \"{at}\" 1")), refused, "{at}");
            assert_eq!(run(&mut bare, &format!("GETBIT k \"{at}\"")), refused, "{at}");
        }
        assert_eq!(run(&mut bare, "GETBIT k 4294967295"), ":0\\r\\n");
    }

    #[test]
    fn bitpos_of_zero_past_the_end_needs_an_open_range() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SET k \"\\xff\\xff\"");
        assert_eq!(run(&mut bare, "BITPOS k 0"), ":16\\r\\n");
        assert_eq!(run(&mut bare, "BITPOS k 0 1"), ":16\\r\\n");
        assert_eq!(run(&mut bare, "BITPOS k 0 0 -1"), ":-1\\r\\n");
        assert_eq!(run(&mut bare, "BITPOS k 0 2"), ":-1\\r\\n");
        assert_eq!(run(&mut bare, "BITPOS none 0 a b c d"), ":0\\r\\n");
        assert_eq!(run(&mut bare, "BITPOS none 1"), ":-1\\r\\n");
    }
}
