//! What is decided in the cluster's books: what control asks for, what the source of a move says, and
//! what a slot becomes by the actions of its machine.
//!
//! Pure: knows no shard, no lock, no file and no time of its own. Cores call it with the books locked
//! and do to the slot's keys what follows; the cluster's simulator calls the same.

use std::sync::Arc;

use crate::migrate::cluster::{Inbound, Inner, Membership, MoveId, Outbound, SlotEntry, Wanted};
use crate::migrate::machine::{
    Attempt, Refusal, Source, SourceAction, SourceEvent, TargetAction, TargetEvent, TargetReply,
    TargetView,
};
use crate::resp::error::CommandError;
use crate::slots::map::ClusterMap;
use crate::slots::state::{SlotSet, SlotState};
use crate::units::{Ms, SlotId};

/// Moves called off that are remembered: control has a few under way at a time.
const CALLED_OFF_MAX: usize = 256;

/// A move as control orders it.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its number.
    pub id: MoveId,
    /// The epoch that the slots get.
    pub epoch: u64,
    /// Where they go.
    pub target: String,
    /// Which slots.
    pub slots: SlotSet,
    /// Most bytes per second; 0: no limit.
    pub rate_bytes: Option<u64>,
    /// Slots that each core moves at once.
    pub parallel: Option<usize>,
}

/// An attempt of a move to bring a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coming {
    /// The slot.
    pub slot: SlotId,
    /// The move.
    pub id: MoveId,
    /// The attempt.
    pub attempt: Attempt,
}

/// The source's move that a slot leaves by.
#[derive(Clone, Copy, Debug)]
pub struct Going<'a> {
    /// The move.
    pub id: MoveId,
    /// The epoch that the slot gets.
    pub epoch: u64,
    /// Where it goes.
    pub target: &'a Arc<str>,
}

/// What the source has asked its target to do for an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To take the slot in.
    Import,
    /// To take in what fills it.
    Fill,
    /// To compare what it has.
    Ready,
    /// To serve the slot.
    Commit,
    /// To drop what has come.
    Abort,
}

/// How the target answers.
///
/// # Errors
/// The error reply.
pub fn answer_of(reply: TargetReply) -> Result<(), CommandError> {
    Err(match reply {
        TargetReply::Ok => return Ok(()),
        TargetReply::Active => CommandError::IMPORT_ACTIVE,
        TargetReply::Stale => CommandError::IMPORT_STALE,
        TargetReply::Unknown => CommandError::IMPORT_UNKNOWN,
        TargetReply::Mismatch => CommandError::IMPORT_MISMATCH,
    })
}

/// What the target's answer says to the machine of the source; `error`: its text, if it is one. None:
/// nothing, it is asked again.
pub fn heard(asked: Asked, attempt: Attempt, error: Option<&str>) -> Option<SourceEvent> {
    let is = |prefix: &str| error.is_some_and(|error| error.starts_with(prefix));
    match (asked, error) {
        (Asked::Fill, None) => None,
        (Asked::Import, None) => Some(SourceEvent::Imported(attempt)),
        (Asked::Ready, None) => Some(SourceEvent::Checked(attempt)),
        (Asked::Commit, None) => Some(SourceEvent::Committed(attempt)),
        (Asked::Abort, None) => Some(SourceEvent::Aborted(attempt, false)),
        (Asked::Import | Asked::Fill | Asked::Ready, Some(_)) => {
            let is_final = is("OOM") || is("ACTIVE");
            let refusal = if is_final { Refusal::Final } else { Refusal::Retry };
            Some(SourceEvent::Refused(attempt, refusal))
        }
        (Asked::Commit, Some(_)) => is("NOIMPORT").then_some(SourceEvent::CommitUnknown(attempt)),
        (Asked::Abort, Some(_)) => is("ACTIVE").then_some(SourceEvent::Aborted(attempt, true)),
    }
}

impl Inner {
    // ---- what control asks for ----

