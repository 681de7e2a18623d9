//! `cordis-proxy`: reads its settings, checks the machine, starts the proxy's cores and its admin
//! port, and stops them on a signal.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cordis_engine::commands::table::table;
use cordis_engine::process::{hide_secret_arguments, random};
use cordis_engine::pubsub;
use cordis_engine::sys::malloc;
use cordis_engine::sys::signal::{Signal, Signals};
use cordis_proxy::admin::{Admin, AdminPort, announce};
use cordis_proxy::config::Settings;
use cordis_proxy::core::{self, Running};
use cordis_proxy::local;
use cordis_proxy::process::{self, Process};
use cordis_proxy::shared::Shared;

use crate::boot::Ready;
use crate::cli::Request;
use crate::log::Log;

mod boot;
mod cli;
mod log;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for a wrong option or configuration file.
const WRONG_SETTINGS: u8 = 2;
/// How often the main thread looks whether the cores still run.
const WATCH_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let settings = match cli::read(std::env::args_os()) {
        Ok(Request::Run(settings)) => settings,
        Ok(Request::Show(text)) => {
            // A reader that closes early has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(line) => return fail(&line, ExitCode::from(WRONG_SETTINGS)),
    };
    hide_secret_arguments(&cli::secret_flags());
    match run(*settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => fail(&line, ExitCode::FAILURE),
    }
}

fn fail(line: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(io::stderr(), "cordis-proxy: {line}");
    code
}

/// The life of the proxy, from the first check to the last core's end.
fn run(mut settings: Settings) -> Result<(), String> {
    malloc::tune();
    // Before there is any other thread: all of them inherit the mask.
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    pubsub::seed_names(u64::from_ne_bytes(random()?));
    let log = Arc::new(Log::start(&settings)?);
    let ready = boot::prepare(&mut settings)?;
    stop_on_panic(&log);
    tell(&settings, &ready);
    let Ready { cpus, listeners, proxy_addr, admin, lock, .. } = ready;
    let (shared, mailboxes) =
        Shared::new(settings.data_path(), cpus.len(), table().id_count()).map_err(text)?;
    let maps = process::open_maps(&settings, &lock.dir, &shared)?;
    let running = core::start(&shared, mailboxes, local::ways(), listeners, &cpus).map_err(text)?;
    let admin_addr = admin.local_addr().map_err(text)?.to_string();
    let pidfile = write_pidfile(&settings.pidfile)?;
    let level = log.clone();
    let host = Process::new(shared, move |word| level.set_level(word));
    let token = random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let admin_state = process::admin_of(settings, maps, host, token, (proxy_addr, admin_addr));
    let port = AdminPort::start(admin, admin_state.clone()).map_err(text)?;
    announce(admin_state.clone()).map_err(text)?;
    greet(&admin_state);
    watch(&running, &signals, &log);
    port.stop();
    let ended = running.join().map_err(text);
    if let Some(path) = pidfile {
        // Somebody may have removed it before.
        let _ = std::fs::remove_file(path);
    }
    drop(lock);
    tracing::info!("stopped");
    log.flush();
    ended
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn write_pidfile(path: &str) -> Result<Option<String>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    std::fs::write(path, format!("{}\n", std::process::id()))
        .map_err(|error| format!("cannot write the pidfile {path}: {error}"))?;
    Ok(Some(path.to_owned()))
}

/// A panic is a broken invariant: replies may be out of order, so nothing goes on.
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

fn tell(settings: &Settings, ready: &Ready) {
    for (key, why) in settings.values.ignored() {
        tracing::info!(key, "this key of the original changes nothing here: {why}");
    }
    if let Some(wanted) = ready.clients_lowered_from {
        tracing::warn!(
            wanted,
            proxy_max_clients = settings.proxy_max_clients,
            "proxy_max_clients is lowered to what the limit of open files allows: raise `ulimit \
             -n` or LimitNOFILE="
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        cpus = ?ready.cpus,
        product = settings.product_name,
        dir = %ready.lock.dir.display(),
        "starting"
    );
}

/// Says where it is, and to somebody who looks what to try.
fn greet(admin: &Admin) {
    tracing::info!(proxy_addr = admin.proxy_addr, admin_addr = admin.admin_addr, "ready");
    let mut out = io::stdout();
    if !out.is_terminal() {
        return;
    }
    let way = |addr: &str| {
        let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
        format!("-h {host} -p {port}")
    };
    let text = format!(
        "Cordis {} proxy is ready for product {}.\n\
         Try    redis-cli {} ping\n       \
         redis-cli {} help\n\
         Stop   Ctrl-C\n",
        env!("CARGO_PKG_VERSION"),
        admin.settings.product_name,
        way(&admin.proxy_addr),
        way(&admin.admin_addr),
    );
    let _ = out.write_all(text.as_bytes());
}

/// Acts on signals until the cores have stopped, or are asked to on the admin port. A second request
/// to stop does not wait for anything.
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
