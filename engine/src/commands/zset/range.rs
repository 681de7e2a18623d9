//! ZRANGE in all its forms, and ZRANGESTORE.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp, Tries};
use crate::commands::spec::CommandResult;
use crate::commands::zset::bounds::{By, Range, Window};
use crate::commands::zset::combine::store;
use crate::commands::zset::reply::{Parts, Slice};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::pack::Item;
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Limits};

/// What a command's name says already.
#[derive(Clone, Copy, Debug, Default)]
struct Form {
    by: Option<By>,
    is_reverse: Option<bool>,
    /// The result is stored: word 1 is the destination, and there is one more word before the range.
    stores: bool,
}

/// Which members are wanted.
#[derive(Clone, Debug)]
struct Wish {
    range: Range,
    window: Window,
    is_reverse: bool,
    with_scores: bool,
}

impl Wish {
    fn parse(args: &Args<'_>, form: Form) -> Result<Self, CommandError> {
        let first = if form.stores { 3 } else { 2 };
        let (mut by, mut is_reverse) = (form.by, form.is_reverse);
        let (mut window, mut with_scores) = (Window::ALL, false);
        let mut words = args.cursor(first + 2);
        while words.left() > 0 {
            if !form.stores && words.take("WITHSCORES") {
                with_scores = true;
            } else if words.left() >= 3 && words.take("LIMIT") {
                window = Window { offset: words.int()?, count: words.int()? };
            } else if is_reverse.is_none() && words.take("REV") {
                is_reverse = Some(true);
            } else if by.is_none() && words.take("BYLEX") {
                by = Some(By::Lex);
            } else if by.is_none() && words.take("BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        let (by, is_reverse) = (by.unwrap_or(By::Rank), is_reverse.unwrap_or(false));
        if by == By::Rank {
            // Redis: a limit of -1 cannot be told from none.
            if window.count != -1 {
                return Err(CommandError::LIMIT_BY_RANK);
            }
            window = Window::ALL;
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::WITHSCORES_BY_LEX);
        }
        let (mut min, mut max) = (args.at(first), args.at(first + 1));
        if is_reverse && by != By::Rank {
            std::mem::swap(&mut min, &mut max);
        }
        let range = Range::parse(by, min, max)?;
        Ok(Self { range, window, is_reverse, with_scores })
    }

    fn slice(&self, zset: ZsetView<'_>) -> Slice {
        let (from, to) = self.range.ranks(zset, self.is_reverse);
        let (from, to) = self.window.of(from, to, self.is_reverse);
        Slice { from, to, is_reverse: self.is_reverse }
    }
}

pub(super) fn zrange(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    range(ctx, args, Form::default(), reply)
}

pub(super) fn zrevrange(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    named(ctx, args, By::Rank, true, reply)
}

pub(super) fn zrangebyscore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    named(ctx, args, By::Score, false, reply)
}

pub(super) fn zrevrangebyscore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    named(ctx, args, By::Score, true, reply)
}

pub(super) fn zrangebylex(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    named(ctx, args, By::Lex, false, reply)
}

pub(super) fn zrevrangebylex(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    named(ctx, args, By::Lex, true, reply)
}

fn named(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    by: By,
    is_reverse: bool,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let form = Form { by: Some(by), is_reverse: Some(is_reverse), stores: false };
    range(ctx, args, form, reply)
}

fn range(ctx: &mut Ctx<'_>, args: &Args<'_>, form: Form, reply: &mut Reply<'_>) -> CommandResult {
    let wish = Wish::parse(args, form)?;
    let key = ctx.key(args.at(1));
    let Some(zset) = ctx.view::<Zset>(key)? else {
        reply.array(0);
        return Ok(());
    };
    let slice = wish.slice(zset);
    let parts = Parts::new(wish.with_scores, reply.protocol());
    parts.header(slice.to - slice.from, reply);
    slice.write(zset, parts, reply);
    Ok(())
}

pub(super) fn zrangestore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let wish = Wish::parse(args, Form { stores: true, ..Form::default() })?;
    let (target, source) = (args.at(1), args.at(2));
    let mut copy = Copy::new(ctx, source, &wish)?;
    let element_count = copy.slice.to - copy.slice.from;
    if element_count < LONG_ELEMENTS_MIN || !ctx.may_block() {
        while !copy.step() {}
        reply.count(copy.result.len());
        store(ctx, target, copy.result, "zrangestore");
        return Ok(());
    }
    let op =
        Op { copy, wish, source: source.into(), target: target.into(), tries: Tries::default() };
    ctx.run_long(Box::new(op), element_count, reply)
}

