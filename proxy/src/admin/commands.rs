//! The commands of the admin port: one table of names, usage and documentation, and a handler each.

use std::sync::PoisonError;

use cordis_engine::commands::args::{Args, is_token};
use cordis_engine::commands::glob::{self, Case};
use cordis_engine::observe::slowlog::SlowCall;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::number::parse_i64;
use cordis_engine::resp::reply::{Protocol, Reply};

use super::announce::reachable;
use super::conn::Peer;
use super::{ADOPT_LIMIT, Admin};
use crate::config::spec::{LEVELS, SPECS};
use crate::map_file::Refusal;
use crate::stats::{BackendRow, CommandRow, Percentiles};

/// What follows a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// The next call.
    Stay,
    /// The connection is closed.
    Close,
    /// The process ends.
    Stop,
}

type Outcome = Result<Next, CommandError>;

/// One command.
#[derive(Clone, Copy)]
pub struct AdminCommand {
    /// Its words, in capitals.
    pub name: &'static str,
    /// What follows them.
    pub usage: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// How many words may follow the name.
    words: (usize, usize),
    /// Whether it may be called without a login.
    pub(super) before_login: bool,
    pub(super) run: fn(&Admin, &mut Peer, &Args<'_>, &mut Reply<'_>) -> Outcome,
}

impl std::fmt::Debug for AdminCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

type Handler = fn(&Admin, &mut Peer, &Args<'_>, &mut Reply<'_>) -> Outcome;

const fn command(
    name: &'static str,
    usage: &'static str,
    words: (usize, usize),
    run: Handler,
    doc: &'static str,
) -> AdminCommand {
    AdminCommand { name, usage, doc, words, before_login: false, run }
}

const fn open(mut command: AdminCommand) -> AdminCommand {
    command.before_login = true;
    command
}

const MANY: usize = usize::MAX;

/// All commands, in the order in which HELP lists them.
pub const COMMANDS: &[AdminCommand] = &[
    open(command("AUTH", "[user] secret", (1, 2), auth, "Logs in with the secret of admin_auth")),
    open(command("HELLO", "[2|3 [AUTH user secret]]", (0, 4), hello, "Chooses the protocol")),
    open(command("PING", "[text]", (0, 1), ping, "Answers that the proxy is there")),
    open(command("QUIT", "", (0, 0), quit, "Closes the connection")),
    command("HELP", "[command]", (0, 2), help, "Lists the commands of this port"),
    command("MODEL", "", (0, 0), model, "Who this proxy is: token, addresses, product, process"),
    command("INFO", "[section ...]", (0, MANY), info, "Facts and counters as text"),
    command(
        "STATS",
        "",
        (0, 0),
        stats,
        "Counters and latencies: sessions, commands, backends, cores",
    ),
    command("STATS RESET", "", (0, 0), stats_reset, "Sets all that counts to zero"),
    command("MAP GET", "", (0, 0), map_get, "The cluster map in use, as JSON"),
    command(
        "MAP SET",
        "json",
        (1, 1),
        map_set,
        "Takes a newer map; answers its epoch once every core works with it",
    ),
    command("SLOTS", "", (0, 0), slots, "Which group and server each range of slots goes to"),
    command(
        "LEASE",
        "[ms since-clock-ms]",
        (0, 2),
        lease,
        "The proxy's clock; lets slots that need a lease be served until since + ms on it",
    ),
    command("SLOWLOG GET", "[count]", (0, 1), slowlog_get, "The newest slow calls; -1 for all"),
    command("SLOWLOG LEN", "", (0, 0), slowlog_len, "How many slow calls are kept"),
    command("SLOWLOG RESET", "", (0, 0), slowlog_reset, "Forgets the slow calls"),
    command("CONFIG GET", "pattern ...", (1, MANY), config_get, "Keys of the configuration"),
    command("LOGLEVEL", "[word]", (0, 1), loglevel, "Shows or sets the least severity logged"),
    command("SHUTDOWN", "", (0, 0), shutdown, "Ends the proxy in good order"),
];

