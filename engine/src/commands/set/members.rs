//! Members: SADD, SREM, SMOVE, the questions after them, SMEMBERS and SSCAN.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::generic::{parse_cursor, push_bulk};
use crate::commands::glob::{self, Case};
use crate::commands::set::reply;
use crate::commands::spec::CommandResult;
use crate::commands::words::{self, WordsEdit};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::Limits;
use crate::types::pack::Item;
use crate::types::set::{Set, SetView};

/// Members to be added, and how many of them were new.
#[derive(Debug)]
struct Add {
    limits: Limits,
    added: usize,
}

impl WordsEdit for Add {
    type Value = Set;
    const STRIDE: usize = 1;
    const MAKES_KEY: bool = true;

    fn first(&self) -> usize {
        2
    }

    #[inline]
    fn apply(&mut self, set: &mut Set, args: &Args<'_>, from: usize, to: usize) {
        for at in from..to {
            self.added += usize::from(set.insert(args.at(at), &self.limits));
        }
    }

    fn restart(&mut self) {
        self.added = 0;
    }

    fn has_changed(&self) -> bool {
        self.added > 0
    }

    #[inline]
    fn end(
        &self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        _found: bool,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        if self.added > 0 {
            ctx.changed(key, Event::Set("sadd"));
        }
        reply.count(self.added);
        Ok(())
    }
}

pub(super) fn sadd(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    words::run(Add { limits: ctx.limits(), added: 0 }, ctx, args, reply)
}

/// Members to be removed: how many of them were there.
#[derive(Debug, Default)]
struct Remove {
    removed: usize,
}

impl WordsEdit for Remove {
    type Value = Set;
    const STRIDE: usize = 1;
    const MAKES_KEY: bool = false;

    fn first(&self) -> usize {
        2
    }

    #[inline]
    fn apply(&mut self, set: &mut Set, args: &Args<'_>, from: usize, to: usize) {
        for at in from..to {
            self.removed += usize::from(set.remove(args.at(at)));
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
            ctx.changed(key, Event::Set("srem"));
        }
        reply.count(self.removed);
        Ok(())
    }
}

pub(super) fn srem(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    words::run(Remove::default(), ctx, args, reply)
}

/// Redis: the type of the destination counts only if there is a source.
pub(super) fn smove(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (source, target) = (ctx.key(args.at(1)), ctx.key(args.at(2)));
    let member = args.at(3);
    let Some(set) = ctx.view_to_write::<Set>(source)? else {
        reply.int(0);
        return Ok(());
    };
    let is_there = set.contains(Item::new(member));
    ctx.view_to_write::<Set>(target)?;
    if !is_there || source.bytes == target.bytes {
        reply.int_bool(is_there);
        return Ok(());
    }
    let limits = ctx.limits();
    ctx.edit(source, |set: &mut Set| set.remove(member))?;
    ctx.changed(source, Event::Set("srem"));
    ctx.effect(source, &[b"SREM", source.bytes, member]);
    if ctx.edit_or_new(target, |set: &mut Set| set.insert(member, &limits))? {
        ctx.changed(target, Event::Set("sadd"));
        ctx.effect(target, &[b"SADD", target.bytes, member]);
    }
    reply.int(1);
    Ok(())
}

pub(super) fn sismember(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    let set = ctx.view::<Set>(key)?;
    reply.int_bool(set.is_some_and(|set| set.contains(Item::new(args.at(2)))));
    Ok(())
}

pub(super) fn smismember(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let is_member = |set: Option<SetView<'_>>, member: &[u8], reply: &mut Reply<'_>| {
        reply.int_bool(set.is_some_and(|set| set.contains(Item::new(member))));
    };
    words::answer::<Set>(ctx, args, 2, is_member, reply)
}

pub(super) fn scard(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    reply.count(ctx.view::<Set>(key)?.map_or(0, SetView::len));
    Ok(())
}

pub(super) fn smembers(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    match ctx.view::<Set>(key)? {
        Some(set) => {
            reply.set(set.len());
            reply::all(set, reply);
        }
        None => reply.set(0),
    }
    Ok(())
}

/// Members that SSCAN visits if the call does not say how many.
const SCAN_COUNT: usize = 10;
/// Members that SSCAN visits at most: a count is a hint, and a call should not take long.
const SCAN_COUNT_MAX: usize = 4096;

/// The options of SSCAN: a pattern, and how many members are visited.
fn scan_options<'a>(args: &Args<'a>) -> Result<(Option<&'a [u8]>, usize), CommandError> {
    let (mut pattern, mut count) = (None, SCAN_COUNT);
    let mut words = args.cursor(3);
    while words.left() > 0 {
        if let Some(word) = words.take_value("COUNT") {
            let n = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
            if n < 1 {
                return Err(CommandError::SYNTAX);
            }
            count = usize::try_from(n).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
        } else if let Some(word) = words.take_value("MATCH") {
            pattern = Some(word);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok((pattern.filter(|&pattern| pattern != b"*"), count))
}

/// Redis: options are looked at only if there is a set.
pub(super) fn sscan(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = parse_cursor(args.at(2))?;
    let key = ctx.key(args.at(1));
    let (mut found, mut found_count, mut next) = (Vec::new(), 0, None);
    if let Some(set) = ctx.view::<Set>(key)? {
        let (pattern, count) = scan_options(args)?;
        next = set.scan(cursor, count, |member| {
            let text = member.text();
            if pattern.is_none_or(|pattern| glob::matches(pattern, &text, Case::Sensitive)) {
                push_bulk(&mut found, &text);
                found_count += 1;
            }
        });
    }
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next.unwrap_or(0)).as_bytes());
    reply.array(found_count);
    reply.raw(&found);
    Ok(())
}
