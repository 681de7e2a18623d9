//! Sends the same random calls to Redis and to our server, and compares every reply byte for byte:
//! two clients whose calls interleave, in RESP2 and RESP3, pipelined in bursts of random length.
//!
//! A difference is shrunk to the shortest sequence that still shows it. `SEED` replays a run (with
//! `ROUNDS` more after it); without it, runs go on for `ROUND_SECONDS` (20) per test.
#![allow(clippy::print_stderr, reason = "the runner of the tests shows it with a failure")]
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::client::Client;
use common::process::Process;
use common::shared::calls::Calls;
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
}

/// A run.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    /// What each client sends in HELLO.
    protocols: [u8; 2],
    steps: Vec<Step>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut calls = Calls::new(seed);
        let mut steps = Vec::new();
        let mut burst = 0;
        while steps.len() < CALL_COUNT {
            burst += 1;
            if calls.rng().percent(5) {
                steps.push(whole_step(calls.rng()));
            }
            let client = calls.rng().below(2);
            let longest = *calls.rng().pick(&[1, 2, 5, 40]);
            for _ in 0..=calls.rng().below(longest) {
                steps.push(Step::Call { client, burst, words: calls.next() });
            }
        }
        let protocols = [2 + (seed & 1) as u8, 2 + (seed >> 1 & 1) as u8];
        Self { seed, protocols, steps }
    }

    fn with(&self, steps: Vec<Step>) -> Self {
        Self { steps, ..self.clone() }
    }
}

/// A step over a whole database.
fn whole_step(rng: &mut Rng) -> Step {
    let db = rng.below(DB_COUNT);
    let pattern = *rng.pick(&["*", "a", "?", "{t}*", "[a-c]", "*\\xff*", "[^a]*", ""]);
    match rng.below(4) {
        0 => Step::Random { db },
        1 => Step::Keys { db, pattern: pattern.to_owned() },
        2 => Step::Scan { db, options: format!("COUNT {}", 1 + rng.below(20)) },
        _ => Step::Scan { db, options: format!("MATCH \"{pattern}\" TYPE string") },
    }
}

/// A server with the connections of a run.
struct Side {
    /// For steps over whole databases: never in a transaction.
    other: Client,
    clients: [Client; 2],
}

impl Side {
    fn new(process: &Process, protocols: [u8; 2]) -> std::io::Result<Self> {
        let mut other = Client::connect(process.port)?;
        other.set_timeout(REPLY_LIMIT);
        other.try_call(&["FLUSHALL"])?;
        let [first, second] = protocols.map(|protocol| -> std::io::Result<Client> {
            let mut client = Client::connect(process.port)?;
            client.set_timeout(REPLY_LIMIT);
            client.try_call(&["HELLO", &protocol.to_string()])?;
            Ok(client)
        });
        Ok(Self { other, clients: [first?, second?] })
    }

    fn call(&mut self, db: usize, line: &str) -> Vec<u8> {
        self.other.call(&format!("SELECT {db}"));
        self.other.call(line)
    }

    /// All keys that KEYS or SCAN gives, as a set.
    fn keys(&mut self, db: usize, pattern: &str) -> BTreeSet<Vec<u8>> {
        let reply = self.call(db, &format!("KEYS \"{pattern}\""));
        let keys = reply::elements(&reply).unwrap_or_default();
        keys.iter().filter_map(|key| Some(reply::bulk(key)?.to_vec())).collect()
    }

    fn scan(&mut self, db: usize, options: &str) -> Result<BTreeSet<Vec<u8>>, String> {
        let mut keys = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        for _ in 0..100_000 {
            let line = format!("SCAN {} {options}", String::from_utf8_lossy(&cursor));
            let reply = self.call(db, &line);
            let parts = reply::elements(&reply).unwrap_or_default();
            let [next, page] = parts[..] else {
                return Err(escaped(&reply));
            };
            cursor = reply::bulk(next).unwrap_or_default().to_vec();
            let page = reply::elements(page).unwrap_or_default();
            keys.extend(page.iter().filter_map(|key| Some(reply::bulk(key)?.to_vec())));
            if cursor == b"0" {
                return Ok(keys);
            }
        }
        Err(format!("SCAN {options} does not end"))
    }
}

