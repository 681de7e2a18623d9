//! What the cores of a proxy share: settings, the map, the lease, counters that each core writes for
//! itself, and a letter box per core through which others have something done there.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixStream;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cordis_engine::metrics::histogram::Histogram;
use cordis_engine::metrics::{Cell, Gauge};
use cordis_engine::node::Node;
use cordis_engine::runtime::clock::Clock;
use cordis_engine::slots::map::ClusterMap;

use crate::hub::Hub;
use crate::settings::Settings;

/// Something to be done on a core, in one of its turns.
pub type Letter = Box<dyn FnOnce(&mut Hub) + Send>;

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Calls answered.
    pub calls: Cell,
    /// Calls that this proxy answered with an error of its own.
    pub failed: Cell,
    /// From a request's arrival to its reply.
    pub time: Histogram,
}

/// Counters of one core.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// Sessions.
    pub sessions: Gauge,
    /// Sessions there have ever been.
    pub connections: Cell,
    /// Connections that were refused.
    pub rejected_connections: Cell,
    /// Requests answered.
    pub calls: Cell,
    /// Those of them that ran in the server that hosts this proxy, without coming here.
    pub local: Cell,
    /// Requests answered with an error of the proxy's own.
    pub failed: Cell,
    /// Requests that a server refused and that were sent again.
    pub redirected: Cell,
    /// Bytes from clients.
    pub net_in_bytes: Cell,
    /// Bytes to clients.
    pub net_out_bytes: Cell,
    /// Links that were lost.
    pub links_lost: Cell,
    /// Requests that wait for their slots.
    pub held: Gauge,
    /// Turns.
    pub turns: Cell,
    /// By command id.
    pub commands: Vec<CommandStats>,
}

/// The place of one core.
#[derive(Debug)]
pub struct CoreSeat {
    /// Its counters.
    pub stats: CoreStats,
    /// The epoch of the map that it has adopted, once it has let go of the routes before.
    applied_epoch: AtomicU64,
    letters: Sender<Letter>,
    waker: UnixStream,
    /// Somebody has rung already.
    rung: AtomicBool,
}

/// What a core takes with it to its thread.
#[derive(Debug)]
pub struct Mailbox {
    pub(crate) letters: Receiver<Letter>,
    pub(crate) wake: UnixStream,
}

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub settings: Settings,
    /// What the engine's handlers know of the process: settings as clients ask for them, slow calls.
    pub node: &'static Node,
    /// The last map.
    map: ArcSwap<ClusterMap>,
    /// The cores.
    pub cores: Vec<CoreSeat>,
    /// When the process began, for the clock that never jumps.
    started: (Clock, u64),
    /// The time, by [`clock_ms`](Self::clock_ms), until which the lease runs.
    lease_until_ms: AtomicI64,
    stop: AtomicBool,
    next_client_id: AtomicU64,
    sessions: AtomicI64,
    /// Servers that do not tell this proxy what servers tell each other.
    distrustful: Mutex<BTreeSet<String>>,
}

