//! Keyspace events: what happened to a key, its class in `notify-keyspace-events`, and the channels
//! that hear of it.

use crate::config::value::EVENT_LETTERS;
use crate::units::DbIndex;

/// What happened to a key, by the class of `notify-keyspace-events` that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// `$`
    String(&'static str),
    /// `g`
    Generic(&'static str),
    /// `l`
    List(&'static str),
    /// `h`
    Hash(&'static str),
    /// `s`
    Set(&'static str),
    /// `z`
    SortedSet(&'static str),
    /// `t`
    Stream(&'static str),
    /// `x`: its time had come.
    Expired,
    /// `e`: memory was short.
    Evicted,
    /// `n`: it was made.
    New,
    /// `m`: it was read and is not there.
    Miss,
}

/// The bit of a letter.
const fn bit(letter: char) -> u32 {
    let mut i = 0;
    while i < EVENT_LETTERS.len() {
        if EVENT_LETTERS[i].0 == letter {
            return EVENT_LETTERS[i].1;
        }
        i += 1;
    }
    panic!("no such class of events")
}

/// `K`: channels named after keys hear of events.
pub const BY_KEY: u32 = bit('K');
/// `E`: channels named after events hear of keys.
pub const BY_EVENT: u32 = bit('E');

impl Event {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String(name)
            | Self::Generic(name)
            | Self::List(name)
            | Self::Hash(name)
            | Self::Set(name)
            | Self::SortedSet(name)
            | Self::Stream(name) => name,
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::New => "new",
            Self::Miss => "keymiss",
        }
    }

    /// The bit of its class.
    pub const fn class(self) -> u32 {
        match self {
            Self::String(_) => bit('$'),
            Self::Generic(_) => bit('g'),
            Self::List(_) => bit('l'),
            Self::Hash(_) => bit('h'),
            Self::Set(_) => bit('s'),
            Self::SortedSet(_) => bit('z'),
            Self::Stream(_) => bit('t'),
            Self::Expired => bit('x'),
            Self::Evicted => bit('e'),
            Self::New => bit('n'),
            Self::Miss => bit('m'),
        }
    }

    /// Whether a setting of `notify-keyspace-events` asks for it.
    #[inline]
    pub const fn is_wanted(self, flags: u32) -> bool {
        flags & self.class() != 0
    }
}

/// `__keyspace@<db>__:<name>` or `__keyevent@<db>__:<name>`.
pub fn channel(by: u32, db: DbIndex, name: &[u8]) -> Vec<u8> {
    let kind = if by == BY_KEY { "space" } else { "event" };
    let mut channel = format!("__key{kind}@{}__:", db.0).into_bytes();
    channel.extend_from_slice(name);
    channel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_is_named_after_key_or_event() {
        assert_eq!(channel(BY_KEY, DbIndex(0), b"k"), b"__keyspace@0__:k");
        assert_eq!(channel(BY_EVENT, DbIndex(15), b"del"), b"__keyevent@15__:del");
    }

    #[test]
    fn class_of_each_event_is_a_bit_of_its_own() {
        let all = [
            Event::String(""),
            Event::Generic(""),
            Event::List(""),
            Event::Hash(""),
            Event::Set(""),
            Event::SortedSet(""),
            Event::Stream(""),
            Event::Expired,
            Event::Evicted,
            Event::New,
            Event::Miss,
        ];
        let bits = all.iter().fold(BY_KEY | BY_EVENT, |bits, event| bits | event.class());
        assert_eq!(bits.count_ones() as usize, all.len() + 2);
    }
}
