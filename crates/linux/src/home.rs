//! What inline answers keep of the process they are in, and a forked child does not share: descriptors that wake
//! somebody, and the view of its pages.
//!
//! Invariants:
//!
//! 1. `HOME` is null or was leaked by [`Home::begin`].
//! 2. `is_readable` hands the kernel an address, which it reads or refuses; nothing is read here.
//! 3. Nothing here but [`Home::begin`] and the makers allocates, panics or locks: handlers call it.
//!
//! Kernel counterpart: `userfaultfd_ctx`, of which there is one for each address space.
#![expect(unsafe_code, reason = "leaks, and asks the kernel about addresses; the invariants above are the proof")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};
use userfault_client::{Errno, UffdError};
use userfault_memory::page_size;
use userfault_signal::{Taken, Turn};

use crate::context::{Mark, open_pagemap, system};
use crate::inline::SLOTS;
use crate::sys;

static HOME: AtomicPtr<Home> = AtomicPtr::new(ptr::null_mut());
/// Who opens a descriptor with the SIGBUS feature, or begins to answer inline.
static BEGINNING: Turn = Turn::new();

/// The process in which the slots mean something.
pub(crate) struct Home {
    mark: Mark,
    pagemap: OnceLock<OwnedFd>,
    /// Of each slot; readable while something was filed and not read. Never closed: who rings late must not write
    /// to a stranger's file.
    bells: [OnceLock<OwnedFd>; SLOTS],
}

impl Home {
    /// That of this process; `None` in one that has none yet, as a forked child of one that does.
    pub(crate) fn get() -> Option<&'static Self> {
        // SAFETY: invariant 1.
        unsafe { HOME.load(Ordering::Acquire).as_ref() }.filter(|home| home.mark.is_here())
    }

    /// That of this process, for whose turn it is to change something. In a process that has none yet `forget` is
    /// called first: what there is belongs to its parent.
    pub(crate) fn begin(forget: impl FnOnce()) -> Result<(&'static Self, Taken<'static>), UffdError> {
        let turn = BEGINNING.take();
        if let Some(home) = Self::get() {
            return Ok((home, turn));
        }
        let mark = Mark::new()?;
        forget();
        let home = Self { mark, pagemap: OnceLock::new(), bells: [const { OnceLock::new() }; SLOTS] };
        let home = Box::leak(Box::new(home));
        HOME.store(home, Ordering::Release);
        Ok((home, turn))
    }

    pub(crate) fn make_bell(&self, slot: u32) -> Result<(), UffdError> {
        let Some(place) = self.bells.get(slot as usize).filter(|place| place.get().is_none()) else { return Ok(()) };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let _first = place.set(eventfd(0, flags).map_err(|error| system("eventfd", sys::errno(error)))?);
        Ok(())
    }

    /// Before anybody asks whether a page is lost.
    pub(crate) fn make_pagemap(&self) -> Result<(), UffdError> {
        if self.pagemap.get().is_none() {
            let _first = self.pagemap.set(open_pagemap()?);
        }
        Ok(())
    }

    pub(crate) fn bell(&self, slot: u32) -> Option<BorrowedFd<'_>> {
        self.bells.get(slot as usize)?.get().map(AsFd::as_fd)
    }

    pub(crate) fn ring(&self, slot: u32) {
        if let Some(bell) = self.bell(slot) {
            // Full means readable, too.
            let _written = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }

    /// Whether there is a page at `address` that cannot be had: a marker of poison, or one that could not be read
    /// back from swap. Who took it for missing would try for ever.
    ///
    /// Looked at several times: in between it may be discarded, and brought again.
    pub(crate) fn is_lost(&self, address: usize) -> bool {
        const LOOKS: usize = 3;
        (0..LOOKS).all(|_| self.has_entry(address) && !is_readable(address))
    }

    /// Whether the page map has a page or a marker there.
    fn has_entry(&self, address: usize) -> bool {
        const SWAPPED: u64 = 1 << 62;
        const PRESENT: u64 = 1 << 63;
        let Some(pagemap) = self.pagemap.get() else { return false };
        let mut entry = [0; size_of::<u64>()];
        let offset = (address / page_size() * entry.len()) as u64;
        let read = rustix::io::pread(pagemap, &mut entry, offset);
        read == Ok(entry.len()) && u64::from_ne_bytes(entry) & (SWAPPED | PRESENT) != 0
    }
}

/// Whether the kernel can read the word around `address` without anybody's help.
///
/// Asked by a request that is refused after it has read its argument: a missing page is `EFAULT`, and whatever is
/// there does not matter.
pub(crate) fn is_readable(address: usize) -> bool {
    const NO_SUCH_REQUEST: i32 = -1;
    const WORD: usize = size_of::<u64>();
    let word = ptr::with_exposed_provenance::<u64>(address & !(WORD - 1));
    let nowhere = ptr::null_mut::<u64>();
    // SAFETY: the kernel reads one word of user memory, or says that it cannot; then it refuses (invariant 2).
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_SUCH_REQUEST, word, nowhere, WORD) };
    answer == 0 || sys::last_errno() != Errno::EFAULT
}
