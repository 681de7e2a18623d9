//! Calls of very many words, which work in steps: answered as Redis answers them, however their bytes
//! arrive, and done as a whole or not at all, whatever others do to the same keys meanwhile.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::client::Client;
use common::process::Process;
use common::shared::rng::{Rng, seed_or};
use common::shared::words::{encoded, escaped};

/// Elements of the calls that race: they take some tens of milliseconds.
const MANY: usize = 30_000;

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// A call of `line` and `count` more words.
fn long(line: &str, count: usize, word: impl Fn(usize) -> String) -> Vec<Vec<u8>> {
    let mut call = words(line);
    call.extend((0..count).map(|n| word(n).into_bytes()));
    call
}

/// Sends a call in pieces of random lengths.
fn send_in_pieces(client: &mut Client, call: &[Vec<u8>], rng: &mut Rng) {
    let bytes = encoded(call);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let longest = *rng.pick(&[10, 3_000, 100_000]);
        let len = 1 + rng.below(longest).min(rest.len() - 1);
        client.send(&rest[..len]).expect("the server reads");
        rest = &rest[len..];
    }
}

fn member(n: usize) -> String {
    format!("member:{n}")
}

/// Long calls of every kind, among short ones; some are refused, some by their very last word.
fn calls() -> Vec<Vec<Vec<u8>>> {
    const COUNT: usize = 12_000;
    let scored = |n: usize| if n.is_multiple_of(2) { (n * 7 % 101).to_string() } else { member(n) };
    let mut calls = vec![
        long("SADD set", COUNT, member),
        long("SADD set", COUNT, |n| member(n * 2)),
        long("SADD ints", COUNT, |n| n.to_string()),
        long("SADD one", COUNT, |_| "same".to_owned()),
        long("SMISMEMBER set", COUNT, |n| member(n * 3)),
        long("SMISMEMBER none", COUNT, member),
        long("SREM set", COUNT, |n| member(n * 2)),
        long("SREM none", COUNT, member),
        long("HSET hash", COUNT, |n| member(n % 7_001)),
        long("HSET hash", COUNT + 1, member),
        long("HMSET short", COUNT, |n| (n % 10).to_string()),
        long("HMGET hash", COUNT, member),
        long("HDEL hash", COUNT, |n| member(n * 5)),
        long("RPUSH list", COUNT, member),
        long("LPUSH list", COUNT, member),
        long("LPUSHX list", COUNT, member),
        long("RPUSHX none", COUNT, member),
        long("ZADD zset", COUNT, scored),
        long("ZADD zset NX CH", COUNT, |n| {
            if n.is_multiple_of(2) { "1".into() } else { member(n * 2 + 1) }
        }),
        long("ZADD zset GT CH", COUNT, scored),
        long("ZADD zset XX INCR", COUNT, scored),
        long("ZADD zset", COUNT + 1, scored),
        long("ZADD zset", COUNT, |n| if n + 2 == COUNT { "x".into() } else { scored(n) }),
        long("ZADD set", COUNT, |n| if n + 2 == COUNT { "x".into() } else { scored(n) }),
        long("ZADD set", COUNT, scored),
        long("ZMSCORE zset", COUNT, member),
        long("ZREM zset", COUNT, |n| member(n * 3)),
        long("PFADD hll", COUNT, member),
        long("PFADD hll", COUNT, member),
        long("PFADD set", COUNT, member),
        long("SADD list", COUNT, member),
        long("HMGET list", COUNT, member),
        long("RPUSH set", COUNT, member),
        long("MSET", COUNT, member),
        long("DEL", COUNT, |n| member(n * 4)),
        long("EXISTS", COUNT, member),
        // All that is left goes, and the key with it.
        long("SREM ints", COUNT, |n| n.to_string()),
        words("EXISTS ints"),
        // Words of all lengths.
        long("RPUSH long", 300, |n| "x".repeat(n * n)),
        long("RPUSH empty", 100_000, |_| String::new()),
    ];
    for key in ["set", "one", "hash", "short", "list", "zset", "hll", "long", "empty"] {
        calls.push(words(&format!("OBJECT ENCODING {key}")));
        calls.push(words(&format!("TTL {key}")));
    }
    let contents = [
        "SORT set ALPHA",
        "SORT one ALPHA",
        "HLEN hash",
        "HGETALL short",
        "LRANGE list 0 -1",
        "ZRANGE zset 0 -1 WITHSCORES",
        "GET hll",
        "LRANGE long 0 -1",
        "LLEN empty",
        "DBSIZE",
    ];
    calls.extend(contents.map(words));
    calls.push(long("HMGET hash", COUNT, member));
    calls
}

