//! Calls that need several doors, and calls that run in slices: everything for which a session waits
//! (but questions to all cores, which are in `ask.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::commands::args::{Args, OwnedArgs};
use crate::commands::blocking::serve_ready;
use crate::commands::ctx::{Ctx, Later, Shards};
use crate::commands::dispatch::{self, ImportCall, Plan, ShardSet};
use crate::commands::keys::find_keys;
use crate::commands::long::LongOp;
use crate::commands::session_ctx::SessionAction;
use crate::commands::spec::{Handler, SliceState, SliceStep};
use crate::commands::table::{Command, KeyRule};
use crate::net::session::Stall;
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::runtime::ring::Token;
use crate::runtime::turn::{Alarm, Core};
use crate::shard::batch::Target;
use crate::shard::waiters::BlockedCall;
use crate::slots::hash::slot_of;
use crate::slots::owner::Access;
use crate::units::{CoreId, DbIndex, Ms};

/// Exclusive calls of one turn end after this; the rest runs in the next.
const EXCLUSIVE_BUDGET_NS: u64 = 400_000;
/// Time that all slices of a turn may take together.
const SLICE_BUDGET_NS: u64 = 100_000;

/// A call that needs these doors at once.
#[derive(Debug)]
pub struct Exclusive {
    /// Whose it is.
    pub token: Token,
    /// Where the reply belongs.
    pub target: Target,
    /// What to run.
    pub command: &'static Command,
    /// Its words, shared with what works on them in steps.
    pub words: Arc<OwnedArgs>,
    /// The doors, as planned.
    pub set: ShardSet,
    /// The database.
    pub db: DbIndex,
    /// Protocol of the reply.
    pub protocol: Protocol,
    /// Version of the slot owners that the session's earlier requests were planned by.
    pub version: u32,
    /// It fills a slot that is not served yet: the time at which its session says it happened.
    pub import_at: Option<Ms>,
    /// Its session waits for it. Not so for a request that runs again.
    pub stalls: bool,
    /// How far it is.
    pub work: Work,
}

/// How far an exclusive call is.
#[derive(Debug)]
pub enum Work {
    /// It has not begun.
    Start,
    /// It works in steps, or has done so.
    Steps(Box<dyn LongOp>),
    /// It was blocked, and may be served now.
    Retry(Arc<BlockedCall>),
}

/// A call that runs in slices, each on one shard.
#[derive(Debug)]
pub struct Sliced {
    token: Token,
    target: Target,
    command: &'static Command,
    words: OwnedArgs,
    db: DbIndex,
    protocol: Protocol,
    state: SliceState,
    ns: u64,
}

/// Where an exclusive call can run.
enum Planned {
    /// Behind these doors.
    Set(ShardSet),
    /// Nowhere until a slot has been handed over, or not.
    Waits,
    /// Nowhere.
    Refused(CommandError),
}

impl Sliced {
    /// A call that has not begun.
    pub fn new(
        token: Token,
        target: Target,
        command: &'static Command,
        words: OwnedArgs,
        db: DbIndex,
        protocol: Protocol,
    ) -> Self {
        let state = SliceState::default();
        Self { token, target, command, words, db, protocol, state, ns: 0 }
    }
}

impl Core {
    /// Takes every door of a set, in ascending order; `false` if one must be waited for.
    fn acquire(&mut self, set: ShardSet) -> bool {
        if self.waiting.is_some_and(|shard| !set.contains(shard)) {
            self.stop_waiting();
        }
        for shard in set.iter() {
            let index = shard.index();
            if self.held[index].is_some() {
                continue;
            }
            match self.peers.shards[index].take_or_wait(self.id) {
                Some(held) => self.held[index] = Some(held),
                None => {
                    if self.waiting != Some(shard) {
                        // Another call's, or the same one's by an older plan, of a higher door: handed
                        // to a core that waits for a lower one it would be held out of order.
                        self.stop_waiting();
                    }
                    self.waiting = Some(shard);
                    // Its owner lets go at the end of its turn; if it sleeps, a borrower will.
                    return false;
                }
            }
        }
        self.waiting = None;
        true
    }

