//! From received bytes to requests: parses each session's input, answers what concerns the session
//! only, and gathers the rest for the shards.

use crate::commands::args::{ArgRange, OwnedArgs};
use crate::commands::dispatch::{self, Plan, ShardSet};
use crate::commands::held_keys::HeldKeys;
use crate::commands::session_ctx::{Micros, SessionCtx};
use crate::commands::spec::Handler;
use crate::commands::table::Command;
use crate::net::apart::Apart;
use crate::net::client::{ClientState, ReplyMode};
use crate::net::session::{Session, Stall, TAIL_STALL_BYTES};
use crate::node::{Node, Pause};
use crate::pubsub::monitor;
use crate::resp::error::CommandError;
use crate::resp::parse::{Limits, Parsed, move_ranges};
use crate::resp::reply::{OutBuf, Reply};
use crate::runtime::clock::Clock;
use crate::runtime::exclusive::Sliced;
use crate::runtime::pubsub::{is_shown_first, waits_for_listeners};
use crate::runtime::requests::Chunk;
use crate::runtime::ring::{BufferId, Token};
use crate::runtime::tenant;
use crate::runtime::turn::{Alarm, Core, Input};
use crate::shard::batch::{Origin, Request, Target};
use crate::slots::owner::Access;
use crate::units::{Ms, SlotId};

/// Whether a session's next call may be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The call was taken; look at the next.
    Go,
    /// The call was taken; the next has to wait.
    Stop,
    /// The call has to wait itself.
    Hold,
}

/// How often a paused client looks whether it still is.
const PAUSE_LOOK_MS: i64 = 50;
/// Bytes of one session's input that are parsed in one go: its calls run before the rest is looked at.
const PARSE_BYTES_MAX: usize = 64 * 1024;
/// Most batches of mail that may wait for a full mailbox before input waits as well.
const LATE_MAIL_MAX: usize = 16;

impl Core {
    /// Parses input until there is none or the time is up. Whether more is left.
    pub(super) fn intake(&mut self, started: u64, budget_ns: u64) -> bool {
        if self.late_requests.iter().map(|late| late.len()).sum::<usize>() > LATE_MAIL_MAX {
            return false;
        }
        let mut seen = 0;
        for _ in 0..self.resume.len() {
            let Some(token) = self.resume.pop_front() else {
                break;
            };
            self.resume_session(token);
            seen += 1;
            if seen % 4 == 0 && self.clock.ns_between(started, self.clock.ticks()) > budget_ns / 4 {
                return true;
            }
        }
        while let Some(input) = self.inputs.pop_front() {
            self.take_input(input);
            seen += 1;
            // The clock is read once per few buffers: 16 KiB of calls take up to 100 µs.
            if seen % 4 == 0 && self.clock.ns_between(started, self.clock.ticks()) > budget_ns / 4 {
                break;
            }
        }
        !self.inputs.is_empty()
    }

    fn take_input(&mut self, input: Input) {
        match input {
            Input::Bytes(token, buffer, len) => self.take_bytes(token, buffer, len),
            Input::End(token) => {
                if let Some(session) = self.session_mut(token) {
                    session.input_ended = true;
                    if session.blocked.is_some() {
                        return self.close(token, None);
                    }
                    if tenant::is_away(session) {
                        return self.note_ended(token);
                    }
                    self.resume_session(token);
                }
            }
            Input::Lost(token) => self.close(token, None),
        }
    }

