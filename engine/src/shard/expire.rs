//! Active expiry: deletes keys whose deadline has passed, a bounded number per step.

use crate::journal::LogicalClock;
use crate::pubsub::event::Event;
use crate::shard::state::{KeyRef, Shard};
use crate::store::keyspace::key_hash;
use crate::store::table::Position;
use crate::units::{DATABASES_MAX, DbIndex, Ms, SLOT_COUNT, SlotId};

/// What one step did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expired {
    /// Keys deleted.
    pub key_count: usize,
    /// Whether more records are due now.
    pub more: bool,
}

impl Shard {
    /// Fires up to `count` due records.
    ///
    /// # Complexity
    /// O(count) lookups, and one sweep over the slots of a database.
    pub fn expire_step(&mut self, clock: &mut LogicalClock, now: Ms, count: usize) -> Expired {
        let mut expired = Expired::default();
        let mut due: Vec<Position> = Vec::new();
        let mut left = count;
        let (start_db, start_slot) = self.expire_at;
        // All databases from where the last step ended, the first one twice: from there, to there.
        for step in 0..=DATABASES_MAX {
            let db = DbIndex(((usize::from(start_db) + step) % DATABASES_MAX) as u8);
            let mut from = if step == 0 { usize::from(start_slot) } else { 0 };
            while let Some(slot) = self
                .keys
                .db(db)
                .and_then(|d| (from < SLOT_COUNT).then(|| d.due_slot(from, now)).flatten())
            {
                if left == 0 {
                    self.expire_at = (db.0, slot.index() as u16);
                    expired.more = true;
                    return expired;
                }
                due.clear();
                self.keys.db_or_new(db).take_due(slot, now, left, &mut due);
                left -= due.len().min(left);
                for &position in &due {
                    expired.key_count += usize::from(self.fire(clock, db, slot, position, now));
                }
                from = slot.index() + usize::from(due.is_empty() || left > 0);
            }
        }
        self.expire_at = (0, 0);
        expired
    }

    /// Deletes the key of a record if it has expired; files it again if it lives longer.
    fn fire(
        &mut self,
        clock: &mut LogicalClock,
        db: DbIndex,
        slot: SlotId,
        position: Position,
        now: Ms,
    ) -> bool {
        let Some(dbase) = self.keys.db(db) else {
            return false;
        };
        let table = dbase.table(slot);
        let mut later = None;
        let at = table.find_position(position, |entry| {
            let Some(deadline) = entry.expires_at() else {
                return false;
            };
            if Position::of_hash(key_hash(entry.key())) != position {
                return false;
            }
            if deadline > now {
                later = Some(deadline);
            }
            deadline <= now
        });
        match (at, later) {
            (Some(at), _) => self.remove_dead(clock, db, slot, at, Event::Expired),
            (None, Some(deadline)) => {
                self.keys.db_or_new(db).file_deadline(slot, position, deadline, now);
            }
            (None, None) => {}
        }
        at.is_some()
    }

    /// When the next record is due.
    pub fn next_due(&self) -> Ms {
        self.keys.dbs().map(|(_, db)| db.next_due()).min().unwrap_or(Ms(i64::MAX))
    }

    /// Deletes a key found expired at read; `true` if it was.
    #[inline]
    pub fn expire_if_due(
        &mut self,
        clock: &mut LogicalClock,
        db: DbIndex,
        key: KeyRef<'_>,
        now: Ms,
    ) -> bool {
        let Some(at) = self.find(db, key) else {
            return false;
        };
        let expired = self.entry(db, key.slot, at).is_expired(now);
        if expired {
            self.remove_dead(clock, db, key.slot, at, Event::Expired);
        }
        expired
    }
}
