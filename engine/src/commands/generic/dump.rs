//! Values as bytes: DUMP writes one as Redis would. Its way back is RESTORE ([`super::restore`]).
//!
//! The bytes are `rdb`'s; here a stored value is handed to its writer ([`dump_value`]).

use std::sync::Arc;

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp};
use crate::commands::spec::{
    Access, Acl, Arg, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec, Purpose,
};
use crate::rdb::{self, LongText, OpenList, Writer, footer};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::store::entry::Value;
use crate::types::hash::{Hash, HashView};
use crate::types::list::{List, ListView};
use crate::types::pack::Item;
use crate::types::set::{Set, SetView};
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Object, Packed};

pub(super) const DUMP: CommandSpec = CommandSpec {
    name: "dump",
    family: Family::Generic,
    since: "2.6.0",
    summary: "Returns a value as bytes that RESTORE takes",
    complexity: "O(N) with N elements of a collection or bytes of a string",
    arity: Arity::Exact(2),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    tips: &["nondeterministic_output"],
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0)],
    handler: Handler::Data(dump),
    ..CommandSpec::EMPTY
};

/// Payloads from here on are shared with the reply, not copied.
const SHARED_BYTES_MIN: usize = 32 * 1024;
/// Collections of so much memory are written in steps, however few elements they have.
const LONG_BYTES_MIN: usize = 256 * 1024;

fn dump(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let limits = dump_limits(ctx.node.config.list_max_listpack_size());
    let Some(entry) = ctx.read(key) else {
        reply.null();
        return Ok(());
    };
    match entry.value() {
        Value::Object(value) if is_long(value) => {
            let (op, len) = (Op::new(value.clone(), limits), value.len());
            return ctx.run_long_read(Box::new(op), len.max(LONG_ELEMENTS_MIN), reply);
        }
        Value::Big(text) if text.len() >= LONG_TEXT_BYTES_MIN => {
            let op = TextOp::Write(LongText::new(Arc::clone(text)));
            return ctx.run_long_read(Box::new(op), LONG_ELEMENTS_MIN, reply);
        }
        value => answer(payload_of(value, limits), reply),
    }
    Ok(())
}

fn answer(payload: Vec<u8>, reply: &mut Reply<'_>) {
    if payload.len() < SHARED_BYTES_MIN {
        reply.bulk(&payload);
    } else {
        reply.bulk_shared(&Arc::new(payload));
    }
}

/// Whether a collection takes steps: it is a tree, whose elements are written one by one.
fn is_long(value: &Object) -> bool {
    let is_tree = match value {
        Object::List(_) => true,
        Object::Hash(hash) => matches!(hash, Hash::Tree(_)),
        Object::Set(set) => matches!(set, Set::Tree(_)),
        Object::Zset(zset) => matches!(zset, Zset::Tree(_)),
    };
    is_tree && (value.len() >= LONG_ELEMENTS_MIN || value.heap_bytes() >= LONG_BYTES_MIN)
}

/// DUMP of a collection that is too large for one turn.
#[derive(Debug)]
struct Op {
    value: Object,
    stage: Stage,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// Elements are written, from this position on.
    Write(Writer, Option<OpenList>, usize),
    /// The checksum is worked out.
    Seal(footer::Seal),
    /// A step is being taken.
    Between,
}

/// Elements that a step writes, bytes after which it ends, and bytes of the checksum.
const ELEMENTS_PER_STEP: usize = 200;
const BYTES_PER_STEP: usize = 64 * 1024;
/// Elements that are written without a look at their bytes.
const PORTION: usize = 20;
/// Elements of more than so many bytes on average are written one by one.
const LONG_ELEMENT_BYTES_MIN: usize = 1024;

