//! What all cores of a process share and read without a lock: settings, slot owners, counters.
//! Knows no ring, no session and no shard.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use crate::config::Config;
use crate::metrics::histogram::Histogram;
use crate::metrics::{Cell, Gauge};
use crate::slots::owner::SlotOwners;
use crate::units::{CoreId, Ms};

/// Counters of one command on one core.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Calls that ran.
    pub calls: Cell,
    /// Nanoseconds they ran for.
    pub ns: Cell,
    /// Calls refused before they ran.
    pub rejected: Cell,
    /// Calls that ended in an error.
    pub failed: Cell,
}

/// Counters of one core. That core writes, everybody reads.
#[derive(Debug)]
pub struct CoreStats {
    /// By command id.
    pub commands: Box<[CommandStats]>,
    /// Commands that ran.
    pub commands_run: Cell,
    /// Lookups for reading that found a key, and that did not.
    pub keyspace_hits: Cell,
    /// See `keyspace_hits`.
    pub keyspace_misses: Cell,
    /// Keys deleted because their time had come.
    pub expired_keys: Cell,
    /// Keys deleted because memory was short.
    pub evicted_keys: Cell,
    /// Connections ever accepted.
    pub connections: Cell,
    /// Connections refused because of `maxclients`.
    pub rejected_connections: Cell,
    /// Open client sessions.
    pub sessions: Gauge,
    /// Sessions closed because their output or query was over a budget.
    pub overflow_disconnections: Cell,
    /// Bytes received from and sent to clients.
    pub net_in_bytes: Cell,
    /// See `net_in_bytes`.
    pub net_out_bytes: Cell,
    /// Error replies sent.
    pub error_replies: Cell,
    /// Memory of tables and entries of the core's shard, as of its last turn.
    pub data_bytes: Gauge,
    /// Requests run through a door that another core had parked, and requests mailed.
    pub door_requests: Cell,
    /// See `door_requests`.
    pub mail_requests: Cell,
    /// Durations of turns.
    pub turns: Histogram,
    /// Keys that wait to be freed lazily.
    pub lazyfree_pending: Gauge,
    /// Keys freed lazily.
    pub lazyfreed: Gauge,
}

impl CoreStats {
    fn new(command_count: usize) -> Self {
        Self {
            commands: (0..command_count).map(|_| CommandStats::default()).collect(),
            commands_run: Cell::default(),
            keyspace_hits: Cell::default(),
            keyspace_misses: Cell::default(),
            expired_keys: Cell::default(),
            evicted_keys: Cell::default(),
            connections: Cell::default(),
            rejected_connections: Cell::default(),
            sessions: Gauge::default(),
            overflow_disconnections: Cell::default(),
            net_in_bytes: Cell::default(),
            net_out_bytes: Cell::default(),
            error_replies: Cell::default(),
            data_bytes: Gauge::default(),
            door_requests: Cell::default(),
            mail_requests: Cell::default(),
            turns: Histogram::default(),
            lazyfree_pending: Gauge::default(),
            lazyfreed: Gauge::default(),
        }
    }
}

/// Which commands CLIENT PAUSE holds back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// None.
    Off,
    /// Those that may write.
    Write,
    /// All.
    All,
}

/// The process, as every core sees it.
#[derive(Debug)]
pub struct Node {
    /// Settings.
    pub config: Config,
    /// Owner of each slot.
    pub owners: SlotOwners,
    /// Counters by core.
    pub cores: Box<[CoreStats]>,
    /// When the process started.
    pub started_at: Ms,
    /// 40 hexadecimal digits that name this run.
    pub run_id: String,
    next_client_id: AtomicU64,
    pause_until_ms: AtomicI64,
    pause_mode: AtomicU8,
    /// Memory in use besides data, refreshed a few times a second.
    overhead_bytes: AtomicI64,
    /// Resident memory, refreshed with it.
    pub resident_bytes: AtomicU64,
    /// Largest [`used_bytes`](Self::used_bytes) seen.
    pub used_peak_bytes: AtomicU64,
}

impl Node {
    /// A process of `core_count` cores.
    pub fn new(
        config: Config,
        core_count: usize,
        command_count: usize,
        started_at: Ms,
        run_id: String,
    ) -> Self {
        Self {
            config,
            owners: SlotOwners::dealt(core_count),
            cores: (0..core_count).map(|_| CoreStats::new(command_count)).collect(),
            started_at,
            run_id,
            next_client_id: AtomicU64::new(1),
            pause_until_ms: AtomicI64::new(0),
            pause_mode: AtomicU8::new(0),
            overhead_bytes: AtomicI64::new(0),
            resident_bytes: AtomicU64::new(0),
            used_peak_bytes: AtomicU64::new(0),
        }
    }

    /// Counters of a core.
    #[inline]
    pub fn core(&self, core: CoreId) -> &CoreStats {
        &self.cores[core.index()]
    }

    /// Sum of a counter over all cores.
    pub fn sum(&self, cell: impl Fn(&CoreStats) -> &Cell) -> u64 {
        self.cores.iter().map(|core| cell(core).get()).sum()
    }

    /// Open client sessions of all cores.
    pub fn session_count(&self) -> i64 {
        self.cores.iter().map(|core| core.sessions.get()).sum()
    }

    /// An id that no other client of this process has.
    pub fn new_client_id(&self) -> u64 {
        // Ordering: relaxed; only uniqueness counts.
        self.next_client_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Holds commands back until `until`.
    pub fn set_pause(&self, pause: Pause, until: Ms) {
        self.pause_mode.store(pause as u8, Ordering::Relaxed);
        // Ordering: release and acquire, so that a core that sees the time sees the mode.
        self.pause_until_ms.store(until.0, Ordering::Release);
    }

    /// Which commands are held back at `now`, and until when.
    #[inline]
    pub fn pause(&self, now: Ms) -> (Pause, Ms) {
        let until = Ms(self.pause_until_ms.load(Ordering::Acquire));
        if until <= now {
            return (Pause::Off, until);
        }
        match self.pause_mode.load(Ordering::Relaxed) {
            1 => (Pause::Write, until),
            2 => (Pause::All, until),
            _ => (Pause::Off, until),
        }
    }

    /// Memory that counts against `maxmemory`: what the shards hold now, and all the rest that the
    /// allocator had in use when it was last asked.
    #[inline]
    pub fn used_bytes(&self) -> u64 {
        let rest = self.overhead_bytes.load(Ordering::Relaxed);
        (self.data_bytes() + rest).max(0) as u64
    }

    /// Memory of tables and entries of all shards.
    pub fn data_bytes(&self) -> i64 {
        self.cores.iter().map(|core| core.data_bytes.get()).sum()
    }

    /// Takes note of what the allocator says: pages in use, and resident.
    pub fn note_memory(&self, active_bytes: u64, resident_bytes: u64) {
        self.overhead_bytes.store((active_bytes as i64 - self.data_bytes()).max(0), Ordering::Relaxed);
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        self.used_peak_bytes.fetch_max(self.used_bytes(), Ordering::Relaxed);
    }
}
