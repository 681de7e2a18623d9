//! One client connection: its input that is not complete, its replies in order, its state.
//! Knows no ring: the turn moves bytes for it.
//!
//! Each request takes a *ticket*. The reply that is due goes straight to the output, piece by piece
//! as it comes; replies that come before their turn are kept behind it.

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use cordis_engine::net::client::ClientState;
use cordis_engine::resp::parse::Parser;
use cordis_engine::resp::reply::OutBuf;
use cordis_engine::runtime::ring::Token;
use cordis_engine::units::{Ms, SLOT_COUNT};

use crate::tenant::Hosted;

/// Output that waits beyond this stops the session's input.
pub const OUT_STALL_BYTES: usize = 1 << 20;
/// Input that waits beyond this stops receiving.
pub const TAIL_STALL_BYTES: usize = 1 << 20;
/// Bytes of its requests that wait for their slots; beyond this its input waits.
pub const HELD_STALL_BYTES: usize = 1 << 20;
/// Memory that an output buffer keeps while its session is busy.
pub const OUT_KEEP_BYTES: usize = 64 * 1024;

/// Why a session's input waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// It does not.
    None,
    /// Somebody resumes it.
    Busy,
    /// Until all its requests have been answered.
    Replies,
    /// Until there is room on the way to a backend.
    Room,
}

/// The place of a reply among those of its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The session.
    pub token: Token,
    /// Its how-manieth.
    pub ticket: u32,
    /// The client wants no reply: the place is passed when it comes, and nothing is written.
    pub is_silent: bool,
}

/// A reply that came before its turn.
#[derive(Debug)]
enum Kept {
    /// It has not come.
    Pending,
    /// All of it lies in the arena.
    Here(usize, usize),
    /// It comes in pieces: those that are here, and whether it is whole.
    Apart(Vec<u8>, bool),
}

/// Slots of a session's requests on several slots that are under way.
///
/// A server refuses a request as a whole because of one slot, and may go on serving the others. So
/// what came behind it on those, and must not overtake it, waits until it has been answered.
#[derive(Debug)]
struct Wide {
    /// The last of these requests.
    ticket: u32,
    /// Slots that they may change, and all that they touch.
    written: [u64; SLOT_WORDS],
    touched: [u64; SLOT_WORDS],
}

const SLOT_WORDS: usize = SLOT_COUNT / 64;

