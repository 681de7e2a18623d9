//! Asking everybody: questions to all servers, with the certainty that together they served every
//! slot while they answered.
//!
//! The proxy's map may be old, and slots may change hands between two answers; a sum that misses a
//! slot would be wrong without anybody noticing. So a server that knows its slots is asked for them
//! before the question and behind it, on one link. What it answered counts if it served the same
//! slots throughout, whatever else has become of them. Otherwise it is asked again, and so is whoever
//! turns out to serve a slot that nobody has spoken for: they alone, because what is asked may change
//! something.

use cordis_engine::resp::reply::Protocol;
use cordis_engine::resp::value::Value;
use cordis_engine::slots::map::ServerKind;
use cordis_engine::slots::state::SlotSet;
use cordis_engine::units::{Ms, SlotId};

use crate::asks::To;
use crate::dedicated::key_in;
use crate::encode;
use crate::hub::Hub;
use crate::link::LinkError;
use crate::route::BackendId;
use crate::wide;

/// Slots whose server is looked for at once.
const MISSING_MAX: usize = 64;

/// The answers of all servers: those of the first to all requests, then those of the second.
type Answers = Vec<Result<Vec<u8>, LinkError>>;
/// Takes the answers, or why there are none that make a whole.
type Done = Box<dyn FnOnce(&mut Hub, Result<Answers, LinkError>)>;

struct Census {
    db: u8,
    requests: Vec<Vec<u8>>,
    deadline: Ms,
    count: Count,
    done: Done,
}

/// What the servers have answered by now.
#[derive(Debug, Default)]
struct Count {
    parts: Vec<Part>,
}

/// What one server has answered.
#[derive(Debug)]
struct Part {
    server: BackendId,
    /// The slots that it served then.
    slots: SlotSet,
    /// None if it has to be asked again.
    answers: Option<Answers>,
}

/// A server's answers, and the slots that it served before and behind them.
struct Heard {
    server: BackendId,
    before: SlotSet,
    after: SlotSet,
    answers: Answers,
}

impl Count {
    /// Takes what has been heard of some servers at about the same time.
    fn take(&mut self, all: Vec<Heard>) {
        let gained: Vec<(BackendId, SlotSet)> = all
            .iter()
            .map(|heard| {
                let old = self.parts.iter().find(|part| part.server == heard.server);
                let old = old.map_or(heard.before, |part| part.slots);
                (heard.server, heard.after.iter().filter(|slot| !old.contains(*slot)).collect())
            })
            .collect();
        for Heard { server, before, after, answers } in all {
            self.parts.retain(|part| part.server != server);
            let answers = (before == after).then_some(answers);
            self.parts.push(Part { server, slots: after, answers });
        }
        for (server, gained) in gained.iter().filter(|(_, gained)| !gained.is_empty()) {
            // What somebody else has answered for these slots is going to be answered again.
            let others = self.parts.iter_mut().filter(|part| part.server != *server);
            others
                .filter(|part| gained.iter().any(|slot| part.slots.contains(slot)))
                .for_each(|part| part.answers = None);
        }
    }

    /// Whether a server has answered and need not be asked again.
    fn has(&self, server: BackendId) -> bool {
        self.parts.iter().any(|part| part.server == server && part.answers.is_some())
    }

    /// Has a server asked again.
    fn ask_again(&mut self, server: BackendId) {
        let part = self.parts.iter_mut().find(|part| part.server == server);
        part.into_iter().for_each(|part| part.answers = None);
    }

    /// Slots that nobody has spoken for.
    fn missing(&self) -> Vec<SlotId> {
        let is_there = |slot: &SlotId| self.parts.iter().any(|part| part.slots.contains(*slot));
        SlotId::all().filter(|slot| !is_there(slot)).collect()
    }

    /// Whether nobody has to be asked again.
    fn is_steady(&self) -> bool {
        self.parts.iter().all(|part| part.answers.is_some())
    }

    fn into_answers(self) -> Answers {
        self.parts.into_iter().filter_map(|part| part.answers).flatten().collect()
    }
}

/// Asks all servers these requests each.
pub(crate) fn ask(
    hub: &mut Hub,
    db: u8,
    requests: Vec<Vec<u8>>,
    done: impl FnOnce(&mut Hub, Result<Answers, LinkError>) + 'static,
) {
    let deadline = Ms(hub.now().0 + hub.settings.backend_recv_timeout_ms);
    let count = Count::default();
    attempt(hub, Census { db, requests, deadline, count, done: Box::new(done) });
}

fn attempt(hub: &mut Hub, mut census: Census) {
    if let Some(error) = wide::offline(hub) {
        return (census.done)(hub, Err(error));
    }
    let mut servers = hub.primaries();
    // Who serves nothing any more is not asked again.
    census.count.parts.retain(|part| part.answers.is_some() || servers.contains(&part.server));
    servers.retain(|&id| !census.count.has(id));
    let servers: Vec<(BackendId, bool)> =
        servers.into_iter().map(|id| (id, hub.backend(id).kind == ServerKind::Cordis)).collect();
    let which = encode::to_vec(&[b"CORDIS", b"SLOTS"]);
    let mut questions: Vec<(To, Vec<u8>)> = Vec::new();
    for &(id, tells) in &servers {
        let around = tells.then(|| which.clone());
        let all = around.iter().chain(&census.requests).chain(&around);
        questions.extend(all.map(|request| (To::Backend(id), request.clone())));
    }
    let db = census.db;
    let take = move |hub: &mut Hub, answers: Answers| take(hub, census, &servers, answers);
    hub.ask_all(&questions, db, Protocol::Resp2, Box::new(take));
}

