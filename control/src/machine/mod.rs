//! What decides: `step(now, event) -> actions`, without any clock, file or socket.
//!
//! The machine wants things (every proxy has the newest map, every move gets on) and derives from
//! its state what to ask which peer next, one question per peer at a time. Nothing but the model is
//! kept, and each question can be asked again, so starting over after a crash at any point is just
//! starting. What a step changes in the model is persisted before anything of that step, or of a
//! later one, is sent or answered: [`Action::Persist`] always comes first.
//!
//! Authority over a slot lies with the servers (native moves) or with the map that all proxies hold
//! (dialect moves); see `native.rs` and `dialect.rs`. Threads: whoever owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cordis_engine::slots::map::{ClusterMap, GroupId, ServerKind};

use crate::model::{
    EVENTS_MAX, Key, LogEvent, Model, MoveId, OPS_ENDED_MAX, Op, OpId, OpState, Record,
};

mod command;
mod dialect;
mod member;
mod native;
mod pace;
pub mod peer;
pub mod plan;
pub mod request;
mod schedule;
mod slots;
#[cfg(test)]
mod tests;
mod wish;

pub use command::{Cancelled, Command, Outcome, Weight};
use member::Waiting;
use peer::{Peer, Role};
use request::{Answer, Request};

/// A number that a question carries, so that its answer is known by it.
pub type RequestId = u64;
/// A number that a command of somebody carries.
pub type CommandId = u64;

/// What happens to the machine.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A peer has answered, or never will.
    Reply {
        /// The peer.
        peer: String,
        /// Which question.
        id: RequestId,
        /// What it said.
        answer: Answer,
    },
    /// Somebody wants something.
    Command {
        /// To answer it by.
        id: CommandId,
        /// What.
        command: Command,
    },
}

/// What the machine wants done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Keep these, all or none, before anything that follows is done.
    Persist(Vec<Record>),
    /// Ask a peer. Exactly one [`Event::Reply`] must come of it.
    Send {
        /// The peer.
        peer: String,
        /// Which question.
        id: RequestId,
        /// The question.
        request: Request,
    },
    /// Close the connection to a peer that is none any more.
    Forget {
        /// The peer.
        peer: String,
    },
    /// Answer a command.
    Answer {
        /// Which.
        id: CommandId,
        /// What came of it, or why nothing did.
        outcome: Result<Outcome, String>,
    },
}

/// How often peers are asked for what nobody waits for.
const IDLE_POLL_MS: i64 = 1_000;
/// How often a source is asked how its moves get on.
const MOVE_POLL_MS: i64 = 50;

/// Stands for the map that the step under way makes.
const NEXT_MAP: u64 = u64::MAX;

/// What is known of a move only while this process runs.
#[derive(Clone, Debug)]
struct Live {
    /// When its state was entered, or it last got on.
    progress_ms: i64,
    /// When its last slot arrived, or it began.
    arrived_ms: i64,
    /// The last report of its source.
    report: request::MoveReport,
    /// Slots at once that the source was told.
    parallel: u64,
    /// The source was told to cancel, and said that it does.
    is_source_told: bool,
    /// The source has said what became of the slots, after it was told to cancel.
    is_source_clear: bool,
    /// Dialect: the map that all proxies must have, or be fenced, before it gets on.
    map_needed: u64,
    /// Dialect: the database that is being carried.
    db: u8,
    /// Dialect: the database is empty, the next one is asked for.
    is_db_done: bool,
    /// Dialect: the next call is not made before.
    carry_at_ms: i64,
    /// Dialect: calls that failed one after the other.
    carry_fails: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    model: Model,
    now: i64,
    dirty: BTreeSet<Key>,
    is_map_changed: bool,
    map: Arc<ClusterMap>,
    peers: BTreeMap<String, Peer>,
    live: BTreeMap<MoveId, Live>,
    /// Slots that something is to happen with.
    acting: BTreeSet<u16>,
    /// Slots at once that a source stands, as far as it is known.
    pace: BTreeMap<GroupId, u64>,
    /// Since when pending slots of a pair of groups wait for one of them to answer.
    unready: BTreeMap<(GroupId, GroupId), i64>,
    waiting: Vec<Waiting>,
    request_id: RequestId,
    out: Vec<Action>,
}

