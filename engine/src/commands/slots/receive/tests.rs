//! Tests of what is received: the recorded stream, and everything that is refused.

use super::*;
use crate::commands::bare::Bare;
use crate::net::client::ClientState;

fn call(bare: &mut Bare, client: &mut ClientState, words: &[&[u8]]) -> String {
    let reply = bare.call(client, words);
    let text: String = reply.iter().map(|&byte| char::from(byte)).collect();
    // Errno and text of an acknowledgement; anything else as it is.
    let lines: Vec<&str> = text.split("\r\n").collect();
    match lines.get(2) {
        Some(&"SLOTSRESTORE-ASYNC-ACK") => format!("{} {}", lines[4], lines[6]),
        _ => text,
    }
}

fn message(bare: &mut Bare, client: &mut ClientState, line: &str) -> String {
    let mut words: Vec<&[u8]> = vec![b"SLOTSRESTORE-ASYNC"];
    words.extend(line.split(' ').map(str::as_bytes));
    call(bare, client, &words)
}

/// One message on a connection of its own, and whether it was closed.
fn alone(bare: &mut Bare, line: &str) -> (String, bool) {
    let mut client = bare.client();
    let reply = message(bare, &mut client, line);
    (reply, client.close_after_reply)
}

fn read(bare: &mut Bare, line: &str) -> String {
    let mut client = bare.client();
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    String::from_utf8_lossy(&bare.call(&mut client, &words)).into_owned()
}

#[test]
fn recorded_stream_is_acknowledged_with_the_recorded_texts() {
    let mut bare = Bare::new(3, 1);
    let mut client = bare.client();
    let select: [&[u8]; 2] = [b"SLOTSRESTORE-ASYNC-SELECT", b"0"];
    assert_eq!(call(&mut bare, &mut client, &select), "0 OK");
    let chunks = [
        ("delete L", "0 0"),
        ("list L 3000 5 e0 e1", "0 2"),
        ("list L 3000 5 e2 e3", "0 4"),
        ("list L 3000 5 e4", "0 5"),
        ("expire L 0", "0 1"),
        ("delete H", "0 0"),
        ("hash H 3000 2 f0 v0", "0 1"),
        ("hash H 3000 2 f1 v1", "0 2"),
        ("HASH H 3000 2", "0 2"),
        ("expire H 0", "0 1"),
        ("delete S", "0 0"),
        ("dict S 3000 3 y z x", "0 3"),
        ("dict S 3000 3", "0 3"),
        ("expire S 0", "0 1"),
        ("delete n1", "0 0"),
        ("string n1 99998 12345", "0 1"),
        ("delete n1", "0 1"),
    ];
    for (line, want) in chunks {
        assert_eq!(message(&mut bare, &mut client, line), want, "{line}");
    }
    for (member, bits, want) in [
        (&b"m2"[..], 2.5_f64, "0 1"),
        (b"m1", 1.5, "0 2"),
        (b"m0", 0.5, "0 3"),
        (b"m0", 0.25, "0 3"),
    ] {
        let bits = bits.to_le_bytes();
        let words: [&[u8]; 7] =
            [b"SLOTSRESTORE-ASYNC", b"zset", b"Z", b"3000", b"3", member, &bits];
        assert_eq!(call(&mut bare, &mut client, &words), want);
    }
    assert_eq!(message(&mut bare, &mut client, "expire Z 500000"), "0 1");
    let list = b"\x0e\x01\x14\x14\0\0\0\x11\0\0\0\x03\0\0\xf2\x02\x03two\x05\xf4\xff\
        \x07\0\xa4\x0c\xdb\xc5\xfc\x3e\x0b\xe0";
    let words: [&[u8]; 5] = [b"SLOTSRESTORE-ASYNC", b"object", b"l1", b"0", list];
    assert_eq!(call(&mut bare, &mut client, &words), "0 1");
    assert!(!client.close_after_reply);
    assert_eq!(read(&mut bare, "LRANGE l1 0 -1"), "*3\r\n$1\r\n1\r\n$3\r\ntwo\r\n$1\r\n3\r\n");
    assert_eq!(read(&mut bare, "LLEN L"), ":5\r\n");
    assert_eq!(read(&mut bare, "PTTL L"), ":-1\r\n");
    assert_eq!(read(&mut bare, "PTTL Z"), ":500000\r\n");
    assert_eq!(read(&mut bare, "ZSCORE Z m0"), "$4\r\n0.25\r\n");
    // What came in chunks is large, and stays so.
    for (key, encoding) in
        [("L", "quicklist"), ("H", "hashtable"), ("S", "hashtable"), ("Z", "skiplist")]
    {
        let reply = read(&mut bare, &format!("OBJECT ENCODING {key}"));
        assert!(reply.contains(encoding), "{key}: {reply}");
    }
}

#[test]
fn chunk_is_guarded_by_a_deadline_until_the_last_message() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    message(&mut bare, &mut client, "list k 3000 9 a b");
    assert_eq!(read(&mut bare, "PTTL k"), ":3000\r\n");
    bare.now.0 += 3000;
    assert_eq!(read(&mut bare, "EXISTS k"), ":0\r\n");
}

