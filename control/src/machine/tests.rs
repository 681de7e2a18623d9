//! The machine step by step: what is refused, what comes first, what survives a restart. What it
//! promises under all kinds of trouble is tested by the simulator (`tests/sim`).

use super::request::{Answer, Hello, MoveReport, Probed, ProxyModel, SlotReport, SlotState};
use super::*;
use crate::model::Record;
use crate::ranges::SlotSet;

/// A machine whose questions are answered by a function, with what it has persisted.
struct Rig {
    machine: Machine,
    now: i64,
    records: BTreeMap<String, String>,
    asked: Vec<(String, Request)>,
    answers: BTreeMap<CommandId, Result<Outcome, String>>,
    commands: CommandId,
    /// Servers that are no Cordis servers, and slots in which servers have keys.
    codis: Vec<String>,
    redis: Vec<String>,
    keys: BTreeMap<String, SlotSet>,
    silent: Vec<String>,
    moved: BTreeMap<MoveId, SlotSet>,
    /// Answers that come with the next pass of time.
    replies: Vec<Event>,
    /// Slots never become empty.
    is_endless: bool,
}

impl Rig {
    fn new() -> Self {
        Self {
            machine: Machine::new(Model::new("p"), 1),
            now: 1,
            records: BTreeMap::new(),
            asked: Vec::new(),
            answers: BTreeMap::new(),
            commands: 0,
            codis: Vec::new(),
            redis: Vec::new(),
            keys: BTreeMap::new(),
            silent: Vec::new(),
            moved: BTreeMap::new(),
            replies: Vec::new(),
            is_endless: false,
        }
    }

    fn step(&mut self, event: Event) {
        let actions = self.machine.step(self.now, event);
        for (at, action) in actions.into_iter().enumerate() {
            match action {
                Action::Persist(records) => {
                    assert_eq!(at, 0, "what is persisted comes first");
                    for Record { key, value } in records {
                        match value {
                            Some(value) => drop(self.records.insert(key, value)),
                            None => drop(self.records.remove(&key)),
                        }
                    }
                }
                Action::Send { peer, id, request } => {
                    self.asked.push((peer.clone(), request.clone()));
                    let answer = self.answer(&peer, &request);
                    self.replies.push(Event::Reply { peer, id, answer });
                }
                Action::Forget { .. } => {}
                Action::Answer { id, outcome } => drop(self.answers.insert(id, outcome)),
            }
        }
    }

    fn answer(&mut self, peer: &str, request: &Request) -> Answer {
        if self.silent.iter().any(|silent| silent == peer) {
            return Answer::Lost("silence".into());
        }
        let keys = self.keys.get(peer).copied().unwrap_or_default();
        let hello = Hello { run_id: peer.to_owned(), product: "p".into(), ..Hello::default() };
        let is = |list: &[String]| list.iter().any(|addr| addr == peer);
        match request {
            Request::Probe if is(&self.redis) => {
                Answer::Probed(Box::new(Probed::Redis(peer.into(), keys.len() as u64)))
            }
            Request::Probe if is(&self.codis) => {
                Answer::Probed(Box::new(Probed::Codis(peer.into(), keys)))
            }
            Request::Probe => {
                let hello = Hello { product: String::new(), ..hello };
                Answer::Probed(Box::new(Probed::Cordis(hello, keys)))
            }
            Request::Hello => Answer::Hello(hello),
            Request::MapSet(map) => Answer::Epoch(map.epoch),
            Request::Slots => Answer::Slots(Vec::new()),
            Request::Moves => {
                let report = |(id, done): (&MoveId, &SlotSet)| MoveReport {
                    id: *id,
                    is_source: true,
                    slots: 9,
                    done: done.len() as u64,
                    done_slots: *done,
                    ..MoveReport::default()
                };
                let moved = self.moved.iter().filter(|_| peer == A);
                Answer::Moves(moved.map(report).collect())
            }
            Request::Move { id, .. } => {
                self.moved.entry(*id).or_default();
                Answer::Ok
            }
            Request::Carry { .. } => Answer::Carried { moved: 0, left: u64::from(self.is_endless) },
            Request::NextDb { .. } => Answer::Db(None),
            Request::ProxyModel => {
                Answer::ProxyModel(ProxyModel { token: peer.to_owned(), ..ProxyModel::default() })
            }
            Request::Lease(_) => Answer::Clock(self.now as u64),
            _ => Answer::Ok,
        }
    }

    fn pass(&mut self, ms: i64) {
        for _ in 0..ms / 25 {
            self.now += 25;
            for reply in std::mem::take(&mut self.replies) {
                self.step(reply);
            }
            self.step(Event::Tick);
        }
    }

