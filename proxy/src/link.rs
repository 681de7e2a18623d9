//! One connection to a backend: the bytes of requests whose replies are not here yet, who waits for
//! each of them, and where the stream of replies stands. Knows no ring: the turn moves bytes for it.
//!
//! Requests stay in the buffers that they were sent from until they are answered, so that one that
//! its server refused can be sent again, to whoever serves its slot now. Positions are offsets in the
//! stream of all requests of the link.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use cordis_engine::resp::reply::{OutBuf, Protocol};
use cordis_engine::resp::scan::Scanner;
use cordis_engine::runtime::ring::Token;
use cordis_engine::slots::state::SlotSet;
use cordis_engine::units::{Ms, SlotId};

use crate::encode;
use crate::hub::Hub;
use crate::route::{BackendId, Refusal};
use crate::session::Place;

/// Index of a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId {
    /// Index into the table of links.
    pub index: u32,
    /// Tells it apart from others that had its index.
    pub generation: u32,
}

/// Memory that a buffer keeps between two uses.
const BUFFER_KEEP_BYTES: usize = 256 * 1024;
/// Buffers that a link keeps for later.
const SPARE_MAX: usize = 4;

/// Why a request got no reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkError {
    text: String,
}

impl LinkError {
    /// An error that reads like this behind `-ERR `.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// What the client is told, without `-ERR `.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LinkError {}

/// Slots of a request under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slots {
    /// It is not routed by slot.
    None,
    /// One.
    One(SlotId),
    /// Several: an index into the hub's table of lists.
    Many(u32),
}

/// Who waits for a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Consumer {
    /// A session: it gets the bytes as they come.
    Session {
        /// Index of the session.
        index: u32,
        /// Its generation.
        generation: u32,
        /// The place of the reply.
        ticket: u32,
    },
    /// A session whose client wants no reply: its place is passed once the reply is here, because
    /// what comes behind it may have to wait for it.
    Silent {
        /// Index of the session.
        index: u32,
        /// Its generation.
        generation: u32,
        /// The place of the reply.
        ticket: u32,
    },
    /// A part of a split call: an index into the hub's table of those, and which part.
    Part(u32, u32),
    /// A question of the proxy's own: an index into the hub's table of those.
    Ask(u32),
    /// A step of a request on a slot that is being moved by the original's commands.
    Detour(u32),
    /// The link itself: a change of its database, which must succeed.
    Select,
    /// The link itself: a sign of life.
    Ping,
    /// The link itself: refusals of slots end.
    Retry,
}

impl Consumer {
    /// The place of a session's reply as a consumer.
    pub(crate) fn of(place: Place) -> Self {
        let Place { token: Token { index, generation }, ticket, is_silent } = place;
        if is_silent {
            Self::Silent { index, generation, ticket }
        } else {
            Self::Session { index, generation, ticket }
        }
    }

    /// The place that it stands for, if it is a session's.
    pub(crate) fn place(self) -> Option<Place> {
        let (index, generation, ticket) = match self {
            Self::Session { index, generation, ticket }
            | Self::Silent { index, generation, ticket } => (index, generation, ticket),
            Self::Part(..)
            | Self::Ask(_)
            | Self::Detour(_)
            | Self::Select
            | Self::Ping
            | Self::Retry => return None,
        };
        let is_silent = matches!(self, Self::Silent { .. });
        Some(Place { token: Token { index, generation }, ticket, is_silent })
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) consumer: Consumer,
    /// Where it begins in the link's stream of requests.
    pub(crate) start: u64,
    /// Its number among all requests of the core.
    pub(crate) seq: u64,
    /// When it arrived, in ticks.
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) slots: Slots,
    /// Id of the command.
    pub(crate) command: u16,
    /// Replies that it gets; only the last is passed on.
    pub(crate) replies: u16,
    /// How many of them are still to come.
    pub(crate) replies_left: u16,
    /// A reply before the last was a refusal.
    pub(crate) is_refused: bool,
    /// Its reply may take as long as it likes: it blocks.
    pub(crate) is_patient: bool,
    pub(crate) db: u8,
}

/// A reply that the handshake waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// AUTH.
    Auth,
    /// HELLO 3.
    Hello,
    /// CORDIS AUTH.
    Secret,
    /// CORDIS HELLO: which core owns which slot.
    Cores,
    /// SELECT of the last database: whether the backend has as many as clients may use.
    LastDb,
    /// SELECT 0.
    FirstDb,
}

/// Where a link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkState {
    /// Being connected.
    Dialling,
    /// Connected; replies of the handshake are still to come.
    Greeting,
    /// Requests flow.
    Ready,
    /// It is not used any more; it goes when the kernel has let go of its socket.
    Closing,
}

