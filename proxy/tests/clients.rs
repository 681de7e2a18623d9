//! What clients get through a proxy with two groups, beyond what one Redis answers: keys apart, calls
//! over the cluster, transactions, blocking calls, messages, logins.

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::client::Client;
use common::cluster::{Cluster, Proxy, Server, map_of};
use common::eventually;
use common::fake::{Act, Fake};

/// Slots of `a` (579) and `d` (716) are with group 2, that of `e1` (295) with group 1.
fn cluster() -> Cluster {
    Cluster::start(&[])
}

fn text(client: &mut Client, line: &str) -> String {
    client.text(line)
}

/// Sends a line without reading its reply.
fn send(client: &mut Client, line: &str) {
    client.send(format!("{line}\r\n").as_bytes()).expect("the proxy reads");
}

fn read(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.read_reply().expect("it answers")).into_owned()
}

const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";

#[test]
fn keys_of_two_groups_are_split_or_refused() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    assert_eq!(text(&mut client, "MSET a 1 e1 2 d 3 {a}x 4"), "+OK\r\n");
    assert_eq!(
        text(&mut client, "MGET e1 a missing d e1"),
        "*5\r\n$1\r\n2\r\n$1\r\n1\r\n$-1\r\n$1\r\n3\r\n$1\r\n2\r\n"
    );
    assert_eq!(text(&mut client, "EXISTS a e1 d e1"), ":4\r\n");
    for line in
        ["RENAME a e1", "SINTER a e1", "BLPOP a e1 1", "MSETNX a 1 e1 1", "BITOP AND a e1 d"]
    {
        assert_eq!(text(&mut client, line), CROSS, "{line}");
    }
    assert_eq!(text(&mut client, "RENAME a d"), "+OK\r\n", "one group has both");
    assert_eq!(text(&mut client, "DEL a d e1 {a}x"), ":3\r\n");
    // Both servers have had their part.
    assert_eq!(text(&mut client, "DBSIZE"), ":0\r\n");
}

#[test]
fn transaction_of_two_groups_is_refused_when_it_is_queued() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    assert_eq!(text(&mut client, "MULTI"), "+OK\r\n");
    assert_eq!(text(&mut client, "SET a 1"), "+QUEUED\r\n");
    assert_eq!(text(&mut client, "SET d 1"), "+QUEUED\r\n", "another slot of the same group");
    assert_eq!(text(&mut client, "SET e1 1"), CROSS);
    assert!(text(&mut client, "EXEC").starts_with("-EXECABORT"));
    assert_eq!(text(&mut client, "EXISTS a d e1"), ":0\r\n");
    assert_eq!(text(&mut client, "WATCH a e1"), CROSS);
    assert_eq!(text(&mut client, "WATCH a"), "+OK\r\n");
    assert_eq!(text(&mut client, "MULTI"), "+OK\r\n");
    assert_eq!(text(&mut client, "SET e1 1"), CROSS, "what is watched counts");
    assert!(text(&mut client, "EXEC").starts_with("-EXECABORT"));
    // A transaction that changes the database leaves the links of others where they were.
    let mut other = cluster.proxy.client();
    for line in ["MULTI", "SELECT 3", "SET a three", "EXEC"] {
        text(&mut client, line);
    }
    assert_eq!(text(&mut client, "GET a"), "$5\r\nthree\r\n");
    assert_eq!(text(&mut other, "GET a"), "$-1\r\n");
}

#[test]
fn transactions_of_many_clients_do_not_mix() {
    let cluster = cluster();
    let mut clients: Vec<Client> = (0..20).map(|_| cluster.proxy.client()).collect();
    for round in 0..20 {
        for client in &mut clients {
            for line in ["MULTI", "INCR {t}n", "INCR {t}m", "GET {t}n", "EXEC", "PING"] {
                send(client, line);
            }
        }
        for client in &mut clients {
            for _ in 0..4 {
                read(client);
            }
            let exec = read(client);
            let numbers: Vec<&str> = exec.split("\r\n").collect();
            assert_eq!(numbers[1], numbers[2], "round {round}: {exec:?}");
            assert_eq!(numbers[1].trim_start_matches(':'), numbers[4], "{exec:?}");
            assert_eq!(read(client), "+PONG\r\n");
        }
    }
    assert_eq!(text(&mut clients[0], "GET {t}n"), "$3\r\n400\r\n");
}

