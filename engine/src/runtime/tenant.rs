//! A pipeline that shares the cores with the server: its *tenant*, such as a proxy in the server's
//! process. Each core has one part of it, which lives in the core's turn and sends and receives by
//! the core's ring. Knows nothing of what it does.
//!
//! - The tenant's clients are *guests*: sessions of the core whose calls run like those of any client
//!   as long as the tenant says that they may ([`Tenant::runs_here`]) and their slots are served
//!   here. Such a call costs what a plain client's costs, and a question.
//! - Any other call goes to the tenant, and with it all that the guest sends until the tenant has
//!   answered everything ([`Op::Back`]). It goes only when all that ran here has been answered, so
//!   replies and effects of a session stay in order whichever way its calls take.
//! - A call on several slots runs alone: the calls before it have been answered, and those behind it
//!   wait for its reply.
//! - A call that was planned here and whose slot left before it ran is no error to a guest: it is
//!   *replayed*, that is, given to the tenant alone, and what the tenant replies takes its place among
//!   the replies. The calls of such a guest that have to run again are replayed too: none overtakes
//!   another.
//! - What the tenant wants of this server it says in *inner* sessions, which have no socket: calls go
//!   in and replies come out within the turn.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::commands::args::Args;
use crate::commands::dispatch::Plan;
use crate::commands::keys::{FoundKey, names_keys};
use crate::commands::spec::Route;
use crate::commands::table::{Command, KeyRule};
use crate::net::client::ClientState;
use crate::net::guest::{Guest, Handle, Pulse, Role};
use crate::net::session::{OUT_KEEP_BYTES, OUT_STALL_BYTES, Session, Stall, TAIL_STALL_BYTES};
use crate::resp::parse::Parser;
use crate::resp::reply::OutBuf;
use crate::runtime::exclusive::Exclusive;
use crate::runtime::intake::Flow;
use crate::runtime::outgoing::write_call;
use crate::runtime::ring::{Event, Ring, Token};
use crate::runtime::turn::Core;
use crate::shard::batch::Target;
use crate::slots::hash::slot_of;
use crate::slots::owner::Access;
use crate::units::{Ms, SlotId};

/// Set in the index of every token of the tenant's sockets: sessions have none that high.
pub const TENANT_BIT: u32 = 1 << 30;
/// Steps of the tenant in one go: what it does may let it do more.
const STEPS_MAX: usize = 4;
/// Input that the tenant is given of a guest in one step: more would make the turn long.
const FEED_BYTES_MAX: usize = 64 * 1024;
/// Keys of one call beyond which it goes to the tenant.
const KEYS_MAX: usize = 128;

/// Makes a core's part of the tenant, on the core's thread.
pub type Maker = Box<dyn FnOnce() -> Box<dyn Tenant> + Send>;

/// One core's part of a tenant. All methods are called by the core's turn, and none may block.
pub trait Tenant: Debug {
    /// A turn begins in which something is asked of it but [`runs_here`](Self::runs_here). Called
    /// before that.
    fn begin_turn(&mut self);

    // ---- its sockets ----

    /// A socket has received this. `armed`: it goes on receiving.
    fn received(&mut self, socket: Handle, bytes: &[u8], armed: bool);
    /// A socket delivers no more: its stream has ended, or an errno.
    fn receive_ended(&mut self, socket: Handle, errno: i32);
    /// The kernel has taken a buffer, or an errno says why not. `late`: not at once.
    fn sent(&mut self, socket: Handle, buffer: OutBuf, errno: i32, late: bool);
    /// A socket is connected, or an errno says why not.
    fn connected(&mut self, socket: Handle, errno: i32);

    // ---- guests ----

