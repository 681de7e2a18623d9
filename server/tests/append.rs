//! The append log over kills, restarts on other numbers of cores, rewrites, full disks and damage: what
//! was acknowledged is there as far as the mode promises, whole, and nothing else is.
#![allow(clippy::print_stderr, reason = "the runner of the tests shows it with a failure")]
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::client::Client;
use common::process::Process;
use common::shared::calls::Calls;
use common::shared::reply::{bulk, elements};
use common::shared::rng::{Rng, seed_or};
use common::{alone, eventually};

/// How long loading and rewriting may take: builds may share the machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Sessions that write.
const WRITERS: usize = 4;

fn server(core_count: usize, policy: &str) -> Process {
    Process::cordis(core_count, &["--appendonly", "yes", "--appendfsync", policy])
}

/// Waits until it has loaded its log.
fn wait_loaded(server: &Process) {
    eventually(LIMIT, "the log is loaded", || {
        let pong = server.client().try_call(&["PING"]).ok()?;
        (pong == b"+PONG\r\n").then_some(())
    });
}

fn restart(server: &mut Process, core_count: usize, flags: &[(&str, &str)]) {
    if let Err(output) = server.start_again(core_count, flags) {
        panic!("it does not start again:\n{output}");
    }
    wait_loaded(server);
}

fn info(server: &Process, name: &str) -> String {
    let text = server.client().text("INFO persistence");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Steps of a writer that were sent, and of those the ones that were acknowledged.
#[derive(Default)]
struct Count {
    sent: AtomicU64,
    acked: AtomicU64,
}

/// Three calls a round, of which each must be there if the next is: on a list, on a string, on two
/// strings of other slots at once.
fn step(writer: usize, n: u64) -> Vec<String> {
    let (round, kind) = (n / 3, n % 3);
    let words = match kind {
        0 => format!("RPUSH list:{writer} {round}"),
        1 => format!("SET {{s{writer}}}last {round}"),
        _ if round % 2 == 0 => format!("MSET {{p{writer}}}1 {round} {{q{writer}}}2 {round}"),
        _ => format!("EVENT {{p{writer}}}1 {{q{writer}}}2 {round}"),
    };
    words.split(' ').map(str::to_owned).collect()
}

fn run_step(client: &mut Client, writer: usize, n: u64) -> std::io::Result<bool> {
    let words = step(writer, n);
    if words[0] != "EVENT" {
        let reply = client.try_call(&words)?;
        return Ok(!reply.starts_with(b"-"));
    }
    // The same in a transaction.
    let [_, first, second, round] = &words[..] else { unreachable!("a step has its words") };
    for call in [&["MULTI"][..], &["SET", first, round], &["SET", second, round]] {
        client.send_call(call)?;
    }
    client.send_call(&["EXEC"])?;
    for _ in 0..3 {
        client.read_reply()?;
    }
    Ok(client.read_reply()?.starts_with(b"*2"))
}

fn write_until_gone(server: &Process, writer: usize, count: &Count) {
    let mut client = server.client();
    let begun = count.sent.load(Ordering::Relaxed);
    for n in begun.. {
        count.sent.store(n + 1, Ordering::Relaxed);
        match run_step(&mut client, writer, n) {
            Ok(true) => count.acked.store(n + 1, Ordering::Relaxed),
            Ok(false) => panic!("writer {writer}: step {n} is refused"),
            Err(_) => return,
        }
    }
}

/// Steps that the data tells of. They must be the first ones.
fn steps_found(client: &mut Client, writer: usize) -> u64 {
    let list = client.call(&format!("LRANGE list:{writer} 0 -1"));
    let list = elements(&list).expect("an array");
    let rounds = list.len() as u64;
    for (index, element) in list.iter().enumerate() {
        let text = bulk(element).expect("it has elements");
        assert_eq!(text, index.to_string().as_bytes(), "writer {writer}: a gap in its list");
    }
    let mut get = |key: String| {
        let reply = client.call(&format!("GET {key}"));
        let text = bulk(&reply).map(|text| String::from_utf8_lossy(text).into_owned());
        text.map_or(0, |text| text.parse::<u64>().expect("a number") + 1)
    };
    let second = get(format!("{{s{writer}}}last"));
    let pair = [get(format!("{{p{writer}}}1")), get(format!("{{q{writer}}}2"))];
    assert_eq!(pair[0], pair[1], "writer {writer}: half of a transaction");
    let found = [rounds, second, pair[0]];
    let is_prefix = found[0] >= found[1] && found[1] >= found[2] && found[0] <= found[2] + 1;
    assert!(
        is_prefix,
        "writer {writer}: a later step is there and an earlier one is not: {found:?}"
    );
    found.iter().sum()
}

/// Kills a server under load, again and again, and compares what it has then with what it had said.
fn kill_loop(policy: &str, rewrites: bool, rounds: usize) {
    let _alone = alone();
    let seed = seed_or(0xa0f + rounds as u64);
    eprintln!("SEED={seed:#x}");
    let mut rng = Rng::new(seed);
    let mut server = server(2, policy);
    wait_loaded(&server);
    let counts: Vec<Count> = (0..WRITERS).map(|_| Count::default()).collect();
    for round in 0..rounds {
        let is_over = AtomicBool::new(false);
        let pause = Duration::from_millis(150 + rng.below(400) as u64);
        std::thread::scope(|scope| {
            for (writer, count) in counts.iter().enumerate() {
                let server = &server;
                scope.spawn(move || write_until_gone(server, writer, count));
            }
            if rewrites {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let mut client = server.client();
                    while !is_over.load(Ordering::Relaxed)
                        && client.try_call(&["BGREWRITEAOF"]).is_ok()
                    {
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                });
            }
            let deadline = Instant::now() + pause;
            while Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            is_over.store(true, Ordering::Relaxed);
            let pid = rustix::process::Pid::from_raw(server.pid() as i32).expect("it runs");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                .expect("it can be killed");
        });
        server.kill();
        restart(&mut server, 1 + (round + 1) % 2, &[]);
        let mut client = server.client();
        for (writer, count) in counts.iter().enumerate() {
            let found = steps_found(&mut client, writer);
            let sent = count.sent.load(Ordering::Relaxed);
            let acked = count.acked.load(Ordering::Relaxed);
            assert!(found <= sent, "writer {writer}: {found} of {sent} steps");
            if policy == "always" {
                let output = server.output();
                assert!(
                    found >= acked,
                    "round {round}, writer {writer}: {found} of {acked} kept\n{output}"
                );
            }
            // What was sent and has had no answer may or may not be there: it goes on from there.
            count.sent.store(found, Ordering::Relaxed);
            count.acked.store(found, Ordering::Relaxed);
        }
    }
    assert!(counts.iter().all(|count| count.acked.load(Ordering::Relaxed) > 0), "nothing was done");
}

