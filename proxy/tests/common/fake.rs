//! A backend that answers as a test wants it to: with refusals, nonsense, or not at all.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cordis_engine::commands::args::Args;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};

/// What a fake backend does about a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// It sends these bytes.
    Send(Vec<u8>),
    /// It says nothing.
    Silence,
    /// It sends these bytes and closes the connection.
    SendAndClose(Vec<u8>),
}

impl Act {
    /// A reply of this text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }
}

type Script = dyn Fn(&[String]) -> Act + Send + Sync;

/// A listening fake. Its threads end with their connections.
#[derive(Debug)]
pub(crate) struct Fake {
    /// Where it listens.
    pub(crate) port: u16,
}

impl Fake {
    /// A backend that asks `script` about each request, greetings aside: those it accepts.
    pub(crate) fn start(script: impl Fn(&[String]) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = script.clone();
                std::thread::spawn(move || serve(stream, &*script));
            }
        });
        Self { port }
    }

    /// Its address.
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn serve(mut stream: TcpStream, script: &Script) {
    let limits = Limits { word_bytes_max: 64 << 20, authenticated: true };
    let (mut parser, mut input, mut chunk) = (Parser::default(), Vec::new(), vec![0; 64 << 10]);
    // A test that hangs must not leave threads behind for ever.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..n]);
        let mut at = 0;
        loop {
            let mut ranges = Vec::new();
            let Parsed::Call(next) = parser.next(&input, at, limits, &mut ranges) else {
                break;
            };
            let args = Args::new(&input, &ranges);
            let words: Vec<String> =
                args.iter_from(0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            at = next;
            let act = match words[0].to_ascii_uppercase().as_str() {
                "SELECT" | "AUTH" => Act::text("+OK\r\n"),
                "CORDIS" => Act::text("-ERR unknown command\r\n"),
                "CLIENT" => Act::text(":7\r\n"),
                _ => script(&words),
            };
            let (bytes, closes) = match act {
                Act::Send(bytes) => (bytes, false),
                Act::Silence => continue,
                Act::SendAndClose(bytes) => (bytes, true),
            };
            if stream.write_all(&bytes).is_err() || closes {
                return;
            }
        }
        input.drain(..at);
    }
}
