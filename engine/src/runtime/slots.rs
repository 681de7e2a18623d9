//! What a core does about the slots of its shard: it changes what they are, holds requests back while
//! one is handed over, takes in what a move brings, and deals connections to other cores.
//!
//! A slot changes only here, on the core that owns it, with its shard held.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use crate::commands::blocking::Woken;
use crate::commands::spec::Family;
use crate::commands::table::Command;
use crate::migrate::ask::{SlotAsk, SlotStep};
use crate::migrate::books::{Coming, answer_of};
use crate::migrate::cluster::{Inner, MoveId, Wanted};
use crate::migrate::digest::Digest;
use crate::migrate::machine::{Attempt, TargetAction};
use crate::net::client::Import;
use crate::net::session::{Session, Stall};
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply};
use crate::runtime::exclusive::Exclusive;
use crate::runtime::peers::Letter;
use crate::runtime::ring::Token;
use crate::runtime::turn::{Core, Input};
use crate::shard::batch::Target;
use crate::shard::state::Shard;
use crate::slots::owner::Access;
use crate::slots::state::SlotState;
use crate::units::{CoreId, SlotId};

/// Keys that one step of a digest looks at.
const DIGEST_KEYS_PER_STEP: usize = 256;
/// Time that the digests of a turn may take.
const DIGEST_BUDGET_NS: u64 = 200_000;

/// Something to be done about a slot, by the core that owns it, for a session of any core.
#[derive(Debug)]
pub struct SlotJob {
    home: CoreId,
    token: Token,
    target: Target,
    slot: SlotId,
    move_id: MoveId,
    attempt: Attempt,
    what: SlotStep,
    /// The comparison, once it has begun.
    digest: Option<Digest>,
}

