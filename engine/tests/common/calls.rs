//! Random calls from templates: what differential runs and journal replays feed on.
//!
//! Deterministic by design, so that two servers can be compared: deadlines are far away or past,
//! never near, and relative ones are at least fifty seconds apart from each other. (No SET with a past
//! deadline: Redis keeps such a key until it is next looked at, and DBSIZE counts it meanwhile.)

use super::rng::Rng;

/// Templates by how often they are used. A word is a list of alternatives divided by `/`; `-` is no
/// word at all, `_` divides words within an alternative, `%` begins a placeholder (see [`Calls`]).
const TEMPLATES: &[(usize, &[&str])] =
    &[(30, STRING), (18, BITMAP), (30, GENERIC), (16, TRANSACTION), (6, CONNECTION)];

const STRING: &[&str] = &[
    "GET %k",
    "SET %k %v",
    "SET %k %v -/NX/XX -/GET -/KEEPTTL/EX_%s/PX_%p/EXAT_%a/PXAT_%A",
    "SET %k %v EX/PX %h",
    "SETNX %k %v",
    "SETEX %k %s %v",
    "PSETEX %k %p %v",
    "GETSET %k %v",
    "GETDEL %k",
    "GETEX %k -/PERSIST/EX_%s/PX_%p/EXAT_%a/PXAT_%A/EXAT_%z",
    "APPEND %k %v",
    "STRLEN %k",
    "INCR/DECR %k",
    "INCRBY/DECRBY %k %i",
    "INCRBYFLOAT %k %f",
    "GETRANGE/SUBSTR %k %i %i",
    "GETRANGE %k %o %o",
    "SETRANGE %k %o %v",
    "MGET %k -/%k -/%k",
    "MSET %k %v %k %v",
    "MSETNX %k %v -/%k_%v",
    "LCS %k %k -/LEN/IDX/IDX_MINMATCHLEN_4/IDX_WITHMATCHLEN",
];

const BITMAP: &[&str] = &[
    "SETBIT %k %b %1",
    "GETBIT %k %b",
    "BITCOUNT %k",
    "BITCOUNT %k %i %i -/BYTE/BIT",
    "BITPOS %k %1 -/%o -/%o -/BYTE/BIT",
    "BITOP AND/OR/XOR %k %k -/%k -/%k",
    "BITOP NOT %k %k",
    "BITFIELD %k GET %t %O",
    "BITFIELD %k SET %t %O %i -/GET_%t_%O",
    "BITFIELD %k -/OVERFLOW_WRAP/OVERFLOW_SAT/OVERFLOW_FAIL INCRBY %t %O %i -/INCRBY_%t_%O_%i",
    "BITFIELD_RO %k GET %t %O",
];

const GENERIC: &[&str] = &[
    "DEL/UNLINK/EXISTS/TOUCH %k -/%k -/%k",
    "TYPE %k",
    "EXPIRE %k %s -/NX/XX/GT/LT",
    "PEXPIRE %k %p -/NX/XX/GT/LT",
    "EXPIREAT %k %a -/NX/XX/GT/LT",
    "PEXPIREAT %k %A -/NX/XX/GT/LT/NX_GT",
    "EXPIREAT/PEXPIREAT %k %z -/NX/XX/GT/LT",
    "EXPIRE/PEXPIRE/EXPIREAT %k %h",
    "TTL/PTTL/EXPIRETIME/PEXPIRETIME %k",
    "PERSIST %k",
    "RENAME/RENAMENX %k %k",
    "COPY %k %k -/DB_%d -/REPLACE",
    "MOVE %k %d",
    "OBJECT ENCODING %k",
    "SELECT %d",
    "SWAPDB %d %d",
    "DBSIZE",
    "DBSIZE",
    "WAIT 0 0",
];

const TRANSACTION: &[&str] = &[
    "MULTI",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH %k -/%k",
    "WATCH %k",
    "UNWATCH",
];

const CONNECTION: &[&str] = &[
    "PING -/%v",
    "ECHO %v",
    "CLIENT GETNAME",
    "CLIENT SETNAME %k",
    "FLUSHDB -/ASYNC/SYNC",
    "FLUSHALL -/ASYNC/SYNC",
    "NOSUCH %v %k",
    "OBJECT NOSUCH %k",
];

/// Makes calls.
///
/// Placeholders: `%k` key, `%v` value, `%i` integer, `%f` float, `%o` byte offset, `%b` bit offset,
/// `%1` bit, `%s` `%p` seconds and milliseconds from now, `%a` `%A` absolute ones far away, `%z` a
/// past time, `%h` an expiry out of range, `%d` database, `%t` `%O` type and offset of BITFIELD.
#[derive(Debug)]
pub(crate) struct Calls {
    rng: Rng,
    /// Counts calls: keeps deadlines apart.
    step: u64,
}

