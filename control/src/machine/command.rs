//! What people can ask of the machine, and what they are told.

use std::collections::BTreeMap;

use cordis_engine::slots::map::{GROUP_MAX, GroupId};

use super::member::{Collect, Waiting};
use super::plan::Step;
use super::request::Sample;
use super::{CommandId, Machine};
use crate::model::{Group, Key, MoveState, OpId, Way};
use crate::ranges::SlotSet;
use crate::settings::SettingSpec;

/// By what slots are balanced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// Their number.
    Slots,
    /// Their keys.
    Keys,
    /// The memory of their server, shared out by keys.
    Memory,
    /// The commands per second of their server, shared out by keys.
    Load,
}

/// What is to be cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// Everything.
    All,
    /// An operation.
    Op(OpId),
    /// Slots.
    Slots(SlotSet),
}

/// A wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A new group.
    GroupAdd(GroupId),
    /// A group without servers goes.
    GroupDel(GroupId),
    /// A server joins a group.
    ServerAdd {
        /// The group.
        group: GroupId,
        /// The server.
        addr: String,
        /// Where it stands.
        datacenter: String,
        /// Although it is no Cordis or codis server, or not empty.
        is_import: bool,
    },
    /// A server leaves its group.
    ServerDel {
        /// The server.
        addr: String,
    },
    /// Offline slots are given to a group.
    SlotsAssign {
        /// The slots.
        slots: SlotSet,
        /// The group.
        group: GroupId,
    },
    /// Slots move to a group.
    SlotsMove {
        /// The slots.
        slots: SlotSet,
        /// The group.
        to: GroupId,
    },
    /// Slots move until groups are even.
    Rebalance {
        /// In what.
        by: Weight,
        /// Only say which would.
        is_preview: bool,
    },
    /// What moves is stopped where it is.
    Cancel(Cancelled),
    /// No slot moves for now.
    Pause,
    /// Slots move again.
    Resume,
    /// A proxy joins.
    ProxyAdd {
        /// Where it takes maps.
        addr: String,
    },
    /// A proxy leaves.
    ProxyDel {
        /// Its number, token or one of its addresses.
        name: String,
        /// Although it does not answer and may still serve.
        is_forced: bool,
    },
    /// A setting changes.
    ConfigSet {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// One look at every server and proxy.
    Top,
}

/// What came of a wish.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// An operation has begun.
    Begun {
        /// Its number; 0: nothing has to move.
        op: OpId,
        /// Its slots.
        slots: usize,
    },
    /// What would be done.
    Plan(Vec<Step>),
    /// A proxy is a member.
    Proxy {
        /// Its number.
        id: u64,
        /// Its identity.
        token: String,
    },
    /// Looks at members by address; none of those that did not answer.
    Top(BTreeMap<String, Option<Sample>>),
}

impl Machine {
    pub(super) fn command(&mut self, id: CommandId, command: Command) {
        let outcome = match command {
            Command::GroupAdd(group) => self.group_add(group),
            Command::GroupDel(group) => self.group_del(group),
            Command::ServerAdd { group, addr, datacenter, is_import } => {
                return self.server_add(id, group, addr, datacenter, is_import);
            }
            Command::ServerDel { addr } => return self.server_del(id, addr),
            Command::SlotsAssign { slots, group } => self.slots_assign(slots, group),
            Command::SlotsMove { slots, to } => self.slots_move(slots, to),
            Command::Rebalance { by: Weight::Slots, is_preview } => {
                self.rebalance(Weight::Slots, is_preview, &BTreeMap::new())
            }
            Command::Rebalance { by, is_preview } => {
                return self.collect(id, Collect::Rebalance { by, is_preview });
            }
            Command::Cancel(what) => self.cancel(what),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::ProxyAdd { addr } => return self.proxy_add(id, addr),
            Command::ProxyDel { name, is_forced } => self.proxy_del(&name, is_forced),
            Command::ConfigSet { name, value } => self.config_set(&name, &value),
            Command::Top => return self.collect(id, Collect::Top),
        };
        self.answer(id, outcome);
    }

    fn group_add(&mut self, id: GroupId) -> Result<Outcome, String> {
        if !(1..=GROUP_MAX).contains(&id) {
            return Err(format!("invalid group id = {id}, out of range"));
        }
        if self.model.groups.contains_key(&id) {
            return Err(format!("group-[{id}] already exists"));
        }
        self.model.groups.insert(id, Group { id, servers: Vec::new() });
        self.dirty.insert(Key::Group(id));
        self.is_map_changed = true;
        self.log("group", format!("group {id} was added"));
        Ok(Outcome::Done)
    }

