//! The control process over real sockets: the admin port as `redis-cli` sees it, real connections to
//! a scripted server and a scripted proxy, and a store that survives a kill.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cordis_control::run::{Options, run_until};
use cordis_engine::resp::reply::Protocol;
use cordis_engine::resp::value::{Value, ValueDecoder, encode_call};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client of an admin port.
struct Client {
    stream: TcpStream,
    decoder: ValueDecoder,
}

impl Client {
    fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("somebody listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        Self { stream, decoder: ValueDecoder::default() }
    }

    fn read(&mut self) -> Value {
        let mut piece = [0; 4096];
        loop {
            if let Some(value) = self.decoder.next_value().expect("replies are values") {
                return value;
            }
            let count = self.stream.read(&mut piece).expect("a reply comes in time");
            assert!(count > 0, "the connection was closed");
            self.decoder.extend(&piece[..count]);
        }
    }

    fn call(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        let mut bytes = Vec::new();
        encode_call(&words, &mut bytes);
        self.stream.write_all(&bytes).expect("somebody reads");
        self.read()
    }

    fn ok(&mut self, line: &str) {
        assert_eq!(self.call(line), Value::Simple("OK".into()), "{line}");
    }

    /// Calls until the reply is as hoped for.
    fn until(&mut self, line: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let reply = self.call(line);
            if is_it(&reply) {
                return reply;
            }
            assert!(Instant::now() < end, "{line}: {reply:?}");
        }
    }
}

/// A peer that answers calls by a function of their words.
struct Peer {
    addr: SocketAddr,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    fn new(answer: impl Fn(&[String]) -> Value + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it listens");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (Arc::clone(&calls), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &noted, &*answer));
            }
        });
        Self { addr, calls }
    }

    fn was_asked(&self, call: &str) -> bool {
        self.calls.lock().expect("nobody panics with it").iter().any(|c| c.starts_with(call))
    }
}

fn serve(mut stream: TcpStream, noted: &Mutex<Vec<String>>, answer: &dyn Fn(&[String]) -> Value) {
    let mut decoder = ValueDecoder::default();
    let mut piece = [0; 65536];
    loop {
        while let Ok(Some(call)) = decoder.next_value() {
            let words = call.as_array().unwrap_or_default().iter();
            let words: Vec<String> = words.filter_map(|w| w.as_text().map(str::to_owned)).collect();
            noted.lock().expect("nobody panics with it").push(words.join(" "));
            let mut bytes = Vec::new();
            answer(&words).encode(Protocol::Resp2, &mut bytes);
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => decoder.extend(&piece[..count]),
            _ => return,
        }
    }
}

fn map(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter().map(|(name, value)| (Value::text(*name), Value::text(*value)));
    Value::Map(pairs.collect())
}

/// A Cordis server that agrees to everything, and moves whatever it is told at once.
fn cordis_server(shared: &Arc<Mutex<HashMap<String, String>>>, name: &str) -> Peer {
    let (shared, name) = (Arc::clone(shared), name.to_owned());
    Peer::new(move |words| {
        let mut shared = shared.lock().expect("nobody panics with it");
        let product = shared.get(&format!("{name} product")).cloned().unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["CORDIS", "HELLO", ..] => map(&[
                ("version", "1"),
                ("run_id", &name),
                ("cores", "1"),
                ("product", &product),
                ("group", "0"),
                ("epoch", "0"),
            ]),
            ["INFO", ..] => Value::text("# Server\r\nrun_id:x\r\nused_memory:1000\r\n"),
            ["SLOTSINFO"] | ["CORDIS", "SLOTS"] => Value::Array(Vec::new()),
            ["CORDIS", "JOIN", product, ..] => {
                shared.insert(format!("{name} product"), (*product).to_owned());
                Value::simple("OK")
            }
            ["CORDIS", "MAP", "SET", json] => {
                let json: serde_json::Value = serde_json::from_str(json).expect("a map is JSON");
                Value::Int(json["epoch"].as_i64().expect("a map has an epoch"))
            }
            ["CORDIS", "MOVE", id, _, _, slots, ..] => {
                shared.insert(format!("{name} move"), format!("{id} {slots}"));
                Value::simple("OK")
            }
            ["CORDIS", "CANCEL", _] => {
                shared.remove(&format!("{name} move"));
                Value::simple("OK")
            }
            ["CORDIS", "MOVES"] => match shared.get(&format!("{name} move")) {
                None => Value::Array(Vec::new()),
                Some(done) => {
                    let (id, slots) = done.split_once(' ').expect("two words");
                    Value::Array(vec![map(&[
                        ("id", id),
                        ("role", "source"),
                        ("peer", "x"),
                        ("slots", "512"),
                        ("done", "512"),
                        ("failed", "0"),
                        ("keys", "5"),
                        ("bytes", "9"),
                        ("done_slots", slots),
                        ("error", ""),
                        ("pause_max_us", "100"),
                    ])])
                }
            },
            _ => Value::simple("OK"),
        }
    })
}

