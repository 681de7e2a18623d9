//! How SORT orders: what it compares, and the ways to sort.

use std::cmp::Ordering;

use crate::resp::number::parse_f64;

/// Bytes in the text that all rows of a sort share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    piece: u32,
    at: u32,
    len: usize,
}

/// What an element is compared by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Weight {
    /// The element itself, as text.
    Own,
    /// A number.
    Score(f64),
    /// Another text.
    Text(Span),
    /// There is none: before all texts.
    Missing,
}

/// An element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) element: Span,
    pub(super) weight: Weight,
}

/// Bytes of a piece of [`Text`], unless one text is longer.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes of the first piece.
const PIECE_BYTES_MIN: usize = 1024;

/// The bytes of elements, weights and results, one after the other; in pieces, so that growing never
/// copies what is there.
#[derive(Debug, Default)]
pub(super) struct Text(Vec<Vec<u8>>);

impl Text {
    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Span {
        let len = bytes.len();
        if self.0.last().is_none_or(|last| last.capacity() - last.len() < len) {
            let usual = self.0.last().map_or(0, Vec::capacity) * 2;
            self.0.push(Vec::with_capacity(len.max(usual.clamp(PIECE_BYTES_MIN, PIECE_BYTES))));
        }
        let piece = self.0.len() - 1;
        let at = self.0[piece].len();
        self.0[piece].extend_from_slice(bytes);
        Span { piece: piece as u32, at: at as u32, len }
    }

    /// Bytes that were added.
    pub(super) fn get(&self, span: Span) -> &[u8] {
        let at = span.at as usize;
        &self.0[span.piece as usize][at..at + span.len]
    }
}

/// The number that C's `strtod` reads, if it reads all of a text up to its end or a zero byte.
pub(super) fn score_of(text: &[u8]) -> Option<f64> {
    let text = until_zero(text);
    if text.is_empty() {
        // Redis: nothing at all is a zero.
        return Some(0.0);
    }
    let is_space = |&byte: &u8| byte == b' ' || (b'\t'..=b'\r').contains(&byte);
    let begin = text.iter().position(|byte| !is_space(byte))?;
    parse_f64(&text[begin..])
}

/// Text as C sees it.
pub(super) fn until_zero(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == 0);
    &text[..end.unwrap_or(text.len())]
}

/// How rows are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) descending: bool,
    /// Compare all bytes: what is stored must not depend on a locale. Else as C's `strcoll` does in
    /// the C locale, up to a zero byte.
    pub(super) exact: bool,
}

impl Order {
    pub(super) fn compare(self, text: &Text, one: &Row, two: &Row) -> Ordering {
        let order = match (one.weight, two.weight) {
            (Weight::Score(a), Weight::Score(b)) => {
                let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
                order.then_with(|| text.get(one.element).cmp(text.get(two.element)))
            }
            (Weight::Text(a), Weight::Text(b)) => self.compare_texts(text.get(a), text.get(b)),
            (Weight::Missing, Weight::Missing) => Ordering::Equal,
            (Weight::Missing, _) => Ordering::Less,
            (_, Weight::Missing) => Ordering::Greater,
            _ => self.compare_texts(text.get(one.element), text.get(two.element)),
        };
        if self.descending { order.reverse() } else { order }
    }

    fn compare_texts(self, one: &[u8], two: &[u8]) -> Ordering {
        if self.exact { one.cmp(two) } else { until_zero(one).cmp(until_zero(two)) }
    }
}

/// Rows sorted at once before runs of them are merged.
const RUN_ROWS: usize = 512;
/// Rows merged in a step.
const STEP_ROWS: usize = 1024;

/// A stable sort in steps: runs first, then each pass merges pairs of runs.
#[derive(Debug, Default)]
pub(super) struct MergeSort {
    /// Length of the runs that are sorted; 0 while they are being made.
    run: usize,
    /// Where the pass has come to: in the left run, in the right run.
    left: usize,
    right: usize,
    /// What the pass has written.
    merged: Vec<Row>,
}

impl MergeSort {
    /// Does some work; `true` when all rows are in order.
    pub(super) fn step(&mut self, rows: &mut Vec<Row>, text: &Text, order: Order) -> bool {
        if self.run == 0 {
            let end = (self.left + RUN_ROWS).min(rows.len());
            rows[self.left..end].sort_by(|a, b| order.compare(text, a, b));
            self.left = end;
            if end == rows.len() {
                self.begin_pass(RUN_ROWS);
            }
            return rows.len() <= RUN_ROWS;
        }
        for _ in 0..STEP_ROWS {
            if self.merged.len() == rows.len() {
                std::mem::swap(rows, &mut self.merged);
                self.begin_pass(self.run * 2);
                return self.run >= rows.len();
            }
            self.merge_one(rows, text, order);
        }
        false
    }

