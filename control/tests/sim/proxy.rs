//! Proxies: the routes of the real one in a small shell with links, a map kept on disk and a lease.
//!
//! The shell does what the proxy's cores do: it puts on links what the routes say, tells the routes what
//! was answered, refused and lost, and owes a server a word (`CORDIS RETRY`) for slots that it has
//! refused on a link. What decides is `cordis_proxy::route`. The detour by which keys of a slot are asked
//! for that moves by the original's commands is a model.

use std::collections::VecDeque;
use std::sync::Arc;

use cordis_control::machine::request::{Answer, ProxyModel, Request};
use cordis_engine::slots::map::{ClusterMap, ServerKind};
use cordis_engine::slots::state::SlotSet;
use cordis_engine::units::Ms;
use cordis_proxy::route::{Action, BackendId, Entry, Refusal, Routes, Via};

use crate::client::{Call, Op, Served};
use crate::server::{SLOTS, slot_id};
use crate::time::Clock;

/// How long a request may wait for its slot.
const DEADLINE_MS: i64 = 2_000;

/// A request under way.
#[derive(Clone, Debug)]
struct Flight {
    call: Call,
    /// Where it goes if its key is not at the source of its slot's move.
    then: Option<BackendId>,
    /// The backend that the routes have sent it to.
    lane: BackendId,
}

/// The connection to a backend.
#[derive(Debug)]
struct Link {
    addr: Arc<str>,
    generation: u64,
    flights: VecDeque<Flight>,
    heard_at: i64,
    /// Slots because of which a request was refused on it, and those of which the server has yet to
    /// hear that all of them are back.
    refused: SlotSet,
    retry: SlotSet,
}

/// What becomes of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered(u64),
    Unknown,
    Failed,
}

/// Something that leaves a proxy.
#[derive(Debug)]
pub(crate) enum Out {
    /// A call, on the link of this number to a server.
    Call(Arc<str>, u64, Call),
    /// To a client.
    Ended(Op, Ended),
    /// To control.
    Answer((u64, u64), Answer),
}

/// A proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) addr: String,
    pub(crate) is_up: bool,
    /// Counts its lives.
    pub(crate) life: u64,
    clock: Clock,
    /// How long a server may owe an answer and say nothing.
    reply_max_ms: i64,
    disk: Option<Arc<ClusterMap>>,
    // Forgotten in a crash:
    map: Option<Arc<ClusterMap>>,
    lease_until: i64,
    is_fenced: bool,
    routes: Routes<Op>,
    links: Vec<Link>,
    /// Maps that control waits for.
    setting: Vec<((u64, u64), u64)>,
    seq: u64,
    /// Numbers links, over all lives.
    generation: u64,
    pub(crate) out: Vec<Out>,
}

impl Proxy {
    pub(crate) fn new(addr: &str, clock: Clock, reply_max_ms: i64) -> Self {
        Self {
            addr: addr.to_owned(),
            is_up: true,
            life: 0,
            clock,
            reply_max_ms,
            disk: None,
            map: None,
            lease_until: 0,
            is_fenced: false,
            routes: Routes::with_slots(usize::from(SLOTS)),
            links: Vec::new(),
            setting: Vec::new(),
            seq: 0,
            generation: 0,
            out: Vec::new(),
        }
    }

    pub(crate) fn crash(&mut self) {
        // The map is on disk; the lease is not.
        self.is_up = false;
        self.map = None;
        self.lease_until = 0;
        self.is_fenced = false;
        self.routes = Routes::with_slots(usize::from(SLOTS));
        self.links.clear();
        self.setting.clear();
        self.out.clear();
    }

    pub(crate) fn start(&mut self, now: i64) {
        self.is_up = true;
        self.life += 1;
        if let Some(map) = self.disk.clone() {
            self.adopt(now, &map);
        }
    }

