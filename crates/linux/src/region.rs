//! Private memory: regions and what is lent from them.
//!
//! A window lends slices, so nothing here may change bytes that were seen. Fills cannot (the kernel
//! answers `EEXIST`); discarding and moving away can, and take the window by `&mut`.
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)` on private anonymous memory.

use core::ops::Range;
use std::sync::Arc;

use userfault_abi::{CopyModes, MoveModes, PoisonModes, ZeropageModes};
use userfault_client::{Errno, Progress, RegisterModes, UffdError, WriteProtect};
use userfault_memory::{self as memory, DiscardError, LendError, MapError, Mapping, Protection, page_size};

use crate::context::{Context, check_pages, system};
use crate::pages::{self, Pages};
use crate::sys::Source;

/// Private memory that is registered with a [`Uffd`](crate::Uffd); a cheap handle.
///
/// It holds the descriptor: as long as a region or a window lives, missing pages stay missing.
///
/// Example: [`Uffd`](crate::Uffd).
#[derive(Clone, Debug)]
pub struct Region {
    pages: Arc<Pages>,
}

impl Region {
    pub(crate) fn map(context: &Arc<Context>, pages: usize, modes: RegisterModes) -> Result<Self, UffdError> {
        context.check_process()?;
        let mapping = reserve(pages)?;
        Ok(Self { pages: Arc::new(Pages::register(mapping, context, modes)?) })
    }

    pub(crate) fn of(pages: Pages) -> Self {
        Self { pages: Arc::new(pages) }
    }

    pub(crate) const fn inner(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// Fills missing pages, with every mode that COPY has.
    ///
    /// A page that is present already stops it, and wakes nobody.
    ///
    /// # Errors
    ///
    /// As [`copy`](userfault_client::Region::copy).
    ///
    /// # Source
    ///
    /// `UFFDIO_COPY`; `m/copy/wp`, `m/fill/wake`.
    pub fn copy_with(&self, first: usize, bytes: &[u8], modes: CopyModes) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, modes)
    }

    /// Fills missing pages with zeros, with every mode that ZEROPAGE has.
    ///
    /// # Errors
    ///
    /// As [`zeropage`](userfault_client::Region::zeropage).
    ///
    /// # Source
    ///
    /// `UFFDIO_ZEROPAGE`.
    pub fn zeropage_with(&self, pages: Range<usize>, modes: ZeropageModes) -> Result<Progress, UffdError> {
        self.pages.zeropage(&pages, modes)
    }

    /// Poisons missing pages, with every mode that POISON has.
    ///
    /// # Errors
    ///
    /// As [`poison`](userfault_client::Region::poison).
    ///
    /// # Source
    ///
    /// `UFFDIO_POISON`.
    pub fn poison_with(&self, pages: Range<usize>, modes: PoisonModes) -> Result<Progress, UffdError> {
        self.pages.poison(&pages, modes)
    }

    /// Moves pages out of a window to missing pages from `first` on, without copying them.
    ///
    /// `pages` counts from the start of the region that `source` was lent by, which may be this one.
    /// They are missing there afterwards. It stops with [`AlreadyPresent`](userfault_client::Stopped)
    /// at a page that is not missing here, and with `Other(ENOENT)` at one that is missing there,
    /// unless [`MoveModes::ALLOW_SRC_HOLES`] counts those as done; `Other(EBUSY)` is a page that is
    /// pinned, or shared with a forked child.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`] if the pages are not in the window or have no room here;
    /// [`UffdError::Unsupported`] on kernels before 6.8.
    ///
    /// # Source
    ///
    /// `UFFDIO_MOVE`; `m/move/page-order`, `m/move/effect`.
    pub fn move_from(
        &self,
        first: usize,
        source: &mut Window,
        pages: Range<usize>,
        modes: MoveModes,
    ) -> Result<Progress, UffdError> {
        let bytes = source.bytes(&pages)?;
        let outside = UffdError::OutsideRegion { asked: pages, pages: source.pages.count() };
        let source = Source::of(&mut source.lent, &bytes).ok_or(outside)?;
        self.pages.move_from(first, &source, modes)
    }

    /// The runs of pages that were written since they were last protected, with `WP_ASYNC`.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::FeaturesMissing`] without `WP_ASYNC`;
    /// [`UffdError::System`] without `/proc` or `WP` registration (`EPERM`).
    ///
    /// # Source
    ///
    /// `PAGEMAP_SCAN`; `m/writeprotect/async`.
    pub fn written(&self, pages: Range<usize>) -> Result<Vec<Range<usize>>, UffdError> {
        let mut runs = Vec::new();
        self.pages.written(&pages, false, |run| runs.push(run))?;
        Ok(runs)
    }

    /// As [`written`](Self::written), and protects them anew, page by page atomically: a write is
    /// either in this answer or in the next.
    ///
    /// # Errors
    ///
    /// As [`written`](Self::written).
    ///
    /// # Source
    ///
    /// `PAGEMAP_SCAN` with `PM_SCAN_WP_MATCHING`.
    pub fn take_written(&self, pages: Range<usize>) -> Result<Vec<Range<usize>>, UffdError> {
        let mut runs = Vec::new();
        self.pages.written(&pages, true, |run| runs.push(run))?;
        Ok(runs)
    }
}

