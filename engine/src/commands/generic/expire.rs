//! When keys end: EXPIRE and its kin, TTL and its kin, PERSIST.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Propagate, Purpose,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::units::Ms;

const CHANGES_DEADLINE: &[KeySpec] = &[KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1)];
const SHOWS_DEADLINE: &[KeySpec] = &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)];

const CONDITION: Arg = Arg::one_of(
    "condition",
    &[
        Arg::token("nx", "NX"),
        Arg::token("xx", "XX"),
        Arg::token("gt", "GT"),
        Arg::token("lt", "LT"),
    ],
)
.optional()
.since("7.0.0");

const CONDITION_HISTORY: &[(&str, &str)] =
    &[("7.0.0", "Takes a condition: `NX`, `XX`, `GT` or `LT`.")];
const NO_KEY_HISTORY: &[(&str, &str)] = &[("2.8.0", "Replies -2 if there is no such key.")];

pub(super) const EXPIRE: CommandSpec = CommandSpec {
    name: "expire",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Lets a key end in so many seconds",
    complexity: "O(1)",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: CHANGES_DEADLINE,
    args: &[Arg::key("key", 0), Arg::new("seconds", ArgKind::Integer), CONDITION],
    history: CONDITION_HISTORY,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(expire),
    ..CommandSpec::EMPTY
};

pub(super) const EXPIREAT: CommandSpec = CommandSpec {
    name: "expireat",
    family: Family::Generic,
    since: "1.2.0",
    summary: "Lets a key end at a Unix time in seconds",
    complexity: "O(1)",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: CHANGES_DEADLINE,
    args: &[Arg::key("key", 0), Arg::new("unix-time-seconds", ArgKind::UnixTime), CONDITION],
    history: CONDITION_HISTORY,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(expireat),
    ..CommandSpec::EMPTY
};

pub(super) const PEXPIRE: CommandSpec = CommandSpec {
    name: "pexpire",
    family: Family::Generic,
    since: "2.6.0",
    summary: "Lets a key end in so many milliseconds",
    complexity: "O(1)",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: CHANGES_DEADLINE,
    args: &[Arg::key("key", 0), Arg::new("milliseconds", ArgKind::Integer), CONDITION],
    history: CONDITION_HISTORY,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(pexpire),
    ..CommandSpec::EMPTY
};

