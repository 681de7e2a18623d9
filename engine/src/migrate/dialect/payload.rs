//! A value as one payload of RDB version 7, written in steps: what a synchronous move sends, however
//! large the value is.

use crc::Table;

use crate::commands::generic::dump::dump_value_old;
use crate::migrate::dialect::snapshot::{Snapshot, View};
use crate::rdb::{Format, Limits, Writer, footer};

/// Larger values are written in steps.
const WHOLE_ELEMENTS_MAX: usize = 512;
/// Elements that a step writes.
const ELEMENTS_PER_STEP: usize = 512;
/// Bytes that a step copies or sums up.
const BYTES_PER_STEP: usize = 256 * 1024;

/// A payload that is being written.
pub struct Dumper {
    value: Snapshot,
    /// Elements, or bytes of a string, that are written.
    at: usize,
    out: Vec<u8>,
    /// Number of nodes of a list, whose place is in front of them.
    node_count: u64,
    stage: Stage,
}

enum Stage {
    Write,
    Sum(Box<crc::Digest<'static, u64, Table<16>>>, usize),
    Done,
}

impl std::fmt::Debug for Dumper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dumper").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Dumper {
    /// Nothing is written yet.
    pub fn new(value: Snapshot) -> Self {
        Self { value, at: 0, out: Vec::new(), node_count: 0, stage: Stage::Write }
    }

    /// Does some 100 µs of work; `true` when the payload is whole.
    pub fn step(&mut self) -> bool {
        match &mut self.stage {
            Stage::Write => self.write(),
            Stage::Sum(digest, at) => {
                let to = self.out.len().min(*at + BYTES_PER_STEP);
                digest.update(&self.out[*at..to]);
                *at = to;
                if to == self.out.len() {
                    let sum = digest.clone().finalize();
                    self.out.extend_from_slice(&sum.to_le_bytes());
                    self.stage = Stage::Done;
                }
            }
            Stage::Done => {}
        }
        matches!(self.stage, Stage::Done)
    }

    /// The payload, which is whole.
    pub fn finish(self) -> Vec<u8> {
        invariant!(matches!(self.stage, Stage::Done), "a payload is used before it is whole");
        self.out
    }

    fn write(&mut self) {
        let is_long = matches!(&self.value, Snapshot::Big(data) if data.len() > BYTES_PER_STEP);
        if !is_long && self.value.len() <= WHOLE_ELEMENTS_MAX {
            self.out = dump_value_old(self.value.value());
            self.stage = Stage::Done;
            return;
        }
        let len = match &self.value {
            Snapshot::Big(data) => data.len(),
            value => value.len(),
        };
        if self.at == 0 {
            self.begin(len);
        }
        let to = self.write_some(len);
        self.at = to;
        if to >= len {
            self.end();
        }
    }

    fn begin(&mut self, len: usize) {
        if let Snapshot::Big(_) = self.value {
            // A string of this length is not compressed: that cannot be done in steps.
            self.out.reserve(len + 32);
            self.out.push(0);
            put_length(&mut self.out, len as u64);
            return;
        }
        let mut writer = Writer::new(Format::V7, Limits::PACKED);
        match self.value.view() {
            View::Hash(_) => writer.begin_hash(len),
            View::Set(_) => writer.begin_set(len),
            View::Zset(_) => writer.begin_zset(len),
            // The head of a list is written when its nodes are known.
            View::String | View::List(_) => {}
        }
        self.out = writer.into_bytes();
    }

    /// Writes some elements; how many are written then.
    fn write_some(&mut self, len: usize) -> usize {
        let (from, mut to) = (self.at, len.min(self.at + ELEMENTS_PER_STEP));
        let mut writer = Writer::new(Format::V7, Limits::PACKED);
        match self.value.view() {
            View::String => {
                let Snapshot::Big(data) = &self.value else { return len };
                to = len.min(from + BYTES_PER_STEP);
                self.out.extend_from_slice(&data[from..to]);
                return to;
            }
            View::List(list) => {
                let mut items = writer.begin_list(to - from);
                list.for_each(from, to, |item| items.push(&item.text()));
                items.finish();
                let nodes = writer.into_bytes();
                // A type, the number of nodes, the nodes.
                let (count, head) = length_of(&nodes[1..]);
                self.node_count += count;
                self.out.extend_from_slice(&nodes[1 + head..]);
                return to;
            }
            View::Hash(hash) => {
                for (field, value) in (from..to).filter_map(|at| hash.at(at)) {
                    writer.field(&field.text(), &value.text());
                }
            }
            View::Set(set) => {
                for member in (from..to).filter_map(|at| set.at(at)) {
                    writer.member(&member.text());
                }
            }
            View::Zset(zset) => {
                for (member, score) in zset.range_rev(len - to, len - from) {
                    writer.scored(&member.text(), score);
                }
            }
        }
        self.out.extend_from_slice(writer.bytes());
        to
    }

