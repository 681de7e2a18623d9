//! Which pending slots begin to move: in the order of their numbers, within the limits of each
//! group, and only between groups that answer.

use std::collections::BTreeMap;

use cordis_engine::slots::map::{GroupId, ServerKind};

use super::{Machine, NEXT_MAP};
use crate::model::{Key, Move, MoveState, OpId, Way};
use crate::ranges::SlotSet;

impl Machine {
    /// Makes moves of pending slots.
    pub(super) fn schedule(&mut self) {
        self.see_to_leases();
        if self.acting.is_empty() || self.model.meta.is_paused {
            self.unready.clear();
            return;
        }
        let mut waiting: BTreeMap<(OpId, GroupId, GroupId), SlotSet> = BTreeMap::new();
        for slot in &self.acting {
            let now = self.model.slot(*slot);
            if let Some(action) = now.action.filter(|action| action.carrier == 0) {
                waiting.entry((action.op, now.group, action.target)).or_default().insert(*slot);
            }
        }
        let pairs: Vec<_> = waiting.keys().map(|(_, from, to)| (*from, *to)).collect();
        self.unready.retain(|pair, _| pairs.contains(pair));
        for ((op, from, to), slots) in waiting {
            self.schedule_pair(op, from, to, slots);
        }
    }

    /// Leases are given while a slot is to move by the original's commands, and until all proxies
    /// know that none does.
    fn see_to_leases(&mut self) {
        let is_wanted = self.acting.iter().any(|slot| {
            let now = self.model.slot(*slot);
            now.action.is_some_and(|a| self.way(now.group, a.target) == Some(Way::Dialect))
        }) || self.model.moves.values().any(|m| m.way == Way::Dialect);
        if is_wanted == self.model.meta.has_leases {
            return;
        }
        self.model.meta.has_leases = is_wanted;
        self.dirty.insert(Key::Meta);
        self.is_map_changed = true;
        if !is_wanted {
            for proxy in self.model.proxies.values_mut().filter(|proxy| proxy.is_leased) {
                proxy.is_leased = false;
                self.dirty.insert(Key::Proxy(proxy.id));
            }
        }
    }

    /// How slots travel between two groups.
    pub(super) fn way(&self, from: GroupId, to: GroupId) -> Option<Way> {
        match (self.kind_of(from)?, self.kind_of(to)?) {
            (ServerKind::Redis, _) | (_, ServerKind::Redis) => None,
            (ServerKind::Cordis, ServerKind::Cordis) => Some(Way::Native),
            _ => Some(Way::Dialect),
        }
    }

    fn schedule_pair(&mut self, op: OpId, from: GroupId, to: GroupId, slots: SlotSet) {
        if from == to {
            // Somebody else's late hand-over brought it there.
            return slots.iter().for_each(|slot| self.end_action(slot, true, ""));
        }
        let Some(way) = self.way(from, to) else {
            let why = format!("slots cannot move from group {from} to group {to}");
            return slots.iter().for_each(|slot| self.end_action(slot, false, &why));
        };
        let room = match way {
            Way::Native => self.has_room(from, to),
            Way::Dialect => self.is_idle(from) && self.is_idle(to) && self.is_quiet(to),
        };
        if !room {
            self.unready.remove(&(from, to));
            return;
        }
        if let Some(silent) = [from, to].into_iter().find(|group| !self.is_ready(*group)) {
            return self.wait_for(silent, (from, to), slots);
        }
        self.unready.remove(&(from, to));
        let most = match way {
            Way::Native => self.model.settings.migration_batch_slots as usize,
            Way::Dialect => 1,
        };
        let batch: SlotSet = slots.iter().take(most).collect();
        self.begin_move(op, way, from, to, batch);
    }

    /// A native move may join those that a group is an end of.
    fn has_room(&self, from: GroupId, to: GroupId) -> bool {
        let moves = self.model.moves.values();
        let dialect = |m: &&Move| m.way == Way::Dialect;
        let ends = |m: &Move| [m.from, m.to];
        let is_busy = |group| moves.clone().filter(dialect).any(|m| ends(m).contains(&group));
        let sent = moves.clone().filter(|m| m.from == from).count() as u64;
        let received = moves.clone().filter(|m| m.to == to).count() as u64;
        !is_busy(from)
            && !is_busy(to)
            && sent < self.model.settings.migration_moves_per_source
            && received < self.model.settings.migration_moves_per_target
    }

