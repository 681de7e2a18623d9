//! What a server of a cluster is to each slot, and sets of slots as people write them.
//!
//! Pure data: knows no storage and no socket.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{SLOT_COUNT, SlotId};

/// What a server is to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// It serves it.
    #[default]
    Owned,
    /// It serves it, and a move sends it elsewhere.
    Leaving,
    /// Requests wait while it is handed over.
    Frozen,
    /// It has been handed over; its keys are kept until the other side has said that it serves it.
    Handed,
    /// It is served elsewhere, or by nobody.
    Away,
    /// A move brings it.
    Importing,
    /// A move has brought all of it, and its source has yet to let go of it.
    Ready,
    /// This server was restarted while it handed the slot over: the other side is being asked.
    InDoubt,
}

impl SlotState {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::Leaving => "leaving",
            Self::Frozen => "frozen",
            Self::Handed => "handed",
            Self::Away => "away",
            Self::Importing => "importing",
            Self::Ready => "ready",
            Self::InDoubt => "in-doubt",
        }
    }

    /// Whether its keys are those of this server, as far as commands over everything go.
    pub const fn is_visible(self) -> bool {
        matches!(self, Self::Owned | Self::Leaving | Self::Frozen)
    }

    /// Whether a move is behind it.
    pub const fn is_moving(self) -> bool {
        !matches!(self, Self::Owned | Self::Away)
    }
}

/// A set of slots.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotSet([u64; SLOT_COUNT / 64]);

impl SlotSet {
    /// Adds a slot; `false` if it was in before.
    pub fn insert(&mut self, slot: SlotId) -> bool {
        let (word, bit) = (slot.index() / 64, 1 << (slot.index() % 64));
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Takes a slot out; `false` if it was not in.
    pub fn remove(&mut self, slot: SlotId) -> bool {
        let was = self.contains(slot);
        self.0[slot.index() / 64] &= !(1 << (slot.index() % 64));
        was
    }

    /// Whether a slot is in it.
    #[inline]
    pub fn contains(&self, slot: SlotId) -> bool {
        self.0[slot.index() / 64] >> (slot.index() % 64) & 1 == 1
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Its slots in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = SlotId> + '_ {
        SlotId::all().filter(|slot| self.contains(*slot))
    }

    /// Reads `0-511,600`; none if it is not of this form. An empty text is no set.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |word: &str| {
            let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| word.parse().ok()).flatten().and_then(SlotId::new)
        };
        let mut set = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            SlotId::all().filter(|slot| (first..=last).contains(slot)).for_each(|slot| {
                set.insert(slot);
            });
        }
        Some(set)
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut next = 0;
        while let Some(first) = (next..SLOT_COUNT).find(|&i| self.0[i / 64] >> (i % 64) & 1 == 1) {
            let end = (first..SLOT_COUNT).find(|&i| self.0[i / 64] >> (i % 64) & 1 == 0);
            let last = end.unwrap_or(SLOT_COUNT) - 1;
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
            next = last + 1;
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromIterator<SlotId> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotId>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| {
            set.insert(slot);
        });
        set
    }
}

impl Serialize for SlotSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no set of slots"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_of_slots_is_read_as_it_is_written() {
        for text in ["0", "0-1023", "1,3-4,511-512,1023"] {
            let set = SlotSet::parse(text).expect("it is a set");
            assert_eq!(set.to_string(), text);
            assert_eq!(set.len(), set.iter().count());
            assert_eq!(set.iter().collect::<SlotSet>(), set);
        }
        assert_eq!(SlotSet::parse("3,1-2").map(|set| set.to_string()).as_deref(), Some("1-3"));
        for text in ["", "a", "1024", "3-1", "1-", "-1", "1,,2", "+1", " 1"] {
            assert_eq!(SlotSet::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn slot_that_is_taken_out_is_not_in() {
        let mut set = SlotSet::parse("0-63,70").expect("it is a set");
        let slot = |n| SlotId::new(n).expect("there is such a slot");
        assert!(set.remove(slot(63)) && !set.remove(slot(63)) && !set.insert(slot(70)));
        assert_eq!(set.to_string(), "0-62,70");
    }
}