impl Shared {
    /// State for `core_count` cores, and what each of them takes along.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new(
        settings: Settings,
        core_count: usize,
        command_count: usize,
    ) -> std::io::Result<(Arc<Self>, Vec<Mailbox>)> {
        let mut cores = Vec::new();
        let mut mailboxes = Vec::new();
        for _ in 0..core_count {
            let (letters, receiver) = channel();
            let (waker, wake) = UnixStream::pair()?;
            waker.set_nonblocking(true)?;
            let commands = (0..command_count).map(|_| CommandStats::default()).collect();
            cores.push(CoreSeat {
                stats: CoreStats { commands, ..CoreStats::default() },
                applied_epoch: AtomicU64::new(0),
                letters,
                waker,
                rung: AtomicBool::new(false),
            });
            mailboxes.push(Mailbox { letters: receiver, wake });
        }
        let map = ArcSwap::from_pointee(ClusterMap::offline(&settings.product_name));
        // It lives as long as the process.
        let node = Box::leak(Box::new(crate::local::node(&settings, core_count)?));
        let clock = Clock::new();
        let started = (clock.clone(), clock.ticks());
        let shared = Self {
            settings,
            node,
            map,
            cores,
            started,
            lease_until_ms: AtomicI64::new(0),
            stop: AtomicBool::new(false),
            next_client_id: AtomicU64::new(1),
            sessions: AtomicI64::new(0),
            distrustful: Mutex::default(),
        };
        Ok((Arc::new(shared), mailboxes))
    }

    /// Whether no core has told before that this server does not trust the proxy.
    pub(crate) fn is_first_distrust(&self, addr: &str) -> bool {
        let mut known = self.distrustful.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(addr.to_owned())
    }

    /// Has something done on a core, in its next turn.
    pub fn run_on(&self, core: usize, letter: Letter) {
        let seat = &self.cores[core];
        // A core that has ended reads nothing any more.
        if seat.letters.send(letter).is_err() {
            return;
        }
        // Ordering: sequentially consistent with the reader's reset, which comes before it reads.
        if !seat.rung.swap(true, Ordering::SeqCst) {
            // A full pipe has enough to wake it.
            let _ = (&seat.waker).write(&[1]);
        }
    }

    /// Called by a core before it reads its letters.
    pub(crate) fn answer_ring(&self, core: usize) {
        self.cores[core].rung.store(false, Ordering::SeqCst);
    }

    /// The last map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.load_full()
    }

    /// Gives all cores a map, which must be whole. An older one than the last is not taken.
    pub fn set_map(&self, map: Arc<ClusterMap>) -> bool {
        if map.epoch < self.map.load().epoch {
            return false;
        }
        self.map.store(Arc::clone(&map));
        for core in 0..self.cores.len() {
            let map = Arc::clone(&map);
            self.run_on(core, Box::new(move |hub| hub.adopt_map(&map)));
        }
        true
    }

    /// The epoch that every core has adopted, having let go of what an older map had put under way
    /// with servers that cannot refuse requests.
    pub fn applied_epoch(&self) -> u64 {
        let epochs = self.cores.iter().map(|seat| seat.applied_epoch.load(Ordering::Acquire));
        epochs.min().unwrap_or(0)
    }

    pub(crate) fn note_applied(&self, core: usize, epoch: u64) {
        // Ordering: release, paired with the load above.
        self.cores[core].applied_epoch.store(epoch, Ordering::Release);
    }

    /// Milliseconds since the process began: the clock of leases, which no change of the wall clock
    /// moves.
    pub fn clock_ms(&self) -> i64 {
        let (clock, began) = &self.started;
        (clock.ns_between(*began, clock.ticks()) / 1_000_000) as i64
    }

    /// Lets the lease run until this time of [`clock_ms`](Self::clock_ms). It is never shortened.
    pub fn renew_lease(&self, until_ms: i64) {
        self.lease_until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// Until when the lease runs.
    pub fn lease_until_ms(&self) -> i64 {
        self.lease_until_ms.load(Ordering::Acquire)
    }

    /// Ends all cores: what was received is answered first.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for core in 0..self.cores.len() {
            self.run_on(core, Box::new(|_| {}));
        }
    }

    /// Whether the cores are to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// A number for a new client.
    pub fn new_client_id(&self) -> u64 {
        self.next_client_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a place for a session; `false` if there is none left.
    pub(crate) fn take_place(&self) -> bool {
        let taken = self.sessions.fetch_add(1, Ordering::AcqRel);
        let is_free = taken < self.settings.proxy_max_clients as i64;
        if !is_free {
            self.sessions.fetch_sub(1, Ordering::AcqRel);
        }
        is_free
    }

    pub(crate) fn give_place_back(&self) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
    }

    /// Sessions of all cores.
    pub fn session_count(&self) -> i64 {
        self.sessions.load(Ordering::Acquire)
    }
}
