//! One connection to one peer: dialled when there is something to ask, kept while it answers,
//! closed with the first thing that goes wrong. One question at a time; each gets its answer, or is
//! lost by its deadline.

use std::time::Duration;

use cordis_engine::resp::value::{Value, ValueDecoder, ValueLimits, encode_call};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::{Next, Talk};
use super::{PeerKind, Secrets};
use crate::machine::request::{Answer, Request};

/// How long a connection may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(2);

/// A connection, or none yet.
pub(super) struct Link {
    addr: String,
    secrets: Secrets,
    socket: Option<Socket>,
}

struct Socket {
    stream: TcpStream,
    decoder: ValueDecoder,
    /// What was authenticated for: a stranger's role may only show later.
    kind: PeerKind,
}

impl Link {
    pub(super) fn new(addr: String, secrets: Secrets) -> Self {
        Self { addr, secrets, socket: None }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, request: &Request, is_proxy: bool) -> Answer {
        let kind = if is_proxy { PeerKind::Proxy } else { PeerKind::Server };
        let answer = match self.try_ask(request, kind).await {
            Ok(answer) => answer,
            Err(why) => Answer::Lost(why),
        };
        if matches!(answer, Answer::Lost(_)) {
            // A late reply would pass for the next question's.
            self.socket = None;
        }
        answer
    }

    async fn try_ask(&mut self, request: &Request, kind: PeerKind) -> Result<Answer, String> {
        if self.socket.as_ref().is_some_and(|socket| socket.kind != kind) {
            self.socket = None;
        }
        if self.socket.is_none() {
            self.socket = Some(self.connect(kind).await?);
        }
        let Some(socket) = &mut self.socket else {
            return Err("no connection".into());
        };
        let (mut talk, mut next) = Talk::new(request);
        loop {
            match next {
                Next::Done(answer) => return Ok(answer),
                Next::Call(mut words) => {
                    if matches!(request, Request::MapSet(_)) && kind == PeerKind::Server {
                        words.insert(0, b"CORDIS".to_vec());
                    }
                    let reply = socket.call(&words, call_max(request)).await?;
                    next = talk.reply(&reply);
                }
            }
        }
    }

    async fn connect(&self, kind: PeerKind) -> Result<Socket, String> {
        let dialled = timeout(CONNECT_MAX, TcpStream::connect(&self.addr)).await;
        let stream = dialled
            .map_err(|_| "no connection within a second".to_owned())?
            .map_err(|why| why.to_string())?;
        // Small calls that each wait for their reply: nothing may be held back.
        stream.set_nodelay(true).map_err(|why| why.to_string())?;
        let decoder = ValueDecoder::new(ValueLimits::default());
        let mut socket = Socket { stream, decoder, kind };
        let auth = match kind {
            PeerKind::Server => &self.secrets.product_auth,
            PeerKind::Proxy => &self.secrets.proxy_auth,
        };
        if !auth.is_empty() {
            socket.expect_ok(&[b"AUTH", auth.as_bytes()]).await?;
        }
        if kind == PeerKind::Server && !self.secrets.cluster_secret.is_empty() {
            let secret = self.secrets.cluster_secret.as_bytes();
            // A codis-server knows no such command, and needs none.
            match socket.expect_ok(&[b"CORDIS", b"AUTH", secret]).await {
                Err(why) if !why.contains("unknown command") => return Err(why),
                _ => {}
            }
        }
        Ok(socket)
    }
}

/// The original's calls take as long as they were told they may.
fn call_max(request: &Request) -> Duration {
    match request {
        Request::Carry { timeout_ms, .. } => CALL_MAX + Duration::from_millis(*timeout_ms),
        _ => CALL_MAX,
    }
}

impl Socket {
    async fn expect_ok(&mut self, words: &[&[u8]]) -> Result<(), String> {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        match self.call(&words, CALL_MAX).await? {
            Value::Error(why) => Err(why),
            _ => Ok(()),
        }
    }

    async fn call(&mut self, words: &[Vec<u8>], max: Duration) -> Result<Value, String> {
        let mut bytes = Vec::new();
        encode_call(words, &mut bytes);
        let exchanged = timeout(max, self.exchange(&bytes)).await;
        exchanged.map_err(|_| format!("no reply within {} ms", max.as_millis()))?
    }

    async fn exchange(&mut self, bytes: &[u8]) -> Result<Value, String> {
        if !self.decoder.is_empty() {
            return Err("it sent what nobody asked for".into());
        }
        self.stream.write_all(bytes).await.map_err(|why| why.to_string())?;
        let mut piece = [0; 16 * 1024];
        loop {
            if let Some(reply) = self.decoder.next_value().map_err(|why| why.to_string())? {
                return Ok(reply);
            }
            match self.stream.read(&mut piece).await {
                Ok(0) => return Err("it closed the connection".into()),
                Ok(count) => self.decoder.extend(&piece[..count]),
                Err(why) => return Err(why.to_string()),
            }
        }
    }
}
