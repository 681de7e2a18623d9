//! What is written to a core's file, when, and what is on disk: without I/O, so that tests can be the
//! disk. The core's shell (`runtime/append.rs`) carries the operations out.
//!
//! - `always`: each write is linked to a flush of its own; some may be under way. The file is laid out
//!   ahead with zero bytes, so that a flush need not write what the file system says of it.
//! - `everysec`: one write at a time, and a flush each second.
//! - `no`: one write at a time; the file is flushed when it is closed.
//!
//! A write that fails (a full disk) is tried again: first the file is cut to where it was right, then
//! all that was under way is written anew, the same bytes to the same place. A flush that fails is
//! final: what the kernel held may be gone and nobody can say what, so nothing is written any more.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::journal::frame;
use crate::journal::tape::{Piece, Tape};
use crate::persist::files::{HEADER_BYTES, LogFile};
use crate::units::Ms;

/// Writes with their flushes that may be under way at once.
const FLIGHTS_MAX: usize = 2;
/// Zero bytes that are laid out ahead at once.
const LAYOUT_BYTES: u64 = 1 << 20;
/// How often what is written is flushed.
const SYNC_EVERY_MS: i64 = 1_000;
/// A flush that takes longer delays replies to writes.
const SYNC_LATE_MS: i64 = 2_000;
/// How long after a failure it is tried again.
const RETRY_AFTER_MS: i64 = 100;
/// Bytes that are made for one write of what is recorded bit by bit.
const MADE_BYTES: usize = 256 * 1024;
/// `ECANCELED`: a flush whose write has failed.
const CANCELLED: i32 = 125;

/// `appendfsync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Each second.
    EverySecond,
    /// Before the reply to a write leaves.
    Always,
    /// When the kernel likes.
    Never,
}

/// Something to be done; [`Writer::wrote`] and [`Writer::flushed`] want to hear of it.
#[derive(Debug)]
pub enum Op {
    /// Write these bytes.
    Write {
        /// Number of the operation.
        id: u64,
        /// To this file.
        file: Arc<LogFile>,
        /// At this offset.
        at: u64,
        /// The bytes; they come back.
        bytes: Vec<u8>,
        /// Flush when they are written.
        flush: bool,
    },
    /// Flush what was written.
    Flush {
        /// Number of the operation.
        id: u64,
        /// This file.
        file: Arc<LogFile>,
    },
}

/// Whether the log takes what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// It does.
    #[default]
    Good,
    /// It does not, for this errno; it is tried again.
    Failing(i32),
    /// It never will: a flush has failed with this errno.
    Dead(i32),
}

/// The flush that belongs to a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OwnFlush {
    /// There is none, or it was not done because the write had failed.
    None,
    Pending,
    Done,
}

#[derive(Debug)]
struct Flight {
    id: u64,
    at: u64,
    len: u64,
    last: u64,
    /// The bytes, once they have come back from the write.
    bytes: Option<Vec<u8>>,
    is_written: bool,
    flush: OwnFlush,
}

impl Flight {
    fn is_back(&self) -> bool {
        self.bytes.is_some() && self.flush != OwnFlush::Pending
    }
}

#[derive(Debug)]
struct Flush {
    id: u64,
    end: u64,
    last: u64,
    begun: Ms,
}

/// The writer of one core.
#[derive(Debug, Default)]
pub struct Writer {
    file: Option<Arc<LogFile>>,
    /// Where the next frame goes.
    end: u64,
    /// The file has this length at least, of written bytes or of zeros.
    laid_out: u64,
    layout: Option<u64>,
    /// No more is laid out: there was no room.
    is_narrow: bool,
    flights: VecDeque<Flight>,
    /// What has to be written again, from `end` on.
    again: VecDeque<(Vec<u8>, u64)>,
    flush: Option<Flush>,
    flushed_at: Ms,
    is_late: bool,
    late_count: u64,
    /// All before this is in the file, or on disk.
    written: (u64, u64),
    /// Logical time up to which all has been given a place.
    placed: u64,
    durable: (u64, u64),
    wants_flush: bool,
    next_set: Option<u32>,
    health: Health,
    retry_at: Ms,
    /// What is written is flushed when its time has come.
    is_timed: bool,
    next_id: u64,
}

