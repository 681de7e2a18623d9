//! Commands that replace or drop a whole string, and their deadlines: SET and its older forms,
//! GETSET, GETDEL, GETEX.
//!
//! What they leave in the journal never depends on when it is replayed: deadlines are absolute, and
//! one that has passed is a DEL.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Encode, Event, Expiry};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::units::Ms;

/// When SET may act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Always,
    Missing,
    Present,
}

/// How a word counts time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TimeUnit {
    seconds: bool,
    /// From now on, not from the epoch.
    relative: bool,
}

impl TimeUnit {
    const EX: Self = Self { seconds: true, relative: true };
    const PX: Self = Self { seconds: false, relative: true };
    const EXAT: Self = Self { seconds: true, relative: false };
    const PXAT: Self = Self { seconds: false, relative: false };

    fn of_option(word: &[u8]) -> Option<Self> {
        let units =
            [("EX", Self::EX), ("PX", Self::PX), ("EXAT", Self::EXAT), ("PXAT", Self::PXAT)];
        units.into_iter().find(|(token, _)| is_token(word, token)).map(|(_, unit)| unit)
    }
}

/// What is to become of the deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deadline<'a> {
    /// What the command does without an option.
    Default,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// The word says when.
    At(TimeUnit, &'a [u8]),
}

/// Options of SET and GETEX.
#[derive(Clone, Copy, Debug)]
struct Options<'a> {
    condition: Condition,
    get: bool,
    deadline: Deadline<'a>,
}

impl<'a> Options<'a> {
    const NONE: Self =
        Self { condition: Condition::Always, get: false, deadline: Deadline::Default };

