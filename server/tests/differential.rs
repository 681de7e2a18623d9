//! Sends the same random calls to Redis and to our server, and compares every reply byte for byte:
//! two clients whose calls interleave, in RESP2 and RESP3, pipelined in bursts of random length.
//!
//! A difference is shrunk to the shortest sequence that still shows it. `SEED` replays a run (with
//! `ROUNDS` more after it); without it, runs go on for `ROUND_SECONDS` (20) per test.
#![allow(clippy::print_stderr, reason = "the runner of the tests shows it with a failure")]
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::client::Client;
use common::process::Process;
use common::shared::calls::{Calls, UNORDERED, is_chance};
use common::shared::reply;
use common::shared::rng::{Rng, seed_or};
use common::shared::words::{encoded, escaped, line_of};

/// Calls of one run.
const CALL_COUNT: usize = 400;

/// Databases that runs use.
const DB_COUNT: usize = 3;

/// A reply that takes longer counts as none.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// What is done to both servers.
#[derive(Clone, Debug)]
enum Step {
    /// A client's call. Neighbours of the same burst are sent together.
    Call { client: usize, burst: u32, words: Vec<Vec<u8>> },
    /// SCAN from 0 to 0, compared as a set with KEYS.
    Scan { db: usize, options: String },
    /// KEYS, compared as a set.
    Keys { db: usize, pattern: String },
    /// RANDOMKEY, compared in whether there is a key.
    Random { db: usize },
    /// HSCAN and its kin from 0 to 0, compared as a set.
    ScanKey { db: usize, name: &'static str, key: Vec<u8>, options: String },
    /// A call that chooses: compared in what may be chosen. What it takes out is gone on both sides
    /// after that, and the rest with it.
    Chance { db: usize, words: Vec<Vec<u8>> },
}

/// A run.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    /// What each client sends in HELLO.
    protocols: [u8; 2],
    /// Whether there is SORT among the calls.
    sorts: bool,
    /// Where encodings change: CONFIG SET.
    limits: Vec<String>,
    steps: Vec<Step>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut calls = Calls::with_blocking(seed);
        let mut steps = Vec::new();
        let mut burst = 0;
        let sorts = seed >> 2 & 1 == 1;
        while steps.len() < CALL_COUNT {
            burst += 1;
            if calls.rng().percent(5) {
                steps.push(whole_step(&mut calls));
            }
            let client = calls.rng().below(2);
            let longest = *calls.rng().pick(&[1, 2, 5, 40]);
            for _ in 0..=calls.rng().below(longest) {
                let words = calls.next();
                let is_sort = words[0].to_ascii_lowercase().starts_with(b"sort");
                if !is_chance(&words) && !is_endless(&words) && (sorts || !is_sort) {
                    steps.push(Step::Call { client, burst, words });
                }
            }
        }
        let protocols = [2 + (seed & 1) as u8, 2 + (seed >> 1 & 1) as u8];
        let limits = LIMITS.iter().map(|(name, values)| {
            let value = calls.rng().pick(values);
            format!("CONFIG SET {name} {value}")
        });
        Self { seed, protocols, sorts, limits: limits.collect(), steps }
    }

    fn with(&self, steps: Vec<Step>) -> Self {
        Self { steps, ..self.clone() }
    }
}

/// The thresholds of encodings, and values of them: Redis' own, and such that even small collections
/// cross.
const LIMITS: &[(&str, &[&str])] = &[
    ("hash-max-listpack-entries", &["128", "4", "0"]),
    ("hash-max-listpack-value", &["64", "8"]),
    ("set-max-intset-entries", &["512", "4", "0"]),
    ("zset-max-listpack-entries", &["128", "4", "0"]),
    ("zset-max-listpack-value", &["64", "8"]),
];

