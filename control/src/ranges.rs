//! A set of slots, written `0-511,600` wherever people or peers see it. Knows nothing else.

use std::fmt;

use cordis_engine::units::SLOT_COUNT;
use serde::{Deserialize, Serialize};

const WORDS: usize = SLOT_COUNT / 64;

/// A set of slots.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotSet([u64; WORDS]);

/// Why a text is no set of slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangesError(String);

impl fmt::Display for RangesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid slots '{}': ranges like 0-511,600 of 0 to {}", self.0, SLOT_COUNT - 1)
    }
}

impl std::error::Error for RangesError {}

impl SlotSet {
    /// No slot.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set that a text names; `all` names every slot.
    ///
    /// # Errors
    /// If a part is no slot and no ascending range of slots.
    pub fn parse(text: &str) -> Result<Self, RangesError> {
        let wrong = || RangesError(text.chars().take(80).collect());
        let mut set = Self::new();
        if text.eq_ignore_ascii_case("all") {
            return Ok((0..SLOT_COUNT as u16).collect());
        }
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().ok().filter(|n: &u16| is_plain && usize::from(*n) < SLOT_COUNT)
            };
            let (Some(from), Some(to)) = (number(from.trim()), number(to.trim())) else {
                return Err(wrong());
            };
            if from > to {
                return Err(wrong());
            }
            (from..=to).for_each(|slot| set.insert(slot));
        }
        Ok(set)
    }

    /// Adds a slot. Numbers beyond the last slot are nobody's.
    pub fn insert(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Takes a slot out; whether it was there.
    pub fn remove(&mut self, slot: u16) -> bool {
        let was = self.contains(slot);
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word &= !(1 << (slot % 64));
        }
        was
    }

    /// Whether a slot is in it.
    pub fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot) / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// How many slots are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..).zip(self.0).flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as u16)?;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// The slots as ranges, ascending.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some(last) if last.1 + 1 == slot => last.1 = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::new();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (from, to)) in self.ranges().into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if from == to {
                write!(f, "{comma}{from}")?;
            } else {
                write!(f, "{comma}{from}-{to}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl From<SlotSet> for String {
    fn from(set: SlotSet) -> Self {
        set.to_string()
    }
}

impl TryFrom<String> for SlotSet {
    type Error = RangesError;

    fn try_from(text: String) -> Result<Self, RangesError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_survives_its_text() {
        for text in ["", "0", "0-1023", "0-511,600", "1,3,5-7,1023"] {
            assert_eq!(SlotSet::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(SlotSet::parse("5,4,6").unwrap().to_string(), "4-6");
        assert_eq!(SlotSet::parse("all").unwrap().len(), 1024);
        let mut set = SlotSet::parse("0-2").unwrap();
        assert!(set.remove(1) && !set.remove(1));
        assert_eq!(set.to_string(), "0,2");
    }

    #[test]
    fn set_of_a_wrong_text_is_refused() {
        for text in ["-", "1024", "5-3", "a", "1,,2", "0-", "+1", "-1", "1 2", "99999999999"] {
            assert!(SlotSet::parse(text).is_err(), "{text}");
        }
    }
}
