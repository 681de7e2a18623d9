//! Words of the call that a session is receiving that do not stay with the rest of its input. A long
//! word has memory of its own: whoever keeps it takes it over and copies nothing. Those of a very long
//! call go into pieces, so that its input never grows as a whole. Knows no socket and no command.

use std::sync::Arc;

use crate::commands::args::Aside;

/// Words of this length and more are received apart.
pub const APART_BYTES_MIN: usize = 64 * 1024;
/// Once so much of a call is there, its words go into pieces.
pub const MOVE_BYTES_MIN: usize = 64 * 1024;
/// Memory for the whole of a word is reserved once this much of it has come: a client that only
/// promises takes nothing.
const RESERVE_FROM_BYTES: usize = 256 * 1024;

/// Words of one call, in order.
#[derive(Debug, Default)]
pub struct Apart {
    aside: Aside,
    /// The long one under way, and its length when it is whole.
    filling: Option<(Vec<u8>, usize)>,
}

impl Apart {
    /// Words that are whole.
    pub fn of_words(aside: Aside) -> Self {
        Self { aside, filling: None }
    }

    /// Where words go that are whole. Only while no long one is under way: it has its number already.
    pub fn aside_mut(&mut self) -> &mut Aside {
        invariant!(self.filling.is_none(), "a word under way is overtaken");
        &mut self.aside
    }

    /// Begins a word of `len` bytes.
    pub fn begin(&mut self, len: usize) {
        invariant!(self.filling.is_none(), "two words are received at once");
        self.filling = Some((Vec::with_capacity(len.min(RESERVE_FROM_BYTES)), len));
    }

    /// Takes from `bytes` what belongs to the word under way, if one is; returns the rest.
    pub fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some((word, len)) = &mut self.filling else {
            return bytes;
        };
        let (mine, rest) = bytes.split_at(bytes.len().min(*len - word.len()));
        if word.len() + mine.len() > word.capacity() {
            word.reserve_exact(*len - word.len());
        }
        word.extend_from_slice(mine);
        if word.len() == *len {
            self.aside.words.push(Arc::new(std::mem::take(word)));
            self.filling = None;
        }
        rest
    }

    /// Bytes received.
    pub fn bytes(&self) -> usize {
        let filling = self.filling.as_ref().map_or(0, |(word, _)| word.len());
        filling + self.aside.bytes()
    }

    /// The words of a call that is complete.
    pub fn into_words(self) -> Aside {
        invariant!(self.filling.is_none(), "a call is parsed before its last word is there");
        self.aside
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::Args;
    use crate::resp::parse::{Limits, Parsed, Parser};

    #[test]
    fn call_with_words_apart_is_the_same_wherever_its_input_is_cut() {
        const LIMITS: Limits = Limits { word_bytes_max: 100, authenticated: true };
        let input = b"*4\r\n$3\r\nSET\r\n$9\r\nlong word\r\n$1\r\nv\r\n$8\r\nlong too\r\n+";
        for cut in 0..input.len() {
            let mut parser = Parser::default();
            let (mut tail, mut apart, mut ranges) = (Vec::new(), Apart::default(), Vec::new());
            let (first, rest) = input.split_at(cut);
            let mut end = None;
            for piece in std::iter::once(first).chain(rest.chunks(1)) {
                tail.extend_from_slice(apart.fill(piece));
                if end.is_some() || tail.is_empty() || tail.len() < parser.needed_bytes() {
                    continue;
                }
                match parser.next(&tail, 0, LIMITS, &mut ranges) {
                    Parsed::Call(next) => end = Some(next),
                    Parsed::Incomplete => {
                        if let Some((at, len)) = parser.set_apart(8) {
                            let begun = tail.split_off(at);
                            apart.begin(len);
                            tail.extend_from_slice(apart.fill(&begun));
                        }
                    }
                    other => panic!("cut {cut}: {other:?}"),
                }
            }
            let end = end.expect("the call is complete");
            assert_eq!(&tail[end..], b"+", "cut at {cut}");
            let apart = apart.into_words();
            let args = Args::new(&tail, &ranges).with_aside(&apart);
            let words: Vec<&[u8]> = args.iter_from(0).collect();
            assert_eq!(words, [&b"SET"[..], b"long word", b"v", b"long too"], "cut at {cut}");
            assert_eq!(args.to_owned().args().iter_from(0).collect::<Vec<_>>(), words);
        }
    }

    #[test]
    fn word_takes_its_bytes_and_leaves_the_rest() {
        let mut apart = Apart::default();
        assert_eq!(apart.fill(b"head"), b"head");
        apart.begin(3 * RESERVE_FROM_BYTES);
        let piece = vec![7; RESERVE_FROM_BYTES / 2 + 1];
        for _ in 0..5 {
            assert_eq!(apart.fill(&piece), b"");
        }
        assert_eq!(apart.bytes(), 5 * piece.len());
        assert_eq!(apart.fill(&piece), vec![7; 6]);
        assert_eq!(apart.fill(b"\r\n"), b"\r\n");
        let words = apart.into_words().words;
        assert_eq!(words.len(), 1);
        let word = &words[0];
        assert_eq!((word.len(), word.capacity()), (3 * RESERVE_FROM_BYTES, 3 * RESERVE_FROM_BYTES));
    }
}