/// Whether a call may wait for longer than a moment.
fn is_endless(words: &[Vec<u8>]) -> bool {
    let name = words[0].to_ascii_lowercase();
    let timeout = match name.as_slice() {
        b"blpop" | b"brpop" | b"bzpopmin" | b"bzpopmax" | b"blmove" | b"brpoplpush" => words.last(),
        b"blmpop" | b"bzmpop" => words.get(1),
        _ => None,
    };
    let seconds = timeout.map(|word| String::from_utf8_lossy(word).parse::<f64>());
    matches!(seconds, Some(Ok(seconds)) if seconds != 0.001)
}

/// A step that two servers need not answer with the same bytes.
fn whole_step(calls: &mut Calls) -> Step {
    let db = calls.rng().below(DB_COUNT);
    let key = calls.key();
    let rng = calls.rng();
    let pattern = *rng.pick(&["*", "a", "?", "{t}*", "[a-c]", "*\\xff*", "[^a]*", "", "m1*"]);
    let words = |rng: &mut Rng, names: &[&str], counts: &[&str]| {
        let line = format!("{} {}", rng.pick(names), rng.pick(counts));
        let mut words: Vec<Vec<u8>> = line.split_whitespace().map(|w| w.into()).collect();
        words.insert(1, key.clone());
        words
    };
    match rng.below(12) {
        0 => Step::Random { db },
        1 => Step::Keys { db, pattern: pattern.to_owned() },
        2 => Step::Scan { db, options: format!("COUNT {}", 1 + rng.below(20)) },
        3 => {
            let kind = rng.pick(&["string", "list", "hash", "set", "zset", "none"]);
            Step::Scan { db, options: format!("MATCH \"{pattern}\" TYPE {kind}") }
        }
        4..8 => {
            let name = *rng.pick(CHOOSERS);
            let counts = ["", "1", "2", "5", "9", "30", "-1", "-9"];
            Step::Chance { db, words: words(rng, &[name], &counts) }
        }
        _ => {
            let options = match rng.below(3) {
                0 => String::new(),
                1 => format!("COUNT {}", 1 + rng.below(50)),
                _ => format!("MATCH \"{pattern}\""),
            };
            let name = *rng.pick(SCANNERS);
            Step::ScanKey { db, name, key, options }
        }
    }
}

/// Commands that choose.
const CHOOSERS: &[&str] = &["SPOP", "SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER"];

/// Commands that walk over a collection.
const SCANNERS: &[&str] = &["SSCAN", "HSCAN", "ZSCAN"];

/// A server with the connections of a run.
struct Side {
    /// For steps over whole databases: never in a transaction.
    other: Client,
    clients: [Client; 2],
    /// Whether there is SORT among the calls.
    sorts: bool,
    /// Subscribed to all keyspace events.
    listener: Client,
}