impl Op {
    fn new(value: Object, limits: rdb::Limits) -> Self {
        // A payload that grew by doubling would be copied as a whole, again and again.
        let byte_count = value.heap_bytes() + BYTES_PER_STEP;
        let mut writer = Writer::with_capacity(rdb::Format::V10, limits, byte_count);
        let len = value.len();
        let mut list = None;
        match &value {
            Object::List(_) => list = Some(writer.begin_list(len).pause()),
            Object::Hash(_) => writer.begin_hash(len),
            Object::Set(_) => writer.begin_set(len),
            Object::Zset(_) => writer.begin_zset(len),
        }
        Self { value, stage: Stage::Write(writer, list, 0) }
    }

    /// Writes some elements from a position on; returns the next position.
    fn write_some(
        value: &Object,
        writer: &mut Writer,
        list: &mut Option<OpenList>,
        from: usize,
    ) -> usize {
        // Of long elements only one: each may be compressed.
        let element_bytes = value.heap_bytes() / value.len().max(1);
        let portion = if element_bytes > LONG_ELEMENT_BYTES_MIN { 1 } else { PORTION };
        let end = value.len().min(from + portion);
        match value {
            Object::List(elements) => {
                let open = list.take().expect("a list was begun as one");
                let mut items = open.resume(writer);
                elements.view().for_each(from, end, |item| items.push(&item.text()));
                *list = Some(items.pause());
            }
            Object::Hash(hash) => {
                let visit = |field: Item<'_>, value: Item<'_>| {
                    writer.field(&field.text(), &value.text());
                };
                // The marks of a tree are positions.
                return hash.view().walk(from, visit).unwrap_or(value.len());
            }
            Object::Set(set) => {
                return set.view().walk(from, |member| writer.member(&member.text()));
            }
            Object::Zset(zset) => {
                // Greatest first, as in `write_zset`.
                let len = value.len();
                for (member, score) in zset.view().range_rev(len - end, len - from) {
                    writer.scored(&member.text(), score);
                }
            }
        }
        end
    }
}

impl LongOp for Op {
    fn step(&mut self) -> bool {
        match std::mem::replace(&mut self.stage, Stage::Between) {
            Stage::Write(mut writer, mut list, from) => {
                let (mut at, begun) = (from, writer.bytes().len());
                while at < self.value.len()
                    && at - from < ELEMENTS_PER_STEP
                    && writer.bytes().len() - begun < BYTES_PER_STEP
                {
                    at = Self::write_some(&self.value, &mut writer, &mut list, at);
                }
                self.stage = if at < self.value.len() {
                    Stage::Write(writer, list, at)
                } else {
                    if let Some(list) = list {
                        list.resume(&mut writer).finish();
                    }
                    let version = rdb::Format::V10.version();
                    Stage::Seal(footer::Seal::new(writer.into_bytes(), version))
                };
                false
            }
            Stage::Seal(mut seal) => {
                let is_done = seal.step(BYTES_PER_STEP);
                self.stage = Stage::Seal(seal);
                is_done
            }
            Stage::Between => true,
        }
    }

    fn finish(
        self: Box<Self>,
        _ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        match self.stage {
            Stage::Seal(seal) => answer(seal.into_payload(), reply),
            Stage::Write(..) | Stage::Between => unreachable!("it has been stepped to its end"),
        }
        Ok(Finish::Done)
    }
}

/// Strings of so many bytes are compressed in steps, and bytes that a step compresses or copies.
const LONG_TEXT_BYTES_MIN: usize = 64 * 1024;
const TEXT_BYTES_PER_STEP: usize = 16 * 1024;

/// DUMP of a string that is too long for one turn.
#[derive(Debug)]
enum TextOp {
    /// It is compressed.
    Write(LongText),
    /// The checksum is worked out.
    Seal(footer::Seal),
    /// A step is being taken.
    Between,
}

impl LongOp for TextOp {
    fn step(&mut self) -> bool {
        match std::mem::replace(self, Self::Between) {
            Self::Write(mut text) => {
                *self = if text.step(TEXT_BYTES_PER_STEP) {
                    Self::Seal(footer::Seal::new(text.into_bytes(), rdb::Format::V10.version()))
                } else {
                    Self::Write(text)
                };
                false
            }
            Self::Seal(mut seal) => {
                let is_done = seal.step(BYTES_PER_STEP);
                *self = Self::Seal(seal);
                is_done
            }
            Self::Between => true,
        }
    }

