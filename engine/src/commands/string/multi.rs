//! Several strings in one call: MGET, MSET, MSETNX.

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Encode, Event, Expiry, KEYS_AHEAD};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;

pub(super) fn mget(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(args.len() - 1);
    for from in (1..args.len()).step_by(KEYS_AHEAD) {
        for key in ctx.keys_ahead(args.iter_from(from)) {
            match ctx.read_string(key) {
                Ok(Some(value)) => value.reply(reply),
                // Redis: a key of another type counts as missing here, and only here.
                Ok(None) | Err(_) => reply.null(),
            }
        }
    }
    Ok(())
}

pub(super) fn mset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    check_pairs(ctx, args)?;
    set_pairs(ctx, args);
    reply.ok();
    Ok(())
}

pub(super) fn msetnx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    check_pairs(ctx, args)?;
    for word in args.iter_from(1).step_by(2) {
        let key = ctx.key(word);
        if ctx.lookup_write(key).is_some() {
            reply.int_bool(false);
            return Ok(());
        }
    }
    set_pairs(ctx, args);
    reply.int_bool(true);
    Ok(())
}

fn check_pairs(ctx: &Ctx<'_>, args: &Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity(ctx.spec.name));
    }
    Ok(())
}

fn set_pairs(ctx: &mut Ctx<'_>, args: &Args<'_>) {
    for from in (1..args.len()).step_by(2 * KEYS_AHEAD) {
        let keys = ctx.keys_ahead(args.iter_from(from).step_by(2));
        for (i, key) in (from + 1..).step_by(2).zip(keys) {
            ctx.set_word(key, args, i, Encode::Auto, Expiry::Clear);
            ctx.modified(key, Event::String("set"));
            ctx.effect(key, &[b"SET", key.bytes, args.at(i)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    #[test]
    fn mset_over_shards_journals_one_set_per_key() {
        let mut bare = Bare::new(3, 1);
        let mut journal = effects(&mut bare, "MSET a 1 b 2 c 3 a 4");
        journal.sort();
        assert_eq!(journal, ["SET a 1", "SET a 4", "SET b 2", "SET c 3"]);
        let values = run(&mut bare, "MGET a b c d");
        assert_eq!(values, "*4\\r\\n$1\\r\\n4\\r\\n$1\\r\\n2\\r\\n$1\\r\\n3\\r\\n$-1\\r\\n");
    }

    #[test]
    fn mset_of_half_a_pair_is_a_wrong_arity() {
        let mut bare = Bare::new(2, 1);
        for name in ["mset", "msetnx"] {
            let reply = run(&mut bare, &format!("{name} a 1 b"));
            let want = format!("-ERR wrong number of arguments for '{name}' command\\r\\n");
            assert_eq!(reply, want);
        }
    }

    #[test]
    fn msetnx_sets_all_or_nothing() {
        let mut bare = Bare::new(3, 1);
        run(&mut bare, "SET b old");
        assert_eq!(effects(&mut bare, "MSETNX a 1 b 2"), Vec::<String>::new());
        assert_eq!(run(&mut bare, "GET a"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "MSETNX a 1 c 2"), ":1\\r\\n");
    }
}
