//! What all micro-benchmarks share: the server's allocator, sizes that shrink under test, keys as the
//! load generator spells them, and the timing of many operations at once.
#![allow(dead_code, reason = "each benchmark is a program of its own and uses a part of this")]

use std::hint::black_box;
use std::time::Duration;

use cordis_engine::store::entry::{EntryBox, Payload};
use cordis_engine::units::{DbIndex, Ms};
use criterion::measurement::{Measurement, WallTime};
use criterion::{Bencher, Criterion};

/// Figures depend on the allocator, so it is the server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The database that everything happens in.
pub(crate) const DB: DbIndex = DbIndex(0);

/// The time at which everything happens.
pub(crate) const NOW: Ms = Ms(1_700_000_000_000);

/// The value under every key: the size that the budgets are measured with.
pub(crate) const VALUE: &[u8] = &[b'v'; 64];

/// A key of 16 bytes, as in the load generator.
pub(crate) type Key = [u8; 16];

/// Runs the groups of one program.
pub(crate) fn run(groups: &[fn(&mut Criterion)]) {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    for group in groups {
        group(&mut criterion);
    }
    criterion.final_summary();
}

/// `full` when something is measured, `tiny` when it is only run to see that it still works: cargo
/// passes `--bench` in the first case alone, and `--test` may ask for the second.
pub(crate) fn size(full: usize, tiny: usize) -> usize {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    if has("--bench") && !has("--test") && !has("--list") { full } else { tiny }
}

/// Key number `n`.
pub(crate) fn key(n: usize) -> Key {
    let mut key = *b"key:000000000000";
    let mut left = n;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    key
}

/// An entry of `key` with [`VALUE`].
pub(crate) fn entry(key: &[u8], expires_at: Option<Ms>, access: u32) -> EntryBox {
    EntryBox::new(key, expires_at, access, Payload::Inline { bytes: VALUE, raw: false })
}

/// Random numbers from a seed: one order of keys on any machine.
///
/// # Source
/// splitmix64, Steele, Lea and Flood, 2014.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Puts `items` in a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Times rounds of `count` operations each, with an untimed `prepare` before every round, and
/// reports the time of *one operation*.
///
/// For what cannot be repeated in place (filling, emptying), and for operations of a few nanoseconds
/// whose order matters. Rounds are whole, so a sample of fewer operations is a part of one.
pub(crate) fn rounds<S>(
    bencher: &mut Bencher<'_>,
    count: usize,
    state: &mut S,
    mut prepare: impl FnMut(&mut S),
    mut round: impl FnMut(&mut S),
) {
    bencher.iter_custom(|iterations| {
        let round_count = iterations.div_ceil(count as u64);
        let mut total = Duration::ZERO;
        for _ in 0..round_count {
            prepare(state);
            let start = WallTime.start();
            round(black_box(&mut *state));
            total += WallTime.end(start);
        }
        total.mul_f64(iterations as f64 / (round_count * count as u64) as f64)
    });
}
