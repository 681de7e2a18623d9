//! Who should have which slots: pure arithmetic over weights.
//!
//! By number of slots the plan is exact: every group ends within one slot of every other, and no
//! more slots move than must. By weight (keys, memory, load) it is the greedy one that always takes
//! the fullest group and the emptiest, and moves the slot that brings both nearest to the mean.

use std::collections::BTreeMap;

use cordis_engine::slots::map::GroupId;

/// A slot as the planner sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weighed {
    /// The slot.
    pub slot: u16,
    /// Where it is, or is going to be; 0: offline.
    pub group: GroupId,
    /// What it weighs.
    pub weight: u64,
    /// Whether the plan may move it.
    pub is_movable: bool,
}

/// One slot that changes its group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Step {
    /// The slot.
    pub slot: u16,
    /// From there; 0: it was offline.
    pub from: GroupId,
    /// To there.
    pub to: GroupId,
}

/// A plan that gives each group the same number of slots.
pub fn by_count(slots: &[Weighed], groups: &[GroupId]) -> Vec<Step> {
    let even: Vec<Weighed> = slots.iter().map(|slot| Weighed { weight: 1, ..*slot }).collect();
    balance(&even, groups, 0)
}

/// A plan that gives each group the same weight, within `tolerance` percent of the mean.
pub fn by_weight(slots: &[Weighed], groups: &[GroupId], tolerance_percent: u64) -> Vec<Step> {
    balance(slots, groups, tolerance_percent)
}

struct Loads {
    /// Weight and movable slots (lightest first) of each group.
    groups: BTreeMap<GroupId, (u64, Vec<Weighed>)>,
}

impl Loads {
    fn lightest(&self) -> Option<GroupId> {
        self.groups.iter().min_by_key(|(id, (load, _))| (*load, **id)).map(|(id, _)| *id)
    }

    fn load(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |(load, _)| *load)
    }
}

fn balance(slots: &[Weighed], groups: &[GroupId], tolerance_percent: u64) -> Vec<Step> {
    let mut loads = Loads { groups: groups.iter().map(|id| (*id, (0, Vec::new()))).collect() };
    if groups.is_empty() {
        return Vec::new();
    }
    for slot in slots {
        if let Some((load, movable)) = loads.groups.get_mut(&slot.group) {
            *load += slot.weight;
            if slot.is_movable && slot.weight > 0 {
                movable.push(*slot);
            }
        }
    }
    let mut steps = place_offline(slots, &mut loads);
    for (_, movable) in loads.groups.values_mut() {
        // Ascending weight, then descending number: what is taken from the end is the heaviest
        // that fits, and of equals the one with the lowest number stays out longest.
        movable.sort_by_key(|slot| (slot.weight, slot.slot));
    }
    let total: u64 = loads.groups.values().map(|(load, _)| load).sum();
    let slack = total / groups.len() as u64 * tolerance_percent / 100;
    while let Some(step) = next_step(&mut loads, slack) {
        steps.push(step);
    }
    steps.sort();
    steps
}

/// Offline slots go to whoever has least.
fn place_offline(slots: &[Weighed], loads: &mut Loads) -> Vec<Step> {
    let mut steps = Vec::new();
    for slot in slots.iter().filter(|slot| slot.group == 0 && slot.is_movable) {
        let Some(to) = loads.lightest() else { break };
        if let Some((load, _)) = loads.groups.get_mut(&to) {
            // What weighs nothing is dealt out too.
            *load += slot.weight.max(1);
        }
        steps.push(Step { slot: slot.slot, from: 0, to });
    }
    steps
}

