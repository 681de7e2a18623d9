//! Glob patterns, as KEYS, SCAN and the configuration match them: `*`, `?`, `[a-z^]`, `\`.
//!
//! Every part of a pattern but `*` takes exactly one byte, so the leftmost match of what stands
//! between two stars is as good as any other, and only the last star seen is ever tried again: no
//! recursion, no exponential pattern, O(pattern * text) at worst. Knows no command.

/// Whether upper and lower case differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// They differ.
    Sensitive,
    /// They do not, for ASCII letters.
    Ignore,
}

/// Whether all of `text` matches `pattern`.
///
/// # Complexity
/// O(pattern * text) bytes; O(pattern + text) for patterns with one star or none.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and the text that it leaves to the rest.
    let mut retry: Option<(usize, usize)> = None;
    // Redis: an empty text matches the empty pattern only, not even a star.
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p = skip_stars(pattern, p);
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        if p < pattern.len() {
            let (fits, next) = part(pattern, p, text[t], case);
            if fits {
                (p, t) = (next, t + 1);
                continue;
            }
        }
        let Some((star, from)) = retry else {
            return false;
        };
        (p, t) = (star, from + 1);
        retry = Some((p, t));
    }
    // Stars that are left take nothing. What stands behind a star that has eaten all of the text is
    // neither empty nor a star, so that case ends here as well.
    let p = if text.is_empty() { p } else { skip_stars(pattern, p) };
    p == pattern.len()
}

fn skip_stars(pattern: &[u8], from: usize) -> usize {
    from + pattern[from..].iter().take_while(|&&byte| byte == b'*').count()
}

/// Whether the part of the pattern at `p` takes `byte`, and where the next part begins.
fn part(pattern: &[u8], p: usize, byte: u8, case: Case) -> (bool, usize) {
    match pattern[p] {
        b'?' => (true, p + 1),
        b'[' => class(pattern, p + 1, byte, case),
        // A backslash at the very end stands for itself.
        b'\\' if p + 1 < pattern.len() => (same(pattern[p + 1], byte, case), p + 2),
        literal => (same(literal, byte, case), p + 1),
    }
}

/// A class from behind its bracket on. One that is not closed ends with the pattern.
///
/// Redis: a range takes whatever follows the `-`, even `]`; its ends may be swapped; they compare as
/// signed bytes; and an escaped byte within a class keeps its case.
fn class(pattern: &[u8], mut p: usize, byte: u8, case: Case) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut hit = false;
    loop {
        match pattern[p..] {
            [] => return (hit != negated, p),
            [b'\\', escaped, ..] => {
                hit |= escaped == byte;
                p += 2;
            }
            [b']', ..] => return (hit != negated, p + 1),
            [from, b'-', to, ..] => {
                hit |= in_range(from, to, byte, case);
                p += 3;
            }
            [literal, ..] => {
                hit |= same(literal, byte, case);
                p += 1;
            }
        }
    }
}

fn in_range(from: u8, to: u8, byte: u8, case: Case) -> bool {
    // Ends are put in order before their case is folded, as Redis does.
    let (low, high) = if from as i8 > to as i8 { (to, from) } else { (from, to) };
    let [low, high, byte] = [low, high, byte].map(|b| folded(b, case) as i8);
    low <= byte && byte <= high
}

fn same(a: u8, b: u8, case: Case) -> bool {
    folded(a, case) == folded(b, case)
}

fn folded(byte: u8, case: Case) -> u8 {
    if case == Case::Ignore { byte.to_ascii_lowercase() } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain definition: a star takes every length in turn.
    fn model(pattern: &[u8], text: &[u8], case: Case) -> bool {
        if text.is_empty() {
            return pattern.is_empty();
        }
        let [first, ..] = pattern else { return false };
        if *first == b'*' {
            let rest = &pattern[skip_stars(pattern, 0)..];
            return rest.is_empty() || (0..text.len()).any(|n| model(rest, &text[n..], case));
        }
        let (fits, next) = part(pattern, 0, text[0], case);
        if !fits {
            return false;
        }
        if text.len() == 1 {
            return skip_stars(pattern, next) == pattern.len();
        }
        model(&pattern[next..], &text[1..], case)
    }

    fn is_match(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive)
    }

    #[test]
    fn matches_known_pairs_gives_what_redis_gives() {
        let yes = [
            ("*", "a"),
            ("a*", "a"),
            ("a**", "a"),
            ("*a*b*", "xaybz"),
            ("h?llo", "hallo"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            (r"a\*b", "a*b"),
            (r"[\]]", "]"),
            (r"[a\-z]", "-"),
            ("[abc", "b"),
            ("[^", "x"),
            (r"\", r"\"),
            ("[a-]", "]"),
            ("[a-]", "`"),
            ("", ""),
            ("a*b*c", "abbcbc"),
            ("*.txt", "a.txt.txt"),
            ("[*]", "*"),
            ("**b", "ab"),
        ];
        for (pattern, text) in yes {
            assert!(is_match(pattern, text), "{pattern} should match {text}");
        }
        let no = [
            ("*", ""),
            ("**", ""),
            ("?", ""),
            ("a", ""),
            ("", "a"),
            ("[]", "a"),
            ("[", "["),
            ("h[^e]llo", "hello"),
            ("a?", "a"),
            ("*?b", "b"),
            (r"a\*b", "axb"),
            ("[a-]", "-"),
            ("*a", "ab"),
            ("A", "a"),
            ("a*c*b", "abc"),
            (r"[\]", "a"),
            ("*[", "a["),
        ];
        for (pattern, text) in no {
            assert!(!is_match(pattern, text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn matches_ignoring_case_folds_literals_and_ranges_but_not_escapes_in_classes() {
        let fold = |p: &str, t: &str| matches(p.as_bytes(), t.as_bytes(), Case::Ignore);
        assert!(fold("MaxMem*", "maxmemory") && fold("[A-C]x", "bX") && fold(r"\A", "a"));
        assert!(!fold(r"[\A]", "a") && fold(r"[\a]", "a"));
    }

    #[test]
    fn range_over_bytes_above_ascii_compares_signed() {
        let hit = |p: &[u8], t: &[u8]| matches(p, t, Case::Sensitive);
        assert!(hit(b"[\x80-\xff]", b"\x90"));
        // From -1 to 'a', so everything up to 'a' and nothing that is negative besides -1.
        assert!(hit(b"[a-\xff]", b"\x00") && hit(b"[a-\xff]", b"\xff"));
        assert!(!hit(b"[a-\xff]", b"b") && !hit(b"[a-\xff]", b"\xfe"));
    }

    #[test]
    fn matches_any_pattern_agrees_with_the_plain_definition() {
        let alphabet = b"ab*?[]^-\\A";
        let mut seed = 7u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for _ in 0..60_000 {
            let (p, t) = (next(9), next(7));
            let pattern: Vec<u8> = (0..p).map(|_| alphabet[next(alphabet.len())]).collect();
            let text: Vec<u8> = (0..t).map(|_| b"abA-]*\\"[next(7)]).collect();
            for case in [Case::Sensitive, Case::Ignore] {
                assert_eq!(
                    matches(&pattern, &text, case),
                    model(&pattern, &text, case),
                    "pattern {:?}, text {:?}",
                    String::from_utf8_lossy(&pattern),
                    String::from_utf8_lossy(&text)
                );
            }
        }
    }

    #[test]
    fn matches_many_stars_stays_polynomial() {
        let pattern = [b"*a".repeat(2_000), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &b"a".repeat(4_000), Case::Sensitive));
    }
}
