//! A hub without a ring: clients whose bytes are handed to it, servers that a test answers for, and
//! time that passes when a test says so.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use cordis_engine::commands::args::Args;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::slots::map::{MapGroup, MapRange, MapServer, ServerRole, ranges_of};

use super::*;
use crate::link::LinkState;
use crate::session::HELD_STALL_BYTES;

/// What a server answers to a call; nothing: it stays silent.
type Script = Box<dyn FnMut(&str, &[String]) -> Option<String>>;

/// A hub with what is around it.
pub(crate) struct Stage {
    pub(crate) hub: Hub,
    script: Script,
    /// The other ends of the clients' sockets.
    peers: Vec<UnixStream>,
    /// What clients have got and not taken yet.
    output: HashMap<u32, Vec<u8>>,
    /// Calls that servers have got, greetings aside: who, and what.
    pub(crate) calls: Vec<(String, Vec<String>)>,
}

/// The servers of groups 1 and 2. Of `a` (slot 579) the second is the server, of `e1` (295) the first.
pub(crate) const SERVERS: [&str; 2] = ["127.0.0.1:1", "127.0.0.1:2"];

/// A map in which group 1 serves slots below 512 and group 2 the others, unless `change` has it
/// otherwise.
pub(crate) fn map(epoch: u64, change: impl Fn(usize, &mut MapRange)) -> Arc<ClusterMap> {
    let group = |(i, addr): (usize, &&str)| MapGroup {
        id: i as u16 + 1,
        servers: vec![MapServer {
            addr: (*addr).to_owned(),
            kind: ServerKind::Cordis,
            role: ServerRole::Primary,
            datacenter: String::new(),
            replica_group: false,
        }],
    };
    let range = |slot: SlotId| {
        let group = if slot.index() < 512 { 1 } else { 2 };
        let mut range = MapRange { group, epoch, ..MapRange::offline() };
        change(slot.index(), &mut range);
        range
    };
    Arc::new(ClusterMap {
        product: "codis-demo".to_owned(),
        epoch,
        groups: SERVERS.iter().enumerate().map(group).collect(),
        slots: ranges_of(range),
        lease_ms: 0,
    })
}

impl Stage {
    /// A hub with two servers that answer as `script` says.
    pub(crate) fn new(
        settings: Settings,
        script: impl FnMut(&str, &[String]) -> Option<String> + 'static,
    ) -> Self {
        let (shared, _) = Shared::new(settings, 1, table().id_count()).expect("there are sockets");
        let mut hub = Hub::new(0, shared, Arc::new(crate::local::ways()));
        hub.adopt_map(&map(1, |_, _| {}));
        Self {
            hub,
            script: Box::new(script),
            peers: Vec::new(),
            output: HashMap::new(),
            calls: Vec::new(),
        }
    }

    /// A new client.
    pub(crate) fn client(&mut self) -> Token {
        let (ours, theirs) = UnixStream::pair().expect("there are sockets");
        self.peers.push(theirs);
        self.hub.open_session(ours.into());
        let newest = self.hub.sessions().map(|(token, _)| token).max_by_key(|t| t.generation);
        newest.expect("it has just been opened")
    }

