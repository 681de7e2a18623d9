//! How keys travel to another Cordis server: as the plain calls that make them there.
//!
//! Small values go whole. A large collection goes in pieces, from a snapshot that costs nothing to
//! take and does not change; a large string is shared with the connection, not copied. Knows no
//! connection: calls are written into a buffer.

use crate::commands::generic::dump_value;
use crate::journal::State;
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::store::entry::{EntryRef, Value};
use crate::types::{Collection, Object};
use crate::units::{DbIndex, Ms};

/// Strings from here on are shared with the connection.
const SHARED_BYTES_MIN: usize = 32 * 1024;
/// Collections that take more memory than this go in pieces.
const WHOLE_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a piece, unless one element is longer.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Most elements of a piece.
const PIECE_ELEMENTS_MAX: usize = 512;

/// What became of a key that was to be written.
#[derive(Debug)]
pub enum Sent {
    /// It is written.
    Whole,
    /// It is large: this writes it piece by piece.
    Pieces(Box<BigValue>),
}

/// Writes a call.
pub fn write_words<'w>(out: &mut OutBuf, words: impl ExactSizeIterator<Item = &'w [u8]>) {
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(words.len());
    words.for_each(|word| reply.bulk(word));
}

/// Writes the call that makes a key, or says how it is to be written.
pub fn write_entry(out: &mut OutBuf, db: DbIndex, entry: EntryRef<'_>) -> Sent {
    let (key, deadline) = (entry.key(), entry.expires_at());
    match entry.value() {
        Value::Object(object) if object.heap_bytes() > WHOLE_BYTES_MAX => {
            let (key, object) = (key.into(), object.clone());
            let big = BigValue { db, key, object, deadline, at: 0, behind: Vec::new() };
            return Sent::Pieces(Box::new(big));
        }
        value @ (Value::Packed(..) | Value::Object(_)) => {
            let payload = dump_value(value);
            let mut text = itoa::Buffer::new();
            let at = text.format(deadline.map_or(0, |at| at.0)).as_bytes();
            let words = [&b"RESTORE"[..], key, at, &payload, b"REPLACE", b"ABSTTL"];
            write_words(out, words.into_iter());
        }
        value => write_string(out, key, value, deadline),
    }
    Sent::Whole
}

fn write_string(out: &mut OutBuf, key: &[u8], value: Value<'_>, deadline: Option<Ms>) {
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(if deadline.is_some() { 5 } else { 3 });
    reply.bulk(b"SET");
    reply.bulk(key);
    match value {
        Value::Big(data) if data.len() >= SHARED_BYTES_MIN => reply.bulk_shared(data),
        value => reply.bulk(&value.bytes()),
    }
    if let Some(at) = deadline {
        reply.bulk(b"PXAT");
        reply.bulk_int(at.0);
    }
}

/// A large collection on its way.
#[derive(Debug)]
pub struct BigValue {
    /// Its database.
    pub db: DbIndex,
    key: Box<[u8]>,
    /// As it was when its key was passed.
    object: Object,
    deadline: Option<Ms>,
    /// Where the next piece begins: a position, or a mark of a hash.
    at: usize,
    /// Others that are to follow.
    behind: Vec<Self>,
}

impl BigValue {
    /// What a key holds, as the journal tells of it.
    pub fn of_state(db: DbIndex, state: State) -> Self {
        let State { key, value, deadline } = state;
        Self { db, key, object: value, deadline, at: 0, behind: Vec::new() }
    }

    /// Another one of the same database is to follow.
    pub fn push_behind(&mut self, next: Self) {
        self.behind.push(next);
    }

    /// Writes the next piece; `false` if that was the last. Each is one call.
    pub fn write_piece(&mut self, out: &mut OutBuf) -> bool {
        if self.write_own_piece(out) {
            return true;
        }
        let mut behind = std::mem::take(&mut self.behind);
        let Some(next) = behind.pop() else { return false };
        *self = Self { behind, ..next };
        true
    }

    fn write_own_piece(&mut self, out: &mut OutBuf) -> bool {
        let mut words = Words::default();
        let next = match &self.object {
            Object::List(list) => {
                let view = list.view();
                let mut at = self.at;
                while at < view.len() && !words.is_full() {
                    let to = (at + 64).min(view.len());
                    view.for_each(at, to, |item| words.push(&item.text()));
                    at = to;
                }
                (at < view.len()).then_some(at)
            }
            Object::Set(set) => {
                let view = set.view();
                let mut at = self.at;
                while at < view.len() && !words.is_full() {
                    at = view.walk(at, |item| words.push(&item.text()));
                }
                (at < view.len()).then_some(at)
            }
            Object::Hash(hash) => {
                let (view, mut at) = (hash.view(), Some(self.at));
                while let Some(mark) = at
                    && !words.is_full()
                {
                    at = view.walk(mark, |field, value| {
                        words.push(&field.text());
                        words.push(&value.text());
                    });
                }
                at
            }
            Object::Zset(zset) => {
                let view = zset.view();
                let mut at = self.at;
                while at < view.len() && !words.is_full() {
                    let to = (at + 64).min(view.len());
                    for (member, score) in view.range(at, to) {
                        words.push(crate::resp::number::format_g17(score).as_bytes());
                        words.push(&member.text());
                    }
                    at = to;
                }
                (at < view.len()).then_some(at)
            }
        };
        let name = match &self.object {
            Object::List(_) => &b"RPUSH"[..],
            Object::Set(_) => b"SADD",
            Object::Hash(_) => b"HSET",
            Object::Zset(_) => b"ZADD",
        };
        // The last step of a walk may find nothing; then only the deadline is left, if there is one.
        if words.ends.is_empty() {
            return self.write_deadline(out);
        }
        let mut reply = Reply::new(out, Protocol::Resp2);
        reply.array(words.ends.len() + 2);
        reply.bulk(name);
        reply.bulk(&self.key);
        words.each(|word| reply.bulk(word));
        // A mark beyond the end: nothing is found there the next time.
        self.at = next.unwrap_or(usize::MAX);
        if next.is_none() && self.deadline.is_none() {
            return false;
        }
        if next.is_none() {
            self.object = Object::default();
            self.at = 0;
        }
        true
    }

