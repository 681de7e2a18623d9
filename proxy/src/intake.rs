//! From received bytes to requests on links: parses each session's input, has calls answered that
//! concern the proxy, and puts the others on the links of their slots, byte for byte as they came.

use cordis_engine::commands::args::Args;
use cordis_engine::commands::keys::{find_keys, names_keys};
use cordis_engine::commands::spec::Flags;
use cordis_engine::commands::table::Command;
use cordis_engine::net::client::ReplyMode;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::parse::{Limits, Parsed};
use cordis_engine::runtime::ring::Token;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::{Ms, SlotId};

use crate::backend::NO_LINK;
use crate::encode;
use crate::hub::{Hub, Op};
use crate::link::{Consumer, Flight, LinkError, Slots};
use crate::request::{Request, link_error_reply};
use crate::route::{Apart, Lane, SlotList};
use crate::session::{Stall, TAIL_STALL_BYTES};
use crate::ways::{Call, Flow, Way};

/// The slots of a call are not all with one backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOneGroup;

impl Hub {
    /// Takes what a session received.
    pub(crate) fn session_received(&mut self, token: Token, bytes: &[u8], armed: bool) {
        self.shared.cores[self.core].stats.net_in_bytes.add(bytes.len() as u64);
        let unanswered_max = self.settings.session_max_pipeline;
        let Some(session) = self.session(token) else {
            return;
        };
        if !armed {
            session.receiving = false;
        }
        if session.closing || session.client.close_after_reply {
            return;
        }
        if session.tail.is_empty() && session.may_run(unanswered_max) {
            let at = self.run_input(token.index, bytes);
            self.keep_rest(token, &bytes[at..]);
        } else {
            session.tail.extend_from_slice(bytes);
            if session.may_run(unanswered_max) && !session.needs_input() {
                self.run_tail(token);
            }
        }
        self.watch_input(token);
    }

    /// Looks at the input that waits.
    pub(crate) fn run_resumed(&mut self) {
        for _ in 0..self.resume.len() {
            let Some(token) = self.resume.pop_front() else {
                return;
            };
            let unanswered_max = self.settings.session_max_pipeline;
            let Some(session) = self.session(token) else {
                continue;
            };
            if !session.may_run(unanswered_max) {
                continue;
            }
            if !session.tail.is_empty() && !session.needs_input() {
                self.run_tail(token);
            }
            self.watch_input(token);
            if let Some(session) = self.session(token)
                && session.input_ended
                && session.may_run(unanswered_max)
            {
                // What is left can never become complete.
                session.tail.clear();
                self.close_if_done(token);
            }
        }
    }

    fn run_tail(&mut self, token: Token) {
        let Some(session) = self.session(token) else {
            return;
        };
        let mut tail = std::mem::take(&mut session.tail);
        let at = self.run_input(token.index, &tail);
        if let Some(session) = self.session(token) {
            tail.drain(..at);
            session.tail = tail;
        }
    }

    fn keep_rest(&mut self, token: Token, rest: &[u8]) {
        if let Some(session) = self.session(token)
            && !rest.is_empty()
            && !session.client.close_after_reply
        {
            session.tail.extend_from_slice(rest);
        }
    }

    /// Receives, or not, by how much waits already.
    fn watch_input(&mut self, token: Token) {
        let query_bytes_max = self.settings.session_query_bytes_max;
        let unanswered_max = self.settings.session_max_pipeline;
        let Some(session) = self.session(token) else {
            return;
        };
        session.client.query_bytes = session.tail.len();
        let is_hosted = session.hosted.is_some();
        if session.tail.len() > query_bytes_max {
            return self.close(token, Some("its request is too long"));
        }
        let may_run = session.may_run(unanswered_max);
        let is_full = session.tail.len() > TAIL_STALL_BYTES && !session.needs_input();
        let (receiving, is_empty) = (session.receiving, session.tail.is_empty());
        if (!may_run || !is_empty) && is_full && receiving {
            // What is armed delivers a little more; then the peer's window closes.
            self.ops.push(Op::CancelReceive(token));
        } else if !is_full && !receiving {
            self.receive_again(token);
        }
        if is_hosted {
            self.returning.push(token);
        }
    }

