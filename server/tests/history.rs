//! What several clients see at once, checked against what may be seen at all: calls on many keys are
//! atomic over the slots of both cores, a session's calls happen in the order in which it sent them,
//! and both stay so while slots move, databases are flushed and clients break off.
//!
//! Every client draws its calls from a seed; a failure prints it. `SEED` replays the calls of a run
//! (how the clients interleave is the machine's own), `ROUND_SECONDS` makes each test longer.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::client::Client;
use common::process::Process;
use common::shared::reply::{bulk, elements, integer};
use common::shared::rng::{Rng, seed_or};
use common::shared::words::{encoded, escaped};
use common::{alone, within};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

/// Cores of the servers here.
const CORE_COUNT: usize = 2;
/// How long clients act, in a test, unless `ROUND_SECONDS` says otherwise.
const SPAN: Duration = Duration::from_millis(1_600);
/// A reply that takes longer counts as none.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// Afterwards, nobody else asks anything.
const CALM_REPLY_LIMIT: Duration = Duration::from_secs(1);
/// How long the server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Clients that check what they see.
const CLIENT_COUNT: usize = 6;
/// Keys between which amounts are moved, and what is in each at first.
const ACCOUNT_COUNT: usize = 16;
const ACCOUNT_AMOUNT: i64 = 1_000;
/// Pairs of keys that are written together, and what the two are together.
const PAIR_COUNT: usize = 6;
const PAIR_SUM: i64 = 10_000;
/// Groups of keys that are all written at once, and the keys of each.
const GROUP_COUNT: usize = 3;
const GROUP_KEY_COUNT: usize = 6;
/// Keys that nobody writes.
const STILL_COUNT: usize = 200;
/// Keys that one client has for itself.
const OWN_COUNT: usize = 6;
/// More keys than DEL deletes at once: it runs in slices.
const BULK_COUNT: usize = 600;

/// A key of about this name whose slot is at first on the core that `number` falls to in turn.
fn key_on(number: usize, name: &str) -> String {
    let mut key = name.to_owned();
    while slot_of(key.as_bytes()).index() * CORE_COUNT / SLOT_COUNT != number % CORE_COUNT {
        key.push('.');
    }
    key
}

fn accounts() -> Vec<String> {
    (0..ACCOUNT_COUNT).map(account).collect()
}

fn account(i: usize) -> String {
    key_on(i, &format!("a{i}"))
}

fn pair(i: usize) -> [String; 2] {
    [key_on(0, &format!("pair:{i}:left")), key_on(1, &format!("pair:{i}:right"))]
}

fn group(i: usize) -> Vec<String> {
    (0..GROUP_KEY_COUNT).map(|k| key_on(k, &format!("group:{i}:{k}"))).collect()
}

/// Keys of which one exists at a time.
fn tokens() -> [String; 2] {
    [key_on(0, "token:0"), key_on(1, "token:1")]
}

/// Keys that are only incremented together.
fn twins() -> [String; 2] {
    [key_on(0, "twin:0"), key_on(1, "twin:1")]
}

fn own_key(client: usize, i: usize) -> String {
    key_on(i, &format!("own:{client}:{i}"))
}

/// Keys that are always there.
fn permanent_keys() -> BTreeSet<String> {
    let pairs = (0..PAIR_COUNT).flat_map(pair);
    let groups = (0..GROUP_COUNT).flat_map(group);
    let still = (0..STILL_COUNT).map(|i| format!("still:{i}"));
    let twins = twins();
    accounts().into_iter().chain(pairs).chain(groups).chain(still).chain(twins).collect()
}

/// What a reply must be.
#[derive(Clone, Debug)]
enum Want {
    /// These bytes.
    Exactly(Vec<u8>),
    /// An array of numbers that are this together.
    Sum(i64),
    /// An array of pairs of numbers, each `PAIR_SUM` together.
    PairSums,
    /// An array of equal strings.
    Equal,
    /// An array of which one element exists.
    One,
    /// OK, or that the key to be renamed is at its other name.
    Renamed,
    /// Two equal numbers, no less than this session has seen before; `true` if it raised them.
    Twins(bool),
    /// An array with all permanent keys.
    Permanent,
    /// Anything but an error.
    Anything,
}

impl Want {
    fn text(text: &str) -> Self {
        Self::Exactly(text.as_bytes().to_vec())
    }

    fn ok() -> Self {
        Self::text("+OK\r\n")
    }

