//! A turn's requests for a shard, and running them there: prefetch first, then one by one.
//!
//! Requests run in place, on the bytes that the session received, when the core holds the shard; a
//! [`MailBatch`] carries copies of them to a core that is awake. Knows no session.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::commands::args::{ArgRange, Args, Aside};
use crate::commands::blocking::{Woken, serve_ready};
use crate::commands::ctx::{Ctx, KeyHint, Later, Shards};
use crate::commands::dispatch::{self, ImportCall};
use crate::commands::long::LongOp;
use crate::commands::table::Command;
use crate::journal::LogicalClock;
use crate::node::Node;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::runtime::clock::Clock;
use crate::shard::state::Shard;
use crate::units::{CoreId, DbIndex, Ms};

/// One request, without its words.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What to run.
    pub command: &'static Command,
    /// First key's place, if there is one.
    pub hint: Option<KeyHint>,
    /// Version of the slot owners that it was planned by.
    pub version: u32,
    /// The client's database.
    pub db: DbIndex,
    /// Protocol of the reply.
    pub protocol: Protocol,
    /// It fills a slot that is not served yet: the time at which its session says it happened.
    pub import_at: Option<Ms>,
    /// First of its words among the batch's ranges, and how many.
    pub words: (u32, u32),
    /// Where its bytes are: the batch's own number of a piece of input.
    pub chunk: u32,
}

/// What running needs besides the shard.
#[derive(Debug)]
pub struct Runner<'a> {
    /// The process.
    pub node: &'static Node,
    /// The core that runs.
    pub core: CoreId,
    /// Its clock.
    pub clock: &'a Clock,
    /// Its logical time.
    pub logical: &'a mut LogicalClock,
    /// Time of the batch.
    pub now: Ms,
    /// Work that the last request has left behind.
    pub left: Option<Box<dyn LongOp>>,
    /// Blocked calls that its requests have served.
    pub woken: &'a mut Vec<Woken>,
}

/// Requests looked up ahead of the one that runs.
const PREFETCH_COUNT: usize = 16;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran {
    /// Its reply has been written.
    Replied,
    /// Slots have moved since it was planned: it has to run again, where its keys are now. Nothing was
    /// written.
    Moved,
    /// It has left work on a snapshot behind, for the session's core. Nothing was written.
    Left,
}

impl Runner<'_> {
    /// Asks for the table lines of the next few requests, so that they arrive while others run.
    #[inline]
    pub fn prefetch(shard: &Shard, requests: &[Request]) {
        let next = &requests[..requests.len().min(PREFETCH_COUNT)];
        for request in next {
            if let (Some(hint), Some(db)) = (request.hint, shard.keys.db(request.db)) {
                db.table(hint.slot).prefetch_cell(hint.hash);
            }
        }
        for request in next {
            if let (Some(hint), Some(db)) = (request.hint, shard.keys.db(request.db)) {
                db.table(hint.slot).prefetch_entry(hint.hash);
            }
        }
    }

    /// Runs one request on a shard. `ticks` is the time before it, and after it when this returns.
    #[inline]
    pub fn run(
        &mut self,
        shard: &mut Shard,
        request: &Request,
        args: &Args<'_>,
        out: &mut OutBuf,
        ticks: &mut u64,
    ) -> Ran {
        let command = request.command;
        // All that was planned before a move, whether its own keys have moved or not: one that ran here
        // would overtake an earlier one of its session, on the same key, of which another key is gone.
        if request.version != self.node.owners.version() {
            return Ran::Moved;
        }
        if let Some(at) = request.import_at {
            self.run_import(shard, request, at, args, out);
            self.count(command, ticks);
            return Ran::Replied;
        }
        if let Some(hint) = request.hint {
            shard.slot_load[hint.slot.index()] = shard.slot_load[hint.slot.index()].wrapping_add(1);
        }
        let mut ctx = Ctx {
            node: self.node,
            stats: self.node.core(self.core),
            now: self.now,
            db: request.db,
            shards: Shards::One(shard),
            spec: command.spec,
            protocol: request.protocol,
            clock: self.logical,
            hint: request.hint,
            dirty: 0,
            effect_count: 0,
            emptied: false,
            later: Later::Nothing,
            may_defer: false,
            words: None,
            may_leave_reads: true,
            serving: None,
        };
        let mut reply = Reply::new(out, request.protocol);
        // A command that touches several keys of one shard is one unit.
        if ctx.shards.is_journalled() {
            ctx.clock.begin_unit();
            dispatch::run_data(command, &mut ctx, args, &mut reply);
            ctx.clock.end_unit();
        } else {
            dispatch::run_data(command, &mut ctx, args, &mut reply);
        }
        if let Later::Long(op) = std::mem::take(&mut ctx.later) {
            self.left = Some(op);
            return Ran::Left;
        }
        if shard.waiters.has_ready() {
            self.serve_waiters(shard, command);
        }
        self.count(command, ticks);
        Ran::Replied
    }

    /// Runs a request on keys that are out of sight.
    #[inline(never)]
    fn run_import(
        &mut self,
        shard: &mut Shard,
        request: &Request,
        at: Ms,
        args: &Args<'_>,
        out: &mut OutBuf,
    ) {
        let Request { command, hint, db, .. } = *request;
        let call = ImportCall { command, args, hint, db, at };
        let mut reply = Reply::new(out, request.protocol);
        dispatch::run_import(
            self.node,
            (self.core, self.now),
            shard,
            self.logical,
            call,
            &mut reply,
        );
    }

    /// Serves the calls that waited for what a request has made.
    #[cold]
    fn serve_waiters(&mut self, shard: &mut Shard, command: &'static Command) {
        let (node, core, now) = (self.node, self.core, self.now);
        let shards = Shards::One(shard);
        let mut ctx = dispatch::ctx(node, core, shards, self.logical, now, DbIndex(0), command);
        serve_ready(&mut ctx, self.woken);
    }

    /// Counts a call that ran from `ticks` until now.
    #[inline]
    pub fn count(&self, command: &Command, ticks: &mut u64) -> u64 {
        let stats = self.node.core(self.core);
        let end = self.clock.ticks();
        let ns = self.clock.ns_between(*ticks, end);
        *ticks = end;
        stats.note_call(command, ns, self.node.config.latency_tracking());
        ns
    }
}

