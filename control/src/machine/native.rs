//! Moves between two Cordis servers.
//!
//! The source decides when a slot is handed over, and the target serves it from then on under the
//! epoch that control granted beforehand; control only starts a move, looks on, and believes what
//! the servers say they own. So nothing here has to be waited for by anybody's requests, and
//! whatever control missed it learns from the next report: of two claims to a slot the one with the
//! higher epoch holds.
//!
//! `preparing` (the target is told to expect it) → `prepared` (the source is told to move) →
//! `migrating` (its reports are read) → gone, or → `cancelling` (the source is told to stop, and says
//! what it has handed over) → gone.

use super::member::reason;
use super::pace::next_parallel;
use super::request::{Answer, MoveReport, Request, SlotReport, SlotState};
use super::{Live, Machine};
use crate::model::{Key, MoveId, MoveState, Way};
use crate::ranges::SlotSet;

impl Machine {
    /// Takes in what a server answered about moves.
    pub(super) fn take_native(&mut self, addr: &str, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Expect { id, .. }, Answer::Ok) => {
                self.advance(*id, MoveState::Preparing, MoveState::Prepared);
            }
            (Request::Expect { id, .. }, Answer::Refused(why)) => {
                self.cancel_move(*id, &format!("the target refused: {why}"), SlotSet::new());
            }
            (Request::Move { id, .. }, Answer::Ok) => {
                self.advance(*id, MoveState::Prepared, MoveState::Migrating);
            }
            (Request::Move { id, .. }, Answer::Refused(why)) => {
                self.cancel_move(*id, &format!("the source refused: {why}"), SlotSet::new());
            }
            (Request::Cancel { id }, answer) => self.source_told(addr, *id, answer),
            (Request::Moves, Answer::Moves(reports)) => self.take_moves(addr, reports),
            (Request::Slots, Answer::Slots(reports)) => self.take_slots(addr, reports),
            _ => {}
        }
    }

    fn advance(&mut self, id: MoveId, from: MoveState, to: MoveState) {
        if self.model.moves.get(&id).is_some_and(|m| m.state == from) {
            self.enter(id, to);
        }
    }

    /// Begins the way back of a move. What its source has handed over is done all the same.
    /// The slots to keep wait for another move.
    pub(super) fn cancel_move(&mut self, id: MoveId, why: &str, kept: SlotSet) {
        let Some(cancelled) = self.model.moves.get_mut(&id) else { return };
        if cancelled.way == Way::Dialect {
            return self.cancel_dialect(id, why);
        }
        self.dirty.insert(Key::Move(id));
        if cancelled.state == MoveState::Cancelling {
            // Only what both ways keep is kept.
            cancelled.kept = cancelled.kept.iter().filter(|slot| kept.contains(*slot)).collect();
            return;
        }
        cancelled.kept = kept;
        why.clone_into(&mut cancelled.reason);
        if let Some(live) = self.live.get_mut(&id) {
            live.is_source_told = false;
            live.is_source_clear = false;
        }
        self.enter(id, MoveState::Cancelling);
    }

    fn source_told(&mut self, addr: &str, id: MoveId, answer: &Answer) {
        let is_its_source = self.model.moves.get(&id).is_some_and(|m| m.source == addr);
        if let (true, Some(live)) = (is_its_source, self.live.get_mut(&id)) {
            match answer {
                // What became of each slot is asked after this, not read from an older report.
                Answer::Ok => live.is_source_told = true,
                other => live.report.error = reason(other).to_owned(),
            }
            if live.is_source_told
                && let Some(peer) = self.peers.get_mut(addr)
            {
                peer.slots_ms = 0;
            }
        }
    }

    fn take_moves(&mut self, addr: &str, reports: &[MoveReport]) {
        if let Some(peer) = self.peers.get_mut(addr) {
            peer.moves_ms = self.now;
            peer.moves = reports.to_vec();
        }
        for report in reports {
            match self.model.moves.get(&report.id) {
                Some(known) if known.way == Way::Native => {
                    if report.is_source && known.source == addr {
                        self.take_report(report);
                    }
                }
                _ => self.forget_stray(addr, report),
            }
        }
        self.restart_forgotten(addr, reports);
    }

    /// The source's report of a move that is under way.
    fn take_report(&mut self, report: &MoveReport) {
        let id = report.id;
        let Some(known) = self.model.moves.get(&id) else { return };
        let (group, epoch, state) = (known.to, known.epoch, known.state);
        let arrived: Vec<u16> =
            known.open.iter().filter(|slot| report.done_slots.contains(*slot)).collect();
        let now = self.now;
        let Some(live) = self.live.get_mut(&id) else { return };
        let progress = |r: &MoveReport| (r.done, r.keys, r.bytes);
        if progress(&live.report) != progress(report) {
            live.progress_ms = now;
        }
        if live.report.done != report.done {
            live.arrived_ms = now;
        }
        let is_slower = report.pause_max_us > live.report.pause_max_us;
        live.report = report.clone();
        arrived.into_iter().for_each(|slot| self.slot_arrived(slot, group, epoch));
        if is_slower {
            self.slow_down(id);
        }
        let is_given_up = report.failed > 0 && report.done + report.failed >= report.slots;
        if is_given_up && state == MoveState::Migrating {
            self.cancel_move(id, &report.error, SlotSet::new());
        }
    }

    /// A pause was longer than any before: perhaps fewer slots at once are better.
    fn slow_down(&mut self, id: MoveId) {
        let (Some(known), Some(live)) = (self.model.moves.get(&id), self.live.get_mut(&id)) else {
            return;
        };
        let settings = &self.model.settings;
        let budget_us = settings.migration_latency_budget_us;
        if live.report.pause_max_us > budget_us {
            let most = settings.migration_parallel_slots;
            live.parallel = next_parallel(live.parallel, most, live.report.pause_max_us, budget_us);
            self.pace.insert(known.from, live.parallel);
            let request = move_request(known, live, settings.migration_rate_bytes);
            let source = known.source.clone();
            self.errand(&source, request);
        }
    }

    /// A slot is served by another group, under a higher epoch than it was known to be.
    fn slot_arrived(&mut self, slot: u16, group: u16, epoch: u64) {
        let entry = self.model.slot(slot);
        if entry.epoch >= epoch {
            return;
        }
        let action = entry.action;
        self.give_slot(slot, group, epoch);
        if self.model.meta.epoch < epoch {
            // A store older than the cluster: what is granted from now on must be higher.
            self.model.meta.epoch = epoch;
            self.dirty.insert(Key::Meta);
        }
        let Some(action) = action else {
            self.log("claim", format!("slot {slot} is served by group {group}"));
            return self.decided(slot);
        };
        if let Some(carrier) = self.model.moves.get_mut(&action.carrier) {
            carrier.open.remove(slot);
            self.dirty.insert(Key::Move(action.carrier));
        }
        self.end_action(slot, action.target == group, "another group claims it");
        let is_over = self.model.moves.get(&action.carrier).is_some_and(|m| m.open.is_empty());
        if is_over {
            self.complete(action.carrier);
        }
    }

    /// A slot of a move that was given up has turned up.
    fn decided(&mut self, slot: u16) {
        let mut moves = self.model.moves.values_mut();
        let Some(given_up) = moves.find(|m| m.is_given_up && m.open.contains(slot)) else { return };
        given_up.open.remove(slot);
        let (id, is_over) = (given_up.id, given_up.open.is_empty());
        self.dirty.insert(Key::Move(id));
        if is_over {
            self.complete(id);
        }
    }

    /// All slots of a move have arrived: both ends may forget it.
    fn complete(&mut self, id: MoveId) {
        let Some(over) = self.model.moves.get(&id) else { return };
        let ends = [over.source.clone(), over.target.clone()];
        let (from, most) = (over.from, self.model.settings.migration_parallel_slots);
        if let Some(live) = self.live.get(&id) {
            let budget_us = self.model.settings.migration_latency_budget_us;
            let next = next_parallel(live.parallel, most, live.report.pause_max_us, budget_us);
            self.pace.insert(from, next);
        }
        self.end_move(id);
        ends.iter().for_each(|addr| self.errand(addr, Request::Cancel { id }));
    }

    /// A server reports a move that nobody wants any more.
    fn forget_stray(&mut self, addr: &str, report: &MoveReport) {
        // The source may have handed slots over that the target has not confirmed: until it knows,
        // the target must keep what it has. So the source goes first.
        let may_forget = report.is_source
            || report.done >= report.slots
            || self.peers.get(&report.peer).is_some_and(|source| {
                let lists = source.moves.iter().any(|m| m.id == report.id && m.is_source);
                let decides = source.slots.iter().any(|range| range.state.is_deciding());
                source.is_known() && !lists && !decides
            });
        if may_forget {
            self.errand(addr, Request::Cancel { id: report.id });
        }
    }

    /// Starts moves again that their source has forgotten (a restart).
    fn restart_forgotten(&mut self, addr: &str, reports: &[MoveReport]) {
        let is_lost = |m: &&crate::model::Move| {
            m.way == Way::Native
                && m.state == MoveState::Migrating
                && m.source == addr
                && !reports.iter().any(|report| report.id == m.id && report.is_source)
        };
        let lost: Vec<MoveId> = self.model.moves.values().filter(is_lost).map(|m| m.id).collect();
        for id in lost {
            self.log("restart", format!("move {id}: {addr} has forgotten it, and is told again"));
            self.enter(id, MoveState::Preparing);
        }
        self.expect_again(addr, reports);
    }

    /// Tells a target again what it has forgotten to expect: until then it refuses it.
    fn expect_again(&mut self, addr: &str, reports: &[MoveReport]) {
        let is_lost = |m: &&crate::model::Move| {
            m.way == Way::Native
                && matches!(m.state, MoveState::Prepared | MoveState::Migrating)
                && m.target == addr
                && !reports.iter().any(|report| report.id == m.id && !report.is_source)
        };
        let lost = self.model.moves.values().filter(is_lost).map(expect_request);
        for request in lost.collect::<Vec<_>>() {
            self.errand(addr, request);
        }
    }

    fn take_slots(&mut self, addr: &str, reports: &[SlotReport]) {
        if let Some(peer) = self.peers.get_mut(addr) {
            peer.slots_ms = self.now;
            peer.slots = reports.to_vec();
        }
        let Some(group) = self.model.group_of(addr) else { return };
        for range in reports {
            if range.state.is_claim() {
                for slot in range.from..=range.to.min(1023) {
                    if range.epoch > self.model.slot(slot).epoch && !self.is_granted(slot, range) {
                        self.slot_arrived(slot, group, range.epoch);
                    }
                }
            }
        }
        self.see_what_was_handed(addr, reports);
    }

    /// The target of a dialect move holds its slot before it is the owner: the map says so.
    fn is_granted(&self, slot: u16, range: &SlotReport) -> bool {
        let action = self.model.slot(slot).action;
        let carrier = action.and_then(|action| self.moves_get(action.carrier));
        carrier.is_some_and(|m| m.way == Way::Dialect && range.epoch <= m.epoch)
    }

    fn moves_get(&self, id: MoveId) -> Option<&crate::model::Move> {
        self.model.moves.get(&id)
    }

    /// The source of cancelled moves says what became of their slots.
    fn see_what_was_handed(&mut self, addr: &str, reports: &[SlotReport]) {
        let told: Vec<MoveId> = self
            .model
            .moves
            .values()
            .filter(|m| m.state == MoveState::Cancelling && m.source == addr)
            .filter(|m| self.live.get(&m.id).is_some_and(|live| live.is_source_told))
            .map(|m| m.id)
            .collect();
        for id in told {
            let Some(cancelled) = self.model.moves.get(&id) else { continue };
            let (open, group, epoch) = (cancelled.open, cancelled.to, cancelled.epoch);
            let at_source = |slot: u16| {
                let range = reports.iter().find(|r| (r.from..=r.to).contains(&slot));
                range.map(|range| (range.state, range.epoch))
            };
            let mut undecided = SlotSet::new();
            for slot in open.iter() {
                match at_source(slot) {
                    Some((SlotState::Away, at)) if at >= epoch => {
                        self.slot_arrived(slot, group, epoch);
                    }
                    Some((state, _)) if state.is_deciding() => undecided.insert(slot),
                    _ => {}
                }
            }
            if let Some(live) = self.live.get_mut(&id) {
                live.is_source_clear = undecided.is_empty();
            }
        }
    }

    /// Gives up what does not get on, and ends what is cancelled.
    pub(super) fn see_to_native(&mut self) {
        let native = self.model.moves.values().filter(|m| m.way == Way::Native);
        for id in native.map(|m| m.id).collect::<Vec<_>>() {
            self.see_to_move(id);
        }
    }

    fn see_to_move(&mut self, id: MoveId) {
        let (Some(known), Some(live)) = (self.model.moves.get(&id), self.live.get(&id)) else {
            return;
        };
        let silence_ms = self.now - live.progress_ms;
        let peer_timeout_ms = self.model.settings.peer_timeout_ms as i64;
        let stall_ms = self.model.settings.migration_stall_ms as i64;
        let error = |addr: &str| self.peers.get(addr).map_or("", |peer| peer.error.as_str());
        let why = match known.state {
            MoveState::Preparing if silence_ms >= peer_timeout_ms => {
                format!("the target {} does not answer: {}", known.target, error(&known.target))
            }
            MoveState::Prepared if silence_ms >= peer_timeout_ms => {
                format!("the source {} does not answer: {}", known.source, error(&known.source))
            }
            MoveState::Migrating if silence_ms >= stall_ms => {
                let last = match live.report.error.as_str() {
                    "" => error(&known.source),
                    error => error,
                };
                format!("no progress for {silence_ms} ms: {last}")
            }
            // Keys flow, but no slot ever arrives.
            MoveState::Migrating
                if !live.report.error.is_empty() && self.now - live.arrived_ms >= 10 * stall_ms =>
            {
                format!("no slot arrives: {}", live.report.error)
            }
            MoveState::Cancelling => return self.see_to_cancelled(id, silence_ms),
            _ => return,
        };
        self.cancel_move(id, &why, SlotSet::new());
    }

    fn see_to_cancelled(&mut self, id: MoveId, silence_ms: i64) {
        let (Some(known), Some(live)) = (self.model.moves.get(&id), self.live.get(&id)) else {
            return;
        };
        if live.is_source_clear {
            // Nothing is between the two any more, so the target may drop what it got.
            let target = known.target.clone();
            self.end_move(id);
            return self.errand(&target, Request::Cancel { id });
        }
        let is_late = silence_ms >= self.model.settings.peer_timeout_ms as i64;
        if is_late && !known.is_given_up {
            self.give_up(id);
        }
    }

    /// The source does not say what it has handed over. The operation ends, but the slots are left
    /// alone, and so is what the target holds of them: whichever of the two comes back tells.
    fn give_up(&mut self, id: MoveId) {
        let Some(known) = self.model.moves.get_mut(&id) else { return };
        known.is_given_up = true;
        self.dirty.insert(Key::Move(id));
        let (open, source, reason) = (known.open, known.source.clone(), known.reason.clone());
        let text = format!("move {id}: {source} does not say what it has handed over of {open}");
        self.log("undecided", text);
        open.iter().for_each(|slot| self.end_action(slot, false, &reason));
    }
}

/// What the target of a move is told.
pub(super) fn expect_request(known: &crate::model::Move) -> Request {
    Request::Expect {
        id: known.id,
        epoch: known.epoch,
        source: known.source.clone(),
        slots: known.open,
    }
}

/// What the source of a move is told.
pub(super) fn move_request(known: &crate::model::Move, live: &Live, rate: u64) -> Request {
    Request::Move {
        id: known.id,
        epoch: known.epoch,
        target: known.target.clone(),
        slots: known.open,
        rate,
        parallel: live.parallel,
    }
}
