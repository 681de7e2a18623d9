//! The log: lines are made where something happens and written by a thread of their own, so that
//! no core ever waits for a disk or a terminal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use cordis_engine::config::Config;
use cordis_engine::config::value::Rotation;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait for the writer. Beyond that they are counted and dropped.
const QUEUE_LINES: usize = 4096;
/// Old files that stay.
const KEPT_FILES: u32 = 8;
/// Longest wait for the last lines when the process ends.
const FLUSH_WAIT: Duration = Duration::from_secs(2);
const SECONDS_PER_DAY: u64 = 86_400;

/// What the writer is asked for.
enum Message {
    /// To write a line.
    Line(Vec<u8>),
    /// To open the file anew.
    Reopen,
    /// To say when all lines before it are written.
    Flush(SyncSender<()>),
}

/// The way into the log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    level: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts the log that the settings ask for, and makes it that of the process.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) fn start(config: &Config) -> Result<Self, String> {
        let sink = Sink::open(&config.logfile(), config.log_rotation())?;
        let is_terminal = matches!(sink, Sink::Stderr) && io::stderr().is_terminal();
        let (messages, queue) = sync_channel(QUEUE_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let (filter, level) = reload::Layer::new(targets(config.loglevel()));
        let log = Self { messages, dropped: dropped.clone(), level };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(sink, &queue, &dropped))
            .map_err(|error| format!("cannot start the thread that writes the log: {error}"))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(is_terminal)
            .with_writer(Lines { messages: log.messages.clone(), dropped: log.dropped.clone() });
        let lines = if config.log_is_json() { lines.json().boxed() } else { lines.boxed() };
        Registry::default().with(filter).with(lines).init();
        Ok(log)
    }

    /// Changes the least severity that is logged, as `loglevel` names it.
    pub(crate) fn set_level(&self, word: &str) {
        let level = ["debug", "verbose", "notice", "warning"].iter().position(|w| *w == word);
        if let Some(level) = level {
            // Fails only if the subscriber is gone, and it lives as long as the process.
            let _ = self.level.reload(targets(level as u8));
        }
    }

    /// Opens the file anew: something else has moved it away.
    pub(crate) fn reopen(&self) {
        let _ = self.messages.try_send(Message::Reopen);
    }

    /// Waits until what was logged so far is written, but not for long.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_WAIT);
        }
    }
}

/// Our own events from `loglevel` up, warnings of others.
fn targets(loglevel: u8) -> Targets {
    let level = match loglevel {
        0 => LevelFilter::TRACE,
        1 => LevelFilter::DEBUG,
        2 => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    };
    let ours = ["cordis_engine", "cordis_proxy", "cordis_server"].map(|name| (name, level));
    Targets::new().with_default(LevelFilter::WARN).with_targets(ours)
}

/// Where the subscriber writes its lines: into the queue.
struct Lines {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.messages.try_send(Message::Line(line.to_vec())) {
            // Ordering: relaxed; a count.
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The writer's thread.
fn write_all(mut sink: Sink, queue: &Receiver<Message>, dropped: &AtomicU64) {
    for message in queue {
        match message {
            Message::Line(line) => {
                // Ordering: relaxed; a count.
                let count = dropped.swap(0, Ordering::Relaxed);
                if count > 0 {
                    sink.write(format!("{count} log lines were dropped\n").as_bytes());
                }
                sink.write(&line);
            }
            Message::Reopen => sink.reopen(),
            Message::Flush(done) => {
                // Whoever asked may have given up.
                let _ = done.try_send(());
            }
        }
    }
}

/// Where lines end up.
enum Sink {
    Stderr,
    File(LogFile),
}

impl Sink {
    fn open(path: &str, rotation: Rotation) -> Result<Self, String> {
        if path.is_empty() {
            return Ok(Self::Stderr);
        }
        LogFile::open(Path::new(path), rotation).map(Self::File).map_err(|error| {
            format!("cannot open the log file {path}: {error}; choose another with --logfile")
        })
    }

    /// There is nowhere to report a failure to write the log.
    fn write(&mut self, line: &[u8]) {
        match self {
            Self::Stderr => {
                let _ = io::stderr().write_all(line);
            }
            Self::File(file) => {
                let _ = file.write(line, SystemTime::now());
            }
        }
    }

