//! Runs the fixture files `engine/tests/commands/*.txt` through a proxy with two groups: the replies
//! are those of one Redis.
//!
//! Each file gets a map of its own: slots of keys that one call, or one transaction, needs together
//! are served by one group, and everything else is dealt to both in turn. What cannot be together is
//! another test's business.
//!
//! `FIXTURE=part-of-name` runs only the files whose path contains it.

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;

use common::client::Client;
use common::cluster::Cluster;
use common::shared::fixture::{self, Call, Fixture, Kind, Step, Target};
use common::shared::reply;
use common::shared::words::{escaped, line_of};
use cordis_engine::commands::args::OwnedArgs;
use cordis_engine::commands::dispatch::resolve;
use cordis_engine::commands::keys::{find_keys, names_keys};
use cordis_engine::commands::spec::{Flags, Route};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

/// Files that are about one server.
const ONE_SERVER: &[(&str, &str)] = &[
    ("cordis.txt", "it is for servers among themselves"),
    ("shutdown.txt", "a proxy is stopped through its admin port"),
    ("config.txt", "a proxy has settings of its own, and they do not change while it runs"),
    ("latency.txt", "servers measure their own delays"),
];

/// Calls that an administrator sends to servers directly: here to both, and the first one's reply
/// counts.
const DIRECT: &[&str] =
    &["config|set", "debug|set-active-expire", "restore-asking", "slotsdel", "swapdb"];

/// Calls whose replies differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("bgrewriteaof", "refused: persistence belongs to the servers"),
    ("client|pause", "refused: it would hold back the clients of one proxy only"),
    ("client|unpause", "refused: it would hold back the clients of one proxy only"),
    ("config|get", "the proxy's settings, not a server's"),
    ("config|rewrite", "refused: a proxy is configured by its file"),
    ("debug", "one server's"),
    ("info", "the proxy's own"),
    ("memory", "one server's, but for USAGE"),
    ("monitor", "refused: it would show the calls of one server only"),
    ("shutdown", "refused: a proxy is stopped through its admin port"),
    ("slotscheck", "refused: one server's"),
    ("slotsdel", "refused: slots belong to control"),
    ("slotsinfo", "errors of its own for what is no slot"),
];

/// Parts of files, from a heading to the next, that are not compared, and why.
const DIFFERENT_PARTS: &[(&str, &str, &str)] = &[
    ("generic.txt", "# In a transaction", "its calls concern all servers"),
    ("pubsub.txt", "# MULTI", "a transaction runs on one server, subscriptions are on all"),
    ("pubsub.txt", "# MONITOR: the data is out of reach", "MONITOR is refused"),
    ("server.txt", "# DEBUG", "it changes the data of one server"),
    ("txn.txt", "# protocols", "HELLO in a transaction would change the protocol of a shared link"),
    ("txn.txt", "# connection commands inside", "they would concern the proxy's own link"),
    ("txn.txt", "# whole databases inside", "its calls concern all servers"),
    ("txn.txt", "# memory", "servers know whether it is short, when they get the transaction"),
];

/// Replies that are expected of a server and not of a proxy, and why.
const DIFFERENT_REPLIES: &[(&str, &str)] =
    &[("-ERR Replica can't interact with the keyspace", "MONITOR is refused")];

/// Calls that are refused in a transaction, because it runs on one server and they concern all, or
/// the session. Such a transaction is not compared.
const NOT_IN_TRANSACTIONS: &[&str] = &[
    "auth",
    "client",
    "config",
    "dbsize",
    "flushall",
    "flushdb",
    "info",
    "keys",
    "monitor",
    "psubscribe",
    "punsubscribe",
    "randomkey",
    "scan",
    "slotsinfo",
    "slotsscan",
    "slowlog",
    "ssubscribe",
    "subscribe",
    "sunsubscribe",
    "swapdb",
    "unsubscribe",
];

