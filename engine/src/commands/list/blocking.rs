//! Commands that wait for an element: they run when they come, and again when one of their keys is
//! made while they wait.

use crate::commands::args::Args;
use crate::commands::blocking::timeout_ms;
use crate::commands::ctx::Ctx;
use crate::commands::list::ends::{PopFromFirst, effect_of_pop, parse_end, pop_one, try_move};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::types::list::{End, List};

/// Waits for a key, or replies what a call replies that may not wait.
fn wait(ctx: &mut Ctx<'_>, timeout_ms: i64, refuse: impl FnOnce()) {
    if ctx.may_block() {
        ctx.block(timeout_ms);
    } else {
        refuse();
    }
}

/// Pops from the first key that holds a list, and replies with both. `false` if none does.
fn try_pop(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    end: End,
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    for word in 1..args.len() - 1 {
        let key = ctx.key(args.at(word));
        if !ctx.is_candidate(key.bytes) || ctx.view_to_write::<List>(key)?.is_none() {
            continue;
        }
        reply.array(2);
        reply.bulk(key.bytes);
        pop_one(ctx, key, end, reply)?;
        effect_of_pop(ctx, key, end, None);
        return Ok(true);
    }
    Ok(false)
}

fn pop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, end: End) -> CommandResult {
    let timeout = timeout_ms(args.at(args.len() - 1), ctx.now)?;
    if !try_pop(ctx, args, end, reply)? {
        wait(ctx, timeout, || reply.null_array());
    }
    Ok(())
}

/// `BLPOP key [key ...] timeout`
pub(super) fn blpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, reply, End::Front)
}

/// `BRPOP key [key ...] timeout`
pub(super) fn brpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, reply, End::Back)
}

/// `BLMPOP timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]`
pub(super) fn blmpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let pop = PopFromFirst::parse(args, 2)?;
    let timeout = timeout_ms(args.at(1), ctx.now)?;
    if !pop.try_pop(ctx, args, reply)? {
        wait(ctx, timeout, || reply.null_array());
    }
    Ok(())
}

fn blocking_move(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    (from, to): (End, End),
    timeout: &[u8],
    reply: &mut Reply<'_>,
) -> CommandResult {
    let timeout = timeout_ms(timeout, ctx.now)?;
    if !try_move(ctx, (args.at(1), from), (args.at(2), to), reply)? {
        wait(ctx, timeout, || reply.null());
    }
    Ok(())
}

/// `BLMOVE source destination LEFT|RIGHT LEFT|RIGHT timeout`
pub(super) fn blmove(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let ends = (parse_end(args.at(3))?, parse_end(args.at(4))?);
    blocking_move(ctx, args, ends, args.at(5), reply)
}

/// `BRPOPLPUSH source destination timeout`
pub(super) fn brpoplpush(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    blocking_move(ctx, args, (End::Back, End::Front), args.at(3), reply)
}
