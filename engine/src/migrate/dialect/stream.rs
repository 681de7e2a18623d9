//! One key as a sequence of messages: `delete`, then the value whole, or in chunks that end with
//! `expire`.

use crate::commands::generic::dump::dump_value_old;
use crate::migrate::dialect::snapshot::{Snapshot, View};
use crate::migrate::dialect::wire::{self, RESTORE_ASYNC, number};
use crate::resp::reply::{OutBuf, Protocol, Reply};
use crate::types::pack::Item;
use crate::units::Ms;

/// How large messages may get, and how long a silence may last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// Longest silence of the target.
    pub timeout_ms: i64,
    /// Words of elements in a message.
    pub bulks_max: usize,
    /// Bytes that wait to be sent.
    pub bytes_max: usize,
}

/// What an integer that is stored as one counts for in a chunk.
const INT_BYTES: usize = 8;

/// Where a key is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nothing was sent.
    Prepare,
    /// The value is next.
    Payload,
    /// The elements from this position on are next.
    Chunks(usize),
    /// The true deadline is next.
    Expire,
    /// All was sent.
    Done,
}

/// A key on its way to a target.
#[derive(Debug)]
pub struct KeyStream {
    key: Box<[u8]>,
    /// None if the key has gone: then the target's copy goes as well.
    value: Option<Snapshot>,
    expires_at: Option<Ms>,
    stage: Stage,
    chunk_count: usize,
}

impl KeyStream {
    /// A key with its value and deadline; without a value if it is gone.
    pub fn new(key: Box<[u8]>, value: Option<Snapshot>, expires_at: Option<Ms>) -> Self {
        Self { key, value, expires_at, stage: Stage::Prepare, chunk_count: 0 }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Where it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The value that is sent.
    pub fn value(&self) -> Option<&Snapshot> {
        self.value.as_ref()
    }

    /// When the key ends.
    pub fn expires_at(&self) -> Option<Ms> {
        self.expires_at
    }

    /// Chunks that were sent.
    pub fn chunk_count(&self) -> usize {
        self.chunk_count
    }

    /// Whether it goes in chunks.
    pub fn is_chunked(&self, params: &Params) -> bool {
        self.value.as_ref().is_some_and(|value| value.bulk_count() > params.bulks_max)
    }

    /// The key itself, when all was sent.
    pub fn into_key(self) -> Box<[u8]> {
        self.key
    }

    /// Writes the next message; `false` if there is none. `backlog_bytes` wait to be sent already.
    ///
    /// # Complexity
    /// O(`bulks_max`); a long string is shared, not copied.
    pub fn write_next(
        &mut self,
        out: &mut OutBuf,
        params: &Params,
        backlog_bytes: usize,
        now: Ms,
    ) -> bool {
        let stage = match (self.stage, &self.value) {
            (Stage::Done, _) => return false,
            (Stage::Prepare, None) => Stage::Done,
            (Stage::Prepare, Some(_)) if self.is_chunked(params) => Stage::Chunks(0),
            (Stage::Prepare, Some(_)) => Stage::Payload,
            (Stage::Payload | Stage::Expire, _) => Stage::Done,
            (Stage::Chunks(from), Some(value)) => {
                let guard_ms = params.timeout_ms.saturating_mul(3);
                let bytes_max = params.bytes_max.saturating_sub(backlog_bytes).max(1);
                self.chunk_count += 1;
                let limits = Limits { bulks_max: params.bulks_max, bytes_max };
                let next = write_chunk(out, &self.key, value, from, guard_ms, limits);
                self.stage = next.map_or(Stage::Expire, Stage::Chunks);
                return true;
            }
            (Stage::Chunks(_), None) => Stage::Done,
        };
        match self.stage {
            Stage::Prepare => wire::command(out, &[RESTORE_ASYNC, b"delete", &self.key]),
            Stage::Payload => self.write_payload(out, now),
            _ => {
                let ttl = number(self.ttl_ms(now));
                wire::command(out, &[RESTORE_ASYNC, b"expire", &self.key, &ttl]);
            }
        }
        self.stage = stage;
        true
    }

    /// What is left of the key's time; 0 if it has no end.
    fn ttl_ms(&self, now: Ms) -> i64 {
        ttl_ms(self.expires_at, now)
    }

    fn write_payload(&self, out: &mut OutBuf, now: Ms) {
        let ttl = number(self.ttl_ms(now));
        let Some(value) = &self.value else { return };
        match value {
            Snapshot::Big(data) => {
                wire::command_with(out, &[RESTORE_ASYNC, b"string", &self.key, &ttl], data);
            }
            Snapshot::Int(_) | Snapshot::Text(_) => {
                let text = value.value().bytes();
                wire::command(out, &[RESTORE_ASYNC, b"string", &self.key, &ttl, &text]);
            }
            Snapshot::Packed(..) | Snapshot::Object(_) => {
                let payload = dump_value_old(value.value());
                wire::command(out, &[RESTORE_ASYNC, b"object", &self.key, &ttl, &payload]);
            }
        }
    }
}

/// What is left of a key's time in a message: at least 1 if it ends, 0 if it does not.
pub fn ttl_ms(expires_at: Option<Ms>, now: Ms) -> i64 {
    expires_at.map_or(0, |at| at.0.saturating_sub(now.0).max(1))
}

/// How much one chunk takes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    bulks_max: usize,
    bytes_max: usize,
}

