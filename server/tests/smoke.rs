//! redis-benchmark's whole list against ours, on one core and on two: each of its tests ends with a
//! rate, and none of them sees an error. How high the rates are is measured elsewhere.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::process::{Command, Stdio};

use common::alone;
use common::process::Process;

/// Requests of each test: some batches of each of its 50 connections.
const REQUESTS: &str = "2000";

/// What it prints of its whole list, in order. The list is that of redis-benchmark 7.0.
const ROWS: [&str; 20] = [
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)",
    "LRANGE_300 (first 300 elements)",
    "LRANGE_500 (first 500 elements)",
    "LRANGE_600 (first 600 elements)",
    "MSET (10 keys)",
];

/// What `-t` takes, and the rows that it prints.
const TESTS: [(&str, &[&str]); 20] = [
    ("ping", &["PING_INLINE", "PING_MBULK"]),
    ("ping_inline", &["PING_INLINE"]),
    ("ping_mbulk", &["PING_MBULK"]),
    ("set", &["SET"]),
    ("get", &["GET"]),
    ("incr", &["INCR"]),
    ("lpush", &["LPUSH"]),
    ("rpush", &["RPUSH"]),
    ("lpop", &["LPOP"]),
    ("rpop", &["RPOP"]),
    ("sadd", &["SADD"]),
    ("hset", &["HSET"]),
    ("spop", &["SPOP"]),
    ("zadd", &["ZADD"]),
    ("zpopmin", &["ZPOPMIN"]),
    ("lrange_100", &["LPUSH (needed to benchmark LRANGE)", "LRANGE_100 (first 100 elements)"]),
    ("lrange_300", &["LPUSH (needed to benchmark LRANGE)", "LRANGE_300 (first 300 elements)"]),
    ("lrange_500", &["LPUSH (needed to benchmark LRANGE)", "LRANGE_500 (first 500 elements)"]),
    ("lrange_600", &["LPUSH (needed to benchmark LRANGE)", "LRANGE_600 (first 600 elements)"]),
    ("mset", &["MSET (10 keys)"]),
];

/// Rows of its quiet output: what follows the last `\r` of a line, which overwrites its progress.
fn rows(output: &str) -> Vec<(String, f64)> {
    let lines = output.lines().filter_map(|line| line.rsplit('\r').find(|part| !part.is_empty()));
    let row = |line: &str| {
        let (name, figures) = line.rsplit_once(": ")?;
        let (rate, _) = figures.split_once(" requests per second")?;
        Some((name.trim().to_owned(), rate.parse().ok()?))
    };
    lines.filter_map(row).collect()
}

/// Runs it, and checks that it ends well, with these rows, and without a word of complaint.
fn run(server: &Process, arguments: &[&str], expected: &[&str]) {
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &server.port.to_string(), "-n", REQUESTS, "-q"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("redis-benchmark cannot be started ({error}): install the package redis-tools")
    });
    let (text, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let all = format!("redis-benchmark {arguments:?}:\n{text}\n{complaints}\n{}", server.output());
    assert!(output.status.success() && complaints.trim().is_empty(), "{all}");
    assert!(!text.contains("rror") && !text.contains("WARN"), "{all}");
    let rows = rows(&text);
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, expected, "{all}");
    assert!(rows.iter().all(|&(_, rate)| rate > 0.0), "{all}");
}

/// The whole list, on a fresh server, in ways that meet different paths: one by one, pipelined,
/// with many keys (so that those of MSET lie on all cores), in RESP3.
fn whole_list(core_count: usize) {
    let _alone = alone();
    let server = Process::cordis(core_count, &[]);
    for arguments in [
        &[][..],
        &["-P", "16"],
        &["-P", "16", "-r", "100000"],
        &["-3", "-P", "100", "-r", "1000", "-d", "100"],
    ] {
        run(&server, arguments, &ROWS);
    }
    let info = server.client().text("INFO errorstats");
    assert!(!info.contains("errorstat_"), "it saw no error, and the server counted some:\n{info}");
}

#[test]
fn redis_benchmark_whole_list_on_one_core() {
    whole_list(1);
}

#[test]
fn redis_benchmark_whole_list_on_two_cores() {
    whole_list(2);
}

#[test]
fn redis_benchmark_each_test_alone_on_an_empty_server() {
    let _alone = alone();
    let server = Process::cordis(2, &[]);
    for (test, expected) in TESTS {
        assert_eq!(server.client().call("FLUSHALL"), b"+OK\r\n");
        run(&server, &["-P", "16", "-t", test], expected);
    }
}
