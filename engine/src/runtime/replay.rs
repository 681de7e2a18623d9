//! Loading the append log: a thread reads it and gives each effect to the core whose shard has its
//! slot; the cores carry them out in their turns, while clients hear `-LOADING`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::commands::args::{ArgRange, Args};
use crate::commands::ctx::Shards;
use crate::commands::dispatch;
use crate::commands::spec::Handler;
use crate::commands::table::{Command, KeyRule};
use crate::gates::Gate;
use crate::journal::frame::{self, Kind};
use crate::node::Node;
use crate::persist::LogError;
use crate::persist::desk::remove_unnamed;
use crate::persist::files::{self, Place};
use crate::persist::manifest::Manifest;
use crate::persist::merge::Merge;
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply};
use crate::runtime::mailbox::{Receiver, Sender};
use crate::runtime::turn::Core;
use crate::shard::state::Shard;
use crate::slots::hash::slot_of;
use crate::slots::state::SlotState;
use crate::units::{Ms, ShardId, SlotId};

/// Bytes of records that go to a core at once.
const BATCH_BYTES: usize = 64 * 1024;
/// Batches that may wait for a core.
pub(super) const BATCH_COUNT: usize = 64;
/// Time that a turn carries out effects.
const STEP_BUDGET_NS: u64 = 2_000_000;
/// How long the reader waits for a core that is behind.
const PAUSE: Duration = Duration::from_micros(100);
/// After so many milliseconds access clocks read the same again: 2^24 seconds and 2^16 minutes.
const CLOCKS_PERIOD_MS: i64 = (1 << 24) * 15 * 1000;

/// Effects for a core.
#[derive(Debug)]
pub struct Effects {
    records: Vec<u8>,
    /// Where the first of them stands.
    path: PathBuf,
    offset: u64,
    /// What comes before them is not all there: they may have nothing to work on.
    is_partial: bool,
}

/// What the reader sends to a core.
#[derive(Debug)]
pub enum LoadMail {
    /// Do this.
    Effects(Box<Effects>),
    /// There is no more; logical time of all that there was.
    End(u64),
}

/// A core's part in loading.
#[derive(Debug, Default)]
pub struct Replay {
    inbox: Option<Receiver<LoadMail>>,
    ranges: Vec<ArgRange>,
    reply: OutBuf,
    /// What is under way, and how much of it has been carried out.
    current: Option<(Box<Effects>, usize)>,
    is_ready: bool,
}

impl Replay {
    /// The part of a core that gets its effects from here.
    pub fn new(inbox: Receiver<LoadMail>) -> Self {
        Self { inbox: Some(inbox), ..Self::default() }
    }

    /// Whether effects may come.
    pub(super) fn is_under_way(&self) -> bool {
        self.inbox.is_some()
    }

    /// Whether there are effects to carry out.
    pub(super) fn has_work(&self) -> bool {
        self.is_ready
    }
}

impl Core {
    /// Carries out effects of the log, within the turn's budget.
    pub(super) fn step_replay(&mut self) {
        if !self.log.replay.is_under_way() {
            return;
        }
        let own = self.id.index();
        let Some(mut shard) = self.held[own].take() else { return };
        let mut replay = std::mem::take(&mut self.log.replay);
        let begun = self.clock.ticks();
        replay.is_ready = true;
        while self.clock.ns_between(begun, self.clock.ticks()) < STEP_BUDGET_NS {
            if replay.current.is_some() {
                self.carry_out_some(&mut shard, &mut replay);
                continue;
            }
            let inbox = replay.inbox.as_mut().expect("it is under way until the end has come");
            match inbox.try_recv() {
                Some(LoadMail::Effects(effects)) => replay.current = Some((effects, 0)),
                Some(LoadMail::End(clock)) => {
                    self.end_replay(&mut shard, clock);
                    replay = Replay::default();
                    break;
                }
                None => {
                    replay.is_ready = false;
                    break;
                }
            }
        }
        self.log.replay = replay;
        self.held[own] = Some(shard);
    }

