//! SLOTSRESTORE-ASYNC and its kin: keys that an asynchronous move brings, message by message. Each
//! message is answered by an acknowledgement; after one that refuses, the connection ends, so that
//! nothing behind it is carried out.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::dispatch::make_room;
use crate::commands::generic::restore::{Payload, build_value, journal, store};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Propagate, Purpose, Route,
};
use crate::migrate::dialect::wire::ack;
use crate::net::client::ClientState;
use crate::rdb::{Reader, footer};
use crate::resp::error::CommandError;
use crate::resp::number::{format_g17, parse_i64};
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::hash::Hash;
use crate::types::list::{End, List};
use crate::types::set::Set;
use crate::types::zset::Zset;
use crate::types::{Collection, Limits, Type};
use crate::units::{DbIndex, Ms};

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "slotsrestore-async",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Carries out one message of a move from another server",
        complexity: "O(N) with N elements in the message, O(N*log(M)) for a sorted set of M members",
        arity: Arity::AtLeast(2),
        // What takes memory is refused by its handler when there is none: what frees some is not.
        flags: Flags::WRITE.union(Flags::NO_MULTI),
        acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
        keys: &[KeySpec::range(Access::ReadWrite, Purpose::Update, 2, 0, 1)],
        args: &[
            Arg::new("message", ArgKind::String),
            Arg::block(
                "content",
                &[Arg::key("key", 0), Arg::new("argument", ArgKind::String).optional().multiple()],
            )
            .optional(),
        ],
        is_internal: true,
        propagate: Propagate::Rewritten,
        handler: Handler::Held(slotsrestore_async),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotsrestore-async-ack",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Tells the source of a move how a message ended; refused from anybody else",
        complexity: "O(1)",
        arity: Arity::Exact(3),
        flags: Flags::WRITE.union(Flags::NO_MULTI),
        acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
        args: &[Arg::new("errno", ArgKind::Integer), Arg::new("text", ArgKind::String)],
        is_internal: true,
        route: Route::Session,
        propagate: Propagate::Rewritten,
        handler: Handler::Session(slotsrestore_async_ack),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotsrestore-async-auth",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Logs the source of a move in",
        complexity: "O(N) with N bytes of the password",
        arity: Arity::Exact(2),
        flags: Flags::NOSCRIPT
            .union(Flags::LOADING)
            .union(Flags::STALE)
            .union(Flags::FAST)
            .union(Flags::NO_AUTH)
            .union(Flags::NO_MULTI),
        acl: Acl::CONNECTION,
        args: &[Arg::new("password", ArgKind::String)],
        is_internal: true,
        route: Route::Session,
        handler: Handler::Session(slotsrestore_async_auth),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotsrestore-async-select",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Selects the database that the source of a move moves to",
        complexity: "O(1)",
        arity: Arity::Exact(2),
        flags: Flags::LOADING.union(Flags::FAST).union(Flags::NO_MULTI),
        acl: Acl::CONNECTION,
        args: &[Arg::new("index", ArgKind::Integer)],
        is_internal: true,
        route: Route::Session,
        handler: Handler::Session(slotsrestore_async_select),
        ..CommandSpec::EMPTY
    },
];

/// Small forms for nothing: what comes in chunks is large, and stays in its large form.
const LARGE: Limits = Limits {
    hash_entries_max: 0,
    hash_value_bytes_max: 0,
    set_ints_max: 0,
    zset_entries_max: 0,
    zset_value_bytes_max: 0,
};

/// What an acknowledgement says: good or not.
type Ack = Result<String, String>;

/// Acknowledges, and ends the connection if that was a refusal.
fn acknowledge(result: &Ack, client: &mut ClientState, reply: &mut Reply<'_>) {
    match result {
        Ok(text) => ack(reply, 0, text.as_bytes()),
        Err(text) => {
            // Texts quote what came: their bytes go back as they are.
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            ack(reply, -1, &bytes);
            client.close_after_reply = true;
        }
    }
}

