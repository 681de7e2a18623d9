//! Runs the functions behind the parser's fuzz targets on seeded input for a few seconds. `SEED` and
//! `ROUNDS` replay and prolong it.
#![allow(clippy::print_stderr, reason = "the runner of the tests shows it with a failure")]

#[path = "../fuzz/src/parse.rs"]
mod parse;

mod common;

use common::rng::{Rng, seed_or};
use common::words::escaped;

/// Pieces that requests, good and bad, are made of.
const PIECES: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*3\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*11\r\n",
    b"*1048577\r\n",
    b"*",
    b"$",
    b"$0\r\n\r\n",
    b"$3\r\nGET\r\n",
    b"$1\r\nk\r\n",
    b"$4\r\n\r\n\r\n\r\n",
    b"$-1\r\n",
    b"$99999999999\r\n",
    b"$5001\r\n",
    b"$16385\r\n",
    b"$03\r\nGET\r\n",
    b":1\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b"\x0b",
    b"\0",
    b"\xff",
    b"PING\r\n",
    b"SET key value\r\n",
    b"\"",
    b"'",
    b"\"a b\"",
    b"'it\\'s'",
    b"\\x41",
    b"\\",
    b"\\n",
    b"word",
    b"12345678901234567890",
    b"1",
];

/// A call that is well formed.
fn call(rng: &mut Rng) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..1 + rng.below(4))
        .map(|_| {
            let len = *rng.pick(&[0, 1, 3, 10, 300, 5000]);
            (0..len).map(|_| rng.next() as u8).collect()
        })
        .collect();
    common::words::encoded(&words)
}

/// Bytes that are almost requests.
fn input(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=rng.below(12) {
        match rng.below(6) {
            0 => bytes.extend(call(rng)),
            1 => bytes.push(rng.next() as u8),
            _ => bytes.extend_from_slice(PIECES[rng.below(PIECES.len())]),
        }
    }
    if rng.percent(30) && !bytes.is_empty() {
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
    if rng.percent(20) {
        bytes.truncate(rng.below(bytes.len() + 1));
    }
    bytes
}

fn run(target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let rounds = std::env::var("ROUNDS").map_or(20_000, |n| n.parse().expect("ROUNDS is a number"));
    let first = seed_or(0xf0221);
    for seed in (first..).take(rounds) {
        let bytes = input(&mut Rng::new(seed));
        if let Err(panic) = std::panic::catch_unwind(|| target(&bytes)) {
            eprintln!("SEED={seed:#x} ROUNDS=1: {}", escaped(&bytes));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn any_bytes_parse_the_same_whole_and_in_pieces() {
    run(parse::fuzz_resp);
}

#[test]
fn any_line_is_a_call_or_nothing_or_an_error() {
    run(parse::fuzz_inline);
}