    /// Leaves the waiting set of the door that the front call waited for: a door handed to a core
    /// that has forgotten why would be stuck for good.
    fn stop_waiting(&mut self) {
        let Some(shard) = self.waiting.take() else { return };
        if self.held[shard.index()].is_none()
            && let Some(held) = self.peers.shards[shard.index()].stop_waiting(self.id)
        {
            self.release(held);
        }
    }

    /// A call of a session that waits for it from now on.
    pub(super) fn exclusive_call(
        &mut self,
        index: u32,
        command: &'static Command,
        set: ShardSet,
        silent: bool,
        chunk: u32,
        base: usize,
    ) -> Exclusive {
        let input = &mut self.round.chunks[chunk as usize];
        let words = Arc::new(input.take_args(&self.ring, &self.round.ranges[base..]));
        let session = &mut self.sessions[index as usize];
        let target = if silent { Target::Silent } else { session.reserve_ticket() };
        session.stall = Stall::Busy;
        Exclusive {
            token: Token { index, generation: session.generation },
            target,
            command,
            words,
            set,
            db: session.client.db,
            protocol: session.client.protocol,
            version: session.version,
            import_at: None,
            stalls: true,
            work: Work::Start,
        }
    }

    /// Whether a call of a session may run on these shards at once, before what this round has
    /// gathered: it overtakes nothing that has to come first, and no door has to be waited for. Its
    /// doors are held then.
    pub(super) fn has_straight_way(&mut self, index: u32, set: ShardSet, version: u32) -> bool {
        let overtakes = !self.sessions[index as usize].is_settled()
            || self.round.has_silent
            || !self.exclusive.is_empty()
            || !self.moved.is_empty()
            || !self.own_pending.is_empty()
            || set.iter().any(|shard| self.mailed[shard.index()] > 0);
        if overtakes || self.round.straight_ns > EXCLUSIVE_BUDGET_NS {
            return false;
        }
        for shard in set.iter() {
            let index = shard.index();
            if self.held[index].is_none() {
                self.held[index] = self.peers.shards[index].try_take(self.id);
                self.round.has_doors |= self.held[index].is_some();
            }
            if self.held[index].is_none() {
                return false;
            }
        }
        // With the doors held, the owners of the slots cannot change any more.
        self.node.owners.version() == version
    }

    /// Runs a call on several shards, whose doors are held, on the words as they were received. Its
    /// session has no other reply to wait for.
    pub(super) fn run_straight(
        &mut self,
        index: u32,
        command: &'static Command,
        set: ShardSet,
        chunk: u32,
        base: usize,
    ) {
        let args = self.round.chunks[chunk as usize].args(&self.ring, &self.round.ranges[base..]);
        let session = &mut self.sessions[index as usize];
        let (db, protocol) = (session.client.db, session.client.protocol);
        let shards = Shards::Many(&mut self.held);
        let (node, id, now) = (self.node, self.id, self.now);
        let logged = self.logical.tape.logged();
        let begun = self.clock.ticks();
        let mut ctx = dispatch::ctx(node, id, shards, &mut self.logical, now, db, command);
        ctx.protocol = protocol;
        ctx.begin_unit();
        dispatch::run_data(command, &mut ctx, &args, &mut Reply::new(&mut session.out, protocol));
        ctx.clock.end_unit();
        let later = std::mem::take(&mut ctx.later);
        serve_ready(&mut ctx, &mut self.woken);
        session.unsynced = session.unsynced.max(self.logical.tape.logged_since(logged));
        Self::flush_later(&mut self.flush, index, session);
        let token = Token { index, generation: session.generation };
        self.ring_for_scans();
        self.settle_outbox(Some(token));
        let ns = self.count_exclusive(command, begun);
        self.round.straight_ns += ns;
        if ns >= self.node.slow_ns() {
            let input = &self.round.chunks[chunk as usize];
            let args = input.args(&self.ring, &self.round.ranges[base..]);
            let client = &self.sessions[index as usize].client;
            self.node.note_slow(command, &args, ns, self.now, client);
        }
        if !matches!(later, Later::Nothing) {
            let call = self.exclusive_call(index, command, set, false, chunk, base);
            self.defer(call, later);
        }
    }

