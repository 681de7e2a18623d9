//! Commands over so many elements that they must not run in one turn.
//!
//! A [`LongOp`] works on owned snapshots, which cost nothing to take, so it holds no door while it
//! works: the core steps it between other things. Then it finishes under the doors of its keys, as if
//! all of it had happened there; a writer looks first whether its sources are still what they were.

use std::fmt::Debug;

use crate::commands::ctx::{Ctx, Later};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

/// From this many elements on, work is done in steps.
pub const LONG_ELEMENTS_MIN: usize = 2_000;
/// From this many elements on, a reply is written while it is being sent.
pub const STREAM_ELEMENTS_MIN: usize = 4_000;
/// What a long reply adds at a time.
pub const STREAM_CHUNK_BYTES: usize = 64 * 1024;

/// Work in steps, on owned data.
pub trait LongOp: Debug + Send {
    /// Does some 50 µs of work; `true` when all is done.
    fn step(&mut self) -> bool;

    /// Ends it, with the doors of the call's keys held: stores the result and replies.
    ///
    /// # Errors
    /// The reply, if it is one.
    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError>;
}

/// How a long command ends.
#[derive(Debug)]
pub enum Finish {
    /// The reply is written.
    Done,
    /// What it read has changed meanwhile: once more, from the beginning.
    Again(Box<dyn LongOp>),
}

impl Ctx<'_> {
    /// Runs work over about `element_count` elements: at once if that is short or the call must end
    /// now (see [`Ctx::may_defer`]), else in steps after the handler has returned, which it must do next.
    ///
    /// # Errors
    /// Those of [`LongOp::finish`].
    pub fn run_long(
        &mut self,
        mut op: Box<dyn LongOp>,
        element_count: usize,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        if element_count >= LONG_ELEMENTS_MIN && self.may_defer {
            self.later = Later::Long(op);
            return Ok(());
        }
        loop {
            while !op.step() {}
            match op.finish(self, reply)? {
                Finish::Done => return Ok(()),
                Finish::Again(again) => op = again,
            }
        }
    }

    /// The same for work that reads only and needs no more than its snapshot: any call that is not part
    /// of a transaction may leave it behind, whether its session waits for it or not.
    ///
    /// # Errors
    /// Those of [`LongOp::finish`].
    pub fn run_long_read(
        &mut self,
        op: Box<dyn LongOp>,
        element_count: usize,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        if element_count >= LONG_ELEMENTS_MIN && self.may_leave_reads {
            self.later = Later::Long(op);
            return Ok(());
        }
        self.run_long(op, element_count, reply)
    }

    /// Whether the running call may wait for its keys: not inside EXEC.
    pub fn may_block(&self) -> bool {
        self.may_defer
    }

    /// The running call waits until one of its keys can serve it, at most `timeout_ms` (0: without
    /// end). The handler returns next, without a reply.
    pub fn block(&mut self, timeout_ms: i64) {
        self.later = Later::Block(timeout_ms);
    }
}