    fn number(n: i64) -> Self {
        Self::Exactly(format!(":{n}\r\n").into_bytes())
    }

    /// As a person reads it.
    fn shown(&self) -> String {
        match self {
            Self::Exactly(bytes) => escaped(bytes),
            other => format!("{other:?}"),
        }
    }

    /// Whether a reply is that, given the least that twins may be.
    fn judge(&self, got: &[u8], twins_min: i64) -> bool {
        let numbers =
            || -> Option<Vec<i64>> { elements(got)?.into_iter().map(number_in).collect() };
        match self {
            Self::Exactly(bytes) => got == bytes,
            Self::Sum(sum) => numbers().is_some_and(|n| n.iter().sum::<i64>() == *sum),
            Self::PairSums => numbers()
                .is_some_and(|n| !n.is_empty() && n.chunks(2).all(|p| p[0] + p[1] == PAIR_SUM)),
            Self::Equal => elements(got)
                .is_some_and(|all| bulk(all[0]).is_some() && all.iter().all(|e| *e == all[0])),
            Self::One => elements(got)
                .is_some_and(|all| all.iter().filter(|e| bulk(e).is_some()).count() == 1),
            Self::Renamed => got == b"+OK\r\n" || got == b"-ERR no such key\r\n",
            Self::Twins(raised) => numbers().is_some_and(|n| {
                n.len() == 2 && n[0] == n[1] && n[0] >= twins_min + i64::from(*raised)
            }),
            Self::Permanent => {
                let found: BTreeSet<&[u8]> =
                    elements(got).unwrap_or_default().into_iter().filter_map(bulk).collect();
                permanent_keys().iter().all(|key| found.contains(key.as_bytes()))
            }
            Self::Anything => !got.starts_with(b"-"),
        }
    }
}

/// The number of an integer reply or of a bulk.
fn number_in(reply: &[u8]) -> Option<i64> {
    integer(reply).or_else(|| std::str::from_utf8(bulk(reply)?).ok()?.parse().ok())
}

/// Calls that are drawn, with what each must be answered.
#[derive(Debug)]
struct Script {
    rng: Rng,
    /// Whose it is.
    id: usize,
    bytes: Vec<u8>,
    wants: VecDeque<(String, Want)>,
    stamp: u64,
    /// What its own keys hold once all calls so far have run.
    own: [Option<i64>; OWN_COUNT],
}

