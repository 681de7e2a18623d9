//! Values under another name or in another database: RENAME, RENAMENX, COPY, MOVE.
//!
//! Source and destination may lie on different shards; both are held. The value itself moves, or is
//! shared with its copy, with its deadline. The journal gets the outcome of each key by itself, so
//! that readers of one slot need not see the other.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::generic::parse_db;
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Propagate, Purpose,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::units::DbIndex;

pub(super) const COPY: CommandSpec = CommandSpec {
    name: "copy",
    family: Family::Generic,
    since: "6.2.0",
    summary: "Copies a value to another key, or to another database",
    complexity: "O(1) for strings, O(N) for a collection of N elements",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::DENYOOM),
    acl: Acl::KEYSPACE,
    keys: &[
        KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1),
        KeySpec::range(Access::Overwrite, Purpose::Update, 2, 0, 1),
    ],
    args: &[
        Arg::key("source", 0),
        Arg::key("destination", 1),
        Arg::new("destination-db", ArgKind::Integer).with_token("DB").optional(),
        Arg::token("replace", "REPLACE").optional(),
    ],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(copy),
    ..CommandSpec::EMPTY
};

pub(super) const MOVE: CommandSpec = CommandSpec {
    name: "move",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Moves a key to another database",
    complexity: "O(1)",
    arity: Arity::Exact(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: &[KeySpec::range(Access::ReadWrite, Purpose::AccessUpdate, 1, 0, 1)],
    args: &[Arg::key("key", 0), Arg::new("db", ArgKind::Integer)],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(move_key),
    ..CommandSpec::EMPTY
};

pub(super) const RENAME: CommandSpec = CommandSpec {
    name: "rename",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Gives a key another name, whatever was under that name",
    complexity: "O(1)",
    arity: Arity::Exact(3),
    flags: Flags::WRITE,
    acl: Acl::KEYSPACE,
    keys: &[
        KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1),
        KeySpec::range(Access::Overwrite, Purpose::Update, 2, 0, 1),
    ],
    args: &[Arg::key("key", 0), Arg::key("newkey", 1)],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(rename),
    ..CommandSpec::EMPTY
};

pub(super) const RENAMENX: CommandSpec = CommandSpec {
    name: "renamenx",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Gives a key another name, if no key has that name",
    complexity: "O(1)",
    arity: Arity::Exact(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: &[
        KeySpec::range(Access::ReadWrite, Purpose::AccessDelete, 1, 0, 1),
        KeySpec::range(Access::Overwrite, Purpose::Insert, 2, 0, 1),
    ],
    args: &[Arg::key("key", 0), Arg::key("newkey", 1)],
    history: &[("3.2.0", "The same name twice is no error any more.")],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(renamenx),
    ..CommandSpec::EMPTY
};

fn rename(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (from, to) = (ctx.key(args.at(1)), ctx.key(args.at(2)));
    if ctx.lookup_write(from).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    if from.bytes != to.bytes {
        relabel(ctx, from, to);
    }
    reply.ok();
    Ok(())
}

fn renamenx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (from, to) = (ctx.key(args.at(1)), ctx.key(args.at(2)));
    if ctx.lookup_write(from).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    // The same name twice: it is taken.
    let is_free = ctx.lookup_write(to).is_none();
    if is_free {
        relabel(ctx, from, to);
    }
    reply.int_bool(is_free);
    Ok(())
}

fn relabel(ctx: &mut Ctx<'_>, from: KeyRef<'_>, to: KeyRef<'_>) {
    let Some((entry, _)) = ctx.take(from) else {
        return;
    };
    let deadline = entry.as_ref().expires_at();
    let db = ctx.db;
    ctx.put_in(db, to, entry.copy(to.bytes, deadline));
    ctx.modified(from, Event::Generic("rename_from"));
    ctx.modified(to, Event::Generic("rename_to"));
    ctx.effect(from, &[b"DEL", from.bytes]);
    ctx.effect_state(db, to);
}

fn copy(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (db, replace) = parse_copy(ctx, args)?;
    let (from, to) = (ctx.key(args.at(1)), ctx.key(args.at(2)));
    if db == ctx.db && from.bytes == to.bytes {
        return Err(CommandError::SAME_OBJECT);
    }
    let copied = ctx.read(from).map(|entry| entry.copy(to.bytes, entry.expires_at()));
    let done = match copied {
        Some(entry) if replace || ctx.peek_in(db, to).is_none() => {
            ctx.put_in(db, to, entry);
            ctx.modified_in(db, to, Event::Generic("copy_to"));
            ctx.effect_state(db, to);
            true
        }
        _ => false,
    };
    reply.int_bool(done);
    Ok(())
}

