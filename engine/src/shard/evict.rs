//! Eviction: which key goes when memory is short. A pool of the best candidates seen so far is kept
//! between calls, as Redis does, so that a few samples come close to the true order.

use crate::journal::LogicalClock;
use crate::pubsub::event::Event;
use crate::shard::state::{KeyRef, Shard};
use crate::store::entry::EntryRef;
use crate::units::{DATABASES_MAX, DbIndex, Ms, SLOT_COUNT, SlotId};

/// Candidates remembered between calls.
const POOL_COUNT: usize = 16;

/// `maxmemory-policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Policy {
    /// Nothing is evicted: writes fail.
    #[default]
    NoEviction = 0,
    /// The least recently used key.
    AllKeysLru = 1,
    /// The least frequently used key.
    AllKeysLfu = 2,
    /// Any key.
    AllKeysRandom = 3,
    /// The least recently used of those that expire.
    VolatileLru = 4,
    /// The least frequently used of those that expire.
    VolatileLfu = 5,
    /// Any key that expires.
    VolatileRandom = 6,
    /// The key that expires first.
    VolatileTtl = 7,
}

impl Policy {
    /// All policies, by number.
    pub const ALL: [Self; 8] = [
        Self::NoEviction,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
    ];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// Whether entries keep an access frequency instead of a time.
    #[inline]
    pub const fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    /// Whether entries keep an access time.
    pub const fn is_lru(self) -> bool {
        matches!(self, Self::AllKeysLru | Self::VolatileLru)
    }

    /// Whether only keys that expire may go.
    pub const fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }
}

/// The access clock of an entry (24 bits): seconds for LRU; minutes and a logarithmic counter for
/// LFU.
pub mod access {
    use crate::units::Ms;

    /// Initial LFU counter of a new key: above zero, so that it is not evicted at once.
    pub const LFU_INIT: u32 = 5;

    /// LRU clock at `now`.
    #[inline]
    pub fn lru_now(now: Ms) -> u32 {
        (now.0 / 1000) as u32 & 0x00ff_ffff
    }

    /// Seconds since the access.
    pub fn idle_seconds(access: u32, now: Ms) -> u64 {
        u64::from(lru_now(now).wrapping_sub(access) & 0x00ff_ffff)
    }

    fn minutes(now: Ms) -> u32 {
        (now.0 / 60_000) as u32 & 0xffff
    }

    /// LFU word of a new key.
    pub fn lfu_new(now: Ms) -> u32 {
        minutes(now) << 8 | LFU_INIT
    }

    /// The LFU counter, decayed by one per `decay_minutes` since the last access.
    pub fn lfu_counter(access: u32, now: Ms, decay_minutes: u64) -> u32 {
        let idle = u64::from(minutes(now).wrapping_sub(access >> 8) & 0xffff);
        let periods = idle.checked_div(decay_minutes).unwrap_or(0);
        u64::from(access & 0xff).saturating_sub(periods) as u32
    }

    /// The LFU word after another access: the counter grows with probability 1/(n * factor + 1).
    pub fn lfu_touch(access: u32, now: Ms, decay_minutes: u64, factor: u64, random: u64) -> u32 {
        let counter = lfu_counter(access, now, decay_minutes);
        let base = u64::from(counter.saturating_sub(LFU_INIT));
        let grows = counter < 255 && (random >> 11).is_multiple_of(base * factor + 1);
        minutes(now) << 8 | (counter + u32::from(grows))
    }
}

/// What eviction remembers between calls.
#[derive(Debug, Default)]
pub struct EvictState {
    /// Candidates: score (the larger, the sooner it goes), database, key. Ascending by score.
    pool: Vec<(u64, DbIndex, Vec<u8>)>,
    policy: Policy,
}

