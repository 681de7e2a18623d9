//! A load from several threads: connecting, warming up, measuring, adding up.
//!
//! Connections are made before any thread starts, so that a server that refuses them is reported
//! at once; the threads then meet at barriers between the phases.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::drive::{Driver, Phase, Stages, Tally};
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
    /// Latencies are told apart by these, and the load ends with them. Not with a warm-up.
    pub(crate) stages: Option<Arc<Stages>>,
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
            stages: None,
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
        Driver::new(streams, workload, self.phase(thread), self.stages.clone())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    /// Answers every PING on one connection, and counts them.
    fn pong(listener: &TcpListener, count: &AtomicUsize) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            let calls = buffer[..bytes].iter().filter(|&&byte| byte == b'*').count();
            if stream.write_all("+PONG\r\n".repeat(calls).as_bytes()).is_err() {
                return;
            }
            count.fetch_add(calls, Ordering::SeqCst);
        }
    }

    #[test]
    fn load_with_stages_tells_them_apart_and_ends_with_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (count, stages) = (AtomicUsize::new(0), Arc::new(Stages::new(2)));
        let plan = Plan {
            pipeline: 10,
            limit: Limit::Duration(Duration::from_secs(600)),
            rate: Some(2000.0),
            stages: Some(Arc::clone(&stages)),
            ..Plan::new(Target::loopback(port), WorkloadSpec::uniform("PING", 1, 0), 1)
        };
        let begun = Instant::now();
        let reached = |wanted: usize| {
            while count.load(Ordering::SeqCst) < wanted && begun.elapsed().as_secs() < 60 {
                std::thread::yield_now();
            }
        };
        let tally = std::thread::scope(|scope| {
            scope.spawn(|| pong(&listener, &count));
            scope.spawn(|| {
                reached(50);
                stages.enter(1);
                reached(100);
                stages.end();
            });
            run(&plan, || ()).unwrap().0
        });
        let counts: Vec<u64> = tally.stages_ns.iter().map(hdrhistogram::Histogram::len).collect();
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        assert_eq!(counts.iter().sum::<u64>(), tally.replies);
        assert_eq!(tally.latencies_ns.len(), tally.replies);
        // What the next ten minutes would have sent is not missing.
        assert!(tally.unsent < 100_000, "{}", tally.unsent);
    }
}
