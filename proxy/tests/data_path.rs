//! The data path against servers made for the purpose: slots that move under load, backends that send
//! garbage or nothing, the original's migration commands, long replies, calls that are split.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cordis_engine::commands::table::table;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};
use cordis_engine::resp::scan::{Scanned, Scanner};
use cordis_engine::slots::hash::slot_of;
use cordis_engine::slots::map::{
    ClusterMap, MapGroup, MapRange, MapServer, ServerKind, ServerRole, ranges_of,
};
use cordis_engine::sys::socket;
use cordis_proxy::core::{Running, start};
use cordis_proxy::encode;
use cordis_proxy::hub::Hub;
use cordis_proxy::settings::Settings;
use cordis_proxy::shared::Shared;
use cordis_proxy::ways::{Call, Flow, Ways};

/// What a server answers to a call: the connection's number, and the words.
type Answer = Box<dyn Fn(usize, &[Vec<u8>]) -> Reaction + Send + Sync>;

enum Reaction {
    Reply(Vec<u8>),
    /// These bytes, then the end of the connection.
    Last(Vec<u8>),
}

/// Serves `answer` on a port of its own until the process ends.
fn server(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let answer = Arc::clone(&answer);
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || serve(number, stream, &answer));
        }
    });
    addr
}

fn serve(number: usize, mut stream: TcpStream, answer: &Answer) {
    let limits = Limits { word_bytes_max: usize::MAX, authenticated: true };
    let (mut input, mut parser, mut ranges) = (Vec::new(), Parser::default(), Vec::new());
    let mut piece = vec![0; 64 * 1024];
    loop {
        let Ok(len @ 1..) = stream.read(&mut piece) else { return };
        input.extend_from_slice(&piece[..len]);
        let (mut at, mut out) = (0, Vec::new());
        loop {
            ranges.clear();
            let Parsed::Call(next) = parser.next(&input, at, limits, &mut ranges) else { break };
            let words: Vec<Vec<u8>> =
                ranges.iter().map(|r| input[r.start as usize..r.end as usize].to_vec()).collect();
            at = next;
            match greeting(&words).map_or_else(|| answer(number, &words), Reaction::Reply) {
                Reaction::Reply(bytes) => out.extend_from_slice(&bytes),
                Reaction::Last(bytes) => {
                    out.extend_from_slice(&bytes);
                    let _ = stream.write_all(&out);
                    return;
                }
            }
        }
        input.drain(..at);
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// What every server answers to a link's handshake and signs of life.
fn greeting(words: &[Vec<u8>]) -> Option<Vec<u8>> {
    match &words[0].to_ascii_uppercase()[..] {
        b"SELECT" => Some(b"+OK\r\n".to_vec()),
        b"PING" => Some(b"+PONG\r\n".to_vec()),
        b"CORDIS" => Some(b"-ERR unknown command 'CORDIS'\r\n".to_vec()),
        _ => None,
    }
}

/// A small store, shared by the servers of a test.
#[derive(Default)]
struct Store(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl Store {
    fn run(&self, words: &[Vec<u8>]) -> Vec<u8> {
        let mut data = self.0.lock().unwrap();
        let bulk = |value: Option<&Vec<u8>>| match value {
            Some(value) => {
                let mut out = Vec::new();
                encode::bulk(&mut out, value);
                out
            }
            None => b"$-1\r\n".to_vec(),
        };
        match &words[0].to_ascii_uppercase()[..] {
            b"GET" => bulk(data.get(&words[1])),
            b"SET" => {
                data.insert(words[1].clone(), words[2].clone());
                b"+OK\r\n".to_vec()
            }
            b"INCR" => {
                let value = data.entry(words[1].clone()).or_insert_with(|| b"0".to_vec());
                let n: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
                *value = (n + 1).to_string().into_bytes();
                format!(":{}\r\n", n + 1).into_bytes()
            }
            b"MGET" => {
                let mut out = Vec::new();
                encode::array(&mut out, words.len() - 1);
                words[1..].iter().for_each(|key| out.extend(bulk(data.get(key))));
                out
            }
            b"MSET" => {
                for pair in words[1..].chunks(2) {
                    data.insert(pair[0].clone(), pair[1].clone());
                }
                b"+OK\r\n".to_vec()
            }
            b"DEL" => {
                let count = words[1..].iter().filter(|key| data.remove(*key).is_some()).count();
                format!(":{count}\r\n").into_bytes()
            }
            _ => b"-ERR what?\r\n".to_vec(),
        }
    }
}

/// Keys of a call, as far as these tests go.
fn keys(words: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    match &words[0].to_ascii_uppercase()[..] {
        b"MGET" | b"DEL" => words[1..].iter().collect(),
        b"MSET" => words[1..].iter().step_by(2).collect(),
        _ => vec![&words[1]],
    }
}

struct Proxy {
    addr: SocketAddr,
    running: Option<Running>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join().expect("the cores end well");
        }
    }
}

fn map(epoch: u64, kind: ServerKind, groups: &[SocketAddr]) -> ClusterMap {
    let server = |addr: &SocketAddr| MapServer {
        addr: addr.to_string(),
        kind,
        role: ServerRole::Primary,
        datacenter: String::new(),
        replica_group: false,
    };
    let count = groups.len();
    let groups = groups.iter().enumerate();
    ClusterMap {
        product: "test".to_owned(),
        epoch,
        groups: groups
            .map(|(i, a)| MapGroup { id: i as u16 + 1, servers: vec![server(a)] })
            .collect(),
        slots: ranges_of(|slot| MapRange {
            group: (slot.index() * count / 1024) as u16 + 1,
            epoch: 1,
            ..MapRange::offline()
        }),
        lease_ms: 0,
    }
}

fn settings() -> Settings {
    Settings { backend_recv_timeout_ms: 5_000, ..Settings::default() }
}

fn proxy(settings: Settings, map: ClusterMap) -> Proxy {
    // What the proxy logs is shown with a test that fails.
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    map.check().unwrap();
    let (shared, mailboxes) = Shared::new(settings, 1, table().id_count()).unwrap();
    let listener = socket::listen_tcp("127.0.0.1:0".parse().unwrap(), 64).unwrap();
    let addr = socket::local_name(&listener).parse().unwrap();
    let epoch = map.epoch;
    assert!(shared.set_map(Arc::new(map)));
    let mut ways = Ways::new();
    ways.local("echo", echo);
    let running = start(&shared, mailboxes, ways, vec![listener], &[]).unwrap();
    eventually(|| shared.applied_epoch() == epoch);
    Proxy { addr, running: Some(running) }
}

fn echo(hub: &mut Hub, call: &Call<'_>) -> Flow {
    hub.answer(call.session, |reply| reply.bulk(call.args.at(1)));
    Flow::Go
}

fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to pass");
        std::thread::yield_now();
    }
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    fn new(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply; nothing if the connection ends.
    fn reply(&mut self) -> Option<Vec<u8>> {
        let (mut scanner, mut at) = (Scanner::default(), 0);
        let mut piece = vec![0; 256 * 1024];
        loop {
            match scanner.scan(&self.input, at).expect("replies are well formed") {
                Scanned::Done(end) => {
                    let rest = self.input.split_off(end);
                    return Some(std::mem::replace(&mut self.input, rest));
                }
                Scanned::More(end) => at = end,
            }
            match self.stream.read(&mut piece) {
                // A read with a timeout is interrupted by what the kernel does for other threads.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return None,
                Ok(len) => self.input.extend_from_slice(&piece[..len]),
            }
        }
    }

    fn call(&mut self, words: &[&[u8]]) -> String {
        self.send(&encode::to_vec(words));
        let reply = self.reply().expect("a reply");
        String::from_utf8_lossy(&reply).into_owned()
    }
}

