//! `cordis up`: a whole cluster on this machine. Starts the processes in order, introduces them to
//! each other over the admin protocol, starts again what dies, and stops all of it on Ctrl-C.
//! Decides nothing about the cluster: control does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

mod child;
mod demo;
mod layout;
mod talk;

use child::{Running, clear_stale};
use layout::{Layout, Process};
use talk::Talk;

/// What `cordis up` is asked for. What is `None` is as it was, or the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder for the cluster's files.
    pub dir: PathBuf,
    /// Groups of one server each.
    pub groups: Option<u16>,
    /// Port that applications connect to.
    pub port: Option<u16>,
    /// Port of the control process.
    pub admin_port: Option<u16>,
    /// Port of a web page, which there is not.
    pub http_port: Option<u16>,
    /// Port of the first server.
    pub server_port: Option<u16>,
    /// Processors, as `0-3,8`.
    pub cores: Option<String>,
    /// Whether to keep a gentle load on it.
    pub demo: bool,
}

/// Why there is no cluster.
#[derive(Debug)]
pub enum UpError {
    /// The options cannot be followed.
    Options(String),
    /// Something did not start, or could not go on.
    Run(String),
}

/// Time until every process must answer.
const START_TIME: Duration = Duration::from_secs(20);
/// Pause before a process that died is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Runs a cluster until a signal says stop.
///
/// # Errors
/// See [`UpError`]; nothing is left running.
pub fn run(options: &Options) -> Result<(), UpError> {
    std::fs::create_dir_all(&options.dir).map_err(|error| {
        UpError::Options(format!("--dir {} cannot be made: {error}", options.dir.display()))
    })?;
    let dir = std::fs::canonicalize(&options.dir).map_err(|error| {
        UpError::Options(format!("--dir {} cannot be used: {error}", options.dir.display()))
    })?;
    let cpus = choose_cpus(options.cores.as_deref()).map_err(UpError::Options)?;
    let _lock = lock(&dir).map_err(UpError::Run)?;
    let layout = Layout::load_or_new(&dir, options).map_err(UpError::Options)?;
    if options.http_port.is_some() {
        print("note: this version has no web page, nothing listens at --http-port\n");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| UpError::Run(format!("cannot start: {error}")))?;
    runtime.block_on(run_cluster(&dir, &layout, &cpus, options.demo)).map_err(UpError::Run)
}