    pub(crate) fn map_epoch(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| map.epoch)
    }

    fn clock(&self, now: i64) -> i64 {
        self.clock.read(now)
    }

    // ---- maps and the lease ----

    fn intern(&mut self, addr: &str, refuses: bool) -> BackendId {
        if let Some(at) = self.links.iter().position(|link| &*link.addr == addr) {
            return BackendId(at as u32);
        }
        self.generation += 1;
        self.links.push(Link {
            addr: Arc::from(addr),
            generation: self.generation,
            flights: VecDeque::new(),
            heard_at: 0,
            refused: SlotSet::default(),
            retry: SlotSet::default(),
        });
        self.routes.add_backend(refuses)
    }

    fn adopt(&mut self, now: i64, map: &Arc<ClusterMap>) {
        let mut ids = Vec::new();
        for group in &map.groups {
            if let Some(server) = group.primary() {
                let refuses = server.kind == ServerKind::Cordis;
                ids.push((group.id, self.intern(&server.addr, refuses)));
            }
        }
        let id_of = |group| ids.iter().find(|(id, _)| *id == group).map(|(_, backend)| *backend);
        let entries: Vec<Entry> = (0..SLOTS)
            .map(|slot| {
                let range = map.slot(slot_id(slot));
                let source = id_of(range.migrate_from);
                Entry {
                    backend: id_of(range.group).unwrap_or(BackendId::NONE),
                    epoch: range.epoch,
                    locked: range.locked,
                    via: source.map(|source| Via { source, method: range.forward_method }),
                }
            })
            .collect();
        let clock = Ms(self.clock(now));
        if self.routes.set_map(map.epoch, &entries, clock) {
            self.map = Some(Arc::clone(map));
        }
        self.check_lease(now);
        self.run_actions(now);
    }

    fn check_lease(&mut self, now: i64) {
        let lease_ms = self.map.as_ref().map_or(0, |map| map.lease_ms);
        let is_over = lease_ms > 0 && self.clock(now) > self.lease_until;
        if is_over != self.is_fenced {
            self.is_fenced = is_over;
            self.routes.fence(is_over, Ms(self.clock(now)));
            self.run_actions(now);
        }
    }

    /// Answers control; nothing while a map waits for requests to return.
    pub(crate) fn ask(&mut self, now: i64, asked: (u64, u64), request: &Request) -> Option<Answer> {
        Some(match request {
            Request::ProxyModel => Answer::ProxyModel(ProxyModel {
                token: self.addr.clone(),
                proxy_addr: format!("{}0", self.addr),
                product: String::new(),
                version: "1".into(),
            }),
            Request::Lease(lease) => {
                if let Some(lease) = lease {
                    let until = lease.since as i64 + lease.ms as i64;
                    self.lease_until = self.lease_until.max(until);
                    self.check_lease(now);
                }
                Answer::Clock(self.clock(now) as u64)
            }
            Request::MapSet(map) => {
                if map.epoch < self.map_epoch() {
                    return Some(Answer::Stale(self.map_epoch()));
                }
                self.disk = Some(Arc::clone(map));
                self.adopt(now, map);
                self.setting.push((asked, map.epoch));
                self.settle();
                return None;
            }
            _ => Answer::Ok,
        })
    }

    /// Answers control once nothing is under way any more on routes that maps have ended.
    fn settle(&mut self) {
        if self.routes.is_settled() {
            let all = self.setting.drain(..);
            self.out.extend(all.map(|(asked, epoch)| Out::Answer(asked, Answer::Epoch(epoch))));
        }
    }

    // ---- requests ----

    /// Takes a client's request.
    pub(crate) fn request(&mut self, now: i64, mut op: Op) {
        self.check_lease(now);
        self.seq += 1;
        let clock = self.clock(now);
        op = Op { seq: self.seq, deadline_ms: clock + DEADLINE_MS, ..op };
        match self.routes.try_send(slot_id(op.slot)) {
            Some(lane) => self.put(now, op, lane.backend, None),
            None => {
                let deadline = Ms(op.deadline_ms);
                self.routes.submit(op, op.seq, &[op.slot], deadline, Ms(clock));
                self.run_actions(now);
            }
        }
    }

    fn run_actions(&mut self, now: i64) {
        while let Some(action) = self.routes.next_action() {
            match action {
                Action::Send { request, lane, via } => self.put(now, request, lane.backend, via),
                Action::Fail { request, .. } => self.out.push(Out::Ended(request, Ended::Failed)),
                // The word goes ahead of the next request on the slot, which is the first to need it.
                Action::Retry { slot } => {
                    for link in self.links.iter_mut().filter(|link| link.refused.contains(slot)) {
                        link.refused.remove(slot);
                        link.retry.insert(slot);
                    }
                }
                Action::Split { request } => unreachable!("{request:?} has one slot"),
            }
        }
        self.settle();
    }

    /// Puts a request on the link of its backend, or first on that of its slot's source.
    fn put(&mut self, now: i64, op: Op, lane: BackendId, via: Option<Via>) {
        let to = via.map_or(lane, |via| via.source);
        let is_wrapped = via.is_some();
        let then = via.map(|_| lane);
        self.put_on(now, to, Flight { call: call_of(op, is_wrapped), then, lane });
    }

    fn put_on(&mut self, now: i64, to: BackendId, mut flight: Flight) {
        let link = &mut self.links[to.index()];
        if link.flights.is_empty() {
            link.heard_at = now;
        }
        flight.call.is_retry = link.retry.remove(slot_id(flight.call.op.slot));
        flight.call.is_sticky = IS_STICKY;
        self.out.push(Out::Call(Arc::clone(&link.addr), link.generation, flight.call));
        link.flights.push_back(flight);
    }

    /// A server has answered the first request on a link.
    pub(crate) fn answered(&mut self, now: i64, generation: u64, op: Op, served: Served) {
        let Some(at) = self.links.iter().position(|link| link.generation == generation) else {
            return;
        };
        let link = &mut self.links[at];
        link.heard_at = now;
        let flight = link.flights.pop_front().expect("answers come in the order of requests");
        assert_eq!(flight.call.op.id, op.id, "answers come in the order of requests");
        let clock = Ms(self.clock(now));
        let refusal = match served {
            Served::Ran(found) => {
                self.routes.answered(slot_id(op.slot), clock);
                self.out.push(Out::Ended(op, Ended::Answered(found)));
                return self.run_actions(now);
            }
            Served::Missing => {
                let to = flight.then.unwrap_or(flight.lane);
                let call = call_of(op, false);
                return self.put_on(now, to, Flight { call, then: None, lane: flight.lane });
            }
            Served::Moved(addr) => Refusal::Moved(slot_id(op.slot), self.intern(&addr, true)),
            Served::Later | Served::Held => Refusal::TryAgain(Some(slot_id(op.slot))),
        };
        self.links[at].refused.insert(slot_id(op.slot));
        let deadline = Ms(op.deadline_ms);
        self.routes.refused(op, op.seq, &[op.slot], deadline, flight.lane, refusal, clock);
        self.run_actions(now);
    }

    /// Time has passed: links that say nothing are given up, and what waits too long.
    pub(crate) fn tick(&mut self, now: i64) {
        self.check_lease(now);
        for at in 0..self.links.len() {
            let link = &self.links[at];
            if !link.flights.is_empty() && now - link.heard_at > self.reply_max_ms {
                self.lose(now, at);
            }
        }
        self.routes.tick(Ms(self.clock(now)));
        self.run_actions(now);
    }

    /// The connection to a server is reset.
    pub(crate) fn reset(&mut self, now: i64, generation: u64) {
        if let Some(at) = self.links.iter().position(|link| link.generation == generation) {
            self.lose(now, at);
        }
    }

    fn lose(&mut self, now: i64, at: usize) {
        self.generation += 1;
        let link = &mut self.links[at];
        link.generation = self.generation;
        link.refused = SlotSet::default();
        link.retry = SlotSet::default();
        let flights = std::mem::take(&mut link.flights);
        let lost: Vec<_> =
            flights.iter().map(|flight| [flight.call.op.slot].into_iter().collect()).collect();
        self.out.extend(flights.iter().map(|f| Out::Ended(f.call.op, Ended::Unknown)));
        self.routes.link_lost(Vec::new(), &lost, Ms(self.clock(now)));
        self.run_actions(now);
    }

    /// The links that lead to a server.
    pub(crate) fn link_to(&self, addr: &str) -> Option<u64> {
        self.links.iter().find(|link| &*link.addr == addr).map(|link| link.generation)
    }
}

/// Whether a server's refusal of a slot holds on the link until it is taken back.
const IS_STICKY: bool = true;

fn call_of(op: Op, is_wrapped: bool) -> Call {
    Call { op, is_wrapped, is_retry: false, is_sticky: IS_STICKY }
}