impl Writer {
    /// Logical time up to which everything is on disk.
    pub fn durable(&self) -> u64 {
        self.durable.1
    }

    /// Whether it takes what it is given.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether nothing is under way, and nothing is left to be written or flushed.
    pub fn is_idle(&self) -> bool {
        self.is_quiet() && self.again.is_empty() && self.durable.1 == self.written.1
    }

    fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.flush.is_none() && self.layout.is_none()
    }

    /// Bytes of its file.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether it has no file.
    pub fn is_empty(&self) -> bool {
        self.file.is_none()
    }

    /// The set whose file it writes to; 0 is none.
    pub fn set(&self) -> u32 {
        self.file.as_ref().map_or(0, |file| file.header.set)
    }

    /// Flushes under way.
    pub fn flush_count(&self) -> usize {
        usize::from(self.flush.is_some())
            + self.flights.iter().filter(|f| f.flush == OwnFlush::Pending).count()
    }

    /// Flushes that were so late that replies had to wait.
    pub fn late_count(&self) -> u64 {
        self.late_count
    }

    /// Cuts off what was laid out ahead: nothing more will be written.
    pub fn trim(&mut self) {
        if let Some(file) = &self.file
            && self.laid_out > self.end
        {
            // Zero bytes at the end say nothing: it does not matter whether this works.
            let _ = file.file.set_len(self.end);
            self.laid_out = self.end;
        }
    }

    /// Has all that is written flushed as soon as possible.
    pub fn want_flush(&mut self) {
        self.wants_flush = true;
    }

    /// Whether replies to writes have to wait because the disk is far behind.
    pub fn is_late(&self) -> bool {
        self.is_late || self.health != Health::Good
    }

    /// When there is something to do although nothing happens.
    pub fn next_at(&self) -> Option<Ms> {
        if self.file.is_none() || matches!(self.health, Health::Dead(_)) {
            return None;
        }
        if matches!(self.health, Health::Failing(_)) {
            return self.is_quiet().then_some(self.retry_at);
        }
        if let Some(flush) = &self.flush {
            return (!self.is_late).then(|| Ms(flush.begun.0 + SYNC_LATE_MS));
        }
        let has_more = self.is_timed && self.durable.1 < self.written.1;
        has_more.then(|| Ms(self.flushed_at.0 + SYNC_EVERY_MS))
    }

    /// The next operation, if there is one to begin. `open` gives the file of a set.
    pub fn step(
        &mut self,
        now: Ms,
        policy: Policy,
        may_flush: bool,
        tape: &mut Tape,
        open: impl FnOnce(u32) -> Option<Arc<LogFile>>,
    ) -> Option<Op> {
        match self.health {
            Health::Dead(_) => {
                // Nobody will ever write it, and memory must not grow.
                while tape.take(MADE_BYTES).is_some() {}
                return None;
            }
            Health::Failing(_) => return self.try_again(now, policy),
            Health::Good => {}
        }
        self.note_lateness(now);
        self.is_timed = policy == Policy::EverySecond && may_flush;
        if let Some(op) = self.flush_due(now, policy, may_flush) {
            return Some(op);
        }
        if let Some(set) = self.next_set {
            self.change_file(set, open)?;
        }
        if let Some(op) = self.lay_out(policy) {
            return Some(op);
        }
        self.write_next(now, policy, tape)
    }

    /// Goes over to another file once all of this one is on disk. Nothing while it is not.
    fn change_file(
        &mut self,
        set: u32,
        open: impl FnOnce(u32) -> Option<Arc<LogFile>>,
    ) -> Option<()> {
        if self.file.is_some() && !self.is_idle() {
            self.wants_flush = true;
            return None;
        }
        let next = if set == 0 { None } else { Some(open(set)?) };
        self.trim();
        self.file = next;
        self.end = HEADER_BYTES;
        self.laid_out = HEADER_BYTES;
        self.written.0 = HEADER_BYTES;
        self.durable.0 = HEADER_BYTES;
        self.next_set = None;
        Some(())
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note_lateness(&mut self, now: Ms) {
        let begun = self.flush.as_ref().map(|flush| flush.begun);
        if begun.is_some_and(|begun| now.0 - begun.0 >= SYNC_LATE_MS) && !self.is_late {
            self.is_late = true;
            self.late_count += 1;
        }
    }

    fn flush_due(&mut self, now: Ms, policy: Policy, may_flush: bool) -> Option<Op> {
        if self.durable.1 == self.written.1 {
            self.wants_flush = false;
            return None;
        }
        let is_due = match policy {
            // It was written under another policy.
            Policy::Always => self.flights.is_empty(),
            Policy::EverySecond => may_flush && now.0 - self.flushed_at.0 >= SYNC_EVERY_MS,
            Policy::Never => false,
        };
        if self.flush.is_some() || !(is_due || self.wants_flush) {
            return None;
        }
        let file = Arc::clone(self.file.as_ref()?);
        self.flushed_at = now;
        self.wants_flush = false;
        let id = self.id();
        let (end, last) = self.written;
        self.flush = Some(Flush { id, end, last, begun: now });
        Some(Op::Flush { id, file })
    }

    /// Lays the file out ahead.
    fn lay_out(&mut self, policy: Policy) -> Option<Op> {
        let left = self.laid_out.saturating_sub(self.end);
        if policy != Policy::Always
            || self.is_narrow
            || self.layout.is_some()
            || left > LAYOUT_BYTES / 2
        {
            return None;
        }
        let file = Arc::clone(self.file.as_ref()?);
        let (at, id) = (self.laid_out, self.id());
        self.layout = Some(id);
        Some(Op::Write { id, file, at, bytes: vec![0; LAYOUT_BYTES as usize], flush: true })
    }

    fn write_next(&mut self, now: Ms, policy: Policy, tape: &mut Tape) -> Option<Op> {
        let most = if policy == Policy::Always { FLIGHTS_MAX } else { 1 };
        if self.flights.len() >= most {
            return None;
        }
        // What is laid out while it is written over might be zero in the end.
        let most_bytes = tape.waiting_bytes() + MADE_BYTES;
        if self.layout.is_some() && self.end + most_bytes as u64 > self.laid_out {
            return None;
        }
        let bytes = match tape.take(MADE_BYTES)? {
            Piece::Frames(bytes) => bytes,
            Piece::Set(set) => {
                self.next_set = Some(set);
                if self.file.is_some() {
                    self.wants_flush = true;
                }
                return None;
            }
        };
        // Without a file it was recorded before there was a log, or after: it says nothing.
        self.file.as_ref()?;
        let (bytes, last) = self.place(bytes);
        Some(self.fly(now, policy, bytes, last))
    }

    /// Makes frames ready for their place.
    fn place(&mut self, mut bytes: Vec<u8>) -> (Vec<u8>, u64) {
        let number = self.file.as_ref().map_or(0, |file| file.header.number);
        let (mut at, mut last) = (0, self.placed);
        while at < bytes.len() {
            let len = frame::len_of(&bytes[at..]);
            let frame = &mut bytes[at..at + len];
            last = frame::complete_to(frame).unwrap_or(last);
            frame::place(frame, number, self.end + at as u64, self.durable.0);
            at += len;
        }
        self.placed = last;
        (bytes, last)
    }

    fn fly(&mut self, now: Ms, policy: Policy, bytes: Vec<u8>, last: u64) -> Op {
        let file = Arc::clone(self.file.as_ref().expect("whoever writes has a file"));
        let (id, at, len) = (self.id(), self.end, bytes.len() as u64);
        let flush = policy == Policy::Always;
        if self.durable.1 == self.written.1 && self.flights.is_empty() {
            // The second begins with what is to be flushed.
            self.flushed_at = now;
        }
        self.end += len;
        self.laid_out = self.laid_out.max(self.end);
        let own = if flush { OwnFlush::Pending } else { OwnFlush::None };
        let flight = Flight { id, at, len, last, bytes: None, is_written: false, flush: own };
        self.flights.push_back(flight);
        Op::Write { id, file, at, bytes, flush }
    }

    /// A write has ended: with a number of bytes, or minus an errno.
    pub fn wrote(&mut self, id: u64, result: i32, bytes: Vec<u8>, tape: &mut Tape, now: Ms) {
        if self.layout == Some(id) {
            if usize::try_from(result) == Ok(bytes.len()) {
                return self.laid_out += LAYOUT_BYTES;
            }
            self.is_narrow = true;
            return;
        }
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id) else { return };
        flight.is_written = result >= 0 && result as u64 == flight.len;
        flight.bytes = Some(bytes);
        if !flight.is_written {
            // Less than all was written: what is missing would say why.
            let errno = if result < 0 { -result } else { libc::ENOSPC };
            self.fail(errno, now);
        }
        self.settle(tape);
    }

    /// A flush has ended: with 0, or minus an errno.
    pub fn flushed(&mut self, id: u64, result: i32, tape: &mut Tape) {
        if self.layout == Some(id) {
            // Its write has failed, and that is no harm.
            self.layout = None;
            if result < 0 && result != -CANCELLED {
                self.health = Health::Dead(-result);
            }
            return;
        }
        let is_cancelled = result == -CANCELLED;
        if result < 0 && !is_cancelled {
            self.health = Health::Dead(-result);
            return;
        }
        if let Some(flush) = self.flush.take_if(|flush| flush.id == id) {
            self.is_late = false;
            self.durable = (flush.end, flush.last);
        } else if let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id) {
            flight.flush = if is_cancelled { OwnFlush::None } else { OwnFlush::Done };
        }
        self.settle(tape);
    }

    fn fail(&mut self, errno: i32, now: Ms) {
        if self.health == Health::Good {
            self.health = Health::Failing(errno);
        }
        self.retry_at = Ms(now.0 + RETRY_AFTER_MS);
    }

    /// Takes in what has come back, in order.
    fn settle(&mut self, tape: &mut Tape) {
        while self.flights.front().is_some_and(|f| f.is_back() && f.is_written) {
            let Some(flight) = self.flights.pop_front() else { return };
            let end = flight.at + flight.len;
            self.written = (end, flight.last);
            tape.give_back(flight.bytes.unwrap_or_default());
            if flight.flush == OwnFlush::Done {
                self.durable = self.written;
            }
        }
        let has_failed = self.flights.iter().any(|flight| flight.is_back() && !flight.is_written);
        if has_failed && self.flights.iter().all(Flight::is_back) {
            self.end = self.flights[0].at;
            while let Some(flight) = self.flights.pop_back() {
                self.again.push_front((flight.bytes.unwrap_or_default(), flight.last));
            }
        }
    }

    fn try_again(&mut self, now: Ms, policy: Policy) -> Option<Op> {
        if !self.is_quiet() || now < self.retry_at {
            return None;
        }
        let file = Arc::clone(self.file.as_ref()?);
        // What was half written is cut off, so that nobody finds it behind what is right.
        if file.file.set_len(self.end).is_err() {
            self.retry_at = Ms(now.0 + RETRY_AFTER_MS);
            return None;
        }
        self.laid_out = self.end;
        let Some((bytes, last)) = self.again.pop_front() else {
            self.health = Health::Good;
            self.is_narrow = false;
            return None;
        };
        Some(self.fly(now, policy, bytes, last))
    }
}

#[cfg(test)]
pub(super) mod tests;
