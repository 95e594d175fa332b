//! What a program does to registered memory that this crate does not: move it, and unmap it as it is.
//!
//! For who wants to see the events of that. Regions have neither: they are unregistered before they are unmapped.
//!
//! Invariant:
//!
//! 1. Both mappings are of this call, and lend nothing.
//!
//! Kernel counterpart: `mremap_userfaultfd_complete`, `userfaultfd_unmap_complete`.
#![expect(unsafe_code, reason = "moves a mapping; the invariant above is this file's proof")]

use std::mem;

use rustix::mm::MremapFlags;
use userfault_client::{RegisterModes, UffdError};
use userfault_memory::page_size;

use crate::Uffd;
use crate::context::system;
use crate::region::reserve;
use crate::sys::{self, Span};

/// Where memory was and went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The first address before.
    pub from: u64,
    /// The first address afterwards, until it was unmapped.
    pub to: u64,
    /// Bytes.
    pub len: u64,
}

/// Registers two pages, moves them, and unmaps them.
///
/// # Errors
///
/// The kernel's. Nothing stays mapped.
///
/// # Blocking
///
/// Until somebody has read the events that `uffd` has features for: REMAP, then UNMAP.
pub fn move_and_unmap(uffd: &Uffd) -> Result<Moved, UffdError> {
    let (from, to) = (reserve(2)?, reserve(2)?);
    let len = 2 * page_size();
    let moved = Moved { from: from.base() as u64, to: to.base() as u64, len: len as u64 };
    if let Some(span) = Span::of(&from, &(0..2)) {
        sys::register(uffd.context().fd(), span, RegisterModes::MISSING)
            .map_err(|errno| system("UFFDIO_REGISTER", errno))?;
    }
    // SAFETY: both are mappings of that length (invariant 1); what was at `to` is replaced.
    let answer =
        unsafe { rustix::mm::mremap_fixed(from.as_ptr().cast(), len, len, MremapFlags::MAYMOVE, to.as_ptr().cast()) };
    answer.map_err(|error| system("mremap", sys::errno(error)))?;
    // It is not there any more: whatever comes to that address is not ours to unmap.
    mem::forget(from);
    drop(to);
    Ok(moved)
}
