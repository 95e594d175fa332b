//! Shared memory of either provider.
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)` on shared memory, `memfd_create(2)`.

use core::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use userfault_client::{Progress, RegisterModes, UffdError};
use userfault_linux as linux;
use userfault_process as process;

use crate::either::{Either, Shared, either};
use crate::uffd::Uffd;

/// Pages of a file in memory, registered with a [`Uffd`]; a cheap handle.
///
/// Other processes that map the file see what is filled here, and a page that they have written is not
/// missing. Contents are copied in and out, never lent. What only one provider has (minor faults, protection,
/// adopting) is reached through [`Either`].
///
/// Example: [`Uffd::map_shared`].
pub type FileRegion = Either<linux::FileRegion, process::FileRegion>;

impl Uffd {
    /// Maps `pages` pages of a fresh file in memory, all of them holes, and registers them for missing faults.
    ///
    /// # Errors
    ///
    /// As [`map`](userfault_client::Uffd::map); where the machine refuses what it takes, with the remedy.
    ///
    /// # Examples
    ///
    /// ```
    /// use userfault::prelude::*;
    /// use userfault::{Event, Wait};
    ///
    /// let uffd = userfault::open()?;
    /// let region = uffd.map_shared(4)?;
    /// let shared = region.shared(0..4)?;
    /// let page = vec![7; region.page_size()];
    /// let reader = std::thread::spawn({
    ///     let page = page.clone();
    ///     move || shared.compare(2 * page.len(), &page)
    /// });
    ///
    /// let mut events = Vec::new();
    /// uffd.read(Wait::Forever, &mut events)?;
    /// assert!(matches!(events[0], Event::Fault(fault) if region.page_at(fault.address) == Some(2)));
    /// assert_eq!(region.copy(2, &page)?.complete(), Ok(1));
    /// assert_eq!(reader.join().unwrap(), None, "every byte");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_shared(&self, pages: usize) -> Result<FileRegion, UffdError> {
        match self.as_either() {
            Either::Linux(uffd) => uffd.map_shared(pages, RegisterModes::MISSING).map(Either::Linux),
            Either::Process(uffd) => uffd.map_shared(pages, RegisterModes::MISSING).map(Either::Process),
        }
    }
}

impl FileRegion {
    /// Address of the first byte.
    #[must_use]
    pub fn base(&self) -> usize {
        either!(self, region => region.base())
    }

    /// Length in pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        either!(self, region => region.pages())
    }

    /// Bytes per page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        either!(self, region => region.page_size())
    }

    /// The page that holds `address`, if it lies in the region.
    #[must_use]
    pub fn page_at(&self, address: u64) -> Option<usize> {
        either!(self, region => region.page_at(address))
    }

    /// The file: another process that maps it sees the same contents. Memory that was adopted has none here.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Linux(region) => Some(region.as_fd()),
            Self::Process(region) => region.file(),
        }
    }

    /// Puts contents into the file beside the mapping, whatever was there; wakes nobody.
    ///
    /// # Errors
    ///
    /// [`UffdError::NotWholePages`], [`UffdError::OutsideRegion`], [`UffdError::Forked`], [`UffdError::System`].
    pub fn populate(&self, first: usize, bytes: &[u8]) -> Result<(), UffdError> {
        either!(self, region => region.populate(first, bytes))
    }

    /// Makes holes in the file: these pages are missing again, for everybody who has them registered.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::Forked`], [`UffdError::System`].
    pub fn punch(&self, pages: Range<usize>) -> Result<(), UffdError> {
        either!(self, region => region.punch(pages))
    }

    /// Fills holes of the file with `bytes`, and wakes their sleepers. A page that the file has stops it.
    ///
    /// # Errors
    ///
    /// As [`copy`](userfault_client::Region::copy).
    pub fn copy(&self, first: usize, bytes: &[u8]) -> Result<Progress, UffdError> {
        either!(self, region => region.copy(first, bytes, Default::default()))
    }

    /// Fills holes of the file with zeros, and wakes their sleepers.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    pub fn zeropage(&self, pages: Range<usize>) -> Result<Progress, UffdError> {
        either!(self, region => region.zeropage(pages, Default::default()))
    }

    /// Wakes the threads that sleep on these pages of this mapping.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`].
    pub fn wake(&self, pages: Range<usize>) -> Result<(), UffdError> {
        either!(self, region => region.wake(pages))
    }

    /// Ends the registration of these pages: holes read as zeros then.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`], [`UffdError::System`].
    pub fn unregister(&self, pages: Range<usize>) -> Result<(), UffdError> {
        either!(self, region => region.unregister(pages))
    }

    /// Lends these pages for copying in and out.
    ///
    /// # Errors
    ///
    /// [`UffdError::OutsideRegion`]; [`UffdError::Adopted`].
    pub fn shared(&self, pages: Range<usize>) -> Result<Shared, UffdError> {
        match self {
            Self::Linux(region) => region.shared(pages).map(Either::Linux),
            Self::Process(region) => region.shared(pages).map(Either::Process),
        }
    }
}