    /// Makes the server one of a cluster; again and again changes nothing.
    ///
    /// # Errors
    /// It is one of another product.
    pub fn admit(&mut self, membership: Membership) -> Result<(), CommandError> {
        match &mut self.membership {
            Some(me) if me.product != membership.product => {
                return Err(CommandError::other_product(&me.product));
            }
            Some(me) => *me = membership,
            None => self.join(membership),
        }
        Ok(())
    }

    /// Makes it a server of its own again.
    ///
    /// # Errors
    /// It is one of another product.
    pub fn dismiss(&mut self, product: &[u8]) -> Result<(), CommandError> {
        match &self.membership {
            Some(me) if me.product.as_bytes() != product => {
                return Err(CommandError::other_product(&me.product));
            }
            Some(_) => self.leave(),
            None => {}
        }
        Ok(())
    }

    /// Takes a map over, unless a newer one is there.
    ///
    /// # Errors
    /// It is of another product or older, or the server is in no cluster.
    pub fn offer_map(&mut self, map: ClusterMap) -> Result<(), CommandError> {
        let Some(me) = &self.membership else {
            return Err(CommandError::NOT_JOINED);
        };
        if me.product != map.product {
            return Err(CommandError::other_product(&me.product));
        }
        if let Some(old) = self.map.as_ref().filter(|old| old.epoch > map.epoch) {
            return Err(CommandError::stale_map(old.epoch));
        }
        self.take_map(map);
        Ok(())
    }

    /// Allows a move to bring slots.
    ///
    /// # Errors
    /// It was called off, or the server is in no cluster.
    pub fn expect(
        &mut self,
        id: MoveId,
        epoch: u64,
        source: String,
        slots: SlotSet,
    ) -> Result<(), CommandError> {
        if self.membership.is_none() {
            return Err(CommandError::NOT_JOINED);
        }
        if self.called_off.contains(&id) {
            return Err(CommandError::MOVE_CANCELLED);
        }
        match self.inbound.get_mut(&id) {
            Some(inbound) if inbound.is_cancelled => return Err(CommandError::MOVE_CANCELLED),
            Some(inbound) => {
                inbound.epoch = epoch;
                inbound.source = source;
                inbound.slots = slots;
            }
            None => {
                let inbound = Inbound {
                    epoch,
                    source,
                    slots,
                    is_cancelled: false,
                    done: SlotSet::default(),
                    keys: 0,
                };
                self.inbound.insert(id, inbound);
            }
        }
        Ok(())
    }

    /// Begins a move away; of one that runs, changes the pace and tries again what failed. `defaults`:
    /// bytes per second and slots at once of a move that says nothing of them.
    ///
    /// # Errors
    /// It was called off, or a slot is not here to be moved.
    pub fn order_move(&mut self, order: Order, defaults: (u64, usize)) -> Result<(), CommandError> {
        if self.membership.is_none() {
            return Err(CommandError::NOT_JOINED);
        }
        if let Some(outbound) = self.outbound.get_mut(&order.id) {
            return again(outbound, order.rate_bytes, order.parallel);
        }
        if self.called_off.contains(&order.id) {
            return Err(CommandError::MOVE_CANCELLED);
        }
        self.check_slots(order.epoch, &order.slots)?;
        let mut outbound = Outbound {
            epoch: order.epoch,
            target: order.target,
            slots: order.slots,
            rate_bytes: order.rate_bytes.unwrap_or(defaults.0),
            parallel: order.parallel.unwrap_or(defaults.1),
            is_cancelled: false,
            done: SlotSet::default(),
            failed: SlotSet::default(),
            ended: SlotSet::default(),
            keys: 0,
            bytes: 0,
            error: String::new(),
            pause_max_us: 0,
            refused: 0,
        };
        // Slots that left under this epoch before, when the move had another life: they are done.
        for slot in order.slots.iter().filter(|&slot| self.slot(slot).state == SlotState::Away) {
            outbound.done.insert(slot);
            outbound.ended.insert(slot);
        }
        self.outbound.insert(order.id, outbound);
        Ok(())
    }

