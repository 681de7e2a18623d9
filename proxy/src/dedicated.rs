//! Blocking calls: each goes by a link that belongs to its session alone while it waits, so that it
//! holds up nobody else. The link is kept for the session's next such call for a while. If the slot
//! moves meanwhile, its server ends the call with a refusal, and it goes to the new one for the time
//! that is left.

use std::sync::OnceLock;

use cordis_engine::commands::session_ctx::SessionAction;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::number::{format_g17, parse_f64};
use cordis_engine::resp::reply::{OutBuf, Protocol, Reply};
use cordis_engine::runtime::ring::Token;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::{Ms, SLOT_COUNT, SlotId};

use crate::asks::To;
use crate::encode;
use crate::hub::Hub;
use crate::link::{Dedicated, LinkError, LinkId};
use crate::local::{self, Pause, fail, tour};
use crate::pubsub;
use crate::request::link_error_reply;
use crate::route::{BackendId, SlotList};
use crate::session::Place;
use crate::txn::{TRIES_MAX, mark, state, to_slot};
use crate::ways::{Call, Flow, Ways};
use crate::wide;

/// A link that waits for its session's next blocking call is closed after this.
const LINK_IDLE_MS: i64 = 5_000;

/// Puts the commands of this file in their place.
pub(crate) fn register(ways: &mut Ways) {
    for name in
        ["blmove", "blmpop", "blpop", "brpop", "brpoplpush", "bzmpop", "bzpopmax", "bzpopmin"]
    {
        ways.local(name, block);
    }
    ways.local("client|unblock", unblock);
    pubsub::register(ways);
}

/// What a session has for its blocking calls.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    link: Option<BlockLink>,
}

#[derive(Debug)]
struct BlockLink {
    id: LinkId,
    backend: BackendId,
    protocol: Protocol,
    /// The backend's number of the connection, once it has told it.
    client_id: Option<i64>,
    /// A call is under way on it, or was last at this time.
    used_at: Ms,
}

/// Whether a reply says that another server serves the slot, or none does at the moment.
pub(crate) fn is_refusal(reply: &[u8]) -> bool {
    [&b"-MOVED "[..], b"-TRYAGAIN", b"-CLUSTERDOWN", b"-ASK "].iter().any(|w| reply.starts_with(w))
}

/// An error as a reply.
pub(crate) fn error_of(error: &CommandError) -> Vec<u8> {
    let mut out = OutBuf::default();
    Reply::new(&mut out, Protocol::Resp2).error(error);
    out.to_vec()
}

/// The backend that serves all of these slots.
///
/// # Errors
/// There is none.
pub(crate) fn backend_of_all(hub: &Hub, slots: &SlotList) -> Result<BackendId, CommandError> {
    let mut found = None;
    for &slot in slots {
        let Some(backend) = hub.backend_of(SlotId::from_crc(slot.into())) else {
            let text = "ERR handle request, slot is not ready, may be offline";
            return Err(CommandError::as_asked(text.as_bytes()));
        };
        if found.is_some_and(|found| found != backend) {
            return Err(CommandError::CROSS_SLOT);
        }
        found = Some(backend);
    }
    found.ok_or(CommandError::CROSS_SLOT)
}

/// Goes on once somebody serves a slot: asks for a key of it that nobody has, which follows the slot
/// wherever it moves. An error reply if nobody does in time.
pub(crate) fn when_served(
    hub: &mut Hub,
    slot: u16,
    then: impl FnOnce(&mut Hub, Result<(), Vec<u8>>) + 'static,
) {
    let key = key_in(slot);
    let request = encode::to_vec(&[b"EXISTS", key]);
    let done = move |hub: &mut Hub, answer: Result<&[u8], &LinkError>| {
        let answer = answer.map(drop).map_err(link_error_reply);
        then(hub, answer);
    };
    hub.ask(to_slot(slot), 0, Protocol::Resp2, &request, Box::new(done));
}

/// A key of this slot.
pub(crate) fn key_in(slot: u16) -> &'static [u8] {
    // Cost: some ten thousand keys are tried at the first call, none at the others.
    static KEYS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    &KEYS.get_or_init(key_per_slot)[usize::from(slot)]
}

fn key_per_slot() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new(); SLOT_COUNT];
    let mut left = SLOT_COUNT;
    let mut tried = (0u64..).map(|n| format!("cordis-proxy:{n}").into_bytes());
    while left > 0
        && let Some(key) = tried.next()
    {
        let place = &mut keys[slot_of(&key).index()];
        if place.is_empty() {
            *place = key;
            left -= 1;
        }
    }
    keys
}

// ---- blocking calls ----

/// A blocking call under way.
struct Waiting {
    token: Token,
    place: Place,
    end: Pause,
    words: Vec<Vec<u8>>,
    slots: SlotList,
    began: Ms,
    tries: u32,
}