/// A key of each half of the slots.
fn key_of(half: usize, name: &str) -> Vec<u8> {
    (0..)
        .map(|n| format!("{name}-{n}").into_bytes())
        .find(|key| slot_of(key).index() / 512 == half)
        .unwrap()
}

#[test]
fn calls_on_two_backends_are_split_and_merged() {
    let stores = [Arc::new(Store::default()), Arc::new(Store::default())];
    let addrs: Vec<SocketAddr> = stores
        .iter()
        .map(|store| {
            let store = Arc::clone(store);
            server(Box::new(move |_, words| Reaction::Reply(store.run(words))))
        })
        .collect();
    let proxy = proxy(settings(), map(1, ServerKind::Redis, &addrs));
    let mut client = Client::new(&proxy);
    let (a, b, c) = (key_of(0, "a"), key_of(1, "b"), key_of(0, "c"));
    let set = client.call(&[b"MSET", &a, b"1", &b, b"2", &c, b"3"]);
    assert_eq!(set, "+OK\r\n");
    assert_eq!(stores[0].0.lock().unwrap().len(), 2);
    assert_eq!(stores[1].0.lock().unwrap().len(), 1);
    let got = client.call(&[b"MGET", &b, b"none", &c, &a]);
    assert_eq!(got, "*4\r\n$1\r\n2\r\n$-1\r\n$1\r\n3\r\n$1\r\n1\r\n");
    assert_eq!(client.call(&[b"DEL", &a, &b, b"none"]), ":2\r\n");
    assert_eq!(client.call(&[b"GET", &c]), "$1\r\n3\r\n");
    let apart = client.call(&[b"RENAME", &a, &b]);
    assert_eq!(apart, "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    // Everything in one pipeline, the proxy's own answers between.
    let mut pipeline = Vec::new();
    for n in 0..200 {
        encode::request(&mut pipeline, &[b"SET", &a, format!("v{n}").as_bytes()]);
        encode::request(&mut pipeline, &[b"ECHO", format!("e{n}").as_bytes()]);
        encode::request(&mut pipeline, &[b"MGET", &a, &b]);
        pipeline.extend_from_slice(b"GET ");
        pipeline.extend_from_slice(&a);
        pipeline.extend_from_slice(b"\r\n");
    }
    client.send(&pipeline);
    for n in 0..200 {
        let (value, echo) = (format!("v{n}"), format!("e{n}"));
        let len = value.len();
        assert_eq!(client.reply().unwrap(), b"+OK\r\n");
        assert_eq!(client.reply().unwrap(), format!("${len}\r\n{echo}\r\n").into_bytes());
        let both = format!("*2\r\n${len}\r\n{value}\r\n$-1\r\n");
        assert_eq!(client.reply().unwrap(), both.into_bytes());
        assert_eq!(client.reply().unwrap(), format!("${len}\r\n{value}\r\n").into_bytes());
    }
}

/// Who serves each slot: a server's index, or that index with `BETWEEN` while it is on its way there.
const BETWEEN: u32 = 1 << 16;

fn owner_answer(
    owners: &[AtomicU32],
    addrs: &[SocketAddr],
    me: u32,
    words: &[Vec<u8>],
) -> Option<Vec<u8>> {
    for key in keys(words) {
        let slot = slot_of(key).index();
        let owner = owners[slot].load(Ordering::SeqCst);
        if owner == me {
            continue;
        }
        let to = owner & !BETWEEN;
        let line = if to == me {
            format!("-TRYAGAIN slot {slot} is being imported\r\n")
        } else {
            format!("-MOVED {slot} {}\r\n", addrs[to as usize])
        };
        return Some(line.into_bytes());
    }
    None
}

#[test]
fn slots_that_move_under_load_refuse_lose_and_reorder_nothing() {
    let store = Arc::new(Store::default());
    let owners: Arc<Vec<AtomicU32>> =
        Arc::new((0..1024).map(|slot| AtomicU32::new(slot / 512)).collect());
    let addrs: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
    // What runs and who owns change under one lock, as a core's turn does it.
    let turn = Arc::new(Mutex::new(()));
    for me in 0..2 {
        let (store, owners) = (Arc::clone(&store), Arc::clone(&owners));
        let (all, turn) = (Arc::clone(&addrs), Arc::clone(&turn));
        let addr = server(Box::new(move |_, words| {
            let addrs = all.lock().unwrap().clone();
            let _turn = turn.lock().unwrap();
            let refused = owner_answer(&owners, &addrs, me, words);
            Reaction::Reply(refused.unwrap_or_else(|| store.run(words)))
        }));
        addrs.lock().unwrap().push(addr);
    }
    let groups = addrs.lock().unwrap().clone();
    let proxy = proxy(settings(), map(1, ServerKind::Cordis, &groups));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut slot = 0usize;
            while !done.load(Ordering::SeqCst) {
                slot = (slot * 5 + 331) % 1024;
                let to = 1 - owners[slot].load(Ordering::SeqCst);
                for state in [to | BETWEEN, to] {
                    let turn = turn.lock().unwrap();
                    owners[slot].store(state, Ordering::SeqCst);
                    drop(turn);
                    std::thread::yield_now();
                }
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let proxy = &proxy;
                scope.spawn(move || increments(proxy, number))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.store(true, Ordering::SeqCst);
    });
    let redirected = proxy.running.as_ref().unwrap().shared().cores[0].stats.redirected.get();
    assert!(redirected > 0, "no slot moved while it was used");
}

