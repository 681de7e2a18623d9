//! ZSCAN: a walk over the members of a sorted set, some at a time.
//!
//! The cursor is the hash of a member from which to go on: a member that is there all the time is
//! seen, whatever becomes of its score between the calls. Where the hash of a member is known, its
//! score is, and members with that score are looked through. So where many share one score, a call
//! takes more members at a time, and several turns. A packed set is replied as a whole.

use std::sync::Arc;

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::generic::{parse_cursor, push_bulk};
use crate::commands::glob::{self, Case};
use crate::commands::long::{Finish, LongOp};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::{format_g17, parse_i64};
use crate::resp::reply::Reply;
use crate::types::pack::Item;
use crate::types::zset::{Zset, ZsetTree, ZsetView, hash_of};
use crate::units::SlotId;

/// Members that a call looks at if it does not say how many.
const COUNT_DEFAULT: usize = 10;

/// Which members are wanted, and how many to look at.
#[derive(Debug)]
struct Options {
    /// None for all.
    pattern: Option<Box<[u8]>>,
    count: usize,
}

impl Options {
    fn parse(args: &Args<'_>) -> Result<Self, CommandError> {
        let mut options = Self { pattern: None, count: COUNT_DEFAULT };
        let mut words = args.cursor(3);
        while words.left() > 0 {
            if let Some(word) = words.take_value("COUNT") {
                let count = parse_i64(word).ok_or(CommandError::NOT_INTEGER)?;
                options.count = usize::try_from(count).unwrap_or(0);
                if options.count == 0 {
                    return Err(CommandError::SYNTAX);
                }
            } else if let Some(pattern) = words.take_value("MATCH") {
                options.pattern = (pattern != b"*").then(|| pattern.into());
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

/// Members that were found, encoded.
#[derive(Debug, Default)]
struct Found {
    elements: Vec<u8>,
    element_count: usize,
}

/// Replies that are longer are shared with the session, not copied.
const SHARED_BYTES_MIN: usize = 32 * 1024;

/// Redis: integers in packed sets are printed in full up to this size, half of what 64 bits hold.
const PACKED_INT_MAX: f64 = (1u64 << 62) as f64;

impl Found {
    fn push(&mut self, member: Item<'_>, score: f64, is_packed: bool, pattern: Option<&[u8]>) {
        let member = member.text();
        if pattern.is_some_and(|pattern| !glob::matches(pattern, &member, Case::Sensitive)) {
            return;
        }
        push_bulk(&mut self.elements, &member);
        if is_packed && score.abs() <= PACKED_INT_MAX && score.trunc() == score {
            push_bulk(&mut self.elements, itoa::Buffer::new().format(score as i64).as_bytes());
        } else {
            push_bulk(&mut self.elements, format_g17(score).as_bytes());
        }
        self.element_count += 2;
    }

    fn reply(self, cursor: u64, reply: &mut Reply<'_>) {
        reply.array(2);
        reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
        reply.array(self.element_count);
        if self.elements.len() < SHARED_BYTES_MIN {
            reply.raw(&self.elements);
        } else {
            reply.out().extend_shared(&Arc::new(self.elements));
        }
    }
}

/// Redis: options are looked at only if there is a sorted set.
pub(super) fn zscan(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = parse_cursor(args.at(2))?;
    let key = ctx.key(args.at(1));
    let mut found = Found::default();
    match ctx.view::<Zset>(key)? {
        None => found.reply(0, reply),
        Some(zset @ ZsetView::Packed(_)) => {
            let pattern = Options::parse(args)?.pattern;
            for (member, score) in zset.range(0, usize::MAX) {
                found.push(member, score, true, pattern.as_deref());
            }
            found.reply(0, reply);
        }
        Some(ZsetView::Tree(tree)) => {
            let Options { pattern, count } = Options::parse(args)?;
            let Ok(from) = u32::try_from(cursor) else {
                found.reply(0, reply);
                return Ok(());
            };
            let mut scan = Scan {
                tree: tree.clone(),
                pattern,
                left: count,
                page: Page { runs: Vec::new(), from, to: Some(from) },
                found,
                slot: key.slot,
            };
            scan.turn_page();
            let work = count.min(scan.tree.len()).max(scan.page.len());
            return ctx.run_long_read(Box::new(scan), work, reply);
        }
    }
    Ok(())
}

/// ZSCAN of a big set.
#[derive(Debug)]
struct Scan {
    tree: ZsetTree,
    pattern: Option<Box<[u8]>>,
    /// Members still to be looked at.
    left: usize,
    page: Page,
    found: Found,
    /// Of the key.
    slot: SlotId,
}

/// Members whose hashes are within a range.
#[derive(Debug)]
struct Page {
    /// The ranks among which they are, apart from each other; the next last.
    runs: Vec<(usize, usize)>,
    /// The least hash.
    from: u32,
    /// The hash behind the last; none if there are no more.
    to: Option<u32>,
}

impl Page {
    fn new(tree: &ZsetTree, from: u32, count: usize) -> (Self, usize) {
        let (mut scores, to) = tree.scores_from(from, count);
        let found = scores.len();
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        scores.dedup();
        let run = |&score: &f64| {
            let from = tree.partition_point(|s, _| s < score);
            (from, tree.partition_point(|s, _| s <= score))
        };
        (Self { runs: scores.iter().map(run).collect(), from, to }, found)
    }

    /// How many members have to be looked through.
    fn len(&self) -> usize {
        self.runs.iter().map(|(from, to)| to - from).sum()
    }

    fn holds(&self, hash: u32) -> bool {
        hash >= self.from && self.to.is_none_or(|to| hash < to)
    }
}

/// Members of a page at least.
const PAGE_MEMBERS_MIN: usize = 10;
/// Members of a page if few must be looked through for each.
const PAGE_MEMBERS: usize = 200;
/// Members of a page at most.
const PAGE_MEMBERS_MAX: usize = 20_000;
/// How many members are looked through for each one that is found.
const EFFORT_PER_MEMBER: usize = 64;
/// Members that one step looks through.
const MEMBERS_PER_STEP: usize = 2_000;

impl Scan {
    /// Goes on to the next hashes.
    fn turn_page(&mut self) {
        let Some(from) = self.page.to else {
            return;
        };
        let count = self.left.clamp(1, PAGE_MEMBERS);
        let (mut page, mut found) = Page::new(&self.tree, from, count);
        let worth = page.len() / EFFORT_PER_MEMBER;
        if worth > found.max(PAGE_MEMBERS_MIN) {
            (page, found) = Page::new(&self.tree, from, worth.min(PAGE_MEMBERS_MAX));
        }
        self.left = self.left.saturating_sub(found);
        self.page = page;
    }
}

impl LongOp for Scan {
    fn step(&mut self) -> bool {
        let mut room = MEMBERS_PER_STEP;
        while room > 0 {
            let Some((from, to)) = self.page.runs.pop() else {
                if self.left == 0 || self.page.to.is_none() {
                    return true;
                }
                self.turn_page();
                return false;
            };
            let end = to.min(from + room);
            for (member, score) in ZsetView::Tree(&self.tree).range(from, end) {
                if self.page.holds(hash_of(&member.text())) {
                    self.found.push(member, score, false, self.pattern.as_deref());
                }
            }
            if end < to {
                self.page.runs.push((end, to));
            }
            room -= end - from;
        }
        false
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let this = *self;
        this.found.reply(this.page.to.map_or(0, u64::from), reply);
        // Nobody else may have the snapshot any more: it is freed in steps.
        ctx.free_later(this.slot, this.tree.into_trash());
        Ok(Finish::Done)
    }
}
