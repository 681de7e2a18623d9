//! Replies of list elements: at once while they are few, in chunks while they are sent otherwise.

use crate::commands::long::{STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN};
use crate::resp::reply::{Reply, Stream};
use crate::types::Collection;
use crate::types::list::{End, List, ListView};

/// Bytes of elements from which on a reply is sent in chunks, however few they are.
const STREAM_BYTES_MIN: usize = 4 * STREAM_CHUNK_BYTES;

/// Replies the elements from `from` to `to` (exclusive) as an array: in order, or the last first if
/// `first` is the back.
#[inline]
pub(super) fn reply_range(
    list: ListView<'_>,
    from: usize,
    to: usize,
    first: End,
    reply: &mut Reply<'_>,
) {
    let count = to.saturating_sub(from);
    reply.array(count);
    if count == 0 {
        return;
    }
    if count >= STREAM_ELEMENTS_MIN || list.mean_bytes() * count >= STREAM_BYTES_MIN {
        let mut list = list.to_list();
        // Both parts are the value's as well: nothing is freed here.
        drop(list.remove_range(to, usize::MAX));
        drop(list.remove_range(0, from));
        return reply.stream(Elements { list, first });
    }
    match first {
        End::Front => list.for_each(from, to, |item| item.reply(reply)),
        End::Back => list.for_each_back(from, to, |item| item.reply(reply)),
    }
}

/// Elements that are still to be sent, and the end at which they leave.
#[derive(Debug)]
struct Elements {
    list: List,
    first: End,
}

impl Stream for Elements {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let end = reply.out().mark().0 + STREAM_CHUNK_BYTES;
        while !self.list.is_empty() && reply.out().mark().0 < end {
            let view = self.list.view();
            let len = view.len();
            // A run at a time, which is let go at once: what is sent takes no memory any more.
            let (from, to) = match self.first {
                End::Front => (0, view.run_at(0).0.len()),
                End::Back => (len - view.run_at(len - 1).0.len(), len),
            };
            match self.first {
                End::Front => view.for_each(from, to, |item| item.reply(reply)),
                End::Back => view.for_each_back(from, to, |item| item.reply(reply)),
            }
            drop(self.list.remove_range(from, to));
        }
        !self.list.is_empty()
    }
}