    /// Takes a place for a guest, of all there are in the process; `false` if there is none.
    fn take_place(&mut self) -> bool;
    /// Gives a place back that was taken for a guest who is not opened.
    fn give_place_back(&mut self);
    /// A guest has connected: what the tenant calls it, and where it looks for signs of life of it.
    /// Nothing if it does not want it any more; its place is free then. `client`: as this core knows
    /// it, to be completed.
    fn open(&mut self, guest: Token, client: &mut ClientState) -> Option<(Handle, Arc<Pulse>)>;
    /// Whether a call of a guest on these slots may run here, on this server's own data. If so it is
    /// counted.
    fn runs_here(&mut self, command: &Command, slots: &[SlotId]) -> bool;
    /// Whether the tenant takes more of the input of a guest that it has.
    fn wants_input(&self, guest: Handle) -> bool;
    /// Input of a guest that the tenant has from now on, or has already. `more`: the rest of it is
    /// here too and follows; until then the tenant does not give the guest back.
    fn input(&mut self, guest: Handle, bytes: &[u8], more: bool);
    /// A guest that the tenant has will send no more.
    fn input_ended(&mut self, guest: Handle);
    /// Output of a guest is on its way: the buffer that it was in.
    fn took_output(&mut self, guest: Handle, buffer: OutBuf);
    /// A guest as the tenant knows it now.
    fn client(&self, guest: Handle) -> Option<&ClientState>;
    /// A guest is gone.
    fn gone(&mut self, guest: Handle);

    // ---- its own sessions ----

    /// An inner session is there.
    fn inner_opened(&mut self, inner: Handle);
    /// The calls of an inner session have been read: the buffer that they were in.
    fn inner_read(&mut self, inner: Handle, buffer: OutBuf);
    /// Replies to an inner session's calls.
    fn inner_replied(&mut self, inner: Handle, bytes: &[u8]);

    // ---- its turn ----

    /// Does what there is to do.
    fn step(&mut self);
    /// What it wants of the core, in order.
    fn next_op(&mut self) -> Option<Op>;
    /// Whether it has something to do without any event.
    fn has_work(&self) -> bool;
    /// In how many milliseconds it has something to do without any event.
    fn next_in_ms(&self) -> Option<i64>;
}

/// Something that the core does for its tenant.
#[derive(Debug)]
pub enum Op {
    /// Connect a socket.
    Connect(Handle, RawFd, SocketAddr, Duration),
    /// Receive from a socket until its stream ends.
    Receive(Handle, RawFd),
    /// Send all of this. The flag: it will probably fit into the socket's buffer.
    Send(Handle, RawFd, OutBuf, bool),
    /// Output for a guest, which must be one that the tenant has.
    Output(Token, OutBuf),
    /// A guest's calls run here again. What it sent and the tenant has not looked at.
    Back(Token, Vec<u8>),
    /// A guest's connection ends: at once, or when its output has left.
    Close(Token, CloseWhen),
    /// Open an inner session.
    OpenInner(Handle),
    /// Calls for an inner session.
    Calls(Handle, OutBuf),
    /// End an inner session.
    CloseInner(Handle),
    /// Accept no more guests.
    StopAccepting,
}

/// When a guest's connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseWhen {
    /// Whatever waits for it.
    Now,
    /// When what waits for it has left.
    Drained,
}

/// What a core has to do about its guests and inner sessions.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// Guests that the tenant has and whose input it has not been given.
    fed: Vec<Token>,
    /// Guests whose input the tenant takes no more of for now.
    waiting: Vec<Token>,
    /// Guests with calls to be replayed.
    refused: Vec<Token>,
    /// Guests whose output of the tenant's may be on its way.
    owed: Vec<Token>,
    /// Guests that are gone.
    gone: Vec<Handle>,
    /// Guests that will send no more.
    ended: Vec<Handle>,
    /// The tenant knows that this turn has begun.
    is_begun: bool,
    /// It has been told of something and not stepped since.
    is_told: bool,
    /// When it has something to do by itself, and when that was known.
    wakes: Option<(Ms, Ms)>,
    /// Inner sessions, by the index of their handle: their index and generation.
    inner: Vec<Option<(u32, Token)>>,
}

impl Guests {
    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.is_begun = false;
    }

    /// When the tenant has something to do by itself.
    pub(super) fn wakes_at(&self) -> Option<Ms> {
        self.wakes.map(|(at, _)| at)
    }

    /// Whether that time has come, or the clock was set back.
    fn is_due(&self, now: Ms) -> bool {
        self.wakes.is_some_and(|(at, known_at)| now >= at || now < known_at)
    }

    /// Takes note that a session is being closed, and is this guest, if it is one.
    pub(super) fn note_gone(&mut self, guest: Option<Handle>) {
        self.gone.extend(guest);
    }

    /// Whether there is something that does not wait for any event.
    fn is_urgent(&self) -> bool {
        let is_quiet = self.fed.is_empty()
            && self.owed.is_empty()
            && self.gone.is_empty()
            && self.ended.is_empty();
        !is_quiet
    }
}

