//! Where requests go: one state per slot, and the requests that wait because theirs is changing.
//!
//! Sans I/O. Events come in (a request, its answer or refusal, a new map, time), actions come out
//! ([`Action`]): send this request there, split it, answer it with this fault. Times are passed in;
//! no socket, no clock, no bytes. The same code runs in the proxy and in the cluster's simulator,
//! which uses [`Routes::submit`], [`Routes::answered`], [`Routes::refused`], [`Routes::lost`],
//! [`Routes::link_lost`], [`Routes::set_map`], [`Routes::fence`] and [`Routes::tick`].
//!
//! What it promises, whatever servers answer and maps say:
//! - Each request that was submitted comes out exactly once at a time: it is sent, split, or failed;
//!   a refused one comes out again.
//! - Requests on one slot leave in the order in which they were numbered (`seq`). While requests are
//!   under way to one place, none goes to another: a slot whose route changes is *draining* until the
//!   last answer from the old place is here, and refused requests wait ahead of those that came later.
//! - The first request to a new place goes alone (*cautious*): a place that does not serve the slot
//!   yet refuses one request, and cannot refuse the first and run the second.
//!
//! What it cannot promise alone: a server that refuses a request on several slots because of one of
//! them may run what was sent behind it on the others. So a session holds back what conflicts with
//! such a request of its own until that has been answered ([`crate::session`]). And a slot that left
//! a server and came back is not told apart from one that stayed, by a request that was sent before
//! it left and arrives after it came back: so links are sticky, a server that has refused a slot on one
//! goes on refusing it there until it is told that all that was refused is back ([`crate::link`]).
//!
//! A request on several slots is in the queues of all of them, which agree on the order, so the one
//! with the lowest number can always go: there is no deadlock.
//!
//! Replica reads will choose among the servers of a slot's group where `Slot::lane` is read now: a
//! slot's entry is the one place that names them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use cordis_engine::units::{Ms, SLOT_COUNT, SlotId};
use slab::Slab;
use smallvec::SmallVec;

/// A server, as the routes and links of one core number it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendId(pub u32);

impl BackendId {
    /// No server.
    pub const NONE: Self = Self(u32::MAX);

    /// Index into a table of backends.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The way to one core of a backend. What is sent on one lane stays in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane {
    /// The server.
    pub backend: BackendId,
    /// Which of its lanes; 0 always exists.
    pub index: u16,
}

impl Lane {
    const NONE: Self = Self { backend: BackendId::NONE, index: 0 };
}

/// How keys of a slot that is being moved by the original's commands are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via {
    /// The server that may still have them.
    pub source: BackendId,
    /// 0: moved by SLOTSMGRTTAGONE first; 1: run there by SLOTSMGRT-EXEC-WRAPPER.
    pub method: u8,
}

/// What the map says about a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The server that takes its writes; [`BackendId::NONE`] if it is offline.
    pub backend: BackendId,
    /// Under which epoch its group got it.
    pub epoch: u64,
    /// Requests wait.
    pub locked: bool,
    /// A move by the original's commands is under way.
    pub via: Option<Via>,
}

impl Entry {
    /// A slot that nobody serves.
    pub const OFFLINE: Self = Self { backend: BackendId::NONE, epoch: 0, locked: false, via: None };
}

/// Why a server did not run a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The slot is served there.
    Moved(SlotId, BackendId),
    /// The slot is not served yet.
    TryAgain(Option<SlotId>),
    /// Nobody is known to serve the slot.
    Down(Option<SlotId>),
}

impl Refusal {
    /// The slot that it names.
    pub fn slot(self) -> Option<SlotId> {
        match self {
            Self::Moved(slot, _) => Some(slot),
            Self::TryAgain(slot) | Self::Down(slot) => slot,
        }
    }
}

/// Why a request is answered with an error instead of being sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Its slot belongs to no group.
    Offline(SlotId),
    /// Its slot was locked by control for too long.
    Locked(SlotId),
    /// This proxy has not heard from control for so long that it may not serve the slot.
    Fenced(SlotId),
    /// No server would take it in time.
    Deadline(SlotId),
}

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<R> {
    /// Send it there. It counts as under way on its slots until it is answered, refused or lost.
    Send {
        /// The request.
        request: R,
        /// Where.
        lane: Lane,
        /// The detour by which its keys are found.
        via: Option<Via>,
    },
    /// Nothing is under way any more on a slot on which requests were refused: those that follow may go
    /// to the servers that have refused it.
    Retry {
        /// The slot.
        slot: SlotId,
    },
    /// Its slots have come apart. If it can be split, its parts are submitted under the same number.
    Split {
        /// The request.
        request: R,
    },
    /// Answer it with an error.
    Fail {
        /// The request.
        request: R,
        /// Why.
        why: Fault,
    },
}

