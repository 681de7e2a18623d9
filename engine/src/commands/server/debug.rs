//! DEBUG: what tests and operators use to look at and provoke things. Redis parses the words of
//! DEBUG itself, so its subcommands are in the table (they run in different places) but COMMAND
//! does not show them, and all complaints about words read alike.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::dispatch::make_room;
use crate::commands::docs::help_lines;
use crate::commands::server::digest::Digest;
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::spec::{
    Access, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, KeySpec,
    Propagate, Purpose, Route, SliceState, SliceStep,
};
use crate::commands::table::table;
use crate::commands::words::set_long_words_min;
use crate::resp::error::CommandError;
use crate::resp::number::{parse_f64, parse_i64};
use crate::resp::reply::{OutBuf, Reply};
use crate::shard::evict::access;
use crate::shard::state::{KeyRef, Shard};
use crate::store::table::Position;
use crate::units::{DATABASES_MAX, DbIndex, Ms, SLOT_COUNT, ShardId, SlotId};

const FLAGS: Flags = Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE);

/// What subcommands have in common. Their arity is checked by the handlers, for Redis' error.
const SUB: CommandSpec = CommandSpec {
    family: Family::Server,
    since: "1.0.0",
    complexity: "O(1)",
    arity: Arity::AtLeast(2),
    flags: FLAGS,
    is_internal: true,
    route: Route::Session,
    ..CommandSpec::EMPTY
};

/// The commands of this file.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "debug",
    summary: "Serves tests of servers and clients",
    complexity: "Depends on the subcommand",
    handler: Handler::Session(debug),
    subcommands: &[
        CommandSpec {
            name: "debug|digest",
            summary: "Returns a digest of all keys, values and deadlines of all databases",
            complexity: "O(N) with N keys, in slices",
            route: Route::AllSlots,
            handler: Handler::Sliced(debug_digest),
            ..SUB
        },
        CommandSpec {
            name: "debug|digest-value",
            summary: "Returns a digest of the value of each key",
            complexity: "O(N) with N keys",
            keys: &[KeySpec::range(Access::Read, Purpose::Access, 2, -1, 1)],
            args: &[Arg::key("key", 0).optional().multiple()],
            route: Route::SplitKeys,
            handler: Handler::Data(debug_digest_value),
            ..SUB
        },
        CommandSpec {
            name: "debug|error",
            summary: "Fails with the given text as the error",
            args: &[Arg::new("text", ArgKind::String)],
            handler: Handler::Session(debug_error),
            ..SUB
        },
        CommandSpec {
            name: "debug|help",
            summary: "Lists the subcommands",
            handler: Handler::Session(debug_help),
            ..SUB
        },
        CommandSpec {
            name: "debug|log",
            summary: "Writes the given text to the server's log",
            args: &[Arg::new("text", ArgKind::String)],
            handler: Handler::Session(debug_log),
            ..SUB
        },
        CommandSpec {
            name: "debug|long-call-words",
            since: "cordis-0.1.0",
            summary: "Sets from how many words on calls on one key work in steps",
            args: &[Arg::new("words", ArgKind::Integer)],
            handler: Handler::Session(debug_long_call_words),
            ..SUB
        },
        CommandSpec {
            name: "debug|move-slot",
            since: "cordis-0.1.0",
            summary: "Moves the keys of a slot from the core that owns them to another",
            complexity: "O(N) with N keys of the slot that expire",
            args: &[Arg::new("slot", ArgKind::Integer), Arg::new("shard", ArgKind::Integer)],
            route: Route::AllSlots,
            handler: Handler::Data(debug_move_slot),
            ..SUB
        },
        CommandSpec {
            name: "debug|object",
            summary: "Shows how the value of a key is stored",
            keys: &[KeySpec::range(Access::Read, Purpose::None, 2, 0, 1)],
            args: &[Arg::key("key", 0)],
            route: Route::ByKey,
            handler: Handler::Data(debug_object),
            ..SUB
        },
        CommandSpec {
            name: "debug|populate",
            summary: "Makes as many string keys as asked for, unless they are there",
            complexity: "O(N) with N keys, in slices",
            flags: FLAGS.union(Flags::WRITE).union(Flags::DENYOOM),
            args: &[
                Arg::new("count", ArgKind::Integer),
                Arg::new("prefix", ArgKind::String).optional(),
                Arg::new("size", ArgKind::Integer).optional(),
            ],
            route: Route::AllSlots,
            propagate: Propagate::Rewritten,
            handler: Handler::Sliced(debug_populate),
            ..SUB
        },
        CommandSpec {
            name: "debug|protocol",
            summary: "Replies with an example of a protocol type",
            args: &[Arg::new("type", ArgKind::String)],
            handler: Handler::Session(debug_protocol),
            ..SUB
        },
        CommandSpec {
            name: "debug|set-active-expire",
            summary: "Says whether expired keys are deleted before anybody looks at them",
            args: &[Arg::new("on", ArgKind::Integer)],
            handler: Handler::Session(debug_set_active_expire),
            ..SUB
        },
        CommandSpec {
            name: "debug|sleep",
            summary: "Lets the client wait for some seconds; nobody else waits",
            args: &[Arg::new("seconds", ArgKind::Double)],
            handler: Handler::Session(debug_sleep),
            ..SUB
        },
    ],
    ..SUB
}];

