//! When a connection may send, and from which instant each of its replies is timed.
//!
//! Times are nanoseconds since the start of the phase and come from the caller, so tests pass their
//! own. Nothing is queued: an open schedule is a formula of the request's number, and replies come
//! in the order of requests.

use hdrhistogram::Histogram;

/// The send times of one thread at a constant rate. Request `i` belongs to connection `i % C`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Time between two requests of the thread.
    pub(crate) interval_ns: f64,
    /// Connections of the thread.
    pub(crate) connections: u64,
    /// Requests of the thread.
    pub(crate) requests: u64,
}

impl Schedule {
    /// When request number `index` of the thread is meant to leave.
    pub(crate) fn intended_ns(&self, index: u64) -> u64 {
        (index as f64 * self.interval_ns) as u64
    }

    /// Number of the thread's requests meant to leave by `now_ns`.
    pub(crate) fn due(&self, now_ns: u64) -> u64 {
        let mut due = (now_ns as f64 / self.interval_ns) as u64;
        // The quotient is rounded otherwise than the product; the formula of the instant decides.
        while self.intended_ns(due) <= now_ns {
            due += 1;
        }
        due.min(self.requests)
    }

    /// Number of requests of connection `connection` among the first `count` of the thread.
    fn share(&self, connection: u64, count: u64) -> u64 {
        (count + self.connections - 1).saturating_sub(connection) / self.connections
    }
}

/// The account of one connection: what it sent, what came back, and how late.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// The connection's number in its thread, and the schedule, in an open loop.
    open: Option<(u64, Schedule)>,
    window: u64,
    sent: u64,
    answered: u64,
    batch_sent_ns: u64,
}

impl Ledger {
    /// The account of a closed loop: `window` requests leave together, and the next ones when all
    /// of them are answered. Each is timed from the moment it left.
    pub(crate) fn closed(window: u64) -> Self {
        Self { open: None, window, sent: 0, answered: 0, batch_sent_ns: 0 }
    }

    /// The account of an open loop with at most `window` unanswered requests. Each is timed from
    /// the moment it was *meant* to leave, so a server that holds the connection up pays for
    /// all requests that had to wait behind it (no coordinated omission).
    pub(crate) fn open(connection: u64, schedule: Schedule, window: u64) -> Self {
        Self { open: Some((connection, schedule)), ..Self::closed(window) }
    }

    /// Number of requests that may leave now.
    pub(crate) fn room(&self, now_ns: u64) -> u64 {
        let unanswered = self.unanswered();
        match self.open {
            None => {
                if unanswered == 0 {
                    self.window
                } else {
                    0
                }
            }
            Some((connection, schedule)) => {
                let due = schedule.share(connection, schedule.due(now_ns));
                due.saturating_sub(self.sent).min(self.window - unanswered)
            }
        }
    }

    /// Records that `count` requests left.
    pub(crate) fn sent(&mut self, now_ns: u64, count: u64) {
        self.sent += count;
        self.batch_sent_ns = now_ns;
    }

    /// Records that the next `count` replies came, and their latencies.
    ///
    /// # Errors
    /// More replies than requests.
    pub(crate) fn answered(
        &mut self,
        now_ns: u64,
        count: u64,
        latencies_ns: &mut Histogram<u64>,
    ) -> Result<(), String> {
        if count > self.unanswered() {
            return Err("the server sent a reply that nothing asked for".into());
        }
        match self.open {
            None => {
                latencies_ns.saturating_record_n(now_ns.saturating_sub(self.batch_sent_ns), count);
            }
            Some((connection, schedule)) => {
                for number in self.answered..self.answered + count {
                    let index = number * schedule.connections + connection;
                    let intended_ns = schedule.intended_ns(index);
                    latencies_ns.saturating_record(now_ns.saturating_sub(intended_ns));
                }
            }
        }
        self.answered += count;
        Ok(())
    }

