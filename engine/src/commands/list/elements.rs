//! Elements by their position: one, or a range.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::list::reply::reply_range;
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::types::list::{End, List};

/// The position that an index means: a negative one counts from the end.
fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|&position| position < len)
}

/// The positions from `start` to `stop`, both included, as indices mean them: the first, and one
/// beyond the last. Equal if there are none.
fn range(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let from_end = |index: i64| if index < 0 { index + len as i64 } else { index };
    let start = from_end(start).max(0) as usize;
    let stop = from_end(stop).saturating_add(1).clamp(0, len as i64) as usize;
    if start >= stop { (0, 0) } else { (start, stop) }
}

/// `LLEN key`
pub(super) fn llen(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let list = ctx.view::<List>(key)?;
    reply.count(list.map_or(0, |list| list.len()));
    Ok(())
}

/// `LINDEX key index`
pub(super) fn lindex(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let Some(list) = ctx.view::<List>(key)? else {
        reply.null();
        return Ok(());
    };
    match position(args.int(2)?, list.len()).and_then(|position| list.get(position)) {
        Some(item) => item.reply(reply),
        None => reply.null(),
    }
    Ok(())
}

/// `LSET key index element`
pub(super) fn lset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let list = ctx.view_to_write::<List>(key)?.ok_or(CommandError::NO_SUCH_KEY)?;
    let position = position(args.int(2)?, list.len()).ok_or(CommandError::INDEX_OUT_OF_RANGE)?;
    ctx.edit(key, |list: &mut List| list.set(position, args.at(3)))?;
    ctx.changed(key, Event::List("lset"));
    reply.ok();
    Ok(())
}

/// `LRANGE key start stop`
pub(super) fn lrange(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, stop) = (args.int(2)?, args.int(3)?);
    let key = ctx.key(args.at(1));
    match ctx.view::<List>(key)? {
        Some(list) => {
            let (from, to) = range(start, stop, list.len());
            reply_range(list, from, to, End::Front, reply);
        }
        None => reply.array(0),
    }
    Ok(())
}

/// `LTRIM key start stop`
pub(super) fn ltrim(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, stop) = (args.int(2)?, args.int(3)?);
    let key = ctx.key(args.at(1));
    let trash = ctx.edit(key, |list: &mut List| {
        let (from, to) = range(start, stop, list.len());
        [list.remove_range(to, usize::MAX), list.remove_range(0, from)]
    })?;
    if let Some(trash) = trash {
        trash.into_iter().for_each(|trash| ctx.free_later(key.slot, trash));
        // Redis: the event comes whether anything was cut off or not.
        ctx.changed(key, Event::List("ltrim"));
    }
    reply.ok();
    Ok(())
}
