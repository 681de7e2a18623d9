//! Processes: servers, and a proxy in front of them, on free ports of this machine, ready when the
//! constructor returns, gone when the value is dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cordis_engine::slots::map::{
    ClusterMap, MapGroup, MapRange, MapServer, ServerKind, ServerRole, ranges_of,
};
use cordis_engine::units::SlotId;

use super::client::Client;
use super::eventually;

/// How long a process may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether these are the tests of a proxy within a server, which is that of group 1.
const IS_WITHIN: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"within");

/// A process with a folder and a log of its own.
#[derive(Debug)]
pub(crate) struct Process {
    /// None: somebody else ends it.
    child: Option<Child>,
    pid: u32,
    folder: PathBuf,
}

impl Process {
    fn start(program: &Path, arguments: &[String]) -> Self {
        Self::start_in(own_folder(), program, arguments)
    }

    fn start_in(folder: PathBuf, program: &Path, arguments: &[String]) -> Self {
        let log = File::create(folder.join("output")).expect("its folder has just been made");
        let errors = log.try_clone().expect("an open file has a second handle");
        let child = Command::new(program)
            .args(arguments)
            .arg("--dir")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { pid: child.id(), child: Some(child), folder }
    }

    /// The same process, for somebody who only looks at it.
    fn view(&self) -> Self {
        Self { child: None, pid: self.pid, folder: self.folder.clone() }
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        let bytes = fs::read(self.folder.join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("the child is ours to wait for")
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually(LIMIT, "the process ends", || self.exit_status())
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if self.child.is_some() && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    /// The process.
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Server {
    /// Starts one.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut last_words = String::new();
        // Another process may take the port between our look and the server's bind.
        for _ in 0..5 {
            let port = free_port();
            let mut all = vec!["--port".to_owned(), port.to_string()];
            all.extend(arguments.iter().map(|word| (*word).to_owned()));
            let mut process = Process::start(&server_program(), &all);
            let is_up = eventually(LIMIT, "the server starts or ends", || {
                if process.exit_status().is_some() {
                    return Some(false);
                }
                process.output().contains("INFO ready").then_some(true)
            });
            if is_up {
                return Self { process, port };
            }
            last_words = process.output();
        }
        panic!("the server does not start:\n{last_words}");
    }

    /// Its address.
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.port).unwrap_or_else(|error| {
            panic!("port {}: {error}\n{}", self.port, self.process.output())
        })
    }
}

/// A proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// The process.
    pub(crate) process: Process,
    /// Where clients connect.
    pub(crate) port: u16,
    /// Where administrators connect.
    pub(crate) admin_port: u16,
    /// What they have to know.
    secret: Option<String>,
}

impl Proxy {
    /// Starts one with a folder of its own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        if IS_WITHIN {
            let (server, view) = Self::start_within(arguments);
            return Self { process: server.process, ..view };
        }
        Self::start_in(&own_folder(), arguments)
    }

    /// Starts one.
    pub(crate) fn start_in(folder: &Path, arguments: &[&str]) -> Self {
        let mut all: Vec<String> = ["--proxy-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]
            .map(str::to_owned)
            .into();
        all.extend(arguments.iter().map(|word| (*word).to_owned()));
        let program = Path::new(env!("CARGO_BIN_EXE_cordis-proxy"));
        let mut process = Process::start_in(folder.to_owned(), program, &all);
        let (port, admin_port) = eventually(LIMIT, "the proxy starts", || {
            let output = process.output();
            assert!(process.exit_status().is_none(), "the proxy does not start:\n{output}");
            port_in(&output, " proxy_addr").zip(port_in(&output, "admin_addr"))
        });
        let secret = arguments.iter().skip_while(|word| **word != "--admin-auth").nth(1);
        Self { process, port, admin_port, secret: secret.map(|word| (*word).to_owned()) }
    }

    /// Starts one within a server, as one process. Its arguments are those of a proxy.
    pub(crate) fn start_within(arguments: &[&str]) -> (Server, Self) {
        let mut all: Vec<String> =
            ["--proxy-addr", "127.0.0.1:0", "--proxy-admin-addr", "127.0.0.1:0"]
                .map(str::to_owned)
                .into();
        all.extend(arguments.iter().map(|word| match word.strip_prefix("--") {
            Some("cores") | None => (*word).to_owned(),
            Some(name) if name.starts_with("proxy-") => (*word).to_owned(),
            Some(name) => format!("--proxy-{name}"),
        }));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let server = Server::start(&all);
        let output = server.process.output();
        let port = |name| port_in(&output, name).expect("a server that is ready has said so");
        let (port, admin_port) = (port(" proxy_addr"), port("proxy_admin_addr"));
        let secret = arguments.iter().skip_while(|word| **word != "--admin-auth").nth(1);
        let secret = secret.map(|word| (*word).to_owned());
        let proxy = Self { process: server.process.view(), port, admin_port, secret };
        (server, proxy)
    }

    /// A new connection as a client.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.port).unwrap_or_else(|error| {
            panic!("port {}: {error}\n{}", self.port, self.process.output())
        })
    }

    /// A new connection as an administrator.
    pub(crate) fn admin(&self) -> Client {
        Client::connect(self.admin_port).expect("the admin port is there as long as the process")
    }

    /// Gives it a map.
    pub(crate) fn set_map(&self, map: &ClusterMap) {
        let mut admin = self.admin();
        if let Some(secret) = &self.secret {
            assert_eq!(admin.text(&format!("AUTH {secret}")), "+OK\r\n");
        }
        let reply = admin.try_call(&["MAP", "SET", &map.to_json()]).expect("it answers");
        let shown = String::from_utf8_lossy(&reply).into_owned();
        assert_eq!(shown, format!(":{}\r\n", map.epoch), "{}", self.process.output());
    }
}

