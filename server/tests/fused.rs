//! A server that hosts a proxy: one process that serves its slots to others on one port and the whole
//! cluster on another. What a client of the cluster sees while slots move between that server and
//! another one, what the two ports know of each other's clients, and how it all ends.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::client::Client;
use common::eventually;
use common::process::Process;
use common::shared::reply::{bulk, elements};
use common::shared::rng::{Rng, seed_or};
use common::shared::words;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

const LIMIT: Duration = Duration::from_secs(120);

/// Two servers of one product; the first hosts a proxy.
struct Fused {
    servers: [Process; 2],
    /// Where the proxy's clients connect.
    port: u16,
    admin_port: u16,
    moves: u64,
    epoch: u64,
}

fn addr(server: &Process) -> String {
    format!("127.0.0.1:{}", server.port)
}

/// The port of an address in a server's log.
fn logged_port(server: &Process, name: &str) -> u16 {
    let output = server.output();
    let rest = output.split_once(&format!(" {name}=\"127.0.0.1:")).map(|(_, rest)| rest);
    let port = rest.and_then(|rest| rest.split('"').next()?.parse().ok());
    port.unwrap_or_else(|| panic!("no {name} in:\n{output}"))
}

impl Fused {
    /// Slots below `split` are the first server's.
    fn new(cores: [usize; 2], split: u16, arguments: &[&str]) -> Self {
        let address = "127.0.0.1:0";
        let mut all = vec!["--proxy-addr", address, "--proxy-admin-addr", address];
        all.extend(["--proxy-product-name", "test"]);
        all.extend(arguments);
        let servers = [Process::cordis(cores[0], &all), Process::cordis(cores[1], &[])];
        let (port, admin_port) = eventually(LIMIT, "the proxy within is ready", || {
            let is_ready = servers[0].output().contains("proxy within is ready");
            let port = |name| logged_port(&servers[0], name);
            is_ready.then(|| (port("proxy_addr"), port("proxy_admin_addr")))
        });
        let fused = Self { servers, port, admin_port, moves: 0, epoch: 1 };
        let map = fused.map(split);
        for (index, server) in fused.servers.iter().enumerate() {
            let mut client = server.client();
            let join = format!("CORDIS JOIN test {} {}", index + 1, addr(server));
            assert_eq!(client.text(&join), "+OK\r\n");
            let reply = client.try_call(&["CORDIS", "MAP", "SET", &map]).expect("it replies");
            assert_eq!(reply, b":1\r\n");
        }
        let mut admin = Client::connect(fused.admin_port).expect("the admin port is open");
        let reply = admin.try_call(&["MAP", "SET", &map]).expect("it replies");
        assert_eq!(reply, b":1\r\n");
        fused
    }

    fn map(&self, split: u16) -> String {
        let group = |index: usize| {
            let addr = addr(&self.servers[index]);
            format!("{{\"id\":{},\"servers\":[{{\"addr\":\"{addr}\"}}]}}", index + 1)
        };
        let range = |from: u16, to: u16, group: u16| {
            format!("{{\"from\":{from},\"to\":{to},\"group\":{group},\"epoch\":1}}")
        };
        let ranges = match split {
            1024 => range(0, 1023, 1),
            split => [range(0, split - 1, 1), range(split, 1023, 2)].join(","),
        };
        format!(
            "{{\"product\":\"test\",\"epoch\":1,\"groups\":[{},{}],\"slots\":[{ranges}]}}",
            group(0),
            group(1),
        )
    }

    /// A client of the cluster.
    fn client(&self) -> Client {
        Client::connect(self.port).expect("the proxy within listens")
    }

    /// Moves slots and waits until all of them have changed hands.
    fn move_all(&mut self, from: usize, ranges: &str) {
        self.moves += 1;
        self.epoch += 1;
        let (id, epoch) = (self.moves, self.epoch);
        let (source, target) = (&self.servers[from], &self.servers[1 - from]);
        let expect = format!("CORDIS EXPECT {id} {epoch} {} {ranges}", addr(source));
        assert_eq!(target.client().text(&expect), "+OK\r\n");
        let start = format!("CORDIS MOVE {id} {epoch} {} {ranges}", addr(target));
        let mut client = source.client();
        assert_eq!(client.text(&start), "+OK\r\n");
        eventually(LIMIT, "the move ends", || {
            let reply = client.call("CORDIS MOVES");
            let is_done = |shown: &[u8]| {
                let fields = elements(shown).expect("an array of arrays");
                let field = |name: &str| {
                    let at = fields.iter().position(|field| bulk(field) == Some(name.as_bytes()));
                    fields[at.expect("it is shown") + 1]
                };
                field("id") == format!(":{id}\r\n").as_bytes() && field("done") == field("slots")
            };
            elements(&reply).expect("an array").iter().copied().any(is_done).then_some(())
        });
    }

