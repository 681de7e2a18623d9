//! Replies of sets: at once while they are short, in chunks while they are sent otherwise.

use crate::commands::long::{STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN};
use crate::resp::reply::{Reply, Stream};
use crate::types::Collection;
use crate::types::pack::{self, Item};
use crate::types::set::{Set, SetView};

/// Bytes of members from which on a reply is sent in chunks, however few they are.
const STREAM_BYTES_MIN: usize = 4 * STREAM_CHUNK_BYTES;

/// Whether all members are too much for one turn.
fn is_long(set: SetView<'_>) -> bool {
    set.len() >= STREAM_ELEMENTS_MIN || set.heap_bytes() >= STREAM_BYTES_MIN
}

/// Replies all members; the header has been written.
pub(super) fn all(set: SetView<'_>, reply: &mut Reply<'_>) {
    if is_long(set) {
        reply.stream(Members { set: set.to_set(), position: 0 });
    } else {
        set.each(|member| member.reply(reply));
    }
}

/// The same of a set that is nobody else's.
pub(super) fn all_of(set: Set, reply: &mut Reply<'_>) {
    if is_long(set.view()) {
        reply.stream(Members { set, position: 0 });
    } else {
        set.view().each(|member| member.reply(reply));
    }
}

/// All members of a snapshot from a position on.
#[derive(Debug)]
struct Members {
    set: Set,
    position: usize,
}

impl Stream for Members {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let set = self.set.view();
        let end = reply.out().mark().0 + STREAM_CHUNK_BYTES;
        while self.position < set.len() && reply.out().mark().0 < end {
            self.position = set.walk(self.position, |member| member.reply(reply));
        }
        self.position < set.len()
    }
}

/// Members that are replied once it is known how many there are.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Elements side by side, in pieces of about a chunk.
    chunks: Vec<Vec<u8>>,
    count: usize,
}

impl Gathered {
    /// Adds a member.
    pub(super) fn push(&mut self, member: Item<'_>) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < STREAM_CHUNK_BYTES) {
            Some(chunk) => member.encode(chunk),
            None => {
                let mut chunk = Vec::new();
                member.encode(&mut chunk);
                self.chunks.push(chunk);
            }
        }
        self.count += 1;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        self.chunks.iter().flat_map(|chunk| pack::items(chunk))
    }

    /// Replies them; the header has been written.
    pub(super) fn reply(mut self, reply: &mut Reply<'_>) {
        let is_long = self.chunks.len() > STREAM_BYTES_MIN / STREAM_CHUNK_BYTES;
        if is_long || self.count >= STREAM_ELEMENTS_MIN {
            // The last is taken off first.
            self.chunks.reverse();
            reply.stream(self);
        } else {
            self.iter().for_each(|member| member.reply(reply));
        }
    }
}

impl Stream for Gathered {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        if let Some(chunk) = self.chunks.pop() {
            pack::items(&chunk).for_each(|member| member.reply(reply));
        }
        !self.chunks.is_empty()
    }
}
