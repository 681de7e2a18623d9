//! Tokens of three types, each in one of several collections of its type: moved by calls over two
//! keys and by transactions, and counted all the time. Between them, calls on pairs of keys that are
//! written together, and on keys that one client has for itself.

use std::collections::{BTreeSet, VecDeque};

use crate::actor::{Actor, Part, Run, key_on, two};
use crate::checks::{
    Check, done, exactly, is_all, number, renamed, same, same_words, sum, token, tokens, words,
};
use crate::common::shared::reply::{bulk, elements};

/// Keys of a type that tokens are moved between.
const HOLDER_COUNT: usize = 6;
/// Tokens of a type.
const TOKEN_COUNT: usize = 40;

/// The keys of a type that hold its tokens.
fn holders(kind: &str) -> Vec<String> {
    (0..HOLDER_COUNT).map(|i| key_on(i, &format!("{kind}:{i}"))).collect()
}

/// The replies of a transaction, of which each is an array: all tokens together.
fn tokens_in_all() -> Check {
    Box::new(|got| {
        let found = elements(got).map(|all| all.into_iter().filter_map(words).flatten().collect());
        found.is_some_and(|found| is_all(found, TOKEN_COUNT))
    })
}

impl Actor {
    /// Moves all that is in a holder of any type.
    fn move_holder(&mut self, all: &[String]) {
        let [a, b] = self.two_of(all);
        let own = self.own_key("aside");
        match self.rng.below(3) {
            0 => self.say(&format!("RENAMENX {a} {b}"), renamed()),
            1 => {
                // Whatever of it fails for want of a key, nothing gets lost.
                let renames = [(a, own.as_str()), (b, a), (&own, b)];
                let lines = renames.map(|(from, to)| format!("RENAME {from} {to}"));
                self.say_all(&lines, done());
            }
            _ => {
                let copy = [
                    format!("COPY {a} {own} REPLACE"),
                    format!("DEL {a}"),
                    format!("RENAME {own} {a}"),
                ];
                self.say_all(&copy, done());
            }
        }
    }

    fn set_step(&mut self) {
        let all = holders("set");
        let [a, b] = self.two_of(&all);
        let (c, t) = (self.rng.pick(&all).clone(), token(self.rng.below(TOKEN_COUNT)));
        let own = self.own_key("stored");
        match self.rng.below(14) {
            0..4 => self.say(&format!("SMOVE {a} {b} {t}"), done()),
            4 => {
                self.say_all(&[format!("SMOVE {a} {b} {t}"), format!("SMOVE {b} {c} {t}")], done())
            }
            5 => self.say_all(&[format!("SUNIONSTORE {b} {a} {b}"), format!("DEL {a}")], done()),
            6 => self.move_holder(&all),
            7 => self.say(&format!("SUNION {}", all.join(" ")), tokens(TOKEN_COUNT)),
            8 => self.say(&format!("SINTERCARD 2 {a} {b}"), number(0)),
            9 => self.say_all(
                &all.iter().map(|key| format!("SCARD {key}")).collect::<Vec<_>>(),
                sum(TOKEN_COUNT),
            ),
            10 => {
                let lines: Vec<_> = all.iter().map(|key| format!("SMEMBERS {key}")).collect();
                self.say_all(&lines, tokens_in_all());
            }
            11 => {
                let lines = [format!("SDIFF {a} {b}"), format!("SMEMBERS {a}")];
                self.say_all(&lines, same_words(&[0, 1]));
            }
            12 => {
                self.say(&format!("SUNIONSTORE {own} {}", all.join(" ")), number(TOKEN_COUNT));
                self.say(&format!("SMEMBERS {own}"), tokens(TOKEN_COUNT));
                self.say(&format!("SINTERSTORE {own} {a} {b}"), number(0));
                self.say(&format!("EXISTS {own}"), number(0));
            }
            _ => {
                let lines = [
                    format!("SUNIONSTORE {own} {a} {b} {c}"),
                    format!("SMEMBERS {own}"),
                    format!("SUNION {a} {b} {c}"),
                    format!("SDIFFSTORE {own} {own} {a}"),
                    format!("SMEMBERS {own}"),
                    format!("SDIFF {own} {a}"),
                ];
                let (union, diff) = (same_words(&[1, 2]), same_words(&[4, 5]));
                self.say_all(&lines, Box::new(move |got| union(got) && diff(got)));
            }
        }
    }

