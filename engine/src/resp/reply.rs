//! Encodes replies in RESP2 or RESP3. Owns no socket: bytes go into an [`OutBuf`].

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use crate::resp::error::CommandError;
use crate::resp::number;

/// Bytes on their way to a client: a buffer, with big shared values spliced in at places.
///
/// A big value is not copied into the reply: the splice holds it alive until it has been sent, so
/// that a 50 MB answer costs its turn nothing.
#[derive(Debug, Default)]
pub struct OutBuf {
    bytes: Vec<u8>,
    splices: Vec<Splice>,
}

/// Something within an [`OutBuf`] that is not in its bytes.
#[derive(Debug, Clone)]
pub struct Splice {
    /// Comes after this many bytes of the buffer.
    pub at: usize,
    /// What comes.
    pub piece: Piece,
}

/// What a [`Splice`] puts in.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A shared value.
    Shared(Arc<Vec<u8>>),
    /// Elements that are written when their turn to be sent comes. One buffer at a time uses it: the
    /// lock is never waited for.
    Stream(Arc<Mutex<dyn Stream>>, Protocol),
}

impl Piece {
    /// Its bytes; none yet if it is a stream.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(data) => data,
            Self::Stream(..) => &[],
        }
    }
}

/// The elements of a long reply, written while it is being sent.
pub trait Stream: Debug + Send {
    /// Writes some more, some tens of kilobytes. `false` when all is written.
    fn fill(&mut self, reply: &mut Reply<'_>) -> bool;
}

fn fill(stream: &Mutex<dyn Stream>, protocol: Protocol, out: &mut OutBuf) -> bool {
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    stream.fill(&mut Reply::new(out, protocol))
}

impl OutBuf {
    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.splices.is_empty()
    }

    /// All bytes, splices included; what streams will write is not known.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.splices.iter().map(|s| s.piece.bytes().len()).sum::<usize>()
    }

    /// A place that [`truncate`](Self::truncate) returns to.
    #[inline]
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.splices.len())
    }

    /// Forgets what was written since `mark`.
    pub fn truncate(&mut self, mark: (usize, usize)) {
        self.bytes.truncate(mark.0);
        self.splices.truncate(mark.1);
    }

    /// Appends raw bytes.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes that are shared, not copied.
    pub fn extend_shared(&mut self, data: &Arc<Vec<u8>>) {
        let at = self.bytes.len();
        self.splices.push(Splice { at, piece: Piece::Shared(Arc::clone(data)) });
    }

    /// Appends everything in `other` from `from` to `to` (marks of `other`).
    pub fn append_range(&mut self, other: &Self, from: (usize, usize), to: (usize, usize)) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes[from.0..to.0]);
        for splice in &other.splices[from.1..to.1] {
            let at = base + (splice.at - from.0);
            self.splices.push(Splice { at, piece: splice.piece.clone() });
        }
    }

    /// The plain bytes; the splices belong between them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, for a sender that takes them apart.
    pub fn parts(&self) -> (&[u8], &[Splice]) {
        (&self.bytes, &self.splices)
    }

    /// Takes what can be sent now: everything, or what comes before the end of a stream's next part.
    pub fn take_sendable(&mut self) -> Self {
        let is_stream = |splice: &Splice| matches!(splice.piece, Piece::Stream(..));
        let Some(index) = self.splices.iter().position(is_stream) else {
            return std::mem::take(self);
        };
        let at = self.splices[index].at;
        let rest = self.bytes.split_off(at);
        let mut head = Self {
            bytes: std::mem::replace(&mut self.bytes, rest),
            splices: self.splices.drain(..index).collect(),
        };
        self.splices.iter_mut().for_each(|splice| splice.at -= at);
        if let Piece::Stream(stream, protocol) = &self.splices[0].piece
            && !fill(stream, *protocol, &mut head)
        {
            self.splices.remove(0);
        }
        head
    }

    /// Forgets everything; keeps at most `capacity_max` bytes of memory.
    pub fn clear(&mut self, capacity_max: usize) {
        self.bytes.clear();
        self.splices.clear();
        if self.bytes.capacity() > capacity_max {
            self.bytes = Vec::new();
        }
    }

    /// Memory that it holds, splices counted in full.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.splices.iter().map(|s| s.piece.bytes().len()).sum::<usize>()
    }

    /// Everything in one piece: for tests and small internal replies.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        let mut from = 0;
        for splice in &self.splices {
            all.extend_from_slice(&self.bytes[from..splice.at]);
            all.extend_from_slice(splice.piece.bytes());
            if let Piece::Stream(stream, protocol) = &splice.piece {
                let mut out = Self::default();
                while fill(stream, *protocol, &mut out) {}
                all.extend_from_slice(&out.to_vec());
            }
            from = splice.at;
        }
        all.extend_from_slice(&self.bytes[from..]);
        all
    }
}

