//! Slots that move between two servers: clients that follow them lose nothing, see nothing twice and
//! nothing old, whatever happens on the way.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::client::Client;
use common::eventually;
use common::process::Process;
use common::shared::reply::{bulk, elements, integer};
use common::shared::rng::{Rng, seed_or};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;
use rustix::process::{Pid, Signal, kill_process};

/// How long a move may take before a test gives up: builds may share the machine.
const MOVE_LIMIT: Duration = Duration::from_secs(120);

/// Two servers of one product, of which the first serves all slots.
struct Cluster {
    servers: Vec<Process>,
    next_move: u64,
    epoch: u64,
}

fn addr(server: &Process) -> String {
    format!("127.0.0.1:{}", server.port)
}

impl Cluster {
    fn new(core_counts: [usize; 2], arguments: [&[&str]; 2]) -> Self {
        let servers: Vec<Process> = core_counts
            .iter()
            .zip(arguments)
            .map(|(&cores, arguments)| Process::cordis(cores, arguments))
            .collect();
        let cluster = Self { servers, next_move: 1, epoch: 1 };
        for (index, server) in cluster.servers.iter().enumerate() {
            let mut client = server.client();
            let join = format!("CORDIS JOIN test {} {}", index + 1, addr(server));
            assert_eq!(client.text(&join), "+OK\r\n");
            let map = cluster.map(0);
            let reply = client.try_call(&["CORDIS", "MAP", "SET", &map]).expect("it replies");
            assert_eq!(reply, b":1\r\n");
        }
        cluster
    }

    /// A map in which one server serves everything.
    fn map(&self, owner: usize) -> String {
        let group = |index: usize| {
            let addr = addr(&self.servers[index]);
            format!("{{\"id\":{},\"servers\":[{{\"addr\":\"{addr}\"}}]}}", index + 1)
        };
        format!(
            "{{\"product\":\"test\",\"epoch\":{e},\"groups\":[{},{}],\"slots\":[{{\"from\":0,\
             \"to\":1023,\"group\":{},\"epoch\":{e}}}]}}",
            group(0),
            group(1),
            owner + 1,
            e = self.epoch,
        )
    }

    /// Begins to move slots; returns the move's number.
    fn begin_move(&mut self, from: usize, ranges: &str, options: &str) -> u64 {
        let id = self.next_move;
        self.next_move += 1;
        self.epoch += 1;
        let (source, target) = (&self.servers[from], &self.servers[1 - from]);
        let expect = format!("CORDIS EXPECT {id} {} {} {ranges}", self.epoch, addr(source));
        assert_eq!(target.client().text(&expect), "+OK\r\n");
        let start = format!("CORDIS MOVE {id} {} {} {ranges} {options}", self.epoch, addr(target));
        assert_eq!(source.client().text(&start), "+OK\r\n");
        id
    }

    /// Moves slots and waits until all of them have changed hands, each without being refused.
    fn move_all(&mut self, from: usize, ranges: &str) -> BTreeMap<String, String> {
        let id = self.begin_move(from, ranges, "");
        let shown =
            self.wait_for(from, id, "the move ends", |shown| shown["done"] == shown["slots"]);
        assert_eq!((&*shown["error"], &*shown["refused"]), ("", "0"));
        shown
    }

