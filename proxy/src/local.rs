//! Calls that the proxy answers itself: who a client is and what it has set, and what this process
//! knows. The engine's own handlers run here unchanged, on the state of the proxy's session; what
//! they ask of other cores is a `Tour`.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cordis_engine::commands::args::{Args, is_token};
use cordis_engine::commands::connection::client_line;
use cordis_engine::commands::session_ctx::{ClientFilter, Micros, SessionAction, SessionCtx};
use cordis_engine::commands::spec::Handler;
use cordis_engine::commands::table::{Command, table};
use cordis_engine::config::Config;
use cordis_engine::net::client::ReplyMode;
use cordis_engine::node::Node;
use cordis_engine::pubsub::outbox::Outbox;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::reply::{OutBuf, Reply};
use cordis_engine::runtime::clock::Clock;
use cordis_engine::runtime::ring::Token;
use cordis_engine::units::CoreId;

use crate::hub::Hub;
use crate::session::Place;
use crate::settings::Settings;
use crate::stats;
use crate::ways::{Call, Flow, Ways};
use crate::{dedicated, txn, wide};

/// Commands that the engine's handlers answer from the session and the process.
const SESSION: &[&str] = &[
    "auth",
    "client",
    "command",
    "config|get",
    "config|help",
    "echo",
    "hello",
    "latency",
    "lolwut",
    "memory|help",
    "object|help",
    "ping",
    "pubsub|help",
    "role",
    "select",
    "slotshashkey",
    "slowlog",
    "time",
    "wait",
];

/// Commands that are refused, and why.
const REFUSED: &[(&str, &str)] = &[
    ("bgrewriteaof", "persistence belongs to the servers: ask one directly"),
    ("client|pause", "it would hold back the clients of this proxy only"),
    ("client|unpause", "it would hold back the clients of this proxy only"),
    ("config|set", "a proxy is configured by its file, servers through their own ports"),
    ("config|rewrite", "a proxy is configured by its file, servers through their own ports"),
    ("memory|doctor", "it concerns one server: ask it directly"),
    ("memory|malloc-stats", "it concerns one server: ask it directly"),
    ("memory|purge", "it concerns one server: ask it directly"),
    ("memory|stats", "it concerns one server: ask it directly"),
    ("monitor", "it would show the calls of one server only: ask it directly"),
    ("shutdown", "a proxy is stopped through its admin port"),
    ("slotscheck", "it concerns one server: ask it directly"),
    ("slotsdel", "slots belong to control"),
    ("swapdb", "databases of several servers cannot be swapped at one moment"),
];

/// The same for names that are in no table of ours.
const REFUSED_NAMES: &[(&str, &str)] = &[
    ("acl", "a proxy knows one user: its password is session_auth"),
    ("asking", "it belongs to Redis Cluster, and this is none"),
    ("bgsave", "persistence belongs to the servers: ask one directly"),
    ("cluster", "this is no Redis Cluster: any proxy serves all keys"),
    ("cordis", "it is for servers among themselves"),
    ("failover", "roles belong to control"),
    ("lastsave", "persistence belongs to the servers: ask one directly"),
    ("migrate", "slots belong to control"),
    ("module", "modules belong to the servers: ask one directly"),
    ("psync", "a proxy holds no data that could be followed"),
    ("readonly", "it belongs to Redis Cluster, and this is none"),
    ("readwrite", "it belongs to Redis Cluster, and this is none"),
    ("replconf", "a proxy holds no data that could be followed"),
    ("replicaof", "roles belong to control"),
    ("restore-asking", "it is for servers among themselves"),
    ("save", "persistence belongs to the servers: ask one directly"),
    ("slaveof", "roles belong to control"),
    ("sync", "a proxy holds no data that could be followed"),
];

/// What happens to every call: all commands in their places.
pub fn ways() -> Ways {
    let mut ways = Ways::new();
    register(&mut ways);
    wide::register(&mut ways);
    txn::register(&mut ways);
    dedicated::register(&mut ways);
    ways
}

/// Puts the commands of this file in their place.
pub fn register(ways: &mut Ways) {
    for name in SESSION {
        ways.local(name, session);
    }
    ways.local("config|resetstat", reset_stats);
    ways.local("quit", session);
    ways.local("reset", reset);
    for (name, why) in REFUSED {
        ways.refuse(name, why);
    }
    ways.unknown(unknown);
}

