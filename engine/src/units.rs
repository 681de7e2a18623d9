//! Ids and units: leaf types that every module may use. Knows nothing.

use std::fmt;

/// Number of hash slots. Codis' constant; masks rely on it being a power of two.
pub const SLOT_COUNT: usize = 1024;

/// A hash slot, `0..SLOT_COUNT`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(u16);

impl SlotId {
    /// The slot with this number, or `None` if there is no such slot.
    pub const fn new(n: u64) -> Option<Self> {
        if n < SLOT_COUNT as u64 { Some(Self(n as u16)) } else { None }
    }

    /// The slot that the low bits of a checksum select.
    pub const fn from_crc(crc: u32) -> Self {
        Self((crc & (SLOT_COUNT as u32 - 1)) as u16)
    }

    /// Index into a table of `SLOT_COUNT` elements.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every slot in ascending order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOT_COUNT as u16).map(Self)
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pinned core: a thread with its turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CoreId(pub u16);

impl CoreId {
    /// Index into a table of cores.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The state of all slots that one core owns. Shard `n` belongs to core `n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Index into a table of shards.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The core that owns this shard.
    pub const fn core(self) -> CoreId {
        CoreId(self.0)
    }
}

/// Milliseconds since the Unix epoch, or a span of them where the name says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ms(pub i64);

/// Number of logical databases that a server may have at most.
pub const DATABASES_MAX: usize = 16;

/// Index of a logical database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DbIndex(pub u8);

impl DbIndex {
    /// Index into a table of databases.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Stops the process if `cond` is false: a broken promise between our own parts, never bad input.
#[macro_export]
macro_rules! invariant {
    ($cond:expr, $($why:tt)+) => {
        if !$cond {
            panic!("invariant: {}", format_args!($($why)+));
        }
    };
}

/// Like `invariant!`, for conditions that cost more than a few instructions.
#[macro_export]
macro_rules! debug_invariant {
    ($cond:expr, $($why:tt)+) => {
        if cfg!(debug_assertions) && !$cond {
            panic!("invariant: {}", format_args!($($why)+));
        }
    };
}
