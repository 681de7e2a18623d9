//! Clients that misbehave: broken protocol, half commands, resets, greed and refusal to read. Errors
//! are compared byte for byte with Redis; meanwhile polite neighbours must not notice.

mod common;

use std::io::{self, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::client::{Client, is_closed};
use common::neighbour::Neighbour;
use common::process::Process;
use common::shared::calls::{Calls, is_exact};
use common::shared::reply;
use common::shared::words::{encoded, escaped, line_of};
use common::{alone, best_of, eventually};

/// Cores of the servers here: two, so that sessions and keys cross.
const CORE_COUNT: usize = 2;

/// Longest inline call and length line that Redis takes.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Sends bytes, then says that no more will come, and reads until the server closes.
fn exchange(process: &Process, bytes: &[u8]) -> Result<Vec<u8>, io::Error> {
    let mut client = process.client();
    // A server that closes early cuts what is still on its way; its reply counts all the same.
    if let Err(error) = client.send(bytes)
        && !is_closed(&error)
    {
        return Err(error);
    }
    let _ = client.stream().shutdown(Shutdown::Write);
    client.read_to_end()
}

/// Compares what both servers answer to the same bytes.
fn compare(redis: &Process, ours: &Process, inputs: &[Vec<u8>]) {
    let mut wrong = Vec::new();
    for input in inputs {
        let want = exchange(redis, input).expect("Redis answers or closes");
        let got = exchange(ours, input);
        if got.as_ref().ok() != Some(&want) {
            let (shown, want) = (escaped(&input[..input.len().min(100)]), escaped(&want));
            let got = got.map_or_else(|error| error.to_string(), |bytes| escaped(&bytes));
            wrong.push(format!("{shown}\n  Redis {want}\n  ours  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn inputs(lines: &[&str]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// Bytes that break the protocol, each followed by a PING that shows whether the server goes on.
fn protocol_errors() -> Vec<Vec<u8>> {
    let broken = [
        // Redis counts to 2^31; ours stops at 2^20 words, see the unit tests of the parser.
        "*9999999999\r\n",
        "*99999999999999999999\r\n",
        "*abc\r\n",
        "*\r\n",
        "* 1\r\n",
        "*1x\r\n",
        "*-1\r\n",
        "*-99\r\n",
        "*0\r\n",
        "*1\r\n$999999999999\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$-5\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$abc\r\n",
        "*1\r\n$ 4\r\nPING\r\n",
        "*1\r\n$04\r\nPING\r\n",
        "*1\r\n:1\r\n",
        "*1\r\nPING\r\n",
        "*2\r\n$4\r\nECHO\r\n*1\r\n",
        "*1\r\n\r\n",
        "*1\r\n$4\r\nPINGxx",
        "*1\r\n$0\r\n\r\n",
        "$4\r\nPING\r\n",
        ":1\r\n",
        "+OK\r\n",
    ];
    let mut inputs: Vec<Vec<u8>> =
        broken.iter().map(|text| [text.as_bytes(), b"PING\r\n"].concat()).collect();
    inputs.extend(
        broken.map(|text| [b"PING\r\n", text.as_bytes(), b"*1\r\n$4\r\nPING\r\n"].concat()),
    );
    inputs
}

#[test]
fn protocol_errors_are_answered_in_the_words_of_redis() {
    let (redis, ours) = (Process::redis(&[]), Process::cordis(CORE_COUNT, &[]));
    compare(&redis, &ours, &protocol_errors());
}

#[test]
fn inline_calls_are_answered_as_by_redis() {
    let (redis, ours) = (Process::redis(&[]), Process::cordis(CORE_COUNT, &[]));
    let lines = inputs(&[
        "PING\r\n",
        "PING\n",
        "\r\n\r\n\nPING\r\n",
        "   PING   \r\n",
        "PING\tword\r\n",
        "ECHO \"a b\"\r\n",
        "ECHO \"a\\x41\\n\\t\\\"\\\\\\q\"\r\n",
        "ECHO 'a\\'b \\x41'\r\n",
        "ECHO \"\"\r\n",
        "ECHO a\"b\"\r\nPING\r\n",
        "SET k \"unbalanced\r\nPING\r\n",
        "SET k 'unbalanced\r\nPING\r\n",
        "SET k \"a\"b\r\nPING\r\n",
        "SET k \"\\x4\r\nPING\r\n",
        "nonsense with words\r\nPING\r\n",
        "\u{1}\u{2}\u{7f}\r\nPING\r\n",
        "ПИНГ\r\nPING\r\n",
        "PING",
        "QUIT\r\nPING\r\n",
        "GET\r\nSET a\r\nPING\r\n",
        "HELLO 9\r\nPING\r\n",
        "MULTI\r\nNOSUCH\r\nSET k\r\nEXEC\r\nPING\r\n",
    ]);
    compare(&redis, &ours, &lines);
    let binary = [
        b"\xff\xfe rest \x80\r\nPING\r\n".to_vec(),
        b"*2\r\n$4\r\n\xff\x00\r\n\r\n$3\r\na\x00b\r\nPING\r\n".to_vec(),
        b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\x00\xff\r\n".to_vec(),
    ];
    compare(&redis, &ours, &binary);
}

#[test]
fn zero_byte_in_a_line_does_not_stall_it() {
    // Redis looks for the end of the line in a C string and waits for ever; we go on.
    let ours = Process::cordis(CORE_COUNT, &[]);
    let answer = exchange(&ours, b"PING\x00rest\r\nECHO on\r\n").expect("it answers or closes");
    assert!(answer.ends_with(b"$2\r\non\r\n"), "{}", escaped(&answer));
}

#[test]
fn calls_in_pieces_of_any_size_are_answered_as_by_redis() {
    let (redis, ours) = (Process::redis(&[]), Process::cordis(CORE_COUNT, &[]));
    let mut calls = Calls::new(0x9e1ce5);
    let is_timeless = |words: &Vec<Vec<u8>>| {
        let name = words[0].to_ascii_lowercase();
        !name.ends_with(b"ttl")
            && !name.ends_with(b"expiretime")
            && name != b"multi"
            && is_exact(words)
    };
    let words: Vec<_> = (0..3000).map(|_| calls.next()).filter(is_timeless).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|words| encoded(words)).collect();
    let want = exchange(&redis, &bytes).expect("Redis answers");
    let mut client = ours.client();
    let mut writer = client.stream().try_clone().expect("a socket has a second handle");
    let sender = std::thread::spawn(move || {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let longest = *calls.rng().pick(&[1, 3, 20, 1000, 20_000]);
            let (piece, after) = rest.split_at(rest.len().min(1 + calls.rng().below(longest)));
            writer.write_all(piece)?;
            rest = after;
        }
        writer.shutdown(Shutdown::Write)
    });
    let got = client.read_to_end().expect("ours answers");
    sender.join().expect("the sender does not panic").expect("the server reads it all");
    let (want, got) = (reply::split(&want), reply::split(&got));
    let (want, got) = (want.expect("whole replies"), got.expect("whole replies"));
    assert_eq!(got.len(), want.len(), "a reply for each call");
    for ((words, want), got) in words.iter().zip(want).zip(got) {
        assert_eq!(escaped(got), escaped(want), "{}", line_of(words));
    }
}

#[test]
fn requests_of_a_browser_are_cut_off() {
    let (redis, ours) = (Process::redis(&[]), Process::cordis(CORE_COUNT, &[]));
    let requests = inputs(&[
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nPING\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nPING\r\n",
        "Host: x\r\nPING\r\n",
    ]);
    compare(&redis, &ours, &requests);
}

#[test]
fn lines_without_end_are_refused_at_64_kib() {
    let (redis, ours) = (Process::redis(&[]), Process::cordis(CORE_COUNT, &[]));
    let filled = |head: &[u8], byte: u8, len: usize| {
        let mut bytes = head.to_vec();
        bytes.resize(len, byte);
        bytes
    };
    let max = INLINE_BYTES_MAX;
    let mut all = vec![
        filled(b"", b'x', max + 1),
        filled(b"*", b'1', max + 2),
        filled(b"*1\r\n$", b'1', max + 8),
        filled(b"", b'x', max - 100),
    ];
    // A long line that has an end is a call like any other.
    all.push([filled(b"ECHO ", b'y', 60_000), b"\r\nPING\r\n".to_vec()].concat());
    compare(&redis, &ours, &all);
}

#[test]
fn strangers_get_little_room_before_they_log_in() {
    let password = ["--requirepass", "open sesame"];
    let (redis, ours) = (Process::redis(&password), Process::cordis(CORE_COUNT, &password));
    let tries = inputs(&[
        "PING\r\n",
        "*11\r\n",
        "*10\r\n$16385\r\n",
        "*2\r\n$4\r\nAUTH\r\n$16384\r\n",
        "AUTH wrong\r\nPING\r\n",
        "AUTH \"open sesame\"\r\nPING\r\n",
        "AUTH default \"open sesame\"\r\n*11\r\n$4\r\nPING\r\n",
        "AUTH nobody \"open sesame\"\r\nGET k\r\n",
        "HELLO 3\r\nGET k\r\n",
        "MULTI\r\nEXEC\r\nNOSUCH\r\nGET\r\nQUIT\r\n",
    ]);
    compare(&redis, &ours, &tries);
}

/// Runs an attack while neighbours measure. Tried again if they suffered: the machine is shared.
fn attack(ours: &Process, mut act: impl FnMut()) {
    let _alone = alone();
    best_of(3, || {
        let neighbour = Neighbour::start(ours);
        act();
        neighbour.finish().judge()
    });
}

/// Waits until only a few connections are left.
fn connections_are_gone(ours: &Process) {
    let mut client = ours.client();
    eventually(Duration::from_secs(10), "broken connections are closed", || {
        let info = client.text("INFO clients");
        let count = info.lines().find_map(|line| line.strip_prefix("connected_clients:"));
        let count: usize = count?.trim().parse().ok()?;
        (count < 10).then_some(())
    });
}

#[test]
fn half_commands_and_a_close_leave_nothing_behind() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let whole = b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nvalue\r\n";
    attack(&ours, || {
        for round in 0..2000 {
            let mut client = ours.client();
            client.send(&whole[..1 + round % (whole.len() - 2)]).expect("the server reads");
        }
    });
    connections_are_gone(&ours);
    // The last two bytes end the value: without them nothing may have happened.
    assert_eq!(ours.client().call("GET half"), b"$-1\r\n");
}

#[test]
fn resets_in_the_middle_of_a_command_leave_nothing_behind() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    attack(&ours, || {
        for round in 0..1000 {
            let mut client = ours.client();
            let linger = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(client.stream(), linger)
                .expect("a socket can be told to reset");
            let head: &[u8] = match round % 3 {
                0 => b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1000000\r\nxxxxxxxxxxxxx",
                // Replies that nobody will take.
                1 => b"PING\r\nECHO hello\r\nGET half\r\nMULTI\r\nSET half 1\r\n",
                _ => b"*",
            };
            client.send(head).expect("the server reads");
        }
    });
    connections_are_gone(&ours);
    assert_eq!(ours.client().call("GET half"), b"$-1\r\n");
}

#[test]
fn slow_reader_of_100_mb_gets_all_and_delays_nobody() {
    const VALUE_BYTES: usize = 1 << 20;
    let ours = Process::cordis(CORE_COUNT, &[]);
    let value: Vec<u8> = (0..VALUE_BYTES).map(|i| (i % 251) as u8).collect();
    let set = ours.client().try_call(&[&b"SET"[..], b"big", &value]);
    assert_eq!(set.expect("the server reads"), b"+OK\r\n");
    attack(&ours, || {
        let mut reader = ours.client();
        reader.send(&b"GET big\r\n".repeat(100)).expect("the server reads");
        // Neighbours live through the time when all of it waits.
        let mut other = ours.client();
        for _ in 0..2000 {
            assert_eq!(other.call("PING"), b"+PONG\r\n");
        }
        for reply in 0..100 {
            let got = reader.read_reply().unwrap_or_else(|e| panic!("reply {reply}: {e}"));
            assert!(got[10..].starts_with(&value[..1000]) && got.len() == VALUE_BYTES + 12);
        }
    });
}

#[test]
fn value_of_64_mb_in_and_out_delays_nobody() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let value = vec![b'v'; 64 << 20];
    attack(&ours, || {
        let mut client = ours.client();
        let set = client.try_call(&[&b"SET"[..], b"huge", &value]);
        assert_eq!(set.expect("the server reads"), b"+OK\r\n");
        let got = client.try_call(&["GET", "huge"]).expect("the server answers");
        assert!(got.len() == value.len() + 13 && got[11..].starts_with(&value));
        assert_eq!(client.call("DEL huge"), b":1\r\n");
    });
}

#[test]
fn flush_of_a_million_keys_delays_nobody() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let mut client = ours.client();
    attack(&ours, || {
        assert_eq!(client.call("DEBUG POPULATE 1000000 key 64"), b"+OK\r\n");
        assert_eq!(client.call("FLUSHALL"), b"+OK\r\n");
        // Neighbours live through the time in which the memory is freed.
        let is_freed =
            |reply: &[u8]| reply.windows(27).any(|line| line == b"lazyfree_pending_objects:0\r");
        while !is_freed(&client.call("INFO memory")) {}
    });
}

