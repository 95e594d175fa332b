//! The program's own memory, registered where it stands, with whichever provider.
//!
//! # Invariants
//!
//! 1. What the caller promises here is, word for word, what the provider asks for: the process provider's
//!    demands are the greater ones, and stand here.
//!
//! Kernel counterpart: `UFFDIO_REGISTER`.
#![expect(
    unsafe_code,
    reason = "hands a caller's promise on to the provider; the invariant above is this file's proof"
)]

use core::ops::Range;
use core::ptr::NonNull;

use userfault_client::{AdoptError, RegisterModes, UffdError};

use crate::either::{Either, Region};
use crate::uffd::Uffd;

impl Uffd {
    /// Registers the whole pages inside `memory` where they stand; partial pages at both ends are left alone.
    ///
    /// Pages that have contents keep them; the others are missing, if `modes` asks for missing faults. Which
    /// pages they are tell [`base`](crate::client::Region::base) and [`pages`](crate::client::Region::pages).
    /// The memory is reached through the program's own references: windows are not lent. When the last
    /// handle is dropped the registration ends: contents stay, what is missing reads as zeros, nothing is
    /// unmapped.
    ///
    /// With the process provider *system calls* on the memory fail with `EFAULT` while this runs (and on
    /// missing and protected pages afterwards): register before threads start that make any. Huge pages are
    /// given up, and allowed again at the end; poisoned pages stay inaccessible then.
    ///
    /// # Errors
    ///
    /// [`AdoptError`], which says what is in the way and what to do; everything is as before then.
    ///
    /// # Safety
    ///
    /// The memory is the caller's to give, and for as long as a page of it is registered:
    ///
    /// * it is not unmapped, moved, mapped over, protected, locked or kept from forked children (`munmap`,
    ///   `mremap`, `mmap`, `mprotect`, `mlock`, `MADV_DONTFORK`), nor its contents ended (`MADV_DONTNEED`, `MADV_FREE`, `MADV_REMOVE`), by the program or by a
    ///   library: before that, [`unregister`](crate::client::Region::unregister) the pages, after which
    ///   they are the caller's alone; for ending contents there is [`Region::discard_adopted`]. A memory
    ///   allocator does such things when it is given memory back: keep the allocation, or tell the
    ///   allocator not to (`mallopt(M_TRIM_THRESHOLD)` for glibc's heap);
    /// * no thread needs it to take a fault: no stack or alternate signal stack is in it, no data of a
    ///   signal handler, and none that a monitor needs to answer: a monitor of the allocator's own memory
    ///   allocates elsewhere. What of this can be found out is refused; alternate stacks of other threads
    ///   cannot;
    /// * bytes that are filled into missing pages are valid for whatever refers to them.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::ptr::NonNull;
    /// use userfault::{RegisterModes, prelude::*};
    ///
    /// let mut array = vec![1_u8; 1 << 20];
    /// let uffd = userfault::Builder::new().open()?;
    /// // SAFETY: the vector stays as it is until the region is dropped.
    /// let region = unsafe { uffd.adopt(NonNull::from(array.as_mut_slice()), RegisterModes::MISSING)? };
    /// assert!(region.pages() >= 255);
    /// drop(region);
    /// assert!(array.iter().all(|byte| *byte == 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn adopt(&self, memory: NonNull<[u8]>, modes: RegisterModes) -> Result<Region, AdoptError> {
        match self.as_either() {
            // SAFETY: the caller's promise (invariant 1).
            Either::Linux(uffd) => unsafe { uffd.adopt(memory, modes) }.map(Either::Linux),
            // SAFETY: the caller's promise (invariant 1).
            Either::Process(uffd) => unsafe { uffd.adopt(memory, modes) }.map(Either::Process),
        }
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
    /// # Safety
    ///
    /// Nothing refers to bytes there as if they stayed: no reference is used across this call, and what is
    /// read afterwards is valid whatever it is filled with.
    pub unsafe fn discard_adopted(&self, pages: Range<usize>) -> Result<(), UffdError> {
        match self {
            // SAFETY: the caller's promise (invariant 1).
            Self::Linux(region) => unsafe { region.discard_adopted(pages) },
            // SAFETY: the caller's promise (invariant 1).
            Self::Process(region) => unsafe { region.discard_adopted(pages) },
        }
    }
}