    /// A client sends lines; what follows from them happens.
    pub(crate) fn send(&mut self, client: Token, lines: &[&str]) {
        let mut bytes = Vec::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            crate::encode::request(&mut bytes, &words);
        }
        self.hub.session_received(client, &bytes, true);
        self.settle();
    }

    /// A client sends a line and gets what it has been answered by then.
    pub(crate) fn text(&mut self, client: Token, line: &str) -> String {
        self.send(client, &[line]);
        self.read(client)
    }

    /// What a client has got.
    pub(crate) fn read(&mut self, client: Token) -> String {
        let bytes = self.output.remove(&client.index).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Time passes, and links and sessions are looked after.
    pub(crate) fn pass_ms(&mut self, ms: i64) {
        self.hub.now = Ms(self.hub.now.0 + ms);
        self.hub.tick();
        self.settle();
    }

    /// Turns until there is nothing left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.hub.run_resumed();
            self.hub.flush();
            let ops = std::mem::take(&mut self.hub.ops);
            let is_over = ops.is_empty() && !self.hub.has_work();
            ops.into_iter().for_each(|op| self.carry_out(op));
            self.hub.bury();
            if is_over {
                return;
            }
        }
        panic!("a session keeps the core busy for ever");
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Connect(token, ..) => {
                if let Some(index) = self.hub.link_index(token) {
                    self.hub.link_connected(index, 0);
                }
            }
            Op::Send(token, _, out, _) if token.index & LINK_INDEX == 0 => {
                self.output.entry(token.index).or_default().extend(out.to_vec());
                self.hub.session_sent(token, out, 0, false);
            }
            Op::Send(token, _, out, _) => {
                let Some(index) = self.hub.link_index(token) else {
                    return;
                };
                let requests = out.to_vec();
                self.hub.link_sent(index, out, 0, false);
                self.serve(token, &requests);
            }
            Op::Receive(..) | Op::CancelReceive(_) => {}
        }
    }

    /// A server takes requests and answers.
    fn serve(&mut self, token: Token, requests: &[u8]) {
        let limits = Limits { word_bytes_max: usize::MAX, authenticated: true };
        let (mut parser, mut ranges, mut at) = (Parser::default(), Vec::new(), 0);
        while let Parsed::Call(next) = parser.next(requests, at, limits, &mut ranges) {
            let args = Args::new(requests, &ranges);
            let words: Vec<String> =
                args.iter_from(0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            at = next;
            ranges.clear();
            let Some(index) = self.hub.link_index(token) else {
                return;
            };
            let link = &self.hub.links[index as usize];
            let is_greeting = link.state == LinkState::Greeting;
            let addr = self.hub.backends.get(link.backend).addr.clone();
            let reply = match (self.script)(&addr, &words) {
                None if is_greeting => Some("+OK\r\n".to_owned()),
                reply => reply,
            };
            if !is_greeting {
                self.calls.push((addr, words));
            }
            if let Some(reply) = reply {
                self.hub.link_received(index, reply.as_bytes());
            }
        }
    }
}

/// Servers that say OK to everything.
fn ok(_: &str, _: &[String]) -> Option<String> {
    Some("+OK\r\n".to_owned())
}

/// Servers that answer no call.
fn silence(_: &str, _: &[String]) -> Option<String> {
    None
}

#[test]
fn call_on_several_slots_without_a_reply_holds_up_nothing() {
    let mut stage = Stage::new(Settings::default(), ok);
    let client = stage.client();
    let lines = ["CLIENT REPLY SKIP", "MSET a 1 e1 2", "SET a 9", "PING"];
    stage.send(client, &lines);
    assert_eq!(stage.read(client), "+OK\r\n+PONG\r\n");
    let lines = ["CLIENT REPLY OFF", "MSET a 1 e1 2", "SET a 9", "DBSIZE", "CLIENT REPLY ON"];
    stage.send(client, &lines);
    assert_eq!(stage.read(client), "+OK\r\n");
    let session = stage.hub.session(client).expect("it is open");
    assert_eq!((session.unanswered(), session.has_part_of(0)), (0, false));
}

#[test]
fn call_without_a_reply_is_not_overtaken_by_one_over_all_slots() {
    let mut stage = Stage::new(Settings::default(), silence);
    let client = stage.client();
    stage.send(client, &["CLIENT REPLY SKIP", "SET a 1", "DBSIZE"]);
    let asked: Vec<&str> = stage.calls.iter().map(|(_, words)| words[0].as_str()).collect();
    assert_eq!(asked, ["SET"]);
}

/// Sends a line again and again, in pieces as a socket would have them.
fn pour(stage: &mut Stage, client: Token, line: &str, count: usize) {
    (0..count).for_each(|_| stage.send(client, &[line]));
}

