//! What decides in a move of one slot: the source's machine and the target's, without any I/O.
//!
//! Each is a state and a `step(now, event)` that returns actions; shells carry the actions out and
//! report what came of them. Messages may be lost, late, doubled or out of order, and either side may
//! end at any moment: whatever happens, a slot has at most one side that serves it, and that side has
//! all of its keys.
//!
//! Why this holds: only the source decides that the target serves the slot. It sends `Commit` after it
//! has stopped serving for good (`Handed`), and takes the slot back only when the target has said that
//! it has nothing of that attempt and never will have: an attempt that was aborted, or that is older
//! than another, is refused for ever by the target (its `floor`), and a target that was restarted has
//! none. The target serves the slot from `Commit` of an attempt that was checked (`Ready`) on, and
//! from nothing else. That an attempt may come so far is on disk before its slot is frozen: a source
//! that was restarted asks the target before it serves.

use smallvec::{SmallVec, smallvec};

use crate::units::Ms;

/// Numbers the attempts to move a slot: later ones are higher, also after a restart of the source.
pub type Attempt = u64;

/// A slot that is frozen for longer is served again, and the attempt is given up.
pub const FREEZE_MS_MAX: i64 = 500;
/// First wait after an attempt that failed.
const RETRY_MS_MIN: i64 = 20;
/// Longest wait between two attempts.
const RETRY_MS_MAX: i64 = 2_000;
/// How long the target's answer to COMMIT, ABORT or RESOLVE is waited for before it is asked again.
pub const ASK_AGAIN_MS: i64 = 500;

// ---- the source ----

/// How far the source of a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// The slot is served, and nothing of it is under way: until then.
    Waiting(Ms),
    /// The target has been asked to take it in.
    Opening,
    /// Its keys are being sent, and what happens to those that were.
    Streaming,
    /// Nearly all is sent; that it may be handed over is not on disk yet.
    Noting,
    /// Requests wait since then; the rest is being sent.
    Frozen(Ms),
    /// Requests wait since then; the target checks what it has.
    Checking(Ms),
    /// The target serves it, or will: it is told so until it says that it knows; the next time then.
    Handed(Ms),
    /// After a restart in the middle of a hand-over: the target is asked; the next time then.
    InDoubt(Ms),
    /// The target, which does not serve it, is told to forget it, for good; the next time then.
    Withdrawing(Ms),
    /// The target serves it and has said so.
    Done,
    /// The slot stays here.
    Cancelled,
    /// The slot stays here because it cannot be moved: the target has said why.
    Failed,
}

/// What the target of a slot says that it is to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetView {
    /// It serves it.
    Active,
    /// It has all of it and waits for `Commit`.
    Ready,
    /// It has some of it.
    Importing,
    /// It has nothing.
    None,
}

/// Something that happens to the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceEvent {
    /// Time has passed.
    Tick,
    /// The target can be reached; it cannot any more.
    LinkUp,
    /// See `LinkUp`. What was sent may have arrived or not.
    LinkDown,
    /// The target takes the slot in.
    Imported(Attempt),
    /// All keys have been sent, and little is left of what happened to them since.
    Caught(Attempt),
    /// The intent to hand over is on disk.
    Noted(Attempt),
    /// The slot is frozen and all that is left has been sent.
    Drained(Attempt),
    /// The target has what the source has.
    Checked(Attempt),
    /// The target has refused something of this attempt, or has something else than the source.
    Refused(Attempt, Refusal),
    /// The target serves the slot.
    Committed(Attempt),
    /// The target does not know this attempt and never will.
    CommitUnknown(Attempt),
    /// The answer to `Abort`: whether the target serves the slot all the same.
    Aborted(Attempt, bool),
    /// The answer to `Resolve`.
    Resolved(TargetView),
    /// What was sent is void: whole databases have changed.
    Reset,
    /// The move is called off.
    Cancel,
}

/// Why the target refuses an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It may be tried again.
    Retry,
    /// Trying again is of no use: it has no memory, say.
    Final,
}

