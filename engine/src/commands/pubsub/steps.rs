//! Calls over very many names, in steps: SUBSCRIBE and its kin with thousands of words, UNSUBSCRIBE
//! of everything, PUBSUB CHANNELS where there are many. Their session waits; its core does a step
//! per turn (`runtime/pubsub.rs`).
//!
//! Redis: does all of it at once, so no message comes between two confirmations of one call.

use std::sync::Arc;

use super::subscribe;
use crate::commands::args::OwnedArgs;
use crate::commands::long::STREAM_CHUNK_BYTES;
use crate::commands::session_ctx::SessionCtx;
use crate::pubsub::Kind;
use crate::resp::reply::{OutBuf, Protocol, Reply};

/// Names that one step takes; a call with more works in steps.
pub const NAMES_PER_STEP: usize = 256;

/// What is left of a call over many names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameWork {
    /// Subscribe to the words from `next` on, or unsubscribe from them.
    Words {
        /// What the names are of.
        kind: Kind,
        /// Whether it subscribes.
        subscribes: bool,
        /// The call.
        words: OwnedArgs,
        /// The first word that is left.
        next: usize,
    },
    /// Unsubscribe from everything of a kind.
    All(Kind),
    /// List what is subscribed to.
    List(Listing),
}

/// A list of names that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    kind: Kind,
    pattern: Option<Box<[u8]>>,
    /// The stripe of the registry to look at next.
    stripe: usize,
    count: usize,
    full: Vec<Arc<Vec<u8>>>,
    last: Vec<u8>,
}

impl NameWork {
    /// The list of names that match a pattern.
    pub fn list(kind: Kind, pattern: Option<&[u8]>) -> Self {
        let pattern = pattern.map(Into::into);
        let (full, last) = (Vec::new(), Vec::new());
        Self::List(Listing { kind, pattern, stripe: 0, count: 0, full, last })
    }

    /// Takes some names; whether that was all. Confirmations are written to `reply`.
    pub fn step(&mut self, ctx: &mut SessionCtx<'_>, reply: &mut Reply<'_>) -> bool {
        match self {
            Self::Words { kind, subscribes, words, next } => {
                let args = words.args();
                let end = (*next + NAMES_PER_STEP).min(args.len());
                let names = (*next..end).map(|word| args.at(word));
                if *subscribes {
                    subscribe::add_names(ctx, names, reply, *kind);
                } else {
                    subscribe::remove_names(ctx, names, reply, *kind);
                }
                *next = end;
                end == args.len()
            }
            Self::All(kind) => subscribe::remove_some(ctx, reply, *kind, NAMES_PER_STEP),
            Self::List(listing) => listing.step(ctx),
        }
    }

    /// What is replied at the end, behind the confirmations.
    pub fn into_reply(self, protocol: Protocol) -> OutBuf {
        let mut out = OutBuf::default();
        if let Self::List(listing) = self {
            Reply::new(&mut out, protocol).array(listing.count);
            listing.full.iter().for_each(|chunk| out.extend_shared(chunk));
            out.extend(&listing.last);
        }
        out
    }
}

impl Listing {
    fn step(&mut self, ctx: &SessionCtx<'_>) -> bool {
        let Self { kind, pattern, stripe, count, full, last } = self;
        let more = ctx.node.pubsub.each_name(*kind, *stripe, pattern.as_deref(), |name| {
            *count += 1;
            push_bulk(last, name);
            if last.len() >= STREAM_CHUNK_BYTES {
                full.push(Arc::new(std::mem::take(last)));
            }
        });
        *stripe += 1;
        !more
    }
}

fn push_bulk(bytes: &mut Vec<u8>, name: &[u8]) {
    bytes.push(b'$');
    bytes.extend_from_slice(itoa::Buffer::new().format(name.len()).as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(b"\r\n");
}