#[test]
fn requests_that_wait_for_their_slot_stop_the_input_whatever_they_are() {
    let long = "x".repeat(20_000);
    for (first, line) in [
        ("PING", format!("SET a {long}")),
        ("CLIENT REPLY OFF", format!("SET a {long}")),
        ("PING", format!("MGET {{a}}{long} e1")),
        ("CLIENT REPLY OFF", format!("MGET {{a}}{long} e1")),
    ] {
        let mut stage = Stage::new(Settings::default(), ok);
        let client = stage.client();
        stage.hub.adopt_map(&map(2, |slot, range| range.locked = slot == 579));
        stage.send(client, &[first]);
        pour(&mut stage, client, &line, 300);
        let held = stage.hub.routes.held_count() * long.len();
        assert!(held <= HELD_STALL_BYTES + long.len(), "{first}: {held} bytes are held");
        // What waited is counted off again.
        stage.hub.adopt_map(&map(3, |_, _| {}));
        stage.settle();
        let session = stage.hub.session(client).expect("it is open");
        assert_eq!((session.held_bytes, session.unanswered()), (0, 0), "{first}");
        assert!(session.tail.is_empty(), "{first}");
    }
}

#[test]
fn split_calls_wait_for_room_on_every_way() {
    let settings = Settings { backend_pending_bytes_max: 100_000, ..Settings::default() };
    // The first server answers, the second does so once, which opens the slot.
    let mut stage = Stage::new(settings, |addr, words| {
        (addr == SERVERS[0] || words[0] == "GET").then(|| "*1\r\n$-1\r\n".to_owned())
    });
    let client = stage.client();
    assert_eq!(stage.text(client, "GET a"), "*1\r\n$-1\r\n");
    let line = format!("MGET e1 {{a}}{}", "x".repeat(20_000));
    pour(&mut stage, client, &line, 100);
    let pending = stage.hub.links.iter().map(|(_, link)| link.pending_bytes()).max();
    assert!(pending < Some(130_000), "{pending:?} bytes wait on a link");
    let session = stage.hub.session(client).expect("it is open");
    assert_eq!(session.stall, Stall::Room);
    // Another server's keys are served meanwhile, and the link's end lets it go on.
    let other = stage.client();
    assert_eq!(stage.text(other, "GET e1"), "*1\r\n$-1\r\n");
    let stuck = stage.hub.links.iter().position(|(_, link)| !link.waiters.is_empty());
    let index = stage.hub.links.iter().nth(stuck.expect("it waits for a link")).map(|(i, _)| i);
    stage.hub.lose_link(index.expect("it is there") as u32, &crate::link::LinkError::new("gone"));
    stage.settle();
    assert!(stage.read(client).starts_with("-ERR gone\r\n"));
}

#[test]
fn transaction_on_a_link_of_its_own_is_given_up_on_in_time() {
    for lines in [
        &["WATCH a"][..],
        &["WATCH a", "MULTI", "SET a 1", "EXEC"],
        &["MULTI", "SELECT 3", "SET a 1", "EXEC"],
    ] {
        let is_long = lines.len() > 1;
        let mut stage = Stage::new(Settings::default(), move |_, words| {
            (is_long && words[0] == "WATCH").then(|| "+OK\r\n".to_owned())
        });
        let (client, other) = (stage.client(), stage.client());
        stage.send(client, lines);
        stage.send(other, lines);
        stage.read(client);
        // Who leaves meanwhile is not kept for ever.
        stage.hub.session_receive_ended(other, 0);
        stage.settle();
        stage.pass_ms(29_000);
        assert_eq!((stage.read(client).as_str(), stage.hub.sessions.len()), ("", 2), "{lines:?}");
        stage.pass_ms(2_000);
        let error = "-ERR backend conn failure, i/o timeout\r\n";
        assert_eq!(stage.read(client), error, "{lines:?}");
        assert_eq!(stage.hub.sessions.len(), 1, "{lines:?}");
    }
}