    fn list_step(&mut self) {
        let all = holders("list");
        let [a, b] = self.two_of(&all);
        let c = self.rng.pick(&all).clone();
        let (from, to) = (self.end_word(), self.end_word());
        let own = self.own_key("sorted");
        match self.rng.below(14) {
            0..3 => self.say(&format!("LMOVE {a} {b} {from} {to}"), done()),
            3 => self.say(&format!("RPOPLPUSH {a} {b}"), done()),
            4 => self.say(&format!("LMOVE {a} {a} {from} {to}"), done()),
            5 => {
                let moves = [(a, b), (b, &c)].map(|(x, y)| format!("LMOVE {x} {y} {from} {to}"));
                self.say_all(&moves, done());
            }
            6 => self.say(&format!("BLMOVE {a} {b} {from} {to} 0.02"), done()),
            7 => self.say(&format!("BRPOPLPUSH {a} {b} 0.01"), done()),
            8 => self.move_holder(&all),
            9 => self.say_all(
                &all.iter().map(|key| format!("LLEN {key}")).collect::<Vec<_>>(),
                sum(TOKEN_COUNT),
            ),
            10 | 11 => {
                let lines: Vec<_> = all.iter().map(|key| format!("LRANGE {key} 0 -1")).collect();
                self.say_all(&lines, tokens_in_all());
            }
            12 => {
                let lines = [
                    format!("SORT {a} ALPHA STORE {own}"),
                    format!("LRANGE {own} 0 -1"),
                    format!("SORT {a} ALPHA"),
                    format!("LRANGE {a} 0 -1"),
                ];
                self.say_all(&lines, same_words(&[1, 2, 3]));
            }
            _ => {
                // An element that is put back: nobody sees it away.
                let own = self.own_key("away");
                let lines = [
                    format!("LINDEX {a} 0"),
                    format!("LMOVE {a} {own} LEFT RIGHT"),
                    format!("LMOVE {own} {a} RIGHT LEFT"),
                ];
                self.say_all(&lines, same_or_null());
            }
        }
    }

    fn zset_step(&mut self) {
        let all = holders("zset");
        let [a, b] = self.two_of(&all);
        let score = self.rng.below(TOKEN_COUNT);
        let own = self.own_key("ranged");
        match self.rng.below(12) {
            0..3 => {
                // One member, if it is there: its score says which.
                let lines = [
                    format!("ZRANGESTORE {own} {a} {score} {score} BYSCORE"),
                    format!("ZREMRANGEBYSCORE {a} {score} {score}"),
                    format!("ZUNIONSTORE {b} 2 {b} {own}"),
                    format!("DEL {own}"),
                ];
                self.say_all(&lines, done());
            }
            3 => {
                let lines =
                    [format!("ZUNIONSTORE {b} 2 {a} {b} AGGREGATE MAX"), format!("DEL {a}")];
                self.say_all(&lines, done());
            }
            4 => self.move_holder(&all),
            5 => self.watched_move(a, b, score),
            6 => self.say(&format!("ZUNION {HOLDER_COUNT} {}", all.join(" ")), tokens(TOKEN_COUNT)),
            7 => self.say(&format!("ZINTERCARD 2 {a} {b}"), number(0)),
            8 => self.say_all(
                &all.iter().map(|key| format!("ZCARD {key}")).collect::<Vec<_>>(),
                sum(TOKEN_COUNT),
            ),
            9 => {
                let lines: Vec<_> = all.iter().map(|key| format!("ZRANGE {key} 0 -1")).collect();
                self.say_all(&lines, tokens_in_all());
            }
            10 => {
                let line = format!("ZUNIONSTORE {own} {HOLDER_COUNT} {}", all.join(" "));
                self.say(&line, number(TOKEN_COUNT));
                let check: Check =
                    Box::new(|got| words(got).is_some_and(|found| has_own_scores(&found)));
                self.say(&format!("ZRANGE {own} 0 -1 WITHSCORES"), check);
            }
            _ => {
                let lines = [
                    format!("ZDIFF 2 {a} {b}"),
                    format!("ZRANGE {a} 0 -1"),
                    format!("ZRANGESTORE {own} {a} 0 -1"),
                    format!("ZRANGE {own} 0 -1"),
                ];
                self.say_all(&lines, same_words(&[0, 1, 3]));
            }
        }
    }

    /// Moves a member, provided that nobody touches the two sets meanwhile.
    fn watched_move(&mut self, a: &str, b: &str, score: usize) {
        let member = token(score);
        self.say(&format!("WATCH {a} {b}"), exactly("+OK\r\n"));
        self.say(&format!("ZSCORE {a} {member}"), done());
        let replies = self.play();
        if replies.last().is_some_and(|found| bulk(found).is_none()) {
            return self.say("UNWATCH", exactly("+OK\r\n"));
        }
        let lines = [format!("ZREM {a} {member}"), format!("ZADD {b} {score} {member}")];
        let check: Check = Box::new(|got| got == b"*-1\r\n" || got == b"*2\r\n:1\r\n:1\r\n");
        self.say_all(&lines, check);
    }

