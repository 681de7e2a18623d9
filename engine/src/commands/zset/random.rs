//! ZRANDMEMBER: random members, each once or each time anew.

use crate::commands::args::{Args, is_token};
use crate::commands::chance::{Random, Shuffle};
use crate::commands::ctx::Ctx;
use crate::commands::long::{STREAM_CHUNK_BYTES, STREAM_ELEMENTS_MIN};
use crate::commands::spec::CommandResult;
use crate::commands::zset::reply::{Parts, Slice};
use crate::resp::error::CommandError;
use crate::resp::reply::{Reply, Stream};
use crate::types::Collection;
use crate::types::zset::{Zset, ZsetView};

/// How many members, and what of them.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// Below 0: as many, each of them any member.
    count: i64,
    with_scores: bool,
}

impl Wish {
    fn parse(args: &Args<'_>) -> Result<Self, CommandError> {
        let count = args.int(2)?;
        if count == i64::MIN {
            return Err(CommandError::NOT_NEGATABLE_INT64);
        }
        let with_scores = match args.get(3) {
            None => false,
            Some(word) if args.len() == 4 && is_token(word, "WITHSCORES") => true,
            Some(_) => return Err(CommandError::SYNTAX),
        };
        // Redis: a reply of twice as many elements must have a length, even if it is never sent.
        if with_scores && count.unsigned_abs() > (i64::MAX / 2).unsigned_abs() {
            return Err(CommandError::OUT_OF_RANGE);
        }
        Ok(Self { count, with_scores })
    }
}

pub(super) fn zrandmember(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let wish = if args.len() > 2 { Some(Wish::parse(args)?) } else { None };
    let key = ctx.key(args.at(1));
    let mut random = Random::new(ctx.random(key.slot));
    let zset = ctx.view::<Zset>(key)?;
    match (zset, wish) {
        (zset, None) => match zset.and_then(|zset| zset.at(random.below(zset.len()))) {
            Some((member, _)) => member.reply(reply),
            None => reply.null(),
        },
        (None, Some(_)) | (_, Some(Wish { count: 0, .. })) => reply.array(0),
        (Some(zset), Some(wish)) => some(zset, wish, random, reply),
    }
    Ok(())
}

fn some(zset: ZsetView<'_>, wish: Wish, mut random: Random, reply: &mut Reply<'_>) {
    let len = zset.len();
    let parts = Parts::new(wish.with_scores, reply.protocol());
    let wanted = usize::try_from(wish.count.unsigned_abs()).unwrap_or(usize::MAX);
    let wanted = if wish.count < 0 { wanted } else { wanted.min(len) };
    parts.header(wanted, reply);
    if wish.count > 0 && wanted == len {
        return Slice { from: 0, to: len, is_reverse: false }.write(zset, parts, reply);
    }
    let order = (wish.count > 0).then(|| Shuffle::new(len, &mut random));
    let mut picks = Picks { order, random, parts, len, next: 0, wanted };
    // Members may be long: what is too much for one go is sent piece by piece.
    if wanted >= STREAM_ELEMENTS_MIN || picks.fill(zset, reply) {
        reply.stream(Stored { zset: zset.to_zset(), picks });
    }
}

/// Random ranks, as far as they have come.
#[derive(Debug)]
struct Picks {
    /// The order in which ranks come; each by itself if there is none.
    order: Option<Shuffle>,
    random: Random,
    parts: Parts,
    len: usize,
    next: usize,
    wanted: usize,
}

/// Members that are looked up at a time at most, however short they are.
const PICKS_PER_FILL: usize = 1000;

impl Picks {
    /// Writes some more. `false` when there are no more.
    fn fill(&mut self, zset: ZsetView<'_>, reply: &mut Reply<'_>) -> bool {
        let end = reply.out().bytes().len() + STREAM_CHUNK_BYTES;
        let stop = self.wanted.min(self.next.saturating_add(PICKS_PER_FILL));
        while self.next < stop && reply.out().bytes().len() < end {
            let rank = match &self.order {
                Some(order) => order.at(self.next),
                None => self.random.below(self.len),
            };
            if let Some((member, score)) = zset.at(rank) {
                self.parts.write(member, score, reply);
            }
            self.next += 1;
        }
        self.next < self.wanted
    }
}

/// Random members of a snapshot.
#[derive(Debug)]
struct Stored {
    zset: Zset,
    picks: Picks,
}

impl Stream for Stored {
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool {
        self.picks.fill(self.zset.view(), reply)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::commands::bare::Bare;

    #[test]
    fn zrandmember_gives_each_member_once_or_any_number_of_times() {
        for count in [10, 300] {
            let mut bare = Bare::new(2, 1);
            let mut client = bare.client();
            for n in 0..count {
                let n = n.to_string();
                bare.call(&mut client, &[b"ZADD", b"k", n.as_bytes(), n.as_bytes()]);
            }
            let reply = bare.call(&mut client, &[b"ZRANDMEMBER", b"k", b"7"]);
            let members: HashSet<_> = reply.split(|&b| b == b'\n').skip(2).step_by(2).collect();
            assert_eq!((members.len(), &reply[..4]), (7, &b"*7\r\n"[..]));
            let reply = bare.call(&mut client, &[b"ZRANDMEMBER", b"k", b"-5000", b"WITHSCORES"]);
            assert!(reply.starts_with(b"*10000\r\n"));
            assert_eq!(reply.iter().filter(|&&b| b == b'$').count(), 10_000);
        }
    }
}
