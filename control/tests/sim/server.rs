//! Servers: a Cordis server, which is the engine's books and machines in a small shell, and a model of
//! a codis-server, which obeys anybody.
//!
//! The shell does what the engine's cores do for one slot after another: it carries out what the
//! machine of a slot's source says, hands the machine what its target answers, and keeps the books on a
//! disk that takes its time. What decides is the engine's own: `migrate::books`, `migrate::machine`,
//! `migrate::disk`. A Cordis server keeps its keys in memory: a crash takes them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cordis_control::machine::request::{
    Answer, Hello, MoveReport, Probed, Request, SlotReport, SlotState as Reported,
};
use cordis_control::ranges;
use cordis_engine::migrate::books::{Asked, Coming, Going, Order, answer_of, heard};
use cordis_engine::migrate::cluster::{Inner, Membership, MoveId};
use cordis_engine::migrate::disk::Saved;
use cordis_engine::migrate::machine::{
    Attempt, Source, SourceAction, SourceActions, SourceEvent, SourceState, TargetAction,
    TargetView,
};
use cordis_engine::slots::state::{SlotSet, SlotState};
use cordis_engine::units::{Ms, SlotId};

use crate::client::{Call, Served};
use crate::dice::Dice;
use crate::time::Clock;

/// Slots that the simulation uses; all others stay offline.
pub(crate) const SLOTS: u16 = 10;
/// How long a target may owe an answer and say nothing.
const SILENCE_MS: i64 = 250;
/// First and longest wait before it is dialled again.
const REDIAL_MS: (i64, i64) = (20, 200);

/// The keys of a slot, each a counter.
pub(crate) type Keys = BTreeMap<u32, u64>;

/// The slot of a number.
pub(crate) fn slot_id(number: u16) -> SlotId {
    SlotId::new(u64::from(number)).expect("the simulation uses the first slots")
}

/// A connection of a move: of one life of its source, to its target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wire {
    pub(crate) source: Arc<str>,
    pub(crate) target: Arc<str>,
    pub(crate) number: u64,
}

/// What one server says to another.
#[derive(Clone, Debug)]
pub(crate) enum Letter {
    Hello,
    Greeted,
    Import(Coming, u64),
    Fill(Coming, Vec<(u32, u64)>),
    Ready(Coming, Keys),
    Commit(Coming, u64),
    Abort(Coming, u64),
    Resolve(MoveId, SlotId, u64),
    /// To a question about an attempt; the error's text, if it is one.
    Answer(Asked, Coming, Option<String>),
    View(SlotId, TargetView),
}

impl Letter {
    /// Whether the source sends it.
    pub(crate) fn is_question(&self) -> bool {
        !matches!(self, Self::Greeted | Self::Answer(..) | Self::View(..))
    }
}

/// What is being sent of a slot.
#[derive(Clone, Debug)]
struct Flow {
    /// The last key that was passed.
    passed: Option<u32>,
    is_walked: bool,
    /// What happened since to keys that were passed.
    effects: Vec<(u32, u64)>,
    has_caught_up: bool,
    digest: Option<Keys>,
}

#[derive(Clone, Debug)]
struct Task {
    slot: SlotId,
    source: Source,
    flow: Option<Flow>,
    note: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Down(i64),
    Greeting,
    Up,
}

/// A move away.
#[derive(Clone, Debug)]
struct Mover {
    epoch: u64,
    target: Arc<str>,
    parallel: usize,
    is_cancelled: bool,
    waiting: VecDeque<SlotId>,
    tasks: Vec<Task>,
    stage: Stage,
    wire: u64,
    redials: u32,
    owed: u32,
    heard_at: i64,
}

/// What a proxy has sent on one of its links and is not answered yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) calls: VecDeque<Call>,
    /// Slots because of which a call was refused here.
    refused: SlotSet,
}

/// Writing the books to disk.
#[derive(Debug)]
struct Saving {
    done_at: i64,
    number: u64,
    saved: Saved,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: Arc<str>,
    pub(crate) is_cordis: bool,
    pub(crate) is_up: bool,
    clock: Clock,
    pub(crate) run_id: u64,
    disk: Saved,
    pub(crate) keys: Vec<Keys>,
    // Forgotten in a crash:
    pub(crate) books: Inner,
    saving: Option<Saving>,
    changed: u64,
    saved: u64,
    movers: BTreeMap<MoveId, Mover>,
    wires: u64,
    /// Answers to control that wait for the disk.
    settling: Vec<(u64, (u64, u64), Answer)>,
    pub(crate) inboxes: BTreeMap<(usize, u64), Inbox>,
    /// What leaves at the end of a turn.
    pub(crate) out: Vec<(Wire, Letter)>,
    pub(crate) replies: Vec<((u64, u64), Answer)>,
}

