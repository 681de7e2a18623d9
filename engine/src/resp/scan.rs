//! The end of a reply within a stream of bytes, RESP2 or RESP3, without copying and without building
//! anything: a proxy only has to know where one reply ends and the next begins.
//!
//! A [`Scanner`] keeps its place over partial input: what it has passed need not be shown to it
//! again, so that a reply of many megabytes streams through. Only a header line that is not complete
//! has to come back, with more behind it. Depth and lengths are bounded; a peer that breaks the rules
//! is an error, never a panic. Knows no command and no socket.

use memchr::memchr;

/// Deepest nesting of a reply.
pub const DEPTH_MAX: usize = 32;
/// Longest line: status, error, number, header.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest string.
pub const BULK_BYTES_MAX: u64 = 512 << 20;
/// Most elements of one aggregate.
pub const ELEMENTS_MAX: u64 = u32::MAX as u64;

/// How far a scan came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scanned {
    /// The reply ends before this offset.
    Done(usize),
    /// Everything before this offset belongs to the reply, and there is more to it. Bytes from here
    /// on have to be shown again, with more behind them.
    More(usize),
}

/// Why a stream is no sequence of replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanError {
    /// A reply begins with this byte.
    Kind(u8),
    /// A length is no number, or out of bounds.
    Length,
    /// A line does not end.
    Line,
    /// A string is not followed by a line end.
    BulkEnd,
    /// Aggregates within aggregates without end.
    Depth,
}

impl std::fmt::Display for ScanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kind(byte) => write!(f, "bad reply type {:?}", char::from(*byte)),
            Self::Length => f.write_str("bad length in a reply"),
            Self::Line => f.write_str("a line of a reply does not end"),
            Self::BulkEnd => f.write_str("a string of a reply has no line end"),
            Self::Depth => f.write_str("a reply is nested too deep"),
        }
    }
}

impl std::error::Error for ScanError {}

/// Progress within one reply.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes of the string under way that are still to come, its line end included.
    string_left: u64,
    /// Elements still to come of the aggregates that the next value lies in, outermost first.
    open: [u64; DEPTH_MAX],
    depth: usize,
    /// Something of the reply has been passed.
    begun: bool,
}

impl Scanner {
    /// Whether the next byte begins a reply.
    #[inline]
    pub fn is_at_start(&self) -> bool {
        !self.begun
    }

    /// Forgets the reply under way.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Looks for the end of the reply that goes on at `at`.
    ///
    /// # Errors
    /// The bytes are no reply. The scanner is of no use until it is reset.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8], at: usize) -> Result<Scanned, ScanError> {
        if !self.begun
            && let Some(end) = simple_end(bytes, at)
        {
            return Ok(Scanned::Done(end));
        }
        self.walk(bytes, at)
    }

    fn walk(&mut self, bytes: &[u8], mut at: usize) -> Result<Scanned, ScanError> {
        loop {
            if self.string_left > 0 {
                let here = (bytes.len() - at) as u64;
                if here < self.string_left {
                    at = self.pass_part(bytes, at)?;
                    return Ok(Scanned::More(at));
                }
                at += self.string_left as usize;
                check_string_end(bytes, at, self.string_left)?;
                self.string_left = 0;
                if self.value_ended() {
                    return Ok(Scanned::Done(at));
                }
            }
            let Some(&kind) = bytes.get(at) else {
                return Ok(Scanned::More(at));
            };
            let Some((line, next)) = line(bytes, at)? else {
                return Ok(Scanned::More(at));
            };
            at = next;
            self.begun = true;
            let ended = match kind {
                b'+' | b'-' | b':' | b',' | b'_' | b'#' | b'(' => self.value_ended(),
                b'$' | b'=' | b'!' => match length(line, BULK_BYTES_MAX)? {
                    None => self.value_ended(),
                    Some(len) => {
                        self.string_left = len + 2;
                        false
                    }
                },
                b'*' | b'~' | b'>' => self.open(length(line, ELEMENTS_MAX)?, 1, 0)?,
                b'%' => self.open(length(line, ELEMENTS_MAX)?, 2, 0)?,
                // An attribute stands before the value that it describes.
                b'|' => self.open(length(line, ELEMENTS_MAX)?, 2, 1)?,
                other => return Err(ScanError::Kind(other)),
            };
            if ended {
                return Ok(Scanned::Done(at));
            }
        }
    }

    /// Passes what there is of a string. Its line end is kept together, so that it can be checked.
    fn pass_part(&mut self, bytes: &[u8], at: usize) -> Result<usize, ScanError> {
        let here = (bytes.len() - at) as u64;
        let body = self.string_left.saturating_sub(2);
        if body == 0 && here == 1 && bytes[at] != b'\r' {
            return Err(ScanError::BulkEnd);
        }
        let passed = here.min(body);
        self.string_left -= passed;
        Ok(at + passed as usize)
    }

    /// Enters an aggregate. Whether the whole reply has ended, because it has no elements.
    fn open(&mut self, count: Option<u64>, each: u64, more: u64) -> Result<bool, ScanError> {
        let count = count.map_or(0, |n| n * each) + more;
        if count == 0 {
            return Ok(self.value_ended());
        }
        if self.depth == DEPTH_MAX {
            return Err(ScanError::Depth);
        }
        self.open[self.depth] = count;
        self.depth += 1;
        Ok(false)
    }

    /// A value has ended, and with it perhaps those that it was the last of. Whether all have.
    fn value_ended(&mut self) -> bool {
        while self.depth > 0 {
            let left = &mut self.open[self.depth - 1];
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.depth -= 1;
        }
        self.begun = false;
        true
    }
}