/// Where COPY copies to, and whether it may overwrite.
fn parse_copy(ctx: &Ctx<'_>, args: &Args<'_>) -> Result<(DbIndex, bool), CommandError> {
    let (mut db, mut replace) = (ctx.db, false);
    let mut cursor = args.cursor(3);
    while cursor.left() > 0 {
        if cursor.take("REPLACE") {
            replace = true;
        } else if let Some(word) = cursor.take_value("DB") {
            db = parse_db(ctx, word)?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok((db, replace))
}

fn move_key(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let (from, to) = (ctx.db, parse_db(ctx, args.at(2))?);
    if from == to {
        return Err(CommandError::SAME_OBJECT);
    }
    if ctx.lookup_write(key).is_none() || ctx.peek_in(to, key).is_some() {
        reply.int(0);
        return Ok(());
    }
    if let Some((entry, _)) = ctx.take(key) {
        ctx.put_in(to, key, entry);
    }
    ctx.modified_in(from, key, Event::Generic("move_from"));
    ctx.modified_in(to, key, Event::Generic("move_to"));
    ctx.effect_in(from, key, &[b"DEL", key.bytes]);
    ctx.effect_state(to, key);
    reply.int(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;

    #[test]
    fn rename_across_shards_keeps_value_and_deadline() {
        let mut bare = Bare::new(4, 1);
        let mut client = bare.client();
        for (value, n) in [(&b"text"[..], 0), (b"42", 1), (&vec![b'x'; 9000], 2)] {
            let (from, to) = (format!("from:{n}"), format!("to:{n}"));
            let (from, to) = (from.as_bytes(), to.as_bytes());
            bare.call(&mut client, &[b"SET", from, value, b"PX", b"5000"]);
            bare.call(&mut client, &[b"SET", to, b"old"]);
            assert_eq!(bare.call(&mut client, &[b"RENAMENX", from, to]), b":0\r\n");
            assert_eq!(bare.call(&mut client, &[b"RENAME", from, to]), b"+OK\r\n");
            assert_eq!(bare.call(&mut client, &[b"PTTL", to]), b":5000\r\n");
            assert_eq!(bare.call(&mut client, &[b"EXISTS", from]), b":0\r\n");
            let got = bare.call(&mut client, &[b"GET", to]);
            assert!(got.windows(value.len()).any(|part| part == value));
        }
        let missing = bare.call(&mut client, &[b"RENAME", b"x", b"x"]);
        assert_eq!(missing, b"-ERR no such key\r\n");
    }

    #[test]
    fn copy_to_another_database_replaces_only_if_told() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"a", b"1", b"PX", b"100"]);
        assert_eq!(bare.call(&mut client, &[b"COPY", b"a", b"a", b"DB", b"3"]), b":1\r\n");
        assert_eq!(bare.call(&mut client, &[b"COPY", b"a", b"a", b"DB", b"3"]), b":0\r\n");
        let call: [&[u8]; 6] = [b"COPY", b"a", b"a", b"db", b"3", b"replace"];
        assert_eq!(bare.call(&mut client, &call), b":1\r\n");
        client.db = DbIndex(3);
        assert_eq!(bare.call(&mut client, &[b"PTTL", b"a"]), b":100\r\n");
        assert_eq!(bare.call(&mut client, &[b"COPY", b"x", b"y"]), b":0\r\n");
    }

    #[test]
    fn move_to_a_database_that_has_the_key_does_nothing() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"a", b"1"]);
        assert_eq!(bare.call(&mut client, &[b"MOVE", b"a", b"2"]), b":1\r\n");
        bare.call(&mut client, &[b"SET", b"a", b"2"]);
        assert_eq!(bare.call(&mut client, &[b"MOVE", b"a", b"2"]), b":0\r\n");
        assert_eq!((bare.len(DbIndex(0)), bare.len(DbIndex(2))), (1, 1));
        let same = bare.call(&mut client, &[b"MOVE", b"a", b"0"]);
        assert_eq!(same, b"-ERR source and destination objects are the same\r\n");
    }

    #[test]
    fn rename_and_move_are_journalled_key_by_key() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"a", b"1", b"PXAT", b"1700000000100"]);
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        bare.call(&mut client, &[b"RENAME", b"a", b"b"]);
        bare.call(&mut client, &[b"MOVE", b"b", b"1"]);
        let shard = bare.held[0].as_mut().expect("all doors are held");
        let records = shard.journal.take();
        let got: Vec<_> = records.iter().map(|r| (r.db.0, r.call.clone())).collect();
        let set = |key: &[u8]| OwnedArgs::of(&[b"SET", key, b"1", b"PXAT", b"1700000000100"]);
        let effects = [
            (0, OwnedArgs::of(&[b"DEL", b"a"])),
            (0, set(b"b")),
            (0, OwnedArgs::of(&[b"DEL", b"b"])),
            (1, set(b"b")),
        ];
        assert_eq!(got, effects);
    }
}
