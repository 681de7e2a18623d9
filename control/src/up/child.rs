//! One process of the cluster on this machine: started, watched, stopped. Knows nothing of what it
//! does.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::layout::{Process, folder};

/// Time that a process gets to end by itself.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running process.
#[derive(Debug)]
pub(crate) struct Running {
    /// What it is.
    pub(crate) process: Process,
    folder: PathBuf,
    child: Child,
}

impl Running {
    /// Starts a process; what it prints goes to `log` in its folder.
    ///
    /// # Errors
    /// One line that says what is missing.
    pub(crate) fn start(dir: &Path, process: Process) -> Result<Self, String> {
        let folder = folder(dir, &process);
        let cannot = |what: &str, error: &io::Error| format!("{}: {what}: {error}", process.name);
        fs::create_dir_all(&folder).map_err(|e| cannot("cannot make its folder", &e))?;
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log"));
        let log = log.map_err(|e| cannot("cannot open its log", &e))?;
        let copy = log.try_clone().map_err(|e| cannot("cannot open its log", &e))?;
        let program = beside(process.program)?;
        let child = Command::new(program)
            .args(&process.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            // Ctrl-C goes to us alone; we stop the processes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| cannot("cannot start", &e))?;
        let pid = child.id().map_or_else(String::new, |pid| pid.to_string());
        fs::write(folder.join("pid"), pid).map_err(|e| cannot("cannot note its number", &e))?;
        Ok(Self { process, folder, child })
    }

    /// Waits until it ends by itself, and says how it did.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// The end of its log, for messages.
    pub(crate) fn last_line(&self) -> String {
        let text = fs::read(self.folder.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        text.lines().last().unwrap_or_default().to_owned()
    }

    /// Asks it to end, waits a little, then makes it.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_TIME, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        let _ = fs::remove_file(self.folder.join("pid"));
    }
}

/// A program that lies beside this one.
fn beside(program: &str) -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let path = me.with_file_name(program);
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} is missing: build it with `cargo build --release`", path.display()))
}

/// Ends what an earlier run left behind, because it was killed.
pub(crate) async fn clear_stale(dir: &Path, process: &Process) -> Result<(), String> {
    let folder = folder(dir, process);
    let Ok(text) = fs::read_to_string(folder.join("pid")) else {
        return Ok(());
    };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    if !is_program(pid, process.program) {
        return Ok(());
    }
    let _ = kill_process(pid, Signal::TERM);
    let begun = Instant::now();
    while is_program(pid, process.program) {
        if begun.elapsed() > STOP_TIME {
            let _ = kill_process(pid, Signal::KILL);
        }
        if begun.elapsed() > 2 * STOP_TIME {
            return Err(format!("process {} of an earlier run does not end", text.trim()));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Whether a process runs this program: numbers are used again.
fn is_program(pid: Pid, program: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    if stat.is_ok_and(|stat| stat.contains(") Z ")) {
        return false;
    }
    let exe = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
    exe.is_ok_and(|exe| {
        let name = exe.file_name().map(|name| name.to_string_lossy().into_owned());
        // The kernel marks a program whose file was replaced since.
        name.is_some_and(|name| name.trim_end_matches(" (deleted)") == program)
    })
}