/// Processors of a list, or all that there are.
fn choose_cpus(list: Option<&str>) -> Result<Vec<usize>, String> {
    let Some(list) = list else {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok((0..count).collect());
    };
    let wrong = || format!("--cores takes processors as 0-3,8, not '{list}'");
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last > 4096 {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// Keeps a second `cordis up` out of the same folder.
fn lock(dir: &Path) -> Result<File, String> {
    let path = dir.join("up.lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "a cluster runs in {} already: stop it, or choose another --dir",
            dir.display()
        )),
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn print(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

async fn run_cluster(
    dir: &Path,
    layout: &Layout,
    cpus: &[usize],
    demo: bool,
) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot wait for signals: {error}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let processes = layout.processes(dir, cpus);
    for process in processes.iter().rev() {
        clear_stale(dir, process).await?;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut guards = JoinSet::new();
    let outcome = tokio::select! {
        outcome = start_all(dir, layout, processes, &mut guards, &stopped) => outcome,
        _ = interrupt.recv() => Err("interrupted while starting".to_owned()),
        _ = terminate.recv() => Err("interrupted while starting".to_owned()),
    };
    if outcome.is_ok() {
        print(&greeting(dir, layout));
        let load = demo.then(|| tokio::spawn(demo::run(layout.proxy_port)));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if let Some(load) = load {
            load.abort();
        }
        print("\nstopping\n");
    }
    // Nobody hears it if nothing was started.
    let _ = stop.send(true);
    while guards.join_next().await.is_some() {}
    outcome
}

/// Starts every process, each once the one before it answers, and makes a cluster of them.
async fn start_all(
    dir: &Path,
    layout: &Layout,
    processes: Vec<Process>,
    guards: &mut JoinSet<()>,
    stopped: &tokio::sync::watch::Receiver<bool>,
) -> Result<(), String> {
    for process in processes {
        let (name, port) = (process.name.clone(), process.port);
        if Talk::open(port).await.is_ok() {
            return Err(format!("something else listens on port {port}: {name} cannot start"));
        }
        let mut running = Running::start(dir, process)?;
        let answers = tokio::select! {
            answers = answers_ping(port) => answers,
            how = running.ended() => Err(how),
        };
        if let Err(why) = answers {
            return Err(format!("{name} does not start ({why}): {}", running.last_line()));
        }
        guards.spawn(guard(dir.to_owned(), running, stopped.clone()));
    }
    introduce(layout).await
}

async fn answers_ping(port: u16) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let why = match Talk::open(port).await {
            Ok(mut talk) => match talk.call(&["PING"]).await {
                Ok(_) => return Ok(()),
                Err(why) => why,
            },
            Err(why) => why,
        };
        if begun.elapsed() > START_TIME {
            return Err(why);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Keeps a process running until the cluster stops.
async fn guard(
    dir: PathBuf,
    mut running: Running,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        let how = tokio::select! {
            how = running.ended() => how,
            () = told(&mut stopped) => return running.stop().await,
        };
        let process = running.process.clone();
        print(&format!("{} ended ({how}): starting it again\n", process.name));
        tokio::select! {
            () = sleep(RESTART_PAUSE) => {}
            () = told(&mut stopped) => return,
        }
        running = loop {
            match Running::start(&dir, process.clone()) {
                Ok(running) => break running,
                Err(why) => print(&format!("{why}\n")),
            }
            tokio::select! {
                () = sleep(RESTART_PAUSE) => {}
                () = told(&mut stopped) => return,
            }
        };
    }
}

/// Waits until the cluster is to stop.
async fn told(stopped: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that whoever would tell is gone.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Tells control about groups, servers, slots and the proxy, unless it knows them.
async fn introduce(layout: &Layout) -> Result<(), String> {
    let mut talk = Talk::open(layout.control_port).await?;
    let groups = talk.call(&["GROUP", "LIST"]).await?;
    let known = groups.as_array().map_or(0, <[_]>::len);
    let count = layout.server_ports.len();
    for (index, port) in layout.server_ports.iter().enumerate().skip(known) {
        let (id, addr) = ((index + 1).to_string(), format!("127.0.0.1:{port}"));
        talk.call(&["GROUP", "ADD", &id]).await?;
        talk.call(&["SERVER", "ADD", &id, &addr]).await?;
        let (first, last) = (index * 1024 / count, (index + 1) * 1024 / count - 1);
        talk.call(&["SLOTS", "ASSIGN", &format!("{first}-{last}"), "TO", &id]).await?;
    }
    talk.call(&["PROXY", "ADD", &format!("127.0.0.1:{}", layout.proxy_admin_port)]).await?;
    is_served(layout.proxy_port).await
}

/// Waits until the proxy has its map.
async fn is_served(port: u16) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let why = match Talk::open(port).await {
            Ok(mut talk) => match talk.call(&["EXISTS", "cordis"]).await {
                Ok(_) => return Ok(()),
                Err(why) => why,
            },
            Err(why) => why,
        };
        if begun.elapsed() > START_TIME {
            return Err(format!("the proxy does not serve the slots: {why}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn greeting(dir: &Path, layout: &Layout) -> String {
    let (port, count) = (layout.proxy_port, layout.server_ports.len());
    let control = match layout.control_port {
        18080 => String::new(),
        port => format!(" --control 127.0.0.1:{port}"),
    };
    let servers = match layout.server_ports.as_slice() {
        [one] => format!("server on port {one}"),
        ports => format!("servers on ports {}-{}", ports[0], ports[ports.len() - 1]),
    };
    let to = count.min(2);
    format!(
        "A cluster of {count} groups is ready: proxy on port {port}, {servers}, control on port {}.\n\
         Try    redis-cli -p {port} set hello world\n       \
         redis-benchmark -p {port} -t set,get -P 16 -q\n       \
         cordis{control} slots move --slots 0-511 --to {to} --wait\n\
         Keys are in memory only: this version forgets them when a server stops. The shape of the\n\
         cluster is kept in {}.\n\
         Stop   Ctrl-C\n",
        layout.control_port,
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_as_lists_and_ranges() {
        assert_eq!(choose_cpus(Some("0-2,5")), Ok(vec![0, 1, 2, 5]));
        for wrong in ["", "x", "3-1", "1-", "0-99999"] {
            let error = choose_cpus(Some(wrong)).expect_err("no list");
            assert!(error.starts_with("--cores takes"), "{error}");
        }
    }
}
