//! Eviction: sampling, the pool of candidates, and deleting the one that goes. Every figure is the time
//! of one evicted key.

mod common;

use cordis_engine::journal::LogicalClock;
use cordis_engine::shard::evict::{EvictParams, Policy, access};
use cordis_engine::shard::state::{KeyRef, Shard};
use cordis_engine::units::{Ms, ShardId};
use criterion::Criterion;

use crate::common::{DB, NOW, Random, entry, key, rounds, size};

fn main() {
    common::run(&[evict]);
}

/// A shard that is filled up again with new keys as old ones go.
struct Evicting {
    shard: Shard,
    clock: LogicalClock,
    policy: Policy,
    random: Random,
    next_key: usize,
}

impl Evicting {
    fn new(policy: Policy) -> Self {
        Self {
            shard: Shard::new(ShardId(0), 1),
            clock: LogicalClock::default(),
            policy,
            random: Random(1),
            next_key: 0,
        }
    }

    /// Adds keys, accessed at some time within a day, until there are `count`.
    fn fill(&mut self, count: usize) {
        while self.shard.keys.db(DB).map_or(0, |db| db.len()) < count {
            let accessed = Ms(NOW.0 - self.random.below(86_400_000) as i64);
            let access = if self.policy.is_lfu() {
                // The counter of a new key, or a larger one.
                access::lfu_new(accessed) + self.random.below(200) as u32
            } else {
                access::lru_now(accessed)
            };
            let deadline = Ms(NOW.0 + 1000 + self.random.below(86_400_000) as i64);
            let deadline = (self.policy == Policy::VolatileTtl).then_some(deadline);
            let key = key(self.next_key);
            self.next_key += 1;
            let entry = entry(&key, deadline, access);
            self.shard.put(DB, KeyRef::new(&key), None, entry, NOW);
        }
    }

    fn evict(&mut self, count: usize) {
        let params = EvictParams { policy: self.policy, sample_count: 5, lfu_decay_minutes: 1 };
        for _ in 0..count {
            let bytes = self.shard.evict_one(&mut self.clock, params, NOW);
            assert!(bytes.is_some(), "every key may go");
        }
    }
}

fn evict(criterion: &mut Criterion) {
    let count = size(100_000, 1000);
    // One in a hundred per round, so that the table stays as full as it is.
    let per_round = count / 100;
    let mut group = criterion.benchmark_group(format!("evict/{count}_keys"));
    let policies =
        [Policy::AllKeysLru, Policy::AllKeysLfu, Policy::AllKeysRandom, Policy::VolatileTtl];
    for policy in policies {
        let mut state = None;
        group.bench_function(policy.name(), |bencher| {
            let state = state.get_or_insert_with(|| Evicting::new(policy));
            let fill = |state: &mut Evicting| state.fill(count);
            let evict = |state: &mut Evicting| state.evict(per_round);
            rounds(bencher, per_round, state, fill, evict);
        });
    }
    group.finish();
}
