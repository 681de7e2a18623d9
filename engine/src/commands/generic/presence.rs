//! Whether keys are there, and deleting them: DEL, UNLINK, EXISTS, TOUCH, TYPE.
//!
//! A call with thousands of keys would hold its shards for long, so the first four come in two
//! forms: a data handler that is atomic, and a sliced one of the same meaning for a session that is
//! not in a transaction ([`sliced_variant`]).

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::generic::shard_if_held;
use crate::commands::spec::{
    Access as KeyAccess, Acl, Arg, Arity, CommandResult, CommandSpec, Family, Flags, Handler,
    KeySpec, Merge, Propagate, Purpose, Route, SliceState, SliceStep,
};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::slots::hash::slot_of;
use crate::slots::owner::Access;

pub(super) const DEL: CommandSpec = CommandSpec {
    name: "del",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Deletes keys",
    complexity: "O(N) with N keys; the memory of large values is returned afterwards, in slices",
    arity: Arity::AtLeast(2),
    flags: Flags::WRITE,
    acl: Acl::KEYSPACE,
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    keys: &[KeySpec::range(KeyAccess::Remove, Purpose::Delete, 1, -1, 1)],
    args: &[Arg::key("key", 0).multiple()],
    route: Route::SplitKeys,
    merge: Merge::Sum,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(del),
    ..CommandSpec::EMPTY
};

pub(super) const EXISTS: CommandSpec = CommandSpec {
    name: "exists",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Counts which of the given keys exist",
    complexity: "O(N) with N keys",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    keys: &[KeySpec::range(KeyAccess::Read, Purpose::None, 1, -1, 1)],
    args: &[Arg::key("key", 0).multiple()],
    history: &[("3.0.3", "Takes more than one key.")],
    route: Route::SplitKeys,
    merge: Merge::Sum,
    handler: Handler::Data(exists),
    ..CommandSpec::EMPTY
};