/// What Redis has and this server refuses by name: it would end the process, or shows or needs
/// something that it does not have.
const REFUSED: [&str; 14] = [
    "assert",
    "change-repl-id",
    "crash-and-recover",
    "jmap",
    "leak",
    "loadaof",
    "mallctl",
    "mallctl-str",
    "oom",
    "panic",
    "reload",
    "replicate",
    "restart",
    "segfault",
];

/// Redis' complaint about a subcommand it does not know, or about the number of its words.
fn wrong_words(args: &Args<'_>) -> CommandError {
    CommandError::subcommand_syntax(args.get(1).unwrap_or_default(), "DEBUG")
}

fn expect_words(args: &Args<'_>, words: usize) -> CommandResult {
    if args.len() == words { Ok(()) } else { Err(wrong_words(args)) }
}

/// DEBUG with a subcommand that is not in the table.
fn debug(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, _reply: &mut Reply<'_>) -> CommandResult {
    let sub = args.get(1).unwrap_or_default();
    match REFUSED.iter().find(|name| sub.eq_ignore_ascii_case(name.as_bytes())) {
        Some(name) => Err(CommandError::debug_refused(name)),
        None => Err(wrong_words(args)),
    }
}

/// DEBUG HELP
fn debug_help(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expect_words(args, 2)?;
    let lines = table().get(b"debug").map(help_lines).unwrap_or_default();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    reply.help(&lines);
    Ok(())
}

/// DEBUG ERROR text
fn debug_error(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    _reply: &mut Reply<'_>,
) -> CommandResult {
    expect_words(args, 3)?;
    Err(CommandError::as_asked(args.at(2)))
}

/// DEBUG LOG text
fn debug_log(_ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expect_words(args, 3)?;
    tracing::warn!("DEBUG LOG: {}", args.at(2).escape_ascii());
    reply.ok();
    Ok(())
}

/// A sleep is not longer than this: ten years.
const SLEEP_MS_MAX: f64 = 3.2e11;

/// DEBUG SLEEP seconds
fn debug_sleep(ctx: &mut SessionCtx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expect_words(args, 3)?;
    // Redis: what is no number is no sleep.
    let seconds = parse_f64(args.at(2)).unwrap_or(0.0);
    let ms = (seconds * 1000.0).clamp(0.0, SLEEP_MS_MAX) as u64;
    if ms == 0 || ctx.in_exec {
        // A transaction cannot rest halfway: it would hold its doors.
        reply.ok();
    } else {
        ctx.action = Some(SessionAction::Sleep(ms));
    }
    Ok(())
}

