//! Connections to targets: taken, dialled, kept for a while; and what comes in on them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::migrate::dialect::batch::{Batch, Refused};
use crate::migrate::dialect::call::{Form, Outcome};
use crate::resp::error::CommandError;
use crate::resp::reply::OutBuf;
use crate::runtime::dialect::{Job, Line, POLL_MS, Phase, Step};
use crate::runtime::outgoing::{LinkEvent, LinkFault, LinkId, LinkOwner};
use crate::runtime::turn::Core;
use crate::shard::state::KeyRef;
use crate::sys::socket;
use crate::units::{DbIndex, Ms};

impl Core {
    /// All keys are known: those that are there, or that the target has an old copy of, are sent.
    pub(super) fn begin_sending(&mut self, job: &mut Job) -> Step {
        let mut is_any = job.keys.is_empty();
        for key in std::mem::take(&mut job.keys) {
            // Looked at again when it is read; this is to dial nobody for nothing.
            let is_there = is_any || {
                let at = KeyRef::new(&key);
                let seen = self.at_slot(at.slot, job.db, |ctx| ctx.peek(at, false).is_some());
                seen.unwrap_or(true) || self.node.dialect.lock(job.db).is_tainted(&key, &job.target)
            };
            is_any |= is_there;
            job.keys.push(key);
        }
        if job.keys.is_empty() || !is_any {
            self.note_size(job);
            return Step::Done(job.outcome());
        }
        job.batch = Batch::new(job.call.form, job.call.params, job.keys.iter().cloned());
        if let Some(shown) = &mut self.node.dialect.lock(job.db).shown
            && job.is_shown()
        {
            shown.keys = job.keys.clone();
            shown.estimated_messages = job.estimated.max(job.keys.len());
        }
        self.take_line(job)
    }

    /// Takes a connection that is there, or makes one.
    pub(super) fn take_line(&mut self, job: &mut Job) -> Step {
        let is_fit = |line: &Line| {
            let same_db = job.call.form == Form::Sync || line.db == job.db;
            line.user.is_none()
                && line.form == job.call.form
                && line.target == job.target
                && same_db
        };
        if let Some(line) = self.dialect.lines.iter_mut().find(|line| is_fit(line)) {
            line.user = Some(job.id);
            job.line = Some(line.number);
            self.links.set_silence(line.link, job.call.params.timeout_ms);
            if line.db != job.db {
                line.db = job.db;
                let mut hello = OutBuf::default();
                let count = job.batch.hello(&mut hello, job.db, None, false);
                job.batch.note_written(count, hello.len());
                let link = line.link;
                self.write_link(link, count, &hello);
            }
            job.phase = Phase::Send;
            return Step::Busy;
        }
        let ip = match &*job.call.host {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        };
        if let Some(ip) = ip {
            return self.dial(job, SocketAddr::new(ip, job.call.port));
        }
        // Asking for a name takes as long as it takes: not in a turn.
        let (answer, receiver) = channel();
        let (host, port) = (job.call.host.clone(), job.call.port);
        let asked = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
            let address = socket::resolve(&host, port).ok().and_then(|all| all.first().copied());
            // Nobody waits for it any more if this fails.
            let _ = answer.send(address);
        });
        if asked.is_err() {
            return Step::Done(self.no_target(job, "no thread to look its name up"));
        }
        job.phase = Phase::Resolve(receiver);
        Step::Until(Ms(self.now.0 + POLL_MS))
    }

    pub(super) fn resolved(&mut self, job: &mut Job, answer: Receiver<Option<SocketAddr>>) -> Step {
        match answer.try_recv() {
            Ok(Some(address)) => self.dial(job, address),
            Ok(None) | Err(TryRecvError::Disconnected) => {
                Step::Done(self.no_target(job, "there is no such host"))
            }
            Err(TryRecvError::Empty)
                if self.now.0 - job.begun_at.0 > job.call.params.timeout_ms =>
            {
                Step::Done(self.no_target(job, "its name is not found in time"))
            }
            Err(TryRecvError::Empty) => {
                job.phase = Phase::Resolve(answer);
                Step::Until(Ms(self.now.0 + POLL_MS))
            }
        }
    }

    pub(super) fn no_target(&self, job: &Job, why: &str) -> Outcome {
        Outcome::Failed(match job.call.form {
            Form::Sync => CommandError::no_target(why),
            Form::Async => CommandError::no_client(&job.call.host, job.call.port),
        })
    }

    pub(super) fn dial(&mut self, job: &mut Job, address: SocketAddr) -> Step {
        let (db, form) = (job.db, job.call.form);
        // One connection per database and core: another target takes its place.
        if form == Form::Async {
            let others = |line: &Line| line.form == form && line.db == db && line.user.is_none();
            self.close_lines(others);
        }
        let number = self.dialect.number();
        let (owner, silence_ms) = (LinkOwner::Dialect(number), job.call.params.timeout_ms);
        let link = match self.links.dial(&mut self.ring, owner, address, silence_ms, self.now) {
            Ok(link) => link,
            Err(error) => return Step::Done(self.no_target(job, &error.to_string())),
        };
        let target = job.target.clone();
        let user = Some(job.id);
        let line = Line { number, link, form, target, db, user, idle_since: self.now };
        self.dialect.lines.push(line);
        job.line = Some(number);
        let password = self.node.config.requirepass();
        let mut hello = OutBuf::default();
        let count = job.batch.hello(&mut hello, db, password.as_deref(), true);
        job.batch.note_written(count, hello.len());
        self.write_link(link, count, &hello);
        job.phase = Phase::Send;
        Step::Busy
    }

    pub(super) fn write_link(&mut self, link: LinkId, replies: usize, message: &OutBuf) -> bool {
        self.links.write(link, replies, self.now, |out| {
            out.append_range(message, (0, 0), message.mark());
        })
    }

    pub(super) fn close_lines(&mut self, mut which: impl FnMut(&Line) -> bool) {
        let links = &mut self.links;
        self.dialect.lines.retain(|line| {
            let closes = which(line);
            if closes {
                links.close(line.link);
            }
            !closes
        });
    }

    pub(super) fn close_idle_lines(&mut self) {
        let now = self.now;
        if !self.dialect.lines.iter().any(|line| line.user.is_none() && line.idle_until() <= now) {
            return;
        }
        let is_old = |line: &Line| line.user.is_none() && line.idle_until() <= now;
        for line in self.dialect.lines.iter().filter(|line| is_old(line)) {
            let mut moves = self.node.dialect.lock(line.db);
            if line.form == Form::Async && moves.shown.is_none() {
                moves.client = moves.client.take().filter(|client| client.core != self.id);
            }
        }
        self.close_lines(is_old);
    }

    /// Notices that connections were cancelled.
    pub(super) fn note_cancels(&mut self) {
        let count = self.node.dialect.cancel_count();
        if count == self.dialect.cancels_seen {
            return;
        }
        self.dialect.cancels_seen = count;
        let node = self.node;
        let is_dropped = |db: DbIndex, job: u64| {
            let moves = node.dialect.lock(db);
            moves.client.as_ref().is_none_or(|client| client.job != job)
        };
        self.close_lines(|line| {
            let is_idle = line.form == Form::Async && line.user.is_none();
            is_idle && node.dialect.lock(line.db).client.is_none()
        });
        for _ in 0..self.dialect.jobs.len() {
            let Some(job) = self.dialect.jobs.pop_front() else { return };
            if job.is_shown() && is_dropped(job.db, job.id) {
                self.fail(job, CommandError::interrupted("canceled"), true);
            } else {
                self.dialect.jobs.push_back(job);
            }
        }
    }
}

