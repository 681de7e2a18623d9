//! A proxy core within a server's core: the same hub, whose clients are the server's *guests* and
//! whose links to that very server are *inner* sessions, with no socket between
//! ([`cordis_engine::runtime::tenant`] has the other side).
//!
//! A call on slots that this server serves and that nothing stands in the way of runs in the server's
//! own intake, and the hub only says so. It gets all other calls of a session, and then everything
//! of it until all has been answered: so the order of a session's calls is never in two hands. What
//! the hub makes of a call is what a proxy of its own process would: this server is one backend
//! among others to it, which refuses what it does not serve.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use cordis_engine::commands::table::{Command, table};
use cordis_engine::net::client::{ClientState, ReplyMode};
use cordis_engine::net::guest::{Handle, Pulse};
use cordis_engine::resp::parse::Parser;
use cordis_engine::resp::reply::OutBuf;
use cordis_engine::runtime::ring::Token;
use cordis_engine::runtime::tenant::{self, CloseWhen, TENANT_BIT, Tenant};
use cordis_engine::units::{CoreId, SlotId};

use crate::hub::{Hub, LINK_INDEX, Op};
use crate::link::LinkState;
use crate::session::{Session, Stall, TAIL_STALL_BYTES};
use crate::shared::{Mailbox, Shared};
use crate::ways::{Way, Ways};

/// The socket of the letter box.
const WAKE: Handle = Handle { index: TENANT_BIT - 1, generation: 0 };
/// Input that a session takes along when its calls run in the server again. One with more goes on
/// here until there is less.
const REST_BYTES_MAX: usize = 64 * 1024;

/// Where the server listens that this proxy lives in.
#[derive(Clone, Debug, Default)]
pub struct OwnAddrs {
    addrs: Vec<SocketAddr>,
}

impl OwnAddrs {
    /// A server that listens at these addresses.
    pub fn new(addrs: Vec<SocketAddr>) -> Self {
        Self { addrs }
    }

    /// Whether an address leads to the server: it is one of its own, or one of this host's where the
    /// server listens on all of them.
    pub(crate) fn contain(&self, addr: SocketAddr) -> bool {
        let is_it = |own: &SocketAddr| {
            own.port() == addr.port()
                && (own.ip() == addr.ip() || own.ip().is_unspecified() && is_of_host(addr.ip()))
        };
        self.addrs.iter().any(is_it)
    }
}

/// Whether an address is one of this host's: only those can be bound.
fn is_of_host(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// A session's other half, in the server's core.
#[derive(Debug)]
pub(crate) struct Hosted {
    /// What the server's core calls it.
    pub(crate) guest: Token,
    /// Signs of life while its calls run there.
    pulse: Arc<Pulse>,
    /// The hub has its input.
    is_here: bool,
    /// More of its input follows.
    has_more: bool,
}

impl Hub {
    /// A session whose connection the server's core has.
    pub(crate) fn open_hosted(
        &mut self,
        guest: Token,
        client: &mut ClientState,
    ) -> Option<(Handle, Arc<Pulse>)> {
        if self.stopping {
            self.shared.give_place_back();
            return None;
        }
        let id = self.shared.new_client_id();
        let mut own = ClientState::new(id, CoreId(self.core as u16), client.fd, self.now);
        own.authenticated = self.settings.session_auth.is_empty();
        own.addr = client.addr.clone();
        own.laddr = client.laddr.clone();
        client.authenticated = own.authenticated;
        let pulse = Arc::<Pulse>::default();
        pulse.note_calls(self.now, None);
        let mut session = Session::new(None, self.next_generation(), own);
        let generation = session.generation;
        session.hosted =
            Some(Hosted { guest, pulse: pulse.clone(), is_here: false, has_more: false });
        let index = self.sessions.insert(session) as u32;
        self.stats().sessions.add(1);
        self.stats().connections.add(1);
        Some((Handle { index, generation }, pulse))
    }

    /// Sends a session's output by the server's core.
    pub(crate) fn send_hosted(&mut self, guest: Token, out: OutBuf) {
        self.host_ops.push_back(tenant::Op::Output(guest, out));
    }

    /// Has the server's core close a session's connection.
    pub(crate) fn close_hosted(&mut self, guest: Token, why: Option<&str>) {
        let when = if why.is_some() { CloseWhen::Now } else { CloseWhen::Drained };
        self.host_ops.push_back(tenant::Op::Close(guest, when));
    }

    /// Takes note of what sessions have done while their calls ran in the server.
    pub(crate) fn look_at_guests(&mut self) {
        for (_, session) in &mut self.sessions {
            let Some(hosted) = session.hosted.as_ref().filter(|hosted| !hosted.is_here) else {
                continue;
            };
            session.client.last_at = hosted.pulse.last_at();
            if let Some(id) = hosted.pulse.last_command() {
                session.client.last_command = self.commands.get(usize::from(id)).copied();
            }
            session.is_sending = hosted.pulse.sending_since().is_some();
            if let Some(since) = hosted.pulse.sending_since() {
                session.took_output_at = since;
            }
        }
    }

    // ---- inner links ----

    pub(crate) fn handle_of(&self, link: u32) -> Handle {
        Handle { index: link, generation: self.links[link as usize].generation }
    }

    /// The server has read what an inner link said.
    fn inner_read(&mut self, index: u32, buffer: OutBuf) {
        let link = &mut self.links[index as usize];
        link.sent(buffer);
        if link.state == LinkState::Closing {
            return self.bury_link_if_quiet(index);
        }
        if link.has_output() {
            self.flush_link_later(index);
        }
        self.unpause(index);
    }

    /// Gives a session back to the server's core, if nothing of it is left here.
    fn return_guest(&mut self, token: Token) {
        let Some(session) = self.session(token) else {
            return;
        };
        let is_plain = !session.special
            && session.client.authenticated
            && session.client.reply_mode == ReplyMode::On;
        let is_done = session.is_drained() && session.stall == Stall::None;
        let may_go = !session.closing && !session.client.close_after_reply && !session.input_ended;
        let Some(hosted) = session.hosted.as_mut().filter(|hosted| hosted.is_here) else {
            return;
        };
        let may_go = may_go && !hosted.has_more;
        if is_plain && is_done && may_go && session.tail.len() <= REST_BYTES_MAX {
            hosted.is_here = false;
            let guest = hosted.guest;
            session.parser = Parser::default();
            let rest = std::mem::take(&mut session.tail);
            self.host_ops.push_back(tenant::Op::Back(guest, rest));
        }
    }
}

/// Commands by their ids.
pub(crate) fn commands_by_id() -> Vec<&'static Command> {
    let mut all: Vec<&'static Command> =
        table().all().iter().flat_map(|c| std::iter::once(c).chain(&c.subcommands)).collect();
    all.sort_unstable_by_key(|command| command.id);
    all
}

