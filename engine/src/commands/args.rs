//! The words of one call: ranges into the bytes of a request, and a cursor that parses options.
//! Knows no command.
//!
//! Nearly all words lie side by side, as they were received. Long ones have memory of their own, and
//! the words of a call that is very long lie in pieces of some tens of kilobytes: memory that grows
//! as a whole would be copied as a whole, again and again. Both are [`Aside`].

use std::sync::Arc;

use crate::resp::error::CommandError;
use crate::resp::number;

/// Where one word lies in the request's bytes or, if those are none, in its pieces; or, if it is apart
/// from them, which of the words apart it is.
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

/// Offsets from the beginning of a piece to that of the next: none is longer.
const PIECE_STRIDE: usize = 128 * 1024;
/// Most pieces: offsets have 32 bits.
const PIECES_MAX: usize = (u32::MAX as usize) / PIECE_STRIDE;

/// What the words of a call lie in that are not in its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Words with memory of their own.
    pub words: Vec<Arc<Vec<u8>>>,
    /// The others, if the call has no bytes.
    pieces: Vec<Vec<u8>>,
}

impl Aside {
    /// Nothing.
    const fn new() -> Self {
        Self { words: Vec::new(), pieces: Vec::new() }
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty() && self.pieces.is_empty()
    }

    /// Puts a copy of a word into the last piece or a new one, or into memory of its own if it is long
    /// or there are as many pieces as can be. Returns where it is.
    ///
    /// # Complexity
    /// O(length of the word): a piece never grows.
    pub fn push(&mut self, word: &[u8]) -> ArgRange {
        let fits = |piece: &Vec<u8>| piece.len() + word.len() <= PIECE_STRIDE;
        if !self.pieces.last().is_some_and(fits) {
            if self.pieces.len() == PIECES_MAX || word.len() > PIECE_STRIDE / 2 {
                self.words.push(Arc::new(word.to_vec()));
                return ArgRange::apart(self.words.len() - 1);
            }
            self.pieces.push(Vec::with_capacity(PIECE_STRIDE));
        }
        let last = self.pieces.len() - 1;
        let start = last * PIECE_STRIDE + self.pieces[last].len();
        self.pieces[last].extend_from_slice(word);
        ArgRange { start: start as u32, end: (start + word.len()) as u32 }
    }

    /// The word at a range that is apart, or in a piece.
    #[cold]
    fn word(&self, range: ArgRange) -> &[u8] {
        if range.is_apart() {
            return &self.words[range.end as usize];
        }
        let (start, len) = (range.start as usize, (range.end - range.start) as usize);
        let (piece, from) = (start / PIECE_STRIDE, start % PIECE_STRIDE);
        invariant!(piece < self.pieces.len(), "a word ends behind its request");
        &self.pieces[piece][from..from + len]
    }

    /// Bytes of all words.
    pub fn bytes(&self) -> usize {
        let apart: usize = self.words.iter().map(|word| word.len()).sum();
        // All pieces but the last are as good as full.
        let last = self.pieces.last().map_or(0, Vec::len);
        apart + self.pieces.len().saturating_sub(1) * PIECE_STRIDE + last
    }

    fn heap_bytes(&self) -> usize {
        let apart: usize = self.words.iter().map(|word| word.capacity()).sum();
        apart + self.pieces.len() * PIECE_STRIDE
    }
}

static NOTHING_ASIDE: Aside = Aside::new();

/// The words of a call. Word 0 is the command's name.
///
/// Indexing past the end panics; arity has been checked before a handler sees the call.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
    aside: &'a Aside,
}

impl<'a> Args<'a> {
    /// Words of `bytes` at `ranges`.
    #[inline]
    pub const fn new(bytes: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { bytes, ranges, aside: &NOTHING_ASIDE }
    }

    /// The same with words that are not in `bytes`; if they are in pieces, `bytes` is empty.
    #[inline]
    #[must_use]
    pub const fn with_aside(self, aside: &'a Aside) -> Self {
        Self { aside, ..self }
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
            None => self.aside.word(range),
        }
    }

    /// Word `index` to be kept without a copy, if it has memory of its own.
    #[inline]
    pub fn shared(&self, index: usize) -> Option<&'a Arc<Vec<u8>>> {
        let range = self.ranges[index];
        range.is_apart().then(|| &self.aside.words[range.end as usize])
    }

    /// Whether a word of it has memory of its own.
    #[inline]
    pub const fn has_apart(&self) -> bool {
        !self.aside.words.is_empty()
    }

    /// Word `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.ranges.len()).then(|| self.at(index))
    }

    /// Words from `from` on.
    pub fn iter_from(
        &self,
        from: usize,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
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
    aside: Aside,
}

impl OwnedArgs {
    /// A call of words that all lie in `aside`.
    pub const fn in_pieces(ranges: Vec<ArgRange>, aside: Aside) -> Self {
        Self { bytes: Vec::new(), ranges, aside }
    }

    /// What [`in_pieces`](Self::in_pieces) was given.
    pub fn into_pieces(self) -> (Vec<ArgRange>, Aside) {
        (self.ranges, self.aside)
    }

    /// A call of these words.
    pub fn of(words: &[&[u8]]) -> Self {
        let mut owned = Self::default();
        owned.extend(words.iter().copied());
        owned
    }

    /// Adds words. Not to a call in pieces.
    pub fn extend<'w>(&mut self, words: impl Iterator<Item = &'w [u8]>) {
        for word in words {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(word);
            self.ranges.push(ArgRange { start, end: self.bytes.len() as u32 });
        }
    }

    /// Adds a word without copying it.
    pub fn push_shared(&mut self, word: &Arc<Vec<u8>>) {
        self.ranges.push(ArgRange::apart(self.aside.words.len()));
        self.aside.words.push(Arc::clone(word));
    }

    /// The words.
    #[inline]
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges).with_aside(&self.aside)
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
        let ranges = self.ranges.capacity() * size_of::<ArgRange>();
        self.bytes.capacity() + ranges + self.aside.heap_bytes()
    }
}