/// A word within a text.
fn quoted(word: &[u8]) -> String {
    word.iter().map(|&byte| char::from(byte)).collect()
}

fn slotsrestore_async_ack(
    ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    // A source reads acknowledgements on the connection that it has made, never here.
    ctx.client.close_after_reply = true;
    Err(CommandError::NO_SUCH_MOVE)
}

fn slotsrestore_async_auth(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let result = match ctx.node.config.requirepass() {
        None => Err("Client sent AUTH, but no password is set".to_owned()),
        Some(password) if is_equal(password.as_bytes(), args.at(1)) => {
            ctx.client.authenticated = true;
            Ok("OK".to_owned())
        }
        Some(_) => {
            ctx.client.authenticated = false;
            Err("invalid password".to_owned())
        }
    };
    acknowledge(&result, ctx.client, reply);
    Ok(())
}

/// Whether two texts are equal, in a time that does not depend on where they differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b));
    a.len() == b.len() && differs == 0
}

fn slotsrestore_async_select(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let n = parse_i64(args.at(1)).and_then(|n| u8::try_from(n).ok());
    let result = match n.filter(|&n| n < ctx.node.config.databases()) {
        Some(n) => {
            ctx.client.db = DbIndex(n);
            Ok("OK".to_owned())
        }
        None => Err(format!("invalid DB index ({})", quoted(args.at(1)))),
    };
    acknowledge(&result, ctx.client, reply);
    Ok(())
}

fn slotsrestore_async(
    ctx: &mut Ctx<'_>,
    client: &mut ClientState,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let message = args.at(1).to_ascii_lowercase();
    let takes_memory = !matches!(&message[..], b"delete" | b"expire");
    if takes_memory && ctx.node.config.maxmemory() > 0 {
        make_room(ctx)?;
    }
    let result = if ctx.node.dialect.is_sending(ctx.db) {
        Err("the specified DB is being migrated".to_owned())
    } else {
        carry_out(ctx, &message, args)
    };
    acknowledge(&result, client, reply);
    Ok(())
}

fn wrong_count(args: &Args<'_>) -> String {
    format!("wrong number of arguments (argc={},cmd={})", args.len(), quoted(args.at(1)))
}

/// Codis: the number of words is checked as far as the next word is needed.
fn carry_out(ctx: &mut Ctx<'_>, message: &[u8], args: &Args<'_>) -> Ack {
    let at_least = |count| if args.len() < count { Err(wrong_count(args)) } else { Ok(()) };
    let exactly = |count| if args.len() == count { Ok(()) } else { Err(wrong_count(args)) };
    at_least(3)?;
    let key = ctx.key(args.at(2));
    if message == b"delete" {
        exactly(3)?;
        return Ok(delete(ctx, key));
    }
    at_least(4)?;
    let ttl = args.at(3);
    let ttl_ms = parse_i64(ttl).filter(|&ms| ms >= 0);
    let ttl_ms = ttl_ms.ok_or_else(|| format!("invalid TTL value (TTL={})", quoted(ttl)))?;
    let deadline = (ttl_ms > 0).then(|| Ms(ctx.now.0.saturating_add(ttl_ms)));
    match message {
        b"expire" => {
            exactly(4)?;
            return expire(ctx, key, deadline);
        }
        b"string" => {
            exactly(5)?;
            return string(ctx, key, deadline, args);
        }
        b"object" => {
            exactly(5)?;
            return object(ctx, key, deadline, args.at(4));
        }
        _ => at_least(5)?,
    }
    let kind = match message {
        b"list" => Kind::List,
        b"hash" => Kind::Hash,
        b"dict" => Kind::Set,
        b"zset" => Kind::Zset,
        _ => {
            let (count, name) = (args.len(), quoted(args.at(1)));
            return Err(format!("unknown command (argc={count},cmd={name})"));
        }
    };
    let hint = parse_i64(args.at(4)).filter(|&n| n >= 0);
    hint.ok_or_else(|| format!("invalid Hint value (Hint={})", quoted(args.at(4))))?;
    if matches!(kind, Kind::Hash | Kind::Zset) && args.len().is_multiple_of(2) {
        return Err(wrong_count(args));
    }
    chunk(ctx, key, kind, deadline, args)
}

