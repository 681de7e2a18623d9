//! OBJECT: how a value is stored and used.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Access, Acl, Arg, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec, Purpose,
    Route,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::evict::access;
use crate::store::entry::Value;

const KEY: &[KeySpec] = &[KeySpec::range(Access::Read, Purpose::None, 2, 0, 1)];

pub(super) const OBJECT: CommandSpec = CommandSpec {
    name: "object",
    family: Family::Generic,
    since: "2.2.3",
    summary: "Looks at how a value is stored and used",
    complexity: "As the subcommand",
    arity: Arity::AtLeast(2),
    route: Route::Session,
    subcommands: &[
        CommandSpec {
            name: "object|encoding",
            family: Family::Generic,
            since: "2.2.3",
            summary: "Names the encoding of a value in memory",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            tips: &["nondeterministic_output"],
            keys: KEY,
            args: &[Arg::key("key", 0)],
            handler: Handler::Data(encoding),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "object|freq",
            family: Family::Generic,
            since: "4.0.0",
            summary: "Tells how often a key is accessed, on a logarithmic scale",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            tips: &["nondeterministic_output"],
            keys: KEY,
            args: &[Arg::key("key", 0)],
            handler: Handler::Data(freq),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "object|help",
            family: Family::Generic,
            since: "6.2.0",
            summary: "Lists the subcommands",
            complexity: "O(1)",
            arity: Arity::Exact(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::KEYSPACE,
            route: Route::Session,
            handler: Handler::Session(help),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "object|idletime",
            family: Family::Generic,
            since: "2.2.3",
            summary: "Tells for how many seconds a key has not been accessed",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            tips: &["nondeterministic_output"],
            keys: KEY,
            args: &[Arg::key("key", 0)],
            handler: Handler::Data(idletime),
            ..CommandSpec::EMPTY
        },
        CommandSpec {
            name: "object|refcount",
            family: Family::Generic,
            since: "2.2.3",
            summary: "Tells how many places refer to a value",
            complexity: "O(1)",
            arity: Arity::Exact(3),
            flags: Flags::READONLY,
            acl: Acl::KEYSPACE,
            tips: &["nondeterministic_output"],
            keys: KEY,
            args: &[Arg::key("key", 0)],
            handler: Handler::Data(refcount),
            ..CommandSpec::EMPTY
        },
    ],
    ..CommandSpec::EMPTY
};

fn encoding(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(2));
    match ctx.inspect(key).map(|entry| entry.value().encoding()) {
        Some(name) => reply.bulk(name.as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

fn freq(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(2));
    let Some(clock) = ctx.inspect(key).map(|entry| entry.access()) else {
        reply.null();
        return Ok(());
    };
    let config = &ctx.node.config;
    if !config.maxmemory_policy().is_lfu() {
        return Err(CommandError::LFU_NOT_SELECTED);
    }
    reply.int(i64::from(access::lfu_counter(clock, ctx.now, config.lfu_decay_minutes())));
    Ok(())
}

fn idletime(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(2));
    let Some(clock) = ctx.inspect(key).map(|entry| entry.access()) else {
        reply.null();
        return Ok(());
    };
    if ctx.node.config.maxmemory_policy().is_lfu() {
        return Err(CommandError::LFU_SELECTED);
    }
    reply.int(access::idle_seconds(clock, ctx.now) as i64);
    Ok(())
}

/// Redis keeps the integers below this once for all keys, and never counts who refers to them.
const SHARED_INTEGERS: std::ops::Range<i64> = 0..10_000;
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

/// Redis: nothing is shared here, but clients see what Redis would answer. It shares no integers
/// while it needs an access clock for each key.
fn refcount(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(2));
    let config = &ctx.node.config;
    let policy = config.maxmemory_policy();
    let shares = config.maxmemory() == 0 || !(policy.is_lfu() || policy.is_lru());
    match ctx.inspect(key).map(|entry| entry.value()) {
        None => reply.null(),
        Some(Value::Int(n)) if shares && SHARED_INTEGERS.contains(&n) => reply.int(SHARED_REFCOUNT),
        Some(_) => reply.int(1),
    }
    Ok(())
}

fn help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn object_of_each_kind_of_string_names_its_encoding() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        let cases: [(&[u8], &[u8]); 4] = [
            (b"12", b"$3\r\nint\r\n"),
            (b"text", b"$6\r\nembstr\r\n"),
            (&[b'x'; 45], b"$3\r\nraw\r\n"),
            (&[b'x'; 9000], b"$3\r\nraw\r\n"),
        ];
        for (value, encoding) in cases {
            bare.call(&mut client, &[b"SET", b"k", value]);
            assert_eq!(bare.call(&mut client, &[b"OBJECT", b"encoding", b"k"]), encoding);
        }
        assert_eq!(bare.call(&mut client, &[b"OBJECT", b"ENCODING", b"x"]), b"$-1\r\n");
    }

    #[test]
    fn refcount_of_a_small_integer_is_that_of_a_shared_one() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        let cases: [(&[u8], &[u8]); 4] = [
            (b"9999", b":2147483647\r\n"),
            (b"10000", b":1\r\n"),
            (b"-1", b":1\r\n"),
            (b"x", b":1\r\n"),
        ];
        for (value, count) in cases {
            bare.call(&mut client, &[b"SET", b"k", value]);
            assert_eq!(bare.call(&mut client, &[b"OBJECT", b"REFCOUNT", b"k"]), count);
        }
    }

    #[test]
    fn idletime_counts_seconds_and_does_not_touch() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"k", b"v"]);
        bare.now.0 += 7_000;
        for _ in 0..2 {
            assert_eq!(bare.call(&mut client, &[b"OBJECT", b"IDLETIME", b"k"]), b":7\r\n");
        }
        bare.call(&mut client, &[b"TOUCH", b"k"]);
        assert_eq!(bare.call(&mut client, &[b"OBJECT", b"IDLETIME", b"k"]), b":0\r\n");
        assert!(bare.call(&mut client, &[b"OBJECT", b"FREQ", b"k"]).starts_with(b"-ERR An LFU"));
        assert_eq!(bare.call(&mut client, &[b"OBJECT", b"FREQ", b"x"]), b"$-1\r\n");
    }
}
