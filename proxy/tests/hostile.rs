//! Clients and backends that do what they should not: the proxy says so, and nobody else notices.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::client::Client;
use common::cluster::{Cluster, Proxy, Server, map_of};
use common::eventually;
use common::fake::{Act, Fake};

/// A proxy with a server for slots below 512 and `fake` for the others, where `a` is.
fn with_fake(fake: &Fake, arguments: &[&str]) -> (Server, Proxy) {
    let server = Server::start(&[]);
    let proxy = Proxy::start(arguments);
    let addrs = [server.addr(), fake.addr()];
    proxy.set_map(&map_of(&addrs, 1, |slot| if slot.index() < 512 { 1 } else { 2 }));
    (server, proxy)
}

/// Keys of other servers are served while this one misbehaves.
fn others_are_served(client: &mut Client) {
    assert_eq!(client.text("SET e1 1"), "+OK\r\n");
    assert_eq!(client.text("GET e1"), "$1\r\n1\r\n");
}

#[test]
fn garbage_of_clients_is_told_and_ends_their_connection() {
    let cluster = Cluster::start(&[]);
    for (input, error) in [
        (&b"*x\r\n"[..], "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n:5\r\n", "-ERR Protocol error: expected '$', got ':'"),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$9999999999\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes"),
    ] {
        let mut client = cluster.proxy.client();
        client.send(input).expect("it reads");
        let end = client.read_to_end().expect("it closes");
        assert!(String::from_utf8_lossy(&end).starts_with(error), "{input:?}: {end:?}");
    }
    // A browser's request, of which no line is run.
    let mut client = cluster.proxy.client();
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET e1 1\r\n").expect("it reads");
    client.read_to_end().expect("it closes");
    let mut client = cluster.proxy.client();
    assert_eq!(client.text("GET e1"), "$-1\r\n");
    // A null among the words of a call hurts nobody else's link.
    let mut other = cluster.proxy.client();
    other.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-1\r\n").expect("it reads");
    other.read_to_end().expect("it closes");
    assert_eq!(client.text("SET a 1"), "+OK\r\n");
}

#[test]
fn random_bytes_of_clients_disturb_nobody() {
    let cluster = Cluster::start(&[]);
    let mut good = cluster.proxy.client();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = [
        "*3\r\n",
        "$3\r\n",
        "SET",
        "GET",
        "\r\n",
        "MULTI",
        "EXEC",
        "*1\r\n$4\r\nEXEC\r\n",
        "SUBSCRIBE a\r\n",
        "MULTI\r\n",
        "WATCH a\r\n",
        "BLPOP a 0\r\n",
        "HELLO 3\r\n",
        "RESET\r\n",
        "SCAN 0\r\n",
        "DBSIZE\r\n",
        "GET a\r\n",
        "MGET a e1 d\r\n",
        "CLIENT REPLY OFF\r\n",
        "\0",
    ];
    for round in 0..60 {
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.proxy.port)).expect("it listens");
        stream.set_nonblocking(false).expect("a socket can block");
        let mut bytes = Vec::new();
        for _ in 0..next() % 40 {
            match next() % 8 {
                0 => bytes.push(next() as u8),
                _ => bytes.extend_from_slice(words[next() as usize % words.len()].as_bytes()),
            }
        }
        // It may close in the middle.
        let _ = stream.write_all(&bytes);
        drop(stream);
        assert_eq!(good.text(&format!("SET {{r}}{round} 1")), "+OK\r\n");
        assert_eq!(good.text(&format!("GET {{r}}{round}")), "$1\r\n1\r\n");
    }
    assert!(!cluster.proxy.process.output().contains("ERROR"));
    let mut admin = cluster.proxy.admin();
    let are_gone = || admin.text("STATS").contains("sessions_alive\r\n:1\r\n");
    if !common::within(Duration::from_secs(20), are_gone) {
        panic!("sessions are left over: {}", good.text("CLIENT LIST"));
    }
}

#[test]
fn more_clients_than_allowed_are_refused() {
    let cluster = Cluster::start(&["--proxy-max-clients", "3"]);
    let mut held: Vec<Client> = (0..3).map(|_| cluster.proxy.client()).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.text("PING"), "+PONG\r\n"));
    let mut one_more = cluster.proxy.client();
    let end = one_more.read_to_end().expect("it closes");
    assert_eq!(String::from_utf8_lossy(&end), "-ERR max number of clients reached\r\n");
    drop(held.pop());
    eventually(Duration::from_secs(20), "a place is free again", || {
        let mut client = cluster.proxy.client();
        (client.try_call(&["PING"]).ok()? == b"+PONG\r\n").then_some(())
    });
}

#[test]
fn backend_that_talks_nonsense_costs_its_own_keys_only() {
    for nonsense in
        ["nonsense\r\n", "*99999999999\r\n", "$-5\r\n", "HTTP/1.1 400 Bad\r\n\r\n", "\0\0"]
    {
        let fake = Fake::start(move |_| Act::text(nonsense));
        let (_server, proxy) = with_fake(&fake, &[]);
        let mut client = proxy.client();
        let reply = client.text("GET a");
        assert!(reply.starts_with("-ERR") && reply.contains("backend"), "{nonsense:?}: {reply}");
        others_are_served(&mut client);
        for line in ["MGET a e1", "DBSIZE", "SCAN 0 COUNT 5000", "MSET a 1 e1 1"] {
            assert!(client.text(line).starts_with("-ERR"), "{line}");
        }
        others_are_served(&mut client);
    }
}

