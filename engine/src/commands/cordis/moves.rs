//! Moves as control sees them: EXPECT, MOVE, MOVES, CANCEL.

use std::net::SocketAddr;

use crate::commands::args::Args;
use crate::commands::cordis::{encoded, number, ranges_at, text_at, trust};
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::CommandResult;
use crate::migrate::ask::SlotAsk;
use crate::migrate::books::Order;
use crate::migrate::cluster::MoveId;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::slots::state::{SlotSet, SlotState};

/// An address that can be dialled without asking anybody for it.
fn address_at(args: &Args<'_>, index: usize) -> Result<String, CommandError> {
    let text = text_at(args, index)?;
    let addr: SocketAddr = text.parse().map_err(|_| CommandError::PEER_ADDRESS)?;
    Ok(addr.to_string())
}

fn id_at(args: &Args<'_>, index: usize) -> Result<MoveId, CommandError> {
    // 0 stands for no move.
    number(args, index)
        .and_then(|id| if id == 0 { Err(CommandError::OUT_OF_RANGE) } else { Ok(id) })
}

/// CORDIS EXPECT move-id epoch source-addr ranges
pub(super) fn expect(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (id, epoch) = (id_at(args, 2)?, number(args, 3)?);
    let (source, slots) = (address_at(args, 4)?, ranges_at(args, 5)?);
    ctx.node.cluster.lock().expect(id, epoch, source, slots)?;
    ctx.node.cluster.note_change();
    reply.ok();
    Ok(())
}

/// CORDIS MOVE move-id epoch target-addr ranges [RATE bytes-per-second] [PARALLEL n]
pub(super) fn begin(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (id, epoch) = (id_at(args, 2)?, number(args, 3)?);
    let (target, slots) = (address_at(args, 4)?, ranges_at(args, 5)?);
    let (mut rate, mut parallel) = (None, None);
    let mut cursor = args.cursor(6);
    while cursor.left() > 0 {
        let (place, least) = if cursor.take("RATE") {
            (&mut rate, 0)
        } else if cursor.take("PARALLEL") {
            (&mut parallel, 1)
        } else {
            return Err(CommandError::SYNTAX);
        };
        let n = u64::try_from(cursor.int()?).ok().filter(|&n| n >= least);
        *place = Some(n.ok_or(CommandError::OUT_OF_RANGE)?);
    }
    let parallel = parallel.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let config = &ctx.node.config;
    let defaults = (config.migrate_rate_bytes(), config.migrate_parallel());
    let order = Order { id, epoch, target, slots, rate_bytes: rate, parallel };
    ctx.node.cluster.lock().order_move(order, defaults)?;
    // Cores are told, and disk knows of it when the reply comes: the move survives a restart.
    let reply = encoded(reply, |reply| reply.ok());
    ctx.action = Some(SessionAction::Slots(SlotAsk::Settle { reply }));
    Ok(())
}

/// CORDIS CANCEL move-id
pub(super) fn cancel(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let id = id_at(args, 2)?;
    ctx.node.cluster.lock().call_off(id);
    let reply = encoded(reply, |reply| reply.ok());
    ctx.action = Some(SessionAction::Slots(SlotAsk::Settle { reply }));
    Ok(())
}

/// CORDIS MOVES
pub(super) fn list(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let cluster = ctx.node.cluster.lock();
    reply.array(cluster.outbound.len() + cluster.inbound.len());
    for (&id, outbound) in &cluster.outbound {
        let in_state = |state| {
            let is_in = |slot| {
                let entry = cluster.slot(slot);
                entry.move_id == id && entry.state == state
            };
            outbound.slots.iter().filter(|&slot| is_in(slot)).count()
        };
        let error = match &cluster.disk_error {
            Some(error) => error,
            None => &outbound.error,
        };
        show(
            reply,
            Shown {
                id,
                role: "source",
                peer: &outbound.target,
                epoch: outbound.epoch,
                total: outbound.slots.len(),
                streaming: in_state(SlotState::Leaving),
                frozen: in_state(SlotState::Frozen) + in_state(SlotState::Handed),
                failed: outbound.failed.len(),
                keys: outbound.keys,
                bytes: outbound.bytes,
                done: &outbound.done,
                error,
                pause_max_us: outbound.pause_max_us,
                refused: outbound.refused,
            },
        );
    }
    for (&id, inbound) in &cluster.inbound {
        let in_state = |state| {
            let is_in = |slot| {
                let entry = cluster.slot(slot);
                entry.move_id == id && entry.state == state
            };
            inbound.slots.iter().filter(|&slot| is_in(slot)).count()
        };
        show(
            reply,
            Shown {
                id,
                role: "target",
                peer: &inbound.source,
                epoch: inbound.epoch,
                total: inbound.slots.len(),
                streaming: in_state(SlotState::Importing),
                frozen: in_state(SlotState::Ready),
                failed: 0,
                keys: inbound.keys,
                bytes: 0,
                done: &inbound.done,
                error: "",
                pause_max_us: 0,
                refused: 0,
            },
        );
    }
    Ok(())
}

struct Shown<'a> {
    id: MoveId,
    role: &'static str,
    peer: &'a str,
    epoch: u64,
    total: usize,
    streaming: usize,
    frozen: usize,
    failed: usize,
    keys: u64,
    bytes: u64,
    done: &'a SlotSet,
    error: &'a str,
    pause_max_us: u64,
    refused: u64,
}

fn show(reply: &mut Reply<'_>, shown: Shown<'_>) {
    let done_slots = shown.done.to_string();
    reply.map(15);
    let mut text = |name: &str, value: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    };
    text("role", shown.role);
    text("peer", shown.peer);
    text("done_slots", &done_slots);
    text("error", shown.error);
    let numbers = [
        ("id", shown.id),
        ("epoch", shown.epoch),
        ("slots", shown.total as u64),
        ("done", shown.done.len() as u64),
        ("streaming", shown.streaming as u64),
        ("frozen", shown.frozen as u64),
        ("failed", shown.failed as u64),
        ("keys", shown.keys),
        ("bytes", shown.bytes),
        ("pause_max_us", shown.pause_max_us),
        ("refused", shown.refused),
    ];
    for (name, n) in numbers {
        reply.bulk(name.as_bytes());
        reply.int(n as i64);
    }
}
