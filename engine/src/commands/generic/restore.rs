//! RESTORE: a value made of what DUMP returned (`rdb`'s bytes).
//!
//! One machine does it, a piece of the payload at a time (`Build`): a short payload at once, a long
//! one in steps beside other work ([`LongOp`]), after which the key is checked and stored under its
//! door, as if all of it had happened then.

use std::sync::Arc;

use crate::commands::args::{Args, OwnedArgs};
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::long::{Finish, LongOp};
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Deferral, Family, Flags, Handler,
    KeySpec, Propagate, Purpose,
};
use crate::rdb::{self, Element, Kind, Paused, Reader, Text, footer};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::evict::access;
use crate::shard::state::KeyRef;
use crate::store::entry::INLINE_BYTES_MAX;
use crate::types::hash::Hash;
use crate::types::list::{End, List};
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{Collection, Limits};
use crate::units::Ms;

/// Payloads from here on are worked on in steps. They have memory of their own when they come.
const LONG_BYTES_MIN: u32 = 64 * 1024;
/// What a step reads at most: elements, bytes of a string or of elements, bytes for the checksum.
const ELEMENTS_PER_STEP: usize = 100;
const BYTES_PER_STEP: usize = 64 * 1024;

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
    deferral: Deferral::FromBytes { word: 3, min: LONG_BYTES_MIN },
    handler: Handler::Data(restore),
    ..CommandSpec::EMPTY
};

/// Redis sends it while a slot moves between nodes of its cluster; here it is RESTORE.
pub(super) const RESTORE_ASKING: CommandSpec = CommandSpec {
    name: "restore-asking",
    family: Family::Server,
    since: "3.0.0",
    summary: "Makes a key of bytes that DUMP returned, for a cluster that moves it",
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::ASKING),
    is_internal: true,
    ..RESTORE
};

/// A value that is not stored yet.
#[derive(Debug)]
pub(crate) enum Built {
    String(Vec<u8>),
    List(List),
    Hash(Hash),
    Set(Set),
    Zset(Zset),
}

impl Built {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::String => Self::String(Vec::new()),
            Kind::List => Self::List(List::new()),
            Kind::Hash => Self::Hash(Hash::new()),
            Kind::Set => Self::Set(Set::new()),
            // Redis: a packed set keeps no sign of zero, so what will be large never is one.
            Kind::Zset => Self::Zset(Zset::new_tree()),
        }
    }

    /// Adds an element of its kind; the one place that knows how each type is made. Returns how many
    /// bytes it took.
    fn add(&mut self, element: Element<'_>, limits: &Limits) -> Result<usize, rdb::Error> {
        match (self, element) {
            (Self::List(list), Element::Item(item)) => {
                list.push(End::Back, item);
                Ok(item.len())
            }
            (Self::Set(set), Element::Item(member)) => {
                new_or_error(set.insert(member, limits)).map(|()| member.len())
            }
            (Self::Hash(hash), Element::Field(field, value)) => {
                new_or_error(hash.set(field, value, limits)).map(|()| field.len() + value.len())
            }
            (Self::Zset(zset), Element::Member(member, score)) => {
                let mut is_new = false;
                zset.update(member, limits, |old| {
                    is_new = old.is_none();
                    Some(score)
                });
                new_or_error(is_new).map(|()| member.len())
            }
            _ => Err(rdb::Error::Corrupt { at: 0, what: "an element of another type" }),
        }
    }

    fn finish(&mut self, limits: &Limits) {
        if let Self::Zset(zset) = self {
            zset.pack_if_small(limits);
        }
    }
}

fn new_or_error(is_new: bool) -> Result<(), rdb::Error> {
    let twice = rdb::Error::Corrupt { at: 0, what: "an element comes twice" };
    if is_new { Ok(()) } else { Err(twice) }
}

/// How far a payload has been read.
#[derive(Debug)]
enum Build {
    /// Its checksum is worked out.
    Check(footer::Check),
    /// It is a string.
    Text(Text),
    /// It is a collection.
    Elements(Box<Paused>, Built),
    /// It has been read, or is refused.
    Done(Result<Built, CommandError>),
}

impl Default for Build {
    fn default() -> Self {
        Self::Check(footer::Check::default())
    }
}

