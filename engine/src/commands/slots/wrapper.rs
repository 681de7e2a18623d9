//! SLOTSMGRT-EXEC-WRAPPER: a command for a slot that is moving. A proxy asks the source first, and
//! learns whether the key is here, is on its way, or is at the target already.
//!
//! All keys of the wrapped command are looked at, and tags move as a whole: a key that is not here
//! belongs here all the same as long as one of its tag does, and nothing is written while it is on its
//! way. Reads are always answered here, however full the server is.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::dispatch::{is_queued_in_multi, make_room};
use crate::commands::keys::find_keys;
use crate::commands::spec::{
    Access, Acl, Arg, ArgKind, Arity, Begin, CommandResult, CommandSpec, Family, Find, Flags,
    Handler, KeySpec, Propagate, Purpose, Route,
};
use crate::commands::table::{Command, table};
use crate::commands::txn;
use crate::net::client::ClientState;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::slots::hash::{slot_of, tag};
use crate::store::table::Position;

/// Which word the wrapped command begins with.
const WRAPPED_AT: usize = 2;

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[CommandSpec {
    name: "slotsmgrt-exec-wrapper",
    family: Family::Slots,
    since: "codis 3.2",
    summary: "Runs a command here if its key has not moved to another server",
    complexity: "That of the command; O(N) with N keys of the slot if its key is tagged and not here",
    arity: Arity::AtLeast(3),
    // What takes memory is refused by its handler: a read of a full server is not.
    flags: Flags::WRITE.union(Flags::NOSCRIPT).union(Flags::NO_MULTI),
    acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
    keys: &[
        KeySpec::range(Access::ReadWrite, Purpose::Update, 1, 0, 1),
        KeySpec {
            begin: Begin::Unknown,
            find: Find::Wrapped(WRAPPED_AT as u16),
            ..KeySpec::range(Access::ReadWrite, Purpose::Update, 0, 0, 1)
        },
    ],
    args: &[
        Arg::key("hashkey", 0),
        Arg::new("command", ArgKind::String),
        Arg::new("arg", ArgKind::String).optional().multiple(),
    ],
    is_internal: true,
    propagate: Propagate::Rewritten,
    handler: Handler::Held(slotsmgrt_exec_wrapper),
    ..CommandSpec::EMPTY
}];

/// What the first element of the reply says.
mod verdict {
    /// There is no such command.
    pub(super) const INVALID: i64 = -1;
    /// The key is not here.
    pub(super) const ABSENT: i64 = 0;
    /// The key is on its way.
    pub(super) const MOVING: i64 = 1;
    /// The command has run.
    pub(super) const DONE: i64 = 2;
}

fn slotsmgrt_exec_wrapper(
    ctx: &mut Ctx<'_>,
    client: &mut ClientState,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let inner = args.behind(WRAPPED_AT);
    let command = match wrapped(&inner) {
        Ok(command) => command,
        Err(error) => return answer(reply, verdict::INVALID, &error),
    };
    let mut keys = vec![args.at(1)];
    let mut found = Vec::new();
    find_keys(command.spec, &inner, &mut found);
    keys.extend(found.iter().map(|found| inner.at(found.index)));
    let is_read = command.spec.flags.contains(Flags::READONLY);
    if !is_read && ctx.node.dialect.holds_any(ctx.db, keys.iter().copied()) {
        return answer(reply, verdict::MOVING, &CommandError::KEY_IS_MIGRATED);
    }
    if !keys.iter().any(|key| is_here(ctx, key)) && !has_sibling_here(ctx, args.at(1)) {
        return answer(reply, verdict::ABSENT, &CommandError::KEY_NOT_HERE);
    }
    if command.spec.flags.contains(Flags::DENYOOM) && ctx.node.config.maxmemory() > 0 {
        make_room(ctx)?;
    }
    reply.array(2);
    reply.int(verdict::DONE);
    let spec = ctx.spec;
    ctx.begin_unit();
    txn::run(ctx, client, command, &inner, reply);
    ctx.clock.end_unit();
    // The wrapped call has settled its own effects; the wrapper has none.
    ctx.spec = spec;
    ctx.dirty = 0;
    ctx.effect_count = 0;
    Ok(())
}