#[test]
fn watch_is_of_the_session_and_ends_with_it() {
    let cluster = cluster();
    let (mut one, mut two) = (cluster.proxy.client(), cluster.proxy.client());
    assert_eq!(text(&mut one, "WATCH a"), "+OK\r\n");
    assert_eq!(text(&mut two, "WATCH a"), "+OK\r\n");
    for client in [&mut one, &mut two] {
        assert_eq!(text(client, "MULTI"), "+OK\r\n");
        assert_eq!(text(client, "SET a mine"), "+QUEUED\r\n");
    }
    assert_eq!(text(&mut one, "EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(text(&mut two, "EXEC"), "*-1\r\n");
    // Without a watch the link is given back: the server has the proxy's own link left.
    let server = &cluster.servers[1];
    let links = || server.client().text("CLIENT LIST").matches("id=").count();
    eventually(Duration::from_secs(20), "links are given back", || (links() <= 3).then_some(()));
}

#[test]
fn watch_on_a_slot_that_moves_makes_exec_null() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    assert_eq!(text(&mut client, "WATCH a"), "+OK\r\n");
    cluster.serve(|slot| if slot.index() < 512 { 2 } else { 1 });
    assert_eq!(text(&mut client, "MULTI"), "+OK\r\n");
    assert_eq!(text(&mut client, "SET a 1"), "+QUEUED\r\n");
    assert_eq!(text(&mut client, "EXEC"), "*-1\r\n");
    assert_eq!(text(&mut client, "SET a 2"), "+OK\r\n");
    assert_eq!(text(&mut client, "GET a"), "$1\r\n2\r\n");
}

#[test]
fn blocked_call_is_served_unblocked_or_dropped() {
    let cluster = cluster();
    let (mut blocked, mut other) = (cluster.proxy.client(), cluster.proxy.client());
    let id = text(&mut blocked, "CLIENT ID");
    let id = id.trim_start_matches(':').trim_end();
    let is_blocked = |other: &mut Client| {
        let list = text(other, "CLIENT LIST");
        list.lines()
            .any(|line| line.starts_with(&format!("id={id} ")) && line.contains(" flags=b "))
    };
    let wait = |other: &mut Client| {
        eventually(Duration::from_secs(20), "it is blocked", || is_blocked(other).then_some(()));
    };
    send(&mut blocked, "BLPOP {q}1 {q}2 0");
    send(&mut blocked, "PING");
    wait(&mut other);
    assert_eq!(text(&mut other, "RPUSH {q}2 x"), ":1\r\n");
    assert_eq!(read(&mut blocked), "*2\r\n$4\r\n{q}2\r\n$1\r\nx\r\n");
    assert_eq!(read(&mut blocked), "+PONG\r\n", "what came behind it is answered behind it");
    for (how, reply) in [("TIMEOUT", "*-1\r\n"), ("ERROR", "-UNBLOCKED")] {
        send(&mut blocked, "BZPOPMIN {q}z 0");
        wait(&mut other);
        // The server may not have the call yet: then there is nobody to unblock.
        eventually(Duration::from_secs(20), "it is unblocked", || {
            (text(&mut other, &format!("CLIENT UNBLOCK {id} {how}")) == ":1\r\n").then_some(())
        });
        assert!(read(&mut blocked).starts_with(reply), "{how}");
    }
    assert_eq!(text(&mut other, &format!("CLIENT UNBLOCK {id}")), ":0\r\n", "nobody is blocked");
    // Who leaves takes nothing with it.
    send(&mut blocked, "BLPOP {q}1 0");
    wait(&mut other);
    drop(blocked);
    eventually(Duration::from_secs(20), "it is gone", || (!is_blocked(&mut other)).then_some(()));
    let server = &cluster.servers[usize::from(slot_of("q") >= 512)];
    let is_free = || !server.client().text("CLIENT LIST").contains("cmd=blpop");
    eventually(Duration::from_secs(20), "the server lets go", || is_free().then_some(()));
    assert_eq!(text(&mut other, "RPUSH {q}1 y"), ":1\r\n");
    assert_eq!(text(&mut other, "LLEN {q}1"), ":1\r\n");
}

fn slot_of(key: &str) -> usize {
    cordis_engine::slots::hash::slot_of(key.as_bytes()).index()
}

#[test]
fn blocked_call_follows_its_slot() {
    let server = Server::start(&[]);
    let to = format!("-MOVED 579 {}\r\n", server.addr());
    // It takes the call, and refuses it after a while, as a server whose slot has left.
    let fake = Fake::start(move |_| Act::text(&to));
    let proxy = Proxy::start(&[]);
    proxy.set_map(&map_of(&[fake.addr(), server.addr()], 1, |_| 1));
    let mut blocked = proxy.client();
    send(&mut blocked, "BLPOP a 20");
    let is_there = || server.client().text("CLIENT LIST").contains("cmd=blpop");
    eventually(Duration::from_secs(20), "it waits at the new server", || is_there().then_some(()));
    assert_eq!(text(&mut server.client(), "RPUSH a x"), ":1\r\n");
    assert_eq!(read(&mut blocked), "*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    assert_eq!(text(&mut blocked, "WATCH a"), "+OK\r\n");
    assert_eq!(text(&mut blocked, "MULTI"), "+OK\r\n");
    assert_eq!(text(&mut blocked, "SET a 1"), "+QUEUED\r\n");
    assert_eq!(text(&mut blocked, "EXEC"), "*1\r\n+OK\r\n");
}

#[test]
fn messages_reach_subscribers_at_any_proxy_once() {
    let cluster = cluster();
    let second = Proxy::start(&[]);
    let addrs: Vec<String> = cluster.servers.iter().map(Server::addr).collect();
    second.set_map(&map_of(&addrs, 1, |slot| if slot.index() < 512 { 1 } else { 2 }));
    let (mut here, mut there) = (cluster.proxy.client(), second.client());
    assert!(text(&mut here, "SUBSCRIBE a").contains("subscribe"));
    assert!(text(&mut there, "PSUBSCRIBE *").contains("psubscribe"));
    let mut publisher = second.client();
    for channel in ["a", "e1", "d", "a"] {
        let receivers = if channel == "a" { ":2\r\n" } else { ":1\r\n" };
        assert_eq!(text(&mut publisher, &format!("PUBLISH {channel} hello")), receivers);
    }
    for _ in 0..2 {
        assert_eq!(read(&mut here), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n");
    }
    let got: Vec<String> = (0..4).map(|_| read(&mut there)).collect();
    // Different servers: the order of one channel is kept, that of all is not.
    let of = |channel: &str| {
        got.iter().filter(|m| m.contains(&format!("${}\r\n{channel}\r\n", channel.len()))).count()
    };
    assert_eq!((of("a"), of("e1"), of("d")), (2, 1, 1), "{got:?}");
    assert_eq!(text(&mut publisher, "PUBSUB CHANNELS"), "*1\r\n$1\r\na\r\n");
    assert_eq!(text(&mut publisher, "PUBSUB NUMPAT"), ":1\r\n");
    assert!(text(&mut here, "GET a").starts_with("-ERR Can't execute 'get'"));
    assert!(text(&mut here, "UNSUBSCRIBE").contains(":0"));
    assert_eq!(text(&mut here, "GET a"), "$-1\r\n");
    drop(there);
    let count = |publisher: &mut Client| text(publisher, "PUBLISH a bye");
    eventually(Duration::from_secs(20), "nobody listens", || {
        (count(&mut publisher) == ":0\r\n").then_some(())
    });
}

#[test]
fn subscriber_survives_a_server() {
    let mut cluster = cluster();
    let (mut subscriber, mut publisher) = (cluster.proxy.client(), cluster.proxy.client());
    assert!(text(&mut subscriber, "SUBSCRIBE e1").contains("subscribe"));
    cluster.servers[1].process.kill();
    // The channel's slot is with the server that lives.
    eventually(Duration::from_secs(20), "the message arrives", || {
        (text(&mut publisher, "PUBLISH e1 one") == ":1\r\n").then_some(())
    });
    assert!(read(&mut subscriber).contains("one"));
    // Another takes the dead one's slots: the subscriber is subscribed there without a word.
    cluster.servers[1] = Server::start(&[]);
    cluster.serve(|slot| if slot.index() < 512 { 2 } else { 1 });
    eventually(Duration::from_secs(20), "it is subscribed at the new server", || {
        (text(&mut publisher, "PUBLISH e1 two") == ":1\r\n").then_some(())
    });
    assert!(read(&mut subscriber).contains("two"));
}

#[test]
fn scan_returns_every_key_whatever_it_asks_for() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    let all: HashSet<String> = (0..500).map(|n| format!("key:{n}")).collect();
    for key in &all {
        send(&mut client, &format!("SET {key} 1"));
    }
    all.iter().for_each(|_| assert_eq!(read(&mut client), "+OK\r\n"));
    text(&mut client, "RPUSH list 1");
    for options in ["", " COUNT 1", " COUNT 1000", " MATCH key:* COUNT 33", " TYPE string"] {
        let (mut cursor, mut seen, mut calls) = ("0".to_owned(), HashSet::new(), 0);
        loop {
            let reply = text(&mut client, &format!("SCAN {cursor}{options}"));
            let lines: Vec<&str> = reply.split("\r\n").collect();
            cursor = lines[2].to_owned();
            seen.extend(lines[4..].iter().skip(1).step_by(2).map(|key| (*key).to_owned()));
            calls += 1;
            assert!(calls < 2_000, "{options}");
            if cursor == "0" {
                break;
            }
        }
        seen.remove("");
        let is_filtered = options.contains("MATCH") || options.contains("TYPE");
        assert_eq!(seen.remove("list"), !is_filtered, "{options}");
        assert_eq!(seen, all, "{options}");
    }
    assert_eq!(text(&mut client, "DBSIZE"), ":501\r\n");
    assert!(text(&mut client, "RANDOMKEY").starts_with('$'));
    assert!(text(&mut client, "INFO keyspace").contains("db0:keys=501,expires=0"));
    assert_eq!(text(&mut client, "FLUSHALL"), "+OK\r\n");
    assert_eq!(text(&mut client, "KEYS *"), "*0\r\n");
    assert_eq!(text(&mut client, "RANDOMKEY"), "$-1\r\n");
    assert_eq!(text(&mut client, "SCAN 0"), "*2\r\n$1\r\n0\r\n*0\r\n");
}

#[test]
fn cluster_with_offline_slots_gives_no_wrong_sum() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    cluster.serve(|slot| if slot.index() == 7 { 0 } else { 1 });
    for line in ["DBSIZE", "KEYS *", "FLUSHALL", "RANDOMKEY"] {
        let reply = text(&mut client, line);
        assert_eq!(reply, "-ERR handle request, slot 7 is not ready, may be offline\r\n", "{line}");
    }
    assert!(text(&mut client, "SCAN 0 COUNT 10000").contains("may be offline"));
    assert_eq!(text(&mut client, "SET a 1"), "+OK\r\n");
    let info = text(&mut client, "INFO keyspace");
    assert!(info.contains("error:handle request, slot 7 is not ready"), "{info}");
    assert!(!info.contains("db0:"), "no sum at all: {info}");
    assert_eq!(text(&mut client, "PING"), "+PONG\r\n");
}

#[test]
fn proxy_with_an_old_map_misses_nothing() {
    let servers = [Server::start(&[]), Server::start(&[])];
    let addrs: Vec<String> = servers.iter().map(Server::addr).collect();
    let halves = |slot: cordis_engine::units::SlotId| if slot.index() < 512 { 1 } else { 2 };
    let map = map_of(&addrs, 5, halves).to_json();
    for (group, server) in servers.iter().enumerate() {
        let mut client = server.client();
        let join = format!("CORDIS JOIN codis-demo {} {}", group + 1, server.addr());
        assert_eq!(text(&mut client, &join), "+OK\r\n");
        let set = client.try_call(&["CORDIS", "MAP", "SET", &map]).expect("it answers");
        assert_eq!(set, b":5\r\n");
    }
    // It knows one group and believes that it serves everything.
    let old = map_of(&addrs[..1], 4, |_| 1);
    let fresh = || {
        let proxy = Proxy::start(&[]);
        proxy.set_map(&old);
        proxy
    };
    let first = fresh();
    let mut client = first.client();
    assert_eq!(text(&mut client, "MSET a 1 e1 2 d 3"), "+OK\r\n");
    assert_eq!(text(&mut client, "MGET a e1 d"), "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n");
    for (line, reply) in [
        ("DBSIZE", ":3\r\n"),
        ("SLOTSINFO", "*3\r\n*2\r\n:295\r\n:1\r\n*2\r\n:579\r\n:1\r\n*2\r\n:716\r\n:1\r\n"),
        ("SCAN 0 COUNT 1000", "*2\r\n$1\r\n0\r\n*3\r\n$2\r\ne1\r\n$1\r\na\r\n$1\r\nd\r\n"),
        ("BLPOP a 1", "-WRONGTYPE"),
        ("FLUSHALL", "+OK\r\n"),
    ] {
        // Each by a proxy that has not heard of the other group.
        let got = text(&mut fresh().client(), line);
        assert!(got.starts_with(reply), "{line}: {got}");
    }
    assert_eq!(text(&mut client, "DBSIZE"), ":0\r\n");
    let proxy = fresh();
    let mut client = proxy.client();
    for (line, reply) in [
        ("WATCH a", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 1", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n+OK\r\n"),
    ] {
        assert_eq!(text(&mut client, line), reply, "{line}");
    }
    let proxy = fresh();
    let mut client = proxy.client();
    for (line, reply) in
        [("MULTI", "+OK\r\n"), ("GET a", "+QUEUED\r\n"), ("EXEC", "*1\r\n$1\r\n1\r\n")]
    {
        assert_eq!(text(&mut client, line), reply, "{line}");
    }
}

#[test]
fn wide_calls_keep_the_order_of_their_session() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    for n in 0..50 {
        for line in ["SET a 1", "SET e1 1", "DBSIZE", "FLUSHALL", "DBSIZE", "SET a 2", "GET a"] {
            send(&mut client, line);
        }
        let got: Vec<String> = (0..7).map(|_| read(&mut client)).collect();
        let expected =
            ["+OK\r\n", "+OK\r\n", ":2\r\n", "+OK\r\n", ":0\r\n", "+OK\r\n", "$1\r\n2\r\n"];
        assert_eq!(got, expected, "round {n}");
        text(&mut client, "FLUSHALL");
    }
}

