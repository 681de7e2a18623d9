//! Blocking calls of several clients: the same scripts for redis-server and for ours, whose keys lie
//! on both cores, must give the same replies; and under a race each element goes to one client.
//!
//! A script's lines: `a> CALL` sends and does not wait, `# n` waits until n clients are blocked,
//! `a<` reads a reply, `a: CALL` does both.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::client::Client;
use common::process::Process;
use common::shared::reply::{bulk, elements};
use common::shared::words::escaped;
use common::{alone, eventually};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

const CORE_COUNT: usize = 2;
const LIMIT: Duration = Duration::from_secs(10);

/// A key of about this name on a core of ours.
fn key_on(core: usize, name: &str) -> String {
    let mut key = name.to_owned();
    while slot_of(key.as_bytes()).index() * CORE_COUNT / SLOT_COUNT != core {
        key.push('.');
    }
    key
}

fn blocked_count(client: &mut Client) -> usize {
    let info = client.text("INFO clients");
    let count = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    count.and_then(|count| count.trim().parse().ok()).expect("INFO tells how many are blocked")
}

fn wait_blocked(client: &mut Client, count: usize) {
    eventually(LIMIT, &format!("{count} clients are blocked"), || {
        (blocked_count(client) == count).then_some(())
    });
}

/// Plays a script; what was read, in order.
fn play(process: &Process, script: &str) -> Vec<String> {
    let mut clients: BTreeMap<char, Client> = BTreeMap::new();
    let mut watcher = process.client();
    watcher.call("FLUSHALL");
    let mut seen = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(count) = line.strip_prefix('#') {
            wait_blocked(&mut watcher, count.trim().parse().expect("a number follows"));
            continue;
        }
        let name = line.chars().next().expect("the line is not empty");
        let client = clients.entry(name).or_insert_with(|| process.client());
        let (action, call) = line[1..].split_at(1);
        let call = names(call.trim());
        if matches!(action, ">" | ":") {
            let words = common::shared::words::split(&call).expect("quotes match");
            client.send_call(&words).expect("the server reads");
        }
        if matches!(action, "<" | ":") {
            let reply = client.read_reply().unwrap_or_else(|error| panic!("{line}: {error}"));
            seen.push(format!("{name}: {}", escaped(&reply)));
        }
    }
    seen
}

/// Replaces `K0`, `J0`, `K1` … by keys on the core of that number.
fn names(call: &str) -> String {
    let mut call = call.to_owned();
    for core in 0..CORE_COUNT {
        for letter in ["J", "K", "L"] {
            let key = key_on(core, &letter.to_lowercase());
            call = call.replace(&format!("{letter}{core}"), &key);
        }
    }
    call
}