/// Replies without a request, of a dedicated link.
pub type Unsolicited = fn(&mut Hub, Token, LinkId, &[u8]);
/// A dedicated link was lost.
pub type Lost = fn(&mut Hub, Token, LinkId, &LinkError);

/// What is done about a dedicated link.
#[derive(Clone, Copy)]
pub struct Dedicated {
    /// Called with each reply that no request asked for, and each RESP3 push.
    pub unsolicited: Unsolicited,
    /// Called when it is gone and [`Hub::close_link`] was not called.
    pub lost: Lost,
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dedicated")
    }
}

/// Bytes that are with the kernel or were sent.
#[derive(Debug)]
struct Chunk {
    base: u64,
    len: usize,
    /// None while the ring has it.
    bytes: Option<OutBuf>,
}

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) backend: BackendId,
    pub(crate) lane: u16,
    pub(crate) protocol: Protocol,
    /// It belongs to one session.
    pub(crate) is_dedicated: bool,
    /// Which, and what is done about it; none once it was closed from our side.
    pub(crate) owner: Option<(Token, Dedicated)>,
    pub(crate) fd: Option<OwnedFd>,
    /// It leads to the server that hosts this proxy: it has no socket.
    pub(crate) is_inner: bool,
    pub(crate) generation: u32,
    pub(crate) state: LinkState,
    pub(crate) receiving: bool,
    pub(crate) is_sending: bool,
    pub(crate) slow: bool,
    pub(crate) in_flush: bool,
    /// What the handshake says; sent before anything else.
    pub(crate) greeting: OutBuf,
    /// The replies that the handshake still waits for.
    pub(crate) steps: VecDeque<Step>,
    /// A refused request's bytes are with the kernel: replies wait until it gives them back.
    pub(crate) is_paused: bool,
    /// Slots because of which its server has refused requests, and goes on to until it is told that all
    /// of them are back here.
    refused: SlotSet,
    has_refused: bool,
    /// How a request of the block under way was refused.
    pub(crate) block_refusal: Option<Refusal>,
    /// When it last received something, or began to wait.
    pub(crate) heard_at: Ms,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) scanner: Scanner,
    /// Beginning of a header line of a reply.
    pub(crate) tail: Vec<u8>,
    /// The reply under way, for those who need it whole.
    pub(crate) collected: Vec<u8>,
    /// Sessions that wait for room.
    pub(crate) waiters: Vec<Token>,
    /// The database that the stream of requests is in.
    db: u8,
    out: OutBuf,
    out_base: u64,
    chunks: VecDeque<Chunk>,
    spare: Vec<OutBuf>,
    /// Where the oldest request without a reply begins.
    answered_to: u64,
}

impl Link {
    pub(crate) fn new(backend: BackendId, lane: u16, protocol: Protocol, now: Ms) -> Self {
        Self {
            backend,
            lane,
            protocol,
            is_dedicated: false,
            owner: None,
            fd: None,
            is_inner: false,
            generation: 0,
            state: LinkState::Dialling,
            receiving: false,
            is_sending: false,
            slow: false,
            in_flush: false,
            greeting: OutBuf::default(),
            steps: VecDeque::new(),
            is_paused: false,
            refused: SlotSet::default(),
            has_refused: false,
            block_refusal: None,
            heard_at: now,
            flights: VecDeque::new(),
            scanner: Scanner::default(),
            tail: Vec::new(),
            collected: Vec::new(),
            waiters: Vec::new(),
            db: 0,
            out: OutBuf::default(),
            out_base: 0,
            chunks: VecDeque::new(),
            spare: Vec::new(),
            answered_to: 0,
        }
    }

    /// Bytes of requests without a reply.
    #[inline]
    pub(crate) fn pending_bytes(&self) -> usize {
        (self.out_base + self.out.len() as u64 - self.answered_to) as usize
    }

    /// Whether another request may be put on it.
    #[inline]
    pub(crate) fn has_room(&self, flights_max: usize, bytes_max: usize) -> bool {
        self.flights.len() < flights_max && self.pending_bytes() < bytes_max
    }

    /// The database that its stream of requests is in.
    #[inline]
    pub(crate) fn db(&self) -> u8 {
        self.db
    }

