//! LCS: the longest common subsequence of two strings.
//!
//! # Method
//!
//! Redis fills a table of 32-bit lengths, one cell per pair of bytes. Here a row is one bit per
//! byte of the second string: whether the length grows at that byte. A row follows from the one
//! above by an addition over 64 bytes at a time, and the way back through the table needs no more
//! than these bits. So it takes 1/32 of the memory, and about as much less time. What is refused
//! for its size is what Redis refuses.
//!
//! # Source
//! H. Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.

use std::sync::Arc;

use crate::commands::args::{ArgCursor, Args};
use crate::commands::ctx::Ctx;
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::reply::Reply;
use crate::store::entry::Value;

/// What the reply shows.
#[derive(Clone, Copy, Default, Debug)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    match_len_min: i64,
}

impl Options {
    fn parse(mut words: ArgCursor<'_>) -> Result<Self, CommandError> {
        let mut options = Self::default();
        while words.left() > 0 {
            if words.take("IDX") {
                options.idx = true;
            } else if words.take("LEN") {
                options.len = true;
            } else if words.take("WITHMATCHLEN") {
                options.with_match_len = true;
            } else if words.left() > 1 && words.take("MINMATCHLEN") {
                options.match_len_min = words.int()?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        if options.idx && options.len {
            return Err(CommandError::LCS_LEN_AND_IDX);
        }
        Ok(options)
    }
}

pub(super) fn lcs(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let a = string(ctx, args.at(1));
    let b = string(ctx, args.at(2));
    let (Ok(a), Ok(b)) = (a, b) else {
        return Err(CommandError::LCS_WRONG_TYPE);
    };
    let options = Options::parse(args.cursor(3))?;
    check_size(ctx, a.len(), b.len())?;
    if options.len {
        reply.count(Grid::new(&a, &b, false).len());
        return Ok(());
    }
    let grid = Grid::new(&a, &b, true);
    let len = grid.len();
    let (common, runs) = grid.walk(len);
    if options.idx {
        reply_runs(reply, &runs, len, options);
    } else {
        reply.bulk(&common);
    }
    Ok(())
}

/// The string under a key, empty if there is none: held apart from the data, because another key is
/// read as well.
fn string(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<Arc<Vec<u8>>, CommandError> {
    let key = ctx.key(key);
    Ok(match ctx.read_string(key)? {
        Some(Value::Big(data)) => Arc::clone(data),
        Some(value) => Arc::new(value.bytes().to_vec()),
        None => Arc::default(),
    })
}

/// Refuses what would need more memory in Redis than a string may take.
fn check_size(ctx: &Ctx<'_>, a_len: usize, b_len: usize) -> CommandResult {
    const STRING_BYTES_MAX: usize = u32::MAX as usize - 2;
    if a_len > STRING_BYTES_MAX || b_len > STRING_BYTES_MAX {
        return Err(CommandError::LCS_STRING_TOO_LONG);
    }
    let table_bytes = (a_len as u128 + 1) * (b_len as u128 + 1) * size_of::<u32>() as u128;
    if table_bytes > ctx.node.config.proto_max_bulk_bytes() as u128 {
        return Err(CommandError::LCS_TABLE_TOO_LARGE);
    }
    Ok(())
}

/// The table of growth bits of two strings.
struct Grid<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Words of a row.
    width: usize,
    /// Rows for the beginnings of `a`, all of them or only the last. A bit that is *not* set says
    /// that the length grows at this byte of `b`.
    rows: Vec<u64>,
}

impl<'a> Grid<'a> {
    /// # Complexity
    /// O(N * M / 64) with the lengths N and M.
    fn new(a: &'a [u8], b: &'a [u8], keep_rows: bool) -> Self {
        let width = b.len().div_ceil(64);
        let matches = Matches::new(a, b, width);
        let mut row = vec![u64::MAX; width];
        let mut rows = Vec::with_capacity(if keep_rows { width * a.len() } else { 0 });
        for &byte in a {
            next_row(&mut row, matches.of(byte));
            if keep_rows {
                rows.extend_from_slice(&row);
            }
        }
        Self { a, b, width, rows: if keep_rows { rows } else { row } }
    }

    /// Length of the longest common subsequence.
    fn len(&self) -> usize {
        let last = self.rows.len().saturating_sub(self.width);
        // Bits past the end of `b` match nothing and stay set.
        self.rows[last..].iter().map(|word| word.count_zeros() as usize).sum()
    }

    /// Whether the length grows from the first `j` bytes of `b` to one more, seen from the first
    /// `i + 1` bytes of `a`.
    fn grows(&self, i: usize, j: usize) -> bool {
        self.rows[i * self.width + j / 64] >> (j % 64) & 1 == 0
    }

    /// Goes back from both ends: the subsequence, and its runs from the last to the first.
    fn walk(&self, len: usize) -> (Vec<u8>, Vec<Run>) {
        let mut common = vec![0; len];
        let mut runs: Vec<Run> = Vec::new();
        let (mut i, mut j, mut left) = (self.a.len(), self.b.len(), len);
        while i > 0 && j > 0 && left > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                (i, j, left) = (i - 1, j - 1, left - 1);
                common[left] = self.a[i];
                match runs.last_mut() {
                    Some(run) if run.a == i + 1 && run.b == j + 1 => {
                        *run = Run { a: i, b: j, len: run.len + 1 };
                    }
                    _ => runs.push(Run { a: i, b: j, len: 1 }),
                }
            } else if self.grows(i - 1, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        (common, runs)
    }
}

/// The row below `row`, for a byte that `b` has at `matches`.
fn next_row(row: &mut [u64], matches: Option<&[u64]>) {
    let Some(matches) = matches else { return };
    let mut carry = false;
    for (word, &hits) in row.iter_mut().zip(matches) {
        let (sum, over) = word.overflowing_add(*word & hits);
        let (sum, over_again) = sum.overflowing_add(u64::from(carry));
        carry = over || over_again;
        *word = sum | (*word & !hits);
    }
}

/// Where the bytes of `a` are in `b`: a row of bits for each that is there.
struct Matches {
    /// Row of a byte plus one; 0 if it has none.
    row_of: [u16; 256],
    rows: Vec<u64>,
    width: usize,
}

impl Matches {
    fn new(a: &[u8], b: &[u8], width: usize) -> Self {
        let mut row_of = [0; 256];
        let mut count = 0;
        for &byte in a {
            if row_of[usize::from(byte)] == 0 {
                count += 1;
                row_of[usize::from(byte)] = count;
            }
        }
        let mut rows = vec![0; usize::from(count) * width];
        for (j, &byte) in b.iter().enumerate() {
            if let Some(row) = usize::from(row_of[usize::from(byte)]).checked_sub(1) {
                rows[row * width + j / 64] |= 1 << (j % 64);
            }
        }
        Self { row_of, rows, width }
    }

    fn of(&self, byte: u8) -> Option<&[u64]> {
        let row = usize::from(self.row_of[usize::from(byte)]).checked_sub(1)?;
        Some(&self.rows[row * self.width..][..self.width])
    }
}

/// A part that both strings have in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    /// Where it begins in the first string.
    a: usize,
    /// Where it begins in the second.
    b: usize,
    len: usize,
}

fn reply_runs(reply: &mut Reply<'_>, runs: &[Run], len: usize, options: Options) {
    let is_shown = |run: &&Run| run.len as i64 >= options.match_len_min;
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(runs.iter().filter(is_shown).count());
    for run in runs.iter().filter(is_shown) {
        reply.array(2 + usize::from(options.with_match_len));
        for start in [run.a, run.b] {
            reply.array(2);
            reply.count(start);
            reply.count(start + run.len - 1);
        }
        if options.with_match_len {
            reply.count(run.len);
        }
    }
    reply.bulk(b"len");
    reply.count(len);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Redis' choice by the textbook: a full table, and on a tie a step back in `b`.
    fn textbook(a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Run>) {
        let width = b.len() + 1;
        let mut table = vec![0; width * (a.len() + 1)];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                table[i * width + j] = if a[i - 1] == b[j - 1] {
                    table[(i - 1) * width + j - 1] + 1
                } else {
                    table[(i - 1) * width + j].max(table[i * width + j - 1])
                };
            }
        }
        let (mut common, mut runs): (Vec<u8>, Vec<Run>) = (Vec::new(), Vec::new());
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                common.push(a[i]);
                match runs.last_mut() {
                    Some(run) if (run.a, run.b) == (i + 1, j + 1) => {
                        *run = Run { a: i, b: j, len: run.len + 1 };
                    }
                    _ => runs.push(Run { a: i, b: j, len: 1 }),
                }
            } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        common.reverse();
        (common, runs)
    }

    proptest::proptest! {
        #[test]
        fn bit_rows_choose_what_the_table_chooses(
            a in proptest::collection::vec(0u8..4, 0..200),
            b in proptest::collection::vec(0u8..4, 0..200),
        ) {
            let grid = Grid::new(&a, &b, true);
            let len = grid.len();
            assert_eq!(grid.walk(len), textbook(&a, &b));
            assert_eq!(Grid::new(&a, &b, false).len(), len);
        }
    }

    #[test]
    fn lcs_of_nothing_is_empty() {
        for (a, b) in [(&b""[..], &b""[..]), (b"", b"x"), (b"x", b""), (b"x", b"y")] {
            let grid = Grid::new(a, b, true);
            assert_eq!((grid.len(), grid.walk(0)), (0, (vec![], vec![])));
        }
    }
}