    /// Writes two keys together, or looks whether they are the same.
    fn pair_step(&mut self) {
        let (i, n) = (self.rng.below(50), self.rng.below(1_000));
        let ([h0, h1], [s0, s1], [p0, p1]) = (two("hash"), two("twin"), two("hll"));
        let own = self.own_key("merged");
        match self.rng.below(10) {
            0 | 1 => self
                .say_all(&[format!("HSET {h0} f{i} {n}"), format!("HSET {h1} f{i} {n}")], done()),
            2 => {
                self.say_all(&[format!("HDEL {h1} f{i}"), format!("HDEL {h0} f{i}")], same(&[0, 1]))
            }
            3 => self.say_all(
                &[format!("HINCRBY {h0} n {n}"), format!("HINCRBY {h1} n {n}")],
                same(&[0, 1]),
            ),
            4 => self
                .say_all(&[format!("HGETALL {h0}"), format!("HGETALL {h1}")], same_words(&[0, 1])),
            5 => {
                self.say_all(&[format!("SADD {s0} m{i}"), format!("SADD {s1} m{i}")], same(&[0, 1]))
            }
            6 => {
                self.say_all(&[format!("SREM {s1} m{i}"), format!("SREM {s0} m{i}")], same(&[0, 1]))
            }
            7 => {
                let (from, to) = (&[&s0, &s1], self.rng.below(2));
                self.say(&format!("SDIFF {} {}", from[to], from[1 - to]), exactly("*0\r\n"));
                self.say(&format!("SDIFFSTORE {own} {} {}", from[1 - to], from[to]), number(0));
            }
            8 => {
                self.say_all(&[format!("PFADD {p0} {n}"), format!("PFADD {p1} {n}")], same(&[0, 1]))
            }
            _ => {
                let lines = [
                    format!("PFMERGE {own} {p0} {p1}"),
                    format!("PFCOUNT {own}"),
                    format!("PFCOUNT {p0}"),
                    format!("PFCOUNT {p0} {p1}"),
                ];
                self.say_all(&lines, same(&[1, 2, 3]));
                self.say(&format!("DEL {own}"), number(1));
            }
        }
    }
}

/// An element, and twice the same; or three times none.
fn same_or_null() -> Check {
    Box::new(|got| {
        let all = elements(got).unwrap_or_default();
        all.len() == 3 && all.iter().all(|reply| *reply == all[0])
    })
}

/// Whether all tokens are there with the scores that they have had from the beginning.
fn has_own_scores(found: &[String]) -> bool {
    let expected = (0..TOKEN_COUNT).flat_map(|i| [token(i), i.to_string()]);
    found.iter().cloned().eq(expected)
}

/// Sets and a list that one client has for itself, as they are once all calls so far have run.
#[derive(Default)]
struct Own {
    sets: [BTreeSet<String>; 3],
    list: VecDeque<String>,
    stamp: usize,
}

impl Own {
    fn key(id: usize, i: usize) -> String {
        key_on(i, &format!("model:{id}:{i}"))
    }

    /// An array with these words in any order.
    fn is_set(set: &BTreeSet<String>) -> Check {
        let set = set.clone();
        Box::new(move |got| {
            words(got).is_some_and(|found| {
                found.len() == set.len() && found.iter().all(|word| set.contains(word))
            })
        })
    }

    /// A call whose reply is known.
    fn step(&mut self, actor: &mut Actor) {
        let (i, j, k) = (actor.rng.below(3), actor.rng.below(3), actor.rng.below(3));
        let [a, b, c] = [i, j, k].map(|i| Self::key(actor.id, i));
        let member = format!("m{}", actor.rng.below(30));
        match actor.rng.below(10) {
            0 | 1 => {
                let is_new = self.sets[i].insert(member.clone());
                actor.say(&format!("SADD {a} {member}"), number(usize::from(is_new)));
            }
            2 => {
                let was_there = self.sets[i].contains(&member);
                if was_there && i != j {
                    self.sets[i].remove(&member);
                    self.sets[j].insert(member.clone());
                }
                actor.say(&format!("SMOVE {a} {b} {member}"), number(usize::from(was_there)));
            }
            3..6 => {
                let (first, second) = (&self.sets[j], &self.sets[k]);
                let (name, result): (_, BTreeSet<String>) = match actor.rng.below(3) {
                    0 => ("SUNIONSTORE", first | second),
                    1 => ("SINTERSTORE", first & second),
                    _ => ("SDIFFSTORE", first - second),
                };
                actor.say(&format!("{name} {a} {b} {c}"), number(result.len()));
                self.sets[i] = result;
            }
            6 => actor.say(&format!("SMEMBERS {a}"), Self::is_set(&self.sets[i])),
            7 => {
                let union = &self.sets[i] | &self.sets[j];
                actor.say(&format!("SUNION {a} {b}"), Self::is_set(&union));
            }
            _ => self.list_step(actor),
        }
    }