/// Whether replies are equal: byte for byte, but for what is left of a deadline when it is asked at
/// two moments.
fn is_equal(words: &[Vec<u8>], want: &[u8], got: &[u8]) -> bool {
    if want == got {
        return true;
    }
    let name = words[0].to_ascii_lowercase();
    match name.as_slice() {
        b"ttl" | b"pttl" | b"expiretime" | b"pexpiretime" => is_near(want, got),
        b"exec" => {
            let (Some(want), Some(got)) = (reply::elements(want), reply::elements(got)) else {
                return false;
            };
            let mut pairs = want.iter().zip(&got);
            want.len() == got.len() && pairs.all(|(a, b)| a == b || is_near(a, b))
        }
        _ => false,
    }
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

    /// Runs a case; `Err` describes the first difference.
    fn run(&mut self, case: &Case, pipelined: bool) -> Result<(), String> {
        if let Some(status) = self.ours.exit_status() {
            eprintln!("our server ended: {status}\n{}", self.ours.output());
            self.ours = Process::cordis(self.core_count, &[]);
        }
        let lost = |error: std::io::Error| format!("our server does not take connections: {error}");
        let mut redis = Side::new(&self.redis, case.protocols).expect("Redis answers");
        let mut ours = Side::new(&self.ours, case.protocols).map_err(lost)?;
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
        compare_data(&mut redis, &mut ours)
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
            "SEED={:#x}, {} cores, RESP{:?}, {}: {}\n",
            case.seed,
            self.core_count,
            case.protocols,
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
    let (redis, ours) = (&mut redis.clients[client], &mut ours.clients[client]);
    redis.send(&bytes).expect("Redis reads");
    ours.send(&bytes).map_err(|error| format!("our server stopped reading: {error}"))?;
    for words in words {
        let line = line_of(words);
        let want = redis.read_reply().unwrap_or_else(|error| panic!("Redis: {line}: {error}"));
        let got = ours.read_reply().map_err(|error| format!("no reply to {line}: {error}"))?;
        if !is_equal(words, &want, &got) {
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
            let (want, got) = (redis.scan(*db, options), ours.scan(*db, options));
            if want == got { Ok(()) } else { differ(&want, &got) }
        }
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

/// All keys with their values, encodings and deadlines.
fn compare_data(redis: &mut Side, ours: &mut Side) -> Result<(), String> {
    for db in 0..DB_COUNT {
        let (want, got) = (redis.keys(db, "*"), ours.keys(db, "*"));
        if want != got {
            return Err(format!("keys of db {db} in the end\n  Redis {want:?}\n  ours  {got:?}"));
        }
        for key in want {
            for name in ["GET", "OBJECT ENCODING", "PEXPIRETIME"] {
                let mut call: Vec<Vec<u8>> =
                    name.split(' ').map(|w| w.as_bytes().to_vec()).collect();
                call.push(key.clone());
                let want = redis.other.try_call(&call).expect("Redis answers");
                let got = ours.other.try_call(&call).map_err(|error| error.to_string())?;
                if !is_equal(&call, &want, &got) {
                    let (line, want, got) = (line_of(&call), escaped(&want), escaped(&got));
                    return Err(format!("in the end: {line}\n  Redis {want}\n  ours  {got}"));
                }
            }
        }
    }
    Ok(())
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

fn differential(core_count: usize, default_seed: u64) {
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
    differential(1, 0x1000_0000);
}

#[test]
fn random_calls_on_two_cores_are_answered_as_by_redis() {
    differential(2, 0x2000_0000);
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
    assert!(is_equal(&ttl, b":100050\r\n", b":100049\r\n"));
    assert!(!is_equal(&ttl, b":-1\r\n", b":-2\r\n"));
    assert!(!is_equal(&[b"STRLEN".to_vec()], b":100050\r\n", b":100049\r\n"));
    let exec = [b"EXEC".to_vec()];
    assert!(is_equal(&exec, b"*2\r\n:1\r\n:100050\r\n", b"*2\r\n:1\r\n:100049\r\n"));
    assert!(!is_equal(&exec, b"*2\r\n:1\r\n:100050\r\n", b"*2\r\n:2\r\n:100049\r\n"));
}
