//! The cluster as everybody in it knows it: groups of servers, and the group that serves each slot.
//!
//! Control makes maps, each under a higher epoch than the one before; proxies and servers take them
//! over the admin protocol, keep the last one on disk, and refuse an older one. Pure data: knows no
//! socket and no file. Its form on the wire and on disk is JSON.

use serde::{Deserialize, Serialize};

use crate::units::{SLOT_COUNT, SlotId};

/// The number of a group: 1 to 9999, as in Codis. 0 stands for none.
pub type GroupId = u16;

/// The highest group number.
pub const GROUP_MAX: GroupId = 9999;

/// What a server speaks besides plain Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// A Cordis server: it knows which slots it serves, and refuses all others.
    #[default]
    Cordis,
    /// A codis-server: plain RESP, and the original's migration commands.
    Codis,
    /// Anything else that speaks RESP: its slots cannot be moved.
    Redis,
}

/// What a server is to its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// It takes the writes.
    #[default]
    Primary,
    /// It follows the primary.
    Replica,
}

/// A server of a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapServer {
    /// Where it listens: `ip:port`.
    pub addr: String,
    /// What it speaks.
    #[serde(default)]
    pub kind: ServerKind,
    /// What it is to its group.
    #[serde(default)]
    pub role: ServerRole,
    /// Where it stands, for reads from a near replica.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub datacenter: String,
    /// Whether replica reads may use it.
    #[serde(default)]
    pub replica_group: bool,
}

/// A group of servers that hold the same slots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapGroup {
    /// Its number.
    pub id: GroupId,
    /// Its servers.
    pub servers: Vec<MapServer>,
}

impl MapGroup {
    /// The server that takes the writes.
    pub fn primary(&self) -> Option<&MapServer> {
        self.servers.iter().find(|server| server.role == ServerRole::Primary)
    }
}

/// Consecutive slots that are served alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
    /// The group that serves them; 0: offline.
    pub group: GroupId,
    /// Under which epoch that group got them. Of two claims to a slot the higher one holds.
    pub epoch: u64,
    /// A move by the original's commands that is under way: keys may still be with this group, and
    /// are asked for there before each request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub migrate_from: GroupId,
    /// How keys are asked for there: 0 by SLOTSMGRTTAGONE, 1 by SLOTSMGRT-EXEC-WRAPPER.
    #[serde(default, skip_serializing_if = "is_zero_method")]
    pub forward_method: u8,
    /// Requests wait: all proxies let go of the old route before any uses the new one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &GroupId) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_method(n: &u8) -> bool {
    *n == 0
}

/// The cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterMap {
    /// The product's name.
    pub product: String,
    /// Of two maps the one with the higher epoch holds.
    pub epoch: u64,
    /// The groups, by ascending number.
    pub groups: Vec<MapGroup>,
    /// Every slot exactly once, ascending.
    pub slots: Vec<MapRange>,
    /// A proxy that has not heard from control for so long stops serving slots whose servers cannot
    /// refuse a request themselves; 0: no lease is needed.
    #[serde(default)]
    pub lease_ms: u32,
}

/// Why a map is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MapError {
    /// It is no JSON of this form.
    Form(String),
    /// A slot is named twice, or not at all.
    Slots(u16),
    /// A group number is out of range, named twice, or not in order.
    Group(GroupId),
    /// A slot's group does not exist.
    NoGroup(u16, GroupId),
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(why) => write!(f, "not a cluster map: {why}"),
            Self::Slots(slot) => write!(f, "slot {slot} is missing or named twice"),
            Self::Group(group) => write!(f, "group {group} is out of range or out of order"),
            Self::NoGroup(slot, group) => {
                write!(f, "slot {slot} belongs to group {group}, which does not exist")
            }
        }
    }
}

impl std::error::Error for MapError {}

impl ClusterMap {
    /// A map in which no slot is served.
    pub fn offline(product: &str) -> Self {
        Self {
            product: product.to_owned(),
            slots: ranges_of(|_| MapRange::offline()),
            ..Self::default()
        }
    }