    /// Whether this server serves all of these slots, or has let go of them under this very epoch.
    fn check_slots(&self, epoch: u64, slots: &SlotSet) -> Result<(), CommandError> {
        let is_ours = slots.iter().all(|slot| {
            let entry = self.slot(slot);
            match entry.state {
                SlotState::Owned => entry.epoch < epoch,
                SlotState::Away => entry.epoch >= epoch,
                _ => false,
            }
        });
        let is_taken = self.outbound.values().any(|other| {
            !other.is_cancelled
                && other.slots.iter().any(|slot| {
                    let is_over = other.ended.contains(slot) || other.done.contains(slot);
                    slots.contains(slot) && !is_over
                })
        });
        if is_ours && !is_taken { Ok(()) } else { Err(CommandError::MOVE_OVERLAPS) }
    }

    /// Calls a move off, at whichever end this is, and for good: it cannot begin any more.
    pub fn call_off(&mut self, id: MoveId) {
        if !self.called_off.contains(&id) {
            self.called_off.push_back(id);
            if self.called_off.len() > CALLED_OFF_MAX {
                self.called_off.pop_front();
            }
        }
        if let Some(outbound) = self.outbound.get_mut(&id) {
            outbound.is_cancelled = true;
        }
        if let Some(inbound) = self.inbound.get_mut(&id) {
            inbound.is_cancelled = true;
        }
    }

    /// Makes of a slot what was wanted of it.
    pub fn make(&mut self, slot: SlotId, wanted: Wanted) {
        *self.slot_mut(slot) = SlotEntry {
            state: wanted.state,
            epoch: wanted.epoch,
            peer: wanted.peer,
            ..SlotEntry::default()
        };
    }

    /// Forgets moves that were called off and of which nothing is under way; whether there were any.
    pub fn forget_called_off(&mut self) -> bool {
        let Self { inbound, outbound, slots, .. } = self;
        let before = inbound.len() + outbound.len();
        let has_slot = |id: MoveId, is_in: bool| {
            slots.iter().any(|entry| {
                let comes = matches!(entry.state, SlotState::Importing | SlotState::Ready);
                entry.move_id == id && entry.state.is_moving() && comes == is_in
            })
        };
        inbound.retain(|&id, inbound| !inbound.is_cancelled || has_slot(id, true));
        outbound.retain(|&id, outbound| !outbound.is_cancelled || has_slot(id, false));
        inbound.len() + outbound.len() != before
    }

    // ---- the target of a move ----

    /// Slots that moves have brought which were called off: [`drop_import`](Self::drop_import) them.
    pub fn imports_called_off(&self) -> Vec<SlotId> {
        let is_over = |id: &MoveId| self.inbound.get(id).is_none_or(|i| i.is_cancelled);
        self.ids()
            .filter(|&slot| {
                let entry = self.slot(slot);
                matches!(entry.state, SlotState::Importing | SlotState::Ready)
                    && is_over(&entry.move_id)
            })
            .collect()
    }

    /// Lets go of what a move has brought of a slot. The caller drops its keys. Whether a map that came
    /// meanwhile, and passed the slot over, wants something of it now.
    pub fn drop_import(&mut self, slot: SlotId) -> bool {
        let entry = self.slot_mut(slot);
        entry.target.step(TargetEvent::Cancel);
        entry.state = SlotState::Away;
        self.want_by_map(slot)
    }

