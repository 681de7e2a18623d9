//! Publish and subscribe over a cluster. A subscriber is subscribed on every server that serves slots,
//! by links of its own, and a message is published on one: so each subscriber gets each message once,
//! whichever proxy it came through, the number of receivers is right, and events of the keyspace
//! arrive from all servers.
//!
//! A subscription is confirmed when every server has confirmed it. A server that cannot be reached is
//! subscribed to as soon as it can be; until then its messages are missed, as those of a server that
//! is down are anyway.

use cordis_engine::pubsub::{Kind, Name, Subscriptions};
use cordis_engine::resp::reply::{OutBuf, Protocol, Reply};
use cordis_engine::runtime::ring::Token;
use cordis_engine::units::Ms;

use crate::encode;
use crate::hub::Hub;
use crate::link::{Dedicated, LinkError, LinkId};
use crate::local::Pause;
use crate::route::BackendId;
use crate::txn::{mark, state};
use crate::ways::{Call, Flow, Ways};
use crate::wide;

/// Pause before a server that was lost is subscribed to again.
const RETRY_MS: i64 = 1_000;
/// How long a confirmation may take before the client gets it all the same.
const CONFIRM_MS: i64 = 5_000;

/// Puts the commands of this file in their place.
pub(crate) fn register(ways: &mut Ways) {
    ways.local("subscribe", |hub, call| add(hub, call, Kind::Channel));
    ways.local("psubscribe", |hub, call| add(hub, call, Kind::Pattern));
    ways.local("ssubscribe", |hub, call| add(hub, call, Kind::Shard));
    ways.local("unsubscribe", |hub, call| remove(hub, call, Kind::Channel));
    ways.local("punsubscribe", |hub, call| remove(hub, call, Kind::Pattern));
    ways.local("sunsubscribe", |hub, call| remove(hub, call, Kind::Shard));
}

/// A session's links to where messages come from.
#[derive(Debug, Default)]
pub(crate) struct SubLinks {
    links: Vec<SubLink>,
    /// Who waits for confirmations: what it is told then, and since when it waits.
    waiting: Option<(Pause, Vec<u8>, Ms)>,
    /// No server is dialled before.
    retry_at: Ms,
    /// Every server has a link: those of this version of the routes.
    pub(crate) complete_for: Option<u64>,
}

#[derive(Debug)]
struct SubLink {
    id: LinkId,
    backend: BackendId,
    /// Confirmations that are still to come.
    pending: usize,
}

const KINDS: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

/// SUBSCRIBE and its kin.
fn add(hub: &mut Hub, call: &Call<'_>, kind: Kind) -> Flow {
    if wide::must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let token = call.session;
    let (now, (_, protocol)) = (hub.now(), wide::state_of(hub, token));
    let pause = Pause::new(hub, token, call.command);
    let Some(session) = hub.session(token) else {
        return Flow::Go;
    };
    let mut confirmations = OutBuf::default();
    let mut reply = Reply::new(&mut confirmations, protocol);
    let mut new: Vec<Name> = Vec::new();
    let subs = session.client.subs.get_or_insert_default();
    for name in call.args.iter_from(1) {
        if !subs.of(kind).contains(name) {
            let name = Name::from(name);
            subs.of_mut(kind).insert(Name::clone(&name));
            new.push(name);
        }
        confirm(&mut reply, kind.subscribed(), Some(name), subs.shown_count(kind));
    }
    mark(session);
    let links = state(session).subs.get_or_insert_default();
    links.waiting = Some((pause.clone(), confirmations.to_vec(), now));
    let old: Vec<LinkId> = links.links.iter().map(|link| link.id).collect();
    if !new.is_empty() {
        let request = request_of(kind, &new);
        for id in old {
            send(hub, token, id, &request, new.len());
        }
    }
    connect(hub, token, protocol);
    confirm_if_ready(hub, token);
    pause.flow()
}

