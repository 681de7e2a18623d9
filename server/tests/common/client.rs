//! A client that sends bytes and reads whole replies as bytes. It interprets nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::shared::{reply, words};

/// How long a reply may take before a test gives up.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// Bytes received; those before `start` belong to replies that have been taken.
    received: Vec<u8>,
    start: usize,
}

impl Client {
    /// Connects to a port of this machine.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self { stream, received: Vec::new(), start: 0 })
    }

    /// The socket, for what a polite client would not do.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Replaces the time that a reply may take.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        let set = self.stream.set_read_timeout(Some(timeout));
        set.expect("a timeout that is not zero is accepted");
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a call.
    pub(crate) fn send_call<W: AsRef<[u8]>>(&mut self, call: &[W]) -> io::Result<()> {
        self.send(&words::encoded(call))
    }

    /// Reads one reply.
    pub(crate) fn read_reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let bytes = &self.received[self.start..];
            let found = reply::frame_len(bytes).map_err(|what| self.protocol_error(&what))?;
            if let Some(len) = found {
                let reply = bytes[..len].to_vec();
                self.start += len;
                if self.start == self.received.len() {
                    self.received.clear();
                    self.start = 0;
                }
                return Ok(reply);
            }
            self.read_more()?;
        }
    }

    fn protocol_error(&self, what: &str) -> io::Error {
        let rest = &self.received[self.start..];
        let shown = words::escaped(&rest[..rest.len().min(200)]);
        io::Error::new(io::ErrorKind::InvalidData, format!("{what} in {shown}"))
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.received.extend_from_slice(&chunk[..n]);
                Ok(())
            }
        }
    }

    /// Sends a call and reads its reply.
    pub(crate) fn try_call<W: AsRef<[u8]>>(&mut self, call: &[W]) -> io::Result<Vec<u8>> {
        self.send_call(call)?;
        self.read_reply()
    }

    /// Sends a line as words and reads the reply.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn call(&mut self, line: &str) -> Vec<u8> {
        let call = words::split(line).unwrap_or_else(|| panic!("bad quotes: {line}"));
        self.try_call(&call).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The reply to a line, as text.
    pub(crate) fn text(&mut self, line: &str) -> String {
        String::from_utf8_lossy(&self.call(line)).into_owned()
    }

    /// Everything until the server closes, or cuts the connection. `Err` if it does neither.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return Ok(self.received.split_off(self.start)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the server has closed. Does not wait; what has come is kept.
    pub(crate) fn is_closed(&mut self) -> bool {
        let nonblocking = self.stream.set_nonblocking(true);
        nonblocking.expect("a socket can be made nonblocking");
        let closed = loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) => break is_closed(&error),
            }
        };
        let blocking = self.stream.set_nonblocking(false);
        blocking.expect("a socket can be made blocking");
        closed
    }
}

/// Whether an error means that the connection is gone.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
