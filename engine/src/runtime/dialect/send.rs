//! Keys are read, sent, sent again if they have changed, and deleted when they have arrived.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commands::ctx::Event;
use crate::migrate::dialect::batch::Next;
use crate::migrate::dialect::call::{Form, Outcome, What};
use crate::migrate::dialect::snapshot::Snapshot;
use crate::resp::error::CommandError;
use crate::resp::reply::OutBuf;
use crate::runtime::dialect::{
    DELETES_PER_STEP, Job, Key, Phase, ROUNDS_MAX, Step, UNANSWERED_BYTES_MAX,
};
use crate::runtime::turn::Core;
use crate::shard::state::KeyRef;
use crate::slots::hash::slot_of;
use crate::units::Ms;

impl Core {
    pub(super) fn send(&mut self, job: &mut Job) -> Step {
        let line = job.line.and_then(|number| self.dialect.line_mut(number));
        let Some(link) = line.map(|line| line.link) else {
            return Step::Done(Outcome::Failed(CommandError::interrupted("connection closed")));
        };
        job.phase = Phase::Send;
        match job.batch.next() {
            Next::Load => self.load(job),
            Next::Work => {
                job.batch.work();
                Step::Busy
            }
            Next::Write => {
                let backlog_bytes = self.links.backlog_bytes(link);
                let unanswered = job.batch.unanswered_bytes();
                if unanswered > 0
                    && (backlog_bytes >= job.call.params.bytes_max
                        || unanswered >= UNANSWERED_BYTES_MAX)
                {
                    // More when it has answered something.
                    return Step::Idle;
                }
                let mut message = OutBuf::default();
                let count = job.batch.write(&mut message, backlog_bytes, self.now);
                job.batch.note_written(count, message.len());
                self.write_link(link, count, &message);
                Step::Busy
            }
            Next::Await => Step::Idle,
            Next::Settled => self.settled(job),
        }
    }

    /// Reads the next key, and watches it from then on.
    pub(super) fn load(&mut self, job: &mut Job) -> Step {
        let Some(key) = job.batch.next_key().map(Key::from) else { return Step::Busy };
        if job.is_cleaning {
            job.batch.load(None);
            return Step::Busy;
        }
        let (at, db) = (KeyRef::new(&key), job.db);
        let flag = Arc::new(AtomicBool::new(false));
        let loaded = self.at_slot(at.slot, db, |ctx| {
            let entry = ctx.peek(at, false);
            let value = entry.map(|entry| (Snapshot::of(entry.value()), entry.expires_at()));
            ctx.shard(at.slot).watches.watch(db, at.bytes, &flag);
            value
        });
        let Some(value) = loaded else {
            return Step::Until(Ms(self.now.0 + 1));
        };
        let target_has_it =
            job.touched.contains(&key) || self.node.dialect.lock(db).is_tainted(&key, &job.target);
        if value.is_none() && !target_has_it {
            job.batch.skip();
            return Step::Busy;
        }
        if value.is_some() {
            job.had_value.insert(key.clone());
        }
        job.batch.load(value);
        job.touched.insert(key.clone());
        job.watches.insert(key, flag);
        Step::Busy
    }

    /// Everything was acknowledged: what has changed meanwhile is sent again, then all is deleted.
    pub(super) fn settled(&mut self, job: &mut Job) -> Step {
        job.arrived.extend(job.batch.take_sent());
        if job.is_cleaning {
            return Step::Done(job.outcome());
        }
        let has_changed = |key: &Key, watches: &HashMap<Key, Arc<AtomicBool>>| {
            watches.get(key).is_none_or(|flag| flag.load(Ordering::Acquire))
        };
        let watches = &job.watches;
        let changed: Vec<Key> =
            job.arrived.extract_if(.., |key| has_changed(key, watches)).collect();
        if changed.is_empty() {
            job.phase = Phase::Delete;
            if job.call.form == Form::Async {
                self.note_size(job);
            }
            return Step::Busy;
        }
        job.rounds += 1;
        if job.rounds > ROUNDS_MAX {
            let why = "keys change faster than they can be moved";
            return Step::Done(Outcome::Failed(CommandError::interrupted(why)));
        }
        changed.into_iter().for_each(|key| job.batch.again(key));
        Step::Busy
    }

    /// Deletes the keys of a slot that have arrived: all of a tag behind one door.
    pub(super) fn delete_arrived(&mut self, job: &mut Job) -> Step {
        let Some(slot) = job.arrived.last().map(|key| slot_of(key)) else {
            if job.batch.next() != Next::Settled {
                job.phase = Phase::Send;
                return Step::Busy;
            }
            if job.call.form == Form::Sync {
                self.note_size(job);
            }
            return Step::Done(job.outcome());
        };
        let mut count = 0;
        let of_slot = |key: &mut Key| {
            count += usize::from(slot_of(key) == slot);
            slot_of(key) == slot && count <= DELETES_PER_STEP
        };
        let mut keys: Vec<Key> = job.arrived.extract_if(.., of_slot).collect();
        let watches = &job.watches;
        let deleted = self.at_slot(slot, job.db, |ctx| {
            let is_same =
                |key: &Key| watches.get(key).is_some_and(|flag| !flag.load(Ordering::Acquire));
            let changed: Vec<Key> = keys.extract_if(.., |key| !is_same(key)).collect();
            for key in &keys {
                let at = KeyRef::new(key);
                if ctx.delete(at) {
                    ctx.modified(at, Event::Generic("del"));
                    ctx.effect(at, &[b"DEL", at.bytes]);
                }
            }
            changed
        });
        job.phase = Phase::Delete;
        let Some(changed) = deleted else {
            job.arrived.extend(keys);
            return Step::Until(Ms(self.now.0 + 1));
        };
        let mut moves = self.node.dialect.lock(job.db);
        for key in keys {
            job.moved += usize::from(job.had_value.contains(&key));
            job.touched.remove(&key);
            moves.untaint(&key, &job.target);
        }
        changed.into_iter().for_each(|key| job.batch.again(key));
        Step::Busy
    }

    pub(super) fn note_size(&mut self, job: &mut Job) {
        if let What::Slot(slot, _) = job.call.what {
            let db = job.db;
            let size =
                self.at_slot(slot, db, |ctx| ctx.db_of(slot).map_or(0, |d| d.table(slot).len()));
            job.size = size.unwrap_or(job.keys.len());
        }
    }
}
