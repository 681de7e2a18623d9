//! The append log of one core: carries out what its writer decides, lets replies wait for the disk,
//! and tells all cores when the disk takes nothing. See `persist`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::gates::Gate;
use crate::journal::frame::Tie;
use crate::persist::files::LogFile;
use crate::persist::writer::{Health, Op, Policy, Writer};
use crate::runtime::replay::Replay;
use crate::runtime::ring::Token;
use crate::runtime::turn::Core;
use crate::runtime::walk::LogWalk;
use crate::units::{CoreId, Ms};

/// A session that waits for the disk, ordered by the time that it waits for.
type Held = Reverse<(u64, u32, u32)>;

/// The log of a core.
#[derive(Debug)]
pub struct AppendLog {
    writer: Writer,
    /// Files with operations under way: they stay open.
    files: VecDeque<Arc<LogFile>>,
    /// What follows from other cores, by time: not durable before they are.
    waits: VecDeque<(u64, Tie)>,
    /// Output that tells of what happened up to this time may leave; all may if it is the largest.
    pub(super) watermark: u64,
    held: BinaryHeap<Held>,
    pub(super) walk: LogWalk,
    pub(super) replay: Replay,
    /// There is more to do at once.
    is_ready: bool,
}

impl AppendLog {
    /// A log that is off.
    pub(super) fn new(replay: Replay) -> Self {
        Self {
            writer: Writer::default(),
            files: VecDeque::new(),
            waits: VecDeque::new(),
            watermark: u64::MAX,
            held: BinaryHeap::new(),
            walk: LogWalk::default(),
            replay,
            is_ready: false,
        }
    }

    /// Lets a session wait until all up to this time is on disk.
    pub(super) fn hold(&mut self, until: u64, token: Token) {
        self.held.push(Reverse((until, token.index, token.generation)));
    }

    /// Whether all that was recorded up to a time is on disk, in a set. Sees to it that it will be.
    pub(super) fn is_on_disk(&mut self, clock: u64, set: u32) -> bool {
        self.writer.want_flush();
        self.writer.set() == set && self.writer.durable() >= clock
    }

    /// Whether the next turn has something to do without any event.
    pub(super) fn has_work(&self) -> bool {
        self.is_ready || self.walk.is_ready || self.replay.has_work()
    }

    /// When there is something to do although nothing happens.
    pub(super) fn next_at(&self, now: Ms) -> Option<Ms> {
        let replay = self.replay.is_under_way().then(|| Ms(now.0 + 1));
        let walk = self.walk.is_under_way().then(|| Ms(now.0 + 2));
        [self.writer.next_at(), replay, walk].into_iter().flatten().min()
    }
}

impl Core {
    /// What a session is about to be told may have been logged just now.
    pub(super) fn log_concerns(&mut self, index: u32) {
        let tape = &self.logical.tape;
        if tape.set() != 0
            && let Some(session) = self.sessions.get_mut(index as usize)
        {
            session.unsynced = tape.logged() + 1;
        }
    }

    /// Writes what this turn has recorded, and lets go of what waited for the disk.
    #[inline]
    pub(super) fn step_log(&mut self) {
        if self.node.log.target() == 0 && self.logical.tape.set() == 0 && self.log.writer.is_empty()
        {
            return;
        }
        self.step_log_that_is_on();
    }

    fn step_log_that_is_on(&mut self) {
        self.log.is_ready = false;
        self.follow_target();
        self.step_log_walk();
        let policy = self.node.config.appendfsync();
        let is_rewriting = self.node.log.walk_set() != 0;
        let may_flush = !(is_rewriting && self.node.config.no_appendfsync_on_rewrite());
        self.logical.tape.take_waits(&mut self.log.waits);
        loop {
            let (log, tape) = (&mut self.log, &mut self.logical.tape);
            let (node, id) = (self.node, self.id);
            let open = |set| node.log.file(set, id);
            let Some(op) = log.writer.step(self.now, policy, may_flush, tape, open) else { break };
            self.begin_log_op(op);
        }
        self.settle_log(policy);
    }

    fn begin_log_op(&mut self, op: Op) {
        let file = match op {
            Op::Write { id, file, at, bytes, flush } => {
                self.ring.write_file(id, file.file.as_raw_fd(), at, bytes, flush);
                file
            }
            Op::Flush { id, file } => {
                self.ring.flush_file(id, file.file.as_raw_fd());
                file
            }
        };
        if !self.log.files.iter().any(|open| Arc::ptr_eq(open, &file)) {
            // The one before is idle: its writer has left it for this one.
            self.log.files.truncate(1);
            self.log.files.push_front(file);
        }
    }

    /// Has the own shard logged in the set that is wanted, and the tape as well.
    fn follow_target(&mut self) {
        let target = self.node.log.target();
        let core = &self.node.log.cores[self.id.index()];
        if let Some(shard) = &mut self.held[self.id.index()]
            && core.shard_set.load(Ordering::Relaxed) != target
        {
            shard.journal.set_log(target);
            core.shard_set.store(target, Ordering::Release);
        }
        let tape = &mut self.logical.tape;
        let is_off = || {
            let cores = self.node.log.cores.iter();
            cores.map(|core| core.shard_set.load(Ordering::Acquire)).all(|set| set == 0)
        };
        // As long as a shard is logged, this core may run something there.
        if target > tape.set() || target == 0 && tape.set() != 0 && is_off() {
            tape.switch(target);
        }
        core.tape_set.store(tape.set(), Ordering::Release);
        let file_set = self.log.writer.set();
        if core.file_set.swap(file_set, Ordering::AcqRel) != file_set {
            self.node.log.wake_keeper();
        }
    }

