//! Neighbours: polite clients that measure what others' misbehaviour costs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::process::Process;

/// Connections of a neighbour: enough to be dealt to every core.
const CONNECTION_COUNT: usize = 4;

/// A thread that sends PING, one at a time, in turn over its connections.
#[derive(Debug)]
pub(crate) struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// What a neighbour has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Calls.
    pub(crate) count: usize,
    /// The latency that half of them had at most.
    pub(crate) median: Duration,
    /// The longest.
    pub(crate) max: Duration,
}

impl Neighbour {
    /// Begins to measure; returns once the first round of calls has been answered.
    pub(crate) fn start(process: &Process) -> Self {
        let mut clients: Vec<_> = (0..CONNECTION_COUNT).map(|_| process.client()).collect();
        for client in &mut clients {
            assert_eq!(client.call("PING"), b"+PONG\r\n");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut latencies = Vec::new();
            while !flag.load(Ordering::Relaxed) {
                for client in &mut clients {
                    let sent = Instant::now();
                    assert_eq!(client.call("PING"), b"+PONG\r\n");
                    latencies.push(sent.elapsed());
                }
                // About a thousand rounds per second: it measures, it does not load.
                std::thread::park_timeout(Duration::from_millis(1));
            }
            latencies
        });
        Self { stop, thread }
    }

    /// Ends the measurement.
    pub(crate) fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies = self.thread.join().expect("the neighbour was answered every time");
        latencies.sort();
        Seen {
            count: latencies.len(),
            median: latencies[latencies.len() / 2],
            max: *latencies.last().expect("at least one call was answered"),
        }
    }
}

impl Seen {
    /// Whether a neighbour can live with that.
    pub(crate) fn judge(&self) -> Result<(), String> {
        if self.median < Duration::from_millis(5) && self.max < Duration::from_millis(250) {
            return Ok(());
        }
        Err(format!("a neighbour's PING: {self:?}; wanted median < 5 ms, max < 250 ms"))
    }
}
