//! Moves by the original's commands: at least one end is no Cordis server, and cannot refuse
//! requests for slots that it does not serve. So it is the proxies that must agree.
//!
//! `preparing` (all proxies hold leases) → `prepared` (the map says: held, to the target, from the
//! source; every proxy has it, or has been silent until its lease surely ended, and so serves the
//! slot no more) → `migrating` (the map lets requests through: proxies fetch each key first; keys
//! are carried, database by database) → `finished` (the map forgets the source) → gone. It is the
//! original's guarantee: no proxy uses the new route before all have let go of the old one.
//!
//! The way back depends: before a request could reach the target the slot simply stays; after that,
//! keys may be at both ends, and the move is turned round.

use cordis_engine::slots::map::ServerKind;

use super::member::reason;
use super::peer::{backoff_ms, carry_max_ms};
use super::request::{Answer, Request, SlotState};
use super::{Machine, NEXT_MAP};
use crate::model::{Key, MoveId, MoveState, Way};

impl Machine {
    /// Takes in what a source or a proxy answered about dialect moves.
    pub(super) fn take_dialect(&mut self, addr: &str, request: &Request, answer: &Answer) {
        match request {
            Request::Carry { slot, db, .. } => self.take_carried(addr, *slot, *db, answer),
            Request::NextDb { after } => self.take_next_db(addr, *after, answer),
            Request::Lease(lease) => self.take_clock(addr, lease.is_some(), answer),
            _ => {}
        }
    }

    fn take_clock(&mut self, addr: &str, is_lease: bool, answer: &Answer) {
        let (Some(peer), Answer::Clock(clock)) = (self.peers.get_mut(addr), answer) else {
            return;
        };
        peer.clock = Some((*clock, self.now));
        if is_lease {
            peer.is_leased = true;
        }
    }

    /// The dialect move that a server is the source of.
    pub(super) fn carried_by(&self, addr: &str) -> Option<MoveId> {
        let mut moves = self.model.moves.values();
        let is_it = |m: &&crate::model::Move| {
            m.way == Way::Dialect && m.state == MoveState::Migrating && m.source == addr
        };
        moves.find(is_it).map(|m| m.id)
    }

    fn take_carried(&mut self, addr: &str, slot: u16, db: u8, answer: &Answer) {
        let now = self.now;
        if let (Some(peer), Answer::Lost(_)) = (self.peers.get_mut(addr), answer) {
            peer.quiet_ms = now + carry_max_ms(self.model.settings.migration_timeout_ms);
        }
        let Some(id) = self.carried_by(addr) else { return };
        let is_this = self.model.moves.get(&id).is_some_and(|m| m.slots.contains(slot));
        let Some(live) = self.live.get_mut(&id).filter(|live| is_this && live.db == db) else {
            return;
        };
        if let Answer::Carried { moved, left } = answer {
            live.report.keys += moved;
            live.progress_ms = now;
            live.carry_fails = 0;
            live.carry_at_ms = now;
            live.report.error.clear();
            live.is_db_done = *left == 0;
        } else {
            self.carry_failed(id, reason(answer));
        }
    }

    /// A call failed. What it carried is not known; the next one goes on from what is there.
    fn carry_failed(&mut self, id: MoveId, why: &str) {
        let now = self.now;
        let Some(live) = self.live.get_mut(&id) else { return };
        live.carry_fails = live.carry_fails.saturating_add(1);
        live.carry_at_ms = now + backoff_ms(live.carry_fails);
        if live.report.error != why {
            why.clone_into(&mut live.report.error);
            self.log("carry", format!("move {id}: {why}; it is tried again"));
        }
    }

    fn take_next_db(&mut self, addr: &str, after: u8, answer: &Answer) {
        let Some(id) = self.carried_by(addr) else { return };
        let Some(live) = self.live.get_mut(&id).filter(|live| live.db == after) else { return };
        if !live.is_db_done {
            return;
        }
        match answer {
            Answer::Db(Some(db)) if *db > after => {
                live.db = *db;
                live.is_db_done = false;
            }
            Answer::Db(_) => self.finish_dialect(id),
            other => self.carry_failed(id, reason(other)),
        }
    }

