//! What must be right before the cores start, each with a line that says what to do if it is not.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use cordis_engine::config::Config;
use cordis_engine::config::spec::CORES_MAX;
use cordis_engine::process::{DirLock, listen_patiently};
use cordis_engine::runtime::turn::Listener;
use cordis_engine::sys::{affinity, limits, socket};
use cordis_proxy::config::Settings;

use crate::proxy;

/// Files that the process has open whoever connects: log, lock, standard streams, file I/O.
const PROCESS_FILES: u64 = 32;
/// Files of one core: its ring, its executor's rings, timers and doorbells.
const CORE_FILES: u64 = 16;

/// What the cores start with, and what must be kept as long as they run.
#[derive(Debug)]
pub(crate) struct Ready {
    /// CPUs to pin cores to.
    pub(crate) cpus: Vec<usize>,
    /// Listening sockets.
    pub(crate) listeners: Vec<Listener>,
    /// Number of clients that were asked for, if that many cannot be served.
    pub(crate) maxclients_lowered_from: Option<usize>,
    /// Lock of the directory.
    pub(crate) lock: DirLock,
}

/// Checks the machine and takes what the settings name.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn prepare(config: &Config, proxy: Option<&Settings>) -> Result<Ready, String> {
    limits::check_kernel()?;
    limits::ensure_memlock()?;
    let cpus = choose_cpus(&config.cpus())?;
    let others = proxy.map_or(0, |settings| proxy::files(settings, cpus.len()));
    let maxclients_lowered_from = fit_open_files(config, cpus.len(), others)?;
    limits::check_io_uring()?;
    let lock = DirLock::take(&config.dir(), "cordis-server", "cordis.lock")?;
    if let Some(path) = lock.dir.to_str() {
        // CONFIG GET shows where the files are, not how that was spelt.
        config.set_at_start("dir", path)?;
    }
    let listeners = listen(config)?;
    Ok(Ready { cpus, listeners, maxclients_lowered_from, lock })
}

/// The CPUs asked for, or all that may be used.
fn choose_cpus(wanted: &[usize]) -> Result<Vec<usize>, String> {
    let allowed = affinity::allowed_cpus()
        .map_err(|error| format!("cannot read which CPUs this process may use: {error}"))?;
    if wanted.is_empty() {
        let quota = affinity::quota_cpu_count().unwrap_or(CORES_MAX);
        return Ok(allowed.into_iter().take(quota.min(CORES_MAX)).collect());
    }
    let online = affinity::online_cpus().unwrap_or_else(|| allowed.clone());
    check_cpus(wanted, &allowed, &online)?;
    Ok(wanted.to_vec())
}

fn check_cpus(wanted: &[usize], allowed: &[usize], online: &[usize]) -> Result<(), String> {
    for cpu in wanted {
        if !online.contains(cpu) {
            let online = ranges(online);
            return Err(format!("CPU {cpu} is not online: choose --cores from {online}"));
        }
        if !allowed.contains(cpu) {
            let allowed = ranges(allowed);
            return Err(format!(
                "CPU {cpu} may not be used by this process: choose --cores from {allowed}, or \
                 widen its cpuset or taskset mask"
            ));
        }
    }
    Ok(())
}

/// Ascending numbers as `0-3,8`.
pub(crate) fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let part = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// Raises the limit of open files for `maxclients` and these others, or lowers `maxclients` to what
/// the limit allows and returns what it was.
fn fit_open_files(
    config: &Config,
    core_count: usize,
    others: u64,
) -> Result<Option<usize>, String> {
    let reserve = PROCESS_FILES + CORE_FILES * core_count as u64 + others;
    let wanted = config.maxclients();
    let files = limits::raise_open_files(wanted as u64 + reserve)?;
    let ceiling = files.saturating_sub(reserve);
    if ceiling == 0 {
        let least = reserve + 1;
        return Err(format!(
            "only {files} files may be open and {least} are needed for one client: set \
             `ulimit -n 10240` or LimitNOFILE=10240"
        ));
    }
    config.limit_maxclients(u32::try_from(ceiling).unwrap_or(u32::MAX));
    Ok((config.maxclients() < wanted).then_some(wanted))
}

