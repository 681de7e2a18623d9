//! The admin port over a real socket, with a proxy that only remembers what it was told.

use std::io::{Read, Write};
use std::sync::atomic::AtomicU64;

use cordis_engine::config::Config;
use cordis_engine::slots::map::ClusterMap;
use cordis_engine::units::Ms;

use super::*;
use crate::config::Values;
use crate::config::spec::find;

#[derive(Default)]
struct Told {
    lease: AtomicU64,
    adopted: AtomicU64,
    /// It holds on to older routes for ever, and time flies.
    is_stuck: AtomicBool,
    reads: AtomicU64,
    level: Mutex<String>,
    stopped: AtomicBool,
}

struct TestHost {
    node: &'static Node,
    told: Arc<Told>,
}

impl Host for TestHost {
    fn clock_ms(&self) -> u64 {
        let seconds = match self.told.is_stuck.load(Ordering::Relaxed) {
            true => self.told.reads.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        1000 + 1000 * seconds
    }
    fn lease_until(&self, clock_ms: u64) {
        self.told.lease.store(clock_ms, Ordering::Relaxed);
    }
    fn lease_ends_ms(&self) -> u64 {
        self.told.lease.load(Ordering::Relaxed)
    }
    fn adopted_epoch(&self) -> u64 {
        self.told.adopted.load(Ordering::Relaxed)
    }
    fn node(&self) -> &'static Node {
        self.node
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
    fn reset_stats(&self) {}
    fn info(&self, sections: Vec<String>) -> String {
        format!("# Proxy\r\nasked:{}\r\n", sections.join("+"))
    }
    fn set_log_level(&self, word: &str) {
        word.clone_into(&mut self.told.level.lock().expect("no test panics with it"));
    }
    fn stop(&self) {
        self.told.stopped.store(true, Ordering::Relaxed);
    }
}

/// A port, what its proxy was told, and the folder of its map.
struct Bench {
    addr: SocketAddr,
    told: Arc<Told>,
    dir: std::path::PathBuf,
    _port: AdminPort,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn bench(name: &str, secret: &str) -> Bench {
    let dir = std::env::temp_dir().join(format!("cordis-admin-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory is writable");
    let mut values = Values::default();
    values.set(find("admin_auth").expect("known"), secret).expect("any text");
    let settings = Arc::new(Settings::of(values));
    let told = Arc::new(Told::default());
    let adopt = told.clone();
    let on_change = Box::new(move |map: &Arc<ClusterMap>| {
        if !adopt.is_stuck.load(Ordering::Relaxed) {
            adopt.adopted.store(map.epoch, Ordering::Relaxed);
        }
    });
    let maps = MapStore::open(&dir, "codis-demo", on_change).expect("there is no file");
    let ids = cordis_engine::commands::table::table().id_count();
    let node = Node::new(Config::default(), 1, ids, Ms(1), "0".repeat(40));
    let host = TestHost { node: Box::leak(Box::new(node)), told: told.clone() };
    let admin = Admin {
        settings,
        maps: Arc::new(maps),
        host: Box::new(host),
        token: "token".to_owned(),
        proxy_addr: "127.0.0.1:19000".to_owned(),
        admin_addr: "127.0.0.1:11080".to_owned(),
        log_level: Mutex::new("info".to_owned()),
        rate: Mutex::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let addr = listener.local_addr().expect("it is bound");
    let port = AdminPort::start(listener, Arc::new(admin)).expect("threads can be started");
    Bench { addr, told, dir, _port: port }
}

impl Bench {
    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout is accepted");
        stream
    }

    /// Everything that is answered to `input` and a QUIT.
    fn talk(&self, input: &[u8]) -> String {
        let mut stream = self.open();
        stream.write_all(input).expect("it listens");
        // It may have closed before: on an error, or after too many guesses.
        let _ = stream.write_all(b"QUIT\r\n");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }
}

#[test]
fn every_command_is_documented_and_found() {
    let bench = bench("help", "");
    let help = bench.talk(b"HELP\r\n");
    for command in COMMANDS {
        assert!(help.contains(&format!("+{}", command.name)), "{}", command.name);
        assert!(command.doc.len() > 5);
        let args = cordis_engine::commands::args::OwnedArgs::of(
            &command.name.split(' ').map(str::as_bytes).collect::<Vec<_>>(),
        );
        match commands::find(&args.args()) {
            Ok(found) => assert_eq!(found.name, command.name),
            Err(error) => assert!(error.text().contains(command.usage), "{}", command.name),
        }
    }
}

#[test]
fn calls_are_answered_in_both_protocols() {
    let bench = bench("calls", "");
    assert_eq!(bench.talk(b"PING\r\nping x\r\n"), "+PONG\r\n$1\r\nx\r\n+OK\r\n");
    assert!(bench.talk(b"MODEL\r\n").starts_with("*24\r\n$5\r\ntoken\r\n$5\r\ntoken\r\n"));
    assert!(bench.talk(b"HELLO 3\r\nMODEL\r\n").contains("%12\r\n$5\r\ntoken"));
    assert!(bench.talk(b"HELLO 3\r\nINFO proxy all\r\n").contains("asked:proxy+all"));
    assert!(bench.talk(b"HELLO 4\r\n").starts_with("-NOPROTO"));
    assert!(bench.talk(b"STATS\r\n").contains("backends"));
    assert_eq!(bench.talk(b"STATS RESET\r\n"), "+OK\r\n+OK\r\n");
    assert!(bench.talk(b"CONFIG GET proxy_max*\r\n").contains("$4\r\n1000\r\n"));
    assert_eq!(bench.talk(b"SLOWLOG LEN\r\n"), ":0\r\n+OK\r\n");
    assert!(bench.talk(b"nonsense\r\n").starts_with("-ERR unknown admin command 'nonsense'"));
    assert!(bench.talk(b"MAP SET\r\n").starts_with("-ERR usage: MAP SET json"));
}

#[test]
fn newer_map_is_taken_and_older_refused() {
    let bench = bench("map", "");
    let set = |epoch| {
        let map = ClusterMap { epoch, ..ClusterMap::offline("codis-demo") }.to_json();
        let call = format!("*3\r\n$3\r\nMAP\r\n$3\r\nSET\r\n${}\r\n{map}\r\n", map.len());
        bench.talk(call.as_bytes())
    };
    assert_eq!(set(7), ":7\r\n+OK\r\n");
    assert_eq!(set(6), "-STALE map epoch is 7\r\n+OK\r\n");
    assert!(bench.talk(b"MAP GET\r\n").contains("\"epoch\":7"));
    assert!(
        bench.talk(b"SLOTS\r\n").starts_with("*1\r\n*14\r\n$4\r\nfrom\r\n:0\r\n$2\r\nto\r\n:1023")
    );
}

#[test]
fn map_that_no_core_adopts_is_not_confirmed() {
    let bench = bench("adopt", "");
    bench.told.is_stuck.store(true, Ordering::Relaxed);
    let map = ClusterMap { epoch: 3, ..ClusterMap::offline("codis-demo") }.to_json();
    let call = format!("*3\r\n$3\r\nMAP\r\n$3\r\nSET\r\n${}\r\n{map}\r\n", map.len());
    assert!(bench.talk(call.as_bytes()).starts_with("-BUSY map 3 is kept"));
    bench.told.adopted.store(3, Ordering::Relaxed);
    assert_eq!(bench.talk(call.as_bytes()), ":3\r\n+OK\r\n", "and set again it is confirmed");
}

#[test]
fn lease_runs_from_the_clock_that_was_told() {
    let bench = bench("lease", "");
    assert_eq!(bench.talk(b"LEASE\r\n"), ":1000\r\n+OK\r\n");
    assert_eq!(bench.talk(b"LEASE 500 900\r\n"), ":1000\r\n+OK\r\n");
    assert_eq!(bench.told.lease.load(Ordering::Relaxed), 1400);
    assert!(bench.talk(b"LEASE 500 1001\r\n").starts_with("-ERR the lease begins in the future"));
    assert!(bench.talk(b"LEASE 500\r\n").starts_with("-ERR usage"));
    assert!(bench.talk(b"LEASE -1 5\r\n").starts_with("-ERR"));
}

#[test]
fn secret_is_needed_and_guesses_are_limited() {
    let bench = bench("auth", "s3cret");
    assert!(bench.talk(b"MODEL\r\n").starts_with("-NOAUTH"));
    assert!(bench.talk(b"AUTH wrong\r\nMODEL\r\n").starts_with("-WRONGPASS"));
    assert!(bench.talk(b"AUTH s3cret\r\nMODEL\r\n").starts_with("+OK\r\n*24"));
    assert!(bench.talk(b"HELLO 3 AUTH any s3cret\r\nMODEL\r\n").contains("%12"));
    let guesses = bench.talk(&b"AUTH wrong\r\n".repeat(10));
    assert_eq!(guesses.matches("-WRONGPASS").count(), 5, "{guesses}");
    assert!(!guesses.contains("+OK"));
    let config = bench.talk(b"AUTH s3cret\r\nCONFIG GET admin_auth\r\n");
    assert!(config.contains("(hidden)") && !config.contains("s3cret"));
}

#[test]
fn level_and_end_reach_the_process() {
    let bench = bench("level", "");
    assert_eq!(bench.talk(b"LOGLEVEL\r\n"), "$4\r\ninfo\r\n+OK\r\n");
    assert_eq!(bench.talk(b"LOGLEVEL DEBUG\r\nLOGLEVEL\r\n"), "+OK\r\n$5\r\ndebug\r\n+OK\r\n");
    assert_eq!(*bench.told.level.lock().expect("no test panics with it"), "debug");
    assert!(bench.talk(b"LOGLEVEL loud\r\n").starts_with("-ERR the level must be one of"));
    assert_eq!(bench.talk(b"SHUTDOWN\r\n"), "+OK\r\n");
    assert!(bench.told.stopped.load(Ordering::Relaxed));
}

#[test]
fn garbage_and_oversize_end_the_connection_with_a_reason() {
    let bench = bench("garbage", "s");
    assert!(bench.talk(b"*x\r\n").starts_with("-ERR Protocol error"));
    assert!(bench.talk(b"*2\r\n$4\r\nAUTH\r\n$99999\r\n").contains("unauthenticated bulk length"));
    assert!(bench.talk(b"*99\r\n").contains("unauthenticated multibulk length"));
    assert!(bench.talk(&vec![b'x'; 100_000]).contains("too big inline request"));
    let mut held: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| bench.open()).collect();
    for stream in &mut held {
        stream.write_all(b"PING\r\n").expect("it listens");
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).expect("it answers");
    }
    assert!(bench.talk(b"").contains("max number of admin connections"));
}

#[test]
fn rate_is_that_between_two_looks() {
    let mut rate = Rate::default();
    assert_eq!(rate.look(10_000, 0), 0);
    assert_eq!(rate.look(12_000, 400), 200);
    assert_eq!(rate.look(12_100, 9_999), 200, "too soon");
    assert_eq!(rate.look(13_000, 50), 50, "after a reset");
}
