//! Long strings, as they come in over sockets: each word beyond 64 KiB is received in memory of its
//! own, whatever the pieces that it arrives in and whatever the session waits for meanwhile.

mod common;

use common::process::Process;
use common::shared::reply;
use common::shared::rng::{Rng, seed_or};
use common::shared::words::encoded;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A value of a length at which something changes.
fn value(rng: &mut Rng) -> Vec<u8> {
    let lens = [0, 5, 4_096, 65_535, 65_536, 70_000, 262_144, 262_145, 1_100_000];
    let (len, first) = (*rng.pick(&lens), rng.next());
    (0..len as u64).map(|i| (first + i / 7) as u8).collect()
}

#[test]
fn long_words_arrive_whole_however_they_are_cut() {
    let server = Process::cordis(2, &[]);
    let mut client = server.client();
    let mut rng = Rng::new(seed_or(7));
    let mut model = vec![Vec::new(); KEYS.len()];
    for _ in 0..40 {
        let mut input = Vec::new();
        let count = 1 + rng.below(6);
        for _ in 0..count {
            let (i, j) = (rng.below(KEYS.len()), rng.below(KEYS.len()));
            let (one, two) = (value(&mut rng), value(&mut rng));
            let (a, b) = (KEYS[i].as_bytes(), KEYS[j].as_bytes());
            if rng.percent(50) {
                input.extend(encoded(&[&b"SET"[..], a, &one]));
                model[i] = one;
            } else {
                input.extend(encoded(&[&b"MSET"[..], a, &one, b, &two]));
                model[i] = one;
                model[j] = two;
            }
        }
        let mut rest = &input[..];
        while !rest.is_empty() {
            let len = (*rng.pick(&[1, 100, 16_384, 100_000, 1 << 20])).min(rest.len());
            client.send(&rest[..len]).expect("the server receives");
            rest = &rest[len..];
        }
        for _ in 0..count {
            assert_eq!(client.read_reply().expect("the server answers"), b"+OK\r\n");
        }
        for (key, value) in KEYS.iter().zip(&model) {
            let stored = client.try_call(&[&b"GET"[..], key.as_bytes()]).expect("it answers");
            assert!(reply::bulk(&stored).unwrap_or_default() == value, "{key} is another");
        }
    }
}

#[test]
fn long_words_behind_slow_calls_are_received() {
    let server = Process::cordis(2, &[]);
    let mut client = server.client();
    let long = vec![b'x'; 3 << 20];
    for round in 0..60 {
        let key = format!("k{round}");
        let mut input = encoded(&[&b"BITOP"[..], b"OR", b"to", b"k0", b"k1"]);
        input.extend(encoded(&[&b"SET"[..], key.as_bytes(), &long]));
        input.extend(encoded(&[&b"BITCOUNT"[..], key.as_bytes()]));
        input.extend(encoded(&[&b"SETBIT"[..], key.as_bytes(), b"0", b"1"]));
        input.extend(encoded(&[&b"BITCOUNT"[..], key.as_bytes()]));
        client.send(&input).expect("the server receives");
        client.read_reply().expect("BITOP answers");
        // Four bits of each `x` are set; a count tells of the moment at which it was asked for.
        for want in ["+OK", ":12582912", ":0", ":12582913"] {
            let got = client.read_reply().expect("the server answers");
            assert_eq!(got, format!("{want}\r\n").into_bytes(), "round {round}");
        }
        if round > 1 {
            client.call(&format!("DEL {key}"));
        }
    }
}
