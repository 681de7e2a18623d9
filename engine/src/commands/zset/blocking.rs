//! Popping that waits for members: BZPOPMIN, BZPOPMAX, BZMPOP.

use crate::commands::args::Args;
use crate::commands::blocking::timeout_ms;
use crate::commands::ctx::Ctx;
use crate::commands::spec::CommandResult;
use crate::commands::zset::remove::{End, MultiPop, Shape, try_pop};
use crate::resp::reply::Reply;

pub(super) fn bzpopmin(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, End::Min, reply)
}

pub(super) fn bzpopmax(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, End::Max, reply)
}

fn pop(ctx: &mut Ctx<'_>, args: &Args<'_>, end: End, reply: &mut Reply<'_>) -> CommandResult {
    let last = args.len() - 1;
    let timeout_ms = timeout_ms(args.at(last), ctx.now)?;
    for word in args.iter_from(1).take(last - 1) {
        let key = ctx.key(word);
        if ctx.is_candidate(word) && try_pop(ctx, key, end, 1, Shape::KeyFlat, reply)? {
            return Ok(());
        }
    }
    wait(ctx, timeout_ms, reply);
    Ok(())
}

/// Redis: the timeout is looked at after all other words.
pub(super) fn bzmpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let pop = MultiPop::parse(args, 2)?;
    let timeout_ms = timeout_ms(args.at(1), ctx.now)?;
    if !pop.try_run(ctx, args, reply)? {
        wait(ctx, timeout_ms, reply);
    }
    Ok(())
}

/// Waits, or replies at once as if the time were over.
fn wait(ctx: &mut Ctx<'_>, timeout_ms: i64, reply: &mut Reply<'_>) {
    if ctx.may_block() {
        ctx.block(timeout_ms);
    } else {
        reply.null_array();
    }
}
