//! Moves of slots to other Cordis servers: a core's part of each, for the slots that it owns.
//!
//! A move has one connection per core, which the target deals to the core that owns the first of the
//! slots there: others go on from it through the target's doors. Its
//! slots are worked on a few at a time: what decides about each is [`Source`]; here its actions are
//! carried out and what comes of them is reported to it. How a slot's keys get onto the connection is in
//! `runtime/outflow.rs`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::migrate::books::{Asked, Going, heard};
use crate::migrate::cluster::{MoveId, Outbound};
use crate::migrate::machine::{
    Attempt, Source, SourceAction, SourceActions, SourceEvent, SourceState, TargetView,
};
use crate::resp::answer::Answer;
use crate::runtime::outflow::Outflow;
use crate::runtime::outgoing::{LinkEvent, LinkId, LinkOwner};
use crate::runtime::turn::Core;
use crate::shard::state::Shard;
use crate::slots::state::SlotSet;
use crate::units::{DbIndex, Ms, SlotId};

/// How long the target may owe a reply and say nothing.
const SILENCE_MS: i64 = 3_000;
/// First and longest wait before the target is dialled again.
const REDIAL_MS: (i64, i64) = (50, 2_000);

/// What a reply on a move's connection belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// AUTH or CORDIS AUTH.
    Login,
    /// CORDIS HELLO.
    Hello,
    /// CORDIS HELLO CORE.
    Deal,
    /// So many calls of an attempt that fill the slot; so many bytes.
    Data(SlotId, Attempt, u32, u32),
    /// CORDIS IMPORT: the first of an attempt.
    Import(SlotId, Attempt),
    /// CORDIS READY.
    Ready(SlotId, Attempt),
    /// CORDIS COMMIT.
    Commit(SlotId, Attempt),
    /// CORDIS ABORT.
    Abort(SlotId, Attempt),
    /// CORDIS RESOLVE.
    Resolve(SlotId),
}

/// How far a move's connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// There is none: the target is dialled again then.
    Down(Ms),
    /// It is being made, or greeted.
    Greeting,
    /// Slots can be worked on.
    Up,
}

/// A slot that is worked on.
#[derive(Debug)]
pub struct SlotTask {
    pub(super) slot: SlotId,
    pub(super) source: Source,
    /// What is being sent, while something is.
    pub(super) flow: Option<Outflow>,
    /// The change that holds the intent to hand over, until it is on disk.
    note: Option<u64>,
    /// When requests began to wait, in ticks.
    frozen_ticks: u64,
}

/// A move, as far as this core takes part in it.
#[derive(Debug)]
pub struct MoveTask {
    number: u64,
    pub(super) id: MoveId,
    pub(super) epoch: u64,
    target: Arc<str>,
    addr: SocketAddr,
    /// Most bytes per second from this core; 0: no limit.
    pub(super) rate_bytes: u64,
    parallel: usize,
    is_cancelled: bool,
    pub(super) link: Option<LinkId>,
    stage: Stage,
    redials: u32,
    expects: VecDeque<Expect>,
    inbox: VecDeque<LinkEvent>,
    /// Bytes sent for which replies are owed.
    pub(super) in_flight_bytes: usize,
    /// The slot that the target's session fills now.
    pub(super) bound: Option<(SlotId, Attempt)>,
    /// The database that it has selected.
    pub(super) selected: DbIndex,
    waiting: VecDeque<SlotId>,
    pub(super) tasks: Vec<SlotTask>,
    /// The task whose turn is next.
    pub(super) next_task: usize,
    /// Bytes that may be sent now, and when they were last counted.
    pub(super) allowance_bytes: i64,
    pub(super) refilled_at: Ms,
    pub(super) news: News,
}

/// What has happened since the cluster's books were last brought up to date.
#[derive(Debug, Default)]
pub struct News {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    done: SlotSet,
    failed: SlotSet,
    ended: SlotSet,
    error: Option<String>,
    pause_max_us: u64,
    refused: u64,
    is_any: bool,
}