/// Some members of a set on their way into another.
#[derive(Debug)]
struct Copy {
    source: Option<Zset>,
    /// What is left.
    slice: Slice,
    result: Zset,
    limits: Limits,
}

/// Members that one step copies.
const MEMBERS_PER_STEP: usize = 100;

impl Copy {
    fn new(ctx: &mut Ctx<'_>, source: &[u8], wish: &Wish) -> Result<Self, CommandError> {
        let key = ctx.key(source);
        let source = ctx.snapshot::<Zset>(key)?;
        let none = Slice { from: 0, to: 0, is_reverse: false };
        let slice = source.as_ref().map_or(none, |source| wish.slice(source.view()));
        let limits = ctx.limits();
        // Redis: so whether -0 stays what it is can be seen afterwards.
        let is_large = slice.to - slice.from > limits.zset_entries_max;
        let is_by_rank = matches!(wish.range, Range::Rank(..));
        let result = if is_large && is_by_rank { Zset::new_tree() } else { Zset::new() };
        Ok(Self { source, slice, result, limits })
    }

    /// Copies some members, in the order of the range: a packed set that grows out of its form on the
    /// way has no -0 among the first ones.
    fn step(&mut self) -> bool {
        let Slice { from, to, is_reverse } = self.slice;
        let count = MEMBERS_PER_STEP.min(to - from);
        let (result, limits) = (&mut self.result, &self.limits);
        if let Some(source) = &self.source {
            let mut put = |(member, score): (Item<'_>, f64)| {
                result.insert(&member.text(), score, limits);
            };
            if is_reverse {
                source.view().range_rev(to - count, to).for_each(&mut put);
                self.slice.to -= count;
            } else {
                source.view().range(from, from + count).for_each(&mut put);
                self.slice.from += count;
            }
        }
        self.slice.from >= self.slice.to
    }
}

/// ZRANGESTORE of many members.
#[derive(Debug)]
struct Op {
    copy: Copy,
    wish: Wish,
    source: Box<[u8]>,
    target: Box<[u8]>,
    /// How often it has begun.
    tries: Tries,
}

impl LongOp for Op {
    fn step(&mut self) -> bool {
        self.copy.step()
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let mut this = *self;
        let source = KeyRef::new(&this.source);
        let now = ctx.view_to_write::<Zset>(source)?;
        let is_current = match (now, &this.copy.source) {
            (Some(now), Some(then)) => now.is_same(then.view()),
            _ => false,
        };
        if !is_current {
            let copy = Copy::new(ctx, &this.source, &this.wish)?;
            let old = std::mem::replace(&mut this.copy, copy);
            ctx.free_later(source.slot, old.result.into_trash());
            if this.tries.again(ctx, [&*this.source].into_iter()) {
                return Ok(Finish::Again(Box::new(this)));
            }
            while !this.copy.step() {}
        }
        reply.count(this.copy.result.len());
        if let Some(snapshot) = this.copy.source {
            ctx.free_later(source.slot, snapshot.into_trash());
        }
        store(ctx, &this.target, this.copy.result, "zrangestore");
        Ok(Finish::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn zrangestore_of_many_members_stores_what_zrange_lists() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        for n in 0..5000 {
            let (score, member) = ((n % 100).to_string(), format!("m{n}"));
            bare.call(&mut client, &[b"ZADD", b"k", score.as_bytes(), member.as_bytes()]);
        }
        let range: [&[u8]; 4] = [b"(10", b"90", b"BYSCORE", b"WITHSCORES"];
        let listed = bare.call(&mut client, &[&[&b"ZRANGE"[..], b"k"][..], &range].concat());
        let call = [&[&b"ZRANGESTORE"[..], b"d", b"k"][..], &range[..3]].concat();
        assert_eq!(bare.call(&mut client, &call), b":4000\r\n");
        let stored: [&[u8]; 5] = [b"ZRANGE", b"d", b"0", b"-1", b"WITHSCORES"];
        assert_eq!(bare.call(&mut client, &stored), listed);
    }
}
