//! PUBLISH and SPUBLISH. The number of receivers is known at once, from the registry; the message
//! itself is mailed by the core.

use std::sync::Arc;

use crate::commands::args::Args;
use crate::commands::glob::{self, Case};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::CommandResult;
use crate::pubsub::message::Message;
use crate::pubsub::outbox::Item;
use crate::pubsub::{Kind, Subscriptions};
use crate::resp::reply::Reply;

/// PUBLISH channel message
pub(super) fn publish(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    send(ctx, args, reply, Kind::Channel);
    Ok(())
}

/// SPUBLISH shardchannel message
pub(super) fn spublish(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    send(ctx, args, reply, Kind::Shard);
    Ok(())
}

fn send(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, kind: Kind) {
    let to = ctx.node.pubsub.receivers(kind, args.at(1));
    if to.count > 0 {
        let message = Message::new(kind, args.at(1), args.at(2), ctx.client.id, &to);
        if let Some(subs) = &ctx.client.subs {
            echo(subs, kind, &message, reply);
            ctx.pushed = Some(reply.out().mark());
        }
        ctx.outbox.push(Item::Publish(Arc::new(message), to.cores));
    }
    reply.int(to.count as i64);
}

/// Gives the publisher its own message, before the reply, as Redis does.
fn echo(subs: &Subscriptions, kind: Kind, message: &Message, reply: &mut Reply<'_>) {
    let protocol = reply.protocol();
    let channel = message.channel();
    if subs.of(kind).contains(channel) {
        message.write(message.body(), reply.out(), protocol);
    }
    if kind == Kind::Channel {
        for pattern in subs.of(Kind::Pattern) {
            if glob::matches(pattern, channel, Case::Sensitive) {
                message.write(&message.body_for_pattern(pattern), reply.out(), protocol);
            }
        }
    }
}
