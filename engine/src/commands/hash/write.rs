//! Changes of fields: HSET, HMSET, HSETNX, HDEL.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::spec::CommandResult;
use crate::commands::words::{self, WordsEdit};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::hash::Hash;
use crate::types::{Collection, Limits};

/// First word of the fields of HSET and its kin.
const PAIRS_AT: usize = 2;

/// Fields to be set, and how many of them were new.
#[derive(Debug)]
struct SetPairs {
    limits: Limits,
    created: usize,
    /// The reply says how many; else only that it is done.
    counts: bool,
}

impl WordsEdit for SetPairs {
    type Value = Hash;
    const STRIDE: usize = 2;
    const MAKES_KEY: bool = true;

    fn first(&self) -> usize {
        PAIRS_AT
    }

    #[inline]
    fn apply(&mut self, hash: &mut Hash, args: &Args<'_>, from: usize, to: usize) {
        if to > from + 2 {
            // Many words at once: a call that makes a table does not pack its first pairs before.
            hash.make_room((from..to).map(|at| args.at(at)), &self.limits);
        }
        for at in (from..to).step_by(2) {
            self.created += usize::from(hash.set(args.at(at), args.at(at + 1), &self.limits));
        }
    }

    fn restart(&mut self) {
        self.created = 0;
    }

    fn has_changed(&self) -> bool {
        true
    }

    #[inline]
    fn end(
        &self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        _found: bool,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        ctx.changed(key, Event::Hash("hset"));
        if self.counts {
            reply.count(self.created);
        } else {
            reply.ok();
        }
        Ok(())
    }
}

fn set_pairs(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    counts: bool,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if args.len() % 2 == 1 {
        return Err(CommandError::wrong_arity(ctx.spec.name));
    }
    words::run(SetPairs { limits: ctx.limits(), created: 0, counts }, ctx, args, reply)
}

pub(super) fn hset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_pairs(ctx, args, true, reply)
}

pub(super) fn hmset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_pairs(ctx, args, false, reply)
}

/// Redis: a value that is not stored does not change the encoding either.
pub(super) fn hsetnx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let limits = ctx.limits();
    let (field, value) = (args.at(2), args.at(3));
    let is_new = ctx.edit_or_new(key, |hash: &mut Hash| {
        !hash.view().contains(field) && hash.set(field, value, &limits)
    })?;
    if is_new {
        ctx.changed(key, Event::Hash("hset"));
    }
    reply.int_bool(is_new);
    Ok(())
}

/// Fields to be removed: how many of them were there.
#[derive(Debug, Default)]
struct Remove {
    removed: usize,
}

impl WordsEdit for Remove {
    type Value = Hash;
    const STRIDE: usize = 1;
    const MAKES_KEY: bool = false;

    fn first(&self) -> usize {
        2
    }

    #[inline]
    fn apply(&mut self, hash: &mut Hash, args: &Args<'_>, from: usize, to: usize) {
        for at in from..to {
            self.removed += usize::from(hash.remove(args.at(at)));
        }
    }

    fn restart(&mut self) {
        self.removed = 0;
    }

    fn has_changed(&self) -> bool {
        self.removed > 0
    }

    #[inline]
    fn end(
        &self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        _found: bool,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        if self.removed > 0 {
            ctx.changed(key, Event::Hash("hdel"));
        }
        reply.count(self.removed);
        Ok(())
    }
}

pub(super) fn hdel(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    words::run(Remove::default(), ctx, args, reply)
}
