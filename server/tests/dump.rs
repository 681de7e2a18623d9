//! DUMP and RESTORE between Redis and us: what one writes the other loads, byte for byte the same
//! where Redis leaves no choice; what one refuses the other refuses. `SEED` and `ROUNDS` replay and
//! prolong the random tests.

mod common;
#[path = "../../engine/tests/rdb/value.rs"]
mod value;

use common::client::Client;
use common::process::Process;
use common::shared::reply;
use common::shared::rng::{Rng, seed_or};
use cordis_engine::rdb::{Error, Format, Kind, Limits, footer};
use value::{Value, goldens, mutate, read, with_plain_scores, written};

fn rounds(default: u64) -> u64 {
    std::env::var("ROUNDS").map_or(default, |n| n.parse().expect("ROUNDS is a number"))
}

/// Redis, which looks at payloads as thoroughly as it can.
fn redis() -> Process {
    Process::redis(&["--sanitize-dump-payload", "yes"])
}

fn call(client: &mut Client, words: &[&[u8]]) -> Vec<u8> {
    client.try_call(words).expect("the server answers")
}

fn restore(client: &mut Client, payload: &[u8]) -> Vec<u8> {
    call(client, &[b"RESTORE", b"k", b"0", payload, b"REPLACE"])
}

fn dump(client: &mut Client) -> Vec<u8> {
    let reply = call(client, &[b"DUMP", b"k"]);
    reply::bulk(&reply).expect("the key is there").to_vec()
}

/// The value of a payload; in the order of its bytes if it has no other.
fn value_of(payload: &[u8]) -> Value {
    let (body, _) = footer::open(payload).expect("a server has sealed it");
    sorted(read(body).expect("a server has written it"))
}

fn sorted(mut value: Value) -> Value {
    if value.kind != Kind::List {
        value.elements.sort();
    }
    value
}

/// Makes a value by commands.
fn make(client: &mut Client, value: &Value) {
    call(client, &[b"DEL", b"k"]);
    let name: &[u8] = match value.kind {
        Kind::String => b"SET",
        Kind::List => b"RPUSH",
        Kind::Set => b"SADD",
        Kind::Hash => b"HSET",
        Kind::Zset => b"ZADD",
    };
    for element in &value.elements {
        let mut words = vec![name, b"k"];
        words.extend(element.iter().map(Vec::as_slice));
        if value.kind == Kind::Zset {
            words.swap(2, 3);
        }
        let reply = call(client, &words);
        assert!(!reply.starts_with(b"-"), "{}", String::from_utf8_lossy(&reply));
    }
}

/// How Redis has laid a value out, which decides what our writer is asked for.
fn limits_of(payload: &[u8]) -> Limits {
    match payload[0] {
        2 | 4 | 5 => Limits::TABLES,
        _ => Limits { list_node: -2, ..Limits::PACKED },
    }
}

#[test]
fn values_made_in_redis_are_written_by_us_alike() {
    let redis = redis();
    let mut client = redis.client();
    let first = seed_or(0xd0_0b1e);
    for seed in first..first + rounds(400) {
        let made = value::random(&mut Rng::new(seed));
        make(&mut client, &made);
        let theirs = dump(&mut client);
        // In the order of the payload, which is Redis' own for tables.
        let (body, _) = footer::open(&theirs).expect("Redis has sealed it");
        let got = read(body).unwrap_or_else(|error| panic!("SEED={seed:#x}: {error}"));
        let want = with_plain_scores(&made);
        let is_same = sorted(got.clone()) == sorted(want.clone());
        assert!(is_same || made.has_negative_zero(), "SEED={seed:#x}");
        let ours = written(Format::V10, limits_of(&theirs), &got);
        assert!(ours == theirs, "SEED={seed:#x}\n ours {ours:02x?}\nRedis {theirs:02x?}");
    }
}

#[test]
fn long_strings_are_compressed_alike() {
    let redis = redis();
    let mut client = redis.client();
    let first = seed_or(0x1_2f);
    for seed in first..first + rounds(300) {
        let mut rng = Rng::new(seed);
        let text = value::compressible(&mut rng);
        let made = Value { kind: Kind::String, elements: vec![vec![text]] };
        make(&mut client, &made);
        let theirs = dump(&mut client);
        assert_eq!(value_of(&theirs), made, "SEED={seed:#x}");
        let ours = written(Format::V10, Limits::DEFAULT, &made);
        assert!(ours == theirs, "SEED={seed:#x}: {} and {} bytes", ours.len(), theirs.len());
    }
}

