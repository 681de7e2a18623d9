//! Serving blocked calls: what happens on a shard after a key was made that calls wait for.
//!
//! Whoever holds the shard serves them at once, in the order in which they came, each as if it ran
//! there and then. A call that needs a key of a shard that is not held (a move between two lists) is
//! left to its home core, which runs it with all its doors. Knows no session.

use std::sync::Arc;

use crate::commands::ctx::{Ctx, Later};
use crate::commands::dispatch;
use crate::commands::keys::find_keys;
use crate::commands::spec::Family;
use crate::resp::error::CommandError;
use crate::resp::longdouble::LongDouble;
use crate::resp::number::parse_f64;
use crate::resp::reply::{OutBuf, Reply};
use crate::shard::state::KeyRef;
use crate::shard::waiters::{BlockedCall, Key};
use crate::slots::hash::slot_of;
use crate::types::Type;
use crate::units::{Ms, ShardId};

/// News for the home core of a blocked call.
#[derive(Debug)]
pub enum Woken {
    /// It has been served: its reply.
    Served(Arc<BlockedCall>, OutBuf),
    /// It could be served by somebody who holds all of its keys.
    Retry(Arc<BlockedCall>),
}

/// A timeout in seconds as milliseconds, rounded up; 0 is for ever.
///
/// # Errors
/// It is no number, or it is negative; Redis takes what 64 bits cannot hold for that as well.
pub fn timeout_ms(word: &[u8], now: Ms) -> Result<i64, CommandError> {
    let Some(seconds) = parse_f64(word) else {
        // Redis reads a wider number: it is no error that a double cannot hold it.
        let is_number = LongDouble::parse(word).is_some();
        let error = if is_number {
            CommandError::TIMEOUT_NEGATIVE
        } else {
            CommandError::TIMEOUT_NOT_FLOAT
        };
        return Err(error);
    };
    let ms = (seconds * 1000.0).ceil();
    if ms < 0.0 || ms >= i64::MAX as f64 {
        return Err(CommandError::TIMEOUT_NEGATIVE);
    }
    // Redis: a time beyond the end of the clock never comes.
    let ms = ms as i64;
    Ok(if now.0.checked_add(ms).is_some() { ms } else { 0 })
}

/// Serves every call that a shard in hand can serve. `ctx` is one whose own call has ended.
pub fn serve_ready(ctx: &mut Ctx<'_>, woken: &mut Vec<Woken>) {
    let mut ready = Vec::new();
    loop {
        ctx.shards.each(|shard| {
            while let Some(key) = shard.waiters.take_ready() {
                ready.push((shard.id, key));
            }
        });
        if ready.is_empty() {
            return;
        }
        for (shard, key) in ready.drain(..) {
            serve_key(ctx, shard, &key, woken);
        }
    }
}

fn serve_key(ctx: &mut Ctx<'_>, shard: ShardId, key: &Key, woken: &mut Vec<Woken>) {
    let (db, bytes) = (key.0, &key.1);
    // Those up to this rank wait for another type.
    let mut passed = 0;
    loop {
        let Some(held) = ctx.shards.get(shard) else {
            return;
        };
        let Some(call) = held.waiters.behind(key, passed) else {
            return;
        };
        let Some(entry) = ctx.peek_in(db, KeyRef::new(bytes)) else {
            return;
        };
        if entry.value().type_of() != awaited_type(&call) {
            passed = call.rank;
            continue;
        }
        if !holds_all_keys(ctx, &call) {
            woken.push(Woken::Retry(call));
            return;
        }
        if call.claim() {
            if let Some(held) = ctx.shards.get(shard) {
                held.waiters.remove(bytes, &call);
            }
            let reply = serve(ctx, &call, bytes);
            woken.push(Woken::Served(call, reply));
        }
    }
}

/// The type that a key must have to serve a call.
fn awaited_type(call: &BlockedCall) -> Type {
    match call.command.spec.family {
        Family::SortedSet => Type::Zset,
        _ => Type::List,
    }
}

fn holds_all_keys(ctx: &mut Ctx<'_>, call: &BlockedCall) -> bool {
    let mut found = Vec::new();
    let args = call.words.args();
    find_keys(call.command.spec, &args, &mut found);
    let node = ctx.node;
    found.iter().all(|found| {
        let owner = node.owners.of(slot_of(args.at(found.index)));
        ctx.shards.get(owner).is_some()
    })
}

/// Runs a blocked call for the sake of one of its keys.
fn serve(ctx: &mut Ctx<'_>, call: &BlockedCall, key: &[u8]) -> OutBuf {
    let mut out = OutBuf::default();
    ctx.db = call.db;
    ctx.protocol = call.protocol;
    ctx.hint = None;
    ctx.may_defer = false;
    ctx.words = None;
    ctx.serving = Some(key.into());
    let mut reply = Reply::new(&mut out, call.protocol);
    ctx.begin_unit();
    dispatch::run_queued(call.command, ctx, &call.words.args(), &mut reply);
    ctx.clock.end_unit();
    ctx.serving = None;
    ctx.later = Later::Nothing;
    out
}

impl Ctx<'_> {
    /// Whether a blocking call looks at this key: all of its keys when it comes, the one that was made
    /// when it is served later.
    pub fn is_candidate(&self, key: &[u8]) -> bool {
        self.serving.as_ref().is_none_or(|serving| **serving == *key)
    }
}
