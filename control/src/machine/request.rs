//! What control asks of servers and proxies, and what they answer, without any bytes: the machine
//! and the simulator speak this, `peers/wire.rs` turns it into calls and replies.

use std::sync::Arc;

use cordis_engine::slots::map::{ClusterMap, GroupId};

use crate::model::MoveId;
use crate::ranges::SlotSet;

/// A question to one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// To anything: what are you? (CORDIS HELLO, else SLOTSINFO, else INFO.)
    Probe,
    /// To a Cordis server: identity and product.
    Hello,
    /// To a Cordis server: be a member.
    Join {
        /// Of this product.
        product: String,
        /// Of this group.
        group: GroupId,
        /// Under this address.
        addr: String,
    },
    /// To a Cordis server: be a server alone again.
    Leave {
        /// The product that it is a member of.
        product: String,
    },
    /// To a Cordis server or a proxy: the map.
    MapSet(Arc<ClusterMap>),
    /// To a Cordis server: the state of its slots.
    Slots,
    /// To the target of a native move: let it come.
    Expect {
        /// The move.
        id: MoveId,
        /// Under this epoch.
        epoch: u64,
        /// From here.
        source: String,
        /// These slots.
        slots: SlotSet,
    },
    /// To the source of a native move: do it; or, if it is under way, at this pace.
    Move {
        /// The move.
        id: MoveId,
        /// Under this epoch.
        epoch: u64,
        /// To there.
        target: String,
        /// These slots.
        slots: SlotSet,
        /// Bytes per second; 0: no limit.
        rate: u64,
        /// Slots at once.
        parallel: u64,
    },
    /// To a Cordis server: how are the moves?
    Moves,
    /// To an end of a native move: what is not handed over stays.
    Cancel {
        /// The move.
        id: MoveId,
    },
    /// To anything that speaks RESP: are you there?
    Ping,
    /// To a server: one look at everything that it measures.
    Sample,
    /// To the source of a dialect move: one call of the original's.
    Carry {
        /// The database.
        db: u8,
        /// The slot.
        slot: u16,
        /// To there.
        target: String,
        /// By SLOTSMGRTTAGSLOT instead of SLOTSMGRTTAGSLOT-ASYNC.
        is_sync: bool,
        /// Silence after which it fails.
        timeout_ms: u64,
        /// Words in a message.
        maxbulks: u64,
        /// Bytes in a message.
        maxbytes: u64,
        /// Keys in a call.
        numkeys: u64,
    },
    /// To the source of a dialect move: the next database with keys.
    NextDb {
        /// The database before it.
        after: u8,
    },
    /// To a proxy: identity and product.
    ProxyModel,
    /// To a proxy: the lease runs until `since + ms` by the proxy's clock. Without: just its clock.
    Lease(Option<Lease>),
    /// To a proxy: one look at everything that it measures.
    ProxyStats,
}

/// A lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// How long it runs.
    pub ms: u64,
    /// From when, by the clock of the proxy: a reading that it has answered before.
    pub since: u64,
}

/// Who a Cordis server is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Its version.
    pub version: String,
    /// Its identity, new with each start.
    pub run_id: String,
    /// Its cores.
    pub cores: u64,
    /// The product that it is a member of; empty: none.
    pub product: String,
    /// Its group; 0: none.
    pub group: GroupId,
    /// The epoch of its map.
    pub epoch: u64,
}

/// What a server turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probed {
    /// A Cordis server, with the slots in which it has keys.
    Cordis(Hello, SlotSet),
    /// A codis-server: its identity, and the slots in which it has keys.
    Codis(String, SlotSet),
    /// Another server that speaks RESP: its identity, and how many keys it has.
    Redis(String, u64),
}

/// The state of consecutive slots, as their server sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotReport {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
    /// Their state.
    pub state: SlotState,
    /// The epoch of that state.
    pub epoch: u64,
    /// The core that they lie on.
    pub core: u64,
    /// The other end, if there is one.
    pub peer: String,
}

/// The state of a slot, as its server sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotState {
    /// Served.
    Owned,
    /// Served, and streamed elsewhere.
    Leaving,
    /// Requests wait for the hand-over.
    Frozen,
    /// Handed over; the target has not confirmed yet.
    Handed,
    /// Somebody else's.
    Away,
    /// It comes in.
    Importing,
    /// It is all there; the source decides.
    Ready,
    /// After a restart in the middle of a hand-over.
    InDoubt,
}

impl SlotState {
    /// All states with their names on the wire.
    pub const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Owned, "owned"),
        (Self::Leaving, "leaving"),
        (Self::Frozen, "frozen"),
        (Self::Handed, "handed"),
        (Self::Away, "away"),
        (Self::Importing, "importing"),
        (Self::Ready, "ready"),
        (Self::InDoubt, "in-doubt"),
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// The state with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    /// Whether the server that says so is the one that serves the slot.
    pub fn is_claim(self) -> bool {
        matches!(self, Self::Owned | Self::Leaving | Self::Frozen)
    }

    /// Whether a hand-over is at a point where only the two servers know how it ends.
    pub fn is_deciding(self) -> bool {
        matches!(self, Self::Frozen | Self::Handed | Self::InDoubt)
    }
}

/// How a move stands, as one of its ends sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MoveReport {
    /// The move.
    pub id: MoveId,
    /// Whether the server that says so is the source.
    pub is_source: bool,
    /// The other end.
    pub peer: String,
    /// All its slots.
    pub slots: u64,
    /// Handed over.
    pub done: u64,
    /// Given up.
    pub failed: u64,
    /// Keys sent.
    pub keys: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Those that are handed over.
    pub done_slots: SlotSet,
    /// The last error.
    pub error: String,
    /// The longest pause of a slot.
    pub pause_max_us: u64,
}

/// One look at a server or a proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// The numbers and texts that it answers, by name.
    pub fields: Vec<(String, String)>,
    /// Keys of each slot that has some.
    pub keys: Vec<(u16, u64)>,
}

impl Sample {
    /// A field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A field as a number; its whole part.
    pub fn number(&self, name: &str) -> u64 {
        let text = self.field(name).unwrap_or("0");
        text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
    }
}

/// Who a proxy is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProxyModel {
    /// Its identity.
    pub token: String,
    /// Where it takes clients.
    pub proxy_addr: String,
    /// The product that it serves; empty: any.
    pub product: String,
    /// Its version.
    pub version: String,
}

/// What a peer answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done.
    Ok,
    /// To [`Request::Probe`].
    Probed(Box<Probed>),
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::MapSet`]: the epoch that holds there now.
    Epoch(u64),
    /// To [`Request::MapSet`]: refused, because that epoch holds.
    Stale(u64),
    /// To [`Request::Slots`].
    Slots(Vec<SlotReport>),
    /// To [`Request::Moves`].
    Moves(Vec<MoveReport>),
    /// To [`Request::Sample`] and [`Request::ProxyStats`].
    Sample(Box<Sample>),
    /// To [`Request::Carry`]: keys that went, and how many there were.
    Carried {
        /// Keys that went.
        moved: u64,
        /// Keys that were there before they went; 0: the database's part of the slot is empty.
        left: u64,
    },
    /// To [`Request::NextDb`].
    Db(Option<u8>),
    /// To [`Request::ProxyModel`].
    ProxyModel(ProxyModel),
    /// To [`Request::Lease`]: the proxy's clock.
    Clock(u64),
    /// An error reply.
    Refused(String),
    /// No reply, or one that makes no sense: whether the peer has done it is not known.
    Lost(String),
}
