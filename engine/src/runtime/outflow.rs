//! A slot's keys on their way out: what is written to a move's connection, when and how much.
//!
//! A walk over the keys (`migrate/scan.rs`) sends each as it is then; what happens afterwards to keys that
//! were passed is taken from the slot's journal and sent as it is. While a large value goes out piece by
//! piece, the journal waits behind it.

use crate::migrate::digest::Digest;
use crate::migrate::machine::{Attempt, FREEZE_MS_MAX, SourceEvent, SourceState};
use crate::migrate::scan::Walk;
use crate::migrate::send::{BigValue, Sent, write_entry, write_words};
use crate::resp::reply::OutBuf;
use crate::runtime::migrate::{Expect, MoveTask};
use crate::runtime::outgoing::LinkId;
use crate::runtime::turn::Core;
use crate::shard::state::Shard;
use crate::store::keyspace::key_hash;
use crate::units::{DbIndex, Ms, SlotId};

/// Time that moves may take in a turn.
const STEP_BUDGET_NS: u64 = 200_000;
/// Bytes that the kernel has not taken yet: more are not written.
const BACKLOG_BYTES_MAX: usize = 512 * 1024;
/// Bytes for which replies are owed: more are not written.
const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// The same while a slot is frozen: what it still has to say would come behind it.
const IN_FLIGHT_FROZEN_BYTES_MAX: usize = 64 * 1024;
/// A slot is not frozen while more than this is on its way.
const CAUGHT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one slot before the next one has its turn.
const SHARE_BYTES: usize = 64 * 1024;
/// Effects sent between two looks at the clock.
const EFFECTS_PER_STEP: usize = 64;
/// Keys of a digest between two looks at the clock.
const DIGEST_KEYS_PER_STEP: usize = 256;
/// Effects that wait behind a large value: with more the attempt is begun again.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// How far ahead a limited move may be of its rate.
const BURST_MS: i64 = 50;

/// What is being sent of a slot.
#[derive(Debug)]
pub struct Outflow {
    attempt: Attempt,
    walk: Walk,
    big: Option<Box<BigValue>>,
    /// All that was in the journal at this time has been sent: what is still in it happened later.
    pub(super) drained_at: Ms,
    has_caught_up: bool,
    digest: Option<Digest>,
    is_digested: bool,
}

/// How a step of a slot ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// There may be more to do at once.
    More,
    /// Nothing before something happens.
    Idle,
}

/// How far the journal of a slot was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// To its end.
    All,
    /// Until the turn's time was up.
    LateNow,
    /// Until the connection would take no more.
    LinkFull,
}

impl Outflow {
    /// Nothing has been sent yet.
    pub(super) fn new(attempt: Attempt, now: Ms) -> Self {
        Self {
            attempt,
            walk: Walk::default(),
            big: None,
            drained_at: now,
            has_caught_up: false,
            digest: None,
            is_digested: false,
        }
    }

    /// Whether all keys have been passed and nothing large is on its way.
    fn is_caught_up(&self) -> bool {
        self.walk.is_done() && self.big.is_none()
    }

    /// Number of keys and digest, once they are known.
    pub(super) fn digest(&self) -> Option<(u64, String)> {
        let digest = self.digest.as_ref().filter(|_| self.is_digested)?;
        Some((digest.key_count(), digest.text()))
    }
}

impl Core {
    /// Sends what there is to send, within the turn's budget.
    pub(super) fn step_moves(&mut self) {
        if self.moves.tasks.is_empty() {
            return;
        }
        let own = self.id.index();
        let Some(mut shard) = self.held[own].take() else {
            self.moves.is_ready = true;
            return;
        };
        let begun = self.clock.ticks();
        let mut tasks = std::mem::take(&mut self.moves.tasks);
        let mut is_ready = false;
        for mv in &mut tasks {
            is_ready |= self.step_move(&mut shard, mv, begun);
            self.book_news(mv);
        }
        self.moves.tasks = tasks;
        self.moves.is_ready = is_ready;
        self.held[own] = Some(shard);
    }

