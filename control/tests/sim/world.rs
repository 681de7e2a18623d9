//! The world of one seed: control (the real machine on the real store), servers and proxies (the real
//! machines in small shells) and their clients.
//!
//! The world knows the true value of each key, because it sees each request that runs. So after
//! each step it can say whether anything was lost, doubled, stale or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use cordis_control::machine::request::{Answer, Request};
use cordis_control::machine::{Action, Command, Event, Machine, Outcome};
use cordis_control::model::{Model, OpState};
use cordis_control::ranges::SlotSet;
use cordis_control::store::Store;
use cordis_control::store::file::FileStore;
use cordis_engine::slots::state::SlotState;

use crate::client::{Call, History, Op, Served};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::net::Conn;
use crate::proxy::{Ended, Out, Proxy};
use crate::server::{Letter, SLOTS, Server, Wire};
use crate::time::Clock;

const PRODUCT: &str = "sim";
pub(crate) const CONTROL: &str = "control";
/// Keys of each slot.
pub(crate) const KEYS: u32 = 3;
/// How long control waits for an answer.
const ANSWER_MAX_MS: i64 = 250;
/// How long faults go on.
const CHAOS_MS: i64 = 5_000;
/// How long the world may take to come to rest afterwards.
const REST_MAX_MS: i64 = 60_000;
/// How long a request may be under way when nobody is in its way.
const REQUEST_MAX_MS: i64 = 4_000;
/// How often servers and proxies look at the time.
const TURN_MS: i64 = 10;

#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Tick,
    ToPeer { life: u64, peer: String, run: u64, id: u64, request: Request, is_heard: bool },
    ToControl { life: u64, peer: String, id: u64, answer: Answer },
    Letter { wire: Wire, letter: Letter },
    Turns,
    NewOp { proxy: usize, life: u64 },
    Call { server: usize, generation: u64, call: Call },
    Served { server: usize, generation: u64, op: Op, served: Served },
    Reset { proxy: usize, generation: u64 },
    Fault,
    Wish,
    StartControl,
    StartServer(usize),
    StartProxy(usize),
}

/// A world.
pub(crate) struct World {
    pub(crate) now: i64,
    order: u64,
    /// The number of what happens now.
    current: u64,
    queue: BTreeMap<(i64, u64), Happening>,
    pub(crate) dice: Dice,
    pub(crate) servers: Vec<Server>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) control: Option<Machine>,
    store: Option<FileStore<Disk>>,
    pub(crate) disk: Disk,
    life: u64,
    command_id: u64,
    answers: BTreeMap<u64, Result<Outcome, String>>,
    /// Who cannot talk to whom, until when.
    pub(crate) cuts: Vec<(String, String, i64)>,
    /// Who does nothing, until when.
    pub(crate) stopped: BTreeMap<String, i64>,
    /// When what was sent last on a connection arrives, there and back: nothing overtakes it.
    pub(crate) arrivals: BTreeMap<(Conn, bool), i64>,
    /// Connections on which nothing more can be sent, and on which nothing more arrives.
    pub(crate) broken: BTreeSet<Conn>,
    pub(crate) severed: BTreeSet<Conn>,
    pub(crate) history: History,
    /// Requests whose clients wait, since when.
    waiting: BTreeMap<u64, (usize, i64)>,
    ops: u64,
    pub(crate) is_calm: bool,
    pub(crate) has_codis: bool,
    trace: bool,
}

