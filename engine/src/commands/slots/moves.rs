//! SLOTSMGRT*: a client, a proxy or a dashboard tells this server to move keys to another one. Here is
//! what they ask for; the session's core does it, and the session waits, in order, for how it ends.

use crate::commands::args::Args;
use crate::commands::session_ctx::{SessionAction, SessionCtx};
use crate::commands::slots::inspect::{parse_int32, parse_slot};
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Propagate, Route,
};
use crate::migrate::dialect::call::{DialectCall, Form, MoveCall, What};
use crate::migrate::dialect::registry::{Client, Head, Shown};
use crate::migrate::dialect::stream::Params;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::units::{Ms, SlotId};

/// What parameters are if they are 0, and the most they may be.
#[derive(Debug)]
pub struct Defaults;

impl Defaults {
    /// Longest silence of a target.
    pub const TIMEOUT_MS: i64 = 30_000;
    /// Longest wait of a synchronous move.
    const SYNC_TIMEOUT_MS: i64 = 100;
    /// Words of a message.
    const BULKS: i64 = 200;
    /// The most of them.
    pub const BULKS_MAX: usize = 512 * 1024;
    /// Bytes that wait to be sent.
    const BYTES: i64 = 512 * 1024;
    /// The most of them.
    const BYTES_MAX: u64 = i32::MAX as u64 / 2;
    /// Messages of a batch of a slot.
    const KEYS: i64 = 100;
}

const FLAGS: Flags = Flags::WRITE.union(Flags::NOSCRIPT).union(Flags::NO_MULTI);

const MOVE: CommandSpec = CommandSpec {
    family: Family::Slots,
    since: "codis 3.2",
    complexity: "O(N) with N elements of all values that move",
    flags: FLAGS,
    acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
    is_internal: true,
    route: Route::Session,
    propagate: Propagate::Rewritten,
    ..CommandSpec::EMPTY
};

const CONTROL: CommandSpec = CommandSpec {
    family: Family::Slots,
    since: "codis 3.2",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
    args: &[Arg::new("ignored", ArgKind::String).optional().multiple()],
    is_internal: true,
    route: Route::Session,
    ..CommandSpec::EMPTY
};

const HOST: Arg = Arg::new("host", ArgKind::String);
const PORT: Arg = Arg::new("port", ArgKind::Integer);
const TIMEOUT: Arg = Arg::new("timeout", ArgKind::Integer);
const BULKS: Arg = Arg::new("maxbulks", ArgKind::Integer);
const BYTES: Arg = Arg::new("maxbytes", ArgKind::Integer);
const SLOT: Arg = Arg::new("slot", ArgKind::Integer);
const COUNT: Arg = Arg::new("numkeys", ArgKind::Integer);
// Not keys that decide where the call runs: it runs where its session is.
const KEY: Arg = Arg::new("key", ArgKind::String);

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "slotsmgrt-async-cancel",
        summary: "Ends the batch of the database that is moving, and drops its connection",
        flags: Flags::FAST.union(Flags::NO_MULTI),
        handler: Handler::Session(cancel),
        ..CONTROL
    },
    CommandSpec {
        name: "slotsmgrt-async-fence",
        summary: "Waits until the batch of the database that is moving has ended",
        flags: Flags::READONLY.union(Flags::NOSCRIPT).union(Flags::NO_MULTI),
        handler: Handler::Session(fence),
        ..CONTROL
    },
    CommandSpec {
        name: "slotsmgrt-async-status",
        summary: "Shows the batch of the database that is moving",
        flags: Flags::FAST,
        handler: Handler::Session(status),
        ..CONTROL
    },
    CommandSpec {
        name: "slotsmgrtone",
        summary: "Moves a key to another server",
        arity: Arity::Exact(5),
        args: &[HOST, PORT, TIMEOUT, KEY],
        handler: Handler::Session(one),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrtone-async",
        summary: "Moves keys to another server in messages of limited size",
        arity: Arity::AtLeast(7),
        args: &[HOST, PORT, TIMEOUT, BULKS, BYTES, KEY.multiple()],
        handler: Handler::Session(one_async),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrtslot",
        summary: "Moves some key of a slot to another server",
        arity: Arity::Exact(5),
        args: &[HOST, PORT, TIMEOUT, SLOT],
        handler: Handler::Session(slot),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrtslot-async",
        summary: "Moves keys of a slot to another server in messages of limited size",
        arity: Arity::Exact(8),
        args: &[HOST, PORT, TIMEOUT, BULKS, BYTES, SLOT, COUNT],
        handler: Handler::Session(slot_async),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrttagone",
        summary: "Moves a key, and all keys with its tag, to another server",
        arity: Arity::Exact(5),
        args: &[HOST, PORT, TIMEOUT, KEY],
        handler: Handler::Session(one),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrttagone-async",
        summary: "Moves keys, and all keys with their tags, in messages of limited size",
        arity: Arity::AtLeast(7),
        args: &[HOST, PORT, TIMEOUT, BULKS, BYTES, KEY.multiple()],
        handler: Handler::Session(one_async),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrttagslot",
        summary: "Moves some key of a slot, and all keys with its tag, to another server",
        arity: Arity::Exact(5),
        args: &[HOST, PORT, TIMEOUT, SLOT],
        handler: Handler::Session(slot),
        ..MOVE
    },
    CommandSpec {
        name: "slotsmgrttagslot-async",
        summary: "Moves keys of a slot, and all keys with their tags, in messages of limited size",
        arity: Arity::Exact(8),
        args: &[HOST, PORT, TIMEOUT, BULKS, BYTES, SLOT, COUNT],
        handler: Handler::Session(slot_async),
        ..MOVE
    },
];

