//! The tree against the standard library's, and its shape after every step.

extern crate std;

use std::collections::BTreeMap;
use std::println;
use std::vec::Vec;

use super::{Full, NIL, Node, Tree};
use crate::host::Storage;

pub(crate) struct Room<T> {
    items: Vec<T>,
    capacity: usize,
}

impl<T> Room<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { items: Vec::new(), capacity }
    }
}

impl<T> Storage<T> for Room<T> {
    fn as_slice(&self) -> &[T] {
        &self.items
    }
    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.items
    }
    fn capacity(&self) -> usize {
        self.capacity
    }
    fn push(&mut self, value: T) -> Result<(), T> {
        if self.items.len() == self.capacity {
            return Err(value);
        }
        self.items.push(value);
        Ok(())
    }
}

type Subject = Tree<u64, u64, Room<Node<u64, u64>>>;

fn check(tree: &Subject, at: u32, parent: u32, low: Option<u64>, high: Option<u64>) -> u8 {
    if at == NIL {
        return 0;
    }
    let node = tree.node(at);
    assert_eq!(node.parent, parent);
    assert!(low.is_none_or(|low| low < node.key) && high.is_none_or(|high| node.key < high));
    let left = check(tree, node.left, at, low, Some(node.key));
    let right = check(tree, node.right, at, Some(node.key), high);
    assert!(left.abs_diff(right) <= 1, "invariant 2: heights {left} and {right}");
    assert_eq!(node.height, left.max(right) + 1);
    node.height
}

#[test]
fn it_agrees_with_the_standard_map_and_stays_balanced_after_every_step() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    println!("seed {seed:#x}");
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut tree = Subject::new(Room::new(64));
    let mut model = BTreeMap::new();
    for _ in 0..if cfg!(miri) { 200 } else { 20_000 } {
        let key = next() % 100;
        if next() % 2 == 0 {
            let full = model.len() == 64 && !model.contains_key(&key);
            let expected = if full { Err(Full) } else { Ok(()) };
            assert_eq!(tree.insert(key, key * 2), expected);
            if !full {
                model.insert(key, key * 2);
            }
        } else {
            assert_eq!(tree.remove(key), model.remove(&key));
        }
        check(&tree, tree.root, NIL, None, None);
        assert_eq!(tree.len(), model.len());
        let probe = next() % 100;
        let pair = |(k, v): (&u64, &u64)| (*k, *v);
        assert_eq!(tree.floor(probe), model.range(..=probe).next_back().map(pair));
        assert_eq!(tree.ceiling(probe), model.range(probe..).next().map(pair));
    }
}

// spec: W9
#[test]
#[cfg_attr(miri, ignore = "a million entries take Miri minutes")]
fn a_million_entries_are_at_most_29_steps_deep() {
    let mut tree = Subject::new(Room::new(1 << 20));
    for key in 0..1 << 20 {
        tree.insert(key, 0).unwrap();
    }
    assert!(tree.height(tree.root) <= 29);
}