impl Calls {
    /// A sequence.
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), step: 0 }
    }

    /// The source of chance, for what happens between calls.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The next call, as it should be or slightly wrong.
    pub(crate) fn next(&mut self) -> Vec<Vec<u8>> {
        let mut words = self.next_correct();
        if self.rng.percent(6) {
            self.spoil(&mut words);
        }
        if self.rng.percent(10) {
            words[0].make_ascii_lowercase();
        }
        words
    }

    /// The next call, well formed.
    pub(crate) fn next_correct(&mut self) -> Vec<Vec<u8>> {
        self.step += 1;
        let total = TEMPLATES.iter().map(|(weight, _)| weight).sum();
        let mut chance = self.rng.below(total);
        let family = TEMPLATES.iter().find(|(weight, _)| {
            let hit = chance < *weight;
            chance = chance.saturating_sub(*weight);
            hit
        });
        let (_, templates) = family.expect("the chance is below the sum of the weights");
        let template = *self.rng.pick(templates);
        self.fill(template)
    }

    fn fill(&mut self, template: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        for word in template.split(' ') {
            let alternatives: Vec<&str> = word.split('/').collect();
            let chosen = *self.rng.pick(&alternatives);
            if chosen != "-" {
                // BITFIELD_RO is one word.
                let parts: Vec<&str> = if chosen.starts_with("BITFIELD") {
                    vec![chosen]
                } else {
                    chosen.split('_').collect()
                };
                words.extend(parts.iter().map(|part| self.word(part)));
            }
        }
        words
    }

    fn word(&mut self, part: &str) -> Vec<u8> {
        let Some(kind) = part.strip_prefix('%') else {
            return part.as_bytes().to_vec();
        };
        let apart = self.step * 50;
        let text = match kind {
            "k" => return self.key(),
            "v" => return self.value(),
            "i" => return self.rng.pick(INTEGERS).as_bytes().to_vec(),
            "f" => return self.rng.pick(FLOATS).as_bytes().to_vec(),
            "o" => return self.rng.pick(OFFSETS).as_bytes().to_vec(),
            "b" => return self.rng.pick(BIT_OFFSETS).as_bytes().to_vec(),
            "t" => return self.rng.pick(FIELD_TYPES).as_bytes().to_vec(),
            "O" => return self.rng.pick(FIELD_OFFSETS).as_bytes().to_vec(),
            "h" => return self.rng.pick(WRONG_DEADLINES).as_bytes().to_vec(),
            "z" => {
                return self.rng.pick(&["1", "1000000000", "-5"]).as_bytes().to_vec();
            }
            "1" => self.rng.below(2).to_string(),
            "d" => self.rng.below(3).to_string(),
            "s" => (100_000 + apart).to_string(),
            "p" => ((100_000 + apart) * 1000).to_string(),
            "a" => (33_000_000_000 + apart).to_string(),
            "A" => ((33_000_000_000 + apart) * 1000).to_string(),
            _ => unreachable!("a template with the placeholder %{kind}"),
        };
        text.into_bytes()
    }

    fn key(&mut self) -> Vec<u8> {
        self.rng.pick(KEYS).to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.below(10) {
            0..3 => self.rng.pick(INTEGERS).as_bytes().to_vec(),
            3 => self.rng.pick(FLOATS).as_bytes().to_vec(),
            4 => b"short".to_vec(),
            // Around the lengths where encodings change.
            5 => vec![b'e'; 43 + self.rng.below(4)],
            6 => b"\x00\xff binary \r\n\x80".to_vec(),
            7 => (0..self.rng.below(12)).map(|_| b"abc"[self.rng.below(3)]).collect(),
            8 => vec![b'm'; 200 + self.rng.below(100)],
            _ if self.rng.percent(15) => vec![b'L'; 4000 + self.rng.below(200)],
            _ => Vec::new(),
        }
    }

    /// Makes one small mistake.
    fn spoil(&mut self, words: &mut Vec<Vec<u8>>) {
        let at = self.rng.below(words.len());
        match self.rng.below(4) {
            0 if words.len() > 1 => {
                words.remove(at.max(1));
            }
            1 => words.push(self.rng.pick(GARBAGE).as_bytes().to_vec()),
            2 => words.insert(at + 1, self.rng.pick(GARBAGE).as_bytes().to_vec()),
            _ if at > 0 => words[at] = self.rng.pick(GARBAGE).as_bytes().to_vec(),
            _ => {}
        }
    }
}

/// Few, so that calls meet; some share a tag, some are no text.
const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"{t}1",
    b"{t}2",
    b"{t}3",
    b"x{a}y",
    b"{}x",
    b"",
    b"k\x00\xff\r\n",
    b"a key whose name is longer than any that fits into the smallest size class of an allocator, \
      because lengths have boundaries, and one of them may be right here",
];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "7",
    "10",
    "-3",
    "255",
    "9999",
    "10000",
    "123456789",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "4294967296",
    "-100",
    "+1",
    "01",
    "-0",
    "",
    " 1",
    "1 ",
    "1e3",
    "0x10",
    "abc",
];

const FLOATS: &[&str] = &[
    "0",
    "1.5",
    "-0.1",
    "3.0e3",
    "1e-10",
    "0.3",
    "10",
    "-2.5",
    "1e17",
    "12345678901234567",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "abc",
    "",
    " 1",
    "5.0e-324",
    "0x1p4",
    "9223372036854775807",
];

const OFFSETS: &[&str] =
    &["0", "1", "3", "5", "44", "700", "4095", "4097", "-1", "-2", "4294967296", "abc"];

const BIT_OFFSETS: &[&str] =
    &["0", "1", "7", "8", "9", "31", "100", "5000", "-1", "4294967296", "abc", "#1"];

const FIELD_TYPES: &[&str] =
    &["u1", "u2", "u7", "u8", "i8", "i16", "u32", "u63", "i64", "i1", "u64", "i65", "x8", "u"];

const FIELD_OFFSETS: &[&str] =
    &["0", "1", "5", "8", "#0", "#1", "#3", "100", "-1", "#-1", "4294967296", "#", "abc"];

const WRONG_DEADLINES: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
    "-9223372036854775",
    "0",
    "-1",
    "abc",
    "",
];

/// No small positive number among it: it might become a near deadline.
const GARBAGE: &[&str] = &[
    "abc",
    "",
    "-1",
    "0",
    "9223372036854775807",
    "1e5",
    " 1",
    "NX",
    "GET",
    "EX",
    "BYTE",
    "*",
    "(",
];