impl Core {
    /// Something happened on a connection of a move.
    pub(in crate::runtime) fn dialect_event(
        &mut self,
        number: u64,
        _link: LinkId,
        event: LinkEvent,
    ) {
        let Some(index) = self.dialect.lines.iter().position(|line| line.number == number) else {
            return;
        };
        let user = self.dialect.lines[index].user;
        let is_down = matches!(event, LinkEvent::Down(_));
        if is_down {
            let line = self.dialect.lines.remove(index);
            self.forget_client(&line);
        }
        let at = self.dialect.jobs.iter().position(|job| Some(job.id) == user);
        let Some(mut job) = at.and_then(|at| self.dialect.jobs.remove(at)) else {
            return;
        };
        match event {
            LinkEvent::Up => {}
            LinkEvent::Answer(answer) => {
                if let Err(refused) = job.batch.answer(&answer) {
                    let error = refusal(&job, &refused);
                    return self.fail(job, error, true);
                }
            }
            LinkEvent::Down(fault) => {
                tracing::info!(target = job.target, why = %fault, "a connection of a move is gone");
                let error = self.fault(&job, &fault);
                let was_there = !matches!(fault, LinkFault::Unreachable(_));
                return self.fail(job, error, was_there);
            }
        }
        job.is_busy = true;
        self.show_job(&job);
        self.dialect.jobs.push_back(job);
    }

    /// An unused connection of asynchronous moves is gone: STATUS shows it no more.
    pub(super) fn forget_client(&self, line: &Line) {
        if line.form == Form::Async && line.user.is_none() {
            let mut moves = self.node.dialect.lock(line.db);
            if moves.shown.is_none() {
                moves.client = moves.client.take().filter(|client| client.core != self.id);
            }
        }
    }

    pub(super) fn fault(&self, job: &Job, fault: &LinkFault) -> CommandError {
        match (job.call.form, fault) {
            (Form::Async, LinkFault::Unreachable(_)) => {
                CommandError::no_client(&job.call.host, job.call.port)
            }
            (Form::Async, LinkFault::Silent) => CommandError::interrupted("migration timeout"),
            (Form::Async, _) => CommandError::interrupted("connection closed"),
            (Form::Sync, LinkFault::Unreachable(libc::ECANCELED)) => CommandError::TARGET_CONNECT,
            (Form::Sync, LinkFault::Unreachable(errno)) => {
                let why = std::io::Error::from_raw_os_error(*errno).to_string();
                CommandError::no_target(why.split(" (os error").next().unwrap_or(&why))
            }
            (Form::Sync, LinkFault::Broken(_)) => CommandError::TARGET_WRITE,
            (Form::Sync, _) => CommandError::TARGET_READ,
        }
    }
}

fn refusal(job: &Job, refused: &Refused) -> CommandError {
    match refused {
        Refused::Part(part) => CommandError::target_refuses(part),
        Refused::Message(text) => {
            tracing::warn!(target = job.target, text, "a target refuses what moves there");
            CommandError::interrupted("connection closed")
        }
        Refused::NoTarget(text) => {
            tracing::warn!(target = job.target, text, "something else than a target answers");
            CommandError::interrupted("connection closed")
        }
    }
}
