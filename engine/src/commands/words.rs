//! Calls of so many words that they must not run in one turn, each on one key.
//!
//! A change works on a snapshot of the collection, some elements at a time, and is swapped in under the
//! door of its key if that holds what it held ([`WordsEdit`]): nobody sees a part of it. A question
//! about many elements is answered from a snapshot while its reply is sent ([`answer`]). Short calls
//! take the same code in one go. What may be wrong with words is found before anything is worked on.
//! Calls over many keys are in `generic/presence.rs` and `string/multi.rs`.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::commands::args::{Args, OwnedArgs};
use crate::commands::ctx::{Ctx, Later};
use crate::commands::long::{Finish, LongOp, STREAM_CHUNK_BYTES, Tries};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::{Reply, Stream};
use crate::shard::state::KeyRef;
use crate::types::Collection;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::zset::Zset;

/// Calls of so many words and more work in steps. Not a constant for the sake of tests: DEBUG
/// LONG-CALL-WORDS sets it.
static LONG_WORDS_MIN: AtomicUsize = AtomicUsize::new(1_000);

/// Words from which on a call works in steps.
#[inline]
pub fn long_words_min() -> usize {
    // Ordering: relaxed: nothing depends on when a core hears of a change.
    LONG_WORDS_MIN.load(Ordering::Relaxed)
}

/// Sets [`long_words_min`] for the whole process.
pub fn set_long_words_min(count: usize) {
    LONG_WORDS_MIN.store(count, Ordering::Relaxed);
}

/// Elements that one step works on, and bytes of words after which it ends.
const ELEMENTS_PER_STEP: usize = 64;
const BYTES_PER_STEP: usize = 32 * 1024;
/// Elements that are looked up at a time for a reply.
const ANSWERS_PER_FILL: usize = 256;

/// A collection that can tell whether it has been changed.
pub trait Snapshot: Collection + Clone + Debug + Send {
    /// Whether both are equal for sure, because neither has changed since one was copied from the other.
    fn is_same(&self, other: Self::View<'_>) -> bool;
}

macro_rules! snapshot {
    ($($type:ty),*) => {
        $(impl Snapshot for $type {
            fn is_same(&self, other: Self::View<'_>) -> bool {
                self.view().is_same(other)
            }
        })*
    };
}

snapshot!(Hash, List, Set, Zset);

/// A change of one collection, whose key is word 1, by elements that the call names.
pub trait WordsEdit: Debug + Send + 'static {
    /// What it changes.
    type Value: Snapshot;
    /// Words of one element.
    const STRIDE: usize;
    /// Whether a key that is not there is made.
    const MAKES_KEY: bool;
    /// Whether elements are [checked](Self::check).
    const CHECKS: bool = false;

    /// The first word of the first element.
    fn first(&self) -> usize;

    /// Looks at the element at word `at`, before any is worked on and before the key is looked up.
    ///
    /// # Errors
    /// The reply.
    fn check(&mut self, _args: &Args<'_>, _at: usize) -> CommandResult {
        Ok(())
    }

