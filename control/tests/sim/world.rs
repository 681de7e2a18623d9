//! The world of one seed: control (the real machine on the real store), servers, proxies and their
//! clients, with a network between them that loses, delays and reorders, and faults that come and go.
//!
//! The world knows the true value of each key, because it sees each request that runs. So after
//! each step it can say whether anything was lost, doubled or stale.

use std::collections::BTreeMap;
use std::io::Write;

use cordis_control::machine::request::{Answer, Request};
use cordis_control::machine::{Action, Cancelled, Command, Event, Machine, Outcome, Weight};
use cordis_control::model::{Model, OpState};
use cordis_control::ranges::SlotSet;
use cordis_control::store::Store;
use cordis_control::store::file::FileStore;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::proxy::{Proxy, Route};
use crate::server::{Letter, SLOTS, Served, Server};

const PRODUCT: &str = "sim";
const CONTROL: &str = "control";
/// Keys of each slot.
const KEYS: u32 = 3;
/// How long control waits for an answer.
const ANSWER_MAX_MS: i64 = 250;
/// How long a proxy waits for a server.
const REPLY_MAX_MS: i64 = 300;
/// How long faults go on.
const CHAOS_MS: i64 = 5_000;
/// How long the world may take to come to rest afterwards.
const REST_MAX_MS: i64 = 60_000;

/// A client's request.
#[derive(Clone, Debug)]
struct Op {
    proxy: String,
    /// The life of the proxy that it belongs to.
    life: u64,
    slot: u16,
    key: u32,
    since_ms: i64,
}

/// What a request finds at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Wrapped,
}

#[derive(Clone, Debug)]
enum Happening {
    Tick,
    ToPeer { life: u64, peer: String, id: u64, request: Request, is_heard: bool },
    ToControl { life: u64, peer: String, id: u64, answer: Answer },
    Letter { from: String, to: String, letter: Letter },
    ServerTick,
    NewOp { proxy: String },
    Dispatch { op: Op },
    AtServer { op: Op, server: String, way: Way, is_heard: bool },
    AtProxy { op: Op, served: Option<Served> },
    Fault,
    Wish,
    StartControl,
    StartServer { addr: String },
    StartProxy { addr: String },
}

/// A world.
pub(crate) struct World {
    now: i64,
    order: u64,
    queue: BTreeMap<(i64, u64), Happening>,
    dice: Dice,
    servers: BTreeMap<String, Server>,
    proxies: BTreeMap<String, Proxy>,
    lives: BTreeMap<String, u64>,
    control: Option<Machine>,
    store: Option<FileStore<Disk>>,
    disk: Disk,
    life: u64,
    command_id: u64,
    answers: BTreeMap<u64, Result<Outcome, String>>,
    /// Who cannot talk to whom, until when.
    cuts: Vec<(String, String, i64)>,
    /// Who does nothing, until when.
    stopped: BTreeMap<String, i64>,
    truth: BTreeMap<u32, u64>,
    ran: u64,
    is_calm: bool,
    has_codis: bool,
    trace: bool,
}

