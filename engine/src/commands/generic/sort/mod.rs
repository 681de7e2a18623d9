//! SORT: the elements of a list, a set or a sorted set in order, or what other keys hold for them.
//!
//! One machine for short and long collections: it reads a snapshot, weighs the elements, sorts them
//! and gathers the results, a portion at a time. Without patterns it needs no key while it works.
//! Keys that patterns name are read in portions, each under the doors: of a short collection all at
//! one time, of a long one as they come. So SORT with BY or GET over
//! [`LONG_ELEMENTS_MIN`] elements or more may see some of these keys before and others after a change
//! that somebody makes meanwhile; in a transaction it sees all at one time, in one turn.

mod order;
mod pattern;
mod source;
mod spec;
#[cfg(test)]
mod tests;

pub(super) use spec::{SORT, SORT_RO};

use crate::commands::args::Args;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::generic::sort::order::{
    MergeSort, Order, Row, Span, Text, Weight, score_of, sort_part,
};
use crate::commands::generic::sort::pattern::Pattern;
use crate::commands::generic::sort::source::Source;
use crate::commands::long::{
    Finish, LONG_ELEMENTS_MIN, LongOp, STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN,
};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::{Reply, Stream};
use crate::shard::state::KeyRef;
use crate::types::Collection;
use crate::types::list::{End, List};

/// Elements weighed, gathered or stored at a time.
const PORTION: usize = 500;

/// What the words of a call say.
#[derive(Debug)]
struct Options {
    by: Option<Pattern>,
    descending: bool,
    alpha: bool,
    limit: (i64, i64),
    gets: Vec<Pattern>,
    store: Option<Box<[u8]>>,
}

