//! The original's migration dialect over real sockets: the bytes that were recorded from the original,
//! both ways, against a peer that follows a script; targets that break; and two of our servers that
//! move everything while clients write through the wrapper.
#![allow(clippy::disallowed_methods, reason = "tests of processes live in real time")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::client::Client;
use common::eventually;
use common::process::Process;
use common::shared::reply::frame_len;
use common::shared::words::encoded;

const LIMIT: Duration = Duration::from_secs(20);

/// A target that does what a test says.
struct Peer {
    listener: TcpListener,
    port: u16,
}

/// A connection that a source has made.
struct Link {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        Self { listener, port }
    }

    fn accept(&self) -> Link {
        self.listener.set_nonblocking(true).expect("a socket can be made nonblocking");
        let stream = eventually(LIMIT, "the source connects", || {
            self.listener.accept().ok().map(|(stream, _)| stream)
        });
        stream.set_nonblocking(false).expect("a socket can be made blocking");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout is accepted");
        Link { stream, received: Vec::new() }
    }
}

impl Link {
    /// Reads one message: its bytes.
    fn read(&mut self) -> Vec<u8> {
        loop {
            if let Some(len) = frame_len(&self.received).expect("a source writes commands") {
                return self.received.drain(..len).collect();
            }
            let mut chunk = [0; 64 * 1024];
            let len = self.stream.read(&mut chunk).expect("the source writes");
            assert!(len > 0, "the source hung up");
            self.received.extend_from_slice(&chunk[..len]);
        }
    }

    /// Reads one message: its words behind the command's name, joined.
    fn words(&mut self) -> String {
        let words = split(&self.read());
        String::from_utf8_lossy(&words[1..].join(&b' ')).into_owned()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the source reads");
    }

    fn ack(&mut self, text: &str) {
        self.write(&ack(0, text));
    }

    /// Whether the source closes, and what it wrote before.
    fn rest(mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.received);
        // A reset is an end as well.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}

fn ack(errno: i64, text: &str) -> Vec<u8> {
    encoded(&["SLOTSRESTORE-ASYNC-ACK", &errno.to_string(), text])
}

/// The words of a command.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut at = bytes.iter().position(|&b| b == b'\n').expect("a head") + 1;
    while at < bytes.len() {
        let end = at + bytes[at..].iter().position(|&b| b == b'\n').expect("a head");
        let len = std::str::from_utf8(&bytes[at + 1..end - 1]).expect("digits");
        let len: usize = len.parse().expect("a length");
        words.push(bytes[end + 1..end + 1 + len].to_vec());
        at = end + 1 + len + 2;
    }
    words
}

fn send(client: &mut Client, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    client.send_call(&words).expect("the server reads");
}

fn reply(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.read_reply().expect("a reply")).into_owned()
}

/// Waits until the batch of database 0 is in flight with so many answers due.
fn wait_due(client: &mut Client, due: usize) {
    let want = format!("sending_msgs\r\n${}\r\n{due}\r\n", due.to_string().len());
    eventually(LIMIT, "the batch is in flight", || {
        client.text("SLOTSMGRT-ASYNC-STATUS").contains(&want).then_some(())
    });
}

// ---- as the source ----

#[test]
fn async_source_writes_the_recorded_bytes_and_counts_keys_that_were_there() {
    let (source, peer) = (Process::cordis(2, &[]), Peer::new());
    let mut client = source.client();
    for line in ["SET k1 hello", "SET n1 12345 PX 100000", "RPUSH l1 1 two 3", "HSET h1 f v"] {
        client.call(line);
    }
    let port = peer.port;
    send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 5000 0 0 k1 n1 l1 h1 nokey"));
    let mut link = peer.accept();
    let list = b"\x0e\x01\x14\x14\0\0\0\x11\0\0\0\x03\0\0\xf2\x02\x03two\x05\xf4\xff\
        \x07\0\xa4\x0c\xdb\xc5\xfc\x3e\x0b\xe0";
    let hash = b"\x0d\x11\x11\0\0\0\x0d\0\0\0\x02\0\0\x01f\x03\x01v\xff\x07\0\xff\x27\x47\xb3\xe7\x4e\x9d\xd3";
    let name: &[u8] = b"SLOTSRESTORE-ASYNC";
    let want: [&[&[u8]]; 9] = [
        &[b"SLOTSRESTORE-ASYNC-SELECT", b"0"],
        &[name, b"delete", b"k1"],
        &[name, b"string", b"k1", b"0", b"hello"],
        &[name, b"delete", b"n1"],
        &[name, b"string", b"n1", b"TTL", b"12345"],
        &[name, b"delete", b"l1"],
        &[name, b"object", b"l1", b"0", list],
        &[name, b"delete", b"h1"],
        &[name, b"object", b"h1", b"0", hash],
    ];
    for (words, text) in want.iter().zip(["OK", "0", "1", "0", "1", "0", "1", "0", "1"]) {
        let mut got = split(&link.read());
        if words.get(3) == Some(&&b"TTL"[..]) {
            let ttl: i64 = String::from_utf8_lossy(&got[3]).parse().expect("a number");
            assert!((90_000..=100_000).contains(&ttl), "{ttl}");
            got[3] = b"TTL".to_vec();
        }
        assert_eq!(got, *words);
        link.ack(text);
    }
    assert_eq!(reply(&mut client), ":4\r\n");
    assert_eq!(client.text("EXISTS k1 n1 l1 h1"), ":0\r\n");
}