    fn list_step(&mut self, actor: &mut Actor) {
        let [here, there] = two(&format!("model:{}:list", actor.id));
        self.stamp += 1;
        let word = format!("w{}", self.stamp);
        let shown = |word: Option<&String>| match word {
            Some(word) => format!("${}\r\n{word}\r\n", word.len()),
            None => "$-1\r\n".to_owned(),
        };
        match actor.rng.below(4) {
            0 => {
                self.list.push_back(word.clone());
                actor.say(&format!("RPUSH {here} {word}"), number(self.list.len()));
            }
            1 => {
                // There and back again, the first element first.
                let first = self.list.pop_front();
                actor.say(
                    &format!("LMOVE {here} {there} LEFT RIGHT"),
                    exactly(&shown(first.as_ref())),
                );
                actor.say(
                    &format!("LMOVE {there} {here} LEFT RIGHT"),
                    exactly(&shown(first.as_ref())),
                );
                self.list.extend(first);
            }
            2 => {
                let first = self.list.pop_front();
                actor.say(&format!("LPOP {here}"), exactly(&shown(first.as_ref())));
            }
            _ => {
                let all: String = self.list.iter().map(|word| shown(Some(word))).collect();
                let array = format!("*{}\r\n{all}", self.list.len());
                actor.say(&format!("LRANGE {here} 0 -1"), exactly(&array));
            }
        }
    }
}

/// A client's part in moving tokens about, some of its calls on keys of its own.
fn client_part(run: &Run, id: usize) {
    let (mut actor, mut own) = (Actor::new(run, id), Own::default());
    while !run.is_over() {
        let longest = *actor.rng.pick(&[1, 5, 20, 60]);
        for _ in 0..=actor.rng.below(longest) {
            match actor.rng.below(10) {
                0..2 => actor.set_step(),
                2..4 => actor.list_step(),
                4..6 => actor.zset_step(),
                6..8 => actor.pair_step(),
                _ => own.step(&mut actor),
            }
        }
        actor.play();
    }
    assert!(actor.call_count > 100, "client {id} made only {} calls", actor.call_count);
}

/// Keys with all tokens in them.
fn lay_out(run: &Run) {
    for i in 0..TOKEN_COUNT {
        let [set, list, zset] = ["set", "list", "zset"].map(|kind| holders(kind)[i % 4].clone());
        let mut client = run.process.client();
        for line in [
            format!("SADD {set} {}", token(i)),
            format!("RPUSH {list} {}", token(i)),
            format!("ZADD {zset} {i} {}", token(i)),
        ] {
            assert!(client.call(&line).starts_with(b":"), "{line}");
        }
    }
}

pub(crate) fn run_tokens(run: Run, slots_move: bool) {
    lay_out(&run);
    let keys: Vec<String> = ["set", "list", "zset"].into_iter().flat_map(holders).collect();
    let keys: Vec<String> = keys
        .into_iter()
        .chain(["hash", "twin", "hll"].into_iter().flat_map(two))
        .chain((0..6).flat_map(|id| (0..3).map(move |i| Own::key(id, i))))
        .collect();
    let mut parts: Vec<Part<'_>> =
        (0..6).map(|id| -> Part<'_> { Box::new(move |run| client_part(run, id)) }).collect();
    if slots_move {
        let keys = &keys;
        parts.push(Box::new(move |run| run.mover_part(20, keys)));
    }
    run.act(parts);
    let mut whole = Actor::new(&run, 99);
    let all = |name: &str, kind: &str, tail: &str| -> Vec<String> {
        holders(kind).iter().map(|key| format!("{name} {key}{tail}")).collect()
    };
    whole.say_all(&all("SMEMBERS", "set", ""), tokens_in_all());
    whole.say_all(&all("LRANGE", "list", " 0 -1"), tokens_in_all());
    whole.say_all(&all("ZRANGE", "zset", " 0 -1"), tokens_in_all());
    whole.play();
    drop(whole);
    run.finish();
}