impl Server {
    pub(crate) fn new(addr: &str, is_cordis: bool, clock: Clock) -> Self {
        let books = Inner::with_slots(usize::from(SLOTS));
        Self {
            addr: Arc::from(addr),
            is_cordis,
            is_up: true,
            clock,
            run_id: 1,
            disk: Saved::of(&books),
            keys: vec![Keys::new(); usize::from(SLOTS)],
            books,
            saving: None,
            changed: 0,
            saved: 0,
            movers: BTreeMap::new(),
            wires: 0,
            settling: Vec::new(),
            inboxes: BTreeMap::new(),
            out: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// The process ends. What was being written may be on disk or not.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        self.is_up = false;
        self.run_id += 1;
        if let Some(saving) = self.saving.take().filter(|_| dice.percent(50)) {
            self.disk = saving.saved;
        }
        self.movers.clear();
        self.settling.clear();
        self.inboxes.clear();
        self.out.clear();
        self.replies.clear();
        if self.is_cordis {
            self.keys.iter_mut().for_each(Keys::clear);
        }
    }

    /// It starts again, and its clock may have been set meanwhile.
    pub(crate) fn start(&mut self, dice: &mut Dice) {
        self.is_up = true;
        self.clock.step(dice.span(-300, 300));
        self.books = Inner::with_slots(usize::from(SLOTS));
        self.disk.clone().restore(&mut self.books);
        self.changed += 1;
        self.saved = self.changed;
        self.announce();
    }

    /// Whether it runs requests of a slot, or would as soon as it thaws.
    pub(crate) fn claims(&self, slot: u16) -> bool {
        self.is_cordis && self.books.membership.is_some() && self.state_of(slot).is_visible()
    }

    pub(crate) fn epoch_of(&self, slot: u16) -> u64 {
        self.books.slot(slot_id(slot)).epoch
    }

    pub(crate) fn state_of(&self, slot: u16) -> SlotState {
        self.books.slot(slot_id(slot)).state
    }

    pub(crate) fn keys_of(&self, slot: u16) -> &Keys {
        &self.keys[usize::from(slot)]
    }

    /// Whether nothing is left of any move, also of one that came to nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        self.movers.is_empty() && self.books.slots.iter().all(|entry| !entry.state.is_moving())
    }

    // ---- clients ----

    /// Runs what it can of what proxies have sent; answers with their links.
    pub(crate) fn serve(&mut self) -> Vec<((usize, u64), Call, Served)> {
        let mut served = Vec::new();
        let links: Vec<(usize, u64)> = self.inboxes.keys().copied().collect();
        for link in links {
            while let Some(call) = self.inboxes.get(&link).and_then(|inbox| inbox.calls.front()) {
                let call = *call;
                if call.is_retry
                    && let Some(inbox) = self.inboxes.get_mut(&link)
                {
                    inbox.refused.remove(slot_id(call.op.slot));
                }
                let is_refused = |inbox: &Inbox| inbox.refused.contains(slot_id(call.op.slot));
                let outcome = match self.inboxes.get(&link).is_some_and(is_refused) {
                    true => Served::Later,
                    false => self.run(&call),
                };
                if outcome == Served::Held {
                    break;
                }
                let Some(inbox) = self.inboxes.get_mut(&link) else { break };
                inbox.calls.pop_front();
                if matches!(outcome, Served::Moved(_) | Served::Later) && call.is_sticky {
                    inbox.refused.insert(slot_id(call.op.slot));
                }
                served.push((link, call, outcome));
            }
        }
        served
    }