#[test]
fn blocking_call_has_no_deadline_but_what_comes_before_it_has() {
    for answers_id in [true, false] {
        let mut stage = Stage::new(Settings::default(), move |_, words| {
            (answers_id && words[0] == "CLIENT").then(|| ":7\r\n".to_owned())
        });
        let client = stage.client();
        stage.send(client, &["BLPOP a 0"]);
        (0..10).for_each(|_| stage.pass_ms(31_000));
        assert_eq!(stage.read(client).is_empty(), answers_id);
    }
}

/// Servers that confirm one subscription at a time.
fn confirming(_: &str, words: &[String]) -> Option<String> {
    let name = words.get(1)?;
    let is_subscribe = words[0].eq_ignore_ascii_case("subscribe");
    let confirmed = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len());
    is_subscribe.then_some(confirmed)
}

fn subscriptions(stage: &mut Stage) -> Vec<String> {
    let calls = std::mem::take(&mut stage.calls);
    let subscribes = calls.into_iter().filter(|(_, words)| words[0] == "subscribe");
    subscribes.map(|(addr, _)| addr).collect()
}

#[test]
fn subscriber_has_a_link_to_each_server_that_serves_something() {
    let mut stage = Stage::new(Settings::default(), confirming);
    let (one, two) = (stage.client(), stage.client());
    assert!(stage.text(one, "SUBSCRIBE x").contains("subscribe"));
    assert!(stage.text(two, "SUBSCRIBE y").contains("subscribe"));
    assert_eq!(subscriptions(&mut stage).len(), 4);
    let is_complete = |stage: &mut Stage| {
        let version = stage.hub.routes.servers_version();
        let session = stage.hub.session(one).expect("it is open");
        let subs = crate::txn::state(session).subs.as_ref().expect("it is subscribed");
        subs.complete_for == Some(version)
    };
    assert!(is_complete(&mut stage), "nothing is left to be looked for");
    // A server that serves nothing any more is left, and joined again when it does.
    stage.hub.adopt_map(&map(2, |_, range| range.group = 1));
    assert!(!is_complete(&mut stage));
    stage.pass_ms(2_000);
    assert!(is_complete(&mut stage));
    assert_eq!(stage.hub.session(one).expect("it is open").links.len(), 1);
    stage.hub.adopt_map(&map(3, |_, _| {}));
    stage.pass_ms(2_000);
    assert_eq!(subscriptions(&mut stage), [SERVERS[1], SERVERS[1]]);
    // One that was lost is tried again.
    let lost = stage.hub.session(one).expect("it is open").links[0];
    stage.hub.lose_link(lost.index, &crate::link::LinkError::new("gone"));
    stage.settle();
    assert_eq!(stage.hub.session(one).expect("it is open").links.len(), 1);
    stage.pass_ms(2_000);
    stage.settle();
    assert_eq!(subscriptions(&mut stage), [SERVERS[0]]);
}

#[test]
fn session_takes_its_own_links_along_and_no_others() {
    let mut stage = Stage::new(Settings::default(), |addr, words| {
        confirming(addr, words).or_else(|| (words[0] == "WATCH").then(|| "+OK\r\n".to_owned()))
    });
    let clients: Vec<Token> = (0..4).map(|_| stage.client()).collect();
    assert_eq!(stage.text(clients[0], "WATCH a"), "+OK\r\n");
    assert!(stage.text(clients[0], "SUBSCRIBE x").contains("subscribe"));
    assert!(stage.text(clients[1], "SUBSCRIBE x").contains("subscribe"));
    stage.send(clients[2], &["BLPOP a 0"]);
    stage.send(clients[3], &["MULTI", "SELECT 3", "SET a 1", "EXEC"]);
    for (client, count) in clients.iter().zip([3, 2, 1, 1]) {
        let owned = stage.hub.links.iter().filter(|(_, link)| {
            link.state != LinkState::Closing
                && link.owner.is_some_and(|(owner, _)| owner == *client)
        });
        let mut owned: Vec<u32> = owned.map(|(index, _)| index as u32).collect();
        let session = stage.hub.session(*client).expect("it is open");
        let mut own: Vec<u32> = session.links.iter().map(|id| id.index).collect();
        own.sort_unstable();
        owned.sort_unstable();
        assert_eq!((own.len(), own), (count, owned));
    }
    for (gone, left) in clients.iter().zip([4, 2, 1, 0]) {
        stage.hub.close(*gone, None);
        let is_open = |link: &Link| link.is_dedicated && link.state != LinkState::Closing;
        assert_eq!(stage.hub.links.iter().filter(|(_, link)| is_open(link)).count(), left);
    }
    // A session that ends gets no link any more.
    let on_link = crate::link::Dedicated { unsolicited: |_, _, _, _| {}, lost: |_, _, _, _| {} };
    let backend = stage.hub.primaries()[0];
    assert!(stage.hub.dedicate(clients[0], backend, Default::default(), on_link).is_err());
}

