//! When keys expire: per slot and database a sparse wheel of positions by deadline.
//!
//! A record is the 48-bit position of a key, 8 bytes. It sits in a bucket whose width is about a
//! sixteenth of the time that was left when it was filed; a bucket that comes due hands its records
//! back, and the owner deletes what has expired and files the rest again, in a narrower bucket. So
//! filing and firing cost O(log(time left)) in all, and memory is one word per key that expires.
//!
//! A record is a hint: it may be stale (the key is gone, or lives longer). A deadline that moves
//! later needs no new record, because the old one fires first and is filed again.

use std::collections::BTreeMap;

use crate::store::table::Position;
use crate::units::Ms;

/// Finest bucket: 2^6 ms. Records fire at most this late.
const FINEST_BITS: u32 = 6;

/// Deadlines of one slot in one database.
#[derive(Debug, Default)]
pub struct ExpiryIndex {
    /// Records by the end of their bucket.
    buckets: BTreeMap<i64, Vec<Position>>,
}

impl ExpiryIndex {
    /// Files a key whose deadline is `at`.
    pub fn file(&mut self, position: Position, at: Ms, now: Ms) {
        let left = at.0.saturating_sub(now.0).max(1) as u64;
        // A sixteenth of the time left, as a power of two.
        let bits = (64 - left.leading_zeros()).saturating_sub(4).clamp(FINEST_BITS, 40);
        let start = at.0 >> bits << bits;
        // A coarse bucket must fire before its first deadline, to be split; a fine one after its
        // last, so that firing finds everything expired.
        let due = if bits > FINEST_BITS { start } else { start.saturating_add(1 << bits) };
        self.buckets.entry(due.max(now.0)).or_default().push(position);
    }

    /// When the next bucket is due; far in the future if there is none.
    pub fn next_due(&self) -> Ms {
        self.buckets.first_key_value().map_or(Ms(i64::MAX), |(&due, _)| Ms(due))
    }

    /// Moves up to `count` records that are due at `now` into `due`.
    pub fn take_due(&mut self, now: Ms, count: usize, due: &mut Vec<Position>) {
        while due.len() < count {
            let Some(mut bucket) = self.buckets.first_entry() else {
                return;
            };
            if *bucket.key() > now.0 {
                return;
            }
            let records = bucket.get_mut();
            let keep = records.len().saturating_sub(count - due.len());
            due.extend(records.drain(keep..));
            if records.is_empty() {
                bucket.remove();
            }
        }
    }

    /// Number of records, stale ones included.
    pub fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_fires_at_its_deadline_after_few_refilings() {
        for left in [1i64, 63, 64, 1_000, 60_000, 86_400_000, 40_000_000_000] {
            let start = 1_700_000_000_123;
            let deadline = start + left;
            let mut index = ExpiryIndex::default();
            index.file(Position(1), Ms(deadline), Ms(start));
            let mut refilings = 0;
            loop {
                let now = index.next_due();
                let mut due = Vec::new();
                index.take_due(now, 10, &mut due);
                assert_eq!(due, [Position(1)]);
                if now.0 >= deadline {
                    assert!(now.0 - deadline <= 1 << FINEST_BITS, "late by {}", now.0 - deadline);
                    break;
                }
                index.file(Position(1), Ms(deadline), now);
                refilings += 1;
            }
            assert!(refilings <= 40, "{refilings} refilings for {left} ms");
        }
    }

    #[test]
    fn take_due_is_bounded_by_its_count() {
        let mut index = ExpiryIndex::default();
        for n in 0..1000 {
            index.file(Position(n), Ms(50), Ms(0));
        }
        let mut due = Vec::new();
        index.take_due(Ms(1000), 100, &mut due);
        assert_eq!((due.len(), index.len()), (100, 900));
    }
}
