//! Where the walk over a slot's keys is, and so which of them have been sent.
//!
//! Keys go in the order of the hash that places them: by ranges of its upper bits, each as large as a
//! segment of the table was when the walk entered it, and within a range by the hash's low 16 bits,
//! window by window. Segments never merge, so a range that was entered is always whole segments, also
//! when they have split since; which keys were passed is decided by their hash alone, whatever the
//! table has become. What happens to a passed key must be sent after it; any other key will be met
//! later, as it is then.

use crate::units::{DATABASES_MAX, DbIndex};

/// First value beyond all upper halves of a hash.
const PREFIX_END: u64 = 1 << 32;
/// First value beyond all fingerprints.
const FINGERPRINT_END: u32 = 1 << 16;
/// Keys that a window should hold.
const WINDOW_KEYS: usize = 32;

/// The walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Walk {
    db: u8,
    /// The range of prefixes under way; empty if one is to be entered at `start`.
    start: u64,
    end: u64,
    /// Fingerprints below this one have been passed in that range.
    fingerprint: u32,
    /// Fingerprints per window.
    width: u32,
}

/// A part of a database's table: prefixes and fingerprints, ends excluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The database.
    pub db: DbIndex,
    /// Upper 32 bits of hashes.
    pub prefixes: (u64, u64),
    /// Lower 16 bits.
    pub fingerprints: (u32, u32),
}

impl Walk {
    /// The database that the walk is in; none at its end.
    pub fn db(&self) -> Option<DbIndex> {
        (usize::from(self.db) < DATABASES_MAX).then_some(DbIndex(self.db))
    }

    /// Whether all keys have been passed.
    pub fn is_done(&self) -> bool {
        self.db().is_none()
    }

    /// Where the next range begins, if one has to be entered: its first prefix.
    pub fn to_enter(&self) -> Option<u64> {
        (!self.is_done() && self.end == 0).then_some(self.start)
    }

    /// Enters a range that ends at `end` and holds about `key_count` keys.
    pub fn enter(&mut self, end: u64, key_count: usize) {
        invariant!(self.end == 0 && end > self.start && end <= PREFIX_END, "a range that is none");
        self.end = end;
        self.fingerprint = 0;
        let windows = key_count.div_ceil(WINDOW_KEYS).max(1) as u32;
        self.width = FINGERPRINT_END.div_ceil(windows).max(1);
    }

    /// Leaves a database that has no keys, or no table any more.
    pub fn skip_db(&mut self) {
        *self = Self { db: self.db + 1, ..Self::default() };
    }

    /// The next window to be sent. A range has been entered.
    pub fn window(&self) -> Window {
        let to = (self.fingerprint + self.width).min(FINGERPRINT_END);
        Window {
            db: DbIndex(self.db),
            prefixes: (self.start, self.end),
            fingerprints: (self.fingerprint, to),
        }
    }

    /// The window has been sent.
    pub fn advance(&mut self) {
        self.fingerprint = (self.fingerprint + self.width).min(FINGERPRINT_END);
        if self.fingerprint < FINGERPRINT_END {
            return;
        }
        if self.end == PREFIX_END {
            return self.skip_db();
        }
        *self = Self { db: self.db, start: self.end, ..Self::default() };
    }

    /// Whether a key with this hash has been passed in this database.
    pub fn has_passed(&self, db: DbIndex, hash: u64) -> bool {
        if db.0 != self.db {
            return db.0 < self.db;
        }
        let prefix = hash >> 32;
        prefix < self.start || (prefix < self.end && u32::from(hash as u16) < self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_passes_every_hash_once_and_in_its_own_order() {
        let mut walk = Walk::default();
        let hashes: Vec<u64> =
            (1..2_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let mut passed = vec![false; hashes.len()];
        while !walk.is_done() {
            let db = walk.db().expect("it is not done");
            if db.0 > 0 {
                assert!(hashes.iter().all(|&hash| walk.has_passed(DbIndex(0), hash)));
                walk.skip_db();
                continue;
            }
            if let Some(start) = walk.to_enter() {
                // Ranges of changing sizes, as segments have.
                let width = if start < 1 << 31 { 1 << 29 } else { 1 << 30 };
                walk.enter(start + width, 500);
            }
            let window = walk.window();
            for (index, &hash) in hashes.iter().enumerate() {
                let (prefix, print) = (hash >> 32, u32::from(hash as u16));
                let is_in = (window.prefixes.0..window.prefixes.1).contains(&prefix)
                    && (window.fingerprints.0..window.fingerprints.1).contains(&print);
                assert_eq!(walk.has_passed(db, hash), passed[index]);
                if is_in {
                    assert!(!passed[index], "sent twice");
                    passed[index] = true;
                }
            }
            walk.advance();
        }
        assert!(passed.iter().all(|&passed| passed));
    }
}