/// Moves the best slot from the fullest group that can give one to the emptiest group.
fn next_step(loads: &mut Loads, slack: u64) -> Option<Step> {
    let to = loads.lightest()?;
    let mean = loads.groups.values().map(|(load, _)| load).sum::<u64>() / loads.groups.len() as u64;
    let mut givers: Vec<GroupId> = loads.groups.keys().copied().filter(|id| *id != to).collect();
    givers.sort_by_key(|id| std::cmp::Reverse((loads.load(*id), *id)));
    for from in givers {
        let difference = loads.load(from) - loads.load(to);
        if difference <= slack.max(1) {
            return None;
        }
        // Both ends come nearer to the mean with any slot lighter than the difference; the best is
        // what one has too much or the other too little, whichever is less.
        let wanted = (loads.load(from).saturating_sub(mean)).min(mean - loads.load(to)).max(1);
        let (_, movable) = loads.groups.get_mut(&from)?;
        let fits = movable.partition_point(|slot| slot.weight < difference);
        if fits == 0 {
            continue;
        }
        let near = movable[..fits].partition_point(|slot| slot.weight <= wanted);
        let at = if near == 0 { 0 } else { near - 1 };
        let taken = movable.remove(at);
        let (load, _) = loads.groups.get_mut(&from)?;
        *load -= taken.weight;
        // It does not move twice: it is nobody's to give any more.
        let (load, _) = loads.groups.get_mut(&to)?;
        *load += taken.weight;
        return Some(Step { slot: taken.slot, from, to });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loads(slots: &[Weighed], groups: &[GroupId], steps: &[Step]) -> BTreeMap<GroupId, u64> {
        let mut loads: BTreeMap<GroupId, u64> = groups.iter().map(|id| (*id, 0)).collect();
        for slot in slots {
            let step = steps.iter().find(|step| step.slot == slot.slot);
            let group = step.map_or(slot.group, |step| step.to);
            if let Some(load) = loads.get_mut(&group) {
                *load += slot.weight;
            }
        }
        loads
    }

    fn spread(loads: &BTreeMap<GroupId, u64>) -> u64 {
        loads.values().max().unwrap() - loads.values().min().unwrap()
    }

    fn slots() -> impl Strategy<Value = (Vec<Weighed>, Vec<GroupId>)> {
        (1u16..6).prop_flat_map(|groups| {
            let one = (0..=groups, 0u64..1000, any::<u8>());
            proptest::collection::vec(one, 1..200).prop_map(move |slots| {
                let slot = |(at, (group, weight, dice)): (usize, (u16, u64, u8))| Weighed {
                    slot: at as u16,
                    group,
                    weight,
                    is_movable: dice > 20,
                };
                (slots.into_iter().enumerate().map(slot).collect(), (1..=groups).collect())
            })
        })
    }

    fn check_steps(slots: &[Weighed], steps: &[Step]) -> Result<(), TestCaseError> {
        for (at, step) in steps.iter().enumerate() {
            let slot = slots.iter().find(|slot| slot.slot == step.slot).unwrap();
            prop_assert!(slot.is_movable && slot.group == step.from && step.to != step.from);
            prop_assert!(at == 0 || steps[at - 1].slot < step.slot, "a slot moves once");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn plan_by_count_is_even_and_moves_no_more_than_must((slots, groups) in slots()) {
            let all_movable: Vec<Weighed> =
                slots.iter().map(|s| Weighed { is_movable: true, weight: 1, ..*s }).collect();
            let steps = by_count(&all_movable, &groups);
            check_steps(&all_movable, &steps)?;
            let after = loads(&all_movable, &groups, &steps);
            prop_assert!(spread(&after) <= 1);
            // No fewer could do: what groups have above the ceiling must go, as must what others
            // lack below the floor; offline slots come on top.
            let before = loads(&all_movable, &groups, &[]);
            let n = groups.len() as u64;
            let total = all_movable.len() as u64;
            let (low, high) = (total / n, total.div_ceil(n));
            let above: u64 = before.values().map(|load| load.saturating_sub(high)).sum();
            let below: u64 = before.values().map(|load| low.saturating_sub(*load)).sum();
            let offline = all_movable.iter().filter(|slot| slot.group == 0).count() as u64;
            prop_assert!(steps.len() as u64 <= offline + above.max(below));
            prop_assert_eq!(by_count(&all_movable, &groups), steps, "the same plan each time");
        }

        #[test]
        fn plan_by_weight_never_makes_it_worse((slots, groups) in slots()) {
            let steps = by_weight(&slots, &groups, 5);
            check_steps(&slots, &steps)?;
            let offline: Vec<Step> = steps.iter().copied().filter(|step| step.from == 0).collect();
            let before = loads(&slots, &groups, &offline);
            let after = loads(&slots, &groups, &steps);
            prop_assert!(spread(&after) <= spread(&before));
        }

        #[test]
        fn plan_by_weight_of_movable_slots_ends_within_the_heaviest((slots, groups) in slots()) {
            let all_movable: Vec<Weighed> =
                slots.iter().map(|s| Weighed { is_movable: true, ..*s }).collect();
            let heaviest = slots.iter().map(|slot| slot.weight).max().unwrap().max(1);
            let total: u64 = slots.iter().map(|slot| slot.weight).sum();
            let slack = total / groups.len() as u64 * 5 / 100;
            let after = loads(&all_movable, &groups, &by_weight(&all_movable, &groups, 5));
            prop_assert!(spread(&after) <= heaviest.max(slack) + groups.len() as u64 * 200);
        }
    }

    #[test]
    fn plan_of_an_empty_new_group_takes_its_share() {
        let slot = |slot| Weighed { slot, group: 1, weight: 1, is_movable: true };
        let slots: Vec<Weighed> = (0..1024).map(slot).collect();
        let steps = by_count(&slots, &[1, 2]);
        assert_eq!(steps.len(), 512);
        assert!(steps.iter().all(|step| step.from == 1 && step.to == 2));
    }
}
