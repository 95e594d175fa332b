//! Shared memory: the pages of a file that lives in memory, mapped and registered for missing pages.
//!
//! A page here is *missing* while the file has a hole. Others who map the file can fill the hole; then the
//! page is there, and nobody is asked (H20).
//!
//! Bytes can change through other mappings at any time, so these regions lend no slices: only
//! [`Shared`](crate::Shared), which copies.
//!
//! Invariants:
//!
//! 1. Adopted memory is one shared mapping of this process, readable and writable, which its owner leaves as
//!    it is until it is given back: the contract of [`Uffd::adopt_shared`].
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)` on shared memory, `memfd_create(2)`.
#![expect(unsafe_code, reason = "adopts memory by address; invariant 1 is the caller's to keep")]

mod appear;
mod maps;

use core::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use userfault_abi::errno::Errno;
use userfault_abi::{CopyModes, RegisterModes, ZeropageModes};
use userfault_client::{Progress, Provider, UffdError};
use userfault_engine::{Fill, errno};
use userfault_memory::{Mapping, Protection};

use crate::fill::Bytes;
use crate::handle::{self, Memory, Pages, Shared};
use crate::layout::AddError;
use crate::probe;
use crate::region::Contents;
use crate::states::PAGE_SIZE;
use crate::sys::{self, Span};
use crate::uffd::Uffd;

/// Registered pages of shared memory, made by [`Uffd::map_shared`] or [`Uffd::adopt_shared`]; a cheap handle.
///
/// # Examples
///
/// ```
/// use userfault_client::abi::CopyModes;
/// use userfault_client::{Options, RegisterModes, Shared as _, Uffd as _};
/// use userfault_process::Uffd;
///
/// let uffd = Uffd::open(&Options::default())?;
/// let region = uffd.map_shared(2, RegisterModes::MISSING)?;
/// region.copy(1, &vec![7; region.page_size()], CopyModes::NONE)?.complete()?;
/// let mut byte = [0];
/// region.shared(1..2)?.read(5, &mut byte);
/// assert_eq!(byte, [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileRegion {
    pages: Arc<Pages>,
    file: Option<Arc<OwnedFd>>,
}

impl FileRegion {
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
    pub const fn page_size(&self) -> usize {
        PAGE_SIZE
    }

    /// The page that holds `address`, if it lies in the region.
    #[must_use]
    pub fn page_at(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address).ok()?.checked_sub(self.base())?;
        let page = offset / PAGE_SIZE;
        (page < self.pages()).then_some(page)
    }

    /// The file: another process that maps it sees the same contents. Its length is sealed. Adopted memory
    /// has none.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    /// Puts contents into the file beside the mapping: `pages × page_size` bytes from page `first` on.
    ///
    /// Wakes nobody. What was there is replaced.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotWholePages`], [`UffdError::OutsideRegion`]; [`UffdError::System`] if memory is short
    /// (a part may be written then).
    pub fn populate(&self, first: usize, bytes: &[u8]) -> Result<(), UffdError> {
        self.pages.populate(first, bytes)
    }

    /// Makes holes in the file, so that the pages are missing here, and zeros for everybody else who maps it.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::System`].
    pub fn punch(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.punch(&pages)
    }

    /// Fills holes of the file with `bytes`, and wakes their sleepers. It stops with
    /// [`AlreadyPresent`](userfault_client::Stopped) at a page that the file has.
    ///
    /// Others who map the file may see a page while it is written. What they write to a missing page in the
    /// moment of its fill is lost.
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

    /// Fills holes of the file with zeros, and wakes their sleepers.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    ///
    /// # Source
    ///
    /// `UFFDIO_ZEROPAGE`; `m/zeropage/kind`.
    pub fn zeropage(&self, pages: Range<usize>, modes: ZeropageModes) -> Result<Progress, UffdError> {
        self.pages.fill(self.pages.range(&pages)?, Fill::Zeropage(modes), Bytes::Zeros)
    }

    /// Wakes the threads that sleep on these pages of this mapping.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    pub fn wake(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.wake(&pages)
    }

    /// Ends the registration of these pages: holes read as zeros then, and are filled by being touched.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`] and the host's error.
    pub fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError> {
        self.pages.unregister(&pages)
    }

    /// Lends these pages for copying in and out.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::Adopted`]: its owner reaches it.
    pub fn shared(&self, pages: Range<usize>) -> Result<Shared, UffdError> {
        handle::lend_shared(&self.pages, pages)
    }
}