impl userfault_client::Region for Region {
    type Window = Window;
    type Shared = Shared;

    fn base(&self) -> usize {
        self.pages.base()
    }

    fn pages(&self) -> usize {
        self.pages.count()
    }

    fn page_size(&self) -> usize {
        page_size()
    }

    fn copy(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, CopyModes::NONE)
    }

    fn copy_without_wake(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, CopyModes::DONTWAKE)
    }

    fn copy_protected(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, CopyModes::WP)
    }

    fn zeropage(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        self.pages.zeropage(&pages, ZeropageModes::NONE)
    }

    fn poison(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        self.pages.poison(&pages, PoisonModes::NONE)
    }

    /// # Errors
    ///
    /// Also [`UffdError::System`]: `EAGAIN` while an event waits to be read (then nothing changed);
    /// `ENOENT` where a part was unregistered (what lies before it changed).
    fn writeprotect(&self, pages: Range<usize>, how: WriteProtect) -> Result<(), UffdError> {
        self.pages.writeprotect(&pages, how)
    }

    fn wake(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.wake(&pages)
    }

    fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.unregister(&pages)
    }

    fn populate(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.context().check_process()?;
        let bytes = self.pages.bytes(&pages)?;
        let outside = |_| UffdError::OutsideRegion { asked: pages, pages: self.pages.count() };
        self.pages.mapping()?.populate(bytes).map_err(outside)
    }

    fn window(&self, pages: Range<usize>) -> Result<Window, UffdError> {
        let bytes = self.pages.bytes(&pages)?;
        let lent = self.pages.mapping()?.window(bytes).map_err(|error| refused(error, pages))?;
        Ok(Window { lent, pages: Arc::clone(&self.pages) })
    }

    fn shared(&self, pages: Range<usize>) -> Result<Shared, UffdError> {
        lend_shared(&self.pages, pages)
    }

    /// # Blocking
    ///
    /// With `EVENT_REMOVE`, until a monitor has read of it: not for the monitor's own thread.
    fn discard(&self, window: &mut Window, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.context().check_process()?;
        self.pages.mapping()?;
        if !Arc::ptr_eq(&self.pages, &window.pages) {
            return Err(UffdError::ForeignWindow);
        }
        let bytes = window.bytes(&pages)?;
        window.lent.discard_plain(bytes).map_err(kept)
    }

    /// # Blocking
    ///
    /// As [`discard`](userfault_client::Region::discard).
    fn discard_shared(&self, shared: &Shared, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.mapping()?;
        if !Arc::ptr_eq(&self.pages, &shared.pages) {
            return Err(UffdError::ForeignWindow);
        }
        shared.discard(&pages)
    }
}

/// Pages of a region, lent exclusively as slices.
///
/// Touching a missing page sleeps until it is answered; what was read stays as it is until
/// [`discard`](userfault_client::Region::discard) or [`move_from`](Region::move_from) takes it away,
/// and neither can while a slice is borrowed:
///
/// ```compile_fail,E0502
/// # use userfault_client::{Region as _, Uffd as _, UffdError};
/// fn slice_over_discard(region: &userfault_linux::Region) -> Result<(), UffdError> {
///     let mut window = region.window(0..1)?;
///     let slice = window.as_ref();
///     region.discard(&mut window, 0..1)?;
///     assert_eq!(slice[0], 0);
///     Ok(())
/// }
/// ```
///
/// Example: [`Uffd`](crate::Uffd).
#[derive(Debug)]
pub struct Window {
    // Dropped in this order.
    lent: memory::Window,
    pages: Arc<Pages>,
}

