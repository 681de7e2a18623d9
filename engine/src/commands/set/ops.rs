//! Sets made of other sets: SINTER, SUNION, SDIFF, their STORE forms, and SINTERCARD.
//!
//! One machine does all of them, on snapshots and a leaf at a time ([`LongOp`]); over small sets it
//! simply runs to its end. The result takes the form that Redis gives it: one that is made of
//! integers only is a set of integers, whatever its sources were.

use std::cmp::Reverse;

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp, Tries};
use crate::commands::set::reply::{self, Gathered};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::pack::Item;
use crate::types::set::Set;
use crate::types::{Collection, Limits};

/// How sets are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The members that all have.
    Inter,
    /// The members that any has.
    Union,
    /// The members of the first that no other has.
    Diff,
}

/// What becomes of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aim {
    /// Its members are the reply.
    Reply,
    /// Its length is, or this if it is less (0 for no limit).
    Count(usize),
    /// It is stored under the first of the call's keys.
    Store,
}

/// The keys of a call: those that are read, and the destination.
type Keys<'a> = (Vec<&'a [u8]>, Option<&'a [u8]>);

pub(super) fn sinter(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, Kind::Inter, Aim::Reply, read_keys(args), reply)
}

pub(super) fn sunion(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, Kind::Union, Aim::Reply, read_keys(args), reply)
}

pub(super) fn sdiff(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, Kind::Diff, Aim::Reply, read_keys(args), reply)
}

pub(super) fn sinterstore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, Kind::Inter, Aim::Store, store_keys(args), reply)
}

pub(super) fn sunionstore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, Kind::Union, Aim::Store, store_keys(args), reply)
}

pub(super) fn sdiffstore(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    run(ctx, Kind::Diff, Aim::Store, store_keys(args), reply)
}

fn read_keys<'a>(args: &Args<'a>) -> Keys<'a> {
    (args.iter_from(1).collect(), None)
}

fn store_keys<'a>(args: &Args<'a>) -> Keys<'a> {
    (args.iter_from(2).collect(), Some(args.at(1)))
}

pub(super) fn sintercard(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let count = parse_i64(args.at(1)).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|&count| count > 0).ok_or(CommandError::NUMKEYS_NOT_POSITIVE)?;
    if count > args.len() - 2 {
        return Err(CommandError::NUMKEYS_TOO_LARGE);
    }
    let mut limit = 0;
    let mut words = args.cursor(2 + count);
    while words.left() > 0 {
        let word = words.take_value("LIMIT").ok_or(CommandError::SYNTAX)?;
        let n = parse_i64(word).and_then(|n| usize::try_from(n).ok());
        limit = n.ok_or(CommandError::LIMIT_NEGATIVE)?;
    }
    let keys = args.iter_from(2).take(count).collect();
    run(ctx, Kind::Inter, Aim::Count(limit), (keys, None), reply)
}