#[test]
fn chunks_go_on_the_same_connection_as_recorded() {
    let (source, peer) = (Process::cordis(1, &[]), Peer::new());
    let mut client = source.client();
    for name in ["zset-max-listpack-entries", "hash-max-listpack-entries"] {
        client.call(&format!("CONFIG SET {name} 0"));
    }
    let port = peer.port;
    client.call("SET first v");
    send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 1000 2 0 first"));
    let mut link = peer.accept();
    for _ in 0..3 {
        link.read();
        link.ack("1");
    }
    assert_eq!(reply(&mut client), ":1\r\n");
    for line in ["RPUSH L e0 e1 e2 e3 e4", "ZADD Z 0.5 m0 1.5 m1 2.5 m2", "HSET H f0 v0 f1 v1"] {
        client.call(line);
    }
    client.call("PEXPIRE Z 500000");
    send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 1000 2 0 L Z H"));
    let mut got: Vec<String> = (0..16)
        .map(|_| {
            let words = link.words();
            link.ack("1");
            words
        })
        .collect();
    assert_eq!(reply(&mut client), ":3\r\n");
    assert_eq!(
        got[..5],
        [
            "delete L",
            "list L 3000 5 e0 e1",
            "list L 3000 5 e2 e3",
            "list L 3000 5 e4",
            "expire L 0"
        ]
    );
    let score = |x: f64| String::from_utf8_lossy(&x.to_le_bytes()).into_owned();
    for (at, (member, x)) in [("m2", 2.5), ("m1", 1.5), ("m0", 0.5)].into_iter().enumerate() {
        assert_eq!(got[6 + at], format!("zset Z 3000 3 {member} {}", score(x)));
    }
    assert_eq!((&*got[5], &*got[9]), ("delete Z", "zset Z 3000 3"));
    let ttl: i64 = got[10].strip_prefix("expire Z ").expect("its deadline").parse().expect("ms");
    assert!((490_000..=500_000).contains(&ttl));
    got[12..14].sort();
    assert_eq!(
        got[11..],
        ["delete H", "hash H 3000 2 f0 v0", "hash H 3000 2 f1 v1", "hash H 3000 2", "expire H 0"]
    );
}