impl Machine {
    /// The machine that goes on from a model.
    pub fn new(model: Model, now: i64) -> Self {
        let acting = (0..).zip(&model.slots).filter(|(_, slot)| slot.action.is_some());
        let mut machine = Self {
            acting: acting.map(|(at, _)| at).collect(),
            map: model.map(),
            model,
            now,
            dirty: BTreeSet::new(),
            is_map_changed: false,
            peers: BTreeMap::new(),
            live: BTreeMap::new(),
            pace: BTreeMap::new(),
            unready: BTreeMap::new(),
            waiting: Vec::new(),
            request_id: 0,
            out: Vec::new(),
        };
        for id in machine.model.moves.keys().copied().collect::<Vec<_>>() {
            machine.live.insert(id, machine.new_live());
        }
        machine.refresh_peers();
        // What a control process before this one has sent may still be on its way.
        let carry_max_ms = peer::carry_max_ms(machine.model.settings.migration_timeout_ms);
        if !machine.model.ops.is_empty() {
            machine.peers.values_mut().for_each(|peer| peer.quiet_ms = now + carry_max_ms);
        }
        machine
    }

    /// What is kept.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The current map.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// A peer, by address.
    pub fn peer(&self, addr: &str) -> Option<&Peer> {
        self.peers.get(addr)
    }

    /// The last report of a move's source, and the slots at once that it was told.
    pub fn report(&self, id: MoveId) -> Option<(&request::MoveReport, u64)> {
        self.live.get(&id).map(|live| (&live.report, live.parallel))
    }

    /// Whether an address is that of a proxy's admin port, or is being asked whether it is.
    pub fn is_proxy(&self, addr: &str) -> bool {
        self.model.proxies.values().any(|proxy| proxy.admin_addr == addr)
            || self.waiting.iter().any(|waiting| waiting.is_for_proxy(addr))
    }

    /// Whether something is under way that wants to be looked at often.
    pub fn is_busy(&self) -> bool {
        !self.acting.is_empty() || !self.waiting.is_empty()
    }

    /// Takes an event in and says what is to be done.
    pub fn step(&mut self, now: i64, event: Event) -> Vec<Action> {
        // A clock that went back must not revive deadlines.
        self.now = self.now.max(now);
        match event {
            Event::Tick => {}
            Event::Reply { peer, id, answer } => self.take_reply(&peer, id, answer),
            Event::Command { id, command } => self.command(id, command),
        }
        self.schedule();
        self.see_to_native();
        self.see_to_dialect();
        self.see_to_waiting();
        self.refresh_map();
        self.wish();
        self.finish_step()
    }