/// Why several slots cannot be had at once right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Apart {
    /// They are served by different backends.
    Backends,
    /// At least one of them waits for something: submit the request.
    Busy,
}

/// Slots of a request; most have one.
pub type SlotList = SmallVec<[u16; 4]>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Requests go out as they come.
    Open,
    /// Nothing goes out until all that is under way has been answered.
    Draining,
    /// One request at a time, until one has been run.
    Cautious,
}

/// One slot.
#[derive(Debug)]
struct Slot {
    /// The next request may go at once: what the hot path looks at.
    ready: bool,
    state: State,
    locked: bool,
    fenced: bool,
    /// Refusals in a row.
    tries: u8,
    /// Requests under way.
    in_flight: u32,
    /// Where requests go: the slot's server.
    lane: Lane,
    /// Where those under way went.
    lane_in_use: Lane,
    via: Option<Via>,
    /// No request before this time.
    not_before: Ms,
    /// Held requests by number.
    queue: VecDeque<(u64, usize)>,
    /// What the map said last.
    entry: Entry,
    /// Requests on it were refused, and others are still under way.
    was_refused: bool,
    /// It is draining towards a new map, from a server that would run what is under way.
    owes_drain: bool,
}

impl Slot {
    fn offline() -> Self {
        Self {
            ready: false,
            state: State::Cautious,
            locked: false,
            fenced: false,
            tries: 0,
            in_flight: 0,
            lane: Lane::NONE,
            lane_in_use: Lane::NONE,
            via: None,
            not_before: Ms(0),
            queue: VecDeque::new(),
            entry: Entry::OFFLINE,
            was_refused: false,
            owes_drain: false,
        }
    }

    /// Whether a request may leave for `lane` now.
    fn may_send(&self, lane: Lane, now: Ms) -> bool {
        let is_in_order = self.in_flight == 0 || self.lane_in_use == lane;
        let is_due = match self.state {
            State::Open => true,
            State::Draining => false,
            State::Cautious => self.in_flight == 0 && now >= self.not_before,
        };
        is_in_order && is_due && !self.locked && !self.fenced
    }

    /// Takes a request out of the queue, wherever it stands there.
    fn leave_queue(&mut self, seq: u64, index: usize) {
        let from = self.queue.partition_point(|&(other, _)| other < seq);
        // Parts of one request have its number.
        let same = self.queue.range(from..).take_while(|&&(other, _)| other == seq);
        if let Some(at) = same.into_iter().position(|&(_, other)| other == index) {
            self.queue.remove(from + at);
        }
    }

    fn refresh(&mut self) {
        self.ready = self.state == State::Open
            && self.queue.is_empty()
            && !self.locked
            && !self.fenced
            && self.lane.backend != BackendId::NONE
            && (self.in_flight == 0 || self.lane_in_use == self.lane);
    }
}

#[derive(Debug)]
struct Held<R> {
    request: R,
    seq: u64,
    slots: SlotList,
    deadline: Ms,
}

/// A request that goes back because its link was lost before it was sent.
#[derive(Debug)]
pub struct Unsent<R> {
    /// The request.
    pub request: R,
    /// Its number.
    pub seq: u64,
    /// Its slots.
    pub slots: SlotList,
    /// When it has taken too long.
    pub deadline: Ms,
}

#[derive(Debug)]
struct BackendRoute {
    /// It refuses requests for slots that it does not serve.
    refuses: bool,
    /// The lane of each slot; empty: all on lane 0.
    lanes: Vec<u16>,
    /// Slots whose requests go there, and slots whose detour leads over it.
    uses: u32,
}

/// First pause after a refusal, doubled up to the longest.
const PAUSE_MS_MIN: i64 = 1;
const PAUSE_MS_MAX: i64 = 20;

/// The routes of all slots.
#[derive(Debug)]
pub struct Routes<R> {
    slots: Vec<Slot>,
    held: Slab<Held<R>>,
    backends: Vec<BackendRoute>,
    actions: VecDeque<Action<R>>,
    timers: BinaryHeap<Reverse<(Ms, u16)>>,
    /// When each held request has taken too long: its number and index.
    deadlines: BTreeSet<(Ms, u64, usize)>,
    epoch: u64,
    drains_owed: u32,
    /// Changes with the set of servers.
    servers_version: u64,
    work: Vec<u16>,
}

