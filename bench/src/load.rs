//! A load from several threads: connecting, warming up, measuring, adding up.
//!
//! Connections are made before any thread starts, so that a server that refuses them is reported
//! at once; the threads then meet at barriers between the phases.

use std::sync::Barrier;
use std::time::Duration;

use crate::drive::{Driver, Phase, Tally};
use crate::fault::Fault;
use crate::link::{Link, Target};
use crate::process::pin_this_thread;
use crate::workload::{Workload, WorkloadSpec};

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// After this many requests.
    Requests(u64),
    /// After this time.
    Duration(Duration),
}

/// A load to be run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The server.
    pub(crate) target: Target,
    /// What is sent.
    pub(crate) workload: WorkloadSpec,
    /// Connections over all threads.
    pub(crate) clients: usize,
    /// Requests sent together on a connection; in an open loop, the most unanswered ones.
    pub(crate) pipeline: u64,
    /// Threads.
    pub(crate) threads: usize,
    /// Processors to pin the threads to, in turn; empty for none.
    pub(crate) cpus: Vec<usize>,
    /// The end.
    pub(crate) limit: Limit,
    /// Requests per second over all threads, which makes the loop open.
    pub(crate) rate: Option<f64>,
    /// Time of load that is not counted.
    pub(crate) warmup: Duration,
}

impl Plan {
    /// One thread and a closed loop without warm-up.
    pub(crate) fn new(target: Target, workload: WorkloadSpec, requests: u64) -> Self {
        Self {
            target,
            workload,
            clients: 1,
            pipeline: 1,
            threads: 1,
            cpus: Vec::new(),
            limit: Limit::Requests(requests),
            rate: None,
            warmup: Duration::ZERO,
        }
    }

    /// The measured phase of one thread.
    fn phase(&self, thread: usize) -> Phase {
        let share = |total: u64, thread: usize| {
            total / self.threads as u64 + u64::from((thread as u64) < total % self.threads as u64)
        };
        let (requests, until_ns, sequence) = match self.limit {
            Limit::Requests(total) => {
                (share(total, thread), None, (0..thread).map(|before| share(total, before)).sum())
            }
            Limit::Duration(time) => {
                (u64::MAX, Some(time.as_nanos() as u64), thread as u64 * 1_000_000_000)
            }
        };
        Phase {
            requests,
            until_ns,
            interval_ns: self.rate.map(|rate| 1e9 * self.threads as f64 / rate),
            window: self.pipeline,
            sequence,
            silence_ns_max: self.target.timeout.as_nanos() as u64,
        }
    }

    fn warmup_phase(&self, thread: usize) -> Phase {
        let until_ns = Some(self.warmup.as_nanos() as u64);
        Phase { requests: u64::MAX, until_ns, ..self.phase(thread) }
    }

    fn driver(&self, thread: usize) -> Result<Driver, Fault> {
        let share = self.clients / self.threads;
        let clients = share + usize::from(thread < self.clients % self.threads);
        let mut streams = Vec::with_capacity(clients);
        for _ in 0..clients {
            streams.push(Link::open(&self.target)?.into_stream());
        }
        let workload = Workload::new(&self.workload, thread).map_err(Fault::usage)?;
        Driver::new(streams, workload, self.phase(thread))
            .map_err(|error| Fault::failed(format!("cannot set up the readiness loop: {error}")))
    }
}

/// Runs a load. `read` is called right before the measured phase and right after it, with all
/// connections open and quiet; its two results come back with the tally.
///
/// # Errors
/// A server that cannot be reached, breaks a connection or falls silent.
pub(crate) fn run<T>(plan: &Plan, mut read: impl FnMut() -> T) -> Result<(Tally, T, T), Fault> {
    let drivers: Vec<Driver> =
        (0..plan.threads).map(|thread| plan.driver(thread)).collect::<Result<_, _>>()?;
    let barrier = Barrier::new(plan.threads + 1);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (thread, mut driver) in drivers.into_iter().enumerate() {
            let barrier = &barrier;
            threads.push(scope.spawn(move || {
                let prepared = prepare(plan, thread, &mut driver);
                barrier.wait();
                barrier.wait();
                let result = prepared.and_then(|()| driver.run(plan.phase(thread)));
                // The driver goes back too: its connections stay open until the second reading.
                (driver, result)
            }));
        }
        barrier.wait();
        let before = read();
        barrier.wait();
        let mut finished = Vec::new();
        for thread in threads {
            let result = thread.join();
            finished.push(result.map_err(|_| Fault::failed("a load thread panicked"))?);
        }
        let after = read();
        let mut sum = Tally::new();
        for (_, result) in finished {
            sum.merge(&result?);
        }
        Ok((sum, before, after))
    })
}

fn prepare(plan: &Plan, thread: usize, driver: &mut Driver) -> Result<(), Fault> {
    if !plan.cpus.is_empty() {
        pin_this_thread(&[plan.cpus[thread % plan.cpus.len()]])?;
    }
    if !plan.warmup.is_zero() {
        driver.run(plan.warmup_phase(thread))?;
    }
    Ok(())
}
