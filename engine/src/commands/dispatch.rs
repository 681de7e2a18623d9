//! From the words of a call to a reply: look the command up, pass the gates, plan where it runs,
//! run it. Knows no socket: sessions and tests call it alike.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, KeyHint, Later, Shards};
use crate::commands::generic::sliced_variant;
use crate::commands::keys::{FoundKey, find_keys, names_keys};
use crate::commands::long::{Finish, LongOp};
use crate::commands::spec::{
    Access, Family, Flags, Handler, Propagate, Route, SliceState, SliceStep,
};
use crate::commands::table::{Command, KeyRule, table};
use crate::journal::LogicalClock;
use crate::net::client::ClientState;
use crate::node::Node;
use crate::resp::error::CommandError;
use crate::resp::reply::{Protocol, Reply};
use crate::shard::evict::{EvictParams, Policy};
use crate::shard::state::{KeyRef, Shard};
use crate::slots::hash::slot_of;
use crate::slots::owner::Access as SlotAccess;
use crate::slots::state::SlotSet;
use crate::units::{CoreId, DbIndex, Ms, ShardId, SlotId};

/// A set of shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardSet(pub u64);

impl ShardSet {
    /// All of `count` shards.
    pub const fn all(count: usize) -> Self {
        Self(if count >= 64 { u64::MAX } else { (1 << count) - 1 })
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard.0;
    }

    /// Whether a shard is in it.
    pub const fn contains(self, shard: ShardId) -> bool {
        self.0 >> shard.0 & 1 == 1
    }

    /// Its only member.
    pub const fn single(self) -> Option<ShardId> {
        if self.0.count_ones() == 1 { Some(ShardId(self.0.trailing_zeros() as u16)) } else { None }
    }

    /// Members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..64).filter(move |i| self.0 >> i & 1 == 1).map(ShardId)
    }
}

/// Where a call runs.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// On the session's core, without data.
    Session,
    /// On one shard; the first key's hash and slot are known if it has one.
    One(ShardId, Option<KeyHint>),
    /// On these shards at once.
    Many(ShardSet),
    /// Slice by slice.
    Sliced,
    /// Nowhere now: this slot is being handed over, or is served elsewhere.
    Closed(SlotId, SlotAccess),
}

/// Finds the command, or the subcommand, that a call means, and checks its arity.
#[inline]
pub fn resolve(args: &Args<'_>) -> Result<&'static Command, CommandError> {
    let name = args.at(0);
    let Some(command) = table().get(name) else {
        let words: Vec<&[u8]> = args.iter_from(1).collect();
        return Err(CommandError::unknown_command(name, &words));
    };
    if !command.spec.arity.accepts(args.len()) {
        return Err(CommandError::wrong_arity(command.spec.name));
    }
    if command.subcommands.is_empty() || args.len() < 2 {
        return Ok(command);
    }
    let sub = args.at(1);
    let Some(command) = command.subcommand(sub) else {
        if matches!(command.spec.handler, Handler::Container) {
            return Err(CommandError::unknown_subcommand(sub, command.spec.name));
        }
        return Ok(command);
    };
    if !command.spec.arity.accepts(args.len()) {
        return Err(CommandError::wrong_arity(command.spec.name));
    }
    Ok(command)
}

/// Finds the command of a call and says whether its client may run it, or queue it, now. Every call
/// begins here.
///
/// # Errors
/// The reply, if not. The refusal has been counted, and has doomed the transaction that the client is
/// in; an EXEC that is refused itself has ended it.
#[inline]
pub fn admit(
    args: &Args<'_>,
    client: &mut ClientState,
    node: &Node,
) -> Result<&'static Command, CommandError> {
    let command = resolve(args).and_then(|command| {
        if !client.authenticated && node.config.requirepass().is_some() {
            gate(command, client)?;
        }
        // Cost: one relaxed load.
        if node.gates.any()
            && let Some(error) = node.gate_error(command)
        {
            return Err(error);
        }
        if client.multi.is_some() {
            gate_in_multi(command, node)?;
        }
        if client.subs.is_some() || client.is_monitor {
            gate_listener(command, client)?;
        }
        Ok(command)
    });
    command.map_err(|error| refused(args, client, node, error))
}