pub(super) const PEXPIREAT: CommandSpec = CommandSpec {
    name: "pexpireat",
    family: Family::Generic,
    since: "2.6.0",
    summary: "Lets a key end at a Unix time in milliseconds",
    complexity: "O(1)",
    arity: Arity::AtLeast(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: CHANGES_DEADLINE,
    args: &[Arg::key("key", 0), Arg::new("unix-time-milliseconds", ArgKind::UnixTime), CONDITION],
    history: CONDITION_HISTORY,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(pexpireat),
    ..CommandSpec::EMPTY
};

pub(super) const EXPIRETIME: CommandSpec = CommandSpec {
    name: "expiretime",
    family: Family::Generic,
    since: "7.0.0",
    summary: "Tells the Unix time in seconds at which a key ends",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: SHOWS_DEADLINE,
    args: &[Arg::key("key", 0)],
    handler: Handler::Data(expiretime),
    ..CommandSpec::EMPTY
};

pub(super) const PEXPIRETIME: CommandSpec = CommandSpec {
    name: "pexpiretime",
    family: Family::Generic,
    since: "7.0.0",
    summary: "Tells the Unix time in milliseconds at which a key ends",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: SHOWS_DEADLINE,
    args: &[Arg::key("key", 0)],
    handler: Handler::Data(pexpiretime),
    ..CommandSpec::EMPTY
};

pub(super) const TTL: CommandSpec = CommandSpec {
    name: "ttl",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Tells how many seconds a key has left",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    tips: &["nondeterministic_output"],
    keys: SHOWS_DEADLINE,
    args: &[Arg::key("key", 0)],
    history: NO_KEY_HISTORY,
    handler: Handler::Data(ttl),
    ..CommandSpec::EMPTY
};

pub(super) const PTTL: CommandSpec = CommandSpec {
    name: "pttl",
    family: Family::Generic,
    since: "2.6.0",
    summary: "Tells how many milliseconds a key has left",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    tips: &["nondeterministic_output"],
    keys: SHOWS_DEADLINE,
    args: &[Arg::key("key", 0)],
    history: NO_KEY_HISTORY,
    handler: Handler::Data(pttl),
    ..CommandSpec::EMPTY
};

pub(super) const PERSIST: CommandSpec = CommandSpec {
    name: "persist",
    family: Family::Generic,
    since: "2.2.0",
    summary: "Takes a key's deadline away",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: CHANGES_DEADLINE,
    args: &[Arg::key("key", 0)],
    propagate: Propagate::Verbatim,
    handler: Handler::Data(persist),
    ..CommandSpec::EMPTY
};

/// Milliseconds of a unit.
const SECOND: i64 = 1000;
const MILLISECOND: i64 = 1;

fn expire(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let base = ctx.now;
    set(ctx, args, reply, base, SECOND)
}

fn pexpire(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let base = ctx.now;
    set(ctx, args, reply, base, MILLISECOND)
}

fn expireat(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set(ctx, args, reply, Ms(0), SECOND)
}

fn pexpireat(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set(ctx, args, reply, Ms(0), MILLISECOND)
}

/// Under which circumstances a deadline is set.
#[derive(Clone, Copy, Default)]
struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    fn parse(args: &Args<'_>) -> Result<Self, CommandError> {
        let mut this = Self::default();
        for word in args.iter_from(3) {
            match word {
                w if is_token(w, "NX") => this.nx = true,
                w if is_token(w, "XX") => this.xx = true,
                w if is_token(w, "GT") => this.gt = true,
                w if is_token(w, "LT") => this.lt = true,
                other => return Err(CommandError::unsupported_option(other)),
            }
        }
        if this.nx && (this.xx || this.gt || this.lt) {
            return Err(CommandError::EXPIRE_NX_ALONE);
        }
        if this.gt && this.lt {
            return Err(CommandError::EXPIRE_GT_LT);
        }
        Ok(this)
    }

    /// A key without a deadline counts as one that ends never.
    fn allows(self, old: Option<Ms>, new: Ms) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

/// The deadline that a call names, from `base` on in units of `unit` milliseconds.
fn parse_deadline(ctx: &Ctx<'_>, args: &Args<'_>, base: Ms, unit: i64) -> Result<Ms, CommandError> {
    let span = args.int(2)?.checked_mul(unit);
    // Redis: only an overflow upwards is an error here; downwards, `base` is never negative.
    let deadline = span.and_then(|span| span.checked_add(base.0));
    deadline.map(Ms).ok_or_else(|| CommandError::invalid_expire(ctx.spec.name))
}

fn set(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    base: Ms,
    unit: i64,
) -> CommandResult {
    let condition = Condition::parse(args)?;
    let deadline = parse_deadline(ctx, args, base, unit)?;
    let key = ctx.key(args.at(1));
    let Some(old) = ctx.lookup_write(key).map(|entry| entry.expires_at()) else {
        reply.int(0);
        return Ok(());
    };
    if !condition.allows(old, deadline) {
        reply.int(0);
        return Ok(());
    }
    if deadline <= ctx.now {
        ctx.delete(key);
        ctx.modified(key, Event::Generic("del"));
        ctx.effect(key, &[b"DEL", key.bytes]);
    } else {
        ctx.set_deadline(key, Some(deadline));
        ctx.modified(key, Event::Generic("expire"));
        let mut text = itoa::Buffer::new();
        ctx.effect(key, &[b"PEXPIREAT", key.bytes, text.format(deadline.0).as_bytes()]);
    }
    reply.int(1);
    Ok(())
}

fn persist(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let expires = ctx.lookup_write(key).is_some_and(|entry| entry.expires_at().is_some());
    if expires {
        ctx.set_deadline(key, None);
        ctx.modified(key, Event::Generic("persist"));
    }
    reply.int_bool(expires);
    Ok(())
}

fn ttl(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let base = ctx.now;
    show(ctx, args, reply, base, SECOND)
}

fn pttl(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let base = ctx.now;
    show(ctx, args, reply, base, MILLISECOND)
}

fn expiretime(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    show(ctx, args, reply, Ms(0), SECOND)
}

fn pexpiretime(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    show(ctx, args, reply, Ms(0), MILLISECOND)
}

/// Replies a key's deadline counted from `base`, rounded to `unit` milliseconds; -1 if it has none,
/// -2 if there is no key.
fn show(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    base: Ms,
    unit: i64,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    reply.int(match ctx.peek(key, true).map(|entry| entry.expires_at()) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => {
            // A key that is there ends after now, so this is positive; unsigned, it has room for
            // rounding up at the end of time.
            let left = deadline.0.saturating_sub(base.0).max(0) as u64;
            ((left + unit as u64 / 2) / unit as u64) as i64
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::units::DbIndex;

    fn bare_with_key() -> (Bare, crate::net::client::ClientState) {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"k", b"v"]);
        (bare, client)
    }

    #[test]
    fn expire_then_ttl_rounds_to_the_nearest_second() {
        let (mut bare, mut client) = bare_with_key();
        assert_eq!(bare.call(&mut client, &[b"TTL", b"k"]), b":-1\r\n");
        assert_eq!(bare.call(&mut client, &[b"PTTL", b"x"]), b":-2\r\n");
        assert_eq!(bare.call(&mut client, &[b"EXPIRE", b"k", b"10"]), b":1\r\n");
        bare.now.0 += 500;
        assert_eq!(bare.call(&mut client, &[b"TTL", b"k"]), b":10\r\n");
        bare.now.0 += 1;
        assert_eq!(bare.call(&mut client, &[b"TTL", b"k"]), b":9\r\n");
        assert_eq!(bare.call(&mut client, &[b"PTTL", b"k"]), b":9499\r\n");
        assert_eq!(bare.call(&mut client, &[b"PEXPIRETIME", b"k"]), b":1700000010000\r\n");
        assert_eq!(bare.call(&mut client, &[b"EXPIRETIME", b"k"]), b":1700000010\r\n");
        assert_eq!(bare.call(&mut client, &[b"PERSIST", b"k"]), b":1\r\n");
        assert_eq!(bare.call(&mut client, &[b"PERSIST", b"k"]), b":0\r\n");
        bare.now.0 += 20_000;
        assert_eq!(bare.call(&mut client, &[b"GET", b"k"]), b"$1\r\nv\r\n");
    }

    #[test]
    fn expire_conditions_compare_with_the_old_deadline() {
        let (mut bare, mut client) = bare_with_key();
        let mut run = |seconds: &[u8], option: &[u8]| {
            bare.call(&mut client, &[b"EXPIRE", b"k", seconds, option])
        };
        assert_eq!(run(b"10", b"XX"), b":0\r\n");
        assert_eq!(run(b"10", b"GT"), b":0\r\n");
        assert_eq!(run(b"10", b"lt"), b":1\r\n");
        assert_eq!(run(b"10", b"NX"), b":0\r\n");
        assert_eq!(run(b"10", b"GT"), b":0\r\n");
        assert_eq!(run(b"11", b"GT"), b":1\r\n");
        assert_eq!(run(b"11", b"LT"), b":0\r\n");
        assert_eq!(run(b"10", b"LT"), b":1\r\n");
        assert_eq!(run(b"99", b"XX"), b":1\r\n");
        assert_eq!(
            run(b"9223372036854776", b"XX"),
            b"-ERR invalid expire time in 'expire' command\r\n"
        );
    }

    #[test]
    fn deadline_in_the_past_deletes_and_journals_that() {
        let (mut bare, mut client) = bare_with_key();
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        assert_eq!(bare.call(&mut client, &[b"EXPIRE", b"k", b"7"]), b":1\r\n");
        assert_eq!(bare.call(&mut client, &[b"PEXPIREAT", b"k", b"-5"]), b":1\r\n");
        assert!(bare.is_empty(DbIndex(0)));
        let records = bare.held.iter_mut().flatten().flat_map(|shard| shard.journal.take());
        let calls: Vec<_> = records.map(|record| record.call).collect();
        let effects = [
            OwnedArgs::of(&[b"PEXPIREAT", b"k", b"1700000007000"]),
            OwnedArgs::of(&[b"DEL", b"k"]),
        ];
        assert_eq!(calls, effects);
    }
}