    fn take_bytes(&mut self, token: Token, buffer: BufferId, len: usize) {
        let limit = self.node.config.client_query_bytes_max();
        let Some(session) = self
            .sessions
            .get_mut(token.index as usize)
            .filter(|session| session.generation == token.generation)
        else {
            return self.ring.recycle(buffer);
        };
        if session.closing || session.client.close_after_reply {
            return self.ring.recycle(buffer);
        }
        if session.tail.is_empty() && session.may_run() {
            self.parse(token.index, Chunk::Buffer(buffer, len));
            return;
        }
        session.take_in(self.ring.bytes(&buffer, len));
        self.ring.recycle(buffer);
        if session.input_bytes() > limit {
            self.stats.overflow_disconnections.add(1);
            return self.close(token, Some("input is over client-query-buffer-limit"));
        }
        if session.may_run() {
            // Nothing new can be complete before the word that is under way is.
            if !session.needs_input() {
                let (tail, apart) = session.take_input();
                self.parse(token.index, Chunk::Owned(tail, apart));
            }
            return;
        }
        let is_full = session.input_bytes() > TAIL_STALL_BYTES && session.receiving;
        if tenant::is_away(session) {
            self.note_fed(token);
        }
        if is_full {
            // What is armed delivers a little more; then the peer's window closes.
            self.ring.cancel_receive(token);
        }
    }

    fn resume_session(&mut self, token: Token) {
        let Some(session) = self.session_mut(token) else {
            return;
        };
        if tenant::is_away(session) {
            return self.note_fed(token);
        }
        if !session.may_run() {
            return;
        }
        if !session.tail.is_empty() && !session.needs_input() {
            let (tail, apart) = session.take_input();
            if self.parse(token.index, Chunk::Owned(tail, apart)) {
                return;
            }
        }
        let Some(session) = self.sessions.get_mut(token.index as usize) else {
            return;
        };
        let may_receive = session.tail.len() <= TAIL_STALL_BYTES || session.needs_input();
        if may_receive && session.may_run() {
            Self::arm_receive(&mut self.ring, token, session);
        }
        if session.input_ended && session.may_run() {
            // What is left can never become complete.
            session.tail.clear();
            session.apart = None;
            self.close_if_done(token);
        }
    }

    /// Parses the calls in `chunk`, which is all the input that the session has. Whether it stopped with
    /// calls left that could have been taken: the session is resumed for them when the round ends.
    fn parse(&mut self, index: u32, chunk: Chunk) -> bool {
        let number = self.round.chunks.len() as u32;
        self.round.chunks.push(chunk);
        let word_bytes_max = self.node.config.proto_max_bulk_bytes();
        let mut at = 0;
        let mut is_enough = false;
        loop {
            let base = self.round.ranges.len();
            let bytes = self.round.chunks[number as usize].bytes(&self.ring);
            let session = &mut self.sessions[index as usize];
            if at >= bytes.len() || session.closing {
                break;
            }
            if at >= PARSE_BYTES_MAX {
                is_enough = true;
                break;
            }
            // Asked for each call: AUTH may have come before it.
            let limits = Limits { word_bytes_max, authenticated: session.client.authenticated };
            match session.parser.next(bytes, at, limits, &mut self.round.ranges) {
                Parsed::Call(next) => {
                    let flow = match session.parser.take_moved() {
                        None => self.call_or_put_back(index, number, base, (at, next)),
                        Some(words) => self.call_in_pieces(index, number, words, next),
                    };
                    if flow != Flow::Hold {
                        at = next;
                    }
                    if flow != Flow::Go {
                        break;
                    }
                }
                Parsed::Inline(words, next) => {
                    let base = self.round.ranges.len();
                    let number = self.round.chunks.len() as u32;
                    self.round.chunks.push(Chunk::Words(words));
                    let flow = self.call(index, number, base);
                    if flow != Flow::Hold {
                        at = next;
                    }
                    if flow != Flow::Go {
                        break;
                    }
                }
                Parsed::Nothing(next) => at = next,
                Parsed::Incomplete => break,
                Parsed::Error(error) => {
                    at = bytes.len();
                    self.reply_now(index, |reply| reply.error(&error));
                    let session = &mut self.sessions[index as usize];
                    tracing::debug!(client = session.client.id, error = error.text(), "protocol");
                    session.client.close_after_reply = true;
                    break;
                }
            }
        }
        self.keep_rest(index, number, at, is_enough);
        is_enough
    }

