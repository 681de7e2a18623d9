//! A streaming skipper of replies: tells where each reply ends and whether it is a value, a null or
//! an error, without keeping or building anything.
//!
//! Takes RESP2 and RESP3 in pieces split at any byte. Knows nothing of sockets and requests.

use std::fmt;

/// Length to which the text of an error is kept; the rest does not help to tell errors apart.
pub(crate) const ERROR_BYTES_MAX: usize = 128;

/// One whole reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reply<'a> {
    /// Anything that is neither null nor an error, aggregates of any depth included.
    Value,
    /// A null of any kind: `$-1`, `*-1` or `_`.
    Null,
    /// An error, with the beginning of its text.
    Error(&'a [u8]),
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Malformed {
    /// The byte that does not fit.
    pub(crate) byte: u8,
    /// What stood there should have been.
    pub(crate) want: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed reply: byte 0x{:02x} where {} belongs", self.byte, self.want)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Before the type byte of an element.
    Type,
    /// In a line whose content does not matter.
    Text,
    /// In the line of a simple error.
    ErrorText,
    /// In the number of a header; holds the type byte.
    Number(u8),
    /// In the body of a bulk, its line end included.
    Body { left: u64, error: bool },
    /// Before the line feed that ends a header.
    HeaderEnd(u8),
}

/// Where one connection stands in its replies.
#[derive(Clone, Debug)]
pub(crate) struct ReplySkipper {
    state: State,
    number: u64,
    negative: bool,
    /// Elements until the reply is whole; 0 between replies.
    elements_left: u64,
    /// The reply is a push message, which answers no request.
    push: bool,
    /// The element being read is the reply itself, not a part of it.
    top: bool,
    /// Attributes of the reply itself were read, so the reply is still to come.
    attributed: bool,
    outcome: Outcome,
    error: [u8; ERROR_BYTES_MAX],
    error_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Value,
    Null,
    Error,
}

impl ReplySkipper {
    /// A skipper that stands before the first reply.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Type,
            number: 0,
            negative: false,
            elements_left: 0,
            push: false,
            top: false,
            attributed: false,
            outcome: Outcome::Value,
            error: [0; ERROR_BYTES_MAX],
            error_bytes: 0,
        }
    }

    /// Takes the next bytes and calls `each` for every reply that they complete.
    ///
    /// # Errors
    /// Bytes that are no RESP; the skipper must not be used after that.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Reply<'_>),
    ) -> Result<(), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self.state {
                State::Type => {
                    self.begin(byte)?;
                    at += 1;
                }
                State::Text | State::ErrorText => {
                    let end = bytes[at..].iter().position(|&b| b == b'\n');
                    let stop = end.map_or(bytes.len(), |n| at + n);
                    if self.state == State::ErrorText {
                        self.keep_error(&bytes[at..stop]);
                    }
                    at = stop;
                    if end.is_some() {
                        at += 1;
                        self.element_done(&mut each);
                    }
                }
                State::Number(kind) => {
                    self.number_byte(kind, byte)?;
                    at += 1;
                }
                State::HeaderEnd(kind) => {
                    if byte != b'\n' {
                        return Err(Malformed { byte, want: "a line feed" });
                    }
                    at += 1;
                    self.header_done(kind, &mut each);
                }
                State::Body { left, error } => {
                    let step = left.min((bytes.len() - at) as u64);
                    if error {
                        self.keep_error(&bytes[at..at + step as usize]);
                    }
                    at += step as usize;
                    if step == left {
                        self.element_done(&mut each);
                    } else {
                        self.state = State::Body { left: left - step, error };
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the type byte of an element.
    fn begin(&mut self, byte: u8) -> Result<(), Malformed> {
        self.top = self.elements_left == 0 || (self.attributed && self.elements_left == 1);
        if self.elements_left == 0 {
            self.elements_left = 1;
            self.outcome = Outcome::Value;
            self.push = byte == b'>';
            self.error_bytes = 0;
        }
        if self.top {
            self.attributed = false;
        }
        self.number = 0;
        self.negative = false;
        self.state = match byte {
            b'+' | b':' | b',' | b'#' | b'(' => State::Text,
            b'_' => {
                self.classify(Outcome::Null);
                State::Text
            }
            b'-' => {
                self.classify(Outcome::Error);
                if self.top { State::ErrorText } else { State::Text }
            }
            b'$' | b'*' | b'=' | b'!' | b'%' | b'~' | b'|' | b'>' => State::Number(byte),
            _ => {
                return Err(Malformed { byte, want: "a type" });
            }
        };
        Ok(())
    }

    fn number_byte(&mut self, kind: u8, byte: u8) -> Result<(), Malformed> {
        match byte {
            b'0'..=b'9' => {
                self.number = self.number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
            }
            b'-' => self.negative = true,
            b'\r' => self.state = State::HeaderEnd(kind),
            _ => {
                return Err(Malformed { byte, want: "a digit" });
            }
        }
        Ok(())
    }

    fn header_done(&mut self, kind: u8, each: &mut impl FnMut(Reply<'_>)) {
        if self.negative {
            self.classify(Outcome::Null);
            return self.element_done(each);
        }
        match kind {
            b'$' | b'=' => {
                self.state = State::Body { left: self.number.saturating_add(2), error: false };
            }
            b'!' => {
                self.classify(Outcome::Error);
                self.state = State::Body { left: self.number.saturating_add(2), error: self.top };
            }
            b'|' => {
                // Attributes come before the element they describe, which is still awaited.
                self.attributed = self.top;
                self.await_elements(2);
                self.state = State::Type;
            }
            _ => {
                self.await_elements(if kind == b'%' { 2 } else { 1 });
                self.element_done(each);
            }
        }
    }

    /// Settles what the whole reply is, if this element is the whole reply.
    fn classify(&mut self, outcome: Outcome) {
        if self.top {
            self.outcome = outcome;
        }
    }

    fn await_elements(&mut self, each: u64) {
        self.elements_left = self.elements_left.saturating_add(self.number.saturating_mul(each));
    }

    fn keep_error(&mut self, piece: &[u8]) {
        let step = piece.len().min(ERROR_BYTES_MAX - self.error_bytes);
        self.error[self.error_bytes..self.error_bytes + step].copy_from_slice(&piece[..step]);
        self.error_bytes += step;
    }

    fn element_done(&mut self, each: &mut impl FnMut(Reply<'_>)) {
        self.state = State::Type;
        self.elements_left -= 1;
        if self.elements_left > 0 || self.push {
            return;
        }
        match self.outcome {
            Outcome::Value => each(Reply::Value),
            Outcome::Null => each(Reply::Null),
            Outcome::Error => each(Reply::Error(self.error[..self.error_bytes].trim_ascii_end())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies and what they are, one after another on one connection.
    const STREAM: &[(&str, &str)] = &[
        ("+OK\r\n", "value"),
        ("-ERR unknown command\r\n", "ERR unknown command"),
        (":42\r\n", "value"),
        ("$3\r\nabc\r\n", "value"),
        ("$0\r\n\r\n", "value"),
        ("$-1\r\n", "null"),
        ("*-1\r\n", "null"),
        ("*0\r\n", "value"),
        ("*3\r\n$1\r\na\r\n$-1\r\n-ERR inner\r\n", "value"),
        ("*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n+x\r\n", "value"),
        ("*1\r\n$-1\r\n", "value"),
        ("*1\r\n-ERR inner\r\n", "value"),
        ("$7\r\n\r\n+OK\r\n\r\n", "value"),
        ("_\r\n", "null"),
        ("#t\r\n", "value"),
        (",3.14\r\n", "value"),
        ("(123456789012345678901234567890\r\n", "value"),
        ("!9\r\nERR\r\nbulk\r\n", "ERR\r\nbulk"),
        ("=7\r\ntxt:abc\r\n", "value"),
        ("%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n", "value"),
        ("~2\r\n+a\r\n+b\r\n", "value"),
        (">3\r\n+message\r\n+a\r\n$4\r\nb\r\nc\r\n", ""),
        ("|1\r\n+ttl\r\n:3\r\n$2\r\nhi\r\n", "value"),
        (">0\r\n", ""),
        ("|1\r\n+ttl\r\n*1\r\n_\r\n$-1\r\n", "null"),
        ("|1\r\n+ttl\r\n:3\r\n*1\r\n_\r\n", "value"),
        ("*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n+x\r\n+y\r\n", "value"),
        ("+last\r\n", "value"),
    ];

    fn kinds(pieces: &[&[u8]]) -> Vec<String> {
        let mut skipper = ReplySkipper::new();
        let mut seen = Vec::new();
        for piece in pieces {
            let each = |reply: Reply<'_>| {
                seen.push(match reply {
                    Reply::Value => "value".to_owned(),
                    Reply::Null => "null".to_owned(),
                    Reply::Error(text) => String::from_utf8_lossy(text).into_owned(),
                });
            };
            skipper.feed(piece, each).unwrap();
        }
        seen
    }

    fn stream() -> (Vec<u8>, Vec<&'static str>) {
        let bytes = STREAM.iter().flat_map(|(wire, _)| wire.bytes()).collect();
        (bytes, STREAM.iter().map(|(_, kind)| *kind).filter(|kind| !kind.is_empty()).collect())
    }

    #[test]
    fn skipper_whole_stream_finds_every_reply() {
        let (bytes, want) = stream();
        assert_eq!(kinds(&[&bytes]), want);
    }

    #[test]
    fn skipper_split_at_every_byte_finds_the_same() {
        let (bytes, want) = stream();
        for cut in 0..=bytes.len() {
            assert_eq!(kinds(&[&bytes[..cut], &bytes[cut..]]), want, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(kinds(&single), want);
    }

    #[test]
    fn skipper_each_reply_alone_ends_with_its_last_byte() {
        for (wire, kind) in STREAM.iter().filter(|(_, kind)| !kind.is_empty()) {
            let bytes = wire.as_bytes();
            assert!(kinds(&[&bytes[..bytes.len() - 1]]).is_empty(), "{wire:?}");
            assert_eq!(kinds(&[bytes]), [*kind], "{wire:?}");
        }
    }

    #[test]
    fn skipper_long_error_is_cut() {
        let text = "E".repeat(500);
        assert_eq!(kinds(&[format!("-{text}\r\n+OK\r\n").as_bytes()]), [&text[..128], "value"]);
    }

    #[test]
    fn skipper_wrong_bytes_are_refused() {
        for wrong in ["OK\r\n", "$x\r\n", "*1\rx", "$3\n"] {
            assert!(ReplySkipper::new().feed(wrong.as_bytes(), |_| ()).is_err(), "{wrong:?}");
        }
    }
}