    fn run(&mut self, call: &Call) -> Served {
        let slot = call.op.slot;
        if self.is_cordis {
            let entry = self.books.slot(slot_id(slot));
            match entry.state {
                SlotState::Owned | SlotState::Leaving => {}
                SlotState::Frozen => return Served::Held,
                SlotState::Away | SlotState::Handed => {
                    return entry.peer.clone().map_or(Served::Later, Served::Moved);
                }
                _ => return Served::Later,
            }
        }
        let keys = &mut self.keys[usize::from(slot)];
        if call.is_wrapped && !keys.contains_key(&call.op.key) {
            return Served::Missing;
        }
        let before = keys.get(&call.op.key).copied().unwrap_or(0);
        if !call.op.is_read {
            keys.insert(call.op.key, before + 1);
            self.note_effect(slot, call.op.key, before + 1);
        }
        Served::Ran(before)
    }

    /// What happens to a key that has been sent is sent too.
    fn note_effect(&mut self, slot: u16, key: u32, value: u64) {
        let tasks = self.movers.values_mut().flat_map(|mover| &mut mover.tasks);
        for task in tasks.filter(|task| task.slot == slot_id(slot)) {
            if let Some(flow) = &mut task.flow
                && (flow.is_walked || flow.passed.is_some_and(|passed| key <= passed))
            {
                flow.effects.push((key, value));
            }
        }
    }

    /// The original's restore: overwrites.
    pub(crate) fn restore(&mut self, slot: u16, keys: &Keys) -> bool {
        let may = !self.is_cordis || self.state_of(slot) == SlotState::Owned;
        if may {
            let all = keys.iter().map(|(key, value)| (*key, *value));
            self.keys[usize::from(slot)].extend(all);
        }
        may
    }

    /// Keys that the next call of the original's would carry.
    pub(crate) fn to_carry(&self, slot: u16, count: usize) -> Keys {
        self.keys_of(slot).iter().take(count).map(|(key, value)| (*key, *value)).collect()
    }

    /// Keys are on the other side.
    pub(crate) fn carried(&mut self, slot: u16, keys: &Keys) {
        self.keys[usize::from(slot)].retain(|key, _| !keys.contains_key(key));
    }

    // ---- control ----

    /// Answers control, unless the answer waits for the disk.
    pub(crate) fn ask(&mut self, asked: (u64, u64), request: &Request) -> Option<Answer> {
        let with_keys = || (0..SLOTS).filter(|slot| !self.keys_of(*slot).is_empty()).collect();
        if !self.is_cordis {
            return Some(match request {
                Request::Probe => {
                    let probed = Probed::Codis(self.addr.to_string(), with_keys());
                    Answer::Probed(Box::new(probed))
                }
                Request::NextDb { .. } => Answer::Db(None),
                _ => Answer::Ok,
            });
        }
        let done = match request {
            Request::Probe => {
                let probed = Probed::Cordis(self.hello(), with_keys());
                return Some(Answer::Probed(Box::new(probed)));
            }
            Request::Hello => return Some(Answer::Hello(self.hello())),
            Request::Slots => return Some(Answer::Slots(self.report_slots())),
            Request::Moves => return Some(Answer::Moves(self.report_moves())),
            Request::NextDb { .. } => return Some(Answer::Db(None)),
            Request::Expect { id, epoch, source, slots } => {
                let result = self.books.expect(*id, *epoch, source.clone(), set_of(slots));
                self.changed += 1;
                return Some(result.map_or_else(refused, |()| Answer::Ok));
            }
            Request::Join { product, group, addr } => {
                let (product, addr) = (product.clone(), addr.clone());
                self.books.admit(Membership { product, group: *group, addr }).map(|()| Answer::Ok)
            }
            Request::Leave { product } => {
                self.books.dismiss(product.as_bytes()).map(|()| Answer::Ok)
            }
            Request::MapSet(map) => {
                if let Some(newer) = self.books.map.as_ref().filter(|old| old.epoch > map.epoch) {
                    return Some(Answer::Stale(newer.epoch));
                }
                self.books.offer_map((**map).clone()).map(|()| Answer::Epoch(map.epoch))
            }
            Request::Move { id, epoch, target, slots, rate, parallel } => {
                let order = Order {
                    id: *id,
                    epoch: *epoch,
                    target: target.clone(),
                    slots: set_of(slots),
                    rate_bytes: Some(*rate),
                    parallel: Some(*parallel as usize),
                };
                self.books.order_move(order, (0, 1)).map(|()| Answer::Ok)
            }
            Request::Cancel { id } => {
                self.books.call_off(*id);
                Ok(Answer::Ok)
            }
            _ => Ok(Answer::Ok),
        };
        match done {
            Err(error) => Some(refused(error)),
            Ok(answer) => {
                self.announce();
                self.changed += 1;
                self.settling.push((self.changed, asked, answer));
                None
            }
        }
    }

