//! One connection to the admin port: bytes to calls, replies to bytes, and who may ask.

use cordis_engine::resp::parse::{Limits, Parsed, Parser};
use cordis_engine::resp::reply::Protocol;
use cordis_engine::resp::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::secret::is_same;
use super::table;
use super::{Asking, ask};

/// Bytes of a call at most.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Wrong secrets before the connection is closed.
const WRONG_SECRETS_MAX: u32 = 3;

/// A connection.
struct Session<'s> {
    secret: &'s str,
    is_known: bool,
    wrong_secrets: u32,
    protocol: Protocol,
    is_over: bool,
}

/// Serves a connection until it ends.
pub(super) async fn serve(mut stream: TcpStream, secret: String, asking: Asking) {
    let mut session = Session {
        is_known: secret.is_empty(),
        secret: &secret,
        wrong_secrets: 0,
        protocol: Protocol::Resp2,
        is_over: false,
    };
    // A client that went away, or sends what is no call, has nobody left to be told.
    drop(session.run(&mut stream, &asking).await);
}

impl Session<'_> {
    async fn run(&mut self, stream: &mut TcpStream, asking: &Asking) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        let mut parser = Parser::default();
        loop {
            let count = stream.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&piece[..count]);
            let mut at = 0;
            while at < bytes.len() && !self.is_over {
                let mut ranges = Vec::new();
                let limits =
                    Limits { word_bytes_max: CALL_BYTES_MAX, authenticated: self.is_known };
                let call: Vec<Vec<u8>> = match parser.next(&bytes, at, limits, &mut ranges) {
                    Parsed::Call(next) => {
                        at = next;
                        let word = |from: u32, to: u32| bytes[from as usize..to as usize].to_vec();
                        ranges.iter().map(|range| word(range.start, range.end)).collect()
                    }
                    Parsed::Inline(words, next) => {
                        at = next;
                        words.args().iter_from(0).map(<[u8]>::to_vec).collect()
                    }
                    Parsed::Nothing(next) => {
                        at = next;
                        continue;
                    }
                    Parsed::Incomplete => break,
                    Parsed::Error(error) => {
                        self.is_over = true;
                        self.send(stream, &Value::Error(error.text().to_owned())).await?;
                        break;
                    }
                };
                let reply = self.answer(&call, asking).await;
                self.send(stream, &reply).await?;
            }
            if self.is_over {
                return stream.shutdown().await;
            }
            bytes.drain(..at);
            if bytes.len() > 2 * CALL_BYTES_MAX {
                self.send(stream, &Value::Error("ERR the call is too long".into())).await?;
                return Ok(());
            }
        }
    }

    async fn send(&self, stream: &mut TcpStream, reply: &Value) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        reply.encode(self.protocol, &mut bytes);
        stream.write_all(&bytes).await
    }

    async fn answer(&mut self, call: &[Vec<u8>], asking: &Asking) -> Value {
        let texts: Option<Vec<&str>> =
            call.iter().map(|word| std::str::from_utf8(word).ok()).collect();
        let Some(words) = texts else {
            return Value::Error("ERR words must be UTF-8".into());
        };
        let first = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        match (first.as_str(), &words[1.min(words.len())..]) {
            ("AUTH", [secret] | [_, secret]) => self.auth(secret),
            ("HELLO", args) => self.hello(args),
            ("QUIT", _) => {
                self.is_over = true;
                Value::simple("OK")
            }
            _ if !self.is_known => Value::Error("NOAUTH Authentication required.".into()),
            // `redis-cli` keeps HELP to itself.
            ("COMMAND", [help, rest @ ..]) if help.eq_ignore_ascii_case("HELP") => {
                let words: Vec<&str> =
                    std::iter::once("HELP").chain(rest.iter().copied()).collect();
                match table::read(&words) {
                    Ok(asked) => ask(asking, asked).await,
                    Err(why) => Value::Error(why),
                }
            }
            // What clients ask when they connect, and need no answer to.
            ("COMMAND", _) => Value::Array(Vec::new()),
            ("CLIENT", _) => Value::simple("OK"),
            _ => match table::read(&words) {
                Ok(asked) => ask(asking, asked).await,
                Err(why) => Value::Error(why),
            },
        }
    }

    fn auth(&mut self, given: &str) -> Value {
        if self.secret.is_empty() {
            return Value::Error("ERR this control process has no secret".into());
        }
        if is_same(self.secret.as_bytes(), given.as_bytes()) {
            self.is_known = true;
            return Value::simple("OK");
        }
        self.wrong_secrets += 1;
        self.is_over = self.wrong_secrets >= WRONG_SECRETS_MAX;
        Value::Error("WRONGPASS invalid secret".into())
    }

    fn hello(&mut self, args: &[&str]) -> Value {
        let (version, mut rest) = match args.split_first() {
            None => (None, args),
            Some((version, rest)) => (Some(*version), rest),
        };
        let protocol = match version {
            None => self.protocol,
            Some("2") => Protocol::Resp2,
            Some("3") => Protocol::Resp3,
            Some(_) => return Value::Error("NOPROTO unsupported protocol version".into()),
        };
        while let [option, tail @ ..] = rest {
            match (option.to_ascii_uppercase().as_str(), tail) {
                ("AUTH", [_, secret, tail @ ..]) => {
                    if let error @ Value::Error(_) = self.auth(secret) {
                        return error;
                    }
                    rest = tail;
                }
                ("SETNAME", [_, tail @ ..]) => rest = tail,
                _ => return Value::Error("ERR syntax error in HELLO".into()),
            }
        }
        if !self.is_known {
            return Value::Error("NOAUTH Authentication required.".into());
        }
        self.protocol = protocol;
        let proto = if protocol == Protocol::Resp3 { 3 } else { 2 };
        let pair = |name: &str, value| (Value::text(name), value);
        Value::Map(vec![
            pair("server", Value::text("cordis-control")),
            pair("version", Value::text(env!("CARGO_PKG_VERSION"))),
            pair("proto", Value::Int(proto)),
            pair("mode", Value::text("control")),
            pair("role", Value::text("control")),
            pair("modules", Value::Array(Vec::new())),
        ])
    }
}