impl Build {
    /// Reads a little more of `payload`; `true` when it is done.
    fn step(&mut self, payload: &[u8], limits: &Limits) -> bool {
        let body = footer::body(payload);
        let next = match std::mem::take(self) {
            Self::Check(mut check) => match check.step(payload, BYTES_PER_STEP) {
                false => Ok(Self::Check(check)),
                true if check.end(payload).is_ok() => Self::begin(body),
                true => Ok(Self::Done(Err(CommandError::DUMP_FOOTER))),
            },
            Self::Text(mut text) => match text.step(body, BYTES_PER_STEP) {
                Ok(true) => Ok(Self::Done(Ok(Built::String(text.into_bytes())))),
                Ok(false) => Ok(Self::Text(text)),
                Err(error) => Err(error),
            },
            Self::Elements(reader, built) => Self::read_some(*reader, built, body, limits),
            done @ Self::Done(_) => Ok(done),
        };
        *self = next.unwrap_or(Self::Done(Err(CommandError::BAD_FORMAT)));
        matches!(self, Self::Done(_))
    }

    fn begin(body: &[u8]) -> Result<Self, rdb::Error> {
        if let Some(text) = Text::open(body)? {
            return Ok(Self::Text(text));
        }
        // What comes twice is found where it is put.
        let reader = Reader::new(body)?.with_doubles();
        let built = Built::new(reader.kind());
        Ok(Self::Elements(Box::new(reader.pause()), built))
    }

    fn read_some(
        reader: Paused,
        mut built: Built,
        body: &[u8],
        limits: &Limits,
    ) -> Result<Self, rdb::Error> {
        let mut reader = reader.resume(body);
        let mut byte_count = 0;
        for _ in 0..ELEMENTS_PER_STEP {
            let Some(element) = reader.next()? else {
                built.finish(limits);
                return Ok(Self::Done(Ok(built)));
            };
            byte_count += built.add(element, limits)?;
            if byte_count >= BYTES_PER_STEP {
                break;
            }
        }
        Ok(Self::Elements(Box::new(reader.pause()), built))
    }

    fn into_result(self) -> Result<Built, CommandError> {
        match self {
            Self::Done(result) => result,
            _ => Err(CommandError::BAD_FORMAT),
        }
    }
}

/// The value that a payload without its checksum holds.
pub(crate) fn build_value(reader: Reader<'_>, limits: &Limits) -> Result<Built, rdb::Error> {
    // What comes twice is found where it is put.
    let mut reader = reader.with_doubles();
    let mut built = Built::new(reader.kind());
    while let Some(element) = reader.next()? {
        match (&mut built, element) {
            (Built::String(text), Element::Str(bytes)) => *text = bytes.to_vec(),
            (built, element) => {
                built.add(element, limits)?;
            }
        }
    }
    built.finish(limits);
    Ok(built)
}