/// Whether a client may run a command now, as far as its login goes.
#[inline]
pub fn gate(command: &Command, client: &ClientState) -> Result<(), CommandError> {
    let flags = command.spec.flags;
    if !client.authenticated && !flags.contains(Flags::NO_AUTH) {
        return Err(CommandError::NO_AUTH);
    }
    Ok(())
}

fn gate_in_multi(command: &Command, node: &Node) -> Result<(), CommandError> {
    if command.spec.flags.contains(Flags::NO_MULTI) {
        return Err(CommandError::NOT_IN_MULTI);
    }
    // Redis: queued calls take memory, so none is taken on when there is none. Where keys may be
    // evicted EXEC will see to it: no shard is held here.
    let config = &node.config;
    let is_full = config.maxmemory() > 0
        && config.maxmemory_policy() == Policy::NoEviction
        && node.used_bytes() > config.maxmemory();
    if is_full && is_queued_in_multi(command) { Err(CommandError::OOM) } else { Ok(()) }
}

/// Whether a client that is subscribed or monitors may run a command: a RESP2 client could not tell
/// messages from replies, and who monitors stays away from the data.
fn gate_listener(command: &Command, client: &ClientState) -> Result<(), CommandError> {
    let spec = command.spec;
    let is_subscribed = client.subs.is_some() && client.protocol == Protocol::Resp2;
    if is_subscribed
        && !(spec.name.ends_with("subscribe") || matches!(spec.name, "ping" | "quit" | "reset"))
    {
        return Err(CommandError::in_subscribed_mode(spec.name));
    }
    let data = Flags::WRITE.union(Flags::READONLY).union(Flags::MAY_REPLICATE);
    if client.is_monitor && spec.flags.intersects(data) {
        return Err(CommandError::MONITOR_ON_DATA);
    }
    Ok(())
}

#[cold]
fn refused(
    args: &Args<'_>,
    client: &mut ClientState,
    node: &Node,
    error: CommandError,
) -> CommandError {
    if let Some(command) = table().get(args.at(0)) {
        let sub = args.get(1).and_then(|word| command.subcommand(word));
        let id = usize::from(sub.unwrap_or(command).id);
        node.core(client.core).commands[id].rejected.add(1);
    }
    if let Some(multi) = &mut client.multi {
        multi.aborted = true;
    }
    if is_token(args.at(0), "exec") {
        client.multi = None;
        client.watching = None;
        return CommandError::exec_refused(&error);
    }
    error
}

