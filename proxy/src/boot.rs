//! What must be right before the cores start, each with a line that says what to do if it is not.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use cordis_engine::process::DirLock;
use cordis_engine::sys::{affinity, limits, socket};
use cordis_proxy::config::Settings;
use cordis_proxy::listen;

/// Files that the process has open whoever connects: log, lock, admin connections.
const PROCESS_FILES: u64 = 128;
/// Files of one core: its ring, its letter box, links to some servers.
const CORE_FILES: u64 = 256;

/// What the cores start with, and what must be kept as long as they run.
#[derive(Debug)]
pub(crate) struct Ready {
    /// CPUs to pin cores to.
    pub(crate) cpus: Vec<usize>,
    /// Sockets that clients connect to.
    pub(crate) listeners: Vec<OwnedFd>,
    /// Where they listen.
    pub(crate) proxy_addr: String,
    /// The socket that administrators connect to.
    pub(crate) admin: TcpListener,
    /// Number of clients that were asked for, if that many cannot be served.
    pub(crate) clients_lowered_from: Option<usize>,
    /// Lock of the directory.
    pub(crate) lock: DirLock,
}

/// Checks the machine and takes what the settings name.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn prepare(settings: &mut Settings) -> Result<Ready, String> {
    limits::check_kernel()?;
    limits::ensure_memlock()?;
    let cpus = choose_cpus(&settings.cores)?;
    let clients_lowered_from = fit_open_files(settings, cpus.len())?;
    limits::check_io_uring()?;
    let lock = DirLock::take(&settings.dir, "cordis-proxy", "cordis-proxy.lock")?;
    let listeners = listen::clients(settings)?;
    let proxy_addr = listeners.first().map(socket::local_name).unwrap_or_default();
    let admin = listen::admin(settings, "--admin-addr")?;
    Ok(Ready { cpus, listeners, proxy_addr, admin, clients_lowered_from, lock })
}

/// The CPUs asked for, or the first that may be used: one core of a proxy serves many of a server.
fn choose_cpus(wanted: &[usize]) -> Result<Vec<usize>, String> {
    let allowed = affinity::allowed_cpus()
        .map_err(|error| format!("cannot read which CPUs this process may use: {error}"))?;
    if wanted.is_empty() {
        return Ok(allowed.into_iter().take(1).collect());
    }
    match wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(wanted.to_vec()),
        Some(cpu) => {
            let list: Vec<String> = allowed.iter().map(usize::to_string).collect();
            let list = list.join(",");
            Err(format!("CPU {cpu} may not be used by this process: choose --cores from {list}"))
        }
    }
}

/// Raises the limit of open files for the clients, or lowers their number to what the limit allows
/// and returns what it was.
fn fit_open_files(settings: &mut Settings, core_count: usize) -> Result<Option<usize>, String> {
    let reserve = PROCESS_FILES + CORE_FILES * core_count as u64;
    let wanted = settings.proxy_max_clients;
    let files = limits::raise_open_files(wanted as u64 + reserve)?;
    let ceiling = files.saturating_sub(reserve);
    if ceiling == 0 {
        return Err(format!(
            "only {files} files may be open and {} are needed for one client: set \
             `ulimit -n 10240` or LimitNOFILE=10240",
            reserve + 1
        ));
    }
    settings.proxy_max_clients = wanted.min(usize::try_from(ceiling).unwrap_or(usize::MAX));
    Ok((settings.proxy_max_clients < wanted).then_some(wanted))
}
