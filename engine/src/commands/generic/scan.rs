//! Walking over keys: KEYS, SCAN, RANDOMKEY.
//!
//! KEYS and SCAN go slot by slot and, within a slot, along the positions of its table; each slice
//! holds one shard and looks at a bounded number of entries. A key that is there from the first
//! slice (or call) to the last is seen: positions only move forward, and a slot that moves to
//! another shard meanwhile takes its table along.

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::generic::{parse_cursor, push_bulk, push_header, shard_if_held};
use crate::commands::glob::{self, Case};
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Route,
    SliceState, SliceStep,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::store::entry::EntryRef;
use crate::store::table::Position;
use crate::units::{DbIndex, Ms, SLOT_COUNT, SlotId};

pub(super) const KEYS: CommandSpec = CommandSpec {
    name: "keys",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Lists all keys that match a pattern",
    complexity: "O(N) with N keys in the database",
    arity: Arity::Exact(2),
    flags: Flags::READONLY,
    acl: Acl::DANGEROUS.union(Acl::KEYSPACE),
    tips: &["request_policy:all_shards", "nondeterministic_output_order"],
    args: &[Arg::new("pattern", ArgKind::Pattern)],
    route: Route::AllSlots,
    merge: Merge::Concat,
    handler: Handler::Sliced(keys),
    ..CommandSpec::EMPTY
};

pub(super) const RANDOMKEY: CommandSpec = CommandSpec {
    name: "randomkey",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Names any one key of the database",
    complexity: "O(1)",
    arity: Arity::Exact(1),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    tips: &["request_policy:all_shards", "nondeterministic_output"],
    route: Route::AllSlots,
    handler: Handler::Data(randomkey),
    ..CommandSpec::EMPTY
};

pub(super) const SCAN: CommandSpec = CommandSpec {
    name: "scan",
    family: Family::Generic,
    since: "2.8.0",
    summary: "Lists some keys and a cursor at which the next call goes on",
    complexity: "O(1) for a call, O(N) for all calls until the cursor is 0 again, with N keys",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY,
    acl: Acl::KEYSPACE,
    tips: &["nondeterministic_output", "request_policy:special"],
    args: &[
        Arg::new("cursor", ArgKind::Integer),
        Arg::new("pattern", ArgKind::Pattern).with_token("MATCH").optional(),
        Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
        Arg::new("type", ArgKind::String).with_token("TYPE").optional().since("6.0.0"),
    ],
    history: &[("6.0.0", "Takes `TYPE`.")],
    route: Route::AllSlots,
    handler: Handler::Sliced(scan),
    ..CommandSpec::EMPTY
};

/// Entries that one slice looks at.
const ENTRIES_PER_SLICE: u64 = 1000;

/// Which keys are wanted.
struct Filter<'a> {
    /// `None` for all.
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    fn new(pattern: &'a [u8]) -> Self {
        Self { pattern: (pattern != b"*").then_some(pattern), type_name: None }
    }

    fn wants(&self, entry: EntryRef<'_>) -> bool {
        self.pattern.is_none_or(|p| glob::matches(p, entry.key(), Case::Sensitive))
            && self
                .type_name
                .is_none_or(|t| t.eq_ignore_ascii_case(entry.value().type_name().as_bytes()))
    }
}

/// How a stretch of a walk ended.
#[derive(PartialEq, Eq)]
enum Stretch {
    /// Enough entries have been seen.
    Enough,
    /// `SliceState::slot_index` is on a shard that is not held.
    Elsewhere,
    /// There are no more slots.
    End,
}

