//! The words of one call: ranges into the bytes of a request, and a cursor that parses options.
//! Knows no command.

use crate::resp::error::CommandError;
use crate::resp::number;

/// Where one word lies in the request's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArgRange {
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

/// The words of a call. Word 0 is the command's name.
///
/// Indexing past the end panics; arity has been checked before a handler sees the call.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    /// Words of `bytes` at `ranges`.
    #[inline]
    pub const fn new(bytes: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { bytes, ranges }
    }

    /// Number of words, the command's name included.
    #[inline]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no word at all.
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Word `index`.
    ///
    /// # Panics
    /// If there is none: callers check arity first.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        let range = self.ranges[index];
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Word `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.ranges.len()).then(|| self.at(index))
    }

    /// Words from `from` on.
    pub fn iter_from(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let this = *self;
        (from.min(this.len())..this.len()).map(move |i| this.at(i))
    }

    /// Word `index` as an integer, or Redis' error.
    pub fn int(&self, index: usize) -> Result<i64, CommandError> {
        number::parse_i64(self.at(index)).ok_or(CommandError::NOT_INTEGER)
    }

    /// Word `index` as a finite or infinite double, or Redis' error.
    pub fn double(&self, index: usize) -> Result<f64, CommandError> {
        number::parse_f64(self.at(index)).ok_or(CommandError::NOT_FLOAT)
    }

    /// A cursor over the words from `from` on.
    pub fn cursor(&self, from: usize) -> ArgCursor<'a> {
        ArgCursor { args: *self, next: from }
    }

    /// Copies the call: words that outlive the request (MULTI, mail).
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        owned.extend(self.iter_from(0));
        owned
    }
}

/// Walks the optional words of a call.
#[derive(Clone, Debug)]
pub struct ArgCursor<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> ArgCursor<'a> {
    /// The next word as it is.
    #[expect(
        clippy::should_implement_trait,
        reason = "a cursor, not an iterator: it can step back"
    )]
    pub fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.args.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    /// Words that are left.
    pub fn left(&self) -> usize {
        self.args.len().saturating_sub(self.next)
    }

    /// Steps over the next word if it is `token` in any case.
    pub fn take(&mut self, token: &str) -> bool {
        let hit = self.args.get(self.next).is_some_and(|w| is_token(w, token));
        self.next += usize::from(hit);
        hit
    }

    /// Steps over `token` and returns the word after it; `None` if the token or its value is not
    /// there (then nothing is consumed, and the caller ends in a syntax error as Redis does).
    pub fn take_value(&mut self, token: &str) -> Option<&'a [u8]> {
        if self.left() >= 2 && self.args.get(self.next).is_some_and(|w| is_token(w, token)) {
            self.next += 2;
            return self.args.get(self.next - 1);
        }
        None
    }

    /// The next word as an integer; a missing word is a syntax error.
    pub fn int(&mut self) -> Result<i64, CommandError> {
        let word = self.next().ok_or(CommandError::SYNTAX)?;
        number::parse_i64(word).ok_or(CommandError::NOT_INTEGER)
    }

    /// A syntax error if words are left.
    pub fn finish(&self) -> Result<(), CommandError> {
        if self.left() == 0 { Ok(()) } else { Err(CommandError::SYNTAX) }
    }
}

/// Whether `word` is `token` in any case.
#[inline]
pub fn is_token(word: &[u8], token: &str) -> bool {
    word.eq_ignore_ascii_case(token.as_bytes())
}

/// The words of a call that owns its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl OwnedArgs {
    /// A call of these words.
    pub fn of(words: &[&[u8]]) -> Self {
        let mut owned = Self::default();
        owned.extend(words.iter().copied());
        owned
    }

    /// Adds words.
    pub fn extend<'w>(&mut self, words: impl Iterator<Item = &'w [u8]>) {
        for word in words {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(word);
            self.ranges.push(ArgRange { start, end: self.bytes.len() as u32 });
        }
    }

    /// The words.
    #[inline]
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges)
    }

    /// The bytes that its words are ranges of.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where its words are.
    pub fn ranges(&self) -> &[ArgRange] {
        &self.ranges
    }

    /// Memory that the words take.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ranges.capacity() * size_of::<ArgRange>()
    }
}
