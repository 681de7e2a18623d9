//! A whole RESP2 or RESP3 value: decoded from bytes as they come, encoded for either protocol.
//!
//! For admin ports, connections between our processes and tests, where a value is looked at as a
//! whole. Not for the data path, which never builds values (`reply.rs`, `parse.rs`). What a peer
//! sends is bounded before anything is reserved for it. Knows no socket.

use crate::resp::number::{format_g17, parse_f64, parse_i64};
use crate::resp::reply::Protocol;

/// A value of the protocol.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `+`: a status.
    Simple(String),
    /// `-` or `!`: an error, its code as the first word.
    Error(String),
    /// `:`.
    Int(i64),
    /// `$`.
    Bulk(Vec<u8>),
    /// `_`, and the null bulk string and null array of RESP2.
    Null,
    /// `*`.
    Array(Vec<Value>),
    /// `,`.
    Double(f64),
    /// `#`.
    Bool(bool),
    /// `%`: a flat array in RESP2.
    Map(Vec<(Value, Value)>),
    /// `~`: an array in RESP2.
    Set(Vec<Value>),
    /// `>`: an array in RESP2.
    Push(Vec<Value>),
    /// `=`: three letters that say what the text is, and the text. A bulk string in RESP2.
    Verbatim(String, Vec<u8>),
    /// `(`: digits. A bulk string in RESP2.
    BigNumber(String),
}

/// What a peer may send in one value.
#[derive(Clone, Copy, Debug)]
pub struct ValueLimits {
    /// Bytes of the value on the wire.
    pub bytes_max: usize,
    /// Elements of all its aggregates together.
    pub elements_max: usize,
    /// Aggregates within each other.
    pub depth_max: usize,
}

impl Default for ValueLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, elements_max: 1 << 20, depth_max: 16 }
    }
}

/// Why bytes are no value. The connection that they came from cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueError {
    /// A first byte that begins no value.
    Kind(u8),
    /// A line that is no number, no boolean or no text where one must be.
    Line,
    /// A length that is negative or no number.
    Length,
    /// No line end after a string.
    LineEnd,
    /// More bytes than the limit.
    Bytes,
    /// More elements than the limit.
    Elements,
    /// More aggregates within each other than the limit.
    Depth,
}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kind(byte) => write!(f, "byte {byte:#04x} begins no value"),
            Self::Line => f.write_str("a line that cannot be read"),
            Self::Length => f.write_str("an invalid length"),
            Self::LineEnd => f.write_str("a string without its line end"),
            Self::Bytes => f.write_str("a value of too many bytes"),
            Self::Elements => f.write_str("a value of too many elements"),
            Self::Depth => f.write_str("a value nested too deeply"),
        }
    }
}

impl std::error::Error for ValueError {}

/// Longest line that is not followed by its string: statuses, errors, numbers.
const LINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    /// Attributes: read and forgotten, the value that they describe follows.
    Attribute,
}

#[derive(Debug)]
struct Frame {
    kind: Aggregate,
    left: usize,
    items: Vec<Value>,
}

/// Bytes to values. Progress in a value that is not complete is kept, so each byte is read once.
#[derive(Debug, Default)]
pub struct ValueDecoder {
    limits: ValueLimits,
    bytes: Vec<u8>,
    /// Where the next token begins.
    at: usize,
    /// No line end lies before this.
    searched: usize,
    /// Bytes and elements of the value under way.
    value_bytes: usize,
    value_elements: usize,
    stack: Vec<Frame>,
}

/// A complete token.
enum Token {
    Value(Value),
    Open(Aggregate, usize),
}