/// Copies of requests on their way to another core, and their replies on the way back.
#[derive(Debug, Default)]
pub struct MailBatch {
    /// The requests; `chunk` means nothing here, and hints point into `bytes`.
    pub requests: Vec<Request>,
    /// Their words.
    pub ranges: Vec<ArgRange>,
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// Their words that are apart.
    pub apart: Aside,
    /// For the sender: which session and ticket each belongs to.
    pub origins: Vec<Origin>,
    /// Replies one after another.
    pub replies: OutBuf,
    /// Where each reply ends in `replies`, and how the request ended.
    pub ends: Vec<((usize, usize), Ran)>,
    /// What those that have left work behind have left, in order.
    pub left: VecDeque<Box<dyn LongOp>>,
    /// Who sent it, and the logical time of what had been logged there.
    pub from: CoreId,
    /// See `from`.
    pub sent: u64,
    /// Logical time of the last that its requests have logged; 0 if they have logged nothing.
    pub logged: u64,
}

/// Where in a session's output a reply belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// At its end: all replies that the session waits for come from one shard, in order.
    Direct,
    /// In the place that this ticket keeps.
    Ticket(u32),
    /// Nowhere: the client wants no reply.
    Silent,
}

/// Where a reply goes.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Index of the session on its core.
    pub session: u32,
    /// Its generation.
    pub generation: u32,
    /// Where in the session the reply belongs.
    pub target: Target,
    /// Nanoseconds the call took, once it ran.
    pub ns: u64,
}

impl MailBatch {
    /// Adds a copy of a request.
    pub fn push(&mut self, request: &Request, args: &Args<'_>, origin: Origin) {
        let first = self.ranges.len() as u32;
        for index in 0..args.len() {
            if let Some(word) = args.shared(index) {
                self.ranges.push(ArgRange::apart(self.apart.words.len()));
                self.apart.words.push(Arc::clone(word));
                continue;
            }
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(args.at(index));
            self.ranges.push(ArgRange { start, end: self.bytes.len() as u32 });
        }
        let words = (first, args.len() as u32);
        self.requests.push(Request { words, chunk: 0, ..*request });
        self.origins.push(origin);
    }

    /// Words of request `index`.
    pub fn args(&self, index: usize) -> Args<'_> {
        let (first, count) = self.requests[index].words;
        let first = first as usize;
        let ranges = &self.ranges[first..first + count as usize];
        Args::new(&self.bytes, ranges).with_aside(&self.apart)
    }

    /// Runs all requests on a shard and keeps the replies.
    pub fn run(&mut self, runner: &mut Runner<'_>, shard: &mut Shard) {
        let mut ticks = runner.clock.ticks();
        let mut replies = std::mem::take(&mut self.replies);
        for index in 0..self.requests.len() {
            if index % PREFETCH_COUNT == 0 {
                Runner::prefetch(shard, &self.requests[index..]);
            }
            let args = self.args(index);
            let mut request = self.requests[index];
            // The bytes were copied: the hint's address moved with them.
            if let Some(hint) = &mut request.hint {
                hint.address = args.at(hint.word as usize).as_ptr().addr();
            }
            let before = ticks;
            let ran = runner.run(shard, &request, &args, &mut replies, &mut ticks);
            self.left.extend(runner.left.take());
            self.origins[index].ns = runner.clock.ns_between(before, ticks);
            self.ends.push((replies.mark(), ran));
        }
        self.replies = replies;
    }

    /// Forgets everything but keeps modest memory.
    pub fn reset(&mut self) {
        self.requests.clear();
        self.ranges.clear();
        self.bytes.clear();
        self.bytes.shrink_to(256 * 1024);
        self.apart.words.clear();
        self.origins.clear();
        self.replies.clear(256 * 1024);
        self.ends.clear();
        self.left.clear();
        self.logged = 0;
    }
}
