//! Random members: SPOP takes them out, SRANDMEMBER leaves them in.

use crate::commands::args::Args;
use crate::commands::chance::{Random, Shuffle};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::long::{
    Finish, LONG_ELEMENTS_MIN, LongOp, STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN, Tries,
};
use crate::commands::set::reply::{self, Gathered};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::{Reply, Stream};
use crate::shard::state::KeyRef;
use crate::types::pack::{Item, Text};
use crate::types::set::{Set, SetView};
use crate::types::{Collection, Limits};

/// Takes out `count` random members, fewer than there are.
fn take(set: &mut Set, count: usize, random: &mut Random, taken: &mut Gathered) {
    for _ in 0..count {
        let position = random.below(set.len());
        set.take_at(position, |member| taken.push(member));
    }
}

/// Gives what is left after `count` members were taken out the form that Redis gives it: a set that
/// keeps only few starts over, so that it becomes one of integers if it can.
fn settle(set: &mut Set, count: usize, limits: &Limits) {
    if set.len() > count / 5 || set.len() > limits.set_ints_max {
        return;
    }
    let mut fresh = Set::new();
    set.view().each(|member| {
        fresh.insert_item(member, limits);
    });
    *set = fresh;
}

pub(super) fn spop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    match args.len() {
        2 => pop_one(ctx, args, reply),
        3 => pop_some(ctx, args, reply),
        _ => Err(CommandError::SYNTAX),
    }
}

fn pop_one(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let mut random = Random::new(ctx.random(key.slot));
    let is_journalled = ctx.is_journalled(key.slot);
    let mut popped = Vec::new();
    let edited = ctx.edit(key, |set: &mut Set| {
        let position = random.below(set.len());
        set.take_at(position, |member| {
            member.reply(reply);
            if is_journalled {
                popped.extend_from_slice(&member.text());
            }
        });
    })?;
    if edited.is_none() {
        reply.null();
        return Ok(());
    }
    ctx.changed(key, Event::Set("spop"));
    ctx.effect(key, &[b"SREM", key.bytes, &popped]);
    Ok(())
}

fn pop_some(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let count = parse_i64(args.at(2)).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(CommandError::NOT_POSITIVE)?;
    let Some(set) = ctx.view_to_write::<Set>(key)? else {
        reply.set(0);
        return Ok(());
    };
    let len = set.len();
    if count == 0 {
        reply.set(0);
    } else if count >= len {
        reply.set(len);
        reply::all(set, reply);
        pop_all(ctx, key);
    } else if count < LONG_ELEMENTS_MIN {
        return pop_now(ctx, key, count, reply);
    } else {
        let set = set.to_set();
        let random = Random::new(ctx.random(key.slot));
        let op = Pop::new(key.bytes, set, count, ctx.limits(), random);
        return ctx.run_long(Box::new(op), count, reply);
    }
    Ok(())
}

/// Pops fewer members than there are, in place.
fn pop_now(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    count: usize,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut random = Random::new(ctx.random(key.slot));
    let limits = ctx.limits();
    let mut popped = Gathered::default();
    ctx.edit(key, |set: &mut Set| {
        take(set, count, &mut random, &mut popped);
        settle(set, count, &limits);
    })?;
    finish_pop(ctx, key, popped, reply);
    Ok(())
}

/// Says what has been popped, to the client and to all others.
fn finish_pop(ctx: &mut Ctx<'_>, key: KeyRef<'_>, popped: Gathered, reply: &mut Reply<'_>) {
    ctx.changed(key, Event::Set("spop"));
    if popped.count() >= STATE_MEMBERS_MIN {
        // To name them all would take its time: what is left is a snapshot.
        ctx.effect_state(ctx.db, key);
    } else if ctx.is_journalled(key.slot) {
        let mut members = popped.iter().map(Item::text).peekable();
        while members.peek().is_some() {
            let some: Vec<Text<'_>> = members.by_ref().take(MEMBERS_PER_EFFECT).collect();
            let mut words = vec![&b"SREM"[..], key.bytes];
            words.extend(some.iter().map(|member| &**member));
            ctx.effect(key, &words);
        }
    } else {
        ctx.effect(key, &[b"SREM", key.bytes]);
    }
    reply.set(popped.count());
    popped.reply(reply);
}

/// Deletes a set of which all members have been popped.
fn pop_all(ctx: &mut Ctx<'_>, key: KeyRef<'_>) {
    ctx.delete(key);
    ctx.modified(key, Event::Set("spop"));
    ctx.notify(key, Event::Generic("del"));
    ctx.effect(key, &[b"DEL", key.bytes]);
}

/// SPOP of several members, not of all.
#[derive(Debug)]
struct Pop {
    key: Box<[u8]>,
    /// What the key held when it began.
    before: Set,
    /// What it will hold.
    after: Set,
    count: usize,
    popped: Gathered,
    limits: Limits,
    random: Random,
    /// How often it has begun.
    tries: Tries,
}

/// Members that are popped in a step, each at the cost of a lookup and a removal.
const POPS_PER_STEP: usize = 64;

impl Pop {
    fn new(key: &[u8], set: Set, count: usize, limits: Limits, random: Random) -> Self {
        let (before, popped) = (set.clone(), Gathered::default());
        Self {
            key: key.into(),
            before,
            after: set,
            count,
            popped,
            limits,
            random,
            tries: Tries::default(),
        }
    }
}

