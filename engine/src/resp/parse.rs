//! From bytes to the words of calls, without copying: words are ranges into the bytes given.
//!
//! A call that is not complete leaves its progress in the [`Parser`], so that a command that arrives
//! in a thousand pieces is still read once. Limits are checked before anything is reserved. Knows no
//! command and no socket.

use crate::commands::args::{ArgRange, Aside, OwnedArgs};
use crate::resp::error::CommandError;

/// Most words of a call.
pub const WORDS_MAX: i64 = 1024 * 1024;
/// Longest inline call, and longest length line.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// What ends a line, and a word.
const LINE_END_BYTES: usize = 2;
/// Most words, and longest word, before a client has authenticated.
const UNAUTHENTICATED_WORDS_MAX: i64 = 10;
const UNAUTHENTICATED_WORD_BYTES_MAX: i64 = 16 * 1024;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest word.
    pub word_bytes_max: usize,
    /// Whether the client has authenticated, or need not.
    pub authenticated: bool,
}

/// What lies at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A call: its words have been appended to the ranges (but see [`Parser::take_moved`]); the next
    /// begins at this offset.
    Call(usize),
    /// An inline call with quotes, unescaped; the next begins at this offset.
    Inline(OwnedArgs, usize),
    /// Nothing to run (an empty line, an empty array); the next begins at this offset.
    Nothing(usize),
    /// Part of a call: come back with the same bytes from the same offset, and more behind them.
    Incomplete,
    /// The client does not speak the protocol: send this and close.
    Error(CommandError),
}

/// Progress of a call that is not complete. Offsets are relative to the call's first byte.
#[derive(Debug, Default)]
pub struct Parser {
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    ranges: Vec<ArgRange>,
    /// Words that are still to come.
    words_left: usize,
    /// Where the next word's length line, or its bytes, begin.
    at: usize,
    /// Length of the word whose bytes begin at `at`, if its line has been read.
    word_bytes: Option<usize>,
    /// Words that have been moved into pieces.
    moved: usize,
}

enum Line {
    Number(i64, usize),
    Invalid,
    Incomplete,
}

