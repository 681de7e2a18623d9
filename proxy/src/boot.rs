//! What must be right before the cores start, each with a line that says what to do if it is not.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cordis_engine::sys::{affinity, limits, socket};
use cordis_proxy::config::Settings;

use crate::cli;

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
    let lock = DirLock::take(&settings.dir)?;
    let mut listeners = Vec::new();
    let backlog = settings.tcp_backlog;
    for address in resolve(&settings.proxy_addr, "--proxy-addr")? {
        let fd = socket::listen_tcp(address, backlog)
            .map_err(|error| tcp_advice(address, "--proxy-addr", &error))?;
        listeners.push(fd);
    }
    let proxy_addr = listeners.first().map(socket::local_name).unwrap_or_default();
    let admin = bind_admin(&settings.admin_addr)?;
    if settings.admin_auth.is_empty()
        && admin.local_addr().is_ok_and(|addr| !addr.ip().is_loopback())
    {
        tracing::warn!("no admin_auth is set: the admin port refuses all but this machine");
    }
    Ok(Ready { cpus, listeners, proxy_addr, admin, clients_lowered_from, lock })
}

fn resolve(addr: &str, flag: &str) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = addr.rsplit_once(':').ok_or_else(|| format!("{flag}: no port in {addr}"))?;
    let port = port.parse().map_err(|_| format!("{flag}: '{port}' is no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = socket::resolve(host, port)
        .map_err(|error| format!("'{host}' is no address ({error}): correct {flag}"))?;
    if found.is_empty() {
        Err(format!("'{host}' has no address: correct {flag}"))
    } else {
        Ok(found)
    }
}

fn bind_admin(addr: &str) -> Result<TcpListener, String> {
    let addresses = resolve(addr, "--admin-addr")?;
    TcpListener::bind(&addresses[..])
        .map_err(|error| tcp_advice(addresses[0], "--admin-addr", &error))
}

fn tcp_advice(address: SocketAddr, flag: &str, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} of {} is in use: stop what listens there, or choose another with {flag}",
            address.ip()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} may not be used ({error}): choose one above 1023 with {flag}, or grant \
             CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {}: correct {flag}", address.ip())
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
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

/// The directory of the proxy's files, which no other proxy may use at the same time.
#[derive(Debug)]
pub(crate) struct DirLock {
    /// Its absolute path.
    pub(crate) dir: PathBuf,
    /// Locked until it is closed, by whatever end of the process.
    _file: File,
}

impl DirLock {
    fn take(dir: &Path) -> Result<Self, String> {
        let shown = dir.display();
        let dir = match fs::canonicalize(dir) {
            Ok(found) if found.is_dir() => found,
            Ok(_) => return Err(format!("{shown} is not a directory: choose one with --dir")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!(
                    "directory {shown} does not exist: create it with `mkdir -p {shown}`, or \
                     choose another with --dir"
                ));
            }
            Err(error) => return Err(format!("directory {shown} cannot be used: {error}")),
        };
        let unwritable = |error: io::Error| {
            format!(
                "directory {} is not writable ({error}): change its owner, or choose another \
                 with --dir",
                dir.display()
            )
        };
        let path = dir.join("cordis-proxy.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another cordis-proxy uses directory {}: stop it, or give this one a \
                     directory of its own with --dir",
                    dir.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let write_pid = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        };
        write_pid(&mut file).map_err(unwritable)?;
        Ok(Self { dir, _file: file })
    }
}

/// Random bytes from the kernel.
///
/// # Errors
/// One line that says what is missing.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("cannot read random bytes from /dev/urandom: {error}"))?;
    Ok(bytes)
}

/// Overwrites secrets that were given as flags where process lists read them. Does nothing if the
/// kernel does not let a process write to its own arguments; the configuration file is the place
/// for secrets.
pub(crate) fn hide_secret_arguments() {
    let _ = try_hide();
}

fn try_hide() -> Option<()> {
    let words = fs::read("/proc/self/cmdline").ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Field 48 is where the arguments begin; the first after the name in brackets is field 3.
    let fields = stat.rsplit_once(')')?.1;
    let start: u64 = fields.split_whitespace().nth(48 - 3)?.parse().ok()?;
    if start == 0 {
        return None;
    }
    let memory = OpenOptions::new().write(true).open("/proc/self/mem").ok()?;
    for (at, len) in secret_ranges(&words, &cli::secret_flags()) {
        memory.write_all_at(&vec![b'*'; len], start + at as u64).ok()?;
    }
    Some(())
}

/// Where the values of secret flags are in arguments that each end in a zero byte.
fn secret_ranges(words: &[u8], flags: &[String]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut at, mut follows) = (0, false);
    for word in words.split(|byte| *byte == 0) {
        if follows {
            found.push((at, word.len()));
        }
        follows = flags.iter().any(|flag| word == flag.as_bytes());
        for flag in flags {
            let value = word.strip_prefix(flag.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            if let Some(value) = value {
                found.push((at + flag.len() + 1, value.len()));
            }
        }
        at += word.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_all_forms() {
        let words = b"x\0--session-auth\0abc\0--dir\0y\0--admin_auth=de\0--admin-authx\0y\0";
        let found: Vec<&[u8]> = secret_ranges(words, &cli::secret_flags())
            .into_iter()
            .map(|(at, len)| &words[at..at + len])
            .collect();
        assert_eq!(found, [&b"abc"[..], b"de"]);
    }

    #[test]
    fn dir_lock_is_for_one() {
        let name = format!("cordis-proxy-boot-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let error = DirLock::take(&dir).expect_err("it is not there");
        assert!(error.contains("mkdir -p"));
        fs::create_dir(&dir).expect("the directory is writable");
        let lock = DirLock::take(&dir).expect("nobody uses it");
        assert!(DirLock::take(&dir).expect_err("it is taken").contains("another cordis-proxy"));
        drop(lock);
        drop(DirLock::take(&dir).expect("nobody uses it any more"));
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let addr = taken.local_addr().expect("it is bound").to_string();
        let error = bind_admin(&addr).expect_err("it is taken");
        assert!(error.contains("is in use") && error.contains("--admin-addr"), "{error}");
        assert!(resolve("nonsense", "--proxy-addr").expect_err("no port").contains("no port"));
        assert_eq!(resolve("[::1]:7", "--proxy-addr").expect("an address").len(), 1);
    }
}
