//! The slow log: the newest calls that took longer than `slowlog-log-slower-than`.
//!
//! Each core has a ring of its own behind a mutex. A lock is rare on the data path and short: a core
//! takes its own only after a call that was slow already, nobody holds it for longer than it takes
//! to move a few pointers, and the only other party is a SLOWLOG command. So the ban on locks in
//! handlers costs nothing to break here, and a lock-free ring would buy nothing. Even with a
//! threshold of 0 cores do not contend, because the rings are not shared.
//!
//! Any thread may enter.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::commands::args::{Args, is_token};
use crate::config::spec::{self, Kind};
use crate::units::{CoreId, Ms};

/// Words of a call that are kept: the last place tells how many more there were.
const WORD_COUNT_MAX: usize = 32;
/// Bytes of a word that are kept.
const WORD_BYTES_MAX: usize = 128;
/// What stands in the place of a secret.
const REDACTED: &[u8] = b"(redacted)";

/// One slow call.
#[derive(Debug, PartialEq, Eq)]
pub struct SlowCall {
    /// Unique in this process, ascending in time per core.
    pub id: u64,
    /// When it ended.
    pub at: Ms,
    /// How long it ran, in microseconds.
    pub us: u64,
    /// Its words, trimmed.
    pub words: Vec<Box<[u8]>>,
    /// Address of the client.
    pub addr: Box<str>,
    /// Name of the client.
    pub name: Box<[u8]>,
}

/// What a caller knows of a slow call.
#[derive(Clone, Copy, Debug)]
pub struct Slow<'a> {
    /// When it ended.
    pub at: Ms,
    /// How long it ran, in microseconds.
    pub us: u64,
    /// Address of the client.
    pub addr: &'a str,
    /// Name of the client.
    pub name: &'a [u8],
}

type Ring = VecDeque<Arc<SlowCall>>;

/// The slow calls of all cores.
#[derive(Debug)]
pub struct SlowLog {
    rings: Box<[Mutex<Ring>]>,
    next_id: AtomicU64,
}

/// Pushing and popping leave a ring whole at any point, so a panic elsewhere does not spoil it.
fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SlowLog {
    /// An empty log for this many cores.
    pub fn new(core_count: usize) -> Self {
        Self {
            rings: (0..core_count).map(|_| Mutex::default()).collect(),
            next_id: AtomicU64::new(0),
        }
    }

    /// Keeps a call, and no more than `len_max` of this core's.
    pub fn push(&self, core: CoreId, slow: Slow<'_>, args: &Args<'_>, len_max: usize) {
        // Ordering: relaxed; only uniqueness counts.
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let call = Arc::new(SlowCall {
            id,
            at: slow.at,
            us: slow.us,
            words: trimmed(args),
            addr: slow.addr.into(),
            name: slow.name.into(),
        });
        let mut ring = lock(&self.rings[core.index()]);
        ring.push_front(call);
        ring.truncate(len_max);
    }

    /// The newest `count` calls of all cores, newest first; of each core no more than `len_max`
    /// count, as the log would be that long if it were one.
    pub fn latest(&self, count: usize, len_max: usize) -> Vec<Arc<SlowCall>> {
        let mut calls: Vec<Arc<SlowCall>> = Vec::new();
        for ring in &self.rings {
            calls.extend(lock(ring).iter().take(count.min(len_max)).cloned());
        }
        calls.sort_by_key(|call| std::cmp::Reverse(call.id));
        calls.truncate(count.min(len_max));
        calls
    }

    /// How many calls [`latest`](Self::latest) could return.
    pub fn len(&self, len_max: usize) -> usize {
        self.rings.iter().map(|ring| lock(ring).len()).sum::<usize>().min(len_max)
    }

    /// Forgets all calls. Ids go on.
    pub fn reset(&self) {
        for ring in &self.rings {
            let old = std::mem::take(&mut *lock(ring));
            drop(old);
        }
    }
}

