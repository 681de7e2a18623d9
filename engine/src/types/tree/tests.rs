//! Random edits of trees, compared with a vector.

use super::*;

/// Seeded chance, for the tests of this and other structures. Splitmix64.
pub(in crate::types) struct Rng(pub u64);

impl Rng {
    pub(in crate::types) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::types) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Numbers in order; few to a leaf, so that the tree is deep.
#[derive(Clone, Debug, Default)]
struct Run(Vec<u64>);

impl Leaf for Run {
    type Sep = u64;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + size_class(self.0.capacity() * 8)
    }

    fn is_over(&self) -> bool {
        self.0.len() > 6
    }

    fn is_sparse(&self) -> bool {
        self.0.len() < 2
    }

    fn split(&mut self) -> (u64, Self) {
        let upper = self.0.split_off(3);
        (upper[0], Self(upper))
    }

    fn absorb(&mut self, next: &Self) -> bool {
        let fits = self.0.len() + next.0.len() <= 5;
        if fits {
            self.0.extend_from_slice(&next.0);
        }
        fits
    }
}

/// Elements, memory and depth of a node, counted anew and compared with what is noted.
fn census(node: &Node<Run>, low: u64, high: u64, all: &mut Vec<u64>) -> (usize, usize, usize) {
    let own = NODE_BYTES + own_bytes(node);
    let Node::Inner(inner) = node else {
        let Node::Leaf(leaf) = node else { unreachable!("it is one or the other") };
        assert!(leaf.0.iter().all(|&n| low <= n && n < high), "{low} {leaf:?} {high}");
        all.extend_from_slice(&leaf.0);
        return (leaf.len(), own, 0);
    };
    assert!(inner.len() > 0 && inner.len() <= CHILDREN_MAX && inner.seps.len() == inner.len());
    let (mut count, mut bytes, mut depths) = (0, own, Vec::new());
    for (i, child) in inner.children.iter().enumerate() {
        let low = if i == 0 { low } else { inner.seps[i] };
        let high = inner.seps.get(i + 1).copied().unwrap_or(high);
        let (below, size, depth) = census(&child.node, low, high, all);
        assert_eq!((child.count, child.bytes), (below, size));
        count += below;
        bytes += size;
        depths.push(depth);
    }
    assert!(depths.iter().all(|depth| *depth == depths[0]), "{depths:?}");
    (count, bytes, depths[0] + 1)
}

fn check(tree: &Tree<Run>, model: &[u64]) -> usize {
    let mut all = Vec::new();
    let (count, bytes, depth) = census(&tree.root, 0, u64::MAX, &mut all);
    assert_eq!((tree.len(), tree.heap_bytes()), (count, bytes));
    assert_eq!(all, model);
    depth
}

fn insert(tree: &mut Tree<Run>, model: &mut Vec<u64>, n: u64) {
    let at = model.partition_point(|&m| m < n);
    model.insert(at, n);
    tree.edit_of(
        |&sep| sep <= n,
        |leaf, before| {
            let index = leaf.0.partition_point(|&m| m < n);
            assert_eq!(before + index, at);
            leaf.0.insert(index, n);
        },
    );
}

fn remove(tree: &mut Tree<Run>, model: &mut Vec<u64>, position: usize, by_key: bool) {
    let n = model.remove(position);
    let gone = if by_key {
        tree.edit_for(
            |&sep| sep <= n,
            |leaf| {
                let index = leaf.0.binary_search(&n).expect("it is in the model");
                leaf.0.remove(index)
            },
        )
    } else {
        tree.edit_at(position, |leaf, index| leaf.0.remove(index))
    };
    assert_eq!(gone, n);
}

fn cut(tree: &mut Tree<Run>, model: &mut Vec<u64>, from: usize, to: usize) -> usize {
    let mut trash = Trash::default();
    tree.remove_range(from, to, &mut trash, |leaf, low, high| drop(leaf.0.drain(low..high)));
    let to = to.min(model.len());
    model.drain(from.min(to)..to);
    let mut steps = 0;
    while trash.step() {
        steps += 1;
    }
    assert!(trash.is_empty());
    steps
}