/// Counts up on many keys in pipelines, and reads several at once: every reply is foreseeable.
fn increments(proxy: &Proxy, number: usize) {
    let mut client = Client::new(proxy);
    let keys: Vec<Vec<u8>> = (0..40).map(|k| format!("c{number}-k{k}").into_bytes()).collect();
    let mut counts = vec![0u64; keys.len()];
    for round in 0..120 {
        let mut pipeline = Vec::new();
        let mut expected = Vec::new();
        for step in 0..60 {
            let key = (round * 7 + step * 3) % keys.len();
            if step % 10 == 9 {
                let other = (key + 11) % keys.len();
                encode::request(&mut pipeline, &[b"MGET", &keys[key], &keys[other]]);
                let shown = |n: u64| match n {
                    0 => "$-1\r\n".to_owned(),
                    n => format!("${}\r\n{n}\r\n", n.to_string().len()),
                };
                expected.push(format!("*2\r\n{}{}", shown(counts[key]), shown(counts[other])));
            } else {
                counts[key] += 1;
                encode::request(&mut pipeline, &[b"INCR", &keys[key]]);
                expected.push(format!(":{}\r\n", counts[key]));
            }
        }
        client.send(&pipeline);
        for expected in expected {
            let reply = client.reply().expect("a reply");
            assert_eq!(String::from_utf8_lossy(&reply), expected, "client {number} round {round}");
        }
    }
}