    /// Runs exclusive calls in order, as far as their doors can be had.
    pub(super) fn run_exclusive(&mut self) {
        if self.exclusive.is_empty() && self.moved.is_empty() {
            // What is left of this turn's input may need the same doors.
            let ends = self.resume.is_empty() && self.inputs.is_empty();
            if ends && std::mem::take(&mut self.round.has_doors) {
                self.release_foreign_doors();
            }
            return;
        }
        let begun = self.clock.ticks();
        // Calls whose earlier requests have to end first: only when slots have moved meanwhile.
        let mut deferred = VecDeque::new();
        let mut waits = false;
        while let Some(call) = self.moved.pop_front().or_else(|| self.exclusive.pop_front()) {
            if self.session_mut(call.token).is_none_or(|session| session.closing) {
                continue;
            }
            if self.is_overtaking(&call) {
                deferred.push_back(call);
                continue;
            }
            if self.follows_refused(&call) && self.keep_refused(&call) {
                continue;
            }
            let set = match self.plan_exclusive(&call) {
                Planned::Set(set) => set,
                Planned::Waits => {
                    self.hold_call(call);
                    continue;
                }
                Planned::Refused(error) => {
                    self.refuse_exclusive(call, &error);
                    continue;
                }
            };
            if !self.acquire(set) {
                self.put_back(call);
                waits = true;
                break;
            }
            // With the doors held, the owners of the slots cannot change any more.
            match self.plan_exclusive(&call) {
                Planned::Set(again) if again.0 & !set.0 == 0 => {}
                _ => {
                    self.put_back(call);
                    continue;
                }
            }
            // What was mailed to a shard that is none of them any more may not have run.
            if self.is_overtaking(&call) {
                deferred.push_back(call);
                continue;
            }
            let moved_count = self.moved.len();
            self.run_mailed_to(set);
            if call.stalls && self.moved.len() > moved_count {
                // What was mailed before has to run again, and before this.
                self.put_back(call);
                continue;
            }
            self.run_exclusive_call(call);
            if self.clock.ns_between(begun, self.clock.ticks()) > EXCLUSIVE_BUDGET_NS {
                break;
            }
        }
        while let Some(call) = deferred.pop_back() {
            self.exclusive.push_front(call);
        }
        if !waits {
            // The call that waited may have been deferred: what it waits for now may need that door.
            self.stop_waiting();
        }
        // Sessions that go on now may bring calls for the same doors in this very turn: passing the
        // doors to and fro for each would cost a wake every time. The turn's end lets go of all.
        if self.exclusive.is_empty() && self.moved.is_empty() && self.resume.is_empty() {
            self.release_foreign_doors();
        }
    }

    /// Whether earlier requests of a call's session may have met a move: they run again first.
    fn is_overtaking(&mut self, call: &Exclusive) -> bool {
        call.stalls
            && call.version != self.node.owners.version()
            && self.session_mut(call.token).is_some_and(|session| !session.is_next(call.target))
    }

    pub(super) fn put_back(&mut self, call: Exclusive) {
        if call.stalls {
            self.exclusive.push_front(call);
        } else {
            self.moved.push_front(call);
        }
    }

    fn plan_exclusive(&mut self, call: &Exclusive) -> Planned {
        // As it was planned when it came, unless slots have moved since.
        if matches!(call.work, Work::Start) && call.version == self.node.owners.version() {
            return Planned::Set(call.set);
        }
        let own = self.own();
        let client = &mut self.sessions[call.token.index as usize].client;
        let found = &mut self.round.found;
        let args = call.words.args();
        let plan = if call.import_at.is_some() {
            match dispatch::plan_import(call.command, &args, client, self.node) {
                Ok(plan) => plan,
                Err(error) => return Planned::Refused(error),
            }
        } else {
            match dispatch::refused_before(call.command, &args, client, found) {
                Some(slot) => Plan::Closed(slot, Access::Refused),
                None => dispatch::plan(call.command, &args, client, self.node, own, found),
            }
        };
        match plan {
            Plan::Many(set) => Planned::Set(set),
            Plan::One(shard, _) => Planned::Set(ShardSet(1 << shard.0)),
            Plan::Session | Plan::Sliced => Planned::Set(call.set),
            Plan::Closed(_, Access::Frozen) => Planned::Waits,
            Plan::Closed(slot, _) => {
                Planned::Refused(self.refuse_slot(call.token.index, call.command, slot))
            }
        }
    }