/// UNSUBSCRIBE and its kin: confirmed at once, because what comes after is not passed on.
fn remove(hub: &mut Hub, call: &Call<'_>, kind: Kind) -> Flow {
    if wide::must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let token = call.session;
    let (_, protocol) = wide::state_of(hub, token);
    let Some(session) = hub.session(token) else {
        return Flow::Go;
    };
    let mut out = OutBuf::default();
    let mut reply = Reply::new(&mut out, protocol);
    let mut gone: Vec<Name> = Vec::new();
    let subs = &mut session.client.subs;
    let named: Vec<Name> = match call.args.len() {
        1 => subs.iter().flat_map(|subs| subs.of(kind)).cloned().collect(),
        _ => call.args.iter_from(1).map(Name::from).collect(),
    };
    for name in &named {
        let taken = subs.as_mut().and_then(|subs| subs.of_mut(kind).take(name));
        gone.extend(taken);
        confirm(&mut reply, kind.unsubscribed(), Some(name), shown_count(subs.as_deref(), kind));
    }
    if named.is_empty() {
        confirm(&mut reply, kind.unsubscribed(), None, shown_count(subs.as_deref(), kind));
    }
    if subs.as_ref().is_some_and(|subs| subs.is_empty()) {
        *subs = None;
    }
    let is_over = subs.is_none();
    mark(session);
    if is_over {
        close_all(hub, token);
    } else if !gone.is_empty() {
        let mut request = Vec::new();
        words(&mut request, kind.unsubscribed(), &gone);
        for id in links_of(hub, token) {
            hub.send_raw_on(id, &request);
        }
    }
    hub.push_raw(token, &out.to_vec());
    Flow::Go
}

fn shown_count(subs: Option<&Subscriptions>, kind: Kind) -> usize {
    subs.map_or(0, |subs| subs.shown_count(kind))
}

fn confirm(reply: &mut Reply<'_>, word: &[u8], name: Option<&[u8]>, count: usize) {
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.count(count);
}

fn words(out: &mut Vec<u8>, word: &[u8], names: &[Name]) {
    encode::array(out, names.len() + 1);
    encode::bulk(out, word);
    names.iter().for_each(|name| encode::bulk(out, name));
}

fn request_of(kind: Kind, names: &[Name]) -> Vec<u8> {
    let mut request = Vec::new();
    words(&mut request, kind.subscribed(), names);
    request
}

fn links_of(hub: &mut Hub, token: Token) -> Vec<LinkId> {
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return Vec::new();
    };
    state(session).subs.iter().flat_map(|subs| &subs.links).map(|link| link.id).collect()
}

/// Sends a subscription whose confirmations are counted.
fn send(hub: &mut Hub, token: Token, id: LinkId, request: &[u8], count: usize) {
    if let Some(link) = find(hub, token, id) {
        link.pending += count;
    }
    hub.send_raw_on(id, request);
}

fn find(hub: &mut Hub, token: Token, id: LinkId) -> Option<&mut SubLink> {
    let session = hub.session(token).filter(|session| session.extra.is_some())?;
    state(session).subs.as_mut()?.links.iter_mut().find(|link| link.id == id)
}

/// Opens links to servers that have none, and subscribes there to all that the session is subscribed
/// to; closes those to servers that serve nothing any more.
fn connect(hub: &mut Hub, token: Token, protocol: Protocol) {
    let version = hub.routes.servers_version();
    let primaries = hub.primaries();
    let Some(session) = hub.session(token) else {
        return;
    };
    let Some(subs) = &mut state(session).subs else {
        return;
    };
    if subs.complete_for == Some(version) {
        return;
    }
    subs.complete_for = Some(version);
    let is_needless = |link: &SubLink| !primaries.contains(&link.backend);
    let needless: Vec<LinkId> =
        subs.links.iter().filter(|l| is_needless(l)).map(|link| link.id).collect();
    subs.links.retain(|link| !is_needless(link));
    let missing: Vec<BackendId> = primaries
        .iter()
        .copied()
        .filter(|id| subs.links.iter().all(|link| link.backend != *id))
        .collect();
    needless.into_iter().for_each(|id| hub.close_link(id));
    if missing.is_empty() {
        return;
    }
    let (requests, count) = all_names(hub, token);
    for backend in missing {
        let on_link = Dedicated { unsolicited, lost };
        match hub.dedicate(token, backend, protocol, on_link) {
            Ok(id) => {
                if let Some(session) = hub.session(token)
                    && let Some(subs) = &mut state(session).subs
                {
                    subs.links.push(SubLink { id, backend, pending: 0 });
                }
                send(hub, token, id, &requests, count);
            }
            Err(error) => {
                tracing::warn!(%error, "a server cannot be subscribed to");
                if let Some(session) = hub.session(token)
                    && let Some(subs) = &mut state(session).subs
                {
                    subs.complete_for = None;
                }
            }
        }
    }
}

/// The requests that subscribe to all that a session is subscribed to, and how many confirmations
/// they get.
fn all_names(hub: &mut Hub, token: Token) -> (Vec<u8>, usize) {
    let (mut requests, mut count) = (Vec::new(), 0);
    let subs = hub.session(token).and_then(|session| session.client.subs.as_deref());
    for kind in KINDS {
        let names: Vec<Name> = subs.iter().flat_map(|subs| subs.of(kind)).cloned().collect();
        if !names.is_empty() {
            words(&mut requests, kind.subscribed(), &names);
            count += names.len();
        }
    }
    (requests, count)
}