impl<R> Default for Routes<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Routes<R> {
    /// Routes on which no slot is served.
    pub fn new() -> Self {
        Self::with_slots(SLOT_COUNT)
    }

    /// The same for the first slots only: a model has few.
    pub fn with_slots(slot_count: usize) -> Self {
        Self {
            slots: (0..slot_count).map(|_| Slot::offline()).collect(),
            held: Slab::new(),
            backends: Vec::new(),
            actions: VecDeque::new(),
            timers: BinaryHeap::new(),
            deadlines: BTreeSet::new(),
            epoch: 0,
            drains_owed: 0,
            servers_version: 0,
            work: Vec::new(),
        }
    }

    /// Numbers a new backend. `refuses`: it knows which slots it serves and refuses all others.
    pub fn add_backend(&mut self, refuses: bool) -> BackendId {
        self.backends.push(BackendRoute { refuses, lanes: Vec::new(), uses: 0 });
        BackendId(self.backends.len() as u32 - 1)
    }

    // ---- requests ----

    /// Takes the way of a slot for one request, if nothing is in its way: the hot path. The request
    /// counts as under way.
    #[inline]
    pub fn try_send(&mut self, slot: SlotId) -> Option<Lane> {
        let slot = &mut self.slots[slot.index()];
        if !slot.ready {
            return None;
        }
        slot.in_flight += 1;
        slot.lane_in_use = slot.lane;
        Some(slot.lane)
    }

    /// Where the next request of a slot could go at once, without taking the way.
    #[inline]
    pub fn ready_lane(&self, slot: SlotId) -> Option<Lane> {
        let slot = &self.slots[slot.index()];
        slot.ready.then_some(slot.lane)
    }

    /// The same for a request on several slots.
    ///
    /// # Errors
    /// Why it could not go at once.
    pub fn peek_many(&self, slots: &[u16]) -> Result<Lane, Apart> {
        let lane = self.slots[usize::from(slots[0])].lane;
        let mut result = Ok(lane);
        for &slot in slots {
            let slot = &self.slots[usize::from(slot)];
            if !slot.ready || (slot.lane != lane && slot.in_flight > 0) {
                return Err(Apart::Busy);
            }
            if slot.lane.backend != lane.backend {
                result = Err(Apart::Backends);
            }
        }
        result
    }

    /// Takes the way of several slots for one request: all of them, or none.
    ///
    /// # Errors
    /// Why not.
    pub fn try_send_many(&mut self, slots: &[u16]) -> Result<Lane, Apart> {
        let lane = self.peek_many(slots)?;
        self.take(slots, lane);
        Ok(lane)
    }

    fn take(&mut self, slots: &[u16], lane: Lane) {
        for &slot in slots {
            let slot = &mut self.slots[usize::from(slot)];
            slot.in_flight += 1;
            slot.lane_in_use = lane;
            slot.refresh();
        }
    }

    /// Takes a request that could not go at once. `seq` numbers requests in the order in which they
    /// came; a request that comes back keeps its number.
    pub fn submit(&mut self, request: R, seq: u64, slots: &[u16], deadline: Ms, now: Ms) {
        self.hold(request, seq, slots, deadline);
        self.pump(slots, now);
    }

    fn hold(&mut self, request: R, seq: u64, slots: &[u16], deadline: Ms) {
        let index = self.held.insert(Held { request, seq, slots: slots.into(), deadline });
        self.deadlines.insert((deadline, seq, index));
        for &slot in slots {
            let slot = &mut self.slots[usize::from(slot)];
            // Those that come back find their place ahead of those that came later.
            let at = slot.queue.partition_point(|&(other, _)| other <= seq);
            slot.queue.insert(at, (seq, index));
            slot.ready = false;
        }
    }

    /// A request was run, or answered with an error of its own, on one slot: the hot path.
    #[inline]
    pub fn answered(&mut self, slot: SlotId, now: Ms) {
        let index = slot.index();
        let slot = &mut self.slots[index];
        slot.in_flight -= 1;
        if !slot.ready {
            self.ended(&[index as u16], true, now);
        }
    }

    /// The same for a request on several slots.
    pub fn answered_many(&mut self, slots: &[u16], now: Ms) {
        for &slot in slots {
            self.slots[usize::from(slot)].in_flight -= 1;
        }
        self.ended(slots, true, now);
    }