    /// Reads a map and checks that it is whole.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn from_json(text: &[u8]) -> Result<Self, MapError> {
        let map: Self =
            serde_json::from_slice(text).map_err(|error| MapError::Form(error.to_string()))?;
        map.check()?;
        Ok(map)
    }

    /// The map as JSON, one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a map is plain data with string keys")
    }

    /// Whether every slot is there once and every group exists.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), MapError> {
        let mut last = 0;
        for group in &self.groups {
            if group.id <= last || group.id > GROUP_MAX {
                return Err(MapError::Group(group.id));
            }
            last = group.id;
        }
        let mut next = 0;
        for range in &self.slots {
            if range.from != next || range.to < range.from || usize::from(range.to) >= SLOT_COUNT {
                return Err(MapError::Slots(next));
            }
            for group in [range.group, range.migrate_from] {
                if group != 0 && self.group(group).is_none() {
                    return Err(MapError::NoGroup(range.from, group));
                }
            }
            next = range.to + 1;
        }
        if usize::from(next) != SLOT_COUNT {
            return Err(MapError::Slots(next));
        }
        Ok(())
    }

    /// A group by its number.
    pub fn group(&self, id: GroupId) -> Option<&MapGroup> {
        let at = self.groups.binary_search_by_key(&id, |group| group.id).ok()?;
        Some(&self.groups[at])
    }

    /// The entry of a slot. The map must be whole.
    pub fn slot(&self, slot: SlotId) -> &MapRange {
        let at = self.slots.partition_point(|range| usize::from(range.to) < slot.index());
        &self.slots[at]
    }

    /// The address of the server that takes the writes of a slot.
    pub fn primary_of(&self, slot: SlotId) -> Option<&str> {
        let group = self.group(self.slot(slot).group)?;
        group.primary().map(|server| server.addr.as_str())
    }
}

impl MapRange {
    /// A slot that nobody serves. Its bounds are filled in by [`ranges_of`].
    pub fn offline() -> Self {
        Self {
            from: 0,
            to: 0,
            group: 0,
            epoch: 0,
            migrate_from: 0,
            forward_method: 0,
            locked: false,
        }
    }

    /// Whether another slot is served alike, wherever both lie.
    fn is_alike(&self, other: &Self) -> bool {
        let other = Self { from: self.from, to: self.to, ..*other };
        *self == other
    }
}

/// All slots as the fewest ranges, from the entry of each.
pub fn ranges_of(mut entry: impl FnMut(SlotId) -> MapRange) -> Vec<MapRange> {
    let mut ranges: Vec<MapRange> = Vec::new();
    for slot in SlotId::all() {
        let at = slot.index() as u16;
        let one = MapRange { from: at, to: at, ..entry(slot) };
        match ranges.last_mut() {
            Some(last) if last.is_alike(&one) => last.to = at,
            _ => ranges.push(one),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u64) -> SlotId {
        SlotId::new(n).expect("there is such a slot")
    }

    fn map() -> ClusterMap {
        let server = |addr: &str| MapServer {
            addr: addr.to_owned(),
            kind: ServerKind::Cordis,
            role: ServerRole::Primary,
            datacenter: String::new(),
            replica_group: false,
        };
        let group = |id, addr| MapGroup { id, servers: vec![server(addr)] };
        ClusterMap {
            product: "demo".to_owned(),
            epoch: 7,
            groups: vec![group(1, "127.0.0.1:6380"), group(2, "127.0.0.1:6381")],
            slots: ranges_of(|slot| MapRange {
                group: if slot.index() < 512 { 1 } else { 2 },
                epoch: 3,
                ..MapRange::offline()
            }),
            lease_ms: 0,
        }
    }

    #[test]
    fn map_survives_json_and_finds_primaries() {
        let map = map();
        assert_eq!(map.slots.len(), 2);
        assert_eq!(ClusterMap::from_json(map.to_json().as_bytes()), Ok(map.clone()));
        assert_eq!(map.primary_of(slot(511)), Some("127.0.0.1:6380"));
        assert_eq!(map.primary_of(slot(512)), Some("127.0.0.1:6381"));
        assert_eq!(ClusterMap::offline("x").primary_of(slot(0)), None);
    }

    #[test]
    fn map_that_is_not_whole_is_refused() {
        let mut wrong = map();
        wrong.slots[1].to = 1000;
        assert_eq!(wrong.check(), Err(MapError::Slots(1001)));
        let mut wrong = map();
        wrong.slots[1].from = 600;
        assert_eq!(wrong.check(), Err(MapError::Slots(512)));
        let mut wrong = map();
        wrong.slots[0].group = 9;
        assert_eq!(wrong.check(), Err(MapError::NoGroup(0, 9)));
        let mut wrong = map();
        wrong.groups.swap(0, 1);
        assert_eq!(wrong.check(), Err(MapError::Group(1)));
        assert!(matches!(ClusterMap::from_json(b"{"), Err(MapError::Form(_))));
    }
}
