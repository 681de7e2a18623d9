//! Server processes: `redis-server` and `cordis-server` on a free port of this machine, ready when
//! the constructor returns, gone when the value is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::eventually;

/// How long a server may take to answer its first PING, and to stop.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) port: u16,
    /// Whether it is Redis.
    pub(crate) is_redis: bool,
    folder: PathBuf,
    /// How it was started.
    command: Command,
}

impl Process {
    /// Redis.
    pub(crate) fn redis(arguments: &[&str]) -> Self {
        Self::start(Path::new("redis-server"), 1, arguments)
    }

    /// Our server. `CORDIS_SERVER` names another program to run in its place, Redis included.
    pub(crate) fn cordis(core_count: usize, arguments: &[&str]) -> Self {
        let program = std::env::var_os("CORDIS_SERVER")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_cordis-server").into());
        Self::start(Path::new(&program), core_count, arguments)
    }

    fn start(program: &Path, core_count: usize, arguments: &[&str]) -> Self {
        let mut last_words = String::new();
        // Another process may take the port between our look and the server's bind.
        for _ in 0..5 {
            match Self::try_start(program, core_count, arguments) {
                Ok(process) => return process,
                Err(words) => last_words = words,
            }
            if !last_words.to_lowercase().contains("in use") {
                break;
            }
        }
        panic!("{} does not start:\n{last_words}", program.display());
    }

    fn try_start(program: &Path, core_count: usize, arguments: &[&str]) -> Result<Self, String> {
        let port = free_port();
        let folder = own_folder();
        let is_redis = program.to_string_lossy().contains("redis-server");
        let log = fs::File::create(folder.join("output")).expect("its folder has just been made");
        let errors = log.try_clone().expect("an open file has a second handle");
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(&folder);
        if is_redis {
            command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
        } else {
            command.args(["--cores", &cores(core_count)]);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if is_redis => panic!(
                "redis-server cannot be started ({error}): these tests compare with it; install \
                 the package of your system (redis-server 7.0) so that it is on the PATH"
            ),
            Err(error) => panic!("{}: {error}", program.display()),
        };
        let mut process = Self { child, port, is_redis, folder, command };
        if process.is_ready() { Ok(process) } else { Err(process.output()) }
    }

    /// Waits until it answers; `false` if it ends or another process answers in its place.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline && self.exit_status().is_none() {
            if self.answers() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        false
    }

    fn answers(&self) -> bool {
        let Ok(mut client) = Client::connect(self.port) else {
            return false;
        };
        // With a password the reply is an error: it answers all the same.
        let Ok(pong) = client.try_call(&["PING"]) else {
            return false;
        };
        let Ok(info) = client.try_call(&["INFO", "server"]) else {
            return false;
        };
        let info = String::from_utf8_lossy(&info).into_owned();
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        !pong.is_empty() && pid.is_none_or(|pid| pid.trim() == self.pid().to_string())
    }

    /// Time that the cores were ready to run and others had their processor: no turn is to blame for it.
    pub(crate) fn waited(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process runs");
        let waited_ns = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        Duration::from_nanos(waited_ns.sum())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.port)
            .unwrap_or_else(|error| panic!("port {}: {error}\n{}", self.port, self.output()))
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        let bytes = fs::read(self.folder.join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// Kills it and starts it again, on the same port and in the same folder.
    pub(crate) fn restart(&mut self) {
        self.restart_with(|_| ());
    }

    /// The same with something done to its folder in between.
    pub(crate) fn restart_with(&mut self, between: impl FnOnce(&Path)) {
        self.child.kill().expect("a child that was not waited for can be killed");
        let _ = self.child.wait();
        between(&self.folder);
        self.child = self.command.spawn().expect("it could be started before");
        assert!(self.is_ready(), "it does not start again:\n{}", self.output());
    }

    /// Kills it, as a loss of power would, but for what the kernel holds.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child that was not waited for can be killed");
        let _ = self.child.wait();
    }

    /// Starts it again on these many processors, with flags of these values in the place of what they
    /// were. It has ended. `Err` is what it printed.
    pub(crate) fn start_again(
        &mut self,
        core_count: usize,
        flags: &[(&str, &str)],
    ) -> Result<(), String> {
        let mut command = Command::new(self.command.get_program());
        let cores = cores(core_count);
        let mut flags: Vec<(&str, &str)> =
            [("--cores", cores.as_str())].into_iter().chain(flags.iter().copied()).collect();
        let mut old = self.command.get_args();
        while let (Some(flag), Some(value)) = (old.next(), old.next()) {
            let new = flags.iter().position(|(name, _)| flag == *name);
            match new.map(|index| flags.remove(index)) {
                Some((name, value)) => command.args([name, value]),
                None => command.arg(flag).arg(value),
            };
        }
        flags.iter().for_each(|(name, value)| _ = command.args([name, value]));
        self.command = command;
        // Connections of the one before may hold the port for a moment.
        eventually(START_LIMIT, "its port is free", || {
            let log = fs::File::create(self.folder.join("output")).expect("its folder is there");
            let errors = log.try_clone().expect("an open file has a second handle");
            self.command.stdin(Stdio::null()).stdout(log).stderr(errors);
            self.child = self.command.spawn().expect("it could be started before");
            let is_ready = self.is_ready();
            let output = self.output();
            match is_ready {
                true => Some(Ok(())),
                false if output.contains("is in use") => None,
                false => Some(Err(output)),
            }
        })
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("a child that was not waited for can be signalled");
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually(START_LIMIT, "the server ends", || self.exit_status())
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// Size of its address space in bytes.
    pub(crate) fn virtual_bytes(&self) -> u64 {
        self.status_bytes("VmSize:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.expect("the kernel prints sizes in kB") * 1024
    }

    /// Time that its threads have spent on processors, in user and system mode.
    pub(crate) fn cpu_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process runs");
        let nanos = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A new folder below the build's.
fn own_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("server-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// The first `count` processors that this process may use, as a list.
fn cores(count: usize) -> String {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.expect("the kernel prints Cpus_allowed_list").trim().split(',');
    let all: Vec<String> = ranges
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bound = |text: &str| text.parse::<usize>().expect("the kernel prints numbers");
            bound(first)..=bound(last)
        })
        .map(|core| core.to_string())
        .collect();
    assert!(all.len() >= count, "this test needs {count} processors; allowed: {}", all.join(","));
    all[..count].join(",")
}
