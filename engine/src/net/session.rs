//! One client connection: its input that is not complete, its replies in order, its state.
//! Knows no ring: the turn moves bytes for it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::commands::args::Aside;
use crate::net::apart::{APART_BYTES_MIN, Apart, MOVE_BYTES_MIN};
use crate::net::client::ClientState;
use crate::net::guest::Role;
use crate::resp::parse::Parser;
use crate::resp::reply::OutBuf;
use crate::shard::batch::Target;
use crate::shard::waiters::BlockedCall;
use crate::units::{Ms, ShardId};

/// Output that waits beyond this stops the session's input.
pub const OUT_STALL_BYTES: usize = 1 << 20;
/// Input that waits beyond this stops receiving.
pub const TAIL_STALL_BYTES: usize = 1 << 20;
/// Requests under way beyond this stop the session's input.
const IN_FLIGHT_MAX: usize = 16 * 1024;
/// Memory that an output buffer keeps while its session is busy.
pub const OUT_KEEP_BYTES: usize = 64 * 1024;

/// The place of a reply that comes out of order.
#[derive(Debug)]
enum Ticket {
    /// Not here yet.
    Pending,
    /// In the turn's stash, between these marks.
    Stashed((usize, usize), (usize, usize)),
    /// Kept over the end of a round.
    Kept(OutBuf),
}

/// Why a session's input waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// It does not.
    None,
    /// A call runs that the next one must wait for.
    Busy,
    /// CLIENT PAUSE, until then.
    Paused(Ms),
    /// Its next call needs a slot that is being handed over.
    Frozen,
    /// The tenant has its input, until it gives the session back.
    Away,
}

/// A blocked call of a session.
#[derive(Debug)]
pub struct Blocked {
    /// What is registered with its keys.
    pub call: Arc<BlockedCall>,
    /// Where its reply belongs.
    pub target: Target,
    /// When it ends unserved; never if there is none.
    pub deadline: Option<Ms>,
    /// It is about to run again on its own core.
    pub retrying: bool,
}

/// A client connection.
#[derive(Debug)]
pub struct Session {
    /// Its socket. Closed when the session is dropped. The tenant's own sessions have none.
    pub fd: Option<OwnedFd>,
    /// Whose it is.
    pub role: Role,
    /// Tells it apart from others that had its index.
    pub generation: u32,
    /// What commands see.
    pub client: ClientState,
    /// Progress of an unfinished call.
    pub parser: Parser,
    /// Input that is not run yet.
    pub tail: Vec<u8>,
    /// Words of the call that `tail` begins with that are not in it; only while there are any.
    pub apart: Option<Box<Apart>>,
    /// Output that is not sent yet.
    pub out: OutBuf,
    /// Bytes of the send that is under way; 0 if none is.
    pub sending_bytes: usize,
    /// Logical time of what `out` may tell of: if that has to be on disk first, it waits.
    pub unsynced: u64,
    /// Output that waits until this time is on disk; `out` comes after it.
    pub staged: Option<Box<(OutBuf, u64)>>,
    /// Its last send did not complete at once.
    pub slow: bool,
    /// Whether the kernel receives for it.
    pub receiving: bool,
    /// Why its input waits.
    pub stall: Stall,
    /// The call that it is blocked in.
    pub blocked: Option<Box<Blocked>>,
    /// It is being closed: nothing is read or run any more.
    pub closing: bool,
    /// Its output has been added to this turn's flush list.
    pub in_flush: bool,
    /// The peer will send no more.
    pub input_ended: bool,
    /// Its next call waits for the replies of those before it.
    pub awaits_replies: bool,
    /// Since when its output has been over the soft limit.
    pub over_soft_limit_since: Option<Ms>,
    tickets: VecDeque<Ticket>,
    ticket_base: u32,
    /// Tickets whose reply lies in the stash: they must be copied before it is cleared.
    stashed_count: u32,
    direct_pending: u32,
    direct_shard: ShardId,
    /// Requests that went out as direct and whose replies go to tickets since: the next ticket, and
    /// how many there are.
    converted: (u32, u32),
    /// Version of the slot owners that its requests under way were planned by.
    pub version: u32,
}

