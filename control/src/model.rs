//! What control knows and keeps: groups, servers, proxies, slots with their actions, moves,
//! operations, settings and the log of events. Pure data, and its form as records of the store.
//!
//! Of everything that can be claimed twice the higher epoch holds: of two maps, and of two owners of
//! a slot. One counter gives out all epochs, so each is unique in the product's life.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use cordis_engine::slots::map::{
    ClusterMap, GroupId, MapGroup, MapRange, MapServer, ServerKind, ServerRole, ranges_of,
};
use cordis_engine::units::SLOT_COUNT;
use serde::{Deserialize, Serialize};

use crate::ranges::SlotSet;
use crate::settings::Settings;

/// The number of a move as servers know it.
pub type MoveId = u64;
/// The number of an operation as people know it.
pub type OpId = u64;

/// Events that are kept.
pub const EVENTS_MAX: usize = 1000;
/// Ended operations that are kept.
pub const OPS_ENDED_MAX: usize = 64;

/// A server of a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Where it listens: `ip:port`.
    pub addr: String,
    /// What it speaks.
    pub kind: ServerKind,
    /// Where it stands.
    #[serde(default)]
    pub datacenter: String,
    /// The identity that it had when it was added; empty if it has none.
    #[serde(default)]
    pub run_id: String,
    /// Whether it has been told that it is a member.
    pub is_joined: bool,
}

/// A group of servers that hold the same slots.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// Its servers; the first takes the writes.
    pub servers: Vec<Server>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proxy {
    /// Its number.
    pub id: u64,
    /// Its identity.
    pub token: String,
    /// Where it takes maps.
    pub admin_addr: String,
    /// Where it takes clients.
    pub proxy_addr: String,
    /// Whether it has confirmed a map with a lease, so that silence fences it.
    #[serde(default)]
    pub is_leased: bool,
}

/// What is to happen with a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotAction {
    /// The operation that wants it.
    pub op: OpId,
    /// Where it is to go.
    pub target: GroupId,
    /// The move that carries it; 0: it waits for one.
    #[serde(default)]
    pub carrier: MoveId,
}

/// A slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Slot {
    /// The group that serves it; 0: offline.
    pub group: GroupId,
    /// Under which epoch that group got it.
    pub epoch: u64,
    /// What is to happen with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<SlotAction>,
}

/// How the keys of a move travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The source streams the slots and hands them over itself.
    Native,
    /// The original's commands, key by key, with maps in two phases. Always one slot.
    Dialect,
}

/// How far a move is. The original's states, and the way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveState {
    /// Its epoch is granted; the target (native) or the proxies' leases (dialect) are seen to.
    Preparing,
    /// The target expects it (native); proxies are told to hold the slot (dialect).
    Prepared,
    /// Keys travel.
    Migrating,
    /// Dialect: the keys are there; proxies are told to forget the source.
    Finished,
    /// What has not been handed over stays where it is, as soon as the source says what that is.
    Cancelling,
}

impl MoveState {
    /// Its name, as the original spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Migrating => "migrating",
            Self::Finished => "finished",
            Self::Cancelling => "cancelling",
        }
    }
}

/// Slots that travel from one server to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Its number.
    pub id: MoveId,
    /// The operation that wants it.
    pub op: OpId,
    /// How keys travel.
    pub way: Way,
    /// How far it is.
    pub state: MoveState,
    /// The group that has the slots.
    pub from: GroupId,
    /// The group that gets them.
    pub to: GroupId,
    /// The server that has them.
    pub source: String,
    /// The server that gets them.
    pub target: String,
    /// Under which epoch the target gets them.
    pub epoch: u64,
    /// All its slots.
    pub slots: SlotSet,
    /// Those that are not handed over yet.
    pub open: SlotSet,
    /// Why it is cancelled.
    #[serde(default)]
    pub reason: String,
    /// Dialect: its ends have been swapped, because it was cancelled when keys were at both.
    #[serde(default)]
    pub is_turned: bool,
    /// Cancelled, and its source did not say what it had handed over: its operation is over, but
    /// nothing else is done with its open slots until the source says so.
    #[serde(default)]
    pub is_given_up: bool,
    /// Slots that wait for another move after it has been cancelled (a pause).
    #[serde(default)]
    pub kept: SlotSet,
}

/// How an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpState {
    /// Some of its slots are not done.
    Running,
    /// All slots arrived.
    Done,
    /// Some slots stayed where they were.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl OpState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What somebody asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Op {
    /// Its number.
    pub id: OpId,
    /// What it is: `move` or `rebalance`.
    pub kind: String,
    /// How it stands.
    pub state: OpState,
    /// Its slots.
    pub slots: SlotSet,
    /// The groups that had them.
    pub from: Vec<GroupId>,
    /// The groups that get them.
    pub to: Vec<GroupId>,
    /// How many they are.
    pub total: u32,
    /// Slots that arrived.
    pub done: u32,
    /// Slots that stayed where they were.
    pub failed: u32,
    /// Why, if some did.
    #[serde(default)]
    pub reason: String,
    /// When it began.
    pub created_ms: i64,
    /// When it ended; 0: not yet.
    pub ended_ms: i64,
    /// Whether somebody cancelled it.
    #[serde(default)]
    pub is_cancelled: bool,
    /// Keys that moves which are over have carried.
    #[serde(default)]
    pub keys: u64,
    /// Bytes that moves which are over have carried.
    #[serde(default)]
    pub bytes: u64,
    /// The longest pause of a slot in moves which are over.
    #[serde(default)]
    pub pause_max_us: u64,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEvent {
    /// Ascending.
    pub id: u64,
    /// When.
    pub at_ms: i64,
    /// One word.
    pub kind: String,
    /// What, for people.
    pub text: String,
}