/// The name of a call as the lists above have it: the command, and `command|sub`.
fn names_of(words: &[Vec<u8>]) -> [String; 2] {
    let text = |i: usize| {
        String::from_utf8_lossy(words.get(i).map_or(&[][..], Vec::as_slice)).to_ascii_lowercase()
    };
    [text(0), format!("{}|{}", text(0), text(1))]
}

fn is_listed(list: &[&str], words: &[Vec<u8>]) -> bool {
    names_of(words).iter().any(|name| list.contains(&name.as_str()))
}

/// Whether a call is for servers among themselves: a proxy has to refuse it, hyphens or not. One
/// that lacks words is refused for that.
fn is_internal(call: &Call) -> bool {
    const LET_THROUGH: &[&str] = &["slotsrestore", "pfdebug", "pfselftest"];
    let words: Vec<&[u8]> = call.words.iter().map(Vec::as_slice).collect();
    let command = resolve(&OwnedArgs::of(&words).args());
    let is_let_through = is_listed(LET_THROUGH, &call.words) || is_listed(DIRECT, &call.words);
    !is_let_through && command.is_ok_and(|command| command.spec.is_internal)
}

/// Decides which replies are compared, call by call.
#[derive(Default)]
struct Judge {
    /// A password is set: the proxy's is its own setting.
    has_password: bool,
    /// The transaction of this client is not compared.
    skipped: Option<String>,
    /// Lines of the parts that are not compared.
    parts: Vec<std::ops::Range<usize>>,
}

impl Judge {
    fn of(fixture: &Fixture) -> Self {
        let name = fixture.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let text = std::fs::read_to_string(&fixture.path).expect("it has just been read");
        let lines: Vec<&str> = text.lines().collect();
        let own = DIFFERENT_PARTS.iter().filter(|(file, ..)| Some(*file) == name.as_deref());
        let part = |heading: &str| {
            let from = lines.iter().position(|line| *line == heading);
            let from = from.unwrap_or_else(|| panic!("{heading} is not in {name:?}"));
            let next = lines[from + 1..].iter().position(|line| line.starts_with('#'));
            from + 1..next.map_or(lines.len() + 1, |next| from + 2 + next)
        };
        Self { parts: own.map(|(_, heading, _)| part(heading)).collect(), ..Self::default() }
    }

    /// Whether a call's reply is that of a server.
    fn compares(&mut self, line: usize, client: &str, call: &Call) -> bool {
        let words = &call.words;
        let [name, full] = names_of(words);
        let was_password = self.has_password;
        if full == "config|set"
            && words.get(2).is_some_and(|w| w.eq_ignore_ascii_case(b"requirepass"))
        {
            self.has_password = words.get(3).is_some_and(|password| !password.is_empty());
            return false;
        }
        let was_skipped = self.skipped.as_deref() == Some(client);
        if was_skipped && ["exec", "discard", "reset"].contains(&name.as_str()) {
            self.skipped = None;
        }
        if call.expected.as_deref() == Some(b"+QUEUED\r\n") && is_listed(NOT_IN_TRANSACTIONS, words)
        {
            self.skipped = Some(client.to_owned());
            return false;
        }
        let names: Vec<&str> = DIFFERENT.iter().map(|(name, _)| *name).collect();
        let is_different = DIFFERENT_REPLIES.iter().any(|(text, _)| {
            call.expected.as_deref().is_some_and(|reply| reply.starts_with(text.as_bytes()))
        });
        let is_in_part = self.parts.iter().any(|part| part.contains(&line));
        !is_in_part && !was_password && !was_skipped && !is_different && !is_listed(&names, words)
    }
}

/// The replies among these frames: messages come by other ways than replies, so that their order is
/// nobody's promise.
fn without_messages(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut kept = Vec::new();
    while let Ok(Some(len)) = reply::frame_len(rest) {
        let frame = &rest[..len];
        let is_message =
            [&b">3\r\n$7\r\nmessage"[..], b">4\r\n$8\r\npmessage", b">3\r\n$8\r\nsmessage"]
                .iter()
                .any(|head| frame.starts_with(head));
        if !is_message {
            kept.extend_from_slice(frame);
        }
        rest = &rest[len..];
    }
    kept.extend_from_slice(rest);
    kept
}