    /// Puts a request on it.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8], mut flight: Flight) {
        if self.db != flight.db {
            self.select(flight.db);
        }
        flight.start = self.out_base + self.out.len() as u64;
        flight.len = bytes.len() as u32;
        self.out.extend(bytes);
        self.flights.push_back(flight);
    }

    fn select(&mut self, db: u8) {
        self.db = db;
        let mut text = itoa::Buffer::new();
        let text = text.format(db).as_bytes();
        let request: &[&[u8]] =
            &[b"*2\r\n$6\r\nSELECT\r\n$", if text.len() == 1 { b"1" } else { b"2" }, b"\r\n", text];
        self.push_own(&[request, &[b"\r\n"]].concat().concat(), Consumer::Select);
    }

    /// Its server has refused a request because of a slot.
    pub(crate) fn note_refused(&mut self, slot: SlotId) {
        self.refused.insert(slot);
        self.has_refused = true;
    }

    /// All that its server has refused because of a slot is here: it may serve the slot again. Whether it
    /// had to be told.
    pub(crate) fn end_refusals(&mut self, slot: SlotId) -> bool {
        if !self.has_refused || !self.refused.remove(slot) {
            return false;
        }
        self.has_refused = !self.refused.is_empty();
        let mut bytes = Vec::new();
        let text = slot.index().to_string();
        encode::request(&mut bytes, &[b"CORDIS", b"RETRY", text.as_bytes()]);
        self.push_own(&bytes, Consumer::Retry);
        true
    }

    /// Puts a request of the link's own on it.
    pub(crate) fn push_own(&mut self, bytes: &[u8], consumer: Consumer) {
        let start = self.out_base + self.out.len() as u64;
        self.out.extend(bytes);
        self.flights.push_back(Flight {
            consumer,
            start,
            seq: 0,
            at: 0,
            len: bytes.len() as u32,
            slots: Slots::None,
            command: 0,
            replies: 1,
            replies_left: 1,
            is_refused: false,
            is_patient: false,
            db: self.db,
        });
    }

    /// Puts bytes on it whose replies nobody is assigned to.
    pub(crate) fn push_unasked(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }

    /// Whether something can be sent when it may.
    pub(crate) fn has_output(&self) -> bool {
        self.state == LinkState::Ready && !self.out.is_empty()
    }

    /// What can be sent now, if anything. One send at a time.
    pub(crate) fn take_sendable(&mut self) -> Option<OutBuf> {
        if self.is_sending {
            return None;
        }
        if !self.greeting.is_empty() {
            self.is_sending = true;
            return Some(std::mem::take(&mut self.greeting));
        }
        if self.state != LinkState::Ready || self.out.is_empty() {
            return None;
        }
        let spare = self.spare.pop().unwrap_or_default();
        let out = std::mem::replace(&mut self.out, spare);
        let len = out.len();
        self.chunks.push_back(Chunk { base: self.out_base, len, bytes: None });
        self.out_base += len as u64;
        self.is_sending = true;
        Some(out)
    }

    /// The kernel gives a buffer back.
    pub(crate) fn sent(&mut self, buffer: OutBuf) {
        self.is_sending = false;
        if let Some(chunk) = self.chunks.back_mut()
            && chunk.bytes.is_none()
        {
            chunk.bytes = Some(buffer);
        }
        if self.flights.is_empty() {
            self.answered_to = self.out_base;
        }
        self.forget_answered();
    }

    /// Takes the request whose replies have come off.
    #[inline]
    pub(crate) fn pop_flight(&mut self) -> Option<Flight> {
        let flight = self.flights.pop_front()?;
        self.answered_to = flight.start + u64::from(flight.len);
        if self.chunks.front().is_some_and(|c| c.base + c.len as u64 <= self.answered_to) {
            self.forget_answered();
        }
        Some(flight)
    }

    fn forget_answered(&mut self) {
        while let Some(chunk) = self.chunks.front()
            && chunk.base + chunk.len as u64 <= self.answered_to
            && chunk.bytes.is_some()
        {
            let chunk = self.chunks.pop_front();
            if let Some(mut bytes) = chunk.and_then(|chunk| chunk.bytes)
                && self.spare.len() < SPARE_MAX
            {
                bytes.clear(BUFFER_KEEP_BYTES);
                self.spare.push(bytes);
            }
        }
    }

    /// The bytes of a request, unless the kernel has them.
    pub(crate) fn request_bytes(&self, flight: &Flight) -> Option<&[u8]> {
        let (from, len) = (flight.start, flight.len as usize);
        if from >= self.out_base {
            let at = (from - self.out_base) as usize;
            return self.out.bytes().get(at..at + len);
        }
        let chunk = self.chunks.iter().find(|c| from < c.base + c.len as u64)?;
        let at = from.checked_sub(chunk.base)? as usize;
        chunk.bytes.as_ref()?.bytes().get(at..at + len)
    }

    /// Whether the kernel may have sent a part of a request.
    pub(crate) fn may_be_sent(&self, flight: &Flight) -> bool {
        flight.start < self.out_base
    }
}