/// Something that the source's shell does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceAction {
    /// Ask the target to take the slot in.
    SendImport(Attempt),
    /// Begin to send keys and what happens to them: the slot is `Leaving`.
    BeginStream(Attempt),
    /// End that: the slot is `Owned` again.
    EndStream,
    /// Write to disk that this attempt may hand the slot over, then `Noted`.
    Note(Attempt),
    /// Requests wait from now on; send the rest, then `Drained`.
    Freeze(Attempt),
    /// Have the target compare.
    SendReady(Attempt),
    /// Requests run again: the slot is `Owned`, with the keys it had.
    Thaw,
    /// Requests are refused from now on with the target's address; keys are kept.
    HandOver(Attempt),
    /// Tell the target that it serves the slot.
    SendCommit(Attempt),
    /// Tell the target to drop this attempt and all before it, for good.
    SendAbort(Attempt),
    /// Ask the target what it is to the slot.
    SendResolve,
    /// The target serves the slot: keys are let go of.
    Forget,
}

/// Actions in order.
pub type SourceActions = SmallVec<[SourceAction; 3]>;

/// The source of one slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    state: SourceState,
    attempt: Attempt,
    is_linked: bool,
    is_cancelled: bool,
    /// Disk knows that this attempt may hand the slot over.
    is_noted: bool,
    failures: u32,
    /// Whether the slot holds keys here: asked after a restart only.
    holds_keys: bool,
}

impl Source {
    /// A slot that is served and is to be moved.
    pub fn new(now: Ms) -> Self {
        Self {
            state: SourceState::Waiting(now),
            attempt: 0,
            is_linked: false,
            is_cancelled: false,
            is_noted: false,
            failures: 0,
            holds_keys: true,
        }
    }

    /// A slot whose hand-over by `attempt` may have happened before a restart. `holds_keys`: whether
    /// its keys came back with the restart.
    pub fn in_doubt(now: Ms, attempt: Attempt, holds_keys: bool) -> Self {
        Self { state: SourceState::InDoubt(now), attempt, holds_keys, ..Self::new(now) }
    }

    /// How far it is.
    pub fn state(&self) -> SourceState {
        self.state
    }

    /// The attempt under way, or the last one.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Whether this attempt is under way, and the slot served here should it fail.
    pub fn is_trying(&self, attempt: Attempt) -> bool {
        self.attempt == attempt
            && matches!(
                self.state,
                SourceState::Opening
                    | SourceState::Streaming
                    | SourceState::Noting
                    | SourceState::Frozen(_)
                    | SourceState::Checking(_)
            )
    }