impl Parser {
    /// Bytes that must be there, from the call's first one, before parsing can go on: a hint for how
    /// much to reserve.
    pub fn needed_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |p| p.at + p.word_bytes.map_or(0, |n| n + 2))
    }

    /// Parses the call at `start`. Its words are appended to `ranges`, as offsets into `bytes`.
    #[inline]
    pub fn next(
        &mut self,
        bytes: &[u8],
        start: usize,
        limits: Limits,
        ranges: &mut Vec<ArgRange>,
    ) -> Parsed {
        if let Some(partial) = self.partial.take() {
            return self.go_on(partial, bytes, start, limits, ranges);
        }
        let Some(&first) = bytes.get(start) else {
            return Parsed::Incomplete;
        };
        if first != b'*' {
            return inline(bytes, start, ranges);
        }
        let (words_left, at) = match line(bytes, start + 1) {
            Line::Incomplete if bytes.len() - start > INLINE_BYTES_MAX => {
                return Parsed::Error(CommandError::TOO_BIG_COUNT);
            }
            Line::Incomplete => return Parsed::Incomplete,
            Line::Invalid => return Parsed::Error(CommandError::INVALID_WORD_COUNT),
            Line::Number(n, _) if n > WORDS_MAX => {
                return Parsed::Error(CommandError::INVALID_WORD_COUNT);
            }
            Line::Number(n, _) if n > UNAUTHENTICATED_WORDS_MAX && !limits.authenticated => {
                return Parsed::Error(CommandError::UNAUTHENTICATED_WORD_COUNT);
            }
            Line::Number(n, next) if n <= 0 => return Parsed::Nothing(next),
            Line::Number(n, next) => (n as usize, next),
        };
        let base = ranges.len();
        self.words(bytes, start, limits, ranges, base, words_left, at, None)
    }

    /// Goes on with a call of which a part has come before. The words found then are not touched
    /// before all are there: a call of a million words comes in hundreds of parts.
    #[inline(never)]
    fn go_on(
        &mut self,
        mut partial: Box<Partial>,
        bytes: &[u8],
        start: usize,
        limits: Limits,
        ranges: &mut Vec<ArgRange>,
    ) -> Parsed {
        if bytes.len() - start < partial.at {
            // The line end of a word apart is still to come.
            self.partial = Some(partial);
            return Parsed::Incomplete;
        }
        let base = ranges.len();
        let (words_left, at) = (partial.words_left, start + partial.at);
        let word_bytes = partial.word_bytes;
        let parsed = self.words(bytes, start, limits, ranges, base, words_left, at, word_bytes);
        match (&parsed, &mut self.partial) {
            (&Parsed::Call(end), _) if partial.moved > 0 => {
                partial.ranges.extend(ranges.drain(base..));
                self.partial = Some(partial);
                return Parsed::Call(end);
            }
            (Parsed::Call(_), _) => {
                ranges.splice(base..base, partial.ranges.iter().map(|range| range.later(start)));
            }
            (Parsed::Incomplete, Some(rest)) => {
                partial.ranges.append(&mut rest.ranges);
                rest.ranges = partial.ranges;
                rest.moved = partial.moved;
            }
            _ => {}
        }
        parsed
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one parse, kept in registers")]
    #[inline]
    fn words(
        &mut self,
        bytes: &[u8],
        start: usize,
        limits: Limits,
        ranges: &mut Vec<ArgRange>,
        base: usize,
        mut words_left: usize,
        mut at: usize,
        mut word_bytes: Option<usize>,
    ) -> Parsed {
        while words_left > 0 {
            let len = match word_bytes.take() {
                Some(len) => len,
                None => match word_length(bytes, at, limits) {
                    Ok(Some((len, next))) => {
                        at = next;
                        len
                    }
                    Ok(None) => {
                        self.keep(start, ranges, base, words_left, at, None);
                        return Parsed::Incomplete;
                    }
                    Err(error) => {
                        ranges.truncate(base);
                        return Parsed::Error(error);
                    }
                },
            };
            if bytes.len() - at < len + 2 {
                self.keep(start, ranges, base, words_left, at, Some(len));
                return Parsed::Incomplete;
            }
            ranges.push(ArgRange { start: at as u32, end: (at + len) as u32 });
            at += len + 2;
            words_left -= 1;
        }
        Parsed::Call(at)
    }

    #[cold]
    fn keep(
        &mut self,
        start: usize,
        ranges: &mut Vec<ArgRange>,
        base: usize,
        words_left: usize,
        at: usize,
        word_bytes: Option<usize>,
    ) {
        let ranges = ranges.drain(base..).map(|range| range.earlier(start)).collect();
        let at = at - start;
        self.partial = Some(Box::new(Partial { ranges, words_left, at, word_bytes, moved: 0 }));
    }

    /// If the word under way has at least `bytes_min` bytes: where they begin, and how many there are.
    /// From now on it counts as received: it is apart, and its line end comes in its place.
    pub fn set_apart(&mut self, bytes_min: usize) -> Option<(usize, usize)> {
        let partial = self.partial.as_mut()?;
        let len = partial.word_bytes.filter(|&len| len >= bytes_min)?;
        let at = partial.at;
        let index = partial.ranges.iter().filter(|range| range.is_apart()).count();
        partial.ranges.push(ArgRange::apart(index));
        partial.words_left -= 1;
        partial.word_bytes = None;
        partial.at = at + 2;
        Some((at, len))
    }

    /// If words of at least `bytes_min` bytes of the call that `bytes` begin with are there: moves them
    /// into pieces of `aside`. Returns how many bytes at the front have done their duty; the parser
    /// takes it that they are gone.
    pub fn move_words(
        &mut self,
        bytes: &[u8],
        bytes_min: usize,
        aside: &mut Aside,
    ) -> Option<usize> {
        let partial = self.partial.as_deref_mut()?;
        // The last line end stays: a session that waits for more of a call has some of it.
        let done = partial.at.checked_sub(LINE_END_BYTES).filter(|&done| done >= bytes_min)?;
        if partial.moved == 0 {
            partial.ranges.reserve_exact(partial.words_left);
        }
        move_ranges(&mut partial.ranges[partial.moved..], bytes, aside);
        partial.moved = partial.ranges.len();
        partial.at = LINE_END_BYTES;
        Some(done)
    }

    /// Asked behind a whole call: if it is one of which words have been moved, all its words, and how
    /// many of them are in pieces; the others are offsets into the bytes.
    #[inline]
    pub fn take_moved(&mut self) -> Option<(Vec<ArgRange>, usize)> {
        self.partial.take().map(|partial| (partial.ranges, partial.moved))
    }

    /// Puts a call back whose words are all in pieces, and which ends at `end` of the bytes.
    pub fn put_back_pieces(&mut self, ranges: Vec<ArgRange>, end: usize) {
        let moved = ranges.len();
        let partial = Partial { ranges, words_left: 0, at: end, word_bytes: None, moved };
        self.partial = Some(Box::new(partial));
    }

    /// Puts a call back that cannot run yet: the next look at the same bytes finds it parsed. `ranges`
    /// from `base` on are its words, it begins at `start` and ends at `end`.
    pub fn put_back(&mut self, ranges: &mut Vec<ArgRange>, base: usize, start: usize, end: usize) {
        self.keep(start, ranges, base, 0, end, None);
    }
}

