//! One core: what it owns, and its turn.
//!
//! A turn: reap completions, take the own shard, read mail, parse and run commands round by round,
//! step background work, flush output, let go of the doors, submit and sleep. Nothing in it blocks.
//! The parts of a turn live in the files beside this one; each adds methods to [`Core`].

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use slab::Slab;

use crate::commands::blocking::Woken;
use crate::commands::ctx::HeldSet;
use crate::commands::session_ctx::Micros;
use crate::journal::LogicalClock;
use crate::journal::tape::Tape;
use crate::net::client::ClientState;
use crate::net::guest::Role;
use crate::net::session::{OUT_KEEP_BYTES, Session, Stall};
use crate::node::{CoreStats, Node};
use crate::resp::error::CommandError;
use crate::resp::reply::{OutBuf, Reply};
use crate::runtime::append::AppendLog;
use crate::runtime::ask::{Ask, Questions};
use crate::runtime::clock::Clock;
use crate::runtime::deferred::Waiting;
use crate::runtime::dialect::Dialect;
use crate::runtime::exclusive::{Exclusive, Sliced};
use crate::runtime::migrate::Moves;
use crate::runtime::outgoing::{LinkOwner, Links};
use crate::runtime::peers::{Letter, Peers, Post, Registration, Seat};
use crate::runtime::pubsub::{PubSub, is_over_limit};
use crate::runtime::requests::Round;
use crate::runtime::ring::{BufferId, Event, Ring, Token};
use crate::runtime::slots::SlotDesk;
use crate::runtime::stall::{Step, StepTimer};
use crate::runtime::tenant::{self, Guests, Tenant};
use crate::runtime::timer::TimerWheel;
use crate::shard::batch::MailBatch;
use crate::sys::socket;
use crate::types::yard;
use crate::units::{CoreId, Ms, ShardId};

/// Longest sleep of a core that has nothing to do.
const IDLE_SLEEP: Duration = Duration::from_millis(100);
/// Longest wait for a send that was expected to complete at once. Not shorter: a timer that is due
/// before the kernel's next tick costs several microseconds to set.
const SEND_GRACE: Duration = Duration::from_millis(10);
/// Longer output may well fill the socket's buffer.
pub(super) const PROMPT_SEND_BYTES_MAX: usize = 16 * 1024;
/// Sessions whose output is sent in one turn.
const SENDS_PER_TURN_MAX: usize = 512;
/// How long a waking core spins for a borrowed shard before it goes on without.
const DOOR_SPIN_COUNT: u32 = 200;
/// Events of one turn are handled in portions, so that a flood of input cannot make a turn long.
const INTAKE_BUDGET_NS: u64 = 400_000;

/// Time of a turn that alarms may take.
const ALARM_BUDGET_NS: u64 = 200_000;
/// Alarms between two looks at the clock.
const ALARMS_PER_LOOK: usize = 64;
/// Time of a turn in which sockets are closed.
const BURIAL_BUDGET_NS: u64 = 200_000;

/// What a session received and has not parsed yet, in order.
#[derive(Debug)]
pub enum Input {
    /// Bytes: whose they are, where, and how many.
    Bytes(Token, BufferId, usize),
    /// Nothing more will come.
    End(Token),
    /// The connection is gone, or is to go.
    Lost(Token),
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub fd: OwnedFd,
    /// Whether it is a unix socket.
    pub is_unix: bool,
    /// Whether those who connect are the tenant's: [`tenant`].
    pub is_tenants: bool,
}

/// Something that a core does at a time.
#[derive(Clone, Copy, Debug)]
pub enum Alarm {
    /// A session's stall ends.
    Resume(Token),
    /// A sleeping call ends.
    SleepEnds(Token, u32),
    /// A blocked call has waited long enough.
    BlockEnds(Token),
    /// Accept again: descriptors had run out.
    Accept(u32),
}

