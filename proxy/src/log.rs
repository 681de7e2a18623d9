//! The log: lines are made where something happens and written by a thread of their own, so that
//! no core ever waits for a disk or a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use cordis_proxy::config::Settings;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait for the writer. Beyond that they are counted and dropped.
const QUEUE_LINES: usize = 4096;
/// Longest wait for the last lines when the process ends.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

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
    pub(crate) fn start(settings: &Settings) -> Result<Self, String> {
        let sink = Sink::open(&settings.log)?;
        let is_terminal = matches!(sink, Sink::Stderr) && io::stderr().is_terminal();
        let (messages, queue) = sync_channel(QUEUE_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let (filter, level) = reload::Layer::new(targets(&settings.log_level));
        let log = Self { messages, dropped: dropped.clone(), level };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(sink, &queue, &dropped))
            .map_err(|error| format!("cannot start the thread that writes the log: {error}"))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(is_terminal)
            .with_writer(Lines { messages: log.messages.clone(), dropped: log.dropped.clone() });
        let lines = if settings.log_json { lines.json().boxed() } else { lines.boxed() };
        Registry::default().with(filter).with(lines).init();
        Ok(log)
    }

    /// Changes the least severity that is logged, as `log_level` names it.
    pub(crate) fn set_level(&self, word: &str) {
        // Fails only if the subscriber is gone, and it lives as long as the process.
        let _ = self.level.reload(targets(word));
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

/// Our own events from `log_level` up, warnings of others.
fn targets(word: &str) -> Targets {
    let level = match word {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        _ => LevelFilter::ERROR,
    };
    let ours = ["cordis_engine", "cordis_proxy"].map(|name| (name, level));
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
    File(String, File),
}

impl Sink {
    fn open(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Ok(Self::Stderr);
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
            format!("cannot open the log file {path}: {error}; choose another with --log")
        })?;
        Ok(Self::File(path.to_owned(), file))
    }

    /// There is nowhere to report a failure to write the log.
    fn write(&mut self, line: &[u8]) {
        match self {
            Self::Stderr => {
                let _ = io::stderr().write_all(line);
            }
            Self::File(_, file) => {
                let _ = file.write_all(line);
            }
        }
    }

    fn reopen(&mut self) {
        if let Self::File(path, _) = self
            && let Ok(new) = Self::open(path)
        {
            *self = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn sink_that_cannot_be_opened_says_what_to_do() {
        let error = Sink::open("/nosuch/log").err().expect("it is not there");
        assert!(error.contains("/nosuch/log") && error.contains("--log"));
    }
}
