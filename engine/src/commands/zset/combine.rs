//! Sorted sets made of other ones: ZUNION, ZINTER, ZDIFF, their STORE forms, and ZINTERCARD. Plain
//! sets may be among them: each of their members has the score 1.
//!
//! One machine does all of them, on snapshots and some members at a time ([`LongOp`]); over small
//! sets it simply runs to its end.

use crate::commands::args::{ArgCursor, Args, is_token};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp, Tries};
use crate::commands::spec::CommandResult;
use crate::commands::zset::reply::{Parts, all_of};
use crate::resp::error::CommandError;
use crate::resp::number::{parse_f64, parse_i64};
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::store::entry::{EntryRef, Value};
use crate::types::pack::Item;
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{Collection, Limits, Trash};

/// How sets are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The members that any has.
    Union,
    /// The members that all have.
    Inter,
    /// The members of the first that no other has.
    Diff,
}

/// What becomes of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aim {
    /// Its members are the reply.
    Reply,
    /// Its length is.
    Count,
    /// It is stored under word 1.
    Store,
}

/// How scores of a member in several sets become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word {
            _ if is_token(word, "SUM") => Ok(Self::Sum),
            _ if is_token(word, "MIN") => Ok(Self::Min),
            _ if is_token(word, "MAX") => Ok(Self::Max),
            _ => Err(CommandError::SYNTAX),
        }
    }

    /// Redis: infinities that cancel out make 0, and what is no number is neither less nor more.
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Sum => or_zero(one + other),
            Self::Min if other < one => other,
            Self::Max if other > one => other,
            Self::Min | Self::Max => one,
        }
    }
}

/// Redis: infinity times 0 is 0.
fn or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// A parsed call, without its keys.
#[derive(Clone, Debug)]
struct Call {
    kind: Kind,
    aim: Aim,
    /// One for each source; none if all are 1.
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    /// Members to count at most; 0 for all.
    limit: usize,
}

impl Call {
    fn new(kind: Kind, aim: Aim) -> Self {
        let aggregate = Aggregate::Sum;
        Self { kind, aim, weights: Vec::new(), aggregate, with_scores: false, limit: 0 }
    }

    fn parse_options(
        &mut self,
        words: &mut ArgCursor<'_>,
        key_count: usize,
    ) -> Result<(), CommandError> {
        let combines_scores = self.kind != Kind::Diff && self.aim != Aim::Count;
        while words.left() > 0 {
            if combines_scores && words.left() > key_count && words.take("WEIGHTS") {
                let weights = (0..key_count).map(|_| words.next().and_then(parse_f64));
                self.weights =
                    weights.collect::<Option<_>>().ok_or(CommandError::WEIGHT_NOT_FLOAT)?;
            } else if let Some(word) = value(words, combines_scores, "AGGREGATE") {
                self.aggregate = Aggregate::parse(word)?;
            } else if self.aim == Aim::Reply && words.take("WITHSCORES") {
                self.with_scores = true;
            } else if let Some(word) = value(words, self.aim == Aim::Count, "LIMIT") {
                let limit = parse_i64(word).and_then(|limit| usize::try_from(limit).ok());
                self.limit = limit.ok_or(CommandError::LIMIT_NEGATIVE)?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(())
    }

    fn weight(&self, source: usize) -> f64 {
        self.weights.get(source).copied().unwrap_or(1.0)
    }
}

/// The word after `token`, if the token is allowed here.
fn value<'a>(words: &mut ArgCursor<'a>, is_allowed: bool, token: &str) -> Option<&'a [u8]> {
    if is_allowed { words.take_value(token) } else { None }
}

pub(super) fn zunion(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, args, Call::new(Kind::Union, Aim::Reply), reply)
}

pub(super) fn zinter(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, args, Call::new(Kind::Inter, Aim::Reply), reply)
}

pub(super) fn zdiff(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, args, Call::new(Kind::Diff, Aim::Reply), reply)
}

pub(super) fn zintercard(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, args, Call::new(Kind::Inter, Aim::Count), reply)
}

pub(super) fn zunionstore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, args, Call::new(Kind::Union, Aim::Store), reply)
}

pub(super) fn zinterstore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, args, Call::new(Kind::Inter, Aim::Store), reply)
}

pub(super) fn zdiffstore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, args, Call::new(Kind::Diff, Aim::Store), reply)
}

