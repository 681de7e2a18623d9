//! Long calls: over so many elements that they work in steps, or are answered while the reply is
//! sent, and others write to what they read meanwhile. What they store or reply is what was there at
//! one moment.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use crate::actor::{Actor, CORE_COUNT, Part, Run, key_on, locked, two};
use crate::checks::{
    Check, done, exactly, number, same, same_words, sum, token, tokens, within_range, words,
};

/// Tokens that make a collection a big one: beyond `commands::long::LONG_ELEMENTS_MIN`.
const BIG_COUNT: usize = 3_000;
/// Pairs of which one half is in a collection: enough to make its reply a stream.
const HALF_COUNT: usize = 5_000;
/// Elements that are popped, many at a time, and put back.
const POOL_COUNT: usize = 7_000;
/// How many are popped at a time at most.
const POP_MAX: usize = 3_500;
/// Clients that make long calls.
const CALLER_COUNT: usize = 3;

/// What nobody writes: a set of all tokens, and a list of them.
fn all_tokens() -> [String; 2] {
    [key_on(0, "all:set"), key_on(1, "all:list")]
}

/// Collections that tokens move between: the two have each of them once.
fn sets() -> [String; 2] {
    two("big:set")
}

fn zsets() -> [String; 2] {
    two("big:zset")
}

/// Collections with one half of each pair.
fn halves() -> [String; 2] {
    [key_on(0, "halves:set"), key_on(1, "halves:zset")]
}

/// A hash of which two fields are always the same, and a list that turns round.
fn fields() -> String {
    key_on(1, "fields")
}

fn wheel() -> String {
    key_on(0, "wheel")
}

/// A list that elements are put into and taken out of.
fn row() -> String {
    key_on(1, "row")
}

/// A set, a sorted set and a list whose elements are popped and put back.
fn pools() -> [String; 3] {
    [key_on(0, "pool:set"), key_on(1, "pool:zset"), key_on(1, "pool:list")]
}

/// One of two elements of which one is there. Long, so that a reply with all pairs is.
fn half(pair: usize, side: usize) -> String {
    format!("half-of-{}-{pair:05}-{side}", "x".repeat(24))
}

/// Whether there is one half of each pair.
fn are_halves(found: &[String]) -> bool {
    let mut seen: Vec<_> = found.iter().filter_map(|word| word.rsplit_once('-')).collect();
    seen.sort_unstable();
    seen.dedup_by_key(|(pair, _)| *pair);
    seen.len() == HALF_COUNT && found.len() == HALF_COUNT
}

fn all_halves() -> Check {
    Box::new(|got| words(got).is_some_and(|found| are_halves(&found)))
}

/// Whether the two fields of each pair are the same.
fn are_even(found: &[String]) -> bool {
    let mut pairs: Vec<(&str, &String)> =
        found.chunks(2).filter_map(|pair| Some((pair[0].rsplit_once(':')?.0, &pair[1]))).collect();
    pairs.sort_unstable();
    pairs.len() == 2 * HALF_COUNT && pairs.chunks(2).all(|two| two[0] == two[1])
}

/// Whether all elements follow each other as at first, whichever is the first.
fn is_turned(found: &[String]) -> bool {
    let first = (0..HALF_COUNT).find(|&i| found.first() == Some(&token(i)));
    first.is_some_and(|first| {
        found.len() == HALF_COUNT
            && found.iter().enumerate().all(|(i, word)| *word == token((first + i) % HALF_COUNT))
    })
}