#[test]
fn slots_commands_are_those_of_the_original() {
    let cluster = cluster();
    let mut client = cluster.proxy.client();
    text(&mut client, "MSET a 1 {a}b 2 e1 3");
    let (e, a) = ("*2\r\n:295\r\n:1\r\n", "*2\r\n:579\r\n:2\r\n");
    assert_eq!(slot_of("e1"), 295);
    assert_eq!(text(&mut client, "SLOTSINFO"), format!("*2\r\n{e}{a}"));
    let addr = cluster.servers[1].addr();
    assert_eq!(text(&mut client, &format!("SLOTSINFO {addr}")), format!("*1\r\n{a}"));
    assert!(
        text(&mut client, "SLOTSINFO 1.2.3.4:5").contains("backend server '1.2.3.4:5' not found")
    );
    assert!(text(&mut client, "SLOTSSCAN 579 0").starts_with("*2\r\n$1\r\n0\r\n*2\r\n"));
    assert_eq!(text(&mut client, "SLOTSHASHKEY a e1"), "*2\r\n:579\r\n:295\r\n");
    let mapping = text(&mut client, "SLOTSMAPPING 579");
    assert_eq!(mapping, format!("*4\r\n+579\r\n+{addr}\r\n+\r\n*-1\r\n"));
    assert!(text(&mut client, "SLOTSMAPPING").starts_with("*1024\r\n*4\r\n+0\r\n"));
    assert!(text(&mut client, "SLOTSMAPPING x").contains("parse slotnum 'x' failed"));
    for name in ["SLOTSMGRTONE h 1 1 k", "slotsrestore-async-select 1", "SLOTSMGRT-ASYNC-CANCEL"] {
        assert!(text(&mut client, name).contains("is not allowed"), "{name}");
    }
}