fn listen(config: &Config) -> Result<Vec<Listener>, String> {
    let (port, backlog) = (config.port(), config.tcp_backlog());
    let mut listeners = Vec::new();
    if port != 0 {
        for word in config.bind().split_whitespace() {
            listen_at(word, port, backlog, &mut listeners)?;
        }
    }
    let path = config.unixsocket();
    if !path.is_empty() {
        let permissions = config.unixsocketperm();
        let fd = listen_patiently(&path, || {
            socket::listen_unix(Path::new(&*path), permissions, backlog)
        });
        let fd = fd.map_err(|error| unix_advice(&path, &error))?;
        listeners.push(Listener { fd, is_unix: true, is_tenants: false });
    }
    if listeners.is_empty() {
        return Err("there is nothing to listen on: set --port and --bind, or --unixsocket".into());
    }
    Ok(listeners)
}

fn listen_at(
    word: &str,
    port: u16,
    backlog: i32,
    listeners: &mut Vec<Listener>,
) -> Result<(), String> {
    // Redis: the dash makes an address optional, so that one default suits hosts without IPv6.
    let (word, is_optional) = match word.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    let addresses = match socket::resolve(word, port) {
        Ok(addresses) => addresses,
        Err(_) if is_optional => return Ok(()),
        Err(error) => {
            return Err(format!("'{word}' is no address ({error}): correct --bind"));
        }
    };
    for address in addresses {
        match listen_patiently(&address.to_string(), || socket::listen_tcp(address, backlog)) {
            Ok(fd) => {
                listeners.push(Listener { fd, is_unix: false, is_tenants: false });
            }
            Err(error) if is_optional && is_missing(&error) => {}
            Err(error) => return Err(tcp_advice(address, &error)),
        }
    }
    Ok(())
}

/// Whether this host has no such address, or none of that kind.
fn is_missing(error: &io::Error) -> bool {
    // EAFNOSUPPORT, EPROTONOSUPPORT and EPFNOSUPPORT have no kind of their own.
    const NO_SUCH_FAMILY: [i32; 3] = [97, 93, 96];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error().is_some_and(|errno| NO_SUCH_FAMILY.contains(&errno))
}

fn tcp_advice(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} of {} is in use: stop what listens there, or choose another with --port",
            address.ip()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} may not be used ({error}): choose one above 1023 with --port, or grant \
             CAP_NET_BIND_SERVICE"
        ),
        _ if is_missing(error) => {
            format!("this host has no address {}: correct --bind", address.ip())
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

fn unix_advice(path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another server listens on {path}: stop it, or choose another path with --unixsocket"
        ),
        io::ErrorKind::AlreadyExists => format!(
            "{path} exists and is no socket: remove it, or choose another path with --unixsocket"
        ),
        _ => format!("cannot listen on {path}: {error}; choose another path with --unixsocket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_compact() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn cpus_that_cannot_be_used_are_named() {
        assert_eq!(check_cpus(&[1, 0], &[0, 1], &[0, 1]), Ok(()));
        let error = check_cpus(&[9], &[0, 1], &[0, 1]).expect_err("there is none");
        assert_eq!(error, "CPU 9 is not online: choose --cores from 0-1");
        let error = check_cpus(&[1], &[0], &[0, 1]).expect_err("it is not ours");
        assert!(error.contains("may not be used") && error.contains("from 0,"));
    }

    #[test]
    fn nothing_to_listen_on_is_refused() {
        let config = Config::default();
        config.set_at_start("port", "0").expect("it is a port");
        let error = listen(&config).expect_err("there is nothing");
        assert!(error.contains("--unixsocket"));
    }

    #[test]
    fn port_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let port = taken.local_addr().expect("it is bound").port();
        let mut listeners = Vec::new();
        let error = listen_at("127.0.0.1", port, 16, &mut listeners).expect_err("it is taken");
        assert!(error.contains(&format!("port {port} of 127.0.0.1 is in use")), "{error}");
        // An address of a net for documentation, which no host has.
        let error = listen_at("203.0.113.7", port, 16, &mut listeners).expect_err("not ours");
        assert!(error.contains("no address 203.0.113.7"), "{error}");
        assert_eq!(listen_at("-203.0.113.7", port, 16, &mut listeners), Ok(()));
        assert!(listeners.is_empty());
    }
}