#[test]
fn sync_source_writes_the_recorded_bytes_and_deletes_after_ok() {
    let (source, peer) = (Process::cordis(2, &[]), Peer::new());
    let mut client = source.client();
    let port = peer.port;
    client.call("SET w 2");
    send(&mut client, &format!("SLOTSMGRTONE 127.0.0.1 {port} 5000 w"));
    let mut link = peer.accept();
    assert_eq!(link.read(), b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n");
    let restore = b"*4\r\n$12\r\nSLOTSRESTORE\r\n$1\r\nw\r\n$1\r\n0\r\n$13\r\n\
        \x00\xc0\x02\x07\x00\x70\x90\x65\x4f\xf0\x1e\xab\xd1\r\n";
    assert_eq!(link.read(), restore);
    let mut other = source.client();
    assert_eq!(other.text("GET w"), "$1\r\n2\r\n", "it is here until the target has it");
    link.write(b"+OK\r\n+OK\r\n");
    assert_eq!(reply(&mut client), ":1\r\n");
    assert_eq!(other.text("EXISTS w"), ":0\r\n");
    assert_eq!(client.text(&format!("SLOTSMGRTONE 127.0.0.1 {port} 5000 w")), ":0\r\n");
    // A tag goes in one command, on the same connection, without another SELECT.
    for line in ["SET {t}a 1", "SET {t}b 2", "SET {u}c 3"] {
        client.call(line);
    }
    send(&mut client, &format!("SLOTSMGRTTAGONE 127.0.0.1 {port} 5000 {{t}}a"));
    let words = split(&link.read());
    assert_eq!((words.len(), &*words[0]), (7, &b"SLOTSRESTORE"[..]));
    link.write(b"+OK\r\n");
    assert_eq!(reply(&mut client), ":2\r\n");
    let slot = client.text("SLOTSHASHKEY {u}c");
    let slot = slot.trim().rsplit(':').next().expect("a slot").to_owned();
    send(&mut client, &format!("SLOTSMGRTTAGSLOT 127.0.0.1 {port} 5000 {slot}"));
    link.read();
    link.write(b"+OK\r\n");
    assert_eq!(reply(&mut client), "*2\r\n:1\r\n:0\r\n");
    let empty = client.text(&format!("SLOTSMGRTSLOT 127.0.0.1 {port} 5000 {slot}"));
    assert_eq!(empty, "*2\r\n:0\r\n:0\r\n");
    // Another database is selected on the same connection.
    client.call("SELECT 3");
    client.call("SET w 2");
    send(&mut client, &format!("SLOTSMGRTONE 127.0.0.1 {port} 5000 w"));
    assert_eq!(link.read(), b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
    link.read();
    link.write(b"+OK\r\n+OK\r\n");
    assert_eq!(reply(&mut client), ":1\r\n");
}

#[test]
fn source_with_a_password_logs_in_first() {
    let (source, peer) = (Process::cordis(1, &["--requirepass", "pw"]), Peer::new());
    let mut client = source.client();
    client.call("AUTH pw");
    client.call("SET w 2");
    let port = peer.port;
    send(&mut client, &format!("SLOTSMGRTONE 127.0.0.1 {port} 5000 w"));
    let mut link = peer.accept();
    assert_eq!(link.read(), b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n");
    link.write(b"-ERR invalid password\r\n");
    assert_eq!(reply(&mut client), "-ERR error on slotsrestore, auth failed\r\n");
    drop(link);
    // What may have arrived is deleted there: on a new connection.
    let mut cleaning = peer.accept();
    assert_eq!(split(&cleaning.read())[0], b"AUTH");
    assert_eq!(split(&cleaning.read())[0], b"SELECT");
    assert_eq!(split(&cleaning.read()), [&b"DEL"[..], b"w"]);
    cleaning.write(b"+OK\r\n+OK\r\n:1\r\n");
    let mut busy = source.client();
    busy.call("AUTH pw");
    eventually(LIMIT, "the key is free again", || {
        let reply = busy.text("SLOTSMGRT-EXEC-WRAPPER w SET w 3");
        reply.starts_with("*2\r\n:2").then_some(())
    });
    send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 5000 0 0 w"));
    let mut link = peer.accept();
    assert_eq!(link.read(), b"*2\r\n$23\r\nSLOTSRESTORE-ASYNC-AUTH\r\n$2\r\npw\r\n");
    assert_eq!(link.read(), b"*2\r\n$25\r\nSLOTSRESTORE-ASYNC-SELECT\r\n$1\r\n0\r\n");
    for text in ["OK", "OK", "0", "1"] {
        link.ack(text);
    }
    assert_eq!(reply(&mut client), ":1\r\n");
}

// ---- beside a batch ----

#[test]
fn batch_in_flight_shows_itself_and_holds_its_keys() {
    let (source, peer) = (Process::cordis(2, &[]), Peer::new());
    let (mut client, mut other) = (source.client(), source.client());
    for line in ["SET {z}1 v", "SET {z}2 w", "SET x y"] {
        client.call(line);
    }
    let port = peer.port;
    // Behind it, in the same breath: answered in order, not before it.
    send(&mut client, &format!("SLOTSMGRTTAGONE-ASYNC 127.0.0.1 {port} 20000 0 0 {{z}}1"));
    send(&mut client, "PING");
    let mut link = peer.accept();
    wait_due(&mut other, 5);
    let status = other.text("SLOTSMGRT-ASYNC-STATUS");
    let lines: Vec<&str> = status.split("\r\n").filter(|line| !line.starts_with('$')).collect();
    let shown = lines.join(" ");
    assert!(
        shown.starts_with(&format!("*18 host 127.0.0.1 port {port} used 1 timeout 20000 lastuse"))
    );
    let batch = "timeout 20000 maxbulks 200 maxbytes 524288 estimate_msgs 2 removed_keys 2 \
        chunked_vals 0 iterators *2 0 *-1";
    assert!(
        shown.contains("sending_msgs 5 blocked_clients 1 batched_iterator *16 keys *2 2 *2 {z}")
    );
    assert!(shown.contains(batch), "{shown}");
    let mut wrap = |line: &str| other.text(&format!("SLOTSMGRT-EXEC-WRAPPER {line}"));
    let moving = "*2\r\n:1\r\n-ERR the specified key is being migrated\r\n";
    assert_eq!(wrap("{z}1 GET {z}1"), "*2\r\n:2\r\n$1\r\nv\r\n");
    assert_eq!(wrap("{z}1 SET {z}1 n"), moving);
    // The original creates it at the target, away from its siblings.
    assert_eq!(wrap("{z}3 SET {z}3 n"), moving);
    assert_eq!(wrap("x SET x z"), "*2\r\n:2\r\n+OK\r\n");
    let again = other.text(&format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 0 0 0 x"));
    assert_eq!(again, "-ERR the specified DB is being migrated\r\n");
    let refused = other.call("SLOTSRESTORE-ASYNC delete w");
    assert_eq!(refused, ack(-1, "the specified DB is being migrated"));
    // A synchronous move of another key goes on beside it.
    let mut mover = source.client();
    send(&mut mover, &format!("SLOTSMGRTONE 127.0.0.1 {port} 5000 x"));
    let mut sync = peer.accept();
    sync.read();
    sync.read();
    sync.write(b"+OK\r\n+OK\r\n");
    assert_eq!(reply(&mut mover), ":1\r\n");
    // A fence waits, on any connection.
    let mut fence = source.client();
    send(&mut fence, "SLOTSMGRT-ASYNC-FENCE");
    send(&mut fence, "PING");
    let mut watcher = source.client();
    eventually(LIMIT, "the fence waits", || {
        let status = watcher.text("SLOTSMGRT-ASYNC-STATUS");
        status.contains("blocked_clients\r\n$1\r\n2\r\n").then_some(())
    });
    for text in ["OK", "0", "1", "0", "1"] {
        link.read();
        link.ack(text);
    }
    for waiting in [&mut client, &mut fence] {
        assert_eq!(reply(waiting), ":2\r\n");
        assert_eq!(reply(waiting), "+PONG\r\n");
    }
    let status = watcher.text("SLOTSMGRT-ASYNC-STATUS");
    assert!(
        status.contains("used\r\n$1\r\n0\r\n") && status.ends_with("batched_iterator\r\n*-1\r\n")
    );
    assert_eq!(watcher.text("SLOTSMGRT-ASYNC-FENCE"), "+OK\r\n");
    assert_eq!(watcher.text("SLOTSMGRT-ASYNC-CANCEL"), ":1\r\n");
    assert_eq!(watcher.text("SLOTSMGRT-ASYNC-CANCEL"), ":0\r\n");
    assert_eq!(watcher.text("SLOTSMGRT-ASYNC-STATUS"), "*-1\r\n");
    assert_eq!(link.rest(), b"", "a cancelled connection is closed");
}

#[test]
fn write_beside_the_wrapper_is_sent_again_and_not_lost() {
    for form in ["async", "sync"] {
        let (source, peer) = (Process::cordis(2, &[]), Peer::new());
        let (mut client, mut other) = (source.client(), source.client());
        client.call("SET k old");
        client.call("SET gone v");
        let port = peer.port;
        if form == "sync" {
            send(&mut client, &format!("SLOTSMGRTONE 127.0.0.1 {port} 10000 k"));
            let mut link = peer.accept();
            link.read();
            link.read();
            other.call("SET k new");
            link.write(b"+OK\r\n+OK\r\n");
            let again = link.read();
            assert!(again.windows(3).any(|part| part == b"new"), "{}", again.escape_ascii());
            link.write(b"+OK\r\n");
            assert_eq!(reply(&mut client), ":1\r\n");
        } else {
            send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 10000 0 0 k gone"));
            let mut link = peer.accept();
            for _ in 0..5 {
                link.read();
            }
            other.call("SET k new");
            other.call("DEL gone");
            (0..5).for_each(|_| link.ack("1"));
            assert_eq!(link.words(), "delete k");
            assert_eq!(link.words(), "string k 0 new");
            assert_eq!(link.words(), "delete gone", "no copy of it stays at the target");
            (0..3).for_each(|_| link.ack("1"));
            assert_eq!(reply(&mut client), ":2\r\n");
        }
        assert_eq!(other.text("EXISTS k"), ":0\r\n");
    }
}

// ---- targets that break ----

#[test]
fn target_that_is_not_there_is_named_and_nothing_is_lost() {
    let source = Process::cordis(2, &[]);
    let mut client = source.client();
    client.call("SET k v");
    let port = Peer::new().port;
    assert_eq!(
        client.text(&format!("SLOTSMGRTONE 127.0.0.1 {port} 1000 k")),
        "-ERR Can't connect to target node: Connection refused\r\n"
    );
    assert_eq!(
        client.text(&format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 1000 0 0 k")),
        format!("-ERR create client to 127.0.0.1:{port} failed\r\n")
    );
    let nowhere = "no-such-host.invalid";
    assert_eq!(
        client.text(&format!("SLOTSMGRTONE-ASYNC {nowhere} 1 1000 0 0 k")),
        format!("-ERR create client to {nowhere}:1 failed\r\n")
    );
    assert_eq!(client.text("SLOTSMGRT-ASYNC-STATUS"), "*-1\r\n");
    assert_eq!(client.text("SLOTSMGRT-EXEC-WRAPPER k SET k w"), "*2\r\n:2\r\n+OK\r\n");
}

#[test]
fn target_that_answers_anything_else_is_left_at_once() {
    let (source, peer) = (Process::cordis(1, &[]), Peer::new());
    let mut client = source.client();
    client.call("SET k v");
    let port = peer.port;
    for answer in [&b"-NOAUTH Authentication required.\r\n"[..], b"+OK\r\n", b"what?\r\n"] {
        send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 5000 0 0 k"));
        let mut link = peer.accept();
        (0..3).for_each(|_| drop(link.read()));
        link.write(answer);
        assert_eq!(reply(&mut client), "-ERR interrupted: connection closed\r\n");
        assert_eq!(link.rest(), b"", "an answer is not answered");
        // It cleans up, and this target spoils that too.
        drop(peer.accept());
        assert_eq!(client.text("GET k"), "$1\r\nv\r\n");
    }
    for (answer, error) in [
        (&b"-ERR no\r\n"[..], "-ERR error on slotsrestore, select failed\r\n"),
        (b"+OK\r\n-ERR no\r\n", "-ERR error on slotsrestore, migration failed\r\n"),
    ] {
        send(&mut client, &format!("SLOTSMGRTONE 127.0.0.1 {port} 5000 k"));
        let mut link = peer.accept();
        (0..2).for_each(|_| drop(link.read()));
        link.write(answer);
        assert_eq!(reply(&mut client), error);
        drop(peer.accept());
        assert_eq!(client.text("GET k"), "$1\r\nv\r\n");
    }
    send(&mut client, &format!("SLOTSMGRTONE 127.0.0.1 {port} 50 k"));
    let silent = peer.accept();
    assert_eq!(reply(&mut client), "-IOERR error or timeout reading from target\r\n");
    drop((silent, peer.accept()));
}

#[test]
fn batch_that_breaks_deletes_at_the_target_what_it_had_sent() {
    let (source, peer) = (Process::cordis(2, &[]), Peer::new());
    let (mut client, mut other) = (source.client(), source.client());
    client.call("SET a v");
    client.call("SET b w");
    let port = peer.port;
    for how in ["closed", "silent", "cancelled"] {
        let timeout = if how == "silent" { 300 } else { 20_000 };
        send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} {timeout} 0 0 a b"));
        let mut link = peer.accept();
        for _ in 0..5 {
            link.read();
        }
        (0..3).for_each(|_| link.ack("1"));
        let error = match how {
            "closed" => {
                drop(link);
                "connection closed"
            }
            "silent" => "migration timeout",
            _ => {
                wait_due(&mut other, 2);
                assert_eq!(other.text("SLOTSMGRT-ASYNC-CANCEL"), ":1\r\n");
                "canceled"
            }
        };
        assert_eq!(reply(&mut client), format!("-ERR interrupted: {error}\r\n"), "{how}");
        // The source has both; until the target is clean nothing may go here and be read there.
        let mut cleaning = peer.accept();
        assert_eq!(other.text("EXISTS a b"), ":2\r\n");
        let moving = "*2\r\n:1\r\n-ERR the specified key is being migrated\r\n";
        assert_eq!(other.text("SLOTSMGRT-EXEC-WRAPPER a DEL a"), moving);
        assert_eq!(cleaning.words(), "0");
        let mut deleted = [cleaning.words(), cleaning.words()];
        deleted.sort();
        assert_eq!(deleted, ["delete a", "delete b"]);
        (0..3).for_each(|_| cleaning.ack("1"));
        eventually(LIMIT, "the keys are free again", || {
            let reply = other.text("SLOTSMGRT-EXEC-WRAPPER a SET a v");
            reply.starts_with("*2\r\n:2").then_some(())
        });
        other.call("SLOTSMGRT-ASYNC-CANCEL");
    }
}

#[test]
fn copy_that_could_not_be_deleted_goes_with_the_next_move() {
    let (source, peer) = (Process::cordis(1, &[]), Peer::new());
    let mut client = source.client();
    client.call("SET a v");
    let port = peer.port;
    send(&mut client, &format!("SLOTSMGRTONE-ASYNC 127.0.0.1 {port} 5000 0 0 a"));
    let mut link = peer.accept();
    (0..3).for_each(|_| drop(link.read()));
    drop(link);
    assert_eq!(reply(&mut client), "-ERR interrupted: connection closed\r\n");
    drop(peer.accept());
    client.call("DEL a");
    let moving = "*2\r\n:1\r\n-ERR the specified key is being migrated\r\n";
    assert_eq!(client.text("SLOTSMGRT-EXEC-WRAPPER a SET a n"), moving);
    // What a proxy does next.
    send(&mut client, &format!("SLOTSMGRTTAGONE-ASYNC 127.0.0.1 {port} 5000 0 0 a"));
    let mut link = peer.accept();
    assert_eq!(link.words(), "0");
    assert_eq!(link.words(), "delete a");
    (0..2).for_each(|_| link.ack("1"));
    assert_eq!(reply(&mut client), ":0\r\n");
    let absent = "*2\r\n:0\r\n-ERR the specified key doesn't exist\r\n";
    assert_eq!(client.text("SLOTSMGRT-EXEC-WRAPPER a SET a n"), absent);
}

// ---- as the target ----

#[test]
fn recorded_stream_is_answered_with_the_recorded_bytes() {
    let target = Process::cordis(2, &[]);
    let mut client = target.client();
    let list = b"\x0e\x01\x14\x14\0\0\0\x11\0\0\0\x03\0\0\xf2\x02\x03two\x05\xf4\xff\
        \x07\0\xa4\x0c\xdb\xc5\xfc\x3e\x0b\xe0";
    let hash = b"\x0d\x11\x11\0\0\0\x0d\0\0\0\x02\0\0\x01f\x03\x01v\xff\x07\0\xff\x27\x47\xb3\xe7\x4e\x9d\xd3";
    let name: &[u8] = b"SLOTSRESTORE-ASYNC";
    let stream: [&[&[u8]]; 9] = [
        &[b"SLOTSRESTORE-ASYNC-SELECT", b"0"],
        &[name, b"delete", b"k1"],
        &[name, b"string", b"k1", b"0", b"hello"],
        &[name, b"delete", b"n1"],
        &[name, b"string", b"n1", b"99998", b"12345"],
        &[name, b"delete", b"l1"],
        &[name, b"object", b"l1", b"0", list],
        &[name, b"delete", b"h1"],
        &[name, b"object", b"h1", b"0", hash],
    ];
    // All in one send, as a source does it.
    let bytes: Vec<u8> = stream.iter().flat_map(|words| encoded(words)).collect();
    client.send(&bytes).expect("the server reads");
    for text in ["OK", "0", "1", "0", "1", "0", "1", "0", "1"] {
        assert_eq!(client.read_reply().expect("an answer"), ack(0, text));
    }
    assert_eq!(client.text("LRANGE l1 0 -1"), "*3\r\n$1\r\n1\r\n$3\r\ntwo\r\n$1\r\n3\r\n");
    assert_eq!(client.text("HGET h1 f"), "$1\r\nv\r\n");
    // After a refusal nothing behind it is carried out.
    let bytes = [
        encoded(&["SLOTSRESTORE-ASYNC", "string", "k1", "0", "x"]),
        encoded(&["SLOTSRESTORE-ASYNC", "delete", "l1"]),
    ];
    client.send(&bytes.concat()).expect("the server reads");
    assert_eq!(
        client.read_to_end().expect("it closes"),
        ack(-1, "the specified key already exists (k1)")
    );
    assert_eq!(target.client().text("EXISTS k1 l1"), ":2\r\n");
    let mut sync = target.client();
    let restore = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n\
        *4\r\n$12\r\nSLOTSRESTORE\r\n$1\r\nw\r\n$1\r\n0\r\n$13\r\n\
        \x00\xc0\x02\x07\x00\x70\x90\x65\x4f\xf0\x1e\xab\xd1\r\n";
    sync.send(restore).expect("the server reads");
    assert_eq!(
        [sync.read_reply().expect("+OK"), sync.read_reply().expect("+OK")].concat(),
        b"+OK\r\n+OK\r\n"
    );
    assert_eq!(sync.text("GET w"), "$1\r\n2\r\n");
}

// ---- two of ours ----

/// Values of every type, small and large, under tagged and plain keys.
fn fill(client: &mut Client, count: usize) {
    for n in 0..count {
        client.call(&format!("SET s:{n} value-{n}"));
        client.call(&format!("SET i:{n} {n} EX 1000"));
        client.call(&format!("RPUSH {{g{n}}}l a b c {n}"));
        client.call(&format!("SADD {{g{n}}}s 1 2 {n}"));
        client.call(&format!("HSET {{g{n}}}h f v n {n}"));
        client.call(&format!("ZADD {{g{n}}}z 1 a 2.5 b {n} c"));
    }
    for n in 0..500 {
        client.call(&format!("RPUSH big:l element-{n}"));
        client.call(&format!("SADD big:s member-{n}"));
        client.call(&format!("HSET big:h field-{n} {n}"));
        client.call(&format!("ZADD big:z {n} member-{n}"));
    }
    let long = "x".repeat(300_000);
    client.try_call(&["SET", "big:string", &long]).expect("it is stored");
}

/// What a server holds: a digest of each key's value, and whether it ends.
fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let keys = split_bulks(&client.call("KEYS *"));
    let mut all = BTreeMap::new();
    for key in keys {
        let digest = client.text(&format!("DEBUG DIGEST-VALUE {key}"));
        let ends = client.text(&format!("PTTL {key}")) != ":-1\r\n";
        all.insert(key, format!("{digest}{ends}"));
    }
    all
}

fn split_bulks(reply: &[u8]) -> Vec<String> {
    split(reply).into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect()
}

fn move_slot(client: &mut Client, how: &str, port: u16, slot: usize) -> (usize, usize) {
    let call = match how {
        "sync" => format!("SLOTSMGRTTAGSLOT 127.0.0.1 {port} 20000 {slot}"),
        _ => format!("SLOTSMGRTTAGSLOT-ASYNC 127.0.0.1 {port} 20000 50 0 {slot} 20"),
    };
    let text = client.text(&call);
    let numbers: Vec<usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix(':'))
        .map(|n| n.parse().expect("a number"))
        .collect();
    assert_eq!(numbers.len(), 2, "{call}: {text}");
    (numbers[0], numbers[1])
}

#[test]
fn two_servers_move_everything_in_both_forms() {
    let (a, b) = (Process::cordis(2, &[]), Process::cordis(1, &[]));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    fill(&mut at_a, 40);
    let before = contents(&mut at_a);
    assert_eq!(before.len(), 40 * 6 + 5);
    let move_all = |from: &mut Client, port: u16, how: &str| {
        for slot in 0..1024 {
            while move_slot(from, how, port, slot) != (0, 0) {}
        }
        assert_eq!(from.text("DBSIZE"), ":0\r\n");
    };
    move_all(&mut at_a, b.port, "async");
    assert_eq!(contents(&mut at_b), before);
    move_all(&mut at_b, a.port, "sync");
    assert_eq!(contents(&mut at_a), before);
}

/// A counter client as a proxy would be one: asks the source through the wrapper, goes to the target
/// when the key is not there, moves it when it is on its way.
struct Prober {
    source: Client,
    target: Client,
    target_port: u16,
}

impl Prober {
    /// Runs a command of one key to its end.
    fn run(&mut self, key: &str, command: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let reply = self.source.text(&format!("SLOTSMGRT-EXEC-WRAPPER {key} {command}"));
            if let Some(own) = reply.strip_prefix("*2\r\n:2\r\n") {
                return own.to_owned();
            }
            if reply.starts_with("*2\r\n:0\r\n") {
                return self.target.text(command);
            }
            assert!(reply.starts_with("*2\r\n:1\r\n"), "{command}: {reply}");
            assert!(Instant::now() < deadline, "{command}: {reply}");
            let port = self.target_port;
            self.source.text(&format!("SLOTSMGRTTAGONE-ASYNC 127.0.0.1 {port} 20000 0 0 {key}"));
        }
    }
}

#[test]
fn clients_that_write_through_the_wrapper_lose_nothing_while_everything_moves() {
    let (a, b) = (Process::cordis(2, &[]), Process::cordis(1, &[]));
    let mut mover = a.client();
    const GROUPS: usize = 60;
    const CLIENTS: usize = 3;
    for n in 0..GROUPS {
        mover.call(&format!("RPUSH {{g{n}}}list start"));
        mover.call(&format!("SADD {{g{n}}}set start"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let mut prober = Prober { source: a.client(), target: b.client(), target_port: b.port };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut rounds, mut n) = (vec![0_usize; GROUPS], id);
                while !stop.load(Ordering::Relaxed) {
                    let group = n % GROUPS;
                    n += 1;
                    let round = rounds[group];
                    rounds[group] += 1;
                    let count = format!("{{g{group}}}n{id}");
                    let reply = prober.run(&count, &format!("INCR {count}"));
                    assert_eq!(reply, format!(":{}\r\n", round + 1), "{count}");
                    let list = format!("{{g{group}}}list");
                    prober.run(&list, &format!("RPUSH {list} {id}-{round}"));
                    let set = format!("{{g{group}}}set");
                    let added = prober.run(&set, &format!("SADD {set} {id}-{round}"));
                    assert_eq!(added, ":1\r\n");
                }
                rounds
            })
        })
        .collect();
    let deadline = Instant::now() + 3 * LIMIT;
    for slot in 0..1024 {
        loop {
            let port = b.port;
            let call = format!("SLOTSMGRTTAGSLOT-ASYNC 127.0.0.1 {port} 20000 10 0 {slot} 20");
            let reply = mover.text(&call);
            if reply == "*2\r\n:0\r\n:0\r\n" {
                break;
            }
            let is_busy = reply == "-ERR the specified DB is being migrated\r\n";
            assert!(is_busy || reply.starts_with("*2\r\n:"), "{reply}");
            assert!(Instant::now() < deadline, "slot {slot}: {reply}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let rounds: Vec<Vec<usize>> =
        threads.into_iter().map(|thread| thread.join().expect("nothing was lost")).collect();
    assert_eq!(mover.text("DBSIZE"), ":0\r\n");
    let mut at_b = b.client();
    for group in 0..GROUPS {
        let total: usize = rounds.iter().map(|of_client| of_client[group]).sum();
        assert_eq!(at_b.text(&format!("LLEN {{g{group}}}list")), format!(":{}\r\n", total + 1));
        assert_eq!(at_b.text(&format!("SCARD {{g{group}}}set")), format!(":{}\r\n", total + 1));
        for (id, of_client) in rounds.iter().enumerate().filter(|(_, of)| of[group] > 0) {
            let count = at_b.text(&format!("GET {{g{group}}}n{id}"));
            assert!(count.ends_with(&format!("\r\n{}\r\n", of_client[group])), "{count}");
        }
    }
}

#[test]
fn large_values_move_in_pieces_while_others_are_served() {
    let (a, b) = (Process::cordis(1, &[]), Process::cordis(1, &[]));
    let mut client = a.client();
    for first in (0..200_000).step_by(1000) {
        let mut call = vec!["HSET".to_owned(), "big".to_owned()];
        call.extend((first..first + 1000).flat_map(|n| [format!("field-{n}"), n.to_string()]));
        client.try_call(&call).expect("it is stored");
    }
    let digest = client.text("DEBUG DIGEST-VALUE big");
    for (how, from, to) in [("-ASYNC", &a, &b), ("", &b, &a)] {
        let mut mover = from.client();
        let limits = if how.is_empty() { "" } else { " 0 0" };
        send(&mut mover, &format!("SLOTSMGRTONE{how} 127.0.0.1 {} 20000{limits} big", to.port));
        let mut other = from.client();
        let mut count = 0;
        let moved = loop {
            assert_eq!(other.text("PING"), "+PONG\r\n");
            count += 1;
            mover.set_timeout(Duration::from_millis(1));
            match mover.read_reply() {
                Ok(reply) => break reply,
                Err(error) => assert!(!common::client::is_closed(&error), "{error}"),
            }
        };
        assert_eq!(moved, b":1\r\n");
        assert!(count > 5, "nobody was served meanwhile");
        assert_eq!(to.client().text("DEBUG DIGEST-VALUE big"), digest);
        assert_eq!(from.client().text("EXISTS big"), ":0\r\n");
    }
}
