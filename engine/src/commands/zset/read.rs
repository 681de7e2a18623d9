//! Looking at single members, and counting: ZCARD, ZSCORE, ZMSCORE, ZRANK, ZREVRANK, ZCOUNT,
//! ZLEXCOUNT.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::spec::CommandResult;
use crate::commands::words;
use crate::commands::zset::bounds::{By, Range};
use crate::commands::zset::reply::score;
use crate::resp::reply::Reply;
use crate::types::zset::{Zset, ZsetView};

pub(super) fn zcard(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let zset = ctx.view::<Zset>(key)?;
    reply.count(zset.map_or(0, ZsetView::len));
    Ok(())
}

fn score_or_null(x: Option<f64>, reply: &mut Reply<'_>) {
    match x {
        Some(x) => score(x, reply),
        None => reply.null(),
    }
}

pub(super) fn zscore(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let zset = ctx.view::<Zset>(key)?;
    score_or_null(zset.and_then(|zset| zset.score(args.at(2))), reply);
    Ok(())
}

pub(super) fn zmscore(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let score_of = |zset: Option<ZsetView<'_>>, member: &[u8], reply: &mut Reply<'_>| {
        score_or_null(zset.and_then(|zset| zset.score(member)), reply);
    };
    words::answer::<Zset>(ctx, args, 2, score_of, reply)
}

pub(super) fn zrank(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    rank(ctx, args, |rank, _| rank, reply)
}

pub(super) fn zrevrank(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    rank(ctx, args, |rank, len| len - 1 - rank, reply)
}

fn rank(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    count: fn(usize, usize) -> usize,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    let found = ctx.view::<Zset>(key)?.and_then(|zset| {
        let (rank, _) = zset.find(args.at(2))?;
        Some(count(rank, zset.len()))
    });
    match found {
        Some(rank) => reply.count(rank),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn zcount(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    count(ctx, args, By::Score, reply)
}

pub(super) fn zlexcount(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    count(ctx, args, By::Lex, reply)
}

fn count(ctx: &mut Ctx<'_>, args: &Args<'_>, by: By, reply: &mut Reply<'_>) -> CommandResult {
    let range = Range::parse(by, args.at(2), args.at(3))?;
    let key = ctx.key(args.at(1));
    let ranks = ctx.view::<Zset>(key)?.map(|zset| range.ranks(zset, false));
    reply.count(ranks.map_or(0, |(from, to)| to - from));
    Ok(())
}