fn answer(reply: &mut Reply<'_>, verdict: i64, error: &CommandError) -> CommandResult {
    reply.array(2);
    reply.int(verdict);
    reply.error(error);
    Ok(())
}

/// The command that is wrapped. Only one that runs on its own keys can be.
fn wrapped(inner: &Args<'_>) -> Result<&'static Command, CommandError> {
    let name = inner.at(0);
    let refused = || CommandError::cannot_wrap(name);
    let command = table().get(name).ok_or_else(refused)?;
    let sub = inner.get(1).and_then(|word| command.subcommand(word));
    let command = sub.unwrap_or(command);
    if !command.spec.arity.accepts(inner.len()) {
        return Err(CommandError::wrong_arity_wrapped(name));
    }
    let runs_here = match command.spec.handler {
        Handler::Data(_) => matches!(command.spec.route, Route::ByKey | Route::SplitKeys),
        Handler::Session(_) => true,
        Handler::Held(_) | Handler::Sliced(_) | Handler::Container => false,
    };
    let is_refused =
        command.spec.flags.contains(Flags::NO_MULTI) || name.eq_ignore_ascii_case(b"quit");
    if !runs_here || is_refused || !is_queued_in_multi(command) {
        return Err(refused());
    }
    Ok(command)
}

fn is_here(ctx: &mut Ctx<'_>, key: &[u8]) -> bool {
    let key = ctx.key(key);
    ctx.peek(key, false).is_some()
}

/// Whether another key with the tag of this one is here.
///
/// # Complexity
/// O(N) with N keys of the slot; nothing is looked at if the key has no tag.
fn has_sibling_here(ctx: &mut Ctx<'_>, key: &[u8]) -> bool {
    let Some(of_key) = tag(key) else { return false };
    let now = ctx.now;
    let Some(db) = ctx.db_of(slot_of(key)) else { return false };
    let (mut is_there, mut at) = (false, Some(Position(0)));
    while let (false, Some(from)) = (is_there, at) {
        at = db.table(slot_of(key)).scan(from, ENTRIES_AHEAD, |entry| {
            is_there |= !entry.is_expired(now) && tag(entry.key()) == Some(of_key);
        });
    }
    is_there
}

/// Entries that are looked at before it is asked whether one was enough.
const ENTRIES_AHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::units::DbIndex;

    fn run(bare: &mut Bare, line: &str) -> String {
        let mut client = bare.client();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8_lossy(&bare.call(&mut client, &words)).into_owned()
    }

    fn wrap(bare: &mut Bare, line: &str) -> String {
        run(bare, &format!("SLOTSMGRT-EXEC-WRAPPER {line}"))
    }

    const ABSENT: &str = "*2\r\n:0\r\n-ERR the specified key doesn't exist\r\n";
    const MOVING: &str = "*2\r\n:1\r\n-ERR the specified key is being migrated\r\n";

    #[test]
    fn wrapper_says_why_a_command_is_none() {
        let mut bare = Bare::new(2, 1);
        run(&mut bare, "SET k v");
        let cases = [
            ("k NOPE", "invalid command specified (NOPE)"),
            ("k QUIT", "invalid command specified (QUIT)"),
            ("k MULTI", "invalid command specified (MULTI)"),
            ("k EXEC", "invalid command specified (EXEC)"),
            ("k DBSIZE", "invalid command specified (DBSIZE)"),
            ("k WATCH k", "invalid command specified (WATCH)"),
            (
                "k slotsmgrt-exec-wrapper k get k",
                "invalid command specified (slotsmgrt-exec-wrapper)",
            ),
            ("k GET", "wrong number of arguments for command (GET)"),
        ];
        for (call, text) in cases {
            assert_eq!(wrap(&mut bare, call), format!("*2\r\n:-1\r\n-ERR {text}\r\n"), "{call}");
        }
        assert_eq!(
            run(&mut bare, "SLOTSMGRT-EXEC-WRAPPER k"),
            "-ERR wrong number of arguments for 'slotsmgrt-exec-wrapper' command\r\n"
        );
    }

    #[test]
    fn wrapper_runs_what_is_here_with_its_own_reply_and_errors() {
        let mut bare = Bare::new(3, 1);
        run(&mut bare, "SET k v");
        assert_eq!(wrap(&mut bare, "k GET k"), "*2\r\n:2\r\n$1\r\nv\r\n");
        assert_eq!(wrap(&mut bare, "none GET none"), ABSENT);
        assert!(wrap(&mut bare, "k LPUSH k x").starts_with("*2\r\n:2\r\n-WRONGTYPE"));
        assert_eq!(wrap(&mut bare, "k PING"), "*2\r\n:2\r\n+PONG\r\n");
        run(&mut bare, "SET gone v PX 10");
        bare.now.0 += 20;
        assert_eq!(wrap(&mut bare, "gone GET gone"), ABSENT);
        assert_eq!(wrap(&mut bare, "k DEL k"), "*2\r\n:2\r\n:1\r\n");
        assert_eq!(wrap(&mut bare, "k GET k"), ABSENT);
        // BLPOP does not wait within a wrapper.
        run(&mut bare, "SET {t}s v");
        assert_eq!(wrap(&mut bare, "{t}l BLPOP {t}l 0"), "*2\r\n:2\r\n*-1\r\n");
    }

    #[test]
    fn wrapper_refuses_writes_to_keys_and_tags_on_their_way_and_answers_reads() {
        let mut bare = Bare::new(3, 1);
        for call in ["SET k v", "SET {z}1 v", "SET {z}2 w", "SET other v"] {
            run(&mut bare, call);
        }
        let node = bare.node;
        let claim = |key: &str, tags: &[Box<[u8]>]| {
            node.dialect.lock(DbIndex(0)).claim(&[key.as_bytes().into()], tags)
        };
        assert!(claim("k", &[]) && claim("{z}1", &[b"z"[..].into()]));
        assert_eq!(wrap(&mut bare, "k GET k"), "*2\r\n:2\r\n$1\r\nv\r\n");
        assert_eq!(wrap(&mut bare, "k SET k x"), MOVING);
        // Not only the first key counts.
        assert_eq!(wrap(&mut bare, "other MSET other 1 k 1"), MOVING);
        assert_eq!(wrap(&mut bare, "other SET other x"), "*2\r\n:2\r\n+OK\r\n");
        // A new key of a tag belongs to its siblings.
        assert_eq!(wrap(&mut bare, "{z}new SET {z}new x"), MOVING);
        assert_eq!(wrap(&mut bare, "{z}new EXISTS {z}new {z}1"), "*2\r\n:2\r\n:1\r\n");
        node.dialect
            .lock(DbIndex(0))
            .release(&[b"k"[..].into(), b"{z}1"[..].into()], &[b"z"[..].into()]);
        assert_eq!(wrap(&mut bare, "{z}new SET {z}new x"), "*2\r\n:2\r\n+OK\r\n");
        assert_eq!(wrap(&mut bare, "{q}new SET {q}new x"), ABSENT);
    }

    #[test]
    fn wrapped_spop_is_journalled_by_what_it_took() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SADD s a b c d e f g h");
        bare.held[0].as_mut().expect("it is held").journal.attach();
        let reply = wrap(&mut bare, "s SPOP s 3");
        let records = bare.held[0].as_mut().expect("it is held").journal.take();
        assert_eq!(records.len(), 1);
        let call = records[0].call.args();
        assert_eq!(call.at(0), b"SREM");
        for member in call.iter_from(2) {
            assert!(reply.contains(&format!("\r\n{}\r\n", member.escape_ascii())), "{reply}");
        }
    }

    #[test]
    fn wrapped_read_is_answered_when_memory_is_full_and_a_write_is_not() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SET k v");
        run(&mut bare, "SET filler 1");
        run(&mut bare, "CONFIG SET maxmemory 1");
        assert_eq!(wrap(&mut bare, "k GET k"), "*2\r\n:2\r\n$1\r\nv\r\n");
        assert!(wrap(&mut bare, "k SET k x").starts_with("-OOM"));
        assert_eq!(wrap(&mut bare, "k DEL k"), "*2\r\n:2\r\n:1\r\n");
    }
}