/// The end of a reply that is one line, or one string, and all there: most of them.
#[inline]
fn simple_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'+' | b':' => {
            // Short: looked at byte by byte, there is no call to pay for.
            let rest = bytes.get(at + 1..)?;
            let cr = rest.iter().take(24).position(|&byte| byte == b'\r')?;
            (rest.get(cr + 1) == Some(&b'\n')).then_some(at + cr + 3)
        }
        b'$' => {
            let mut len = 0usize;
            let mut i = at + 1;
            loop {
                let digit = bytes.get(i)?.wrapping_sub(b'0');
                if digit > 9 {
                    break;
                }
                // Nine digits at most, so nothing overflows; longer strings take the other way.
                if i - at > 9 {
                    return None;
                }
                len = len * 10 + usize::from(digit);
                i += 1;
            }
            let is_header = i > at + 1 && bytes[i] == b'\r' && bytes.get(i + 1) == Some(&b'\n');
            if !is_header || len as u64 > BULK_BYTES_MAX {
                return None;
            }
            let end = i + 2 + len;
            (bytes.get(end..end + 2)? == b"\r\n").then_some(end + 2)
        }
        _ => None,
    }
}

fn check_string_end(bytes: &[u8], end: usize, left: u64) -> Result<(), ScanError> {
    // At least the line end itself is still here: `pass_part` never passes a part of it.
    debug_invariant!(left >= 2, "the end of a string was passed in pieces");
    if end >= 2 && &bytes[end - 2..end] == b"\r\n" { Ok(()) } else { Err(ScanError::BulkEnd) }
}

/// The line that begins at `at`, without its kind and its end, and what follows it; nothing if it is
/// not complete.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, ScanError> {
    let rest = &bytes[at..];
    let reach = rest.len().min(LINE_BYTES_MAX);
    match memchr(b'\n', &rest[..reach]) {
        Some(lf) if lf >= 2 && rest[lf - 1] == b'\r' => Ok(Some((&rest[1..lf - 1], at + lf + 1))),
        // A lone line feed can only be within an error's or a status' text, which no server writes.
        Some(_) => Err(ScanError::Line),
        None if reach == LINE_BYTES_MAX => Err(ScanError::Line),
        None if !is_kind(rest[0]) => Err(ScanError::Kind(rest[0])),
        None => Ok(None),
    }
}

const fn is_kind(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b':'
            | b','
            | b'_'
            | b'#'
            | b'('
            | b'$'
            | b'='
            | b'!'
            | b'*'
            | b'~'
            | b'>'
            | b'%'
            | b'|'
    )
}

