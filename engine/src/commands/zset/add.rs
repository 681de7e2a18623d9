//! ZADD, ZINCRBY, ZREM.

use smallvec::SmallVec;

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::spec::CommandResult;
use crate::commands::words::{self, WordsEdit};
use crate::resp::error::CommandError;
use crate::resp::number::{parse_f64, parse_i64};
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::Limits;
use crate::types::zset::Zset;

pub(super) fn zadd(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    add(ctx, args, Options::default(), reply)
}

/// Redis: takes ZADD's options, which its number of words makes useless.
pub(super) fn zincrby(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    add(ctx, args, Options { incr: true, ..Options::default() }, reply)
}

/// ZADD's options.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    /// The reply counts changed members as well.
    ch: bool,
    /// The score is added to the old one.
    incr: bool,
}

impl Options {
    /// Reads the options from word 2 on. Returns the index of the first score.
    fn parse(&mut self, args: &Args<'_>) -> usize {
        let mut words = args.cursor(2);
        loop {
            let option = if words.take("NX") {
                &mut self.nx
            } else if words.take("XX") {
                &mut self.xx
            } else if words.take("CH") {
                &mut self.ch
            } else if words.take("INCR") {
                &mut self.incr
            } else if words.take("GT") {
                &mut self.gt
            } else if words.take("LT") {
                &mut self.lt
            } else {
                return args.len() - words.left();
            };
            *option = true;
        }
    }

    fn check(self, pair_count: usize) -> CommandResult {
        if self.nx && self.xx {
            return Err(CommandError::ZADD_NX_XX);
        }
        if (self.nx && (self.gt || self.lt)) || (self.gt && self.lt) {
            return Err(CommandError::ZADD_GT_LT_NX);
        }
        if self.incr && pair_count > 1 {
            return Err(CommandError::ZADD_INCR_PAIR);
        }
        Ok(())
    }
}

/// What ZADD has done.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    added: usize,
    changed: usize,
    /// The score that a member has now, if no option kept the call from it.
    score: Option<f64>,
    is_nan: bool,
}

impl Outcome {
    /// The score that a member gets, if it gets another.
    fn decide(&mut self, old: Option<f64>, score: f64, options: Options) -> Option<f64> {
        let Some(old) = old else {
            if options.xx {
                return None;
            }
            self.added += 1;
            self.score = Some(score);
            return self.score;
        };
        if options.nx {
            return None;
        }
        let new = if options.incr { old + score } else { score };
        if new.is_nan() {
            self.is_nan = true;
            return None;
        }
        if (options.lt && new >= old) || (options.gt && new <= old) {
            return None;
        }
        self.score = Some(new);
        // Redis: 0 does not replace -0.
        if new == old {
            return None;
        }
        self.changed += 1;
        self.score
    }
}

#[inline]
fn parse_score(word: &[u8]) -> Result<f64, CommandError> {
    match parse_i64(word) {
        // Rounded as `strtod` would round the text.
        Some(n) => Ok(n as f64),
        None => parse_f64(word).ok_or(CommandError::NOT_FLOAT),
    }
}

fn add(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    mut options: Options,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let first = options.parse(args);
    let word_count = args.len() - first;
    if word_count == 0 || !word_count.is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    options.check(word_count / 2)?;
    let scores = SmallVec::with_capacity(word_count / 2);
    let (limits, outcome) = (ctx.limits(), Outcome::default());
    words::run(Add { first, options, limits, scores, outcome }, ctx, args, reply)
}

/// Members to be added, and what has become of them.
#[derive(Debug)]
struct Add {
    first: usize,
    options: Options,
    limits: Limits,
    /// All scores of the call, in order.
    scores: SmallVec<[f64; 1]>,
    outcome: Outcome,
}

impl WordsEdit for Add {
    type Value = Zset;
    const STRIDE: usize = 2;
    const MAKES_KEY: bool = true;
    /// Redis: no score is used if one is wrong.
    const CHECKS: bool = true;

    fn first(&self) -> usize {
        self.first
    }

    #[inline]
    fn check(&mut self, args: &Args<'_>, at: usize) -> CommandResult {
        self.scores.push(parse_score(args.at(at))?);
        Ok(())
    }

    #[inline]
    fn apply(&mut self, zset: &mut Zset, args: &Args<'_>, from: usize, to: usize) {
        let (options, outcome) = (self.options, &mut self.outcome);
        let scores = self.scores[(from - self.first) / 2..].iter();
        for (at, &score) in (from..to).step_by(2).zip(scores) {
            zset.update(args.at(at + 1), &self.limits, |old| outcome.decide(old, score, options));
        }
    }

    fn restart(&mut self) {
        self.outcome = Outcome::default();
    }

    fn has_changed(&self) -> bool {
        self.outcome.added + self.outcome.changed > 0
    }

    #[inline]
    fn end(
        &self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        _found: bool,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        let (options, outcome) = (self.options, self.outcome);
        if outcome.is_nan {
            return Err(CommandError::SCORE_NAN);
        }
        if self.has_changed() {
            ctx.changed(key, Event::SortedSet(if options.incr { "zincr" } else { "zadd" }));
        }
        match outcome.score {
            Some(score) if options.incr => super::reply::score(score, reply),
            None if options.incr => reply.null(),
            _ => reply.count(outcome.added + if options.ch { outcome.changed } else { 0 }),
        }
        Ok(())
    }
}

/// Members to be removed: how many of them were there.
#[derive(Debug, Default)]
struct Remove {
    removed: usize,
}

impl WordsEdit for Remove {
    type Value = Zset;
    const STRIDE: usize = 1;
    const MAKES_KEY: bool = false;

    fn first(&self) -> usize {
        2
    }

    #[inline]
    fn apply(&mut self, zset: &mut Zset, args: &Args<'_>, from: usize, to: usize) {
        for at in from..to {
            self.removed += usize::from(zset.remove(args.at(at)));
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
            ctx.changed(key, Event::SortedSet("zrem"));
        }
        reply.count(self.removed);
        Ok(())
    }
}

pub(super) fn zrem(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    words::run(Remove::default(), ctx, args, reply)
}