/// Whether the call is one of those that take tags along.
fn with_tags(args: &Args<'_>) -> bool {
    let name = args.at(0).to_ascii_lowercase();
    name.starts_with(b"slotsmgrttag")
}

fn host(args: &Args<'_>) -> String {
    // The original takes it for a C string.
    let end = args.at(1).iter().position(|&byte| byte == 0).unwrap_or(args.at(1).len());
    String::from_utf8_lossy(&args.at(1)[..end]).into_owned()
}

fn begin(ctx: &mut SessionCtx<'_>, call: MoveCall) -> CommandResult {
    ctx.action = Some(SessionAction::Dialect(DialectCall::Move(Box::new(call))));
    Ok(())
}

// ---- synchronous ----

fn one(ctx: &mut SessionCtx<'_>, args: &Args<'_>, _reply: &mut Reply<'_>) -> CommandResult {
    let timeout_ms = sync_timeout_ms(args)?;
    begin_sync(ctx, args, timeout_ms, What::Keys(vec![args.at(4).into()]))
}

fn slot(ctx: &mut SessionCtx<'_>, args: &Args<'_>, _reply: &mut Reply<'_>) -> CommandResult {
    let timeout_ms = sync_timeout_ms(args)?;
    let slot = parse_slot(args, 4)?;
    begin_sync(ctx, args, timeout_ms, What::Slot(slot, 1))
}

fn sync_timeout_ms(args: &Args<'_>) -> Result<i64, CommandError> {
    match parse_int32(args, 3)? {
        0 => Ok(Defaults::SYNC_TIMEOUT_MS),
        n if n < 0 => Err(CommandError::invalid_timeout(n)),
        n => Ok(i64::from(n)),
    }
}

fn begin_sync(
    ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    timeout_ms: i64,
    what: What,
) -> CommandResult {
    let Some(port) = leading_number(args.at(2)) else {
        return Err(CommandError::no_target("the port is none"));
    };
    let params = Params {
        timeout_ms,
        bulks_max: Defaults::BULKS as usize,
        bytes_max: Defaults::BYTES as usize,
    };
    let with_tags = with_tags(args);
    begin(ctx, MoveCall { form: Form::Sync, host: host(args), port, params, what, with_tags })
}

/// The number that a word begins with, as `atoi` reads it, if it is a port.
fn leading_number(word: &[u8]) -> Option<u16> {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let n = parse_i64(&word[..digits]).and_then(|n| u16::try_from(n).ok());
    n.filter(|&n| n > 0)
}

// ---- asynchronous ----

fn one_async(ctx: &mut SessionCtx<'_>, args: &Args<'_>, _reply: &mut Reply<'_>) -> CommandResult {
    let (port, params) = async_params(ctx, args)?;
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    keys.extend(args.iter_from(6).filter(|key| seen.insert(*key)).map(Box::from));
    let (what, with_tags) = (What::Keys(keys), with_tags(args));
    begin(ctx, MoveCall { form: Form::Async, host: host(args), port, params, what, with_tags })
}

fn slot_async(ctx: &mut SessionCtx<'_>, args: &Args<'_>, _reply: &mut Reply<'_>) -> CommandResult {
    let (port, params) = async_params(ctx, args)?;
    let invalid = || CommandError::invalid_value_of("slot", args.at(6));
    let slot = parse_i64(args.at(6)).and_then(|n| u64::try_from(n).ok());
    let slot = slot.and_then(SlotId::new).ok_or_else(invalid)?;
    let count = parameter(args, 7, "numkeys", Defaults::KEYS)? as usize;
    let (what, with_tags) = (What::Slot(slot, count), with_tags(args));
    begin(ctx, MoveCall { form: Form::Async, host: host(args), port, params, what, with_tags })
}

