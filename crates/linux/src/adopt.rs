//! The program's own memory, registered where it stands.
//!
//! # Invariants
//!
//! 1. An [`Adopted`] exists only by the promise of who called [`Uffd::adopt`]: its pages are that caller's,
//!    and stay mapped until they are given back.
//! 2. A request names pages of it only while it holds `given_back` shared, and after it has looked there;
//!    pages are added with `given_back` held alone. So no request reaches pages that were given back,
//!    whatever lies there now.
//! 3. `given_back` lies in a mapping of its own, and nobody who holds it alone allocates, or waits for
//!    anything: the allocator's memory may be adopted, and whoever answers its faults holds it shared.
//!
//! Kernel counterpart: `UFFDIO_REGISTER`.
#![expect(unsafe_code, reason = "the program's promise about its memory; the three invariants above say what it is")]

use core::ops::Range;
use core::ptr::NonNull;
use std::sync::{PoisonError, RwLock, TryLockError};

use rustix::mm::{Advice, madvise};
use userfault_client::{AdoptError, Errno, RegisterModes, UffdError, Unfit};
use userfault_memory::{FaultsBy, Fixed, Survey, page_size};
use userfault_signal::alternate_stack_in;

use crate::context::{check_pages, system};
use crate::pages::Pages;
use crate::region::Region;
use crate::sys;
use crate::uffd::Uffd;

/// Whole pages of the program's.
#[derive(Debug)]
pub(crate) struct Adopted {
    base: usize,
    pages: usize,
    /// Which pages are the program's alone again, in order and apart. One element.
    given_back: Fixed<RwLock<Vec<Range<usize>>>>,
}

impl Adopted {
    /// # Safety
    ///
    /// Invariant 1.
    unsafe fn new(base: usize, pages: usize) -> Result<Self, UffdError> {
        let no_memory = || system("mmap", Errno::ENOMEM);
        let mut given_back = Fixed::with_capacity(1).map_err(|_| no_memory())?;
        given_back.push(RwLock::default()).map_err(|_| no_memory())?;
        Ok(Self { base, pages, given_back })
    }

    fn given_back(&self) -> Option<&RwLock<Vec<Range<usize>>>> {
        self.given_back.as_ref().first()
    }

    pub(crate) const fn base(&self) -> usize {
        self.base
    }

    pub(crate) const fn pages(&self) -> usize {
        self.pages
    }

    pub(crate) fn bytes(&self) -> Range<usize> {
        self.base..self.base + self.pages * page_size()
    }

    /// Makes a request about pages, unless some of them were given back.
    pub(crate) fn unless_given_back<R>(&self, pages: &Range<usize>, request: impl FnOnce() -> R) -> Option<R> {
        let given_back = self.given_back()?.read().unwrap_or_else(PoisonError::into_inner);
        let is_free = given_back.iter().all(|run| run.end <= pages.start || pages.end <= run.start);
        is_free.then(request)
    }

    /// Gives pages back: `unregister` is called with each run that was not yet, and afterwards no request
    /// reaches any of them. If it fails, the run and what follows stay as they are.
    ///
    /// # Blocking
    ///
    /// Until no request about this memory is being made, for a moment; a fill that sleeps in a fault of its
    /// own source is one. New requests do not wait meanwhile: one may be the answer that others wait for.
    pub(crate) fn give_back(
        &self,
        pages: &Range<usize>,
        mut unregister: impl FnMut(&Range<usize>) -> Result<(), UffdError>,
    ) -> Result<(), UffdError> {
        let Some(lock) = self.given_back() else { return Ok(()) };
        loop {
            let known = lock.read().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(run) = first_gap(&known, pages) else { return Ok(()) };
            let mut more = with(&known, &run);
            let mut given_back = loop {
                match lock.try_write() {
                    Ok(guard) => break guard,
                    Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                }
            };
            // Somebody else may have given back others meanwhile.
            let done = (*given_back == known).then(|| unregister(&run));
            if matches!(done, Some(Ok(()))) {
                core::mem::swap(&mut *given_back, &mut more);
            }
            // Before `more` and `known` are freed.
            drop(given_back);
            done.unwrap_or(Ok(()))?;
        }
    }
}

