//! A thread that touches windows of the region, reads the same bytes from the file, and compares.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use anyhow::Result;
use hdrhistogram::Histogram;
use userfault::prelude::*;
use userfault::{AlternateStack, FileSource, Region, Shared, UffdError};

use crate::args::Answer;
use crate::fail::end;
use crate::map::describe;
use crate::map::plan::Plan;

/// Longer ones count as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// First touches in nanoseconds, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST_NS, 3)?)
}

/// What all readers share.
pub(crate) struct Job<'a> {
    source: &'a FileSource,
    region: &'a Region,
    memory: Shared,
    plan: &'a Plan,
    name: &'a str,
    next: AtomicUsize,
    pages_done: AtomicU64,
}

/// What readers saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Times of the first touch of each window.
    pub(crate) touches: Histogram<u64>,
    /// Bytes that differ.
    pub(crate) mismatches: u64,
    /// One of the places where bytes differ, the lowest that is known.
    pub(crate) first_mismatch: Option<u64>,
}

impl Seen {
    pub(crate) fn nothing() -> Result<Self> {
        Ok(Self { touches: histogram()?, mismatches: 0, first_mismatch: None })
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _added = self.touches.add(&other.touches);
        self.mismatches += other.mismatches;
        self.first_mismatch = self.first_mismatch.into_iter().chain(other.first_mismatch).min();
    }
}

impl<'a> Job<'a> {
    pub(crate) fn new(name: &'a str, source: &'a FileSource, region: &'a Region, plan: &'a Plan) -> Result<Self> {
        let memory = region.shared(0..region.pages())?;
        Ok(Self { source, region, memory, plan, name, next: AtomicUsize::new(0), pages_done: AtomicU64::new(0) })
    }

    pub(crate) fn pages_done(&self) -> u64 {
        self.pages_done.load(Relaxed)
    }

    /// Reads windows until none is left.
    pub(crate) fn read(&self, touches: Histogram<u64>) -> Result<Seen> {
        let plan = self.plan;
        // On the one that threads have, a fault would be the monitor's.
        let _large = (plan.answer == Answer::Inline).then(|| AlternateStack::ensure(0)).transpose()?;
        let mut seen = Seen { touches, mismatches: 0, first_mismatch: None };
        let mut expected = vec![0; plan.window * plan.page_size];
        let mut kept = Kept { windows: VecDeque::new(), pages: 0 };
        loop {
            let index = self.next.fetch_add(1, Relaxed);
            if index >= plan.windows {
                return Ok(seen);
            }
            let window = plan.window_at(index);
            kept.make_room(window.len(), plan.quota, |pages| self.region.discard_shared(&self.memory, pages))?;
            self.compare(&window, &mut expected, &mut seen);
            self.pages_done.fetch_add(window.len() as u64, Relaxed);
            kept.keep(window);
        }
    }

    fn compare(&self, window: &Range<usize>, expected: &mut [u8], seen: &mut Seen) {
        let page_size = self.plan.page_size;
        let offset = window.start * page_size;
        let touched = Instant::now();
        self.memory.read(offset, &mut [0; size_of::<u64>()]);
        let nanoseconds = u64::try_from(touched.elapsed().as_nanos()).unwrap_or(u64::MAX);
        seen.touches.saturating_record(nanoseconds.max(1));
        let expected = expected.get_mut(..window.len() * page_size).unwrap_or_default();
        if let Err(error) = self.source.read_padded(offset as u64, expected) {
            end(&describe(self.name, &error));
        }
        if self.memory.compare(offset, expected).is_some() {
            let mut found = vec![0; expected.len()];
            self.memory.read(offset, &mut found);
            let differ = |(found, expected): (&u8, &u8)| found != expected;
            let count = found.iter().zip(&*expected).filter(|pair| differ(*pair)).count();
            let first = found.iter().zip(&*expected).position(differ);
            // What differed a moment ago counts even if it does not now.
            seen.mismatches += count.max(1) as u64;
            let first = (offset + first.unwrap_or(0)) as u64;
            seen.first_mismatch = Some(seen.first_mismatch.map_or(first, |known| known.min(first)));
        }
    }
}

/// Windows that were compared and are still in memory, oldest first.
struct Kept {
    windows: VecDeque<Range<usize>>,
    pages: usize,
}

impl Kept {
    fn keep(&mut self, window: Range<usize>) {
        self.pages += window.len();
        self.windows.push_back(window);
    }

    /// Discards the oldest until `pages` more are within `quota`.
    fn make_room(
        &mut self,
        pages: usize,
        quota: usize,
        mut discard: impl FnMut(Range<usize>) -> Result<(), UffdError>,
    ) -> Result<()> {
        while self.pages + pages > quota {
            let Some(oldest) = self.windows.pop_front() else { break };
            self.pages -= oldest.len();
            if let Err(error) = discard(oldest) {
                end(&format!("compared pages cannot be discarded: {error}; give a larger --resident"));
            }
        }
        Ok(())
    }
}