fn async_params(ctx: &SessionCtx<'_>, args: &Args<'_>) -> Result<(u16, Params), CommandError> {
    let invalid = || CommandError::invalid_value_of("port", args.at(2));
    let port = parse_i64(args.at(2)).and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 0);
    let port = port.ok_or_else(invalid)?;
    let timeout_ms = parameter(args, 3, "timeout", Defaults::TIMEOUT_MS)?;
    let bulks = parameter(args, 4, "maxbulks", Defaults::BULKS)? as usize;
    let bytes = parameter(args, 5, "maxbytes", Defaults::BYTES)? as u64;
    let limit = ctx.node.config.client_output_limit(false);
    let limits = [limit.hard_bytes, limit.soft_bytes].into_iter().filter(|&bytes| bytes > 0);
    let bytes_max = limits.fold(bytes.min(Defaults::BYTES_MAX), u64::min) as usize;
    Ok((port, Params { timeout_ms, bulks_max: bulks.min(Defaults::BULKS_MAX), bytes_max }))
}

/// A number from 0 to what 31 bits hold; 0 stands for its default.
///
/// # Errors
/// It is none.
pub(super) fn parameter(
    args: &Args<'_>,
    index: usize,
    name: &str,
    default: i64,
) -> Result<i64, CommandError> {
    let n = parse_i64(args.at(index)).filter(|n| (0..=i64::from(i32::MAX)).contains(n));
    match n {
        None => Err(CommandError::invalid_value_of(name, args.at(index))),
        Some(0) => Ok(default),
        Some(n) => Ok(n),
    }
}

// ---- control ----

fn fence(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if ctx.node.dialect.is_sending(ctx.client.db) {
        ctx.action = Some(SessionAction::Dialect(DialectCall::Fence));
    } else {
        reply.ok();
    }
    Ok(())
}

fn cancel(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if ctx.node.dialect.lock(ctx.client.db).client.is_some() {
        ctx.action = Some(SessionAction::Dialect(DialectCall::Cancel));
    } else {
        reply.int(0);
    }
    Ok(())
}

fn status(ctx: &mut SessionCtx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let moves = ctx.node.dialect.lock(ctx.client.db);
    let Some(client) = &moves.client else {
        reply.null_array();
        return Ok(());
    };
    let blocked_count = usize::from(moves.shown.is_some()) + moves.waiters.len();
    show_client(client, moves.shown.as_ref(), blocked_count, ctx.now, reply);
    Ok(())
}

fn pair(reply: &mut Reply<'_>, name: &str, n: i64) {
    reply.bulk(name.as_bytes());
    reply.bulk_int(n);
}

fn show_client(
    client: &Client,
    shown: Option<&Shown>,
    blocked_count: usize,
    now: Ms,
    reply: &mut Reply<'_>,
) {
    reply.array(18);
    reply.bulk(b"host");
    reply.bulk(client.host.as_bytes());
    pair(reply, "port", i64::from(client.port));
    pair(reply, "used", i64::from(shown.is_some()));
    pair(reply, "timeout", client.timeout_ms);
    pair(reply, "lastuse", client.last_use.0);
    pair(reply, "since_lastuse", now.0.saturating_sub(client.last_use.0));
    pair(reply, "sending_msgs", client.due_count as i64);
    pair(reply, "blocked_clients", blocked_count as i64);
    reply.bulk(b"batched_iterator");
    match shown {
        None => reply.null_array(),
        Some(shown) => show_batch(shown, reply),
    }
}

fn show_batch(shown: &Shown, reply: &mut Reply<'_>) {
    let params = shown.params;
    let limit = |of: fn(&Params) -> i64| params.as_ref().map_or(0, of);
    reply.array(16);
    reply.bulk(b"keys");
    reply.array(2);
    reply.bulk_int(shown.keys.len() as i64);
    reply.array(shown.keys.len());
    shown.keys.iter().for_each(|key| reply.bulk(key));
    pair(reply, "timeout", limit(|params| params.timeout_ms));
    pair(reply, "maxbulks", limit(|params| params.bulks_max as i64));
    pair(reply, "maxbytes", limit(|params| params.bytes_max as i64));
    pair(reply, "estimate_msgs", shown.estimated_messages as i64);
    pair(reply, "removed_keys", shown.removed_count as i64);
    pair(reply, "chunked_vals", shown.chunked_count as i64);
    reply.bulk(b"iterators");
    reply.array(2);
    reply.bulk_int(shown.left_count as i64);
    match &shown.head {
        None => reply.null_array(),
        Some(head) => show_head(head, reply),
    }
}

