//! BITOP: strings combined bit by bit.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

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
    let mut result = Vec::new();
    for (i, word) in args.iter_from(3).enumerate() {
        let key = ctx.key(word);
        let value = ctx.read_string(key)?;
        let bytes = value.map(|value| value.bytes());
        let bytes = bytes.as_deref().unwrap_or(&[]);
        match (i, op) {
            (0, Op::Not) => result.extend(bytes.iter().map(|byte| !byte)),
            (0, _) => result.extend_from_slice(bytes),
            _ => combine(&mut result, bytes, op),
        }
    }
    store(ctx, args.at(2), &result);
    reply.count(result.len());
    Ok(())
}

/// Works `bytes` into `result`. The shorter of the two goes on in zeros.
fn combine(result: &mut Vec<u8>, bytes: &[u8], op: Op) {
    if result.len() < bytes.len() {
        result.resize(bytes.len(), 0);
    }
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
fn store(ctx: &mut Ctx<'_>, target: &[u8], result: &[u8]) {
    let key = ctx.key(target);
    if !result.is_empty() {
        ctx.set_string(key, result, Encode::Raw, Expiry::Clear);
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
}
