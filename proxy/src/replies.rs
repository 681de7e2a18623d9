//! From bytes that a backend sent to the replies of sessions: finds where each reply ends, hands it
//! to whoever waits for it, piece by piece if it is long, and takes back requests that were refused.

use cordis_engine::observe::slowlog::Slow;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::scan::Scanned;
use cordis_engine::runtime::ring::Token;
use cordis_engine::units::{CoreId, SlotId};

use crate::hub::Hub;
use crate::link::{Consumer, Flight, LinkError, LinkId, LinkState, Slots};
use crate::request::{Request, fault_error, link_error_reply};
use crate::route::{Action, BackendId, Lane, Refusal, SlotList};
use crate::session::Place;
use crate::split::words_of;

/// Replies of a link beyond this wait no longer for the kernel to give a buffer back.
const PAUSED_BYTES_MAX: usize = 64 << 20;

impl Hub {
    /// Takes what a link received.
    pub(crate) fn link_received(&mut self, index: u32, bytes: &[u8]) {
        let link = &mut self.links[index as usize];
        if link.state == LinkState::Closing {
            return;
        }
        link.heard_at = self.now;
        let result = self.take_replies(index, bytes);
        if let Err(error) = result {
            self.lose_link(index, &error);
        } else if !self.links[index as usize].waiters.is_empty() {
            self.resume_waiters(index);
        }
    }