#[test]
fn client_without_the_password_gets_nothing() {
    let cluster = Cluster::start(&["--session-auth", "s3cret"]);
    let mut client = cluster.proxy.client();
    for line in ["GET a", "PING", "DBSIZE", "MULTI", "SUBSCRIBE x", "SLOTSINFO", "CLIENT LIST"] {
        assert_eq!(text(&mut client, line), "-NOAUTH Authentication required.\r\n", "{line}");
    }
    assert!(text(&mut client, "EXEC").starts_with("-EXECABORT"));
    assert!(text(&mut client, "AUTH wrong").starts_with("-WRONGPASS"));
    assert!(text(&mut client, "HELLO 3 AUTH default wrong").starts_with("-WRONGPASS"));
    assert_eq!(text(&mut client, "GET a"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(text(&mut client, "AUTH s3cret"), "+OK\r\n");
    assert_eq!(text(&mut client, "SET a 1"), "+OK\r\n");
    assert_eq!(text(&mut client, "RESET"), "+RESET\r\n");
    assert_eq!(text(&mut client, "GET a"), "-NOAUTH Authentication required.\r\n");
    assert!(text(&mut client, "HELLO 3 AUTH default s3cret").starts_with('%'));
    assert_eq!(text(&mut client, "GET none"), "_\r\n");
    let line = std::fs::read(format!("/proc/{}/cmdline", cluster.proxy.process.pid()));
    assert!(!String::from_utf8_lossy(&line.expect("it runs")).contains("s3cret"));
}

#[test]
fn password_of_the_backends_is_given_to_them() {
    let server = Server::start(&["--requirepass", "inner"]);
    let map = |epoch| map_of(&[server.addr()], epoch, |_| 1);
    let proxy = Proxy::start(&["--product-auth", "inner"]);
    proxy.set_map(&map(1));
    assert_eq!(text(&mut proxy.client(), "SET a 1"), "+OK\r\n");
    let proxy = Proxy::start(&["--product-auth", "wrong"]);
    proxy.set_map(&map(1));
    let reply = text(&mut proxy.client(), "SET a 1");
    assert!(reply.starts_with("-ERR") && reply.contains("WRONGPASS"), "{reply}");
}

#[test]
fn servers_with_a_secret_tell_who_knows_it_and_others_are_warned_about_once() {
    let server = Server::start(&["--cluster-secret", "sesame"]);
    let refused = "does not tell its cores and slots";
    for (arguments, warnings) in
        [(&[][..], 1), (&["--cluster-secret", "wrong"], 1), (&["--cluster-secret", "sesame"], 0)]
    {
        let proxy = Proxy::start(arguments);
        proxy.set_map(&map_of(&[server.addr()], 1, |_| 1));
        let (mut client, mut other) = (proxy.client(), proxy.client());
        assert!(text(&mut other, "HELLO 3").starts_with('%'));
        for line in ["SET a 1", "DBSIZE", "DBSIZE"] {
            assert!(!text(&mut client, line).starts_with('-'), "{line}");
        }
        // Another link, which is refused as well.
        assert_eq!(text(&mut other, "GET a"), "$1\r\n1\r\n");
        let output = proxy.process.output();
        assert_eq!(output.matches(refused).count(), warnings, "{arguments:?}: {output}");
        assert!(!output.contains("sesame"), "{output}");
    }
}

#[test]
fn clients_of_all_cores_are_listed_and_killed() {
    let cluster = Cluster::start(&["--cores", &two_cores()]);
    let mut clients: Vec<Client> = (0..6).map(|_| cluster.proxy.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(text(client, &format!("CLIENT SETNAME c{n}")), "+OK\r\n");
    }
    let list = text(&mut clients[0], "CLIENT LIST");
    assert!((0..6).all(|n| list.contains(&format!("name=c{n} "))), "{list}");
    let id = text(&mut clients[5], "CLIENT ID");
    let kill = format!("CLIENT KILL ID {}", id.trim_start_matches(':').trim_end());
    assert_eq!(text(&mut clients[0], &kill), ":1\r\n");
    assert!(clients[5].read_reply().is_err(), "it was closed");
    assert_eq!(text(&mut clients[0], &kill), ":0\r\n");
    assert_eq!(text(&mut clients[0], "CONFIG RESETSTAT"), "+OK\r\n");
    assert!(text(&mut clients[0], "INFO stats").contains("total_commands_processed:"));
}

/// Two processors, or the only one: then its number.
fn two_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.expect("the kernel prints Cpus_allowed_list").trim();
    let (first, last) =
        list.split(',').next().and_then(|r| r.split_once('-')).unwrap_or((list, list));
    if first == last {
        return list.split(',').take(2).collect::<Vec<_>>().join(",");
    }
    let first: usize = first.parse().expect("the kernel prints numbers");
    format!("{first},{}", first + 1)
}
