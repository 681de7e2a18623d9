//! Everything of one proxy core that is not I/O: sessions, links, routes, and what happens between
//! them. The turn ([`crate::core`]) brings events and carries out `Op`s; nothing here blocks or
//! makes a system call on the way of a request.
//!
//! The parts of it live in the files beside this one, each of which adds methods to [`Hub`]:
//! `intake` (input to calls to links), `replies` (links to sessions), `links` (connections to
//! backends), `asks` (questions of the proxy's own, dedicated links), `split` (calls on several
//! backends), `detour` (slots that are being moved by the original's commands).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use cordis_engine::commands::args::ArgRange;
use cordis_engine::commands::keys::FoundKey;
use cordis_engine::commands::table::{Command, CommandTable, table};
use cordis_engine::net::client::ClientState;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::reply::{OutBuf, Reply};
use cordis_engine::runtime::clock::Clock;
use cordis_engine::runtime::ring::Token;
use cordis_engine::runtime::tenant;
use cordis_engine::slots::map::{ClusterMap, ServerKind};
use cordis_engine::sys::socket;
use cordis_engine::units::{CoreId, Ms, SlotId};
use slab::Slab;

use crate::asks::Ask;
use crate::backend::{Backend, Backends};
use crate::detour::Detour;
use crate::link::{Link, LinkId};
use crate::request::Request;
use crate::route::{BackendId, Entry, Routes, SlotList, Via};
use crate::session::{OUT_KEEP_BYTES, Place, Session, Stall};
use crate::settings::Settings;
use crate::shared::{CoreStats, Shared};
use crate::split::Gather;
use crate::tenant::{OwnAddrs, commands_by_id};
use crate::ways::Ways;

/// Indexes of links begin here among the indexes of tokens; sessions are below.
pub(crate) const LINK_INDEX: u32 = 1 << 31;
/// The token of the letter box.
pub(crate) const WAKE: Token = Token { index: LINK_INDEX - 1, generation: 0 };
/// Longer output may well fill the socket's buffer.
const PROMPT_SEND_BYTES_MAX: usize = 16 * 1024;
/// Sessions whose output is sent in one turn.
const SENDS_PER_TURN_MAX: usize = 512;
/// How often links and sessions are looked after, and how many of each at a time: more have their
/// turn later.
const CARE_EVERY_MS: i64 = 100;
const CARE_COUNT_MAX: usize = 512;

/// Something that the turn does for the hub.
#[derive(Debug)]
pub(crate) enum Op {
    /// Connect a socket.
    Connect(Token, RawFd, SocketAddr, Duration),
    /// Receive from a socket until its stream ends.
    Receive(Token, RawFd),
    /// Receive no more.
    CancelReceive(Token),
    /// Send all of this.
    Send(Token, RawFd, OutBuf, bool),
}