/// Whether a call is queued when its session is in a transaction.
#[inline]
pub fn is_queued_in_multi(command: &Command) -> bool {
    !matches!(command.spec.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

/// Keeps a call for EXEC. The client is in a transaction.
pub fn queue(command: &'static Command, args: &Args<'_>, client: &mut ClientState) {
    let has_lost = client.watching.as_ref().is_some_and(|watching| watching.is_touched());
    let multi = client.multi.as_mut().expect("only called within a transaction");
    // Redis: a transaction that cannot succeed any more keeps nothing.
    if !multi.aborted && !has_lost {
        multi.queued.push((command, args.to_owned()));
    }
}

/// Whether a call may change data: what CLIENT PAUSE WRITE holds back. EXEC may if a queued call may.
pub fn may_write(command: &Command, client: &ClientState) -> bool {
    let writes = Flags::WRITE.union(Flags::MAY_REPLICATE);
    let queued = client.multi.as_ref().filter(|_| command.spec.name == "exec");
    command.spec.flags.intersects(writes)
        || queued.is_some_and(|m| m.queued.iter().any(|(c, _)| c.spec.flags.intersects(writes)))
}

/// Whether a call has to wait because it may write to a key whose writers do
/// ([`HeldKeys`](crate::commands::held_keys::HeldKeys)).
#[inline]
pub fn waits_for_keys(
    command: &Command,
    args: &Args<'_>,
    client: &ClientState,
    node: &Node,
    found: &mut Vec<FoundKey>,
) -> bool {
    node.held_keys.has_any() && may_write_held_key(command, args, client, node, found)
}

#[cold]
fn may_write_held_key(
    command: &Command,
    args: &Args<'_>,
    client: &ClientState,
    node: &Node,
    found: &mut Vec<FoundKey>,
) -> bool {
    let mut touches = |command: &Command, args: &Args<'_>| {
        found.clear();
        find_keys(command.spec, args, found);
        let mut written = found.iter().filter(|found| found.spec.access != Access::Read);
        written.any(|found| node.held_keys.contains(client.db, args.at(found.index)))
    };
    match &client.multi {
        _ if !may_write(command, client) => false,
        Some(multi) if command.spec.name == "exec" => {
            multi.queued.iter().any(|(command, args)| touches(command, &args.args()))
        }
        // It is only queued.
        Some(_) => false,
        None => touches(command, args),
    }
}

/// Plans a call. `own` is the shard of the calling core, for calls that may run anywhere.
#[inline]
pub fn plan(
    command: &Command,
    args: &Args<'_>,
    client: &ClientState,
    node: &Node,
    own: ShardId,
    found: &mut Vec<FoundKey>,
) -> Plan {
    if command.keys == KeyRule::First
        && matches!(command.spec.handler, Handler::Data(_))
        && !command.spec.may_defer(args)
    {
        let key = KeyRef::new(args.at(1));
        let home = node.owners.home(key.slot);
        if home.is_closed() {
            return Plan::Closed(key.slot, home.access());
        }
        return Plan::One(home.shard(), Some(hint(key, 1)));
    }
    if let Handler::Sliced(_) = command.spec.handler {
        return Plan::Sliced;
    }
    match command.spec.route {
        Route::Session | Route::Denied(_) => Plan::Session,
        Route::AnySlot => Plan::One(own, None),
        Route::AllSlots => match ShardSet::all(node.cores.len()).single() {
            Some(shard)
                if matches!(command.spec.handler, Handler::Data(_))
                    && !command.spec.may_defer(args) =>
            {
                Plan::One(shard, None)
            }
            _ => Plan::Many(ShardSet::all(node.cores.len())),
        },
        Route::ByKey | Route::SplitKeys => {
            let Needs { set, first, closed } = shards_of(command, args, node, found);
            if let Some((slot, access)) = closed {
                return Plan::Closed(slot, access);
            }
            match (set.single(), command.spec.handler) {
                (Some(shard), Handler::Data(_)) if !command.spec.may_defer(args) => {
                    Plan::One(shard, first)
                }
                (None, Handler::Data(_)) if set.0 == 0 && !command.spec.may_defer(args) => {
                    Plan::One(own, None)
                }
                _ => Plan::Many(if set.0 == 0 { ShardSet(1 << own.0) } else { set }),
            }
        }
        Route::Queued => match queued_shards(client, node, own, found) {
            Needs { closed: Some((slot, access)), .. } => Plan::Closed(slot, access),
            Needs { set, .. } => Plan::Many(set),
        },
    }
}

/// Plans a call as it comes from a session, which may fill a slot that is not served yet.
///
/// # Errors
/// Those of [`plan_import`].
#[inline]
pub fn plan_call(
    command: &Command,
    args: &Args<'_>,
    client: &mut ClientState,
    node: &Node,
    own: ShardId,
    found: &mut Vec<FoundKey>,
) -> Result<Plan, CommandError> {
    if client.import.is_some() && command.spec.route != Route::Session {
        return plan_import(command, args, client, node);
    }
    if let Some(slot) = refused_before(command, args, client, found) {
        return Ok(Plan::Closed(slot, SlotAccess::Refused));
    }
    if sliced_variant(command.spec.name, args).is_some() {
        // Whether its keys are served is found in slices as well.
        return Ok(Plan::Sliced);
    }
    Ok(plan(command, args, client, node, own, found))
}

/// A slot of a call because of which an earlier one was refused on this link, which holds for what comes
/// behind it ([`ClientState::refuse`]). What moves slots is left alone: its answers say what to do.
#[inline]
pub fn refused_before(
    command: &Command,
    args: &Args<'_>,
    client: &ClientState,
    found: &mut Vec<FoundKey>,
) -> Option<SlotId> {
    let refused = client.refused.as_ref()?;
    find_refused(command, args, client, refused, found)
}

#[cold]
fn find_refused(
    command: &Command,
    args: &Args<'_>,
    client: &ClientState,
    refused: &SlotSet,
    found: &mut Vec<FoundKey>,
) -> Option<SlotId> {
    let mut of_call = |command: &Command, args: &Args<'_>| {
        if command.spec.family == Family::Slots {
            return None;
        }
        found.clear();
        find_keys(command.spec, args, found);
        let mut slots = found.iter().map(|found| slot_of(args.at(found.index)));
        slots.find(|slot| refused.contains(*slot))
    };
    match command.spec.route {
        Route::ByKey | Route::SplitKeys => of_call(command, args),
        Route::Queued => {
            let queued = client.multi.as_ref().map_or(&[][..], |multi| &multi.queued);
            queued.iter().find_map(|(command, args)| of_call(command, &args.args()))
        }
        _ => None,
    }
}