    /// An attempt to bring a slot begins, under this epoch. The caller does the action to its keys.
    ///
    /// # Errors
    /// No such move is expected, or the slot is not free for it. Nothing has changed then.
    pub fn begin_import(
        &mut self,
        coming: Coming,
        epoch: u64,
    ) -> Result<(TargetAction, TargetReply), CommandError> {
        let Coming { slot, id, attempt } = coming;
        let inbound = self.expects(id, slot).ok_or(CommandError::MOVE_UNKNOWN)?;
        if inbound.epoch != epoch || self.slot(slot).epoch >= epoch {
            return Err(CommandError::IMPORT_ACTIVE);
        }
        match self.slot(slot).state {
            SlotState::Owned | SlotState::Leaving | SlotState::Frozen => {
                return Err(CommandError::IMPORT_ACTIVE);
            }
            SlotState::Handed | SlotState::InDoubt => {
                return Err(CommandError::changing_hands(slot));
            }
            // Of two moves the later one is right: control allows one at a time.
            SlotState::Away | SlotState::Importing | SlotState::Ready => {}
        }
        let source: Arc<str> = Arc::from(&*inbound.source);
        let entry = self.slot_mut(slot);
        if entry.move_id != id {
            entry.target = Default::default();
        }
        let (action, reply) = entry.target.step(TargetEvent::Import(attempt));
        if action == TargetAction::Clear {
            entry.state = SlotState::Importing;
            entry.move_id = id;
            entry.peer = Some(source);
        }
        Ok((action, reply))
    }

    /// All of an attempt has come: `keys` keys, and whether they are what the source has.
    pub fn end_import(&mut self, coming: Coming, is_equal: bool, keys: u64) -> TargetReply {
        let entry = self.slot_mut(coming.slot);
        if entry.move_id != coming.id {
            return TargetReply::Stale;
        }
        let (_, reply) = entry.target.step(TargetEvent::Checked(coming.attempt, is_equal));
        if reply == TargetReply::Ok {
            entry.state = SlotState::Ready;
            if let Some(inbound) = self.inbound.get_mut(&coming.id) {
                inbound.keys += keys;
            }
        }
        reply
    }

    /// The source has let go of the slot: it is served here from now on, if this attempt has brought it.
    pub fn commit_import(&mut self, coming: Coming, epoch: u64) -> (TargetAction, TargetReply) {
        let entry = self.slot_mut(coming.slot);
        if entry.epoch >= epoch {
            // It was served here under this epoch, or somebody has had it since: the source must not
            // take it back.
            return (TargetAction::None, TargetReply::Ok);
        }
        if entry.move_id != coming.id {
            if entry.state.is_moving() || entry.state.is_visible() {
                // Another move is at it; this one is over here.
                return (TargetAction::None, TargetReply::Unknown);
            }
            entry.move_id = coming.id;
            entry.target = Default::default();
        }
        let (action, reply) = entry.target.step(TargetEvent::Commit(coming.attempt));
        match action {
            TargetAction::Activate => {
                *entry = SlotEntry { state: SlotState::Owned, epoch, ..SlotEntry::default() };
                if let Some(inbound) = self.inbound.get_mut(&coming.id) {
                    inbound.done.insert(coming.slot);
                }
            }
            TargetAction::Clear => entry.state = SlotState::Away,
            TargetAction::None => {}
        }
        (action, reply)
    }

    /// The source has given an attempt up.
    pub fn abort_import(&mut self, coming: Coming, epoch: u64) -> (TargetAction, TargetReply) {
        let entry = self.slot_mut(coming.slot);
        // It is served here, or has been under this epoch and went on to somebody else.
        if entry.state.is_visible() || entry.epoch >= epoch {
            return (TargetAction::None, TargetReply::Active);
        }
        if entry.move_id != coming.id {
            if entry.state.is_moving() {
                return (TargetAction::None, TargetReply::Ok);
            }
            entry.move_id = coming.id;
            entry.target = Default::default();
        }
        let (action, reply) = entry.target.step(TargetEvent::Abort(coming.attempt));
        if action == TargetAction::Clear {
            entry.state = SlotState::Away;
        }
        (action, reply)
    }

    /// What this server is to a slot that a move was to bring under this epoch.
    pub fn resolve(&self, id: MoveId, slot: SlotId, epoch: u64) -> TargetView {
        let entry = self.slot(slot);
        // Served here under it, or by somebody since, even if the move is forgotten.
        let was_brought = entry.epoch >= epoch;
        let is_at_it = entry.move_id == id;
        match entry.state {
            _ if was_brought => TargetView::Active,
            SlotState::Ready if is_at_it => TargetView::Ready,
            SlotState::Importing if is_at_it => TargetView::Importing,
            _ => TargetView::None,
        }
    }