impl Script {
    fn new(seed: u64, id: usize) -> Self {
        let rng = Rng::new(seed.wrapping_add(id as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let own = [None; OWN_COUNT];
        Self { rng, id, bytes: Vec::new(), wants: VecDeque::new(), stamp: 0, own }
    }

    fn push<W: AsRef<str>>(&mut self, words: &[W], want: Want) {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        self.bytes.extend(encoded(&words));
        self.wants.push_back((words.join(" "), want));
    }

    fn line(&mut self, line: &str, want: Want) {
        self.push(&line.split(' ').collect::<Vec<_>>(), want);
    }

    /// MULTI, calls, and EXEC.
    fn transaction(&mut self, lines: &[String], want: Want) {
        self.line("MULTI", Want::ok());
        lines.iter().for_each(|line| self.line(line, Want::text("+QUEUED\r\n")));
        self.line("EXEC", want);
    }

    /// A look at the keys of all clients, or a change that leaves them as they ought to be.
    fn shared_step(&mut self) {
        match self.rng.below(12) {
            0..2 => self.transfer(),
            2 => self.set_pairs(),
            3 => self.set_group(),
            4 => {
                // A copy of what is equal changes nothing.
                let keys = group(self.rng.below(GROUP_COUNT));
                let (from, to) = self.two_below(GROUP_KEY_COUNT);
                let line = format!("COPY {} {} REPLACE", keys[from], keys[to]);
                self.line(&line, Want::number(1));
            }
            5 => {
                let (from, to) = self.two_below(2);
                self.line(&format!("RENAME {} {}", tokens()[from], tokens()[to]), Want::Renamed);
            }
            6..8 => {
                let sum = ACCOUNT_AMOUNT * ACCOUNT_COUNT as i64;
                self.line(&format!("MGET {}", accounts().join(" ")), Want::Sum(sum));
            }
            8 => {
                let keys: Vec<String> = (0..PAIR_COUNT).flat_map(pair).collect();
                self.line(&format!("MGET {}", keys.join(" ")), Want::PairSums);
            }
            9 => {
                let keys = group(self.rng.below(GROUP_COUNT));
                self.line(&format!("MGET {}", keys.join(" ")), Want::Equal);
            }
            10 => self.line(&format!("MGET {}", tokens().join(" ")), Want::One),
            _ => self.line(&format!("EXISTS {}", tokens().join(" ")), Want::number(1)),
        }
    }

    /// Two different numbers below `end`.
    fn two_below(&mut self, end: usize) -> (usize, usize) {
        let first = self.rng.below(end);
        (first, (first + 1 + self.rng.below(end - 1)) % end)
    }

    fn transfer(&mut self) {
        let (from, to) = self.two_below(ACCOUNT_COUNT);
        let (from, to, amount) = (account(from), account(to), 1 + self.rng.below(50));
        let lines = [format!("DECRBY {from} {amount}"), format!("INCRBY {to} {amount}")];
        self.transaction(&lines, Want::Anything);
    }

    fn set_pairs(&mut self) {
        let mut line = "MSET".to_owned();
        for _ in 0..=self.rng.below(3) {
            let [left, right] = pair(self.rng.below(PAIR_COUNT));
            let value = self.rng.below(PAIR_SUM as usize) as i64;
            line += &format!(" {left} {value} {right} {}", PAIR_SUM - value);
        }
        self.line(&line, Want::ok());
    }

    fn set_group(&mut self) {
        self.stamp += 1;
        let mut line = "MSET".to_owned();
        for key in group(self.rng.below(GROUP_COUNT)) {
            line += &format!(" {key} {}-{}", self.id, self.stamp);
        }
        self.line(&line, Want::ok());
    }

    /// A call on twins. Who makes them must count them.
    fn twin_step(&mut self) {
        if self.rng.percent(50) {
            return self.line(&format!("MGET {}", twins().join(" ")), Want::Twins(false));
        }
        self.transaction(&twins().map(|key| format!("INCR {key}")), Want::Twins(true));
    }

    /// A call on own keys, whose reply is known.
    fn own_step(&mut self) {
        let i = self.rng.below(OWN_COUNT);
        let key = own_key(self.id, i);
        let bulk_of = |value: Option<i64>| match value {
            None => "$-1\r\n".to_owned(),
            Some(n) => format!("${}\r\n{n}\r\n", n.to_string().len()),
        };
        match self.rng.below(100) {
            0..40 => {
                let value = self.own[i].unwrap_or(0) + 1;
                self.own[i] = Some(value);
                self.line(&format!("INCR {key}"), Want::number(value));
            }
            40..75 => self.line(&format!("GET {key}"), Want::text(&bulk_of(self.own[i]))),
            75..80 => {
                let value = self.rng.below(1_000) as i64;
                self.own[i] = Some(value);
                self.line(&format!("SET {key} {value}"), Want::ok());
            }
            80..84 => {
                let was = self.own[i].take();
                self.line(&format!("DEL {key}"), Want::number(i64::from(was.is_some())));
            }
            84..90 => {
                let keys = (0..OWN_COUNT).map(|i| own_key(self.id, i));
                let words: Vec<_> = std::iter::once("MGET".to_owned()).chain(keys).collect();
                let all: String = self.own.iter().map(|&value| bulk_of(value)).collect();
                self.push(&words, Want::text(&format!("*{OWN_COUNT}\r\n{all}")));
            }
            90..94 => {
                let value = self.rng.below(1_000) as i64;
                let mut words = vec!["MSET".to_owned()];
                for i in 0..OWN_COUNT {
                    self.own[i] = Some(value + i as i64);
                    words.extend([own_key(self.id, i), (value + i as i64).to_string()]);
                }
                self.push(&words, Want::ok());
            }
            94..97 => {
                let value = self.own[i].unwrap_or(0) + 1;
                self.own[i] = Some(value);
                let lines = [format!("INCR {key}"), format!("GET {key}")];
                let want = format!("*2\r\n:{value}\r\n{}", bulk_of(self.own[i]));
                self.transaction(&lines, Want::text(&want));
            }
            _ => self
                .line(&format!("ECHO {key}"), Want::text(&format!("${}\r\n{key}\r\n", key.len()))),
        }
    }
}

/// A script with the connection that it is sent on.
#[derive(Debug)]
struct Actor {
    client: Client,
    script: Script,
    /// The last calls and replies.
    past: VecDeque<String>,
    /// What twins are at least.
    twins_min: i64,
    /// How often it has raised them.
    twins_raised: i64,
    call_count: usize,
}

impl Actor {
    fn new(run: &Run, id: usize) -> Self {
        let client = run.process.client();
        client.set_timeout(REPLY_LIMIT);
        let script = Script::new(run.seed, id);
        let past = VecDeque::new();
        Self { client, script, past, twins_min: 0, twins_raised: 0, call_count: 0 }
    }

    /// Sends what the script has gathered, and checks what comes back. Gives the replies.
    fn play(&mut self) -> Vec<Vec<u8>> {
        let bytes = std::mem::take(&mut self.script.bytes);
        self.client.send(&bytes).unwrap_or_else(|error| self.fail(&format!("sending: {error}")));
        let mut replies = Vec::new();
        while let Some((line, want)) = self.script.wants.pop_front() {
            let shown = &line[..line.len().min(100)];
            let got = match self.client.read_reply() {
                Ok(got) => got,
                Err(error) => self.fail(&format!("{shown}: {error}")),
            };
            let start = escaped(&got[..got.len().min(300)]);
            if !want.judge(&got, self.twins_min) {
                self.fail(&format!("{shown}\n  got  {start}\n  want {}", want.shown()));
            }
            if let Want::Twins(raised) = want {
                let first = elements(&got).and_then(|all| number_in(all[0]));
                self.twins_min = first.expect("it has been judged");
                self.twins_raised += i64::from(raised);
            }
            self.past.push_back(format!("{shown} -> {}", &start[..start.len().min(80)]));
            if self.past.len() > 30 {
                self.past.pop_front();
            }
            replies.push(got);
        }
        self.call_count += replies.len();
        replies
    }

    fn fail(&self, what: &str) -> ! {
        let past: Vec<_> = self.past.iter().map(String::as_str).collect();
        let (id, count) = (self.script.id, self.call_count);
        panic!("client {id}, after {count} calls: {what}\n  before:\n    {}", past.join("\n    "));
    }

    /// Moves an amount between two accounts, provided that nobody touches them meanwhile.
    fn transfer_watched(&mut self) {
        let (from, to) = self.script.two_below(ACCOUNT_COUNT);
        let (from, to) = (account(from), account(to));
        let amount = 1 + self.script.rng.below(50) as i64;
        for _ in 0..3 {
            self.script.line(&format!("WATCH {from} {to}"), Want::ok());
            self.script.line(&format!("GET {from}"), Want::Anything);
            self.script.line(&format!("GET {to}"), Want::Anything);
            let replies = self.play();
            let value = |at: usize| number_in(&replies[at]).expect("accounts hold numbers");
            let lines = [
                format!("SET {from} {}", value(1) - amount),
                format!("SET {to} {}", value(2) + amount),
            ];
            self.script.transaction(&lines, Want::Anything);
            let replies = self.play();
            if replies.last().is_some_and(|exec| exec != b"*-1\r\n") {
                return;
            }
        }
    }
}

/// A server, and what clients do to it until the time is up or one of them fails.
struct Run {
    process: Process,
    seed: u64,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// What a client checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mix {
    /// Calls on keys that all clients share.
    Shared,
    /// Calls on keys of its own, deep pipelines of them.
    Own,
    /// Both.
    All,
}

impl Run {
    /// Starts a server that has all keys in it.
    fn new(default_seed: u64) -> Self {
        let process = Process::cordis(CORE_COUNT, &["--slot-balance", "yes"]);
        let seed = seed_or(default_seed);
        let run = Self { process, seed, stop: false.into(), failures: Mutex::default() };
        let mut client = run.process.client();
        let mut words = vec!["MSET".to_owned(), tokens()[0].clone(), "here".to_owned()];
        for key in permanent_keys() {
            let value = match key.as_bytes() {
                [b'a', ..] => ACCOUNT_AMOUNT,
                [b'p', ..] => PAIR_SUM / 2,
                _ => 0,
            };
            words.extend([key, value.to_string()]);
        }
        assert_eq!(client.try_call(&words).expect("it answers"), b"+OK\r\n");
        run
    }

    /// Runs these at the same time, each told when to end, until the time is up.
    fn act<'a>(&'a self, parts: Vec<Box<dyn FnOnce(&'a Self) + Send + 'a>>) {
        let seconds = std::env::var("ROUND_SECONDS").ok().map(|text| {
            Duration::from_secs(text.parse().expect("ROUND_SECONDS is a whole number"))
        });
        let span = seconds.unwrap_or(SPAN);
        std::thread::scope(|scope| {
            for part in parts {
                scope.spawn(move || {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| part(self))) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push(text.unwrap_or_else(|| "a client panicked".to_owned()));
                        self.stop.store(true, Ordering::Relaxed);
                    }
                });
            }
            within(span, || self.is_over());
            self.stop.store(true, Ordering::Relaxed);
        });
        self.judge();
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn judge(&self) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (seed, output) = (self.seed, self.process.output());
        let is_bad = !failures.is_empty() || output.contains("panicked");
        assert!(!is_bad, "SEED={seed:#x}: {}\nserver:\n{output}", failures.join("\n"));
    }

    /// A client's part: it acts, and what is left behind must be what it did.
    fn client_part(&self, id: usize, mix: Mix, raised: &Mutex<i64>) {
        let mut actor = Actor::new(self, id);
        while !self.is_over() {
            let longest = match mix {
                Mix::Own => *actor.script.rng.pick(&[1, 8, 60, 400]),
                Mix::Shared | Mix::All => *actor.script.rng.pick(&[1, 4, 20, 80]),
            };
            for _ in 0..=actor.script.rng.below(longest) {
                match (mix, actor.script.rng.below(10)) {
                    (Mix::Own, _) | (Mix::All, 0..5) => actor.script.own_step(),
                    (_, 5..7) => actor.script.twin_step(),
                    _ => actor.script.shared_step(),
                }
            }
            actor.play();
            if mix != Mix::Own && actor.script.rng.percent(40) {
                actor.transfer_watched();
            }
        }
        *raised.lock().unwrap_or_else(PoisonError::into_inner) += actor.twins_raised;
        // A session of another core, perhaps, sees the same.
        let mut other = self.process.client();
        for (i, value) in actor.script.own.iter().enumerate() {
            let got = other.call(&format!("GET {}", own_key(id, i)));
            assert_eq!(number_in(&got), *value, "own key {i} of client {id} in the end");
        }
        assert!(actor.call_count > 100, "client {id} made only {} calls", actor.call_count);
    }

    /// Moves slots to and fro, those of keys in use most of all.
    fn mover_part(&self, id: usize) {
        let mut keys: Vec<String> = permanent_keys().into_iter().collect();
        keys.retain(|key| !key.starts_with("still"));
        keys.extend(tokens());
        for client in 0..CLIENT_COUNT {
            keys.extend((0..OWN_COUNT).map(|i| own_key(client, i)));
        }
        let mut actor = Actor::new(self, id);
        while !self.is_over() {
            for _ in 0..=actor.script.rng.below(8) {
                let slot = match actor.script.rng.percent(80) {
                    true => slot_of(actor.script.rng.pick(&keys).as_bytes()).index(),
                    false => actor.script.rng.below(SLOT_COUNT),
                };
                let shard = actor.script.rng.below(CORE_COUNT);
                actor.script.line(&format!("DEBUG MOVE-SLOT {slot} {shard}"), Want::ok());
            }
            actor.play();
        }
    }

    /// Looks at all keys, by KEYS and by SCAN.
    fn scanner_part(&self, id: usize) {
        let mut actor = Actor::new(self, id);
        while !self.is_over() {
            actor.script.line("KEYS *", Want::Permanent);
            actor.play();
            let mut found = BTreeSet::new();
            let mut cursor = "0".to_owned();
            loop {
                let count = 1 + actor.script.rng.below(200);
                actor.script.line(&format!("SCAN {cursor} COUNT {count}"), Want::Anything);
                let reply = actor.play().remove(0);
                let parts = elements(&reply).expect("SCAN answers with an array");
                let keys = elements(parts[1]).expect("SCAN answers with keys");
                let text =
                    |word| String::from_utf8_lossy(bulk(word).unwrap_or_default()).into_owned();
                found.extend(keys.into_iter().map(text));
                cursor = text(parts[0]);
                if cursor == "0" || self.is_over() {
                    break;
                }
            }
            if cursor == "0" {
                let missed: Vec<_> = permanent_keys().difference(&found).cloned().collect();
                assert!(missed.is_empty(), "a whole SCAN without {missed:?}");
            }
        }
    }

    /// Writes and deletes many keys, flushes a database that is nobody else's, asks all cores.
    fn bulk_part(&self, id: usize) {
        let keys: Vec<String> = (0..BULK_COUNT).map(|i| format!("bulk:{id}:{i}")).collect();
        let mut actor = Actor::new(self, id);
        while !self.is_over() {
            let pairs = keys.iter().flat_map(|key| [key.as_str(), "1"]);
            let set: Vec<&str> = std::iter::once("MSET").chain(pairs).collect();
            let call = |name: &'static str| -> Vec<&str> {
                std::iter::once(name).chain(keys.iter().map(String::as_str)).collect()
            };
            let script = &mut actor.script;
            let delete = *script.rng.pick(&["DEL", "UNLINK"]);
            let flush = *script.rng.pick(&["FLUSHDB", "FLUSHDB ASYNC"]);
            let all = Want::number(BULK_COUNT as i64);
            script.push(&set, Want::ok());
            script.push(&call("EXISTS"), all.clone());
            script.push(&call(delete), all);
            script.push(&call("EXISTS"), Want::number(0));
            script.line("SELECT 5", Want::ok());
            script.push(&set[..201], Want::ok());
            script.line("DBSIZE", Want::number(100));
            script.line(flush, Want::ok());
            script.line("DBSIZE", Want::number(0));
            script.line("SELECT 0", Want::ok());
            script.line("CLIENT LIST", Want::Anything);
            actor.play();
        }
    }

    /// Connects, sends calls on many keys, and breaks off in their middle, over and over.
    fn resetter_part(&self, id: usize) {
        let mut script = Script::new(self.seed, id);
        while !self.is_over() {
            let mut client = self.process.client();
            rustix::net::sockopt::set_socket_linger(client.stream(), Some(Duration::ZERO))
                .expect("a socket can be told to reset");
            client.set_timeout(REPLY_LIMIT);
            let longest = *script.rng.pick(&[1, 4, 30]);
            for _ in 0..=script.rng.below(longest) {
                script.shared_step();
            }
            let mut bytes = std::mem::take(&mut script.bytes);
            if script.rng.percent(30) {
                bytes.truncate(script.rng.below(bytes.len()));
                script.wants.clear();
            }
            client.send(&bytes).unwrap_or_else(|error| panic!("client {id} sends: {error}"));
            let wants = std::mem::take(&mut script.wants);
            let read = script.rng.below(4).min(wants.len());
            for (line, want) in wants.into_iter().take(read) {
                let got = client.read_reply();
                let got = got.unwrap_or_else(|error| panic!("client {id}: {line}: {error}"));
                assert!(want.judge(&got, 0), "client {id}: {line}\n  got {}", escaped(&got));
            }
        }
    }

    /// Nothing moves any more: all is as it ought to be, every core answers, and the server stops.
    fn finish(mut self, raised: i64) {
        let mut whole = Script::new(self.seed, 99);
        whole.push(&[vec!["MGET".to_owned()], accounts()].concat(), Want::Sum(16_000));
        whole.line("KEYS *", Want::Permanent);
        let twin = format!("${}\r\n{raised}\r\n", raised.to_string().len());
        let both = Want::text(&format!("*2\r\n{twin}{twin}"));
        whole.line(&format!("MGET {}", twins().join(" ")), both);
        for (line, want) in whole.wants {
            let got = self.process.client().call(&line);
            assert!(
                want.judge(&got, 0),
                "SEED={:#x}: in the end: {line}\n  got  {}\n  want {}",
                self.seed,
                escaped(&got),
                want.shown()
            );
        }
        // One key of each slot.
        let mut slots = vec![None; SLOT_COUNT];
        let names = (0..).map(|i| format!("slot:{i}"));
        let mut left = SLOT_COUNT;
        for name in names {
            let place = &mut slots[slot_of(name.as_bytes()).index()];
            left -= usize::from(place.is_none());
            place.get_or_insert(name);
            if left == 0 {
                break;
            }
        }
        let keys: Vec<String> = slots.into_iter().flatten().collect();
        let set: Vec<&str> = std::iter::once("MSET")
            .chain(keys.iter().flat_map(|key| [key.as_str(), "1"]))
            .collect();
        let get: Vec<&str> =
            std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        // Enough connections to be dealt to every core.
        let mut clients: Vec<Client> = (0..2 * CORE_COUNT).map(|_| self.process.client()).collect();
        for client in &mut clients {
            client.set_timeout(CALM_REPLY_LIMIT);
            let answer = |reply: io::Result<Vec<u8>>| {
                reply.unwrap_or_else(|error| panic!("SEED={:#x}: afterwards: {error}", self.seed))
            };
            assert_eq!(answer(client.try_call(&set)), b"+OK\r\n");
            let got = answer(client.try_call(&get));
            let all = elements(&got).expect("MGET answers with an array");
            assert!(all.len() == SLOT_COUNT && all.iter().all(|e| bulk(e) == Some(b"1")));
        }
        drop(clients);
        self.judge();
        self.process.terminate();
        let stopped = within(STOP_LIMIT, || self.process.exit_status().is_some());
        assert!(stopped, "SEED={:#x}: it does not stop within {STOP_LIMIT:?}", self.seed);
        let status = self.process.exit_status().expect("it has stopped");
        assert!(status.success(), "it ended with {status}:\n{}", self.process.output());
    }
}