    fn finish(
        self: Box<Self>,
        _ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        match *self {
            Self::Seal(seal) => answer(seal.into_payload(), reply),
            Self::Write(_) | Self::Between => unreachable!("it has been stepped to its end"),
        }
        Ok(Finish::Done)
    }
}

/// What DUMP answers for a value: what the journal carries of a collection, too.
pub fn dump_value(value: Value<'_>) -> Vec<u8> {
    payload_of(value, dump_limits(rdb::Limits::DEFAULT.list_node))
}

/// The same for a peer that knows no newer layout than version 7: codis-server, Redis 3.2.
pub fn dump_value_old(value: Value<'_>) -> Vec<u8> {
    rdb::dump_payload(rdb::Format::V7, rdb::Limits::PACKED, |writer| write_value(writer, value))
}

/// Each form of ours has one of Redis': what is packed here is packed there, whatever the limits.
fn dump_limits(list_node: i64) -> rdb::Limits {
    rdb::Limits { list_node, ..rdb::Limits::PACKED }
}

fn payload_of(value: Value<'_>, limits: rdb::Limits) -> Vec<u8> {
    rdb::dump_payload(rdb::Format::V10, limits, |writer| write_value(writer, value))
}

/// The one place that knows how each type is written.
fn write_value(writer: &mut Writer, value: Value<'_>) {
    match value {
        Value::Int(_) | Value::Inline { .. } | Value::Big(_) => writer.string(&value.bytes()),
        Value::Packed(packed, bytes) => write_packed(writer, packed, bytes),
        Value::Object(Object::List(list)) => write_list(writer, list.view()),
        Value::Object(Object::Hash(hash)) => write_hash(writer, hash.view()),
        Value::Object(Object::Set(set)) => write_set(writer, set.view()),
        Value::Object(Object::Zset(zset)) => write_zset(writer, zset.view()),
    }
}

fn write_packed(writer: &mut Writer, packed: Packed, bytes: &[u8]) {
    let written = match packed {
        Packed::List => List::view_packed(packed, bytes).map(|list| write_list(writer, list)),
        Packed::Hash => Hash::view_packed(packed, bytes).map(|hash| write_hash(writer, hash)),
        Packed::Set | Packed::SetInts => {
            Set::view_packed(packed, bytes).map(|set| write_set(writer, set))
        }
        Packed::Zset => Zset::view_packed(packed, bytes).map(|zset| write_zset(writer, zset)),
    };
    written.expect("each type reads its own packed form");
}

fn write_list(writer: &mut Writer, list: ListView<'_>) {
    let mut items = writer.begin_list(list.len());
    list.for_each(0, list.len(), |item| items.push(&item.text()));
    items.finish();
}

fn write_set(writer: &mut Writer, set: SetView<'_>) {
    if set.is_ints() {
        let mut members = Vec::with_capacity(set.len());
        set.each(|member| members.push(member.to_vec()));
        return writer.set(members.len(), members.iter().map(Vec::as_slice));
    }
    writer.begin_set(set.len());
    set.each(|member| writer.member(&member.text()));
}

fn write_hash(writer: &mut Writer, hash: HashView<'_>) {
    if let HashView::Packed(_) = hash {
        let mut pairs = Vec::with_capacity(hash.len());
        hash.each(|field, value| pairs.push((field.to_vec(), value.to_vec())));
        let pairs = pairs.iter().map(|(field, value)| (&field[..], &value[..]));
        return writer.hash(hash.len(), pairs);
    }
    writer.begin_hash(hash.len());
    hash.each(|field, value| writer.field(&field.text(), &value.text()));
}

