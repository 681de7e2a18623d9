//! Calls that concern the whole cluster: asked of every server that serves slots, and answered with
//! the sum. A cluster with slots that nobody serves has no such sum, and the call is refused.
//!
//! Such a call waits until all earlier calls of its session have been answered, and the next one
//! waits for it: it runs on links of which none is the one that those went by.

use std::collections::BTreeMap;

use cordis_engine::commands::args::Args;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::reply::{OutBuf, Protocol, Reply};
use cordis_engine::resp::value::{Value, ValueDecoder, ValueLimits};
use cordis_engine::runtime::ring::Token;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::slots::map::ClusterMap;
use cordis_engine::units::SlotId;

use crate::asks::To;
use crate::census;
use crate::encode;
use crate::hub::Hub;
use crate::info;
use crate::link::LinkError;
use crate::local::{Pause, fail};
use crate::request::link_error_reply;
use crate::scan;
use crate::stats;
use crate::ways::{Call, Flow, Way, Ways};

/// Puts the commands of this file in their place.
pub(crate) fn register(ways: &mut Ways) {
    ways.local("dbsize", |hub, call| all(hub, call, sum));
    ways.local("flushall", |hub, call| all(hub, call, all_ok));
    ways.local("flushdb", |hub, call| all(hub, call, all_ok));
    ways.local("keys", |hub, call| all(hub, call, concat));
    ways.local("randomkey", randomkey);
    ways.local("info", info::info);
    ways.local("scan", scan::scan);
    ways.local("slotsinfo", slotsinfo);
    ways.local("slotsscan", slotsscan);
    ways.local("publish", by_channel);
    ways.local("spublish", by_channel);
    // Tests of the original, which it lets through: both are answered by one server.
    ways.local("pfselftest", anywhere);
    ways.set("pfdebug", Way::Keys);
    // The only one of its kind that a client may call, as in the original: it loads keys.
    ways.set("slotsrestore", Way::Keys);
    for name in ["channels", "numpat", "numsub", "shardchannels", "shardnumsub"] {
        // Every subscriber is subscribed everywhere, so any server knows them all.
        ways.local(&format!("pubsub|{name}"), anywhere);
    }
}

/// Whether earlier calls of a session have to be answered first.
pub(crate) fn must_wait(hub: &mut Hub, token: Token) -> bool {
    hub.session(token).is_some_and(|session| session.unanswered() > 0)
}

/// The database and the protocol of a session.
pub(crate) fn state_of(hub: &mut Hub, token: Token) -> (u8, Protocol) {
    let state = hub.session(token).map(|session| (session.client.db.0, session.client.protocol));
    state.unwrap_or((0, Protocol::Resp2))
}

/// Why a call over all slots cannot be answered: the first slot that nobody serves.
pub(crate) fn offline(hub: &Hub) -> Option<LinkError> {
    let is_missing = |slot: &SlotId| hub.backend_of(*slot).is_none();
    let slot = SlotId::all().find(is_missing)?;
    Some(LinkError::new(format!("handle request, slot {slot} is not ready, may be offline")))
}