#[test]
fn every_place_has_its_turn_and_none_is_too_long() {
    let (mut from, capacity) = (0, CARE_COUNT_MAX * 2 + 7);
    let mut seen = vec![0; capacity];
    for _ in 0..3 {
        let slice = next_slice(&mut from, capacity);
        assert!(slice.len() <= CARE_COUNT_MAX);
        slice.for_each(|place| seen[place] += 1);
    }
    assert!(seen.iter().all(|&count| count == 1));
    // A table that has shrunk is begun anew.
    assert_eq!(
        (next_slice(&mut from, 3), next_slice(&mut from, 3), next_slice(&mut from, 0)),
        (0..3, 0..3, 0..0)
    );
}

#[test]
fn client_that_takes_nothing_is_closed_among_many() {
    let mut stage = Stage::new(Settings::default(), ok);
    let clients: Vec<Token> = (0..CARE_COUNT_MAX + 100).map(|_| stage.client()).collect();
    let slow = clients[CARE_COUNT_MAX + 50];
    // It was silent for long: that is no reason to close it as soon as a reply is under way.
    stage.hub.now = Ms(stage.hub.now.0 + 60_000);
    stage.hub.session_received(slow, b"PING\r\n", true);
    stage.hub.run_resumed();
    stage.hub.flush();
    for (passed_ms, is_closing) in [(29_000, false), (1_500, true)] {
        stage.hub.now = Ms(stage.hub.now.0 + passed_ms);
        for _ in 0..4 {
            stage.hub.now = Ms(stage.hub.now.0 + CARE_EVERY_MS);
            stage.hub.tick();
        }
        let session = stage.hub.session(slow).expect("the kernel still has its output");
        assert_eq!(session.closing, is_closing);
    }
}

#[test]
fn servers_are_told_the_secret_of_the_cluster_before_they_are_asked_for_their_cores() {
    use std::cell::RefCell;
    use std::rc::Rc;
    for (secret, answer) in
        [("sesame", "+OK\r\n"), ("sesame", "-WRONGPASS no\r\n"), ("", "+OK\r\n")]
    {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let log = heard.clone();
        let settings = Settings { cluster_secret: secret.to_owned(), ..Settings::default() };
        let mut stage = Stage::new(settings, move |_, words| {
            log.borrow_mut().push(words.join(" "));
            let is_auth = words.get(1).is_some_and(|word| word == "AUTH");
            Some(if is_auth { answer.to_owned() } else { "+OK\r\n".to_owned() })
        });
        let client = stage.client();
        assert_eq!(stage.text(client, "SET a 1"), "+OK\r\n");
        let heard = heard.borrow();
        let at = |call: &str| heard.iter().position(|words| words.starts_with(call));
        assert_eq!(at("CORDIS AUTH sesame"), (!secret.is_empty()).then_some(0));
        assert_eq!(at("CORDIS HELLO"), Some(usize::from(!secret.is_empty())));
        let (_, backend) = stage.hub.backends().iter().nth(1).expect("it is in the map");
        assert_eq!(backend.is_distrustful, answer.starts_with('-'));
    }
}

