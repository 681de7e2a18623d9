//! `cordis-server`: reads its settings, checks the machine, starts the engine's cores, and stops
//! them on a signal.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cordis_engine::config::Config;
use cordis_engine::persist::check::check;
use cordis_engine::process;
use cordis_engine::runtime::pinned::{self, Options, Running};
use cordis_engine::runtime::tenant::Maker;
use cordis_engine::runtime::turn::Listener;
use cordis_engine::sys::signal::{Signal, Signals};
use cordis_engine::sys::{malloc, socket};
use cordis_proxy::config::Settings;

use crate::boot::Ready;
use crate::cli::Request;
use crate::log::Log;
use crate::proxy::{Housed, Proxy};

mod boot;
mod cli;
mod log;
mod proxy;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for a wrong option or configuration file.
const WRONG_SETTINGS: u8 = 2;
/// How often the main thread looks whether the cores still run.
const WATCH_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let (config, proxy) = match cli::read(std::env::args_os()) {
        Ok(Request::Run(config, proxy)) => (config, proxy),
        Ok(Request::Show(text)) => {
            // A reader that closes early has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Ok(Request::Check(dir)) => {
            return match check(&dir) {
                Ok(report) => {
                    let _ = io::stdout().write_all(report.as_bytes());
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error.to_string(), ExitCode::FAILURE),
            };
        }
        Err(line) => return fail(&line, ExitCode::from(WRONG_SETTINGS)),
    };
    process::hide_secret_arguments(&cli::secret_flags());
    match run(*config, proxy) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => fail(&line, ExitCode::FAILURE),
    }
}

fn fail(line: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(io::stderr(), "cordis-server: {line}");
    code
}

/// The life of the server, from the first check to the last core's end.
fn run(config: Config, proxy: Option<Box<Settings>>) -> Result<(), String> {
    malloc::tune();
    // Before there is any other thread: all of them inherit the mask.
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    let ready = boot::prepare(&config, proxy.as_deref())?;
    let log = Arc::new(Log::start(&config)?);
    stop_on_panic(&log);
    let level = log.clone();
    config.on_change(Box::new(move |spec, text| {
        if spec.name == "loglevel" {
            level.set_level(text);
        }
    }));
    let (greeting, unixsocket) = (greeting(&config, &ready), config.unixsocket());
    tell(&config, &ready);
    let Ready { cpus, mut listeners, lock, .. } = ready;
    let (tenants, housed) = match proxy {
        Some(settings) => house(settings, cpus.len(), &mut listeners, &lock.dir)?,
        None => (Vec::new(), None),
    };
    let options = Options {
        config,
        cores: cpus,
        listeners,
        seed: u64::from_ne_bytes(process::random()?),
        run_id: run_id()?,
        tenants,
    };
    let running = pinned::start(options).map_err(|error| error.to_string())?;
    let admin = housed.map(|housed| housed.open(&log)).transpose()?;
    greet(&greeting);
    watch(&running, &signals, &log);
    if let Some(port) = admin {
        port.stop();
    }
    let ended = running.join();
    if !unixsocket.is_empty() {
        // Somebody may have removed it before.
        let _ = std::fs::remove_file(&*unixsocket);
    }
    drop(lock);
    tracing::info!("stopped");
    log.flush();
    ended
}

/// Gives the proxy within its sockets, and its parts for the cores.
fn house(
    settings: Box<Settings>,
    core_count: usize,
    listeners: &mut Vec<Listener>,
    dir: &Path,
) -> Result<(Vec<Maker>, Option<Housed>), String> {
    let own = listeners.iter().filter(|listener| !listener.is_unix);
    let own = own.filter_map(|own| socket::local_name(&own.fd).parse().ok()).collect();
    let mut proxy = Proxy::prepare(settings)?;
    let fds = std::mem::take(&mut proxy.listeners);
    listeners.extend(fds.into_iter().map(|fd| Listener { fd, is_unix: false, is_tenants: true }));
    let (tenants, housed) = proxy.house(core_count, own, dir)?;
    Ok((tenants, Some(housed)))
}

/// A panic is a broken invariant: data may be half changed and doors held, so nothing goes on.
fn stop_on_panic(log: &Arc<Log>) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?").to_owned();
        tracing::error!(thread = name, "{panic}; the process ends, please report this");
        log.flush();
        std::process::abort();
    }));
}

fn run_id() -> Result<String, String> {
    Ok(process::random::<20>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn tell(config: &Config, ready: &Ready) {
    if let Some(wanted) = ready.maxclients_lowered_from {
        tracing::warn!(
            wanted,
            maxclients = config.maxclients(),
            "maxclients is lowered to what the limit of open files allows: raise `ulimit -n` or \
             LimitNOFILE="
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        cpus = boot::ranges(&ready.cpus),
        port = config.port(),
        dir = %ready.lock.dir.display(),
        "starting"
    );
}

fn greeting(config: &Config, ready: &Ready) -> String {
    let (count, cpus) = (ready.cpus.len(), boot::ranges(&ready.cpus));
    let cores = if count == 1 { "core" } else { "cores" };
    let way = match config.port() {
        0 => format!("-s {}", config.unixsocket()),
        port => format!("-p {port}"),
    };
    format!(
        "Cordis {} is ready: {count} {cores} on CPU {cpus}.\n\
         Try    redis-cli {way} ping\n       \
         redis-benchmark {way} -t set,get -P 16 -q\n\
         Stop   Ctrl-C\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Says what to try, to somebody who looks.
fn greet(text: &str) {
    tracing::info!("ready");
    let mut out = io::stdout();
    if out.is_terminal() {
        let _ = out.write_all(text.as_bytes());
    }
}

/// Acts on signals until the cores have stopped: because they were asked to here, or by themselves,
/// as SHUTDOWN makes them. A second request to stop does not wait for anything.
fn watch(running: &Running, signals: &Signals, log: &Log) {
    let mut is_stopping = false;
    while !running.is_finished() {
        match signals.wait(WATCH_EVERY) {
            None => {}
            Some(Signal::HangUp) => log.reopen(),
            Some(_) if is_stopping => std::process::exit(1),
            Some(signal) => {
                is_stopping = true;
                tracing::info!(?signal, "stopping");
                running.stop();
            }
        }
    }
}
