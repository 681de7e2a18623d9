//! Moves of keys by the original's commands: the core of the session that asked carries them out.
//!
//! A move finds its keys, claims them, reads each under its door, sends it, and deletes what arrived.
//! A key that was changed meanwhile (whoever changed it: its watch tells) is sent again before it is
//! deleted. A move that breaks deletes at the target what it had sent, so that no old copy of a key
//! can be read there. What is sent and awaited is decided in `migrate::dialect`; here are doors, links,
//! sessions and time.

mod end;
mod keys;
mod line;
mod send;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;

use crate::commands::ctx::{Ctx, Shards};
use crate::commands::dispatch;
use crate::commands::table::table;
use crate::migrate::dialect::batch::Batch;
use crate::migrate::dialect::call::{DialectCall, Form, MoveCall, Outcome, What};
use crate::migrate::dialect::registry::{Client, Shown};
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::runtime::outgoing::LinkId;
use crate::runtime::ring::Token;
use crate::runtime::turn::Core;
use crate::shard::batch::Target;
use crate::store::table::Position;
use crate::units::{DbIndex, Ms, SlotId};

/// Time that all moves may take in a turn.
const BUDGET_NS: u64 = 100_000;
/// Entries of a slot that are looked at in one go.
const ENTRIES_PER_STEP: usize = 500;
/// Keys that are deleted in one go: those of a tag at once if they are no more.
const DELETES_PER_STEP: usize = 1_000;
/// Bytes that a target may owe answers for: enough to keep it busy, and no more than it has to keep
/// while it works on the first of them.
const UNANSWERED_BYTES_MAX: usize = 64 * 1024;
/// A key that changes this often while it is on its way stays here.
const ROUNDS_MAX: usize = 64;
/// When something that cannot be waited for is looked at again.
const POLL_MS: i64 = 2;
/// How long an unused connection is kept.
const SYNC_IDLE_MS: i64 = 15_000;
const ASYNC_IDLE_MS: i64 = 60_000;

type Key = Box<[u8]>;

/// Who waits for a move.
#[derive(Clone, Copy, Debug)]
struct Caller {
    token: Token,
    target: Target,
    protocol: Protocol,
}

/// A connection to a target.
#[derive(Debug)]
struct Line {
    number: u64,
    link: LinkId,
    form: Form,
    target: String,
    /// The database that is selected there.
    db: DbIndex,
    /// The move that uses it.
    user: Option<u64>,
    idle_since: Ms,
}

/// How far a move is.
#[derive(Debug)]
enum Phase {
    /// Keys of a slot are chosen.
    Pick(Position),
    /// The keys that are there are wanted for this move alone.
    Claim,
    /// The other keys of the tags are looked for: the slots that are left.
    Siblings(Vec<SlotId>, Position),
    /// The target's name is looked up.
    Resolve(Receiver<Option<SocketAddr>>),
    /// Keys are read and sent.
    Send,
    /// What has arrived is deleted here.
    Delete,
}

/// What a move does next.
enum Step {
    /// More, now.
    Busy,
    /// Nothing before something comes in on its connection.
    Idle,
    /// The same at this time.
    Until(Ms),
    /// It has ended.
    Done(Outcome),
}

/// A move.
#[derive(Debug)]
struct Job {
    id: u64,
    caller: Option<Caller>,
    call: MoveCall,
    db: DbIndex,
    target: String,
    phase: Phase,
    keys: Vec<Key>,
    tags: Vec<Key>,
    is_claimed: bool,
    batch: Batch,
    /// Raised when a key that was read has changed since.
    watches: HashMap<Key, Arc<AtomicBool>>,
    /// Keys that were there when they were read.
    had_value: HashSet<Key>,
    /// Keys that were acknowledged, and wait to be deleted here.
    arrived: Vec<Key>,
    /// Keys of which the target may have something.
    touched: HashSet<Key>,
    estimated: usize,
    moved: usize,
    size: usize,
    rounds: usize,
    line: Option<u64>,
    begun_at: Ms,
    /// It only deletes at the target what a broken move has left there.
    is_cleaning: bool,
    /// It has something to do now.
    is_busy: bool,
    wake_at: Option<Ms>,
}

