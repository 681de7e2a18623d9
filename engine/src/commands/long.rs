//! Commands over so many elements that they must not run in one turn.
//!
//! A [`LongOp`] works on owned snapshots, which cost nothing to take, so it holds no door while it
//! works: the core steps it between other things. Then it finishes under the doors of its keys, as if
//! all of it had happened there; a writer looks first whether its sources are still what they were.
//!
//! Calls that say very much themselves are in [`words`](crate::commands::words).
//!
//! Not in steps, at some tenths of a microsecond each: the keys of MSET, MSETNX, MGET and WATCH, and of
//! calls that read many keys (SUNION, PFCOUNT); the calls of a transaction, all of them; and the calls
//! that one push or the like serves. An element of a collection, and a string that grows, are copied in
//! one go, at some tenths of a millisecond a megabyte.

use std::fmt::Debug;

use crate::commands::ctx::{Ctx, Later};
use crate::commands::held_keys::KeyHold;
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

/// Times that a call begins while nothing keeps writers of its keys from writing.
const FREE_TRIES: u32 = 8;
/// Times that it begins while they wait. More are not to be expected: those that were on their way
/// have come. After that it ends in one turn, however long that is.
const HELD_TRIES: u32 = 8;

/// How often a call over keys that others change has begun.
#[derive(Debug, Default)]
pub struct Tries {
    /// Without the first.
    count: u32,
    /// From some time on, writers wait.
    hold: Option<KeyHold>,
}

impl Tries {
    /// Whether a call may begin once more because one of `keys` has changed; `false` if it has to end
    /// now. Somebody who never stops writing must not keep it from ever ending: in the end writers of
    /// its keys wait for it.
    pub fn again<'k>(&mut self, ctx: &Ctx<'_>, keys: impl Iterator<Item = &'k [u8]>) -> bool {
        self.count += 1;
        if self.count >= FREE_TRIES && self.hold.is_none() {
            self.hold = Some(ctx.node.held_keys.hold(ctx.db, keys));
        }
        self.count < FREE_TRIES + HELD_TRIES
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::commands::ctx::Shards;
    use crate::commands::dispatch;
    use crate::commands::table::{Command, table};
    use crate::resp::reply::{OutBuf, Protocol};
    use crate::units::{CoreId, DbIndex};

    /// Commands that start over when a key has changed, and a call that changes it.
    const CALLS: [(&str, &str); 6] = [
        ("SUNIONSTORE d s t", "SADD t new{n}"),
        ("ZUNIONSTORE d 2 z y", "ZADD y 1 new{n}"),
        ("ZRANGESTORE d z 0 4999", "ZADD z 1 new{n}"),
        ("BITOP NOT d b", "SETRANGE b 5 new{n}"),
        ("SPOP s 3000", "SADD s new{n}"),
        ("ZREMRANGEBYRANK z 0 3999", "ZADD z 1 new{n}"),
    ];

    /// Calls of very many words, and a call that changes their key.
    fn wide() -> Vec<(String, &'static str)> {
        let calls = [
            ("SADD s", "SADD s new{n}"),
            ("SREM s", "SADD s new{n}"),
            ("HSET h", "HSET h new{n} v"),
            ("HDEL h", "HSET h new{n} v"),
            ("RPUSH l", "RPUSH l new{n}"),
            ("LPUSHX l", "RPUSH l new{n}"),
            ("ZREM z", "ZADD z 1 new{n}"),
            ("PFADD p", "PFADD p new{n} new{n}b new{n}c"),
        ];
        let many: String = (0..2_000).map(|n| format!(" m{n}")).collect();
        calls.map(|(call, change)| (call.to_owned() + &many, change)).into()
    }

