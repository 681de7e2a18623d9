//! The small form of a sorted set: members and scores in turn, in order, in one run of bytes.
//!
//! A score that is an integer a double holds exactly is an integer element; any other is the eight
//! bytes of the double as a text element. Every search walks: sets are short while they are packed.

use crate::types::pack::{self, Item};

/// Integers below this size are the same as doubles.
const EXACT_MAX: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;

/// Calls `with` with a score's element.
#[inline]
fn with_score<R>(score: f64, with: impl FnOnce(Item<'_>) -> R) -> R {
    // Redis: so -0 becomes 0.
    if score.abs() < EXACT_MAX && score.trunc() == score {
        return with(Item::Int(score as i64));
    }
    with(Item::Str(&score.to_le_bytes()))
}

#[inline]
fn score_of(item: Item<'_>) -> f64 {
    match item {
        Item::Int(n) => n as f64,
        Item::Str(bytes) => f64::from_le_bytes(bytes.try_into().unwrap_or_default()),
    }
}

/// Member and score that begin at `at`, and where the next begin.
#[inline]
pub(super) fn entry(data: &[u8], at: usize) -> (Item<'_>, f64, usize) {
    let (member, next) = pack::decode(data, at);
    let (score, next) = pack::decode(data, next);
    (member, score_of(score), next)
}

/// Number of members.
pub(super) fn len(data: &[u8]) -> usize {
    pack::count(data) / 2
}

/// Where the member of a rank begins.
pub(super) fn offset_of(data: &[u8], rank: usize) -> usize {
    pack::offset_of(data, rank * 2)
}

/// Rank, offset and score of a member.
#[inline]
pub(super) fn find(data: &[u8], member: &[u8]) -> Option<(usize, usize, f64)> {
    let (index, at) = pack::find(data, Item::new(member), 2)?;
    Some((index / 2, at, entry(data, at).1))
}

/// Number of members in front for which `is_before` holds, and where the next begins.
#[inline]
pub(super) fn partition_point(
    data: &[u8],
    mut is_before: impl FnMut(f64, Item<'_>) -> bool,
) -> (usize, usize) {
    let (mut at, mut rank) = (0, 0);
    while at < data.len() {
        let (member, score, next) = entry(data, at);
        if !is_before(score, member) {
            break;
        }
        at = next;
        rank += 1;
    }
    (rank, at)
}

/// Adds a member that is not there.
pub(super) fn insert(data: &mut Vec<u8>, member: &[u8], score: f64) {
    // The text of a member that is an integer has to be made: only where scores are equal.
    let is_before = |s: f64, m: Item<'_>| s < score || (s == score && *m.text() < *member);
    let (_, at) = partition_point(data, is_before);
    with_score(score, |score| pack::splice(data, at, at, &[Item::new(member), score]));
}

/// Adds a member behind all others.
pub(super) fn append(data: &mut Vec<u8>, member: &[u8], score: f64) {
    Item::new(member).encode(data);
    with_score(score, |score| score.encode(data));
}

/// Removes the member that begins at `at`.
pub(super) fn remove(data: &mut Vec<u8>, at: usize) {
    let next = entry(data, at).2;
    data.drain(at..next);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_of_every_kind_comes_back_to_the_bit() {
        let edges = [0.0, 1.0, -1.0, 0.1, EXACT_MAX, EXACT_MAX - 1.0, -EXACT_MAX, 1e300];
        let more = [f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::from_bits(1), 127.5];
        for score in edges.into_iter().chain(more) {
            let mut data = Vec::new();
            insert(&mut data, b"m", score);
            assert_eq!(entry(&data, 0).1.to_bits(), score.to_bits(), "{score}");
        }
        let mut data = Vec::new();
        insert(&mut data, b"m", -0.0);
        assert!(entry(&data, 0).1.is_sign_positive());
    }
}