    /// Answers or gathers a call that lies between two offsets of the session's input.
    #[inline]
    fn call_or_put_back(
        &mut self,
        index: u32,
        number: u32,
        base: usize,
        (at, next): (usize, usize),
    ) -> Flow {
        let flow = self.call(index, number, base);
        if flow == Flow::Hold {
            let session = &mut self.sessions[index as usize];
            session.parser.put_back(&mut self.round.ranges, base, at, next);
        }
        flow
    }

    /// Answers or gathers a call of which words have been moved into pieces already (so many of
    /// `words`). It lies at the front of the session's input, and ends at `end`.
    #[cold]
    fn call_in_pieces(
        &mut self,
        index: u32,
        number: u32,
        (mut ranges, moved): (Vec<ArgRange>, usize),
        end: usize,
    ) -> Flow {
        let Chunk::Owned(bytes, aside) = &mut self.round.chunks[number as usize] else {
            unreachable!("words are moved out of input that is collected");
        };
        move_ranges(&mut ranges[moved..], bytes, aside);
        let words = OwnedArgs::in_pieces(ranges, std::mem::take(aside));
        let of_call = self.round.chunks.len();
        self.round.chunks.push(Chunk::Words(words));
        let flow = self.call(index, of_call as u32, self.round.ranges.len());
        if flow == Flow::Hold
            && let Chunk::Words(words) = &mut self.round.chunks[of_call]
        {
            let (ranges, words) = std::mem::take(words).into_pieces();
            if let Chunk::Owned(_, aside) = &mut self.round.chunks[number as usize] {
                *aside = words;
            }
            self.sessions[index as usize].parser.put_back_pieces(ranges, end);
        }
        flow
    }

    /// Keeps what was not run for later; `goes_on` if it could have been.
    fn keep_rest(&mut self, index: u32, number: u32, at: usize, goes_on: bool) {
        let chunk = &mut self.round.chunks[number as usize];
        let session = &mut self.sessions[index as usize];
        invariant!(session.tail.is_empty(), "a session's input is in two places");
        match chunk {
            // Nothing of it was run: no request points into it, so it is not copied.
            Chunk::Owned(bytes, apart) if at == 0 => {
                session.tail = std::mem::take(bytes);
                if !apart.is_empty() {
                    session.apart = Some(Box::new(Apart::of_words(std::mem::take(apart))));
                }
            }
            _ => {
                let rest = &chunk.bytes(&self.ring)[at..];
                if !rest.is_empty() && !session.client.close_after_reply {
                    session.tail.extend_from_slice(rest);
                }
            }
        }
        match session.role.guest() {
            None => session.set_words_apart(),
            // The tenant gets its input as it came, if it gets it. And it looks at what there was.
            Some(guest) => guest.pulse.note_calls(self.now, session.client.last_command),
        }
        session.client.query_bytes = session.input_bytes();
        let stops = session.stall == Stall::None && !session.may_run();
        if !session.tail.is_empty() && (goes_on || stops) {
            // It stopped for its output or its requests: both may be done when the round ends.
            self.round.hungry.push(Token { index, generation: session.generation });
        }
    }