    /// Runs the calls in `bytes`, which is all the input that a session has. How much of it was run.
    fn run_input(&mut self, index: u32, bytes: &[u8]) -> usize {
        let mut ranges = std::mem::take(&mut self.ranges);
        let unanswered_max = self.settings.session_max_pipeline;
        let word_bytes_max = self.settings.word_bytes_max;
        let mut at = 0;
        while at < bytes.len() {
            ranges.clear();
            let session = &mut self.sessions[index as usize];
            if !session.may_run(unanswered_max) {
                break;
            }
            let limits = Limits { word_bytes_max, authenticated: session.client.authenticated };
            let (flow, next) = match session.parser.next(bytes, at, limits, &mut ranges) {
                Parsed::Call(next) => {
                    let args = Args::new(bytes, &ranges);
                    let flow = if bytes[at] == b'*' {
                        self.call(index, &args, &bytes[at..next])
                    } else {
                        self.inline_call(index, &args)
                    };
                    (flow, next)
                }
                Parsed::Inline(words, next) => (self.inline_call(index, &words.args()), next),
                Parsed::Nothing(next) => (Flow::Go, next),
                Parsed::Incomplete => break,
                Parsed::Error(error) => {
                    let token = self.token_of(index);
                    self.answer(token, |reply| reply.error(&error));
                    self.sessions[index as usize].client.close_after_reply = true;
                    // It closes, whether its client wants to hear why or not.
                    self.flush_session_later(index);
                    at = bytes.len();
                    break;
                }
            };
            let session = &mut self.sessions[index as usize];
            match flow {
                Flow::Go => at = next,
                Flow::Stop => {
                    at = next;
                    session.stall =
                        if session.stall == Stall::None { Stall::Busy } else { session.stall };
                }
                Flow::Hold => {
                    if bytes[at] == b'*' {
                        session.parser.put_back(&mut ranges, 0, at, next);
                    }
                    if session.stall == Stall::None {
                        self.wait_for_replies(index);
                    }
                    break;
                }
            }
        }
        self.ranges = ranges;
        at
    }

    fn wait_for_replies(&mut self, index: u32) {
        let token = self.token_of(index);
        let session = &mut self.sessions[index as usize];
        if session.unanswered() == 0 {
            self.resume.push_back(token);
        } else {
            session.stall = Stall::Replies;
        }
    }

    pub(crate) fn token_of(&self, index: u32) -> Token {
        Token { index, generation: self.sessions[index as usize].generation }
    }

    /// A call that came as a line of text is sent on as any other.
    #[cold]
    fn inline_call(&mut self, index: u32, args: &Args<'_>) -> Flow {
        let words: Vec<&[u8]> = args.iter_from(0).collect();
        self.call(index, args, &encode::to_vec(&words))
    }

    /// Answers a call or sends it on.
    #[inline]
    fn call(&mut self, index: u32, args: &Args<'_>, bytes: &[u8]) -> Flow {
        let Some(command) = self.table.get(args.at(0)) else {
            return self.unknown_call(index, args);
        };
        let session = &mut self.sessions[index as usize];
        session.client.last_at = self.now;
        let is_plain = command.subcommands.is_empty()
            && command.spec.arity.accepts(args.len())
            && session.client.authenticated
            && !session.special;
        if is_plain {
            session.client.last_command = Some(command);
            if let Way::Key = self.ways.of(command) {
                return self.forward_one(index, command, slot_of(args.at(1)), bytes);
            }
        }
        self.other_call(index, command, args, bytes)
    }

    fn unknown_call(&mut self, index: u32, args: &Args<'_>) -> Flow {
        let token = self.token_of(index);
        if is_http(args.at(0)) {
            self.close(token, Some("it speaks HTTP: a browser was made to attack this proxy"));
            return Flow::Stop;
        }
        let is_authenticated = self.sessions[index as usize].client.authenticated;
        if let Some(unknown) = self.ways.unknown.filter(|_| is_authenticated) {
            return unknown(self, token, args);
        }
        let words: Vec<&[u8]> = args.iter_from(1).collect();
        let error = CommandError::unknown_command(args.at(0), &words);
        let place = self.reserve(token);
        self.fill_error(place, &error);
        Flow::Go
    }