/// Moves of a core.
#[derive(Debug, Default)]
pub struct Dialect {
    jobs: VecDeque<Job>,
    lines: Vec<Line>,
    fences: HashMap<u64, Caller>,
    next_number: u64,
    cancels_seen: u32,
}

impl Dialect {
    /// Whether something can be done without waiting.
    pub fn has_work(&self) -> bool {
        self.jobs.iter().any(|job| job.is_busy)
    }

    /// When something is due.
    pub fn next_at(&self) -> Option<Ms> {
        let idle = self.lines.iter().filter(|line| line.user.is_none()).map(Line::idle_until);
        self.jobs.iter().filter_map(|job| job.wake_at).chain(idle).min()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn line_mut(&mut self, number: u64) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.number == number)
    }
}

impl Line {
    fn idle_until(&self) -> Ms {
        let span = if self.form == Form::Sync { SYNC_IDLE_MS } else { ASYNC_IDLE_MS };
        Ms(self.idle_since.0 + span)
    }
}

impl Job {
    fn new(id: u64, caller: Option<Caller>, call: MoveCall, db: DbIndex, now: Ms) -> Self {
        let (keys, phase) = match &call.what {
            What::Keys(keys) => (keys.clone(), Phase::Claim),
            What::Slot(..) => (Vec::new(), Phase::Pick(Position(0))),
        };
        let batch = Batch::new(call.form, call.params, []);
        let target = call.target();
        Self {
            id,
            caller,
            call,
            db,
            target,
            phase,
            keys,
            tags: Vec::new(),
            is_claimed: false,
            batch,
            watches: HashMap::new(),
            had_value: HashSet::new(),
            arrived: Vec::new(),
            touched: HashSet::new(),
            estimated: 0,
            moved: 0,
            size: 0,
            rounds: 0,
            line: None,
            begun_at: now,
            is_cleaning: false,
            is_busy: true,
            wake_at: None,
        }
    }

    fn outcome(&self) -> Outcome {
        match self.call.what {
            What::Keys(_) => Outcome::Moved(self.moved),
            What::Slot(..) => Outcome::MovedOf(self.moved, self.size),
        }
    }

    fn is_shown(&self) -> bool {
        self.call.form == Form::Async && !self.is_cleaning
    }
}

impl Core {
    /// Carries out what a client has asked for. Its session waits.
    pub(super) fn begin_dialect(&mut self, token: Token, target: Target, call: DialectCall) {
        let Some(session) = self.session_mut(token) else { return };
        let (db, protocol) = (session.client.db, session.client.protocol);
        let caller = Caller { token, target, protocol };
        match call {
            DialectCall::Move(call) => self.begin_move(caller, *call, db),
            DialectCall::Fence => self.begin_fence(caller, db),
            DialectCall::Cancel => {
                let core = self.node.dialect.cancel(db);
                if let Some(core) = core.filter(|&core| core != self.id) {
                    self.ring_later(core);
                }
                self.reply_caller(caller, |reply| reply.int_bool(core.is_some()));
            }
        }
    }

    fn begin_move(&mut self, caller: Caller, call: MoveCall, db: DbIndex) {
        let id = self.dialect.number();
        if call.form == Form::Async {
            let mut moves = self.node.dialect.lock(db);
            if moves.shown.is_some() {
                drop(moves);
                return self.reply_caller(caller, |r| r.error(&CommandError::DB_IS_MIGRATED));
            }
            moves.shown = Some(Shown { params: Some(call.params), ..Shown::default() });
            moves.client = Some(Client {
                host: call.host.clone(),
                port: call.port,
                timeout_ms: call.params.timeout_ms,
                last_use: self.now,
                due_count: 0,
                core: self.id,
                job: id,
            });
        }
        self.dialect.jobs.push_back(Job::new(id, Some(caller), call, db, self.now));
    }

    fn begin_fence(&mut self, caller: Caller, db: DbIndex) {
        let wait = self.dialect.number();
        let mut moves = self.node.dialect.lock(db);
        if moves.shown.is_none() {
            drop(moves);
            return self.reply_caller(caller, |reply| reply.ok());
        }
        moves.waiters.push((self.id, wait));
        self.dialect.fences.insert(wait, caller);
    }

