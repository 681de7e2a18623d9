//! What a server costs when little happens, and how it ends.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::time::{Duration, Instant};

use common::client::Client;
use common::process::Process;
use common::shared::reply;
use common::{alone, best_of, eventually, within};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections of the test of many.
const CONNECTION_COUNT: u64 = 10_000;

/// Open files that it needs, on each side.
const OPEN_FILES_MIN: u64 = 12_000;

#[test]
fn idle_server_uses_no_processor() {
    const SPAN: Duration = Duration::from_secs(3);
    let _alone = alone();
    let ours = Process::cordis(2, &[]);
    let mut client = ours.client();
    assert_eq!(client.call("SET k v EX 100000"), b"+OK\r\n");
    best_of(3, || {
        let (before, started) = (ours.cpu_time(), Instant::now());
        // Measuring how little happens takes time in which nothing is asked.
        std::thread::park_timeout(SPAN);
        let share = (ours.cpu_time() - before).as_secs_f64() / started.elapsed().as_secs_f64();
        if share < 0.005 {
            return Ok(());
        }
        Err(format!("idle, it used {:.2} % of a core; at most 0.5 %", share * 100.0))
    });
    assert_eq!(client.call("GET k"), b"$1\r\nv\r\n");
}

/// Lets this process and its children open enough files.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= OPEN_FILES_MIN);
    assert!(
        enough,
        "this test needs {OPEN_FILES_MIN} open files, and the hard limit is {:?}: raise it \
         (`ulimit -Hn`, limits.conf, or LimitNOFILE of the service)",
        limit.maximum
    );
    let current = limit.maximum.map_or(OPEN_FILES_MIN, |maximum| maximum.min(1 << 20));
    let raised = Rlimit { current: Some(current), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("a soft limit may be raised to the hard one");
}

#[test]
fn ten_thousand_idle_connections_cost_2_kib_each_and_answer() {
    const BYTES_MAX: u64 = 2048;
    let _alone = alone();
    raise_open_files();
    let maxclients = (CONNECTION_COUNT + 100).to_string();
    let ours = Process::cordis(2, &["--maxclients", &maxclients]);
    let mut first = ours.client();
    assert_eq!(first.call("PING"), b"+PONG\r\n");
    let before = ours.resident_bytes();
    let mut clients: Vec<Client> = (0..CONNECTION_COUNT).map(|_| ours.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call("PING"), b"+PONG\r\n");
    }
    // What the calls have left in buffers may take a moment to be given back.
    let mut each = u64::MAX;
    let is_small = within(Duration::from_secs(10), || {
        each = each.min(ours.resident_bytes().saturating_sub(before) / CONNECTION_COUNT);
        each <= BYTES_MAX
    });
    assert!(is_small, "{each} bytes of RSS for each connection; at most {BYTES_MAX}");
    for client in clients.iter_mut().rev() {
        assert_eq!(client.call("ECHO still"), b"$5\r\nstill\r\n");
    }
}

#[test]
fn connections_beyond_maxclients_are_refused_in_the_words_of_redis() {
    let arguments = ["--maxclients", "20"];
    let refusal = |process: &Process| {
        let mut clients: Vec<Client> = (0..20).map(|_| process.client()).collect();
        for client in &mut clients {
            assert_eq!(client.call("PING"), b"+PONG\r\n");
        }
        let refused = process.client().read_to_end().expect("it closes");
        drop(clients);
        eventually(Duration::from_secs(5), "room for others again", || {
            let pong = process.client().try_call(&["PING"]).ok()?;
            (pong == b"+PONG\r\n").then_some(())
        });
        refused
    };
    let (redis, ours) = (Process::redis(&arguments), Process::cordis(2, &arguments));
    let (want, got) = (refusal(&redis), refusal(&ours));
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&want));
}

/// Sets keys in portions; returns how many were refused.
fn set_many(client: &mut Client, keys: impl Iterator<Item = String>, value: &str) -> usize {
    let (mut refused, mut sent) = (0, 0);
    let mut read = |client: &mut Client, count: usize| {
        for _ in 0..count {
            refused += usize::from(client.read_reply().expect("it replies") != b"+OK\r\n");
        }
    };
    for key in keys {
        client.send_call(&["SET".to_owned(), key, value.to_owned()]).expect("the server reads");
        sent += 1;
        if sent == 100 {
            read(client, std::mem::take(&mut sent));
        }
    }
    read(client, sent);
    refused
}

fn key_count(client: &mut Client) -> usize {
    let size = client.text("DBSIZE");
    size.trim_start_matches(':').trim().parse().expect("a number")
}

#[test]
fn memory_limit_is_kept_on_two_cores_as_on_one() {
    let value = "v".repeat(1_000);
    let mut counts = Vec::new();
    for cores in [1, 2] {
        let ours =
            Process::cordis(cores, &["--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru"]);
        let mut client = ours.client();
        let refused = set_many(&mut client, (0..20_000).map(|n| format!("{n}")), &value);
        assert_eq!(refused, 0, "{cores} cores");
        for part in 0..20 {
            let keys = (0..1_000).map(|n| format!("{part}-{n}"));
            assert_eq!(set_many(&mut client, keys, &value), 0, "{cores} cores");
            counts.push((cores, key_count(&mut client)));
        }
    }
    let of = |cores| counts.iter().filter(move |(c, _)| *c == cores).map(|(_, count)| *count);
    let (least, most) = (of(1).min().unwrap_or(0), of(1).max().unwrap_or(0));
    for count in of(2) {
        assert!(count > least * 3 / 4 && count < most * 5 / 4, "{counts:?}");
    }
}

