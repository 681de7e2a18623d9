//! A plain blocking connection: handshakes, probes and preparations, where speed does not matter.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::Fault;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Where to connect and how to introduce oneself.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The server.
    pub(crate) address: Address,
    /// `PASSWORD` or `USER:PASSWORD`.
    pub(crate) auth: Option<String>,
    /// Database to select.
    pub(crate) db: u32,
    /// Speak RESP3.
    pub(crate) resp3: bool,
    /// Longest wait for one reply.
    pub(crate) timeout: Duration,
}

impl Target {
    /// A server on the loopback interface, without credentials.
    pub(crate) fn loopback(port: u16) -> Self {
        Self {
            address: Address::Tcp("127.0.0.1".into(), port),
            auth: None,
            db: 0,
            resp3: false,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A stream of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP, without delay of small segments.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A simple or bulk string, a number, a boolean: its text.
    Text(Vec<u8>),
    /// A null.
    Null,
    /// An error's text.
    Error(String),
    /// The elements of an array, set, push, or of a map in turn.
    List(Vec<Value>),
}

/// A connection that waits for its replies.
#[derive(Debug)]
pub(crate) struct Link {
    stream: BufReader<Stream>,
}

impl Link {
    /// Connects and goes through the handshake that `target` asks for.
    pub(crate) fn open(target: &Target) -> Result<Self, Fault> {
        let stream = connect(&target.address, target.timeout).map_err(|error| {
            Fault::failed(format!("cannot connect to {}: {error}", target.address))
        })?;
        let mut link = Self { stream: BufReader::with_capacity(1 << 16, stream) };
        let (user, password) = match target.auth.as_deref().map(|auth| auth.split_once(':')) {
            Some(Some((user, password))) => (Some(user), Some(password)),
            Some(None) => (None, target.auth.as_deref()),
            None => (None, None),
        };
        if target.resp3 {
            match password {
                Some(password) => {
                    link.expect(&["HELLO", "3", "AUTH", user.unwrap_or("default"), password])?;
                }
                None => link.expect(&["HELLO", "3"])?,
            }
        } else if let Some(password) = password {
            match user {
                Some(user) => link.expect(&["AUTH", user, password])?,
                None => link.expect(&["AUTH", password])?,
            }
        }
        if target.db != 0 {
            link.expect(&["SELECT", &target.db.to_string()])?;
        }
        Ok(link)
    }

    /// Sends one command and returns its reply.
    pub(crate) fn call(&mut self, words: &[&str]) -> Result<Value, Fault> {
        let mut wire = format!("*{}\r\n", words.len());
        for word in words {
            wire.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.exchange(wire.as_bytes(), 1).map(|mut values| values.remove(0))
    }

    /// Sends ready bytes and returns the `count` replies to them.
    pub(crate) fn exchange(&mut self, wire: &[u8], count: usize) -> Result<Vec<Value>, Fault> {
        let stream = self.stream.get_mut();
        stream.write_all(wire).map_err(|error| Fault::failed(format!("cannot send: {error}")))?;
        (0..count).map(|_| self.read()).collect()
    }

    /// The bare stream. No reply may be outstanding.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), Fault> {
        match self.call(words)? {
            Value::Error(text) => Err(Fault::failed(format!("{} refused: {text}", words[0]))),
            _ => Ok(()),
        }
    }

    fn read(&mut self) -> Result<Value, Fault> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        read.map_err(|error| Fault::failed(format!("cannot read a reply: {error}")))?;
        let line = line.trim_ascii_end();
        let Some((&kind, rest)) = line.split_first() else {
            return Err(Fault::failed("the server closed the connection"));
        };
        let text = String::from_utf8_lossy(rest);
        match kind {
            b'+' | b':' | b',' | b'#' | b'(' => Ok(Value::Text(rest.to_vec())),
            b'-' => Ok(Value::Error(text.into_owned())),
            b'_' => Ok(Value::Null),
            b'$' | b'=' | b'!' | b'*' | b'%' | b'~' | b'>' => {
                let count: i64 = text
                    .parse()
                    .map_err(|_| Fault::failed(format!("malformed reply header '{text}'")))?;
                match (usize::try_from(count), kind) {
                    (Err(_), _) => Ok(Value::Null),
                    (Ok(bytes), b'$' | b'=') => self.body(bytes).map(Value::Text),
                    (Ok(bytes), b'!') => self
                        .body(bytes)
                        .map(|body| Value::Error(String::from_utf8_lossy(&body).into_owned())),
                    (Ok(pairs), b'%') => self.list(pairs * 2),
                    (Ok(count), _) => self.list(count),
                }
            }
            other => Err(Fault::failed(format!("malformed reply of type 0x{other:02x}"))),
        }
    }

    fn list(&mut self, count: usize) -> Result<Value, Fault> {
        (0..count).map(|_| self.read()).collect::<Result<_, _>>().map(Value::List)
    }

    fn body(&mut self, bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut body = vec![0; bytes + 2];
        let read = self.stream.read_exact(&mut body);
        read.map_err(|error| Fault::failed(format!("cannot read a reply: {error}")))?;
        body.truncate(bytes);
        Ok(body)
    }
}

fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
    match address {
        Address::Tcp(host, port) => {
            let mut failure = io::Error::other("no such host");
            for candidate in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&candidate, timeout) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(timeout))?;
                        return Ok(Stream::Tcp(stream));
                    }
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            Ok(Stream::Unix(stream))
        }
    }
}