/// The first run of `pages` that none of `known` has.
fn first_gap(known: &[Range<usize>], pages: &Range<usize>) -> Option<Range<usize>> {
    let mut start = pages.start;
    for run in known {
        if start < run.start {
            return (start < pages.end).then(|| start..run.start.min(pages.end));
        }
        start = start.max(run.end);
    }
    (start < pages.end).then(|| start..pages.end)
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

impl Uffd {
    /// Registers the whole pages inside `memory` where they stand; partial pages at both ends are left alone.
    ///
    /// Pages that have contents keep them; the others are missing, if `modes` asks for missing faults. Which
    /// pages they are tell [`base`](userfault_client::Region::base) and [`pages`](userfault_client::Region::pages).
    /// The memory is reached through the program's own references: windows are not lent. When the last
    /// handle is dropped the registration ends: contents stay, what is missing reads as zeros, nothing is
    /// unmapped.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]; nothing has changed then.
    ///
    /// # Safety
    ///
    /// The memory is the caller's to give, and for as long as a page of it is registered:
    ///
    /// * it is not unmapped, moved or mapped over, nor its contents ended, by the program or by a library:
    ///   before that, [`unregister`](userfault_client::Region::unregister) the pages, after which they are
    ///   the caller's alone; for ending contents there is [`Region::discard_adopted`];
    /// * whoever answers its faults needs none of it to do so: no stack, no allocator's memory;
    /// * bytes that are filled into missing pages are valid for whatever refers to them.
    pub unsafe fn adopt(&self, memory: NonNull<[u8]>, modes: RegisterModes) -> Result<Region, AdoptError> {
        self.context().check_process()?;
        let start = memory.cast::<u8>().addr().get();
        let end = start.saturating_add(memory.len()) / page_size() * page_size();
        let whole = start.next_multiple_of(page_size())..end;
        if whole.is_empty() {
            return Err(AdoptError::NoWholePage { len_bytes: memory.len(), page_size: page_size() });
        }
        if let Some(stack) = alternate_stack_in(&whole) {
            let range = stack.start.max(whole.start)..stack.end.min(whole.end);
            return Err(AdoptError::Unfit { range, why: Unfit::AlternateStack });
        }
        Survey::of(&whole, FaultsBy::Kernel)?;
        // SAFETY: the caller's promise (invariant 1).
        let adopted = unsafe { Adopted::new(whole.start, whole.len() / page_size()) }?;
        Pages::adopt(adopted, self.context(), modes).map(Region::of)
    }
}

impl Region {
    /// Ends the contents of these pages of adopted memory: they are missing again.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::System`] with `ENOENT` if some were unregistered, with
    /// `EINVAL` if the memory is not adopted, or with the host's error.
    ///
    /// # Blocking
    ///
    /// With `EVENT_REMOVE`, until a monitor has read of it: not for the monitor's own thread.
    ///
    /// # Safety
    ///
    /// Nothing refers to bytes there as if they stayed: no reference is used across this call, and what is
    /// read afterwards is valid whatever it is filled with.
    pub unsafe fn discard_adopted(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.inner().context().check_process()?;
        check_pages(&pages, self.inner().count())?;
        let failed = |errno| system("discarding adopted pages", errno);
        let adopted = self.inner().adopted().ok_or(failed(Errno::EINVAL))?;
        let start = core::ptr::with_exposed_provenance_mut(adopted.base() + pages.start * page_size());
        let len = pages.len() * page_size();
        let discarded = adopted.unless_given_back(&pages, || {
            // SAFETY: pages that the region has still (invariants 1, 2); the caller answers for their contents.
            unsafe { madvise(start, len, Advice::LinuxDontNeed) }
        });
        discarded.ok_or(failed(Errno::ENOENT))?.map_err(|error| failed(sys::errno(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::{first_gap, with};

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
}
