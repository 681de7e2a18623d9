//! What all cores and the keeper of the log share: which set is logged in, how far each core is, and
//! what the keeper is asked for. The keeper is a thread of its own that makes files, writes the
//! manifest and removes what is old, so that no core waits for a directory.
//!
//! Cores look at one word every turn ([`Desk::target`]); all else is behind a lock that is taken when a
//! set begins or ends.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use crate::metrics::{Cell, Gauge};
use crate::persist::LogError;
use crate::persist::files::{FileHeader, LogFile, Place, sync_dir};
use crate::persist::manifest::{Manifest, SetLine};
use crate::units::{CoreId, Ms, SLOT_COUNT, SlotId};

/// How far a core is. It writes, others read.
#[derive(Debug, Default)]
pub struct CoreLog {
    /// The set that its shard is logged in.
    pub shard_set: AtomicU32,
    /// The set that its tape records for.
    pub tape_set: AtomicU32,
    /// The set whose file it writes to.
    pub file_set: AtomicU32,
    /// Logical time up to which all that it has recorded, and what that follows from, is on disk.
    pub durable: AtomicU64,
    /// The set in which all that its walk has recorded is on disk.
    pub walked_set: AtomicU32,
    /// Bytes of its file.
    pub file_bytes: Gauge,
    /// Bytes recorded and not written.
    pub waiting_bytes: Gauge,
    /// Flushes under way.
    pub flushes: Gauge,
    /// Flushes that delayed replies.
    pub late_flushes: Cell,
    /// The errno for which it writes nothing; 0 is none, negative is for good.
    pub errno: AtomicI32,
}

/// Something that the keeper is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// To rewrite the log.
    Rewrite,
    /// To begin a log of what there is.
    Begin,
    /// The same, but to end it when that is written.
    BeginOnce,
    /// To end it.
    End,
}

/// What INFO shows of rewriting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rewrites {
    /// When the one that runs began.
    pub begun: Option<Ms>,
    /// Seconds that the last one took.
    pub last_seconds: Option<i64>,
    /// How many there were.
    pub count: u64,
    /// The last one failed.
    pub has_failed: bool,
    /// How many have failed since the last that did not.
    pub failed_count: u64,
}

#[derive(Debug, Default)]
struct Inner {
    place: Option<Place>,
    manifest: Manifest,
    files: HashMap<(u32, CoreId), Arc<LogFile>>,
    wishes: Vec<Wish>,
    /// The set that is being walked into, and whether the manifest names it already.
    walk: Option<(u32, bool)>,
    rewrites: Rewrites,
    /// Bytes of all sets but the last, and of all sets when the last rewrite ended.
    old_bytes: u64,
    base_bytes: u64,
}

/// See the header of this module.
#[derive(Debug)]
pub struct Desk {
    target: AtomicU32,
    /// The set that cores walk into; 0 is none.
    walk_set: AtomicU32,
    /// Slots that have been walked.
    walked: Box<[AtomicBool]>,
    /// By core.
    pub cores: Box<[CoreLog]>,
    /// Cores that wait for others to be on disk, as bits.
    pub waiting: AtomicU64,
    /// Cores that have carried out all that was to be loaded.
    pub loaded_cores: AtomicUsize,
    /// Whether there is to be a log.
    is_wanted: AtomicBool,
    inner: Mutex<Inner>,
    keeper: OnceLock<Thread>,
    failure: OnceLock<String>,
}