    /// Ends a call whose keys are not served here any more.
    fn refuse_exclusive(&mut self, call: Exclusive, error: &CommandError) {
        if let Work::Retry(blocked) = &call.work
            && !self.resume_blocked(blocked, call.token)
        {
            return;
        }
        if self.keep_refused(&call) {
            return;
        }
        let session = &mut self.sessions[call.token.index as usize];
        session.blocked = None;
        if call.command.spec.name == "exec" {
            session.client.multi = None;
            session.client.watching = None;
        }
        let mut out = OutBuf::default();
        Reply::new(&mut out, call.protocol).error(error);
        self.stats.note_error(error);
        if call.stalls {
            self.complete(call.token, call.target, out);
        } else {
            self.reply_to(call.token, call.target, out);
        }
    }

    /// Runs what this core had mailed to the shards of a set before: it comes first.
    fn run_mailed_to(&mut self, set: ShardSet) {
        let own = self.own();
        for shard in set.iter().filter(|&shard| shard != own) {
            if let Some(mut held) = self.held[shard.index()].take() {
                self.catch_up(&mut held);
                self.held[shard.index()] = Some(held);
            }
        }
        if set.contains(own) {
            self.run_own_mail(None);
        }
    }

    fn run_exclusive_call(&mut self, mut call: Exclusive) {
        if let Work::Retry(blocked) = &call.work
            && !self.resume_blocked(blocked, call.token)
        {
            return;
        }
        let index = call.token.index as usize;
        let args = call.words.args();
        let mut out = OutBuf::default();
        let session = &mut self.sessions[index];
        let client = &mut session.client;
        if let Some(at) = call.import_at {
            let out = self.run_import_again(&call, at);
            return self.reply_to(call.token, call.target, out);
        }
        let shards = Shards::Many(&mut self.held);
        let (node, id, now, db) = (self.node, self.id, self.now, call.db);
        let logged = self.logical.tape.logged();
        let begun = self.clock.ticks();
        let mut ctx = dispatch::ctx(node, id, shards, &mut self.logical, now, db, call.command);
        ctx.protocol = call.protocol;
        let mut reply = Reply::new(&mut out, call.protocol);
        if let Handler::Held(handler) = call.command.spec.handler {
            let mark = reply.out().mark();
            let result = handler(&mut ctx, client, &args, &mut reply);
            dispatch::finish(call.command, &mut ctx, &args, &mut reply, mark, result);
        } else {
            ctx.may_defer = call.stalls;
            ctx.words = call.stalls.then(|| Arc::clone(&call.words));
            ctx.begin_unit();
            match std::mem::replace(&mut call.work, Work::Start) {
                Work::Start => {
                    dispatch::run_data(call.command, &mut ctx, &args, &mut reply);
                }
                Work::Steps(op) => {
                    dispatch::finish_long(call.command, op, &mut ctx, &args, &mut reply);
                }
                Work::Retry(blocked) => {
                    dispatch::run_data(call.command, &mut ctx, &args, &mut reply);
                    // What it leaves may serve those behind it.
                    signal_keys(&mut ctx, call.command, &args);
                    call.work = Work::Retry(blocked);
                }
            }
            ctx.clock.end_unit();
        }
        let later = std::mem::take(&mut ctx.later);
        serve_ready(&mut ctx, &mut self.woken);
        let session = &mut self.sessions[index];
        session.unsynced = session.unsynced.max(self.logical.tape.logged_since(logged));
        self.ring_for_scans();
        if call.command.spec.name == "exec" {
            self.show_call(call.token.index, call.command, &args);
        }
        self.settle_outbox(Some(call.token));
        let ns = self.count_exclusive(call.command, begun);
        if ns >= self.node.slow_ns() {
            let client = &self.sessions[index].client;
            self.node.note_slow(call.command, &args, ns, self.now, client);
        }
        if !matches!(later, Later::Nothing) {
            return self.defer(call, later);
        }
        self.sessions[index].blocked = None;
        if call.stalls {
            self.complete(call.token, call.target, out);
        } else {
            self.reply_to(call.token, call.target, out);
        }
    }