pub(super) const TOUCH: CommandSpec = CommandSpec {
    name: "touch",
    family: Family::Generic,
    since: "3.2.1",
    summary: "Marks keys as accessed now and counts those that exist",
    complexity: "O(N) with N keys",
    arity: Arity::AtLeast(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    keys: &[KeySpec::range(KeyAccess::Read, Purpose::None, 1, -1, 1)],
    args: &[Arg::key("key", 0).multiple()],
    route: Route::SplitKeys,
    merge: Merge::Sum,
    handler: Handler::Data(touch),
    ..CommandSpec::EMPTY
};

pub(super) const TYPE: CommandSpec = CommandSpec {
    name: "type",
    family: Family::Generic,
    since: "1.0.0",
    summary: "Tells what type of value a key holds",
    complexity: "O(1)",
    arity: Arity::Exact(2),
    flags: Flags::READONLY.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    keys: &[KeySpec::range(KeyAccess::Read, Purpose::None, 1, 0, 1)],
    args: &[Arg::key("key", 0)],
    handler: Handler::Data(type_name),
    ..CommandSpec::EMPTY
};

pub(super) const UNLINK: CommandSpec = CommandSpec {
    name: "unlink",
    family: Family::Generic,
    since: "4.0.0",
    summary: "Deletes keys and returns their memory in the background",
    complexity: "O(N) with N keys, whatever they hold",
    arity: Arity::AtLeast(2),
    flags: Flags::WRITE.union(Flags::FAST),
    acl: Acl::KEYSPACE,
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    keys: &[KeySpec::range(KeyAccess::Remove, Purpose::Delete, 1, -1, 1)],
    args: &[Arg::key("key", 0).multiple()],
    route: Route::SplitKeys,
    merge: Merge::Sum,
    propagate: Propagate::Rewritten,
    handler: Handler::Data(unlink),
    ..CommandSpec::EMPTY
};

/// What one of these commands does to one key: whether the key counts.
type OneKey = fn(&mut Ctx<'_>, KeyRef<'_>) -> bool;

fn for_each(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    one: OneKey,
) -> CommandResult {
    let mut total = 0;
    for word in args.iter_from(1) {
        let key = ctx.key(word);
        total += usize::from(one(ctx, key));
    }
    reply.count(total);
    Ok(())
}

fn del(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    for_each(ctx, args, reply, del_one)
}

fn unlink(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    for_each(ctx, args, reply, unlink_one)
}

fn exists(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    for_each(ctx, args, reply, exists_one)
}

fn touch(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    for_each(ctx, args, reply, touch_one)
}

fn del_one(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> bool {
    remove(ctx, key, b"DEL")
}

fn unlink_one(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> bool {
    remove(ctx, key, b"UNLINK")
}

fn exists_one(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> bool {
    ctx.peek(key, true).is_some()
}

fn touch_one(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> bool {
    ctx.read(key).is_some()
}

fn remove(ctx: &mut Ctx<'_>, key: KeyRef<'_>, effect: &[u8]) -> bool {
    let was_there = ctx.delete(key);
    if was_there {
        ctx.modified(key, Event::Generic("del"));
        ctx.effect(key, &[effect, key.bytes]);
    }
    was_there
}

fn type_name(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    reply.simple(ctx.peek(key, true).map_or("none", |entry| entry.value().type_name()));
    Ok(())
}

/// A step of a sliced command: see [`Handler::Sliced`].
pub type SlicedHandler =
    fn(&mut Ctx<'_>, &Args<'_>, &mut SliceState) -> Result<SliceStep, CommandError>;

/// Calls with more words than this are better run in slices.
const ATOMIC_WORDS_MAX: usize = 512;

/// The sliced form of a call that is too long to run at once; `None` if it is not, or has none.
///
/// A session that is in no transaction runs it as it runs any sliced command: with the shard of
/// `SliceState::slot_index` held (more shards do no harm), until a step says it is done.
pub fn sliced_variant(command_name: &str, args: &Args<'_>) -> Option<SlicedHandler> {
    if args.len() <= ATOMIC_WORDS_MAX {
        return None;
    }
    match command_name {
        "del" => Some(del_slice),
        "unlink" => Some(unlink_slice),
        "exists" => Some(exists_slice),
        "touch" => Some(touch_slice),
        _ => None,
    }
}

/// One slice of DEL.
fn del_slice(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    slice(ctx, args, state, del_one)
}

/// One slice of UNLINK.
fn unlink_slice(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    slice(ctx, args, state, unlink_one)
}

/// One slice of EXISTS.
fn exists_slice(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    slice(ctx, args, state, exists_one)
}

/// One slice of TOUCH.
fn touch_slice(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    slice(ctx, args, state, touch_one)
}

/// Most keys that one slice works on, and most words that it looks at to find them.
const KEYS_PER_SLICE: usize = 256;
const WORDS_PER_SLICE: usize = 2048;

/// Looks whether all keys are served here, some in each slice: nothing is done if one is not.
fn check_slice(
    ctx: &Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
) -> Result<SliceStep, CommandError> {
    let from = (state.cursor as usize).max(1);
    let to = args.len().min(from + WORDS_PER_SLICE);
    for index in from..to {
        let slot = slot_of(args.at(index));
        if ctx.node.owners.home(slot).access() == Access::Refused {
            return Err(ctx.node.refusal(slot));
        }
    }
    state.cursor = to as u64;
    if to == args.len() {
        state.elements.resize(args.len(), 0);
        state.cursor = 1;
        state.slot_index = slot_of(args.at(1)).index();
    }
    Ok(SliceStep::More)
}

/// Works on keys whose shard is held, in order, and asks for the shard of the first that is left.
///
/// `elements` marks the words that are done, because slots may move between shards meanwhile;
/// `cursor` is the first word that may not be. A key of a slot that is being handed over waits for
/// that; one of a slot that has left since the call began ends it, and what was done stays done.
fn slice(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    state: &mut SliceState,
    one: OneKey,
) -> Result<SliceStep, CommandError> {
    if state.elements.is_empty() {
        return check_slice(ctx, args, state);
    }
    let from = state.cursor as usize;
    let mut key_count = 0;
    for index in (from..args.len()).take(WORDS_PER_SLICE) {
        if state.elements[index] != 0 {
            continue;
        }
        let key = KeyRef::new(args.at(index));
        if shard_if_held(ctx, key.slot).is_none() {
            continue;
        }
        match ctx.node.owners.home(key.slot).access() {
            Access::Open => {}
            Access::Frozen => continue,
            Access::Refused => return Err(ctx.node.refusal(key.slot)),
        }
        state.elements[index] = 1;
        state.total += u64::from(one(ctx, key));
        key_count += 1;
        if key_count == KEYS_PER_SLICE {
            break;
        }
    }
    let done = state.elements[from..].iter().take_while(|&&mark| mark != 0).count();
    state.cursor += done as u64;
    match args.get(from + done) {
        Some(word) => {
            state.slot_index = slot_of(word).index();
            Ok(SliceStep::More)
        }
        None => Ok(SliceStep::DoneInteger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::commands::ctx::Shards;
    use crate::commands::dispatch;
    use crate::commands::table::table;
    use crate::units::{CoreId, DbIndex};

    #[test]
    fn del_of_some_missing_keys_counts_those_that_were_there() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"MSET", b"a", b"1", b"b", b"2"]);
        assert_eq!(bare.call(&mut client, &[b"EXISTS", b"a", b"a", b"b", b"x"]), b":3\r\n");
        assert_eq!(bare.call(&mut client, &[b"TOUCH", b"a", b"b", b"x"]), b":2\r\n");
        assert_eq!(bare.call(&mut client, &[b"TYPE", b"a"]), b"+string\r\n");
        assert_eq!(bare.call(&mut client, &[b"TYPE", b"x"]), b"+none\r\n");
        assert_eq!(bare.call(&mut client, &[b"DEL", b"a", b"x", b"a"]), b":1\r\n");
        assert_eq!(bare.call(&mut client, &[b"UNLINK", b"b"]), b":1\r\n");
        assert!(bare.is_empty(DbIndex(0)));
    }

    #[test]
    fn del_of_keys_on_two_shards_emits_one_effect_per_key() {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        bare.call(&mut client, &[b"MSET", b"a", b"1", b"b", b"2"]);
        bare.held.iter_mut().flatten().for_each(|shard| shard.journal.attach());
        bare.call(&mut client, &[b"DEL", b"a", b"b", b"x"]);
        let records: Vec<_> =
            bare.held.iter_mut().flatten().flat_map(|shard| shard.journal.take()).collect();
        let mut calls: Vec<_> = records.iter().map(|record| record.call.clone()).collect();
        calls.sort_by(|a, b| a.args().at(1).cmp(b.args().at(1)));
        assert_eq!(calls, [OwnedArgs::of(&[b"DEL", b"a"]), OwnedArgs::of(&[b"DEL", b"b"])]);
        assert_eq!(records[0].unit, records[1].unit);
    }

    #[test]
    fn slices_with_one_shard_held_at_a_time_delete_every_key_once() {
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        let keys: Vec<Vec<u8>> = (0..3000).map(|n| format!("key:{n}").into_bytes()).collect();
        for key in &keys {
            bare.call(&mut client, &[b"SET", key, b"v"]);
        }
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        words.extend(keys.iter().map(Vec::as_slice));
        words.push(b"key:7");
        let call = OwnedArgs::of(&words);
        let step = sliced_variant("del", &call.args()).expect("the call is long");
        let command = table().get(b"del").expect("the table has DEL");
        let mut state = SliceState::default();
        let mut slices = 0;
        loop {
            let shard = dispatch::slice_shard(bare.node, &state);
            let held = bare.held[shard.index()].as_deref_mut().expect("all doors are held");
            let mut ctx = dispatch::ctx(
                bare.node,
                CoreId(0),
                Shards::One(held),
                &mut bare.clock,
                bare.now,
                DbIndex(0),
                command,
            );
            slices += 1;
            if step(&mut ctx, &call.args(), &mut state) == Ok(SliceStep::DoneInteger) {
                break;
            }
        }
        assert_eq!(state.total, 3000);
        assert!((12..60).contains(&slices), "{slices} slices");
        assert!(bare.is_empty(DbIndex(0)));
        assert!(sliced_variant("del", &OwnedArgs::of(&[b"DEL", b"a"]).args()).is_none());
    }
}
