//! Who is a member: servers and proxies join and leave. A stranger is asked what it is before it is
//! let in, and addresses must be of a kind that everybody else can reach.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cordis_engine::slots::map::{GroupId, ServerKind};

use super::peer::Peer;
use super::request::{Answer, Hello, Probed, ProxyModel, Request, Sample};
use super::{CommandId, Machine, Outcome, Weight};
use crate::model::{Key, Proxy, Server};
use crate::ranges::SlotSet;

/// Why members are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Collect {
    /// For somebody who watches.
    Top,
    /// To balance their slots.
    Rebalance {
        /// By what.
        by: Weight,
        /// Only to say how.
        is_preview: bool,
    },
}

/// A command that waits for peers. Not kept: whoever asked has to ask again after a restart.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    /// A server is asked what it is.
    Probing {
        command: CommandId,
        group: GroupId,
        addr: String,
        datacenter: String,
        is_import: bool,
        until_ms: i64,
    },
    /// A server is told that it is a member.
    Joining { command: CommandId, addr: String, until_ms: i64 },
    /// A server is told that it is none any more.
    Leaving { command: CommandId, addr: String, until_ms: i64 },
    /// A proxy is asked who it is.
    Meeting { command: CommandId, addr: String, until_ms: i64 },
    /// Members are looked at.
    Collect {
        command: CommandId,
        then: Collect,
        samples: BTreeMap<String, Option<Option<Sample>>>,
        until_ms: i64,
    },
}

impl Waiting {
    /// The peers that it needs.
    pub(super) fn addrs(&self) -> Vec<&str> {
        match self {
            Self::Probing { addr, .. }
            | Self::Joining { addr, .. }
            | Self::Leaving { addr, .. }
            | Self::Meeting { addr, .. } => vec![addr],
            Self::Collect { .. } => Vec::new(),
        }
    }

    /// Whether a server is about to join the group.
    pub(super) fn is_for_group(&self, id: GroupId) -> bool {
        matches!(self, Self::Probing { group, .. } if *group == id)
    }

    /// Whether an address is asked whether it is a proxy.
    pub(super) fn is_for_proxy(&self, of: &str) -> bool {
        matches!(self, Self::Meeting { addr, .. } if addr == of)
    }

    fn until_ms(&self) -> i64 {
        match self {
            Self::Probing { until_ms, .. }
            | Self::Joining { until_ms, .. }
            | Self::Leaving { until_ms, .. }
            | Self::Meeting { until_ms, .. }
            | Self::Collect { until_ms, .. } => *until_ms,
        }
    }
}

impl Machine {
    pub(super) fn server_add(
        &mut self,
        command: CommandId,
        group: GroupId,
        addr: String,
        datacenter: String,
        is_import: bool,
    ) {
        if let Err(why) = self.may_add(group, &addr) {
            return self.answer(command, Err(why));
        }
        let until_ms = self.now + self.model.settings.peer_timeout_ms as i64;
        let waiting = Waiting::Probing {
            command,
            group,
            addr: addr.clone(),
            datacenter,
            is_import,
            until_ms,
        };
        self.waiting.push(waiting);
        self.refresh_peers();
        self.errand(&addr, Request::Probe);
    }

    fn may_add(&self, group: GroupId, addr: &str) -> Result<(), String> {
        let group_now = self.model.groups.get(&group);
        let group_now = group_now.ok_or_else(|| format!("group-[{group}] doesn't exist"))?;
        self.is_reachable_for_all(addr)?;
        if self.is_known_addr(addr) {
            return Err(format!("server-[{addr}] already exists"));
        }
        // A second server would have to follow the first, and no data flows to it yet.
        if !group_now.servers.is_empty() || self.waiting.iter().any(|w| w.is_for_group(group)) {
            return Err(format!("group-[{group}] has its server already"));
        }
        Ok(())
    }

    fn is_known_addr(&self, addr: &str) -> bool {
        self.model.group_of(addr).is_some()
            || self.model.proxies.values().any(|proxy| proxy.admin_addr == addr)
            || self.waiting.iter().any(|waiting| waiting.addrs().contains(&addr))
    }