    /// Answers or gathers one call, whose words begin at `base` of the ranges.
    fn call(&mut self, index: u32, chunk: u32, base: usize) -> Flow {
        let words = (base as u32, (self.round.ranges.len() - base) as u32);
        let input = &self.round.chunks[chunk as usize];
        let args = input.args(&self.ring, &self.round.ranges[base..]);
        let session = &mut self.sessions[index as usize];
        let is_guest = session.role.is_guest();
        let client = &mut session.client;
        client.last_at = self.now;
        let command = match dispatch::admit(&args, client, self.node) {
            Ok(command) if !is_guest || client.authenticated => command,
            Err(_) if is_http(args.at(0)) => {
                let token = Token { index, generation: session.generation };
                self.close(token, Some("it speaks HTTP: a browser was made to attack this server"));
                return Flow::Stop;
            }
            // The tenant says what is wrong in its own words.
            Ok(_) => return self.hand_over(index),
            Err(_) if is_guest => return self.hand_over(index),
            Err(error) => {
                self.refuse(index, &error);
                return Flow::Go;
            }
        };
        client.last_command = Some(command);
        let (pause, until) = self.node.pause(self.now);
        let is_paused =
            pause == Pause::All || pause == Pause::Write && dispatch::may_write(command, client);
        let held_until = if is_paused {
            // CLIENT UNPAUSE may end it sooner.
            Some(until.min(Ms(self.now.0 + PAUSE_LOOK_MS)))
        } else {
            dispatch::waits_for_keys(command, &args, client, self.node, &mut self.round.found)
                .then(|| HeldKeys::look_again_at(self.now))
        };
        if let Some(until) = held_until {
            session.stall = Stall::Paused(until);
            let token = Token { index, generation: session.generation };
            // The call is parsed again then.
            self.alarms.insert(until, Alarm::Resume(token));
            return Flow::Hold;
        }
        if is_out_of_date(self.node, session)
            || waits_for_slots(command, session)
            || waits_for_listeners(self.node, &self.logical.outbox, command, session)
        {
            self.round.hungry.push(Token { index, generation: session.generation });
            return Flow::Hold;
        }
        let version = session.version;
        let client = &mut session.client;
        if client.multi.is_some() && dispatch::is_queued_in_multi(command) {
            dispatch::queue(command, &args, client);
            self.reply_now(index, |reply| reply.simple("QUEUED"));
            return Flow::Go;
        }
        let own = crate::units::ShardId(self.id.0);
        let found = &mut self.round.found;
        let plan = match dispatch::plan_call(command, &args, client, self.node, own, found) {
            Ok(plan) => plan,
            Err(error) => {
                self.refuse(index, &error);
                return Flow::Go;
            }
        };
        if self.node.owners.version() != version && !session.is_settled() {
            // A slot moved meanwhile: it might overtake an earlier call when both have to run again.
            self.round.hungry.push(Token { index, generation: session.generation });
            return Flow::Hold;
        }
        if is_guest && tenant::must_wait(session, command, &args, &plan, &self.round.found) {
            self.round.hungry.push(Token { index, generation: session.generation });
            return Flow::Hold;
        }
        if is_guest
            && let Some(tenant) = &mut self.tenant
            && !tenant::runs_here(&mut **tenant, command, &args, &plan, &self.round.found)
        {
            return self.hand_over(index);
        }
        if let Plan::Closed(slot, access) = plan {
            return self.meet_closed_slot(index, command, slot, access);
        }
        let silent = is_silent(&mut session.client);
        if self.node.pubsub.has_monitors() && is_shown_first(command) {
            let now_us = Clock::now_us();
            let item = monitor::item(self.node, &session.client, command, &args, now_us);
            self.logical.outbox.extend(item);
        }
        match plan {
            Plan::One(shard, hint) => {
                let target = if silent { Target::Silent } else { session.reserve(shard) };
                self.round.has_silent |= silent;
                let request = Request {
                    command,
                    hint,
                    version,
                    db: session.client.db,
                    protocol: session.client.protocol,
                    import_at: session.client.import.as_ref().map(|import| import.now),
                    words,
                    chunk,
                };
                let generation = session.generation;
                let batch = &mut self.round.batches[shard.index()];
                batch.0.push(request);
                batch.1.push(Origin { session: index, generation, target, ns: 0 });
                if session.may_run() { Flow::Go } else { Flow::Stop }
            }
            Plan::Session => self.session_call(index, command, chunk, base, silent),
            Plan::Many(set) => self.call_on_many(index, command, set, silent, chunk, base),
            Plan::Sliced => self.call_in_slices(index, command, silent, chunk, base),
            Plan::Closed(..) => unreachable!("it has been dealt with above"),
        }
    }

