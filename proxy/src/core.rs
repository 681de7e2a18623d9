//! One core of the proxy: a pinned thread with its ring, and its turn.
//!
//! A turn: reap completions, hand what was received to the hub, carry out what the hub asks for, send
//! what has gathered (one send per session and link), submit and sleep, all in one system call.
//! Nothing in it blocks. There is no executor beside it as in a server's core: a proxy has nothing to
//! do but this.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::reply::{OutBuf, Reply};
use cordis_engine::runtime::ring::{Event, Ring, Token};
use cordis_engine::sys::{affinity, socket};
use cordis_engine::units::Ms;

use crate::hub::{ECANCELED, Hub, LINK_INDEX, Op, WAKE};
use crate::shared::{Mailbox, Shared};
use crate::ways::Ways;

/// Longest sleep of a core that has nothing to do.
const IDLE_SLEEP: Duration = Duration::from_millis(1_000);
/// Longest wait for a send that was expected to complete at once. Not shorter: a timer that is due
/// before the kernel's next tick costs several microseconds to set.
const SEND_GRACE: Duration = Duration::from_millis(10);
/// How long to wait before accepting again after it has failed.
const ACCEPT_PAUSE_MS: i64 = 100;

/// One core.
#[derive(Debug)]
pub struct Core {
    ring: Ring,
    hub: Hub,
    mailbox: Mailbox,
    listeners: Vec<OwnedFd>,
    /// Listeners that accept again at this time.
    accept_at: Vec<(Ms, u32)>,
    events: Vec<Event>,
    is_stopping: bool,
}

impl Core {
    /// A core on the calling thread, which must be the one that runs it.
    ///
    /// # Errors
    /// The kernel refuses a ring.
    pub fn new(
        core: usize,
        shared: Arc<Shared>,
        ways: Arc<Ways>,
        mailbox: Mailbox,
        listeners: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        ring.receive(WAKE, mailbox.wake.as_raw_fd());
        for (index, listener) in listeners.iter().enumerate() {
            ring.accept(index as u32, listener.as_raw_fd());
        }
        let mut hub = Hub::new(core, shared, ways);
        let map = hub.shared.map();
        hub.adopt_map(&map);
        Ok(Self {
            ring,
            hub,
            mailbox,
            listeners,
            accept_at: Vec::new(),
            events: Vec::new(),
            is_stopping: false,
        })
    }

    /// Runs turns until the proxy stops.
    ///
    /// # Errors
    /// The ring broke.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// Runs one turn and sleeps at its end. `false` when the core has stopped.
    ///
    /// # Errors
    /// The ring broke: the process cannot go on.
    pub fn turn(&mut self) -> io::Result<bool> {
        self.hub.begin_turn();
        if self.hub.stopping && !self.is_stopping {
            self.is_stopping = true;
            for index in 0..self.listeners.len() {
                self.ring.cancel_accept(index as u32);
            }
            self.listeners.clear();
        }
        self.reap();
        self.hub.run_resumed();
        self.hub.tick();
        self.accept_again();
        self.hub.flush();
        self.carry_out();
        self.hub.bury();
        if self.hub.is_done() {
            self.ring.submit(0, Duration::ZERO)?;
            return Ok(false);
        }
        self.sleep()?;
        Ok(true)
    }

    fn sleep(&mut self) -> io::Result<()> {
        if self.hub.has_work() {
            return self.ring.submit(0, Duration::ZERO);
        }
        // Sends complete within the call and each posts a completion: waiting for one event would
        // return at once and cost a second call. If one does not complete, the grace ends the wait.
        let sends = self.ring.prompt_sends();
        let mut timeout = if sends > 0 { SEND_GRACE } else { IDLE_SLEEP };
        let accept = self.accept_at.iter().map(|&(at, _)| at).min();
        if let Some(due) = [self.hub.next_deadline(), accept].into_iter().flatten().min() {
            let left = (due.0 - self.hub.now.0).max(0) as u64;
            timeout = timeout.min(Duration::from_millis(left));
        }
        self.ring.submit(sends + 1, timeout)
    }

