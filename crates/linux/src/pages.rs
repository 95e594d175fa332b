//! Registered pages of this process, whatever is behind them: private memory, a file, or the program's own.
//!
//! 1. Page numbers are checked here, once; a span made here lies in the mapping.
//! 2. The context lives as long as the mapping: were its last descriptor closed first, missing pages
//!    would read as zeros.
//! 3. With `EVENT_UNMAP` the registration ends before the mapping does. Otherwise unmapping would
//!    wait until a monitor has read of it, and the thread that drops a region may be the monitor.
//!
//! Kernel counterpart: one registered `vm_area_struct`.

use core::ops::Range;
use std::sync::Arc;

use userfault_abi::{ContinueModes, CopyModes, MoveModes, PoisonModes, ZeropageModes};
use userfault_client::{
    AdoptError, Errno, Features, IoctlMask, Progress, Provider, RegisterModes, Stopped, UffdError, Unfit, WriteProtect,
};
use userfault_memory::{Mapping, page_size};

use crate::adopt::Adopted;
use crate::context::{Context, check_pages, system, whole_pages};
use crate::sys::{self, PageRegion, Source, Span};

/// A registered mapping.
#[derive(Debug)]
pub(crate) struct Pages {
    // Dropped in this order (invariant 2).
    memory: Memory,
    context: Arc<Context>,
    modes: RegisterModes,
    ioctls: IoctlMask,
}

/// Whose memory it is.
#[derive(Debug)]
enum Memory {
    Own(Arc<Mapping>),
    Adopted(Adopted),
}

impl Pages {
    /// Registers all of `mapping`.
    pub(crate) fn register(mapping: Mapping, context: &Arc<Context>, modes: RegisterModes) -> Result<Self, UffdError> {
        let all = 0..mapping.pages();
        let span = Span::of(&mapping, &all).ok_or(UffdError::OutsideRegion { asked: all, pages: 0 })?;
        let ioctls = sys::register(context.fd(), span, modes).map_err(|errno| match errno {
            // The range is valid, mapped and ours: only the modes are left.
            Errno::EINVAL => UffdError::ModesUnsupported { modes },
            other => system("UFFDIO_REGISTER", other),
        })?;
        Ok(Self { memory: Memory::Own(Arc::new(mapping)), context: Arc::clone(context), modes, ioctls })
    }

    /// Registers all of `adopted` where it stands.
    pub(crate) fn adopt(adopted: Adopted, context: &Arc<Context>, modes: RegisterModes) -> Result<Self, AdoptError> {
        let all = 0..adopted.pages();
        let span = Span::of_adopted(&adopted, &all).ok_or(UffdError::OutsideRegion { asked: all, pages: 0 })?;
        let ioctls = sys::register(context.fd(), span, modes).map_err(|errno| match errno {
            // What is there was looked at: only the modes are left.
            Errno::EINVAL => AdoptError::Uffd(UffdError::ModesUnsupported { modes }),
            Errno::EBUSY => AdoptError::Unfit { range: adopted.bytes(), why: Unfit::Registered },
            other => AdoptError::Uffd(system("UFFDIO_REGISTER", other)),
        })?;
        Ok(Self { memory: Memory::Adopted(adopted), context: Arc::clone(context), modes, ioctls })
    }

    /// What is lent from; adopted memory is not.
    pub(crate) const fn mapping(&self) -> Result<&Arc<Mapping>, UffdError> {
        match &self.memory {
            Memory::Own(mapping) => Ok(mapping),
            Memory::Adopted(_) => Err(UffdError::Adopted),
        }
    }

    pub(crate) const fn adopted(&self) -> Option<&Adopted> {
        match &self.memory {
            Memory::Own(_) => None,
            Memory::Adopted(adopted) => Some(adopted),
        }
    }