/// Words of a chunk that is being filled.
struct Chunk {
    words: OutBuf,
    count: usize,
    bytes: usize,
    limits: Limits,
}

impl Chunk {
    fn is_full(&self) -> bool {
        // One element goes in any case.
        self.count > 0
            && (self.count >= self.limits.bulks_max || self.bytes >= self.limits.bytes_max)
    }

    fn item(&mut self, item: Item<'_>) {
        self.bytes += match item {
            Item::Int(_) => INT_BYTES,
            Item::Str(text) => text.len(),
        };
        self.count += 1;
        item.reply(&mut Reply::new(&mut self.words, Protocol::Resp2));
    }

    fn score(&mut self, score: f64) {
        self.bytes += INT_BYTES;
        self.count += 1;
        Reply::new(&mut self.words, Protocol::Resp2).bulk(&score.to_le_bytes());
    }
}

/// Writes the elements from a position on; where the next chunk begins, or none after the last. The
/// original finds the end only when it looks behind the last element: if that was the last that fits,
/// an empty chunk follows.
fn write_chunk(
    out: &mut OutBuf,
    key: &[u8],
    value: &Snapshot,
    from: usize,
    guard_ms: i64,
    limits: Limits,
) -> Option<usize> {
    let mut chunk = Chunk { words: OutBuf::default(), count: 0, bytes: 0, limits };
    let mut at = from;
    let len = value.len();
    let kind: &[u8] = match value.view() {
        View::String => return None,
        View::List(list) => {
            while at < len && !chunk.is_full() {
                let (run, mut offset) = (at, 0);
                // A leaf is looked up once for some elements.
                list.for_each(run, len.min(run + ELEMENTS_AHEAD), |item| {
                    if !chunk.is_full() {
                        chunk.item(item);
                        offset += 1;
                    }
                });
                at += offset;
            }
            b"list"
        }
        View::Hash(hash) => {
            while let (false, Some((field, value))) = (chunk.is_full(), hash.at(at)) {
                chunk.item(field);
                chunk.item(value);
                at += 1;
            }
            b"hash"
        }
        View::Set(set) => {
            while let (false, Some(member)) = (chunk.is_full(), set.at(at)) {
                chunk.item(member);
                at += 1;
            }
            b"dict"
        }
        View::Zset(zset) => {
            // From the highest score down.
            for (member, score) in zset.range_rev(0, len - at.min(len)) {
                if chunk.is_full() {
                    break;
                }
                chunk.item(member);
                chunk.score(score);
                at += 1;
            }
            b"zset"
        }
    };
    let has_ended = at >= len && !chunk.is_full();
    let (guard, hint) = (number(guard_ms), number(len as i64));
    let words: [&[u8]; 5] = [RESTORE_ASYNC, kind, key, &guard, &hint];
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(words.len() + chunk.count);
    words.iter().for_each(|word| reply.bulk(word));
    out.append_range(&chunk.words, (0, 0), chunk.words.mark());
    (!has_ended).then_some(at)
}

