//! Values as plain data: known payloads, random values and random harm, for tests of the codec here
//! and with servers in `server/tests`.
#![allow(dead_code, reason = "every test binary compiles all of it and uses its part")]

use cordis_engine::rdb::{self, Element, Format, Kind, Limits, Reader, Writer};
use cordis_engine::resp::number::parse_f64;

use super::Rng;

/// A value: elements of one or two texts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    pub(crate) elements: Vec<Vec<Vec<u8>>>,
}

impl Value {
    /// Whether a score is -0, whose sign a packed sorted set loses.
    pub(crate) fn has_negative_zero(&self) -> bool {
        self.kind == Kind::Zset && self.elements.iter().any(|element| element[1] == b"-0")
    }

    /// Whether a score is 0, of either sign.
    pub(crate) fn has_zero_score(&self) -> bool {
        let is_zero = |element: &Vec<Vec<u8>>| matches!(&element[1][..], b"0" | b"-0");
        self.kind == Kind::Zset && self.elements.iter().any(is_zero)
    }
}

/// A payload that is known to be good.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) value: Value,
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub(crate) fn goldens() -> Vec<Golden> {
    let mut found: Vec<Golden> = Vec::new();
    let mut name = "";
    for line in include_str!("good.txt").lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            name = comment;
        } else if let Some(element) = line.strip_prefix("  ") {
            let texts =
                element.split(' ').map(|text| if text == "-" { vec![] } else { unhex(text) });
            let golden = found.last_mut().expect("a payload comes before its elements");
            golden.value.elements.push(texts.collect());
        } else {
            let (kind, payload) = line.split_once(' ').expect("a type and a payload");
            let kind = match kind {
                "string" => Kind::String,
                "list" => Kind::List,
                "set" => Kind::Set,
                "hash" => Kind::Hash,
                "zset" => Kind::Zset,
                other => panic!("no type: {other}"),
            };
            let value = Value { kind, elements: Vec::new() };
            found.push(Golden { name: name.to_owned(), payload: unhex(payload), value });
        }
    }
    assert!(found.len() > 40);
    found
}

/// Most memory that reading `input_bytes` may take: what a compressed string becomes is at most 88
/// times as long, and a part of a value may be held twice.
pub(crate) fn heap_bytes_max(input_bytes: usize) -> usize {
    96 * input_bytes + 4096
}

/// Reads a value. Scores become text, so that values compare.
pub(crate) fn read(body: &[u8]) -> Result<Value, rdb::Error> {
    let mut reader = Reader::new(body)?;
    let kind = reader.kind();
    assert!(reader.count_max() <= 88 * body.len());
    let mut elements = Vec::new();
    loop {
        let element = match reader.next()? {
            None => break,
            Some(Element::Str(text) | Element::Item(text)) => vec![text.to_vec()],
            Some(Element::Field(field, value)) => vec![field.to_vec(), value.to_vec()],
            Some(Element::Member(member, score)) => {
                assert!(!score.is_nan());
                vec![member.to_vec(), score.to_string().into_bytes()]
            }
        };
        elements.push(element);
        assert!(reader.heap_bytes() <= heap_bytes_max(body.len()), "{}", reader.heap_bytes());
        assert!(reader.consumed_bytes() <= body.len());
    }
    assert_eq!(reader.next(), Ok(None), "the end stays the end");
    Ok(Value { kind, elements })
}

/// The same value with scores as [`read`] writes them.
pub(crate) fn with_plain_scores(value: &Value) -> Value {
    let mut value = value.clone();
    if value.kind == Kind::Zset {
        for element in &mut value.elements {
            element[1] = score(&element[1]).to_string().into_bytes();
        }
    }
    value
}

pub(crate) fn score(text: &[u8]) -> f64 {
    parse_f64(text).expect("goldens have numbers for scores")
}