/// One core.
#[derive(Debug)]
pub struct Core {
    pub(super) id: CoreId,
    pub(super) node: &'static Node,
    pub(super) stats: &'static CoreStats,
    pub(super) peers: &'static Peers,
    pub(super) ring: Ring,
    pub(super) clock: Clock,
    pub(super) logical: LogicalClock,
    pub(super) now: Ms,
    pub(super) sessions: Slab<Session>,
    generation: u32,
    pub(super) round: Round,
    pub(super) posts: Vec<Option<Post>>,
    letters: Vec<crate::runtime::mailbox::Receiver<Letter>>,
    /// Requests and letters that found a full mailbox, by core.
    pub(super) late_requests: Vec<VecDeque<Box<MailBatch>>>,
    /// Batches mailed to each core whose replies are not here yet.
    pub(super) mailed: Vec<u32>,
    pub(super) late_letters: Vec<VecDeque<Letter>>,
    /// Cores whose doorbell is due at the end of the turn.
    pub(super) bells: u64,
    /// Cores that get a doorbell if they have not read our requests by the end of the turn.
    mail_bells: u64,
    /// Doors that this core holds.
    pub(super) held: HeldSet,
    /// The door that an exclusive call waits for: those below it stay held over the turn's end.
    pub(super) waiting: Option<ShardId>,
    /// Requests for the own shard that came while somebody else held it.
    pub(super) own_pending: VecDeque<Box<MailBatch>>,
    #[expect(clippy::vec_box, reason = "boxes go to and fro: their memory is what is spared")]
    pub(super) spare_mail: Vec<Box<MailBatch>>,
    pub(super) exclusive: VecDeque<Exclusive>,
    /// Requests that have to run again because slots moved: before any other exclusive call.
    pub(super) moved: VecDeque<Exclusive>,
    pub(super) sliced: VecDeque<Sliced>,
    /// Calls that work in steps.
    pub(super) long: VecDeque<Exclusive>,
    /// Blocked sessions, by the client's number.
    pub(super) blocked: HashMap<u64, Waiting>,
    /// Registrations of blocked calls that have ended.
    pub(super) ended: VecDeque<Registration>,
    /// Blocked calls that this turn has served, or could not.
    pub(super) woken: Vec<Woken>,
    /// Those whose home cores have not been told yet, in order.
    pub(super) to_wake: VecDeque<Woken>,
    /// Who listens on this core.
    pub(super) pubsub: PubSub,
    /// Connections that this core has dialled.
    pub(super) links: Links,
    /// What this core does about slots, and the moves of its own.
    pub(super) desk: SlotDesk,
    pub(super) moves: Moves,
    /// Moves of keys by the original's commands.
    pub(super) dialect: Dialect,
    /// The log of what it does.
    pub(super) log: AppendLog,
    pub(super) asks: Slab<Ask>,
    pub(super) answering: Questions,
    pub(super) alarms: TimerWheel<Alarm>,
    /// Sessions with output to flush.
    pub(super) flush: Vec<u32>,
    /// Sessions whose waiting input may be parsed again.
    pub(super) resume: VecDeque<Token>,
    pub(super) inputs: VecDeque<Input>,
    events: Vec<Event>,
    listeners: Vec<Listener>,
    stopping: bool,
    pub(super) timer: StepTimer,
    pub(super) background: crate::runtime::background::Background,
    fired: Vec<Alarm>,
    /// More alarms are due than a turn can take.
    alarms_are_due: bool,
    /// Sessions to be forgotten at the end of the turn.
    gone: Vec<Token>,
    /// What shares this core with the server, and what is to be done about its clients.
    pub(super) tenant: Option<Box<dyn Tenant>>,
    pub(super) guests: Guests,
}

