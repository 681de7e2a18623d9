//! What must hold for any bytes that a client may send.
#![allow(dead_code, reason = "each target uses its function")]

use cordis_engine::commands::args::ArgRange;
use cordis_engine::resp::parse::{Limits, Parsed, Parser};

/// Longer inputs meet the limits of lines at a length that depends on how the bytes arrive.
const INPUT_BYTES_MAX: usize = 60 * 1024;

/// Longest word in these tests: short, so that the limit is met.
const WORD_BYTES_MAX: usize = 5000;

/// The words of a call.
type Call = Vec<Vec<u8>>;

/// What was parsed from a whole input: calls, and what ended it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    calls: Vec<Call>,
    /// An error's text; none if the input ended within a call or after one.
    error: Option<String>,
    /// Bytes that whole calls took.
    used: usize,
}

/// Any bytes.
pub(crate) fn fuzz_resp(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_BYTES_MAX)];
    for authenticated in [true, false] {
        let limits = Limits { word_bytes_max: WORD_BYTES_MAX, authenticated };
        let whole = parse_in_pieces(data, limits, |_| data.len());
        let pieces = parse_in_pieces(data, limits, |at| at + 1 + piece_len(data, at));
        assert_eq!(whole, pieces, "bytes in pieces mean something else");
        let bytes_one_by_one = data.len() < 200;
        if bytes_one_by_one {
            assert_eq!(whole, parse_in_pieces(data, limits, |at| at + 1));
        }
        if authenticated {
            parse_again(&whole, limits);
        }
    }
}

/// One line.
pub(crate) fn fuzz_inline(data: &[u8]) {
    let mut line: Vec<u8> = data[..data.len().min(INPUT_BYTES_MAX)].to_vec();
    line.retain(|byte| *byte != b'\n');
    if line.first() == Some(&b'*') {
        line[0] = b'+';
    }
    line.push(b'\n');
    let limits = Limits { word_bytes_max: WORD_BYTES_MAX, authenticated: true };
    let outcome = parse_in_pieces(&line, limits, |_| line.len());
    assert!(outcome.calls.len() <= 1, "one line, {} calls", outcome.calls.len());
    assert!(outcome.error.is_some() || outcome.used == line.len(), "a whole line was not taken");
    fuzz_resp(&line);
}

/// A length of a piece that depends on the bytes: the same input gives the same pieces.
fn piece_len(data: &[u8], at: usize) -> usize {
    let seed = data[at..]
        .iter()
        .take(8)
        .fold(at, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    seed % 40
}

/// Parses `data` as it arrives: after `next_end(n)` of it if `n` bytes are there.
fn parse_in_pieces(data: &[u8], limits: Limits, next_end: impl Fn(usize) -> usize) -> Outcome {
    let mut parser = Parser::default();
    let mut outcome = Outcome { calls: Vec::new(), error: None, used: 0 };
    let mut end = 0;
    while end < data.len() {
        end = next_end(end).clamp(end + 1, data.len());
        while outcome.used < end {
            let mut ranges: Vec<ArgRange> = Vec::new();
            let start = outcome.used;
            outcome.used = match parser.next(&data[..end], start, limits, &mut ranges) {
                Parsed::Call(next) => {
                    outcome.calls.push(words(data, &ranges, start, next));
                    next
                }
                Parsed::Inline(call, next) => {
                    outcome.calls.push(call.args().iter_from(0).map(<[u8]>::to_vec).collect());
                    next
                }
                Parsed::Nothing(next) => next,
                Parsed::Incomplete => {
                    assert!(ranges.is_empty(), "words of a call that is not complete");
                    break;
                }
                Parsed::Error(error) => {
                    outcome.error = Some(error.text().to_owned());
                    return outcome;
                }
            };
            assert!(start < outcome.used && outcome.used <= end, "no progress, or too much");
        }
    }
    outcome
}

/// The words of a call, which lie in order between its first byte and its end.
fn words(data: &[u8], ranges: &[ArgRange], start: usize, next: usize) -> Call {
    assert!(!ranges.is_empty(), "a call without words");
    let mut at = start;
    let word = |range: &ArgRange| {
        let (from, to) = (range.start as usize, range.end as usize);
        assert!(at <= from && from <= to && to <= next, "{from}..{to} is out of place");
        at = to;
        data[from..to].to_vec()
    };
    ranges.iter().map(word).collect()
}

/// Calls that are encoded again parse to themselves.
fn parse_again(outcome: &Outcome, limits: Limits) {
    let is_allowed = |call: &&Call| call.iter().all(|word| word.len() <= WORD_BYTES_MAX);
    let calls: Vec<Call> = outcome.calls.iter().filter(is_allowed).cloned().collect();
    let mut bytes = Vec::new();
    for call in &calls {
        bytes.extend(format!("*{}\r\n", call.len()).into_bytes());
        for word in call {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    let again = parse_in_pieces(&bytes, limits, |_| bytes.len());
    assert_eq!(again, Outcome { calls, error: None, used: bytes.len() });
}