    // ---- the source of a move ----

    /// Whether a slot of a move away is to be worked on now.
    pub fn is_to_move(&self, id: MoveId, outbound: &Outbound, slot: SlotId) -> bool {
        let is_open = self.slot(slot).state == SlotState::Owned && !outbound.is_cancelled;
        !outbound.ended.contains(slot) && (self.is_in_doubt(id, slot) || is_open)
    }

    /// Whether a slot has to be worked on even if its move was called off: nobody else can say whose it
    /// is.
    pub fn is_in_doubt(&self, id: MoveId, slot: SlotId) -> bool {
        let entry = self.slot(slot);
        entry.state == SlotState::InDoubt && entry.move_id == id
    }

    /// The machine of a slot that is worked on from now on; none if there is nothing to be done.
    /// `holds_keys`: whether the slot has keys here, asked after a restart only.
    pub fn begin_leaving(
        &mut self,
        id: MoveId,
        slot: SlotId,
        now: Ms,
        holds_keys: impl FnOnce() -> bool,
    ) -> Option<Source> {
        let entry = self.slot_mut(slot);
        match (entry.state, entry.noted) {
            (SlotState::Owned, _) => {
                entry.state = SlotState::Leaving;
                entry.move_id = id;
                Some(Source::new(now))
            }
            (SlotState::InDoubt, Some(attempt)) => {
                Some(Source::in_doubt(now, attempt, holds_keys()))
            }
            _ => None,
        }
    }

    /// What an action of a slot's machine makes of the slot. Whether disk has to know of it.
    pub fn note_leaving(&mut self, slot: SlotId, going: Going<'_>, action: &SourceAction) -> bool {
        let entry = self.slot_mut(slot);
        match action {
            SourceAction::Note(attempt) => {
                entry.noted = Some(*attempt);
                entry.peer = Some(Arc::clone(going.target));
                true
            }
            SourceAction::Freeze(_) => {
                entry.state = SlotState::Frozen;
                false
            }
            SourceAction::Thaw => {
                entry.state = SlotState::Leaving;
                entry.noted = None;
                true
            }
            SourceAction::HandOver(_) => {
                entry.state = SlotState::Handed;
                entry.peer = Some(Arc::clone(going.target));
                false
            }
            SourceAction::Forget => {
                self.let_go(slot, going);
                true
            }
            _ => false,
        }
    }

    /// The target serves a slot.
    fn let_go(&mut self, slot: SlotId, going: Going<'_>) {
        let by_map = self.by_map(slot);
        let entry = self.slot_mut(slot);
        entry.state = SlotState::Away;
        entry.move_id = 0;
        entry.noted = None;
        entry.epoch = entry.epoch.max(going.epoch);
        entry.peer = Some(Arc::clone(going.target));
        // It may have gone further since.
        if let (newer, Some(peer)) = by_map
            && newer > going.epoch
        {
            entry.epoch = newer;
            entry.peer = peer;
        }
    }

    /// A slot stays here: its move was called off, or has failed. Whether a map that came meanwhile, and
    /// passed the slot over, wants something of it now.
    pub fn stay(&mut self, slot: SlotId) -> bool {
        let entry = self.slot_mut(slot);
        entry.state = SlotState::Owned;
        entry.move_id = 0;
        entry.noted = None;
        self.want_by_map(slot)
    }
}

/// The move runs already: its limits may change, and what failed is tried again.
fn again(
    outbound: &mut Outbound,
    rate: Option<u64>,
    parallel: Option<usize>,
) -> Result<(), CommandError> {
    if outbound.is_cancelled {
        return Err(CommandError::MOVE_CANCELLED);
    }
    outbound.rate_bytes = rate.unwrap_or(outbound.rate_bytes);
    outbound.parallel = parallel.unwrap_or(outbound.parallel);
    for slot in outbound.failed.iter() {
        outbound.ended.remove(slot);
    }
    outbound.failed = SlotSet::default();
    Ok(())
}