fn fill(run: &Run) {
    let scored = |i: usize, name: String| format!("{i} {name}");
    let [all, list] = all_tokens();
    run.fill(&format!("SADD {all}"), (0..BIG_COUNT).map(token));
    run.fill(&format!("RPUSH {list}"), (0..BIG_COUNT).map(token));
    run.fill(&format!("SADD {}", sets()[0]), (0..BIG_COUNT).map(token));
    run.fill(&format!("ZADD {}", zsets()[0]), (0..BIG_COUNT).map(|i| scored(i, token(i))));
    run.fill(&format!("RPUSH {}", row()), (0..BIG_COUNT).map(token));
    let [set, zset] = halves();
    run.fill(&format!("SADD {set}"), (0..HALF_COUNT).map(|i| half(i, 0)));
    run.fill(&format!("ZADD {zset}"), (0..HALF_COUNT).map(|i| scored(i, half(i, 0))));
    run.fill(&format!("HSET {}", fields()), (0..HALF_COUNT).map(|i| both_fields(i, 0)));
    run.fill(&format!("RPUSH {}", wheel()), (0..HALF_COUNT).map(token));
    let [set, zset, list] = pools();
    run.fill(&format!("SADD {set}"), (0..POOL_COUNT).map(token));
    run.fill(&format!("ZADD {zset}"), (0..POOL_COUNT).map(|i| scored(i, token(i))));
    run.fill(&format!("RPUSH {list}"), (0..POOL_COUNT).map(token));
}

fn both_fields(i: usize, n: usize) -> String {
    format!("f{i:05}:0 value-{n:030} f{i:05}:1 value-{n:030}")
}

impl Actor {
    /// A write to what long calls read.
    fn big_write(&mut self) {
        let (from, to) = (self.rng.below(2), self.rng.below(2));
        let (sets, zsets, [half_set, half_zset]) = (sets(), zsets(), halves());
        let (i, t) = (self.rng.below(BIG_COUNT), token(self.rng.below(BIG_COUNT)));
        let (pair, side) = (self.rng.below(HALF_COUNT), self.rng.below(2));
        let (gone, come) = (half(pair, side), half(pair, 1 - side));
        match self.rng.below(8) {
            0 | 1 => self.say(&format!("SMOVE {} {} {t}", sets[from], sets[1 - from]), done()),
            2 => {
                let (a, b) = (&sets[to], &sets[1 - to]);
                self.say_all(
                    &[format!("SADD {a} {t} {}", token(i)), format!("SREM {b} {t} {}", token(i))],
                    done(),
                );
            }
            3 => {
                let (a, b) = (&zsets[to], &zsets[1 - to]);
                self.say_all(
                    &[format!("ZREM {a} {}", token(i)), format!("ZADD {b} {i} {}", token(i))],
                    done(),
                );
            }
            4 => self.say_all(
                &[format!("SREM {half_set} {gone}"), format!("SADD {half_set} {come}")],
                done(),
            ),
            5 => self.say_all(
                &[format!("ZADD {half_zset} {pair} {come}"), format!("ZREM {half_zset} {gone}")],
                done(),
            ),
            6 => {
                let n = self.rng.below(1_000_000);
                self.say(&format!("HSET {} {}", fields(), both_fields(pair, n)), number(0));
            }
            _ => self.say(&format!("LMOVE {0} {0} LEFT RIGHT", wheel()), done()),
        }
    }

    /// A call over all tokens, and a look at what it has left.
    fn big_step(&mut self) {
        match self.rng.below(5) {
            0 => self.big_set_step(),
            1 => self.big_store_step(),
            2 => self.big_zset_step(),
            3 => self.big_list_step(),
            _ => self.big_look(),
        }
    }