/// What the engine's handlers know of this process.
///
/// # Errors
/// There are no random bytes, or a setting is out of range.
pub(crate) fn node(settings: &Settings, core_count: usize) -> std::io::Result<Node> {
    let config = Config::default();
    let pairs = [
        ("databases", settings.backend_number_databases.to_string()),
        ("requirepass", settings.session_auth.clone()),
        ("maxclients", settings.proxy_max_clients.to_string()),
        ("slowlog-log-slower-than", settings.slowlog_slower_than_us.to_string()),
        ("slowlog-max-len", settings.slowlog_max_len.to_string()),
        ("timeout", (settings.session_recv_timeout_ms / 1000).to_string()),
    ];
    for (name, text) in pairs {
        config
            .set_at_start(name, &text)
            .map_err(|why| std::io::Error::other(format!("{name}: {why}")))?;
    }
    let mut bytes = [0; 20];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let run_id = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Node::new(config, core_count, table().id_count(), Clock::new().now(), run_id))
}

/// What an engine handler has left to do.
#[derive(Debug)]
pub(crate) struct Ran {
    /// What it writes to the client.
    pub(crate) out: OutBuf,
    /// What it wants of other sessions.
    pub(crate) action: Option<SessionAction>,
    /// It ended in an error, which is in `out`.
    pub(crate) failed: bool,
}

/// Runs the engine's handler of a call on the session's state.
pub(crate) fn run(hub: &mut Hub, call: &Call<'_>) -> Ran {
    let mut out = OutBuf::default();
    let (now, core) = (hub.now(), hub.core);
    let node = hub.shared.node;
    let Handler::Session(handler) = call.command.spec.handler else {
        unreachable!("`{}` is not registered here", call.command.spec.name);
    };
    let Some(session) = hub.session(call.session) else {
        return Ran { out, action: None, failed: false };
    };
    let mut outbox = Outbox::default();
    let protocol = session.client.protocol;
    let mut ctx = SessionCtx {
        client: &mut session.client,
        node,
        stats: node.core(CoreId(core as u16)),
        now,
        micros: Micros::Clock(Clock::now_us),
        in_exec: false,
        action: None,
        may_defer: false,
        outbox: &mut outbox,
        pushed: None,
    };
    let mark = out.mark();
    let result = handler(&mut ctx, call.args, &mut Reply::new(&mut out, protocol));
    let action = ctx.action;
    let failed = result.is_err();
    if let Err(error) = result {
        out.truncate(mark);
        Reply::new(&mut out, protocol).error(&error);
    }
    Ran { out, action, failed }
}

/// A call that concerns the session and the process.
pub(crate) fn session(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let began = hub.clock.ticks();
    begin_silence(hub, call.session);
    let ran = run(hub, call);
    let place = place_of_answer(hub, call.session);
    stats::note_own(hub, call.command, began, ran.failed);
    match ran.action {
        Some(action) => act(hub, call.session, place, action),
        None => hub.fill_raw(place, &ran.out.to_vec()),
    }
    // QUIT closes, whether it is answered or not.
    hub.flush_session_later(call.session.index);
    Flow::Go
}

/// CLIENT REPLY SKIP has claimed the call that begins now.
fn begin_silence(hub: &mut Hub, token: Token) {
    if let Some(session) = hub.session(token)
        && session.client.reply_mode == ReplyMode::SkipNext
    {
        session.client.reply_mode = ReplyMode::Skip;
    }
}

/// The place of a reply by what the client wants once its handler has run: CLIENT REPLY is answered
/// by its new state, RESET as well.
fn place_of_answer(hub: &mut Hub, token: Token) -> Place {
    let Some(session) = hub.session(token) else {
        return Place { token, ticket: 0, is_silent: true };
    };
    let is_silent = session.client.reply_mode != ReplyMode::On;
    // Skip and off: this one is not answered, the next one neither, it finds the mode as it is.
    if session.client.reply_mode == ReplyMode::Skip {
        session.client.reply_mode = ReplyMode::On;
    }
    Place { token, ticket: session.reserve(), is_silent }
}

/// RESET: what the session has of links and subscriptions goes with its state.
fn reset(hub: &mut Hub, call: &Call<'_>) -> Flow {
    txn::leave(hub, call.session);
    session(hub, call)
}

