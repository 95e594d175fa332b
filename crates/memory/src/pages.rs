//! Whole pages of private anonymous memory: mapped, advised, unmapped. The crate's only system calls.
//!
//! Invariants:
//!
//! 1. `[base, base + len)` is one mapping made here, and nobody but its [`Pages`] unmaps it or any part of it.
//! 2. `base` is aligned to the page, `len` is a non-zero multiple of it and at most `isize::MAX`.
//! 3. `base` never changes, and this file never looks at contents.
//!
//! Kernel counterpart: `vm_area_struct`; `mmap(2)`, `munmap(2)`, `madvise(2)`.
#![expect(unsafe_code, reason = "system calls on raw mappings; the three invariants above are this file's proof")]

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::MapError;
use crate::own::Entry;
use crate::range::PageRange;

/// The page size of this machine, in bytes.
///
/// Async-signal-safe once it has been called outside of a handler; every [`Mapping`](crate::Mapping) does so.
///
/// # Examples
///
/// ```
/// let size = userfault_memory::page_size();
/// assert!(size.is_power_of_two() && size >= 4096);
/// ```
#[must_use]
pub fn page_size() -> usize {
    // Relaxed: one value that never changes, published by itself.
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    let cached = CACHED.load(Ordering::Relaxed);
    if cached != 0 {
        return cached;
    }
    // SAFETY: `sysconf` takes no pointers.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // The call cannot fail for this name; 4096 is the smallest page Linux has.
    let size = usize::try_from(answer).unwrap_or(4096);
    CACHED.store(size, Ordering::Relaxed);
    size
}

/// What a fresh mapping allows.
///
/// Example: [`Mapping`](crate::Mapping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: every touch faults.
    None,
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

impl Protection {
    const fn bits(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// A piece of advice to the kernel about pages.
///
/// ```
/// use userfault_memory::{Advice, AdviseError, Mapping, Protection, page_size};
///
/// let mapping = Mapping::reserve(4 * page_size(), Protection::ReadWrite)?;
/// mapping.advise(0..2 * page_size(), Advice::DontDump)?;
/// assert!(matches!(mapping.advise(0..1, Advice::DontDump), Err(AdviseError::Range(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Ends the contents: the pages read as zero, or are missing again where a userfaultfd is registered.
    DontNeed,
    /// Never backs these pages with huge ones: one filled page would take 2 MiB.
    NoHugePage,
    /// Backs these pages with huge ones where it can.
    HugePage,
    /// Leaves these pages out of core dumps: dumping would touch absent ones.
    DontDump,
    /// Does not give these pages to a forked child.
    DontFork,
    /// Gives a forked child zeros here.
    WipeOnFork,
}

impl Advice {
    const fn number(self) -> i32 {
        match self {
            Self::DontNeed => libc::MADV_DONTNEED,
            Self::NoHugePage => libc::MADV_NOHUGEPAGE,
            Self::HugePage => libc::MADV_HUGEPAGE,
            Self::DontDump => libc::MADV_DONTDUMP,
            Self::DontFork => libc::MADV_DONTFORK,
            Self::WipeOnFork => libc::MADV_WIPEONFORK,
        }
    }
}

/// Owned pages. Unmapped on drop.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
    /// In the table of what is ours; gone before the mapping is.
    entry: Option<Entry>,
}