    fn big_set_step(&mut self) {
        let ([a, b], [all, _]) = (sets(), all_tokens());
        let own = self.own_key("big");
        match self.rng.below(7) {
            0 => self.say(&format!("SUNION {a} {b}"), tokens(BIG_COUNT)),
            1 => self.say(&format!("SINTERCARD 2 {b} {a}"), number(0)),
            2 => self.say(&format!("SDIFF {all} {a} {b}"), exactly("*0\r\n")),
            3 => self.say(&format!("SINTER {a} {b}"), exactly("*0\r\n")),
            4 => self.say_all(&[format!("SCARD {b}"), format!("SCARD {a}")], sum(BIG_COUNT)),
            5 => {
                let lines = [
                    format!("COPY {a} {own} REPLACE"),
                    format!("SMEMBERS {own}"),
                    format!("SMEMBERS {a}"),
                ];
                self.say_all(&lines, same_words(&[1, 2]));
            }
            _ => {
                let lines = [
                    format!("SUNIONSTORE {own} {a} {b}"),
                    format!("SCARD {own}"),
                    format!("SINTERCARD 2 {own} {all}"),
                ];
                self.say_all(&lines, same(&[0, 1, 2]));
            }
        }
    }

    fn big_store_step(&mut self) {
        let ([a, b], [all, _]) = (sets(), all_tokens());
        let (own, other) = (self.own_key("big"), self.own_key("other"));
        match self.rng.below(4) {
            0 | 1 => {
                self.say(&format!("SUNIONSTORE {own} {a} {b}"), number(BIG_COUNT));
                self.say(&format!("SCARD {own}"), number(BIG_COUNT));
                self.say(&format!("SDIFF {all} {own}"), exactly("*0\r\n"));
                self.say(&format!("RENAME {own} {other}"), exactly("+OK\r\n"));
                self.say(&format!("SMEMBERS {other}"), tokens(BIG_COUNT));
                self.say(&format!("DEL {other}"), number(1));
            }
            2 => {
                // What is in `a`, and what is not: each as of a moment.
                self.say(&format!("SINTERSTORE {own} {all} {a}"), within_range(0, BIG_COUNT));
                self.say(&format!("SDIFF {own} {all}"), exactly("*0\r\n"));
                self.say(&format!("SDIFFSTORE {other} {all} {own}"), within_range(0, BIG_COUNT));
                self.say_all(&[format!("SCARD {own}"), format!("SCARD {other}")], sum(BIG_COUNT));
                self.say(&format!("SUNIONSTORE {own} {own} {other}"), number(BIG_COUNT));
            }
            _ => {
                self.say(&format!("SDIFFSTORE {own} {all} {b} {a}"), number(0));
                self.say(&format!("SINTERSTORE {other} {b} {a}"), number(0));
                self.say(&format!("EXISTS {own} {other}"), number(0));
            }
        }
    }

    fn big_zset_step(&mut self) {
        let ([a, b], [all, _], [_, halves]) = (zsets(), all_tokens(), halves());
        let (own, other) = (self.own_key("bigz"), self.own_key("otherz"));
        match self.rng.below(6) {
            0 | 1 => {
                self.say(&format!("ZUNIONSTORE {own} 2 {a} {b} AGGREGATE MAX"), number(BIG_COUNT));
                self.say(&format!("ZINTERCARD 2 {own} {all}"), number(BIG_COUNT));
                self.say(&format!("ZRANGE {own} 0 -1"), in_order());
                self.say(&format!("ZREMRANGEBYRANK {own} 0 -501"), number(BIG_COUNT - 500));
                self.say(&format!("ZCARD {own}"), number(500));
                self.say(&format!("ZREMRANGEBYSCORE {own} -inf +inf"), number(500));
            }
            2 => {
                self.say(&format!("ZINTERSTORE {own} 2 {a} {b}"), number(0));
                self.say(&format!("ZDIFFSTORE {other} 3 {all} {a} {b}"), number(0));
                self.say(&format!("EXISTS {own} {other}"), number(0));
            }
            3 => {
                self.say(&format!("ZUNION 2 {b} {a}"), tokens(BIG_COUNT));
                self.say(&format!("ZINTERCARD 2 {a} {b}"), number(0));
            }
            4 => {
                self.say(&format!("ZRANGESTORE {own} {halves} 0 -1"), number(HALF_COUNT));
                self.say(&format!("ZRANGE {own} 0 -1"), all_halves());
            }
            _ => {
                let [a, b] = sets();
                self.say(&format!("ZUNIONSTORE {own} 2 {a} {b}"), number(BIG_COUNT));
                self.say(&format!("ZDIFFSTORE {own} 2 {own} {all}"), number(0));
            }
        }
    }

