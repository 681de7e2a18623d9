//! Random calls from templates: what differential runs and journal replays feed on.
//!
//! Deterministic by design, so that two servers can be compared: deadlines are far away or past,
//! never near, and relative ones are at least fifty seconds apart from each other. (No SET with a past
//! deadline: Redis keeps such a key until it is next looked at, and DBSIZE counts it meanwhile.)

use std::ops::Range;

use super::rng::Rng;

/// Templates by how often they are used. A word is a list of alternatives divided by `/`; `-` is no
/// word at all, `_` divides words within an alternative, `%` begins a placeholder (see [`Calls`]).
///
/// Each family has keys that it prefers (indices of [`KEYS`]), so that most calls find their type.
const FAMILIES: &[(usize, &[&str], Range<usize>)] = &[
    (16, STRING, 0..3),
    (8, BITMAP, 0..3),
    (22, GENERIC, 0..KEYS.len()),
    (13, TRANSACTION, 0..KEYS.len()),
    (4, CONNECTION, 0..KEYS.len()),
    (14, HASH, 3..5),
    (18, SET, 5..8),
    (18, LIST, 8..11),
    (28, ZSET, 11..14),
    (6, LEX, 11..14),
    (6, HLL, 14..16),
    (6, SORT, 5..14),
    (4, BLOCKING, 8..14),
];

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

const HASH: &[&str] = &[
    "HSET/HMSET/HSETNX %k %e %v",
    "HSET %k %P",
    "HSET %k %P",
    "HGET/HEXISTS/HSTRLEN %k %e",
    "HMGET %k %e -/%e -/%e",
    "HDEL %k %e -/%e -/%e",
    "HDEL %k %E",
    "HLEN/HKEYS/HVALS/HGETALL %k",
    "HINCRBY %k %e %i",
    "HINCRBYFLOAT %k %e %f",
    "HRANDFIELD %k 0/100000 -/WITHVALUES",
];

const SET: &[&str] = &[
    "SADD %k %e -/%e -/%e",
    "SADD %k %E",
    "SADD %k %E",
    "SREM %k %e -/%e",
    "SREM %k %E",
    "SISMEMBER %k %e",
    "SMISMEMBER %k %e %e",
    "SCARD/SMEMBERS %k",
    "SMOVE %k %k %e",
    "SPOP/SRANDMEMBER %k 0/100000",
    "SINTER/SUNION/SDIFF %k -/%k -/%k",
    "SINTERSTORE/SUNIONSTORE/SDIFFSTORE %k %k -/%k -/%k",
    "SINTERCARD 1 %k",
    "SINTERCARD 2 %k %k -/LIMIT_%c",
];

const LIST: &[&str] = &[
    "LPUSH/RPUSH %k %v -/%v",
    "LPUSH/RPUSH %k %E",
    "RPUSH %k %E",
    "LPUSHX/RPUSHX %k %v",
    "LPOP/RPOP %k -/%c",
    "LLEN %k",
    "LRANGE %k %r %r",
    "LINDEX %k %r",
    "LSET %k %r %v",
    "LINSERT %k BEFORE/AFTER %e %v",
    "LREM %k %r %e",
    "LTRIM %k %r %r",
    "RPOPLPUSH %k %k",
    "LMOVE %k %k LEFT/RIGHT LEFT/RIGHT",
    "LPOS %k %e -/RANK_%r -/COUNT_%c -/MAXLEN_%c",
    "LMPOP 1 %k LEFT/RIGHT -/COUNT_%c",
    "LMPOP 2 %k %k LEFT/RIGHT -/COUNT_%c",
];

