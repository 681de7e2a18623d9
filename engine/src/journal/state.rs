//! The value of a key as calls that build it: what a record carries of a collection of many elements.
//!
//! It is a snapshot, which costs nothing to take while the doors are held; the calls are made when
//! somebody reads the record, a bounded one at a time.

use crate::commands::args::OwnedArgs;
use crate::resp::number;
use crate::types::hash::HashView;
use crate::types::pack::Item;
use crate::types::{Collection, Object};
use crate::units::Ms;

/// Elements that one call names at most, and bytes after which it ends.
const ELEMENTS_PER_CALL: usize = 1_000;
const BYTES_PER_CALL: usize = 64 * 1024;
/// Elements that are taken without a look at their bytes.
const PORTION: usize = 16;

/// What a key holds, and until when.
#[derive(Clone, Debug)]
pub struct State {
    /// The key.
    pub key: Box<[u8]>,
    /// Its value.
    pub value: Object,
    /// When it expires.
    pub deadline: Option<Ms>,
}

impl State {
    /// The calls that make the key, which is not there before the first.
    pub fn calls(&self) -> Calls<'_> {
        self.calls_from(self.begin())
    }

    /// How far its calls are before the first.
    pub fn begin(&self) -> Progress {
        Progress { next: Some(0), ends: self.deadline.is_some() }
    }

    /// Its calls from a point on.
    pub fn calls_from(&self, progress: Progress) -> Calls<'_> {
        Calls { state: self, progress }
    }
}

/// How far the calls of a [`State`] have been made.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Where the value goes on; none at its end.
    next: Option<usize>,
    /// The deadline is still to be told.
    ends: bool,
}

impl Progress {
    /// Whether there are no more.
    pub fn is_done(self) -> bool {
        self.next.is_none() && !self.ends
    }
}

/// The calls of a [`State`].
#[derive(Debug)]
pub struct Calls<'s> {
    state: &'s State,
    progress: Progress,
}

impl Calls<'_> {
    /// How far they are.
    pub fn progress(&self) -> Progress {
        self.progress
    }
}

impl Iterator for Calls<'_> {
    type Item = OwnedArgs;

    fn next(&mut self) -> Option<OwnedArgs> {
        let State { key, value, deadline } = self.state;
        if let Some(from) = self.progress.next {
            let mut call = Call::new(value, key);
            self.progress.next = call.fill(value, from);
            // The walk over a hash may find its end only when it is there.
            if call.count > 0 {
                return Some(call.words);
            }
        }
        let ms = deadline.filter(|_| std::mem::take(&mut self.progress.ends))?;
        Some(OwnedArgs::of(&[b"PEXPIREAT", key, ms.0.to_string().as_bytes()]))
    }
}

/// A call that is being made.
struct Call {
    words: OwnedArgs,
    byte_count: usize,
    count: usize,
}

impl Call {
    fn new(value: &Object, key: &[u8]) -> Self {
        let name: &[u8] = match value {
            Object::List(_) => b"RPUSH",
            Object::Hash(_) => b"HSET",
            Object::Set(_) => b"SADD",
            Object::Zset(_) => b"ZADD",
        };
        Self { words: OwnedArgs::of(&[name, key]), byte_count: 0, count: 0 }
    }

    fn is_full(&self) -> bool {
        self.count >= ELEMENTS_PER_CALL || self.byte_count >= BYTES_PER_CALL
    }

    fn add(&mut self, item: Item<'_>) {
        self.add_word(&item.text());
    }

    fn add_word(&mut self, word: &[u8]) {
        self.byte_count += word.len();
        self.words.extend(std::iter::once(word));
    }

    /// Adds elements of a value from a position on. Returns the next position; none at the end.
    fn fill(&mut self, value: &Object, from: usize) -> Option<usize> {
        if let Object::Hash(hash) = value {
            return self.fill_pairs(hash.view(), from);
        }
        let (mut at, len) = (from, value.len());
        while at < len && !self.is_full() {
            let (before, end) = (at, len.min(at + PORTION));
            at = end;
            match value {
                Object::List(list) => list.view().for_each(before, end, |item| self.add(item)),
                Object::Zset(zset) => {
                    for (member, score) in zset.view().range(before, end) {
                        self.add_word(number::format_g17(score).as_bytes());
                        self.add(member);
                    }
                }
                // A leaf at a time, however many that are.
                Object::Set(set) => at = set.view().walk(before, |member| self.add(member)),
                Object::Hash(_) => unreachable!("hashes are walked above"),
            }
            self.count += at - before;
        }
        (at < len).then_some(at)
    }

