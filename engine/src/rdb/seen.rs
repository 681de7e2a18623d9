//! What finds a member or field that comes twice: hashes of those that came.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_128;

/// Takes the number that it is given for its hash: it is one.
#[derive(Default)]
struct Given(u64);

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = self.0.rotate_left(5) ^ n;
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

/// The bytes that came so far, each as a hash of 128 bits.
///
/// Two different ones with the same hash are taken for one. Nobody meets that by chance; who makes
/// such a pair on purpose has made a payload that is refused, and nothing else.
#[derive(Debug, Default)]
pub(super) struct Seen(HashSet<u128, BuildHasherDefault<Given>>);

impl Seen {
    /// Notes these bytes; `false` if they came before.
    pub(super) fn insert(&mut self, bytes: &[u8]) -> bool {
        self.0.insert(xxh3_128(bytes))
    }

    /// Memory that it holds.
    pub(super) fn heap_bytes(&self) -> usize {
        // The table is at most seven eighths full, and has a byte of its own per cell.
        self.0.capacity() / 7 * 8 * (size_of::<u128>() + 1)
    }
}
