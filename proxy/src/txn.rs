//! Transactions: queued here, sent at EXEC as one block from MULTI to EXEC, so that nothing comes
//! between its calls. All its keys must be served by one backend. What a session has besides its
//! client's state is kept here as well: [`State`].
//!
//! WATCH needs a link of its own, because a backend watches for a connection. The block then goes by
//! that link, and a slot that has moved since makes EXEC answer null, as a changed key does: its
//! client has to try again anyway.

use cordis_engine::commands::args::{Args, is_token};
use cordis_engine::commands::dispatch;
use cordis_engine::commands::keys::find_keys;
use cordis_engine::commands::table::Command;
use cordis_engine::net::client::{ClientState, Multi};
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::reply::Protocol;
use cordis_engine::runtime::ring::Token;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::{DbIndex, SlotId};

use crate::asks::To;
use crate::dedicated::{self, Blocked};
use crate::encode;
use crate::hub::Hub;
use crate::link::{Dedicated, LinkError, LinkId};
use crate::local::{self, Pause, fail};
use crate::pubsub::{self, SubLinks};
use crate::request::link_error_reply;
use crate::route::{BackendId, SlotList};
use crate::session::{Place, Session};
use crate::ways::{Call, Flow, Way, Ways};
use crate::wide;

/// Bytes of queued calls beyond which a transaction is refused.
const QUEUED_BYTES_MAX: usize = 256 << 20;
/// Queued calls beyond which a transaction is refused: a block has so many replies.
const QUEUED_CALLS_MAX: usize = u16::MAX as usize - 2;

/// Puts the commands of this file in their place.
pub(crate) fn register(ways: &mut Ways) {
    ways.local("multi", multi);
    ways.local("exec", exec);
    ways.local("discard", discard);
    ways.local("watch", watch);
    ways.local("unwatch", unwatch);
    ways.gate(gate);
}

/// What a session has of links and of a transaction, besides what its client's state says.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The link that watches, if the session watches.
    pub(crate) watch: Option<Watch>,
    /// Slots of the queued calls.
    slots: SlotList,
    /// Bytes of the queued calls.
    bytes: usize,
    /// The blocking call under way, and the link that such calls go by.
    pub(crate) blocked: Blocked,
    /// Links that messages come by.
    pub(crate) subs: Option<SubLinks>,
}

/// A link that watches keys.
#[derive(Debug)]
pub(crate) struct Watch {
    link: LinkId,
    backend: BackendId,
    protocol: Protocol,
    slots: SlotList,
    /// It cannot tell any more whether a key has changed.
    is_lost: bool,
}

/// The state of a session, made when it is first needed.
pub(crate) fn state(session: &mut Session) -> &mut State {
    let extra = session.extra.get_or_insert_with(|| Box::new(State::default()));
    extra.downcast_mut().expect("nobody else keeps anything there")
}

/// Has the session's calls go to the gate if there is a reason to.
pub(crate) fn mark(session: &mut Session) {
    let client = &session.client;
    session.special = client.multi.is_some() || client.subs.is_some() || client.is_blocked;
}

/// Lets go of all links and of what is queued or subscribed to: RESET.
pub(crate) fn leave(hub: &mut Hub, token: Token) {
    pubsub::leave(hub, token);
    end_watch(hub, token);
    end_multi(hub, token);
}

fn end_multi(hub: &mut Hub, token: Token) {
    let Some(session) = hub.session(token) else {
        return;
    };
    session.client.multi = None;
    if session.extra.is_some() {
        let state = state(session);
        state.slots.clear();
        state.bytes = 0;
    }
    mark(session);
}

fn end_watch(hub: &mut Hub, token: Token) {
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return;
    };
    if let Some(watch) = state(session).watch.take() {
        hub.close_link(watch.link);
    }
}

/// Sees every call of a session in a transaction, or with subscriptions.
fn gate(hub: &mut Hub, call: &Call<'_>) -> Option<Flow> {
    let node = hub.shared.node;
    let client = &mut hub.session(call.session)?.client;
    if client.multi.is_none() && client.subs.is_none() {
        return None;
    }
    let was_in_multi = client.multi.is_some();
    match dispatch::admit(call.args, client, node) {
        Err(error) => {
            if was_in_multi && hub.session(call.session)?.client.multi.is_none() {
                // An EXEC that was refused itself has ended the transaction.
                end_watch(hub, call.session);
                end_multi(hub, call.session);
            }
            Some(fail(hub, call.session, &error))
        }
        Ok(command) if was_in_multi && dispatch::is_queued_in_multi(command) => {
            Some(queue(hub, call, command))
        }
        Ok(_) => None,
    }
}

