//! Models of servers: a Cordis server with the rules of hand-over, and a codis-server, which obeys
//! anybody. What they hold survives a crash, as it does with persistence; what is under way does not.
//!
//! The Cordis model stands for the engine's own migration machines behind the same questions and
//! answers; the engine tests those against each other by itself.

use std::collections::{BTreeMap, BTreeSet};

use cordis_control::machine::request::{
    Answer, Hello, MoveReport, Probed, Request, SlotReport, SlotState,
};
use cordis_control::ranges::SlotSet;
use cordis_engine::slots::map::ClusterMap;

/// Slots that the simulation uses; all others stay offline.
pub(crate) const SLOTS: u16 = 10;
/// How long a slot may be frozen.
const FREEZE_MAX_MS: i64 = 60;
/// When something that was sent and not answered is sent again.
const RESEND_MS: i64 = 40;

/// The keys of a slot, each a counter.
pub(crate) type Keys = BTreeMap<u32, u64>;

/// What one server says to another about a move.
#[derive(Clone, Debug)]
pub(crate) enum Letter {
    Import { id: u64, epoch: u64, slot: u16, attempt: u64, keys: Keys },
    Imported { slot: u16, attempt: u64 },
    Refused { slot: u16, attempt: u64 },
    Ready { id: u64, slot: u16, attempt: u64, keys: Keys },
    IsReady { slot: u16, attempt: u64 },
    Commit { id: u64, slot: u16, epoch: u64 },
    Committed { slot: u16, epoch: u64 },
    Abort { id: u64, slot: u16, attempt: u64 },
}

/// What became of a client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It ran; the value that it found before.
    Ran(u64),
    /// It did not run: ask there.
    Moved(String),
    /// It did not run: ask later.
    Later,
    /// The wrapper: the key is not here.
    Missing,
}

/// A step of the source for one slot.
#[derive(Clone, Debug)]
struct Task {
    id: u64,
    attempt: u64,
    sent_ms: i64,
    frozen_ms: i64,
}

#[derive(Clone, Debug)]
struct Slot {
    state: SlotState,
    epoch: u64,
    /// Whom it was handed to, or whose it is.
    peer: String,
    keys: Keys,
    /// Importing, ready: of which move, which attempt. Handed: of which move, under which epoch.
    id: u64,
    attempt: u64,
    granted: u64,
    /// Where it comes from.
    source: String,
    /// It travels by the original's commands.
    is_carried: bool,
}

#[derive(Clone, Debug)]
struct Sending {
    epoch: u64,
    target: String,
    slots: SlotSet,
    done: SlotSet,
    parallel: usize,
    error: String,
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) addr: String,
    pub(crate) is_cordis: bool,
    pub(crate) is_up: bool,
    product: String,
    group: u16,
    map_epoch: u64,
    run_id: u64,
    slots: Vec<Slot>,
    // Forgotten in a crash:
    sending: BTreeMap<u64, Sending>,
    tasks: BTreeMap<u16, Task>,
    expected: BTreeMap<u64, (String, SlotSet)>,
    attempts: u64,
}