    /// A request has ended without anybody knowing whether it was run: its link was lost.
    pub fn lost(&mut self, slots: &[u16], now: Ms) {
        for &slot in slots {
            self.slots[usize::from(slot)].in_flight -= 1;
        }
        self.ended(slots, false, now);
    }

    /// A link was lost with requests under way: those that cannot have been run go back, to be routed
    /// again, and the slots of the others are let go. All at once: what waits for these slots must not
    /// overtake what goes back.
    pub fn link_lost(&mut self, unsent: Vec<Unsent<R>>, lost: &[SlotList], now: Ms) {
        let mut touched = SlotList::new();
        for Unsent { request, seq, slots, deadline } in unsent {
            touched.extend_from_slice(&slots);
            self.hold(request, seq, &slots, deadline);
        }
        lost.iter().for_each(|slots| touched.extend_from_slice(slots));
        for &slot in &touched {
            self.slots[usize::from(slot)].in_flight -= 1;
        }
        self.ended(&touched, false, now);
    }

    /// A request was refused by `from`, and not run.
    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    pub fn refused(
        &mut self,
        request: R,
        seq: u64,
        slots: &[u16],
        deadline: Ms,
        from: BackendId,
        refusal: Refusal,
        now: Ms,
    ) {
        for &slot in slots {
            self.slots[usize::from(slot)].in_flight -= 1;
        }
        let named = refusal.slot();
        let named = named.map(|slot| slot.index() as u16).filter(|slot| slots.contains(slot));
        let index = usize::from(named.unwrap_or(slots[0]));
        // An answer from where requests do not go any more changes nothing.
        self.slots[index].was_refused = true;
        if self.slots[index].lane.backend == from {
            self.redirect(index, from, refusal, now);
        }
        self.hold(request, seq, slots, deadline);
        self.ended(slots, false, now);
    }

    fn redirect(&mut self, index: usize, from: BackendId, refusal: Refusal, now: Ms) {
        let to = match refusal {
            Refusal::Moved(_, to) => to,
            Refusal::TryAgain(_) => from,
            // Perhaps a newer map knows more than whoever sent the request there.
            Refusal::Down(_) => self.slots[index].entry.backend,
        };
        let lane = self.lane_for(to, index);
        let slot = &mut self.slots[index];
        let pause = match slot.tries {
            0 if to != from => 0,
            tries => (PAUSE_MS_MIN << tries.min(6)).min(PAUSE_MS_MAX),
        };
        slot.tries = slot.tries.saturating_add(1);
        slot.not_before = Ms(now.0 + pause);
        slot.state = State::Draining;
        let (via, not_before) = (slot.via, slot.not_before);
        self.set_way(index, lane, via);
        self.slots[index].refresh();
        if pause > 0 {
            self.timers.push(Reverse((not_before, index as u16)));
        }
    }

    /// Has the requests of a slot go there from now on.
    fn set_way(&mut self, index: usize, lane: Lane, via: Option<Via>) {
        let slot = &mut self.slots[index];
        let old = [slot.lane.backend, slot.via.map_or(BackendId::NONE, |via| via.source)];
        let new = [lane.backend, via.map_or(BackendId::NONE, |via| via.source)];
        (slot.lane, slot.via) = (lane, via);
        for id in new.into_iter().filter(|id| *id != BackendId::NONE) {
            let backend = &mut self.backends[id.index()];
            backend.uses += 1;
            self.servers_version += u64::from(backend.uses == 1);
        }
        for id in old.into_iter().filter(|id| *id != BackendId::NONE) {
            let backend = &mut self.backends[id.index()];
            backend.uses -= 1;
            self.servers_version += u64::from(backend.uses == 0);
        }
    }

    /// All servers that take the requests of a slot, or may still hold keys of one, ascending.
    pub fn servers(&self) -> impl Iterator<Item = BackendId> {
        let in_use = self.backends.iter().enumerate().filter(|(_, backend)| backend.uses > 0);
        in_use.map(|(index, _)| BackendId(index as u32))
    }

    /// A number that stays the same as long as [`servers`](Self::servers) are the same.
    pub fn servers_version(&self) -> u64 {
        self.servers_version
    }