/// Keeps a call for EXEC, or dooms the transaction.
fn queue(hub: &mut Hub, call: &Call<'_>, command: &'static Command) -> Flow {
    if let Err(error) = check(hub, call, command) {
        if let Some(session) = hub.session(call.session)
            && let Some(multi) = &mut session.client.multi
        {
            multi.aborted = true;
        }
        return fail(hub, call.session, &error);
    }
    if let Some(session) = hub.session(call.session) {
        state(session).bytes += call.bytes.len();
        dispatch::queue(command, call.args, &mut session.client);
    }
    hub.answer(call.session, |reply| reply.simple("QUEUED"));
    Flow::Go
}

/// Whether a call can be part of a transaction that runs on one backend.
fn check(hub: &mut Hub, call: &Call<'_>, command: &'static Command) -> Result<(), CommandError> {
    let wrong = |text: &str| {
        let text = format!("ERR command '{}' is not allowed: {text}", command.spec.name);
        CommandError::as_asked(text.as_bytes())
    };
    let name = command.spec.name;
    let has_keys = match hub.ways.of(command) {
        Way::Key | Way::Keys | Way::Split => true,
        Way::Refused(why) => return Err(wrong(why)),
        Way::Local(_) if is_keyed_and_blocking(command) => true,
        Way::Local(_) if is_alike_everywhere(name) => false,
        Way::Local(_) => {
            return Err(wrong("in a transaction it would run on one server, and it concerns all"));
        }
    };
    let (queued, bytes) = hub.session(call.session).map_or((0, 0), |session| {
        let queued = session.client.multi.as_ref().map_or(0, |multi| multi.queued.len());
        (queued, state(session).bytes)
    });
    if queued >= QUEUED_CALLS_MAX || bytes + call.bytes.len() > QUEUED_BYTES_MAX {
        return Err(wrong("the transaction is too large"));
    }
    if !has_keys {
        return Ok(());
    }
    let own = slots_of(hub, call, command);
    let Some(session) = hub.session(call.session) else {
        return Ok(());
    };
    let state = state(session);
    let watched = state.watch.iter().flat_map(|watch| &watch.slots).copied();
    let all: Vec<u16> = state.slots.iter().copied().chain(watched).chain(own).collect();
    let all = crate::intake::list_of(all.into_iter());
    // Slots without a backend may get any until EXEC.
    let mut backends = all.iter().filter_map(|&slot| hub.backend_of(SlotId::from_crc(slot.into())));
    let first = backends.next();
    if backends.any(|backend| Some(backend) != first) {
        return Err(CommandError::CROSS_SLOT);
    }
    if let Some(session) = hub.session(call.session) {
        self::state(session).slots = all;
    }
    Ok(())
}

fn slots_of(hub: &mut Hub, call: &Call<'_>, command: &'static Command) -> SlotList {
    let mut found = Vec::new();
    // A count that is no number leaves no keys: the server says what is wrong.
    find_keys(command.spec, call.args, &mut found);
    if cordis_engine::commands::keys::names_keys(command.spec, call.args) {
        // The keys may be anywhere: only a cluster of one backend has them all in one place.
        found.clear();
        if hub.primaries().len() > 1 {
            return SlotId::all().map(|slot| slot.index() as u16).collect();
        }
    }
    let keys = found.iter().map(|key| slot_of(call.args.at(key.index)).index() as u16);
    crate::intake::list_of(keys)
}

/// Within a transaction such a call does not block.
fn is_keyed_and_blocking(command: &Command) -> bool {
    use cordis_engine::commands::spec::Flags;
    command.spec.flags.contains(Flags::BLOCKING) && !command.spec.keys.is_empty()
}

/// Calls that any server answers alike.
fn is_alike_everywhere(name: &str) -> bool {
    let container = name.split('|').next().unwrap_or(name);
    matches!(container, "ping" | "echo" | "time" | "select" | "command" | "lolwut" | "slotshashkey")
        || matches!(name, "wait" | "unwatch" | "pfselftest")
        // Every subscriber is subscribed on every server.
        || matches!(name, "publish" | "spublish")
}

/// The error reply of a call that was refused before it ran: EXEC says so in words of its own.
pub(crate) fn refusal(name: &[u8], error: CommandError) -> CommandError {
    if is_token(name, "exec") { CommandError::exec_refused(&error) } else { error }
}

/// MULTI
fn multi(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let flow = local::session(hub, call);
    if let Some(session) = hub.session(call.session) {
        mark(session);
    }
    flow
}

