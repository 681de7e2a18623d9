//! Random histories of requests, moves, maps and losses against the routes, checked for order, loss
//! and doubling; and the cases that are worth telling one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::*;

/// A request of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Req {
    session: usize,
    number: u64,
    /// The order of all requests, kept when one is sent again.
    seq: u64,
    slots: Vec<u16>,
}

/// What is sent on a link.
#[derive(Clone, Debug)]
enum Sent {
    Request(Req),
    /// All that was refused of a slot is back.
    Retry(u16),
}

#[derive(Clone, Debug)]
enum Outcome {
    Run,
    Refused(Refusal),
}

/// Who serves a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Server(u32),
    /// Handed over by the first, not yet taken up by the second.
    Between(u32, u32),
}

/// A small generator: the same seed tells the same story.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

const SLOTS: u16 = 6;
const SERVERS: u32 = 3;
const SESSIONS: usize = 3;
const DEADLINE_MS: i64 = 100_000;

struct World {
    routes: Routes<Req>,
    chance: Chance,
    now: Ms,
    seq: u64,
    epoch: u64,
    owners: Vec<Owner>,
    /// Under way to a server, and answers on their way back, per lane: both in order.
    sent: BTreeMap<Lane, VecDeque<Sent>>,
    answers: BTreeMap<Lane, VecDeque<(Req, Outcome)>>,
    /// What each slot's servers ran, in order: session and number.
    log: Vec<Vec<(usize, u64)>>,
    /// Slots that servers refuse on a link until they are told otherwise; those that are known here.
    refused: BTreeSet<(Lane, u16)>,
    known_refused: BTreeSet<(Lane, u16)>,
    next_number: Vec<u64>,
    /// Parts of each request that have not ended.
    open: HashMap<(usize, u64), usize>,
    /// Slots of the requests that are open.
    wide: HashMap<(usize, u64), Vec<u16>>,
    /// Requests whose links were lost: nobody knows whether they were run.
    unsure: Vec<(usize, u64)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            routes: Routes::new(),
            chance: Chance(seed),
            now: Ms(1_000),
            seq: 0,
            epoch: 0,
            owners: (0..SLOTS).map(|slot| Owner::Server(u32::from(slot) % SERVERS)).collect(),
            sent: BTreeMap::new(),
            answers: BTreeMap::new(),
            log: vec![Vec::new(); usize::from(SLOTS)],
            refused: BTreeSet::new(),
            known_refused: BTreeSet::new(),
            next_number: vec![0; SESSIONS],
            open: HashMap::new(),
            wide: HashMap::new(),
            unsure: Vec::new(),
        };
        for _ in 0..SERVERS {
            world.routes.add_backend(true);
        }
        world.push_map();
        world
    }

    fn push_map(&mut self) {
        self.epoch += 1;
        let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
        for (slot, owner) in self.owners.iter().enumerate() {
            // A map may be behind the servers, or ahead of them.
            let (Owner::Server(server) | Owner::Between(server, _)) = *owner;
            let server = match (*owner, self.chance.below(2)) {
                (Owner::Between(_, to), 1) => to,
                _ => server,
            };
            let epoch = self.epoch;
            entries[slot] = Entry { backend: BackendId(server), epoch, ..Entry::OFFLINE };
        }
        assert!(self.routes.set_map(self.epoch, &entries, self.now));
        self.act();
    }

    /// A session sends its next request, of one slot or two.
    fn request(&mut self) {
        let session = self.chance.below(SESSIONS as u64) as usize;
        let mut slots = vec![self.chance.below(u64::from(SLOTS)) as u16];
        if self.chance.below(4) == 0 {
            slots.push(self.chance.below(u64::from(SLOTS)) as u16);
            slots.sort_unstable();
            slots.dedup();
        }
        // A session holds back what must not overtake its request on several slots.
        let conflicts = |open: &Vec<u16>| open.len() > 1 && open.iter().any(|s| slots.contains(s));
        if self.wide.iter().any(|((s, _), open)| *s == session && conflicts(open)) {
            return;
        }
        let number = self.next_number[session];
        self.wide.insert((session, number), slots.clone());
        self.next_number[session] += 1;
        self.seq += 1;
        self.open.insert((session, number), 1);
        let request = Req { session, number, seq: self.seq, slots: slots.clone() };
        let lane = match slots[..] {
            [one] => self.routes.try_send(slot_id(one)),
            _ => self.routes.try_send_many(&slots).ok(),
        };
        match lane {
            Some(lane) => self.sent.entry(lane).or_default().push_back(Sent::Request(request)),
            None => {
                self.resubmit(request);
                self.act();
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.routes.next_action() {
            match action {
                Action::Send { request, lane, .. } => {
                    self.sent.entry(lane).or_default().push_back(Sent::Request(request));
                }
                Action::Split { request } => {
                    assert!(request.slots.len() > 1, "one slot cannot come apart");
                    let parts = self.open.get_mut(&(request.session, request.number));
                    *parts.expect("it is open") += request.slots.len() - 1;
                    for &slot in &request.slots {
                        let part = Req { slots: vec![slot], ..request.clone() };
                        self.resubmit(part);
                    }
                }
                Action::Fail { request, why } => panic!("{request:?} failed: {why:?}"),
                Action::Retry { slot } => self.retry(slot),
            }
        }
    }

    /// Servers that have refused a slot are told that all of it is back.
    fn retry(&mut self, slot: SlotId) {
        let slot = slot.index() as u16;
        for &(lane, _) in self.known_refused.iter().filter(|(_, refused)| *refused == slot) {
            self.sent.entry(lane).or_default().push_back(Sent::Retry(slot));
        }
        self.known_refused.retain(|(_, refused)| *refused != slot);
    }

    /// Requests keep the number under which they came first.
    fn resubmit(&mut self, request: Req) {
        let (seq, slots) = (request.seq, request.slots.clone());
        let deadline = Ms(self.now.0 + DEADLINE_MS);
        self.routes.submit(request, seq, &slots, deadline, self.now);
    }

    /// A server takes the next request of a link.
    fn serve(&mut self) {
        let lanes: Vec<Lane> = non_empty(&self.sent);
        if lanes.is_empty() {
            return;
        }
        let lane = lanes[self.chance.below(lanes.len() as u64) as usize];
        let sent = self.sent.get_mut(&lane).and_then(VecDeque::pop_front).expect("not empty");
        let request = match sent {
            Sent::Request(request) => request,
            Sent::Retry(slot) => {
                self.refused.remove(&(lane, slot));
                return;
            }
        };
        let sticky = request.slots.iter().find(|&&slot| self.refused.contains(&(lane, slot)));
        let outcome = match sticky {
            Some(&slot) => Outcome::Refused(Refusal::TryAgain(Some(slot_id(slot)))),
            None => self.run_at(lane.backend.0, &request),
        };
        if let Outcome::Refused(refusal) = &outcome
            && let Some(slot) = refusal.slot()
        {
            self.refused.insert((lane, slot.index() as u16));
        }
        self.answers.entry(lane).or_default().push_back((request, outcome));
    }

    fn run_at(&mut self, server: u32, request: &Req) -> Outcome {
        for &slot in &request.slots {
            let id = slot_id(slot);
            match self.owners[usize::from(slot)] {
                Owner::Server(owner) if owner == server => {}
                Owner::Server(owner) => {
                    return Outcome::Refused(Refusal::Moved(id, BackendId(owner)));
                }
                Owner::Between(_, to) if to == server => {
                    return Outcome::Refused(Refusal::TryAgain(Some(id)));
                }
                Owner::Between(from, to) if from == server => {
                    return Outcome::Refused(Refusal::Moved(id, BackendId(to)));
                }
                Owner::Between(..) => return Outcome::Refused(Refusal::Down(Some(id))),
            }
        }
        for &slot in &request.slots {
            self.log[usize::from(slot)].push((request.session, request.number));
        }
        Outcome::Run
    }

    /// The next answer of a link arrives.
    fn answer(&mut self) {
        let lanes: Vec<Lane> = non_empty(&self.answers);
        if lanes.is_empty() {
            return;
        }
        let lane = lanes[self.chance.below(lanes.len() as u64) as usize];
        let (request, outcome) =
            self.answers.get_mut(&lane).and_then(VecDeque::pop_front).expect("not empty");
        match outcome {
            Outcome::Run => {
                self.end(&request);
                match request.slots[..] {
                    [one] => self.routes.answered(slot_id(one), self.now),
                    _ => self.routes.answered_many(&request.slots, self.now),
                }
            }
            Outcome::Refused(refusal) => {
                let named = refusal.slot().expect("servers name it").index() as u16;
                self.known_refused.insert((lane, named));
                let seq = request.seq;
                let deadline = Ms(self.now.0 + DEADLINE_MS);
                let slots = request.slots.clone();
                let from = lane.backend;
                self.routes.refused(request, seq, &slots, deadline, from, refusal, self.now);
            }
        }
        self.act();
    }

    fn end(&mut self, request: &Req) {
        let left = self.open.get_mut(&(request.session, request.number));
        let left = left.expect("a request ends as often as it has parts");
        *left -= 1;
        if *left == 0 {
            self.open.remove(&(request.session, request.number));
            self.wide.remove(&(request.session, request.number));
        }
    }

    /// A slot begins to move, or arrives.
    fn migrate(&mut self) {
        let slot = self.chance.below(u64::from(SLOTS)) as usize;
        let to = self.chance.below(u64::from(SERVERS)) as u32;
        self.owners[slot] = match self.owners[slot] {
            Owner::Between(_, to) => Owner::Server(to),
            Owner::Server(from) if from != to => Owner::Between(from, to),
            still => still,
        };
    }

    /// A link is lost. What its server has not seen may be sent again, the rest is in doubt.
    fn lose(&mut self) {
        let lane =
            Lane { backend: BackendId(self.chance.below(u64::from(SERVERS)) as u32), index: 0 };
        let answers = self.answers.remove(&lane).unwrap_or_default();
        let sent = self.sent.remove(&lane).unwrap_or_default();
        let lost = self.chance.below(sent.len() as u64 + 1) as usize;
        self.refused.retain(|(of, _)| *of != lane);
        self.known_refused.retain(|(of, _)| *of != lane);
        let requests = |sent: &[Sent]| {
            let requests = sent.iter().filter_map(|sent| match sent {
                Sent::Request(request) => Some(request.clone()),
                Sent::Retry(_) => None,
            });
            requests.collect::<Vec<Req>>()
        };
        let sent: Vec<Sent> = sent.into();
        let mut gone = Vec::new();
        for request in answers.into_iter().map(|(r, _)| r).chain(requests(&sent[..lost])) {
            self.unsure.push((request.session, request.number));
            self.end(&request);
            gone.push(request.slots.as_slice().into());
        }
        let back = requests(&sent[lost..]).into_iter().map(|request| Unsent {
            seq: request.seq,
            slots: request.slots.as_slice().into(),
            deadline: Ms(self.now.0 + DEADLINE_MS),
            request,
        });
        self.routes.link_lost(back.collect(), &gone, self.now);
        self.act();
    }

    fn set_lanes(&mut self) {
        let lanes: Vec<u16> = match self.chance.below(3) {
            0 => Vec::new(),
            n => (0..SLOT_COUNT as u16).map(|slot| slot % (n as u16 + 1)).collect(),
        };
        let backend = BackendId(self.chance.below(u64::from(SERVERS)) as u32);
        self.routes.set_lanes(backend, lanes, self.now);
        self.act();
    }

    fn pass_time(&mut self) {
        self.now.0 += self.chance.below(5) as i64;
        self.routes.tick(self.now);
        self.act();
    }

    /// The servers are those that the slots name.
    fn check_servers(&self) {
        let mut named: Vec<BackendId> = (self.routes.slots.iter())
            .flat_map(|slot| [Some(slot.lane.backend), slot.via.map(|via| via.source)])
            .flatten()
            .filter(|id| *id != BackendId::NONE)
            .collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(self.routes.servers().collect::<Vec<_>>(), named);
    }

    fn check_order(&self) {
        for (slot, log) in self.log.iter().enumerate() {
            let mut last: HashMap<usize, u64> = HashMap::new();
            for &(session, number) in log {
                if let Some(before) = last.insert(session, number) {
                    assert!(before < number, "slot {slot}: {session} ran {number} after {before}");
                }
            }
        }
    }

    /// Everything comes to rest, and every request has ended.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            if self.open.is_empty() {
                return;
            }
            for slot in 0..SLOTS {
                if let Owner::Between(_, to) = self.owners[usize::from(slot)] {
                    self.owners[usize::from(slot)] = Owner::Server(to);
                }
            }
            self.serve();
            self.answer();
            self.pass_time();
        }
        panic!("requests are left over: {:?}, held {}", self.open, self.routes.held_count());
    }
}