#[test]
fn backend_that_breaks_the_rules_hurts_only_its_own_keys() {
    let bad: [(&[u8], &str); 3] = [
        (b"hello\r\n", "-ERR backend conn failure, bad reply type 'h'\r\n"),
        (b"$-7\r\n", "-ERR backend conn failure, bad length in a reply\r\n"),
        (b"", "-ERR backend conn reset\r\n"),
    ];
    let store = Arc::new(Store::default());
    let good = server(Box::new(move |_, words| Reaction::Reply(store.run(words))));
    for (bytes, error) in bad {
        let evil = server(Box::new(move |_, _| Reaction::Last(bytes.to_vec())));
        let proxy = proxy(settings(), map(1, ServerKind::Redis, &[evil, good]));
        let mut client = Client::new(&proxy);
        let (a, b) = (key_of(0, "a"), key_of(1, "b"));
        for _ in 0..3 {
            assert_eq!(client.call(&[b"SET", &b, b"x"]), "+OK\r\n");
            assert_eq!(client.call(&[b"GET", &a]), error);
        }
        let in_part = client.call(&[b"MSET", &a, b"1", &b, b"2"]);
        assert!(in_part.contains("MSET was not applied to 'a-"), "{in_part}");
    }
    // Nobody there at all.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = proxy(settings(), map(1, ServerKind::Redis, &[nobody, good]));
    let reply = Client::new(&proxy).call(&[b"GET", &key_of(0, "a")]);
    assert!(reply.starts_with("-ERR backend conn failure,"), "{reply}");
}

