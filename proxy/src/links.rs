//! The life of the connections to backends: dialled when first needed, greeted (password, protocol,
//! the core that is wanted), looked after, and lost. Requests of a lost link get an error at once; of
//! those, what the kernel has never seen is sent again.

use std::os::fd::AsRawFd;
use std::time::Duration;

use cordis_engine::net::guest::Handle;
use cordis_engine::resp::reply::{OutBuf, Protocol};
use cordis_engine::resp::value::{Value, ValueDecoder, ValueLimits};
use cordis_engine::runtime::ring::Token;
use cordis_engine::runtime::tenant;
use cordis_engine::slots::map::ServerKind;
use cordis_engine::sys::socket;
use cordis_engine::units::SLOT_COUNT;

use crate::backend::NO_LINK;
use crate::encode;
use crate::hub::{ENOBUFS, Hub, LINK_INDEX, Op, next_slice};
use crate::link::{Consumer, Flight, Link, LinkError, LinkId, LinkState, Slots, Step};
use crate::route::{BackendId, Lane, Unsent};

/// How long a connection may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answers to a greeting may take.
const GREETING_TIMEOUT_MS: i64 = 5_000;

impl Hub {
    /// The link of a lane, dialled if there is none.
    ///
    /// # Errors
    /// Its backend could not be reached a moment ago.
    pub(crate) fn link_for(&mut self, lane: Lane, protocol: Protocol) -> Result<u32, LinkError> {
        let link = self.backends.link(lane, protocol);
        if link != NO_LINK {
            return Ok(link);
        }
        let now = self.now;
        let slot = self.backends.get_mut(lane.backend).slot_of(lane.index, protocol);
        if let Some(error) = slot.refusal(now) {
            return Err(error);
        }
        match self.dial(lane, protocol) {
            Ok(link) => {
                let slot = self.backends.get_mut(lane.backend).slot_of(lane.index, protocol);
                slot.link = link;
                Ok(link)
            }
            Err(error) => {
                let slot = self.backends.get_mut(lane.backend).slot_of(lane.index, protocol);
                slot.lost(false, &error, now);
                Err(error)
            }
        }
    }

    /// Begins a connection.
    pub(crate) fn dial(&mut self, lane: Lane, protocol: Protocol) -> Result<u32, LinkError> {
        let backend = self.backends.get(lane.backend);
        if backend.is_own {
            return Ok(self.dial_inner(lane, protocol));
        }
        let Some(to) = backend.socket else {
            let why = format!("backend conn failure, `{}` is not ip:port", backend.addr);
            return Err(LinkError::new(why));
        };
        let fd = socket::dialler(to)
            .map_err(|error| LinkError::new(format!("backend conn failure, {error}")))?;
        socket::configure(&fd, self.settings.backend_keepalive_seconds, true);
        let raw = fd.as_raw_fd();
        let mut link = Link::new(lane.backend, lane.index, protocol, self.now);
        link.fd = Some(fd);
        link.generation = self.next_generation();
        let index = self.links.insert(link) as u32;
        self.ops.push(Op::Connect(self.link_token(index), raw, to, DIAL_TIMEOUT));
        Ok(index)
    }

    /// Begins a session with the server that hosts this proxy.
    fn dial_inner(&mut self, lane: Lane, protocol: Protocol) -> u32 {
        let mut link = Link::new(lane.backend, lane.index, protocol, self.now);
        link.is_inner = true;
        link.generation = self.next_generation();
        let index = self.links.insert(link) as u32;
        let handle = self.handle_of(index);
        self.host_ops.push_back(tenant::Op::OpenInner(handle));
        index
    }

    pub(crate) fn link_token(&self, index: u32) -> Token {
        Token { index: index | LINK_INDEX, generation: self.links[index as usize].generation }
    }

    /// The index of a token's link, unless it is gone.
    pub(crate) fn link_index(&self, token: Token) -> Option<u32> {
        let index = token.index & !LINK_INDEX;
        let link = self.links.get(index as usize)?;
        (link.generation == token.generation).then_some(index)
    }

