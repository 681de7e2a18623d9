//! MONITOR: shows a connection all calls that the server runs. What a line says is in
//! `pubsub::monitor`; how it gets there, in `runtime/pubsub.rs`.

use crate::commands::args::Args;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route};
use crate::pubsub::outbox::Item;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "monitor",
    family: Family::Server,
    since: "1.0.0",
    summary: "Shows the connection every call that the server runs",
    complexity: "O(1), and O(N) for every call with N connections that monitor",
    arity: Arity::Exact(1),
    flags: Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE),
    route: Route::Session,
    handler: Handler::Session(monitor),
    ..CommandSpec::EMPTY
}];

/// MONITOR
fn monitor(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if ctx.in_exec {
        return Err(CommandError::MONITOR_IN_EXEC);
    }
    if ctx.client.is_monitor {
        // Redis: no reply at all.
        return Ok(());
    }
    ctx.client.is_monitor = true;
    let at = ctx.node.pubsub.monitor(ctx.client.core);
    ctx.outbox.push(Item::Monitor(at));
    reply.ok();
    Ok(())
}

/// Ends monitoring, if the client does it (RESET).
pub fn leave(ctx: &mut SessionCtx<'_>) {
    if std::mem::take(&mut ctx.client.is_monitor) {
        ctx.node.pubsub.unmonitor(ctx.client.core);
        ctx.outbox.push(Item::Unmonitor);
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn monitor_keeps_away_from_data_until_reset() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        assert_eq!(bare.call(&mut client, &[b"MONITOR"]), b"+OK\r\n");
        assert!(bare.node.pubsub.has_monitors());
        assert_eq!(bare.call(&mut client, &[b"MONITOR"]), b"");
        let refused = b"-ERR Replica can't interact with the keyspace\r\n";
        assert_eq!(bare.call(&mut client, &[b"GET", b"k"]), refused);
        assert_eq!(bare.call(&mut client, &[b"PUBLISH", b"a", b"b"]), refused);
        assert_eq!(bare.call(&mut client, &[b"PING"]), b"+PONG\r\n");
        assert_eq!(bare.call(&mut client, &[b"RESET"]), b"+RESET\r\n");
        assert!(!bare.node.pubsub.has_monitors());
        assert_eq!(bare.call(&mut client, &[b"GET", b"k"]), b"$-1\r\n");
    }
}
