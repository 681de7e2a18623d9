//! BGREWRITEAOF.

use crate::commands::args::Args;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Acl, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Route,
};
use crate::persist::desk::Wish;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "bgrewriteaof",
    family: Family::Server,
    since: "1.0.0",
    summary: "Rewrites the append log, so that it holds nothing that is out of date",
    complexity: "O(1); the cores then walk over all keys, some in each turn",
    arity: Arity::Exact(1),
    flags: Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::NO_ASYNC_LOADING),
    acl: Acl::ADMIN.union(Acl::DANGEROUS),
    route: Route::Session,
    handler: Handler::Session(bgrewriteaof),
    ..CommandSpec::EMPTY
}];

/// BGREWRITEAOF
fn bgrewriteaof(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if ctx.node.log.is_rewriting() {
        return Err(CommandError::REWRITE_RUNS);
    }
    let is_logged = ctx.node.log.target() != 0;
    ctx.node.log.wish(if is_logged { Wish::Rewrite } else { Wish::BeginOnce });
    reply.simple("Background append only file rewriting started");
    Ok(())
}