    /// Works on the slots of a move in turn. Whether there is more to do at once.
    fn step_move(&mut self, shard: &mut Shard, mv: &mut MoveTask, begun: u64) -> bool {
        let Some(link) = mv.link.filter(|_| mv.is_up()) else { return false };
        self.refill(mv);
        let mut idle_count = 0;
        while idle_count < mv.tasks.len() {
            if self.clock.ns_between(begun, self.clock.ticks()) >= STEP_BUDGET_NS {
                return true;
            }
            let index = mv.next_task % mv.tasks.len();
            match self.step_slot(shard, mv, index, link, begun) {
                Flow::More => idle_count = 0,
                Flow::Idle => idle_count += 1,
            }
            mv.next_task = index + 1;
        }
        false
    }

    fn refill(&mut self, mv: &mut MoveTask) {
        if mv.rate_bytes == 0 {
            return;
        }
        let passed_ms = (self.now.0 - mv.refilled_at.0).max(0);
        let rate = i64::try_from(mv.rate_bytes).unwrap_or(i64::MAX);
        // A low rate is less than a byte in a short time: it counts on then.
        if rate.saturating_mul(passed_ms) < 1_000 {
            return;
        }
        mv.refilled_at = self.now;
        let burst = (rate / 1000).saturating_mul(BURST_MS).max(1);
        let refilled = mv.allowance_bytes.saturating_add(rate.saturating_mul(passed_ms) / 1000);
        mv.allowance_bytes = refilled.min(burst);
    }

    /// Whether more keys may be written now.
    fn has_room(&mut self, mv: &MoveTask, link: LinkId) -> bool {
        let is_throttled = mv.rate_bytes > 0 && mv.allowance_bytes <= 0;
        if is_throttled {
            // Time is the event that is waited for.
            let at = Ms(self.now.0 + 2);
            self.moves.wake_at = Some(self.moves.wake_at.map_or(at, |wake| wake.min(at)));
        }
        // A slot whose requests wait, or that is about to be such a one, goes before all others.
        let is_urgent = mv.tasks.iter().any(|task| match task.source.state() {
            SourceState::Frozen(_) | SourceState::Checking(_) => true,
            SourceState::Streaming => task.flow.as_ref().is_some_and(Outflow::is_caught_up),
            _ => false,
        });
        let most = if is_urgent { IN_FLIGHT_FROZEN_BYTES_MAX } else { IN_FLIGHT_BYTES_MAX };
        !is_throttled
            && self.links.backlog_bytes(link) < BACKLOG_BYTES_MAX
            && mv.in_flight_bytes < most
    }

    fn step_slot(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        index: usize,
        link: LinkId,
        begun: u64,
    ) -> Flow {
        let task = &mv.tasks[index];
        let (slot, state) = (task.slot, task.source.state());
        let Some(flow) = &task.flow else { return Flow::Idle };
        let feed = shard.journal.slot_feed(slot);
        if feed.is_none_or(|feed| feed.is_void || feed.bytes > KEPT_BYTES_MAX) {
            self.step_source(shard, mv, index, SourceEvent::Reset);
            return Flow::Idle;
        }
        let is_frozen = matches!(state, SourceState::Frozen(_));
        match state {
            SourceState::Streaming | SourceState::Noting => {}
            SourceState::Frozen(_) if !flow.is_digested => {}
            _ => return Flow::Idle,
        }
        // What happened comes first, and is little; a frozen slot waits for nothing.
        if flow.big.is_none() {
            match self.send_effects(shard, mv, index, link, is_frozen, begun) {
                Drained::All => {}
                Drained::LateNow => return Flow::More,
                Drained::LinkFull => return Flow::Idle,
            }
        }
        let has_big = mv.tasks[index].flow.as_ref().is_some_and(|flow| flow.big.is_some());
        if is_frozen && !has_big {
            return self.end_frozen(shard, mv, index, begun);
        }
        let Some(flow) = &mv.tasks[index].flow else { return Flow::Idle };
        if flow.is_caught_up() {
            return self.catch_up_with(shard, mv, index);
        }
        if !self.has_room(mv, link) {
            return Flow::Idle;
        }
        self.send_keys(shard, mv, index, link, begun);
        Flow::More
    }

    /// All keys have been passed: says so once little is on its way.
    fn catch_up_with(&mut self, shard: &mut Shard, mv: &mut MoveTask, index: usize) -> Flow {
        let in_flight = mv.in_flight_bytes;
        let Some(flow) = &mut mv.tasks[index].flow else { return Flow::Idle };
        if flow.has_caught_up || in_flight > CAUGHT_BYTES_MAX {
            return Flow::Idle;
        }
        flow.has_caught_up = true;
        let attempt = flow.attempt;
        self.step_source(shard, mv, index, SourceEvent::Caught(attempt));
        // A slot that is frozen now goes on at once: its requests wait, and nothing else would wake a core
        // that has none.
        match mv.tasks[index].source.state() {
            SourceState::Frozen(_) => Flow::More,
            _ => Flow::Idle,
        }
    }