#[test]
fn silent_backend_is_given_up_after_the_timeout() {
    let silent = server(Box::new(|_, _| Reaction::Reply(Vec::new())));
    let store = Arc::new(Store::default());
    let good = server(Box::new(move |_, words| Reaction::Reply(store.run(words))));
    let settings = Settings { backend_recv_timeout_ms: 300, ..settings() };
    let proxy = proxy(settings, map(1, ServerKind::Redis, &[silent, good]));
    let (mut stuck, mut other) = (Client::new(&proxy), Client::new(&proxy));
    stuck.send(&encode::to_vec(&[b"GET", &key_of(0, "a")]));
    // Others are served meanwhile.
    assert_eq!(other.call(&[b"SET", &key_of(1, "b"), b"x"]), "+OK\r\n");
    let reply = stuck.reply().expect("an error");
    assert_eq!(reply, b"-ERR backend conn failure, i/o timeout\r\n");
}

#[test]
fn half_a_reply_ends_the_session_that_got_it() {
    let half = server(Box::new(|_, _| Reaction::Last(b"$100\r\nhalf of it".to_vec())));
    let proxy = proxy(settings(), map(1, ServerKind::Redis, &[half]));
    let mut client = Client::new(&proxy);
    client.send(&encode::to_vec(&[b"GET", b"k"]));
    assert_eq!(client.reply(), None);
    // What came may have gone out already; nothing else has.
    assert!(b"$100\r\nhalf of it".starts_with(&client.input), "{:?}", client.input);
}

#[test]
fn long_values_stream_through_both_ways() {
    let store = Arc::new(Store::default());
    let addr = server(Box::new(move |_, words| Reaction::Reply(store.run(words))));
    let proxy = proxy(settings(), map(1, ServerKind::Redis, &[addr]));
    let mut client = Client::new(&proxy);
    let value: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
    client.send(&encode::to_vec(&[b"SET", b"k", &value]));
    assert_eq!(client.reply().unwrap(), b"+OK\r\n");
    // One who does not read does not hold up another.
    let mut slow = Client::new(&proxy);
    slow.send(&encode::to_vec(&[b"GET", b"k"]));
    for _ in 0..3 {
        client.send(&encode::to_vec(&[b"GET", b"k"]));
        let mut expected = Vec::new();
        encode::bulk(&mut expected, &value);
        assert!(client.reply().unwrap() == expected, "the value came back changed");
    }
    assert_eq!(slow.reply().unwrap().len(), value.len() + 13);
}