    /// Wakes the cores whose shards have many keys to look at.
    fn ring_for_scans(&mut self) {
        for index in 0..self.held.len() {
            if self.held[index].as_ref().is_some_and(|shard| shard.waiters.is_scanning()) {
                self.ring_later(CoreId(index as u16));
            }
        }
    }

    fn count_exclusive(&self, command: &Command, begun: u64) -> u64 {
        let ns = self.clock.ns_between(begun, self.clock.ticks());
        self.stats.note_call(command, ns, self.node.config.latency_tracking());
        ns
    }

    /// Gives a session the reply to a request that ran again.
    fn reply_to(&mut self, token: Token, target: Target, reply: OutBuf) {
        let Some(session) = self.sessions.get_mut(token.index as usize) else { return };
        if let Target::Ticket(ticket) = target {
            session.ticket_done(ticket, reply);
            session.settle(&self.round.stash);
        }
        Self::flush_later(&mut self.flush, token.index, session);
        if !session.tail.is_empty() && session.may_run() {
            self.resume.push_back(token);
        }
    }

    /// Gives a waiting session its reply and lets it go on.
    pub(super) fn complete(&mut self, token: Token, target: Target, reply: OutBuf) {
        let Some(session) = self
            .sessions
            .get_mut(token.index as usize)
            .filter(|session| session.generation == token.generation)
        else {
            return;
        };
        if let Target::Ticket(ticket) = target {
            session.ticket_done(ticket, reply);
            session.settle(&self.round.stash);
        }
        session.stall = Stall::None;
        Self::flush_later(&mut self.flush, token.index, session);
        // Too much input may have come while it waited: then nobody receives for it any more.
        if !session.tail.is_empty() || session.input_ended || !session.receiving {
            self.resume.push_back(token);
        }
    }

    /// Runs a request again that fills a slot which is not served yet. The door of the slot is held.
    fn run_import_again(&mut self, call: &Exclusive, at: Ms) -> OutBuf {
        let args = call.words.args();
        let mut out = OutBuf::default();
        let owner = self.node.owners.of(slot_of(args.at(1)));
        let shard = self.held[owner.index()].as_mut().expect("the doors of its keys are held");
        let mut reply = Reply::new(&mut out, call.protocol);
        let import = ImportCall { command: call.command, args: &args, hint: None, db: call.db, at };
        let place = (self.id, self.now);
        dispatch::run_import(self.node, place, shard, &mut self.logical, import, &mut reply);
        out
    }

    /// Lets go of the doors of others: the own one stays until the end of the turn.
    fn release_foreign_doors(&mut self) {
        let own = self.own().index();
        for index in (0..self.held.len()).filter(|&index| index != own) {
            if let Some(held) = self.held[index].take() {
                self.release(held);
            }
        }
    }

    /// Gives each sliced call a slice, within the turn's budget.
    pub(super) fn step_sliced(&mut self) {
        if !self.moved.is_empty() {
            // Earlier requests have to run again first.
            return;
        }
        let begun = self.clock.ticks();
        for _ in 0..self.sliced.len() {
            let Some(mut call) = self.sliced.pop_front() else {
                return;
            };
            if self.session_mut(call.token).is_none_or(|session| session.closing) {
                continue;
            }
            match self.step(&mut call) {
                None | Some(Ok(SliceStep::More)) => self.sliced.push_back(call),
                Some(done) => self.finish_sliced(call, done),
            }
            if self.clock.ns_between(begun, self.clock.ticks()) > SLICE_BUDGET_NS {
                return;
            }
        }
    }