#[test]
fn killed_server_has_all_that_was_acknowledged_if_it_flushes_always() {
    kill_loop("always", false, 8);
}

#[test]
fn killed_server_has_a_past_of_each_session_if_it_flushes_each_second() {
    kill_loop("everysec", false, 8);
}

#[test]
fn killed_server_has_a_past_of_each_session_if_it_never_flushes() {
    kill_loop("no", false, 4);
}

#[test]
fn killed_server_loses_nothing_while_its_log_is_rewritten() {
    kill_loop("always", true, 10);
}

fn digest(server: &Process) -> String {
    server.client().text("DEBUG DIGEST")
}

/// Random calls of all types.
fn traffic(server: &Process, seed: u64, count: usize) {
    let mut calls = Calls::new(seed);
    let mut client = server.client();
    for _ in 0..count {
        let words = calls.next();
        // Sessions are not what is compared.
        let name = words[0].to_ascii_lowercase();
        if !matches!(name.as_slice(), b"client" | b"hello" | b"quit" | b"reset" | b"auth") {
            client.send_call(&words).expect("the server takes it");
            client.read_reply().expect("it replies");
        }
    }
}

fn rewrite(server: &Process) {
    let before: u64 = info(server, "aof_rewrites").parse().expect("a number");
    let reply = server.client().text("BGREWRITEAOF");
    assert_eq!(reply, "+Background append only file rewriting started\r\n");
    eventually(LIMIT, "the log is rewritten", || {
        let now: u64 = info(server, "aof_rewrites").parse().expect("a number");
        (now > before).then_some(())
    });
}