    /// The last call: when it ends. Writes something in any case, so that a piece is one call.
    fn write_deadline(&mut self, out: &mut OutBuf) -> bool {
        let mut text = itoa::Buffer::new();
        match self.deadline {
            Some(at) => {
                let at = text.format(at.0).as_bytes();
                write_words(out, [&b"PEXPIREAT"[..], &self.key, at].into_iter());
            }
            None => write_words(out, [&b"EXISTS"[..], &self.key].into_iter()),
        }
        false
    }
}

/// The words of a piece.
#[derive(Default)]
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn push(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE_BYTES_MAX || self.ends.len() >= PIECE_ELEMENTS_MAX
    }

    fn each(&self, mut visit: impl FnMut(&[u8])) {
        let mut from = 0;
        for &end in &self.ends {
            visit(&self.bytes[from..end]);
            from = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::OwnedArgs;
    use crate::commands::bare::Bare;
    use crate::resp::parse::{Limits, Parsed, Parser};
    use crate::shard::state::KeyRef;

    const LIMITS: Limits = Limits { word_bytes_max: 1 << 30, authenticated: true };

    /// The calls that make a key of `bare`.
    fn calls(bare: &Bare, key: &[u8]) -> Vec<OwnedArgs> {
        let shard = bare.held[0].as_ref().expect("all doors are held");
        let (db, key) = (DbIndex(0), KeyRef::new(key));
        let at = shard.find(db, key).expect("the key is there");
        let mut out = OutBuf::default();
        if let Sent::Pieces(mut big) = write_entry(&mut out, db, shard.entry(db, key.slot, at)) {
            while big.write_piece(&mut out) {}
        }
        let bytes = out.to_vec();
        let (mut calls, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let mut ranges = Vec::new();
            let Parsed::Call(next) = Parser::default().next(&bytes, at, LIMITS, &mut ranges) else {
                panic!("no call at {at}")
            };
            calls.push(crate::commands::args::Args::new(&bytes, &ranges).to_owned());
            at = next;
        }
        calls
    }

    #[test]
    fn value_of_any_type_and_size_is_the_same_after_its_calls() {
        let mut source = Bare::new(1, 1);
        let mut client = source.client();
        for count in [1usize, 3, 200, 5_000] {
            for kind in ["RPUSH", "SADD", "HSET", "ZADD"] {
                for n in 0..count {
                    let (a, b) = (format!("{n}.25"), format!("element-{n}"));
                    let key = format!("{kind}{count}");
                    let words: Vec<&[u8]> = match kind {
                        "HSET" | "ZADD" => {
                            vec![kind.as_bytes(), key.as_bytes(), a.as_bytes(), b.as_bytes()]
                        }
                        _ => vec![kind.as_bytes(), key.as_bytes(), b.as_bytes()],
                    };
                    source.call(&mut client, &words);
                }
            }
        }
        for n in 0..3_000 {
            source.call(&mut client, &[b"SADD", b"ints", n.to_string().as_bytes()]);
        }
        source.call(&mut client, &[b"PEXPIREAT", b"HSET5000", b"1900000000123"]);
        source.call(&mut client, &[b"PEXPIREAT", b"RPUSH3", b"1900000000124"]);
        source.call(&mut client, &[b"SET", b"text", b"abc", b"PXAT", b"1900000000125"]);
        source.call(&mut client, &[b"SET", b"number", b"-17"]);
        source.call(&mut client, &[b"SETRANGE", b"big", b"100000", b"end"]);
        let keys = source.call(&mut client, &[b"KEYS", b"*"]);
        let keys = String::from_utf8(keys).expect("keys here are text");
        let keys: Vec<&str> = keys.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
        assert_eq!(keys.len(), 20);
        let mut target = Bare::new(1, 2);
        let mut other = target.client();
        for key in &keys {
            let calls = calls(&source, key.as_bytes());
            let longest = calls.iter().map(OwnedArgs::heap_bytes).max().unwrap_or(0);
            assert!(*key == "big" || longest < 200_000, "{key}: a call of {longest} bytes");
            for call in calls {
                let mut out = OutBuf::default();
                target.call_into(&mut other, &call, &mut out);
                assert!(!out.to_vec().starts_with(b"-"), "{key}: {:?}", out.to_vec());
            }
            for command in ["DUMP", "PEXPIRETIME"] {
                let call: [&[u8]; 2] = [command.as_bytes(), key.as_bytes()];
                // Of sets and hashes the order is free.
                let is_free = ["SADD", "HSET", "ints"].iter().any(|name| key.contains(name));
                if command == "DUMP" && is_free {
                    let call: [&[u8]; 3] = [b"DEBUG", b"DIGEST-VALUE", key.as_bytes()];
                    let want = source.call(&mut client, &call);
                    assert_eq!(target.call(&mut other, &call), want, "{key}");
                    continue;
                }
                assert_eq!(
                    target.call(&mut other, &call),
                    source.call(&mut client, &call),
                    "{key}"
                );
            }
        }
    }
}