#[test]
fn output_that_nobody_reads_is_bounded() {
    let _alone = alone();
    let ours = Process::cordis(CORE_COUNT, &[]);
    let limit = "CONFIG SET client-output-buffer-limit \"normal 8388608 0 0\"";
    assert_eq!(ours.client().call(limit), b"+OK\r\n");
    let before = ours.resident_bytes();
    let neighbour = Neighbour::start(&ours);
    let mut flood = ours.client();
    let timeout = Some(Duration::from_millis(500));
    flood.stream().set_write_timeout(timeout).expect("a timeout that is not zero is accepted");
    let call = [&b"*2\r\n$4\r\nECHO\r\n$65536\r\n"[..], &[b'x'; 65536], b"\r\n"].concat();
    // 200 MB of echo: the server may close the connection, or stop to read from it.
    let mut stopped = false;
    for _ in 0..3200 {
        stopped = flood.send(&call).is_err();
        if stopped {
            break;
        }
    }
    let after = ours.resident_bytes();
    let grown = after.saturating_sub(before) >> 20;
    assert!(stopped || flood.is_closed(), "200 MB of echo were taken; {grown} MB more in memory");
    assert!(grown < 64, "{grown} MB are held for a client that does not read");
    let seen = neighbour.finish();
    assert!(seen.count > 0 && seen.max < Duration::from_secs(2), "{seen:?}");
}

#[test]
fn million_tiny_commands_in_one_write_delay_nobody() {
    const COUNT: usize = 1_000_000;
    let ours = Process::cordis(CORE_COUNT, &[]);
    attack(&ours, || {
        let mut client = ours.client();
        let mut writer = client.stream().try_clone().expect("a socket has a second handle");
        let sender = std::thread::spawn(move || writer.write_all(&b"PING\r\n".repeat(COUNT)));
        for _ in 0..COUNT {
            assert_eq!(client.read_reply().expect("every call is answered"), b"+PONG\r\n");
        }
        sender.join().expect("the sender does not panic").expect("the server reads it all");
    });
}

#[test]
fn announced_lengths_reserve_nothing() {
    let ours = Process::cordis(CORE_COUNT, &[]);
    let before = ours.resident_bytes();
    let clients: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = ours.client();
            client.send(b"*1048576\r\n$536870912\r\nx").expect("the server reads");
            client
        })
        .collect();
    // A call that came later was read later: the lengths before it have been seen.
    assert_eq!(ours.client().call("PING"), b"+PONG\r\n");
    let grown = ours.resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MB for {} announcements", clients.len());
}
