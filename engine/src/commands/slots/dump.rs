//! SLOTSMGRTONE-ASYNC-DUMP and SLOTSMGRTTAGONE-ASYNC-DUMP: the messages that a move would send, for
//! people who look for a fault. Nothing moves.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::slots::moves::{Defaults, parameter};
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Purpose,
};
use crate::migrate::dialect::snapshot::Snapshot;
use crate::migrate::dialect::stream::{KeyStream, Params};
use crate::resp::reply::{OutBuf, Reply};
use crate::slots::hash::tag;
use crate::store::table::Position;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "slotsmgrtone-async-dump",
        summary: "Shows the messages that would move keys to another server",
        handler: Handler::Data(slotsmgrtone_async_dump),
        ..DUMP
    },
    CommandSpec {
        name: "slotsmgrttagone-async-dump",
        summary: "Shows the messages that would move keys, and all keys with their tags, to another server",
        handler: Handler::Data(slotsmgrttagone_async_dump),
        ..DUMP
    },
];

const DUMP: CommandSpec = CommandSpec {
    family: Family::Slots,
    since: "codis 3.2",
    complexity: "O(N) with N elements of the values, and N keys of the slots for tags",
    arity: Arity::AtLeast(4),
    flags: Flags::READONLY.union(Flags::DENYOOM),
    acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 3, -1, 1)],
    args: &[
        Arg::new("timeout", ArgKind::Integer),
        Arg::new("maxbulks", ArgKind::Integer),
        Arg::key("key", 0).multiple(),
    ],
    is_internal: true,
    ..CommandSpec::EMPTY
};

fn slotsmgrtone_async_dump(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let keys = args.iter_from(3).map(Box::from).collect();
    show(ctx, args, keys, reply)
}

fn slotsmgrttagone_async_dump(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    for word in args.iter_from(3) {
        keys.push(word.into());
        keys.extend(siblings(ctx, word));
    }
    let mut seen = std::collections::HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    show(ctx, args, keys, reply)
}

/// The other keys with the tag of this one.
fn siblings(ctx: &mut Ctx<'_>, word: &[u8]) -> Vec<Box<[u8]>> {
    let Some(of_key) = tag(word) else { return Vec::new() };
    let key = ctx.key(word);
    let mut found = Vec::new();
    if let Some(db) = ctx.db_of(key.slot) {
        db.table(key.slot).scan(Position(0), usize::MAX, |entry| {
            if entry.key() != word && tag(entry.key()) == Some(of_key) {
                found.push(entry.key().into());
            }
        });
    }
    found
}

fn show(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    keys: Vec<Box<[u8]>>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let timeout_ms = parameter(args, 1, "timeout", Defaults::TIMEOUT_MS)?;
    let bulks_max = parameter(args, 2, "maxbulks", 1000)? as usize;
    let params =
        Params { timeout_ms, bulks_max: bulks_max.min(Defaults::BULKS_MAX), bytes_max: usize::MAX };
    let (mut messages, mut count) = (OutBuf::default(), 0);
    for key in keys {
        let at = ctx.key(&key);
        let Some(entry) = ctx.peek(at, false) else { continue };
        let (value, expires_at) = (Snapshot::of(entry.value()), entry.expires_at());
        let mut stream = KeyStream::new(key, Some(value), expires_at);
        while stream.write_next(&mut messages, &params, 0, ctx.now) {
            count += 1;
        }
    }
    reply.array(count);
    let to = messages.mark();
    reply.out().append_range(&messages, (0, 0), to);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn dump_shows_the_messages_of_each_key_that_is_there() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"{t}a", b"v"]);
        bare.call(&mut client, &[b"SET", b"{t}b", b"w", b"PX", b"500"]);
        let one: [&[u8]; 5] = [b"SLOTSMGRTONE-ASYNC-DUMP", b"0", b"0", b"{t}a", b"none"];
        let want = b"*2\r\n*3\r\n$18\r\nSLOTSRESTORE-ASYNC\r\n$6\r\ndelete\r\n$4\r\n{t}a\r\n\
            *5\r\n$18\r\nSLOTSRESTORE-ASYNC\r\n$6\r\nstring\r\n$4\r\n{t}a\r\n$1\r\n0\r\n$1\r\nv\r\n";
        assert_eq!(bare.call(&mut client, &one), want);
        let all: [&[u8]; 4] = [b"SLOTSMGRTTAGONE-ASYNC-DUMP", b"0", b"0", b"{t}b"];
        let reply = bare.call(&mut client, &all);
        assert!(reply.starts_with(b"*4\r\n"), "{}", reply.escape_ascii());
        let wrong: [&[u8]; 4] = [b"SLOTSMGRTONE-ASYNC-DUMP", b"-1", b"0", b"k"];
        let error = b"-ERR invalid value of timeout (-1)\r\n";
        assert_eq!(bare.call(&mut client, &wrong), error);
    }
}