    /// Nothing is left to send of a frozen slot: computes what the target has to have.
    fn end_frozen(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        index: usize,
        begun: u64,
    ) -> Flow {
        let slot = mv.tasks[index].slot;
        let as_of = Ms(self.now.0 + FREEZE_MS_MAX);
        let Some(flow) = &mut mv.tasks[index].flow else { return Flow::Idle };
        let digest = flow.digest.get_or_insert_with(|| Digest::of_slot(&shard.keys, slot, as_of));
        while !digest.step(&shard.keys, DIGEST_KEYS_PER_STEP) {
            if self.clock.ns_between(begun, self.clock.ticks()) >= STEP_BUDGET_NS {
                return Flow::More;
            }
        }
        flow.is_digested = true;
        let attempt = flow.attempt;
        self.step_source(shard, mv, index, SourceEvent::Drained(attempt));
        Flow::Idle
    }

    /// Sends effects on keys that have been passed, and drops the others.
    fn send_effects(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        index: usize,
        link: LinkId,
        is_frozen: bool,
        begun: u64,
    ) -> Drained {
        let slot = mv.tasks[index].slot;
        let Some(flow) = &mv.tasks[index].flow else { return Drained::All };
        let (walk, attempt, drained_at) = (flow.walk, flow.attempt, flow.drained_at);
        let mut sent = 0;
        loop {
            let Some(feed) = shard.journal.slot_feed(slot) else { return Drained::All };
            let Some(record) = feed.records.pop_front() else {
                feed.bytes = 0;
                if let Some(flow) = &mut mv.tasks[index].flow {
                    flow.drained_at = self.now;
                }
                return Drained::All;
            };
            let size = record.heap_bytes();
            feed.bytes = feed.bytes.saturating_sub(size);
            let args = record.call.args();
            let Some(key) = args.get(1).filter(|key| walk.has_passed(record.db, key_hash(key)))
            else {
                continue;
            };
            debug_invariant!(crate::slots::hash::slot_of(key) == slot, "an effect of another slot");
            self.bind(mv, slot, attempt, record.db, drained_at);
            self.write_data(mv, slot, attempt, link, |out| {
                match (0..args.len()).any(|word| args.shared(word).is_some()) {
                    true => write_shared_words(out, &args),
                    false => write_words(out, args.iter_from(0)),
                }
                1
            });
            if let Some(state) = record.state {
                // What comes after it waits until it is there.
                if let Some(flow) = &mut mv.tasks[index].flow {
                    flow.big = Some(Box::new(BigValue::of_state(record.db, *state)));
                }
                return Drained::LateNow;
            }
            sent += 1;
            if sent % EFFECTS_PER_STEP == 0 {
                if self.clock.ns_between(begun, self.clock.ticks()) >= STEP_BUDGET_NS {
                    return Drained::LateNow;
                }
                if !is_frozen && self.links.backlog_bytes(link) >= BACKLOG_BYTES_MAX {
                    return Drained::LinkFull;
                }
            }
        }
    }

    /// Sends the next pieces of a large value, or the next keys.
    fn send_keys(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        index: usize,
        link: LinkId,
        begun: u64,
    ) {
        let slot = mv.tasks[index].slot;
        let mut share = 0;
        while share < SHARE_BYTES {
            let Some(flow) = &mut mv.tasks[index].flow else { return };
            let (attempt, drained_at) = (flow.attempt, flow.drained_at);
            if let Some(mut big) = flow.big.take() {
                let mut more = true;
                self.bind(mv, slot, attempt, big.db, drained_at);
                share += self.write_data(mv, slot, attempt, link, |out| {
                    more = big.write_piece(out);
                    1
                });
                if !more {
                    // What happened meanwhile comes before the walk goes on.
                    return;
                }
                if let Some(flow) = &mut mv.tasks[index].flow {
                    flow.big = Some(big);
                }
            } else if !flow.walk.is_done() {
                share += self.send_window(shard, mv, index, link);
            } else {
                return;
            }
            if self.clock.ns_between(begun, self.clock.ticks()) >= STEP_BUDGET_NS {
                return;
            }
            // A window that holds a large value ends at it: what happened meanwhile comes behind.
            let Some(flow) = &mv.tasks[index].flow else { return };
            if flow.big.is_none() && share > 0 && !self.has_room(mv, link) {
                return;
            }
        }
    }