    fn hello(&self) -> Hello {
        let me = self.books.membership.as_ref();
        Hello {
            version: "1".into(),
            run_id: format!("{}-{}", self.addr, self.run_id),
            cores: 1,
            product: me.map(|me| me.product.clone()).unwrap_or_default(),
            group: me.map_or(0, |me| me.group),
            epoch: self.books.map.as_ref().map_or(0, |map| map.epoch),
        }
    }

    fn report_slots(&self) -> Vec<SlotReport> {
        let report = |slot: SlotId| {
            let entry = self.books.slot(slot);
            SlotReport {
                from: slot.index() as u16,
                to: slot.index() as u16,
                state: Reported::named(entry.state.name()).expect("both know the same names"),
                epoch: entry.epoch,
                core: 0,
                peer: entry.peer.as_deref().unwrap_or_default().to_owned(),
            }
        };
        self.books.ids().map(report).collect()
    }

    fn report_moves(&self) -> Vec<MoveReport> {
        let going = self.books.outbound.iter().map(|(id, outbound)| MoveReport {
            id: *id,
            is_source: true,
            peer: outbound.target.clone(),
            slots: outbound.slots.len() as u64,
            done: outbound.done.len() as u64,
            failed: outbound.failed.len() as u64,
            done_slots: ranges_of(&outbound.done),
            keys: outbound.keys,
            error: outbound.error.clone(),
            ..MoveReport::default()
        });
        let coming = self.books.inbound.iter().map(|(id, inbound)| MoveReport {
            id: *id,
            is_source: false,
            peer: inbound.source.clone(),
            slots: inbound.slots.len() as u64,
            done: inbound.done.len() as u64,
            done_slots: ranges_of(&inbound.done),
            ..MoveReport::default()
        });
        going.chain(coming).collect()
    }

    /// Makes of the slots what is wanted, and takes up moves.
    fn announce(&mut self) {
        self.make_wanted();
        for slot in self.books.imports_called_off() {
            self.keys[slot.index()].clear();
            self.books.drop_import(slot);
            self.changed += 1;
        }
        self.make_wanted();
        self.forget_called_off();
        for (&id, outbound) in &self.books.outbound {
            let mover = self.movers.entry(id).or_insert_with(|| Mover {
                epoch: outbound.epoch,
                target: Arc::from(&*outbound.target),
                parallel: outbound.parallel,
                is_cancelled: false,
                waiting: VecDeque::new(),
                tasks: Vec::new(),
                stage: Stage::Down(0),
                wire: 0,
                redials: 0,
                owed: 0,
                heard_at: 0,
            });
            mover.parallel = outbound.parallel;
            mover.is_cancelled = outbound.is_cancelled;
            for slot in self.books.ids().filter(|slot| outbound.slots.contains(*slot)) {
                let is_known = mover.waiting.contains(&slot)
                    || mover.tasks.iter().any(|task| task.slot == slot);
                if !is_known && self.books.is_to_move(id, outbound, slot) {
                    mover.waiting.push_back(slot);
                }
            }
        }
        for (id, mover) in &mut self.movers {
            mover.is_cancelled |= !self.books.outbound.contains_key(id);
        }
    }

    fn make_wanted(&mut self) {
        while let Some((slot, wanted)) = self.books.wanted.pop_first() {
            if wanted.epoch > 0 && self.books.slot(slot).is_being_moved() {
                continue;
            }
            if matches!(self.books.slot(slot).state, SlotState::Importing | SlotState::Ready) {
                self.keys[slot.index()].clear();
            }
            self.books.make(slot, wanted);
        }
    }

    fn forget_called_off(&mut self) {
        if self.books.forget_called_off() {
            self.changed += 1;
        }
    }

    // ---- a turn ----

