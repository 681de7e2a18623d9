//! HSCAN: a walk over the fields of a hash, some at a time.
//!
//! The cursor is the hash from which to go on: a field that is there all the time is seen, whatever
//! else comes and goes between the calls. A packed hash is replied as a whole.

use std::sync::Arc;

use crate::commands::args::Args;
use crate::commands::ctx::Ctx;
use crate::commands::generic::{parse_cursor, push_bulk};
use crate::commands::glob::{self, Case};
use crate::commands::long::{Finish, LONG_ELEMENTS_MIN, LongOp};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::types::hash::{Hash, HashView};
use crate::types::pack::Item;
use crate::types::table::HashTable;
use crate::units::SlotId;

/// Fields that a call looks at if it does not say how many.
const COUNT_DEFAULT: usize = 10;

/// Which fields are wanted, and how many to look at.
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

/// Fields that were found, encoded.
#[derive(Debug, Default)]
struct Found {
    elements: Vec<u8>,
    element_count: usize,
}

/// Replies that are longer are shared with the session, not copied.
const SHARED_BYTES_MIN: usize = 32 * 1024;

impl Found {
    fn push(&mut self, field: Item<'_>, value: Item<'_>, pattern: Option<&[u8]>) {
        let field = field.text();
        if pattern.is_none_or(|pattern| glob::matches(pattern, &field, Case::Sensitive)) {
            push_bulk(&mut self.elements, &field);
            push_bulk(&mut self.elements, &value.text());
            self.element_count += 2;
        }
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

/// Redis: options are looked at only if there is a hash.
pub(super) fn hscan(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = parse_cursor(args.at(2))?;
    let key = ctx.key(args.at(1));
    let mut found = Found::default();
    match ctx.view::<Hash>(key)? {
        None => found.reply(0, reply),
        Some(hash @ HashView::Packed(_)) => {
            let pattern = Options::parse(args)?.pattern;
            hash.each(|field, value| found.push(field, value, pattern.as_deref()));
            found.reply(0, reply);
        }
        Some(HashView::Tree(table)) => {
            let Options { pattern, count } = Options::parse(args)?;
            let table = table.clone();
            let work = count.min(table.len());
            let slot = (work >= LONG_ELEMENTS_MIN).then_some(key.slot);
            let scan = Scan { table, pattern, from: Some(cursor), left: count, found, slot };
            return ctx.run_long(Box::new(scan), work, reply);
        }
    }
    Ok(())
}

/// HSCAN of a table.
#[derive(Debug)]
struct Scan {
    table: HashTable,
    pattern: Option<Box<[u8]>>,
    /// None at the end.
    from: Option<u64>,
    left: usize,
    found: Found,
    /// Of the key, if the walk takes so long that the key may be gone before its end.
    slot: Option<SlotId>,
}

/// Fields that one step looks at.
const FIELDS_PER_STEP: usize = 500;

impl LongOp for Scan {
    fn step(&mut self) -> bool {
        let Some(from) = self.from.filter(|_| self.left > 0) else {
            return true;
        };
        let mut seen = 0;
        let count = self.left.min(FIELDS_PER_STEP);
        self.from = self.table.scan(from, count, |field, value| {
            seen += 1;
            if let Some(value) = value {
                self.found.push(field, value, self.pattern.as_deref());
            }
        });
        self.left -= seen.min(self.left);
        self.left == 0 || self.from.is_none()
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let this = *self;
        this.found.reply(this.from.unwrap_or(0), reply);
        if let Some(slot) = this.slot {
            // Nobody else may have the snapshot any more: it is freed in steps.
            ctx.free_later(slot, Hash::Tree(this.table).into_trash());
        }
        Ok(Finish::Done)
    }
}