struct ProxyTarget {
    cluster: Cluster,
    clients: HashMap<String, Client>,
}

impl ProxyTarget {
    fn client(&mut self, name: &str) -> &mut Client {
        if !self.clients.contains_key(name) {
            self.clients.insert(name.to_owned(), self.cluster.proxy.client());
        }
        self.clients.get_mut(name).expect("it has just been inserted")
    }

    fn direct(&self, words: &[Vec<u8>]) -> Vec<u8> {
        let call = |server: &common::cluster::Server| server.client().try_call(words);
        let replies: Vec<Vec<u8>> =
            self.cluster.servers.iter().map(|s| call(s).expect("it answers")).collect();
        replies[0].clone()
    }
}

impl Target for ProxyTarget {
    fn is_redis(&self) -> bool {
        false
    }

    fn is_server(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        self.clients.clear();
        assert_eq!(self.cluster.proxy.client().call("FLUSHALL"), b"+OK\r\n");
    }

    fn call(&mut self, client: &str, words: &[Vec<u8>]) -> Vec<u8> {
        // A password would lock out the proxy, too: it is told as little about it as of other settings.
        let is_password =
            words.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"requirepass"));
        if is_listed(DIRECT, words) && !is_password {
            return self.direct(words);
        }
        let client = self.client(client);
        // A push comes beside replies; only these commands are answered by nothing else.
        let is_answered_by_push = words[0].to_ascii_lowercase().ends_with(b"subscribe");
        let mut all = Vec::new();
        let result = client.send_call(words).and_then(|()| {
            loop {
                let reply = client.read_reply()?;
                if without_messages(&reply).is_empty() {
                    continue;
                }
                let is_push = reply.starts_with(b">") && !is_answered_by_push;
                all.extend(reply);
                if !is_push {
                    return Ok(());
                }
            }
        });
        match result {
            Ok(()) => all,
            Err(error) => {
                panic!("{}: {error}\n{}", line_of(words), self.cluster.proxy.process.output())
            }
        }
    }

    fn send(&mut self, client: &str, words: &[Vec<u8>]) {
        let sent = self.client(client).send_call(words);
        sent.unwrap_or_else(|error| panic!("{}: {error}", line_of(words)));
    }
}

/// Which slots must be together: a forest over slots.
struct Together {
    parents: Vec<usize>,
    /// Keys may be anywhere: one group serves all.
    is_all: bool,
}

impl Together {
    fn root(&self, mut slot: usize) -> usize {
        while self.parents[slot] != slot {
            slot = self.parents[slot];
        }
        slot
    }

    fn join(&mut self, slots: &[usize]) {
        for pair in slots.windows(2) {
            let (a, b) = (self.root(pair[0]), self.root(pair[1]));
            self.parents[a] = b;
        }
    }

    /// What the calls of a fixture need.
    fn of(fixture: &Fixture) -> Self {
        let mut together = Self { parents: (0..SLOT_COUNT).collect(), is_all: false };
        let mut client = "first".to_owned();
        // Slots of each client's transaction and of what it watches.
        let mut transactions: HashMap<String, Vec<usize>> = HashMap::new();
        for (_, step) in &fixture.steps {
            let call = match step {
                Step::Client(name) => {
                    client.clone_from(name);
                    continue;
                }
                Step::Reset => {
                    transactions.clear();
                    continue;
                }
                Step::Call(call) => call,
                Step::Protocol(_) => continue,
            };
            let words: Vec<&[u8]> = call.words.iter().map(Vec::as_slice).collect();
            let owned = OwnedArgs::of(&words);
            let Ok(command) = resolve(&owned.args()) else {
                continue;
            };
            let open = transactions.contains_key(&client);
            match command.spec.name {
                "multi" => drop(transactions.entry(client.clone()).or_default()),
                "exec" | "discard" | "reset" | "unwatch" => drop(transactions.remove(&client)),
                _ => {}
            }
            let mut found = Vec::new();
            find_keys(command.spec, &owned.args(), &mut found);
            together.is_all |= names_keys(command.spec, &owned.args());
            let slots: Vec<usize> =
                found.iter().map(|key| slot_of(owned.args().at(key.index)).index()).collect();
            let is_split = command.spec.route == Route::SplitKeys;
            if open || command.spec.name == "watch" {
                let all = transactions.entry(client.clone()).or_default();
                all.extend(&slots);
                let all = all.clone();
                together.join(&all);
            } else if !is_split || command.spec.flags.contains(Flags::BLOCKING) {
                together.join(&slots);
            }
        }
        together
    }