/// Moves words from `bytes` into pieces.
pub fn move_ranges(ranges: &mut [ArgRange], bytes: &[u8], aside: &mut Aside) {
    for range in ranges.iter_mut().filter(|range| !range.is_apart()) {
        *range = aside.push(&bytes[range.start as usize..range.end as usize]);
    }
}

/// The length of the word at `at` and where its bytes begin; nothing if its line is not complete.
#[inline]
fn word_length(
    bytes: &[u8],
    at: usize,
    limits: Limits,
) -> Result<Option<(usize, usize)>, CommandError> {
    let Some(&first) = bytes.get(at) else {
        return Ok(None);
    };
    if first != b'$' {
        // Redis: looks for the end of the line before it looks at its first byte.
        if memchr::memchr(b'\r', &bytes[at..]).is_none_or(|cr| at + cr + 1 >= bytes.len()) {
            return too_long_or_incomplete(bytes, at);
        }
        return Err(CommandError::expected_dollar(first));
    }
    match line(bytes, at + 1) {
        Line::Incomplete => too_long_or_incomplete(bytes, at),
        Line::Number(n, next) if n >= 0 && n as usize <= limits.word_bytes_max => {
            if n > UNAUTHENTICATED_WORD_BYTES_MAX && !limits.authenticated {
                return Err(CommandError::UNAUTHENTICATED_WORD_LENGTH);
            }
            Ok(Some((n as usize, next)))
        }
        _ => Err(CommandError::INVALID_WORD_LENGTH),
    }
}

fn too_long_or_incomplete(bytes: &[u8], at: usize) -> Result<Option<(usize, usize)>, CommandError> {
    if bytes.len() - at > INLINE_BYTES_MAX { Err(CommandError::TOO_BIG_LENGTH) } else { Ok(None) }
}

/// The number up to the line end, and where the next line begins.
#[inline]
fn line(bytes: &[u8], at: usize) -> Line {
    // The common case: one to nine digits, then CR.
    let mut n: i64 = 0;
    let mut i = at;
    while let Some(&byte) = bytes.get(i) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        n = n * 10 + i64::from(digit);
        i += 1;
        if i - at > 9 {
            break;
        }
    }
    let plain = i > at && i - at <= 9 && !(bytes[at] == b'0' && i - at > 1);
    if plain && bytes.get(i) == Some(&b'\r') {
        return if i + 1 < bytes.len() { Line::Number(n, i + 2) } else { Line::Incomplete };
    }
    let Some(cr) = memchr::memchr(b'\r', &bytes[at..]) else {
        return Line::Incomplete;
    };
    if at + cr + 1 >= bytes.len() {
        return Line::Incomplete;
    }
    match crate::resp::number::parse_i64(&bytes[at..at + cr]) {
        Some(n) => Line::Number(n, at + cr + 2),
        None => Line::Invalid,
    }
}

