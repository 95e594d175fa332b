//! The program's own memory, registered where it stands.
//!
//! ```text
//! survey      what stands there, and is it fit (no lock held)
//! adopt       all pages inaccessible · which have contents (pagemap) · their states · those accessible again ·
//!             registration                                    in this order no write is lost in between (H11)
//! give back   pages accessible · registration gone · never touched again (H15)
//! ```
//!
//! # Invariants
//!
//! 1. An [`Adoption`] exists only by the promise of who called [`Uffd::adopt`]: its pages are that caller's,
//!    stay mapped and allow reading and writing until they are unregistered or the region goes.
//! 2. It becomes one region, which never gets pages back that it has given back.
//!
//! Kernel counterpart: `UFFDIO_REGISTER` on any mapping.
#![expect(unsafe_code, reason = "the program's promise about its memory; the two invariants above say what it is")]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use userfault_abi::RegisterModes;
use userfault_abi::errno::Errno;
use userfault_client::{AdoptError, Provider, Refusal, UffdError, Unfit};
use userfault_engine::{ContextId, Page, PageRange, PageState, RegisterError, errno};
use userfault_memory::{FaultsBy, Survey};
use userfault_signal::{SignalsBlocked, alternate_stack_in};

use crate::handle::Region;
use crate::host::Host;
use crate::pagemap::Pagemap;
use crate::regions::Regions;
use crate::states::PAGE_SIZE;
use crate::uffd::Uffd;

/// Whole pages of the program's that it gives to the host, and what was found out about them.
pub(crate) struct Adoption {
    range: Range<usize>,
    survey: Survey,
}

impl Adoption {
    /// # Safety
    ///
    /// Invariant 1.
    const unsafe fn new(range: Range<usize>, survey: Survey) -> Self {
        Self { range, survey }
    }

    pub(crate) const fn start(&self) -> usize {
        self.range.start
    }

    /// In bytes.
    pub(crate) const fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    pub(crate) fn into_survey(self) -> Survey {
        self.survey
    }
}

/// Between which addresses memory was ever adopted.
pub(crate) struct OnceAdopted {
    low: AtomicUsize,
    high: AtomicUsize,
}

impl OnceAdopted {
    pub(crate) const fn new() -> Self {
        Self { low: AtomicUsize::new(usize::MAX), high: AtomicUsize::new(0) }
    }

    /// Relaxed here and below: a thread faults on adopted memory after the call that closed it, which orders
    /// this before.
    pub(crate) fn add(&self, range: &Range<usize>) {
        self.low.fetch_min(range.start, Ordering::Relaxed);
        self.high.fetch_max(range.end, Ordering::Relaxed);
    }

    pub(crate) fn contains(&self, address: usize) -> bool {
        (self.low.load(Ordering::Relaxed)..self.high.load(Ordering::Relaxed)).contains(&address)
    }
}