fn show_head(head: &Head, reply: &mut Reply<'_>) {
    // The original has a place for each kind of walk; here one position says all.
    let position = |of: i64| if head.type_number == of { head.position as i64 } else { 0 };
    let cursor = position(2) + position(4);
    reply.array(16);
    reply.bulk(b"key");
    reply.bulk(&head.key);
    pair(reply, "val.type", head.type_number);
    pair(reply, "stage", head.stage);
    pair(reply, "expire", head.expires_at);
    pair(reply, "cursor", cursor);
    pair(reply, "lindex", position(1));
    pair(reply, "zindex", position(3));
    pair(reply, "chunked_msgs", head.chunk_count as i64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::units::{CoreId, DbIndex};

    fn run(bare: &mut Bare, line: &str) -> String {
        let mut client = bare.client();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8_lossy(&bare.call(&mut client, &words)).into_owned()
    }

    #[test]
    fn moves_with_wrong_parameters_say_which() {
        let mut bare = Bare::new(1, 1);
        let cases = [
            ("SLOTSMGRTONE h 1 x k", "value is not an integer or out of range"),
            ("SLOTSMGRTONE h 1 2147483648 k", "value is out of range"),
            ("SLOTSMGRTTAGONE h 1 -1 k", "invalid timeout = -1"),
            ("SLOTSMGRTSLOT h 1 1 1024", "invalid slot number = 1024"),
            ("SLOTSMGRTTAGSLOT h 1 1 x", "value is not an integer or out of range"),
            ("SLOTSMGRTONE-ASYNC h 0 0 0 0 k", "invalid value of port (0)"),
            ("SLOTSMGRTONE-ASYNC h 65536 0 0 0 k", "invalid value of port (65536)"),
            ("SLOTSMGRTTAGONE-ASYNC h 1 -1 0 0 k", "invalid value of timeout (-1)"),
            ("SLOTSMGRTONE-ASYNC h 1 0 x 0 k", "invalid value of maxbulks (x)"),
            ("SLOTSMGRTONE-ASYNC h 1 0 0 2147483648 k", "invalid value of maxbytes (2147483648)"),
            ("SLOTSMGRTSLOT-ASYNC h 1 0 0 0 1024 0", "invalid value of slot (1024)"),
            ("SLOTSMGRTTAGSLOT-ASYNC h 1 0 0 0 0 -1", "invalid value of numkeys (-1)"),
            ("SLOTSMGRTONE h 1 1", "wrong number of arguments for 'slotsmgrtone' command"),
        ];
        for (call, text) in cases {
            assert_eq!(run(&mut bare, call), format!("-ERR {text}\r\n"), "{call}");
        }
    }

    #[test]
    fn status_has_the_shape_that_was_recorded() {
        let mut bare = Bare::new(1, 1);
        assert_eq!(run(&mut bare, "SLOTSMGRT-ASYNC-STATUS"), "*-1\r\n");
        assert_eq!(run(&mut bare, "SLOTSMGRT-ASYNC-FENCE"), "+OK\r\n");
        {
            let mut moves = bare.node.dialect.lock(DbIndex(0));
            moves.client = Some(Client {
                host: "127.0.0.1".to_owned(),
                port: 27099,
                timeout_ms: 2000,
                last_use: Ms(bare.now.0 - 102),
                due_count: 5,
                core: CoreId(0),
                job: 1,
            });
            moves.shown = Some(Shown {
                keys: vec![b"{z}1"[..].into(), b"{z}2"[..].into()],
                params: Some(Params { timeout_ms: 2000, bulks_max: 200, bytes_max: 524_288 }),
                estimated_messages: 2,
                removed_count: 2,
                ..Shown::default()
            });
        }
        let reply = run(&mut bare, "SLOTSMGRT-ASYNC-STATUS");
        let texts: Vec<&str> =
            reply.split("\r\n").filter(|line| !line.starts_with('$') && !line.is_empty()).collect();
        let last_use = (bare.now.0 - 102).to_string();
        let want = format!(
            "*18 host 127.0.0.1 port 27099 used 1 timeout 2000 lastuse {last_use} since_lastuse 102 \
             sending_msgs 5 blocked_clients 1 batched_iterator *16 keys *2 2 *2 {{z}}1 {{z}}2 \
             timeout 2000 maxbulks 200 maxbytes 524288 estimate_msgs 2 removed_keys 2 chunked_vals 0 \
             iterators *2 0 *-1"
        );
        assert_eq!(texts.join(" "), want);
    }
}
