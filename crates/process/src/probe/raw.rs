//! What probes alone do: shared scratch memory with aliases, and a child that looks at one byte.
//!
//! Invariants:
//!
//! 1. [`SharedPages`] own whole pages that nobody else knows, until they are dropped.
//! 2. A child made here loads one byte of the host's own memory, and makes one system call: nothing that
//!    another thread of its parent could have held.
//!
//! Kernel counterpart: `mremap(2)`, `clone(2)`.
#![expect(unsafe_code, reason = "scratch mappings and a child; the two invariants above are this file's proof")]

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

/// The first byte of a readable page, as a child sees it that was forked without telling the C library.
///
/// Its end sends no signal, so the program does not hear of it.
pub(super) fn byte_in_child(page: Span) -> Result<u8, Errno> {
    let byte: *const u8 = ptr::with_exposed_provenance(page.start());
    // SAFETY: without flags it is a fork, whose child keeps to invariant 2.
    let child = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    match child {
        ..0 => return Err(last_errno()),
        0 => {
            // SAFETY: a readable page of the host's, in the child's copy (invariant 2).
            let seen = unsafe { byte.read_volatile() };
            // SAFETY: takes a number; does not return (invariant 2).
            unsafe { libc::syscall(libc::SYS_exit_group, libc::c_long::from(seen)) };
        }
        1.. => {}
    }
    let child = libc::pid_t::try_from(child).map_err(|_| Errno::ESRCH)?;
    let mut status = 0;
    // Without a signal at its end it is a child only for who asks for all.
    // SAFETY: the status is a live local.
    while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } != child {
        match last_errno() {
            Errno::EINTR => {}
            errno => return Err(errno),
        }
    }
    if !libc::WIFEXITED(status) {
        return Err(Errno::EIO);
    }
    u8::try_from(libc::WEXITSTATUS(status)).map_err(|_| Errno::EIO)
}

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