/// The command that a call means.
///
/// # Errors
/// There is none, or it takes other words.
pub(super) fn find(args: &Args<'_>) -> Result<&'static AdminCommand, CommandError> {
    let is_meant = |command: &&AdminCommand| {
        let mut names = command.name.split(' ').enumerate();
        names.all(|(i, name)| args.get(i).is_some_and(|word| is_token(word, name)))
    };
    // Of `STATS` and `STATS RESET` the longer one that fits is meant.
    let found = COMMANDS.iter().filter(is_meant).max_by_key(|command| command.name.len());
    let Some(command) = found else {
        let shown = String::from_utf8_lossy(args.at(0)).into_owned();
        let text = format!("ERR unknown admin command '{shown:.64}': HELP lists them");
        return Err(CommandError::as_asked(text.as_bytes()));
    };
    let given = args.len() - command.name.split(' ').count();
    if given < command.words.0 || given > command.words.1 {
        let text = format!("ERR usage: {} {}", command.name, command.usage);
        return Err(CommandError::as_asked(text.trim_end().as_bytes()));
    }
    Ok(command)
}

fn wrong(text: &str) -> CommandError {
    CommandError::as_asked(text.as_bytes())
}

fn auth(admin: &Admin, peer: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    peer.log_in(admin, args.at(args.len() - 1))?;
    reply.ok();
    Ok(Next::Stay)
}

fn hello(admin: &Admin, peer: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let protocol = match args.get(1).map(parse_i64) {
        None => peer.protocol,
        Some(None) => return Err(CommandError::PROTOCOL_NOT_INTEGER),
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err(CommandError::NO_PROTO),
    };
    match (args.get(2), args.len()) {
        (None, _) => {}
        (Some(word), 5) if is_token(word, "auth") => peer.log_in(admin, args.at(4))?,
        (Some(word), _) => return Err(CommandError::hello_option(word)),
    }
    if !peer.authenticated {
        return Err(CommandError::HELLO_NO_AUTH);
    }
    peer.protocol = protocol;
    let mut reply = Reply::new(reply.out(), protocol);
    let proto = if reply.is_resp3() { 3 } else { 2 };
    reply.map(4);
    pair(&mut reply, "server", "cordis-proxy");
    pair(&mut reply, "version", env!("CARGO_PKG_VERSION"));
    count(&mut reply, "proto", proto);
    pair(&mut reply, "mode", "admin");
    Ok(Next::Stay)
}

fn ping(_: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match args.get(1) {
        Some(text) => reply.bulk(text),
        None => reply.simple("PONG"),
    }
    Ok(Next::Stay)
}

fn quit(_: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.ok();
    Ok(Next::Close)
}

fn help(_: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let wanted: Vec<String> =
        args.iter_from(1).map(|w| String::from_utf8_lossy(w).to_uppercase()).collect();
    let wanted = wanted.join(" ");
    let lines: Vec<String> = COMMANDS
        .iter()
        .filter(|command| command.name.starts_with(&wanted))
        .map(|command| {
            format!("{} {}", command.name, command.usage).trim_end().to_owned()
                + " -- "
                + command.doc
        })
        .collect();
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
    Ok(Next::Stay)
}

fn model(admin: &Admin, peer: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.map(12);
    pair(reply, "token", &admin.token);
    pair(reply, "product", &admin.settings.product_name);
    pair(reply, "proxy_addr", &reachable(&admin.proxy_addr, peer.own));
    pair(reply, "admin_addr", &reachable(&admin.admin_addr, peer.own));
    pair(reply, "proto_type", &admin.settings.proto_type);
    pair(reply, "datacenter", &admin.settings.proxy_datacenter);
    pair(reply, "hostname", &hostname());
    count(reply, "pid", u64::from(std::process::id()));
    pair(reply, "version", env!("CARGO_PKG_VERSION"));
    count(reply, "cores", admin.host.node().cores.len() as u64);
    count(reply, "started_at_ms", admin.host.node().started_at.0 as u64);
    count(reply, "epoch", admin.maps.current().epoch);
    Ok(Next::Stay)
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn info(admin: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let words: Vec<String> =
        args.iter_from(1).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    reply.verbatim(admin.host.info(words).as_bytes());
    Ok(Next::Stay)
}

fn map_get(admin: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.bulk(admin.maps.current().to_json().as_bytes());
    Ok(Next::Stay)
}

fn map_set(admin: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let epoch = admin.maps.offer(args.at(2)).map_err(|refusal| {
        if let Refusal::Disk(error) = &refusal {
            tracing::error!(%error, "a map cannot be kept on disk");
        }
        wrong(&refusal.to_string())
    })?;
    // Control goes on only when no core can send a request by an older route.
    let clock = || admin.host.clock_ms();
    let deadline = clock() + ADOPT_LIMIT.as_millis() as u64;
    while admin.host.adopted_epoch() < epoch {
        if clock() >= deadline {
            return Err(wrong(&format!(
                "BUSY map {epoch} is kept, and requests by older routes are still under way: set it \
                 again to hear when they have ended"
            )));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    reply.int(epoch as i64);
    Ok(Next::Stay)
}

fn slots(admin: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let map = admin.maps.current();
    reply.array(map.slots.len());
    for range in &map.slots {
        let primary = map.group(range.group).and_then(|group| group.primary());
        reply.map(7);
        count(reply, "from", u64::from(range.from));
        count(reply, "to", u64::from(range.to));
        count(reply, "group", u64::from(range.group));
        pair(reply, "addr", primary.map_or("", |server| &server.addr));
        count(reply, "epoch", range.epoch);
        count(reply, "migrate_from", u64::from(range.migrate_from));
        count(reply, "locked", u64::from(range.locked));
    }
    Ok(Next::Stay)
}

fn lease(admin: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let clock = admin.host.clock_ms();
    match args.len() {
        1 => {}
        3 => {
            let number = |i| args.int(i).map(u64::try_from);
            let (Ok(ms), Ok(since)) = (number(1)?, number(2)?) else {
                return Err(CommandError::OUT_OF_RANGE);
            };
            if since > clock || ms > 3_600_000 {
                return Err(wrong("ERR the lease begins in the future, or is longer than an hour"));
            }
            admin.host.lease_until(since + ms);
        }
        _ => return Err(wrong("ERR usage: LEASE [ms since-clock-ms]")),
    }
    reply.int(clock as i64);
    Ok(Next::Stay)
}

fn slowlog_get(admin: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = if args.len() > 2 { args.int(2)? } else { 10 };
    let Ok(count) = usize::try_from(if count == -1 { i64::MAX } else { count }) else {
        return Err(CommandError::SLOWLOG_COUNT);
    };
    let node = admin.host.node();
    let calls = node.slowlog.latest(count, node.config.slowlog_max_len());
    reply.array(calls.len());
    calls.iter().for_each(|call| slow_call(call, reply));
    Ok(Next::Stay)
}

fn slow_call(call: &SlowCall, reply: &mut Reply<'_>) {
    reply.map(6);
    count(reply, "id", call.id);
    count(reply, "at_ms", call.at.0 as u64);
    count(reply, "duration_us", call.us);
    let words: Vec<_> = call.words.iter().map(|word| String::from_utf8_lossy(word)).collect();
    pair(reply, "call", &words.join(" "));
    pair(reply, "client_addr", &call.addr);
    pair(reply, "client_name", &String::from_utf8_lossy(&call.name));
}

fn slowlog_len(admin: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let node = admin.host.node();
    reply.count(node.slowlog.len(node.config.slowlog_max_len()));
    Ok(Next::Stay)
}

fn slowlog_reset(admin: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    admin.host.node().slowlog.reset();
    reply.ok();
    Ok(Next::Stay)
}

fn config_get(admin: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let is_meant =
        |name: &str| args.iter_from(2).any(|p| glob::matches(p, name.as_bytes(), Case::Ignore));
    let found: Vec<_> = SPECS.iter().filter(|spec| is_meant(spec.name)).collect();
    reply.map(found.len());
    for spec in found {
        pair(reply, spec.name, admin.settings.values.shown(spec));
    }
    Ok(Next::Stay)
}

fn loglevel(admin: &Admin, _: &mut Peer, args: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut held = admin.log_level.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(word) = args.get(1) else {
        reply.bulk(held.as_bytes());
        return Ok(Next::Stay);
    };
    let Some(word) = LEVELS.iter().find(|level| is_token(word, level)) else {
        return Err(wrong(&format!("ERR the level must be one of {}", LEVELS.join(", "))));
    };
    admin.host.set_log_level(word);
    (*word).clone_into(&mut held);
    reply.ok();
    Ok(Next::Stay)
}

fn shutdown(_: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.ok();
    Ok(Next::Stop)
}

fn stats_reset(admin: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    admin.host.reset_stats();
    reply.ok();
    Ok(Next::Stay)
}

fn stats(admin: &Admin, _: &mut Peer, _: &Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let stats = admin.host.stats();
    let map = admin.maps.current();
    let served: usize =
        map.slots.iter().filter(|r| r.group != 0).map(|r| usize::from(r.to - r.from) + 1).sum();
    let clock = admin.host.clock_ms();
    let rate = admin.rate.lock().unwrap_or_else(PoisonError::into_inner).look(clock, stats.calls);
    reply.map(26);
    pair(reply, "product", &admin.settings.product_name);
    count(reply, "epoch", map.epoch);
    count(reply, "adopted_epoch", admin.host.adopted_epoch());
    count(reply, "slots_served", served as u64);
    count(reply, "lease_left_ms", admin.host.lease_ends_ms().saturating_sub(clock));
    count(reply, "clock_ms", clock);
    count(reply, "sessions_alive", stats.sessions);
    count(reply, "sessions_total", stats.connections);
    count(reply, "sessions_rejected", stats.rejected_connections);
    count(reply, "ops_total", stats.calls);
    count(reply, "ops_local", stats.local);
    count(reply, "ops_fails", stats.failed);
    count(reply, "ops_qps", rate);
    count(reply, "ops_redirected", stats.redirected);
    count(reply, "links_lost", stats.links_lost);
    count(reply, "received_bytes", stats.received_bytes);
    count(reply, "sent_bytes", stats.sent_bytes);
    count(reply, "cpu_ms", stats.cpu_ms);
    count(reply, "memory_bytes", stats.resident_bytes);
    count(reply, "core_count", stats.cores.len() as u64);
    latencies(stats.percentiles, reply);
    reply.bulk(b"commands");
    reply.array(stats.commands.len());
    stats.commands.iter().for_each(|row| command_row(row, reply));
    reply.bulk(b"backends");
    reply.array(stats.backends.len());
    stats.backends.iter().for_each(|row| backend_row(row, reply));
    reply.bulk(b"cores");
    reply.array(stats.cores.len());
    for (i, core) in stats.cores.iter().enumerate() {
        reply.map(5);
        count(reply, "core", i as u64);
        count(reply, "sessions", core.sessions);
        count(reply, "calls", core.calls);
        count(reply, "held", core.held);
        count(reply, "turns", core.turns);
    }
    Ok(Next::Stay)
}

fn command_row(row: &CommandRow, reply: &mut Reply<'_>) {
    reply.map(6);
    pair(reply, "command", row.name);
    count(reply, "calls", row.calls);
    count(reply, "failed", row.failed);
    latencies(row.percentiles, reply);
}

fn backend_row(row: &BackendRow, reply: &mut Reply<'_>) {
    reply.map(10);
    pair(reply, "addr", &row.addr);
    count(reply, "links", row.links);
    count(reply, "in_flight", row.in_flight);
    count(reply, "calls", row.calls);
    count(reply, "refused", row.refused);
    count(reply, "failed", row.failed);
    count(reply, "links_lost", row.links_lost);
    latencies(row.percentiles, reply);
}

fn latencies(percentiles: Percentiles, reply: &mut Reply<'_>) {
    for (name, us) in ["p50_us", "p99_us", "p999_us"].iter().zip(percentiles) {
        count(reply, name, us);
    }
}

fn pair(reply: &mut Reply<'_>, name: &str, text: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(text.as_bytes());
}

fn count(reply: &mut Reply<'_>, name: &str, n: u64) {
    reply.bulk(name.as_bytes());
    reply.int(i64::try_from(n).unwrap_or(i64::MAX));
}