    /// The same with a hash, whose walk has marks of its own.
    fn fill_pairs(&mut self, hash: HashView<'_>, from: usize) -> Option<usize> {
        let mut mark = from;
        loop {
            let mut count = 0;
            let next = hash.walk(mark, |field, value| {
                self.add(field);
                self.add(value);
                count += 1;
            });
            self.count += count;
            mark = next?;
            if self.is_full() {
                return Some(mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::types::{Limits, hash::Hash, list::End, list::List, set::Set, zset::Zset};

    const LIMITS: Limits = Limits {
        hash_entries_max: 128,
        hash_value_bytes_max: 64,
        set_ints_max: 512,
        zset_entries_max: 128,
        zset_value_bytes_max: 64,
    };

    fn values(len: usize, limits: &Limits) -> [Object; 4] {
        let (mut list, mut hash, mut set, mut zset) =
            (List::new(), Hash::new(), Set::new(), Zset::new_tree());
        for n in 0..len {
            let name = format!("element:{n}");
            list.push(End::Back, name.as_bytes());
            hash.set(name.as_bytes(), name.as_bytes(), limits);
            set.insert(name.as_bytes(), limits);
            zset.insert(name.as_bytes(), n as f64 / 3.0, limits);
        }
        [list.into_object(), hash.into_object(), set.into_object(), zset.into_object()]
    }

    fn check(value: Object) {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let (key, deadline) = (b"k"[..].into(), Some(Ms(bare.now.0 + 5_000)));
        let state = State { key, value, deadline };
        let mut call_count = 0;
        for call in state.calls() {
            let words: Vec<&[u8]> = call.args().iter_from(0).collect();
            let byte_count = words.iter().map(|word| word.len()).sum::<usize>();
            assert!(words.len() <= 2 + 2 * (ELEMENTS_PER_CALL + 200), "{}", words.len());
            assert!(byte_count <= 2 * BYTES_PER_CALL, "{byte_count}");
            let reply = bare.call(&mut client, &words);
            assert!(reply.starts_with(b":"), "{}", reply.escape_ascii());
            call_count += 1;
        }
        assert!(call_count > state.value.len() / 1_200, "{call_count} calls");
        let slot = crate::slots::hash::slot_of(b"k");
        let shard = bare.held[0].as_ref().expect("all doors are held");
        let db = shard.keys.db(crate::units::DbIndex(0)).expect("there is a key");
        let mut found = 0;
        let _ = db.table(slot).scan(Default::default(), usize::MAX, |entry| {
            assert_eq!(entry.expires_at(), deadline);
            let payload = |value| crate::commands::generic::dump_value(value);
            let want = payload(crate::store::entry::Value::Object(&state.value));
            assert!(payload(entry.value()).len() == want.len());
            found += 1;
        });
        assert_eq!(found, 1);
    }

    #[test]
    fn calls_of_a_state_build_its_value() {
        for len in [1, 999, 1_000, 1_001, 5_000] {
            values(len, &LIMITS).into_iter().filter(|v| v.len() > 900).for_each(check);
        }
    }

    #[test]
    fn calls_of_long_elements_end_by_their_bytes() {
        let mut list = List::new();
        (0..200).for_each(|n| list.push(End::Back, format!("{n:03}").repeat(2_000).as_bytes()));
        let state = State { key: b"k"[..].into(), value: list.into_object(), deadline: None };
        let lens: Vec<usize> = state.calls().map(|call| call.args().len() - 2).collect();
        assert_eq!(lens.iter().sum::<usize>(), 200);
        assert!(lens.iter().all(|&len| len <= 16), "{lens:?}");
    }

    #[test]
    fn hash_that_is_packed_however_long_is_walked_to_its_end() {
        let limits = Limits { hash_entries_max: 5_000, ..LIMITS };
        let [_, hash, ..] = values(2_500, &limits);
        let state = State { key: b"k"[..].into(), value: hash, deadline: None };
        let words: usize = state.calls().map(|call| call.args().len() - 2).sum();
        assert_eq!(words, 5_000);
    }
}