    fn big_list_step(&mut self) {
        let ([_, all], row, own) = (all_tokens(), row(), self.own_key("row"));
        let most = BIG_COUNT + CALLER_COUNT;
        match self.rng.below(4) {
            0 | 1 => {
                let (word, place) =
                    (format!("mine-{}", self.id), *self.rng.pick(&["BEFORE", "AFTER"]));
                let (at, count) = (self.rng.below(BIG_COUNT), *self.rng.pick(&["0", "1", "-1"]));
                let length = within_range(BIG_COUNT + 1, most);
                self.say(&format!("LINSERT {row} {place} {} {word}", token(at)), length);
                self.say(&format!("LPOS {row} {}", token(at)), within_range(at, at + CALLER_COUNT));
                self.say(&format!("LREM {row} {count} {word}"), number(1));
                self.say(&format!("LLEN {row}"), within_range(BIG_COUNT, most - 1));
            }
            2 => {
                self.say(&format!("COPY {all} {own} REPLACE"), number(1));
                self.say(&format!("LREM {own} 0 {}", token(BIG_COUNT - 1)), number(1));
                self.say(&format!("LTRIM {own} 1 -2"), exactly("+OK\r\n"));
                self.say(&format!("LLEN {own}"), number(BIG_COUNT - 3));
            }
            _ => {
                self.say(&format!("SORT {all} ALPHA DESC STORE {own}"), number(BIG_COUNT));
                self.say(&format!("SORT {own} ALPHA STORE {own}"), number(BIG_COUNT));
                self.say(&format!("LRANGE {own} 0 -1"), in_order());
            }
        }
    }

    /// A look at all of a collection, which is sent while others write to it.
    fn big_look(&mut self) {
        let [half_set, half_zset] = halves();
        match self.rng.below(5) {
            0 => self.say(&format!("SMEMBERS {half_set}"), all_halves()),
            1 => self.say(&format!("ZRANGE {half_zset} 0 -1 REV"), all_halves()),
            2 => {
                let check: Check = Box::new(|got| words(got).is_some_and(|found| are_even(&found)));
                self.say(&format!("HGETALL {}", fields()), check);
            }
            3 => {
                let check: Check =
                    Box::new(|got| words(got).is_some_and(|found| is_turned(&found)));
                self.say(&format!("LRANGE {} 0 -1", wheel()), check);
            }
            _ => {
                let check: Check = Box::new(|got| words(got).is_some_and(is_distinct));
                self.say(&format!("SRANDMEMBER {half_set} 4500"), check);
            }
        }
    }

    /// Pops many elements of a pool and puts them back. Nobody else may have them meanwhile.
    fn pool_step(&mut self, hands: &Mutex<HashSet<String>>) {
        let [set, zset, list] = pools();
        let count = 1 + self.rng.below(POP_MAX);
        let (kind, pop, push) = match self.rng.below(3) {
            0 => ("s", format!("SPOP {set} {count}"), format!("SADD {set}")),
            1 => ("z", format!("ZPOPMIN {zset} {count}"), format!("ZADD {zset}")),
            _ => ("l", format!("LPOP {list} {count}"), format!("RPUSH {list}")),
        };
        let got = self.ask(&pop, done());
        let mut popped = words(&got).unwrap_or_default();
        let step = if kind == "z" { 2 } else { 1 };
        for member in popped.iter().step_by(step) {
            let is_new = locked(hands).insert(format!("{kind} {member}"));
            if !is_new {
                self.fail(&format!("{pop}: somebody else has {member}"));
            }
        }
        for member in popped.iter().step_by(step) {
            locked(hands).remove(&format!("{kind} {member}"));
        }
        if kind == "z" {
            popped.chunks_mut(2).for_each(|pair| pair.swap(0, 1));
        }
        for some in popped.chunks(600) {
            self.say(&format!("{push} {}", some.join(" ")), done());
        }
        self.play();
    }
}