/// Redis: a key of another type is told before options that are wrong.
fn run(ctx: &mut Ctx<'_>, args: &Args<'_>, mut call: Call, reply: &mut Reply<'_>) -> CommandResult {
    let index = if call.aim == Aim::Store { 2 } else { 1 };
    let key_count = args.int(index)?;
    if key_count < 1 {
        return Err(CommandError::input_key_needed(ctx.spec.name));
    }
    let key_count = usize::try_from(key_count).unwrap_or(usize::MAX);
    if key_count > args.len() - index - 1 {
        return Err(CommandError::SYNTAX);
    }
    let keys: Vec<&[u8]> = args.iter_from(index + 1).take(key_count).collect();
    let sources = look(ctx, &keys)?;
    call.parse_options(&mut args.cursor(index + 1 + key_count), key_count)?;
    let target = (call.aim == Aim::Store).then(|| args.at(1));
    let mut combine = Combine::new(call, sources, ctx.limits());
    let element_count = combine.element_count();
    if element_count < LONG_ELEMENTS_MIN {
        while !combine.step() {}
        end(ctx, combine, &keys, target, reply);
        return Ok(());
    }
    let op = Op {
        combine,
        keys: keys.into_iter().map(Box::from).collect(),
        target: target.map(Box::from),
        tries: Tries::default(),
    };
    if op.target.is_some() {
        ctx.run_long(Box::new(op), element_count, reply)
    } else {
        ctx.run_long_read(Box::new(op), element_count, reply)
    }
}

/// A set with scores, or without.
#[derive(Clone, Debug)]
enum Source {
    Zset(Zset),
    Set(Set),
}

impl Source {
    /// What a key holds, to keep.
    fn of(entry: EntryRef<'_>) -> Result<Self, CommandError> {
        let source = match entry.value() {
            Value::Packed(packed, bytes) => Zset::from_packed(packed, bytes.to_vec())
                .map(Self::Zset)
                .or_else(|| Set::from_packed(packed, bytes.to_vec()).map(Self::Set)),
            Value::Object(object) => Zset::of(object)
                .cloned()
                .map(Self::Zset)
                .or_else(|| Set::of(object).cloned().map(Self::Set)),
            Value::Int(_) | Value::Inline { .. } | Value::Big(_) => None,
        };
        source.ok_or(CommandError::WRONG_TYPE)
    }

    fn len(&self) -> usize {
        match self {
            Self::Zset(zset) => zset.len(),
            Self::Set(set) => set.len(),
        }
    }

    fn score(&self, member: Item<'_>) -> Option<f64> {
        match self {
            Self::Zset(zset) => zset.view().score(&member.text()),
            // The member of a big sorted set may spell an integer.
            Self::Set(set) => set.view().contains(Item::new(&member.text())).then_some(1.0),
        }
    }

    /// Visits some members from a position on. Returns the position behind them.
    fn walk<'s>(&'s self, position: usize, mut visit: impl FnMut(Item<'s>, f64)) -> usize {
        match self {
            Self::Zset(zset) => {
                let end = zset.len().min(position + MEMBERS_PER_WALK);
                zset.view().range(position, end).for_each(|(member, score)| visit(member, score));
                end
            }
            Self::Set(set) => set.view().walk(position, |member| visit(member, 1.0)),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Zset(one), Self::Zset(two)) => one.view().is_same(two.view()),
            (Self::Set(one), Self::Set(two)) => one.view().is_same(two.view()),
            _ => false,
        }
    }

    fn into_trash(self) -> Trash {
        match self {
            Self::Zset(zset) => zset.into_trash(),
            Self::Set(set) => set.into_trash(),
        }
    }
}

/// Members that are visited without a pause.
const MEMBERS_PER_WALK: usize = 50;
/// Members that are looked up or put in by one step.
const LOOKUPS_PER_STEP: usize = 150;

/// Snapshots of all keys; counts each as read.
fn look(ctx: &mut Ctx<'_>, keys: &[&[u8]]) -> Result<Vec<Option<Source>>, CommandError> {
    let snapshots = keys.iter().map(|key| {
        let key = ctx.key(key);
        ctx.read(key).map(Source::of).transpose()
    });
    snapshots.collect()
}

