//! Being one of a cluster: HELLO, JOIN, LEAVE, MAP, SLOTS.

use crate::commands::args::{Args, is_token};
use crate::commands::cordis::{encoded, number, slot_at, text_at, trust};
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::CommandResult;
use crate::migrate::ask::SlotAsk;
use crate::migrate::cluster::Membership;
use crate::node::Node;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::slots::map::{ClusterMap, GROUP_MAX, GroupId};
use crate::units::{CoreId, SLOT_COUNT, SlotId};

/// Slots in a row that are alike: the first, the last, and what they have in common.
fn runs<T: PartialEq>(mut of: impl FnMut(SlotId) -> T) -> Vec<(usize, usize, T)> {
    let mut runs: Vec<(usize, usize, T)> = Vec::new();
    for slot in SlotId::all() {
        let (at, what) = (slot.index(), of(slot));
        match runs.last_mut() {
            Some((_, last, same)) if *same == what => *last = at,
            _ => runs.push((at, at, what)),
        }
    }
    runs
}

/// CORDIS HELLO [CORE n] [NAME text] [STICKY]
pub(super) fn hello(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let mut core = None;
    let mut cursor = args.cursor(2);
    while cursor.left() > 0 {
        if cursor.take("CORE") {
            let n = usize::try_from(cursor.int()?).ok();
            let n = n.filter(|&n| n < ctx.node.cores.len()).ok_or(CommandError::NO_SUCH_CORE)?;
            core = Some(CoreId(n as u16));
        } else if cursor.take("STICKY") {
            ctx.client.is_sticky = true;
        } else {
            let name = cursor.take_value("NAME").ok_or(CommandError::SYNTAX)?;
            if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
                return Err(CommandError::CLIENT_NAME);
            }
            ctx.client.name = name.into();
        }
    }
    match core {
        Some(to) if to != ctx.client.core => {
            if ctx.client.is_tied() {
                return Err(CommandError::TIED_TO_CORE);
            }
            let greeting = encoded(reply, |reply| greet(ctx.node, reply));
            ctx.action = Some(SessionAction::Slots(SlotAsk::Deal { to, greeting }));
        }
        _ => greet(ctx.node, reply),
    }
    Ok(())
}

/// CORDIS RETRY slot [slot ...]
pub(super) fn retry(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    for index in 2..args.len() {
        ctx.client.retry(slot_at(args, index)?);
    }
    reply.ok();
    Ok(())
}

fn greet(node: &Node, reply: &mut Reply<'_>) {
    let (product, group, epoch) = {
        let cluster = node.cluster.lock();
        let me = cluster.membership.as_ref();
        let epoch = cluster.map.as_ref().map_or(0, |map| map.epoch);
        (me.map(|me| me.product.clone()).unwrap_or_default(), me.map_or(0, |me| me.group), epoch)
    };
    reply.map(7);
    reply.bulk(b"version");
    reply.bulk(env!("CARGO_PKG_VERSION").as_bytes());
    reply.bulk(b"run_id");
    reply.bulk(node.run_id.as_bytes());
    reply.bulk(b"cores");
    reply.count(node.cores.len());
    reply.bulk(b"product");
    reply.bulk(product.as_bytes());
    reply.bulk(b"group");
    reply.count(group.into());
    reply.bulk(b"epoch");
    reply.int(epoch as i64);
    reply.bulk(b"slots");
    let runs = runs(|slot| node.owners.of(slot));
    reply.array(runs.len());
    for (from, to, shard) in runs {
        reply.array(3);
        reply.count(from);
        reply.count(to);
        reply.count(shard.index());
    }
}

/// CORDIS JOIN product group own-addr
pub(super) fn join(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let product = text_at(args, 2)?.to_owned();
    let group = GroupId::try_from(number(args, 3)?).ok().filter(|id| (1..=GROUP_MAX).contains(id));
    let group = group.ok_or(CommandError::OUT_OF_RANGE)?;
    let addr = text_at(args, 4)?.to_owned();
    if product.is_empty() || addr.is_empty() {
        return Err(CommandError::SYNTAX);
    }
    let membership = Membership { product, group, addr };
    ctx.node.cluster.lock().admit(membership)?;
    settle(ctx, encoded(reply, |reply| reply.ok()));
    Ok(())
}

/// CORDIS LEAVE product
pub(super) fn leave(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    ctx.node.cluster.lock().dismiss(args.at(2))?;
    settle(ctx, encoded(reply, |reply| reply.ok()));
    Ok(())
}

/// The reply comes when all cores have made their slots what they are to be, and disk knows it.
fn settle(ctx: &mut SessionCtx<'_>, reply: Vec<u8>) {
    ctx.action = Some(SessionAction::Slots(SlotAsk::Settle { reply }));
}

/// CORDIS MAP SET json | GET
pub(super) fn map(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    if is_token(args.at(2), "GET") && args.len() == 3 {
        let cluster = ctx.node.cluster.lock();
        let map = cluster.map.as_ref().ok_or(CommandError::NO_MAP)?;
        reply.bulk(map.to_json().as_bytes());
        return Ok(());
    }
    if !is_token(args.at(2), "SET") || args.len() != 4 {
        return Err(CommandError::SYNTAX);
    }
    let map = ClusterMap::from_json(args.at(3));
    let map = map.map_err(|error| CommandError::bad_map(&error.to_string()))?;
    let epoch = map.epoch;
    ctx.node.cluster.lock().offer_map(map)?;
    settle(ctx, encoded(reply, |reply| reply.int(epoch as i64)));
    Ok(())
}

/// CORDIS SLOTS
pub(super) fn slots(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let cluster = ctx.node.cluster.lock();
    let runs = runs(|slot| {
        let entry = cluster.slot(slot);
        (entry.state, entry.epoch, ctx.node.owners.of(slot), entry.peer.as_deref().unwrap_or(""))
    });
    debug_invariant!(runs.len() <= SLOT_COUNT, "a run has a slot");
    reply.array(runs.len());
    for (from, to, (state, epoch, shard, peer)) in runs {
        reply.array(6);
        reply.count(from);
        reply.count(to);
        reply.bulk(state.name().as_bytes());
        reply.int(epoch as i64);
        reply.count(shard.index());
        reply.bulk(peer.as_bytes());
    }
    Ok(())
}
