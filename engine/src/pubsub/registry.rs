//! Who is subscribed to what, as far as a publisher has to know: the number of subscribers on each
//! core, exact at every moment.
//!
//! Channels are spread over stripes, each behind a lock of its own. While nobody is subscribed to
//! anything a publisher takes none: it reads one counter. Otherwise it reads one stripe (shared with
//! other publishers), and the patterns if there are any; who subscribes writes one. A lock is held for
//! a lookup, or for matching the patterns; never while anything waits. Any thread may enter.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::commands::glob::{self, Case};
use crate::pubsub::outbox::Cores;
use crate::pubsub::{Kind, Name, NameHasher};
use crate::store::keyspace::key_hash;
use crate::units::CoreId;

/// Locks that channels are spread over.
const STRIPE_COUNT: usize = 256;
/// Bytes of messages that may wait for a core; publishers pause beyond that.
const BACKLOG_BYTES_MAX: usize = 32 << 20;

/// Subscribers of one name, by core.
type Counts = Box<[u32]>;
type Names = HashMap<Name, Counts, BuildHasherDefault<NameHasher>>;

/// Who gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Receivers {
    /// How many: a session that is subscribed in several ways counts as often.
    pub count: u64,
    /// On which cores.
    pub cores: Cores,
    /// They are those who subscribed to the channel before this time,
    pub channel_until: u64,
    /// and to patterns before this one. What is counted is what is delivered.
    pub patterns_until: u64,
}

impl Receivers {
    fn add(&mut self, counts: &Counts) {
        for (core, &count) in counts.iter().enumerate() {
            self.count += u64::from(count);
            self.cores |= u64::from(count > 0) << core;
        }
    }
}

/// All names of one kind.
#[derive(Debug)]
struct Stripes {
    stripes: Box<[RwLock<Names>]>,
    /// Names with a subscriber.
    name_count: AtomicUsize,
}

impl Stripes {
    fn new(count: usize) -> Self {
        let stripes = (0..count).map(|_| RwLock::default()).collect();
        Self { stripes, name_count: AtomicUsize::new(0) }
    }

    fn stripe(&self, name: &[u8]) -> &RwLock<Names> {
        // The top bits: the maps use the low ones.
        &self.stripes[(key_hash(name) >> 40) as usize % self.stripes.len()]
    }

    /// Whether nobody is subscribed to anything.
    #[inline]
    fn is_empty(&self) -> bool {
        // Ordering: relaxed. Who subscribes is told so after the count has grown, and a publisher
        // that heard of it acts later still.
        self.name_count.load(Ordering::Relaxed) == 0
    }

    fn subscribe(
        &self,
        core: CoreId,
        core_count: usize,
        name: &[u8],
        time: &AtomicU64,
    ) -> (Name, u64) {
        let mut names = write(self.stripe(name));
        // Ordering: relaxed; the lock orders it against publishers of this name.
        let at = time.fetch_add(1, Ordering::Relaxed);
        if let Some((kept, _)) = names.get_key_value(name) {
            let kept = Arc::clone(kept);
            names.get_mut(name).expect("it has just been found")[core.index()] += 1;
            return (kept, at);
        }
        let name: Name = name.into();
        let mut counts = vec![0; core_count].into_boxed_slice();
        counts[core.index()] = 1;
        names.insert(Arc::clone(&name), counts);
        self.name_count.fetch_add(1, Ordering::SeqCst);
        (name, at)
    }