/// A reply to CORDIS SLOTS of one row per range and state.
fn slots_reply(rows: &[(u16, u16, &str)]) -> String {
    let row = |(from, to, state): &(u16, u16, &str)| {
        format!("*6\r\n:{from}\r\n:{to}\r\n+{state}\r\n:1\r\n:0\r\n$0\r\n\r\n")
    };
    format!("*{}\r\n{}", rows.len(), rows.iter().map(row).collect::<String>())
}

/// What a call over all slots asked of each server, when each says of its slots what `told` has for
/// how often it was asked.
fn census(told: impl Fn(usize, usize) -> String + 'static) -> (String, [usize; 2]) {
    let mut asked = [0; 2];
    let mut stage = Stage::new(Settings::default(), move |addr, words| {
        let server = SERVERS.iter().position(|known| *known == addr).expect("it is one of them");
        match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("CORDIS", Some("SLOTS")) => {
                asked[server] += 1;
                Some(told(server, asked[server]))
            }
            ("KEYS", _) => Some(format!("*1\r\n$1\r\n{server}\r\n")),
            // The first knows that this slot has left it.
            ("EXISTS", Some(key)) if server == 0 && slot_of(key.as_bytes()).index() == 511 => {
                Some(format!("-MOVED 511 {}\r\n", SERVERS[1]))
            }
            ("EXISTS", _) => Some(":0\r\n".to_owned()),
            _ => None,
        }
    });
    let client = stage.client();
    let reply = stage.text(client, "KEYS *");
    let count = |addr: &str| {
        stage.calls.iter().filter(|(to, words)| to == addr && words[0] == "KEYS").count()
    };
    (reply, SERVERS.map(count))
}

#[test]
fn servers_are_asked_again_only_if_other_slots_are_theirs() {
    let both = "*2\r\n$1\r\n0\r\n$1\r\n1\r\n";
    let own = |server: usize| if server == 0 { (0, 511) } else { (512, 1023) };
    // Slots are on their way out all the time, and in their server's hands all the same.
    let (reply, asked) = census(move |server, time| {
        let (from, to) = own(server);
        let state = ["owned", "leaving", "frozen"][time % 3];
        slots_reply(&[(from, from, state), (from + 1, to, "owned")])
    });
    assert_eq!((reply.as_str(), asked), (both, [1, 1]));
    // A slot goes from the first to the second while they answer: the second has got it before the
    // question, the first lost it behind it.
    let (reply, asked) = census(|server, time| match (server, time) {
        (0, 1) => slots_reply(&[(0, 511, "owned"), (512, 1023, "away")]),
        (0, _) => slots_reply(&[(0, 510, "owned"), (511, 1023, "away")]),
        _ => slots_reply(&[(511, 1023, "owned")]),
    });
    assert_eq!((reply.len(), asked), (both.len(), [2, 1]));
    // The first has it all the time, and the second gets it before it is asked for its slots again.
    let (reply, asked) = census(|server, time| match (server, time) {
        (0, 1..=2) => slots_reply(&[(0, 511, "owned")]),
        (0, _) => slots_reply(&[(0, 510, "owned")]),
        (_, 1) => slots_reply(&[(512, 1023, "owned")]),
        _ => slots_reply(&[(511, 1023, "owned")]),
    });
    assert_eq!((reply.len(), asked), (both.len(), [2, 2]), "its keys would be counted twice");
    // The first has lost it before, and the second got it behind: nobody has counted it at first.
    let (reply, asked) = census(|server, time| match (server, time) {
        (0, _) => slots_reply(&[(0, 510, "owned"), (511, 1023, "away")]),
        (_, 1..=2) => slots_reply(&[(512, 1023, "owned")]),
        _ => slots_reply(&[(511, 1023, "owned")]),
    });
    assert_eq!((reply.len(), asked), (both.len(), [1, 2]));
}
