//! Which pages of adopted memory were given back, and how requests about them come to an end.
//!
//! Requests take no lock and do not allocate: they are made by those who answer the faults of the allocator's
//! memory. The gate lies in mappings of its own.
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
//! before G2, so G3 waits for it. One that saw the new epoch comes after G1, and sees its (relaxed) stores in R3. New
//! requests never wait for G3: they count themselves on the other side.
//!
//! Kernel counterpart: sleepable read-copy-update.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use userfault_memory::{Bits, MapError};

#[derive(Debug)]
pub(crate) struct Gate {
    /// Changed by who set `is_giving`.
    given_back: Bits,
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
    pub(crate) fn new(pages: usize) -> Result<Self, MapError> {
        let given_back = Bits::new(pages)?;
        Ok(Self {
            given_back,
            is_giving: AtomicBool::new(false),
            epoch: AtomicUsize::new(0),
            requests: Default::default(),
        })
    }

    /// Makes a request about pages, unless some of them were given back.
    pub(crate) fn unless_given_back<R>(&self, pages: &Range<usize>, request: impl FnOnce() -> R) -> Option<R> {
        let _counted = self.enter();
        let is_free = self.given_back.find(pages.clone(), true).is_none();
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
        while result.is_ok()
            && let Some(start) = self.given_back.find(pages.clone(), false)
        {
            let run = start..self.given_back.find(start..pages.end, true).unwrap_or(pages.end);
            self.given_back.set(run.clone(), true);
            self.await_requests();
            result = unregister(&run);
            if result.is_err() {
                self.given_back.set(run, false);
            }
        }
        self.is_giving.store(false, Ordering::Release);
        result
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::Gate;

    #[test]
    fn each_page_is_unregistered_once() {
        // Every sequence of three ranges of a few pages.
        let ranges: Vec<_> = (0..5).flat_map(|start| (start + 1..=5).map(move |end| start..end)).collect();
        for first in &ranges {
            for second in &ranges {
                for third in &ranges {
                    let (gate, mut table) = (Gate::new(5).unwrap(), [false; 5]);
                    for range in [first, second, third] {
                        let given: Result<(), ()> = gate.give_back(range, |run| {
                            assert!(
                                run.clone().all(|page| range.contains(&page) && !table[page]),
                                "{run:?} of {range:?}"
                            );
                            run.clone().for_each(|page| table[page] = true);
                            Ok(())
                        });
                        given.unwrap();
                        range.clone().for_each(|page| assert!(table[page]));
                        (0..5).for_each(|page| assert_eq!(gate.given_back.get(page), table[page]));
                    }
                }
            }
        }
    }

    #[test]
    fn no_request_is_being_made_about_pages_when_they_are_given_back() {
        const PAGES: usize = 200;
        let gate = Gate::new(PAGES + 1).unwrap();
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