impl ValueDecoder {
    /// A decoder with limits.
    pub fn new(limits: ValueLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds bytes that have come.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
        } else if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
        } else {
            self.bytes.extend_from_slice(bytes);
            return;
        }
        self.searched = 0;
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len() && self.stack.is_empty()
    }

    /// The next complete value, if there is one.
    ///
    /// # Errors
    /// See [`ValueError`]; after one the decoder is of no use.
    pub fn next_value(&mut self) -> Result<Option<Value>, ValueError> {
        loop {
            let Some(token) = self.token()? else {
                return Ok(None);
            };
            let done = match token {
                Token::Value(value) => self.add(value),
                Token::Open(kind, count) => self.open(kind, count)?,
            };
            if let Some(value) = done {
                self.value_bytes = 0;
                self.value_elements = 0;
                return Ok(Some(value));
            }
        }
    }

    fn open(&mut self, kind: Aggregate, count: usize) -> Result<Option<Value>, ValueError> {
        let left = match kind {
            Aggregate::Map | Aggregate::Attribute => count.saturating_mul(2),
            _ => count,
        };
        self.value_elements = self.value_elements.saturating_add(left);
        if self.value_elements > self.limits.elements_max {
            return Err(ValueError::Elements);
        }
        if left == 0 {
            return Ok(match kind {
                Aggregate::Attribute => None,
                _ => self.add(closed(kind, Vec::new())),
            });
        }
        if self.stack.len() == self.limits.depth_max {
            return Err(ValueError::Depth);
        }
        // Reserved as they come: a length alone must not cost memory.
        self.stack.push(Frame { kind, left, items: Vec::with_capacity(left.min(64)) });
        Ok(None)
    }

    /// Adds a value to the innermost aggregate; answers the outermost value when it is complete.
    fn add(&mut self, mut value: Value) -> Option<Value> {
        while let Some(frame) = self.stack.last_mut() {
            frame.items.push(value);
            frame.left -= 1;
            if frame.left > 0 {
                return None;
            }
            let frame = self.stack.pop()?;
            if matches!(frame.kind, Aggregate::Attribute) {
                return None;
            }
            value = closed(frame.kind, frame.items);
        }
        Some(value)
    }

    fn token(&mut self) -> Result<Option<Token>, ValueError> {
        let Some(line_end) = self.line_end()? else {
            return Ok(None);
        };
        if line_end == self.at {
            return Err(ValueError::Line);
        }
        let kind = self.bytes[self.at];
        let line = &self.bytes[self.at + 1..line_end];
        let next = line_end + 2;
        let token = match kind {
            b'+' => Token::Value(Value::Simple(text(line)?)),
            b'-' => Token::Value(Value::Error(text(line)?)),
            b':' => Token::Value(Value::Int(parse_i64(line).ok_or(ValueError::Line)?)),
            b'_' if line.is_empty() => Token::Value(Value::Null),
            b'#' => Token::Value(Value::Bool(boolean(line)?)),
            b',' => Token::Value(Value::Double(double(line)?)),
            b'(' => Token::Value(Value::BigNumber(big_number(line)?)),
            b'$' | b'=' | b'!' => return self.string(kind, next),
            b'*' | b'%' | b'~' | b'>' | b'|' => match length(line)? {
                None if kind == b'*' => Token::Value(Value::Null),
                None => return Err(ValueError::Length),
                Some(count) => Token::Open(aggregate(kind), count),
            },
            b'_' => return Err(ValueError::Line),
            other => return Err(ValueError::Kind(other)),
        };
        self.advance(next)?;
        Ok(Some(token))
    }

    /// A string of which the length line has come.
    fn string(&mut self, kind: u8, begin: usize) -> Result<Option<Token>, ValueError> {
        let Some(bytes) = length(&self.bytes[self.at + 1..begin - 2])? else {
            if kind != b'$' {
                return Err(ValueError::Length);
            }
            self.advance(begin)?;
            return Ok(Some(Token::Value(Value::Null)));
        };
        if bytes > self.limits.bytes_max {
            return Err(ValueError::Bytes);
        }
        let end = begin + bytes;
        if self.bytes.len() < end + 2 {
            return Ok(None);
        }
        if &self.bytes[end..end + 2] != b"\r\n" {
            return Err(ValueError::LineEnd);
        }
        let string = &self.bytes[begin..end];
        let value = match kind {
            b'!' => Value::Error(text(string)?),
            b'=' => verbatim(string)?,
            _ => Value::Bulk(string.to_vec()),
        };
        self.advance(end + 2)?;
        Ok(Some(Token::Value(value)))
    }

    fn advance(&mut self, to: usize) -> Result<(), ValueError> {
        self.value_bytes += to - self.at;
        self.at = to;
        self.searched = to;
        if self.value_bytes > self.limits.bytes_max { Err(ValueError::Bytes) } else { Ok(()) }
    }

    /// Where the line at `at` ends.
    fn line_end(&mut self) -> Result<Option<usize>, ValueError> {
        let from = self.searched.max(self.at);
        let Some(found) = memchr::memmem::find(&self.bytes[from..], b"\r\n") else {
            // A line end may be half there.
            self.searched = self.bytes.len().saturating_sub(1).max(self.at);
            let line_bytes = self.bytes.len() - self.at;
            return if line_bytes > LINE_BYTES_MAX { Err(ValueError::Line) } else { Ok(None) };
        };
        // Stays where it is until the token is complete: the string behind it may be missing.
        self.searched = from;
        Ok(Some(from + found))
    }
}