#[test]
fn write_passes_while_keys_of_another_core_may_go() {
    let ours = Process::cordis(2, &["--maxmemory-policy", "allkeys-lru"]);
    let mut client = ours.client();
    let value = "v".repeat(1_000);
    // All on one core: the other has nothing to evict.
    assert_eq!(set_many(&mut client, (0..10_000).map(|n| format!("{{t}}{n}")), &value), 0);
    assert_eq!(client.text("CONFIG SET maxmemory 8mb"), "+OK\r\n");
    assert_eq!(set_many(&mut client, (0..5_000).map(|n| format!("{{x{n}}}")), "w"), 0);
    eventually(Duration::from_secs(5), "memory is below the limit", || {
        (key_count(&mut client) < 12_000).then_some(())
    });
    // Where nothing may go, a write is refused as ever.
    assert_eq!(client.text("CONFIG SET maxmemory-policy noeviction"), "+OK\r\n");
    assert_eq!(client.text("CONFIG SET maxmemory 1mb"), "+OK\r\n");
    assert!(client.text("SET y 1").starts_with("-OOM"));
}

#[test]
fn client_that_is_paused_goes_on_soon_after_the_pause_is_called_off() {
    let ours = Process::cordis(2, &[]);
    let (mut one, mut other) = (ours.client(), ours.client());
    assert_eq!(other.call("CLIENT PAUSE 60000 WRITE"), b"+OK\r\n");
    one.send(b"SET k v\r\n").expect("the server reads");
    eventually(Duration::from_secs(5), "the server has received it", || {
        other.text("CLIENT LIST").contains("cmd=set").then_some(())
    });
    assert_eq!(other.call("CLIENT UNPAUSE"), b"+OK\r\n");
    let begun = Instant::now();
    assert_eq!(one.read_reply().expect("it replies"), b"+OK\r\n");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn calls_received_together_are_spread_over_turns_when_they_take_long_together() {
    const CALLS: usize = 3_000;
    let ours = Process::cordis(1, &[]);
    let mut client = ours.client();
    let mut fill = vec!["RPUSH".to_owned(), "list".to_owned()];
    fill.extend((0..500).map(|n| format!("element-{n}")));
    assert_eq!(client.try_call(&fill).expect("the server reads"), b":500\r\n");
    let turns = |client: &mut Client| {
        let info = client.text("INFO cores");
        let field = info.split(',').find_map(|field| field.strip_prefix("turns="));
        field.and_then(|text| text.parse::<usize>().ok()).expect("a number of turns")
    };
    let before = turns(&mut client);
    let begun = Instant::now();
    // Without replies nothing but time makes a turn end.
    let calls = [b"CLIENT REPLY OFF\r\n", &*b"LRANGE list 0 -1\r\n".repeat(CALLS)].concat();
    client.send(&calls).expect("the server reads");
    assert_eq!(client.call("CLIENT REPLY ON"), b"+OK\r\n");
    let (spent, turns) = (begun.elapsed(), turns(&mut client) - before);
    // They take 30 ms or more together.
    assert!(turns >= 20, "{CALLS} calls took {spent:?} in {turns} turns");
}

#[test]
fn termination_answers_what_was_read() {
    let mut ours = Process::cordis(2, &[]);
    let mut clients: Vec<Client> = (0..8).map(|_| ours.client()).collect();
    for client in &mut clients {
        client.send(&b"INCR counter\r\n".repeat(100)).expect("the server reads");
        client.read_reply().expect("the first call is answered");
    }
    ours.terminate();
    for client in &mut clients {
        let rest = client.read_to_end().expect("the server closes in the end");
        let replies = reply::split(&rest).expect("no reply is torn");
        assert_eq!(replies.len(), 99, "calls that had been read were not answered");
    }
    let status = ours.wait();
    assert!(status.success(), "{status}\n{}", ours.output());
    assert!(Client::connect(ours.port).is_err(), "somebody still listens");
}

#[test]
fn termination_does_not_wait_for_clients_that_do_not_read() {
    let mut ours = Process::cordis(2, &[]);
    let value = vec![b'v'; 1 << 20];
    let mut client = ours.client();
    let set = client.try_call(&[&b"SET"[..], b"big", &value]).expect("the server reads");
    assert_eq!(set, b"+OK\r\n");
    client.send(&b"GET big\r\n".repeat(100)).expect("the server reads");
    let mut half = ours.client();
    half.send(b"*2\r\n$3\r\nGET\r\n$100\r\n").expect("the server reads");
    assert_eq!(ours.client().call("PING"), b"+PONG\r\n");
    ours.terminate();
    let status = ours.wait();
    assert!(status.success(), "{status}\n{}", ours.output());
}