/// Counters and switches of the product.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The product's name.
    pub product: String,
    /// The highest epoch given out.
    pub epoch: u64,
    /// The epoch of the current map.
    pub map_epoch: u64,
    /// The highest number given to a move, an operation or a proxy.
    pub id: u64,
    /// The highest number given to an event.
    pub event_id: u64,
    /// Whether no new slot begins to move.
    pub is_paused: bool,
    /// Whether proxies are given leases: while slots move by the original's commands.
    pub has_leases: bool,
}

/// The name of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// [`Meta`].
    Meta,
    /// [`Settings`].
    Settings,
    /// A [`Group`].
    Group(GroupId),
    /// A [`Proxy`].
    Proxy(u64),
    /// A [`Slot`].
    Slot(u16),
    /// A [`Move`].
    Move(MoveId),
    /// An [`Op`].
    Op(OpId),
    /// A [`LogEvent`].
    Event(u64),
}

/// A change to one record: its new value, or that it is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its name.
    pub key: String,
    /// Its value, JSON.
    pub value: Option<String>,
}

/// Everything that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    /// Counters and switches.
    pub meta: Meta,
    /// Settings.
    pub settings: Settings,
    /// Groups by number.
    pub groups: BTreeMap<GroupId, Group>,
    /// Proxies by number.
    pub proxies: BTreeMap<u64, Proxy>,
    /// Every slot.
    pub slots: Vec<Slot>,
    /// Moves that are under way.
    pub moves: BTreeMap<MoveId, Move>,
    /// Operations, the last ended ones included.
    pub ops: BTreeMap<OpId, Op>,
    /// The last events.
    pub events: VecDeque<LogEvent>,
}

/// Records that make no model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModelError {
    /// A record that cannot be read: its name, and why.
    Record(String, String),
    /// The store is another product's.
    Product {
        /// The product in the store.
        stored: String,
        /// The product that was asked for.
        wanted: String,
    },
}

impl std::fmt::Display for ModelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(key, why) => write!(f, "record '{key}' of the store: {why}"),
            Self::Product { stored, wanted } => {
                write!(f, "the store belongs to product '{stored}', not '{wanted}'")
            }
        }
    }
}

impl std::error::Error for ModelError {}

