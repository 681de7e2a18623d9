//! The HyperLogLog family: strings that estimate how many different elements were added to them.
//!
//! What is in such a string, and all arithmetic, is in [`crate::types::hll`]. Handlers run on the
//! core that holds the shards of their keys.

mod add;
mod debug;

use std::sync::Arc;

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry, Later};
use crate::commands::long::Tries;
use crate::commands::spec::*;
use crate::commands::words::long_words_min;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::store::entry::Value;
use crate::types::hll::{self, Corrupted, Encoding, Mark, Registers};

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "pfadd",
        family: Family::HyperLogLog,
        since: "2.8.9",
        summary: "Adds elements to a HyperLogLog and tells whether its count may have changed",
        complexity: "O(1) per element",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
        acl: Acl::HYPERLOGLOG,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Insert, 1, 0, 1)],
        args: &[Arg::key("key", 0), Arg::new("element", ArgKind::String).optional().multiple()],
        propagate: Propagate::Verbatim,
        deferral: Deferral::ManyWords,
        handler: Handler::Data(pfadd),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pfcount",
        family: Family::HyperLogLog,
        since: "2.8.9",
        summary: "Estimates the number of different elements of HyperLogLogs taken together",
        complexity: "O(1) for one key, O(N) with N keys, where each costs a look at all registers",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Acl::HYPERLOGLOG,
        keys: &[KeySpec {
            notes: "The count of a single key is kept in its value, and replicas hear of it",
            ..KeySpec::range(Access::ReadWrite, Purpose::Access, 1, -1, 1)
        }],
        args: &[Arg::key("key", 0).multiple()],
        handler: Handler::Data(pfcount),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pfdebug",
        family: Family::HyperLogLog,
        since: "2.8.9",
        summary: "Shows how a HyperLogLog is stored",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::ADMIN),
        acl: Acl::HYPERLOGLOG,
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Access, 2, 0, 1)],
        args: &[Arg::new("subcommand", ArgKind::String), Arg::key("key", 0)],
        is_internal: true,
        propagate: Propagate::Rewritten,
        handler: Handler::Data(debug::pfdebug),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pfmerge",
        family: Family::HyperLogLog,
        since: "2.8.9",
        summary: "Merges HyperLogLogs into one",
        complexity: "O(N) with N keys, where each costs a look at all registers",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Acl::HYPERLOGLOG,
        keys: &[
            KeySpec::range(Access::ReadWrite, Purpose::AccessInsert, 1, 0, 1),
            KeySpec::range(Access::Read, Purpose::Access, 2, -1, 1),
        ],
        args: &[Arg::key("destkey", 0), Arg::key("sourcekey", 1).multiple()],
        propagate: Propagate::Rewritten,
        handler: Handler::Data(pfmerge),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "pfselftest",
        family: Family::HyperLogLog,
        since: "2.8.9",
        summary: "Checks the arithmetic of HyperLogLogs on elements of its own",
        complexity: "O(1)",
        arity: Arity::Exact(1),
        flags: Flags::ADMIN,
        acl: Acl::HYPERLOGLOG,
        is_internal: true,
        route: Route::Session,
        handler: Handler::Session(debug::pfselftest),
        ..CommandSpec::EMPTY
    },
];

impl From<Corrupted> for CommandError {
    fn from(_: Corrupted) -> Self {
        Self::CORRUPTED_HLL
    }
}

/// How the registers of a string are stored; an error if it has none.
fn encoding(value: Value<'_>) -> Result<Encoding, CommandError> {
    hll::encoding(&value.bytes()).ok_or(CommandError::NO_HLL)
}

/// Redis: a string becomes `raw` even if nothing is changed.
fn make_raw(ctx: &mut Ctx<'_>, key: KeyRef<'_>, is_raw: bool) {
    if !is_raw {
        ctx.edit_string(key, 0);
    }
}

