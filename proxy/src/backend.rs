//! The backends of one core: who they are, the links to them, and when a lost one may be dialled
//! again. Knows no ring.

use std::net::SocketAddr;
use std::sync::Arc;

use cordis_engine::invariant;
use cordis_engine::metrics::Cell;
use cordis_engine::metrics::histogram::Histogram;
use cordis_engine::resp::reply::Protocol;
use cordis_engine::slots::map::ServerKind;
use cordis_engine::units::{Ms, SLOT_COUNT};

use crate::link::LinkError;
use crate::route::{BackendId, Lane};

/// No link.
pub(crate) const NO_LINK: u32 = u32::MAX;
/// Pauses between attempts to connect.
const RETRY_MS_MIN: i64 = 50;
const RETRY_MS_MAX: i64 = 5_000;

/// The link of one lane and protocol, or when there may be another.
#[derive(Debug)]
pub(crate) struct LinkSlot {
    pub(crate) link: u32,
    failures: u32,
    retry_at: Ms,
    last_error: Option<LinkError>,
}

impl Default for LinkSlot {
    fn default() -> Self {
        Self { link: NO_LINK, failures: 0, retry_at: Ms(0), last_error: None }
    }
}

impl LinkSlot {
    /// Why it may not be dialled now.
    pub(crate) fn refusal(&self, now: Ms) -> Option<LinkError> {
        let error = self.last_error.clone();
        error.filter(|_| now < self.retry_at)
    }

    /// Its link is gone. Who was connected is dialled again at once, with pauses that double after.
    pub(crate) fn lost(&mut self, was_ready: bool, why: &LinkError, now: Ms) {
        self.link = NO_LINK;
        self.last_error = Some(why.clone());
        if was_ready {
            self.failures = 0;
            self.retry_at = now;
        } else {
            let pause = (RETRY_MS_MIN << self.failures.min(10)).min(RETRY_MS_MAX);
            self.failures += 1;
            self.retry_at = Ms(now.0 + pause);
        }
    }

    pub(crate) fn connected(&mut self) {
        self.failures = 0;
        self.last_error = None;
    }
}

/// Counters of one backend, written by one core.
#[derive(Debug, Default)]
pub struct BackendStats {
    /// Requests that it answered.
    pub calls: Cell,
    /// Requests that it refused because of their slots.
    pub refused: Cell,
    /// Requests that got no reply.
    pub failed: Cell,
    /// Links that were lost.
    pub links_lost: Cell,
    /// From a request's arrival here to its reply.
    pub time: Histogram,
}

/// A server.
#[derive(Debug)]
pub struct Backend {
    /// Its address, `ip:port`.
    pub addr: String,
    /// Where that is.
    pub socket: Option<SocketAddr>,
    /// What it speaks.
    pub kind: ServerKind,
    /// It is the server that hosts this proxy.
    pub(crate) is_own: bool,
    /// Databases that it has, as far as is known.
    pub database_count: u8,
    /// What it has done.
    pub stats: Arc<BackendStats>,
    /// It has refused to tell what servers tell each other.
    pub(crate) is_distrustful: bool,
    /// Its cores, as far as each has a lane of its own.
    lane_count: u16,
    /// By protocol, then by lane.
    links: [Vec<LinkSlot>; 2],
}

impl Backend {
    /// Whether it refuses requests for slots that it does not serve.
    pub fn refuses(&self) -> bool {
        self.kind == ServerKind::Cordis
    }

    /// Cores that have lanes of their own.
    pub fn lane_count(&self) -> u16 {
        self.lane_count
    }

    pub(crate) fn slot_of(&mut self, lane: u16, protocol: Protocol) -> &mut LinkSlot {
        let links = &mut self.links[protocol as usize];
        let lane = usize::from(lane);
        if links.len() <= lane {
            links.resize_with(lane + 1, LinkSlot::default);
        }
        &mut links[lane]
    }

