//! What probes alone have: shared scratch memory, and aliases of it.
//!
//! Invariant:
//!
//! 1. [`SharedPages`] own whole pages that nobody else knows, until they are dropped.
//!
//! Kernel counterpart: `mremap(2)`.
#![expect(unsafe_code, reason = "scratch mappings; the invariant above is this file's proof")]

use std::ptr;

use userfault_abi::errno::Errno;

use crate::states::PAGE_SIZE;
use crate::sys::Span;

/// Pages of shared memory.
pub(super) struct SharedPages {
    span: Span,
}

impl SharedPages {
    /// Fresh ones.
    pub(super) fn map(pages: usize) -> Result<Self, Errno> {
        let (bits, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let len = pages * PAGE_SIZE;
        // SAFETY: at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, bits, flags, -1, 0) };
        // SAFETY: if so, mapped just now, for these alone (invariant 1).
        unsafe { Self::own(start, len) }
    }

    /// The same memory at another address.
    pub(super) fn alias(&self) -> Result<Self, Errno> {
        let start = ptr::with_exposed_provenance_mut(self.span.start());
        // SAFETY: with an old size of 0 nothing is moved, and the source stays as it is.
        let alias = unsafe { libc::mremap(start, 0, self.span.len(), libc::MREMAP_MAYMOVE) };
        // SAFETY: if so, mapped just now, for these alone (invariant 1).
        unsafe { Self::own(alias, self.span.len()) }
    }

    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// # Safety
    ///
    /// Unless it is `MAP_FAILED`, `start` begins a mapping of `len` bytes for these pages (invariant 1).
    unsafe fn own(start: *mut libc::c_void, len: usize) -> Result<Self, Errno> {
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        // SAFETY: pages of a mapping that is the caller's to give (invariant 1).
        Ok(Self { span: unsafe { Span::new(start.expose_provenance(), len) } })
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.span.start());
        // SAFETY: nobody else knows them (invariant 1).
        let _cannot_fail = unsafe { libc::munmap(start, self.span.len()) };
    }
}

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
