//! Rounds: the requests parsed in one go, gathered per shard, run where the doors allow, and their
//! replies put in order.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::commands::args::{ArgRange, Args, Aside, OwnedArgs};
use crate::commands::dispatch::ShardSet;
use crate::commands::keys::FoundKey;
use crate::commands::long::LongOp;
use crate::net::session::Session;
use crate::resp::reply::OutBuf;
use crate::runtime::clock::Clock;
use crate::runtime::exclusive::{Exclusive, Work};
use crate::runtime::peers::Letter;
use crate::runtime::ring::{BufferId, Ring, Token};
use crate::runtime::turn::Core;
use crate::shard::batch::{MailBatch, Origin, Ran, Request, Runner, Target};
use crate::shard::state::Shard;
use crate::units::{CoreId, ShardId};

/// Time after which a turn runs no more of what it has taken in: calls that were received together
/// may take long together, however short each is.
const RUN_BUDGET_NS: u64 = 500_000;
/// Requests that are mailed together: whoever runs them looks at the clock in between.
const MAIL_REQUESTS_MAX: usize = 128;
/// Mail that is kept for use again.
const SPARE_MAIL_MAX: usize = 64;

/// Received bytes that a round's requests point into.
#[derive(Debug)]
pub enum Chunk {
    /// A provided buffer.
    Buffer(BufferId, usize),
    /// A session's collected input, and the words of its first call that are apart.
    Owned(Vec<u8>, Aside),
    /// The words of one call: they had to be unescaped, or lie in pieces.
    Words(OwnedArgs),
}

impl Chunk {
    /// The bytes that calls are ranges into.
    #[inline]
    pub fn bytes<'a>(&'a self, ring: &'a Ring) -> &'a [u8] {
        match self {
            Self::Buffer(buffer, len) => ring.bytes(buffer, *len),
            Self::Owned(bytes, _) => bytes,
            Self::Words(words) => words.bytes(),
        }
    }

    /// A call of these words; the one call that it is, if it is no more than that.
    #[inline]
    pub fn args<'a>(&'a self, ring: &'a Ring, ranges: &'a [ArgRange]) -> Args<'a> {
        match self {
            Self::Buffer(buffer, len) => Args::new(ring.bytes(buffer, *len), ranges),
            Self::Owned(bytes, aside) => Args::new(bytes, ranges).with_aside(aside),
            Self::Words(words) => words.args(),
        }
    }

    /// The same, to outlive the round. Nobody else may need the call any more.
    pub fn take_args(&mut self, ring: &Ring, ranges: &[ArgRange]) -> OwnedArgs {
        match self {
            Self::Words(words) => std::mem::take(words),
            _ => self.args(ring, ranges).to_owned(),
        }
    }
}

/// The requests of a round.
#[derive(Debug)]
pub struct Round {
    /// Input that requests point into.
    pub chunks: Vec<Chunk>,
    /// Words of all requests.
    pub ranges: Vec<ArgRange>,
    /// Requests and where their replies go, by shard.
    pub batches: Vec<(Vec<Request>, Vec<Origin>)>,
    /// Replies that came out of order.
    pub stash: OutBuf,
    /// Replies that nobody wants.
    pub trash: OutBuf,
    /// Keys of the call that is being planned.
    pub found: Vec<FoundKey>,
    /// Sessions that got a ticket's reply.
    pub unsettled: Vec<u32>,
    /// Sessions that stopped because too much was under way.
    pub hungry: Vec<Token>,
    /// Whether it has requests whose sessions await no reply: theirs look settled, and are not.
    pub has_silent: bool,
    /// Time of calls on several shards that ran while the input was parsed.
    pub straight_ns: u64,
    /// Whether doors of others were taken for them.
    pub has_doors: bool,
}

impl Round {
    /// Whether something that was gathered has not run for want of time.
    pub fn is_unfinished(&self) -> bool {
        self.batches.iter().any(|(requests, _)| !requests.is_empty())
    }

