//! One thread of the load generator: its connections, its readiness loop, its account.
//!
//! Owns everything it touches while a phase runs, shares nothing, allocates nothing per request
//! (the first error of each text excepted). Several phases may run one after another on the same
//! connections: each ends only when every reply has come.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::fault::Fault;
use crate::link::Stream;
use crate::pace::{Ledger, Schedule};
use crate::resp::{ERROR_BYTES_MAX, Reply, ReplySkipper};
use crate::workload::{DIGITS, Workload};

const READ_BUFFER_BYTES: usize = 1 << 16;
const EVENTS_MAX: usize = 1024;
/// Number of error texts told apart; further ones share one line.
const ERROR_TEXTS_MAX: usize = 32;
/// Longest latency told apart: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
const TIMER: Token = Token(usize::MAX);
/// Waits shorter than this are spent polling: arming a timer would take as long.
const SPIN_NS: u64 = 20_000;
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What a phase sends, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// Requests of this thread, all of which are sent unless `until_ns` comes first.
    pub(crate) requests: u64,
    /// Time after which nothing more is sent.
    pub(crate) until_ns: Option<u64>,
    /// Time between two requests of this thread, in an open loop.
    pub(crate) interval_ns: Option<f64>,
    /// Most unanswered requests of a connection.
    pub(crate) window: u64,
    /// The number that `__seq__` starts from.
    pub(crate) sequence: u64,
    /// Time without any reply after which the run fails.
    pub(crate) silence_ns_max: u64,
}

/// What someone beside the load does meanwhile: latencies of its stages are told apart, and it says
/// when the load is over.
#[derive(Debug)]
pub(crate) struct Stages {
    count: usize,
    current: AtomicUsize,
    over: AtomicBool,
}

impl Stages {
    /// So many stages, of which the first has begun.
    pub(crate) fn new(count: usize) -> Self {
        Self { count, current: AtomicUsize::new(0), over: AtomicBool::new(false) }
    }

    /// Counts the replies that come from now on to another stage.
    pub(crate) fn enter(&self, stage: usize) {
        // Ordering: a reply that comes at this very moment belongs to either.
        self.current.store(stage.min(self.count - 1), Ordering::Relaxed);
    }

    /// Ends the load.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// What a phase saw.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latency of every reply, in nanoseconds.
    pub(crate) latencies_ns: Histogram<u64>,
    /// The same by the stage in which the reply came, where there are stages.
    pub(crate) stages_ns: Vec<Histogram<u64>>,
    /// Replies of all kinds.
    pub(crate) replies: u64,
    /// Null replies.
    pub(crate) nulls: u64,
    /// Error texts and how often each came.
    pub(crate) errors: Vec<(String, u64)>,
    /// Bytes of requests.
    pub(crate) sent_bytes: u64,
    /// Bytes of replies.
    pub(crate) received_bytes: u64,
    /// Scheduled requests that never left, because the time was over first.
    pub(crate) unsent: u64,
    /// From the start of the phase to its last reply.
    pub(crate) elapsed_ns: u64,
}

impl Tally {
    /// A tally of nothing.
    pub(crate) fn new() -> Self {
        Self {
            latencies_ns: latencies(),
            stages_ns: Vec::new(),
            replies: 0,
            nulls: 0,
            errors: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
            unsent: 0,
            elapsed_ns: 0,
        }
    }

    /// Adds what another thread saw in the same phase.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latencies_ns += &other.latencies_ns;
        self.stages_ns.resize_with(self.stages_ns.len().max(other.stages_ns.len()), latencies);
        for (sum, stage) in self.stages_ns.iter_mut().zip(&other.stages_ns) {
            *sum += stage;
        }
        self.replies += other.replies;
        self.nulls += other.nulls;
        for (text, count) in &other.errors {
            self.note_error(text.as_bytes(), *count);
        }
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.unsent += other.unsent;
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
    }

    /// Counts an error under its text, with `*` for the numbers that this program filled in.
    fn note_error(&mut self, text: &[u8], count: u64) {
        let mut buffer = [0; ERROR_BYTES_MAX];
        let length = mask_numbers(text, &mut buffer);
        let text = &buffer[..length];
        if let Some((_, seen)) = self.errors.iter_mut().find(|(known, _)| known.as_bytes() == text)
        {
            *seen += count;
        } else if self.errors.len() < ERROR_TEXTS_MAX {
            self.errors.push((String::from_utf8_lossy(text).into_owned(), count));
        } else if let Some((last, seen)) = self.errors.last_mut() {
            *last = "(other errors)".into();
            *seen += count;
        }
    }
}

