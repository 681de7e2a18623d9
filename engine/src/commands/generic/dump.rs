//! Values as bytes: DUMP writes one as Redis would, RESTORE makes one of such bytes.
//!
//! The bytes are `rdb`'s; here a stored value is handed to its writer ([`dump_value`]) and made of
//! what its reader yields (`build_value`).

use std::sync::Arc;

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Propagate, Purpose,
};
use crate::rdb::{self, Element, Kind, Reader, Writer, footer};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::evict::access;
use crate::shard::state::KeyRef;
use crate::store::entry::Value;
use crate::types::hash::{Hash, HashView};
use crate::types::list::{End, List, ListView};
use crate::types::set::{Set, SetView};
use crate::types::zset::{Zset, ZsetView};
use crate::types::{Collection, Limits, Object, Packed};
use crate::units::Ms;

pub(super) const DUMP: CommandSpec = CommandSpec {
    name: "dump",
    family: Family::Generic,
    since: "2.6.0",
    summary: "Returns a value as bytes that RESTORE takes",
    complexity: "O(1) for strings, O(N) for a collection of N elements",
    arity: Arity::Exact(2),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    tips: &["nondeterministic_output"],
    keys: &[KeySpec::range(Access::Read, Purpose::Access, 1, 0, 1)],
    args: &[Arg::key("key", 0)],
    handler: Handler::Data(dump),
    ..CommandSpec::EMPTY
};

pub(super) const RESTORE: CommandSpec = CommandSpec {
    name: "restore",
    family: Family::Generic,
    since: "2.6.0",
    summary: "Makes a key of bytes that DUMP returned",
    complexity: "O(1) for strings, O(N) for a collection of N elements, O(N*log(N)) for a sorted set",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE.union(Flags::DENYOOM),
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    keys: &[KeySpec::range(Access::Overwrite, Purpose::Update, 1, 0, 1)],
    args: &[
        Arg::key("key", 0),
        Arg::new("ttl", ArgKind::Integer),
        Arg::new("serialized-value", ArgKind::String),
        Arg::token("replace", "REPLACE").optional().since("3.0.0"),
        Arg::token("absttl", "ABSTTL").optional().since("5.0.0"),
        Arg::new("seconds", ArgKind::Integer).with_token("IDLETIME").optional().since("5.0.0"),
        Arg::new("frequency", ArgKind::Integer).with_token("FREQ").optional().since("5.0.0"),
    ],
    history: &[
        ("3.0.0", "`REPLACE` overwrites a key that is there."),
        ("5.0.0", "With `ABSTTL` the time to live is a moment."),
        ("5.0.0", "`IDLETIME` and `FREQ` say how the key was used."),
    ],
    propagate: Propagate::Rewritten,
    handler: Handler::Data(restore),
    ..CommandSpec::EMPTY
};

/// Payloads from here on are shared with the reply, not copied.
const SHARED_BYTES_MIN: usize = 32 * 1024;

fn dump(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let list_node = ctx.node.config.list_max_listpack_size();
    match ctx.read(key).map(|entry| payload_of(entry.value(), list_node)) {
        None => reply.null(),
        Some(payload) if payload.len() < SHARED_BYTES_MIN => reply.bulk(&payload),
        Some(payload) => reply.bulk_shared(&Arc::new(payload)),
    }
    Ok(())
}

/// What DUMP answers for a value: what the journal carries of a collection, too.
pub fn dump_value(value: Value<'_>) -> Vec<u8> {
    payload_of(value, rdb::Limits::DEFAULT.list_node)
}