impl Uffd {
    /// Registers the whole pages inside `memory` where they stand; partial pages at both ends are left alone.
    ///
    /// Pages that have contents keep them; the others are missing, if `modes` asks for missing faults. Which
    /// pages they are tell [`base`](userfault_client::Region::base) and [`pages`](userfault_client::Region::pages).
    /// The memory is reached through the program's own references: windows are not lent. When the last
    /// handle is dropped the registration ends: contents stay, what is missing reads as zeros, nothing is
    /// unmapped. Poisoned pages stay inaccessible then.
    ///
    /// While this runs, and for missing pages afterwards, *system calls* on the memory fail with `EFAULT`:
    /// register before threads start that make any (H14). Huge pages are given up, and allowed again at the end.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]; everything is as before then.
    ///
    /// # Safety
    ///
    /// The memory is the caller's to give, and for as long as a page of it is registered:
    ///
    /// * it is not unmapped, moved, mapped over, protected, locked or kept from forked children (`munmap`,
    ///   `mremap`, `mmap`, `mprotect`, `mlock`, `MADV_DONTFORK`), nor its contents ended (`MADV_DONTNEED`, `MADV_FREE`, `MADV_REMOVE`), by the program or by a
    ///   library: before that, [`unregister`](userfault_client::Region::unregister) the pages, after which
    ///   they are the caller's alone; for ending contents there is [`Region::discard_adopted`]. A memory
    ///   allocator does such things when it is given memory back: keep the allocation, or tell the
    ///   allocator not to (`mallopt(M_TRIM_THRESHOLD)` for glibc's heap);
    /// * no thread needs it to take a fault: no stack or alternate signal stack is in it, no data of a
    ///   signal handler, and none that a monitor needs to answer. What of this the host can find out it
    ///   refuses; alternate stacks of other threads it cannot;
    /// * bytes that are filled into missing pages are valid for whatever refers to them.
    pub unsafe fn adopt(&self, memory: NonNull<[u8]>, modes: RegisterModes) -> Result<Region, AdoptError> {
        let context = self.context();
        context.check_process()?;
        crate::etiquette::check_signals()?;
        let start = memory.cast::<u8>().addr().get();
        let whole = start.next_multiple_of(PAGE_SIZE)..start.saturating_add(memory.len()) / PAGE_SIZE * PAGE_SIZE;
        if whole.is_empty() {
            return Err(AdoptError::NoWholePage { len_bytes: memory.len(), page_size: PAGE_SIZE });
        }
        let host = context.host;
        if !host.machine.writer.is_forced() {
            return Err(AdoptError::Uffd(UffdError::Refused {
                provider: Provider::Process,
                tried: vec![Refusal {
                    way: "adopting memory where /proc/self/mem does not write to inaccessible pages",
                    errno: Errno::EIO,
                    remedy: "boot without proc_mem.force_override=never, or map memory with the provider",
                }],
            }));
        }
        if let Some(stack) = alternate_stack_in(&whole) {
            let range = stack.start.max(whole.start)..stack.end.min(whole.end);
            return Err(AdoptError::Unfit { range, why: Unfit::AlternateStack });
        }
        let survey = Survey::of(&whole, FaultsBy::Signal)?;
        // SAFETY: the caller's promise (invariant 1).
        let adoption = unsafe { Adoption::new(whole.clone(), survey) };
        let tag = host.adopt(adoption, context.id, modes)?;
        Ok(Region::adopted(&whole, tag, context, modes))
    }
}

impl Region {
    /// Ends the contents of these pages of adopted memory: they are missing again.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::System`] with `ENOENT` if some were unregistered, or with
    /// the host's error.
    ///
    /// # Safety
    ///
    /// Nothing refers to bytes there as if they stayed: no reference is used across this call, and what is
    /// read afterwards is valid whatever it is filled with.
    pub unsafe fn discard_adopted(&self, pages: Range<usize>) -> Result<(), UffdError> {
        let inner = self.inner();
        let range = inner.range(&pages)?;
        let failed = |errno| UffdError::System { operation: "discarding adopted pages", errno };
        if !inner.is_adopted() {
            return Err(failed(Errno::EINVAL));
        }
        let host = inner.context.host;
        let blocked = SignalsBlocked::new();
        let layout = host.layout.read(&blocked);
        if !inner.has_all(&layout, range) {
            return Err(failed(Errno::ENOENT));
        }
        host.discard_in(&blocked, &layout, range).map_err(failed)
    }
}

impl Host {
    fn adopt(&self, adoption: Adoption, context: ContextId, modes: RegisterModes) -> Result<u32, AdoptError> {
        let failed = |errno| UffdError::System { operation: "adopting memory", errno };
        let mut pagemap = Pagemap::open().map_err(failed)?;
        let bytes = adoption.range.clone();
        let range = pages_of(&bytes).ok_or(failed(Errno::EINVAL))?;
        let blocked = SignalsBlocked::new();
        let mut layout = self.change_layout(&blocked);
        if layout.overlap(range) {
            return Err(AdoptError::Unfit { range: bytes, why: Unfit::Registered });
        }
        let tag = layout.add_adopted(&self.machine, adoption).map_err(|_| failed(Errno::ENOMEM))?;
        // Before any page is closed.
        self.once_adopted.add(&bytes);
        self.ranges.publish_adopted(tag, bytes.start, bytes.len() / PAGE_SIZE);
        let adopted = self.take_over(&blocked, &layout, (tag, range), context, modes, &mut pagemap);
        if adopted.is_err() {
            self.ranges.retire(tag);
            self.states().forget(range);
            let _region = layout.remove(tag);
        }
        // Everything from here on may allocate: the memory is accessible again.
        drop(layout);
        match adopted {
            Ok(()) => Ok(tag),
            Err(NotTaken::Modes) => Err(UffdError::ModesUnsupported { modes }.into()),
            Err(NotTaken::Host(errno)) => Err(failed(errno).into()),
            Err(NotTaken::LeftClosed(range, errno)) => Err(AdoptError::LeftClosed { range, errno }),
        }
    }