    /// An empty round for this many shards.
    pub fn new(shard_count: usize) -> Self {
        Self {
            chunks: Vec::new(),
            ranges: Vec::new(),
            batches: (0..shard_count).map(|_| (Vec::new(), Vec::new())).collect(),
            stash: OutBuf::default(),
            trash: OutBuf::default(),
            found: Vec::new(),
            unsettled: Vec::new(),
            hungry: Vec::new(),
            has_silent: false,
            straight_ns: 0,
            has_doors: false,
        }
    }
}

impl Core {
    /// Runs what was gathered, until [`RUN_BUDGET_NS`] after `started`; the round ends when nothing is
    /// left of it. New input waits until then, so that nothing overtakes.
    pub(super) fn run_round(&mut self, started: u64) {
        let own = self.own().index();
        for step in 0..self.round.batches.len() {
            // The own shard first: others may become free meanwhile.
            let index = match step {
                0 => own,
                step if step <= own => step - 1,
                step => step,
            };
            if !self.round.batches[index].0.is_empty() {
                self.run_batch(ShardId(index as u16), started);
            }
        }
        self.settle_round();
        if !self.round.is_unfinished() {
            self.end_round();
        }
    }

    /// Lets replies leave that are due.
    fn settle_round(&mut self) {
        let mut unsettled = std::mem::take(&mut self.round.unsettled);
        for index in unsettled.drain(..) {
            if let Some(session) = self.sessions.get_mut(index as usize) {
                session.settle(&self.round.stash);
                Self::flush_later(&mut self.flush, index, session);
            }
        }
        self.round.unsettled = unsettled;
    }

    fn end_round(&mut self) {
        while let Some(token) = self.round.hungry.pop() {
            let is_ready = |session: &mut Session| {
                // Else whoever settles it resumes it.
                session.may_run() && (session.is_settled() || !session.awaits_replies)
            };
            if self.session_mut(token).is_some_and(is_ready) {
                self.resume.push_back(token);
            }
        }
        self.round.has_silent = false;
        self.round.straight_ns = 0;
        self.round.stash.clear(256 * 1024);
        self.round.trash.clear(64 * 1024);
        self.round.ranges.clear();
        let mut chunks = std::mem::take(&mut self.round.chunks);
        for chunk in chunks.drain(..) {
            if let Chunk::Buffer(buffer, _) = chunk {
                self.ring.recycle(buffer);
            }
        }
        self.round.chunks = chunks;
    }

    /// Runs the requests gathered for a shard: here if its door can be had, else by mail.
    fn run_batch(&mut self, id: ShardId, started: u64) {
        let index = id.index();
        let is_own = id == self.own();
        if let Some(mut held) = self.held[index].take() {
            let runs_here = is_own || self.catch_up(&mut held);
            if runs_here {
                self.run_here(&mut held, started);
            }
            self.held[index] = Some(held);
            if runs_here {
                return;
            }
        } else if !is_own && let Some(mut held) = self.peers.shards[index].try_take(self.id) {
            let runs_here = self.catch_up(&mut held);
            if runs_here {
                let count = self.round.batches[index].0.len();
                self.run_here(&mut held, started);
                let ran = count - self.round.batches[index].0.len();
                self.stats.door_requests.add(ran as u64);
            }
            self.release(held);
            if runs_here {
                return;
            }
        }
        while !self.round.batches[index].0.is_empty() {
            let batch = self.copy_batch(index);
            if is_own {
                self.own_pending.push_back(batch);
            } else {
                self.mail_requests(id, batch);
            }
        }
    }

    /// What this core mailed to a shard that it now holds comes before anything new: runs what nobody
    /// has read, and takes in the replies of what the owner ran, which it posts before it lets go of
    /// the door. Whether all replies are here.
    pub(super) fn catch_up(&mut self, shard: &mut Shard) -> bool {
        let index = shard.id.index();
        if self.mailed[index] == 0 {
            return true;
        }
        self.run_mailed_before(shard);
        while let Some(mut batch) = self.late_requests[index].pop_front() {
            self.run_mail(&mut batch, shard);
            self.mailed[index] -= 1;
            self.deliver_replies(batch);
        }
        self.read_letters();
        self.mailed[index] == 0
    }

