//! Clients that check every reply, and the server that they act on until the time is up.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

use crate::checks::{Check, exactly};
use crate::common::client::Client;
use crate::common::process::Process;
use crate::common::shared::rng::{Rng, seed_or};
use crate::common::shared::words::{encoded, escaped};
use crate::common::within;

/// Cores of the servers here.
pub(crate) const CORE_COUNT: usize = 2;
/// How long clients act, in a test, unless `ROUND_SECONDS` says otherwise.
const SPAN: Duration = Duration::from_millis(2_000);
/// A reply that takes longer counts as none.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// A key of about this name whose slot is at first on the core that `number` falls to in turn.
pub(crate) fn key_on(number: usize, name: &str) -> String {
    let mut key = name.to_owned();
    while slot_of(key.as_bytes()).index() * CORE_COUNT / SLOT_COUNT != number % CORE_COUNT {
        key.push('.');
    }
    key
}

/// Two keys, one on each core.
pub(crate) fn two(name: &str) -> [String; 2] {
    [key_on(0, &format!("{name}:0")), key_on(1, &format!("{name}:1"))]
}

/// A client with its calls: those that are gathered, and those that were answered last.
pub(crate) struct Actor {
    pub(crate) client: Client,
    pub(crate) rng: Rng,
    pub(crate) id: usize,
    pub(crate) bytes: Vec<u8>,
    checks: VecDeque<(String, Check)>,
    past: VecDeque<String>,
    pub(crate) call_count: usize,
}

impl Actor {
    pub(crate) fn new(run: &Run, id: usize) -> Self {
        let client = run.process.client();
        client.set_timeout(REPLY_LIMIT);
        let seed = run.seed.wrapping_add(id as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
        let (checks, past) = (VecDeque::new(), VecDeque::new());
        Self { client, rng: Rng::new(seed), id, bytes: Vec::new(), checks, past, call_count: 0 }
    }

    /// Gathers a call.
    pub(crate) fn say(&mut self, line: &str, check: Check) {
        let words: Vec<&str> = line.split(' ').collect();
        self.bytes.extend(encoded(&words));
        self.checks.push_back((line.to_owned(), check));
    }

    /// Gathers a transaction.
    pub(crate) fn say_all<S: AsRef<str>>(&mut self, lines: &[S], check: Check) {
        self.say("MULTI", exactly("+OK\r\n"));
        lines.iter().for_each(|line| self.say(line.as_ref(), exactly("+QUEUED\r\n")));
        self.say("EXEC", check);
    }

    /// Sends what is gathered and checks what comes back. Gives the replies.
    pub(crate) fn play(&mut self) -> Vec<Vec<u8>> {
        let bytes = std::mem::take(&mut self.bytes);
        self.client.send(&bytes).unwrap_or_else(|error| self.fail(&format!("sending: {error}")));
        let mut replies = Vec::new();
        while let Some((line, check)) = self.checks.pop_front() {
            let shown = line[..line.len().min(140)].to_owned();
            let got = match self.client.read_reply() {
                Ok(got) => got,
                Err(error) => self.fail(&format!("{shown}: {error}")),
            };
            let start = escaped(&got[..got.len().min(700)]);
            if !check(&got) {
                self.fail(&format!("{shown}\n  got {} bytes: {start}", got.len()));
            }
            self.past.push_back(format!("{shown} -> {}", &start[..start.len().min(80)]));
            if self.past.len() > 40 {
                self.past.pop_front();
            }
            replies.push(got);
        }
        self.call_count += replies.len();
        replies
    }

    /// Sends one call and gives its reply.
    pub(crate) fn ask(&mut self, line: &str, check: Check) -> Vec<u8> {
        self.say(line, check);
        self.play().pop().expect("a call is answered")
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        let past: Vec<_> = self.past.iter().map(String::as_str).collect();
        let (id, count) = (self.id, self.call_count);
        panic!("client {id}, after {count} calls: {what}\n  before:\n    {}", past.join("\n    "));
    }

    /// Two different ones.
    pub(crate) fn two_of<'a>(&mut self, from: &'a [String]) -> [&'a str; 2] {
        let first = self.rng.below(from.len());
        let second = (first + 1 + self.rng.below(from.len() - 1)) % from.len();
        [&from[first], &from[second]]
    }

