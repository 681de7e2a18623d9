//! What clients ask for, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A client's request: reads a key, or adds one to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    /// Its number in the world.
    pub(crate) id: u64,
    /// Its number in the proxy, which keeps the order.
    pub(crate) seq: u64,
    pub(crate) proxy: usize,
    /// Of one life of its proxy.
    pub(crate) session: u64,
    pub(crate) slot: u16,
    pub(crate) key: u32,
    pub(crate) is_read: bool,
    /// When it has taken too long, by its proxy's clock.
    pub(crate) deadline_ms: i64,
}

/// A request as it is put on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) op: Op,
    /// By the original's wrapper: it runs only if the key is there.
    pub(crate) is_wrapped: bool,
    /// The slot's refusals on this link are over.
    pub(crate) is_retry: bool,
    /// A refusal of it holds for what comes behind it on the link.
    pub(crate) is_sticky: bool,
}

/// What became of a call at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It ran; the value that it found.
    Ran(u64),
    /// It did not run: ask there.
    Moved(Arc<str>),
    /// It did not run: ask later.
    Later,
    /// It waits, and what came behind it on its link.
    Held,
    /// The wrapper: the key is not here.
    Missing,
}

/// What really happened, which only the world knows.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The value of each key.
    truth: BTreeMap<u32, u64>,
    /// Keys whose newest value was in the memory of a server that ended, and nowhere else: what they may
    /// have now besides nothing. (A source that has handed its slot over still has what it was then.)
    gone: BTreeMap<u32, Vec<u64>>,
    /// What each request that ran has found.
    ran: BTreeMap<u64, u64>,
    /// Requests whose clients have been told that nobody knows what became of them.
    unknown: BTreeSet<u64>,
    /// Requests whose clients have been told that they did not run.
    failed: BTreeSet<u64>,
    /// The last request of a session on a slot that ran.
    last: BTreeMap<(usize, u64, u16), u64>,
}

impl History {
    /// A request runs, and finds a value.
    pub(crate) fn run(&mut self, op: &Op, server: &str, found: u64) -> Result<(), String> {
        let truth = self.truth.entry(op.key).or_insert(0);
        if self.gone.get(&op.key).is_some_and(|older| found == 0 || older.contains(&found)) {
            *truth = found;
        }
        if *truth != found {
            return Err(format!(
                "slot {} key {}: {server} had {found} instead of {truth}",
                op.slot, op.key
            ));
        }
        self.gone.remove(&op.key);
        *truth += u64::from(!op.is_read);
        if self.ran.insert(op.id, found).is_some() {
            return Err(format!("{op:?} ran twice, the second time at {server}"));
        }
        if self.failed.contains(&op.id) {
            return Err(format!("{op:?} ran at {server} after its client heard that it failed"));
        }
        // One that was given up may arrive at any time: its connection is not that of the others.
        if self.unknown.contains(&op.id) {
            return Ok(());
        }
        let last = self.last.entry((op.proxy, op.session, op.slot)).or_insert(0);
        if *last > op.seq {
            return Err(format!("{op:?} ran at {server} after number {last} of its session"));
        }
        *last = op.seq;
        Ok(())
    }

    /// A client is told what a request has found.
    pub(crate) fn answered(&mut self, op: &Op, found: u64) -> Result<(), String> {
        match self.ran.get(&op.id) {
            Some(value) if *value == found => Ok(()),
            other => Err(format!("{op:?} was answered {found} but found {other:?}")),
        }
    }

    /// A client is told that nobody knows.
    pub(crate) fn unknown(&mut self, op: &Op) {
        self.unknown.insert(op.id);
    }

    /// A client is told that a request did not run.
    pub(crate) fn failed(&mut self, op: &Op) -> Result<(), String> {
        self.failed.insert(op.id);
        match self.ran.contains_key(&op.id) {
            true => Err(format!("{op:?} ran, and its client heard that it failed")),
            false => Ok(()),
        }
    }

    /// The only server that had the newest value of a key has ended; others may have these.
    pub(crate) fn lose(&mut self, key: u32, older: impl Iterator<Item = u64>) {
        self.gone.entry(key).or_default().extend(older);
    }

    /// Whether a key may be found to have this value.
    pub(crate) fn may_be(&self, key: u32, found: u64) -> bool {
        let is_older = |older: &Vec<u64>| found == 0 || older.contains(&found);
        found == self.truth(key) || self.gone.get(&key).is_some_and(is_older)
    }

    /// Keys that have been asked for, with their values.
    pub(crate) fn truths(&self) -> impl Iterator<Item = (u32, u64)> {
        self.truth.iter().map(|(key, value)| (*key, *value))
    }

    /// The value of a key.
    pub(crate) fn truth(&self, key: u32) -> u64 {
        self.truth.get(&key).copied().unwrap_or(0)
    }

    /// How many requests ran.
    pub(crate) fn ran_count(&self) -> usize {
        self.ran.len()
    }
}
