//! BITOP: strings combined bit by bit.
//!
//! A long result is made in steps, on snapshots of its sources; it is stored if they are still what
//! they were then.

use std::sync::Arc;

use crate::commands::args::{Args, is_token};
use crate::commands::bitmap::{BYTES_PER_ELEMENT, STEP_BYTES};
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::long::{Finish, LongOp, Tries};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::store::entry::{INLINE_BYTES_MAX, Value};

/// What is done to the bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    And,
    Or,
    Xor,
    Not,
}

impl Op {
    fn of_word(word: &[u8]) -> Option<Self> {
        let ops = [("AND", Self::And), ("OR", Self::Or), ("XOR", Self::Xor), ("NOT", Self::Not)];
        ops.into_iter().find(|(token, _)| is_token(word, token)).map(|(_, op)| op)
    }
}

pub(super) fn bitop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let op = Op::of_word(args.at(1)).ok_or(CommandError::SYNTAX)?;
    if op == Op::Not && args.len() != 4 {
        return Err(CommandError::BITOP_NOT);
    }
    let mut sources = Vec::with_capacity(args.len() - 3);
    for word in args.iter_from(3) {
        let key = ctx.key(word);
        sources.push(snapshot(ctx.read_string(key)?));
    }
    let keys = args.iter_from(3).map(Box::from).collect();
    let work = Combine::new(op, keys, Box::from(args.at(2)), sources);
    let element_count = work.len * work.sources.len() / BYTES_PER_ELEMENT;
    ctx.run_long(Box::new(work), element_count, reply)
}

/// The bytes of a string as they are now: a long one is shared until somebody changes it.
fn snapshot(value: Option<Value<'_>>) -> Arc<Vec<u8>> {
    match value {
        Some(Value::Big(data)) => Arc::clone(data),
        value => Arc::new(value.map_or_else(Vec::new, |value| value.bytes().to_vec())),
    }
}

/// A result that is being made.
#[derive(Debug)]
struct Combine {
    op: Op,
    keys: Vec<Box<[u8]>>,
    target: Box<[u8]>,
    sources: Vec<Arc<Vec<u8>>>,
    result: Vec<u8>,
    /// Length of the result.
    len: usize,
    /// How often it has begun.
    tries: Tries,
}

impl Combine {
    fn new(op: Op, keys: Vec<Box<[u8]>>, target: Box<[u8]>, sources: Vec<Arc<Vec<u8>>>) -> Self {
        let len = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        Self {
            op,
            keys,
            target,
            sources,
            result: Vec::with_capacity(len),
            len,
            tries: Tries::default(),
        }
    }