    /// Calls of the proxy's clients that ran in the server itself.
    fn local_calls(&self) -> u64 {
        let info = self.client().text("INFO proxy");
        let line = info.lines().find_map(|line| line.strip_prefix("local_calls:"));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{info}"))
    }
}

/// One client and its keys, which nobody else writes: every reply is known in advance.
struct Writer {
    name: String,
    /// What its keys are told apart by.
    tags: Vec<String>,
    rng: Rng,
    counters: Vec<i64>,
    lists: Vec<i64>,
    texts: Vec<i64>,
}

const KEYS_EACH: usize = 16;

fn text(n: i64) -> String {
    if n == 0 { "$-1\r\n".to_owned() } else { format!("${}\r\nv{n}\r\n", n.to_string().len() + 1) }
}

impl Writer {
    /// A client whose keys are on slots below `slots_end`.
    fn new(name: String, seed: u64, slots_end: usize) -> Self {
        let none = || vec![0; KEYS_EACH];
        let is_its = |tag: &String| slot_of(tag.as_bytes()).index() < slots_end;
        let tags = (0..).map(|n| format!("{name}:{n}")).filter(is_its).take(KEYS_EACH).collect();
        Self { name, tags, rng: Rng::new(seed), counters: none(), lists: none(), texts: none() }
    }

    fn key(&self, kind: &str, index: usize) -> String {
        format!("{kind}:{{{}}}", self.tags[index])
    }

    /// The next call, or several, and the replies that they must get.
    fn step(&mut self, calls: &mut Vec<String>, wants: &mut String) {
        let index = self.rng.below(KEYS_EACH);
        let other = self.rng.below(KEYS_EACH);
        match self.rng.below(12) {
            0..=2 => {
                self.counters[index] += 1;
                calls.push(format!("INCR {}", self.key("n", index)));
                *wants += &format!(":{}\r\n", self.counters[index]);
            }
            3 => {
                self.lists[index] += 1;
                calls.push(format!("RPUSH {} e{}", self.key("l", index), self.lists[index]));
                *wants += &format!(":{}\r\n", self.lists[index]);
            }
            4 | 5 => {
                let before = self.texts[index];
                self.texts[index] += 1;
                calls.push(format!("SET {} v{} GET", self.key("t", index), before + 1));
                *wants += &text(before);
            }
            6 | 7 => {
                calls.push(format!("GET {}", self.key("t", index)));
                *wants += &text(self.texts[index]);
            }
            8 => {
                calls.push(format!("MGET {} {}", self.key("t", index), self.key("t", other)));
                *wants += &format!("*2\r\n{}{}", text(self.texts[index]), text(self.texts[other]));
            }
            9 => {
                let n = self.texts[index].max(self.texts[other]) + 1;
                let (a, b) = (self.key("t", index), self.key("t", other));
                calls.push(format!("MSET {a} v{n} {b} v{n}"));
                (self.texts[index], self.texts[other]) = (n, n);
                *wants += "+OK\r\n";
            }
            10 => {
                self.counters[index] += 2;
                let (key, n) = (self.key("n", index), self.counters[index]);
                calls.extend(["MULTI".into(), format!("INCR {key}"), format!("INCR {key}")]);
                calls.push("EXEC".into());
                *wants += "+OK\r\n+QUEUED\r\n+QUEUED\r\n";
                *wants += &format!("*2\r\n:{}\r\n:{n}\r\n", n - 1);
            }
            _ => {
                calls.push(format!("ECHO {}", self.name));
                *wants += &format!("${}\r\n{}\r\n", self.name.len(), self.name);
            }
        }
    }

    /// Sends some calls in one go and compares all replies.
    fn batch(&mut self, client: &mut Client) -> usize {
        let (mut calls, mut wants) = (Vec::new(), String::new());
        for _ in 0..=self.rng.below(24) {
            self.step(&mut calls, &mut wants);
        }
        let encode = |call: &String| words::encoded(&call.split(' ').collect::<Vec<_>>());
        let bytes: Vec<u8> = calls.iter().flat_map(encode).collect();
        client.send(&bytes).expect("the proxy reads");
        let mut got = String::new();
        for call in &calls {
            let reply = client.read_reply().unwrap_or_else(|error| panic!("{call}: {error}"));
            got += &String::from_utf8_lossy(&reply);
        }
        assert_eq!(got, wants, "{calls:#?}");
        calls.len()
    }

    fn check(&self, client: &mut Client) {
        for index in 0..KEYS_EACH {
            let key = |kind| self.key(kind, index);
            let want = format!(":{}\r\n", self.lists[index]);
            assert_eq!(client.text(&format!("LLEN {}", key("l"))), want);
            assert_eq!(client.text(&format!("GET {}", key("t"))), text(self.texts[index]));
        }
    }
}