    fn begin_pass(&mut self, run: usize) {
        self.merged.clear();
        (self.run, self.left, self.right) = (run, 0, run);
    }

    fn merge_one(&mut self, rows: &[Row], text: &Text, order: Order) {
        let pair = self.merged.len() / (2 * self.run) * (2 * self.run);
        let middle = (pair + self.run).min(rows.len());
        let end = (pair + 2 * self.run).min(rows.len());
        if self.merged.len() == pair {
            (self.left, self.right) = (pair, middle);
        }
        let take_left = self.right >= end
            || (self.left < middle
                && order.compare(text, &rows[self.left], &rows[self.right]).is_le());
        let from = if take_left { &mut self.left } else { &mut self.right };
        self.merged.push(rows[*from]);
        *from += 1;
    }
}

/// Sorts so much of `rows` that those from `first` to `last` are right: in the order in which Redis
/// leaves rows that compare as equal.
///
/// # Source
/// Bentley and McIlroy, Engineering a sort function, 1993, with parts outside of the range left as
/// they are.
pub(super) fn sort_part(
    rows: &mut [Row],
    first: usize,
    last: usize,
    compare: &impl Fn(&Row, &Row) -> Ordering,
) {
    let count = rows.len();
    if count < 7 {
        for i in 1..count {
            let mut j = i;
            while j > 0 && compare(&rows[j - 1], &rows[j]).is_gt() {
                rows.swap(j - 1, j);
                j -= 1;
            }
        }
        return;
    }
    rows.swap(0, pivot(rows, compare));
    let (less, greater) = partition(rows, compare);
    let (below, rest) = rows.split_at_mut(less);
    let above_at = count - greater;
    if less > 1 && first < less {
        sort_part(below, first, last.min(less - 1), compare);
    }
    if greater > 1 && last >= above_at {
        let first = first.max(above_at) - above_at;
        sort_part(&mut rest[above_at - less..], first, last - above_at, compare);
    }
}

fn pivot(rows: &[Row], compare: &impl Fn(&Row, &Row) -> Ordering) -> usize {
    let count = rows.len();
    let (mut low, mut middle, mut high) = (0, count / 2, count - 1);
    if count > 7 {
        if count > 40 {
            let d = count / 8;
            low = median(rows, low, low + d, low + 2 * d, compare);
            middle = median(rows, middle - d, middle, middle + d, compare);
            high = median(rows, high - 2 * d, high - d, high, compare);
        }
        middle = median(rows, low, middle, high, compare);
    }
    middle
}

fn median(
    rows: &[Row],
    a: usize,
    b: usize,
    c: usize,
    compare: &impl Fn(&Row, &Row) -> Ordering,
) -> usize {
    let less = |i: usize, j: usize| compare(&rows[i], &rows[j]).is_lt();
    if less(a, b) {
        if less(b, c) {
            b
        } else if less(a, c) {
            c
        } else {
            a
        }
    } else if less(c, b) {
        b
    } else if less(a, c) {
        a
    } else {
        c
    }
}

/// Moves what is less than the first row to the front and what is greater to the end. Returns how
/// many are less, and how many are greater.
fn partition(rows: &mut [Row], compare: &impl Fn(&Row, &Row) -> Ordering) -> (usize, usize) {
    let count = rows.len();
    // Equal ones are gathered at both ends first: before `a`, and behind `d`.
    let (mut a, mut b) = (1, 1);
    let (mut c, mut d) = (count, count);
    loop {
        while b < c {
            let order = compare(&rows[b], &rows[0]);
            if order.is_gt() {
                break;
            }
            if order.is_eq() {
                rows.swap(a, b);
                a += 1;
            }
            b += 1;
        }
        while b < c {
            let order = compare(&rows[c - 1], &rows[0]);
            if order.is_lt() {
                break;
            }
            if order.is_eq() {
                rows.swap(c - 1, d - 1);
                d -= 1;
            }
            c -= 1;
        }
        if b >= c {
            break;
        }
        rows.swap(b, c - 1);
        b += 1;
        c -= 1;
    }
    let (less, greater) = (b - a, d - c);
    let moved = a.min(less);
    (0..moved).for_each(|i| rows.swap(i, b - moved + i));
    let moved = greater.min(count - d);
    (0..moved).for_each(|i| rows.swap(b + i, count - moved + i));
    (less, greater)
}
