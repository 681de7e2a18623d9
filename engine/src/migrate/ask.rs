//! What a session's handler asks its core to do about slots: what needs a shard's door, time, or
//! another core. Pure data.

use crate::migrate::cluster::MoveId;
use crate::migrate::machine::Attempt;
use crate::units::{CoreId, Ms, SlotId};

/// What is asked for. The reply comes when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotAsk {
    /// The connection goes to this core, which then replies with these bytes.
    Deal {
        /// The core.
        to: CoreId,
        /// The encoded reply.
        greeting: Vec<u8>,
    },
    /// Reply with these bytes once every core has done what was wanted of it, and all of it is on disk.
    Settle {
        /// The encoded reply.
        reply: Vec<u8>,
    },
    /// Something about one slot, on the core that owns it.
    Slot {
        /// The slot.
        slot: SlotId,
        /// The move.
        move_id: MoveId,
        /// The attempt.
        attempt: Attempt,
        /// What.
        what: SlotStep,
    },
}

/// A step of a move, on the target's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotStep {
    /// An attempt begins. The session fills the slot from then on.
    Import {
        /// The epoch that the slot gets.
        epoch: u64,
        /// The source's time.
        now: Ms,
    },
    /// All has come: compare.
    Ready {
        /// Number of keys.
        keys: u64,
        /// The source's digest.
        digest: String,
    },
    /// The slot is served here from now on.
    Commit {
        /// The epoch that the slot gets.
        epoch: u64,
    },
    /// The attempt is over.
    Abort {
        /// The epoch that the slot would have got.
        epoch: u64,
    },
}