impl Core {
    /// A core on the calling thread, which must be the one that runs it.
    ///
    /// # Errors
    /// The kernel refuses a ring.
    pub fn new(
        seat: Seat,
        peers: &'static Peers,
        listeners: Vec<Listener>,
    ) -> std::io::Result<Self> {
        let count = peers.core_count();
        let ring = Ring::new()?;
        yard::open();
        peers.set_doorbell(seat.id, ring.doorbell_fd());
        let clock = Clock::new();
        let now = clock.now();
        let mut logical = LogicalClock::default();
        logical.outbox.micros = Some(Micros::Clock(Clock::now_us));
        logical.tape = Tape::of(seat.id);
        Ok(Self {
            id: seat.id,
            node: peers.node,
            stats: peers.node.core(seat.id),
            peers,
            ring,
            logical,
            now,
            sessions: Slab::new(),
            generation: 0,
            round: Round::new(count),
            posts: seat.posts,
            letters: seat.letters,
            late_requests: (0..count).map(|_| VecDeque::new()).collect(),
            mailed: vec![0; count],
            late_letters: (0..count).map(|_| VecDeque::new()).collect(),
            bells: 0,
            mail_bells: 0,
            held: (0..count).map(|_| None).collect(),
            waiting: None,
            own_pending: VecDeque::new(),
            spare_mail: Vec::new(),
            exclusive: VecDeque::new(),
            moved: VecDeque::new(),
            sliced: VecDeque::new(),
            long: VecDeque::new(),
            blocked: HashMap::new(),
            ended: VecDeque::new(),
            woken: Vec::new(),
            to_wake: VecDeque::new(),
            pubsub: PubSub::new(count),
            links: Links::default(),
            desk: SlotDesk::default(),
            moves: Moves::default(),
            dialect: Dialect::default(),
            log: AppendLog::new(seat.replay),
            asks: Slab::new(),
            answering: Questions::new(),
            alarms: TimerWheel::new(now),
            flush: Vec::new(),
            resume: VecDeque::new(),
            inputs: VecDeque::new(),
            events: Vec::new(),
            listeners,
            stopping: false,
            timer: StepTimer::new(clock.clone()),
            background: crate::runtime::background::Background::new(now),
            clock,
            fired: Vec::new(),
            alarms_are_due: false,
            gone: Vec::new(),
            tenant: None,
            guests: Guests::default(),
        })
    }

    /// The shard that this core owns.
    pub(super) fn own(&self) -> ShardId {
        ShardId(self.id.0)
    }

    /// Begins to accept on this core's listeners.
    pub fn start(&mut self) {
        for (index, listener) in self.listeners.iter().enumerate() {
            self.ring.accept(index as u32, listener.fd.as_raw_fd());
        }
    }

    /// Runs one turn and sleeps at its end. `false` when the core has stopped.
    ///
    /// # Errors
    /// The ring broke: the process cannot go on.
    pub fn turn(&mut self) -> std::io::Result<bool> {
        self.peers.sleep[self.id.index()].awake();
        self.timer.begin();
        self.now = self.clock.now();
        if self.peers.stop.load(Ordering::Relaxed) && !self.stopping {
            self.begin_stop();
        }
        self.guests.begin_turn();
        self.reap();
        self.timer.end(Step::Reap);
        self.take_own_shard();
        self.step_replay();
        self.read_letters();
        self.fire_alarms();
        self.settle_links();
        self.step_slots();
        self.steer_moves();
        self.release_held();
        self.timer.end(Step::Mail);
        let started = self.clock.ticks();
        loop {
            self.note_event_flags();
            self.run_own_mail(Some(started));
            // What has been taken in and not run comes before anything new.
            let more = self.round.is_unfinished() || self.intake(started, INTAKE_BUDGET_NS);
            self.run_round(started);
            if !self.round.is_unfinished() {
                self.run_exclusive();
            }
            self.send_woken();
            self.settle_outbox(None);
            self.step_tenant();
            let elapsed = self.clock.ns_between(started, self.clock.ticks());
            if (!more && self.resume.is_empty()) || elapsed > INTAKE_BUDGET_NS {
                break;
            }
        }
        self.timer.end(Step::Commands);
        self.step_sliced();
        self.step_long();
        self.step_answers();
        self.step_dialect();
        self.step_background();
        self.step_eviction();
        self.step_moves();
        self.settle_outbox(None);
        self.step_names();
        self.deliver_messages();
        self.post_messages();
        self.step_tenant();
        self.timer.end(Step::Background);
        self.step_log();
        self.flush_outputs();
        self.links.flush(&mut self.ring);
        self.bury_sessions();
        self.retry_late_mail();
        self.release_doors();
        self.ring_bells();
        self.timer.end(Step::Flush);
        self.timer.turn_ended(self.stats, self.node, self.now);
        if self.stopping && self.is_drained() && self.is_log_closed() {
            self.ring.submit(0, Duration::ZERO)?;
            return Ok(false);
        }
        self.sleep()?;
        Ok(true)
    }