/// Looks at what the servers say they served, and hands the answers on or asks again.
fn take(hub: &mut Hub, mut census: Census, servers: &[(BackendId, bool)], answers: Answers) {
    let mut answers = answers.into_iter();
    let mut all = Vec::with_capacity(servers.len());
    for &(server, tells) in servers {
        let before = if tells { answers.next() } else { None };
        let kept: Answers = answers.by_ref().take(census.requests.len()).collect();
        let after = if tells { answers.next() } else { None };
        let told = |hub: &mut Hub, answer: Option<Result<Vec<u8>, LinkError>>| {
            let reply = answer?.ok()?;
            if reply.starts_with(b"-") {
                hub.note_distrust(server, &reply);
            }
            served_by(&reply)
        };
        // One that cannot tell, or does not want to: what is known of it has to do.
        let own =
            |hub: &Hub| SlotId::all().filter(|s| hub.backend_of(*s) == Some(server)).collect();
        let before = told(hub, before).unwrap_or_else(|| own(hub));
        let after = told(hub, after).unwrap_or_else(|| own(hub));
        all.push(Heard { server, before, after, answers: kept });
    }
    // An error is an answer that stands by itself.
    let is_error = |answer: &Result<Vec<u8>, _>| !matches!(answer, Ok(r) if !r.starts_with(b"-"));
    if all.iter().flat_map(|heard| &heard.answers).any(is_error) {
        let kept = all.into_iter().flat_map(|heard| heard.answers).collect();
        return (census.done)(hub, Ok(kept));
    }
    census.count.take(all);
    let missing = census.count.missing();
    if missing.is_empty() && census.count.is_steady() {
        return (census.done)(hub, Ok(census.count.into_answers()));
    }
    if hub.now() >= census.deadline {
        let error = LinkError::new("handle response, slots are changing hands all the time");
        return (census.done)(hub, Err(error));
    }
    find(hub, census, missing);
}

/// Learns who serves these slots, by asking for a key of each that nobody has, and goes on with them.
fn find(hub: &mut Hub, mut census: Census, mut missing: Vec<SlotId>) {
    missing.truncate(MISSING_MAX);
    let question = |&slot: &SlotId| {
        let key = key_in(slot.index() as u16);
        (To::Slot(slot), encode::to_vec(&[b"EXISTS", key]))
    };
    // With none missing one is asked all the same: it takes a turn.
    let all = if missing.is_empty() { &[SlotId::from_crc(0)][..] } else { &missing };
    let questions: Vec<(To, Vec<u8>)> = all.iter().map(question).collect();
    let again = move |hub: &mut Hub, answers: Answers| {
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            return (census.done)(hub, Err(error));
        }
        for owner in missing.iter().filter_map(|slot| hub.backend_of(*slot)) {
            census.count.ask_again(owner);
        }
        attempt(hub, census);
    };
    hub.ask_all(&questions, 0, Protocol::Resp2, Box::new(again));
}

/// The slots that a server serves, by what it answers to CORDIS SLOTS.
fn served_by(reply: &[u8]) -> Option<SlotSet> {
    let Value::Array(rows) = wide::value_of(reply).ok()? else {
        return None;
    };
    let mut slots = SlotSet::default();
    for row in &rows {
        let row = row.as_array()?;
        let bound = |i: usize| SlotId::new(u64::try_from(row.get(i)?.as_int()?).ok()?);
        let (from, to, state) = (bound(0)?, bound(1)?, row.get(2)?.as_text()?);
        if from > to {
            return None;
        }
        if matches!(state, "owned" | "leaving" | "frozen") {
            SlotId::all().filter(|slot| (from..=to).contains(slot)).for_each(|slot| {
                slots.insert(slot);
            });
        }
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_are_served_are_read_from_the_reply() {
        let row = |from: u16, to: u16, state: &str| {
            format!("*6\r\n:{from}\r\n:{to}\r\n+{state}\r\n:1\r\n:0\r\n$0\r\n\r\n")
        };
        let text = format!(
            "*4\r\n{}{}{}{}",
            row(0, 9, "owned"),
            row(10, 19, "away"),
            row(20, 20, "frozen"),
            row(21, 1023, "importing")
        );
        assert_eq!(served_by(text.as_bytes()), SlotSet::parse("0-9,20"));
        assert_eq!(served_by(b"-ERR unknown command\r\n"), None);
        assert_eq!(served_by(format!("*1\r\n{}", row(9, 1024, "owned")).as_bytes()), None);
        assert_eq!(served_by(b"*1\r\n:1\r\n"), None);
    }
}