/// Each form of ours has one of Redis': what is packed here is packed there, whatever the limits.
fn payload_of(value: Value<'_>, list_node: i64) -> Vec<u8> {
    let limits = rdb::Limits { list_node, ..rdb::Limits::PACKED };
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

/// A value that is not stored yet.
enum Built {
    String(Vec<u8>),
    List(List),
    Hash(Hash),
    Set(Set),
    Zset(Zset),
}

/// The value that a payload holds; the one place that knows how each type is made.
fn build_value(reader: Reader<'_>, limits: &Limits) -> Result<Built, rdb::Error> {
    let kind = reader.kind();
    // What comes twice is found where it is put.
    let mut reader = reader.with_doubles();
    match kind {
        Kind::String => match reader.next()? {
            Some(Element::Str(text)) => Ok(Built::String(text.to_vec())),
            _ => Err(rdb::Error::Truncated(reader.consumed_bytes())),
        },
        Kind::List => {
            let mut list = List::new();
            while let Some(Element::Item(item)) = reader.next()? {
                list.push(End::Back, item);
            }
            Ok(Built::List(list))
        }
        Kind::Set => {
            let mut set = Set::new();
            while let Some(Element::Item(member)) = reader.next()? {
                new_or_error(set.insert(member, limits))?;
            }
            Ok(Built::Set(set))
        }
        Kind::Hash => {
            let mut hash = Hash::new();
            while let Some(Element::Field(field, value)) = reader.next()? {
                new_or_error(hash.set(field, value, limits))?;
            }
            Ok(Built::Hash(hash))
        }
        Kind::Zset => {
            // Redis: a packed set keeps no sign of zero, so what will be large never is one.
            let mut zset = Zset::new_tree();
            while let Some(Element::Member(member, score)) = reader.next()? {
                let mut is_new = false;
                zset.update(member, limits, |old| {
                    is_new = old.is_none();
                    Some(score)
                });
                new_or_error(is_new)?;
            }
            zset.pack_if_small(limits);
            Ok(Built::Zset(zset))
        }
    }
}

fn new_or_error(is_new: bool) -> Result<(), rdb::Error> {
    let twice = rdb::Error::Corrupt { at: 0, what: "an element comes twice" };
    if is_new { Ok(()) } else { Err(twice) }
}

fn store(ctx: &mut Ctx<'_>, key: KeyRef<'_>, built: Built, expiry: Expiry) {
    match built {
        Built::String(text) => return ctx.set_string(key, &text, Encode::Auto, expiry),
        Built::List(list) => ctx.put(key, list),
        Built::Hash(hash) => ctx.put(key, hash),
        Built::Set(set) => ctx.put(key, set),
        Built::Zset(zset) => ctx.put(key, zset),
    }
    if let Expiry::At(deadline) = expiry {
        ctx.set_deadline(key, Some(deadline));
    }
}

/// How a key was used before it was dumped.
#[derive(Clone, Copy, Default)]
struct Options {
    replace: bool,
    is_moment: bool,
    idle_seconds: Option<i64>,
    frequency: Option<u8>,
}

impl Options {
    fn parse(args: &Args<'_>) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut cursor = args.cursor(4);
        while cursor.left() > 0 {
            if cursor.take("REPLACE") {
                options.replace = true;
            } else if cursor.take("ABSTTL") {
                options.is_moment = true;
            } else if let (None, Some(word)) = (options.frequency, cursor.take_value("IDLETIME")) {
                let seconds = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
                if seconds < 0 {
                    return Err(CommandError::INVALID_IDLETIME);
                }
                options.idle_seconds = Some(seconds);
            } else if let (None, Some(word)) = (options.idle_seconds, cursor.take_value("FREQ")) {
                let frequency = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
                let frequency = u8::try_from(frequency).map_err(|_| CommandError::INVALID_FREQ)?;
                options.frequency = Some(frequency);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// The access clock that they ask for.
    fn access(self, ctx: &Ctx<'_>) -> Option<u32> {
        if ctx.node.config.maxmemory_policy().is_lfu() {
            // The counter is the low byte.
            return self.frequency.map(|count| access::lfu_new(ctx.now) & !0xff | u32::from(count));
        }
        // Redis: counts milliseconds on the way, which wrap around.
        let idle = self.idle_seconds?.wrapping_mul(1000) / 1000;
        Some(access::lru_now(ctx.now).wrapping_sub(idle as u32) & 0x00ff_ffff)
    }
}

fn restore(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let options = Options::parse(args)?;
    let key = ctx.key(args.at(1));
    if !options.replace && ctx.lookup_write(key).is_some() {
        return Err(CommandError::BUSY_KEY);
    }
    let ttl_ms = args.int(2)?;
    if ttl_ms < 0 {
        return Err(CommandError::INVALID_TTL);
    }
    let (body, _) = footer::open(args.at(3)).map_err(|_| CommandError::DUMP_FOOTER)?;
    let limits = ctx.limits();
    let built = Reader::new(body)
        .and_then(|reader| build_value(reader, &limits))
        .map_err(|_| CommandError::BAD_FORMAT)?;
    // Redis: what is too far in the future wraps around into the past.
    let base = if options.is_moment { 0 } else { ctx.now.0 };
    let deadline = (ttl_ms > 0).then(|| Ms(ttl_ms.wrapping_add(base)));
    if deadline.is_some_and(|at| at <= ctx.now) {
        remove(ctx, key);
    } else {
        store(ctx, key, built, deadline.map_or(Expiry::Clear, Expiry::At));
        if let Some(access) = options.access(ctx) {
            set_access(ctx, key, access);
        }
        ctx.modified(key, Event::Generic("restore"));
        journal(ctx, key, deadline, args.at(3));
    }
    reply.ok();
    Ok(())
}

/// The key would have ended before it began: what it replaces ends all the same.
fn remove(ctx: &mut Ctx<'_>, key: KeyRef<'_>) {
    if ctx.delete(key) {
        ctx.modified(key, Event::Generic("del"));
        ctx.effect(key, &[b"DEL", key.bytes]);
    }
}

fn set_access(ctx: &mut Ctx<'_>, key: KeyRef<'_>, access: u32) {
    let db = ctx.db;
    let shard = ctx.shard(key.slot);
    let at = shard.find(db, key).expect("it has just been stored");
    shard.keys.db_or_new(db).table_mut(key.slot).entry_mut(at).set_access(access);
}

/// The payload replays as it came: nothing is written a second time.
fn journal(ctx: &mut Ctx<'_>, key: KeyRef<'_>, deadline: Option<Ms>, payload: &[u8]) {
    let mut text = itoa::Buffer::new();
    let at = text.format(deadline.map_or(0, |at| at.0)).as_bytes();
    ctx.effect(key, &[b"RESTORE", key.bytes, at, payload, b"REPLACE", b"ABSTTL"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::units::DbIndex;

    /// `DUMP` of the string `5` by Redis 7.0.15.
    const FIVE: &[u8] = b"\x00\xc0\x05\n\x00c/_f\x83/\xb3Q";

    fn sealed(body: &[u8], version: u16) -> Vec<u8> {
        let mut payload = body.to_vec();
        footer::seal(&mut payload, version);
        payload
    }

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
    fn restore_checks_in_the_order_of_redis() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let busy = b"-BUSYKEY Target key name already exists.\r\n";
        let footer = b"-ERR DUMP payload version or checksum are wrong\r\n";
        let cases: [(&[&[u8]], &[u8]); 13] = [
            (
                &[b"k", b"x", b"bad", b"FREQ", b"256"],
                b"-ERR Invalid FREQ value, must be >= 0 and <= 255\r\n",
            ),
            (
                &[b"k", b"x", b"bad", b"IDLETIME", b"-1"],
                b"-ERR Invalid IDLETIME value, must be >= 0\r\n",
            ),
            (&[b"k", b"x", b"bad", b"IDLETIME", b"1", b"FREQ", b"1"], b"-ERR syntax error\r\n"),
            (&[b"k", b"x", b"bad", b"FREQ", b"1", b"IDLETIME", b"1"], b"-ERR syntax error\r\n"),
            (&[b"k", b"x", b"bad", b"FREQ"], b"-ERR syntax error\r\n"),
            (&[b"k", b"x", b"bad"], busy),
            (&[b"q", b"x", b"bad"], b"-ERR value is not an integer or out of range\r\n"),
            (&[b"q", b"-1", b"bad"], b"-ERR Invalid TTL value, must be >= 0\r\n"),
            (&[b"q", b"0", b"bad"], footer),
            (&[b"q", b"0", &sealed(b"\0\xc0\x05", 12)], footer),
            (&[b"q", b"0", &sealed(b"\x07abc", 10)], b"-ERR Bad data format\r\n"),
            (&[b"q", b"0", &sealed(b"", 10)], b"-ERR Bad data format\r\n"),
            (&[b"q", b"0", &sealed(b"\0\xc0\x05behind", 10)], b"+OK\r\n"),
        ];
        bare.call(&mut client, &[b"SET", b"k", b"v"]);
        for (words, want) in cases {
            let got = bare.call(&mut client, &[&[&b"RESTORE"[..]], words].concat());
            assert_eq!(got, want, "{words:?}");
        }
    }

    #[test]
    fn restore_with_a_deadline_journals_the_moment() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        bare.call(&mut client, &[b"RESTORE", b"k", b"100", FIVE]);
        assert_eq!(bare.call(&mut client, &[b"PTTL", b"k"]), b":100\r\n");
        bare.call(&mut client, &[b"RESTORE", b"k", b"1", FIVE, b"ABSTTL", b"replace"]);
        bare.call(&mut client, &[b"RESTORE", b"k", b"9223372036854775807", FIVE]);
        assert!(bare.is_empty(DbIndex(0)));
        let records = bare.held[0].as_mut().expect("all doors are held").journal.take();
        let got: Vec<_> = records.iter().map(|record| record.call.clone()).collect();
        let want: [&[&[u8]]; 2] =
            [&[b"RESTORE", b"k", b"1700000000100", FIVE, b"REPLACE", b"ABSTTL"], &[b"DEL", b"k"]];
        assert_eq!(got, want.map(OwnedArgs::of));
    }

    #[test]
    fn restore_sets_how_the_key_was_used() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        for (idle, want) in [("1000", ":1000\r\n"), ("0", ":0\r\n"), ("16777217", ":1\r\n")] {
            let idle = idle.as_bytes();
            let call: [&[u8]; 7] = [b"RESTORE", b"k", b"0", FIVE, b"REPLACE", b"IDLETIME", idle];
            assert_eq!(bare.call(&mut client, &call), b"+OK\r\n");
            let got = bare.call(&mut client, &[b"OBJECT", b"IDLETIME", b"k"]);
            assert_eq!(got, want.as_bytes());
        }
        bare.call(&mut client, &[b"CONFIG", b"SET", b"maxmemory-policy", b"allkeys-lfu"]);
        let call: [&[u8]; 7] = [b"RESTORE", b"k", b"0", FIVE, b"REPLACE", b"FREQ", b"77"];
        assert_eq!(bare.call(&mut client, &call), b"+OK\r\n");
        assert_eq!(bare.call(&mut client, &[b"OBJECT", b"FREQ", b"k"]), b":77\r\n");
    }
}
