//! The one ordered tree: keys to values, nodes linked by index, storage from the embedder.
//!
//! A height-balanced (AVL) tree, so that the longest path is below 1.45 × log2 of the entries and a
//! lookup on the fault path has a bound. Links are indices because the engine has neither
//! allocation nor unsafe; a link to nowhere reads as a node of height 0.
//!
//! # Invariants
//!
//! 1. In-order walk yields strictly ascending keys.
//! 2. A node's height is 1 + the larger of its children's; these differ by at most 1.
//! 3. A node is either reachable from `root` or in the free list through `left`, never both.
//!
//! Kernel counterpart: the rb-tree and maple tree.

use core::cmp::Ordering;
use core::marker::PhantomData;

use crate::host::Storage;

const NIL: u32 = u32::MAX;

/// One entry, as it lies in the embedder's storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<K, V> {
    key: K,
    value: V,
    parent: u32,
    left: u32,
    right: u32,
    height: u8,
}

impl<K: Default, V: Default> Default for Node<K, V> {
    fn default() -> Self {
        Self { key: K::default(), value: V::default(), parent: NIL, left: NIL, right: NIL, height: 0 }
    }
}

/// The storage is used up; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

pub(crate) struct Tree<K, V, S> {
    storage: S,
    root: u32,
    free: u32,
    len: usize,
    entry: PhantomData<(K, V)>,
}

impl<K: Ord + Copy + Default, V: Copy + Default, S: Storage<Node<K, V>>> Tree<K, V, S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { storage, root: NIL, free: NIL, len: 0, entry: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many more entries fit.
    pub(crate) fn room(&self) -> usize {
        self.storage.capacity().saturating_sub(self.len)
    }

    pub(crate) fn set(&mut self, key: K, value: V) -> Option<()> {
        let index = self.find(key)?;
        self.edit(index, |node| node.value = value);
        Some(())
    }