/// A proxy core that is a server's tenant.
#[derive(Debug)]
pub struct InServer {
    hub: Hub,
    mailbox: Mailbox,
    /// By command id: its calls may run in the server.
    is_direct: Vec<bool>,
    ops: VecDeque<tenant::Op>,
    has_ticked: bool,
    is_stopping: bool,
}

impl InServer {
    /// The part of a proxy that lives in this core of the server that listens at `own`.
    pub fn new(
        core: usize,
        shared: Arc<Shared>,
        ways: Arc<Ways>,
        mailbox: Mailbox,
        own: OwnAddrs,
    ) -> Self {
        let is_direct =
            |command: &&Command| matches!(ways.of(command), Way::Key | Way::Keys | Way::Split);
        let is_direct = commands_by_id().iter().map(is_direct).collect();
        let mut hub = Hub::new(core, shared, ways);
        hub.own = own;
        let map = hub.shared.map();
        hub.adopt_map(&map);
        let ops = VecDeque::from([tenant::Op::Receive(WAKE, mailbox.wake.as_raw_fd())]);
        Self { hub, mailbox, is_direct, ops, has_ticked: false, is_stopping: false }
    }

    fn link(&self, socket: Handle) -> Option<u32> {
        let Handle { index, generation } = socket;
        self.hub.link_index(Token { index: index | LINK_INDEX, generation })
    }

    /// The hub's wishes as the server's core knows them.
    fn take_ops(&mut self) {
        let socket = |token: Token| Handle {
            index: token.index & !LINK_INDEX,
            generation: token.generation,
        };
        for op in self.hub.ops.drain(..) {
            self.ops.push_back(match op {
                Op::Connect(link, fd, to, timeout) => {
                    tenant::Op::Connect(socket(link), fd, to, timeout)
                }
                Op::Receive(link, fd) => tenant::Op::Receive(socket(link), fd),
                Op::Send(link, fd, out, prompt) => tenant::Op::Send(socket(link), fd, out, prompt),
                // Only sessions with a socket of the hub's own stop receiving: there are none here.
                Op::CancelReceive(_) => continue,
            });
        }
        self.ops.append(&mut self.hub.host_ops);
    }
}

fn session_token(handle: Handle) -> Token {
    Token { index: handle.index, generation: handle.generation }
}

impl Tenant for InServer {
    fn begin_turn(&mut self) {
        self.hub.bury();
        self.hub.begin_turn();
        self.has_ticked = false;
        if self.hub.stopping && !self.is_stopping {
            self.is_stopping = true;
            self.ops.push_back(tenant::Op::StopAccepting);
        }
    }

    fn received(&mut self, socket: Handle, bytes: &[u8], armed: bool) {
        if socket == WAKE {
            if !armed {
                self.ops.push_back(tenant::Op::Receive(WAKE, self.mailbox.wake.as_raw_fd()));
            }
            self.hub.shared.answer_ring(self.hub.core);
            while let Ok(letter) = self.mailbox.letters.try_recv() {
                letter(&mut self.hub);
            }
        } else if let Some(index) = self.link(socket) {
            self.hub.link_received(index, bytes);
            if !armed {
                self.hub.link_receive_again(index);
            }
        }
    }