fn aggregate(kind: u8) -> Aggregate {
    match kind {
        b'%' => Aggregate::Map,
        b'~' => Aggregate::Set,
        b'>' => Aggregate::Push,
        b'|' => Aggregate::Attribute,
        _ => Aggregate::Array,
    }
}

fn closed(kind: Aggregate, items: Vec<Value>) -> Value {
    match kind {
        Aggregate::Map => {
            let mut items = items.into_iter();
            let mut pairs = Vec::with_capacity(items.len() / 2);
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
        Aggregate::Set => Value::Set(items),
        Aggregate::Push => Value::Push(items),
        Aggregate::Array | Aggregate::Attribute => Value::Array(items),
    }
}

fn text(line: &[u8]) -> Result<String, ValueError> {
    // Redis puts bytes of the client into some errors; what is no text is shown as such.
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn length(line: &[u8]) -> Result<Option<usize>, ValueError> {
    match parse_i64(line) {
        Some(-1) => Ok(None),
        Some(n) => usize::try_from(n).map(Some).map_err(|_| ValueError::Length),
        None => Err(ValueError::Length),
    }
}

fn boolean(line: &[u8]) -> Result<bool, ValueError> {
    match line {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(ValueError::Line),
    }
}

fn double(line: &[u8]) -> Result<f64, ValueError> {
    match line {
        b"inf" => Ok(f64::INFINITY),
        b"-inf" => Ok(f64::NEG_INFINITY),
        b"nan" | b"-nan" => Ok(f64::NAN),
        _ => parse_f64(line).ok_or(ValueError::Line),
    }
}

fn big_number(line: &[u8]) -> Result<String, ValueError> {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ValueError::Line);
    }
    text(line)
}

fn verbatim(string: &[u8]) -> Result<Value, ValueError> {
    match string {
        [a, b, c, b':', rest @ ..] => Ok(Value::Verbatim(text(&[*a, *b, *c])?, rest.to_vec())),
        _ => Err(ValueError::Line),
    }
}

