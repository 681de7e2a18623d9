//! Starting and stopping the cores: each is a glommio executor pinned to a processor, whose first
//! task is the turn.
//!
//! The turn sleeps in its own ring, not in glommio's, and hands glommio a pass from time to time for
//! the tasks that are on nobody's hot path.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use crate::commands::table::table;
use crate::config::Config;
use crate::gates::Gate;
use crate::migrate::disk;
use crate::node::Node;
use crate::runtime::clock::Clock;
use crate::runtime::peers::{Peers, Seat};
use crate::runtime::replay;
use crate::runtime::ring::Ring;
use crate::runtime::tenant::Maker;
use crate::runtime::turn::{Core, Listener};
use crate::store::keyspace::seed_hash;
use crate::units::CoreId;

/// How often glommio gets a pass.
const PASS_EVERY_NS: u64 = 100_000_000;

/// Longest time for which glommio can forget that a task could run.
const HEARTBEAT: Duration = Duration::from_millis(10);

/// What a process starts with.
pub struct Options {
    /// Settings.
    pub config: Config,
    /// Processors to pin to, one per core.
    pub cores: Vec<usize>,
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    /// Seed of hashes and of chance.
    pub seed: u64,
    /// 40 hexadecimal digits that name this run.
    pub run_id: String,
    /// What shares the cores with the server: a part for each, or none at all.
    pub tenants: Vec<Maker>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("cores", &self.cores).finish_non_exhaustive()
    }
}

/// Why the cores do not start.
#[derive(Debug)]
pub enum StartError {
    /// The kernel refuses a ring.
    Ring(std::io::Error),
    /// What this server knew of its cluster cannot be used, or kept.
    Cluster(String),
    /// No thread can be started.
    Thread(std::io::Error),
    /// An executor does not start.
    Executor {
        /// The processor it was to be pinned to.
        cpu: usize,
        /// What glommio says.
        reason: String,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(error) => f.write_str(error),
            Self::Thread(error) => write!(f, "no thread can be started: {error}"),
            Self::Ring(error) => write!(f, "cannot create an io_uring ring: {error}"),
            Self::Executor { cpu, reason } => {
                write!(f, "cannot start a core on processor {cpu}: {reason}")
            }
        }
    }
}

impl std::error::Error for StartError {}

/// The running cores.
#[derive(Debug)]
pub struct Running {
    node: &'static Node,
    peers: &'static Peers,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Starts the cores.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub fn start(options: Options) -> Result<Running, StartError> {
    seed_hash(options.seed);
    // One ring for a moment: what is refused is refused here, before any thread exists.
    drop(Ring::new().map_err(StartError::Ring)?);
    let clock = Clock::new();
    let count = options.cores.len();
    // The process's own state lives as long as the process.
    let node: &'static Node = Box::leak(Box::new(Node::new(
        options.config,
        count,
        table().id_count(),
        clock.now(),
        options.run_id,
    )));
    let dir = node.config.dir();
    disk::load(&dir, &node.cluster).map_err(StartError::Cluster)?;
    node.open_slots();
    let (peers, mut seats) = Peers::new(node, &options.cores, options.seed);
    let peers: &'static Peers = Box::leak(Box::new(peers));
    start_log(peers, &mut seats, options.seed).map_err(StartError::Thread)?;
    let saver = std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
        disk::keep_saving(&dir, &node.cluster, || ring_all(peers));
    });
    let saver = saver.map_err(StartError::Thread)?;
    node.cluster.set_saver(saver.thread().clone());
    let mut listeners = Some(options.listeners);
    let mut threads = Vec::with_capacity(count);
    let mut tenants = options.tenants.into_iter();
    for (seat, &cpu) in seats.into_iter().zip(&options.cores) {
        let tenant = tenants.next();
        let listeners = listeners.take().unwrap_or_default();
        let name = format!("core-{}", seat.id.0);
        let spawned = std::thread::Builder::new()
            .name(name)
            .spawn(move || run_core(seat, peers, listeners, cpu, tenant))
            .map_err(|e| StartError::Executor { cpu, reason: e.to_string() });
        threads.push(spawned?);
    }
    Ok(Running { node, peers, threads })
}

