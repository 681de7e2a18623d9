//! Calls that go on after their handler has returned: those that work in steps, and those that wait
//! for their keys. Their sessions wait for them here, on their home core.

use std::sync::Arc;

use crate::commands::blocking::Woken;
use crate::commands::ctx::Later;
use crate::commands::keys::find_keys;
use crate::commands::spec::Purpose;
use crate::net::session::Blocked;
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply};
use crate::runtime::exclusive::{Exclusive, Work};
use crate::runtime::peers::Letter;
use crate::runtime::ring::Token;
use crate::runtime::turn::{Alarm, Core};
use crate::shard::waiters::BlockedCall;
use crate::slots::hash::slot_of;
use crate::units::Ms;

/// Time that the steps of long calls may take in a turn.
const LONG_BUDGET_NS: u64 = 100_000;

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
        let Some(session) = self.session_mut(token) else {
            return;
        };
        // A call that was woken for nothing waits on until the same time, before all others.
        let (deadline, is_retry) = match (work, session.blocked.take()) {
            (Work::Retry(_), Some(before)) => (before.deadline, true),
            _ => ((timeout_ms > 0).then(|| Ms(self.now.0.saturating_add(timeout_ms))), false),
        };
        let id = self.node.new_call_id();
        let blocked = Arc::new(BlockedCall::new(id, self.id, command, words, db, protocol));
        let mut keys = Vec::new();
        let args = blocked.words.args();
        find_keys(command.spec, &args, &mut keys);
        // A call that moves an element does not wait for its destination.
        let awaits = |purpose| matches!(purpose, Purpose::AccessDelete | Purpose::Delete);
        for found in keys.iter().filter(|found| awaits(found.spec.purpose)) {
            let key = args.at(found.index);
            let owner = self.node.owners.of(slot_of(key));
            let shard = self.held[owner.index()].as_mut().expect("the doors of its keys are held");
            shard.waiters.add(key, &blocked, is_retry);
        }
        if let Some(deadline) = deadline {
            self.alarms.insert(deadline, Alarm::BlockEnds(token, id));
        }
        self.blocked.insert(id, token);
        self.stats.blocked_clients.add(1);
        let Some(session) = self.session_mut(token) else {
            return;
        };
        session.client.is_blocked = true;
        session.blocked =
            Some(Box::new(Blocked { call: blocked, target, deadline, retrying: false }));
    }

    /// Ends the wait of a session's blocked call: its place in the output.
    fn take_blocked(&mut self, token: Token, id: u64) -> Option<Box<Blocked>> {
        let session = self.session_mut(token)?;
        let blocked = session.blocked.take_if(|blocked| blocked.call.id == id)?;
        session.client.is_blocked = false;
        self.blocked.remove(&id);
        self.stats.blocked_clients.add(-1);
        Some(blocked)
    }

    /// A blocked call has waited long enough.
    pub(super) fn end_block(&mut self, token: Token, id: u64) {
        let session = self.session_mut(token);
        let blocked = session.and_then(|session| session.blocked.as_ref());
        if blocked.is_some_and(|blocked| blocked.call.id == id && blocked.call.claim()) {
            self.give_up(token, id, None);
        }
    }

    /// Replies to a blocked call that was claimed without being served.
    fn give_up(&mut self, token: Token, id: u64, error: Option<&CommandError>) {
        let Some(blocked) = self.take_blocked(token, id) else {
            return;
        };
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
        let found = self.blocked.iter().find_map(|(&id, &token)| {
            let session = self.sessions.get(token.index as usize)?;
            let blocked = session.blocked.as_ref().filter(|blocked| blocked.call.id == id)?;
            (session.client.id == client && blocked.call.claim()).then_some((token, id))
        });
        let Some((token, id)) = found else {
            return false;
        };
        self.give_up(token, id, with_error.then_some(&CommandError::UNBLOCKED));
        true
    }

    /// Tells the home cores of calls what this turn did for them.
    pub(super) fn send_woken(&mut self) {
        for woken in std::mem::take(&mut self.woken) {
            let (Woken::Served(call, _) | Woken::Retry(call)) = &woken;
            let home = call.home;
            if home == self.id {
                self.take_woken(woken);
            } else {
                self.post(home, Letter::Woken(woken));
            }
        }
    }

    /// A call of this core was served, or could be.
    pub(super) fn take_woken(&mut self, woken: Woken) {
        match woken {
            Woken::Served(call, reply) => {
                if let Some(&token) = self.blocked.get(&call.id)
                    && let Some(blocked) = self.take_blocked(token, call.id)
                {
                    self.complete(token, blocked.target, reply);
                }
            }
            Woken::Retry(call) => self.retry_blocked(call),
        }
    }

    fn retry_blocked(&mut self, call: Arc<BlockedCall>) {
        let version = self.node.owners.version();
        let Some(&token) = self.blocked.get(&call.id) else {
            return;
        };
        let Some(blocked) = self.session_mut(token).and_then(|s| s.blocked.as_mut()) else {
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
            words: call.words.clone(),
            set: crate::commands::dispatch::ShardSet(1 << self.id.0),
            db: call.db,
            protocol: call.protocol,
            version,
            stalls: true,
            work: Work::Retry(call),
        });
    }

    /// The session of a blocked call has ended.
    pub(super) fn forget_blocked(&mut self, call: &BlockedCall) {
        if self.blocked.remove(&call.id).is_some() {
            self.stats.blocked_clients.add(-1);
        }
        call.claim();
    }

    /// Takes a blocked call out of its wait to run it again; `false` if it has ended meanwhile.
    pub(super) fn resume_blocked(&mut self, call: &BlockedCall, token: Token) -> bool {
        if !call.claim() {
            return false;
        }
        if let Some(session) = self.session_mut(token) {
            // It stays with the session for its deadline, in case that it blocks again.
            session.client.is_blocked = false;
        }
        self.blocked.remove(&call.id);
        self.stats.blocked_clients.add(-1);
        true
    }
}
