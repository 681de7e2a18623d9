//! What a server knows of the cluster it is in: its place in it, the map, what it is to each slot, and
//! the moves that it takes part in.
//!
//! All cores share it. It is looked at when something out of the ordinary happens (a refusal, a
//! command about slots, a step of a move), never for a request that is served: for those the word in
//! `slots/owner.rs` says all. So it lies behind a lock, which nobody holds for more than a few
//! microseconds and nobody waits for while holding a door that others need.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use serde::{Deserialize, Serialize};

use crate::migrate::machine::{Attempt, Target};
use crate::slots::map::{ClusterMap, GroupId};
use crate::slots::state::{SlotSet, SlotState};
use crate::units::{CoreId, SLOT_COUNT, SlotId};

/// Number of a move, given by control.
pub type MoveId = u64;

/// The place of a server in a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// The product.
    pub product: String,
    /// Its group.
    pub group: GroupId,
    /// The address by which others know it.
    pub addr: String,
}

/// What a server is to one slot.
#[derive(Clone, Debug, Default)]
pub struct SlotEntry {
    /// What it is.
    pub state: SlotState,
    /// Since which epoch of the slot.
    pub epoch: u64,
    /// Who serves it, or takes part in its move.
    pub peer: Option<Arc<str>>,
    /// The move behind it; 0 if none is.
    pub move_id: MoveId,
    /// The attempt that may hand it over, or has: what disk knows of it.
    pub noted: Option<Attempt>,
    /// What decides while it comes in.
    pub target: Target,
}

impl SlotEntry {
    /// Whether a move is at it.
    pub fn is_being_moved(&self) -> bool {
        self.state.is_moving() && self.move_id != 0
    }
}

/// A move that takes slots away from this server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outbound {
    /// The epoch that the slots get.
    pub epoch: u64,
    /// Where they go.
    pub target: String,
    /// Which slots.
    pub slots: SlotSet,
    /// Most bytes per second of all cores; 0: as fast as can be.
    pub rate_bytes: u64,
    /// Slots that each core moves at once.
    pub parallel: usize,
    /// It has been called off.
    #[serde(default)]
    pub is_cancelled: bool,
    /// Slots that the target has confirmed.
    #[serde(default)]
    pub done: SlotSet,
    /// Slots that cannot be moved.
    #[serde(skip)]
    pub failed: SlotSet,
    /// Slots that will not be worked on any more: done, failed or left here.
    #[serde(skip)]
    pub ended: SlotSet,
    /// Keys and bytes sent.
    #[serde(skip)]
    pub keys: u64,
    /// See `keys`.
    #[serde(skip)]
    pub bytes: u64,
    /// What went wrong last.
    #[serde(skip)]
    pub error: String,
    /// The longest time that a slot was frozen.
    #[serde(skip)]
    pub pause_max_us: u64,
    /// Attempts to move a slot that the target has refused.
    #[serde(skip)]
    pub refused: u64,
}

/// A move that brings slots to this server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inbound {
    /// The epoch that the slots get.
    pub epoch: u64,
    /// Where they come from.
    pub source: String,
    /// Which slots.
    pub slots: SlotSet,
    /// It has been called off.
    #[serde(default)]
    pub is_cancelled: bool,
    /// Slots that are served here now.
    #[serde(default)]
    pub done: SlotSet,
    /// Keys taken in.
    #[serde(skip)]
    pub keys: u64,
}

/// What a slot is to become: cores make it so, each for the slots of its shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What.
    pub state: SlotState,
    /// Since which epoch.
    pub epoch: u64,
    /// Who serves it, if this server does not.
    pub peer: Option<Arc<str>>,
}

/// Everything that lies behind the lock.
#[derive(Debug)]
pub struct Inner {
    /// The place of this server; none while it is on its own.
    pub membership: Option<Membership>,
    /// The last map.
    pub map: Option<ClusterMap>,
    /// All slots.
    pub slots: Box<[SlotEntry]>,
    /// Moves away.
    pub outbound: BTreeMap<MoveId, Outbound>,
    /// Moves here.
    pub inbound: BTreeMap<MoveId, Inbound>,
    /// Moves that were called off last, also such as have not been heard of: an order that was on its
    /// way on another connection must not begin them afterwards. No connection outlives the process, so
    /// disk need not know.
    pub called_off: VecDeque<MoveId>,
    /// What cores have to do.
    pub wanted: BTreeMap<SlotId, Wanted>,
    /// Why the last write to disk failed.
    pub disk_error: Option<String>,
}

impl Inner {
    /// The books of a server on its own: it serves these many slots. A model has few.
    pub fn with_slots(slot_count: usize) -> Self {
        Self {
            membership: None,
            map: None,
            slots: (0..slot_count).map(|_| SlotEntry::default()).collect(),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            called_off: VecDeque::new(),
            wanted: BTreeMap::new(),
            disk_error: None,
        }
    }