    fn end(&mut self) {
        if let View::List(_) = self.value.view() {
            let mut head = vec![LIST_OF_NODES];
            put_length(&mut head, self.node_count);
            self.out.splice(0..0, head);
        }
        self.out.extend_from_slice(&Format::V7.version().to_le_bytes());
        self.stage = Stage::Sum(Box::new(footer::digest()), 0);
    }
}

/// The type of a list as version 7 writes it.
const LIST_OF_NODES: u8 = 14;

fn put_length(out: &mut Vec<u8>, n: u64) {
    match u32::try_from(n) {
        Ok(n @ 0..=63) => out.push(n as u8),
        Ok(n @ 64..=16_383) => out.extend_from_slice(&[0x40 | (n >> 8) as u8, n as u8]),
        Ok(n) => {
            out.push(0x80);
            out.extend_from_slice(&n.to_be_bytes());
        }
        // No value has so many parts: a string has 512 MB at most.
        Err(_) => invariant!(false, "a value of {n} parts"),
    }
}

/// The length that our own writer has put there, and how many bytes it takes.
fn length_of(bytes: &[u8]) -> (u64, usize) {
    match bytes[0] >> 6 {
        0 => (u64::from(bytes[0]), 1),
        1 => (u64::from(bytes[0] & 0x3f) << 8 | u64::from(bytes[1]), 2),
        _ => unreachable!("a step writes fewer nodes than take a wider length"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::commands::bare::Bare;
    use crate::shard::state::KeyRef;
    use crate::units::DbIndex;

    fn dumped(value: Snapshot) -> (Vec<u8>, usize) {
        let mut dumper = Dumper::new(value);
        let mut steps = 1;
        while !dumper.step() {
            steps += 1;
        }
        (dumper.finish(), steps)
    }

    #[test]
    fn payload_of_a_small_string_is_the_bytes_that_were_recorded() {
        let (payload, _) = dumped(Snapshot::Int(2));
        assert_eq!(payload, b"\x00\xc0\x02\x07\x00\x70\x90\x65\x4f\xf0\x1e\xab\xd1");
    }

    #[test]
    fn large_values_in_steps_are_what_restore_makes_of_them() {
        let mut bare = Bare::new(1, 1);
        let mut client = bare.client();
        let text = |n: usize| format!("element {n}").into_bytes();
        for n in 0..3_000 {
            let (a, n) = (text(n), n.to_string().into_bytes());
            bare.call(&mut client, &[b"RPUSH", b"list", &a]);
            bare.call(&mut client, &[b"HSET", b"hash", &a, &n]);
            bare.call(&mut client, &[b"SADD", b"set", &a]);
            bare.call(&mut client, &[b"ZADD", b"zset", &n, &a]);
        }
        bare.call(&mut client, &[b"SET", b"string", &vec![b'x'; 1_000_000]]);
        let reads: [(&[u8], &[&[u8]]); 5] = [
            (b"list", &[b"LRANGE", b"COPY", b"0", b"-1"]),
            (b"hash", &[b"HGETALL", b"COPY"]),
            (b"set", &[b"SMEMBERS", b"COPY"]),
            (b"zset", &[b"ZRANGE", b"COPY", b"0", b"-1", b"WITHSCORES"]),
            (b"string", &[b"GET", b"COPY"]),
        ];
        for (key, read) in reads {
            let shard = bare.held[0].as_mut().expect("a bare server holds its door");
            let at = KeyRef::new(key);
            let cell = shard.find(DbIndex(0), at).expect("it was made");
            let value = Snapshot::of(shard.entry(DbIndex(0), at.slot, cell).value());
            let (payload, steps) = dumped(value);
            assert!(steps > 3, "{steps} steps");
            let call: [&[u8]; 5] = [b"RESTORE", b"copy", b"0", &payload, b"REPLACE"];
            assert_eq!(bare.call(&mut client, &call), b"+OK\r\n", "{}", key.escape_ascii());
            let of = |name: &'static [u8]| -> Vec<&[u8]> {
                read.iter().map(|word| if *word == b"COPY" { name } else { *word }).collect()
            };
            let mut copy = bare.call(&mut client, &of(b"copy"));
            let mut own = bare.call(&mut client, &of(key.to_vec().leak()));
            if matches!(key, b"hash" | b"set") {
                copy.sort_unstable();
                own.sort_unstable();
            }
            assert!(copy == own, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn long_string_is_copied_in_steps() {
        let (payload, steps) = dumped(Snapshot::Big(Arc::new(vec![7; 4 << 20])));
        assert!(steps >= 32 && payload.len() > 4 << 20);
        assert!(footer::open(&payload).is_ok());
    }
}