    /// Whether nothing will happen any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, SourceState::Done | SourceState::Cancelled | SourceState::Failed)
    }

    /// Whether the slot is served here: `None` when it is frozen or in doubt.
    pub fn serves(&self) -> Option<bool> {
        match self.state {
            SourceState::Waiting(_)
            | SourceState::Opening
            | SourceState::Streaming
            | SourceState::Noting
            | SourceState::Cancelled
            | SourceState::Failed => Some(true),
            SourceState::Handed(_) | SourceState::Done => Some(false),
            SourceState::Frozen(_)
            | SourceState::Checking(_)
            | SourceState::InDoubt(_)
            | SourceState::Withdrawing(_) => None,
        }
    }

    /// When `Tick` is due; none if only other events can change anything.
    pub fn next_at(&self) -> Option<Ms> {
        match self.state {
            SourceState::Waiting(at)
            | SourceState::Handed(at)
            | SourceState::InDoubt(at)
            | SourceState::Withdrawing(at) => self.is_linked.then_some(at),
            SourceState::Frozen(since) | SourceState::Checking(since) => {
                Some(Ms(since.0 + FREEZE_MS_MAX))
            }
            _ => None,
        }
    }

    /// Takes an event in; returns what is to be done, in order.
    pub fn step(&mut self, now: Ms, event: SourceEvent) -> SourceActions {
        match event {
            SourceEvent::Tick => self.tick(now),
            SourceEvent::LinkUp => {
                self.is_linked = true;
                self.ask_now(now);
                self.tick(now)
            }
            SourceEvent::LinkDown => {
                self.is_linked = false;
                self.give_up(now, false)
            }
            SourceEvent::Cancel => self.cancel(now),
            SourceEvent::Reset => self.give_up(now, true),
            SourceEvent::Refused(attempt, refusal) if attempt == self.attempt => {
                self.refused(now, refusal)
            }
            SourceEvent::Resolved(view) => self.resolved(now, view),
            SourceEvent::Aborted(attempt, is_active) if attempt == self.attempt => {
                self.aborted(now, is_active)
            }
            SourceEvent::Imported(attempt)
            | SourceEvent::Caught(attempt)
            | SourceEvent::Noted(attempt)
            | SourceEvent::Drained(attempt)
            | SourceEvent::Checked(attempt)
            | SourceEvent::Committed(attempt)
            | SourceEvent::CommitUnknown(attempt)
                if attempt == self.attempt =>
            {
                self.advance(now, &event)
            }
            // Of an attempt that was given up.
            _ => SmallVec::new(),
        }
    }

    /// What brings an attempt further.
    fn advance(&mut self, now: Ms, event: &SourceEvent) -> SourceActions {
        use SourceAction as Do;
        let attempt = self.attempt;
        let (state, actions): (_, SourceActions) = match (self.state, event) {
            // The disk takes its time while keys are sent.
            (SourceState::Opening, SourceEvent::Imported(_)) => {
                self.is_noted = false;
                (SourceState::Streaming, smallvec![Do::BeginStream(attempt), Do::Note(attempt)])
            }
            (SourceState::Streaming, SourceEvent::Noted(_)) => {
                self.is_noted = true;
                (SourceState::Streaming, smallvec![])
            }
            (SourceState::Streaming, SourceEvent::Caught(_)) if self.is_noted => {
                (SourceState::Frozen(now), smallvec![Do::Freeze(attempt)])
            }
            (SourceState::Streaming, SourceEvent::Caught(_)) => (SourceState::Noting, smallvec![]),
            (SourceState::Noting, SourceEvent::Noted(_)) => {
                (SourceState::Frozen(now), smallvec![Do::Freeze(attempt)])
            }
            (SourceState::Frozen(since), SourceEvent::Drained(_)) => {
                (SourceState::Checking(since), smallvec![Do::SendReady(attempt)])
            }
            (SourceState::Checking(_), SourceEvent::Checked(_)) => (
                SourceState::Handed(Ms(now.0 + ASK_AGAIN_MS)),
                smallvec![Do::HandOver(attempt), Do::SendCommit(attempt)],
            ),
            (SourceState::Handed(_), SourceEvent::Committed(_)) => {
                (SourceState::Done, smallvec![Do::Forget])
            }
            (SourceState::Handed(_), SourceEvent::CommitUnknown(_)) => {
                // It has lost what it had before it served the slot. What it was told is void.
                self.failures += 1;
                (self.rest(now), smallvec![Do::Thaw])
            }
            _ => return SmallVec::new(),
        };
        self.state = state;
        actions
    }

    fn tick(&mut self, now: Ms) -> SourceActions {
        match self.state {
            SourceState::Waiting(at) if self.is_linked && at <= now => {
                self.attempt = (self.attempt + 1).max(now.0.max(0) as u64);
                self.state = SourceState::Opening;
                smallvec![SourceAction::SendImport(self.attempt)]
            }
            SourceState::Frozen(since) | SourceState::Checking(since)
                if since.0 + FREEZE_MS_MAX <= now.0 =>
            {
                self.give_up(now, true)
            }
            SourceState::Handed(at) if self.is_linked && at <= now => {
                self.state = SourceState::Handed(Ms(now.0 + ASK_AGAIN_MS));
                smallvec![SourceAction::SendCommit(self.attempt)]
            }
            SourceState::InDoubt(at) if self.is_linked && at <= now => {
                self.state = SourceState::InDoubt(Ms(now.0 + ASK_AGAIN_MS));
                smallvec![SourceAction::SendResolve]
            }
            SourceState::Withdrawing(at) if self.is_linked && at <= now => {
                self.state = SourceState::Withdrawing(Ms(now.0 + ASK_AGAIN_MS));
                smallvec![SourceAction::SendAbort(self.attempt)]
            }
            _ => SmallVec::new(),
        }
    }

    /// A new link: what was asked on the old one is asked again at once.
    fn ask_now(&mut self, now: Ms) {
        match &mut self.state {
            SourceState::Handed(at) | SourceState::InDoubt(at) | SourceState::Withdrawing(at) => {
                *at = now;
            }
            _ => {}
        }
    }

    /// Ends the attempt under way, if one is and the slot has not been handed over.
    fn give_up(&mut self, now: Ms, tell: bool) -> SourceActions {
        let mut actions: SourceActions = match self.state {
            SourceState::Opening => SmallVec::new(),
            SourceState::Streaming | SourceState::Noting => smallvec![SourceAction::EndStream],
            SourceState::Frozen(_) | SourceState::Checking(_) => smallvec![SourceAction::Thaw],
            _ => return SmallVec::new(),
        };
        if tell && self.is_linked {
            actions.push(SourceAction::SendAbort(self.attempt));
        }
        self.failures += 1;
        self.state = self.rest(now);
        actions
    }

    /// Where a slot that is served goes when nothing of it is under way.
    fn rest(&self, now: Ms) -> SourceState {
        if self.is_cancelled {
            return SourceState::Cancelled;
        }
        let doublings = self.failures.saturating_sub(1).min(10);
        let wait = if self.failures == 0 { 0 } else { RETRY_MS_MIN << doublings };
        SourceState::Waiting(Ms(now.0 + wait.min(RETRY_MS_MAX)))
    }

    fn refused(&mut self, now: Ms, refusal: Refusal) -> SourceActions {
        let actions = self.give_up(now, true);
        // A slot that has changed hands, or perhaps so, cannot fail any more.
        let stays = matches!(self.state, SourceState::Waiting(_));
        if stays && refusal == Refusal::Final && !self.is_cancelled {
            self.state = SourceState::Failed;
        }
        actions
    }

    fn cancel(&mut self, now: Ms) -> SourceActions {
        self.is_cancelled = true;
        match self.state {
            SourceState::Waiting(_) | SourceState::Failed => {
                self.state = SourceState::Cancelled;
                SmallVec::new()
            }
            // Handed over, or perhaps so: it is brought to its end first.
            _ => self.give_up(now, true),
        }
    }

    fn resolved(&mut self, now: Ms, view: TargetView) -> SourceActions {
        if !matches!(self.state, SourceState::InDoubt(_)) {
            return SmallVec::new();
        }
        match view {
            TargetView::Active => {
                self.state = SourceState::Done;
                smallvec![SourceAction::Forget]
            }
            TargetView::Ready if !self.holds_keys => {
                self.state = SourceState::Handed(Ms(now.0 + ASK_AGAIN_MS));
                let attempt = self.attempt;
                smallvec![SourceAction::HandOver(attempt), SourceAction::SendCommit(attempt)]
            }
            _ => {
                self.state = SourceState::Withdrawing(Ms(now.0 + ASK_AGAIN_MS));
                smallvec![SourceAction::SendAbort(self.attempt)]
            }
        }
    }

    fn aborted(&mut self, now: Ms, is_active: bool) -> SourceActions {
        if !matches!(self.state, SourceState::Withdrawing(_)) {
            return SmallVec::new();
        }
        if is_active {
            self.state = SourceState::Done;
            return smallvec![SourceAction::Forget];
        }
        self.state = self.rest(now);
        smallvec![SourceAction::Thaw]
    }
}

