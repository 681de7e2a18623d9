//! Calls on keys of two cores that run while the input is read, where both doors can be had: they
//! overtake no call that the session sent before them.

mod common;

use common::process::Process;
use common::shared::words::encoded;
use cordis_engine::slots::hash::slot_of;
use cordis_engine::units::SLOT_COUNT;

/// Rounds of each test: in most of them the other core sleeps, so its door is open.
const ROUND_COUNT: usize = 200;

/// A key on one of two cores.
fn key_on(core: usize) -> String {
    let names = (0..).map(|i| format!("key:{i}"));
    let mut on_core =
        names.filter(|name| slot_of(name.as_bytes()).index() * 2 / SLOT_COUNT == core);
    on_core.next().expect("slots are dealt to both cores")
}

/// Sends calls in one write; checks the replies to those that have one.
fn check(server: &Process, lines: &[String], want: &str) {
    let mut client = server.client();
    let calls: Vec<u8> = lines
        .iter()
        .flat_map(|line| encoded(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()))
        .collect();
    for round in 0..ROUND_COUNT {
        client.send(&calls).expect("the server receives");
        let mut got = Vec::new();
        while got.len() < want.len() {
            got.extend(client.read_reply().expect("the server answers"));
        }
        assert_eq!(String::from_utf8_lossy(&got), want, "round {round}");
    }
}

#[test]
fn call_on_two_cores_comes_after_the_calls_before_it() {
    let server = Process::cordis(2, &[]);
    let (a, b) = (key_on(0), key_on(1));
    let lines = [
        format!("MSET {a} 1 {b} 1"),
        format!("SET {a} 2"),
        format!("SET {b} 2"),
        format!("MGET {a} {b}"),
        format!("MSET {a} 3 {b} 3"),
        format!("MGET {b} {a}"),
        format!("GET {a}"),
    ];
    let want = "+OK\r\n+OK\r\n+OK\r\n*2\r\n$1\r\n2\r\n$1\r\n2\r\n\
                +OK\r\n*2\r\n$1\r\n3\r\n$1\r\n3\r\n$1\r\n3\r\n";
    check(&server, &lines, want);
}

#[test]
fn call_on_two_cores_comes_after_calls_that_want_no_reply() {
    let server = Process::cordis(2, &[]);
    let (a, b) = (key_on(0), key_on(1));
    let lines = [
        "CLIENT REPLY SKIP".to_owned(),
        format!("SET {a} 1"),
        "CLIENT REPLY SKIP".to_owned(),
        format!("SET {b} 1"),
        format!("MSET {a} 2 {b} 2"),
        format!("GET {a}"),
        format!("GET {b}"),
    ];
    check(&server, &lines, "+OK\r\n$1\r\n2\r\n$1\r\n2\r\n");
}

#[test]
fn wrong_call_on_two_cores_is_answered_in_its_place() {
    let server = Process::cordis(2, &[]);
    let (a, b) = (key_on(0), key_on(1));
    let lines = [
        format!("MSET {a} 1 {b} 1"),
        format!("MSET {a} 1 {b}"),
        format!("EXISTS {a} {b}"),
        format!("LMOVE {a} {b} LEFT RIGHT"),
        format!("DEL {a} {b}"),
    ];
    let want = "+OK\r\n-ERR wrong number of arguments for 'mset' command\r\n:2\r\n\
                -WRONGTYPE Operation against a key holding the wrong kind of value\r\n:2\r\n";
    check(&server, &lines, want);
}