    /// Closes the pages, opens those with contents, and registers all; or leaves them as they are.
    ///
    /// The memory may be the program's heap: until this returns nothing is allocated.
    fn take_over(
        &self,
        blocked: &SignalsBlocked,
        layout: &Regions,
        (tag, range): (u32, PageRange),
        context: ContextId,
        modes: RegisterModes,
        pagemap: &mut Pagemap,
    ) -> Result<(), NotTaken> {
        let region = layout.get(tag).ok_or(NotTaken::Host(Errno::ENOMEM))?;
        let mapping = [region.mapping()];
        let run = region.run(range).ok_or(NotTaken::Host(Errno::EINVAL))?;
        let refused = |error| {
            if error == RegisterError::BadModes { NotTaken::Modes } else { NotTaken::Host(errno(error)) }
        };
        self.engine(blocked).registrable(context, range, modes, &mapping).map_err(refused)?;
        self.states().open(range).map_err(NotTaken::Host)?;
        region.avoid_huge_pages();
        let taken = region
            .close(&self.machine, &run)
            .and_then(|()| pagemap.present(range, |present| self.states().settle(present, PageState::Present)))
            .and_then(|()| {
                region.open_contents(&self.machine, self.states());
                self.engine(blocked).register(context, range, modes, &mapping).map_err(errno)
            });
        let Err(errno) = taken else { return Ok(()) };
        match region.undo_close(&self.machine, self.states()) {
            Ok(()) => Err(NotTaken::Host(errno)),
            Err(closed) => Err(NotTaken::LeftClosed(closed, errno)),
        }
    }

    /// Ends the registration of pages of adopted memory, which the host does not touch any more.
    pub(crate) fn give_back(&self, tag: u32, range: PageRange) -> Result<(), UffdError> {
        let blocked = SignalsBlocked::new();
        let layout = self.change_layout(&blocked);
        let kept = self.give_back_in(&blocked, &layout, tag, range);
        drop(layout);
        if kept == 0 { Ok(()) } else { Err(UffdError::StillRegistered { pages: kept, errno: Errno::ENOMEM }) }
    }

    /// How many pages could not be given back.
    fn give_back_in(&self, blocked: &SignalsBlocked, layout: &Regions, tag: u32, range: PageRange) -> usize {
        if self.machine.is_over_budget() {
            let _nothing_to_give = layout.relieve(&self.machine, self.states());
        }
        let Some((region, run)) = layout.get(tag).and_then(|region| Some((region, region.run(range)?))) else {
            return 0;
        };
        let end = |pages: PageRange| {
            // Cutting something in two may need room.
            if !self.ranges.cut(pages) {
                return false;
            }
            let Some(woken) = self.engine(blocked).removed(pages) else {
                let _nobody_else_took_the_place = self.ranges.add(pages);
                return false;
            };
            self.states().forget(pages);
            self.unpark(blocked, woken);
            true
        };
        region.runs(run).map(|run| region.give_back(&self.machine, self.states(), &run, end)).sum()
    }

    /// The last handle of adopted memory is gone.
    pub(crate) fn end_adoption(&self, tag: u32) {
        let blocked = SignalsBlocked::new();
        let mut layout = self.change_layout(&blocked);
        let Some(range) = layout.get(tag).map(crate::region::Region::range) else { return };
        let kept = self.give_back_in(&blocked, &layout, tag, range);
        if kept > 0 {
            crate::sys::warn("userfault: pages of memory that is adopted no more could not be made accessible\n");
        }
        let Some(region) = layout.remove(tag) else { return };
        for mapping in region.mappings() {
            let woken = self.engine(&blocked).removed(mapping.range).unwrap_or_default();
            self.states().forget(mapping.range);
            // Its row and its pieces; none of them has more than what is left, so this takes no room.
            let _cleared = self.ranges.cut(mapping.range);
            self.unpark(&blocked, woken);
        }
        region.forget(&self.machine);
    }
}

/// Why memory was not taken over.
enum NotTaken {
    Modes,
    Host(Errno),
    LeftClosed(Range<usize>, Errno),
}

fn pages_of(bytes: &Range<usize>) -> Option<PageRange> {
    let page = |address: usize| Page::new((address / PAGE_SIZE) as u64);
    PageRange::new(page(bytes.start), page(bytes.end))
}