/// The words of a call as the log shows them: not too many, not too long, no secrets.
fn trimmed(args: &Args<'_>) -> Vec<Box<[u8]>> {
    let kept = args.len().min(WORD_COUNT_MAX);
    (0..kept)
        .map(|i| {
            if args.len() > kept && i == kept - 1 {
                let more = args.len() - kept + 1;
                return format!("... ({more} more arguments)").into_bytes().into();
            }
            let word = if is_secret(args, i) { REDACTED } else { args.at(i) };
            if word.len() <= WORD_BYTES_MAX {
                return word.into();
            }
            let more = word.len() - WORD_BYTES_MAX;
            let mut short = word[..WORD_BYTES_MAX].to_vec();
            short.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
            short.into()
        })
        .collect()
}

/// Whether word `i` is a password, or a user that goes with one.
fn is_secret(args: &Args<'_>, i: usize) -> bool {
    let word_is = |i: usize, token: &str| args.get(i).is_some_and(|word| is_token(word, token));
    match args.at(0) {
        name if is_token(name, "auth") => i > 0,
        name if is_token(name, "hello") => {
            i > 2 && (word_is(i - 1, "auth") || word_is(i - 2, "auth"))
        }
        // Every other word from the third on is a value.
        name if is_token(name, "config") && word_is(1, "set") => {
            i > 2 && i % 2 == 1 && is_secret_option(args.at(i - 1))
        }
        _ => false,
    }
}

fn is_secret_option(name: &[u8]) -> bool {
    spec::find(name).is_some_and(|index| matches!(spec::SPECS[index].kind, Kind::Secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;

    fn slow() -> Slow<'static> {
        Slow { at: Ms(1), us: 10, addr: "1.2.3.4:5", name: b"" }
    }

    fn words(call: &[&[u8]]) -> Vec<String> {
        let trimmed = trimmed(&OwnedArgs::of(call).args());
        trimmed.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    #[test]
    fn words_beyond_the_limits_are_counted_not_kept() {
        let long = [b'x'; 130];
        let mut call: Vec<&[u8]> = vec![b"MSET", &long];
        assert_eq!(words(&call)[1], format!("{}... (2 more bytes)", "x".repeat(128)));
        call.resize(32, b"y");
        assert_eq!(words(&call)[31], "y");
        call.push(b"z");
        assert_eq!(words(&call)[31], "... (2 more arguments)");
        assert_eq!(words(&call).len(), 32);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(words(&[b"auth", b"joe", b"pw"]), ["auth", "(redacted)", "(redacted)"]);
        let hello = words(&[b"HELLO", b"3", b"AUTH", b"joe", b"pw", b"SETNAME", b"me"]);
        assert_eq!(hello[2..], ["AUTH", "(redacted)", "(redacted)", "SETNAME", "me"]);
        let config = words(&[b"config", b"set", b"hz", b"10", b"requirepass", b"pw"]);
        assert_eq!(config[2..], ["hz", "10", "requirepass", "(redacted)"]);
    }

    #[test]
    fn log_over_cores_is_merged_newest_first() {
        let log = SlowLog::new(2);
        let call = OwnedArgs::of(&[b"PING"]);
        for core in [0, 1, 0, 1, 1] {
            log.push(CoreId(core), slow(), &call.args(), 3);
        }
        let ids = |calls: Vec<Arc<SlowCall>>| calls.iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(ids(log.latest(10, 3)), [4, 3, 2]);
        assert_eq!(ids(log.latest(2, 3)), [4, 3]);
        assert_eq!(log.len(3), 3);
        assert_eq!(log.len(128), 5);
        log.reset();
        assert_eq!(log.len(128), 0);
        log.push(CoreId(0), slow(), &call.args(), 3);
        assert_eq!(ids(log.latest(10, 3)), [5]);
    }

    #[test]
    fn log_of_length_zero_keeps_nothing() {
        let log = SlowLog::new(1);
        log.push(CoreId(0), slow(), &OwnedArgs::of(&[b"PING"]).args(), 0);
        assert_eq!(log.len(128), 0);
    }
}