    /// A connection is there, or not.
    pub(crate) fn link_connected(&mut self, index: u32, errno: i32) {
        let link = &self.links[index as usize];
        if link.state != LinkState::Dialling {
            // It was closed meanwhile: nothing is under way with the kernel any more.
            self.gone_links.push(index);
            return;
        }
        if errno != 0 {
            let error = std::io::Error::from_raw_os_error(errno);
            let addr = &self.backends.get(link.backend).addr;
            let why = LinkError::new(format!("backend conn failure, {addr}: {error}"));
            self.lose_link(index, &why);
            return self.bury_link_if_quiet(index);
        }
        let (greeting, steps) = self.greeting_of(index);
        let now = self.now;
        let token = self.link_token(index);
        let link = &mut self.links[index as usize];
        link.state = LinkState::Greeting;
        link.heard_at = now;
        link.greeting.extend(&greeting);
        link.steps = steps;
        if let Some(fd) = &link.fd {
            link.receiving = true;
            self.ops.push(Op::Receive(token, fd.as_raw_fd()));
        }
        self.flush_link_later(index);
    }

    fn greeting_of(&self, index: u32) -> (Vec<u8>, std::collections::VecDeque<Step>) {
        let link = &self.links[index as usize];
        let mut bytes = Vec::new();
        let mut steps = std::collections::VecDeque::new();
        let auth = self.settings.product_auth.as_bytes();
        if !auth.is_empty() && !link.is_inner {
            encode::request(&mut bytes, &[b"AUTH", auth]);
            steps.push_back(Step::Auth);
        }
        let secret = self.settings.cluster_secret.as_bytes();
        if self.backends.get(link.backend).kind == ServerKind::Cordis && !secret.is_empty() {
            encode::request(&mut bytes, &[b"CORDIS", b"AUTH", secret]);
            steps.push_back(Step::Secret);
        }
        if link.protocol == Protocol::Resp3 {
            encode::request(&mut bytes, &[b"HELLO", b"3"]);
            steps.push_back(Step::Hello);
        }
        // An inner link ends in this very core, from where every shard is reached through its door.
        if self.backends.get(link.backend).kind == ServerKind::Cordis && !link.is_inner {
            let core = link.lane.to_string();
            // A dedicated link has one call under way at a time: nothing can overtake it.
            let hello: [&[u8]; 5] = [b"CORDIS", b"HELLO", b"CORE", core.as_bytes(), b"STICKY"];
            encode::request(&mut bytes, if link.is_dedicated { &hello[..4] } else { &hello });
            steps.push_back(Step::Cores);
        }
        let last = self.settings.backend_number_databases.max(1) - 1;
        encode::request(&mut bytes, &[b"SELECT", last.to_string().as_bytes()]);
        steps.push_back(Step::LastDb);
        encode::request(&mut bytes, &[b"SELECT", b"0"]);
        steps.push_back(Step::FirstDb);
        (bytes, steps)
    }

    /// An answer to the greeting.
    pub(crate) fn greeted(&mut self, index: u32, reply: &[u8]) -> Result<(), LinkError> {
        let link = &mut self.links[index as usize];
        let backend = link.backend;
        let Some(step) = link.steps.pop_front() else {
            return Ok(());
        };
        let is_last = link.steps.is_empty();
        let is_error = reply.first() == Some(&b'-');
        match step {
            Step::Auth | Step::Hello | Step::FirstDb if is_error => {
                let addr = &self.backends.get(backend).addr;
                let text = String::from_utf8_lossy(reply);
                let text = text.trim_start_matches('-').trim_end();
                let why = format!("backend conn failure, {addr} answered {step:?} with: {text}");
                return Err(LinkError::new(why));
            }
            Step::Secret | Step::Cores if is_error => self.note_distrust(backend, reply),
            Step::Cores => self.learn_cores(backend, reply),
            Step::LastDb => {
                let all = self.settings.backend_number_databases.max(1);
                let count = if is_error { 1 } else { all };
                self.backends.get_mut(backend).database_count = count;
            }
            Step::Auth | Step::Hello | Step::Secret | Step::FirstDb => {}
        }
        if is_last {
            let link = &mut self.links[index as usize];
            link.state = LinkState::Ready;
            let (lane, protocol) = (link.lane, link.protocol);
            if !link.is_dedicated {
                self.backends.get_mut(backend).slot_of(lane, protocol).connected();
            }
            self.flush_link_later(index);
        }
        Ok(())
    }

    /// A server of ours does not tell this proxy what servers tell each other. It is served all the
    /// same, by one lane, and sums over slots that move are less exact: the log says so once.
    pub(crate) fn note_distrust(&mut self, backend: BackendId, reply: &[u8]) {
        let backend = self.backends.get_mut(backend);
        let is_new = !std::mem::replace(&mut backend.is_distrustful, true);
        if is_new && self.shared.is_first_distrust(&backend.addr) {
            let text = String::from_utf8_lossy(reply);
            tracing::warn!(
                backend = backend.addr,
                reply = text.trim_start_matches('-').trim_end(),
                "a server does not tell its cores and slots: is cluster_secret its cluster-secret?"
            );
        }
    }

