//! What happens at the ends of a list: elements come, go, and move to another list.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::list::reply::reply_range;
use crate::commands::spec::CommandResult;
use crate::commands::words::{self, WordsEdit};
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::Collection;
use crate::types::list::{End, List};

/// The words that name an end, for journals.
pub(super) const fn end_word(end: End) -> &'static [u8] {
    match end {
        End::Front => b"LEFT",
        End::Back => b"RIGHT",
    }
}

/// An end, as a word of a call names it.
pub(super) fn parse_end(word: &[u8]) -> Result<End, CommandError> {
    if is_token(word, "left") {
        Ok(End::Front)
    } else if is_token(word, "right") {
        Ok(End::Back)
    } else {
        Err(CommandError::SYNTAX)
    }
}

const fn pushed(end: End) -> Event {
    match end {
        End::Front => Event::List("lpush"),
        End::Back => Event::List("rpush"),
    }
}

const fn popped(end: End) -> Event {
    match end {
        End::Front => Event::List("lpop"),
        End::Back => Event::List("rpop"),
    }
}

const fn push_word(end: End) -> &'static [u8] {
    match end {
        End::Front => b"LPUSH",
        End::Back => b"RPUSH",
    }
}

const fn pop_word(end: End) -> &'static [u8] {
    match end {
        End::Front => b"LPOP",
        End::Back => b"RPOP",
    }
}

/// Elements to be pushed; to a list that is there only, unless it `MAKES` one.
#[derive(Debug)]
struct Push<const MAKES: bool> {
    end: End,
    /// Length of the list, once all is done.
    len: usize,
}

impl<const MAKES: bool> WordsEdit for Push<MAKES> {
    type Value = List;
    const STRIDE: usize = 1;
    const MAKES_KEY: bool = MAKES;

    fn first(&self) -> usize {
        2
    }

    #[inline]
    fn apply(&mut self, list: &mut List, args: &Args<'_>, from: usize, to: usize) {
        list.extend(self.end, (from..to).map(|at| args.at(at)));
        self.len = list.len();
    }

    fn restart(&mut self) {
        self.len = 0;
    }

    fn has_changed(&self) -> bool {
        true
    }

    #[inline]
    fn end(
        &self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        found: bool,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        if found {
            ctx.changed(key, pushed(self.end));
        }
        reply.count(self.len);
        Ok(())
    }
}

fn push(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, end: End) -> CommandResult {
    words::run(Push::<true> { end, len: 0 }, ctx, args, reply)
}

/// `LPUSH key element [element ...]`
pub(super) fn lpush(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push(ctx, args, reply, End::Front)
}

/// `RPUSH key element [element ...]`
pub(super) fn rpush(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push(ctx, args, reply, End::Back)
}

fn push_existing(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    end: End,
) -> CommandResult {
    words::run(Push::<false> { end, len: 0 }, ctx, args, reply)
}

/// `LPUSHX key element [element ...]`
pub(super) fn lpushx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push_existing(ctx, args, reply, End::Front)
}

/// `RPUSHX key element [element ...]`
pub(super) fn rpushx(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push_existing(ctx, args, reply, End::Back)
}

/// Removes the element at an end and replies with it, if there is a list. Emits no effect.
#[inline]
pub(super) fn pop_one(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    end: End,
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    let found = ctx.edit(key, |list: &mut List| list.pop(end, |item| item.reply(reply)))?;
    if found.is_none() {
        return Ok(false);
    }
    ctx.changed(key, popped(end));
    Ok(true)
}

/// Removes up to `count` elements at an end and replies with them, if there is a list. Emits no
/// effect.
pub(super) fn pop_several(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    end: End,
    count: usize,
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    let trash = ctx.edit(key, |list: &mut List| {
        let len = list.len();
        let (from, to) = match end {
            End::Front => (0, count.min(len)),
            End::Back => (len.saturating_sub(count), len),
        };
        reply_range(list.view(), from, to, end, reply);
        list.remove_range(from, to)
    })?;
    let Some(trash) = trash else {
        return Ok(false);
    };
    ctx.free_later(key.slot, trash);
    ctx.changed(key, popped(end));
    Ok(true)
}

/// What POP does to one key, for the journal.
pub(super) fn effect_of_pop(ctx: &mut Ctx<'_>, key: KeyRef<'_>, end: End, count: Option<usize>) {
    match count {
        None => ctx.effect(key, &[pop_word(end), key.bytes]),
        Some(count) => {
            let mut text = itoa::Buffer::new();
            ctx.effect(key, &[pop_word(end), key.bytes, text.format(count).as_bytes()]);
        }
    }
}

fn pop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>, end: End) -> CommandResult {
    let key = ctx.key(args.at(1));
    let Some(count) = args.get(2) else {
        if !pop_one(ctx, key, end, reply)? {
            reply.null();
        }
        return Ok(());
    };
    if args.len() > 3 {
        return Err(CommandError::wrong_arity(ctx.spec.name));
    }
    let count = parse_i64(count).and_then(|n| usize::try_from(n).ok());
    let count = count.ok_or(CommandError::NOT_POSITIVE)?;
    if count == 0 {
        match ctx.view_to_write::<List>(key)? {
            Some(_) => reply.array(0),
            None => reply.null_array(),
        }
    } else if !pop_several(ctx, key, end, count, reply)? {
        reply.null_array();
    }
    Ok(())
}

