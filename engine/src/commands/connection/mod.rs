//! The connection family: who a client is, which protocol and database it uses, and the commands
//! that show and steer connections. Handlers see the client's state and the process, no data; what
//! concerns other clients becomes a [`SessionAction`](crate::commands::session_ctx::SessionAction)
//! that the core carries out.

mod client;
mod client_spec;
mod line;
mod login;

pub use client::act_alone;
pub use line::client_line;

use crate::commands::args::Args;
use crate::commands::pubsub;
use crate::commands::server::monitor;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Route,
};
use crate::net::client::ReplyMode;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::{Protocol, Reply};
use crate::units::DbIndex;

/// Flags of what a client may do before it has logged in.
const BEFORE_LOGIN: Flags = Flags::NOSCRIPT
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST)
    .union(Flags::NO_AUTH)
    .union(Flags::ALLOW_BUSY);

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "auth",
        family: Family::Connection,
        since: "1.0.0",
        summary: "Logs the connection in",
        complexity: "O(N) with N passwords of the user",
        arity: Arity::AtLeast(2),
        flags: BEFORE_LOGIN,
        acl: Acl::CONNECTION,
        args: &[
            Arg::new("username", ArgKind::String).optional().since("6.0.0"),
            Arg::new("password", ArgKind::String),
        ],
        history: &[("6.0.0", "A user's name may come before the password")],
        route: Route::Session,
        handler: Handler::Session(login::auth),
        ..CommandSpec::EMPTY
    },
    client_spec::CLIENT,
    CommandSpec {
        name: "echo",
        family: Family::Connection,
        since: "1.0.0",
        summary: "Returns its argument",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        acl: Acl::CONNECTION,
        args: &[Arg::new("message", ArgKind::String)],
        route: Route::Session,
        handler: Handler::Session(echo),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "hello",
        family: Family::Connection,
        since: "6.0.0",
        summary: "Chooses the protocol and describes the server, with a login and a name on the way",
        complexity: "O(1)",
        arity: Arity::AtLeast(1),
        flags: BEFORE_LOGIN,
        acl: Acl::CONNECTION,
        args: &[Arg::block(
            "arguments",
            &[
                Arg::new("protover", ArgKind::Integer),
                Arg::block(
                    "username_password",
                    &[Arg::new("username", ArgKind::String), Arg::new("password", ArgKind::String)],
                )
                .with_token("AUTH")
                .optional(),
                Arg::new("clientname", ArgKind::String).with_token("SETNAME").optional(),
            ],
        )
        .optional()],
        history: &[("6.2.0", "May be called without a protocol, and then changes nothing")],
        route: Route::Session,
        handler: Handler::Session(login::hello),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "ping",
        family: Family::Connection,
        since: "1.0.0",
        summary: "Answers that the server is there",
        complexity: "O(1)",
        arity: Arity::AtLeast(1),
        flags: Flags::FAST,
        acl: Acl::CONNECTION,
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        args: &[Arg::new("message", ArgKind::String).optional()],
        route: Route::Session,
        merge: Merge::AllOk,
        handler: Handler::Session(ping),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "quit",
        family: Family::Connection,
        since: "1.0.0",
        summary: "Closes the connection once its replies have been sent",
        complexity: "O(1)",
        arity: Arity::AtLeast(1),
        flags: BEFORE_LOGIN,
        acl: Acl::CONNECTION,
        route: Route::Session,
        handler: Handler::Session(quit),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "reset",
        family: Family::Connection,
        since: "6.2.0",
        summary: "Puts the connection back to how it was when it was made",
        complexity: "O(1)",
        arity: Arity::Exact(1),
        flags: BEFORE_LOGIN,
        acl: Acl::CONNECTION,
        route: Route::Session,
        handler: Handler::Session(reset),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "select",
        family: Family::Connection,
        since: "1.0.0",
        summary: "Chooses the connection's database",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        acl: Acl::CONNECTION,
        args: &[Arg::new("index", ArgKind::Integer)],
        route: Route::Session,
        handler: Handler::Session(select),
        ..CommandSpec::EMPTY
    },
];

/// PING [message]
fn ping(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    // A subscribed RESP2 client gets arrays only, like its messages.
    let is_subscribed = ctx.client.subs.is_some() && !reply.is_resp3();
    match args.len() {
        1 | 2 if is_subscribed => {
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(args.get(1).unwrap_or_default());
        }
        1 => reply.simple("PONG"),
        2 => reply.bulk(args.at(1)),
        _ => return Err(CommandError::wrong_arity("ping")),
    }
    Ok(())
}

/// ECHO message
fn echo(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.bulk(args.at(1));
    Ok(())
}

/// SELECT index
fn select(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let index = parse_i64(args.at(1)).ok_or(CommandError::NOT_INTEGER)?;
    // Redis: what does not fit an `int` is another error than what is no database.
    let index = i32::try_from(index).map_err(|_| CommandError::NOT_INT32)?;
    let index = u8::try_from(index).map_err(|_| CommandError::DB_INDEX)?;
    if index >= ctx.node.config.databases() {
        return Err(CommandError::DB_INDEX);
    }
    ctx.client.db = DbIndex(index);
    reply.ok();
    Ok(())
}

/// QUIT
fn quit(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    ctx.client.close_after_reply = true;
    reply.ok();
    Ok(())
}

/// RESET: back to the state of a new connection. Its id, its addresses and NO-EVICT stay.
fn reset(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let must_log_in = ctx.node.config.requirepass().is_some();
    pubsub::leave(ctx);
    monitor::leave(ctx);
    let client = &mut *ctx.client;
    client.multi = None;
    client.watching = None;
    client.db = DbIndex(0);
    client.protocol = Protocol::Resp2;
    client.authenticated = !must_log_in;
    client.name = Box::default();
    // Redis: a reply that an earlier SKIP has claimed stays skipped.
    if client.reply_mode != ReplyMode::Skip {
        client.reply_mode = ReplyMode::On;
    }
    reply.simple("RESET");
    Ok(())
}

#[cfg(test)]
mod tests;