impl Session {
    /// A session on an accepted socket, or on none.
    pub fn new(fd: Option<OwnedFd>, generation: u32, client: ClientState, role: Role) -> Self {
        Self {
            fd,
            role,
            generation,
            client,
            parser: Parser::default(),
            tail: Vec::new(),
            apart: None,
            out: OutBuf::default(),
            sending_bytes: 0,
            unsynced: 0,
            staged: None,
            slow: false,
            receiving: false,
            stall: Stall::None,
            blocked: None,
            closing: false,
            in_flush: false,
            input_ended: false,
            awaits_replies: false,
            over_soft_limit_since: None,
            tickets: VecDeque::new(),
            ticket_base: 0,
            stashed_count: 0,
            direct_pending: 0,
            direct_shard: ShardId(0),
            converted: (0, 0),
            version: 0,
        }
    }

    /// Bytes of input that is not run yet.
    pub fn input_bytes(&self) -> usize {
        self.tail.len() + self.apart.as_ref().map_or(0, |apart| apart.bytes())
    }

    /// Whether `tail` is only the beginning of a call.
    pub fn needs_input(&self) -> bool {
        self.tail.len() < self.parser.needed_bytes()
    }

    /// Receives bytes behind those that wait.
    pub fn take_in(&mut self, bytes: &[u8]) {
        let rest = match &mut self.apart {
            Some(apart) => apart.fill(bytes),
            None => bytes,
        };
        self.tail.extend_from_slice(rest);
    }

    /// Moves what should not stay in the tail: the words of a call of which much is there; and if it ends
    /// within a long word, what there is of that, to where the rest of it will go as well.
    pub fn set_words_apart(&mut self) {
        // The tail is empty as well when it was thrown away.
        if self.tail.is_empty() {
            return;
        }
        if self.tail.len() >= MOVE_BYTES_MIN {
            self.move_words();
        }
        if let Some((at, len)) = self.parser.set_apart(APART_BYTES_MIN) {
            let begun = self.tail.split_off(at);
            self.apart.get_or_insert_default().begin(len);
            self.take_in(&begun);
        }
    }

    fn move_words(&mut self) {
        let mut apart = self.apart.take().unwrap_or_default();
        let moved = self.parser.move_words(&self.tail, MOVE_BYTES_MIN, apart.aside_mut());
        if let Some(done) = moved {
            self.tail.drain(..done);
        }
        self.apart = (!apart.aside_mut().is_empty()).then_some(apart);
    }

    /// Takes the input that waits, to be parsed. It does not end within a word apart.
    pub fn take_input(&mut self) -> (Vec<u8>, Aside) {
        let apart = self.apart.take().map_or_else(Aside::default, |apart| apart.into_words());
        (std::mem::take(&mut self.tail), apart)
    }