#[test]
fn client_that_does_not_speak_the_protocol_is_told_and_closed() {
    let addr = server(Box::new(|_, _| Reaction::Reply(b"+OK\r\n".to_vec())));
    let proxy = proxy(settings(), map(1, ServerKind::Redis, &[addr]));
    for (garbage, answer) in [
        (&b"*1\r\n!x\r\n"[..], &b"-ERR Protocol error: expected '$', got '!'\r\n"[..]),
        (b"*99999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    ] {
        let mut client = Client::new(&proxy);
        client.send(garbage);
        assert_eq!(client.reply().as_deref(), Some(answer));
        assert_eq!(client.reply(), None);
    }
    let mut client = Client::new(&proxy);
    let fence = client.call(&[b"SLOTSMGRT-ASYNC-FENCE"]);
    assert!(fence.starts_with("-ERR command 'slotsmgrt-async-fence' is not allowed"), "{fence}");
    assert!(client.call(&[b"SHUTDOWN"]).starts_with("-ERR command 'shutdown' is not allowed"));
    assert_eq!(client.call(&[b"GET"]), "-ERR wrong number of arguments for 'get' command\r\n");
}

/// A slot that is being moved by the original's commands, from a source that has key `old`.
fn moving_map(source: SocketAddr, target: SocketAddr, method: u8) -> ClusterMap {
    let mut map = map(2, ServerKind::Codis, &[source, target]);
    map.slots = ranges_of(|_| MapRange {
        group: 2,
        epoch: 2,
        migrate_from: 1,
        forward_method: method,
        ..MapRange::offline()
    });
    map
}

#[test]
fn keys_of_a_moving_slot_are_asked_for_as_the_original_does() {
    for method in [0u8, 1] {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let note = |seen: &Mutex<Vec<String>>, words: &[Vec<u8>]| {
            let text: Vec<_> =
                words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            seen.lock().unwrap().push(text.join(" "));
        };
        let (noted, tries) = (Arc::clone(&seen), AtomicU32::new(0));
        let source = server(Box::new(move |_, words| {
            note(&noted, words);
            Reaction::Reply(match (&words[0][..], words.get(1).map(|w| &w[..])) {
                (b"SLOTSMGRTTAGONE", _) => b":1\r\n".to_vec(),
                (b"SLOTSMGRT-EXEC-WRAPPER", Some(b"here")) => b"*2\r\n:2\r\n$3\r\nold\r\n".to_vec(),
                (b"SLOTSMGRT-EXEC-WRAPPER", Some(b"busy"))
                    if tries.fetch_add(1, Ordering::SeqCst) < 3 =>
                {
                    b"*2\r\n:1\r\n-ERR the specified key is being migrated\r\n".to_vec()
                }
                (b"SLOTSMGRT-EXEC-WRAPPER", Some(b"bad")) => b"*2\r\n:-1\r\n-ERR no\r\n".to_vec(),
                _ => b"*2\r\n:0\r\n-ERR the specified key doesn't exist\r\n".to_vec(),
            })
        }));
        let noted = Arc::clone(&seen);
        let target = server(Box::new(move |_, words| {
            note(&noted, words);
            Reaction::Reply(b"$3\r\nnew\r\n".to_vec())
        }));
        let proxy = proxy(settings(), moving_map(source, target, method));
        let mut client = Client::new(&proxy);
        let port = target.port();
        if method == 0 {
            assert_eq!(client.call(&[b"GET", b"here"]), "$3\r\nnew\r\n");
            let expected =
                [format!("SLOTSMGRTTAGONE 127.0.0.1 {port} 3000 here"), "GET here".into()];
            assert_eq!(*seen.lock().unwrap(), expected);
            continue;
        }
        assert_eq!(client.call(&[b"GET", b"here"]), "$3\r\nold\r\n");
        assert_eq!(client.call(&[b"GET", b"gone"]), "$3\r\nnew\r\n");
        assert_eq!(client.call(&[b"SET", b"busy", b"1"]), "$3\r\nnew\r\n");
        let bad = client.call(&[b"GET", b"bad"]);
        assert!(bad.starts_with("-ERR handle request, bad slotsmgrt-exec-wrapper resp:"), "{bad}");
        let wrapped = "SLOTSMGRT-EXEC-WRAPPER";
        let mut expected = vec![
            format!("{wrapped} here GET here"),
            format!("{wrapped} gone GET gone"),
            "GET gone".to_owned(),
        ];
        expected.extend(vec![format!("{wrapped} busy SET busy 1"); 4]);
        expected.push("SET busy 1".to_owned());
        expected.push(format!("{wrapped} bad GET bad"));
        assert_eq!(*seen.lock().unwrap(), expected);
        // Split per key: each has to be asked for.
        seen.lock().unwrap().clear();
        assert!(
            client.call(&[b"MGET", b"here", b"x"]).starts_with("-ERR handle response, bad MGET")
        );
        assert!(seen.lock().unwrap().contains(&format!("{wrapped} x MGET x")));
    }
}

#[test]
fn locked_slot_waits_and_is_let_go_by_the_next_map() {
    let store = Arc::new(Store::default());
    let addr = server(Box::new(move |_, words| Reaction::Reply(store.run(words))));
    let locked = |epoch, locked| {
        let mut map = map(epoch, ServerKind::Codis, &[addr]);
        map.slots = ranges_of(|_| MapRange { group: 1, epoch: 1, locked, ..MapRange::offline() });
        map
    };
    let proxy = proxy(settings(), locked(1, true));
    let shared = Arc::clone(proxy.running.as_ref().unwrap().shared());
    let mut client = Client::new(&proxy);
    client.send(&encode::to_vec(&[b"SET", b"k", b"v"]));
    eventually(|| shared.cores[0].stats.held.get() == 1);
    assert!(shared.set_map(Arc::new(locked(2, false))));
    assert_eq!(client.reply().unwrap(), b"+OK\r\n");
    assert!(!shared.set_map(Arc::new(locked(1, false))), "an older map is refused");
    eventually(|| shared.applied_epoch() == 2);
}