    /// Reads which core of a server owns which slots.
    fn learn_cores(&mut self, backend: BackendId, reply: &[u8]) {
        let mut decoder = ValueDecoder::new(ValueLimits::default());
        decoder.extend(reply);
        let Ok(Some(value)) = decoder.next_value() else {
            return;
        };
        let cores = value.field("cores").and_then(Value::as_int).unwrap_or(1);
        let ranges = value.field("slots").and_then(Value::as_array).unwrap_or(&[]);
        let ranges: Vec<(u16, u16, u16)> = ranges.iter().filter_map(range_of).collect();
        let cores = u16::try_from(cores).unwrap_or(1);
        // Both protocols may have a link on each lane, of each core of this process.
        let share = self.settings.backend_links_max / (2 * self.shared.cores.len()).max(1);
        let lanes_max = u16::try_from(share).unwrap_or(u16::MAX).max(1);
        let lanes = self.backends.set_cores(backend, cores, &ranges, lanes_max);
        self.routes.set_lanes(backend, lanes, self.now);
        self.run_actions();
    }

    /// The kernel has taken what a link had to send.
    pub(crate) fn link_sent(&mut self, index: u32, buffer: OutBuf, errno: i32, late: bool) {
        let link = &mut self.links[index as usize];
        link.slow = late;
        link.sent(buffer);
        if link.state == LinkState::Closing {
            return self.bury_link_if_quiet(index);
        }
        if errno != 0 {
            let error = std::io::Error::from_raw_os_error(errno);
            return self
                .lose_link(index, &LinkError::new(format!("backend conn failure, {error}")));
        }
        self.flush_link_later(index);
        self.unpause(index);
    }