impl Side {
    fn new(process: &Process, case: &Case) -> std::io::Result<Self> {
        let mut other = Client::connect(process.port)?;
        other.set_timeout(REPLY_LIMIT);
        other.try_call(&["FLUSHALL"])?;
        for line in &case.limits {
            assert_eq!(other.call(line), b"+OK\r\n", "{line}");
        }
        other.try_call(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])?;
        let mut listener = Client::connect(process.port)?;
        listener.set_timeout(REPLY_LIMIT);
        listener.try_call(&["PSUBSCRIBE", "__keyevent@*"])?;
        let [first, second] = case.protocols.map(|protocol| -> std::io::Result<Client> {
            let mut client = Client::connect(process.port)?;
            client.set_timeout(REPLY_LIMIT);
            client.try_call(&["HELLO", &protocol.to_string()])?;
            Ok(client)
        });
        Ok(Self { other, clients: [first?, second?], sorts: case.sorts, listener })
    }

    fn call(&mut self, db: usize, line: &str) -> Vec<u8> {
        self.other.call(&format!("SELECT {db}"));
        self.other.call(line)
    }

    /// The events that have come, as database and name, in their order for each key; at least
    /// `count` of them.
    fn events(&mut self, count: usize) -> Result<BTreeMap<Vec<u8>, Vec<String>>, String> {
        let mut all: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
        let mut seen = 0;
        self.listener.send_call(&["PING", "end"]).map_err(|error| error.to_string())?;
        let mut has_ended = false;
        while !has_ended || seen < count {
            let reply = self.listener.read_reply();
            let reply = reply.map_err(|error| format!("{seen} events of {count}: {error}"))?;
            let parts = reply::elements(&reply).unwrap_or_default();
            let words: Vec<&[u8]> = parts.iter().filter_map(|part| reply::bulk(part)).collect();
            match words[..] {
                [b"pmessage", _, channel, key] => {
                    let event = String::from_utf8_lossy(channel).into_owned();
                    all.entry(key.to_vec()).or_default().push(event);
                    seen += 1;
                }
                _ => has_ended = true,
            }
        }
        Ok(all)
    }

    /// All keys that KEYS or SCAN gives, as a set.
    fn keys(&mut self, db: usize, pattern: &str) -> BTreeSet<Vec<u8>> {
        let reply = self.call(db, &format!("KEYS \"{pattern}\""));
        let keys = reply::elements(&reply).unwrap_or_default();
        keys.iter().filter_map(|key| Some(reply::bulk(key)?.to_vec())).collect()
    }

    fn scan(&mut self, db: usize, options: &str) -> Result<Vec<Vec<u8>>, String> {
        self.call(db, "PING");
        self.scan_all(|cursor| {
            let line = format!("SCAN {cursor} {options}");
            common::shared::words::split(&line).expect("its quotes are closed")
        })
    }

    /// The members, or fields with values, that a walk over a collection gives; its error otherwise.
    fn scan_key(
        &mut self,
        db: usize,
        name: &str,
        key: &[u8],
        options: &str,
    ) -> Result<Vec<Vec<u8>>, String> {
        self.call(db, "PING");
        let width = if name == "SSCAN" { 1 } else { 2 };
        let elements = self.scan_all(|cursor| {
            let line = format!("{name} key {cursor} {options}");
            let mut words = common::shared::words::split(&line).expect("its quotes are closed");
            words[1] = key.to_vec();
            words
        })?;
        let mut all: Vec<Vec<u8>> = elements.chunks(width).map(|some| some.join(&b'|')).collect();
        // Redis may give one twice.
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// What all pages of a scan give.
    fn scan_all(&mut self, call: impl Fn(&str) -> Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
        let mut all = Vec::new();
        let mut cursor = "0".to_owned();
        for _ in 0..100_000 {
            let reply = self.other.try_call(&call(&cursor)).map_err(|error| error.to_string())?;
            let parts = reply::elements(&reply).unwrap_or_default();
            let [next, page] = parts[..] else {
                return Err(escaped(&reply));
            };
            cursor = String::from_utf8_lossy(reply::bulk(next).unwrap_or_default()).into_owned();
            let page = reply::elements(page).unwrap_or_default();
            all.extend(page.iter().filter_map(|element| Some(reply::bulk(element)?.to_vec())));
            if cursor == "0" {
                return Ok(all);
            }
        }
        Err("a scan that does not end".to_owned())
    }
}

/// Whether replies are equal: byte for byte, but for what is left of a deadline when it is asked at
/// two moments.
fn is_equal(words: &[Vec<u8>], want: &[u8], got: &[u8], sorts: bool) -> bool {
    if want == got || sorts && is_unpacked_by_sort(want, got) {
        return true;
    }
    let name = words[0].to_ascii_lowercase();
    match name.as_slice() {
        b"ttl" | b"pttl" | b"expiretime" | b"pexpiretime" => is_near(want, got),
        b"hgetall" => is_same_bag(want, got, 2),
        b"sort" if is_unordered_sort(words) => is_same_bag(want, got, 1),
        name if UNORDERED.contains(&name) => is_same_bag(want, got, 1),
        b"exec" => {
            let (Some(want), Some(got)) = (reply::elements(want), reply::elements(got)) else {
                return false;
            };
            let mut pairs = want.iter().zip(&got);
            let is_alike = |a, b| {
                a == b
                    || is_near(a, b)
                    || is_same_bag(a, b, 1)
                    || sorts && is_unpacked_by_sort(a, b)
            };
            want.len() == got.len() && pairs.all(|(a, b)| is_alike(a, b))
        }
        _ => false,
    }
}

