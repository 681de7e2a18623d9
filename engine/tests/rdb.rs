//! Payloads of DUMP: those of Redis and codis-server are read and written byte for byte, anything
//! else is read or refused without a panic and without much memory. `SEED` and `ROUNDS` replay and
//! prolong the random tests.
#![allow(clippy::print_stderr, reason = "the runner of the tests shows it with a failure")]

mod common;
#[path = "rdb/value.rs"]
mod value;

use common::rng::{Rng, seed_or};
use cordis_engine::rdb::{self, Element, Format, Limits, Reader, Writer, footer};
use value::{goldens, mutate, read, sort_integers, with_plain_scores, written};

#[test]
fn payloads_of_redis_and_codis_server_are_read() {
    for golden in goldens() {
        let (body, _) = footer::open(&golden.payload).expect(&golden.name);
        let got = read(body).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        assert_eq!(got, with_plain_scores(&golden.value), "{}", golden.name);
    }
}

#[test]
fn values_are_written_as_redis_writes_them() {
    let mut count = 0;
    for golden in goldens() {
        // Redis was told not to compress that one.
        if !golden.name.starts_with("Redis 7.0.15: ") || golden.name.ends_with("not compressed") {
            continue;
        }
        let mut limits = Limits::DEFAULT;
        match golden.name.as_str() {
            "Redis 7.0.15: list, several nodes" => limits.list_node = 16,
            "Redis 7.0.15: list, an element of its own" => limits.list_node = -1,
            _ => {}
        }
        let got = written(Format::V10, limits, &golden.value);
        assert!(got == golden.payload, "{}\n{got:02x?}\n{:02x?}", golden.name, golden.payload);
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn values_are_written_as_codis_server_writes_them() {
    let ours: Vec<_> = goldens().into_iter().filter(|g| g.name.starts_with("codis")).collect();
    assert_eq!(ours.len(), 3);
    for golden in ours {
        let got = written(Format::V7, Limits::DEFAULT, &golden.value);
        assert_eq!(got, golden.payload, "{}", golden.name);
    }
}

#[test]
fn every_layout_of_a_value_reads_the_same() {
    for golden in goldens() {
        let want = with_plain_scores(&golden.value);
        for format in [Format::V10, Format::V7] {
            for limits in [Limits::DEFAULT, Limits::TABLES, Limits::PACKED] {
                let payload = written(format, limits, &golden.value);
                let (body, version) = footer::open(&payload).expect("we have sealed it");
                assert_eq!(version, format.version());
                let mut got = read(body).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
                sort_integers(&mut got, &want);
                assert_eq!(got, want, "{} {format:?} {limits:?}", golden.name);
            }
        }
    }
}

#[test]
fn empty_collections_are_refused() {
    let bodies: [&[u8]; 11] = [
        b"\x01\0",
        b"\x02\0",
        b"\x03\0",
        b"\x04\0",
        b"\x05\0",
        b"\x0a\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff",
        b"\x0b\x08\x02\0\0\0\0\0\0\0",
        b"\x0e\x01\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff",
        b"\x10\x07\x07\0\0\0\0\0\xff",
        b"\x12\0",
        b"\x09\x02\0\xff",
    ];
    for body in bodies {
        assert!(matches!(read(body), Err(rdb::Error::Corrupt { .. })), "{body:02x?}");
    }
}

#[test]
fn elements_that_come_twice_are_refused() {
    let bodies: [&[u8]; 8] = [
        b"\x02\x02\x01a\x01a",
        b"\x02\x02\x015\xc0\x05",
        b"\x04\x02\x01a\x01b\x01a\x01c",
        b"\x03\x02\x01a\x011\x01a\x012",
        b"\x09\x0c\x02\x01a\x01\0b\x01a\x01\0c\xff",
        b"\x10\x13\x13\0\0\0\x04\0\x81a\x02\x81b\x02\x81a\x02\x81c\x02\xff",
        b"\x11\x11\x11\0\0\0\x04\0\x81a\x02\x01\x01\x81a\x02\x02\x01\xff",
        b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x01\0\x01\0",
    ];
    for body in bodies {
        assert!(matches!(read(body), Err(rdb::Error::Corrupt { .. })), "{body:02x?}");
    }
    let mut reader = Reader::new(bodies[0]).expect("it begins well").with_doubles();
    for _ in 0..2 {
        assert_eq!(reader.next(), Ok(Some(Element::Item(b"a"))));
    }
    assert_eq!(reader.next(), Ok(None));
}

#[test]
fn half_a_pair_or_a_score_that_is_no_number_is_refused() {
    let bodies: [&[u8]; 8] = [
        b"\x10\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
        b"\x11\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff",
        b"\x11\x0f\x0f\0\0\0\x02\0\x81a\x02\x83nan\x04\xff",
        b"\x03\x01\x01a\xfd",
        b"\x03\x01\x01a\x03nan",
        b"\x05\x01\x01a\0\0\0\0\0\0\xf8\x7f",
        b"\x05\x01\x01a\0\0\0\0\0\0\xf8",
        b"\x0c\x0e\x0e\0\0\0\x0a\0\0\0\x01\0\0\x01a\xff",
    ];
    for body in bodies {
        assert!(read(body).is_err(), "{body:02x?}");
    }
}

#[test]
fn values_of_types_that_are_not_read_are_named() {
    for tag in 0..=u8::MAX {
        let body = [&[tag][..], &[0; 64]].concat();
        match Reader::new(&body) {
            Err(rdb::Error::Unsupported(named)) => {
                assert!(matches!(named, 6 | 7 | 15 | 19 | 21) && named == tag);
            }
            _ => assert!(!matches!(tag, 6 | 7 | 15 | 19 | 21), "{tag}"),
        }
    }
}

#[test]
fn counts_beyond_the_payload_are_refused_at_once() {
    for tag in [1, 2, 3, 4, 5, 14, 18] {
        for count in
            [&b"\x80\xff\xff\xff\xff"[..], b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x3f"]
        {
            let body = [&[tag][..], count, b"\x01a\x01b"].concat();
            assert!(matches!(Reader::new(&body), Err(rdb::Error::Truncated(_))), "{body:02x?}");
        }
    }
}

#[test]
fn changed_payloads_are_read_or_refused() {
    let bodies: Vec<Vec<u8>> =
        goldens().iter().map(|g| g.payload[..g.payload.len() - 10].to_vec()).collect();
    let rounds =
        std::env::var("ROUNDS").map_or(200_000, |n| n.parse().expect("ROUNDS is a number"));
    let first = seed_or(0x0dd_b17e5);
    let mut good = 0;
    for seed in (first..).take(rounds) {
        let mut rng = Rng::new(seed);
        let mut body = rng.pick(&bodies).clone();
        if rng.percent(5) {
            body[0] = rng.below(22) as u8;
        }
        mutate(&mut body, &mut rng);
        match std::panic::catch_unwind(|| read(&body)) {
            Ok(read) => good += usize::from(read.is_ok()),
            Err(panic) => {
                eprintln!("SEED={seed:#x} ROUNDS=1: {body:02x?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // Neither all nor nothing: the changes are small enough to reach deep.
    assert!(rounds < 1000 || (rounds / 50..rounds / 2).contains(&good), "{good} of {rounds}");
}

#[test]
fn any_value_comes_back_from_any_layout() {
    let first = seed_or(0x0005_7a7e);
    for seed in first..first + 600 {
        let mut rng = Rng::new(seed);
        let value = value::random(&mut rng);
        let want = with_plain_scores(&value);
        let mut limits = *rng.pick(&[Limits::DEFAULT, Limits::TABLES, Limits::PACKED]);
        limits.list_node = *rng.pick(&[-2, -1, -5, 1, 16, 0, i64::MIN, i64::MAX]);
        let format = *rng.pick(&[Format::V10, Format::V7]);
        let payload = written(format, limits, &value);
        let (body, _) = footer::open(&payload).expect("we have sealed it");
        let mut got = read(body).unwrap_or_else(|error| panic!("SEED={seed:#x}: {error}"));
        sort_integers(&mut got, &want);
        // The sign of zero gets lost in a packed sorted set, as in Redis.
        assert!(got == want || want.has_negative_zero(), "SEED={seed:#x}");
    }
}

#[test]
fn long_list_is_written_node_by_node() {
    let items: Vec<Vec<u8>> = (0..20_000).map(|i| format!("item:{i}").into_bytes()).collect();
    let mut writer = Writer::new(Format::V10, Limits::DEFAULT);
    writer.list(items.len(), items.iter().map(Vec::as_slice));
    let value = read(writer.bytes()).expect("we have written it");
    let got: Vec<_> = value.elements.into_iter().flatten().collect();
    assert_eq!(got, items);
}