/// Walks on from `state.slot_index` and `state.cursor` over slots whose shards are held, until
/// about `count` entries have been seen. Keys that are wanted and alive go to `state.elements`,
/// keys that have expired to `dead`. Returns how many entries were seen.
fn walk(
    ctx: &mut Ctx<'_>,
    state: &mut SliceState,
    filter: &Filter<'_>,
    count: u64,
    dead: &mut Vec<Box<[u8]>>,
) -> (u64, Stretch) {
    let (db, now) = (ctx.db, ctx.now);
    let mut seen = 0;
    while let Some(slot) = SlotId::new(state.slot_index as u64) {
        let Some(shard) = shard_if_held(ctx, slot) else {
            return (seen, Stretch::Elsewhere);
        };
        let table = shard.keys.db(db).map(|dbase| dbase.table(slot)).filter(|t| !t.is_empty());
        let next = table.and_then(|table| {
            if seen >= count {
                // Empty slots that follow are skipped; this one is for the next stretch.
                return Some(Position(state.cursor));
            }
            table.scan(Position(state.cursor), (count - seen) as usize, |entry| {
                seen += 1;
                visit(entry, now, state, filter, dead);
            })
        });
        match next {
            Some(position) => {
                state.cursor = position.0;
                return (seen, Stretch::Enough);
            }
            None => {
                state.cursor = 0;
                state.slot_index += 1;
            }
        }
    }
    (seen, Stretch::End)
}

fn visit(
    entry: EntryRef<'_>,
    now: Ms,
    state: &mut SliceState,
    filter: &Filter<'_>,
    dead: &mut Vec<Box<[u8]>>,
) {
    if entry.is_expired(now) {
        dead.push(entry.key().into());
    } else if filter.wants(entry) {
        push_bulk(&mut state.elements, entry.key());
        state.element_count += 1;
    }
}

/// One slice of KEYS. Redis: expired keys are left out, not deleted.
fn keys(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    let filter = Filter::new(args.at(1));
    let (_, stretch) = walk(ctx, state, &filter, ENTRIES_PER_SLICE, &mut Vec::new());
    Ok(if stretch == Stretch::End { SliceStep::DoneArray } else { SliceStep::More })
}

/// A parsed SCAN.
struct ScanCall<'a> {
    cursor: u64,
    count: u64,
    filter: Filter<'a>,
}

/// Entries that SCAN looks at if the call does not say how many.
const SCAN_COUNT: u64 = 10;

