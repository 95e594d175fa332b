//! Shared memory: the pages of a file that lives in memory, mapped and registered.
//!
//! A page here is *missing* while the file has a hole, and *minor* while the file has the page but
//! nobody mapped it. Contents go into the file beside the mapping ([`FileRegion::populate`]), where
//! no fault is raised, and `continue_pages` maps them.
//!
//! Bytes can change through the file at any time, so these regions lend no slices: only
//! [`Shared`](crate::Shared), which copies.
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)` on shared memory, `memfd_create(2)`.

use core::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use userfault_abi::{ContinueModes, CopyModes, PoisonModes, ZeropageModes};
use userfault_client::{Progress, RegisterModes, UffdError, WriteProtect};
use userfault_memory::page_size;

use crate::context::{Context, system, whole_pages};
use crate::pages::{self, Pages};
use crate::region::{self, Shared};
use crate::sys;

/// Registered pages of a file in memory, made by [`Uffd::map_shared`](crate::Uffd::map_shared); a
/// cheap handle.
///
/// `AsFd` is the file: another process that maps it sees the same contents. Its length is sealed.
///
/// # Examples
///
/// ```
/// use userfault_client::abi::ContinueModes;
/// use userfault_client::{Event, Features, Options, RegisterModes, Shared as _, Uffd as _, UffdError, Wait};
/// use userfault_linux::Uffd;
///
/// let options = Options { require: Features::MINOR_SHMEM, ..Options::default() };
/// let Ok(uffd) = Uffd::open(&options) else {
///     return Ok(()); // refused here
/// };
/// let region = uffd.map_shared(1, RegisterModes::MINOR)?;
/// region.populate(0, &vec![7; region.page_size()])?; // in the file, not mapped
/// let memory = region.shared(0..1)?;
/// let reader = std::thread::spawn(move || {
///     let mut byte = [0];
///     memory.read(5, &mut byte);
///     byte
/// });
/// let mut events = Vec::new();
/// uffd.read(Wait::Forever, &mut events)?;
/// assert!(matches!(events[0], Event::Fault(fault) if region.page_at(fault.address) == Some(0)));
/// let _all_done = region.continue_pages(0..1, ContinueModes::NONE)?;
/// assert_eq!(reader.join().unwrap(), [7]);
/// # Ok::<(), UffdError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileRegion {
    pages: Arc<Pages>,
    file: Arc<OwnedFd>,
}

impl FileRegion {
    pub(crate) fn map(context: &Arc<Context>, pages: usize, modes: RegisterModes) -> Result<Self, UffdError> {
        context.check_process()?;
        let len = pages::len_bytes(pages)? as u64;
        let lost = |operation| move |error| system(operation, sys::errno(error));
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("userfault", flags).map_err(lost("memfd_create"))?;
        rustix::fs::ftruncate(&file, len).map_err(lost("ftruncate"))?;
        // A shorter file would raise SIGBUS in the mapping.
        let seals = SealFlags::SHRINK | SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(lost("fcntl(F_ADD_SEALS)"))?;
        let mapping = sys::place_file(region::reserve(pages)?, file.as_fd()).map_err(|errno| system("mmap", errno))?;
        let pages = Pages::register(mapping, context, modes)?;
        Ok(Self { pages: Arc::new(pages), file: Arc::new(file) })
    }

    /// Address of the first byte.
    #[must_use]
    pub fn base(&self) -> usize {
        self.pages.base()
    }