/// BLPOP and its kin.
fn block(hub: &mut Hub, call: &Call<'_>) -> Flow {
    if wide::must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let slots = hub.slots_of(call);
    if let Err(error) = backend_of_all(hub, &slots) {
        return fail(hub, call.session, &error);
    }
    if hub.session(call.session).is_some_and(|session| session.input_ended) {
        // Its client has left: there is nobody to wait for.
        hub.close(call.session, None);
        return Flow::Stop;
    }
    let pause = Pause::new(hub, call.session, call.command);
    let waiting = Waiting {
        token: call.session,
        place: hub.reserve(call.session),
        end: pause.clone(),
        words: call.args.iter_from(0).map(<[u8]>::to_vec).collect(),
        slots,
        began: hub.now(),
        tries: 0,
    };
    if let Some(session) = hub.session(call.session) {
        session.client.is_blocked = true;
        mark(session);
    }
    wait(hub, waiting, None);
    pause.flow()
}

/// Sends a blocking call; `timeout` in the place of the one that it has, if it is sent again.
fn wait(hub: &mut Hub, waiting: Waiting, timeout: Option<f64>) {
    let backend = match backend_of_all(hub, &waiting.slots) {
        Ok(backend) => backend,
        Err(error) => return served(hub, &waiting, &error_of(&error)),
    };
    let (db, protocol) = wide::state_of(hub, waiting.token);
    let link = match block_link(hub, waiting.token, backend, protocol) {
        Ok(link) => link,
        Err(error) => return served(hub, &waiting, &link_error_reply(&error)),
    };
    let mut words = waiting.words.clone();
    if let Some(seconds) = timeout {
        let at = timeout_index(&words);
        words[at] = format_g17(seconds).as_bytes().to_vec();
    }
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let request = encode::to_vec(&words);
    let done = move |hub: &mut Hub, reply: Result<&[u8], &LinkError>| match reply {
        Ok(reply) if is_refusal(reply) && waiting.tries < TRIES_MAX => {
            drop_link(hub, waiting.token);
            let first = waiting.slots.first().copied().unwrap_or(0);
            when_served(hub, first, move |hub, answer| match answer {
                Ok(()) => again(hub, waiting),
                Err(reply) => served(hub, &waiting, &reply),
            });
        }
        Ok(reply) => served(hub, &waiting, reply),
        Err(error) => {
            drop_link(hub, waiting.token);
            served(hub, &waiting, &link_error_reply(error));
        }
    };
    hub.send_blocking_on(link, db, &request, Box::new(done));
}

/// Where the timeout of a blocking call is among its words.
fn timeout_index(words: &[Vec<u8>]) -> usize {
    let is_first = ["blmpop", "bzmpop"].iter().any(|n| words[0].eq_ignore_ascii_case(n.as_bytes()));
    if is_first { 1 } else { words.len() - 1 }
}

/// Sends a call again whose slot has moved.
fn again(hub: &mut Hub, mut waiting: Waiting) {
    waiting.tries += 1;
    let given = parse_f64(&waiting.words[timeout_index(&waiting.words)]);
    let timeout = given.filter(|&seconds| seconds > 0.0).map(|seconds| {
        let gone = (hub.now().0 - waiting.began.0) as f64 / 1000.0;
        // Zero would mean for ever.
        (seconds - gone).max(0.001)
    });
    wait(hub, waiting, timeout);
}

/// A blocking call has its reply.
fn served(hub: &mut Hub, waiting: &Waiting, reply: &[u8]) {
    let now = hub.now();
    if let Some(session) = hub.session(waiting.token) {
        session.client.is_blocked = false;
        if let Some(link) = &mut state(session).blocked.link {
            link.used_at = now;
        }
        mark(session);
    }
    hub.fill_raw(waiting.place, reply);
    waiting.end.end(hub);
}

/// The session's link for blocking calls to a backend.
fn block_link(
    hub: &mut Hub,
    token: Token,
    backend: BackendId,
    protocol: Protocol,
) -> Result<LinkId, LinkError> {
    let now = hub.now();
    if let Some(session) = hub.session(token)
        && let Some(link) = &mut state(session).blocked.link
        && link.backend == backend
        && link.protocol == protocol
    {
        link.used_at = now;
        return Ok(link.id);
    }
    drop_link(hub, token);
    let on_link = Dedicated { unsolicited: |_, _, _, _| {}, lost: block_link_lost };
    let id = hub.dedicate(token, backend, protocol, on_link)?;
    let link = BlockLink { id, backend, protocol, client_id: None, used_at: now };
    if let Some(session) = hub.session(token) {
        state(session).blocked.link = Some(link);
    }
    // CLIENT UNBLOCK will have to name the connection.
    let done = move |hub: &mut Hub, reply: Result<&[u8], &LinkError>| {
        if let Ok(number) = reply.map_err(Clone::clone).and_then(wide::int_of)
            && let Some(session) = hub.session(token)
            && let Some(link) = &mut state(session).blocked.link
            && link.id == id
        {
            link.client_id = Some(number);
        }
    };
    hub.send_on(id, 0, &encode::to_vec(&[b"CLIENT", b"ID"]), 1, Box::new(done));
    Ok(id)
}

