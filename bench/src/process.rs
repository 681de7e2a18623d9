//! Servers as child processes, and what the kernel tells of them: CPU time and memory.
//!
//! A child runs on the processors it is given from its first instruction: the thread that starts it
//! pins itself first, and affinity is inherited.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::fault::Fault;
use crate::link::{Link, Target, Value};
use crate::options::format_cpus;

const START_TIME_MAX: Duration = Duration::from_secs(15);
/// `cordis up` gives each of its processes 5 s.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// Resolution of the times in `/proc/PID/stat`: USER_HZ is 100 on every Linux port in use.
const TICK_NS: u64 = 10_000_000;

/// Restricts the calling thread to some processors.
pub(crate) fn pin_this_thread(cpus: &[usize]) -> Result<(), Fault> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(Fault::usage(format!("there is no cpu {cpu}")));
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .map_err(|error| Fault::usage(format!("cannot pin to cpu {cpus:?}: {error}")))
}

/// Starts a command on some processors; an empty list means any.
pub(crate) fn spawn_pinned(command: &mut Command, cpus: &[usize]) -> Result<Child, Fault> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawn = || {
        if !cpus.is_empty() {
            pin_this_thread(cpus)?;
        }
        command.spawn().map_err(|error| Fault::failed(format!("cannot start {name}: {error}")))
    };
    // A thread of its own, because the pin must not stay on the caller.
    std::thread::scope(|scope| scope.spawn(spawn).join())
        .map_err(|_| Fault::failed("the starting thread panicked"))?
}

/// The first line that a program prints about its version.
pub(crate) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let Ok(output) = output else {
        return "unknown".into();
    };
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("unknown").trim().to_owned()
}

/// Which server a program is: they share most flags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Redis or a server that takes its flags.
    Peer,
    /// Cordis.
    Cordis,
}

/// A server to be started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Its flags.
    pub(crate) kind: Kind,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its processors.
    pub(crate) cpus: Vec<usize>,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
}

impl Launch {
    /// The arguments of a start on `port`, without persistence.
    fn command_line(&self, port: u16, dir: &Path) -> Vec<String> {
        let mut line: Vec<String> = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        .map(str::to_owned)
        .into();
        line.extend(["--dir".to_owned(), dir.to_string_lossy().into_owned()]);
        if self.kind == Kind::Cordis {
            line.extend(["--cores".to_owned(), format_cpus(&self.cpus)]);
        } else if self.cpus.len() > 1 {
            line.extend(["--io-threads".to_owned(), self.cpus.len().to_string()]);
        }
        line.extend(self.arguments.iter().cloned());
        line
    }
}

/// A running program, stopped when dropped, with a directory of its own that goes with it.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
    line: String,
}

impl Daemon {
    /// Starts a program on some processors. What it prints is kept in its directory, which
    /// `arguments` may fill before.
    ///
    /// # Errors
    /// A program that does not start.
    pub(crate) fn start(
        program: &Path,
        cpus: &[usize],
        arguments: impl FnOnce(&Path) -> io::Result<Vec<String>>,
    ) -> Result<Self, Fault> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("cordis-bench-{}-{number}", std::process::id()));
        let cannot = |error| Fault::failed(format!("cannot prepare {}: {error}", dir.display()));
        fs::create_dir_all(&dir).map_err(cannot)?;
        let output = File::create(dir.join("output")).map_err(cannot)?;
        let errors = output.try_clone().map_err(cannot)?;
        let arguments = arguments(&dir).map_err(cannot)?;
        let mut command = Command::new(program);
        command.args(&arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = spawn_pinned(&mut command, cpus)?;
        let line = format!("{} {}", program.display(), arguments.join(" "));
        Ok(Self { child, dir, line })
    }

    /// Waits until something answers PING at `target`.
    ///
    /// # Errors
    /// A program that ends at once or stays silent; with the end of its output.
    pub(crate) fn wait_for(&mut self, target: &Target) -> Result<(), Fault> {
        self.wait_until("does not answer", || {
            let pong = Link::open(target).and_then(|mut link| link.call(&["PING"]));
            matches!(pong, Ok(Value::Text(_)))
        })
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// A program that ends, or time that is over; with the end of its output.
    pub(crate) fn wait_until(
        &mut self,
        fails: &str,
        mut holds: impl FnMut() -> bool,
    ) -> Result<(), Fault> {
        let deadline = Instant::now() + START_TIME_MAX;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                let (line, last) = (&self.line, self.last_output());
                return Err(Fault::failed(format!("'{line}' ended ({status}): {last}")));
            }
            if holds() {
                return Ok(());
            }
            std::thread::sleep(PROBE_INTERVAL);
        }
        Err(Fault::failed(format!("'{}' {fails}: {}", self.line, self.last_output())))
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> CpuTime {
        CpuTime::of(self.child.id())
    }

    fn last_output(&self) -> String {
        let output = fs::read_to_string(self.dir.join("output")).unwrap_or_default();
        let mut lines = output.lines().filter(|line| !line.trim().is_empty());
        lines.next_back().unwrap_or("no output").trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Failures are of no use here: the child is gone, or the kill below ends it.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_TIME_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(PROBE_INTERVAL);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    daemon: Daemon,
    port: u16,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// A program that does not start, ends at once, or stays silent; with the end of its output.
    pub(crate) fn start(launch: &Launch) -> Result<Self, Fault> {
        let port = free_port()?;
        let mut daemon =
            Daemon::start(&launch.program, &launch.cpus, |dir| Ok(launch.command_line(port, dir)))?;
        daemon.wait_for(&Target::loopback(port))?;
        Ok(Self { daemon, port })
    }

    /// Where it listens.
    pub(crate) fn target(&self) -> Target {
        Target::loopback(self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A connection to it.
    pub(crate) fn link(&self) -> Result<Link, Fault> {
        Link::open(&self.target())
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> CpuTime {
        self.daemon.cpu()
    }

    /// How long its threads have been ready to run while something else had their processor; nothing
    /// where the kernel does not keep it.
    ///
    /// # Source
    /// `/proc/PID/task/TID/schedstat`, second field.
    pub(crate) fn waited_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon.child.id()));
        let of = |text: String| text.split_whitespace().nth(1)?.parse::<u64>().ok();
        tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| of(fs::read_to_string(entry.path().join("schedstat")).ok()?))
            .sum()
    }

    /// Resident memory, in bytes.
    pub(crate) fn rss_bytes(&self) -> Result<u64, Fault> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.child.id()));
        let line = status.as_deref().ok().and_then(|text| text.lines().find_map(vm_rss_kib));
        line.map(|kib| kib * 1024).ok_or_else(|| Fault::failed("cannot read the server's memory"))
    }
}