/// Starts the threads of the append log: one that keeps its files in order, and one that loads it, if
/// it is on. Clients have to wait until that is done.
fn start_log(peers: &'static Peers, seats: &mut [Seat], seed: u64) -> std::io::Result<()> {
    let node = peers.node;
    let place = node.config.log_place();
    node.log.set_place(place.clone());
    let now = || Clock::new().now();
    let number = replay::numbers(seed ^ now().0 as u64);
    let keeper = std::thread::Builder::new().name("log".to_owned());
    let keeper = keeper.spawn(move || replay::keep(node, now, number, || ring_all(peers)))?;
    node.log.set_keeper(keeper.thread().clone());
    if node.config.appendonly() {
        node.gates.set(Gate::Loading, true);
        let (feeds, parts) = replay::feeds(seats.len());
        seats.iter_mut().zip(parts).for_each(|(seat, part)| seat.replay = part);
        let number = replay::numbers(seed ^ !(now().0 as u64));
        let loader = std::thread::Builder::new().name("load".to_owned());
        loader.spawn(move || {
            if !replay::load(node, &place, feeds, now, number) {
                peers.stop.store(true, Ordering::Relaxed);
                ring_all(peers);
            }
        })?;
    }
    Ok(())
}

fn run_core(
    seat: Seat,
    peers: &'static Peers,
    listeners: Vec<Listener>,
    cpu: usize,
    tenant: Option<Maker>,
) {
    let id = seat.id;
    let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name("core")
        .io_memory(64 << 10)
        .preempt_timer(Duration::from_millis(10))
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make();
    let result = match executor {
        Ok(executor) => executor.run(run_turns(seat, peers, listeners, tenant)),
        Err(error) => Err(std::io::Error::other(error.to_string())),
    };
    if let Err(error) = result {
        tracing::error!(core = id.0, %error, "a core cannot go on: the process ends");
        // Without one of its cores the process would answer for some keys only.
        std::process::exit(1);
    }
}

thread_local! {
    /// The ring by which a thread that is no core wakes cores: made once, it may be needed often.
    static BELL_RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
}

/// Wakes every core, from a thread that is none.
fn ring_all(peers: &Peers) {
    BELL_RING.with_borrow_mut(|slot| {
        if slot.is_none() {
            // Without it cores look by themselves, later.
            *slot = Ring::new().ok();
        }
        let Some(ring) = slot else { return };
        for core in 0..peers.core_count() {
            if let Some(fd) = peers.doorbell(CoreId(core as u16)) {
                ring.ring_doorbell(fd);
            }
        }
        // What came of it is of no interest, and must not fill the ring.
        let _ = ring.submit(0, Duration::ZERO);
        ring.reap(&mut Vec::new());
    });
}

async fn run_turns(
    seat: Seat,
    peers: &'static Peers,
    listeners: Vec<Listener>,
    tenant: Option<Maker>,
) -> std::io::Result<()> {
    let mut core = Core::new(seat, peers, listeners)?;
    if let Some(maker) = tenant {
        core.house(maker());
    }
    core.start();
    let clock = Clock::new();
    // glommio 0.9.0 sometimes parks although a task could run: when the thread loses its processor for
    // long enough at the wrong moment. A timer that is always pending wakes it then. Otherwise it costs
    // nothing: it is looked at when glommio has a pass anyway.
    glommio::spawn_local(async {
        loop {
            glommio::timer::sleep(HEARTBEAT).await;
        }
    })
    .detach();
    let mut passed = clock.ticks();
    while core.turn()? {
        let now = clock.ticks();
        if clock.ns_between(passed, now) >= PASS_EVERY_NS {
            passed = now;
            // The shortest timer: glommio polls everything it has once, and comes back.
            glommio::timer::sleep(Duration::from_micros(1)).await;
        }
    }
    Ok(())
}

impl Running {
    /// The process as its cores see it.
    pub fn node(&self) -> &'static Node {
        self.node
    }

    /// Asks the cores to stop: no new connections, what was read is answered.
    pub fn stop(&self) {
        self.peers.stop.store(true, Ordering::Relaxed);
        // Cores look at this at least every 100 ms; a doorbell makes it now.
        ring_all(self.peers);
    }

    /// Whether all cores have stopped.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(std::thread::JoinHandle::is_finished)
    }

    /// Waits until all cores have stopped.
    ///
    /// # Errors
    /// Why the data could not be loaded.
    pub fn join(self) -> Result<(), String> {
        let node = self.node;
        for thread in self.threads {
            // A core that panicked has said so on the way.
            let _ = thread.join();
        }
        node.log.failure().map_or(Ok(()), |why| Err(why.to_owned()))
    }
}
