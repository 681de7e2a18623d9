//! The admin port: RESP over TCP, for control and for `redis-cli`. Its connections live in threads of
//! their own, so that no core ever waits for an administrator. Knows the proxy only through
//! [`Host`].

mod announce;
mod commands;
mod conn;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cordis_engine::node::Node;

pub use self::announce::announce;
pub use self::commands::COMMANDS;
use crate::config::Settings;
use crate::map_file::MapStore;
use crate::stats::Stats;

/// Connections at the same time. Control needs one, people a few.
const CONNECTIONS_MAX: usize = 64;
/// How long a map may take to reach every core before whoever set it hears of it.
pub(crate) const ADOPT_LIMIT: Duration = Duration::from_secs(2);

/// The running proxy, as administrators see and steer it.
pub trait Host: Send + Sync {
    /// Milliseconds on a clock of the proxy's own that only goes forward.
    fn clock_ms(&self) -> u64;
    /// Lets slots that need a lease be served until then. Never makes it shorter.
    fn lease_until(&self, clock_ms: u64);
    /// When the lease ends.
    fn lease_ends_ms(&self) -> u64;
    /// The epoch of the map that every core works with, having let go of older routes.
    fn adopted_epoch(&self) -> u64;
    /// The engine's view of this process: settings for clients, slow calls.
    fn node(&self) -> &'static Node;
    /// All counters.
    fn stats(&self) -> Stats;
    /// Sets the counters to zero.
    fn reset_stats(&self);
    /// Facts for people: the text of INFO.
    fn info(&self, sections: Vec<String>) -> String;
    /// Changes the least severity that is logged.
    fn set_log_level(&self, word: &str);
    /// Ends the process in good order.
    fn stop(&self);
}

/// What the admin port serves.
pub struct Admin {
    /// Settings.
    pub settings: Arc<Settings>,
    /// The map.
    pub maps: Arc<MapStore>,
    /// The running proxy.
    pub host: Box<dyn Host>,
    /// Names this run.
    pub token: String,
    /// The client address as others reach it.
    pub proxy_addr: String,
    /// The admin address as others reach it.
    pub admin_addr: String,
    /// The least severity that is logged, as it was last set.
    pub log_level: Mutex<String>,
    /// Calls per second, between the last two looks.
    pub rate: Mutex<Rate>,
}

/// A count that is looked at now and then, as a rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    at_ms: u64,
    count: u64,
    per_second: u64,
}

impl Rate {
    /// Two looks closer than this give the same rate: several may look.
    const STEP_MS: u64 = 500;

    /// The rate, with the count at this time.
    pub fn look(&mut self, clock_ms: u64, count: u64) -> u64 {
        let gone_ms = clock_ms.saturating_sub(self.at_ms);
        if gone_ms >= Self::STEP_MS {
            // After a reset the count is below the last one.
            let new = count.checked_sub(self.count).unwrap_or(count);
            self.per_second = new.saturating_mul(1000) / gone_ms;
            (self.at_ms, self.count) = (clock_ms, count);
        }
        self.per_second
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The running admin port.
#[derive(Debug)]
pub struct AdminPort {
    addr: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl AdminPort {
    /// Serves on `listener`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(listener: TcpListener, admin: Arc<Admin>) -> std::io::Result<Self> {
        let addr = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let accept = move || accept(&listener, &admin, &stop);
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(accept)?;
        Ok(Self { addr, stopping, thread })
    }

    /// Takes no connection any more. Those that are open end with the process.
    pub fn stop(self) {
        // Ordering: relaxed; the connection below wakes the thread, and carries nothing else.
        self.stopping.store(true, Ordering::Relaxed);
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(match addr {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        if TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_ok() {
            // It has nothing left to do that could fail.
            let _ = self.thread.join();
        }
    }
}

/// Counts a connection for as long as it is open.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        // Ordering: relaxed; a count.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, admin: &Arc<Admin>, stop: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // Descriptors have run out, or the peer is gone: the next one may be luckier.
            std::thread::park_timeout(Duration::from_millis(50));
            continue;
        };
        let seat = Seat(open.clone());
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            conn::refuse(&stream, "ERR max number of admin connections reached");
            continue;
        }
        let admin = admin.clone();
        let serve = move || {
            let _seat = seat;
            conn::serve(&stream, &admin);
        };
        if let Err(error) = std::thread::Builder::new().name("admin-conn".to_owned()).spawn(serve) {
            tracing::warn!(%error, "no thread for an admin connection");
        }
    }
}

#[cfg(test)]
mod tests;
