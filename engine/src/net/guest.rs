//! Sessions that are no plain clients of the server: those of a pipeline that shares the cores with
//! it, such as a proxy within the server's process (the *tenant*, [`crate::runtime::tenant`]).
//! Pure data: no socket, no ring, no command.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};

use crate::commands::args::OwnedArgs;
use crate::commands::table::Command;
use crate::resp::reply::OutBuf;
use crate::units::Ms;

/// What the tenant calls something of its own: an index and a generation that tells a reused index
/// apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    /// Index, below 2^30.
    pub index: u32,
    /// Generation, 24 bits.
    pub generation: u32,
}

/// Whose a session is.
#[derive(Debug, Default)]
pub enum Role {
    /// A client of the server.
    #[default]
    Client,
    /// A client of the tenant: a *guest*.
    Guest(Box<Guest>),
    /// The tenant itself, which talks to its core as a client does, without a socket.
    Inner(Handle),
}

impl Role {
    /// Whether it is a plain client of the server.
    #[inline]
    pub fn is_client(&self) -> bool {
        matches!(self, Self::Client)
    }

    /// Whether it is a client of the tenant.
    #[inline]
    pub fn is_guest(&self) -> bool {
        matches!(self, Self::Guest(_))
    }

    /// What there is of a guest.
    #[inline]
    pub fn guest(&mut self) -> Option<&mut Guest> {
        if let Self::Guest(guest) = self { Some(guest) } else { None }
    }

    /// What the tenant calls it, if the session is the tenant's own.
    #[inline]
    pub fn inner(&self) -> Option<Handle> {
        if let Self::Inner(handle) = self { Some(*handle) } else { None }
    }
}

/// A client of the tenant. Its calls run here, as any client's do, while the tenant says that they
/// may; others go to the tenant, and until it has answered them it gets all of the client's input.
#[derive(Debug)]
pub struct Guest {
    /// What the tenant calls it.
    pub handle: Handle,
    /// What the tenant sees of it meanwhile.
    pub pulse: Arc<Pulse>,
    /// The tenant gets its input.
    pub is_away: bool,
    /// A call of it on several slots may be under way here: nothing may follow before it has been
    /// answered.
    pub is_wide: bool,
    /// Calls that were planned here and could not run any more because their slots had left: each
    /// with the ticket of its reply, in the order of the tickets. The tenant is given them one by one.
    pub refused: VecDeque<(u32, Arc<OwnedArgs>)>,
    /// What the tenant has replied to the first of them, while it has it.
    pub replayed: Option<OutBuf>,
    /// Output of the tenant that is not on its way yet: the buffer that it came in goes back then.
    pub owed: Option<OutBuf>,
}

impl Guest {
    /// A guest whose calls run here.
    pub fn new(handle: Handle, pulse: Arc<Pulse>) -> Self {
        let refused = VecDeque::new();
        Self { handle, pulse, is_away: false, is_wide: false, refused, replayed: None, owed: None }
    }
}

/// Signs of life of a guest. Its core writes and its core reads: the fields are atomic only because
/// sessions may be handed from core to core.
#[derive(Debug, Default)]
pub struct Pulse {
    last_at_ms: AtomicI64,
    /// One more than the id of the last command; 0: none.
    last_command: AtomicU16,
    sending_since_ms: AtomicI64,
}

impl Pulse {
    /// Calls were taken from the guest's input; the last of them was this.
    #[inline]
    pub fn note_calls(&self, now: Ms, last: Option<&Command>) {
        self.last_at_ms.store(now.0, Ordering::Relaxed);
        self.last_command.store(last.map_or(0, |command| command.id + 1), Ordering::Relaxed);
    }

    /// Output has begun to leave, or has left.
    #[inline]
    pub fn note_sending(&self, since: Option<Ms>) {
        self.sending_since_ms.store(since.map_or(0, |since| since.0), Ordering::Relaxed);
    }

    /// When calls were last taken; 0 before the first.
    pub fn last_at(&self) -> Ms {
        Ms(self.last_at_ms.load(Ordering::Relaxed))
    }

    /// The id of the last command.
    pub fn last_command(&self) -> Option<u16> {
        self.last_command.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Since when output has waited for the client to take it, if it does.
    pub fn sending_since(&self) -> Option<Ms> {
        Some(Ms(self.sending_since_ms.load(Ordering::Relaxed))).filter(|since| since.0 != 0)
    }
}