    /// Everything that there is to do now.
    pub(crate) fn turn(&mut self, world: i64, dice: &mut Dice) {
        if !self.is_cordis {
            return;
        }
        let now = self.clock.read(world);
        self.see_to_disk(now, dice);
        let mut movers = std::mem::take(&mut self.movers);
        for (&id, mover) in &mut movers {
            self.steer(now, id, mover);
            self.stream(now, id, mover);
            self.steer(now, id, mover);
        }
        let count = movers.len();
        movers.retain(|_, mover| {
            let is_idle = mover.tasks.is_empty() && mover.waiting.is_empty();
            !(is_idle && mover.owed == 0)
        });
        let has_ended = movers.len() < count;
        self.movers = movers;
        if has_ended {
            self.forget_called_off();
        }
        self.see_to_disk(now, dice);
        let saved = self.saved;
        let (ready, rest) = self.settling.drain(..).partition(|(number, ..)| *number <= saved);
        self.settling = rest;
        let ready: Vec<_> = ready;
        self.replies.extend(ready.into_iter().map(|(_, asked, answer)| (asked, answer)));
    }

    fn see_to_disk(&mut self, now: i64, dice: &mut Dice) {
        if let Some(saving) = self.saving.take_if(|saving| saving.done_at <= now) {
            self.disk = saving.saved;
            self.saved = saving.number;
        }
        if self.saving.is_none() && self.saved < self.changed {
            let slow = if dice.percent(5) { dice.span(20, 300) } else { dice.span(1, 6) };
            let saved = Saved::of(&self.books);
            self.saving = Some(Saving { done_at: now + slow, number: self.changed, saved });
        }
    }

    fn steer(&mut self, now: i64, id: MoveId, mover: &mut Mover) {
        if mover.is_cancelled {
            mover.waiting.retain(|&slot| self.books.is_in_doubt(id, slot));
            for index in 0..mover.tasks.len() {
                self.step(now, id, mover, index, SourceEvent::Cancel);
            }
        }
        while mover.tasks.len() < mover.parallel.max(1)
            && let Some(slot) = mover.waiting.pop_front()
        {
            let holds_keys = !self.keys[slot.index()].is_empty();
            let source = self.books.begin_leaving(id, slot, Ms(now), || holds_keys);
            let Some(source) = source else { continue };
            mover.tasks.push(Task { slot, source, flow: None, note: None });
            if mover.stage == Stage::Up {
                self.step(now, id, mover, mover.tasks.len() - 1, SourceEvent::LinkUp);
            }
        }
        for index in 0..mover.tasks.len() {
            let task = &mut mover.tasks[index];
            if task.note.is_some_and(|note| note <= self.saved) {
                task.note = None;
                let attempt = task.source.attempt();
                self.step(now, id, mover, index, SourceEvent::Noted(attempt));
            }
            if mover.tasks[index].source.next_at().is_some_and(|at| at.0 <= now) {
                self.step(now, id, mover, index, SourceEvent::Tick);
            }
        }
        self.end_tasks(id, mover);
        let is_silent = mover.owed > 0 && now - mover.heard_at > SILENCE_MS;
        match mover.stage {
            Stage::Greeting | Stage::Up if is_silent => self.lose_wire(now, id, mover),
            Stage::Down(at) if at <= now && !mover.tasks.is_empty() => {
                self.wires += 1;
                mover.wire = self.wires;
                mover.stage = Stage::Greeting;
                mover.heard_at = now;
                mover.owed = 0;
                self.send(mover, now, Letter::Hello);
            }
            _ => {}
        }
    }

    fn lose_wire(&mut self, now: i64, id: MoveId, mover: &mut Mover) {
        let wait = (REDIAL_MS.0 << mover.redials.min(6)).min(REDIAL_MS.1);
        mover.redials += 1;
        mover.stage = Stage::Down(now + wait);
        mover.owed = 0;
        for index in 0..mover.tasks.len() {
            self.step(now, id, mover, index, SourceEvent::LinkDown);
        }
    }

    fn end_tasks(&mut self, id: MoveId, mover: &mut Mover) {
        let mut index = 0;
        while index < mover.tasks.len() {
            if !mover.tasks[index].source.has_ended() {
                index += 1;
                continue;
            }
            let task = mover.tasks.swap_remove(index);
            let state = task.source.state();
            if let Some(outbound) = self.books.outbound.get_mut(&id) {
                match state {
                    SourceState::Done => _ = outbound.done.insert(task.slot),
                    SourceState::Failed => _ = outbound.failed.insert(task.slot),
                    _ => {}
                }
                outbound.ended.insert(task.slot);
            }
            if state != SourceState::Done {
                self.books.stay(task.slot);
            }
            self.changed += 1;
        }
        self.make_wanted();
    }