#[test]
fn long_calls_are_answered_as_by_redis_however_they_arrive() {
    let seed = seed_or(0x4000_0000);
    let mut rng = Rng::new(seed);
    let redis = Process::redis(&[]);
    let (one, two) = (Process::cordis(1, &[]), Process::cordis(2, &[]));
    let mut sides = [redis.client(), one.client(), two.client()];
    for call in calls() {
        let replies = sides.each_mut().map(|client| {
            send_in_pieces(client, &call, &mut rng);
            client.read_reply().expect("the server answers")
        });
        for reply in &replies[1..] {
            let same = *reply == replies[0];
            let line: Vec<_> = call.iter().take(4).map(|word| escaped(word)).collect();
            let shown = |reply: &[u8]| escaped(&reply[..reply.len().min(200)]);
            let (want, got) = (shown(&replies[0]), shown(reply));
            assert!(same, "seed {seed}, {line:?}: Redis {want}, ours {got}");
        }
    }
}

fn number(reply: &[u8]) -> usize {
    let text = String::from_utf8_lossy(reply);
    let digits = text.strip_prefix(':').and_then(|text| text.strip_suffix("\r\n"));
    digits.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no number: {text}"))
}

/// Lets `other` work on a server while a client adds many members to `set`, again and again.
fn race(rounds: usize, prepare: &str, mut other: impl FnMut(&mut Client, usize)) {
    let server = Process::cordis(2, &[]);
    let call = long("SADD set", MANY, member);
    let mut client = server.client();
    for round in 0..rounds {
        client.call("DEL set away");
        if !prepare.is_empty() {
            client.call(prepare);
        }
        client.send_call(&call).expect("the server reads");
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(number(&client.read_reply().expect("it ends")) <= MANY);
                ended.store(true, Ordering::Relaxed);
            });
            let (mut rival, mut count) = (server.client(), 0);
            while !ended.load(Ordering::Relaxed) {
                other(&mut rival, count);
                count += 1;
            }
            // Once more behind it.
            other(&mut rival, usize::MAX);
        });
        assert_eq!(server.client().call("PING"), b"+PONG\r\n", "round {round}");
    }
}

#[test]
fn members_of_one_call_come_all_at_once() {
    race(5, "", |rival, count| {
        let len = number(&rival.call("SCARD set"));
        assert!(len == MANY || len == 0 && count < usize::MAX, "{len} members");
    });
}

#[test]
fn members_that_others_add_meanwhile_are_kept() {
    let mut own = 0;
    race(5, "SADD set before", |rival, count| {
        if count == 0 {
            own = 0;
        }
        own += number(&rival.call(&format!("SADD set own:{count}")));
        let len = number(&rival.call("SCARD set"));
        let is_whole = len == own + 1 || len == own + 1 + MANY;
        assert!(is_whole, "{own} added, {len} members");
        assert!(count < usize::MAX || len > MANY, "the long call is lost");
    });
}

#[test]
fn members_are_deleted_renamed_and_expired_as_a_whole() {
    let ways = [
        &["DEL set"][..],
        &["FLUSHALL"],
        &["RENAME set away", "SCARD away"],
        &["PEXPIRE set 1"],
        &["SPOP set 1000000"],
        &["SWAPDB 0 1", "SCARD set"],
        &["SMOVE set away member:7", "SADD set member:7", "SREM away member:7"],
    ];
    for way in ways {
        race(2, "SADD set first", |rival, _| {
            let len = number(&rival.call("SCARD set"));
            assert!([0, 1, 2, MANY, MANY - 1, MANY + 1].contains(&len), "{way:?}: {len} members");
            for call in way {
                rival.call(call);
            }
        });
    }
}

#[test]
fn call_finds_its_key_again_when_the_slot_has_moved_to_another_core() {
    let slot = cordis_engine::slots::hash::slot_of(b"set").index();
    race(5, "SADD set before", |rival, count| {
        rival.call(&format!("DEBUG MOVE-SLOT {slot} {}", count % 2));
        let len = number(&rival.call("SCARD set"));
        assert!(len == 1 || len == MANY + 1, "{len} members");
        assert!(count < usize::MAX || len > 1, "the long call is lost");
    });
}

#[test]
fn call_whose_client_leaves_is_done_as_a_whole_or_not_at_all() {
    let server = Process::cordis(1, &[]);
    let mut admin = server.client();
    for round in 0..10 {
        admin.call("DEL set");
        let mut client = server.client();
        client.send_call(&long("SADD set", MANY, member)).expect("the server reads");
        for _ in 0..round * 3 {
            admin.call("PING");
        }
        drop(client);
        common::eventually(std::time::Duration::from_secs(20), "the client is gone", || {
            let info = admin.text("INFO clients");
            info.contains("connected_clients:1\r").then_some(())
        });
        let len = number(&admin.call("SCARD set"));
        assert!(len == 0 || len == MANY, "{len} members");
    }
}