    /// The group of each slot: what is together is in one, and both get their share.
    fn groups(&self) -> Vec<u16> {
        let mut dealt: HashMap<usize, u16> = HashMap::new();
        (0..SLOT_COUNT)
            .map(|slot| {
                if self.is_all {
                    return 1;
                }
                let next = dealt.len() as u16 % 2 + 1;
                *dealt.entry(self.root(slot)).or_insert(next)
            })
            .collect()
    }
}

/// Who makes the call of each line.
fn clients_by_line(fixture: &Fixture) -> HashMap<usize, String> {
    let mut client = "first".to_owned();
    let mut lines = HashMap::new();
    for (line, step) in &fixture.steps {
        if let Step::Client(name) = step {
            client.clone_from(name);
        }
        lines.insert(*line, client.clone());
    }
    lines
}

#[test]
fn fixtures_through_a_proxy_with_two_groups_answer_as_redis() {
    let cluster = Cluster::start(&[]);
    let mut target = ProxyTarget { cluster, clients: HashMap::new() };
    let mut wrong = String::new();
    let (mut wrong_count, mut right_count) = (0, 0);
    for file in fixture::all() {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
        if ONE_SERVER.iter().any(|(listed, _)| Some(*listed) == name.as_deref()) {
            continue;
        }
        let groups = Together::of(&file).groups();
        target.cluster.serve(|slot| groups[slot.index()]);
        let mut judge = Judge::of(&file);
        let clients = clients_by_line(&file);
        fixture::run(&file, &mut target, &mut |line, call, reply| {
            if is_internal(call) {
                assert!(reply.starts_with(b"-ERR command '"), "{}", line_of(&call.words));
                return;
            }
            if !judge.compares(line, &clients[&line], call) || !call.kind.has_reply() {
                return;
            }
            if call.expected.as_deref().map(without_messages).as_deref() == Some(reply) {
                right_count += 1;
                return;
            }
            wrong_count += 1;
            if wrong_count <= 80 {
                let expected = call.expected.as_deref().map_or_else(String::new, escaped);
                let _ = writeln!(
                    wrong,
                    "{}:{line}: {}\n  expected {expected}\n  got      {}",
                    name.as_deref().unwrap_or_default(),
                    line_of(&call.words),
                    escaped(reply)
                );
            }
        });
    }
    assert!(wrong_count == 0, "{wrong_count} replies differ, {right_count} do not:\n{wrong}");
    assert!(right_count > 100, "hardly anything was compared");
    assert!(!target.cluster.proxy.process.output().contains("ERROR"));
}

#[test]
fn listed_differences_are_commands_of_the_fixtures() {
    let mut seen: Vec<String> = Vec::new();
    for file in fixture::all() {
        for (_, step) in &file.steps {
            if let Step::Call(call) = step
                && call.kind != Kind::Silent
            {
                seen.extend(names_of(&call.words));
            }
        }
    }
    if std::env::var_os("FIXTURE").is_none() {
        let listed = DIFFERENT.iter().map(|(name, _)| *name).chain(DIRECT.iter().copied());
        for name in listed {
            assert!(seen.iter().any(|other| other == name), "`{name}` is in no fixture");
        }
    }
}
