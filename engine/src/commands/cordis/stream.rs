//! What the source of a move says to its target: IMPORT, READY, COMMIT, ABORT, RESOLVE.

use crate::commands::args::Args;
use crate::commands::cordis::{number, slot_at, text_at, trust};
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::CommandResult;
use crate::migrate::ask::{SlotAsk, SlotStep};
use crate::migrate::machine::TargetView;
use crate::net::client::Import;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::units::Ms;

fn ask(ctx: &mut SessionCtx<'_>, slot: crate::units::SlotId, of: (u64, u64), what: SlotStep) {
    let (move_id, attempt) = of;
    let ask = SlotAsk::Slot { slot, move_id, attempt, what };
    ctx.action = Some(SessionAction::Slots(ask));
}

/// CORDIS IMPORT move-id epoch slot attempt [NOW ms]
pub(super) fn import(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (move_id, epoch) = (number(args, 2)?, number(args, 3)?);
    let (slot, attempt) = (slot_at(args, 4)?, number(args, 5)?);
    let mut now = ctx.now;
    let mut cursor = args.cursor(6);
    while cursor.left() > 0 {
        if !cursor.take("NOW") {
            return Err(CommandError::SYNTAX);
        }
        now = Ms(cursor.int()?);
    }
    if attempt == 0 {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let version = ctx.node.owners.version();
    let is_under_way = {
        let cluster = ctx.node.cluster.lock();
        let entry = cluster.slot(slot);
        entry.move_id == move_id && entry.target.takes(attempt)
    };
    // Another slot's turn has ended: the attempt goes on where it was.
    if is_under_way {
        let import = Import { move_id, slot, attempt, now, version };
        match &mut ctx.client.import {
            Some(bound) => **bound = import,
            none => *none = Some(Box::new(import)),
        }
        reply.ok();
        return Ok(());
    }
    ctx.client.import = None;
    ask(ctx, slot, (move_id, attempt), SlotStep::Import { epoch, now });
    Ok(())
}

/// CORDIS READY slot keys digest
pub(super) fn ready(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (slot, keys) = (slot_at(args, 2)?, number(args, 3)?);
    let digest = text_at(args, 4)?.to_owned();
    let import = ctx.client.import.as_ref().filter(|import| import.slot == slot);
    let Import { move_id, attempt, .. } = **import.ok_or(CommandError::NOT_IMPORTING)?;
    ask(ctx, slot, (move_id, attempt), SlotStep::Ready { keys, digest });
    Ok(())
}

/// CORDIS COMMIT move-id slot epoch attempt
pub(super) fn commit(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (move_id, slot) = (number(args, 2)?, slot_at(args, 3)?);
    let (epoch, attempt) = (number(args, 4)?, number(args, 5)?);
    ask(ctx, slot, (move_id, attempt), SlotStep::Commit { epoch });
    Ok(())
}

/// CORDIS ABORT move-id slot epoch attempt
pub(super) fn abort(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (move_id, slot) = (number(args, 2)?, slot_at(args, 3)?);
    let (epoch, attempt) = (number(args, 4)?, number(args, 5)?);
    ask(ctx, slot, (move_id, attempt), SlotStep::Abort { epoch });
    Ok(())
}

/// CORDIS RESOLVE move-id slot epoch
pub(super) fn resolve(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    trust(ctx)?;
    let (move_id, slot, epoch) = (number(args, 2)?, slot_at(args, 3)?, number(args, 4)?);
    let view = match ctx.node.cluster.lock().resolve(move_id, slot, epoch) {
        TargetView::Active => "active",
        TargetView::Ready => "ready",
        TargetView::Importing => "importing",
        TargetView::None => "none",
    };
    reply.array(2);
    reply.bulk(view.as_bytes());
    reply.bulk(ctx.node.run_id.as_bytes());
    Ok(())
}
