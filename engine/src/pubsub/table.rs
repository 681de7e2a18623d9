//! The subscribed sessions of one core, by channel. Only that core reads and writes it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::commands::glob::{self, Case};
use crate::pubsub::{Kind, Name, NameHasher};
use crate::store::keyspace::key_hash;

/// A session of this core: its index and generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subscriber {
    /// Its index among the core's sessions.
    pub index: u32,
    /// Tells it apart from others that had this index.
    pub generation: u32,
}

/// The subscribers of one name, in order, each with the time at which it came.
#[derive(Debug, Default)]
pub struct Subscribers {
    list: Vec<(Subscriber, u64)>,
}

impl Subscribers {
    fn add(&mut self, who: Subscriber, at: u64) {
        if let Err(place) = self.list.binary_search_by_key(&who, |(s, _)| *s) {
            self.list.insert(place, (who, at));
        }
    }

    fn remove(&mut self, who: Subscriber) {
        if let Ok(place) = self.list.binary_search_by_key(&who, |(s, _)| *s) {
            self.list.remove(place);
        }
    }

    /// Those behind `after` that had come before the time `until`.
    pub fn behind(
        &self,
        after: Option<Subscriber>,
        until: u64,
    ) -> impl Iterator<Item = Subscriber> + '_ {
        let from = self.list.partition_point(|(s, _)| after.is_some_and(|after| *s <= after));
        self.list[from..].iter().filter(move |(_, at)| *at < until).map(|(s, _)| *s)
    }
}

type Map = HashMap<Name, Subscribers, BuildHasherDefault<NameHasher>>;

/// Maps that channels are spread over, so that a million of them never move at once.
const STRIPE_COUNT: usize = 256;

/// The table.
#[derive(Debug)]
pub struct Table {
    channels: Box<[Map]>,
    /// One map: each message of a channel looks at all of them.
    patterns: Map,
    shard_channels: Box<[Map]>,
    monitors: Subscribers,
}

impl Default for Table {
    fn default() -> Self {
        let stripes = || (0..STRIPE_COUNT).map(|_| Map::default()).collect();
        let (channels, shard_channels) = (stripes(), stripes());
        Self {
            channels,
            shard_channels,
            patterns: Map::default(),
            monitors: Subscribers::default(),
        }
    }
}

/// The stripe of a name.
fn stripe(name: &[u8]) -> usize {
    // The top bits: the maps use the low ones.
    (key_hash(name) >> 40) as usize % STRIPE_COUNT
}

impl Table {
    fn of_mut(&mut self, kind: Kind, name: &[u8]) -> &mut Map {
        match kind {
            Kind::Channel => &mut self.channels[stripe(name)],
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels[stripe(name)],
        }
    }

    /// Adds a subscriber that came at this time.
    ///
    /// # Complexity
    /// O(log N) with N subscribers of the name, and a move of 16 bytes for each behind it.
    pub fn subscribe(&mut self, kind: Kind, name: &Name, who: Subscriber, at: u64) {
        let map = self.of_mut(kind, name);
        if let Some(subscribers) = map.get_mut(name) {
            return subscribers.add(who, at);
        }
        map.insert(Name::clone(name), Subscribers { list: vec![(who, at)] });
    }

    /// Removes a subscriber.
    pub fn unsubscribe(&mut self, kind: Kind, name: &[u8], who: Subscriber) {
        let map = self.of_mut(kind, name);
        let Some(subscribers) = map.get_mut(name) else {
            return;
        };
        subscribers.remove(who);
        if subscribers.list.is_empty() {
            map.remove(name);
            if map.len() * 4 < map.capacity() {
                map.shrink_to_fit();
            }
        }
    }

    /// Adds a session that monitors since this time.
    pub fn monitor(&mut self, who: Subscriber, at: u64) {
        self.monitors.add(who, at);
    }

    /// Removes it.
    pub fn unmonitor(&mut self, who: Subscriber) {
        self.monitors.remove(who);
    }

    /// Sessions that monitor.
    pub fn monitors(&self) -> &Subscribers {
        &self.monitors
    }

    /// Subscribers of a name.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> Option<&Subscribers> {
        match kind {
            Kind::Channel => &self.channels[stripe(name)],
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels[stripe(name)],
        }
        .get(name)
    }

    /// The patterns with subscribers here that match a channel.
    pub fn matching_patterns(&self, channel: &[u8]) -> Vec<Name> {
        let matches = |pattern: &&Name| glob::matches(pattern, channel, Case::Sensitive);
        self.patterns.keys().filter(matches).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(index: u32) -> Subscriber {
        Subscriber { index, generation: 1 }
    }

    fn receivers(table: &Table, after: Option<Subscriber>, until: u64) -> Vec<u32> {
        let subscribers = table.subscribers(Kind::Channel, b"ch");
        subscribers.map_or_else(Vec::new, |s| s.behind(after, until).map(|s| s.index).collect())
    }

    #[test]
    fn subscriber_that_came_later_gets_nothing_older() {
        let mut table = Table::default();
        let name: Name = b"ch"[..].into();
        table.subscribe(Kind::Channel, &name, session(7), 1);
        table.subscribe(Kind::Channel, &name, session(3), 2);
        assert_eq!(receivers(&table, None, 2), [7]);
        assert_eq!(receivers(&table, None, 3), [3, 7]);
        assert_eq!(receivers(&table, Some(session(3)), 3), [7]);
    }

    #[test]
    fn name_goes_with_its_last_subscriber() {
        let mut table = Table::default();
        let name: Name = b"ch"[..].into();
        table.subscribe(Kind::Channel, &name, session(1), 1);
        table.subscribe(Kind::Channel, &name, session(1), 2);
        table.subscribe(Kind::Channel, &name, session(2), 3);
        table.unsubscribe(Kind::Channel, &name, session(1));
        assert_eq!(receivers(&table, None, u64::MAX), [2]);
        table.unsubscribe(Kind::Channel, &name, session(2));
        table.unsubscribe(Kind::Channel, &name, session(2));
        assert!(table.subscribers(Kind::Channel, &name).is_none());
    }

    #[test]
    fn patterns_are_found_by_what_they_match() {
        let mut table = Table::default();
        for pattern in ["a*", "?b", "x"] {
            table.subscribe(Kind::Pattern, &pattern.as_bytes().into(), session(1), 1);
        }
        assert_eq!(table.matching_patterns(b"ab").len(), 2);
        assert!(table.matching_patterns(b"zz").is_empty());
    }
}