    /// Waits until what a server shows of a move is as it should be.
    fn wait_for(
        &self,
        server: usize,
        id: u64,
        what: &str,
        is_so: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> BTreeMap<String, String> {
        let mut client = self.servers[server].client();
        let mut last = String::new();
        let deadline = Instant::now() + MOVE_LIMIT;
        loop {
            if let Some(shown) = shown_move(&mut client, id) {
                if is_so(&shown) {
                    return shown;
                }
                last = format!("{shown:?}");
            }
            assert!(Instant::now() < deadline, "not in time: {what}; {last}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn cancel(&self, id: u64) {
        for server in &self.servers {
            assert_eq!(server.client().text(&format!("CORDIS CANCEL {id}")), "+OK\r\n");
        }
    }

    /// What each server is to each slot.
    fn states(&self, server: usize) -> Vec<String> {
        states(&mut self.servers[server].client())
    }

    /// Waits until every slot is served by exactly one server and nothing is under way.
    fn settled(&self) -> [usize; 2] {
        eventually(MOVE_LIMIT, "each slot has one owner and nothing is under way", || {
            let states = [self.states(0), self.states(1)];
            let is_settled = (0..SLOT_COUNT).all(|slot| {
                matches!(
                    (&*states[0][slot], &*states[1][slot]),
                    ("owned", "away") | ("away", "owned")
                )
            });
            is_settled.then(|| states.map(|s| s.iter().filter(|state| *state == "owned").count()))
        })
    }
}

fn states(client: &mut Client) -> Vec<String> {
    let reply = client.call("CORDIS SLOTS");
    let mut states = Vec::new();
    for run in elements(&reply).expect("an array") {
        let parts = elements(run).expect("an array of arrays");
        let last = integer(parts[1]).expect("a number") as usize;
        let state = String::from_utf8_lossy(bulk(parts[2]).expect("a name")).into_owned();
        states.resize(last + 1, state);
    }
    assert_eq!(states.len(), SLOT_COUNT);
    states
}

fn shown_move(client: &mut Client, id: u64) -> Option<BTreeMap<String, String>> {
    let reply = client.call("CORDIS MOVES");
    for shown in elements(&reply).expect("an array") {
        let fields = elements(shown).expect("an array of arrays");
        let text = |field: &[u8]| match bulk(field) {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => integer(field).expect("a string or a number").to_string(),
        };
        let shown: BTreeMap<String, String> =
            fields.chunks_exact(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
        if shown["id"] == id.to_string() {
            return Some(shown);
        }
    }
    None
}

/// A client that asks whoever serves a slot.
struct Roamer {
    clients: Vec<(u16, Client)>,
    /// Where it asks first.
    at: usize,
    redirected: u64,
}

impl Roamer {
    fn new(cluster: &Cluster) -> Self {
        let clients = cluster.servers.iter().map(|s| (s.port, s.client())).collect();
        Self { clients, at: 0, redirected: 0 }
    }

    fn select(&mut self, db: usize) {
        for (_, client) in &mut self.clients {
            assert_eq!(client.text(&format!("SELECT {db}")), "+OK\r\n");
        }
    }

    /// Runs calls, all on one slot, in one go on one server; returns the last reply.
    fn run(&mut self, calls: &[Vec<String>]) -> String {
        let deadline = Instant::now() + MOVE_LIMIT;
        loop {
            assert!(Instant::now() < deadline, "{calls:?} finds no server");
            let mut last = String::new();
            for call in calls {
                let reply = self.clients[self.at].1.try_call(call);
                let reply = reply.unwrap_or_else(|error| panic!("{call:?}: {error}"));
                last = String::from_utf8_lossy(&reply).into_owned();
            }
            if let Some(moved) = last.strip_prefix("-MOVED ") {
                let port = moved.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
                let port: u16 = port.expect("an address");
                let at = self.clients.iter().position(|(p, _)| *p == port);
                self.at = at.expect("it is one of the two");
                self.redirected += 1;
                continue;
            }
            if last.starts_with("-TRYAGAIN") || last.starts_with("-CLUSTERDOWN") {
                std::thread::park_timeout(Duration::from_micros(200));
                continue;
            }
            return last;
        }
    }

    fn call(&mut self, line: &str) -> String {
        self.run(&[line.split(' ').map(str::to_owned).collect()])
    }
}

/// One client's keys, which nobody else writes: what each reply must be is known.
struct Writer {
    name: String,
    rng: Rng,
    counters: Vec<i64>,
    lists: Vec<i64>,
    sets: Vec<i64>,
    fields: Vec<i64>,
    texts: Vec<i64>,
    /// How often each of the lists that go round has been turned.
    turns: Vec<usize>,
}

const KEYS_EACH: usize = 24;

impl Writer {
    fn new(name: String, seed: u64) -> Self {
        let none = || vec![0; KEYS_EACH];
        let rng = Rng::new(seed);
        let (counters, lists, sets, fields, texts) = (none(), none(), none(), none(), none());
        let turns = vec![0; KEYS_EACH];
        Self { name, rng, counters, lists, sets, fields, texts, turns }
    }

    fn step(&mut self, roamer: &mut Roamer) {
        let index = self.rng.below(KEYS_EACH);
        let key = |kind: &str| format!("{kind}:{{{}:{index}}}", self.name);
        let number = |n: i64| format!(":{n}\r\n");
        let (call, want) = match self.rng.below(11) {
            0 | 1 => {
                self.counters[index] += 1;
                (format!("INCR {}", key("n")), number(self.counters[index]))
            }
            2 => {
                self.lists[index] += 1;
                let n = self.lists[index];
                (format!("RPUSH {} element-{n}", key("l")), number(n))
            }
            3 => {
                self.sets[index] += 1;
                (format!("SADD {} m{}", key("s"), self.sets[index]), number(1))
            }
            4 => {
                self.fields[index] += 1;
                (format!("HINCRBY {} f 1", key("h")), number(self.fields[index]))
            }
            5 => {
                let n = self.texts[index];
                let want = if n == 0 { "$-1\r\n".to_owned() } else { text(&format!("v{n}")) };
                self.texts[index] += 1;
                (format!("SET {} v{} GET PX 600000", key("t"), n + 1), want)
            }
            6 => {
                let n = self.texts[index];
                let want = if n == 0 { "$-1\r\n".to_owned() } else { text(&format!("v{n}")) };
                (format!("GET {}", key("t")), want)
            }
            7 => {
                let n = std::mem::take(&mut self.texts[index]);
                let verb = if self.rng.below(2) == 0 { "DEL" } else { "UNLINK" };
                (format!("{verb} {}", key("t")), number(i64::from(n > 0)))
            }
            9 => {
                let turn = self.turns[index];
                self.turns[index] += 1;
                match turn {
                    0 => (format!("RPUSH {} 1 2 3", key("r")), number(3)),
                    _ => {
                        let call = format!("LMOVE {} {} LEFT RIGHT", key("r"), key("r"));
                        (call, text(&((turn - 1) % 3 + 1).to_string()))
                    }
                }
            }
            8 => {
                let n = self.lists[index];
                self.lists[index] = (n - 1).max(0);
                let want =
                    if n == 0 { "$-1\r\n".to_owned() } else { text(&format!("element-{n}")) };
                (format!("RPOP {}", key("l")), want)
            }
            _ => {
                self.counters[index] += 2;
                let n = self.counters[index];
                let incr = vec!["INCR".to_owned(), key("n")];
                let calls = [vec!["MULTI".to_owned()], incr.clone(), incr, vec!["EXEC".to_owned()]];
                let got = roamer.run(&calls);
                assert_eq!(got, format!("*2\r\n:{}\r\n:{n}\r\n", n - 1), "{}", key("n"));
                return;
            }
        };
        let got = roamer.call(&call);
        assert_eq!(got, want, "{call}");
    }

    fn check(&self, roamer: &mut Roamer) {
        for index in 0..KEYS_EACH {
            let key = |kind: &str| format!("{kind}:{{{}:{index}}}", self.name);
            assert_eq!(
                roamer.call(&format!("LLEN {}", key("l"))),
                format!(":{}\r\n", self.lists[index])
            );
            assert_eq!(
                roamer.call(&format!("SCARD {}", key("s"))),
                format!(":{}\r\n", self.sets[index])
            );
            let last = self.lists[index];
            if last > 0 {
                let want = text(&format!("element-{last}"));
                assert_eq!(roamer.call(&format!("LINDEX {} -1", key("l"))), want);
            }
            if self.counters[index] > 0 {
                let want = text(&self.counters[index].to_string());
                assert_eq!(roamer.call(&format!("GET {}", key("n"))), want);
            }
        }
    }
}

fn text(bytes: &str) -> String {
    format!("${}\r\n{bytes}\r\n", bytes.len())
}

/// Clients write and read while `busy` runs; then all that they wrote is looked for.
fn under_load(cluster: &mut Cluster, client_count: usize, busy: impl FnOnce(&mut Cluster)) -> u64 {
    let seed = seed_or(7);
    let stop = AtomicBool::new(false);
    let (calls, redirected) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut roamers: Vec<Roamer> = (0..client_count).map(|_| Roamer::new(cluster)).collect();
    for (index, roamer) in roamers.iter_mut().enumerate() {
        roamer.select(index % 16);
    }
    std::thread::scope(|scope| {
        for (index, mut roamer) in roamers.into_iter().enumerate() {
            let (stop, calls, redirected) = (&stop, &calls, &redirected);
            scope.spawn(move || {
                let mut writer = Writer::new(format!("c{index}"), seed + index as u64);
                while !stop.load(Ordering::Relaxed) {
                    writer.step(&mut roamer);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                writer.check(&mut roamer);
                redirected.fetch_add(roamer.redirected, Ordering::Relaxed);
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| busy(cluster)));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(calls.load(Ordering::Relaxed) > 200, "clients hardly ran");
    redirected.load(Ordering::Relaxed)
}

#[test]
fn slots_that_move_to_and_fro_under_load_lose_and_double_nothing() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    let redirected = under_load(&mut cluster, 5, |cluster| {
        for round in 0..6 {
            cluster.move_all(round % 2, "0-1023");
        }
        cluster.move_all(0, "0-299,511,700-800");
        cluster.move_all(1, "100-200,511");
    });
    assert!(redirected > 0, "nobody noticed");
    let owned = cluster.settled();
    assert_eq!(owned[0] + owned[1], SLOT_COUNT);
    for server in &cluster.servers {
        assert_eq!(server.client().text("SLOTSCHECK"), "+OK\r\n");
    }
}

#[test]
fn servers_of_unlike_core_counts_move_slots_to_each_other() {
    let mut cluster = Cluster::new([1, 2], [&[], &[]]);
    under_load(&mut cluster, 3, |cluster| {
        for round in 0..2 {
            cluster.move_all(round, "0-1023");
        }
    });
}

#[test]
fn values_of_all_types_sizes_and_databases_arrive_as_they_were() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    let mut source = cluster.servers[0].client();
    let mut calls: Vec<(usize, Vec<String>)> = Vec::new();
    for db in 0..16 {
        for n in 0..40 {
            let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
            calls.push((db, words(format!("SET s{db}:{n} value-{n}"))));
            calls.push((db, words(format!("SET p{db}:{n} {n} PXAT {}", 4_000_000_000_000u64 + n))));
            calls.push((db, words(format!("RPUSH l{db}:{n} a b {n}"))));
            calls.push((db, words(format!("ZADD z{db}:{n} {n}.25 m -inf x"))));
        }
    }
    let big = |kind: &str, n: usize| match kind {
        "HSET" | "ZADD" => vec![n.to_string(), format!("element-{n}")],
        _ => vec![format!("element-{n}")],
    };
    for kind in ["RPUSH", "SADD", "HSET", "ZADD"] {
        for chunk in 0..40 {
            let mut call = vec![kind.to_owned(), format!("big-{kind}")];
            call.extend((0..500).flat_map(|n| big(kind, chunk * 500 + n)));
            calls.push((5, call));
        }
        calls.push((5, vec!["PEXPIREAT".into(), format!("big-{kind}"), "4000000000777".into()]));
    }
    calls.push((5, vec!["SETRANGE".into(), "big-string".into(), "3000000".into(), "end".into()]));
    let mut selected = 0;
    for (db, call) in &calls {
        if *db != selected {
            source.call(&format!("SELECT {db}"));
            selected = *db;
        }
        let reply = source.try_call(call).expect("it replies");
        assert!(!reply.starts_with(b"-"), "{call:?}: {}", String::from_utf8_lossy(&reply));
    }
    let keys: Vec<(usize, String)> =
        calls.iter().map(|(db, call)| (*db, call[1].clone())).collect();
    let describe = |client: &mut Client| -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for (db, key) in &keys {
            client.call(&format!("SELECT {db}"));
            all.push(client.call(&format!("DEBUG DIGEST-VALUE {key}")));
            all.push(client.call(&format!("PEXPIRETIME {key}")));
        }
        all
    };
    let want = describe(&mut source);
    let shown = cluster.move_all(0, "0-1023");
    assert!(shown["keys"].parse::<usize>().expect("a number") >= 16 * 160 + 5, "{shown:?}");
    let mut target = cluster.servers[1].client();
    assert!(describe(&mut target) == want, "something has changed on the way");
    for db in 0..16 {
        source.call(&format!("SELECT {db}"));
        assert_eq!(source.text("DBSIZE"), ":0\r\n", "database {db}");
        assert_eq!(source.text("KEYS *"), "*0\r\n");
    }
}

#[test]
fn large_values_stop_nobody_and_take_what_happens_to_them_along() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    let mut source = cluster.servers[0].client();
    let count = 300_000;
    for chunk in 0..count / 1_000 {
        let mut call = vec!["HSET".to_owned(), "{t}hash".to_owned()];
        call.extend((0..1_000).flat_map(|n| [format!("f{}", chunk * 1_000 + n), "1".to_owned()]));
        source.try_call(&call).expect("it replies");
    }
    let slot = slot_of(b"t").index();
    let mut roamer = Roamer::new(&cluster);
    let id = cluster.begin_move(0, &slot.to_string(), "RATE 20000000");
    let (mut changes, mut slowest) = (0, Duration::ZERO);
    let mut watcher = cluster.servers[0].client();
    loop {
        let begun = Instant::now();
        changes += 1;
        assert_eq!(roamer.call(&format!("HINCRBY {{t}}hash f{changes} 1")), ":2\r\n");
        assert_eq!(roamer.call("INCR {t}n"), format!(":{changes}\r\n"));
        slowest = slowest.max(begun.elapsed());
        let shown = shown_move(&mut watcher, id).expect("it is shown");
        if shown["done"] == "1" {
            break;
        }
    }
    assert!(changes > 3, "the move was over before anything happened");
    // Far beyond what it takes: the machine may be busy with other things. Sent in one piece, or cloned
    // by each change, the value would take longer.
    assert!(slowest < Duration::from_secs(2), "a call took {slowest:?}");
    assert_eq!(roamer.call("HLEN {t}hash"), format!(":{count}\r\n"));
    for n in 1..=changes {
        assert_eq!(roamer.call(&format!("HGET {{t}}hash f{n}")), text("2"));
    }
    assert_eq!(roamer.call(&format!("HGET {{t}}hash f{}", changes + 1)), text("1"));
}

#[test]
fn keys_that_expire_on_the_way_are_gone_and_the_others_keep_their_time() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    let mut source = cluster.servers[0].client();
    for n in 0..20_000 {
        let ms = if n % 2 == 0 { 1 + n % 1_500 } else { 3_600_000 };
        let call =
            ["SET".to_owned(), format!("k{n}"), "v".to_owned(), "PX".to_owned(), ms.to_string()];
        source.send_call(&call).expect("it reads");
    }
    for _ in 0..20_000 {
        source.read_reply().expect("it replies");
    }
    cluster.move_all(0, "0-1023");
    cluster.move_all(1, "0-1023");
    let mut client = cluster.servers[0].client();
    eventually(Duration::from_secs(20), "what has expired is gone", || {
        (client.text("DBSIZE") == ":10000\r\n").then_some(())
    });
    for n in (1..20_000).step_by(500) {
        let left = client.text(&format!("PTTL k{n}"));
        let left: i64 = left.trim_start_matches(':').trim().parse().expect("a number");
        assert!((3_000_000..=3_600_000).contains(&left), "k{n} has {left} ms left");
    }
}

#[test]
fn move_that_is_cancelled_half_way_leaves_each_slot_whole_on_one_side() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    fill(&cluster, 0, 20_000, 200);
    under_load(&mut cluster, 3, |cluster| {
        let id = cluster.begin_move(0, "0-1023", "RATE 4000000 PARALLEL 4");
        cluster.wait_for(0, id, "some have changed hands", |shown| {
            shown["done"].parse::<usize>().is_ok_and(|done| done >= 50)
        });
        cluster.cancel(id);
        let owned = cluster.settled();
        assert!(owned[0] > 0 && owned[1] >= 50, "{owned:?}");
        assert!(shown_move(&mut cluster.servers[1].client(), id).is_none());
    });
    assert_eq!(filled(&cluster), 20_000);
}

#[test]
fn move_to_a_server_without_memory_fails_and_leaves_the_slots() {
    let limits: [&[&str]; 2] = [&[], &["--maxmemory", "40mb", "--maxmemory-policy", "noeviction"]];
    let mut cluster = Cluster::new([1, 1], limits);
    fill(&cluster, 0, 30_000, 3_000);
    let id = cluster.begin_move(0, "0-1023", "");
    let shown = cluster.wait_for(0, id, "the rest fails", |shown| {
        let number = |name: &str| shown[name].parse::<usize>().expect("a number");
        number("failed") > 0 && number("failed") + number("done") == SLOT_COUNT
    });
    assert!(shown["error"].contains("OOM"), "{shown:?}");
    let owned = cluster.settled();
    assert!(owned[0] > 100, "{owned:?}");
    assert_eq!(filled(&cluster), 30_000);
    cluster.cancel(id);
}

#[test]
fn target_that_may_evict_takes_all_slots_and_makes_room_among_keys_that_are_served() {
    let limits: [&[&str]; 2] = [&[], &["--maxmemory", "40mb", "--maxmemory-policy", "allkeys-lru"]];
    let mut cluster = Cluster::new([2, 2], limits);
    fill(&cluster, 0, 30_000, 3_000);
    cluster.move_all(0, "0-1023");
    assert_eq!(cluster.settled(), [0, SLOT_COUNT]);
    let mut target = cluster.servers[1].client();
    let kept = target.text("DBSIZE");
    let kept: usize = kept.trim_start_matches(':').trim().parse().expect("a number");
    assert!((3_000..20_000).contains(&kept), "{kept} keys of 3 kB in 40 MB");
}

/// What cluster.json says of slots 5-9 after a restart in the middle of their hand-over by move 9.
fn put_in_doubt(folder: &std::path::Path, target: &str, is_cancelled: bool) {
    let file = folder.join("cluster.json");
    let text = std::fs::read_to_string(&file).expect("the server has saved it");
    let (before, rest) = text.split_once(r#""slots":[{"slots""#).expect("all slots are in it");
    let (_, after) = rest.split_once(r#","outbound""#).expect("moves follow");
    assert!(after.contains(r#""is_cancelled":false"#), "{text}");
    let after = after.replacen("false", &is_cancelled.to_string(), 1);
    let text = format!(
        r#"{before}"slots":[{{"slots":"0-4,10-1023","state":"owned","epoch":1,"move_id":0}},
        {{"slots":"5-9","state":"handed","epoch":1,"peer":"{target}","move_id":9,"noted":7}}],
        "outbound"{after}"#
    );
    std::fs::write(&file, text).expect("the folder is ours");
}

/// Two servers, and a move 9 of slots 5-9 that is known to the first but has not begun.
fn with_move_that_waits() -> Cluster {
    let cluster = Cluster::new([2, 2], [&[], &[]]);
    let start = format!("CORDIS MOVE 9 9 {} 5-9", addr(&cluster.servers[1]));
    assert_eq!(cluster.servers[0].client().text(&start), "+OK\r\n");
    cluster.wait_for(0, 9, "it is refused", |shown| !shown["error"].is_empty());
    cluster
}

#[test]
fn slots_in_doubt_are_asked_about_after_a_restart_also_of_a_move_that_was_called_off() {
    for is_cancelled in [false, true] {
        let mut cluster = with_move_that_waits();
        let target = addr(&cluster.servers[1]);
        cluster.servers[0].restart_with(|folder| put_in_doubt(folder, &target, is_cancelled));
        if is_cancelled {
            let states = eventually(MOVE_LIMIT, "the target has nothing of them", || {
                let states = cluster.states(0);
                states.iter().all(|state| state == "owned").then_some(states)
            });
            assert_eq!(states.len(), SLOT_COUNT);
            continue;
        }
        let expect = format!("CORDIS EXPECT 9 9 {} 5-9", addr(&cluster.servers[0]));
        assert_eq!(cluster.servers[1].client().text(&expect), "+OK\r\n");
        cluster.wait_for(0, 9, "the move ends", |shown| shown["done"] == "5");
        assert_eq!(cluster.settled(), [SLOT_COUNT - 5, 5]);
    }
}

#[test]
fn slots_in_doubt_that_the_target_has_passed_on_are_not_taken_back() {
    let mut cluster = with_move_that_waits();
    let target = addr(&cluster.servers[1]);
    // They were there under epoch 9, and are with a third server since.
    let map = cluster
        .map(0)
        .replace(r#""epoch":1,"groups""#, r#""epoch":20,"groups""#)
        .replace(r#"],"slots""#, r#",{"id":3,"servers":[{"addr":"127.0.0.1:9"}]}],"slots""#)
        .replace(
            r#"{"from":0,"to":1023,"group":1,"epoch":1}"#,
            r#"{"from":0,"to":4,"group":1,"epoch":1},{"from":5,"to":9,"group":3,"epoch":20},
            {"from":10,"to":1023,"group":1,"epoch":1}"#,
        );
    let reply = cluster.servers[1].client().try_call(&["CORDIS", "MAP", "SET", &map]);
    assert_eq!(String::from_utf8_lossy(&reply.expect("it replies")), ":20\r\n");
    cluster.servers[0].restart_with(|folder| put_in_doubt(folder, &target, false));
    eventually(MOVE_LIMIT, "they are known to be elsewhere", || {
        let states = cluster.states(0);
        assert!(!states[5..10].contains(&"owned".to_owned()), "served here again");
        states[5..10].iter().all(|state| state == "away").then_some(())
    });
}

#[test]
fn maps_are_saved_without_taking_address_space() {
    let mut cluster = Cluster::new([2, 1], [&[], &[]]);
    let mut client = cluster.servers[0].client();
    let mut set = |cluster: &mut Cluster, count: u64| {
        for _ in 0..count {
            cluster.epoch += 1;
            let map = cluster.map(0);
            let reply = client.try_call(&["CORDIS", "MAP", "SET", &map]).expect("it replies");
            assert_eq!(reply, format!(":{}\r\n", cluster.epoch).as_bytes());
        }
    };
    set(&mut cluster, 20);
    let before = cluster.servers[0].virtual_bytes();
    set(&mut cluster, 100);
    let grown = cluster.servers[0].virtual_bytes().saturating_sub(before);
    assert!(grown < 50 << 20, "{grown} bytes for 100 maps");
}

#[test]
fn keys_made_for_tests_are_made_in_slots_that_are_served() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    cluster.move_all(0, "0-511");
    assert_eq!(cluster.servers[0].client().text("DEBUG POPULATE 5000"), "+OK\r\n");
    let size = |client: &mut Client| client.text("DBSIZE");
    let count = size(&mut cluster.servers[0].client());
    let count: usize = count.trim_start_matches(':').trim().parse().expect("a number");
    assert!((1_000..4_000).contains(&count), "{count} keys in half of the slots");
    cluster.move_all(0, "512-1023");
    assert_eq!(size(&mut cluster.servers[1].client()), format!(":{count}\r\n"));
}

#[test]
fn move_to_nobody_is_tried_again_and_the_slots_are_served() {
    let cluster = Cluster::new([2, 1], [&[], &[]]);
    fill(&cluster, 0, 1_000, 10);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let nobody = listener.local_addr().expect("it is bound");
    drop(listener);
    let mut client = cluster.servers[0].client();
    assert_eq!(client.text(&format!("CORDIS MOVE 9 9 {nobody} 0-1023")), "+OK\r\n");
    let shown = cluster.wait_for(0, 9, "it says why", |shown| !shown["error"].is_empty());
    assert!(shown["error"].contains("cannot connect"), "{shown:?}");
    assert_eq!(client.text("SET k v"), "+OK\r\n");
    cluster.cancel(9);
    let states = eventually(MOVE_LIMIT, "all slots are owned", || {
        let states = cluster.states(0);
        states.iter().all(|state| state == "owned").then_some(states)
    });
    assert_eq!((states.len(), filled(&cluster)), (SLOT_COUNT, 1_001));
}

#[test]
fn source_serves_on_when_the_target_is_stopped_or_killed() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    fill(&cluster, 0, 30_000, 200);
    let id = cluster.begin_move(0, "0-1023", "RATE 6000000");
    for _ in 0..3 {
        cluster.wait_for(0, id, "it goes on", |shown| shown["streaming"] != "0");
        let pid = Pid::from_raw(cluster.servers[1].pid() as i32).expect("a process");
        kill_process(pid, Signal::STOP).expect("it is ours");
        let mut client = cluster.servers[0].client();
        let begun = Instant::now();
        for n in 0..600 {
            let reply = client.text(&format!("SET stopped{n} v"));
            assert!(reply == "+OK\r\n" || reply.starts_with("-MOVED"), "{reply}");
        }
        // A frozen slot waits for half a second at most.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        kill_process(pid, Signal::CONT).expect("it is ours");
    }
    let before = cluster.states(0).iter().filter(|state| *state == "owned").count();
    let pid = Pid::from_raw(cluster.servers[1].pid() as i32).expect("a process");
    kill_process(pid, Signal::KILL).expect("it is ours");
    let mut client = cluster.servers[0].client();
    assert_eq!(client.text(&format!("CORDIS CANCEL {id}")), "+OK\r\n");
    let after = eventually(MOVE_LIMIT, "what is here is served", || {
        let states = cluster.states(0);
        let is_calm = states.iter().all(|s| matches!(&**s, "owned" | "away" | "handed"));
        is_calm.then(|| states.iter().filter(|state| *state == "owned").count())
    });
    assert!(after >= before, "{after} of {before} slots are left");
}

#[test]
fn either_server_may_be_killed_and_come_back_and_each_slot_has_one_owner() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    for round in 0..4 {
        fill(&cluster, usize::from(round > 0), 4_000, 100);
        let from = cluster.states(0).iter().filter(|state| *state == "owned").count();
        let from = usize::from(from < SLOT_COUNT / 2);
        let mine: Vec<usize> = (0..SLOT_COUNT)
            .filter(|&slot| cluster.states(from)[slot] == "owned")
            .take(400)
            .collect();
        let ranges = mine.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let id = cluster.begin_move(from, &ranges, "RATE 2000000 PARALLEL 32");
        cluster.wait_for(from, id, "it goes on", |shown| {
            shown["done"].parse::<usize>().is_ok_and(|done| done >= 20)
        });
        let victim = (from + round) % 2;
        cluster.servers[victim].restart();
        // The move goes on by itself where it is still known; then it is called off.
        cluster.wait_for(from, id, "it goes on after the restart", |shown| {
            shown["done"].parse::<usize>().is_ok_and(|done| done >= 40)
        });
        cluster.cancel(id);
        let owned = settled_or_lost(&cluster);
        assert!(owned <= SLOT_COUNT, "a slot has two owners");
        cluster.epoch += 1;
    }
}

/// Waits until nothing is under way; returns how many slots have an owner. None has two.
fn settled_or_lost(cluster: &Cluster) -> usize {
    eventually(MOVE_LIMIT, "nothing is under way", || {
        let states = [cluster.states(0), cluster.states(1)];
        let is_calm = states.iter().flatten().all(|s| matches!(&**s, "owned" | "away"));
        let both = |slot: usize| states[0][slot] == "owned" && states[1][slot] == "owned";
        assert!(!(0..SLOT_COUNT).any(both), "a slot has two owners");
        is_calm.then(|| states.iter().flatten().filter(|state| *state == "owned").count())
    })
}

#[test]
fn flushall_in_the_middle_of_a_move_is_not_undone_by_it() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    for _ in 0..3 {
        fill(&cluster, 0, 5_000, 200);
        let id = cluster.begin_move(0, "0-1023", "RATE 3000000");
        cluster.wait_for(0, id, "it goes on", |shown| shown["streaming"] != "0");
        for server in &cluster.servers {
            assert_eq!(server.client().text("FLUSHALL"), "+OK\r\n");
        }
        cluster.wait_for(0, id, "the move ends", |shown| shown["done"] == shown["slots"]);
        assert_eq!(filled(&cluster), 0);
        cluster.move_all(1, "0-1023");
    }
}

#[test]
fn blocked_and_watching_clients_of_a_slot_that_leaves_are_told() {
    let mut cluster = Cluster::new([2, 2], [&[], &[]]);
    let mut blocked = cluster.servers[0].client();
    blocked.send_call(&["BLPOP", "{t}queue", "0"]).expect("it reads");
    let mut watching = cluster.servers[0].client();
    watching.call("SET {t}n 1");
    for line in ["WATCH {t}n", "MULTI", "INCR {t}n"] {
        watching.call(line);
    }
    let slot = slot_of(b"t").index();
    cluster.move_all(0, &slot.to_string());
    let moved = format!("-MOVED {slot} {}\r\n", addr(&cluster.servers[1]));
    assert_eq!(String::from_utf8_lossy(&blocked.read_reply().expect("it replies")), moved);
    assert_eq!(watching.text("EXEC"), moved);
    assert_eq!(watching.text("GET {t}n"), moved);
    assert_eq!(watching.text("MGET a {t}n"), moved);
    assert_eq!(watching.text("SET other 1"), "+OK\r\n");
    assert_eq!(cluster.servers[1].client().text("GET {t}n"), text("1"));
}

#[test]
fn connection_goes_to_the_core_that_it_asks_for_with_all_that_follows() {
    let server = Process::cordis(2, &[]);
    let mut client = server.client();
    client.call("CLIENT SETNAME walker");
    client.call("SELECT 3");
    let id = client.call("CLIENT ID");
    for round in 0..40 {
        for call in [
            vec!["SET".to_owned(), format!("k{round}"), round.to_string()],
            vec!["CORDIS".to_owned(), "HELLO".into(), "CORE".into(), (round % 2).to_string()],
            vec!["GET".to_owned(), format!("k{round}")],
            vec!["CLIENT".to_owned(), "ID".into()],
        ] {
            client.send_call(&call).expect("it reads");
        }
        assert_eq!(client.read_reply().expect("it replies"), b"+OK\r\n");
        let hello = client.read_reply().expect("it replies");
        let fields = elements(&hello).expect("names and values");
        assert_eq!((bulk(fields[4]), integer(fields[5])), (Some(&b"cores"[..]), Some(2)));
        let value = client.read_reply().expect("it replies");
        assert_eq!(String::from_utf8_lossy(&value), text(&round.to_string()));
        assert_eq!(client.read_reply().expect("it replies"), id);
    }
    assert!(client.text("CLIENT LIST").contains("name=walker"));
    assert_eq!(client.text("DBSIZE"), ":40\r\n");
}

#[test]
fn connection_that_others_know_by_its_core_stays_there() {
    let server = Process::cordis(2, &[]);
    for ties in ["SUBSCRIBE x", "PSUBSCRIBE x*", "SSUBSCRIBE x", "MONITOR", "WATCH k"] {
        let mut client = server.client();
        client.call("HELLO 3");
        client.call(ties);
        let mut refused = 0;
        for core in 0..2 {
            let reply = client.text(&format!("CORDIS HELLO CORE {core}"));
            refused += usize::from(reply.starts_with("-ERR a connection that subscribes"));
        }
        assert!(refused <= 1, "it asks for its own core once");
        assert!(refused == 1 || ties == "MONITOR", "{ties}");
    }
    let mut client = server.client();
    assert_eq!(client.text("PUBLISH x 1"), ":0\r\n");
    assert_eq!(client.text("PING"), "+PONG\r\n");
}

#[test]
fn slot_without_traffic_is_handed_over_without_waiting_for_a_timer() {
    let mut cluster = Cluster::new([1, 1], [&[], &[]]);
    fill(&cluster, 0, 2_000, 100);
    // The shortest of many: a machine that is busy with others adds to each.
    let pauses: Vec<u64> = (0..12)
        .map(|slot| {
            let shown = cluster.move_all(0, &slot.to_string());
            shown["pause_max_us"].parse().expect("it is a number")
        })
        .collect();
    let least = pauses.iter().min().expect("there are some");
    assert!(*least > 0 && *least < 4_000, "pauses in microseconds: {pauses:?}");
}

#[test]
fn server_that_is_killed_under_load_starts_again_at_once() {
    let mut server = Process::cordis(2, &[]);
    for round in 0..10 {
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = server.client();
                    while !ends.load(Ordering::Relaxed) {
                        if client.try_call(&["INCR", "loaded"]).is_err() {
                            return;
                        }
                    }
                });
            }
            let mut client = server.client();
            eventually(MOVE_LIMIT, "it is loaded", || {
                let reply = client.text("GET loaded");
                (reply.len() > "$3\r\n100\r\n".len() - 1).then_some(())
            });
            let pid = Pid::from_raw(server.pid() as i32).expect("it has one");
            kill_process(pid, Signal::KILL).expect("a child can be signalled");
            ends.store(true, Ordering::Relaxed);
        });
        server.restart();
        assert_eq!(server.client().text("PING"), "+PONG\r\n", "round {round}");
    }
}