fn write_zset(writer: &mut Writer, zset: ZsetView<'_>) {
    let len = zset.len();
    if let ZsetView::Packed(_) = zset {
        let members: Vec<_> =
            zset.range(0, len).map(|(member, score)| (member.to_vec(), score)).collect();
        return writer.zset(len, members.iter().map(|(member, score)| (&member[..], *score)));
    }
    writer.begin_zset(len);
    for (member, score) in zset.range_rev(0, len) {
        writer.scored(&member.text(), score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::types::Limits;
    use crate::types::list::End;

    const LIMITS: Limits = Limits {
        hash_entries_max: 128,
        hash_value_bytes_max: 64,
        set_ints_max: 512,
        zset_entries_max: 128,
        zset_value_bytes_max: 64,
    };

    /// `DUMP` of the string `5` by Redis 7.0.15.
    const FIVE: &[u8] = b"\x00\xc0\x05\n\x00c/_f\x83/\xb3Q";

    #[test]
    fn dump_of_strings_is_that_of_redis() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        let cases: [(&[u8], &[u8]); 5] = [
            (b"5", FIVE),
            (b"-129", b"\x00\xc1\x7f\xff\x0a\x00\x17\x60\x82\x28\x54\x80\x84\x80"),
            (b"70000", b"\x00\xc2\x70\x11\x01\x00\x0a\x00\x01\xa4\x08\xfe\x95\x30\x95\xa5"),
            (b"abc", b"\x00\x03abc\x0a\x00\xd9\xac\x30\x3d\x41\x72\xa2\xe2"),
            (
                &[b'x'; 50],
                b"\x00\xc3\x09\x32\x01xx\xe0\x25\x00\x01xx\x0a\x00\xbc\xb8\x0b\xdd\xa0\x70\x6b\xe7",
            ),
        ];
        for (value, payload) in cases {
            bare.call(&mut client, &[b"SET", b"k", value]);
            let reply = bare.call(&mut client, &[b"DUMP", b"k"]);
            let want = [format!("${}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat();
            assert_eq!(reply, want);
            let call: [&[u8]; 5] = [b"RESTORE", b"k", b"0", payload, b"REPLACE"];
            assert_eq!(bare.call(&mut client, &call), b"+OK\r\n");
            assert_eq!(bare.call(&mut client, &[b"DUMP", b"k"]), want);
        }
        assert_eq!(bare.call(&mut client, &[b"DUMP", b"none"]), b"$-1\r\n");
    }

    #[test]
    fn dump_in_steps_is_dump_at_once() {
        let limits = dump_limits(-2);
        let values: [&dyn Fn(usize) -> Object; 4] = [
            &|len| {
                let mut list = List::new();
                (0..len).for_each(|n| list.push(End::Back, format!("element:{n}").as_bytes()));
                Object::List(list)
            },
            &|len| {
                let mut hash = Hash::new();
                for n in 0..len {
                    hash.set(format!("f{n}").as_bytes(), n.to_string().as_bytes(), &LIMITS);
                }
                Object::Hash(hash)
            },
            &|len| {
                let mut set = Set::new();
                (0..len).for_each(|n| _ = set.insert(format!("m{n}").as_bytes(), &LIMITS));
                Object::Set(set)
            },
            &|len| {
                let mut zset = Zset::new_tree();
                (0..len).for_each(|n| zset.insert(format!("m{n}").as_bytes(), n as f64, &LIMITS));
                Object::Zset(zset)
            },
        ];
        for make in values {
            for len in [2_000, 4_095, 4_096, 5_003] {
                let value = make(len);
                assert!(is_long(&value));
                let want = payload_of(Value::Object(&value), limits);
                let mut op = Box::new(Op::new(value, limits));
                let mut steps = 1;
                while !op.step() {
                    steps += 1;
                }
                assert!(steps > len / ELEMENTS_PER_STEP / 2, "{steps} steps");
                let Stage::Seal(seal) = op.stage else { panic!("it has ended") };
                assert!(seal.into_payload() == want, "{len} elements");
            }
        }
    }
}