const SCRIPTS: &[&str] = &[
    // First come, first served; one element each.
    "a> BLPOP K0 0
     # 1
     b> BRPOP K0 0
     # 2
     c> BLPOP K0 0
     # 3
     d: RPUSH K0 1 2
     a<
     b<
     # 1
     d: LLEN K0
     d: LPUSH K0 3 4
     c<
     d: LRANGE K0 0 -1
     # 0",
    // Several keys on several cores: the first that holds something, then whichever is made first.
    "d: RPUSH K1 x
     a: BLPOP K0 K1 0
     a> BLPOP K0 K1 J1 0
     # 1
     d: RPUSH J1 y
     a<
     # 0
     d: RPUSH K0 z
     d: LLEN K0",
    // A time out, of each shape of reply.
    "a: BLPOP K0 0.01
     a: BLPOP K0 K1 0.01
     a: BLMOVE K0 K1 LEFT RIGHT 0.01
     a: BRPOPLPUSH K0 K1 0.01
     a: BLMPOP 0.01 1 K0 LEFT
     a: BZPOPMIN K0 0.01
     a: BZMPOP 0.01 2 K0 K1 MAX
     a: BLPOP K0 -1
     a: BLPOP K0 x
     a: BLPOP K0 1e400
     a: BLMOVE K0 K1 UP LEFT 0
     a: BLMPOP 0 0 K0 LEFT
     # 0",
    // Moves within a core, over cores, and in a chain.
    "a> BLMOVE K0 J0 LEFT RIGHT 0
     # 1
     b> BLMOVE J0 K1 RIGHT LEFT 0
     # 2
     c> BLPOP K1 0
     # 3
     d: RPUSH K0 e
     a<
     b<
     c<
     # 0
     d: EXISTS K0 J0 K1",
    "a> BRPOPLPUSH K0 K1 0
     # 1
     d: LPUSH K0 1 2 3
     a<
     # 0
     d: LRANGE K0 0 -1
     d: LRANGE K1 0 -1",
    // A destination of another type is the mover's trouble, and the element stays.
    "d: SET K1 text
     a> BLMOVE K0 K1 LEFT LEFT 0
     # 1
     d: RPUSH K0 e
     a<
     d: LRANGE K0 0 -1
     # 0",
    // Whatever makes the key wakes: RENAME, COPY, MOVE, SORT STORE, RESTORE's kin, EXEC.
    "a> BLPOP K0 0
     # 1
     d: RPUSH K1 r
     d: RENAME K1 K0
     a<
     a> BLPOP K0 0
     # 1
     d: RPUSH K1 2 1
     d: COPY K1 K0
     a<
     d: DEL K0
     a> BLPOP K0 0
     # 1
     d: SORT K1 STORE K0
     a<
     d: DEL K0
     a> BLPOP K0 0
     # 1
     d: MULTI
     d: RPUSH K0 m1
     d: RPUSH K0 m2
     d: EXEC
     a<
     d: LRANGE K0 0 -1
     # 0",
    "a> BZPOPMIN K0 0
     # 1
     d: ZADD K1 1 a 2 b
     d: ZUNIONSTORE K0 1 K1
     a<
     d: DEL K0
     a> BZPOPMAX K0 0
     # 1
     d: ZRANGESTORE K0 K1 0 -1
     a<
     a> BZMPOP 0 2 L0 L1 MIN COUNT 5
     # 1
     d: ZADD L1 1.5 x 2.5 y
     a<
     # 0",
    "d: SELECT 1
     a> BLPOP K0 0
     # 1
     d: RPUSH K0 other
     d: MOVE K0 0
     a<
     d: RPUSH K0 swapped
     a> BLPOP K0 0
     # 1
     d: SWAPDB 0 1
     a<
     # 0",
    // A key that is made and gone within one transaction wakes nobody.
    "a> BLPOP K0 0
     # 1
     d: MULTI
     d: RPUSH K0 1
     d: DEL K0
     d: EXEC
     d: PING
     # 1
     d: RPUSH K0 2
     a<
     # 0",
    // Another type wakes nobody, and hurts nobody who waits.
    "a> BLPOP K0 0
     # 1
     b> BZPOPMIN K0 0
     # 2
     d: ZADD K0 1 z
     b<
     # 1
     d: SADD K0 s
     d: BLPOP K0 0
     d: DEL K0
     d: RPUSH K0 l
     a<
     # 0",
    // Inside a transaction nothing blocks.
    "a: MULTI
     a: BLPOP K0 0
     a: BLMOVE K0 K1 LEFT LEFT 0
     a: BLMPOP 0 1 K0 LEFT
     a: BZPOPMIN K0 0
     a: BRPOPLPUSH K0 K1 0
     a: BZMPOP 0 1 K0 MIN
     a: EXEC
     # 0",
    // What a blocked client has sent behind its call runs after it, in order.
    "a> BLPOP K0 0
     a> PING
     a> SET K1 after
     # 1
     d: EXISTS K1
     d: RPUSH K0 v
     a<
     a<
     a<
     d: GET K1
     # 0",
    // RESP3.
    "a: HELLO 3 AUTH default x
     a> BLPOP K0 0
     # 1
     d: RPUSH K0 v
     a<
     a> BZPOPMIN K0 0
     # 1
     d: ZADD K0 1.5 v
     a<
     a: BLPOP K0 0.01
     # 0",
    // The same key twice.
    "a> BLPOP K0 K0 K1 0
     # 1
     d: RPUSH K0 1 2
     a<
     d: LRANGE K0 0 -1
     # 0",
    "a> BLMPOP 0 2 K0 K1 RIGHT COUNT 2
     # 1
     d: RPUSH K1 1 2 3
     a<
     d: LRANGE K1 0 -1
     # 0",
];