#[test]
fn log_replayed_on_any_number_of_cores_builds_the_same_data() {
    let _alone = alone();
    let seed = seed_or(0xd1e5);
    eprintln!("SEED={seed:#x}");
    let mut server = server(2, "everysec");
    wait_loaded(&server);
    for round in 0..6 {
        traffic(&server, seed + round, 3000);
        if round % 2 == 1 {
            rewrite(&server);
            traffic(&server, seed + 100 + round, 500);
        }
        let before = digest(&server);
        server.terminate();
        server.wait();
        restart(&mut server, 1 + (round as usize) % 2, &[]);
        assert_eq!(digest(&server), before, "round {round}");
    }
}

#[test]
fn log_turned_on_later_begins_with_what_there_is() {
    let _alone = alone();
    let mut server = Process::cordis(2, &["--appendonly", "no"]);
    traffic(&server, seed_or(0x0ff), 3000);
    let mut client = server.client();
    for n in 0..50 {
        let fields = (n * 400..(n + 1) * 400).map(|n| format!("f{n} v{n}"));
        client.call(&format!("HSET large {}", fields.collect::<Vec<_>>().join(" ")));
    }
    assert_eq!(client.text("CONFIG SET appendonly yes"), "+OK\r\n");
    client.call("SET meanwhile 1");
    eventually(LIMIT, "the log is whole", || (info(&server, "aof_rewrites") == "1").then_some(()));
    client.call("APPEND meanwhile 2");
    let before = digest(&server);
    server.terminate();
    server.wait();
    restart(&mut server, 1, &[("--appendonly", "yes")]);
    assert_eq!(digest(&server), before);
    let mut client = server.client();
    assert_eq!(client.text("CONFIG SET appendonly no"), "+OK\r\n");
    eventually(LIMIT, "the log is off", || (info(&server, "aof_enabled") == "0").then_some(()));
    client.call("SET unlogged 1");
    server.kill();
    restart(&mut server, 2, &[]);
    assert_eq!(digest(&server), before, "what came after it was turned off is gone");
}

/// The files of the log, by name.
fn log_files(server: &Process) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.folder().join("appendonlydir")).expect("there is a log");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    files.sort();
    files
}

#[test]
fn torn_log_is_cut_or_refused_and_a_damaged_one_refused() {
    let _alone = alone();
    let mut server = server(1, "always");
    wait_loaded(&server);
    let mut client = server.client();
    (0..10).for_each(|n| assert_eq!(client.text(&format!("SET k{n} v")), "+OK\r\n"));
    server.kill();
    let [path] = &log_files(&server)[..] else { panic!("one core has one file") };
    let whole = fs::read(path).expect("it can be read");
    let end = whole.iter().rposition(|&byte| byte != 0).expect("it is not empty") + 1;
    fs::write(path, &whole[..end - 1]).expect("it can be written");
    let refused = server.start_again(1, &[("--aof-load-truncated", "no")]);
    let output = refused.err().unwrap_or_else(|| {
        // It may answer -LOADING before it has come to the end.
        server.wait();
        server.output()
    });
    assert!(output.contains("ends too early") && output.contains("aof-load-truncated"), "{output}");
    server.kill();
    restart(&mut server, 1, &[("--aof-load-truncated", "yes")]);
    assert!(server.output().contains("it is cut there"), "{}", server.output());
    assert_eq!(server.client().text("DBSIZE"), ":9\r\n");
    server.kill();
    let path = &log_files(&server)[0];
    let mut damaged = fs::read(path).expect("it can be read");
    damaged[200] ^= 1;
    fs::write(path, &damaged).expect("it can be written");
    let output = server.start_again(1, &[]).err().unwrap_or_else(|| {
        server.wait();
        server.output()
    });
    let name = path.file_name().expect("a file").to_string_lossy();
    assert!(output.contains("is damaged") && output.contains(&*name), "{output}");
    assert!(output.contains("at offset"), "{output}");
}

