//! A short conversation with a process of the cluster over RESP.

use std::time::Duration;

use cordis_engine::resp::value::{Value, ValueDecoder, ValueLimits, encode_call};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time to connect, on this machine.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Time for an answer: control asks servers meanwhile.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// The conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    stream: TcpStream,
    decoder: ValueDecoder,
}

impl Talk {
    /// Connects to a port of this machine.
    pub(crate) async fn open(port: u16) -> Result<Self, String> {
        let connected = timeout(CONNECT_TIME, TcpStream::connect(("127.0.0.1", port))).await;
        match connected {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                Ok(Self { stream, decoder: ValueDecoder::new(ValueLimits::default()) })
            }
            Ok(Err(error)) => Err(format!("port {port}: {error}")),
            Err(_) => Err(format!("port {port} does not answer")),
        }
    }

    /// Asks for something and waits for the answer; an error reply is an error here.
    pub(crate) async fn call(&mut self, words: &[&str]) -> Result<Value, String> {
        let mut bytes = Vec::new();
        encode_call(words, &mut bytes);
        let answer = timeout(ANSWER_TIME, self.exchange(&bytes)).await;
        match answer {
            Ok(Ok(Value::Error(text))) => Err(text),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no answer to {}", words.join(" "))),
        }
    }

    async fn exchange(&mut self, bytes: &[u8]) -> Result<Value, String> {
        self.stream.write_all(bytes).await.map_err(|error| error.to_string())?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            if let Some(value) = self.decoder.next_value().map_err(|error| error.to_string())? {
                return Ok(value);
            }
            match self.stream.read(&mut buffer).await.map_err(|error| error.to_string())? {
                0 => return Err("the connection was closed".to_owned()),
                n => self.decoder.extend(&buffer[..n]),
            }
        }
    }
}
