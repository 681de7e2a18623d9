//! The admin port: RESP over TCP, for people with `redis-cli`, for the `cordis` command line and for
//! proxies that announce themselves. Sessions read calls and write replies; what they ask for is
//! done by the one who owns the machine (`run.rs`), in the order in which it arrives there.

use std::net::SocketAddr;
use std::sync::Arc;

use cordis_engine::process::listen_patiently;
use cordis_engine::resp::value::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

mod secret;
mod session;
pub mod show;
pub mod table;

use table::Asked;

/// Connections at once. More wait in the system's queue.
const SESSIONS_MAX: usize = 128;

/// A question of a session, and where its reply goes.
pub type Asking = mpsc::Sender<(Asked, oneshot::Sender<Value>)>;

/// Opens the admin port.
///
/// # Errors
/// If it cannot be opened, or anybody could use it: without a secret it must be on loopback.
pub async fn listen(addr: &str, secret: &str) -> Result<TcpListener, String> {
    let socket: SocketAddr =
        addr.parse().map_err(|_| format!("admin address '{addr}' must be ip:port"))?;
    if secret.is_empty() && !socket.ip().is_loopback() {
        return Err(format!("admin address {addr} is not on loopback: it needs an admin secret"));
    }
    // Nothing else runs yet that would be held up.
    let bound = listen_patiently(addr, || std::net::TcpListener::bind(socket));
    let listener = bound.and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listener.map_err(|why| format!("cannot listen on {addr}: {why}"))
}

/// Takes connections in for ever.
pub async fn serve(listener: TcpListener, secret: String, asking: Asking) {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (secret, asking) = (secret.clone(), asking.clone());
                tokio::task::spawn_local(async move {
                    session::serve(stream, secret, asking).await;
                    drop(place);
                });
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept a connection");
                // Out of descriptors, most likely: they come back with time.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Asks whoever owns the machine.
async fn ask(asking: &Asking, asked: Asked) -> Value {
    let (sender, receiver) = oneshot::channel();
    let gone = || Value::Error("ERR control is shutting down".into());
    if asking.send((asked, sender)).await.is_err() {
        return gone();
    }
    receiver.await.unwrap_or_else(|_| gone())
}