impl Desk {
    /// Nothing is logged.
    pub fn new(core_count: usize) -> Self {
        Self {
            target: AtomicU32::new(0),
            walk_set: AtomicU32::new(0),
            walked: (0..SLOT_COUNT).map(|_| AtomicBool::new(false)).collect(),
            cores: (0..core_count).map(|_| CoreLog::default()).collect(),
            waiting: AtomicU64::new(0),
            loaded_cores: AtomicUsize::new(0),
            is_wanted: AtomicBool::new(false),
            inner: Mutex::default(),
            keeper: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set that shards are to be logged in; 0 is none.
    #[inline]
    pub fn target(&self) -> u32 {
        // Ordering: acquire, so that whoever sees the set finds its files.
        self.target.load(Ordering::Acquire)
    }

    /// The file of a core in a set.
    pub fn file(&self, set: u32, core: CoreId) -> Option<Arc<LogFile>> {
        self.lock().files.remove(&(set, core))
    }

    /// Whether there is to be a log.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Asks the keeper for something.
    pub fn wish(&self, wish: Wish) {
        match wish {
            Wish::Begin => self.is_wanted.store(true, Ordering::Release),
            Wish::End => self.is_wanted.store(false, Ordering::Release),
            Wish::Rewrite | Wish::BeginOnce => {}
        }
        self.lock().wishes.push(wish);
        self.wake_keeper();
    }

    /// Has the keeper look at how far the cores are.
    pub fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    /// Says which thread is the keeper.
    pub fn set_keeper(&self, keeper: Thread) {
        // There is one, and it is told once.
        let _ = self.keeper.set(keeper);
    }

    /// Why the log cannot be loaded, if it cannot: the process has to end.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Says why.
    pub fn set_failure(&self, why: String) {
        // The first reason is the one.
        let _ = self.failure.set(why);
    }

    /// What there is to tell of rewriting.
    pub fn rewrites(&self) -> Rewrites {
        self.lock().rewrites
    }

    /// Whether a rewrite runs, or is about to.
    pub fn is_rewriting(&self) -> bool {
        let inner = self.lock();
        inner.walk.is_some() || !inner.wishes.is_empty()
    }

    /// The set that is being walked into; 0 is none.
    #[inline]
    pub fn walk_set(&self) -> u32 {
        self.walk_set.load(Ordering::Acquire)
    }

    /// Whether a slot has been walked.
    pub fn is_walked(&self, slot: SlotId) -> bool {
        self.walked[slot.index()].load(Ordering::Acquire)
    }

    /// Notes that a slot has been walked. Its door is held.
    pub fn set_walked(&self, slot: SlotId) {
        self.walked[slot.index()].store(true, Ordering::Release);
    }

    /// Whether all slots have been walked.
    pub fn is_all_walked(&self) -> bool {
        self.walked.iter().all(|walked| walked.load(Ordering::Acquire))
    }

    /// Bytes of the whole log, and of what it was after the last rewrite.
    pub fn sizes(&self) -> (u64, u64) {
        let inner = self.lock();
        let now: i64 = self.cores.iter().map(|core| core.file_bytes.get()).sum();
        (inner.old_bytes + now.max(0) as u64, inner.base_bytes)
    }

    /// The errno for which a core writes nothing; negative is for good.
    pub fn errno(&self) -> i32 {
        let errnos = self.cores.iter().map(|core| core.errno.load(Ordering::Relaxed));
        errnos.clone().min().filter(|&errno| errno < 0).or_else(|| errnos.max()).unwrap_or(0)
    }

    /// Says where the log is, if there ever is one.
    pub fn set_place(&self, place: Place) {
        self.lock().place = Some(place);
    }

    /// Takes over a log that was loaded, or an empty one.
    pub fn adopt(&self, place: Place, manifest: Manifest, byte_count: u64) {
        self.is_wanted.store(true, Ordering::Release);
        let mut inner = self.lock();
        inner.place = Some(place);
        inner.manifest = manifest;
        inner.old_bytes = byte_count;
        inner.base_bytes = byte_count;
    }

    /// Makes the files of the next set and has all shards logged in it. `is_named`: the manifest names
    /// it before anything is written, so that what is written counts.
    ///
    /// # Errors
    /// Files or manifest cannot be written: all stays as it was.
    pub fn begin_set(
        &self,
        now: Ms,
        is_named: bool,
        mut number: impl FnMut() -> u64,
    ) -> Result<u32, LogError> {
        let mut inner = self.lock();
        let Some(place) = inner.place.clone() else {
            return Ok(0);
        };
        place.make_dir()?;
        let newest = place.list()?.last().map_or(0, |(set, _)| *set);
        let set = inner.manifest.next_set().max(newest + 1).max(self.target() + 1);
        let core_count = self.cores.len() as u16;
        for core in (0..core_count).map(CoreId) {
            let header = FileHeader { set, core, core_count, number: number(), made_at: now };
            let file = Arc::new(LogFile::create(&place, header)?);
            inner.files.insert((set, core), file);
        }
        sync_dir(&place.dir)?;
        if is_named {
            let mut manifest = inner.manifest.clone();
            manifest.sets.push(SetLine { set, core_count, is_base: false });
            manifest.write(&place)?;
            inner.manifest = manifest;
            let written: i64 = self.cores.iter().map(|core| core.file_bytes.get()).sum();
            inner.old_bytes += written.max(0) as u64;
        }
        self.target.store(set, Ordering::Release);
        Ok(set)
    }

    /// One pass of the keeper. Whether cores have to look.
    pub fn keep(&self, now: Ms, mut number: impl FnMut() -> u64) -> bool {
        let wishes = std::mem::take(&mut self.lock().wishes);
        let is_news = !wishes.is_empty();
        for wish in wishes {
            match wish {
                Wish::End => self.end(),
                Wish::Begin | Wish::BeginOnce if self.target() != 0 => {}
                Wish::Rewrite if self.lock().walk.is_some() => {}
                Wish::Begin | Wish::BeginOnce | Wish::Rewrite => {
                    self.begin_walk(now, wish, &mut number)
                }
            }
        }
        let has_finished = self.finish_walk(now);
        if has_finished && !self.is_wanted() && self.lock().walk.is_none() {
            // It was asked for once, while nothing is logged.
            self.end();
        }
        is_news | has_finished
    }

    fn end(&self) {
        let mut inner = self.lock();
        self.target.store(0, Ordering::Release);
        self.walk_set.store(0, Ordering::Release);
        inner.walk = None;
        inner.rewrites.begun = None;
    }

    fn begin_walk(&self, now: Ms, wish: Wish, number: &mut dyn FnMut() -> u64) {
        let is_named = wish == Wish::Rewrite && self.target() != 0;
        match self.begin_set(now, is_named, number) {
            Ok(set) => {
                let mut inner = self.lock();
                self.walked.iter().for_each(|walked| walked.store(false, Ordering::Release));
                inner.walk = Some((set, is_named));
                inner.rewrites.begun = Some(now);
                self.walk_set.store(set, Ordering::Release);
                tracing::info!(set, "rewriting the append log");
            }
            Err(error) => self.walk_failed(&error),
        }
    }

    fn walk_failed(&self, error: &LogError) {
        let mut inner = self.lock();
        inner.rewrites.has_failed = true;
        inner.rewrites.failed_count += 1;
        inner.rewrites.begun = None;
        tracing::error!(%error, "the append log cannot be rewritten");
    }

    /// Once all cores have walked, and what they have recorded is on disk: nothing older is needed.
    fn finish_walk(&self, now: Ms) -> bool {
        let mut inner = self.lock();
        let Some((set, _)) = inner.walk else { return false };
        let is_done = |core: &CoreLog| {
            core.walked_set.load(Ordering::Acquire) == set
                && core.file_set.load(Ordering::Acquire) == set
        };
        if !self.cores.iter().all(is_done) {
            return false;
        }
        let Some(place) = inner.place.clone() else { return false };
        let core_count = self.cores.len() as u16;
        let manifest = Manifest { sets: vec![SetLine { set, core_count, is_base: true }] };
        if let Err(error) = manifest.write(&place) {
            inner.walk = None;
            self.walk_set.store(0, Ordering::Release);
            drop(inner);
            self.walk_failed(&error);
            return true;
        }
        inner.manifest = manifest;
        inner.walk = None;
        self.walk_set.store(0, Ordering::Release);
        inner.old_bytes = 0;
        let size: i64 = self.cores.iter().map(|core| core.file_bytes.get()).sum();
        inner.base_bytes = size.max(0) as u64;
        let begun = inner.rewrites.begun.take().unwrap_or(now);
        inner.rewrites.last_seconds = Some((now.0 - begun.0) / 1000);
        inner.rewrites.count += 1;
        inner.rewrites.has_failed = false;
        inner.rewrites.failed_count = 0;
        drop(inner);
        tracing::info!(set, bytes = size, "the append log is rewritten");
        remove_older(&place, set);
        true
    }
}

/// Removes the files of sets that the manifest does not name: they were never part of the log.
///
/// # Errors
/// The directory cannot be read.
pub fn remove_unnamed(place: &Place, manifest: &Manifest) -> Result<(), LogError> {
    for (set, core) in place.list()? {
        if !manifest.sets.iter().any(|line| line.set == set) {
            let path = place.file(set, core);
            fs::remove_file(&path).map_err(|error| LogError::io(&path, "removed", error))?;
        }
    }
    Ok(())
}

/// Removes the files of sets before one that says everything.
pub fn remove_older(place: &Place, set: u32) {
    let old = place.list().unwrap_or_default().into_iter().filter(|(old, _)| *old < set);
    for (old, core) in old {
        let path = place.file(old, core);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(file = %path.display(), %error, "an old file of the append log stays");
        }
    }
}