    /// An address is of use only if every other member can reach it: one on loopback beside others
    /// that are not would send their clients to themselves.
    fn is_reachable_for_all(&self, addr: &str) -> Result<(), String> {
        let socket = parse_addr(addr)?;
        let servers = self.model.servers().map(|(_, server)| server.addr.as_str());
        let proxies = self.model.proxies.values().map(|proxy| proxy.admin_addr.as_str());
        for other in servers.chain(proxies) {
            let Ok(known) = other.parse::<SocketAddr>() else { continue };
            if known.ip().is_loopback() != socket.ip().is_loopback() {
                let (near, far) =
                    if known.ip().is_loopback() { (other, addr) } else { (addr, other) };
                return Err(format!(
                    "{near} is on loopback and {far} is not: they cannot reach each other"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn server_del(&mut self, command: CommandId, addr: String) {
        match self.server_take(&addr) {
            Err(why) => self.answer(command, Err(why)),
            Ok(server) if server.kind == ServerKind::Cordis => {
                let until_ms = self.now + self.model.settings.peer_timeout_ms as i64 / 2;
                self.waiting.push(Waiting::Leaving { command, addr: addr.clone(), until_ms });
                self.refresh_peers();
                let product = self.model.meta.product.clone();
                self.errand(&addr, Request::Leave { product });
            }
            Ok(_) => {
                self.refresh_peers();
                self.answer(command, Ok(Outcome::Done));
            }
        }
    }

    fn server_take(&mut self, addr: &str) -> Result<Server, String> {
        let id = self.model.group_of(addr);
        let id = id.ok_or_else(|| format!("server-[{addr}] doesn't exist"))?;
        if self.model.groups_in_use().contains(&id) {
            return Err(format!("group-[{id}] can't remove master, still in use"));
        }
        let group = self.model.groups.get_mut(&id);
        let servers = &mut group.ok_or("the group is gone")?.servers;
        let at = servers.iter().position(|server| server.addr == addr).ok_or("it is gone")?;
        let server = servers.remove(at);
        self.dirty.insert(Key::Group(id));
        self.is_map_changed = true;
        self.log("server", format!("server {addr} was removed from group {id}"));
        Ok(server)
    }

    pub(super) fn proxy_add(&mut self, command: CommandId, addr: String) {
        // A proxy may announce itself as often as it likes.
        let known = self.model.proxies.values().find(|proxy| proxy.admin_addr == addr);
        let is_known = known.is_some();
        let is_met = self.peers.get(&addr).is_some_and(|peer| peer.is_up());
        if let (Some(proxy), true) = (known, is_met) {
            let outcome = Outcome::Proxy { id: proxy.id, token: proxy.token.clone() };
            return self.answer(command, Ok(outcome));
        }
        let is_taken = self.model.group_of(&addr).is_some();
        let check = if is_taken { Err(format!("{addr} is a server")) } else { Ok(()) };
        let check = check.and_then(|()| match is_known {
            true => Ok(()),
            false => self.is_reachable_for_all(&addr),
        });
        if let Err(why) = check {
            return self.answer(command, Err(why));
        }
        let until_ms = self.now + self.model.settings.peer_timeout_ms as i64;
        self.waiting.push(Waiting::Meeting { command, addr: addr.clone(), until_ms });
        self.refresh_peers();
        self.errand(&addr, Request::ProxyModel);
    }

    pub(super) fn proxy_del(&mut self, name: &str, is_forced: bool) -> Result<Outcome, String> {
        let found = self.model.proxies.values().find(|proxy| {
            proxy.id.to_string() == name
                || proxy.token == name
                || proxy.admin_addr == name
                || proxy.proxy_addr == name
        });
        let proxy = found.ok_or_else(|| format!("proxy-[{name}] doesn't exist"))?.clone();
        let is_up = self.peers.get(&proxy.admin_addr).is_some_and(Peer::is_up);
        if !is_up && !is_forced && self.model.meta.has_leases {
            return Err(format!(
                "proxy-[{name}] does not answer and may still serve slots that are moving; stop it \
                 and use FORCE"
            ));
        }
        self.model.proxies.remove(&proxy.id);
        self.dirty.insert(Key::Proxy(proxy.id));
        self.log("proxy", format!("proxy {} at {} was removed", proxy.id, proxy.admin_addr));
        self.refresh_peers();
        Ok(Outcome::Done)
    }

    /// Takes in what a stranger, or a member that was looked at, answered.
    pub(super) fn take_awaited(&mut self, addr: &str, request: &Request, answer: &Answer) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain_mut(|waiting| !self.is_served(waiting, addr, request, answer));
        // What was begun meanwhile comes behind.
        waiting.append(&mut self.waiting);
        self.waiting = waiting;
        self.refresh_peers();
    }

    fn is_served(
        &mut self,
        waiting: &mut Waiting,
        addr: &str,
        request: &Request,
        answer: &Answer,
    ) -> bool {
        match (waiting, request) {
            (
                Waiting::Probing { command, addr: of, group, datacenter, is_import, .. },
                Request::Probe,
            ) if of == addr => {
                let command = *command;
                let joined = self.take_probe(*group, addr, datacenter, *is_import, answer);
                self.server_probed(command, addr, joined);
                true
            }
            (Waiting::Joining { command, addr: of, .. }, Request::Join { .. }) if of == addr => {
                self.server_joined(*command, addr, answer)
            }
            (Waiting::Leaving { command, addr: of, .. }, Request::Leave { .. }) if of == addr => {
                let outcome = match answer {
                    Answer::Ok => Ok(Outcome::Done),
                    other => Err(format!("removed, but it did not leave: {}", reason(other))),
                };
                self.answer(*command, outcome);
                true
            }
            (Waiting::Meeting { command, addr: of, .. }, Request::ProxyModel) if of == addr => {
                let outcome = self.take_proxy(addr, answer);
                self.answer(*command, outcome);
                true
            }
            (Waiting::Collect { samples, .. }, Request::Sample | Request::ProxyStats) => {
                if let Some(seen) = samples.get_mut(addr) {
                    *seen = Some(match answer {
                        Answer::Sample(sample) => Some((**sample).clone()),
                        _ => None,
                    });
                }
                false
            }
            _ => false,
        }
    }

    /// Lets a server in, or says why not.
    fn take_probe(
        &mut self,
        group: GroupId,
        addr: &str,
        datacenter: &str,
        is_import: bool,
        answer: &Answer,
    ) -> Result<Server, String> {
        let Answer::Probed(probed) = answer else {
            return Err(format!("{addr}: {}", reason(answer)));
        };
        let (kind, run_id, keys) = match &**probed {
            Probed::Cordis(hello, keys) => {
                self.is_ours(addr, hello, group)?;
                (ServerKind::Cordis, hello.run_id.clone(), *keys)
            }
            Probed::Codis(run_id, keys) => (ServerKind::Codis, run_id.clone(), *keys),
            Probed::Redis(run_id, count) => {
                self.may_be_redis(addr, *count, is_import)?;
                (ServerKind::Redis, run_id.clone(), SlotSet::new())
            }
        };
        self.may_bring_keys(addr, &keys, is_import)?;
        let twin = self.model.servers().find(|(_, s)| !run_id.is_empty() && s.run_id == run_id);
        if let Some((_, twin)) = twin {
            return Err(format!("{addr} is the same server as {}", twin.addr));
        }
        let server = Server {
            addr: addr.to_owned(),
            kind,
            datacenter: datacenter.to_owned(),
            run_id,
            is_joined: kind != ServerKind::Cordis,
        };
        let entry = self.model.groups.get_mut(&group);
        let servers = &mut entry.ok_or("the group is gone")?.servers;
        servers.push(server.clone());
        self.dirty.insert(Key::Group(group));
        self.is_map_changed = true;
        self.log("server", format!("server {addr} ({kind:?}) was added to group {group}"));
        Ok(server)
    }

    fn is_ours(&self, addr: &str, hello: &Hello, group: GroupId) -> Result<(), String> {
        let ours = &self.model.meta.product;
        if !hello.product.is_empty() && hello.product != *ours {
            return Err(format!("{addr} belongs to product '{}'", hello.product));
        }
        if hello.product == *ours && hello.group != 0 && hello.group != group {
            return Err(format!("{addr} says that it is of group {}", hello.group));
        }
        Ok(())
    }

    fn may_be_redis(&self, addr: &str, keys: u64, is_import: bool) -> Result<(), String> {
        if !is_import {
            return Err(format!(
                "{addr} is no Cordis server and no codis-server: its slots could never be moved; \
                 use IMPORT to take it all the same"
            ));
        }
        let has_slots = !self.model.slots_where(|slot| slot.group != 0).is_empty();
        if keys > 0 && has_slots {
            // It cannot say which slots its keys are in, so each might hide another group's.
            return Err(format!("{addr} has {keys} keys: import it before any slot is assigned"));
        }
        Ok(())
    }

    fn may_bring_keys(&self, addr: &str, keys: &SlotSet, is_import: bool) -> Result<(), String> {
        if keys.is_empty() {
            return Ok(());
        }
        if !is_import {
            return Err(format!("{addr} is not empty: it has keys in slots {keys}; use IMPORT"));
        }
        let taken: SlotSet = keys.iter().filter(|slot| self.model.slot(*slot).group != 0).collect();
        if !taken.is_empty() {
            return Err(format!("{addr} has keys in slots {taken}, which other groups serve"));
        }
        Ok(())
    }

    fn server_probed(&mut self, command: CommandId, addr: &str, joined: Result<Server, String>) {
        match joined {
            Err(why) => self.answer(command, Err(why)),
            Ok(server) if server.is_joined => self.answer(command, Ok(Outcome::Done)),
            Ok(_) => {
                let until_ms = self.now + self.model.settings.peer_timeout_ms as i64;
                self.waiting.push(Waiting::Joining { command, addr: addr.to_owned(), until_ms });
            }
        }
    }

    /// A server has been told that it is a member; whether the command that wanted it is served.
    fn server_joined(&mut self, command: CommandId, addr: &str, answer: &Answer) -> bool {
        match answer {
            Answer::Ok => self.answer(command, Ok(Outcome::Done)),
            Answer::Refused(why) => {
                // It has no slots yet, so it can go as it came.
                let gone = self.server_take(addr).map(|_| ());
                let why = gone.map_or_else(|left| left, |()| format!("{addr} refused: {why}"));
                self.answer(command, Err(why));
            }
            _ => return false,
        }
        true
    }

    fn take_proxy(&mut self, addr: &str, answer: &Answer) -> Result<Outcome, String> {
        let Answer::ProxyModel(ProxyModel { token, proxy_addr, product, .. }) = answer else {
            return Err(format!("proxy@{addr} fetch model failed, {}", reason(answer)));
        };
        if !product.is_empty() && *product != self.model.meta.product {
            return Err(format!("proxy@{addr} belongs to product '{product}'"));
        }
        let known = self.model.proxies.values().find(|p| p.token == *token || p.admin_addr == addr);
        let id = match known {
            Some(proxy) => proxy.id,
            None => self.next_id(),
        };
        let proxy = Proxy {
            id,
            token: token.clone(),
            admin_addr: addr.to_owned(),
            proxy_addr: proxy_addr.clone(),
            is_leased: false,
        };
        let before = self.model.proxies.insert(id, proxy.clone());
        if before.as_ref() != Some(&proxy) {
            self.dirty.insert(Key::Proxy(id));
            self.log("proxy", format!("proxy {id} at {addr} serves clients at {proxy_addr}"));
        }
        Ok(Outcome::Proxy { id, token: token.clone() })
    }

    /// Answers commands whose time is up, and those that have everything.
    pub(super) fn see_to_waiting(&mut self) {
        let now = self.now;
        let is_over = |waiting: &Waiting| match waiting {
            Waiting::Collect { samples, until_ms, .. } => {
                samples.values().all(Option::is_some) || now >= *until_ms
            }
            other => now >= other.until_ms(),
        };
        if !self.waiting.iter().any(is_over) {
            return;
        }
        let (over, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(is_over);
        self.waiting = waiting;
        let over: Vec<Waiting> = over;
        over.into_iter().for_each(|waiting| self.end_waiting(waiting));
        self.refresh_peers();
    }

    fn end_waiting(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Probing { command, addr, .. } | Waiting::Meeting { command, addr, .. } => {
                let why = self.peers.get(&addr).map_or("", |peer| peer.error.as_str());
                let text = format!("{addr} does not answer: {why}");
                self.answer(command, Err(text));
            }
            Waiting::Joining { command, addr, .. } => {
                let text =
                    format!("{addr} was added, but does not answer yet; control goes on trying");
                self.answer(command, Err(text));
            }
            Waiting::Leaving { command, addr, .. } => {
                let text = format!("{addr} was removed, but does not answer: it was not told");
                self.answer(command, Err(text));
            }
            Waiting::Collect { command, then, samples, .. } => {
                let samples = samples.into_iter().map(|(addr, look)| (addr, look.flatten()));
                let samples: BTreeMap<String, Option<Sample>> = samples.collect();
                let outcome = match then {
                    Collect::Top => Ok(Outcome::Top(samples)),
                    Collect::Rebalance { by, is_preview } => {
                        self.rebalance(by, is_preview, &samples)
                    }
                };
                self.answer(command, outcome);
            }
        }
    }

    /// Queues a question that is asked once.
    pub(super) fn errand(&mut self, addr: &str, request: Request) {
        if let Some(peer) = self.peers.get_mut(addr)
            && !peer.errands.contains(&request)
        {
            peer.errands.push_back(request);
        }
    }

    pub(super) fn errand_for_look(&mut self, addr: &str) {
        let is_proxy = self.model.proxies.values().any(|proxy| proxy.admin_addr == addr);
        self.errand(addr, if is_proxy { Request::ProxyStats } else { Request::Sample });
    }
}

/// What an answer says that is not the one hoped for.
pub(super) fn reason(answer: &Answer) -> &str {
    match answer {
        Answer::Refused(why) | Answer::Lost(why) => why,
        _ => "an answer that makes no sense",
    }
}

fn parse_addr(addr: &str) -> Result<SocketAddr, String> {
    let socket: SocketAddr =
        addr.parse().map_err(|_| format!("invalid address '{addr}': it must be ip:port"))?;
    let ip = socket.ip();
    if ip.is_unspecified() || ip.is_multicast() || socket.port() == 0 {
        return Err(format!("invalid address '{addr}': nobody can connect to it"));
    }
    Ok(socket)
}
