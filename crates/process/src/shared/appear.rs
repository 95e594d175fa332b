//! Pages of shared memory that come and go by others' hands: found, opened as they are, given back.
//!
//! ```text
//! register    pages inaccessible · which have contents (the file) · their states · those accessible again
//! fault, fill a missing page that has contents all the same is opened first, and nobody is asked
//! give back   pages accessible · registration gone
//! ```
//!
//! Kernel counterpart: the look into the page cache before a fault is reported as missing.

use std::ops::Range;
use std::sync::atomic::Ordering;

use userfault_abi::RegisterModes;
use userfault_abi::errno::Errno;
use userfault_client::UffdError;
use userfault_engine::{ContextId, FillStop, Page, PageRange, PageState, Pages as _};
use userfault_signal::SignalsBlocked;

use crate::fill::Bytes;
use crate::handle::Pages;
use crate::host::Host;
use crate::layout::AddError;
use crate::region::{Contents, Region};
use crate::regions::Regions;
use crate::states::PAGE_SIZE;
use crate::sys;

impl Host {
    /// Makes a region of shared memory, inaccessible but for the pages that have contents, and registers it.
    pub(super) fn add_shared(
        &self,
        base: usize,
        pages: usize,
        context: ContextId,
        modes: RegisterModes,
        contents: Contents,
    ) -> Result<u32, AddError> {
        let blocked = SignalsBlocked::new();
        let mut layout = self.change_layout(&blocked);
        let page = |address: usize| Page::new((address / PAGE_SIZE) as u64);
        let range = PageRange::new(page(base), page(base + pages * PAGE_SIZE));
        if range.is_none_or(|range| layout.overlap(range)) {
            return Err(AddError::Host(Errno::EBUSY));
        }
        let tag = layout.add_shared(&self.machine, base, pages, contents).map_err(|_| AddError::Host(Errno::ENOMEM))?;
        self.has_shared.store(true, Ordering::Relaxed);
        let registered = match layout.get(tag) {
            Some(region) => self.register_shared(&blocked, region, tag, context, modes),
            None => Err(AddError::Host(Errno::ENOMEM)),
        };
        if registered.is_err()
            && let Some(region) = layout.remove(tag)
        {
            self.ranges.retire(tag);
            region.forget(&self.machine);
        }
        registered.map(|()| tag)
    }

    /// As `register`: pages inaccessible, those with contents found, their states, the registration (H11).
    fn register_shared(
        &self,
        blocked: &SignalsBlocked,
        region: &Region,
        tag: u32,
        context: ContextId,
        modes: RegisterModes,
    ) -> Result<(), AddError> {
        let (range, mapping) = (region.range(), [region.mapping()]);
        let engine = self.engine(blocked);
        engine.registrable(context, range, modes, &mapping).map_err(AddError::Register)?;
        self.states().open(range).map_err(AddError::Host)?;
        let all = region.run(range).ok_or(AddError::Host(Errno::EINVAL))?;
        // Before anything is closed: a thread that has met a closed page is to know it, also when it is given back.
        self.once_adopted.add(&(region.base()..region.base() + all.len() * PAGE_SIZE));
        // A forked child is to open it. It may be the program's.
        self.ranges.publish_adopted(tag, region.base(), all.end);
        let closed = region.close(&self.machine, &all).and_then(|()| self.open_found(region, &all));
        let registered = closed
            .map_err(AddError::Host)
            .and_then(|()| engine.register(context, range, modes, &mapping).map(drop).map_err(AddError::Register));
        let Err(error) = registered else { return Ok(()) };
        let errno = match &error {
            AddError::Host(errno) | AddError::LeftClosed(_, errno) => *errno,
            AddError::Register(error) => userfault_engine::errno(*error),
        };
        let undone = region.make_all_plain(&self.machine, self.states());
        Err(undone.err().map_or(error, |closed| AddError::LeftClosed(closed, errno)))
    }

    fn open_found(&self, region: &Region, all: &Range<usize>) -> Result<(), Errno> {
        let mut at = all.start;
        while at < all.end {
            let Some(found) = region.found_in(&(at..all.end))? else { break };
            self.states().settle(region.pages_of(&found), PageState::Present);
            // What cannot be opened now is opened by its first touch.
            let _later = region.open_present(&self.machine, &found);
            at = found.end;
        }
        Ok(())
    }

