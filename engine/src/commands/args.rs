//! The words of one call: ranges into the bytes of a request, and a cursor that parses options.
//! Knows no command.

use std::sync::Arc;

use crate::resp::error::CommandError;
use crate::resp::number;

/// Where one word lies in the request's bytes; or, if it is apart from them, which of the words apart
/// it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArgRange {
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

impl ArgRange {
    /// A start beyond every end, so that no slice matches.
    const APART: u32 = u32::MAX;

    /// The word that is apart with this index.
    pub const fn apart(index: usize) -> Self {
        Self { start: Self::APART, end: index as u32 }
    }

    /// Whether the word is apart.
    #[inline]
    pub const fn is_apart(self) -> bool {
        self.start == Self::APART
    }

    /// The same word where the request's bytes begin `by` later.
    #[must_use]
    pub const fn later(self, by: usize) -> Self {
        if self.is_apart() {
            return self;
        }
        Self { start: self.start + by as u32, end: self.end + by as u32 }
    }

    /// The same word where the request's bytes begin `by` earlier.
    #[must_use]
    pub const fn earlier(self, by: usize) -> Self {
        if self.is_apart() {
            return self;
        }
        Self { start: self.start - by as u32, end: self.end - by as u32 }
    }
}

/// The words of a call. Word 0 is the command's name.
///
/// Indexing past the end panics; arity has been checked before a handler sees the call.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
    apart: &'a [Arc<Vec<u8>>],
}

impl<'a> Args<'a> {
    /// Words of `bytes` at `ranges`.
    #[inline]
    pub const fn new(bytes: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { bytes, ranges, apart: &[] }
    }

    /// The same with long words that are apart from `bytes`.
    #[inline]
    #[must_use]
    pub const fn with_apart(self, apart: &'a [Arc<Vec<u8>>]) -> Self {
        Self { apart, ..self }
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
        match self.bytes.get(range.start as usize..range.end as usize) {
            Some(word) => word,
            None => self.word_apart(range),
        }
    }

    #[cold]
    fn word_apart(&self, range: ArgRange) -> &'a [u8] {
        invariant!(range.is_apart(), "a word ends behind its request");
        &self.apart[range.end as usize]
    }

    /// Word `index` to be kept without a copy, if it has memory of its own.
    #[inline]
    pub fn shared(&self, index: usize) -> Option<&'a Arc<Vec<u8>>> {
        let range = self.ranges[index];
        range.is_apart().then(|| &self.apart[range.end as usize])
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

    /// The call that begins with word `from`.
    #[must_use]
    pub fn behind(&self, from: usize) -> Self {
        Self { ranges: &self.ranges[from.min(self.ranges.len())..], ..*self }
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

    /// Copies the call: words that outlive the request (MULTI, mail). Those apart are shared.
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        for index in 0..self.len() {
            match self.shared(index) {
                Some(word) => owned.push_shared(word),
                None => owned.extend(std::iter::once(self.at(index))),
            }
        }
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
    apart: Vec<Arc<Vec<u8>>>,
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

    /// Adds a word without copying it.
    pub fn push_shared(&mut self, word: &Arc<Vec<u8>>) {
        self.ranges.push(ArgRange::apart(self.apart.len()));
        self.apart.push(Arc::clone(word));
    }

    /// The words.
    #[inline]
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges).with_apart(&self.apart)
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
        let apart: usize = self.apart.iter().map(|word| word.capacity()).sum();
        self.bytes.capacity() + self.ranges.capacity() * size_of::<ArgRange>() + apart
    }
}