    /// Runs the requests gathered for a held shard, on the bytes where they were received, as many as
    /// there is time for.
    fn run_here(&mut self, shard: &mut Shard, started: u64) {
        self.logical.see(&shard.journal);
        let index = shard.id.index();
        let (mut requests, mut origins) = std::mem::take(&mut self.round.batches[index]);
        let mut runner = Runner {
            node: self.node,
            core: self.id,
            clock: &self.clock,
            logical: &mut self.logical,
            now: self.now,
            left: None,
            woken: &mut self.woken,
        };
        let slow_ns = self.node.slow_ns();
        let mut ticks = self.clock.ticks();
        let mut moved = Vec::new();
        let mut done = requests.len();
        for (i, (request, origin)) in requests.iter().zip(&origins).enumerate() {
            if i > 0 && self.clock.ns_between(started, ticks) > RUN_BUDGET_NS {
                done = i;
                break;
            }
            if i % 16 == 0 && requests.len() > 1 {
                Runner::prefetch(shard, &requests[i..]);
            }
            let chunk = &self.round.chunks[request.chunk as usize];
            let (first, count) = (request.words.0 as usize, request.words.1 as usize);
            let args = chunk.args(&self.ring, &self.round.ranges[first..first + count]);
            let session = &mut self.sessions[origin.session as usize];
            let before = ticks;
            let logged = runner.logical.tape.logged();
            let target = session.resolve(origin.target);
            let ran = match target {
                Target::Direct => {
                    let ran = runner.run(shard, request, &args, &mut session.out, &mut ticks);
                    if ran == Ran::Replied {
                        session.direct_done();
                        Self::flush_later(&mut self.flush, origin.session, session);
                        if !session.is_settled() {
                            self.round.unsettled.push(origin.session);
                        }
                    }
                    ran
                }
                Target::Ticket(ticket) => {
                    let from = self.round.stash.mark();
                    let stash = &mut self.round.stash;
                    let ran = runner.run(shard, request, &args, stash, &mut ticks);
                    if ran == Ran::Replied {
                        session.ticket_stashed(ticket, from, self.round.stash.mark());
                        self.round.unsettled.push(origin.session);
                    }
                    ran
                }
                Target::Silent => {
                    runner.run(shard, request, &args, &mut self.round.trash, &mut ticks)
                }
            };
            if runner.logical.tape.logged() != logged {
                session.unsynced = runner.logical.tape.logged();
            }
            if ran != Ran::Replied {
                let target = moved_target(session, target);
                let origin = Origin { target, ..*origin };
                moved.push((*request, args.to_owned(), origin, runner.left.take()));
            } else if slow_ns < u64::MAX {
                let ns = self.clock.ns_between(before, ticks);
                if ns >= slow_ns {
                    self.node.note_slow(request.command, &args, ns, self.now, &session.client);
                }
            }
        }
        requests.drain(..done);
        origins.drain(..done);
        self.round.batches[index] = (requests, origins);
        for (request, words, origin, left) in moved {
            self.run_again(&request, words, origin, left);
        }
    }

    /// Runs what this core had mailed to a shard earlier and nobody has read.
    pub(super) fn run_mailed_before(&mut self, shard: &mut Shard) {
        while let Some(mut batch) = shard.inbox[self.id.index()].try_recv() {
            self.run_mail(&mut batch, shard);
            self.mailed[shard.id.index()] -= 1;
            self.deliver_replies(batch);
        }
    }

    fn run_mail(&mut self, batch: &mut MailBatch, shard: &mut Shard) {
        self.logical.follow(batch.from, batch.sent);
        self.logical.see(&shard.journal);
        let logged = self.logical.tape.logged();
        let mut runner = Runner {
            node: self.node,
            core: self.id,
            clock: &self.clock,
            logical: &mut self.logical,
            now: self.now,
            left: None,
            woken: &mut self.woken,
        };
        batch.run(&mut runner, shard);
        let now_logged = self.logical.tape.logged();
        batch.logged = if now_logged == logged { 0 } else { now_logged };
    }