    fn step(&mut self, now: i64, id: MoveId, mover: &mut Mover, index: usize, event: SourceEvent) {
        let actions = mover.tasks[index].source.step(Ms(now), event);
        self.act(now, id, mover, index, actions);
    }

    /// Carries the actions of a slot's machine out, as `runtime/migrate.rs` of the engine does.
    fn act(
        &mut self,
        now: i64,
        id: MoveId,
        mover: &mut Mover,
        index: usize,
        actions: SourceActions,
    ) {
        for action in actions {
            let slot = mover.tasks[index].slot;
            let coming = |attempt: Attempt| Coming { slot, id, attempt };
            let going = Going { id, epoch: mover.epoch, target: &mover.target };
            if self.books.note_leaving(slot, going, &action) {
                self.changed += 1;
            }
            let epoch = mover.epoch;
            let task = &mut mover.tasks[index];
            match action {
                SourceAction::SendImport(attempt) => {
                    self.send(mover, now, Letter::Import(coming(attempt), epoch));
                }
                SourceAction::BeginStream(_) => task.flow = Some(Flow::new()),
                SourceAction::EndStream | SourceAction::Thaw => {
                    task.flow = None;
                    task.note = None;
                }
                SourceAction::Note(_) => task.note = Some(self.changed),
                SourceAction::Freeze(_) => {}
                SourceAction::SendReady(attempt) => {
                    let digest = task.flow.as_ref().and_then(|flow| flow.digest.clone());
                    let digest = digest.expect("a slot is drained before it is compared");
                    self.send(mover, now, Letter::Ready(coming(attempt), digest));
                }
                SourceAction::HandOver(_) => task.flow = None,
                SourceAction::SendCommit(attempt) => {
                    self.send(mover, now, Letter::Commit(coming(attempt), epoch));
                }
                SourceAction::SendAbort(attempt) => {
                    self.send(mover, now, Letter::Abort(coming(attempt), epoch));
                }
                SourceAction::SendResolve => {
                    self.send(mover, now, Letter::Resolve(id, slot, epoch))
                }
                SourceAction::Forget => self.keys[slot.index()].clear(),
            }
        }
    }

    fn send(&mut self, mover: &mut Mover, now: i64, letter: Letter) {
        if !matches!(letter, Letter::Fill(..)) {
            if mover.owed == 0 {
                mover.heard_at = now;
            }
            mover.owed += 1;
        }
        let (source, target) = (Arc::clone(&self.addr), Arc::clone(&mover.target));
        self.out.push((Wire { source, target, number: mover.wire }, letter));
    }

    /// Sends the next keys of each slot, and what happened to those that were sent.
    fn stream(&mut self, now: i64, id: MoveId, mover: &mut Mover) {
        for index in 0..mover.tasks.len() {
            let task = &mut mover.tasks[index];
            let (slot, attempt) = (task.slot, task.source.attempt());
            let state = task.source.state();
            let is_frozen = matches!(state, SourceState::Frozen(_));
            let Some(flow) = task.flow.as_mut().filter(|flow| flow.digest.is_none()) else {
                continue;
            };
            if !is_frozen && !matches!(state, SourceState::Streaming | SourceState::Noting) {
                continue;
            }
            let mut items = std::mem::take(&mut flow.effects);
            let keys = &self.keys[slot.index()];
            let next = keys.iter().find(|(key, _)| flow.passed.is_none_or(|at| **key > at));
            match next.filter(|_| !flow.is_walked) {
                Some((key, value)) => {
                    flow.passed = Some(*key);
                    items.push((*key, *value));
                }
                None => flow.is_walked = true,
            }
            let event = if is_frozen {
                flow.digest = Some(keys.clone());
                Some(SourceEvent::Drained(attempt))
            } else if flow.is_walked && !flow.has_caught_up {
                flow.has_caught_up = true;
                Some(SourceEvent::Caught(attempt))
            } else {
                None
            };
            if !items.is_empty() {
                self.send(mover, now, Letter::Fill(Coming { slot, id, attempt }, items));
            }
            if let Some(event) = event {
                self.step(now, id, mover, index, event);
            }
        }
    }

    // ---- letters ----