    fn reply_caller(&mut self, caller: Caller, write: impl FnOnce(&mut Reply<'_>)) {
        let mut out = OutBuf::default();
        write(&mut Reply::new(&mut out, caller.protocol));
        self.complete(caller.token, caller.target, out);
    }

    /// Goes on with the moves of this core, within the turn's budget.
    pub(super) fn step_dialect(&mut self) {
        for (wait, outcome) in self.node.dialect.take_told(self.id) {
            if let Some(caller) = self.dialect.fences.remove(&wait) {
                self.reply_caller(caller, |reply| outcome.reply(reply));
            }
        }
        self.note_cancels();
        self.close_idle_lines();
        if self.dialect.jobs.is_empty() || !self.moved.is_empty() {
            // Earlier requests have to run again first.
            return;
        }
        let begun = self.clock.ticks();
        for _ in 0..self.dialect.jobs.len() {
            let Some(mut job) = self.dialect.jobs.pop_front() else { return };
            if job.wake_at.is_some_and(|at| at <= self.now) {
                (job.is_busy, job.wake_at) = (true, None);
            }
            if !job.is_busy {
                self.dialect.jobs.push_back(job);
                continue;
            }
            let used_ns = self.clock.ns_between(begun, self.clock.ticks());
            self.step_job(job, BUDGET_NS.saturating_sub(used_ns));
            if self.clock.ns_between(begun, self.clock.ticks()) > BUDGET_NS {
                return;
            }
        }
    }

    /// Steps a move until it has to wait, it has ended or the time is up.
    fn step_job(&mut self, mut job: Job, budget_ns: u64) {
        let begun = self.clock.ticks();
        loop {
            match self.step_phase(&mut job) {
                Step::Busy => {}
                Step::Idle => {
                    job.is_busy = false;
                    break;
                }
                Step::Until(at) => {
                    (job.is_busy, job.wake_at) = (false, Some(at));
                    break;
                }
                Step::Done(Outcome::Failed(error)) => return self.fail(job, error, true),
                Step::Done(outcome) => return self.finish(job, outcome),
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > budget_ns {
                break;
            }
        }
        self.show_job(&job);
        self.dialect.jobs.push_back(job);
    }

    fn step_phase(&mut self, job: &mut Job) -> Step {
        match std::mem::replace(&mut job.phase, Phase::Send) {
            Phase::Pick(from) => self.pick(job, from),
            Phase::Claim => self.claim(job),
            Phase::Siblings(slots, from) => self.find_siblings(job, slots, from),
            Phase::Resolve(answer) => self.resolved(job, answer),
            Phase::Send => self.send(job),
            Phase::Delete => self.delete_arrived(job),
        }
    }

    /// Runs `visit` behind the door of a slot's shard; nothing if it is not to be had in this turn.
    fn at_slot<R>(
        &mut self,
        slot: SlotId,
        db: DbIndex,
        visit: impl FnOnce(&mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let shard = self.node.owners.of(slot);
        let mut held = match self.held[shard.index()].take() {
            Some(held) => held,
            // Its own it takes at the beginning of a turn, and runs what waits for it first.
            None if shard == self.own() => return None,
            None => self.peers.shards[shard.index()].try_take(self.id)?,
        };
        // A request of this core that was mailed there comes first; if it is still under way, later.
        let is_mine = shard == self.own() || self.catch_up(&mut held);
        let result = (is_mine && self.node.owners.of(slot) == shard).then(|| {
            let command = table().get(b"slotsmgrtone").expect("it is in the table");
            let (node, id, now) = (self.node, self.id, self.now);
            let shards = Shards::One(&mut held);
            let mut ctx = dispatch::ctx(node, id, shards, &mut self.logical, now, db, command);
            ctx.begin_unit();
            let result = visit(&mut ctx);
            ctx.clock.end_unit();
            result
        });
        if shard == self.own() || self.waiting.is_some() {
            self.held[shard.index()] = Some(held);
        } else {
            self.release(held);
        }
        result
    }
}
