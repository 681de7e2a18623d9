//! Values as numbers: HINCRBY, HINCRBYFLOAT.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::longdouble::LongDouble;
use crate::resp::reply::Reply;
use crate::types::Collection;
use crate::types::hash::{Hash, HashView};
use crate::types::pack::Item;

fn sum(hash: HashView<'_>, field: &[u8], by: i64) -> Result<i64, CommandError> {
    let old = match hash.get(field) {
        Some(Item::Int(n)) => n,
        Some(Item::Str(_)) => return Err(CommandError::HASH_VALUE_NOT_INTEGER),
        None => 0,
    };
    old.checked_add(by).ok_or(CommandError::OVERFLOW)
}

pub(super) fn hincrby(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (field, by) = (args.at(2), args.int(3)?);
    let key = ctx.key(args.at(1));
    let limits = ctx.limits();
    let new = ctx.edit_or_new(key, |hash: &mut Hash| {
        let new = sum(hash.view(), field, by)?;
        hash.set(field, itoa::Buffer::new().format(new).as_bytes(), &limits);
        Ok::<_, CommandError>(new)
    })??;
    ctx.changed(key, Event::Hash("hincrby"));
    reply.int(new);
    Ok(())
}

fn sum_float(hash: HashView<'_>, field: &[u8], by: LongDouble) -> Result<LongDouble, CommandError> {
    let old = match hash.get(field) {
        Some(Item::Int(n)) => LongDouble::from(n),
        Some(Item::Str(text)) => {
            LongDouble::parse(text).ok_or(CommandError::HASH_VALUE_NOT_FLOAT)?
        }
        None => LongDouble::ZERO,
    };
    old.checked_add(by).ok_or(CommandError::NAN_OR_INFINITY)
}

pub(super) fn hincrbyfloat(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let field = args.at(2);
    let by = LongDouble::parse(args.at(3)).ok_or(CommandError::NOT_FLOAT)?;
    if !by.is_finite() {
        return Err(CommandError::VALUE_NAN_OR_INFINITY);
    }
    let key = ctx.key(args.at(1));
    let limits = ctx.limits();
    let new = ctx.edit_or_new(key, |hash: &mut Hash| {
        let new = sum_float(hash.view(), field, by)?.to_text();
        hash.set(field, new.as_bytes(), &limits);
        Ok::<_, CommandError>(new)
    })??;
    ctx.changed(key, Event::Hash("hincrbyfloat"));
    // The value, not the sum: whoever replays it may compute in another type.
    ctx.effect(key, &[b"HSET", key.bytes, field, new.as_bytes()]);
    reply.bulk(new.as_bytes());
    Ok(())
}