    /// Lets a session wait for a call that runs slice by slice.
    fn call_in_slices(
        &mut self,
        index: u32,
        command: &'static Command,
        silent: bool,
        chunk: u32,
        base: usize,
    ) -> Flow {
        let input = &mut self.round.chunks[chunk as usize];
        let words = input.take_args(&self.ring, &self.round.ranges[base..]);
        let session = &mut self.sessions[index as usize];
        let target = if silent { Target::Silent } else { session.reserve_ticket() };
        session.stall = Stall::Busy;
        let token = Token { index, generation: session.generation };
        let (db, protocol) = (session.client.db, session.client.protocol);
        self.sliced.push_back(Sliced::new(token, target, command, words, db, protocol));
        Flow::Stop
    }

    /// Runs a call on several shards if it can run at once, else lets its session wait for it.
    fn call_on_many(
        &mut self,
        index: u32,
        command: &'static Command,
        set: ShardSet,
        silent: bool,
        chunk: u32,
        base: usize,
    ) -> Flow {
        let args = self.round.chunks[chunk as usize].args(&self.ring, &self.round.ranges[base..]);
        let may_run_now = !silent
            && matches!(command.spec.handler, Handler::Data(_))
            && !command.spec.may_defer(&args);
        let version = self.sessions[index as usize].version;
        if may_run_now && self.has_straight_way(index, set, version) {
            self.run_straight(index, command, set, chunk, base);
        } else {
            let call = self.exclusive_call(index, command, set, silent, chunk, base);
            self.exclusive.push_back(call);
        }
        if self.sessions[index as usize].may_run() { Flow::Go } else { Flow::Stop }
    }

    /// A call that cannot run here now: it waits, or is refused as a whole.
    #[cold]
    fn meet_closed_slot(
        &mut self,
        index: u32,
        command: &'static Command,
        slot: SlotId,
        access: Access,
    ) -> Flow {
        let session = &mut self.sessions[index as usize];
        if access == Access::Frozen {
            session.stall = Stall::Frozen;
            let token = Token { index, generation: session.generation };
            self.hold_session(token);
            return Flow::Hold;
        }
        if command.spec.name == "exec" {
            session.client.multi = None;
            session.client.watching = None;
        }
        let error = self.refuse_slot(index, command, slot);
        self.refuse(index, &error);
        Flow::Go
    }

    /// Runs a call that concerns the session only.
    fn session_call(
        &mut self,
        index: u32,
        command: &'static Command,
        chunk: u32,
        base: usize,
        silent: bool,
    ) -> Flow {
        let Handler::Session(handler) = command.spec.handler else {
            self.refuse(index, &CommandError::unknown_command(command.spec.name.as_bytes(), &[]));
            return Flow::Go;
        };
        let input = &self.round.chunks[chunk as usize];
        let args = input.args(&self.ring, &self.round.ranges[base..]);
        let session = &mut self.sessions[index as usize];
        let settled = session.is_settled();
        let mut ctx = SessionCtx {
            client: &mut session.client,
            node: self.node,
            stats: self.stats,
            now: self.now,
            micros: Micros::Clock(Clock::now_us),
            in_exec: false,
            may_defer: true,
            action: None,
            outbox: &mut self.logical.outbox,
            pushed: None,
        };
        let begun = self.clock.ticks();
        let out = if settled { &mut session.out } else { &mut self.round.stash };
        let from = out.mark();
        let protocol = ctx.client.protocol;
        let mut reply = Reply::new(out, protocol);
        let result = handler(&mut ctx, &args, &mut reply);
        let action = ctx.action.take();
        let pushed = ctx.pushed;
        if let Err(error) = result {
            out.truncate(from);
            Reply::new(out, session.client.protocol).error(&error);
            self.stats.note_error(&error);
            self.stats.commands[usize::from(command.id)].failed.add(1);
        }
        // CLIENT REPLY ON is answered, OFF and SKIP are not.
        let mode = session.client.reply_mode;
        let was_off = silent
            && mode == ReplyMode::On
            && matches!(command.spec.name, "client|reply" | "reset");
        if mode != ReplyMode::On || (silent && !was_off) {
            out.truncate(pushed.unwrap_or(from));
        }
        let to = out.mark();
        let ns = self.clock.ns_between(begun, self.clock.ticks());
        self.stats.note_call(command, ns, self.node.config.latency_tracking());
        if ns >= self.node.slow_ns() {
            self.node.note_slow(command, &args, ns, self.now, &session.client);
        }
        if self.node.pubsub.has_monitors() {
            let now_us = Clock::now_us();
            let item = monitor::item(self.node, &session.client, command, &args, now_us);
            self.logical.outbox.extend(item);
        }
        if let Some(action) = action {
            let target = if silent { Target::Silent } else { session.reserve_ticket() };
            session.stall = Stall::Busy;
            let token = Token { index, generation: session.generation };
            self.begin_action(token, target, action);
            // It may be done: then nobody will resume the session.
            let done = self.sessions[index as usize].may_run();
            return if done { Flow::Go } else { Flow::Stop };
        }
        if settled {
            Self::flush_later(&mut self.flush, index, session);
        } else if to != from {
            let Target::Ticket(ticket) = session.reserve_ticket() else {
                unreachable!("a reserved ticket is a ticket")
            };
            session.ticket_stashed(ticket, from, to);
            self.round.unsettled.push(index);
        }
        let flow = if session.may_run() { Flow::Go } else { Flow::Stop };
        let token = Token { index, generation: session.generation };
        self.settle_outbox(Some(token));
        flow
    }