    fn sleep(&mut self) -> std::io::Result<()> {
        let flag = &self.peers.sleep[self.id.index()];
        if self.has_work() {
            return self.ring.submit(0, Duration::ZERO);
        }
        flag.prepare();
        if self.has_mail() {
            flag.awake();
            return self.ring.submit(0, Duration::ZERO);
        }
        // Sends complete within the call and each posts a completion: waiting for one event would
        // return at once and cost a second call. If one does not complete, the grace ends the wait.
        let sends = self.ring.prompt_sends();
        let mut timeout = if sends > 0 { SEND_GRACE } else { IDLE_SLEEP };
        if let Some(due) = self.next_deadline() {
            let left = (due.0 - self.now.0).max(0) as u64;
            timeout = timeout.min(Duration::from_millis(left));
        }
        self.ring.submit(sends + 1, timeout)
    }

    /// Whether the next turn has something to do without any event.
    fn has_work(&self) -> bool {
        !self.inputs.is_empty()
            || !self.resume.is_empty()
            || self.round.is_unfinished()
            || !self.sliced.is_empty()
            || !self.long.is_empty()
            || !self.answering.is_empty()
            || !self.to_wake.is_empty()
            || self.exclusive_ready()
            || self.background.is_pending()
            || !yard::is_empty()
            || self.pubsub.has_work()
            || self.alarms_are_due
            || !self.gone.is_empty()
            || !self.flush.is_empty()
            || self.links.has_work()
            || self.moves.has_work()
            || self.slots_ready()
            || self.dialect.has_work()
            || self.log.has_work()
            || self.tenant_has_work()
            || self.late_requests.iter().any(|late| !late.is_empty())
            || self.late_letters.iter().any(|late| !late.is_empty())
    }

    /// Whether something was put down for this core that no doorbell will announce.
    fn has_mail(&mut self) -> bool {
        let own = &self.peers.shards[self.id.index()].door;
        self.letters.iter().any(|letters| !letters.is_empty())
            || own.is_granted_to(self.id)
            || self
                .waiting
                .is_some_and(|s| self.peers.shards[s.index()].door.is_granted_to(self.id))
            || self.slots_ready()
            || self.own_mail_arrived()
            || (self.peers.stop.load(Ordering::Relaxed) && !self.stopping)
    }

    fn next_deadline(&self) -> Option<Ms> {
        let mut background = self.background.next_at();
        for due in [self.links.next_deadline(), self.moves.next_at()].into_iter().flatten() {
            background = background.min(due);
        }
        for at in [self.dialect.next_at(), self.log.next_at(self.now)].into_iter().flatten() {
            background = background.min(at);
        }
        if let Some(at) = self.guests.wakes_at() {
            background = background.min(at);
        }
        Some(self.alarms.next_deadline().map_or(background, |alarm| alarm.min(background)))
    }

    // ---- doors ----