fn pfadd(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if let Some(words) = &ctx.words
        && args.len() >= long_words_min()
    {
        let work = add::Work::new(ctx, Arc::clone(words), Tries::default())?;
        ctx.later = Later::Long(Box::new(work));
        return Ok(());
    }
    add_at_once(ctx, args, reply)
}

fn add_at_once(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let (mut bytes, is_new, is_raw) = match ctx.write_string(key)? {
        Some(value) if encoding(value)? == Encoding::Dense => {
            let changed = add_to_dense(ctx.edit_string(key, 0), args);
            return end_pfadd(ctx, key, changed, reply);
        }
        Some(value) => (value.bytes().to_vec(), false, value.encoding() == "raw"),
        None => (hll::empty(), true, true),
    };
    let sparse_bytes_max = ctx.node.config.hll_sparse_max_bytes();
    let mut changed = is_new;
    for element in args.iter_from(2) {
        changed |= hll::add(&mut bytes, Mark::of(element), sparse_bytes_max)?;
    }
    if changed {
        hll::forget_count(&mut bytes);
        ctx.set_string(key, &bytes, Encode::Raw, Expiry::Keep);
    } else {
        make_raw(ctx, key, is_raw);
    }
    end_pfadd(ctx, key, changed, reply)
}

fn add_to_dense(bytes: &mut [u8], args: &Args<'_>) -> bool {
    let mut changed = false;
    for element in args.iter_from(2) {
        changed |= hll::add_dense(bytes, Mark::of(element));
    }
    if changed {
        hll::forget_count(bytes);
    }
    changed
}

fn end_pfadd(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    changed: bool,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if changed {
        ctx.modified(key, Event::String("pfadd"));
    }
    reply.int_bool(changed);
    Ok(())
}

fn pfcount(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = if args.len() > 2 {
        union(ctx, args)?.0.count()
    } else {
        let key = ctx.key(args.at(1));
        count_one(ctx, key)?
    };
    // Redis: a count that no elements can bring about is shown as a negative number.
    reply.int(count as i64);
    Ok(())
}

/// The count of one key, which is kept in its value.
fn count_one(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> Result<u64, CommandError> {
    let Some(value) = ctx.read_string(key)? else {
        return Ok(0);
    };
    encoding(value)?;
    let is_raw = value.encoding() == "raw";
    let bytes = value.bytes();
    let cached = hll::cached_count(&bytes);
    let counted = cached.map_or_else(|| hll::count(&bytes), Ok);
    make_raw(ctx, key, is_raw);
    let count = counted?;
    if cached.is_some() {
        return Ok(count);
    }
    hll::cache_count(ctx.edit_string(key, 0), count);
    // Redis: it is no write, yet watchers lose and replicas count as well.
    ctx.touch_watchers(key);
    ctx.effect(key, &[b"PFCOUNT", key.bytes]);
    Ok(count)
}

/// The union of all keys, and whether any of them is dense.
fn union(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<(Registers, bool), CommandError> {
    let mut registers = Registers::default();
    let mut any_dense = false;
    for word in args.iter_from(1) {
        let key = ctx.key(word);
        if let Some(value) = ctx.read_string(key)? {
            any_dense |= encoding(value)? == Encoding::Dense;
            registers.merge(&value.bytes())?;
        }
    }
    Ok((registers, any_dense))
}

fn pfmerge(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (registers, any_dense) = union(ctx, args)?;
    let key = ctx.key(args.at(1));
    let mut bytes = match ctx.write_string(key)? {
        Some(value) => value.bytes().to_vec(),
        None => hll::empty(),
    };
    if any_dense {
        hll::make_dense(&mut bytes)?;
    }
    registers.write_to(&mut bytes, ctx.node.config.hll_sparse_max_bytes())?;
    hll::forget_count(&mut bytes);
    ctx.set_string(key, &bytes, Encode::Raw, Expiry::Keep);
    ctx.modified(key, Event::String("pfadd"));
    ctx.effect_state(ctx.db, key);
    reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests;