    fn command(&mut self, command: Command) -> Result<Outcome, String> {
        self.commands += 1;
        let id = self.commands;
        self.step(Event::Command { id, command });
        (0..20).for_each(|_| self.pass(25));
        self.answers.remove(&id).unwrap_or_else(|| Err("no answer".into()))
    }

    fn add(&mut self, group: GroupId, addr: &str, is_import: bool) -> Result<Outcome, String> {
        drop(self.command(Command::GroupAdd(group)));
        let (addr, datacenter) = (addr.to_owned(), String::new());
        self.command(Command::ServerAdd { group, addr, datacenter, is_import })
    }

    fn assign(&mut self, slots: &str, group: GroupId) -> Result<Outcome, String> {
        let slots = SlotSet::parse(slots).unwrap();
        self.command(Command::SlotsAssign { slots, group })
    }

    fn move_slots(&mut self, slots: &str, to: GroupId) -> Result<Outcome, String> {
        let slots = SlotSet::parse(slots).unwrap();
        self.command(Command::SlotsMove { slots, to })
    }

    fn restart(&mut self) {
        let texts = self.records.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let model = Model::load("p", texts).unwrap();
        assert_eq!(&model, self.machine.model(), "all of the model is kept");
        self.machine = Machine::new(model, self.now);
        self.replies.clear();
    }

    fn was_asked(&self, peer: &str, is_it: impl Fn(&Request) -> bool) -> bool {
        self.asked.iter().any(|(to, request)| to == peer && is_it(request))
    }
}

const A: &str = "10.0.0.1:6379";
const B: &str = "10.0.0.2:6379";
const P: &str = "10.0.0.9:11080";

/// Two groups of Cordis servers; the first serves slots 0 to 9.
fn two_groups() -> Rig {
    let mut rig = Rig::new();
    rig.add(1, A, false).unwrap();
    rig.add(2, B, false).unwrap();
    rig.assign("0-9", 1).unwrap();
    rig
}

#[test]
fn server_that_cannot_be_a_member_is_refused() {
    let mut rig = two_groups();
    rig.redis.push("10.0.0.3:1".into());
    rig.keys.insert("10.0.0.4:1".into(), SlotSet::parse("5").unwrap());
    rig.silent.push("10.0.0.5:1".into());
    let refused = [
        ("127.0.0.1:6379", false, "loopback"),
        ("0.0.0.0:6379", false, "nobody can connect"),
        ("somewhere:6379", false, "ip:port"),
        (A, false, "already exists"),
        ("10.0.0.3:1", false, "IMPORT"),
        ("10.0.0.4:1", false, "not empty"),
        ("10.0.0.4:1", true, "other groups serve"),
        ("10.0.0.5:1", false, "silence"),
    ];
    for (addr, is_import, why) in refused {
        let error = rig.add(3, addr, is_import).unwrap_err();
        assert!(error.contains(why), "{addr}: {error}");
        assert!(rig.machine.model().groups[&3].servers.is_empty());
    }
    assert!(rig.add(2, "10.0.0.6:1", false).unwrap_err().contains("has its server"));
    rig.add(3, "10.0.0.3:1", true).unwrap();
    assert!(rig.move_slots("1", 3).unwrap_err().contains("plain Redis"));
}