/// Whether a token is of a socket of the tenant's.
#[inline]
pub(super) fn owns(token: Token) -> bool {
    token.index & TENANT_BIT != 0
}

pub(super) fn handle_of(token: Token) -> Handle {
    Handle { index: token.index & !TENANT_BIT, generation: token.generation }
}

fn token_of(handle: Handle) -> Token {
    Token { index: handle.index | TENANT_BIT, generation: handle.generation }
}

/// Whether a guest's call runs here, as planned, or goes to the tenant.
#[inline]
pub(super) fn runs_here(
    tenant: &mut dyn Tenant,
    command: &Command,
    args: &Args<'_>,
    plan: &Plan,
    found: &[FoundKey],
) -> bool {
    match plan {
        Plan::One(_, Some(hint)) if command.keys == KeyRule::First => {
            tenant.runs_here(command, &[hint.slot])
        }
        Plan::One(..) | Plan::Many(_) => {
            // Only these have been planned by their keys: else what was found is another call's.
            let is_by_key = matches!(command.spec.route, Route::ByKey | Route::SplitKeys);
            let is_few = (1..=KEYS_MAX).contains(&found.len());
            if !is_by_key || !is_few || names_keys(command.spec, args) {
                return false;
            }
            let mut slots = [SlotId::from_crc(0); KEYS_MAX];
            for (slot, key) in slots.iter_mut().zip(found) {
                *slot = slot_of(args.at(key.index));
            }
            tenant.runs_here(command, &slots[..found.len()])
        }
        // It waits here until it is known who serves the slot.
        Plan::Closed(_, Access::Frozen) => true,
        Plan::Closed(..) | Plan::Session | Plan::Sliced => false,
    }
}

/// Whether a guest's call that runs here has to wait for the replies to those before it.
///
/// A call on several slots is refused as a whole because of one of them, and replayed; what follows
/// on the others runs nevertheless, and would overtake it. So it runs alone.
pub(super) fn must_wait(
    session: &mut Session,
    command: &Command,
    args: &Args<'_>,
    plan: &Plan,
    found: &[FoundKey],
) -> bool {
    let is_settled = session.is_settled();
    let Some(guest) = session.role.guest() else {
        return false;
    };
    // Else what was found is another call's.
    let is_by_key = matches!(command.spec.route, Route::ByKey | Route::SplitKeys);
    let is_wide = matches!(plan, Plan::One(..))
        && is_by_key
        && command.keys != KeyRule::First
        && found
            .windows(2)
            .any(|pair| slot_of(args.at(pair[0].index)) != slot_of(args.at(pair[1].index)));
    let waits = (guest.is_wide || is_wide) && !is_settled;
    if !waits {
        guest.is_wide = is_wide;
    }
    session.awaits_replies |= waits;
    waits
}

impl Core {
    /// The tenant's part of this core begins to live.
    pub fn house(&mut self, tenant: Box<dyn Tenant>) {
        self.tenant = Some(tenant);
    }

    /// A guest has a call that does not run here: it goes to the tenant, once all before it has been
    /// answered. Its input must be kept.
    #[cold]
    pub(super) fn hand_over(&mut self, index: u32) -> Flow {
        let token = self.token(index);
        let session = &mut self.sessions[index as usize];
        if !session.is_settled() {
            session.awaits_replies = true;
            self.round.hungry.push(token);
        } else if let Some(guest) = session.role.guest() {
            guest.is_away = true;
            session.stall = Stall::Away;
            self.guests.fed.push(token);
        }
        Flow::Hold
    }

    /// Takes note that there is input for the tenant.
    #[cold]
    pub(super) fn note_fed(&mut self, token: Token) {
        self.guests.fed.push(token);
    }

    /// Takes note that a guest will send no more.
    pub(super) fn note_ended(&mut self, token: Token) {
        if let Some(guest) = self.session_mut(token).and_then(|session| session.role.guest())
            && guest.is_away
        {
            let handle = guest.handle;
            // Else when the tenant has been given the rest.
            if self.sessions[token.index as usize].tail.is_empty() {
                self.guests.ended.push(handle);
            }
        }
    }

