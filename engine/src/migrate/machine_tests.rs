//! Random histories of one slot's move: messages lost, late, doubled and out of order, both sides
//! restarted, the move called off.

use super::machine::*;
use crate::units::Ms;

/// What travels between the two.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    Import(Attempt),
    Ready(Attempt),
    Commit(Attempt),
    Abort(Attempt),
    Resolve,
    Imported(Attempt, TargetReply),
    Checked(Attempt, TargetReply),
    Committed(Attempt, TargetReply),
    Aborted(Attempt, TargetReply),
    View(TargetView),
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Both sides, the network, and what each side has of the slot's keys: a version that writes advance.
struct World {
    source: Source,
    target: Target,
    now: Ms,
    net: Vec<Message>,
    chance: Chance,
    /// Version of the source's keys; none once it has let go of them.
    source_keys: Option<u64>,
    /// Version that an attempt has brought to the target.
    target_keys: Option<u64>,
    /// Intent on disk.
    noted: Option<Attempt>,
    pending_note: Option<Attempt>,
    /// Version of all acknowledged writes.
    acknowledged: u64,
    target_serves: bool,
    source_forgot: bool,
    /// A restart that keeps its data (a log on disk), or one that does not.
    durable: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            source: Source::new(Ms(1_000)),
            target: Target::default(),
            now: Ms(1_000),
            net: Vec::new(),
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            source_keys: Some(0),
            target_keys: None,
            noted: None,
            pending_note: None,
            acknowledged: 0,
            target_serves: false,
            source_forgot: false,
            durable: true,
        }
    }

    fn source_step(&mut self, event: SourceEvent) {
        for action in self.source.step(self.now, event) {
            match action {
                SourceAction::SendImport(a) => self.net.push(Message::Import(a)),
                SourceAction::SendReady(a) => self.net.push(Message::Ready(a)),
                SourceAction::SendCommit(a) => self.net.push(Message::Commit(a)),
                SourceAction::SendAbort(a) => self.net.push(Message::Abort(a)),
                SourceAction::SendResolve => self.net.push(Message::Resolve),
                SourceAction::Note(a) => self.pending_note = Some(a),
                SourceAction::Forget => {
                    assert!(self.target_serves, "keys are let go of that nobody else has");
                    self.source_keys = None;
                    self.source_forgot = true;
                    self.noted = None;
                }
                SourceAction::Thaw => {
                    assert!(!self.target_serves, "taken back from a target that serves it");
                    assert!(self.source_keys.is_some(), "taken back without keys");
                }
                SourceAction::BeginStream(_)
                | SourceAction::EndStream
                | SourceAction::Freeze(_)
                | SourceAction::HandOver(_) => {}
            }
        }
    }

    fn target_step(&mut self, event: TargetEvent) -> TargetReply {
        let (action, reply) = self.target.step(event);
        match action {
            TargetAction::Clear => self.target_keys = None,
            TargetAction::Activate => {
                self.target_serves = true;
                assert!(self.source.serves() != Some(true), "two sides serve the slot");
                assert_eq!(self.target_keys, Some(self.acknowledged), "a write is lost");
            }
            TargetAction::None => {}
        }
        reply
    }

    fn deliver(&mut self) {
        if self.net.is_empty() {
            return;
        }
        let index = self.chance.below(self.net.len() as u64) as usize;
        let message = match self.chance.below(10) {
            // Doubled: it stays under way.
            0 => self.net[index].clone(),
            1 => {
                self.net.swap_remove(index);
                return;
            }
            _ => self.net.swap_remove(index),
        };
        let answer = match message {
            Message::Import(a) => Message::Imported(a, self.target_step(TargetEvent::Import(a))),
            Message::Ready(a) => {
                // The stream itself is in order on one connection: what comes is the frozen state.
                let is_equal = self.source.attempt() == a && self.target.takes(a);
                if is_equal {
                    self.target_keys = self.source_keys;
                }
                let is_equal = is_equal && self.chance.below(8) != 0;
                Message::Checked(a, self.target_step(TargetEvent::Checked(a, is_equal)))
            }
            Message::Commit(a) => Message::Committed(a, self.target_step(TargetEvent::Commit(a))),
            Message::Abort(a) => Message::Aborted(a, self.target_step(TargetEvent::Abort(a))),
            Message::Resolve => Message::View(self.target.view()),
            Message::Imported(a, TargetReply::Ok) => {
                return self.source_step(SourceEvent::Imported(a));
            }
            Message::Checked(a, TargetReply::Ok) => {
                return self.source_step(SourceEvent::Checked(a));
            }
            Message::Imported(a, _) | Message::Checked(a, _) => {
                return self.source_step(SourceEvent::Refused(a, Refusal::Retry));
            }
            Message::Committed(a, TargetReply::Ok) => {
                return self.source_step(SourceEvent::Committed(a));
            }
            Message::Committed(a, _) => return self.source_step(SourceEvent::CommitUnknown(a)),
            Message::Aborted(a, reply) => {
                let is_active = reply == TargetReply::Active;
                return self.source_step(SourceEvent::Aborted(a, is_active));
            }
            Message::View(view) => return self.source_step(SourceEvent::Resolved(view)),
        };
        self.net.push(answer);
    }

    fn any_event(&mut self) {
        let attempt = self.source.attempt();
        match self.chance.below(100) {
            0..=49 => self.deliver(),
            50..=59 => {
                self.now.0 += self.chance.below(200) as i64;
                self.source_step(SourceEvent::Tick);
            }
            60..=69 => self.source_step(SourceEvent::Caught(attempt)),
            70..=79 => {
                if let Some(noted) = self.pending_note.take() {
                    self.noted = Some(noted);
                    self.source_step(SourceEvent::Noted(noted));
                }
            }
            80..=87 => self.source_step(SourceEvent::Drained(attempt)),
            88..=91 => self.source_step(SourceEvent::LinkUp),
            92 => self.source_step(SourceEvent::LinkDown),
            93 => self.source_step(SourceEvent::Reset),
            94..=98 => self.write(),
            _ => self.restart(),
        }
    }

    fn write(&mut self) {
        if self.source.serves() == Some(true) {
            assert!(!self.target_serves, "two sides serve the slot");
            self.acknowledged += 1;
            self.source_keys = Some(self.acknowledged);
        }
    }

    /// The source restarts; its keys come back from its log. (The target is not restarted here: with
    /// its data gone there would be nothing left to check.)
    fn restart(&mut self) {
        if self.source_forgot || !self.durable {
            return;
        }
        self.pending_note = None;
        self.now.0 += 1;
        self.source = match self.noted {
            Some(attempt) => Source::in_doubt(self.now, attempt, true),
            None => Source::new(self.now),
        };
        // What it had not sent is gone; what was under way may still arrive.
        self.source_step(SourceEvent::LinkUp);
    }
}