fn lookup(tree: &Tree<Run>, model: &[u64], position: usize) {
    let (leaf, index) = tree.leaf_at(position);
    assert_eq!(leaf.0.get(index), model.get(position));
    let Some(n) = model.get(position) else { return };
    let (leaf, before) = tree.leaf_of(|sep| sep <= n);
    let index = leaf.0.binary_search(n).expect("its leaf has it");
    assert_eq!(before + index, position);
    assert_eq!(tree.leaf_for(|sep| sep <= n).0[index], *n);
}

#[test]
fn tree_under_random_edits_is_what_its_model_is() {
    for seed in 0..12 {
        let mut rng = Rng(seed);
        let (mut tree, mut model) = (Tree::new(Run::default()), Vec::new());
        let mut snapshots: Vec<(Tree<Run>, Vec<u64>)> = Vec::new();
        let mut depth_max = 0;
        for step in 0..6_000 {
            // Growth first, then decline: all sizes are passed twice.
            let grows = rng.below(100) < if step < 3_000 { 80 } else { 15 };
            if grows || model.is_empty() {
                let n = rng.next() >> 1;
                insert(&mut tree, &mut model, n);
            } else {
                let position = rng.below(model.len());
                remove(&mut tree, &mut model, position, step % 2 == 0);
            }
            if step % 300 == 299 {
                let from = rng.below(model.len() + 2);
                let to = from + rng.below(model.len() / 8 + 2);
                cut(&mut tree, &mut model, from, to);
            }
            if step % 97 == 0 {
                let copy = tree.clone();
                assert!(copy.is_same(&tree));
                snapshots.push((copy, model.clone()));
                if snapshots.len() > 4 {
                    snapshots.remove(rng.below(4));
                }
            }
            lookup(&tree, &model, rng.below(model.len() + 2));
            if step % 29 == 0 {
                depth_max = depth_max.max(check(&tree, &model));
                for (copy, model) in &snapshots {
                    check(copy, model);
                }
            }
        }
        assert!(depth_max >= 2, "seed {seed}: {depth_max}");
        while !model.is_empty() {
            let position = rng.below(model.len());
            remove(&mut tree, &mut model, position, true);
            check(&tree, &model);
        }
    }
}

#[test]
fn remove_range_of_everything_leaves_an_empty_leaf() {
    let (mut tree, mut model) = (Tree::new(Run::default()), Vec::new());
    assert_eq!(cut(&mut tree, &mut model, 0, 9), 0);
    (0..5_000).for_each(|n| insert(&mut tree, &mut model, n));
    let (copy, old) = (tree.clone(), model.clone());
    // What a snapshot still holds is not taken apart.
    assert_eq!(cut(&mut tree, &mut model, 0, usize::MAX), 1);
    assert!(tree.is_empty());
    check(&tree, &model);
    insert(&mut tree, &mut model, 7);
    check(&tree, &model);
    check(&copy, &old);
    let mut trash = copy.into_trash();
    let mut steps = 0;
    while trash.step() {
        steps += 1;
    }
    assert!(steps > 5_000 / 6, "{steps}");
}

#[test]
fn remove_range_at_either_end_keeps_the_rest() {
    let (mut tree, mut model) = (Tree::new(Run::default()), Vec::new());
    (0..3_000).for_each(|n| insert(&mut tree, &mut model, n));
    for _ in 0..40 {
        cut(&mut tree, &mut model, 0, 31);
        check(&tree, &model);
        let len = model.len();
        cut(&mut tree, &mut model, len - 37, len);
        check(&tree, &model);
    }
}

#[test]
fn tree_that_grows_at_an_end_leaves_full_inner_nodes() {
    for back in [true, false] {
        let mut tree = Tree::new(Run::default());
        for n in 0..100_000_u64 {
            let n = if back { n } else { u64::MAX / 2 - n };
            tree.edit_for(
                |&sep| sep <= n,
                |leaf| {
                    let index = leaf.0.partition_point(|&m| m < n);
                    leaf.0.insert(index, n);
                },
            );
        }
        // Each edge but the growing one is full.
        let (mut node, mut widths) = (&tree.root, Vec::new());
        while let Node::Inner(inner) = &**node {
            widths.push(inner.len());
            let inside = if back { 0 } else { inner.len() - 1 };
            node = &inner.children[inside].node;
        }
        assert!(widths.len() > 2 && widths[1..].iter().all(|&n| n == CHILDREN_MAX), "{widths:?}");
    }
}
