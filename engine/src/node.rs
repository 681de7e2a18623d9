//! What all cores of a process share and read without a lock: settings, slot owners, counters.
//! Knows no ring, no session and no shard.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::commands::args::Args;
use crate::commands::held_keys::HeldKeys;
use crate::commands::spec::Flags;
use crate::commands::table::Command;
use crate::config::Config;
use crate::gates::{Gate, Gates};
use crate::metrics::errors::ErrorCounts;
use crate::metrics::histogram::Histogram;
use crate::metrics::rates::Rates;
use crate::metrics::{Cell, Gauge};
use crate::migrate::cluster::Cluster;
use crate::migrate::dialect::registry::Registry as DialectRegistry;
use crate::net::client::ClientState;
use crate::observe::latency::{Delays, Event};
use crate::observe::slowlog::{Slow, SlowLog};
use crate::persist::desk::{Desk, Wish};
use crate::pubsub::registry::Registry;
use crate::resp::error::CommandError;
use crate::shard::evict::Policy;
use crate::shard::state::Shard;
use crate::slots::owner::{Access, SlotOwners};
use crate::slots::state::SlotState;
use crate::units::{CoreId, Ms, SlotId};

/// The version of Redis whose behaviour this server has, as clients are told.
pub const REDIS_VERSION: &str = "7.0.15";

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
    /// How long calls ran. 4 KiB, so made by the first call.
    durations: OnceLock<Box<Histogram>>,
}

impl CommandStats {
    /// Counts a call that ran for `ns`; `track` keeps its duration (`latency-tracking`).
    #[inline]
    pub fn note_call(&self, ns: u64, track: bool) {
        self.calls.add(1);
        self.ns.add(ns);
        if track {
            self.durations.get_or_init(Box::default).record(ns);
        }
    }

    /// How long calls ran, if any was tracked.
    pub fn durations(&self) -> Option<&Histogram> {
        self.durations.get().map(|histogram| &**histogram)
    }

