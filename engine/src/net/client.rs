//! What the server knows of one client: the state that connection commands show and change.
//! Pure data: no socket, no buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commands::args::OwnedArgs;
use crate::commands::table::Command;
use crate::pubsub::Subscriptions;
use crate::resp::reply::Protocol;
use crate::slots::state::SlotSet;
use crate::units::{CoreId, DbIndex, Ms, SlotId};

/// Which replies a client wants (CLIENT REPLY).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// None to the command that set it, none to the next.
    SkipNext,
    /// None to this one.
    Skip,
}

/// A transaction that is being queued.
#[derive(Debug, Default)]
pub struct Multi {
    /// Calls in order.
    pub queued: Vec<(&'static Command, OwnedArgs)>,
    /// A call was refused, so EXEC will be.
    pub aborted: bool,
}

/// The keys that a session watches.
#[derive(Debug, Default)]
pub struct Watching {
    /// Raised when one of them changes.
    pub flag: Arc<AtomicBool>,
    /// The keys. Those that had expired when they were watched have been deleted then, so what is
    /// found expired at EXEC has changed since.
    pub keys: Vec<(DbIndex, Box<[u8]>)>,
}

impl Watching {
    /// Whether a watched key has changed.
    pub fn is_touched(&self) -> bool {
        // Ordering: acquire, paired with the release of whoever raised it.
        self.flag.load(Ordering::Acquire)
    }
}

/// A slot that a session fills before it is served: another server's side of a move.
#[derive(Clone, Copy, Debug)]
pub struct Import {
    /// The move.
    pub move_id: u64,
    /// The slot.
    pub slot: SlotId,
    /// Which attempt.
    pub attempt: u64,
    /// The other server's time: what it sends was done then, and no key had ended that was there.
    pub now: Ms,
    /// Version of the slot owners at which the attempt was last seen to be the one under way.
    pub version: u32,
}

/// One client.
#[derive(Debug)]
pub struct ClientState {
    /// Unique in this process.
    pub id: u64,
    /// Its core.
    pub core: CoreId,
    /// Peer address as `ip:port`, or the socket's path.
    pub addr: Box<str>,
    /// Our address of the connection.
    pub laddr: Box<str>,
    /// File descriptor.
    pub fd: i32,
    /// CLIENT SETNAME.
    pub name: Box<[u8]>,
    /// SELECT.
    pub db: DbIndex,
    /// HELLO.
    pub protocol: Protocol,
    /// Whether it may run commands that need a login.
    pub authenticated: bool,
    /// CLIENT REPLY.
    pub reply_mode: ReplyMode,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// Whether it came over a unix socket.
    pub is_unix: bool,
    /// MULTI, if it is in one. Boxed: few sessions are.
    pub multi: Option<Box<Multi>>,
    /// WATCH, if it watches.
    pub watching: Option<Box<Watching>>,
    /// What it is subscribed to, if it is to anything. Boxed: few sessions are.
    pub subs: Option<Box<Subscriptions>>,
    /// The slot that it fills, if it does.
    pub import: Option<Box<Import>>,
    /// It knows the secret of the cluster.
    pub is_trusted: bool,
    /// It is a link whose refusals hold: see [`refuse`](ClientState::refuse).
    pub is_sticky: bool,
    /// The slots of such refusals, if there are any. Boxed: few sessions have some, and not for long.
    pub refused: Option<Box<SlotSet>>,
    /// It waits in a blocking call.
    pub is_blocked: bool,
    /// MONITOR.
    pub is_monitor: bool,
    /// When it connected.
    pub created_at: Ms,
    /// When its last command came.
    pub last_at: Ms,
    /// Its last command.
    pub last_command: Option<&'static Command>,
    /// Bytes of output that wait, for CLIENT LIST; the session keeps it up to date.
    pub out_bytes: usize,
    /// Bytes of an unfinished request.
    pub query_bytes: usize,
    /// The core closes it once its output has left.
    pub close_after_reply: bool,
}

impl ClientState {
    /// A client that has just connected.
    pub fn new(id: u64, core: CoreId, fd: i32, now: Ms) -> Self {
        Self {
            id,
            core,
            addr: "".into(),
            laddr: "".into(),
            fd,
            name: Box::default(),
            db: DbIndex(0),
            protocol: Protocol::Resp2,
            authenticated: false,
            reply_mode: ReplyMode::On,
            no_evict: false,
            is_unix: false,
            multi: None,
            watching: None,
            subs: None,
            import: None,
            is_trusted: false,
            is_sticky: false,
            refused: None,
            is_blocked: false,
            is_monitor: false,
            created_at: now,
            last_at: now,
            last_command: None,
            out_bytes: 0,
            query_bytes: 0,
            close_after_reply: false,
        }
    }

    /// Whether something of it is noted at its core, or in shards by its place there: then it cannot go
    /// to another core.
    pub fn is_tied(&self) -> bool {
        self.subs.is_some()
            || self.is_monitor
            || self.multi.is_some()
            || self.watching.is_some()
            || self.import.is_some()
    }

    /// A call of it is refused because of a slot. On a sticky link all that comes behind it on that slot
    /// is refused too, until [`retry`](Self::retry): what was refused is sent again, and the slot may
    /// come back before all that was sent with it is here, which would then run first.
    pub fn refuse(&mut self, slot: SlotId) {
        if self.is_sticky {
            self.refused.get_or_insert_default().insert(slot);
        }
    }

    /// All that was sent on a slot and refused has come back to whoever sent it.
    pub fn retry(&mut self, slot: SlotId) {
        if let Some(refused) = &mut self.refused {
            refused.remove(slot);
            if refused.is_empty() {
                self.refused = None;
            }
        }
    }

    /// Its class, as CLIENT LIST TYPE and `client-output-buffer-limit` know it.
    pub fn kind(&self) -> &'static str {
        if self.subs.is_some() { "pubsub" } else { "normal" }
    }
}
