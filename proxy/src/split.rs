//! Calls whose keys are with several backends: split into one request per backend's core, not per
//! key, and their replies merged. A part that a server refused because a slot has moved is split
//! again by the routes of that moment.

use cordis_engine::commands::args::Args;
use cordis_engine::commands::spec::{Find, Merge};
use cordis_engine::commands::table::Command;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};
use cordis_engine::resp::reply::Protocol;
use cordis_engine::runtime::ring::Token;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SlotId;

use crate::asks::Answer;
use crate::encode;
use crate::hub::Hub;
use crate::intake::list_of;
use crate::link::{Consumer, LinkError};
use crate::merge::{Partial, merge};
use crate::request::Request;
use crate::route::{Apart, BackendId, Lane};
use crate::session::Place;
use crate::ways::{Call, Flow};

/// A call that was split.
#[derive(Debug)]
pub(crate) struct Gather {
    place: Place,
    command: &'static Command,
    key_count: usize,
    parts: Vec<Partial>,
    left: usize,
}

/// Keys that go one way.
#[derive(Debug)]
struct Share {
    lane: Lane,
    /// Indexes of the keys among the keys of the call.
    keys: Vec<u32>,
}

impl Hub {
    /// Sends a call on whose keys each stand for themselves.
    pub(crate) fn split(&mut self, call: &Call<'_>) -> Flow {
        let step = step_of(call.command);
        let key_count = (call.args.len() - 1) / step;
        if key_count <= 1 || !(call.args.len() - 1).is_multiple_of(step) {
            // Too few words: the server says what is wrong.
            let slot = slot_of(call.args.at(1));
            return self.forward_one(call.session.index, call.command, slot, call.bytes);
        }
        let slots = list_of(key_slots(call.args, step));
        match self.routes.peek_many(&slots) {
            Ok(lane) if slots.iter().all(|&slot| self.lane_of(slot) == lane) => {
                return self.forward_by_keys(call);
            }
            Ok(_) | Err(Apart::Backends | Apart::Busy) => {}
        }
        let is_write = call.command.spec.is_write();
        let Some(session) = self.session(call.session) else {
            return Flow::Stop;
        };
        if session.must_follow(&slots, !is_write) {
            return Flow::Hold;
        }
        let shares = self.shares(call.args, step);
        if self.shares_wait_for_room(&shares, call.session) {
            return Flow::Hold;
        }
        let Some(session) = self.session(call.session) else {
            return Flow::Stop;
        };
        session.wide_begins(&slots, !is_write);
        let (db, protocol) = (session.client.db.0, session.client.protocol);
        let place = self.reserve(call.session);
        self.seq += 1;
        let (seq, at) = (self.seq, self.ticks);
        let gather = self.gathers.insert(Gather {
            place,
            command: call.command,
            key_count,
            parts: Vec::new(),
            left: shares.len(),
        }) as u32;
        let mut requests = Vec::with_capacity(shares.len());
        for share in shares {
            let part = self.gathers[gather as usize].parts.len() as u32;
            let keys = if is_write { named(call.args, step, &share.keys) } else { Vec::new() };
            let facts = (seq, at, call.command.id, db, protocol);
            let consumer = Consumer::Part(gather, part);
            requests.push(part_request(call.args, step, &share.keys, consumer, facts));
            let partial = Partial { positions: share.keys, keys, reply: None };
            self.gathers[gather as usize].parts.push(partial);
        }
        requests.into_iter().for_each(|request| self.send_now(Box::new(request)));
        Flow::Go
    }

    /// Whether a session has to wait until there is room on the way of each share; it is told then.
    fn shares_wait_for_room(&mut self, shares: &[Share], token: Token) -> bool {
        let protocol = self.session(token).map_or(Protocol::Resp2, |s| s.client.protocol);
        // A share without a backend waits for its slot, and one without a link gets its error.
        shares.iter().filter(|share| share.lane.backend != BackendId::NONE).any(|share| {
            let link = self.link_for(share.lane, protocol);
            link.is_ok_and(|link| self.waits_for_room(link, token))
        })
    }

    /// The session whose request this is, or a part of it.
    pub(crate) fn session_of(&self, consumer: Consumer) -> Option<Token> {
        let place = match consumer {
            Consumer::Part(gather, _) => Some(self.gathers.get(gather as usize)?.place),
            other => other.place(),
        };
        place.map(|place| place.token)
    }

    fn lane_of(&self, slot: u16) -> Lane {
        let slot = SlotId::from_crc(u32::from(slot));
        self.routes.lane(slot).unwrap_or(Lane { backend: BackendId::NONE, index: 0 })
    }