/// Clients of the cluster write and read while `busy` runs; every reply is compared.
fn under_load(
    fused: &mut Fused,
    client_count: usize,
    slots_end: usize,
    busy: impl FnOnce(&mut Fused),
) {
    let seed = seed_or(11);
    let _ = writeln!(std::io::stderr(), "SEED={seed}");
    let stop = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    let clients: Vec<Client> = (0..client_count).map(|_| fused.client()).collect();
    std::thread::scope(|scope| {
        for (index, mut client) in clients.into_iter().enumerate() {
            let (stop, calls) = (&stop, &calls);
            scope.spawn(move || {
                assert_eq!(client.text(&format!("SELECT {}", index % 16)), "+OK\r\n");
                let mut writer = Writer::new(format!("c{index}"), seed + index as u64, slots_end);
                while !stop.load(Ordering::Relaxed) {
                    let count = writer.batch(&mut client);
                    calls.fetch_add(count as u64, Ordering::Relaxed);
                }
                writer.check(&mut client);
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| busy(fused)));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(calls.load(Ordering::Relaxed) > 1_000, "clients hardly ran");
}

fn moves_under_load(cores: [usize; 2], client_count: usize, rounds: usize) {
    let mut fused = Fused::new(cores, 512, &[]);
    under_load(&mut fused, client_count, SLOT_COUNT, |fused| {
        for _ in 0..rounds {
            fused.move_all(0, "0-511");
            fused.move_all(1, "0-1023");
            fused.move_all(0, "512-1023");
        }
        fused.move_all(1, "600-700");
    });
    assert!(fused.local_calls() > 100, "everything took the long way");
    for server in &fused.servers {
        assert_eq!(server.client().text("SLOTSCHECK"), "+OK\r\n");
    }
    assert!(!fused.servers[0].output().contains("ERROR"));
}

#[test]
fn slots_that_leave_and_come_under_load_are_noticed_by_nobody() {
    moves_under_load([1, 1], 4, 2);
}

#[test]
fn slots_that_leave_and_come_under_load_are_noticed_by_nobody_on_two_cores() {
    moves_under_load([2, 2], 5, 2);
}

/// All clients are at a few slots, so that many calls are on their way to the other core when one
/// of these leaves: they have to take the long way after all, in their place.
#[test]
fn hot_slots_that_leave_and_come_are_noticed_by_nobody() {
    let mut fused = Fused::new([2, 2], 1024, &[]);
    under_load(&mut fused, 8, 8, |fused| {
        for round in 0..40 {
            fused.move_all(round % 2, "0-7");
        }
    });
}

/// A key of a slot of the first server, or of the second, if the two share the slots evenly.
fn key_of(server: usize, n: usize) -> String {
    let is_its = |key: &String| slot_of(key.as_bytes()).index() / 512 == server;
    (0..).map(|i| format!("k{n}:{i}")).find(is_its).expect("half of all keys are its")
}

#[test]
fn calls_on_own_slots_run_in_the_server_and_others_elsewhere() {
    let fused = Fused::new([1, 1], 512, &[]);
    let mut client = fused.client();
    let (here, there) = (key_of(0, 0), key_of(1, 0));
    for key in [&here, &there] {
        assert_eq!(client.text(&format!("SET {key} {key}")), "+OK\r\n");
    }
    let before = fused.local_calls();
    for _ in 0..10 {
        assert_eq!(client.text(&format!("STRLEN {here}")), format!(":{}\r\n", here.len()));
        assert_eq!(client.text(&format!("STRLEN {there}")), format!(":{}\r\n", there.len()));
        assert_eq!(client.text("PING"), "+PONG\r\n");
    }
    assert_eq!(fused.local_calls() - before, 10);
    let stats = fused.servers[1].client().text("INFO commandstats");
    assert!(stats.contains("cmdstat_strlen:calls=10,"), "{stats}");
    // A server that is asked for what is not its own still says so.
    let refused = fused.servers[0].client().text(&format!("GET {there}"));
    assert!(refused.starts_with("-MOVED "), "{refused}");
}

#[test]
fn state_of_a_session_goes_with_it_to_and_fro() {
    let fused = Fused::new([2, 1], 512, &["--proxy-session-auth", "s3cret"]);
    let mut client = fused.client();
    let (here, there) = (key_of(0, 1), key_of(1, 1));
    assert!(client.text(&format!("GET {here}")).starts_with("-NOAUTH"));
    assert_eq!(client.text("AUTH s3cret"), "+OK\r\n");
    assert_eq!(client.text(&format!("SET {here} zero")), "+OK\r\n");
    assert_eq!(client.text(&format!("SET {there} zero")), "+OK\r\n");
    assert_eq!(client.text("SELECT 3"), "+OK\r\n");
    for _ in 0..2 {
        assert_eq!(client.text(&format!("GET {here}")), "$-1\r\n");
        assert_eq!(client.text(&format!("GET {there}")), "$-1\r\n");
    }
    assert_eq!(client.text(&format!("HSET {here} f v")), ":1\r\n");
    assert!(client.text("HELLO 3").starts_with('%'));
    for _ in 0..2 {
        assert_eq!(client.text(&format!("HGETALL {here}")), "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    }
    for call in [["CLIENT", "REPLY", "OFF"], ["INCR", "{x}n", ""], ["CLIENT", "REPLY", "ON"]] {
        let call: Vec<&str> = call.into_iter().filter(|word| !word.is_empty()).collect();
        client.send_call(&call).expect("it reads");
    }
    assert_eq!(client.read_reply().expect("it replies again"), b"+OK\r\n");
    assert_eq!(client.text("GET {x}n"), "$1\r\n1\r\n");
}

#[test]
fn clients_of_each_port_are_listed_there_with_what_they_did_last() {
    let fused = Fused::new([2, 1], 1024, &[]);
    let (mut one, mut two) = (fused.client(), fused.client());
    assert_eq!(one.text("CLIENT SETNAME one"), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(one.text("HLEN h"), ":0\r\n");
    }
    let list = two.text("CLIENT LIST");
    let line = list.lines().find(|line| line.contains("name=one")).expect("it is listed");
    assert!(line.contains("cmd=hlen"), "{line}");
    let list = fused.servers[0].client().text("CLIENT LIST");
    assert!(!list.contains("name=one") && list.matches(" addr=").count() == 1, "{list}");
    assert_eq!(two.text("CLIENT KILL TYPE normal SKIPME yes"), ":1\r\n");
    assert!(common::within(LIMIT, || one.is_closed()), "it was killed");
    assert_eq!(two.text("PING"), "+PONG\r\n");
}

#[test]
fn long_values_pass_both_ways_whole() {
    let fused = Fused::new([1, 1], 512, &[]);
    let mut client = fused.client();
    let value = "x".repeat(5 << 20);
    for key in [key_of(0, 2), key_of(1, 2)] {
        for _ in 0..2 {
            // Behind a call that takes the session to the proxy, and alone.
            client.send_call(&["PING"]).expect("it reads");
            let set = client.try_call(&["SET", &key, &value]).expect("it replies");
            assert_eq!(set, b"+PONG\r\n");
            assert_eq!(client.read_reply().expect("it replies"), b"+OK\r\n");
            let got = client.try_call(&["GET", &key]).expect("it replies");
            assert_eq!(got.len(), value.len() + format!("${}\r\n\r\n", value.len()).len());
        }
    }
}

#[test]
fn end_of_the_process_answers_what_was_read() {
    let mut fused = Fused::new([2, 1], 512, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| fused.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text(&format!("SET {} v", key_of(n % 2, n))), "+OK\r\n");
    }
    // One waits for something that will not come.
    clients[3].send_call(&["BLPOP", &key_of(0, 9), "0"]).expect("it reads");
    clients[2].send_call(&["SUBSCRIBE", "c"]).expect("it reads");
    fused.servers[0].terminate();
    assert!(fused.servers[0].wait().success(), "{}", fused.servers[0].output());
    for client in &mut clients {
        assert!(common::within(LIMIT, || client.is_closed()), "it is closed");
    }
}

#[test]
fn proxy_within_ends_on_its_admin_port_and_the_server_goes_on() {
    let fused = Fused::new([2, 1], 512, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| fused.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text(&format!("SET {} v", key_of(n % 2, n))), "+OK\r\n");
    }
    let mut admin = Client::connect(fused.admin_port).expect("the admin port is open");
    assert_eq!(admin.text("SHUTDOWN"), "+OK\r\n");
    for client in &mut clients {
        assert!(common::within(LIMIT, || client.is_closed()), "it is closed");
    }
    let is_refused = || Client::connect(fused.port).map_or(true, |mut client| client.is_closed());
    assert!(common::within(LIMIT, is_refused), "nobody is let in");
    assert_eq!(fused.servers[0].client().text(&format!("GET {}", key_of(0, 0))), "$1\r\nv\r\n");
}

#[test]
fn server_alone_has_no_proxy_and_a_proxy_without_a_map_serves_nothing() {
    let address = "127.0.0.1:0";
    let all = ["--proxy-addr", address, "--proxy-admin-addr", address];
    let server = Process::cordis(1, &all);
    eventually(LIMIT, "it is ready", || {
        server.output().contains("proxy within is ready").then_some(())
    });
    let mut client = Client::connect(logged_port(&server, "proxy_addr")).expect("it listens");
    let reply = client.text("GET k");
    assert!(reply.contains("slot is not ready, may be offline"), "{reply}");
    assert_eq!(server.client().text("GET k"), "$-1\r\n");
}
