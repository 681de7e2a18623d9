//! Elements by their value: where they are, taking them out, and putting one beside another.
//!
//! A search walks a run at a time. Over a long list it works on a snapshot between turns; what it
//! then changes it changes in the list itself, if that is still what the snapshot was.

use crate::commands::args::{Args, is_token};
use crate::commands::ctx::{Ctx, Event};
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp, STREAM_CHUNK_BYTES};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::{Reply, Stream};
use crate::shard::state::KeyRef;
use crate::types::Collection;
use crate::types::list::{End, List, ListView, Needle};

/// How often a change over a long list begins anew because the list has changed meanwhile. Then it
/// is made in one go.
const ATTEMPTS_MAX: u8 = 3;

/// A search for LPOS.
#[derive(Debug)]
struct Search {
    needle: Needle,
    /// Where it begins.
    from: End,
    rank: i64,
    /// How many places are wanted; 0 for all. None: one, and not as an array.
    count: Option<i64>,
    /// How many elements are looked at; 0 for all.
    looked_max: usize,
    looked: usize,
    matches: i64,
    found: Vec<u64>,
}

impl Search {
    fn parse(args: &Args<'_>) -> Result<Self, CommandError> {
        let (mut rank, mut count, mut looked_max) = (1, None, 0);
        let not_negative = |word| parse_i64(word).filter(|&n| n >= 0);
        let mut options = args.cursor(3);
        while options.left() > 0 {
            if let Some(word) = options.take_value("RANK") {
                rank = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
                if rank == 0 {
                    return Err(CommandError::LPOS_RANK);
                }
            } else if let Some(word) = options.take_value("COUNT") {
                count = Some(not_negative(word).ok_or(CommandError::COUNT_NEGATIVE)?);
            } else if let Some(word) = options.take_value("MAXLEN") {
                looked_max = not_negative(word).ok_or(CommandError::MAXLEN_NEGATIVE)? as usize;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        let from = if rank < 0 { End::Back } else { End::Front };
        let needle = Needle::new(args.at(2));
        // Redis: the least integer has no opposite and stays below every number of matches.
        let rank = rank.wrapping_abs();
        let (looked, matches, found) = (0, 0, Vec::new());
        Ok(Self { needle, from, rank, count, looked_max, looked, matches, found })
    }

    /// Looks at what is left of one run. `true` when the search is over.
    fn step(&mut self, list: ListView<'_>) -> bool {
        let len = list.len();
        let end = if self.looked_max == 0 { len } else { len.min(self.looked_max) };
        if self.looked >= end {
            return true;
        }
        match self.from {
            End::Front => self.step_on(list, end),
            End::Back => self.step_back(list, len, end),
        }
    }

    fn step_on(&mut self, list: ListView<'_>, end: usize) -> bool {
        let (run, mut index) = list.run_at(self.looked);
        let first = self.looked - index;
        while let Some(at) = run.find(&self.needle, index) {
            index = at + 1;
            if first + at >= end || self.note(first + at) {
                return true;
            }
        }
        self.looked = first + run.len();
        false
    }

    fn step_back(&mut self, list: ListView<'_>, len: usize, end: usize) -> bool {
        let position = len - 1 - self.looked;
        let (run, index) = list.run_at(position);
        let first = position - index;
        let mut next = Some(index);
        while let Some(at) = next.and_then(|index| run.find_back(&self.needle, index)) {
            next = at.checked_sub(1);
            if len - (first + at) > end || self.note(first + at) {
                return true;
            }
        }
        self.looked = len - first;
        false
    }

    /// Takes notice of a match; `true` if no further one is wanted.
    fn note(&mut self, position: usize) -> bool {
        self.matches += 1;
        if self.matches < self.rank {
            return false;
        }
        self.found.push(position as u64);
        let wanted = self.matches.wrapping_sub(self.rank).wrapping_add(1);
        self.count.is_none_or(|count| count != 0 && wanted >= count)
    }

    fn reply(self, reply: &mut Reply<'_>) {
        if self.count.is_none() {
            match self.found.first() {
                Some(&position) => reply.int(position as i64),
                None => reply.null(),
            }
            return;
        }
        reply.array(self.found.len());
        if self.found.len() >= LONG_ELEMENTS_MIN {
            return reply.stream(Positions { found: self.found, next: 0 });
        }
        self.found.iter().for_each(|&position| reply.int(position as i64));
    }
}

/// Positions that are still to be sent.
#[derive(Debug)]
struct Positions {
    found: Vec<u64>,
    next: usize,
}

impl Stream for Positions {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let end = reply.out().mark().0 + STREAM_CHUNK_BYTES;
        while self.next < self.found.len() && reply.out().mark().0 < end {
            reply.int(self.found[self.next] as i64);
            self.next += 1;
        }
        self.next < self.found.len()
    }
}

/// LPOS of a long list.
#[derive(Debug)]
struct LongSearch {
    list: List,
    search: Search,
}

impl LongOp for LongSearch {
    fn step(&mut self) -> bool {
        self.search.step(self.list.view())
    }