/// The port of the address that a line of the log names.
fn port_in(output: &str, name: &str) -> Option<u16> {
    let rest = output.split_once(&format!("{name}=\"127.0.0.1:"))?.1;
    rest.split('"').next()?.parse().ok()
}

/// A proxy with servers, one per group.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The servers; that of group 1 first.
    pub(crate) servers: Vec<Server>,
    /// The proxy.
    pub(crate) proxy: Proxy,
    epoch: AtomicU64,
}

impl Cluster {
    /// A proxy with two servers of 512 slots each.
    pub(crate) fn start(proxy_arguments: &[&str]) -> Self {
        let (first, proxy) = match IS_WITHIN {
            true => Proxy::start_within(proxy_arguments),
            false => (Server::start(&[]), Proxy::start(proxy_arguments)),
        };
        let servers = vec![first, Server::start(&[])];
        let cluster = Self { servers, proxy, epoch: AtomicU64::new(0) };
        cluster.serve(|slot| if slot.index() < 512 { 1 } else { 2 });
        cluster
    }

    /// Gives the proxy a map in which these groups serve the slots.
    pub(crate) fn serve(&self, group_of: impl Fn(SlotId) -> u16) {
        let addrs: Vec<String> = self.servers.iter().map(Server::addr).collect();
        self.proxy.set_map(&map_of(&addrs, self.next_epoch(), group_of));
    }

    /// An epoch above all before.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A map of one server per group.
pub(crate) fn map_of(addrs: &[String], epoch: u64, group_of: impl Fn(SlotId) -> u16) -> ClusterMap {
    let group = |(i, addr): (usize, &String)| MapGroup {
        id: i as u16 + 1,
        servers: vec![MapServer {
            addr: addr.clone(),
            kind: ServerKind::Cordis,
            role: ServerRole::Primary,
            datacenter: String::new(),
            replica_group: false,
        }],
    };
    ClusterMap {
        product: "codis-demo".to_owned(),
        epoch,
        groups: addrs.iter().enumerate().map(group).collect(),
        slots: ranges_of(|slot| MapRange { group: group_of(slot), epoch, ..MapRange::offline() }),
        lease_ms: 0,
    }
}

/// The server's program: built by `cargo test --workspace` beside this test, or built now.
fn server_program() -> PathBuf {
    if let Some(program) = std::env::var_os("CORDIS_SERVER") {
        return program.into();
    }
    let folder = Path::new(env!("CARGO_BIN_EXE_cordis-proxy")).parent();
    let folder = folder.expect("a program is in a folder");
    let program = folder.join("cordis-server");
    if !program.exists() {
        let target = folder.parent().expect("the profile's folder is in the target's");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "cordis-server", "--bin", "cordis-server"])
            .args(if folder.ends_with("release") { &["--release"][..] } else { &[] })
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "cordis-server cannot be built");
    }
    program
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A new folder below the build's.
pub(crate) fn own_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // One process may hold the tests of several files, each with a count of its own.
    let tests = module_path!().replace("::", "-");
    let name = format!("{tests}-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}
