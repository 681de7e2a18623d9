//! Strings as numbers: INCR and its kin, INCRBYFLOAT.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::longdouble::LongDouble;
use crate::resp::reply::Reply;
use crate::store::entry::Value;

pub(super) fn incr(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    add(ctx, args, reply, 1)
}

pub(super) fn decr(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    add(ctx, args, reply, -1)
}

pub(super) fn incrby(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    add(ctx, args, reply, args.int(2)?)
}

pub(super) fn decrby(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let by = args.int(2)?.checked_neg().ok_or(CommandError::DECREMENT_OVERFLOW)?;
    add(ctx, args, reply, by)
}

fn add(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, by: i64) -> CommandResult {
    let key = ctx.key(args.at(1));
    let old = match ctx.write_string(key)? {
        Some(value) => value.as_int().ok_or(CommandError::NOT_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(CommandError::OVERFLOW)?;
    ctx.set_int(key, new, Expiry::Keep);
    ctx.modified(key, Event::String("incrby"));
    reply.int(new);
    Ok(())
}

pub(super) fn incrbyfloat(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    let old = match ctx.write_string(key)? {
        Some(Value::Int(n)) => Some(LongDouble::from(n)),
        Some(value) => LongDouble::parse(&value.bytes()),
        None => Some(LongDouble::ZERO),
    };
    let (Some(old), Some(by)) = (old, LongDouble::parse(args.at(2))) else {
        return Err(CommandError::NOT_FLOAT);
    };
    let new = old.checked_add(by).ok_or(CommandError::NAN_OR_INFINITY)?.to_text();
    ctx.set_string(key, new.as_bytes(), Encode::NoInt, Expiry::Keep);
    ctx.modified(key, Event::String("incrbyfloat"));
    // The value, not the sum: whoever replays it may compute in another type.
    ctx.effect_state(ctx.db, key);
    reply.bulk(new.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    #[test]
    fn counter_at_the_limits_refuses_to_wrap() {
        let mut bare = Bare::new(1, 1);
        let overflow = "-ERR increment or decrement would overflow\\r\\n";
        run(&mut bare, "SET k 9223372036854775807");
        assert_eq!(run(&mut bare, "INCR k"), overflow);
        assert_eq!(run(&mut bare, "DECRBY k 9223372036854775807"), ":0\\r\\n");
        assert_eq!(run(&mut bare, "INCRBY k -9223372036854775808"), ":-9223372036854775808\\r\\n");
        assert_eq!(run(&mut bare, "DECR k"), overflow);
        let by_minimum = run(&mut bare, "DECRBY k -9223372036854775808");
        assert_eq!(by_minimum, "-ERR decrement would overflow\\r\\n");
    }

    #[test]
    fn counter_of_text_that_is_no_integer_is_refused() {
        let mut bare = Bare::new(1, 1);
        for text in ["abc", "1.5", "\" 1\"", "\"\"", "+1", "01"] {
            run(&mut bare, &format!("SET k {text}"));
            let reply = run(&mut bare, "INCR k");
            assert_eq!(reply, "-ERR value is not an integer or out of range\\r\\n", "{text}");
        }
    }

    #[test]
    fn incrbyfloat_journals_the_value_with_its_deadline() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SET k 10 PXAT 1700000900000");
        let journal = effects(&mut bare, "INCRBYFLOAT k 0.1");
        assert_eq!(journal, ["SET k 10.1 PXAT 1700000900000"]);
        assert_eq!(effects(&mut bare, "INCR other"), ["INCR other"]);
    }

    #[test]
    fn incrbyfloat_to_infinity_is_refused() {
        let mut bare = Bare::new(1, 1);
        let refused = "-ERR increment would produce NaN or Infinity\\r\\n";
        assert_eq!(run(&mut bare, "INCRBYFLOAT k inf"), refused);
        run(&mut bare, "SET k inf");
        assert_eq!(run(&mut bare, "INCRBYFLOAT k -inf"), refused);
        assert_eq!(run(&mut bare, "INCRBYFLOAT k 1"), refused);
        assert_eq!(run(&mut bare, "INCRBYFLOAT k x"), "-ERR value is not a valid float\\r\\n");
    }
}