    /// Length in pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.count()
    }

    /// Bytes per page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        page_size()
    }

    /// The page that holds `address`, if it lies in the region.
    #[must_use]
    pub fn page_at(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address).ok()?.checked_sub(self.base())?;
        let page = offset / page_size();
        (page < self.pages()).then_some(page)
    }

    /// Puts contents into the file beside the mapping: `pages × page_size` bytes from page `first` on.
    ///
    /// Raises no fault and wakes nobody; touching the pages afterwards is a minor fault, or none where
    /// they are mapped. What the file had there is replaced.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotWholePages`], [`UffdError::OutsideRegion`], [`UffdError::Forked`]; [`UffdError::System`] if
    /// memory is short (a part may be written then).
    pub fn populate(&self, first: usize, bytes: &[u8]) -> Result<(), UffdError> {
        self.pages.context().check_process()?;
        let count = whole_pages(bytes)?;
        let target = self.pages.bytes(&(first..first.saturating_add(count)))?;
        let (mut offset, mut rest) = (target.start as u64, bytes);
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, rest, offset))
                .map_err(|error| system("pwrite", sys::errno(error)))?;
            rest = rest.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    /// Makes holes in the file, so that the pages are missing for everybody who maps it.
    ///
    /// Sends no event.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::Forked`], [`UffdError::System`].
    ///
    /// # Source
    ///
    /// `fallocate(2)`, `FALLOC_FL_PUNCH_HOLE`; `m/event/remove-not`.
    pub fn punch(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.context().check_process()?;
        let bytes = self.pages.bytes(&pages)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, bytes.start as u64, bytes.len() as u64)
            .map_err(|error| system("fallocate", sys::errno(error)))
    }

    /// Maps pages that the file has but the mapping does not, and wakes their sleepers.
    ///
    /// It stops with [`AlreadyPresent`](userfault_client::Stopped) at a mapped page and with
    /// `Other(EFAULT)` at a hole.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::ModesUnsupported`] for
    /// [`WP`](ContinueModes::WP) without `WP` registration.
    ///
    /// # Source
    ///
    /// `UFFDIO_CONTINUE`; `m/continue/errors`, `m/continue/effect`.
    pub fn continue_pages(&self, pages: Range<usize>, modes: ContinueModes) -> Result<Progress, UffdError> {
        self.pages.continue_pages(&pages, modes)
    }

    /// Fills holes of the file with `bytes` and maps them. A page that the file has is present.
    ///
    /// # Errors
    ///
    /// As [`copy`](userfault_client::Region::copy).
    ///
    /// # Source
    ///
    /// `UFFDIO_COPY`; `m/copy/shared`.
    pub fn copy(&self, first: usize, bytes: &[u8], modes: CopyModes) -> Result<Progress, UffdError> {
        self.pages.copy(first, bytes, modes)
    }

    /// Fills holes of the file with zeros and maps them.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    ///
    /// # Source
    ///
    /// `UFFDIO_ZEROPAGE`; `m/zeropage/kind`.
    pub fn zeropage(&self, pages: Range<usize>, modes: ZeropageModes) -> Result<Progress, UffdError> {
        self.pages.zeropage(&pages, modes)
    }

    /// Makes unmapped pages of this mapping raise SIGBUS; the file is unchanged.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::Unsupported`] on kernels before 6.6.
    ///
    /// # Source
    ///
    /// `UFFDIO_POISON`; `m/poison/file`.
    pub fn poison(&self, pages: Range<usize>, modes: PoisonModes) -> Result<Progress, UffdError> {
        self.pages.poison(&pages, modes)
    }

    /// Sets or lifts write protection; missing pages are marked too.
    ///
    /// # Errors
    ///
    /// As [`writeprotect`](userfault_client::Region::writeprotect).
    ///
    /// # Source
    ///
    /// `UFFDIO_WRITEPROTECT`; `m/writeprotect/shared`.
    pub fn writeprotect(&self, pages: Range<usize>, how: WriteProtect) -> Result<(), UffdError> {
        self.pages.writeprotect(&pages, how)
    }

    /// Wakes the threads that sleep on these pages of this mapping.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    pub fn wake(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.wake(&pages)
    }

    /// Ends the registration of these pages.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`] and the kernel's error.
    pub fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.unregister(&pages)
    }

    /// Lends these pages for copying in and out.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    pub fn shared(&self, pages: Range<usize>) -> Result<Shared, UffdError> {
        region::lend_shared(&self.pages, pages)
    }

    /// Unmaps pages, so that touching them is a minor fault again; the file keeps them.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    ///
    /// # Blocking
    ///
    /// With `EVENT_REMOVE`, until a monitor has read of it.
    pub fn unmap(&self, pages: Range<usize>) -> Result<(), UffdError> {
        region::lend_shared(&self.pages, pages.clone())?.discard(&pages)
    }
}

impl AsFd for FileRegion {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
