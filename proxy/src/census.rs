//! Asking everybody: questions to all servers, with the certainty that together they served every
//! slot while they answered.
//!
//! The proxy's map may be old, and slots may change hands between two answers; a sum that misses a
//! slot would be wrong without anybody noticing. So a server that knows its slots is asked for them
//! before the question and behind it, on one link. Unless all slots were served, and by the same
//! servers throughout, the proxy learns who serves the missing ones and asks everybody again.

use cordis_engine::resp::reply::Protocol;
use cordis_engine::resp::value::Value;
use cordis_engine::slots::map::ServerKind;
use cordis_engine::units::{Ms, SLOT_COUNT, SlotId};

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
    done: Done,
}

/// Asks all servers these requests each.
pub(crate) fn ask(
    hub: &mut Hub,
    db: u8,
    requests: Vec<Vec<u8>>,
    done: impl FnOnce(&mut Hub, Result<Answers, LinkError>) + 'static,
) {
    let deadline = Ms(hub.now().0 + hub.settings.backend_recv_timeout_ms);
    attempt(hub, Census { db, requests, deadline, done: Box::new(done) });
}

fn attempt(hub: &mut Hub, census: Census) {
    if let Some(error) = wide::offline(hub) {
        return (census.done)(hub, Err(error));
    }
    let servers: Vec<(BackendId, bool)> = hub
        .primaries()
        .into_iter()
        .map(|id| (id, hub.backend(id).kind == ServerKind::Cordis))
        .collect();
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
fn take(hub: &mut Hub, census: Census, servers: &[(BackendId, bool)], answers: Answers) {
    let mut answers = answers.into_iter();
    let mut kept = Vec::new();
    let mut served = [false; SLOT_COUNT];
    let mut is_steady = true;
    for &(id, tells) in servers {
        let before = if tells { answers.next() } else { None };
        kept.extend(answers.by_ref().take(census.requests.len()));
        let after = if tells { answers.next() } else { None };
        is_steady &= before == after;
        match before.and_then(Result::ok).and_then(|reply| served_by(&reply)) {
            Some(ranges) => {
                ranges.iter().for_each(|&(from, to)| served[from..=to].fill(true));
            }
            // It cannot tell, or does not want to: what is known of it has to do.
            None => {
                let own = |slot: &SlotId| hub.backend_of(*slot) == Some(id);
                SlotId::all().filter(own).for_each(|slot| served[slot.index()] = true);
            }
        }
    }
    let missing: Vec<usize> = (0..SLOT_COUNT).filter(|&slot| !served[slot]).collect();
    // An error is an answer that stands by itself.
    let has_failed = kept.iter().any(|answer| !matches!(answer, Ok(r) if !r.starts_with(b"-")));
    if has_failed || (is_steady && missing.is_empty()) {
        return (census.done)(hub, Ok(kept));
    }
    if hub.now() >= census.deadline {
        let error = LinkError::new("handle response, slots are changing hands all the time");
        return (census.done)(hub, Err(error));
    }
    find(hub, census, &missing);
}

/// Learns who serves these slots, by asking for a key of each that nobody has, and begins anew.
fn find(hub: &mut Hub, census: Census, missing: &[usize]) {
    let question = |&slot: &usize| {
        let key = key_in(slot as u16);
        (To::Slot(SlotId::from_crc(slot as u32)), encode::to_vec(&[b"EXISTS", &key]))
    };
    // With none missing one is asked all the same: it takes a turn.
    let all = if missing.is_empty() { &[0][..] } else { missing };
    let questions: Vec<(To, Vec<u8>)> = all.iter().take(MISSING_MAX).map(question).collect();
    let again =
        move |hub: &mut Hub, answers: Answers| match answers.into_iter().find_map(Result::err) {
            Some(error) => (census.done)(hub, Err(error)),
            None => attempt(hub, census),
        };
    hub.ask_all(&questions, 0, Protocol::Resp2, Box::new(again));
}

/// The ranges of slots that a server serves, by what it answers to CORDIS SLOTS.
fn served_by(reply: &[u8]) -> Option<Vec<(usize, usize)>> {
    let Value::Array(rows) = wide::value_of(reply).ok()? else {
        return None;
    };
    let mut ranges = Vec::new();
    for row in &rows {
        let row = row.as_array()?;
        let bound = |i: usize| usize::try_from(row.get(i)?.as_int()?).ok();
        let (from, to, state) = (bound(0)?, bound(1)?, row.get(2)?.as_text()?);
        if from > to || to >= SLOT_COUNT {
            return None;
        }
        if matches!(state, "owned" | "leaving" | "frozen") {
            ranges.push((from, to));
        }
    }
    Some(ranges)
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
        assert_eq!(served_by(text.as_bytes()), Some(vec![(0, 9), (20, 20)]));
        assert_eq!(served_by(b"-ERR unknown command\r\n"), None);
        assert_eq!(served_by(format!("*1\r\n{}", row(9, 1024, "owned")).as_bytes()), None);
        assert_eq!(served_by(b"*1\r\n:1\r\n"), None);
    }
}