#[test]
fn backend_that_answers_more_than_it_was_asked_is_left() {
    let fake = Fake::start(|_| Act::text("+one\r\n+two\r\n"));
    let (_server, proxy) = with_fake(&fake, &[]);
    let mut client = proxy.client();
    // Never the second reply as that of another call.
    for _ in 0..20 {
        let reply = client.text("GET a");
        assert!(reply == "+one\r\n" || reply.starts_with("-ERR"), "{reply}");
    }
    others_are_served(&mut client);
}

#[test]
fn backend_that_breaks_off_is_an_error_and_dialled_again() {
    let fake = Fake::start(|words| match words[0].as_str() {
        "GET" => Act::SendAndClose(b"$10\r\nhalf".to_vec()),
        _ => Act::text("+OK\r\n"),
    });
    let (_server, proxy) = with_fake(&fake, &[]);
    let mut client = proxy.client();
    // Part of the reply has been passed on: the rest cannot be made up.
    client.send(b"GET a\r\n").expect("it reads");
    let end = client.read_to_end().expect("it closes");
    assert!(!end.ends_with(b"\r\n") || end.starts_with(b"-ERR"), "{end:?}");
    let mut client = proxy.client();
    assert_eq!(client.text("SET a 1"), "+OK\r\n");
    others_are_served(&mut client);
}

#[test]
fn backend_that_is_silent_is_given_up_on_in_time() {
    let fake = Fake::start(|_| Act::Silence);
    let (_server, proxy) = with_fake(&fake, &["--backend-recv-timeout", "300ms"]);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    others_are_served(&mut other);
    let began = Instant::now();
    client.send(b"GET a\r\nGET e1\r\n").expect("it reads");
    others_are_served(&mut other);
    let reply = client.read_reply().expect("it answers");
    assert!(reply.starts_with(b"-ERR"), "{}", String::from_utf8_lossy(&reply));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(client.read_reply().expect("it answers"), b"$1\r\n1\r\n");
    for line in ["DBSIZE", "MGET a e1", "KEYS *", "SCAN 0 COUNT 5000", "WATCH a"] {
        assert!(client.text(line).starts_with("-ERR"), "{line}");
    }
    others_are_served(&mut client);
    for line in ["UNWATCH", "MULTI", "SELECT 3", "SET a 1"] {
        assert!(client.text(line).starts_with('+'), "{line}");
    }
    let reply = client.text("EXEC");
    assert!(reply.starts_with("-ERR"), "{reply}");
    others_are_served(&mut client);
}

#[test]
fn clients_that_leave_a_silent_backend_take_up_no_places() {
    let fake = Fake::start(|words| match words[0].as_str() {
        "WATCH" => Act::text("+OK\r\n"),
        _ => Act::Silence,
    });
    let (_server, proxy) = with_fake(&fake, &["--backend-recv-timeout", "300ms"]);
    for _ in 0..5 {
        let mut client = proxy.client();
        for (line, reply) in [("WATCH a", "+OK"), ("MULTI", "+OK"), ("SET a 1", "+QUEUED")] {
            assert!(client.text(line).starts_with(reply), "{line}");
        }
        client.send(b"EXEC\r\n").expect("it reads");
    }
    let mut admin = proxy.admin();
    let are_gone = || admin.text("STATS").contains("sessions_alive\r\n:0\r\n");
    assert!(common::within(Duration::from_secs(20), are_gone), "sessions are left over");
}

#[test]
fn backend_that_sends_everybody_elsewhere_does_not_go_on_for_ever() {
    let fake = Fake::start(|_| Act::text("-TRYAGAIN slot 579 is being imported\r\n"));
    let (_server, proxy) = with_fake(&fake, &["--backend-recv-timeout", "500ms"]);
    let mut client = proxy.client();
    let began = Instant::now();
    let reply = client.text("GET a");
    assert!(reply.starts_with("-ERR") && reply.contains("579"), "{reply}");
    assert!(began.elapsed() < Duration::from_secs(10));
    others_are_served(&mut client);
    let reply = client.text("WATCH a");
    assert!(reply.starts_with("-ERR"), "{reply}");
    let reply = client.text("BLPOP a 0");
    assert!(reply.starts_with("-ERR"), "{reply}");
    others_are_served(&mut client);
}

#[test]
fn backend_that_is_not_there_is_an_error_at_once() {
    let gone = format!("127.0.0.1:{}", common::cluster::free_port());
    let server = Server::start(&[]);
    let proxy = Proxy::start(&[]);
    proxy.set_map(&map_of(&[server.addr(), gone], 1, |s| if s.index() < 512 { 1 } else { 2 }));
    let mut client = proxy.client();
    for line in ["GET a", "WATCH a", "BLPOP a 0", "DBSIZE", "MGET a e1"] {
        let reply = client.text(line);
        assert!(reply.starts_with("-ERR") && reply.contains("backend"), "{line}: {reply}");
    }
    // A subscriber gets what there is, and is confirmed although one server is missing.
    assert!(client.text("SUBSCRIBE e1").contains("subscribe"));
    assert_eq!(proxy.client().text("PUBLISH e1 x"), ":1\r\n");
    others_are_served(&mut proxy.client());
}

#[test]
fn client_that_reads_nothing_holds_up_nobody() {
    let cluster = Cluster::start(&["--session-output-max", "8mb"]);
    let mut good = cluster.proxy.client();
    assert_eq!(good.text("SETRANGE a 4000000 x"), ":4000001\r\n");
    let slow = cluster.proxy.client();
    let mut writer = slow.stream();
    writer.set_nonblocking(true).expect("a socket can be made nonblocking");
    // Its replies are bounded: at some point it is read from no more, or closed.
    for _ in 0..2_000 {
        if writer.write_all(b"GET a\r\n").is_err() {
            break;
        }
    }
    for _ in 0..50 {
        others_are_served(&mut good);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.proxy.process.pid()));
    let status = status.expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kib < 300 * 1024, "the proxy has grown to {kib} KiB");
}
