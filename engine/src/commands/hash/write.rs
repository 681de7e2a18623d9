//! Changes of fields: HSET, HMSET, HSETNX, HDEL.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::types::Collection;
use crate::types::hash::Hash;

/// First word of the fields of HSET and its kin.
const PAIRS_AT: usize = 2;

/// Sets all fields of a call. Returns how many of them are new.
fn set_pairs(ctx: &mut Ctx<'_>, args: &Args<'_>, name: &str) -> Result<usize, CommandError> {
    if args.len() % 2 == 1 {
        return Err(CommandError::wrong_arity(name));
    }
    let key = ctx.key(args.at(1));
    let limits = ctx.limits();
    let created = ctx.edit_or_new(key, |hash: &mut Hash| {
        if args.len() > PAIRS_AT + 2 {
            // All words at once: a call that makes a table does not pack its first pairs before.
            hash.make_room(args.iter_from(PAIRS_AT), &limits);
        }
        let mut created = 0;
        for at in (PAIRS_AT..args.len()).step_by(2) {
            created += usize::from(hash.set(args.at(at), args.at(at + 1), &limits));
        }
        created
    })?;
    ctx.changed(key, Event::Hash("hset"));
    Ok(created)
}

pub(super) fn hset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let created = set_pairs(ctx, args, "hset")?;
    reply.count(created);
    Ok(())
}

pub(super) fn hmset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_pairs(ctx, args, "hmset")?;
    reply.ok();
    Ok(())
}

/// Redis: a value that is not stored does not change the encoding either.
pub(super) fn hsetnx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let limits = ctx.limits();
    let (field, value) = (args.at(2), args.at(3));
    let is_new = ctx.edit_or_new(key, |hash: &mut Hash| {
        !hash.view().contains(field) && hash.set(field, value, &limits)
    })?;
    if is_new {
        ctx.changed(key, Event::Hash("hset"));
    }
    reply.int_bool(is_new);
    Ok(())
}

pub(super) fn hdel(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let deleted = ctx.edit(key, |hash: &mut Hash| {
        args.iter_from(2).filter(|field| hash.remove(field)).count()
    })?;
    let deleted = deleted.unwrap_or(0);
    if deleted > 0 {
        ctx.changed(key, Event::Hash("hdel"));
    }
    reply.count(deleted);
    Ok(())
}