/// No latencies yet, in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
        .expect("1 <= low, 2 * low <= high, 3 digits: the bounds are valid")
}

/// Copies a text with each run of [`DIGITS`] digits or more as one `*`; returns its length.
fn mask_numbers(text: &[u8], out: &mut [u8; ERROR_BYTES_MAX]) -> usize {
    let (mut length, mut at) = (0, 0);
    while at < text.len() && length < out.len() {
        let run = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let masked = run >= DIGITS;
        out[length] = if masked { b'*' } else { text[at] };
        length += 1;
        at += if masked { run } else { 1 };
    }
    length
}

/// A stream in the readiness loop.
#[derive(Debug)]
enum Wire {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Wire {
    fn new(stream: Stream) -> io::Result<Self> {
        Ok(match stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Self::Tcp(mio::net::TcpStream::from_std(stream))
            }
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Self::Unix(mio::net::UnixStream::from_std(stream))
            }
        })
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => registry.register(stream, token, interest),
            Self::Unix(stream) => registry.register(stream, token, interest),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    out: Vec<u8>,
    /// How much of `out` is written; `out` is empty once all of it is.
    written: usize,
    skipper: ReplySkipper,
    ledger: Ledger,
}

/// The thread's side of the load.
pub(crate) struct Driver {
    poll: Poll,
    timer: OwnedFd,
    connections: Vec<Connection>,
    workload: Workload,
    buffer: Vec<u8>,
    clock: Instant,
    phase: Phase,
    tally: Tally,
    /// Requests of this phase that left, and those without a reply.
    issued: u64,
    unanswered: u64,
    stopped: bool,
    stages: Option<Arc<Stages>>,
    schedule: Option<Schedule>,
    /// The next request of the schedule whose connection was not yet woken for it.
    next_due: u64,
    timer_armed_for: Option<u64>,
}