impl<'a> ScanCall<'a> {
    fn parse(args: &Args<'a>) -> Result<Self, CommandError> {
        let mut call = Self {
            cursor: parse_cursor(args.at(1))?,
            count: SCAN_COUNT,
            filter: Filter::new(b"*"),
        };
        let mut words = args.cursor(2);
        while words.left() > 0 {
            if let Some(word) = words.take_value("COUNT") {
                let count =
                    crate::resp::number::parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
                if count < 1 {
                    return Err(CommandError::SYNTAX);
                }
                call.count = count as u64;
            } else if let Some(pattern) = words.take_value("MATCH") {
                call.filter.pattern = Filter::new(pattern).pattern;
            } else if let Some(name) = words.take_value("TYPE") {
                call.filter.type_name = Some(name);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(call)
    }
}

/// One slice of SCAN. `state.total` is the number of entries seen, plus one once it has begun.
///
/// Redis: expired keys that come by are deleted.
fn scan(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    let call = ScanCall::parse(args)?;
    if state.total == 0 {
        state.total = 1;
        state.slot_index = (call.cursor >> Position::BITS) as usize;
        state.cursor = call.cursor & ((1 << Position::BITS) - 1);
    }
    let left = call.count - (state.total - 1).min(call.count);
    let mut dead = Vec::new();
    let (seen, stretch) = walk(ctx, state, &call.filter, left.min(ENTRIES_PER_SLICE), &mut dead);
    state.total += seen;
    delete_expired(ctx, ctx.db, &dead);
    let is_done = stretch == Stretch::End || state.total > call.count;
    if !is_done {
        return Ok(SliceStep::More);
    }
    finish_scan(state);
    Ok(SliceStep::DoneArray)
}

/// Puts the cursor and the length of the list in front of the keys.
fn finish_scan(state: &mut SliceState) {
    let cursor = if state.slot_index < SLOT_COUNT {
        (state.slot_index as u64) << Position::BITS | state.cursor
    } else {
        0
    };
    let keys = std::mem::take(&mut state.elements);
    state.elements.reserve(keys.len() + 64);
    push_bulk(&mut state.elements, itoa::Buffer::new().format(cursor).as_bytes());
    push_header(&mut state.elements, b'*', state.element_count);
    state.elements.extend_from_slice(&keys);
    state.element_count = 2;
}

fn delete_expired(ctx: &mut Ctx<'_>, db: DbIndex, dead: &[Box<[u8]>]) {
    let now = ctx.now;
    for key in dead {
        let key = KeyRef::new(key);
        let owner = ctx.node.owners.of(key.slot);
        if let Some(shard) = ctx.shards.get(owner)
            && shard.expire_if_due(ctx.clock, db, key, now)
        {
            ctx.stats.expired_keys.add(1);
        }
    }
}

/// How often RANDOMKEY tries again after it has come upon an expired key.
const RANDOM_TRIES: usize = 100;

/// Redis: expired keys that come by are deleted.
fn randomkey(ctx: &mut Ctx<'_>, _args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (db, now) = (ctx.db, ctx.now);
    let mut name: Option<Box<[u8]>> = None;
    for _ in 0..RANDOM_TRIES {
        let Some((key, expired)) = any_key(ctx, db, now) else {
            reply.null();
            return Ok(());
        };
        let key = name.insert(key);
        if !expired {
            break;
        }
        let key = key.clone();
        delete_expired(ctx, db, &[key]);
    }
    // After so many expired keys the last one will do: it was there a moment ago.
    match name {
        Some(key) => reply.bulk(&key),
        None => reply.null(),
    }
    Ok(())
}

/// A random key, each about as likely as any other, and whether it has expired.
///
/// # Complexity
/// O(slots): one sweep over the sizes of the tables.
fn any_key(ctx: &mut Ctx<'_>, db: DbIndex, now: Ms) -> Option<(Box<[u8]>, bool)> {
    let (mut random, mut total) = (0, 0);
    ctx.shards.each(|shard| {
        random ^= shard.random();
        total += shard.keys.db(db).map_or(0, |dbase| dbase.len());
    });
    let mut rank = (random as usize).checked_rem(total)?;
    let mut found = None;
    ctx.shards.each(|shard| {
        let random = shard.random();
        let Some(dbase) = shard.keys.db(db).filter(|_| found.is_none()) else {
            return;
        };
        if rank >= dbase.len() {
            rank -= dbase.len();
            return;
        }
        for table in SlotId::all().map(|slot| dbase.table(slot)) {
            if rank < table.len() {
                let take = |entry: EntryRef<'_>| {
                    found = Some((entry.key().into(), entry.is_expired(now)));
                };
                table.sample(random, 1, take);
                return;
            }
            rank -= table.len();
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::commands::ctx::Shards;
    use crate::commands::dispatch;
    use crate::commands::table::table;
    use crate::net::client::ClientState;
    use crate::units::CoreId;

    fn filled(shards: usize, keys: usize) -> (Bare, ClientState) {
        let mut bare = Bare::new(shards, 1);
        let mut client = bare.client();
        for n in 0..keys {
            bare.call(&mut client, &[b"SET", format!("key:{n}").as_bytes(), b"v"]);
        }
        (bare, client)
    }

    /// The bulk strings of a reply, in order.
    fn bulks(reply: &[u8]) -> Vec<String> {
        let text = String::from_utf8(reply.to_vec()).expect("keys here are ASCII");
        let mut lines = text.split("\r\n");
        let mut bulks = Vec::new();
        while let Some(line) = lines.next() {
            if line.starts_with('$') {
                bulks.push(lines.next().expect("a length is followed by its bytes").to_owned());
            }
        }
        bulks
    }

    fn scan_all(bare: &mut Bare, client: &mut ClientState, options: &[&[u8]]) -> Vec<String> {
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let call = [&[&b"SCAN"[..], cursor.as_bytes()][..], options].concat();
            let mut reply = bulks(&bare.call(client, &call));
            let rest = reply.split_off(1);
            cursor = reply.remove(0);
            keys.extend(rest);
            if cursor == "0" {
                return keys;
            }
        }
    }

    #[test]
    fn scan_until_the_cursor_is_zero_gives_each_key_once() {
        let (mut bare, mut client) = filled(3, 3000);
        for count in [&b"1"[..], b"7", b"1000", b"9223372036854775807"] {
            let keys = scan_all(&mut bare, &mut client, &[b"COUNT", count]);
            assert_eq!(keys.len(), 3000);
            assert_eq!(keys.into_iter().collect::<HashSet<_>>().len(), 3000);
        }
        let some = scan_all(&mut bare, &mut client, &[b"match", b"key:1?", b"type", b"STRING"]);
        assert_eq!(some.len(), 10);
        assert!(scan_all(&mut bare, &mut client, &[b"TYPE", b"hash"]).is_empty());
    }

    #[test]
    fn scan_sees_every_lasting_key_while_others_come_and_go() {
        let (mut bare, mut client) = filled(2, 500);
        let (mut cursor, mut seen, mut churn) = ("0".to_owned(), HashSet::new(), 0);
        loop {
            let reply = bulks(&bare.call(&mut client, &[b"SCAN", cursor.as_bytes()]));
            cursor.clone_from(&reply[0]);
            seen.extend(reply[1..].iter().cloned());
            for _ in 0..50 {
                bare.call(&mut client, &[b"SET", format!("churn:{churn}").as_bytes(), b"v"]);
                bare.call(&mut client, &[b"DEL", format!("churn:{}", churn / 2).as_bytes()]);
                churn += 1;
            }
            if cursor == "0" {
                break;
            }
        }
        assert!((0..500).all(|n| seen.contains(&format!("key:{n}"))));
    }

    #[test]
    fn scan_with_a_cursor_it_never_gave_ends() {
        let (mut bare, mut client) = filled(2, 20);
        let end = b"*2\r\n$1\r\n0\r\n*0\r\n";
        assert_eq!(bare.call(&mut client, &[b"SCAN", b"-1"]), end);
        assert_eq!(bare.call(&mut client, &[b"SCAN", b"288230376151711744"]), end);
        let last = bare.call(&mut client, &[b"SCAN", b"288230376151711743"]);
        assert!(last.starts_with(b"*2\r\n$1\r\n0\r\n"));
    }

    #[test]
    fn scan_deletes_expired_keys_and_keys_hides_them() {
        let (mut bare, mut client) = filled(2, 20);
        bare.call(&mut client, &[b"PEXPIRE", b"key:3", b"1"]);
        bare.now.0 += 2;
        assert_eq!(bulks(&bare.call(&mut client, &[b"KEYS", b"*"])).len(), 19);
        assert_eq!(bare.len(DbIndex(0)), 20);
        assert_eq!(scan_all(&mut bare, &mut client, &[]).len(), 19);
        assert_eq!(bare.len(DbIndex(0)), 19);
    }

    #[test]
    fn keys_in_slices_with_one_shard_held_gives_each_key_once() {
        let (mut bare, _) = filled(3, 5000);
        let call = OwnedArgs::of(&[b"KEYS", b"key:*"]);
        let command = table().get(b"keys").expect("the table has KEYS");
        let mut state = SliceState::default();
        let mut slices = 0;
        loop {
            let shard = dispatch::slice_shard(bare.node, &state);
            let held = bare.held[shard.index()].as_deref_mut().expect("all doors are held");
            let shards = Shards::One(held);
            let (node, clock) = (bare.node, &mut bare.clock);
            let mut ctx =
                dispatch::ctx(node, CoreId(0), shards, clock, bare.now, DbIndex(0), command);
            slices += 1;
            if keys(&mut ctx, &call.args(), &mut state) == Ok(SliceStep::DoneArray) {
                break;
            }
        }
        assert_eq!((state.element_count, bulks(&state.elements).len()), (5000, 5000));
        assert!((5..=12).contains(&slices), "{slices} slices");
    }

    #[test]
    fn randomkey_reaches_every_key_and_skips_expired_ones() {
        let (mut bare, mut client) = filled(3, 12);
        let mut seen = HashSet::new();
        for _ in 0..500 {
            seen.extend(bulks(&bare.call(&mut client, &[b"RANDOMKEY"])));
        }
        assert_eq!(seen.len(), 12);
        for n in 0..12 {
            let key = format!("key:{n}");
            bare.call(&mut client, &[b"PEXPIRE", key.as_bytes(), b"1"]);
        }
        bare.now.0 += 5;
        assert_eq!(bare.call(&mut client, &[b"RANDOMKEY"]), b"$-1\r\n");
        assert!(bare.is_empty(DbIndex(0)));
    }
}