impl Value {
    /// A bulk string of a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into_bytes())
    }

    /// A status.
    pub fn simple(text: impl Into<String>) -> Self {
        Self::Simple(text.into())
    }

    /// An integer from a count.
    pub fn count(n: usize) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// A string's or status' text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) | Self::BigNumber(text) => Some(text),
            Self::Bulk(bytes) | Self::Verbatim(_, bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An integer, also as text.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Bool(yes) => Some(i64::from(*yes)),
            other => parse_i64(other.as_text()?.as_bytes()),
        }
    }

    /// The elements of an array, set or push.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// A field of a map, or of the flat array that RESP2 makes of one.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => {
                pairs.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
            }
            other => {
                let mut pairs = other.as_array()?.chunks_exact(2);
                pairs.find(|pair| pair[0].as_text() == Some(name)).map(|pair| &pair[1])
            }
        }
    }

    /// Appends the value as a protocol has it.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let is_resp3 = protocol == Protocol::Resp3;
        match self {
            Self::Simple(text) => line(out, b'+', &one_line(text)),
            Self::Error(text) => line(out, b'-', &one_line(text)),
            Self::Int(n) => line(out, b':', itoa::Buffer::new().format(*n).as_bytes()),
            Self::Bulk(bytes) => bulk(out, b'$', bytes),
            Self::Null => out.extend_from_slice(if is_resp3 { b"_\r\n" } else { b"$-1\r\n" }),
            Self::Array(items) => aggregate_of(out, b'*', items, protocol),
            Self::Set(items) => {
                aggregate_of(out, if is_resp3 { b'~' } else { b'*' }, items, protocol);
            }
            Self::Push(items) => {
                aggregate_of(out, if is_resp3 { b'>' } else { b'*' }, items, protocol);
            }
            Self::Map(pairs) => map(out, pairs, protocol),
            Self::Double(x) if is_resp3 => line(out, b',', format_g17(*x).as_bytes()),
            Self::Double(x) => bulk(out, b'$', format_g17(*x).as_bytes()),
            Self::Bool(yes) if is_resp3 => line(out, b'#', if *yes { b"t" } else { b"f" }),
            Self::Bool(yes) => line(out, b':', if *yes { b"1" } else { b"0" }),
            Self::Verbatim(kind, bytes) if is_resp3 => {
                bulk(out, b'=', &[kind.as_bytes(), b":", bytes].concat());
            }
            Self::Verbatim(_, bytes) => bulk(out, b'$', bytes),
            Self::BigNumber(digits) if is_resp3 => line(out, b'(', digits.as_bytes()),
            Self::BigNumber(digits) => bulk(out, b'$', digits.as_bytes()),
        }
    }
}

/// Appends a call: an array of bulk strings.
pub fn encode_call<W: AsRef<[u8]>>(words: &[W], out: &mut Vec<u8>) {
    line(out, b'*', itoa::Buffer::new().format(words.len()).as_bytes());
    for word in words {
        bulk(out, b'$', word.as_ref());
    }
}