    fn take_replies(&mut self, index: u32, mut bytes: &[u8]) -> Result<(), LinkError> {
        let link = &mut self.links[index as usize];
        if link.is_paused {
            link.tail.extend_from_slice(bytes);
            if link.tail.len() > PAUSED_BYTES_MAX {
                return Err(LinkError::new("backend conn reset, it does not take requests"));
            }
            return Ok(());
        }
        if !link.tail.is_empty() {
            // Only the line that was cut is copied, not all that came behind it.
            let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |lf| lf + 1);
            let mut tail = std::mem::take(&mut link.tail);
            tail.extend_from_slice(&bytes[..line]);
            bytes = &bytes[line..];
            let at = self.scan_replies(index, &tail)?;
            tail.drain(..at);
            let link = &mut self.links[index as usize];
            let is_cut = !tail.is_empty();
            link.tail = tail;
            if is_cut || link.is_paused {
                // It is still not whole, or it must wait: the rest comes behind it.
                if link.is_paused {
                    link.tail.extend_from_slice(bytes);
                    return Ok(());
                }
                return if bytes.is_empty() { Ok(()) } else { self.take_replies(index, bytes) };
            }
        }
        let at = self.scan_replies(index, bytes)?;
        let link = &mut self.links[index as usize];
        if link.state != LinkState::Closing {
            link.tail.extend_from_slice(&bytes[at..]);
        }
        Ok(())
    }

    /// The kernel has given the buffer back that a refused request lies in.
    pub(crate) fn unpause(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if !std::mem::take(&mut link.is_paused) {
            return;
        }
        let tail = std::mem::take(&mut link.tail);
        let result = self.scan_replies(index, &tail).map(|at| {
            self.links[index as usize].tail.extend_from_slice(&tail[at..]);
        });
        if let Err(error) = result {
            self.lose_link(index, &error);
        }
    }

    /// Hands out the replies in `bytes`. How much of it was used.
    fn scan_replies(&mut self, index: u32, bytes: &[u8]) -> Result<usize, LinkError> {
        let mut at = 0;
        while at < bytes.len() {
            let link = &mut self.links[index as usize];
            if link.state == LinkState::Closing {
                return Ok(bytes.len());
            }
            let is_first = link.scanner.is_at_start();
            let scanned = link
                .scanner
                .scan(bytes, at)
                .map_err(|error| LinkError::new(format!("backend conn failure, {error}")))?;
            let (end, is_whole) = match scanned {
                Scanned::Done(end) => (end, true),
                Scanned::More(end) => (end, false),
            };
            if end > at && !self.reply(index, &bytes[at..end], is_first, is_whole)? {
                // It is looked at again when its request's bytes are back.
                self.links[index as usize].scanner.reset();
                return Ok(at);
            }
            at = end;
            if !is_whole {
                break;
            }
        }
        Ok(at)
    }

    /// Takes a reply, or a piece of one. `false`: it has to come again.
    #[inline]
    fn reply(
        &mut self,
        index: u32,
        bytes: &[u8],
        is_first: bool,
        is_whole: bool,
    ) -> Result<bool, LinkError> {
        let link = &mut self.links[index as usize];
        let is_plain = link.state == LinkState::Ready && link.collected.is_empty();
        if is_plain
            && let Some(flight) = link.flights.front()
            && let Consumer::Session { index: session, generation, ticket } = flight.consumer
            && flight.replies_left == 1
            && !flight.is_refused
            && !(is_first && matches!(bytes[0], b'-' | b'>'))
        {
            if is_whole {
                self.pop_answered(index);
            }
            self.deliver(Token { index: session, generation }, ticket, bytes, is_whole);
            return Ok(true);
        }
        self.other_reply(index, bytes, is_first, is_whole)
    }

    /// What the hot path leaves out.
    fn other_reply(
        &mut self,
        index: u32,
        bytes: &[u8],
        is_first: bool,
        is_whole: bool,
    ) -> Result<bool, LinkError> {
        let link = &mut self.links[index as usize];
        let is_greeting = link.state == LinkState::Greeting;
        let begins_push = link.collected.is_empty() && is_first && bytes[0] == b'>';
        let goes_on_push = link.collected.first() == Some(&b'>');
        let is_push = begins_push || goes_on_push || (link.flights.is_empty() && !is_greeting);
        if is_push && link.owner.is_none() {
            return Err(LinkError::new("backend conn failure, a reply that nobody asked for"));
        }
        if !is_push
            && !is_greeting
            && is_first
            && is_whole
            && bytes[0] == b'-'
            && let Some(refusal) = self.refusal(index, bytes)
        {
            return Ok(self.refused(index, refusal));
        }
        let link = &mut self.links[index as usize];
        if is_push || is_greeting {
            link.collected.extend_from_slice(bytes);
            if is_whole {
                let whole = std::mem::take(&mut link.collected);
                if is_push {
                    self.unsolicited(index, &whole);
                } else {
                    self.greeted(index, &whole)?;
                }
            }
            return Ok(true);
        }
        self.asked_reply(index, bytes, is_first, is_whole)
    }

    /// A reply, or a piece of one, to the first request under way.
    fn asked_reply(
        &mut self,
        index: u32,
        bytes: &[u8],
        is_first: bool,
        is_whole: bool,
    ) -> Result<bool, LinkError> {
        let link = &mut self.links[index as usize];
        let Some(flight) = link.flights.front_mut() else {
            return Ok(true);
        };
        if flight.replies_left > 1 {
            flight.replies_left -= u16::from(is_whole);
            return Ok(true);
        }
        if flight.is_refused {
            if !is_whole {
                return Ok(true);
            }
            let is_done = self.send_again(index, Refusal::TryAgain(None));
            if !is_done && !is_first {
                return Err(LinkError::new("backend conn reset, a refused block got a long reply"));
            }
            return Ok(is_done);
        }
        match flight.consumer {
            Consumer::Session { index: session, generation, ticket } => {
                if is_whole {
                    self.pop_answered(index);
                }
                self.deliver(Token { index: session, generation }, ticket, bytes, is_whole);
            }
            Consumer::Silent { index: session, generation, ticket } => {
                if is_whole {
                    self.pop_answered(index);
                    self.deliver(Token { index: session, generation }, ticket, &[], true);
                }
            }
            Consumer::Select | Consumer::Ping | Consumer::Retry => {
                if is_whole {
                    let is_select = flight.consumer == Consumer::Select;
                    link.pop_flight();
                    if is_select && bytes[0] == b'-' {
                        // What follows would run in another database than it is meant for.
                        let text = String::from_utf8_lossy(bytes);
                        let why = format!("backend conn failure, SELECT failed: {}", text.trim());
                        return Err(LinkError::new(why));
                    }
                }
            }
            consumer => {
                link.collected.extend_from_slice(bytes);
                if is_whole {
                    let whole = std::mem::take(&mut link.collected);
                    let flight = self.pop_answered(index);
                    self.finish(consumer, flight, Ok(&whole));
                }
            }
        }
        Ok(true)
    }

    /// Takes the first request under way: it has been answered.
    #[inline]
    fn pop_answered(&mut self, index: u32) -> Option<(u16, u64)> {
        let link = &mut self.links[index as usize];
        let ns = self.clock.ns_between(link.flights.front()?.at, self.ticks);
        if ns >= self.slow_ns {
            self.note_slow(index, ns);
        }
        let link = &mut self.links[index as usize];
        let flight = link.pop_flight()?;
        let backend = link.backend;
        self.answered(&flight, backend, ns);
        Some((flight.command, flight.at))
    }

    /// Keeps the first request under way in the slow log.
    #[cold]
    fn note_slow(&mut self, index: u32, ns: u64) {
        let link = &self.links[index as usize];
        let Some(flight) = link.flights.front() else {
            return;
        };
        let Consumer::Session { index, generation, .. } = flight.consumer else {
            return;
        };
        let mut ranges = Vec::new();
        // While the kernel still has the bytes they cannot be shown; that is rare.
        let args = link.request_bytes(flight).and_then(|bytes| words_of(bytes, &mut ranges));
        let session = self.sessions.get(index as usize).filter(|s| s.generation == generation);
        if let (Some(args), Some(session)) = (args, session) {
            let client = &session.client;
            let (addr, name) = (&*client.addr, &*client.name);
            let slow = Slow { at: self.now, us: ns / 1_000, addr, name };
            let core = CoreId(self.core as u16);
            let len_max = self.settings.slowlog_max_len;
            self.shared.node.slowlog.push(core, slow, &args, len_max);
        }
    }

    /// Takes note of a request that has been answered.
    #[inline]
    fn answered(&mut self, flight: &Flight, backend: BackendId, ns: u64) {
        let stats = &self.shared.cores[self.core].stats;
        // Questions of the proxy's own are no calls: who asks counts what it answers.
        if let Some(command) = stats.commands.get(usize::from(flight.command)) {
            stats.calls.add(1);
            command.calls.add(1);
            command.time.record(ns);
        }
        let of_backend = &self.backends.get(backend).stats;
        of_backend.calls.add(1);
        of_backend.time.record(ns);
        match flight.slots {
            Slots::One(slot) => {
                self.routes.answered(slot, self.now);
                if self.routes.has_actions() {
                    self.run_actions();
                }
            }
            Slots::None => {}
            Slots::Many(list) => {
                let slots = self.slot_lists.remove(list as usize);
                self.routes.answered_many(&slots, self.now);
                self.run_actions();
            }
        }
    }

    /// What an error says about the slots of the first request under way, if its server refused it.
    fn refusal(&mut self, index: u32, line: &[u8]) -> Option<Refusal> {
        let link = &self.links[index as usize];
        let flight = link.flights.front()?;
        if flight.slots == Slots::None || !self.backends.get(link.backend).refuses() {
            return None;
        }
        let text = line[1..].strip_suffix(b"\r\n")?;
        let mut words = text.split(|&byte| byte == b' ');
        let kind = words.next()?;
        let refusal = match kind {
            b"MOVED" => {
                let slot = parse_i64(words.next()?).and_then(|n| SlotId::new(n as u64))?;
                let addr = std::str::from_utf8(words.next()?).ok()?;
                addr.parse::<std::net::SocketAddr>().ok()?;
                let to = self.intern(addr, None);
                Refusal::Moved(slot, to)
            }
            b"TRYAGAIN" | b"ASK" => Refusal::TryAgain(slot_in(text)),
            b"CLUSTERDOWN" => Refusal::Down(slot_in(text)),
            _ => return None,
        };
        if let Some(slot) = refusal.slot() {
            self.links[index as usize].note_refused(slot);
        }
        Some(refusal)
    }

    /// The first request under way was refused, or one of its block. `false`: the kernel has its
    /// bytes, so its reply has to come again.
    fn refused(&mut self, index: u32, refusal: Refusal) -> bool {
        let link = &mut self.links[index as usize];
        let Some(flight) = link.flights.front_mut() else {
            return true;
        };
        if flight.replies_left > 1 {
            // The rest of the block is answered too, before it can be sent again.
            flight.replies_left -= 1;
            flight.is_refused = true;
            link.block_refusal = Some(refusal);
            return true;
        }
        let refusal = link.block_refusal.unwrap_or(refusal);
        self.send_again(index, refusal)
    }

    fn send_again(&mut self, index: u32, refusal: Refusal) -> bool {
        let link = &mut self.links[index as usize];
        let refusal = link.block_refusal.unwrap_or(refusal);
        let Some(flight) = link.flights.front() else {
            return true;
        };
        let Some(bytes) = link.request_bytes(flight).map(<[u8]>::to_vec) else {
            link.is_paused = true;
            return false;
        };
        link.block_refusal = None;
        let (backend, protocol) = (link.backend, link.protocol);
        let flight = link.pop_flight().expect("it is the front");
        self.stats().redirected.add(1);
        self.backends.get(backend).stats.refused.add(1);
        let request = self.request_of(&flight, bytes, protocol);
        self.note_held(&request, true);
        let deadline = self.deadline_of(flight.at);
        let slots = request.slots.clone();
        let now = self.now;
        self.routes.refused(request, flight.seq, &slots, deadline, backend, refusal, now);
        self.run_actions();
        true
    }

    /// A request under way as one that is not.
    pub(crate) fn request_of(
        &mut self,
        flight: &Flight,
        bytes: Vec<u8>,
        protocol: cordis_engine::resp::reply::Protocol,
    ) -> Box<Request> {
        let slots = self.take_slots(flight.slots);
        Box::new(Request {
            bytes,
            consumer: flight.consumer,
            slots,
            seq: flight.seq,
            at: flight.at,
            command: flight.command,
            replies: flight.replies,
            db: flight.db,
            protocol,
        })
    }

    /// The slots of a request that is not under way any more.
    pub(crate) fn take_slots(&mut self, slots: Slots) -> SlotList {
        match slots {
            Slots::None => SlotList::new(),
            Slots::One(slot) => SlotList::from_slice(&[slot.index() as u16]),
            Slots::Many(list) => self.slot_lists.remove(list as usize),
        }
    }

    fn unsolicited(&mut self, index: u32, whole: &[u8]) {
        let link = &self.links[index as usize];
        if let Some((owner, dedicated)) = link.owner {
            let id = LinkId { index, generation: link.generation };
            (dedicated.unsolicited)(self, owner, id, whole);
        }
    }

    /// Does what the routes say.
    pub(crate) fn run_actions(&mut self) {
        while let Some(action) = self.routes.next_action() {
            match action {
                Action::Send { request, lane, via } => {
                    self.note_held(&request, false);
                    match via {
                        Some(via) => self.begin_detour(request, lane, via),
                        None => self.send_on_lane(request, lane),
                    }
                }
                Action::Retry { slot } => self.end_refusals(slot),
                Action::Split { request } => {
                    self.note_held(&request, false);
                    self.split_again(*request);
                }
                Action::Fail { request, why } => {
                    self.note_held(&request, false);
                    let error = fault_error(why);
                    self.finish(request.consumer, Some((request.command, request.at)), Err(&error));
                }
            }
        }
    }

    /// Tells the servers that have refused requests because of a slot that they are back.
    fn end_refusals(&mut self, slot: SlotId) {
        let links = self.links.iter_mut().filter(|(_, link)| link.state == LinkState::Ready);
        let told: Vec<u32> = links
            .filter_map(|(index, link)| link.end_refusals(slot).then_some(index as u32))
            .collect();
        told.into_iter().for_each(|index| self.flush_link_later(index));
    }

    /// Puts a request on the link of a lane. Its slots count it as under way.
    pub(crate) fn send_on_lane(&mut self, request: Box<Request>, lane: Lane) {
        let error = match self.link_for(lane, request.protocol) {
            Ok(link) => match self.database_error(lane, request.db) {
                None => return self.put_on_link(link, &request),
                Some(error) => error,
            },
            Err(error) => error,
        };
        self.backends.get(lane.backend).stats.failed.add(1);
        self.routes.lost(&request.slots, self.now);
        self.finish(request.consumer, Some((request.command, request.at)), Err(&error));
        self.run_actions();
    }

    fn put_on_link(&mut self, index: u32, request: &Request) {
        let slots = match request.slots[..] {
            [] => Slots::None,
            [one] => Slots::One(SlotId::from_crc(u32::from(one))),
            _ => Slots::Many(self.slot_lists.insert(request.slots.clone()) as u32),
        };
        let link = &mut self.links[index as usize];
        if link.flights.is_empty() {
            link.heard_at = self.now;
        }
        link.push(
            &request.bytes,
            Flight {
                consumer: request.consumer,
                start: 0,
                seq: request.seq,
                at: request.at,
                len: 0,
                slots,
                command: request.command,
                replies: request.replies,
                replies_left: request.replies,
                is_refused: false,
                is_patient: false,
                db: request.db,
            },
        );
        self.flush_link_later(index);
    }

    pub(crate) fn flush_link_later(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if !link.in_flush {
            link.in_flush = true;
            self.flush_links.push(index);
        }
    }

    /// Hands an answer, or the error in its place, to whoever waits for it. `call`: what command it
    /// was and when it arrived.
    pub(crate) fn finish(
        &mut self,
        consumer: Consumer,
        call: Option<(u16, u64)>,
        answer: Result<&[u8], &LinkError>,
    ) {
        if let (Err(_), Some((command, _))) = (answer, call) {
            let stats = self.stats();
            stats.failed.add(1);
            // The proxy's own questions have no place among the commands.
            if let Some(command) = stats.commands.get(usize::from(command)) {
                command.failed.add(1);
            }
        }
        match consumer {
            Consumer::Session { .. } | Consumer::Silent { .. } => {
                let Some(place) = consumer.place() else {
                    return;
                };
                match answer {
                    Ok(bytes) => self.fill_raw(place, bytes),
                    Err(error) => self.fail_session(place, error),
                }
            }
            Consumer::Part(gather, part) => self.part_done(gather, part, answer),
            Consumer::Ask(ask) => self.ask_done(ask, answer),
            Consumer::Detour(detour) => self.detour_step(detour, answer),
            Consumer::Select | Consumer::Ping | Consumer::Retry => {}
        }
    }

    fn fail_session(&mut self, place: Place, error: &LinkError) {
        let breaks = self.settings.session_break_on_failure;
        let Some(session) = self.session(place.token) else {
            return;
        };
        if session.has_part_of(place.ticket) {
            // Half of a reply has gone out: nothing that follows could be understood.
            return self.close(place.token, Some("a backend was lost in the middle of a reply"));
        }
        if breaks {
            session.client.close_after_reply = true;
        }
        self.fill_raw(place, &link_error_reply(error));
    }
}

/// The slot that an error names.
fn slot_in(text: &[u8]) -> Option<SlotId> {
    let mut words = text.split(|&byte| byte == b' ');
    words.find(|word| *word == b"slot")?;
    parse_i64(words.next()?).and_then(|n| SlotId::new(n as u64))
}