    fn group_del(&mut self, id: GroupId) -> Result<Outcome, String> {
        let group = self.model.groups.get(&id);
        let group = group.ok_or_else(|| format!("group-[{id}] doesn't exist"))?;
        let is_awaited = self.waiting.iter().any(|waiting| waiting.is_for_group(id));
        if !group.servers.is_empty() || is_awaited {
            return Err(format!("group-[{id}] isn't empty"));
        }
        self.model.groups.remove(&id);
        self.dirty.insert(Key::Group(id));
        self.is_map_changed = true;
        self.log("group", format!("group {id} was removed"));
        Ok(Outcome::Done)
    }

    fn config_set(&mut self, name: &str, value: &str) -> Result<Outcome, String> {
        let spec = SettingSpec::named(name).ok_or_else(|| format!("no setting '{name}'"))?;
        if spec.name == "lease-ms" && self.model.meta.has_leases {
            // Leases of two lengths would leave nobody certain when the longer one ends.
            return Err("lease-ms cannot change while proxies hold leases".into());
        }
        spec.set(&mut self.model.settings, value)?;
        self.dirty.insert(Key::Settings);
        self.log("config", format!("{} is {value} now", spec.name));
        if spec.name == "forward-method" {
            self.is_map_changed = true;
        }
        Ok(Outcome::Done)
    }

    fn cancel(&mut self, what: Cancelled) -> Result<Outcome, String> {
        let is_chosen = |slot: u16, op: OpId| match &what {
            Cancelled::All => true,
            Cancelled::Op(id) => *id == op,
            Cancelled::Slots(slots) => slots.contains(slot),
        };
        let mut chosen = SlotSet::new();
        let mut carriers = Vec::new();
        for slot in self.acting.iter().copied() {
            let Some(action) = self.model.slot(slot).action else { continue };
            if is_chosen(slot, action.op) {
                chosen.insert(slot);
                carriers.push(action.carrier);
                if let Some(op) = self.model.ops.get_mut(&action.op) {
                    op.is_cancelled = true;
                    self.dirty.insert(Key::Op(action.op));
                }
            }
        }
        if chosen.is_empty() {
            return Err("nothing of that is moving".into());
        }
        carriers.dedup();
        for id in carriers.into_iter().filter(|id| *id != 0) {
            let open = self.model.moves.get(&id).map(|m| m.open).unwrap_or_default();
            let kept = open.iter().filter(|slot| !chosen.contains(*slot)).collect();
            self.cancel_move(id, "cancelled", kept);
        }
        for slot in chosen.iter() {
            let is_pending = self.model.slot(slot).action.is_some_and(|action| action.carrier == 0);
            if is_pending {
                self.end_action(slot, false, "cancelled");
            }
        }
        Ok(Outcome::Done)
    }

    fn pause(&mut self) -> Result<Outcome, String> {
        if !self.model.meta.is_paused {
            self.model.meta.is_paused = true;
            self.log("pause", "moves are paused".into());
            let native = self.model.moves.values().filter(|m| m.way == Way::Native);
            let running =
                native.filter(|m| m.state != MoveState::Cancelling).map(|m| (m.id, m.open));
            for (id, open) in running.collect::<Vec<_>>() {
                self.cancel_move(id, "paused", open);
            }
        }
        Ok(Outcome::Done)
    }

    fn resume(&mut self) -> Result<Outcome, String> {
        if self.model.meta.is_paused {
            self.model.meta.is_paused = false;
            self.log("pause", "moves are resumed".into());
        }
        Ok(Outcome::Done)
    }

    /// Asks all members for a look at what they measure.
    fn collect(&mut self, id: CommandId, then: Collect) {
        let servers = self.model.servers().map(|(_, server)| server.addr.clone());
        let mut addrs: Vec<String> = servers.collect();
        if then == Collect::Top {
            addrs.extend(self.model.proxies.values().map(|proxy| proxy.admin_addr.clone()));
        }
        for addr in &addrs {
            self.errand_for_look(addr);
        }
        let samples = addrs.into_iter().map(|addr| (addr, None)).collect();
        let until_ms = self.now + COLLECT_MS;
        self.waiting.push(Waiting::Collect { command: id, then, samples, until_ms });
    }
}

/// How long members may take to answer a look.
const COLLECT_MS: i64 = 3_000;