    /// What the hot path leaves out.
    fn other_call(
        &mut self,
        index: u32,
        command: &'static Command,
        args: &Args<'_>,
        bytes: &[u8],
    ) -> Flow {
        let session = self.token_of(index);
        let ways = std::sync::Arc::clone(&self.ways);
        let resolved = resolve(command, args);
        let is_special = self.sessions[index as usize].special;
        if is_special && let Some(gate) = ways.gate {
            // The gate sees calls with errors too: a transaction is doomed by them.
            let command = *resolved.as_ref().unwrap_or(&command);
            let call = Call { session, args, command, bytes };
            if let Some(flow) = gate(self, &call) {
                return flow;
            }
        }
        let command = match resolved {
            Ok(command) => command,
            Err(error) => {
                let place = self.reserve(session);
                self.fill_error(place, &crate::txn::refusal(args.at(0), error));
                return Flow::Go;
            }
        };
        let client = &mut self.sessions[index as usize].client;
        client.last_command = Some(command);
        if !client.authenticated && !command.spec.flags.contains(Flags::NO_AUTH) {
            let place = self.reserve(session);
            self.fill_error(place, &crate::txn::refusal(args.at(0), CommandError::NO_AUTH));
            return Flow::Go;
        }
        let call = Call { session, args, command, bytes };
        match ways.of(command) {
            Way::Key => {
                let word = command.spec.keys.first().map_or(1, key_word);
                let slot = args.get(word).map_or_else(|| slot_of(b""), slot_of);
                self.forward_one(index, command, slot, bytes)
            }
            Way::Keys => self.forward_by_keys(&call),
            Way::Split => self.split(&call),
            Way::Local(handler) => handler(self, &call),
            Way::Refused(why) => {
                let error = format!("ERR command '{}' is not allowed: {why}", command.spec.name);
                let place = self.reserve(session);
                self.stats().failed.add(1);
                self.fill_raw(place, &crate::request::error_reply(&error));
                Flow::Go
            }
        }
    }

    /// Puts a request of one slot on the slot's link: the hot path.
    #[inline]
    pub(crate) fn forward_one(
        &mut self,
        index: u32,
        command: &Command,
        slot: SlotId,
        bytes: &[u8],
    ) -> Flow {
        let session = &mut self.sessions[index as usize];
        let (db, protocol) = (session.client.db.0, session.client.protocol);
        let Some(lane) = self.routes.ready_lane(slot) else {
            return self.forward_slowly(index, command, &[slot.index() as u16], bytes);
        };
        let link_index = self.backends.link(lane, protocol);
        if link_index == NO_LINK || session.client.reply_mode != ReplyMode::On || session.has_wide()
        {
            return self.forward_slowly(index, command, &[slot.index() as u16], bytes);
        }
        let link = &mut self.links[link_index as usize];
        let settings = &self.settings;
        if link.db() != db
            || !link.has_room(settings.backend_max_pipeline, settings.backend_pending_bytes_max)
        {
            return self.forward_slowly(index, command, &[slot.index() as u16], bytes);
        }
        self.routes.try_send(slot);
        if link.flights.is_empty() {
            link.heard_at = self.now;
        }
        let generation = session.generation;
        let ticket = session.reserve();
        self.seq += 1;
        link.push(
            bytes,
            Flight {
                consumer: Consumer::Session { index, generation, ticket },
                start: 0,
                seq: self.seq,
                at: self.ticks,
                len: 0,
                slots: Slots::One(slot),
                command: command.id,
                replies: 1,
                replies_left: 1,
                is_refused: false,
                is_patient: false,
                db,
            },
        );
        if !link.in_flush {
            link.in_flush = true;
            self.flush_links.push(link_index);
        }
        Flow::Go
    }

    #[cold]
    fn forward_slowly(
        &mut self,
        index: u32,
        command: &Command,
        slots: &[u16],
        bytes: &[u8],
    ) -> Flow {
        match self.forward_slots(index, command, slots, bytes, 1) {
            Ok(flow) => flow,
            Err(NotOneGroup) => {
                let place = self.reserve(self.token_of(index));
                self.fill_error(place, &CommandError::CROSS_SLOT);
                Flow::Go
            }
        }
    }