    fn receive_ended(&mut self, socket: Handle, errno: i32) {
        if socket == WAKE {
            self.ops.push_back(tenant::Op::Receive(WAKE, self.mailbox.wake.as_raw_fd()));
        } else if let Some(index) = self.link(socket) {
            self.hub.link_receive_ended(index, errno);
        }
    }

    fn sent(&mut self, socket: Handle, buffer: OutBuf, errno: i32, late: bool) {
        if let Some(index) = self.link(socket) {
            self.hub.link_sent(index, buffer, errno, late);
        }
    }

    fn connected(&mut self, socket: Handle, errno: i32) {
        if let Some(index) = self.link(socket) {
            self.hub.link_connected(index, errno);
        }
    }

    fn take_place(&mut self) -> bool {
        let is_free = self.hub.shared.take_place();
        if !is_free {
            self.hub.stats().rejected_connections.add(1);
        }
        is_free
    }

    fn give_place_back(&mut self) {
        self.hub.shared.give_place_back();
    }

    fn open(&mut self, guest: Token, client: &mut ClientState) -> Option<(Handle, Arc<Pulse>)> {
        self.hub.open_hosted(guest, client)
    }

    #[inline]
    fn runs_here(&mut self, command: &Command, slots: &[SlotId]) -> bool {
        let id = usize::from(command.id);
        let hub = &self.hub;
        let is_open = |slot: &SlotId| {
            let lane = hub.routes.ready_lane(*slot);
            lane.is_some_and(|lane| hub.backends.get(lane.backend).is_own)
        };
        if !self.is_direct[id] || !slots.iter().all(is_open) {
            return false;
        }
        let stats = hub.stats();
        stats.calls.add(1);
        stats.local.add(1);
        stats.commands[id].calls.add(1);
        true
    }

    fn wants_input(&self, guest: Handle) -> bool {
        let session = self.hub.sessions.get(guest.index as usize);
        session
            .is_none_or(|session| session.tail.len() <= TAIL_STALL_BYTES || session.needs_input())
    }

    fn input(&mut self, guest: Handle, bytes: &[u8], more: bool) {
        let token = session_token(guest);
        if let Some(session) = self.hub.session(token)
            && let Some(hosted) = &mut session.hosted
        {
            (hosted.is_here, hosted.has_more) = (true, more);
            session.is_sending = false;
            self.hub.session_received(token, bytes, true);
        }
    }

    fn input_ended(&mut self, guest: Handle) {
        self.hub.session_ended(session_token(guest));
    }

    fn took_output(&mut self, guest: Handle, buffer: OutBuf) {
        self.hub.session_sent(session_token(guest), buffer, 0, false);
    }

    fn client(&self, guest: Handle) -> Option<&ClientState> {
        let session = self.hub.sessions.get(guest.index as usize);
        session.filter(|session| session.generation == guest.generation).map(|s| &s.client)
    }

    fn gone(&mut self, guest: Handle) {
        let token = session_token(guest);
        if let Some(session) = self.hub.session(token) {
            session.sending_bytes = 0;
            self.hub.close(token, None);
        }
    }

    fn inner_opened(&mut self, inner: Handle) {
        self.connected(inner, 0);
    }

    fn inner_read(&mut self, inner: Handle, buffer: OutBuf) {
        if let Some(index) = self.link(inner) {
            self.hub.inner_read(index, buffer);
        }
    }

    fn inner_replied(&mut self, inner: Handle, bytes: &[u8]) {
        if let Some(index) = self.link(inner) {
            self.hub.link_received(index, bytes);
        }
    }

    fn step(&mut self) {
        self.hub.run_resumed();
        if !self.has_ticked {
            self.has_ticked = true;
            self.hub.tick();
        }
        self.hub.flush();
        self.take_ops();
    }

    fn next_op(&mut self) -> Option<tenant::Op> {
        if self.ops.is_empty() {
            // What was done since may have been the last thing of a session here.
            while let Some(token) = self.hub.returning.pop() {
                self.hub.return_guest(token);
            }
            self.take_ops();
        }
        self.ops.pop_front()
    }

    fn has_work(&self) -> bool {
        self.hub.has_work() || !self.ops.is_empty() || !self.hub.host_ops.is_empty()
    }

    fn next_in_ms(&self) -> Option<i64> {
        // By the hub's own clock, which is never set.
        self.hub.next_deadline().map(|at| at.0 - self.hub.now.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_those_of_the_server_or_of_this_host() {
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let one = OwnAddrs::new(vec![addr("127.0.0.1:6379")]);
        assert!(one.contain(addr("127.0.0.1:6379")));
        assert!(!one.contain(addr("127.0.0.1:6380")) && !one.contain(addr("127.0.0.2:6379")));
        let all = OwnAddrs::new(vec![addr("0.0.0.0:6379")]);
        assert!(all.contain(addr("127.0.0.1:6379")));
        // An address of a net for documentation, which no host has.
        assert!(!all.contain(addr("203.0.113.7:6379")));
        assert!(!OwnAddrs::default().contain(addr("127.0.0.1:6379")));
    }

    #[test]
    fn commands_are_found_by_their_ids() {
        for (id, command) in commands_by_id().iter().enumerate() {
            assert_eq!(usize::from(command.id), id);
        }
    }
}