impl Driver {
    /// A driver of connected streams.
    pub(crate) fn new(
        streams: Vec<Stream>,
        workload: Workload,
        phase: Phase,
        stages: Option<Arc<Stages>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let out_bytes = workload.request_bytes_max() * phase.window as usize;
        let mut connections = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            let mut wire = Wire::new(stream)?;
            wire.register(poll.registry(), Token(index))?;
            connections.push(Connection {
                wire,
                out: Vec::with_capacity(out_bytes),
                written: 0,
                skipper: ReplySkipper::new(),
                ledger: Ledger::closed(phase.window),
            });
        }
        Ok(Self {
            poll,
            timer,
            connections,
            workload,
            buffer: vec![0; READ_BUFFER_BYTES],
            clock: Instant::now(),
            phase,
            tally: Tally::new(),
            issued: 0,
            unanswered: 0,
            stopped: false,
            stages,
            schedule: None,
            next_due: 0,
            timer_armed_for: None,
        })
    }

    /// Runs one phase to its last reply and returns what it saw.
    ///
    /// # Errors
    /// A connection that breaks, bytes that are no reply, or a server that falls silent.
    pub(crate) fn run(&mut self, phase: Phase) -> Result<Tally, Fault> {
        self.begin(phase);
        let mut events = Events::with_capacity(EVENTS_MAX);
        let (mut heard_ns, mut heard_replies) = (0, 0);
        let mut due = None;
        for index in 0..self.connections.len() {
            self.pump(index, 0)?;
        }
        loop {
            let now_ns = self.now_ns();
            self.stopped |= self.phase.until_ns.is_some_and(|until_ns| now_ns >= until_ns);
            if !self.stopped && self.stages.as_ref().is_some_and(|s| s.over.load(Ordering::Relaxed))
            {
                self.stopped = true;
                due = self.schedule.map(|schedule| schedule.due(now_ns));
            }
            if self.unanswered == 0 && (self.stopped || self.issued >= self.requests()) {
                break;
            }
            if self.tally.replies != heard_replies || self.unanswered == 0 {
                (heard_ns, heard_replies) = (now_ns, self.tally.replies);
            } else if now_ns - heard_ns > self.phase.silence_ns_max {
                let seconds = self.phase.silence_ns_max / 1_000_000_000;
                return Err(Fault::failed(format!("no reply for {seconds} s")));
            }
            self.wake_due(now_ns)?;
            let timeout = self.timeout(now_ns)?;
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::failed(format!("cannot poll: {error}"))),
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.serve(event)?;
            }
        }
        let mut tally = std::mem::replace(&mut self.tally, Tally::new());
        tally.elapsed_ns = self.now_ns();
        let scheduled = due.or(self.schedule.map(|schedule| schedule.requests));
        tally.unsent = scheduled.map_or(0, |count| count - self.issued);
        for stage in &tally.stages_ns {
            tally.latencies_ns += stage;
        }
        Ok(tally)
    }

    fn begin(&mut self, phase: Phase) {
        let connections = self.connections.len() as u64;
        self.schedule = phase.interval_ns.map(|interval_ns| {
            let scheduled = phase.until_ns.map(|until_ns| until_ns as f64 / interval_ns);
            let requests = scheduled.map_or(u64::MAX, |count| count.ceil() as u64);
            Schedule { interval_ns, connections, requests: requests.min(phase.requests) }
        });
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.ledger = match self.schedule {
                None => Ledger::closed(phase.window),
                Some(schedule) => Ledger::open(index as u64, schedule, phase.window),
            };
        }
        let stage_count = self.stages.as_ref().map_or(0, |stages| stages.count);
        self.tally.stages_ns.resize_with(stage_count, latencies);
        self.workload.number_from(phase.sequence);
        self.phase = phase;
        self.issued = 0;
        self.unanswered = 0;
        self.stopped = false;
        self.next_due = 0;
        self.timer_armed_for = None;
        self.clock = Instant::now();
    }

    fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    fn requests(&self) -> u64 {
        self.schedule.map_or(self.phase.requests, |schedule| schedule.requests)
    }

    /// Lets the connections send whose turn has come in an open loop.
    fn wake_due(&mut self, now_ns: u64) -> Result<(), Fault> {
        let Some(schedule) = self.schedule else {
            return Ok(());
        };
        while self.next_due < schedule.requests && schedule.intended_ns(self.next_due) <= now_ns {
            self.pump((self.next_due % schedule.connections) as usize, now_ns)?;
            self.next_due += 1;
        }
        Ok(())
    }

    /// How long to sleep; in an open loop the timer wakes the poll, whose own clock is too coarse.
    fn timeout(&mut self, now_ns: u64) -> Result<Duration, Fault> {
        let left_ns = match self.phase.until_ns {
            Some(until_ns) if !self.stopped => until_ns - now_ns,
            _ => u64::MAX,
        };
        let timeout = WAIT_MAX.min(Duration::from_nanos(left_ns));
        let Some(schedule) = self.schedule else {
            return Ok(timeout);
        };
        if self.stopped || self.next_due >= schedule.requests {
            return Ok(timeout);
        }
        let wait_ns = schedule.intended_ns(self.next_due).saturating_sub(self.now_ns());
        if wait_ns < SPIN_NS {
            return Ok(Duration::ZERO);
        }
        if self.timer_armed_for != Some(self.next_due) {
            self.timer_armed_for = Some(self.next_due);
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: (wait_ns / 1_000_000_000) as i64,
                    tv_nsec: (wait_ns % 1_000_000_000) as i64,
                },
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
                .map_err(|error| Fault::failed(format!("cannot set the timer: {error}")))?;
        }
        Ok(timeout)
    }

    fn serve(&mut self, event: &Event) -> Result<(), Fault> {
        let index = event.token().0;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(index)?;
        } else if event.is_writable() && self.connections[index].written > 0 {
            self.flush(index)?;
            self.pump(index, self.now_ns())?;
        }
        Ok(())
    }

    /// Takes in what a connection has for us, then lets it send again.
    fn receive(&mut self, index: usize) -> Result<(), Fault> {
        let mut now_ns;
        loop {
            let connection = &mut self.connections[index];
            let read = connection.wire.read(&mut self.buffer);
            now_ns = self.clock.elapsed().as_nanos() as u64;
            let bytes = match read {
                Ok(0) => return Err(self.broken(index, "closed by the server")),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(index, &error.to_string())),
            };
            let (tally, mut replies) = (&mut self.tally, 0);
            let fed = connection.skipper.feed(&self.buffer[..bytes], |reply| {
                replies += 1;
                match reply {
                    Reply::Value => {}
                    Reply::Null => tally.nulls += 1,
                    Reply::Error(text) => tally.note_error(text, 1),
                }
            });
            fed.map_err(|malformed| Fault::failed(malformed.to_string()))?;
            tally.received_bytes += bytes as u64;
            tally.replies += replies;
            let latencies_ns = match &self.stages {
                None => &mut tally.latencies_ns,
                Some(stages) => &mut tally.stages_ns[stages.current.load(Ordering::Relaxed)],
            };
            connection.ledger.answered(now_ns, replies, latencies_ns).map_err(Fault::failed)?;
            self.unanswered -= replies;
            // A short read means that the socket is drained: the next edge will tell of more.
            if bytes < self.buffer.len() {
                break;
            }
        }
        self.pump(index, now_ns)
    }

    /// Sends as many requests on a connection as its account and the phase allow.
    fn pump(&mut self, index: usize, now_ns: u64) -> Result<(), Fault> {
        let requests_left = self.requests() - self.issued;
        let connection = &mut self.connections[index];
        if self.stopped || !connection.out.is_empty() {
            return Ok(());
        }
        let count = connection.ledger.room(now_ns).min(requests_left);
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            self.workload.append(&mut connection.out);
        }
        connection.ledger.sent(now_ns, count);
        self.tally.sent_bytes += connection.out.len() as u64;
        self.issued += count;
        self.unanswered += count;
        self.flush(index)
    }

    fn flush(&mut self, index: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[index];
        while connection.written < connection.out.len() {
            match connection.wire.write(&connection.out[connection.written..]) {
                Ok(bytes) => connection.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(index, &error.to_string())),
            }
        }
        connection.out.clear();
        connection.written = 0;
        Ok(())
    }

    fn broken(&self, index: usize, why: &str) -> Fault {
        let ledger = &self.connections[index].ledger;
        Fault::failed(format!(
            "connection {index} broke after {} requests, {} of them unanswered: {why}",
            ledger.sent_count(),
            ledger.unanswered(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_filled_in_numbers_are_one() {
        let mut tally = Tally::new();
        tally.note_error(b"ERR no key:000000000001", 1);
        tally.note_error(b"ERR no key:123456789012", 1);
        tally.note_error(b"MOVED 12 host:7000", 1);
        let want = [("ERR no key:*".to_owned(), 2), ("MOVED 12 host:7000".to_owned(), 1)];
        assert_eq!(tally.errors, want);
    }

    #[test]
    fn error_texts_are_bounded() {
        let mut tally = Tally::new();
        for number in 0..100 {
            tally.note_error(format!("ERR {number}").as_bytes(), 1);
        }
        assert_eq!(tally.errors.len(), ERROR_TEXTS_MAX);
        assert_eq!(tally.errors.iter().map(|(_, count)| count).sum::<u64>(), 100);
    }

    #[test]
    fn tallies_of_stages_add_up_stage_by_stage() {
        let (mut sum, mut other) = (Tally::new(), Tally::new());
        other.stages_ns.resize_with(2, latencies);
        other.stages_ns[1].saturating_record(5_000);
        sum.merge(&other);
        sum.merge(&other);
        let counts: Vec<u64> = sum.stages_ns.iter().map(Histogram::len).collect();
        assert_eq!(counts, [0, 2]);
    }

    #[test]
    fn tallies_add_up() {
        let (mut sum, mut other) = (Tally::new(), Tally::new());
        other.latencies_ns.saturating_record(5_000);
        (other.replies, other.elapsed_ns) = (1, 7);
        sum.merge(&other);
        sum.merge(&other);
        assert_eq!((sum.replies, sum.elapsed_ns, sum.latencies_ns.len()), (2, 7, 2));
    }
}
