//! The slots family: Codis' commands that look at slots. Its migration commands are not here.
//!
//! Replies and errors are the original's. Slots hold their own tables, so counting and deleting a
//! slot never looks at another key, and there is no second index that could disagree.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::Ctx;
use crate::commands::generic::{parse_cursor, push_bulk, push_header, shard_if_held};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::{
    Acl, Arg, ArgKind, Arity, CommandResult, CommandSpec, Family, Flags, Handler, Merge, Propagate,
    Route, SliceState, SliceStep,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::{KeyRef, Shard};
use crate::slots::hash::slot_of;
use crate::slots::owner::Access;
use crate::store::table::{Position, Table};
use crate::units::{DbIndex, SLOT_COUNT, SlotId};

/// The family's commands.
pub const SPECS: &[CommandSpec] = &[
    CommandSpec {
        name: "slotscheck",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Checks that keys are in the slots they belong to",
        complexity: "O(N) with N keys in the database",
        arity: Arity::AtLeast(1),
        flags: Flags::READONLY,
        acl: Acl::KEYSPACE,
        args: &[Arg::new("ignored", ArgKind::String).optional().multiple()],
        route: Route::AllSlots,
        merge: Merge::AllOk,
        handler: Handler::Sliced(slotscheck),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotsdel",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Deletes all keys of slots",
        complexity: "O(S) with S slots; the memory of their keys is returned afterwards, in slices",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE,
        acl: Acl::KEYSPACE.union(Acl::DANGEROUS),
        args: &[Arg::new("slot", ArgKind::Integer).multiple()],
        route: Route::AllSlots,
        merge: Merge::Concat,
        propagate: Propagate::Rewritten,
        handler: Handler::Sliced(slotsdel),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotshashkey",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Tells the slot of each key",
        complexity: "O(N) with N keys",
        arity: Arity::AtLeast(1),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::KEYSPACE,
        args: &[Arg::new("key", ArgKind::String).optional().multiple()],
        route: Route::Session,
        handler: Handler::Session(slotshashkey),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotsinfo",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Counts the keys of each slot that has some",
        complexity: "O(S) with S slots",
        arity: Arity::AtLeast(1),
        flags: Flags::READONLY.union(Flags::FAST),
        acl: Acl::KEYSPACE,
        args: &[Arg::block(
            "range",
            &[Arg::new("start", ArgKind::Integer), Arg::new("count", ArgKind::Integer).optional()],
        )
        .optional()],
        route: Route::AllSlots,
        merge: Merge::Concat,
        handler: Handler::Data(slotsinfo),
        ..CommandSpec::EMPTY
    },
    CommandSpec {
        name: "slotsscan",
        family: Family::Slots,
        since: "codis 3.2",
        summary: "Lists some keys of a slot and a cursor at which the next call goes on",
        complexity: "O(1) for a call, O(N) for all calls until the cursor is 0 again, with N keys",
        arity: Arity::AtLeast(3),
        flags: Flags::READONLY,
        acl: Acl::KEYSPACE,
        tips: &["nondeterministic_output"],
        args: &[
            Arg::new("slot", ArgKind::Integer),
            Arg::new("cursor", ArgKind::Integer),
            Arg::new("count", ArgKind::Integer).with_token("COUNT").optional(),
        ],
        route: Route::AllSlots,
        handler: Handler::Sliced(slotsscan),
        ..CommandSpec::EMPTY
    },
];

pub(super) fn parse_int32(args: &Args<'_>, index: usize) -> Result<i32, CommandError> {
    i32::try_from(args.int(index)?).map_err(|_| CommandError::OUT_OF_RANGE)
}

pub(super) fn parse_slot(args: &Args<'_>, index: usize) -> Result<SlotId, CommandError> {
    let n = parse_int32(args, index)?;
    let slot = u64::try_from(n).ok().and_then(SlotId::new);
    slot.ok_or_else(|| CommandError::invalid_slot(n))
}

fn slotshashkey(
    _ctx: &mut SessionCtx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.array(args.len() - 1);
    for key in args.iter_from(1) {
        reply.count(slot_of(key).index());
    }
    Ok(())
}

fn slotsinfo(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let slots = parse_slot_range(ctx, args)?;
    let db = ctx.db;
    let sizes: Vec<(usize, usize)> = slots
        .filter_map(|index| {
            let slot = SlotId::new(index as u64)?;
            let shard = shard_if_held(ctx, slot)?;
            let len = shard.keys.db(db)?.table(slot).len();
            (len > 0).then_some((index, len))
        })
        .collect();
    reply.array(sizes.len());
    for (index, len) in sizes {
        reply.array(2);
        reply.count(index);
        reply.count(len);
    }
    Ok(())
}

/// Codis: the numbers are checked before their number.
fn parse_slot_range(
    ctx: &Ctx<'_>,
    args: &Args<'_>,
) -> Result<std::ops::Range<usize>, CommandError> {
    let start = if args.len() > 1 { parse_slot(args, 1)?.index() } else { 0 };
    let mut end = SLOT_COUNT;
    if args.len() > 2 {
        let n = parse_int32(args, 2)?;
        let count = usize::try_from(n).map_err(|_| CommandError::invalid_slot_count(n))?;
        end = end.min(start + count);
    }
    if args.len() > 3 {
        return Err(CommandError::wrong_arity(ctx.spec.name));
    }
    Ok(start..end)
}

/// Keys of one call to SLOTSSCAN if the call does not say how many.
const SCAN_COUNT: u64 = 10;
/// Entries that one slice looks at.
const ENTRIES_PER_SLICE: u64 = 1000;

/// One slice of SLOTSSCAN. `state.total` is the number of entries seen, plus one once it has begun.
fn slotsscan(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    let (slot, cursor, count) = parse_slotsscan(ctx, args)?;
    if ctx.node.owners.home(slot).access() == Access::Refused {
        // An empty page would hide the keys, which another server has; the slot may also have left
        // since the last slice.
        return Err(ctx.node.refusal(slot));
    }
    if state.total == 0 {
        state.total = 1;
        state.slot_index = slot.index();
        state.cursor = cursor & ((1 << Position::BITS) - 1);
    }
    let (db, now) = (ctx.db, ctx.now);
    let Some(shard) = shard_if_held(ctx, slot) else {
        return Ok(SliceStep::More);
    };
    let budget = (count + 1 - state.total).min(ENTRIES_PER_SLICE);
    let (elements, mut seen, mut found) = (&mut state.elements, 0, 0);
    let next = shard.keys.db(db).and_then(|dbase| {
        dbase.table(slot).scan(Position(state.cursor), budget as usize, |entry| {
            seen += 1;
            if !entry.is_expired(now) {
                push_bulk(elements, entry.key());
                found += 1;
            }
        })
    });
    state.total += seen;
    state.element_count += found;
    state.cursor = next.map_or(0, |position| position.0);
    if next.is_some() && state.total <= count {
        return Ok(SliceStep::More);
    }
    let keys = std::mem::take(&mut state.elements);
    push_bulk(&mut state.elements, itoa::Buffer::new().format(state.cursor).as_bytes());
    push_header(&mut state.elements, b'*', state.element_count);
    state.elements.extend_from_slice(&keys);
    state.element_count = 2;
    Ok(SliceStep::DoneArray)
}

/// Slot, cursor and count. Codis: slot and cursor are checked before the number of words.
fn parse_slotsscan(ctx: &Ctx<'_>, args: &Args<'_>) -> Result<(SlotId, u64, u64), CommandError> {
    let slot = parse_slot(args, 1)?;
    let cursor = parse_cursor(args.at(2))?;
    let count = match args.len() {
        3 => SCAN_COUNT,
        5 if !is_token(args.at(3), "COUNT") => return Err(CommandError::SYNTAX),
        5 => match parse_int32(args, 4)? {
            n if n < 1 => return Err(CommandError::SYNTAX),
            n => n as u64,
        },
        _ => return Err(CommandError::wrong_arity(ctx.spec.name)),
    };
    Ok((slot, cursor, count))
}

/// Slots that one slice of SLOTSDEL deletes.
const DELETED_PER_SLICE: usize = 64;

/// One slice of SLOTSDEL. `state.cursor` is the number of slots that are done.
fn slotsdel(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    if state.cursor == 0 {
        // Nothing is deleted if any of the numbers is wrong.
        (1..args.len()).try_for_each(|index| parse_slot(args, index).map(drop))?;
    }
    let mut deleted = 0;
    while (state.cursor as usize) < args.len() - 1 {
        let slot = parse_slot(args, state.cursor as usize + 1)?;
        state.slot_index = slot.index();
        if deleted >= DELETED_PER_SLICE || shard_if_held(ctx, slot).is_none() {
            return Ok(SliceStep::More);
        }
        delete_slot(ctx, slot);
        deleted += 1;
        push_header(&mut state.elements, b'*', 2);
        push_header(&mut state.elements, b':', slot.index() as u64);
        push_header(&mut state.elements, b':', 0);
        state.element_count += 1;
        state.cursor += 1;
    }
    Ok(SliceStep::DoneArray)
}

/// Takes all keys of a slot of the selected database out. The effect concerns the whole slot: one per
/// key would cost as much as deleting them one by one.
fn delete_slot(ctx: &mut Ctx<'_>, slot: SlotId) {
    let (db, owner) = (ctx.db, ctx.node.owners.of(slot));
    let Some(shard) = ctx.shards.get(owner) else {
        return;
    };
    let len = shard.keys.db(db).map_or(0, |dbase| dbase.table(slot).len());
    if len == 0 {
        return;
    }
    touch_watchers(shard, db, slot);
    if let Some(part) = shard.take_slot(db, slot) {
        shard.free.table(part.table);
    }
    let mut text = itoa::Buffer::new();
    let words = [&b"SLOTSDEL"[..], text.format(slot.index()).as_bytes()];
    shard.journal.emit(ctx.clock, Some(slot), db, words.into_iter());
    ctx.effect_count += 1;
    ctx.dirty += len as u64;
}

fn touch_watchers(shard: &mut Shard, db: DbIndex, slot: SlotId) {
    let Shard { keys, watches, .. } = shard;
    let Some(dbase) = keys.db(db) else { return };
    if !watches.is_empty() {
        watches.touch_where(db, |key| {
            let key = KeyRef::new(key);
            key.slot == slot && dbase.table(slot).find(key.hash, key.bytes).is_some()
        });
    }
}

/// Keys that one slice of SLOTSCHECK looks up.
const CHECKED_PER_SLICE: usize = 500;

/// One slice of SLOTSCHECK: whether each key of a slot belongs there and can be found. The words of
/// the call are ignored, as in the original. Its other steps compare indexes that do not exist here.
fn slotscheck(
    ctx: &mut Ctx<'_>,
    _args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    let (db, mut left) = (ctx.db, CHECKED_PER_SLICE);
    while let Some(slot) = SlotId::new(state.slot_index as u64) {
        let Some(shard) = shard_if_held(ctx, slot).filter(|_| left > 0) else {
            return Ok(SliceStep::More);
        };
        let table = shard.keys.db(db).map(|dbase| dbase.table(slot));
        match table.and_then(|table| check_keys(table, slot, state, &mut left).transpose()) {
            Some(next) => state.cursor = next?.0,
            None => {
                state.cursor = 0;
                state.slot_index += 1;
            }
        }
    }
    state.elements.extend_from_slice(b"+OK\r\n");
    Ok(SliceStep::DoneEncoded)
}

/// Checks up to `left` keys of a slot; returns where to go on.
fn check_keys(
    table: &Table,
    slot: SlotId,
    state: &SliceState,
    left: &mut usize,
) -> Result<Option<Position>, CommandError> {
    let (mut seen, mut wrong) = (0, None);
    let next = table.scan(Position(state.cursor), *left, |entry| {
        seen += 1;
        let key = KeyRef::new(entry.key());
        if key.slot != slot || table.find(key.hash, key.bytes).is_none() {
            wrong = Some(CommandError::slots_check(1, key.bytes));
        }
    });
    *left = left.saturating_sub(seen);
    wrong.map_or(Ok(next), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;

    fn run(bare: &mut Bare, line: &str) -> String {
        let mut client = bare.client();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8(bare.call(&mut client, &words)).expect("replies here are ASCII")
    }

    #[test]
    fn slotshashkey_of_known_keys_is_what_codis_answers() {
        let mut bare = Bare::new(2, 1);
        assert_eq!(run(&mut bare, "SLOTSHASHKEY"), "*0\r\n");
        let slots = ":579\r\n:0\r\n:680\r\n";
        assert_eq!(run(&mut bare, "SLOTSHASHKEY a {}x {t}"), format!("*3\r\n{slots}"));
    }

    #[test]
    fn slotsinfo_lists_slots_with_keys_within_its_range() {
        let mut bare = Bare::new(3, 1);
        for call in ["SET a 1", "SET x{a} 1", "SET b 1", "SET {}x 1"] {
            run(&mut bare, call);
        }
        let (first, a, b) = ("*2\r\n:0\r\n:1\r\n", "*2\r\n:579\r\n:2\r\n", "*2\r\n:1017\r\n:1\r\n");
        assert_eq!(run(&mut bare, "SLOTSINFO"), format!("*3\r\n{first}{a}{b}"));
        assert_eq!(run(&mut bare, "SLOTSINFO 1"), format!("*2\r\n{a}{b}"));
        assert_eq!(run(&mut bare, "SLOTSINFO 579 438"), format!("*1\r\n{a}"));
        assert_eq!(run(&mut bare, "SLOTSINFO 579 2147483647"), format!("*2\r\n{a}{b}"));
        assert_eq!(run(&mut bare, "SLOTSINFO 0 0"), "*0\r\n");
        let errors = [
            ("SLOTSINFO x", "value is not an integer or out of range"),
            ("SLOTSINFO 2147483648", "value is out of range"),
            ("SLOTSINFO 1024", "invalid slot number = 1024"),
            ("SLOTSINFO -1", "invalid slot number = -1"),
            ("SLOTSINFO 0 -3", "invalid slot count = -3"),
            ("SLOTSINFO 0 1 2", "wrong number of arguments for 'slotsinfo' command"),
        ];
        for (call, text) in errors {
            assert_eq!(run(&mut bare, call), format!("-ERR {text}\r\n"), "{call}");
        }
    }

    #[test]
    fn slotsscan_of_a_slot_that_is_served_elsewhere_is_refused() {
        let mut bare = Bare::new(2, 1);
        run(&mut bare, "SET a 1");
        let slot = slot_of(b"a");
        bare.node.owners.set_access(slot, Access::Refused, false);
        assert!(run(&mut bare, "SLOTSSCAN 579 0").starts_with("-TRYAGAIN slot 579"));
        bare.node.owners.set_access(slot, Access::Frozen, false);
        assert!(run(&mut bare, "SLOTSSCAN 579 0").contains("$1\r\na\r\n"));
        assert!(run(&mut bare, "SLOTSSCAN 580 0").starts_with("*2"));
    }

    #[test]
    fn slotsscan_until_the_cursor_is_zero_gives_every_key_of_the_slot() {
        let mut bare = Bare::new(3, 1);
        for n in 0..2500 {
            run(&mut bare, &format!("SET {{a}}{n} 1"));
        }
        run(&mut bare, "SET b 1");
        for count in [1, 10, 1000, 5000] {
            let (mut cursor, mut keys) = ("0".to_owned(), std::collections::HashSet::new());
            loop {
                let reply = run(&mut bare, &format!("SLOTSSCAN 579 {cursor} COUNT {count}"));
                let lines: Vec<&str> = reply.split("\r\n").collect();
                cursor = lines[2].to_owned();
                keys.extend(
                    lines[3..].iter().filter(|l| l.starts_with('{')).map(|l| l.to_string()),
                );
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(keys.len(), 2500);
        }
        assert_eq!(run(&mut bare, "SLOTSCHECK"), "+OK\r\n");
        let errors = [
            ("SLOTSSCAN 1024 0", "invalid slot number = 1024"),
            ("SLOTSSCAN 0 x", "invalid cursor"),
            ("SLOTSSCAN 0 0 COUNT", "wrong number of arguments for 'slotsscan' command"),
            ("SLOTSSCAN 0 0 COUNT 0", "syntax error"),
            ("SLOTSSCAN 0 0 MATCH 1", "syntax error"),
        ];
        for (call, text) in errors {
            assert_eq!(run(&mut bare, call), format!("-ERR {text}\r\n"), "{call}");
        }
    }

    #[test]
    fn slotsdel_empties_slots_in_order_and_journals_each() {
        let mut bare = Bare::new(3, 1);
        for call in ["SET a 1", "SET x{a} 1 PX 100", "SET b 1", "SET {}x 1"] {
            run(&mut bare, call);
        }
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        assert_eq!(run(&mut bare, "SLOTSDEL 579 1024"), "-ERR invalid slot number = 1024\r\n");
        assert_eq!(bare.len(DbIndex(0)), 4);
        let (a, b, c) = ("*2\r\n:579\r\n:0\r\n", "*2\r\n:0\r\n:0\r\n", "*2\r\n:3\r\n:0\r\n");
        assert_eq!(run(&mut bare, "SLOTSDEL 579 0 579 3"), format!("*4\r\n{a}{b}{a}{c}"));
        assert_eq!(bare.len(DbIndex(0)), 1);
        let records = bare.held.iter_mut().flatten().flat_map(|shard| shard.journal.take());
        let calls: Vec<_> = records.map(|record| record.call).collect();
        let effects = [&b"0"[..], b"579"].map(|slot| OwnedArgs::of(&[b"SLOTSDEL", slot]));
        assert_eq!(calls, effects);
        assert_eq!(run(&mut bare, "SLOTSCHECK any words"), "+OK\r\n");
    }

    #[test]
    fn slotscheck_of_a_key_in_a_foreign_slot_names_it() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SET a 1");
        let shard = bare.held[0].as_mut().expect("all doors are held");
        let slot = |n| SlotId::new(n).expect("there is such a slot");
        let part = shard.take_slot(DbIndex(0), slot(579)).expect("the database is in use");
        shard.put_slot(DbIndex(0), slot(3), part);
        assert_eq!(run(&mut bare, "SLOTSCHECK"), "-ERR step 1, miss = 'a'\r\n");
    }
}