    /// Whether the keys hold what they held when it began.
    fn is_current(&self, ctx: &mut Ctx<'_>) -> Result<bool, CommandError> {
        for (key, source) in self.keys.iter().zip(&self.sources) {
            let is_same = match ctx.write_string(KeyRef::new(key))? {
                // Changes in place are made to a copy as long as the snapshot is here.
                Some(Value::Big(data)) => Arc::ptr_eq(data, source),
                value => value.map_or(source.is_empty(), |value| *value.bytes() == ***source),
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same from the beginning, on what the keys hold now.
    fn anew(self, ctx: &mut Ctx<'_>) -> Result<Self, CommandError> {
        let mut sources = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            sources.push(snapshot(ctx.write_string(KeyRef::new(key))?));
        }
        let anew = Self::new(self.op, self.keys, self.target, sources);
        Ok(Self { tries: self.tries, ..anew })
    }
}

impl LongOp for Combine {
    fn step(&mut self) -> bool {
        let from = self.result.len();
        let to = self.len.min(from + (STEP_BYTES / self.sources.len()).max(BYTES_PER_ELEMENT));
        for (i, source) in self.sources.iter().enumerate() {
            let part = &source[from.min(source.len())..to.min(source.len())];
            if i > 0 {
                combine(&mut self.result[from..], part, self.op);
                continue;
            }
            if self.op == Op::Not {
                self.result.extend(part.iter().map(|byte| !byte));
            } else {
                self.result.extend_from_slice(part);
            }
            self.result.resize(to, 0);
        }
        to == self.len
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let mut this = *self;
        if !this.is_current(ctx)? {
            this = this.anew(ctx)?;
            if this.tries.again(ctx, this.keys.iter().map(|key| &**key)) {
                return Ok(Finish::Again(Box::new(this)));
            }
            while !this.step() {}
        }
        store(ctx, &this.target, this.result);
        reply.count(this.len);
        Ok(Finish::Done)
    }
}

/// Works `bytes` into `result`, which is not shorter. The shorter of the two goes on in zeros.
fn combine(result: &mut [u8], bytes: &[u8], op: Op) {
    let (common, rest) = result.split_at_mut(bytes.len());
    let pairs = common.iter_mut().zip(bytes);
    match op {
        Op::And => {
            pairs.for_each(|(to, from)| *to &= from);
            rest.fill(0);
        }
        Op::Or => pairs.for_each(|(to, from)| *to |= from),
        Op::Xor => pairs.for_each(|(to, from)| *to ^= from),
        Op::Not => {}
    }
}

/// Stores the result, or deletes what was there if it is empty.
fn store(ctx: &mut Ctx<'_>, target: &[u8], result: Vec<u8>) {
    let key = ctx.key(target);
    if !result.is_empty() {
        if result.len() > INLINE_BYTES_MAX {
            ctx.set_big(key, Arc::new(result), Expiry::Clear);
        } else {
            ctx.set_string(key, &result, Encode::Raw, Expiry::Clear);
        }
        ctx.modified(key, Event::String("set"));
    } else if ctx.delete(key) {
        ctx.modified(key, Event::Generic("del"));
    } else {
        return;
    }
    ctx.effect_state(ctx.db, key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    #[test]
    fn bitop_pads_the_shorter_string_with_zeros() {
        let mut bare = Bare::new(3, 1);
        run(&mut bare, "MSET a \"\\xff\\x0f\" b \"\\x0f\"");
        let cases = [
            ("AND", "\\x0f\\x00"),
            ("and", "\\x0f\\x00"),
            ("OR", "\\xff\\x0f"),
            ("XOR", "\\xf0\\x0f"),
        ];
        for (op, want) in cases {
            for keys in ["a b", "b a", "a b a b"] {
                if op == "XOR" && keys.len() > 3 {
                    continue;
                }
                assert_eq!(run(&mut bare, &format!("BITOP {op} to {keys}")), ":2\\r\\n");
                assert_eq!(run(&mut bare, "GET to"), format!("$2\\r\\n{want}\\r\\n"), "{op}");
            }
        }
        assert_eq!(run(&mut bare, "BITOP NOT to b"), ":1\\r\\n");
        assert_eq!(run(&mut bare, "GET to"), "$1\\r\\n\\xf0\\r\\n");
    }

    #[test]
    fn bitop_journals_the_result() {
        let mut bare = Bare::new(3, 1);
        run(&mut bare, "MSET a abc b abc");
        run(&mut bare, "SET to old EX 100");
        assert_eq!(effects(&mut bare, "BITOP AND to a b"), ["SET to abc"]);
        assert_eq!(effects(&mut bare, "BITOP OR to none nothing"), ["DEL to"]);
        assert_eq!(effects(&mut bare, "BITOP OR to none nothing"), Vec::<String>::new());
    }

    #[test]
    fn steps_give_what_one_go_would() {
        let lens = [0, 1, STEP_BYTES / 3 - 1, STEP_BYTES, 2 * STEP_BYTES + 5];
        let sources: Vec<Arc<Vec<u8>>> = lens
            .iter()
            .map(|&len| Arc::new((0..len).map(|i| (i * 7 + i / 251 + len) as u8).collect()))
            .collect();
        for op in [Op::And, Op::Or, Op::Xor] {
            for count in 1..=sources.len() {
                let mut work =
                    Combine::new(op, Vec::new(), Box::default(), sources[..count].to_vec());
                while !work.step() {}
                let mut want = vec![0; work.len];
                for (i, to) in want.iter_mut().enumerate() {
                    let bytes = sources[..count].iter().map(|s| s.get(i).copied().unwrap_or(0));
                    *to = bytes
                        .reduce(|a, b| match op {
                            Op::And => a & b,
                            Op::Or => a | b,
                            _ => a ^ b,
                        })
                        .expect("there is a source");
                }
                assert!(work.result == want, "{op:?} of {count}");
            }
        }
    }

    #[test]
    fn result_of_long_strings_is_shared_with_nobody() {
        let mut bare = Bare::new(2, 1);
        run(&mut bare, "SETRANGE a 300000 x");
        run(&mut bare, "SETRANGE b 100 y");
        assert_eq!(run(&mut bare, "BITOP OR to a b"), ":300001\\r\\n");
        assert_eq!(run(&mut bare, "BITOP OR a a to"), ":300001\\r\\n");
        run(&mut bare, "SETRANGE a 100 z");
        assert_eq!(run(&mut bare, "GETRANGE to 100 100"), "$1\\r\\ny\\r\\n");
        assert_eq!(run(&mut bare, "GETRANGE to -1 -1"), "$1\\r\\nx\\r\\n");
    }
}