fn run(
    ctx: &mut Ctx<'_>,
    kind: Kind,
    aim: Aim,
    (keys, target): Keys<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut combine = Combine::new(ctx, kind, aim, &keys)?;
    let element_count = combine.element_count();
    if element_count < LONG_ELEMENTS_MIN || !ctx.may_block() {
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
    ctx.run_long(Box::new(op), element_count, reply)
}

/// The machine.
#[derive(Debug)]
struct Combine {
    kind: Kind,
    aim: Aim,
    limits: Limits,
    /// What the keys held, in the order of the call.
    sources: Vec<Option<Set>>,
    /// The sources that are walked or asked, by index, in the order in which they are.
    order: Vec<usize>,
    /// For [`Kind::Diff`]: the result begins as the first set, and the others are taken out of it.
    by_removal: bool,
    /// Which of `order` is walked.
    turn: usize,
    /// Where in it.
    position: usize,
    out: Out,
}

/// What the machine has found.
#[derive(Debug)]
enum Out {
    /// Members in the order in which they came.
    Members(Gathered),
    /// How many.
    Count(usize),
    /// A set.
    Set(Set),
}

/// Members that are looked up or put in by one step.
const LOOKUPS_PER_STEP: usize = 192;

impl Combine {
    /// Takes snapshots of the keys.
    fn new(ctx: &mut Ctx<'_>, kind: Kind, aim: Aim, keys: &[&[u8]]) -> Result<Self, CommandError> {
        let snapshots = keys.iter().map(|key| {
            let key = ctx.key(key);
            ctx.snapshot::<Set>(key)
        });
        let sources = snapshots.collect::<Result<Vec<_>, _>>()?;
        let out = match (kind, aim) {
            (_, Aim::Count(_)) => Out::Count(0),
            (Kind::Inter, Aim::Reply) => Out::Members(Gathered::default()),
            _ => Out::Set(Set::new()),
        };
        let mut this = Self {
            kind,
            aim,
            limits: ctx.limits(),
            order: (0..sources.len()).filter(|&i| sources[i].is_some()).collect(),
            sources,
            by_removal: false,
            turn: 0,
            position: 0,
            out,
        };
        this.plan();
        Ok(this)
    }

    fn len_of(&self, source: usize) -> usize {
        self.sources[source].as_ref().map_or(0, Set::len)
    }

    /// Puts the sources into the order that is least work.
    fn plan(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        match self.kind {
            Kind::Inter if order.len() < self.sources.len() => order.clear(),
            // The smallest is walked, and those that say no more likely are asked first.
            Kind::Inter => order.sort_by_key(|&i| self.len_of(i)),
            Kind::Union => order.sort_by_key(|&i| Reverse(self.len_of(i))),
            Kind::Diff if order.first() != Some(&0) => order.clear(),
            Kind::Diff => {
                self.by_removal = self.is_removal_less(&order);
                order[1..].sort_by_key(|&i| Reverse(self.len_of(i)));
            }
        }
        self.order = order;
        self.begin_with_all();
    }

    /// Redis: which way SDIFF goes can be seen in the encoding of the result.
    fn is_removal_less(&self, order: &[usize]) -> bool {
        let lookups = self.len_of(0).saturating_mul(order.len()) / 2;
        lookups > order.iter().map(|&i| self.len_of(i)).sum()
    }

    /// Where all members of the first go into the result, and are too many for one of integers, the
    /// result begins as a copy, which costs nothing.
    fn begin_with_all(&mut self) {
        let is_all = match self.kind {
            Kind::Inter => self.order.len() == 1,
            Kind::Union => true,
            Kind::Diff => self.by_removal || self.order.len() == 1,
        };
        let (true, Some(&first), Out::Set(out)) = (is_all, self.order.first(), &mut self.out)
        else {
            return;
        };
        if let Some(set) = &self.sources[first]
            && set.len() > self.limits.set_ints_max
        {
            out.clone_from(set);
            out.leave_ints();
            self.turn = 1;
        }
    }

    /// About how many members it looks at.
    fn element_count(&self) -> usize {
        match (self.kind, self.order.first()) {
            (_, None) => 0,
            (Kind::Inter, Some(&first)) => self.len_of(first).saturating_mul(self.order.len()),
            (Kind::Diff, Some(_)) if !self.by_removal => {
                self.len_of(0).saturating_mul(self.order.len())
            }
            _ => {
                self.order[self.turn.min(self.order.len())..].iter().map(|&i| self.len_of(i)).sum()
            }
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
            lookups += (self.position - position).max(1) * self.order.len();
            if self.is_enough() {
                return true;
            }
            if self.position >= self.len_of(source) {
                self.position = 0;
                // Only these look at more than one of the sources by walking it.
                let is_each = self.kind == Kind::Union || self.by_removal;
                self.turn = if is_each { self.turn + 1 } else { self.order.len() };
            }
        }
        false
    }

    /// Visits a leaf of a source.
    fn walk(&mut self, source: usize) {
        let Some(set) = &self.sources[source] else {
            return;
        };
        let others = &self.order[1.min(self.order.len())..];
        let is_in = |&i: &usize, member| {
            self.sources[i].as_ref().is_some_and(|set| set.view().contains(member))
        };
        let (kind, removes) = (self.kind, self.by_removal && self.turn > 0);
        let (out, limits, most) = (&mut self.out, &self.limits, count_max(self.aim));
        let by_lookup = !self.by_removal;
        self.position = set.view().walk(self.position, |member| {
            let wanted = match kind {
                Kind::Inter => others.iter().all(|i| is_in(i, member)),
                Kind::Diff if by_lookup => !others.iter().any(|i| is_in(i, member)),
                Kind::Union | Kind::Diff => true,
            };
            if wanted {
                out.take(member, removes, limits, most);
            }
        });
    }

    /// Whether more work would change nothing.
    fn is_enough(&self) -> bool {
        match &self.out {
            Out::Count(count) => *count >= count_max(self.aim),
            Out::Set(set) => self.by_removal && self.turn > 0 && set.is_empty(),
            Out::Members(_) => false,
        }
    }
}

fn count_max(aim: Aim) -> usize {
    match aim {
        Aim::Count(limit) if limit > 0 => limit,
        _ => usize::MAX,
    }
}

impl Out {
    fn take(&mut self, member: Item<'_>, removes: bool, limits: &Limits, most: usize) {
        match self {
            Self::Members(members) => members.push(member),
            Self::Count(count) => *count = (*count + 1).min(most),
            Self::Set(set) if removes => {
                set.remove_item(member);
            }
            Self::Set(set) => {
                set.insert_item(member, limits);
            }
        }
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
    for (key, source) in keys.iter().zip(combine.sources) {
        // What is shared or small is gone at once, without a way through the queue.
        if let Some(tree @ Set::Tree(_)) = source {
            let slot = ctx.key(key.as_ref()).slot;
            ctx.free_later(slot, tree.into_trash());
        }
    }
    match (combine.out, target) {
        (Out::Count(count), _) => reply.count(count),
        (Out::Members(members), _) => {
            reply.set(members.count());
            members.reply(reply);
        }
        (Out::Set(set), None) => {
            reply.set(set.len());
            reply::all_of(set, reply);
        }
        (Out::Set(set), Some(target)) => {
            reply.count(set.len());
            store(ctx, combine.kind, target, set);
        }
    }
}

/// Stores a result; an empty one deletes what was there.
fn store(ctx: &mut Ctx<'_>, kind: Kind, target: &[u8], set: Set) {
    let key = ctx.key(target);
    if set.is_empty() {
        if !ctx.delete(key) {
            return;
        }
        ctx.modified(key, Event::Generic("del"));
    } else {
        ctx.put(key, set);
        ctx.modified(
            key,
            Event::Set(match kind {
                Kind::Inter => "sinterstore",
                Kind::Union => "sunionstore",
                Kind::Diff => "sdiffstore",
            }),
        );
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
        for (key, source) in self.keys.iter().zip(&self.combine.sources) {
            let now = ctx.view_to_write::<Set>(KeyRef::new(key))?;
            let is_same = match (now, source) {
                (Some(now), Some(source)) => now.is_same(source.view()),
                (now, source) => now.is_none() && source.is_none(),
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
        let combine = Combine::new(ctx, self.combine.kind, self.combine.aim, &keys)?;
        for (key, source) in self.keys.iter().zip(self.combine.sources) {
            if let Some(source) = source {
                ctx.free_later(KeyRef::new(key).slot, source.into_trash());
            }
        }
        Ok(Self { combine, ..self })
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