/// The machine.
#[derive(Debug)]
struct Combine {
    call: Call,
    limits: Limits,
    /// What the keys held, in the order of the call.
    sources: Vec<Option<Source>>,
    /// The sources that are walked or asked, by index, in the order in which they are.
    order: Vec<usize>,
    /// The result began as the first source, and the others are taken out of it.
    by_removal: bool,
    /// Which of `order` is walked.
    turn: usize,
    /// Where in it.
    position: usize,
    result: Zset,
    /// Members of the result, if only that is wanted.
    count: usize,
}

impl Combine {
    fn new(call: Call, sources: Vec<Option<Source>>, limits: Limits) -> Self {
        let mut this = Self {
            call,
            limits,
            order: (0..sources.len()).filter(|&i| sources[i].is_some()).collect(),
            sources,
            by_removal: false,
            turn: 0,
            position: 0,
            // Redis: packed only when it is stored, and until then -0 is not 0.
            result: Zset::new_tree(),
            count: 0,
        };
        this.plan();
        this
    }

    fn len_of(&self, source: usize) -> usize {
        self.sources[source].as_ref().map_or(0, Source::len)
    }

    /// Puts the sources into the order in which Redis takes them, which can be seen in sums, or into
    /// one that cannot be told from it and is less work.
    fn plan(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        match self.call.kind {
            Kind::Inter if order.len() < self.sources.len() => order.clear(),
            Kind::Diff if order.first() != Some(&0) => order.clear(),
            Kind::Inter | Kind::Union => order.sort_by_key(|&i| self.len_of(i)),
            Kind::Diff => {
                let others = order[1..].iter().map(|&i| self.len_of(i)).sum::<usize>();
                self.by_removal = others < self.len_of(0);
            }
        }
        // A sum of two is the same either way.
        if self.call.kind == Kind::Union
            && order.len() == 2
            && self.call.aggregate == Aggregate::Sum
        {
            order.swap(0, 1);
        }
        self.order = order;
        self.begin_with_first();
    }

    /// Where all members of the first source go into the result as they are, the result begins as a
    /// copy, which costs nothing.
    fn begin_with_first(&mut self) {
        let is_all = match self.call.kind {
            Kind::Union => true,
            Kind::Inter => self.order.len() == 1 && self.call.aim != Aim::Count,
            Kind::Diff => self.by_removal,
        };
        let first = self.order.first().copied().filter(|_| is_all);
        let is_plain = first.is_some_and(|first| self.call.weight(first) == 1.0);
        if let Some(Some(Source::Zset(zset @ Zset::Tree(_)))) = first.map(|i| &self.sources[i])
            && is_plain
        {
            self.result.clone_from(zset);
            self.turn = 1;
        } else {
            self.by_removal = false;
        }
    }

    /// About how many members it looks at.
    fn element_count(&self) -> usize {
        let Some(&first) = self.order.first() else {
            return 0;
        };
        match self.call.kind {
            Kind::Inter | Kind::Diff if !self.by_removal => {
                self.len_of(first).saturating_mul(self.order.len())
            }
            _ => self.order[self.turn..].iter().map(|&i| self.len_of(i)).sum(),
        }
    }

    /// Does some work; `true` when all is done.
    fn step(&mut self) -> bool {
        let mut lookups = 0;
        while lookups < LOOKUPS_PER_STEP {
            let Some(&source) = self.order.get(self.turn) else {
                return true;
            };
            let position = self.position;
            self.walk(source);
            if self.call.limit > 0 && self.count >= self.call.limit {
                self.count = self.call.limit;
                return true;
            }
            lookups += (self.position - position).max(1) * self.order.len();
            if self.position >= self.len_of(source) {
                self.position = 0;
                let is_each = self.call.kind == Kind::Union || self.by_removal;
                self.turn = if is_each { self.turn + 1 } else { self.order.len() };
            }
        }
        false
    }

    /// Visits some members of a source.
    fn walk(&mut self, index: usize) {
        let Some(source) = &self.sources[index] else {
            return;
        };
        let (call, sources, others) = (&self.call, &self.sources, &self.order[1..]);
        let (result, limits, count) = (&mut self.result, &self.limits, &mut self.count);
        let by_removal = self.by_removal;
        let score_in = |i: usize, member| sources[i].as_ref().and_then(|set| set.score(member));
        self.position = source.walk(self.position, |member, score| {
            let score = or_zero(call.weight(index) * score);
            match call.kind {
                Kind::Union => result.update(&member.text(), limits, |old| {
                    Some(old.map_or(score, |old| call.aggregate.of(old, score)))
                }),
                Kind::Inter => {
                    let all = others.iter().try_fold(score, |sum, &other| {
                        let score = call.weight(other) * score_in(other, member)?;
                        Some(call.aggregate.of(sum, score))
                    });
                    match all {
                        Some(_) if call.aim == Aim::Count => *count += 1,
                        Some(score) => result.insert(&member.text(), score, limits),
                        None => {}
                    }
                }
                Kind::Diff if by_removal => {
                    result.remove(&member.text());
                }
                Kind::Diff => {
                    if others.iter().all(|&other| score_in(other, member).is_none()) {
                        result.insert(&member.text(), score, limits);
                    }
                }
            }
        });
    }
}