/// A client connection.
pub struct Session {
    /// Its socket. Closed when the session is dropped. A server that hosts this proxy has those of
    /// its sessions itself.
    pub fd: Option<OwnedFd>,
    /// Its other half, if a server hosts it.
    pub(crate) hosted: Option<Hosted>,
    /// Tells it apart from others that had its index.
    pub generation: u32,
    /// What commands see.
    pub client: ClientState,
    /// Every call of it goes to the gate first: it is in a transaction, subscribed, or such.
    pub special: bool,
    /// What the gate keeps of it.
    pub extra: Option<Box<dyn Any>>,
    /// When its last output left, or the send that is under way began.
    pub took_output_at: Ms,
    pub(crate) parser: Parser,
    pub(crate) tail: Vec<u8>,
    pub(crate) out: OutBuf,
    pub(crate) sending_bytes: usize,
    /// The server that hosts it is sending output of its own to it.
    pub(crate) is_sending: bool,
    pub(crate) slow: bool,
    pub(crate) receiving: bool,
    pub(crate) stall: Stall,
    pub(crate) closing: bool,
    pub(crate) in_flush: bool,
    pub(crate) input_ended: bool,
    pub(crate) held_bytes: usize,
    /// The links that belong to it.
    pub(crate) links: Vec<crate::link::LinkId>,
    wide: Option<Box<Wide>>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    arena: Vec<u8>,
    /// Messages that wait for the end of the reply that is being written.
    pushes: Vec<u8>,
    /// The ticket whose reply is next.
    due: u32,
    /// The ticket of the next request.
    next: u32,
    /// The reply that is due has been written in part.
    in_reply: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl Session {
    /// A session on an accepted socket, or on one that somebody else has.
    pub fn new(fd: Option<OwnedFd>, generation: u32, client: ClientState) -> Self {
        Self {
            fd,
            hosted: None,
            generation,
            took_output_at: client.created_at,
            client,
            special: false,
            extra: None,
            parser: Parser::default(),
            tail: Vec::new(),
            out: OutBuf::default(),
            sending_bytes: 0,
            is_sending: false,
            slow: false,
            receiving: false,
            stall: Stall::None,
            closing: false,
            in_flush: false,
            input_ended: false,
            held_bytes: 0,
            links: Vec::new(),
            wide: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            arena: Vec::new(),
            pushes: Vec::new(),
            due: 0,
            next: 0,
            in_reply: false,
        }
    }

    /// Requests whose replies are not here yet.
    #[inline]
    pub fn unanswered(&self) -> usize {
        self.next.wrapping_sub(self.due) as usize
    }

    /// Takes the place of the next reply.
    #[inline]
    pub(crate) fn reserve(&mut self) -> u32 {
        let ticket = self.next;
        self.next = ticket.wrapping_add(1);
        ticket
    }

    /// Whether requests on several slots are under way.
    #[inline]
    pub(crate) fn has_wide(&self) -> bool {
        self.wide.is_some()
    }

    /// Whether a request on these slots must not overtake one on several slots that is under way.
    pub(crate) fn must_follow(&mut self, slots: &[u16], is_read: bool) -> bool {
        let Some(wide) = &self.wide else {
            return false;
        };
        if self.due.wrapping_sub(wide.ticket).cast_signed() > 0 {
            self.wide = None;
            return false;
        }
        let in_way = if is_read { &wide.written } else { &wide.touched };
        slots.iter().any(|&slot| in_way[usize::from(slot / 64)] >> (slot % 64) & 1 == 1)
    }

    /// The next request is on several slots.
    pub(crate) fn wide_begins(&mut self, slots: &[u16], is_read: bool) {
        let ticket = self.next;
        let wide = self.wide.get_or_insert_with(|| {
            Box::new(Wide { ticket, written: [0; SLOT_WORDS], touched: [0; SLOT_WORDS] })
        });
        wide.ticket = ticket;
        for &slot in slots {
            let (word, bit) = (usize::from(slot / 64), 1 << (slot % 64));
            wide.touched[word] |= bit;
            if !is_read {
                wide.written[word] |= bit;
            }
        }
    }

    /// Takes a piece of a reply, or all of it.
    #[inline]
    pub(crate) fn deliver(&mut self, ticket: u32, bytes: &[u8], is_whole: bool) {
        if ticket != self.due {
            return self.keep(ticket, bytes, is_whole);
        }
        self.out.extend(bytes);
        if is_whole && self.kept.is_empty() && self.pushes.is_empty() {
            self.due = ticket.wrapping_add(1);
            self.in_reply = false;
        } else {
            self.in_reply = !is_whole;
            if is_whole {
                self.settle();
            }
        }
    }

    /// The reply that was due is written: those behind it that are here follow.
    fn settle(&mut self) {
        self.due = self.due.wrapping_add(1);
        // The entry of the reply that was written itself.
        self.kept.pop_front();
        self.release_pushes();
        while let Some(front) = self.kept.front_mut() {
            let is_whole = match front {
                Kept::Pending => break,
                Kept::Here(from, to) => {
                    self.out.extend(&self.arena[*from..*to]);
                    self.kept_bytes -= *to - *from;
                    true
                }
                Kept::Apart(bytes, is_whole) => {
                    self.out.extend(bytes);
                    self.kept_bytes -= bytes.len();
                    bytes.clear();
                    *is_whole
                }
            };
            if !is_whole {
                // The rest of it goes straight out.
                *front = Kept::Pending;
                self.in_reply = true;
                break;
            }
            self.kept.pop_front();
            self.due = self.due.wrapping_add(1);
        }
        if self.kept_bytes == 0 {
            self.arena.clear();
            if self.arena.capacity() > OUT_KEEP_BYTES {
                self.arena = Vec::new();
            }
        }
        self.in_reply = self.in_reply && matches!(self.kept.front(), Some(Kept::Pending));
        // Trailing places that nobody has filled say nothing.
        while matches!(self.kept.back(), Some(Kept::Pending)) {
            self.kept.pop_back();
        }
    }

    fn keep(&mut self, ticket: u32, bytes: &[u8], is_whole: bool) {
        let place = ticket.wrapping_sub(self.due) as usize;
        while self.kept.len() <= place {
            self.kept.push_back(Kept::Pending);
        }
        self.kept_bytes += bytes.len();
        match &mut self.kept[place] {
            pending @ Kept::Pending if is_whole => {
                let from = self.arena.len();
                self.arena.extend_from_slice(bytes);
                *pending = Kept::Here(from, self.arena.len());
            }
            pending @ Kept::Pending => *pending = Kept::Apart(bytes.to_vec(), false),
            Kept::Apart(kept, whole) => {
                kept.extend_from_slice(bytes);
                *whole = is_whole;
            }
            Kept::Here(..) => unreachable!("a ticket is answered once"),
        }
    }

    /// Whether part of a reply has gone out or is kept, so that no other can take its place.
    pub(crate) fn has_part_of(&self, ticket: u32) -> bool {
        if ticket == self.due {
            return self.in_reply;
        }
        let place = ticket.wrapping_sub(self.due) as usize;
        matches!(self.kept.get(place), Some(Kept::Apart(..)))
    }

    /// Writes a message that is no reply: between two replies.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.in_reply {
            self.pushes.extend_from_slice(bytes);
        } else {
            self.out.extend(bytes);
        }
    }

    fn release_pushes(&mut self) {
        if !self.pushes.is_empty() {
            self.out.extend(&self.pushes);
            self.pushes.clear();
        }
    }

    /// Bytes that wait for the client.
    pub fn pending_out_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes + self.kept_bytes + self.pushes.len()
    }

    /// Whether the next call may be looked at.
    #[inline]
    pub(crate) fn may_run(&self, unanswered_max: usize) -> bool {
        self.stall == Stall::None
            && !self.closing
            && !self.client.close_after_reply
            && self.out.len() + self.sending_bytes + self.kept_bytes < OUT_STALL_BYTES
            && self.unanswered() < unanswered_max
            && self.held_bytes < HELD_STALL_BYTES
    }

    /// Whether `tail` is only the beginning of a call.
    pub(crate) fn needs_input(&self) -> bool {
        self.tail.len() < self.parser.needed_bytes()
    }

    /// Whether all that it asked has been answered and sent.
    pub(crate) fn is_drained(&self) -> bool {
        self.unanswered() == 0 && self.out.is_empty() && self.sending_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use cordis_engine::units::CoreId;

    use super::*;

    fn session() -> Session {
        let (ours, _) = UnixStream::pair().expect("a pair of sockets");
        Session::new(Some(ours.into()), 1, ClientState::new(1, CoreId(0), 3, Ms(0)))
    }

    #[test]
    fn replies_in_any_order_leave_in_the_order_of_the_requests() {
        // All orders of four replies, each in one piece or in two.
        for order in 0..24usize {
            for split in 0..16u32 {
                let mut session = session();
                let tickets: Vec<u32> = (0..4).map(|_| session.reserve()).collect();
                let mut rest = vec![0, 1, 2, 3];
                let mut index = order;
                for n in (1..=4).rev() {
                    let which = rest.remove(index % n);
                    index /= n;
                    let text = format!("reply-{which};");
                    let (head, tail) = text.as_bytes().split_at(3);
                    if split & 1 << which != 0 {
                        session.deliver(tickets[which], head, false);
                        session.deliver(tickets[which], tail, true);
                    } else {
                        session.deliver(tickets[which], text.as_bytes(), true);
                    }
                }
                assert_eq!(session.out.bytes(), b"reply-0;reply-1;reply-2;reply-3;");
                assert_eq!((session.unanswered(), session.kept_bytes), (0, 0));
            }
        }
    }

    #[test]
    fn request_must_follow_one_on_several_slots_that_it_conflicts_with() {
        let mut session = session();
        session.wide_begins(&[1, 700], true);
        let ticket = session.reserve();
        assert!(!session.must_follow(&[1], true), "reads do not mind reads");
        assert!(session.must_follow(&[3, 700], false) && !session.must_follow(&[2], false));
        session.deliver(ticket, b"*0", true);
        assert!(!session.must_follow(&[1], false) && !session.has_wide());
    }

    #[test]
    fn reply_that_becomes_due_half_way_goes_on_straight() {
        let mut session = session();
        let (a, b) = (session.reserve(), session.reserve());
        session.deliver(b, b"b1", false);
        assert!(session.has_part_of(b) && !session.has_part_of(a));
        session.deliver(a, b"a", true);
        assert_eq!(session.out.bytes(), b"ab1");
        assert!(session.has_part_of(b));
        session.push(b"message");
        session.deliver(b, b"b2", false);
        session.deliver(b, b"b3", true);
        assert_eq!(session.out.bytes(), b"ab1b2b3message");
        assert_eq!(session.unanswered(), 0);
    }
}