fn non_empty<T>(queues: &BTreeMap<Lane, VecDeque<T>>) -> Vec<Lane> {
    queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(lane, _)| *lane).collect()
}

fn run(seed: u64, steps: usize, loses: bool) {
    let mut world = World::new(seed);
    for _ in 0..steps {
        match world.chance.below(40) {
            0..=13 => world.request(),
            14..=23 => world.serve(),
            24..=32 => world.answer(),
            33..=34 => world.migrate(),
            35 => world.push_map(),
            36 => world.set_lanes(),
            37 if loses => world.lose(),
            _ => world.pass_time(),
        }
    }
    world.check_servers();
    world.settle();
    world.check_servers();
    world.check_order();
    // Each request was run once on each of its slots, unless a lost link left that open.
    let mut runs: HashMap<(usize, usize, u64), usize> = HashMap::new();
    for (slot, log) in world.log.iter().enumerate() {
        for &(session, number) in log {
            *runs.entry((slot, session, number)).or_default() += 1;
        }
    }
    assert!(runs.values().all(|&count| count == 1), "a request was run twice on a slot");
    for (session, &count) in world.next_number.iter().enumerate() {
        for number in 0..count {
            let was_run = runs.keys().any(|&(_, s, n)| (s, n) == (session, number));
            assert!(was_run || world.unsure.contains(&(session, number)), "a request was lost");
        }
    }
    for slot in 0..SLOTS {
        assert_eq!(world.routes.slots[usize::from(slot)].in_flight, 0, "seed {seed}");
    }
}

