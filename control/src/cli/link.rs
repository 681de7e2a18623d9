//! A connection to a control process: calls, one after the other, each within a deadline.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use cordis_engine::resp::value::{Value, ValueDecoder, ValueLimits, encode_call};

/// Time to connect.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Time that an answer may take: control asks servers meanwhile.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The words are wrong.
    Words(String),
    /// Control says no.
    Refused(String),
    /// There is no control process, or it does not answer.
    Unreachable(String),
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    decoder: ValueDecoder,
}

impl Link {
    /// Connects to the first of `addrs` that answers, and logs in if there is a secret.
    pub(crate) fn open(addrs: &str, secret: Option<&str>) -> Result<Self, Trouble> {
        let mut why = String::new();
        for addr in addrs.split(',').map(str::trim).filter(|addr| !addr.is_empty()) {
            match connect(addr) {
                Ok(stream) => {
                    let decoder = ValueDecoder::new(ValueLimits::default());
                    let mut link = Self { stream, decoder };
                    link.log_in(secret)?;
                    return Ok(link);
                }
                Err(error) => why = format!("no control process answers at {addr} ({error})"),
            }
        }
        if why.is_empty() {
            return Err(Trouble::Words("--control names no address".to_owned()));
        }
        Err(Trouble::Unreachable(format!("{why}; start one with `cordis up`, or see --control")))
    }

    fn log_in(&mut self, secret: Option<&str>) -> Result<(), Trouble> {
        if let Some(secret) = secret {
            self.call(&["AUTH", secret])?;
        }
        // RESP3 tells maps from arrays.
        self.call(&["HELLO", "3"]).map(|_| ())
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Value, Trouble> {
        let mut bytes = Vec::new();
        encode_call(words, &mut bytes);
        let lost = |what: &dyn std::fmt::Display| {
            Trouble::Unreachable(format!("the control process does not answer ({what})"))
        };
        self.stream.write_all(&bytes).map_err(|error| lost(&error))?;
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.decoder.next_value().map_err(|error| lost(&error))? {
                Some(Value::Error(text)) => {
                    let text = text.strip_prefix("ERR ").unwrap_or(&text);
                    return Err(Trouble::Refused(text.to_owned()));
                }
                Some(Value::Push(_)) => continue,
                Some(value) => return Ok(value),
                None => {}
            }
            match self.stream.read(&mut buffer).map_err(|error| lost(&error))? {
                0 => return Err(lost(&"it closed the connection")),
                n => self.decoder.extend(&buffer[..n]),
            }
        }
    }
}

fn connect(addr: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no such address");
    for addr in addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, CONNECT_TIME) {
            Ok(stream) => {
                stream.set_read_timeout(Some(ANSWER_TIME))?;
                stream.set_write_timeout(Some(ANSWER_TIME))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