/// All moves of a core.
#[derive(Debug, Default)]
pub struct Moves {
    pub(super) tasks: Vec<MoveTask>,
    next_number: u64,
    /// Something can be sent without any event.
    pub(super) is_ready: bool,
    pub(super) wake_at: Option<Ms>,
}

impl Moves {
    /// Whether the next turn has something to do for them without any event.
    pub fn has_work(&self) -> bool {
        self.is_ready || self.tasks.iter().any(|task| !task.inbox.is_empty())
    }

    /// When something is due.
    pub fn next_at(&self) -> Option<Ms> {
        self.wake_at
    }
}

impl MoveTask {
    fn new(number: u64, id: MoveId, outbound: &Outbound, addr: SocketAddr, now: Ms) -> Self {
        Self {
            number,
            id,
            epoch: outbound.epoch,
            target: Arc::from(&*outbound.target),
            addr,
            rate_bytes: 0,
            parallel: outbound.parallel,
            is_cancelled: false,
            link: None,
            stage: Stage::Down(now),
            redials: 0,
            expects: VecDeque::new(),
            inbox: VecDeque::new(),
            in_flight_bytes: 0,
            bound: None,
            selected: DbIndex(0),
            waiting: VecDeque::new(),
            tasks: Vec::new(),
            next_task: 0,
            allowance_bytes: 0,
            refilled_at: now,
            news: News::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    fn has_slot(&self, slot: SlotId) -> bool {
        self.waiting.contains(&slot) || self.tasks.iter().any(|task| task.slot == slot)
    }

    fn task_of(&self, slot: SlotId) -> Option<usize> {
        self.tasks.iter().position(|task| task.slot == slot)
    }

    /// A reply is owed.
    pub(super) fn expect(&mut self, expect: Expect) {
        // Calls that fill one slot are many: they are counted together.
        if let (Some(Expect::Data(slot, attempt, count, bytes)), Expect::Data(s, a, c, b)) =
            (self.expects.back_mut(), expect)
            && (*slot, *attempt) == (s, a)
            && *bytes < 64 * 1024
        {
            *count += c;
            *bytes = bytes.saturating_add(b);
            return;
        }
        self.expects.push_back(expect);
    }

    /// What the next reply belongs to.
    fn take_expect(&mut self) -> Option<Expect> {
        match self.expects.front_mut()? {
            Expect::Data(slot, attempt, count, bytes) if *count > 1 => {
                let one = Expect::Data(*slot, *attempt, 1, *bytes / *count);
                *bytes -= *bytes / *count;
                *count -= 1;
                Some(one)
            }
            _ => self.expects.pop_front(),
        }
    }

    fn note_error(&mut self, error: impl Into<String>) {
        self.news.error = Some(error.into());
        self.news.is_any = true;
    }
}

impl Core {
    // ---- which moves there are ----

    /// Brings this core's part of the moves in line with what the cluster's books say.
    pub(super) fn sync_moves(&mut self) {
        let mut tasks = std::mem::take(&mut self.moves.tasks);
        let own = self.own();
        let core_count = self.peers.core_count() as u64;
        {
            let cluster = self.node.cluster.lock();
            for (&id, outbound) in &cluster.outbound {
                let Ok(addr) = outbound.target.parse() else { continue };
                let index = tasks.iter().position(|task| task.id == id).unwrap_or_else(|| {
                    self.moves.next_number += 1;
                    let number = self.moves.next_number;
                    tasks.push(MoveTask::new(number, id, outbound, addr, self.now));
                    tasks.len() - 1
                });
                let task = &mut tasks[index];
                task.parallel = outbound.parallel;
                task.rate_bytes = outbound.rate_bytes.div_ceil(core_count);
                task.is_cancelled = outbound.is_cancelled;
                for slot in outbound.slots.iter() {
                    if self.node.owners.of(slot) == own
                        && cluster.is_to_move(id, outbound, slot)
                        && !task.has_slot(slot)
                    {
                        task.waiting.push_back(slot);
                    }
                }
            }
            for task in &mut tasks {
                // Forgotten altogether: the server has left the cluster.
                task.is_cancelled |= !cluster.outbound.contains_key(&task.id);
            }
        }
        self.moves.tasks = tasks;
        self.moves.is_ready = !self.moves.tasks.is_empty();
    }

    /// Something happened on a link of a move. It is looked at when the shard is held.
    pub(super) fn move_event(&mut self, number: u64, link: LinkId, event: LinkEvent) {
        let task = self.moves.tasks.iter_mut().find(|task| task.number == number);
        if let Some(task) = task.filter(|task| task.link == Some(link)) {
            task.inbox.push_back(event);
        }
    }

    // ---- steering: what takes no time ----

    /// Takes in replies and the time, and changes what slots are. Before requests run, so that those
    /// that wait for a slot go on in the turn in which it changes hands.
    pub(super) fn steer_moves(&mut self) {
        if self.moves.tasks.is_empty() {
            return;
        }
        let own = self.id.index();
        let Some(mut shard) = self.held[own].take() else {
            self.moves.is_ready = true;
            return;
        };
        let mut tasks = std::mem::take(&mut self.moves.tasks);
        for task in &mut tasks {
            self.steer_move(&mut shard, task);
        }
        let count = tasks.len();
        tasks.retain(|task| !self.is_over(task));
        if tasks.len() < count {
            self.forget_cancelled();
        }
        self.moves.wake_at = tasks.iter().filter_map(|task| self.wake_of(task)).min();
        self.moves.is_ready = tasks.iter().any(|task| task.is_up() && !task.tasks.is_empty());
        self.moves.tasks = tasks;
        self.held[own] = Some(shard);
    }

    fn steer_move(&mut self, shard: &mut Shard, mv: &mut MoveTask) {
        while let Some(event) = mv.inbox.pop_front() {
            self.take_link_event(shard, mv, event);
        }
        if mv.is_cancelled {
            // Who serves those in doubt has to be asked all the same.
            let cluster = self.node.cluster.lock();
            mv.waiting.retain(|&slot| cluster.is_in_doubt(mv.id, slot));
            drop(cluster);
            for index in 0..mv.tasks.len() {
                self.step_source(shard, mv, index, SourceEvent::Cancel);
            }
        }
        self.begin_slots_of(shard, mv);
        let saved = self.node.cluster.saved();
        for index in 0..mv.tasks.len() {
            let task = &mut mv.tasks[index];
            if task.note.is_some_and(|note| note <= saved) {
                task.note = None;
                let attempt = task.source.attempt();
                self.step_source(shard, mv, index, SourceEvent::Noted(attempt));
            }
            if mv.tasks[index].source.next_at().is_some_and(|at| at <= self.now) {
                self.step_source(shard, mv, index, SourceEvent::Tick);
            }
        }
        self.end_slots_of(shard, mv);
        if let Stage::Down(at) = mv.stage
            && at <= self.now
            && !mv.tasks.is_empty()
        {
            self.dial_target(mv);
        }
        self.book_news(mv);
    }

    /// Whether nothing of a move is left for this core. Its link ends with it.
    fn is_over(&mut self, mv: &MoveTask) -> bool {
        if !mv.tasks.is_empty() || !mv.waiting.is_empty() {
            return false;
        }
        // What was told the target last still has to leave.
        if let Some(link) = mv.link.filter(|_| mv.is_up()) {
            if self.links.awaited(link) > 0 {
                return false;
            }
            self.links.close(link);
        } else if let Some(link) = mv.link {
            self.links.close(link);
        }
        true
    }

    fn wake_of(&self, mv: &MoveTask) -> Option<Ms> {
        let redial = match mv.stage {
            Stage::Down(at) if !mv.tasks.is_empty() => Some(at),
            _ => None,
        };
        let ticks = mv.tasks.iter().filter_map(|task| task.source.next_at());
        ticks.chain(redial).min()
    }

    /// Takes slots to work on from those that wait.
    fn begin_slots_of(&mut self, shard: &mut Shard, mv: &mut MoveTask) {
        while mv.tasks.len() < mv.parallel.max(1)
            && let Some(slot) = mv.waiting.pop_front()
        {
            if self.node.owners.of(slot) != self.own() {
                // Levelling the load has moved it: its new core takes it up.
                self.announce_cluster();
                continue;
            }
            let id = mv.id;
            let now = self.now;
            let holds_keys = shard.hidden_len(slot) > 0;
            let source = self.change_slot(shard, slot, |books| {
                books.begin_leaving(id, slot, now, || holds_keys)
            });
            let Some(mut source) = source else { continue };
            if mv.is_up() {
                let actions = source.step(self.now, SourceEvent::LinkUp);
                mv.tasks.push(SlotTask::new(slot, source));
                let index = mv.tasks.len() - 1;
                self.act(shard, mv, index, actions);
            } else {
                mv.tasks.push(SlotTask::new(slot, source));
            }
        }
    }

    /// Lets go of slots with which nothing will happen any more.
    fn end_slots_of(&mut self, shard: &mut Shard, mv: &mut MoveTask) {
        let mut index = 0;
        while index < mv.tasks.len() {
            let task = &mv.tasks[index];
            if !task.source.has_ended() {
                index += 1;
                continue;
            }
            let task = mv.tasks.swap_remove(index);
            match task.source.state() {
                SourceState::Done => _ = mv.news.done.insert(task.slot),
                SourceState::Failed => _ = mv.news.failed.insert(task.slot),
                _ => {}
            }
            mv.news.ended.insert(task.slot);
            mv.news.is_any = true;
            if task.source.state() != SourceState::Done {
                let is_wanted = self.change_slot(shard, task.slot, |books| books.stay(task.slot));
                self.node.cluster.note_change();
                if is_wanted {
                    self.announce_cluster();
                }
            }
        }
    }

    // ---- the machine's actions ----

    pub(super) fn step_source(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        index: usize,
        event: SourceEvent,
    ) {
        let actions = mv.tasks[index].source.step(self.now, event);
        self.act(shard, mv, index, actions);
    }

    fn act(&mut self, shard: &mut Shard, mv: &mut MoveTask, index: usize, actions: SourceActions) {
        for action in actions {
            let slot = mv.tasks[index].slot;
            match action {
                SourceAction::SendImport(attempt) => {
                    self.send_import(mv, slot, attempt, self.now);
                    mv.expect(Expect::Import(slot, attempt));
                }
                SourceAction::BeginStream(attempt) => {
                    shard.journal.attach_slot(slot);
                    mv.tasks[index].flow = Some(Outflow::new(attempt, self.now));
                }
                SourceAction::EndStream => {
                    shard.journal.detach_slot(slot);
                    mv.tasks[index].flow = None;
                    mv.tasks[index].note = None;
                }
                SourceAction::Note(_) => {
                    self.note_leaving(shard, mv, slot, &action);
                    mv.tasks[index].note = Some(self.node.cluster.changed());
                    let error = self.node.cluster.lock().disk_error.clone();
                    if let Some(error) = error {
                        mv.note_error(error);
                    }
                }
                SourceAction::Freeze(_) => {
                    mv.tasks[index].frozen_ticks = self.clock.ticks();
                    self.note_leaving(shard, mv, slot, &action);
                }
                SourceAction::SendReady(attempt) => self.send_ready(mv, index, attempt),
                SourceAction::Thaw => {
                    shard.journal.detach_slot(slot);
                    mv.tasks[index].flow = None;
                    mv.tasks[index].note = None;
                    self.note_leaving(shard, mv, slot, &action);
                    self.note_pause(mv, index);
                }
                SourceAction::HandOver(_) => {
                    shard.journal.detach_slot(slot);
                    mv.tasks[index].flow = None;
                    self.note_leaving(shard, mv, slot, &action);
                    self.note_pause(mv, index);
                }
                SourceAction::SendCommit(attempt) => {
                    let words = [attempt_words(mv.id, slot), vec![num(mv.epoch), num(attempt)]];
                    self.send_call(mv, b"COMMIT", &words.concat());
                    mv.expect(Expect::Commit(slot, attempt));
                }
                SourceAction::SendAbort(attempt) => {
                    let words = [attempt_words(mv.id, slot), vec![num(mv.epoch), num(attempt)]];
                    self.send_call(mv, b"ABORT", &words.concat());
                    mv.expect(Expect::Abort(slot, attempt));
                    mv.bound = mv.bound.filter(|(bound, _)| *bound != slot);
                }
                SourceAction::SendResolve => {
                    let words = [attempt_words(mv.id, slot), vec![num(mv.epoch)]];
                    self.send_call(mv, b"RESOLVE", &words.concat());
                    mv.expect(Expect::Resolve(slot));
                }
                // The target serves the slot: its keys here are freed, in slices.
                SourceAction::Forget => {
                    self.note_leaving(shard, mv, slot, &action);
                    self.drop_hidden(shard, slot);
                }
            }
        }
    }

    fn note_pause(&self, mv: &mut MoveTask, index: usize) {
        let begun = std::mem::take(&mut mv.tasks[index].frozen_ticks);
        if begun != 0 {
            let us = self.clock.ns_between(begun, self.clock.ticks()) / 1_000;
            mv.news.pause_max_us = mv.news.pause_max_us.max(us);
            mv.news.is_any = true;
        }
    }

    /// What an action of a slot's machine makes of the slot.
    fn note_leaving(
        &mut self,
        shard: &mut Shard,
        mv: &MoveTask,
        slot: SlotId,
        action: &SourceAction,
    ) {
        let going = Going { id: mv.id, epoch: mv.epoch, target: &mv.target };
        if self.change_slot(shard, slot, |books| books.note_leaving(slot, going, action)) {
            self.node.cluster.note_change();
        }
    }

    // ---- what is sent ----

    /// Sends a CORDIS command.
    fn send_call(&mut self, mv: &MoveTask, name: &[u8], words: &[String]) {
        let Some(link) = mv.link else { return };
        let mut call: Vec<&[u8]> = vec![b"CORDIS", name];
        call.extend(words.iter().map(String::as_bytes));
        self.links.call(link, self.now, &call);
    }

    /// Binds the target's session to an attempt.
    pub(super) fn send_import(
        &mut self,
        mv: &mut MoveTask,
        slot: SlotId,
        attempt: Attempt,
        at: Ms,
    ) {
        let words = [num(mv.id), num(mv.epoch), num(slot.index() as u64), num(attempt)];
        let words = [&words[..], &["NOW".to_owned(), at.0.to_string()]].concat();
        self.send_call(mv, b"IMPORT", &words);
        mv.bound = Some((slot, attempt));
    }

    fn send_ready(&mut self, mv: &mut MoveTask, index: usize, attempt: Attempt) {
        let slot = mv.tasks[index].slot;
        let drained_at = mv.tasks[index].flow.as_ref().map_or(self.now, |flow| flow.drained_at);
        let Some((keys, digest)) = mv.tasks[index].flow.as_ref().and_then(Outflow::digest) else {
            return;
        };
        if mv.bound != Some((slot, attempt)) {
            self.send_import(mv, slot, attempt, drained_at);
            mv.expect(Expect::Data(slot, attempt, 1, 0));
        }
        self.send_call(mv, b"READY", &[num(slot.index() as u64), num(keys), digest]);
        mv.expect(Expect::Ready(slot, attempt));
    }

    // ---- the connection ----

    fn dial_target(&mut self, mv: &mut MoveTask) {
        let owner = LinkOwner::Move(mv.number);
        match self.links.dial(&mut self.ring, owner, mv.addr, SILENCE_MS, self.now) {
            Ok(link) => {
                mv.link = Some(link);
                mv.stage = Stage::Greeting;
                self.greet_target(mv, link);
            }
            Err(error) => {
                mv.note_error(format!("cannot connect to {}: {error}", mv.target));
                self.redial_later(mv);
            }
        }
    }

    fn greet_target(&mut self, mv: &mut MoveTask, link: LinkId) {
        let config = &self.node.config;
        if let Some(password) = config.requirepass() {
            self.links.call(link, self.now, &[b"AUTH", password.as_bytes()]);
            mv.expect(Expect::Login);
        }
        if let Some(secret) = config.cluster_secret() {
            self.links.call(link, self.now, &[b"CORDIS", b"AUTH", secret.as_bytes()]);
            mv.expect(Expect::Login);
        }
        self.links.call(link, self.now, &[b"CORDIS", b"HELLO"]);
        mv.expect(Expect::Hello);
    }

    fn redial_later(&mut self, mv: &mut MoveTask) {
        let wait = (REDIAL_MS.0 << mv.redials.min(10)).min(REDIAL_MS.1);
        mv.redials += 1;
        mv.stage = Stage::Down(Ms(self.now.0 + wait));
    }

    fn take_link_event(&mut self, shard: &mut Shard, mv: &mut MoveTask, event: LinkEvent) {
        match event {
            LinkEvent::Up => {}
            LinkEvent::Answer(answer) => match mv.take_expect() {
                Some(expect) => self.take_answer(shard, mv, expect, &answer),
                None => self.lose_link(shard, mv, "the peer talks nonsense"),
            },
            LinkEvent::Down(fault) => self.lose_link(shard, mv, &fault.to_string()),
        }
    }

    fn lose_link(&mut self, shard: &mut Shard, mv: &mut MoveTask, why: &str) {
        mv.note_error(format!("{}: {why}", mv.target));
        if let Some(link) = mv.link.take() {
            self.links.close(link);
        }
        self.redial_later(mv);
        mv.inbox.clear();
        mv.expects.clear();
        mv.in_flight_bytes = 0;
        mv.bound = None;
        mv.selected = DbIndex(0);
        for index in 0..mv.tasks.len() {
            self.step_source(shard, mv, index, SourceEvent::LinkDown);
        }
    }

    fn take_answer(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        expect: Expect,
        answer: &Answer,
    ) {
        let error = answer.error();
        match expect {
            Expect::Login | Expect::Hello | Expect::Deal => {
                self.take_greeting(shard, mv, expect, answer);
            }
            Expect::Data(slot, attempt, _, bytes) => {
                mv.in_flight_bytes = mv.in_flight_bytes.saturating_sub(bytes as usize);
                if error.is_some() {
                    self.heard(shard, mv, slot, attempt, Asked::Fill, error);
                }
            }
            Expect::Import(slot, attempt) => {
                self.heard(shard, mv, slot, attempt, Asked::Import, error);
            }
            Expect::Ready(slot, attempt) => {
                // What happened to all of the slot meanwhile, the target has not heard of.
                let is_void = shard.journal.slot_feed(slot).is_some_and(|feed| feed.is_void);
                match mv.task_of(slot).filter(|_| is_void && error.is_none()) {
                    Some(index) => self.step_source(shard, mv, index, SourceEvent::Reset),
                    None => self.heard(shard, mv, slot, attempt, Asked::Ready, error),
                }
            }
            Expect::Commit(slot, attempt) => {
                self.heard(shard, mv, slot, attempt, Asked::Commit, error);
            }
            Expect::Abort(slot, attempt) => {
                self.heard(shard, mv, slot, attempt, Asked::Abort, error);
            }
            Expect::Resolve(slot) => {
                let Some(index) = mv.task_of(slot) else { return };
                let name = answer.elements().and_then(|parts| parts.first()?.bytes());
                let view = match name {
                    Some(b"active") => TargetView::Active,
                    Some(b"ready") => TargetView::Ready,
                    Some(b"importing") => TargetView::Importing,
                    Some(b"none") => TargetView::None,
                    _ => return mv.note_error(format!("slot {slot}: RESOLVE: {answer:?}")),
                };
                self.step_source(shard, mv, index, SourceEvent::Resolved(view));
            }
        }
    }

    /// The target has answered a call of an attempt.
    fn heard(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        slot: SlotId,
        attempt: Attempt,
        asked: Asked,
        error: Option<&str>,
    ) {
        let Some(index) = mv.task_of(slot) else { return };
        // What was already on its way when an attempt was refused is refused too, for that reason only:
        // a slot of which one key found no memory did not arrive whole either.
        let event = heard(asked, attempt, error);
        let is_news = match &event {
            Some(SourceEvent::Refused(..)) => {
                let is_trying = mv.tasks[index].source.is_trying(attempt);
                mv.news.refused += u64::from(is_trying);
                is_trying
            }
            Some(_) => false,
            None => true,
        };
        if let Some(error) = error.filter(|_| is_news) {
            mv.note_error(format!("slot {slot}: {error}"));
        }
        if let Some(event) = event {
            self.step_source(shard, mv, index, event);
        }
    }

    fn take_greeting(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        expect: Expect,
        answer: &Answer,
    ) {
        if let Some(error) = answer.error() {
            return self.lose_link(shard, mv, error);
        }
        let Some(link) = mv.link else { return };
        match expect {
            Expect::Hello => {
                let first = mv.tasks.first().map(|task| task.slot).or(mv.waiting.front().copied());
                let core = first.and_then(|slot| core_of(answer, slot)).unwrap_or(0);
                let (core, name) = (num(core), format!("move-{}", mv.id));
                let words =
                    [&b"CORDIS"[..], b"HELLO", b"CORE", core.as_bytes(), b"NAME", name.as_bytes()];
                self.links.call(link, self.now, &words);
                mv.expect(Expect::Deal);
            }
            Expect::Deal => {
                mv.stage = Stage::Up;
                mv.redials = 0;
                for index in 0..mv.tasks.len() {
                    self.step_source(shard, mv, index, SourceEvent::LinkUp);
                }
            }
            _ => {}
        }
    }

    // ---- the books ----

    /// Writes what has happened into the cluster's books.
    pub(super) fn book_news(&mut self, mv: &mut MoveTask) {
        let is_any = mv.news.is_any || mv.news.keys > 0;
        if !is_any {
            return;
        }
        let news = std::mem::take(&mut mv.news);
        let mut cluster = self.node.cluster.lock();
        let Some(outbound) = cluster.outbound.get_mut(&mv.id) else { return };
        outbound.keys += news.keys;
        outbound.bytes += news.bytes;
        outbound.refused += news.refused;
        outbound.pause_max_us = outbound.pause_max_us.max(news.pause_max_us);
        if let Some(error) = news.error {
            outbound.error = error;
        }
        for slot in news.ended.iter() {
            outbound.ended.insert(slot);
        }
        for slot in news.done.iter() {
            outbound.done.insert(slot);
        }
        for slot in news.failed.iter() {
            outbound.failed.insert(slot);
        }
        let is_saved = !news.ended.is_empty();
        drop(cluster);
        if is_saved {
            self.node.cluster.note_change();
        }
    }
}

impl SlotTask {
    fn new(slot: SlotId, source: Source) -> Self {
        Self { slot, source, flow: None, note: None, frozen_ticks: 0 }
    }
}

fn num(n: u64) -> String {
    n.to_string()
}

fn attempt_words(id: MoveId, slot: SlotId) -> Vec<String> {
    vec![num(id), num(slot.index() as u64)]
}

/// The core that owns a slot, by the answer to HELLO: pairs of names and values, among them the ranges
/// of slots with their cores.
fn core_of(answer: &Answer, slot: SlotId) -> Option<u64> {
    let fields = answer.elements()?;
    let pair = fields.chunks_exact(2).find(|pair| pair[0].bytes() == Some(b"slots"))?;
    for range in pair[1].elements()? {
        let [from, to, core] = range.elements()? else { return None };
        if (from.int()?..=to.int()?).contains(&(slot.index() as i64)) {
            return u64::try_from(core.int()?).ok();
        }
    }
    None
}