/// Redis: words of equal weight keep no order, and what has no weights is not sorted at all.
fn is_unordered_sort(words: &[Vec<u8>]) -> bool {
    let is = |word: &[u8], wanted: &str| word.eq_ignore_ascii_case(wanted.as_bytes());
    let by = words.windows(2).find(|pair| is(&pair[0], "BY")).map(|pair| &pair[1]);
    by.is_some_and(|by| !by.contains(&b'*') || words.iter().any(|word| is(word, "ALPHA")))
}

/// Redis: a sorted set that is read by SORT gives up its packed form for good. Ours keeps it.
fn is_unpacked_by_sort(want: &[u8], got: &[u8]) -> bool {
    want == b"$8\r\nskiplist\r\n" && got == b"$8\r\nlistpack\r\n"
}

/// Whether two replies hold the same elements, or runs of `width` of them, in any order.
fn is_same_bag(want: &[u8], got: &[u8], width: usize) -> bool {
    let bag = |reply: &[u8]| {
        let elements = reply::elements(reply)?;
        let mut runs: Vec<Vec<u8>> = elements.chunks(width).map(|run| run.concat()).collect();
        runs.sort_unstable();
        Some((reply[0], runs))
    };
    bag(want).is_some_and(|want| bag(got) == Some(want))
}

fn is_near(want: &[u8], got: &[u8]) -> bool {
    match (reply::integer(want), reply::integer(got)) {
        // Deadlines of a run are fifty seconds apart: this hides nothing.
        (Some(a), Some(b)) => a.min(b) > 50_000 && a.abs_diff(b) < 10_000,
        _ => false,
    }
}

/// The servers that are compared.
struct Pair {
    redis: Process,
    ours: Process,
    core_count: usize,
}

impl Pair {
    fn new(core_count: usize) -> Self {
        let ours = Process::cordis(core_count, &[]);
        Self { redis: Process::redis(&[]), ours, core_count }
    }

    /// From now on our server works in steps on calls that need not be long for it.
    fn work_in_steps(&self) {
        assert_eq!(self.ours.client().call("DEBUG LONG-CALL-WORDS 0"), b"+OK\r\n");
    }

    /// Runs a case; `Err` describes the first difference.
    fn run(&mut self, case: &Case, pipelined: bool) -> Result<(), String> {
        if let Some(status) = self.ours.exit_status() {
            eprintln!("our server ended: {status}\n{}", self.ours.output());
            self.ours = Process::cordis(self.core_count, &[]);
        }
        let lost = |error: std::io::Error| format!("our server does not take connections: {error}");
        let mut redis = Side::new(&self.redis, case).expect("Redis answers");
        let mut ours = Side::new(&self.ours, case).map_err(lost)?;
        let mut steps = case.steps.as_slice();
        while let Some(step) = steps.first() {
            let len = if pipelined { burst_len(steps) } else { 1 };
            match step {
                Step::Call { client, .. } => {
                    run_burst(*client, &steps[..len], &mut redis, &mut ours)?
                }
                whole => run_whole(whole, &mut redis, &mut ours)?,
            }
            steps = &steps[len..];
        }
        compare_data(&mut redis, &mut ours)?;
        compare_events(&mut redis, &mut ours)
    }

