//! The generic family: keys whatever they hold; and the commands on whole databases.
//!
//! Each file declares its commands next to their handlers. Knows no session: commands that take
//! long are cut into slices, which the session asks for.

pub mod dump;
mod expire;
mod keyspace;
mod object;
mod presence;
mod relocate;
pub mod restore;
mod scan;
mod sort;
mod wait;

pub use dump::dump_value;
pub use presence::{SlicedHandler, sliced_variant};

use crate::commands::ctx::Ctx;
use crate::commands::spec::CommandSpec;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::shard::state::Shard;
use crate::units::{DbIndex, SlotId};

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    relocate::COPY,
    keyspace::DBSIZE,
    presence::DEL,
    dump::DUMP,
    presence::EXISTS,
    expire::EXPIRE,
    expire::EXPIREAT,
    expire::EXPIRETIME,
    keyspace::FLUSHALL,
    keyspace::FLUSHDB,
    scan::KEYS,
    relocate::MOVE,
    object::OBJECT,
    expire::PERSIST,
    expire::PEXPIRE,
    expire::PEXPIREAT,
    expire::PEXPIRETIME,
    expire::PTTL,
    scan::RANDOMKEY,
    relocate::RENAME,
    relocate::RENAMENX,
    restore::RESTORE,
    restore::RESTORE_ASKING,
    scan::SCAN,
    sort::SORT,
    sort::SORT_RO,
    keyspace::SWAPDB,
    presence::TOUCH,
    expire::TTL,
    presence::TYPE,
    presence::UNLINK,
    wait::WAIT,
];

/// The shard of a slot, if it is held: a slice of a command holds only some.
pub(super) fn shard_if_held<'c>(ctx: &'c mut Ctx<'_>, slot: SlotId) -> Option<&'c mut Shard> {
    let owner = ctx.node.owners.of(slot);
    ctx.shards.get(owner)
}

/// Appends a bulk string to encoded reply elements.
pub(super) fn push_bulk(elements: &mut Vec<u8>, bytes: &[u8]) {
    elements.push(b'$');
    elements.extend_from_slice(itoa::Buffer::new().format(bytes.len()).as_bytes());
    elements.extend_from_slice(b"\r\n");
    elements.extend_from_slice(bytes);
    elements.extend_from_slice(b"\r\n");
}

/// Appends an integer, or the length of an array, to encoded reply elements.
pub(super) fn push_header(elements: &mut Vec<u8>, kind: u8, n: u64) {
    elements.push(kind);
    elements.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    elements.extend_from_slice(b"\r\n");
}

/// The number of a cursor as C's `strtoul` reads it: a sign, then digits, or nothing at all.
///
/// Redis: the text ends at its first zero byte, and a minus wraps around.
pub(super) fn parse_cursor(word: &[u8]) -> Result<u64, CommandError> {
    let text = word.split(|&byte| byte == 0).next().unwrap_or_default();
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::INVALID_CURSOR);
    }
    let n = digits
        .iter()
        .try_fold(0u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    let n = n.ok_or(CommandError::INVALID_CURSOR)?;
    Ok(if negative { n.wrapping_neg() } else { n })
}

/// A database by the number that `word` spells.
fn parse_db(ctx: &Ctx<'_>, word: &[u8]) -> Result<DbIndex, CommandError> {
    let n = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
    let n = i32::try_from(n).map_err(|_| CommandError::NOT_INT32)?;
    existing_db(ctx, n)
}

fn existing_db(ctx: &Ctx<'_>, n: i32) -> Result<DbIndex, CommandError> {
    match u8::try_from(n) {
        Ok(n) if n < ctx.node.config.databases() => Ok(DbIndex(n)),
        _ => Err(CommandError::DB_INDEX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn cursor_in_any_form_of_strtoul_is_read() {
        let good: [(&[u8], u64); 6] =
            [(b"", 0), (b"0", 0), (b"+7", 7), (b"007", 7), (b"-1", u64::MAX), (b"5\0x", 5)];
        for (text, n) in good {
            assert_eq!(parse_cursor(text), Ok(n));
        }
        for text in [&b"x"[..], b" 1", b"1 ", b"-", b"+-1", b"18446744073709551616"] {
            assert_eq!(parse_cursor(text), Err(CommandError::INVALID_CURSOR));
        }
    }

    #[test]
    fn specs_of_the_family_are_sorted() {
        assert!(SPECS.is_sorted_by_key(|spec| spec.name));
    }

    #[test]
    fn every_command_with_odd_words_answers_something() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        let words: [&[u8]; 8] =
            [b"", b"0", b"-1", b"x", b"k", b"9223372036854775807", b"DB", b"\xff"];
        for spec in SPECS.iter().chain(crate::commands::slots::SPECS) {
            for a in words {
                for b in words {
                    let name = spec.name.as_bytes();
                    for call in [&[name][..], &[name, a], &[name, a, b], &[name, a, b, a]] {
                        let reply = bare.call(&mut client, call);
                        assert!(reply.ends_with(b"\r\n"), "{}: {reply:?}", spec.name);
                        bare.call(&mut client, &[b"SET", b"k", b"7"]);
                    }
                }
            }
        }
    }
}