fn proxy() -> Peer {
    Peer::new(|words| match words[0].as_str() {
        "MODEL" => map(&[("token", "abc"), ("proxy_addr", "127.0.0.1:19000"), ("product", "")]),
        "LEASE" => Value::Int(5),
        "MAP" => {
            let json: serde_json::Value = serde_json::from_str(&words[2]).expect("a map is JSON");
            Value::Int(json["epoch"].as_i64().expect("a map has an epoch"))
        }
        _ => Value::simple("OK"),
    })
}

/// A control process on a thread.
struct Control {
    addr: SocketAddr,
    thread: JoinHandle<Result<(), String>>,
}

fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Ordering: only that numbers differ.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = std::process::id();
    let path = std::env::temp_dir().join(format!("cordis-control-{name}-{id}-{count}"));
    drop(std::fs::remove_dir_all(&path));
    path
}

fn start(folder: &std::path::Path, secret: &str) -> Control {
    let options = Options {
        admin_addr: "127.0.0.1:0".into(),
        store: format!("file:{}", folder.display()),
        product_name: "demo".into(),
        admin_secret: secret.into(),
        ..Options::default()
    };
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        run_until(options, move |addr| sender.send(addr).expect("the test waits"))
    });
    let addr = receiver.recv_timeout(DEADLINE).expect("control comes up");
    Control { addr, thread }
}

impl Control {
    fn stop(self) {
        Client::new(self.addr).ok("SHUTDOWN");
        self.thread.join().expect("it does not panic").expect("it ends well");
    }
}

#[test]
fn cluster_is_built_moved_and_found_again_after_a_restart() {
    let folder = folder("whole");
    let shared = Arc::new(Mutex::new(HashMap::new()));
    let (one, two) = (cordis_server(&shared, "one"), cordis_server(&shared, "two"));
    let proxy = proxy();
    let control = start(&folder, "");
    let mut client = Client::new(control.addr);
    client.ok("GROUP ADD 1");
    client.ok("GROUP ADD 2");
    client.ok(&format!("SERVER ADD 1 {}", one.addr));
    client.ok(&format!("SERVER ADD 2 {}", two.addr));
    let twice = client.call(&format!("SERVER ADD 2 {}", two.addr));
    assert_eq!(twice, Value::Error(format!("ERR server-[{}] already exists", two.addr)));
    client.ok("SLOTS ASSIGN 0-1023 TO 1");
    let added = client.call(&format!("PROXY ADD {}", proxy.addr));
    assert_eq!(added.field("token").and_then(Value::as_text), Some("abc"));
    let again = client.call(&format!("PROXY ADD {}", proxy.addr));
    assert_eq!(again.field("id"), added.field("id"), "a proxy may announce itself twice");

    let begun = client.call("SLOTS MOVE 0-511 TO 2");
    let id = begun.field("id").and_then(Value::as_int).expect("an operation");
    client.until(&format!("MOVE STATUS {id}"), |rows| {
        let row = &rows.as_array().expect("a table")[0];
        row.field("state").and_then(Value::as_text) == Some("finished")
    });
    assert!(two.was_asked("CORDIS EXPECT ") && one.was_asked("CORDIS MOVE "));
    client.until("STATUS", |status| {
        status.field("state").and_then(Value::as_text) == Some("ok")
            && status.field("proxies_up").and_then(Value::as_int) == Some(1)
    });
    assert!(proxy.was_asked("MAP SET "));
    let slots = client.call("SLOTS LIST");
    client.ok("CONFIG SET migration-rate-bytes 1000");
    control.stop();

    let control = start(&folder, "");
    let mut client = Client::new(control.addr);
    assert_eq!(client.call("SLOTS LIST"), slots);
    let rate = client.call("CONFIG GET migration-rate*");
    assert_eq!(rate.field("migration-rate-bytes").and_then(Value::as_int), Some(1000));
    let events = client.call("EVENTS COUNT 3");
    assert_eq!(events.as_array().map(<[Value]>::len), Some(3));
    let top = client.call("TOP");
    assert_eq!(top.as_array().map(<[Value]>::len), Some(3));
    control.stop();
    std::fs::remove_dir_all(folder).expect("it is ours");
}