impl Uffd {
    /// Maps `pages` pages of a fresh file in memory, all of them holes, and registers them.
    ///
    /// Its contents are visible through the file, so they are copied out and in, never lent.
    ///
    /// # Errors
    ///
    /// [`UffdError::ModesUnsupported`] for anything but `MISSING`; [`UffdError::Refused`] where the machine
    /// maps no shared memory twice; [`UffdError::System`]. Nothing stays mapped.
    pub fn map_shared(&self, pages: usize, modes: RegisterModes) -> Result<FileRegion, UffdError> {
        self.check_shared(modes)?;
        if pages == 0 {
            return Err(UffdError::OutsideRegion { asked: 0..0, pages: 0 });
        }
        let lost = |operation| move |error: rustix::io::Errno| system(operation, Errno::from_raw(error.raw_os_error()));
        let len = pages.checked_mul(PAGE_SIZE).ok_or(system("mmap", Errno::ENOMEM))?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("userfault", flags).map_err(lost("memfd_create"))?;
        rustix::fs::ftruncate(&file, len as u64).map_err(lost("ftruncate"))?;
        // A shorter file would raise SIGBUS in the mapping, and one sealed against writes could not be punched.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(lost("fcntl(F_ADD_SEALS)"))?;
        let mapping = Mapping::reserve(len, Protection::None).map_err(|_| system("mmap", Errno::ENOMEM))?;
        sys::map_shared(Some(file.as_fd()), Span::of(&mapping, &(0..pages))).map_err(|errno| system("mmap", errno))?;
        // Without /proc whoever uses the offset of the file that is lent sees it move.
        let ours =
            maps::reopened(file.as_fd()).or_else(|_| file.try_clone().map_err(|_| system("dup", Errno::EMFILE)))?;
        let contents = Contents::OfFile { file: ours, start: 0 };
        let added = self.add_shared(mapping.base(), pages, modes, contents);
        // What is left closed is unmapped: nobody has to open it.
        let failed = |errno| system("registering shared memory", errno);
        let tag = added
            .map_err(|error| if let UffdError::LeftClosed { errno, .. } = error { failed(errno) } else { error })?;
        let pages = Pages::new(Memory::Own(Arc::new(mapping)), tag, self.context(), modes);
        Ok(FileRegion { pages: Arc::new(pages), file: Some(Arc::new(file)) })
    }

    /// Registers shared memory that the program has mapped: anonymous, or a file made by `memfd_create(2)`.
    ///
    /// Pages that have contents keep them, also those that other processes write from now on. With `file`,
    /// the memory's file, swapped-out pages are known to have contents; without it, swap must be off, and
    /// stay off. Dropping the last handle makes it plain shared memory again, with its contents. Pages that the
    /// kernel does not let be made accessible then stay inaccessible, which standard error says.
    ///
    /// # Errors
    ///
    /// [`UffdError::ModesUnsupported`] for anything but `MISSING`; [`UffdError::Refused`] with the reason
    /// for memory that is not one such mapping, or of which it cannot be told what is missing;
    /// [`UffdError::System`]. Nothing is changed then, but for [`UffdError::LeftClosed`].
    ///
    /// # Safety
    ///
    /// Until the last handle is dropped, nobody unmaps, moves, protects, locks or advises about these pages, maps over
    /// them, or changes the length or the seals of their file, which has none against writes; and while no Rust reference into them is held across
    /// [`punch`](FileRegion::punch). A page that is missing is waited for by who touches it, in a system call it
    /// is `EFAULT`.
    pub unsafe fn adopt_shared(
        &self,
        address: usize,
        pages: usize,
        file: Option<BorrowedFd<'_>>,
        modes: RegisterModes,
    ) -> Result<FileRegion, UffdError> {
        self.check_shared(modes)?;
        if pages == 0 || !address.is_multiple_of(PAGE_SIZE) {
            return Err(UffdError::OutsideRegion { asked: 0..pages, pages: 0 });
        }
        let refused = |refusal| UffdError::Refused { provider: Provider::Process, tried: vec![refusal] };
        let found = maps::adoptable(address, pages).map_err(refused)?;
        let contents = match file {
            Some(file) => found.contents_of(file)?,
            None => {
                probe::swap().map_err(refused)?;
                probe::resident(&self.context().host.machine.writer).map_err(refused)?;
                Contents::Resident
            }
        };
        let tag = self.add_shared(address, pages, modes, contents)?;
        let pages = Pages::new(Memory::AdoptedShared { base: address, pages }, tag, self.context(), modes);
        Ok(FileRegion { pages: Arc::new(pages), file: None })
    }

    fn check_shared(&self, modes: RegisterModes) -> Result<(), UffdError> {
        self.context().check_process()?;
        crate::etiquette::check_signals()?;
        if modes == RegisterModes::MISSING {
            return Ok(());
        }
        let others = modes - RegisterModes::MISSING;
        Err(UffdError::ModesUnsupported { modes: if others.is_empty() { modes } else { others } })
    }

    fn add_shared(
        &self,
        base: usize,
        pages: usize,
        modes: RegisterModes,
        contents: Contents,
    ) -> Result<u32, UffdError> {
        let host = self.context().host;
        probe::alias(&host.machine.writer)
            .map_err(|refusal| UffdError::Refused { provider: Provider::Process, tried: vec![refusal] })?;
        host.add_shared(base, pages, self.context().id, modes, contents).map_err(|error| match error {
            AddError::Register(userfault_engine::RegisterError::WrongKind) => UffdError::Unsupported {
                operation: "shared memory in the original protocol",
                provider: Provider::Process,
            },
            AddError::Register(error) => system("registering", errno(error)),
            AddError::Host(errno) => system("registering shared memory", errno),
            AddError::LeftClosed(range, errno) => UffdError::LeftClosed { range, errno },
        })
    }
}

const fn system(operation: &'static str, errno: Errno) -> UffdError {
    UffdError::System { operation, errno }
}
