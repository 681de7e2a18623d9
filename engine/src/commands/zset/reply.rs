//! Members and scores in replies: at once while they are few, in chunks while they are sent
//! otherwise.

use crate::commands::long::{STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN};
use crate::resp::reply::{Protocol, Reply, Stream};
use crate::types::Collection;
use crate::types::pack::Item;
use crate::types::zset::{Zset, ZsetView};

/// Bytes of members from which on a reply is sent in chunks, however few they are.
const STREAM_BYTES_MIN: usize = 4 * STREAM_CHUNK_BYTES;

/// Integers below this size are printed as such.
const EXACT_MAX: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;

/// Replies a score.
#[inline]
pub(super) fn score(x: f64, reply: &mut Reply<'_>) {
    let is_plain = x.abs() < EXACT_MAX && x.trunc() == x && (x != 0.0 || x.is_sign_positive());
    match reply.protocol() {
        Protocol::Resp2 if is_plain => reply.bulk_int(x as i64),
        _ => reply.double(x),
    }
}

/// What is told of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parts {
    /// Itself.
    Members,
    /// Itself, then its score.
    Flat,
    /// An array of both.
    Pairs,
}

impl Parts {
    /// Those of a reply that has scores, or not.
    pub(super) fn new(with_scores: bool, protocol: Protocol) -> Self {
        match (with_scores, protocol) {
            (false, _) => Self::Members,
            (true, Protocol::Resp2) => Self::Flat,
            (true, Protocol::Resp3) => Self::Pairs,
        }
    }

    /// Announces some members.
    pub(super) fn header(self, len: usize, reply: &mut Reply<'_>) {
        reply.array(if self == Self::Flat { len * 2 } else { len });
    }

    /// Writes a member.
    #[inline]
    pub(super) fn write(self, member: Item<'_>, x: f64, reply: &mut Reply<'_>) {
        if self == Self::Pairs {
            reply.array(2);
        }
        member.reply(reply);
        if self != Self::Members {
            score(x, reply);
        }
    }
}

/// Some members of a sorted set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    /// The lowest rank.
    pub(super) from: usize,
    /// The rank behind the highest.
    pub(super) to: usize,
    /// The highest comes first.
    pub(super) is_reverse: bool,
}

impl Slice {
    fn is_long(self, zset: ZsetView<'_>) -> bool {
        let len = self.to - self.from;
        // Cost: none for few members; else an average, since a range has no size of its own.
        len >= STREAM_ELEMENTS_MIN
            || zset.heap_bytes() / zset.len().max(1) * len >= STREAM_BYTES_MIN
    }

    /// Replies its members; the header has been written.
    pub(super) fn write(self, zset: ZsetView<'_>, parts: Parts, reply: &mut Reply<'_>) {
        if self.is_long(zset) {
            return reply.stream(Members { zset: zset.to_zset(), slice: self, parts });
        }
        if self.is_reverse {
            zset.range_rev(self.from, self.to).for_each(|(m, x)| parts.write(m, x, reply));
        } else {
            zset.range(self.from, self.to).for_each(|(m, x)| parts.write(m, x, reply));
        }
    }
}

/// Replies all members of a result.
pub(super) fn all_of(zset: Zset, parts: Parts, reply: &mut Reply<'_>) {
    let slice = Slice { from: 0, to: zset.len(), is_reverse: false };
    parts.header(slice.to, reply);
    if slice.is_long(zset.view()) {
        reply.stream(Members { zset, slice, parts });
    } else {
        slice.write(zset.view(), parts, reply);
    }
}

/// Members of a snapshot.
#[derive(Debug)]
struct Members {
    zset: Zset,
    /// What is left of them.
    slice: Slice,
    parts: Parts,
}

/// Writes members until there is a chunk. Returns how many.
fn chunk<'z>(
    members: impl Iterator<Item = (Item<'z>, f64)>,
    parts: Parts,
    reply: &mut Reply<'_>,
) -> usize {
    let end = reply.out().bytes().len() + STREAM_CHUNK_BYTES;
    let mut written = 0;
    for (member, x) in members {
        parts.write(member, x, reply);
        written += 1;
        if reply.out().bytes().len() >= end {
            break;
        }
    }
    written
}

impl Stream for Members {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let (zset, slice) = (self.zset.view(), &mut self.slice);
        if slice.is_reverse {
            slice.to -= chunk(zset.range_rev(slice.from, slice.to), self.parts, reply);
        } else {
            slice.from += chunk(zset.range(slice.from, slice.to), self.parts, reply);
        }
        slice.from < slice.to
    }
}