/// DISCARD
fn discard(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let is_in_multi = hub.session(call.session).is_some_and(|s| s.client.multi.is_some());
    let flow = local::session(hub, call);
    if is_in_multi {
        end_watch(hub, call.session);
        end_multi(hub, call.session);
    }
    flow
}

/// UNWATCH
fn unwatch(hub: &mut Hub, call: &Call<'_>) -> Flow {
    end_watch(hub, call.session);
    local::session(hub, call)
}

// ---- WATCH ----

/// WATCH key [key ...]
fn watch(hub: &mut Hub, call: &Call<'_>) -> Flow {
    if hub.session(call.session).is_some_and(|session| session.client.multi.is_some()) {
        return fail(hub, call.session, &CommandError::WATCH_IN_MULTI);
    }
    if wide::must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let slots = hub.slots_of(call);
    let pause = Pause::new(hub, call.session, call.command);
    let place = hub.reserve(call.session);
    watch_keys(hub, call.session, place, call.bytes.to_vec(), slots, pause.clone(), 0);
    pause.flow()
}

/// Tries before a slot that nobody will have is given up on; each waits until its slot is served.
pub(crate) const TRIES_MAX: u32 = 16;

fn watch_keys(
    hub: &mut Hub,
    token: Token,
    place: Place,
    bytes: Vec<u8>,
    slots: SlotList,
    end: Pause,
    tries: u32,
) {
    let answer = |hub: &mut Hub, reply: &[u8]| {
        hub.fill_raw(place, reply);
        end.end(hub);
    };
    let backend = match dedicated::backend_of_all(hub, &slots) {
        Ok(backend) => backend,
        Err(error) => return answer(hub, &dedicated::error_of(&error)),
    };
    let (db, protocol) = wide::state_of(hub, token);
    let link = match watching_link(hub, token, backend, protocol, &slots) {
        Ok(link) => link,
        Err(reply) => return answer(hub, &reply),
    };
    let request = bytes.clone();
    let done = move |hub: &mut Hub, reply: Result<&[u8], &LinkError>| {
        let reply = match reply {
            Ok(reply) if dedicated::is_refusal(reply) && tries < TRIES_MAX => {
                // Somebody else serves the slot: whatever was watched here, it is there no more.
                let has_more = end_watch_of(hub, token, link, &slots);
                if has_more {
                    hub.fill(place, |reply| reply.ok());
                    return end.end(hub);
                }
                let first = slots.first().copied().unwrap_or(0);
                return dedicated::when_served(hub, first, move |hub, answer| match answer {
                    Ok(()) => watch_keys(hub, token, place, bytes, slots, end, tries + 1),
                    Err(reply) => {
                        hub.fill_raw(place, &reply);
                        end.end(hub);
                    }
                });
            }
            Ok(reply) => reply.to_vec(),
            Err(error) => link_error_reply(error),
        };
        hub.fill_raw(place, &reply);
        end.end(hub);
    };
    hub.send_on(link, db, &request, 1, Box::new(done));
}

/// The link that watches for a session, and the slots added to those it watches.
fn watching_link(
    hub: &mut Hub,
    token: Token,
    backend: BackendId,
    protocol: Protocol,
    slots: &SlotList,
) -> Result<LinkId, Vec<u8>> {
    let Some(session) = hub.session(token) else {
        return Err(Vec::new());
    };
    if let Some(watch) = &mut state(session).watch {
        if watch.backend != backend {
            return Err(dedicated::error_of(&CommandError::CROSS_SLOT));
        }
        watch.slots.extend_from_slice(slots);
        return Ok(watch.link);
    }
    let on_link = Dedicated { unsolicited: |_, _, _, _| {}, lost: watch_lost };
    let link = hub
        .dedicate(token, backend, protocol, on_link)
        .map_err(|error| link_error_reply(&error))?;
    if let Some(session) = hub.session(token) {
        let watch = Watch { link, backend, protocol, slots: slots.clone(), is_lost: false };
        state(session).watch = Some(watch);
    }
    Ok(link)
}

fn watch_lost(hub: &mut Hub, token: Token, link: LinkId, _why: &LinkError) {
    if let Some(session) = hub.session(token).filter(|session| session.extra.is_some())
        && let Some(watch) = &mut state(session).watch
        && watch.link == link
    {
        watch.is_lost = true;
    }
}