#[cold]
fn inline(bytes: &[u8], start: usize, ranges: &mut Vec<ArgRange>) -> Parsed {
    let rest = &bytes[start..];
    let Some(lf) = memchr::memchr(b'\n', rest) else {
        if rest.len() > INLINE_BYTES_MAX {
            return Parsed::Error(CommandError::TOO_BIG_INLINE);
        }
        return Parsed::Incomplete;
    };
    if lf > INLINE_BYTES_MAX {
        return Parsed::Error(CommandError::TOO_BIG_INLINE);
    }
    let next = start + lf + 1;
    let text = &rest[..lf];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    // Redis: the line is a C string, so a zero byte ends it.
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    if text.iter().any(|b| matches!(b, b'"' | b'\'')) {
        return match split_quoted(text) {
            Some(words) if words.args().is_empty() => Parsed::Nothing(next),
            Some(words) => Parsed::Inline(words, next),
            None => Parsed::Error(CommandError::UNBALANCED_QUOTES),
        };
    }
    let base = ranges.len();
    let mut at = 0;
    while at < text.len() {
        if is_space(text[at]) {
            at += 1;
            continue;
        }
        let len = text[at..].iter().position(|&b| is_space(b)).unwrap_or(text.len() - at);
        let begin = (start + at) as u32;
        ranges.push(ArgRange { start: begin, end: begin + len as u32 });
        at += len;
    }
    if ranges.len() == base { Parsed::Nothing(next) } else { Parsed::Call(next) }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Splits a line into words with Redis' quoting: `"…"` with `\n \r \t \b \a \xHH \"`, `'…'` with
/// `\'`. None if a quote does not end, or ends within a word.
pub fn split_quoted(text: &[u8]) -> Option<OwnedArgs> {
    let mut words = OwnedArgs::default();
    let mut at = 0;
    let mut word = Vec::new();
    loop {
        while text.get(at).is_some_and(|&b| is_space(b)) {
            at += 1;
        }
        if at >= text.len() {
            return Some(words);
        }
        word.clear();
        while let Some(&byte) = text.get(at) {
            match byte {
                // In the middle of a word these four end it; others of `is_space` do not.
                b' ' | b'\n' | b'\r' | b'\t' => break,
                b'"' | b'\'' => {
                    at = quoted(text, at + 1, byte, &mut word)?;
                    // A closing quote must be followed by a space or the end.
                    if text.get(at).is_some_and(|&b| !is_space(b)) {
                        return None;
                    }
                    break;
                }
                _ => {
                    word.push(byte);
                    at += 1;
                }
            }
        }
        words.extend(std::iter::once(&word[..]));
    }
}

/// Reads up to the closing quote; returns the offset after it.
fn quoted(text: &[u8], mut at: usize, quote: u8, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        let rest = text.get(at..)?;
        match rest {
            [] => return None,
            [b, ..] if *b == quote => return Some(at + 1),
            [b'\\', b'x', h, l, ..]
                if quote == b'"' && h.is_ascii_hexdigit() && l.is_ascii_hexdigit() =>
            {
                word.push(hex(*h) << 4 | hex(*l));
                at += 4;
            }
            [b'\\', b'\'', ..] if quote == b'\'' => {
                word.push(b'\'');
                at += 2;
            }
            [b'\\', escaped, ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            [b, ..] => {
                word.push(*b);
                at += 1;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).map_or(0, |d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { word_bytes_max: 512 << 20, authenticated: true };

    fn words(bytes: &[u8], ranges: &[ArgRange]) -> Vec<Vec<u8>> {
        ranges.iter().map(|r| bytes[r.start as usize..r.end as usize].to_vec()).collect()
    }

    #[test]
    fn pipeline_split_at_any_byte_gives_the_same_calls() {
        let input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\nlu\r\n*1\r\n$4\r\nPING\r\nECHO hi\r\n*0\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n";
        let expected: Vec<Vec<&[u8]>> = vec![
            vec![b"SET", b"k", b"v\r\nlu"],
            vec![b"PING"],
            vec![b"ECHO", b"hi"],
            vec![b"GET", b""],
        ];
        for cut in 0..=input.len() {
            for second in [cut, input.len().min(cut + 3)] {
                let mut parser = Parser::default();
                let mut calls = Vec::new();
                let mut start = 0;
                for end in [cut, second, input.len()] {
                    loop {
                        let mut ranges = Vec::new();
                        match parser.next(&input[..end], start, LIMITS, &mut ranges) {
                            Parsed::Call(next) => {
                                calls.push(words(input, &ranges));
                                start = next;
                            }
                            Parsed::Nothing(next) => start = next,
                            Parsed::Incomplete => break,
                            other => panic!("cut {cut}: {other:?}"),
                        }
                    }
                }
                assert_eq!(calls, expected, "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn call_of_many_words_in_many_parts_is_touched_once() {
        let mut input = b"*10000\r\n".to_vec();
        (0..10_000).for_each(|n| input.extend_from_slice(format!("$4\r\n{n:04}\r\n").as_bytes()));
        let (mut parser, mut ranges) = (Parser::default(), Vec::new());
        for end in (0..input.len()).step_by(1_000) {
            let parsed = parser.next(&input[..end], 0, LIMITS, &mut ranges);
            assert_eq!(parsed, Parsed::Incomplete);
            // What came in earlier parts stays where it is.
            assert!(ranges.is_empty() && ranges.capacity() < 500, "{}", ranges.capacity());
        }
        assert_eq!(parser.next(&input, 0, LIMITS, &mut ranges), Parsed::Call(input.len()));
        let names: Vec<Vec<u8>> = (0..10_000).map(|n| format!("{n:04}").into()).collect();
        assert_eq!(words(&input, &ranges), names);
    }

    #[test]
    fn call_that_was_put_back_is_parsed_again() {
        let input = b"PING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let mut parser = Parser::default();
        let mut ranges = Vec::new();
        assert_eq!(parser.next(input, 6, LIMITS, &mut ranges), Parsed::Call(input.len()));
        parser.put_back(&mut ranges, 0, 6, input.len());
        assert!(ranges.is_empty());
        let rest = &input[6..];
        assert_eq!(parser.needed_bytes(), rest.len());
        assert_eq!(parser.next(rest, 0, LIMITS, &mut ranges), Parsed::Call(rest.len()));
        assert_eq!(words(rest, &ranges), [b"GET".to_vec(), b"k".to_vec()]);
    }

    #[test]
    fn broken_protocol_is_an_error_in_redis_words() {
        let cases: [(&[u8], CommandError); 6] = [
            (b"*x\r\n", CommandError::INVALID_WORD_COUNT),
            (b"*1048577\r\n", CommandError::INVALID_WORD_COUNT),
            (b"*1\r\n:1\r\n", CommandError::expected_dollar(b':')),
            (b"*1\r\n$-1\r\n", CommandError::INVALID_WORD_LENGTH),
            (b"*1\r\n$536870913\r\n", CommandError::INVALID_WORD_LENGTH),
            (b"SET \"a\r\n", CommandError::UNBALANCED_QUOTES),
        ];
        for (input, error) in cases {
            let parsed = Parser::default().next(input, 0, LIMITS, &mut Vec::new());
            assert_eq!(parsed, Parsed::Error(error), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn quoted_inline_call_is_unescaped() {
        let words = split_quoted(br#"set "a\x41\n" 'it\'s' "" x"#).expect("balanced");
        let expected: [&[u8]; 5] = [b"set", b"aA\n", b"it's", b"", b"x"];
        assert_eq!(words, OwnedArgs::of(&expected));
        assert_eq!(split_quoted(br#"a "b"c"#), None);
    }
}