#[test]
fn moves_maps_and_lanes_never_reorder_lose_or_double_a_request() {
    for seed in 0..3_000 {
        run(seed, 400, false);
    }
}

#[test]
fn lost_links_lose_only_what_was_sent_on_them() {
    for seed in 0..2_000 {
        run(seed ^ 0x5eed_0000, 400, true);
    }
}

/// Routes on which slot 1 is with the first of two backends, and open.
fn two_backends(refuse: bool) -> (Routes<u32>, BackendId, BackendId) {
    let mut routes = Routes::new();
    let (a, b) = (routes.add_backend(refuse), routes.add_backend(refuse));
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    entries[1] = Entry { backend: a, epoch: 1, ..Entry::OFFLINE };
    assert!(routes.set_map(1, &entries, Ms(0)));
    routes.submit(0, 0, &[1], Ms(1_000), Ms(0));
    assert!(matches!(routes.next_action(), Some(Action::Send { request: 0, .. })));
    routes.answered(slot_id(1), Ms(0));
    (routes, a, b)
}

#[test]
fn slot_that_is_offline_fails_its_requests_at_once() {
    let (mut routes, ..) = two_backends(true);
    assert_eq!(routes.try_send(slot_id(2)), None);
    routes.submit(7, 1, &[2], Ms(1_000), Ms(0));
    let why = Fault::Offline(slot_id(2));
    assert_eq!(routes.next_action(), Some(Action::Fail { request: 7, why }));
}