/// Stores what was built under a key, whatever was there.
pub(crate) fn store(ctx: &mut Ctx<'_>, key: KeyRef<'_>, built: Built, expiry: Expiry) {
    match built {
        Built::String(text) if text.len() > INLINE_BYTES_MAX => {
            return ctx.set_big(key, Arc::new(text), expiry);
        }
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
#[derive(Clone, Copy, Debug, Default)]
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

/// What a payload is: a word of the call, or held by a call that takes steps.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    Word(&'a [u8]),
    Shared(&'a Arc<Vec<u8>>),
}

fn restore(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let options = Options::parse(args)?;
    let key = ctx.key(args.at(1));
    check_busy(ctx, key, options)?;
    let ttl_ms = args.int(2)?;
    if ttl_ms < 0 {
        return Err(CommandError::INVALID_TTL);
    }
    let (limits, build) = (ctx.limits(), Build::default());
    if let Some(payload) = args.shared(3)
        && payload.len() >= LONG_BYTES_MIN as usize
    {
        let (key, payload) = (key.bytes.into(), Arc::clone(payload));
        let op = Op { key, payload, ttl_ms, options, limits, build };
        return ctx.run_long(Box::new(op), usize::MAX, reply);
    }
    let (payload, mut build) = (args.at(3), build);
    while !build.step(payload, &limits) {}
    end(ctx, key, build, ttl_ms, options, Payload::Word(payload))?;
    reply.ok();
    Ok(())
}

fn check_busy(ctx: &mut Ctx<'_>, key: KeyRef<'_>, options: Options) -> CommandResult {
    if !options.replace && ctx.lookup_write(key).is_some() {
        return Err(CommandError::BUSY_KEY);
    }
    Ok(())
}

/// RESTORE of a payload that is too long for one turn.
#[derive(Debug)]
struct Op {
    key: Box<[u8]>,
    payload: Arc<Vec<u8>>,
    ttl_ms: i64,
    options: Options,
    limits: Limits,
    build: Build,
}

impl LongOp for Op {
    fn step(&mut self) -> bool {
        self.build.step(&self.payload, &self.limits)
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let Self { key, payload, ttl_ms, options, build, .. } = *self;
        let key = KeyRef::new(&key);
        // Somebody may have made it meanwhile.
        check_busy(ctx, key, options)?;
        end(ctx, key, build, ttl_ms, options, Payload::Shared(&payload))?;
        reply.ok();
        Ok(Finish::Done)
    }
}

/// Stores what has been read, or says why not.
fn end(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    build: Build,
    ttl_ms: i64,
    options: Options,
    payload: Payload<'_>,
) -> CommandResult {
    let built = build.into_result()?;
    // Redis: what is too far in the future wraps around into the past.
    let base = if options.is_moment { 0 } else { ctx.now.0 };
    let deadline = (ttl_ms > 0).then(|| Ms(ttl_ms.wrapping_add(base)));
    if deadline.is_some_and(|at| at <= ctx.now) {
        remove(ctx, key);
        return Ok(());
    }
    store(ctx, key, built, deadline.map_or(Expiry::Clear, Expiry::At));
    if let Some(access) = options.access(ctx) {
        set_access(ctx, key, access);
    }
    ctx.modified(key, Event::Generic("restore"));
    journal(ctx, key, deadline, payload);
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

/// The payload replays as it came: nothing is written a second time, and a long one is not copied.
pub(crate) fn journal(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    deadline: Option<Ms>,
    payload: Payload<'_>,
) {
    let mut text = itoa::Buffer::new();
    let at = text.format(deadline.map_or(0, |at| at.0)).as_bytes();
    match payload {
        Payload::Word(payload) => {
            ctx.effect(key, &[b"RESTORE", key.bytes, at, payload, b"REPLACE", b"ABSTTL"]);
        }
        Payload::Shared(payload) => ctx.effect_call(key, || {
            let mut call = OwnedArgs::of(&[b"RESTORE", key.bytes, at]);
            call.push_shared(payload);
            call.extend([&b"REPLACE"[..], b"ABSTTL"].into_iter());
            call
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::commands::ctx::Shards;
    use crate::commands::dispatch;
    use crate::commands::table::table;
    use crate::resp::reply::{OutBuf, Protocol};
    use crate::units::{CoreId, DbIndex};

    /// `DUMP` of the string `5` by Redis 7.0.15.
    const FIVE: &[u8] = b"\x00\xc0\x05\n\x00c/_f\x83/\xb3Q";

    fn sealed(body: &[u8], version: u16) -> Vec<u8> {
        let mut payload = body.to_vec();
        footer::seal(&mut payload, version);
        payload
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

    /// The words that make an element, with a blank between them.
    type Name<'a> = &'a dyn Fn(usize) -> Vec<u8>;

    /// A payload that is long: what DUMP answers for what `fill` has made under `k`.
    fn long_payload(fill: &[&[u8]], name: Name<'_>) -> Vec<u8> {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        for n in 0..400 {
            let words: Vec<Vec<u8>> = (n * 25..(n + 1) * 25).map(name).collect();
            let mut call = fill.to_vec();
            for word in &words {
                call.extend(word.split(|&c| c == b' '));
            }
            bare.call(&mut client, &call);
        }
        let reply = bare.call(&mut client, &[b"DUMP", b"k"]);
        let from = reply.iter().position(|&c| c == b'\n').expect("a header") + 1;
        reply[from..reply.len() - 2].to_vec()
    }

    fn op(payload: Vec<u8>, replace: bool, limits: Limits) -> Box<Op> {
        let options = Options { replace, ..Options::default() };
        let (payload, build) = (Arc::new(payload), Build::default());
        Box::new(Op { key: b"new"[..].into(), payload, ttl_ms: 5000, options, limits, build })
    }

    /// Ends a stepped RESTORE; returns the reply.
    fn finish(bare: &mut Bare, op: Box<Op>) -> Vec<u8> {
        let command = table().get(b"restore").expect("the command exists");
        let shards = Shards::Many(&mut bare.held);
        let (clock, now) = (&mut bare.clock, bare.now);
        let mut ctx = dispatch::ctx(bare.node, CoreId(0), shards, clock, now, DbIndex(0), command);
        let mut out = OutBuf::default();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        dispatch::finish_long(command, op, &mut ctx, &OwnedArgs::default().args(), &mut reply);
        out.to_vec()
    }

    #[test]
    fn restore_in_steps_is_restore_at_once() {
        let cases: [(&[&[u8]], Name<'_>); 4] = [
            (&[b"RPUSH", b"k"], &|n| format!("element:{n}").into()),
            (&[b"SADD", b"k"], &|n| format!("member:{n}").into()),
            (&[b"HSET", b"k"], &|n| format!("field:{n} value:{n}").into()),
            (&[b"ZADD", b"k"], &|n| format!("{n} member:{n}").into()),
        ];
        for (fill, name) in cases {
            let payload = long_payload(fill, name);
            let mut bare = Bare::new(1, 1);
            let mut client = bare.client();
            bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
            let mut op = op(payload.clone(), false, bare.node.config.limits());
            let mut steps = 1;
            while !op.step() {
                steps += 1;
            }
            assert!(steps > 100, "{steps} steps");
            assert_eq!(finish(&mut bare, op), b"+OK\r\n");
            assert_eq!(bare.call(&mut client, &[b"PTTL", b"new"]), b":5000\r\n");
            let records = bare.held[0].as_mut().expect("all doors are held").journal.take();
            let moment = b"1700000005000";
            let call = [&b"RESTORE"[..], b"new", moment, &payload, b"REPLACE", b"ABSTTL"];
            assert_eq!(records.len(), 1);
            let words = records[0].call.args();
            assert_eq!(words.iter_from(0).collect::<Vec<_>>(), call);
            let once = [&b"RESTORE"[..], b"once", b"0", &payload];
            assert_eq!(bare.call(&mut client, &once), b"+OK\r\n");
            let dumps = [&b"new"[..], b"once"].map(|key| bare.call(&mut client, &[b"DUMP", key]));
            assert!(dumps[0] == dumps[1]);
            let digests = [&b"new"[..], b"once"]
                .map(|key| bare.call(&mut client, &[b"DEBUG", b"DIGEST-VALUE", key]));
            assert_eq!(digests[0], digests[1]);
        }
    }

    #[test]
    fn restore_in_steps_refuses_what_restore_at_once_does() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let limits = bare.node.config.limits();
        let good = long_payload(&[b"SADD", b"k"], &|n| format!("member:{n}").into());
        let mut flipped = good.clone();
        flipped[50_000] ^= 1;
        let mut cut = footer::body(&good).to_vec();
        cut.truncate(cut.len() - 5);
        footer::seal(&mut cut, 10);
        let busy = b"-BUSYKEY Target key name already exists.\r\n";
        let cases: [(Vec<u8>, bool, &[u8]); 4] = [
            (flipped, false, b"-ERR DUMP payload version or checksum are wrong\r\n"),
            (cut, false, b"-ERR Bad data format\r\n"),
            (good.clone(), false, b"+OK\r\n"),
            (good.clone(), false, busy),
        ];
        for (payload, replace, want) in cases {
            let mut op = op(payload, replace, limits);
            while !op.step() {}
            assert_eq!(finish(&mut bare, op), want);
        }
        let mut op = op(good, false, limits);
        while !op.step() {}
        bare.call(&mut client, &[b"SET", b"new", b"meanwhile"]);
        assert_eq!(finish(&mut bare, op), busy);
    }

    #[test]
    fn restore_of_a_long_string_in_steps_keeps_its_bytes() {
        let plain: Vec<u8> =
            (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for text in [plain, vec![b'x'; 300_000], b"12".repeat(100_000)] {
            let payload =
                rdb::dump_payload(rdb::Format::V10, rdb::Limits::PACKED, |w| w.string(&text));
            let mut bare = Bare::new(1, 1);
            let mut client = bare.client();
            let mut op = op(payload, true, bare.node.config.limits());
            let mut steps = 1;
            while !op.step() {
                steps += 1;
            }
            assert!(steps >= 5, "{steps} steps");
            assert_eq!(finish(&mut bare, op), b"+OK\r\n");
            let want = [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat();
            assert!(bare.call(&mut client, &[b"GET", b"new"]) == want);
        }
    }
}