    /// After requests have ended on these slots.
    fn ended(&mut self, slots: &[u16], was_run: bool, now: Ms) {
        for &index in slots {
            let slot = &mut self.slots[usize::from(index)];
            if slot.in_flight == 0 {
                slot.lane_in_use = slot.lane;
                if std::mem::take(&mut slot.was_refused) {
                    self.actions.push_back(Action::Retry { slot: slot_id(index) });
                }
            }
            match slot.state {
                State::Draining if slot.in_flight == 0 => {
                    slot.state = State::Cautious;
                    if std::mem::take(&mut slot.owes_drain) {
                        self.drains_owed -= 1;
                    }
                }
                State::Cautious if was_run => {
                    slot.tries = 0;
                    if slot.via.is_none() {
                        slot.state = State::Open;
                    }
                }
                _ => {}
            }
            slot.refresh();
        }
        self.pump(slots, now);
    }

    /// Lets go what may go now on these slots, and on those that this frees.
    fn pump(&mut self, slots: &[u16], now: Ms) {
        let mut work = std::mem::take(&mut self.work);
        work.extend_from_slice(slots);
        while let Some(index) = work.pop() {
            while let Some(&(_, head)) = self.slots[usize::from(index)].queue.front() {
                let Some(freed) = self.release(head, now) else {
                    break;
                };
                // Others of its slots have a new head.
                work.extend(freed.into_iter().filter(|&slot| slot != index));
            }
            self.slots[usize::from(index)].refresh();
        }
        self.work = work;
    }

    /// Lets a held request go if it is the first of all its slots and they may send. Its slots.
    fn release(&mut self, index: usize, now: Ms) -> Option<SlotList> {
        let held = &self.held[index];
        let first = usize::from(held.slots[0]);
        let lane = self.slots[first].lane;
        let mut offline = None;
        let mut is_apart = false;
        for &slot in &held.slots {
            let number = slot;
            let slot = &self.slots[usize::from(slot)];
            if slot.queue.front().map(|&(_, head)| head) != Some(index) {
                return None;
            }
            if slot.lane.backend == BackendId::NONE {
                offline = Some(number);
            }
            is_apart |= slot.lane.backend != lane.backend;
        }
        let is_sent = offline.is_none() && !is_apart;
        if is_sent {
            let may = |&slot: &u16| self.slots[usize::from(slot)].may_send(lane, now);
            if !held.slots.iter().all(may) {
                return None;
            }
        } else if held.slots.iter().any(|&slot| self.is_stuck(slot)) {
            return None;
        }
        let held = self.held.remove(index);
        self.deadlines.remove(&(held.deadline, held.seq, index));
        for &slot in &held.slots {
            self.slots[usize::from(slot)].queue.pop_front();
        }
        let request = held.request;
        let action = if let Some(slot) = offline {
            Action::Fail { request, why: Fault::Offline(slot_id(slot)) }
        } else if is_apart {
            Action::Split { request }
        } else {
            self.take(&held.slots, lane);
            let via = held.slots.iter().find_map(|&slot| self.slots[usize::from(slot)].via);
            Action::Send { request, lane, via }
        };
        self.actions.push_back(action);
        Some(held.slots)
    }

    /// Whether a slot's queue must not move although its head would not be sent: control holds it.
    fn is_stuck(&self, slot: u16) -> bool {
        let slot = &self.slots[usize::from(slot)];
        slot.locked || slot.state == State::Draining
    }

    /// Whether there is something to be done.
    #[inline]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// The next thing to be done.
    pub fn next_action(&mut self) -> Option<Action<R>> {
        self.actions.pop_front()
    }

    // ---- maps ----

    /// Takes a map: the entry of every slot. Those that did not change keep what refusals have taught
    /// since. An older map than the last is refused.
    pub fn set_map(&mut self, epoch: u64, entries: &[Entry], now: Ms) -> bool {
        if epoch < self.epoch || entries.len() != self.slots.len() {
            return false;
        }
        self.epoch = epoch;
        for (index, &entry) in entries.iter().enumerate() {
            if self.slots[index].entry != entry {
                self.set_entry(index, entry);
            }
        }
        let all: Vec<u16> = (0..self.slots.len() as u16).collect();
        self.ended(&all, false, now);
        true
    }