pub(crate) fn write(writer: &mut Writer, value: &Value) {
    let count = value.elements.len();
    let items = value.elements.iter().map(|element| element[0].as_slice());
    let pairs = value.elements.iter().map(|element| (&element[0][..], &element[1][..]));
    match value.kind {
        Kind::String => writer.string(&value.elements[0][0]),
        Kind::List => writer.list(count, items),
        Kind::Set => writer.set(count, items),
        Kind::Hash => writer.hash(count, pairs),
        Kind::Zset => {
            let scored = value.elements.iter().map(|element| (&element[0][..], score(&element[1])));
            writer.zset(count, scored);
        }
    }
}

pub(crate) fn written(format: Format, limits: Limits, value: &Value) -> Vec<u8> {
    rdb::dump_payload(format, limits, |writer| write(writer, value))
}

/// A set of integers comes back ascending: puts it into the order of `want`.
pub(crate) fn sort_integers(got: &mut Value, want: &Value) {
    if got.kind == Kind::Set {
        let place = |element: &Vec<Vec<u8>>| want.elements.iter().position(|e| e == element);
        got.elements.sort_by_key(place);
    }
}

/// Changes bytes, as a broken disk, a cut connection or an attacker would.
pub(crate) fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(8) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => {
                bytes[at] = *rng.pick(&[0, 1, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xfe, 0xff])
            }
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 => bytes[at] = bytes[at].wrapping_sub(1),
            5 => bytes.insert(at, rng.next() as u8),
            6 => {
                let part = bytes[at..].iter().copied().take(1 + rng.below(12)).collect::<Vec<u8>>();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => {
                bytes.drain(at..(at + 1 + rng.below(6)).min(bytes.len()));
            }
        }
        if bytes.is_empty() {
            bytes.push(rng.next() as u8);
        }
    }
}

/// A text of some class of length and number.
pub(crate) fn text(rng: &mut Rng) -> Vec<u8> {
    if rng.percent(40) {
        let n = rng.next() as i64 >> rng.below(64);
        return n.to_string().into_bytes();
    }
    let len = *rng.pick(&[0, 1, 5, 20, 21, 63, 64, 65, 300, 5000]);
    let letters = *rng.pick(&[1, 2, 26, 256]);
    (0..len).map(|_| rng.below(letters) as u8).collect()
}

/// Any value.
pub(crate) fn random(rng: &mut Rng) -> Value {
    let kind = *rng.pick(&[Kind::String, Kind::List, Kind::Set, Kind::Hash, Kind::Zset]);
    let count = if kind == Kind::String { 1 } else { *rng.pick(&[1, 2, 10, 127, 128, 129, 600]) };
    let mut names = std::collections::BTreeSet::new();
    let mut elements = Vec::new();
    for _ in 0..count {
        let name = text(rng);
        if !matches!(kind, Kind::String | Kind::List) && !names.insert(name.clone()) {
            continue;
        }
        elements.push(match kind {
            Kind::Hash => vec![name, text(rng)],
            Kind::Zset => {
                let x = f64::from_bits(rng.next());
                let x = if x.is_nan() { f64::INFINITY } else { x };
                let score =
                    if rng.percent(50) { (rng.next() as i16).to_string() } else { x.to_string() };
                vec![name, score.into_bytes()]
            }
            _ => vec![name],
        });
    }
    Value { kind, elements }
}

/// A long text with repetitions of many lengths and distances, up to noise.
pub(crate) fn compressible(rng: &mut Rng) -> Vec<u8> {
    let len = *rng.pick(&[21, 22, 25, 30, 40, 64, 300, 9000, 40_000, 200_000]);
    let letters = *rng.pick(&[2, 4, 20, 256]);
    let mut text: Vec<u8> = Vec::new();
    while text.len() < len {
        let part_max = *rng.pick(&[4, 30, 300]);
        let part = 1 + rng.below(part_max);
        if text.len() > 4 && rng.percent(50) {
            let from = rng.below(text.len());
            let part: Vec<u8> = text[from..].iter().copied().take(part).collect();
            text.extend(part);
        } else {
            text.extend((0..part).map(|_| rng.below(letters) as u8));
        }
    }
    text.truncate(len);
    text
}