    fn reap(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.ring.reap(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Received { token, buffer, len, armed } => {
                    let bytes = self.ring.bytes(&buffer, len);
                    if token == WAKE {
                        if !armed {
                            self.ring.receive(WAKE, self.mailbox.wake.as_raw_fd());
                        }
                        self.read_letters();
                    } else if token.index & LINK_INDEX == 0 {
                        self.hub.session_received(token, bytes, armed);
                    } else if let Some(index) = self.hub.link_index(token) {
                        self.hub.link_received(index, bytes);
                        if !armed {
                            self.hub.link_receive_again(index);
                        }
                    }
                    self.ring.recycle(buffer);
                }
                Event::ReceiveEnded { token, errno } => self.receive_ended(token, errno),
                Event::Sent { token, buffer, errno, late, .. } => {
                    if token.index & LINK_INDEX == 0 {
                        self.hub.session_sent(token, buffer, errno, late);
                    } else if let Some(index) = self.hub.link_index(token) {
                        self.hub.link_sent(index, buffer, errno, late);
                    }
                }
                Event::Connected { token, errno } => {
                    if let Some(index) = self.hub.link_index(token) {
                        self.hub.link_connected(index, errno);
                    }
                }
                Event::Accepted { listener, result, armed } => {
                    self.accepted(listener, result, armed);
                }
                // It writes no files.
                Event::Doorbell | Event::Written { .. } | Event::Flushed { .. } => {}
            }
        }
        self.events = events;
    }

    fn receive_ended(&mut self, token: Token, errno: i32) {
        if token == WAKE {
            self.ring.receive(WAKE, self.mailbox.wake.as_raw_fd());
        } else if token.index & LINK_INDEX == 0 {
            self.hub.session_receive_ended(token, errno);
        } else if let Some(index) = self.hub.link_index(token) {
            self.hub.link_receive_ended(index, errno);
        }
    }

    fn read_letters(&mut self) {
        self.hub.shared.answer_ring(self.hub.core);
        while let Ok(letter) = self.mailbox.letters.try_recv() {
            letter(&mut self.hub);
        }
    }

    fn accepted(&mut self, listener: u32, result: Result<i32, i32>, armed: bool) {
        match result {
            Ok(fd) => self.deal(socket::own(fd)),
            Err(ECANCELED) => return,
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                tracing::warn!(%error, "cannot accept a connection; trying again in 100 ms");
                if !armed {
                    self.accept_at.push((Ms(self.hub.now.0 + ACCEPT_PAUSE_MS), listener));
                }
                return;
            }
        }
        if !armed && let Some(socket) = self.listeners.get(listener as usize) {
            self.ring.accept(listener, socket.as_raw_fd());
        }
    }

    fn accept_again(&mut self) {
        let now = self.hub.now;
        let (ring, listeners) = (&mut self.ring, &self.listeners);
        self.accept_at.retain(|&(at, listener)| {
            if at <= now
                && let Some(socket) = listeners.get(listener as usize)
            {
                ring.accept(listener, socket.as_raw_fd());
            }
            at > now
        });
    }

    /// Gives a new connection to the core with the fewest sessions.
    fn deal(&mut self, fd: OwnedFd) {
        let shared = Arc::clone(&self.hub.shared);
        if !shared.take_place() {
            self.hub.stats().rejected_connections.add(1);
            let mut out = OutBuf::default();
            Reply::new(&mut out, Default::default()).error(&CommandError::MAX_CLIENTS);
            return socket::send_once(&fd, out.bytes());
        }
        let own = self.hub.core;
        let sessions = |core: usize| (shared.cores[core].stats.sessions.get(), core != own);
        let least = (0..shared.cores.len()).min_by_key(|&core| sessions(core)).unwrap_or(own);
        if least == own {
            self.hub.open_session(fd);
        } else {
            shared.run_on(least, Box::new(move |hub| hub.open_session(fd)));
        }
    }

    /// Does what the hub asked for.
    fn carry_out(&mut self) {
        for op in self.hub.ops.drain(..) {
            match op {
                Op::Connect(token, fd, to, timeout) => self.ring.connect(token, fd, to, timeout),
                Op::Receive(token, fd) => self.ring.receive(token, fd),
                Op::CancelReceive(token) => self.ring.cancel_receive(token),
                Op::Send(token, fd, out, prompt) => self.ring.send(token, fd, out, prompt),
            }
        }
    }
}

/// The running cores of a proxy.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<io::Result<()>>>,
}

/// Starts one core on each of these processors. `listeners` are served by the first, which deals
/// connections to all.
///
/// # Errors
/// The kernel refuses a ring or a thread; nothing runs then.
pub fn start(
    shared: &Arc<Shared>,
    mailboxes: Vec<Mailbox>,
    ways: Ways,
    listeners: Vec<OwnedFd>,
    cpus: &[usize],
) -> io::Result<Running> {
    // One ring for a moment: what is refused is refused here, before any thread exists.
    drop(Ring::new()?);
    let ways = Arc::new(ways);
    let mut listeners = Some(listeners);
    let mut threads = Vec::new();
    for (core, mailbox) in mailboxes.into_iter().enumerate() {
        let (shared, ways) = (Arc::clone(shared), Arc::clone(&ways));
        let listeners = listeners.take().unwrap_or_default();
        let cpu = cpus.get(core).copied();
        let thread = std::thread::Builder::new().name(format!("proxy-{core}"));
        threads.push(thread.spawn(move || {
            if let Some(cpu) = cpu {
                affinity::pin(cpu)?;
            }
            Core::new(core, shared, ways, mailbox, listeners)?.run()
        })?);
    }
    Ok(Running { shared: Arc::clone(shared), threads })
}

impl Running {
    /// What the cores share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Ends the cores: what was received is answered first, for two seconds at most.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Whether a core has ended: because they were asked to, or it could not go on.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().any(std::thread::JoinHandle::is_finished)
    }

    /// Waits until all cores have ended.
    ///
    /// # Errors
    /// What ended one of them.
    pub fn join(self) -> io::Result<()> {
        for thread in self.threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => return Err(io::Error::other("a core of the proxy has panicked")),
            }
        }
        Ok(())
    }
}
