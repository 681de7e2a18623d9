//! What a handler that concerns the session may touch: the client's state and the process, no data.

use std::collections::HashMap;

use crate::commands::pubsub::steps::NameWork;
use crate::migrate::ask::SlotAsk;
use crate::migrate::dialect::call::DialectCall;
use crate::net::client::ClientState;
use crate::node::{CoreStats, Node};
use crate::pubsub::outbox::Outbox;
use crate::units::{DbIndex, Ms};

/// What the core does for a session after its handler has run, when it takes more than the
/// session's own state. The reply comes from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction {
    /// CLIENT LIST over all cores, filtered.
    ListClients(ClientFilter),
    /// CLIENT KILL over all cores. `old_form`: reply OK or an error instead of a count.
    KillClients {
        /// Which ones.
        filter: ClientFilter,
        /// `CLIENT KILL addr`.
        old_form: bool,
    },
    /// CLIENT UNBLOCK over all cores.
    Unblock {
        /// The client.
        id: u64,
        /// Whether it gets an error instead of a timeout.
        error: bool,
    },
    /// The process ends in good order.
    Shutdown,
    /// The session rests for this many milliseconds, its core does not; then the reply is OK
    /// (DEBUG SLEEP).
    Sleep(u64),
    /// A call over very many names, in steps.
    Names(NameWork),
    /// Keys move to another server by the original's commands.
    Dialect(DialectCall),
    /// Something is done about slots, or the connection changes its core.
    Slots(SlotAsk),
}

/// Which clients are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// These ids, and in which place each was asked for.
    pub ids: Option<HashMap<u64, usize>>,
    /// This peer address.
    pub addr: Option<Box<str>>,
    /// This address of ours.
    pub laddr: Option<Box<str>>,
    /// `normal`, `pubsub`, `master` or `replica`.
    pub kind: Option<&'static str>,
    /// This user.
    pub user: Option<Box<str>>,
    /// Not the caller itself.
    pub skip_id: Option<u64>,
}

impl ClientFilter {
    /// Whether `client` is meant.
    pub fn matches(&self, client: &ClientState) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains_key(&client.id))
            && self.addr.as_ref().is_none_or(|addr| *addr == client.addr)
            && self.laddr.as_ref().is_none_or(|laddr| *laddr == client.laddr)
            && self.kind.is_none_or(|kind| kind == client.kind())
            && self.user.as_ref().is_none_or(|user| &**user == "default")
            && self.skip_id != Some(client.id)
    }
}

/// Where microseconds come from. Few calls ask, so the clock is not read for all.
#[derive(Clone, Copy, Debug)]
pub enum Micros {
    /// A clock.
    Clock(fn() -> i64),
    /// A time that was given.
    Fixed(i64),
}

impl Micros {
    /// Wall time.
    pub fn get(self) -> i64 {
        match self {
            Self::Clock(clock) => clock(),
            Self::Fixed(us) => us,
        }
    }
}

/// The context of a session handler.
#[derive(Debug)]
pub struct SessionCtx<'a> {
    /// The client.
    pub client: &'a mut ClientState,
    /// The process.
    pub node: &'a Node,
    /// Counters of this core.
    pub stats: &'a CoreStats,
    /// Time, that of the turn.
    pub now: Ms,
    /// Time in microseconds, at the call.
    pub micros: Micros,
    /// The call runs inside EXEC.
    pub in_exec: bool,
    /// The call may go on after its handler, by an action: its core is there to do it.
    pub may_defer: bool,
    /// Set by a handler that needs the core to act. Then it writes no reply itself.
    pub action: Option<SessionAction>,
    /// What its core has to tell others once the handler has returned.
    pub outbox: &'a mut Outbox,
    /// What was written up to here is pushes: it stays even if the client wants no replies.
    pub pushed: Option<(usize, usize)>,
}

impl SessionCtx<'_> {
    /// The client's database.
    pub fn db(&self) -> DbIndex {
        self.client.db
    }
}
