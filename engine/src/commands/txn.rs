//! Transactions: MULTI queues, EXEC runs all of it at once, WATCH makes EXEC depend on keys.
//!
//! Queueing is `dispatch::admit` and `dispatch::queue`; here is what happens when the transaction
//! ends. EXEC holds the shards of every queued call and of every watched key (`Route::Queued`), so
//! its calls run as plain code with nothing in between, and their effects are one journal unit.
//!
//! A transaction cannot ask other cores, because it holds doors: inside of it, CLIENT LIST, KILL and
//! UNBLOCK are exact about the own connection (by its `ID` or `ADDR`) and an error for all others.

use crate::commands::args::Args;
use crate::commands::connection::act_alone;
use crate::commands::ctx::Ctx;
use crate::commands::dispatch;
use crate::commands::session_ctx::{ClientFilter, Micros, SessionAction, SessionCtx};
use crate::commands::spec::{
    Access, Acl, Arg, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec, Purpose,
    Route,
};
use crate::commands::table::Command;
use crate::net::client::{ClientState, Multi, ReplyMode, Watching};
use crate::pubsub::monitor;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;

const FLAGS: Flags = Flags::NOSCRIPT
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST)
    .union(Flags::ALLOW_BUSY);

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "discard",
        family: Family::Transactions,
        since: "2.0.0",
        summary: "Drops a transaction",
        complexity: "O(N) with N queued calls",
        arity: Arity::Exact(1),
        flags: FLAGS,
        acl: Acl::TRANSACTION,
        route: Route::Session,
        handler: Handler::Session(discard),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "exec",
        family: Family::Transactions,
        since: "1.2.0",
        summary: "Runs the calls of a transaction, with nothing in between",
        complexity: "That of its calls",
        arity: Arity::Exact(1),
        flags: Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE).union(Flags::SKIP_SLOWLOG),
        acl: Acl::TRANSACTION,
        route: Route::Queued,
        handler: Handler::Held(exec),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "multi",
        family: Family::Transactions,
        since: "1.2.0",
        summary: "Begins a transaction",
        complexity: "O(1)",
        arity: Arity::Exact(1),
        flags: FLAGS,
        acl: Acl::TRANSACTION,
        route: Route::Session,
        handler: Handler::Session(multi),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "unwatch",
        family: Family::Transactions,
        since: "2.2.0",
        summary: "Forgets all keys that the connection watches",
        complexity: "O(1)",
        arity: Arity::Exact(1),
        flags: FLAGS,
        acl: Acl::TRANSACTION,
        route: Route::Session,
        handler: Handler::Session(unwatch),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "watch",
        family: Family::Transactions,
        since: "2.2.0",
        summary: "Makes the next transaction fail if one of these keys changes before",
        complexity: "O(N) with N keys",
        arity: Arity::AtLeast(2),
        flags: FLAGS,
        acl: Acl::TRANSACTION,
        keys: &[KeySpec::range(Access::Read, Purpose::None, 1, -1, 1)],
        args: &[Arg::key("key", 0).multiple()],
        handler: Handler::Held(watch),
        ..CommandSpec::EMPTY
    },
];

/// MULTI
fn multi(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if ctx.client.multi.is_some() {
        return Err(CommandError::NESTED_MULTI);
    }
    ctx.client.multi = Some(Box::default());
    reply.ok();
    Ok(())
}

/// DISCARD
fn discard(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if ctx.client.multi.take().is_none() {
        return Err(CommandError::DISCARD_WITHOUT_MULTI);
    }
    ctx.client.watching = None;
    reply.ok();
    Ok(())
}

/// UNWATCH
fn unwatch(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    ctx.client.watching = None;
    reply.ok();
    Ok(())
}

/// WATCH key [key ...]
///
/// # Complexity
/// O(1) per key, and O(W) in the number of clients that watch the same key.
fn watch(
    ctx: &mut Ctx<'_>,
    client: &mut ClientState,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if client.multi.is_some() {
        return Err(CommandError::WATCH_IN_MULTI);
    }
    let watching = client.watching.get_or_insert_default();
    // Once it has lost, more keys make no difference.
    if !watching.is_touched() {
        args.iter_from(1).for_each(|key| watch_key(ctx, watching, key));
    }
    reply.ok();
    Ok(())
}

fn watch_key(ctx: &mut Ctx<'_>, watching: &mut Watching, key: &[u8]) {
    let db = ctx.db;
    let at = ctx.key(key);
    // A key that has expired already is as good as none, and its deletion no change. Looking at it
    // deletes it before anybody watches.
    ctx.peek(at, false);
    if ctx.shard(at.slot).watches.watch(db, key, &watching.flag) {
        watching.keys.push((db, key.into()));
    }
}