    /// Carries out some effects of a batch.
    fn carry_out_some(&mut self, shard: &mut Shard, replay: &mut Replay) {
        let Some((effects, mut at)) = replay.current.take() else { return };
        // No key may expire before the log says so; access clocks read as they do now.
        let now = Ms(self.now.0 - 6 * CLOCKS_PERIOD_MS);
        for _ in 0..64 {
            let rest = &effects.records[at..];
            let Some((record, len)) = frame::read(rest, &mut replay.ranges) else {
                invariant!(rest.is_empty(), "the reader has looked at every record");
                return;
            };
            at += len;
            let args = Args::new(rest, &replay.ranges);
            let result = match (record.kind, record.slot) {
                (Kind::Cleared, Some(slot)) => {
                    shard.hide_slot(slot);
                    shard.drop_hidden(slot);
                    Ok(())
                }
                (Kind::Call, _) => {
                    self.carry_out_call(shard, record, &args, now, &mut replay.reply)
                }
                _ => Ok(()),
            };
            if let Err(error) = result
                && !effects.is_partial
            {
                let name = args.get(0).unwrap_or_default().escape_ascii().to_string();
                let Effects { path, offset, .. } = &*effects;
                let reason = format!("`{name}` ends in: {error}");
                let error = LogError::Damaged { path: path.clone(), offset: *offset, reason };
                self.node.log.set_failure(error.to_string());
                // It cannot serve half of its data: the process ends.
                self.peers.stop.store(true, Ordering::Relaxed);
                return;
            }
        }
        replay.current = Some((effects, at));
    }

    fn carry_out_call(
        &mut self,
        shard: &mut Shard,
        record: frame::Record,
        args: &Args<'_>,
        now: Ms,
        out: &mut OutBuf,
    ) -> Result<(), String> {
        let text = |error: CommandError| error.text().to_owned();
        let command = dispatch::resolve(args).map_err(text)?;
        if !is_effect(command) {
            return Err("it changes no data".to_owned());
        }
        if let Some(slot) = record.slot
            && command.keys == KeyRule::First
            && slot_of(args.at(1)) != slot
        {
            return Err("its key is in another slot".to_owned());
        }
        let (node, id) = (self.node, self.id);
        let shards = Shards::One(shard);
        let mut ctx = dispatch::ctx(node, id, shards, &mut self.logical, now, record.db, command);
        let mut reply = Reply::new(out, ctx.protocol);
        let is_done = dispatch::run_queued(command, &mut ctx, args, &mut reply);
        let text = match is_done {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(out.bytes()).trim_end().to_owned()),
        };
        out.clear(BATCH_BYTES);
        text
    }

    /// All effects have been carried out: what comes is later.
    fn end_replay(&mut self, shard: &mut Shard, clock: u64) {
        self.logical.now = self.logical.now.max(clock);
        shard.journal.advance(clock);
        let hidden: Vec<SlotId> = {
            let cluster = self.node.cluster.lock();
            let is_hidden = |slot: &SlotId| {
                let state: SlotState = cluster.slot(*slot).state;
                self.node.owners.of(*slot) == shard.id && !state.is_visible()
            };
            SlotId::all().filter(is_hidden).collect()
        };
        hidden.into_iter().for_each(|slot| shard.hide_slot(slot));
        self.node.log.loaded_cores.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether a command may stand in a log.
fn is_effect(command: &Command) -> bool {
    // PFCOUNT is no write, and stores what it has counted all the same.
    let may_write = command.spec.is_write() || command.spec.name == "pfcount";
    may_write && matches!(command.spec.handler, Handler::Data(_) | Handler::Sliced(_))
}

/// Reads a log and has the cores carry it out; then begins a set of its own, and lets clients in. Runs
/// on a thread of its own. If it returns `false` the desk says why, and the process has to end.
pub fn load(
    node: &'static Node,
    place: &Place,
    feeds: Vec<Sender<LoadMail>>,
    now: impl Fn() -> Ms,
    number: impl FnMut() -> u64,
) -> bool {
    let result = try_load(node, place, feeds, now, number);
    if let Err(error) = &result {
        node.log.set_failure(error.to_string());
    }
    result.is_ok()
}

fn try_load(
    node: &'static Node,
    place: &Place,
    feeds: Vec<Sender<LoadMail>>,
    now: impl Fn() -> Ms,
    number: impl FnMut() -> u64,
) -> Result<(), LogError> {
    place.make_dir()?;
    let begun = now();
    let manifest = Manifest::read(place)?.unwrap_or_default();
    let mut deal = Deal::new(node, feeds);
    let merge = deal.read_all(place, &manifest)?;
    deal.send_end(merge.last());
    wait_until(|| node.log.loaded_cores.load(Ordering::Acquire) == node.cores.len());
    for cut in merge.cuts() {
        if !node.config.aof_load_truncated() {
            let (path, offset, reason) = (cut.path.clone(), cut.offset, cut.reason.clone());
            return Err(LogError::Truncated { path, offset, reason });
        }
        tracing::warn!(
            file = %cut.path.display(),
            offset = cut.offset,
            reason = cut.reason,
            "the end of the append log was lost: it is cut there"
        );
        files::cut(&cut.path, cut.offset)?;
    }
    remove_unnamed(place, &manifest)?;
    let byte_count = merge.read_bytes();
    if !manifest.sets.is_empty() {
        let ms = now().0 - begun.0;
        tracing::info!(bytes = byte_count, effects = deal.count, ms, "the append log is loaded");
    }
    node.log.adopt(place.clone(), manifest, byte_count);
    let set = node.log.begin_set(now(), true, number)?;
    let is_begun =
        |core: &crate::persist::desk::CoreLog| core.shard_set.load(Ordering::Acquire) == set;
    wait_until(|| node.log.cores.iter().all(is_begun));
    node.gates.set(Gate::Loading, false);
    Ok(())
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::park_timeout(PAUSE);
    }
}