    /// All slots.
    pub fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        SlotId::all().take(self.slots.len())
    }

    /// The entry of a slot.
    pub fn slot(&self, slot: SlotId) -> &SlotEntry {
        &self.slots[slot.index()]
    }

    /// The entry of a slot, to change it.
    pub fn slot_mut(&mut self, slot: SlotId) -> &mut SlotEntry {
        &mut self.slots[slot.index()]
    }

    /// Whether the map, or the lack of one, says that this server is to serve a slot, and under which
    /// epoch; who serves it, if this one is not.
    pub fn by_map(&self, slot: SlotId) -> (u64, Option<Option<Arc<str>>>) {
        let (Some(me), Some(map)) = (&self.membership, &self.map) else {
            return (0, None);
        };
        let range = map.slot(slot);
        // A slot that comes by the original's commands is with its old group until it is all there.
        let group = range.group;
        let primary = |id: GroupId| map.group(id).and_then(|g| g.primary()).map(|s| &*s.addr);
        let mine = |id: GroupId| id != 0 && primary(id) == Some(&*me.addr);
        if mine(group) || mine(range.migrate_from) {
            return (range.epoch, None);
        }
        (range.epoch, Some(primary(group).map(Arc::from)))
    }

    /// Takes a map over that is not older than the one there is: says what each slot is to become.
    pub fn take_map(&mut self, map: ClusterMap) {
        self.map = Some(map);
        for slot in self.ids() {
            self.want_by_map(slot);
        }
    }

    /// Says what a slot is to become by the map; `false` if it is that, or the map has no say.
    pub fn want_by_map(&mut self, slot: SlotId) -> bool {
        if self.map.is_none() {
            return false;
        }
        let (epoch, elsewhere) = self.by_map(slot);
        let entry = &self.slots[slot.index()];
        // A move knows better: it ends, or is called off, before a map may say otherwise.
        if entry.is_being_moved() || epoch < entry.epoch {
            return false;
        }
        let wanted = match elsewhere {
            None => Wanted { state: SlotState::Owned, epoch, peer: None },
            Some(peer) => Wanted { state: SlotState::Away, epoch, peer },
        };
        // Of equal epochs what the server itself knows holds; only the address may be newer.
        if epoch == entry.epoch && entry.state != wanted.state && epoch != 0 {
            return false;
        }
        let is_same =
            entry.state == wanted.state && entry.epoch == wanted.epoch && entry.peer == wanted.peer;
        if !is_same {
            self.wanted.insert(slot, wanted);
        }
        !is_same
    }

    /// Makes the server one of a cluster: until a map says otherwise it serves nothing.
    pub fn join(&mut self, membership: Membership) {
        self.membership = Some(membership);
        for slot in self.ids() {
            let wanted = Wanted { state: SlotState::Away, epoch: 0, peer: None };
            self.wanted.insert(slot, wanted);
        }
    }

    /// Makes it a server of its own again, which serves all slots.
    pub fn leave(&mut self) {
        self.membership = None;
        self.map = None;
        self.outbound.clear();
        self.inbound.clear();
        self.called_off.clear();
        for slot in self.ids() {
            let wanted = Wanted { state: SlotState::Owned, epoch: 0, peer: None };
            self.wanted.insert(slot, wanted);
        }
    }

    /// The move that may bring a slot, if this is one of its attempts.
    pub fn expects(&self, id: MoveId, slot: SlotId) -> Option<&Inbound> {
        self.inbound
            .get(&id)
            .filter(|inbound| !inbound.is_cancelled && inbound.slots.contains(slot))
    }
}

/// What all cores know of the cluster.
#[derive(Debug)]
pub struct Cluster {
    inner: Mutex<Inner>,
    /// Changes whenever cores have something to look at: moves that came or ended, slots that are to
    /// become something.
    version: AtomicU64,
    /// Counts changes that belong on disk, and those that are there.
    changed: AtomicU64,
    saved: AtomicU64,
    /// Whoever saves; nobody in tests without a process.
    saver: OnceLock<Thread>,
    /// Cores that hold requests back for a frozen slot: to be woken when it is frozen no more.
    holding: AtomicU64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner::with_slots(SLOT_COUNT)),
            version: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            saver: OnceLock::new(),
            holding: AtomicU64::new(0),
        }
    }
}

impl Cluster {
    /// Everything. Held for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when cores have something to look at.
    #[inline]
    pub fn version(&self) -> u64 {
        // Ordering: sequentially consistent, with `announce`: a core that is about to sleep looks at
        // this after it has raised its flag, and whoever announces looks at the flag after that.
        self.version.load(Ordering::SeqCst)
    }

    /// Gives all cores something to look at. The caller wakes those that sleep.
    pub fn announce(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes a change that belongs on disk; returns its number, to be compared with
    /// [`saved`](Self::saved). Call it while the lock is held that the change was made under, or
    /// after.
    pub fn note_change(&self) -> u64 {
        let number = self.changed.fetch_add(1, Ordering::SeqCst) + 1;
        match self.saver.get() {
            Some(saver) => saver.unpark(),
            // All is as good as on disk.
            None => _ = self.saved.fetch_max(number, Ordering::SeqCst),
        }
        number
    }

    /// Number of the last change.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::SeqCst)
    }

    /// All changes up to this one are on disk.
    pub fn saved(&self) -> u64 {
        self.saved.load(Ordering::SeqCst)
    }

    /// Says that changes up to `number` are on disk.
    pub fn set_saved(&self, number: u64) {
        self.saved.fetch_max(number, Ordering::SeqCst);
    }

    /// From now on this thread saves.
    pub fn set_saver(&self, saver: Thread) {
        // A second one would change nothing: there is one a process.
        let _ = self.saver.set(saver);
    }

    /// Says that a core holds requests back.
    pub fn set_holding(&self, core: CoreId, holds: bool) {
        match holds {
            true => self.holding.fetch_or(1 << core.0, Ordering::SeqCst),
            false => self.holding.fetch_and(!(1 << core.0), Ordering::SeqCst),
        };
    }

    /// The cores that hold requests back, as bits.
    pub fn holding(&self) -> u64 {
        self.holding.load(Ordering::SeqCst)
    }
}