    /// Whether no reply is awaited, so that the next may go straight out.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.direct_pending == 0 && self.tickets.is_empty()
    }

    /// Replies that are not here yet.
    pub fn awaited_count(&self) -> usize {
        let is_pending = |ticket: &&Ticket| matches!(ticket, Ticket::Pending);
        self.direct_pending as usize + self.tickets.iter().filter(is_pending).count()
    }

    /// Reserves the place of a reply that `shard` will give.
    #[inline]
    pub fn reserve(&mut self, shard: ShardId) -> Target {
        if self.tickets.is_empty() && (self.direct_pending == 0 || self.direct_shard == shard) {
            self.direct_shard = shard;
            self.direct_pending += 1;
            return Target::Direct;
        }
        self.reserve_ticket()
    }

    /// Reserves the place of a reply that comes from anywhere.
    pub fn reserve_ticket(&mut self) -> Target {
        let ticket = self.ticket_base.wrapping_add(self.tickets.len() as u32);
        self.tickets.push_back(Ticket::Pending);
        Target::Ticket(ticket)
    }

    /// Where the next reply to a request that was reserved as `target` goes now. In order: each
    /// request asks once.
    #[inline]
    pub fn resolve(&mut self, target: Target) -> Target {
        match self.converted {
            (ticket, count) if count > 0 && target == Target::Direct => {
                self.converted = (ticket.wrapping_add(1), count - 1);
                Target::Ticket(ticket)
            }
            _ => target,
        }
    }

    /// The first of the direct requests under way has to run again: its reply, and those behind it,
    /// wait in tickets from now on, before all that are there.
    pub fn convert_directs(&mut self) {
        let count = std::mem::take(&mut self.direct_pending);
        self.ticket_base = self.ticket_base.wrapping_sub(count);
        for _ in 0..count {
            self.tickets.push_front(Ticket::Pending);
        }
        self.converted = (self.ticket_base, count);
    }

    /// Whether a ticket's reply is the next one due.
    pub fn is_next(&self, target: Target) -> bool {
        match target {
            Target::Ticket(ticket) => self.direct_pending == 0 && ticket == self.ticket_base,
            Target::Direct | Target::Silent => self.is_settled(),
        }
    }

    /// A direct reply has been written to `out`.
    #[inline]
    pub fn direct_done(&mut self) {
        invariant!(self.direct_pending > 0, "a direct reply that nobody awaits");
        self.direct_pending -= 1;
    }

    /// A ticket's reply lies in the turn's stash.
    #[inline]
    pub fn ticket_stashed(&mut self, ticket: u32, from: (usize, usize), to: (usize, usize)) {
        self.put(ticket, Ticket::Stashed(from, to));
        self.stashed_count += 1;
    }

    /// A ticket's reply is this.
    pub fn ticket_done(&mut self, ticket: u32, reply: OutBuf) {
        self.put(ticket, Ticket::Kept(reply));
    }

    #[inline]
    fn put(&mut self, ticket: u32, reply: Ticket) {
        let place = self.tickets.get_mut(ticket.wrapping_sub(self.ticket_base) as usize);
        let place = place.expect("a ticket is answered once, before those behind it leave");
        invariant!(matches!(place, Ticket::Pending), "a ticket answered twice");
        *place = reply;
    }

    /// Moves replies that are due to the output; what must wait is copied out of the stash.
    pub fn settle(&mut self, stash: &OutBuf) {
        while self.direct_pending == 0
            && let Some(front) = self.tickets.front()
        {
            match front {
                Ticket::Pending => break,
                Ticket::Stashed(from, to) => {
                    self.out.append_range(stash, *from, *to);
                    self.stashed_count -= 1;
                }
                Ticket::Kept(reply) => {
                    self.out.append_range(reply, (0, 0), reply.mark());
                }
            }
            self.tickets.pop_front();
            self.ticket_base = self.ticket_base.wrapping_add(1);
        }
        if self.stashed_count > 0 {
            self.keep_stashed(stash);
        }
        if self.tickets.is_empty() && self.tickets.capacity() > 64 {
            self.tickets = VecDeque::new();
        }
    }

    fn keep_stashed(&mut self, stash: &OutBuf) {
        self.stashed_count = 0;
        for ticket in &mut self.tickets {
            if let Ticket::Stashed(from, to) = *ticket {
                let mut kept = OutBuf::default();
                kept.append_range(stash, from, to);
                *ticket = Ticket::Kept(kept);
            }
        }
    }

    /// Whether the next call may be run now.
    #[inline]
    pub fn may_run(&self) -> bool {
        self.stall == Stall::None
            && !self.closing
            && !self.client.close_after_reply
            && self.pending_out_bytes() < OUT_STALL_BYTES
            && self.tickets.len() + (self.direct_pending as usize) < IN_FLIGHT_MAX
    }

    /// Output that has not reached the socket.
    pub fn pending_out_bytes(&self) -> usize {
        let staged_bytes = self.staged.as_ref().map_or(0, |staged| staged.0.len());
        self.out.len() + self.sending_bytes + staged_bytes
    }

    /// Takes what may be sent if all up to this time is on disk. What may not be waits from now on:
    /// then it is said until when.
    #[inline]
    pub fn take_durable(&mut self, durable: u64) -> Result<OutBuf, Option<u64>> {
        if let Some(staged) = self.staged.take_if(|staged| staged.1 <= durable) {
            return Ok(staged.0);
        }
        if self.staged.is_some() {
            return Err(None);
        }
        if self.unsynced > durable {
            self.staged = Some(Box::new((self.out.take_sendable(), self.unsynced)));
            return Err(Some(self.unsynced));
        }
        Ok(self.out.take_sendable())
    }

    /// Whether there is output that is not being sent.
    #[inline]
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || self.staged.is_some()
    }

    /// Whether all that it asked has been answered and sent.
    pub fn is_drained(&self) -> bool {
        self.is_settled() && !self.has_output() && self.sending_bytes == 0
    }
}