impl World {
    /// A world before anything has happened.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let has_codis = dice.percent(50);
        let cordis = 2 + dice.below(2);
        let mut servers = BTreeMap::new();
        for n in 0..cordis {
            let addr = format!("10.0.0.{}:6379", n + 1);
            servers.insert(addr.clone(), Server::new(&addr, true));
        }
        for n in 0..if has_codis { 1 + dice.below(2) } else { 0 } {
            let addr = format!("10.0.1.{}:6379", n + 1);
            servers.insert(addr.clone(), Server::new(&addr, false));
        }
        let proxy = |n: usize, dice: &mut Dice| {
            let addr = format!("10.0.2.{}:11080", n + 1);
            (addr.clone(), Proxy::new(&addr, dice.span(0, 1_000_000)))
        };
        let proxies = (0..2).map(|n| proxy(n, &mut dice)).collect();
        let mut world = Self {
            now: 1_000,
            order: 0,
            queue: BTreeMap::new(),
            dice,
            servers,
            proxies,
            lives: BTreeMap::new(),
            control: None,
            store: None,
            disk: Disk::default(),
            life: 0,
            command_id: 0,
            answers: BTreeMap::new(),
            cuts: Vec::new(),
            stopped: BTreeMap::new(),
            truth: BTreeMap::new(),
            ran: 0,
            is_calm: true,
            has_codis,
            trace: std::env::var_os("CORDIS_SIM_TRACE").is_some(),
        };
        world.start_control();
        world
    }

    fn at(&mut self, delay_ms: i64, what: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay_ms.max(0), self.order), what);
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            // Asked for by an environment variable; who stops reading misses it.
            drop(writeln!(std::io::stdout(), "{:>7} {}", self.now, what()));
        }
    }

    /// Everything from the first group to rest; what went wrong, if something did.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.set_up()?;
        let proxies: Vec<String> = self.proxies.keys().cloned().collect();
        for proxy in proxies {
            self.at(1, Happening::NewOp { proxy });
        }
        self.is_calm = false;
        self.at(50, Happening::Fault);
        self.at(10, Happening::Wish);
        let end = self.now + CHAOS_MS;
        self.run_while(|world| world.now < end)?;
        self.calm_down();
        let end = self.now + REST_MAX_MS;
        self.run_while(|world| world.now < end && !world.is_at_rest())?;
        if !self.is_at_rest() {
            return Err(format!("no rest: {}", self.unrest()));
        }
        self.check_end()
    }

    fn run_while(&mut self, mut goes_on: impl FnMut(&Self) -> bool) -> Result<(), String> {
        while goes_on(self) {
            let Some(((now, _), what)) = self.queue.pop_first() else {
                return Err("nothing happens any more".into());
            };
            self.now = now;
            self.happen(what)?;
            self.check()?;
        }
        Ok(())
    }

    /// Groups, servers, proxies, slots: without faults.
    fn set_up(&mut self) -> Result<(), String> {
        self.at(0, Happening::Tick);
        self.at(0, Happening::ServerTick);
        let short = [
            ("lease-ms", "500"),
            ("peer-timeout-ms", "1000"),
            ("migration-stall-ms", "1500"),
            ("migration-batch-slots", "4"),
            ("migration-parallel-slots", "2"),
            ("migration-async-numkeys", "1"),
            ("migration-timeout-ms", "500"),
        ];
        for (name, value) in short {
            self.wait_for(Command::ConfigSet { name: name.into(), value: value.into() })?;
        }
        let addrs: Vec<String> = self.servers.keys().cloned().collect();
        for (group, addr) in (1..).zip(addrs) {
            self.wait_for(Command::GroupAdd(group))?;
            let datacenter = String::new();
            self.wait_for(Command::ServerAdd { group, addr, datacenter, is_import: false })?;
        }
        let groups = self.servers.len() as u16;
        for group in 1..=groups {
            let slots: SlotSet = (0..SLOTS).filter(|slot| slot % groups + 1 == group).collect();
            self.wait_for(Command::SlotsAssign { slots, group })?;
        }
        let proxies: Vec<String> = self.proxies.keys().cloned().collect();
        for addr in proxies {
            self.wait_for(Command::ProxyAdd { addr })?;
        }
        Ok(())
    }

    fn wait_for(&mut self, command: Command) -> Result<(), String> {
        self.command_id += 1;
        let id = self.command_id;
        let text = format!("{command:?}");
        self.control_step(Event::Command { id, command });
        let end = self.now + 5_000;
        self.run_while(|world| !world.answers.contains_key(&id) && world.now < end)?;
        match self.answers.remove(&id) {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(format!("{text}: {why}")),
            None => Err(format!("{text}: no answer")),
        }
    }

    fn calm_down(&mut self) {
        self.note(|| "calm".into());
        self.is_calm = true;
        self.cuts.clear();
        self.stopped.clear();
        *self.disk.tear.borrow_mut() = None;
        self.resume();
    }

    /// At rest nothing may wait for somebody to end a pause.
    fn resume(&mut self) {
        self.command_id += 1;
        let id = self.command_id;
        self.control_step(Event::Command { id, command: Command::Resume });
    }

    fn is_at_rest(&self) -> bool {
        self.unrest().is_empty()
    }

    fn unrest(&self) -> String {
        let Some(machine) = &self.control else { return "control is down".into() };
        let model = machine.model();
        if let Some(op) = model.ops.values().find(|op| op.state == OpState::Running) {
            return format!("operation runs: {op:?}; moves: {:?}", model.moves);
        }
        if !model.moves.is_empty() {
            return format!("moves: {:?}", model.moves);
        }
        if let Some(server) = self.servers.values().find(|s| !s.is_up || !s.is_quiet()) {
            return format!("server {server:?}");
        }
        for slot in 0..SLOTS {
            // A move that control had given up may have got through, and be news to it.
            let known = model.slot(slot).epoch;
            let is_news = |s: &Server| s.claims(slot) && s.epoch_of(slot) > known;
            if self.servers.values().any(is_news) {
                return format!("slot {slot} has an owner that control does not know");
            }
        }
        let map_epoch = model.meta.map_epoch;
        match self.proxies.values().find(|p| !p.is_up || p.map_epoch() != map_epoch) {
            Some(proxy) => format!("proxy {proxy:?} of map {map_epoch}"),
            None => String::new(),
        }
    }

    // Control.

    fn start_control(&mut self) {
        self.life += 1;
        let store = FileStore::on(self.disk.clone()).expect("a crash leaves a readable store");
        self.control = Some(Machine::new(load(&store), self.now));
        self.store = Some(store);
        self.note(|| "control starts".into());
    }

    fn crash_control(&mut self) {
        self.note(|| "control crashes".into());
        self.control = None;
        self.store = None;
        let delay = self.dice.span(1, 800);
        self.at(delay, Happening::StartControl);
    }

    fn control_step(&mut self, event: Event) {
        if let Some(left) = self.until_it_goes_on(CONTROL) {
            // It does nothing; what it is told meanwhile it finds when it goes on.
            if let Event::Reply { peer, id, answer } = event {
                let life = self.life;
                self.at(left, Happening::ToControl { life, peer, id, answer });
            }
            return;
        }
        let Some(machine) = &mut self.control else { return };
        let actions = machine.step(self.now, event);
        for action in actions {
            if !self.is_calm && self.dice.below(600) == 0 {
                // Between any two of its deeds.
                return self.crash_control();
            }
            match action {
                Action::Persist(records) => {
                    let store = self.store.as_mut().expect("control has its store");
                    if store.put(&records).is_err() {
                        if self.dice.percent(50) {
                            return self.crash_control();
                        }
                        self.life += 1;
                        self.control = Some(Machine::new(load(store), self.now));
                        return;
                    }
                }
                Action::Send { peer, id, request } => self.send(peer, id, request),
                Action::Forget { .. } => {}
                Action::Answer { id, outcome } => {
                    self.note(|| format!("command {id}: {outcome:?}"));
                    self.answers.insert(id, outcome);
                }
            }
        }
    }

    fn send(&mut self, peer: String, id: u64, request: Request) {
        let life = self.life;
        self.note(|| format!("-> {peer} {id} {}", brief(&request)));
        let lost = Answer::Lost("no answer in time".into());
        let wait = ANSWER_MAX_MS;
        let timeout = Happening::ToControl { life, peer: peer.clone(), id, answer: lost };
        self.at(wait, timeout);
        let is_lost = self.is_cut(CONTROL, &peer) || self.is_unlucky();
        if !is_lost {
            let delay = self.delay();
            return self.at(delay, Happening::ToPeer { life, peer, id, request, is_heard: true });
        }
        if self.dice.percent(50) {
            // Nobody hears of it, but it may arrive all the same, and late.
            let delay = self.dice.span(1, 1_500);
            self.at(delay, Happening::ToPeer { life, peer, id, request, is_heard: false });
        }
    }

    fn is_unlucky(&mut self) -> bool {
        !self.is_calm && self.dice.percent(3)
    }

    fn delay(&mut self) -> i64 {
        if !self.is_calm && self.dice.percent(5) {
            self.dice.span(20, 200)
        } else {
            self.dice.span(1, 6)
        }
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        let is_it = |(x, y, until): &(String, String, i64)| {
            *until > self.now && (x == a && y == b || x == b && y == a)
        };
        self.cuts.iter().any(is_it)
    }

    fn until_it_goes_on(&self, who: &str) -> Option<i64> {
        self.stopped.get(who).map(|until| until - self.now + 1).filter(|left| *left > 0)
    }

    // What happens.

    fn happen(&mut self, what: Happening) -> Result<(), String> {
        match what {
            Happening::Tick => {
                self.control_step(Event::Tick);
                self.at(20, Happening::Tick);
            }
            Happening::ToPeer { life, peer, id, request, is_heard } => {
                self.ask_peer(life, peer, id, request, is_heard);
            }
            Happening::ToControl { life, peer, id, answer } => {
                if life == self.life {
                    self.control_step(Event::Reply { peer, id, answer });
                }
            }
            Happening::Letter { from, to, letter } => self.deliver(&from, &to, letter),
            Happening::ServerTick => {
                let addrs: Vec<String> = self.servers.keys().cloned().collect();
                for addr in addrs {
                    self.tick_server(&addr);
                }
                self.at(15, Happening::ServerTick);
            }
            Happening::NewOp { proxy } => self.new_op(proxy),
            Happening::Dispatch { op } => self.dispatch(op),
            Happening::AtServer { op, server, way, is_heard } => {
                return self.run_op(op, server, way, is_heard);
            }
            Happening::AtProxy { op, served } => self.op_returns(op, served),
            Happening::Fault if !self.is_calm => self.fault(),
            Happening::Wish if !self.is_calm => self.wish(),
            Happening::Fault | Happening::Wish => {}
            Happening::StartControl => {
                if self.control.is_none() {
                    self.start_control();
                    if self.is_calm {
                        self.resume();
                    }
                }
            }
            Happening::StartServer { addr } => {
                self.note(|| format!("{addr} starts"));
                if let Some(server) = self.servers.get_mut(&addr) {
                    server.is_up = true;
                }
            }
            Happening::StartProxy { addr } => {
                *self.lives.entry(addr.clone()).or_default() += 1;
                if let Some(proxy) = self.proxies.get_mut(&addr) {
                    proxy.is_up = true;
                }
                self.at(1, Happening::NewOp { proxy: addr });
            }
        }
        Ok(())
    }

    fn ask_peer(&mut self, life: u64, peer: String, id: u64, request: Request, is_heard: bool) {
        if let Some(left) = self.until_it_goes_on(&peer) {
            return self.at(left, Happening::ToPeer { life, peer, id, request, is_heard });
        }
        let now = self.now;
        let answer = if let Some(proxy) = self.proxies.get_mut(&peer) {
            match proxy.is_up {
                true => proxy.ask(now, (life, id), &request),
                false => Some(Answer::Lost("refused".into())),
            }
        } else if let Request::Carry { slot, target, numkeys, .. } = &request {
            Some(self.carry(&peer, target, *slot, *numkeys as usize))
        } else {
            self.servers.get_mut(&peer).map(|server| match server.is_up {
                true => server.ask(&request),
                false => Answer::Lost("refused".into()),
            })
        };
        if let (Some(answer), true) = (answer, is_heard) {
            self.reply(life, peer, id, answer);
        }
    }

    fn reply(&mut self, life: u64, peer: String, id: u64, answer: Answer) {
        if !self.is_unlucky() && !self.is_cut(CONTROL, &peer) {
            let delay = self.delay();
            self.at(delay, Happening::ToControl { life, peer, id, answer });
        }
    }

    /// One call of the original's: a few keys travel, at once and as a whole.
    fn carry(&mut self, source: &str, target: &str, slot: u16, count: usize) -> Answer {
        let is_cut = self.is_cut(source, target) || self.until_it_goes_on(target).is_some();
        let Some(from) = self.servers.get(source).filter(|server| server.is_up) else {
            return Answer::Lost("refused".into());
        };
        let left = from.keys_of(slot).len() as u64;
        let keys = from.to_carry(slot, count);
        let to = self.servers.get_mut(target).filter(|server| server.is_up && !is_cut);
        if keys.is_empty() {
            return Answer::Carried { moved: 0, left: 0 };
        }
        match to.map(|to| to.restore(slot, &keys)) {
            None => Answer::Refused("IOERR".into()),
            Some(false) => Answer::Refused("ERR the target refuses".into()),
            Some(true) => {
                self.note(|| format!("slot {slot}: {keys:?} carried {source} -> {target}"));
                if let Some(from) = self.servers.get_mut(source) {
                    from.carried(slot, &keys);
                }
                Answer::Carried { moved: keys.len() as u64, left }
            }
        }
    }

    fn tick_server(&mut self, addr: &str) {
        let now = self.now;
        if self.until_it_goes_on(addr).is_some() {
            return;
        }
        let Some(server) = self.servers.get_mut(addr).filter(|s| s.is_up && s.is_cordis) else {
            return;
        };
        let letters = server.tick(now);
        self.post(addr, letters);
    }

    fn post(&mut self, from: &str, letters: Vec<(String, Letter)>) {
        for (to, letter) in letters {
            if self.is_unlucky() && self.dice.percent(70) {
                continue;
            }
            let mut delay = self.delay();
            if !self.is_calm && self.dice.percent(2) {
                delay += self.dice.span(0, 1_500);
            }
            self.at(delay, Happening::Letter { from: from.to_owned(), to, letter });
        }
    }

    fn deliver(&mut self, from: &str, to: &str, letter: Letter) {
        if self.is_cut(from, to) {
            return;
        }
        if let Some(left) = self.until_it_goes_on(to) {
            let (from, to) = (from.to_owned(), to.to_owned());
            return self.at(left, Happening::Letter { from, to, letter });
        }
        let now = self.now;
        let Some(server) = self.servers.get_mut(to).filter(|server| server.is_up) else { return };
        let back = server.take(now, from, letter);
        self.post(to, back);
    }

    // Clients.

    fn new_op(&mut self, proxy: String) {
        if !self.proxies.get(&proxy).is_some_and(|proxy| proxy.is_up) {
            return;
        }
        let key = self.dice.below(usize::from(SLOTS) * KEYS as usize) as u32;
        let op = Op {
            life: self.lives.get(&proxy).copied().unwrap_or(0),
            proxy: proxy.clone(),
            slot: key as u16 % SLOTS,
            key,
            since_ms: self.now,
        };
        self.dispatch(op);
        let delay = self.dice.span(5, 25);
        self.at(delay, Happening::NewOp { proxy });
    }

    /// The proxy of a request, if it is still the one that took it.
    fn proxy_of(&mut self, op: &Op) -> Option<&mut Proxy> {
        let life = self.lives.get(&op.proxy).copied().unwrap_or(0);
        self.proxies.get_mut(&op.proxy).filter(|proxy| proxy.is_up && life == op.life)
    }

    fn dispatch(&mut self, op: Op) {
        if let Some(left) = self.until_it_goes_on(&op.proxy) {
            return self.at(left, Happening::Dispatch { op });
        }
        let now = self.now;
        if now - op.since_ms > 2_000 {
            return;
        }
        let Some(proxy) = self.proxy_of(&op) else { return };
        match proxy.route(now, op.slot) {
            Route::Wait => self.at(10, Happening::Dispatch { op }),
            Route::To(server) => {
                *proxy.in_flight.entry(op.slot).or_default() += 1;
                self.send_op(op, server, Way::Plain);
            }
            Route::Wrapped(server) => {
                *proxy.in_flight.entry(op.slot).or_default() += 1;
                self.send_op(op, server, Way::Wrapped);
            }
        }
    }

    fn send_op(&mut self, op: Op, server: String, way: Way) {
        if self.is_cut(&op.proxy, &server) || self.is_unlucky() {
            self.at(REPLY_MAX_MS, Happening::AtProxy { op: op.clone(), served: None });
            // A server that refuses may be asked as late as can be.
            let refuses = self.servers.get(&server).is_some_and(|s| s.is_cordis) && !self.has_codis;
            if refuses && self.dice.percent(50) {
                let delay = self.dice.span(1, 2_000);
                self.at(delay, Happening::AtServer { op, server, way, is_heard: false });
            }
            return;
        }
        let delay = self.delay();
        self.at(delay, Happening::AtServer { op, server, way, is_heard: true });
    }

    fn run_op(&mut self, op: Op, server: String, way: Way, is_heard: bool) -> Result<(), String> {
        if let Some(left) = self.until_it_goes_on(&server) {
            self.at(left, Happening::AtServer { op, server, way, is_heard });
            return Ok(());
        }
        let Some(at) = self.servers.get_mut(&server) else { return Ok(()) };
        let served = match (at.is_up, way) {
            (false, _) => None,
            (true, Way::Plain) => Some(at.run(op.slot, op.key)),
            (true, Way::Wrapped) => Some(at.run_wrapped(op.slot, op.key)),
        };
        self.note(|| format!("{op:?} {way:?} at {server}: {served:?}"));
        if let Some(Served::Ran(before)) = served {
            self.ran += 1;
            let truth = self.truth.entry(op.key).or_insert(0);
            if *truth != before {
                return Err(format!(
                    "slot {} key {}: {server} had {before} instead of {truth}",
                    op.slot, op.key
                ));
            }
            *truth += 1;
        }
        if is_heard {
            let is_lost = self.is_unlucky();
            let delay = if is_lost || served.is_none() { REPLY_MAX_MS } else { self.delay() };
            let served = served.filter(|_| !is_lost);
            self.at(delay, Happening::AtProxy { op, served });
        }
        Ok(())
    }

    fn op_returns(&mut self, op: Op, served: Option<Served>) {
        if let Some(left) = self.until_it_goes_on(&op.proxy) {
            return self.at(left, Happening::AtProxy { op, served });
        }
        let Some(proxy) = self.proxy_of(&op) else { return };
        match served {
            // Still on its way, so the slot's route cannot change meanwhile.
            Some(Served::Missing) => {
                if let Some(server) = proxy.backend(op.slot) {
                    return self.send_op(op, server, Way::Plain);
                }
            }
            Some(Served::Moved(server)) => {
                return self.send_op(op, server, Way::Plain);
            }
            _ => {}
        }
        if let Some(count) = proxy.in_flight.get_mut(&op.slot) {
            *count -= 1;
        }
        let answered = proxy.let_in();
        if let Some((life, id, epoch)) = answered {
            self.reply(life, op.proxy.clone(), id, Answer::Epoch(epoch));
        }
        if served == Some(Served::Later) {
            self.at(5, Happening::Dispatch { op });
        }
    }

    // Trouble.

    fn fault(&mut self) {
        let delay = self.dice.span(50, 600);
        self.at(delay, Happening::Fault);
        let servers: Vec<String> = self.servers.keys().cloned().collect();
        let proxies: Vec<String> = self.proxies.keys().cloned().collect();
        let all: Vec<String> =
            servers.iter().chain(&proxies).cloned().chain([CONTROL.to_owned()]).collect();
        match self.dice.below(10) {
            0..=2 => {
                let (a, b) = (self.dice.pick(&all).clone(), self.dice.pick(&all).clone());
                let until = self.now + self.dice.span(50, 2_500);
                self.note(|| format!("{a} and {b} are cut until {until}"));
                self.cuts.retain(|(_, _, until)| *until > self.now);
                self.cuts.push((a, b, until));
            }
            3 | 4 => {
                let who = self.dice.pick(&all).clone();
                // What is on its way to a server that cannot refuse arrives soon or never.
                let is_patient = !self.has_codis || who == CONTROL;
                let until = self.now + self.dice.span(20, if is_patient { 2_500 } else { 600 });
                self.note(|| format!("{who} is stopped until {until}"));
                self.stopped.retain(|_, until| *until > self.now);
                self.stopped.insert(who, until);
            }
            5 | 6 => {
                let addr = self.dice.pick(&servers).clone();
                let delay = self.dice.span(10, 1_500);
                let server = self.servers.get_mut(&addr).filter(|server| server.is_up);
                if let Some(server) = server {
                    server.crash();
                    self.note(|| format!("{addr} crashes"));
                    self.at(delay, Happening::StartServer { addr });
                }
            }
            7 => {
                let addr = self.dice.pick(&proxies).clone();
                let delay = self.dice.span(10, 1_500);
                if let Some(proxy) = self.proxies.get_mut(&addr).filter(|proxy| proxy.is_up) {
                    proxy.crash();
                    self.note(|| format!("{addr} crashes"));
                    self.at(delay, Happening::StartProxy { addr });
                }
            }
            8 => *self.disk.tear.borrow_mut() = Some(self.dice.below(500)),
            _ if self.control.is_some() => self.crash_control(),
            _ => {}
        }
    }

    fn wish(&mut self) {
        let delay = self.dice.span(20, 500);
        self.at(delay, Happening::Wish);
        let groups = self.servers.len();
        let slots = |dice: &mut Dice| -> SlotSet {
            (0..1 + dice.below(4)).map(|_| dice.below(usize::from(SLOTS)) as u16).collect()
        };
        let command = match self.dice.below(20) {
            0..=12 => Command::SlotsMove {
                slots: slots(&mut self.dice),
                to: 1 + self.dice.below(groups) as u16,
            },
            13 | 14 => Command::Cancel(Cancelled::All),
            15 => Command::Cancel(Cancelled::Slots(slots(&mut self.dice))),
            16 => Command::Pause,
            17 | 18 => Command::Resume,
            _ => Command::Rebalance { by: Weight::Slots, is_preview: true },
        };
        self.command_id += 1;
        let id = self.command_id;
        self.note(|| format!("command {id}: {command:?}"));
        self.control_step(Event::Command { id, command });
    }

    // What must hold.

    fn check(&self) -> Result<(), String> {
        for slot in 0..SLOTS {
            let claims = self.servers.values().filter(|server| server.claims(slot));
            let epochs: Vec<u64> = claims.map(|server| server.epoch_of(slot)).collect();
            for (at, epoch) in epochs.iter().enumerate() {
                if epochs[..at].contains(epoch) || at > 0 && !self.has_codis {
                    return Err(format!("slot {slot} has two owners: {epochs:?}"));
                }
            }
        }
        Ok(())
    }

    /// At rest: every key is where its slot is, as it was last written, and nowhere else.
    fn check_end(&self) -> Result<(), String> {
        let Some(machine) = &self.control else { return Err("control is down".into()) };
        let model = machine.model();
        for (key, value) in &self.truth {
            let slot = *key as u16 % SLOTS;
            let owner = model.primary(model.slot(slot).group);
            let owner = owner.ok_or_else(|| format!("slot {slot} has no owner"))?;
            let found = self.servers[&owner.addr].keys_of(slot).get(key);
            if found != Some(value) {
                let addr = &owner.addr;
                let state = self.servers[addr].state_of(slot);
                return Err(format!(
                    "slot {slot} ({state:?}) key {key}: {addr} has {found:?} instead of {value}"
                ));
            }
            for other in self.servers.values().filter(|other| other.addr != owner.addr) {
                if other.keys_of(slot).contains_key(key) {
                    return Err(format!("slot {slot} key {key}: {} has it too", other.addr));
                }
            }
        }
        if self.ran < 100 {
            return Err(format!("only {} requests ran", self.ran));
        }
        Ok(())
    }

    /// Operations that ended with all slots moved, and requests that ran.
    pub(crate) fn deeds(&self) -> (usize, u64) {
        let ops = self.control.as_ref().map(|machine| machine.model().ops.values());
        let done = ops.map_or(0, |ops| ops.filter(|op| op.state == OpState::Done).count());
        (done, self.ran)
    }
}

fn load(store: &FileStore<Disk>) -> Model {
    let records = store.load();
    if records.is_empty() {
        return Model::new(PRODUCT);
    }
    let texts = records.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Model::load(PRODUCT, texts).expect("what control wrote it can read")
}

fn brief(request: &Request) -> String {
    match request {
        Request::MapSet(map) => {
            format!("MapSet {} {:?}", map.epoch, &map.slots[..map.slots.len() - 1])
        }
        other => format!("{other:?}"),
    }
}