#[test]
fn slot_that_comes_back_is_refused_on_a_sticky_link_until_all_that_was_refused_is_back() {
    let mut cluster = Cluster::new([2, 1], [&[], &[]]);
    let mut link = cluster.servers[0].client();
    let mut plain = cluster.servers[0].client();
    assert!(link.text("CORDIS HELLO CORE 1 STICKY").starts_with("*14\r\n"));
    // One on each core.
    let keys = ["a", "foo"].map(|key| (key, slot_of(key.as_bytes())));
    for (key, _) in keys {
        assert_eq!(link.text(&format!("SET {key} 1")), "+OK\r\n");
    }
    let give = |cluster: &mut Cluster, owner: usize| {
        cluster.epoch += 1;
        let map = cluster.map(owner);
        let mut client = cluster.servers[0].client();
        let reply = client.try_call(&["CORDIS", "MAP", "SET", &map]).expect("it replies");
        assert_eq!(reply, format!(":{}\r\n", cluster.epoch).as_bytes());
    };
    give(&mut cluster, 1);
    for (key, _) in keys {
        assert!(link.text(&format!("GET {key}")).starts_with("-MOVED "));
        assert!(plain.text(&format!("GET {key}")).starts_with("-MOVED "));
    }
    give(&mut cluster, 0);
    for (key, slot) in keys {
        assert_eq!(plain.text(&format!("GET {key}")), "$1\r\n1\r\n");
        let refused = format!("-TRYAGAIN slot {slot} was refused here before: CORDIS RETRY\r\n");
        assert_eq!(link.text(&format!("SET {key} 2")), refused);
        assert_eq!(link.text("MULTI"), "+OK\r\n");
        assert_eq!(link.text(&format!("SET {key} 3")), "+QUEUED\r\n");
        assert!(link.text("EXEC").contains(refused.trim_end().trim_start_matches('-')));
        assert_eq!(link.text(&format!("CORDIS RETRY {slot}")), "+OK\r\n");
        assert_eq!(link.text(&format!("GET {key}")), "$1\r\n1\r\n");
    }
}