fn vm_rss_kib(line: &str) -> Option<u64> {
    line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A port that nothing listens on now.
pub(crate) fn free_port() -> Result<u16, Fault> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Fault::failed(format!("cannot find a free port: {error}")))
}

/// User and system time of a process at one moment.
#[derive(Clone, Debug)]
pub(crate) struct CpuTime {
    /// Time on a processor by thread, to the nanosecond, if the kernel keeps it.
    threads_ns: HashMap<String, u64>,
    ticks_ns: u64,
}

impl CpuTime {
    /// Reads the time of a process.
    ///
    /// # Source
    /// `/proc/PID/task/TID/schedstat`, first field: time on the processor in either mode. The file
    /// directly under `/proc/PID` tells of the main thread only. `/proc/PID/stat` has the sum over
    /// all threads, ended ones included, but counts in ticks of 10 ms.
    pub(crate) fn of(pid: u32) -> Self {
        let mut threads_ns = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            if let Some(ns) = text.split_whitespace().next().and_then(|word| word.parse().ok()) {
                threads_ns.insert(entry.file_name().to_string_lossy().into_owned(), ns);
            }
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name of the program may hold blanks and parentheses; fields are sure only after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<u64>().ok())
            .sum();
        Self { threads_ns, ticks_ns: ticks * TICK_NS }
    }

    /// Time spent since an earlier reading. Where the kernel keeps no time by thread, or threads
    /// ended in between and took more than the resolution of the ticks with them, the ticks decide.
    pub(crate) fn since_ns(&self, earlier: &Self) -> u64 {
        let by_thread: u64 = self
            .threads_ns
            .iter()
            .map(|(id, ns)| ns.saturating_sub(earlier.threads_ns.get(id).copied().unwrap_or(0)))
            .sum();
        let by_ticks = self.ticks_ns.saturating_sub(earlier.ticks_ns);
        let ended = earlier.threads_ns.keys().any(|id| !self.threads_ns.contains_key(id));
        if by_thread == 0 || (ended && by_ticks > by_thread + 2 * TICK_NS) {
            by_ticks
        } else {
            by_thread
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn cpu_time_counts_user_and_system_time() {
        // System time: the kernel zeroes the buffer. The tests beside this one only add to both.
        let before = CpuTime::of(std::process::id());
        let mut zero = File::open("/dev/zero").unwrap();
        let mut buffer = vec![0; 1 << 20];
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(300) {
            zero.read_exact(&mut buffer).unwrap();
        }
        let after = CpuTime::of(std::process::id());
        let spent_ns = after.since_ns(&before);
        let ticks_ns = after.ticks_ns - before.ticks_ns;
        assert!(spent_ns > 20_000_000, "{spent_ns}");
        assert!(spent_ns + 20 * TICK_NS > ticks_ns, "{spent_ns} {ticks_ns}");
    }

    #[test]
    fn command_lines_differ_in_cores_only() {
        let launch = |kind, cpus: &[usize]| Launch {
            kind,
            program: "x".into(),
            cpus: cpus.to_vec(),
            arguments: vec!["--more".into()],
        };
        let line = |launch: Launch| launch.command_line(7, Path::new("/d")).join(" ");
        let common = "--port 7 --bind 127.0.0.1 --save  --appendonly no --dir /d";
        assert_eq!(line(launch(Kind::Peer, &[0])), format!("{common} --more"));
        assert_eq!(line(launch(Kind::Peer, &[0, 1])), format!("{common} --io-threads 2 --more"));
        assert_eq!(line(launch(Kind::Cordis, &[0, 1])), format!("{common} --cores 0-1 --more"));
    }

    #[test]
    fn program_that_ends_at_once_is_reported_with_its_last_words() {
        let launch = Launch {
            kind: Kind::Peer,
            program: "/bin/false".into(),
            cpus: vec![],
            arguments: vec![],
        };
        let error = Server::start(&launch).unwrap_err().to_string();
        assert!(error.contains("/bin/false") && error.contains("no output"), "{error}");
    }
}
