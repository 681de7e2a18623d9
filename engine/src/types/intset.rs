//! Sorted integers side by side: what a small set of integers is made of.
//!
//! | byte | |
//! |---|---|
//! | 0 | width of an integer: 2, 4 or 8 |
//! | 1 .. | the integers in ascending order, little-endian, each of that width |
//!
//! No bytes at all are an empty set. The width grows with the first integer that needs it and never
//! shrinks, as in Redis. Bytes come from this module only: reading trusts them. Knows nothing of
//! members that are no integers, nor when a set stops being one of integers.

/// Bytes in front of the integers.
const HEAD_BYTES: usize = 1;

/// The least width that holds `n`.
#[inline]
fn width_for(n: i64) -> usize {
    if i16::try_from(n).is_ok() {
        2
    } else if i32::try_from(n).is_ok() {
        4
    } else {
        8
    }
}

#[inline]
fn width_of(bytes: &[u8]) -> usize {
    bytes.first().map_or(2, |&width| usize::from(width))
}

/// Number of integers.
#[inline]
pub fn len(bytes: &[u8]) -> usize {
    // A width of 2, 4 or 8 is a shift; a division would cost more than the rest of a lookup.
    bytes.len().saturating_sub(HEAD_BYTES) >> width_of(bytes).trailing_zeros()
}

/// The integer at a position, in ascending order.
///
/// # Panics
/// If there is none.
#[inline]
pub fn get(bytes: &[u8], position: usize) -> i64 {
    let at = |width: usize| HEAD_BYTES + position * width;
    match width_of(bytes) {
        2 => i64::from(i16::from_le_bytes(fixed(bytes, at(2)))),
        4 => i64::from(i32::from_le_bytes(fixed(bytes, at(4)))),
        _ => i64::from_le_bytes(fixed(bytes, at(8))),
    }
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut wide = [0; N];
    wide.copy_from_slice(&bytes[at..at + N]);
    wide
}

/// Where an integer is; otherwise where it would be.
///
/// # Complexity
/// O(log n)
#[inline]
pub fn search(bytes: &[u8], n: i64) -> Result<usize, usize> {
    let (mut low, mut high) = (0, len(bytes));
    // Integers mostly come in ascending order: the end is looked at first.
    if high > 0 && get(bytes, high - 1) < n {
        return Err(high);
    }
    while low < high {
        let middle = usize::midpoint(low, high);
        match get(bytes, middle).cmp(&n) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// Whether an integer is there.
#[inline]
pub fn contains(bytes: &[u8], n: i64) -> bool {
    width_for(n) <= width_of(bytes) && search(bytes, n).is_ok()
}

/// The integers from a position on, ascending.
pub fn iter_from(bytes: &[u8], position: usize) -> impl Iterator<Item = i64> {
    (position..len(bytes)).map(move |position| get(bytes, position))
}

/// Adds an integer. Whether it is new.
///
/// # Complexity
/// O(n), a move of what lies behind; a rewrite of all when the width grows.
pub fn insert(bytes: &mut Vec<u8>, n: i64) -> bool {
    if bytes.is_empty() {
        bytes.reserve_exact(HEAD_BYTES + width_for(n));
        bytes.push(width_for(n) as u8);
    }
    if width_for(n) > width_of(bytes) {
        widen(bytes, width_for(n));
    }
    let Err(position) = search(bytes, n) else {
        return false;
    };
    let width = width_of(bytes);
    if bytes.capacity() - bytes.len() < width {
        // In steps of an eighth: the run grows often and is kept long.
        bytes.reserve_exact(width.max(bytes.len() / 8));
    }
    let at = HEAD_BYTES + position * width;
    let end = bytes.len();
    bytes.extend_from_slice(&n.to_le_bytes()[..width]);
    if at < end {
        bytes.copy_within(at..end, at + width);
        bytes[at..at + width].copy_from_slice(&n.to_le_bytes()[..width]);
    }
    true
}

/// Rewrites all with a larger width.
fn widen(bytes: &mut Vec<u8>, width: usize) {
    let mut wide = Vec::with_capacity(HEAD_BYTES + (len(bytes) + 1) * width);
    wide.push(width as u8);
    for n in iter_from(bytes, 0) {
        wide.extend_from_slice(&n.to_le_bytes()[..width]);
    }
    *bytes = wide;
}

/// Removes an integer. Whether it was there.
///
/// # Complexity
/// O(n), a move of what lies behind.
pub fn remove(bytes: &mut Vec<u8>, n: i64) -> bool {
    if width_for(n) > width_of(bytes) {
        return false;
    }
    let Ok(position) = search(bytes, n) else {
        return false;
    };
    let width = width_of(bytes);
    let at = HEAD_BYTES + position * width;
    bytes.drain(at..at + width);
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EDGES: [i64; 13] = [
        0,
        -1,
        7,
        i16::MAX as i64,
        i16::MIN as i64,
        i16::MAX as i64 + 1,
        i16::MIN as i64 - 1,
        i32::MAX as i64,
        i32::MIN as i64,
        i32::MAX as i64 + 1,
        i32::MIN as i64 - 1,
        i64::MAX,
        i64::MIN,
    ];

    fn check(bytes: &[u8], model: &BTreeSet<i64>) {
        assert_eq!(len(bytes), model.len());
        assert!(iter_from(bytes, 0).eq(model.iter().copied()));
        for n in EDGES {
            assert_eq!(contains(bytes, n), model.contains(&n), "{n}");
        }
    }

    #[test]
    fn insert_and_remove_in_any_order_agree_with_a_model() {
        for start in 0..EDGES.len() {
            for step in [1, 2, 3, 5, 7] {
                let (mut bytes, mut model) = (Vec::new(), BTreeSet::new());
                let order = || (0..EDGES.len()).map(|i| EDGES[(start + i * step) % EDGES.len()]);
                for n in order() {
                    assert_eq!(insert(&mut bytes, n), model.insert(n));
                    assert!(!insert(&mut bytes, n));
                    check(&bytes, &model);
                }
                for n in order().rev() {
                    assert_eq!(remove(&mut bytes, n), model.remove(&n));
                    assert!(!remove(&mut bytes, n));
                    check(&bytes, &model);
                }
            }
        }
    }

    #[test]
    fn width_grows_with_the_first_that_needs_it_and_stays() {
        let mut bytes = Vec::new();
        for (n, width) in [(5, 2), (-32_768, 2), (32_768, 4), (1, 4), (1 << 31, 8)] {
            insert(&mut bytes, n);
            assert_eq!(bytes[0], width);
        }
        assert_eq!(bytes.len(), 1 + 5 * 8);
        remove(&mut bytes, 1 << 31);
        assert_eq!(bytes[0], 8);
    }

    #[test]
    fn bytes_of_none_are_an_empty_set() {
        assert_eq!(len(b""), 0);
        assert!(!contains(b"", 0));
        assert!(!remove(&mut Vec::new(), 0));
        assert_eq!(iter_from(b"", 0).count(), 0);
    }
}
