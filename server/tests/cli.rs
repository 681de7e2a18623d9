//! `cordis-server` as a process: command line, start-up checks, exit codes, stopping.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a process to do what it should.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory of a test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cordis-cli-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("its name is made of letters")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the directory is writable");
        path.to_str().expect("its name is made of letters").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn server(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cordis-server"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn outcome(arguments: &[&str]) -> Output {
    server(arguments).output().expect("the binary was built for this test")
}

/// The one line on standard error of a server that ends with `code`.
fn refusal(arguments: &[&str], code: i32) -> String {
    let output = outcome(arguments);
    let text = String::from_utf8(output.stderr).expect("errors are text");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn shown(arguments: &[&str]) -> String {
    let output = outcome(arguments);
    assert!(output.status.success(), "{arguments:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// What `check` returns once it returns something.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// A server that runs; killed if its test fails.
struct Running {
    child: Child,
    port: u16,
}

impl Running {
    fn start(folder: &Folder, more: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let port_text = port.to_string();
        let mut arguments = vec!["--port", &port_text, "--dir", folder.text(), "--cores", "0"];
        arguments.extend(more);
        let child = server(&arguments).stderr(Stdio::piped()).spawn();
        let mut running = Self { child: child.expect("the binary was built"), port };
        eventually("an answer to PING", || {
            assert!(running.child.try_wait().expect("it is ours").is_none(), "it has ended");
            running.call("PING").filter(|reply| reply == "+PONG\r\n")
        });
        running
    }

    /// The beginning of the reply to an inline call.
    fn call(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Its exit code and what it logged.
    fn end(mut self) -> (Option<i32>, String) {
        let status =
            eventually("the end of the server", || self.child.try_wait().expect("it is ours"));
        let mut log = String::new();
        let errors = self.child.stderr.as_mut().expect("it is piped");
        errors.read_to_string(&mut log).expect("the log is text");
        (status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn wrong_option_is_one_line_and_exit_code_2() {
    assert!(refusal(&["--prot", "7000"], 2).contains("did you mean '--port'?"));
    assert!(refusal(&["--port"], 2).contains("--port"));
    let port = refusal(&["--port", "70000"], 2);
    assert!(port.contains("--port: argument must be between 0 and 65535 inclusive"), "{port}");
    assert!(refusal(&["--save", "900 1"], 2).contains("not built in yet"));
    assert!(refusal(&["--save", "900 1"], 2).contains("persistence is not built in yet"));
    assert!(refusal(&["--databases", "17"], 2).contains("between 1 and 16"));
    assert!(refusal(&["--cores", "0,0"], 2).contains("CPU 0 is listed twice"));
    assert!(refusal(&["--maxmemory", "much"], 2).contains("memory value"));
}

#[test]
fn wrong_file_is_one_line_with_its_number_and_exit_code_2() {
    let folder = Folder::new();
    assert!(refusal(&["/nosuch/cordis.toml"], 2).contains("/nosuch/cordis.toml: No such file"));
    let bad = folder.file("bad.toml", "port = 7000\n\nhz = ten\n");
    assert!(refusal(&[&bad], 2).contains("bad.toml:3: "));
    let unknown = folder.file("unknown.toml", "# comment\nmaxmemroy = 1\n");
    let line = refusal(&[&unknown], 2);
    assert!(line.contains("unknown.toml:2: ") && line.contains("'maxmemory'?"), "{line}");
    let range = folder.file("range.toml", "port = 70000\n");
    assert!(refusal(&[&range], 2).contains("range.toml:1: 'port': argument must be between"));
}

#[test]
fn help_and_version_are_printed() {
    let help = shown(&["--help"]);
    assert!(help.contains("--maxmemory-policy") && help.contains("CONFIG.toml"));
    assert_eq!(shown(&["--version"]), format!("cordis-server {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn print_config_prints_a_file_that_loads() {
    let folder = Folder::new();
    let words = ["--port", "7000", "--maxmemory", "1gb", "--requirepass", "hunter2"];
    let first = shown(&[&words[..], &["--print-config"]].concat());
    assert!(first.contains("port = 7000") && first.contains("maxmemory = 1073741824"));
    assert!(!first.contains("hunter2"));
    let file = folder.file("cordis.toml", &first);
    assert_eq!(shown(&[&file, "--print-config"]), first);
    let changed = shown(&[&file, "--print-config", "--port", "7001"]);
    assert_eq!(changed, first.replace("port = 7000", "port = 7001"));
}

#[test]
fn port_in_use_is_refused() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let line = refusal(&["--port", &port, "--dir", folder.text(), "--cores", "0"], 1);
    assert!(line.contains(&format!("port {port} of 127.0.0.1 is in use")), "{line}");
    assert!(line.contains("--port"), "{line}");
}

#[test]
fn directory_that_cannot_be_used_is_refused() {
    let line = refusal(&["--port", "0", "--dir", "/nosuch/dir"], 1);
    assert!(line.contains("mkdir -p /nosuch/dir"), "{line}");
    assert!(refusal(&["--port", "0", "--dir", "/proc"], 1).contains("not writable"));
    assert!(refusal(&["--port", "0", "--dir", "/dev/null"], 1).contains("not a directory"));
    let folder = Folder::new();
    assert!(refusal(&["--port", "0", "--dir", folder.text()], 1).contains("nothing to listen on"));
}

#[test]
fn core_that_is_not_there_is_refused() {
    // No machine has all of these numbers online and in use by tests.
    let line = refusal(&["--cores", "65000", "--port", "0"], 1);
    assert!(line.contains("CPU 65000 is not online"), "{line}");
}

#[test]
fn second_server_in_a_directory_is_refused() {
    let folder = Folder::new();
    let first = Running::start(&folder, &[]);
    let line = refusal(&["--port", "0", "--dir", folder.text()], 1);
    assert!(line.contains(&format!("process {}", first.child.id())), "{line}");
    assert!(line.contains("--dir"), "{line}");
    first.signal(Signal::TERM);
    assert_eq!(first.end().0, Some(0));
    // The lock goes with its holder.
    let line = refusal(&["--port", "0", "--dir", folder.text()], 1);
    assert!(line.contains("nothing to listen on"), "{line}");
}

#[test]
fn signals_and_shutdown_stop_the_server() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let running = Running::start(&folder, &[]);
        running.signal(signal);
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("starting") && log.contains("stopped"), "{log}");
    }
    let folder = Folder::new();
    let running = Running::start(&folder, &[]);
    running.call("SHUTDOWN NOSAVE");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn secret_flag_is_hidden_from_process_lists_and_logs() {
    let folder = Folder::new();
    let listing = |running: &Running| {
        let path = format!("/proc/{}/cmdline", running.child.id());
        String::from_utf8_lossy(&fs::read(path).expect("it runs")).into_owned()
    };
    // Without a password PING answers, so the start can be waited for; the flag is read all the same.
    let running = Running::start(&folder, &["--requirepass", "", "--loglevel", "debug"]);
    assert!(listing(&running).contains("--requirepass"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = port.expect("loopback can be bound").port();
    let port_text = port.to_string();
    let words = ["--port", &port_text, "--dir", folder.text(), "--cores", "0"];
    let child =
        server(&[&words[..], &["--requirepass", "hunter2", "--loglevel", "debug"]].concat())
            .stderr(Stdio::piped())
            .spawn();
    let running = Running { child: child.expect("the binary was built"), port };
    eventually("a server that asks for a password", || {
        running.call("PING").filter(|reply| reply.starts_with("-NOAUTH"))
    });
    assert!(!listing(&running).contains("hunter2"));
    running.signal(Signal::TERM);
    let (code, log) = running.end();
    assert_eq!(code, Some(0));
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn unix_socket_is_made_with_its_mode_and_removed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.0.join("cordis.sock");
    let text = path.to_str().expect("its name is made of letters");
    let running = Running::start(&folder, &["--unixsocket", text, "--unixsocketperm", "700"]);
    let mode = fs::metadata(&path).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    assert!(!path.exists());
}

#[test]
fn log_file_follows_the_level_and_is_opened_anew_after_hang_up() {
    let folder = Folder::new();
    let path = folder.0.join("log");
    let text = path.to_str().expect("its name is made of letters");
    let running = Running::start(&folder, &["--logfile", text, "--log-format", "json"]);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    eventually("a line that says it is ready", || read(&path).contains("ready").then_some(()));
    assert!(read(&path).lines().all(|line| line.starts_with('{') && line.ends_with('}')));
    fs::rename(&path, folder.0.join("old")).expect("it is there");
    running.signal(Signal::HUP);
    eventually("a new log file", || path.exists().then_some(()));
    let quiet = running.call("CONFIG SET loglevel warning");
    assert_eq!(quiet.as_deref(), Some("+OK\r\n"));
    running.signal(Signal::TERM);
    assert_eq!(running.end(), (Some(0), String::new()));
    assert_eq!(read(&path), "");
}