/// A watch was refused. If others were in force on its link, they count as changed; otherwise the
/// link is closed. Whether there were others.
fn end_watch_of(hub: &mut Hub, token: Token, link: LinkId, slots: &SlotList) -> bool {
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return false;
    };
    if let Some(watch) = &mut state(session).watch
        && watch.slots.len() > slots.len()
    {
        watch.is_lost = true;
        return true;
    }
    state(session).watch = None;
    hub.close_link(link);
    false
}

// ---- EXEC ----

/// EXEC
fn exec(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let token = call.session;
    let databases = hub.settings.backend_number_databases;
    let Some(session) = hub.session(token) else {
        return Flow::Go;
    };
    let Some(multi) = &session.client.multi else {
        return fail(hub, token, &CommandError::EXEC_WITHOUT_MULTI);
    };
    if multi.aborted {
        end_watch(hub, token);
        end_multi(hub, token);
        return fail(hub, token, &CommandError::EXEC_ABORT);
    }
    let needs_link = multi.queued.iter().any(|(command, _)| command.spec.name == "select");
    let replies = multi.queued.len() as u16 + 2;
    let block = block_of(multi, databases);
    let last_db = last_select(&session.client, databases);
    let is_empty = multi.queued.is_empty();
    let state = state(session);
    let (has_watch, slots) = (state.watch.is_some(), state.slots.clone());
    if has_watch || needs_link {
        if wide::must_wait(hub, token) {
            return Flow::Hold;
        }
        return exec_apart(hub, call, Block { bytes: block, replies, slots, last_db });
    }
    if is_empty {
        end_multi(hub, token);
        hub.answer(token, |reply| reply.array(0));
        return Flow::Go;
    }
    let ids: Vec<SlotId> = slots.iter().map(|&slot| SlotId::from_crc(slot.into())).collect();
    let ids = if ids.is_empty() { vec![SlotId::from_crc(0)] } else { ids };
    match hub.forward_block(token, &ids, &block, replies, call.command) {
        Ok(Flow::Hold) => Flow::Hold,
        Ok(flow) => {
            end_multi(hub, token);
            flow
        }
        Err(_) => {
            end_multi(hub, token);
            fail(hub, token, &CommandError::exec_refused(&CommandError::CROSS_SLOT))
        }
    }
}

/// The database that a queued SELECT names, if it is offered to clients.
fn selected(call: &Args<'_>, databases: u8) -> Option<u8> {
    let index = u8::try_from(parse_i64(call.at(1))?).ok()?;
    (index < databases).then_some(index)
}

/// MULTI to EXEC as they are sent.
fn block_of(multi: &Multi, databases: u8) -> Vec<u8> {
    let mut block = encode::to_vec(&[b"MULTI"]);
    for (command, call) in &multi.queued {
        let args = call.args();
        let is_number = args.get(1).is_some_and(|word| parse_i64(word).is_some());
        if command.spec.name == "select" && is_number && selected(&args, databases).is_none() {
            // The server may well have it: one that no server has gives the same error.
            encode::request(&mut block, &[b"SELECT", b"-1"]);
            continue;
        }
        encode::array(&mut block, args.len());
        args.iter_from(0).for_each(|word| encode::bulk(&mut block, word));
    }
    encode::request(&mut block, &[b"EXEC"]);
    block
}

/// The database that the transaction ends in, if it changes it.
fn last_select(client: &ClientState, databases: u8) -> Option<u8> {
    let queued = &client.multi.as_ref()?.queued;
    let selects = queued.iter().rev().filter(|(command, _)| command.spec.name == "select");
    selects.filter_map(|(_, call)| selected(&call.args(), databases)).next()
}

/// A transaction that goes by a link of its own.
struct Block {
    bytes: Vec<u8>,
    replies: u16,
    slots: SlotList,
    last_db: Option<u8>,
}

fn exec_apart(hub: &mut Hub, call: &Call<'_>, block: Block) -> Flow {
    let token = call.session;
    let pause = Pause::new(hub, token, call.command);
    let place = hub.reserve(token);
    let watch = hub.session(token).and_then(|session| state(session).watch.take());
    end_multi(hub, token);
    match watch {
        Some(watch) => exec_watched(hub, token, place, &watch, block, pause.clone()),
        None => exec_alone(hub, token, place, block, pause.clone(), 0),
    }
    pause.flow()
}

