//! Taking members out at an end or in a range: ZREMRANGEBY*, ZPOPMIN, ZPOPMAX, ZMPOP.
//!
//! All are one removal of a range of ranks ([`Removal`]); of a big range it is done on a snapshot, in
//! steps ([`LongOp`]).

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp, Tries};
use crate::commands::spec::CommandResult;
use crate::commands::zset::bounds::{By, Range};
use crate::commands::zset::reply::{Parts, Slice};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Trash};

/// Which members go.
#[derive(Clone, Debug)]
enum Pick {
    /// Those of a range.
    Range(Range),
    /// So many with the lowest scores.
    Lowest(usize),
    /// So many with the highest scores.
    Highest(usize),
}

impl Pick {
    fn slice(&self, zset: ZsetView<'_>) -> Slice {
        let (from, to) = match self {
            Self::Range(range) => range.ranks(zset, false),
            Self::Lowest(count) => (0, zset.len().min(*count)),
            Self::Highest(count) => (zset.len().saturating_sub(*count), zset.len()),
        };
        Slice { from, to, is_reverse: matches!(self, Self::Highest(_)) }
    }
}

/// What the reply says of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// How many they are.
    Count,
    /// Members and scores.
    Members(Parts),
    /// The key, then one member and its score.
    KeyFlat,
    /// An array of the key and an array of pairs.
    KeyPairs,
}

impl Shape {
    fn write(self, key: &[u8], slice: Slice, zset: ZsetView<'_>, reply: &mut Reply<'_>) {
        let len = slice.to - slice.from;
        let parts = match self {
            Self::Count => return reply.count(len),
            Self::Members(parts) => {
                parts.header(len, reply);
                parts
            }
            Self::KeyFlat => {
                reply.array(1 + len * 2);
                reply.bulk(key);
                Parts::Flat
            }
            Self::KeyPairs => {
                reply.array(2);
                reply.bulk(key);
                reply.array(len);
                Parts::Pairs
            }
        };
        slice.write(zset, parts, reply);
    }
}

/// A removal of members.
#[derive(Clone, Debug)]
struct Removal {
    pick: Pick,
    shape: Shape,
    event: &'static str,
}

impl Removal {
    /// Removes from a key that holds a sorted set.
    fn run(self, ctx: &mut Ctx<'_>, key: KeyRef<'_>, reply: &mut Reply<'_>) -> CommandResult {
        let Some(zset) = ctx.view_to_write::<Zset>(key)? else {
            nothing(self.shape, reply);
            return Ok(());
        };
        let slice = self.pick.slice(zset);
        let len = slice.to - slice.from;
        let is_long = len >= LONG_ELEMENTS_MIN && len < zset.len();
        if let (true, ZsetView::Tree(_)) = (is_long, zset) {
            let source = zset.to_zset();
            if ctx.may_block() {
                let op = Op::new(self, key, source, slice, Tries::default());
                return ctx.run_long(Box::new(op), len, reply);
            }
        }
        self.at_once(ctx, key, reply)
    }

    fn at_once(&self, ctx: &mut Ctx<'_>, key: KeyRef<'_>, reply: &mut Reply<'_>) -> CommandResult {
        let removed = ctx.edit::<Zset, _>(key, |zset| {
            let slice = self.pick.slice(zset.view());
            self.shape.write(key.bytes, slice, zset.view(), reply);
            (slice.to - slice.from, zset.remove_range(slice.from, slice.to))
        })?;
        match removed {
            Some((0, _)) => {}
            Some((len, trash)) => {
                ctx.free_later(key.slot, trash);
                self.end(ctx, key, len);
            }
            None => nothing(self.shape, reply),
        }
        Ok(())
    }

    /// Tells of the removal.
    fn end(&self, ctx: &mut Ctx<'_>, key: KeyRef<'_>, len: usize) {
        ctx.changed(key, Event::SortedSet(self.event));
        if matches!(self.shape, Shape::KeyFlat | Shape::KeyPairs) {
            let name: &[u8] = match self.pick {
                Pick::Highest(_) => b"ZPOPMAX",
                _ => b"ZPOPMIN",
            };
            ctx.effect(key, &[name, key.bytes, itoa::Buffer::new().format(len).as_bytes()]);
        }
    }
}

/// A removal of many members.
#[derive(Debug)]
struct Op {
    removal: Removal,
    key: Box<[u8]>,
    source: Zset,
    slice: Slice,
    /// The source without the members that have been removed so far.
    work: Zset,
    done: usize,
    trash: Vec<Trash>,
    /// How often it has begun.
    tries: Tries,
}

/// Members that one step removes.
const MEMBERS_PER_STEP: usize = 150;

impl Op {
    fn new(removal: Removal, key: KeyRef<'_>, source: Zset, slice: Slice, tries: Tries) -> Self {
        let (key, work) = (key.bytes.into(), source.clone());
        Self { removal, key, source, slice, work, done: 0, trash: Vec::new(), tries }
    }

    fn len(&self) -> usize {
        self.slice.to - self.slice.from
    }
}