/// One core without its ring.
pub struct Hub {
    /// Which core.
    pub core: usize,
    /// What all cores share.
    pub shared: Arc<Shared>,
    pub(crate) settings: Settings,
    /// Requests that took longer go to the slow log.
    pub(crate) slow_ns: u64,
    pub(crate) ways: Arc<Ways>,
    pub(crate) table: &'static CommandTable,
    pub(crate) sessions: Slab<Session>,
    pub(crate) links: Slab<Link>,
    pub(crate) backends: Backends,
    pub(crate) routes: Routes<Box<Request>>,
    pub(crate) slot_lists: Slab<SlotList>,
    pub(crate) gathers: Slab<Gather>,
    pub(crate) asks: Slab<Ask>,
    pub(crate) detours: Slab<Detour>,
    /// Paused detours: when they go on.
    pub(crate) pauses: Vec<(Ms, u32)>,
    pub(crate) ops: Vec<Op>,
    /// Where the server listens that hosts this proxy, if one does.
    pub(crate) own: OwnAddrs,
    /// What that server's core does for the hub.
    pub(crate) host_ops: VecDeque<tenant::Op>,
    /// Sessions of which nothing may be left here.
    pub(crate) returning: Vec<Token>,
    pub(crate) commands: Vec<&'static Command>,
    pub(crate) flush_sessions: Vec<u32>,
    pub(crate) flush_links: Vec<u32>,
    /// Sessions whose waiting input may be parsed again.
    pub(crate) resume: VecDeque<Token>,
    gone: Vec<Token>,
    pub(crate) gone_links: Vec<u32>,
    pub(crate) clock: Clock,
    pub(crate) now: Ms,
    pub(crate) ticks: u64,
    started: (Ms, u64),
    /// Number of the next request.
    pub(crate) seq: u64,
    pub(crate) generation: u32,
    pub(crate) ranges: Vec<ArgRange>,
    pub(crate) found: Vec<FoundKey>,
    scratch: OutBuf,
    care_at: Ms,
    /// The sessions and the links that are looked after next.
    care_sessions_from: usize,
    pub(crate) care_links_from: usize,
    map: Arc<ClusterMap>,
    applied_epoch: u64,
    is_fenced: bool,
    pub(crate) stopping: bool,
    stop_at: Ms,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Hub {
    /// The hub of a core.
    pub fn new(core: usize, shared: Arc<Shared>, ways: Arc<Ways>) -> Self {
        let clock = Clock::new();
        let map = shared.map();
        let started = (clock.now(), clock.ticks());
        Self {
            core,
            settings: shared.settings.clone(),
            slow_ns: u64::try_from(shared.settings.slowlog_slower_than_us)
                .map_or(u64::MAX, |us| us.saturating_mul(1_000)),
            ways,
            table: table(),
            sessions: Slab::new(),
            links: Slab::new(),
            backends: Backends::default(),
            routes: Routes::new(),
            slot_lists: Slab::new(),
            gathers: Slab::new(),
            asks: Slab::new(),
            detours: Slab::new(),
            pauses: Vec::new(),
            ops: Vec::new(),
            own: OwnAddrs::default(),
            host_ops: VecDeque::new(),
            returning: Vec::new(),
            commands: commands_by_id(),
            flush_sessions: Vec::new(),
            flush_links: Vec::new(),
            resume: VecDeque::new(),
            gone: Vec::new(),
            gone_links: Vec::new(),
            now: started.0,
            ticks: started.1,
            started,
            clock,
            seq: 0,
            generation: 0,
            ranges: Vec::new(),
            found: Vec::new(),
            scratch: OutBuf::default(),
            care_at: Ms(0),
            care_sessions_from: 0,
            care_links_from: 0,
            map,
            applied_epoch: 0,
            is_fenced: false,
            stopping: false,
            stop_at: Ms(i64::MAX),
            shared,
        }
    }

    /// The time of this turn.
    pub fn now(&self) -> Ms {
        self.now
    }

    /// This core's counters.
    #[inline]
    pub fn stats(&self) -> &CoreStats {
        &self.shared.cores[self.core].stats
    }

    /// The backends.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// One backend.
    pub fn backend(&self, id: BackendId) -> &Backend {
        self.backends.get(id)
    }

    /// The backend that takes the requests of a slot now.
    pub fn backend_of(&self, slot: SlotId) -> Option<BackendId> {
        self.routes.lane(slot).map(|lane| lane.backend)
    }

    /// The detour of a slot that is being moved by the original's commands.
    pub fn via_of(&self, slot: SlotId) -> Option<Via> {
        self.routes.via(slot)
    }

    /// All backends that serve slots, or still hold keys of some, each once.
    pub fn primaries(&self) -> Vec<BackendId> {
        self.routes.servers().collect()
    }

    /// The map that this core goes by.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    // ---- sessions ----

    /// The session of a token, unless its index has been reused.
    #[inline]
    pub fn session(&mut self, token: Token) -> Option<&mut Session> {
        self.sessions
            .get_mut(token.index as usize)
            .filter(|session| session.generation == token.generation)
    }

    /// All sessions of this core.
    pub fn sessions(&self) -> impl Iterator<Item = (Token, &Session)> {
        self.sessions.iter().map(|(index, session)| {
            (Token { index: index as u32, generation: session.generation }, session)
        })
    }

    /// Takes the place of a call's reply, which is filled later.
    pub fn reserve(&mut self, token: Token) -> Place {
        match self.session(token) {
            Some(session) => {
                let is_silent = is_silent(&mut session.client);
                Place { token, ticket: session.reserve(), is_silent }
            }
            // Nobody is there to fill it for.
            None => Place { token, ticket: 0, is_silent: true },
        }
    }

    /// Answers a call now, in the order of the session's calls.
    pub fn answer(&mut self, token: Token, write: impl FnOnce(&mut Reply<'_>)) {
        let place = self.reserve(token);
        self.fill(place, write);
    }

    /// Fills the place of a reply.
    pub fn fill(&mut self, place: Place, write: impl FnOnce(&mut Reply<'_>)) {
        let Some(session) = self.session(place.token) else {
            return;
        };
        let protocol = session.client.protocol;
        let mut scratch = std::mem::take(&mut self.scratch);
        write(&mut Reply::new(&mut scratch, protocol));
        if scratch.parts().1.is_empty() {
            self.fill_raw(place, scratch.bytes());
        } else {
            self.fill_raw(place, &scratch.to_vec());
        }
        scratch.clear(OUT_KEEP_BYTES);
        self.scratch = scratch;
    }

    /// Fills the place of a reply with bytes.
    pub fn fill_raw(&mut self, place: Place, bytes: &[u8]) {
        let bytes = if place.is_silent { &[][..] } else { bytes };
        self.deliver(place.token, place.ticket, bytes, true);
    }

    /// Fills the place of a reply with an error of the proxy's own.
    pub fn fill_error(&mut self, place: Place, error: &CommandError) {
        self.stats().failed.add(1);
        self.fill(place, |reply| reply.error(error));
    }

    /// Sends a message that answers nothing, between two replies.
    pub fn push_raw(&mut self, token: Token, bytes: &[u8]) {
        if let Some(session) = self.session(token) {
            session.push(bytes);
            self.flush_session_later(token.index);
        }
    }

    /// Lets a session that was stopped go on.
    pub fn resume(&mut self, token: Token) {
        if let Some(session) = self.session(token) {
            session.stall = Stall::None;
            self.resume.push_back(token);
        }
    }

    /// Hands a piece of a reply to its session.
    #[inline]
    pub(crate) fn deliver(&mut self, token: Token, ticket: u32, bytes: &[u8], is_whole: bool) {
        let Some(session) = self
            .sessions
            .get_mut(token.index as usize)
            .filter(|session| session.generation == token.generation && !session.closing)
        else {
            return;
        };
        session.deliver(ticket, bytes, is_whole);
        if session.stall == Stall::Replies && session.unanswered() == 0 {
            session.stall = Stall::None;
            self.resume.push_back(token);
        }
        if !session.in_flush {
            session.in_flush = true;
            self.flush_sessions.push(token.index);
        }
    }

    pub(crate) fn flush_session_later(&mut self, index: u32) {
        if let Some(session) = self.sessions.get_mut(index as usize)
            && !session.in_flush
        {
            session.in_flush = true;
            self.flush_sessions.push(index);
        }
    }

    pub(crate) fn open_session(&mut self, fd: OwnedFd) {
        if self.stopping {
            self.shared.give_place_back();
            return;
        }
        socket::configure(&fd, self.settings.session_keepalive_seconds, true);
        let raw = fd.as_raw_fd();
        let id = self.shared.new_client_id();
        let mut client = ClientState::new(id, CoreId(self.core as u16), raw, self.now);
        client.authenticated = self.settings.session_auth.is_empty();
        client.last_at = self.now;
        client.addr = socket::peer_name(&fd).into();
        client.laddr = socket::local_name(&fd).into();
        let mut session = Session::new(Some(fd), self.next_generation(), client);
        session.receiving = true;
        let generation = session.generation;
        let index = self.sessions.insert(session) as u32;
        self.stats().sessions.add(1);
        self.stats().connections.add(1);
        self.ops.push(Op::Receive(Token { index, generation }, raw));
    }

    /// Tells the next session or link apart from all that had its index before.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & 0x00ff_ffff;
        self.generation
    }

    /// Begins to close a session. It is gone when the kernel has let go of its socket.
    pub fn close(&mut self, token: Token, why: Option<&str>) {
        let Some(session) = self.session(token) else {
            return;
        };
        if let Some(why) = why {
            tracing::info!(client = session.client.id, addr = %session.client.addr, why,
                "closing a client");
        }
        if !session.closing {
            session.closing = true;
            session.extra = None;
            if let Some(fd) = &session.fd {
                // Ends the receive and a send that are under way.
                socket::shutdown(fd);
            }
            if let Some(guest) = session.hosted.as_ref().map(|hosted| hosted.guest) {
                session.sending_bytes = 0;
                self.close_hosted(guest, why);
            }
            self.close_links_of(token);
        }
        self.remove_if_quiet(token);
    }

    fn remove_if_quiet(&mut self, token: Token) {
        if let Some(session) = self.session(token)
            && session.closing
            && !session.receiving
            && session.sending_bytes == 0
        {
            self.gone.push(token);
        }
    }

    /// Closes a session whose last reply has left.
    pub(crate) fn close_if_done(&mut self, token: Token) {
        let Some(session) = self.session(token) else {
            return;
        };
        if session.closing {
            return self.remove_if_quiet(token);
        }
        let ended = session.input_ended && session.tail.is_empty() && session.stall == Stall::None;
        if session.is_drained() && (session.client.close_after_reply || ended) {
            self.close(token, None);
        }
    }

    // ---- events of the turn ----

    /// Begins a turn.
    pub(crate) fn begin_turn(&mut self) {
        self.ticks = self.clock.ticks();
        // Wall time as it was at the start, going on evenly: deadlines do not jump with the clock.
        let (at, ticks) = self.started;
        self.now = Ms(at.0 + (self.clock.ns_between(ticks, self.ticks) / 1_000_000) as i64);
        self.stats().turns.add(1);
        if self.shared.is_stopping() && !self.stopping {
            self.stopping = true;
            self.stop_at = Ms(self.now.0 + 2_000);
            let all: Vec<Token> = self.sessions().map(|(token, _)| token).collect();
            for token in all {
                self.session_ended(token);
            }
        }
    }

    /// A session's peer sends no more.
    pub(crate) fn session_ended(&mut self, token: Token) {
        if let Some(session) = self.session(token) {
            session.input_ended = true;
            if session.special && session.stall == Stall::Busy {
                // It waits for something that nobody will read.
                return self.close(token, None);
            }
            self.resume.push_back(token);
        }
    }

    /// A session's socket delivers no more for now.
    pub(crate) fn session_receive_ended(&mut self, token: Token, errno: i32) {
        let Some(session) = self.session(token) else {
            return;
        };
        session.receiving = false;
        match errno {
            // Out of buffers: they come back at the end of the turn.
            ENOBUFS => self.receive_again(token),
            ECANCELED if !session.closing => self.resume.push_back(token),
            0 if !session.closing => self.session_ended(token),
            _ => self.close(token, None),
        }
    }

    pub(crate) fn receive_again(&mut self, token: Token) {
        if let Some(session) = self.session(token)
            && !session.receiving
            && !session.closing
            && !session.input_ended
            && let Some(fd) = session.fd.as_ref().map(AsRawFd::as_raw_fd)
        {
            session.receiving = true;
            self.ops.push(Op::Receive(token, fd));
        }
    }

    /// The kernel has taken a session's output.
    pub(crate) fn session_sent(&mut self, token: Token, mut out: OutBuf, errno: i32, late: bool) {
        let now = self.now;
        let Some(session) = self.session(token) else {
            return;
        };
        session.sending_bytes = 0;
        session.slow = late;
        session.took_output_at = now;
        if errno != 0 {
            session.out.clear(0);
            return self.close(token, None);
        }
        out.clear(OUT_KEEP_BYTES);
        let is_hosted = session.hosted.is_some();
        let stalls = !session.tail.is_empty();
        if session.out.is_empty() {
            session.out = out;
        } else {
            self.flush_session_later(token.index);
        }
        if stalls {
            self.resume.push_back(token);
        }
        if is_hosted {
            self.returning.push(token);
        }
        self.close_if_done(token);
    }

    /// Sends what has gathered.
    pub(crate) fn flush(&mut self) {
        let mut links = std::mem::take(&mut self.flush_links);
        for index in links.drain(..) {
            self.flush_link(index);
        }
        self.flush_links = links;
        let count = self.flush_sessions.len().min(SENDS_PER_TURN_MAX);
        let mut flush = std::mem::take(&mut self.flush_sessions);
        for index in flush.drain(..count) {
            self.flush_session(index);
        }
        // The rest, and who came meanwhile, in the next turn.
        flush.append(&mut self.flush_sessions);
        self.flush_sessions = flush;
    }

    fn flush_session(&mut self, index: u32) {
        let (now, unanswered_max) = (self.now, self.settings.session_max_pipeline);
        let Some(session) = self.sessions.get_mut(index as usize) else {
            return;
        };
        session.in_flush = false;
        if session.closing {
            return;
        }
        let token = Token { index, generation: session.generation };
        if session.pending_out_bytes() > self.settings.session_out_bytes_max {
            return self.close(token, Some("it does not read its replies"));
        }
        if !session.tail.is_empty() && session.may_run(unanswered_max) {
            self.resume.push_back(token);
        }
        if session.sending_bytes == 0 && !session.out.is_empty() {
            session.took_output_at = now;
            let out = session.out.take_sendable();
            session.sending_bytes = out.len();
            let prompt = !session.slow && out.len() <= PROMPT_SEND_BYTES_MAX;
            let (fd, hosted) = (session.fd.as_ref(), session.hosted.as_ref());
            self.shared.cores[self.core].stats.net_out_bytes.add(out.len() as u64);
            match (fd.map(AsRawFd::as_raw_fd), hosted.map(|hosted| hosted.guest)) {
                (Some(fd), _) => self.ops.push(Op::Send(token, fd, out, prompt)),
                (None, Some(guest)) => self.send_hosted(guest, out),
                (None, None) => unreachable!("a session has a socket or a host"),
            }
        } else if session.out.is_empty() && session.sending_bytes == 0 {
            self.close_if_done(token);
        }
    }

    fn flush_link(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize) else {
            return;
        };
        link.in_flush = false;
        if link.is_inner {
            if let Some(out) = link.take_sendable() {
                let handle = self.handle_of(index);
                self.host_ops.push_back(tenant::Op::Calls(handle, out));
            }
        } else if let Some(fd) = link.fd.as_ref().map(AsRawFd::as_raw_fd)
            && let Some(out) = link.take_sendable()
        {
            let token = Token { index: index | LINK_INDEX, generation: link.generation };
            let prompt = !link.slow && out.len() <= PROMPT_SEND_BYTES_MAX;
            self.ops.push(Op::Send(token, fd, out, prompt));
        }
    }

    /// Forgets what has ended in this turn: nothing names it any more.
    pub(crate) fn bury(&mut self) {
        while let Some(token) = self.gone.pop() {
            if self.session(token).is_some() {
                self.sessions.remove(token.index as usize);
                self.stats().sessions.add(-1);
                self.shared.give_place_back();
            }
        }
        self.bury_links();
    }

    /// What time brings.
    pub(crate) fn tick(&mut self) {
        self.routes.tick(self.now);
        self.run_actions();
        self.end_pauses();
        if self.now >= self.care_at || self.care_at.0 - self.now.0 > CARE_EVERY_MS {
            self.care_at = Ms(self.now.0 + CARE_EVERY_MS);
            self.check_lease();
            self.look_after_links();
            self.look_after_sessions();
        }
        if self.routes.is_settled() && self.applied_epoch != self.routes.epoch() {
            self.applied_epoch = self.routes.epoch();
            self.shared.note_applied(self.core, self.applied_epoch);
        }
        self.stats().held.set(self.routes.held_count() as i64);
    }

    fn look_after_sessions(&mut self) {
        let (idle, slow) =
            (self.settings.session_recv_timeout_ms, self.settings.session_send_timeout_ms);
        let slice = next_slice(&mut self.care_sessions_from, self.sessions.capacity());
        let mut ended = Vec::new();
        self.look_at_guests();
        let mut with_extra = Vec::new();
        for index in slice {
            let Some(session) = self.sessions.get(index) else {
                continue;
            };
            let token = Token { index: index as u32, generation: session.generation };
            if session.extra.is_some() {
                with_extra.push(token);
            }
            let waits = session.sending_bytes > 0 || session.is_sending;
            if waits && slow > 0 && self.now.0 - session.took_output_at.0 > slow {
                ended.push((token, "it has taken nothing of its replies for too long"));
            } else if idle > 0
                && !session.special
                && session.is_drained()
                && self.now.0 - session.client.last_at.0 > idle
            {
                ended.push((token, "it has been silent for too long"));
            }
        }
        for (token, why) in ended {
            self.close(token, Some(why));
        }
        for token in with_extra {
            crate::dedicated::look_after(self, token);
        }
    }

    /// When there is something to do without any event.
    pub(crate) fn next_deadline(&self) -> Option<Ms> {
        let pause = self.pauses.iter().map(|&(at, _)| at).min();
        // Links, sessions and the lease are looked after while there are any.
        let care = (!self.links.is_empty() || !self.sessions.is_empty()).then_some(self.care_at);
        [self.routes.next_deadline(), pause, care].into_iter().flatten().min()
    }

    /// Whether there is something to do at once.
    pub(crate) fn has_work(&self) -> bool {
        !self.resume.is_empty() || !self.flush_sessions.is_empty() || !self.flush_links.is_empty()
    }

    /// Whether the core may end.
    pub(crate) fn is_done(&self) -> bool {
        self.stopping && (self.sessions.is_empty() || self.now >= self.stop_at)
    }

    // ---- maps ----

    /// The backend of an address, numbered if it is new.
    pub(crate) fn intern(&mut self, addr: &str, kind: Option<ServerKind>) -> BackendId {
        if let Some(id) = self.backends.find(addr, kind) {
            return id;
        }
        // Only our servers send requests elsewhere, and to their like.
        let kind = kind.unwrap_or(ServerKind::Cordis);
        let id = self.routes.add_backend(kind == ServerKind::Cordis);
        self.backends.add(id, addr, kind, self.settings.backend_number_databases);
        let socket = self.backends.get(id).socket;
        let is_own = kind == ServerKind::Cordis && socket.is_some_and(|a| self.own.contain(a));
        self.backends.get_mut(id).is_own = is_own;
        id
    }

    /// Goes by a new map from now on. An older one is not taken.
    pub fn adopt_map(&mut self, map: &Arc<ClusterMap>) {
        if map.epoch < self.routes.epoch() {
            return;
        }
        let mut entries = Vec::new();
        let mut ids = std::collections::HashMap::new();
        for group in &map.groups {
            if let Some(server) = group.primary() {
                ids.insert(group.id, self.intern(&server.addr, Some(server.kind)));
            }
        }
        for range in &map.slots {
            let source = ids.get(&range.migrate_from).copied();
            let entry = Entry {
                backend: ids.get(&range.group).copied().unwrap_or(BackendId::NONE),
                epoch: range.epoch,
                locked: range.locked,
                via: source.map(|source| Via { source, method: range.forward_method }),
            };
            entries.extend((range.from..=range.to).map(|_| entry));
        }
        if self.routes.set_map(map.epoch, &entries, self.now) {
            self.map = Arc::clone(map);
        }
        self.check_lease();
        self.run_actions();
    }

    fn check_lease(&mut self) {
        let is_over =
            self.map.lease_ms > 0 && self.shared.clock_ms() > self.shared.lease_until_ms();
        if is_over != self.is_fenced {
            self.is_fenced = is_over;
            if is_over {
                tracing::warn!("the lease is over: nothing is served until control is heard from");
            }
            self.routes.fence(is_over, self.now);
            self.run_actions();
        }
    }

    /// The link of an id, unless it is gone.
    pub(crate) fn link_of(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.index as usize).filter(|link| link.generation == id.generation)
    }
}

/// The next places of a table of so many that are looked at.
pub(crate) fn next_slice(from: &mut usize, capacity: usize) -> Range<usize> {
    let begin = if *from < capacity { *from } else { 0 };
    *from = capacity.min(begin + CARE_COUNT_MAX);
    begin..*from
}

pub(crate) const ENOBUFS: i32 = 105;
pub(crate) const ECANCELED: i32 = 125;

/// Whether a call gets no reply, because its client wants none.
pub(crate) fn is_silent(client: &mut ClientState) -> bool {
    use cordis_engine::net::client::ReplyMode;
    match client.reply_mode {
        ReplyMode::On => false,
        ReplyMode::Off => true,
        ReplyMode::SkipNext | ReplyMode::Skip => {
            client.reply_mode = ReplyMode::On;
            true
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