    /// Replies with an error that came before the call ran.
    fn refuse(&mut self, index: u32, error: &CommandError) {
        self.stats.note_error(error);
        self.reply_now(index, |reply| reply.error(error));
    }

    /// Writes a reply in its place among those that are awaited.
    pub(super) fn reply_now(&mut self, index: u32, write: impl FnOnce(&mut Reply<'_>)) {
        let session = &mut self.sessions[index as usize];
        if session.client.reply_mode != ReplyMode::On {
            if session.client.reply_mode != ReplyMode::Off {
                session.client.reply_mode = ReplyMode::On;
            }
            return;
        }
        let protocol = session.client.protocol;
        if session.is_settled() {
            write(&mut Reply::new(&mut session.out, protocol));
            return Self::flush_later(&mut self.flush, index, session);
        }
        let mut out = OutBuf::default();
        write(&mut Reply::new(&mut out, protocol));
        if let Target::Ticket(ticket) = session.reserve_ticket() {
            session.ticket_done(ticket, out);
        }
        self.round.unsettled.push(index);
    }
}

/// Whether a client wants no reply to the call that it makes now.
fn is_silent(client: &mut ClientState) -> bool {
    match client.reply_mode {
        ReplyMode::On => false,
        ReplyMode::Off => true,
        ReplyMode::SkipNext | ReplyMode::Skip => {
            client.reply_mode = ReplyMode::On;
            true
        }
    }
}

/// Whether a session's calls under way were planned by other owners of the slots than those there are
/// now: they may have to run again, and must not be overtaken. What is planned from now on, by the
/// version that the session takes note of, is checked if that is not the one it meets.
fn is_out_of_date(node: &Node, session: &mut Session) -> bool {
    let version = node.owners.version();
    if session.version != version {
        if !session.is_settled() {
            // One of them may wait for a slot that is being handed over: it is not asked for all the
            // time whether it still does.
            session.awaits_replies = true;
            return true;
        }
        session.version = version;
    }
    false
}

/// Whether a command about slots has to wait for the replies of those before it: what they do may
/// depend on it.
fn waits_for_slots(command: &Command, session: &mut Session) -> bool {
    let waits = command.spec.name.starts_with("cordis|") && !session.is_settled();
    session.awaits_replies |= waits;
    waits
}

/// Whether a call is a line of an HTTP request, sent by a browser that a web page misuses to reach a
/// server behind a firewall.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}