/// Which protocol a session speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// RESP2, until HELLO says otherwise.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// Writes one reply.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut OutBuf,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// A writer of replies in `protocol` to `out`.
    #[inline]
    pub fn new(out: &'a mut OutBuf, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The protocol that replies are written in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the client speaks RESP3.
    pub fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// The buffer behind it, for callers that mark and truncate.
    pub fn out(&mut self) -> &mut OutBuf {
        self.out
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend(b"+OK\r\n");
    }

    /// A simple string. `text` holds no line end.
    pub fn simple(&mut self, text: &str) {
        self.out.extend(b"+");
        self.out.extend(text.as_bytes());
        self.out.extend(b"\r\n");
    }

    /// An error.
    pub fn error(&mut self, error: &CommandError) {
        self.out.extend(b"-");
        // An error may quote what a client sent; a line end in it would break the framing.
        for c in error.text().chars() {
            match u8::try_from(c) {
                Ok(b'\r' | b'\n') => self.out.bytes.push(b' '),
                Ok(byte) => self.out.bytes.push(byte),
                Err(_) => self.out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.out.extend(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, n: i64) {
        self.header(b':', n);
    }

    /// A count as an integer.
    #[inline]
    pub fn count(&mut self, n: usize) {
        self.header(b':', n as i64);
    }

    /// 1 or 0.
    pub fn int_bool(&mut self, yes: bool) {
        self.out.extend(if yes { b":1\r\n" } else { b":0\r\n" });
    }

    /// RESP3 boolean; 1 or 0 in RESP2.
    pub fn boolean(&mut self, yes: bool) {
        match self.protocol {
            Protocol::Resp2 => self.int_bool(yes),
            Protocol::Resp3 => self.out.extend(if yes { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.bytes.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.out.extend(bytes);
        self.out.extend(b"\r\n");
    }

    /// A bulk string that is shared, not copied.
    pub fn bulk_shared(&mut self, data: &Arc<Vec<u8>>) {
        self.header(b'$', data.len() as i64);
        self.out.extend_shared(data);
        self.out.extend(b"\r\n");
    }

    /// Elements that are written while the reply is being sent. Their number has been announced.
    pub fn stream(&mut self, stream: impl Stream + 'static) {
        let at = self.out.bytes.len();
        let piece = Piece::Stream(Arc::new(Mutex::new(stream)), self.protocol);
        self.out.splices.push(Splice { at, piece });
    }

    /// An integer as a bulk string.
    pub fn bulk_int(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    /// A double: a RESP3 double, or its text as a bulk string.
    pub fn double(&mut self, x: f64) {
        let text = number::format_g17(x);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.out.extend(b",");
                self.out.extend(text.as_bytes());
                self.out.extend(b"\r\n");
            }
        }
    }

    /// The null of a single value.
    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.extend(b"$-1\r\n"),
            Protocol::Resp3 => self.out.extend(b"_\r\n"),
        }
    }

    /// The null of an array.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.extend(b"*-1\r\n"),
            Protocol::Resp3 => self.out.extend(b"_\r\n"),
        }
    }

    /// Announces an array of `n` elements.
    #[inline]
    pub fn array(&mut self, n: usize) {
        self.header(b'*', n as i64);
    }

    /// Announces a map of `n` pairs (an array of twice as many in RESP2).
    pub fn map(&mut self, n: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', n as i64 * 2),
            Protocol::Resp3 => self.header(b'%', n as i64),
        }
    }

    /// Announces a set of `n` elements (an array in RESP2).
    pub fn set(&mut self, n: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', n as i64),
            Protocol::Resp3 => self.header(b'~', n as i64),
        }
    }

    /// Announces a push of `n` elements (an array in RESP2).
    pub fn push(&mut self, n: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', n as i64),
            Protocol::Resp3 => self.header(b'>', n as i64),
        }
    }

    /// Plain text for people: a RESP3 verbatim string, or a bulk string.
    pub fn verbatim(&mut self, text: &[u8]) {
        self.verbatim_head(text.len());
        self.out.extend(text);
        self.out.extend(b"\r\n");
    }

    /// The beginning of a text of `len` bytes ([`verbatim`](Self::verbatim)): they and a line end follow.
    pub fn verbatim_head(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'$', len as i64),
            Protocol::Resp3 => {
                self.header(b'=', len as i64 + 4);
                self.out.extend(b"txt:");
            }
        }
    }

    /// An array of simple strings: what HELP subcommands answer.
    pub fn help(&mut self, lines: &[&str]) {
        self.array(lines.len());
        for line in lines {
            self.simple(line);
        }
    }

    /// Bytes that are already encoded.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend(encoded);
    }

    #[inline]
    fn header(&mut self, kind: u8, n: i64) {
        self.out.bytes.reserve(24);
        self.out.bytes.push(kind);
        self.out.extend(itoa::Buffer::new().format(n).as_bytes());
        self.out.extend(b"\r\n");
    }
}