impl SlotJob {
    fn coming(&self) -> Coming {
        Coming { slot: self.slot, id: self.move_id, attempt: self.attempt }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct SlotDone {
    token: Token,
    target: Target,
    result: Result<Done, CommandError>,
}

/// How a job ended well.
#[derive(Debug)]
enum Done {
    /// The session fills the slot from now on.
    Bound(Import),
    /// Nothing more than that.
    Ok,
    /// The slot is served here.
    Active,
}

/// A session whose reply waits for all cores, or for the disk.
#[derive(Debug)]
struct Settling {
    token: Token,
    target: Target,
    /// The change that has to be on disk; none yet while cores are still at work.
    saved: Option<u64>,
    reply: Vec<u8>,
}

/// What a core has under way about slots.
#[derive(Debug, Default)]
pub struct SlotDesk {
    jobs: VecDeque<SlotJob>,
    settling: Vec<Settling>,
    /// Connections on their way to another core.
    moving: Vec<(Token, CoreId)>,
    /// Sessions and calls that wait for a frozen slot.
    held_sessions: Vec<Token>,
    held_calls: VecDeque<Exclusive>,
    /// Version of the slot owners when the held ones were looked at.
    seen_owners: u32,
    /// Version of the cluster when it was looked at.
    pub(super) seen_cluster: u64,
}

impl SlotDesk {
    /// Whether requests are held back.
    fn holds(&self) -> bool {
        !self.held_sessions.is_empty() || !self.held_calls.is_empty()
    }
}

impl Core {
    /// Why a call is refused because of a slot. What comes behind it on a sticky link is refused too.
    pub(super) fn refuse_slot(
        &mut self,
        index: u32,
        command: &Command,
        slot: SlotId,
    ) -> CommandError {
        let client = &mut self.sessions[index as usize].client;
        let was_refused = client.refused.as_ref().is_some_and(|refused| refused.contains(slot));
        if command.spec.family != Family::Slots {
            client.refuse(slot);
        }
        match self.node.owners.home(slot).access() {
            // It is back, but the call must not run before those that were refused.
            Access::Open | Access::Frozen if was_refused => CommandError::refused_before(slot),
            _ => self.node.refusal(slot),
        }
    }

    // ---- requests that wait ----

    /// A session's next call waits until a slot is frozen no more.
    pub(super) fn hold_session(&mut self, token: Token) {
        self.desk.held_sessions.push(token);
        self.node.cluster.set_holding(self.id, true);
    }

    /// A call waits likewise.
    pub(super) fn hold_call(&mut self, call: Exclusive) {
        self.desk.held_calls.push_back(call);
        self.node.cluster.set_holding(self.id, true);
    }

    /// Lets everything go on that waited, if any slot has changed since: it is planned again.
    pub(super) fn release_held(&mut self) {
        let version = self.node.owners.version();
        if !self.desk.holds() || self.desk.seen_owners == version {
            self.desk.seen_owners = version;
            return;
        }
        self.desk.seen_owners = version;
        self.node.cluster.set_holding(self.id, false);
        for token in std::mem::take(&mut self.desk.held_sessions) {
            if let Some(session) = self.session_mut(token)
                && session.stall == Stall::Frozen
            {
                session.stall = Stall::None;
                self.resume.push_back(token);
            }
        }
        // In their order, before what came later.
        while let Some(call) = self.desk.held_calls.pop_back() {
            self.put_back(call);
        }
    }

    /// Whether something about slots can be done without any event. Asked again after the sleep flag
    /// was raised, so that whoever changes something and finds the flag down is not missed.
    pub(super) fn slots_ready(&self) -> bool {
        // Ordering: the flag before the look, as in `SleepFlag::prepare`.
        fence(Ordering::SeqCst);
        self.desk.seen_cluster != self.node.cluster.version()
            || self.desk.holds() && self.desk.seen_owners != self.node.owners.version()
            || !self.desk.jobs.is_empty()
    }

    // ---- what a slot is ----

    /// Changes what this server is to a slot of a shard that is held, and all that follows from it.
    pub(super) fn change_slot<R>(
        &mut self,
        shard: &mut Shard,
        slot: SlotId,
        change: impl FnOnce(&mut Inner) -> R,
    ) -> R {
        let (before, after, result) = {
            let mut cluster = self.node.cluster.lock();
            let before = cluster.slot(slot).state;
            let result = change(&mut cluster);
            (before, cluster.slot(slot).state, result)
        };
        if before.is_visible() && !after.is_visible() {
            shard.hide_slot(slot);
            // They would wait for ever: each is run again, and refused.
            self.woken.extend(shard.waiters.take_calls(slot).into_iter().map(Woken::Retry));
        }
        if !before.is_visible() && after.is_visible() {
            shard.show_slot(slot);
        }
        let access = match after {
            SlotState::Owned | SlotState::Leaving => Access::Open,
            SlotState::Frozen => Access::Frozen,
            _ => Access::Refused,
        };
        self.node.owners.set_access(slot, access, after.is_moving());
        self.wake_holders();
        result
    }

    /// Frees the keys of a slot that are out of sight, and tells the log that they are gone.
    pub(super) fn drop_hidden(&mut self, shard: &mut Shard, slot: SlotId) {
        shard.drop_hidden(slot);
        shard.journal.emit_cleared(&mut self.logical, slot);
    }

    /// Wakes the cores that hold requests back.
    fn wake_holders(&mut self) {
        // Ordering: the change before the look at who holds something: see `slots_ready`.
        fence(Ordering::SeqCst);
        let mut holding = self.node.cluster.holding() & !(1 << self.id.0);
        while holding != 0 {
            let core = CoreId(holding.trailing_zeros() as u16);
            holding &= holding - 1;
            self.ring_later(core);
        }
    }

    /// Gives all cores something to look at.
    pub(super) fn announce_cluster(&mut self) {
        self.node.cluster.announce();
        for core in (0..self.peers.core_count()).map(|i| CoreId(i as u16)) {
            if core != self.id {
                self.ring_later(core);
            }
        }
    }

    // ---- a turn's part ----

    /// Does what there is to do about slots.
    pub(super) fn step_slots(&mut self) {
        self.release_held();
        if self.desk.jobs.is_empty()
            && self.desk.settling.is_empty()
            && self.desk.moving.is_empty()
            && self.desk.seen_cluster == self.node.cluster.version()
        {
            return;
        }
        let own = self.id.index();
        if let Some(mut shard) = self.held[own].take() {
            if self.desk.seen_cluster != self.node.cluster.version() {
                self.desk.seen_cluster = self.node.cluster.version();
                self.apply_wanted(&mut shard);
                self.drop_cancelled(&mut shard);
                self.sync_moves();
            }
            self.run_jobs(&mut shard);
            self.held[own] = Some(shard);
        }
        self.settle_sessions();
        self.hand_connections_over();
        self.release_held();
    }

    /// Makes of this shard's slots what was asked for.
    fn apply_wanted(&mut self, shard: &mut Shard) {
        let mine: Vec<(SlotId, Wanted)> = {
            let mut cluster = self.node.cluster.lock();
            let own = self.own();
            let slots: Vec<SlotId> = cluster
                .wanted
                .keys()
                .copied()
                .filter(|&slot| self.node.owners.of(slot) == own)
                .collect();
            slots
                .into_iter()
                .filter_map(|slot| Some((slot, cluster.wanted.remove(&slot)?)))
                .collect()
        };
        if mine.is_empty() {
            return;
        }
        for (slot, wanted) in mine {
            self.apply_one(shard, slot, wanted);
        }
        self.node.cluster.note_change();
        // Whoever waits for all of it looks again.
        self.announce_cluster();
    }

    fn apply_one(&mut self, shard: &mut Shard, slot: SlotId, wanted: Wanted) {
        let (state, key_count) = {
            let cluster = self.node.cluster.lock();
            let dbs = shard.keys.dbs().map(|(_, db)| db.table(slot).len());
            (cluster.slot(slot).state, dbs.sum::<usize>())
        };
        // A move has begun since, which knows better: the map is looked at again when it ends.
        if wanted.epoch > 0 && self.node.cluster.lock().slot(slot).is_being_moved() {
            return;
        }
        if matches!(state, SlotState::Importing | SlotState::Ready) {
            self.drop_hidden(shard, slot);
        }
        if state.is_visible() && wanted.state == SlotState::Away && key_count > 0 {
            tracing::warn!(
                slot = slot.index(),
                key_count,
                "a slot with keys is not served here any more: they are kept until it is imported"
            );
        }
        self.change_slot(shard, slot, |books| books.make(slot, wanted));
    }

    /// Drops what moves have brought that were called off.
    fn drop_cancelled(&mut self, shard: &mut Shard) {
        let own = self.own();
        let mut slots = self.node.cluster.lock().imports_called_off();
        slots.retain(|&slot| self.node.owners.of(slot) == own);
        for slot in slots {
            self.drop_hidden(shard, slot);
            let is_wanted = self.change_slot(shard, slot, |books| books.drop_import(slot));
            self.node.cluster.note_change();
            if is_wanted {
                self.announce_cluster();
            }
        }
        self.forget_cancelled();
    }

    /// Forgets moves that were called off and of which nothing is under way.
    pub(super) fn forget_cancelled(&self) {
        if self.node.cluster.lock().forget_called_off() {
            self.node.cluster.note_change();
        }
    }

    // ---- what sessions ask for ----

    /// Begins what a session's handler has asked for.
    pub(super) fn begin_slots(&mut self, token: Token, target: Target, ask: SlotAsk) {
        match ask {
            SlotAsk::Deal { to, greeting } => {
                let Some(session) = self.session_mut(token) else { return };
                session.out.extend(&greeting);
                if let Target::Ticket(ticket) = target {
                    session.ticket_done(ticket, OutBuf::default());
                    session.settle(&OutBuf::default());
                }
                self.desk.moving.push((token, to));
            }
            SlotAsk::Settle { reply } => {
                self.announce_cluster();
                self.desk.settling.push(Settling { token, target, saved: None, reply });
            }
            SlotAsk::Slot { slot, move_id, attempt, what } => {
                let home = self.id;
                let digest = None;
                let job = SlotJob { home, token, target, slot, move_id, attempt, what, digest };
                self.take_job(job);
            }
        }
    }

    /// Takes a job, or gives it to the core that owns the slot.
    pub(super) fn take_job(&mut self, job: SlotJob) {
        let owner = self.node.owners.of(job.slot).core();
        if owner == self.id {
            self.desk.jobs.push_back(job);
        } else {
            self.post(owner, Letter::SlotJob(Box::new(job)));
        }
    }

    fn run_jobs(&mut self, shard: &mut Shard) {
        let begun = self.clock.ticks();
        for _ in 0..self.desk.jobs.len() {
            let Some(mut job) = self.desk.jobs.pop_front() else { return };
            if self.node.owners.of(job.slot) != self.own() {
                self.take_job(job);
                continue;
            }
            let has_time = self.clock.ns_between(begun, self.clock.ticks()) < DIGEST_BUDGET_NS;
            match self.run_job(shard, &mut job, has_time) {
                None => self.desk.jobs.push_back(job),
                Some(result) => {
                    let done = SlotDone { token: job.token, target: job.target, result };
                    match job.home == self.id {
                        true => self.job_done(done),
                        false => self.post(job.home, Letter::SlotDone(Box::new(done))),
                    }
                }
            }
        }
    }

    /// Does a job; none if it goes on in the next turn.
    fn run_job(
        &mut self,
        shard: &mut Shard,
        job: &mut SlotJob,
        has_time: bool,
    ) -> Option<Result<Done, CommandError>> {
        match &job.what {
            SlotStep::Import { epoch, now } => {
                let (epoch, now) = (*epoch, *now);
                Some(self.begin_import(shard, job, epoch).map(|()| {
                    let SlotJob { slot, move_id, attempt, .. } = *job;
                    let version = self.node.owners.version();
                    Done::Bound(Import { move_id, slot, attempt, now, version })
                }))
            }
            SlotStep::Commit { epoch } => Some(self.commit_import(shard, job, *epoch)),
            SlotStep::Abort { epoch } => Some(self.abort_import(shard, job, *epoch)),
            SlotStep::Ready { keys, digest } => {
                if !has_time {
                    return None;
                }
                let Some(mine) = &mut job.digest else {
                    let Some(mine) = Digest::like(job.slot, digest) else {
                        return Some(Err(CommandError::SYNTAX));
                    };
                    job.digest = Some(mine);
                    return None;
                };
                let begun = self.clock.ticks();
                while !mine.step(&shard.hidden, DIGEST_KEYS_PER_STEP) {
                    if self.clock.ns_between(begun, self.clock.ticks()) >= DIGEST_BUDGET_NS {
                        return None;
                    }
                }
                let is_equal = mine.key_count() == *keys && mine.text() == *digest;
                if !is_equal {
                    let (got, want) = (format!("{} {}", mine.key_count(), mine.text()), digest);
                    tracing::warn!(
                        slot = job.slot.index(),
                        got,
                        keys,
                        want,
                        "a slot did not arrive whole"
                    );
                }
                Some(self.end_import(shard, job, is_equal))
            }
        }
    }

    fn begin_import(
        &mut self,
        shard: &mut Shard,
        job: &SlotJob,
        epoch: u64,
    ) -> Result<(), CommandError> {
        let coming = job.coming();
        let (action, reply) =
            self.change_slot(shard, job.slot, |books| books.begin_import(coming, epoch))?;
        self.after_import(shard, job.slot, action);
        answer_of(reply)
    }

    fn end_import(
        &mut self,
        shard: &mut Shard,
        job: &SlotJob,
        is_equal: bool,
    ) -> Result<Done, CommandError> {
        let (coming, keys) = (job.coming(), job.digest.as_ref().map_or(0, Digest::key_count));
        let reply =
            self.change_slot(shard, job.slot, |books| books.end_import(coming, is_equal, keys));
        answer_of(reply).map(|()| Done::Ok)
    }

    fn commit_import(
        &mut self,
        shard: &mut Shard,
        job: &SlotJob,
        epoch: u64,
    ) -> Result<Done, CommandError> {
        let coming = job.coming();
        // The answer does not wait for the disk: the slot's keys are in memory only, here as there, and
        // who serves them need not be kept safer than they are.
        let (action, reply) =
            self.change_slot(shard, job.slot, |books| books.commit_import(coming, epoch));
        self.after_import(shard, job.slot, action);
        answer_of(reply).map(|()| Done::Active)
    }

    fn abort_import(
        &mut self,
        shard: &mut Shard,
        job: &SlotJob,
        epoch: u64,
    ) -> Result<Done, CommandError> {
        let coming = job.coming();
        let (action, reply) =
            self.change_slot(shard, job.slot, |books| books.abort_import(coming, epoch));
        self.after_import(shard, job.slot, action);
        answer_of(reply).map(|()| Done::Ok)
    }

    /// Does to a slot's keys what the target's machine wants; disk has to know.
    fn after_import(&mut self, shard: &mut Shard, slot: SlotId, action: TargetAction) {
        if action == TargetAction::Clear {
            self.drop_hidden(shard, slot);
        }
        if action != TargetAction::None {
            self.node.cluster.note_change();
        }
    }

    /// A job of one of this core's sessions is done.
    pub(super) fn job_done(&mut self, done: SlotDone) {
        let SlotDone { token, target, result } = done;
        let run_id = format!("OK {}", self.node.run_id);
        let Some(session) = self.session_mut(token) else { return };
        let mut out = OutBuf::default();
        let mut reply = Reply::new(&mut out, session.client.protocol);
        match result {
            Ok(Done::Bound(import)) => {
                session.client.import = Some(Box::new(import));
                reply.ok();
            }
            Ok(Done::Ok) => reply.ok(),
            Ok(Done::Active) => reply.simple(&run_id),
            Err(error) => {
                reply.error(&error);
                self.stats.note_error(&error);
            }
        }
        self.complete(token, target, out);
    }

    /// Replies to the sessions whose waiting is over.
    fn settle_sessions(&mut self) {
        if self.desk.settling.is_empty() {
            return;
        }
        let is_idle = self.node.cluster.lock().wanted.is_empty();
        let mut settling = std::mem::take(&mut self.desk.settling);
        settling.retain_mut(|waiting| {
            if waiting.saved.is_none() && is_idle {
                waiting.saved = Some(self.node.cluster.note_change());
            }
            if waiting.saved.is_none_or(|saved| saved > self.node.cluster.saved()) {
                return true;
            }
            let mut out = OutBuf::default();
            out.extend(&waiting.reply);
            self.complete(waiting.token, waiting.target, out);
            false
        });
        self.desk.settling.extend(settling);
    }

    // ---- connections that change their core ----

    /// Gives connections to the cores that they asked for, once all that was received of them is here
    /// and nothing is under way.
    fn hand_connections_over(&mut self) {
        let mut index = 0;
        while index < self.desk.moving.len() {
            let (token, to) = self.desk.moving[index];
            if self.session_mut(token).is_none_or(|session| session.closing) {
                self.desk.moving.swap_remove(index);
                continue;
            }
            if !self.is_movable(token) {
                index += 1;
                continue;
            }
            self.desk.moving.swap_remove(index);
            let mut session = self.sessions.remove(token.index as usize);
            self.stats.sessions.add(-1);
            session.client.core = to;
            match to == self.id {
                true => self.adopt_session(session),
                false => self.post(to, Letter::Session(Box::new(session))),
            }
        }
    }

    fn is_movable(&mut self, token: Token) -> bool {
        let is_named = self.inputs.iter().any(|input| match input {
            Input::Bytes(of, ..) | Input::End(of) | Input::Lost(of) => *of == token,
        });
        let session = &mut self.sessions[token.index as usize];
        if session.receiving {
            self.ring.cancel_receive(token);
        }
        !session.receiving
            && !is_named
            && session.is_settled()
            && session.sending_bytes == 0
            && session.staged.is_none()
            && !session.in_flush
    }

    /// Takes over a connection that another core has served.
    pub(super) fn adopt_session(&mut self, mut session: Session) {
        self.stats.sessions.add(1);
        session.stall = Stall::None;
        session.version = self.node.owners.version();
        session.generation = self.next_generation();
        session.in_flush = false;
        // Nothing waits for the disk of the core before: it would not be here.
        session.unsynced = 0;
        let index = self.sessions.insert(session) as u32;
        let token = self.token(index);
        let session = &mut self.sessions[index as usize];
        Self::arm_receive(&mut self.ring, token, session);
        Self::flush_later(&mut self.flush, index, session);
        self.resume.push_back(token);
    }
}