    /// Which keys go which way. Those of slots that are being moved by the original's commands go
    /// alone, because each has to be asked for alone.
    fn shares(&self, args: &Args<'_>, step: usize) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        for (key, slot) in key_slots(args, step).enumerate() {
            let lane = self.lane_of(slot);
            let is_alone = self.routes.via(SlotId::from_crc(u32::from(slot))).is_some();
            let share = shares.iter_mut().find(|share| share.lane == lane && !is_alone);
            match share {
                Some(share) => share.keys.push(key as u32),
                None => {
                    let lane = if is_alone { ALONE } else { lane };
                    shares.push(Share { lane, keys: vec![key as u32] });
                }
            }
        }
        shares
    }

    /// A request's slots have come apart before it was run.
    pub(crate) fn split_again(&mut self, request: Request) {
        let Consumer::Part(gather, part) = request.consumer else {
            return self.split_whole(request);
        };
        let Some(command) = self.gathers.get(gather as usize).map(|gather| gather.command) else {
            return;
        };
        let step = step_of(command);
        let mut ranges = Vec::new();
        let Some(args) = words_of(&request.bytes, &mut ranges) else {
            return;
        };
        let shares = self.shares(&args, step);
        let (seq, at, db, protocol) = (request.seq, request.at, request.db, request.protocol);
        let gathered = &mut self.gathers[gather as usize];
        let old = std::mem::take(&mut gathered.parts[part as usize].positions);
        let old_keys = std::mem::take(&mut gathered.parts[part as usize].keys);
        gathered.left += shares.len() - 1;
        let mut requests = Vec::new();
        for (index, share) in shares.into_iter().enumerate() {
            let positions = share.keys.iter().map(|&key| old[key as usize]).collect();
            let keys = share.keys.iter().filter_map(|&key| old_keys.get(key as usize)).cloned();
            let partial = Partial { positions, keys: keys.collect(), reply: None };
            // The first takes the old one's place: nothing stays that nobody answers.
            let number = if index == 0 {
                gathered.parts[part as usize] = partial;
                part
            } else {
                gathered.parts.push(partial);
                gathered.parts.len() as u32 - 1
            };
            let facts = (seq, at, command.id, db, protocol);
            let consumer = Consumer::Part(gather, number);
            requests.push(part_request(&args, step, &share.keys, consumer, facts));
        }
        requests.into_iter().for_each(|request| self.submit(Box::new(request)));
    }

    /// A call went as a whole, and its slots are with several backends now.
    fn split_whole(&mut self, request: Request) {
        let mut ranges = Vec::new();
        let words = words_of(&request.bytes, &mut ranges);
        let command = words.and_then(|args| self.table.get(args.at(0)));
        let can_split = |command: &&Command| {
            request.replies == 1 && matches!(self.ways.of(command), crate::ways::Way::Split)
        };
        let (Some(command), Some(place)) = (command.filter(can_split), request.consumer.place())
        else {
            let call = Some((request.command, request.at));
            let error = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";
            return self.finish(request.consumer, call, Ok(error));
        };
        let step = step_of(command);
        let key_count = words.map_or(0, |args| (args.len() - 1) / step);
        let all: Vec<u32> = (0..key_count as u32).collect();
        let is_write = command.spec.is_write();
        let keys = words.filter(|_| is_write).map_or_else(Vec::new, |a| named(&a, step, &all));
        let gather = self.gathers.insert(Gather {
            place,
            command,
            key_count,
            parts: vec![Partial { positions: all, keys, reply: None }],
            left: 1,
        });
        let consumer = Consumer::Part(gather as u32, 0);
        self.split_again(Request { consumer, ..request });
    }

    /// A part has been answered.
    pub(crate) fn part_done(&mut self, gather: u32, part: u32, answer: Answer<'_>) {
        let gathered = &mut self.gathers[gather as usize];
        let reply = answer.map(<[u8]>::to_vec).map_err(LinkError::clone);
        gathered.parts[part as usize].reply = Some(reply);
        gathered.left -= 1;
        if gathered.left > 0 {
            return;
        }
        let Gather { place, command, key_count, parts, .. } = self.gathers.remove(gather as usize);
        let name = command.spec.name.to_ascii_uppercase();
        let reply = merge(command.spec.merge, &name, key_count, &parts);
        self.fill_raw(place, &reply);
    }
}

/// The lane of those that go alone: no other has it.
const ALONE: Lane = Lane { backend: BackendId::NONE, index: u16::MAX };

/// Words from one key to the next.
fn step_of(command: &Command) -> usize {
    let find = command.spec.keys.first().map(|spec| spec.find);
    match find {
        Some(Find::Range { step, .. }) => usize::from(step).max(1),
        _ if command.spec.merge == Merge::AllOk => 2,
        _ => 1,
    }
}

fn key_slots<'a>(args: &'a Args<'a>, step: usize) -> impl Iterator<Item = u16> + 'a {
    (1..args.len()).step_by(step).map(|word| slot_of(args.at(word)).index() as u16)
}

fn named(args: &Args<'_>, step: usize, keys: &[u32]) -> Vec<Vec<u8>> {
    keys.iter().map(|&key| args.at(1 + key as usize * step).to_vec()).collect()
}

type PartFacts = (u64, u64, u16, u8, Protocol);

/// The request for some of a call's keys.
fn part_request(
    args: &Args<'_>,
    step: usize,
    keys: &[u32],
    consumer: Consumer,
    facts: PartFacts,
) -> Request {
    let (seq, at, command, db, protocol) = facts;
    let mut bytes = Vec::new();
    encode::array(&mut bytes, 1 + keys.len() * step);
    encode::bulk(&mut bytes, args.at(0));
    for &key in keys {
        let first = 1 + key as usize * step;
        (first..first + step).for_each(|word| encode::bulk(&mut bytes, args.at(word)));
    }
    let slots = keys.iter().map(|&key| slot_of(args.at(1 + key as usize * step)).index() as u16);
    Request { bytes, consumer, slots: list_of(slots), seq, at, command, replies: 1, db, protocol }
}

/// The words of a request that this proxy has parsed or made before.
pub(crate) fn words_of<'a>(
    bytes: &'a [u8],
    ranges: &'a mut Vec<cordis_engine::commands::args::ArgRange>,
) -> Option<Args<'a>> {
    let limits = Limits { word_bytes_max: usize::MAX, authenticated: true };
    match Parser::default().next(bytes, 0, limits, ranges) {
        Parsed::Call(_) => Some(Args::new(bytes, ranges)),
        _ => None,
    }
}