    /// Number of requests that wait for their reply.
    pub(crate) fn unanswered(&self) -> u64 {
        self.sent - self.answered
    }

    /// Number of requests that left.
    pub(crate) fn sent_count(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
    }

    /// One connection at one request a millisecond.
    fn schedule(connections: u64, requests: u64) -> Schedule {
        Schedule { interval_ns: MS as f64, connections, requests }
    }

    #[test]
    fn closed_loop_sends_batches_and_times_them_from_their_departure() {
        let (mut ledger, mut seen) = (Ledger::closed(4), histogram());
        assert_eq!(ledger.room(0), 4);
        ledger.sent(10 * MS, 4);
        assert_eq!(ledger.room(11 * MS), 0);
        ledger.answered(12 * MS, 3, &mut seen).unwrap();
        assert_eq!(ledger.room(12 * MS), 0);
        ledger.answered(15 * MS, 1, &mut seen).unwrap();
        assert_eq!(ledger.room(15 * MS), 4);
        assert_eq!(seen.len(), 4);
        assert!(seen.equivalent(seen.value_at_quantile(0.75), 2 * MS));
        assert!(seen.equivalent(seen.max(), 5 * MS));
    }

    #[test]
    fn open_loop_stalled_server_pays_for_every_request_behind_it() {
        let (mut ledger, mut seen) = (Ledger::open(0, schedule(1, 1000), 1), histogram());
        assert_eq!(ledger.room(0), 1);
        ledger.sent(0, 1);
        // The reply takes 100 ms; 100 further requests were meant to leave meanwhile.
        assert_eq!(ledger.room(50 * MS), 0);
        let mut now_ns = 100 * MS;
        ledger.answered(now_ns, 1, &mut seen).unwrap();
        // From then on the server answers in 10 us, so the backlog melts.
        while ledger.room(now_ns) > 0 {
            ledger.sent(now_ns, 1);
            now_ns += MS / 100;
            ledger.answered(now_ns, 1, &mut seen).unwrap();
        }
        assert_eq!(seen.len(), 102);
        // A closed loop would have seen one slow request in 102; here half took over 49 ms.
        let median = seen.value_at_quantile(0.5);
        assert!((48 * MS..53 * MS).contains(&median), "{median}");
        assert!(seen.equivalent(seen.max(), 100 * MS));
    }

    #[test]
    fn open_loop_window_bounds_the_unanswered() {
        let mut ledger = Ledger::open(0, schedule(1, 1000), 8);
        assert_eq!(ledger.room(100 * MS), 8);
        ledger.sent(100 * MS, 8);
        assert_eq!(ledger.room(200 * MS), 0);
        ledger.answered(200 * MS, 3, &mut histogram()).unwrap();
        assert_eq!(ledger.room(200 * MS), 3);
    }

    #[test]
    fn open_loop_connections_share_the_schedule_exactly() {
        for (connections, requests) in [(1, 10), (3, 10), (4, 8), (7, 3)] {
            let schedule = schedule(connections, requests);
            let room = |now_ns| {
                (0..connections)
                    .map(|c| Ledger::open(c, schedule, u64::MAX).room(now_ns))
                    .sum::<u64>()
            };
            for step in 0..20 {
                assert_eq!(room(step * MS), (step + 1).min(requests));
                assert_eq!(room(step * MS + MS - 1), (step + 1).min(requests));
            }
        }
    }

    #[test]
    fn due_agrees_with_intended_at_odd_rates() {
        let schedule = Schedule { interval_ns: 1e9 / 333_333.0, connections: 1, requests: 1 << 40 };
        for index in (0..10_000_000).step_by(9973) {
            let at = schedule.intended_ns(index);
            assert!(schedule.due(at) > index);
            assert!(at == 0 || schedule.due(at - 1) <= index);
        }
    }

    #[test]
    fn surplus_reply_is_refused() {
        assert!(Ledger::closed(1).answered(0, 1, &mut histogram()).is_err());
    }
}
