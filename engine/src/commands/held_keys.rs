//! Keys whose writers wait, because a long call works on what they hold and has begun anew too often.
//!
//! A call that stores what it makes of other keys must find them unchanged at its end. Where clients
//! never stop writing to them it says so here: from then on calls that may write to these keys are not
//! taken on (`runtime/intake.rs`); their sessions stop until it has ended, and read on after that, in
//! order. Calls that read are let through, and so are calls that were on their way already.
//!
//! What is kept is no list of keys but how many holds fall on each cell of a small table: a look at it
//! takes no lock, and a key that shares its cell with another waits for nothing now and then. Entered
//! by all cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::shard::state::KeyRef;
use crate::units::{DbIndex, Ms};

/// Cells of the table.
const CELL_COUNT: usize = 256;
/// How long a session waits before its call is looked at again.
pub const LOOK_AGAIN_MS: i64 = 1;

/// How many holds there are on the keys of each cell, and on all.
#[derive(Debug)]
pub struct HeldKeys {
    all: AtomicU32,
    cells: [AtomicU32; CELL_COUNT],
}

impl Default for HeldKeys {
    fn default() -> Self {
        Self { all: AtomicU32::new(0), cells: [const { AtomicU32::new(0) }; CELL_COUNT] }
    }
}

impl HeldKeys {
    fn cell(&self, db: DbIndex, key: &[u8]) -> &AtomicU32 {
        let hash = KeyRef::new(key).hash.wrapping_add(u64::from(db.0));
        &self.cells[hash as usize % CELL_COUNT]
    }

    /// Whether writers of any key wait.
    // Ordering: relaxed here and below. A writer that does not see a hold yet makes the call that
    // holds begin once more, as one does that was on its way already.
    #[inline]
    pub fn has_any(&self) -> bool {
        self.all.load(Ordering::Relaxed) > 0
    }

    /// Whether writers of this key wait.
    pub fn contains(&self, db: DbIndex, key: &[u8]) -> bool {
        self.cell(db, key).load(Ordering::Relaxed) > 0
    }

    /// When a call that waits for a key is looked at again.
    pub fn look_again_at(now: Ms) -> Ms {
        Ms(now.0.saturating_add(LOOK_AGAIN_MS))
    }

    /// Lets writers of these keys wait until the hold is dropped.
    pub fn hold<'k>(
        self: &Arc<Self>,
        db: DbIndex,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> KeyHold {
        let keys: Vec<Box<[u8]>> = keys.map(Box::from).collect();
        self.all.fetch_add(1, Ordering::Relaxed);
        for key in &keys {
            self.cell(db, key).fetch_add(1, Ordering::Relaxed);
        }
        KeyHold { held: Arc::clone(self), db, keys }
    }
}

/// Lets the writers of some keys wait as long as it lives.
#[derive(Debug)]
pub struct KeyHold {
    held: Arc<HeldKeys>,
    db: DbIndex,
    keys: Vec<Box<[u8]>>,
}

impl Drop for KeyHold {
    fn drop(&mut self) {
        for key in &self.keys {
            let before = self.held.cell(self.db, key).fetch_sub(1, Ordering::Relaxed);
            debug_invariant!(before > 0, "a hold is let go of twice");
        }
        self.held.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_covers_its_keys_until_it_is_dropped() {
        let held = Arc::new(HeldKeys::default());
        assert!(!held.has_any());
        let one = held.hold(DbIndex(0), [&b"a"[..], b"b"].into_iter());
        let two = held.hold(DbIndex(0), [&b"a"[..]].into_iter());
        assert!(held.has_any() && held.contains(DbIndex(0), b"a"));
        assert!(held.contains(DbIndex(0), b"b") && !held.contains(DbIndex(1), b"a"));
        drop(one);
        assert!(held.contains(DbIndex(0), b"a") && !held.contains(DbIndex(0), b"b"));
        drop(two);
        assert!(!held.has_any() && !held.contains(DbIndex(0), b"a"));
    }
}