    /// Runs requests for the own shard: those that waited for it, then those that others mailed, until
    /// [`RUN_BUDGET_NS`] after `started`, if that is given.
    pub(super) fn run_own_mail(&mut self, started: Option<u64>) {
        let own = self.own().index();
        let Some(mut held) = self.held[own].take() else {
            return;
        };
        let has_time = |clock: &Clock| {
            started.is_none_or(|begun| clock.ns_between(begun, clock.ticks()) <= RUN_BUDGET_NS)
        };
        while let Some(mut batch) = self.own_pending.pop_front() {
            self.run_mail(&mut batch, &mut held);
            self.deliver_replies(batch);
        }
        for from in 0..self.peers.core_count() {
            // At most a mailbox full, so that a turn ends.
            for _ in 0..64 {
                if !has_time(&self.clock) {
                    break;
                }
                let Some(mut batch) = held.inbox[from].try_recv() else {
                    break;
                };
                self.run_mail(&mut batch, &mut held);
                self.post(CoreId(from as u16), Letter::Replies(batch));
            }
        }
        self.held[own] = Some(held);
    }

    /// Whether requests for the own shard wait that no doorbell will announce. Asked after the door
    /// was let go of and the sleep flag was raised.
    pub(super) fn own_mail_arrived(&mut self) -> bool {
        let own = self.id.index();
        if let Some(held) = &self.held[own] {
            // Kept for an exclusive call.
            return held.inbox.iter().any(|inbox| !inbox.is_empty());
        }
        let guarded = &self.peers.shards[own];
        let Some(held) = guarded.take_or_wait(self.id) else {
            // A borrower is in, perhaps with mail before it that was put down while our flag was
            // still down: now that we wait, it hands the door over and rings.
            return guarded.door.is_granted_to(self.id);
        };
        let arrived =
            held.inbox.iter().any(|inbox| !inbox.is_empty()) || !self.own_pending.is_empty();
        match held.release() {
            // Somebody asked in this very moment: another turn wakes it.
            Some(heir) => {
                self.ring_later(heir);
                true
            }
            None => arrived,
        }
    }

    /// Copies requests that were gathered for a shard, as many as one mail carries.
    fn copy_batch(&mut self, index: usize) -> Box<MailBatch> {
        let mut batch = self.spare_mail.pop().unwrap_or_default();
        let (mut requests, mut origins) = std::mem::take(&mut self.round.batches[index]);
        let count = requests.len().min(MAIL_REQUESTS_MAX);
        for (request, origin) in requests.drain(..count).zip(origins.drain(..count)) {
            let chunk = &self.round.chunks[request.chunk as usize];
            let (first, count) = (request.words.0 as usize, request.words.1 as usize);
            let args = chunk.args(&self.ring, &self.round.ranges[first..first + count]);
            batch.push(&request, &args, origin);
        }
        self.round.batches[index] = (requests, origins);
        batch
    }

    /// Mails requests to the core that holds a shard; if it has let go meanwhile, runs them here.
    fn mail_requests(&mut self, id: ShardId, mut batch: Box<MailBatch>) {
        let index = id.index();
        self.stats.mail_requests.add(batch.requests.len() as u64);
        (batch.from, batch.sent) = (self.id, self.logical.tape.logged());
        self.mailed[index] += 1;
        let late = &mut self.late_requests[index];
        if !late.is_empty() {
            return late.push_back(batch);
        }
        let post = self.posts[index].as_mut().expect("a core mails nothing to itself");
        if let Err(batch) = post.requests.try_send(batch) {
            late.push_back(batch);
        }
        self.after_mail(id);
    }

    /// Makes sure that mailed requests are read: the owner reads them while it is awake; if it has
    /// let go of its shard since we looked, we run them ourselves or wake it.
    fn after_mail(&mut self, id: ShardId) {
        // Ordering: the mail above before the look at the door below. The owner lets go of the door
        // before it looks at its mail for the last time, with the same fence in `SleepFlag`.
        fence(Ordering::SeqCst);
        let guarded = &self.peers.shards[id.index()];
        if guarded.door.is_held_by_owner() {
            // It reads its mail before it lets go, or after: see `own_mail_arrived`.
            return self.ring_for_mail(id.core());
        }
        if let Some(mut held) = guarded.try_take(self.id) {
            self.run_mailed_before(&mut held);
            return self.release(held);
        }
        self.ring_for_mail(id.core());
    }