    /// A link's socket delivers no more.
    pub(crate) fn link_receive_ended(&mut self, index: u32, errno: i32) {
        let link = &mut self.links[index as usize];
        link.receiving = false;
        if link.state == LinkState::Closing {
            return self.bury_link_if_quiet(index);
        }
        if errno == ENOBUFS {
            return self.link_receive_again(index);
        }
        let why = match errno {
            0 => "backend conn reset".to_owned(),
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                format!("backend conn failure, {error}")
            }
        };
        self.lose_link(index, &LinkError::new(why));
    }

    pub(crate) fn link_receive_again(&mut self, index: u32) {
        let token = self.link_token(index);
        let link = &mut self.links[index as usize];
        if let Some(fd) = &link.fd
            && link.state != LinkState::Closing
        {
            link.receiving = true;
            self.ops.push(Op::Receive(token, fd.as_raw_fd()));
        }
    }

    /// A link is of no use any more: those who wait for its replies are told, its socket is closed.
    pub(crate) fn lose_link(&mut self, index: u32, why: &LinkError) {
        let now = self.now;
        let link = &mut self.links[index as usize];
        if link.state == LinkState::Closing {
            return;
        }
        let was_dialling = link.state == LinkState::Dialling;
        let was_ready = link.state == LinkState::Ready;
        let (backend, protocol, lane) = (link.backend, link.protocol, link.lane);
        link.state = LinkState::Closing;
        let (owner, is_dedicated) = (link.owner.take(), link.is_dedicated);
        let flights = std::mem::take(&mut link.flights);
        let waiters = std::mem::take(&mut link.waiters);
        let id = LinkId { index, generation: link.generation };
        if let Some(fd) = &link.fd {
            socket::shutdown(fd);
        }
        if link.is_inner {
            let handle = Handle { index, generation: link.generation };
            self.host_ops.push_back(tenant::Op::CloseInner(handle));
        }
        // Copied before anybody is told, who might send again and find the link gone.
        let mut unsent = Vec::new();
        let mut failed = Vec::new();
        for flight in flights {
            let bytes = link.request_bytes(&flight);
            let may_go = was_ready && !link.may_be_sent(&flight);
            match bytes {
                Some(bytes) if may_go && flight.slots != Slots::None => {
                    unsent.push((flight, bytes.to_vec()));
                }
                _ => failed.push(flight),
            }
        }
        // Whoever closes a dedicated link takes it away from its owner first.
        if !is_dedicated || owner.is_some() {
            tracing::warn!(
                backend = self.backends.get(backend).addr,
                why = why.text(),
                requests = failed.len(),
                "a link to a backend was lost"
            );
            self.stats().links_lost.add(1);
            self.backends.get(backend).stats.links_lost.add(1);
        }
        if !is_dedicated {
            self.backends.get_mut(backend).slot_of(lane, protocol).lost(was_ready, why, now);
        }
        if !was_dialling {
            self.bury_link_if_quiet(index);
        }
        self.take_back(unsent, &failed, protocol);
        for flight in failed {
            self.backends.get(backend).stats.failed.add(1);
            self.finish(flight.consumer, Some((flight.command, flight.at)), Err(why));
        }
        self.forget_link(owner, id);
        if let Some((owner, dedicated)) = owner {
            (dedicated.lost)(self, owner, id, why);
        }
        waiters.into_iter().for_each(|token| self.resume(token));
        self.run_actions();
    }

    /// Gives the routes back what was never sent, and the slots of what was.
    fn take_back(&mut self, unsent: Vec<(Flight, Vec<u8>)>, failed: &[Flight], protocol: Protocol) {
        let lost: Vec<_> = failed.iter().map(|flight| self.take_slots(flight.slots)).collect();
        let mut back = Vec::new();
        for (flight, bytes) in unsent {
            let request = self.request_of(&flight, bytes, protocol);
            self.note_held(&request, true);
            let deadline = self.deadline_of(flight.at);
            let (seq, slots) = (flight.seq, request.slots.clone());
            back.push(Unsent { request, seq, slots, deadline });
        }
        self.routes.link_lost(back, &lost, self.now);
    }

    pub(crate) fn bury_link_if_quiet(&mut self, index: u32) {
        let link = &self.links[index as usize];
        if link.state == LinkState::Closing && !link.receiving && !link.is_sending {
            self.gone_links.push(index);
        }
    }

    /// Forgets links that have ended. Twice in the list is once too often.
    pub(crate) fn bury_links(&mut self) {
        let mut gone = std::mem::take(&mut self.gone_links);
        gone.sort_unstable();
        gone.dedup();
        for index in gone.drain(..) {
            if self.links.get(index as usize).is_some_and(|l| l.state == LinkState::Closing) {
                self.links.remove(index as usize);
            }
        }
        self.gone_links = gone;
    }

    /// Ends links that are silent although they owe replies, and asks idle ones for a sign of life.
    pub(crate) fn look_after_links(&mut self) {
        let (timeout, ping) =
            (self.settings.backend_recv_timeout_ms, self.settings.backend_ping_period_ms);
        let slice = next_slice(&mut self.care_links_from, self.links.capacity());
        let mut silent = Vec::new();
        let mut idle = Vec::new();
        let now = self.now.0;
        for index in slice {
            let Some(link) = self.links.get(index) else {
                continue;
            };
            let since = now - link.heard_at.0;
            let waits = link.flights.front().is_some_and(|flight| !flight.is_patient);
            match link.state {
                LinkState::Greeting if since > GREETING_TIMEOUT_MS => silent.push(index as u32),
                LinkState::Ready if waits && timeout > 0 && since > timeout => {
                    silent.push(index as u32);
                }
                LinkState::Ready if link.flights.is_empty() && ping > 0 && since > ping => {
                    idle.push(index as u32);
                }
                _ => {}
            }
        }
        for index in silent {
            self.lose_link(index, &LinkError::new("backend conn failure, i/o timeout"));
        }
        for index in idle {
            let link = &mut self.links[index as usize];
            if !link.is_dedicated {
                link.heard_at = self.now;
                link.push_own(b"*1\r\n$4\r\nPING\r\n", Consumer::Ping);
                self.flush_link_later(index);
            }
        }
    }

    /// Lets sessions go on that waited for room on a link.
    pub(crate) fn resume_waiters(&mut self, index: u32) {
        let settings = &self.settings;
        let link = &mut self.links[index as usize];
        // Half of it, so that sessions do not wake for one request each.
        let requests_max = (settings.backend_max_pipeline / 2).max(1);
        if link.has_room(requests_max, settings.backend_pending_bytes_max / 2) {
            let waiters = std::mem::take(&mut link.waiters);
            waiters.into_iter().for_each(|token| self.resume(token));
        }
    }
}

fn range_of(value: &Value) -> Option<(u16, u16, u16)> {
    let numbers = value.as_array()?;
    let at = |index: usize| u16::try_from(numbers.get(index)?.as_int()?).ok();
    let (from, to, core) = (at(0)?, at(1)?, at(2)?);
    (from <= to && usize::from(to) < SLOT_COUNT).then_some((from, to, core))
}