/// Plans a call of a session that fills a slot which is not served yet.
///
/// # Errors
/// The attempt is over, or the call does more than touch one key of that slot.
pub fn plan_import(
    command: &Command,
    args: &Args<'_>,
    client: &mut ClientState,
    node: &Node,
) -> Result<Plan, CommandError> {
    let import = client.import.as_mut().ok_or(CommandError::NOT_IMPORTING)?;
    if !is_effect_on_one_key(command, args) {
        return Err(CommandError::IMPORT_CALL);
    }
    let key = KeyRef::new(args.at(1));
    if key.slot != import.slot {
        return Err(CommandError::IMPORT_CALL);
    }
    let version = node.owners.version();
    if import.version != version {
        let cluster = node.cluster.lock();
        let entry = cluster.slot(import.slot);
        if entry.move_id != import.move_id || !entry.target.takes(import.attempt) {
            return Err(CommandError::IMPORT_STALE);
        }
        import.version = version;
    }
    Ok(Plan::One(node.owners.of(key.slot), Some(hint(key, 1))))
}

/// Whether a call may fill a slot: it works on one key. Every effect on a key is such a call.
pub fn is_effect_on_one_key(command: &Command, args: &Args<'_>) -> bool {
    matches!(command.spec.handler, Handler::Data(_)) && has_one_key(command, args)
}

/// Whether a call touches one key, which is its first word: DEL may have more, and has one here; LMOVE
/// that rotates a list names it twice.
fn has_one_key(command: &Command, args: &Args<'_>) -> bool {
    match command.keys {
        KeyRule::First => true,
        KeyRule::None => false,
        KeyRule::Specs => {
            let mut found = Vec::new();
            find_keys(command.spec, args, &mut found);
            let is_first = |key: &FoundKey| args.at(key.index) == args.at(1);
            found.first().is_some_and(|key| key.index == 1) && found.iter().all(is_first)
        }
    }
}

/// The shards that a call needs, its first key, and the slot for whose sake it cannot run now, if
/// there is one: of several the one that is refused.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    set: ShardSet,
    first: Option<KeyHint>,
    closed: Option<(SlotId, SlotAccess)>,
}

impl Needs {
    fn add(&mut self, node: &Node, slot: SlotId) {
        let home = node.owners.home(slot);
        self.set.insert(home.shard());
        if home.is_closed() {
            self.close(slot, home.access());
        }
    }

    fn close(&mut self, slot: SlotId, access: SlotAccess) {
        if self.closed.is_none_or(|(_, before)| before == SlotAccess::Frozen) {
            self.closed = Some((slot, access));
        }
    }

    fn join(&mut self, other: Self) {
        self.set.0 |= other.set.0;
        if let Some((slot, access)) = other.closed {
            self.close(slot, access);
        }
    }
}