#[test]
fn admin_port_lets_nobody_in_without_the_secret() {
    let folder = folder("secret");
    let control = start(&folder, "hush");
    let mut client = Client::new(control.addr);
    let refused = Value::Error("NOAUTH Authentication required.".into());
    assert_eq!(client.call("STATUS"), refused);
    assert!(matches!(client.call("AUTH wrong"), Value::Error(_)));
    client.ok("AUTH hush");
    assert_eq!(client.call("PING"), Value::Simple("PONG".into()));
    let hello = client.call("HELLO 3");
    assert_eq!(hello.field("proto"), Some(&Value::Int(3)));
    assert!(matches!(client.call("STATUS"), Value::Map(_)));
    // Three wrong secrets, and it is over.
    let mut guesser = Client::new(control.addr);
    (0..3).for_each(|_| drop(guesser.call("AUTH guess")));
    assert_eq!(guesser.stream.read(&mut [0; 16]).ok(), Some(0));
    client.ok("SHUTDOWN");
    control.thread.join().expect("it does not panic").expect("it ends well");
    std::fs::remove_dir_all(folder).expect("it is ours");
}

#[test]
fn admin_port_survives_hostile_clients() {
    let folder = folder("hostile");
    let control = start(&folder, "");
    let hostile: [&[u8]; 6] = [
        b"*1000000000\r\n$4\r\nPING\r\n",
        b"*1\r\n$999999999999\r\n",
        b"*-7\r\n*3\r\n$-4\r\n",
        b"\xff\xfe\x00\r\n\r\n",
        b"*2\r\n$6\r\nGROUP\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for bytes in hostile {
        let mut client = Client::new(control.addr);
        client.stream.write_all(bytes).expect("it is read");
    }
    // Inline calls work, pipelined ones too.
    let mut client = Client::new(control.addr);
    client.stream.write_all(b"PING\r\nNO SUCH\r\nPING\r\n").expect("it is read");
    assert_eq!(client.read(), Value::Simple("PONG".into()));
    assert!(matches!(client.read(), Value::Error(_)));
    assert_eq!(client.read(), Value::Simple("PONG".into()));
    let help = client.call("HELP SLOTS");
    assert_eq!(help.as_array().map(<[Value]>::len), Some(7));
    assert_eq!(client.call("COMMAND HELP SLOTS"), help);
    control.stop();
    std::fs::remove_dir_all(folder).expect("it is ours");
}

#[test]
fn control_without_a_secret_listens_on_loopback_only() {
    let folder = folder("open");
    let options = Options {
        admin_addr: "0.0.0.0:0".into(),
        store: format!("file:{}", folder.display()),
        ..Options::default()
    };
    let why = run_until(options, |_| {}).expect_err("it must not start");
    assert!(why.contains("secret"), "{why}");
    let options = Options { store: "etcd:host".into(), ..Options::default() };
    assert!(run_until(options, |_| {}).is_err());
    drop(std::fs::remove_dir_all(folder));
}