#[test]
fn server_in_a_cluster_refuses_what_it_does_not_serve_and_leaves_when_told() {
    let cluster = Cluster::new([2, 1], [&[], &[]]);
    let mut first = cluster.servers[0].client();
    let mut second = cluster.servers[1].client();
    assert_eq!(first.text("MSET a 1 b 2 c 3"), "+OK\r\n");
    let moved = format!("-MOVED 579 {}\r\n", addr(&cluster.servers[0]));
    assert_eq!(second.text("GET a"), moved);
    assert_eq!(second.text("DBSIZE"), ":0\r\n");
    let stale = cluster.map(0).replace("\"epoch\":1", "\"epoch\":0");
    let reply = first.try_call(&["CORDIS", "MAP", "SET", &stale]).expect("it replies");
    assert_eq!(String::from_utf8_lossy(&reply), "-STALE map epoch is 1\r\n");
    let other = first.text("CORDIS JOIN other 1 127.0.0.1:1");
    assert_eq!(other, "-ERR this server belongs to product 'test'\r\n");
    // Joined anew it serves nothing until it has a map; its keys are kept for then.
    assert_eq!(first.text("CORDIS LEAVE test"), "+OK\r\n");
    assert_eq!(first.text("GET a"), text("1"));
    assert_eq!(first.text("CORDIS JOIN other 1 127.0.0.1:1"), "+OK\r\n");
    assert_eq!(first.text("GET a"), "-CLUSTERDOWN slot 579 is not served\r\n");
    assert_eq!(first.text("DBSIZE"), ":0\r\n");
    assert_eq!(first.text("CORDIS LEAVE other"), "+OK\r\n");
    assert_eq!((first.text("DBSIZE"), first.text("GET c")), (":3\r\n".to_owned(), text("3")));
}

/// Writes keys to a server, to the slots that it serves; all of them if it serves all.
fn fill(cluster: &Cluster, server: usize, count: usize, bytes: usize) {
    let mut client = cluster.servers[server].client();
    let value = "x".repeat(bytes);
    for chunk in 0..count.div_ceil(1_000) {
        let batch = chunk * 1_000..((chunk + 1) * 1_000).min(count);
        for n in batch.clone() {
            client.send_call(&["SET", &format!("fill:{n}"), &value]).expect("it reads");
        }
        for _ in batch {
            client.read_reply().expect("it replies");
        }
    }
}

/// Keys of database 0 on both servers together.
fn filled(cluster: &Cluster) -> i64 {
    let size = |server: &Process| {
        let mut client = server.client();
        // Other clients' keys are elsewhere, or begin with other letters.
        let keys = client.call("KEYS fill:*");
        let own = client.call("EXISTS k");
        elements(&keys).map_or(0, |keys| keys.len() as i64) + integer(&own).unwrap_or(0)
    };
    cluster.servers.iter().map(size).sum()
}