fn hint(key: KeyRef<'_>, word: usize) -> KeyHint {
    let address = key.bytes.as_ptr().addr();
    let (word, len) = (word as u32, key.bytes.len() as u32);
    KeyHint { address, word, len, hash: key.hash, slot: key.slot }
}

/// The shards that the keys of a call are on, and its first key.
fn shards_of(command: &Command, args: &Args<'_>, node: &Node, found: &mut Vec<FoundKey>) -> Needs {
    let mut needs = Needs::default();
    found.clear();
    // A count that is no number leaves no keys; the handler will say what is wrong.
    find_keys(command.spec, args, found);
    for found in found.iter() {
        let bytes = args.at(found.index);
        let hint = needs.first.get_or_insert_with(|| hint(KeyRef::new(bytes), found.index));
        let slot = if hint.word as usize == found.index { hint.slot } else { slot_of(bytes) };
        needs.add(node, slot);
    }
    if names_keys(command.spec, args) {
        needs.set = ShardSet::all(node.cores.len());
    }
    needs
}

/// The shards that EXEC needs: those of every queued call and of every watched key.
fn queued_shards(
    client: &ClientState,
    node: &Node,
    own: ShardId,
    found: &mut Vec<FoundKey>,
) -> Needs {
    let mut needs = Needs { set: ShardSet(1 << own.0), ..Needs::default() };
    let all = ShardSet::all(node.cores.len());
    let queued = client.multi.as_ref().map_or(&[][..], |multi| &multi.queued);
    for (command, args) in queued {
        match (command.spec.route, command.spec.handler) {
            (Route::AllSlots, _) | (_, Handler::Sliced(_)) => needs.set = all,
            (Route::ByKey | Route::SplitKeys, _) => {
                needs.join(shards_of(command, &args.args(), node, found));
            }
            _ => {}
        }
    }
    for (_, key) in client.watching.iter().flat_map(|w| &w.keys) {
        // One that is served elsewhere by now has lost the transaction: EXEC will see to it.
        needs.set.insert(node.owners.of(slot_of(key)));
    }
    needs
}

/// Runs a data handler and writes its reply, or its error. Returns whether it succeeded.
///
/// Statistics of time are the caller's: it has the clock.
#[inline]
pub fn run_data(
    command: &'static Command,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> bool {
    let mark = reply.out().mark();
    begin(command, ctx);
    let is_limited = command.spec.flags.contains(Flags::DENYOOM) && ctx.node.config.maxmemory() > 0;
    let result = match command.spec.handler {
        Handler::Data(handler) if is_limited => {
            make_room(ctx).and_then(|()| handler(ctx, args, reply))
        }
        Handler::Data(handler) => handler(ctx, args, reply),
        _ => run_other(command, ctx, args, reply),
    };
    finish(command, ctx, args, reply, mark, result)
}

/// Runs a call for which memory has been looked at: one that is queued in a transaction (EXEC has done
/// it for all its calls, and nothing may be evicted between them), or one that fills a slot.
pub fn run_queued(
    command: &'static Command,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> bool {
    let mark = reply.out().mark();
    begin(command, ctx);
    let result = match command.spec.handler {
        Handler::Data(handler) => handler(ctx, args, reply),
        _ => run_other(command, ctx, args, reply),
    };
    finish(command, ctx, args, reply, mark, result)
}

/// A call of a session that fills a slot which is not served yet.
#[derive(Clone, Copy, Debug)]
pub struct ImportCall<'a> {
    /// Which.
    pub command: &'static Command,
    /// Its words.
    pub args: &'a Args<'a>,
    /// Where its key is looked for.
    pub hint: Option<KeyHint>,
    /// The database.
    pub db: DbIndex,
    /// The source's time: none of the keys ends before its slot is served.
    pub at: Ms,
}