/// Runs a block on the link that watches.
fn exec_watched(
    hub: &mut Hub,
    token: Token,
    place: Place,
    watch: &Watch,
    block: Block,
    end: Pause,
) {
    let link = watch.link;
    let (db, protocol) = wide::state_of(hub, token);
    let mut slots = block.slots.clone();
    slots.extend_from_slice(&watch.slots);
    let has_moved = slots
        .iter()
        .any(|&slot| hub.backend_of(SlotId::from_crc(slot.into())) != Some(watch.backend));
    if watch.is_lost || has_moved || watch.protocol != protocol {
        hub.close_link(link);
        hub.fill(place, |reply| reply.null_array());
        return end.end(hub);
    }
    let done = move |hub: &mut Hub, reply: Result<&[u8], &LinkError>| {
        match reply {
            Ok(reply) if dedicated::is_refusal(reply) => {
                hub.fill(place, |reply| reply.null_array())
            }
            // A call was refused when it was queued: the slot may have moved, or memory is short.
            Ok(reply) if reply.starts_with(b"-EXECABORT") => {
                let (text, first) = (reply.to_vec(), slots.first().copied().unwrap_or(0));
                let owner = hub.backend_of(SlotId::from_crc(first.into()));
                hub.close_link(link);
                return dedicated::when_served(hub, first, move |hub, answer| {
                    let is_there =
                        answer.is_ok() && hub.backend_of(SlotId::from_crc(first.into())) == owner;
                    match is_there {
                        true => hub.fill_raw(place, &text),
                        false => hub.fill(place, |reply| reply.null_array()),
                    }
                    end.end(hub);
                });
            }
            Ok(reply) => {
                executed(hub, token, reply, block.last_db);
                hub.fill_raw(place, reply);
            }
            Err(error) => hub.fill_raw(place, &link_error_reply(error)),
        }
        hub.close_link(link);
        end.end(hub);
    };
    hub.send_on(link, db, &block.bytes.clone(), block.replies, Box::new(done));
}

/// Runs a block that changes its database on a link of its own: others share the ordinary ones.
fn exec_alone(hub: &mut Hub, token: Token, place: Place, block: Block, end: Pause, tries: u32) {
    let (db, protocol) = wide::state_of(hub, token);
    let slots =
        if block.slots.is_empty() { SlotList::from_slice(&[0]) } else { block.slots.clone() };
    let refused = |error: CommandError| dedicated::error_of(&CommandError::exec_refused(&error));
    let link = match dedicated::backend_of_all(hub, &slots) {
        Err(error) => Err(refused(error)),
        Ok(backend) => {
            let on_link = Dedicated { unsolicited: |_, _, _, _| {}, lost: |_, _, _, _| {} };
            let link = hub.dedicate(token, backend, protocol, on_link);
            link.map_err(|error| link_error_reply(&error))
        }
    };
    let link = match link {
        Ok(link) => link,
        Err(reply) => {
            hub.fill_raw(place, &reply);
            return end.end(hub);
        }
    };
    let (bytes, replies) = (block.bytes.clone(), block.replies);
    let done = move |hub: &mut Hub, reply: Result<&[u8], &LinkError>| {
        let is_refused =
            |reply: &[u8]| dedicated::is_refusal(reply) || reply.starts_with(b"-EXECABORT");
        let reply = match reply {
            Ok(reply) if is_refused(reply) && tries < TRIES_MAX => {
                let (text, first) = (reply.to_vec(), slots.first().copied().unwrap_or(0));
                let owner = hub.backend_of(SlotId::from_crc(first.into()));
                hub.close_link(link);
                return dedicated::when_served(hub, first, move |hub, answer| {
                    let has_moved = hub.backend_of(SlotId::from_crc(first.into())) != owner;
                    match answer {
                        Ok(()) if has_moved || dedicated::is_refusal(&text) => {
                            return exec_alone(hub, token, place, block, end, tries + 1);
                        }
                        Ok(()) => hub.fill_raw(place, &text),
                        Err(reply) => hub.fill_raw(place, &reply),
                    }
                    end.end(hub);
                });
            }
            Ok(reply) => {
                executed(hub, token, reply, block.last_db);
                reply.to_vec()
            }
            Err(error) => link_error_reply(error),
        };
        hub.close_link(link);
        hub.fill_raw(place, &reply);
        end.end(hub);
    };
    hub.send_on(link, db, &bytes, replies, Box::new(done));
}

/// A block has run, or not: only then has it changed the session's database.
fn executed(hub: &mut Hub, token: Token, reply: &[u8], last_db: Option<u8>) {
    let has_run = reply.first() == Some(&b'*') && !reply.starts_with(b"*-1");
    if let Some(db) = last_db.filter(|_| has_run)
        && let Some(session) = hub.session(token)
    {
        session.client.db = DbIndex(db);
    }
}

/// A slot as a question's address.
pub(crate) fn to_slot(slot: u16) -> To {
    To::Slot(SlotId::from_crc(slot.into()))
}