/// Elements of a list that are looked at in one go.
const ELEMENTS_AHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::Hash;
    use crate::types::list::{End, List};
    use crate::types::set::Set;
    use crate::types::zset::Zset;
    use crate::types::{Collection, Limits as Compact, Object};

    const NOW: Ms = Ms(1_000_000);
    const TABLES: Compact = Compact {
        hash_entries_max: 0,
        hash_value_bytes_max: 0,
        set_ints_max: 0,
        zset_entries_max: 0,
        zset_value_bytes_max: 0,
    };

    fn params(bulks_max: usize) -> Params {
        Params { timeout_ms: 1000, bulks_max, bytes_max: 512 * 1024 }
    }

    /// All messages of a key, as words behind the command's name, joined.
    fn messages(value: Snapshot, expires_at: Option<Ms>, params: &Params) -> Vec<Vec<u8>> {
        let mut stream = KeyStream::new(b"K"[..].into(), Some(value), expires_at);
        let mut all = Vec::new();
        loop {
            let mut out = OutBuf::default();
            if !stream.write_next(&mut out, params, 0, NOW) {
                return all;
            }
            all.push(words(&out.to_vec()));
        }
    }

    fn words(bytes: &[u8]) -> Vec<u8> {
        let mut at = memchr::memmem::find(bytes, b"\r\n").expect("a head") + 2;
        let mut words = Vec::new();
        while at < bytes.len() {
            let (text, next) = bulk(bytes, at);
            words.push(text);
            at = next;
        }
        assert_eq!(words[0], RESTORE_ASYNC);
        words[1..].join(&b' ')
    }

    fn bulk(bytes: &[u8], at: usize) -> (&[u8], usize) {
        let end = at + memchr::memmem::find(&bytes[at..], b"\r\n").expect("a head");
        let len: usize = str::from_utf8(&bytes[at + 1..end]).expect("digits").parse().expect("len");
        (&bytes[end + 2..end + 2 + len], end + 2 + len + 2)
    }

    fn list(count: usize) -> Snapshot {
        let mut list = List::new();
        (0..count).for_each(|n| list.push(End::Back, format!("e{n}").as_bytes()));
        Snapshot::Object(Object::List(list))
    }

    #[test]
    fn list_goes_in_the_chunks_that_were_recorded() {
        let want: [&[u8]; 5] = [
            b"delete K",
            b"list K 3000 5 e0 e1",
            b"list K 3000 5 e2 e3",
            b"list K 3000 5 e4",
            b"expire K 0",
        ];
        assert_eq!(messages(list(5), None, &params(2)), want);
        // The last element fills its chunk: the end is seen by an empty one.
        let exact = messages(list(4), None, &params(2));
        assert_eq!(exact[2..], [&b"list K 3000 4 e2 e3"[..], b"list K 3000 4", b"expire K 0"]);
    }

    #[test]
    fn zset_goes_from_the_highest_score_down_as_recorded() {
        let mut zset = Zset::new();
        for (member, score) in [(b"m0", 0.5), (b"m1", 1.5), (b"m2", 2.5)] {
            zset.insert(member, score, &TABLES);
        }
        let value = Snapshot::Object(zset.into_object());
        let got = messages(value, Some(Ms(NOW.0 + 500_000)), &params(2));
        let want: [&[u8]; 6] = [
            b"delete K",
            b"zset K 3000 3 m2 \0\0\0\0\0\0\x04\x40",
            b"zset K 3000 3 m1 \0\0\0\0\0\0\xf8\x3f",
            b"zset K 3000 3 m0 \0\0\0\0\0\0\xe0\x3f",
            b"zset K 3000 3",
            b"expire K 500000",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn hash_and_set_of_tables_go_in_chunks_and_end_with_an_empty_one() {
        let mut hash = Hash::new();
        hash.set(b"f0", b"v0", &TABLES);
        hash.set(b"f1", b"v1", &TABLES);
        let mut got = messages(Snapshot::Object(hash.into_object()), None, &params(2));
        // The order of a table's fields is its own.
        got[1..3].sort();
        let want: [&[u8]; 5] = [
            b"delete K",
            b"hash K 3000 2 f0 v0",
            b"hash K 3000 2 f1 v1",
            b"hash K 3000 2",
            b"expire K 0",
        ];
        assert_eq!(got, want);
        let mut set = Set::new();
        for member in [b"x", b"y", b"z", b"a"] {
            set.insert(member, &TABLES);
        }
        let snapshot = match set.packed() {
            Some((packed, bytes)) => Snapshot::Packed(packed, bytes.to_vec()),
            None => Snapshot::Object(set.into_object()),
        };
        let got = messages(snapshot, None, &params(2));
        assert_eq!(got.len(), 5);
        assert_eq!((&got[3][..], &got[4][..]), (&b"dict K 3000 4"[..], &b"expire K 0"[..]));
    }

    #[test]
    fn chunk_ends_at_its_bytes_and_has_one_element_at_least() {
        let mut list = List::new();
        (0..4).for_each(|_| list.push(End::Back, &[b'x'; 100]));
        let value = Snapshot::Object(Object::List(list));
        let got = messages(value, None, &Params { bytes_max: 150, ..params(3) });
        assert_eq!(got.len(), 1 + 2 + 1 + 1, "two elements are over 150 bytes");
        let got = messages(self::list(4), None, &Params { bytes_max: 0, ..params(3) });
        assert_eq!(got.len(), 1 + 4 + 1 + 1, "one element each, an empty chunk, the deadline");
    }

    #[test]
    fn whole_values_are_the_bytes_that_were_recorded() {
        let string = messages(Snapshot::Text(b"hello".to_vec()), None, &params(200));
        assert_eq!(string, [&b"delete K"[..], b"string K 0 hello"]);
        let int = messages(Snapshot::Int(12345), Some(Ms(NOW.0 + 99_998)), &params(200));
        assert_eq!(int[1], b"string K 99998 12345");
        let past = messages(Snapshot::Int(1), Some(Ms(NOW.0 - 5)), &params(200));
        assert_eq!(past[1], b"string K 1 1", "a key that ends does not live for ever");
        let mut list = List::new();
        [&b"1"[..], b"two", b"3"].iter().for_each(|item| list.push(End::Back, item));
        let got = messages(Snapshot::Object(Object::List(list)), None, &params(200));
        let payload = b"\x0e\x01\x14\x14\0\0\0\x11\0\0\0\x03\0\0\xf2\x02\x03two\x05\xf4\xff\
            \x07\0\xa4\x0c\xdb\xc5\xfc\x3e\x0b\xe0";
        assert_eq!(got[1], [&b"object K 0 "[..], payload].concat());
        let mut hash = Hash::new();
        hash.set(b"f", b"v", &Compact { hash_entries_max: 9, hash_value_bytes_max: 9, ..TABLES });
        let (packed, bytes) = hash.packed().expect("it is small");
        let got = messages(Snapshot::Packed(packed, bytes.to_vec()), None, &params(200));
        let payload =
            b"\x0d\x11\x11\0\0\0\x0d\0\0\0\x02\0\0\x01f\x03\x01v\xff\x07\0\xff\x27\x47\xb3\xe7\x4e\x9d\xd3";
        assert_eq!(got[1], [&b"object K 0 "[..], payload].concat());
    }

    #[test]
    fn key_that_is_gone_is_deleted_and_nothing_else() {
        let mut stream = KeyStream::new(b"K"[..].into(), None, None);
        let mut out = OutBuf::default();
        assert!(stream.write_next(&mut out, &params(2), 0, NOW));
        assert_eq!(words(&out.to_vec()), b"delete K");
        assert!(!stream.write_next(&mut out, &params(2), 0, NOW));
    }

    #[test]
    fn long_string_is_shared_with_the_output() {
        let data = std::sync::Arc::new(vec![b'x'; 1 << 20]);
        let mut stream = KeyStream::new(b"K"[..].into(), Some(Snapshot::Big(data)), None);
        let mut out = OutBuf::default();
        while stream.write_next(&mut out, &params(2), 0, NOW) {}
        assert!(out.bytes().len() < 200, "it was copied");
        assert!(out.len() > 1 << 20);
    }
}