/// Runs a call on keys that are out of sight. Nobody waits for such a key. Memory that is short is made
/// among the keys that are served: what comes in stays.
pub fn run_import(
    node: &Node,
    (core, now): (CoreId, Ms),
    shard: &mut Shard,
    clock: &mut LogicalClock,
    call: ImportCall<'_>,
    reply: &mut Reply<'_>,
) {
    let ImportCall { command, args, hint, db, at } = call;
    if command.spec.flags.contains(Flags::DENYOOM) && node.config.maxmemory() > 0 {
        let mut ctx = ctx(node, core, Shards::One(shard), clock, now, db, command);
        if let Err(error) = make_room(&mut ctx) {
            reply.error(&error);
            return ctx.stats.note_error(&error);
        }
    }
    shard.with_hidden(|shard| {
        let mut ctx = ctx(node, core, Shards::One(shard), clock, at, db, command);
        ctx.protocol = reply.protocol();
        ctx.hint = hint;
        ctx.begin_unit();
        run_queued(command, &mut ctx, args, reply);
        ctx.clock.end_unit();
    });
}

/// Ends a long call under the doors of its keys.
pub fn finish_long(
    command: &'static Command,
    op: Box<dyn LongOp>,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) {
    let mark = reply.out().mark();
    begin(command, ctx);
    let result = op.finish(ctx, reply).map(|finish| {
        if let Finish::Again(op) = finish {
            ctx.later = Later::Long(op);
        }
    });
    finish(command, ctx, args, reply, mark, result);
}

#[inline]
fn begin(command: &'static Command, ctx: &mut Ctx<'_>) {
    ctx.spec = command.spec;
    ctx.dirty = 0;
    ctx.effect_count = 0;
}

fn run_other(
    command: &'static Command,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), CommandError> {
    match command.spec.handler {
        Handler::Sliced(step) => run_slices(step, ctx, args, reply),
        _ => unreachable!("`{}` is planned for its session", command.spec.name),
    }
}

/// Calls of more words are not copied into the journal in one turn: what they leave is.
const VERBATIM_WORDS_MAX: usize = 10_000;

/// What follows every handler that saw data: its error, its journal record.
pub fn finish(
    command: &'static Command,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    mark: (usize, usize),
    result: Result<(), CommandError>,
) -> bool {
    let succeeded = match result {
        Ok(()) => true,
        Err(error) => {
            reply.out().truncate(mark);
            reply.error(&error);
            ctx.stats.note_error(&error);
            ctx.stats.commands[usize::from(command.id)].failed.add(1);
            false
        }
    };
    if ctx.dirty > 0 {
        match command.spec.propagate {
            Propagate::Verbatim => {
                let key = ctx.key(args.at(1));
                if args.len() > VERBATIM_WORDS_MAX {
                    ctx.effect_state(ctx.db, key);
                } else if ctx.is_journalled(key.slot) {
                    ctx.effect_verbatim(key, args);
                }
            }
            Propagate::Rewritten => debug_invariant!(
                ctx.effect_count > 0,
                "`{}` changed data and emitted no effect",
                command.spec.name
            ),
            Propagate::Never => invariant!(false, "`{}` is no write", command.spec.name),
        }
    }
    succeeded
}

/// Runs a sliced command in one go: inside a transaction it has to be atomic.
fn run_slices(
    step: fn(&mut Ctx<'_>, &Args<'_>, &mut SliceState) -> Result<SliceStep, CommandError>,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), CommandError> {
    let mut state = SliceState::default();
    loop {
        let done = step(ctx, args, &mut state)?;
        if done != SliceStep::More {
            reply_slices(done, &state, reply);
            return Ok(());
        }
    }
}

/// The reply of a sliced command that has ended.
pub fn reply_slices(done: SliceStep, state: &SliceState, reply: &mut Reply<'_>) {
    match done {
        SliceStep::More => {}
        SliceStep::DoneInteger => reply.int(state.total as i64),
        SliceStep::DoneArray => {
            reply.array(state.element_count as usize);
            reply.raw(&state.elements);
        }
        SliceStep::DoneEncoded => reply.raw(&state.elements),
    }
}