// ---- the target ----

/// What the target of a slot is to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetState {
    /// Nothing.
    #[default]
    Idle,
    /// It takes in what this attempt sends.
    Importing(Attempt),
    /// It has all that this attempt had to send.
    Ready(Attempt),
    /// It serves the slot, which this attempt has brought.
    Active(Attempt),
}

/// Something that happens to the target. Each is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetEvent {
    /// An attempt begins, or goes on on another connection.
    Import(Attempt),
    /// All of an attempt has come; whether it is what the source has.
    Checked(Attempt, bool),
    /// The source has let go of the slot.
    Commit(Attempt),
    /// The source has given up this attempt.
    Abort(Attempt),
    /// The move is called off here.
    Cancel,
}

/// What the target answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetReply {
    /// So it is.
    Ok,
    /// The slot is served here already.
    Active,
    /// Another attempt has come since, or this one was given up.
    Stale,
    /// This attempt is not known, and never will be.
    Unknown,
    /// What has come is not what the source has.
    Mismatch,
}

/// What the target's shell does before it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetAction {
    /// Nothing.
    None,
    /// Drop the keys that earlier attempts have left; requests are refused.
    Clear,
    /// Requests run from now on.
    Activate,
}

/// The target of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Target {
    state: TargetState,
    /// Attempts up to this one are over.
    floor: Attempt,
}

