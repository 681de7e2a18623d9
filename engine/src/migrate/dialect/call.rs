//! What a client asks for by SLOTSMGRT*, and how it ends.

use crate::migrate::dialect::stream::Params;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::units::SlotId;

/// A call that the session's core carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DialectCall {
    /// Move keys to another server.
    Move(Box<MoveCall>),
    /// Wait for the batch of the database.
    Fence,
    /// End it.
    Cancel,
}

/// How keys are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// All of them in one SLOTSRESTORE.
    Sync,
    /// Message by message.
    Async,
}

/// A move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveCall {
    /// How.
    pub form: Form,
    /// Where to: a name or an address.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Limits.
    pub params: Params,
    /// What is moved.
    pub what: What,
    /// Whether the keys that share a tag with them go along.
    pub with_tags: bool,
}

/// Which keys are moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// These.
    Keys(Vec<Box<[u8]>>),
    /// Some of a slot: about so many messages.
    Slot(SlotId, usize),
}

impl MoveCall {
    /// Where to, as one word.
    pub fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// How a move has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// So many keys were moved.
    Moved(usize),
    /// So many of a slot, which had so many.
    MovedOf(usize, usize),
    /// None were.
    Failed(CommandError),
}

impl Outcome {
    /// Writes it as the reply of the call.
    pub fn reply(&self, reply: &mut Reply<'_>) {
        match self {
            Self::Moved(count) => reply.count(*count),
            Self::MovedOf(count, size) => {
                reply.array(2);
                reply.count(*count);
                reply.count(*size);
            }
            Self::Failed(error) => reply.error(error),
        }
    }
}