    /// The shortest sequence that still fails, and how.
    fn shrink(&mut self, case: &Case, found: String) -> String {
        let pipelined = self.run(case, false).is_ok();
        let until = Instant::now() + Duration::from_secs(60);
        let fails = |steps: &[Step]| {
            Instant::now() < until && self.run(&case.with(steps.to_vec()), pipelined).is_err()
        };
        let steps = shrunk(case.steps.clone(), fails);
        let last = self.run(&case.with(steps.clone()), pipelined).err();
        let mut text = format!(
            "SEED={:#x}, {} cores, RESP{:?}, {:?}, {}: {}\n",
            case.seed,
            self.core_count,
            case.protocols,
            case.limits,
            if pipelined { "pipelined" } else { "call by call" },
            last.unwrap_or(found),
        );
        for step in &steps {
            let _ = match step {
                Step::Call { client, burst, words } => {
                    writeln!(text, "  client {client} (burst {burst}): {}", line_of(words))
                }
                other => writeln!(text, "  {other:?}"),
            };
        }
        text
    }
}

/// How many calls from the first one on are sent together.
fn burst_len(steps: &[Step]) -> usize {
    let Step::Call { client: c, burst: b, .. } = &steps[0] else {
        return 1;
    };
    let is_same =
        |s: &Step| matches!(s, Step::Call { client, burst, .. } if client == c && burst == b);
    steps.iter().take_while(|step| is_same(step)).count()
}

fn run_burst(
    client: usize,
    calls: &[Step],
    redis: &mut Side,
    ours: &mut Side,
) -> Result<(), String> {
    let words = calls.iter().filter_map(|step| match step {
        Step::Call { words, .. } => Some(words),
        _ => None,
    });
    let bytes: Vec<u8> = words.clone().flat_map(|words| encoded(words)).collect();
    let sorts = redis.sorts;
    let (redis, ours) = (&mut redis.clients[client], &mut ours.clients[client]);
    redis.send(&bytes).expect("Redis reads");
    ours.send(&bytes).map_err(|error| format!("our server stopped reading: {error}"))?;
    for words in words {
        let line = line_of(words);
        let want = redis.read_reply().unwrap_or_else(|error| panic!("Redis: {line}: {error}"));
        let got = ours.read_reply().map_err(|error| format!("no reply to {line}: {error}"))?;
        if !is_equal(words, &want, &got, sorts) {
            let (want, got) = (escaped(&want), escaped(&got));
            return Err(format!("{line}\n  Redis {want}\n  ours  {got}"));
        }
    }
    Ok(())
}

fn run_whole(step: &Step, redis: &mut Side, ours: &mut Side) -> Result<(), String> {
    let differ = |want: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
        Err(format!("{step:?}\n  Redis {want:?}\n  ours  {got:?}"))
    };
    match step {
        Step::Call { .. } => unreachable!("calls are run in bursts"),
        Step::Keys { db, pattern } => {
            let (want, got) = (redis.keys(*db, pattern), ours.keys(*db, pattern));
            if want == got { Ok(()) } else { differ(&want, &got) }
        }
        Step::Scan { db, options } => {
            let scan = |side: &mut Side| Ok(BTreeSet::from_iter(side.scan(*db, options)?));
            let (want, got): (Result<_, String>, Result<_, String>) = (scan(redis), scan(ours));
            if want == got { Ok(()) } else { differ(&want, &got) }
        }
        Step::ScanKey { db, name, key, options } => {
            let want = redis.scan_key(*db, name, key, options);
            let got = ours.scan_key(*db, name, key, options);
            if want == got { Ok(()) } else { differ(&want, &got) }
        }
        Step::Chance { db, words } => run_chance(*db, words, redis, ours),
        Step::Random { db } => {
            let want = redis.call(*db, "RANDOMKEY");
            let got = ours.call(*db, "RANDOMKEY");
            let known = match reply::bulk(&got) {
                Some(key) => redis.keys(*db, "*").contains(key),
                None => want == got,
            };
            if known { Ok(()) } else { differ(&escaped(&want), &escaped(&got)) }
        }
    }
}