    /// Finds out what is on disk, tells others, and lets go of what waited for it.
    fn settle_log(&mut self, policy: Policy) {
        let node = self.node;
        while let Some((_, tie)) = self.log.waits.front()
            && node.log.cores[tie.core.index()].durable.load(Ordering::SeqCst) >= tie.clock
        {
            self.log.waits.pop_front();
        }
        let (writer, tape) = (&self.log.writer, &self.logical.tape);
        let raw = writer.durable();
        let first_wait = self.log.waits.front().map(|(at, _)| *at);
        let is_all = first_wait.is_none() && raw >= tape.logged();
        let durable = first_wait.map_or(raw, |at| at.min(raw));
        let must_wait = match policy {
            Policy::Always => true,
            Policy::EverySecond => writer.is_late() && writer.health() == Health::Good,
            Policy::Never => false,
        };
        self.log.watermark = if is_all || !must_wait { u64::MAX } else { durable };
        self.publish_log(durable);
        if must_wait && first_wait.is_some() {
            self.wait_for_others();
        }
        self.release_durable();
    }

    /// Has the others ring when they are durable.
    fn wait_for_others(&mut self) {
        let node = self.node;
        node.log.waiting.fetch_or(1 << self.id.0, Ordering::SeqCst);
        // One of them may have been just before that: then nobody rings.
        let is_met = self.log.waits.front().is_some_and(|(_, tie)| {
            node.log.cores[tie.core.index()].durable.load(Ordering::SeqCst) >= tie.clock
        });
        if is_met {
            self.log.is_ready = true;
        }
    }

    fn publish_log(&mut self, durable: u64) {
        let node = self.node;
        let core = &node.log.cores[self.id.index()];
        let writer = &self.log.writer;
        core.file_bytes.set(writer.len() as i64);
        core.waiting_bytes.set(self.logical.tape.waiting_bytes() as i64);
        core.flushes.set(writer.flush_count() as i64);
        core.late_flushes.set(writer.late_count());
        if core.durable.swap(durable, Ordering::SeqCst) != durable
            && node.log.waiting.load(Ordering::SeqCst) != 0
        {
            let mut waiting = node.log.waiting.swap(0, Ordering::SeqCst);
            while waiting != 0 {
                self.ring_later(CoreId(waiting.trailing_zeros() as u16));
                waiting &= waiting - 1;
            }
        }
        self.publish_health();
    }

    /// Has writes refused while the log takes nothing, on any core.
    fn publish_health(&mut self) {
        let node = self.node;
        let errno = match self.log.writer.health() {
            Health::Good => 0,
            Health::Failing(errno) => errno,
            Health::Dead(errno) => -errno,
        };
        let core = &node.log.cores[self.id.index()];
        let before = core.errno.swap(errno, Ordering::AcqRel);
        if before == errno {
            return;
        }
        let text = std::io::Error::from_raw_os_error(errno.abs());
        match errno {
            0 => tracing::info!("the append log can be written again"),
            1.. => {
                tracing::error!(error = %text, "the append log cannot be written: writes are refused")
            }
            _ => tracing::error!(
                error = %text,
                "the append log cannot be flushed: what it held may be lost, and no write is \
                 accepted until the server has been started anew"
            ),
        }
        node.gates.set(Gate::LogFailed, node.log.errno() != 0);
        if errno < 0 {
            self.close_held();
        }
    }

    /// Closes the sessions whose replies could only be lies.
    fn close_held(&mut self) {
        while let Some(Reverse((_, index, generation))) = self.log.held.pop() {
            self.close(Token { index, generation }, Some("the append log cannot be flushed"));
        }
    }

    /// Sends what no longer has to wait.
    fn release_durable(&mut self) {
        while let Some(&Reverse((until, index, generation))) = self.log.held.peek()
            && until <= self.log.watermark
        {
            self.log.held.pop();
            let session = self.sessions.get_mut(index as usize);
            if let Some(session) = session.filter(|session| session.generation == generation) {
                Self::flush_later(&mut self.flush, index, session);
            }
        }
    }

    /// A write has ended.
    pub(super) fn log_written(&mut self, id: u64, result: i32, bytes: Vec<u8>) {
        let (tape, now) = (&mut self.logical.tape, self.now);
        self.log.writer.wrote(id, result, bytes, tape, now);
    }

    /// A flush has ended.
    pub(super) fn log_flushed(&mut self, id: u64, result: i32) {
        self.log.writer.flushed(id, result, &mut self.logical.tape);
    }

    /// Whether all that was logged is on disk, or cannot be: the process may end.
    pub(super) fn is_log_closed(&mut self) -> bool {
        let log = &mut self.log;
        if log.writer.is_empty() || log.writer.health() != Health::Good {
            return true;
        }
        log.writer.want_flush();
        self.step_log();
        let is_closed = self.log.writer.is_idle() && self.logical.tape.is_empty();
        if is_closed {
            self.log.writer.trim();
        }
        is_closed
    }
}
