//! Calls that go on after their handler has returned: those that work in steps, and those that wait
//! for their keys. Their sessions wait for them here, on their home core.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::commands::blocking::{Woken, serve_ready};
use crate::commands::ctx::{Later, Shards};
use crate::commands::dispatch;
use crate::commands::table::table;
use crate::net::session::Blocked;
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply};
use crate::runtime::exclusive::{Exclusive, Work};
use crate::runtime::peers::{Letter, Registration};
use crate::runtime::ring::Token;
use crate::runtime::timer::TimerId;
use crate::runtime::turn::{Alarm, Core, Input};
use crate::shard::state::Shard;
use crate::shard::waiters::{BlockedCall, BlockedParts};
use crate::slots::hash::slot_of;
use crate::units::{CoreId, DbIndex, Ms, ShardId};

/// Time that the steps of long calls may take in a turn.
const LONG_BUDGET_NS: u64 = 100_000;
/// Time of a turn for what many blocked calls leave to do: registrations of those that have ended,
/// and keys that may hold something.
const WAITERS_BUDGET_NS: u64 = 100_000;

/// A session that is blocked.
#[derive(Debug)]
pub(super) struct Waiting {
    token: Token,
    /// The alarm that ends its wait.
    alarm: Option<TimerId>,
}

impl Core {
    /// Goes on with an exclusive call whose handler has returned without a reply. Its doors are held.
    pub(super) fn defer(&mut self, mut call: Exclusive, later: Later) {
        match later {
            Later::Nothing => {}
            Later::Long(op) => {
                call.work = Work::Steps(op);
                self.long.push_back(call);
            }
            Later::Block(timeout_ms) => self.block(call, timeout_ms),
        }
    }

