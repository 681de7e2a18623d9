//! One connection of the admin port: bytes to calls, calls to replies, with every amount bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cordis_engine::commands::args::Args;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};
use cordis_engine::resp::reply::{OutBuf, Protocol, Reply};

use super::Admin;
use super::commands::{self, Next};
use crate::secret;

/// The longest word: a map of many groups.
const WORD_BYTES_MAX: usize = 16 << 20;
/// Input that is not a whole call yet.
const INPUT_BYTES_MAX: usize = WORD_BYTES_MAX + (1 << 20);
/// A connection that says nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// A peer that does not read its replies is closed.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Wrong secrets before a connection is closed, and what each one costs.
const GUESSES_MAX: u32 = 5;
const GUESS_DELAY: Duration = Duration::from_millis(100);

/// What a connection has said of itself.
#[derive(Debug)]
pub(super) struct Peer {
    /// Whether it has given the secret, or none is asked for.
    pub(super) authenticated: bool,
    /// HELLO.
    pub(super) protocol: Protocol,
    /// Our address of the connection: one under which this host is reached.
    pub(super) own: SocketAddr,
    guesses: u32,
}

/// Writes one error and closes.
pub(super) fn refuse(stream: &TcpStream, text: &str) {
    let mut stream = stream;
    // The peer may be gone already.
    let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
    let _ = stream.write_all(format!("-{text}\r\n").as_bytes());
}

/// Serves a connection to its end.
pub(super) fn serve(stream: &TcpStream, admin: &Admin) {
    let is_local = stream.peer_addr().is_ok_and(|addr| addr.ip().to_canonical().is_loopback());
    let needs_secret = !admin.settings.admin_auth.is_empty();
    if !needs_secret && !is_local {
        refuse(
            stream,
            "DENIED no admin_auth is set, so only this machine may connect to the admin port",
        );
        return;
    }
    let _ = stream.set_nodelay(true);
    let Ok(own) = stream.local_addr() else {
        return;
    };
    let limits = stream
        .set_read_timeout(Some(IDLE_MAX))
        .and_then(|()| stream.set_write_timeout(Some(WRITE_MAX)));
    if limits.is_err() {
        return;
    }
    let mut peer =
        Peer { authenticated: !needs_secret, protocol: Protocol::Resp2, own, guesses: 0 };
    // Whatever ends it: the peer left, or did not listen.
    let _ = talk(stream, admin, &mut peer);
}

fn talk(mut stream: &TcpStream, admin: &Admin, peer: &mut Peer) -> std::io::Result<()> {
    let mut input: Vec<u8> = Vec::new();
    let mut parser = Parser::default();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => input.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let mut out = OutBuf::default();
        let next = answer(admin, peer, &mut parser, &mut input, &mut out);
        stream.write_all(&out.to_vec())?;
        match next {
            Next::Stay if input.len() <= INPUT_BYTES_MAX => {}
            Next::Stay | Next::Close => return Ok(()),
            Next::Stop => {
                tracing::info!("asked to stop on the admin port");
                admin.host.stop();
                return Ok(());
            }
        }
    }
}

/// Answers every whole call of `input` and leaves the rest.
fn answer(
    admin: &Admin,
    peer: &mut Peer,
    parser: &mut Parser,
    input: &mut Vec<u8>,
    out: &mut OutBuf,
) -> Next {
    let mut at = 0;
    let next = loop {
        let limits = Limits { word_bytes_max: WORD_BYTES_MAX, authenticated: peer.authenticated };
        let mut ranges = Vec::new();
        let next = match parser.next(input, at, limits, &mut ranges) {
            Parsed::Call(end) => {
                let next = call(admin, peer, &Args::new(input, &ranges), out);
                at = end;
                next
            }
            Parsed::Inline(words, end) => {
                at = end;
                call(admin, peer, &words.args(), out)
            }
            Parsed::Nothing(end) => {
                at = end;
                Next::Stay
            }
            Parsed::Incomplete => break Next::Stay,
            Parsed::Error(error) => {
                Reply::new(out, peer.protocol).error(&error);
                break Next::Close;
            }
        };
        if !matches!(next, Next::Stay) {
            break next;
        }
    };
    input.drain(..at);
    next
}

fn call(admin: &Admin, peer: &mut Peer, args: &Args<'_>, out: &mut OutBuf) -> Next {
    let mark = out.mark();
    let result = run(admin, peer, args, &mut Reply::new(out, peer.protocol));
    match result {
        Ok(next) => next,
        Err(error) => {
            out.truncate(mark);
            Reply::new(out, peer.protocol).error(&error);
            if peer.guesses >= GUESSES_MAX { Next::Close } else { Next::Stay }
        }
    }
}

fn run(
    admin: &Admin,
    peer: &mut Peer,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Next, CommandError> {
    let command = commands::find(args)?;
    if !peer.authenticated && !command.before_login {
        return Err(CommandError::NO_AUTH);
    }
    (command.run)(admin, peer, args, reply)
}

impl Peer {
    /// Lets the peer in if it knows the secret.
    pub(super) fn log_in(&mut self, admin: &Admin, given: &[u8]) -> Result<(), CommandError> {
        let secret = admin.settings.admin_auth.as_bytes();
        if secret.is_empty() {
            return Err(CommandError::AUTH_WITHOUT_PASSWORD);
        }
        if !secret::is_same(secret, given) {
            self.guesses += 1;
            self.authenticated = false;
            tracing::warn!("a wrong secret was given on the admin port");
            std::thread::park_timeout(GUESS_DELAY);
            return Err(CommandError::WRONG_PASS);
        }
        self.authenticated = true;
        self.guesses = 0;
        Ok(())
    }
}