    /// Sends the keys of the walk's next window; returns how many bytes that were.
    fn send_window(
        &mut self,
        shard: &mut Shard,
        mv: &mut MoveTask,
        index: usize,
        link: LinkId,
    ) -> usize {
        let slot = mv.tasks[index].slot;
        let Some(flow) = &mut mv.tasks[index].flow else { return 0 };
        let Some(db) = flow.walk.db() else { return 0 };
        let table = shard.keys.db(db).map(|dbase| dbase.table(slot));
        if let Some(start) = flow.walk.to_enter() {
            match table.and_then(|table| table.segment_at(start)) {
                Some((end, key_count)) => flow.walk.enter(end, key_count),
                None => {
                    flow.walk.skip_db();
                    return 0;
                }
            }
        }
        let (attempt, drained_at, window) = (flow.attempt, flow.drained_at, flow.walk.window());
        let Some(table) = table else {
            flow.walk.skip_db();
            return 0;
        };
        let now = self.now;
        let mut bigs = Vec::new();
        let mut keys = 0;
        self.bind(mv, slot, attempt, db, drained_at);
        let bytes = self.write_data(mv, slot, attempt, link, |out| {
            table.visit_window(window.prefixes, window.fingerprints, key_hash, |entry| {
                // One that has ended is not sent: the source deletes it, the target never has it.
                if entry.is_expired(now) {
                    return;
                }
                match write_entry(out, db, entry) {
                    Sent::Whole => keys += 1,
                    Sent::Pieces(big) => bigs.push(*big),
                }
            });
            keys
        });
        mv.news.keys += u64::from(keys) + bigs.len() as u64;
        let Some(flow) = &mut mv.tasks[index].flow else { return bytes };
        flow.walk.advance();
        // Several in one window: one after another, each from its own snapshot.
        flow.queue_bigs(bigs);
        bytes
    }

    /// Sees to it that the target's session fills this slot, in this database.
    fn bind(&mut self, mv: &mut MoveTask, slot: SlotId, attempt: Attempt, db: DbIndex, at: Ms) {
        if mv.bound != Some((slot, attempt)) {
            self.send_import(mv, slot, attempt, at);
            mv.expect(Expect::Data(slot, attempt, 1, 0));
        }
        if mv.selected != db
            && let Some(link) = mv.link
        {
            mv.selected = db;
            let index = db.0.to_string();
            self.links.call(link, self.now, &[b"SELECT", index.as_bytes()]);
            mv.expect(Expect::Data(slot, attempt, 1, 0));
        }
    }

    /// Writes calls that fill a slot; `write` says how many. Returns how many bytes they have.
    fn write_data(
        &mut self,
        mv: &mut MoveTask,
        slot: SlotId,
        attempt: Attempt,
        link: LinkId,
        write: impl FnOnce(&mut OutBuf) -> u32,
    ) -> usize {
        let (bytes, count) = self.links.write_counted(link, self.now, write);
        if count > 0 {
            let size = u32::try_from(bytes).unwrap_or(u32::MAX);
            mv.expect(Expect::Data(slot, attempt, count, size));
            mv.in_flight_bytes += size as usize;
            mv.allowance_bytes -= i64::from(size);
            mv.news.bytes += bytes as u64;
        }
        bytes
    }
}

impl Outflow {
    fn queue_bigs(&mut self, bigs: Vec<BigValue>) {
        for big in bigs {
            match &mut self.big {
                None => self.big = Some(Box::new(big)),
                Some(first) => first.push_behind(big),
            }
        }
    }
}

/// Writes a call some of whose words have memory of their own, which is shared.
fn write_shared_words(out: &mut OutBuf, args: &crate::commands::args::Args<'_>) {
    let mut reply = crate::resp::reply::Reply::new(out, Default::default());
    reply.array(args.len());
    for index in 0..args.len() {
        match args.shared(index) {
            Some(word) => reply.bulk_shared(word),
            None => reply.bulk(args.at(index)),
        }
    }
}