    /// Works the elements from word `from` to `to` (exclusive) into the collection.
    fn apply(&mut self, value: &mut Self::Value, args: &Args<'_>, from: usize, to: usize);

    /// Forgets what [`apply`](Self::apply) has done.
    fn restart(&mut self);

    /// Whether the collection is another than before.
    fn has_changed(&self) -> bool;

    /// Tells of the change and replies. `found`: there was a collection, or one was made.
    ///
    /// # Errors
    /// The reply, if it is one.
    fn end(
        &self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        found: bool,
        reply: &mut Reply<'_>,
    ) -> CommandResult;
}

/// Makes a change: at once if the call is short or must end now, else in steps after the handler has
/// returned, which it must do next.
///
/// # Errors
/// The reply.
#[inline]
pub fn run<E: WordsEdit>(
    mut edit: E,
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    // Cost: one branch for calls that are not long, which have no shared words.
    if let Some(words) = &ctx.words
        && args.len() >= long_words_min()
    {
        let words = Arc::clone(words);
        return begin(edit, words, ctx, reply);
    }
    check_all(&mut edit, args)?;
    let key = ctx.key(args.at(1));
    at_once(&mut edit, ctx, key, args, reply)
}

#[inline]
fn check_all<E: WordsEdit>(edit: &mut E, args: &Args<'_>) -> CommandResult {
    if E::CHECKS {
        for at in (edit.first()..args.len()).step_by(E::STRIDE) {
            edit.check(args, at)?;
        }
    }
    Ok(())
}

#[inline]
fn at_once<E: WordsEdit>(
    edit: &mut E,
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let apply = |value: &mut E::Value| {
        let first = edit.first();
        edit.apply(value, args, first, args.len());
    };
    let found = if E::MAKES_KEY {
        ctx.edit_or_new(key, apply)?;
        true
    } else {
        ctx.edit(key, apply)?.is_some()
    };
    edit.end(ctx, key, found, reply)
}

#[cold]
fn begin<E: WordsEdit>(
    edit: E,
    words: Arc<OwnedArgs>,
    ctx: &mut Ctx<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let stage = Stage::Check { at: edit.first() };
    let op = Op { words, edit, stage, error: None, tries: Tries::default() };
    if E::CHECKS {
        ctx.later = Later::Long(Box::new(op));
        return Ok(());
    }
    if let Finish::Again(op) = op.work(ctx, reply)? {
        ctx.later = Later::Long(op);
    }
    Ok(())
}

/// A change in steps.
#[derive(Debug)]
struct Op<E: WordsEdit> {
    words: Arc<OwnedArgs>,
    edit: E,
    stage: Stage<E::Value>,
    /// What is wrong with a word.
    error: Option<CommandError>,
    /// How often it has begun.
    tries: Tries,
}

/// How far it is.
#[derive(Debug)]
enum Stage<T> {
    /// Words are looked at, from this one on.
    Check { at: usize },
    /// Elements are worked into `after`, from word `at` on.
    Work { before: Option<T>, after: T, at: usize },
}

/// Where a step ends that begins with word `from`: behind some elements, or one that is long.
fn step_end(args: &Args<'_>, from: usize, stride: usize) -> usize {
    let (mut to, mut bytes) = (from, 0);
    while to < args.len() && to - from < ELEMENTS_PER_STEP * stride && bytes < BYTES_PER_STEP {
        bytes += (to..to + stride).map(|at| args.at(at).len()).sum::<usize>();
        to += stride;
    }
    to
}

impl<E: WordsEdit> Op<E> {
    /// Begins to work, on what the key holds now.
    fn work(mut self, ctx: &mut Ctx<'_>, reply: &mut Reply<'_>) -> Result<Finish, CommandError> {
        let words = Arc::clone(&self.words);
        let args = words.args();
        let key = KeyRef::new(args.at(1));
        let before: Option<E::Value> = ctx.snapshot_to_write(key)?;
        if before.is_none() && !E::MAKES_KEY {
            return self.edit.end(ctx, key, false, reply).map(|()| Finish::Done);
        }
        let after = before.clone().unwrap_or_else(E::Value::new);
        self.stage = Stage::Work { before, after, at: self.edit.first() };
        Ok(Finish::Again(Box::new(self)))
    }

