//! Sorted sets against a sorted vector, over every conversion.

use super::*;
use crate::types::Collection;

const LIMITS: Limits = Limits {
    hash_entries_max: 128,
    hash_value_bytes_max: 64,
    set_ints_max: 512,
    zset_entries_max: 128,
    zset_value_bytes_max: 64,
};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn sorted(model: &[(Vec<u8>, f64)]) -> Vec<(Vec<u8>, f64)> {
    let mut all = model.to_vec();
    all.sort_by(|a, b| order::compare((a.1, &a.0), (b.1, &b.0)));
    all
}

fn check(zset: &Zset, model: &[(Vec<u8>, f64)]) {
    let all = sorted(model);
    let view = zset.view();
    assert_eq!(view.len(), all.len());
    let list = |walk: Walk<'_>| walk.map(|(m, s)| (m.to_vec(), s)).collect::<Vec<_>>();
    assert_eq!(list(view.range(0, usize::MAX)), all);
    let (from, to) = (all.len() / 3, all.len() * 2 / 3);
    assert_eq!(list(view.range(from, to)), all[from..to]);
    let mut reverse = all[from..to].to_vec();
    reverse.reverse();
    assert_eq!(list(view.range_rev(from, to)), reverse);
    for (rank, (member, score)) in all.iter().enumerate() {
        assert_eq!(view.find(member), Some((rank, *score)));
    }
    assert_eq!(view.find(b"absent"), None);
    if let Some((_, score)) = all.get(from) {
        let below = all.iter().filter(|(_, s)| s < score).count();
        assert_eq!(view.partition_point(|s, _| s < *score), below);
    }
}

fn member(random: &mut Random, variety: u64) -> Vec<u8> {
    let n = random.below(variety);
    match n % 50 {
        0 => format!("{n:0>200}").into_bytes(),
        1 => n.to_string().into_bytes(),
        _ => format!("member:{n}").into_bytes(),
    }
}

fn run(seed: u64, variety: u64, scores: u64, steps: usize) {
    let mut random = Random(seed);
    let mut zset = Zset::new();
    let mut model: Vec<(Vec<u8>, f64)> = Vec::new();
    for step in 0..steps {
        let member = member(&mut random, variety);
        let at = model.iter().position(|(m, _)| *m == member);
        if random.below(4) == 0 {
            assert_eq!(zset.remove(&member), at.is_some());
            at.map(|at| model.swap_remove(at));
        } else {
            let score = random.below(scores) as f64 / 2.0 - 3.0;
            zset.insert(&member, score, &LIMITS);
            match at {
                Some(at) => model[at].1 = score,
                None => model.push((member, score)),
            }
        }
        if step % 997 == 0 {
            let before = zset.clone();
            let (from, to) = (zset.len() / 4, zset.len() / 3);
            check(&zset, &model);
            zset.remove_range(from, to);
            let gone = sorted(&model)[from..to].to_vec();
            check(&before, &model);
            model.retain(|pair| !gone.contains(pair));
        }
    }
    check(&zset, &model);
    let len = zset.len();
    zset.remove_range(0, len);
    assert!(zset.is_empty());
}

#[test]
fn zset_under_random_changes_is_a_sorted_list() {
    run(1, 100, 5, 4_000);
    run(2, 1_000, 10_000, 8_000);
    run(3, 3_000, 3, 12_000);
}

#[test]
fn zset_becomes_a_tree_where_the_limits_say_and_packs_again_only_when_asked() {
    let mut zset = Zset::new();
    for n in 0..128 {
        zset.insert(format!("m{n}").as_bytes(), f64::from(n), &LIMITS);
    }
    assert_eq!(zset.encoding(), "listpack");
    zset.insert(b"m5", 1.5, &LIMITS);
    assert_eq!(zset.encoding(), "listpack");
    zset.insert(b"one more", 1.5, &LIMITS);
    assert_eq!(zset.encoding(), "skiplist");
    zset.remove(b"one more");
    assert_eq!(zset.encoding(), "skiplist");
    zset.pack_if_small(&LIMITS);
    assert_eq!((zset.encoding(), zset.len()), ("listpack", 128));
    zset.remove(b"m0");
    zset.insert(&[b'x'; 64], 0.0, &LIMITS);
    assert_eq!(zset.encoding(), "listpack");
    zset.remove(&[b'x'; 64]);
    zset.insert(&[b'x'; 65], 0.0, &LIMITS);
    assert_eq!(zset.encoding(), "skiplist");
}

#[test]
fn zset_of_members_beyond_64_kib_keeps_them_among_short_ones() {
    let mut zset = Zset::new_tree();
    let mut model = Vec::new();
    for n in 0..60_u64 {
        let len = [3, 70_000, 40, 65_536, 200_000, 5][n as usize % 6];
        let mut member = vec![b'a' + (n % 7) as u8; len];
        member.extend_from_slice(n.to_string().as_bytes());
        let score = (n * 7 % 11) as f64;
        zset.insert(&member, score, &LIMITS);
        model.push((member, score));
        check(&zset, &model);
    }
    while let Some((member, _)) = model.pop() {
        assert!(zset.remove(&member));
        check(&zset, &model);
    }
}

/// Bytes of heap per member.
fn cost(members: impl Iterator<Item = (String, f64)>) -> f64 {
    let mut zset = Zset::new();
    members.for_each(|(member, score)| zset.insert(member.as_bytes(), score, &LIMITS));
    zset.heap_bytes() as f64 / zset.len() as f64
}

#[test]
fn member_of_15_bytes_costs_less_than_50() {
    let mut random = Random(9);
    for count in [1_000, 10_000, 100_000] {
        let ascending = cost((0..count).map(|n| (format!("member:{n:08}"), f64::from(n))));
        let descending = cost((0..count).rev().map(|n| (format!("member:{n:08}"), f64::from(n))));
        let anyhow = cost(
            (0..count).map(|n| (format!("member:{n:08}"), random.below(1 << 40) as f64 / 7.0)),
        );
        let worst = ascending.max(descending).max(anyhow);
        assert!(worst < 50.0, "{ascending} up, {descending} down, {anyhow} in any order");
    }
}
