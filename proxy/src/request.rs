//! A request that is not on a link: it waits for its slots, or comes back from a server that refused
//! it. Most requests never become one: their bytes go from a session's input straight to a link.

use cordis_engine::resp::reply::Protocol;

use crate::link::{Consumer, LinkError};
use crate::route::{Fault, SlotList};

/// A request with its own bytes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) consumer: Consumer,
    pub(crate) slots: SlotList,
    /// Its number among all requests of the core.
    pub(crate) seq: u64,
    /// When it arrived, in ticks.
    pub(crate) at: u64,
    pub(crate) command: u16,
    pub(crate) replies: u16,
    pub(crate) db: u8,
    pub(crate) protocol: Protocol,
}

/// What the client of a request that was never sent is told.
pub(crate) fn fault_error(fault: Fault) -> LinkError {
    LinkError::new(match fault {
        Fault::Offline(_) => "handle request, slot is not ready, may be offline".to_owned(),
        Fault::Locked(slot) => {
            format!("handle request, slot {slot} is locked: control is about to move it")
        }
        Fault::Fenced(slot) => {
            format!("handle request, slot {slot} is fenced: this proxy has lost touch with control")
        }
        Fault::Deadline(slot) => {
            format!("handle response, no server would take slot {slot} in time")
        }
    })
}

/// An error reply of this text.
pub(crate) fn error_reply(text: &str) -> Vec<u8> {
    let mut reply = Vec::with_capacity(text.len() + 7);
    reply.extend_from_slice(b"-");
    // A line end within would break the framing.
    reply.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    reply.extend_from_slice(b"\r\n");
    reply
}

/// The error reply of a request that got none from its server.
pub(crate) fn link_error_reply(error: &LinkError) -> Vec<u8> {
    error_reply(&format!("ERR {error}"))
}