/// CONFIG RESETSTAT: on all cores.
fn reset_stats(hub: &mut Hub, call: &Call<'_>) -> Flow {
    let place = hub.reserve(call.session);
    tour(
        hub,
        (),
        |hub, ()| stats::reset_core(hub),
        move |hub, ()| hub.fill(place, |reply| reply.ok()),
    );
    Flow::Go
}

/// A call of a name that is in no table.
fn unknown(hub: &mut Hub, token: Token, args: &Args<'_>) -> Flow {
    if let Some(session) = hub.session(token)
        && let Some(multi) = &mut session.client.multi
    {
        multi.aborted = true;
    }
    if is_token(args.at(0), "slotsmapping") && !is_in_multi(hub, token) {
        return wide::slotsmapping(hub, token, args);
    }
    let error = unknown_error(args);
    let place = hub.reserve(token);
    hub.fill_error(place, &error);
    Flow::Go
}

fn is_in_multi(hub: &mut Hub, token: Token) -> bool {
    hub.session(token).is_some_and(|session| session.client.multi.is_some())
}

fn unknown_error(args: &Args<'_>) -> CommandError {
    let name = args.at(0);
    let refused = |why: &str| {
        let shown = String::from_utf8_lossy(name).to_ascii_lowercase();
        let text = format!("ERR command '{shown}' is not allowed: {why}");
        CommandError::as_asked(text.as_bytes())
    };
    if let Some((_, why)) = REFUSED_NAMES.iter().find(|(known, _)| is_token(name, known)) {
        return refused(why);
    }
    // Whatever the dialect's next word may be, hyphen or not: it moves data behind control's back.
    let internal = ["slotsmgrt", "slotsrestore-"];
    let begins =
        |prefix: &&str| name.get(..prefix.len()).is_some_and(|head| is_token(head, prefix));
    if internal.iter().any(begins) {
        return refused("it is for servers among themselves");
    }
    let words: Vec<&[u8]> = args.iter_from(1).collect();
    CommandError::unknown_command(name, &words)
}

/// Carries out what a handler wants of all sessions, and fills the reply.
fn act(hub: &mut Hub, token: Token, place: Place, action: SessionAction) {
    match action {
        SessionAction::ListClients(filter) => {
            let list = move |hub: &mut Hub, lines: &mut String| list_clients(hub, &filter, lines);
            tour(hub, String::new(), list, move |hub, lines| {
                hub.fill(place, |reply| reply.verbatim(lines.as_bytes()));
            });
        }
        SessionAction::KillClients { filter, old_form } => {
            let home = hub.core;
            let kill = move |hub: &mut Hub, count: &mut i64| {
                let own = (hub.core == home).then_some(token);
                kill_clients(hub, &filter, own, count);
            };
            tour(hub, 0, kill, move |hub, count| match (old_form, count) {
                (false, count) => hub.fill(place, |reply| reply.int(count)),
                (true, 0) => hub.fill_error(place, &CommandError::NO_SUCH_CLIENT),
                (true, _) => hub.fill(place, |reply| reply.ok()),
            });
        }
        SessionAction::Unblock { .. }
        | SessionAction::Shutdown
        | SessionAction::Sleep(_)
        | SessionAction::Names(_)
        | SessionAction::Dialect(_)
        | SessionAction::Slots(_) => {
            let error = CommandError::as_asked(b"ERR it is not served through a proxy");
            hub.fill_error(place, &error);
        }
    }
}

fn list_clients(hub: &mut Hub, filter: &ClientFilter, lines: &mut String) {
    hub.look_at_guests();
    let tokens: Vec<Token> = hub.sessions().map(|(token, _)| token).collect();
    let now = hub.now();
    for token in tokens {
        if let Some(session) = hub.session(token)
            && filter.matches(&session.client)
        {
            session.client.out_bytes = session.pending_out_bytes();
            lines.push_str(&client_line(&session.client, now));
            lines.push('\n');
        }
    }
}

fn kill_clients(hub: &mut Hub, filter: &ClientFilter, own: Option<Token>, count: &mut i64) {
    hub.look_at_guests();
    let hits: Vec<Token> = hub
        .sessions()
        .filter(|(_, session)| filter.matches(&session.client))
        .map(|(token, _)| token)
        .collect();
    for token in hits {
        *count += 1;
        if own == Some(token) {
            // It hears first that it has been killed.
            if let Some(session) = hub.session(token) {
                session.client.close_after_reply = true;
            }
        } else {
            hub.close(token, Some("CLIENT KILL"));
        }
    }
}