/// The shard that the next slice of a sliced command needs.
pub fn slice_shard(node: &Node, state: &SliceState) -> ShardId {
    SlotId::new(state.slot_index as u64).map_or(ShardId(0), |slot| node.owners.of(slot))
}

/// Most keys evicted for the sake of one call: more work is left to the calls that follow.
const EVICTIONS_PER_CALL_MAX: usize = 64;

/// Evicts until memory is below the limit, on the shards that the call holds. An error if nothing may be
/// evicted, there or elsewhere: others are seen to by their cores, and by whoever finds them asleep.
pub fn make_room(ctx: &mut Ctx<'_>) -> Result<(), CommandError> {
    let node = ctx.node;
    let limit = node.config.maxmemory();
    if limit == 0 || node.used_bytes() <= limit {
        return Ok(());
    }
    let (now, clock) = (ctx.now, &mut *ctx.clock);
    let mut evicted = 0;
    ctx.shards.each(|shard| {
        while evicted < EVICTIONS_PER_CALL_MAX && evict_one(node, shard, clock, now) {
            evicted += 1;
        }
    });
    let is_full = evicted == 0 && node.used_bytes() > limit;
    let others =
        || node.must_evict() && node.cores.iter().any(|core| core.evictable_keys.get() > 0);
    if is_full && !others() { Err(CommandError::OOM) } else { Ok(()) }
}

/// Evicts a key of a shard that is held if memory is over its limit. Whether one was.
pub fn evict_one(node: &Node, shard: &mut Shard, clock: &mut LogicalClock, now: Ms) -> bool {
    if !node.must_evict() {
        return false;
    }
    let config = &node.config;
    let params = EvictParams {
        policy: config.maxmemory_policy(),
        sample_count: config.maxmemory_samples(),
        lfu_decay_minutes: config.lfu_decay_minutes(),
    };
    let Some(_) = shard.evict_one(clock, params, now) else { return false };
    node.core(shard.id.core()).evicted_keys.add(1);
    node.note_shard(shard);
    true
}

/// A context for one call on these shards.
pub fn ctx<'a>(
    node: &'a Node,
    core: crate::units::CoreId,
    shards: Shards<'a>,
    clock: &'a mut crate::journal::LogicalClock,
    now: crate::units::Ms,
    db: DbIndex,
    command: &'static Command,
) -> Ctx<'a> {
    Ctx {
        node,
        stats: node.core(core),
        now,
        db,
        shards,
        spec: command.spec,
        protocol: crate::resp::reply::Protocol::Resp2,
        clock,
        hint: None,
        dirty: 0,
        effect_count: 0,
        emptied: false,
        later: Later::Nothing,
        may_defer: false,
        words: None,
        may_leave_reads: false,
        serving: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn key_after_an_empty_one_goes_to_its_own_slot() {
        // Words that lie side by side: the empty key begins where the next word does.
        let mut bare = Bare::new(3, 1);
        let mut client = bare.client();
        for shard in bare.held.iter_mut().flatten() {
            shard.journal.attach();
        }
        bare.call(&mut client, &[b"MSET", b"", b"1", b"-1", b"2"]);
        bare.call(&mut client, &[b"COPY", b"", b"-2"]);
        assert_eq!(bare.call(&mut client, &[b"EXISTS", b"-1", b"-2", b""]), b":3\r\n");
        for record in bare.held.iter_mut().flatten().flat_map(|shard| shard.journal.take()) {
            let key = KeyRef::new(record.call.args().at(1));
            assert_eq!(record.slot, Some(key.slot));
        }
    }

    #[test]
    fn exec_may_write_if_a_queued_call_may() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let get = |name: &[u8]| table().get(name).expect("it exists");
        bare.call(&mut client, &[b"MULTI"]);
        bare.call(&mut client, &[b"GET", b"k"]);
        assert!(!may_write(get(b"exec"), &client) && may_write(get(b"set"), &client));
        bare.call(&mut client, &[b"SET", b"k", b"v"]);
        assert!(may_write(get(b"exec"), &client) && !may_write(get(b"get"), &client));
    }
}