    fn check_some(&mut self, at: usize) -> bool {
        let args = self.words.args();
        let to = step_end(&args, at, E::STRIDE);
        for at in (at..to).step_by(E::STRIDE) {
            if let Err(error) = self.edit.check(&args, at) {
                self.error = Some(error);
                return true;
            }
        }
        self.stage = Stage::Check { at: to };
        to == args.len()
    }
}

impl<E: WordsEdit> LongOp for Op<E> {
    fn step(&mut self) -> bool {
        let words = Arc::clone(&self.words);
        let args = words.args();
        match &mut self.stage {
            &mut Stage::Check { at } => self.check_some(at),
            Stage::Work { after, at, .. } => {
                let to = step_end(&args, *at, E::STRIDE);
                self.edit.apply(after, &args, *at, to);
                *at = to;
                to == args.len()
            }
        }
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let mut this = *self;
        if let Some(error) = this.error {
            return Err(error);
        }
        let Stage::Work { before, after, .. } = this.stage else {
            return this.work(ctx, reply);
        };
        let words = Arc::clone(&this.words);
        let args = words.args();
        let key = KeyRef::new(args.at(1));
        let now = ctx.view_to_write::<E::Value>(key)?;
        let is_same = match (&before, now) {
            (Some(before), Some(now)) => before.is_same(now),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            if this.edit.has_changed() {
                swap_in(ctx, key, after, before.is_some())?;
            }
            this.edit.end(ctx, key, true, reply)?;
            return Ok(Finish::Done);
        }
        this.edit.restart();
        if this.tries.again(ctx, std::iter::once(key.bytes)) {
            this.stage = Stage::Check { at: args.len() };
            return this.work(ctx, reply);
        }
        at_once(&mut this.edit, ctx, key, &args, reply)?;
        Ok(Finish::Done)
    }
}

/// Stores what a change has made. What was there, if its memory is much, is freed in steps by itself.
fn swap_in<T: Snapshot>(
    ctx: &mut Ctx<'_>,
    key: KeyRef<'_>,
    after: T,
    is_there: bool,
) -> CommandResult {
    if is_there {
        ctx.edit(key, |value: &mut T| std::mem::replace(value, after))?;
    } else {
        ctx.edit_or_new(key, |value: &mut T| *value = after)?;
    }
    Ok(())
}

/// What is replied for one word.
pub type One<T> = fn(Option<<T as Collection>::View<'_>>, &[u8], &mut Reply<'_>);

/// Replies with an array of an answer for each word from `first` on, of which the collection behind
/// the key, word 1, knows something; of very many words while the reply is sent.
///
/// # Errors
/// The key holds another type.
#[inline]
pub fn answer<T: Snapshot>(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    first: usize,
    one: One<T>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    reply.array(args.len() - first);
    if let Some(words) = &ctx.words
        && args.len() >= long_words_min()
    {
        let words = Arc::clone(words);
        let value: Option<T> = ctx.snapshot(key)?;
        reply.stream(Answers { words, value, at: first, one });
        return Ok(());
    }
    let value = ctx.view::<T>(key)?;
    args.iter_from(first).for_each(|word| one(value, word, reply));
    Ok(())
}

/// Answers that are written while they are sent.
struct Answers<T: Collection> {
    words: Arc<OwnedArgs>,
    value: Option<T>,
    /// The next word.
    at: usize,
    one: One<T>,
}

impl<T: Collection> Debug for Answers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<T: Snapshot> Stream for Answers<T> {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let args = self.words.args();
        let value = self.value.as_ref().map(Collection::view);
        let bytes_max = reply.out().mark().0 + STREAM_CHUNK_BYTES;
        let to = args.len().min(self.at + ANSWERS_PER_FILL);
        while self.at < to && reply.out().mark().0 < bytes_max {
            (self.one)(value, args.at(self.at), reply);
            self.at += 1;
        }
        self.at < args.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    #[test]
    fn journal_of_very_many_words_holds_what_they_leave() {
        let mut bare = Bare::new(2, 1);
        let fields: String = (0..12_000).map(|n| format!(" f{n}")).collect();
        run(&mut bare, "HSET h f1 a f2 b other c");
        let journal = effects(&mut bare, &format!("HDEL h{fields}"));
        assert_eq!(journal.len(), 1, "one effect");
        assert!(journal[0].starts_with("RESTORE h 0 "), "{}", journal[0]);
        assert_eq!(effects(&mut bare, &format!("HDEL h other{fields}")), ["DEL h"]);
        assert_eq!(effects(&mut bare, &format!("HDEL h{fields}")), Vec::<String>::new());
    }
}