    fn set_entry(&mut self, index: usize, entry: Entry) {
        let lane = self.lane_for(entry.backend, index);
        let old = self.slots[index].lane.backend;
        let may_refuse = old == BackendId::NONE || self.backends[old.index()].refuses;
        let slot = &mut self.slots[index];
        let is_elsewhere = entry.backend != old || entry.via != slot.via;
        // Of two claims the one with the higher epoch holds; a lock or a detour is an order.
        let is_news = entry.epoch > slot.entry.epoch || entry.backend != slot.entry.backend;
        // The source of a move by the original's commands runs what comes until the move is over, also
        // one that could refuse it: while it owns the slot it has no reason to.
        let may_refuse = may_refuse && !entry.locked && entry.via.is_none() && slot.via.is_none();
        slot.entry = entry;
        slot.locked = entry.locked;
        if is_elsewhere && (is_news || entry.via != slot.via) {
            slot.tries = 0;
            slot.not_before = Ms(0);
            slot.state = State::Draining;
            self.set_way(index, lane, entry.via);
        }
        let slot = &mut self.slots[index];
        let drains = slot.in_flight > 0 && (slot.state == State::Draining || slot.locked);
        if drains && slot.locked {
            slot.state = State::Draining;
        }
        if drains && !may_refuse && !slot.owes_drain {
            slot.owes_drain = true;
            self.drains_owed += 1;
        }
        slot.refresh();
    }

    /// The epoch of the last map.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether nothing is under way any more on routes that a map has ended and whose servers cannot
    /// refuse it: what control waits for before it lets anybody use the new ones.
    pub fn is_settled(&self) -> bool {
        self.drains_owed == 0
    }

    /// Says which lane leads to which slot's core of a backend; empty: one lane for all.
    pub fn set_lanes(&mut self, backend: BackendId, lanes: Vec<u16>, now: Ms) {
        self.backends[backend.index()].lanes = lanes;
        let mut changed = Vec::new();
        for index in 0..self.slots.len() {
            if self.slots[index].lane.backend != backend {
                continue;
            }
            let lane = self.lane_for(backend, index);
            let slot = &mut self.slots[index];
            if slot.lane != lane {
                slot.lane = lane;
                // What is under way on the old lane comes first.
                if slot.state == State::Open {
                    slot.state = State::Draining;
                }
                slot.refresh();
                changed.push(index as u16);
            }
        }
        self.ended(&changed, false, now);
    }

    /// Stops (or goes on) serving: the lease is over. All slots, not only those of servers that cannot
    /// refuse: a slot that leaves one that can by the original's commands is served there until all its
    /// keys are gone, and may come back to it; whoever does not know the map is not told by a refusal.
    pub fn fence(&mut self, is_fenced: bool, now: Ms) {
        for slot in &mut self.slots {
            slot.fenced = is_fenced;
            slot.refresh();
        }
        let all: Vec<u16> = (0..self.slots.len() as u16).collect();
        self.pump(&all, now);
    }

    fn lane_for(&self, backend: BackendId, index: usize) -> Lane {
        let lanes = self.backends.get(backend.index()).map_or(&[][..], |b| &b.lanes);
        Lane { backend, index: lanes.get(index).copied().unwrap_or(0) }
    }

    /// Where the requests of a slot go; none if it is offline.
    #[inline]
    pub fn lane(&self, slot: SlotId) -> Option<Lane> {
        let lane = self.slots[slot.index()].lane;
        (lane.backend != BackendId::NONE).then_some(lane)
    }

    /// The detour of a slot that is being moved by the original's commands.
    pub fn via(&self, slot: SlotId) -> Option<Via> {
        self.slots[slot.index()].via
    }

    /// Requests that wait for their slots.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    // ---- time ----

    /// Time has passed: pauses end, and held requests whose time is up are failed.
    pub fn tick(&mut self, now: Ms) {
        while let Some(&Reverse((at, slot))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            self.pump(&[slot], now);
        }
        self.fail_overdue(now);
    }

    /// Cost: per request, its slots, each with a search in a sorted queue; most are at its front.
    fn fail_overdue(&mut self, now: Ms) {
        while let Some(&(deadline, seq, index)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let held = self.held.remove(index);
            let mut why = Fault::Deadline(slot_id(held.slots[0]));
            for &number in &held.slots {
                let slot = &mut self.slots[usize::from(number)];
                slot.leave_queue(seq, index);
                if slot.locked {
                    why = Fault::Locked(slot_id(number));
                } else if slot.fenced {
                    why = Fault::Fenced(slot_id(number));
                }
                slot.refresh();
            }
            self.actions.push_back(Action::Fail { request: held.request, why });
            self.pump(&held.slots, now);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Ms> {
        let timer = self.timers.peek().map(|&Reverse((at, _))| at);
        let deadline = self.deadlines.first().map(|&(at, ..)| at);
        [timer, deadline].into_iter().flatten().min()
    }
}

fn slot_id(index: u16) -> SlotId {
    SlotId::new(u64::from(index)).expect("slots are numbered below SLOT_COUNT")
}

#[cfg(test)]
mod tests;