#[test]
fn scripts_of_several_clients_read_the_same_as_in_redis() {
    let _alone = alone();
    let (redis, ours) = (Process::redis(&[]), Process::cordis(CORE_COUNT, &[]));
    for script in SCRIPTS {
        // HELLO's reply names the server.
        let comparable = |seen: Vec<String>| -> Vec<String> {
            seen.into_iter().filter(|line| !line.contains("server")).collect()
        };
        let want = comparable(play(&redis, script));
        let got = comparable(play(&ours, script));
        assert_eq!(got, want, "in the script\n{}", names(script));
    }
}

#[test]
fn client_unblock_ends_the_wait_of_one_client_on_any_core() {
    let _alone = alone();
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut admin = ours.client();
    let mut clients: Vec<(Client, String)> = (0..6)
        .map(|_| {
            let mut client = ours.client();
            let id = client.text("CLIENT ID")[1..].trim().to_owned();
            (client, id)
        })
        .collect();
    for (i, (client, _)) in clients.iter_mut().enumerate() {
        let key = key_on(i % CORE_COUNT, "none");
        client.send_call(&["BLPOP", &key, "0"]).expect("the server reads");
    }
    wait_blocked(&mut admin, clients.len());
    assert!(admin.text("CLIENT LIST").matches("flags=b ").count() == clients.len());
    for (i, (client, id)) in clients.iter_mut().enumerate() {
        let (how, want) = match i % 3 {
            0 => ("", "*-1\r\n"),
            1 => (" TIMEOUT", "*-1\r\n"),
            _ => (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
        };
        assert_eq!(admin.text(&format!("CLIENT UNBLOCK {id}{how}")), ":1\r\n");
        assert_eq!(admin.text(&format!("CLIENT UNBLOCK {id}{how}")), ":0\r\n");
        let reply = client.read_reply().expect("its wait has ended");
        assert_eq!(String::from_utf8_lossy(&reply), want);
        assert_eq!(client.call("PING"), b"+PONG\r\n");
    }
    assert_eq!(blocked_count(&mut admin), 0);
}

#[test]
fn timeouts_are_kept_to_the_millisecond() {
    const WAIT: Duration = Duration::from_millis(120);
    let _alone = alone();
    let ours = Process::cordis(CORE_COUNT, &[]);
    common::best_of(3, || {
        let mut client = ours.client();
        let begun = Instant::now();
        assert_eq!(client.call("BLPOP nothing 0.12"), b"*-1\r\n");
        let late = begun.elapsed().checked_sub(WAIT).expect("no wait ends early");
        let ok = late < Duration::from_millis(8);
        if ok { Ok(()) } else { Err(format!("{late:?} late")) }
    });
}

#[test]
fn clients_that_leave_while_blocked_take_nothing_along() {
    let _alone = alone();
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut admin = ours.client();
    for core in 0..CORE_COUNT {
        let key = key_on(core, "left");
        let mut gone: Vec<Client> = (0..20).map(|_| ours.client()).collect();
        for client in &mut gone {
            client.send_call(&["BLPOP", &key, "0"]).expect("the server reads");
        }
        wait_blocked(&mut admin, gone.len());
        drop(gone);
        wait_blocked(&mut admin, 0);
        assert_eq!(admin.call(&format!("RPUSH {key} 1")), b":1\r\n");
        assert_eq!(admin.call(&format!("LLEN {key}")), b":1\r\n");
    }
}

/// Elements that each pusher pushes.
const PUSH_COUNT: usize = 400;
const PUSHER_COUNT: usize = 3;
const POPPER_COUNT: usize = 5;

#[test]
fn each_element_goes_to_one_of_many_clients_that_wait_for_keys_on_both_cores() {
    let _alone = alone();
    let ours = Process::cordis(CORE_COUNT, &[]);
    let keys: Vec<String> = (0..4).map(|i| key_on(i % CORE_COUNT, &format!("q{i}"))).collect();
    let popped: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let poppers: Vec<_> = (0..POPPER_COUNT)
            .map(|popper| {
                let (ours, keys) = (&ours, &keys);
                scope.spawn(move || pop_until_end(&mut ours.client(), keys, popper))
            })
            .collect();
        let pushers: Vec<_> = (0..PUSHER_COUNT)
            .map(|pusher| {
                let (ours, keys) = (&ours, &keys);
                scope.spawn(move || {
                    let mut client = ours.client();
                    for i in 0..PUSH_COUNT {
                        let key = &keys[(i + pusher) % keys.len()];
                        client.call(&format!("RPUSH {key} e{pusher}:{i}"));
                    }
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().expect("pushers do not fail"));
        let mut admin = ours.client();
        for _ in 0..POPPER_COUNT {
            admin.call(&format!("RPUSH {} end", keys[0]));
        }
        let popped: Vec<Vec<u8>> =
            poppers.into_iter().flat_map(|p| p.join().expect("poppers do not fail")).collect();
        // The keys behind the first may not be empty when the end comes.
        let rest = keys.iter().flat_map(|key| {
            let reply = admin.call(&format!("LRANGE {key} 0 -1"));
            let all = elements(&reply).expect("LRANGE answers with an array");
            all.iter().filter_map(|e| bulk(e)).map(<[u8]>::to_vec).collect::<Vec<_>>()
        });
        let rest: Vec<Vec<u8>> = rest.collect();
        [popped, rest].concat()
    });
    let all: BTreeSet<Vec<u8>> = popped.iter().cloned().collect();
    assert_eq!(all.len(), popped.len(), "an element was popped twice");
    assert_eq!(popped.len(), PUSH_COUNT * PUSHER_COUNT, "an element was lost");
}

#[test]
fn client_that_leaves_as_soon_as_it_has_asked_waits_for_nothing() {
    let _alone = alone();
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut other = ours.client();
    for round in 0..300 {
        let mut client = ours.client();
        client
            .send(format!("BLPOP {} 0\r\n", key_on(round % 2, "q")).as_bytes())
            .expect("it reads");
    }
    eventually(LIMIT, "all have come and are gone", || {
        let info = other.text("INFO everything");
        let total = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        let total = total.and_then(|total| total.parse::<usize>().ok()).expect("INFO counts them");
        (total > 300 && info.contains("connected_clients:1\r\n")).then_some(())
    });
    assert_eq!(blocked_count(&mut other), 0);
    // What comes now stays.
    for core in 0..CORE_COUNT {
        let key = key_on(core, "q");
        assert_eq!(other.text(&format!("RPUSH {key} x")), ":1\r\n");
        assert_eq!(other.text(&format!("LLEN {key}")), ":1\r\n");
    }
}

/// Pops with different calls until `end` comes.
fn pop_until_end(client: &mut Client, keys: &[String], popper: usize) -> Vec<Vec<u8>> {
    let mut popped = Vec::new();
    for round in popper.. {
        let all = keys.join(" ");
        let own = format!("own:{popper}");
        let (call, at) = match round % 3 {
            0 => (format!("BLPOP {all} 0"), 1),
            1 => (format!("BRPOP {} {} 0.05", keys[2], keys[1]), 1),
            _ => (format!("BLMOVE {} {own} LEFT RIGHT 0.02", keys[3]), 0),
        };
        let reply = client.call(&call);
        if reply == b"*-1\r\n" || reply == b"$-1\r\n" {
            continue;
        }
        let element = match at {
            0 => bulk(&reply),
            at => elements(&reply).and_then(|all| bulk(all[at])),
        };
        let element = element.unwrap_or_else(|| panic!("{call}: {}", escaped(&reply))).to_vec();
        if element == b"end" {
            break;
        }
        popped.push(element);
    }
    popped
}