    /// The last key has gone.
    fn finish_dialect(&mut self, id: MoveId) {
        let Some(done) = self.model.moves.get(&id) else { return };
        let (slots, to, epoch) = (done.slots, done.to, done.epoch);
        slots.iter().for_each(|slot| self.give_slot(slot, to, epoch));
        self.enter_with_new_map(id, MoveState::Finished);
    }

    /// Puts a move into a state that the map tells.
    fn enter_with_new_map(&mut self, id: MoveId, state: MoveState) {
        self.enter(id, state);
        self.is_map_changed = true;
        if let Some(live) = self.live.get_mut(&id) {
            live.map_needed = NEXT_MAP;
        }
    }

    pub(super) fn cancel_dialect(&mut self, id: MoveId, why: &str) {
        let Some(cancelled) = self.model.moves.get(&id) else { return };
        // One that was turned round is on its way back already, with keys at both ends.
        if !cancelled.reason.is_empty() {
            return;
        }
        match cancelled.state {
            MoveState::Preparing | MoveState::Prepared => self.drop_dialect(id, why),
            MoveState::Migrating => self.stop_carrying(id, why),
            MoveState::Finished | MoveState::Cancelling => {}
        }
    }

    /// Nothing has used the target yet: the slot stays, under a new epoch, so that a target which
    /// took the map's word for it hears better.
    fn drop_dialect(&mut self, id: MoveId, why: &str) {
        let Some(dropped) = self.model.moves.get_mut(&id) else { return };
        why.clone_into(&mut dropped.reason);
        let (slots, from, to) = (dropped.slots, dropped.from, dropped.to);
        let was_held = dropped.state == MoveState::Prepared;
        self.is_map_changed |= was_held;
        // Only a Cordis target takes the map's word; and only a codis source cannot have handed the
        // slot over under an epoch that the new one would outdo.
        if was_held && self.kind_of(to) == Some(ServerKind::Cordis) {
            let epoch = self.next_epoch();
            slots.iter().for_each(|slot| self.give_slot(slot, from, epoch));
        }
        self.end_move(id);
    }

    /// Keys are at both ends, and a call may be under way: no other one is made.
    fn stop_carrying(&mut self, id: MoveId, why: &str) {
        let Some(stopped) = self.model.moves.get_mut(&id) else { return };
        why.clone_into(&mut stopped.reason);
        self.dirty.insert(Key::Move(id));
    }

    /// All keys go back where they came from, once no call can carry any the old way.
    fn see_to_stopped(&mut self, id: MoveId) {
        let Some(stopped) = self.model.moves.get(&id) else { return };
        let is_quiet = self.peers.get(&stopped.source).is_some_and(|peer| peer.is_quiet(self.now));
        if is_quiet && !stopped.reason.is_empty() && !stopped.is_turned {
            self.turn_round(id);
        }
    }

    fn turn_round(&mut self, id: MoveId) {
        let epoch = self.next_epoch();
        let Some(turned) = self.model.moves.get_mut(&id) else { return };
        turned.is_turned = true;
        let why = turned.reason.clone();
        std::mem::swap(&mut turned.from, &mut turned.to);
        std::mem::swap(&mut turned.source, &mut turned.target);
        turned.epoch = epoch;
        if let Some(live) = self.live.get_mut(&id) {
            live.is_source_told = false;
            live.db = 0;
            live.is_db_done = false;
            live.carry_fails = 0;
        }
        self.enter_with_new_map(id, MoveState::Prepared);
        self.log("rollback", format!("move {id} turns round: {why}"));
    }