/// Gives effects to the cores.
struct Deal {
    node: &'static Node,
    feeds: Vec<Sender<LoadMail>>,
    batches: Vec<Option<Box<Effects>>>,
    ranges: Vec<ArgRange>,
    count: u64,
}

impl Deal {
    fn new(node: &'static Node, feeds: Vec<Sender<LoadMail>>) -> Self {
        let count = feeds.len();
        Self {
            node,
            feeds,
            batches: (0..count).map(|_| None).collect(),
            ranges: Vec::new(),
            count: 0,
        }
    }

    fn read_all(&mut self, place: &Place, manifest: &Manifest) -> Result<Merge, LogError> {
        let mut merge = Merge::open(place, manifest)?;
        while let Some((unit, reader, line)) = merge.next_unit()? {
            let mut rest = &unit.records[..];
            while let Some((record, len)) = frame::read(rest, &mut self.ranges) {
                let bytes = &rest[..len];
                rest = &rest[len..];
                self.count += u64::from(record.kind != Kind::Nothing);
                let at = (&reader.path, unit.offset, line.is_base);
                match (record.kind, record.slot) {
                    (Kind::Nothing, _) => {}
                    (_, Some(slot)) => self.add(self.node.owners.of(slot), bytes, at),
                    (_, None) => {
                        let all = (0..self.feeds.len()).map(|i| ShardId(i as u16));
                        all.for_each(|shard| self.add(shard, bytes, at));
                    }
                }
            }
            if !rest.is_empty() {
                let reason = "a frame holds something that is no record".to_owned();
                let path = reader.path.clone();
                return Err(LogError::Damaged { path, offset: unit.offset, reason });
            }
        }
        Ok(merge)
    }

    fn add(&mut self, shard: ShardId, bytes: &[u8], at: (&PathBuf, u64, bool)) {
        let (path, offset, is_partial) = at;
        let index = shard.index();
        // What may go wrong must not stand with what may not.
        if self.batches[index].as_ref().is_some_and(|batch| batch.is_partial != is_partial) {
            self.send(index);
        }
        let batch = self.batches[index].get_or_insert_with(|| {
            let records = Vec::with_capacity(BATCH_BYTES + bytes.len());
            Box::new(Effects { records, path: path.clone(), offset, is_partial })
        });
        batch.records.extend_from_slice(bytes);
        if batch.records.len() >= BATCH_BYTES {
            self.send(index);
        }
    }

    fn send(&mut self, index: usize) {
        if let Some(batch) = self.batches[index].take() {
            self.post(index, LoadMail::Effects(batch));
        }
    }

    fn post(&mut self, index: usize, mail: LoadMail) {
        let mut mail = mail;
        while let Err(back) = self.feeds[index].try_send(mail) {
            mail = back;
            std::thread::park_timeout(PAUSE);
        }
    }

    fn send_end(&mut self, clock: u64) {
        for index in 0..self.feeds.len() {
            self.send(index);
            self.post(index, LoadMail::End(clock));
        }
    }
}

/// Ways to the cores, and what each core takes along.
pub fn feeds(core_count: usize) -> (Vec<Sender<LoadMail>>, Vec<Replay>) {
    (0..core_count)
        .map(|_| {
            let (sender, receiver) = crate::runtime::mailbox::mailbox(BATCH_COUNT);
            (sender, Replay::new(receiver))
        })
        .unzip()
}

/// Keeps the log in order until the process ends: makes files, writes the manifest. `tell` is called
/// when cores have to look.
pub fn keep(node: &Node, now: impl Fn() -> Ms, mut number: impl FnMut() -> u64, tell: impl Fn()) {
    loop {
        if node.log.keep(now(), &mut number) {
            tell();
        }
        std::thread::park();
    }
}

/// So that a set's files are told apart from those of the same name before: chance from a seed.
pub fn numbers(seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    let mut n = 0u64;
    move || {
        n += 1;
        xxhash_rust::xxh3::xxh3_64_with_seed(&n.to_le_bytes(), seed)
    }
}