/// Replies or stores the result, and gives the snapshots up.
fn end(
    ctx: &mut Ctx<'_>,
    combine: Combine,
    keys: &[impl AsRef<[u8]>],
    target: Option<&[u8]>,
    reply: &mut Reply<'_>,
) {
    let Combine { call, limits, sources, mut result, count, .. } = combine;
    give_up(ctx, keys, sources);
    match target {
        _ if call.aim == Aim::Count => reply.count(count),
        None => all_of(result, Parts::new(call.with_scores, reply.protocol()), reply),
        Some(target) => {
            reply.count(result.len());
            result.pack_if_small(&limits);
            let event = match call.kind {
                Kind::Union => "zunionstore",
                Kind::Inter => "zinterstore",
                Kind::Diff => "zdiffstore",
            };
            store(ctx, target, result, event);
        }
    }
}

/// Hands snapshots to the lazy freeing: the last to hold a big set pays for it.
fn give_up(ctx: &mut Ctx<'_>, keys: &[impl AsRef<[u8]>], sources: Vec<Option<Source>>) {
    for (key, source) in keys.iter().zip(sources) {
        if let Some(source) = source {
            let slot = ctx.key(key.as_ref()).slot;
            ctx.free_later(slot, source.into_trash());
        }
    }
}

/// Stores a result; an empty one deletes what was there.
pub(super) fn store(ctx: &mut Ctx<'_>, target: &[u8], result: Zset, event: &'static str) {
    let key = ctx.key(target);
    if !result.is_empty() {
        ctx.put(key, result);
        ctx.modified(key, Event::SortedSet(event));
    } else if ctx.delete(key) {
        ctx.modified(key, Event::Generic("del"));
    } else {
        return;
    }
    ctx.effect_state(ctx.db, key);
}

/// The machine as a command that takes several turns.
#[derive(Debug)]
struct Op {
    combine: Combine,
    keys: Vec<Box<[u8]>>,
    target: Option<Box<[u8]>>,
    /// How often it has begun.
    tries: Tries,
}

impl Op {
    /// Whether the keys hold what they held when it began.
    fn is_current(&self, ctx: &mut Ctx<'_>) -> Result<bool, CommandError> {
        for (key, then) in self.keys.iter().zip(&self.combine.sources) {
            let now = ctx.lookup_write(KeyRef::new(key)).map(Source::of).transpose()?;
            let is_same = match (&now, then) {
                (Some(now), Some(then)) => now.is_same(then),
                (now, then) => now.is_none() && then.is_none(),
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same command over what the keys hold now.
    fn anew(self, ctx: &mut Ctx<'_>) -> Result<Self, CommandError> {
        let keys: Vec<&[u8]> = self.keys.iter().map(|key| &**key).collect();
        let sources = look(ctx, &keys)?;
        let Combine { call, limits, sources: old, result, .. } = self.combine;
        give_up(ctx, &keys, old);
        if let Some(target) = &self.target {
            ctx.free_later(KeyRef::new(target).slot, result.into_trash());
        }
        let combine = Combine::new(call, sources, limits);
        Ok(Self { combine, keys: self.keys, target: self.target, tries: self.tries })
    }
}

impl LongOp for Op {
    fn step(&mut self) -> bool {
        self.combine.step()
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let mut this = *self;
        // A reply tells how things were when the call came; what is stored must be how they are.
        if this.target.is_some() && !this.is_current(ctx)? {
            this = this.anew(ctx)?;
            if this.tries.again(ctx, this.keys.iter().map(|key| &**key)) {
                return Ok(Finish::Again(Box::new(this)));
            }
            while !this.combine.step() {}
        }
        end(ctx, this.combine, &this.keys, this.target.as_deref(), reply);
        Ok(Finish::Done)
    }
}