    fn finish_step(&mut self) -> Vec<Action> {
        let mut actions = Vec::with_capacity(self.out.len() + 1);
        if !self.dirty.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            let records = dirty.into_iter().map(|key| self.model.record(key)).collect();
            actions.push(Action::Persist(records));
        }
        actions.append(&mut self.out);
        actions
    }

    fn refresh_map(&mut self) {
        if !self.is_map_changed {
            return;
        }
        self.is_map_changed = false;
        self.model.meta.map_epoch = self.next_epoch();
        self.map = self.model.map();
        for live in self.live.values_mut().filter(|live| live.map_needed == NEXT_MAP) {
            live.map_needed = self.model.meta.map_epoch;
        }
    }

    fn next_epoch(&mut self) -> u64 {
        self.dirty.insert(Key::Meta);
        self.model.meta.epoch += 1;
        self.model.meta.epoch
    }

    fn next_id(&mut self) -> u64 {
        self.dirty.insert(Key::Meta);
        self.model.meta.id += 1;
        self.model.meta.id
    }

    fn new_live(&self) -> Live {
        Live {
            progress_ms: self.now,
            arrived_ms: self.now,
            report: request::MoveReport::default(),
            parallel: 0,
            is_source_told: false,
            is_source_clear: false,
            map_needed: self.model.meta.map_epoch,
            db: 0,
            is_db_done: false,
            carry_at_ms: 0,
            carry_fails: 0,
        }
    }

    /// Notes something in the log of events.
    fn log(&mut self, kind: &str, text: String) {
        self.dirty.insert(Key::Meta);
        self.model.meta.event_id += 1;
        let id = self.model.meta.event_id;
        self.dirty.insert(Key::Event(id));
        let event = LogEvent { id, at_ms: self.now, kind: kind.to_owned(), text };
        self.model.events.push_back(event);
        while self.model.events.len() > EVENTS_MAX {
            if let Some(old) = self.model.events.pop_front() {
                self.dirty.insert(Key::Event(old.id));
            }
        }
    }

    fn answer(&mut self, id: CommandId, outcome: Result<Outcome, String>) {
        self.out.push(Action::Answer { id, outcome });
    }

    /// Takes the action off a slot and counts it for its operation.
    fn end_action(&mut self, slot: u16, has_arrived: bool, reason: &str) {
        let Some(action) = self.model.slots[usize::from(slot)].action.take() else {
            return;
        };
        self.acting.remove(&slot);
        self.dirty.insert(Key::Slot(slot));
        let Some(op) = self.model.ops.get_mut(&action.op) else {
            return;
        };
        self.dirty.insert(Key::Op(action.op));
        if has_arrived {
            op.done += 1;
        } else {
            op.failed += 1;
            if op.reason.is_empty() {
                reason.clone_into(&mut op.reason);
            }
        }
        if op.done + op.failed == op.total {
            self.end_op(action.op);
        }
    }

    fn end_op(&mut self, id: OpId) {
        let now = self.now;
        let Some(op) = self.model.ops.get_mut(&id) else {
            return;
        };
        op.ended_ms = now;
        op.state = match (op.failed, op.is_cancelled) {
            (0, _) => OpState::Done,
            (_, true) => OpState::Cancelled,
            (_, false) => OpState::Failed,
        };
        let Op { kind, state, done, total, reason, created_ms, .. } = op;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let took = now - *created_ms;
        let text = format!(
            "{kind} {id} {} after {took} ms, {done} of {total} slots arrived{why}",
            state.name()
        );
        self.log("operation", text);
        let ended = self.model.ops.values().filter(|op| op.state != OpState::Running);
        let surplus = ended.clone().count().saturating_sub(OPS_ENDED_MAX);
        for old in ended.take(surplus).map(|op| op.id).collect::<Vec<_>>() {
            self.model.ops.remove(&old);
            self.dirty.insert(Key::Op(old));
        }
    }

    /// Gives a slot to a group under an epoch.
    fn give_slot(&mut self, slot: u16, group: GroupId, epoch: u64) {
        let entry = &mut self.model.slots[usize::from(slot)];
        entry.group = group;
        entry.epoch = epoch;
        self.dirty.insert(Key::Slot(slot));
        self.is_map_changed = true;
    }

    fn kind_of(&self, group: GroupId) -> Option<ServerKind> {
        self.model.primary(group).map(|server| server.kind)
    }

    /// Peers are the members, and the strangers that somebody waits for.
    fn refresh_peers(&mut self) {
        let mut wanted: BTreeMap<String, Role> = BTreeMap::new();
        for waiting in &self.waiting {
            for addr in waiting.addrs() {
                wanted.insert(addr.to_owned(), Role::Stranger);
            }
        }
        for (_, server) in self.model.servers() {
            let role = match server.kind {
                ServerKind::Cordis => Role::Cordis,
                ServerKind::Codis | ServerKind::Redis => Role::Other,
            };
            wanted.insert(server.addr.clone(), role);
        }
        for proxy in self.model.proxies.values() {
            wanted.insert(proxy.admin_addr.clone(), Role::Proxy);
        }
        let gone: Vec<String> =
            self.peers.keys().filter(|addr| !wanted.contains_key(*addr)).cloned().collect();
        for addr in gone {
            self.peers.remove(&addr);
            self.out.push(Action::Forget { peer: addr });
        }
        for (addr, role) in wanted {
            // A lease that a control process before this one gave may still run.
            let lease_end_ms = match role {
                Role::Proxy => self.now + self.model.settings.lease_ms as i64 + peer::GRACE_MS,
                _ => 0,
            };
            let peer = self.peers.entry(addr).or_insert_with(|| Peer::new(role, lease_end_ms));
            peer.role = role;
        }
    }

    /// Takes a peer's answer in.
    fn take_reply(&mut self, addr: &str, id: RequestId, answer: Answer) {
        let Some(peer) = self.peers.get_mut(addr) else {
            return;
        };
        match &peer.in_flight {
            Some((asked, _)) if *asked == id => {}
            _ => return,
        }
        let Some((_, request)) = peer.in_flight.take() else {
            return;
        };
        match &answer {
            Answer::Lost(why) => {
                let was_up = peer.lose(self.now, why);
                if was_up && peer.role != Role::Stranger {
                    let text = format!("{addr} does not answer: {why}");
                    self.log("down", text);
                }
            }
            _ => {
                let was_down = peer.hear(self.now);
                if was_down && peer.role != Role::Stranger {
                    self.log("up", format!("{addr} answers"));
                }
            }
        }
        self.take_answer(addr, &request, answer);
    }
}
