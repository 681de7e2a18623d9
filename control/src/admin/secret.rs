//! Comparing secrets.

/// Compares in a time that depends on the length of `given` alone, so that answers do not tell how
/// much of a guess was right.
pub(super) fn is_same(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = secret.len() ^ given.len();
    for (at, byte) in given.iter().enumerate() {
        let expected = secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ expected));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn secret_is_the_same_only_as_itself() {
        assert!(is_same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcabc", b"", b"xbc"] {
            assert!(!is_same(b"abc", other) && !is_same(other, b"abc"));
        }
    }
}
