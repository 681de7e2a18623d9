//! A model of a proxy: a map kept on disk, a lease, and requests that follow refusals.

use std::collections::BTreeMap;
use std::sync::Arc;

use cordis_control::machine::request::{Answer, ProxyModel, Request};
use cordis_engine::slots::map::{ClusterMap, MapRange};

/// What a request does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// It waits.
    Wait,
    /// It goes to this server, and runs there.
    To(String),
    /// It goes to this server, and runs there only if the key is there.
    Wrapped(String),
}

/// A proxy.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) addr: String,
    pub(crate) is_up: bool,
    map: Option<Arc<ClusterMap>>,
    /// By its own clock.
    lease_until: i64,
    /// How far its clock is from the world's.
    clock_offset: i64,
    /// Requests of a slot that are on their way.
    pub(crate) in_flight: BTreeMap<u16, usize>,
    /// A map that waits until the requests of the slots that it changes have returned.
    pub(crate) held: Option<(u64, u64, Arc<ClusterMap>)>,
}

impl Proxy {
    pub(crate) fn new(addr: &str, clock_offset: i64) -> Self {
        Self {
            addr: addr.to_owned(),
            is_up: true,
            map: None,
            lease_until: 0,
            clock_offset,
            in_flight: BTreeMap::new(),
            held: None,
        }
    }

    pub(crate) fn crash(&mut self) {
        // The map is on disk; the lease is not.
        self.is_up = false;
        self.lease_until = 0;
        self.in_flight.clear();
        self.held = None;
    }

    pub(crate) fn map_epoch(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| map.epoch)
    }

    fn clock(&self, now: i64) -> i64 {
        now + self.clock_offset
    }

    fn entry(map: &ClusterMap, slot: u16) -> &MapRange {
        let found = map.slots.iter().find(|range| (range.from..=range.to).contains(&slot));
        found.expect("a map has every slot")
    }

    /// Where a request of a slot goes.
    pub(crate) fn route(&self, now: i64, slot: u16) -> Route {
        let Some(map) = &self.map else { return Route::Wait };
        let entry = Self::entry(map, slot);
        let primary = |id| map.group(id).and_then(|group| group.primary());
        let Some(backend) = primary(entry.group) else { return Route::Wait };
        let from = primary(entry.migrate_from);
        // Without a lease it serves nothing: any slot may have gone and come back meanwhile.
        let has_lease = map.lease_ms == 0 || self.clock(now) < self.lease_until;
        if entry.locked || !has_lease || self.is_draining(slot) {
            return Route::Wait;
        }
        match from {
            Some(from) => Route::Wrapped(from.addr.clone()),
            None => Route::To(backend.addr.clone()),
        }
    }

    /// Whether a map waits that sends the slot's requests elsewhere.
    fn is_draining(&self, slot: u16) -> bool {
        let (Some(now), Some((_, _, next))) = (&self.map, &self.held) else { return false };
        let route = |e: &MapRange| (e.group, e.migrate_from, e.locked);
        route(Self::entry(now, slot)) != route(Self::entry(next, slot))
    }

    /// Where a request goes whose key is not at the source.
    pub(crate) fn backend(&self, slot: u16) -> Option<String> {
        let map = self.map.as_ref()?;
        let group = map.group(Self::entry(map, slot).group)?;
        Some(group.primary()?.addr.clone())
    }

    /// Answers control; nothing while a map waits for requests to return.
    pub(crate) fn ask(&mut self, now: i64, asked: (u64, u64), request: &Request) -> Option<Answer> {
        Some(match request {
            Request::ProxyModel => Answer::ProxyModel(ProxyModel {
                token: self.addr.clone(),
                proxy_addr: format!("{}0", self.addr),
                product: String::new(),
                version: "1".into(),
            }),
            Request::Lease(lease) => {
                if let Some(lease) = lease {
                    let until = lease.since as i64 + lease.ms as i64;
                    self.lease_until = self.lease_until.max(until);
                }
                Answer::Clock(self.clock(now) as u64)
            }
            Request::MapSet(map) => {
                if map.epoch < self.map_epoch() {
                    return Some(Answer::Stale(self.map_epoch()));
                }
                self.held = Some((asked.0, asked.1, Arc::clone(map)));
                return self.let_in().map(|(_, _, epoch)| Answer::Epoch(epoch));
            }
            _ => Answer::Ok,
        })
    }

    /// Takes the map that waits, if nothing is on its way to a slot that it changes.
    pub(crate) fn let_in(&mut self) -> Option<(u64, u64, u64)> {
        self.held.as_ref()?;
        let mut busy = self.in_flight.iter().filter(|(_, count)| **count > 0);
        if busy.any(|(slot, _)| self.is_draining(*slot)) {
            return None;
        }
        let (incarnation, id, map) = self.held.take()?;
        if map.epoch < self.map_epoch() {
            return None;
        }
        let epoch = map.epoch;
        self.map = Some(map);
        Some((incarnation, id, epoch))
    }
}