    /// Moves on what can move on.
    pub(super) fn see_to_dialect(&mut self) {
        let dialect = self.model.moves.values().filter(|m| m.way == Way::Dialect);
        for (id, state) in dialect.map(|m| (m.id, m.state)).collect::<Vec<_>>() {
            match state {
                MoveState::Preparing => self.see_to_preparing(id),
                MoveState::Prepared if self.is_map_everywhere(id) => self.see_to_held(id),
                MoveState::Migrating => self.see_to_stopped(id),
                MoveState::Finished if self.is_map_with_proxies(id) => self.end_dialect(id),
                _ => {}
            }
        }
    }

    /// All proxies hold the slot. A Cordis source may have been handing it over all the same, by a
    /// move that control had long forgotten; from now on it would refuse to, so it is asked now.
    fn see_to_held(&mut self, id: MoveId) {
        let (Some(held), Some(live)) = (self.model.moves.get(&id), self.live.get_mut(&id)) else {
            return;
        };
        let source = held.source.clone();
        let slot = held.slots.iter().next().unwrap_or_default();
        // (Its source is the target of before, if it was turned round: it has nothing to hand over.)
        let kind = self.model.primary(held.from).map(|server| server.kind);
        if kind != Some(ServerKind::Cordis) || held.is_turned {
            return self.enter_with_new_map(id, MoveState::Migrating);
        }
        let Some(peer) = self.peers.get_mut(&source) else { return };
        if !live.is_source_told {
            live.is_source_told = true;
            peer.slots_ms = 0;
            return;
        }
        if peer.slots_ms == 0 {
            return;
        }
        let range = peer.slots.iter().find(|range| (range.from..=range.to).contains(&slot));
        if range.is_some_and(|range| range.state == SlotState::Owned) {
            return self.enter_with_new_map(id, MoveState::Migrating);
        }
        self.drop_dialect(id, "its source does not own it any more");
    }

    fn see_to_preparing(&mut self, id: MoveId) {
        let proxies = self.model.proxies.values();
        let without: Vec<&str> =
            proxies.filter(|p| !p.is_leased).map(|p| p.admin_addr.as_str()).collect();
        if without.is_empty() && self.model.meta.has_leases {
            return self.enter_with_new_map(id, MoveState::Prepared);
        }
        let since = self.live.get(&id).map_or(self.now, |live| live.progress_ms);
        if self.now - since >= self.model.settings.peer_timeout_ms as i64 {
            let why = format!("proxies without a lease: {}", without.join(" "));
            self.cancel_dialect(id, &why);
        }
    }

    /// Whether every proxy has the map that a move needs, or is fenced.
    fn is_map_with_proxies(&self, id: MoveId) -> bool {
        let needed = self.live.get(&id).map_or(NEXT_MAP, |live| live.map_needed);
        self.model.proxies.values().all(|proxy| {
            self.peers.get(&proxy.admin_addr).is_some_and(|peer| {
                peer.map_acked >= needed || proxy.is_leased && self.now >= peer.lease_end_ms
            })
        })
    }

    /// Whether the ends that read maps have it too.
    fn is_map_everywhere(&self, id: MoveId) -> bool {
        let (Some(known), Some(live)) = (self.model.moves.get(&id), self.live.get(&id)) else {
            return false;
        };
        let ends = [(known.from, &known.source), (known.to, &known.target)];
        let has_it = |(group, addr): (u16, &String)| {
            self.kind_of(group) != Some(ServerKind::Cordis)
                || self.peers.get(addr).is_some_and(|peer| peer.map_acked >= live.map_needed)
        };
        self.is_map_with_proxies(id) && ends.into_iter().all(has_it)
    }

    fn end_dialect(&mut self, id: MoveId) {
        let Some(ended) = self.model.moves.get_mut(&id) else { return };
        // A move that was turned round has brought its slot back.
        let has_arrived = ended.reason.is_empty();
        let slots = ended.slots;
        let why = ended.reason.clone();
        ended.open = Default::default();
        self.dirty.insert(Key::Move(id));
        slots.iter().for_each(|slot| self.end_action(slot, has_arrived, &why));
        self.end_move(id);
    }
}