/// A call that chooses.
fn run_chance(
    db: usize,
    words: &[Vec<u8>],
    redis: &mut Side,
    ours: &mut Side,
) -> Result<(), String> {
    let line = line_of(words);
    let scan = match words[0][0] {
        b'S' => "SSCAN",
        b'H' => "HSCAN",
        _ => "ZSCAN",
    };
    // Only their members, or fields: values and scores are not chosen.
    let all = redis.scan_key(db, scan, &words[1], "").unwrap_or_default();
    let want = redis.other.try_call(words).expect("Redis answers");
    ours.call(db, "PING");
    let got = ours.other.try_call(words).map_err(|error| format!("no reply to {line}: {error}"))?;
    let differ = |what: &str| {
        let (want, got) = (escaped(&want), escaped(&got));
        Err(format!("{line}: {what}\n  Redis {want}\n  ours  {got}"))
    };
    let bulks = |reply: &[u8]| -> Vec<Vec<u8>> {
        let one = [reply];
        let elements = reply::elements(reply).unwrap_or_else(|| one.to_vec());
        elements.iter().filter_map(|element| Some(reply::bulk(element)?.to_vec())).collect()
    };
    let chosen = bulks(&got);
    if chosen.is_empty() && want != got || chosen.len() != bulks(&want).len() {
        return differ("another kind of reply, or of another length");
    }
    let is_one = |member: &[u8]| {
        let is_field = |other: &Vec<u8>| {
            other == member || other.starts_with(member) && other.get(member.len()) == Some(&b'|')
        };
        all.iter().any(is_field)
    };
    if !chosen.iter().all(|member| is_one(member)) {
        return differ("something that is not there");
    }
    let is_each_once = !words.get(2).is_some_and(|count| count.starts_with(b"-"));
    if is_each_once && BTreeSet::from_iter(&chosen).len() != chosen.len() {
        return differ("something twice");
    }
    if words[0] == b"SPOP" {
        let left = ours.scan_key(db, scan, &words[1], "").unwrap_or_default();
        if BTreeSet::from_iter(left.iter().chain(&chosen)) != BTreeSet::from_iter(&all) {
            return differ("something else has gone");
        }
        let end = [b"DEL".to_vec(), words[1].clone()];
        let ended = redis.other.try_call(&end).expect("Redis answers");
        if !ours.other.try_call(&end).is_ok_and(|reply| reply == ended) {
            return differ("a key only on one side");
        }
    }
    Ok(())
}

/// All keys with their types, values, encodings and deadlines.
fn compare_data(redis: &mut Side, ours: &mut Side) -> Result<(), String> {
    for db in 0..DB_COUNT {
        let (want, got) = (redis.keys(db, "*"), ours.keys(db, "*"));
        if want != got {
            return Err(format!("keys of db {db} in the end\n  Redis {want:?}\n  ours  {got:?}"));
        }
        let sorts = redis.sorts;
        for key in want {
            let mut ask = |name: &str| -> Result<Vec<u8>, String> {
                let words: Vec<&[u8]> = name.split(' ').map(str::as_bytes).collect();
                let end = words.iter().position(|word| *word == b"KEY").expect("it names one");
                let call = [&words[..end], &[&key], &words[end + 1..]].concat();
                let want = redis.other.try_call(&call).expect("Redis answers");
                let got = ours.other.try_call(&call).map_err(|error| error.to_string())?;
                let owned: Vec<Vec<u8>> = call.iter().map(|word| word.to_vec()).collect();
                let is_ordered = !name.starts_with("HGETALL") && !name.starts_with("SMEMBERS");
                if want == got
                    || !is_ordered && is_equal(&owned, &want, &got, false)
                    || sorts && is_unpacked_by_sort(&want, &got)
                    || name.starts_with("PEXPIRETIME") && is_near(&want, &got)
                {
                    return Ok(want);
                }
                let (line, want, got) = (line_of(&owned), escaped(&want), escaped(&got));
                Err(format!("in the end: {line}\n  Redis {want}\n  ours  {got}"))
            };
            ask("PEXPIRETIME KEY")?;
            let encoding = ask("OBJECT ENCODING KEY")?;
            let is_table = encoding.ends_with(b"\r\nhashtable\r\n");
            let call = match &*ask("TYPE KEY")? {
                b"+string\r\n" => "GET KEY",
                b"+list\r\n" => "LRANGE KEY 0 -1",
                b"+hash\r\n" if is_table => "HGETALL KEY",
                // A listpack keeps the order in which its fields came.
                b"+hash\r\n" => "HSCAN KEY 0",
                b"+set\r\n" if is_table => "SMEMBERS KEY",
                b"+set\r\n" => "SSCAN KEY 0",
                _ => "ZRANGE KEY 0 -1 WITHSCORES",
            };
            ask(call)?;
        }
    }
    Ok(())
}