    /// Forgets everything (CONFIG RESETSTAT).
    pub fn reset(&self) {
        [&self.calls, &self.ns, &self.rejected, &self.failed].into_iter().for_each(|c| c.set(0));
        if let Some(durations) = self.durations() {
            durations.reset();
        }
    }
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
    /// Open sessions of what shares the cores with the server.
    pub guests: Gauge,
    /// Sessions closed because their output or query was over a budget.
    pub overflow_disconnections: Cell,
    /// Bytes received from and sent to clients.
    pub net_in_bytes: Cell,
    /// See `net_in_bytes`.
    pub net_out_bytes: Cell,
    /// Error replies sent.
    pub error_replies: Cell,
    /// The same by the first word of the error.
    pub errors: ErrorCounts,
    /// Memory of tables and entries of the core's shard, as of its last turn.
    pub data_bytes: Gauge,
    /// Keys of its shard that may be evicted; kept only while memory is limited.
    pub evictable_keys: Gauge,
    /// Requests run through a door that another core had parked, and requests mailed.
    pub door_requests: Cell,
    /// See `door_requests`.
    pub mail_requests: Cell,
    /// Durations of turns.
    pub turns: Histogram,
    /// Keys that wait to be freed lazily.
    pub lazyfree_pending: Gauge,
    /// Sessions in a blocking call.
    pub blocked_clients: Gauge,
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
            guests: Gauge::default(),
            overflow_disconnections: Cell::default(),
            net_in_bytes: Cell::default(),
            net_out_bytes: Cell::default(),
            error_replies: Cell::default(),
            errors: ErrorCounts::default(),
            data_bytes: Gauge::default(),
            evictable_keys: Gauge::default(),
            door_requests: Cell::default(),
            mail_requests: Cell::default(),
            turns: Histogram::default(),
            lazyfree_pending: Gauge::default(),
            blocked_clients: Gauge::default(),
            lazyfreed: Gauge::default(),
        }
    }

    /// Counts a call that ran for `ns`. Only the core itself calls this.
    #[inline]
    pub fn note_call(&self, command: &Command, ns: u64, track: bool) {
        self.commands[usize::from(command.id)].note_call(ns, track);
        self.commands_run.add(1);
    }

    /// Counts an error reply. Only the core itself calls this.
    pub fn note_error(&self, error: &CommandError) {
        self.error_replies.add(1);
        self.errors.add(error.prefix());
    }

    /// Sets all that counts since some time to zero (CONFIG RESETSTAT). A count that its core makes
    /// at the same moment may survive or be lost.
    pub fn reset(&self) {
        self.commands.iter().for_each(CommandStats::reset);
        self.errors.reset();
        self.turns.reset();
        self.lazyfreed.set(0);
        let cells = [
            &self.commands_run,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.expired_keys,
            &self.evicted_keys,
            &self.connections,
            &self.rejected_connections,
            &self.overflow_disconnections,
            &self.net_in_bytes,
            &self.net_out_bytes,
            &self.error_replies,
            &self.door_requests,
            &self.mail_requests,
        ];
        cells.into_iter().for_each(|cell| cell.set(0));
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
    next_call_id: AtomicU64,
    pause_until_ms: AtomicI64,
    pause_mode: AtomicU8,
    /// Keys whose writers wait.
    pub held_keys: Arc<HeldKeys>,
    /// Memory in use besides data, refreshed a few times a second.
    overhead_bytes: AtomicI64,
    /// Resident memory, refreshed with it.
    pub resident_bytes: AtomicU64,
    /// Largest [`used_bytes`](Self::used_bytes) seen.
    pub used_peak_bytes: AtomicU64,
    /// Commands and bytes per second, sampled by [`sample_rates`](Self::sample_rates).
    pub rates: Rates,
    /// Subscribers of all cores.
    pub pubsub: Registry,
    /// Moves of keys by the original's commands.
    pub dialect: DialectRegistry,
    /// The cluster that this server is in.
    pub cluster: Cluster,
    /// Reasons to refuse calls.
    pub gates: Gates,
    /// The append log.
    pub log: Desk,
    /// Slow calls.
    pub slowlog: SlowLog,
    /// Delays.
    pub delays: Delays,
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
            next_call_id: AtomicU64::new(1),
            pause_until_ms: AtomicI64::new(0),
            pause_mode: AtomicU8::new(0),
            held_keys: Arc::default(),
            overhead_bytes: AtomicI64::new(0),
            resident_bytes: AtomicU64::new(0),
            used_peak_bytes: AtomicU64::new(0),
            rates: Rates::default(),
            pubsub: Registry::new(core_count),
            dialect: DialectRegistry::new(core_count),
            cluster: Cluster::default(),
            gates: Gates::default(),
            log: Desk::new(core_count),
            slowlog: SlowLog::new(core_count),
            delays: Delays::default(),
        }
    }

    /// Lets requests in to the slots that the cluster's books say are served, and to no others. Once,
    /// before there are requests.
    pub fn open_slots(&self) {
        let cluster = self.cluster.lock();
        for slot in SlotId::all() {
            let state = cluster.slot(slot).state;
            if state != SlotState::Owned {
                let access = if state.is_visible() { Access::Open } else { Access::Refused };
                self.owners.set_access(slot, access, state.is_moving());
            }
        }
        // Moves that were under way go on.
        self.cluster.announce();
    }

    /// Why calls on a slot are refused now.
    #[cold]
    pub fn refusal(&self, slot: SlotId) -> CommandError {
        let cluster = self.cluster.lock();
        let entry = cluster.slot(slot);
        match (entry.state, &entry.peer) {
            (SlotState::Handed | SlotState::Away, Some(peer)) => CommandError::moved(slot, peer),
            (SlotState::Handed | SlotState::Away, None) => CommandError::not_served(slot),
            (SlotState::Importing | SlotState::Ready, _) => CommandError::being_imported(slot),
            (SlotState::InDoubt, _) => CommandError::in_doubt(slot),
            // It has changed in this very moment.
            (SlotState::Owned | SlotState::Leaving | SlotState::Frozen, _) => {
                CommandError::changing_hands(slot)
            }
        }
    }

    /// Why a command is refused now, whatever it is about.
    #[cold]
    pub fn gate_error(&self, command: &Command) -> Option<CommandError> {
        let flags = command.spec.flags;
        if self.gates.is_closed(Gate::Loading) && !flags.contains(Flags::LOADING) {
            return Some(CommandError::LOADING);
        }
        // Redis: PING as well, so that whoever watches over the server notices.
        let writes = flags.contains(Flags::WRITE) || command.spec.name == "ping";
        if writes && self.gates.is_closed(Gate::LogFailed) {
            let errno = self.log.errno().abs();
            return Some(CommandError::misconf_log(&std::io::Error::from_raw_os_error(errno)));
        }
        None
    }

    /// Acts on settings that somebody has changed.
    pub fn follow_config(&self) {
        match (self.config.appendonly(), self.log.is_wanted()) {
            (true, false) => self.log.wish(Wish::Begin),
            (false, true) => self.log.wish(Wish::End),
            _ => {}
        }
    }

    /// Takes note of how many commands and bytes there were since the last sample. Called about ten
    /// times a second by one core, and by whoever shows the rates.
    pub fn sample_rates(&self, now: Ms) {
        let commands = self.sum(|c| &c.commands_run);
        let in_bytes = self.sum(|c| &c.net_in_bytes);
        let out_bytes = self.sum(|c| &c.net_out_bytes);
        self.rates.sample(now, [commands, in_bytes, out_bytes]);
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

    /// From how many nanoseconds on a call is worth [`note_slow`](Self::note_slow): the lower of the
    /// slow log's threshold and that of the latency monitor; `u64::MAX` if both are off.
    #[inline]
    pub fn slow_ns(&self) -> u64 {
        self.slowlog_ns().min(self.delay_ns())
    }

    fn slowlog_ns(&self) -> u64 {
        let us = self.config.slowlog_slower_than_us();
        u64::try_from(us).map_or(u64::MAX, |us| us.saturating_mul(1000))
    }

    /// From how many nanoseconds on an event is worth [`note_delay`](Self::note_delay).
    #[inline]
    pub fn delay_ns(&self) -> u64 {
        match self.config.latency_monitor_threshold_ms() {
            0 => u64::MAX,
            ms => ms.saturating_mul(1_000_000),
        }
    }

    /// Takes note of a call that took [`slow_ns`](Self::slow_ns) or more, for the slow log and the
    /// latency monitor. The caller is the core of `client`.
    #[cold]
    pub fn note_slow(
        &self,
        command: &Command,
        args: &Args<'_>,
        ns: u64,
        now: Ms,
        client: &ClientState,
    ) {
        let flags = command.spec.flags;
        let event = if flags.contains(Flags::FAST) { Event::FastCommand } else { Event::Command };
        self.note_delay(event, ns, now);
        // Redis: EXEC is not logged, the calls in it are. Ours are not timed one by one.
        let is_logged = !flags.contains(Flags::SKIP_SLOWLOG) || command.spec.name == "exec";
        if is_logged && ns >= self.slowlog_ns() {
            let slow = Slow { at: now, us: ns / 1000, addr: &client.addr, name: &client.name };
            self.slowlog.push(client.core, slow, args, self.config.slowlog_max_len());
        }
    }

    /// Takes note of an event that took `ns`, if the latency monitor wants to know.
    pub fn note_delay(&self, event: Event, ns: u64, now: Ms) {
        if ns >= self.delay_ns() {
            self.delays.note(event, now, ns / 1_000_000);
        }
    }

    /// An id that no other client of this process has.
    pub fn new_client_id(&self) -> u64 {
        // Ordering: relaxed; only uniqueness counts.
        self.next_client_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The number that the next client will have.
    pub fn client_id_end(&self) -> u64 {
        self.next_client_id.load(Ordering::Relaxed)
    }

    /// A number for a call that waits.
    pub fn new_call_id(&self) -> u64 {
        // Ordering: relaxed; only uniqueness counts.
        self.next_call_id.fetch_add(1, Ordering::Relaxed)
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

    /// Takes note of what a shard holds, before its door is let go of: who holds the door is the only one
    /// who writes these gauges.
    #[inline]
    pub fn note_shard(&self, shard: &Shard) {
        let stats = self.core(shard.id.core());
        // A borrowed shard's gauges lie with its core: they are left alone if nothing has changed.
        if stats.data_bytes.get() != shard.data_bytes {
            stats.data_bytes.set(shard.data_bytes);
        }
        if self.config.maxmemory() > 0 {
            let is_volatile = self.config.maxmemory_policy().is_volatile();
            let dbs =
                shard.keys.dbs().map(|(_, db)| if is_volatile { db.expiring() } else { db.len() });
            stats.evictable_keys.set(dbs.sum::<usize>() as i64);
        }
    }

    /// Whether memory is over its limit, and what keys may go.
    pub fn must_evict(&self) -> bool {
        let limit = self.config.maxmemory();
        limit > 0
            && self.used_bytes() > limit
            && self.config.maxmemory_policy() != Policy::NoEviction
    }

    /// Takes note of what the allocator says: bytes in use, and resident.
    pub fn note_memory(&self, used_bytes: u64, resident_bytes: u64) {
        self.overhead_bytes
            .store((used_bytes as i64 - self.data_bytes()).max(0), Ordering::Relaxed);
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        self.used_peak_bytes.fetch_max(self.used_bytes(), Ordering::Relaxed);
    }
}
