//! WAIT: how many replicas have what this client wrote. There are none yet, so nothing is waited
//! for.

use crate::commands::args::Args;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Route,
};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;

pub(super) const WAIT: CommandSpec = CommandSpec {
    name: "wait",
    family: Family::Generic,
    since: "3.0.0",
    summary: "Waits until replicas have acknowledged this connection's writes",
    complexity: "O(1)",
    arity: Arity::Exact(3),
    flags: Flags::NOSCRIPT,
    acl: Acl::CONNECTION,
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    args: &[Arg::new("numreplicas", ArgKind::Integer), Arg::new("timeout", ArgKind::Integer)],
    route: Route::Session,
    merge: Merge::Min,
    handler: Handler::Session(wait),
    ..CommandSpec::EMPTY
};

fn wait(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    args.int(1)?;
    let timeout_ms = parse_i64(args.at(2)).ok_or(CommandError::TIMEOUT_NOT_INTEGER)?;
    if timeout_ms < 0 {
        return Err(CommandError::TIMEOUT_NEGATIVE);
    }
    reply.int(0);
    Ok(())
}