    pub(crate) fn end_word(&mut self) -> &'static str {
        if self.rng.percent(50) { "LEFT" } else { "RIGHT" }
    }

    /// Either of two keys that nobody else has.
    pub(crate) fn own_key(&mut self, name: &str) -> String {
        let side = self.rng.below(2);
        two(&format!("own:{}:{name}", self.id))[side].clone()
    }
}

/// A server, and what clients do to it until the time is up or one of them fails.
pub(crate) struct Run {
    pub(crate) process: Process,
    pub(crate) seed: u64,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

pub(crate) type Part<'a> = Box<dyn FnOnce(&'a Run) + Send + 'a>;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(crate) fn new(default_seed: u64) -> Self {
        let process = Process::cordis(CORE_COUNT, &["--slot-balance", "yes"]);
        let seed = seed_or(default_seed);
        Self { process, seed, stop: false.into(), failures: Mutex::default() }
    }

    /// Adds to a collection, some elements at a time.
    pub(crate) fn fill(&self, call: &str, words: impl Iterator<Item = String>) {
        let mut client = self.process.client();
        let words: Vec<String> = words.collect();
        for some in words.chunks(500) {
            let got = client.call(&format!("{call} {}", some.join(" ")));
            assert!(got.starts_with(b":"), "{call}: {}", escaped(&got));
        }
    }

    /// Runs these at the same time until the time is up.
    pub(crate) fn act<'a>(&'a self, parts: Vec<Part<'a>>) {
        let seconds = std::env::var("ROUND_SECONDS").ok().map(|text| {
            Duration::from_secs(text.parse().expect("ROUND_SECONDS is a whole number"))
        });
        let span = seconds.unwrap_or(SPAN);
        std::thread::scope(|scope| {
            for part in parts {
                scope.spawn(move || {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| part(self))) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text =
                            text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
                        locked(&self.failures)
                            .push(text.unwrap_or_else(|| "a client panicked".to_owned()));
                        self.stop.store(true, Ordering::Relaxed);
                    }
                });
            }
            within(span, || self.is_over());
            self.stop.store(true, Ordering::Relaxed);
        });
        self.judge();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn judge(&self) {
        let (failures, output) = (locked(&self.failures), self.process.output());
        let is_bad = !failures.is_empty() || output.contains("panicked");
        assert!(!is_bad, "SEED={:#x}: {}\nserver:\n{output}", self.seed, failures.join("\n"));
    }

    /// Moves the slots of these keys to and fro.
    pub(crate) fn mover_part(&self, id: usize, keys: &[String]) {
        let mut actor = Actor::new(self, id);
        while !self.is_over() {
            for _ in 0..=actor.rng.below(6) {
                let slot = slot_of(actor.rng.pick(keys).as_bytes()).index();
                let shard = actor.rng.below(CORE_COUNT);
                actor.say(&format!("DEBUG MOVE-SLOT {slot} {shard}"), exactly("+OK\r\n"));
            }
            actor.play();
            // Often, but not all the time: calls that meet a moved slot run again.
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }

    /// Nothing moves any more: the server stops as it ought to.
    pub(crate) fn finish(mut self) {
        self.judge();
        self.process.terminate();
        let stopped = within(STOP_LIMIT, || self.process.exit_status().is_some());
        assert!(stopped, "SEED={:#x}: it does not stop within {STOP_LIMIT:?}", self.seed);
        let status = self.process.exit_status().expect("it has stopped");
        assert!(status.success(), "it ended with {status}:\n{}", self.process.output());
    }
}
