//! The protocol: requests to words, replies to bytes.

mod common;

use std::hint::black_box;

use cordis_engine::commands::args::ArgRange;
use cordis_engine::resp::error::CommandError;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};
use cordis_engine::resp::reply::{OutBuf, Protocol, Reply};
use criterion::{Criterion, Throughput};

use crate::common::{VALUE, key};

const LIMITS: Limits = Limits { word_bytes_max: 512 << 20, authenticated: true };

/// Requests that a client sends at once.
const PIPELINE: usize = 16;

/// Writes one reply.
type Encode = fn(&mut Reply<'_>);

fn main() {
    common::run(&[parse, parse_split, reply]);
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn set(n: usize) -> Vec<u8> {
    request(&[b"SET", &key(n), VALUE])
}

fn get(n: usize) -> Vec<u8> {
    request(&[b"GET", &key(n)])
}

/// Parses all calls in `bytes`, as a session does with its input.
fn parse_all(parser: &mut Parser, bytes: &[u8], ranges: &mut Vec<ArgRange>) -> usize {
    let (mut at, mut call_count) = (0, 0);
    ranges.clear();
    while at < bytes.len() {
        match parser.next(bytes, at, LIMITS, ranges) {
            Parsed::Call(next) => at = next,
            other => panic!("a whole request is a call, not {other:?}"),
        }
        call_count += 1;
    }
    call_count
}

fn parse(criterion: &mut Criterion) {
    let keys: Vec<_> = (0..16).map(key).collect();
    let mut mget: Vec<&[u8]> = vec![b"MGET"];
    mget.extend(keys.iter().map(|key| &key[..]));
    let requests = [
        ("get", 1, get(7)),
        ("set", 1, set(7)),
        ("inline_get", 1, [b"GET ", &key(7)[..], b"\r\n"].concat()),
        ("mget_16_keys", 1, request(&mget)),
        ("pipeline_of_16_get", PIPELINE, (0..PIPELINE).flat_map(get).collect()),
        ("pipeline_of_16_set", PIPELINE, (0..PIPELINE).flat_map(set).collect()),
    ];
    let mut group = criterion.benchmark_group("parse");
    for (name, call_count, bytes) in &requests {
        group.throughput(Throughput::Elements(*call_count as u64));
        group.bench_function(*name, |bencher| {
            let (mut parser, mut ranges) = (Parser::default(), Vec::new());
            assert_eq!(parse_all(&mut parser, bytes, &mut ranges), *call_count);
            bencher.iter(|| parse_all(&mut parser, black_box(bytes), &mut ranges));
        });
    }
    group.finish();
}

/// A SET that arrives in several pieces: progress is kept, and the call is read once.
fn parse_split(criterion: &mut Criterion) {
    let bytes = set(7);
    let mut group = criterion.benchmark_group("parse_split");
    for piece_count in [2, 8] {
        group.bench_function(format!("set_in_{piece_count}_pieces"), |bencher| {
            let (mut parser, mut ranges) = (Parser::default(), Vec::new());
            let ends: Vec<usize> =
                (1..piece_count).map(|n| bytes.len() * n / piece_count).collect();
            bencher.iter(|| {
                ranges.clear();
                for &end in &ends {
                    let parsed = parser.next(black_box(&bytes[..end]), 0, LIMITS, &mut ranges);
                    assert_eq!(parsed, Parsed::Incomplete);
                }
                parser.next(black_box(&bytes), 0, LIMITS, &mut ranges)
            });
        });
    }
    group.finish();
}

fn reply(criterion: &mut Criterion) {
    let replies: [(&str, Encode); 8] = [
        ("ok", |reply| reply.ok()),
        ("null", |reply| reply.null()),
        ("int_of_1_digit", |reply| reply.int(black_box(1))),
        ("int_of_10_digits", |reply| reply.int(black_box(1_234_567_890))),
        ("bulk_of_64_bytes", |reply| reply.bulk(black_box(VALUE))),
        ("bulk_of_an_int", |reply| reply.bulk_int(black_box(1_234_567_890))),
        ("array_of_16_bulks", |reply| {
            reply.array(16);
            (0..16).for_each(|_| reply.bulk(black_box(VALUE)));
        }),
        ("error", |reply| reply.error(black_box(&CommandError::NOT_INTEGER))),
    ];
    let mut group = criterion.benchmark_group("reply");
    for (name, write) in replies {
        group.bench_function(name, |bencher| {
            let mut out = OutBuf::default();
            bencher.iter(|| {
                out.truncate((0, 0));
                write(&mut Reply::new(&mut out, black_box(Protocol::Resp2)));
                black_box(out.bytes().len())
            });
        });
    }
    group.finish();
}
