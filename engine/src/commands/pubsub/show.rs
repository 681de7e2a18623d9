//! PUBSUB: what is subscribed to, and how often. Answered from the registry, which knows all cores.

use super::steps::{NAMES_PER_STEP, NameWork};
use crate::commands::args::Args;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::CommandResult;
use crate::pubsub::Kind;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// PUBSUB CHANNELS [pattern]
pub(super) fn channels(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    names(ctx, args, reply, Kind::Channel)
}

/// PUBSUB SHARDCHANNELS [pattern]
pub(super) fn shardchannels(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    names(ctx, args, reply, Kind::Shard)
}

fn names(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    kind: Kind,
) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::subcommand_syntax(args.at(1), "PUBSUB"));
    }
    if ctx.may_defer && ctx.node.pubsub.name_count(kind) > NAMES_PER_STEP {
        ctx.action = Some(SessionAction::Names(NameWork::list(kind, args.get(2))));
        return Ok(());
    }
    let found = ctx.node.pubsub.names(kind, args.get(2));
    reply.array(found.len());
    found.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

/// PUBSUB NUMSUB [channel ...]
pub(super) fn numsub(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    counts(ctx, args, reply, Kind::Channel);
    Ok(())
}

/// PUBSUB SHARDNUMSUB [shardchannel ...]
pub(super) fn shardnumsub(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    counts(ctx, args, reply, Kind::Shard);
    Ok(())
}

fn counts(ctx: &SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, kind: Kind) {
    reply.array((args.len() - 2) * 2);
    for name in args.iter_from(2) {
        reply.bulk(name);
        reply.int(ctx.node.pubsub.count(kind, name) as i64);
    }
}

/// PUBSUB NUMPAT
pub(super) fn numpat(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.count(ctx.node.pubsub.name_count(Kind::Pattern));
    Ok(())
}

/// PUBSUB HELP
pub(super) fn help(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}
