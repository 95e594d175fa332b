//! Which pages of adopted memory were given back, and how requests about them come to an end.
//!
//! The gate lies in a mapping of its own, and who holds its lock does not allocate: the allocator's memory may
//! be adopted, and who answers its faults makes requests.
//!
//! # Ordering
//!
//! ```text
//! request                                     give back (one at a time)
//! R1  turn = epoch; requests[turn] += 1       G1  the pages are in `given_back`
//! R2  epoch has changed: undo R1, begin anew  G2  epoch += 1
//! R3  look at `given_back`                    G3  wait for requests[old turn] = 0
//! R4  the request                             G4  unregister
//! R5  requests[turn] -= 1
//! ```
//!
//! In one order of R1, R2 and G2, G3 (`SeqCst`): a request that saw the old epoch in R2 had counted itself
//! before G2, so G3 waits for it. One that saw the new epoch comes after G1, and sees it in R3. New requests never
//! wait for G3: they count themselves on the other side.
//!
//! Kernel counterpart: sleepable read-copy-update.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// In order and apart.
    given_back: RwLock<Vec<Range<usize>>>,
    /// Somebody gives pages back.
    is_giving: AtomicBool,
    epoch: AtomicUsize,
    requests: [AtomicUsize; 2],
}

/// A request that is being made.
struct Request<'a>(&'a AtomicUsize);

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gate {
    /// Makes a request about pages, unless some of them were given back.
    pub(crate) fn unless_given_back<R>(&self, pages: &Range<usize>, request: impl FnOnce() -> R) -> Option<R> {
        let _counted = self.enter();
        let is_free = {
            let given_back = self.given_back.read().unwrap_or_else(PoisonError::into_inner);
            given_back.iter().all(|run| run.end <= pages.start || pages.end <= run.start)
        };
        is_free.then(request)
    }

    fn enter(&self) -> Request<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let [even, odd] = &self.requests;
            let side = if epoch.is_multiple_of(2) { even } else { odd };
            side.fetch_add(1, Ordering::SeqCst);
            let counted = Request(side);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return counted;
            }
        }
    }

    /// Gives pages back: `unregister` is called with each run that was not yet, when no request about it is
    /// being made or can be. If it fails, that run and what follows stay as they were.
    ///
    /// # Blocking
    ///
    /// Until the requests that are being made are over; one may be a fill that sleeps in a fault of its own
    /// source.
    pub(crate) fn give_back<E>(
        &self,
        pages: &Range<usize>,
        mut unregister: impl FnMut(&Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.is_giving.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        let mut result = Ok(());
        while result.is_ok() {
            let before = self.given_back.read().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(run) = first_gap(&before, pages) else { break };
            let before = self.replace(with(&before, &run));
            self.await_requests();
            result = unregister(&run);
            if result.is_err() {
                self.replace(before);
            }
        }
        self.is_giving.store(false, Ordering::Release);
        result
    }

    /// What was there before, to be freed when no lock is held.
    fn replace(&self, mut list: Vec<Range<usize>>) -> Vec<Range<usize>> {
        core::mem::swap(&mut *self.given_back.write().unwrap_or_else(PoisonError::into_inner), &mut list);
        list
    }

    fn await_requests(&self) {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst);
        let [even, odd] = &self.requests;
        let side = if epoch.is_multiple_of(2) { even } else { odd };
        while side.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}

/// The first run of `pages` that none of `known` has.
fn first_gap(known: &[Range<usize>], pages: &Range<usize>) -> Option<Range<usize>> {
    let mut start = pages.start;
    for run in known {
        if start < run.start {
            return (start < pages.end).then_some(start..run.start.min(pages.end));
        }
        start = start.max(run.end);
    }
    (start < pages.end).then_some(start..pages.end)
}

/// `known` and a run that none of it has, in order, neighbours made one.
fn with(known: &[Range<usize>], run: &Range<usize>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::with_capacity(known.len() + 1);
    let at = known.partition_point(|other| other.start < run.start);
    let (before, after) = known.split_at(at);
    for run in before.iter().chain([run]).chain(after) {
        match all.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            Some(_) | None => all.push(run.clone()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::{Gate, first_gap, with};

    #[test]
    fn runs_that_are_given_back_agree_with_a_table_of_pages() {
        // Every sequence of three ranges of a few pages.
        let ranges: Vec<_> = (0..5).flat_map(|start| (start + 1..=5).map(move |end| start..end)).collect();
        for first in &ranges {
            for second in &ranges {
                for third in &ranges {
                    let (mut known, mut table) = (Vec::new(), [false; 5]);
                    for range in [first, second, third] {
                        while let Some(gap) = first_gap(&known, range) {
                            assert!(gap.clone().all(|page| range.contains(&page) && !table[page]), "{gap:?}");
                            gap.clone().for_each(|page| table[page] = true);
                            known = with(&known, &gap);
                        }
                        range.clone().for_each(|page| assert!(table[page]));
                        let listed: Vec<usize> = known.iter().cloned().flatten().collect();
                        assert_eq!(listed, (0..5).filter(|page| table[*page]).collect::<Vec<_>>());
                        assert!(known.windows(2).all(|pair| pair[0].end < pair[1].start), "{known:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_request_is_being_made_about_pages_when_they_are_given_back() {
        const PAGES: usize = 200;
        let gate = Gate::default();
        // Who is at a page, and how often one was reached after it had gone.
        let here: Vec<AtomicUsize> = (0..=PAGES).map(|_| AtomicUsize::new(0)).collect();
        let gone: Vec<AtomicUsize> = (0..=PAGES).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for page in 0..PAGES {
                        // Without a pause: there is never a moment without requests, about the last page at least.
                        while let Some(late) = gate.unless_given_back(&(page..page + 1), || {
                            here[page].fetch_add(1, SeqCst);
                            let late = gone[page].load(SeqCst);
                            here[page].fetch_sub(1, SeqCst);
                            late
                        }) {
                            assert_eq!(late, 0, "page {page}");
                            gate.unless_given_back(&(PAGES..PAGES + 1), std::thread::yield_now);
                        }
                    }
                });
            }
            for page in 0..PAGES {
                let given: Result<(), ()> = gate.give_back(&(page..page + 1), |_| {
                    assert_eq!(here[page].load(SeqCst), 0, "page {page}");
                    gone[page].store(1, SeqCst);
                    Ok(())
                });
                given.unwrap();
            }
        });
        assert_eq!(gate.give_back(&(0..PAGES + 1), |run| Err(run.clone())), Err(PAGES..PAGES + 1));
        assert_eq!(gate.unless_given_back(&(PAGES..PAGES + 1), || 3), Some(3), "a run that failed is as it was");
    }
}
