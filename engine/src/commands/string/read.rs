//! Commands that read or change the bytes of one string: GET, STRLEN, GETRANGE, APPEND, SETRANGE.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

pub(super) fn get(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    match ctx.read_string(key)? {
        Some(value) => value.reply(reply),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn strlen(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let value = ctx.read_string(key)?;
    reply.count(value.map_or(0, |value| value.byte_len()));
    Ok(())
}

pub(super) fn getrange(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, end) = (args.int(2)?, args.int(3)?);
    let key = ctx.key(args.at(1));
    match ctx.read_string(key)? {
        Some(value) => reply.bulk(part(&value.bytes(), start, end)),
        None => reply.bulk(b""),
    }
    Ok(())
}

/// The bytes from `start` to `end`, both counted from the end if negative.
fn part(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    if is_reversed(start, end) {
        return &[];
    }
    let (start, end) = clamp_range(start, end, bytes.len());
    // An empty string leaves `end` at -1.
    if start > end { &[] } else { &bytes[start as usize..=end as usize] }
}

/// Whether both ends count from the end and the last comes before the first. Where Redis asks this
/// before it clamps, such a range is empty; where it does not, both may become the first byte.
pub(in crate::commands) fn is_reversed(start: i64, end: i64) -> bool {
    start < 0 && end < 0 && start > end
}

/// A range, both ends included, with ends that count from the end resolved and cut to `len`. It is
/// empty if the first is larger than the last; otherwise both are below `len`.
pub(in crate::commands) fn clamp_range(start: i64, end: i64, len: usize) -> (i64, i64) {
    let len = len as i64;
    let resolve = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    (resolve(start), resolve(end).min(len - 1))
}

pub(super) fn append(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, suffix) = (ctx.key(args.at(1)), args.at(2));
    let len = match ctx.write_string(key)? {
        None => {
            ctx.set_string(key, suffix, Encode::Auto, Expiry::Clear);
            suffix.len()
        }
        Some(value) => {
            let old_len = value.byte_len();
            let len = checked_len(ctx, old_len as u64, suffix)?;
            ctx.edit_string(key, len)[old_len..].copy_from_slice(suffix);
            len
        }
    };
    ctx.modified(key, Event::String("append"));
    reply.count(len);
    Ok(())
}

pub(super) fn setrange(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let offset = u64::try_from(args.int(2)?).map_err(|_| CommandError::OFFSET_OUT_OF_RANGE)?;
    let (key, part) = (ctx.key(args.at(1)), args.at(3));
    let old_len = ctx.write_string(key)?.map_or(0, |value| value.byte_len());
    if part.is_empty() {
        // Redis: nothing is made or padded for the sake of nothing.
        reply.count(old_len);
        return Ok(());
    }
    let end = checked_len(ctx, offset, part)?;
    ctx.edit_string(key, end)[end - part.len()..end].copy_from_slice(part);
    ctx.modified(key, Event::String("setrange"));
    reply.count(end.max(old_len));
    Ok(())
}

/// The length of a string that gets `part` after `before` bytes, if strings may be as long as that.
fn checked_len(ctx: &Ctx<'_>, before: u64, part: &[u8]) -> Result<usize, CommandError> {
    before
        .checked_add(part.len() as u64)
        .and_then(|len| usize::try_from(len).ok())
        .filter(|&len| len <= ctx.node.config.proto_max_bulk_bytes())
        .ok_or(CommandError::STRING_TOO_LONG)
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::run;

    #[test]
    fn getrange_clamps_as_redis_does() {
        let mut bare = Bare::new(1, 1);
        let cases = [
            ("0 -1", "hello"),
            ("1 3", "ell"),
            ("-3 -2", "ll"),
            ("-100 0", "h"),
            ("4 100", "o"),
            ("5 5", ""),
            ("3 1", ""),
            ("-1 -2", ""),
            ("-9 -8", "h"),
            ("-8 -9", ""),
            ("-9223372036854775808 9223372036854775807", "hello"),
            ("0 -9223372036854775808", "h"),
        ];
        run(&mut bare, "SET k hello");
        for (range, part) in cases {
            let want = format!("${}\\r\\n{part}\\r\\n", part.len());
            assert_eq!(run(&mut bare, &format!("GETRANGE k {range}")), want, "{range}");
        }
    }

    #[test]
    fn edited_string_is_raw_and_keeps_its_deadline() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SET k 12 PX 100000");
        assert_eq!(run(&mut bare, "APPEND k 34"), ":4\\r\\n");
        assert_eq!(run(&mut bare, "GET k"), "$4\\r\\n1234\\r\\n");
        assert_eq!(run(&mut bare, "SETRANGE k 6 xy"), ":8\\r\\n");
        assert_eq!(run(&mut bare, "GET k"), "$8\\r\\n1234\\x00\\x00xy\\r\\n");
        bare.now.0 += 100_000;
        assert_eq!(run(&mut bare, "GET k"), "$-1\\r\\n");
    }

    #[test]
    fn string_beyond_the_limit_is_refused_before_it_is_made() {
        let mut bare = Bare::new(1, 1);
        let refused = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\\r\\n";
        run(&mut bare, "SET k v");
        for offset in ["536870912", "9223372036854775807"] {
            assert_eq!(run(&mut bare, &format!("SETRANGE k {offset} x")), refused);
        }
        assert_eq!(run(&mut bare, "STRLEN k"), ":1\\r\\n");
    }
}