    fn words(line: &str) -> OwnedArgs {
        OwnedArgs::of(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    fn filled() -> Bare {
        let mut bare = Bare::new(2, 1);
        let mut client = bare.client();
        for n in 0..6_000 {
            let (number, name) = (n.to_string(), format!("m{n}"));
            for key in [&b"s"[..], b"t"] {
                bare.call(&mut client, &[b"SADD", key, name.as_bytes()]);
            }
            for key in [&b"z"[..], b"y"] {
                bare.call(&mut client, &[b"ZADD", key, number.as_bytes(), name.as_bytes()]);
            }
        }
        bare.call(&mut client, &[b"SETRANGE", b"b", b"4000000", b"x"]);
        bare.call(&mut client, &[b"HSET", b"h", b"m0", b"v"]);
        bare.call(&mut client, &[b"RPUSH", b"l", b"m0"]);
        bare
    }

    /// Runs `work` as a core does that may leave the end of a call to later. What it has left.
    fn deferring(
        bare: &mut Bare,
        line: &str,
        work: impl FnOnce(&'static Command, &mut Ctx<'_>, &OwnedArgs, &mut Reply<'_>),
    ) -> Option<Box<dyn LongOp>> {
        let call = words(line);
        let command = table().get(call.args().at(0)).expect("the command exists");
        let shards = Shards::Many(&mut bare.held);
        let (clock, now) = (&mut bare.clock, bare.now);
        let mut ctx = dispatch::ctx(bare.node, CoreId(0), shards, clock, now, DbIndex(0), command);
        ctx.may_defer = true;
        ctx.words = Some(Arc::new(call.clone()));
        let mut out = OutBuf::default();
        work(command, &mut ctx, &call, &mut Reply::new(&mut out, Protocol::Resp2));
        match std::mem::take(&mut ctx.later) {
            Later::Long(op) => Some(op),
            _ => None,
        }
    }

    fn begin(bare: &mut Bare, line: &str) -> Box<dyn LongOp> {
        deferring(bare, line, |command, ctx, call, reply| {
            dispatch::run_data(command, ctx, &call.args(), reply);
        })
        .unwrap_or_else(|| panic!("`{line}` is not long"))
    }

    /// Works to the end; what is left if it begins anew.
    fn end(bare: &mut Bare, line: &str, mut op: Box<dyn LongOp>) -> Option<Box<dyn LongOp>> {
        while !op.step() {}
        deferring(bare, line, |command, ctx, call, reply| {
            dispatch::finish_long(command, op, ctx, &call.args(), reply);
        })
    }

    fn writer_waits(bare: &Bare, line: &str, client: &crate::net::client::ClientState) -> bool {
        let call = words(line);
        let command = table().get(call.args().at(0)).expect("the command exists");
        dispatch::waits_for_keys(command, &call.args(), client, bare.node, &mut Vec::new())
    }

    #[test]
    fn call_whose_keys_keep_changing_lets_their_writers_wait_and_ends() {
        let calls = CALLS.map(|(line, change)| (line.to_owned(), change));
        for (line, change) in calls.into_iter().chain(wide()) {
            let line = line.as_str();
            let mut bare = filled();
            let mut client = bare.client();
            let mut op = Some(begin(&mut bare, line));
            let mut tries = 0;
            while let Some(again) = op {
                tries += 1;
                let write = change.replace("{n}", &tries.to_string());
                let key = write.split(' ').nth(1).expect("it names a key");
                assert_eq!(writer_waits(&bare, &write, &client), tries > FREE_TRIES, "{line}");
                // Who reads, or writes elsewhere, is let through.
                assert!(!writer_waits(&bare, &format!("DUMP {key}"), &client), "{line}");
                assert!(!writer_waits(&bare, "SET elsewhere x", &client), "{line}");
                let write = words(&write);
                let write: Vec<&[u8]> = write.args().iter_from(0).collect();
                bare.call(&mut client, &write);
                op = end(&mut bare, line, again);
            }
            assert_eq!(tries, FREE_TRIES + HELD_TRIES, "{line}");
            assert!(!bare.node.held_keys.has_any(), "{line}");
        }
    }

    #[test]
    fn call_that_is_given_up_holds_no_keys() {
        let mut bare = filled();
        let mut client = bare.client();
        let (line, _) = CALLS[0];
        let mut op = Some(begin(&mut bare, line));
        for n in 0..FREE_TRIES {
            bare.call(&mut client, &[b"SADD", b"t", n.to_string().as_bytes()]);
            op = end(&mut bare, line, op.expect("it begins anew"));
        }
        assert!(bare.node.held_keys.has_any());
        drop(op);
        assert!(!bare.node.held_keys.has_any());
    }

    #[test]
    fn exec_waits_for_the_keys_of_what_is_queued() {
        let bare = Bare::new(1, 1);
        let mut client = bare.client();
        client.multi = Some(Box::default());
        let queue = |client: &mut _, line: &str| {
            let call = words(line);
            let command = table().get(call.args().at(0)).expect("the command exists");
            dispatch::queue(command, &call.args(), client);
        };
        let hold = bare.node.held_keys.hold(DbIndex(0), [&b"k"[..]].into_iter());
        queue(&mut client, "GET k");
        queue(&mut client, "SET other x");
        assert!(!writer_waits(&bare, "EXEC", &client));
        // It is only queued.
        assert!(!writer_waits(&bare, "SET k x", &client));
        queue(&mut client, "SET k x");
        assert!(writer_waits(&bare, "EXEC", &client));
        drop(hold);
        assert!(!writer_waits(&bare, "EXEC", &client));
    }
}
