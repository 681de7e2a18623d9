//! Expiry: filing deadlines, and deleting keys whose time has come. Every figure is the time of one
//! key.

mod common;

use cordis_engine::journal::LogicalClock;
use cordis_engine::shard::state::{KeyRef, Shard};
use cordis_engine::store::expire::ExpiryIndex;
use cordis_engine::store::table::Position;
use cordis_engine::units::{Ms, ShardId};
use criterion::Criterion;

use crate::common::{DB, NOW, Random, entry, key, rounds, size};

fn main() {
    common::run(&[file, step]);
}

/// Records of one slot, from an empty index on. Times to live as caches have them, and as few buckets
/// as can be.
fn file(criterion: &mut Criterion) {
    let count = size(10_000, 100);
    let mut group = criterion.benchmark_group("expire/file");
    for (name, left_ms) in [("all_in_an_hour", 1), ("within_a_day", 86_400_000)] {
        let mut random = Random(1);
        let records: Vec<(Position, Ms)> = (0..count)
            .map(|_| {
                let left = 3_600_000 + random.below(left_ms) as i64;
                (Position::of_hash(random.next()), Ms(NOW.0 + left))
            })
            .collect();
        group.bench_function(name, |bencher| {
            let fresh = |index: &mut ExpiryIndex| *index = ExpiryIndex::default();
            let file = |index: &mut ExpiryIndex| {
                for &(position, at) in &records {
                    index.file(position, at, NOW);
                }
            };
            rounds(bencher, count, &mut ExpiryIndex::default(), fresh, file);
        });
    }
    group.finish();
}

/// A shard with keys that stay, and some whose deadline passes.
struct Expiring {
    shard: Shard,
    clock: LogicalClock,
    due: usize,
}

impl Expiring {
    fn new(staying: usize, due: usize) -> Self {
        let mut this =
            Self { shard: Shard::new(ShardId(0), 1), clock: LogicalClock::default(), due };
        for n in due..due + staying {
            this.put(n, None);
        }
        this
    }

    fn put(&mut self, n: usize, deadline: Option<Ms>) {
        let key = key(n);
        let entry = entry(&key, deadline, 0);
        self.shard.put(DB, KeyRef::new(&key), None, entry, NOW);
    }
}

/// One step that deletes a thousand keys over all slots.
fn step(criterion: &mut Criterion) {
    let (staying, due) = (size(100_000, 1000), 1000);
    let later = Ms(NOW.0 + 10_000);
    let mut state = Expiring::new(staying, due);
    criterion.bench_function("expire/step_of_1000_due_keys", |bencher| {
        let refill = |state: &mut Expiring| {
            (0..state.due).for_each(|n| state.put(n, Some(Ms(NOW.0 + 100))));
        };
        let step = |state: &mut Expiring| {
            let expired = state.shard.expire_step(&mut state.clock, later, state.due);
            assert_eq!(expired.key_count, state.due);
        };
        rounds(bencher, due, &mut state, refill, step);
    });
    criterion.bench_function("expire/step_with_nothing_due", |bencher| {
        bencher.iter(|| state.shard.expire_step(&mut state.clock, NOW, due).more);
    });
}
