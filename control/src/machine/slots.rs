//! What people do with slots: assign, move, balance. Checked as a whole before anything of it is
//! begun.

use std::collections::BTreeMap;

use cordis_engine::slots::map::{GroupId, ServerKind};

use super::plan::{Step, Weighed, by_count, by_weight};
use super::request::Sample;
use super::{Machine, Outcome, Weight};
use crate::model::{Key, Op, OpState, Slot, SlotAction};
use crate::ranges::SlotSet;

/// How uneven weights may stay, in percent of the mean: estimates are no better than this.
const TOLERANCE_PERCENT: u64 = 5;

impl Machine {
    pub(super) fn slots_assign(
        &mut self,
        slots: SlotSet,
        group: GroupId,
    ) -> Result<Outcome, String> {
        self.can_take_slots(group)?;
        let model = &self.model;
        none_where(&slots, "served already", |slot| model.slot(slot).group != 0)?;
        none_where(&slots, "moving", |slot| model.slot(slot).action.is_some())?;
        let epoch = self.next_epoch();
        slots.iter().for_each(|slot| self.give_slot(slot, group, epoch));
        self.log("slots", format!("slots {slots} were assigned to group {group}"));
        Ok(Outcome::Done)
    }

    /// Whether a group can serve slots.
    fn can_take_slots(&self, group: GroupId) -> Result<(), String> {
        let found = self.model.groups.get(&group);
        let found = found.ok_or_else(|| format!("group-[{group}] doesn't exist"))?;
        match found.servers.first() {
            None => Err(format!("group-[{group}] is empty")),
            Some(server) if !server.is_joined => {
                Err(format!("group-[{group}]: {} has not joined yet", server.addr))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn slots_move(&mut self, slots: SlotSet, to: GroupId) -> Result<Outcome, String> {
        self.can_take_slots(to)?;
        let model = &self.model;
        none_where(&slots, "offline", |slot| model.slot(slot).group == 0)?;
        none_where(&slots, "moving already", |slot| model.slot(slot).action.is_some())?;
        let undecided = model.undecided();
        none_where(
            &slots,
            "undecided: their last source has not said whether it handed them over",
            |slot| undecided.contains(slot),
        )?;
        let there = format!("in group {to} already");
        none_where(&slots, &there, |slot| model.slot(slot).group == to)?;
        let cannot = "on a plain Redis, and cannot be moved";
        none_where(&slots, cannot, |slot| {
            self.kind_of(model.slot(slot).group) == Some(ServerKind::Redis)
        })?;
        if self.kind_of(to) == Some(ServerKind::Redis) {
            return Err(format!("group-[{to}] is a plain Redis: slots cannot be moved to it"));
        }
        let steps = slots.iter().map(|slot| (slot, to)).collect();
        let id = self.begin("move", steps);
        Ok(Outcome::Begun { op: id, slots: slots.len() })
    }

    /// Makes an operation of slots and where they are to go.
    fn begin(&mut self, kind: &str, steps: Vec<(u16, GroupId)>) -> u64 {
        let id = self.next_id();
        let mut from: Vec<GroupId> =
            steps.iter().map(|(slot, _)| self.model.slot(*slot).group).collect();
        let mut to: Vec<GroupId> = steps.iter().map(|(_, target)| *target).collect();
        for groups in [&mut from, &mut to] {
            groups.sort_unstable();
            groups.dedup();
        }
        let op = Op {
            id,
            kind: kind.to_owned(),
            state: OpState::Running,
            slots: steps.iter().map(|(slot, _)| *slot).collect(),
            from,
            to,
            total: steps.len() as u32,
            done: 0,
            failed: 0,
            reason: String::new(),
            created_ms: self.now,
            ended_ms: 0,
            is_cancelled: false,
            keys: 0,
            bytes: 0,
            pause_max_us: 0,
        };
        self.model.ops.insert(id, op);
        self.dirty.insert(Key::Op(id));
        let mut by_target: BTreeMap<GroupId, SlotSet> = BTreeMap::new();
        for (slot, target) in steps {
            by_target.entry(target).or_default().insert(slot);
            self.model.slots[usize::from(slot)].action =
                Some(SlotAction { op: id, target, carrier: 0 });
            self.acting.insert(slot);
            self.dirty.insert(Key::Slot(slot));
        }
        for (target, slots) in by_target {
            self.log("operation", format!("{kind} {id}: slots {slots} to group {target}"));
        }
        id
    }

    pub(super) fn rebalance(
        &mut self,
        by: Weight,
        is_preview: bool,
        samples: &BTreeMap<String, Option<Sample>>,
    ) -> Result<Outcome, String> {
        let steps = self.plan(by, samples)?;
        if is_preview {
            return Ok(Outcome::Plan(steps));
        }
        if steps.is_empty() {
            return Ok(Outcome::Begun { op: 0, slots: 0 });
        }
        let slots = steps.len();
        let offline = steps.iter().filter(|step| step.from == 0);
        let mut assigned: BTreeMap<GroupId, SlotSet> = BTreeMap::new();
        offline.for_each(|step| assigned.entry(step.to).or_default().insert(step.slot));
        for (group, slots) in assigned {
            self.slots_assign(slots, group)?;
        }
        let moved: Vec<(u16, GroupId)> =
            steps.iter().filter(|step| step.from != 0).map(|step| (step.slot, step.to)).collect();
        let op = if moved.is_empty() { 0 } else { self.begin("rebalance", moved) };
        Ok(Outcome::Begun { op, slots })
    }

    fn plan(
        &self,
        by: Weight,
        samples: &BTreeMap<String, Option<Sample>>,
    ) -> Result<Vec<Step>, String> {
        let can_change = |id: &GroupId| {
            self.can_take_slots(*id).is_ok() && self.kind_of(*id) != Some(ServerKind::Redis)
        };
        let groups: Vec<GroupId> = self.model.groups.keys().copied().filter(can_change).collect();
        if groups.is_empty() {
            return Err("no valid group could be found".into());
        }
        let weights = match by {
            Weight::Slots => BTreeMap::new(),
            _ => self.weights(by, &groups, samples)?,
        };
        let undecided = self.model.undecided();
        let weigh = |(slot, now): (u16, &Slot)| Weighed {
            slot,
            group: now.action.map_or(now.group, |action| action.target),
            weight: weights.get(&slot).copied().unwrap_or(0),
            is_movable: now.action.is_none() && !undecided.contains(slot),
        };
        let weighed: Vec<Weighed> = (0..).zip(&self.model.slots).map(weigh).collect();
        Ok(match by {
            Weight::Slots => by_count(&weighed, &groups),
            _ => by_weight(&weighed, &groups, TOLERANCE_PERCENT),
        })
    }

    /// What each slot weighs. Servers count keys by slot; memory and load they know as a whole, so
    /// these are shared out by keys.
    fn weights(
        &self,
        by: Weight,
        groups: &[GroupId],
        samples: &BTreeMap<String, Option<Sample>>,
    ) -> Result<BTreeMap<u16, u64>, String> {
        let mut weights = BTreeMap::new();
        for group in groups {
            let Some(server) = self.model.primary(*group) else { continue };
            let sample = samples.get(&server.addr).and_then(Option::as_ref);
            let sample = sample.ok_or_else(|| format!("{} does not answer", server.addr))?;
            let total: u64 = sample.keys.iter().map(|(_, keys)| keys).sum();
            let whole = match by {
                Weight::Memory => sample.number("used_memory"),
                Weight::Load => sample.number("instantaneous_ops_per_sec"),
                Weight::Slots | Weight::Keys => total,
            };
            for (slot, keys) in &sample.keys {
                let share = u128::from(whole) * u128::from(*keys) / u128::from(total.max(1));
                weights.insert(*slot, share as u64);
            }
        }
        Ok(weights)
    }
}

/// Refuses if something holds for some of the slots, and says for which.
fn none_where(
    slots: &SlotSet,
    what: &str,
    mut holds: impl FnMut(u16) -> bool,
) -> Result<(), String> {
    if slots.is_empty() {
        return Err("no slot is named".into());
    }
    let wrong: SlotSet = slots.iter().filter(|slot| holds(*slot)).collect();
    match wrong.len() {
        0 => Ok(()),
        1 => Err(format!("slot-[{wrong}] is {what}")),
        _ => Err(format!("slots {wrong} are {what}")),
    }
}