impl Window {
    /// Which pages of the region these are.
    #[must_use]
    pub fn pages(&self) -> Range<usize> {
        let bytes = self.lent.range();
        bytes.start / page_size()..bytes.end / page_size()
    }

    /// Cuts the window in two, before the region's page `page`.
    ///
    /// # Errors
    ///
    /// The window itself if `page` is not inside it or is its first.
    pub fn split_before(self, page: usize) -> Result<(Self, Self), Self> {
        let own = self.pages();
        if page <= own.start || page >= own.end {
            return Err(self);
        }
        let (first, second) = self.lent.split_at((page - own.start) * page_size());
        let pages = Arc::clone(&self.pages);
        Ok((Self { lent: first, pages: self.pages }, Self { lent: second, pages }))
    }

    /// Pages of the region as bytes of the window.
    fn bytes(&self, pages: &Range<usize>) -> Result<Range<usize>, UffdError> {
        inside(pages, &self.pages(), self.pages.count())
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self.lent.as_slice()
    }
}

impl AsMut<[u8]> for Window {
    fn as_mut(&mut self) -> &mut [u8] {
        self.lent.as_mut_slice()
    }
}

/// Pages of a region, lent for copying in and out; cheap to clone.
///
/// Example: [`Uffd`](crate::Uffd).
#[derive(Clone, Debug)]
pub struct Shared {
    // Dropped in this order.
    lent: memory::Shared,
    pages: Arc<Pages>,
}

impl Shared {
    /// Which pages of the region these are.
    #[must_use]
    pub fn pages(&self) -> Range<usize> {
        let bytes = self.lent.range();
        bytes.start / page_size()..bytes.end / page_size()
    }

    /// Drops what is mapped in these pages of the region.
    pub(crate) fn discard(&self, pages: &Range<usize>) -> Result<(), UffdError> {
        self.pages.context().check_process()?;
        let bytes = inside(pages, &self.pages(), self.pages.count())?;
        self.lent.discard_plain(bytes).map_err(kept)
    }
}

impl userfault_client::Shared for Shared {
    fn len_bytes(&self) -> usize {
        self.lent.len()
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        if let Err(error) = self.lent.read(offset, into) {
            panic!("{error}");
        }
    }

    fn write(&self, offset: usize, from: &[u8]) {
        if let Err(error) = self.lent.write(offset, from) {
            panic!("{error}");
        }
    }

    fn compare(&self, offset: usize, expected: &[u8]) -> Option<usize> {
        let len = self.lent.len();
        let is_inside = len.checked_sub(offset).is_some_and(|left| expected.len() <= left);
        assert!(is_inside, "{} bytes at {offset} are not in {len}", expected.len());
        self.lent.compare(offset, expected)
    }
}

/// Lends pages, of private memory or of a file, for copying.
pub(crate) fn lend_shared(region: &Arc<Pages>, pages: Range<usize>) -> Result<Shared, UffdError> {
    let bytes = region.bytes(&pages)?;
    let lent = region.mapping()?.shared(bytes).map_err(|error| refused(error, pages))?;
    Ok(Shared { lent, pages: Arc::clone(region) })
}

/// Address space for `pages` pages.
pub(crate) fn reserve(pages: usize) -> Result<Mapping, UffdError> {
    Mapping::reserve(pages::len_bytes(pages)?, Protection::ReadWrite).map_err(|error| {
        let errno = if let MapError::Os { errno, .. } = error { Errno::from_raw(errno) } else { Errno::ENOMEM };
        system("mmap", errno)
    })
}

/// `pages` of the region as bytes of what was lent of it, if they lie in it.
fn inside(pages: &Range<usize>, lent: &Range<usize>, count: usize) -> Result<Range<usize>, UffdError> {
    check_pages(pages, count)?;
    if pages.start < lent.start || pages.end > lent.end {
        return Err(UffdError::OutsideRegion { asked: pages.clone(), pages: count });
    }
    Ok((pages.start - lent.start) * page_size()..(pages.end - lent.start) * page_size())
}

/// The range was checked before, so it is lent.
fn refused(_: LendError, asked: Range<usize>) -> UffdError {
    UffdError::Lent { asked }
}

fn kept(error: DiscardError) -> UffdError {
    let errno = if let DiscardError::Os { errno } = error { Errno::from_raw(errno) } else { Errno::EINVAL };
    system("madvise(MADV_DONTNEED)", errno)
}