    /// Runs one slice; nothing if its shard is not to be had in this turn.
    fn step(&mut self, call: &mut Sliced) -> Option<Result<SliceStep, CommandError>> {
        let handler = call.command.spec.handler;
        if call.command.keys != KeyRule::None && matches!(handler, Handler::Sliced(_)) {
            // Its keys were served when it began. One of a slot that has left since ends it; what was
            // done before stays done.
            let own = self.own();
            let client = &self.sessions[call.token.index as usize].client;
            let (args, found) = (call.words.args(), &mut self.round.found);
            match dispatch::plan(call.command, &args, client, self.node, own, found) {
                Plan::Closed(_, Access::Frozen) => return None,
                Plan::Closed(slot, _) => {
                    return Some(Err(self.refuse_slot(call.token.index, call.command, slot)));
                }
                _ => {}
            }
        }
        let shard = dispatch::slice_shard(self.node, &call.state);
        let step = match handler {
            Handler::Sliced(step) => step,
            _ => crate::commands::generic::sliced_variant(
                call.command.spec.name,
                &call.words.args(),
            )?,
        };
        let mut held = match self.held[shard.index()].take() {
            Some(held) => held,
            None => self.peers.shards[shard.index()].try_take(self.id)?,
        };
        if shard != self.own() {
            self.catch_up(&mut held);
        }
        let begun = self.clock.ticks();
        let shards = Shards::One(&mut held);
        let (node, id, now) = (self.node, self.id, self.now);
        let mut ctx =
            dispatch::ctx(node, id, shards, &mut self.logical, now, call.db, call.command);
        ctx.protocol = call.protocol;
        let result = step(&mut ctx, &call.words.args(), &mut call.state);
        call.ns += self.clock.ns_between(begun, self.clock.ticks());
        if shard == self.own() || self.waiting.is_some() {
            self.held[shard.index()] = Some(held);
        } else {
            self.release(held);
        }
        Some(result)
    }

    fn finish_sliced(&mut self, call: Sliced, done: Result<SliceStep, CommandError>) {
        let mut out = OutBuf::default();
        let mut reply = Reply::new(&mut out, call.protocol);
        match done {
            Ok(done) => dispatch::reply_slices(done, &call.state, &mut reply),
            Err(error) => {
                reply.error(&error);
                self.stats.note_error(&error);
            }
        }
        self.stats.note_call(call.command, call.ns, self.node.config.latency_tracking());
        // Any of its slices may have logged something.
        self.log_concerns(call.token.index);
        if call.ns >= self.node.slow_ns() {
            let client = &self.sessions[call.token.index as usize].client;
            let args = call.words.args();
            self.node.note_slow(call.command, &args, call.ns, self.now, client);
        }
        self.complete(call.token, call.target, out);
    }

    // ---- what a session's handler asks its core to do ----

    /// Begins what a session's handler asked its core to do.
    pub(super) fn begin_action(&mut self, token: Token, target: Target, action: SessionAction) {
        match action {
            SessionAction::Sleep(ms) => {
                let ticket = match target {
                    Target::Ticket(ticket) => ticket,
                    Target::Direct | Target::Silent => u32::MAX,
                };
                let until = Ms(self.now.0.saturating_add(ms as i64));
                self.alarms.insert(until, Alarm::SleepEnds(token, ticket));
            }
            SessionAction::Shutdown => {
                tracing::info!("SHUTDOWN asked for by a client");
                self.peers.stop.store(true, std::sync::atomic::Ordering::Relaxed);
                for core in (0..self.peers.core_count()).map(|i| CoreId(i as u16)) {
                    if core != self.id {
                        self.ring_later(core);
                    }
                }
                // Redis: no reply; the connection ends with the process.
                if let Some(session) = self.session_mut(token) {
                    session.client.close_after_reply = true;
                }
                self.complete(token, target, OutBuf::default());
            }
            SessionAction::Names(work) => self.pubsub.begin(token, target, work),
            SessionAction::Dialect(call) => self.begin_dialect(token, target, call),
            SessionAction::Slots(ask) => self.begin_slots(token, target, ask),
            action => self.ask(token, target, action),
        }
    }

    pub(super) fn end_sleep(&mut self, token: Token, ticket: u32) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        let mut out = OutBuf::default();
        Reply::new(&mut out, session.client.protocol).ok();
        let target = if ticket == u32::MAX { Target::Silent } else { Target::Ticket(ticket) };
        self.complete(token, target, out);
    }

    /// Whether exclusive calls can go on without any event.
    pub(super) fn exclusive_ready(&self) -> bool {
        !(self.exclusive.is_empty() && self.moved.is_empty()) && self.waiting.is_none()
    }
}

/// Has the calls served that wait for the keys of a call which may have left something in them.
fn signal_keys(ctx: &mut Ctx<'_>, command: &Command, args: &Args<'_>) {
    let db = ctx.db;
    let mut found = Vec::new();
    find_keys(command.spec, args, &mut found);
    for found in found {
        let key = args.at(found.index);
        ctx.shard(slot_of(key)).waiters.signal(db, key);
    }
}