/// Clients that act together, and how often they raised the twins.
fn clients<'a>(
    mix: Mix,
    count: usize,
    raised: &'a Mutex<i64>,
) -> Vec<Box<dyn FnOnce(&'a Run) + Send + 'a>> {
    let part = |id| -> Box<dyn FnOnce(&'a Run) + Send + 'a> {
        Box::new(move |run| run.client_part(id, mix, raised))
    };
    (0..count).map(part).collect()
}

fn total(raised: Mutex<i64>) -> i64 {
    raised.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn calls_on_many_keys_of_two_cores_are_seen_whole() {
    let _alone = alone();
    let run = Run::new(0x4157_0001);
    let raised = Mutex::default();
    run.act(clients(Mix::Shared, CLIENT_COUNT, &raised));
    run.finish(total(raised));
}

#[test]
fn calls_of_a_session_happen_in_the_order_sent() {
    let _alone = alone();
    let run = Run::new(0x4157_0002);
    let raised = Mutex::default();
    run.act(clients(Mix::Own, CLIENT_COUNT, &raised));
    run.finish(total(raised));
}

#[test]
fn calls_stay_whole_and_in_order_while_slots_move() {
    let _alone = alone();
    let run = Run::new(0x4157_0003);
    let raised = Mutex::default();
    let mut parts = clients(Mix::All, CLIENT_COUNT - 1, &raised);
    parts.push(Box::new(|run| run.mover_part(20)));
    parts.push(Box::new(|run| run.scanner_part(21)));
    parts.push(Box::new(|run| run.bulk_part(22)));
    run.act(parts);
    run.finish(total(raised));
}

#[test]
fn clients_that_break_off_leave_no_door_shut() {
    let _alone = alone();
    let run = Run::new(0x4157_0004);
    let raised = Mutex::default();
    let mut parts = clients(Mix::All, 2, &raised);
    for id in 30..34 {
        parts.push(Box::new(move |run| run.resetter_part(id)));
    }
    parts.push(Box::new(|run| run.mover_part(20)));
    parts.push(Box::new(|run| run.bulk_part(22)));
    run.act(parts);
    run.finish(total(raised));
}

#[test]
fn replies_that_may_not_be_are_noticed() {
    let bad: [(Want, &[u8]); 9] = [
        (Want::Sum(5), b"*2\r\n$1\r\n2\r\n$1\r\n2\r\n"),
        (Want::Sum(5), b"*2\r\n$1\r\n5\r\n$-1\r\n"),
        (Want::PairSums, b"*2\r\n$4\r\n9000\r\n$3\r\n999\r\n"),
        (Want::Equal, b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"),
        (Want::One, b"*2\r\n$-1\r\n$-1\r\n"),
        (Want::One, b"*2\r\n$1\r\n1\r\n$1\r\n1\r\n"),
        (Want::Twins(true), b"*2\r\n:7\r\n:7\r\n"),
        (Want::Twins(false), b"*2\r\n:8\r\n:9\r\n"),
        (Want::Permanent, b"*1\r\n$2\r\na0\r\n"),
    ];
    for (want, got) in bad {
        assert!(!want.judge(got, 7), "{want:?} for {}", escaped(got));
    }
    assert!(Want::Twins(true).judge(b"*2\r\n:8\r\n:8\r\n", 7));
    assert!(Want::Sum(5).judge(b"*2\r\n$1\r\n2\r\n:3\r\n", 0));
}
