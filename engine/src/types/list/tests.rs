//! Lists against a model, and what they take.

use std::collections::VecDeque;

use super::*;
use crate::store::entry::size_class;

/// A stream of numbers (xorshift64*), so that a failing seed replays.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// Integers, short texts, and now and then what fills a leaf or more.
    fn element(&mut self) -> Vec<u8> {
        match self.below(40) {
            0..12 => (self.below(1 << 20) as i64 - 5000).to_string().into_bytes(),
            12..38 => vec![b'a' + self.below(26) as u8; self.below(90)],
            38 => vec![b'x'; self.below(5000)],
            _ => vec![b'y'; self.below(20_000)],
        }
    }
}

fn elements(list: &List) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    list.view().for_each(0, usize::MAX, |item| all.push(item.to_vec()));
    all
}

fn check(list: &List, model: &VecDeque<Vec<u8>>) {
    assert_eq!(list.len(), model.len());
    assert!(elements(list).iter().eq(model), "same elements");
    let mut back = Vec::new();
    list.view().for_each_back(0, usize::MAX, |item| back.push(item.to_vec()));
    assert!(back.iter().eq(model.iter().rev()), "same from the back");
}

fn step(dice: &mut Dice, list: &mut List, model: &mut VecDeque<Vec<u8>>) {
    let element = dice.element();
    let at = dice.below(model.len().max(1));
    match dice.below(14) {
        0..4 => {
            list.push(End::Back, &element);
            model.push_back(element);
        }
        4..7 => {
            list.push(End::Front, &element);
            model.push_front(element);
        }
        7 => assert_eq!(list.pop(End::Front, |item| item.to_vec()), model.pop_front()),
        8 => assert_eq!(list.pop(End::Back, |item| item.to_vec()), model.pop_back()),
        9 => {
            list.insert(at, &element);
            model.insert(at, element);
        }
        10 if !model.is_empty() => {
            list.set(at, &element);
            model[at] = element;
        }
        11 => {
            let to = (at + dice.below(8)).min(model.len());
            drop(list.remove_range(at, to));
            model.drain(at.min(to)..to);
        }
        12 => assert_eq!(list.view().get(at).map(Item::to_vec), model.get(at).cloned()),
        _ => {
            let needle = model.get(at).cloned().unwrap_or(element);
            let front = dice.below(2) == 0;
            remove_all(list, &needle, front);
            model.retain(|e| *e != needle);
        }
    }
}

fn remove_all(list: &mut List, needle: &[u8], front: bool) {
    let needle = Needle::new(needle);
    if front {
        let mut position = 0;
        while position < list.len() {
            position += list.remove_equal(&needle, position, usize::MAX).1;
        }
        return;
    }
    let mut end = list.len();
    while end > 0 {
        end = list.remove_equal_back(&needle, end - 1, usize::MAX).1;
    }
}

#[test]
fn list_agrees_with_a_deque_under_random_changes() {
    for seed in 1..40 {
        let mut dice = Dice(seed);
        let (mut list, mut model) = (List::new(), VecDeque::new());
        let target = dice.below(2000);
        for _ in 0..target {
            step(&mut dice, &mut list, &mut model);
        }
        check(&list, &model);
        let (snapshot, then) = (list.clone(), model.clone());
        for _ in 0..300 {
            step(&mut dice, &mut list, &mut model);
        }
        check(&list, &model);
        check(&snapshot, &then);
        if let List::Tree(tree) = &list {
            let exact = Tree::clone(tree).heap_bytes();
            assert_eq!(tree.heap_bytes(), exact);
        }
    }
}

#[test]
fn remove_equal_stops_at_its_limit_on_either_side() {
    let words = [&b"a"[..], b"x", b"b", b"x", b"x", b"c"];
    for filler in [0, 3000] {
        let tail = vec![b'z'; filler];
        let all = words.iter().copied().chain(std::iter::once(&tail[..]));
        let list = List::of_elements(all);
        let (mut front, mut back) = (list.clone(), list);
        let needle = Needle::new(b"x");
        assert_eq!(front.remove_equal(&needle, 0, 2).0, 2);
        assert_eq!(elements(&front)[..4], [&b"a"[..], b"b", b"x", b"c"].map(<[u8]>::to_vec));
        let mut end = back.len();
        let mut removed = 0;
        while end > 0 && removed < 2 {
            let (more, first) = back.remove_equal_back(&needle, end - 1, 2 - removed);
            removed += more;
            end = first;
        }
        assert_eq!(elements(&back)[..4], [&b"a"[..], b"x", b"b", b"c"].map(<[u8]>::to_vec));
    }
}

#[test]
fn list_grown_at_either_end_leaves_full_leaves() {
    for end in [End::Front, End::Back] {
        for len in [3, 10, 64, 500] {
            let element = vec![b'e'; len];
            let framed = leaf::framed_len(Item::new(&element));
            let mut list = List::new();
            for count in 1..=40_000_000 / (len + 400) {
                list.push(end, &element);
                let own = count * framed;
                if own > LEAF_BYTES_TESTED_MIN && count % 1000 == 0 {
                    let over = list.heap_bytes() as f64 / own as f64;
                    assert!(over < 1.0 + 0.02 + framed as f64 / 8192.0, "{len} {count} {over}");
                }
            }
        }
    }
}

/// Above this the last, half-filled leaf does not count.
const LEAF_BYTES_TESTED_MIN: usize = 2 << 20;

#[test]
fn queue_stays_as_small_as_what_it_holds() {
    for (into, out) in [(End::Back, End::Front), (End::Front, End::Back)] {
        for depth in [1, 50, 400, 3000] {
            let mut list = List::new();
            let word = |i: usize| format!("job number {i}").into_bytes();
            (0..depth).for_each(|i| list.push(into, &word(i)));
            for i in 0..20_000 {
                list.push(into, &word(i + depth));
                assert_eq!(list.pop(out, |item| item.to_vec()), Some(word(i)));
            }
            assert_eq!(list.len(), depth);
            assert!(list.heap_bytes() < depth * 40 + 20_000, "{depth} {}", list.heap_bytes());
        }
    }
}

#[test]
fn packed_list_becomes_a_tree_above_its_limit_and_not_before() {
    let mut list = List::new();
    for _ in 0..((PACKED_BYTES_MAX) / 5) {
        list.push(End::Back, b"abc");
        assert!(list.packed().is_some());
    }
    list.push(End::Back, b"abc");
    assert!(list.packed().is_none());
    assert_eq!(list.len(), PACKED_BYTES_MAX / 5 + 1);
}

#[test]
fn list_of_any_size_takes_hardly_more_than_its_elements() {
    // What a list of the same elements takes in Redis, which keeps runs of 8 KiB as well: each with a
    // header of 7 bytes and a node of 32, and 64 for the list.
    let peer_bytes = |count: usize, framed: usize| {
        let full = (leaf::LEAF_BYTES - 7) / framed;
        let run = |count: usize| 32 + size_class(7 + count * framed);
        let last = if count.is_multiple_of(full) { 0 } else { run(count % full) };
        64 + count / full * run(full) + last
    };
    for len in [1, 12, 30, 64, 100, 200] {
        let element = vec![b'e'; len];
        let framed = leaf::framed_len(Item::new(&element));
        let mut list = List::new();
        for count in 1..100_000 {
            list.push(End::Back, &element);
            if list.packed().is_none() && (count < 3_000 || count % 1_000 == 0) {
                let (own, peer) = (32 + list.heap_bytes(), peer_bytes(count, framed));
                assert!(own <= peer + peer / 50, "{count} of {len} bytes: {own}, not {peer}");
            }
        }
    }
}