// SAFETY: a mapping belongs to the process, not to a thread, and this type never touches contents (invariant 3).
unsafe impl Send for Pages {}
// SAFETY: as above; `base` and `len` never change after construction (invariant 3).
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `len_bytes`, rounded up to whole pages, at an address that is a multiple of `align_bytes`.
    pub(crate) fn reserve(len_bytes: usize, protection: Protection, align_bytes: usize) -> Result<Self, MapError> {
        if len_bytes == 0 {
            return Err(MapError::Empty);
        }
        if !align_bytes.is_power_of_two() {
            return Err(MapError::Alignment { align_bytes });
        }
        let page = page_size();
        let is_mappable = |len: &usize| isize::try_from(*len).is_ok();
        let too_large = MapError::TooLarge { len_bytes };
        let len = len_bytes.checked_next_multiple_of(page).filter(is_mappable).ok_or(too_large)?;
        let slack = align_bytes.saturating_sub(page);
        let padded = len.checked_add(slack).filter(is_mappable).ok_or(too_large)?;
        let wide = Self { base: map(padded, protection)?, len: padded, entry: None };
        let mut pages = if slack == 0 { wide } else { wide.trimmed(len, align_bytes) };
        let start = pages.base.as_ptr().addr();
        pages.entry = Entry::enter(start..start + len);
        Ok(pages)
    }

    /// Gives back everything around the first aligned `len` bytes.
    fn trimmed(self, len: usize, align_bytes: usize) -> Self {
        let head = self.base.as_ptr().addr().next_multiple_of(align_bytes) - self.base.as_ptr().addr();
        let tail = self.len - head - len;
        // SAFETY: `head + len <= self.len`, as `reserve` padded by at least `head` (invariant 1).
        let base = unsafe { self.base.add(head) };
        // SAFETY: `head + len + tail == self.len`: at most one past the end (invariant 1).
        let end = unsafe { base.add(len) };
        for (part, part_len) in [(self.base, head), (end, tail)] {
            if part_len != 0 {
                // SAFETY: the part lies in the mapping just made, outside what is kept; nobody saw it (invariant 1).
                unsafe { unmap(part, part_len) };
            }
        }
        // The kept part takes over; the whole must not be unmapped again.
        std::mem::forget(self);
        Self { base, len, entry: None }
    }

    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Passes `advice` on for `range`, which was checked against these pages. Returns the error number.
    ///
    /// # Safety
    ///
    /// For [`Advice::DontNeed`]: no Rust slice into the range is alive, or one that is alive as `&mut` is not
    /// used before it is borrowed anew.
    pub(crate) unsafe fn advise(&self, range: &PageRange, advice: Advice) -> Result<(), i32> {
        let bytes = range.bytes();
        debug_assert!(bytes.end <= self.len, "a page range is used with the mapping it was checked against");
        // SAFETY: the range lies within the mapping (invariant 1).
        let start = unsafe { self.base.add(bytes.start) };
        // SAFETY: the range is ours (invariant 1); only DontNeed changes contents, and the caller answers for it.
        let answer = unsafe { libc::madvise(start.as_ptr().cast(), bytes.len(), advice.number()) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.entry = None;
        // SAFETY: the mapping is ours and this is its last use (invariant 1).
        unsafe { unmap(self.base, self.len) };
    }
}

fn map(len: usize, protection: Protection) -> Result<NonNull<u8>, MapError> {
    // Miri knows neither NORESERVE nor protections; neither changes what a test under Miri can see.
    let (bits, reserve) =
        if cfg!(miri) { (Protection::ReadWrite.bits(), 0) } else { (protection.bits(), libc::MAP_NORESERVE) };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | reserve;
    // SAFETY: without MAP_FIXED the kernel chooses unused addresses, so no memory in use is changed.
    let address = unsafe { libc::mmap(ptr::null_mut(), len, bits, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(MapError::Os { call: "mmap", errno: last_errno() });
    }
    NonNull::new(address.cast()).ok_or(MapError::Os { call: "mmap", errno: libc::EFAULT })
}

/// # Safety
///
/// `[base, base + len)` are whole pages of a mapping made by [`map`], and nobody uses them any more.
unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller owns the range and gives it up.
    let answer = unsafe { libc::munmap(base.as_ptr().cast(), len) };
    // Whole mappings and their ends need no new area, so ENOMEM cannot happen; a failure leaks, no more.
    debug_assert_eq!(answer, 0, "munmap of a range that is ours succeeds");
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