impl Model {
    /// A product without anything.
    pub fn new(product: &str) -> Self {
        Self {
            meta: Meta { product: product.to_owned(), ..Meta::default() },
            settings: Settings::default(),
            groups: BTreeMap::new(),
            proxies: BTreeMap::new(),
            slots: vec![Slot::default(); SLOT_COUNT],
            moves: BTreeMap::new(),
            ops: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// The model that a store's records make.
    ///
    /// # Errors
    /// If a record cannot be read, or belongs to another product.
    pub fn load<'r>(
        product: &str,
        records: impl Iterator<Item = (&'r str, &'r str)>,
    ) -> Result<Self, ModelError> {
        let mut model = Self::new(product);
        for (key, value) in records {
            model.take(key, value)?;
        }
        if model.meta.product != product {
            return Err(ModelError::Product {
                stored: model.meta.product,
                wanted: product.to_owned(),
            });
        }
        Ok(model)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), ModelError> {
        let wrong = |why: String| ModelError::Record(key.to_owned(), why);
        let json = |error: serde_json::Error| wrong(error.to_string());
        let (family, number) = key.split_once('/').unwrap_or((key, "0"));
        let number: u64 = number.parse().map_err(|_| wrong("no number".into()))?;
        match family {
            "meta" => self.meta = serde_json::from_str(value).map_err(json)?,
            "settings" => self.settings = serde_json::from_str(value).map_err(json)?,
            "group" => {
                let group: Group = serde_json::from_str(value).map_err(json)?;
                self.groups.insert(group.id, group);
            }
            "proxy" => {
                self.proxies.insert(number, serde_json::from_str(value).map_err(json)?);
            }
            "slot" => {
                let at = usize::try_from(number).ok().filter(|at| *at < SLOT_COUNT);
                let at = at.ok_or_else(|| wrong("no such slot".into()))?;
                self.slots[at] = serde_json::from_str(value).map_err(json)?;
            }
            "move" => {
                self.moves.insert(number, serde_json::from_str(value).map_err(json)?);
            }
            "op" => {
                self.ops.insert(number, serde_json::from_str(value).map_err(json)?);
            }
            "event" => {
                // By name, so ascending: names have leading zeros.
                self.events.push_back(serde_json::from_str(value).map_err(json)?);
            }
            _ => return Err(wrong("unknown to this version".into())),
        }
        Ok(())
    }

    /// A record as it is now.
    pub fn record(&self, key: Key) -> Record {
        fn json<T: Serialize>(value: &T) -> String {
            serde_json::to_string(value).expect("records are plain data with string keys")
        }
        let (name, value) = match key {
            Key::Meta => ("meta".to_owned(), Some(json(&self.meta))),
            Key::Settings => ("settings".to_owned(), Some(json(&self.settings))),
            Key::Group(id) => (format!("group/{id:04}"), self.groups.get(&id).map(json)),
            Key::Proxy(id) => (format!("proxy/{id:06}"), self.proxies.get(&id).map(json)),
            Key::Slot(slot) => {
                let slot_now = self.slots[usize::from(slot)];
                let value = (slot_now != Slot::default()).then(|| json(&slot_now));
                (format!("slot/{slot:04}"), value)
            }
            Key::Move(id) => (format!("move/{id:012}"), self.moves.get(&id).map(json)),
            Key::Op(id) => (format!("op/{id:012}"), self.ops.get(&id).map(json)),
            Key::Event(id) => {
                let at = self.events.binary_search_by_key(&id, |event| event.id).ok();
                (format!("event/{id:012}"), at.map(|at| json(&self.events[at])))
            }
        };
        Record { key: name, value }
    }

    /// A slot.
    pub fn slot(&self, slot: u16) -> &Slot {
        &self.slots[usize::from(slot)]
    }

    /// The server that takes a group's writes.
    pub fn primary(&self, group: GroupId) -> Option<&Server> {
        self.groups.get(&group)?.servers.first()
    }

    /// The group of a server.
    pub fn group_of(&self, addr: &str) -> Option<GroupId> {
        let mut groups = self.groups.values();
        groups.find(|group| group.servers.iter().any(|server| server.addr == addr)).map(|g| g.id)
    }

    /// Slots of which only a server that does not answer knows whose they are.
    pub fn undecided(&self) -> SlotSet {
        let given_up = self.moves.values().filter(|m| m.is_given_up);
        given_up.flat_map(|m| m.open.iter().collect::<Vec<_>>()).collect()
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = (&Group, &Server)> {
        self.groups.values().flat_map(|group| group.servers.iter().map(move |s| (group, s)))
    }

    /// The slots that a group serves.
    pub fn slots_of(&self, group: GroupId) -> SlotSet {
        self.slots_where(|slot| slot.group == group)
    }

    /// The slots for which something holds.
    pub fn slots_where(&self, mut holds: impl FnMut(&Slot) -> bool) -> SlotSet {
        (0..SLOT_COUNT as u16).filter(|slot| holds(self.slot(*slot))).collect()
    }

    /// The name of the state of a slot's action; empty if there is none.
    pub fn action_state(&self, slot: u16) -> &'static str {
        match self.slot(slot).action {
            None => "",
            Some(action) => match self.moves.get(&action.carrier) {
                None => "pending",
                Some(carrier) => carrier.state.name(),
            },
        }
    }

    /// Groups that are an end of a slot's move, or have slots.
    pub fn groups_in_use(&self) -> BTreeSet<GroupId> {
        let ends = self
            .slots
            .iter()
            .flat_map(|slot| [slot.group, slot.action.map_or(slot.group, |action| action.target)]);
        ends.filter(|group| *group != 0).collect()
    }

    /// The map as proxies and servers are to know it.
    pub fn map(&self) -> Arc<ClusterMap> {
        let lease_ms = if self.meta.has_leases { self.settings.lease_ms as u32 } else { 0 };
        Arc::new(ClusterMap {
            product: self.meta.product.clone(),
            epoch: self.meta.map_epoch,
            groups: self.groups.values().map(map_group).collect(),
            slots: ranges_of(|slot| self.map_entry(slot.index() as u16)),
            lease_ms,
        })
    }

    /// What the map says of a slot: as the original tells its proxies in each state.
    fn map_entry(&self, slot: u16) -> MapRange {
        let now = self.slot(slot);
        let entry = MapRange { group: now.group, epoch: now.epoch, ..MapRange::offline() };
        let carrier = now.action.and_then(|action| self.moves.get(&action.carrier));
        match carrier {
            Some(carrier) if carrier.way == Way::Dialect => match carrier.state {
                MoveState::Prepared | MoveState::Migrating => MapRange {
                    group: carrier.to,
                    epoch: carrier.epoch,
                    migrate_from: carrier.from,
                    forward_method: self.settings.forward_method as u8,
                    locked: carrier.state == MoveState::Prepared,
                    ..entry
                },
                _ => entry,
            },
            _ => entry,
        }
    }
}

fn map_group(group: &Group) -> MapGroup {
    let server = |(at, server): (usize, &Server)| MapServer {
        addr: server.addr.clone(),
        kind: server.kind,
        role: if at == 0 { ServerRole::Primary } else { ServerRole::Replica },
        datacenter: server.datacenter.clone(),
        replica_group: false,
    };
    MapGroup { id: group.id, servers: group.servers.iter().enumerate().map(server).collect() }
}