/// All tokens of a big collection, the first first.
fn in_order() -> Check {
    Box::new(|got| words(got).is_some_and(|found| found.into_iter().eq((0..BIG_COUNT).map(token))))
}

fn is_distinct(mut found: Vec<String>) -> bool {
    let count = found.len();
    found.sort_unstable();
    found.dedup();
    count == 4_500 && found.len() == count
}

fn caller_part(run: &Run, id: usize) {
    let mut actor = Actor::new(run, id);
    while !run.is_over() {
        let longest = *actor.rng.pick(&[1, 4, 10]);
        for _ in 0..actor.rng.below(longest) + 1 {
            actor.big_step();
        }
        actor.play();
    }
}

fn writer_part(run: &Run, id: usize) {
    let mut actor = Actor::new(run, id);
    while !run.is_over() {
        for _ in 0..=actor.rng.below(20) {
            actor.big_write();
        }
        actor.play();
        if actor.rng.percent(50) {
            // Long calls end only if nobody writes for a moment.
            std::thread::park_timeout(Duration::from_millis(3));
        }
    }
}

/// Makes long calls and breaks off before they are answered.
fn resetter_part(run: &Run, id: usize) {
    while !run.is_over() {
        let mut actor = Actor::new(run, id);
        rustix::net::sockopt::set_socket_linger(actor.client.stream(), Some(Duration::ZERO))
            .expect("a socket can be told to reset");
        for _ in 0..3 {
            match actor.rng.below(4) {
                0 => actor.big_set_step(),
                1 => actor.big_store_step(),
                2 => actor.big_zset_step(),
                _ => actor.big_look(),
            }
        }
        let bytes = std::mem::take(&mut actor.bytes);
        actor.client.send(&bytes).unwrap_or_else(|error| actor.fail(&format!("sending: {error}")));
        let pause = actor.rng.below(5) as u64;
        std::thread::park_timeout(Duration::from_millis(pause));
    }
}

fn popper_part(run: &Run, id: usize, hands: &Mutex<HashSet<String>>) {
    let mut actor = Actor::new(run, id);
    while !run.is_over() {
        actor.pool_step(hands);
    }
}

pub(crate) fn run_big(run: Run, slots_move: bool) {
    fill(&run);
    let hands = Mutex::default();
    let hands = &hands;
    let keys = [&sets()[..], &zsets(), &halves(), &pools(), &[fields(), wheel(), row()]].concat();
    let keys = &keys;
    let mut parts: Vec<Part<'_>> = Vec::new();
    for id in 0..CALLER_COUNT {
        parts.push(Box::new(move |run| caller_part(run, id)));
    }
    for id in 10..10 + CORE_COUNT {
        parts.push(Box::new(move |run| writer_part(run, id)));
        parts.push(Box::new(move |run| popper_part(run, id + 10, hands)));
    }
    if slots_move {
        parts.push(Box::new(move |run| run.mover_part(30, keys)));
        parts.push(Box::new(move |run| resetter_part(run, 40)));
    }
    run.act(parts);
    let mut whole = Actor::new(&run, 99);
    let [a, b] = sets();
    whole.say(&format!("SUNION {a} {b}"), tokens(BIG_COUNT));
    let [set, zset, list] = pools();
    whole.say(&format!("SMEMBERS {set}"), tokens(POOL_COUNT));
    whole.say(&format!("ZRANGE {zset} 0 -1"), tokens(POOL_COUNT));
    whole.say(&format!("LRANGE {list} 0 -1"), tokens(POOL_COUNT));
    whole.play();
    drop(whole);
    run.finish();
}