    /// Takes the own shard, spinning a little for a borrower to be done.
    fn take_own_shard(&mut self) {
        let own = self.id.index();
        if self.held[own].is_some() {
            return;
        }
        let guarded = &self.peers.shards[own];
        for _ in 0..DOOR_SPIN_COUNT {
            if let Some(held) = guarded.take_or_wait(self.id) {
                self.logical.see(&held.journal);
                self.held[own] = Some(held);
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Lets go of all doors, except those that an exclusive call keeps while it waits for another.
    fn release_doors(&mut self) {
        let keep_below = self.waiting.map_or(0, ShardId::index);
        for index in keep_below..self.held.len() {
            if let Some(held) = self.held[index].take() {
                self.release(held);
            }
        }
    }

    pub(super) fn release(
        &mut self,
        held: crate::shard::door::Held<'static, crate::shard::state::Shard>,
    ) {
        self.node.note_shard(&held);
        if let Some(heir) = held.release() {
            self.ring_later(heir);
        }
    }

    // ---- doorbells and letters ----

    /// Rings a core at the end of the turn, if it sleeps then.
    pub(super) fn ring_later(&mut self, core: CoreId) {
        self.bells |= 1 << core.0;
    }

    /// The same, unless the core has read our requests by then.
    pub(super) fn ring_for_mail(&mut self, core: CoreId) {
        self.mail_bells |= 1 << core.0;
    }

    fn ring_bells(&mut self) {
        let mut bells = std::mem::take(&mut self.bells);
        let mut mail = std::mem::take(&mut self.mail_bells);
        while mail != 0 {
            let core = mail.trailing_zeros() as usize;
            mail &= mail - 1;
            if self.posts[core].as_ref().is_some_and(|post| !post.requests.is_drained()) {
                bells |= 1 << core;
            }
        }
        while bells != 0 {
            let core = CoreId(bells.trailing_zeros() as u16);
            bells &= bells - 1;
            if self.peers.sleep[core.index()].needs_doorbell()
                && let Some(fd) = self.peers.doorbell(core)
            {
                self.ring.ring_doorbell(fd);
            }
        }
    }

    /// Sends a letter; it waits here if the mailbox is full.
    pub(super) fn post(&mut self, to: CoreId, letter: Letter) {
        let late = &mut self.late_letters[to.index()];
        let post = self.posts[to.index()].as_mut().expect("a core writes no letter to itself");
        if !late.is_empty() {
            late.push_back(letter);
        } else if let Err(letter) = post.letters.try_send(letter) {
            late.push_back(letter);
        }
        self.ring_later(to);
    }

    fn retry_late_mail(&mut self) {
        for to in (0..self.late_letters.len()).map(|i| CoreId(i as u16)) {
            while let Some(letter) = self.late_letters[to.index()].pop_front() {
                let post = self.posts[to.index()].as_mut().expect("late letters have a way");
                if let Err(letter) = post.letters.try_send(letter) {
                    self.late_letters[to.index()].push_front(letter);
                    break;
                }
                self.ring_later(to);
            }
        }
        self.retry_late_requests();
    }

    pub(super) fn read_letters(&mut self) {
        for from in (0..self.letters.len()).map(|i| CoreId(i as u16)) {
            while let Some(letter) = self.letters[from.index()].try_recv() {
                match letter {
                    Letter::Replies(batch) => {
                        self.logical.follow(from, batch.logged);
                        self.mailed[from.index()] -= 1;
                        self.deliver_replies(batch);
                    }
                    Letter::Connection { fd, is_unix, is_tenants } => {
                        self.open_session(fd, is_unix, is_tenants);
                    }
                    Letter::Session(session) => self.adopt_session(*session),
                    Letter::SlotJob(job) => self.take_job(*job),
                    Letter::SlotDone(done) => self.job_done(*done),
                    Letter::Woken(woken, clock) => {
                        self.logical.follow(from, clock);
                        self.take_woken(woken);
                    }
                    Letter::Ended(registrations) => self.ended.extend(registrations),
                    Letter::Published(messages) => self.take_messages(messages),
                    Letter::Ask { id, action } => self.be_asked(id, from, action),
                    Letter::Answer { id, answer } => self.answered(id, answer),
                }
            }
        }
    }

    /// Fires the alarms that are due, as many as a turn has time for: a crowd may have blocked until
    /// the same millisecond.
    fn fire_alarms(&mut self) {
        let begun = self.clock.ticks();
        let mut fired = std::mem::take(&mut self.fired);
        loop {
            let is_done = self.alarms.advance_some(self.now, &mut fired, ALARMS_PER_LOOK);
            self.fire(&mut fired);
            self.alarms_are_due = !is_done;
            if is_done || self.clock.ns_between(begun, self.clock.ticks()) > ALARM_BUDGET_NS {
                break;
            }
        }
        self.fired = fired;
    }

    fn fire(&mut self, fired: &mut Vec<Alarm>) {
        for alarm in fired.drain(..) {
            match alarm {
                Alarm::Resume(token) => {
                    // What it waits for now may be something else.
                    if let Some(session) = self.session_mut(token)
                        && matches!(session.stall, Stall::Paused(_))
                    {
                        session.stall = Stall::None;
                        self.resume.push_back(token);
                    }
                }
                Alarm::SleepEnds(token, ticket) => self.end_sleep(token, ticket),
                Alarm::BlockEnds(token) => self.end_block(token),
                Alarm::Accept(listener) => {
                    if !self.stopping
                        && let Some(l) = self.listeners.get(listener as usize)
                    {
                        self.ring.accept(listener, l.fd.as_raw_fd());
                    }
                }
            }
        }
    }

    // ---- completions ----

    fn reap(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.ring.reap(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Received { token, .. }
                | Event::ReceiveEnded { token, .. }
                | Event::Sent { token, .. }
                | Event::Connected { token, .. }
                    if tenant::owns(token) =>
                {
                    self.tell_of_socket(token, event);
                }
                Event::Received { token, buffer, len, armed } if Links::owns(token) => {
                    self.links.received(&mut self.ring, token, buffer, len, armed, self.now);
                }
                Event::ReceiveEnded { token, errno } if Links::owns(token) => {
                    self.links.receive_ended(&mut self.ring, token, errno);
                }
                Event::Sent { token, buffer, errno, late, .. } if Links::owns(token) => {
                    self.links.sent(token, buffer, errno, late);
                }
                Event::Connected { token, errno } => {
                    self.links.connected(&mut self.ring, token, errno, self.now);
                }
                Event::Received { token, buffer, len, armed } => {
                    self.stats.net_in_bytes.add(len as u64);
                    if !armed {
                        self.receive_again(token);
                    }
                    self.inputs.push_back(Input::Bytes(token, buffer, len));
                }
                Event::ReceiveEnded { token, errno } => self.receive_ended(token, errno),
                Event::Sent { token, buffer, len, errno, late } => {
                    self.sent(token, buffer, len, errno, late);
                }
                Event::Accepted { listener, result, armed } => {
                    self.accepted(listener, result, armed);
                }
                Event::Doorbell => {}
                Event::Written { id, result, bytes } => self.log_written(id, result, bytes),
                Event::Flushed { id, result } => self.log_flushed(id, result),
            }
        }
        self.events = events;
    }

    /// The session of a token, unless its index has been reused.
    #[inline]
    pub(super) fn session_mut(&mut self, token: Token) -> Option<&mut Session> {
        self.sessions
            .get_mut(token.index as usize)
            .filter(|session| session.generation == token.generation)
    }

    pub(super) fn token(&self, index: u32) -> Token {
        Token { index, generation: self.sessions[index as usize].generation }
    }

    fn receive_again(&mut self, token: Token) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        session.receiving = !session.closing && !session.input_ended;
        if session.receiving
            && let Some(fd) = session.fd.as_ref().map(AsRawFd::as_raw_fd)
        {
            self.ring.receive(token, fd);
        }
    }

    fn receive_ended(&mut self, token: Token, errno: i32) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        session.receiving = false;
        match errno {
            // Out of buffers: they come back at the end of each round.
            libc::ENOBUFS => self.receive_again(token),
            // Cancelled because too much input waits; the session arms again when it is read. It may
            // have been read before this was known, and would not be looked at any more.
            libc::ECANCELED if !session.closing => self.resume.push_back(token),
            // What was read before the end is answered.
            0 if !session.closing => self.inputs.push_back(Input::End(token)),
            // Many may break at once: each is closed in its turn.
            _ if !session.closing => self.inputs.push_back(Input::Lost(token)),
            _ => self.remove_if_quiet(token),
        }
    }