/// `LPOP key [count]`
pub(super) fn lpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, reply, End::Front)
}

/// `RPOP key [count]`
pub(super) fn rpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(ctx, args, reply, End::Back)
}

/// Moves an element from one list to another and replies with it. `false` if there is no source.
pub(super) fn try_move(
    ctx: &mut Ctx<'_>,
    (source, from): (&[u8], End),
    (destination, to): (&[u8], End),
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    let (source_key, destination_key) = (ctx.key(source), KeyRef::new(destination));
    if ctx.view_to_write::<List>(source_key)?.is_none() {
        return Ok(false);
    }
    if source == destination {
        return rotate(ctx, source_key, from, to, reply);
    }
    ctx.view_to_write::<List>(destination_key)?;
    let element = ctx.edit(source_key, |list: &mut List| list.pop(from, |item| item.to_vec()))?;
    let element = element.flatten().expect("a list that is there has an element");
    // The edit of the other list is about to forget whether this one is gone.
    let emptied = ctx.emptied;
    ctx.edit_or_new(destination_key, |list: &mut List| list.push(to, &element))?;
    ctx.changed(destination_key, pushed(to));
    ctx.emptied = emptied;
    ctx.changed(source_key, popped(from));
    ctx.effect(destination_key, &[push_word(to), destination, &element]);
    effect_of_pop(ctx, source_key, from, None);
    reply.bulk(&element);
    Ok(true)
}

/// Moves an element within a list.
fn rotate(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    from: End,
    to: End,
    reply: &mut Reply<'_>,
) -> Result<bool, CommandError> {
    ctx.edit(key, |list: &mut List| {
        if let Some(element) = list.pop(from, |item| item.to_vec()) {
            list.push(to, &element);
            reply.bulk(&element);
        }
    })?;
    ctx.changed(key, pushed(to));
    ctx.modified(key, popped(from));
    ctx.effect(key, &[b"LMOVE", key.bytes, key.bytes, end_word(from), end_word(to)]);
    Ok(true)
}

/// `LMOVE source destination LEFT|RIGHT LEFT|RIGHT`
pub(super) fn lmove(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (from, to) = (parse_end(args.at(3))?, parse_end(args.at(4))?);
    if !try_move(ctx, (args.at(1), from), (args.at(2), to), reply)? {
        reply.null();
    }
    Ok(())
}

/// `RPOPLPUSH source destination`
pub(super) fn rpoplpush(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if !try_move(ctx, (args.at(1), End::Back), (args.at(2), End::Front), reply)? {
        reply.null();
    }
    Ok(())
}

/// What the words of LMPOP and BLMPOP say from the number of keys on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PopFromFirst {
    /// The first key's word.
    first: usize,
    key_count: usize,
    end: End,
    count: usize,
}

impl PopFromFirst {
    /// Parses `numkeys key [key ...] LEFT|RIGHT [COUNT count]`.
    pub(super) fn parse(args: &Args<'_>, count_index: usize) -> Result<Self, CommandError> {
        let key_count = parse_i64(args.at(count_index)).and_then(|n| usize::try_from(n).ok());
        let key_count = key_count.filter(|&n| n > 0).ok_or(CommandError::NUMKEYS_NOT_POSITIVE)?;
        let first = count_index + 1;
        let end = first.checked_add(key_count).and_then(|at| args.get(at));
        let end = parse_end(end.ok_or(CommandError::SYNTAX)?)?;
        let mut options = args.cursor(first + key_count + 1);
        let mut count = 1;
        if let Some(word) = options.take_value("COUNT") {
            let given = parse_i64(word).and_then(|n| usize::try_from(n).ok());
            count = given.filter(|&n| n > 0).ok_or(CommandError::COUNT_NOT_POSITIVE)?;
        }
        options.finish()?;
        Ok(Self { first, key_count, end, count })
    }

    /// Pops from the first key that holds a list, and replies. `false` if none does.
    pub(super) fn try_pop(
        self,
        ctx: &mut Ctx<'_>,
        args: &Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<bool, CommandError> {
        for word in self.first..self.first + self.key_count {
            let key = ctx.key(args.at(word));
            if !ctx.is_candidate(key.bytes) || ctx.view_to_write::<List>(key)?.is_none() {
                continue;
            }
            reply.array(2);
            reply.bulk(key.bytes);
            pop_several(ctx, key, self.end, self.count, reply)?;
            effect_of_pop(ctx, key, self.end, Some(self.count));
            return Ok(true);
        }
        Ok(false)
    }
}

/// `LMPOP numkeys key [key ...] LEFT|RIGHT [COUNT count]`
pub(super) fn lmpop(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !PopFromFirst::parse(args, 1)?.try_pop(ctx, args, reply)? {
        reply.null_array();
    }
    Ok(())
}