#[test]
fn refused_request_goes_first_and_alone_to_the_new_place() {
    let (mut routes, a, b) = two_backends(true);
    assert!(routes.try_send(slot_id(1)).is_some() && routes.try_send(slot_id(1)).is_some());
    let moved = Refusal::Moved(slot_id(1), b);
    routes.refused(1, 1, &[1], Ms(1_000), a, moved, Ms(0));
    routes.submit(3, 3, &[1], Ms(1_000), Ms(0));
    assert_eq!(routes.next_action(), None, "the second is still under way to the old place");
    routes.refused(2, 2, &[1], Ms(1_000), a, moved, Ms(0));
    assert_eq!(routes.next_action(), Some(Action::Retry { slot: slot_id(1) }));
    let lane = Lane { backend: b, index: 0 };
    assert_eq!(routes.next_action(), Some(Action::Send { request: 1, lane, via: None }));
    assert_eq!(routes.next_action(), None, "the new place may refuse it");
    routes.answered(slot_id(1), Ms(0));
    assert_eq!(routes.next_action(), Some(Action::Send { request: 2, lane, via: None }));
    assert_eq!(routes.next_action(), Some(Action::Send { request: 3, lane, via: None }));
    assert_eq!(routes.next_action(), None);
}

#[test]
fn slot_that_is_not_ready_is_tried_with_pauses_until_the_deadline() {
    let (mut routes, a, _) = two_backends(true);
    let refusal = Refusal::TryAgain(Some(slot_id(1)));
    assert!(routes.try_send(slot_id(1)).is_some());
    let mut now = Ms(0);
    let mut pauses = Vec::new();
    let deadline = Ms(200);
    routes.refused(1, 1, &[1], deadline, a, refusal, now);
    loop {
        let due = routes.next_deadline().expect("something is held");
        now = Ms(due.0.max(now.0 + 1));
        routes.tick(now);
        let mut actions = std::iter::from_fn(|| routes.next_action());
        match actions.find(|action| !matches!(action, Action::Retry { .. })) {
            Some(Action::Send { request, .. }) => {
                pauses.push(now.0);
                routes.refused(request, 1, &[1], deadline, a, refusal, now);
            }
            Some(Action::Fail { request, why }) => {
                assert_eq!((request, why), (1, Fault::Deadline(slot_id(1))));
                break;
            }
            Some(Action::Split { .. }) => panic!("one slot cannot come apart"),
            Some(Action::Retry { .. }) => panic!("it was skipped"),
            None => {}
        }
        assert!(now.0 < 300, "it is never given up");
    }
    assert_eq!(pauses[..5], [1, 3, 7, 15, 31]);
    assert_eq!(routes.held_count(), 0);
}

