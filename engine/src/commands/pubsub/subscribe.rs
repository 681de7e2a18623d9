//! SUBSCRIBE and its kin. Each name is confirmed by a message of its own.

use super::steps::{NAMES_PER_STEP, NameWork};
use crate::commands::args::Args;
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::CommandResult;
use crate::pubsub::outbox::Item;
use crate::pubsub::{Kind, Name};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// SUBSCRIBE channel [channel ...]
pub(super) fn subscribe(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    add(ctx, args, reply, Kind::Channel);
    Ok(())
}

/// PSUBSCRIBE pattern [pattern ...]
pub(super) fn psubscribe(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    add(ctx, args, reply, Kind::Pattern);
    Ok(())
}

/// SSUBSCRIBE shardchannel [shardchannel ...]
pub(super) fn ssubscribe(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    // Redis: the older two may be queued, for old clients' sake.
    if ctx.in_exec {
        return Err(CommandError::SSUBSCRIBE_IN_EXEC);
    }
    add(ctx, args, reply, Kind::Shard);
    Ok(())
}

/// UNSUBSCRIBE [channel ...]
pub(super) fn unsubscribe(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    remove(ctx, args, reply, Kind::Channel);
    Ok(())
}

/// PUNSUBSCRIBE [pattern ...]
pub(super) fn punsubscribe(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    remove(ctx, args, reply, Kind::Pattern);
    Ok(())
}

/// SUNSUBSCRIBE [shardchannel ...]
pub(super) fn sunsubscribe(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    remove(ctx, args, reply, Kind::Shard);
    Ok(())
}

fn add(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, kind: Kind) {
    if !takes_steps(ctx, args, kind, true) {
        add_names(ctx, args.iter_from(1), reply, kind);
        ctx.pushed = Some(reply.out().mark());
    }
}

/// Whether a call names so much that it works in steps.
fn takes_steps(ctx: &mut SessionCtx<'_>, args: &Args<'_>, kind: Kind, subscribes: bool) -> bool {
    let takes = ctx.may_defer && args.len() > NAMES_PER_STEP;
    if takes {
        if subscribes {
            // Growing by and by would move all of them at once, many times.
            let subs = ctx.client.subs.get_or_insert_default();
            subs.of_mut(kind).reserve(args.len() - 1);
        }
        let work = NameWork::Words { kind, subscribes, words: args.to_owned(), next: 1 };
        ctx.action = Some(SessionAction::Names(work));
    }
    takes
}

/// Subscribes to names. What it writes is messages, not replies.
pub(super) fn add_names<'a>(
    ctx: &mut SessionCtx<'_>,
    names: impl Iterator<Item = &'a [u8]>,
    reply: &mut Reply<'_>,
    kind: Kind,
) {
    for name in names {
        let subs = ctx.client.subs.get_or_insert_default();
        if !subs.of(kind).contains(name) {
            let (name, at) = ctx.node.pubsub.subscribe(kind, ctx.client.core, name);
            subs.of_mut(kind).insert(Name::clone(&name));
            ctx.outbox.push(Item::Subscribe(kind, name, at));
        }
        confirm(reply, kind.subscribed(), Some(name), subs.shown_count(kind));
    }
}

fn remove(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, kind: Kind) {
    if args.len() > 1 {
        if takes_steps(ctx, args, kind, false) {
            return;
        }
        remove_names(ctx, args.iter_from(1), reply, kind);
    } else if name_count(ctx, kind) == 0 {
        confirm(reply, kind.unsubscribed(), None, shown_count(ctx, kind));
    } else if ctx.may_defer && name_count(ctx, kind) > NAMES_PER_STEP {
        ctx.action = Some(SessionAction::Names(NameWork::All(kind)));
        return;
    } else {
        remove_some(ctx, reply, kind, usize::MAX);
    }
    ctx.pushed = Some(reply.out().mark());
}

/// Unsubscribes from names.
pub(super) fn remove_names<'a>(
    ctx: &mut SessionCtx<'_>,
    names: impl Iterator<Item = &'a [u8]>,
    reply: &mut Reply<'_>,
    kind: Kind,
) {
    for name in names {
        end(ctx, kind, name);
        confirm(reply, kind.unsubscribed(), Some(name), shown_count(ctx, kind));
    }
    forget_empty(ctx);
}

/// Unsubscribes from some of all names of a kind; whether none is left.
pub(super) fn remove_some(
    ctx: &mut SessionCtx<'_>,
    reply: &mut Reply<'_>,
    kind: Kind,
    count_max: usize,
) -> bool {
    let all = ctx.client.subs.iter().flat_map(|subs| subs.of(kind));
    let names: Vec<Name> = all.take(count_max).cloned().collect();
    remove_names(ctx, names.iter().map(|name| &**name), reply, kind);
    name_count(ctx, kind) == 0
}

fn forget_empty(ctx: &mut SessionCtx<'_>) {
    if ctx.client.subs.as_ref().is_some_and(|subs| subs.is_empty()) {
        ctx.client.subs = None;
    }
}

fn name_count(ctx: &SessionCtx<'_>, kind: Kind) -> usize {
    ctx.client.subs.as_ref().map_or(0, |subs| subs.of(kind).len())
}

/// Ends one subscription, if the client has it.
fn end(ctx: &mut SessionCtx<'_>, kind: Kind, name: &[u8]) {
    let taken = ctx.client.subs.as_mut().and_then(|subs| subs.of_mut(kind).take(name));
    if let Some(name) = taken {
        ctx.node.pubsub.unsubscribe(kind, ctx.client.core, &name);
        ctx.outbox.push(Item::Unsubscribe(kind, name));
    }
}

fn names(ctx: &SessionCtx<'_>, kind: Kind) -> Vec<Name> {
    ctx.client.subs.iter().flat_map(|subs| subs.of(kind)).cloned().collect()
}

fn shown_count(ctx: &SessionCtx<'_>, kind: Kind) -> usize {
    ctx.client.subs.as_ref().map_or(0, |subs| subs.shown_count(kind))
}

fn confirm(reply: &mut Reply<'_>, word: &[u8], name: Option<&[u8]>, count: usize) {
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.count(count);
}

/// Ends all subscriptions of a client without a word (RESET).
pub fn leave(ctx: &mut SessionCtx<'_>) {
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        for name in names(ctx, kind) {
            end(ctx, kind, &name);
        }
    }
    ctx.client.subs = None;
}