const ZSET: &[&str] = &[
    "ZADD %k %S %e -/%S_%e",
    "ZADD %k NX/XX/GT/LT/NX_GT/GT_CH/LT_CH/CH %S %e -/%S_%e",
    "ZADD %k -/XX/NX/GT/LT INCR %S %e -/%S_%e",
    "ZADD %k %Z",
    "ZADD %k %Z",
    "ZADD %k %Z",
    "ZINCRBY %k %S %e",
    "ZREM %k %e -/%e",
    "ZREM %k %E",
    "ZCARD %k",
    "ZSCORE/ZRANK/ZREVRANK %k %e",
    "ZMSCORE %k %e %e",
    "ZCOUNT %k %B %B",
    "ZRANGE %k %r %r -/REV -/WITHSCORES",
    "ZRANGE %k %B %B BYSCORE -/REV -/LIMIT_%r_%c -/WITHSCORES",
    "ZREVRANGE %k %r %r -/WITHSCORES",
    "ZRANGEBYSCORE/ZREVRANGEBYSCORE %k %B %B -/WITHSCORES -/LIMIT_%r_%c",
    "ZRANGESTORE %k %k %r %r -/REV",
    "ZRANGESTORE %k %k %B %B BYSCORE -/REV -/LIMIT_%r_%c",
    "ZREMRANGEBYRANK %k %r %r",
    "ZREMRANGEBYSCORE %k %B %B",
    "ZPOPMIN/ZPOPMAX %k -/%c",
    "ZMPOP 1 %k MIN/MAX -/COUNT_%c",
    "ZMPOP 2 %k %k MIN/MAX -/COUNT_%c",
    "ZUNION/ZINTER/ZDIFF 2 %k %k -/WITHSCORES",
    "ZUNION/ZINTER 2 %k %k WEIGHTS %S %S -/AGGREGATE_SUM/AGGREGATE_MIN/AGGREGATE_MAX -/WITHSCORES",
    "ZUNIONSTORE/ZINTERSTORE %k 2 %k %k -/WEIGHTS_%S_%S -/AGGREGATE_SUM/AGGREGATE_MIN/AGGREGATE_MAX",
    "ZUNIONSTORE/ZINTERSTORE/ZDIFFSTORE %k 3 %k %k %k",
    "ZUNIONSTORE/ZINTERSTORE/ZDIFFSTORE %k 1 %k",
    "ZINTERCARD 2 %k %k -/LIMIT_%c",
    "ZRANDMEMBER %k 0/100000 -/WITHSCORES",
];

/// Ranges of members: only where all scores are equal do they mean something. So they are on keys
/// that nobody else writes to.
const LEX: &[&str] = &[
    "ZADD %l 0 %e -/0_%e",
    "ZADD %l %0",
    "ZREM %l %e",
    "ZLEXCOUNT %l %L %L",
    "ZRANGE %l %L %L BYLEX -/REV -/LIMIT_%r_%c",
    "ZRANGEBYLEX/ZREVRANGEBYLEX %l %L %L -/LIMIT_%r_%c",
    "ZRANGESTORE %k %l %L %L BYLEX -/REV -/LIMIT_%r_%c",
    "ZREMRANGEBYLEX %l %L %L",
    "ZINTERSTORE/ZUNIONSTORE/ZDIFFSTORE %k 2 %l %k",
];

const HLL: &[&str] =
    &["PFADD %k %e -/%e", "PFADD %k %E", "PFADD %k %E", "PFCOUNT %k -/%k", "PFMERGE %k -/%k -/%k"];

const SORT: &[&str] = &[
    "SORT/SORT_RO %k -/ALPHA -/DESC/ASC -/LIMIT_%r_%c",
    "SORT %k BY %g -/ALPHA -/GET_%g -/GET_# -/DESC",
    "SORT %k -/ALPHA -/DESC -/LIMIT_%r_%c STORE %k",
    "SORT %k BY nosort STORE %k",
];