    /// Takes note that a guest's output has left.
    pub(super) fn note_sent(&mut self, token: Token) {
        if let Some(guest) = self.session_mut(token).and_then(|session| session.role.guest()) {
            guest.pulse.note_sending(None);
            if guest.owed.is_some() {
                self.guests.owed.push(token);
            }
        }
    }

    /// Keeps a guest's call that is refused, because its slot is not served here any more, for the
    /// tenant. `false`: its session is no guest.
    pub(super) fn keep_refused(&mut self, call: &Exclusive) -> bool {
        let Target::Ticket(ticket) = call.target else {
            return false;
        };
        let Some(session) = self.session_mut(call.token) else {
            return false;
        };
        let Some(guest) = session.role.guest() else {
            return false;
        };
        let at = guest.refused.partition_point(|(t, _)| t.wrapping_sub(ticket).cast_signed() < 0);
        guest.refused.insert(at, (ticket, call.words.clone()));
        session.stall = Stall::Away;
        if !self.guests.refused.contains(&call.token) {
            self.guests.refused.push(call.token);
        }
        true
    }

    /// Whether a call belongs to a guest of which one has been refused: it must not overtake that.
    pub(super) fn follows_refused(&mut self, call: &Exclusive) -> bool {
        let session = self.sessions.get_mut(call.token.index as usize);
        let guest = session.and_then(|session| session.role.guest());
        guest.is_some_and(|guest| !guest.refused.is_empty())
    }

    /// Tells the tenant what a socket of its own has brought.
    #[cold]
    pub(super) fn tell_of_socket(&mut self, token: Token, event: Event) {
        if self.rouse().is_none() {
            return;
        }
        let Some(tenant) = &mut self.tenant else { return };
        let socket = handle_of(token);
        match event {
            Event::Received { buffer, len, armed, .. } => {
                tenant.received(socket, self.ring.bytes(&buffer, len), armed);
                self.ring.recycle(buffer);
            }
            Event::ReceiveEnded { errno, .. } => tenant.receive_ended(socket, errno),
            Event::Sent { buffer, errno, late, .. } => tenant.sent(socket, buffer, errno, late),
            Event::Connected { errno, .. } => tenant.connected(socket, errno),
            // Of no socket of its own.
            Event::Accepted { .. }
            | Event::Doorbell
            | Event::Written { .. }
            | Event::Flushed { .. } => {}
        }
    }

    /// Whether there is something to do about guests without any event.
    pub(super) fn tenant_has_work(&self) -> bool {
        let tenant = self.tenant.as_ref();
        tenant.is_some_and(|tenant| self.guests.is_urgent() || tenant.has_work())
    }

    /// The tenant, to be told of something.
    pub(super) fn rouse(&mut self) -> Option<&mut dyn Tenant> {
        let tenant = self.tenant.as_deref_mut()?;
        if !std::mem::replace(&mut self.guests.is_begun, true) {
            tenant.begin_turn();
        }
        self.guests.is_told = true;
        Some(tenant)
    }

    /// Whether there is anything for the tenant to do: mostly its guests' calls just run.
    fn tenant_is_needed(&self) -> bool {
        let is_inner = |&index: &u32| {
            self.sessions.get(index as usize).is_some_and(|session| session.role.inner().is_some())
        };
        self.tenant_has_work()
            || self.guests.is_told
            || !self.guests.refused.is_empty()
            || self.guests.is_due(self.now)
            || self.flush.iter().any(is_inner)
    }

    /// Lets the tenant do what there is to do, and does what it wants.
    pub(super) fn step_tenant(&mut self) {
        if self.tenant.is_none() || !self.tenant_is_needed() || self.rouse().is_none() {
            return;
        }
        let Some(mut tenant) = self.tenant.take() else {
            return;
        };
        for _ in 0..STEPS_MAX {
            self.tell_tenant(&mut *tenant);
            tenant.step();
            while let Some(op) = tenant.next_op() {
                self.do_op(&mut *tenant, op);
            }
            self.feed_again(&*tenant);
            if !tenant.has_work() && self.guests.fed.is_empty() {
                break;
            }
        }
        self.guests.is_told = false;
        let now = self.now;
        self.guests.wakes = tenant.next_in_ms().map(|ms| (Ms(now.0 + ms.max(0)), now));
        self.tenant = Some(tenant);
    }