    fn finish(
        self: Box<Self>,
        _: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        self.search.reply(reply);
        Ok(Finish::Done)
    }
}

/// `LPOS key element [RANK rank] [COUNT count] [MAXLEN len]`
pub(super) fn lpos(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut search = Search::parse(args)?;
    let key = ctx.key(args.at(1));
    if let Some(list) = ctx.view::<List>(key)? {
        let len = list.len();
        if len >= LONG_ELEMENTS_MIN {
            let list = list.to_list();
            return ctx.run_long_read(Box::new(LongSearch { list, search }), len, reply);
        }
        while !search.step(list) {}
    }
    search.reply(reply);
    Ok(())
}

/// What is to be done to a list, a run at a time.
#[derive(Clone, Debug)]
enum Change {
    /// LREM.
    Remove {
        needle: Needle,
        from: End,
        /// How many may still go.
        limit: usize,
        /// Elements at the beginning of the search that stay.
        passed: usize,
        removed: usize,
    },
    /// LINSERT.
    Insert { pivot: Needle, element: Vec<u8>, after: bool, passed: usize, inserted: bool },
}

impl Change {
    /// Works on one run. `true` when all is done.
    fn step(&mut self, list: &mut List) -> bool {
        let len = list.len();
        match self {
            Self::Remove { limit: 0, .. } => return true,
            Self::Remove { passed, .. } | Self::Insert { passed, .. } if *passed >= len => {
                return true;
            }
            Self::Remove { needle, from: End::Front, limit, passed, removed } => {
                let (gone, stays) = list.remove_equal(needle, *passed, *limit);
                (*limit, *removed, *passed) = (*limit - gone, *removed + gone, *passed + stays);
            }
            Self::Remove { needle, from: End::Back, limit, passed, removed } => {
                let (gone, first) = list.remove_equal_back(needle, len - 1 - *passed, *limit);
                (*limit, *removed, *passed) = (*limit - gone, *removed + gone, len - gone - first);
            }
            Self::Insert { pivot, element, after, passed, inserted } => {
                let (run, index) = list.view().run_at(*passed);
                let first = *passed - index;
                if let Some(at) = run.find(pivot, index) {
                    list.insert(first + at + usize::from(*after), element);
                    *inserted = true;
                    return true;
                }
                *passed = first + run.len();
            }
        }
        false
    }

    fn has_changed(&self) -> bool {
        match self {
            Self::Remove { removed, .. } => *removed > 0,
            Self::Insert { inserted, .. } => *inserted,
        }
    }

    fn event(&self) -> Event {
        match self {
            Self::Remove { .. } => Event::List("lrem"),
            Self::Insert { .. } => Event::List("linsert"),
        }
    }