/// EXEC
fn exec(
    ctx: &mut Ctx<'_>,
    client: &mut ClientState,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let multi = client.multi.take().ok_or(CommandError::EXEC_WITHOUT_MULTI)?;
    // Whatever comes of it, the transaction and its watches end here.
    let watching = client.watching.take();
    make_room(ctx, &multi)?;
    if multi.aborted {
        return Err(CommandError::EXEC_ABORT);
    }
    if watching.is_some_and(|watching| has_changed(ctx, &watching)) {
        reply.null_array();
        return Ok(());
    }
    let spec = ctx.spec;
    reply.array(multi.queued.len());
    ctx.begin_unit();
    for (command, call) in &multi.queued {
        run(ctx, client, command, &call.args(), reply);
    }
    ctx.clock.end_unit();
    // The calls have settled their own effects; EXEC itself has none.
    ctx.spec = spec;
    ctx.dirty = 0;
    ctx.effect_count = 0;
    Ok(())
}

/// Makes room before the first call if any of them may need it: there is none in between.
fn make_room(ctx: &mut Ctx<'_>, multi: &Multi) -> CommandResult {
    let needs = |command: &Command| command.spec.flags.contains(Flags::DENYOOM);
    if ctx.node.config.maxmemory() == 0 || !multi.queued.iter().any(|(c, _)| needs(c)) {
        return Ok(());
    }
    dispatch::make_room(ctx).map_err(|error| CommandError::exec_refused(&error))
}

/// Whether a watched key has been changed, or has expired since it was watched.
fn has_changed(ctx: &mut Ctx<'_>, watching: &Watching) -> bool {
    let now = ctx.now;
    watching.is_touched()
        || watching.keys.iter().any(|(db, key)| {
            let key = KeyRef::new(key);
            let shard = ctx.shard(key.slot);
            let at = shard.find(*db, key);
            at.is_some_and(|at| shard.entry(*db, key.slot, at).is_expired(now))
        })
}

/// Runs one call of a transaction, or one that another call wraps.
pub(super) fn run(
    ctx: &mut Ctx<'_>,
    client: &mut ClientState,
    command: &'static Command,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) {
    let mark = reply.out().mark();
    // An earlier call may have been SELECT or HELLO.
    let reply = &mut Reply::new(reply.out(), client.protocol);
    let mut keep = mark;
    if let Handler::Session(handler) = command.spec.handler {
        keep = run_session(ctx, client, command, handler, args, reply).unwrap_or(mark);
    } else {
        ctx.db = client.db;
        ctx.protocol = client.protocol;
        ctx.hint = None;
        dispatch::run_queued(command, ctx, args, reply);
    }
    if ctx.node.pubsub.has_monitors() {
        let now_us = micros(ctx).get();
        ctx.clock.outbox.extend(monitor::item(ctx.node, client, command, args, now_us));
    }
    // The core counts EXEC; time is EXEC's as well.
    ctx.stats.commands[usize::from(command.id)].calls.add(1);
    ctx.stats.commands_run.add(1);
    if client.reply_mode != ReplyMode::On {
        // Redis: CLIENT REPLY OFF or SKIP within a transaction silences the rest of its reply,
        // although that leaves the client with fewer elements than were announced.
        reply.out().truncate(keep);
    }
}

/// Runs a call that concerns the session; returns where the pushes among its output end.
fn run_session(
    ctx: &mut Ctx<'_>,
    client: &mut ClientState,
    command: &'static Command,
    handler: fn(&mut SessionCtx<'_>, &Args<'_>, &mut Reply<'_>) -> CommandResult,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> Option<(usize, usize)> {
    let mark = reply.out().mark();
    let now = ctx.now;
    let mut session = SessionCtx {
        client,
        node: ctx.node,
        stats: ctx.stats,
        now,
        micros: micros(ctx),
        in_exec: true,
        may_defer: false,
        action: None,
        outbox: &mut ctx.clock.outbox,
        pushed: None,
    };
    let result = handler(&mut session, args, reply);
    let action = session.action.take();
    let pushed = session.pushed;
    let result = result.and_then(|()| match action {
        Some(action) if concerns_others(&action, client) => {
            Err(CommandError::OTHER_CLIENTS_IN_EXEC)
        }
        Some(action) => act_alone(&action, client, now, reply),
        None => Ok(()),
    });
    if let Err(error) = result {
        reply.out().truncate(mark);
        reply.error(&error);
        ctx.stats.note_error(&error);
        ctx.stats.commands[usize::from(command.id)].failed.add(1);
    }
    pushed
}

/// Microseconds at each call: time does not stand still in a transaction.
fn micros(ctx: &Ctx<'_>) -> Micros {
    ctx.clock.outbox.micros.unwrap_or(Micros::Fixed(ctx.now.0 * 1000))
}

/// Whether an action may be about other clients than this one.
fn concerns_others(action: &SessionAction, client: &ClientState) -> bool {
    let is_own = |filter: &ClientFilter| {
        filter.ids.as_ref().is_some_and(|ids| ids.keys().all(|&id| id == client.id))
            || filter.addr.as_ref() == Some(&client.addr)
    };
    match action {
        SessionAction::ListClients(filter) | SessionAction::KillClients { filter, .. } => {
            !is_own(filter)
        }
        SessionAction::Unblock { id, .. } => *id != client.id,
        SessionAction::Shutdown
        | SessionAction::Sleep(_)
        | SessionAction::Names(_)
        | SessionAction::Dialect(_)
        | SessionAction::Slots(_) => false,
    }
}

#[cfg(test)]
mod tests;