#[test]
fn locked_slot_is_settled_once_its_servers_owe_nothing() {
    let (mut routes, a, b) = two_backends(false);
    assert!(routes.try_send(slot_id(1)).is_some());
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    let via = Some(Via { source: a, method: 1 });
    entries[1] = Entry { backend: b, epoch: 2, locked: true, via };
    assert!(routes.set_map(2, &entries, Ms(0)));
    assert!(!routes.is_settled(), "a request is under way to a server that cannot refuse it");
    routes.submit(5, 5, &[1], Ms(1_000), Ms(0));
    routes.answered(slot_id(1), Ms(0));
    assert!(routes.is_settled());
    assert_eq!(routes.next_action(), None, "it is locked");
    entries[1].locked = false;
    assert!(routes.set_map(3, &entries, Ms(0)));
    let lane = Lane { backend: b, index: 0 };
    assert_eq!(routes.next_action(), Some(Action::Send { request: 5, lane, via }));
    // While keys are asked for one by one, requests go one by one.
    routes.submit(6, 6, &[1], Ms(1_000), Ms(0));
    assert_eq!(routes.next_action(), None);
    routes.answered(slot_id(1), Ms(0));
    assert_eq!(routes.next_action(), Some(Action::Send { request: 6, lane, via }));
    assert!(!routes.set_map(2, &entries, Ms(0)), "an older map is refused");
}

#[test]
fn request_under_way_to_a_server_that_refuses_is_owed_where_a_move_by_the_originals_commands_begins()
 {
    let (mut routes, a, b) = two_backends(true);
    assert!(routes.try_send(slot_id(1)).is_some());
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    let via = Some(Via { source: a, method: 1 });
    entries[1] = Entry { backend: b, epoch: 2, locked: true, via };
    assert!(routes.set_map(2, &entries, Ms(0)));
    // Its server owns the slot still, and would run it after its key has left.
    assert!(!routes.is_settled());
    routes.answered(slot_id(1), Ms(0));
    assert!(routes.is_settled());
    // A move that servers refuse by themselves is not waited for.
    let (mut routes, _, b) = two_backends(true);
    assert!(routes.try_send(slot_id(1)).is_some());
    entries[1] = Entry { backend: b, epoch: 2, ..Entry::OFFLINE };
    assert!(routes.set_map(2, &entries, Ms(0)));
    assert!(routes.is_settled());
}

#[test]
fn servers_are_counted_by_their_slots_and_detours() {
    let (mut routes, a, b) = two_backends(true);
    let servers = |routes: &Routes<u32>| routes.servers().collect::<Vec<_>>();
    assert_eq!(servers(&routes), [a]);
    let before = routes.servers_version();
    // Refused requests and maps that change nothing of it leave the number as it is.
    assert!(routes.try_send(slot_id(1)).is_some());
    let again = Refusal::TryAgain(Some(slot_id(1)));
    routes.refused(1, 1, &[1], Ms(1_000), a, again, Ms(0));
    assert_eq!(routes.servers_version(), before);
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    let via = Some(Via { source: a, method: 1 });
    entries[1] = Entry { backend: b, epoch: 2, locked: false, via };
    assert!(routes.set_map(2, &entries, Ms(0)));
    assert_eq!(servers(&routes), [a, b]);
    let between = routes.servers_version();
    assert_ne!(between, before);
    entries[1] = Entry { backend: b, epoch: 3, locked: false, via: None };
    assert!(routes.set_map(3, &entries, Ms(0)));
    assert_eq!(servers(&routes), [b]);
    assert_ne!(routes.servers_version(), between);
}

