//! Pinned cores: each a thread with its ring, its turn, and mailboxes to the others.

pub mod append;
pub mod ask;
pub mod background;
pub mod clock;
pub mod deferred;
pub mod dialect;
pub mod exclusive;
pub mod intake;
pub mod mailbox;
pub mod migrate;
pub mod outflow;
pub mod outgoing;
pub mod peers;
pub mod pinned;
pub mod pubsub;
pub mod replay;
pub mod requests;
pub mod ring;
pub mod sleep;
pub mod slots;
pub mod stall;
pub mod tenant;
pub mod timer;
pub mod turn;
pub mod walk;