/// Most members that one effect of SPOP names.
const MEMBERS_PER_EFFECT: usize = 1000;
/// From so many members on, what is left is recorded instead of what was taken out.
const STATE_MEMBERS_MIN: usize = 5 * MEMBERS_PER_EFFECT;

impl LongOp for Pop {
    fn step(&mut self) -> bool {
        let left = self.count - self.popped.count();
        take(&mut self.after, left.min(POPS_PER_STEP), &mut self.random, &mut self.popped);
        if self.popped.count() < self.count {
            return false;
        }
        settle(&mut self.after, self.count, &self.limits);
        true
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let name = self.key.clone();
        let key = KeyRef::new(&name);
        let this = *self;
        let now = ctx.view_to_write::<Set>(key)?.map(SetView::to_set);
        let Some(now) = now else {
            reply.set(0);
            return Ok(Finish::Done);
        };
        if !now.view().is_same(this.before.view()) {
            return again(ctx, key, now, this, reply);
        }
        ctx.edit(key, |set: &mut Set| *set = this.after)?;
        // The two are what a big tree was: freed in steps if nobody else shares them.
        ctx.free_later(key.slot, now.into_trash());
        ctx.free_later(key.slot, this.before.into_trash());
        finish_pop(ctx, key, this.popped, reply);
        Ok(Finish::Done)
    }
}

/// Begins once more with what the key holds now.
fn again(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    now: Set,
    old: Pop,
    reply: &mut Reply<'_>,
) -> Result<Finish, CommandError> {
    ctx.free_later(key.slot, old.before.into_trash());
    ctx.free_later(key.slot, old.after.into_trash());
    if old.count >= now.len() {
        reply.set(now.len());
        reply::all_of(now, reply);
        pop_all(ctx, key);
        return Ok(Finish::Done);
    }
    let mut tries = old.tries;
    if !tries.again(ctx, [key.bytes].into_iter()) {
        pop_now(ctx, key, old.count, reply)?;
        return Ok(Finish::Done);
    }
    let fresh = Pop::new(key.bytes, now, old.count, old.limits, old.random);
    Ok(Finish::Again(Box::new(Pop { tries, ..fresh })))
}

pub(super) fn srandmember(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    let count = match args.len() {
        2 => None,
        3 => Some(args.int(2)?),
        _ => return Err(CommandError::SYNTAX),
    };
    if count == Some(i64::MIN) {
        return Err(CommandError::NOT_NEGATABLE_INT64);
    }
    let mut random = Random::new(ctx.random(key.slot));
    let set = ctx.view::<Set>(key)?;
    match (set, count) {
        (None, None) => reply.null(),
        (Some(set), None) => match set.at(random.below(set.len())) {
            Some(member) => member.reply(reply),
            None => reply.null(),
        },
        (None, Some(_)) | (_, Some(0)) => reply.array(0),
        (Some(set), Some(count @ ..0)) => {
            let len = count.unsigned_abs() as usize;
            reply.array(len);
            stream_if_long(Pick { set: set.to_set(), order: None, random, next: 0, len }, reply);
        }
        (Some(set), Some(count)) => {
            let len = set.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            reply.array(len);
            distinct(set, len, random, reply);
        }
    }
    Ok(())
}

/// Replies `len` members, none twice; the header has been written.
fn distinct(set: SetView<'_>, len: usize, mut random: Random, reply: &mut Reply<'_>) {
    if len == set.len() {
        return reply::all(set, reply);
    }
    if set.len() >= LONG_ELEMENTS_MIN {
        let order = Some(Shuffle::new(set.len(), &mut random));
        return stream_if_long(Pick { set: set.to_set(), order, random, next: 0, len }, reply);
    }
    // Each member with the chance that the rest still needs it.
    let (mut wanted, mut left) = (len, set.len());
    set.each(|member| {
        if random.below(left) < wanted {
            member.reply(reply);
            wanted -= 1;
        }
        left -= 1;
    });
}

fn stream_if_long(mut pick: Pick, reply: &mut Reply<'_>) {
    let is_long = pick.len >= STREAM_ELEMENTS_MIN;
    if is_long || pick.fill(reply) {
        reply.stream(pick);
    }
}

/// Random members of a snapshot.
#[derive(Debug)]
struct Pick {
    set: Set,
    /// The order in which positions come; each by itself if there is none.
    order: Option<Shuffle>,
    random: Random,
    next: usize,
    len: usize,
}

/// Members that [`Pick`] looks up at a time at most, however short they are.
const PICKS_PER_FILL: usize = 2000;

impl Stream for Pick {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let set = self.set.view();
        let end = reply.out().mark().0 + STREAM_CHUNK_BYTES;
        let stop = self.len.min(self.next.saturating_add(PICKS_PER_FILL));
        while self.next < stop && reply.out().mark().0 < end {
            let position = match &self.order {
                Some(order) => order.at(self.next),
                None => self.random.below(set.len()),
            };
            match set.at(position) {
                Some(member) => member.reply(reply),
                None => reply.null(),
            }
            self.next += 1;
        }
        self.next < self.len
    }
}
