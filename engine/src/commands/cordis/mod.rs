//! CORDIS: what the servers, the proxies and the control of a cluster say to each other.
//!
//! A server knows which slots it serves and refuses all others; here it is told which, and asked. What
//! concerns the data of a slot is handed to the core that owns it, by a `SlotAsk`: a handler here only
//! reads the words, looks at the cluster's books and changes them.

mod member;
mod moves;
mod specs;
mod stream;

pub use specs::SPECS;

use crate::commands::args::Args;
use crate::commands::docs::reply_help;
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply};
use crate::slots::state::SlotSet;
use crate::units::SlotId;

/// Whether two secrets are equal, in a time that does not tell where they differ.
fn is_same_secret(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(a.len() ^ b.len(), |sum, (x, y)| sum | usize::from(x ^ y));
    differing == 0
}

/// Whether the client may use these commands.
fn trust(ctx: &SessionCtx<'_>) -> CommandResult {
    let is_open = ctx.client.is_trusted || ctx.node.config.cluster_secret().is_none();
    if is_open { Ok(()) } else { Err(CommandError::CLUSTER_SECRET) }
}

/// CORDIS AUTH secret
fn auth(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let secret = ctx.node.config.cluster_secret();
    if secret.is_some_and(|secret| !is_same_secret(secret.as_bytes(), args.at(2))) {
        ctx.client.is_trusted = false;
        return Err(CommandError::CLUSTER_SECRET_WRONG);
    }
    ctx.client.is_trusted = true;
    reply.ok();
    Ok(())
}

/// CORDIS HELP
fn help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply_help(args, reply);
    Ok(())
}

/// A word as a number that is not negative.
fn number(args: &Args<'_>, index: usize) -> Result<u64, CommandError> {
    u64::try_from(args.int(index)?).map_err(|_| CommandError::OUT_OF_RANGE)
}

fn slot_at(args: &Args<'_>, index: usize) -> Result<SlotId, CommandError> {
    let n = args.int(index)?;
    let slot = u64::try_from(n).ok().and_then(SlotId::new);
    slot.ok_or_else(|| CommandError::invalid_slot(i32::try_from(n).unwrap_or(i32::MAX)))
}

fn text_at<'a>(args: &Args<'a>, index: usize) -> Result<&'a str, CommandError> {
    std::str::from_utf8(args.at(index)).map_err(|_| CommandError::SYNTAX)
}

fn ranges_at(args: &Args<'_>, index: usize) -> Result<SlotSet, CommandError> {
    SlotSet::parse(text_at(args, index)?).ok_or(CommandError::SLOT_RANGES)
}

/// What `write` encodes, for a reply that comes later.
fn encoded(reply: &Reply<'_>, write: impl FnOnce(&mut Reply<'_>)) -> Vec<u8> {
    let mut out = OutBuf::default();
    write(&mut Reply::new(&mut out, reply.protocol()));
    out.to_vec()
}

#[cfg(test)]
mod tests;