/// A length of at most `max`; none if it is the null's -1.
fn length(digits: &[u8], max: u64) -> Result<Option<u64>, ScanError> {
    match crate::resp::number::parse_i64(digits) {
        Some(-1) => Ok(None),
        Some(n) if n >= 0 && n as u64 <= max => Ok(Some(n as u64)),
        _ => Err(ScanError::Length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no such key\r\n",
        b":-12\r\n",
        b"$5\r\nhe\r\no\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
        b"~2\r\n#t\r\n,3.5\r\n",
        b">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$2\r\nhi\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"(123456789012345678901234567890\r\n",
        b"!5\r\nERR x\r\n",
        b"_\r\n",
        b"+a status that is longer than what is looked at byte by byte\r\n",
    ];

    /// Feeds a stream in pieces of `step` bytes as a proxy does, and returns the replies.
    fn replies_of(stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, ScanError> {
        let mut scanner = Scanner::default();
        let (mut tail, mut passed, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            tail.extend_from_slice(piece);
            let mut at = 0;
            loop {
                match scanner.scan(&tail, at)? {
                    Scanned::Done(end) => {
                        passed.extend_from_slice(&tail[at..end]);
                        found.push(std::mem::take(&mut passed));
                        at = end;
                        if at == tail.len() {
                            break;
                        }
                    }
                    Scanned::More(end) => {
                        passed.extend_from_slice(&tail[at..end]);
                        at = end;
                        break;
                    }
                }
            }
            tail.drain(..at);
        }
        assert!(scanner.is_at_start() && tail.is_empty(), "a reply is left over");
        Ok(found)
    }

    #[test]
    fn stream_cut_anywhere_gives_the_same_replies() {
        let stream: Vec<u8> = REPLIES.concat();
        for step in 1..=stream.len() {
            assert_eq!(replies_of(&stream, step).expect("all are well formed"), REPLIES, "{step}");
        }
    }

    #[test]
    fn long_string_streams_through_without_being_kept() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.scan(b"$1000000\r\nabc", 0), Ok(Scanned::More(13)));
        let piece = vec![b'x'; 999_997];
        assert_eq!(scanner.scan(&piece, 0), Ok(Scanned::More(piece.len())));
        assert_eq!(scanner.scan(b"\r", 0), Ok(Scanned::More(0)));
        assert_eq!(scanner.scan(b"\r\n+", 0), Ok(Scanned::Done(2)));
        assert!(scanner.is_at_start());
    }

    #[test]
    fn garbage_is_an_error() {
        let deep: Vec<u8> = b"*1\r\n".repeat(DEPTH_MAX + 1);
        let cases: &[(&[u8], ScanError)] = &[
            (b"hello\r\n", ScanError::Kind(b'h')),
            (b"h", ScanError::Kind(b'h')),
            (b"$x\r\n", ScanError::Length),
            (b"$-2\r\n", ScanError::Length),
            (b"$536870913\r\n", ScanError::Length),
            (b"*4294967296\r\n", ScanError::Length),
            (b"$1\r\nabc", ScanError::BulkEnd),
            (b"$1\r\nab", ScanError::BulkEnd),
            (b"+no carriage return\n", ScanError::Line),
            (&deep, ScanError::Depth),
            (&[b'+'; LINE_BYTES_MAX], ScanError::Line),
        ];
        for (bytes, error) in cases {
            let mut scanner = Scanner::default();
            let result = scanner.scan(bytes, 0).and_then(|scanned| match scanned {
                Scanned::More(at) => scanner.scan(bytes, at),
                done @ Scanned::Done(_) => Ok(done),
            });
            assert_eq!(result, Err(*error), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let alphabet = b"+-:$*%~>|_#,(=!0123456789\r\n\r\n\r\nab";
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let mut scanner = Scanner::default();
            let mut at = 0;
            while let Ok(Scanned::Done(end)) = scanner.scan(&bytes, at) {
                assert!(end > at && end <= bytes.len());
                at = end;
            }
        }
    }
}