    fn accepted(&mut self, listener: u32, result: Result<RawFd, i32>, armed: bool) {
        match result {
            Ok(fd) => {
                let fd = socket::own(fd);
                // It came in while the listeners were being closed.
                let Some(from) = self.listeners.get(listener as usize) else { return };
                let (is_unix, is_tenants) = (from.is_unix, from.is_tenants);
                self.deal(fd, is_unix, is_tenants);
            }
            Err(libc::ECANCELED) => return,
            Err(errno) => {
                tracing::warn!(
                    error = %std::io::Error::from_raw_os_error(errno),
                    "cannot accept a connection; trying again in 100 ms"
                );
                if !armed {
                    self.alarms.insert(Ms(self.now.0 + 100), Alarm::Accept(listener));
                }
                return;
            }
        }
        if !armed
            && !self.stopping
            && let Some(socket) = self.listeners.get(listener as usize)
        {
            self.ring.accept(listener, socket.fd.as_raw_fd());
        }
    }

    /// Gives a new connection to the core with the fewest sessions.
    fn deal(&mut self, fd: OwnedFd, is_unix: bool, is_tenants: bool) {
        let has_place = match is_tenants {
            true => self.rouse().is_some_and(|tenant| tenant.take_place()),
            false => self.node.session_count() < self.node.config.maxclients() as i64,
        };
        if !has_place {
            self.stats.rejected_connections.add(1);
            let mut out = OutBuf::default();
            Reply::new(&mut out, Default::default()).error(&CommandError::MAX_CLIENTS);
            socket::send_once(&fd, out.bytes());
            return;
        }
        // Among equals, the core on the processor where the connection's packets come in: a reply
        // then wakes nobody elsewhere.
        let incoming = socket::incoming_cpu(&fd);
        let least = (0..self.peers.core_count())
            .min_by_key(|&core| {
                let is_near = incoming == Some(self.peers.cpus[core]);
                let stats = &self.node.cores[core];
                let sessions = stats.sessions.get() + stats.guests.get();
                (sessions, !is_near, core != self.id.index())
            })
            .map_or(self.id, |core| CoreId(core as u16));
        if least == self.id {
            self.open_session(fd, is_unix, is_tenants);
        } else {
            self.post(least, Letter::Connection { fd, is_unix, is_tenants });
        }
    }

