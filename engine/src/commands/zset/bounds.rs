//! Ranges of members: by rank, by score, by name; and the ranks that they are.

use crate::resp::error::CommandError;
use crate::resp::number::{parse_f64, parse_i64};
use crate::types::zset::ZsetView;

/// What a range is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// Ranks.
    Rank,
    /// Scores.
    Score,
    /// Members' bytes, where all scores are equal.
    Lex,
}

/// A range of members, lowest first.
#[derive(Clone, Debug)]
pub(super) enum Range {
    /// First and last rank; negative ones count from the end.
    Rank(i64, i64),
    /// From one score to another.
    Score(ScoreBound, ScoreBound),
    /// From one name to another.
    Lex(LexBound, LexBound),
}

/// An end of a range of scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoreBound {
    score: f64,
    is_exclusive: bool,
}

/// An end of a range of names.
#[derive(Clone, Debug)]
pub(super) enum LexBound {
    /// Before all names.
    Lowest,
    /// Behind all names.
    Highest,
    /// This name belongs to the range.
    Inclusive(Box<[u8]>),
    /// This one does not.
    Exclusive(Box<[u8]>),
}

/// The part of a word that C's string functions see.
fn c_text(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number as `strtod` reads it and Redis takes it here: space may come before it, too large or too
/// small a number is infinite or 0, and no text at all is 0.
fn parse_bound(text: &[u8]) -> Option<f64> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let digits = &text[text.iter().take_while(|&byte| is_space(byte)).count()..];
    if text.is_empty() {
        return Some(0.0);
    }
    let lenient = || std::str::from_utf8(digits).ok()?.parse::<f64>().ok().filter(|x| !x.is_nan());
    parse_i64(digits).map(|n| n as f64).or_else(|| parse_f64(digits)).or_else(lenient)
}

impl ScoreBound {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        let text = c_text(word);
        let (is_exclusive, number) = match text {
            [b'(', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let score = parse_bound(number).ok_or(CommandError::SCORE_RANGE)?;
        Ok(Self { score, is_exclusive })
    }

    /// Whether a score lies before a range that begins here.
    fn is_behind(self, score: f64) -> bool {
        if self.is_exclusive { score <= self.score } else { score < self.score }
    }

    /// Whether a score is not yet beyond a range that ends here.
    fn reaches(self, score: f64) -> bool {
        if self.is_exclusive { score < self.score } else { score <= self.score }
    }
}

impl LexBound {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word {
            [b'-'] | [b'-', 0, ..] => Ok(Self::Lowest),
            [b'+'] | [b'+', 0, ..] => Ok(Self::Highest),
            [b'[', name @ ..] => Ok(Self::Inclusive(name.into())),
            [b'(', name @ ..] => Ok(Self::Exclusive(name.into())),
            _ => Err(CommandError::LEX_RANGE),
        }
    }

    fn is_behind(&self, member: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Inclusive(name) => *member < **name,
            Self::Exclusive(name) => *member <= **name,
        }
    }

    fn reaches(&self, member: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Inclusive(name) => *member <= **name,
            Self::Exclusive(name) => *member < **name,
        }
    }
}

impl Range {
    /// The range between two words, the lower first.
    ///
    /// # Errors
    /// Redis' for this kind of range.
    pub(super) fn parse(by: By, min: &[u8], max: &[u8]) -> Result<Self, CommandError> {
        let int = |word| parse_i64(word).ok_or(CommandError::NOT_INTEGER);
        Ok(match by {
            By::Rank => Self::Rank(int(min)?, int(max)?),
            By::Score => Self::Score(ScoreBound::parse(min)?, ScoreBound::parse(max)?),
            By::Lex => Self::Lex(LexBound::parse(min)?, LexBound::parse(max)?),
        })
    }

    /// First rank and the rank behind the last, counted upwards. `is_reverse`: ranks of the range
    /// itself are counted from the highest.
    pub(super) fn ranks(&self, zset: ZsetView<'_>, is_reverse: bool) -> (usize, usize) {
        let (from, to) = match self {
            Self::Rank(start, stop) => {
                let len = zset.len();
                let (from, to) = resolve(*start, *stop, len);
                if is_reverse { (len - to, len - from) } else { (from, to) }
            }
            Self::Score(min, max) => (
                zset.partition_point(|score, _| min.is_behind(score)),
                zset.partition_point(|score, _| max.reaches(score)),
            ),
            Self::Lex(min, max) => (
                zset.partition_point(|_, member| min.is_behind(&member.text())),
                zset.partition_point(|_, member| max.reaches(&member.text())),
            ),
        };
        (from, to.max(from))
    }
}

/// The part of `len` elements that two indices name.
fn resolve(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let from = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let last = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
    if from > last || from >= len {
        return (0, 0);
    }
    (from as usize, last as usize + 1)
}

/// What LIMIT leaves of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Members to leave out first; none are left if it is negative.
    pub(super) offset: i64,
    /// Members to take at most; negative for all.
    pub(super) count: i64,
}

impl Window {
    /// All of it.
    pub(super) const ALL: Self = Self { offset: 0, count: -1 };

    /// The part of a range of ranks that it leaves.
    pub(super) fn of(self, from: usize, to: usize, is_reverse: bool) -> (usize, usize) {
        let len = to - from;
        let skip = usize::try_from(self.offset).map_or(len, |offset| offset.min(len));
        let take = usize::try_from(self.count).map_or(len - skip, |count| count.min(len - skip));
        if is_reverse { (to - skip - take, to - skip) } else { (from + skip, from + skip + take) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_of_a_score_range_is_read_as_strtod_reads_it() {
        let cases: [(&[u8], Option<f64>); 12] = [
            (b"", Some(0.0)),
            (b" 5", Some(5.0)),
            (b"\t-1.5e1", Some(-15.0)),
            (b"1e400", Some(f64::INFINITY)),
            (b"-1e400", Some(f64::NEG_INFINITY)),
            (b"1e-400", Some(0.0)),
            (b"0x10", Some(16.0)),
            (b"+inf", Some(f64::INFINITY)),
            (b"nan", None),
            (b" ", None),
            (b"5 ", None),
            (b"x", None),
        ];
        for (text, x) in cases {
            assert_eq!(parse_bound(text), x, "{text:?}");
        }
    }

    #[test]
    fn indices_of_a_range_count_from_either_end() {
        assert_eq!(resolve(0, -1, 5), (0, 5));
        assert_eq!(resolve(-2, -1, 5), (3, 5));
        assert_eq!(resolve(-100, 1, 5), (0, 2));
        assert_eq!(resolve(3, 2, 5), (0, 0));
        assert_eq!(resolve(5, 9, 5), (0, 0));
        assert_eq!(resolve(i64::MIN, i64::MAX, 5), (0, 5));
        assert_eq!(resolve(0, i64::MIN, 5), (0, 0));
    }

    #[test]
    fn window_leaves_out_first_what_comes_first() {
        let window = Window { offset: 1, count: 2 };
        assert_eq!(window.of(10, 20, false), (11, 13));
        assert_eq!(window.of(10, 20, true), (17, 19));
        assert_eq!(Window { offset: -1, count: 5 }.of(0, 9, false).1, 9);
        assert_eq!(Window::ALL.of(3, 9, true), (3, 9));
    }
}
