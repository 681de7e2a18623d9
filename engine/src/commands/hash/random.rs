//! HRANDFIELD: random fields, each once or each time anew.

use crate::commands::args::{Args, is_token};
use crate::commands::chance::{Random, Shuffle};
use crate::commands::ctx::Ctx;
use crate::commands::hash::read::{self, Parts, value_or_null};
use crate::commands::long::{STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::{Protocol, Reply, Stream};
use crate::types::Collection;
use crate::types::hash::{Hash, HashView};

/// How many fields, and what of them.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// Below 0: as many, each of them any field.
    count: i64,
    with_values: bool,
}

impl Wish {
    fn parse(args: &Args<'_>) -> Result<Self, CommandError> {
        let count = args.int(2)?;
        if count == i64::MIN {
            return Err(CommandError::NOT_NEGATABLE_INT64);
        }
        let with_values = match args.get(3) {
            None => false,
            Some(word) if args.len() == 4 && is_token(word, "WITHVALUES") => true,
            Some(_) => return Err(CommandError::SYNTAX),
        };
        // Redis: a reply of twice as many elements must have a length, even if it is never sent.
        if with_values && count.unsigned_abs() > (i64::MAX / 2).unsigned_abs() {
            return Err(CommandError::OUT_OF_RANGE);
        }
        Ok(Self { count, with_values })
    }

    fn parts(self, protocol: Protocol) -> Parts {
        match (self.with_values, protocol) {
            (false, _) => Parts::Fields,
            (true, Protocol::Resp2) => Parts::Both,
            (true, Protocol::Resp3) => Parts::Pairs,
        }
    }

    /// Announces `len` fields.
    fn header(self, len: usize, reply: &mut Reply<'_>) {
        let is_flat = self.parts(reply.protocol()) == Parts::Both;
        reply.array(if is_flat { len * 2 } else { len });
    }
}

pub(super) fn hrandfield(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let wish = if args.len() > 2 { Some(Wish::parse(args)?) } else { None };
    let key = ctx.key(args.at(1));
    let mut random = Random::new(ctx.random(key.slot));
    let hash = ctx.view::<Hash>(key)?;
    match (hash, wish) {
        (hash, None) => {
            let field = hash.and_then(|hash| hash.at(random.below(hash.len())));
            value_or_null(field.map(|(field, _)| field), reply);
        }
        (None, Some(_)) | (_, Some(Wish { count: 0, .. })) => reply.array(0),
        (Some(hash), Some(wish)) => some(hash, wish, random, reply),
    }
    Ok(())
}

fn some(hash: HashView<'_>, wish: Wish, mut random: Random, reply: &mut Reply<'_>) {
    let len = hash.len();
    let parts = wish.parts(reply.protocol());
    let wanted = usize::try_from(wish.count.unsigned_abs()).unwrap_or(usize::MAX);
    let wanted = if wish.count < 0 { wanted } else { wanted.min(len) };
    wish.header(wanted, reply);
    if wish.count < 0 {
        return Pick::new(hash, None, parts, random, wanted).start(reply);
    }
    if wanted == len {
        return read::all(hash, parts, reply);
    }
    if let HashView::Tree(_) = hash {
        let order = Some(Shuffle::new(len, &mut random));
        return Pick::new(hash, order, parts, random, wanted).start(reply);
    }
    // In the order of the fields, as Redis: each with the chance that the rest still needs it.
    let (mut wanted, mut left) = (wanted, len);
    hash.each(|field, value| {
        if random.below(left) < wanted {
            parts.write(field, value, reply);
            wanted -= 1;
        }
        left -= 1;
    });
}

/// Random fields of a snapshot.
#[derive(Debug)]
struct Pick {
    hash: Hash,
    len: usize,
    /// The order in which positions come; each by itself if there is none.
    order: Option<Shuffle>,
    random: Random,
    parts: Parts,
    next: usize,
    wanted: usize,
    /// The mark of each field of a packed hash.
    marks: Vec<usize>,
}

/// Fields that are looked up at a time at most, however short they are.
const PICKS_PER_FILL: usize = 1000;

impl Pick {
    fn new(
        hash: HashView<'_>,
        order: Option<Shuffle>,
        parts: Parts,
        random: Random,
        wanted: usize,
    ) -> Self {
        let (marks, len) = (hash.packed_marks(), hash.len());
        Self { hash: hash.to_hash(), len, order, random, parts, next: 0, wanted, marks }
    }

    /// Writes all fields, or the first of many; the rest while the reply is sent.
    fn start(mut self, reply: &mut Reply<'_>) {
        if self.wanted >= STREAM_ELEMENTS_MIN {
            return reply.stream(self);
        }
        if self.fill(reply) {
            reply.stream(self);
        }
    }
}

impl Stream for Pick {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        let hash = self.hash.view();
        let end = reply.out().bytes().len() + STREAM_CHUNK_BYTES;
        let stop = self.wanted.min(self.next.saturating_add(PICKS_PER_FILL));
        while self.next < stop && reply.out().bytes().len() < end {
            let position = match &self.order {
                Some(order) => order.at(self.next),
                None => self.random.below(self.len),
            };
            let mark = self.marks.get(position).copied().unwrap_or(position);
            if let Some((field, value)) = hash.at_mark(mark) {
                self.parts.write(field, value, reply);
            }
            self.next += 1;
        }
        self.next < self.wanted
    }
}