/// Knobs of sampling.
#[derive(Clone, Copy, Debug)]
pub struct EvictParams {
    /// Which key goes.
    pub policy: Policy,
    /// Keys looked at per eviction.
    pub sample_count: usize,
    /// LFU decay.
    pub lfu_decay_minutes: u64,
}

impl Shard {
    /// Evicts one key; returns the bytes that it took, or nothing if no key may go.
    ///
    /// # Complexity
    /// O(sample_count); O(slots) if the shard is almost empty.
    pub fn evict_one(
        &mut self,
        clock: &mut LogicalClock,
        params: EvictParams,
        now: Ms,
    ) -> Option<i64> {
        if params.policy == Policy::NoEviction {
            return None;
        }
        if self.evict.policy != params.policy {
            self.evict.pool.clear();
            self.evict.policy = params.policy;
        }
        for _ in 0..4 {
            self.sample_into_pool(params, now);
            while let Some((_, db, key)) = self.evict.pool.pop() {
                let key = KeyRef::new(&key);
                let Some(at) = self.find(db, key) else {
                    continue;
                };
                let volatile = self.entry(db, key.slot, at).expires_at().is_some();
                if params.policy.is_volatile() && !volatile {
                    continue;
                }
                let before = self.data_bytes;
                self.remove_dead(clock, db, key.slot, at, Event::Evicted);
                return Some(before - self.data_bytes);
            }
        }
        None
    }

    fn sample_into_pool(&mut self, params: EvictParams, now: Ms) {
        let mut pool = std::mem::take(&mut self.evict.pool);
        for db in (0..DATABASES_MAX).map(|i| DbIndex(i as u8)) {
            let Some(dbase) = self.keys.db(db) else {
                continue;
            };
            let candidates =
                if params.policy.is_volatile() { dbase.expiring() } else { dbase.len() };
            if candidates == 0 {
                continue;
            }
            // Where few keys qualify, look at more of them to see one.
            let factor = (dbase.len() / candidates).min(20);
            let mut left = params.sample_count * (1 + factor.saturating_sub(1));
            let mut tries = 0;
            while left > 0 && tries < SLOT_COUNT {
                let random = self.random();
                let slot = SlotId::from_crc(random as u32);
                let mut sampled = 0;
                if let Some(dbase) = self.keys.db(db) {
                    dbase.table(slot).sample(random.rotate_left(29), left.min(3), |entry| {
                        sampled += 1;
                        if let Some(score) = score(entry, params, now, random) {
                            offer(&mut pool, score, db, entry.key());
                        }
                    });
                }
                left -= sampled.min(left);
                tries += 1;
            }
        }
        self.evict.pool = pool;
    }
}

/// How soon an entry should go; none if it may not.
fn score(entry: EntryRef<'_>, params: EvictParams, now: Ms, random: u64) -> Option<u64> {
    if params.policy.is_volatile() {
        entry.expires_at()?;
    }
    Some(match params.policy {
        Policy::NoEviction => return None,
        Policy::AllKeysLru | Policy::VolatileLru => access::idle_seconds(entry.access(), now),
        Policy::AllKeysLfu | Policy::VolatileLfu => {
            255 - u64::from(access::lfu_counter(entry.access(), now, params.lfu_decay_minutes))
        }
        Policy::AllKeysRandom | Policy::VolatileRandom => random,
        Policy::VolatileTtl => u64::MAX - entry.expires_at()?.0.max(0) as u64,
    })
}

fn offer(pool: &mut Vec<(u64, DbIndex, Vec<u8>)>, score: u64, db: DbIndex, key: &[u8]) {
    if pool.len() == POOL_COUNT && pool.first().is_some_and(|worst| worst.0 >= score) {
        return;
    }
    if pool.iter().any(|(_, d, k)| *d == db && k == key) {
        return;
    }
    let at = pool.partition_point(|candidate| candidate.0 < score);
    pool.insert(at, (score, db, key.to_vec()));
    if pool.len() > POOL_COUNT {
        pool.remove(0);
    }
}