/// A session whose next call waits until its last one has been answered.
#[derive(Clone, Debug)]
pub(crate) struct Pause {
    token: Token,
    command: &'static Command,
    began: u64,
    is_over: Arc<AtomicBool>,
}

impl Pause {
    /// A pause that begins with what the handler of a call returns: [`flow`](Self::flow).
    pub(crate) fn new(hub: &Hub, token: Token, command: &'static Command) -> Self {
        Self { token, command, began: hub.clock.ticks(), is_over: Arc::default() }
    }

    /// The answer is there.
    pub(crate) fn end(&self, hub: &mut Hub) {
        // Ordering: relaxed; letters between cores order all that they carry.
        self.is_over.store(true, Ordering::Relaxed);
        stats::note_own(hub, self.command, self.began, false);
        hub.resume(self.token);
    }

    /// What the handler returns: the answer may have come before it does.
    pub(crate) fn flow(&self) -> Flow {
        if self.is_over.load(Ordering::Relaxed) { Flow::Go } else { Flow::Stop }
    }
}

/// What a tour does on each core.
type TourStep<T> = Box<dyn FnMut(&mut Hub, &mut T) + Send>;
/// What it does where it ends.
type TourEnd<T> = Box<dyn FnOnce(&mut Hub, T) + Send>;

/// Something that is done on every core in turn, handing `state` on, and ends where it began.
pub(crate) struct Tour<T> {
    state: T,
    step: TourStep<T>,
    then: TourEnd<T>,
    home: usize,
    next: usize,
}

/// Starts a tour; `then` gets what it has gathered, on this core.
pub(crate) fn tour<T: Send + 'static>(
    hub: &mut Hub,
    state: T,
    step: impl FnMut(&mut Hub, &mut T) + Send + 'static,
    then: impl FnOnce(&mut Hub, T) + Send + 'static,
) {
    let tour = Tour { state, step: Box::new(step), then: Box::new(then), home: hub.core, next: 0 };
    tour.go_on(hub);
}

impl<T: Send + 'static> Tour<T> {
    fn go_on(mut self, hub: &mut Hub) {
        while self.next < hub.shared.cores.len() && self.next == hub.core {
            (self.step)(hub, &mut self.state);
            self.next += 1;
        }
        let to = if self.next < hub.shared.cores.len() { self.next } else { self.home };
        if to != hub.core {
            let shared = hub.shared.clone();
            return shared.run_on(to, Box::new(move |hub| self.go_on(hub)));
        }
        (self.then)(hub, self.state);
    }
}

/// An error of a handler of the proxy's own as the reply.
pub(crate) fn fail(hub: &mut Hub, token: Token, error: &CommandError) -> Flow {
    let place = hub.reserve(token);
    hub.fill_error(place, error);
    Flow::Go
}

#[cfg(test)]
mod tests {
    use cordis_engine::commands::args::OwnedArgs;

    use super::*;
    use crate::ways::Way;

    #[test]
    fn names_of_servers_among_themselves_are_refused_with_hyphens() {
        let text = |name: &[u8]| unknown_error(&OwnedArgs::of(&[name]).args()).text().to_owned();
        for name in [
            &b"SLOTSMGRTONE"[..],
            b"slotsmgrt-async-fence",
            b"SLOTSMGRTTAGSLOT-ASYNC",
            b"slotsrestore-async-select",
            b"SLOTSRESTORE-ASYNC",
            b"Cordis",
            b"restore-asking",
        ] {
            assert!(text(name).contains("is for servers among themselves"), "{name:?}");
        }
        assert!(text(b"REPLICAOF").contains("roles belong to control"));
        assert!(text(b"nonsense").starts_with("ERR unknown command 'nonsense'"));
    }

    #[test]
    fn every_registered_name_exists() {
        let ways = ways();
        let way = |name: &str| {
            let (container, sub) = name.split_once('|').unwrap_or((name, ""));
            let command = table().get(container.as_bytes()).expect("it is in the table");
            ways.of(command.subcommand(sub.as_bytes()).unwrap_or(command))
        };
        assert!(matches!(way("ping"), Way::Local(_)));
        assert!(matches!(way("client|id"), Way::Local(_)));
        assert!(matches!(way("client|pause"), Way::Refused(_)));
        assert!(matches!(way("object|encoding"), Way::Key | Way::Keys));
    }
}