impl Server {
    pub(crate) fn new(addr: &str, is_cordis: bool) -> Self {
        let slot = Slot {
            state: SlotState::Owned,
            epoch: 0,
            peer: String::new(),
            keys: Keys::new(),
            id: 0,
            attempt: 0,
            granted: 0,
            source: String::new(),
            is_carried: false,
        };
        Self {
            addr: addr.to_owned(),
            is_cordis,
            is_up: true,
            product: String::new(),
            group: 0,
            map_epoch: 0,
            run_id: 1,
            slots: vec![slot; usize::from(SLOTS)],
            sending: BTreeMap::new(),
            tasks: BTreeMap::new(),
            expected: BTreeMap::new(),
            attempts: 0,
        }
    }

    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.run_id += 1;
        self.sending.clear();
        self.tasks.clear();
        self.expected.clear();
        for slot in &mut self.slots {
            match slot.state {
                // Streamed or frozen: not handed over, so still ours.
                SlotState::Leaving | SlotState::Frozen => slot.state = SlotState::Owned,
                SlotState::Importing => {
                    slot.state = SlotState::Away;
                    slot.keys.clear();
                }
                _ => {}
            }
        }
    }

    /// Whether it runs requests of a slot, or would as soon as it thaws.
    pub(crate) fn claims(&self, slot: u16) -> bool {
        self.is_cordis && self.map_epoch > 0 && self.slots[usize::from(slot)].state.is_claim()
    }

    pub(crate) fn epoch_of(&self, slot: u16) -> u64 {
        self.slots[usize::from(slot)].epoch
    }

    pub(crate) fn keys_of(&self, slot: u16) -> &Keys {
        &self.slots[usize::from(slot)].keys
    }

    pub(crate) fn state_of(&self, slot: u16) -> SlotState {
        self.slots[usize::from(slot)].state
    }

    pub(crate) fn is_quiet(&self) -> bool {
        // Nor may anything be left of a move that came to nothing.
        let is_final = |slot: &Slot| matches!(slot.state, SlotState::Owned | SlotState::Away);
        self.sending.is_empty() && self.slots.iter().all(is_final)
    }

    /// Adds one to a key, if the slot is served here.
    pub(crate) fn run(&mut self, slot: u16, key: u32) -> Served {
        let at = &mut self.slots[usize::from(slot)];
        if self.is_cordis {
            match at.state {
                SlotState::Owned | SlotState::Leaving => {}
                SlotState::Away | SlotState::Handed if !at.peer.is_empty() => {
                    return Served::Moved(at.peer.clone());
                }
                _ => return Served::Later,
            }
        }
        let value = at.keys.entry(key).or_insert(0);
        *value += 1;
        Served::Ran(*value - 1)
    }

    /// The original's wrapper: runs only if the key is here.
    pub(crate) fn run_wrapped(&mut self, slot: u16, key: u32) -> Served {
        if self.slots[usize::from(slot)].keys.contains_key(&key) {
            return self.run(slot, key);
        }
        Served::Missing
    }

    /// The original's restore: overwrites.
    pub(crate) fn restore(&mut self, slot: u16, keys: &Keys) -> bool {
        let at = &mut self.slots[usize::from(slot)];
        let may = !self.is_cordis || at.state == SlotState::Owned;
        if may {
            at.keys.extend(keys.iter().map(|(key, value)| (*key, *value)));
        }
        may
    }

    /// Keys that the next call of the original's would carry.
    pub(crate) fn to_carry(&self, slot: u16, count: usize) -> Keys {
        let keys = self.keys_of(slot).iter().take(count);
        keys.map(|(key, value)| (*key, *value)).collect()
    }

    /// Keys are on the other side.
    pub(crate) fn carried(&mut self, slot: u16, keys: &Keys) {
        self.slots[usize::from(slot)].keys.retain(|key, _| !keys.contains_key(key));
    }

    /// Answers control.
    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        if !self.is_cordis {
            return match request {
                Request::Probe => {
                    let with_keys = (0..SLOTS).filter(|slot| !self.keys_of(*slot).is_empty());
                    let probed = Probed::Codis(self.addr.clone(), with_keys.collect());
                    Answer::Probed(Box::new(probed))
                }
                Request::NextDb { .. } => Answer::Db(None),
                _ => Answer::Ok,
            };
        }
        match request {
            Request::Probe => {
                let with_keys = (0..SLOTS).filter(|slot| !self.keys_of(*slot).is_empty());
                Answer::Probed(Box::new(Probed::Cordis(self.hello(), with_keys.collect())))
            }
            Request::Hello => Answer::Hello(self.hello()),
            Request::Join { product, group, .. } => self.join(product, *group),
            Request::MapSet(map) => self.take_map(map),
            Request::Slots => Answer::Slots(self.report_slots()),
            Request::Moves => Answer::Moves(self.report_moves()),
            Request::Expect { id, source, slots, .. } => {
                self.expected.insert(*id, (source.clone(), *slots));
                Answer::Ok
            }
            Request::Move { id, epoch, target, slots, parallel, .. } => {
                self.begin(*id, *epoch, target, *slots, *parallel as usize)
            }
            Request::Cancel { id } => self.cancel(*id),
            Request::NextDb { .. } => Answer::Db(None),
            _ => Answer::Ok,
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            version: "1".into(),
            run_id: format!("{}-{}", self.addr, self.run_id),
            cores: 1,
            product: self.product.clone(),
            group: self.group,
            epoch: self.map_epoch,
        }
    }

    fn join(&mut self, product: &str, group: u16) -> Answer {
        if self.product.is_empty() {
            product.clone_into(&mut self.product);
            self.group = group;
            self.slots.iter_mut().for_each(|slot| slot.state = SlotState::Away);
        }
        Answer::Ok
    }

    fn take_map(&mut self, map: &ClusterMap) -> Answer {
        if map.epoch < self.map_epoch {
            return Answer::Stale(self.map_epoch);
        }
        self.map_epoch = map.epoch;
        for number in 0..SLOTS {
            let entry = map.slots.iter().find(|range| (range.from..=range.to).contains(&number));
            let entry = entry.expect("a map has every slot");
            let primary = map.group(entry.group).and_then(|group| group.primary());
            let addr = primary.map(|server| server.addr.clone()).unwrap_or_default();
            let slot = &mut self.slots[usize::from(number)];
            let is_ours = entry.group == self.group;
            slot.is_carried = entry.migrate_from == self.group;
            if slot.is_carried && matches!(slot.state, SlotState::Leaving | SlotState::Frozen) {
                slot.state = SlotState::Owned;
                self.tasks.remove(&number);
            }
            if entry.epoch <= slot.epoch {
                if slot.state == SlotState::Away && entry.epoch == slot.epoch && !is_ours {
                    slot.peer = addr;
                }
                continue;
            }
            let imports = matches!(slot.state, SlotState::Importing | SlotState::Ready);
            if imports || entry.migrate_from == self.group {
                continue;
            }
            slot.epoch = entry.epoch;
            if is_ours {
                slot.state = SlotState::Owned;
            } else {
                slot.state = SlotState::Away;
                slot.peer = addr;
                slot.keys.clear();
                self.tasks.remove(&number);
            }
        }
        Answer::Epoch(self.map_epoch)
    }

    fn report_slots(&self) -> Vec<SlotReport> {
        let report = |(number, slot): (u16, &Slot)| SlotReport {
            from: number,
            to: number,
            state: slot.state,
            epoch: slot.epoch,
            core: 0,
            peer: slot.peer.clone(),
        };
        (0..).zip(&self.slots).map(report).collect()
    }

    fn report_moves(&self) -> Vec<MoveReport> {
        let sending = self.sending.iter().map(|(id, sending)| MoveReport {
            id: *id,
            is_source: true,
            peer: sending.target.clone(),
            slots: sending.slots.len() as u64,
            done: sending.done.len() as u64,
            done_slots: sending.done,
            keys: self.attempts,
            error: sending.error.clone(),
            ..MoveReport::default()
        });
        // What it expects, and what it holds of moves that it does not expect any more.
        let held = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.state, SlotState::Importing | SlotState::Ready));
        let mut coming: BTreeMap<u64, (&str, usize)> =
            held.map(|slot| (slot.id, (slot.source.as_str(), 1))).collect();
        for (id, (source, slots)) in &self.expected {
            coming.insert(*id, (source, slots.len()));
        }
        let expected = coming.into_iter().map(|(id, (source, slots))| MoveReport {
            id,
            is_source: false,
            peer: source.to_owned(),
            slots: slots as u64,
            ..MoveReport::default()
        });
        sending.chain(expected).collect()
    }

    fn begin(
        &mut self,
        id: u64,
        epoch: u64,
        target: &str,
        slots: SlotSet,
        parallel: usize,
    ) -> Answer {
        if let Some(sending) = self.sending.get_mut(&id) {
            sending.parallel = parallel;
            return Answer::Ok;
        }
        let foreign: SlotSet = slots
            .iter()
            .filter(|slot| {
                self.slots
                    .get(usize::from(*slot))
                    .is_none_or(|s| !s.state.is_claim() || s.epoch >= epoch || s.is_carried)
            })
            .collect();
        if !foreign.is_empty() {
            return Answer::Refused(format!("ERR slots {foreign} are not served here"));
        }
        let sending = Sending {
            epoch,
            target: target.to_owned(),
            slots,
            done: SlotSet::new(),
            parallel,
            error: String::new(),
        };
        self.sending.insert(id, sending);
        Answer::Ok
    }

    fn cancel(&mut self, id: u64) -> Answer {
        self.sending.remove(&id);
        self.expected.remove(&id);
        self.tasks.retain(|number, task| {
            let slot = &mut self.slots[usize::from(*number)];
            let stays = task.id != id || slot.state == SlotState::Handed;
            if !stays && matches!(slot.state, SlotState::Leaving | SlotState::Frozen) {
                slot.state = SlotState::Owned;
            }
            stays
        });
        for slot in &mut self.slots {
            let imports = matches!(slot.state, SlotState::Importing | SlotState::Ready);
            if imports && slot.id == id {
                slot.state = SlotState::Away;
                slot.keys.clear();
            }
        }
        Answer::Ok
    }

    /// Works on its moves; letters with their addressee.
    pub(crate) fn tick(&mut self, now: i64) -> Vec<(String, Letter)> {
        let mut letters = Vec::new();
        self.start_tasks(now, &mut letters);
        for number in 0..SLOTS {
            self.step_slot(now, number, &mut letters);
        }
        letters
    }

    fn start_tasks(&mut self, now: i64, letters: &mut Vec<(String, Letter)>) {
        let busy: BTreeSet<u16> = self.tasks.keys().copied().collect();
        for (id, sending) in &self.sending {
            let running = self.tasks.values().filter(|task| task.id == *id).count();
            let free = sending.parallel.saturating_sub(running);
            let open = sending.slots.iter().filter(|slot| {
                let state = self.slots[usize::from(*slot)].state;
                let at = &self.slots[usize::from(*slot)];
                let is_free = !at.is_carried && at.epoch < sending.epoch;
                let is_open = !sending.done.contains(*slot) && !busy.contains(slot);
                is_open && is_free && state == SlotState::Owned
            });
            for number in open.take(free).collect::<Vec<_>>() {
                self.attempts += 1;
                let slot = &mut self.slots[usize::from(number)];
                slot.state = SlotState::Leaving;
                let task = Task { id: *id, attempt: self.attempts, sent_ms: now, frozen_ms: 0 };
                letters.push(import(sending, number, &task, &slot.keys));
                self.tasks.insert(number, task);
            }
        }
    }

    fn step_slot(&mut self, now: i64, number: u16, letters: &mut Vec<(String, Letter)>) {
        let slot = &mut self.slots[usize::from(number)];
        if slot.state == SlotState::Handed {
            // Told again and again, whatever became of the move.
            let letter = Letter::Commit { id: slot.id, slot: number, epoch: slot.granted };
            return letters.push((slot.peer.clone(), letter));
        }
        let Some(task) = self.tasks.get_mut(&number) else { return };
        let Some(sending) = self.sending.get(&task.id) else { return };
        let is_late = match slot.state {
            SlotState::Leaving => now - task.sent_ms >= RESEND_MS,
            SlotState::Frozen => now - task.frozen_ms >= FREEZE_MAX_MS,
            _ => false,
        };
        if is_late {
            let abort = Letter::Abort { id: task.id, slot: number, attempt: task.attempt };
            letters.push((sending.target.clone(), abort));
            slot.state = SlotState::Leaving;
            self.attempts += 1;
            task.attempt = self.attempts;
            task.sent_ms = now;
            letters.push(import(sending, number, task, &slot.keys));
        }
    }

    /// Takes a letter in; letters back, with their addressee.
    pub(crate) fn take(&mut self, now: i64, from: &str, letter: Letter) -> Vec<(String, Letter)> {
        let back = |letter| vec![(from.to_owned(), letter)];
        match letter {
            Letter::Import { id, epoch, slot, attempt, keys } => {
                let reply = self.import(id, epoch, slot, attempt, keys);
                if matches!(reply, Letter::Imported { .. }) {
                    from.clone_into(&mut self.slots[usize::from(slot)].source);
                }
                back(reply)
            }
            Letter::Ready { id, slot: number, attempt, keys } => {
                let slot = &mut self.slots[usize::from(number)];
                let fits = slot.id == id && slot.attempt == attempt;
                if fits && matches!(slot.state, SlotState::Importing | SlotState::Ready) {
                    slot.state = SlotState::Ready;
                    slot.keys = keys;
                    return back(Letter::IsReady { slot: number, attempt });
                }
                Vec::new()
            }
            Letter::Commit { id, slot: number, epoch } => {
                let slot = &mut self.slots[usize::from(number)];
                if slot.state == SlotState::Ready && slot.id == id {
                    slot.state = SlotState::Owned;
                    slot.epoch = epoch;
                }
                if slot.epoch >= epoch {
                    return back(Letter::Committed { slot: number, epoch });
                }
                Vec::new()
            }
            Letter::Abort { id, slot: number, attempt } => {
                let slot = &mut self.slots[usize::from(number)];
                let imports = matches!(slot.state, SlotState::Importing | SlotState::Ready);
                if imports && slot.id == id && slot.attempt <= attempt {
                    slot.state = SlotState::Away;
                    slot.keys.clear();
                }
                Vec::new()
            }
            Letter::Imported { slot, attempt } => self.imported(now, slot, attempt),
            Letter::IsReady { slot, attempt } => self.hand_over(from, slot, attempt),
            Letter::Committed { slot, epoch } => self.committed(slot, epoch),
            Letter::Refused { slot, attempt } => {
                let task = self.tasks.get(&slot).filter(|task| task.attempt == attempt);
                if let Some(sending) = task.and_then(|task| self.sending.get_mut(&task.id)) {
                    sending.error = "the target refused".into();
                }
                Vec::new()
            }
        }
    }

    fn import(&mut self, id: u64, epoch: u64, number: u16, attempt: u64, keys: Keys) -> Letter {
        let refused = Letter::Refused { slot: number, attempt };
        let may = self.expected.get(&id).is_some_and(|(_, slots)| slots.contains(number));
        let slot = &mut self.slots[usize::from(number)];
        let is_free = match slot.state {
            SlotState::Away => true,
            SlotState::Importing | SlotState::Ready => slot.id == id && slot.attempt < attempt,
            _ => false,
        };
        if !may || !is_free || epoch <= slot.epoch {
            return refused;
        }
        slot.state = SlotState::Importing;
        slot.id = id;
        slot.attempt = attempt;
        slot.keys = keys;
        Letter::Imported { slot: number, attempt }
    }

    fn imported(&mut self, now: i64, number: u16, attempt: u64) -> Vec<(String, Letter)> {
        let slot = &mut self.slots[usize::from(number)];
        let Some(task) = self.tasks.get_mut(&number) else { return Vec::new() };
        if task.attempt != attempt || slot.state != SlotState::Leaving {
            return Vec::new();
        }
        let Some(sending) = self.sending.get(&task.id) else { return Vec::new() };
        slot.state = SlotState::Frozen;
        task.frozen_ms = now;
        let letter = Letter::Ready { id: task.id, slot: number, attempt, keys: slot.keys.clone() };
        vec![(sending.target.clone(), letter)]
    }

    fn hand_over(&mut self, target: &str, number: u16, attempt: u64) -> Vec<(String, Letter)> {
        let slot = &mut self.slots[usize::from(number)];
        let Some(task) = self.tasks.get(&number) else { return Vec::new() };
        if task.attempt != attempt || slot.state != SlotState::Frozen {
            return Vec::new();
        }
        let Some(sending) = self.sending.get(&task.id) else { return Vec::new() };
        slot.state = SlotState::Handed;
        slot.peer = target.to_owned();
        slot.id = task.id;
        slot.granted = sending.epoch;
        let letter = Letter::Commit { id: task.id, slot: number, epoch: sending.epoch };
        vec![(target.to_owned(), letter)]
    }

    fn committed(&mut self, number: u16, epoch: u64) -> Vec<(String, Letter)> {
        let slot = &mut self.slots[usize::from(number)];
        if slot.state == SlotState::Handed && slot.granted == epoch {
            slot.state = SlotState::Away;
            slot.epoch = epoch;
            slot.keys.clear();
            let id = slot.id;
            self.tasks.remove(&number);
            if let Some(sending) = self.sending.get_mut(&id) {
                sending.done.insert(number);
            }
        }
        Vec::new()
    }
}

fn import(sending: &Sending, slot: u16, task: &Task, keys: &Keys) -> (String, Letter) {
    let letter = Letter::Import {
        id: task.id,
        epoch: sending.epoch,
        slot,
        attempt: task.attempt,
        keys: keys.clone(),
    };
    (sending.target.clone(), letter)
}
