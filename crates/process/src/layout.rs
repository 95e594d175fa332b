//! Changes of what is registered, with what they mean for the pages.
//!
//! All of it happens with the layout lock held alone, so no fill is in progress. A thread that faults
//! meanwhile finds no registration, waits for the lock in its handler, and tries again.
//!
//! ```text
//! register     pages inaccessible (0) · find those with contents · their states · registration · open those
//! unregister   registration gone · pages plain memory · sleepers unparked
//! ```

use std::ops::Range;

use userfault_abi::errno::Errno;
use userfault_abi::{IoctlMask, RegisterModes};
use userfault_engine::{ContextId, Mapping, Page, PageRange, PageState, RegisterError, UnregisterError, errno};
use userfault_memory::Fixed;
use userfault_signal::SignalsBlocked;

use crate::host::Host;
use crate::pagemap::Pagemap;
use crate::regions::Regions;

impl Host {
    /// Makes a region of a mapping of ours, inaccessible as it is, and registers all of it.
    pub(crate) fn add_registered(
        &self,
        base: usize,
        pages: usize,
        context: ContextId,
        modes: RegisterModes,
    ) -> Result<u32, AddError> {
        let tag = self.add_plain(base, pages)?;
        let blocked = SignalsBlocked::new();
        let layout = self.change_layout(&blocked);
        let mapping = layout.get(tag).map(crate::region::Region::mapping);
        // Untouched since it was mapped: nothing has contents, so there is nothing to look for.
        let closed = layout.get(tag).map_or(Err(Errno::ENOMEM), |region| region.begin_closed(&self.machine));
        if let Err(errno) = closed {
            drop(layout);
            self.remove(tag);
            return Err(AddError::Host(errno));
        }
        let registered =
            mapping.map(|mapping| self.engine(&blocked).register(context, mapping.range, modes, &[mapping]));
        drop(layout);
        match registered {
            Some(Ok(_)) => Ok(tag),
            Some(Err(error)) => {
                self.remove(tag);
                Err(AddError::Register(error))
            }
            None => Err(AddError::Host(Errno::ENOMEM)),
        }
    }

    /// Makes a region of a mapping of ours without registering it.
    pub(crate) fn add_plain(&self, base: usize, pages: usize) -> Result<u32, AddError> {
        let blocked = SignalsBlocked::new();
        let mut layout = self.change_layout(&blocked);
        let tag = layout.add(&self.machine, base, pages).map_err(|_| AddError::Host(Errno::ENOMEM))?;
        let region = layout.get(tag).ok_or(AddError::Host(Errno::ENOMEM))?;
        if let Err(errno) = self.states().open(region.range()) {
            let _region = layout.remove(tag);
            return Err(AddError::Host(errno));
        }
        self.ranges.publish(tag, base, pages, region.mirror_base());
        Ok(tag)
    }

    /// A region's mapping is about to go: its registrations end, its sleepers retry.
    pub(crate) fn remove(&self, tag: u32) {
        let blocked = SignalsBlocked::new();
        let mut layout = self.change_layout(&blocked);
        self.ranges.retire(tag);
        let Some(region) = layout.remove(tag) else { return };
        let range = region.range();
        // A whole region is whole registrations: clearing them takes no room.
        let woken = self.engine(&blocked).removed(range).unwrap_or_default();
        self.states().forget(range);
        region.forget(&self.machine);
        drop(layout);
        self.unpark(&blocked, woken);
    }

    /// Registers what is mapped in `range`; pages that have contents keep them.
    pub(crate) fn register(
        &self,
        context: ContextId,
        range: PageRange,
        modes: RegisterModes,
    ) -> Result<IoctlMask, Errno> {
        let mut mappings = self.room_for_snapshot()?;
        let mut pagemap = Pagemap::open()?;
        let blocked = SignalsBlocked::new();
        let layout = self.change_layout(&blocked);
        layout.snapshot(range, &mut mappings);
        let mappings = mappings.as_ref();
        let engine = self.engine(&blocked);
        engine.registrable(context, range, modes, mappings).map_err(errno)?;
        let parts = || mappings.iter().filter_map(|mapping| Some((mapping, range.intersect(mapping.range)?)));
        let closed = parts().try_for_each(|(mapping, part)| {
            self.for_unregistered(&blocked, part, |gap| self.close(&layout, mapping, gap, &mut pagemap))
        });
        if let Err(errno) = closed {
            // Nothing is changed by a failed register (W22): what was closed already is plain again.
            for (_, part) in parts() {
                let _undone = self.for_unregistered(&blocked, part, |gap| {
                    self.make_plain(&layout, gap);
                    Ok(())
                });
            }
            return Err(errno);
        }
        engine.register(context, range, modes, mappings).map_err(errno)
    }