#[test]
fn move_that_makes_no_sense_is_refused_as_a_whole() {
    let mut rig = two_groups();
    rig.silent.push(B.into());
    rig.pass(2_000);
    for (slots, to, why) in [
        ("0-20", 2, "slots 10-20 are offline"),
        ("0-9", 1, "in group 1 already"),
        ("0", 7, "doesn't exist"),
        ("", 2, "no slot"),
    ] {
        let error = rig.move_slots(slots, to).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    rig.move_slots("0-4", 2).unwrap();
    assert!(rig.move_slots("3-6", 2).unwrap_err().contains("slots 3-4 are moving already"));
    assert!(rig.assign("3", 2).unwrap_err().contains("served already"));
    assert!(rig.command(Command::ServerDel { addr: A.into() }).unwrap_err().contains("in use"));
}

#[test]
fn native_move_ends_with_the_slots_that_the_source_reports() {
    let mut rig = two_groups();
    rig.move_slots("0-2", 2).unwrap();
    let carrier = rig.machine.model().moves.values().next().unwrap().clone();
    assert_eq!(carrier.state, crate::model::MoveState::Migrating);
    assert!(rig.was_asked(B, |request| matches!(request, Request::Expect { .. })));
    rig.moved.insert(carrier.id, SlotSet::parse("1").unwrap());
    rig.pass(200);
    let slot = *rig.machine.model().slot(1);
    assert_eq!((slot.group, slot.epoch, slot.action), (2, carrier.epoch, None));
    assert_eq!(rig.machine.map().slot(cordis_engine::units::SlotId::new(1).unwrap()).group, 2);
    // A restart in the middle: the rest goes on under the same number.
    rig.restart();
    rig.moved.insert(carrier.id, SlotSet::parse("0-2").unwrap());
    rig.pass(3_000);
    assert!(rig.machine.model().moves.is_empty());
    let op = rig.machine.model().ops.values().next().unwrap();
    assert_eq!((op.state, op.done), (OpState::Done, 3));
}

#[test]
fn move_from_a_silent_source_rolls_back_with_the_reason() {
    let mut rig = two_groups();
    rig.move_slots("0", 2).unwrap();
    rig.silent.push(A.into());
    rig.pass(60_000);
    let model = rig.machine.model();
    let op = model.ops.values().next().unwrap();
    assert_eq!(op.state, OpState::Failed);
    assert!(op.reason.contains("silence"), "{}", op.reason);
    assert_eq!(model.slot(0).group, 1);
    // Nobody knows what it has handed over: nothing else is done with the slot until it says.
    assert!(rig.move_slots("0", 2).unwrap_err().contains("undecided"));
    rig.restart();
    assert!(rig.move_slots("0", 2).unwrap_err().contains("undecided"));
    assert!(!rig.was_asked(B, |request| matches!(request, Request::Cancel { .. })));
    rig.silent.clear();
    rig.pass(5_000);
    assert!(rig.machine.model().moves.is_empty());
    assert!(rig.was_asked(B, |request| matches!(request, Request::Cancel { .. })));
    rig.move_slots("0", 2).unwrap();
}

#[test]
fn claim_under_a_higher_epoch_is_believed() {
    let mut rig = two_groups();
    let range = SlotReport {
        from: 4,
        to: 4,
        state: SlotState::Owned,
        epoch: 900,
        core: 0,
        peer: String::new(),
    };
    let request = Request::Slots;
    rig.machine.take_answer(B, &request, Answer::Slots(vec![range]));
    rig.step(Event::Tick);
    assert_eq!(rig.machine.model().slot(4).group, 2);
    assert!(rig.machine.map().epoch > 900, "what is granted next is above the claim");
}

#[test]
fn dialect_move_waits_for_a_silent_proxy_until_its_lease_has_ended() {
    let mut rig = Rig::new();
    rig.codis.push(A.into());
    rig.add(1, A, false).unwrap();
    rig.add(2, B, false).unwrap();
    rig.assign("0-9", 1).unwrap();
    rig.command(Command::ProxyAdd { addr: P.into() }).unwrap();
    let state = |rig: &Rig| rig.machine.model().moves.values().next().map(|m| m.state.name());
    // A proxy that was never given a lease cannot be fenced: the slot stays.
    rig.silent.push(P.into());
    rig.move_slots("0", 2).unwrap();
    assert_eq!(state(&rig), Some("preparing"));
    rig.pass(12_000);
    assert_eq!(state(&rig), None);
    assert!(rig.machine.model().ops.values().next().unwrap().reason.contains(P));
    // One that falls silent later is waited for as long as its lease may run.
    rig.silent.clear();
    rig.pass(3_000);
    rig.is_endless = true;
    rig.move_slots("0", 2).unwrap();
    assert_eq!(state(&rig), Some("migrating"));
    rig.silent.push(P.into());
    rig.command(Command::Cancel(Cancelled::All)).unwrap();
    let is_held = |rig: &Rig| rig.machine.map().slots.iter().any(|range| range.locked);
    let lease_ms = rig.machine.model().settings.lease_ms as i64;
    rig.pass(lease_ms / 2);
    assert!(is_held(&rig), "its lease may still run");
    rig.pass(lease_ms);
    assert!(!is_held(&rig), "it is not waited for without end");
}

#[test]
fn pause_survives_a_restart_and_holds_everything() {
    let mut rig = two_groups();
    rig.command(Command::Pause).unwrap();
    rig.move_slots("0", 2).unwrap();
    rig.pass(1_000);
    rig.restart();
    rig.pass(30_000);
    assert!(rig.machine.model().moves.is_empty());
    assert_eq!(rig.machine.model().action_state(0), "pending");
    rig.command(Command::Resume).unwrap();
    rig.pass(1_000);
    assert_eq!(rig.machine.model().action_state(0), "migrating");
}