impl LongOp for Op {
    fn step(&mut self) -> bool {
        let (from, count) = (self.slice.from, MEMBERS_PER_STEP.min(self.len() - self.done));
        self.trash.push(self.work.remove_range(from, from + count));
        self.done += count;
        self.done == self.len()
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let this = *self;
        let (key, len) = (KeyRef::new(&this.key), this.len());
        let mut tries = this.tries;
        for trash in this.trash {
            ctx.free_later(key.slot, trash);
        }
        let now = ctx.view_to_write::<Zset>(key)?;
        if now.is_some_and(|now| now.is_same(this.source.view())) {
            this.removal.shape.write(key.bytes, this.slice, this.source.view(), reply);
            let work = this.work;
            let old = ctx.edit::<Zset, _>(key, |zset| std::mem::replace(zset, work))?;
            for gone in old.into_iter().chain([this.source]) {
                ctx.free_later(key.slot, gone.into_trash());
            }
            this.removal.end(ctx, key, len);
            return Ok(Finish::Done);
        }
        // The key may be gone by now, or its members few.
        let again = now.map(ZsetView::to_zset);
        for gone in [this.work, this.source] {
            ctx.free_later(key.slot, gone.into_trash());
        }
        match again {
            Some(source @ Zset::Tree(_)) if tries.again(ctx, [key.bytes].into_iter()) => {
                let slice = this.removal.pick.slice(source.view());
                if slice.to - slice.from >= LONG_ELEMENTS_MIN {
                    let op = Self::new(this.removal, key, source, slice, tries);
                    return Ok(Finish::Again(Box::new(op)));
                }
                this.removal.at_once(ctx, key, reply)?;
            }
            Some(_) => this.removal.at_once(ctx, key, reply)?,
            None => nothing(this.removal.shape, reply),
        }
        Ok(Finish::Done)
    }
}

/// The reply where there is no member.
fn nothing(shape: Shape, reply: &mut Reply<'_>) {
    match shape {
        Shape::Count => reply.count(0),
        Shape::Members(_) => reply.array(0),
        Shape::KeyFlat | Shape::KeyPairs => reply.null_array(),
    }
}

pub(super) fn zremrangebyrank(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    remove_range(ctx, args, By::Rank, "zremrangebyrank", reply)
}

pub(super) fn zremrangebyscore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    remove_range(ctx, args, By::Score, "zremrangebyscore", reply)
}

pub(super) fn zremrangebylex(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    remove_range(ctx, args, By::Lex, "zremrangebylex", reply)
}

fn remove_range(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    by: By,
    event: &'static str,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let pick = Pick::Range(Range::parse(by, args.at(2), args.at(3))?);
    let key = ctx.key(args.at(1));
    Removal { pick, shape: Shape::Count, event }.run(ctx, key, reply)
}

/// An end of a sorted set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The lowest scores.
    Min,
    /// The highest scores.
    Max,
}

impl End {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word {
            _ if is_token(word, "MIN") => Ok(Self::Min),
            _ if is_token(word, "MAX") => Ok(Self::Max),
            _ => Err(CommandError::SYNTAX),
        }
    }
}

/// Pops up to `count` members off an end of a key and replies. `false` if it has none.
pub(super) fn try_pop(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    end: End,
    count: usize,
    shape: Shape,
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    if ctx.view_to_write::<Zset>(key)?.is_none() {
        return Ok(false);
    }
    let (pick, event) = match end {
        End::Min => (Pick::Lowest(count), "zpopmin"),
        End::Max => (Pick::Highest(count), "zpopmax"),
    };
    Removal { pick, shape, event }.run(ctx, key, reply)?;
    Ok(true)
}

pub(super) fn zpopmin(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, End::Min, reply)
}

pub(super) fn zpopmax(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, End::Max, reply)
}

fn pop(ctx: &mut Ctx<'_>, args: &Args<'_>, end: End, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    let (count, parts) = match args.get(2) {
        None => (1, Parts::Flat),
        Some(word) => {
            let count = parse_i64(word).and_then(|count| usize::try_from(count).ok());
            let count = count.ok_or(CommandError::NOT_POSITIVE)?;
            (count, Parts::new(true, reply.protocol()))
        }
    };
    let key = ctx.key(args.at(1));
    if !try_pop(ctx, key, end, count, Shape::Members(parts), reply)? {
        reply.array(0);
    }
    Ok(())
}

/// The keys, the end and the number of members of ZMPOP and BZMPOP.
#[derive(Debug)]
pub(super) struct MultiPop {
    /// Index of the first key.
    first: usize,
    key_count: usize,
    end: End,
    count: usize,
}

impl MultiPop {
    /// Reads the words from the number of keys, at `index`, on.
    pub(super) fn parse(args: &Args<'_>, index: usize) -> Result<Self, CommandError> {
        let positive =
            |word| parse_i64(word).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        let key_count = positive(args.at(index)).ok_or(CommandError::NUMKEYS_NOT_POSITIVE)?;
        let first = index + 1;
        let end = first.checked_add(key_count).and_then(|at| args.get(at));
        let end = End::parse(end.ok_or(CommandError::SYNTAX)?)?;
        let mut words = args.cursor(first + key_count + 1);
        let mut count = None;
        while words.left() > 0 {
            let word = words.take_value("COUNT").filter(|_| count.is_none());
            let word = word.ok_or(CommandError::SYNTAX)?;
            count = Some(positive(word).ok_or(CommandError::COUNT_NOT_POSITIVE)?);
        }
        Ok(Self { first, key_count, end, count: count.unwrap_or(1) })
    }

    /// Pops off the first key that has members and replies. `false` if none has.
    pub(super) fn try_run(
        &self,
        ctx: &mut Ctx<'_>,
        args: &Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<bool, CommandError> {
        for word in args.iter_from(self.first).take(self.key_count) {
            let key = ctx.key(word);
            if ctx.is_candidate(word)
                && try_pop(ctx, key, self.end, self.count, Shape::KeyPairs, reply)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) fn zmpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !MultiPop::parse(args, 1)?.try_run(ctx, args, reply)? {
        reply.null_array();
    }
    Ok(())
}