    /// The options of SET: from word 3 on, in any order.
    fn of_set(args: &Args<'a>) -> Result<Self, CommandError> {
        let mut options = Self::NONE;
        let mut words = args.cursor(3);
        while let Some(word) = words.next() {
            if is_token(word, "NX") && options.condition != Condition::Present {
                options.condition = Condition::Missing;
            } else if is_token(word, "XX") && options.condition != Condition::Missing {
                options.condition = Condition::Present;
            } else if is_token(word, "GET") {
                options.get = true;
            } else if is_token(word, "KEEPTTL") {
                options.choose(Deadline::Keep)?;
            } else if let (Some(unit), Some(time)) = (TimeUnit::of_option(word), words.next()) {
                options.choose(Deadline::At(unit, time))?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// The options of GETEX: from word 2 on.
    fn of_getex(args: &Args<'a>) -> Result<Self, CommandError> {
        let mut options = Self::NONE;
        let mut words = args.cursor(2);
        while let Some(word) = words.next() {
            if is_token(word, "PERSIST") {
                options.choose(Deadline::Persist)?;
            } else if let (Some(unit), Some(time)) = (TimeUnit::of_option(word), words.next()) {
                options.choose(Deadline::At(unit, time))?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Redis: an option may come twice, and the last time counts; two different ones may not.
    fn choose(&mut self, new: Deadline<'a>) -> CommandResult {
        let fits = match (self.deadline, new) {
            (Deadline::Default, _) => true,
            (Deadline::At(old, _), Deadline::At(new, _)) => old == new,
            (old, new) => old == new,
        };
        self.deadline = new;
        if fits { Ok(()) } else { Err(CommandError::SYNTAX) }
    }
}

/// The moment that `word` means; an error if it is no integer, not positive or beyond 64 bits.
fn moment(ctx: &Ctx<'_>, unit: TimeUnit, word: &[u8]) -> Result<Ms, CommandError> {
    let n = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
    let ms = if unit.seconds { n.checked_mul(1000) } else { Some(n) };
    let base = if unit.relative { ctx.now.0 } else { 0 };
    ms.filter(|&ms| ms > 0)
        .and_then(|ms| ms.checked_add(base))
        .map(Ms)
        .ok_or_else(|| CommandError::invalid_expire(ctx.spec.name))
}

pub(super) fn set(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let options = Options::of_set(args)?;
    let expiry = match options.deadline {
        Deadline::At(unit, word) => Expiry::At(moment(ctx, unit, word)?),
        Deadline::Keep => Expiry::Keep,
        Deadline::Default | Deadline::Persist => Expiry::Clear,
    };
    let key = ctx.key(args.at(1));
    if options.get {
        reply_value(ctx, key, reply)?;
    }
    let done = is_met(ctx, key, options.condition);
    if done {
        store(ctx, key, args, 2, expiry);
    }
    match (options.get, done) {
        (true, _) => {}
        (false, true) => reply.ok(),
        (false, false) => reply.null(),
    }
    Ok(())
}

#[inline]
fn is_met(ctx: &mut Ctx<'_>, key: KeyRef<'_>, condition: Condition) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Missing => ctx.lookup_write(key).is_none(),
        Condition::Present => ctx.lookup_write(key).is_some(),
    }
}

/// Replies with the string under a key, or null; returns whether there is one.
fn reply_value(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    let value = ctx.read_string(key)?;
    match value {
        Some(value) => value.reply(reply),
        None => reply.null(),
    }
    Ok(value.is_some())
}

/// Stores word `index` and journals it.
#[inline]
fn store(ctx: &mut Ctx<'_>, key: KeyRef<'_>, args: &Args<'_>, index: usize, expiry: Expiry) {
    let value = args.at(index);
    if let Expiry::At(at) = expiry
        && at <= ctx.now
    {
        // Redis: stores it and lets the next look at it find that it has expired.
        let is_new = !ctx.delete(key);
        if is_new {
            ctx.notify(key, Event::New);
        }
        ctx.modified(key, Event::String("set"));
        ctx.notify(key, Event::Generic("expire"));
        ctx.notify(key, Event::Expired);
        return ctx.effect(key, &[b"DEL", key.bytes]);
    }
    ctx.set_word(key, args, index, Encode::Auto, expiry);
    ctx.modified(key, Event::String("set"));
    match expiry {
        Expiry::Clear => ctx.effect(key, &[b"SET", key.bytes, value]),
        Expiry::Keep => ctx.effect_state(ctx.db, key),
        Expiry::At(at) => {
            let mut text = itoa::Buffer::new();
            let at = text.format(at.0).as_bytes();
            ctx.effect(key, &[b"SET", key.bytes, value, b"PXAT", at]);
            ctx.notify(key, Event::Generic("expire"));
        }
    }
}

pub(super) fn setnx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    let done = is_met(ctx, key, Condition::Missing);
    if done {
        store(ctx, key, args, 2, Expiry::Clear);
    }
    reply.int_bool(done);
    Ok(())
}

pub(super) fn setex(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_until(ctx, args, reply, TimeUnit::EX)
}

pub(super) fn psetex(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_until(ctx, args, reply, TimeUnit::PX)
}

fn set_until(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    unit: TimeUnit,
) -> CommandResult {
    let at = moment(ctx, unit, args.at(2))?;
    let key = ctx.key(args.at(1));
    store(ctx, key, args, 3, Expiry::At(at));
    reply.ok();
    Ok(())
}

pub(super) fn getset(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    reply_value(ctx, key, reply)?;
    store(ctx, key, args, 2, Expiry::Clear);
    Ok(())
}

pub(super) fn getdel(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = ctx.key(args.at(1));
    if reply_value(ctx, key, reply)? {
        delete(ctx, key);
    }
    Ok(())
}

fn delete(ctx: &mut Ctx<'_>, key: KeyRef<'_>) {
    ctx.delete(key);
    ctx.modified(key, Event::Generic("del"));
    ctx.effect(key, &[b"DEL", key.bytes]);
}

pub(super) fn getex(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let options = Options::of_getex(args)?;
    let key = ctx.key(args.at(1));
    // Redis: a missing key hides a time that is wrong. The reply is withdrawn if there is an error.
    if !reply_value(ctx, key, reply)? {
        return Ok(());
    }
    match options.deadline {
        Deadline::Default | Deadline::Keep => {}
        Deadline::Persist => persist(ctx, key),
        Deadline::At(unit, word) => {
            let at = moment(ctx, unit, word)?;
            if at <= ctx.now { delete(ctx, key) } else { expire(ctx, key, at) }
        }
    }
    Ok(())
}

fn persist(ctx: &mut Ctx<'_>, key: KeyRef<'_>) {
    let has_deadline = ctx.peek(key, false).is_some_and(|entry| entry.expires_at().is_some());
    if has_deadline {
        ctx.set_deadline(key, None);
        ctx.modified(key, Event::Generic("persist"));
        ctx.effect(key, &[b"PERSIST", key.bytes]);
    }
}

fn expire(ctx: &mut Ctx<'_>, key: KeyRef<'_>, at: Ms) {
    ctx.set_deadline(key, Some(at));
    ctx.modified(key, Event::Generic("expire"));
    let mut text = itoa::Buffer::new();
    let at = text.format(at.0).as_bytes();
    ctx.effect(key, &[b"PEXPIREAT", key.bytes, at]);
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    /// What `Bare`'s clock shows at first.
    const NOW_MS: i64 = 1_700_000_000_000;

    #[test]
    fn set_with_any_deadline_journals_an_absolute_one() {
        let mut bare = Bare::new(2, 1);
        let later = NOW_MS + 5000;
        let calls = [
            "SET k v EX 5".to_owned(),
            "SET k v PX 5000".to_owned(),
            format!("SET k v EXAT {}", later / 1000),
            format!("set k v pxat {later}"),
            "SETEX k 5 v".to_owned(),
            "PSETEX k 5000 v".to_owned(),
            "SET k v KEEPTTL".to_owned(),
        ];
        for call in calls {
            assert_eq!(effects(&mut bare, &call), [format!("SET k v PXAT {later}")], "{call}");
        }
        assert_eq!(effects(&mut bare, "SET k v"), ["SET k v"]);
        assert_eq!(effects(&mut bare, "SET k w KEEPTTL"), ["SET k w"]);
        bare.now.0 += 5000;
        assert_eq!(run(&mut bare, "GET k"), "$1\\r\\nw\\r\\n");
    }

    #[test]
    fn set_until_a_moment_that_has_passed_deletes() {
        let mut bare = Bare::new(1, 1);
        for call in ["SET k v PXAT 1", "SET k v EXAT 1700000000"] {
            run(&mut bare, "SET k old");
            assert_eq!(effects(&mut bare, call), ["DEL k"]);
            assert!(bare.is_empty(crate::units::DbIndex(0)));
        }
        assert_eq!(run(&mut bare, "SET k v PXAT 1"), "+OK\\r\\n");
        run(&mut bare, "SET k old");
        assert_eq!(run(&mut bare, "SET k v GET PXAT 1"), "$3\\r\\nold\\r\\n");
    }

    #[test]
    fn set_with_a_condition_and_get_replies_the_old_value() {
        let mut bare = Bare::new(1, 1);
        assert_eq!(run(&mut bare, "SET k v XX"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "SET k v XX GET"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "SET k v NX GET"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "SET k w NX GET"), "$1\\r\\nv\\r\\n");
        assert_eq!(run(&mut bare, "SET k w NX"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "SET k w GET XX"), "$1\\r\\nv\\r\\n");
        assert_eq!(run(&mut bare, "GET k"), "$1\\r\\nw\\r\\n");
        assert_eq!(effects(&mut bare, "SET k x NX"), Vec::<String>::new());
    }

    #[test]
    fn set_refuses_options_that_contradict_each_other() {
        let mut bare = Bare::new(1, 1);
        let refused = [
            "NX XX",
            "XX NX",
            "EX 1 PX 1",
            "EX 1 KEEPTTL",
            "KEEPTTL EX 1",
            "EX",
            "PX 1 EXAT",
            "PERSIST",
            "EXAT 1 PXAT 1",
            "bogus",
            "GETX",
        ];
        for options in refused {
            let reply = run(&mut bare, &format!("SET k v {options}"));
            assert_eq!(reply, "-ERR syntax error\\r\\n", "{options}");
        }
        for (i, options) in ["NX NX", "KEEPTTL KEEPTTL", "EX 1 EX 2", "nx ex 1"].iter().enumerate()
        {
            assert_eq!(run(&mut bare, &format!("SET k{i} v {options}")), "+OK\\r\\n", "{options}");
        }
    }

    #[test]
    fn deadline_out_of_range_is_refused() {
        let mut bare = Bare::new(1, 1);
        let calls = [
            ("set", "SET k v EX 0"),
            ("set", "SET k v PX -1"),
            ("set", "SET k v EX 9223372036854775807"),
            ("set", "SET k v PX 9223372036854775807"),
            ("set", "SET k v EX 9223372036854776"),
            ("set", "SET k v EXAT 9223372036854776"),
            ("set", "SET k v PXAT 0"),
            ("setex", "SETEX k 0 v"),
            ("psetex", "PSETEX k -5 v"),
            ("getex", "GETEX there EX 0"),
        ];
        run(&mut bare, "SET there v");
        for (name, call) in calls {
            let want = format!("-ERR invalid expire time in '{name}' command\\r\\n");
            assert_eq!(run(&mut bare, call), want, "{call}");
        }
        let reply = run(&mut bare, "SET k v EX 1.5");
        assert_eq!(reply, "-ERR value is not an integer or out of range\\r\\n");
        assert_eq!(run(&mut bare, "SET k v PXAT 9223372036854775807"), "+OK\\r\\n");
    }

    #[test]
    fn getex_journals_what_it_did_to_the_deadline() {
        let mut bare = Bare::new(1, 1);
        run(&mut bare, "SET k v");
        assert_eq!(effects(&mut bare, "GETEX k"), Vec::<String>::new());
        assert_eq!(effects(&mut bare, "GETEX k PERSIST"), Vec::<String>::new());
        let at = NOW_MS + 2000;
        assert_eq!(effects(&mut bare, "GETEX k EX 2"), [format!("PEXPIREAT k {at}")]);
        assert_eq!(effects(&mut bare, "GETEX k PERSIST"), ["PERSIST k"]);
        assert_eq!(run(&mut bare, "GETEX k EXAT 1"), "$1\\r\\nv\\r\\n");
        assert_eq!(run(&mut bare, "GET k"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "GETEX k EX nonsense"), "$-1\\r\\n");
        run(&mut bare, "SET k v");
        assert_eq!(effects(&mut bare, "GETEX k PXAT 1"), ["DEL k"]);
    }

    #[test]
    fn getdel_and_getset_return_what_was_there() {
        let mut bare = Bare::new(1, 1);
        assert_eq!(run(&mut bare, "GETSET k 1"), "$-1\\r\\n");
        assert_eq!(run(&mut bare, "GETSET k 2"), "$1\\r\\n1\\r\\n");
        assert_eq!(effects(&mut bare, "GETDEL k"), ["DEL k"]);
        assert_eq!(effects(&mut bare, "GETDEL k"), Vec::<String>::new());
    }
}