impl Target {
    /// What it is to the slot.
    pub fn state(&self) -> TargetState {
        self.state
    }

    /// What it says of itself to a source that asks.
    pub fn view(&self) -> TargetView {
        match self.state {
            TargetState::Idle => TargetView::None,
            TargetState::Importing(_) => TargetView::Importing,
            TargetState::Ready(_) => TargetView::Ready,
            TargetState::Active(_) => TargetView::Active,
        }
    }

    /// Whether what a connection sends for an attempt is taken in.
    pub fn takes(&self, attempt: Attempt) -> bool {
        self.state == TargetState::Importing(attempt)
    }

    /// Takes an event in; returns what is to be done, and the answer.
    pub fn step(&mut self, event: TargetEvent) -> (TargetAction, TargetReply) {
        match event {
            TargetEvent::Import(attempt) => self.import(attempt),
            TargetEvent::Checked(attempt, is_equal) => match self.state {
                TargetState::Importing(mine) if mine == attempt && is_equal => {
                    self.state = TargetState::Ready(attempt);
                    (TargetAction::None, TargetReply::Ok)
                }
                TargetState::Importing(mine) if mine == attempt => {
                    (TargetAction::None, TargetReply::Mismatch)
                }
                _ => (TargetAction::None, TargetReply::Stale),
            },
            TargetEvent::Commit(attempt) => match self.state {
                TargetState::Ready(mine) if mine == attempt => {
                    self.state = TargetState::Active(attempt);
                    (TargetAction::Activate, TargetReply::Ok)
                }
                TargetState::Active(mine) if mine == attempt => {
                    (TargetAction::None, TargetReply::Ok)
                }
                _ => {
                    // Never again: the source takes the slot back on this word.
                    self.floor = self.floor.max(attempt);
                    let action = self.drop_older();
                    (action, TargetReply::Unknown)
                }
            },
            TargetEvent::Abort(attempt) => {
                if let TargetState::Active(_) = self.state {
                    return (TargetAction::None, TargetReply::Active);
                }
                self.floor = self.floor.max(attempt);
                (self.drop_older(), TargetReply::Ok)
            }
            TargetEvent::Cancel => match self.state {
                TargetState::Importing(attempt) | TargetState::Ready(attempt) => {
                    self.floor = self.floor.max(attempt);
                    (self.drop_older(), TargetReply::Ok)
                }
                TargetState::Idle | TargetState::Active(_) => (TargetAction::None, TargetReply::Ok),
            },
        }
    }

    fn import(&mut self, attempt: Attempt) -> (TargetAction, TargetReply) {
        match self.state {
            TargetState::Active(_) => (TargetAction::None, TargetReply::Active),
            TargetState::Importing(mine) if mine == attempt => {
                (TargetAction::None, TargetReply::Ok)
            }
            TargetState::Importing(mine) | TargetState::Ready(mine) if mine >= attempt => {
                (TargetAction::None, TargetReply::Stale)
            }
            _ if attempt <= self.floor => (TargetAction::None, TargetReply::Stale),
            _ => {
                self.floor = attempt - 1;
                self.state = TargetState::Importing(attempt);
                (TargetAction::Clear, TargetReply::Ok)
            }
        }
    }

    /// Lets go of an attempt that is over.
    fn drop_older(&mut self) -> TargetAction {
        match self.state {
            TargetState::Importing(mine) | TargetState::Ready(mine) if mine <= self.floor => {
                self.state = TargetState::Idle;
                TargetAction::Clear
            }
            _ => TargetAction::None,
        }
    }
}