fn delete(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> String {
    let was_there = ctx.delete(key);
    if was_there {
        ctx.modified(key, Event::Generic("del"));
        ctx.effect(key, &[b"DEL", key.bytes]);
    }
    u8::from(was_there).to_string()
}

fn missing(key: KeyRef<'_>) -> String {
    format!("the specified key doesn't exist ({})", quoted(key.bytes))
}

fn expire(ctx: &mut Ctx<'_>, key: KeyRef<'_>, deadline: Option<Ms>) -> Ack {
    if !ctx.set_deadline(key, deadline) {
        return Err(missing(key));
    }
    ctx.modified(key, Event::Generic(if deadline.is_some() { "expire" } else { "persist" }));
    journal_deadline(ctx, key, deadline);
    Ok("1".to_owned())
}

/// The deadline as a moment.
fn journal_deadline(ctx: &mut Ctx<'_>, key: KeyRef<'_>, deadline: Option<Ms>) {
    match deadline {
        None => ctx.effect(key, &[b"PERSIST", key.bytes]),
        Some(at) => {
            let mut text = itoa::Buffer::new();
            ctx.effect(key, &[b"PEXPIREAT", key.bytes, text.format(at.0).as_bytes()]);
        }
    }
}

fn refuse_existing(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> Result<(), String> {
    match ctx.peek(key, false) {
        None => Ok(()),
        Some(_) => Err(format!("the specified key already exists ({})", quoted(key.bytes))),
    }
}

fn string(ctx: &mut Ctx<'_>, key: KeyRef<'_>, deadline: Option<Ms>, args: &Args<'_>) -> Ack {
    refuse_existing(ctx, key)?;
    let expiry = deadline.map_or(Expiry::Clear, Expiry::At);
    ctx.set_word(key, args, 4, Encode::Auto, expiry);
    ctx.modified(key, Event::Generic("restore"));
    ctx.effect_state(ctx.db, key);
    Ok("1".to_owned())
}

fn object(ctx: &mut Ctx<'_>, key: KeyRef<'_>, deadline: Option<Ms>, payload: &[u8]) -> Ack {
    refuse_existing(ctx, key)?;
    let (body, _) = footer::open(payload).map_err(|_| "invalid payload checksum".to_owned())?;
    let limits = ctx.limits();
    let built = Reader::new(body).and_then(|reader| build_value(reader, &limits));
    let built = built.map_err(|_| {
        let part = if is_known_type(body.first().copied()) { "body" } else { "type" };
        format!("invalid payload {part}")
    })?;
    store(ctx, key, built, deadline.map_or(Expiry::Clear, Expiry::At));
    ctx.modified(key, Event::Generic("restore"));
    journal(ctx, key, deadline, Payload::Word(payload));
    Ok("1".to_owned())
}

/// Whether a payload that begins like this is of a type that can be read.
const fn is_known_type(first: Option<u8>) -> bool {
    matches!(first, Some(0..=5 | 9..=14 | 16..=18 | 20))
}

/// What comes in chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Hash,
    Set,
    Zset,
}

impl Kind {
    /// The original's numbers of type and encoding that such a value has.
    const fn numbers(self) -> (u8, u8) {
        match self {
            Self::List => (1, 9),
            Self::Hash => (4, 2),
            Self::Set => (2, 2),
            Self::Zset => (3, 7),
        }
    }

    /// What says it in the journal.
    const fn effect(self) -> (&'static [u8], Event) {
        match self {
            Self::List => (b"RPUSH", Event::List("rpush")),
            Self::Hash => (b"HSET", Event::Hash("hset")),
            Self::Set => (b"SADD", Event::Set("sadd")),
            Self::Zset => (b"ZADD", Event::SortedSet("zadd")),
        }
    }
}

/// The original's numbers of a value's type and encoding.
fn numbers_of(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> Option<(u8, u8)> {
    let value = ctx.peek(key, false)?.value();
    let kind = match value.type_of() {
        Type::String => 0,
        Type::List => 1,
        Type::Set => 2,
        Type::Zset => 3,
        Type::Hash => 4,
    };
    let encoding = match value.encoding() {
        "int" => 1,
        "hashtable" => 2,
        "listpack" => 5,
        "intset" => 6,
        "skiplist" => 7,
        "embstr" => 8,
        "quicklist" => 9,
        _ => 0,
    };
    Some((kind, encoding))
}

fn chunk(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    kind: Kind,
    deadline: Option<Ms>,
    args: &Args<'_>,
) -> Ack {
    let words = args.behind(5);
    match numbers_of(ctx, key) {
        None if words.is_empty() => return Err(missing(key)),
        Some(got) if got != kind.numbers() => {
            let want = kind.numbers();
            let (want, got) = (format!("{}/{}", want.0, want.1), format!("{}/{}", got.0, got.1));
            return Err(format!("wrong type (expect={want},got={got})"));
        }
        _ => {}
    }
    let scores = if kind == Kind::Zset { scores_of(&words)? } else { Vec::new() };
    let len = match add(ctx, key, kind, &words, &scores) {
        Ok(len) => len,
        Err(error) => return Err(error.text().to_owned()),
    };
    ctx.set_deadline(key, deadline);
    let (name, event) = kind.effect();
    ctx.modified(key, event);
    if ctx.is_journalled(key.slot) && !words.is_empty() {
        journal_chunk(ctx, key, name, &words, &scores);
    }
    journal_deadline(ctx, key, deadline);
    Ok(len.to_string())
}

/// Every second word as the bits of a number.
fn scores_of(words: &Args<'_>) -> Result<Vec<f64>, String> {
    let score = |index: usize| {
        let bits = words.at(index).first_chunk::<8>().filter(|_| words.at(index).len() == 8);
        bits.map(|bits| f64::from_le_bytes(*bits)).filter(|score| !score.is_nan())
    };
    (0..words.len() / 2)
        .map(|pair| {
            let why = || format!("invalid zset score ([{pair}]), bad raw bits");
            score(pair * 2 + 1).ok_or_else(why)
        })
        .collect()
}

/// Adds elements in their large form; how many there are then.
fn add(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    kind: Kind,
    words: &Args<'_>,
    scores: &[f64],
) -> Result<usize, CommandError> {
    match kind {
        Kind::List => edit(ctx, key, |list: &mut List| {
            words.iter_from(0).for_each(|word| list.push(End::Back, word));
            list.len()
        }),
        Kind::Hash => edit(ctx, key, |hash: &mut Hash| {
            for at in (0..words.len()).step_by(2) {
                hash.set(words.at(at), words.at(at + 1), &LARGE);
            }
            hash.len()
        }),
        Kind::Set => edit(ctx, key, |set: &mut Set| {
            for word in words.iter_from(0) {
                set.insert(word, &LARGE);
            }
            set.len()
        }),
        Kind::Zset => edit(ctx, key, |zset: &mut Zset| {
            zset.to_tree();
            for (pair, score) in scores.iter().enumerate() {
                zset.insert(words.at(pair * 2), *score, &LARGE);
            }
            zset.len()
        }),
    }
}

fn edit<T: Collection>(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    change: impl FnOnce(&mut T) -> usize,
) -> Result<usize, CommandError> {
    ctx.edit_or_new(key, change)
}

fn journal_chunk(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    name: &'static [u8],
    words: &Args<'_>,
    scores: &[f64],
) {
    let texts: Vec<String> = scores.iter().map(|score| format_g17(*score)).collect();
    let mut call: Vec<&[u8]> = vec![name, key.bytes];
    if scores.is_empty() {
        call.extend(words.iter_from(0));
    } else {
        for (pair, text) in texts.iter().enumerate() {
            call.extend([text.as_bytes(), words.at(pair * 2)]);
        }
    }
    ctx.effect(key, &call);
}

#[cfg(test)]
mod tests;