    /// Address of the first byte.
    pub(crate) fn base(&self) -> usize {
        match &self.memory {
            Memory::Own(mapping) => mapping.base(),
            Memory::Adopted(adopted) => adopted.base(),
        }
    }

    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) const fn modes(&self) -> RegisterModes {
        self.modes
    }

    pub(crate) fn count(&self) -> usize {
        match &self.memory {
            Memory::Own(mapping) => mapping.pages(),
            Memory::Adopted(adopted) => adopted.pages(),
        }
    }

    /// In bytes from the start of the mapping.
    pub(crate) fn bytes(&self, pages: &Range<usize>) -> Result<Range<usize>, UffdError> {
        check_pages(pages, self.count())?;
        Ok(pages.start * page_size()..pages.end * page_size())
    }

    /// Makes a request about pages; `None` if some of them were given back, and are not this region's.
    fn on<R>(&self, pages: &Range<usize>, request: impl FnOnce(Span<'_>) -> R) -> Result<Option<R>, UffdError> {
        self.context.check_process()?;
        let outside = || UffdError::OutsideRegion { asked: pages.clone(), pages: self.count() };
        match &self.memory {
            Memory::Own(mapping) => Span::of(mapping, pages).map(request).map(Some).ok_or_else(outside),
            Memory::Adopted(adopted) => {
                let span = Span::of_adopted(adopted, pages).ok_or_else(outside)?;
                Ok(adopted.unless_given_back(pages, || request(span)))
            }
        }
    }

    fn fill(&self, pages: &Range<usize>, request: impl FnOnce(Span<'_>) -> Progress) -> Result<Progress, UffdError> {
        Ok(self.on(pages, request)?.unwrap_or(Progress::stopped(0, Stopped::NotRegistered)))
    }

    fn change(
        &self,
        pages: &Range<usize>,
        request: impl FnOnce(Span<'_>) -> Result<(), UffdError>,
    ) -> Result<(), UffdError> {
        self.on(pages, request)?.unwrap_or(Err(system("a request about pages that were given back", Errno::ENOENT)))
    }

    fn needs_wp(&self) -> Result<(), UffdError> {
        if self.modes.contains(RegisterModes::WP) {
            Ok(())
        } else {
            Err(UffdError::ModesUnsupported { modes: RegisterModes::WP })
        }
    }

    fn needs(&self, ioctl: IoctlMask, operation: &'static str) -> Result<(), UffdError> {
        if self.ioctls.contains(ioctl) {
            Ok(())
        } else {
            Err(UffdError::Unsupported { operation, provider: Provider::Linux })
        }
    }

    pub(crate) fn copy(&self, first: usize, bytes: &[u8], modes: CopyModes) -> Result<Progress, UffdError> {
        let count = whole_pages(bytes)?;
        if modes.contains(CopyModes::WP) {
            self.needs_wp()?;
        }
        self.fill(&(first..first.saturating_add(count)), |span| self.context.copy(span, bytes, modes))
    }

    pub(crate) fn zeropage(&self, pages: &Range<usize>, modes: ZeropageModes) -> Result<Progress, UffdError> {
        self.fill(pages, |span| self.context.zeropage(span, modes))
    }

    pub(crate) fn continue_pages(&self, pages: &Range<usize>, modes: ContinueModes) -> Result<Progress, UffdError> {
        if modes.contains(ContinueModes::WP) {
            self.needs_wp()?;
        }
        self.fill(pages, |span| self.context.continue_pages(span, modes))
    }

    pub(crate) fn poison(&self, pages: &Range<usize>, modes: PoisonModes) -> Result<Progress, UffdError> {
        self.needs(IoctlMask::POISON, "poison")?;
        self.fill(pages, |span| self.context.poison(span, modes))
    }

    pub(crate) fn move_from(&self, first: usize, source: &Source<'_>, modes: MoveModes) -> Result<Progress, UffdError> {
        let count = usize::try_from(source.len()).unwrap_or(usize::MAX) / page_size();
        self.needs(IoctlMask::MOVE, "move")?;
        self.fill(&(first..first.saturating_add(count)), |span| self.context.move_pages(span, source, modes))
    }

    pub(crate) fn writeprotect(&self, pages: &Range<usize>, how: WriteProtect) -> Result<(), UffdError> {
        self.needs_wp()?;
        self.change(pages, |span| self.context.writeprotect(span, how))
    }

    pub(crate) fn wake(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        self.change(pages, |span| self.context.wake(span))
    }

    pub(crate) fn unregister(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        let Memory::Adopted(adopted) = &self.memory else {
            return self.change(pages, |span| self.context.unregister(span));
        };
        self.context.check_process()?;
        check_pages(pages, self.count())?;
        adopted
            .give_back(pages, |run| Span::of_adopted(adopted, run).map_or(Ok(()), |span| self.context.unregister(span)))
    }

    /// Calls `found` with each run of written pages; with `protect` they start anew as unwritten.
    pub(crate) fn written(
        &self,
        pages: &Range<usize>,
        protect: bool,
        mut found: impl FnMut(Range<usize>),
    ) -> Result<(), UffdError> {
        if !self.context.features().contains(Features::WP_ASYNC) {
            return Err(UffdError::FeaturesMissing { missing: Features::WP_ASYNC });
        }
        let pagemap = self.context.pagemap()?;
        self.change(pages, |span| {
            let mut rest = span;
            let mut runs = [PageRegion { start: 0, end: 0, categories: 0 }; 64];
            loop {
                let (count, walked_to) = sys::scan_written(pagemap, rest, protect, &mut runs)
                    .map_err(|errno| system("PAGEMAP_SCAN", errno))?;
                for run in runs.iter().take(count) {
                    found(self.page_of(run.start)..self.page_of(run.end));
                }
                let walked = walked_to.checked_sub(rest.start()).filter(|walked| *walked > 0);
                match walked.and_then(|walked| rest.after(walked)) {
                    Some(left) => rest = left,
                    None => return Ok(()),
                }
            }
        })
    }

    /// The page that starts at `address`, or the end of the region.
    fn page_of(&self, address: u64) -> usize {
        let offset = address.saturating_sub(self.base() as u64);
        (usize::try_from(offset).unwrap_or(usize::MAX) / page_size()).min(self.count())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(handover) = self.context.handed_over() {
            handover.end_region(self.base());
        }
        match &self.memory {
            Memory::Own(_) if !self.context.features().contains(Features::EVENT_UNMAP) => {}
            // It can only fail for want of memory. Then unmapping waits; adopted memory stays registered until
            // the descriptor is closed.
            Memory::Own(_) | Memory::Adopted(_) => {
                let _ = self.unregister(&(0..self.count()));
            }
        }
    }
}

/// Length of `pages` pages in bytes.
pub(crate) fn len_bytes(pages: usize) -> Result<usize, UffdError> {
    if pages == 0 {
        return Err(UffdError::OutsideRegion { asked: 0..0, pages: 0 });
    }
    pages.checked_mul(page_size()).ok_or(system("mmap", Errno::ENOMEM))
}