impl World {
    /// A world before anything has happened.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let has_codis = dice.percent(50);
        let cordis = 2 + dice.below(2);
        let codis = if has_codis { 1 + dice.below(2) } else { 0 };
        let server = |n: usize, dice: &mut Dice| {
            let (net, is_cordis) = if n < cordis { (0, true) } else { (1, false) };
            Server::new(&format!("10.0.{net}.{}:6379", n + 1), is_cordis, Clock::new(dice, 5_000))
        };
        let servers = (0..cordis + codis).map(|n| server(n, &mut dice)).collect();
        // A server that cannot refuse runs what arrives: it must not arrive after it was given up.
        let reply_max_ms = if has_codis { 1_100 } else { 300 };
        let proxy = |n: usize, dice: &mut Dice| {
            let clock = Clock::new(dice, 1_000_000);
            Proxy::new(&format!("10.0.2.{}:11080", n + 1), clock, reply_max_ms)
        };
        let proxies = (0..2).map(|n| proxy(n, &mut dice)).collect();
        let mut world = Self {
            now: 1_000,
            order: 0,
            current: 0,
            queue: BTreeMap::new(),
            dice,
            servers,
            proxies,
            control: None,
            store: None,
            disk: Disk::default(),
            life: 0,
            command_id: 0,
            answers: BTreeMap::new(),
            cuts: Vec::new(),
            stopped: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            broken: BTreeSet::new(),
            severed: BTreeSet::new(),
            history: History::default(),
            waiting: BTreeMap::new(),
            ops: 0,
            is_calm: true,
            has_codis,
            trace: std::env::var_os("CORDIS_SIM_TRACE").is_some(),
        };
        world.start_control();
        world
    }

    pub(crate) fn at(&mut self, delay_ms: i64, what: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay_ms.max(0), self.order), what);
    }

    /// Has what happens now happen later, and still before what was sent behind it.
    fn defer(&mut self, left_ms: i64, what: Happening) {
        self.queue.insert((self.now + left_ms, self.current), what);
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            // Asked for by an environment variable; who stops reading misses it.
            drop(writeln!(std::io::stdout(), "{:>7} {}", self.now, what()));
        }
    }

    /// Everything from the first group to rest; what went wrong, if something did.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.set_up()?;
        for proxy in 0..self.proxies.len() {
            self.at(1, Happening::NewOp { proxy, life: 0 });
        }
        self.is_calm = false;
        self.at(50, Happening::Fault);
        self.at(10, Happening::Wish);
        let end = self.now + CHAOS_MS;
        self.run_while(|world| world.now < end)?;
        self.calm_down();
        let end = self.now + REST_MAX_MS;
        self.run_while(|world| world.now < end && !world.is_at_rest())?;
        if let Some(unrest) = self.unrest() {
            return Err(format!("no rest: {}", unrest()));
        }
        self.check_end()
    }

    fn run_while(&mut self, mut goes_on: impl FnMut(&Self) -> bool) -> Result<(), String> {
        while goes_on(self) {
            let Some(((now, order), what)) = self.queue.pop_first() else {
                return Err("nothing happens any more".into());
            };
            self.now = now;
            self.current = order;
            self.happen(what)?;
            self.check()?;
        }
        Ok(())
    }

    /// Groups, servers, proxies, slots: without faults.
    fn set_up(&mut self) -> Result<(), String> {
        self.at(0, Happening::Tick);
        self.at(0, Happening::Turns);
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
        let addrs: Vec<String> = self.servers.iter().map(|s| s.addr.to_string()).collect();
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
        let proxies: Vec<String> = self.proxies.iter().map(|proxy| proxy.addr.clone()).collect();
        for addr in proxies {
            self.wait_for(Command::ProxyAdd { addr })?;
        }
        Ok(())
    }

    pub(crate) fn next_command(&mut self) -> u64 {
        self.command_id += 1;
        self.command_id
    }

    fn wait_for(&mut self, command: Command) -> Result<(), String> {
        let id = self.next_command();
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
        self.stopped.remove(CONTROL);
        *self.disk.tear.borrow_mut() = None;
        self.resume();
    }

    /// At rest nothing may wait for somebody to end a pause.
    fn resume(&mut self) {
        let id = self.next_command();
        self.control_step(Event::Command { id, command: Command::Resume });
    }

    fn is_at_rest(&self) -> bool {
        self.unrest().is_none()
    }

    /// What is not at rest: said in words when it is asked for, which is seldom.
    fn unrest(&self) -> Option<Box<dyn Fn() -> String + '_>> {
        let Some(machine) = &self.control else {
            return Some(Box::new(|| "control is down".into()));
        };
        // Who was stopped has to catch up with what it missed.
        let last = self.stopped.values().copied().max().unwrap_or(0);
        if self.now < last + REQUEST_MAX_MS / 2 {
            return Some(Box::new(move || format!("somebody was stopped until {last}")));
        }
        let model = machine.model();
        let runs = model.ops.values().find(|op| op.state == OpState::Running);
        if runs.is_some() || !model.moves.is_empty() {
            return Some(Box::new(move || format!("{runs:?} runs; moves: {:?}", model.moves)));
        }
        if let Some(server) = self.servers.iter().find(|s| !s.is_up || !s.is_quiet()) {
            return Some(Box::new(move || format!("server {server:?}")));
        }
        for slot in 0..SLOTS {
            // A move that control had given up may have got through, and be news to it.
            let known = model.slot(slot).epoch;
            let is_news = |s: &Server| s.claims(slot) && s.epoch_of(slot) > known;
            if self.servers.iter().any(is_news) {
                return Some(Box::new(move || {
                    format!("control does not know slot {slot}'s owner")
                }));
            }
        }
        let map_epoch = model.meta.map_epoch;
        let proxy = self.proxies.iter().find(|p| !p.is_up || p.map_epoch() != map_epoch)?;
        Some(Box::new(move || format!("proxy {proxy:?} of map {map_epoch}")))
    }

    // Control.

    fn start_control(&mut self) {
        self.life += 1;
        let store = FileStore::on(self.disk.clone()).expect("a crash leaves a readable store");
        self.control = Some(Machine::new(load(&store), self.now));
        self.store = Some(store);
        self.note(|| "control starts".into());
    }

    pub(crate) fn crash_control(&mut self) {
        self.note(|| "control crashes".into());
        self.control = None;
        self.store = None;
        let delay = self.dice.span(1, 800);
        self.at(delay, Happening::StartControl);
    }

    pub(crate) fn control_step(&mut self, event: Event) {
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
        let run = self.run_of(&peer);
        let is_lost = self.is_cut(CONTROL, &peer) || self.is_unlucky();
        if !is_lost {
            let delay = self.delay();
            let is_heard = true;
            return self.at(delay, Happening::ToPeer { life, peer, run, id, request, is_heard });
        }
        if self.dice.percent(50) {
            // Nobody hears of it, but it may arrive all the same, and late.
            let delay = self.dice.span(1, 1_500);
            let is_heard = false;
            self.at(delay, Happening::ToPeer { life, peer, run, id, request, is_heard });
        }
    }

    /// Which of its lives a peer is in: a connection ends with it.
    fn run_of(&self, peer: &str) -> u64 {
        let server = self.servers.iter().find(|server| *server.addr == *peer);
        let proxy = self.proxies.iter().find(|proxy| proxy.addr == peer);
        server.map(|server| server.run_id).or(proxy.map(|proxy| proxy.life)).unwrap_or(0)
    }

    // What happens.

    fn happen(&mut self, what: Happening) -> Result<(), String> {
        match what {
            Happening::Tick => {
                self.control_step(Event::Tick);
                self.at(20, Happening::Tick);
            }
            Happening::ToPeer { life, peer, run, id, request, is_heard } => {
                if let Some(left) = self.until_it_goes_on(&peer) {
                    let again = Happening::ToPeer { life, peer, run, id, request, is_heard };
                    self.defer(left, again);
                } else if run == self.run_of(&peer) {
                    return self.ask_peer(life, peer, id, request, is_heard);
                }
            }
            Happening::ToControl { life, peer, id, answer } => {
                if life == self.life {
                    self.control_step(Event::Reply { peer, id, answer });
                }
            }
            Happening::Letter { wire, letter } => return self.deliver(wire, letter),
            Happening::Turns => {
                for server in 0..self.servers.len() {
                    self.turn(server)?;
                }
                for proxy in 0..self.proxies.len() {
                    self.tick_proxy(proxy)?;
                }
                self.at(TURN_MS, Happening::Turns);
            }
            Happening::NewOp { proxy, life } => return self.new_ops(proxy, life),
            Happening::Call { server, generation, call } => {
                return self.call(server, generation, call);
            }
            Happening::Served { server, generation, op, served } => {
                return self.served(server, generation, op, served);
            }
            Happening::Reset { proxy, generation } => {
                let now = self.now;
                self.proxies[proxy].reset(now, generation);
                return self.drain_proxy(proxy);
            }
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
            Happening::StartServer(at) => {
                self.note(|| format!("{} starts", self.servers[at].addr));
                self.servers[at].start(&mut self.dice);
            }
            Happening::StartProxy(at) => {
                self.proxies[at].start(self.now);
                let life = self.proxies[at].life;
                self.at(1, Happening::NewOp { proxy: at, life });
                return self.drain_proxy(at);
            }
        }
        Ok(())
    }

    fn ask_peer(
        &mut self,
        life: u64,
        peer: String,
        id: u64,
        request: Request,
        is_heard: bool,
    ) -> Result<(), String> {
        let now = self.now;
        // One of another life, which nobody waits for: control's numbers begin again with each.
        let asked = if is_heard { (life, id) } else { (0, 0) };
        let proxy = self.proxies.iter().position(|proxy| proxy.addr == peer);
        let server = self.servers.iter().position(|server| *server.addr == *peer);
        let answer = if let Some(at) = proxy {
            let proxy = &mut self.proxies[at];
            if proxy.is_up { proxy.ask(now, asked, &request) } else { Some(refused()) }
        } else if let Request::Carry { slot, target, numkeys, .. } = &request {
            Some(self.carry(&peer, target, *slot, *numkeys as usize))
        } else if let Some(at) = server {
            let server = &mut self.servers[at];
            if server.is_up { server.ask(asked, &request) } else { Some(refused()) }
        } else {
            Some(refused())
        };
        if let (Some(answer), true) = (answer, is_heard) {
            self.reply(life, peer, id, answer);
        }
        match (proxy, server) {
            (Some(at), _) => self.drain_proxy(at),
            (_, Some(at)) => self.turn(at),
            _ => Ok(()),
        }
    }

    fn reply(&mut self, life: u64, peer: String, id: u64, answer: Answer) {
        if life != 0 && !self.is_unlucky() && !self.is_cut(CONTROL, &peer) {
            let delay = self.delay();
            self.at(delay, Happening::ToControl { life, peer, id, answer });
        }
    }

    pub(crate) fn server_at(&self, addr: &str) -> Option<usize> {
        self.servers.iter().position(|server| *server.addr == *addr)
    }

    /// One call of the original's: a few keys travel, at once and as a whole.
    fn carry(&mut self, source: &str, target: &str, slot: u16, count: usize) -> Answer {
        let is_cut = self.is_cut(source, target) || self.until_it_goes_on(target).is_some();
        let (from, to) = (self.server_at(source), self.server_at(target));
        let Some(from) = from.filter(|at| self.servers[*at].is_up) else { return refused() };
        let left = self.servers[from].keys_of(slot).len() as u64;
        let keys = self.servers[from].to_carry(slot, count);
        let to = to.filter(|at| self.servers[*at].is_up && !is_cut);
        if keys.is_empty() {
            return Answer::Carried { moved: 0, left: 0 };
        }
        match to.map(|to| self.servers[to].restore(slot, &keys)) {
            None => Answer::Refused("IOERR".into()),
            Some(false) => Answer::Refused("ERR the target refuses".into()),
            Some(true) => {
                self.note(|| format!("slot {slot}: {keys:?} carried {source} -> {target}"));
                self.servers[from].carried(slot, &keys);
                Answer::Carried { moved: keys.len() as u64, left }
            }
        }
    }

    /// A server does what there is to do.
    fn turn(&mut self, at: usize) -> Result<(), String> {
        let addr = self.servers[at].addr.clone();
        if !self.servers[at].is_up || self.until_it_goes_on(&addr).is_some() {
            return Ok(());
        }
        let now = self.now;
        self.servers[at].turn(now, &mut self.dice);
        let served = self.servers[at].serve();
        for ((life, id), answer) in std::mem::take(&mut self.servers[at].replies) {
            self.reply(life, addr.to_string(), id, answer);
        }
        for (wire, letter) in std::mem::take(&mut self.servers[at].out) {
            self.post(wire, letter);
        }
        for ((proxy, generation), call, served) in served {
            self.note(|| format!("{call:?} at {addr}: {served:?}"));
            if let Served::Ran(found) = served {
                self.history.run(&call.op, &addr, found)?;
            }
            let what = Happening::Served { server: at, generation, op: call.op, served };
            self.transmit(Conn::Link(proxy, at, generation), true, what);
        }
        Ok(())
    }

    fn deliver(&mut self, wire: Wire, letter: Letter) -> Result<(), String> {
        let (from, to) = match letter.is_question() {
            true => (wire.source.clone(), wire.target.clone()),
            false => (wire.target.clone(), wire.source.clone()),
        };
        let conn = Conn::Wire(wire.clone());
        if !self.arrives(&conn, &from, &to) {
            return Ok(());
        }
        if let Some(left) = self.until_it_goes_on(&to) {
            self.defer(left, Happening::Letter { wire, letter });
            return Ok(());
        }
        let Some(at) = self.server_at(&to).filter(|at| self.servers[*at].is_up) else {
            return Ok(());
        };
        self.note(|| format!("{from} -> {to}: {letter:?}"));
        let now = self.now;
        self.servers[at].take(now, &wire, letter);
        self.turn(at)
    }

    // Clients.

    fn new_ops(&mut self, at: usize, life: u64) -> Result<(), String> {
        let proxy = &self.proxies[at];
        if !proxy.is_up || proxy.life != life {
            return Ok(());
        }
        let addr = proxy.addr.clone();
        if let Some(left) = self.until_it_goes_on(&addr) {
            self.defer(left, Happening::NewOp { proxy: at, life });
            return Ok(());
        }
        for _ in 0..1 + self.dice.below(2) {
            let key = self.dice.below(usize::from(SLOTS) * KEYS as usize) as u32;
            self.ops += 1;
            let op = Op {
                id: self.ops,
                seq: 0,
                proxy: at,
                session: life * 2 + self.dice.below(2) as u64,
                slot: key as u16 % SLOTS,
                key,
                is_read: self.dice.percent(25),
                deadline_ms: 0,
            };
            self.waiting.insert(op.id, (at, self.now));
            let now = self.now;
            self.proxies[at].request(now, op);
        }
        let delay = self.dice.span(8, 30);
        self.at(delay, Happening::NewOp { proxy: at, life });
        self.drain_proxy(at)
    }

    fn tick_proxy(&mut self, at: usize) -> Result<(), String> {
        let addr = self.proxies[at].addr.clone();
        if !self.proxies[at].is_up || self.until_it_goes_on(&addr).is_some() {
            return Ok(());
        }
        let now = self.now;
        self.proxies[at].tick(now);
        self.drain_proxy(at)
    }

    /// Sends what a proxy has to send.
    fn drain_proxy(&mut self, at: usize) -> Result<(), String> {
        for out in std::mem::take(&mut self.proxies[at].out) {
            match out {
                Out::Call(addr, generation, call) => {
                    let Some(server) = self.server_at(&addr) else { continue };
                    let what = Happening::Call { server, generation, call };
                    self.transmit(Conn::Link(at, server, generation), false, what);
                }
                Out::Ended(op, ended) => {
                    self.waiting.remove(&op.id);
                    match ended {
                        Ended::Answered(found) => self.history.answered(&op, found)?,
                        Ended::Unknown => self.history.unknown(&op),
                        Ended::Failed => self.history.failed(&op)?,
                    }
                }
                Out::Answer((life, id), answer) => {
                    let peer = self.proxies[at].addr.clone();
                    self.reply(life, peer, id, answer);
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, server: usize, generation: u64, call: Call) -> Result<(), String> {
        let addr = self.servers[server].addr.clone();
        let conn = Conn::Link(call.op.proxy, server, generation);
        let proxy = self.proxies[call.op.proxy].addr.clone();
        if !self.arrives(&conn, &proxy, &addr) {
            return Ok(());
        }
        if let Some(left) = self.until_it_goes_on(&addr) {
            self.defer(left, Happening::Call { server, generation, call });
            return Ok(());
        }
        if !self.servers[server].is_up {
            self.broken.insert(conn);
            let delay = self.delay();
            self.at(delay, Happening::Reset { proxy: call.op.proxy, generation });
            return Ok(());
        }
        let inbox = self.servers[server].inboxes.entry((call.op.proxy, generation)).or_default();
        inbox.calls.push_back(call);
        self.turn(server)
    }

    fn served(
        &mut self,
        server: usize,
        generation: u64,
        op: Op,
        served: Served,
    ) -> Result<(), String> {
        let addr = self.servers[server].addr.clone();
        let proxy = self.proxies[op.proxy].addr.clone();
        if !self.arrives(&Conn::Link(op.proxy, server, generation), &addr, &proxy) {
            return Ok(());
        }
        if let Some(left) = self.until_it_goes_on(&proxy) {
            self.defer(left, Happening::Served { server, generation, op, served });
            return Ok(());
        }
        let now = self.now;
        self.proxies[op.proxy].answered(now, generation, op, served);
        self.drain_proxy(op.proxy)
    }

    // Who ends takes something along.

    /// Control's peers end: a server's keys are gone with it, where nobody else has them.
    pub(crate) fn crash_server(&mut self, at: usize) {
        let server = &self.servers[at];
        self.note(|| format!("{} crashes", server.addr));
        for slot in (0..SLOTS).filter(|_| server.is_cordis) {
            let state = server.state_of(slot);
            if matches!(state, SlotState::Importing | SlotState::Ready | SlotState::Away) {
                continue;
            }
            for key in server.keys_of(slot).keys() {
                let truth = self.history.truth(*key);
                let has_it = |(other, s): (usize, &Server)| {
                    let counts = s.claims(slot) || !s.is_cordis;
                    other != at && counts && s.keys_of(slot).get(key) == Some(&truth)
                };
                if !self.servers.iter().enumerate().any(has_it) {
                    let others = self.servers.iter().enumerate().filter(|(other, _)| *other != at);
                    let is_handed = |s: &Server| {
                        matches!(s.state_of(slot), SlotState::Handed | SlotState::InDoubt)
                    };
                    let handed = others.filter(|(_, s)| s.is_cordis && is_handed(s));
                    let older = handed.map(|(_, s)| s.keys_of(slot).get(key).copied().unwrap_or(0));
                    self.history.lose(*key, older);
                }
            }
        }
        self.sever_all(at);
        self.servers[at].crash(&mut self.dice);
        let delay = self.dice.span(10, 1_500);
        self.at(delay, Happening::StartServer(at));
        // Most of those who were connected are told.
        for proxy in 0..self.proxies.len() {
            if let Some(generation) = self.proxies[proxy].link_to(&self.servers[at].addr)
                && self.dice.percent(70)
            {
                let delay = self.delay();
                self.at(delay, Happening::Reset { proxy, generation });
            }
        }
    }

    pub(crate) fn crash_proxy(&mut self, at: usize) {
        self.note(|| format!("{} crashes", self.proxies[at].addr));
        self.proxies[at].crash();
        self.waiting.retain(|_, (proxy, _)| *proxy != at);
        let delay = self.dice.span(10, 1_500);
        self.at(delay, Happening::StartProxy(at));
    }

    // What must hold.

    fn check(&self) -> Result<(), String> {
        for slot in 0..SLOTS {
            let mut owner: Option<&Server> = None;
            for server in self.servers.iter().filter(|server| server.claims(slot)) {
                if let Some(other) = owner {
                    let epochs = (other.epoch_of(slot), server.epoch_of(slot));
                    if epochs.0 == epochs.1 || !self.has_codis {
                        let who = (&other.addr, &server.addr);
                        return Err(format!("slot {slot} has two owners: {who:?} {epochs:?}"));
                    }
                }
                owner = Some(server);
            }
        }
        Ok(())
    }

    /// At rest: every key is where its slot is, as it was last written, and nowhere else; no client
    /// waits for ever.
    fn check_end(&self) -> Result<(), String> {
        let Some(machine) = &self.control else { return Err("control is down".into()) };
        let model = machine.model();
        for (key, value) in self.history.truths() {
            let slot = key as u16 % SLOTS;
            let owner = model.primary(model.slot(slot).group);
            let owner = owner.and_then(|owner| self.server_at(&owner.addr));
            let owner = &self.servers[owner.ok_or_else(|| format!("slot {slot} has no owner"))?];
            let found = owner.keys_of(slot).get(&key).copied().unwrap_or(0);
            if !self.history.may_be(key, found) {
                let (addr, state) = (&owner.addr, owner.state_of(slot));
                return Err(format!(
                    "slot {slot} ({state:?}) key {key}: {addr} has {found} instead of {value}"
                ));
            }
            let others = self.servers.iter().filter(|other| other.addr != owner.addr);
            for other in others.filter(|other| other.claims(slot) || !other.is_cordis) {
                if other.keys_of(slot).contains_key(&key) {
                    return Err(format!("slot {slot} key {key}: {} has it too", other.addr));
                }
            }
        }
        let late = |since: i64| self.now - since > REQUEST_MAX_MS;
        if let Some((id, (_, since))) = self.waiting.iter().find(|(_, (_, since))| late(*since)) {
            return Err(format!("request {id} of {since} has not ended"));
        }
        if self.history.ran_count() < 100 {
            return Err(format!("only {} requests ran", self.history.ran_count()));
        }
        Ok(())
    }

    /// Operations that ended with all slots moved, and requests that ran.
    pub(crate) fn deeds(&self) -> (usize, usize) {
        let ops = self.control.as_ref().map(|machine| machine.model().ops.values());
        let done = ops.map_or(0, |ops| ops.filter(|op| op.state == OpState::Done).count());
        (done, self.history.ran_count())
    }
}

fn refused() -> Answer {
    Answer::Lost("refused".into())
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
