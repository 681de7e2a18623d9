//! Whole databases: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.
//!
//! Each runs with all shards held and costs O(slots) per shard: what is flushed leaves at once and
//! is freed in slices afterwards, whether SYNC was asked for or not.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::Ctx;
use crate::commands::generic::existing_db;
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Propagate,
    Route,
};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::state::{KeyRef, Shard};
use crate::store::keyspace::Keyspace;
use crate::units::{DbIndex, Ms};

pub(super) const DBSIZE: CommandSpec = CommandSpec {
    name: "dbsize",
    family: Family::Server,
    since: "1.0.0",
    summary: "Counts the keys of the selected database",
    complexity: "O(1)",
    arity: Arity::Exact(1),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    tips: &["request_policy:all_shards", "response_policy:agg_sum"],
    route: Route::AllSlots,
    merge: Merge::Sum,
    handler: Handler::Data(dbsize),
    ..CommandSpec::EMPTY
};

const FLUSH_MODE: &[Arg] = &[Arg::one_of(
    "async",
    &[Arg::token("async", "ASYNC").since("4.0.0"), Arg::token("sync", "SYNC").since("6.2.0")],
)
.optional()];

const FLUSH_HISTORY: &[(&str, &str)] = &[("4.0.0", "Takes `ASYNC`."), ("6.2.0", "Takes `SYNC`.")];

pub(super) const FLUSHALL: CommandSpec = CommandSpec {
    name: "flushall",
    family: Family::Server,
    since: "1.0.0",
    summary: "Deletes all keys of all databases",
    complexity: "O(1); the memory of N keys is returned afterwards, in slices",
    arity: Arity::AtLeast(1),
    flags: Flags::WRITE,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    args: FLUSH_MODE,
    history: FLUSH_HISTORY,
    route: Route::AllSlots,
    merge: Merge::AllOk,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(flushall),
    ..CommandSpec::EMPTY
};

pub(super) const FLUSHDB: CommandSpec = CommandSpec {
    name: "flushdb",
    family: Family::Server,
    since: "1.0.0",
    summary: "Deletes all keys of the selected database",
    complexity: "O(1); the memory of N keys is returned afterwards, in slices",
    arity: Arity::AtLeast(1),
    flags: Flags::WRITE,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    args: FLUSH_MODE,
    history: FLUSH_HISTORY,
    route: Route::AllSlots,
    merge: Merge::AllOk,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(flushdb),
    ..CommandSpec::EMPTY
};

pub(super) const SWAPDB: CommandSpec = CommandSpec {
    name: "swapdb",
    family: Family::Server,
    since: "4.0.0",
    summary: "Exchanges two databases",
    complexity: "O(N) with N watched keys of both databases",
    arity: Arity::Exact(3),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    args: &[Arg::new("index1", ArgKind::Integer), Arg::new("index2", ArgKind::Integer)],
    route: Route::AllSlots,
    merge: Merge::AllOk,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(swapdb),
    ..CommandSpec::EMPTY
};

fn dbsize(ctx: &mut Ctx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (db, mut total) = (ctx.db, 0);
    ctx.shards.each(|shard| total += shard.keys.db(db).map_or(0, |dbase| dbase.len()));
    reply.count(total);
    Ok(())
}

/// The mode is checked and has no effect: flushing never blocks.
fn check_flush_mode(args: &Args<'_>) -> CommandResult {
    match (args.len(), args.get(1)) {
        (1, _) => Ok(()),
        (2, Some(mode)) if is_token(mode, "ASYNC") || is_token(mode, "SYNC") => Ok(()),
        _ => Err(CommandError::SYNTAX),
    }
}

fn flushdb(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    check_flush_mode(args)?;
    let db = ctx.db;
    ctx.shards.each(|shard| flush(shard, db));
    whole_databases_changed(ctx, db, &[b"FLUSHDB"]);
    reply.ok();
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    check_flush_mode(args)?;
    let db_count = ctx.node.config.databases();
    ctx.shards.each(|shard| (0..db_count).for_each(|db| flush(shard, DbIndex(db))));
    whole_databases_changed(ctx, DbIndex(0), &[b"FLUSHALL"]);
    reply.ok();
    Ok(())
}

/// Redis: counts as a change and is passed on even if there was nothing to delete.
fn whole_databases_changed(ctx: &mut Ctx<'_>, db: DbIndex, effect: &[&[u8]]) {
    ctx.dirty += 1;
    ctx.effect_all(db, effect);
}

fn flush(shard: &mut Shard, db: DbIndex) {
    let Shard { keys, watches, .. } = shard;
    if !watches.is_empty() {
        watches.touch_where(db, |key| is_stored(keys, db, KeyRef::new(key)));
    }
    shard.flush_db(db);
}