    fn reopen(&mut self) {
        if let Self::File(file) = self
            && let Ok(new) = LogFile::open(&file.path, file.rotation)
        {
            *file = new;
        }
    }
}

/// A log file that makes room for a new one in time.
struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    day: u64,
}

/// Number of the day in UTC.
fn day_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / SECONDS_PER_DAY
}

impl LogFile {
    fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        // The file must be found again whatever becomes of the working directory.
        let path = std::path::absolute(path)?;
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let meta = file.metadata()?;
        let day = day_of(meta.modified().unwrap_or_else(|_| SystemTime::now()));
        Ok(Self { path, rotation, file, bytes: meta.len(), day })
    }

    fn write(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let is_due = match self.rotation {
            Rotation::Never => false,
            Rotation::Daily => day_of(now) != self.day,
            Rotation::AtBytes(max) => self.bytes + line.len() as u64 > max,
        };
        if is_due && self.bytes > 0 {
            // A file that cannot be moved is written to further.
            let _ = self.rotate();
        }
        self.day = day_of(now);
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..KEPT_FILES).rev() {
            let from = self.numbered(n);
            if from.exists() {
                fs::rename(&from, self.numbered(n + 1))?;
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        *self = Self::open(&self.path, self.rotation)?;
        Ok(())
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path in a directory of the test's own, which must be removed.
    fn fresh(name: &str) -> (PathBuf, PathBuf) {
        let name = format!("cordis-log-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("the directory is writable");
        (dir.join("log"), dir)
    }

    fn text(path: &Path, suffix: &str) -> Option<String> {
        fs::read_to_string(format!("{}{suffix}", path.display())).ok()
    }

    #[test]
    fn log_file_over_its_size_is_moved_aside() {
        let (path, dir) = fresh("size");
        let now = SystemTime::now();
        let mut file = LogFile::open(&path, Rotation::AtBytes(4)).expect("it can be made");
        for line in ["a\n", "b\n", "c\n", "d\n", "longer\n"] {
            file.write(line.as_bytes(), now).expect("it is open");
        }
        assert_eq!(text(&path, "").as_deref(), Some("longer\n"));
        assert_eq!(text(&path, ".1").as_deref(), Some("c\nd\n"));
        assert_eq!(text(&path, ".2").as_deref(), Some("a\nb\n"));
        for _ in 0..20 {
            file.write(b"more\n", now).expect("it is open");
        }
        assert!(text(&path, ".8").is_some() && text(&path, ".9").is_none());
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn log_file_of_yesterday_is_moved_aside() {
        let (path, dir) = fresh("day");
        let now = SystemTime::now();
        let mut file = LogFile::open(&path, Rotation::Daily).expect("it can be made");
        file.write(b"a\n", now).expect("it is open");
        file.write(b"b\n", now + Duration::from_secs(SECONDS_PER_DAY)).expect("it is open");
        assert_eq!(text(&path, ".1").as_deref(), Some("a\n"));
        assert_eq!(text(&path, "").as_deref(), Some("b\n"));
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn log_file_moved_by_others_is_opened_anew() {
        let (path, dir) = fresh("reopen");
        let name = path.to_str().expect("it is made of letters");
        let mut sink = Sink::open(name, Rotation::Never).expect("it can be made");
        sink.write(b"a\n");
        fs::rename(&path, dir.join("moved")).expect("it is there");
        sink.write(b"b\n");
        sink.reopen();
        sink.write(b"c\n");
        assert_eq!(text(&dir.join("moved"), "").as_deref(), Some("a\nb\n"));
        assert_eq!(text(&path, "").as_deref(), Some("c\n"));
        fs::remove_dir_all(dir).expect("it is there");
    }

    #[test]
    fn sink_that_cannot_be_opened_says_what_to_do() {
        let error = Sink::open("/nosuch/log", Rotation::Never).err().expect("it is not there");
        assert!(error.contains("/nosuch/log") && error.contains("--logfile"));
    }

    #[test]
    fn lines_beyond_the_queue_are_counted() {
        let (messages, queue) = sync_channel(1);
        let lines = Lines { messages, dropped: Arc::default() };
        let mut writer = lines.make_writer();
        writer.write_all(b"a").expect("it never fails");
        writer.write_all(b"b").expect("it never fails");
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 1);
        assert!(matches!(queue.try_recv(), Ok(Message::Line(line)) if line == b"a"));
    }
}