    pub(super) fn retry_late_requests(&mut self) {
        for index in 0..self.late_requests.len() {
            if self.late_requests[index].is_empty() {
                continue;
            }
            let post = self.posts[index].as_mut().expect("late requests have a way");
            while let Some(batch) = self.late_requests[index].pop_front() {
                if let Err(batch) = post.requests.try_send(batch) {
                    self.late_requests[index].push_front(batch);
                    break;
                }
            }
            self.after_mail(ShardId(index as u16));
        }
    }

    /// Puts the replies of a batch of this core's own requests where they belong.
    pub(super) fn deliver_replies(&mut self, mut batch: Box<MailBatch>) {
        let mut from = (0, 0);
        let slow_ns = self.node.slow_ns();
        // If others have run it: this core follows from that, and so does what comes next.
        let unsynced = if batch.logged == 0 { 0 } else { self.logical.tape.logged() + 1 };
        for i in 0..batch.ends.len() {
            let (to, ran) = batch.ends[i];
            let left = if ran == Ran::Left { batch.left.pop_front() } else { None };
            let origin = batch.origins[i];
            let token = Token { index: origin.session, generation: origin.generation };
            if let Some(session) = self
                .sessions
                .get_mut(token.index as usize)
                .filter(|s| s.generation == token.generation)
            {
                let target = session.resolve(origin.target);
                session.unsynced = session.unsynced.max(unsynced);
                if ran != Ran::Replied {
                    let target = moved_target(session, target);
                    let words = batch.args(i).to_owned();
                    let request = batch.requests[i];
                    self.run_again(&request, words, Origin { target, ..origin }, left);
                    continue;
                }
                match target {
                    Target::Direct => {
                        session.out.append_range(&batch.replies, from, to);
                        session.direct_done();
                    }
                    Target::Ticket(ticket) => {
                        let mut reply = OutBuf::default();
                        reply.append_range(&batch.replies, from, to);
                        session.ticket_done(ticket, reply);
                    }
                    Target::Silent => {}
                }
                if origin.ns >= slow_ns {
                    let (command, args) = (batch.requests[i].command, batch.args(i));
                    self.node.note_slow(command, &args, origin.ns, self.now, &session.client);
                }
                session.settle(&self.round.stash);
                Self::flush_later(&mut self.flush, origin.session, session);
                if !session.tail.is_empty() && session.may_run() {
                    self.resume.push_back(token);
                }
            }
            from = to;
        }
        batch.reset();
        if self.spare_mail.len() < SPARE_MAIL_MAX {
            self.spare_mail.push(batch);
        }
    }

    /// Runs a request again whose keys were not all on one shard any more when it ran: behind all the
    /// doors that it needs now, before anything newer. If it has left work behind, that is done first,
    /// in steps.
    fn run_again(
        &mut self,
        request: &Request,
        words: OwnedArgs,
        origin: Origin,
        left: Option<Box<dyn LongOp>>,
    ) {
        let mut call = Exclusive {
            token: Token { index: origin.session, generation: origin.generation },
            target: origin.target,
            command: request.command,
            words: Arc::new(words),
            set: ShardSet(1 << self.id.0),
            db: request.db,
            protocol: request.protocol,
            version: request.version,
            import_at: request.import_at,
            stalls: false,
            work: Work::Start,
        };
        match left {
            Some(op) => {
                call.work = Work::Steps(op);
                self.long.push_back(call);
            }
            None => self.moved.push_back(call),
        }
    }

    /// Lets the kernel receive for a session again.
    pub(super) fn arm_receive(ring: &mut Ring, token: Token, session: &mut Session) {
        if !session.receiving
            && !session.closing
            && !session.input_ended
            && let Some(fd) = &session.fd
        {
            session.receiving = true;
            ring.receive(token, fd.as_raw_fd());
        }
    }
}

/// The ticket of a request that has to run again. The direct ones behind it wait for it.
fn moved_target(session: &mut Session, target: Target) -> Target {
    if target == Target::Direct {
        session.convert_directs();
        return session.resolve(Target::Direct);
    }
    target
}