/// DEBUG SET-ACTIVE-EXPIRE 0|1
fn debug_set_active_expire(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    expect_words(args, 3)?;
    let on = parse_i64(args.at(2)).unwrap_or(0) != 0;
    ctx.node.config.set_active_expire(on);
    reply.ok();
    Ok(())
}

/// DEBUG PROTOCOL type
#[expect(clippy::approx_constant, reason = "Redis' example, digit by digit")]
fn debug_protocol(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    expect_words(args, 3)?;
    let small_array = |reply: &mut Reply<'_>| (0..3).for_each(|n| reply.int(n));
    match args.at(2).to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12_345),
        b"double" => reply.double(3.141),
        b"bignum" if reply.is_resp3() => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            small_array(reply);
        }
        b"set" => {
            reply.set(3);
            small_array(reply);
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.int(n);
                reply.boolean(n == 1);
            }
        }
        b"attrib" => {
            if reply.is_resp3() {
                reply.raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if !reply.is_resp3() {
                return Err(CommandError::RESP2_UNSUPPORTED);
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
            // Redis: a push needs a reply that it comes before.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim(b"This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => return Err(CommandError::PROTOCOL_TYPE),
    }
    Ok(())
}

/// DEBUG LONG-CALL-WORDS words
fn debug_long_call_words(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    expect_words(args, 3)?;
    let count = usize::try_from(args.int(2)?).map_err(|_| CommandError::NOT_INTEGER)?;
    set_long_words_min(count);
    reply.ok();
    Ok(())
}

/// DEBUG OBJECT key
fn debug_object(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expect_words(args, 3)?;
    let now = ctx.now;
    let key = ctx.key(args.at(2));
    let entry = ctx.peek(key, false).ok_or(CommandError::NO_SUCH_KEY)?;
    let value = entry.value();
    let text = value.bytes();
    // A length of one, two or five bytes, then the text; integers of up to 32 bits are packed.
    let serialized = match value.as_int().filter(|_| text.len() <= 11) {
        Some(-128..=127) => 2,
        Some(-32_768..=32_767) => 3,
        Some(-2_147_483_648..=2_147_483_647) => 5,
        _ if text.len() < 64 => 1 + text.len(),
        _ if text.len() < 16_384 => 2 + text.len(),
        _ => 5 + text.len(),
    };
    let line = format!(
        // Addresses are nobody's business; the field is there for those who parse the line.
        "Value at:0x0 refcount:1 encoding:{} serializedlength:{serialized} lru:{} \
         lru_seconds_idle:{}",
        value.encoding(),
        entry.access(),
        access::idle_seconds(entry.access(), now),
    );
    reply.simple(&line);
    Ok(())
}

/// DEBUG DIGEST-VALUE [key ...]
fn debug_digest_value(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(args.len() - 2);
    for word in args.iter_from(2) {
        let key = ctx.key(word);
        let digest = ctx.peek(key, false).map(Digest::of_value).unwrap_or_default();
        reply.simple(&digest.hex());
    }
    Ok(())
}

/// Keys per slice of DEBUG DIGEST, and tables looked into: most are empty.
const DIGEST_KEYS_PER_SLICE: usize = 256;
const DIGEST_TABLES_PER_SLICE: usize = 64 * DATABASES_MAX;
/// The database is in the cursor's high bits, above a position's.
const CURSOR_DB_SHIFT: u32 = 56;
const _: () = assert!(Position::BITS <= CURSOR_DB_SHIFT && DATABASES_MAX <= 256);

/// DEBUG DIGEST: one slot after the other, in it one database after the other.
fn debug_digest(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    expect_words(args, 2)?;
    let mut digest = Digest::from_bytes(&state.elements);
    let mut left = DIGEST_KEYS_PER_SLICE;
    for _ in 0..DIGEST_TABLES_PER_SLICE {
        let Some(slot) = SlotId::new(state.slot_index as u64) else {
            let mut out = OutBuf::default();
            Reply::new(&mut out, ctx.protocol).simple(&digest.hex());
            state.elements = out.to_vec();
            return Ok(SliceStep::DoneEncoded);
        };
        let owner = ctx.node.owners.of(slot);
        let now = ctx.now;
        let Some(shard) = ctx.shards.get(owner) else {
            break;
        };
        digest_table(shard, slot, now, state, &mut digest, &mut left);
        if left == 0 {
            break;
        }
    }
    state.elements = digest.as_bytes().to_vec();
    Ok(SliceStep::More)
}

/// Digests keys of one database of a slot and moves the cursor on.
fn digest_table(
    shard: &Shard,
    slot: SlotId,
    now: Ms,
    state: &mut SliceState,
    digest: &mut Digest,
    left: &mut usize,
) {
    let db = DbIndex((state.cursor >> CURSOR_DB_SHIFT) as u8);
    let from = Position(state.cursor & ((1 << CURSOR_DB_SHIFT) - 1));
    let next = shard.keys.db(db).and_then(|dbase| {
        dbase.table(slot).scan(from, *left, |entry| {
            *left = left.saturating_sub(1);
            if !entry.is_expired(now) {
                digest.combine(Digest::of_entry(db, entry));
            }
        })
    });
    (state.slot_index, state.cursor) = match next {
        Some(position) => (state.slot_index, position.0 | u64::from(db.0) << CURSOR_DB_SHIFT),
        None if db.index() + 1 < DATABASES_MAX => {
            (state.slot_index, (u64::from(db.0) + 1) << CURSOR_DB_SHIFT)
        }
        None => (state.slot_index + 1, 0),
    };
}

/// Keys looked at per slice of DEBUG POPULATE, and bytes of values made.
const POPULATE_KEYS_PER_SLICE: u64 = 256;
const POPULATE_BYTES_PER_SLICE: u64 = 1 << 20;

/// DEBUG POPULATE count [prefix] [size]
///
/// Goes over the keys in blocks, and over each block once per shard: a slice makes those keys of
/// its block that are on the shard it holds. (A slot that moves to a shard which has had its turn
/// misses what is left of the block; the command is for tests.)
fn debug_populate(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    if !(3..=5).contains(&args.len()) {
        return Err(wrong_words(args));
    }
    let positive = |word: &[u8]| {
        let n = parse_i64(word).and_then(|n| u64::try_from(n).ok());
        n.ok_or(CommandError::NOT_POSITIVE)
    };
    let count = positive(args.at(2))?;
    let size = args.get(4).map(positive).transpose()?;
    if size.is_some_and(|size| size > ctx.node.config.proto_max_bulk_bytes() as u64) {
        return Err(CommandError::STRING_TOO_LONG);
    }
    if state.cursor >= count {
        state.elements = b"+OK\r\n".to_vec();
        return Ok(SliceStep::DoneEncoded);
    }
    let shard = ShardId(state.total as u16);
    let slot = SlotId::all().find(|&slot| ctx.node.owners.of(slot) == shard);
    if let Some(slot) = slot {
        if ctx.shards.get(shard).is_none() {
            state.slot_index = slot.index();
            return Ok(SliceStep::More);
        }
        make_room(ctx)?;
    }
    let affordable = POPULATE_BYTES_PER_SLICE / size.unwrap_or(1).max(1);
    let block = affordable.clamp(1, POPULATE_KEYS_PER_SLICE);
    let end = state.cursor.saturating_add(block).min(count);
    let prefix = args.get(3).unwrap_or(b"key");
    for n in state.cursor..end {
        let name = [prefix, b":", n.to_string().as_bytes()].concat();
        let key = KeyRef::new(&name);
        // Only slots that are served here have keys that can be seen.
        let home = ctx.node.owners.home(key.slot);
        if home.shard() == shard && !home.is_closed() {
            populate_one(ctx, key, n, size);
        }
    }
    state.total += 1;
    if state.total == ctx.node.cores.len() as u64 {
        (state.total, state.cursor) = (0, end);
    }
    Ok(SliceStep::More)
}

fn populate_one(ctx: &mut Ctx<'_>, key: KeyRef<'_>, n: u64, size: Option<u64>) {
    if ctx.peek(key, false).is_some() {
        return;
    }
    let mut value = format!("value:{n}").into_bytes();
    if let Some(size) = size {
        value.resize(size as usize, 0);
    }
    ctx.set_string(key, &value, Encode::NoInt, Expiry::Clear);
    ctx.modified(key, Event::String("set"));
    ctx.effect(key, &[b"SET", key.bytes, &value]);
}

/// DEBUG MOVE-SLOT slot shard
fn debug_move_slot(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expect_words(args, 4)?;
    let number = |word| parse_i64(word).and_then(|n| u64::try_from(n).ok());
    let slot = number(args.at(2)).and_then(SlotId::new).ok_or(CommandError::MOVE_SLOT_SLOT)?;
    let to = number(args.at(3)).filter(|&n| n < ctx.node.cores.len() as u64);
    let to = ShardId(to.ok_or(CommandError::MOVE_SLOT_SHARD)? as u16);
    if ctx.node.owners.home(slot).is_pinned() {
        return Err(CommandError::MOVE_SLOT_PINNED);
    }
    move_slot(ctx, slot, to);
    reply.ok();
    Ok(())
}

/// Moves a slot's tables to another shard. Both are held: the call runs on all shards.
fn move_slot(ctx: &mut Ctx<'_>, slot: SlotId, to: ShardId) {
    debug_invariant!(slot.index() < SLOT_COUNT, "slots are numbered");
    let from = ctx.node.owners.of(slot);
    if from == to {
        return;
    }
    let (source, target) =
        ctx.shards.pair(from, to).expect("a call on all slots holds every shard");
    source.give_slot(slot, target, ctx.clock);
    ctx.node.owners.give(slot, to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    fn filled(shard_count: usize, key_count: usize) -> Bare {
        let mut bare = Bare::new(shard_count, 7);
        let mut client = bare.client();
        for i in 0..key_count {
            let key = format!("key:{i}");
            bare.call(&mut client, &[b"SET", key.as_bytes(), key.as_bytes()]);
        }
        client.db = DbIndex(3);
        bare.call(&mut client, &[b"SET", b"a", b"1", b"PXAT", b"1900000000000"]);
        bare
    }

    fn digest(bare: &mut Bare) -> Vec<u8> {
        let mut client = bare.client();
        bare.call(&mut client, &[b"DEBUG", b"DIGEST"])
    }

    #[test]
    fn digest_is_equal_for_equal_data_on_any_number_of_cores() {
        let [mut one, mut three] = [1, 3].map(|cores| filled(cores, 2000));
        let want = digest(&mut one);
        assert_eq!(want.len(), 1 + 40 + 2);
        assert_eq!(digest(&mut three), want);
        let mut client = one.client();
        one.call(&mut client, &[b"SET", b"key:1", b"other"]);
        assert_ne!(digest(&mut one), want);
        one.call(&mut client, &[b"SET", b"key:1", b"key:1"]);
        assert_eq!(digest(&mut one), want);
    }

    #[test]
    fn digest_of_nothing_is_zero_and_sees_deadlines_and_databases() {
        let mut bare = Bare::new(2, 1);
        let zero = [b"+", "0".repeat(40).as_bytes(), b"\r\n"].concat();
        assert_eq!(digest(&mut bare), zero);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"k", b"v"]);
        let plain = digest(&mut bare);
        bare.call(&mut client, &[b"SET", b"k", b"v", b"PXAT", b"1800000000000"]);
        let expiring = digest(&mut bare);
        assert_ne!(plain, expiring);
        bare.now = Ms(1_800_000_000_001);
        assert_eq!(digest(&mut bare), zero);
    }

    #[test]
    fn move_slot_keeps_every_key_and_its_deadline() {
        let mut bare = filled(3, 500);
        let before = digest(&mut bare);
        let mut client = bare.client();
        for slot in (0..SLOT_COUNT).step_by(3) {
            let (slot, to) = (slot.to_string(), (slot % 2 + 1).to_string());
            let words: [&[u8]; 4] = [b"DEBUG", b"MOVE-SLOT", slot.as_bytes(), to.as_bytes()];
            assert_eq!(bare.call(&mut client, &words), b"+OK\r\n");
        }
        assert_eq!(bare.node.owners.of(SlotId::from_crc(0)), ShardId(1));
        assert_eq!(digest(&mut bare), before);
        assert_eq!(bare.len(DbIndex(0)), 500);
        for i in 0..500 {
            let key = format!("key:{i}");
            let got = bare.call(&mut client, &[b"DEBUG", b"DIGEST-VALUE", key.as_bytes()]);
            assert!(!got.starts_with(b"*1\r\n+0000"), "{key}");
        }
        bare.now = Ms(1_900_000_000_001);
        bare.expire_all();
        assert_eq!(bare.len(DbIndex(3)), 0);
    }

    #[test]
    fn move_slot_to_a_shard_or_of_a_slot_that_is_not_there_fails() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        for (slot, to) in [("1024", "0"), ("-1", "0"), ("x", "0"), ("0", "2"), ("0", "")] {
            let words: [&[u8]; 4] = [b"DEBUG", b"MOVE-SLOT", slot.as_bytes(), to.as_bytes()];
            assert_eq!(bare.call(&mut client, &words)[0], b'-', "{slot} {to}");
        }
    }

    #[test]
    fn sleep_asks_the_session_to_rest_and_transactions_do_not() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        for seconds in [&b"0"[..], b"0.01", b"x", b"-1", b"1e300"] {
            assert_eq!(bare.call(&mut client, &[b"DEBUG", b"SLEEP", seconds]), b"+OK\r\n");
        }
    }

    #[test]
    fn populate_makes_each_key_once_with_its_size() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"p:1", b"mine"]);
        let words: [&[u8]; 5] = [b"DEBUG", b"POPULATE", b"1000", b"p", b"9"];
        assert_eq!(bare.call(&mut client, &words), b"+OK\r\n");
        assert_eq!(bare.len(DbIndex(0)), 1000);
        let mut value = |key: &[u8]| bare.call(&mut client, &[b"DEBUG", b"DIGEST-VALUE", key]);
        assert_ne!(value(b"p:1"), value(b"p:2"));
    }

    #[test]
    fn complaints_about_words_all_read_alike() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let words: [&[&[u8]]; 4] = [
            &[b"DEBUG", b"nosuch"],
            &[b"DEBUG", b"OBJECT"],
            &[b"DEBUG", b"DIGEST", b"x"],
            &[b"DEBUG", b"SLEEP", b"1", b"2"],
        ];
        for words in words {
            let want = format!(
                "-ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
                String::from_utf8_lossy(words[1])
            );
            let got = bare.call(&mut client, words);
            assert_eq!(String::from_utf8_lossy(&got).trim_end(), want);
        }
        let refused = bare.call(&mut client, &[b"DEBUG", b"SEGFAULT"]);
        assert_eq!(refused, b"-ERR DEBUG SEGFAULT is not available\r\n");
        assert_eq!(bare.call(&mut client, &[b"DEBUG", b"ERROR", b"foo bar"]), b"-foo bar\r\n");
    }
}