    /// The reply, when the list has `len` elements.
    fn reply(&self, len: usize, reply: &mut Reply<'_>) {
        match self {
            Self::Remove { removed, .. } => reply.count(*removed),
            Self::Insert { inserted: true, .. } => reply.count(len),
            Self::Insert { inserted: false, .. } => reply.int(-1),
        }
    }

    /// Begins on the list of a key, or makes the whole change if the list is short.
    fn run(self, ctx: &mut Ctx<'_>, key: KeyRef<'_>, reply: &mut Reply<'_>) -> CommandResult {
        let may_defer = ctx.may_defer;
        match ctx.view_to_write::<List>(key)? {
            Some(list) if may_defer && list.len() >= LONG_ELEMENTS_MIN => {
                let len = list.len();
                let op = LongChange::new(self, key.bytes.into(), list.to_list(), 1);
                ctx.run_long(Box::new(op), len, reply)
            }
            _ => self.run_now(ctx, key, reply),
        }
    }

    fn run_now(
        mut self,
        ctx: &mut Ctx<'_>,
        key: KeyRef<'_>,
        reply: &mut Reply<'_>,
    ) -> CommandResult {
        let len = ctx.edit(key, |list: &mut List| {
            while !self.step(list) {}
            list.len()
        })?;
        let Some(len) = len else {
            reply.int(0);
            return Ok(());
        };
        if self.has_changed() {
            ctx.changed(key, self.event());
        }
        self.reply(len, reply);
        Ok(())
    }
}

/// A change of a long list.
#[derive(Debug)]
struct LongChange {
    /// What is asked for.
    task: Change,
    key: Box<[u8]>,
    /// The list as it was, and as it will be.
    before: List,
    after: List,
    /// The change as far as it has come.
    change: Change,
    attempt: u8,
}

impl LongChange {
    fn new(task: Change, key: Box<[u8]>, list: List, attempt: u8) -> Self {
        Self { change: task.clone(), task, key, before: list.clone(), after: list, attempt }
    }
}

impl LongOp for LongChange {
    fn step(&mut self) -> bool {
        self.change.step(&mut self.after)
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let Self { task, key, before, mut after, change, attempt } = *self;
        let key = KeyRef::new(&key);
        let now = ctx.view_to_write::<List>(key)?;
        if !now.is_some_and(|now| now.is_same(before.view())) {
            return match now {
                Some(now) if attempt < ATTEMPTS_MAX => {
                    let op = Self::new(task, key.bytes.into(), now.to_list(), attempt + 1);
                    Ok(Finish::Again(Box::new(op)))
                }
                _ => task.run_now(ctx, key, reply).map(|()| Finish::Done),
            };
        }
        let len = after.len();
        if change.has_changed() {
            ctx.edit(key, |list: &mut List| std::mem::swap(list, &mut after))?;
            ctx.changed(key, change.event());
        }
        ctx.free_later(key.slot, before.into_trash());
        ctx.free_later(key.slot, after.into_trash());
        change.reply(len, reply);
        Ok(Finish::Done)
    }
}

/// `LREM key count element`
pub(super) fn lrem(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = args.int(2)?;
    let limit = match count {
        // Redis: the least integer has no opposite and limits nothing.
        0 | i64::MIN => usize::MAX,
        _ => count.unsigned_abs() as usize,
    };
    let from = if count < 0 { End::Back } else { End::Front };
    let needle = Needle::new(args.at(3));
    let change = Change::Remove { needle, from, limit, passed: 0, removed: 0 };
    change.run(ctx, ctx.key(args.at(1)), reply)
}

/// `LINSERT key BEFORE|AFTER pivot element`
pub(super) fn linsert(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let place = args.at(2);
    let after = is_token(place, "after");
    if !after && !is_token(place, "before") {
        return Err(CommandError::SYNTAX);
    }
    let (pivot, element) = (Needle::new(args.at(3)), args.at(4).to_vec());
    let change = Change::Insert { pivot, element, after, passed: 0, inserted: false };
    change.run(ctx, ctx.key(args.at(1)), reply)
}
