//! Reads replies of other servers: what comes back on a connection that this process has dialled.
//!
//! RESP2 only: such a connection never asks for another protocol. Limits are checked before anything
//! is reserved. Knows no socket and no command.

use smallvec::SmallVec;

/// Deepest nesting of arrays.
const DEPTH_MAX: usize = 8;
/// Longest reply. Servers answer each other in a few words.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest line.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Text of a line; most are short, and many come.
pub type Line = SmallVec<[u8; 24]>;

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A simple string.
    Simple(Line),
    /// An error, without the leading `-`.
    Error(String),
    /// An integer.
    Int(i64),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// No value.
    Null,
    /// An array.
    Array(Vec<Answer>),
}

impl Answer {
    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Simple(line) if **line == *b"OK")
    }

    /// The error, if it is one.
    pub fn error(&self) -> Option<&str> {
        if let Self::Error(text) = self { Some(text) } else { None }
    }

    /// Its text, if it is a string of either kind.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(line) => Some(line),
            Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Its elements, if it is an array.
    pub fn elements(&self) -> Option<&[Self]> {
        if let Self::Array(elements) = self { Some(elements) } else { None }
    }

    /// Its number, if it is an integer.
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(n) = self { Some(*n) } else { None }
    }
}

/// Why bytes are no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// They are not of the protocol.
    Form,
    /// They are, and are more than a server has to say to another.
    TooLong,
}

impl std::fmt::Display for AnswerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Form => "the peer does not speak the Redis protocol",
            Self::TooLong => "a reply of the peer is too long",
        })
    }
}

/// The reply at the beginning of `bytes` and its length; none if it is not all there.
///
/// # Errors
/// The bytes are no reply.
pub fn parse_answer(bytes: &[u8]) -> Result<Option<(Answer, usize)>, AnswerError> {
    match parse(bytes, 0, 0)? {
        None if bytes.len() > ANSWER_BYTES_MAX => Err(AnswerError::TooLong),
        parsed => Ok(parsed),
    }
}

fn parse(bytes: &[u8], at: usize, depth: usize) -> Result<Option<(Answer, usize)>, AnswerError> {
    if depth > DEPTH_MAX {
        return Err(AnswerError::TooLong);
    }
    let Some(&kind) = bytes.get(at) else { return Ok(None) };
    let Some((line, next)) = line(bytes, at + 1)? else { return Ok(None) };
    match kind {
        b'+' => Ok(Some((Answer::Simple(Line::from_slice(line)), next))),
        b'-' => Ok(Some((Answer::Error(String::from_utf8_lossy(line).into_owned()), next))),
        b':' => number(line).map(|n| Some((Answer::Int(n), next))),
        b'$' => bulk(bytes, number(line)?, next),
        b'*' => array(bytes, number(line)?, next, depth),
        _ => Err(AnswerError::Form),
    }
}

/// The text up to a line end, and where the next line begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, AnswerError> {
    let rest = &bytes[at..];
    match memchr::memchr(b'\n', rest) {
        None if rest.len() > LINE_BYTES_MAX => Err(AnswerError::TooLong),
        None => Ok(None),
        Some(end) if end > 0 && rest[end - 1] == b'\r' => {
            Ok(Some((&rest[..end - 1], at + end + 1)))
        }
        Some(_) => Err(AnswerError::Form),
    }
}

fn number(line: &[u8]) -> Result<i64, AnswerError> {
    crate::resp::number::parse_i64(line).ok_or(AnswerError::Form)
}

fn bulk(bytes: &[u8], len: i64, at: usize) -> Result<Option<(Answer, usize)>, AnswerError> {
    if len == -1 {
        return Ok(Some((Answer::Null, at)));
    }
    let len = usize::try_from(len).map_err(|_| AnswerError::Form)?;
    if len > ANSWER_BYTES_MAX {
        return Err(AnswerError::TooLong);
    }
    let Some(rest) = bytes.get(at..at + len + 2) else { return Ok(None) };
    if rest[len..] != *b"\r\n" {
        return Err(AnswerError::Form);
    }
    Ok(Some((Answer::Bulk(rest[..len].to_vec()), at + len + 2)))
}

fn array(
    bytes: &[u8],
    count: i64,
    mut at: usize,
    depth: usize,
) -> Result<Option<(Answer, usize)>, AnswerError> {
    if count == -1 {
        return Ok(Some((Answer::Null, at)));
    }
    let count = usize::try_from(count).map_err(|_| AnswerError::Form)?;
    if count > ANSWER_BYTES_MAX / 4 {
        return Err(AnswerError::TooLong);
    }
    // No more is reserved than what has come can hold.
    let mut elements = Vec::with_capacity(count.min((bytes.len() - at) / 4 + 1));
    for _ in 0..count {
        let Some((element, next)) = parse(bytes, at, depth + 1)? else { return Ok(None) };
        elements.push(element);
        at = next;
    }
    Ok(Some((Answer::Array(elements), at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_in_pieces_is_read_when_it_is_whole() {
        let text = b"*4\r\n+OK\r\n-ERR no\r\n$4\r\na\r\nb\r\n*2\r\n:-7\r\n$-1\r\n+next";
        let end = text.len() - 5;
        for cut in 0..end {
            assert_eq!(parse_answer(&text[..cut]), Ok(None), "cut at {cut}");
        }
        let (answer, used) = parse_answer(text).expect("it is a reply").expect("it is whole");
        assert_eq!(used, end);
        let want = Answer::Array(vec![
            Answer::Simple(Line::from_slice(b"OK")),
            Answer::Error("ERR no".to_owned()),
            Answer::Bulk(b"a\r\nb".to_vec()),
            Answer::Array(vec![Answer::Int(-7), Answer::Null]),
        ]);
        assert_eq!(answer, want);
    }

    #[test]
    fn answer_that_is_none_is_refused_before_memory_is_taken() {
        for text in [&b"hello\r\n"[..], b"+OK\n", b":x\r\n", b"$3\r\nabcd\r\n", b"*-2\r\n"] {
            assert_eq!(parse_answer(text), Err(AnswerError::Form), "{text:?}");
        }
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 2);
        for text in [&b"$99999999999\r\n"[..], b"*99999999\r\n", &deep] {
            assert_eq!(parse_answer(text), Err(AnswerError::TooLong));
        }
        assert_eq!(parse_answer(&vec![b'+'; LINE_BYTES_MAX + 2]), Err(AnswerError::TooLong));
    }
}