/// Tells the client that it is subscribed, once every server has said so.
fn confirm_if_ready(hub: &mut Hub, token: Token) {
    let now = hub.now();
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return;
    };
    let Some(subs) = &mut state(session).subs else {
        return;
    };
    let is_ready = subs.links.iter().all(|link| link.pending == 0);
    let is_late = subs.waiting.as_ref().is_some_and(|(_, _, since)| now.0 - since.0 > CONFIRM_MS);
    if (is_ready || is_late)
        && let Some((pause, text, _)) = subs.waiting.take()
    {
        hub.push_raw(token, &text);
        pause.end(hub);
    }
}

/// What a message is about: its first word.
fn first_word(message: &[u8]) -> Option<&[u8]> {
    let mut lines = message.split(|&byte| byte == b'\n');
    let is_frame = matches!(lines.next()?.first()?, b'*' | b'>');
    let is_word = lines.next()?.first() == Some(&b'$');
    lines.next().and_then(|line| line.strip_suffix(b"\r")).filter(|_| is_frame && is_word)
}

/// Something has come on one of the links.
fn unsolicited(hub: &mut Hub, token: Token, id: LinkId, bytes: &[u8]) {
    match first_word(bytes) {
        Some(b"message" | b"pmessage" | b"smessage") => {
            let (_, protocol) = wide::state_of(hub, token);
            let mut message = bytes.to_vec();
            // The session may have changed its protocol since.
            message[0] = if protocol == Protocol::Resp3 { b'>' } else { b'*' };
            hub.push_raw(token, &message);
        }
        Some(b"subscribe" | b"psubscribe" | b"ssubscribe") => {
            if let Some(link) = find(hub, token, id) {
                link.pending = link.pending.saturating_sub(1);
            }
            confirm_if_ready(hub, token);
        }
        Some(_) => {}
        // An error, or nonsense: without its subscription the link is of no use.
        None => {
            tracing::warn!(
                reply = %String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).trim_end(),
                "a server does not let a session subscribe"
            );
            forget(hub, token, id);
            hub.close_link(id);
            confirm_if_ready(hub, token);
        }
    }
}

fn forget(hub: &mut Hub, token: Token, id: LinkId) {
    let now = hub.now();
    if let Some(session) = hub.session(token).filter(|session| session.extra.is_some())
        && let Some(subs) = &mut state(session).subs
    {
        subs.links.retain(|link| link.id != id);
        subs.complete_for = None;
        subs.retry_at = Ms(now.0 + RETRY_MS);
    }
}

fn lost(hub: &mut Hub, token: Token, id: LinkId, _why: &LinkError) {
    forget(hub, token, id);
    confirm_if_ready(hub, token);
}

fn close_all(hub: &mut Hub, token: Token) {
    let Some(session) = hub.session(token).filter(|session| session.extra.is_some()) else {
        return;
    };
    if let Some(subs) = state(session).subs.take() {
        subs.links.into_iter().for_each(|link| hub.close_link(link.id));
        if let Some((pause, _, _)) = subs.waiting {
            pause.end(hub);
        }
    }
}

/// Ends all subscriptions without a word: RESET.
pub(crate) fn leave(hub: &mut Hub, token: Token) {
    close_all(hub, token);
    if let Some(session) = hub.session(token) {
        session.client.subs = None;
        mark(session);
    }
}

/// Subscribes on servers that have joined or come back, and lets go of those that left.
pub(crate) fn look_after(hub: &mut Hub, token: Token) {
    let (now, version) = (hub.now(), hub.routes.servers_version());
    let (_, protocol) = wide::state_of(hub, token);
    let Some(session) = hub.session(token).filter(|session| !session.closing) else {
        return;
    };
    let Some(subs) = &mut state(session).subs else {
        return;
    };
    if subs.complete_for != Some(version) && now >= subs.retry_at {
        subs.retry_at = Ms(now.0 + RETRY_MS);
        connect(hub, token, protocol);
    }
    confirm_if_ready(hub, token);
}

#[cfg(test)]
mod tests {
    use super::first_word;

    #[test]
    fn first_word_of_a_message_is_found() {
        assert_eq!(
            first_word(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n"),
            Some(&b"message"[..])
        );
        assert_eq!(
            first_word(b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
            Some(&b"subscribe"[..])
        );
        for strange in [&b"-ERR x\r\n"[..], b"", b"*0\r\n", b"+OK\r\n", b"*1\r\n:1\r\n"] {
            assert_eq!(first_word(strange), None, "{strange:?}");
        }
    }
}