fn swapdb(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let number = |word| parse_i64(word).and_then(|n| i32::try_from(n).ok());
    let first = number(args.at(1)).ok_or(CommandError::FIRST_DB_INDEX)?;
    let second = number(args.at(2)).ok_or(CommandError::SECOND_DB_INDEX)?;
    let (a, b) = (existing_db(ctx, first)?, existing_db(ctx, second)?);
    let now = ctx.now;
    if a != b {
        ctx.shards.each(|shard| {
            touch_exchanged(shard, a, b, now);
            touch_exchanged(shard, b, a, now);
            shard.swap_dbs(a, b);
            shard.waiters.signal_all(a);
            shard.waiters.signal_all(b);
        });
    }
    let mut texts = [itoa::Buffer::new(), itoa::Buffer::new()];
    let [text_a, text_b] = &mut texts;
    let words = [&b"SWAPDB"[..], text_a.format(a.0).as_bytes(), text_b.format(b.0).as_bytes()];
    whole_databases_changed(ctx, a, &words);
    reply.ok();
    Ok(())
}

/// Raises the flags of keys watched in `db` that are there, or will be once `other` has taken its
/// place. Redis: a key that takes the place of none and has expired already changes nothing.
fn touch_exchanged(shard: &mut Shard, db: DbIndex, other: DbIndex, now: Ms) {
    let Shard { keys, watches, .. } = shard;
    if watches.is_empty() {
        return;
    }
    watches.touch_where(db, |key| {
        let key = KeyRef::new(key);
        is_stored(keys, db, key) || is_alive(keys, other, key, now)
    });
}

fn is_stored(keys: &Keyspace, db: DbIndex, key: KeyRef<'_>) -> bool {
    keys.db(db).is_some_and(|dbase| dbase.table(key.slot).find(key.hash, key.bytes).is_some())
}

fn is_alive(keys: &Keyspace, db: DbIndex, key: KeyRef<'_>, now: Ms) -> bool {
    keys.db(db).is_some_and(|dbase| {
        let table = dbase.table(key.slot);
        table.find(key.hash, key.bytes).is_some_and(|at| !table.entry(at).is_expired(now))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::commands::bare::Bare;

    fn watch(bare: &mut Bare, db: DbIndex, key: &[u8]) -> Arc<AtomicBool> {
        let flag = Arc::new(AtomicBool::new(false));
        let owner = bare.node.owners.of(KeyRef::new(key).slot);
        let shard = bare.held[owner.index()].as_mut().expect("all doors are held");
        shard.watches.watch(db, key, &flag);
        flag
    }

    #[test]
    fn flush_touches_watchers_of_keys_that_were_there() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"MSET", b"a", b"1", b"b", b"2"]);
        let hit = watch(&mut bare, DbIndex(0), b"a");
        let miss = watch(&mut bare, DbIndex(0), b"x");
        let other = watch(&mut bare, DbIndex(1), b"b");
        assert_eq!(bare.call(&mut client, &[b"DBSIZE"]), b":2\r\n");
        assert_eq!(bare.call(&mut client, &[b"FLUSHDB", b"async"]), b"+OK\r\n");
        assert_eq!(bare.call(&mut client, &[b"DBSIZE"]), b":0\r\n");
        let flags = [hit, miss, other].map(|flag| flag.load(Ordering::Acquire));
        assert_eq!(flags, [true, false, false]);
        assert!(bare.held.iter().flatten().any(|shard| shard.free.pending_count() > 0));
        assert!(bare.held.iter().flatten().all(|shard| shard.data_bytes == 0));
    }

    #[test]
    fn flushall_empties_every_database_and_is_journalled_once_per_shard() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        for db in [0, 5, 15] {
            client.db = DbIndex(db);
            bare.call(&mut client, &[b"SET", b"k", b"v"]);
        }
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        assert_eq!(bare.call(&mut client, &[b"FLUSHALL"]), b"+OK\r\n");
        assert!((0..16).all(|db| bare.is_empty(DbIndex(db))));
        assert!(bare.held.iter_mut().flatten().all(|shard| shard.journal.take().len() == 1));
    }

    #[test]
    fn swapdb_exchanges_keys_and_touches_watchers_on_both_sides() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"SET", b"a", b"1"]);
        bare.call(&mut client, &[b"SET", b"dead", b"1", b"PX", b"1"]);
        bare.now.0 += 5;
        let (leaves, comes) =
            (watch(&mut bare, DbIndex(0), b"a"), watch(&mut bare, DbIndex(2), b"a"));
        let dead = watch(&mut bare, DbIndex(2), b"dead");
        assert_eq!(bare.call(&mut client, &[b"SWAPDB", b"0", b"2"]), b"+OK\r\n");
        assert_eq!(bare.call(&mut client, &[b"EXISTS", b"a"]), b":0\r\n");
        client.db = DbIndex(2);
        assert_eq!(bare.call(&mut client, &[b"EXISTS", b"a"]), b":1\r\n");
        let flags = [leaves, comes, dead].map(|flag| flag.load(Ordering::Acquire));
        assert_eq!(flags, [true, true, false]);
    }
}