    /// Looks whether the tenant takes input again that it did not take before.
    fn feed_again(&mut self, tenant: &dyn Tenant) {
        for token in std::mem::take(&mut self.guests.waiting) {
            let guest = self.session_mut(token).and_then(|session| session.role.guest());
            match guest.map(|guest| guest.handle) {
                Some(handle) if tenant.wants_input(handle) => self.guests.fed.push(token),
                Some(_) => self.guests.waiting.push(token),
                None => {}
            }
        }
    }

    /// Tells the tenant what has happened to guests and inner sessions.
    fn tell_tenant(&mut self, tenant: &mut dyn Tenant) {
        self.flush_inner(tenant);
        for handle in std::mem::take(&mut self.guests.gone) {
            tenant.gone(handle);
        }
        for token in std::mem::take(&mut self.guests.owed) {
            self.give_back_buffer(tenant, token);
        }
        for token in std::mem::take(&mut self.guests.refused) {
            self.begin_replay(tenant, token);
        }
        for token in std::mem::take(&mut self.guests.fed) {
            self.feed(tenant, token);
        }
        for handle in std::mem::take(&mut self.guests.ended) {
            tenant.input_ended(handle);
        }
    }

    /// Hands the tenant the replies to its own calls.
    fn flush_inner(&mut self, tenant: &mut dyn Tenant) {
        let mut at = 0;
        while let Some(&index) = self.flush.get(at) {
            let inner = self.sessions.get(index as usize).and_then(|session| session.role.inner());
            let Some(handle) = inner else {
                at += 1;
                continue;
            };
            let token = self.token(index);
            let session = &mut self.sessions[index as usize];
            let part = match session.take_durable(self.log.watermark) {
                Ok(part) => part,
                Err(until) => {
                    // It is flushed again when the append log is that far.
                    session.in_flush = false;
                    if let Some(until) = until {
                        self.log.hold(until, token);
                    }
                    self.flush.swap_remove(at);
                    continue;
                }
            };
            let is_done = !session.has_output();
            session.in_flush = !is_done;
            let (bytes, splices) = part.parts();
            if splices.is_empty() {
                tenant.inner_replied(handle, bytes);
            } else {
                tenant.inner_replied(handle, &part.to_vec());
            }
            if is_done {
                self.flush.swap_remove(at);
                self.reuse(index, part);
            } else {
                // The next part of a long reply, in the next step.
                at += 1;
            }
        }
    }

    /// Lets a session go on with the buffer that its output was in.
    fn reuse(&mut self, index: u32, mut buffer: OutBuf) {
        buffer.clear(OUT_KEEP_BYTES);
        let token = self.token(index);
        let session = &mut self.sessions[index as usize];
        session.out = buffer;
        if !session.tail.is_empty() && session.may_run() {
            self.resume.push_back(token);
        }
    }

    /// Gives the tenant input of a guest, as much as it takes.
    fn feed(&mut self, tenant: &mut dyn Tenant, token: Token) {
        let Some(session) = self.session_mut(token).filter(|session| !session.closing) else {
            return;
        };
        let Some(guest) = session.role.guest() else {
            return;
        };
        let handle = guest.handle;
        if !guest.is_away {
            return;
        }
        if session.tail.is_empty() {
            // Nothing comes because too much has been here.
            return self.receive_more(token);
        }
        // While it replays, what the guest has sent since waits here.
        if guest.replayed.is_some() {
            return;
        }
        if !tenant.wants_input(handle) {
            return self.guests.waiting.push(token);
        }
        session.parser = Parser::default();
        let count = session.tail.len().min(FEED_BYTES_MAX);
        tenant.input(handle, &session.tail[..count], count < session.tail.len());
        session.tail.drain(..count);
        if !session.tail.is_empty() {
            self.guests.fed.push(token);
        } else if session.input_ended {
            self.guests.ended.push(handle);
        }
        self.receive_more(token);
    }

    fn receive_more(&mut self, token: Token) {
        let session = &mut self.sessions[token.index as usize];
        if session.tail.len() <= TAIL_STALL_BYTES {
            Self::arm_receive(&mut self.ring, token, session);
        }
    }

