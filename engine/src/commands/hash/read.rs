//! Reads of fields by name, of counts and lengths, and of all fields: HGET, HMGET, HEXISTS, HLEN,
//! HSTRLEN, HGETALL, HKEYS, HVALS.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::long::{STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN};
use crate::commands::spec::CommandResult;
use crate::commands::words;
use crate::resp::reply::{Reply, Stream};
use crate::types::Collection;
use crate::types::hash::{Hash, HashView};
use crate::types::pack::Item;

pub(super) fn hget(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let value = ctx.view::<Hash>(key)?.and_then(|hash| hash.get(args.at(2)));
    value_or_null(value, reply);
    Ok(())
}

pub(super) fn hmget(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let value_of = |hash: Option<HashView<'_>>, field: &[u8], reply: &mut Reply<'_>| {
        value_or_null(hash.and_then(|hash| hash.get(field)), reply);
    };
    words::answer::<Hash>(ctx, args, 2, value_of, reply)
}

/// Replies a value, or null.
pub(super) fn value_or_null(value: Option<Item<'_>>, reply: &mut Reply<'_>) {
    match value {
        Some(value) => value.reply(reply),
        None => reply.null(),
    }
}

pub(super) fn hexists(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let hash = ctx.view::<Hash>(key)?;
    reply.int_bool(hash.is_some_and(|hash| hash.contains(args.at(2))));
    Ok(())
}

pub(super) fn hlen(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let hash = ctx.view::<Hash>(key)?;
    reply.count(hash.map_or(0, HashView::len));
    Ok(())
}

pub(super) fn hstrlen(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let value = ctx.view::<Hash>(key)?.and_then(|hash| hash.get(args.at(2)));
    reply.count(value.map_or(0, Item::byte_len));
    Ok(())
}

/// What of each field a reply has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parts {
    /// The field.
    Fields,
    /// Its value.
    Values,
    /// The field and its value, one after the other.
    Both,
    /// The two as an array of their own.
    Pairs,
}

impl Parts {
    #[inline]
    pub(super) fn write(self, field: Item<'_>, value: Item<'_>, reply: &mut Reply<'_>) {
        if self == Self::Pairs {
            reply.array(2);
        }
        if self != Self::Values {
            field.reply(reply);
        }
        if self != Self::Fields {
            value.reply(reply);
        }
    }
}

pub(super) fn hgetall(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let hash = ctx.view::<Hash>(key)?;
    reply.map(hash.map_or(0, HashView::len));
    if let Some(hash) = hash {
        all(hash, Parts::Both, reply);
    }
    Ok(())
}

pub(super) fn hkeys(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    list(ctx, args, reply, Parts::Fields)
}

pub(super) fn hvals(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    list(ctx, args, reply, Parts::Values)
}

fn list(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, parts: Parts) -> CommandResult {
    let key = ctx.key(args.at(1));
    let hash = ctx.view::<Hash>(key)?;
    reply.array(hash.map_or(0, HashView::len));
    if let Some(hash) = hash {
        all(hash, parts, reply);
    }
    Ok(())
}

/// Bytes of fields from which on a reply is written while it is sent, however few they are.
const STREAM_BYTES_MIN: usize = 4 * STREAM_CHUNK_BYTES;

/// Writes all fields of a hash, at once or while the reply is sent; the header has been written.
pub(super) fn all(hash: HashView<'_>, parts: Parts, reply: &mut Reply<'_>) {
    if hash.heap_bytes() >= STREAM_BYTES_MIN || is_long(hash) {
        reply.stream(Fields { hash: hash.to_hash(), parts, from: 0 });
    } else {
        hash.each(|field, value| parts.write(field, value, reply));
    }
}

fn is_long(hash: HashView<'_>) -> bool {
    matches!(hash, HashView::Tree(table) if table.len() >= STREAM_ELEMENTS_MIN)
}

/// The fields of a snapshot from a mark on.
#[derive(Debug)]
struct Fields {
    hash: Hash,
    parts: Parts,
    /// As [`HashView::walk`] has it.
    from: usize,
}

impl Stream for Fields {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let hash = self.hash.view();
        let end = reply.out().bytes().len() + STREAM_CHUNK_BYTES;
        while reply.out().bytes().len() < end {
            let parts = self.parts;
            match hash.walk(self.from, |field, value| parts.write(field, value, reply)) {
                Some(next) => self.from = next,
                None => return false,
            }
        }
        true
    }
}