    fn unsubscribe(&self, core: CoreId, name: &[u8]) {
        let mut names = write(self.stripe(name));
        let counts = names.get_mut(name).expect("who unsubscribes was subscribed");
        invariant!(counts[core.index()] > 0, "a subscriber that was not counted");
        counts[core.index()] -= 1;
        if counts.iter().all(|&count| count == 0) {
            names.remove(name);
            if names.len() * 4 < names.capacity() {
                names.shrink_to_fit();
            }
            self.name_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Adds the subscribers of a name; returns the time before which they came.
    fn add_receivers(&self, name: &[u8], receivers: &mut Receivers, time: &AtomicU64) -> u64 {
        let names = read(self.stripe(name));
        if let Some(counts) = names.get(name) {
            receivers.add(counts);
        }
        // Ordering: as in `subscribe`. The lock is still held.
        time.load(Ordering::Relaxed)
    }
}

/// A map is whole between any two statements that a panic could come between.
fn read(names: &RwLock<Names>) -> RwLockReadGuard<'_, Names> {
    names.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(names: &RwLock<Names>) -> RwLockWriteGuard<'_, Names> {
    names.write().unwrap_or_else(PoisonError::into_inner)
}

/// The registry of a process.
#[derive(Debug)]
pub struct Registry {
    core_count: usize,
    channels: Stripes,
    patterns: Stripes,
    shard_channels: Stripes,
    /// Passes with each subscription.
    time: AtomicU64,
    /// Sessions in MONITOR mode, by core.
    monitors: Box<[AtomicU32]>,
    monitor_count: AtomicU32,
    /// Bytes of messages that wait to be delivered, by core.
    backlogs: Box<[AtomicUsize]>,
}

impl Registry {
    /// A registry for this many cores.
    pub fn new(core_count: usize) -> Self {
        Self {
            core_count,
            channels: Stripes::new(STRIPE_COUNT),
            patterns: Stripes::new(1),
            shard_channels: Stripes::new(STRIPE_COUNT),
            time: AtomicU64::new(1),
            monitors: (0..core_count).map(|_| AtomicU32::new(0)).collect(),
            monitor_count: AtomicU32::new(0),
            backlogs: (0..core_count).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    const fn stripes(&self, kind: Kind) -> &Stripes {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    /// Counts a subscriber on a core. Returns the copy of the name to keep, and the time.
    pub fn subscribe(&self, kind: Kind, core: CoreId, name: &[u8]) -> (Name, u64) {
        self.stripes(kind).subscribe(core, self.core_count, name, &self.time)
    }

    /// Counts it no more.
    pub fn unsubscribe(&self, kind: Kind, core: CoreId, name: &[u8]) {
        self.stripes(kind).unsubscribe(core, name);
    }

    /// Whether anybody is subscribed to a channel or a pattern.
    #[inline]
    pub fn has_subscribers(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// Who gets a message of a channel ([`Kind::Channel`]) or a shard channel ([`Kind::Shard`]).
    ///
    /// # Complexity
    /// O(P) with P patterns that are subscribed to; none are looked at for a shard channel.
    pub fn receivers(&self, kind: Kind, channel: &[u8]) -> Receivers {
        let mut receivers = Receivers::default();
        let names = self.stripes(kind);
        if !names.is_empty() {
            receivers.channel_until = names.add_receivers(channel, &mut receivers, &self.time);
        }
        if kind == Kind::Channel && !self.patterns.is_empty() {
            let patterns = read(&self.patterns.stripes[0]);
            for (pattern, counts) in patterns.iter() {
                if glob::matches(pattern, channel, Case::Sensitive) {
                    receivers.add(counts);
                }
            }
            receivers.patterns_until = self.time.load(Ordering::Relaxed);
        }
        receivers
    }

    /// Subscribers of a name itself.
    pub fn count(&self, kind: Kind, name: &[u8]) -> u64 {
        let mut receivers = Receivers::default();
        self.stripes(kind).add_receivers(name, &mut receivers, &self.time);
        receivers.count
    }

    /// Names that have a subscriber.
    pub fn name_count(&self, kind: Kind) -> usize {
        self.stripes(kind).name_count.load(Ordering::Relaxed)
    }

    /// The names that have a subscriber and match `pattern`.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Name> {
        let mut found = Vec::new();
        let mut stripe = 0;
        while self.each_name(kind, stripe, pattern, |name| found.push(Arc::clone(name))) {
            stripe += 1;
        }
        found
    }

    /// Visits those of one stripe; whether there are more stripes. The visitor must not come back
    /// here: a lock is held.
    pub fn each_name(
        &self,
        kind: Kind,
        stripe: usize,
        pattern: Option<&[u8]>,
        visit: impl FnMut(&Name),
    ) -> bool {
        let stripes = &self.stripes(kind).stripes;
        if let Some(names) = stripes.get(stripe) {
            let names = read(names);
            let is_match = |name: &&Name| {
                pattern.is_none_or(|pattern| glob::matches(pattern, name, Case::Sensitive))
            };
            names.keys().filter(is_match).for_each(visit);
        }
        stripe + 1 < stripes.len()
    }

    /// Counts a session that monitors; returns the time.
    pub fn monitor(&self, core: CoreId) -> u64 {
        self.monitors[core.index()].fetch_add(1, Ordering::SeqCst);
        self.monitor_count.fetch_add(1, Ordering::SeqCst);
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Counts it no more.
    pub fn unmonitor(&self, core: CoreId) {
        self.monitors[core.index()].fetch_sub(1, Ordering::SeqCst);
        self.monitor_count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether any session monitors.
    #[inline]
    pub fn has_monitors(&self) -> bool {
        self.monitor_count.load(Ordering::Relaxed) > 0
    }

    /// Who gets a line of MONITOR.
    pub fn monitor_receivers(&self) -> Receivers {
        let until = self.time.load(Ordering::SeqCst);
        let cores = self.monitor_cores();
        Receivers { cores, channel_until: until, ..Receivers::default() }
    }

    fn monitor_cores(&self) -> Cores {
        let is_set = |(core, count): (usize, &AtomicU32)| {
            u64::from(count.load(Ordering::Relaxed) > 0) << core
        };
        self.monitors.iter().enumerate().map(is_set).fold(0, |cores, core| cores | core)
    }

    /// Notes bytes that wait for a core.
    pub fn add_backlog(&self, core: CoreId, bytes: usize) {
        self.backlogs[core.index()].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes bytes that have been delivered there.
    pub fn sub_backlog(&self, core: CoreId, bytes: usize) {
        self.backlogs[core.index()].fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether so much waits for a core that publishers have to wait too.
    pub fn is_congested(&self) -> bool {
        self.backlogs.iter().any(|bytes| bytes.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_of_a_channel_are_its_subscribers_and_those_of_matching_patterns() {
        let registry = Registry::new(3);
        assert!(!registry.has_subscribers());
        registry.subscribe(Kind::Channel, CoreId(0), b"news");
        registry.subscribe(Kind::Channel, CoreId(2), b"news");
        registry.subscribe(Kind::Pattern, CoreId(1), b"n*");
        registry.subscribe(Kind::Pattern, CoreId(1), b"x*");
        registry.subscribe(Kind::Shard, CoreId(1), b"news");
        let to = registry.receivers(Kind::Channel, b"news");
        assert_eq!((to.count, to.cores), (3, 0b111));
        let to = registry.receivers(Kind::Shard, b"news");
        assert_eq!((to.count, to.cores), (1, 0b10));
        let to = registry.receivers(Kind::Channel, b"other");
        assert_eq!((to.count, to.cores), (0, 0));
    }

    #[test]
    fn name_without_subscribers_is_forgotten() {
        let registry = Registry::new(2);
        let (first, came_at) = registry.subscribe(Kind::Channel, CoreId(0), b"a");
        let until = registry.receivers(Kind::Channel, b"a").channel_until;
        let (second, came_later_at) = registry.subscribe(Kind::Channel, CoreId(1), b"a");
        assert!(Arc::ptr_eq(&first, &second));
        assert!(came_at < until && until <= came_later_at);
        registry.unsubscribe(Kind::Channel, CoreId(0), b"a");
        assert_eq!(
            (registry.name_count(Kind::Channel), registry.count(Kind::Channel, b"a")),
            (1, 1)
        );
        registry.unsubscribe(Kind::Channel, CoreId(1), b"a");
        assert_eq!(
            (registry.name_count(Kind::Channel), registry.count(Kind::Channel, b"a")),
            (0, 0)
        );
        assert!(!registry.has_subscribers() && registry.names(Kind::Channel, None).is_empty());
    }

    #[test]
    fn names_are_filtered_by_a_pattern() {
        let registry = Registry::new(1);
        for name in ["a1", "a2", "b1"] {
            registry.subscribe(Kind::Channel, CoreId(0), name.as_bytes());
        }
        assert_eq!(registry.names(Kind::Channel, Some(b"a?")).len(), 2);
        assert_eq!(registry.names(Kind::Channel, None).len(), 3);
        assert!(registry.names(Kind::Shard, None).is_empty());
    }

    #[test]
    fn monitors_are_known_by_core() {
        let registry = Registry::new(2);
        registry.monitor(CoreId(1));
        assert!(registry.has_monitors());
        assert_eq!(registry.monitor_cores(), 0b10);
        registry.unmonitor(CoreId(1));
        assert!(!registry.has_monitors());
    }
}
