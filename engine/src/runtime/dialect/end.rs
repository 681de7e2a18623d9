//! How a move ends, who is told, and what is cleaned up behind one that breaks.

use crate::migrate::dialect::batch::Batch;
use crate::migrate::dialect::call::Outcome;
use crate::migrate::dialect::registry::Head;
use crate::migrate::dialect::stream::{KeyStream, Stage};
use crate::resp::error::CommandError;
use crate::runtime::dialect::{Job, Step};
use crate::runtime::turn::Core;

impl Core {
    pub(super) fn finish(&mut self, job: Job, outcome: Outcome) {
        let now = self.now;
        if let Some(line) = job.line.and_then(|number| self.dialect.line_mut(number)) {
            (line.user, line.idle_since) = (None, now);
        }
        if job.is_cleaning {
            let mut moves = self.node.dialect.lock(job.db);
            job.touched.iter().for_each(|key| moves.untaint(key, &job.target));
        }
        self.end(job, outcome);
    }

    /// A move has broken. What the target may have of it is deleted there, so that nobody finds it
    /// when the key has gone here.
    pub(super) fn fail(&mut self, mut job: Job, error: CommandError, was_there: bool) {
        if let Some(number) = job.line.take() {
            self.close_lines(|line| line.number == number);
        }
        if job.is_shown() {
            // As in the original: its connection goes with the batch.
            let mut moves = self.node.dialect.lock(job.db);
            moves.client = moves.client.take().filter(|client| client.job != job.id);
        }
        if job.is_cleaning {
            tracing::warn!(
                target = job.target,
                keys = job.touched.len(),
                error = error.text(),
                "old copies of keys may be left at a target; writes to them wait until they move"
            );
        }
        let has_left = was_there && !job.touched.is_empty();
        if has_left {
            let mut moves = self.node.dialect.lock(job.db);
            job.touched.iter().for_each(|key| moves.taint(key, &job.target));
        }
        let cleaner = (has_left && !job.is_cleaning).then(|| {
            let id = self.dialect.number();
            let mut cleaner = Job::new(id, None, job.call.clone(), job.db, self.now);
            cleaner.is_cleaning = true;
            cleaner.touched = std::mem::take(&mut job.touched);
            let keys = cleaner.touched.iter().cloned();
            cleaner.batch = Batch::new(job.call.form, job.call.params, keys);
            // The keys stay claimed until the target is clean.
            cleaner.keys = std::mem::take(&mut job.keys);
            cleaner.tags = std::mem::take(&mut job.tags);
            cleaner.is_claimed = std::mem::take(&mut job.is_claimed);
            cleaner
        });
        self.end(job, Outcome::Failed(error));
        if let Some(mut cleaner) = cleaner {
            match self.take_line(&mut cleaner) {
                Step::Done(_) => self.release_claim(&cleaner),
                Step::Until(at) => {
                    (cleaner.is_busy, cleaner.wake_at) = (false, Some(at));
                    self.dialect.jobs.push_back(cleaner);
                }
                Step::Busy | Step::Idle => self.dialect.jobs.push_back(cleaner),
            }
        }
    }

    pub(super) fn release_claim(&self, job: &Job) {
        if job.is_claimed {
            self.node.dialect.lock(job.db).release(&job.keys, &job.tags);
        }
    }

    /// Tells those who wait.
    pub(super) fn end(&mut self, job: Job, outcome: Outcome) {
        self.release_claim(&job);
        if job.is_shown() {
            let mut moves = self.node.dialect.lock(job.db);
            if let Some(client) = &mut moves.client {
                (client.due_count, client.last_use) = (0, self.now);
            }
            let waiters = moves.end();
            drop(moves);
            for (core, wait) in waiters {
                self.node.dialect.tell(core, wait, outcome.clone());
                if core != self.id {
                    self.ring_later(core);
                }
            }
        }
        if let Outcome::Failed(error) = &outcome {
            self.stats.note_error(error);
        }
        if let Some(caller) = job.caller {
            self.reply_caller(caller, |reply| outcome.reply(reply));
        }
    }

    /// Keeps what STATUS shows up to date.
    pub(super) fn show_job(&self, job: &Job) {
        if !job.is_shown() {
            return;
        }
        let mut moves = self.node.dialect.lock(job.db);
        if let Some(client) = moves.client.as_mut().filter(|client| client.job == job.id) {
            if client.due_count != job.batch.due_count() {
                client.last_use = self.now;
            }
            client.due_count = job.batch.due_count();
        }
        if let Some(shown) = &mut moves.shown {
            shown.removed_count = job.batch.removed_count();
            shown.chunked_count = job.batch.chunked_count();
            shown.left_count = job.batch.left_count();
            shown.head = job.batch.head().map(head_of);
        }
    }
}

fn head_of(stream: &KeyStream) -> Head {
    let (stage, position) = match stream.stage() {
        Stage::Prepare => (0, 0),
        Stage::Payload => (1, 0),
        Stage::Chunks(at) => (2, at),
        Stage::Expire => (3, 0),
        Stage::Done => (4, 0),
    };
    Head {
        key: stream.key().into(),
        type_number: stream.value().map_or(-1, |value| i64::from(value.type_number())),
        stage,
        expires_at: stream.expires_at().map_or(-1, |at| at.0),
        position,
        chunk_count: stream.chunk_count(),
    }
}