fn block_link_lost(hub: &mut Hub, token: Token, id: LinkId, _why: &LinkError) {
    if let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) {
        let blocked = &mut state(session).blocked;
        if blocked.link.as_ref().is_some_and(|link| link.id == id) {
            blocked.link = None;
        }
    }
}

fn drop_link(hub: &mut Hub, token: Token) {
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return;
    };
    if let Some(link) = state(session).blocked.link.take() {
        hub.close_link(link.id);
    }
}

/// Closes a session's link that has waited for a call for long, and subscribes where that is due.
/// Called now and then for each session that has links.
pub(crate) fn look_after(hub: &mut Hub, token: Token) {
    let now = hub.now();
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return;
    };
    let is_blocked = session.client.is_blocked;
    let link = &state(session).blocked.link;
    let is_idle = link.as_ref().is_some_and(|l| now.0 - l.used_at.0 > LINK_IDLE_MS);
    if is_idle && !is_blocked {
        drop_link(hub, token);
    }
    pubsub::look_after(hub, token);
}

// ---- CLIENT UNBLOCK ----

/// Where a blocked client's connection is: core, backend, and the backend's number of it.
type Found = Option<(usize, BackendId, i64)>;

/// CLIENT UNBLOCK client-id [TIMEOUT|ERROR]: the server that the call waits at ends it, so that it is
/// either served or unblocked, never half.
fn unblock(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let ran = local::run(hub, call);
    let place = hub.reserve(call.session);
    let Some(SessionAction::Unblock { id, error }) = ran.action else {
        hub.fill_raw(place, &ran.out.to_vec());
        return Flow::Go;
    };
    let find = move |hub: &mut Hub, found: &mut Found| {
        let core = hub.core;
        let token = hub
            .sessions()
            .find(|(_, session)| session.client.id == id && session.client.is_blocked)
            .map(|(token, _)| token);
        if let Some(session) = token.and_then(|token| hub.session(token))
            && let Some(link) = &state(session).blocked.link
            && let Some(number) = link.client_id
        {
            *found = Some((core, link.backend, number));
        }
    };
    let home = hub.core;
    tour(hub, None, find, move |hub, found: Found| {
        let Some((core, backend, number)) = found else {
            return hub.fill(place, |reply| reply.int(0));
        };
        let ask = move |hub: &mut Hub| {
            let how: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
            let request =
                encode::to_vec(&[b"CLIENT", b"UNBLOCK", number.to_string().as_bytes(), how]);
            let done = move |hub: &mut Hub, answer: Result<&[u8], &LinkError>| {
                let count = answer.ok().and_then(|reply| wide::int_of(reply).ok()).unwrap_or(0);
                let tell = move |hub: &mut Hub| hub.fill(place, |reply| reply.int(count));
                if hub.core == home {
                    tell(hub);
                } else {
                    let shared = hub.shared.clone();
                    shared.run_on(home, Box::new(tell));
                }
            };
            hub.ask(To::Backend(backend), 0, Protocol::Resp2, &request, Box::new(done));
        };
        if core == home {
            ask(hub);
        } else {
            let shared = hub.shared.clone();
            shared.run_on(core, Box::new(ask));
        }
    });
    Flow::Go
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_key_that_is_found_once() {
        for slot in 0..SLOT_COUNT as u16 {
            assert_eq!(slot_of(key_in(slot)).index(), usize::from(slot));
            assert!(std::ptr::eq(key_in(slot), key_in(slot)));
        }
    }

    #[test]
    fn timeouts_are_where_the_commands_have_them() {
        let words = |line: &str| line.split(' ').map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(timeout_index(&words("BLPOP a b 5")), 3);
        assert_eq!(timeout_index(&words("blmpop 5 1 a LEFT")), 1);
        assert_eq!(timeout_index(&words("BLMOVE a b LEFT RIGHT 5")), 5);
    }

    #[test]
    fn refusals_are_told_from_errors() {
        assert!(is_refusal(b"-MOVED 1 127.0.0.1:1\r\n") && is_refusal(b"-TRYAGAIN x\r\n"));
        assert!(!is_refusal(b"-ERR MOVED\r\n") && !is_refusal(b"*0\r\n"));
    }
}