    /// Forwards a call as it is by these slots, which must be served by one backend.
    pub fn forward(&mut self, call: &Call<'_>, slots: &[SlotId]) -> Flow {
        let slots = list_of(slots.iter().map(|slot| slot.index() as u16));
        self.forward_slowly(call.session.index, call.command, &slots, call.bytes)
    }

    /// Forwards a call by its keys. One without keys goes to any slot: to slot 0.
    pub(crate) fn forward_by_keys(&mut self, call: &Call<'_>) -> Flow {
        let slots = self.slots_of(call);
        if names_keys(call.command.spec, call.args) && self.primaries().len() > 1 {
            let place = self.reserve(call.session);
            self.fill_error(place, &CommandError::CROSS_SLOT);
            return Flow::Go;
        }
        self.forward_slowly(call.session.index, call.command, &slots, call.bytes)
    }

    /// The slots of a call's keys, ascending, each once; slot 0 if it has none.
    pub fn slots_of(&mut self, call: &Call<'_>) -> SlotList {
        self.found.clear();
        // A count that is no number leaves no keys: the server says what is wrong.
        find_keys(call.command.spec, call.args, &mut self.found);
        let found = self.found.iter();
        let slots = list_of(found.map(|key| slot_of(call.args.at(key.index)).index() as u16));
        if slots.is_empty() { list_of([0].into_iter()) } else { slots }
    }

    /// Forwards several requests at once, such as MULTI to EXEC, to the backend of these slots: they
    /// stay together, and only the last of their replies goes to the client. If a server refuses one
    /// of them because of its slots, all are sent again.
    ///
    /// # Errors
    /// The slots are not all with one backend; nothing was sent.
    pub fn forward_block(
        &mut self,
        token: Token,
        slots: &[SlotId],
        bytes: &[u8],
        reply_count: u16,
        command: &Command,
    ) -> Result<Flow, NotOneGroup> {
        let slots = list_of(slots.iter().map(|slot| slot.index() as u16));
        self.forward_slots(token.index, command, &slots, bytes, reply_count)
    }

    fn forward_slots(
        &mut self,
        index: u32,
        command: &Command,
        slots: &[u16],
        bytes: &[u8],
        replies: u16,
    ) -> Result<Flow, NotOneGroup> {
        let session = &mut self.sessions[index as usize];
        let is_read = replies == 1 && command.spec.flags.contains(Flags::READONLY);
        if session.must_follow(slots, is_read) {
            return Ok(Flow::Hold);
        }
        let token = Token { index, generation: session.generation };
        let (db, protocol) = (session.client.db.0, session.client.protocol);
        let way = match self.lane_now(slots) {
            Ok(lane) => {
                match self.link_for(lane, protocol) {
                    Err(error) => {
                        self.answer_link_error(token, &error);
                        return Ok(Flow::Go);
                    }
                    Ok(link) => {
                        if self.waits_for_room(link, token) {
                            return Ok(Flow::Hold);
                        }
                        if let Some(error) = self.database_error(lane, db) {
                            self.answer_link_error(token, &error);
                            return Ok(Flow::Go);
                        }
                    }
                }
                true
            }
            Err(Apart::Busy) => false,
            Err(Apart::Backends) => return Err(NotOneGroup),
        };
        if slots.len() > 1 {
            self.sessions[index as usize].wide_begins(slots, is_read);
        }
        let consumer = self.session_consumer(index);
        self.seq += 1;
        let request = Request {
            bytes: bytes.to_vec(),
            consumer,
            slots: slots.into(),
            seq: self.seq,
            at: self.ticks,
            command: command.id,
            replies,
            db,
            protocol,
        };
        if way {
            self.send_now(Box::new(request));
        } else {
            self.submit(Box::new(request));
        }
        Ok(Flow::Go)
    }

    /// Where a request on these slots could go at once.
    fn lane_now(&self, slots: &[u16]) -> Result<Lane, Apart> {
        self.routes.peek_many(slots)
    }

    /// The place of a session's next reply as a consumer.
    pub(crate) fn session_consumer(&mut self, index: u32) -> Consumer {
        let place = self.reserve(self.token_of(index));
        Consumer::of(place)
    }