    /// The link of a lane, or [`NO_LINK`].
    #[inline]
    pub(crate) fn link(&self, lane: u16, protocol: Protocol) -> u32 {
        self.links[protocol as usize].get(usize::from(lane)).map_or(NO_LINK, |slot| slot.link)
    }
}

/// The backends that a core knows. None is ever forgotten: there are few, and numbers stay valid.
#[derive(Debug, Default)]
pub struct Backends {
    list: Vec<Backend>,
}

impl Backends {
    /// The backend of an address. One that speaks otherwise than it did is another.
    pub fn find(&self, addr: &str, kind: Option<ServerKind>) -> Option<BackendId> {
        let is_it = |backend: &Backend| {
            backend.addr == addr && kind.is_none_or(|kind| backend.kind == kind)
        };
        let index = self.list.iter().rposition(is_it)?;
        Some(BackendId(index as u32))
    }

    /// Adds a backend. `id` is the number that the routes gave it.
    pub(crate) fn add(&mut self, id: BackendId, addr: &str, kind: ServerKind, databases: u8) {
        invariant!(id.index() == self.list.len(), "backends are numbered alike everywhere");
        self.list.push(Backend {
            addr: addr.to_owned(),
            socket: addr.parse().ok(),
            kind,
            is_own: false,
            database_count: databases,
            stats: Arc::default(),
            is_distrustful: false,
            lane_count: 1,
            links: [Vec::new(), Vec::new()],
        });
    }

    /// One of them.
    #[inline]
    pub fn get(&self, id: BackendId) -> &Backend {
        &self.list[id.index()]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: BackendId) -> &mut Backend {
        &mut self.list[id.index()]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (BackendId, &Backend)> {
        self.list.iter().enumerate().map(|(index, backend)| (BackendId(index as u32), backend))
    }

    /// The link of a lane, or [`NO_LINK`].
    #[inline]
    pub(crate) fn link(&self, lane: Lane, protocol: Protocol) -> u32 {
        self.list[lane.backend.index()].link(lane.index, protocol)
    }

    /// Takes note of which core of a backend owns which slots, with at most `lanes_max` lanes to it.
    /// The lane of each slot; nothing if one lane serves all.
    pub(crate) fn set_cores(
        &mut self,
        id: BackendId,
        cores: u16,
        ranges: &[(u16, u16, u16)],
        lanes_max: u16,
    ) -> Vec<u16> {
        let lane_count = cores.min(lanes_max).max(1);
        self.get_mut(id).lane_count = lane_count;
        if lane_count == 1 {
            return Vec::new();
        }
        let mut lanes = vec![0; SLOT_COUNT];
        for &(from, to, core) in ranges {
            let last = usize::from(to).min(SLOT_COUNT - 1);
            for lane in lanes.iter_mut().take(last + 1).skip(usize::from(from)) {
                *lane = core % lane_count;
            }
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_link_is_dialled_at_once_then_after_pauses_that_double() {
        let mut slot = LinkSlot::default();
        let why = LinkError::new("gone");
        slot.lost(true, &why, Ms(1_000));
        assert_eq!(slot.refusal(Ms(1_000)), None);
        for pause in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            slot.lost(false, &why, Ms(1_000));
            assert_eq!(slot.refusal(Ms(1_000 + pause - 1)), Some(why.clone()), "{pause}");
            assert_eq!(slot.refusal(Ms(1_000 + pause)), None, "{pause}");
        }
        slot.connected();
        assert_eq!(slot.refusal(Ms(1_000)), None);
    }

    #[test]
    fn cores_beyond_the_limit_share_lanes() {
        let mut backends = Backends::default();
        backends.add(BackendId(0), "127.0.0.1:1", ServerKind::Cordis, 16);
        let ranges = [(0, 255, 0), (256, 511, 1), (512, 767, 2), (768, 1023, 3)];
        let lanes = backends.set_cores(BackendId(0), 4, &ranges, 3);
        assert_eq!([lanes[0], lanes[300], lanes[600], lanes[1000]], [0, 1, 2, 0]);
        assert!(backends.set_cores(BackendId(0), 1, &ranges, 3).is_empty());
    }
}