    /// Takes a letter in.
    pub(crate) fn take(&mut self, world: i64, wire: &Wire, letter: Letter) {
        let now = self.clock.read(world);
        if letter.is_question() {
            if let Some(back) = self.answer(letter) {
                self.out.push((wire.clone(), back));
            }
            return;
        }
        let mut movers = std::mem::take(&mut self.movers);
        let is_it = |mover: &Mover| mover.wire == wire.number && mover.target == wire.target;
        let found = movers.iter_mut().find(|(_, mover)| is_it(mover));
        if let Some((&id, mover)) =
            found.filter(|(_, mover)| !matches!(mover.stage, Stage::Down(_)))
        {
            self.hear(now, id, mover, letter);
        }
        self.movers = movers;
    }

    fn hear(&mut self, now: i64, id: MoveId, mover: &mut Mover, letter: Letter) {
        mover.heard_at = now;
        let is_owed = !matches!(letter, Letter::Answer(Asked::Fill, ..));
        mover.owed = mover.owed.saturating_sub(u32::from(is_owed));
        let at = |mover: &Mover, slot| mover.tasks.iter().position(|task| task.slot == slot);
        match letter {
            Letter::Greeted => {
                mover.stage = Stage::Up;
                mover.redials = 0;
                for index in 0..mover.tasks.len() {
                    self.step(now, id, mover, index, SourceEvent::LinkUp);
                }
            }
            Letter::Answer(asked, coming, error) => {
                let event = heard(asked, coming.attempt, error.as_deref());
                if let (Some(index), Some(event)) = (at(mover, coming.slot), event) {
                    self.step(now, id, mover, index, event);
                }
            }
            Letter::View(slot, view) => {
                if let Some(index) = at(mover, slot) {
                    self.step(now, id, mover, index, SourceEvent::Resolved(view));
                }
            }
            _ => {}
        }
    }

    /// The target's side, as `runtime/slots.rs` of the engine does it.
    fn answer(&mut self, letter: Letter) -> Option<Letter> {
        let (asked, coming, result) = match letter {
            Letter::Hello => return Some(Letter::Greeted),
            Letter::Resolve(id, slot, epoch) => {
                return Some(Letter::View(slot, self.books.resolve(id, slot, epoch)));
            }
            Letter::Import(coming, epoch) => {
                let result = self.books.begin_import(coming, epoch);
                let result = result.and_then(|(action, reply)| {
                    self.after_import(coming.slot, action);
                    answer_of(reply)
                });
                (Asked::Import, coming, result)
            }
            Letter::Fill(coming, items) => {
                let entry = self.books.slot(coming.slot);
                if entry.move_id == coming.id && entry.target.takes(coming.attempt) {
                    self.keys[coming.slot.index()].extend(items);
                    return None;
                }
                let stale = "STALEIMPORT this attempt is over".to_owned();
                return Some(Letter::Answer(Asked::Fill, coming, Some(stale)));
            }
            Letter::Ready(coming, digest) => {
                let keys = &self.keys[coming.slot.index()];
                let (is_equal, count) = (*keys == digest, keys.len() as u64);
                let reply = self.books.end_import(coming, is_equal, count);
                (Asked::Ready, coming, answer_of(reply))
            }
            Letter::Commit(coming, epoch) => {
                let (action, reply) = self.books.commit_import(coming, epoch);
                self.after_import(coming.slot, action);
                (Asked::Commit, coming, answer_of(reply))
            }
            Letter::Abort(coming, epoch) => {
                let (action, reply) = self.books.abort_import(coming, epoch);
                self.after_import(coming.slot, action);
                (Asked::Abort, coming, answer_of(reply))
            }
            Letter::Greeted | Letter::Answer(..) | Letter::View(..) => return None,
        };
        let error = result.err().map(|error| error.text().to_owned());
        Some(Letter::Answer(asked, coming, error))
    }

    fn after_import(&mut self, slot: SlotId, action: TargetAction) {
        if action == TargetAction::Clear {
            self.keys[slot.index()].clear();
        }
        self.changed += u64::from(action != TargetAction::None);
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            passed: None,
            is_walked: false,
            effects: Vec::new(),
            has_caught_up: false,
            digest: None,
        }
    }
}

fn refused(error: cordis_engine::resp::error::CommandError) -> Answer {
    Answer::Refused(error.text().to_owned())
}

fn set_of(slots: &ranges::SlotSet) -> SlotSet {
    slots.iter().map(slot_id).collect()
}

fn ranges_of(slots: &SlotSet) -> ranges::SlotSet {
    (0..SLOTS).filter(|slot| slots.contains(slot_id(*slot))).collect()
}