#[test]
fn requests_that_wait_in_vain_are_failed_in_a_time_that_grows_with_their_number() {
    const COUNT: u32 = 100_000;
    let (mut routes, a, _) = two_backends(true);
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    entries[1] = Entry { backend: a, epoch: 2, locked: true, via: None };
    entries[2] = entries[1];
    assert!(routes.set_map(2, &entries, Ms(0)));
    for n in 1..=COUNT {
        // Half of them came back late: their deadlines are not in the order of their numbers.
        let deadline = Ms(if n % 2 == 0 { 1_000 } else { 1_001 });
        let slots: &[u16] = if n % 3 == 0 { &[1, 2] } else { &[1] };
        routes.submit(n, u64::from(n), slots, deadline, Ms(0));
    }
    assert_eq!(routes.next_deadline(), Some(Ms(1_000)));
    let began = std::time::Instant::now();
    routes.tick(Ms(1_000));
    routes.tick(Ms(1_001));
    let took = began.elapsed();
    let mut failed = Vec::new();
    while let Some(action) = routes.next_action() {
        match action {
            Action::Fail { request, why: Fault::Locked(_) } => failed.push(request),
            other => panic!("{other:?}"),
        }
    }
    let expected = (1..=COUNT).filter(|n| n % 2 == 0).chain((1..=COUNT).filter(|n| n % 2 == 1));
    assert!(failed.into_iter().eq(expected));
    assert_eq!((routes.held_count(), routes.next_deadline()), (0, None));
    assert!(routes.slots.iter().all(|slot| slot.queue.is_empty()));
    // Looking at all of them for each would take minutes.
    assert!(took.as_secs() < 10, "it took {took:?}");
}

#[test]
fn part_that_is_overdue_leaves_the_others_of_its_number_in_the_queue() {
    let (mut routes, a, _) = two_backends(true);
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    entries[1] = Entry { backend: a, epoch: 2, locked: true, via: None };
    assert!(routes.set_map(2, &entries, Ms(0)));
    for (request, deadline) in [(1, 1_002), (2, 1_001), (3, 1_003)] {
        routes.submit(request, 5, &[1], Ms(deadline), Ms(0));
    }
    let why = Fault::Locked(slot_id(1));
    for (now, request) in [(1_001, 2), (1_002, 1)] {
        routes.tick(Ms(now));
        assert_eq!(routes.next_action(), Some(Action::Fail { request, why }));
        assert_eq!(routes.next_action(), None);
    }
    entries[1].locked = false;
    assert!(routes.set_map(3, &entries, Ms(1_002)));
    assert!(matches!(routes.next_action(), Some(Action::Send { request: 3, .. })));
    assert_eq!((routes.held_count(), routes.next_deadline()), (0, None));
}

#[test]
fn nothing_is_served_behind_the_fence_also_not_by_servers_that_refuse() {
    for refuses in [true, false] {
        let (mut routes, a, _) = two_backends(refuses);
        routes.fence(true, Ms(0));
        assert_eq!(routes.ready_lane(slot_id(1)), None);
        // Nor by a map that comes meanwhile.
        let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
        entries[1] = Entry { backend: a, epoch: 2, ..Entry::OFFLINE };
        assert!(routes.set_map(2, &entries, Ms(0)));
        assert_eq!(routes.ready_lane(slot_id(1)), None);
        routes.fence(false, Ms(0));
        assert!(routes.ready_lane(slot_id(1)).is_some());
    }
}

#[test]
fn slots_apart_are_split_once_nothing_is_in_their_way() {
    let (mut routes, a, b) = two_backends(true);
    let mut entries = vec![Entry::OFFLINE; SLOT_COUNT];
    entries[1] = Entry { backend: a, epoch: 1, ..Entry::OFFLINE };
    entries[2] = Entry { backend: b, epoch: 1, ..Entry::OFFLINE };
    assert!(routes.set_map(2, &entries, Ms(0)));
    routes.submit(1, 1, &[1, 2], Ms(1_000), Ms(0));
    assert_eq!(routes.next_action(), Some(Action::Split { request: 1 }));
    assert_eq!(routes.held_count(), 0);
}