/// Makes one reply of those of all servers; theirs are not errors.
type Merge = fn(&[Vec<u8>], &mut Reply<'_>) -> Result<(), LinkError>;

/// Asks all servers the call itself and merges their replies.
fn all(hub: &mut Hub, call: &Call<'_>, merge: Merge) -> Flow {
    ask_everybody(hub, call, &[call.bytes.to_vec()], merge)
}

/// Asks all servers these requests each, and merges the replies: those of the first server, then
/// those of the second, and so on.
fn ask_everybody(hub: &mut Hub, call: &Call<'_>, requests: &[Vec<u8>], merge: Merge) -> Flow {
    if must_wait(hub, call.session) {
        return Flow::Hold;
    }
    let place = hub.reserve(call.session);
    let (db, protocol) = state_of(hub, call.session);
    let pause = Pause::new(hub, call.session, call.command);
    let end = pause.clone();
    census::ask(hub, db, requests.to_vec(), move |hub, answers| {
        let reply = match answers {
            Ok(answers) => merged(answers, merge, protocol),
            Err(error) => link_error_reply(&error),
        };
        hub.fill_raw(place, &reply);
        end.end(hub);
    });
    pause.flow()
}

/// One reply of all: the first error if there is one.
fn merged(answers: Vec<Result<Vec<u8>, LinkError>>, merge: Merge, protocol: Protocol) -> Vec<u8> {
    let mut replies = Vec::with_capacity(answers.len());
    for answer in answers {
        match answer {
            Ok(reply) if reply.first() == Some(&b'-') => return reply,
            Ok(reply) => replies.push(reply),
            Err(error) => return link_error_reply(&error),
        }
    }
    let mut out = OutBuf::default();
    match merge(&replies, &mut Reply::new(&mut out, protocol)) {
        Ok(()) => out.to_vec(),
        Err(error) => link_error_reply(&error),
    }
}

fn strange(what: &str) -> LinkError {
    LinkError::new(format!("handle response, a backend answered {what}"))
}

/// The number of an integer reply.
pub(crate) fn int_of(reply: &[u8]) -> Result<i64, LinkError> {
    let digits = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    digits.and_then(parse_i64).ok_or_else(|| strange("no integer"))
}

/// The number that a reply of this kind announces, and what follows.
fn header(reply: &[u8], kind: u8) -> Option<(i64, &[u8])> {
    let rest = reply.strip_prefix(&[kind])?;
    let end = memchr::memchr(b'\r', rest)?;
    Some((parse_i64(&rest[..end])?, rest.get(end + 2..)?))
}

/// The bytes of a bulk string, or of a verbatim string.
pub(crate) fn bulk_of(reply: &[u8]) -> Result<&[u8], LinkError> {
    let text = header(reply, b'$').and_then(|(len, rest)| rest.get(..usize::try_from(len).ok()?));
    text.ok_or_else(|| strange("no string"))
}

/// A whole reply as a value.
pub(crate) fn value_of(reply: &[u8]) -> Result<Value, LinkError> {
    let limits = ValueLimits { bytes_max: 1 << 30, elements_max: 1 << 26, depth_max: 8 };
    let mut decoder = ValueDecoder::new(limits);
    decoder.extend(reply);
    match decoder.next_value() {
        Ok(Some(value)) => Ok(value),
        _ => Err(strange("something that is no whole reply")),
    }
}

fn sum(replies: &[Vec<u8>], reply: &mut Reply<'_>) -> Result<(), LinkError> {
    let mut total: i64 = 0;
    for one in replies {
        total = total.saturating_add(int_of(one)?);
    }
    reply.int(total);
    Ok(())
}

fn all_ok(replies: &[Vec<u8>], reply: &mut Reply<'_>) -> Result<(), LinkError> {
    if replies.iter().any(|one| !one.starts_with(b"+OK")) {
        return Err(strange("something else than OK"));
    }
    reply.ok();
    Ok(())
}

fn concat(replies: &[Vec<u8>], reply: &mut Reply<'_>) -> Result<(), LinkError> {
    let parts: Option<Vec<(i64, &[u8])>> = replies.iter().map(|one| header(one, b'*')).collect();
    let parts = parts.filter(|parts| parts.iter().all(|(count, _)| *count >= 0));
    let parts = parts.ok_or_else(|| strange("no array"))?;
    reply.array(parts.iter().map(|(count, _)| *count as usize).sum());
    parts.iter().for_each(|(_, elements)| reply.raw(elements));
    Ok(())
}

/// RANDOMKEY: of the servers that have keys one by chance, by how many they have.
fn randomkey(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let requests = [encode::to_vec(&[b"DBSIZE"]), encode::to_vec(&[b"RANDOMKEY"])];
    ask_everybody(hub, call, &requests, |replies, reply| {
        let mut total: u64 = 0;
        let mut keys = Vec::new();
        for pair in replies.chunks_exact(2) {
            // A server whose last key has gone meanwhile says null.
            if let Ok(key) = bulk_of(&pair[1]) {
                total += int_of(&pair[0])?.max(1) as u64;
                keys.push((total, key));
            }
        }
        let drawn = chance() % total.max(1);
        match keys.iter().find(|(up_to, _)| drawn < *up_to) {
            Some((_, key)) => reply.bulk(key),
            None => reply.null(),
        }
        Ok(())
    })
}

/// A number that nobody has to be able to foresee or not: it spreads draws over servers.
fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// SLOTSINFO [start [count]] of the cluster, or SLOTSINFO address of one server.
fn slotsinfo(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let addr = call.args.get(1).map(String::from_utf8_lossy);
    if let Some(addr) = addr.filter(|addr| addr.contains(':')) {
        let found = hub.backends().iter().find(|(_, backend)| backend.addr == addr);
        let Some((id, _)) = found.filter(|_| call.args.len() == 2) else {
            let text = format!("ERR backend server '{addr}' not found");
            return fail(hub, call.session, &CommandError::as_asked(text.as_bytes()));
        };
        return ask_one(hub, call, To::Backend(id), &encode::to_vec(&[b"SLOTSINFO"]));
    }
    all(hub, call, |replies, reply| {
        let mut sizes: BTreeMap<i64, i64> = BTreeMap::new();
        for one in replies {
            let value = value_of(one)?;
            for pair in value.as_array().unwrap_or_default() {
                let number = |i: usize| pair.as_array()?.get(i)?.as_int();
                let (slot, size) = number(0).zip(number(1)).ok_or_else(|| strange("no slots"))?;
                *sizes.entry(slot).or_default() += size;
            }
        }
        reply.array(sizes.len());
        for (slot, size) in sizes {
            reply.array(2);
            reply.int(slot);
            reply.int(size);
        }
        Ok(())
    })
}

/// SLOTSSCAN slot cursor [COUNT n]: by its slot. What is no slot is told by whichever server.
fn slotsscan(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let slot = parse_i64(call.args.at(1)).and_then(|n| SlotId::new(u64::try_from(n).ok()?));
    hub.forward(call, &[slot.unwrap_or_else(first_slot)])
}

fn first_slot() -> SlotId {
    SlotId::from_crc(0)
}

/// PUBLISH: to the server of the channel's slot, wherever it comes from, so that each subscriber, who
/// is subscribed on all servers, gets it once.
fn by_channel(hub: &mut Hub, call: &Call<'_>) -> Flow {
    hub.forward(call, &[slot_of(call.args.at(1))])
}

fn anywhere(hub: &mut Hub, call: &Call<'_>) -> Flow {
    hub.forward(call, &[first_slot()])
}

/// Asks one server and passes its reply on.
pub(crate) fn ask_one(hub: &mut Hub, call: &Call<'_>, to: To, request: &[u8]) -> Flow {
    let (db, protocol) = state_of(hub, call.session);
    let place = hub.reserve(call.session);
    let (command, began) = (call.command, hub.clock.ticks());
    let done = move |hub: &mut Hub, answer: Result<&[u8], &LinkError>| {
        stats::note_own(hub, command, began, answer.is_err());
        match answer {
            Ok(reply) => hub.fill_raw(place, reply),
            Err(error) => hub.fill_raw(place, &link_error_reply(error)),
        }
    };
    hub.ask(to, db, protocol, request, Box::new(done));
    Flow::Go
}

/// SLOTSMAPPING [slot]: the table of routes, in the original's form.
pub(crate) fn slotsmapping(hub: &mut Hub, token: Token, args: &Args<'_>) -> Flow {
    let map = hub.map().clone();
    match args.len() {
        1 => hub.answer(token, |reply| {
            let all = SlotId::all();
            reply.array(all.len());
            all.for_each(|slot| slot_mapping(&map, slot, reply));
        }),
        2 => {
            let shown = String::from_utf8_lossy(args.at(1));
            let slot = match parse_i64(args.at(1)) {
                None => Err(format!("ERR parse slotnum '{shown}' failed, not an integer")),
                Some(n) => u64::try_from(n)
                    .ok()
                    .and_then(SlotId::new)
                    .ok_or_else(|| format!("ERR parse slotnum '{shown}' failed, out of range")),
            };
            match slot {
                Ok(slot) => hub.answer(token, |reply| slot_mapping(&map, slot, reply)),
                Err(text) => return fail(hub, token, &CommandError::as_asked(text.as_bytes())),
            }
        }
        _ => return fail(hub, token, &CommandError::wrong_arity("slotsmapping")),
    }
    Flow::Go
}

fn slot_mapping(map: &ClusterMap, slot: SlotId, reply: &mut Reply<'_>) {
    let range = map.slot(slot);
    let primary = |group| map.group(group).and_then(|group| group.primary());
    let addr = |group| primary(group).map_or("", |server| server.addr.as_str());
    reply.array(4);
    reply.simple(&slot.to_string());
    reply.simple(addr(range.group));
    reply.simple(addr(range.migrate_from));
    // Replicas that reads may go to: none are used.
    reply.null_array();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged_text(replies: &[&str], merge: Merge) -> String {
        let answers = replies.iter().map(|reply| Ok(reply.as_bytes().to_vec())).collect();
        String::from_utf8_lossy(&merged(answers, merge, Protocol::Resp2)).into_owned()
    }

    #[test]
    fn replies_of_all_servers_become_one() {
        assert_eq!(merged_text(&[":2\r\n", ":40\r\n"], sum), ":42\r\n");
        assert_eq!(merged_text(&["+OK\r\n", "+OK\r\n"], all_ok), "+OK\r\n");
        let (some, none) = ("*1\r\n$1\r\na\r\n", "*0\r\n");
        assert_eq!(merged_text(&[some, none, some], concat), "*2\r\n$1\r\na\r\n$1\r\na\r\n");
        assert_eq!(merged_text(&[":1\r\n", "-ERR x\r\n"], sum), "-ERR x\r\n");
    }

    #[test]
    fn strange_replies_are_errors_and_no_panics() {
        for strange in ["", "+", ":x\r\n", "*-1\r\n", "$5\r\nab", "*99\r\n"] {
            assert!(merged_text(&[strange], sum).starts_with('-'), "{strange}");
            assert!(merged_text(&[strange], all_ok).starts_with('-'), "{strange}");
            let _ = merged_text(&[strange], concat);
            assert!(bulk_of(strange.as_bytes()).is_err());
            assert!(value_of(strange.as_bytes()).is_err() || strange == "*-1\r\n");
        }
    }
}
