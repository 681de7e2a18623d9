//! What is asked of each peer next: the first thing of a list that holds, one at a time.

use std::sync::Arc;

use cordis_engine::slots::map::ServerKind;

use super::native::{expect_request, move_request};
use super::peer::{GRACE_MS, Peer, Role};
use super::request::{Answer, Lease, Request};
use super::{Action, IDLE_POLL_MS, MOVE_POLL_MS, Machine};
use crate::model::{Key, MoveState, Way};

impl Machine {
    /// Asks every peer that is not being asked.
    pub(super) fn wish(&mut self) {
        let idle: Vec<String> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.in_flight.is_none() && self.now >= peer.retry_at_ms)
            .map(|(addr, _)| addr.clone())
            .collect();
        for addr in idle {
            let Some(request) = self.wish_of(&addr) else { continue };
            self.request_id += 1;
            let id = self.request_id;
            if let Some(peer) = self.peers.get_mut(&addr) {
                sent(peer, self.now, &request);
                peer.in_flight = Some((id, request.clone()));
            }
            self.out.push(Action::Send { peer: addr, id, request });
        }
    }

    fn wish_of(&mut self, addr: &str) -> Option<Request> {
        let peer = self.peers.get_mut(addr)?;
        match peer.role {
            Role::Stranger => peer.errands.pop_front(),
            Role::Cordis => self.wish_of_cordis(addr),
            Role::Other => self.wish_of_other(addr),
            Role::Proxy => self.wish_of_proxy(addr),
        }
    }

    fn wish_of_cordis(&mut self, addr: &str) -> Option<Request> {
        let group = self.model.group_of(addr)?;
        let product = &self.model.meta.product;
        let map_epoch = self.model.meta.map_epoch;
        let peer = self.peers.get_mut(addr)?;
        let Some(hello) = &peer.hello else {
            return Some(Request::Hello);
        };
        // One that says that it is a member may be of an earlier life of the product: it is told again.
        let is_joined = self.model.servers().any(|(_, s)| s.addr == addr && s.is_joined);
        if hello.product != *product || !is_joined {
            if !hello.product.is_empty() && hello.product != *product {
                // Somebody else's: it is asked again now and then whether it still is.
                peer.hello = None;
                peer.refuse(self.now, "it belongs to another product");
                return None;
            }
            let (product, addr) = (product.clone(), addr.to_owned());
            return Some(Request::Join { product, group, addr });
        }
        if peer.moves_ms == 0 {
            return Some(Request::Moves);
        }
        if peer.map_acked < map_epoch {
            return Some(Request::MapSet(Arc::clone(&self.map)));
        }
        if peer.slots_ms == 0 {
            return Some(Request::Slots);
        }
        if let Some(errand) = peer.errands.pop_front() {
            return Some(errand);
        }
        self.wish_of_moves(addr).or_else(|| self.wish_of_idle(addr))
    }

    /// What the moves that a server is an end of need from it.
    fn wish_of_moves(&self, addr: &str) -> Option<Request> {
        let peer = self.peers.get(addr)?;
        let rate = self.model.settings.migration_rate_bytes;
        for known in self.model.moves.values() {
            let Some(live) = self.live.get(&known.id) else { continue };
            let is_source = known.source == addr;
            match (known.way, known.state) {
                (Way::Native, MoveState::Preparing) if known.target == addr => {
                    return Some(expect_request(known));
                }
                (Way::Native, MoveState::Prepared) if is_source => {
                    return Some(move_request(known, live, rate));
                }
                (Way::Native, MoveState::Cancelling) if is_source && !live.is_source_told => {
                    return Some(Request::Cancel { id: known.id });
                }
                _ => {}
            }
        }
        let state_of = |state| {
            let mut moves = self.model.moves.values();
            moves.any(|m| m.way == Way::Native && m.source == addr && m.state == state)
        };
        if state_of(MoveState::Migrating) && self.now - peer.moves_ms >= MOVE_POLL_MS {
            return Some(Request::Moves);
        }
        if state_of(MoveState::Cancelling) && self.now - peer.slots_ms >= MOVE_POLL_MS {
            return Some(Request::Slots);
        }
        self.wish_of_carrying(addr)
    }

    /// What the dialect move that a server is the source of needs from it.
    fn wish_of_carrying(&self, addr: &str) -> Option<Request> {
        let id = self.carried_by(addr)?;
        let (known, live) = (self.model.moves.get(&id)?, self.live.get(&id)?);
        let is_stopped = !known.reason.is_empty() && !known.is_turned;
        if self.model.meta.is_paused || is_stopped || self.now < live.carry_at_ms {
            return None;
        }
        if live.is_db_done {
            return Some(Request::NextDb { after: live.db });
        }
        let settings = &self.model.settings;
        Some(Request::Carry {
            db: live.db,
            slot: known.slots.iter().next()?,
            target: known.target.clone(),
            is_sync: settings.forward_method == 0,
            timeout_ms: settings.migration_timeout_ms,
            maxbulks: settings.migration_async_maxbulks,
            maxbytes: settings.migration_async_maxbytes,
            numkeys: settings.migration_async_numkeys,
        })
    }

    fn wish_of_idle(&self, addr: &str) -> Option<Request> {
        let peer = self.peers.get(addr)?;
        if self.now - peer.slots_ms >= IDLE_POLL_MS {
            return Some(Request::Slots);
        }
        (self.now - peer.moves_ms >= 2 * IDLE_POLL_MS).then_some(Request::Moves)
    }

    fn wish_of_other(&mut self, addr: &str) -> Option<Request> {
        let peer = self.peers.get_mut(addr)?;
        if let Some(errand) = peer.errands.pop_front() {
            return Some(errand);
        }
        if let Some(request) = self.wish_of_carrying(addr) {
            return Some(request);
        }
        let peer = self.peers.get(addr)?;
        (self.now - peer.pinged_ms >= IDLE_POLL_MS).then_some(Request::Ping)
    }

    fn wish_of_proxy(&mut self, addr: &str) -> Option<Request> {
        let (product, map_epoch) = (&self.model.meta.product, self.model.meta.map_epoch);
        let has_leases = self.model.meta.has_leases;
        let lease_ms = self.model.settings.lease_ms;
        let peer = self.peers.get_mut(addr)?;
        let Some(model) = &peer.model else {
            return Some(Request::ProxyModel);
        };
        if !model.product.is_empty() && model.product != *product {
            peer.model = None;
            peer.refuse(self.now, "it belongs to another product");
            return None;
        }
        // A lease counts from a reading of the proxy's own clock, so that however late it arrives it
        // cannot reach further than is reckoned with here.
        let Some((clock, _)) = peer.clock else {
            return Some(Request::Lease(None));
        };
        let lease = Request::Lease(Some(Lease { ms: lease_ms, since: clock }));
        // Never a lease before the newest map: one that missed a map, because it was fenced when the
        // others took it, would serve by the old one. The price is that requests wait for one round
        // trip when leases begin.
        if peer.map_acked < map_epoch {
            return Some(Request::MapSet(Arc::clone(&self.map)));
        }
        let is_due = !peer.is_leased || self.now - peer.leased_ms >= lease_ms as i64 / 4;
        if has_leases && is_due {
            return Some(lease);
        }
        if let Some(errand) = peer.errands.pop_front() {
            return Some(errand);
        }
        (self.now - peer.pinged_ms >= IDLE_POLL_MS).then_some(Request::Lease(None))
    }

    /// Takes in an answer, whatever it was for.
    pub(super) fn take_answer(&mut self, addr: &str, request: &Request, answer: Answer) {
        self.take_identity(addr, request, &answer);
        self.take_map_answer(addr, request, &answer);
        if !matches!(answer, Answer::Lost(_)) {
            self.take_native(addr, request, &answer);
        }
        self.take_dialect(addr, request, &answer);
        self.take_awaited(addr, request, &answer);
    }

    fn take_identity(&mut self, addr: &str, request: &Request, answer: &Answer) {
        let Some(peer) = self.peers.get_mut(addr) else { return };
        match (request, answer) {
            (Request::Hello, Answer::Hello(hello)) => {
                let is_foreign =
                    !hello.product.is_empty() && hello.product != self.model.meta.product;
                let product = hello.product.clone();
                let was_foreign = std::mem::replace(&mut peer.is_foreign, is_foreign);
                peer.hello = Some(hello.clone());
                if is_foreign && !was_foreign {
                    self.log("foreign", format!("{addr} belongs to product '{product}'"));
                }
            }
            (Request::Join { .. }, Answer::Ok) => {
                peer.hello = None;
                self.note_joined(addr);
            }
            (Request::ProxyModel, Answer::ProxyModel(model)) => {
                peer.model = Some(model.clone());
            }
            (
                Request::Join { .. }
                | Request::Hello
                | Request::ProxyModel
                | Request::MapSet(_)
                | Request::Slots
                | Request::Moves
                | Request::Lease(_),
                Answer::Refused(why),
            ) => {
                // It would only refuse again.
                let (now, why) = (self.now, why.clone());
                peer.refuse(now, &why);
            }
            _ => {}
        }
    }

    fn note_joined(&mut self, addr: &str) {
        let Some(group) = self.model.group_of(addr) else { return };
        let Some(entry) = self.model.groups.get_mut(&group) else { return };
        for server in entry.servers.iter_mut().filter(|s| s.addr == addr && !s.is_joined) {
            server.is_joined = true;
            self.dirty.insert(Key::Group(group));
        }
    }

    fn take_map_answer(&mut self, addr: &str, request: &Request, answer: &Answer) {
        let Request::MapSet(map) = request else { return };
        let Some(peer) = self.peers.get_mut(addr) else { return };
        match answer {
            Answer::Epoch(epoch) => {
                peer.map_acked = (*epoch).min(map.epoch);
                if map.lease_ms > 0 && peer.role == Role::Proxy && *epoch == map.epoch {
                    // Until it took this map it needed no lease: what it sent then is on its way.
                    peer.lease_end_ms = peer.lease_end_ms.max(self.now + GRACE_MS);
                    self.note_leased(addr);
                }
            }
            Answer::Stale(epoch) if *epoch > self.model.meta.map_epoch => {
                // A store older than the cluster: the next map must be above all that ever were.
                self.model.meta.epoch = self.model.meta.epoch.max(*epoch);
                self.is_map_changed = true;
                let text = format!("{addr} has a map of epoch {epoch}: the next one is above it");
                self.log("epoch", text);
            }
            _ => {}
        }
    }

    /// A proxy has taken a map that fences it when it hears nothing more.
    fn note_leased(&mut self, addr: &str) {
        if !self.model.meta.has_leases {
            return;
        }
        for proxy in self.model.proxies.values_mut() {
            if proxy.admin_addr == addr && !proxy.is_leased {
                proxy.is_leased = true;
                self.dirty.insert(Key::Proxy(proxy.id));
            }
        }
    }

    /// Whether a server of a group speaks the cluster's own commands.
    pub fn is_cordis(&self, group: u16) -> bool {
        self.kind_of(group) == Some(ServerKind::Cordis)
    }
}

/// Notes what follows from a question alone, answered or not.
fn sent(peer: &mut Peer, now: i64, request: &Request) {
    match request {
        Request::Ping | Request::Lease(None) => peer.pinged_ms = now,
        Request::Lease(Some(lease)) => {
            peer.leased_ms = now;
            // The reading was taken before it was heard: it ends no later than this.
            let heard_ms = peer.clock.map_or(now, |(_, heard_ms)| heard_ms);
            peer.lease_end_ms = peer.lease_end_ms.max(heard_ms + lease.ms as i64 + GRACE_MS);
        }
        _ => {}
    }
}
