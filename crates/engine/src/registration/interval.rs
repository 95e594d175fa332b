//! A map from page ranges to values: non-overlapping, and canonical.
//!
//! Canonical: two neighbours that touch never hold equal values; they are one entry. So the same
//! contents always have the same shape, whatever the order of operations (W23). It knows no
//! userfaultfd word.
//!
//! Every change can be priced first (`cost_*`), so a caller can refuse before anything changes (W22).
//!
//! Kernel counterpart: the splitting and merging of mappings.

use crate::addr::{Page, PageRange};
use crate::host::Storage;
use crate::tree::{Full, Node, Tree};

/// Where an interval ends and what it holds; its start is the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interval<V> {
    end: Page,
    value: V,
}

pub(crate) struct IntervalMap<V, S> {
    tree: Tree<Page, Interval<V>, S>,
}

impl<V: Copy + Default + Eq, S: Storage<Node<Page, Interval<V>>>> IntervalMap<V, S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { tree: Tree::new(storage) }
    }

    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    pub(crate) fn room(&self) -> usize {
        self.tree.room()
    }

    /// The interval that holds `page`.
    pub(crate) fn get(&self, page: Page) -> Option<(PageRange, V)> {
        let (start, interval) = self.tree.floor(page)?;
        let range = PageRange::new(start, interval.end)?;
        range.contains(page).then_some((range, interval.value))
    }

    /// The first interval that ends above `page`.
    pub(crate) fn first_from(&self, page: Page) -> Option<(PageRange, V)> {
        self.get(page).or_else(|| {
            let (start, interval) = self.tree.ceiling(page)?;
            Some((PageRange::new(start, interval.end)?, interval.value))
        })
    }

    /// The first interval with a page in `range`.
    pub(crate) fn first_in(&self, range: PageRange) -> Option<(PageRange, V)> {
        self.first_from(range.start()).filter(|(found, _)| found.start() < range.end())
    }

    /// By how much the number of intervals grows when `range` is cleared; never more than 1.
    pub(crate) fn cost_of_clear(&self, range: PageRange) -> usize {
        let inside = |(found, _): (PageRange, V)| found.start() < range.start() && range.end() < found.end();
        usize::from(self.get(range.start()).is_some_and(inside))
    }

    /// At most by how much the number of intervals grows, also in between, when `range` is set.
    pub(crate) fn cost_of_set(&self, range: PageRange) -> usize {
        let replaced = self.first_in(range).is_some_and(|(found, _)| found.intersect(range) == Some(found));
        let added = usize::from(!replaced);
        self.cost_of_clear(range).saturating_add(added)
    }

    /// Removes what `range` holds; intervals that stick out are cut.
    pub(crate) fn clear(&mut self, range: PageRange) -> Result<(), Full> {
        while let Some((found, value)) = self.first_in(range) {
            match (found.until(range.start()), found.from(range.end())) {
                (Some(before), Some(after)) => {
                    self.tree.insert(after.start(), Interval { end: after.end(), value })?;
                    let _cut = self.tree.set(before.start(), Interval { end: before.end(), value });
                }
                (Some(before), None) => {
                    let _cut = self.tree.set(before.start(), Interval { end: before.end(), value });
                }
                (None, Some(after)) => {
                    // Frees one entry before it takes one.
                    let _old = self.tree.remove(found.start());
                    self.tree.insert(after.start(), Interval { end: after.end(), value })?;
                }
                (None, None) => {
                    let _old = self.tree.remove(found.start());
                }
            }
        }
        Ok(())
    }

    /// Makes every page of `range` hold `value`.
    pub(crate) fn set(&mut self, range: PageRange, value: V) -> Result<(), Full> {
        self.clear(range)?;
        let mut start = range.start();
        let mut end = range.end();
        if let Some((next, held)) = self.get(end)
            && held == value
        {
            end = next.end();
            let _merged = self.tree.remove(next.start());
        }
        let before = Page::new(start.number().saturating_sub(1));
        if let Some((previous, held)) = self.get(before)
            && before < start
            && held == value
        {
            start = previous.start();
        }
        self.tree.insert(start, Interval { end, value })
    }
}

#[cfg(test)]
mod tests;