    /// Calls `work` with each part of `range` that nobody has registered.
    fn for_unregistered(
        &self,
        blocked: &SignalsBlocked,
        range: PageRange,
        mut work: impl FnMut(PageRange) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut left = Some(range);
        while let Some(part) = left {
            let (piece, is_registered) = self.piece(blocked, part);
            if !is_registered {
                work(piece)?;
            }
            left = part.from(piece.end());
        }
        Ok(())
    }

    /// Takes access away, finds out which pages have contents, and gives those access again (H11): in
    /// this order nothing can be written in between.
    fn close(&self, layout: &Regions, mapping: &Mapping, gap: PageRange, pagemap: &mut Pagemap) -> Result<(), Errno> {
        let region = layout.get(mapping.tag).ok_or(Errno::EINVAL)?;
        let run = region.run(gap).ok_or(Errno::EINVAL)?;
        self.ranges.set_plain(mapping.tag, false);
        region.close(&self.machine, &run)?;
        pagemap.present(gap, |present| {
            self.states().settle(present, PageState::Present);
            if let Some(run) = region.run(present) {
                // What cannot be opened now is opened by its first touch.
                let _later = region.open_present(&self.machine, &run);
            }
        })
    }

    /// Ends registrations; the pages are plain memory before anybody is unparked.
    pub(crate) fn unregister(&self, context: ContextId, range: PageRange) -> Result<(), UnregisterError> {
        let mut mappings = self.room_for_snapshot().map_err(|_| UnregisterError::NoMemory)?;
        let blocked = SignalsBlocked::new();
        let layout = self.change_layout(&blocked);
        layout.snapshot(range, &mut mappings);
        let mappings = mappings.as_ref();
        let woken = self.engine(&blocked).unregister(context, range, mappings)?;
        for part in mappings.iter().filter_map(|mapping| range.intersect(mapping.range)) {
            self.make_plain(&layout, part);
        }
        drop(layout);
        self.unpark(&blocked, woken);
        Ok(())
    }

    /// Pages that nobody has registered any more are plain memory, whatever they were.
    fn make_plain(&self, layout: &Regions, range: PageRange) {
        let mut left = Some(range);
        while let Some(part) = left {
            let Some(region) = layout.find(part.start()) else { return };
            if let Some(run) = region.run(part) {
                // A page that cannot be opened now is opened by its first touch.
                let opened = region.make_plain(&self.machine, self.states(), &run);
                if opened.is_ok() && region.is_plain() {
                    self.ranges.set_plain(region.tag(), true);
                }
            }
            left = part.from(region.range().end());
        }
    }

    /// The last reference to a descriptor is gone.
    pub(crate) fn release(&self, context: ContextId) {
        let blocked = SignalsBlocked::new();
        let layout = self.change_layout(&blocked);
        let engine = self.engine(&blocked);
        if !engine.begin_release(context) {
            return;
        }
        let mut from = Page::new(0);
        while let Some(released) = engine.release_range(context, from) {
            self.make_plain(&layout, released.range);
            from = released.range.end();
        }
        loop {
            let woken = engine.finish_release(context);
            let more = woken.rest.is_some();
            for waiter in woken.iter() {
                self.unpark_one(waiter);
            }
            if !more {
                break;
            }
        }
    }

    /// Room for a snapshot of the regions, made before a lock is held, and outside of the malloc heap: that
    /// may be memory of ours, and its fault under a lock would wait for itself (L2).
    pub(crate) fn room_for_snapshot(&self) -> Result<Fixed<Mapping>, Errno> {
        let blocked = SignalsBlocked::new();
        let regions = self.layout.read(&blocked).mappings();
        drop(blocked);
        // Others may add regions meanwhile; those were not there when the call began.
        Fixed::with_capacity(regions.max(1)).map_err(|_| Errno::ENOMEM)
    }
}

/// Why a region could not be made; nothing is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddError {
    Host(Errno),
    Register(RegisterError),
    /// These addresses could not be made accessible again.
    LeftClosed(Range<usize>, Errno),
}