    /// The greatest key not above `key`.
    pub(crate) fn floor(&self, key: K) -> Option<(K, V)> {
        let mut best = None;
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            if node.key <= key {
                best = Some((node.key, node.value));
                at = node.right;
            } else {
                at = node.left;
            }
        }
        best
    }

    /// The least key not below `key`.
    pub(crate) fn ceiling(&self, key: K) -> Option<(K, V)> {
        let mut best = None;
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            if node.key >= key {
                best = Some((node.key, node.value));
                at = node.left;
            } else {
                at = node.right;
            }
        }
        best
    }

    /// Adds an entry; a key that is there already keeps its place and gets the new value.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), Full> {
        let mut parent = NIL;
        let mut side = Side::Left;
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            parent = at;
            (side, at) = match key.cmp(&node.key) {
                Ordering::Less => (Side::Left, node.left),
                Ordering::Greater => (Side::Right, node.right),
                Ordering::Equal => {
                    self.edit(at, |node| node.value = value);
                    return Ok(());
                }
            };
        }
        let fresh = Node { key, value, parent, left: NIL, right: NIL, height: 1 };
        let index = self.take_free(fresh)?;
        if parent == NIL {
            self.root = index;
        } else {
            self.set_child(parent, side, index);
        }
        self.len = self.len.saturating_add(1);
        self.rebalance(parent);
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let index = self.find(key)?;
        let node = self.node(index);
        // With two children, the successor's entry moves here and the successor's node goes instead.
        let gone = if node.left != NIL && node.right != NIL {
            let successor = self.leftmost(node.right);
            let moved = self.node(successor);
            self.edit(index, |node| (node.key, node.value) = (moved.key, moved.value));
            successor
        } else {
            index
        };
        let Node { parent, left, right, .. } = self.node(gone);
        let child = if left == NIL { right } else { left };
        self.replace_child(parent, gone, child);
        self.edit(child, |node| node.parent = parent);
        self.give_free(gone);
        self.len = self.len.saturating_sub(1);
        self.rebalance(parent);
        Some(node.value)
    }

    fn find(&self, key: K) -> Option<u32> {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            at = match key.cmp(&node.key) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(at),
            };
        }
        None
    }

    fn leftmost(&self, mut at: u32) -> u32 {
        loop {
            let left = self.node(at).left;
            if left == NIL {
                return at;
            }
            at = left;
        }
    }

    /// Restores invariant 2 from `at` up to the root.
    fn rebalance(&mut self, mut at: u32) {
        while at != NIL {
            let node = self.node(at);
            let (left, right) = (self.height(node.left), self.height(node.right));
            let top = if left > right.saturating_add(1) {
                self.lower(at, Side::Left)
            } else if right > left.saturating_add(1) {
                self.lower(at, Side::Right)
            } else {
                self.update_height(at);
                at
            };
            at = self.node(top).parent;
        }
    }

    /// Shortens the `heavy` side of `at`; returns the subtree's new top.
    fn lower(&mut self, at: u32, heavy: Side) -> u32 {
        let child = self.child(at, heavy);
        let light = heavy.other();
        if self.height(self.child(child, light)) > self.height(self.child(child, heavy)) {
            self.rotate(child, heavy);
        }
        self.rotate(at, light)
    }

    /// Moves `at` down to the side `down`; its other child takes its place and is returned.
    fn rotate(&mut self, at: u32, down: Side) -> u32 {
        let parent = self.node(at).parent;
        let up = self.child(at, down.other());
        let between = self.child(up, down);
        self.set_child(at, down.other(), between);
        self.edit(between, |node| node.parent = at);
        self.set_child(up, down, at);
        self.edit(at, |node| node.parent = up);
        self.replace_child(parent, at, up);
        self.edit(up, |node| node.parent = parent);
        self.update_height(at);
        self.update_height(up);
        up
    }

    fn update_height(&mut self, at: u32) {
        let node = self.node(at);
        let taller = self.height(node.left).max(self.height(node.right));
        self.edit(at, |node| node.height = taller.saturating_add(1));
    }

    fn height(&self, at: u32) -> u8 {
        self.node(at).height
    }

    fn child(&self, at: u32, side: Side) -> u32 {
        let node = self.node(at);
        match side {
            Side::Left => node.left,
            Side::Right => node.right,
        }
    }

    fn set_child(&mut self, at: u32, side: Side, child: u32) {
        self.edit(at, |node| match side {
            Side::Left => node.left = child,
            Side::Right => node.right = child,
        });
    }

    fn replace_child(&mut self, parent: u32, old: u32, new: u32) {
        if parent == NIL {
            self.root = new;
        } else if self.node(parent).left == old {
            self.set_child(parent, Side::Left, new);
        } else {
            self.set_child(parent, Side::Right, new);
        }
    }

    fn node(&self, index: u32) -> Node<K, V> {
        self.storage.as_slice().get(position(index)).copied().unwrap_or_default()
    }

    fn edit(&mut self, index: u32, change: impl FnOnce(&mut Node<K, V>)) {
        if let Some(node) = self.storage.as_mut_slice().get_mut(position(index)) {
            change(node);
        }
    }

    fn take_free(&mut self, node: Node<K, V>) -> Result<u32, Full> {
        if self.free != NIL {
            let index = self.free;
            self.free = self.node(index).left;
            self.edit(index, |slot| *slot = node);
            return Ok(index);
        }
        let index = u32::try_from(self.storage.as_slice().len()).map_err(|_| Full)?;
        if index == NIL {
            return Err(Full);
        }
        self.storage.push(node).map_err(|_| Full)?;
        Ok(index)
    }

    fn give_free(&mut self, index: u32) {
        let free = self.free;
        self.edit(index, |node| *node = Node { left: free, ..Node::default() });
        self.free = index;
    }
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// `NIL` and every index fit: `usize` has at least 32 bits wherever the engine is built.
const fn position(index: u32) -> usize {
    index as usize
}

#[cfg(test)]
pub(crate) mod tests;