    /// Steps long calls within the turn's budget; one that is done ends as an exclusive call.
    pub(super) fn step_long(&mut self) {
        let begun = self.clock.ticks();
        while let Some(mut call) = self.long.pop_front() {
            if self.session_mut(call.token).is_none_or(|session| session.closing) {
                continue;
            }
            let done = match &mut call.work {
                Work::Steps(op) => op.step(),
                Work::Start | Work::Retry(_) => true,
            };
            if done {
                self.exclusive.push_back(call);
            } else {
                self.long.push_back(call);
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > LONG_BUDGET_NS {
                return;
            }
        }
    }

    /// Registers a call with its keys, whose doors are held, and lets its session wait.
    fn block(&mut self, call: Exclusive, timeout_ms: i64) {
        let Exclusive { token, target, command, words, db, protocol, work, .. } = call;
        let now = self.now.0;
        let Some(session) = self.session_mut(token) else {
            return;
        };
        // A call that was woken for nothing waits on until the same time, in its old place.
        let (deadline, rank) = match (work, session.blocked.take()) {
            (Work::Retry(_), Some(before)) => (before.deadline, Some(before.call.rank)),
            _ => ((timeout_ms > 0).then(|| Ms(now.saturating_add(timeout_ms))), None),
        };
        session.client.is_blocked = true;
        let client = session.client.id;
        let (home, place) = (self.id, (token.index, token.generation));
        let words = Arc::unwrap_or_clone(words);
        let parts = BlockedParts { home, session: place, command, words, db, protocol };
        // With its doors held: so ids grow along each queue.
        let call = Arc::new(BlockedCall::new(self.node.new_call_id(), rank, parts));
        let args = call.words.args();
        for word in call.awaited(&args) {
            let key = args.at(word as usize);
            let owner = self.node.owners.of(slot_of(key));
            let shard = self.held[owner.index()].as_mut().expect("the doors of its keys are held");
            shard.waiters.add(key, &call);
        }
        // The time that it counts from is cut to milliseconds: no wait may end early for that.
        let ends = |at: Ms| Ms(at.0.saturating_add(1));
        let alarm = deadline.map(|at| self.alarms.insert(ends(at), Alarm::BlockEnds(token)));
        self.blocked.insert(client, Waiting { token, alarm });
        self.stats.blocked_clients.add(1);
        if let Some(session) = self.session_mut(token) {
            session.blocked = Some(Box::new(Blocked { call, target, deadline, retrying: false }));
            if session.input_ended {
                // Its client left before the call came this far: nobody else will say so.
                self.inputs.push_back(Input::Lost(token));
            }
        }
    }

    /// Ends the wait of a session's blocked call: its place in the output.
    fn take_blocked(&mut self, token: Token, id: u64) -> Option<Box<Blocked>> {
        let session = self.session_mut(token)?;
        let blocked = session.blocked.take_if(|blocked| blocked.call.id == id)?;
        session.client.is_blocked = false;
        let client = session.client.id;
        self.end_waiting(client);
        Some(blocked)
    }

    /// A client is blocked no more.
    fn end_waiting(&mut self, client: u64) {
        if let Some(waiting) = self.blocked.remove(&client) {
            self.stats.blocked_clients.add(-1);
            if let Some(alarm) = waiting.alarm {
                self.alarms.cancel(alarm);
            }
        }
    }

    /// A blocked call has waited long enough.
    pub(super) fn end_block(&mut self, token: Token) {
        let session = self.session_mut(token);
        let call = session.and_then(|session| session.blocked.as_ref()).map(|b| &b.call);
        if let Some(call) = call.filter(|call| call.claim()) {
            let id = call.id;
            self.give_up(token, id, None);
        }
    }

    /// Replies to a blocked call that was claimed without being served.
    fn give_up(&mut self, token: Token, id: u64, error: Option<&CommandError>) {
        let Some(blocked) = self.take_blocked(token, id) else {
            return;
        };
        self.leave_queues(&blocked.call);
        let mut out = OutBuf::default();
        let mut reply = Reply::new(&mut out, blocked.call.protocol);
        match error {
            Some(error) => {
                reply.error(error);
                self.stats.note_error(error);
            }
            None => reply.null_array(),
        }
        self.complete(token, blocked.target, out);
    }

    /// CLIENT UNBLOCK: whether the client was blocked here.
    pub(super) fn unblock_client(&mut self, client: u64, with_error: bool) -> bool {
        let Some(&Waiting { token, .. }) = self.blocked.get(&client) else {
            return false;
        };
        let session = self.session_mut(token);
        let call = session.and_then(|session| session.blocked.as_ref()).map(|b| &b.call);
        let Some(id) = call.filter(|call| call.claim()).map(|call| call.id) else {
            return false;
        };
        self.give_up(token, id, with_error.then_some(&CommandError::UNBLOCKED));
        true
    }

    /// Tells the home cores of calls what was done for them, as many as there is time for: one call may
    /// have served thousands. They have been served; only their replies come a little later.
    pub(super) fn send_woken(&mut self) {
        self.to_wake.extend(self.woken.drain(..));
        let begun = self.clock.ticks();
        while let Some(woken) = self.to_wake.pop_front() {
            let (Woken::Served(call, _) | Woken::Retry(call)) = &woken;
            let home = call.home;
            if home == self.id {
                self.take_woken(woken);
            } else {
                self.post(home, Letter::Woken(woken, self.logical.tape.logged()));
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > WAITERS_BUDGET_NS {
                return;
            }
        }
        if self.to_wake.capacity() > 4096 {
            self.to_wake = VecDeque::new();
        }
    }

    /// A call of this core was served, or could be.
    pub(super) fn take_woken(&mut self, woken: Woken) {
        match woken {
            Woken::Served(call, reply) => {
                if let Some(blocked) = self.take_blocked(token_of(&call), call.id) {
                    self.leave_other_queues(&call);
                    self.log_concerns(token_of(&call).index);
                    self.complete(token_of(&call), blocked.target, reply);
                }
            }
            Woken::Retry(call) => self.retry_blocked(call),
        }
    }

    fn retry_blocked(&mut self, call: Arc<BlockedCall>) {
        let version = self.node.owners.version();
        let token = token_of(&call);
        let blocked = self.session_mut(token).and_then(|s| s.blocked.as_mut());
        let Some(blocked) = blocked.filter(|blocked| blocked.call.id == call.id) else {
            return;
        };
        if std::mem::replace(&mut blocked.retrying, true) {
            return;
        }
        let target = blocked.target;
        self.exclusive.push_back(Exclusive {
            token,
            target,
            command: call.command,
            words: Arc::new(call.words.clone()),
            set: crate::commands::dispatch::ShardSet(1 << self.id.0),
            db: call.db,
            protocol: call.protocol,
            version,
            import_at: None,
            stalls: true,
            work: Work::Retry(call),
        });
    }

    /// The session of a blocked call has ended.
    pub(super) fn forget_blocked(&mut self, client: u64, call: &Arc<BlockedCall>) {
        self.end_waiting(client);
        if call.claim() {
            self.leave_queues(call);
        } else {
            self.leave_other_queues(call);
        }
    }

    /// Takes a blocked call out of its wait to run it again; `false` if it has ended meanwhile.
    pub(super) fn resume_blocked(&mut self, call: &Arc<BlockedCall>, token: Token) -> bool {
        if !call.claim() {
            return false;
        }
        if let Some(session) = self.session_mut(token) {
            // It stays with the session for its deadline, in case that it blocks again.
            session.client.is_blocked = false;
            let client = session.client.id;
            self.end_waiting(client);
        }
        self.leave_queues(call);
        true
    }

    // ---- what many of them leave to do ----

    /// Notes that a call that has ended is still in the queues of its keys.
    fn leave_queues(&mut self, call: &Arc<BlockedCall>) {
        let args = call.words.args();
        let words = call.awaited(&args).into_iter();
        self.ended.extend(words.map(|word| (Arc::clone(call), word)));
    }

    /// The same for one that whoever served it has taken out of one queue.
    fn leave_other_queues(&mut self, call: &Arc<BlockedCall>) {
        let args = call.words.args();
        let words = call.awaited(&args);
        if words.len() > 1 {
            self.ended.extend(words.into_iter().map(|word| (Arc::clone(call), word)));
        }
    }

    /// Takes calls that have ended out of the queues of their keys, within the turn's budget: through
    /// the doors that can be had, else by letter.
    pub(super) fn step_ended(&mut self) {
        let begun = self.clock.ticks();
        let mut letters: Vec<Vec<Registration>> = Vec::new();
        while let Some((call, word)) = self.ended.pop_front() {
            let args = call.words.args();
            let key = args.at(word as usize);
            let owner = self.node.owners.of(slot_of(key));
            let node = self.node;
            let removed = self.with_shard(owner, |shard| {
                // The owner of a slot changes only while its door is held.
                let is_owner = node.owners.of(slot_of(key)) == owner;
                if is_owner {
                    shard.waiters.remove(key, &call);
                }
                is_owner
            });
            if removed == Some(false) {
                self.ended.push_back((call, word));
            } else if removed.is_none() && owner == self.own() {
                // Borrowed: this core is woken when it is free.
                self.ended.push_front((call, word));
                break;
            } else if removed.is_none() {
                letters.resize_with(self.peers.core_count(), Vec::new);
                letters[owner.index()].push((call, word));
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > WAITERS_BUDGET_NS {
                self.background.go_on();
                break;
            }
        }
        for (to, letter) in letters.into_iter().enumerate().filter(|(_, l)| !l.is_empty()) {
            self.post(CoreId(to as u16), Letter::Ended(letter));
        }
        if self.ended.is_empty() && self.ended.capacity() > 4096 {
            self.ended = Default::default();
        }
    }

    /// Lets `work` see a shard, if its door can be had.
    fn with_shard<T>(&mut self, id: ShardId, work: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        if let Some(held) = &mut self.held[id.index()] {
            return Some(work(held));
        }
        if id == self.own() {
            return None;
        }
        let mut held = self.peers.shards[id.index()].try_take(self.id)?;
        let done = work(&mut held);
        self.release(held);
        Some(done)
    }

    /// Signals and serves keys of the own shard that may hold something since databases were
    /// exchanged, within the turn's budget.
    pub(super) fn step_waiters_scan(&mut self) {
        let own = self.own().index();
        let Some(mut shard) = self.held[own].take_if(|shard| shard.waiters.is_scanning()) else {
            return;
        };
        let begun = self.clock.ticks();
        let command = table().get(b"swapdb").expect("only it makes any key hold something");
        while shard.waiters.is_scanning() {
            if self.clock.ns_between(begun, self.clock.ticks()) > WAITERS_BUDGET_NS {
                self.background.go_on();
                break;
            }
            shard.waiters.scan_step();
            let (shards, db) = (Shards::One(&mut shard), DbIndex(0));
            let logical = &mut self.logical;
            let mut ctx = dispatch::ctx(self.node, self.id, shards, logical, self.now, db, command);
            serve_ready(&mut ctx, &mut self.woken);
        }
        self.held[own] = Some(shard);
        self.send_woken();
    }
}

/// The session of a call of this core.
const fn token_of(call: &BlockedCall) -> Token {
    let (index, generation) = call.session;
    Token { index, generation }
}
