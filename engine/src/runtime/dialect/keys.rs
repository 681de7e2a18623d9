//! Which keys a move is about: those of a slot, and those that share a tag; and their claim.

use std::collections::HashSet;

use crate::commands::ctx::Ctx;
use crate::migrate::dialect::call::{Outcome, What};
use crate::migrate::dialect::snapshot::{bulk_count_of, estimated_messages};
use crate::resp::error::CommandError;
use crate::runtime::dialect::{ENTRIES_PER_STEP, Job, Key, POLL_MS, Phase, Step};
use crate::runtime::turn::Core;
use crate::slots::hash::tag;
use crate::store::entry::EntryRef;
use crate::store::table::Position;
use crate::units::{Ms, SlotId};

/// Part of a slot's table, in steps.
fn scan<'t>(
    ctx: &'t mut Ctx<'_>,
    slot: SlotId,
    from: Position,
    visit: impl FnMut(EntryRef<'t>),
) -> Option<Position> {
    ctx.db_of(slot)?.table(slot).scan(from, ENTRIES_PER_STEP, visit)
}

impl Core {
    /// Codis: as many keys as are worth about `count` messages; one that is worth more goes alone.
    pub(super) fn pick(&mut self, job: &mut Job, from: Position) -> Step {
        let What::Slot(slot, count) = job.call.what else {
            job.phase = Phase::Claim;
            return Step::Busy;
        };
        let (keys, estimated) = (&mut job.keys, &mut job.estimated);
        let (bulks_max, is_full) = (job.call.params.bulks_max, |keys: &[Key], n| {
            keys.len() >= count.max(1) || n >= count.max(1)
        });
        let scanned = self.at_slot(slot, job.db, |ctx| {
            let now = ctx.now;
            scan(ctx, slot, from, |entry| {
                if entry.is_expired(now) || is_full(keys, *estimated) {
                    return;
                }
                let messages = estimated_messages(bulk_count_of(entry.value()), bulks_max);
                if keys.is_empty() || *estimated + messages <= 2 * count {
                    keys.push(entry.key().into());
                    *estimated += messages;
                }
            })
        });
        match scanned {
            None => {
                job.phase = Phase::Pick(from);
                Step::Until(Ms(self.now.0 + 1))
            }
            Some(Some(next)) if !is_full(&job.keys, job.estimated) => {
                job.phase = Phase::Pick(next);
                Step::Busy
            }
            Some(_) => {
                job.phase = Phase::Claim;
                Step::Busy
            }
        }
    }

    pub(super) fn claim(&mut self, job: &mut Job) -> Step {
        if !job.is_claimed {
            if job.call.with_tags {
                let mut seen = HashSet::new();
                let tags =
                    job.keys.iter().filter_map(|key| tag(key)).filter(|tag| seen.insert(*tag));
                job.tags = tags.map(Box::from).collect();
            }
            if !self.node.dialect.lock(job.db).claim(&job.keys, &job.tags) {
                if self.now.0 - job.begun_at.0 > job.call.params.timeout_ms {
                    return Step::Done(Outcome::Failed(CommandError::KEY_IS_MIGRATED));
                }
                job.phase = Phase::Claim;
                return Step::Until(Ms(self.now.0 + POLL_MS));
            }
            job.is_claimed = true;
        }
        let mut slots: Vec<SlotId> = job.tags.iter().map(|tag| slot_of_tag(tag)).collect();
        slots.sort();
        slots.dedup();
        job.phase = Phase::Siblings(slots, Position(0));
        Step::Busy
    }

    pub(super) fn find_siblings(
        &mut self,
        job: &mut Job,
        mut slots: Vec<SlotId>,
        from: Position,
    ) -> Step {
        let Some(&slot) = slots.last() else {
            return self.begin_sending(job);
        };
        let tags: HashSet<&[u8]> = job.tags.iter().map(|tag| &**tag).collect();
        let known: HashSet<&[u8]> = job.keys.iter().map(|key| &**key).collect();
        let mut found: Vec<Key> = Vec::new();
        let bulks_max = job.call.params.bulks_max;
        let mut estimated = 0;
        let scanned = self.at_slot(slot, job.db, |ctx| {
            let now = ctx.now;
            scan(ctx, slot, from, |entry| {
                let of_tag = tag(entry.key()).is_some_and(|tag| tags.contains(tag));
                if of_tag && !entry.is_expired(now) && !known.contains(entry.key()) {
                    estimated += estimated_messages(bulk_count_of(entry.value()), bulks_max);
                    found.push(entry.key().into());
                }
            })
        });
        let Some(next) = scanned else {
            job.phase = Phase::Siblings(slots, from);
            return Step::Until(Ms(self.now.0 + 1));
        };
        self.node.dialect.lock(job.db).claim_more(&found);
        job.estimated += estimated;
        job.keys.extend(found);
        if next.is_none() {
            slots.pop();
        }
        job.phase = Phase::Siblings(slots, next.unwrap_or(Position(0)));
        Step::Busy
    }
}

/// The slot of all keys with a tag.
fn slot_of_tag(tag: &[u8]) -> SlotId {
    SlotId::from_crc(crc32fast::hash(tag))
}
