//! Registered pages of this process, whatever is behind them: private memory or a file.
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
use userfault_client::{Errno, Features, IoctlMask, Progress, Provider, RegisterModes, UffdError, WriteProtect};
use userfault_memory::{Mapping, page_size};

use crate::context::{Context, check_pages, system, whole_pages};
use crate::sys::{self, PageRegion, Source, Span};

/// A registered mapping.
#[derive(Debug)]
pub(crate) struct Pages {
    // Dropped in this order (invariant 2).
    mapping: Arc<Mapping>,
    context: Arc<Context>,
    modes: RegisterModes,
    ioctls: IoctlMask,
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
        Ok(Self { mapping: Arc::new(mapping), context: Arc::clone(context), modes, ioctls })
    }

    pub(crate) const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    pub(crate) const fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn count(&self) -> usize {
        self.mapping.pages()
    }

    /// In bytes from the start of the mapping.
    pub(crate) fn bytes(&self, pages: &Range<usize>) -> Result<Range<usize>, UffdError> {
        check_pages(pages, self.count())?;
        Ok(pages.start * page_size()..pages.end * page_size())
    }

    fn span(&self, pages: &Range<usize>) -> Result<Span<'_>, UffdError> {
        self.context.check_process()?;
        Span::of(&self.mapping, pages)
            .ok_or_else(|| UffdError::OutsideRegion { asked: pages.clone(), pages: self.count() })
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
        let span = self.span(&(first..first.saturating_add(count)))?;
        if modes.contains(CopyModes::WP) {
            self.needs_wp()?;
        }
        Ok(self.context.copy(span, bytes, modes))
    }

    pub(crate) fn zeropage(&self, pages: &Range<usize>, modes: ZeropageModes) -> Result<Progress, UffdError> {
        Ok(self.context.zeropage(self.span(pages)?, modes))
    }

    pub(crate) fn continue_pages(&self, pages: &Range<usize>, modes: ContinueModes) -> Result<Progress, UffdError> {
        let span = self.span(pages)?;
        if modes.contains(ContinueModes::WP) {
            self.needs_wp()?;
        }
        Ok(self.context.continue_pages(span, modes))
    }

    pub(crate) fn poison(&self, pages: &Range<usize>, modes: PoisonModes) -> Result<Progress, UffdError> {
        let span = self.span(pages)?;
        self.needs(IoctlMask::POISON, "poison")?;
        Ok(self.context.poison(span, modes))
    }

    pub(crate) fn move_from(&self, first: usize, source: &Source<'_>, modes: MoveModes) -> Result<Progress, UffdError> {
        let count = usize::try_from(source.len()).unwrap_or(usize::MAX) / page_size();
        let span = self.span(&(first..first.saturating_add(count)))?;
        self.needs(IoctlMask::MOVE, "move")?;
        Ok(self.context.move_pages(span, source, modes))
    }

    pub(crate) fn writeprotect(&self, pages: &Range<usize>, how: WriteProtect) -> Result<(), UffdError> {
        let span = self.span(pages)?;
        self.needs_wp()?;
        self.context.writeprotect(span, how)
    }

    pub(crate) fn wake(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        self.context.wake(self.span(pages)?)
    }

    pub(crate) fn unregister(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        self.context.unregister(self.span(pages)?)
    }

    /// Calls `found` with each run of written pages; with `protect` they start anew as unwritten.
    pub(crate) fn written(
        &self,
        pages: &Range<usize>,
        protect: bool,
        mut found: impl FnMut(Range<usize>),
    ) -> Result<(), UffdError> {
        let mut rest = self.span(pages)?;
        if !self.context.features().contains(Features::WP_ASYNC) {
            return Err(UffdError::FeaturesMissing { missing: Features::WP_ASYNC });
        }
        let pagemap = self.context.pagemap()?;
        let mut runs = [PageRegion { start: 0, end: 0, categories: 0 }; 64];
        loop {
            let (count, walked_to) =
                sys::scan_written(pagemap, rest, protect, &mut runs).map_err(|errno| system("PAGEMAP_SCAN", errno))?;
            for run in runs.iter().take(count) {
                found(self.page_of(run.start)..self.page_of(run.end));
            }
            let walked = walked_to.checked_sub(rest.start()).filter(|walked| *walked > 0);
            match walked.and_then(|walked| rest.after(walked)) {
                Some(left) => rest = left,
                None => return Ok(()),
            }
        }
    }

    /// The page that starts at `address`, or the end of the region.
    fn page_of(&self, address: u64) -> usize {
        let offset = address.saturating_sub(self.mapping.base() as u64);
        (usize::try_from(offset).unwrap_or(usize::MAX) / page_size()).min(self.count())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.context.features().contains(Features::EVENT_UNMAP)
            && let Ok(span) = self.span(&(0..self.count()))
        {
            // Unregistering our own mapping can only fail for want of memory; then unmapping waits.
            let _ = sys::unregister(self.context.fd(), span);
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
