//! Settings of the process.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::shard::evict::Policy;

/// Settings that the data path reads: one relaxed load each.
#[derive(Debug)]
pub struct Config {
    maxmemory: AtomicU64,
    policy: AtomicU8,
    samples: AtomicU64,
    lfu_decay: AtomicU64,
    lfu_factor: AtomicU64,
    slower_than_us: AtomicI64,
    active_expire: AtomicBool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            maxmemory: AtomicU64::new(0),
            policy: AtomicU8::new(0),
            samples: AtomicU64::new(5),
            lfu_decay: AtomicU64::new(1),
            lfu_factor: AtomicU64::new(10),
            slower_than_us: AtomicI64::new(10_000),
            active_expire: AtomicBool::new(true),
        }
    }
}

impl Config {
    /// Bytes that data may take; 0 is no limit.
    #[inline]
    pub fn maxmemory(&self) -> u64 {
        self.maxmemory.load(Relaxed)
    }
    /// What is evicted beyond that.
    #[inline]
    pub fn maxmemory_policy(&self) -> Policy {
        Policy::ALL[usize::from(self.policy.load(Relaxed)) % Policy::ALL.len()]
    }
    /// Keys looked at per eviction.
    pub fn maxmemory_samples(&self) -> usize {
        self.samples.load(Relaxed) as usize
    }
    /// LFU decay.
    pub fn lfu_decay_minutes(&self) -> u64 {
        self.lfu_decay.load(Relaxed)
    }
    /// LFU growth.
    pub fn lfu_log_factor(&self) -> u64 {
        self.lfu_factor.load(Relaxed)
    }
    /// Slow log threshold in microseconds; negative is off.
    #[inline]
    pub fn slowlog_slower_than_us(&self) -> i64 {
        self.slower_than_us.load(Relaxed)
    }
    /// Number of databases.
    pub fn databases(&self) -> u8 {
        16
    }
    /// Whether expired keys are deleted in the background (DEBUG SET-ACTIVE-EXPIRE).
    pub fn active_expire(&self) -> bool {
        self.active_expire.load(Relaxed)
    }
    /// Sets that.
    pub fn set_active_expire(&self, on: bool) {
        self.active_expire.store(on, Relaxed);
    }
    /// Password of the default user; none if it needs none.
    pub fn requirepass(&self) -> Option<std::sync::Arc<str>> {
        None
    }
    /// Longest string, and longest word of a request.
    #[inline]
    pub fn proto_max_bulk_bytes(&self) -> usize {
        512 << 20
    }
    /// Most clients at once.
    pub fn maxclients(&self) -> usize {
        10_000
    }
    /// Seconds after which an idle client is closed; 0 is never.
    pub fn timeout_seconds(&self) -> u64 {
        0
    }
    /// Seconds between TCP keep-alive probes; 0 is off.
    pub fn tcp_keepalive_seconds(&self) -> u32 {
        300
    }
    /// Entries that the slow log keeps.
    pub fn slowlog_max_len(&self) -> usize {
        128
    }
    /// Most bytes of output that one client may let pile up.
    pub fn client_output_bytes_max(&self) -> usize {
        1 << 30
    }
    /// Most bytes of an unfinished request.
    pub fn client_query_bytes_max(&self) -> usize {
        1 << 30
    }
    /// Whether slots move between shards to level load.
    pub fn slot_balance(&self) -> bool {
        false
    }
}