#[test]
fn info_persistence_names_the_log_as_redis_does() {
    let names = |server: &Process| {
        let text = server.client().text("INFO persistence");
        let names = text.lines().filter_map(|line| line.split_once(':'));
        let names = names.map(|(name, _)| name.to_owned());
        names.filter(|name| name.contains("aof")).collect::<Vec<_>>()
    };
    let redis = Process::redis(&[]);
    let ours = Process::cordis(1, &[]);
    assert_eq!(names(&ours), names(&redis));
    assert_eq!(redis.client().text("CONFIG SET appendonly yes"), "+OK\r\n");
    assert_eq!(ours.client().text("CONFIG SET appendonly yes"), "+OK\r\n");
    eventually(LIMIT, "both are on", || {
        let is_same = names(&ours) == names(&redis) && names(&ours).len() > 15;
        is_same.then_some(())
    });
}

/// A server whose directory is a small disk of its own, in a mount namespace, and the way to that disk
/// from outside.
struct Small {
    server: std::process::Child,
    port: u16,
    disk: PathBuf,
}

impl Small {
    /// Nothing if this process may make no namespaces.
    fn new(policy: &str) -> Option<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let point = std::env::temp_dir().join(format!("cordis-small-{port}"));
        fs::create_dir_all(&point).expect("the folder for temporary files is writable");
        let script = format!(
            "mount -t tmpfs -o size=3m none {point} && exec {server} --port {port} --cores 0 --dir \
             {point} --appendonly yes --appendfsync {policy}",
            point = point.display(),
            server = env!("CARGO_BIN_EXE_cordis-server"),
        );
        let mut command = std::process::Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).stdin(std::process::Stdio::null());
        let server = command.spawn().ok()?;
        let disk = PathBuf::from(format!("/proc/{}/root{}", server.id(), point.display()));
        let mut small = Self { server, port, disk };
        let is_up = common::within(LIMIT, || {
            let pong = Client::connect(port).and_then(|mut client| client.try_call(&["PING"]));
            pong.is_ok_and(|pong| pong == b"+PONG\r\n")
                || small.server.try_wait().is_ok_and(|ended| ended.is_some())
        });
        let is_running = small.server.try_wait().is_ok_and(|ended| ended.is_none());
        (is_up && is_running).then_some(small)
    }

    fn client(&self) -> Client {
        Client::connect(self.port).expect("it listens")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir(std::env::temp_dir().join(format!("cordis-small-{}", self.port)));
    }
}

#[test]
fn full_disk_refuses_writes_and_recovers_by_itself() {
    let _alone = alone();
    let Some(small) = Small::new("everysec") else {
        return eprintln!("no mount namespaces here: not tested");
    };
    let filler = small.disk.join("filler");
    let mut client = small.client();
    assert_eq!(client.text("SET before 1"), "+OK\r\n");
    // Until the disk takes no more.
    let _ = fs::write(&filler, vec![1; 4 << 20]);
    let value = "x".repeat(4000);
    let refusal = "-MISCONF Errors writing to the AOF file: No space left on device\r\n";
    let mut written = 0;
    eventually(LIMIT, "writes are refused", || {
        let reply = client.text(&format!("SET k{written} {value}"));
        written += usize::from(reply == "+OK\r\n");
        assert!(reply == "+OK\r\n" || reply == refusal, "{reply}");
        (reply == refusal).then_some(())
    });
    assert_eq!(client.text("PING"), refusal);
    assert_eq!(client.text("GET before"), "$1\r\n1\r\n");
    assert!(client.text("INFO persistence").contains("aof_last_write_status:err"));
    fs::remove_file(&filler).expect("it is ours");
    eventually(LIMIT, "writes are accepted again", || {
        (client.text("SET after 1") == "+OK\r\n").then_some(())
    });
    assert!(client.text("INFO persistence").contains("aof_last_write_status:ok"));
    let count = client.text("DBSIZE");
    eventually(LIMIT, "all of it is on disk", || {
        client.text("INFO persistence").contains("aof_buffer_length:0\r").then_some(())
    });
    let report = std::process::Command::new(env!("CARGO_BIN_EXE_cordis-server"))
        .arg("--check")
        .arg(&small.disk)
        .output()
        .expect("it can be run");
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    // Both that were there and those that had found no room, once each.
    let want = format!(", {} effects\n", written + 2);
    assert!(report.contains(&want) && report.contains("The log is whole"), "{report} {count}");
}