/// With nobody there to serve them: they are served at once, or their time passes. Left out of
/// [`Calls::new`].
const BLOCKING: &[&str] = &[
    "BLPOP/BRPOP %k -/%k 0.001",
    "BLMOVE %k %k LEFT/RIGHT LEFT/RIGHT 0.001",
    "BRPOPLPUSH %k %k 0.001",
    "BLMPOP 0.001 2 %k %k LEFT/RIGHT -/COUNT_%c",
    "BZPOPMIN/BZPOPMAX %k -/%k 0.001",
    "BZMPOP 0.001 2 %k %k MIN/MAX -/COUNT_%c",
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

/// Commands whose reply keeps no order that a client may rely on.
pub(crate) const UNORDERED: &[&[u8]] = &[
    b"smembers",
    b"sinter",
    b"sunion",
    b"sdiff",
    b"spop",
    b"srandmember",
    b"hkeys",
    b"hvals",
    b"hgetall",
    b"hrandfield",
    b"zrandmember",
];

/// Whether the reply to a call is up to chance.
pub(crate) fn is_chance(words: &[Vec<u8>]) -> bool {
    let name = words[0].to_ascii_lowercase();
    let is_choice = [&b"spop"[..], b"srandmember", b"hrandfield", b"zrandmember"];
    if !is_choice.contains(&name.as_slice()) {
        return false;
    }
    let count = words.get(2).map(|word| String::from_utf8_lossy(word).parse::<i64>());
    match count {
        None => words.len() == 2,
        // None of any, or all.
        Some(count) => count.is_ok_and(|count| count != 0 && count < 100_000),
    }
}

/// Whether every server answers a call with the same bytes. (Not those that follow SORT, whose ties
/// have no order, and which changes encodings in Redis.)
pub(crate) fn is_exact(words: &[Vec<u8>]) -> bool {
    let name = words[0].to_ascii_lowercase();
    !is_chance(words) && !UNORDERED.contains(&name.as_slice()) && !name.starts_with(b"sort")
}

/// Makes calls.
///
/// Placeholders: `%e` field or member, `%E` several of them, `%P` `%Z` `%0` the same with values, with
/// scores, with scores of 0; `%c` count, `%r` rank, `%S` score, `%B` bound of scores, `%L` bound of
/// members, `%l` key of members whose scores are equal, `%g` pattern of SORT, `%k` key, `%v` value,
/// `%i` integer, `%f` float, `%o` byte offset, `%b` bit offset, `%1` bit, `%s` `%p` seconds and
/// milliseconds from now, `%a` `%A` absolute ones far away, `%z` a past time, `%h` an expiry out of
/// range, `%d` database, `%t` `%O` type and offset of BITFIELD.
#[derive(Debug)]
pub(crate) struct Calls {
    rng: Rng,
    /// Counts calls: keeps deadlines apart.
    step: u64,
    /// The keys that the family of the next call prefers.
    own_keys: Range<usize>,
    /// Whether there are calls that may wait.
    with_blocking: bool,
}

impl Calls {
    /// A sequence.
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), step: 0, own_keys: 0..KEYS.len(), with_blocking: false }
    }

    /// A sequence with calls that wait for a millisecond if there is nothing to serve them.
    pub(crate) fn with_blocking(seed: u64) -> Self {
        Self { with_blocking: true, ..Self::new(seed) }
    }

    /// The source of chance, for what happens between calls.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The next call, as it should be or slightly wrong.
    pub(crate) fn next(&mut self) -> Vec<Vec<u8>> {
        let mut words = self.next_correct();
        let is_lex = words.iter().any(|word| LEX_KEYS.contains(&word.as_slice()));
        // A wrong score among equal ones would make ranges of members mean nothing.
        if self.rng.percent(6) && !is_lex {
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
        let families = if self.with_blocking { FAMILIES } else { &FAMILIES[..FAMILIES.len() - 1] };
        let total = families.iter().map(|(weight, ..)| weight).sum();
        let mut chance = self.rng.below(total);
        let family = families.iter().find(|(weight, ..)| {
            let hit = chance < *weight;
            chance = chance.saturating_sub(*weight);
            hit
        });
        let (_, templates, keys) = family.expect("the chance is below the sum of the weights");
        self.own_keys = keys.clone();
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
                for part in parts {
                    match part {
                        "%E" => self.many(&mut words, |calls, n| vec![calls.element(n)]),
                        "%P" => {
                            self.many(&mut words, |calls, n| vec![calls.element(n), calls.value()])
                        }
                        "%Z" => self.many(&mut words, |calls, n| {
                            let score = calls.rng.below(40) as f64 / 4.0;
                            vec![score.to_string().into_bytes(), calls.element(n)]
                        }),
                        "%0" => {
                            self.many(&mut words, |calls, n| vec![b"0".to_vec(), calls.element(n)])
                        }
                        _ => words.push(self.word(part)),
                    }
                }
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
            "e" => return self.rng.pick(ELEMENTS).as_bytes().to_vec(),
            "c" => return self.rng.pick(COUNTS).as_bytes().to_vec(),
            "r" => return self.rng.pick(RANKS).as_bytes().to_vec(),
            "S" => return self.rng.pick(SCORES).as_bytes().to_vec(),
            "B" => return self.rng.pick(SCORE_BOUNDS).as_bytes().to_vec(),
            "L" => return self.rng.pick(MEMBER_BOUNDS).as_bytes().to_vec(),
            "l" => return self.rng.pick(LEX_KEYS).to_vec(),
            "g" => return self.rng.pick(SORT_PATTERNS).as_bytes().to_vec(),
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

    pub(crate) fn key(&mut self) -> Vec<u8> {
        if self.rng.percent(75) {
            return self.rng.pick(&KEYS[self.own_keys.clone()]).to_vec();
        }
        self.rng.pick(KEYS).to_vec()
    }

    /// Words of a run of neighbouring elements: what carries collections over their thresholds.
    fn many(
        &mut self,
        words: &mut Vec<Vec<u8>>,
        mut one: impl FnMut(&mut Self, usize) -> Vec<Vec<u8>>,
    ) {
        let longest = *self.rng.pick(&[3, 3, 10, 10, 60, 140, 600]);
        let (first, len) = (self.rng.below(20), 1 + self.rng.below(longest));
        // Integers alone, or not, for the whole call.
        let shift = *self.rng.pick(&[0, 0, 1000, 2000]);
        for n in first..first + len {
            words.extend(one(self, n + shift));
        }
    }

    /// An element of a run: up to 1000 an integer.
    fn element(&mut self, n: usize) -> Vec<u8> {
        match n {
            0..1000 => n.to_string().into_bytes(),
            1000..2000 => format!("m{}", n - 1000).into_bytes(),
            _ => format!("an element that is somewhat longer than others: {n}").into_bytes(),
        }
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
    b"l",
    b"z",
    b"k\x00\xff\r\n",
    b"a key whose name is longer than any that fits into the smallest size class of an allocator, \
      because lengths have boundaries, and one of them may be right here",
    b"p",
    b"q",
];

/// Keys of sorted sets whose scores are all equal.
const LEX_KEYS: &[&[u8]] = &[b"lex1", b"{t}lex2"];

/// Fields and members: few, so that calls meet, and around the places where encodings change.
const ELEMENTS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "7",
    "12",
    "-1",
    "40000",
    "-3000000000",
    "9223372036854775807",
    "9223372036854775808",
    "01",
    "-0",
    "",
    "a",
    "b",
    "c",
    "m1",
    "m2",
    "m15",
    "eight ch",
    "nine char",
    "sixty-four characters are just what a listpack takes as a member",
    "sixty-five characters are just too long for any member in a pack.",
    "\u{0}\u{ff}\r\n",
];

const COUNTS: &[&str] = &["0", "1", "2", "3", "5", "1000", "-1", "-2", "abc", ""];

const RANKS: &[&str] =
    &["0", "0", "1", "2", "3", "10", "-1", "-1", "-2", "-3", "-100", "100", "abc"];

const SCORES: &[&str] = &[
    "0",
    "1",
    "1",
    "2",
    "3",
    "-1",
    "-0",
    "1.5",
    "0.1",
    "-2.25",
    "1e3",
    "3.0",
    "1e17",
    "123456789012345678",
    "-9007199254740993",
    "1e-7",
    "1e308",
    "5e-324",
    "inf",
    "-inf",
    "+Infinity",
    "nan",
    "0x10",
    "abc",
    "",
];

const SCORE_BOUNDS: &[&str] = &[
    "-inf", "+inf", "inf", "0", "1", "(1", "2", "(2.5", "5", "(-1", "-1", "(inf", "(", "abc",
    "(abc",
];

const MEMBER_BOUNDS: &[&str] =
    &["-", "+", "-", "+", "[a", "(a", "[m1", "(m15", "[m3", "[", "(", "[7", "(12", "a", ""];

const SORT_PATTERNS: &[&str] = &["*", "{t}*", "x*y", "nosuch*", "*->1", "d->*", "d->1", "*->", "#"];

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