#[test]
fn slot_has_one_owner_with_all_keys_in_every_random_history() {
    let mut ends = [0; 2];
    for seed in 0..20_000 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.any_event();
        }
        // Then the network heals and time passes: it ends, on one side.
        for n in 0..9_000 {
            if world.source.has_ended() {
                break;
            }
            if n % 130 == 0 {
                // A lost message is a connection that has gone silent.
                world.source_step(SourceEvent::LinkDown);
            }
            world.source_step(SourceEvent::LinkUp);
            world.now.0 += 50;
            world.source_step(SourceEvent::Tick);
            let attempt = world.source.attempt();
            world.source_step(SourceEvent::Caught(attempt));
            if let Some(noted) = world.pending_note.take() {
                world.noted = Some(noted);
                world.source_step(SourceEvent::Noted(noted));
            }
            world.source_step(SourceEvent::Drained(attempt));
            for _ in 0..4 {
                world.deliver();
            }
        }
        assert_eq!(world.source.state(), SourceState::Done, "seed {seed} does not end");
        assert!(world.target_serves && world.target_keys == Some(world.acknowledged));
        ends[usize::from(world.acknowledged > 0)] += 1;
    }
    assert!(ends[1] > 1_000, "hardly anything was written: {ends:?}");
}

#[test]
fn cancelled_move_leaves_the_slot_on_one_side() {
    for seed in 0..10_000 {
        let mut world = World::new(seed);
        let at = world.chance.below(120);
        for n in 0..120 {
            if n == at {
                world.source_step(SourceEvent::Cancel);
            }
            world.any_event();
        }
        // A restart forgets that it was called off: control says it again.
        world.source_step(SourceEvent::Cancel);
        for _ in 0..2_000 {
            if world.source.has_ended() {
                break;
            }
            world.source_step(SourceEvent::LinkUp);
            world.now.0 += 50;
            world.source_step(SourceEvent::Tick);
            for _ in 0..4 {
                world.deliver();
            }
        }
        let stayed = world.source.state() == SourceState::Cancelled;
        assert!(stayed || world.source.state() == SourceState::Done, "seed {seed}");
        assert_ne!(stayed, world.target_serves, "seed {seed}: nobody serves it, or both do");
    }
}

#[test]
fn target_without_memory_fails_the_move_and_leaves_the_slot() {
    let mut source = Source::new(Ms(0));
    source.step(Ms(0), SourceEvent::LinkUp);
    let attempt = source.attempt();
    source.step(Ms(1), SourceEvent::Imported(attempt));
    let actions = source.step(Ms(2), SourceEvent::Refused(attempt, Refusal::Final));
    assert_eq!(actions[..], [SourceAction::EndStream, SourceAction::SendAbort(attempt)]);
    assert_eq!((source.state(), source.serves()), (SourceState::Failed, Some(true)));
}

#[test]
fn frozen_slot_is_served_again_at_its_deadline() {
    let mut source = Source::new(Ms(0));
    source.step(Ms(0), SourceEvent::LinkUp);
    let attempt = source.attempt();
    for event in [
        SourceEvent::Imported(attempt),
        SourceEvent::Caught(attempt),
        SourceEvent::Noted(attempt),
        SourceEvent::Drained(attempt),
    ] {
        source.step(Ms(10), event);
    }
    assert_eq!(source.next_at(), Some(Ms(10 + FREEZE_MS_MAX)));
    assert!(source.step(Ms(9 + FREEZE_MS_MAX), SourceEvent::Tick).is_empty());
    let actions = source.step(Ms(10 + FREEZE_MS_MAX), SourceEvent::Tick);
    assert_eq!(actions[..], [SourceAction::Thaw, SourceAction::SendAbort(attempt)]);
    // What comes too late is of an attempt that is over.
    let late = SourceEvent::Checked(attempt);
    let mut after = source.clone();
    assert!(after.step(Ms(900), late).is_empty() && after.serves() == Some(true));
}
