//! Publish and subscribe over cores, and what travels like it: keyspace events and MONITOR's lines.
//!
//! Each core keeps a [`table`] of its own subscribed sessions, which only it reads and writes. What
//! all cores share is the [`registry`]: how many subscribers each core has of each channel. So a
//! publisher knows the exact number of receivers at once, and mails a [`message`] to those cores
//! only that have one. Handlers touch neither tables nor mail: they write to the [`outbox`] of the
//! core that runs them, which carries it out in order once they have returned.
//!
//! Knows no socket and no session; the core's part is `runtime/pubsub.rs`.

pub mod event;
pub mod message;
pub mod monitor;
pub mod outbox;
pub mod registry;
pub mod table;

use std::collections::{HashSet, hash_set};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::store::keyspace::key_hash;

/// The name of a channel, or a pattern. One copy serves the registry, the table and the session.
pub type Name = Arc<[u8]>;

/// Names of one session.
pub type NameSet = HashSet<Name, BuildHasherDefault<NameHasher>>;

/// What can be subscribed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A channel.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A shard channel: a world of its own, without patterns.
    Shard,
}

impl Kind {
    /// What confirms a subscription.
    pub const fn subscribed(self) -> &'static [u8] {
        match self {
            Self::Channel => b"subscribe",
            Self::Pattern => b"psubscribe",
            Self::Shard => b"ssubscribe",
        }
    }

    /// What confirms its end.
    pub const fn unsubscribed(self) -> &'static [u8] {
        match self {
            Self::Channel => b"unsubscribe",
            Self::Pattern => b"punsubscribe",
            Self::Shard => b"sunsubscribe",
        }
    }
}

/// Gives the hash of names its key, in a process that has no data and hence seeds nothing else.
/// Before any other thread exists.
pub fn seed_names(seed: u64) {
    crate::store::keyspace::seed_hash(seed);
}

/// Hashes names with the keyed hash of the data, so that no client can make them collide.
#[derive(Default, Debug)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= key_hash(bytes);
    }

    // The length that precedes a slice adds nothing: the hash covers it.
    fn write_usize(&mut self, _n: usize) {}
}

/// What one session is subscribed to. A session that has none of it is not subscribed at all.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: NameSet,
    patterns: NameSet,
    shard_channels: NameSet,
}

impl Subscriptions {
    /// The names of one kind.
    pub const fn of(&self, kind: Kind) -> &NameSet {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    /// The same, to change them.
    pub const fn of_mut(&mut self, kind: Kind) -> &mut NameSet {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    /// The count that confirmations show: shard channels count for themselves, the rest together.
    pub fn shown_count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_channels.len(),
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }

    /// All names, to be forgotten one by one: there may be millions.
    pub fn leave(self) -> Leaving {
        Leaving {
            channels: self.channels.into_iter(),
            patterns: self.patterns.into_iter(),
            shard_channels: self.shard_channels.into_iter(),
        }
    }
}

/// What a session that has ended was subscribed to.
#[derive(Debug)]
pub struct Leaving {
    channels: hash_set::IntoIter<Name>,
    patterns: hash_set::IntoIter<Name>,
    shard_channels: hash_set::IntoIter<Name>,
}

impl Iterator for Leaving {
    type Item = (Kind, Name);

    fn next(&mut self) -> Option<Self::Item> {
        let channel = self.channels.next().map(|name| (Kind::Channel, name));
        let pattern = || self.patterns.next().map(|name| (Kind::Pattern, name));
        let shard_channel = || self.shard_channels.next().map(|name| (Kind::Shard, name));
        channel.or_else(pattern).or_else(shard_channel)
    }
}
