//! Where the alternate stacks are that this crate has made, so that nobody adopts them as ordinary memory.
//!
//! A table without a lock: an entry is there as long as its stack.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A stack that finds no place works, and is not known.
const PLACES: usize = 1 << 14;

static TABLE: [[AtomicUsize; 2]; PLACES] = [const { [AtomicUsize::new(0), AtomicUsize::new(0)] }; PLACES];

/// A stack in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Known(&'static [AtomicUsize; 2]);

impl Known {
    pub(crate) fn enter(stack: Range<usize>) -> Option<Self> {
        TABLE.iter().find_map(|place| {
            let [start, end] = place;
            start.compare_exchange(0, stack.start, Relaxed, Relaxed).ok()?;
            end.store(stack.end, Relaxed);
            Some(Self(place))
        })
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let [start, end] = self.0;
        end.store(0, Relaxed);
        start.store(0, Relaxed);
    }
}

/// The first alternate stack found that this crate made and that shares an address with `range`.
///
/// Example: [`AlternateStack`](crate::AlternateStack).
#[must_use]
pub fn alternate_stack_in(range: &Range<usize>) -> Option<Range<usize>> {
    let mut known = TABLE.iter().map(|[start, end]| start.load(Relaxed)..end.load(Relaxed));
    known.find(|stack| stack.start < range.end && range.start < stack.end)
}
