//! Commands that look into HyperLogLogs: PFDEBUG and PFSELFTEST.

use super::{encoding, make_raw};
use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Encode, Expiry, StrBytes};
use crate::commands::session_ctx::SessionCtx;
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::hll::{self, Corrupted, Encoding, Mark, Registers};

/// Elements that PFSELFTEST adds: it ends well within a turn.
const SELF_TEST_ELEMENTS: u64 = 4000;
/// Length at which its sparse string becomes dense, as by default.
const SELF_TEST_SPARSE_BYTES_MAX: usize = 3000;

pub(super) fn pfdebug(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(2));
    let value = ctx.write_string(key)?.ok_or(CommandError::SPECIFIED_KEY_MISSING)?;
    let (encoding, is_raw) = (encoding(value)?, value.encoding() == "raw");
    make_raw(ctx, key, is_raw);
    match args.at(1) {
        word if is_token(word, "GETREG") => reply_registers(ctx, key, reply)?,
        word if is_token(word, "DECODE") && encoding == Encoding::Sparse => {
            let text = hll::describe_runs(&stored(ctx, key)?)?;
            reply.bulk(text.as_bytes());
        }
        word if is_token(word, "DECODE") => return Err(CommandError::HLL_NOT_SPARSE),
        word if is_token(word, "ENCODING") => reply.simple(match encoding {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        }),
        word if is_token(word, "TODENSE") => reply.int_bool(make_dense(ctx, key)?),
        word => return Err(CommandError::unknown_pfdebug(word)),
    }
    Ok(())
}

/// Redis: showing the registers makes them dense.
fn reply_registers(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), CommandError> {
    make_dense(ctx, key)?;
    let mut registers = Registers::default();
    registers.merge(&stored(ctx, key)?)?;
    reply.array(hll::REGISTER_COUNT);
    registers.values().iter().for_each(|&value| reply.int(i64::from(value)));
    Ok(())
}

/// The string under a key that is there.
fn stored<'c>(ctx: &'c mut Ctx<'_>, key: KeyRef<'_>) -> Result<StrBytes<'c>, CommandError> {
    let value = ctx.write_string(key)?.ok_or(CommandError::SPECIFIED_KEY_MISSING)?;
    Ok(value.bytes())
}

/// Makes the string under a key dense; whether it was sparse.
fn make_dense(ctx: &mut Ctx<'_>, key: KeyRef<'_>) -> Result<bool, CommandError> {
    let mut bytes = stored(ctx, key)?.to_vec();
    if !hll::make_dense(&mut bytes)? {
        return Ok(false);
    }
    ctx.set_string(key, &bytes, Encode::Raw, Expiry::Keep);
    // Redis: replicas hear of it, watchers do not.
    ctx.effect_state(ctx.db, key);
    Ok(true)
}

/// Redis adds ten million elements and stands still meanwhile; this finds the same mistakes.
pub(super) fn pfselftest(
    _ctx: &mut SessionCtx<'_>,
    _args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    match self_test() {
        Ok(true) => reply.ok(),
        Ok(false) | Err(Corrupted) => return Err(CommandError::HLL_SELF_TEST),
    }
    Ok(())
}

/// Whether both encodings hold the same registers and count right.
fn self_test() -> Result<bool, Corrupted> {
    let mut sparse = hll::empty();
    let mut dense = hll::empty();
    hll::make_dense(&mut dense)?;
    for n in 1..=SELF_TEST_ELEMENTS {
        let mark = Mark::of(&n.to_le_bytes());
        let changed = hll::add(&mut sparse, mark, SELF_TEST_SPARSE_BYTES_MAX)?;
        if changed != hll::add_dense(&mut dense, mark) {
            return Ok(false);
        }
        if n.is_power_of_two() && !(agree(&sparse, &dense)? && is_near(hll::count(&dense)?, n)) {
            return Ok(false);
        }
    }
    agree(&sparse, &dense)
}

fn agree(a: &[u8], b: &[u8]) -> Result<bool, Corrupted> {
    let (mut of_a, mut of_b) = (Registers::default(), Registers::default());
    of_a.merge(a)?;
    of_b.merge(b)?;
    Ok(of_a == of_b && hll::count(a)? == hll::count(b)? && of_a.count() == hll::count(a)?)
}

/// Whether an estimate is as near as it should be: six standard errors of 0.81 %.
fn is_near(estimate: u64, count: u64) -> bool {
    estimate.abs_diff(count) <= 2 + count / 20
}

#[cfg(test)]
mod tests {
    #[test]
    fn self_test_passes() {
        assert_eq!(super::self_test(), Ok(true));
    }
}