    /// A codis-server that sends cannot receive, nor send to two: one move of a group at a time.
    fn is_idle(&self, group: GroupId) -> bool {
        !self.model.moves.values().any(|m| m.from == group || m.to == group)
    }

    /// Whether no call of the original's that a group's server was sent, and has not answered, can
    /// still arrive there: it would carry away keys of a slot that comes back.
    fn is_quiet(&self, group: GroupId) -> bool {
        let Some(server) = self.model.primary(group) else { return false };
        self.peers.get(&server.addr).is_some_and(|peer| peer.is_quiet(self.now))
    }

    /// Whether a group's server answers, and everything about it is known.
    fn is_ready(&self, group: GroupId) -> bool {
        let Some(server) = self.model.primary(group) else { return false };
        let Some(peer) = self.peers.get(&server.addr) else { return false };
        peer.is_up() && server.is_joined && (server.kind != ServerKind::Cordis || peer.is_known())
    }

    /// Slots of a pair of which one does not answer wait a while, and then stay.
    fn wait_for(&mut self, silent: GroupId, pair: (GroupId, GroupId), slots: SlotSet) {
        let since = *self.unready.entry(pair).or_insert(self.now);
        if self.now - since < self.model.settings.peer_timeout_ms as i64 {
            return;
        }
        self.unready.remove(&pair);
        let addr = self.model.primary(silent).map_or("", |server| server.addr.as_str());
        let error = self.peers.get(addr).map_or("", |peer| peer.error.as_str());
        let why = format!("group {silent} does not answer at {addr}: {error}");
        slots.iter().for_each(|slot| self.end_action(slot, false, &why));
    }

    fn begin_move(&mut self, op: OpId, way: Way, from: GroupId, to: GroupId, slots: SlotSet) {
        let (Some(source), Some(target)) = (self.model.primary(from), self.model.primary(to))
        else {
            return;
        };
        let (source, target) = (source.addr.clone(), target.addr.clone());
        let id = self.next_id();
        let epoch = self.next_epoch();
        let begun = Move {
            id,
            op,
            way,
            state: MoveState::Preparing,
            from,
            to,
            source,
            target,
            epoch,
            slots,
            open: slots,
            reason: String::new(),
            is_turned: false,
            is_given_up: false,
            kept: SlotSet::new(),
        };
        self.model.moves.insert(id, begun);
        self.dirty.insert(Key::Move(id));
        let mut live = self.new_live();
        if self.is_map_changed {
            live.map_needed = NEXT_MAP;
        }
        let most = self.model.settings.migration_parallel_slots;
        live.parallel = self.pace.get(&from).copied().unwrap_or(most).min(most);
        self.live.insert(id, live);
        for slot in slots.iter() {
            if let Some(action) = &mut self.model.slots[usize::from(slot)].action {
                action.carrier = id;
                self.dirty.insert(Key::Slot(slot));
            }
        }
    }

    /// Puts a move into its next state.
    pub(super) fn enter(&mut self, id: u64, state: MoveState) {
        if let Some(entered) = self.model.moves.get_mut(&id) {
            entered.state = state;
            self.dirty.insert(Key::Move(id));
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.progress_ms = self.now;
        }
    }

    /// Ends a move. What is still open stays where it is, or waits for another move.
    pub(super) fn end_move(&mut self, id: u64) {
        let Some(ended) = self.model.moves.remove(&id) else { return };
        self.dirty.insert(Key::Move(id));
        if let Some(live) = self.live.remove(&id)
            && let Some(op) = self.model.ops.get_mut(&ended.op)
        {
            op.keys += live.report.keys;
            op.bytes += live.report.bytes;
            op.pause_max_us = op.pause_max_us.max(live.report.pause_max_us);
            self.dirty.insert(Key::Op(ended.op));
        }
        for slot in ended.open.iter() {
            if ended.kept.contains(slot) {
                if let Some(action) = &mut self.model.slots[usize::from(slot)].action {
                    action.carrier = 0;
                    self.dirty.insert(Key::Slot(slot));
                }
            } else {
                self.end_action(slot, false, &ended.reason);
            }
        }
        let stay: SlotSet = ended.open.iter().filter(|slot| !ended.kept.contains(*slot)).collect();
        if !stay.is_empty() && !ended.is_given_up {
            let Move { from, to, reason, .. } = &ended;
            let text =
                format!("move {id}: slots {stay} stay in group {from} instead of {to}: {reason}");
            self.log("rollback", text);
        }
    }
}