#[test]
fn wrong_messages_are_refused_in_the_words_of_the_original_and_end_the_connection() {
    let mut bare = Bare::new(2, 1);
    for line in ["SET s v", "SADD ints 1 2", "HSET small f v", "RPUSH l v"] {
        read(&mut bare, line);
    }
    let cases = [
        ("delete", "wrong number of arguments (argc=2,cmd=delete)"),
        ("delete k x", "wrong number of arguments (argc=4,cmd=delete)"),
        ("string k", "wrong number of arguments (argc=3,cmd=string)"),
        ("string k 0", "wrong number of arguments (argc=4,cmd=string)"),
        ("other k 0", "wrong number of arguments (argc=4,cmd=other)"),
        ("other k 0 0", "unknown command (argc=5,cmd=other)"),
        ("expire k x", "invalid TTL value (TTL=x)"),
        ("string k -1 v", "invalid TTL value (TTL=-1)"),
        ("list k 0 -1 v", "invalid Hint value (Hint=-1)"),
        ("hash k 0 1 f", "wrong number of arguments (argc=6,cmd=hash)"),
        ("string s 0 v", "the specified key already exists (s)"),
        ("object s 0 v", "the specified key already exists (s)"),
        ("object k 0 v", "invalid payload checksum"),
        ("expire k 0", "the specified key doesn't exist (k)"),
        ("list k 0 1", "the specified key doesn't exist (k)"),
        ("list s 0 1 v", "wrong type (expect=1/9,got=0/8)"),
        ("dict ints 0 1 v", "wrong type (expect=2/2,got=2/6)"),
        ("hash small 0 1 f v", "wrong type (expect=4/2,got=4/5)"),
        ("zset l 0 1 m 12345678", "wrong type (expect=3/7,got=1/9)"),
        ("zset k 0 1 m 1234567", "invalid zset score ([0]), bad raw bits"),
    ];
    for (line, text) in cases {
        assert_eq!(alone(&mut bare, line), (format!("-1 {text}"), true), "{line}");
    }
    for (tag, text) in [(15_u8, "invalid payload type"), (4, "invalid payload body")] {
        let mut payload = vec![tag, 7];
        footer::seal(&mut payload, 7);
        let mut client = bare.client();
        let words: [&[u8]; 5] = [b"SLOTSRESTORE-ASYNC", b"object", b"k", b"0", &payload];
        assert_eq!(call(&mut bare, &mut client, &words), format!("-1 {text}"));
    }
    assert_eq!(read(&mut bare, "EXISTS k"), ":0\r\n");
}

#[test]
fn database_that_is_sending_takes_nothing_in() {
    let mut bare = Bare::new(1, 1);
    bare.node.dialect.lock(DbIndex(0)).shown = Some(Default::default());
    let refused = ("-1 the specified DB is being migrated".to_owned(), true);
    assert_eq!(alone(&mut bare, "delete w"), refused);
    bare.node.dialect.lock(DbIndex(0)).shown = None;
    assert_eq!(alone(&mut bare, "delete w"), ("0 0".to_owned(), false));
}

#[test]
fn login_and_database_of_a_move_are_acknowledged() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    let auth = |bare: &mut Bare, client: &mut ClientState, word: &[u8]| {
        call(bare, client, &[b"SLOTSRESTORE-ASYNC-AUTH", word])
    };
    let no_password = "-1 Client sent AUTH, but no password is set";
    assert_eq!(auth(&mut bare, &mut client, b"pw"), no_password);
    read(&mut bare, "CONFIG SET requirepass pw");
    let mut client = bare.client();
    assert!(message(&mut bare, &mut client, "delete k").starts_with("-NOAUTH"));
    assert_eq!(auth(&mut bare, &mut client, b"pw"), "0 OK");
    assert_eq!(message(&mut bare, &mut client, "delete k"), "0 0");
    assert_eq!(auth(&mut bare, &mut client, b"pwx"), "-1 invalid password");
    assert!(client.close_after_reply);
    let mut client = bare.client();
    client.authenticated = true;
    let select = |bare: &mut Bare, client: &mut ClientState, word: &[u8]| {
        call(bare, client, &[b"SLOTSRESTORE-ASYNC-SELECT", word])
    };
    assert_eq!(select(&mut bare, &mut client, b"15"), "0 OK");
    assert_eq!(client.db, DbIndex(15));
    assert_eq!(select(&mut bare, &mut client, b"16"), "-1 invalid DB index (16)");
}

#[test]
fn acknowledgement_from_a_client_is_refused() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    let words: [&[u8]; 3] = [b"SLOTSRESTORE-ASYNC-ACK", b"0", b"OK"];
    assert_eq!(bare.call(&mut client, &words), b"-ERR invalid client, permission denied\r\n");
    assert!(client.close_after_reply);
}

#[test]
fn messages_are_journalled_by_moments_and_plain_commands() {
    let mut bare = Bare::new(1, 1);
    let mut client = bare.client();
    bare.held[0].as_mut().expect("it is held").journal.attach();
    message(&mut bare, &mut client, "list k 3000 2 a b");
    message(&mut bare, &mut client, "expire k 0");
    message(&mut bare, &mut client, "string s 50 v");
    message(&mut bare, &mut client, "delete s");
    let records = bare.held[0].as_mut().expect("it is held").journal.take();
    let shown: Vec<String> = records
        .iter()
        .map(|record| {
            let words: Vec<_> = record.call.args().iter_from(0).collect();
            String::from_utf8_lossy(&words.join(&b' ')).into_owned()
        })
        .collect();
    let (guard, end) = (bare.now.0 + 3000, bare.now.0 + 50);
    let want = [
        "RPUSH k a b".to_owned(),
        format!("PEXPIREAT k {guard}"),
        "PERSIST k".to_owned(),
        format!("SET s v PXAT {end}"),
        "DEL s".to_owned(),
    ];
    assert_eq!(shown, want);
}