    /// Gives the tenant its buffer back, if what was in it is on its way.
    fn give_back_buffer(&mut self, tenant: &mut dyn Tenant, token: Token) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        let waits = session.pending_out_bytes() > OUT_STALL_BYTES;
        if let Some(guest) = session.role.guest().filter(|_| !waits)
            && let Some(buffer) = guest.owed.take()
        {
            let handle = guest.handle;
            tenant.took_output(handle, buffer);
            self.guests.fed.push(token);
        }
    }

    // ---- calls that were refused ----

    /// Gives the tenant the first call that was refused, when nothing else is awaited.
    fn begin_replay(&mut self, tenant: &mut dyn Tenant, token: Token) {
        let Some(session) = self.session_mut(token).filter(|session| !session.closing) else {
            return;
        };
        let awaited = session.awaited_count();
        let Some(guest) = session.role.guest() else {
            return;
        };
        if guest.replayed.is_some() || guest.refused.is_empty() {
            return;
        }
        if awaited > guest.refused.len() {
            // Whatever ran here comes first.
            return self.guests.refused.push(token);
        }
        guest.is_away = true;
        guest.replayed = Some(OutBuf::default());
        Self::replay(tenant, guest);
    }

    fn replay(tenant: &mut dyn Tenant, guest: &Guest) {
        if let Some((_, words)) = guest.refused.front() {
            let mut call = OutBuf::default();
            let args = words.args();
            write_call(&mut call, &args.iter_from(0).collect::<Vec<_>>());
            tenant.input(guest.handle, &call.to_vec(), false);
        }
    }

    /// The tenant has replied to a call that was refused: the reply takes its place.
    fn end_refused(&mut self, tenant: &mut dyn Tenant, token: Token) -> bool {
        let Some(session) = self.session_mut(token) else {
            return true;
        };
        let Some(guest) = session.role.guest() else {
            return true;
        };
        let Some(reply) = guest.replayed.take() else {
            return true;
        };
        let ticket = guest.refused.pop_front();
        let is_last = guest.refused.is_empty();
        if !is_last {
            guest.replayed = Some(OutBuf::default());
            Self::replay(tenant, guest);
        }
        let session = &mut self.sessions[token.index as usize];
        if let Some((ticket, _)) = ticket {
            session.ticket_done(ticket, reply);
            session.settle(&self.round.stash);
        }
        Self::flush_later(&mut self.flush, token.index, session);
        is_last
    }

    // ---- what the tenant wants ----

    fn do_op(&mut self, tenant: &mut dyn Tenant, op: Op) {
        match op {
            Op::Connect(socket, fd, to, timeout) => {
                self.ring.connect(token_of(socket), fd, to, timeout);
            }
            Op::Receive(socket, fd) => self.ring.receive(token_of(socket), fd),
            Op::Send(socket, fd, out, prompt) => self.ring.send(token_of(socket), fd, out, prompt),
            Op::Output(guest, out) => self.take_output(tenant, guest, out),
            Op::Back(guest, rest) => {
                if self.end_refused(tenant, guest) {
                    self.take_back(tenant, guest, rest);
                }
            }
            Op::Close(guest, when) => self.close_guest(guest, when),
            Op::OpenInner(handle) => {
                self.open_inner(handle);
                tenant.inner_opened(handle);
            }
            Op::Calls(handle, out) => self.take_calls(tenant, handle, out),
            Op::CloseInner(handle) => self.close_inner(handle),
            Op::StopAccepting => self.stop_accepting(true),
        }
    }

    /// Output of the tenant for a guest.
    fn take_output(&mut self, tenant: &mut dyn Tenant, token: Token, mut out: OutBuf) {
        let Some(session) = self.session_mut(token).filter(|session| !session.closing) else {
            return;
        };
        let Some(guest) = session.role.guest() else {
            return;
        };
        if let Some(replayed) = &mut guest.replayed {
            replayed.append_range(&out, (0, 0), out.mark());
            let handle = guest.handle;
            return tenant.took_output(handle, out);
        }
        if session.out.is_empty() {
            std::mem::swap(&mut session.out, &mut out);
        } else {
            session.out.append_range(&out, (0, 0), out.mark());
        }
        guest.owed = Some(out);
        let session = &mut self.sessions[token.index as usize];
        Self::flush_later(&mut self.flush, token.index, session);
        self.give_back_buffer(tenant, token);
    }

    /// A guest's calls run here again.
    fn take_back(&mut self, tenant: &dyn Tenant, token: Token, mut rest: Vec<u8>) {
        let Some(session) = self.session_mut(token).filter(|session| !session.closing) else {
            return;
        };
        let Some(guest) = session.role.guest() else {
            return;
        };
        guest.is_away = false;
        let handle = guest.handle;
        if let Some(known) = tenant.client(handle) {
            let client = &mut session.client;
            client.db = known.db;
            client.protocol = known.protocol;
            client.authenticated = known.authenticated;
            if client.name != known.name {
                client.name = known.name.clone();
            }
        }
        session.stall = Stall::None;
        session.parser = Parser::default();
        if !rest.is_empty() {
            rest.extend_from_slice(&session.tail);
            session.tail = rest;
        }
        if !session.tail.is_empty() || session.input_ended || !session.receiving {
            self.resume.push_back(token);
        }
    }

    fn close_guest(&mut self, token: Token, when: CloseWhen) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        if when == CloseWhen::Now || !session.is_settled() {
            return self.close(token, None);
        }
        session.client.close_after_reply = true;
        Self::flush_later(&mut self.flush, token.index, &mut self.sessions[token.index as usize]);
    }

    fn open_inner(&mut self, handle: Handle) {
        let mut client = ClientState::new(self.node.new_client_id(), self.id, -1, self.now);
        client.authenticated = true;
        client.is_trusted = true;
        let generation = self.next_generation();
        let session = Session::new(None, generation, client, Role::Inner(handle));
        let index = self.sessions.insert(session) as u32;
        let place = handle.index as usize;
        if self.guests.inner.len() <= place {
            self.guests.inner.resize(place + 1, None);
        }
        self.guests.inner[place] = Some((handle.generation, Token { index, generation }));
    }

    fn inner_token(&self, handle: Handle) -> Option<Token> {
        let (generation, token) = (*self.guests.inner.get(handle.index as usize)?)?;
        (generation == handle.generation).then_some(token)
    }

    /// Calls of the tenant's own: they are run in this turn's next round.
    fn take_calls(&mut self, tenant: &mut dyn Tenant, handle: Handle, calls: OutBuf) {
        let Some(token) = self.inner_token(handle) else {
            return;
        };
        if let Some(session) = self.session_mut(token) {
            session.take_in(calls.bytes());
            if session.may_run() && !session.needs_input() {
                self.resume.push_back(token);
            }
        }
        tenant.inner_read(handle, calls);
    }

    fn close_inner(&mut self, handle: Handle) {
        if let Some(token) = self.inner_token(handle) {
            self.guests.inner[handle.index as usize] = None;
            self.close(token, None);
        }
    }

    /// Number of inner sessions.
    pub(super) fn inner_count(&self) -> usize {
        self.guests.inner.iter().flatten().count()
    }

    // ---- opening ----

    /// Makes a session that has just connected a guest. `None`: the tenant does not want it.
    pub(super) fn receive_guest(&mut self, index: u32) -> Option<()> {
        let token = self.token(index);
        let session = &mut self.sessions[index as usize];
        let mut client =
            std::mem::replace(&mut session.client, ClientState::new(0, self.id, -1, self.now));
        let opened = self.rouse()?.open(token, &mut client);
        let session = &mut self.sessions[index as usize];
        session.client = client;
        let (handle, pulse) = opened?;
        session.role = Role::Guest(Box::new(Guest::new(handle, pulse)));
        Some(())
    }
}

/// Whether input of a session waits for the tenant.
#[inline]
pub(super) fn is_away(session: &Session) -> bool {
    session.stall == Stall::Away
}

/// Lets the kernel send a session's output.
pub(super) fn send(ring: &mut Ring, token: Token, session: &mut Session, out: OutBuf, now: Ms) {
    // What comes next, of a reply that is written part by part, must not wait for others.
    let is_last = session.out.is_empty();
    let prompt =
        is_last && !session.slow && session.sending_bytes <= super::turn::PROMPT_SEND_BYTES_MAX;
    if let Some(fd) = &session.fd {
        ring.send(token, fd.as_raw_fd(), out, prompt);
    }
    if let Some(guest) = session.role.guest() {
        guest.pulse.note_sending(Some(now));
    }
}