    pub(crate) fn answer_link_error(&mut self, token: Token, error: &LinkError) {
        let place = self.reserve(token);
        self.stats().failed.add(1);
        self.fill_raw(place, &link_error_reply(error));
        if self.settings.session_break_on_failure
            && let Some(session) = self.session(token)
        {
            session.client.close_after_reply = true;
        }
    }

    /// Whether a session has to wait until there is room on a link; it is told then.
    pub(crate) fn waits_for_room(&mut self, link: u32, token: Token) -> bool {
        let settings = &self.settings;
        let link = &mut self.links[link as usize];
        if link.has_room(settings.backend_max_pipeline, settings.backend_pending_bytes_max) {
            return false;
        }
        link.waiters.push(token);
        if let Some(session) = self.session(token) {
            session.stall = Stall::Room;
        }
        true
    }

    /// Why a backend cannot serve a database.
    pub(crate) fn database_error(&self, lane: Lane, db: u8) -> Option<LinkError> {
        let backend = self.backends.get(lane.backend);
        (db >= backend.database_count).then(|| {
            LinkError::new(format!(
                "handle request, backend {} has no database {db}: lower backend_number_databases",
                backend.addr
            ))
        })
    }

    /// Sends a request whose slots may go at once.
    pub(crate) fn send_now(&mut self, request: Box<Request>) {
        match self.routes.try_send_many(&request.slots) {
            Ok(lane) => self.send_on_lane(request, lane),
            Err(_) => self.submit(request),
        }
    }

    /// Hands a request to the routes: it goes when its slots let it.
    pub(crate) fn submit(&mut self, request: Box<Request>) {
        self.note_held(&request, true);
        let deadline = self.deadline_of(request.at);
        let (seq, slots) = (request.seq, request.slots.clone());
        self.routes.submit(request, seq, &slots, deadline, self.now);
        self.run_actions();
    }

    /// When a request that arrived at this tick has taken too long.
    pub(crate) fn deadline_of(&self, at: u64) -> Ms {
        let elapsed_ms = (self.clock.ns_between(at, self.ticks) / 1_000_000) as i64;
        Ms(self.now.0 - elapsed_ms + self.settings.backend_recv_timeout_ms)
    }

    /// Counts the bytes of a session's request that waits, or does not any more.
    pub(crate) fn note_held(&mut self, request: &Request, waits: bool) {
        let Some(token) = self.session_of(request.consumer) else {
            return;
        };
        let bytes = request.bytes.len();
        let unanswered_max = self.settings.session_max_pipeline;
        let Some(session) = self.session(token) else {
            return;
        };
        if waits {
            session.held_bytes += bytes;
        } else {
            session.held_bytes -= bytes;
            if !session.tail.is_empty() && session.may_run(unanswered_max) {
                self.resume.push_back(token);
            }
        }
    }
}

/// Slots, ascending, each once.
pub(crate) fn list_of(slots: impl Iterator<Item = u16>) -> SlotList {
    let mut list: SlotList = slots.collect();
    list.sort_unstable();
    list.dedup();
    list
}

fn key_word(spec: &cordis_engine::commands::spec::KeySpec) -> usize {
    match spec.begin {
        cordis_engine::commands::spec::Begin::Index(index) => usize::from(index),
        _ => 1,
    }
}

/// The command, or the subcommand, that a call means, if it has the words it needs.
fn resolve(command: &'static Command, args: &Args<'_>) -> Result<&'static Command, CommandError> {
    let checked = |command: &'static Command| {
        if command.spec.arity.accepts(args.len()) {
            Ok(command)
        } else {
            Err(CommandError::wrong_arity(command.spec.name))
        }
    };
    checked(command)?;
    if command.subcommands.is_empty() || args.len() < 2 {
        return Ok(command);
    }
    match command.subcommand(args.at(1)) {
        Some(sub) => checked(sub),
        None if command.is_container() => {
            Err(CommandError::unknown_subcommand(args.at(1), command.spec.name))
        }
        None => Ok(command),
    }
}

/// Whether a call is a line of an HTTP request, sent by a browser that a web page misuses to reach a
/// server behind a firewall.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}