#[test]
fn values_written_by_us_are_loaded_by_redis() {
    let redis = redis();
    let mut client = redis.client();
    let first = seed_or(0x10ad);
    for seed in first..first + rounds(400) {
        let mut rng = Rng::new(seed);
        let made = value::random(&mut rng);
        let want = sorted(with_plain_scores(&made));
        let mut limits = *rng.pick(&[Limits::DEFAULT, Limits::TABLES, Limits::PACKED]);
        limits.list_node = *rng.pick(&[-2, -5, 1, 16]);
        for format in [Format::V10, Format::V7] {
            let payload = written(format, limits, &made);
            let reply = restore(&mut client, &payload);
            assert_eq!(reply, b"+OK\r\n", "SEED={seed:#x} {format:?} {limits:?}");
            let is_same = value_of(&dump(&mut client)) == want;
            assert!(is_same || made.has_negative_zero(), "SEED={seed:#x} {format:?} {limits:?}");
        }
    }
}

/// Whether we differ on purpose from Redis, which has loaded this. It takes a number from where the
/// form of a string stands, any text for a score, anything for a compressed string that says it is
/// empty, and a length behind an entry in other bytes than it would write.
fn differs_on_purpose(error: Error, loaded: &[u8]) -> bool {
    let Error::Corrupt { what, .. } = error else {
        return false;
    };
    let has_empty = || value_of(loaded).elements.iter().flatten().any(Vec::is_empty);
    what == "a score is not a number"
        || what == "a form of strings where a number belongs"
        || what == "a listpack entry has another length behind it"
        || what.starts_with("a compressed string") && has_empty()
}

/// Far more rounds find changes that Redis never finishes reading: then it, not we, stops answering.
#[test]
fn changed_payloads_are_refused_where_redis_refuses_them() {
    let redis = redis();
    let mut client = redis.client();
    let bodies: Vec<Vec<u8>> = goldens()
        .iter()
        .filter(|golden| !golden.name.starts_with("version 11"))
        .map(|golden| golden.payload[..golden.payload.len() - 10].to_vec())
        .collect();
    let first = seed_or(0xbad);
    let mut good = 0;
    for seed in first..first + rounds(10_000) {
        let mut rng = Rng::new(seed);
        let mut body = rng.pick(&bodies).clone();
        mutate(&mut body, &mut rng);
        if matches!(body[0], 6 | 7 | 15 | 19..) {
            continue;
        }
        let mut payload = body.clone();
        footer::seal(&mut payload, 10);
        let theirs = restore(&mut client, &payload);
        // Redis: does not stop at the footer when it looks for the end of the value.
        match (read(&payload), theirs.as_slice()) {
            (Ok(got), b"+OK\r\n") => {
                let (got, want) = (sorted(got), value_of(&dump(&mut client)));
                assert!(got == want || want.has_zero_score(), "SEED={seed:#x} {body:02x?}");
                good += 1;
            }
            (Err(_), b"-ERR Bad data format\r\n") => {}
            (Err(error), b"+OK\r\n") if differs_on_purpose(error, &dump(&mut client)) => {}
            (ours, theirs) => {
                let theirs = String::from_utf8_lossy(theirs);
                panic!("SEED={seed:#x} {body:02x?}\n ours {ours:?}\nRedis {theirs}");
            }
        }
    }
    assert!(good > 0 || rounds(10_000) < 1000, "some changes do no harm");
}

#[test]
fn dump_of_ours_is_restored_by_redis_and_back() {
    let (redis, ours) = (redis(), Process::cordis(2, &[]));
    let (mut redis, mut ours) = (redis.client(), ours.client());
    let first = seed_or(0xbac4);
    for seed in first..first + rounds(300) {
        let made = value::random(&mut Rng::new(seed));
        // Redis: in its order, so that tables are compared as sets.
        make(&mut redis, &made);
        let theirs = dump(&mut redis);
        assert_eq!(restore(&mut ours, &theirs), b"+OK\r\n", "SEED={seed:#x}");
        let back = dump(&mut ours);
        assert_eq!(value_of(&back), value_of(&theirs), "SEED={seed:#x}");
        if !matches!(theirs[0], 2 | 4 | 5) {
            assert!(back == theirs, "SEED={seed:#x}\n ours {back:02x?}\nRedis {theirs:02x?}");
        }
        assert_eq!(restore(&mut redis, &back), b"+OK\r\n", "SEED={seed:#x}");
        let again = dump(&mut redis);
        assert_eq!(value_of(&again), value_of(&theirs), "SEED={seed:#x}");
        let encoding: [&[u8]; 3] = [b"OBJECT", b"ENCODING", b"k"];
        assert_eq!(call(&mut redis, &encoding), call(&mut ours, &encoding), "SEED={seed:#x}");
    }
}
