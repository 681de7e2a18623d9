//! PFADD of very many elements, in steps: into a copy of the registers, which is stored if the key
//! holds what it held. Shorter calls are in the family's own file.

use std::sync::Arc;

use crate::commands::args::OwnedArgs;
use crate::commands::ctx::{Ctx, Encode, Expiry};
use crate::commands::hyperloglog::{add_at_once, encoding, end_pfadd, make_raw};
use crate::commands::long::{Finish, LongOp, Tries};
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::shard::state::KeyRef;
use crate::types::hll::{self, Mark};

/// Elements that one step adds: each may rewrite up to 3000 bytes of registers.
const ELEMENTS_PER_STEP: usize = 100;
/// Bytes of elements after which a step ends.
const BYTES_PER_STEP: usize = 64 * 1024;

/// Registers to which elements are being added.
#[derive(Debug)]
pub(super) struct Work {
    words: Arc<OwnedArgs>,
    /// What the key held, if it was there.
    before: Option<Vec<u8>>,
    after: Vec<u8>,
    is_raw: bool,
    changed: bool,
    sparse_bytes_max: usize,
    /// The next word.
    at: usize,
    /// What is wrong with the registers.
    error: Option<CommandError>,
    tries: Tries,
}

impl Work {
    /// Work on what the key, word 1, holds now.
    ///
    /// # Errors
    /// That is no HyperLogLog.
    pub(super) fn new(
        ctx: &mut Ctx<'_>,
        words: Arc<OwnedArgs>,
        tries: Tries,
    ) -> Result<Self, CommandError> {
        let sparse_bytes_max = ctx.node.config.hll_sparse_max_bytes();
        let key = KeyRef::new(words.args().at(1));
        let (before, is_raw) = match ctx.write_string(key)? {
            Some(value) => {
                encoding(value)?;
                (Some(value.bytes().to_vec()), value.encoding() == "raw")
            }
            None => (None, true),
        };
        let after = before.clone().unwrap_or_else(hll::empty);
        let changed = before.is_none();
        let (at, error) = (2, None);
        Ok(Self { words, before, after, is_raw, changed, sparse_bytes_max, at, error, tries })
    }

    fn add_some(&mut self) -> Result<(), CommandError> {
        let words = Arc::clone(&self.words);
        let (args, mut bytes) = (words.args(), 0);
        let to = args.len().min(self.at + ELEMENTS_PER_STEP);
        while self.at < to && bytes < BYTES_PER_STEP {
            let element = args.at(self.at);
            let mark = Mark::of(element);
            self.changed |= hll::add(&mut self.after, mark, self.sparse_bytes_max)?;
            bytes += element.len();
            self.at += 1;
        }
        Ok(())
    }
}

impl LongOp for Work {
    fn step(&mut self) -> bool {
        if let Err(error) = self.add_some() {
            self.error = Some(error);
            return true;
        }
        self.at == self.words.args().len()
    }

    fn finish(
        self: Box<Self>,
        ctx: &mut Ctx<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Finish, CommandError> {
        let mut this = *self;
        let words = Arc::clone(&this.words);
        let args = words.args();
        let key = KeyRef::new(args.at(1));
        let is_same = match (&this.before, ctx.write_string(key)?) {
            (Some(before), Some(now)) => **before == *now.bytes(),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            if this.tries.again(ctx, std::iter::once(key.bytes)) {
                let again = Self::new(ctx, words, this.tries)?;
                return Ok(Finish::Again(Box::new(again)));
            }
            add_at_once(ctx, &args, reply)?;
            return Ok(Finish::Done);
        }
        if let Some(error) = this.error {
            return Err(error);
        }
        if this.changed {
            hll::forget_count(&mut this.after);
            ctx.set_string(key, &this.after, Encode::Raw, Expiry::Keep);
        } else {
            make_raw(ctx, key, this.is_raw);
        }
        end_pfadd(ctx, key, this.changed, reply)?;
        Ok(Finish::Done)
    }
}