    /// Tells the next session apart from all that had its index before.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & 0x00ff_ffff;
        self.generation
    }

    fn open_session(&mut self, fd: OwnedFd, is_unix: bool, is_tenants: bool) {
        if self.stopping {
            if is_tenants && let Some(tenant) = self.rouse() {
                tenant.give_place_back();
            }
            return;
        }
        let config = &self.node.config;
        let raw = fd.as_raw_fd();
        socket::configure(&fd, config.tcp_keepalive_seconds(), !is_unix);
        let mut client = ClientState::new(self.node.new_client_id(), self.id, raw, self.now);
        client.is_unix = is_unix;
        client.authenticated = config.requirepass().is_none();
        client.addr = socket::peer_name(&fd).into();
        client.laddr = socket::local_name(&fd).into();
        if !is_tenants && config.refuses_peer(&client.addr, is_unix) {
            self.stats.rejected_connections.add(1);
            let mut out = OutBuf::default();
            Reply::new(&mut out, Default::default()).error(&CommandError::PROTECTED_MODE);
            socket::send_once(&fd, out.bytes());
            return;
        }
        let mut session = Session::new(Some(fd), self.next_generation(), client, Role::Client);
        session.receiving = true;
        let index = self.sessions.insert(session) as u32;
        if is_tenants && self.receive_guest(index).is_none() {
            self.sessions.remove(index as usize);
            return;
        }
        self.count_session(index, 1);
        if !is_tenants {
            self.stats.connections.add(1);
        }
        let token = self.token(index);
        self.ring.receive(token, raw);
    }

    /// Counts a session, or that it is gone.
    fn count_session(&mut self, index: u32, by: i64) {
        match self.sessions[index as usize].role {
            Role::Client => self.stats.sessions.add(by),
            Role::Guest(_) => self.stats.guests.add(by),
            Role::Inner(_) => {}
        }
    }

    /// Accepts no more connections, or none of the tenant's.
    pub(super) fn stop_accepting(&mut self, tenants_only: bool) {
        for (index, listener) in self.listeners.iter().enumerate() {
            if listener.is_tenants || !tenants_only {
                self.ring.cancel_accept(index as u32);
            }
        }
    }

    /// Tells the owners of this core's links what has come in on them.
    fn settle_links(&mut self) {
        self.links.check_deadlines(self.now);
        while let Some((owner, link, event)) = self.links.next_event() {
            match owner {
                LinkOwner::Move(id) => self.move_event(id, link, event),
                LinkOwner::Dialect(id) => self.dialect_event(id, link, event),
            }
        }
    }

    // ---- output and closing ----

    /// Notes that a session has output for the end of the turn.
    #[inline]
    pub(super) fn flush_later(flush: &mut Vec<u32>, index: u32, session: &mut Session) {
        if !session.in_flush {
            session.in_flush = true;
            flush.push(index);
        }
    }

    fn flush_outputs(&mut self) {
        let mut flush = std::mem::take(&mut self.flush);
        // The rest goes in the next turn: a message to many sessions must not make this one long.
        let count = flush.len().min(SENDS_PER_TURN_MAX);
        for index in flush.drain(..count) {
            let Some(session) = self.sessions.get_mut(index as usize) else {
                continue;
            };
            session.in_flush = false;
            let token = Token { index, generation: session.generation };
            if session.closing {
                continue;
            }
            let limit = self.node.config.client_output_limit(session.client.subs.is_some());
            if is_over_limit(session, limit, self.now) {
                self.stats.overflow_disconnections.add(1);
                self.close(token, Some("output is over client-output-buffer-limit"));
                continue;
            }
            if session.fd.is_none() {
                // The tenant is handed its replies in the next turn.
                Self::flush_later(&mut self.flush, index, session);
            } else if session.sending_bytes == 0 && session.has_output() {
                let buffer = match session.take_durable(self.log.watermark) {
                    Ok(buffer) => buffer,
                    Err(until) => {
                        if let Some(until) = until {
                            self.log.hold(until, token);
                        }
                        continue;
                    }
                };
                session.sending_bytes = buffer.len();
                tenant::send(&mut self.ring, token, session, buffer, self.now);
            } else if !session.has_output() && session.sending_bytes == 0 {
                self.close_if_done(token);
            }
        }
        flush.append(&mut self.flush);
        self.flush = flush;
    }

    fn sent(&mut self, token: Token, mut buffer: OutBuf, len: usize, errno: i32, late: bool) {
        self.stats.net_out_bytes.add(len as u64);
        let Some(session) = self.session_mut(token) else {
            return;
        };
        session.sending_bytes = 0;
        session.slow = late;
        let is_client = session.role.is_client();
        if errno != 0 {
            session.out.clear(0);
            return self.close(token, None);
        }
        buffer.clear(OUT_KEEP_BYTES);
        if session.out.is_empty() {
            session.out = buffer;
        }
        let stalled = !session.tail.is_empty() && session.may_run();
        let more = session.has_output();
        if more {
            let session = &mut self.sessions[token.index as usize];
            Self::flush_later(&mut self.flush, token.index, session);
        }
        if stalled {
            self.resume.push_back(token);
        }
        if !is_client {
            self.note_sent(token);
        }
        self.close_if_done(token);
    }

    /// Closes a session whose last reply has left.
    pub(super) fn close_if_done(&mut self, token: Token) {
        let Some(session) = self.session_mut(token) else {
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

    /// Begins to close a session. It is gone when the kernel has let go of its socket.
    pub(super) fn close(&mut self, token: Token, why: Option<&str>) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        if let Some(why) = why {
            tracing::warn!(client = session.client.id, addr = %session.client.addr, why,
                "closing a client");
        }
        if !session.closing {
            session.closing = true;
            session.client.watching = None;
            session.client.multi = None;
            let blocked = session.blocked.take();
            session.client.is_blocked = false;
            // Ends the receive and a send that are under way.
            if let Some(fd) = &session.fd {
                socket::shutdown(fd);
            }
            let guest = session.role.guest().map(|guest| guest.handle);
            if let Some(blocked) = blocked {
                let client = session.client.id;
                self.forget_blocked(client, &blocked.call);
            }
            self.forget_listener(token);
            self.guests.note_gone(guest);
        }
        self.remove_if_quiet(token);
    }

    fn remove_if_quiet(&mut self, token: Token) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        if session.closing && !session.receiving && session.sending_bytes == 0 {
            // Not now: requests of this round may still name its index.
            self.gone.push(token);
        }
    }

    /// Forgets sessions that have ended, as many as there is time for: each closes a socket.
    fn bury_sessions(&mut self) {
        if self.round.is_unfinished() {
            return;
        }
        let begun = self.clock.ticks();
        while let Some(token) = self.gone.pop() {
            if self.session_mut(token).is_some() {
                self.count_session(token.index, -1);
                self.sessions.remove(token.index as usize);
                if self.clock.ns_between(begun, self.clock.ticks()) > BURIAL_BUDGET_NS {
                    return;
                }
            }
        }
    }

    // ---- stopping ----

    fn begin_stop(&mut self) {
        self.stopping = true;
        self.stop_accepting(false);
        self.listeners.clear();
        // Behind what was received: that is answered, then the session ends.
        for (index, session) in self.sessions.iter().filter(|(_, s)| s.role.inner().is_none()) {
            let token = Token { index: index as u32, generation: session.generation };
            self.inputs.push_back(Input::End(token));
        }
        self.background.stop_at(Ms(self.now.0 + 2_000));
    }

    fn is_drained(&self) -> bool {
        self.sessions.len() == self.inner_count() || self.background.must_stop(self.now)
    }
}