impl Options {
    fn parse(args: &Args<'_>, may_store: bool) -> Result<Self, CommandError> {
        let mut options = Self {
            by: None,
            descending: false,
            alpha: false,
            limit: (0, -1),
            gets: Vec::new(),
            store: None,
        };
        let mut words = args.cursor(2);
        while words.left() > 0 {
            if words.take("asc") {
                options.descending = false;
            } else if words.take("desc") {
                options.descending = true;
            } else if words.take("alpha") {
                options.alpha = true;
            } else if words.left() >= 3 && words.take("limit") {
                options.limit = (words.int()?, words.int()?);
            } else if may_store && let Some(key) = words.take_value("store") {
                options.store = Some(key.into());
            } else if let Some(pattern) = words.take_value("by") {
                options.set_by(pattern);
            } else if let Some(pattern) = words.take_value("get") {
                options.gets.push(Pattern::new(pattern));
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    fn set_by(&mut self, word: &[u8]) {
        let pattern = Pattern::new(word);
        let is_key = matches!(pattern, Pattern::Key { .. });
        // Redis: a pattern without `*` anywhere in the call turns sorting off.
        self.by = match self.by {
            Some(Pattern::Nothing) => Some(Pattern::Nothing),
            _ if is_key => Some(pattern),
            _ => Some(Pattern::Nothing),
        };
    }

    /// The elements wanted of `len`: the first, and one beyond the last.
    fn range(&self, len: usize) -> (usize, usize) {
        let len = len as i64;
        let start = self.limit.0.clamp(0, len);
        let count = self.limit.1.clamp(-1, len);
        let end = if count < 0 { len } else { (start + count).min(len) };
        if start >= len { (0, 0) } else { (start as usize, end as usize) }
    }
}

/// How far a sort has come.
#[derive(Debug)]
enum Stage {
    /// Elements are read from this position on.
    Load(usize),
    /// Elements from this one on have no weight yet.
    Weigh(usize),
    Sort(MergeSort),
    /// Results from this element on are missing.
    Gather(usize),
    /// Results from this one on are not in the list yet.
    Fill(usize),
    End,
}

/// A sort.
#[derive(Debug)]
struct Sort {
    options: Options,
    /// None: elements stay in their own order.
    order: Option<Order>,
    source: Source,
    /// Positions of the source that are read.
    loaded: (usize, usize),
    /// Rows that are wanted once they are in order.
    wanted: (usize, usize),
    text: Text,
    rows: Vec<Row>,
    /// A score was no number.
    bad_score: bool,
    results: Vec<Option<Span>>,
    stored: List,
    stage: Stage,
}

impl Sort {
    fn new(mut options: Options, source: Source) -> Self {
        let mut is_sorted = options.by != Some(Pattern::Nothing);
        if !is_sorted && options.store.is_some() && source.is_set() {
            // Redis: what is stored depends on no order that a set happens to have.
            (is_sorted, options.alpha, options.by) = (true, true, None);
        }
        let len = source.len();
        let (first, end) = options.range(len);
        let (mut loaded, mut wanted) = ((0, len), (first, end));
        if !is_sorted && !source.is_set() {
            loaded = if options.descending { (len - end, len - first) } else { (first, end) };
            wanted = (0, end - first);
        }
        let result_count = (end - first) * options.gets.len().max(1);
        let exact = options.store.is_some();
        let order = is_sorted.then_some(Order { descending: options.descending, exact });
        Self {
            options,
            order,
            source,
            loaded,
            wanted,
            text: Text::default(),
            // Of the size that it will have: to grow, all of it would be copied in one go.
            rows: Vec::with_capacity(loaded.1 - loaded.0),
            bad_score: false,
            results: Vec::with_capacity(result_count),
            stored: List::new(),
            stage: Stage::Load(loaded.0),
        }
    }

    fn load(&mut self, from: usize) {
        let Self { text, rows, options, bad_score, .. } = self;
        let weighs = self.order.is_some() && options.by.is_none() && !options.alpha;
        let next = self.source.read(from, self.loaded.1, |bytes| {
            let mut weight = Weight::Own;
            if weighs {
                weight = score_weight(bytes, bad_score);
            }
            rows.push(Row { element: text.push(bytes), weight });
        });
        self.stage = Stage::Load(next);
        if next < self.loaded.1 {
            return;
        }
        if self.order.is_none() && self.options.descending && !self.source.is_set() {
            self.rows.reverse();
        }
        self.stage = match (self.order, &self.options.by) {
            (None, _) => Stage::Gather(self.wanted.0),
            (Some(_), None) => Stage::Sort(MergeSort::default()),
            (Some(_), Some(_)) => Stage::Weigh(0),
        };
    }

    /// Reads the weights of some elements.
    fn weigh(&mut self, ctx: &mut Ctx<'_>, from: usize) {
        let Self { text, rows, options, bad_score, .. } = self;
        let by = options.by.as_ref().expect("without BY elements weigh themselves");
        let end = rows.len().min(from + PORTION);
        for row in &mut rows[from..end] {
            let element = text.get(row.element).to_vec();
            row.weight = by.read(ctx, &element, |value| match (value, options.alpha) {
                (Some(value), true) => Weight::Text(text.push(value)),
                (None, true) => Weight::Missing,
                (Some(value), false) => score_weight(value, bad_score),
                (None, false) => Weight::Score(0.0),
            });
        }
        self.stage =
            if end < rows.len() { Stage::Weigh(end) } else { Stage::Sort(MergeSort::default()) };
    }

    fn sort(&mut self, mut merge: MergeSort) {
        let Self { text, rows, wanted, .. } = self;
        let order = self.order.expect("only what has an order is sorted");
        let (first, end) = *wanted;
        // Redis sorts a part in another way, which shows where weights are equal.
        let is_part = self.options.by.is_some() && (first, end) != (0, rows.len());
        if is_part && rows.len() < LONG_ELEMENTS_MIN {
            if first < end {
                sort_part(rows, first, end - 1, &|a, b| order.compare(text, a, b));
            }
        } else if !merge.step(rows, text, order) {
            self.stage = Stage::Sort(merge);
            return;
        }
        self.stage = Stage::Gather(first);
    }

    /// Whether results are read from other keys.
    fn reads_keys(&self) -> bool {
        self.options.gets.iter().any(|get| matches!(get, Pattern::Key { .. }))
    }

    /// Finds the results of some elements.
    fn gather(&mut self, mut ctx: Option<&mut Ctx<'_>>, from: usize) {
        let Self { text, rows, options, results, .. } = self;
        let end = self.wanted.1.min(from + PORTION);
        for row in &rows[from..end] {
            if options.gets.is_empty() {
                results.push(Some(row.element));
            }
            for get in &options.gets {
                let result = match (get, ctx.as_deref_mut()) {
                    (Pattern::Element, _) => Some(row.element),
                    (Pattern::Key { .. }, Some(ctx)) => {
                        let element = text.get(row.element).to_vec();
                        get.read(ctx, &element, |value| value.map(|value| text.push(value)))
                    }
                    _ => None,
                };
                results.push(result);
            }
        }
        self.stage = match &options.store {
            _ if end < self.wanted.1 => Stage::Gather(end),
            Some(_) => Stage::Fill(0),
            None => Stage::End,
        };
    }

    /// Puts some results into the list that will be stored.
    fn fill(&mut self, from: usize) {
        let end = self.results.len().min(from + PORTION);
        let results = self.results[from..end].iter();
        let texts = results.map(|result| result.map_or(&b""[..], |span| self.text.get(span)));
        self.stored.extend(End::Back, texts);
        self.stage = if end < self.results.len() { Stage::Fill(end) } else { Stage::End };
    }

    fn end(self, ctx: &mut Ctx<'_>, reply: &mut Reply<'_>) {
        let Self { options, text, results, stored, .. } = self;
        let Some(destination) = options.store else {
            reply.array(results.len());
            let mut results = Results { text, results, next: 0 };
            if results.results.len() >= STREAM_ELEMENTS_MIN
                || results.byte_len() >= 4 * STREAM_CHUNK_BYTES
            {
                return reply.stream(results);
            }
            while results.fill(reply) {}
            return;
        };
        let key = KeyRef::new(&destination);
        let db = ctx.db;
        reply.count(results.len());
        if !stored.is_empty() {
            ctx.put(key, stored);
            ctx.modified(key, Event::List("sortstore"));
            ctx.effect_state(db, key);
        } else if ctx.delete(key) {
            ctx.modified(key, Event::Generic("del"));
            ctx.effect_state(db, key);
        }
    }
}

fn score_weight(text: &[u8], bad_score: &mut bool) -> Weight {
    let score = score_of(text);
    *bad_score |= score.is_none();
    Weight::Score(score.unwrap_or(0.0))
}

impl LongOp for Sort {
    fn step(&mut self) -> bool {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Load(from) => self.load(from),
            Stage::Sort(merge) => self.sort(merge),
            Stage::Gather(from) if !self.reads_keys() => self.gather(None, from),
            Stage::Fill(from) => self.fill(from),
            waits @ (Stage::Weigh(_) | Stage::Gather(_) | Stage::End) => {
                self.stage = waits;
                return true;
            }
        }
        false
    }

    fn finish(
        mut self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        match self.stage {
            Stage::Weigh(from) => self.weigh(ctx, from),
            _ if self.bad_score => return Err(CommandError::SORT_SCORE),
            Stage::Gather(from) => self.gather(Some(ctx), from),
            _ => {
                self.end(ctx, reply);
                return Ok(Finish::Done);
            }
        }
        Ok(Finish::Again(self))
    }
}

/// Results that are still to be sent.
#[derive(Debug)]
struct Results {
    text: Text,
    results: Vec<Option<Span>>,
    next: usize,
}

impl Results {
    fn byte_len(&self) -> usize {
        self.results.iter().flatten().map(|&span| self.text.get(span).len()).sum()
    }
}

impl Stream for Results {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let end = reply.out().mark().0 + STREAM_CHUNK_BYTES;
        while self.next < self.results.len() && reply.out().mark().0 < end {
            match self.results[self.next] {
                Some(span) => reply.bulk(self.text.get(span)),
                None => reply.null(),
            }
            self.next += 1;
        }
        self.next < self.results.len()
    }
}

fn run(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    may_store: bool,
) -> CommandResult {
    let options = Options::parse(args, may_store)?;
    let source = Source::of(ctx, ctx.key(args.at(1)))?;
    let len = source.len();
    ctx.run_long(Box::new(Sort::new(options, source)), len, reply)
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA] [STORE key]`
fn sort(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, args, reply, true)
}

/// `SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA]`
fn sort_ro(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(ctx, args, reply, false)
}