    /// Opens missing pages of `range` that have contents all the same. Whether any page has.
    ///
    /// The layout is held.
    ///
    /// # Errors
    ///
    /// `ENOMEM` at a page that cannot be opened: it is missing for the engine, but must not be filled.
    pub(crate) fn let_appear(
        &self,
        blocked: &SignalsBlocked,
        layout: &Regions,
        region: &Region,
        range: PageRange,
    ) -> Result<bool, Errno> {
        let Some(run) = region.run(range) else { return Ok(false) };
        let mut appeared = false;
        let mut at = run.start;
        while at < run.end {
            let Some(found) = region.found_in(&(at..run.end))? else { break };
            at = found.end;
            appeared = true;
            let mut left = Some(region.pages_of(&found));
            while let Some(part) = left {
                // Of pages that are not registered the states say nothing, and they are open.
                let Some(mut filling) = self.install(blocked, part) else { break };
                let end = self.drive(blocked, layout, &mut filling, Bytes::There);
                if end.stop == Some(FillStop::NoMemory) {
                    return Err(Errno::ENOMEM);
                }
                // The next one was known to be there.
                left = part.from(Page::new(part.start().number() + end.pages_done + 1));
            }
        }
        Ok(appeared)
    }

    /// Whether the page at `address`, missing as far as we knew, has contents from somebody else: then it is open now.
    pub(crate) fn has_appeared(&self, blocked: &SignalsBlocked, address: usize) -> bool {
        let page = Page::new((address / PAGE_SIZE) as u64);
        if self.states().get(page) != PageState::Missing {
            return false;
        }
        let layout = self.layout.read(blocked);
        let registration = self.engine(blocked).registration(page);
        let region = registration.and_then(|(_, registration)| layout.get(registration.tag));
        let Some(region) = region.filter(|region| region.is_shared()) else { return false };
        match self.let_appear(blocked, &layout, region, PageRange::one(page)) {
            Ok(has_contents) => has_contents,
            Err(Errno::ENOMEM) => {
                // It cannot be opened now, for lack of mappings: the access repeats.
                sys::yield_now();
                true
            }
            // It cannot be told: the monitor is asked.
            Err(_) => false,
        }
    }

    /// Adopted memory goes back to the program: plain, with its contents.
    pub(crate) fn give_back_shared(&self, tag: u32) {
        let blocked = SignalsBlocked::new();
        let mut layout = self.change_layout(&blocked);
        let Some(region) = layout.get(tag) else { return };
        let range = region.range();
        // A whole region is whole registrations: clearing them takes no room.
        let woken = self.engine(&blocked).removed(range).unwrap_or_default();
        // Nobody opens later what cannot be opened now: from here on the program may map something else there.
        if region.make_all_plain(&self.machine, self.states()).is_err() {
            sys::warn("userfault: pages of memory that is adopted no more could not be made accessible\n");
        }
        self.ranges.retire(tag);
        let _region = layout.remove(tag);
        drop(layout);
        self.unpark(&blocked, woken);
    }
}

impl Pages {
    /// Opens pages of shared memory that somebody else has given contents; what stopped that.
    pub(crate) fn let_appear(&self, blocked: &SignalsBlocked, layout: &Regions, range: PageRange) -> Option<Errno> {
        let region = layout.get(self.tag).filter(|region| region.is_shared())?;
        self.context.host.let_appear(blocked, layout, region, range).err()
    }

    /// Ends contents of shared memory, for everybody.
    pub(super) fn punch(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        let range = self.range(pages)?;
        let host = self.context.host;
        let system = |errno| UffdError::System { operation: "discarding", errno };
        let stopped = {
            let blocked = SignalsBlocked::new();
            self.let_appear(&blocked, &host.layout.read(&blocked), range)
        };
        stopped.map_or(Ok(()), |errno| Err(system(errno)))?;
        host.discard(range).map_err(system)
    }

    /// Replaces contents of shared memory beside the region's mapping.
    pub(super) fn populate(&self, first: usize, bytes: &[u8]) -> Result<(), UffdError> {
        let range = self.range_of_bytes(first, bytes)?;
        let host = self.context.host;
        let blocked = SignalsBlocked::new();
        let layout = host.layout.read(&blocked);
        let region = layout.get(self.tag).and_then(|region| Some((region, region.run(range)?)));
        let written =
            region.map_or(Err(Errno::ENOMEM), |(region, run)| region.write_beside(&host.machine, &run, bytes.as_ptr()));
        written.map_err(|errno| UffdError::System { operation: "writing beside the mapping", errno })
    }
}