/// The keyspace events of the run. Of keys on several cores none comes for sure before another.
fn compare_events(redis: &mut Side, ours: &mut Side) -> Result<(), String> {
    let want = redis.events(0).expect("Redis answers");
    let got = ours.events(want.values().map(Vec::len).sum())?;
    let keys: BTreeSet<&Vec<u8>> = want.keys().chain(got.keys()).collect();
    match keys.into_iter().find(|key| want.get(*key) != got.get(*key)) {
        None => Ok(()),
        Some(key) => {
            let (want, got) = (want.get(key), got.get(key));
            let key = escaped(key);
            Err(format!("events of \"{key}\"\n  Redis {want:?}\n  ours  {got:?}"))
        }
    }
}

/// Leaves out what can be left out: first halves, then smaller and smaller pieces, then single ones
/// until none can go.
fn shrunk<T: Clone>(mut steps: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut piece = steps.len().div_ceil(2).max(1);
    loop {
        let mut shorter = false;
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + piece).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
                shorter = true;
            } else {
                at += piece;
            }
        }
        if piece == 1 && !shorter {
            return steps;
        }
        piece = piece.div_ceil(2).max(1);
    }
}

fn differential(core_count: usize, default_seed: u64, in_steps: bool) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    let is_replay = std::env::var_os("SEED").is_some();
    let rounds = number("ROUNDS").unwrap_or(if is_replay { 1 } else { u64::MAX });
    let limit = Duration::from_secs(number("ROUND_SECONDS").unwrap_or(20));
    let first = seed_or(default_seed);
    let started = Instant::now();
    let mut pair = Pair::new(core_count);
    if in_steps {
        pair.work_in_steps();
    }
    for round in 0..rounds {
        if round > 0 && !is_replay && started.elapsed() > limit {
            break;
        }
        let case = Case::new(first.wrapping_add(round));
        if let Err(found) = pair.run(&case, true) {
            panic!("{}", pair.shrink(&case, found));
        }
    }
}

#[test]
fn random_calls_on_one_core_are_answered_as_by_redis() {
    differential(1, 0x1000_0000, false);
}

#[test]
fn random_calls_on_two_cores_are_answered_as_by_redis() {
    differential(2, 0x2000_0000, false);
}

#[test]
fn random_calls_in_steps_are_answered_as_by_redis() {
    differential(2, 0x3000_0000, true);
}

#[test]
fn shrinking_leaves_only_what_fails() {
    let steps: Vec<u32> = (0..400).collect();
    let fails = |steps: &[u32]| steps.contains(&3) && steps.contains(&250);
    assert_eq!(shrunk(steps, fails), [3, 250]);
}

#[test]
fn deadlines_asked_at_two_moments_are_equal_if_near() {
    let ttl = [b"TTL".to_vec()];
    assert!(is_equal(&ttl, b":100050\r\n", b":100049\r\n", false));
    assert!(!is_equal(&ttl, b":-1\r\n", b":-2\r\n", false));
    assert!(!is_equal(&[b"STRLEN".to_vec()], b":100050\r\n", b":100049\r\n", false));
    let exec = [b"EXEC".to_vec()];
    assert!(is_equal(&exec, b"*2\r\n:1\r\n:100050\r\n", b"*2\r\n:1\r\n:100049\r\n", false));
    assert!(!is_equal(&exec, b"*2\r\n:1\r\n:100050\r\n", b"*2\r\n:2\r\n:100049\r\n", false));
}
