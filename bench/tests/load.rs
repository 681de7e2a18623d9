//! `cordis-bench load` as a user runs it, against a responder in this process.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

/// A server that knows just enough: GET finds nothing, SET is fine, BAD is an error, HELLO is
/// noted, LIST is an array; every third reply is sent in two pieces.
struct Responder {
    port: u16,
    requests: Arc<AtomicU64>,
    hellos: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Responder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, hellos) = (Arc::new(AtomicU64::new(0)), Arc::default());
        let responder = Self { port, requests: Arc::clone(&requests), hellos: Arc::clone(&hellos) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, hellos) = (Arc::clone(&requests), Arc::clone(&hellos));
                std::thread::spawn(move || serve(stream.unwrap(), &requests, &hellos));
            }
        });
        responder
    }

    fn load(&self, options: &str) -> Output {
        bench(&format!("load --port {} {options}", self.port))
    }

    fn json(&self, options: &str) -> Value {
        let output = self.load(&format!("--json {options}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn seen(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, requests: &AtomicU64, hellos: &Mutex<Vec<Vec<String>>>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(words) = read_command(&mut reader) {
        let reply: &[u8] = match words[0].as_str() {
            "GET" => b"$-1\r\n",
            "SET" => b"+OK\r\n",
            "LIST" => b"*2\r\n$3\r\nabc\r\n:7\r\n",
            "BYE" => return,
            "HELLO" | "AUTH" | "SELECT" => {
                hellos.lock().unwrap().push(words);
                writer.write_all(b"+OK\r\n").unwrap();
                continue;
            }
            _ => b"-ERR unknown command 'BAD'\r\n",
        };
        let number = requests.fetch_add(1, Ordering::SeqCst);
        let cut = if number.is_multiple_of(3) { 1 } else { reply.len() };
        writer.write_all(&reply[..cut]).unwrap();
        writer.write_all(&reply[cut..]).unwrap();
    }
}

fn read_command(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut header = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
        line.trim().get(1..)?.parse::<usize>().ok()
    };
    let count = header()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut body = vec![0; line.trim()[1..].parse::<usize>().unwrap() + 2];
        reader.read_exact(&mut body).ok()?;
        body.truncate(body.len() - 2);
        words.push(String::from_utf8(body).unwrap());
    }
    Some(words)
}

fn bench(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cordis-bench")).args(line.split_whitespace()).output().unwrap()
}

#[test]
fn load_sends_exactly_the_requests_asked_for() {
    let responder = Responder::start();
    let report = responder.json("--requests 1003 --clients 7 --threads 2 --pipeline 4");
    assert_eq!(report["replies"], 1003);
    assert_eq!(responder.seen(), 1003);
    assert_eq!(report["errors"], serde_json::json!({}));
    let nulls = report["nulls"].as_u64().unwrap();
    assert!((850..980).contains(&nulls), "ten of eleven requests are GETs: {nulls}");
    let latency = &report["latency_us"];
    let us = |name: &str| latency[name].as_f64().unwrap();
    assert!(us("p50") > 0.0 && us("p50") <= us("p99") && us("p99") <= us("max"));
}

#[test]
fn load_counts_errors_by_text() {
    let responder = Responder::start();
    let report = responder.json("--requests 100 --command BAD --command LIST --clients 3");
    let errors = report["errors"]["ERR unknown command 'BAD'"].as_u64().unwrap();
    assert!((20..80).contains(&errors), "{report}");
    assert_eq!(report["replies"], 100);
}

#[test]
fn load_warms_up_without_counting() {
    let responder = Responder::start();
    let report = responder.json("--requests 50 --warmup 100ms --clients 2");
    assert_eq!(report["replies"], 50);
    assert!(responder.seen() > 50);
}

#[test]
fn load_open_loop_keeps_its_rate() {
    let responder = Responder::start();
    let report = responder.json("--rate 2000 --duration 500ms --clients 4 --threads 2");
    assert_eq!(report["replies"].as_u64().unwrap() + report["unsent"].as_u64().unwrap(), 1000);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.49..3.0).contains(&seconds), "{seconds}");
}

#[test]
fn load_duration_ends_a_closed_loop() {
    let responder = Responder::start();
    let started = Instant::now();
    let report = responder.json("--duration 200ms --clients 2");
    assert!(report["replies"].as_u64().unwrap() > 0);
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn load_introduces_itself() {
    let responder = Responder::start();
    responder.json("--requests 1 --clients 1 --auth secret --db 3");
    responder.json("--requests 1 --clients 1 --auth ann:secret --resp3");
    let hellos = responder.hellos.lock().unwrap();
    let lines: Vec<String> = hellos.iter().map(|words| words.join(" ")).collect();
    assert_eq!(lines, ["AUTH secret", "SELECT 3", "HELLO 3 AUTH ann secret"]);
}

#[test]
fn load_text_names_the_quantiles() {
    let output = Responder::start().load("--requests 10");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["10 replies", "p50 ", "p90 ", "p99 ", "p99.9 ", "p99.99 ", "max ", "closed loop"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn load_broken_connection_is_one_line_and_exit_1() {
    let output = Responder::start().load("--requests 10 --command BYE");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("cordis-bench: connection "), "{text}");
}

#[test]
fn wrong_options_are_one_line_and_exit_2() {
    for line in [
        "",
        "fly",
        "load --clients none",
        "load --threads 9 --clients 2",
        "load --requests 1 --duration 1",
        "compare --rows nothing",
        "compare --server ./no/such/server",
        "hit-ratio --keys 0",
    ] {
        let output = bench(line);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(text.starts_with("cordis-bench: ") && !text.contains("error:"), "{line}: {text}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "--version", "load --help", "compare --help", "hit-ratio --help"] {
        let output = bench(line);
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}");
    }
}
