//! The program's own memory, registered where it stands.
//!
//! # Invariants
//!
//! 1. An [`Adopted`] exists only by the promise of who called [`Uffd::adopt`]: its pages are that caller's,
//!    and stay mapped until they are given back.
//! 2. A request names pages of it only through its [`Gate`], so that none reaches pages that were given back,
//!    whatever lies there now.
//!
//! Kernel counterpart: `UFFDIO_REGISTER`.
#![expect(unsafe_code, reason = "the program's promise about its memory; the two invariants above say what it is")]

use core::ops::Range;
use core::ptr::NonNull;

use rustix::mm::{Advice, madvise};
use userfault_client::{AdoptError, Errno, RegisterModes, UffdError, Unfit};
use userfault_memory::{FaultsBy, Fixed, Survey, page_size};
use userfault_signal::alternate_stack_in;

use crate::context::{check_pages, system};
use crate::gate::Gate;
use crate::pages::Pages;
use crate::region::Region;
use crate::sys;
use crate::uffd::Uffd;

/// Whole pages of the program's.
#[derive(Debug)]
pub(crate) struct Adopted {
    base: usize,
    pages: usize,
    /// One element, in a mapping of its own.
    gate: Fixed<Gate>,
}

impl Adopted {
    /// # Safety
    ///
    /// Invariant 1.
    unsafe fn new(base: usize, pages: usize) -> Result<Self, UffdError> {
        let no_memory = || system("mmap", Errno::ENOMEM);
        let mut gate = Fixed::with_capacity(1).map_err(|_| no_memory())?;
        gate.push(Gate::new(pages).map_err(|_| no_memory())?).map_err(|_| no_memory())?;
        Ok(Self { base, pages, gate })
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
        self.gate.as_ref().first()?.unless_given_back(pages, request)
    }

    /// Gives pages back; see [`Gate::give_back`].
    pub(crate) fn give_back(
        &self,
        pages: &Range<usize>,
        unregister: impl FnMut(&Range<usize>) -> Result<(), UffdError>,
    ) -> Result<(), UffdError> {
        self.gate.as_ref().first().map_or(Ok(()), |gate| gate.give_back(pages, unregister))
    }
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