/// A status or an error cannot hold a line end.
fn one_line(text: &str) -> Vec<u8> {
    text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect()
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    line(out, kind, itoa::Buffer::new().format(bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn aggregate_of(out: &mut Vec<u8>, kind: u8, items: &[Value], protocol: Protocol) {
    line(out, kind, itoa::Buffer::new().format(items.len()).as_bytes());
    items.iter().for_each(|item| item.encode(protocol, out));
}

fn map(out: &mut Vec<u8>, pairs: &[(Value, Value)], protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => {
            line(out, b'*', itoa::Buffer::new().format(pairs.len() * 2).as_bytes());
        }
        Protocol::Resp3 => line(out, b'%', itoa::Buffer::new().format(pairs.len()).as_bytes()),
    }
    for (key, value) in pairs {
        key.encode(protocol, out);
        value.encode(protocol, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_of(bytes: &[u8], piece: usize) -> Result<Vec<Value>, ValueError> {
        let mut decoder = ValueDecoder::default();
        let mut values = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.extend(piece);
            while let Some(value) = decoder.next_value()? {
                values.push(value);
            }
        }
        Ok(values)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[a-zA-Z ]{0,12}".prop_map(Value::Simple),
            "[A-Z]{1,6} [a-z ]{0,12}".prop_map(Value::Error),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bulk),
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-1.0e9..1.0e9).prop_map(Value::Double),
            "-?[0-9]{1,40}".prop_map(Value::BigNumber),
            proptest::collection::vec(any::<u8>(), 0..9)
                .prop_map(|text| Value::Verbatim("txt".into(), text)),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let items = proptest::collection::vec(inner.clone(), 0..5);
            prop_oneof![
                items.clone().prop_map(Value::Array),
                items.clone().prop_map(Value::Set),
                items.prop_map(Value::Push),
                proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn value_in_any_pieces_survives(values in proptest::collection::vec(value(), 1..4),
                                        piece in 1usize..50) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| value.encode(Protocol::Resp3, &mut bytes));
            prop_assert_eq!(all_of(&bytes, piece), Ok(values));
        }

        #[test]
        fn garbage_ends_in_an_error_or_in_values(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"*$%~>|=!+-:_#,(\r\n0123".to_vec())],
                0..200),
        ) {
            let whole = all_of(&bytes, bytes.len().max(1));
            let pieces = all_of(&bytes, 3);
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if let Ok(values) = whole {
                // (Compared as text: nan is nobody's equal.)
                prop_assert_eq!(format!("{values:?}"), format!("{:?}", pieces.unwrap()));
            }
        }
    }

    #[test]
    fn value_of_resp3_becomes_what_resp2_has() {
        let value = Value::Map(vec![
            (Value::text("a"), Value::Double(1.5)),
            (Value::text("b"), Value::Bool(true)),
            (Value::text("c"), Value::Null),
        ]);
        let mut bytes = Vec::new();
        value.encode(Protocol::Resp2, &mut bytes);
        assert_eq!(bytes, b"*6\r\n$1\r\na\r\n$3\r\n1.5\r\n$1\r\nb\r\n:1\r\n$1\r\nc\r\n$-1\r\n");
        let flat = all_of(&bytes, 7).unwrap().remove(0);
        assert_eq!(flat.field("b").and_then(Value::as_int), Some(1));
        assert_eq!(value.field("b").and_then(Value::as_int), Some(1));
    }

    #[test]
    fn value_beyond_a_limit_is_refused_before_it_is_stored() {
        let limits = ValueLimits { bytes_max: 100, elements_max: 10, depth_max: 2 };
        let refused = |bytes: &[u8]| {
            let mut decoder = ValueDecoder::new(limits);
            decoder.extend(bytes);
            decoder.next_value()
        };
        assert_eq!(refused(b"$101\r\n"), Err(ValueError::Bytes));
        assert_eq!(refused(b"*1000000000\r\n"), Err(ValueError::Elements));
        assert_eq!(refused(b"%6\r\n"), Err(ValueError::Elements));
        assert_eq!(refused(b"*1\r\n*1\r\n*1\r\n"), Err(ValueError::Depth));
        assert_eq!(refused(b"*2\r\n$90\r\n"), Ok(None));
        assert_eq!(refused(b"$-2\r\n"), Err(ValueError::Length));
        assert_eq!(refused(b"$2\r\nabcd"), Err(ValueError::LineEnd));
        assert_eq!(refused(b"GET /\r\n"), Err(ValueError::Kind(b'G')));
    }

    #[test]
    fn attribute_before_a_value_is_skipped() {
        let values = all_of(b"|1\r\n+ttl\r\n:3\r\n*2\r\n:1\r\n|1\r\n+x\r\n+y\r\n:2\r\n", 4);
        assert_eq!(values, Ok(vec![Value::Array(vec![Value::Int(1), Value::Int(2)])]));
    }

    #[test]
    fn error_text_with_line_ends_stays_one_line() {
        let mut bytes = Vec::new();
        Value::Error("ERR a\r\nb".into()).encode(Protocol::Resp3, &mut bytes);
        assert_eq!(bytes, b"-ERR a  b\r\n");
        let mut call = Vec::new();
        encode_call(&["GET", "k"], &mut call);
        assert_eq!(call, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
